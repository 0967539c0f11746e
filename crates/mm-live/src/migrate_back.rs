//! Migrating pages back to system memory without a fault that asks for it: before a fork, at the end, and for wrappers of
//! libc calls.

use crate::books::{Books, Entry, Residency, chunk_range};
use crate::transfer::{Purpose, Transfer};
use crate::{LiveMm, Transport};
use hostmm::{ClaimRequest, DevicePage, EventKind, Migration, MmEvent, OwnerId, PagemapId, Part, Place, Toward};
use std::sync::Arc;
use sync::time::now_ns;
use units::{HostRange, HostVa, Outcome, SZ_2M};

/// How long an evacuation tries: it meets only what a migration in progress holds back.
const TIMEOUT_NS: u64 = 10_000_000_000;
/// How long a wait for a claim's end sleeps before it looks again, at most.
const CLAIM_LOOK_NS: u64 = 1_000_000;

impl LiveMm {
    /// Migrates every page of `range` back and unregisters its chunks: what a wrapper of mremap calls first, because
    /// registration splits VMAs and mremap refuses to go across two. Migrations may begin again at once.
    /// False where some page would not come, or migrations of it kept beginning.
    pub fn migrate_back(&self, range: HostRange) -> bool {
        let end = now_ns() + TIMEOUT_NS;
        let mut tries = self.refusals();
        while self.migrate_pages_back_by(range, end) {
            let registered = self.books.lock().chunks_in(range);
            self.retire_chunks(registered);
            if self.is_unregistered(range) {
                return true;
            }
            if now_ns() > end {
                return false;
            }
            // An event on its way, or a migration that begins or ends: the registration goes when it is over.
            tries.forget();
            self.yield_to_raiser(&mut tries);
        }
        false
    }

    /// Whether nothing of `range` is registered. Who ends a registration takes the chunk out of the books first and asks the
    /// kernel then, both under this lock.
    fn is_unregistered(&self, range: HostRange) -> bool {
        let _ended = self.registration.lock();
        self.books.lock().chunks_at(range).next().is_none()
    }

    /// Migrates every page of `range` back, and leaves the registration of its chunks as it is: for memory that shall
    /// migrate no more, or not now. False where some page would not come.
    pub fn migrate_pages_back(&self, range: HostRange) -> bool {
        self.migrate_pages_back_by(range, now_ns() + TIMEOUT_NS)
    }

    fn migrate_pages_back_by(&self, range: HostRange, end: u64) -> bool {
        while let Some((va, page)) = self.first_in_vram(range) {
            if self.alive().is_err() || now_ns() > end {
                return false;
            }
            let owner = self.books.lock().arena(page.pagemap).map_or(OwnerId(0), |arena| arena.owner);
            if !self.evacuate(va, range, owner) {
                sync::yield_now();
            }
        }
        true
    }

    /// The first page of `range` that is in VRAM.
    fn first_in_vram(&self, range: HostRange) -> Option<(HostVa, DevicePage)> {
        self.books.lock().first_in_vram(range)
    }

    /// Runs `change` with all chunks of `range` in system memory, unregistered, and out of migration, and as an invalidation
    /// of that kind where there is one: for changes of mappings that the kernel refuses across a registration (it splits VMAs), or
    /// does not report, or of which the events of several threads cannot be put in order (mremap).
    pub fn while_in_system<R>(&self, range: HostRange, kind: Option<EventKind>, change: impl FnOnce() -> R) -> R {
        if self.alive().is_err() {
            return change();
        }
        self.turns.let_pass();
        // A chunk stays registered while any page of it is in VRAM.
        let chunks = HostRange::new(range.start.align_down(SZ_2M), range.end.align_up(SZ_2M));
        let hold = self.books.lock().quarantine.hold(chunks);
        self.migrate_back(chunks);
        let result = match kind {
            Some(kind) => self.while_invalidated(range, kind, change),
            None => change(),
        };
        self.books.lock().quarantine.release(hold);
        result
    }

    /// Runs `change` as an invalidation of `range`: the notifiers around it are called before, and their sequences are odd until
    /// it is done. For wrappers of munmap: the kernel raises no event for memory of which nothing is in VRAM.
    pub fn while_invalidated<R>(&self, range: HostRange, kind: EventKind, change: impl FnOnce() -> R) -> R {
        if self.alive().is_err() {
            return change();
        }
        self.turns.let_pass();
        let hold = (self.transport == Transport::Copy).then(|| self.keep_copies_out(range));
        let begun = self.notifiers.begin(MmEvent { range, kind });
        self.notifiers.notify(&begun);
        let result = change();
        self.notifiers.end(begun);
        if let Some(hold) = hold {
            self.books.lock().quarantine.release(hold);
        }
        result
    }

    /// No page of `range` is on its way to VRAM, and none sets out until the hold is released. A copy's source is dropped by its address, and
    /// would meet what is mapped there next; a move is refused by the kernel then.
    fn keep_copies_out(&self, range: HostRange) -> u64 {
        let mut books = self.books.lock();
        let hold = books.quarantine.hold(range);
        while self.alive().is_ok() && books.is_leaving(range) {
            self.claims_changed.wait_for(&mut books, CLAIM_LOOK_NS);
        }
        hold
    }

    /// For wrappers of calls for which the kernel raises an event, before them: lets those pass who were refused because of such calls.
    pub fn let_pass(&self) {
        if self.alive().is_ok() {
            self.turns.let_pass();
        }
    }

    /// Migrates back what an owner has in the chunk of `va`.
    fn evacuate(&self, va: HostVa, within: HostRange, owner: OwnerId) -> bool {
        let start_ns = now_ns();
        let Some(vma) = self.vma_at(va) else {
            // Its munmap has not been read yet.
            self.drain();
            self.kernel.kick();
            return false;
        };
        let window = HostRange::around(va, SZ_2M).intersect(vma.range).and_then(|part| part.intersect(within));
        let Some(range) = window else { return false };
        let request = ClaimRequest { range, owner, toward: Toward::Ram, fault: None };
        let mut migration = Migration::default();
        if self.claim_range(&request, EventKind::Clear, &mut migration).is_err() {
            return false;
        }
        if self.stage_claim(&mut migration).is_ok() {
            self.carry_back(&mut migration);
        }
        self.commit_claim(&mut migration);
        self.finish_claim(&mut migration);
        self.report_brought_back(&migration, range, now_ns().saturating_sub(start_ns));
        migration.carried() > 0
    }

    /// Reports to the pagemaps what has left them; not at the end, which no program asks for. Time is shared by pages, as in a
    /// migration from several places.
    fn report_brought_back(&self, migration: &Migration, range: HostRange, ns: u64) {
        if self.silent.load() {
            return;
        }
        let carried = migration.carried();
        let pages_of = |id: PagemapId| {
            let from_it = |part: &&Part| matches!(part.from, Some(Place::Device(page)) if page.pagemap == id);
            migration.parts.iter().filter(from_it).filter(|part| part.carried()).map(Part::pages).sum::<usize>()
        };
        let count = self.books.lock().arenas.len();
        for id in (0..count).map(|id| PagemapId(id as u16)) {
            let pages = pages_of(id);
            if pages == 0 {
                continue;
            }
            let ops = self.books.lock().arena(id).map(|arena| Arc::clone(&arena.ops));
            if let Some(ops) = ops {
                ops.brought_back(range, pages, ns * pages as u64 / carried.max(1) as u64);
            }
        }
    }

    /// What a device's copy engine does otherwise.
    fn carry_back(&self, migration: &mut Migration) {
        let Some(id) = migration.id else { return };
        let parts: Vec<HostRange> = migration.parts.iter().map(|part| part.range).collect();
        let mut report = migration.report_from(0);
        for name in parts {
            let transfer = Transfer { claim: id.0, name, purpose: Purpose::Migrate };
            self.carry(transfer, &mut |pages, outcome: Outcome| report.note(pages, outcome));
        }
    }
}

impl Books {
    /// Whether pages of `range`, as it is now or was when they were claimed, are claimed for VRAM.
    fn is_leaving(&self, range: HostRange) -> bool {
        let meets = |entry: &Entry| entry.range().overlaps(range) || entry.name().overlaps(range);
        self.claims.iter().any(|(_, claim)| claim.toward != Toward::Ram && claim.entries.iter().any(meets))
    }

    /// The first page of `range` that is in VRAM.
    fn first_in_vram(&self, range: HostRange) -> Option<(HostVa, DevicePage)> {
        let away = |number: u64| {
            let part = chunk_range(number).intersect(range)?;
            self.known(part).into_iter().find_map(|(run, page)| match page.residency {
                Residency::Device(first) => Some((run.start, first)),
                Residency::System => None,
            })
        };
        self.chunks_at(range).find_map(|(number, _)| away(number))
    }
}
