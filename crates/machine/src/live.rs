//! The machine on this process's real memory.
//!
//! It is started once a process (by the preload library, or by a bench), lives beside the program's threads, and
//! must be shut down before the process ends: pages that are in VRAM then would be lost.
//!
//! Fork: [`Live::fork_prepare`] parks the engines and brings everything back, because a child inherits no VRAM; the
//! parent goes on with [`Live::fork_parent`], the child must never touch the machine again.

use crate::behaviour::{self, Behaviours};
use crate::bus::SystemAccess;
use crate::hostile::Hostile;
use crate::ledger::Ledger;
use crate::pool::{Cores, MAX_PROCESSES, Pool, Server};
use crate::profile::Profile;
use crate::report::{Memory, Report};
use crate::wiring::{Core, Plan};
pub use hostmm::EventKind;
use hostmm::HostMemory;
use mm_live::{LiveMm, Privilege, Refused, Transport};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use sync::{Mutex, SpawnError};
use units::{HostRange, HostVa};
use xe_hw::Injection;
use xe_kmd::{Errno, File};

pub use mm_live::{SharedWords, Transport as Travel, fix_up, high_numbers, is_stopped, label_in};

/// All that a program may map.
const ALL: HostRange = HostRange::new(HostVa(0), HostVa(1 << 47));

/// What to start with.
#[derive(Clone, Debug)]
pub struct LiveConfig {
    /// The devices.
    pub devices: Vec<Profile>,
    /// Behaviours, as on the command line.
    pub behaviours: String,
    /// How pages travel.
    pub travel: Travel,
    /// Words of a pool, where other processes use the devices, too.
    pub shared: Option<Arc<SharedWords>>,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self { devices: vec![Profile::default()], behaviours: String::new(), travel: Travel::Move, shared: None }
    }
}

/// Why there is no machine. Its text is for the user and says what to type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StartError {
    /// A device that cannot be.
    Device(String),
    /// A behaviour that does not exist.
    Behaviour(String),
    /// The kernel refuses userfaultfd.
    Refused(Refused),
    /// As many processes as can be use the devices.
    Processes,
    /// The device did not probe.
    Probe(Errno),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(text) | Self::Behaviour(text) => f.write_str(text),
            Self::Refused(refused) => {
                write!(f, "memory cannot be moved: {refused}; any one of these helps:")?;
                refused.remedies().iter().try_for_each(|remedy| write!(f, "\n  {remedy}"))
            }
            Self::Processes => write!(f, "{MAX_PROCESSES} processes of this run use the device, and no more can"),
            Self::Probe(errno) => write!(f, "the device did not start: {errno}"),
        }
    }
}

impl std::error::Error for StartError {}

/// The machine of this process.
pub struct Live {
    /// The first device, and the others.
    core: Arc<Core>,
    others: Vec<Arc<Core>>,
    mm: Arc<LiveMm>,
    hostile: Mutex<Option<Hostile>>,
    shared: Option<Arc<SharedWords>>,
    /// Evicts for other processes.
    server: Option<Server>,
    /// Frames in use when the engines had stopped and nothing had migrated back yet.
    last: Mutex<Option<Frames>>,
}

/// Frames of each tile that hold pages: by our accounts, and by the kernel's word (mincore) at the same moment.
#[derive(Clone, Debug)]
struct Frames {
    accounted: Vec<u64>,
    mincore: Vec<u64>,
}

impl Live {
    /// Opens userfaultfd, starts its readers, and probes the device.
    pub fn start(config: &LiveConfig) -> Result<Arc<Self>, StartError> {
        let Behaviours { driver, mm } = behaviour::parse(&config.behaviours).map_err(StartError::Behaviour)?;
        let platforms = config.devices.iter().map(Profile::platform).collect::<Result<Vec<_>, _>>();
        let platforms = platforms.map_err(StartError::Device)?;
        let pool = match &config.shared {
            Some(words) => Some(Pool::join(words.clone(), &platforms).ok_or(StartError::Processes)?),
            None => None,
        };
        let mm = LiveMm::start(mm_live::Config { transport: config.travel, rules: mm, ..Default::default() })
            .map_err(StartError::Refused)?;
        config.shared.iter().for_each(|words| mm.own(words.range()));
        let plan = Plan {
            platforms,
            rules: driver,
            injection: Injection::default(),
            mm: mm.clone(),
            memory: mm.clone(),
            system: SystemAccess::MayBlock,
            pool,
        };
        let cores = Core::all(&plan).map_err(StartError::Probe)?;
        if let Some(refused) = mm.unplaced() {
            return Err(StartError::Refused(refused));
        }
        let server = plan.pool.as_ref().map(|pool| Server::start(pool, Cores::of(&cores))).transpose();
        let server = server.map_err(|SpawnError| StartError::Refused(Refused::no_thread()))?;
        let mut cores = cores.into_iter();
        let core = cores.next().ok_or_else(|| StartError::Device("a machine needs a device".into()))?;
        let (hostile, last, shared) = (Mutex::new(None), Mutex::new(None), config.shared.clone());
        Ok(Arc::new(Self { core, others: cores.collect(), mm, hostile, shared, server, last }))
    }

    /// Migrates everything from now on: for those who have exclusions to make between start and this.
    ///
    /// # Errors
    /// The system gave no thread.
    pub fn begin_hostility(&self) -> Result<(), SpawnError> {
        let mut hostile = self.hostile.lock();
        if hostile.is_none() {
            *hostile = Some(Hostile::start(self.cores().cloned().collect(), self.mm.clone())?);
        }
        Ok(())
    }

    /// Driver and hardware of the first device.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Driver and hardware of all devices, in their order.
    pub fn cores(&self) -> impl Iterator<Item = &Arc<Core>> + Clone {
        [&self.core].into_iter().chain(&self.others)
    }

    /// The process's memory.
    pub fn mm(&self) -> &Arc<LiveMm> {
        &self.mm
    }

    /// Opens the first device.
    pub fn open(&self) -> Arc<File> {
        self.core.device().open()
    }

    /// Descriptors that belong to the machine, and not to the program.
    pub fn descriptors(&self) -> Vec<i32> {
        self.mm.descriptors().into_iter().chain(self.descriptor_of_locks()).collect()
    }

    /// The one of them that has locks: they say that this process lives, so no other process may have it.
    pub fn descriptor_of_locks(&self) -> Option<i32> {
        self.shared.as_ref().map(|words| words.descriptor())
    }

    /// What is limited on this kernel and for this user, in one line; `None` where nothing is.
    pub fn limits(&self) -> Option<&'static str> {
        match (self.mm.privilege(), self.mm.transport()) {
            (Privilege::UserModeOnly, _) => Some(
                "limited: system calls that meet a page in VRAM fail with EFAULT, or write less than they should: databases \
                 stop there (to lift this: sudo sysctl vm.unprivileged_userfaultfd=1, or run with CAP_SYS_PTRACE: as root, in a \
                 container with docker run --cap-add SYS_PTRACE)",
            ),
            (Privilege::Full, Transport::Copy) => Some("limited: pages are copied, not moved"),
            (Privilege::Full, Transport::Move) => None,
        }
    }

    /// Reads the program's memory as its own thread would, a bad address being an error and no signal.
    pub fn copy_from_user(&self, from: HostVa, buf: &mut [u8]) -> Result<(), Errno> {
        self.mm.copy_from_user(from, buf).map_err(|_| Errno::EFAULT)
    }

    /// Writes it likewise.
    pub fn copy_to_user(&self, to: HostVa, bytes: &[u8]) -> Result<(), Errno> {
        self.mm.copy_to_user(to, bytes).map_err(|_| Errno::EFAULT)
    }

    /// Never migrate this memory; what of it is in VRAM migrates back.
    pub fn exclude(&self, range: HostRange) {
        self.mm.exclude(range);
        self.because(range, "it is to stay in system memory", || self.mm.migrate_pages_back(range));
    }

    /// Runs a change of the program's mappings with `range` in system memory; as an invalidation of that kind where there is one.
    pub fn around_change(&self, range: HostRange, kind: Option<EventKind>, change: impl FnOnce()) {
        self.mm.while_in_system(range, kind, change);
    }

    /// Runs a change after which nothing of `range` is mapped as it was; the GPU forgets it, wherever it is.
    pub fn around_unmap(&self, range: HostRange, change: impl FnOnce()) {
        self.mm.while_invalidated(range, EventKind::Unmap, change);
    }

    /// Runs a change for which the kernel raises an event, where it raises one at all.
    pub fn around_emptying(&self, change: impl FnOnce()) {
        self.mm.let_pass();
        change();
    }

    /// Quiet before a fork: no engine steps, no job runs, nothing is in VRAM, and nothing goes there. False where some page would
    /// not migrate back for ten seconds.
    #[must_use]
    pub fn fork_prepare(&self) -> bool {
        if let Some(hostile) = &*self.hostile.lock() {
            hostile.pause();
        }
        self.cores().for_each(|core| core.device().park_jobs());
        self.cores().for_each(|core| core.engines().park());
        self.because(ALL, "a fork", || self.mm.migrate_all_back())
    }

    /// Does some work, and keeps for a record why pages go meanwhile.
    fn because<R>(&self, range: HostRange, why: &'static str, work: impl FnOnce() -> R) -> R {
        Ledger::because(self.cores().map(|core| &**core.ledger()), range, why, work)
    }

    /// Goes on after a fork, in the parent.
    pub fn fork_parent(&self) {
        self.mm.thaw();
        for core in self.cores() {
            core.engines().unpark();
            core.device().unpark_jobs();
        }
        if let Some(hostile) = &*self.hostile.lock() {
            hostile.resume();
        }
    }

    /// Brings everything back and stops. False where some page would not migrate back for ten seconds; then the memory
    /// stays as it is.
    #[must_use]
    pub fn shutdown(&self) -> bool {
        if let Some(hostile) = self.hostile.lock().take() {
            hostile.stop();
        }
        self.cores().for_each(|core| core.device().stop_jobs());
        self.cores().for_each(|core| core.engines().stop());
        if let Some(server) = &self.server {
            server.stop();
        }
        *self.last.lock() = Some(self.frames());
        self.because(ALL, "the end of the process", || self.mm.stop())
    }

    fn frames(&self) -> Frames {
        let pagemaps = || self.core.interconnect().pagemaps();
        Frames {
            accounted: pagemaps().map(|id| self.mm.resident_frames(id)).collect(),
            mincore: pagemaps().map(|id| self.mm.mincore_frames(id)).collect(),
        }
    }

    fn mechanism(&self) -> String {
        let pages = match (self.mm.transport(), self.mm.privilege()) {
            (Transport::Move, Privilege::Full) => "userfaultfd: pages move",
            (Transport::Move, Privilege::UserModeOnly) => "userfaultfd, user mode only: pages move",
            (Transport::Copy, _) => "userfaultfd: pages are copied",
        };
        let look_ups = if self.mm.has_quick_look_ups() { "" } else { ", look-ups read /proc/self/maps" };
        format!("{pages}{look_ups}")
    }

    /// What happened so far. Frames are told as they were just before everything migrated back, once it has.
    pub fn report(&self) -> Report {
        let stats = self.mm.stats();
        let frames = self.last.lock().clone().unwrap_or_else(|| self.frames());
        let memory = Memory {
            mechanism: self.mechanism(),
            accounted_frames: frames.accounted,
            mincore_frames: frames.mincore,
            counters: stats.named().into_iter().map(|(name, n)| (name.to_owned(), n)).collect::<BTreeMap<_, _>>(),
        };
        Report::of(self.cores(), memory)
    }
}
