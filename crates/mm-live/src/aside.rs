//! Messages that a process outside reads for readers who are stopped, and puts aside for whoever reads next.
//!
//! A thread that changes a mapping waits in the kernel until the message of that is read, and no debugger can stop it there. One that
//! attaches has stopped the readers, or a mover that keeps them out, and waits for that thread: for ever. So a process that shares
//! this memory and is no thread of the program ([`LiveMm::relieve`]) reads the message, and the thread goes on.
//!
//! It settles nothing, as a thread that is stopped may hold the books. Until a reader has settled the messages, all must be as if
//! they were unread:
//!
//! * *A mover's ioctl is refused.* The kernel refuses while any event is pending. So the process outside raises two events of its own
//!   (`sys::raised`), reads up to the first, and leaves the second. Messages come oldest first: what lies between the two
//!   waits for its next turn.
//! * *No device runs on VRAM whose mapping is gone.* It closes the barrier before it reads; who settles opens it.
//! * *The order is the kernel's.* What is aside is older than what is unread. A reader that is stopped in the middle of a
//!   read has its messages, or not yet: its buffer, empty before, tells. They belong behind what was aside when they were read.
//!
//! Locking: `messages` is a leaf, and the process outside only tries it.

use crate::LiveMm;
use crate::barrier::Barrier;
use crate::kernel::Message;
use crate::sys::linux::Linux;
use crate::sys::raised::Raised;
use std::collections::VecDeque;
use std::sync::Arc;
use sync::atomic::{AtomicBool, AtomicU32};
use sync::rank::{self, Rank};
use sync::{Mutex, time};
use units::HostRange;

/// Nobody reads.
const FREE: u32 = 0;
/// A reader reads.
const READER: u32 = 1;
/// The process outside reads.
const OUTSIDE: u32 = 2;
/// The process outside reads, while a reader is in the middle of a read.
const BOTH: u32 = 3;
/// A reader reads, and since it began the process outside has, too.
const READER_AMONG: u32 = 4;
/// A reader takes note that pages were brought home.
const SETTLES: u32 = 5;

/// Nothing.
const NOTHING: u32 = 0;
/// What its buffer has: nothing, as long as it has not read.
const READ: u32 = 1;
/// Events among it.
const EVENTS: u32 = 2;

/// Messages that can be aside. The process outside allocates nothing: a thread that is stopped may be in the allocator.
const ROOM: usize = 4096;
/// What a reader that is about to read gets to do so.
const MOMENT_NS: u64 = 2_000_000;
/// How long a reader waits for the process outside, which may have been killed.
const PATIENCE: u32 = 20_000;
const PAUSE_NS: u64 = 50_000;

pub(crate) struct Aside {
    linux: Arc<Linux>,
    raised: Raised,
    turn: AtomicU32,
    messages: Mutex<VecDeque<Message>>,
    /// How many: looked at without the lock.
    count: AtomicU32,
    /// In `READER_AMONG`: how many of them are older than the messages of the reader in the middle, and whether it has these. Changed under
    /// the lock.
    older: AtomicU32,
    has_place: AtomicBool,
    /// It keeps the barrier closed.
    closes: AtomicBool,
    /// It may have brought pages home since somebody settled that ([`rescue`](crate::rescue)).
    rescued: AtomicBool,
    /// What the reader has that has the barrier closed, from before it reads until all is settled.
    in_hand: AtomicU32,
}

impl Aside {
    pub fn new(linux: Arc<Linux>) -> Self {
        Self {
            linux,
            raised: Raised::new(),
            turn: AtomicU32::new(FREE),
            messages: rank::mutex(Rank::LEAF, VecDeque::with_capacity(ROOM)),
            count: AtomicU32::new(0),
            older: AtomicU32::new(0),
            has_place: AtomicBool::new(false),
            closes: AtomicBool::new(false),
            rescued: AtomicBool::new(false),
            in_hand: AtomicU32::new(NOTHING),
        }
    }

    fn is_empty(&self) -> bool {
        self.count.load() == 0
    }

    /// Puts messages behind the `older` oldest.
    fn put(&self, older: usize, messages: &[Message]) {
        let mut aside = self.messages.lock();
        let older = older.min(aside.len());
        let newer = aside.split_off(older);
        aside.extend(messages);
        aside.extend(newer);
        self.count.store(aside.len() as u32);
    }

    /// Takes the oldest; gives how many.
    fn take(&self, out: &mut [Message]) -> usize {
        if self.is_empty() {
            return 0;
        }
        self.in_hand.store(EVENTS);
        let mut messages = self.messages.lock();
        let count = messages.len().min(out.len());
        messages.drain(..count).zip(out).for_each(|(message, out)| *out = message);
        self.count.store(messages.len() as u32);
        self.older.store(self.older.load().saturating_sub(count as u32));
        count
    }

    /// A reader's turn begins.
    fn begin(&self) {
        self.in_hand.store(READ);
        self.linux.forget_read();
        let has_begun = || self.turn.compare_exchange(FREE, READER).is_ok();
        if !wait_for(has_begun) {
            self.turn.store(READER);
        }
    }

    /// It ends. How much of what is aside is older than what the reader read.
    fn end(&self) -> usize {
        let mut older = 0;
        let has_ended = || {
            let last = self.turn.load();
            older = if last == READER_AMONG { self.older.load() } else { 0 };
            last != BOTH && self.turn.compare_exchange(last, FREE).is_ok()
        };
        if !wait_for(has_ended) {
            self.turn.store(FREE);
        }
        older as usize
    }

    /// Begins a turn of the process outside: what was before it, and what is now. `None` in another's turn.
    fn begin_outside(&self) -> Option<(u32, u32)> {
        let turns = [(FREE, OUTSIDE), (READER, BOTH), (READER_AMONG, BOTH)];
        turns.into_iter().find(|(before, now)| self.turn.compare_exchange(*before, *now).is_ok())
    }

    /// The turn of the process outside, where readers are stuck. False where a reader read at the same moment after all, so that the order of
    /// its messages is not known.
    fn relieve(&self, is_stuck: impl Fn() -> bool, close: impl FnOnce()) -> bool {
        let Some((before, _)) = self.begin_outside() else { return true };
        if before != READER_AMONG {
            self.has_place.store(false);
        }
        let (mut next, mut is_sure) = (before, true);
        // A reader that is in the middle may have begun just now.
        if is_stuck() {
            let has_read = || self.linux.has_read();
            let reader = (before != FREE).then(|| {
                time::sleep_ns(MOMENT_NS);
                has_read()
            });
            if self.put_aside(reader == Some(true), close) && reader.is_some() {
                next = READER_AMONG;
            }
            is_sure = reader.is_none_or(|had_read| had_read == has_read());
        }
        self.turn.store(next);
        is_sure
    }

    /// A turn in which nobody reads. `None` where somebody reads, or has since.
    pub fn in_turn<R>(&self, is_stuck: impl Fn() -> bool, run: impl FnOnce() -> R) -> Option<R> {
        let (before, turn) = self.begin_outside()?;
        if before != FREE {
            // A reader in the middle that runs is through with its read then, and waits.
            time::sleep_ns(MOMENT_NS);
        }
        let result = is_stuck().then(run);
        // Unless a reader has lost its patience.
        let _ = self.turn.compare_exchange(turn, before);
        result
    }

    /// Whether a reader is in the middle of a read.
    pub fn is_being_read(&self) -> bool {
        self.turn.load() != OUTSIDE
    }

    /// Whether a reader may have events that are not settled.
    pub fn has_events_in_hand(&self) -> bool {
        match self.in_hand.load() {
            NOTHING => false,
            READ => self.linux.has_read_events(),
            _ => true,
        }
    }

    /// In a turn: pages may be brought home from now on, and the barrier is closed.
    pub fn begin_rescue(&self, close: impl FnOnce()) {
        self.rescued.store(true);
        if !self.closes.swap(true) {
            close();
        }
    }

    /// For a reader that has settled all that it read: whether pages may have been brought home. Not in the middle of a turn.
    pub fn take_rescued(&self) -> bool {
        if !self.has_rescued() || !wait_for(|| self.turn.compare_exchange(FREE, SETTLES).is_ok()) {
            return false;
        }
        let rescued = self.rescued.swap(false);
        self.turn.store(FREE);
        rescued
    }

    /// Not all of that could be settled.
    pub fn keep_rescued(&self) {
        self.rescued.store(true);
    }

    /// Opens the barrier, unless something is aside or to be settled.
    pub fn open(&self, barrier: &Barrier) {
        if self.is_empty() && !self.has_rescued() && self.closes.swap(false) {
            barrier.let_go();
        }
    }

    /// Whether pages may have been brought home.
    pub fn has_rescued(&self) -> bool {
        self.rescued.load()
    }

    /// Reads up to the first of two events of its own. `has_read`: whether a reader that is in the middle has. Whether anything may be aside
    /// now.
    fn put_aside(&self, has_read: bool, close: impl FnOnce()) -> bool {
        let Some(first) = self.raised.raise(&self.linux) else { return false };
        if self.raised.raise(&self.linux).is_none() {
            return false;
        }
        if !self.closes.swap(true) {
            close();
        }
        let Some(mut messages) = self.messages.try_lock() else { return false };
        if has_read && !self.has_place.swap(true) {
            self.older.store(messages.len() as u32);
        }
        while messages.len() < ROOM {
            match self.linux.read_one() {
                Some(Message::Unmap(range)) if range == first => break,
                Some(Message::Unmap(range)) if self.raised.has_raised(range) => {}
                Some(message) => {
                    messages.push_back(message);
                    self.count.fetch_add(1);
                }
                None => break,
            }
        }
        if !self.has_place.load() {
            self.older.store(messages.len() as u32);
        }
        true
    }

    /// What a reader that ends gives of the `out` that it took and read.
    fn finish(&self, out: &[Message], taken: usize, read: usize) -> usize {
        match self.end() {
            0 => taken + read,
            older => {
                self.put(older, &out[taken..][..read]);
                taken
            }
        }
    }
}

/// Waits until something is so, or for about a second.
fn wait_for(mut is_so: impl FnMut() -> bool) -> bool {
    for _ in 0..PATIENCE {
        if is_so() {
            return true;
        }
        time::sleep_ns(PAUSE_NS);
    }
    false
}

impl LiveMm {
    /// For a process that shares this memory, and none of its threads, now and then: reads what nobody has read since it was asked last, and puts it
    /// aside. Where the program is `stopped` it also brings home the pages that somebody waits for. Gives how often was read by now, for
    /// the next time.
    pub fn relieve(&self, reads: u64, stopped: bool) -> u64 {
        let is_stuck = || self.calls().read == reads;
        if let Some(aside) = self.aside.as_ref().filter(|_| is_stuck()) {
            if !self.kernel.event_pending() {
                if stopped {
                    self.rescue(aside, is_stuck);
                }
            } else if !aside.relieve(is_stuck, || self.barrier.hold()) {
                self.counters.unexpected.add(1);
            }
        }
        self.calls().read
    }

    /// Reads messages, those that were put aside first. For who has closed the barrier.
    pub(crate) fn read_messages(&self, out: &mut [Message]) -> usize {
        let Some(aside) = &self.aside else { return self.kernel.read_messages(out) };
        self.counted.count_read();
        aside.begin();
        let taken = aside.take(out);
        aside.open(&self.barrier);
        let read = aside.linux.read_as_the_only_one(&mut out[taken..]);
        aside.finish(out, taken, read)
    }

    /// All that was read is settled.
    pub(crate) fn end_reading(&self) {
        if let Some(aside) = &self.aside {
            aside.in_hand.store(NOTHING);
        }
    }

    /// Whether there is something aside, to be read before the barrier opens.
    pub(crate) fn has_aside(&self) -> bool {
        self.aside.as_ref().is_some_and(|aside| !aside.is_empty())
    }

    /// Whether an event is one that the process outside raised.
    pub(crate) fn is_raised_outside(&self, range: HostRange) -> bool {
        self.aside.as_ref().is_some_and(|aside| aside.raised.has_raised(range))
    }

    /// Waits until no event is being taken in, and none is aside. One load where none is.
    pub(crate) fn wait_open(&self) {
        while self.barrier.is_closed() {
            match &self.aside {
                // Whoever would read may wait here, too.
                Some(aside) if aside.closes.load() => {
                    if self.drain() {
                        self.kernel.kick();
                    }
                }
                _ => sync::yield_now(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::books::Watched;
    use crate::kernel::{Descriptor, Errno, Watch};
    use crate::sys::mem;
    use units::SZ_2M;

    /// Memory that is watched, and what unmaps it.
    struct Watch2M {
        mm: Arc<LiveMm>,
        chunk: HostRange,
        whole: HostRange,
    }

    impl Watch2M {
        fn new() -> Option<Self> {
            let mm = LiveMm::start_for_test()?;
            let (chunk, whole) = mem::map_guarded(SZ_2M).expect("2M of addresses");
            mm.kernel.register(Descriptor::Program, chunk, Watch::Missing).expect("memory of ours");
            mm.books.lock().chunk_mut(chunk.start).add_registered(Watched { range: chunk, sure: true });
            Some(Self { mm, chunk, whole })
        }

        /// A thread that drops a page of it, and says when it has.
        fn drop_page(&self, page: usize) -> (sync::JoinHandle, Arc<AtomicBool>) {
            let gone = Arc::new(AtomicBool::new(false));
            let (at, told) = (HostRange::sized(self.chunk.page_at(page), units::SZ_4K), gone.clone());
            let thread = sync::spawn("dropper", move || {
                mem::advise(at, mem::Advice::DontNeed).expect("memory of ours");
                told.store(true);
            });
            (thread, gone)
        }

        fn end(self) {
            self.mm.settle();
            assert!(!self.mm.barrier.is_closed() && !self.mm.has_aside());
            mem::unmap(self.whole);
            assert!(self.mm.stop());
            assert_eq!(self.mm.stats().unexpected, 0);
        }
    }

    /// As the process outside does it, until something is so.
    fn relieve_until(mm: &LiveMm, mut is_so: impl FnMut() -> bool) {
        let mut seen = mm.calls().read;
        for _ in 0..1000 {
            if is_so() {
                return;
            }
            time::sleep_ns(10_000_000);
            seen = mm.relieve(seen, true);
        }
        panic!("nobody read the event");
    }

    /// A mover is stopped, and keeps readers out. Whoever changes mappings goes on, and for the mover nothing has changed.
    #[test]
    fn a_stopped_mover_holds_up_no_change_and_sees_none() {
        let Some(watch) = Watch2M::new() else { return };
        let mm = watch.mm.clone();
        let held = mm.hold_events();
        for page in 0..5 {
            let (thread, gone) = watch.drop_page(page);
            relieve_until(&mm, || gone.load());
            thread.join();
            assert_eq!((mm.stats().removes, mm.kernel.event_pending()), (0, true), "{page}");
            let refused = mm.kernel.zero(Descriptor::Program, HostRange::sized(watch.chunk.start, units::SZ_4K));
            assert_eq!(refused.error, Some(Errno::AGAIN), "{page}");
            assert!(mm.barrier.is_closed() && mm.has_aside(), "{page}");
        }
        drop(held);
        mm.wait_open();
        assert_eq!(mm.stats().removes, 5);
        watch.end();
    }

    /// Nobody but one thread would read, and it waits for the barrier first.
    #[test]
    fn who_waits_for_the_barrier_settles_what_is_aside() {
        let config = Config { readers: Some(1), ..Config::default() };
        let Ok(mm) = LiveMm::start(config) else { return crate::skipped("userfaultfd refused") };
        let aside = mm.aside.as_ref().expect("a real kernel");
        aside.put(0, &[Message::Remove(HostRange::sized(units::HostVa(1 << 46), SZ_2M))]);
        aside.closes.store(true);
        mm.barrier.hold();
        drop(mm.hold_events());
        assert_eq!((mm.stats().removes, mm.barrier.is_closed()), (1, false));
        assert!(mm.stop());
    }

    /// A reader is stopped in the middle of a read, and goes on to its end only when three threads have changed mappings. All messages come in
    /// the kernel's order, whether it has read the first, the second, or the last of them.
    #[test]
    fn messages_keep_their_order_where_a_reader_is_stopped() {
        for reads in 0..3 {
            let Some(watch) = Watch2M::new() else { return };
            let mm = watch.mm.clone();
            let aside = mm.aside.as_ref().expect("a real kernel");
            // Readers wait for the lock, and this thread is one that has it.
            let closed = mm.barrier.close();
            let (mut out, mut read) = ([Message::Other(0); 16], 0);
            aside.begin();
            for page in 0..3 {
                let (thread, gone) = watch.drop_page(page);
                if page == reads {
                    while !gone.load() {
                        read += aside.linux.read_as_the_only_one(&mut out[read..]);
                    }
                } else {
                    relieve_until(&mm, || gone.load());
                }
                thread.join();
            }
            let mut all = out[..aside.finish(&out, 0, read)].to_vec();
            let rest = aside.take(&mut out);
            all.extend_from_slice(&out[..rest]);
            all.retain(|message| !matches!(message, Message::Unmap(range) if mm.is_raised_outside(*range)));
            let place = |page| Message::Remove(HostRange::sized(watch.chunk.page_at(page), units::SZ_4K));
            assert_eq!(all, [0, 1, 2].map(place), "{reads}");
            drop(closed);
            watch.end();
        }
    }
}
