//! What a run tells: how it ended, and the schedule that led there.

use super::op::Op;
use super::schedule::Deviation;
use super::task::TaskId;
use crate::hook::{ObjectKind, TaskKind};
use crate::rank::Rank;
use core::fmt;
use std::string::String;
use std::vec::Vec;

/// How a run ended. Everything but `Finished` and `Cut` is a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every worker has ended.
    Finished,
    /// No task can run, no time is waited for, and a worker has not ended.
    Deadlock {
        /// Every task that has not ended, daemons too.
        waiting: Vec<Blocked>,
    },
    /// A task panicked (whether or not it would have caught that).
    Panicked {
        /// The task.
        task: TaskId,
        /// Its name.
        name: &'static str,
        /// The panic's message.
        message: String,
        /// `file:line:column`, where known.
        location: String,
    },
    /// The steps ran out: a livelock, or the limit is too low.
    StepLimit {
        /// Who was running when it did.
        task: TaskId,
        /// Its name.
        name: &'static str,
    },
    /// The schedule ended the run: another run shows what this one would.
    Cut,
}

/// How the message of a task begins that broke a rule of [`crate::rank`].
pub(super) const LOCK_ORDER: &str = "lock order: ";

impl Outcome {
    /// Whether it is something to report.
    pub fn is_finding(&self) -> bool {
        !matches!(self, Outcome::Finished | Outcome::Cut)
    }

    /// Whether a rule of [`crate::rank`] was broken: two locks were taken the wrong way round, or a reader took one that it may have
    /// to wait for. No deadlock has come of it yet.
    pub fn is_lock_order(&self) -> bool {
        matches!(self, Outcome::Panicked { message, .. } if message.starts_with(LOCK_ORDER))
    }
}

/// A task that waits in a deadlock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The task.
    pub task: TaskId,
    /// Its name.
    pub name: &'static str,
    /// Whether the run would wait for it.
    pub kind: TaskKind,
    /// What it waits for.
    pub on: BlockedOn,
}

/// What a task waits for in a deadlock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockedOn {
    /// A lock.
    Lock {
        /// Its number.
        object: u32,
        /// Mutex or reader-writer lock.
        kind: ObjectKind,
        /// Its rank.
        rank: Rank,
        /// Name of the task that holds it alone; none where readers hold it, or a writer is queued.
        owner: Option<&'static str>,
    },
    /// A notification.
    Notification {
        /// The number of the condition variable.
        condvar: u32,
    },
    /// The end of a task.
    End {
        /// Its name.
        of: &'static str,
    },
    /// Anything else.
    Other,
}

/// A task that took part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskInfo {
    /// Its place.
    pub task: TaskId,
    /// Its name.
    pub name: &'static str,
    /// Worker or daemon.
    pub kind: TaskKind,
}

/// One decision of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who came to the point.
    pub task: TaskId,
    /// What it was about to do there.
    pub op: Op,
    /// Who went on.
    pub then: TaskId,
}

/// A run, told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunReport {
    /// How it ended.
    pub outcome: Outcome,
    /// Decisions made.
    pub steps: u64,
    /// Decisions by which another task went on.
    pub switches: u64,
    /// A hash over all decisions and choices; two runs with the same one did the same.
    pub trace_hash: u64,
    /// The schedule: [`super::Replay`] of these gives the same run.
    pub deviations: Vec<Deviation>,
    /// Every task, in the order of spawning.
    pub tasks: Vec<TaskInfo>,
    /// Virtual time that passed.
    pub virtual_ns: u64,
    /// Tasks that could not be unwound when the run was over (their destructors wait for each other); their
    /// stacks are lost.
    pub leaked: u32,
    /// All decisions, where [`super::Limits::trace`] asked for them.
    pub trace: Vec<Step>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Finished => f.write_str("finished"),
            Outcome::Cut => f.write_str("cut: another run shows the rest"),
            Outcome::Deadlock { waiting } => {
                f.write_str("deadlock:")?;
                waiting.iter().try_for_each(|blocked| write!(f, "\n  {blocked}"))
            }
            Outcome::Panicked { task, name, message, location } => {
                write!(f, "task '{name}' ({task}) panicked at {location}: {message}")
            }
            Outcome::StepLimit { task, name } => write!(f, "step limit reached while '{name}' ({task}) ran"),
        }
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == TaskKind::Daemon { "daemon" } else { "task" };
        write!(f, "{kind} '{}' ({}) waits for {}", self.name, self.task, self.on)
    }
}

impl fmt::Display for BlockedOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockedOn::Lock { object, kind, rank, owner } => {
                write!(f, "{kind:?} #{object} ({rank:?})")?;
                owner.map_or(Ok(()), |owner| write!(f, ", held by '{owner}'"))
            }
            BlockedOn::Notification { condvar } => write!(f, "a notification of Condvar #{condvar}"),
            BlockedOn::End { of } => write!(f, "the end of '{of}'"),
            BlockedOn::Other => f.write_str("nothing that comes"),
        }
    }
}
