//! The CPU's turn: what minimum residency owes to a CPU fault that it deferred.
//!
//! Each migration into VRAM begins a minimum residency of its own, so pages that go from tile to tile would be out of
//! a CPU's reach for ever. Therefore the first deferral fixes the time at which the CPU's turn begins: the end of the
//! residency that it met. From then on
//!
//! * a CPU fault in those pages is served, whatever residency began meanwhile;
//! * no migration takes them to VRAM ([`MigrateError::CpuTurn`](crate::MigrateError::CpuTurn)), until the fault has
//!   been served and its thread had the time to do its access.
//!
//! A thread may end and never come back to its fault, so a turn passes by itself.
//!
//! Locking: one leaf lock, held for a look at a short list. Reader class.
//! Upstream: none; `drm_pagemap` defers as often as the pages move.

use alloc::vec::Vec;
use sync::Mutex;
use sync::rank::{self, Rank};
use units::{HostRange, HostVa};

/// Turns that are remembered; of more, the one that passes first is forgotten.
const MOST: usize = 64;
/// How long a turn waits for its fault: longer than any host mm takes to let a deferred toucher try again.
const COMES_NS: u64 = 4_000_000;
/// How long the pages stay in system memory once they were brought there.
const STAYS_NS: u64 = 500_000;

/// A deferred fault.
#[derive(Clone, Copy, Debug)]
struct Turn {
    page: HostVa,
    begins_ns: u64,
    passes_ns: u64,
}

/// The deferred faults of one process.
pub(crate) struct CpuTurns {
    turns: Mutex<Vec<Turn>>,
}

impl Default for CpuTurns {
    fn default() -> Self {
        Self { turns: rank::mutex(Rank::LEAF, Vec::with_capacity(MOST)) }
    }
}

impl CpuTurns {
    /// Whether a fault at `page`, which meets a residency until `residency_end_ns`, is to be deferred. `window` is what
    /// would migrate back for it: the pages share one turn.
    pub(crate) fn defers(&self, page: HostVa, window: HostRange, residency_end_ns: u64, now_ns: u64) -> bool {
        let mut turns = self.turns.lock();
        turns.retain(|turn| now_ns < turn.passes_ns);
        if let Some(begins_ns) = turns.iter().filter(|turn| window.contains(turn.page)).map(|turn| turn.begins_ns).min()
        {
            return now_ns < begins_ns;
        }
        if turns.len() == MOST
            && let Some((first, _)) = turns.iter().enumerate().min_by_key(|(_, turn)| turn.passes_ns)
        {
            turns.swap_remove(first);
        }
        let passes_ns = residency_end_ns.saturating_add(COMES_NS);
        turns.push(Turn { page, begins_ns: residency_end_ns, passes_ns });
        true
    }

    /// What `window` owed is paid: its pages migrated back. They stay there for a moment.
    pub(crate) fn served(&self, window: HostRange, now_ns: u64) {
        let mut turns = self.turns.lock();
        for turn in turns.iter_mut().filter(|turn| window.contains(turn.page)) {
            turn.begins_ns = turn.begins_ns.min(now_ns);
            turn.passes_ns = now_ns.saturating_add(STAYS_NS);
        }
    }

    /// Whether it is the CPU's turn somewhere in `range`.
    pub(crate) fn holds(&self, range: HostRange, now_ns: u64) -> bool {
        let is_on = |turn: &Turn| turn.begins_ns <= now_ns && now_ns < turn.passes_ns;
        self.turns.lock().iter().any(|turn| is_on(turn) && range.contains(turn.page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::{SZ_4K, SZ_64K};

    const MS: u64 = 1_000_000;
    const WINDOW: HostRange = HostRange::sized(HostVa(SZ_64K), SZ_64K);

    #[test]
    fn the_first_deferral_says_when() {
        let turns = CpuTurns::default();
        assert!(turns.defers(WINDOW.start, WINDOW, 5 * MS, 0));
        assert!(!turns.holds(WINDOW, 4 * MS));
        assert!(turns.defers(WINDOW.start, WINDOW, 9 * MS, 4 * MS), "not yet, and no later for a new residency");
        assert!(!turns.defers(WINDOW.start.add(SZ_4K), WINDOW, 9 * MS, 5 * MS), "a neighbour has the same turn");
        assert!(turns.holds(WINDOW, 5 * MS) && !turns.holds(HostRange::sized(HostVa(0), SZ_64K), 5 * MS));
        turns.served(WINDOW, 5 * MS);
        assert!(turns.holds(WINDOW, 5 * MS + STAYS_NS - 1) && !turns.holds(WINDOW, 5 * MS + STAYS_NS));
        assert!(turns.defers(WINDOW.start, WINDOW, 11 * MS, 6 * MS), "the next fault is another one");
    }

    #[test]
    fn who_never_comes_is_forgotten() {
        let turns = CpuTurns::default();
        for n in 0..2 * MOST as u64 {
            assert!(turns.defers(HostVa(n * SZ_4K), HostRange::sized(HostVa(n * SZ_4K), SZ_4K), 5 * MS + n, 0));
        }
        assert_eq!(turns.turns.lock().len(), MOST);
        assert!(!turns.holds(HostRange::new(HostVa(0), HostVa(SZ_64K)), 6 * MS), "the oldest were forgotten");
        let all = HostRange::new(HostVa(0), HostVa(1 << 30));
        assert!(turns.holds(all, 6 * MS) && !turns.holds(all, 5 * MS + 2 * MOST as u64 + COMES_NS));
    }
}
