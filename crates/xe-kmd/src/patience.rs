//! How long somebody goes on who loses to others: what he needs is busy, and will be free in a moment.
//!
//! Each round is paid for by a pause, longer each time, so that the winner gets on. Rounds are bounded by time: whoever
//! waits is answered in the end.
//!
//! Upstream: the retries of `__xe_svm_handle_pagefault`, which are bounded by nothing (D2); the exhaustive eviction of `xe_validation.c`.

use crate::errno::Errno;

/// The rounds of one request.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    rounds: u32,
    /// When the first one was lost: who loses nothing asks for no time.
    since_ns: Option<u64>,
}

impl Patience {
    /// How long rounds may be lost ...
    const TIME_NS: u64 = 1_000_000_000;
    /// ... but for as many in any case: one alone may take that long.
    const ROUNDS: u32 = 8;
    /// First and longest pause after a round.
    const PAUSE_NS: [u64; 2] = [10_000, 1_000_000];

    /// Pays for another round, and pauses before it; or ends with `errno`. The caller holds nothing that the winner needs.
    pub(crate) fn spend(&mut self, errno: Errno) -> Result<(), Errno> {
        if self.is_over(self.rounds) {
            return Err(errno);
        }
        let [first, longest] = Self::PAUSE_NS;
        self.pause(longest.min(first << self.rounds.min(16)));
        self.rounds += 1;
        Ok(())
    }

    /// Waits so long without a round.
    pub(crate) fn pause(&mut self, ns: u64) {
        self.since_ns.get_or_insert_with(sync::time::now_ns);
        sync::time::sleep_ns(ns);
    }

    /// Whether there was time enough, after so many tries.
    pub(crate) fn is_over(&self, tries: u32) -> bool {
        tries >= Self::ROUNDS && self.elapsed_ns() >= Self::TIME_NS
    }

    /// Rounds that were paid for.
    pub(crate) const fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Time since the first was.
    pub(crate) fn elapsed_ns(&self) -> u64 {
        self.since_ns.map_or(0, |since| sync::time::now_ns().saturating_sub(since))
    }
}
