//! Exec queues: jobs for one engine, or binds for one VM.
//!
//! An engine queue owns one hardware context. Jobs are numbered from 1; the device reports them done in order,
//! and reports a context that it killed: then the queue is banned, for good.
//!
//! Locking: a queue's `jobs` is a leaf lock, which the interrupt takes too. `ring` keeps jobs in the order of
//! their numbers and is held while the device is handed one.
//!
//! Upstream: `xe_exec_queue.c`, `xe_guc_submit.c` (ban, reset status).

use std::sync::Arc;

use sync::Mutex;
use sync::rank::mutex;
use units::GpuVa;
use xe_spec::fault::{ContextId, EngineId};

use crate::errno::Errno;
use crate::event::Event;
use crate::fence::BindFences;
use crate::port::HwJob;
use crate::ranks;
use crate::vm::Vm;

/// Jobs that may wait in a queue.
const MAX_JOBS: u64 = 1000;

/// One queue.
pub(crate) struct ExecQueue {
    pub vm: Arc<Vm>,
    pub kind: QueueKind,
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
    banned: bool,
    closed: bool,
}

impl ExecQueue {
    /// A queue of binds.
    pub(crate) fn bind(vm: Arc<Vm>) -> Arc<Self> {
        Arc::new(Self { vm, kind: QueueKind::Bind(BindFences::new()) })
    }

    /// A queue of jobs for `engine`.
    pub(crate) fn engine(vm: Arc<Vm>, engine: EngineId) -> Arc<Self> {
        let device = vm.device.clone();
        let context = device.gpu.hw.context_create(engine, vm.asid);
        let queue = EngineQueue { context, ring: mutex(ranks::RING, ()), jobs: mutex(ranks::LEAF, Jobs::default()) };
        let queue = Arc::new(Self { vm, kind: QueueKind::Engine(queue) });
        device.contexts.lock().insert(context, Arc::downgrade(&queue));
        queue
    }

    /// Hands the device a job.
    pub(crate) fn submit(&self, batch: GpuVa, fence: Option<(GpuVa, u64)>) -> Result<(), Errno> {
        let QueueKind::Engine(queue) = &self.kind else { return Err(Errno::EINVAL) };
        let device = &self.vm.device;
        let _ring = queue.ring.lock();
        let seqno = queue.jobs.lock().next()?;
        device.gpu.tell(Event::JobSubmitted { context: queue.context, seqno });
        device.gpu.hw.submit(queue.context, HwJob { seqno, batch: Some(batch), fence });
        Ok(())
    }

    /// The device reports a job done.
    pub(crate) fn job_done(&self, seqno: u64) {
        if let QueueKind::Engine(queue) = &self.kind {
            let mut jobs = queue.jobs.lock();
            jobs.done = jobs.done.max(seqno);
        }
    }

    /// The device reports the context killed.
    pub(crate) fn ban(&self) {
        if let QueueKind::Engine(queue) = &self.kind {
            queue.jobs.lock().banned = true;
        }
    }

    /// Whether a wait for it is in vain (`reset_status`).
    pub(crate) fn is_banned(&self) -> bool {
        match &self.kind {
            QueueKind::Bind(_) => false,
            QueueKind::Engine(queue) => queue.jobs.lock().banned,
        }
    }

    /// Ends the queue: its context runs nothing any more. Idempotent.
    pub(crate) fn close(&self) {
        let QueueKind::Engine(queue) = &self.kind else { return };
        let device = &self.vm.device;
        let _ring = queue.ring.lock();
        if std::mem::replace(&mut queue.jobs.lock().closed, true) {
            return;
        }
        device.gpu.hw.context_destroy(queue.context);
        device.contexts.lock().remove(&queue.context);
        device.faults.squash(queue.context, self.vm.asid);
    }
}

impl Jobs {
    /// The next job's number.
    fn next(&mut self) -> Result<u64, Errno> {
        if self.banned {
            return Err(Errno::ECANCELED);
        }
        if self.closed {
            return Err(Errno::ENOENT);
        }
        if self.submitted - self.done >= MAX_JOBS {
            return Err(Errno::EAGAIN);
        }
        self.submitted += 1;
        Ok(self.submitted)
    }
}
