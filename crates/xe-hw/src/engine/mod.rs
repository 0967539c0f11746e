//! Engines: contexts, their jobs, and the step that runs one command of one of them.
//!
//! An engine is a resumable state machine: whoever owns a thread calls [`Gpu::step`](crate::Gpu::step) until there is nothing to
//! do. Contexts take turns at every command boundary, so a batch that never ends blocks nobody, and a context
//! that waits for a fault is passed over.
//!
//! Key types: [`Job`] (what the driver submits), `Engine` (its contexts), `exec::Run` (a job being executed).
//! `exec.rs` executes; a step's [`Happened`] is for `gpu.rs` to tell the driver.
//!
//! Locking: the engine's lock covers who is whose turn, never the execution of a command: a running context's
//! `Run` is taken out. What a step came to is told without it, after the context was put back.
//!
//! Upstream: what GuC submission does (`xe_guc_submit.c`), seen from the other side.

mod exec;

use crate::chip::Chip;
use crate::fault::Stall;
use crate::mmu::Mmu;
use crate::mmu::access::Initiator;
use crate::record::Counters;
use exec::{Progress, Run};
use std::collections::{BTreeMap, VecDeque};
use sync::rank::{self, Rank};
use sync::{Condvar, Mutex, RwLock};
use units::{GpuVa, TileId};
use xe_spec::fault::{Asid, ContextId, EngineClass, EngineId, FaultAck, FaultRecord, FaultSlot};
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
    /// Turns so far: a fault is named by the turn that it ended.
    turns: u64,
    /// Somebody ends it: once it is put back it has no turn any more.
    ending: bool,
}

/// A context's run, taken out for one step.
struct Taken {
    /// Of the fault, if the step ends in one.
    slot: FaultSlot,
    asid: Asid,
    doomed: bool,
    run: Run,
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

    pub(crate) fn ids(&self) -> impl Iterator<Item = EngineId> + '_ {
        self.all.iter().map(|engine| engine.id)
    }

    pub(crate) fn find(&self, id: EngineId) -> Option<&Engine> {
        self.all.iter().find(|engine| engine.id == id)
    }

    /// The engine of a context.
    pub(crate) fn owner(&self, context: ContextId) -> Option<&Engine> {
        self.owners.read().engine_of.get(&context).map(|&engine| &self.all[engine])
    }

    /// A new context; of an engine that does not exist, one that never runs.
    pub(crate) fn create(&self, engine: EngineId, asid: Asid) -> ContextId {
        let index = self.all.iter().position(|unit| unit.id == engine);
        let context = {
            let mut owners = self.owners.write();
            owners.last += 1;
            let context = ContextId(owners.last);
            if let Some(index) = index {
                owners.engine_of.insert(context, index);
            }
            context
        };
        if let Some(index) = index {
            let fresh = Context { asid, state: State::Idle, jobs: VecDeque::new(), run: None, turns: 0, ending: false };
            self.all[index].schedule.lock().contexts.insert(context, fresh);
        }
        context
    }

    /// A context that was [retired](Engine::retire) is nobody's.
    pub(crate) fn forget(&self, context: ContextId) {
        self.owners.write().engine_of.remove(&context);
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

/// What a step came to, and what the driver is to be told.
pub(crate) enum Happened {
    /// Nothing to tell.
    Nothing(Step),
    Fault(FaultRecord),
    Done(ContextId, u64),
    Killed(ContextId, u64),
}

impl Engine {
    pub(crate) fn id(&self) -> EngineId {
        self.id
    }

    /// Runs one command of the context whose turn it is.
    pub(crate) fn step(&self, chip: &Chip, mmu: &Mmu) -> Happened {
        let Taken { slot, asid, doomed, mut run } = match self.take() {
            Ok(taken) => taken,
            Err(nothing) => return Happened::Nothing(nothing),
        };
        let context = slot.context;
        let by = Initiator { chip, mmu, engine: self.id, slot: self.slot, asid };
        let progress = if doomed { Progress::Hang } else { run.advance(&by, context) };
        let seqno = run.seqno();
        self.put_back(context, run, progress);
        match progress {
            Progress::Command => Happened::Nothing(Step::Ran),
            Progress::Stalled(stall) => {
                chip.log.count_fault(stall.refusal.fault_type);
                Happened::Fault(stall.record(&by, slot))
            }
            Progress::Done => Happened::Done(context, seqno),
            Progress::Hang => Happened::Killed(context, seqno),
        }
    }

    /// Takes a context away; waits for the one command that it is executing.
    pub(crate) fn retire(&self, context: ContextId) {
        let mut schedule = self.schedule.lock();
        if let Some(entry) = schedule.contexts.get_mut(&context) {
            entry.ending = true;
        }
        schedule.turn.retain(|&waiting| waiting != context);
        while schedule.contexts.get(&context).is_some_and(|entry| entry.state == State::Running) {
            self.returned.wait(&mut schedule);
        }
        schedule.contexts.remove(&context);
    }

    /// Whether the context takes the job.
    pub(crate) fn enqueue(&self, context: ContextId, job: Job) -> bool {
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
    fn take(&self) -> Result<Taken, Step> {
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
        entry.turns += 1;
        let slot = FaultSlot { engine: self.id, context, serial: entry.turns };
        let taken = Taken { slot, asid: entry.asid, doomed, run };
        schedule.stepping = true;
        Ok(taken)
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

    /// Takes the driver's answer; whether that fault is pending, `None` where its context does not exist.
    pub(crate) fn acknowledge(&self, slot: FaultSlot, ack: FaultAck) -> Option<bool> {
        let (mut schedule, context) = (self.schedule.lock(), slot.context);
        let entry = schedule.contexts.get_mut(&context).filter(|entry| !entry.ending)?;
        if entry.state != State::Faulted || entry.turns != slot.serial {
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
