//! Faults of the device itself that a test or the checker switches on. Default: none.

/// What happens to TLB flushes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FlushFault {
    /// All are obeyed.
    #[default]
    None,
    /// The flush of this number, counted from 0 over all tiles, is acknowledged and not done.
    Lose(u64),
    /// Every flush is acknowledged and not done.
    LoseAll,
    /// Entries go, but accesses in flight are not waited for.
    SkipDrain,
}

/// The faults of one device.
#[derive(Clone, Debug, Default)]
pub struct Injection {
    /// TLB flushes.
    pub flush: FlushFault,
    /// Time that every flush takes before it acts, in nanoseconds (a slow firmware).
    pub flush_delay_ns: u64,
    /// The page copy of this number, counted from 0 over the device's copy jobs, fails.
    pub fail_copy: Option<u64>,
}
