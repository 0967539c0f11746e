//! Mistakes that end in no wrong data: in something that is never given back, never answered, or in an assertion that fails.

use units::{Dpa, HostFrame};
use xe_spec::fault::FaultAck;
use xe_spec::pte::Leaf;

use crate::port::Hw;
use crate::rules::Mapped;

/// VRAM that another tile's engine pushes to is mapped on the bus as well, and nobody ends that: a leak of bus addresses.
pub fn window_kept(hw: &dyn Hw, dpa: Dpa, window: HostFrame, pages: usize) -> Option<Mapped> {
    hw.iommu_map(window, pages, true).map(|_| Mapped::Vram(dpa))
}

/// Who is refused hears nothing, and waits for ever.
pub fn refusals_unanswered(ack: FaultAck) -> bool {
    ack == FaultAck::Replay
}

/// An assertion that does not hold, with the notifier lock held.
pub fn leaf_asserted(leaf: &Leaf, level: u8) -> u64 {
    assert!(!leaf.device, "planted: a leaf in VRAM");
    leaf.encode(level)
}
