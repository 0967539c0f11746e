//! Whose turn it is on an engine.
//!
//! | state | who makes it run again |
//! |---|---|
//! | ready | its turn: a context whose fault was just answered first, then by priority, then in rotation |
//! | sleeping | it polls memory; the time of its pause |
//! | faulted | the driver's answer |
//! | idle | a job |
//! | dead | nobody |
//!
//! A context keeps its turn for as many commands as its timeslice gives, then goes behind the others of its priority. So
//! a batch that never ends blocks nobody of its priority; one that polls blocks nobody at all.
//!
//! The time of the engine is divided among the contexts without a gap, as long as there is one that runs or pauses:
//! what passes before a step is that of the context that has the step, and a pause that of the last one, if it pauses.
//!
//! Locking: none of its own; an engine's lock is around all of it.

use super::exec::{Progress, Run};
use super::{Job, Step};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use sync::time::now_ns;
use xe_spec::fault::{Asid, ContextId, FaultAck, FaultSlot};
use xe_spec::share::{Priority, Share};

/// Classes of turns: answered faults, then the priorities from high to low.
const CLASSES: usize = 1 + Priority::COUNT;
/// Microseconds of a timeslice that count as one command.
const US_PER_COMMAND: u64 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// No job.
    Idle,
    /// In the queue.
    Ready,
    /// Its `Run` is taken out by a step.
    Running,
    /// It polls memory, and pauses until then.
    Sleeping(u64),
    /// A fault waits for its ack.
    Faulted,
    /// In the queue, to be killed.
    Doomed,
    /// Killed: later jobs do not run.
    Dead,
}

pub(super) struct Context {
    asid: Asid,
    share: Share,
    state: State,
    jobs: VecDeque<Job>,
    run: Option<Box<Run>>,
    /// Turns so far: a fault is named by the turn that it ended.
    turns: u64,
    /// Commands that are left of this turn.
    left: u64,
    /// Time that it had the engine.
    ran_ns: u64,
    /// Somebody ends it: once it is put back it has no turn any more.
    ending: bool,
}

impl Context {
    pub(super) fn new(asid: Asid, share: Share) -> Self {
        Self {
            asid,
            share,
            state: State::Idle,
            jobs: VecDeque::new(),
            run: None,
            turns: 0,
            left: 0,
            ran_ns: 0,
            ending: false,
        }
    }

    fn class(&self) -> usize {
        1 + self.share.priority as usize
    }
}

/// A context's run, taken out for one step.
pub(super) struct Taken {
    /// Names the fault, if the step ends in one.
    pub(super) context: ContextId,
    pub(super) serial: u64,
    pub(super) asid: Asid,
    pub(super) doomed: bool,
    pub(super) run: Box<Run>,
}

/// The contexts of an engine.
#[derive(Default)]
pub(super) struct Schedule {
    contexts: BTreeMap<ContextId, Context>,
    turns: [VecDeque<ContextId>; CLASSES],
    sleepers: BTreeSet<(u64, ContextId)>,
    faulted: usize,
    stepping: bool,
    /// Who ran last, and up to when the engine's time is divided; none where it rests.
    charged: Option<(ContextId, u64)>,
    pub(super) commands: u64,
    pub(super) jobs: u64,
    pub(super) kills: u64,
}

impl Schedule {
    pub(super) fn insert(&mut self, id: ContextId, context: Context) {
        self.contexts.insert(id, context);
    }

    /// Takes a context out that does nothing, to be inserted elsewhere.
    pub(super) fn remove_idle(&mut self, id: ContextId) -> Option<Context> {
        let idle = self.contexts.get(&id).is_some_and(|entry| entry.state == State::Idle && !entry.ending);
        if idle { self.contexts.remove(&id) } else { None }
    }

    /// Contexts that have something to do.
    pub(super) fn busy(&self) -> usize {
        let ready: usize = self.turns.iter().map(VecDeque::len).sum();
        ready + self.sleepers.len() + self.faulted + usize::from(self.stepping)
    }

    pub(super) fn set_share(&mut self, id: ContextId, share: Share) {
        if let Some(entry) = self.contexts.get_mut(&id) {
            entry.share = share;
        }
    }

    /// Time that a context had the engine so far.
    pub(super) fn ran_ns(&self, id: ContextId) -> u64 {
        let Some(entry) = self.contexts.get(&id) else { return 0 };
        let goes_on = match entry.state {
            State::Running | State::Sleeping(_) => true,
            // What passes before the next step will be its time.
            State::Ready => self.turns.iter().find_map(VecDeque::front) == Some(&id),
            _ => false,
        };
        let since = self.charged.filter(|(last, _)| goes_on && *last == id);
        entry.ran_ns + since.map_or(0, |(_, at)| now_ns().saturating_sub(at))
    }

    /// Takes out the run of the context whose turn it is.
    pub(super) fn take(&mut self) -> Result<Taken, Step> {
        if self.stepping {
            return Err(Step::Wait);
        }
        self.wake();
        let Some(context) = self.turns.iter_mut().find_map(VecDeque::pop_front) else { return Err(self.rest()) };
        let since = self.charge(context);
        let entry = self.contexts.get_mut(&context).ok_or(Step::Ran)?;
        let doomed = entry.state == State::Doomed;
        let mut run = entry.run.take().unwrap_or_default();
        if !run.has_job() {
            match entry.jobs.pop_front() {
                Some(job) => run.start(job),
                None => return Err(Step::Ran),
            }
        }
        (run.ran_ns, run.charged_ns) = (entry.ran_ns, since);
        if entry.left == 0 {
            entry.left = (entry.share.timeslice_us / US_PER_COMMAND).max(1);
        }
        entry.state = State::Running;
        entry.turns += 1;
        self.stepping = true;
        Ok(Taken { context, serial: entry.turns, asid: entry.asid, doomed, run })
    }

    /// Gives contexts whose pause is over their turn.
    fn wake(&mut self) {
        if self.sleepers.is_empty() {
            return;
        }
        let now = now_ns();
        while let Some(&(until, context)) = self.sleepers.first().filter(|(until, _)| *until <= now) {
            self.sleepers.remove(&(until, context));
            self.settle(now);
            self.make_ready(context, State::Ready);
        }
    }

    /// Whether a context pauses.
    pub(super) fn pauses(&self) -> bool {
        !self.sleepers.is_empty()
    }

    /// Ends all pauses; whether there were any.
    pub(super) fn look_again(&mut self) -> bool {
        if self.sleepers.is_empty() {
            return false;
        }
        self.settle(now_ns());
        for (_, context) in std::mem::take(&mut self.sleepers) {
            self.make_ready(context, State::Ready);
        }
        true
    }

    /// What passed up to now is the time of who ran last, if that one pauses.
    fn settle(&mut self, now: u64) {
        if let Some((last, at)) = self.charged
            && let Some(paused) = self.contexts.get_mut(&last).filter(|entry| matches!(entry.state, State::Sleeping(_)))
        {
            paused.ran_ns += now.saturating_sub(at);
            self.charged = Some((last, now));
        }
    }

    fn make_ready(&mut self, id: ContextId, state: State) {
        if let Some(entry) = self.contexts.get_mut(&id) {
            entry.state = state;
            self.turns[entry.class()].push_back(id);
        }
    }

    /// Why nothing can run.
    fn rest(&mut self) -> Step {
        if let Some(&(until, _)) = self.sleepers.first() {
            return Step::Sleep(until);
        }
        if self.faulted > 0 { Step::Wait } else { Step::Idle }
    }

    /// `context` gets the engine: since when. What another one paused is that one's time.
    fn charge(&mut self, context: ContextId) -> u64 {
        if self.charged.is_some_and(|(last, _)| last != context) {
            self.settle(now_ns());
        }
        let since = self.charged.map_or_else(now_ns, |(_, at)| at);
        self.charged = Some((context, since));
        since
    }

    /// Takes back what a step ran, after that step's `progress`.
    pub(super) fn put_back(&mut self, id: ContextId, mut run: Box<Run>, progress: Progress) {
        let now = now_ns();
        let spent = now.saturating_sub(run.charged_ns);
        self.stepping = false;
        self.charged = Some((id, now));
        match progress {
            Progress::Command | Progress::Waits(_) => self.commands += 1,
            Progress::Done => self.jobs += 1,
            Progress::Hang => self.kills += 1,
            Progress::Stalled(_) => self.faulted += 1,
        }
        let Some(entry) = self.contexts.get_mut(&id) else { return };
        entry.ran_ns += spent;
        if matches!(progress, Progress::Done | Progress::Hang) {
            run.retire();
        }
        if !matches!(progress, Progress::Hang) {
            entry.run = Some(run);
        }
        entry.state = match progress {
            Progress::Stalled(_) => State::Faulted,
            Progress::Waits(pause @ 1..) => State::Sleeping(now.saturating_add(pause)),
            Progress::Command | Progress::Waits(_) => State::Ready,
            Progress::Done if entry.jobs.is_empty() => State::Idle,
            Progress::Done => State::Ready,
            Progress::Hang => {
                entry.jobs.clear();
                State::Dead
            }
        };
        if !entry.ending {
            self.queue(id, progress);
        }
        let pauses = self.contexts.get(&id).is_some_and(|entry| matches!(entry.state, State::Sleeping(_)));
        if !pauses && self.turns.iter().all(VecDeque::is_empty) {
            // Nobody has the engine from now on, whenever the next step asks for it.
            self.charged = None;
        }
    }

    /// Puts a context that was put back where it waits.
    fn queue(&mut self, id: ContextId, progress: Progress) {
        let Some(entry) = self.contexts.get_mut(&id) else { return };
        match entry.state {
            State::Sleeping(until) => {
                entry.left = 0;
                self.sleepers.insert((until, id));
            }
            State::Ready if entry.left > 1 && matches!(progress, Progress::Command) => {
                entry.left -= 1;
                self.turns[entry.class()].push_front(id);
            }
            State::Ready => {
                entry.left = 0;
                self.turns[entry.class()].push_back(id);
            }
            _ => {}
        }
    }

    /// A context is to be taken away: it gets no further turn. Whether it is inside of a step.
    pub(super) fn end(&mut self, id: ContextId) -> bool {
        let Some(entry) = self.contexts.get_mut(&id) else { return false };
        entry.ending = true;
        if let State::Sleeping(until) = entry.state {
            self.sleepers.remove(&(until, id));
        }
        for turns in &mut self.turns {
            turns.retain(|&waiting| waiting != id);
        }
        entry.state == State::Running
    }

    /// Takes it away. What passes from now on is not its time.
    pub(super) fn remove(&mut self, id: ContextId) {
        self.charged = self.charged.filter(|(last, _)| *last != id);
        if let Some(entry) = self.contexts.remove(&id) {
            self.faulted -= usize::from(entry.state == State::Faulted);
        }
    }

    /// Whether the context takes the job.
    pub(super) fn enqueue(&mut self, id: ContextId, job: Job) -> bool {
        let Some(entry) = self.contexts.get_mut(&id) else { return false };
        if entry.ending || matches!(entry.state, State::Dead | State::Doomed) {
            return false;
        }
        entry.jobs.push_back(job);
        if entry.state == State::Idle {
            self.make_ready(id, State::Ready);
        }
        true
    }

    /// Takes the driver's answer; whether that fault is pending, `None` where its context does not exist.
    pub(super) fn acknowledge(&mut self, slot: FaultSlot, ack: FaultAck) -> Option<bool> {
        let entry = self.contexts.get_mut(&slot.context).filter(|entry| !entry.ending)?;
        if entry.state != State::Faulted || entry.turns != slot.serial {
            return Some(false);
        }
        entry.state = match ack {
            FaultAck::Replay => State::Ready,
            FaultAck::Kill => State::Doomed,
        };
        self.faulted -= 1;
        // Before all others: what was brought for the access must be used before another context's fault takes it away, or
        // two contexts of one engine could take a page from each other for ever.
        self.turns[0].push_front(slot.context);
        Some(true)
    }
}
