//! What a simulated mm is made with.

use units::SZ_2M;

/// Whose rules the mm follows. The difference is exactly the rows of `docs/hostmm.md`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// A kernel's own mm: told before each change, callers held, migration entries.
    Linux,
    /// A process that moves its own memory by userfaultfd: reader tasks, late events, moves.
    Userfaultfd,
}

/// Whether events are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Log {
    /// Counted only.
    Counters,
    /// Counted, and kept for [`Sim::take_log`](crate::Sim::take_log).
    Keep,
}

/// What a [`Sim`](crate::Sim) is made with.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Whose rules.
    pub manner: Manner,
    /// Reader tasks that serve faults and events (manner userfaultfd).
    pub readers: usize,
    /// For how long a page given to DONTNEED is not claimed where the event could not drop it, in ns: the zap
    /// follows the event, and nothing tells of its end (manner userfaultfd).
    pub quarantine_ns: u64,
    /// What is kept of the events.
    pub log: Log,
    /// Where the first mapping goes.
    pub first_mapping: u64,
}

impl Config {
    /// The Linux manner.
    pub const LINUX: Self = Self {
        manner: Manner::Linux,
        readers: 0,
        quarantine_ns: 0,
        log: Log::Counters,
        first_mapping: 0x7000_0000_0000 + SZ_2M,
    };
    /// The userfaultfd manner with two readers and a quarantine of 20 ms.
    pub const USERFAULTFD: Self =
        Self { manner: Manner::Userfaultfd, readers: 2, quarantine_ns: 20_000_000, ..Self::LINUX };
}
