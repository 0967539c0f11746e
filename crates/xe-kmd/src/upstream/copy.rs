//! `a=upstream`: the far side of a copy job always stands in slots of page-table entries, as *system* memory.
//!
//! `device_map` answers with a device address for any tile of the same device; the slots' entries are built
//! without DM all the same. So the engine that pushes pages to the other tile writes to a *bus* address of that
//! number; the destination keeps its zeros, and the migration reports success.
//!
//! Upstream: `build_pt_update_batch_sram` in `xe_migrate.c` (the memory type is a constant there).

use crate::rules::{FarSide, Mapped, slot_leaf};

/// The far side, its memory type forgotten.
pub fn far_side(addr: Mapped) -> FarSide {
    let number = match addr {
        Mapped::System(iova) => iova.0,
        Mapped::Vram(dpa) => dpa.0,
    };
    FarSide::Slot(slot_leaf(number))
}
