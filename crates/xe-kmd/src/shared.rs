//! What VMs, queues and files share of a device. They are all above it: it knows none of them.
//!
//! Locking: `migrate_lock` lies between a VM's lock and the host mm.
//!
//! Upstream: `struct xe_device`, less its tables of VMs and queues.

use std::sync::Arc;

use gpusvm::PagemapSet;
use hostmm::{HostMemory, HostMm};
use sync::atomic::AtomicU64;
use sync::rank::{mutex, rwlock};
use sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use units::TileId;
use xe_spec::platform::Platform;

use crate::engine_class::EngineClasses;
use crate::fault_queue::FaultQueue;
use crate::fence::Waiters;
use crate::gpu::Gpu;
use crate::jobs::Worker;
use crate::master::Master;
use crate::offsets::Offsets;
use crate::open_files::OpenFiles;
use crate::ranks;

/// System memory that BOs take.
///
/// Upstream: the manager of `XE_PL_TT`, whose size programs are told.
pub(crate) struct SystemMemory {
    size: u64,
    used: AtomicU64,
}

impl SystemMemory {
    /// All of it.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// What is taken of it. May be more than there is: what is evicted from VRAM has nowhere else to go.
    pub(crate) fn used(&self) -> u64 {
        self.used.load()
    }

    /// Takes some, if there is as much.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let used = self.used.fetch_add(bytes);
        let fits = used.checked_add(bytes).is_some_and(|sum| sum <= self.size);
        if !fits {
            self.give(bytes);
        }
        fits
    }

    /// Takes some, as what is evicted must.
    pub(crate) fn must_take(&self, bytes: u64) {
        self.used.fetch_add(bytes);
    }

    /// Gives some back.
    pub(crate) fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes);
    }
}

/// Keeps migrations that fight for the same memory apart: shared by all, taken alone by one that lost a race. The devices of a machine
/// have one.
///
/// Upstream: `driver_migrate_lock`, one for all devices of the driver.
pub struct MigrateLock(RwLock<()>);

impl MigrateLock {
    /// One that nobody has.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(rwlock(ranks::MIGRATE, ())))
    }

    /// For a first try.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read()
    }

    /// For one that lost a race.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.write()
    }
}

/// The shared parts of one device.
pub(crate) struct Shared {
    pub gpu: Arc<Gpu>,
    pub mm: Arc<dyn HostMm>,
    pub memory: Arc<dyn HostMemory>,
    pub pagemaps: Arc<PagemapSet>,
    pub svm_observer: Arc<dyn gpusvm::Observer>,
    /// Shared by migrations; taken alone by one that lost a race.
    pub migrate_lock: Arc<MigrateLock>,
    pub faults: FaultQueue,
    pub waiters: Waiters,
    pub system: SystemMemory,
    pub classes: EngineClasses,
    /// Runs what has to wait.
    pub worker: Worker,
    /// Whether the calling thread may raise its own priority; unless told, it may not.
    pub nice: Mutex<fn() -> bool>,
    /// Whether it may administrate the system; unless told, it may not.
    pub admin: Mutex<fn() -> bool>,
    pub master: Master,
    pub open_files: OpenFiles,
    pub offsets: Arc<Offsets>,
}

impl Shared {
    /// Of a device whose pagemaps the host knows.
    pub(crate) fn new(
        gpu: Arc<Gpu>,
        mm: Arc<dyn HostMm>,
        memory: Arc<dyn HostMemory>,
        pagemaps: Arc<PagemapSet>,
        svm_observer: Arc<dyn gpusvm::Observer>,
        migrate_lock: Arc<MigrateLock>,
    ) -> Arc<Self> {
        let (faults, waiters, worker) = (FaultQueue::new(), Waiters::new(), Worker::new());
        let system = SystemMemory { size: gpu.platform.system_bytes, used: AtomicU64::new(0) };
        Arc::new(Self {
            gpu,
            mm,
            memory,
            pagemaps,
            svm_observer,
            migrate_lock,
            faults,
            waiters,
            system,
            classes: EngineClasses::new(),
            worker,
            nice: mutex(ranks::LEAF, || false),
            admin: mutex(ranks::LEAF, || false),
            master: Master::new(),
            open_files: OpenFiles::new(),
            offsets: Offsets::new(),
        })
    }

    /// Bytes of a tile's VRAM that are allocated, by all processes.
    pub(crate) fn vram_used(&self, tile: TileId) -> u64 {
        self.gpu.tile(tile).map_or(0, |tile| tile.vram.used_by_all())
    }

    /// Whether the caller may raise its own priority (`CAP_SYS_NICE`).
    pub(crate) fn may_raise_priority(&self) -> bool {
        let ask = *self.nice.lock();
        ask()
    }

    /// Whether the caller may administrate the system (`CAP_SYS_ADMIN`).
    pub(crate) fn is_admin(&self) -> bool {
        let ask = *self.admin.lock();
        ask()
    }

    /// Platform facts.
    pub(crate) fn platform(&self) -> &'static Platform {
        self.gpu.platform
    }
}
