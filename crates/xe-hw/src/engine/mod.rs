//! Engines: contexts, their jobs, and the step that runs one command of one of them.
//!
//! An engine is a resumable state machine: whoever owns a thread calls [`Gpu::step`](crate::Gpu::step) until there is nothing to
//! do. Contexts take turns at command boundaries, and a context that waits, for a fault or for memory, is passed over.
//!
//! | file | what |
//! |---|---|
//! | `schedule.rs` | whose turn it is |
//! | `exec.rs` | a job being executed: fetch, and what a command does |
//! | `decode.rs` | what a command is |
//! | `blit.rs` | copies and fills |
//! | `registers.rs` | registers, arithmetic, timestamps |
//! | `poll.rs` | how long a batch that polls memory pauses |
//!
//! A context may run on one engine or on any of several of a class: it changes between jobs, to the one that has least to do.
//!
//! Key types: [`Job`] (what the driver submits), `Engine` (its contexts), `exec::Run` (a job being executed).
//! A step's [`Happened`] is for `gpu.rs` to tell the driver.
//!
//! Locking: the engine's lock covers who is whose turn, never the execution of a command: a running context's
//! `Run` is taken out. What a step came to is told without it, after the context was put back.
//!
//! Upstream: what GuC submission does (`xe_guc_submit.c`), seen from the other side.

mod blit;
mod decode;
mod exec;
mod math;
mod poll;
mod registers;
mod schedule;

use crate::chip::Chip;
use crate::mmu::Mmu;
use crate::mmu::access::Initiator;
use crate::record::Counters;
use exec::Progress;
use schedule::{Context, Schedule, Taken};
use std::collections::BTreeMap;
use std::sync::Arc;
use sync::atomic::AtomicU64;
use sync::rank::{self, Rank};
use sync::{Condvar, Mutex, RwLock, Told};
use units::{GpuVa, TileId};
use xe_spec::fault::{Asid, ContextId, EngineId, FaultAck, FaultRecord, FaultSlot};
use xe_spec::platform::Platform;
use xe_spec::share::Share;

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
    /// Nothing can run before that time: contexts poll memory, and pause. Others may wait for an ack.
    Sleep(u64),
    /// No context has work.
    Idle,
}

/// One engine.
pub(crate) struct Engine {
    number: usize,
    id: EngineId,
    slot: usize,
    schedule: Mutex<Schedule>,
    /// A running context was put back.
    returned: Condvar,
    pausing: Arc<Pausing>,
}

/// Engines with contexts that may pause, a bit each (there are 64 at most): nobody else needs to be told of a change in
/// memory. A bit is changed under its engine's lock.
type Pausing = AtomicU64;

/// All engines of the device, and which context belongs to which.
pub(crate) struct Engines {
    all: Vec<Engine>,
    owners: RwLock<Owners>,
    per_tile: usize,
    pausing: Arc<Pausing>,
}

#[derive(Default)]
struct Owners {
    last: u32,
    of: BTreeMap<ContextId, Owner>,
}

/// Where a context is, and where it may be.
struct Owner {
    engine: usize,
    placement: Vec<usize>,
}

impl Engines {
    pub(crate) fn new(platform: &Platform) -> Self {
        let (mut all, pausing) = (Vec::new(), Arc::new(Pausing::new(0)));
        for tile in 0..platform.tiles.len() as u8 {
            for (slot, (class, instance)) in platform.engines().enumerate() {
                all.push(Engine {
                    number: all.len(),
                    id: EngineId { tile: TileId(tile), class, instance },
                    slot,
                    schedule: rank::mutex(Rank::LEAF, Schedule::default()),
                    returned: Condvar::new(),
                    pausing: pausing.clone(),
                });
            }
        }
        let per_tile = platform.engines().count();
        Self { all, owners: rank::rwlock(Rank::LEAF, Owners::default()), per_tile, pausing }
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
        self.owners.read().of.get(&context).map(|owner| &self.all[owner.engine])
    }

    /// A new context, which may run on each of these engines; of engines that do not exist, one that never runs.
    pub(crate) fn create(&self, placement: &[EngineId], asid: Asid, share: Share) -> ContextId {
        let index = |id: &EngineId| self.all.iter().position(|unit| unit.id == *id);
        let placement: Vec<usize> = placement.iter().filter_map(index).collect();
        let first = placement.first().copied();
        let context = {
            let mut owners = self.owners.write();
            owners.last += 1;
            let context = ContextId(owners.last);
            if let Some(engine) = first {
                owners.of.insert(context, Owner { engine, placement });
            }
            context
        };
        if let Some(engine) = first {
            self.all[engine].schedule.lock().insert(context, Context::new(asid, share));
        }
        context
    }

    /// The engine that a new job of a context goes to: a context that does nothing changes to the engine of its placement that
    /// has least to do. Calls for one context are one after the other.
    pub(crate) fn settle(&self, context: ContextId) -> Option<&Engine> {
        let (now, placement) = {
            let owners = self.owners.read();
            let owner = owners.of.get(&context)?;
            if owner.placement.len() < 2 {
                return Some(&self.all[owner.engine]);
            }
            (owner.engine, owner.placement.clone())
        };
        let busy = |&engine: &usize| (self.all[engine].schedule.lock().busy(), engine != now);
        let best = placement.into_iter().min_by_key(busy).unwrap_or(now);
        if best != now {
            let Some(idle) = self.all[now].schedule.lock().remove_idle(context) else { return Some(&self.all[now]) };
            self.all[best].schedule.lock().insert(context, idle);
            if let Some(owner) = self.owners.write().of.get_mut(&context) {
                owner.engine = best;
            }
        }
        Some(&self.all[best])
    }

    /// A context that was [retired](Engine::retire) is nobody's.
    pub(crate) fn forget(&self, context: ContextId) {
        self.owners.write().of.remove(&context);
    }

    /// Ends all pauses; which engines have something to do now.
    pub(crate) fn look_again(&self) -> impl Iterator<Item = EngineId> + '_ {
        let pausing = self.pausing.load();
        let engines = self.all.iter().filter(move |engine| pausing & engine.bit() != 0);
        engines.filter(|engine| engine.look_again()).map(|engine| engine.id)
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
    /// A batch interrupts, or begins to wait.
    Interrupt(ContextId),
    Fault(FaultRecord),
    Done(ContextId, u64),
    Killed(ContextId, u64),
}

impl Engine {
    pub(crate) fn id(&self) -> EngineId {
        self.id
    }

    /// Its number inside its tile.
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    pub(crate) fn set_share(&self, context: ContextId, share: Share) {
        self.schedule.lock().set_share(context, share);
    }

    /// Time that a context had the engine, in nanoseconds.
    pub(crate) fn ran_ns(&self, context: ContextId) -> u64 {
        self.schedule.lock().ran_ns(context)
    }

    /// Runs one command of the context whose turn it is.
    pub(crate) fn step(&self, chip: &Chip, mmu: &Mmu) -> Happened {
        let mut schedule = self.schedule.lock();
        let taken = schedule.take();
        if matches!(taken, Err(Step::Idle | Step::Wait)) {
            sync::tell(&schedule, Told::Looks);
        }
        drop(schedule);
        let Taken { context, serial, asid, doomed, mut run } = match taken {
            Ok(taken) => taken,
            Err(nothing) => return Happened::Nothing(nothing),
        };
        let by = Initiator { chip, mmu, engine: self.id, slot: self.slot, asid };
        let progress = if doomed { Progress::Hang } else { run.advance(&by, context) };
        let (seqno, interrupt) = (run.seqno(), run.take_interrupt());
        {
            let mut schedule = self.schedule.lock();
            schedule.put_back(context, run, progress);
            if schedule.pauses() {
                self.pausing.fetch_or(self.bit());
            }
        }
        self.returned.notify_all();
        match progress {
            Progress::Command | Progress::Waits(_) if interrupt => Happened::Interrupt(context),
            Progress::Command | Progress::Waits(_) => Happened::Nothing(Step::Ran),
            Progress::Stalled(stall) => {
                chip.log.count_fault(stall.refusal.fault_type);
                let slot = FaultSlot { engine: self.id, context, serial };
                Happened::Fault(stall.record(&by, slot))
            }
            Progress::Done => Happened::Done(context, seqno),
            Progress::Hang => Happened::Killed(context, seqno),
        }
    }

    const fn bit(&self) -> u64 {
        1 << self.number
    }

    /// Ends all pauses; whether there were any.
    fn look_again(&self) -> bool {
        let mut schedule = self.schedule.lock();
        self.pausing.fetch_and(!self.bit());
        schedule.look_again()
    }

    /// Takes a context away; waits for the one command that it is executing.
    pub(crate) fn retire(&self, context: ContextId) {
        let mut schedule = self.schedule.lock();
        while schedule.end(context) {
            self.returned.wait(&mut schedule);
        }
        schedule.remove(context);
    }

    /// Whether the context takes the job.
    pub(crate) fn enqueue(&self, context: ContextId, job: Job) -> bool {
        self.schedule.lock().enqueue(context, job)
    }

    /// Takes the driver's answer; whether that fault is pending, `None` where its context does not exist.
    pub(crate) fn acknowledge(&self, slot: FaultSlot, ack: FaultAck) -> Option<bool> {
        self.schedule.lock().acknowledge(slot, ack)
    }
}
