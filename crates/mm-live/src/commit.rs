//! The second half of a migration: commit and finish (Linux: `migrate_vma_pages`, `migrate_vma_finalize`).
//!
//! A commit moves back what was carried and is not wanted, and makes the other destinations homes, page by page. What
//! nothing was carried to becomes zeros: a hole that is still one, or a page that the device reported and forgot. A
//! finish settles both sides: sources of what moved are freed, what died on the way is dropped on both sides; then the
//! waiters are woken. Without a commit it moves back everything first.

use crate::LiveMm;
use crate::arena::Frame;
use crate::claim::runs_of;
use crate::entry::{Entry, From};
use crate::leg::Leg;
use crate::map::{Home, Mark};
use crate::sys::task;
use hostmm::{ClaimId, Destination, DevicePage, Transferred};
use std::collections::BTreeSet;
use sync::time::now_ns;
use units::{HostVa, SZ_2M};

/// How long a page that is on the move, or held by somebody else, is followed to put it back: before the engine is
/// told what moved, and where it will not be told.
const PATIENCE_NS: [u64; 2] = [1_000_000_000, 10_000_000_000];

impl LiveMm {
    pub(crate) fn commit_claim(&self, claim: ClaimId, wanted: &[bool], moved: &mut [bool]) {
        moved.fill(false);
        // First, since what cannot go back has moved, and that must be said.
        self.undo(claim, wanted);
        self.fill_holes(claim, wanted);
        self.map.lock().with_entries(claim.0, |map, entries| {
            for ((entry, &wanted), moved) in entries.iter_mut().zip(wanted).zip(moved) {
                *moved = entry.committed;
                if !wanted || entry.dead || entry.from == From::Nowhere || entry.is_open() {
                    continue;
                }
                match entry.to {
                    Destination::Stay => continue,
                    Destination::Ram => map.set_home(entry.va, Home::System),
                    Destination::Device(page) => {
                        map.set_home(entry.va, Home::Device(page));
                        map.set_frame(page, Frame::Home(entry.va));
                    }
                }
                entry.committed = true;
                *moved = true;
            }
        });
    }

    /// What the device reports carried, but nothing was carried to: a hole that is still one becomes zeros, and
    /// so does what the device forgot. A hole that the CPU filled meanwhile stays where it is.
    fn fill_holes(&self, claim: ClaimId, wanted: &[bool]) {
        let is_empty = |(entry, wanted): (&Entry, &bool)| *wanted && !entry.is_carried();
        if !self.map.lock().entries(claim.0).iter().zip(wanted).any(is_empty) {
            return;
        }
        self.seal_holes(claim, wanted);
        for (index, entry) in self.entries(claim).iter().enumerate() {
            if !wanted.get(index).is_some_and(|&wanted| wanted) || entry.dead || entry.carried.is_some() {
                continue;
            }
            let how = match (entry.from, entry.to) {
                (From::Hole, Destination::Device(_)) if entry.filled || !self.is_still_hole(claim, index) => {
                    Transferred::Failed
                }
                (From::System, Destination::Device(_)) if !self.discard(claim.0, index) => Transferred::Failed,
                (From::System | From::Hole, Destination::Ram) => Transferred::Copied,
                (From::Nowhere, _) | (_, Destination::Stay) => continue,
                _ => Transferred::Hole,
            };
            self.note_carried(claim.0, index, how);
        }
        self.zero_holes(claim, wanted);
    }

    fn seal_holes(&self, claim: ClaimId, wanted: &[bool]) {
        let mut guard = self.map.lock();
        let entries = guard.entries_mut(claim.0).iter_mut().zip(wanted);
        let holes = entries.filter(|(entry, wanted)| **wanted && entry.from == From::Hole);
        holes.for_each(|(entry, _)| entry.sealed = true);
        // A reader that is at one of them is in the middle of one ioctl.
        while guard.entries(claim.0).iter().any(|entry| entry.zeroing) {
            drop(guard);
            task::relax();
            guard = self.map.lock();
        }
    }

    /// Whether a claimed hole is one, of the mapping that was claimed: no change of mappings has begun.
    fn is_still_hole(&self, claim: ClaimId, index: usize) -> bool {
        let mut tries = 0;
        loop {
            let unread = self.hold_events();
            let Some(entry) = self.map.lock().entry(claim.0, index).filter(|entry| !entry.dead) else { return false };
            let (_, resident) = self.leading_run(entry.va.0, 1);
            let exact = !self.program.event_pending();
            drop(unread);
            if exact || !self.make_way(&mut tries) {
                return exact && !resident;
            }
        }
    }

    fn zero_holes(&self, claim: ClaimId, wanted: &[bool]) {
        let entries = self.entries(claim);
        let mut index = 0;
        while index < entries.len() {
            let first = entries[index];
            let is_hole = |at: usize| {
                entries[at].carried == Some(Transferred::Hole)
                    && !entries[at].strayed
                    && !entries[at].dead
                    && wanted.get(at).is_some_and(|&wanted| wanted)
            };
            let mut pages = 1;
            if is_hole(index) {
                match first.to {
                    Destination::Device(page) => {
                        while index + pages < entries.len()
                            && is_hole(index + pages)
                            && entries[index + pages].to == Destination::Device(page.add(pages as u64))
                        {
                            pages += 1;
                        }
                        self.zero_frames(page, pages);
                    }
                    Destination::Ram => self.zero_home(first.va),
                    Destination::Stay => {}
                }
            }
            index += pages;
        }
    }

    pub(crate) fn finish_claim(&self, claim: ClaimId) {
        self.undo(claim, &[]);
        let mut emptied: Vec<DevicePage> = Vec::new();
        let mut vas: Vec<HostVa> = Vec::new();
        for entry in self.map.lock().entries(claim.0).iter().filter(|entry| entry.from != From::Nowhere) {
            vas.push(entry.va);
            let moved_away = entry.committed && entry.carried == Some(Transferred::Moved);
            if let (From::Device(source), true) = (entry.from, (entry.committed || entry.dead) && !moved_away) {
                emptied.push(source);
            }
            if let Destination::Device(target) = entry.to
                && (entry.dead || !entry.committed && (entry.strayed || entry.carried.is_some()))
            {
                emptied.push(target);
            }
        }
        emptied.sort_unstable();
        self.empty_frames(&emptied);
        let (freed, late) = self.release(claim, &emptied);
        self.empty_frames(&late);
        self.free_pages(freed);
        let chunks: BTreeSet<u64> = vas.iter().map(|va| va.0 / SZ_2M).collect();
        runs_of(vas).for_each(|range| self.program.wake(range));
        self.retire_chunks(chunks);
        self.claims_changed.notify_all();
    }

    /// Unmarks the pages and forgets the claim. Gives the device pages that are free now, and those that died so
    /// late that they have not been emptied yet. `emptied` is sorted.
    fn release(&self, claim: ClaimId, emptied: &[DevicePage]) -> (Vec<DevicePage>, Vec<DevicePage>) {
        let mut guard = self.map.lock();
        let map = &mut *guard;
        let entries = map.claims.remove(claim.0).map_or_else(Vec::new, |claim| claim.entries);
        let (mut freed, mut late) = (Vec::new(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            if map.mark(entry.va) == (Mark::Claimed { claim: claim.0, entry: index }) {
                map.set_mark(entry.va, Mark::Free);
            }
            if let (From::Device(source), true) = (entry.from, entry.committed || entry.dead) {
                if entry.dead && emptied.binary_search(&source).is_err() {
                    late.push(source);
                }
                map.set_frame(source, Frame::Condemned);
                freed.push(source);
            }
            match entry.to {
                Destination::Device(target) if entry.dead && entry.committed => {
                    if emptied.binary_search(&target).is_err() {
                        late.push(target);
                    }
                    map.set_frame(target, Frame::Condemned);
                    freed.push(target);
                }
                Destination::Device(target) if !entry.committed => map.set_frame(target, Frame::Empty),
                _ => {}
            }
        }
        (freed, late)
    }

    /// Moves back what was carried and is not wanted. An mremap in the middle gives a page another address: then it
    /// is tried again with that one. What cannot go back at all stays, and that becomes its home: bytes come first.
    fn undo(&self, claim: ClaimId, wanted: &[bool]) {
        let end = now_ns() + PATIENCE_NS[usize::from(wanted.is_empty())];
        loop {
            let mut entries = self.entries(claim);
            for (entry, _) in entries.iter_mut().zip(wanted).filter(|(_, wanted)| **wanted) {
                // Not to be looked at.
                entry.carried = None;
            }
            let is_due = |entry: &Entry| entry.is_carried() && !entry.committed && !entry.dead;
            if !entries.iter().any(is_due) || self.undo_once(claim, &entries) == 0 {
                return;
            }
            if now_ns() > end {
                return self.strand(claim, wanted);
            }
            self.make_way(&mut 0);
        }
    }

    fn strand(&self, claim: ClaimId, wanted: &[bool]) {
        let mut guard = self.map.lock();
        let map = &mut *guard;
        for index in 0..map.entries(claim.0).len() {
            let Some(mut entry) = map.entry(claim.0, index) else { continue };
            let is_wanted = wanted.get(index).is_some_and(|&wanted| wanted);
            if is_wanted || entry.committed || entry.dead || !entry.is_carried() {
                continue;
            }
            self.counters.stranded.fetch_add(1);
            entry.committed = true;
            match entry.to {
                Destination::Device(page) => {
                    map.set_home(entry.va, Home::Device(page));
                    map.set_frame(page, Frame::Home(entry.va));
                }
                Destination::Ram | Destination::Stay => map.set_home(entry.va, Home::System),
            }
            map.set_entry(claim.0, index, entry);
        }
    }

    /// One round; gives how many pages did not go back.
    fn undo_once(&self, claim: ClaimId, entries: &[Entry]) -> usize {
        let mut left = 0;
        let mut index = 0;
        while index < entries.len() {
            let entry = entries[index];
            let leg = match (entry.from, entry.to) {
                _ if entry.committed || !entry.is_carried() || entry.dead => None,
                (From::System | From::Hole, Destination::Device(page)) => Some(Leg::home(page, entry.va, 1)),
                (From::Device(source), Destination::Device(target)) => Some(Leg::across(target, source, 1)),
                (From::Device(source), Destination::Ram) => Some(Leg::to_device(entry.va, source, 1)),
                _ => None,
            };
            let mut pages = 1;
            if let Some(mut leg) = leg {
                while index + pages < entries.len() && leg.reverses(&entries[index + pages], pages) {
                    pages += 1;
                }
                leg.pages = pages;
                left += self.put_back(claim.0, index, leg);
            }
            index += pages;
        }
        left
    }

    /// Hands device pages back to whose they are. With no lock held.
    pub(crate) fn free_pages(&self, mut pages: Vec<DevicePage>) {
        pages.sort_unstable();
        for run in pages.chunk_by(|page, next| *next == page.add(1)) {
            let ops = {
                let mut map = self.map.lock();
                run.iter().for_each(|&page| map.set_frame(page, Frame::Empty));
                map.arena(run[0].pagemap).map(|arena| std::sync::Arc::clone(&arena.ops))
            };
            if let Some(ops) = ops {
                ops.folio_free(run[0], run.len());
            }
        }
    }
}
