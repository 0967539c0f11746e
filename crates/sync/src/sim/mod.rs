//! The checker's side: a run of tasks on one OS thread under a schedule.
//!
//! [`run`] gives a closure (the root task) a world in which every thread of this crate is a coroutine, time is
//! virtual, and a [`Schedule`] says at every *scheduling point* who goes on. The same schedule gives the same run,
//! bit for bit; whatever schedule a run had, its [`RunReport`] keeps it as deviations from run-to-block, and
//! [`Replay`] runs it again.
//!
//! # Scheduling points
//!
//! A point lies *before* each operation that other tasks can see, and nowhere else:
//!
//! | operation | point | may wait |
//! |---|---|---|
//! | lock a mutex, read-lock | before it; the task is runnable while the lock would admit it | yes |
//! | write-lock | before it; then it takes the lock or queues up, which holds up new readers | yes |
//! | `try_*` | before it | no |
//! | unlock | none; before it under [`UnlockRule::Point`] | no |
//! | wait of a condvar | before it, unless the step began with taking the mutex; the release of the mutex and the beginning of the wait are one step | yes |
//! | notify | before it, but for `notify_all_held`; which waiter a `notify_one` wakes is a choice | no |
//! | load, store, update of an atomic, fence | before it | no |
//! | spawn | after it | no |
//! | join | before it; the task is runnable when the other has ended | yes |
//! | sleep | the beginning of it | yes |
//! | yield, [`crate::point`] | there | no |
//! | [`crate::choose`] | a step without a switch: a choice is nobody else's business | no |
//!
//! An unlock needs none: what a task does between it and its next point is seen by nobody, so "switch at the unlock"
//! and "switch at the next point" are the same run to everybody, with one exception: `try_lock` can tell a lock that
//! is held for a stretch without points from one that is free. Scenes that depend on that take
//! [`UnlockRule::Point`]. For the same reason who waits with a mutex that its step began by taking, and who notifies all under the mutex that
//! they wait with (`notify_all_held`), needs none.
//!
//! [`Random`] and [`Pct`] draw schedules by a seed; [`Reduced`] makes one run of each class that nobody can tell apart, until
//! there is no other. All this explores sequentially consistent interleavings; the atomics of this crate have no other ordering.
//! Condition variables do not wake without cause here.
//!
//! # Virtual time
//!
//! 1. When no task can run, time jumps to the earliest end of a sleep or of a wait with a limit.
//! 2. Where all who can run yield, a yield takes a microsecond, so who polls the clock sees it move.
//! 3. Under [`TimeRule::Racing`] a schedule may, at any decision, let the time of a sleeping task come (and of those
//!    due before it): a timeout then races with work that is merely slow.
//!
//! Otherwise time stands still. It starts at one second.
//!
//! # Findings
//!
//! A deadlock (no task can run, none waits with a limit, a worker is left), a panic of a task (a broken rule of
//! [`crate::rank`] is one), and more steps than [`Limits::steps`]. The run ends there, the tasks unwind, and all
//! that they held is released; a destructor that panics meanwhile aborts the process, as it does anywhere in Rust,
//! so destructors ask `std::thread::panicking` before they assert.
//!
//! A busy wait without a yield does not end under run-to-block: nobody else gets to run.
//!
//! # What tasks share
//!
//! is made inside the run, or at least not used by two runs at once. Tasks may use what live threads use, but wait
//! for it as live threads do, and the run is then as random as the live threads are.

mod every;
mod op;
mod ops;
mod panics;
mod random;
mod reduce;
mod report;
mod schedule;
mod scheduler;
mod state;
mod task;

pub use crate::hook::{Here, Holder, ObjectKind, OpKind, TaskKind};
pub use every::Every;
pub use op::Op;
pub use random::{Pct, Random, Rng};
pub use reduce::Reduced;
pub use report::{Blocked, BlockedOn, Outcome, RunReport, Step, TaskInfo};
pub use schedule::{Decision, Deviation, NoDeviation, Replay, Schedule, Taken, Touch};
pub use task::{MAX_TASKS, Members, TaskId, TaskSet};

use crate::hook;
use alloc::boxed::Box;
use scheduler::Scheduler;

/// The frame of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// After so many decisions the run is a livelock.
    pub steps: u64,
    /// The stack of each task, in bytes. It has a guard page: who needs more is killed by a SIGSEGV.
    pub stack_bytes: usize,
    /// When virtual time passes.
    pub time: TimeRule,
    /// Whether unlocking is a scheduling point.
    pub unlock: UnlockRule,
    /// Whether all decisions are kept.
    pub trace: TraceRule,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps: 1_000_000,
            stack_bytes: 256 << 10,
            time: TimeRule::WhenIdle,
            unlock: UnlockRule::Free,
            trace: TraceRule::Hash,
        }
    }
}

/// When virtual time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeRule {
    /// When no task can run.
    WhenIdle,
    /// Also whenever the schedule picks a task that waits with a limit.
    Racing,
}

/// Whether unlocking is a scheduling point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnlockRule {
    /// It is none.
    Free,
    /// It is one: a `try_lock` can then fail on any lock that is held.
    Point,
}

/// What is kept of a run's decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceRule {
    /// Their hash.
    Hash,
    /// Each of them, in [`RunReport::trace`].
    Steps,
}

/// Runs `root`, and all tasks that come of it, under `schedule`, on this OS thread.
///
/// Several OS threads may run at once, each a run of its own, beside live threads; a task may even call this.
/// The process asks for the current scheduler at every lock from the first call on, so the preload library never
/// calls this.
///
/// ```
/// use std::sync::Arc;
/// use sync::sim::{Limits, Random, Replay, run};
/// use sync::{atomic::AtomicU32, spawn};
///
/// fn race() {
///     let count = Arc::new(AtomicU32::new(0));
///     let other = spawn("other", { let count = count.clone(); move || count.store(count.load() + 1) });
///     count.store(count.load() + 1);
///     other.join();
///     assert_eq!(count.load(), 2);
/// }
///
/// let mut runs = (0..100).map(|seed| run(&mut Random::new(seed), Limits::default(), race));
/// let found = runs.find(|report| report.outcome.is_finding()).expect("an update is lost");
/// let again = run(&mut Replay::new(found.deviations.clone()), Limits::default(), race);
/// assert_eq!(again, found);
/// ```
///
/// # Panics
/// Where `schedule` panics, or the system has no memory for a stack.
pub fn run(schedule: &mut dyn Schedule, limits: Limits, root: impl FnOnce() + Send + 'static) -> RunReport {
    panics::install();
    let scheduler = Scheduler::new(schedule, limits);
    hook::enter(&scheduler, || scheduler.drive(Box::new(root)));
    scheduler.into_report()
}

/// Where the caller is in its run: for who tells what happened when. `None` outside of runs.
pub fn here() -> Option<Here> {
    hook::with(|hook| hook.here())
}

/// Who holds ranked locks at this moment of the caller's run; nobody outside of runs.
pub fn holders() -> std::vec::Vec<Holder> {
    hook::with(|hook| hook.holders()).unwrap_or_default()
}

/// Whether the caller is a task of a checked run.
pub fn is_task() -> bool {
    hook::with(|_| ()).is_some()
}
