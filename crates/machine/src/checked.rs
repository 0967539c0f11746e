//! The machine on the simulated mm: everything it does is decided by the schedule of `sync`'s checker.

use crate::behaviour::Behaviours;
use crate::bus::SystemAccess;
use crate::program::Program;
use crate::story::Story;
use crate::wiring::{Core, Plan};
use hostmm::{AccessError, EventKind, HostMemory, HostMm, Place};
use mm_live::LiveMm;
use mm_sim::{Sim, SimKernel};
use std::sync::Arc;
use units::{Dpa, HostFrame, HostRange, SZ_1G, SZ_2M};
use xe_hw::Injection;
use xe_kmd::Errno;
use xe_spec::platform::{DEVICE_DPA_BASE, PVC, Platform, Tile};

pub use mm_sim::{Advice as MemoryAdvice, ChildId, Config, CpuError, Injection as MmInjection, MapKind, Remap};

/// Who manages the simulated process' memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Manner {
    /// The kernel itself: told before each change, callers held, migration entries.
    #[default]
    Linux,
    /// mm-live, as it ships, on the kernel's userfaultfd.
    Userfaultfd,
}

/// A PVC with little memory, so that thousands of them can be built in a second. All rules are PVC's.
pub const PVC_SMALL: Platform = Platform {
    name: "pvc-small",
    tiles: &[
        Tile {
            vram_base: DEVICE_DPA_BASE,
            vram_size: 8 * SZ_2M,
            tables_base: Dpa(DEVICE_DPA_BASE.0 + SZ_1G),
            tables_size: SZ_2M,
        },
        Tile {
            vram_base: Dpa(DEVICE_DPA_BASE.0 + 2 * SZ_1G),
            vram_size: 8 * SZ_2M,
            tables_base: Dpa(DEVICE_DPA_BASE.0 + 3 * SZ_1G),
            tables_size: SZ_2M,
        },
    ],
    ..PVC
};

/// A machine and the simulated process that it stands in.
pub struct Checked {
    /// Driver and hardware of the first device.
    pub core: Arc<Core>,
    /// Those of the others.
    pub others: Vec<Arc<Core>>,
    /// The process's memory.
    pub sim: Arc<Sim>,
    live: Option<Arc<LiveMm>>,
}

/// Readers of the process' faults: two can be at one page.
const READERS: u32 = 2;

impl Checked {
    /// A fresh process with a fresh device.
    pub fn new(config: Config, manner: Manner, behaviours: Behaviours, injection: Injection) -> Result<Self, Errno> {
        Self::build(config, manner, behaviours, injection, &[&PVC_SMALL], Core::all)
    }

    /// A fresh process with these devices.
    pub fn with_devices(config: Config, manner: Manner, platforms: &[&'static Platform]) -> Result<Self, Errno> {
        Self::build(config, manner, Behaviours::CORRECT, Injection::default(), platforms, Core::all)
    }

    /// The same, with somebody who writes down what happens: the ledger stays empty.
    pub fn told(
        config: Config,
        manner: Manner,
        behaviours: Behaviours,
        injection: Injection,
        story: &Arc<Story>,
    ) -> Result<Self, Errno> {
        let watched = |plan: &Plan| Core::all_watched(plan, story);
        let checked = Self::build(config, manner, behaviours, injection, &[&PVC_SMALL], watched)?;
        story.watch(checked.core.gpu());
        Ok(checked)
    }

    fn build(
        config: Config,
        manner: Manner,
        behaviours: Behaviours,
        injection: Injection,
        platforms: &[&'static Platform],
        cores: impl FnOnce(&Plan) -> Result<Vec<Arc<Core>>, Errno>,
    ) -> Result<Self, Errno> {
        let Behaviours { driver: rules, mm: decisions } = behaviours;
        let sim = Sim::new(config);
        let live = match manner {
            Manner::Linux => None,
            Manner::Userfaultfd => {
                let config = mm_live::Config { readers: Some(READERS), rules: decisions, ..mm_live::Config::default() };
                Some(LiveMm::on(SimKernel::new(&sim, READERS), config).map_err(|_| Errno::ENOMEM)?)
            }
        };
        let (mm, memory): (Arc<dyn HostMm>, Arc<dyn HostMemory>) = match &live {
            Some(live) => (live.clone(), live.clone()),
            None => (sim.clone(), sim.clone()),
        };
        let system = if live.is_some() { SystemAccess::MayBlock } else { SystemAccess::AtOnce };
        let plan = Plan { platforms: platforms.to_vec(), rules, injection, mm, memory, system };
        let mut cores = cores(&plan)?.into_iter();
        Ok(Self { core: cores.next().ok_or(Errno::EINVAL)?, others: cores.collect(), sim, live })
    }

    /// mm-live, where it manages the memory: for what it counts and looks at.
    pub fn live(&self) -> Option<&Arc<LiveMm>> {
        self.live.as_ref()
    }

    /// Waits until the driver was told of every change of mappings so far.
    pub fn settle(&self) {
        if let Some(live) = &self.live {
            live.settle();
        }
    }

    /// A change of mappings that the preload library wraps (mremap, mprotect): where somebody moves the process' memory, it
    /// migrates back before, and the driver is told of the change where the kernel tells nobody.
    pub fn around_change<R>(&self, range: HostRange, told: Option<EventKind>, change: impl FnOnce() -> R) -> R {
        match &self.live {
            Some(live) => live.while_home(range, told, change),
            None => change(),
        }
    }

    /// A fork, as the preload library prepares it: where somebody moves the process' memory, all of it migrates back before.
    /// `EAGAIN` where some cannot: there is no child.
    pub fn fork(&self) -> Result<ChildId, Errno> {
        let Some(live) = &self.live else { return Ok(self.sim.fork()) };
        let child = live.bring_all_home().then(|| self.sim.fork());
        live.thaw();
        child.ok_or(Errno::EAGAIN)
    }

    /// Ends the process' memory; false where something would not migrate back.
    pub fn end(&self) -> bool {
        // The memory holds the pagemaps, and the device behind them holds the memory: it must let go of them.
        let home = self.live.as_ref().is_none_or(|live| {
            let home = live.stop();
            live.let_go();
            home
        });
        self.sim.exit();
        home
    }

    /// The first device opened by the process.
    pub fn open(&self) -> Program {
        self.thread_of(self.core.device().open())
    }

    /// All devices opened by it.
    pub fn open_all(&self) -> Vec<Program> {
        let cores = [&self.core].into_iter().chain(&self.others);
        cores.map(|core| self.thread_of(core.device().open())).collect()
    }

    /// Reads bytes of a buffer, from the start of a page that its mapping has.
    pub fn read_buffer(&self, page: HostFrame, bytes: &mut [u8]) -> Result<(), AccessError> {
        self.buffers().read(Place::Host(page), 0, bytes)
    }

    /// Writes likewise.
    pub fn write_buffer(&self, page: HostFrame, bytes: &[u8]) -> Result<(), AccessError> {
        self.buffers().write(Place::Host(page), 0, bytes)
    }

    fn buffers(&self) -> &dyn HostMemory {
        match &self.live {
            Some(live) => &**live,
            None => &*self.sim,
        }
    }

    /// Another thread of the process, with the same open file.
    pub fn thread_of(&self, file: Arc<xe_kmd::File>) -> Program {
        let scratch = self.sim.mmap(1, MapKind::Anonymous).start;
        Program::new(file, self.sim.clone(), scratch)
    }
}
