//! VRAM for migrations: where it comes from, and how pages travel.
//!
//! [`TileMemory`] is what the engine asks for one tile's pagemap: addresses of its pages, copies in and out, and
//! the end of an allocation. [`to_vram`] is the driver's side of one migration: the engine's call, and a block when the
//! engine asks for one, with the one retry that a race with another migration deserves.
//!
//! Locking: [`TileMemory`]'s calls take leaf locks only, and may run in reader class. [`to_vram`] holds the VM's
//! lock and takes the migrate lock: shared for a first try, alone for the second, so that two VMs that fight
//! for the same pages do not undo each other's work for ever.
//!
//! Upstream: `xe_svm_alloc_vram`, `xe_drm_pagemap_populate_mm`, `xe_svm_devmem_release`, `xe_svm_copy_to_devmem`,
//! `xe_svm_copy_to_ram`, `xe_drm_pagemap_device_map`, `xe_svm_bo_evict`.

use std::sync::{Arc, Weak};

use gpusvm::{
    CopyError, CopyRun, Devmem, DevmemOps, Direction, FromPeers, MapError, MigrateDetails, MigrateError, Pagemap,
    PagemapAddr, Proto, RangeKey,
};
use hostmm::{DevicePage, PagemapId};
use units::{Dpa, HostFrame, HostRange, Iova, PAGE_SHIFT, Report, TileId};

use super::{RangeView, Svm};
use crate::event::CopyDirection;
use crate::gpu::Gpu;
use crate::migrate::NoSlot;
use crate::rules::Mapped;
use crate::shared::Shared;
use crate::vram::Owner;

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
    fn dma_map(&self, frame: HostFrame, pages: usize, dir: Direction) -> Result<Iova, MapError> {
        let write = dir != Direction::ToDevice;
        self.gpu.hw.iommu_map(frame, pages, write).ok_or(MapError::NoSpace)
    }

    fn dma_unmap(&self, iova: Iova, pages: usize) {
        self.gpu.hw.iommu_unmap(iova, pages);
    }
}

/// What the engine asks of one tile's VRAM.
pub(crate) struct TileMemory {
    gpu: Arc<Gpu>,
    tile: TileId,
    dma: Dma,
}

impl TileMemory {
    /// For the pagemap of `tile`.
    pub(crate) fn new(gpu: &Arc<Gpu>, tile: TileId) -> Self {
        Self { gpu: gpu.clone(), tile, dma: Dma::new(gpu.clone()) }
    }

    fn dpa(&self, page: DevicePage) -> Option<Dpa> {
        let tile = self.gpu.tile(self.tile).filter(|tile| tile.pagemap == page.pagemap)?;
        Some(tile.base.add(page.frame << PAGE_SHIFT))
    }

    fn copy(&self, direction: CopyDirection, runs: &[CopyRun], report: &mut Report<'_>) -> Result<(), CopyError> {
        let tile = self.gpu.tile(self.tile).ok_or(CopyError::Reset)?;
        if runs.iter().any(|run| run.page.pagemap != tile.pagemap) {
            return Err(CopyError::Fault);
        }
        tile.migrate.copy(&self.gpu, &tile.tables, direction, runs, report).map_err(|NoSlot| CopyError::NoMemory)
    }
}

impl DevmemOps for TileMemory {
    fn device(&self) -> &dyn gpusvm::Device {
        &self.dma
    }

    fn device_map(&self, page: DevicePage, pages: usize, dir: Direction) -> Result<PagemapAddr, MapError> {
        let dpa = self.dpa(page).ok_or(MapError::Unreachable)?;
        let proto = self.gpu.interconnect.path(self.tile, page.pagemap).ok_or(MapError::Unreachable)?;
        // Only a push writes what the other end of it maps.
        let mapped = match dir {
            Direction::FromDevice => {
                (self.gpu.rules.map_for_push)(&*self.gpu.hw, dpa, pages).ok_or(MapError::NoSpace)?
            }
            Direction::ToDevice | Direction::Both => Mapped::Vram(dpa),
        };
        let (addr, proto) = match mapped {
            Mapped::Vram(dpa) => (dpa.0, proto),
            Mapped::System(iova) => (iova.0, Proto::P2p),
        };
        Ok(PagemapAddr { addr, proto, pages: pages as u32, dir })
    }

    fn device_unmap(&self, addr: PagemapAddr) {
        if addr.proto == Proto::P2p {
            self.gpu.hw.iommu_unmap(Iova(addr.addr), addr.pages());
        }
    }

    fn copy_to_devmem(&self, runs: &[CopyRun], report: &mut Report<'_>) -> Result<(), CopyError> {
        self.copy(CopyDirection::ToVram, runs, report)
    }

    fn copy_to_ram(&self, runs: &[CopyRun], report: &mut Report<'_>) -> Result<(), CopyError> {
        self.copy(CopyDirection::FromVram, runs, report)
    }

    fn devmem_release(&self, devmem: Devmem) {
        if let Some(tile) = self.gpu.tile(self.tile) {
            tile.vram.free(devmem.base.frame << PAGE_SHIFT);
        }
    }
}

/// Moves a range's pages to the VRAM of `target`, for at least `timeslice_ms`.
pub(crate) fn to_vram(
    shared: &Shared,
    svm: &Svm,
    key: RangeKey,
    view: &RangeView,
    target: PagemapId,
    timeslice_ms: u32,
) -> Result<(), MigrateError> {
    let apart = |from: PagemapId| shared.gpu.tile_of(from).is_some_and(|from| !shared.gpu.reaches(from.id, target));
    if view.pagemap.is_some_and(apart) {
        // No copy engine has both sides.
        let _ = svm.range_evict(key);
    }
    let first = {
        let _shared = shared.migrate_lock.read();
        populate(shared, target, view.span, timeslice_ms)
    };
    if first != Err(MigrateError::Busy) {
        return first;
    }
    let _alone = shared.migrate_lock.write();
    // Whatever was in the way is at home then, or it will be in the way again.
    let _ = svm.range_evict(key);
    populate(shared, target, view.span, timeslice_ms)
}

/// Owns the blocks of VRAM that hold allocations of one pagemap.
pub(crate) struct SvmOwner(Weak<Pagemap>);

impl SvmOwner {
    /// Of this pagemap.
    pub(crate) fn of(pagemap: &Arc<Pagemap>) -> Arc<dyn Owner> {
        Arc::new(Self(Arc::downgrade(pagemap)))
    }
}

impl Owner for SvmOwner {
    fn evict(&self, offset: u64) {
        if let Some(pagemap) = self.0.upgrade() {
            let _ = pagemap.evict_to_ram(DevicePage { pagemap: pagemap.id(), frame: offset >> PAGE_SHIFT });
        }
    }
}

/// Migrates `range` to a block of VRAM, which is allocated only once the range is claimed.
pub(crate) fn populate(
    shared: &Shared,
    target: PagemapId,
    range: HostRange,
    timeslice_ms: u32,
) -> Result<(), MigrateError> {
    let tile = shared.gpu.tile_of(target).ok_or(MigrateError::Gone)?;
    let pagemap = shared.pagemaps.get(target).ok_or(MigrateError::Gone)?;
    let owner = shared.svm_owners.get(tile.id.index()).ok_or(MigrateError::Gone)?;
    // Each tile's engine pushes what lies in its VRAM, as far as it reaches.
    let reached = shared.gpu.tiles.iter().all(|from| shared.gpu.reaches(from.id, target));
    let from_peers = if reached { shared.gpu.rules.from_peers } else { FromPeers::Refuse };
    let details = MigrateDetails { timeslice_ms, from_peers };
    pagemap.migrate_to_devmem(range, &details, || {
        let offset = tile.vram.alloc(range.len(), owner)?;
        let base = DevicePage { pagemap: target, frame: offset >> PAGE_SHIFT };
        Some(Devmem { base, pages: range.pages(), cookie: 0 })
    })
}
