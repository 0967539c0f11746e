//! The machine on the simulated mm: everything it does is decided by the schedule of `sync`'s checker.

use crate::behaviour::Behaviours;
use crate::bus::SystemAccess;
use crate::interconnect::{DeviceId, Node};
use crate::pool::simulated::{Neighbour, World};
use crate::pool::{Cores, Pool, Server};
use crate::program::Program;
use crate::story::Story;
use crate::topology::Topology;
use crate::wiring::{Core, Plan};
use hostmm::{AccessError, DevicePage, EventKind, HostMemory, HostMm, Place};
use mm_live::LiveMm;
use mm_sim::{Sim, SimKernel};
use std::sync::Arc;
use units::{Dpa, HostFrame, HostRange};
use xe_hw::Injection;
use xe_kmd::Errno;
use xe_spec::platform::Platform;

pub use mm_sim::{Advice as MemoryAdvice, ChildId, Config, CpuError, Injection as MmInjection, MapKind, Remap};

/// Who manages the simulated process' memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Manner {
    /// The kernel itself: notifiers before each change, callers held, migration entries.
    #[default]
    Linux,
    /// mm-live, as it ships, on the kernel's userfaultfd.
    Userfaultfd,
}

/// A machine and the simulated process that it stands in.
pub struct Checked {
    /// Driver and hardware of the first device.
    pub core: Arc<Core>,
    /// Those of the others.
    others: Vec<Arc<Core>>,
    /// The process's memory.
    pub sim: Arc<Sim>,
    live: Option<Arc<LiveMm>>,
    /// Who evicts for another process, and that process.
    shared: Option<(Server, Neighbour)>,
}

/// Whether another process uses the first device, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Company {
    /// None does.
    #[default]
    Alone,
    /// A [`Neighbour`] does.
    Shared,
}

/// Readers of the process' faults: two can be at one page.
const READERS: u32 = 2;

impl Checked {
    /// A fresh process with a fresh device of two tiles.
    pub fn new(config: Config, manner: Manner, behaviours: Behaviours, injection: Injection) -> Result<Self, Errno> {
        let platforms = Topology::Two.platforms(&[]);
        Self::on(&platforms, config, manner, behaviours, injection, Company::Alone, None)
    }

    /// A fresh process with these devices.
    pub fn with_devices(
        config: Config,
        manner: Manner,
        platforms: &[&'static Platform],
        behaviours: Behaviours,
    ) -> Result<Self, Errno> {
        Self::on(platforms, config, manner, behaviours, Injection::default(), Company::Alone, None)
    }

    /// The same with faults of the hardware and of company, and perhaps with somebody who writes down what happens.
    pub fn on(
        platforms: &[&'static Platform],
        config: Config,
        manner: Manner,
        behaviours: Behaviours,
        injection: Injection,
        company: Company,
        story: Option<&Arc<Story>>,
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
        let world = (company == Company::Shared).then(World::new);
        let pool = world.as_ref().and_then(|world| Pool::join(world.process(0), platforms));
        let plan = Plan { platforms: platforms.to_vec(), rules, injection, mm, memory, system, pool };
        let cores = match story {
            None => Core::all(&plan)?,
            Some(story) => Core::all_watched(&plan, |device, ledger| Story::of(story, device, ledger))?,
        };
        let shared = match (&world, &plan.pool) {
            (Some(world), Some(pool)) => {
                let server = Server::start(pool, Cores::of(&cores)).map_err(|_| Errno::ENOMEM)?;
                let neighbour = Neighbour::start(world.process(1), platforms).map_err(|_| Errno::ENOMEM)?;
                Some((server, neighbour))
            }
            _ => None,
        };
        if let Some(story) = story {
            cores.iter().for_each(|core| story.watch(core.gpu()));
        }
        let mut cores = cores.into_iter();
        let core = cores.next().ok_or(Errno::EINVAL)?;
        Ok(Self { core, others: cores.collect(), sim, live, shared })
    }

    /// mm-live, where it manages the memory: for what it counts and looks at.
    pub fn live(&self) -> Option<&Arc<LiveMm>> {
        self.live.as_ref()
    }

    /// Whose VRAM a page is in, and its address there.
    pub fn vram(&self, page: DevicePage) -> Option<(DeviceId, Dpa)> {
        self.core.interconnect().locate(page).map(|(node, dpa)| (node.device, dpa))
    }

    /// All tiles of all devices, in their order.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + '_ {
        self.core.interconnect().nodes()
    }

    /// Driver and hardware of a device.
    pub fn device(&self, device: DeviceId) -> Option<&Arc<Core>> {
        self.cores().nth(device.0.into())
    }

    /// Waits until the driver was told of every change of mappings so far.
    pub fn settle(&self) {
        if let Some(live) = &self.live {
            live.settle();
        }
    }

    /// A change of mappings that the preload library wraps (mremap, mprotect): where somebody moves the process' memory, it
    /// migrates back before, and the driver is called where the kernel raises no event.
    pub fn around_change<R>(&self, range: HostRange, kind: Option<EventKind>, change: impl FnOnce() -> R) -> R {
        match &self.live {
            Some(live) => live.while_in_system(range, kind, change),
            None => change(),
        }
    }

    /// A fork, as the preload library prepares it: where somebody moves the process' memory, all of it migrates back before.
    /// `EAGAIN` where some cannot: there is no child.
    pub fn fork(&self) -> Result<ChildId, Errno> {
        let Some(live) = &self.live else { return Ok(self.sim.fork()) };
        let child = live.migrate_all_back().then(|| self.sim.fork());
        live.thaw();
        child.ok_or(Errno::EAGAIN)
    }

    /// The other process, where there is one.
    pub fn neighbour(&self) -> Option<&Neighbour> {
        self.shared.as_ref().map(|(_, neighbour)| neighbour)
    }

    /// Ends the process' memory; false where something would not migrate back.
    pub fn end(&self) -> bool {
        if let Some((server, neighbour)) = &self.shared {
            server.stop();
            neighbour.stop();
        }
        // The memory holds the pagemaps, and the device behind them holds the memory: it must let go of them.
        let back = self.live.as_ref().is_none_or(|live| {
            let back = live.stop();
            live.let_go();
            back
        });
        self.sim.exit();
        back
    }

    /// Driver and hardware of all devices, in their order.
    pub fn cores(&self) -> impl Iterator<Item = &Arc<Core>> {
        [&self.core].into_iter().chain(&self.others)
    }

    /// The first device opened by the process.
    pub fn open(&self) -> Program {
        self.thread_of(self.core.device().open())
    }

    /// All devices opened by it.
    pub fn open_all(&self) -> Vec<Program> {
        self.cores().map(|core| self.thread_of(core.device().open())).collect()
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
