//! The commit of a migration (Linux: `migrate_vma_pages`).
//!
//! It makes the destinations the pages' places, run by run. What nothing was carried to becomes zeros: a hole that is still one, or a
//! page that the device reported and forgot. What was carried and is not wanted goes back first: the engine is told of
//! each page where it really is.

use crate::LiveMm;
use crate::books::{Books, Entry, Filling, Frame, From, Residency};
use crate::kernel::Errno;
use crate::transfer::{Purpose, Transfer};
use hostmm::{ClaimId, Migration, Place};
use units::{HostRange, Outcome, SZ_4K};

/// How long a page that is on the move, or held by somebody else, is followed to put it back.
const TIMEOUT_NS: u64 = 1_000_000_000;

impl LiveMm {
    pub(crate) fn commit_claim(&self, migration: &mut Migration) {
        let Some(ClaimId(id)) = migration.id else { return };
        let has_empty = self.books.lock().want(id, migration);
        // First, since what cannot go back has moved, and that must be said.
        self.undo(id, TIMEOUT_NS);
        if has_empty {
            self.fill_empty(id);
        }
        self.books.lock().commit(id, migration);
    }

    /// What the device reports carried, but nothing was carried to: a hole that is still one becomes zeros, and
    /// so does what the device forgot. A hole that the CPU filled meanwhile stays where it is.
    fn fill_empty(&self, id: u64) {
        self.seal_holes(id);
        for entry in self.entries(id).iter().filter(|entry| is_wanted_empty(entry)) {
            match entry.to {
                Some(Place::Device(_)) if entry.from == From::Hole => self.keep_holes(id, entry.name()),
                Some(Place::Device(_)) if entry.from == From::System => self.discard(id, entry.name()),
                _ => self.set_outcome(id, entry.name(), Outcome::Zeroed),
            }
        }
        for entry in self.entries(id).iter().filter(|entry| entry.wanted && !entry.cancelled && !entry.unstaged) {
            match entry.to {
                Some(Place::Device(first)) if entry.outcome == Outcome::Zeroed => self.zero_frames(first, entry.pages),
                Some(Place::Host(_)) if entry.outcome == Outcome::Zeroed => {
                    (0..entry.pages).for_each(|index| self.zero_in_system(entry.range().page_at(index)));
                }
                _ => {}
            }
        }
    }

    fn set_outcome(&self, claim: u64, name: HostRange, outcome: Outcome) {
        let transfer = Transfer { claim, name, purpose: Purpose::Migrate };
        self.books.lock().update_named(transfer, |entry| entry.outcome = outcome);
    }

    /// From now on no reader fills holes of the claim. One that is in the middle waits for nobody.
    fn seal_holes(&self, id: u64) {
        loop {
            let mut busy = false;
            if let Some(claim) = self.books.lock().claims.get_mut(id) {
                for entry in claim.entries.iter_mut().filter(|entry| entry.wanted && entry.from == From::Hole) {
                    busy |= entry.filling == Filling::Busy;
                    if entry.filling == Filling::Open {
                        entry.filling = Filling::Never;
                    }
                }
            }
            if !busy {
                return;
            }
            sync::yield_now();
        }
    }

    /// Holes that are holes still, of the mapping that was claimed, are carried as zeros; the others stay.
    fn keep_holes(&self, id: u64, name: HostRange) {
        let mut rest = name;
        let mut tries = self.refusals();
        while !rest.is_empty() {
            let unread = self.hold_events();
            let part = self.books.lock().named(id, rest);
            let Some(entry) = part.filter(|entry| !entry.cancelled) else {
                self.set_outcome(id, HostRange::sized(rest.start, SZ_4K), Outcome::Failed);
                rest.start = rest.start.add(SZ_4K);
                continue;
            };
            let (pages, held) = self.leading_run(entry.va, entry.pages);
            let exact = !self.kernel.event_pending();
            drop(unread);
            if !exact && self.yield_to_raiser(&mut tries) {
                continue;
            }
            let stays = !exact || held || entry.filled;
            let run = HostRange::new(rest.start, rest.page_at(pages));
            self.set_outcome(id, run, if stays { Outcome::Failed } else { Outcome::Zeroed });
            rest.start = run.end;
        }
    }

    /// Drops pages that the device reported carried, and that nothing was carried of. They go the way of pages that
    /// leave, so they are the claimed mapping's, or they stay.
    fn discard(&self, id: u64, name: HostRange) {
        for index in 0..name.pages() {
            let page = HostRange::sized(name.page_at(index), SZ_4K);
            let outcome = if self.discard_page(id, page) { Outcome::Zeroed } else { Outcome::Failed };
            self.set_outcome(id, page, outcome);
        }
    }

    fn discard_page(&self, claim: u64, name: HostRange) -> bool {
        let (mut tries, mut broken) = (self.refusals(), false);
        loop {
            let held = self.hold_events();
            let Some(entry) = self.books.lock().named(claim, name).filter(|entry| !entry.cancelled) else {
                return false;
            };
            if self.transport == crate::Transport::Copy {
                drop(held);
                self.drop_own(HostRange::sized(entry.va, SZ_4K));
                return true;
            }
            let (went, error) = self.bounce_away(entry.va, 1);
            drop(held);
            match error {
                _ if went == 1 => return true,
                // It is gone already, unless a change has begun that has taken it elsewhere.
                Some(Errno::NOENT) if !self.kernel.event_pending() => return true,
                Some(Errno::BUSY) if !broken => {
                    broken = true;
                    self.break_sharing(Transfer { claim, name, purpose: Purpose::Migrate });
                }
                Some(Errno::AGAIN | Errno::NOENT | Errno::BUSY) if self.yield_to_raiser(&mut tries) => {}
                _ => return false,
            }
        }
    }

    pub(crate) fn entries(&self, id: u64) -> Vec<Entry> {
        self.books.lock().claims.get(id).map_or_else(Vec::new, |claim| claim.entries.clone())
    }
}

fn is_wanted_empty(entry: &Entry) -> bool {
    entry.wanted && entry.to.is_some() && !entry.cancelled && !entry.is_carried() && entry.outcome != Outcome::Zeroed
}

impl Books {
    /// Notes what the engine wants committed. Whether something of that was not carried.
    fn want(&mut self, id: u64, migration: &Migration) -> bool {
        let Some(claim) = self.claims.get_mut(id) else { return false };
        let (mut next, mut empty) = (0, false);
        for part in migration.parts.iter().filter(|part| part.to.is_some() && part.carried()) {
            next = claim.update_named(next, part.range, |entry| {
                entry.wanted = true;
                empty |= entry.to.is_some() && !entry.is_carried();
            });
        }
        empty
    }

    /// The first part of the pages that the engine names so.
    pub(crate) fn named(&self, id: u64, name: HostRange) -> Option<Entry> {
        let entry = self.claims.get(id)?.entries.iter().find(|entry| entry.name().contains(name.start))?;
        Some(entry.part(name))
    }

    fn commit(&mut self, id: u64, migration: &mut Migration) {
        let Some(claim) = self.claims.get_mut(id) else { return };
        let mut entries = core::mem::take(&mut claim.entries);
        for entry in entries.iter_mut().filter(|entry| entry.wanted && !entry.is_open()) {
            self.settle(entry);
        }
        answer(&entries, migration);
        if let Some(claim) = self.claims.get_mut(id) {
            claim.entries = entries;
        }
    }

    /// What could not go back lives where it is: bytes come first. Gives how many pages that are.
    pub(crate) fn strand(&mut self, id: u64) -> u64 {
        let Some(claim) = self.claims.get_mut(id) else { return 0 };
        let mut entries = core::mem::take(&mut claim.entries);
        let mut stranded = 0;
        for entry in entries.iter_mut().filter(|entry| entry.is_unwanted()) {
            stranded += entry.pages as u64;
            self.settle(entry);
        }
        if let Some(claim) = self.claims.get_mut(id) {
            claim.entries = entries;
        }
        stranded
    }

    /// The destination is where the pages live.
    fn settle(&mut self, entry: &mut Entry) {
        if entry.cancelled || entry.committed {
            return;
        }
        match entry.to {
            Some(Place::Host(_)) => self.set_residency(entry.range(), Residency::System),
            Some(Place::Device(page)) => {
                self.set_residency(entry.range(), Residency::Device(page));
                self.set_frames(page, entry.pages, Frame::Backs(entry.va));
            }
            None => return,
        }
        entry.committed = true;
    }
}

/// Says of each part whether it lives at its destination now.
fn answer(entries: &[Entry], migration: &mut Migration) {
    let parts = core::mem::take(&mut migration.parts);
    let mut next = 0;
    for part in parts {
        let mut at = part.range.start;
        while at < part.range.end {
            while entries.get(next).is_some_and(|entry| !entry.name().contains(at)) {
                next += 1;
            }
            let end = entries.get(next).map_or(part.range.end, |entry| entry.name().end.min(part.range.end));
            let stays = entries.get(next).is_some_and(|entry| entry.committed);
            let (_, rest) = part.split_at(part.range.page_index(at));
            let (mut here, _) = rest.split_at(HostRange::new(at, end).pages());
            here.outcome = match (stays, part.carried()) {
                (true, true) => part.outcome,
                (true, false) => Outcome::Moved,
                (false, _) => Outcome::Failed,
            };
            migration.add(here);
            at = end;
        }
    }
}
