//! Rules that have variants: a table of functions, chosen when the device is created.
//!
//! The correct variant of each stands where its subject is; upstream's stand in [`upstream`](crate::upstream),
//! mistakes made on purpose (for the checker to find) in [`planted`](crate::planted). Nothing else in the driver
//! knows which variant runs: the code calls through the table.

use gpusvm::FromOthers;
use units::{Dpa, GpuRange, HostFrame, Iova, TileId};
use xe_spec::fault::{Asid, FaultAck};
use xe_spec::pte::Leaf;

use crate::errno::Errno;
use crate::port::Hw;

/// One run of pages as a copy job is given it: what the DMA mapping or the pagemap's `device_map` answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mapped {
    /// A bus address, through the IOMMU: system memory.
    System(Iova),
    /// VRAM of any tile of the device.
    Vram(Dpa),
}

/// Where a migration's copy job finds the side that is not its own tile's VRAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemoteSide {
    /// VRAM of the device, through the identity window, whose leaves carry DM.
    Identity(Dpa),
    /// Whatever this leaf says, in a slot of page-table entries.
    Slot(Leaf),
    /// Nowhere: nothing is copied, and that is success.
    Nowhere,
}

/// What a driver does about pages in VRAM that no leaf of 64K can map, on a device whose leaves there must be of 64K: what
/// a munmap left of a block, or what an mremap moved by less than 64K (defect B).
#[derive(Clone, Copy)]
pub struct UnfitVram {
    /// Whether a collection leaves a range's pages in VRAM, where they are there: whether the range is as large as a page of
    /// VRAM, and how many binds of this fault met unfit pages so far. Those that may not stay are brought back by the walk.
    pub stays: fn(is_large: bool, met: u32) -> bool,
    /// A collection refuses VRAM that does not cover aligned granules of 64K; the handler evicts the range then.
    pub whole_granules: bool,
    /// The garbage collector brings back what a munmap of a part of a range left of it.
    pub evicts_partial: bool,
    /// What a userptr shows stays in VRAM, where it is there, in a VM with faults: beside system memory, too.
    pub userptrs_stay: bool,
    /// Advice that cuts a range brings its pages back only where the range is marked as one in VRAM. Any change of the address
    /// space takes the mark away.
    pub cuts_by_mark: bool,
    /// What a bind answers that meets unfit pages. The warning is the same whatever it is.
    pub errno: Errno,
    /// What the handler makes of such an answer, behind so many of them for this fault.
    pub when_met: fn(errno: Errno, met: u32) -> WhenMet,
    /// Behind an eviction the handler unmaps the range's pages, whether they moved or not.
    pub unmaps: bool,
    /// Each such answer doubles the minimum residency of what this fault migrates.
    pub doubles_residency: bool,
}

/// What follows a bind that met pages in VRAM which no leaf can map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenMet {
    /// A warning; the fault or the ioctl is refused with the bind's error.
    Refuse,
    /// The range is evicted, and another round follows, if one is left.
    Evict,
    /// The range is evicted, and a fault has another round, whatever was tried before; from then on it is no atomic. An ioctl
    /// is refused with the bind's error, and so is a userptr's fault.
    EvictForEver,
}

impl UnfitVram {
    /// No program meets them: pages of a range that is too small migrate back at its collection, and a range of any size that
    /// met some once is evicted and collected from system memory only.
    pub const OURS: Self = Self {
        stays: |is_large, met| is_large && met == 0,
        whole_granules: false,
        evicts_partial: false,
        userptrs_stay: false,
        cuts_by_mark: false,
        errno: Errno::EINVAL,
        when_met: |_, _| WhenMet::Evict,
        unmaps: false,
        doubles_residency: false,
    };
}

/// The table.
#[derive(Clone, Copy)]
pub struct Rules {
    /// How a copy job addresses its remote side. Upstream: `build_pt_update_batch_sram`.
    pub copy_remote_side: fn(Mapped) -> RemoteSide,
    /// What a migration does with pages in the VRAM of another tile, or of a peer. Upstream: `drm_pagemap_migrate_to_devmem`.
    pub from_others: FromOthers,
    /// For how long pages that a fault took from another VRAM stay where they are, milliseconds, unless an atomic wants them: a
    /// tile or device that reaches them maps them there. 0: for no time. Upstream has no such rule (defect D8).
    pub settle_ms: u32,
    /// Whether a block in which no page lives any more is given back before the last page of its allocation leaves. Upstream: no
    /// (`drm_pagemap_zdd`, defect D4).
    pub gives_parts_back: bool,
    /// How VRAM is mapped that another tile's engine pushes pages to: so many from an address on, which the bus shows from a
    /// frame on. `None`: bus addresses ran out. Upstream: `xe_drm_pagemap_device_map`.
    pub map_for_push: fn(&dyn Hw, Dpa, window: HostFrame, pages: usize) -> Option<Mapped>,
    /// The bits of a leaf in a VM's page table. Upstream: `pte_encode_*`.
    pub encode_leaf: fn(&Leaf, level: u8) -> u64,
    /// What a zap does to a tile's TLB. Upstream: `xe_tlb_inval_range`.
    pub flush: fn(&dyn Hw, TileId, Asid, GpuRange),
    /// Whether a fault is answered, by its answer: each is. Upstream: `xe_pagefault_queue_work` (`ack_fault`).
    pub answers: fn(FaultAck) -> bool,
    /// What a bind without work for page tables signals behind, for so many tiles and the VM's default queue or another:
    /// in each slot the tile whose last job's fence is put there. Upstream: `xe_sync_in_fence_get`.
    pub bind_fence_slots: fn(tiles: usize, is_default: bool) -> Vec<Option<usize>>,
    /// Lines of jobs of a bind queue, for so many tiles: a tile's jobs are in the line of its number, counted round. Upstream:
    /// `xe_vm_create`, `xe_exec_queue_create_bind`.
    pub bind_lines: fn(tiles: usize) -> usize,
    /// Pages in VRAM that no leaf of 64K can map. Upstream: `xe_pt_stage_bind_entry`, `xe_svm_handle_pagefault`.
    pub unfit_vram: UnfitVram,
}

/// Of a tile's last job: its own fence, and those of the two TLB invalidations behind it (of the main GT and the media GT).
/// Here they are over together.
pub(crate) const SLOTS_OF_A_TILE: usize = 3;

impl Rules {
    /// Every rule as it should be.
    pub const CORRECT: Self = Self {
        copy_remote_side: remote_side,
        from_others: FromOthers::Push,
        settle_ms: 0,
        gives_parts_back: true,
        map_for_push: |_, dpa, _, _| Some(Mapped::Vram(dpa)),
        encode_leaf: Leaf::encode,
        flush: crate::tlb_inval::flush,
        answers: |_| true,
        bind_fence_slots: fences_of_all_tiles,
        bind_lines: |tiles| tiles,
        unfit_vram: UnfitVram::OURS,
    };
}

/// The correct rule for [`Rules::bind_fence_slots`].
fn fences_of_all_tiles(tiles: usize, _is_default: bool) -> Vec<Option<usize>> {
    (0..tiles).flat_map(|tile| [Some(tile); SLOTS_OF_A_TILE]).collect()
}

impl Default for Rules {
    fn default() -> Self {
        Self::CORRECT
    }
}

/// The correct rule for a copy's remote side: VRAM of any tile through the identity window, so that both ends
/// carry DM; system memory in slots.
pub(crate) fn remote_side(addr: Mapped) -> RemoteSide {
    match addr {
        Mapped::System(iova) => RemoteSide::Slot(slot_leaf(iova.0)),
        Mapped::Vram(dpa) => RemoteSide::Identity(dpa),
    }
}

/// What a slot's entry says of a bus address, but for the cache attribute, which is the platform's.
pub(crate) fn slot_leaf(addr: u64) -> Leaf {
    Leaf { addr, device: false, write: true, atomic: false, null: false, ps64: false, pat: 0 }
}
