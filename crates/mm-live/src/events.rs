//! Taking messages in: read, settle what changed, tell the engine afterwards.
//!
//! [`LiveMm::pump`] is the only reader of the first userfaultfd. Any thread may call it: the reader threads when
//! a poll says so, and a mover that got EAGAIN. It never waits for another thread and calls no engine code:
//!
//! 1. close the gate, take the intake lock;
//! 2. read messages until none is left (page faults come before events, so stopping early would leave the
//!    event unread that makes every ioctl fail);
//! 3. for each event: forget the pages, mark claimed ones dead, empty their frames, make the sequences of the
//!    notifiers odd, and queue a notice;
//! 4. open the gate; queue the faults.
//!
//! Reader threads deliver the notices: callbacks, sequences even, `folio_free`.
//!
//! REMOVE (DONTNEED, FREE) is told *before* the pages go and nothing tells that they have gone. A page that is
//! migrated in between would survive. So the event itself drops the pages that are in system memory, by moving
//! them to a scratch arena: whatever the program's own call drops later is newer, and was written while the call
//! ran. Where a page cannot be moved, the range is not migrated for a while instead.

use crate::arena::Frame;
use crate::map::{Home, Mark};
use crate::notifier::Begun;
use crate::remap::Order;
use crate::sys::mem;
use crate::sys::uffd::{Message, RawMessage};
use crate::transfer::leading_run;
use crate::{LiveMm, Transport};
use gpusvm::hostmm::{DevicePage, EventKind, MmEvent};
use std::collections::VecDeque;
use sync::atomic::AtomicU32;
use sync::{Mutex, RwLockReadGuard};
use units::{HostRange, HostVa, SZ_2M, SZ_4K, bytes_of};

/// A page fault that waits for its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub addr: HostVa,
    pub write: bool,
    pub protected: bool,
    /// How often it was taken up.
    pub tries: u32,
}

/// What the engine is still to be told of.
pub(crate) struct Notice {
    begun: Begun,
    freed: Vec<DevicePage>,
}

/// Work for the reader threads.
pub(crate) struct Queue {
    pub faults: Mutex<VecDeque<Fault>>,
    pub notices: Mutex<VecDeque<Notice>>,
    /// Notices that are queued or being delivered.
    pub undelivered: AtomicU32,
    /// Faults that are answered at a time (ns), because their page may not leave VRAM yet.
    pub later: Mutex<Vec<(u64, Fault)>>,
}

impl Queue {
    pub fn new() -> Self {
        Self {
            faults: Mutex::new(VecDeque::with_capacity(256)),
            notices: Mutex::new(VecDeque::with_capacity(64)),
            undelivered: AtomicU32::new(0),
            later: Mutex::new(Vec::with_capacity(64)),
        }
    }
}

/// How long a range stays out of migration when its DONTNEED could not be anticipated.
const QUARANTINE_NS: u64 = 200_000_000;
const BATCH: usize = 16;

/// Pages that an event took away.
#[derive(Default)]
pub(crate) struct Lost {
    /// Frames to empty now, and to free when the engine was told.
    frames: Vec<DevicePage>,
}

impl LiveMm {
    /// Reads all messages and settles the events. True where it left work for the readers.
    pub(crate) fn pump(&self) -> bool {
        let mut batch = [RawMessage::default(); BATCH];
        let mut faults = 0;
        let mut notices = 0;
        {
            let _closed = self.gate.close();
            loop {
                let got = self.program.read(&mut batch);
                for message in batch.iter().take(got) {
                    match message.parse() {
                        Message::Fault { addr, write, protected } => {
                            faults += 1;
                            let fault = Fault { addr: HostVa(addr), write, protected, tries: 0 };
                            self.queue.faults.lock().push_back(fault);
                        }
                        event => {
                            notices += 1;
                            self.take_event(event);
                            self.take_remaps(Order::Sure);
                        }
                    }
                }
                if got < BATCH {
                    break;
                }
            }
            if !self.program.event_pending() {
                self.take_remaps(Order::Any);
            }
        }
        self.counters.faults.fetch_add(faults);
        faults + notices > 0
    }

    /// Keeps events unread while the guard lives; what was read is settled, so no mremap is in limbo.
    pub(crate) fn hold_events(&self) -> RwLockReadGuard<'_, ()> {
        loop {
            let held = self.gate.hold_events();
            if !self.has_deferred() {
                return held;
            }
            drop(held);
            // It waits for an event that is on its way, or whose thread must run again to be over.
            if self.pump() {
                self.kick.ring();
            }
            crate::sys::task::relax();
        }
    }

    /// One event, behind the closed gate.
    pub(crate) fn take_event(&self, event: Message) {
        let told = match event {
            Message::Unmap { start, end } => {
                self.counters.unmaps.fetch_add(1);
                let range = HostRange::new(HostVa(start), HostVa(end));
                Some((range, EventKind::Unmap, self.forget(range, Forget::Mapping)))
            }
            Message::Remove { start, end } => {
                let range = HostRange::new(HostVa(start), HostVa(end));
                if self.is_own_drop(range) {
                    return;
                }
                self.counters.removes.fetch_add(1);
                let lost = self.forget(range, Forget::Pages);
                self.drop_ahead(range);
                Some((range, EventKind::Clear, lost))
            }
            Message::Remap { from, to, len } => {
                self.counters.remaps.fetch_add(1);
                return self.take_remap(HostRange::sized(HostVa(from), len), HostVa(to));
            }
            Message::Fault { .. } | Message::Other(_) => None,
        };
        let Some((range, kind, lost)) = told else {
            self.counters.unexpected.fetch_add(1);
            return;
        };
        self.tell_later(range, kind, lost);
    }

    pub(crate) fn tell_later(&self, range: HostRange, kind: EventKind, lost: Lost) {
        self.empty_frames(&lost.frames);
        let begun = self.notifiers.begin(MmEvent { range, kind });
        self.queue.undelivered.fetch_add(1);
        self.queue.notices.lock().push_back(Notice { begun, freed: lost.frames });
    }

    pub(crate) fn forget(&self, range: HostRange, what: Forget) -> Lost {
        let mut lost = Lost::default();
        let mut guard = self.map.lock();
        let map = &mut *guard;
        for (va, home, mark) in map.concerned(range) {
            if let Mark::Claimed { claim, entry } = mark {
                if let Some(mut state) = map.entry(claim, entry) {
                    state.dead = true;
                    self.counters.died.fetch_add(1);
                    map.set_entry(claim, entry, state);
                }
            } else if let Home::Device(page) = home {
                map.set_frame(page, Frame::Condemned);
                lost.frames.push(page);
            }
            map.set_home(va, Home::System);
            map.set_mark(va, Mark::Free);
        }
        if what == Forget::Mapping {
            for number in map.chunks_in(range) {
                if let Some(chunk) = map.chunks.get_mut(number) {
                    chunk.subtract_registered(range);
                    if chunk.is_idle() && chunk.registered.is_empty() {
                        map.chunks.remove(number);
                    }
                }
            }
        }
        lost
    }

    /// Drops what a REMOVE is about to drop from system memory.
    fn drop_ahead(&self, range: HostRange) {
        let parts: Vec<HostRange> = {
            let map = self.map.lock();
            let registered = map.chunks_at(range).flat_map(|(_, chunk)| &chunk.registered);
            registered.filter_map(|part| part.range.intersect(range)).collect()
        };
        for part in parts {
            if self.transport == Transport::Copy || !self.discard(part) {
                let until = sync::time::now_ns() + QUARANTINE_NS;
                self.map.lock().quarantine.push((part, until));
            }
        }
    }

    /// Drops pages of the program: without madvise, which would raise an event, where pages can move. False where
    /// some could not go.
    pub(crate) fn discard(&self, range: HostRange) -> bool {
        if self.transport == Transport::Copy {
            self.drop_own(range);
            return true;
        }
        let mut all = true;
        let scratch = self.scratch.lock();
        let mut start = range.start;
        while start < range.end {
            let end = start.add(SZ_2M).align_down(SZ_2M).min(range.end);
            let (pages, resident) = leading_run(start.0, HostRange::new(start, end).pages());
            if !resident {
                start = start.add(bytes_of(pages));
                continue;
            }
            let progress = self.device.move_pages(scratch.start.0, start.0, bytes_of(pages));
            let _ = mem::advise(*scratch, mem::Advice::DontNeed);
            match progress.error {
                _ if progress.bytes > 0 => start = start.add(progress.bytes),
                // It went, or was never there.
                Some(_) if !leading_run(start.0, 1).1 => start = start.add(SZ_4K),
                Some(_) => {
                    all = false;
                    start = start.add(SZ_4K);
                }
                None => start = start.add(bytes_of(pages)),
            }
        }
        all
    }

    /// Drops pages by DONTNEED, and knows its own event again.
    pub(crate) fn drop_own(&self, range: HostRange) {
        self.own_drops.lock().push(range);
        // The event outlives the call: its message may be read but not looked at when this returns.
        if mem::advise(range, mem::Advice::DontNeed).is_err() {
            self.is_own_drop(range);
        }
    }

    fn is_own_drop(&self, range: HostRange) -> bool {
        let mut own = self.own_drops.lock();
        let Some(index) = own.iter().position(|&own| own == range) else { return false };
        own.swap_remove(index);
        true
    }

    /// Tells the engine of one event that was taken in. False where there is none.
    pub(crate) fn deliver_notice(&self) -> bool {
        let Some(notice) = self.queue.notices.lock().pop_front() else { return false };
        self.notifiers.tell(&notice.begun);
        self.notifiers.end(notice.begun);
        self.free_pages(notice.freed);
        self.queue.undelivered.fetch_sub(1);
        true
    }

    /// Waits until every event that was raised so far has been read, and the engine was told of it. Not for reader
    /// threads, nor with a lock held that a notifier takes.
    pub fn settle(&self) {
        while self.alive().is_ok() {
            let unread = self.program.event_pending();
            // What was read is queued before the gate opens.
            self.gate.wait_open();
            if !unread && !self.has_deferred() && self.queue.undelivered.load() == 0 {
                return;
            }
            crate::sys::task::relax();
        }
    }
}

/// What an event takes away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forget {
    /// Pages; the mapping, and its registration, stay.
    Pages,
    /// The mapping.
    Mapping,
}
