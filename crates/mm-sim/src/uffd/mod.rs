//! userfaultfd, the kernel's side, over the same VMAs and frames.
//!
//! A [`Context`] is a descriptor: who waits for a page (unread, and read), which events are unread, and how many changes of
//! mappings are in progress that it watches. A [`Registration`] is a VMA's: mremap takes it along, munmap ends it, what
//! grows in place is registered where it grew.
//!
//! | file | what |
//! |---|---|
//! | `messages` | events and their raisers, faults and who waits for them, reads, wakes |
//! | `register` | REGISTER and UNREGISTER |
//! | `moving` | MOVE |
//! | `filling` | COPY, ZEROPAGE, POISON, WRITEPROTECT |
//! | `kernel` | [`SimKernel`]: all of it as mm-live asks for it |
//!
//! # Where others may come in between
//!
//! Each of these is a step; between two of them any other thread may run:
//!
//! * an event: the count of changes goes up (munmap and mremap: with the mmap lock held for writing, before the change);
//!   the change; the message is queued, without any lock; the message is read; its raiser runs again, and the count goes
//!   down; DONTNEED and FREE do now, with the lock taken anew, what they were called for, to whatever is mapped by then.
//!   An mremap's second message is queued when the raiser of the first has run;
//! * a call of a descriptor: the look at the count (`EAGAIN`, before the arguments are looked at); then, with the mmap lock
//!   held for reading to the end, the VMAs (`ENOENT`), the count again, all else. No change of mappings begins meanwhile.
//!   Accesses, faults, pins and the zap of a DONTNEED come in between batches of pages;
//! * a fault: it is queued in the step that finds no page. Its thread runs again when it was woken, and not before.
//!
//! Upstream: fs/userfaultfd.c, mm/userfaultfd.c.

mod filling;
mod kernel;
mod messages;
mod moving;
mod register;

pub use kernel::SimKernel;
pub(crate) use messages::{Miss, Raise};

use crate::config::Injection;
use crate::sim::{Locked, Sim};
use crate::state::State;
use messages::Waiting;
use mm_live::kernel::{Errno, Progress};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use units::{HostRange, HostVa, SZ_4K};

/// Which descriptor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ContextId(u32);

/// How a descriptor tells of what it watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reports {
    /// By messages: faults, munmap, mremap, DONTNEED and FREE.
    Messages,
    /// A touch of a missing page is a SIGBUS at once. Nothing else is told.
    Signals,
}

/// A VMA is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Registration {
    /// By whom.
    pub(crate) by: ContextId,
    /// Whether writes to protected pages are reported, too.
    pub(crate) protected: bool,
}

/// One descriptor.
struct Context {
    reports: Reports,
    /// Threads that wait for a page, whose messages are unread, the oldest first.
    faults: VecDeque<Waiting>,
    /// Threads that wait for a page, whose messages were read.
    taken: Vec<Waiting>,
    /// Unread events, the oldest first.
    events: VecDeque<Waiting>,
    /// Changes in progress (`mmap_changing`).
    changing: u32,
    /// Somebody rang (an eventfd beside it).
    kicked: bool,
}

/// All descriptors, and pages that are write-protected for one.
#[derive(Default)]
pub(crate) struct Contexts {
    map: BTreeMap<ContextId, Context>,
    protected: BTreeSet<u64>,
    next: u32,
    next_ticket: u64,
}

impl Contexts {
    /// Opens a descriptor.
    pub(crate) fn open(&mut self, reports: Reports) -> ContextId {
        self.next += 1;
        let id = ContextId(self.next);
        let (faults, events) = (VecDeque::new(), VecDeque::new());
        self.map.insert(id, Context { reports, faults, taken: Vec::new(), events, changing: 0, kicked: false });
        id
    }
    /// Whether writes to the page at `at` are reported.
    pub(crate) fn protects(&self, at: HostVa) -> bool {
        !self.protected.is_empty() && self.protected.contains(&at.page_number())
    }
    /// They are not any more.
    pub(crate) fn unprotect(&mut self, range: HostRange) {
        if !self.protected.is_empty() {
            self.protected.retain(|page| !(range.start.page_number()..range.end.page_number()).contains(page));
        }
    }
    /// Protected pages in `range`.
    pub(crate) fn protected_in(&self, range: HostRange) -> Vec<HostVa> {
        let pages = self.protected.range(range.start.page_number()..range.end.page_number());
        pages.map(|page| HostVa(page * SZ_4K)).collect()
    }
    /// A page is write-protected.
    pub(crate) fn protect(&mut self, at: HostVa) {
        self.protected.insert(at.page_number());
    }
    /// Whether the descriptor refuses now.
    fn refuses(&self, id: ContextId) -> bool {
        self.map.get(&id).is_some_and(|context| context.changing > 0)
    }
}

/// A call that did nothing.
const fn refused(error: Errno) -> Progress {
    Progress { bytes: 0, error: Some(error) }
}

/// What a call over a range says: after some progress its error is always `EAGAIN`.
const fn progress(done: u64, len: u64, error: Option<Errno>) -> Progress {
    match error {
        _ if done == len => Progress { bytes: done, error: None },
        _ if done > 0 => Progress { bytes: done, error: Some(Errno::AGAIN) },
        error => Progress { bytes: 0, error },
    }
}

/// Whether a range may be an argument.
fn is_valid(start: HostVa, len: u64) -> bool {
    len > 0 && start.is_aligned(SZ_4K) && len.is_multiple_of(SZ_4K) && start.0.checked_add(len).is_some()
}

impl Sim {
    /// The first look of every call: whether the descriptor refuses.
    fn look(&self, by: ContextId) -> Result<(), Errno> {
        if self.lock().uffd.refuses(by) { Err(Errno::AGAIN) } else { Ok(()) }
    }
    /// Takes the mmap lock for reading, in a call; by choice it cannot be had.
    fn enter(&self) -> Result<Locked<'_>, Errno> {
        let mut state = self.read_mappings();
        state.reclaim();
        if Injection::strikes(&mut state.injection.refusals) {
            self.leave(&mut state);
            return Err(Errno::AGAIN);
        }
        Ok(state)
    }
    /// Lets others run in the middle of a call.
    fn breathe<'s>(&'s self, state: Locked<'s>) -> Locked<'s> {
        drop(state);
        self.lock()
    }
}

impl State {
    /// Whether a batch of pages ends here, by choice.
    fn is_cut(&mut self) -> bool {
        Injection::strikes(&mut self.injection.cuts)
    }
    /// Whether there is no memory now, by choice.
    fn is_short(&mut self) -> bool {
        Injection::strikes(&mut self.injection.shortages)
    }
}
