//! Claims: tell the notifiers, collect the pages.
//!
//! Upstream: migrate_vma_setup, migrate_device_pfns (mm/migrate_device.c).

use super::linux;
use crate::Event;
use crate::footprint::{self, StatePart};
use crate::sim::Sim;
use crate::space::Entry;
use crate::state::State;
use hostmm::{
    ClaimId, ClaimRequest, Claimed, DevicePage, DeviceRun, EventKind, Migration, MmError, MmEvent, OwnerId, Place, Run,
    Toward,
};
use units::{HostRange, HostVa, SZ_2M, SZ_4K};

impl Sim {
    /// [`HostMm::claim`](hostmm::HostMm::claim).
    pub(crate) fn claim_range(&self, request: &ClaimRequest, migration: &mut Migration) -> Result<Claimed, MmError> {
        let event = MmEvent { range: request.range, kind: EventKind::Migrate(request.owner) };
        let mut state = self.read_mappings();
        let begins = still_mapped(&state, request.range).map(|()| !all_there(&state, request));
        footprint::tell(&state, footprint::blocks(request.range).map(StatePart::read));
        if begins != Ok(true) {
            self.leave(&mut state);
            return begins.map(|_| Claimed::There);
        }
        drop(state);
        let invalidation = self.begin(event);
        let mut state = self.lock();
        let blocks = footprint::blocks(request.range).map(StatePart::written);
        footprint::tell(&state, blocks.chain(Self::counts(&state, &invalidation)));
        let claimed = still_mapped(&state, request.range).map(|()| collect_range(&mut state, request, migration));
        self.end(&mut state, invalidation);
        if claimed.is_err() {
            self.leave(&mut state);
        }
        claimed.map(|()| Claimed::Begun)
    }

    /// [`HostMm::claim_device`](hostmm::HostMm::claim_device).
    pub(crate) fn claim_pages(&self, runs: &[DeviceRun], migration: &mut Migration) {
        let mut state = self.lock();
        let owner = runs.first().and_then(|run| state.vram.owner(run.first)).unwrap_or(OwnerId(0));
        let id = state.claims.open(owner, Toward::Ram, false, HostVa(0));
        drop(state);
        migration.begin(id);
        for page in runs.iter().flat_map(|run| (0..run.pages as u64).map(|i| run.first.add(i))) {
            if let Some(at) = self.claim_page(id, page) {
                migration.collect(Run { range: HostRange::sized(at, SZ_4K), place: Some(Place::Device(page)) });
            }
        }
    }

    fn claim_page(&self, id: ClaimId, page: DevicePage) -> Option<HostVa> {
        let state = self.lock();
        let at = free_to_claim(&state, page)?;
        drop(state);
        let invalidation = self.begin(MmEvent { range: HostRange::sized(at, SZ_4K), kind: EventKind::Clear });
        let mut state = self.lock();
        let open = free_to_claim(&state, page) == Some(at);
        if open {
            state.space.split(at);
            take(&mut state, id, at, Some(Place::Device(page)));
        }
        self.end(&mut state, invalidation);
        open.then_some(at)
    }
}

/// Whether one VMA covers the range.
fn still_mapped(state: &State, range: HostRange) -> Result<(), MmError> {
    match state.space.vma(range.start) {
        None => Err(MmError::NoVma),
        Some(mapped) if mapped.vma.range.covers(range) => Ok(()),
        Some(_) => Err(MmError::Stale),
    }
}

/// Whether all of a range is in the pagemap that it shall go to.
fn all_there(state: &State, request: &ClaimRequest) -> bool {
    let Toward::Vram(target) = request.toward else { return false };
    (0..request.range.pages()).all(|i| {
        matches!(state.space.entry(request.range.page_at(i)), Some(Entry::Device { page, .. }) if page.pagemap == target)
    })
}

/// Where a page of VRAM is mapped, if nobody is at it.
fn free_to_claim(state: &State, page: DevicePage) -> Option<HostVa> {
    let cell = state.vram.cell(page)?;
    if cell.faulted || state.claims.involves(page) { None } else { cell.at }
}

fn collect_range(state: &mut State, request: &ClaimRequest, migration: &mut Migration) {
    let id = state.claims.open(request.owner, request.toward, true, request.range.end);
    // A huge page goes as a whole. One with a pin does not go at all, nor can it be split.
    let blocks = HostRange::new(request.range.start.align_down(SZ_2M), request.range.end.align_up(SZ_2M));
    let blocks = (blocks.start.0..blocks.end.0).step_by(SZ_2M as usize).map(HostVa);
    let pinned: Vec<_> = blocks.filter(|block| state.is_pinned_huge(*block)).collect();
    let stays = |at: HostVa| pinned.contains(&at.align_down(SZ_2M));
    for edge in [request.range.start, request.range.end].into_iter().filter(|edge| !stays(*edge)) {
        state.space.split_edges(HostRange::new(edge, edge));
    }
    migration.begin(id);
    for i in 0..request.range.pages() {
        let at = request.range.page_at(i);
        if stays(at) {
            continue;
        }
        let Some(source) = candidate(state, request, at) else {
            state.space.split(at);
            continue;
        };
        take(state, id, at, source);
        migration.collect(Run { range: HostRange::sized(at, SZ_4K), place: source });
    }
}

/// What a claim would collect at an address: nothing, a hole, or a page.
fn candidate(state: &State, request: &ClaimRequest, at: HostVa) -> Option<Option<Place>> {
    state.space.vma(at).filter(|mapped| mapped.vma.anonymous && !mapped.vma.io)?;
    if state.claims.holds(at) {
        return None;
    }
    let all = request.toward != Toward::Ram;
    match state.space.entry(at) {
        None if all => Some(None),
        Some(Entry::System { frame, .. }) if all && linux::collects(state, frame) => Some(Some(Place::Host(frame))),
        Some(Entry::Device { page, .. }) if state.vram.owner(page) == Some(request.owner) => {
            let mine = request.fault.is_some_and(|fault| fault.page() == at);
            let cell = state.vram.cell(page)?;
            let free = (!cell.faulted || mine) && !state.claims.involves(page);
            free.then_some(Some(Place::Device(page)))
        }
        None | Some(_) => None,
    }
}

/// Enters a page into a claim; its entry becomes a migration entry.
fn take(state: &mut State, id: ClaimId, at: HostVa, source: Option<Place>) {
    let write = match state.space.entry(at) {
        Some(Entry::System { write, .. } | Entry::Device { write, .. }) => write,
        Some(Entry::Migration { .. } | Entry::Poisoned) => false,
        None => state.space.vma(at).is_some_and(|mapped| mapped.vma.write),
    };
    state.claims.add(id, at, source, write);
    state.note(Event::Claimed { claim: id, at, was: source });
    if source.is_some() {
        state.space.set(at, Entry::Migration { claim: id });
    }
}
