//! Migrations: claim, stage, commit, finish (Linux: `migrate_vma_*`, `migrate_device_*` in `mm/migrate_device.c`).
//!
//! A claim is a list of entries, one a page; the page map's marks name claim and entry, so that an event or a
//! fault that meets a page finds its migration. Pages that an event takes away while they are claimed are
//! *dead*: the claim carries them nowhere any more, and its `finish` alone frees what they held, on both sides.

use crate::arena::Frame;
use crate::map::{Home, Mark, PageMap, chunk_range};
use crate::sys::{Errno, mem, task, uffd::Watch};
use crate::transfer::{Leg, leading_run};
use crate::{LiveMm, Transport};
use gpusvm::hostmm::{
    ClaimId, ClaimRequest, Claimed, Destination, DevicePage, EventKind, MmError, MmEvent, Select, Transferred,
};
use std::collections::BTreeSet;
use units::{HostFrame, HostRange, HostVa, PAGE_SHIFT, SZ_2M, SZ_4K};

/// Where a claimed page was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum From {
    /// Not collected.
    Nowhere,
    /// Absent from system memory when it was claimed.
    Hole,
    /// In system memory.
    System,
    /// In VRAM.
    Device(DevicePage),
}

/// One page of a migration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub va: HostVa,
    pub from: From,
    pub to: Destination,
    /// What the transfer of exactly the staged pair gave.
    pub carried: Option<Transferred>,
    /// Something else was copied to the destination.
    pub strayed: bool,
    /// The page's mapping changed meanwhile.
    pub dead: bool,
    /// mremap took it elsewhere meanwhile: what the device translated is another page's place by now.
    pub remapped: bool,
    /// The destination is the page's home.
    pub committed: bool,
    /// The mover itself may be waiting for this page: a hole of it is answered with zeros at once.
    pub filling: bool,
    /// A hole that the CPU has filled since.
    pub filled: bool,
    /// A reader is at it, to fill the hole.
    pub zeroing: bool,
    /// A hole that nobody fills any more: it is being committed.
    pub sealed: bool,
}

/// A migration.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    pub entries: Vec<Entry>,
}

impl Entry {
    const fn new(va: HostVa, from: From) -> Self {
        Self {
            va,
            from,
            to: Destination::Stay,
            carried: None,
            strayed: false,
            dead: false,
            remapped: false,
            committed: false,
            filling: false,
            filled: false,
            zeroing: false,
            sealed: false,
        }
    }

    /// Whether the page itself, or all of its bytes, went to the destination.
    pub const fn is_carried(&self) -> bool {
        matches!(self.carried, Some(Transferred::Moved | Transferred::Copied))
    }
}

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
        map.claims.insert(id, Claim::default());
        Ok(id)
    }

    fn leave(&self, id: u64) {
        self.map.lock().claims.remove(&id);
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
        if movable && mem::mincore(request.range, &mut resident).is_err() {
            self.notifiers.end(begun);
            self.leave(id);
            return Err(MmError::Stale);
        }
        self.collect(id, request, movable.then_some(&resident), out);
        self.notifiers.end(begun);
        Ok(ClaimId(id))
    }

    fn collect(&self, id: u64, request: &ClaimRequest, resident: Option<&Vec<u8>>, out: &mut [Claimed]) {
        let mut guard = self.map.lock();
        let map = &mut *guard;
        let resident = resident.filter(|_| !map.is_quarantined(request.range));
        let mut entries = Vec::with_capacity(request.range.pages());
        for (index, out) in out.iter_mut().enumerate().take(request.range.pages()) {
            let va = request.range.page_at(index);
            *out = match (map.mark(va), map.home(va), resident) {
                (Mark::Free, Home::Device(page), _)
                    if map.arena(page.pagemap).is_some_and(|arena| arena.owner == request.owner) =>
                {
                    Claimed::Device(page)
                }
                (Mark::Free, Home::System, Some(resident)) if resident[index] & 1 != 0 => {
                    Claimed::System(HostFrame(va.page_number()))
                }
                (Mark::Free, Home::System, Some(_)) => Claimed::Hole,
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
        if let Some(claim) = map.claims.get_mut(&id) {
            claim.entries = entries;
        }
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
                    Some(Frame::Home(va)) if map.mark(va) == Mark::Free && map.home(va) == Home::Device(page) => {
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
            if let Some(claim) = map.claims.get_mut(&id) {
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
        let mut chunks = BTreeSet::new();
        {
            let mut guard = self.map.lock();
            let map = &mut *guard;
            let entries = map.claims.get(&claim.0).map(|claim| claim.entries.clone()).ok_or(MmError::Gone)?;
            for (index, entry) in entries.iter().enumerate().take(to.len()) {
                let mut entry = *entry;
                if entry.from == From::Nowhere || entry.dead {
                    continue;
                }
                match to[index] {
                    Destination::Stay => continue,
                    Destination::Ram => frames[index] = Some(HostFrame(entry.va.page_number())),
                    Destination::Device(page) => {
                        if map.frame(page) != Some(Frame::Empty)
                            || map.arena(page.pagemap).is_some_and(|arena| arena.has_bytes(page.frame))
                        {
                            self.counters.occupied.fetch_add(1);
                            continue;
                        }
                        map.set_frame(page, Frame::Staged(entry.va));
                        chunks.insert(entry.va.align_down(SZ_2M));
                    }
                }
                entry.to = to[index];
                map.set_entry(claim.0, index, entry);
            }
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
        let entries = map.claims.get(&claim.0).map_or_else(Vec::new, |claim| claim.entries.clone());
        for (index, mut entry) in entries.into_iter().enumerate() {
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

    /// Registers the VMAs of a chunk that have claimed pages, before the first page leaves. The claim's marks keep
    /// the chunk from being unregistered at the same time.
    fn register(&self, chunk: HostVa) -> Result<(), Errno> {
        // A mapping that moves between the ioctl and its note takes its registration along, unnoted.
        let mut tries = 0;
        let mut unread = self.gate.hold_events();
        while self.program.event_pending() {
            drop(unread);
            if !self.make_way(&mut tries) {
                return Err(Errno::AGAIN);
            }
            unread = self.gate.hold_events();
        }
        let _unread = unread;
        let _one_at_a_time = self.registration.lock();
        let range = HostRange::around(chunk, SZ_2M);
        let marked: Vec<HostVa> = {
            let map = self.map.lock();
            let bare = |va: &HostVa| !map.chunk(*va).is_some_and(|chunk| chunk.is_registered(*va));
            map.concerned(range)
                .into_iter()
                .filter(|page| page.2 != Mark::Free)
                .map(|page| page.0)
                .filter(bare)
                .collect()
        };
        let mut covered = HostRange::new(range.start, range.start);
        for va in marked {
            if covered.contains(va) {
                continue;
            }
            let Some(part) = self.vma_at(va).filter(|vma| vma.anonymous).and_then(|vma| vma.range.intersect(range))
            else {
                self.counters.refused.fetch_add(1);
                return Err(Errno::INVAL);
            };
            if let Err(errno) = self.program.register(part, self.watch()) {
                self.counters.refused.fetch_add(1);
                return Err(errno);
            }
            self.counters.registered.fetch_add(1);
            self.map.lock().chunk_mut(va).add_registered(part);
            covered = part;
        }
        Ok(())
    }

    /// Unregisters chunks that have nothing in VRAM any more and nobody at them. Where an event is on its way they
    /// stay registered until the next time: an mremap may have put a registered mapping, with pages in VRAM, at the
    /// very place, and nobody would know yet. One that begins in the middle holds its thread until its event is
    /// read, which the gate prevents: so the registration is put back before that thread can touch anything.
    pub(crate) fn retire_chunks(&self, chunks: impl IntoIterator<Item = u64>) {
        for number in chunks {
            if !self.map.lock().chunks.get(&number).is_some_and(|chunk| chunk.is_idle()) {
                continue;
            }
            let _unread = self.gate.hold_events();
            let _one_at_a_time = self.registration.lock();
            if self.program.event_pending() {
                continue;
            }
            let parts = self.map.lock().retire(number);
            for &part in &parts {
                self.counters.unregistered.fetch_add(1);
                // A mapping that is gone needs no unregistering: its error says nothing new.
                let _ = self.program.unregister(part);
            }
            if self.program.event_pending() {
                parts.into_iter().for_each(|part| self.register_again(part));
            }
            self.program.wake(chunk_range(number));
        }
    }

    fn register_again(&self, part: HostRange) {
        if self.program.register(part, self.watch()).is_ok() {
            self.counters.registered.fetch_add(1);
            self.map.lock().chunk_mut(part.start).add_registered(part);
        }
    }

    const fn watch(&self) -> Watch {
        match self.transport {
            Transport::Copy => Watch::MissingAndProtected,
            Transport::Move => Watch::Missing,
        }
    }

    pub(crate) fn commit_claim(&self, claim: ClaimId, wanted: &[bool], moved: &mut [bool]) {
        self.fill_holes(claim, wanted);
        let mut guard = self.map.lock();
        let map = &mut *guard;
        for (index, moved) in moved.iter_mut().enumerate() {
            *moved = false;
            let Some(mut entry) = map.entry(claim.0, index) else { continue };
            if entry.dead || entry.from == From::Nowhere || !wanted.get(index).is_some_and(|&wanted| wanted) {
                continue;
            }
            match entry.to {
                Destination::Stay => continue,
                _ if entry.carried.is_none_or(|how| how == Transferred::Failed) => continue,
                Destination::Ram => map.set_home(entry.va, Home::System),
                Destination::Device(page) => {
                    map.set_home(entry.va, Home::Device(page));
                    map.set_frame(page, Frame::Home(entry.va));
                }
            }
            entry.committed = true;
            *moved = true;
            map.set_entry(claim.0, index, entry);
        }
    }

    /// What the device reports carried, but nothing was carried to: a hole that is still one becomes zeros, and
    /// so does what the device forgot. A hole that the CPU filled meanwhile stays where it is.
    fn fill_holes(&self, claim: ClaimId, wanted: &[bool]) {
        self.seal_holes(claim, wanted);
        for (index, entry) in self.entries(claim).iter().enumerate() {
            if !wanted.get(index).is_some_and(|&wanted| wanted) || entry.dead || entry.carried.is_some() {
                continue;
            }
            let how = match (entry.from, entry.to) {
                (From::Hole, Destination::Device(_)) if entry.filled || !self.is_still_hole(claim, index) => {
                    Transferred::Failed
                }
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
        let entries = guard.claims.get_mut(&claim.0).map_or(&mut [][..], |claim| &mut claim.entries);
        for (entry, _) in entries.iter_mut().zip(wanted).filter(|(entry, wanted)| **wanted && entry.from == From::Hole)
        {
            entry.sealed = true;
        }
        // A reader that is at one of them is in the middle of one ioctl.
        while guard.claims.get(&claim.0).is_some_and(|claim| claim.entries.iter().any(|entry| entry.zeroing)) {
            drop(guard);
            task::relax();
            guard = self.map.lock();
        }
    }

    /// Whether a claimed hole is one, of the mapping that was claimed: no change of mappings has begun.
    fn is_still_hole(&self, claim: ClaimId, index: usize) -> bool {
        let mut tries = 0;
        loop {
            let unread = self.gate.hold_events();
            let Some(entry) = self.map.lock().entry(claim.0, index).filter(|entry| !entry.dead) else { return false };
            let (_, resident) = leading_run(entry.va.0, 1);
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
        let entries = self.entries(claim);
        self.undo(claim, &entries);
        let entries = self.entries(claim);
        let mut emptied: Vec<DevicePage> = Vec::new();
        let mut discarded: Vec<HostVa> = Vec::new();
        for entry in &entries {
            let moved_away = entry.committed && entry.carried == Some(Transferred::Moved);
            if let (From::Device(source), true) = (entry.from, (entry.committed || entry.dead) && !moved_away) {
                emptied.push(source);
            }
            if let Destination::Device(target) = entry.to
                && (entry.dead || !entry.committed && (entry.strayed || entry.carried.is_some()))
            {
                emptied.push(target);
            }
            let stays = entry.carried == Some(Transferred::Hole) && entry.from == From::System;
            if entry.committed && stays && !entry.dead && matches!(entry.to, Destination::Device(_)) {
                discarded.push(entry.va);
            }
        }
        for range in runs_of(discarded) {
            // Shared pages cannot be moved away; only moves to VRAM come here, and those are no reader's.
            if !self.discard(range) {
                self.drop_own(range);
            }
        }
        self.empty_frames(&emptied);
        let (freed, late) = self.release(claim, &emptied);
        self.empty_frames(&late);
        self.free_pages(&freed);
        let vas: Vec<HostVa> =
            entries.iter().filter(|entry| entry.from != From::Nowhere).map(|entry| entry.va).collect();
        let chunks: BTreeSet<u64> = vas.iter().map(|va| va.0 / SZ_2M).collect();
        runs_of(vas).for_each(|range| self.program.wake(range));
        self.retire_chunks(chunks);
        self.claims_changed.notify_all();
    }

    /// Unmarks the pages and forgets the claim. Gives the device pages that are free now, and those that died so
    /// late that they have not been emptied yet.
    fn release(&self, claim: ClaimId, emptied: &[DevicePage]) -> (Vec<DevicePage>, Vec<DevicePage>) {
        let mut guard = self.map.lock();
        let map = &mut *guard;
        let entries = map.claims.remove(&claim.0).map_or_else(Vec::new, |claim| claim.entries);
        let (mut freed, mut late) = (Vec::new(), Vec::new());
        let emptied: BTreeSet<DevicePage> = emptied.iter().copied().collect();
        for (index, entry) in entries.iter().enumerate() {
            if map.mark(entry.va) == (Mark::Claimed { claim: claim.0, entry: index }) {
                map.set_mark(entry.va, Mark::Free);
            }
            if let (From::Device(source), true) = (entry.from, entry.committed || entry.dead) {
                if entry.dead && !emptied.contains(&source) {
                    late.push(source);
                }
                map.set_frame(source, Frame::Condemned);
                freed.push(source);
            }
            match entry.to {
                Destination::Device(target) if entry.dead && entry.committed => {
                    if !emptied.contains(&target) {
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

    /// Moves back what was carried and is not wanted.
    fn undo(&self, claim: ClaimId, entries: &[Entry]) {
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
                self.put_back(claim.0, index, leg);
            }
            index += pages;
        }
    }

    pub(crate) fn entries(&self, claim: ClaimId) -> Vec<Entry> {
        self.map.lock().claims.get(&claim.0).map_or_else(Vec::new, |claim| claim.entries.clone())
    }

    /// Hands device pages back to whose they are. With no lock held.
    pub(crate) fn free_pages(&self, pages: &[DevicePage]) {
        for &page in pages {
            let ops = {
                let mut map = self.map.lock();
                map.set_frame(page, Frame::Empty);
                map.arena(page.pagemap).map(|arena| std::sync::Arc::clone(&arena.ops))
            };
            if let Some(ops) = ops {
                ops.page_free(page);
            }
        }
    }
}

impl PageMap {
    pub fn entry(&self, claim: u64, index: usize) -> Option<Entry> {
        self.claims.get(&claim)?.entries.get(index).copied()
    }

    pub fn set_entry(&mut self, claim: u64, index: usize, entry: Entry) {
        if let Some(place) = self.claims.get_mut(&claim).and_then(|claim| claim.entries.get_mut(index)) {
            *place = entry;
        }
    }

    fn is_quarantined(&mut self, range: HostRange) -> bool {
        if self.quarantine.is_empty() {
            return false;
        }
        let now = sync::time::now_ns();
        self.quarantine.retain(|&(_, until)| until > now);
        self.quarantine.iter().any(|(place, _)| place.overlaps(range))
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
