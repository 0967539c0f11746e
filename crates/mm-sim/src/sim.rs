//! The simulated mm itself: its lock, its invalidations, and the joint's trait.

use crate::config::{Config, Injection};
use crate::event::{Counters, Event};
use crate::footprint::{self, StatePart};
use crate::notifier::Invalidation;
use crate::space::Entry;
use crate::state::State;
use hostmm::{
    ClaimRequest, Claimed, DevicePage, DeviceRun, EventKind, HostMm, Migration, MmError, MmEvent, NotifierId,
    NotifierOps, OwnerId, PagemapId, PagemapOps, Place, Seq, Vma, Walk, WalkRun,
};
use std::sync::Arc;
use sync::rank::{self, Rank};
use sync::{Condvar, Mutex, MutexGuard};
use units::{HostFrame, HostRange, HostVa};

/// One simulated process' memory. See the crate's header. A scene ends with [`exit`](Sim::exit).
pub struct Sim {
    state: Mutex<State>,
    /// Something changed that a thread may wait for, but for what follows.
    pub(crate) changed: Condvar,
    /// A message is there, or a kick.
    pub(crate) messages: Condvar,
    /// An event was read.
    pub(crate) read: Condvar,
    /// Threads that wait for a page were woken.
    pub(crate) woken: Condvar,
}

/// The state, held.
pub(crate) type Locked<'s> = MutexGuard<'s, State>;

impl Sim {
    /// An empty process.
    pub fn new(config: Config) -> Arc<Self> {
        Arc::new(Self {
            state: rank::mutex(Rank::LEAF, State::new(config)),
            changed: Condvar::new(),
            messages: Condvar::new(),
            read: Condvar::new(),
            woken: Condvar::new(),
        })
    }
    /// Where the page at `at` is: a look from outside of the program, which touches nothing.
    pub fn residency(&self, at: HostVa) -> Option<Place> {
        let state = self.lock();
        footprint::tell(&state, [StatePart::Block(at).read()]);
        state.residency(at.page())
    }
    /// Where each page of `range` is, and whether a store must be told of first.
    pub fn pages(&self, range: HostRange) -> Vec<(Option<Place>, bool)> {
        let state = self.lock();
        let look = |at| {
            let protected =
                |entry| matches!(entry, Entry::System { write: false, .. } | Entry::Device { write: false, .. });
            (state.residency(at), state.space.entry(at).is_some_and(protected))
        };
        (0..range.pages()).map(|page| look(range.page_at(page))).collect()
    }
    /// Whether the page at `at` is on its way: a CPU that touches it waits.
    pub fn is_moving(&self, at: HostVa) -> bool {
        matches!(self.lock().space.entry(at.page()), Some(Entry::Migration { .. }))
    }
    /// Whether every page of `range` lies in a mapping.
    pub fn is_mapped(&self, range: HostRange) -> bool {
        let state = self.lock();
        (0..range.pages()).all(|page| state.space.vma(range.page_at(page)).is_some())
    }
    /// What happened so far, counted.
    pub fn counters(&self) -> Counters {
        self.lock().counters
    }
    /// What happened since the last call, where the configuration keeps it.
    pub fn take_log(&self) -> Vec<Event> {
        core::mem::take(&mut self.lock().log)
    }
    /// Checks every book against every other: frames and their references, pages of VRAM and their one mapping,
    /// entries and VMAs, sequence counts. May be called at any moment.
    pub fn check(&self) -> Result<(), String> {
        self.lock().check()
    }
    /// Another object of the bytes of one; each is destroyed by whom it was made for. `None`: there is no such object.
    pub fn adopt_object(&self, first: HostFrame, pages: u64) -> Option<HostFrame> {
        let mut state = self.lock();
        let frames = || (0..pages).map(|page| first.add(page));
        frames().all(|frame| state.objects.contains_key(&frame)).then(|| {
            for frame in frames() {
                state.objects.entry(frame).and_modify(|count| *count += 1);
                state.frames.share(frame);
            }
            first
        })
    }
    /// Pages of buffer objects that were not destroyed.
    pub fn object_frames(&self) -> usize {
        self.lock().objects.len()
    }
    /// Migrations that were not finished.
    pub fn claims_in_progress(&self) -> usize {
        self.lock().claims.iter().count()
    }
    /// The same, and how often each thing may still go wrong.
    pub fn claims_and_injection(&self) -> (usize, Injection) {
        let state = self.lock();
        (state.claims.iter().count(), state.injection)
    }
    /// What may go wrong from now on.
    pub fn inject(&self, injection: Injection) {
        self.lock().injection = injection;
    }
    /// The next `count` migrations back find no memory at their `stage`.
    pub fn inject_shortage(&self, count: u32) {
        self.lock().shortages += count;
    }
    /// Somebody takes a passing reference of the frame at `at` (or claimed from there): the next attempt to
    /// commit or move this page fails. Whether there is such a frame.
    pub fn inject_race(&self, at: HostVa) -> bool {
        let mut state = self.lock();
        let frame = match state.residency(at.page()) {
            Some(Place::Host(frame)) => state.mapped_frame(at.page()).unwrap_or(frame),
            None | Some(Place::Device(_)) => return false,
        };
        state.frames.get_mut(frame).map(|held| held.raced = true).is_some()
    }

    /// Takes the lock.
    pub(crate) fn lock(&self) -> Locked<'_> {
        self.state.lock()
    }
    /// Takes the lock for a look at no part of the state.
    fn looking(&self) -> Locked<'_> {
        let state = self.lock();
        footprint::tell(&state, []);
        state
    }
    /// Begins an invalidation: counts move on, callbacks run. Call without the lock.
    pub(crate) fn begin(&self, event: MmEvent) -> Invalidation {
        let mut state = self.lock();
        state.note(Event::Told(event));
        let (invalidation, touched) = state.notifiers.begin(event.range);
        footprint::tell(&state, touched.iter().map(|id| StatePart::Count(*id).written()));
        drop(state);
        self.call(&touched, &event);
        invalidation
    }
    /// Runs the callbacks of an invalidation that has begun. Call without the lock.
    pub(crate) fn call(&self, touched: &[NotifierId], event: &MmEvent) {
        // How many callbacks run is asked by who removes a notifier, under more than a look.
        for id in touched.iter().copied() {
            let ops = self.looking().notifiers.call(id);
            if let Some(ops) = ops {
                ops.invalidate(event);
                let mut state = self.looking();
                state.notifiers.called(id);
                self.changed.notify_all_held(&state);
            }
        }
    }
    /// Ends an invalidation, after the change was made under this very hold of the lock.
    pub(crate) fn end(&self, state: &mut Locked<'_>, invalidation: Invalidation) {
        state.notifiers.end(invalidation);
        self.changed.notify_all_held(state);
    }
    /// Tells what [`end`](Self::end) changes.
    pub(crate) fn counts(state: &State, invalidation: &Invalidation) -> impl Iterator<Item = sync::Told> {
        state.notifiers.held_by(invalidation).iter().map(|id| StatePart::Count(*id).written())
    }
    /// Tells the pagemaps of pages that nothing maps any more. Call without the lock.
    pub(crate) fn free_pages(&self, pages: &[DevicePage]) {
        for run in pages.chunk_by(|page, next| *next == page.add(1)) {
            let mut state = self.lock();
            run.iter().for_each(|&page| state.note(Event::Freed(page)));
            footprint::tell(&state, []);
            let ops = state.vram.pagemap(run[0].pagemap).map(|map| map.ops.clone());
            drop(state);
            if let Some(ops) = ops {
                ops.folio_free(run[0], run.len());
            }
        }
    }

    /// Takes the mmap lock for reading: nobody changes mappings until [`leave`](Sim::leave).
    pub(crate) fn read_mappings(&self) -> Locked<'_> {
        let mut state = self.lock();
        if state.injection.slow_ns > 0 {
            let slow_ns = state.injection.slow_ns;
            drop(state);
            sync::time::sleep_ns(slow_ns);
            state = self.lock();
        }
        while state.mmap_lock.writer {
            self.changed.wait(&mut state);
        }
        state.mmap_lock.readers += 1;
        state
    }
    /// Gives it back.
    pub(crate) fn leave(&self, state: &mut Locked<'_>) {
        state.mmap_lock.readers -= 1;
        self.changed.notify_all_held(state);
    }
    /// Takes the mmap lock for writing.
    pub(crate) fn write_mappings(&self) -> Locked<'_> {
        let mut state = self.lock();
        while state.mmap_lock.writer || state.mmap_lock.readers > 0 {
            self.changed.wait(&mut state);
        }
        state.mmap_lock.writer = true;
        state
    }
    /// Gives it back.
    pub(crate) fn wrote_mappings(&self, mut state: Locked<'_>) {
        state.mmap_lock.writer = false;
        self.changed.notify_all_held(&state);
    }

    /// The process ends: notifiers are called, every page is freed. Idempotent.
    pub fn exit(&self) {
        let everything = HostRange::new(HostVa(0), HostVa(!0));
        let invalidation = self.begin(MmEvent { range: everything, kind: EventKind::Release });
        let mut state = self.lock();
        state.space.cut_vmas(everything);
        let freed = state.zap(everything);
        self.end(&mut state, invalidation);
        drop(state);
        self.free_pages(&freed);
        self.lock().vram.clear();
    }
}

impl HostMm for Sim {
    fn next_vma(&self, addr: HostVa) -> Option<Vma> {
        self.looking().space.next_vma(addr).map(|mapped| mapped.vma)
    }
    fn pagemap_insert(&self, id: PagemapId, owner: OwnerId, frames: u64, ops: Arc<dyn PagemapOps>) {
        self.lock().vram.insert(id, owner, frames, ops);
    }
    fn notifier_insert(&self, range: HostRange, ops: Arc<dyn NotifierOps>) -> Result<NotifierId, MmError> {
        Ok(self.lock().notifiers.insert(range, ops))
    }
    fn notifier_remove(&self, id: NotifierId) {
        let mut state = self.lock();
        while !state.notifiers.remove(id) {
            self.changed.wait(&mut state);
        }
    }
    fn read_begin(&self, id: NotifierId) -> Seq {
        let mut state = self.lock();
        loop {
            footprint::tell(&state, [StatePart::Count(id).read()]);
            if let Some(seq) = state.notifiers.read_begin(id) {
                return seq;
            }
            self.changed.wait(&mut state);
        }
    }
    fn read_retry(&self, id: NotifierId, seq: Seq) -> bool {
        let state = self.lock();
        footprint::tell(&state, [StatePart::Count(id).read()]);
        state.notifiers.read_retry(id, seq)
    }
    fn walk(&self, walk: &Walk, runs: &mut Vec<WalkRun>) -> Result<(), MmError> {
        self.walk_range(walk, runs)
    }
    fn claim(&self, request: &ClaimRequest, migration: &mut Migration) -> Result<Claimed, MmError> {
        self.claim_range(request, migration)
    }
    fn claim_device(&self, pages: &[DeviceRun], migration: &mut Migration) -> Result<(), MmError> {
        self.claim_pages(pages, migration);
        Ok(())
    }
    fn stage(&self, migration: &mut Migration) -> Result<(), MmError> {
        let mut state = self.lock();
        let staged = crate::migrate::stage(&mut state, migration);
        let aimed = migration.parts.iter().flat_map(|part| (0..part.pages()).filter_map(|page| part.to_at(page)));
        if staged.is_ok() {
            footprint::tell(&state, aimed.map(|place| StatePart::Bytes(place).written()));
        }
        staged
    }
    fn commit(&self, migration: &mut Migration) {
        self.commit_claim(migration);
    }
    fn finish(&self, migration: &mut Migration) {
        if let Some(claim) = migration.id.take() {
            self.finish_claim(claim);
        }
    }
}
