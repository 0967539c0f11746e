//! Leaves with one bit forgotten.

use xe_spec::pte::Leaf;

/// DM forgotten: VRAM is addressed on the bus.
pub fn dm_dropped(leaf: &Leaf, level: u8) -> u64 {
    Leaf { device: false, ..*leaf }.encode(level)
}

/// PS64 forgotten: a 4K leaf in VRAM, which a device that needs 64K refuses.
pub fn ps64_missing(leaf: &Leaf, level: u8) -> u64 {
    Leaf { ps64: false, ..*leaf }.encode(level)
}

/// RW forgotten: every write faults, and goes on faulting.
pub fn rw_cleared(leaf: &Leaf, level: u8) -> u64 {
    Leaf { write: false, ..*leaf }.encode(level)
}
