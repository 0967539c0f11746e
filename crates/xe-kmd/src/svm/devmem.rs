//! VRAM for migrations: where it comes from, and how pages travel.
//!
//! [`PagemapMemory`] is what the engine asks for one pagemap, of a tile or of all: addresses of its pages, copies in and out, and
//! the end of an allocation. [`ToVram`] is the driver's side of one migration: the engine's call, and a block when the
//! engine asks for one, with the one retry that a race with another migration deserves.
//!
//! Locking: [`PagemapMemory`]'s calls take leaf locks only, and may run in reader class. [`ToVram`] holds the VM's
//! lock and takes the migrate lock: shared for a first try, alone for the second, so that two VMs that fight
//! for the same pages do not undo each other's work for ever.
//!
//! Upstream: `xe_svm_alloc_vram`, `xe_drm_pagemap_populate_mm`, `xe_svm_devmem_release`, `xe_svm_copy_to_devmem`,
//! `xe_svm_copy_to_ram`, `xe_drm_pagemap_device_map`, `xe_svm_bo_evict`.

use std::sync::Arc;

use gpusvm::{
    CopyError, CopyRun, Devmem, DevmemOps, Direction, MapError, MigrateDetails, MigrateError, PagemapAddr, Proto,
    RangeKey, Registry,
};
use hostmm::{DevicePage, PagemapId};
use units::{HostFrame, HostRange, Iova, PAGE_SHIFT, Report, TileId, bytes_of};

use super::{RangeView, Svm};
use crate::event::CopyDirection;
use crate::gpu::{Gpu, Tile};
use crate::migrate::NoSlot;
use crate::rules::Mapped;
use crate::shared::Shared;
use crate::vram::Owner;

/// How often, and for how long at a time, a turn of the CPU is waited for: some more than one lasts.
const TURN_WAITS: u32 = 64;
const TURN_WAIT_NS: u64 = 100_000;

/// DMA through the device's IOMMU.
pub(crate) struct Dma {
    gpu: Arc<Gpu>,
}

impl Dma {
    /// The device's.
    pub(crate) const fn new(gpu: Arc<Gpu>) -> Self {
        Self { gpu }
    }
}

impl gpusvm::Device for Dma {
    fn path(&self, pagemap: PagemapId) -> Option<Proto> {
        self.gpu.path(pagemap)
    }

    fn dma_map(&self, frame: HostFrame, pages: usize, dir: Direction) -> Result<Iova, MapError> {
        let write = dir != Direction::ToDevice;
        self.gpu.hw.iommu_map(frame, pages, write).ok_or(MapError::NoSpace)
    }

    fn dma_unmap(&self, iova: Iova, pages: usize) {
        self.gpu.hw.iommu_unmap(iova, pages);
    }
}

/// What the engine asks of one pagemap's VRAM, which is that of a tile or of several.
pub(crate) struct PagemapMemory {
    gpu: Arc<Gpu>,
    pagemap: PagemapId,
    dma: Dma,
    /// Of the blocks that hold its pages, by tile.
    owners: Vec<(TileId, Arc<dyn Owner>)>,
}

impl PagemapMemory {
    /// For a pagemap.
    pub(crate) fn new(gpu: &Arc<Gpu>, pagemap: PagemapId, registry: &Arc<Registry>) -> Self {
        let owner = |tile: &Tile| -> (TileId, Arc<dyn Owner>) {
            (tile.id, Arc::new(SvmOwner { registry: registry.clone(), first: tile.extent.first }))
        };
        let owners = gpu.tiles_of(pagemap).map(owner).collect();
        Self { gpu: gpu.clone(), pagemap, dma: Dma::new(gpu.clone()), owners }
    }

    fn tile_at(&self, page: DevicePage) -> Option<&Tile> {
        self.gpu.tile_at(page).filter(|_| page.pagemap == self.pagemap)
    }

    fn copy(&self, direction: CopyDirection, runs: &[CopyRun], report: &mut Report<'_>) -> Result<(), CopyError> {
        let place = |run: &CopyRun| self.tile_at(run.page).map(|tile| tile.id);
        for runs in runs.chunk_by(|one, next| place(one) == place(next)) {
            let of = self.tile_at(runs[0].page).ok_or(CopyError::Fault)?;
            let by = self.gpu.tile(self.gpu.platform.copier(of.id)).ok_or(CopyError::Reset)?;
            let copied = by.migrate.copy(&self.gpu, &by.tables, direction, of.extent, runs, report);
            copied.map_err(|NoSlot| CopyError::NoMemory)?;
        }
        Ok(())
    }
}

impl DevmemOps for PagemapMemory {
    fn device(&self) -> &dyn gpusvm::Device {
        &self.dma
    }

    fn pushes_to(&self, target: PagemapId) -> bool {
        self.gpu.tiles_of(self.pagemap).all(|tile| self.gpu.pushes(tile, target))
    }

    fn device_map(
        &self,
        by: &dyn gpusvm::Device,
        page: DevicePage,
        pages: usize,
        dir: Direction,
    ) -> Result<PagemapAddr, MapError> {
        let dpa = self.tile_at(page).ok_or(MapError::Unreachable)?.extent.dpa(page);
        let window = self.gpu.window(dpa);
        let mapped = match (by.path(page.pagemap).ok_or(MapError::Unreachable)?, dir) {
            // Only a push writes what the other end of it maps.
            (Proto::Vram, Direction::FromDevice) => {
                (self.gpu.rules.map_for_push)(&*self.gpu.hw, dpa, window, pages).ok_or(MapError::NoSpace)?
            }
            (Proto::Vram, Direction::ToDevice | Direction::Both) => Mapped::Vram(dpa),
            (Proto::P2p | Proto::System, dir) => Mapped::System(by.dma_map(window, pages, dir)?),
        };
        let (addr, proto) = match mapped {
            Mapped::Vram(dpa) => (dpa.0, Proto::Vram),
            Mapped::System(iova) => (iova.0, Proto::P2p),
        };
        Ok(PagemapAddr { addr, proto, pages: pages as u32, dir })
    }

    /// Of several tiles, that of which least is used has most room: the pagemap does not say where pages are wanted.
    fn devmem_alloc(&self, pages: usize) -> Option<Devmem> {
        let (tile, owner) = match self.owners.as_slice() {
            [(tile, owner)] => (self.gpu.tile(*tile)?, owner),
            owners => {
                let tiles = owners.iter().filter_map(|(tile, owner)| Some((self.gpu.tile(*tile)?, owner)));
                tiles.min_by_key(|(tile, _)| tile.vram.used())?
            }
        };
        let offset = tile.vram.alloc(bytes_of(pages), owner).ok()?;
        Some(Devmem { base: tile.extent.page(offset), pages, cookie: 0 })
    }

    /// The smallest block.
    fn granule(&self) -> Option<usize> {
        let granule = (self.gpu.platform.min_vram_page() >> PAGE_SHIFT) as usize;
        self.gpu.rules.gives_parts_back.then_some(granule)
    }

    fn copy_to_devmem(&self, runs: &[CopyRun], report: &mut Report<'_>) -> Result<(), CopyError> {
        self.copy(CopyDirection::ToVram, runs, report)
    }

    fn copy_to_ram(&self, runs: &[CopyRun], report: &mut Report<'_>) -> Result<(), CopyError> {
        self.copy(CopyDirection::FromVram, runs, report)
    }

    fn devmem_release(&self, devmem: Devmem) {
        if let Some(tile) = self.tile_at(devmem.base) {
            tile.vram.free(tile.extent.dpa(devmem.base).offset_from(tile.extent.base), bytes_of(devmem.pages));
        }
    }
}

/// A migration of a range's pages to some VRAM.
pub(crate) struct ToVram<'a> {
    pub shared: &'a Shared,
    pub svm: &'a Svm,
    pub key: RangeKey,
    pub view: &'a RangeView,
    pub target: PagemapId,
    /// What it asks for; who pushes is decided here.
    pub details: MigrateDetails,
}

impl ToVram<'_> {
    /// Does it, beside other migrations; where one is in the way, alone.
    pub(crate) fn run(&self) -> Result<(), MigrateError> {
        let gpu = &self.shared.gpu;
        let apart = |from: PagemapId| gpu.tiles_of(from).any(|from| !gpu.pushes(from, self.target));
        if self.view.pagemap.is_some_and(apart) {
            // No copy engine has both sides.
            let _ = self.svm.range_evict(self.key);
        }
        let first = {
            let _shared = self.shared.migrate_lock.read();
            self.populate()
        };
        if first != Err(MigrateError::Busy) {
            return first;
        }
        let _alone = self.shared.migrate_lock.write();
        self.run_alone()
    }

    /// The same for who holds the migrate lock alone.
    pub(crate) fn run_alone(&self) -> Result<(), MigrateError> {
        let mut in_the_way = true;
        for _ in 0..TURN_WAITS {
            match self.populate() {
                // Whatever is in the way is in system memory then, or it will be in the way again.
                Err(MigrateError::Busy) if in_the_way => {
                    in_the_way = false;
                    let _ = self.svm.range_evict(self.key);
                }
                // An eviction is a CPU's fault, which has its turn where residency deferred it. Whoever gave the lock back meanwhile
                // would begin anew.
                Err(MigrateError::CpuTurn) => sync::time::sleep_ns(TURN_WAIT_NS),
                ended => return ended,
            }
        }
        Err(MigrateError::Busy)
    }

    fn populate(&self) -> Result<(), MigrateError> {
        populate(self.shared, self.target, self.view.span, self.details)
    }
}

/// Owns the blocks of a tile's VRAM that hold allocations of its pagemap.
struct SvmOwner {
    registry: Arc<Registry>,
    /// The tile's first page.
    first: DevicePage,
}

impl Owner for SvmOwner {
    fn evict(&self, offset: u64) {
        if let Some(pagemap) = self.registry.find(self.first.pagemap) {
            let _ = pagemap.evict_to_ram(self.first.add(offset >> PAGE_SHIFT));
        }
    }
}

/// Migrates `range` to a block of VRAM, of this device or of a peer, which is allocated only once the range is claimed.
pub(crate) fn populate(
    shared: &Shared,
    target: PagemapId,
    range: HostRange,
    details: MigrateDetails,
) -> Result<(), MigrateError> {
    let pagemap = shared.pagemaps.find(target).ok_or(MigrateError::Gone)?;
    pagemap.populate_mm(range, &MigrateDetails { from_others: shared.gpu.rules.from_others, ..details })
}
