//! Exec queues: jobs for one engine, or binds for one VM.
//!
//! An engine queue owns one hardware context. A job goes to its ring when its in-fences are over. Jobs in the ring are
//! numbered from 1; the device reports them done in order, and reports a context that it killed: then the queue is
//! banned, for good. A queue that is closed counts as banned for those who still wait for it. Each job has a fence,
//! which is over when the job is done, or with an error when its queue is banned or closed before.
//!
//! A job of a VM with dma-fences may not run for ever: [`timeout`] looks after it.
//!
//! [`Queues`] finds a queue by its context.
//!
//! Locking: a queue's `jobs` is a leaf lock, which the interrupt takes too. `ring` keeps jobs in the order of
//! their numbers and is held while the device is handed one, and while its context ends.
//!
//! Upstream: `xe_exec_queue.c`, `xe_guc_submit.c` (ban, reset status), `drm_sched_entity`.

mod timeout;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use sync::atomic::{AtomicBool, AtomicU64};
use sync::rank::mutex;
use sync::{Mutex, Told};
use units::{GpuVa, HostRange};
use xe_spec::fault::{ContextId, EngineClass, EngineId};
use xe_spec::share::Share;

use crate::bind_queue::BindQueue;
use crate::errno::Errno;
use crate::event::{Event, Serviced};
use crate::fence::{Fence, Happened, QueueId};
use crate::jobs::JobQueue;
use crate::port::HwJob;
use crate::ranks;
use crate::replays::Replays;
use crate::vm::Vm;
use timeout::Watch;
use units::TileId;

/// Jobs that may wait in a queue.
const MAX_JOBS: usize = 1000;

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

    /// Waits for the jobs of VMs with dma-fences that show memory of `range` by a userptr. The caller holds no lock.
    ///
    /// Upstream: `vma_userptr_invalidate`, which waits for all fences of the VM.
    pub(crate) fn finish_jobs(&self, range: HostRange) {
        let queues: Vec<_> = self.contexts.lock().values().filter_map(Weak::upgrade).collect();
        let concerned = queues.iter().filter(|queue| queue.has_timeout() && !queue.last().is_over());
        let shows = |queue: &&Arc<ExecQueue>| queue.vm.state.read().shows_user_memory(range);
        concerned.filter(shows).for_each(|queue| _ = queue.last().wait(None));
    }

    /// Resets a GT: queues whose job had begun are banned, all others go on. Upstream: `gt_reset`, `guc_exec_queue_stop`.
    pub(crate) fn reset(&self, tile: TileId) {
        let queues: Vec<_> = self.contexts.lock().values().filter_map(Weak::upgrade).collect();
        queues.iter().for_each(|queue| queue.reset(tile));
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
    Engine(Box<EngineQueue>),
}

/// The jobs of one context.
pub(crate) struct EngineQueue {
    pub context: ContextId,
    tile: TileId,
    class: EngineClass,
    /// How long a job may run, where there is a limit.
    job_timeout_ns: u64,
    ring: Mutex<Ring>,
    jobs: Mutex<Jobs>,
    /// Jobs that are not in the ring yet.
    line: JobQueue,
}

/// What the order of the ring's jobs is kept by.
#[derive(Default)]
struct Ring {
    /// The context is gone.
    ended: bool,
}

struct Jobs {
    /// Fences of jobs that are not in the ring yet, in the order in which they were asked for.
    waiting: VecDeque<Arc<Fence>>,
    submitted: u64,
    done: u64,
    /// Those in the ring that are not done yet, the oldest first.
    running: VecDeque<Running>,
    /// Of the job that went to the ring last.
    last_begun: Arc<Fence>,
    banned: bool,
    replays: Replays,
    watch: Watch,
}

/// A job in the ring.
struct Running {
    /// Where it will write its user fence.
    user: Option<GpuVa>,
    finished: Arc<Fence>,
}

/// A job as EXEC asks for it.
struct Job {
    batch: GpuVa,
    user: Option<(GpuVa, u64)>,
    finished: Arc<Fence>,
}

impl ExecQueue {
    /// A queue of binds.
    pub(crate) fn bind(vm: Arc<Vm>, queues: &Arc<Queues>) -> Arc<Self> {
        let binds = BindQueue::new(&vm.shared.gpu, false);
        Self::new(vm, queues, QueueKind::Bind(binds))
    }

    /// A queue of jobs, each for one of the engines of `placement`. `ENOMEM`: the device has no context to spare.
    pub(crate) fn engine(
        vm: Arc<Vm>,
        queues: &Arc<Queues>,
        placement: &[EngineId],
        share: Share,
        job_timeout_ns: u64,
    ) -> Result<Arc<Self>, Errno> {
        let EngineId { tile, class, .. } = *placement.first().ok_or(Errno::EINVAL)?;
        let context = vm.shared.gpu.hw.context_create(placement, vm.asid, share).ok_or(Errno::ENOMEM)?;
        let (ring, jobs) = (mutex(ranks::RING, Ring::default()), mutex(ranks::LEAF, Jobs::new()));
        let queue = EngineQueue { context, tile, class, job_timeout_ns, ring, jobs, line: JobQueue::new() };
        let queue = Self::new(vm, queues, QueueKind::Engine(Box::new(queue)));
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

    /// Time that it had engines of `class`, in nanoseconds.
    pub(crate) fn ran_ns(&self, class: EngineClass) -> u64 {
        match &self.kind {
            QueueKind::Engine(queue) if queue.class == class && !self.is_closed() => {
                self.vm.shared.gpu.hw.context_ran_ns(queue.context)
            }
            _ => 0,
        }
    }

    /// Runs a job when `deps` are over and all jobs before it are in the ring. The fence is that of its end.
    pub(crate) fn submit(
        self: &Arc<Self>,
        batch: GpuVa,
        user: Option<(GpuVa, u64)>,
        deps: Vec<Arc<Fence>>,
    ) -> Result<Arc<Fence>, Errno> {
        let QueueKind::Engine(queue) = &self.kind else { return Err(Errno::EINVAL) };
        let worker = &self.vm.shared.worker;
        if self.has_timeout() {
            worker.start()?;
        }
        let finished = queue.jobs.lock().reserve()?;
        let job = Job { batch, user, finished: finished.clone() };
        let goes_now = deps.iter().all(|fence| fence.is_over()) && queue.line.last().is_over();
        let handed = if goes_now {
            self.hand_over(job)
        } else {
            let own = self.clone();
            let handed = queue.line.submit(worker, deps, Box::new(move || own.hand_over(job)));
            let handed = handed.inspect_err(|_| queue.jobs.lock().gives_up(&finished));
            handed.map(|handed| {
                let finished = finished.clone();
                handed.on_signal(move |result| _ = result.map_err(|error| finished.signal(Err(error))));
            })
        };
        // Somebody may wait for it by now, as the last one.
        handed.inspect_err(|error| finished.signal(Err(*error)))?;
        Ok(finished)
    }

    /// Whether what its VM shows is in use for its sake: by a job that is not over, or because it may be preempted at any time. Upstream: it
    /// has a fence in the VM's `dma_resv`; where faults are served there are none.
    pub(crate) fn holds_memory(&self) -> bool {
        let is_busy = || !self.vm.is_long_running() && !self.last().is_over();
        self.is_engine_of(&self.vm) && (self.vm.is_preempt_mode() || is_busy())
    }

    /// The fence of the job that will be over last. Upstream: `xe_exec_queue_last_fence_get`.
    pub(crate) fn last(&self) -> Arc<Fence> {
        match &self.kind {
            QueueKind::Engine(queue) => queue.jobs.lock().last(),
            QueueKind::Bind(_) => Fence::over(Ok(())),
        }
    }

    /// Puts a job into the ring.
    fn hand_over(self: &Arc<Self>, job: Job) -> Result<(), Errno> {
        let QueueKind::Engine(queue) = &self.kind else { return Err(Errno::EINVAL) };
        let (gpu, Job { batch, user, finished }) = (&self.vm.shared.gpu, job);
        let is_first = {
            let ring = queue.ring.lock();
            let begun = queue.jobs.lock().begin(Running { user: user.map(|(addr, _)| addr), finished });
            if self.is_closed() {
                return Err(Errno::ENOENT);
            }
            if ring.ended {
                return Err(Errno::ECANCELED);
            }
            let (seqno, is_first) = begun?;
            gpu.emit(Event::JobSubmitted { context: queue.context, seqno });
            gpu.hw.submit(queue.context, HwJob { seqno, batch: Some(batch), fence: user });
            is_first
        };
        if is_first {
            self.watch(queue);
        }
        Ok(())
    }

    /// The device reports a job done.
    pub(crate) fn job_done(&self, seqno: u64) {
        if let QueueKind::Engine(queue) = &self.kind {
            let next = || queue.jobs.lock().next_done(seqno);
            while let Some(Running { user, finished }) = next() {
                self.watch_next(queue);
                finished.signal(Ok(()));
                self.vm.shared.waiters.wake(Happened::JobDone(self.id, user.map(|addr| addr.0)));
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
            queue.cancel(Errno::ECANCELED);
        }
        self.vm.shared.waiters.wake(Happened::Ended(self.id));
    }

    /// Kills the context, for a reason that its job is told; all later ones are cancelled.
    fn kill(&self, queue: &EngineQueue, why: Errno) {
        let shared = &self.vm.shared;
        {
            let mut ring = queue.ring.lock();
            if ring.ended {
                return;
            }
            self.end_context(queue, &mut ring);
        }
        let seqno = queue.jobs.lock().done + 1;
        shared.gpu.emit(Event::Banned { context: queue.context, seqno });
        queue.cancel(why);
        shared.waiters.wake(Happened::Ended(self.id));
    }

    /// The context runs nothing any more. Idempotent.
    fn end_context(&self, queue: &EngineQueue, ring: &mut Ring) {
        let shared = &self.vm.shared;
        if !std::mem::replace(&mut ring.ended, true) {
            shared.gpu.hw.context_destroy(queue.context);
            shared.faults.squash(queue.context);
        }
    }

    fn reset(&self, tile: TileId) {
        if let QueueKind::Engine(queue) = &self.kind
            && queue.tile == tile
            && self.has_begun(queue)
        {
            self.kill(queue, Errno::ECANCELED);
        }
    }

    /// Whether a wait for it is in vain (`reset_status`).
    pub(crate) fn is_banned(&self) -> bool {
        let banned = match &self.kind {
            QueueKind::Bind(_) => false,
            QueueKind::Engine(queue) => {
                let jobs = queue.jobs.lock();
                sync::tell(&jobs, Told::Looks);
                jobs.banned
            }
        };
        banned || self.is_closed()
    }

    /// Ends the queue: its context runs nothing any more, and waits for it end. Idempotent.
    pub(crate) fn close(&self) {
        let shared = &self.vm.shared;
        match &self.kind {
            QueueKind::Bind(_) => self.closed.store(true),
            QueueKind::Engine(queue) => {
                {
                    let mut ring = queue.ring.lock();
                    if self.closed.swap(true) {
                        return;
                    }
                    self.end_context(queue, &mut ring);
                }
                self.queues.contexts.lock().remove(&queue.context);
                queue.cancel(Errno::ECANCELED);
            }
        }
        shared.waiters.wake(Happened::Ended(self.id));
    }

    fn is_closed(&self) -> bool {
        self.closed.load()
    }
}

impl EngineQueue {
    /// Nothing runs any more: fences of what is in the ring and of what is to come are over, that of the first for a
    /// reason of its own.
    fn cancel(&self, first: Errno) {
        let running = {
            let mut jobs = self.jobs.lock();
            jobs.banned = true;
            std::mem::take(&mut jobs.running)
        };
        let reasons = std::iter::once(first).chain(std::iter::repeat(Errno::ECANCELED));
        running.into_iter().zip(reasons).for_each(|(job, reason)| job.finished.signal(Err(reason)));
        self.line.cancel(Errno::ECANCELED);
    }
}

impl Jobs {
    fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            submitted: 0,
            done: 0,
            running: VecDeque::new(),
            last_begun: Fence::over(Ok(())),
            banned: false,
            replays: Replays::default(),
            watch: Watch::default(),
        }
    }

    /// Room for a job: the fence of its end.
    fn reserve(&mut self) -> Result<Arc<Fence>, Errno> {
        if self.banned {
            return Err(Errno::ECANCELED);
        }
        if self.waiting.len() + self.running.len() >= MAX_JOBS {
            return Err(Errno::EAGAIN);
        }
        let finished = Fence::new();
        self.waiting.push_back(finished.clone());
        Ok(finished)
    }

    /// A job does not wait for its place in the ring any more. Two EXECs at once may come to the ring in the other order.
    fn gives_up(&mut self, finished: &Arc<Fence>) {
        if let Some(at) = self.waiting.iter().position(|waiting| Arc::ptr_eq(waiting, finished)) {
            self.waiting.remove(at);
        }
    }

    /// The fence of the job that will be over last: one that waits for its place, or the last in the ring.
    fn last(&self) -> Arc<Fence> {
        self.waiting.back().unwrap_or(&self.last_begun).clone()
    }

    /// A job goes to the ring: its number, and whether it is the first there.
    fn begin(&mut self, job: Running) -> Result<(u64, bool), Errno> {
        self.gives_up(&job.finished);
        if self.banned {
            return Err(Errno::ECANCELED);
        }
        self.submitted += 1;
        self.last_begun = job.finished.clone();
        self.running.push_back(job);
        Ok((self.submitted, self.running.len() == 1))
    }

    /// Takes the oldest job that is done, if jobs up to `seqno` are.
    fn next_done(&mut self, seqno: u64) -> Option<Running> {
        let job = if self.done < seqno { self.running.pop_front() } else { None }?;
        self.done += 1;
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_job_is_the_one_that_will_be_over_last() {
        let mut jobs = Jobs::new();
        let [a, b, refused] = [(); 3].map(|()| jobs.reserve().expect("room"));
        let is_last = |jobs: &Jobs, fence| Arc::ptr_eq(&jobs.last(), fence);
        jobs.gives_up(&refused);
        assert!(is_last(&jobs, &b), "a job that was refused is not the last one");
        jobs.begin(Running { user: None, finished: b.clone() }).expect("not banned");
        assert!(is_last(&jobs, &a), "it was asked for first, and is still to come");
        jobs.begin(Running { user: None, finished: a.clone() }).expect("not banned");
        jobs.next_done(1);
        assert!(is_last(&jobs, &a), "it is behind the other in the ring");
    }
}
