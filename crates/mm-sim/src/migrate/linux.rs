//! Migration entries, copies, and everything settled at the finish.
//!
//! A claimed page's entry is a migration entry: CPUs wait. Transfers copy. `commit` decides page by page;
//! holes are inserted there, with an invalidation of their own, from the first one to the end of the claim, unless a CPU filled
//! them meanwhile. `finish` replaces the migration entries by the new place or the old one; a page whose entry was zapped
//! meanwhile has no place and is freed where it is.
//!
//! Upstream: migrate_vma_pages, migrate_vma_finalize (mm/migrate_device.c), remove_migration_ptes (mm/migrate.c).

use super::{Carry, ClaimPage};
use crate::Event;
use crate::content::Content;
use crate::footprint::{self, StatePart};
use crate::sim::Sim;
use crate::space::Entry;
use crate::state::State;
use hostmm::{ClaimId, DevicePage, EventKind, Migration, MmEvent, Place};
use sync::Told;
use units::{HostFrame, HostRange, HostVa, Outcome};

/// Whether a claim collects a frame: neither shared nor pinned.
pub(crate) fn collects(state: &State, frame: HostFrame) -> bool {
    state.frames.get(frame).is_some_and(|held| held.pins == 0 && !held.shared())
}

impl State {
    /// Carries a staged pair: copies its bytes.
    pub(crate) fn carry_copy(&mut self, id: ClaimId, index: usize, src: Place, dst: Place) -> Outcome {
        let content = match src {
            Place::Host(frame) => self.frames.get(frame).map(|held| held.content.clone()),
            Place::Device(page) => self.vram.cell(page).map(|cell| cell.content.clone()),
        };
        let Some(content) = content else { return Outcome::Failed };
        match dst {
            Place::Host(frame) => self.frames.held(frame).content = content,
            Place::Device(page) => self.vram.fill(page, content, None),
        }
        self.claims.held(id).pages[index].carry = Carry::Copied;
        Outcome::Copied
    }

    /// Whether a wanted page commits: its source has no reference that nobody accounts for.
    fn commits(&mut self, page: &ClaimPage) -> bool {
        match page.source {
            None => false,
            Some(Place::Device(_)) => true,
            Some(Place::Host(frame)) => {
                let held = self.frames.held(frame);
                let raced = core::mem::take(&mut held.raced);
                !raced && held.pins == 0
            }
        }
    }
    /// Fills the destination with zeros, where nothing was carried to it.
    fn settle_destination(&mut self, page: &ClaimPage) {
        if let (Some(Place::Device(to)), Carry::Nothing) = (page.to, page.carry) {
            self.vram.fill(to, Content::default(), None);
        }
    }
    /// Puts a fresh page where a hole was claimed; whether it is still a hole.
    fn insert_page(&mut self, page: &ClaimPage) -> bool {
        let Some(Place::Device(to)) = page.to else { return false };
        let hole = self.space.entry(page.at).is_none() && self.space.vma(page.at).is_some();
        if hole {
            self.prepare_pages(page.at);
            self.tables.make(page.at);
            self.settle_destination(page);
            if let Some(cell) = self.vram.cell_mut(to) {
                cell.at = Some(page.at);
            }
            self.space.set(page.at, Entry::Device { page: to, write: page.write });
        }
        hole
    }
    /// What pages in holes change beside their entries; `None` where that is more than can be told.
    fn told_of_holes<'a>(&self, holes: impl Iterator<Item = &'a ClaimPage>) -> Option<Vec<Told>> {
        let first = |at: HostVa| {
            let mapped = self.space.vma(at).filter(|mapped| mapped.attributes.anon == 0 || !self.tables.has(at))?;
            Some(self.first_touch(at, &mapped))
        };
        holes.filter_map(|page| first(page.at)).collect()
    }
}

impl Sim {
    /// [`HostMm::commit`](hostmm::HostMm::commit).
    pub(crate) fn commit_claim(&self, migration: &mut Migration) {
        let Some(id) = migration.id else { return };
        let (owner, end, mut wanted) = {
            let mut state = self.lock();
            let claim = state.claims.held(id);
            let parts = migration.parts.iter().filter(|part| part.carried());
            let indices = parts.flat_map(|part| claim.indices(part));
            let wanted: Vec<_> = indices.map(|index| (index, claim.pages[index])).collect();
            let (owner, end) = (claim.owner, claim.end);
            footprint::tell(&state, wanted.iter().filter_map(|(_, page)| Some(StatePart::Bytes(page.to?).read())));
            (owner, end, wanted)
        };
        let holes = || wanted.iter().map(|(_, page)| page).filter(|page| page.source.is_none() && page.to.is_some());
        let event = holes()
            .next()
            .map(|first| MmEvent { range: HostRange::new(first.at, end), kind: EventKind::Migrate(owner) });
        let invalidation = event.map(|event| self.begin(event));
        let mut state = self.lock();
        let told_of_holes = footprint::if_told(|| state.told_of_holes(holes()));
        for (_, page) in &mut wanted {
            let hole = page.source.is_none();
            page.moved = page.to.is_some() && if hole { state.insert_page(page) } else { state.commits(page) };
            if page.moved && !hole {
                state.settle_destination(page);
            }
        }
        let claim = state.claims.held(id);
        wanted.iter().for_each(|(index, page)| claim.pages[*index].moved = page.moved);
        super::tell_moved(&mut state, id, migration);
        if let Some(told) = told_of_holes {
            let ended = invalidation.iter().flat_map(|invalidation| Self::counts(&state, invalidation));
            footprint::tell(&state, wanted.iter().flat_map(|(_, page)| page.parts()).chain(ended).chain(told));
        }
        if let Some(invalidation) = invalidation {
            self.end(&mut state, invalidation);
        }
    }

    /// [`HostMm::finish`](hostmm::HostMm::finish).
    pub(crate) fn finish_claim(&self, id: ClaimId) {
        let mut state = self.lock();
        let Some(claim) = state.claims.close(id) else { return };
        let mut freed = Vec::with_capacity(claim.pages.len());
        for page in &claim.pages {
            settle(&mut state, id, page, &mut freed);
        }
        state.space.split_ragged(claim.pages.iter().map(|page| page.at));
        if claim.holds_mmap {
            self.leave(&mut state);
        }
        self.changed.notify_all_held(&state);
        footprint::tell(&state, claim.pages.iter().flat_map(ClaimPage::parts));
        drop(state);
        self.free_pages(&freed);
    }
}

/// Ends the migration of one page.
fn settle(state: &mut State, id: ClaimId, page: &ClaimPage, freed: &mut Vec<DevicePage>) {
    if page.source.is_none() {
        return settle_hole(state, id, page, freed);
    }
    let mapped = state.space.entry(page.at) == Some(Entry::Migration { claim: id });
    let write = page.write && state.space.vma(page.at).is_some_and(|mapped| mapped.vma.write);
    let (place, other) = if page.moved { (page.to, page.source) } else { (page.source, page.to) };
    if let Some(Place::Host(frame)) = other {
        state.frames.put(frame);
    }
    if let Some(Place::Device(dropped)) = other
        && state.drop_page(dropped)
        && page.moved
    {
        freed.push(dropped);
    }
    let event = match place {
        Some(Place::Host(frame)) if mapped => {
            state.space.set(page.at, Entry::System { frame, write });
            Some(Place::Host(frame))
        }
        Some(Place::Device(kept)) if mapped => {
            if let Some(cell) = state.vram.cell_mut(kept) {
                cell.at = Some(page.at);
            }
            state.space.set(page.at, Entry::Device { page: kept, write });
            Some(Place::Device(kept))
        }
        Some(Place::Host(frame)) => {
            state.frames.put(frame);
            None
        }
        Some(Place::Device(kept)) => {
            freed.extend(state.drop_page(kept).then_some(kept));
            None
        }
        None => None,
    };
    state.note_outcome(id, page, event);
}

/// A hole's page was inserted at the commit; it may have been zapped since.
fn settle_hole(state: &mut State, id: ClaimId, page: &ClaimPage, freed: &mut Vec<DevicePage>) {
    let Some(Place::Device(to)) = page.to else { return };
    let entry = state.space.entry(page.at);
    let mapped = matches!(entry, Some(Entry::Device { page: there, .. }) if there == to);
    if !mapped {
        let gone = state.drop_page(to);
        freed.extend((gone && page.moved).then_some(to));
    }
    state.note_outcome(id, page, Some(Place::Device(to)));
}

impl State {
    /// Writes down how a page's migration ended.
    pub(crate) fn note_outcome(&mut self, claim: ClaimId, page: &ClaimPage, now: Option<Place>) {
        let at = page.at;
        self.note(if page.moved { Event::Moved { claim, at, now } } else { Event::Stayed { claim, at } });
    }
}
