//! Decisions as a table of functions: the correct ones, unless a checker puts a [planted](crate::planted) mistake in the place of one.

use crate::LiveMm;
use units::HostRange;

/// The table.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// What becomes of what lies in a range whose REMOVE has been read.
    pub on_remove: fn(&LiveMm, HostRange),
    /// Whether an invalidation of the first range, which runs, is counted into the sequence of a new notifier of the second.
    pub counts_in: fn(HostRange, HostRange) -> bool,
    /// Whether pages are not claimed yet, given whether a notice that is about them is out.
    pub awaits_notices: fn(bool) -> bool,
}

impl Rules {
    /// Each as it should be.
    pub const CORRECT: Self =
        Self { on_remove: LiveMm::set_aside, counts_in: HostRange::overlaps, awaits_notices: |out| out };
}
