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
//! | `vma`, `ours` | what lies at an address, what must never migrate, what is the library's own |
//! | `residency` | what is there, by the kernel's word |
//! | `walk` | pages as a device will use them (`hmm_range_fault`) |
//! | `claim`, `commit`, `finish` | a migration (`migrate_vma_*`) |
//! | `registration` | which chunks are watched |
//! | `transfer`, `bounce`, `copying` | the move, and the copy where a move cannot be |
//! | `objects` | memory of buffer objects, which does not migrate |
//! | `unstaged` | copies that are no migration |
//! | `places`, `fill` | where VRAM is; filling and emptying it |
//! | `books` | what is known of pages, frames and migrations; plain data |
//! | `events`, `remap`, `forget` | munmap, mremap, DONTNEED taken in |
//! | `reader` | the threads that answer CPU faults |
//! | `notifier` | the engine's notifiers and their sequences |
//! | `aside` | events that are read while a debugger has stopped the readers |
//! | `barrier` | why no device runs on a page whose munmap has returned |
//! | `turns` | why nobody starves where mappings change all the time |
//! | `migrate_back`, `life` | wrappers, fork, the end: pages migrate back to system memory |
//! | `observe` | for observers: where a page lives, what is resident |
//! | `rules`, `planted` | decisions as a table; mistakes on purpose, for the checker to find |
//! | `kernel` | what is asked of a kernel, as a trait; `mm-sim` has a model of one |
//! | `calls` | calls of a kernel, counted by kind |
//! | `sys` | the real one; the only `unsafe` |
//!
//! # Two userfaultfds
//!
//! The first has the program's chunks (MISSING, with events), the second the arenas (MISSING, as SIGBUS: a touch of
//! an empty frame returns at once, an exact detector of stale translations). What leaves the program moves by the
//! first into the bounce buffer and by the second out of it; what migrates back moves by the first, with its source in the
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
//! 1. `Barrier` (closed by who reads; device accesses wait for it before they begin, holding nothing of ours)
//! 2. its events lock: shared by movers, from a look at the books to the note of what the ioctl did, and over
//!    REGISTER and UNREGISTER; exclusive by who reads. These ioctls wait for kernel locks only
//! 3. `registration`: over REGISTER and UNREGISTER
//! 4. a bounce buffer; `deferred`
//! 5. `books`; plain bookkeeping only
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
//! pages on their way back is never refused, not even while a fork is near.
//!
//! # Measured surprises (Linux 6.18)
//!
//! * SIGBUS and MOVE agree: a userfaultfd with UFFD_FEATURE_SIGBUS takes and gives pages by UFFDIO_MOVE.
//! * `UFFDIO_COPY` of nothing shows whether an event is on its way: EAGAIN comes before EINVAL.
//! * UFFDIO_MOVE keeps a transient EAGAIN of its inner loop: pages that moved after it are not counted (met again:
//!   EEXIST), and with ALLOW_SRC_HOLES a hole after it is met for ever, in the kernel. See `sys::uffd`.
//! * The kernel gives an unmapped address to another thread before the event of the munmap is read. A move by a
//!   descriptor that does not see the event moves that thread's page. Hence the bounce buffer.
//! * mremap may put a registered mapping at the very place that is being unregistered. Hence the second look there.
//! * REGISTER passes over holes, and a munmap of what is not registered yet raises no event: memory that is mapped
//!   into such a hole afterwards is not registered. Noted nevertheless, it lost writes. Hence the other second look.
//! * ZEROPAGE and COPY may say ENOENT of a mapping whose munmap began after their look for events.
//! * A registered mapping that grows in place is registered where it grew, without an event.
//! * A transfer that was translated before an mremap is not a pair of *wrong page tables*, and must not be copied as
//!   one: both places may be other mappings' by then. See `unstaged`.
//! * A REMOVE event is raised when a DONTNEED begins, and none when it ends. MADV_FREE raises the same event.
//! * Mappings with nothing in VRAM are not registered, so only a wrapper sees their munmap.
//!
//! [`PagemapOps`]: hostmm::PagemapOps

extern crate alloc;

mod aside;
mod barrier;
mod books;
mod bounce;
mod calls;
mod claim;
mod commit;
mod copying;
mod events;
mod fill;
mod finish;
pub mod floor;
mod forget;
mod held;
mod host;
pub mod kernel;
mod life;
mod migrate_back;
mod notifier;
mod objects;
mod observe;
mod ours;
mod places;
pub mod planted;
mod ranks;
mod reader;
mod region;
mod registration;
mod remap;
mod rescue;
mod rules;
mod stats;
#[allow(unsafe_code)]
mod sys;
mod transfer;
mod turns;
mod unstaged;
mod vma;
mod walk;

pub use calls::Calls;
pub use objects::label_in;
pub use region::{PageSize, Region};
pub use rules::Rules;
pub use stats::Stats;
pub use sys::access::fix_up;
pub use sys::descriptor::high_numbers;
pub use sys::words::{SharedWords, Words, is_stopped};

use kernel::{Errno, Kernel};
use std::sync::Arc;
use sync::atomic::{AtomicBool, AtomicU32};
use sync::rank::{self, Rank};
use sync::{Condvar, JoinHandle, Mutex};
use units::HostRange;

/// How pages travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// UFFDIO_MOVE (Linux 6.8): the page itself.
    Move,
    /// Write protection, copy, drop; back by UFFDIO_COPY. Slower, pinned pages are not noticed, and a write can be lost
    /// where a program maps an address anew (`docs/soundness.md`): so it must be asked for.
    Copy,
}

/// The real kernel, for tests that compare a model with it.
#[doc(hidden)]
pub fn linux(transport: Transport) -> Result<Arc<dyn Kernel>, Refused> {
    let opened = sys::linux::Linux::open(transport)?;
    Ok(Arc::new(opened.kernel))
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
    /// Decisions.
    pub rules: Rules,
}

impl Default for Config {
    fn default() -> Self {
        Self { transport: Transport::Move, readers: None, rules: Rules::CORRECT }
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
    /// The system gave no thread.
    pub const fn no_thread() -> Self {
        Self { errno: libc::EAGAIN, what: NO_THREAD }
    }

    /// Whether the system gave no thread.
    pub fn is_for_want_of_threads(&self) -> bool {
        self.what == NO_THREAD
    }

    /// Whether the process may not have so many addresses.
    pub fn is_for_want_of_room(&self) -> bool {
        self.what == NO_ROOM || self.errno == libc::ENOMEM
    }

    /// What the user may type, one command or sentence each; any one of them is enough.
    pub fn remedies(&self) -> &'static [&'static str] {
        if self.what == NO_MOVE {
            return &["pontoon run --no-move -- PROGRAM (copies pages instead of moving them)", "Linux 6.8 or newer"];
        }
        if self.is_for_want_of_threads() {
            return &["allow this user more threads (ulimit -u)"];
        }
        if self.is_for_want_of_room() {
            return &[
                "less VRAM: pontoon run --vram 64M -- PROGRAM",
                "allow this process more addresses (ulimit -v) and data (ulimit -d)",
            ];
        }
        if sys::task::is_filtered() && matches!(self.errno, libc::EPERM | libc::ENOSYS) {
            return &[
                "a container that allows the call: docker run --security-opt seccomp=unconfined (its system calls are filtered)",
                "where the filter is not the reason: sudo sysctl vm.unprivileged_userfaultfd=1",
            ];
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
const NO_THREAD: &str = "a thread that answers page faults, or evicts";
const NO_ROOM: &str = "room for the VRAM of all tiles";

const LIFE_RUNNING: u32 = 0;
const LIFE_STOPPING: u32 = 1;
const LIFE_DEAD: u32 = 2;

/// The memory management of this process: implements [`HostMm`](hostmm::HostMm) and
/// [`HostMemory`](hostmm::HostMemory). One a process is enough; several work side by side, but a chunk
/// belongs to the first that registers it.
pub struct LiveMm {
    kernel: Arc<dyn Kernel>,
    /// The same.
    counted: Arc<calls::Counted>,
    barrier: barrier::Barrier,
    /// What a process outside has read; `None` on a model of a kernel.
    aside: Option<aside::Aside>,
    /// Whose bytes VRAM and bounce buffers hold, for that process.
    homes: Option<Arc<sys::homes::Homes>>,
    registration: Mutex<()>,
    books: Mutex<books::Books>,
    /// Signalled with `books`: a claim ended, or a freeze.
    claims_changed: Condvar,
    notifiers: notifier::Notifiers,
    bounce: bounce::Bounce,
    /// mremaps that wait for an earlier event.
    deferred: Mutex<Vec<remap::Remap>>,
    /// How many: looked at before each ioctl.
    deferred_count: AtomicU32,
    /// DONTNEEDs of our own, whose events say nothing.
    own_drops: Mutex<Vec<HostRange>>,
    excluded: Mutex<Vec<HostRange>>,
    ours: ours::Ours,
    objects: objects::Objects,
    queue: events::Queue,
    places: places::Places,
    /// Why the VRAM of a pagemap has no place: an error number; 0 where all have one.
    unplaced: AtomicU32,
    turns: turns::Turns,
    counters: stats::Counters,
    transport: Transport,
    rules: Rules,
    privilege: Privilege,
    quick_look_ups: bool,
    life: AtomicU32,
    /// What migrates back is not reported: it ends.
    silent: AtomicBool,
    readers: Mutex<Vec<JoinHandle>>,
}

impl LiveMm {
    /// Opens userfaultfd, installs the fixup of SIGSEGV and SIGBUS, and starts the readers. End it with
    /// [`stop`](Self::stop): what is in VRAM when the process simply exits is gone with it.
    pub fn start(config: Config) -> Result<Arc<Self>, Refused> {
        let opened = sys::linux::Linux::open(config.transport)?;
        let linux = Arc::new(opened.kernel);
        Self::start_on(linux.clone(), config, opened.privilege, Some(linux))
    }

    /// Why a pagemap that was inserted has no VRAM, where one has none.
    pub fn unplaced(&self) -> Option<Refused> {
        let errno = self.unplaced.load() as i32;
        (errno != 0).then_some(Refused { errno, what: NO_ROOM })
    }

    /// As [`start`](Self::start), on a kernel that is given: a model of one.
    pub fn on(kernel: Arc<dyn Kernel>, config: Config) -> Result<Arc<Self>, Refused> {
        Self::start_on(kernel, config, Privilege::Full, None)
    }

    fn start_on(
        kernel: Arc<dyn Kernel>,
        config: Config,
        privilege: Privilege,
        linux: Option<Arc<sys::linux::Linux>>,
    ) -> Result<Arc<Self>, Refused> {
        let refused = |what: &'static str| move |errno: Errno| Refused { errno: errno.0, what };
        let counted = Arc::new(calls::Counted::new(kernel));
        let kernel: Arc<dyn Kernel> = counted.clone();
        let bounce = bounce::Bounce::new(&*kernel).map_err(refused("registration of memory"))?;
        let buffers = bounce.ranges().to_vec();
        let homes = linux.as_ref().map(|_| Arc::new(sys::homes::Homes::default()));
        let books = books::Books { homes: homes.clone(), ..books::Books::default() };
        let mm = Arc::new(Self {
            kernel,
            counted,
            barrier: barrier::Barrier::new(),
            quick_look_ups: linux.as_ref().is_none_or(|linux| linux.has_quick_look_ups()),
            aside: linux.map(aside::Aside::new),
            registration: rank::mutex(ranks::REGISTRATION, ()),
            homes,
            books: rank::mutex(ranks::BOOKS, books),
            claims_changed: Condvar::new(),
            notifiers: notifier::Notifiers::new(config.rules),
            own_drops: rank::mutex(Rank::LEAF, Vec::new()),
            excluded: rank::mutex(Rank::LEAF, Vec::new()),
            ours: ours::Ours::new(),
            objects: objects::Objects::new(),
            bounce,
            deferred: rank::mutex(ranks::DEFERRED, Vec::new()),
            deferred_count: AtomicU32::new(0),
            queue: events::Queue::new(),
            places: places::Places::default(),
            unplaced: AtomicU32::new(0),
            turns: turns::Turns::new(),
            counters: stats::Counters::default(),
            transport: config.transport,
            rules: config.rules,
            privilege,
            life: AtomicU32::new(LIFE_RUNNING),
            silent: AtomicBool::new(false),
            readers: Mutex::new(Vec::new()),
        });
        buffers.into_iter().for_each(|range| mm.own(range));
        mm.start_readers(config.readers).map_err(refused(NO_THREAD))?;
        Ok(mm)
    }

    /// Starts, or says why not.
    #[cfg(test)]
    fn start_for_test() -> Option<Arc<Self>> {
        Self::start(Config::default()).inspect_err(|_| skipped("userfaultfd refused")).ok()
    }

    /// As many as wanted, or as the system gives, if that is one at least.
    fn start_readers(self: &Arc<Self>, wanted: Option<u32>) -> Result<(), Errno> {
        let count = wanted.unwrap_or(self.kernel.cpus()).max(1);
        let handles = (0..count).map_while(|number| {
            let mm = Arc::clone(self);
            sync::try_spawn_daemon("pontoon-reader", move || reader::run(&mm, number)).ok()
        });
        let handles: Vec<JoinHandle> = handles.collect();
        if handles.is_empty() {
            return Err(Errno::AGAIN);
        }
        *self.readers.lock() = handles;
        Ok(())
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
        self.quick_look_ups
    }

    /// What the kernel lets us do.
    pub const fn privilege(&self) -> Privilege {
        self.privilege
    }

    /// Calls of the kernel since the start, by kind.
    pub fn calls(&self) -> Calls {
        self.counted.calls()
    }

    /// Every descriptor of ours. The program must not close them, and a forked child closes them: they belong to the
    /// memory of its parent.
    pub fn descriptors(&self) -> Vec<i32> {
        self.kernel.descriptors()
    }

    fn is_stopping(&self) -> bool {
        self.life.load() != LIFE_RUNNING
    }
}

impl Drop for LiveMm {
    fn drop(&mut self) {
        for id in 0..self.books.get_mut().arenas.len() {
            self.kernel.unmap_arena(self.places.range(hostmm::PagemapId(id as u16)));
        }
        self.bounce.close(&*self.kernel);
        self.objects.close(&*self.kernel);
    }
}

/// Says that a test did not run, past the harness, which keeps what passing tests print. In CI nothing may skip.
#[cfg(test)]
fn skipped(why: &str) {
    use std::io::Write;
    assert!(std::env::var_os("PONTOON_CI").is_none(), "CI must not skip: {why}");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
