//! The state of a run: who lives, who can run, what they wait for, what time it is, and the next decision.
//!
//! `decide` makes the decisions. Nothing here switches stacks: [`super::scheduler`] does what is decided.

mod decide;

use super::op::Op;
use super::report::{Blocked, BlockedOn, Outcome, Step, TaskInfo};
use super::schedule::{Deviation, Schedule, Touch};
use super::task::{MAX_TASKS, Task, TaskId, TaskSet, Wait};
use super::{Limits, TimeRule};
use crate::hook::{Access, ObjectKind, OpKind, Queue, TaskKind, Word};
use crate::rank::Rank;
use crate::tag::Tag;
use std::vec::Vec;

/// Virtual time at the start of a run: not 0, so that "long ago" can be expressed.
const START_NS: u64 = 1_000_000_000;

/// An object that the run has seen.
struct Object {
    kind: ObjectKind,
    rank: Rank,
    /// Its rank as a bit of those that a task holds.
    rank_bit: u64,
    /// Who holds any of these ranks, or a number above, may not wait for it.
    rank_limit: u64,
    /// Who holds it alone.
    owner: Option<TaskId>,
    /// How many hold it shared.
    readers: u32,
    /// How many queue up to hold it alone, and thereby hold up new readers.
    queued: u32,
    /// Live tasks with [`Wait::Lock`] for it.
    wanted: u32,
}

impl Object {
    /// Whether it can be taken, as far as tasks of this run hold it or hold it up.
    const fn admits(&self, access: Access) -> bool {
        self.owner.is_none()
            && match access {
                Access::Shared => self.queued == 0,
                Access::Exclusive => self.readers == 0,
            }
    }

    /// A task has it.
    fn hold(&mut self, task: TaskId, access: Access) {
        match access {
            Access::Exclusive => self.owner = Some(task),
            Access::Shared => self.readers += 1,
        }
    }
}

/// The operation that takes such a lock.
pub(super) const fn lock_op(kind: ObjectKind, access: Access) -> OpKind {
    match (kind, access) {
        (ObjectKind::RwLock, Access::Shared) => OpKind::Read,
        (ObjectKind::RwLock, Access::Exclusive) => OpKind::Write,
        _ => OpKind::Lock,
    }
}

/// What the current task has to do after a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Go on.
    Stay,
    /// Let this one run.
    Switch(TaskId),
    /// Unwind: the run is over.
    Abandon,
}

pub(super) struct State<'s> {
    schedule: &'s mut dyn Schedule,
    /// Whether the schedule sees everything.
    watched: bool,
    /// Whether it is asked only who of those that can run goes on.
    plain: bool,
    /// Who could run, and who was taken, when it was asked last.
    asked: (TaskSet, TaskId),
    /// How often that one is taken again by the same question without being asked for; nobody has started since.
    left: u64,
    /// How often it was.
    went_on: u64,
    /// How many points may still pass without a look at who can run and who is taken: what was decided last holds as long as these
    /// are the same.
    quick: u64,
    /// How many there were when it was decided.
    quick_from: u64,
    /// Whether each of them is one of `left`.
    quick_is_left: bool,
    pub(super) limits: Limits,
    current: TaskId,
    pub(super) tasks: Vec<Task>,
    /// What each task does next.
    pending: [Op; MAX_TASKS],
    /// Ranks of the locks that each holds, a bit each.
    pub(super) held_ranks: [u64; MAX_TASKS],
    /// The lowest rank that each may take.
    floors: [Rank; MAX_TASKS],
    pub(super) live: TaskSet,
    runnable: TaskSet,
    /// Live tasks with [`Wait::Lock`].
    locking: TaskSet,
    /// Live tasks with [`Wait::Notification`].
    waiting: TaskSet,
    /// Tasks whose wait has a deadline.
    timed: TaskSet,
    workers: u32,
    pub(super) now_ns: u64,
    objects: Vec<Object>,
    pub(super) epoch: u32,
    waits: u64,
    pub(super) steps: u64,
    pub(super) switches: u64,
    pub(super) trace_hash: u64,
    pub(super) deviations: Vec<Deviation>,
    pub(super) all_tasks: Vec<TaskInfo>,
    pub(super) trace: Vec<Step>,
    pub(super) outcome: Option<Outcome>,
}

impl<'s> State<'s> {
    pub(super) fn new(schedule: &'s mut dyn Schedule, limits: Limits) -> Self {
        let watched = schedule.watches();
        Self {
            watched,
            plain: !watched && limits.time == TimeRule::WhenIdle,
            asked: (TaskSet::EMPTY, TaskId(0)),
            left: 0,
            went_on: 0,
            quick: 0,
            quick_from: 0,
            quick_is_left: false,
            schedule,
            limits,
            current: TaskId(0),
            tasks: Vec::with_capacity(8),
            pending: [Op::bare(OpKind::End); MAX_TASKS],
            held_ranks: [0; MAX_TASKS],
            floors: [Rank::NONE; MAX_TASKS],
            live: TaskSet::EMPTY,
            runnable: TaskSet::EMPTY,
            locking: TaskSet::EMPTY,
            waiting: TaskSet::EMPTY,
            timed: TaskSet::EMPTY,
            workers: 0,
            now_ns: START_NS,
            objects: Vec::with_capacity(128),
            epoch: Tag::next_epoch(),
            waits: 0,
            steps: 0,
            switches: 0,
            trace_hash: 0,
            deviations: Vec::with_capacity(32),
            all_tasks: Vec::with_capacity(8),
            trace: Vec::new(),
            outcome: None,
        }
    }

    pub(super) fn virtual_ns(&self) -> u64 {
        self.now_ns - START_NS
    }

    // Tasks

    /// Adds a runnable task; `None` where [`MAX_TASKS`] live.
    pub(super) fn add_task(&mut self, name: &'static str, kind: TaskKind) -> Option<(TaskId, u32)> {
        let place = (!self.live.0).trailing_zeros() as usize;
        if place >= MAX_TASKS {
            return None;
        }
        let (task, serial) = (TaskId(place as u8), self.all_tasks.len() as u32);
        let new = Task::new(name, serial, kind);
        if place == self.tasks.len() {
            self.tasks.push(new);
        } else {
            self.tasks[place] = new;
        }
        self.pending[place] = Op::bare(OpKind::Start);
        (self.held_ranks[place], self.floors[place]) = (0, Rank::NONE);
        self.live.insert(task);
        self.set_runnable(task, true);
        self.left = 0;
        self.workers += u32::from(kind == TaskKind::Worker);
        self.all_tasks.push(TaskInfo { task, name, kind });
        self.schedule.started(task);
        Some((task, serial))
    }

    /// Takes the current task, which has ended, out of the run; false where that was the last worker.
    pub(super) fn end_current(&mut self) -> bool {
        let (task, serial) = (self.current, self.current().serial);
        self.wake(task);
        self.live.remove(task);
        self.set_runnable(task, false);
        self.pending[task.index()] = Op::bare(OpKind::End);
        self.workers -= u32::from(self.current().kind == TaskKind::Worker);
        for joiner in self.live {
            if self.tasks[joiner.index()].wait == (Wait::End { serial }) {
                self.wake(joiner);
            }
        }
        self.workers > 0
    }

    /// The task that runs.
    #[inline]
    pub(super) fn running(&self) -> TaskId {
        self.current
    }

    /// That task runs from now on.
    pub(super) fn set_running(&mut self, task: TaskId) {
        self.end_quick();
        self.current = task;
    }

    /// Tasks whose next operation can be done now.
    pub(super) fn runnable(&self) -> TaskSet {
        self.runnable
    }

    /// Whether a task can run, from now on.
    fn set_runnable(&mut self, task: TaskId, can: bool) {
        if self.runnable.contains(task) != can {
            self.end_quick();
            self.runnable.0 ^= 1 << task.0;
        }
    }

    #[inline]
    pub(super) fn current(&mut self) -> &mut Task {
        &mut self.tasks[self.current.index()]
    }

    #[inline]
    pub(super) fn set_pending(&mut self, op: Op) {
        self.pending[self.current.slot()] = op;
    }

    /// Whether to wait for a lock of that rank breaks a rule of [`crate::rank`] for the current task.
    #[inline]
    pub(super) fn breaks_rank(&self, rank: Rank) -> bool {
        let (held, floor) = self.held_and_floor();
        rank < floor || rank.is_overtaken_by(held)
    }

    /// The ranks of what the current task holds, a bit each, and the lowest that it may take.
    #[inline]
    pub(super) fn held_and_floor(&self) -> (u64, Rank) {
        (self.held_ranks[self.current.slot()], self.floors[self.current.slot()])
    }

    /// From now on the current task takes nothing below `floor`; gives what that was before.
    pub(super) fn set_floor(&mut self, floor: Rank) -> Rank {
        core::mem::replace(&mut self.floors[self.current.slot()], floor)
    }

    /// Whether the current task's step began with that operation.
    pub(super) fn began_with(&self, op: Op) -> bool {
        self.pending[self.current.index()] == op
    }

    /// Whether the current task is about to take a lock for which it can queue up without waiting.
    pub(super) fn queues_up(&self) -> bool {
        self.pending[self.current.index()].kind == OpKind::Write
    }

    // Waiting

    /// The current task waits; it is runnable only where it waits for its turn, or `admitted` by the lock.
    pub(super) fn set_wait(&mut self, wait: Wait, admitted: bool) {
        let task = self.current;
        self.waits_for(task, wait);
        if let Wait::Notification { .. } = wait {
            self.waits += 1;
            self.current().waiting_since = self.waits;
            self.waiting.insert(task);
        }
        if !admitted {
            self.set_runnable(task, false);
        }
    }

    /// What a task waits for from now on.
    fn waits_for(&mut self, task: TaskId, wait: Wait) {
        let before = core::mem::replace(&mut self.tasks[task.index()].wait, wait);
        if let Wait::Lock { object, .. } = before {
            self.of(object).wanted -= 1;
            self.locking.remove(task);
        }
        if let Wait::Lock { object, .. } = wait {
            self.of(object).wanted += 1;
            self.locking.insert(task);
        }
    }

    /// The current task's wait ends at that time.
    pub(super) fn set_deadline(&mut self, deadline_ns: u64) {
        self.touch(Touch::TimeRead);
        self.current().deadline_ns = deadline_ns;
        self.timed.insert(self.current);
    }

    /// The task waits for its turn only.
    pub(super) fn wake(&mut self, task: TaskId) {
        self.waits_for(task, Wait::Turn);
        self.waiting.remove(task);
        self.timed.remove(task);
        self.set_runnable(task, true);
    }

    /// Ends the wait of a task that was notified, or whose time has come: on to the mutex, where there is one.
    fn end_wait(&mut self, task: TaskId) {
        let wait = self.tasks[task.index()].wait;
        self.touch(Touch::Woke(task));
        self.wake(task);
        if let Wait::Notification { mutex, .. } = wait {
            self.waits_for(task, Wait::Lock { object: mutex, access: Access::Exclusive });
            self.pending[task.index()] = Op::new(OpKind::Lock, mutex);
            if self.seen(mutex).owner.is_some() {
                self.set_runnable(task, false);
            }
        }
    }

    /// The tasks that wait for a notification of that condition variable, who waits longest first.
    pub(super) fn waiters(&self, condvar: u32) -> Vec<TaskId> {
        let mut waiters: Vec<TaskId> = self.waiting_for(condvar).collect();
        waiters.sort_by_key(|task| self.tasks[task.index()].waiting_since);
        waiters
    }

    fn waiting_for(&self, condvar: u32) -> impl Iterator<Item = TaskId> {
        let waits_for_it = move |task: &TaskId| matches!(self.tasks[task.index()].wait, Wait::Notification { condvar: other, .. } if other == condvar);
        self.waiting.into_iter().filter(waits_for_it)
    }

    /// Notifies all that wait for that condition variable, who waits longest first.
    pub(super) fn notify_all(&mut self, condvar: u32) {
        let longest =
            |state: &Self| state.waiting_for(condvar).min_by_key(|task| state.tasks[task.index()].waiting_since);
        while let Some(task) = longest(self) {
            self.notify(condvar, task);
        }
    }

    pub(super) fn notify(&mut self, condvar: u32, task: TaskId) {
        self.touch(Touch::Notified { object: condvar });
        self.end_wait(task);
    }

    pub(super) fn has_waiters(&self) -> bool {
        !self.waiting.is_empty()
    }

    // Time

    /// Lets time come to `ns`, and ends the waits whose time that is.
    pub(super) fn pass_time_to(&mut self, ns: u64) {
        self.now_ns = self.now_ns.max(ns);
        for task in self.timed {
            if self.tasks[task.index()].deadline_ns <= self.now_ns {
                self.tasks[task.index()].timed_out = true;
                self.end_wait(task);
            }
        }
    }

    /// Whether the current task yields to tasks that all yield.
    pub(super) fn all_yield(&self) -> bool {
        let others = self.runnable.without(TaskSet(1 << self.current.0));
        others.into_iter().all(|task| self.pending[task.index()].kind == OpKind::Yield)
    }

    /// Lets time pass to the earliest deadline; false where there is none.
    fn pass_time(&mut self) -> bool {
        self.touch(Touch::Idle);
        let earliest = self.timed.into_iter().map(|task| self.tasks[task.index()].deadline_ns).min();
        earliest.map(|ns| self.pass_time_to(ns)).is_some()
    }

    // Objects

    /// The number of an object, given at its first use.
    ///
    /// # Panics
    /// Where a run uses more than [`Tag::MAX`] objects.
    #[inline]
    pub(super) fn object(&mut self, tag: &Tag, kind: ObjectKind) -> u32 {
        tag.get(self.epoch).unwrap_or_else(|| self.new_object(tag, kind, Rank::NONE))
    }

    /// The same, of a lock.
    #[inline]
    pub(super) fn lock(&mut self, word: &dyn Word) -> u32 {
        self.lock_with(word, word.tag())
    }

    /// The same, by its tag.
    #[inline]
    pub(super) fn lock_with(&mut self, word: &dyn Word, tag: &Tag) -> u32 {
        tag.get(self.epoch).unwrap_or_else(|| self.new_object(tag, word.kind(), word.rank()))
    }

    #[cold]
    fn new_object(&mut self, tag: &Tag, kind: ObjectKind, rank: Rank) -> u32 {
        let (rank_bit, rank_limit) = (rank.bit(), rank.limit());
        self.objects.push(Object { kind, rank, rank_bit, rank_limit, owner: None, readers: 0, queued: 0, wanted: 0 });
        let number = self.objects.len() as u32;
        assert!(number <= Tag::MAX, "too many objects in one run");
        tag.set(self.epoch, number);
        number
    }

    fn of(&mut self, object: u32) -> &mut Object {
        &mut self.objects[object as usize - 1]
    }

    fn seen(&self, object: u32) -> &Object {
        &self.objects[object as usize - 1]
    }

    /// A lock, as who wants it finds it: what it is, its rank, and whether it can be taken, as far as tasks of this run hold it
    /// or hold it up.
    #[inline]
    pub(super) fn find(&self, object: u32, access: Access) -> (ObjectKind, Rank, bool) {
        let seen = self.seen(object);
        (seen.kind, seen.rank, seen.admits(access))
    }

    /// Whether a task of this run holds that lock, or holds it up.
    pub(super) fn is_ours(&self, object: u32) -> bool {
        let object = self.seen(object);
        object.owner.is_some() || object.readers > 0 || object.queued > 0
    }

    /// The current task queues up for a lock, or does no more.
    pub(super) fn queue(&mut self, object: u32, step: Queue) {
        let queued = &mut self.of(object).queued;
        match step {
            Queue::Enter => *queued += 1,
            Queue::Leave => *queued -= 1,
        }
        self.refresh(object);
    }

    /// A point before a lock that the current task takes at once: nothing has to be decided, no task of the run holds it or holds it up,
    /// and its rank is in order. False where one of these is not so, and nothing was done.
    #[inline]
    pub(super) fn take_at_once(&mut self, object: u32, access: Access) -> bool {
        let slot = self.current.slot();
        let held = &mut self.held_ranks[slot];
        let wanted = &mut self.objects[object as usize - 1];
        let is_in_order = wanted.rank >= self.floors[slot] && *held < wanted.rank_limit;
        if self.quick == 0 || !is_in_order || !wanted.admits(access) {
            return false;
        }
        let kind = lock_op(wanted.kind, access);
        *held |= wanted.rank_bit;
        wanted.hold(self.current, access);
        let others = wanted.wanted > 0;
        self.pass_quickly(Op::new(kind, object));
        if others {
            self.refresh(object);
        }
        true
    }

    /// The current task, which waits for nothing, has taken a lock.
    #[inline]
    pub(super) fn taken(&mut self, object: u32, access: Access) {
        let task = self.current;
        let taken = self.of(object);
        taken.hold(task, access);
        let (rank, wanted) = (taken.rank_bit, taken.wanted);
        self.held_ranks[task.slot()] |= rank;
        if wanted > 0 {
            self.refresh(object);
        }
    }

    /// A lock was given back; by its owner, or by whoever the guard was sent to.
    #[inline]
    pub(super) fn given_back(&mut self, object: u32, access: Access) {
        if self.watched {
            self.touch(Touch::Released { object, shared: access == Access::Shared });
        }
        let given = self.of(object);
        let holder = match access {
            Access::Exclusive => given.owner.take(),
            Access::Shared => {
                given.readers = given.readers.saturating_sub(1);
                None
            }
        };
        let (rank, wanted) = (given.rank_bit, given.wanted);
        self.held_ranks[holder.unwrap_or(self.current).slot()] &= !rank;
        if wanted > 0 {
            self.refresh(object);
        }
    }

    /// A lock changed: those who want it are runnable as far as it admits them now.
    fn refresh(&mut self, object: u32) {
        let seen = self.seen(object);
        let (shared, exclusive) = (seen.admits(Access::Shared), seen.admits(Access::Exclusive));
        for task in self.locking {
            let Wait::Lock { object: wanted, access } = self.tasks[task.index()].wait else { continue };
            if wanted != object {
                continue;
            }
            self.set_runnable(task, if access == Access::Shared { shared } else { exclusive });
        }
    }

    // Findings

    fn blocked(&self) -> Vec<Blocked> {
        let told = |task: TaskId| {
            let Task { name, kind, wait, .. } = &self.tasks[task.index()];
            Blocked { task, name, kind: *kind, on: self.blocked_on(*wait) }
        };
        self.live.into_iter().map(told).collect()
    }

    fn blocked_on(&self, wait: Wait) -> BlockedOn {
        match wait {
            Wait::Lock { object, .. } => {
                let Object { kind, rank, owner, .. } = &self.objects[object as usize - 1];
                let owner = owner.map(|task| self.tasks[task.index()].name);
                BlockedOn::Lock { object, kind: *kind, rank: *rank, owner }
            }
            Wait::Notification { condvar, .. } => BlockedOn::Notification { condvar },
            Wait::End { serial } => BlockedOn::End { of: self.all_tasks[serial as usize].name },
            Wait::Turn | Wait::Time | Wait::Nothing => BlockedOn::Other,
        }
    }
}
