//! Fences. A [`Fence`] comes to its end once: a job, a bind, or all of several fences.
//!
//! And the threads that wait for eight bytes of the program's memory to change: user fences, which a batch or a bind
//! ([`bind_queue`](crate::bind_queue)) writes.
//!
//! **Waiting.** A waiter is listed by its address and its queue ([`Waiters`]), then reads memory, then waits for the
//! [`Fence`] that it was given. Whatever may have changed memory, a job done or a fence written, signals the fences of
//! those whom it concerns and of nobody else: to read a fence means to bring its page back.
//!
//! Locking: leaf locks, held for no call.
//!
//! Upstream: `dma-fence.c`, `dma-fence-array.c`, `xe_wait_user_fence.c` (`ufence_wq`).

use std::collections::VecDeque;
use std::sync::Arc;

use sync::rank::mutex;
use sync::time::now_ns;
use sync::{Condvar, Mutex, MutexGuard, Polling, Told};

use crate::errno::Errno;
use crate::ranks;

/// What a fence ended with. An error counts as an end like any other.
pub(crate) type Ended = Result<(), Errno>;

/// Something that comes to an end once, with a result, and wakes who waits for it. A clone of its `Arc` gets it, a drop
/// puts it. Upstream: `struct dma_fence`.
pub(crate) struct Fence {
    state: Mutex<FenceState>,
    signalled: Condvar,
}

enum FenceState {
    Pending(Vec<Follower>),
    /// How, and when.
    Over(Ended, u64),
}

/// What happens when a fence comes to its end.
enum Follower {
    Call(Box<dyn FnOnce(Ended) + Send>),
    Part(Arc<Whole>),
    Ring(Arc<Bell>),
}

/// A fence that ends with the last of others.
struct Whole {
    parts: Mutex<Parts>,
    fence: Arc<Fence>,
}

struct Parts {
    left: usize,
    result: Ended,
}

impl Fence {
    /// One that has not come to its end.
    pub(crate) fn new() -> Arc<Self> {
        Self::with(FenceState::Pending(Vec::new()))
    }

    /// One that has.
    pub(crate) fn over(result: Ended) -> Arc<Self> {
        Self::with(FenceState::Over(result, now_ns()))
    }

    fn with(state: FenceState) -> Arc<Self> {
        Arc::new(Self { state: mutex(ranks::LEAF, state), signalled: Condvar::new() })
    }

    /// One that ends when all of `fences` have, with an error if one of them did. Upstream: `dma_fence_array`.
    pub(crate) fn all(fences: impl IntoIterator<Item = Arc<Self>>) -> Arc<Self> {
        let (mut pending, mut result) = (Vec::new(), Ok(()));
        for fence in fences {
            match fence.result() {
                None => pending.push(fence),
                Some(ended) => result = result.and(ended),
            }
        }
        match &pending[..] {
            [] => Self::over(result),
            [only] if result.is_ok() => only.clone(),
            _ => {
                let parts = mutex(ranks::LEAF, Parts { left: pending.len(), result });
                let whole = Arc::new(Whole { parts, fence: Self::new() });
                pending.iter().for_each(|part| part.follow(Follower::Part(whole.clone())));
                whole.fence.clone()
            }
        }
    }

    /// Its end. The first one counts. What follows is done by this thread, which holds no leaf lock.
    pub(crate) fn signal(&self, result: Ended) {
        run_followers(self.end(result), result);
    }

    /// How it ended, if it has.
    pub(crate) fn result(&self) -> Option<Ended> {
        let state = self.state.lock();
        sync::tell(&state, Told::Looks);
        match &*state {
            FenceState::Pending(_) => None,
            FenceState::Over(result, _) => Some(*result),
        }
    }

    /// The same, and when that was.
    pub(crate) fn over_since(&self) -> Option<(Ended, u64)> {
        match &*self.state.lock() {
            FenceState::Pending(_) => None,
            FenceState::Over(result, ns) => Some((*result, *ns)),
        }
    }

    /// Whether it has come to its end.
    pub(crate) fn is_over(&self) -> bool {
        self.result().is_some()
    }

    /// Waits for its end; `None` where `deadline_ns` came first.
    pub(crate) fn wait(&self, deadline_ns: Option<u64>) -> Option<Ended> {
        self.wait_by(deadline_ns, |state, deadline| self.signalled.wait_until(state, deadline))
    }

    /// The same, where the end may come soon.
    fn poll(&self, deadline_ns: Option<u64>, polling: &Polling) -> Option<Ended> {
        self.wait_by(deadline_ns, |state, deadline| self.signalled.poll_until(state, deadline, polling))
    }

    fn wait_by(
        &self,
        deadline_ns: Option<u64>,
        wait: impl Fn(&mut MutexGuard<'_, FenceState>, u64) -> bool,
    ) -> Option<Ended> {
        let mut state = self.state.lock();
        loop {
            sync::tell(&state, Told::Looks);
            if let FenceState::Over(result, _) = &*state {
                return Some(*result);
            }
            if deadline_ns.is_some_and(|deadline| deadline <= now_ns()) {
                return None;
            }
            wait(&mut state, deadline_ns.unwrap_or(u64::MAX));
        }
    }

    /// Calls back at its end: now, if that was. The call takes leaf locks only, and touches no memory of the program; the
    /// caller holds no leaf lock.
    pub(crate) fn on_signal(&self, call: impl FnOnce(Ended) + Send + 'static) {
        self.follow(Follower::Call(Box::new(call)));
    }

    /// Rings at its end, unless [`silence`](Self::silence)d before.
    pub(crate) fn ring(&self, bell: &Arc<Bell>) {
        self.follow(Follower::Ring(bell.clone()));
    }

    /// Rings that bell no more.
    pub(crate) fn silence(&self, bell: &Arc<Bell>) {
        if let FenceState::Pending(followers) = &mut *self.state.lock() {
            followers.retain(|follower| !matches!(follower, Follower::Ring(one) if Arc::ptr_eq(one, bell)));
        }
    }

    fn follow(&self, follower: Follower) {
        let result = match &mut *self.state.lock() {
            FenceState::Pending(followers) => return followers.push(follower),
            FenceState::Over(result, _) => *result,
        };
        run_followers(vec![follower], result);
    }

    /// Notes the end; what follows, which is nothing where it had ended before.
    fn end(&self, result: Ended) -> Vec<Follower> {
        let mut state = self.state.lock();
        let FenceState::Pending(followers) = &mut *state else {
            sync::tell(&state, Told::Looks);
            return Vec::new();
        };
        let followers = std::mem::take(followers);
        *state = FenceState::Over(result, now_ns());
        drop(state);
        self.signalled.notify_all();
        followers
    }
}

/// Does what follows a fence's end. No recursion: a program may chain as many fences as it likes.
fn run_followers(followers: Vec<Follower>, result: Ended) {
    let mut todo: VecDeque<_> = followers.into_iter().map(|follower| (follower, result)).collect();
    while let Some((follower, result)) = todo.pop_front() {
        match follower {
            Follower::Call(call) => call(result),
            Follower::Ring(bell) => bell.ring(),
            Follower::Part(whole) => {
                if let Some(result) = whole.part_ended(result) {
                    todo.extend(whole.fence.end(result).into_iter().map(|follower| (follower, result)));
                }
            }
        }
    }
}

impl Whole {
    /// The end of the whole, if that was the last part's.
    fn part_ended(&self, result: Ended) -> Option<Ended> {
        let mut parts = self.parts.lock();
        parts.left -= 1;
        parts.result = parts.result.and(result);
        (parts.left == 0).then_some(parts.result)
    }
}

/// What wakes one thread that waits for any of several things.
pub(crate) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    /// Not rung yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { rung: mutex(ranks::LEAF, false), changed: Condvar::new() })
    }

    /// Wakes who waits, or will.
    pub(crate) fn ring(&self) {
        *self.rung.lock() = true;
        self.changed.notify_all();
    }

    /// Waits until it was rung since the last wait; false where `deadline_ns` came first.
    pub(crate) fn wait(&self, deadline_ns: u64) -> bool {
        let mut rung = self.rung.lock();
        while !*rung {
            if deadline_ns <= now_ns() {
                return false;
            }
            self.changed.wait_until(&mut rung, deadline_ns);
        }
        *rung = false;
        true
    }
}

/// Names a queue to those who wait; never one that came later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QueueId(pub u64);

/// What a waiter may wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Happened {
    /// The driver wrote the fence at this address.
    Written(u64),
    /// A job of this queue ended, and wrote the fence at this address if it had one.
    JobDone(QueueId, Option<u64>),
    /// A batch asked for an interrupt, or waits itself: its stores up to there are done.
    Interrupt,
    /// The queue was banned, or closed.
    Ended(QueueId),
}

/// Threads that wait for memory to change.
pub(crate) struct Waiters {
    list: Mutex<Vec<Waiter>>,
    /// How soon it does.
    polling: Polling,
}

struct Waiter {
    addr: u64,
    queue: Option<QueueId>,
    fence: Arc<Fence>,
}

/// What the list has of an address, and of a queue.
const fn part_of(addr: u64) -> u64 {
    addr << 1
}

const fn part_of_queue(queue: Option<QueueId>) -> u64 {
    match queue {
        Some(QueueId(number)) => number << 1 | 1,
        None => u64::MAX,
    }
}

impl Happened {
    /// Tells which waiters are looked for.
    fn tell(self, list: &MutexGuard<'_, Vec<Waiter>>) {
        let of = |queue| Some(part_of_queue(Some(queue)));
        let parts = match self {
            // All of them: nothing is told.
            Happened::Interrupt => [None; 3],
            Happened::Written(addr) => [Some(part_of(addr)), None, None],
            Happened::JobDone(queue, addr) => [addr.map(part_of), of(queue), Some(part_of_queue(None))],
            Happened::Ended(queue) => [of(queue), None, None],
        };
        sync::tell_each(list, parts.into_iter().flatten().map(Told::Reads));
    }
}

impl Waiter {
    fn parts(&self) -> impl Iterator<Item = u64> + use<> {
        [part_of(self.addr), part_of_queue(self.queue)].into_iter()
    }

    /// How this ends its wait, if it does.
    fn answer(&self, happened: Happened) -> Option<Result<(), Errno>> {
        let concerns = match happened {
            Happened::Interrupt => true,
            Happened::Written(addr) => addr == self.addr,
            // Without a queue nobody is named who will write: it may be a store of any batch.
            Happened::JobDone(queue, addr) => self.queue.is_none_or(|own| own == queue) || addr == Some(self.addr),
            Happened::Ended(queue) => return (self.queue == Some(queue)).then_some(Err(Errno::EIO)),
        };
        concerns.then_some(Ok(()))
    }
}

impl Waiters {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self { list: mutex(ranks::LEAF, Vec::new()), polling: Polling::new() }
    }

    /// From now on what happens to the memory at `addr`, or to `queue`, is not missed. To be called before memory is
    /// read, and again before it is read again.
    pub(crate) fn listen(&self, addr: u64, queue: Option<QueueId>) -> Listening<'_> {
        let fence = Fence::new();
        let waiter = Waiter { addr, queue, fence: fence.clone() };
        let mut list = self.list.lock();
        sync::tell_each(&list, waiter.parts().map(Told::Writes));
        list.push(waiter);
        drop(list);
        Listening { waiters: self, fence }
    }

    /// Wakes those whom it concerns.
    pub(crate) fn wake(&self, happened: Happened) {
        let woken = |waiter: &Waiter| Some((waiter.fence.clone(), waiter.answer(happened)?));
        let list = self.list.lock();
        happened.tell(&list);
        let woken: Vec<_> = list.iter().filter_map(woken).collect();
        drop(list);
        woken.into_iter().for_each(|(fence, result)| fence.signal(result));
    }
}

/// A waiter that is listed.
pub(crate) struct Listening<'a> {
    waiters: &'a Waiters,
    fence: Arc<Fence>,
}

impl Listening<'_> {
    /// Sleeps until something happened that concerns the waiter: `EIO` where its queue came to an end, `ETIME` where
    /// nothing happened before `deadline_ns`.
    pub(crate) fn wait(self, deadline_ns: Option<u64>) -> Result<(), Errno> {
        self.fence.poll(deadline_ns, &self.waiters.polling).unwrap_or(Err(Errno::ETIME))
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        let mut list = self.waiters.list.lock();
        let place = list.iter().position(|waiter| Arc::ptr_eq(&waiter.fence, &self.fence));
        if let Some(waiter) = place.map(|place| list.remove(place)) {
            sync::tell_each(&list, waiter.parts().map(Told::Writes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync::atomic::AtomicU64;

    const FAILED: Ended = Err(Errno::EIO);

    /// Counts calls by what they are called with.
    fn counter(fence: &Arc<Fence>) -> Arc<[AtomicU64; 2]> {
        let calls = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let counts = calls.clone();
        fence.on_signal(move |ended| _ = counts[usize::from(ended.is_err())].fetch_add(1));
        calls
    }

    #[test]
    fn a_fence_ends_once_and_calls_back_once() {
        let fence = Fence::new();
        let early = counter(&fence);
        assert_eq!((fence.result(), fence.wait(Some(0))), (None, None));
        fence.signal(FAILED);
        fence.signal(Ok(()));
        let late = counter(&fence);
        assert_eq!((fence.result(), fence.wait(None)), (Some(FAILED), Some(FAILED)));
        assert_eq!([early, late].map(|calls| (calls[0].load(), calls[1].load())), [(0, 1), (0, 1)]);
    }

    #[test]
    fn a_whole_ends_with_its_last_part_and_the_error_of_any() {
        let parts = [Fence::new(), Fence::new(), Fence::over(Ok(()))];
        let whole = Fence::all(parts.clone());
        parts[0].signal(FAILED);
        assert_eq!(whole.result(), None);
        parts[1].signal(Ok(()));
        assert_eq!(whole.result(), Some(FAILED));
        assert_eq!(Fence::all([]).result(), Some(Ok(())));
        assert_eq!(Fence::all(parts).result(), Some(FAILED));
        let only = Fence::new();
        assert!(Arc::ptr_eq(&only, &Fence::all([Fence::over(Ok(())), only.clone()])), "nothing else to wait for");
        assert!(!Arc::ptr_eq(&only, &Fence::all([Fence::over(FAILED), only.clone()])));
    }

    #[test]
    fn a_long_chain_of_fences_ends_without_recursion() {
        let first = Fence::new();
        let last = (0..200_000).fold(first.clone(), |before, _| {
            let own = Fence::new();
            let whole = Fence::all([before, own.clone()]);
            own.signal(Ok(()));
            whole
        });
        assert_eq!(last.result(), None);
        first.signal(Ok(()));
        assert_eq!(last.result(), Some(Ok(())));
    }

    #[test]
    fn a_bell_rings_until_it_is_silenced() {
        let (fence, other, bell) = (Fence::new(), Fence::new(), Bell::new());
        fence.ring(&bell);
        other.ring(&bell);
        assert!(!bell.wait(0));
        fence.signal(Ok(()));
        assert_eq!((bell.wait(0), bell.wait(0)), (true, false));
        other.silence(&bell);
        other.signal(Ok(()));
        assert!(!bell.wait(0));
        fence.ring(&bell);
        assert!(bell.wait(0), "it is over");
    }
}
