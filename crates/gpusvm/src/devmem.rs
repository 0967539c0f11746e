//! Device memory: one allocation, and what the engine asks of the driver that owns it.
//!
//! Upstream: `struct drm_pagemap_devmem`, `struct drm_pagemap_devmem_ops`, `struct drm_pagemap_ops`.

use crate::device::{Device, Direction, MapError, PagemapAddr};
use core::ops::Range;
use hostmm::{DevicePage, PagemapId};
use units::Report;

/// One allocation of VRAM: a contiguous run of one pagemap (`struct drm_pagemap_devmem`).
///
/// It has one owner at a time, so it is neither `Clone` nor `Copy`: the driver makes it, a migration consumes
/// it, and [`DevmemOps::devmem_release`] gives it back, once, whole or in parts.
#[derive(PartialEq, Eq, Debug)]
pub struct Devmem {
    /// First page.
    pub base: DevicePage,
    /// Number of 4K pages.
    pub pages: usize,
    /// The driver's own name for it; the engine never looks inside.
    pub cookie: u64,
}

impl Devmem {
    /// Whether `page` lies in the allocation.
    pub const fn contains(&self, page: DevicePage) -> bool {
        page.pagemap.0 == self.base.pagemap.0
            && self.base.frame <= page.frame
            && page.frame - self.base.frame < self.pages as u64
    }

    /// Some of its pages, by their place in it, as an allocation of their own.
    pub(crate) fn part(&self, pages: Range<usize>) -> Self {
        Self { base: self.base.add(pages.start as u64), pages: pages.len(), cookie: self.cookie }
    }
}

/// Why a copy as a whole did not happen. How single runs travelled is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyError {
    /// The engine met an address that nothing maps.
    Fault,
    /// The engine was reset, or the device is gone.
    Reset,
    /// No memory for the job.
    NoMemory,
}

/// One run of a copy: pages of this VRAM, and as many elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyRun {
    /// The first page here.
    pub page: DevicePage,
    /// The other side as this device sees it, and how many pages.
    pub addr: PagemapAddr,
}

/// What a driver does for one pagemap (`drm_pagemap_ops` and `drm_pagemap_devmem_ops` in one).
///
/// A copy takes runs, and reports how their pages travelled, in their order. What it does not report counts as failed.
pub trait DevmemOps: Send + Sync + 'static {
    /// The device whose VRAM this is.
    fn device(&self) -> &dyn Device;
    /// Whether this device's engine of this VRAM reaches that of `target`, to push pages there (`pci_p2pdma_distance` for a peer).
    fn pushes_to(&self, target: PagemapId) -> bool;
    /// The address of `pages` pages from `page`, as the device that will reach them, `by`, sees it: this one, or a peer
    /// (`drm_pagemap_ops.device_map`). What is reached through the bus is a DMA mapping of `by`, which whoever asked ends by
    /// [`unmap`](crate::PagemapAddr::unmap). May be called with the notifier lock held.
    fn device_map(
        &self,
        by: &dyn Device,
        page: DevicePage,
        pages: usize,
        dir: Direction,
    ) -> Result<PagemapAddr, MapError>;
    /// VRAM for `pages` pages that a migration brings (`drm_pagemap_ops.populate_mm`); `None` where there is none. Called
    /// with no engine lock held.
    fn devmem_alloc(&self, pages: usize) -> Option<Devmem>;
    /// How many pages the smallest part of an allocation has that can be released alone: from a multiple of so many on. `None` where an
    /// allocation is released as a whole only, as upstream does (defect D4).
    fn granule(&self) -> Option<usize> {
        None
    }
    /// Copies into this VRAM, from where `addr` of each run is. Returns when the copy is done. No engine lock is held.
    fn copy_to_devmem(&self, runs: &[CopyRun], report: &mut Report<'_>) -> Result<(), CopyError>;
    /// Copies out of this VRAM, to where `addr` of each run is: system memory, or the VRAM of another tile, into which
    /// this one's engine pushes. Returns when the copy is done. No engine lock is held; runs in reader class where a CPU
    /// fault asked for it.
    fn copy_to_ram(&self, runs: &[CopyRun], report: &mut Report<'_>) -> Result<(), CopyError>;
    /// No page lives in `devmem` any more: its VRAM may be used again. It is an allocation, or a part of one of whole
    /// [granules](Self::granule). Called exactly once for each page, with no engine lock held, possibly in reader class.
    fn devmem_release(&self, devmem: Devmem);
}
