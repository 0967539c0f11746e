//! This process's real memory, moved by userfaultfd.
//!
//! Pages of the program migrate to VRAM by leaving their place: `UFFDIO_MOVE` takes the page itself from the
//! program's address to a frame of the tile's arena, without copying and without a moment in which a write could
//! be lost. A CPU touch of a page that left raises a fault, a reader thread asks the engine to bring the window
//! home, and the toucher never knows.
//!
//! # The parts, along the way of a page
//!
//! | module | what |
//! |---|---|
//! | `vma` | what lies at an address, and what must never migrate |
//! | `ours` | what is the library's own, and refused to everybody |
//! | `presence` | what is there, by the kernel's word |
//! | `walk` | pages as a device will use them (`hmm_range_fault`) |
//! | `claim`, `commit`, `entry` | claim and stage, commit and finish (`migrate_vma_*`); a page on its way |
//! | `registration` | which chunks are watched |
//! | `transfer`, `leg`, `copying` | the move, and the copy where a move cannot be |
//! | `stray` | copies that are no migration |
//! | `airlock` | how a page leaves without ever being another mapping's |
//! | `arena`, `frames` | VRAM: frames, who is in them, filling and emptying them |
//! | `map`, `numbered` | per page of the program: home, and who is at it |
//! | `events`, `remap`, `forget` | munmap, mremap, DONTNEED taken in |
//! | `quarantine` | pages that a DONTNEED is about to drop |
//! | `reader` | the threads that answer CPU faults |
//! | `notifier` | the engine's notifiers and their sequences |
//! | `gate` | why no device runs on a page whose munmap has returned |
//! | `home` | fork, the end, wrappers: everything comes home |
//! | `sys` | the kernel; the only `unsafe` |
//!
//! # Two userfaultfds
//!
//! The first has the program's chunks (MISSING, with events), the second the arenas (MISSING, as SIGBUS: a touch of
//! an empty frame returns at once, an exact detector of stale translations). What leaves the program moves by the
//! first into an airlock and by the second out of it; what comes home moves by the first, with its source in the
//! second; tile to tile goes by the second.
//!
//! The kernel refuses the first descriptor's ioctls (EAGAIN) from the moment in which a munmap, mremap or DONTNEED
//! begins to the moment in which its event was read and its thread has run again. So each of them is exact: it
//! happens before the change, or not at all.
//!
//! # Locking
//!
//! In this order; each is short, none is held over a callback into the engine, over a touch of the program's
//! memory, or over a wait for a message to be read:
//!
//! 1. `Gate` (closed by who reads; device accesses wait for it before they begin, holding nothing of ours)
//! 2. `Gate::intake`: shared by movers, from a look at the page map to the note of what the ioctl did, and over
//!    REGISTER and UNREGISTER; exclusive by who reads. These ioctls wait for kernel locks only
//! 3. `registration`: over REGISTER and UNREGISTER
//! 4. an airlock's lane; `scratch`; `deferred`
//! 5. `map`: the page map; plain bookkeeping only
//! 6. `own_drops`, `excluded`, `queue.*`, the notifier table: leaves
//!
//! A signal handler of the program must not run on a thread that is inside of this crate: it may touch a page in
//! VRAM, and the reader that serves the fault may need a lock that the interrupted thread holds. Callers block
//! signals first.
//!
//! # Threads of the reader class
//!
//! A reader thread never waits for another thread but for those locks, and for what [`PagemapOps`] in the engine
//! does. Whoever meets EAGAIN reads the events itself, so nobody depends on a reader that is busy. A claim of
//! pages on their way home is never refused, not even while a fork is near.
//!
//! # Measured surprises (Linux 6.18)
//!
//! * SIGBUS and MOVE agree: a userfaultfd with UFFD_FEATURE_SIGBUS takes and gives pages by UFFDIO_MOVE.
//! * `UFFDIO_COPY` of nothing tells whether an event is on its way: EAGAIN comes before EINVAL.
//! * UFFDIO_MOVE keeps a transient EAGAIN of its inner loop: pages that moved after it are not counted (met again:
//!   EEXIST), and with ALLOW_SRC_HOLES a hole after it is met for ever, in the kernel. See `sys::uffd`.
//! * The kernel gives an unmapped address to another thread before the event of the munmap is read. A move by a
//!   descriptor that does not see the event moves that thread's page. Hence the airlock.
//! * mremap may put a registered mapping at the very place that is being unregistered. Hence the second look there.
//! * REGISTER passes over holes, and a munmap of what is not registered yet raises no event: memory that is mapped
//!   into such a hole afterwards is not registered. Noted nevertheless, it lost writes. Hence the other second look.
//! * ZEROPAGE and COPY may say ENOENT of a mapping whose munmap began after their look for events.
//! * A registered mapping that grows in place is registered where it grew, without an event.
//! * A transfer that was translated before an mremap is not a pair of *wrong page tables*, and must not be copied as
//!   one: both places may be other mappings' by then. See `stray`.
//! * A REMOVE event tells the beginning of a DONTNEED and nothing tells its end. MADV_FREE raises the same event.
//! * Mappings with nothing in VRAM are not registered, so nothing tells of their munmap but a wrapper.
//!
//! [`PagemapOps`]: hostmm::PagemapOps

extern crate alloc;

mod airlock;
mod arena;
mod claim;
mod commit;
mod copying;
mod entry;
mod events;
pub mod floor;
mod forget;
mod frames;
mod gate;
mod home;
mod host;
mod leg;
mod map;
mod notifier;
mod numbered;
mod ours;
mod presence;
mod quarantine;
mod reader;
mod region;
mod registration;
mod remap;
mod stats;
mod stray;
#[allow(unsafe_code)]
mod sys;
mod transfer;
mod vma;
mod walk;

pub use region::{PageSize, Region};
pub use stats::Stats;
pub use sys::access::{Chained, swap_chained};

use std::sync::Arc;
use sync::atomic::AtomicU32;
use sync::{Condvar, JoinHandle, Mutex};
use sys::uffd::{Source, Uffd, feature};
use sys::{Errno, mem, task};
use units::{HostRange, SZ_2M};

/// How pages travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// UFFDIO_MOVE (Linux 6.8): the page itself.
    Move,
    /// Write protection, copy, drop; home by UFFDIO_COPY. Slower, pinned pages are not noticed, and a write can be lost
    /// where a program maps an address anew (`docs/soundness.md`): so it must be asked for.
    Copy,
}

/// What the kernel lets us do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privilege {
    /// Every touch of a page in VRAM is served, the kernel's own too.
    Full,
    /// System calls that meet a page in VRAM fail with EFAULT.
    UserModeOnly,
}

/// What to start with.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How pages shall travel.
    pub transport: Transport,
    /// Reader threads; `None`: one a CPU, at most 8.
    pub readers: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self { transport: Transport::Move, readers: None }
    }
}

/// Why it cannot start at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The kernel's error number.
    pub errno: i32,
    /// What was refused.
    pub what: &'static str,
}

impl Refused {
    /// What the user may type, one command or sentence each; any one of them is enough.
    pub fn remedies(&self) -> &'static [&'static str] {
        if self.what == NO_MOVE {
            return &["pontoon run --no-move -- PROGRAM (copies pages instead of moving them)", "Linux 6.8 or newer"];
        }
        &[
            "sudo sysctl vm.unprivileged_userfaultfd=1",
            "sudo chmod 666 /dev/userfaultfd",
            "run with CAP_SYS_PTRACE (for example as root)",
        ]
    }
}

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} refused (errno {})", self.what, self.errno)
    }
}

impl core::error::Error for Refused {}

/// What a kernel before 6.8 refuses.
const NO_MOVE: &str = "UFFDIO_MOVE";

const LIFE_RUNNING: u32 = 0;
const LIFE_STOPPING: u32 = 1;
const LIFE_DEAD: u32 = 2;

/// The memory management of this process: implements [`HostMm`](hostmm::HostMm) and
/// [`HostMemory`](hostmm::HostMemory). One a process is enough; several work side by side, but a chunk
/// belongs to the first that registers it.
pub struct LiveMm {
    /// The first userfaultfd: the program's chunks.
    program: Uffd,
    /// The second: the arenas.
    device: Uffd,
    maps: sys::maps::Maps,
    pagemap: sys::pagemap::Pagemap,
    kick: task::Kick,
    gate: gate::Gate,
    registration: Mutex<()>,
    map: Mutex<map::PageMap>,
    /// Signalled with `map`: a claim ended, or a freeze.
    claims_changed: Condvar,
    notifiers: notifier::Notifiers,
    /// 2M where pages go to be dropped.
    scratch: Mutex<HostRange>,
    airlock: airlock::Airlock,
    /// mremaps that wait for an earlier event.
    deferred: Mutex<Vec<remap::Remap>>,
    /// DONTNEEDs of our own, whose events say nothing.
    own_drops: Mutex<Vec<HostRange>>,
    excluded: Mutex<Vec<HostRange>>,
    ours: ours::Ours,
    queue: events::Queue,
    places: arena::Places,
    counters: stats::Counters,
    transport: Transport,
    privilege: Privilege,
    life: AtomicU32,
    readers: Mutex<Vec<JoinHandle>>,
}

impl LiveMm {
    /// Opens userfaultfd, installs the fixup of SIGSEGV and SIGBUS, and starts the readers. End it with
    /// [`stop`](Self::stop): what is in VRAM when the process simply exits is gone with it.
    pub fn start(config: Config) -> Result<Arc<Self>, Refused> {
        let refused = |what: &'static str| move |errno: Errno| Refused { errno: errno.0, what };
        let transport = config.transport;
        let (features, can_move) = match transport {
            Transport::Move => (feature::EVENTS | feature::MOVE | feature::POISON, feature::MOVE),
            Transport::Copy => (feature::EVENTS | feature::WP, 0),
        };
        let (program, source) = Uffd::open(features).map_err(|errno| {
            let cannot_move = transport == Transport::Move && errno == Errno::INVAL;
            refused(if cannot_move { NO_MOVE } else { "userfaultfd" })(errno)
        })?;
        let (device, _) = Uffd::open(feature::SIGBUS | can_move).map_err(refused("userfaultfd for VRAM"))?;
        let scratch = mem::map_arena(SZ_2M).map_err(refused("memory"))?;
        device.register(scratch, sys::uffd::Watch::Missing).map_err(refused("registration of memory"))?;
        let airlock = airlock::Airlock::new(&program).map_err(refused("registration of memory"))?;
        let ours = airlock.ranges();
        sys::access::install();
        let mm = Arc::new(Self {
            program,
            device,
            maps: sys::maps::Maps::open().map_err(refused("/proc/self/maps"))?,
            pagemap: sys::pagemap::Pagemap::open().map_err(refused("/proc/self/pagemap"))?,
            kick: task::Kick::new().map_err(refused("eventfd"))?,
            gate: gate::Gate::new(),
            registration: Mutex::new(()),
            map: Mutex::new(map::PageMap::default()),
            claims_changed: Condvar::new(),
            notifiers: notifier::Notifiers::new(),
            scratch: Mutex::new(scratch),
            own_drops: Mutex::new(Vec::new()),
            excluded: Mutex::new(Vec::new()),
            ours: ours::Ours::new(),
            airlock,
            deferred: Mutex::new(Vec::new()),
            queue: events::Queue::new(),
            places: arena::Places::default(),
            counters: stats::Counters::default(),
            transport,
            privilege: if source == Source::UserModeOnly { Privilege::UserModeOnly } else { Privilege::Full },
            life: AtomicU32::new(LIFE_RUNNING),
            readers: Mutex::new(Vec::new()),
        });
        ours.into_iter().chain([scratch]).for_each(|range| mm.own(range));
        mm.start_readers(config.readers);
        Ok(mm)
    }

    /// Starts, or says why not.
    #[cfg(test)]
    fn start_for_test() -> Option<Arc<Self>> {
        Self::start(Config::default()).inspect_err(|_| skipped("userfaultfd refused")).ok()
    }

    fn start_readers(self: &Arc<Self>, wanted: Option<u32>) {
        let cpus = task::cpus();
        let allowed: Vec<u32> = (0..64).filter(|cpu| cpus >> cpu & 1 != 0).collect();
        let count = wanted.unwrap_or(allowed.len().min(8) as u32).max(1);
        let handles = (0..count).map(|number| {
            let cpu = allowed[number as usize % allowed.len()];
            let mm = Arc::clone(self);
            sync::spawn("pontoon-reader", move || reader::run(&mm, cpu))
        });
        let handles: Vec<JoinHandle> = handles.collect();
        *self.readers.lock() = handles;
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        self.counters.snapshot()
    }

    /// How pages travel.
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether a look-up of a mapping is quick: PROCMAP_QUERY, Linux 6.11. Else the text of /proc/self/maps is read.
    pub const fn has_quick_look_ups(&self) -> bool {
        self.maps.can_query()
    }

    /// What the kernel lets us do.
    pub const fn privilege(&self) -> Privilege {
        self.privilege
    }

    /// Every descriptor of ours. The program must not close them, and a forked child closes them: they belong to the
    /// memory of its parent.
    pub fn descriptors(&self) -> [i32; 5] {
        [self.program.raw(), self.device.raw(), self.kick.raw(), self.maps.raw(), self.pagemap.raw()]
    }

    fn is_stopping(&self) -> bool {
        self.life.load() != LIFE_RUNNING
    }
}

impl Drop for LiveMm {
    fn drop(&mut self) {
        let map = self.map.get_mut();
        for id in 0..map.arenas.len() {
            mem::unmap(self.places.range(hostmm::PagemapId(id as u16)));
        }
        mem::unmap(*self.scratch.get_mut());
        self.airlock.close(&self.program);
    }
}

/// Says that a test did not run, past the harness, which keeps what passing tests print. In CI nothing may skip.
#[cfg(test)]
fn skipped(why: &str) {
    use std::io::Write;
    assert!(std::env::var_os("PONTOON_CI").is_none(), "CI must not skip: {why}");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
