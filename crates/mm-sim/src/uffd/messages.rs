//! Messages: events and their raisers, faults and who waits for them.

use super::{ContextId, Contexts, Reports};
use crate::access::{CpuError, Touch};
use crate::config::Injection;
use crate::sim::{Locked, Sim};
use crate::state::State;
use mm_live::kernel::{Message, Ready};
use units::{HostRange, HostVa};

/// Why a touch is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Miss {
    /// No page.
    Missing,
    /// Write-protected.
    Protected,
}

/// A thread that waits, and what it says.
pub(crate) struct Waiting {
    ticket: u64,
    pub(crate) message: Message,
}

/// A change that has begun. Owed: [`Sim::raise`].
#[must_use]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raise {
    by: ContextId,
    message: Message,
}

impl Contexts {
    /// A change of what `by` watches begins.
    pub(crate) fn begin_change(&mut self, by: ContextId, message: Message) -> Option<Raise> {
        let context = self.map.get_mut(&by).filter(|context| context.reports == Reports::Messages)?;
        context.changing += 1;
        Some(Raise { by, message })
    }
    /// Whether a descriptor is told of changes.
    pub(crate) fn is_told(&self, by: ContextId) -> bool {
        self.map.get(&by).is_some_and(|context| context.reports == Reports::Messages)
    }
    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }
    /// Lets the threads that wait in `range` run again.
    pub(crate) fn wake(&mut self, by: ContextId, range: HostRange) {
        let Some(context) = self.map.get_mut(&by) else { return };
        let sleeps =
            |waiting: &Waiting| !matches!(waiting.message, Message::Fault { addr, .. } if range.contains(addr));
        context.faults.retain(sleeps);
        context.taken.retain(sleeps);
    }
    fn is_asleep(&self, by: ContextId, ticket: u64) -> bool {
        let Some(context) = self.map.get(&by) else { return false };
        context.faults.iter().chain(&context.taken).any(|waiting| waiting.ticket == ticket)
    }
    fn forget_fault(&mut self, by: ContextId, ticket: u64) {
        if let Some(context) = self.map.get_mut(&by) {
            context.faults.retain(|waiting| waiting.ticket != ticket);
            context.taken.retain(|waiting| waiting.ticket != ticket);
        }
    }
    fn is_unread(&self, by: ContextId, ticket: u64) -> bool {
        self.map.get(&by).is_some_and(|context| context.events.iter().any(|waiting| waiting.ticket == ticket))
    }
    fn take_message(&mut self, by: ContextId) -> Option<Message> {
        let context = self.map.get_mut(&by)?;
        if let Some(fault) = context.faults.pop_front() {
            let message = fault.message;
            context.taken.push(fault);
            return Some(message);
        }
        context.events.pop_front().map(|event| event.message)
    }
}

impl State {
    /// An munmap of `range` begins: who watches a part of it is told of all of it, once.
    pub(crate) fn begin_unmap(&mut self, range: HostRange) -> Vec<Raise> {
        let mut watchers: Vec<ContextId> = Vec::new();
        for mapped in self.space.vmas().filter(|mapped| mapped.vma.range.overlaps(range)) {
            watchers.extend(mapped.attributes.watch.map(|watch| watch.by).filter(|by| !watchers.contains(by)));
        }
        watchers.into_iter().filter_map(|by| self.uffd.begin_change(by, Message::Unmap(range))).collect()
    }
}

impl Sim {
    /// Queues the event of a change, waits until it is read, and says that the change is over. Call without the lock.
    pub(crate) fn raise(&self, Raise { by, message }: Raise) {
        let mut state = self.lock();
        let ticket = state.uffd.ticket();
        if let Some(context) = state.uffd.map.get_mut(&by) {
            context.events.push_back(Waiting { ticket, message });
        }
        self.messages.notify_all_held(&state);
        while state.uffd.is_unread(by, ticket) {
            self.read.wait(&mut state);
        }
        if let Some(context) = state.uffd.map.get_mut(&by) {
            context.changing -= 1;
        }
    }
    /// The same for several, one after the other.
    pub(crate) fn raise_all(&self, raises: Vec<Raise>) {
        raises.into_iter().for_each(|raise| self.raise(raise));
    }

    /// A touch of a watched page: reports it, and waits until it is woken.
    pub(crate) fn miss(
        &self,
        mut state: Locked<'_>,
        by: ContextId,
        at: HostVa,
        miss: Miss,
        touch: Touch,
    ) -> Result<(), CpuError> {
        if !state.uffd.is_told(by) {
            return Err(CpuError::Bus);
        }
        // The fault of a VMA without huge pages, or beside 4K pages, makes a page table before it is reported.
        if state.space.vma(at).is_some_and(|mapped| !state.space.takes_huge(at, &mapped)) {
            state.tables.make(at);
        }
        let ticket = state.uffd.ticket();
        let (write, protected) = (touch == Touch::Store, miss == Miss::Protected);
        if let Some(context) = state.uffd.map.get_mut(&by) {
            let message = Message::Fault { addr: at, write, protected, thread: 0 };
            context.faults.push_back(Waiting { ticket, message });
        }
        self.messages.notify_all_held(&state);
        if Injection::strikes(&mut state.injection.signals) {
            // The handler of a signal runs, and comes back to the access.
            drop(state);
            self.lock().uffd.forget_fault(by, ticket);
            return Ok(());
        }
        while state.uffd.is_asleep(by, ticket) {
            self.woken.wait(&mut state);
        }
        Ok(())
    }

    /// Who waits, what is mapped, and what is there: for a report on a finding.
    pub fn picture(&self) -> String {
        let state = self.lock();
        let messages =
            |waiting: &mut dyn Iterator<Item = &Waiting>| waiting.map(|each| each.message).collect::<Vec<_>>();
        let contexts = state.uffd.map.iter().map(|(id, context)| {
            let (faults, taken) = (messages(&mut context.faults.iter()), messages(&mut context.taken.iter()));
            let events = messages(&mut context.events.iter());
            format!("{id:?}: {} changes, unread {faults:?} {events:?}, read {taken:?}", context.changing)
        });
        let vmas = state.space.vmas().map(|mapped| format!("{mapped:?}"));
        let entries = state.space.all_entries().map(|(at, entry)| format!("{at}: {entry:?}"));
        contexts.chain(vmas).chain(entries).collect::<Vec<_>>().join("\n")
    }
    /// Threads that wait for a reader: for a page, or for their event to be read.
    pub fn waiting(&self) -> usize {
        let state = self.lock();
        state.uffd.map.values().map(|context| context.faults.len() + context.taken.len() + context.events.len()).sum()
    }

    /// Reads messages, each in a step of its own: its raiser may run before the next one is read.
    pub(crate) fn read_messages_of(&self, by: ContextId, out: &mut [Message]) -> usize {
        for (index, out) in out.iter_mut().enumerate() {
            let mut state = self.lock();
            let Some(message) = state.uffd.take_message(by) else { return index };
            if !matches!(message, Message::Fault { .. }) {
                self.read.notify_all_held(&state);
            }
            *out = message;
        }
        out.len()
    }

    /// Wakes who waits in a range.
    pub(crate) fn wake_in(&self, by: ContextId, range: HostRange) {
        let mut state = self.lock();
        state.uffd.wake(by, range);
        self.woken.notify_all_held(&state);
    }

    /// Waits for a message or a kick.
    pub(crate) fn poll(&self, by: ContextId, timeout_ms: i32) -> Ready {
        let mut state = self.lock();
        let deadline = (timeout_ms > 0).then(|| sync::time::after_ns(timeout_ms as u64 * 1_000_000));
        loop {
            let Some(context) = state.uffd.map.get(&by) else { return Ready { messages: false, kicked: true } };
            let messages = !context.faults.is_empty() || !context.events.is_empty();
            let ready = Ready { messages, kicked: context.kicked };
            if messages || ready.kicked || timeout_ms == 0 {
                return ready;
            }
            match deadline {
                None => self.messages.wait(&mut state),
                Some(deadline) => {
                    if !self.messages.wait_until(&mut state, deadline) {
                        return ready;
                    }
                }
            }
        }
    }
    /// Ends waits, or the end of that.
    pub(crate) fn set_kicked(&self, by: ContextId, kicked: bool) {
        if let Some(context) = self.lock().uffd.map.get_mut(&by) {
            context.kicked = kicked;
        }
        if kicked {
            self.messages.notify_all();
        }
    }

    /// The descriptor is closed: nothing is watched by it any more, and who waits runs again.
    pub(crate) fn close_context(&self, by: ContextId) {
        let mut state = self.write_mappings();
        let watched: Vec<HostVa> =
            state.space.vmas().filter(|mapped| mapped.is_watched(by)).map(|mapped| mapped.vma.range.start).collect();
        for at in watched {
            let Some(mapped) = state.space.vma_mut(at) else { continue };
            mapped.attributes.watch = None;
            let range = mapped.vma.range;
            state.uffd.unprotect(range);
            state.merge(range);
        }
        state.uffd.map.remove(&by);
        self.wrote_mappings(state);
        for condition in [&self.messages, &self.read, &self.woken] {
            condition.notify_all();
        }
    }
}
