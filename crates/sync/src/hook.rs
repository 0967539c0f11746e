//! The hook: what locks, atomics, threads and the clock ask before they do anything.
//!
//! Who wants to drive a thread (the checker, [`crate::sim`]) implements [`Hook`], a table of functions, and installs
//! itself for as long as it runs ([`enter`]). Locks and atomics know the table and what goes through it, and nothing of
//! who fills it in; a lock that is not of this crate can call it in the same way.
//!
//! Key types: [`Hook`], [`Word`] (a lock, as a hook takes it), [`OpKind`] (what is about to be done).
//!
//! Locking: none; a hook is installed for one thread.
//!
//! Upstream: the hooks of lockdep and KCSAN in the kernel's locks.

use crate::rank::Rank;
use crate::tag::Tag;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

pub(crate) use crate::raw::current::{enter, with, with_listener};

/// What a thread runs.
pub type Body = Box<dyn FnOnce() + Send + 'static>;

/// The kinds of visible operations. Two operations on one object commute only where both are [`OpKind::Load`] or
/// [`OpKind::Read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum OpKind {
    /// The task runs for the first time.
    Start,
    /// The task has ended.
    End,
    Lock,
    TryLock,
    /// Only under [`crate::sim::UnlockRule::Point`].
    Unlock,
    /// A reader-writer lock, shared.
    Read,
    TryRead,
    /// A reader-writer lock, exclusively: take it or queue up.
    Write,
    TryWrite,
    /// Release the mutex and wait for a notification.
    Wait,
    Notify,
    Load,
    Store,
    /// Read and write in one.
    Update,
    Fence,
    Spawn,
    Join,
    Sleep,
    Yield,
    /// A choice of data, not of a task.
    Choose,
    /// A place that the code under test named by [`crate::point`].
    Point,
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ObjectKind {
    Mutex,
    RwLock,
    Condvar,
    Atomic,
}

/// Whether a run waits for the end of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// A run has finished when all of these have ended.
    Worker,
    /// Serves the others for ever, as a kernel thread does; unwound when the last worker has ended.
    Daemon,
}

/// A task of a certain run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskRef {
    pub(crate) epoch: u32,
    pub(crate) serial: u32,
}

/// What the holder of a lock does with what that protects, where it tells ([`crate::tell`]). What is protected has parts, by
/// numbers of the owner's choosing that are not 0, and a rest: everybody who tells looks at the rest, and changes of it no more than
/// what is the same in whatever order it is done: counters, and numbers that are never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Looks at the rest only.
    Looks,
    /// Looks at a part, too.
    Reads(u64),
    /// Changes a part.
    Writes(u64),
}

/// How a lock is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// With other readers.
    Shared,
    /// Alone.
    Exclusive,
}

/// In or out of the queue of those that want a lock alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    Enter,
    Leave,
}

/// A lock's word, as a hook takes it.
pub(crate) trait Word {
    /// Mutex or reader-writer lock.
    fn kind(&self) -> ObjectKind;
    fn tag(&self) -> &Tag;
    fn rank(&self) -> Rank;
    /// Takes it, if it can be taken now.
    fn take(&self, access: Access) -> bool;
    /// Takes it, blocking the OS thread: a live thread has it.
    fn take_live(&self, access: Access);
    /// Gives it back, and wakes live threads that sleep on it.
    fn give_back(&self, access: Access);
    /// Counts who wants it alone, or counts it no more.
    fn queue(&self, step: Queue);
}

/// A place in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Here {
    /// Decisions made so far.
    pub step: u64,
    /// The number of the task that runs, in the order of spawning.
    pub serial: u32,
    /// Its name.
    pub name: &'static str,
}

/// Who holds ranked locks, and of which ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The number of the task, in the order of spawning.
    pub serial: u32,
    /// Ranks, the lowest first.
    pub ranks: Vec<Rank>,
}

/// What drives a thread in the place of the system.
pub(crate) trait Hook {
    /// Takes a lock, whose tag this is. True where its word is left to the caller: no task that the hook drives has it, so who takes it as a
    /// live thread does waits for live threads at most.
    #[must_use]
    fn acquire(&self, word: &dyn Word, tag: &Tag, access: Access) -> bool;
    /// Takes a lock if it is free.
    fn try_acquire(&self, word: &dyn Word, access: Access) -> bool;
    /// A lock is given back: its word is left to the caller. Never unwinds, so it can be called by a guard that is dropped.
    fn release(&self, word: &dyn Word, tag: &Tag, access: Access);
    /// Turns exclusive into shared access.
    fn downgrade(&self, word: &dyn Word, downgrade: &dyn Fn());
    /// Whether somebody wants to be told; the same as long as it is installed.
    fn listens(&self) -> bool;
    /// Tells what the current task does under a mutex that it holds.
    fn tell(&self, word: &dyn Word, told: Told);
    /// From now on the current task takes nothing below `floor`; gives what that was before.
    fn set_floor(&self, floor: Rank) -> Rank;

    /// Releases the mutex, waits for a notification or for the time, takes the mutex again; false where the time
    /// came first.
    fn wait(&self, condvar: &Tag, mutex: &dyn Word, deadline_ns: Option<u64>) -> bool;
    /// Wakes one that waits for a notification.
    fn notify_one(&self, condvar: &Tag);
    /// Wakes all that wait for a notification.
    fn notify_all(&self, condvar: &Tag);
    /// The same under the mutex that they wait with.
    fn notify_all_held(&self, condvar: &Tag);

    /// An access to an atomic follows.
    fn access(&self, tag: &Tag, kind: OpKind);
    /// An operation on no object follows.
    fn point(&self, kind: OpKind);

    /// A task runs for the first time; false where it is not to run at all.
    fn starts(&self) -> bool;
    /// The current task panicked; false where that is no affair of the hook.
    fn panicked(&self, message: String, location: String) -> bool;
    /// Makes a task; `None` where none is to be made any more.
    fn spawn(&self, name: &'static str, kind: TaskKind, body: Body) -> Option<TaskRef>;
    /// Waits for the end of a task; false where it is not one of this run.
    fn join(&self, task: TaskRef, has_ended: &dyn Fn() -> bool) -> bool;

    /// Who runs, and since which decision.
    fn here(&self) -> Here;
    /// Who holds ranked locks now.
    fn holders(&self) -> Vec<Holder>;
    /// The time.
    fn now_ns(&self) -> u64;
    /// Lets time pass.
    fn sleep_ns(&self, ns: u64);
    /// Lets others run first.
    fn yield_now(&self);
    /// A number below `n`.
    fn choose(&self, n: u32) -> u32;
}
