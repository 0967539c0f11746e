//! Exec queues: jobs for one engine, or binds for one VM.
//!
//! An engine queue owns one hardware context. Jobs are numbered from 1; the device reports them done in order,
//! and reports a context that it killed: then the queue is banned, for good. A queue that is closed counts as banned
//! for those who still wait for it.
//!
//! [`Queues`] finds a queue by its context.
//!
//! Locking: a queue's `jobs` is a leaf lock, which the interrupt takes too. `ring` keeps jobs in the order of
//! their numbers and is held while the device is handed one.
//!
//! Upstream: `xe_exec_queue.c`, `xe_guc_submit.c` (ban, reset status).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use sync::Mutex;
use sync::atomic::{AtomicBool, AtomicU64};
use sync::rank::mutex;
use units::GpuVa;
use xe_spec::fault::{ContextId, EngineId};
use xe_spec::share::Share;

use crate::bind_queue::BindQueue;
use crate::errno::Errno;
use crate::event::{Event, Serviced};
use crate::fence::{Happened, QueueId};
use crate::port::HwJob;
use crate::ranks;
use crate::replays::Replays;
use crate::vm::Vm;

/// Jobs that may wait in a queue.
const MAX_JOBS: u64 = 1000;

/// The queues of a device.
pub(crate) struct Queues {
    contexts: Mutex<BTreeMap<ContextId, Weak<ExecQueue>>>,
    last: AtomicU64,
}

impl Queues {
    /// None yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { contexts: mutex(ranks::LEAF, BTreeMap::new()), last: AtomicU64::new(0) })
    }

    /// The queue of a context, unless it ended.
    pub(crate) fn of(&self, context: ContextId) -> Option<Arc<ExecQueue>> {
        self.contexts.lock().get(&context)?.upgrade()
    }
}

/// One queue.
pub(crate) struct ExecQueue {
    pub id: QueueId,
    pub vm: Arc<Vm>,
    queues: Arc<Queues>,
    pub kind: QueueKind,
    closed: AtomicBool,
}

/// What it queues.
pub(crate) enum QueueKind {
    /// Binds.
    Bind(Arc<BindQueue>),
    /// Jobs of an engine.
    Engine(EngineQueue),
}

/// The jobs of one context.
pub(crate) struct EngineQueue {
    pub context: ContextId,
    ring: Mutex<()>,
    jobs: Mutex<Jobs>,
}

#[derive(Default)]
struct Jobs {
    submitted: u64,
    done: u64,
    /// Where the jobs that are not done yet will write their fences, the oldest first.
    fences: VecDeque<Option<GpuVa>>,
    banned: bool,
    replays: Replays,
}

impl ExecQueue {
    /// A queue of binds.
    pub(crate) fn bind(vm: Arc<Vm>, queues: &Arc<Queues>) -> Arc<Self> {
        let tiles = vm.shared.gpu.tiles.len();
        Self::new(vm, queues, QueueKind::Bind(BindQueue::new(tiles, false)))
    }

    /// A queue of jobs, each for one of the engines of `placement`. `ENOMEM`: the device has no context to spare.
    pub(crate) fn engine(
        vm: Arc<Vm>,
        queues: &Arc<Queues>,
        placement: &[EngineId],
        share: Share,
    ) -> Result<Arc<Self>, Errno> {
        let context = vm.shared.gpu.hw.context_create(placement, vm.asid, share).ok_or(Errno::ENOMEM)?;
        let queue = EngineQueue { context, ring: mutex(ranks::RING, ()), jobs: mutex(ranks::LEAF, Jobs::default()) };
        let queue = Self::new(vm, queues, QueueKind::Engine(queue));
        queues.contexts.lock().insert(context, Arc::downgrade(&queue));
        Ok(queue)
    }

    fn new(vm: Arc<Vm>, queues: &Arc<Queues>, kind: QueueKind) -> Arc<Self> {
        let id = QueueId(queues.last.fetch_add(1) + 1);
        Arc::new(Self { id, vm, queues: queues.clone(), kind, closed: AtomicBool::new(false) })
    }

    /// Whether it runs jobs of `vm`.
    pub(crate) fn is_engine_of(&self, vm: &Arc<Vm>) -> bool {
        matches!(self.kind, QueueKind::Engine(_)) && Arc::ptr_eq(&self.vm, vm)
    }

    /// Hands the device a job.
    pub(crate) fn submit(&self, batch: GpuVa, fence: Option<(GpuVa, u64)>) -> Result<(), Errno> {
        let QueueKind::Engine(queue) = &self.kind else { return Err(Errno::EINVAL) };
        let shared = &self.vm.shared;
        let _ring = queue.ring.lock();
        if self.is_closed() {
            return Err(Errno::ENOENT);
        }
        let seqno = queue.jobs.lock().next(fence.map(|(addr, _)| addr))?;
        shared.gpu.tell(Event::JobSubmitted { context: queue.context, seqno });
        shared.gpu.hw.submit(queue.context, HwJob { seqno, batch: Some(batch), fence });
        Ok(())
    }

    /// The device reports a job done.
    pub(crate) fn job_done(&self, seqno: u64) {
        if let QueueKind::Engine(queue) = &self.kind {
            let next = || queue.jobs.lock().next_done(seqno);
            while let Some(fence) = next() {
                self.vm.shared.waiters.wake(Happened::JobDone(self.id, fence.map(|addr| addr.0)));
            }
        }
    }

    /// Notes how a fault of the context was answered; whether a replay may get on.
    pub(crate) fn makes_progress(&self, addr: GpuVa, outcome: Serviced) -> bool {
        match &self.kind {
            QueueKind::Bind(_) => true,
            QueueKind::Engine(queue) => queue.jobs.lock().replays.makes_progress(addr, outcome),
        }
    }

    /// The device reports the context killed.
    pub(crate) fn ban(&self) {
        if let QueueKind::Engine(queue) = &self.kind {
            queue.jobs.lock().banned = true;
        }
        self.vm.shared.waiters.wake(Happened::Ended(self.id));
    }

    /// Whether a wait for it is in vain (`reset_status`).
    pub(crate) fn is_banned(&self) -> bool {
        let banned = match &self.kind {
            QueueKind::Bind(_) => false,
            QueueKind::Engine(queue) => queue.jobs.lock().banned,
        };
        banned || self.is_closed()
    }

    /// Ends the queue: its context runs nothing any more, and waits for it end. Idempotent.
    pub(crate) fn close(&self) {
        let shared = &self.vm.shared;
        match &self.kind {
            QueueKind::Bind(_) => self.closed.store(true),
            QueueKind::Engine(queue) => {
                let _ring = queue.ring.lock();
                if self.closed.swap(true) {
                    return;
                }
                shared.gpu.hw.context_destroy(queue.context);
                self.queues.contexts.lock().remove(&queue.context);
                shared.faults.squash(queue.context, self.vm.asid);
            }
        }
        shared.waiters.wake(Happened::Ended(self.id));
    }

    fn is_closed(&self) -> bool {
        self.closed.load()
    }
}

impl Jobs {
    /// The next job's number.
    fn next(&mut self, fence: Option<GpuVa>) -> Result<u64, Errno> {
        if self.banned {
            return Err(Errno::ECANCELED);
        }
        if self.submitted - self.done >= MAX_JOBS {
            return Err(Errno::EAGAIN);
        }
        self.submitted += 1;
        self.fences.push_back(fence);
        Ok(self.submitted)
    }

    /// Takes the oldest job that is done, if jobs up to `seqno` are: where its fence is.
    fn next_done(&mut self, seqno: u64) -> Option<Option<GpuVa>> {
        let fence = if self.done < seqno { self.fences.pop_front() } else { None }?;
        self.done += 1;
        Some(fence)
    }
}
