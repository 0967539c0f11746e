//! Exec queues: jobs for one engine, or binds for one VM.
//!
//! An engine queue owns one hardware context. Jobs are numbered from 1; the device reports them done in order,
//! and reports a context that it killed: then the queue is banned, for good. A queue that is closed counts as banned
//! for those who still wait for it.
//!
//! Locking: a queue's `jobs` is a leaf lock, which the interrupt takes too. `ring` keeps jobs in the order of
//! their numbers and is held while the device is handed one.
//!
//! Upstream: `xe_exec_queue.c`, `xe_guc_submit.c` (ban, reset status).

use std::collections::VecDeque;
use std::sync::Arc;

use sync::Mutex;
use sync::atomic::AtomicBool;
use sync::rank::mutex;
use units::GpuVa;
use xe_spec::fault::{ContextId, EngineId};

use crate::errno::Errno;
use crate::event::{Event, Serviced};
use crate::fault::replays::Replays;
use crate::fence::{BindFences, Happened, QueueId};
use crate::port::HwJob;
use crate::ranks;
use crate::vm::Vm;

/// Jobs that may wait in a queue.
const MAX_JOBS: u64 = 1000;

/// One queue.
pub(crate) struct ExecQueue {
    pub id: QueueId,
    pub vm: Arc<Vm>,
    pub kind: QueueKind,
    closed: AtomicBool,
}

/// What it queues.
pub(crate) enum QueueKind {
    /// Binds, which are done when they are asked for: only their fences queue.
    Bind(BindFences),
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
    pub(crate) fn bind(vm: Arc<Vm>) -> Arc<Self> {
        Self::new(vm, QueueKind::Bind(BindFences::new()))
    }

    /// A queue of jobs for `engine`. `ENOMEM`: the device has no context to spare.
    pub(crate) fn engine(vm: Arc<Vm>, engine: EngineId) -> Result<Arc<Self>, Errno> {
        let device = vm.device.clone();
        let context = device.gpu.hw.context_create(engine, vm.asid).ok_or(Errno::ENOMEM)?;
        let queue = EngineQueue { context, ring: mutex(ranks::RING, ()), jobs: mutex(ranks::LEAF, Jobs::default()) };
        let queue = Self::new(vm, QueueKind::Engine(queue));
        device.contexts.lock().insert(context, Arc::downgrade(&queue));
        Ok(queue)
    }

    fn new(vm: Arc<Vm>, kind: QueueKind) -> Arc<Self> {
        let id = QueueId(vm.device.last_queue.fetch_add(1) + 1);
        Arc::new(Self { id, vm, kind, closed: AtomicBool::new(false) })
    }

    /// Whether it runs jobs of `vm`.
    pub(crate) fn is_engine_of(&self, vm: &Arc<Vm>) -> bool {
        matches!(self.kind, QueueKind::Engine(_)) && Arc::ptr_eq(&self.vm, vm)
    }

    /// Hands the device a job.
    pub(crate) fn submit(&self, batch: GpuVa, fence: Option<(GpuVa, u64)>) -> Result<(), Errno> {
        let QueueKind::Engine(queue) = &self.kind else { return Err(Errno::EINVAL) };
        let device = &self.vm.device;
        let _ring = queue.ring.lock();
        if self.is_closed() {
            return Err(Errno::ENOENT);
        }
        let seqno = queue.jobs.lock().next(fence.map(|(addr, _)| addr))?;
        device.gpu.tell(Event::JobSubmitted { context: queue.context, seqno });
        device.gpu.hw.submit(queue.context, HwJob { seqno, batch: Some(batch), fence });
        Ok(())
    }

    /// The device reports a job done.
    pub(crate) fn job_done(&self, seqno: u64) {
        if let QueueKind::Engine(queue) = &self.kind {
            let next = || queue.jobs.lock().next_done(seqno);
            while let Some(fence) = next() {
                self.vm.device.waiters.wake(Happened::JobDone(self.id, fence.map(|addr| addr.0)));
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
        self.vm.device.waiters.wake(Happened::Ended(self.id));
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
        let device = &self.vm.device;
        match &self.kind {
            QueueKind::Bind(_) => self.closed.store(true),
            QueueKind::Engine(queue) => {
                let _ring = queue.ring.lock();
                if self.closed.swap(true) {
                    return;
                }
                device.gpu.hw.context_destroy(queue.context);
                device.contexts.lock().remove(&queue.context);
                device.faults.squash(queue.context, self.vm.asid);
            }
        }
        device.waiters.wake(Happened::Ended(self.id));
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
