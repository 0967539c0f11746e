//! Migrations, as the books have them: what was claimed, where it goes, and how far it is.
//!
//! An entry is a run of pages that share all of that. Events and faults meet parts of a run, and split it.

use hostmm::{DevicePage, Place, Toward};
use units::{HostFrame, HostRange, HostVa, Outcome, bytes_of};

/// Where claimed pages were.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum From {
    /// Absent from system memory.
    Hole,
    /// In system memory.
    System,
    /// In VRAM.
    Device(DevicePage),
}

/// How a page that is missing may be filled while it is claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Filling {
    /// Not at all: it is on its way.
    Never,
    /// A hole that has not gone, or a page for which the mover itself waits: with zeros, at once.
    Open,
    /// A reader is at it.
    Busy,
}

/// A run of pages of a migration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// Where they were claimed: how the engine names them.
    pub claimed: HostVa,
    /// Where they are now: an mremap may have moved them.
    pub va: HostVa,
    pub pages: usize,
    pub from: From,
    pub to: Option<Place>,
    /// In huge pages, when they were claimed.
    pub huge: bool,
    /// What the transfer of exactly the staged pairs gave.
    pub outcome: Outcome,
    /// Something else was copied to the destination.
    pub unstaged: bool,
    /// The mapping changed meanwhile: the migration carries them nowhere any more.
    pub cancelled: bool,
    /// The engine wants them at their destination.
    pub wanted: bool,
    /// The destination is where they live.
    pub committed: bool,
    pub filling: Filling,
    /// The CPU has filled a hole of it since.
    pub filled: bool,
    /// By copying: its bytes have gone, and what lies at its address is about to be dropped.
    pub dropping: bool,
}

impl Entry {
    pub const fn new(range: HostRange, from: From, huge: bool) -> Self {
        Self {
            claimed: range.start,
            va: range.start,
            pages: range.pages(),
            from,
            to: None,
            huge,
            outcome: Outcome::Pending,
            unstaged: false,
            cancelled: false,
            wanted: false,
            committed: false,
            filling: if matches!(from, From::Hole) { Filling::Open } else { Filling::Never },
            filled: false,
            dropping: false,
        }
    }

    /// Where they are now.
    pub const fn range(&self) -> HostRange {
        HostRange::sized(self.va, bytes_of(self.pages))
    }

    /// How the engine names them.
    pub const fn name(&self) -> HostRange {
        HostRange::sized(self.claimed, bytes_of(self.pages))
    }

    /// Whether an mremap took them elsewhere: what the device translated is another page's place by now.
    pub fn is_remapped(&self) -> bool {
        self.claimed != self.va
    }

    /// The place that they leave.
    pub const fn source(&self) -> Place {
        match self.from {
            From::Hole | From::System => Place::Host(HostFrame(self.va.page_number())),
            From::Device(page) => Place::Device(page),
        }
    }

    /// The first of the frames of VRAM that they leave.
    pub const fn source_page(&self) -> Option<DevicePage> {
        match self.from {
            From::Device(page) => Some(page),
            From::Hole | From::System => None,
        }
    }

    /// The first of the frames of VRAM that they go to.
    pub fn target_page(&self) -> Option<DevicePage> {
        self.to.and_then(Place::device)
    }

    /// Whether they are still to be carried.
    pub fn is_open(&self) -> bool {
        !self.cancelled && self.to.is_some() && matches!(self.outcome, Outcome::Pending | Outcome::Failed)
    }

    /// Whether the pages themselves, or all of their bytes, went to the destination.
    pub const fn is_carried(&self) -> bool {
        matches!(self.outcome, Outcome::Moved | Outcome::Copied)
    }

    /// Whether they are at a destination that the engine does not want, and can go back.
    pub const fn is_unwanted(&self) -> bool {
        self.is_carried() && !self.wanted && !self.committed && !self.cancelled
    }

    /// What `name` has of it.
    pub fn part(&self, name: HostRange) -> Self {
        let mut part = *self;
        if let Some(both) = self.name().intersect(name) {
            if both.start > self.claimed {
                part = part.cut(self.name().page_index(both.start));
            }
            part.pages = both.pages();
        }
        part
    }

    /// Cuts it behind its first `pages` pages; gives the rest.
    fn cut(&mut self, pages: usize) -> Self {
        let bytes = bytes_of(pages);
        let from = match self.from {
            From::Device(page) => From::Device(page.add(pages as u64)),
            other => other,
        };
        let rest = Self {
            claimed: self.claimed.add(bytes),
            va: self.va.add(bytes),
            pages: self.pages - pages,
            from,
            to: self.to.map(|place| place.add(pages as u64)),
            ..*self
        };
        self.pages = pages;
        rest
    }
}

/// A migration.
#[derive(Debug)]
pub(crate) struct Claim {
    /// In the order in which the engine has them.
    pub entries: Vec<Entry>,
    pub toward: Toward,
    /// A fault on one of its pages was left for its end to answer.
    pub has_waiters: bool,
}

impl Claim {
    /// The entry that the page now at `va` is in.
    pub fn find(&self, va: HostVa) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.range().contains(va))
    }

    /// Changes the pages that are in `range` now, run by run, and splits where the range ends.
    pub fn update(&mut self, range: HostRange, mut change: impl FnMut(&mut Entry)) {
        let mut index = 0;
        while index < self.entries.len() {
            if self.entries[index].range().overlaps(range) {
                self.isolate(index, self.entries[index].range(), range);
            }
            let entry = &mut self.entries[index];
            if range.covers(entry.range()) {
                change(entry);
            }
            index += 1;
        }
    }

    /// Changes the pages that the engine names `name`, from entry `from` on; gives the entry to go on with. The engine
    /// asks in the order of the entries.
    pub fn update_named(&mut self, from: usize, name: HostRange, mut change: impl FnMut(&mut Entry)) -> usize {
        let mut index = from;
        while index < self.entries.len() {
            if self.entries[index].name().overlaps(name) {
                self.isolate(index, self.entries[index].name(), name);
                let entry = &mut self.entries[index];
                if name.covers(entry.name()) {
                    change(entry);
                    if entry.name().end == name.end {
                        return index + 1;
                    }
                }
            }
            index += 1;
        }
        from
    }

    /// A reader is through with the page that the engine names so.
    pub fn end_filling(&mut self, name: HostRange) {
        self.update_named(0, name, |entry| {
            if entry.filling == Filling::Busy {
                entry.filling = Filling::Open;
            }
        });
    }

    /// Cuts entry `index`, which has `whole`, so that it lies within `part` or before it.
    fn isolate(&mut self, index: usize, whole: HostRange, part: HostRange) {
        let edge = if whole.start < part.start { part.start } else { part.end };
        if whole.start < edge && edge < whole.end {
            let rest = self.entries[index].cut(whole.page_index(edge));
            self.entries.insert(index + 1, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostmm::PagemapId;

    fn pages(first: u64, count: usize) -> HostRange {
        HostRange::sized(HostVa(first << 12), bytes_of(count))
    }

    fn claim() -> Claim {
        let page = DevicePage { pagemap: PagemapId(0), frame: 100 };
        let entries =
            vec![Entry::new(pages(10, 8), From::Device(page), false), Entry::new(pages(18, 4), From::Hole, false)];
        Claim { entries, toward: Toward::Ram, has_waiters: false }
    }

    fn lengths(claim: &Claim) -> Vec<usize> {
        claim.entries.iter().map(|entry| entry.pages).collect()
    }

    #[test]
    fn an_event_splits_a_run_where_it_ends() {
        let mut claim = claim();
        claim.update(pages(12, 3), |entry| entry.cancelled = true);
        assert_eq!(lengths(&claim), [2, 3, 3, 4]);
        assert_eq!(claim.entries.iter().map(|entry| entry.cancelled).collect::<Vec<_>>(), [false, true, false, false]);
        let frames: Vec<_> = claim.entries.iter().filter_map(Entry::source_page).map(|page| page.frame).collect();
        assert_eq!(frames, [100, 102, 105]);
        claim.update(pages(15, 5), |entry| entry.unstaged = true);
        assert_eq!(lengths(&claim), [2, 3, 3, 2, 2]);
    }

    #[test]
    fn the_engine_names_pages_by_where_they_were() {
        let mut claim = claim();
        claim.update(pages(12, 2), |entry| entry.va = HostVa(0x5000_0000));
        let mut seen = Vec::new();
        let next = claim.update_named(0, pages(10, 4), |entry| seen.push((entry.pages, entry.is_remapped())));
        assert_eq!(seen, [(2, false), (2, true)]);
        let next = claim.update_named(next, pages(14, 8), |entry| seen.push((entry.pages, entry.is_remapped())));
        assert_eq!((seen.len(), next), (4, 4));
        assert!(claim.find(HostVa(0x5000_1000)).is_some() && claim.find(HostVa(12 << 12)).is_none());
    }
}
