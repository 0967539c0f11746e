//! Tasks and sets of tasks.

use crate::hook::{Access, TaskKind};
use core::fmt;

/// The most tasks that may live at once.
pub const MAX_TASKS: usize = 64;

/// A task: its place among the tasks that live. The root is 0; the place of a task that has ended is given to
/// the next one that starts (the lowest free place first), so a schedule means the same in every replay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u8);

impl TaskId {
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The same in an array of [`MAX_TASKS`], of a task that lives: no bounds are checked.
    #[inline]
    pub(super) fn slot(self) -> usize {
        usize::from(self.0) % MAX_TASKS
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

/// A set of tasks, in ascending order.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskSet(pub u64);

impl TaskSet {
    /// Without members.
    pub const EMPTY: TaskSet = TaskSet(0);

    /// Whether it has no members.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many members it has.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether `task` is a member.
    pub fn contains(self, task: TaskId) -> bool {
        self.0 >> task.0 & 1 != 0
    }

    /// With `task`.
    pub fn insert(&mut self, task: TaskId) {
        self.0 |= 1 << task.0;
    }

    /// Without `task`.
    pub fn remove(&mut self, task: TaskId) {
        self.0 &= !(1 << task.0);
    }

    /// The members of either.
    pub fn union(self, other: TaskSet) -> TaskSet {
        TaskSet(self.0 | other.0)
    }

    /// The members of `self` that are none of `other`.
    pub fn without(self, other: TaskSet) -> TaskSet {
        TaskSet(self.0 & !other.0)
    }

    /// The lowest member.
    pub fn first(self) -> Option<TaskId> {
        (!self.is_empty()).then(|| TaskId(self.0.trailing_zeros() as u8))
    }

    /// The `n`th member, counted from 0.
    pub fn nth(self, n: u32) -> Option<TaskId> {
        self.into_iter().nth(n as usize)
    }

    /// The next member after `task`, and after the last one the first.
    pub fn after(self, task: TaskId) -> Option<TaskId> {
        let above = self.0 & (u64::MAX << task.0) & !(1 << task.0);
        if above != 0 { Some(TaskId(above.trailing_zeros() as u8)) } else { self.first() }
    }
}

impl IntoIterator for TaskSet {
    type Item = TaskId;
    type IntoIter = Members;
    fn into_iter(self) -> Members {
        Members(self.0)
    }
}

/// Iterates over a [`TaskSet`].
pub struct Members(u64);

impl Iterator for Members {
    type Item = TaskId;
    fn next(&mut self) -> Option<TaskId> {
        let task = TaskSet(self.0).first()?;
        self.0 &= self.0 - 1;
        Some(task)
    }
}

impl fmt::Debug for TaskSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(*self).finish()
    }
}

/// What a suspended task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing but its turn.
    Turn,
    /// A lock. Such a task is runnable as long as the lock would admit it.
    Lock { object: u32, access: Access },
    /// A notification, and then the mutex.
    Notification { condvar: u32, mutex: u32 },
    /// The end of a task.
    End { serial: u32 },
    /// Virtual time.
    Time,
    /// Nothing that will come: it was unwinding and did not end.
    Nothing,
}

/// One task.
pub(super) struct Task {
    pub(super) name: &'static str,
    /// Its number in the order of spawning.
    pub(super) serial: u32,
    pub(super) kind: TaskKind,
    pub(super) wait: Wait,
    /// When a wait with a limit ends.
    pub(super) deadline_ns: u64,
    /// Orders the waiters of a condition variable.
    pub(super) waiting_since: u64,
    pub(super) timed_out: bool,
    /// The run was abandoned and this task has begun to unwind.
    pub(super) unwinding: bool,
}

impl Task {
    pub(super) fn new(name: &'static str, serial: u32, kind: TaskKind) -> Self {
        Self {
            name,
            serial,
            kind,
            wait: Wait::Turn,
            deadline_ns: u64::MAX,
            waiting_since: 0,
            timed_out: false,
            unwinding: false,
        }
    }
}
