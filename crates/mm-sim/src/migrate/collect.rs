//! Claims: tell the notifiers, collect the pages.
//!
//! Upstream: migrate_vma_setup, migrate_device_pfns (mm/migrate_device.c).

use super::linux;
use crate::sim::{Locked, Sim};
use crate::space::Entry;
use crate::state::State;
use crate::{Event, Manner};
use hostmm::{ClaimId, ClaimRequest, Claimed, DevicePage, EventKind, MmError, MmEvent, OwnerId, Select};
use units::{HostRange, HostVa, SZ_4K};

impl Sim {
    /// [`HostMm::claim`](hostmm::HostMm::claim).
    pub(crate) fn claim_range(&self, request: &ClaimRequest, out: &mut [Claimed]) -> Result<ClaimId, MmError> {
        let event = MmEvent { range: request.range, kind: EventKind::Migrate(request.owner) };
        let mut state = self.admit(request.fault.is_some());
        if let Err(error) = still_mapped(&state, request.range) {
            self.leave(&mut state);
            return Err(error);
        }
        drop(state);
        let invalidation = self.begin(event);
        let mut state = self.lock();
        let claimed = still_mapped(&state, request.range).map(|()| collect_range(&mut state, request, out));
        self.end(&mut state, invalidation);
        if claimed.is_err() {
            self.leave(&mut state);
        }
        claimed
    }

    /// [`HostMm::claim_device`](hostmm::HostMm::claim_device).
    pub(crate) fn claim_pages(&self, pages: &[DevicePage], out: &mut [Option<HostVa>]) -> Result<ClaimId, MmError> {
        let mut state = self.lock_taken_in();
        let owner = pages.first().and_then(|page| state.vram.owner(*page)).unwrap_or(OwnerId(0));
        let id = state.claims.open(owner, false);
        drop(state);
        for (page, out) in pages.iter().zip(out) {
            *out = self.claim_page(id, *page);
        }
        Ok(id)
    }

    fn claim_page(&self, id: ClaimId, page: DevicePage) -> Option<HostVa> {
        let state = self.lock();
        let Some(at) = free_to_claim(&state, page) else { return not_claimed(state, id) };
        let kind = match state.config.manner {
            Manner::Linux => EventKind::Clear,
            Manner::Userfaultfd => EventKind::Migrate(state.vram.owner(page).unwrap_or(OwnerId(0))),
        };
        drop(state);
        let invalidation = self.begin(MmEvent { range: HostRange::sized(at, SZ_4K), kind });
        let mut state = self.lock();
        let open = free_to_claim(&state, page) == Some(at);
        if open {
            state.space.split(at);
            take(&mut state, id, at, Claimed::Device(page));
        }
        self.end(&mut state, invalidation);
        if open { Some(at) } else { not_claimed(state, id) }
    }

    /// Waits until a claim may begin: no writer of mappings (linux; it is held off until the finish), no thread
    /// that forks (userfaultfd; but for faults: these bring pages home).
    fn admit(&self, serves_fault: bool) -> Locked<'_> {
        let mut state = self.lock_taken_in();
        match state.config.manner {
            Manner::Linux => {
                while state.mmap_lock.writer {
                    self.changed.wait(&mut state);
                }
                state.mmap_lock.readers += 1;
            }
            Manner::Userfaultfd => {
                while !serves_fault && state.uffd.frozen > 0 {
                    self.changed.wait(&mut state);
                }
            }
        }
        state
    }
    /// Gives back what [`admit`](Sim::admit) took.
    pub(crate) fn leave(&self, state: &mut State) {
        if state.config.manner == Manner::Linux {
            state.mmap_lock.readers -= 1;
            self.changed.notify_all();
        }
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

/// Enters a page that was not collected.
fn not_claimed(mut state: Locked<'_>, id: ClaimId) -> Option<HostVa> {
    state.claims.add(id, HostVa(0), Claimed::No, false);
    None
}

/// Where a page of VRAM is mapped, if nobody is at it.
fn free_to_claim(state: &State, page: DevicePage) -> Option<HostVa> {
    let cell = state.vram.cell(page)?;
    if cell.faulted || state.claims.involves(page) { None } else { cell.at }
}

fn collect_range(state: &mut State, request: &ClaimRequest, out: &mut [Claimed]) -> ClaimId {
    let id = state.claims.open(request.owner, state.config.manner == Manner::Linux);
    let now = sync::time::now_ns();
    let quarantined = state.uffd.quarantined(request.range, now);
    state.space.split_edges(request.range);
    for (i, out) in out.iter_mut().enumerate() {
        let at = request.range.page_at(i);
        let found = if quarantined.iter().any(|range| range.contains(at)) {
            Claimed::No
        } else {
            candidate(state, request, at)
        };
        *out = match found {
            Claimed::System(frame) => Claimed::System(state.frame_name(frame, at)),
            other => other,
        };
        if *out == Claimed::No {
            state.space.split(at);
        }
        take(state, id, at, *out);
    }
    id
}

/// What a claim would collect at an address, in the mm's own frames.
fn candidate(state: &State, request: &ClaimRequest, at: HostVa) -> Claimed {
    let Some(mapped) = state.space.vma(at).filter(|mapped| mapped.vma.anonymous && !mapped.vma.io) else {
        return Claimed::No;
    };
    if state.claims.holds(at) {
        return Claimed::No;
    }
    let all = request.select == Select::All;
    match state.space.entry(at) {
        None if all && mapped.vma.write => Claimed::Hole,
        Some(Entry::System { frame, .. }) if all && linux::collects(state, frame) => Claimed::System(frame),
        Some(Entry::Device { page, .. }) if state.vram.owner(page) == Some(request.owner) => {
            let mine = request.fault.is_some_and(|fault| fault.page() == at);
            match state.vram.cell(page) {
                Some(cell) if (!cell.faulted || mine) && !state.claims.involves(page) => Claimed::Device(page),
                Some(_) | None => Claimed::No,
            }
        }
        None | Some(_) => Claimed::No,
    }
}

/// Enters a page into a claim; in the Linux manner its entry becomes a migration entry.
fn take(state: &mut State, id: ClaimId, at: HostVa, source: Claimed) {
    let write = match state.space.entry(at) {
        Some(Entry::System { write, .. } | Entry::Device { write, .. }) => write,
        Some(Entry::Migration { .. }) => false,
        None => state.space.vma(at).is_some_and(|mapped| mapped.vma.write),
    };
    state.claims.add(id, at, source, write);
    if source == Claimed::No {
        return;
    }
    state.note(Event::Claimed { claim: id, at, was: super::Claim::backing(source) });
    if state.config.manner == Manner::Linux && source != Claimed::Hole {
        state.space.set(at, Entry::Migration { claim: id });
    }
}
