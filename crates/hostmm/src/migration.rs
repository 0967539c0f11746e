//! A migration as one object, from the claim to the finish.
//!
//! | step | by | what it does to the object |
//! |---|---|---|
//! | [`claim`](crate::HostMm::claim) | host mm | empties it, gives it an id, adds a part for each run that it collected |
//! | | engine | takes parts out that shall stay; towards VRAM, sets [`to`](Part::to) |
//! | [`stage`](crate::HostMm::stage) | host mm | towards RAM, sets `to`; may split parts |
//! | | engine | writes the device's report to [`outcome`](Part::outcome), by a [`Reporter`]; a hole is `Zeroed` |
//! | [`commit`](crate::HostMm::commit) | host mm | `Failed` where a part does not stay at its destination; may split parts |
//! | [`finish`](crate::HostMm::finish) | host mm | takes the id |
//!
//! A page that was not collected is in no part. The buffers are kept from one migration to the next: whoever migrates
//! again with the same object allocates nothing.

use crate::place::{DevicePage, Place, Run, further};
use alloc::vec::Vec;
use units::{HostRange, Outcome, bytes_of};

/// Names a migration between `claim` and `finish`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClaimId(pub u64);

/// One run of a migration: where it was, where it goes, and how that ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Which pages of the program.
    pub range: HostRange,
    /// Where they are. `None`: a hole of an anonymous VMA, which arrives as zeros.
    pub from: Option<Place>,
    /// Where they shall go. `None`: they stay.
    pub to: Option<Place>,
    /// How they travelled; after `commit`, whether they live at their destination.
    pub outcome: Outcome,
}

impl Part {
    /// How many pages.
    pub const fn pages(&self) -> usize {
        self.range.pages()
    }
    /// Where page `index` is.
    pub fn from_at(&self, index: usize) -> Option<Place> {
        further(self.from, index)
    }
    /// Where page `index` shall go.
    pub fn to_at(&self, index: usize) -> Option<Place> {
        further(self.to, index)
    }
    /// Whether the device reports it carried; after `commit`: whether it lives at its destination.
    pub const fn carried(&self) -> bool {
        self.outcome.carried()
    }
    /// The first `pages` pages, and the rest.
    pub fn split_at(&self, pages: usize) -> (Self, Self) {
        let middle = self.range.start.add(bytes_of(pages));
        let first = Self { range: HostRange::new(self.range.start, middle), ..*self };
        let range = HostRange::new(middle, self.range.end);
        (first, Self { range, from: self.from_at(pages), to: self.to_at(pages), ..*self })
    }
    /// Whether `next` follows it, in all that it is.
    fn goes_on(&self, next: &Self) -> bool {
        let pages = self.pages();
        self.range.end == next.range.start
            && self.from_at(pages) == next.from
            && self.to_at(pages) == next.to
            && self.outcome == next.outcome
    }
}

/// One migration, and the buffers for the next.
#[derive(Default, Debug)]
pub struct Migration {
    /// Its name, from `claim` to `finish`.
    pub id: Option<ClaimId>,
    /// What was collected, in the order in which it was asked for.
    pub parts: Vec<Part>,
}

impl Migration {
    /// A migration begins (host mm).
    pub fn begin(&mut self, id: ClaimId) {
        self.parts.clear();
        self.id = Some(id);
    }
    /// A run is collected (host mm); it is added to the last part where it only goes on.
    pub fn collect(&mut self, run: Run) {
        self.add(Part { range: run.range, from: run.place, to: None, outcome: Outcome::Pending });
    }
    /// Adds a part, to the last one where it only goes on.
    pub fn add(&mut self, part: Part) {
        match self.parts.last_mut() {
            Some(last) if last.goes_on(&part) => last.range.end = part.range.end,
            _ => self.parts.push(part),
        }
    }
    /// Pages of all parts.
    pub fn pages(&self) -> usize {
        self.parts.iter().map(Part::pages).sum()
    }
    /// Pages of the parts that the device reports carried; after `commit`, of those that live at their destinations.
    pub fn carried(&self) -> usize {
        self.parts.iter().filter(|part| part.carried()).map(Part::pages).sum()
    }
    /// Aims every part at VRAM: the page at `origin` goes to `base`, and each other one to where it stands from there.
    pub fn aim(&mut self, origin: HostRange, base: DevicePage) {
        for part in &mut self.parts {
            part.to = Some(Place::Device(base.add(origin.page_index(part.range.start) as u64)));
        }
    }
    /// Splits part `index` behind its first `pages` pages.
    pub fn split(&mut self, index: usize, pages: usize) {
        let (first, rest) = self.parts[index].split_at(pages);
        self.parts[index] = first;
        self.parts.insert(index + 1, rest);
    }
    /// Takes reports from part `part` on.
    pub fn report_from(&mut self, part: usize) -> Reporter<'_> {
        Reporter { migration: self, part }
    }
}

/// Writes to the parts of a migration how they travelled, in their order. Parts that have an outcome already are passed
/// over.
pub struct Reporter<'a> {
    migration: &'a mut Migration,
    part: usize,
}

impl Reporter<'_> {
    /// The next `pages` pages travelled so. What comes behind the last part is ignored.
    pub fn note(&mut self, mut pages: usize, outcome: Outcome) {
        while let Some(part) = self.migration.parts.get_mut(self.part).filter(|_| pages > 0) {
            if part.outcome != Outcome::Pending {
                self.part += 1;
                continue;
            }
            let whole = part.pages();
            if pages < whole {
                self.migration.split(self.part, pages);
                continue;
            }
            part.outcome = outcome;
            pages -= whole;
            self.part += 1;
        }
    }
    /// The part that is reported next.
    pub fn part(&self) -> usize {
        self.part
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::PagemapId;
    use units::{HostFrame, HostVa};

    fn run(first: usize, pages: usize, frame: Option<u64>) -> Run {
        let range = HostRange::sized(HostVa(bytes_of(first)), bytes_of(pages));
        Run { range, place: frame.map(|frame| Place::Host(HostFrame(frame))) }
    }

    #[test]
    fn what_goes_on_is_one_leg() {
        let mut migration = Migration::default();
        migration.begin(ClaimId(1));
        for run in [run(0, 1, Some(10)), run(1, 2, Some(11)), run(3, 1, None), run(4, 1, None), run(6, 1, None)] {
            migration.collect(run);
        }
        assert_eq!(migration.parts.iter().map(Part::pages).collect::<Vec<_>>(), [3, 2, 1]);
        let base = DevicePage { pagemap: PagemapId(0), frame: 64 };
        migration.aim(HostRange::new(HostVa(0), HostVa(bytes_of(7))), base);
        assert_eq!(migration.parts[2].to, Some(Place::Device(base.add(6))));
    }

    #[test]
    fn a_report_splits_a_leg_only_where_it_differs() {
        let mut migration = Migration::default();
        migration.begin(ClaimId(1));
        migration.collect(run(0, 8, Some(10)));
        migration.collect(run(8, 4, None));
        let mut report = migration.report_from(0);
        for (pages, outcome) in [(3, Outcome::Moved), (1, Outcome::Failed), (4, Outcome::Moved), (4, Outcome::Zeroed)] {
            report.note(pages, outcome);
        }
        let seen: Vec<_> = migration.parts.iter().map(|part| (part.pages(), part.outcome)).collect();
        let expected = [(3, Outcome::Moved), (1, Outcome::Failed), (4, Outcome::Moved), (4, Outcome::Zeroed)];
        assert_eq!(seen, expected);
        assert_eq!(migration.parts[2].from, Some(Place::Host(HostFrame(14))));
        assert_eq!((migration.pages(), migration.carried()), (12, 11));
    }
}
