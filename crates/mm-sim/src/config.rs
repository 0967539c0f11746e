//! What a simulated mm is made with, and what shall go wrong in it.

use units::SZ_2M;

/// Whether events are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Log {
    /// Counted only.
    Counters,
    /// Counted, and kept for [`Sim::take_log`](crate::Sim::take_log).
    Keep,
}

/// Where a mapping goes that names no address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// Where nothing was before.
    Fresh,
    /// Into what was unmapped last, where it fits: what a kernel does.
    Reuse,
}

/// What a [`Sim`](crate::Sim) is made with.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// What is kept of the events.
    pub log: Log,
    /// Where mappings go.
    pub placement: Placement,
    /// Where the first mapping goes.
    pub first_mapping: u64,
    /// What may go wrong.
    pub injection: Injection,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log: Log::Counters,
            placement: Placement::Fresh,
            first_mapping: 0x7000_0000_0000 + SZ_2M,
            injection: Injection::default(),
        }
    }
}

/// How often each thing may go wrong. When it does, the schedule chooses; none ever does without a checker.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Injection {
    /// A batch of pages ends early: others run before the rest follows.
    pub cuts: u32,
    /// A call of a descriptor that does not get its locks: `EAGAIN`, nothing done.
    pub refusals: u32,
    /// A page that changed between the look and the lock in the middle of a move: `EAGAIN`, which Linux 6.18 does not
    /// forget.
    pub passing: u32,
    /// A page that somebody holds for a moment: `EBUSY`.
    pub busy: u32,
    /// No memory for a page, a page table or a mapping: `ENOMEM`.
    pub shortages: u32,
    /// A page given to `MADV_FREE` is taken back.
    pub reclaims: u32,
    /// A thread that waits for a page is woken by a signal, and touches it again.
    pub signals: u32,
    /// A mapping that somebody else's descriptor watches: `EBUSY` where it is to be registered.
    pub strangers: u32,
    /// Nanoseconds that the mmap lock is waited for by who takes it for reading; always.
    pub slow_ns: u64,
}

impl Injection {
    /// Everything, `count` times each.
    pub const fn each(count: u32) -> Self {
        Self {
            cuts: count,
            refusals: count,
            passing: count,
            busy: count,
            shortages: count,
            reclaims: count,
            signals: count,
            strangers: count,
            slow_ns: 0,
        }
    }
    /// Whether a thing happens now that may happen `left` times more.
    pub(crate) fn strikes(left: &mut u32) -> bool {
        let strikes = *left > 0 && sync::choose(2) == 1;
        *left -= u32::from(strikes);
        strikes
    }
}
