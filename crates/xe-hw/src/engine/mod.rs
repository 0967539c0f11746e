//! Engines: contexts, their jobs, and the step that runs one command of one of them.
//!
//! An engine is a resumable state machine: whoever owns a thread calls [`Gpu::step`] until there is nothing to
//! do. Contexts take turns at every command boundary, so a batch that never ends blocks nobody, and a context
//! that waits for a fault is passed over.
//!
//! Key types: [`Job`] (what the driver submits), `Engine` (its contexts), `exec::Run` (a job being executed).
//! Neighbours: `exec.rs` executes, `copy.rs` is the driver's own copy engine, `fault.rs` answers faults.
//!
//! Locking: the engine's lock covers who is whose turn, never the execution of a command: a running context's
//! `Run` is taken out. [`crate::port::Interrupts`] are called without it, after the context was put back.
//!
//! Upstream: what GuC submission does (`xe_guc_submit.c`), seen from the other side.

mod copy;
mod exec;

pub use copy::CopyJob;

use crate::access::Initiator;
use crate::fault::Stall;
use crate::gpu::Gpu;
use crate::record::{Counters, Record};
use exec::{Progress, Run};
use std::collections::{BTreeMap, VecDeque};
use sync::rank::{self, Rank};
use sync::{Condvar, Mutex, RwLock};
use units::{GpuVa, TileId};
use xe_spec::fault::{Asid, ContextId, EngineClass, EngineId, FaultAck};
use xe_spec::platform::Platform;

/// Work for a context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Job {
    /// What `job_done` will say.
    pub seqno: u64,
    /// First command; none: only the fence is written.
    pub batch: Option<GpuVa>,
    /// Eight bytes that are written, at an address aligned to them, when the batch has ended.
    pub fence: Option<(GpuVa, u64)>,
}

/// What a step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// One command (or a job's fence, or the end of a context).
    Ran,
    /// A context faulted; others may still run.
    Fault,
    /// Nothing can run: every context with work waits for an ack (or another thread is inside a step).
    Wait,
    /// No context has work.
    Idle,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// No job.
    Idle,
    /// In the queue.
    Ready,
    /// Its `Run` is taken out by a step.
    Running,
    /// A fault waits for its ack.
    Faulted,
    /// In the queue, to be killed.
    Doomed,
    /// Killed: later jobs do not run.
    Dead,
}

struct Context {
    asid: Asid,
    state: State,
    jobs: VecDeque<Job>,
    run: Option<Run>,
    /// Somebody ends it: once it is put back it has no turn any more.
    ending: bool,
}

/// One engine.
pub(crate) struct Engine {
    id: EngineId,
    slot: usize,
    schedule: Mutex<Schedule>,
    /// A running context was put back.
    returned: Condvar,
}

#[derive(Default)]
struct Schedule {
    contexts: BTreeMap<ContextId, Context>,
    turn: VecDeque<ContextId>,
    stepping: bool,
    commands: u64,
    jobs: u64,
    kills: u64,
}

/// All engines of the device, and which context belongs to which.
pub(crate) struct Engines {
    all: Vec<Engine>,
    owners: RwLock<Owners>,
    per_tile: usize,
}

#[derive(Default)]
struct Owners {
    last: u32,
    engine_of: BTreeMap<ContextId, usize>,
}

impl Engines {
    pub(crate) fn new(platform: &Platform) -> Self {
        let mut all = Vec::new();
        for tile in 0..platform.tiles.len() as u8 {
            let copy = (0..platform.copy_engines).map(|instance| (EngineClass::Copy, instance));
            let compute = (0..platform.compute_engines).map(|instance| (EngineClass::Compute, instance));
            for (slot, (class, instance)) in copy.chain(compute).enumerate() {
                all.push(Engine {
                    id: EngineId { tile: TileId(tile), class, instance },
                    slot,
                    schedule: rank::mutex(Rank::LEAF, Schedule::default()),
                    returned: Condvar::new(),
                });
            }
        }
        let per_tile = (platform.copy_engines + platform.compute_engines) as usize;
        Self { all, owners: rank::rwlock(Rank::LEAF, Owners::default()), per_tile }
    }

    pub(crate) fn per_tile(&self) -> usize {
        self.per_tile
    }

    pub(crate) fn find(&self, id: EngineId) -> Option<(usize, &Engine)> {
        self.all.iter().enumerate().find(|(_, engine)| engine.id == id)
    }

    fn owner(&self, context: ContextId) -> Option<&Engine> {
        self.owners.read().engine_of.get(&context).map(|&engine| &self.all[engine])
    }

    pub(crate) fn count(&self, counters: &mut Counters) {
        for engine in &self.all {
            let schedule = engine.schedule.lock();
            counters.commands += schedule.commands;
            counters.jobs += schedule.jobs;
            counters.kills += schedule.kills;
        }
    }
}

impl Gpu {
    /// The engines that programs may use: on each tile the copy engines, then the compute engines.
    pub fn engines(&self) -> impl Iterator<Item = EngineId> + '_ {
        self.engines.all.iter().map(|engine| engine.id)
    }

    /// Makes a context of an address space on an engine. Ids rise and are not reused. An engine that the
    /// platform does not have gives a record, and a context that never runs.
    pub fn context_create(&self, engine: EngineId, asid: Asid) -> ContextId {
        let found = self.engines.find(engine);
        let context = {
            let mut owners = self.engines.owners.write();
            owners.last += 1;
            let context = ContextId(owners.last);
            if let Some((index, _)) = found {
                owners.engine_of.insert(context, index);
            }
            context
        };
        match found {
            Some((_, unit)) => {
                let fresh = Context { asid, state: State::Idle, jobs: VecDeque::new(), run: None, ending: false };
                unit.schedule.lock().contexts.insert(context, fresh);
            }
            None => self.log.record(Record::NoSuchEngine(engine)),
        }
        context
    }

    /// Ends a context, whatever it does; its jobs are forgotten without a word. Waits for the one command that it is
    /// executing, which may block in a host page fault. An interrupt that is just being delivered by another
    /// thread may still arrive; ids are not reused, so the driver can tell.
    pub fn context_destroy(&self, context: ContextId) {
        let Some(unit) = self.engines.owner(context) else {
            self.log.record(Record::NoSuchContext(context));
            return;
        };
        let mut schedule = unit.schedule.lock();
        if let Some(entry) = schedule.contexts.get_mut(&context) {
            entry.ending = true;
        }
        schedule.turn.retain(|&waiting| waiting != context);
        while schedule.contexts.get(&context).is_some_and(|entry| entry.state == State::Running) {
            unit.returned.wait(&mut schedule);
        }
        schedule.contexts.remove(&context);
        drop(schedule);
        self.engines.owners.write().engine_of.remove(&context);
    }

    /// Gives a context a job; jobs run in order. Calls `engine_ready`. A dead context takes no job.
    pub fn submit(&self, context: ContextId, job: Job) {
        let Some(unit) = self.engines.owner(context) else {
            self.log.record(Record::NoSuchContext(context));
            return;
        };
        if unit.enqueue(context, job) {
            self.irq.engine_ready(unit.id);
        }
    }

    /// Runs one command of the context whose turn it is. To be called by one thread an engine.
    pub fn step(&self, engine: EngineId) -> Step {
        let Some((_, unit)) = self.engines.find(engine) else {
            self.log.record(Record::NoSuchEngine(engine));
            return Step::Idle;
        };
        let (context, asid, doomed, mut run) = match unit.take() {
            Ok(taken) => taken,
            Err(nothing) => return nothing,
        };
        let by = Initiator { engine, slot: unit.slot, asid };
        let progress = if doomed { Progress::Hang } else { run.advance(self, by, context) };
        let seqno = run.seqno();
        unit.put_back(context, run, progress);
        match progress {
            Progress::Command => {}
            Progress::Stalled(stall) => {
                self.report(by, context, stall);
                return Step::Fault;
            }
            Progress::Done => self.irq.job_done(context, seqno),
            Progress::Hang => self.irq.context_killed(context, seqno),
        }
        Step::Ran
    }
}

impl Engine {
    fn enqueue(&self, context: ContextId, job: Job) -> bool {
        let mut schedule = self.schedule.lock();
        let Some(entry) = schedule.contexts.get_mut(&context) else { return false };
        if entry.ending || matches!(entry.state, State::Dead | State::Doomed) {
            return false;
        }
        entry.jobs.push_back(job);
        if entry.state == State::Idle {
            entry.state = State::Ready;
            schedule.turn.push_back(context);
        }
        true
    }

    /// Takes out the run of the context whose turn it is.
    fn take(&self) -> Result<(ContextId, Asid, bool, Run), Step> {
        let mut schedule = self.schedule.lock();
        if schedule.stepping {
            return Err(Step::Wait);
        }
        let Some(context) = schedule.turn.pop_front() else {
            let waits = schedule.contexts.values().any(|entry| entry.state == State::Faulted);
            return Err(if waits { Step::Wait } else { Step::Idle });
        };
        let entry = schedule.contexts.get_mut(&context).ok_or(Step::Ran)?;
        let doomed = entry.state == State::Doomed;
        let run = entry.run.take().or_else(|| entry.jobs.pop_front().map(Run::new)).ok_or(Step::Ran)?;
        entry.state = State::Running;
        let asid = entry.asid;
        schedule.stepping = true;
        Ok((context, asid, doomed, run))
    }

    fn put_back(&self, context: ContextId, run: Run, progress: Progress) {
        let mut schedule = self.schedule.lock();
        schedule.stepping = false;
        match progress {
            Progress::Command => schedule.commands += 1,
            Progress::Done => schedule.jobs += 1,
            Progress::Hang => schedule.kills += 1,
            Progress::Stalled(_) => {}
        }
        if let Some(entry) = schedule.contexts.get_mut(&context) {
            entry.put_back(run, progress);
            if entry.state == State::Ready && !entry.ending {
                schedule.turn.push_back(context);
            }
        }
        drop(schedule);
        self.returned.notify_all();
    }

    /// Takes the driver's answer; whether `context` has a fault pending, `None` where it does not exist.
    pub(crate) fn acknowledge(&self, context: ContextId, ack: FaultAck) -> Option<bool> {
        let mut schedule = self.schedule.lock();
        let entry = schedule.contexts.get_mut(&context).filter(|entry| !entry.ending)?;
        if entry.state != State::Faulted {
            return Some(false);
        }
        entry.state = match ack {
            FaultAck::Replay => State::Ready,
            FaultAck::Kill => State::Doomed,
        };
        // To the front: what was brought for the access must be used before another context's fault takes it away, or
        // two contexts of one engine could take a page from each other for ever.
        schedule.turn.push_front(context);
        Some(true)
    }
}

impl Context {
    fn put_back(&mut self, run: Run, progress: Progress) {
        self.state = match progress {
            Progress::Stalled(Stall { .. }) => State::Faulted,
            Progress::Command => State::Ready,
            Progress::Done if self.jobs.is_empty() => State::Idle,
            Progress::Done => State::Ready,
            Progress::Hang => State::Dead,
        };
        match progress {
            Progress::Stalled(_) | Progress::Command => self.run = Some(run),
            Progress::Done => {}
            Progress::Hang => self.jobs.clear(),
        }
    }
}
