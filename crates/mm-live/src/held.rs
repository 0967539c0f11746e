//! What the program's addresses, and frames, hold by the kernel's word.

use crate::LiveMm;
use crate::kernel::Held;
use units::{HostRange, HostVa, SZ_4K, bytes_of};

/// Nothing, as room for what a scan finds.
pub(crate) const NOTHING: Held = Held { range: HostRange::new(HostVa(0), HostVa(0)), huge: false };

impl LiveMm {
    /// The parts of `range` that hold something.
    pub(crate) fn held(&self, range: HostRange) -> Vec<Held> {
        let (mut found, mut rest) = (Vec::new(), range);
        let mut part = [NOTHING; 16];
        while !rest.is_empty() {
            let (count, end) = self.kernel.scan(rest, &mut part);
            found.extend(part[..count].iter().map(|held| Held { range: clip(held.range, range), ..*held }));
            if end <= rest.start {
                break;
            }
            rest.start = end;
        }
        found
    }

    /// Whether the page at `addr` holds something.
    pub(crate) fn holds(&self, addr: HostVa) -> bool {
        let mut held = [NOTHING; 1];
        self.kernel.scan(HostRange::sized(addr.page(), SZ_4K), &mut held).0 == 1
    }

    /// How many pages from `addr` on hold something, or nothing, as the first one does; and which of both.
    pub(crate) fn leading_run(&self, addr: HostVa, pages: usize) -> (usize, bool) {
        let range = HostRange::sized(addr, bytes_of(pages));
        let mut held = [NOTHING; 2];
        let (found, end) = self.kernel.scan(range, &mut held);
        let run = |end: HostVa| HostRange::new(range.start, end.min(range.end)).pages().max(1);
        match &held[..found] {
            [] => (run(end), false),
            [first, ..] if first.range.start > range.start => (run(first.range.start), false),
            [first, second] if first.range.end == second.range.start => (run(second.range.end), true),
            [first, ..] => (run(first.range.end), true),
        }
    }
}

fn clip(part: HostRange, range: HostRange) -> HostRange {
    part.intersect(range).unwrap_or(HostRange::new(range.start, range.start))
}

/// What the first of `parts` that meets `range`, by address, has of it.
pub(crate) fn overlapping(parts: impl Iterator<Item = HostRange>, range: HostRange) -> Option<HostRange> {
    parts.filter_map(|part| part.intersect(range)).min_by_key(|part| part.start)
}
