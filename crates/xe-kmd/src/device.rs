//! The device: what all of its files share, and where its interrupts arrive.
//!
//! Probing sets up each tile's memory and migration context ([`Gpu`]), and introduces each tile's VRAM to the
//! host as a pagemap. All tiles have one owner, so the host never tells them apart.
//!
//! Locking: `migrate_lock` lies between a VM's lock and the host mm; the tables of VMs and contexts are leaf
//! locks.
//!
//! Upstream: `xe_device.c` (`xe_device_probe`), `struct xe_device`.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use gpusvm::{MigrateError, PagemapConfig, PagemapSet};
use hostmm::{HostMemory, HostMm};
use sync::atomic::AtomicU64;
use sync::rank::{mutex, rwlock};
use sync::{Mutex, RwLock};
use units::{HostRange, SZ_2M, TileId, pages_of};
use xe_spec::fault::{Asid, ContextId, FaultRecord};
use xe_spec::platform::Platform;

use crate::errno::Errno;
use crate::event::{Event, Observer};
use crate::exec_queue::ExecQueue;
use crate::fault::queue::FaultQueues;
use crate::fault::service::service;
use crate::fence::Waiters;
use crate::file::File;
use crate::gpu::{Gpu, Tile};
use crate::port::{Hw, Interconnect};
use crate::ranks;
use crate::rules::Rules;
use crate::svm::devmem::{OWNER, TileMemory, populate};
use crate::vm::Vm;

/// Numbers of address spaces: 1 to this, less one (`XE_MAX_ASID`).
const MAX_ASID: u32 = 1 << 20;

/// What a device is put together from.
#[derive(Clone)]
pub struct Parts {
    /// Platform facts.
    pub platform: &'static Platform,
    /// The hardware.
    pub hw: Arc<dyn Hw>,
    /// Its VRAM's place in the machine.
    pub interconnect: Arc<dyn Interconnect>,
    /// The host's memory management.
    pub mm: Arc<dyn HostMm>,
    /// The host's bytes, for `copy_from_user` and `copy_to_user`.
    pub memory: Arc<dyn HostMemory>,
    /// Behaviours.
    pub rules: Rules,
    /// Told of the driver's events.
    pub observer: Arc<dyn Observer>,
    /// Told of the engine's events.
    pub svm_observer: Arc<dyn gpusvm::Observer>,
}

/// One device. Upstream: `struct xe_device`.
pub struct Device {
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) mm: Arc<dyn HostMm>,
    pub(crate) memory: Arc<dyn HostMemory>,
    pub(crate) pagemaps: Arc<PagemapSet>,
    pub(crate) svm_observer: Arc<dyn gpusvm::Observer>,
    /// Shared by migrations; taken alone by one that lost a race (`driver_migrate_lock`).
    pub(crate) migrate_lock: RwLock<()>,
    pub(crate) contexts: Mutex<BTreeMap<ContextId, Weak<ExecQueue>>>,
    pub(crate) faults: FaultQueues,
    pub(crate) waiters: Waiters,
    pub(crate) last_queue: AtomicU64,
    spaces: Mutex<Spaces>,
}

/// Address spaces by number.
struct Spaces {
    vms: BTreeMap<Asid, Weak<Vm>>,
    next: u32,
}

impl Device {
    /// Probes the device. `EINVAL`: a platform that makes no sense; `ENOMEM`: its pools of tables are too small.
    ///
    /// Upstream: `xe_device_probe`.
    pub fn new(parts: Parts) -> Result<Arc<Self>, Errno> {
        let Parts { platform, hw, interconnect, mm, memory, rules, observer, svm_observer } = parts;
        let gpu = Gpu::new(platform, hw, interconnect, rules, observer)?;
        let pagemap = |(tile, facts): (&Tile, &xe_spec::platform::Tile)| PagemapConfig {
            id: tile.pagemap,
            owner: OWNER,
            frames: pages_of(facts.vram_size) as u64,
            ops: Arc::new(TileMemory::new(&gpu, tile.id)),
        };
        let tiles = gpu.tiles.iter().zip(platform.tiles);
        let pagemaps = PagemapSet::new(&mm, &svm_observer, tiles.map(pagemap).collect());
        let first_asid = 1 + platform.tiles.len() as u32;
        Ok(Arc::new(Self {
            gpu,
            mm,
            memory,
            pagemaps,
            svm_observer,
            migrate_lock: rwlock(ranks::MIGRATE, ()),
            contexts: mutex(ranks::LEAF, BTreeMap::new()),
            faults: FaultQueues::new(),
            waiters: Waiters::new(),
            last_queue: AtomicU64::new(0),
            spaces: mutex(ranks::LEAF, Spaces { vms: BTreeMap::new(), next: first_asid }),
        }))
    }

    /// Opens a DRM file.
    pub fn open(self: &Arc<Self>) -> Arc<File> {
        Arc::new(File::new(self.clone()))
    }

    /// The device reports a page fault. Only queues it; [`service_fault`](Self::service_fault) serves.
    pub fn page_fault(&self, record: FaultRecord) {
        self.faults.push(record);
    }

    /// Serves a queued fault on the calling thread, of a queue that nobody serves at the moment; false where there is
    /// none. After true the caller calls again before it sleeps. Takes VM locks: not for the reader class.
    pub fn service_fault(&self) -> bool {
        self.faults.serve_next(|fault| service(self, &fault))
    }

    /// Job `seqno` of a context is done and its fence is written. Takes leaf locks only.
    pub fn job_done(&self, context: ContextId, seqno: u64) {
        self.gpu.tell(Event::JobDone { context, seqno });
        if let Some(queue) = self.queue_of(context) {
            queue.job_done(seqno);
        }
    }

    /// A context was killed while job `seqno` ran: its queue is banned. Takes leaf locks only.
    pub fn context_killed(&self, context: ContextId, seqno: u64) {
        self.gpu.tell(Event::Banned { context, seqno });
        if let Some(queue) = self.queue_of(context) {
            queue.ban();
        }
    }

    /// Moves `range` to a tile's VRAM without any VM (`drm_pagemap_populate_mm`): in blocks of 2M where they
    /// are aligned, else in the smallest pages of VRAM. What is less than such a page stays. Stops at the first
    /// block that cannot go. The caller holds no lock, and is not of the reader class.
    pub fn migrate_range(&self, tile: TileId, range: HostRange) -> Result<(), MigrateError> {
        let target = self.gpu.pagemap(tile).ok_or(MigrateError::Gone)?;
        let min = self.gpu.platform.min_vram_page();
        let end = range.end.align_down(min);
        let mut at = range.start.align_up(min);
        while at < end {
            let whole = at.is_aligned(SZ_2M) && end.offset_from(at) >= SZ_2M;
            let block = HostRange::sized(at, if whole { SZ_2M } else { min });
            let _shared = self.migrate_lock.read();
            populate(self, target, block, 0)?;
            at = block.end;
        }
        Ok(())
    }

    /// Bytes of a tile's VRAM that are allocated.
    pub fn vram_used(&self, tile: TileId) -> u64 {
        self.gpu.tile(tile).map_or(0, |tile| tile.vram.used())
    }

    /// Platform facts.
    pub fn platform(&self) -> &'static Platform {
        self.gpu.platform
    }

    /// The pagemaps of its tiles.
    pub fn pagemaps(&self) -> &Arc<PagemapSet> {
        &self.pagemaps
    }

    /// The queue of a context, unless it ended.
    pub(crate) fn queue_of(&self, context: ContextId) -> Option<Arc<ExecQueue>> {
        self.contexts.lock().get(&context)?.upgrade()
    }

    /// The VM of an address space.
    pub(crate) fn vm_of(&self, asid: Asid) -> Option<Arc<Vm>> {
        self.spaces.lock().vms.get(&asid)?.upgrade()
    }

    /// Sweeps every VM for page tables that are held for memory that is gone. The caller holds no lock.
    pub(crate) fn sweep(&self) {
        let vms: Vec<_> = self.spaces.lock().vms.values().filter_map(Weak::upgrade).collect();
        vms.iter().for_each(|vm| vm.sweep());
    }

    /// A free number, taken in turn so that one is not used again at once.
    pub(crate) fn asid_alloc(&self) -> Option<Asid> {
        let mut spaces = self.spaces.lock();
        let first = 1 + self.gpu.tiles.len() as u32;
        let free = |asid: &u32| !spaces.vms.contains_key(&Asid(*asid));
        let asid = (spaces.next..MAX_ASID).chain(first..spaces.next).find(free)?;
        spaces.next = if asid + 1 == MAX_ASID { first } else { asid + 1 };
        spaces.vms.insert(Asid(asid), Weak::new());
        Some(Asid(asid))
    }

    /// From now on faults find the VM.
    pub(crate) fn asid_publish(&self, vm: &Arc<Vm>) {
        self.spaces.lock().vms.insert(vm.asid, Arc::downgrade(vm));
    }

    /// Gives a number back.
    pub(crate) fn asid_free(&self, asid: Asid) {
        self.spaces.lock().vms.remove(&asid);
    }
}
