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
//! Reader threads deliver the notices: callbacks, sequences even, `folio_free`. One of them at a time, first in, first
//! out: an mremap's notice ends the translations of the old place, and a later notice may free a frame that they reach.
//! For the same reason a page is not claimed while a notice of its place is out ([`Untold`]): the end of a migration
//! frees frames too.

use crate::LiveMm;
use crate::forget::{Forget, Lost};
use crate::notifier::Begun;
use crate::remap::Order;
use crate::sys::uffd::{Message, RawMessage};
use hostmm::{DevicePage, EventKind, MmEvent};
use std::collections::VecDeque;
use sync::atomic::AtomicU32;
use sync::time::now_ns;
use sync::{Mutex, RwLockReadGuard};
use units::{HostRange, HostVa};

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
    untold: Option<u64>,
}

/// Where pages are not claimed, by number: the notice that says why is queued or being delivered. Part of the page map.
#[derive(Default)]
pub(crate) struct Untold {
    places: Vec<(u64, HostRange)>,
    last: u64,
}

impl Untold {
    pub fn add(&mut self, place: HostRange) -> u64 {
        self.last += 1;
        self.places.push((self.last, place));
        self.last
    }

    fn remove(&mut self, number: u64) {
        self.places.retain(|place| place.0 != number);
    }

    pub fn meets(&self, range: HostRange) -> bool {
        self.places.iter().any(|place| place.1.overlaps(range))
    }
}

/// Work for the reader threads.
pub(crate) struct Queue {
    pub faults: Mutex<VecDeque<Fault>>,
    pub notices: Mutex<VecDeque<Notice>>,
    /// Held by the one who delivers.
    pub delivering: Mutex<()>,
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
            delivering: Mutex::new(()),
            undelivered: AtomicU32::new(0),
            later: Mutex::new(Vec::with_capacity(64)),
        }
    }
}

const BATCH: usize = 16;

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
                self.map.lock().quarantine.start_clocks(now_ns(), u64::MAX);
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
        match event {
            Message::Unmap { start, end } => {
                self.counters.unmaps.fetch_add(1);
                let range = HostRange::new(HostVa(start), HostVa(end));
                let untold = self.map.lock().untold.add(range);
                let lost = self.forget(range, Forget::Mapping);
                self.tell_later(range, EventKind::Unmap, lost, Some(untold));
            }
            Message::Remove { start, end } => {
                let range = HostRange::new(HostVa(start), HostVa(end));
                if self.is_own_drop(range) {
                    return;
                }
                self.counters.removes.fetch_add(1);
                let untold = self.map.lock().untold.add(range);
                let lost = self.forget(range, Forget::Pages);
                self.set_aside(range);
                self.tell_later(range, EventKind::Clear, lost, Some(untold));
            }
            Message::Remap { from, to, len } => {
                self.counters.remaps.fetch_add(1);
                self.take_remap(HostRange::sized(HostVa(from), len), HostVa(to));
            }
            Message::Fault { .. } | Message::Other(_) => drop(self.counters.unexpected.fetch_add(1)),
        }
    }

    /// Queues a notice. Where it ends is where `untold` ends.
    pub(crate) fn tell_later(&self, range: HostRange, kind: EventKind, lost: Lost, untold: Option<u64>) {
        self.empty_frames(&lost.frames);
        let begun = self.notifiers.begin(MmEvent { range, kind });
        self.queue.undelivered.fetch_add(1);
        self.queue.notices.lock().push_back(Notice { begun, freed: lost.frames, untold });
    }

    /// Tells the engine of the events that were taken in, unless somebody does so.
    pub(crate) fn deliver_notices(&self) {
        // One that was queued while the last deliverer was about to leave is seen here, by it or by who queued it.
        while !self.queue.notices.lock().is_empty() {
            let Some(_alone) = self.queue.delivering.try_lock() else { return };
            while let Some(notice) = self.next_notice() {
                self.notifiers.tell(&notice.begun);
                self.notifiers.end(notice.begun);
                self.free_pages(notice.freed);
                if let Some(untold) = notice.untold {
                    self.map.lock().untold.remove(untold);
                }
                self.queue.undelivered.fetch_sub(1);
            }
        }
    }

    fn next_notice(&self) -> Option<Notice> {
        self.queue.notices.lock().pop_front()
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
