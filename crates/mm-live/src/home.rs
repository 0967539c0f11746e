//! Migrating pages back to system memory without being asked by a fault: before fork, at the end, and for wrappers of libc
//! calls.

use crate::LiveMm;
use crate::books::{Books, Frame, Home, chunk_range};
use crate::transfer::{Purpose, Transfer};
use hostmm::{
    AccessError, ClaimRequest, DevicePage, EventKind, Migration, MmError, MmEvent, OwnerId, PagemapId, Part, Place,
    Toward,
};
use std::sync::Arc;
use sync::time::now_ns;
use units::{HostRange, HostVa, Outcome, SZ_2M};

/// How long an evacuation tries: it meets only what a migration in progress holds back.
const TIMEOUT_NS: u64 = 10_000_000_000;

impl LiveMm {
    /// Brings every page of `range` back and unregisters its chunks: what a wrapper of mremap calls first, because
    /// registration splits VMAs and mremap refuses to go across two. Migrations may begin again at once.
    /// False where some page would not come, or migrations of it kept beginning.
    pub fn migrate_back(&self, range: HostRange) -> bool {
        let end = now_ns() + TIMEOUT_NS;
        let mut tries = self.refusals();
        while self.bring_pages_home_by(range, end) {
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

    /// Brings every page of `range` back, and leaves the registration of its chunks as it is: for memory that shall
    /// migrate no more, or not now. False where some page would not come.
    pub fn bring_pages_home(&self, range: HostRange) -> bool {
        self.bring_pages_home_by(range, now_ns() + TIMEOUT_NS)
    }

    fn bring_pages_home_by(&self, range: HostRange, end: u64) -> bool {
        while let Some((va, page)) = self.first_away(range) {
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
    fn first_away(&self, range: HostRange) -> Option<(HostVa, DevicePage)> {
        self.books.lock().first_away(range)
    }

    /// Runs `change` with all chunks of `range` at home, unregistered, and out of migration, and tells the notifiers around
    /// it where `told` says so: for changes of mappings that the kernel refuses across a registration (it splits VMAs), or
    /// does not report, or of which the events of several threads cannot be put in order (mremap).
    pub fn while_home<R>(&self, range: HostRange, told: Option<EventKind>, change: impl FnOnce() -> R) -> R {
        if self.alive().is_err() {
            return change();
        }
        self.turns.let_pass();
        // A chunk stays registered while any page of it is away.
        let chunks = HostRange::new(range.start.align_down(SZ_2M), range.end.align_up(SZ_2M));
        let hold = self.books.lock().quarantine.hold(chunks);
        self.migrate_back(chunks);
        let result = match told {
            Some(kind) => self.while_told(range, kind, change),
            None => change(),
        };
        self.books.lock().quarantine.release(hold);
        result
    }

    /// Runs `change` as an invalidation of `range`: the notifiers around it are called before, and their sequences are odd until
    /// it is done. For wrappers of munmap: no event tells of memory of which nothing is in VRAM.
    pub fn while_told<R>(&self, range: HostRange, kind: EventKind, change: impl FnOnce() -> R) -> R {
        if self.alive().is_err() {
            return change();
        }
        self.turns.let_pass();
        let begun = self.notifiers.begin(MmEvent { range, kind });
        self.notifiers.notify(&begun);
        let result = change();
        self.notifiers.end(begun);
        result
    }

    /// For wrappers of calls that the kernel tells of, before them: lets those pass who were refused because of such calls.
    pub fn let_pass(&self) {
        if self.alive().is_ok() {
            self.turns.let_pass();
        }
    }

    /// Brings back what an owner has in the chunk of `va`.
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
            self.carry_home(&mut migration);
        }
        self.commit_claim(&mut migration);
        self.finish_claim(&mut migration);
        self.tell_brought_back(&migration, range, now_ns().saturating_sub(start_ns));
        migration.carried() > 0
    }

    /// Tells the pagemaps what has left them; not at the end, which no program asks for. Time is shared by pages, as in a migration from several places.
    fn tell_brought_back(&self, migration: &Migration, range: HostRange, ns: u64) {
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
    fn carry_home(&self, migration: &mut Migration) {
        let Some(id) = migration.id else { return };
        let parts: Vec<HostRange> = migration.parts.iter().map(|part| part.range).collect();
        let mut report = migration.report_from(0);
        for name in parts {
            let transfer = Transfer { claim: id.0, name, purpose: Purpose::Migrate };
            self.carry(transfer, &mut |pages, outcome: Outcome| report.note(pages, outcome));
        }
    }

    /// Stops migrations, waits for those in progress, and brings everything back: `pthread_atfork`'s prepare. A
    /// child inherits no VRAM and no userfaultfd, so what is in VRAM at the fork reads as zeros there. Undone by
    /// [`thaw`](Self::thaw) in the parent, [`after_fork_child`](Self::after_fork_child) in the child. Not to be
    /// called by a thread that is inside a migration. False where some page would not come.
    pub fn bring_all_home(&self) -> bool {
        self.books.lock().frozen += 1;
        loop {
            let chunks: Vec<u64> = self.books.lock().chunks.iter().map(|(number, _)| number).collect();
            let all = chunks.iter().all(|&number| self.migrate_back(chunk_range(number)));
            let deferred = self.has_deferred();
            let mut books = self.books.lock();
            let quiet = books.claims.is_empty() && !deferred && books.chunks.iter().all(|(_, chunk)| chunk.is_idle());
            if !all || quiet || self.alive().is_err() {
                return all;
            }
            self.claims_changed.wait_for(&mut books, 1_000_000);
        }
    }

    /// Lets migrations begin again: `pthread_atfork`'s parent.
    pub fn thaw(&self) {
        {
            let mut books = self.books.lock();
            books.frozen = books.frozen.saturating_sub(1);
        }
        self.claims_changed.notify_all();
    }

    /// In a forked child: the threads are gone, so every call says [`MmError::Gone`] from now on. The program's
    /// memory is all there and works natively. Takes no lock.
    pub fn after_fork_child(&self) {
        self.life.store(crate::LIFE_DEAD);
    }

    /// Ends it: everything migrates back, the readers end, the descriptors may be closed. What would be in VRAM when
    /// they close is lost silently. False where some page would not come; then nothing is ended.
    pub fn stop(&self) -> bool {
        if self.alive().is_err() {
            return false;
        }
        self.silent.store(true);
        if !self.bring_all_home() {
            self.silent.store(false);
            self.thaw();
            return false;
        }
        self.life.store(crate::LIFE_STOPPING);
        self.kernel.kick();
        let readers = core::mem::take(&mut *self.readers.lock());
        readers.into_iter().for_each(sync::JoinHandle::join);
        self.deliver_notices();
        self.life.store(crate::LIFE_DEAD);
        true
    }

    /// Lets go of the pagemaps: they hold the engine, which holds this. After [`stop`](Self::stop), where several
    /// worlds follow each other in one process.
    pub fn let_go(&self) {
        let pagemaps: Vec<_> = self.books.lock().arenas.iter_mut().map(Option::take).collect();
        drop(pagemaps);
    }

    /// Frames that hold bytes, as accounted.
    pub fn resident_frames(&self, id: PagemapId) -> u64 {
        self.books.lock().arena(id).map_or(0, crate::books::Arena::resident)
    }

    /// Frames that hold bytes, as the kernel says: the truth that accounting is compared with.
    pub fn mincore_frames(&self, id: PagemapId) -> u64 {
        self.held(self.places.range(id)).iter().map(|held| held.range.pages() as u64).sum()
    }

    /// Where the page at `va` lives, in VRAM or not. For observers: it may be over when it returns.
    pub fn device_page(&self, va: HostVa) -> Option<DevicePage> {
        match self.books.lock().home(va) {
            Home::Device(page) => Some(page),
            Home::System => None,
        }
    }

    /// A picture of the books for a report on a stall: chunks, marks, claims, queues.
    pub fn dump(&self) -> String {
        // One lock after the other: each is a leaf.
        let books = self.books.lock().dump();
        let faults = format!("{:?}", self.queue.faults.lock());
        let notices = self.queue.notices.lock().len();
        let (pending, stats) = (self.kernel.event_pending(), self.stats());
        format!("{books}faults waiting {faults}, notices {notices}, event pending {pending}\n{stats:?}\n")
    }

    pub(crate) fn alive(&self) -> Result<(), MmError> {
        if self.life.load() == crate::LIFE_DEAD { Err(MmError::Gone) } else { Ok(()) }
    }

    /// Why a frame is empty: an event emptied it for which not all notifiers have been called, the kernel took
    /// back what the program had freed by MADV_FREE, or the translation is stale. An access in flight holds up the
    /// telling, so the frame cannot be free again meanwhile.
    pub(crate) fn explain_empty(&self, page: DevicePage) -> AccessError {
        if self.books.lock().frame(page) == Some(Frame::Cancelled) {
            self.counters.told_late.add(1);
            AccessError::Again
        } else if self.refill(page) {
            AccessError::Again
        } else {
            self.counters.stale.add(1);
            AccessError::Empty
        }
    }
}

impl Books {
    /// The first page of `range` that is in VRAM.
    fn first_away(&self, range: HostRange) -> Option<(HostVa, DevicePage)> {
        let away = |number: u64| {
            let part = chunk_range(number).intersect(range)?;
            self.known(part).into_iter().find_map(|(run, page)| match page.home {
                Home::Device(first) => Some((run.start, first)),
                Home::System => None,
            })
        };
        self.chunks_at(range).find_map(|(number, _)| away(number))
    }

    fn dump(&self) -> String {
        let mut text = String::new();
        for (number, chunk) in self.chunks.iter() {
            text += &format!("chunk {} registered {:?}", chunk_range(number), chunk.registered);
            text += &format!(" runs {:?}\n", self.known(chunk_range(number)));
        }
        for (id, claim) in self.claims.iter() {
            text += &format!("claim {id}: {:?}\n", claim.entries);
        }
        text
    }
}
