//! Where the pages of a fault should live.
//!
//! A [`Placement`] is made from the VMA's attributes and the fault before the range is known; with the range it says
//! whether the mapping that is there will do, and whether a migration is worth a try.
//!
//! Two rules of devices that need 64K in VRAM: a smaller range is never migrated; and as its pages may be in
//! VRAM all the same (left there by a larger range), its collection names no owner, so that the host brings
//! them back: a rule with variants ([`UnfitVram`], defect B). An atomic on such a range cannot be served at all: so its range is made large enough whether all pages
//! are there or not, and one that is too small gives way.
//!
//! An atomic does not go to a peer's VRAM: its bridge would have to do it. Where advice lets atomics of the device be anywhere, and the pages are
//! there, or are to be there, they come to the tile's own VRAM, or to system memory. (Upstream maps them there for atomics, too.)
//!
//! Locking: none.
//!
//! Upstream: `xe_vma_need_vram_for_atomic`, `xe_vma_resolve_pagemap`, `xe_svm_range_needs_migrate_to_vram`,
//! the head of `__xe_svm_handle_pagefault`.

use gpusvm::Ctx;
use hostmm::{OwnerId, PagemapId};
use units::{SZ_64K, TileId};
use xe_spec::fault::Access;
use xe_spec::platform::Platform;
use xe_uapi::attr;

use super::RangeView;
use crate::caller::Location;
use crate::errno::Errno;
use crate::gpu::Gpu;
use crate::pt::build;
use crate::rules::UnfitVram;
use crate::vma::Vma;

/// Minimum residency of pages that were migrated for an atomic, milliseconds.
const ATOMIC_TIMESLICE_MS: u32 = 5;

/// Whether pages must be in VRAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// Anywhere will do; VRAM is only better.
    Anywhere,
    /// In the VRAM of the target: an atomic.
    Vram,
}

/// Where the pages of a fault or a prefetch should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Placement {
    /// VRAM that the pages should be in; `None`: system memory.
    pub target: Option<PagemapId>,
    pub need: Need,
    /// Minimum residency after a migration.
    pub timeslice_ms: u32,
    /// Whose VRAM may be mapped.
    owner: OwnerId,
    read_only: bool,
    /// A peer's VRAM will not do.
    off_peers: bool,
    /// There is VRAM for pages to be in.
    devmem_possible: bool,
    /// Smallest page of VRAM.
    pub min_page: u64,
    /// A new range of this size or less must have all its pages: 0 where absent ones are wanted too.
    check_pages_threshold: u64,
}

impl Placement {
    /// Of an access of `tile` to `vma`. `EACCES` where the VMA's attribute forbids the device's atomics.
    pub(crate) fn of(gpu: &Gpu, vma: &Vma, tile: TileId, access: Access) -> Result<Self, Errno> {
        let platform = gpu.platform;
        let is_elsewhere = resolve_pagemap(gpu, vma, tile).is_some_and(|pagemap| gpu.is_peers(pagemap));
        let need = match need_vram_for_atomic(platform, vma, access)? {
            Need::Anywhere if access == Access::Atomic && is_elsewhere => Need::Vram,
            need => need,
        };
        let (target, timeslice_ms, check_pages_threshold) = match need {
            Need::Vram => (gpu.pagemap(tile), ATOMIC_TIMESLICE_MS, 0),
            Need::Anywhere => (resolve_pagemap(gpu, vma, tile), 0, SZ_64K),
        };
        let prefetch = Self::prefetch(gpu, vma, target);
        Ok(Self { need, timeslice_ms, check_pages_threshold, off_peers: access == Access::Atomic, ..prefetch })
    }

    /// Of a prefetch to `target`.
    pub(crate) fn prefetch(gpu: &Gpu, vma: &Vma, target: Option<PagemapId>) -> Self {
        Self {
            target,
            need: Need::Anywhere,
            timeslice_ms: 0,
            owner: gpu.interconnect.owner(),
            read_only: vma.read_only,
            off_peers: false,
            devmem_possible: gpu.platform.has_vram(),
            min_page: gpu.platform.min_vram_page(),
            check_pages_threshold: 0,
        }
    }

    /// For finding or making the range.
    pub(crate) fn find_ctx(&self) -> Ctx {
        Ctx {
            owner: self.target.map(|_| self.owner),
            check_pages_threshold: self.check_pages_threshold,
            read_only: self.read_only,
            devmem_possible: self.devmem_possible,
            ..Ctx::default()
        }
    }

    /// For collecting the range's pages, `met` binds after such that met pages in VRAM which no leaf can map.
    pub(crate) fn pages_ctx(&self, view: &RangeView, rule: &UnfitVram, met: u32) -> Ctx {
        let stays = (rule.stays)(self.fits_vram(view), met) && !self.strays(view);
        let stays = self.need == Need::Vram || stays;
        let owner = self.target.filter(|_| stays).map(|_| self.owner);
        let device_granule = if rule.whole_granules { self.min_page } else { 0 };
        Ctx { owner, devmem_only: self.need == Need::Vram, device_granule, ..self.find_ctx() }
    }

    /// Whether the mapping that `tile` has will do. Where VRAM is only better, any tile's will.
    pub(crate) fn satisfied(&self, view: &RangeView, tile: TileId) -> bool {
        let is_there = self.need == Need::Anywhere && !self.strays(view);
        view.data.bound_on(tile) && (is_there || view.pagemap == self.target)
    }

    /// Whether what is wanted can never be had of this range.
    pub(crate) fn impossible(&self, view: &RangeView) -> bool {
        self.need == Need::Vram && !(view.migrate_devmem && self.fits_vram(view))
    }

    /// The VRAM that the range's pages should be brought to, if they are not known to be there.
    pub(crate) fn migration(&self, view: &RangeView) -> Option<PagemapId> {
        let possible = view.migrate_devmem && self.fits_vram(view);
        self.target.filter(|target| possible && view.pagemap != Some(*target))
    }

    /// Whether its pages are in a peer's VRAM, which will not do.
    fn strays(&self, view: &RangeView) -> bool {
        self.off_peers && view.at_peer
    }

    fn fits_vram(&self, view: &RangeView) -> bool {
        view.span.len() >= self.min_page
    }
}

/// What advice leaves to the CPU is refused everywhere. (Upstream takes such an atomic of an integrated GPU for served, and it faults again.)
fn need_vram_for_atomic(platform: &Platform, vma: &Vma, access: Access) -> Result<Need, Errno> {
    if access != Access::Atomic {
        return Ok(Need::Anywhere);
    }
    match vma.attr.atomic {
        attr::ATOMIC_CPU => Err(Errno::EACCES),
        _ if !platform.has_vram() => Ok(Need::Anywhere),
        attr::ATOMIC_DEVICE if platform.device_atomics_on_smem => Ok(Need::Anywhere),
        _ => Ok(Need::Vram),
    }
}

/// The VRAM that a VMA's attribute names, for a fault of `tile`.
pub(crate) fn resolve_pagemap(gpu: &Gpu, vma: &Vma, tile: TileId) -> Option<PagemapId> {
    match vma.attr.devmem_fd {
        attr::PREFERRED_LOC_DEFAULT_SYSTEM => None,
        attr::PREFERRED_LOC_DEFAULT_DEVICE => gpu.pagemap(tile),
        _ => vma.attr.pagemap,
    }
}

/// The pagemap of a memory region: region 0 is system memory, 1 + n is tile n.
pub(crate) fn region_pagemap(gpu: &Gpu, region: u32) -> Option<PagemapId> {
    gpu.pagemap(TileId(u8::try_from(region.checked_sub(1)?).ok()?))
}

/// A memory region, as advice of another file names it.
pub(crate) fn location(gpu: &Gpu, region: u16) -> Location {
    Location { owner: gpu.interconnect.owner(), pagemap: region_pagemap(gpu, region.into()) }
}

/// What a VMA's leaves allow.
pub(crate) fn leaf_access(platform: &Platform, vma: &Vma) -> build::Access {
    let may = vma.attr.atomic != attr::ATOMIC_CPU;
    let is_anywhere = vma.attr.atomic == attr::ATOMIC_DEVICE || !platform.has_vram();
    build::Access {
        write: !vma.read_only,
        atomic_vram: may,
        atomic_system: may && platform.device_atomics_on_smem && is_anywhere,
        pat: vma.attr.pat as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::svm::RangeData;
    use crate::testing::{Rig, pagemap};
    use crate::vma::Kind;
    use units::{GpuRange, GpuVa, HostRange, HostVa, SZ_2M, SZ_4K};
    use xe_spec::platform::PVC;

    const T0: Option<PagemapId> = Some(pagemap(0));
    const T1: Option<PagemapId> = Some(pagemap(1));

    fn vma(change: impl Fn(&mut Vma)) -> Vma {
        let mut vma = Vma::new(GpuRange::sized(GpuVa(0), SZ_2M), Kind::Mirror, 3);
        change(&mut vma);
        vma
    }

    fn view(bytes: u64, pagemap: Option<PagemapId>, bound: u8) -> RangeView {
        let data = RangeData { tile_present: bound, tile_invalidated: 0 };
        let span = HostRange::sized(HostVa(0), bytes);
        RangeView { span, data, migrate_devmem: true, pagemap, at_peer: false, unmapped: false }
    }

    fn placement(vma: &Vma, tile: u8, access: Access) -> Result<Placement, Errno> {
        Placement::of(&Rig::new().device.shared.gpu, vma, TileId(tile), access)
    }

    #[test]
    fn the_faulting_tile_is_the_default_target() {
        let read = placement(&vma(|_| ()), 1, Access::Read).unwrap();
        assert_eq!((read.target, read.need, read.timeslice_ms), (T1, Need::Anywhere, 0));
        assert_eq!(read.migration(&view(SZ_64K, None, 0)), T1);
        assert_eq!(read.migration(&view(SZ_64K, T0, 1)), T1, "another tile's VRAM is not this tile's");
        assert_eq!(read.migration(&view(SZ_64K, T1, 0)), None);
        assert!(read.satisfied(&view(SZ_64K, T0, 0b10), TileId(1)), "any mapping will do");
        assert!(!read.satisfied(&view(SZ_64K, T1, 0b01), TileId(1)));
    }

    #[test]
    fn small_ranges_stay_home_and_their_pages_come_home() {
        let read = placement(&vma(|_| ()), 0, Access::Write).unwrap();
        let (small, large) = (view(SZ_4K, None, 0), view(SZ_64K, None, 0));
        let owner = |view, met| read.pages_ctx(view, &UnfitVram::OURS, met).owner;
        assert_eq!((read.migration(&small), owner(&small, 0)), (None, None));
        assert_eq!((read.migration(&large), owner(&large, 0)), (T0, Some(OwnerId(1))));
        assert_eq!(owner(&large, 1), None, "a second try finds no VRAM");
    }

    #[test]
    fn atomics_need_vram_unless_the_attribute_says_otherwise() {
        let atomic = placement(&vma(|_| ()), 1, Access::Atomic).unwrap();
        assert_eq!((atomic.target, atomic.need, atomic.timeslice_ms), (T1, Need::Vram, 5));
        assert!(!atomic.satisfied(&view(SZ_64K, T0, 0b10), TileId(1)));
        assert!(atomic.satisfied(&view(SZ_64K, T1, 0b10), TileId(1)));
        assert!(atomic.impossible(&view(SZ_4K, None, 0)), "4K cannot live in VRAM: refused, not retried");
        let denied = vma(|vma| vma.attr.atomic = attr::ATOMIC_CPU);
        assert_eq!(placement(&denied, 0, Access::Atomic), Err(Errno::EACCES));
        assert!(!leaf_access(&PVC, &denied).atomic_vram);
        let device = vma(|vma| vma.attr.atomic = attr::ATOMIC_DEVICE);
        assert_eq!(placement(&device, 0, Access::Atomic).unwrap().need, Need::Vram, "no atomics on system memory here");
    }

    #[test]
    fn preferred_locations_are_obeyed() {
        let system = vma(|vma| vma.attr.devmem_fd = attr::PREFERRED_LOC_DEFAULT_SYSTEM);
        let read = placement(&system, 0, Access::Read).unwrap();
        assert_eq!((read.target, read.pages_ctx(&view(SZ_2M, T0, 0), &UnfitVram::OURS, 0).owner), (None, None));
        let far = vma(|vma| (vma.attr.devmem_fd, vma.attr.pagemap) = (7, T1));
        assert_eq!(placement(&far, 0, Access::Read).unwrap().target, T1);
    }
}
