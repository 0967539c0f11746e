//! Rules that have variants: a table of functions, chosen when the device is created.
//!
//! The correct variant of each stands where its subject is; upstream's stand in [`upstream`](crate::upstream),
//! mistakes made on purpose (for the checker to find) in [`planted`](crate::planted). Nothing else in the driver
//! knows which variant runs: the code calls through the table.

use units::{Dpa, GpuRange, Iova, TileId};
use xe_spec::fault::Asid;
use xe_spec::pat;
use xe_spec::pte::Leaf;

use crate::port::Hw;

/// One run of pages as a copy job is given it: what the DMA mapping or the pagemap's `device_map` answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mapped {
    /// System memory, through the IOMMU.
    System(Iova),
    /// VRAM of any tile of the device.
    Vram(Dpa),
}

/// Where a migration's copy job finds the side that is not its own tile's VRAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FarSide {
    /// VRAM of the device, through the identity window, whose leaves carry DM.
    Identity(Dpa),
    /// Whatever this leaf says, in a slot of page-table entries.
    Slot(Leaf),
}

/// The table.
#[derive(Clone, Copy)]
pub struct Rules {
    /// How a copy job addresses its far side. Upstream: `build_pt_update_batch_sram`.
    pub copy_far_side: fn(Mapped) -> FarSide,
    /// The bits of a leaf in a VM's page table. Upstream: `pte_encode_*`.
    pub encode_leaf: fn(&Leaf, level: u8) -> u64,
    /// What a zap does to a tile's TLB. Upstream: `xe_tlb_inval_range`.
    pub flush: fn(&dyn Hw, TileId, Asid, GpuRange),
}

impl Rules {
    /// Every rule as it should be.
    pub const CORRECT: Self =
        Self { copy_far_side: far_side, encode_leaf: Leaf::encode, flush: crate::tlb_inval::flush };
}

impl Default for Rules {
    fn default() -> Self {
        Self::CORRECT
    }
}

/// The correct rule for a copy's far side: VRAM of any tile through the identity window, so that both ends
/// carry DM; system memory in slots.
pub(crate) fn far_side(addr: Mapped) -> FarSide {
    match addr {
        Mapped::System(iova) => FarSide::Slot(slot_leaf(iova.0)),
        Mapped::Vram(dpa) => FarSide::Identity(dpa),
    }
}

/// What a slot's entry says of a bus address.
pub(crate) fn slot_leaf(addr: u64) -> Leaf {
    Leaf { addr, device: false, write: true, atomic: false, null: false, ps64: false, pat: pat::PVC_WB }
}
