//! The migration engine.

use xe_spec::pat;
use xe_spec::pte::Leaf;

use crate::rules::{FarSide, Mapped};

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
