//! Pages that are not claimed for a while: a DONTNEED of them has begun, or a wrapper changes their mapping.
//!
//! A REMOVE event is raised before a madvise of the program drops pages, and none when it has dropped them.
//! A page that was present when the event was read is *pending*, and stays in system memory until one of these:
//!
//! * it is seen absent, or a reader or a migration fills its place: the madvise has dropped it;
//! * its mapping is gone or elsewhere: the madvise does not find it any more;
//! * [`TIMEOUT_NS`] have passed since the thread of the madvise was seen to run again. A page of MADV_FREE is never
//!   dropped, so something must end its wait.
//!
//! Locking: part of the page map.

use crate::kernel::Held;
use std::collections::BTreeMap;
use units::{HostRange, HostVa};

/// How long a page is pending after the thread that raised the event runs again. That thread needs the mmap lock and a
/// few microseconds.
pub(crate) const TIMEOUT_NS: u64 = 200_000_000;

/// Pending pages, by their first address.
#[derive(Clone, Copy, Debug)]
struct Pending {
    end: HostVa,
    /// Which event they came with.
    serial: u64,
    /// A time (ns); `None` where the thread that raised the event was not seen to run since.
    until: Option<u64>,
}

/// All of them.
#[derive(Default, Debug)]
pub(crate) struct Quarantine {
    /// Disjoint: of two events of a page the later one counts.
    pending: BTreeMap<HostVa, Pending>,
    /// What wrappers hold, by number.
    held: Vec<(u64, HostRange)>,
    serial: u64,
    /// When some may be over (ns); 0 where some clock stands.
    next: u64,
}

impl Quarantine {
    /// Counts the events. Who looks at pages reads it first: what came later is not judged by that look.
    pub const fn serial(&self) -> u64 {
        self.serial
    }

    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// A REMOVE event was read, and these pages were present.
    pub fn add_pending(&mut self, runs: &[HostRange]) {
        self.serial += 1;
        for run in runs {
            self.settle(*run, self.serial);
            self.pending.insert(run.start, Pending { end: run.end, serial: self.serial, until: None });
            self.next = 0;
        }
    }

    /// Keeps `range` until [`release`](Self::release).
    pub fn hold(&mut self, range: HostRange) -> u64 {
        self.serial += 1;
        self.held.push((self.serial, range));
        self.serial
    }

    pub fn release(&mut self, hold: u64) {
        self.held.retain(|&(number, _)| number != hold);
    }

    /// What is pending in `range` since `serial` or before is pending no more.
    pub fn settle(&mut self, range: HostRange, serial: u64) {
        if range.is_empty() || self.pending.is_empty() {
            return;
        }
        let due = |(_, pending): &(HostRange, Pending)| pending.serial <= serial;
        for (part, pending) in self.parts(range).filter(due).collect::<Vec<_>>() {
            self.pending.remove(&part.start);
            if part.start < range.start {
                self.pending.insert(part.start, Pending { end: range.start, ..pending });
            }
            if range.end < part.end {
                self.pending.insert(range.end, pending);
            }
        }
    }

    /// Settles the pages of `range` that were absent in a look that began at `serial`: all but `held`.
    pub fn settle_absent(&mut self, range: HostRange, held: &[Held], serial: u64) {
        if self.pending.is_empty() {
            return;
        }
        let mut at = range.start;
        for part in held.iter().map(|held| held.range) {
            self.settle(HostRange::new(at, part.start), serial);
            at = part.end;
        }
        self.settle(HostRange::new(at, range.end), serial);
    }

    /// No event was on its way at `now`: every thread that had raised one by `serial` has run again.
    pub fn start_clocks(&mut self, now: u64, serial: u64) {
        if self.pending.is_empty() || now < self.next {
            return;
        }
        self.pending.retain(|_, pending| pending.until.is_none_or(|until| until > now));
        for pending in self.pending.values_mut().filter(|pending| pending.serial <= serial) {
            pending.until = pending.until.or(Some(now + TIMEOUT_NS));
        }
        self.next = self.pending.values().map(|pending| pending.until.unwrap_or(0)).min().unwrap_or(0);
    }

    /// The parts of `range` that may not be claimed at `now`.
    pub fn within(&self, range: HostRange, now: u64) -> Vec<HostRange> {
        if self.pending.is_empty() && self.held.is_empty() {
            return Vec::new();
        }
        let lasts = |(_, pending): &(HostRange, Pending)| pending.until.is_none_or(|until| until > now);
        let pending = self.parts(range).filter(lasts).map(|(part, _)| part);
        pending.chain(self.held.iter().map(|&(_, part)| part)).filter_map(|part| part.intersect(range)).collect()
    }

    /// Pages of `range` that are pending.
    pub fn pending_in(&self, range: HostRange) -> Vec<HostRange> {
        self.parts(range).filter_map(|(part, _)| part.intersect(range)).collect()
    }

    /// The parts that overlap `range`.
    fn parts(&self, range: HostRange) -> impl Iterator<Item = (HostRange, Pending)> {
        let before = self.pending.range(..range.start).next_back();
        let from = self.pending.range(range.start..range.end.max(range.start));
        let parts =
            before.into_iter().chain(from).map(|(&start, &pending)| (HostRange::new(start, pending.end), pending));
        parts.filter(move |(part, _)| part.overlaps(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::SZ_4K;

    fn pages(first: u64, count: u64) -> HostRange {
        HostRange::sized(HostVa(first * SZ_4K), count * SZ_4K)
    }

    fn all() -> HostRange {
        pages(0, 512)
    }

    #[test]
    fn a_page_is_pending_until_it_is_seen_absent() {
        let mut quarantine = Quarantine::default();
        quarantine.add_pending(&[pages(1, 4)]);
        let look = quarantine.serial();
        // A second event comes between the look and its use: what the look saw says nothing of it.
        quarantine.add_pending(&[pages(2, 1)]);
        let held = [pages(0, 2), pages(4, 508)].map(|range| Held { range, huge: false });
        quarantine.settle_absent(all(), &held, look);
        assert_eq!(quarantine.within(all(), 0), [pages(1, 1), pages(2, 1), pages(4, 1)]);
    }

    #[test]
    fn a_page_that_stays_is_pending_for_a_time_after_its_thread_ran() {
        let mut quarantine = Quarantine::default();
        quarantine.add_pending(&[pages(1, 1)]);
        assert_eq!(quarantine.within(all(), 0), [pages(1, 1)]);
        quarantine.start_clocks(50, 0);
        quarantine.start_clocks(100, 1);
        assert_eq!(quarantine.within(all(), 99 + TIMEOUT_NS), [pages(1, 1)]);
        assert_eq!(quarantine.within(all(), 100 + TIMEOUT_NS), []);
        quarantine.start_clocks(100 + TIMEOUT_NS, 1);
        assert!(!quarantine.has_pending());
    }

    #[test]
    fn what_a_wrapper_holds_ends_with_it() {
        let mut quarantine = Quarantine::default();
        let (first, second) = (quarantine.hold(pages(1, 1)), quarantine.hold(pages(1, 1)));
        quarantine.settle(all(), u64::MAX);
        quarantine.start_clocks(1, u64::MAX);
        quarantine.release(first);
        assert_eq!(quarantine.within(all(), u64::MAX), [pages(1, 1)]);
        quarantine.release(second);
        assert_eq!(quarantine.within(all(), u64::MAX), []);
    }
}
