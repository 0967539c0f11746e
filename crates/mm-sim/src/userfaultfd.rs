//! The program's side of userfaultfd: faults and events that reader tasks serve.
//!
//! A CPU thread that misses a page posts a fault and waits. A thread that changes mappings posts an event in
//! the same step as the change (DONTNEED: before it) and waits until a reader has *read* it; the notifiers are
//! told by the reader afterwards. From the posting until the notifiers have been told VRAM is *closed*: no
//! claim begins, no page moves, accesses to VRAM answer `Again`. Readers get faults before events, and set a
//! fault aside while an event is pending or the page is claimed; they wait for nothing.
//!
//! Posting in the same step as the change is kinder than the kernel, where another thread may map a hole
//! between the two: mm-live closes that window by its wrappers of the libc calls.

use crate::Event;
use crate::sim::{Locked, Sim};
use crate::space::Entry;
use gpusvm::hostmm::{CpuFault, DevicePage, EventKind, FaultOutcome, MmEvent};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use sync::time;
use units::{HostRange, HostVa};

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

/// Faults, events and who waits for them.
#[derive(Default)]
pub(crate) struct Uffd {
    events: VecDeque<Change>,
    posted: u64,
    read: u64,
    telling: bool,
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
    /// Whether VRAM is closed: a change was posted that the notifiers have not been told of to the end.
    pub(crate) fn closed(&self) -> bool {
        self.telling || !self.events.is_empty()
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
        if let Change::Remove(range) = change {
            let until = time::now_ns() + state.config.quarantine_ns;
            state.uffd.quarantine.push((range, until));
        }
        state.uffd.events.push_back(change);
        state.uffd.posted += 1;
        let mine = state.uffd.posted;
        self.work.notify_one();
        while state.uffd.read < mine {
            self.changed.wait(&mut state);
        }
    }
    /// Waits until every change posted so far has been told.
    pub(crate) fn wait_open<'s>(&self, mut state: Locked<'s>) -> Locked<'s> {
        while state.uffd.closed() {
            self.changed.wait(&mut state);
        }
        state
    }

    /// A reader's life.
    fn read_on(&self) {
        let mut state = self.lock();
        while !state.uffd.stop {
            let now = time::now_ns();
            if let Some(fault) = state.uffd.take_fault(now) {
                state = self.serve(state, fault);
            } else if !state.uffd.telling
                && let Some(change) = state.uffd.events.pop_front()
            {
                state.uffd.read += 1;
                state.uffd.telling = true;
                self.changed.notify_all();
                drop(state);
                self.tell(change);
                state = self.lock();
                state.uffd.telling = false;
                state.uffd.take_up_again();
                self.changed.notify_all();
                self.work.notify_all();
            } else if let Some(ready) = state.uffd.faults.iter().map(|fault| fault.not_before_ns).min() {
                self.work.wait_for(&mut state, ready.saturating_sub(now).max(1));
            } else {
                self.work.wait(&mut state);
            }
        }
    }

    /// Serves one fault, or sets it aside.
    fn serve<'s>(&'s self, mut state: Locked<'s>, mut fault: Fault) -> Locked<'s> {
        let missed = match (state.space.entry(fault.at), state.space.vma(fault.at)) {
            (Some(Entry::Device { page, .. }), Some(mapped)) => Some((page, mapped.vma.range)),
            _ => None,
        };
        let Some((page, vma)) = missed else { return self.answer(state, fault, FaultOutcome::Retry) };
        if state.uffd.closed() || state.claims.holds(fault.at) {
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

    /// Tells the notifiers of a change, and lets go of the pages of VRAM that it took the mapping from.
    fn tell(&self, change: Change) {
        let (range, kind) = match change {
            Change::Unmap(range) | Change::Remap { from: range, .. } => (range, EventKind::Unmap),
            Change::Remove(range) => (range, EventKind::Clear),
        };
        let invalidation = self.begin(MmEvent { range, kind });
        let mut state = self.lock();
        let held: Vec<(DevicePage, HostVa)> = state
            .vram
            .cells()
            .filter_map(|(page, cell)| Some((page, cell.at.filter(|at| range.contains(*at))?)))
            .collect();
        let mut freed = Vec::new();
        for (page, at) in held {
            if let Change::Remap { from, to } = change {
                if let Some(cell) = state.vram.cell_mut(page) {
                    cell.at = Some(to.page_at(from.page_index(at)));
                }
                continue;
            }
            if matches!(change, Change::Remove(_)) {
                state.space.clear(at);
            }
            if !state.claims.involves(page) {
                state.vram.take(page);
                freed.push(page);
            }
        }
        self.end(&mut state, invalidation);
        drop(state);
        self.free_pages(&freed);
    }
}
