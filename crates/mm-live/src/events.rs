//! Taking messages in: read, settle what changed, call the notifiers afterwards.
//!
//! [`LiveMm::drain`] is the only reader of the first userfaultfd. Any thread may call it: the reader threads when
//! a poll says so, and a mover that got EAGAIN. It never waits for another thread and calls no engine code:
//!
//! 1. close the barrier, take the events lock;
//! 2. read messages until none is left (page faults come before events, so stopping early would leave the
//!    event unread that makes every ioctl fail);
//! 3. for each event: forget the pages, cancel claimed ones, empty their frames, make the sequences of the
//!    notifiers odd, and queue a notice;
//! 4. open the barrier; queue the faults.
//!
//! Reader threads deliver the notices: callbacks, sequences even, `folio_free`. One of them at a time, first in, first
//! out: an mremap's notice ends the translations of the old place, and a later notice may free a frame that they reach.
//! For the same reason a page is not claimed while a notice of its place is out ([`Undelivered`]): the end of a migration
//! frees frames too.

use crate::LiveMm;
use crate::forget::Forget;
use crate::kernel::Message;
use crate::notifier::Begun;
use crate::remap::Order;
use hostmm::{DeviceRun, EventKind, MmEvent};
use std::collections::VecDeque;
use sync::atomic::AtomicU32;
use sync::rank::{self, Rank};
use sync::time::now_ns;
use sync::{Mutex, RwLockReadGuard};
use units::{HostRange, HostVa};

/// A page fault that waits for its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub addr: HostVa,
    pub write: bool,
    pub protected: bool,
    /// Of this thread, by the kernel's number.
    pub thread: u32,
    /// How often it was taken up.
    pub tries: u32,
    /// Its turn, once it was postponed.
    pub turn: Option<u64>,
}

/// Notifiers that are still to be called, and why.
pub(crate) struct Notice {
    begun: Begun,
    freed: Vec<DeviceRun>,
    place: Option<u64>,
}

/// Where pages are not claimed, by number: the notice that says why is queued or being delivered. Part of the books.
#[derive(Default)]
pub(crate) struct Undelivered {
    places: Vec<(u64, HostRange)>,
    last: u64,
}

impl Undelivered {
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
    /// Held by the one who delivers, over the engine's callbacks: taken by `try_lock` only, so it has no rank.
    pub delivering: Mutex<()>,
    /// Notices that are queued or being delivered.
    pub undelivered: AtomicU32,
    /// Faults that are answered at a time (ns), because their page may not leave VRAM yet.
    pub later: Mutex<Vec<(u64, Fault)>>,
}

impl Queue {
    pub fn new() -> Self {
        Self {
            faults: rank::mutex(Rank::LEAF, VecDeque::with_capacity(256)),
            notices: rank::mutex(Rank::LEAF, VecDeque::with_capacity(64)),
            delivering: Mutex::new(()),
            undelivered: AtomicU32::new(0),
            later: rank::mutex(Rank::LEAF, Vec::with_capacity(64)),
        }
    }
}

const BATCH: usize = 16;
/// How often who reads events lets others run first, and sleeps in the end: a callback takes as long as many yields.
const GIVE_WAY: u32 = 32;

impl LiveMm {
    /// Reads all messages and settles the events. True where it left work for the readers.
    pub(crate) fn drain(&self) -> bool {
        self.give_way();
        let mut batch = [Message::Other(0); BATCH];
        let mut faults = 0;
        let mut notices = 0;
        {
            let _closed = self.barrier.close();
            loop {
                let got = self.read_messages(&mut batch);
                for &message in batch.iter().take(got) {
                    match message {
                        Message::Fault { addr, write, protected, thread } => {
                            faults += 1;
                            let fault = Fault { addr, write, protected, thread, tries: 0, turn: None };
                            self.queue.faults.lock().push_back(fault);
                        }
                        event => {
                            notices += 1;
                            self.take_event(event);
                            self.take_remaps(Order::Sure);
                        }
                    }
                }
                if got < BATCH && !self.has_aside() {
                    break;
                }
            }
            self.end_reading();
            let waits = self.has_deferred() || self.books.lock().quarantine.has_pending();
            if waits && !self.kernel.event_pending() {
                self.take_remaps(Order::Any);
                self.books.lock().quarantine.start_clocks(now_ns(), u64::MAX);
            }
            notices += u64::from(self.settle_rescued());
        }
        self.counters.faults.add(faults);
        faults + notices > 0
    }

    /// Lets the engine catch up: its notifiers are called for what was read before, and who waits for that looks. In the kernel the thread that
    /// makes a change does this itself, before its next one; here it would make changes faster than any notifier can be called, and
    /// whoever waits for a quiet moment would never see one. For a while only: the caller may be who the others wait for.
    fn give_way(&self) {
        for turn in 0..GIVE_WAY {
            let is_told = self.queue.undelivered.load() == 0;
            if is_told && (turn >= GIVE_WAY / 2 || !self.notifiers.is_awaited()) {
                return;
            }
            if turn < GIVE_WAY / 2 { sync::yield_now() } else { sync::time::sleep_ns(20_000) }
        }
    }

    /// Keeps events unread while the guard lives; what was read is settled, so no mremap is deferred, and what was brought home before
    /// it began, too.
    pub(crate) fn hold_events(&self) -> RwLockReadGuard<'_, ()> {
        loop {
            // Readers before movers.
            self.wait_open();
            let held = self.barrier.hold_events();
            if !self.has_deferred() && !self.has_rescued() {
                return held;
            }
            drop(held);
            // It waits for an event that is on its way, or whose thread must run again to be over.
            if self.drain() {
                self.kernel.kick();
            }
            sync::yield_now();
        }
    }

    /// One event, behind the closed barrier.
    pub(crate) fn take_event(&self, event: Message) {
        match event {
            Message::Unmap(range) if self.is_raised_outside(range) => {}
            Message::Unmap(range) => {
                self.counters.unmaps.add(1);
                let place = self.books.lock().undelivered.add(range);
                let lost = self.forget(range, Forget::Mapping);
                self.notify_later(range, EventKind::Unmap, lost, Some(place));
            }
            Message::Remove(range) => {
                if self.is_own_drop(range) {
                    return;
                }
                self.counters.removes.add(1);
                let place = self.books.lock().undelivered.add(range);
                let lost = self.forget(range, Forget::Pages);
                (self.rules.on_remove)(self, range);
                self.notify_later(range, EventKind::Clear, lost, Some(place));
            }
            Message::Remap { from, to } => {
                self.counters.remaps.add(1);
                self.take_remap(from, to);
            }
            Message::Fault { .. } | Message::Other(_) => self.counters.unexpected.add(1),
        }
    }

    /// Queues a notice. Where it ends, `place` may be claimed again.
    pub(crate) fn notify_later(&self, range: HostRange, kind: EventKind, lost: Vec<DeviceRun>, place: Option<u64>) {
        self.empty_frames(&lost);
        let begun = self.notifiers.begin(MmEvent { range, kind });
        self.queue.undelivered.fetch_add(1);
        self.queue.notices.lock().push_back(Notice { begun, freed: lost, place });
    }

    /// Calls the notifiers for the events that were taken in, unless somebody does so.
    pub(crate) fn deliver_notices(&self) {
        // One that was queued while the last deliverer was about to leave is seen here, by it or by who queued it.
        while !self.queue.notices.lock().is_empty() {
            let Some(_alone) = self.queue.delivering.try_lock() else { return };
            while let Some(notice) = self.next_notice() {
                self.notifiers.notify(&notice.begun);
                self.notifiers.end(notice.begun);
                self.free_pages(&notice.freed);
                if let Some(place) = notice.place {
                    self.books.lock().undelivered.remove(place);
                }
                self.queue.undelivered.fetch_sub(1);
            }
        }
    }

    fn next_notice(&self) -> Option<Notice> {
        self.queue.notices.lock().pop_front()
    }

    /// Waits until every event that was raised so far has been read, and the notifiers were called. Not for reader
    /// threads, nor with a lock held that a notifier takes.
    pub fn settle(&self) {
        while self.alive().is_ok() {
            let unread = self.kernel.event_pending();
            // What was read is queued before the barrier opens.
            self.wait_open();
            if !unread && !self.has_deferred() && self.queue.undelivered.load() == 0 {
                return;
            }
            sync::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::books::Watched;
    use crate::kernel::{Descriptor, Watch};
    use crate::sys::mem;
    use hostmm::{HostMm, NotifierOps};
    use std::sync::Arc;
    use units::SZ_2M;

    /// Takes as long as a TLB flush.
    struct Slow;

    impl NotifierOps for Slow {
        fn invalidate(&self, _: &MmEvent) {
            let end = now_ns() + 20_000;
            while now_ns() < end {}
        }
    }

    /// One thread drops memory over and over, as fast as it can. Who waits for a quiet moment sees one.
    #[test]
    fn a_quiet_moment_comes_though_events_never_end() {
        const LOOKS: u64 = 1000;
        let Some(mm) = LiveMm::start_for_test() else { return };
        let (chunk, whole) = mem::map_guarded(SZ_2M).expect("2M of addresses");
        mm.kernel.register(Descriptor::Program, chunk, Watch::Missing).expect("memory of ours");
        mm.books.lock().chunk_mut(chunk.start).add_registered(Watched { range: chunk, sure: true });
        let id = mm.notifier_insert(chunk, Arc::new(Slow)).expect("a notifier");
        let stop = Arc::new(AtomicU32::new(0));
        let dropper = sync::spawn("dropper", {
            let (stop, mm) = (stop.clone(), mm.clone());
            move || {
                while stop.load() == 0 && mm.stats().removes < 100 * LOOKS {
                    mem::advise(chunk, mem::Advice::DontNeed).expect("memory of ours");
                }
            }
        });
        while mm.stats().removes < 100 {
            sync::yield_now();
        }
        let before = mm.stats().removes;
        for _ in 0..LOOKS {
            mm.read_begin(id);
        }
        let events = mm.stats().removes - before;
        stop.store(1);
        dropper.join();
        assert!(events < LOOKS * 20, "{events} events before {LOOKS} quiet moments");
        mm.notifier_remove(id);
        mem::unmap(whole);
        assert!(mm.stop());
    }
}
