//! Decisions as a table of functions: the correct ones, unless a checker puts a [planted](crate::planted) mistake in the place of one.

use crate::LiveMm;
use units::HostRange;

/// The table.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// What becomes of what lies in a range whose REMOVE has been read.
    pub on_remove: fn(&LiveMm, HostRange),
}

impl Rules {
    /// Each as it should be.
    pub const CORRECT: Self = Self { on_remove: LiveMm::set_aside };
}
