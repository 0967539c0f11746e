//! Driver and hardware plugged together over a host mm: the driver's port on one side, interrupts on the other.
//!
//! ```text
//!   Device (xe-kmd) --Hw--> HwPort --> Gpu (xe-hw) --Bus--> HostBus --> HostMemory (mm-sim, mm-live)
//!       ^                                |
//!       +--------- Irq <--Interrupts-----+
//! ```
//!
//! Locking: `Irq::core` is a leaf, held to clone a weak pointer.

use crate::backing::Backing;
use crate::bus::{HostBus, SystemAccess};
use crate::engines::{Engines, Work};
use crate::interconnect::{DeviceId, Interconnect, Port};
use crate::ledger::Ledger;
use crate::pool::{self, Pool};

use gpusvm::Registry;
use hostmm::{HostMemory, HostMm};
use std::sync::{Arc, Weak};
use sync::RwLock;
use sync::rank::{self, Rank};
use units::{Dpa, GpuRange, GpuVa, HostFrame, Iova, Report, TileId};
use xe_hw::port::Interrupts;
use xe_hw::{CopyJob, Gpu, Injection, Job, Step};
use xe_kmd::{Alone, Budget, ClassSchedule, Device, Errno, Hw, HwJob, MigrateLock, Parts, Rules};
use xe_spec::fault::{Asid, ContextId, EngineClass, EngineId, FaultAck, FaultRecord, FaultSlot};
use xe_spec::platform::Platform;
use xe_spec::share::Share;

/// What a machine is put together from.
pub struct Plan {
    /// Platform facts of each device.
    pub platforms: Vec<&'static Platform>,
    /// Behaviours of the driver.
    pub rules: Rules,
    /// Faults of the hardware.
    pub injection: Injection,
    /// The host's memory management.
    pub mm: Arc<dyn HostMm>,
    /// The host's bytes.
    pub memory: Arc<dyn HostMemory>,
    /// How the device's accesses to system memory end.
    pub system: SystemAccess,
    /// What other processes have the devices, too.
    pub pool: Option<Arc<Pool>>,
}

impl Plan {
    fn budget(&self, device: DeviceId) -> Arc<dyn Budget> {
        match &self.pool {
            Some(pool) => Arc::new(pool::Budget { pool: pool.clone(), device }),
            None => Arc::new(Alone::default()),
        }
    }
}

/// Who is told what happens in a device.
struct Watchers {
    observer: Arc<dyn xe_kmd::Observer>,
    svm_observer: Arc<dyn gpusvm::Observer>,
    ledger: Arc<Ledger>,
}

/// What the devices of a machine have in common.
struct Machine {
    interconnect: Arc<Interconnect>,
    /// What is behind each device's VRAM.
    backings: Arc<[Backing]>,
    migrate_lock: Arc<MigrateLock>,
    registry: Arc<Registry>,
}

/// One device, its hardware, and the threads of its engines, on some host mm.
pub struct Core {
    id: DeviceId,
    device: Arc<Device>,
    gpu: Arc<Gpu>,
    engines: Arc<Engines>,
    ledger: Arc<Ledger>,
    interconnect: Arc<Interconnect>,
}

impl Core {
    /// Powers all devices of a machine on and probes them, in order.
    pub fn all(plan: &Plan) -> Result<Vec<Arc<Self>>, Errno> {
        Self::each(plan, |_| {
            let ledger = Arc::new(Ledger::default());
            Watchers { observer: ledger.clone(), svm_observer: ledger.clone(), ledger }
        })
    }

    /// The same, with other observers, one of each device: its ledger knows what they tell it.
    pub fn all_watched<W>(
        plan: &Plan,
        watcher: impl Fn(DeviceId, &Arc<Ledger>) -> Arc<W>,
    ) -> Result<Vec<Arc<Self>>, Errno>
    where
        W: xe_kmd::Observer + gpusvm::Observer + 'static,
    {
        Self::each(plan, |device| {
            let ledger = Arc::default();
            let watcher = watcher(device, &ledger);
            Watchers { observer: watcher.clone(), svm_observer: watcher, ledger }
        })
    }

    fn each(plan: &Plan, watchers: impl Fn(DeviceId) -> Watchers) -> Result<Vec<Arc<Self>>, Errno> {
        let interconnect = Interconnect::new(&plan.platforms);
        let devices = || (0..).map(DeviceId).zip(&plan.platforms);
        let backing = |(id, platform): (_, &&'static _)| Backing::arenas(platform, id, &interconnect);
        let machine = Machine {
            backings: devices().map(backing).collect(),
            interconnect: interconnect.clone(),
            migrate_lock: MigrateLock::new(),
            registry: Arc::default(),
        };
        devices().map(|(id, platform)| Self::build(plan, id, platform, &machine, watchers(id))).collect()
    }

    fn build(
        plan: &Plan,
        id: DeviceId,
        platform: &'static Platform,
        machine: &Machine,
        watchers: Watchers,
    ) -> Result<Arc<Self>, Errno> {
        let Watchers { observer, svm_observer, ledger } = watchers;
        let irq = Arc::new(Irq { core: rank::rwlock(Rank::LEAF, Weak::new()) });
        let Machine { interconnect, backings, migrate_lock, registry } = machine;
        let bus = Arc::new(HostBus::new(id, backings.clone(), plan.memory.clone(), plan.system));
        let gpu = Gpu::new(platform, bus, irq.clone(), plan.injection.clone());
        let engines = Arc::new(Engines::default());
        let device = Device::new(Parts {
            platform,
            hw: Arc::new(HwPort {
                gpu: gpu.clone(),
                device: id,
                backings: backings.clone(),
                engines: engines.clone(),
                irq: irq.clone(),
            }),
            interconnect: Arc::new(Port { all: interconnect.clone(), device: id }),
            budget: plan.budget(id),
            mm: plan.mm.clone(),
            memory: plan.memory.clone(),
            rules: plan.rules,
            observer,
            svm_observer,
            migrate_lock: migrate_lock.clone(),
            registry: registry.clone(),
        })?;
        let core = Arc::new(Self { id, device, gpu, engines, ledger, interconnect: interconnect.clone() });
        *irq.core.write() = Arc::downgrade(&core);
        Ok(core)
    }

    /// Its number in the machine.
    pub const fn id(&self) -> DeviceId {
        self.id
    }

    /// The driver.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Scheduling properties of an engine class of a tile, by the kernel's name of it, for queues that are made from now on.
    pub fn set_class_schedule(&self, tile: TileId, class: &str, schedule: ClassSchedule) {
        if let Some(class) = EngineClass::ALL.into_iter().find(|known| known.name() == class) {
            self.device.set_class_schedule(tile, class, schedule);
        }
    }

    /// The hardware.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// The threads of its engines.
    pub fn engines(&self) -> &Engines {
        &self.engines
    }

    /// Which VRAM there is.
    pub fn interconnect(&self) -> &Interconnect {
        &self.interconnect
    }

    /// What happened so far.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
}

impl Work for Core {
    fn step(&self, engine: EngineId) -> Step {
        self.gpu.step(engine)
    }

    fn service_fault(&self) -> bool {
        self.device.service_fault()
    }
}

/// The driver's port over the hardware model.
struct HwPort {
    gpu: Arc<Gpu>,
    device: DeviceId,
    backings: Arc<[Backing]>,
    engines: Arc<Engines>,
    irq: Arc<Irq>,
}

impl Hw for HwPort {
    fn table_write(&self, table: Dpa, index: usize, entry: u64) {
        self.gpu.table_write(table, index, entry);
    }

    fn table_write_run(&self, table: Dpa, first: usize, entries: &[u64]) {
        self.gpu.table_write_run(table, first, entries);
    }

    fn table_read(&self, table: Dpa, index: usize) -> u64 {
        self.gpu.table_read(table, index)
    }

    fn set_root(&self, tile: TileId, asid: Asid, root: Dpa, needs_64k: bool) {
        self.gpu.set_root(tile, asid, root, needs_64k);
    }

    fn clear_root(&self, tile: TileId, asid: Asid) {
        self.gpu.clear_root(tile, asid);
    }

    fn tlb_invalidate(&self, tile: TileId, asid: Asid, range: GpuRange) {
        self.gpu.tlb_invalidate(tile, asid, range);
    }

    fn iommu_map(&self, frame: HostFrame, pages: usize, write: bool) -> Option<Iova> {
        self.gpu.try_iommu_map(frame, pages, write)
    }

    fn iommu_unmap(&self, iova: Iova, pages: usize) {
        self.gpu.iommu_unmap(iova, pages);
    }

    fn vram_back(&self, dpa: Dpa, bytes: u64, frames: Option<HostFrame>) {
        self.backings[usize::from(self.device.0)].set(dpa, bytes, frames);
    }

    fn context_create(&self, placement: &[EngineId], asid: Asid, share: Share) -> Option<ContextId> {
        let core = self.irq.core.read().clone();
        placement.iter().try_for_each(|&engine| self.engines.start(&core, engine)).ok()?;
        Some(self.gpu.context_create_on(placement, asid, share))
    }

    fn look_again(&self) {
        self.gpu.look_again();
    }

    fn context_ran_ns(&self, context: ContextId) -> u64 {
        self.gpu.context_ran_ns(context)
    }

    fn context_destroy(&self, context: ContextId) {
        self.gpu.context_destroy(context);
    }

    fn submit(&self, context: ContextId, job: HwJob) {
        self.gpu.submit(context, Job { seqno: job.seqno, batch: job.batch, fence: job.fence });
    }

    fn fault_ack(&self, slot: FaultSlot, ack: FaultAck) {
        self.gpu.fault_ack(slot, ack);
    }

    fn copy(&self, tile: TileId, asid: Asid, src: GpuVa, dst: GpuVa, pages: usize, report: &mut Report<'_>) {
        self.gpu.copy(tile, &CopyJob { asid, src, dst, pages }, report);
    }
}

/// The hardware's interrupts, delivered to the driver and to the engines' threads.
struct Irq {
    core: RwLock<Weak<Core>>,
}

impl Irq {
    fn core(&self) -> Option<Arc<Core>> {
        self.core.read().upgrade()
    }
}

impl Interrupts for Irq {
    fn page_fault(&self, fault: FaultRecord) {
        if let Some(core) = self.core() {
            core.device.page_fault(fault);
        }
    }

    fn user_interrupt(&self, _context: ContextId) {
        if let Some(core) = self.core() {
            core.device.user_interrupt();
        }
    }

    fn job_done(&self, context: ContextId, seqno: u64) {
        if let Some(core) = self.core() {
            core.device.job_done(context, seqno);
        }
    }

    fn context_killed(&self, context: ContextId, seqno: u64) {
        if let Some(core) = self.core() {
            core.device.context_killed(context, seqno);
        }
    }

    fn engine_ready(&self, engine: EngineId) {
        if let Some(core) = self.core() {
            core.engines.ready(engine);
        }
    }
}
