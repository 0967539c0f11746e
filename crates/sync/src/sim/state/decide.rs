//! Decisions: who goes on at a point, what is chosen, and the mark that each leaves in the hash of a run.
//!
//! Most points ask nobody: the current task can go on and nobody else can, or the question is the one that was asked last, and so is
//! the answer ([`Schedule::goes_on`](crate::sim::Schedule::goes_on)).

use super::{Next, State};
use crate::hook::OpKind;
use crate::sim::op::Op;
use crate::sim::report::{Outcome, Step};
use crate::sim::schedule::{Decision, Deviation, Taken, Touch};
use crate::sim::task::{TaskId, TaskSet};
use crate::sim::{TimeRule, TraceRule};

/// What a schedule is asked; a macro, because it borrows fields beside the schedule itself.
macro_rules! decision {
    ($state:ident, $sleeping:expr) => {
        Decision {
            step: $state.steps,
            current: $state.current,
            runnable: $state.runnable,
            sleeping: $sleeping,
            default_task: $state.default_task(),
            live: $state.live,
            pending: &$state.pending,
        }
    };
}

impl State<'_> {
    /// Whether the next decision ends the run.
    pub(in crate::sim) fn is_out_of_steps(&self) -> bool {
        self.steps >= self.limits.steps
    }

    /// Decides who goes on, the current task having come to a point before that operation.
    #[inline(always)]
    pub(in crate::sim) fn come_to(&mut self, op: Op) -> Next {
        self.set_pending(op);
        self.decide_before(op)
    }

    /// Decides who goes on, the current task having come to a point, a wait or its end.
    pub(in crate::sim) fn decide(&mut self) -> Next {
        self.decide_before(self.pending[self.current.slot()])
    }

    #[inline(always)]
    fn decide_before(&mut self, op: Op) -> Next {
        if self.quick > 0 && op.kind != OpKind::Yield {
            self.pass_quickly(op);
            return Next::Stay;
        }
        self.decide_slowly(op)
    }

    /// A point before `op` at which nothing has to be decided.
    #[inline]
    pub(in crate::sim) fn pass_quickly(&mut self, op: Op) {
        self.quick -= 1;
        self.steps += 1;
        self.set_pending(op);
        self.mark(op, self.current);
    }

    #[inline(never)]
    fn decide_slowly(&mut self, op: Op) -> Next {
        self.end_quick();
        let next = if self.plain && !self.is_out_of_steps() && (self.is_alone() || self.is_taken_again(op)) {
            self.steps += 1;
            self.record(op, self.current);
            Next::Stay
        } else {
            self.decide_among()
        };
        if next == Next::Stay && self.plain && self.limits.trace == TraceRule::Hash {
            self.begin_quick();
        }
        next
    }

    /// The current task goes on, and will as long as nothing changes that a decision looks at.
    fn begin_quick(&mut self) {
        self.quick_is_left = !self.is_alone();
        let holds = match self.quick_is_left {
            true if self.asked == (self.runnable, self.current) => self.left,
            true => 0,
            false => u64::MAX,
        };
        self.quick = holds.min(self.limits.steps.saturating_sub(self.steps));
        self.quick_from = self.quick;
    }

    /// What a decision looks at changes: the next point looks again.
    pub(in crate::sim) fn end_quick(&mut self) {
        let passed = self.quick_from - self.quick;
        if self.quick_is_left {
            self.left -= passed;
            self.went_on += passed;
        }
        (self.quick, self.quick_from) = (0, 0);
    }

    /// Whether the current task can go on and nobody else can: nobody is asked then.
    #[inline]
    fn is_alone(&self) -> bool {
        self.runnable.0 == 1 << self.current.0
    }

    /// Whether the question is the one that was asked last, and so is the answer.
    #[inline]
    fn is_taken_again(&mut self, op: Op) -> bool {
        let again = self.left > 0 && self.asked == (self.runnable, self.current) && op.kind != OpKind::Yield;
        self.left -= u64::from(again);
        self.went_on += u64::from(again);
        again
    }

    fn decide_among(&mut self) -> Next {
        if self.is_out_of_steps() {
            let (task, name) = (self.current, self.current().name);
            self.outcome = Some(Outcome::StepLimit { task, name });
            return Next::Abandon;
        }
        self.steps += 1;
        let next =
            if self.plain && self.runnable.len() > 1 { Some(self.ask(TaskSet::EMPTY)) } else { self.settle_next() };
        let Some(next) = next else { return Next::Abandon };
        self.record(self.pending[self.current.slot()], next);
        if next == self.current {
            Next::Stay
        } else {
            self.switches += 1;
            Next::Switch(next)
        }
    }

    /// Who goes on, after time has passed where it must or is made to; `None` where the run ends.
    fn settle_next(&mut self) -> Option<TaskId> {
        loop {
            while self.runnable.is_empty() {
                if !self.pass_time() {
                    self.outcome = Some(Outcome::Deadlock { waiting: self.blocked() });
                    return None;
                }
            }
            let Some(next) = self.pick() else {
                self.outcome = Some(Outcome::Cut);
                return None;
            };
            if self.runnable.contains(next) {
                return Some(next);
            }
            // A sleeper was picked: its time comes now, and with it that of all before it. It runs at once, unless
            // it needs a lock first that another one has.
            self.pass_time_to(self.tasks[next.index()].deadline_ns);
            if self.runnable.contains(next) {
                return Some(next);
            }
            if !self.runnable.is_empty() {
                return Some(self.default_task());
            }
        }
    }

    /// Who goes on, or whose time comes; `None` where the schedule ends the run.
    fn pick(&mut self) -> Option<TaskId> {
        let sleeping = match self.limits.time {
            TimeRule::WhenIdle => TaskSet::EMPTY,
            TimeRule::Racing => self.timed.without(self.runnable),
        };
        if self.watched {
            if self.schedule.cuts(&decision!(self, sleeping)) {
                return None;
            }
        } else if self.runnable.union(sleeping).len() == 1 {
            return Some(self.default_task());
        }
        Some(self.ask(sleeping))
    }

    /// Asks the schedule.
    #[inline(always)]
    fn ask(&mut self, sleeping: TaskSet) -> TaskId {
        self.schedule.went_on(core::mem::take(&mut self.went_on));
        let at = decision!(self, sleeping);
        let picked = Some(self.schedule.pick(&at)).filter(|picked| at.candidates().contains(*picked));
        let taken = picked.unwrap_or(at.default_task);
        self.asked = (at.runnable, taken);
        if taken != at.default_task {
            self.deviations.push(Deviation { step: self.steps, to: Taken::Task(taken) });
        }
        self.left = self.schedule.goes_on();
        taken
    }

    /// Whether the schedule wants to know what tasks do.
    #[inline]
    pub(in crate::sim) fn listens(&self) -> bool {
        self.watched
    }

    /// Tells the schedule what the current task does, where it watches.
    #[inline]
    pub(in crate::sim) fn touch(&mut self, touch: Touch) {
        if self.watched && self.outcome.is_none() && self.workers > 0 {
            self.schedule.touched(touch);
        }
    }

    #[inline]
    fn default_task(&self) -> TaskId {
        let stays = self.runnable.contains(self.current) && self.pending[self.current.index()].kind != OpKind::Yield;
        if stays { self.current } else { self.runnable.after(self.current).unwrap_or(self.current) }
    }

    /// Chooses a number below `n` for the current task: a step, but not a switch.
    pub(in crate::sim) fn choose(&mut self, n: u32) -> u32 {
        self.end_quick();
        self.steps += 1;
        let chosen = self.schedule.choose(self.steps, n).min(n - 1);
        if chosen != 0 {
            self.deviations.push(Deviation { step: self.steps, to: Taken::Choice(chosen) });
        }
        self.mix(u64::from(chosen) << 32 | u64::from(n));
        chosen
    }

    /// The mark that a decision leaves.
    #[inline]
    fn mark(&mut self, op: Op, then: TaskId) {
        let who = u64::from(self.current.0) << 8 | u64::from(then.0);
        self.mix(u64::from(op.object) << 32 | (op.kind as u64) << 16 | who);
    }

    #[inline]
    fn record(&mut self, op: Op, then: TaskId) {
        self.mark(op, then);
        if self.limits.trace == TraceRule::Steps {
            self.keep(Step { task: self.current, op, then });
        }
    }

    #[cold]
    fn keep(&mut self, step: Step) {
        self.trace.push(step);
    }

    fn mix(&mut self, word: u64) {
        self.trace_hash = (self.trace_hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
