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

/// How far a device has counted what is injected by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Numbered {
    /// Pages that were to be copied.
    pub copies: u64,
    /// Bus mappings that were asked for, where some are to fail.
    pub maps: u64,
    /// Pages that walks of one tile found, of the tile with most, where one is to be lost.
    pub found: u64,
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
    /// The page copy of this number ends its job, which says nothing of that page and of those behind it.
    pub stop_copy: Option<u64>,
    /// The bus mappings of these numbers, counted from 0, are refused.
    pub fail_maps: Vec<u64>,
    /// The page that the walk of this number finds, counted from 0 over a tile's walks that find one, is found no more:
    /// its walks end as if nothing were there, for good.
    pub lose_page: Option<u64>,
}
