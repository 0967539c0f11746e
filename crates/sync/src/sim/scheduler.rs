//! Runs tasks as coroutines on one OS thread, and unwinds them when the run is over.
//!
//! A task comes to a point, the [`State`] decides, and where another one goes on, the task's fiber suspends itself
//! and [`Scheduler::drive`] resumes the other. When the last worker has ended, or something was found, the run is
//! *abandoned*: every task that is left unwinds from the point where it is, in its own fiber, so its destructors
//! run and its guards release what they hold. An unwinding task works *quietly*: its operations are no points, but
//! a lock that another one still holds it waits for. What cannot be unwound so is leaked, and counted.

use super::op::Op;
use super::report::{Outcome, RunReport};
use super::schedule::Schedule;
use super::state::{Next, State};
use super::task::{TaskId, TaskSet, Wait};
use super::{Limits, MAX_TASKS};
use crate::hook::{self, Body, OpKind, TaskKind, TaskRef};
use crate::raw::fiber::{self, Fiber, Ran};
use alloc::boxed::Box;
use core::any::Any;
use core::cell::{Cell, RefCell, RefMut};
use std::panic::{self, AssertUnwindSafe};
use std::string::String;
use std::vec::Vec;

/// How many operations unwinding tasks may do, all together.
const QUIET_OPS: u32 = 1_000_000;

/// The scheduler of one run.
pub(crate) struct Scheduler<'s> {
    pub(super) state: RefCell<State<'s>>,
    /// By task; the running one's is taken out.
    fibers: RefCell<Vec<Option<Fiber>>>,
    /// Who was decided on, from the task that suspends itself to [`Self::drive`].
    next: Cell<Option<TaskId>>,
    abandoned: Cell<bool>,
    quiet_ops: Cell<u32>,
    /// The thread was unwinding when the run began, so that it unwinds says nothing about tasks.
    was_panicking: bool,
}

/// How an operation of the current task is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// As a scheduling point.
    Scheduled,
    /// At once: the task unwinds.
    Quiet,
}

/// The run is over: the current task has to unwind.
pub(super) struct Abandoned;

/// What a task unwinds with.
struct Unwound;

impl<'s> Scheduler<'s> {
    pub(super) fn new(schedule: &'s mut dyn Schedule, limits: Limits) -> Self {
        Self {
            state: RefCell::new(State::new(schedule, limits)),
            fibers: RefCell::new(Vec::with_capacity(8)),
            next: Cell::new(None),
            abandoned: Cell::new(false),
            quiet_ops: Cell::new(0),
            was_panicking: std::thread::panicking(),
        }
    }

    /// Runs `root` and whatever it spawns to the end.
    pub(super) fn drive(&self, root: Body) {
        let mut next = self.start("root", TaskKind::Worker, root).map(|(task, _)| task);
        while let Some(task) = next {
            next = self.run_task(task).or_else(|| self.next_to_unwind());
        }
    }

    pub(super) fn into_report(self) -> RunReport {
        let leaked = self.leak_fibers();
        let mut state = self.state();
        RunReport {
            outcome: state.outcome.take().unwrap_or(Outcome::Finished),
            steps: state.steps,
            switches: state.switches,
            trace_hash: state.trace_hash,
            deviations: core::mem::take(&mut state.deviations),
            tasks: core::mem::take(&mut state.all_tasks),
            virtual_ns: state.virtual_ns(),
            leaked,
            trace: core::mem::take(&mut state.trace),
        }
    }

    #[inline]
    pub(super) fn state(&self) -> RefMut<'_, State<'s>> {
        self.state.borrow_mut()
    }

    // From the side of a task

    /// Makes a task of `body`; its place and number. `None` where [`MAX_TASKS`] live.
    pub(super) fn start(&self, name: &'static str, kind: TaskKind, body: Body) -> Option<(TaskId, u32)> {
        let stack_bytes = self.state().limits.stack_bytes;
        let fiber = Fiber::new(stack_bytes, move || run_body(body));
        let (task, serial) = self.state().add_task(name, kind)?;
        let mut fibers = self.fibers.borrow_mut();
        if task.index() >= fibers.len() {
            fibers.push(None);
        }
        fibers[task.index()] = Some(fiber);
        Some((task, serial))
    }

    /// How the operation that begins is to be done; does not return where the task has to unwind.
    #[inline]
    pub(super) fn mode(&self) -> Mode {
        if self.is_scheduling() { Mode::Scheduled } else { self.mode_at_the_end() }
    }

    /// Whether operations are points now.
    #[inline]
    pub(super) fn is_scheduling(&self) -> bool {
        !self.abandoned.get() && (self.was_panicking || !std::thread::panicking())
    }

    #[cold]
    fn mode_at_the_end(&self) -> Mode {
        if !self.abandoned.get() {
            // The task unwinds, but not through the panic hook.
            self.found_panic("(raised without a message)".into(), String::new());
        }
        if !self.state().current().unwinding {
            self.unwind();
        }
        self.quiet_ops.set(self.quiet_ops.get() + 1);
        while self.quiet_ops.get() > QUIET_OPS {
            self.park_quietly(Wait::Nothing);
        }
        Mode::Quiet
    }

    /// A scheduling point before `op`.
    #[inline]
    pub(super) fn point(&self, op: Op) {
        if self.mode() == Mode::Scheduled {
            let mut state = self.state();
            let next = state.come_to(op);
            drop(state);
            self.follow_or_unwind(next);
        }
    }

    /// Decides who goes on, and returns when it is the current task again.
    #[inline]
    pub(super) fn reschedule(&self) -> Result<(), Abandoned> {
        let next = self.state().decide();
        self.follow(next)
    }

    /// Does what was decided, and unwinds where that is the end.
    #[inline]
    pub(super) fn follow_or_unwind(&self, next: Next) {
        if next != Next::Stay && self.follow(next).is_err() {
            self.unwind();
        }
    }

    fn follow(&self, next: Next) -> Result<(), Abandoned> {
        match next {
            Next::Stay => return Ok(()),
            Next::Switch(task) => {
                self.next.set(Some(task));
                fiber::suspend();
            }
            Next::Abandon => self.abandoned.set(true),
        }
        if self.abandoned.get() { Err(Abandoned) } else { Ok(()) }
    }

    /// The current task has what it waited for.
    pub(super) fn settle(&self) {
        let mut state = self.state();
        let task = state.running();
        state.wake(task);
    }

    /// Waits without a decision: other unwinding tasks go on first.
    pub(super) fn park_quietly(&self, wait: Wait) {
        self.state().set_wait(wait, wait == Wait::Turn);
        fiber::suspend();
        self.settle();
    }

    /// The current task works quietly from now on.
    pub(super) fn begin_unwinding(&self) {
        self.settle();
        self.state().current().unwinding = true;
    }

    /// Unwinds the current task to its bottom.
    #[cold]
    pub(super) fn unwind(&self) -> ! {
        self.begin_unwinding();
        panic::resume_unwind(Box::new(Unwound))
    }

    /// The current task panics, which ends the run; false where it unwound already.
    pub(super) fn found_panic(&self, message: String, location: String) -> bool {
        // It panics under the scheduler's own hands.
        let Ok(mut state) = self.state.try_borrow_mut() else { return false };
        if state.current().unwinding {
            return false;
        }
        state.current().unwinding = true;
        if !self.abandoned.replace(true) {
            let (task, name) = (state.running(), state.current().name);
            state.outcome = Some(Outcome::Panicked { task, name, message, location });
        }
        true
    }

    /// Whether the task that starts is to run at all.
    pub(super) fn is_wanted(&self) -> bool {
        if self.abandoned.get() {
            self.begin_unwinding();
        }
        !self.abandoned.get()
    }

    // From the side of the thread

    /// Lets a task run until it suspends itself or ends; gives the one that was decided on, if one was.
    fn run_task(&self, task: TaskId) -> Option<TaskId> {
        self.state().set_running(task);
        let mut fiber = self.fibers.borrow_mut()[task.index()].take()?;
        match fiber.resume() {
            Ran::Suspended => self.fibers.borrow_mut()[task.index()] = Some(fiber),
            Ran::Ended => {
                fiber.recycle();
                self.task_ended();
            }
        }
        self.next.take()
    }

    fn task_ended(&self) {
        let mut state = self.state();
        let goes_on = state.end_current();
        if self.abandoned.get() {
            return;
        }
        if !goes_on {
            self.abandoned.set(true);
            return;
        }
        match state.decide() {
            Next::Switch(task) => self.next.set(Some(task)),
            Next::Stay | Next::Abandon => self.abandoned.set(true),
        }
    }

    /// The next task of an abandoned run: who has not begun to unwind, then who can go on with it.
    fn next_to_unwind(&self) -> Option<TaskId> {
        let state = self.state();
        let begun = |task: &TaskId| state.tasks[task.index()].unwinding;
        let to_begin = state.live.into_iter().find(|task| !begun(task));
        let able = TaskSet(state.live.0 & state.runnable().0);
        to_begin.or_else(|| able.after(state.running()))
    }

    fn leak_fibers(&self) -> u32 {
        let mut leaked = 0;
        for fiber in self.fibers.borrow_mut().drain(..).flatten() {
            fiber.leak();
            leaked += 1;
        }
        leaked
    }
}

impl Drop for Scheduler<'_> {
    fn drop(&mut self) {
        // Only where a schedule panicked: without a scheduler, the tasks cannot be unwound.
        self.leak_fibers();
    }
}

/// The bottom of a task's stack.
fn run_body(body: Body) {
    let is_wanted = hook::with(|s| s.starts()).unwrap_or(false);
    let body = AssertUnwindSafe(move || if is_wanted { body() } else { drop(body) });
    if let Err(payload) = panic::catch_unwind(body)
        && !payload.is::<Unwound>()
    {
        // Reported by the panic hook already, unless the panic did not go through it.
        hook::with(|s| s.panicked(message_of(&*payload), String::new()));
    }
}

/// The text that a panic was raised with.
pub(super) fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(no text)").into()
}

impl Scheduler<'_> {
    /// Starts a task from within a task.
    ///
    /// # Panics
    /// Where [`MAX_TASKS`] live.
    pub(super) fn spawn_task(&self, name: &'static str, kind: TaskKind, body: Body) -> Option<TaskRef> {
        if self.mode() == Mode::Quiet {
            return None;
        }
        let epoch = self.state().epoch;
        let Some((_, serial)) = self.start(name, kind, body) else {
            panic!("more than {MAX_TASKS} tasks live at once");
        };
        self.point(Op::bare(OpKind::Spawn));
        Some(TaskRef { epoch, serial })
    }
}
