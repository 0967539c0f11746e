//! Who runs next: the explorer's side of a run.
//!
//! A run asks its [`Schedule`] only where there is a choice. Its answers are kept as deviations from
//! [run-to-block](Decision::default_task), so any run, whatever found it, can be replayed, shrunk and read.

use super::op::Op;
use super::task::{TaskId, TaskSet};
use crate::hook::Told;
use core::fmt;
use core::str::FromStr;
use std::vec::Vec;

/// Makes the choices of a run. It is asked in the middle of an operation of a task, so it uses no lock and no atomic of this crate.
pub trait Schedule {
    /// The task that goes on: one of [`Decision::candidates`]. Any other answer means the default.
    fn pick(&mut self, at: &Decision<'_>) -> TaskId;

    /// A number below `n` (which is 2 at least) for `sync::choose`, or the waiter that a notification wakes.
    fn choose(&mut self, step: u64, n: u32) -> u32;

    /// Asked after each [`pick`](Self::pick): how often the task that was taken is taken again, and `pick` not asked, as long as it comes to a
    /// point, does not yield, and the same tasks can run as there.
    fn goes_on(&self) -> u64 {
        0
    }

    /// Told before the next [`pick`](Self::pick): how often that was.
    fn went_on(&mut self, times: u64) {
        let _ = times;
    }

    /// A task has started, in a place that another one may have had before.
    fn started(&mut self, task: TaskId) {
        let _ = task;
    }

    /// Whether this schedule watches: it is then asked at every decision, also where there is one candidate, and told what
    /// tasks [touch](Self::touched).
    fn watches(&self) -> bool {
        false
    }

    /// Asked before each decision where it watches: whether the run ends here ([`Outcome::Cut`](super::Outcome)).
    fn cuts(&mut self, at: &Decision<'_>) -> bool {
        let _ = at;
        false
    }

    /// The task that runs did this since the last decision, beside the operation that it came with; told where it watches.
    fn touched(&mut self, touch: Touch) {
        let _ = touch;
    }
}

/// What a step does that others may notice, beside the operation that was pending before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Gave a lock back that it held alone, or shared.
    Released {
        /// Its number.
        object: u32,
        /// Whether it was held shared.
        shared: bool,
    },
    /// Told what it does under a mutex.
    Told {
        /// The mutex' number.
        object: u32,
        /// What.
        told: Told,
    },
    /// Began to wait for a condition variable, in the step that took its mutex.
    Waits {
        /// Its number.
        object: u32,
    },
    /// Notified tasks that wait for a condition variable: there were some.
    Notified {
        /// Its number.
        object: u32,
    },
    /// Asked what time it is, or set the end of a wait by it.
    TimeRead,
    /// Ended the wait of another task: by a notification, or by time.
    Woke(TaskId),
    /// Joined the task of that number.
    Joined(u32),
    /// Nobody could run, so time passed: what follows is behind all that was done before.
    Idle,
}

/// A choice of the next task.
pub struct Decision<'a> {
    /// Counts the decisions of the run, from 1; those with one candidate are counted but not asked.
    pub step: u64,
    /// The task that came to a scheduling point, waits, or has ended.
    pub current: TaskId,
    /// Tasks whose next operation can be done now.
    pub runnable: TaskSet,
    /// Tasks that wait with a limit, whose time may be made to come now. Empty but under
    /// [`TimeRule::Racing`](super::TimeRule).
    pub sleeping: TaskSet,
    /// The choice that is no deviation: the current task as long as it can go on and does not yield, else the next
    /// runnable one after it, round robin.
    pub default_task: TaskId,
    pub(super) live: TaskSet,
    pub(super) pending: &'a [Op],
}

impl Decision<'_> {
    /// All that may be picked.
    pub fn candidates(&self) -> TaskSet {
        self.runnable.union(self.sleeping)
    }

    /// All tasks that have not ended.
    pub fn live(&self) -> TaskSet {
        self.live
    }

    /// What a task will do when it is picked.
    pub fn pending(&self, task: TaskId) -> Op {
        self.pending[task.index()]
    }

    /// Whether the current task could go on: picking another one preempts it.
    pub fn can_stay(&self) -> bool {
        self.runnable.contains(self.current)
    }
}

/// Where a run left the default, and to what. Written `17>3` (at step 17 to task 3) or `21=1` (at step 21
/// choose 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deviation {
    /// The step.
    pub step: u64,
    /// What was taken there.
    pub to: Taken,
}

/// What a [`Deviation`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Taken {
    /// This task runs (or its time comes).
    Task(TaskId),
    /// This number is chosen, instead of 0.
    Choice(u32),
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            Taken::Task(task) => write!(f, "{}>{}", self.step, task.0),
            Taken::Choice(choice) => write!(f, "{}={choice}", self.step),
        }
    }
}

/// The text is no deviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoDeviation;

impl fmt::Display for NoDeviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected STEP>TASK or STEP=CHOICE")
    }
}

impl core::error::Error for NoDeviation {}

impl FromStr for Deviation {
    type Err = NoDeviation;
    fn from_str(text: &str) -> Result<Self, NoDeviation> {
        let (step, to) = if let Some((step, task)) = text.split_once('>') {
            let task: u8 = task.parse().map_err(|_| NoDeviation)?;
            if usize::from(task) >= super::MAX_TASKS {
                return Err(NoDeviation);
            }
            (step, Taken::Task(TaskId(task)))
        } else {
            let (step, choice) = text.split_once('=').ok_or(NoDeviation)?;
            (step, Taken::Choice(choice.parse().map_err(|_| NoDeviation)?))
        };
        Ok(Deviation { step: step.parse().map_err(|_| NoDeviation)?, to })
    }
}

/// Runs each task until it blocks, but for the given deviations. A deviation that does not apply (its step is
/// past, its task cannot run) is passed over, so any subset of a list is a schedule again.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    deviations: Vec<Deviation>,
    next: usize,
}

impl Replay {
    /// Replays `deviations`, in the order of their steps.
    pub fn new(mut deviations: Vec<Deviation>) -> Self {
        deviations.sort_by_key(|deviation| deviation.step);
        Self { deviations, next: 0 }
    }

    fn taken_at(&mut self, step: u64) -> Option<Taken> {
        while self.deviations.get(self.next).is_some_and(|deviation| deviation.step < step) {
            self.next += 1;
        }
        self.deviations.get(self.next).filter(|deviation| deviation.step == step).map(|deviation| deviation.to)
    }
}

impl Schedule for Replay {
    fn pick(&mut self, at: &Decision<'_>) -> TaskId {
        match self.taken_at(at.step) {
            Some(Taken::Task(task)) => task,
            _ => at.default_task,
        }
    }

    fn choose(&mut self, step: u64, n: u32) -> u32 {
        match self.taken_at(step) {
            Some(Taken::Choice(choice)) => choice.min(n - 1),
            _ => 0,
        }
    }
}
