//! The first half of a migration: claim and stage (Linux: `migrate_vma_setup`, `migrate_device_range`).
//!
//! A claim is a list of entries, one a page; the page map's marks name claim and entry, so that an event or a
//! fault that meets a page finds its migration. Pages that an event takes away while they are claimed are
//! *dead*: the claim carries them nowhere any more, and its `finish` alone frees what they held, on both sides.

use crate::LiveMm;
use crate::arena::Frame;
use crate::entry::{Claim, Entry, From};
use crate::map::{Home, Mark};
use crate::quarantine;
use crate::sys::Errno;
use hostmm::{ClaimId, ClaimRequest, Claimed, Destination, DevicePage, EventKind, MmError, MmEvent, Select};
use units::{HostFrame, HostRange, HostVa, PAGE_SHIFT, SZ_2M, SZ_4K};

/// Which way a migration may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entrance {
    /// Anywhere: not while frozen.
    Anywhere,
    /// Home only. That is what a freeze waits for; so a reader that serves a CPU fault never waits here.
    Homewards,
}

/// How long a claim waits for a freeze or a migration to end before it says [`MmError::Stale`].
const PATIENCE_NS: u64 = 10_000_000;

impl LiveMm {
    fn enter(&self, entrance: Entrance) -> Result<u64, MmError> {
        self.alive()?;
        let mut map = self.map.lock();
        if map.frozen && entrance == Entrance::Anywhere {
            self.claims_changed.wait_for(&mut map, PATIENCE_NS);
            if map.frozen {
                return Err(MmError::Stale);
            }
        }
        map.last_claim += 1;
        let id = map.last_claim;
        map.claims.get_or_insert_with(id, Claim::default);
        Ok(id)
    }

    fn leave(&self, id: u64) {
        self.map.lock().claims.remove(id);
        self.claims_changed.notify_all();
    }

    pub(crate) fn claim_range(
        &self,
        request: &ClaimRequest,
        kind: EventKind,
        out: &mut [Claimed],
    ) -> Result<ClaimId, MmError> {
        // An event that has been read but not settled would kill what is claimed now, at the same place.
        self.gate.wait_open();
        let vma = self.vma_at(request.range.start).ok_or(MmError::NoVma)?;
        if !vma.range.covers(request.range) {
            return Err(MmError::Stale);
        }
        let home = request.select == Select::DeviceOnly;
        let id = self.enter(if home { Entrance::Homewards } else { Entrance::Anywhere })?;
        let begun = self.notifiers.begin(MmEvent { range: request.range, kind });
        self.notifiers.tell(&begun);
        let mut resident = vec![0u8; request.range.pages()];
        let movable = request.select == Select::All && vma.anonymous;
        let serial = self.begin_look();
        if movable && self.present(request.range, &mut resident).is_err() {
            self.notifiers.end(begun);
            self.leave(id);
            return Err(MmError::Stale);
        }
        let collected = self.collect(id, request, movable.then_some((&resident, serial)), out);
        self.notifiers.end(begun);
        if !collected {
            self.leave(id);
            return Err(MmError::Stale);
        }
        Ok(ClaimId(id))
    }

    /// Marks the pages. False where the engine is still to be told of something there.
    fn collect(&self, id: u64, request: &ClaimRequest, look: Option<(&Vec<u8>, u64)>, out: &mut [Claimed]) -> bool {
        let mut guard = self.map.lock();
        let map = &mut *guard;
        if map.untold.meets(request.range) {
            return false;
        }
        if let Some((resident, serial)) = look {
            map.quarantine.settle_absent(request.range, resident, serial);
        }
        let quarantined = map.quarantine.within(request.range, sync::time::now_ns());
        let mut entries = Vec::with_capacity(request.range.pages());
        for (index, out) in out.iter_mut().enumerate().take(request.range.pages()) {
            let va = request.range.page_at(index);
            let look = look.filter(|_| !quarantine::contains(&quarantined, va));
            *out = match (map.look(va), look) {
                ((Home::Device(page), Mark::Free), _)
                    if map.arena(page.pagemap).is_some_and(|arena| arena.owner == request.owner) =>
                {
                    Claimed::Device(page)
                }
                ((Home::System, Mark::Free), Some((resident, _))) if resident[index] & 1 != 0 => {
                    Claimed::System(HostFrame(va.page_number()))
                }
                ((Home::System, Mark::Free), Some(_)) => Claimed::Hole,
                _ => Claimed::No,
            };
            let from = match *out {
                Claimed::No => From::Nowhere,
                Claimed::Hole => From::Hole,
                Claimed::System(_) => From::System,
                Claimed::Device(page) => From::Device(page),
            };
            if from != From::Nowhere {
                map.set_mark(va, Mark::Claimed { claim: id, entry: index });
            }
            entries.push(Entry::new(va, from));
        }
        if let Some(claim) = map.claims.get_mut(id) {
            claim.entries = entries;
        }
        true
    }

    pub(crate) fn claim_frames(&self, pages: &[DevicePage], out: &mut [Option<HostVa>]) -> Result<ClaimId, MmError> {
        let id = self.enter(Entrance::Anywhere)?;
        let mut vas: Vec<HostVa> = Vec::with_capacity(pages.len());
        {
            let map = self.map.lock();
            vas.extend(pages.iter().filter_map(|&page| match map.frame(page) {
                Some(Frame::Home(va)) => Some(va),
                _ => None,
            }));
        }
        let begun: Vec<_> = runs_of(vas)
            .map(|range| self.notifiers.begin(MmEvent { range, kind: EventKind::Clear }))
            .inspect(|begun| self.notifiers.tell(begun))
            .collect();
        {
            let mut guard = self.map.lock();
            let map = &mut *guard;
            let mut entries = Vec::with_capacity(pages.len());
            for (index, &page) in pages.iter().enumerate() {
                out[index] = match map.frame(page) {
                    Some(Frame::Home(va))
                        if map.look(va) == (Home::Device(page), Mark::Free)
                            && !map.untold.meets(HostRange::sized(va, SZ_4K)) =>
                    {
                        Some(va)
                    }
                    _ => None,
                };
                if let Some(va) = out[index] {
                    map.set_mark(va, Mark::Claimed { claim: id, entry: index });
                }
                let from = out[index].map_or(From::Nowhere, |_| From::Device(page));
                entries.push(Entry::new(out[index].unwrap_or_default(), from));
            }
            if let Some(claim) = map.claims.get_mut(id) {
                claim.entries = entries;
            }
        }
        begun.into_iter().for_each(|begun| self.notifiers.end(begun));
        Ok(ClaimId(id))
    }

    pub(crate) fn stage_claim(
        &self,
        claim: ClaimId,
        to: &[Destination],
        frames: &mut [Option<HostFrame>],
    ) -> Result<(), MmError> {
        self.alive()?;
        let mut chunks: Vec<HostVa> = Vec::new();
        {
            let mut guard = self.map.lock();
            let map = &mut *guard;
            if map.claims.get(claim.0).is_none() {
                return Err(MmError::Gone);
            }
            map.with_entries(claim.0, |map, entries| {
                for ((entry, &to), frame) in entries.iter_mut().zip(to).zip(frames.iter_mut()) {
                    if entry.from == From::Nowhere || entry.dead {
                        continue;
                    }
                    match to {
                        Destination::Stay => continue,
                        Destination::Ram => *frame = Some(HostFrame(entry.va.page_number())),
                        Destination::Device(page) => {
                            if map.frame(page) != Some(Frame::Empty) || map.holds_bytes(page) {
                                self.counters.occupied.fetch_add(1);
                                continue;
                            }
                            map.set_frame(page, Frame::Staged(entry.va));
                            let chunk = entry.va.align_down(SZ_2M);
                            if chunks.last() != Some(&chunk) {
                                chunks.push(chunk);
                            }
                        }
                    }
                    entry.to = to;
                }
            });
        }
        for chunk in chunks {
            match self.register(chunk) {
                Err(Errno::NOMEM) => {
                    self.unstage(claim, None, frames);
                    return Err(MmError::NoMemory);
                }
                Err(_) => self.unstage(claim, Some(chunk), frames),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Takes destinations back: those of one chunk, or all.
    fn unstage(&self, claim: ClaimId, chunk: Option<HostVa>, frames: &mut [Option<HostFrame>]) {
        let mut guard = self.map.lock();
        let map = &mut *guard;
        for index in 0..map.entries(claim.0).len() {
            let Some(mut entry) = map.entry(claim.0, index) else { break };
            if chunk.is_none_or(|chunk| entry.va.align_down(SZ_2M) == chunk) {
                if let Destination::Device(page) = entry.to {
                    map.set_frame(page, Frame::Empty);
                }
                if let Some(frame) = frames.get_mut(index) {
                    *frame = None;
                }
                entry.to = Destination::Stay;
                map.set_entry(claim.0, index, entry);
            }
        }
    }

    pub(crate) fn entries(&self, claim: ClaimId) -> Vec<Entry> {
        self.map.lock().entries(claim.0).to_vec()
    }
}

/// Addresses of pages, in any order, as runs that follow each other.
pub(crate) fn runs_of(mut vas: Vec<HostVa>) -> impl Iterator<Item = HostRange> {
    vas.sort_unstable();
    vas.dedup();
    let mut vas = vas.into_iter().peekable();
    core::iter::from_fn(move || {
        let start = vas.next()?;
        let mut run = HostRange::sized(start, 1 << PAGE_SHIFT);
        while vas.next_if(|&va| va == run.end).is_some() {
            run.end = run.end.add(SZ_4K);
        }
        Some(run)
    })
}
