//! Migrations in the userfaultfd manner: moves, page by page, and CPUs that write on until the very move.
//!
//! A claim marks pages in the engine's books only. A transfer of a staged pair takes the page itself from its
//! source to its destination in one step (`UFFDIO_MOVE`): the CPU's next touch faults, and the reader that
//! gets the fault sets it aside until the finish. Abort is moving back. Whoever moves takes pending events in
//! first (the kernel refuses otherwise: `EAGAIN`).

use super::{Carry, ClaimPage};
use crate::content::Content;
use crate::sim::Sim;
use crate::space::Entry;
use crate::state::State;
use hostmm::{ClaimId, DevicePage, Migration, Place};
use units::{HostFrame, HostVa, Outcome};

impl State {
    /// Carries a staged pair: moves the page.
    pub(crate) fn carry_move(&mut self, id: ClaimId, index: usize) -> Outcome {
        let page = self.claims.held(id).pages[index];
        if page.spoiled || page.carry != Carry::Nothing {
            return Outcome::Failed;
        }
        let hole = self.space.entry(page.at).is_none();
        let carried = match (page.source, page.to) {
            (Some(Place::Host(_)) | None, Some(Place::Device(to))) => self.move_in(&page, to),
            (Some(Place::Device(from)), Some(Place::Device(to))) => self.move_across(&page, from, to),
            (Some(Place::Device(from)), Some(Place::Host(_))) => self.move_home(page.at, from),
            _ => false,
        };
        if carried {
            self.claims.held(id).pages[index].carry = Carry::Moved;
        }
        match (carried, hole) {
            (false, _) => Outcome::Failed,
            (true, true) => Outcome::Zeroed,
            (true, false) => Outcome::Moved,
        }
    }

    /// Moves what is mapped at a page's address (zeros for a hole) into VRAM; whether it can move.
    fn move_in(&mut self, page: &ClaimPage, to: DevicePage) -> bool {
        let content = match self.space.entry(page.at) {
            None => Some(Content::Zero),
            Some(Entry::System { frame, .. }) => self.take_exclusive(frame),
            Some(Entry::Device { .. } | Entry::Migration { .. }) => None,
        };
        let Some(content) = content else { return false };
        self.vram.fill(to, content, Some(page.at));
        self.space.set(page.at, Entry::Device { page: to, write: page.write });
        true
    }
    /// Moves from frame to frame of VRAM.
    fn move_across(&mut self, page: &ClaimPage, from: DevicePage, to: DevicePage) -> bool {
        let Some(cell) = self.vram.take(from) else { return false };
        self.vram.fill(to, cell.content, Some(page.at));
        self.space.set(page.at, Entry::Device { page: to, write: page.write });
        true
    }
    /// Moves a page of VRAM to the address that it belongs to, if it is still missed there.
    fn move_home(&mut self, at: HostVa, from: DevicePage) -> bool {
        if !self.missing(at, from) {
            return false;
        }
        let Some(cell) = self.vram.take(from) else { return false };
        self.arrive(at, cell.content);
        true
    }
    /// Maps bytes at an address, as a fresh page.
    pub(crate) fn arrive(&mut self, at: HostVa, content: Content) {
        let write = self.space.vma(at).is_some_and(|mapped| mapped.vma.write);
        let frame = self.frames.alloc(content);
        self.space.set(at, Entry::System { frame, write });
    }
    /// Whether an address misses exactly this page of VRAM.
    fn missing(&self, at: HostVa, page: DevicePage) -> bool {
        matches!(self.space.entry(at), Some(Entry::Device { page: there, .. }) if there == page)
    }
    /// The bytes of a frame that one page table entry alone holds; it is freed.
    pub(crate) fn take_exclusive(&mut self, frame: HostFrame) -> Option<Content> {
        let held = self.frames.held(frame);
        let exclusive = held.pins == 0 && !held.shared() && !core::mem::take(&mut held.raced);
        exclusive.then(|| self.frames.take(frame))
    }

    /// Commits one page; whether it lives at its destination now.
    fn commit_moved(&mut self, page: &ClaimPage) -> bool {
        match (page.source, page.to, page.carry) {
            (_, None, _) => false,
            _ if page.spoiled => false,
            (_, _, Carry::Moved) => true,
            (None, Some(Place::Device(to)), _) => self.space.entry(page.at).is_none() && self.move_in(page, to),
            (Some(Place::Host(_)), Some(Place::Device(to)), carry) => self.replace(page, to, carry),
            (Some(Place::Device(from)), Some(Place::Device(to)), carry) => {
                self.vram.take(from);
                self.land(page, to, carry);
                true
            }
            (Some(Place::Device(from)), Some(Place::Host(_)), carry) => {
                self.vram.take(from);
                if carry == Carry::Nothing {
                    self.space.clear(page.at);
                }
                true
            }
            (Some(Place::Host(_)) | None, Some(Place::Host(_)), _) => false,
        }
    }
    /// Drops a page that was not moved, in favour of what its destination holds.
    fn replace(&mut self, page: &ClaimPage, to: DevicePage, carry: Carry) -> bool {
        let Some(Entry::System { frame, .. }) = self.space.entry(page.at) else { return false };
        let dropped = self.take_exclusive(frame).is_some();
        if dropped {
            self.land(page, to, carry);
        }
        dropped
    }
    /// Makes a frame of VRAM the home of a page; with zeros where nothing was carried to it.
    fn land(&mut self, page: &ClaimPage, to: DevicePage, carry: Carry) {
        if carry == Carry::Nothing {
            self.vram.fill(to, Content::Zero, None);
        }
        if let Some(cell) = self.vram.cell_mut(to) {
            cell.at = Some(page.at);
        }
        self.space.set(page.at, Entry::Device { page: to, write: page.write });
    }

    /// Ends the migration of one page that committed.
    fn settle_moved(&mut self, page: &ClaimPage, freed: &mut Vec<DevicePage>) {
        if let Some(Place::Device(from)) = page.source {
            freed.push(from);
        }
        if let Some(Place::Device(to)) = page.to
            && !self.missing(page.at, to)
        {
            self.vram.take(to);
            freed.push(to);
        }
    }
    /// Ends the migration of one page that did not: as it was, or freed where its mapping went meanwhile.
    fn settle_restored(&mut self, page: &ClaimPage, freed: &mut Vec<DevicePage>) {
        match (page.source, page.to, page.carry) {
            (Some(Place::Host(_)) | None, Some(Place::Device(to)), Carry::Moved) => {
                let home = self.move_home(page.at, to);
                if !home {
                    self.vram.take(to);
                }
            }
            (Some(Place::Device(from)), Some(Place::Device(to)), Carry::Moved) => {
                if self.missing(page.at, to) {
                    self.move_across(page, to, from);
                } else {
                    self.vram.take(to);
                }
            }
            (Some(Place::Device(from)), Some(Place::Host(_)), Carry::Moved | Carry::Copied) => {
                let arrived = match self.space.entry(page.at) {
                    Some(Entry::System { frame, .. }) => self.take_exclusive(frame),
                    _ => None,
                };
                if let Some(content) = arrived {
                    self.space.set(page.at, Entry::Device { page: from, write: page.write });
                    if page.carry == Carry::Moved {
                        self.vram.fill(from, content, Some(page.at));
                    }
                }
            }
            (_, Some(Place::Device(to)), Carry::Copied) => {
                self.vram.take(to);
            }
            _ => {}
        }
        if let Some(Place::Device(from)) = page.source
            && !self.missing(page.at, from)
        {
            self.vram.take(from);
            freed.push(from);
        }
    }
}

impl Sim {
    /// `commit` in the userfaultfd manner.
    pub(crate) fn commit_userfaultfd(&self, migration: &mut Migration) {
        let Some(id) = migration.id else { return };
        let mut state = self.lock_taken_in();
        let claim = state.claims.held(id);
        let legs = migration.legs.iter().filter(|leg| leg.carried());
        let wanted: Vec<_> = legs.flat_map(|leg| claim.indices(leg)).collect();
        for index in wanted {
            let page = state.claims.held(id).pages[index];
            let moved = state.commit_moved(&page);
            state.claims.held(id).pages[index].moved = moved;
        }
        super::tell_moved(&mut state, id, migration);
    }

    /// `finish` in the userfaultfd manner.
    pub(crate) fn finish_userfaultfd(&self, id: ClaimId) {
        let mut state = self.lock_taken_in();
        let Some(claim) = state.claims.close(id) else { return };
        let mut freed = Vec::new();
        for page in &claim.pages {
            if page.moved {
                state.settle_moved(page, &mut freed);
            } else {
                state.settle_restored(page, &mut freed);
            }
            state.note_outcome(id, page, page.to);
        }
        state.space.split_ragged(claim.pages.iter().map(|page| page.at));
        state.uffd.take_up_again();
        self.changed.notify_all();
        self.work.notify_all();
        drop(state);
        self.free_pages(&freed);
    }
}
