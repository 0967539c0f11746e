//! The operations of tasks: each comes to its scheduling point, waits until it can be done, and does it.

use super::UnlockRule;
use super::op::Op;
use super::report::LOCK_ORDER;
use super::schedule::Touch;
use super::scheduler::{Mode, Scheduler};
use super::state::{Next, lock_op};
use super::task::{TaskId, Wait};
use crate::hook::{Access, Body, Here, Holder, Hook, ObjectKind, OpKind, Queue, TaskKind, TaskRef, Told, Word};
use crate::rank::Rank;
use crate::tag::Tag;
use std::string::String;
use std::vec::Vec;

/// What a yield costs of virtual time where all do no more than yield, so that who polls the clock sees it move.
const YIELD_NS: u64 = 1_000;

impl Hook for Scheduler<'_> {
    #[inline]
    fn acquire(&self, word: &dyn Word, tag: &Tag, access: Access) -> bool {
        if self.is_scheduling() {
            let mut state = self.state();
            let object = state.lock_with(word, tag);
            if state.take_at_once(object, access) {
                return true;
            }
        }
        self.acquire_slowly(word, tag, access)
    }

    fn try_acquire(&self, word: &dyn Word, access: Access) -> bool {
        let object = self.state().lock(word);
        self.point(match (word.kind(), access) {
            (ObjectKind::RwLock, Access::Shared) => Op::new(OpKind::TryRead, object),
            (ObjectKind::RwLock, Access::Exclusive) => Op::new(OpKind::TryWrite, object),
            _ => Op::new(OpKind::TryLock, object),
        });
        let taken = word.take(access);
        if taken {
            self.taken(object, access);
        }
        taken
    }

    #[inline]
    fn release(&self, word: &dyn Word, tag: &Tag, access: Access) {
        let mut state = self.state();
        let object = state.lock_with(word, tag);
        if state.limits.unlock == UnlockRule::Point {
            drop(state);
            self.point_at_unlock(object);
            state = self.state();
        }
        state.given_back(object, access);
    }

    fn downgrade(&self, word: &dyn Word, downgrade: &dyn Fn()) {
        let object = self.state().lock(word);
        downgrade();
        self.state().given_back(object, Access::Exclusive);
        self.taken(object, Access::Shared);
    }

    #[inline]
    fn listens(&self) -> bool {
        self.state().listens()
    }

    #[inline]
    fn tell(&self, word: &dyn Word, told: Told) {
        let mut state = self.state();
        let object = state.lock(word);
        state.touch(Touch::Told { object, told });
    }

    fn set_floor(&self, floor: Rank) -> Rank {
        self.state().set_floor(floor)
    }

    fn wait(&self, condvar: &Tag, mutex: &dyn Word, deadline_ns: Option<u64>) -> bool {
        let condvar = self.state().object(condvar, ObjectKind::Condvar);
        let object = self.state().lock(mutex);
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
        if self.state().began_with(Op::new(OpKind::Lock, object)) {
            self.state().touch(Touch::Waits { object: condvar });
        } else {
            self.point(Op::new(OpKind::Wait, condvar));
        }
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

    fn notify_one(&self, condvar: &Tag) {
        let condvar = self.notify_point(condvar);
        if !self.state().has_waiters() {
            return;
        }
        let waiters = self.state().waiters(condvar);
        let chosen = self.choose(waiters.len() as u32);
        if let Some(task) = waiters.get(chosen as usize) {
            self.state().notify(condvar, *task);
        }
    }

    fn notify_all(&self, condvar: &Tag) {
        let condvar = self.notify_point(condvar);
        let mut state = self.state();
        if state.has_waiters() {
            state.notify_all(condvar);
        }
    }

    fn notify_all_held(&self, condvar: &Tag) {
        let mut state = self.state();
        if state.has_waiters() {
            let condvar = state.object(condvar, ObjectKind::Condvar);
            state.notify_all(condvar);
        }
    }

    #[inline]
    fn access(&self, tag: &Tag, kind: OpKind) {
        if self.mode() == Mode::Quiet {
            return;
        }
        let mut state = self.state();
        let object = state.object(tag, ObjectKind::Atomic);
        let next = state.come_to(Op::new(kind, object));
        drop(state);
        self.follow_or_unwind(next);
    }

    fn point(&self, kind: OpKind) {
        Scheduler::point(self, Op::bare(kind));
    }

    fn spawn(&self, name: &'static str, kind: TaskKind, body: Body) -> Option<TaskRef> {
        self.spawn_task(name, kind, body)
    }

    fn join(&self, task: TaskRef, has_ended: &dyn Fn() -> bool) -> bool {
        if self.state().epoch != task.epoch {
            return false;
        }
        let wait = Wait::End { serial: task.serial };
        if self.mode() == Mode::Quiet {
            while !has_ended() {
                self.park_quietly(wait);
            }
            return true;
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
        self.state().touch(Touch::Joined(task.serial));
        true
    }

    fn here(&self) -> Here {
        let mut state = self.state();
        let step = state.steps;
        let task = state.current();
        Here { step, serial: task.serial, name: task.name }
    }

    fn holders(&self) -> Vec<Holder> {
        let state = self.state();
        let holds = state.live.into_iter().filter(|task| state.held_ranks[task.slot()] != 0);
        let ranks = |task: TaskId| Rank::of_bits(state.held_ranks[task.slot()]);
        holds.map(|task| Holder { serial: state.tasks[task.index()].serial, ranks: ranks(task) }).collect()
    }

    fn now_ns(&self) -> u64 {
        let mut state = self.state();
        state.touch(Touch::TimeRead);
        state.now_ns
    }

    fn sleep_ns(&self, ns: u64) {
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

    fn yield_now(&self) {
        if self.mode() == Mode::Quiet {
            return self.park_quietly(Wait::Turn);
        }
        let mut state = self.state();
        if state.all_yield() {
            let until_ns = state.now_ns.saturating_add(YIELD_NS);
            state.touch(Touch::Idle);
            state.pass_time_to(until_ns);
        }
        drop(state);
        self.point(Op::bare(OpKind::Yield));
    }

    fn choose(&self, n: u32) -> u32 {
        if n < 2 || self.mode() == Mode::Quiet {
            return 0;
        }
        if self.state().is_out_of_steps() {
            self.point(Op::bare(OpKind::Choose));
        }
        self.state().choose(n)
    }

    fn starts(&self) -> bool {
        self.is_wanted()
    }

    fn panicked(&self, message: String, location: String) -> bool {
        self.found_panic(message, location)
    }
}

impl Scheduler<'_> {
    /// The point before a lock for which something has to be decided, or said, or that a task of the run holds; true where its word is left
    /// to the caller.
    #[inline(never)]
    fn acquire_slowly(&self, word: &dyn Word, tag: &Tag, access: Access) -> bool {
        if self.mode() == Mode::Quiet {
            let object = self.state().lock_with(word, tag);
            self.acquire_quietly(word, object, access);
            return false;
        }
        let mut state = self.state();
        let object = state.lock_with(word, tag);
        let (kind, rank, admitted) = state.find(object, access);
        if state.breaks_rank(rank) {
            let (held, floor) = state.held_and_floor();
            drop(state);
            blame_rank(rank, held, floor);
        }
        let op = Op::new(lock_op(kind, access), object);
        if !admitted {
            state.set_pending(op);
            drop(state);
            self.acquire_held(word, object, access);
            return false;
        }
        match state.come_to(op) {
            Next::Stay => state.taken(object, access),
            next => {
                drop(state);
                self.acquire_later(word, object, access, next);
                return false;
            }
        }
        true
    }

    /// The point before a lock is taken that tasks of this run hold, or hold up, and the wait for it.
    #[cold]
    fn acquire_held(&self, word: &dyn Word, object: u32, access: Access) {
        let mut state = self.state();
        // A writer can always go on: it queues up, which others see.
        if !state.queues_up() {
            state.set_wait(Wait::Lock { object, access }, false);
        }
        let next = state.decide();
        drop(state);
        self.follow_or_unwind(next);
        self.take(word, object, access);
    }

    /// Takes a lock that would have admitted the current task, had `next` not been decided.
    #[cold]
    fn acquire_later(&self, word: &dyn Word, object: u32, access: Access, next: Next) {
        let mut state = self.state();
        // Others may take it meanwhile.
        if !state.queues_up() {
            state.set_wait(Wait::Lock { object, access }, true);
        }
        drop(state);
        self.follow_or_unwind(next);
        self.take(word, object, access);
    }

    #[cold]
    fn point_at_unlock(&self, object: u32) {
        if self.is_scheduling() {
            self.state().set_pending(Op::new(OpKind::Unlock, object));
            // Where the run is over now, the next operation will unwind.
            let _ = self.reschedule();
        }
    }

    /// Takes a lock that the current task waited for at a point.
    fn take(&self, word: &dyn Word, object: u32, access: Access) {
        while !word.take(access) {
            if !self.state().is_ours(object) {
                word.take_live(access);
                break;
            }
            self.queue(word, object, Queue::Enter);
            {
                let mut state = self.state();
                // A writer that has queued up takes the lock when it is free, as others do.
                state.set_pending(Op::new(if access == Access::Shared { OpKind::Read } else { OpKind::Lock }, object));
                state.set_wait(Wait::Lock { object, access }, false);
            }
            let waited = self.reschedule();
            self.queue(word, object, Queue::Leave);
            if waited.is_err() {
                self.unwind();
            }
        }
        self.taken(object, access);
    }

    fn acquire_quietly(&self, word: &dyn Word, object: u32, access: Access) {
        while !word.take(access) {
            if !self.state().is_ours(object) {
                word.take_live(access);
                break;
            }
            self.park_quietly(Wait::Lock { object, access });
        }
        self.taken(object, access);
    }

    /// The current task has the lock.
    fn taken(&self, object: u32, access: Access) {
        let mut state = self.state();
        let task = state.running();
        state.wake(task);
        state.taken(object, access);
    }

    fn queue(&self, word: &dyn Word, object: u32, step: Queue) {
        word.queue(step);
        self.state().queue(object, step);
    }

    fn give_back(&self, word: &dyn Word, object: u32, access: Access) {
        word.give_back(access);
        self.state().given_back(object, access);
    }

    fn limit_wait(&self, state: &mut super::state::State<'_>, deadline_ns: Option<u64>) {
        if let Some(deadline_ns) = deadline_ns {
            state.set_deadline(deadline_ns);
            let now_ns = state.now_ns;
            state.pass_time_to(now_ns);
        }
    }

    fn notify_point(&self, condvar: &Tag) -> u32 {
        let condvar = self.state().object(condvar, ObjectKind::Condvar);
        self.point(Op::new(OpKind::Notify, condvar));
        condvar
    }
}

/// Panics, and says which rule was broken.
#[cold]
fn blame_rank(rank: Rank, held: u64, floor: Rank) -> ! {
    if rank < floor {
        panic!("{LOCK_ORDER}a reader took a lock that it may have to wait for: {rank:?} is below {floor:?}");
    }
    panic!("{LOCK_ORDER}a lock of rank {rank:?} was taken under one of rank {:?}", Rank::highest(held));
}
