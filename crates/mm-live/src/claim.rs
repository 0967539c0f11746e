//! The first half of a migration: claim and stage (Linux: `migrate_vma_setup`, `migrate_device_range`).
//!
//! A claim is a list of entries, one a run; the pages' marks name the claim, so that an event or a fault that meets a page
//! finds its migration. Pages that an event takes away while they are claimed are *cancelled*: the claim carries them nowhere
//! any more, and its `finish` alone frees what they held, on both sides.
//!
//! A claim towards VRAM asks the kernel once, which pages hold something; a claim of pages in VRAM asks the books.

use crate::LiveMm;
use crate::books::{Books, Claim, Entry, Frame, From, Mark, Page, Residency};
use crate::held::{NOTHING, overlapping};
use crate::kernel::{Errno, Held};
use hostmm::{
    ClaimId, ClaimRequest, Claimed, DeviceRun, EventKind, Migration, MmError, MmEvent, PagemapId, Place, Run, Toward,
};
use sync::time::now_ns;
use units::{HostFrame, HostRange, HostVa, SZ_2M, bytes_of};

/// How long a claim waits for a freeze to end before it says [`MmError::Stale`].
const TIMEOUT_NS: u64 = 10_000_000;

impl LiveMm {
    /// A new claim. Towards VRAM none begins while a fork is near; towards system memory is what the fork waits for.
    fn enter(&self, toward: Toward) -> Result<u64, MmError> {
        self.alive()?;
        let mut books = self.books.lock();
        if books.frozen > 0 && toward != Toward::Ram {
            self.claims_changed.wait_for(&mut books, TIMEOUT_NS);
            if books.frozen > 0 {
                return Err(MmError::Stale);
            }
        }
        books.last_claim += 1;
        let id = books.last_claim;
        let entries = books.spare.pop().unwrap_or_default();
        books.claims.get_or_insert_with(id, || Claim { entries, toward, has_waiters: false });
        Ok(id)
    }

    pub(crate) fn claim_range(
        &self,
        request: &ClaimRequest,
        kind: EventKind,
        migration: &mut Migration,
    ) -> Result<Claimed, MmError> {
        // An event that has been read but not settled would kill what is claimed now, at the same place.
        self.wait_open();
        let movable = match request.toward {
            Toward::Ram => false,
            Toward::Vram(id) if self.books.lock().is_all_in(request.range, id) => return Ok(Claimed::There),
            Toward::Vram(_) => self.is_movable(request.range)?,
        };
        let id = self.enter(request.toward)?;
        migration.begin(ClaimId(id));
        let begun = self.notifiers.begin(MmEvent { range: request.range, kind });
        self.notifiers.notify(&begun);
        let collected = self.collect(id, request, movable, migration);
        self.notifiers.end(begun);
        if collected.is_err() {
            self.finish_claim(migration);
        }
        collected.map(|()| Claimed::Begun)
    }

    /// Whether pages of `range` can leave system memory. What is watched lies in one mapping that can.
    fn is_movable(&self, range: HostRange) -> Result<bool, MmError> {
        let watched = self.books.lock().chunk(range.start).and_then(|chunk| chunk.watched(range.start));
        if watched.is_some_and(|part| part.covers(range)) {
            return Ok(self.may_migrate(range));
        }
        let vma = self.vma_over(range.start, range).ok_or(MmError::NoVma)?;
        if vma.range.covers(range) { Ok(vma.anonymous) } else { Err(MmError::Stale) }
    }

    /// Marks the pages. `Stale` where notifiers are still to be called for something there.
    fn collect(
        &self,
        id: u64,
        request: &ClaimRequest,
        movable: bool,
        migration: &mut Migration,
    ) -> Result<(), MmError> {
        let mut rest = request.range;
        while !rest.is_empty() {
            let mut held = [NOTHING; 16];
            let (found, end, serial) = if movable && self.books.lock().has_free(rest) {
                let serial = self.begin_look();
                let (found, end) = self.kernel.scan(rest, &mut held);
                (found, end.min(rest.end), serial)
            } else {
                (0, rest.end, 0)
            };
            let part = HostRange::new(rest.start, end);
            let seen = movable.then_some(Seen { held: &held[..found], serial });
            let mut books = self.books.lock();
            if (self.rules.awaits_notices)(books.undelivered.meets(part)) {
                return Err(MmError::Stale);
            }
            books.collect(id, request, part, seen, migration);
            rest.start = end;
        }
        Ok(())
    }

    pub(crate) fn claim_frames(&self, pages: &[DeviceRun], migration: &mut Migration) -> Result<(), MmError> {
        let id = self.enter(Toward::Ram)?;
        migration.begin(ClaimId(id));
        let told: Vec<_> = self.books.lock().mapped_at(pages).into_iter().map(|(range, _)| range).collect();
        let begun: Vec<_> = told
            .iter()
            .map(|range| self.notifiers.begin(MmEvent { range: *range, kind: EventKind::Clear }))
            .inspect(|begun| self.notifiers.notify(begun))
            .collect();
        {
            let mut books = self.books.lock();
            for (range, first) in books.mapped_at(pages) {
                // What was mapped there meanwhile a device may have bound since: its notifiers were not called for it.
                for part in told.iter().filter_map(|told| range.intersect(*told)) {
                    books.collect_device(id, part, first.add(range.page_index(part.start) as u64), migration);
                }
            }
        }
        begun.into_iter().for_each(|begun| self.notifiers.end(begun));
        Ok(())
    }

    pub(crate) fn stage_claim(&self, migration: &mut Migration) -> Result<(), MmError> {
        let Some(ClaimId(id)) = migration.id else { return Ok(()) };
        let occupied = self.books.lock().stage(id, migration);
        self.counters.occupied.add(occupied);
        let mut last = None;
        let parts = || migration.parts.iter().filter(|part| matches!(part.to, Some(Place::Device(_))));
        let mut refused = Vec::new();
        for chunk in parts().flat_map(|part| chunks_of(part.range)) {
            if last.replace(chunk) == Some(chunk) {
                continue;
            }
            match self.register(chunk) {
                Err(Errno::NOMEM) => {
                    self.books.lock().unstage(id, migration, None);
                    return Err(MmError::NoMemory);
                }
                Err(_) => refused.push(chunk),
                Ok(()) => {}
            }
        }
        refused.into_iter().for_each(|chunk| self.books.lock().unstage(id, migration, Some(chunk)));
        Ok(())
    }
}

/// What a scan saw of a range.
#[derive(Clone, Copy)]
struct Seen<'a> {
    held: &'a [Held],
    /// The quarantine's count when it began.
    serial: u64,
}

impl Books {
    /// Whether all of `range` lives in that pagemap, and nobody is at it.
    fn is_all_in(&self, range: HostRange, id: PagemapId) -> bool {
        let is_there = |page: Page| matches!(page.residency, Residency::Device(page) if page.pagemap == id);
        self.runs(range).all(|(_, page)| is_there(page) && page.mark == Mark::Free)
    }

    /// Whether `range` has pages in system memory that nobody is at.
    fn has_free(&self, range: HostRange) -> bool {
        self.runs(range).any(|(_, page)| page.residency == Residency::System && page.mark == Mark::Free)
    }

    /// Claims what can be claimed of `range`. Pages of system memory only where they were seen.
    fn collect(
        &mut self,
        id: u64,
        request: &ClaimRequest,
        range: HostRange,
        seen: Option<Seen<'_>>,
        migration: &mut Migration,
    ) {
        if let Some(Seen { held, serial }) = seen {
            self.quarantine.settle_absent(range, held, serial);
        }
        let kept = seen.map_or_else(Vec::new, |_| self.quarantine.within(range, now_ns()));
        let mut rest = range;
        while !rest.is_empty() {
            let (run, page) = self.run(rest);
            rest.start = run.end;
            match (page.residency, page.mark, seen) {
                (Residency::Device(first), Mark::Free, _)
                    if self.arena(first.pagemap).is_some_and(|arena| arena.owner == request.owner) =>
                {
                    self.add_entry(id, Entry::new(run, From::Device(first), false), migration);
                }
                (Residency::System, Mark::Free, Some(Seen { held, .. })) => {
                    self.collect_system(id, run, held, &kept, migration);
                }
                _ => {}
            }
        }
    }

    /// Claims a run of system memory: what holds something, and the holes between.
    fn collect_system(
        &mut self,
        id: u64,
        run: HostRange,
        held: &[Held],
        kept: &[HostRange],
        migration: &mut Migration,
    ) {
        let mut at = run.start;
        while at < run.end {
            let rest = HostRange::new(at, run.end);
            let quarantined = overlapping(kept.iter().copied(), rest);
            if let Some(part) = quarantined.filter(|part| part.start == at) {
                at = part.end;
                continue;
            }
            let end = quarantined.map_or(run.end, |part| part.start);
            let rest = HostRange::new(at, end);
            let next = held.iter().find_map(|held| Some((held.range.intersect(rest)?, held.huge)));
            let entry = match next {
                Some((part, huge)) if part.start == at => Entry::new(part, From::System, huge),
                Some((part, _)) => Entry::new(HostRange::new(at, part.start), From::Hole, false),
                None => Entry::new(rest, From::Hole, false),
            };
            at = entry.range().end;
            self.add_entry(id, entry, migration);
        }
    }

    fn add_entry(&mut self, id: u64, entry: Entry, migration: &mut Migration) {
        let range = entry.range();
        let place = (entry.from != From::Hole).then(|| entry.source());
        self.set_mark(range, Mark::Claimed(id));
        if let Some(claim) = self.claims.get_mut(id) {
            claim.entries.push(entry);
            migration.collect(Run { range, place });
        }
    }

    /// Where pages of VRAM are mapped: runs, with the first frame of each.
    fn mapped_at(&self, pages: &[DeviceRun]) -> Vec<(HostRange, hostmm::DevicePage)> {
        let mut found = Vec::new();
        for DeviceRun { first, pages } in pages {
            let mut done = 0;
            while let Some((run, frame, _)) = self.frame_run(first.add(done as u64), pages - done) {
                if let Frame::Backs(va) = frame {
                    found.push((HostRange::sized(va, bytes_of(run)), first.add(done as u64)));
                }
                done += run;
                if done >= *pages {
                    break;
                }
            }
        }
        found
    }

    /// Claims pages of VRAM that are mapped there and that nobody is at.
    fn collect_device(&mut self, id: u64, range: HostRange, first: hostmm::DevicePage, migration: &mut Migration) {
        let mut rest = range;
        while !rest.is_empty() {
            let (run, page) = self.run(rest);
            rest.start = run.end;
            let expected = first.add(range.page_index(run.start) as u64);
            let is_there = page == (Page { residency: Residency::Device(expected), mark: Mark::Free });
            if is_there && !self.undelivered.meets(run) {
                self.add_entry(id, Entry::new(run, From::Device(expected), false), migration);
            }
        }
    }

    /// Names the destinations; gives how many pages of them were in use, and stay where they are.
    fn stage(&mut self, id: u64, migration: &mut Migration) -> u64 {
        let Some(claim) = self.claims.get_mut(id) else { return 0 };
        let mut claim = core::mem::replace(claim, Claim { entries: Vec::new(), ..*claim });
        let (mut next, mut occupied) = (0, 0);
        for part in &mut migration.parts {
            match (claim.toward, part.to) {
                (Toward::Ram, _) => {
                    part.to = Some(Place::Host(HostFrame(part.range.start.page_number())));
                    next = claim.update_named(next, part.range, |entry| {
                        entry.to = Some(Place::Host(HostFrame(entry.va.page_number())));
                    });
                }
                (Toward::Vram(_), Some(Place::Device(first))) if self.is_empty_run(first, part.pages()) => {
                    next = claim.update_named(next, part.range, |entry| {
                        let page = first.add(part.range.page_index(entry.claimed) as u64);
                        if !entry.cancelled {
                            entry.to = Some(Place::Device(page));
                            self.set_frames(page, entry.pages, Frame::Staged(entry.va));
                        }
                    });
                }
                (Toward::Vram(_), Some(_)) => {
                    occupied += part.pages() as u64;
                    part.to = None;
                }
                (Toward::Vram(_), None) => {}
            }
        }
        if let Some(place) = self.claims.get_mut(id) {
            *place = claim;
        }
        occupied
    }

    fn is_empty_run(&self, first: hostmm::DevicePage, pages: usize) -> bool {
        let mut done = 0;
        while done < pages {
            match self.frame_run(first.add(done as u64), pages - done) {
                Some((run, Frame::Empty, false)) if run > 0 => done += run,
                _ => return false,
            }
        }
        true
    }

    /// Takes destinations back: those of one chunk, or all.
    fn unstage(&mut self, id: u64, migration: &mut Migration, chunk: Option<HostVa>) {
        let concerns = |va: HostVa| chunk.is_none_or(|chunk| va.align_down(SZ_2M) == chunk);
        for part in migration.parts.iter_mut().filter(|part| chunks_of(part.range).any(concerns)) {
            part.to = None;
            let mut frames = Vec::new();
            if let Some(claim) = self.claims.get_mut(id) {
                claim.update_named(0, part.range, |entry| {
                    frames.extend(entry.target_page().map(|page| (page, entry.pages)));
                    entry.to = None;
                });
            }
            frames.into_iter().for_each(|(page, pages)| self.set_frames(page, pages, Frame::Empty));
        }
    }
}

/// The 2M blocks that `range` meets.
fn chunks_of(range: HostRange) -> impl Iterator<Item = HostVa> {
    let first = range.start.align_down(SZ_2M);
    (0..).map(move |index| first.add(index * SZ_2M)).take_while(move |chunk| *chunk < range.end)
}
