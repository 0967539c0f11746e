//! How contexts share an engine.
//!
//! Upstream: `guc_policy_*` of `xe_guc_fwif.h` (scheduling policies).

/// Who goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Priority {
    /// Before all others.
    High,
    /// What a queue has.
    #[default]
    Normal,
    /// Behind all others.
    Low,
}

impl Priority {
    /// How many there are.
    pub const COUNT: usize = 3;
}

/// A context's share of its engine's turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Share {
    /// Who goes first.
    pub priority: Priority,
    /// How long it keeps its turn, in microseconds; 0: for one command.
    pub timeslice_us: u64,
}
