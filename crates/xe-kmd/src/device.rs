//! The device, on top of all others: it is put together here, and its interrupts arrive here.
//!
//! Probing sets up each tile's memory and migration context ([`Gpu`]), and introduces each tile's VRAM to the
//! host as a pagemap. All tiles have one owner, so the host never tells them apart.
//!
//! Locking: none of its own.
//!
//! Upstream: `xe_device.c` (`xe_device_probe`), `struct xe_device`.

use std::sync::Arc;

use gpusvm::{MigrateDetails, MigrateError, PagemapConfig, PagemapSet, Registry};
use hostmm::{HostMemory, HostMm};
use units::{HostRange, SZ_2M, TileId, pages_of};
use xe_spec::fault::{ContextId, EngineClass, FaultRecord};
use xe_spec::platform::Platform;

use crate::budget::Budget;
use crate::caller::Location;
use crate::chip::Chip;
use crate::client::Vram;
use crate::debugfs::{self, NamedBo, OpenFile};
use crate::engine_class::ClassSchedule;
use crate::errno::Errno;
use crate::event::{Event, Observer};
use crate::exec_queue::Queues;
use crate::fault::service;
use crate::fence::Happened;
use crate::file::File;
use crate::gpu::{Gpu, Tile};
use crate::port::{Hw, Interconnect};
use crate::rules::Rules;
use crate::share::SharedBos;
use crate::shared::{MigrateLock, Shared};
use crate::svm::devmem::{PagemapMemory, populate};
use crate::svm::policy;
use crate::vm::Vms;

/// What a device is put together from.
#[derive(Clone)]
pub struct Parts {
    /// Platform facts.
    pub platform: &'static Platform,
    /// The hardware.
    pub hw: Arc<dyn Hw>,
    /// Its VRAM's place in the machine.
    pub interconnect: Arc<dyn Interconnect>,
    /// What it shares of its VRAM with other processes.
    pub budget: Arc<dyn Budget>,
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
    /// One for all devices of a machine, which fight for the same memory.
    pub migrate_lock: Arc<MigrateLock>,
    /// One likewise: pages go from device to device.
    pub registry: Arc<Registry>,
}

/// One device. Upstream: `struct xe_device`.
pub struct Device {
    pub(crate) shared: Arc<Shared>,
    pub(crate) vms: Arc<Vms>,
    queues: Arc<Queues>,
    bos: Arc<SharedBos>,
}

impl Device {
    /// Probes the device. `EINVAL`: a platform that makes no sense; `ENOMEM`: its pools of tables are too small.
    ///
    /// Upstream: `xe_device_probe`.
    pub fn new(parts: Parts) -> Result<Arc<Self>, Errno> {
        let Parts {
            platform,
            hw,
            interconnect,
            budget,
            mm,
            memory,
            rules,
            observer,
            svm_observer,
            migrate_lock,
            registry,
        } = parts;
        let gpu = Gpu::new(Chip { platform, hw, interconnect, budget, rules, observer })?;
        let end = |tile: &Tile| tile.extent.first.frame + pages_of(platform.tiles[tile.id.index()].vram_size) as u64;
        let pagemap = |tile: &Tile| PagemapConfig {
            id: tile.extent.first.pagemap,
            owner: gpu.interconnect.owner(),
            frames: gpu.tiles_of(tile.extent.first.pagemap).map(end).max().unwrap_or(0),
            ops: Arc::new(PagemapMemory::new(&gpu, tile.extent.first.pagemap, &registry)),
        };
        // A pagemap of several tiles is that of the first of them. Defect D13 is about a device that has none.
        let firsts = gpu.tiles.iter().filter(|tile| platform.has_vram() && tile.extent.first.frame == 0);
        let pagemaps = PagemapSet::new(&mm, &svm_observer, &registry, firsts.map(pagemap).collect());
        let shared = Shared::new(gpu, mm, memory, pagemaps, svm_observer, migrate_lock);
        // The first address spaces are those of the tiles' migration contexts.
        let vms = Vms::new(1 + platform.tiles.len() as u32);
        Ok(Arc::new(Self { shared, vms, queues: Queues::new(), bos: SharedBos::new() }))
    }

    /// A region of its VRAM.
    pub fn location(&self, region: u16) -> Location {
        policy::location(&self.shared.gpu, region)
    }

    /// Says how to find out whether the calling thread may raise its own priority (`CAP_SYS_NICE`); until then nobody
    /// may ask for a queue of high priority.
    pub fn ask_for_priority(&self, ask: fn() -> bool) {
        *self.shared.nice.lock() = ask;
    }

    /// Says how to find out whether it may administrate the system (`CAP_SYS_ADMIN`); until then nobody takes over a master's place.
    pub fn ask_for_admin(&self, ask: fn() -> bool) {
        *self.shared.admin.lock() = ask;
    }

    /// Scheduling properties of an engine class of a tile, for queues that are made from now on.
    pub fn set_class_schedule(&self, tile: TileId, class: EngineClass, schedule: ClassSchedule) {
        self.shared.classes.set(tile, class, schedule);
    }

    /// Opens a DRM file, by the primary node.
    pub fn open(&self) -> Arc<File> {
        self.open_as(false)
    }

    /// Opens one by the render node.
    pub fn open_render(&self) -> Arc<File> {
        self.open_as(true)
    }

    fn open_as(&self, is_render: bool) -> Arc<File> {
        let (shared, vms) = (self.shared.clone(), self.vms.clone());
        Arc::new(File::new(shared, vms, self.queues.clone(), self.bos.clone(), is_render))
    }

    /// The device reports a page fault. Only queues it; [`service_fault`](Self::service_fault) serves.
    pub fn page_fault(&self, record: FaultRecord) {
        self.shared.faults.push(record);
    }

    /// Serves a queued fault on the calling thread, whatever others serve; false where none waits. Takes VM locks: not for
    /// the reader class.
    pub fn service_fault(&self) -> bool {
        self.shared.faults.serve_next(|fault| service(&self.shared, &self.vms, &self.queues, &fault))
    }

    /// Job `seqno` of a context is done and its fence is written. Takes leaf locks only.
    pub fn job_done(&self, context: ContextId, seqno: u64) {
        self.shared.gpu.emit(Event::JobDone { context, seqno });
        if let Some(queue) = self.queues.of(context) {
            queue.job_done(seqno);
        }
    }

    /// A batch asks for an interrupt: whoever waits for memory looks again. Takes leaf locks only.
    pub fn user_interrupt(&self) {
        self.shared.waiters.wake(Happened::Interrupt);
    }

    /// A context was killed while job `seqno` ran: its queue is banned. Takes leaf locks only.
    pub fn context_killed(&self, context: ContextId, seqno: u64) {
        self.shared.gpu.emit(Event::Banned { context, seqno });
        if let Some(queue) = self.queues.of(context) {
            queue.ban();
        }
    }

    /// Moves `range` to a tile's VRAM without any VM (`drm_pagemap_populate_mm`): in blocks of 2M where they
    /// are aligned, else in the smallest pages of VRAM. What is less than such a page stays. Stops at the first
    /// block that cannot go. The caller holds no lock, and is not of the reader class.
    pub fn migrate_range(&self, tile: TileId, range: HostRange) -> Result<(), MigrateError> {
        let target = self.shared.gpu.pagemap(tile).ok_or(MigrateError::Gone)?;
        let min = self.shared.gpu.platform.min_vram_page();
        let end = range.end.align_down(min);
        let mut at = range.start.align_up(min);
        while at < end {
            let whole = at.is_aligned(SZ_2M) && end.offset_from(at) >= SZ_2M;
            let block = HostRange::sized(at, if whole { SZ_2M } else { min });
            let _shared = self.shared.migrate_lock.read();
            populate(&self.shared, target, block, MigrateDetails::default())?;
            at = block.end;
        }
        Ok(())
    }

    /// Resets a tile's GT: contexts whose job had begun are killed, with their faults; all others go on. The caller holds no
    /// lock, and is not of the reader class.
    pub fn reset_gt(&self, tile: TileId) {
        self.queues.reset(tile);
    }

    /// The mapping of `range` is about to change: returns when no job of a VM with dma-fences may use it any more. Such a
    /// job was promised that its memory stays until it is done. Takes VM locks: not for the reader class.
    pub fn finish_jobs(&self, range: HostRange) {
        if self.vms.has_fences() {
            self.queues.finish_jobs(range);
        }
    }

    /// Returns when no job that had to wait runs; none begins before [`unpark_jobs`](Self::unpark_jobs). A fork needs it.
    pub fn park_jobs(&self) {
        self.shared.worker.park();
    }

    /// Lets them go on.
    pub fn unpark_jobs(&self) {
        self.shared.worker.unpark();
    }

    /// Ends the thread that runs them: the process ends.
    pub fn stop_jobs(&self) {
        self.shared.worker.stop();
    }

    /// Another process needs `bytes` bytes of a tile's VRAM: what was used the longest time ago goes to system memory, as far as
    /// it can. The caller holds no lock, and is not of the reader class.
    pub fn evict(&self, tile: TileId, bytes: u64) {
        if let Some(tile) = self.shared.gpu.tile(tile) {
            tile.vram.evict(bytes);
        }
    }

    /// Bytes of a tile's VRAM that are allocated, by this process.
    pub fn vram_used(&self, tile: TileId) -> u64 {
        self.shared.gpu.tile(tile).map_or(0, |tile| tile.vram.used())
    }

    /// A tile's VRAM, as all processes use it; `None` where there is no such tile.
    pub fn vram(&self, tile: TileId) -> Option<Vram> {
        let platform = self.platform();
        let size = platform.tiles.get(tile.index())?.vram_size;
        Some(Vram { size, used: self.shared.vram_used(tile), page: platform.min_vram_page() })
    }

    /// Bytes of system memory that BOs take.
    pub fn system_used(&self) -> u64 {
        self.shared.system.used()
    }

    /// Its open files, the oldest first.
    pub fn open_files(&self) -> Vec<OpenFile> {
        debugfs::open_files(&self.shared)
    }

    /// Its BOs that have a number (FLINK), by number.
    pub fn named_bos(&self) -> Vec<NamedBo> {
        debugfs::named_bos(&self.bos)
    }

    /// Page tables of a tile that are in use: those of VMs, and those of the copy engine.
    pub fn tables_used(&self, tile: TileId) -> u64 {
        self.shared.gpu.tile(tile).map_or(0, |tile| tile.tables.used())
    }

    /// Whether whoever wants a page table of a tile is told that there is none: what a checker has run short.
    pub fn hold_tables(&self, tile: TileId, held: bool) {
        if let Some(tile) = self.shared.gpu.tile(tile) {
            tile.tables.hold(held);
        }
    }

    /// Platform facts.
    pub fn platform(&self) -> &'static Platform {
        self.shared.gpu.platform
    }

    /// The pagemaps of its tiles.
    pub fn pagemaps(&self) -> &Arc<PagemapSet> {
        &self.shared.pagemaps
    }
}
