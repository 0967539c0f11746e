//! The program's side of userfaultfd: faults and events that reader tasks serve.
//!
//! A CPU thread that misses a page posts a fault and waits. A thread that changes mappings posts an event in
//! the same step as the change (DONTNEED: before it) and waits until it is *read*. Events are taken in by
//! whoever comes first, reader or mover, in one step: frames whose mapping went are emptied, pages of claims are
//! spoiled, the sequences of the notifiers become odd, and a notice is queued. Readers deliver notices later:
//! callbacks, sequences even, `folio_free`. So a device never reaches a page of VRAM after the call that took its
//! mapping has returned: it is told to try `Again` until the notice is delivered, and new translations wait.
//!
//! Readers set a fault aside while the page is claimed; they wait for nothing. What DONTNEED is about to drop
//! the event drops already, since a page migrated between event and zap would survive; a page that cannot be
//! dropped is kept out of migrations for a while instead.
//!
//! Posting in the same step as the change is kinder than the kernel, where another thread may map a hole
//! between the two (docs/hostmm.md, what the simulated worlds simplify).

use crate::Event;
use crate::notifier::Invalidation;
use crate::sim::{Locked, Sim};
use crate::space::Entry;
use crate::state::State;
use hostmm::{CpuFault, DevicePage, EventKind, FaultOutcome, MmEvent, NotifierId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use sync::time;
use units::{HostRange, HostVa, SZ_4K};

/// For how long a reader leaves a fault that was deferred.
const DEFER_NS: u64 = 20_000;

/// A change of mappings that readers are to tell of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// Gone.
    Unmap(HostRange),
    /// Moved.
    Remap {
        /// From here.
        from: HostRange,
        /// To here.
        to: HostRange,
    },
    /// About to be emptied.
    Remove(HostRange),
}

/// A CPU thread that waits for a page.
#[derive(Clone, Copy, Debug)]
struct Fault {
    ticket: u64,
    at: HostVa,
    write: bool,
    not_before_ns: u64,
}

/// What the notifiers are still to be told of.
struct Notice {
    event: MmEvent,
    invalidation: Invalidation,
    touched: Vec<NotifierId>,
    freed: Vec<DevicePage>,
}

/// Faults, events and who waits for them.
#[derive(Default)]
pub(crate) struct Uffd {
    events: VecDeque<Change>,
    posted: u64,
    read: u64,
    notices: VecDeque<Notice>,
    /// Notices that are queued or being delivered.
    pub(crate) untold: u32,
    /// Frames that were emptied and whose notice is not delivered: an access to one is to try again.
    pub(crate) condemned: BTreeSet<DevicePage>,
    faults: VecDeque<Fault>,
    aside: Vec<Fault>,
    /// Tickets not answered yet, and answers not fetched yet.
    tickets: BTreeMap<u64, Option<FaultOutcome>>,
    next_ticket: u64,
    quarantine: Vec<(HostRange, u64)>,
    /// Threads that fork: no migration to VRAM begins.
    pub(crate) frozen: u32,
    stop: bool,
}

impl Uffd {
    /// Whether an event waits to be read.
    pub(crate) fn unread(&self) -> bool {
        !self.events.is_empty()
    }
    /// The ranges that touch `range` and may not be claimed at `now`.
    pub(crate) fn quarantined(&mut self, range: HostRange, now: u64) -> Vec<HostRange> {
        self.quarantine.retain(|(_, until)| *until > now);
        self.quarantine.iter().map(|(kept, _)| *kept).filter(|kept| kept.overlaps(range)).collect()
    }
    /// Faults set aside are looked at again.
    pub(crate) fn take_up_again(&mut self) {
        self.faults.extend(self.aside.drain(..));
    }
    fn take_fault(&mut self, now: u64) -> Option<Fault> {
        let index = self.faults.iter().position(|fault| fault.not_before_ns <= now)?;
        self.faults.remove(index)
    }
}

impl Sim {
    /// Starts the readers.
    pub(crate) fn start_readers(self: &Arc<Self>, readers: usize) {
        let mut handles = self.readers.lock();
        for _ in 0..readers {
            let sim = self.clone();
            handles.push(sync::spawn_daemon("uffd reader", move || sim.read_on()));
        }
    }
    /// Ends the readers, and waits for them.
    pub(crate) fn stop_readers(&self) {
        self.lock().uffd.stop = true;
        self.work.notify_all();
        let handles = core::mem::take(&mut *self.readers.lock());
        for handle in handles {
            handle.join();
        }
    }

    /// Misses a page: posts a fault, waits for its answer.
    pub(crate) fn miss(&self, mut state: Locked<'_>, at: HostVa, write: bool) -> FaultOutcome {
        state.uffd.next_ticket += 1;
        let ticket = state.uffd.next_ticket;
        state.uffd.tickets.insert(ticket, None);
        state.uffd.faults.push_back(Fault { ticket, at, write, not_before_ns: 0 });
        self.work.notify_one();
        loop {
            if let Some(Some(outcome)) = state.uffd.tickets.get(&ticket).copied() {
                state.uffd.tickets.remove(&ticket);
                return outcome;
            }
            self.changed.wait(&mut state);
        }
    }
    /// Posts a change and waits until it is read. The change itself is done by the caller, under the same hold.
    pub(crate) fn post(&self, mut state: Locked<'_>, change: Change) {
        state.uffd.events.push_back(change);
        state.uffd.posted += 1;
        let mine = state.uffd.posted;
        self.work.notify_one();
        while state.uffd.read < mine {
            self.changed.wait(&mut state);
        }
    }
    /// Takes the lock, and takes in what events there are.
    pub(crate) fn lock_taken_in(&self) -> Locked<'_> {
        let mut state = self.lock();
        self.take_in(&mut state);
        state
    }
    /// Reads all events and settles them in the books; the notices are the readers' to deliver.
    pub(crate) fn take_in(&self, state: &mut State) {
        if !state.uffd.unread() {
            return;
        }
        while let Some(change) = state.uffd.events.pop_front() {
            state.uffd.read += 1;
            state.take_event(change);
        }
        self.changed.notify_all();
        self.work.notify_one();
    }

    /// A reader's life.
    fn read_on(&self) {
        let _class = sync::rank::reader();
        let mut state = self.lock();
        while !state.uffd.stop {
            self.take_in(&mut state);
            let now = time::now_ns();
            if let Some(notice) = state.uffd.notices.pop_front() {
                drop(state);
                state = self.deliver(notice);
            } else if let Some(fault) = state.uffd.take_fault(now) {
                state = self.serve(state, fault);
            } else if let Some(ready) = state.uffd.faults.iter().map(|fault| fault.not_before_ns).min() {
                self.work.wait_for(&mut state, ready.saturating_sub(now).max(1));
            } else {
                self.work.wait(&mut state);
            }
        }
    }

    /// Tells the notifiers of a change that was taken in.
    fn deliver(&self, notice: Notice) -> Locked<'_> {
        self.call(&notice.touched, &notice.event);
        let mut state = self.lock();
        self.end(&mut state, notice.invalidation);
        state.uffd.condemned.retain(|page| !notice.freed.contains(page));
        drop(state);
        self.free_pages(&notice.freed);
        let mut state = self.lock();
        state.uffd.untold -= 1;
        self.changed.notify_all();
        state
    }

    /// Serves one fault, or sets it aside.
    fn serve<'s>(&'s self, mut state: Locked<'s>, mut fault: Fault) -> Locked<'s> {
        let missed = match (state.space.entry(fault.at), state.space.vma(fault.at)) {
            (Some(Entry::Device { page, .. }), Some(mapped)) => Some((page, mapped.vma.range)),
            _ => None,
        };
        let Some((page, vma)) = missed else { return self.answer(state, fault, FaultOutcome::Retry) };
        if state.claims.holds(fault.at) {
            state.uffd.aside.push(fault);
            return state;
        }
        let Some(ops) = state.vram.pagemap(page.pagemap).map(|map| map.ops.clone()) else {
            return self.answer(state, fault, FaultOutcome::Fatal);
        };
        let cpu_fault = CpuFault { addr: fault.at, page, vma, write: fault.write };
        state.note(Event::Fault(cpu_fault));
        drop(state);
        let outcome = ops.migrate_to_ram(self, &cpu_fault);
        let mut state = self.lock();
        state.note(Event::Served { at: fault.at, outcome });
        match outcome {
            FaultOutcome::Fatal => return self.answer(state, fault, outcome),
            FaultOutcome::Defer => fault.not_before_ns = time::now_ns() + DEFER_NS,
            FaultOutcome::Retry => {}
        }
        state.uffd.faults.push_back(fault);
        state
    }
    fn answer<'s>(&self, mut state: Locked<'s>, fault: Fault, outcome: FaultOutcome) -> Locked<'s> {
        state.uffd.tickets.insert(fault.ticket, Some(outcome));
        self.changed.notify_all();
        state
    }
}

impl State {
    /// Settles one event in the books, and queues the notice of it.
    fn take_event(&mut self, change: Change) {
        let (range, kind, freed) = match change {
            Change::Unmap(range) => (range, EventKind::Unmap, self.empty_cells(range)),
            Change::Remap { from, to } => {
                self.rekey_cells(from, to);
                (from, EventKind::Unmap, Vec::new())
            }
            Change::Remove(range) => {
                self.claims.spoil(range);
                self.drop_ahead(range);
                (range, EventKind::Clear, self.empty_cells(range))
            }
        };
        let event = MmEvent { range, kind };
        self.note(Event::Told(event));
        let (invalidation, touched) = self.notifiers.begin(range);
        self.uffd.untold += 1;
        self.uffd.condemned.extend(&freed);
        self.uffd.notices.push_back(Notice { event, invalidation, touched, freed });
    }
    /// Empties the frames of VRAM that were mapped in a range; those of claims are left to their finish.
    fn empty_cells(&mut self, range: HostRange) -> Vec<DevicePage> {
        let mapped = |at: &HostVa| range.contains(*at);
        let held = self.vram.cells().filter(|(_, cell)| cell.at.as_ref().is_some_and(mapped));
        let held: Vec<_> = held.map(|(page, _)| page).collect();
        let freed: Vec<_> = held.into_iter().filter(|page| !self.claims.involves(*page)).collect();
        for page in &freed {
            self.vram.take(*page);
        }
        freed
    }
    /// The pages of VRAM that were mapped in `from` are mapped in `to` now.
    fn rekey_cells(&mut self, from: HostRange, to: HostRange) {
        let held = self.vram.cells().filter_map(|(page, cell)| Some((page, cell.at?)));
        let moved: Vec<_> = held.filter(|(_, at)| from.contains(*at)).collect();
        for (page, at) in moved {
            if let Some(cell) = self.vram.cell_mut(page) {
                cell.at = Some(to.page_at(from.page_index(at)));
            }
        }
    }
    /// Drops what a DONTNEED is about to drop; quarantines what cannot be.
    fn drop_ahead(&mut self, range: HostRange) {
        let until = time::now_ns() + self.config.quarantine_ns;
        for (at, entry) in self.space.entries(range) {
            match entry {
                Entry::System { frame, .. } if self.take_exclusive(frame).is_none() => {
                    self.uffd.quarantine.push((HostRange::sized(at, SZ_4K), until));
                }
                Entry::System { .. } | Entry::Device { .. } | Entry::Migration { .. } => {
                    self.space.clear(at);
                }
            }
        }
    }
}
