//! The operations of tasks: each comes to its scheduling point, waits until it can be done, and does it.

use super::UnlockRule;
use super::op::{ObjectKind, Op, OpKind};
use super::scheduler::{Mode, Scheduler, TaskRef};
use super::task::{Access, Wait};
use crate::rank::Rank;
use crate::tag::Tag;

/// What a yield costs of virtual time, so that who polls the clock sees it move.
const YIELD_NS: u64 = 1_000;

/// A lock's word, as the scheduler takes it.
pub(crate) trait Word {
    /// Mutex or reader-writer lock.
    const KIND: ObjectKind;
    fn tag(&self) -> &Tag;
    fn rank(&self) -> Rank;
    /// Whether it could be taken now.
    fn admits(&self, access: Access) -> bool;
    /// Takes it, if it can be taken now.
    fn take(&self, access: Access) -> bool;
    /// Takes it, blocking the OS thread: a live thread has it.
    fn take_live(&self, access: Access);
    /// Gives it back, and wakes live threads that sleep on it.
    fn give_back(&self, access: Access);
    /// Counts who wants it alone, or counts it no more.
    fn queue(&self, step: Queue);
}

/// In or out of the queue of those that want a lock alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    Enter,
    Leave,
}

impl Scheduler<'_> {
    // Locks

    /// Takes a lock.
    pub(crate) fn acquire<W: Word>(&self, word: &W, access: Access) {
        if self.mode() == Mode::Quiet {
            let object = self.number(word);
            return self.acquire_quietly(word, object, access);
        }
        let kind = match (W::KIND, access) {
            (ObjectKind::RwLock, Access::Shared) => OpKind::Read,
            (ObjectKind::RwLock, Access::Exclusive) => OpKind::Write,
            _ => OpKind::Lock,
        };
        let mut state = self.state();
        let object = state.object(word.tag(), W::KIND, word.rank());
        let (held, floor) = (state.current().held_ranks, state.current().floor);
        if breaks_rank(word.rank(), held, floor) {
            drop(state);
            blame_rank(word.rank(), held, floor);
        }
        state.set_pending(Op::new(kind, object));
        // A writer can always go on: it queues up, which others see.
        if kind != OpKind::Write {
            let admitted = word.admits(access) || !state.is_ours(object);
            state.set_wait(Wait::Lock { object, access }, admitted);
        }
        drop(state);
        if self.reschedule().is_err() {
            self.unwind();
        }
        self.take(word, object, access);
    }

    /// Takes a lock if it is free.
    pub(crate) fn try_acquire<W: Word>(&self, word: &W, access: Access) -> bool {
        let object = self.number(word);
        self.point(match (W::KIND, access) {
            (ObjectKind::RwLock, Access::Shared) => Op::new(OpKind::TryRead, object),
            (ObjectKind::RwLock, Access::Exclusive) => Op::new(OpKind::TryWrite, object),
            _ => Op::new(OpKind::TryLock, object),
        });
        let taken = word.take(access);
        if taken {
            self.taken(word, object, access);
        }
        taken
    }

    /// Gives a lock back. Never unwinds, so it can be called by a guard that is dropped.
    pub(crate) fn release<W: Word>(&self, word: &W, access: Access) {
        let mut state = self.state();
        let object = state.object(word.tag(), W::KIND, word.rank());
        if state.limits.unlock == UnlockRule::Point && self.is_scheduling() {
            state.set_pending(Op::new(OpKind::Unlock, object));
            drop(state);
            // Where the run is over now, the next operation will unwind.
            let _ = self.reschedule();
        } else {
            drop(state);
        }
        self.give_back(word, object, access);
    }

    /// Turns exclusive into shared access.
    pub(crate) fn downgrade<W: Word>(&self, word: &W, downgrade: impl FnOnce()) {
        let object = self.number(word);
        downgrade();
        self.state().given_back(object, word.rank(), Access::Exclusive);
        self.taken(word, object, Access::Shared);
    }

    /// Takes a lock that the current task waited for at a point.
    fn take<W: Word>(&self, word: &W, object: u32, access: Access) {
        while !word.take(access) {
            if !self.state().is_ours(object) {
                word.take_live(access);
                break;
            }
            self.queue(word, object, Queue::Enter);
            self.state().set_wait(Wait::Lock { object, access }, false);
            let waited = self.reschedule();
            self.queue(word, object, Queue::Leave);
            if waited.is_err() {
                self.unwind();
            }
        }
        self.taken(word, object, access);
    }

    fn acquire_quietly<W: Word>(&self, word: &W, object: u32, access: Access) {
        while !word.take(access) {
            if !self.state().is_ours(object) {
                word.take_live(access);
                break;
            }
            self.park_quietly(Wait::Lock { object, access });
        }
        self.taken(word, object, access);
    }

    /// The current task has the lock.
    fn taken<W: Word>(&self, word: &W, object: u32, access: Access) {
        let mut state = self.state();
        let task = state.current;
        state.wake(task);
        state.taken(object, word.rank(), access);
        state.refresh(object, |access| word.admits(access));
    }

    fn queue<W: Word>(&self, word: &W, object: u32, step: Queue) {
        word.queue(step);
        let mut state = self.state();
        state.queue(object, step);
        state.refresh(object, |access| word.admits(access));
    }

    fn give_back<W: Word>(&self, word: &W, object: u32, access: Access) {
        word.give_back(access);
        let mut state = self.state();
        state.given_back(object, word.rank(), access);
        state.refresh(object, |access| word.admits(access));
    }

    fn number<W: Word>(&self, word: &W) -> u32 {
        self.state().object(word.tag(), W::KIND, word.rank())
    }

    /// From now on the current task takes nothing below `floor`; gives what that was before.
    pub(crate) fn set_floor(&self, floor: Rank) -> Rank {
        core::mem::replace(&mut self.state().current().floor, floor)
    }

    // Waiting

    /// Releases the mutex, waits for a notification or for the time, takes the mutex again; false where the time
    /// came first.
    pub(crate) fn wait<W: Word>(&self, condvar: &Tag, mutex: &W, deadline_ns: Option<u64>) -> bool {
        let condvar = self.state().object(condvar, ObjectKind::Condvar, Rank::NONE);
        let object = self.number(mutex);
        let wait = Wait::Notification { condvar, mutex: object };
        if self.mode() == Mode::Quiet {
            if deadline_ns.is_some() {
                return false;
            }
            self.give_back(mutex, object, Access::Exclusive);
            self.park_quietly(wait);
            self.acquire_quietly(mutex, object, Access::Exclusive);
            return true;
        }
        self.point(Op::new(OpKind::Wait, condvar));
        self.give_back(mutex, object, Access::Exclusive);
        {
            let mut state = self.state();
            state.current().timed_out = false;
            state.set_wait(wait, false);
            self.limit_wait(&mut state, deadline_ns);
        }
        let waited = self.reschedule();
        if waited.is_err() {
            // The guard that waits with us will release the mutex when it is dropped.
            self.begin_unwinding();
            self.acquire_quietly(mutex, object, Access::Exclusive);
            self.unwind();
        }
        self.take(mutex, object, Access::Exclusive);
        !self.state().current().timed_out
    }

    fn limit_wait(&self, state: &mut super::state::State<'_>, deadline_ns: Option<u64>) {
        if let Some(deadline_ns) = deadline_ns {
            state.set_deadline(deadline_ns);
            let now_ns = state.now_ns;
            state.pass_time_to(now_ns);
        }
    }

    /// Wakes all that wait for a notification.
    pub(crate) fn notify_all(&self, condvar: &Tag) {
        let condvar = self.notify_point(condvar);
        let mut state = self.state();
        if state.has_waiters() {
            state.waiters(condvar).into_iter().for_each(|task| state.notify(task));
        }
    }

    /// Wakes one that waits for a notification; which one is a choice.
    pub(crate) fn notify_one(&self, condvar: &Tag) {
        let condvar = self.notify_point(condvar);
        if !self.state().has_waiters() {
            return;
        }
        let waiters = self.state().waiters(condvar);
        let chosen = self.choose(waiters.len() as u32);
        if let Some(task) = waiters.get(chosen as usize) {
            self.state().notify(*task);
        }
    }

    fn notify_point(&self, condvar: &Tag) -> u32 {
        let condvar = self.state().object(condvar, ObjectKind::Condvar, Rank::NONE);
        self.point(Op::new(OpKind::Notify, condvar));
        condvar
    }

    /// Whether that task is one of this run.
    pub(crate) fn knows(&self, task: TaskRef) -> bool {
        self.state().epoch == task.epoch
    }

    /// Waits for the end of a task of this run.
    pub(crate) fn join(&self, task: TaskRef, has_ended: impl Fn() -> bool) {
        let wait = Wait::End { serial: task.serial };
        if self.mode() == Mode::Quiet {
            while !has_ended() {
                self.park_quietly(wait);
            }
            return;
        }
        {
            let mut state = self.state();
            state.set_pending(Op::new(OpKind::Join, 0));
            state.set_wait(wait, has_ended());
        }
        if self.reschedule().is_err() {
            self.unwind();
        }
        self.settle();
    }

    // Atomics, time, choice

    /// The point before an access to an atomic.
    #[inline]
    pub(crate) fn access(&self, tag: &Tag, kind: OpKind) {
        if self.mode() == Mode::Quiet {
            return;
        }
        let mut state = self.state();
        let object = state.object(tag, ObjectKind::Atomic, Rank::NONE);
        state.set_pending(Op::new(kind, object));
        drop(state);
        if self.reschedule().is_err() {
            self.unwind();
        }
    }

    /// A point on no object.
    pub(crate) fn bare_point(&self, kind: OpKind) {
        self.point(Op::bare(kind));
    }

    /// Virtual time.
    pub(crate) fn now_ns(&self) -> u64 {
        self.state().now_ns
    }

    /// Lets virtual time pass.
    pub(crate) fn sleep_ns(&self, ns: u64) {
        if ns == 0 || self.mode() == Mode::Quiet {
            return self.yield_now();
        }
        {
            let mut state = self.state();
            state.set_pending(Op::bare(OpKind::Sleep));
            state.set_wait(Wait::Time, false);
            let deadline_ns = state.now_ns.saturating_add(ns);
            state.set_deadline(deadline_ns);
        }
        if self.reschedule().is_err() {
            self.unwind();
        }
    }

    /// Lets others run first.
    pub(crate) fn yield_now(&self) {
        if self.mode() == Mode::Quiet {
            return self.park_quietly(Wait::Turn);
        }
        let until_ns = self.state().now_ns.saturating_add(YIELD_NS);
        self.state().pass_time_to(until_ns);
        self.point(Op::bare(OpKind::Yield));
    }

    /// A number below `n`, chosen by the schedule.
    pub(crate) fn choose(&self, n: u32) -> u32 {
        if n < 2 || self.mode() == Mode::Quiet {
            return 0;
        }
        if self.state().is_out_of_steps() {
            self.point(Op::bare(OpKind::Choose));
        }
        self.state().choose(n)
    }
}

/// Whether to wait for a lock of `rank` breaks a rule of [`crate::rank`], for a task with that floor that holds locks
/// of the ranks `held`.
fn breaks_rank(rank: Rank, held: u64, floor: Rank) -> bool {
    rank < floor || (rank != Rank::NONE && Rank::highest(held) >= rank)
}

/// Panics, and says which rule was broken.
#[cold]
fn blame_rank(rank: Rank, held: u64, floor: Rank) -> ! {
    if rank < floor {
        panic!("a reader took a lock that it may have to wait for: {rank:?} is below {floor:?}");
    }
    panic!("lock order: a lock of rank {rank:?} was taken under one of rank {:?}", Rank::highest(held));
}
