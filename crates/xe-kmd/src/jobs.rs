//! Jobs that wait for fences, in order: what is between an ioctl and what it asked for.
//!
//! A [`JobQueue`] runs its jobs one after the other, each once the fences that it depends on are over. What need not wait is no
//! job: an ioctl does it itself before it returns. Jobs are run by the device's [`Worker`], one
//! thread, which also keeps the device's [timers](Worker::at). It starts with the first job; where the
//! system gives no thread, that job's ioctl is told.
//!
//! A fence that ended with an error lets its dependents run, as upstream.
//!
//! Locking: queue and worker have a leaf lock each, held for no call; the worker has one besides that is held over the
//! start of its thread. Jobs and timers run with none of these. A submitter may hold locks that no job of the queue takes.
//! The worker can be parked, as engines can: a fork needs it between two jobs.
//!
//! Upstream: `drm_sched_entity`, `drm_gpu_scheduler` (its work queue, `drm_sched_job_timedout`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use sync::rank::mutex;
use sync::time::now_ns;
use sync::{Condvar, JoinHandle, Mutex, SpawnError, Told};

use crate::errno::Errno;
use crate::fence::{Ended, Fence};
use crate::ranks;

/// What a job does. It is called with no lock held, and dropped uncalled where its queue is cancelled.
pub(crate) type Body = Box<dyn FnOnce() -> Ended + Send>;

/// What a timer does.
pub(crate) type Alarm = Box<dyn FnOnce() + Send>;

/// Jobs that run in the order of their submission. Its drop cancels those that have not begun.
pub(crate) struct JobQueue {
    line: Arc<Line>,
}

struct Line {
    state: Mutex<LineState>,
}

struct LineState {
    waiting: VecDeque<Job>,
    cancelled: Option<Errno>,
    /// Of the job that was submitted last.
    last: Arc<Fence>,
}

struct Job {
    after: Arc<Fence>,
    body: Body,
    done: Arc<Fence>,
}

impl JobQueue {
    /// An empty queue.
    pub(crate) fn new() -> Self {
        let last = Fence::over(Ok(()));
        let state = LineState { waiting: VecDeque::new(), cancelled: None, last };
        Self { line: Arc::new(Line { state: mutex(ranks::LEAF, state) }) }
    }

    /// Runs `body` after all jobs so far and all of `deps`. The fence ends with the body's result, or with the reason why the queue
    /// was cancelled. `ENOMEM`: there is no thread; `ENODEV`: not any more.
    pub(crate) fn submit(&self, worker: &Worker, deps: Vec<Arc<Fence>>, body: Body) -> Result<Arc<Fence>, Errno> {
        worker.start()?;
        let job = Job { after: Fence::all(deps), body, done: Fence::new() };
        let (after, done) = (job.after.clone(), job.done.clone());
        match self.line.push(job) {
            Err((errno, job)) => job.done.signal(Err(errno)),
            Ok(()) => {
                let (line, worker) = (Arc::downgrade(&self.line), Arc::downgrade(&worker.inner));
                after.on_signal(move |_| {
                    if let (Some(line), Some(worker)) = (line.upgrade(), worker.upgrade()) {
                        worker.add(&line);
                    }
                });
            }
        }
        Ok(done)
    }

    /// The fence of the job that was submitted last; it is over where there was none. Upstream: `last_fence`.
    pub(crate) fn last(&self) -> Arc<Fence> {
        let state = self.line.state.lock();
        sync::tell(&state, Told::Looks);
        state.last.clone()
    }

    /// Ends all jobs that have not begun, and all that are still to come, with `errno`.
    pub(crate) fn cancel(&self, errno: Errno) {
        let waiting = {
            let mut state = self.line.state.lock();
            state.cancelled.get_or_insert(errno);
            std::mem::take(&mut state.waiting)
        };
        for Job { body, done, .. } in waiting {
            drop(body);
            done.signal(Err(errno));
        }
    }
}

impl Drop for JobQueue {
    fn drop(&mut self) {
        self.cancel(Errno::ECANCELED);
    }
}

impl Job {
    fn run(self) {
        let result = (self.body)();
        self.done.signal(result);
    }
}

impl Line {
    /// Behind all others; back, where the queue is cancelled.
    fn push(&self, job: Job) -> Result<(), (Errno, Job)> {
        let mut state = self.state.lock();
        if let Some(errno) = state.cancelled {
            return Err((errno, job));
        }
        state.last = job.done.clone();
        state.waiting.push_back(job);
        Ok(())
    }

    /// Runs the first job, if its turn is now; whether to look again. The worker's only.
    fn step(&self) -> bool {
        let Some(after) = self.first() else { return false };
        let job = if after.is_over() { self.take(&after) } else { None };
        job.is_some_and(|job| {
            job.run();
            self.first().is_some()
        })
    }

    /// What the first job waits for.
    fn first(&self) -> Option<Arc<Fence>> {
        self.state.lock().waiting.front().map(|job| job.after.clone())
    }

    /// Takes the first job, if it is the one that waited for `after`: the queue may have been cancelled since.
    fn take(&self, after: &Arc<Fence>) -> Option<Job> {
        let mut state = self.state.lock();
        state.waiting.front().filter(|job| Arc::ptr_eq(&job.after, after))?;
        state.waiting.pop_front()
    }
}

/// The thread that runs a device's jobs and timers. Its drop ends the thread.
pub(crate) struct Worker {
    inner: Arc<Desk>,
    thread: Mutex<Option<JoinHandle>>,
}

struct Desk {
    state: Mutex<DeskState>,
    changed: Condvar,
}

#[derive(Default)]
struct DeskState {
    /// Queues to look at.
    lines: VecDeque<Weak<Line>>,
    /// By time, then by number.
    alarms: BTreeMap<(u64, u64), Alarm>,
    last_alarm: u64,
    has_thread: bool,
    /// How many want it idle.
    parkers: u32,
    /// It is.
    parked: bool,
    ended: bool,
}

/// What the thread does next.
enum Next {
    Look(Arc<Line>),
    Ring(Alarm),
    End,
}

impl Worker {
    /// One that has no thread yet.
    pub(crate) fn new() -> Self {
        let desk = Desk { state: mutex(ranks::LEAF, DeskState::default()), changed: Condvar::new() };
        Self { inner: Arc::new(desk), thread: mutex(ranks::WORKER, None) }
    }

    /// Calls `alarm` when it is `ns` by [`now_ns`], or later. `ENOMEM`: there is no thread.
    pub(crate) fn at(&self, ns: u64, alarm: Alarm) -> Result<(), Errno> {
        self.start()?;
        {
            let mut state = self.inner.state.lock();
            state.last_alarm += 1;
            let key = (ns, state.last_alarm);
            state.alarms.insert(key, alarm);
        }
        self.inner.changed.notify_all();
        Ok(())
    }

    /// Returns when it is between two jobs; it begins no other before [`unpark`](Self::unpark).
    pub(crate) fn park(&self) {
        let mut state = self.inner.state.lock();
        state.parkers += 1;
        self.inner.changed.notify_all();
        while state.has_thread && !state.parked {
            self.inner.changed.wait(&mut state);
        }
    }

    /// Lets it go on.
    pub(crate) fn unpark(&self) {
        self.inner.state.lock().parkers -= 1;
        self.inner.changed.notify_all();
    }

    /// Ends the thread after its job, and waits for that: not to be called by a job. Nothing that waits runs any more.
    pub(crate) fn stop(&self) {
        self.inner.end();
        let handle = self.thread.lock().take();
        if let Some(handle) = handle {
            handle.join();
        }
    }

    /// Starts the thread, unless it was. `ENOMEM`: the system gives none.
    pub(crate) fn start(&self) -> Result<(), Errno> {
        let mut thread = self.thread.lock();
        {
            let mut state = self.inner.state.lock();
            if state.ended {
                return Err(Errno::ENODEV);
            }
            if state.has_thread {
                return Ok(());
            }
            state.has_thread = true;
        }
        let desk = self.inner.clone();
        match sync::try_spawn_daemon("jobs", move || desk.serve()) {
            Ok(handle) => *thread = Some(handle),
            Err(SpawnError) => {
                self.inner.state.lock().has_thread = false;
                self.inner.changed.notify_all();
                return Err(Errno::ENOMEM);
            }
        }
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Not waited for: the last who lets go of the device may be a job.
        self.inner.end();
    }
}

impl Desk {
    /// A queue may have a job whose turn is now.
    fn add(&self, line: &Arc<Line>) {
        self.state.lock().lines.push_back(Arc::downgrade(line));
        self.changed.notify_all();
    }

    fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }

    fn serve(&self) {
        loop {
            match self.next() {
                Next::Look(line) if line.step() => self.add(&line),
                Next::Look(_) => {}
                Next::Ring(alarm) => alarm(),
                Next::End => break,
            }
        }
        self.state.lock().has_thread = false;
        self.changed.notify_all();
    }

    fn next(&self) -> Next {
        let mut state = self.state.lock();
        loop {
            if state.ended {
                return Next::End;
            }
            state.parked = state.parkers > 0;
            if state.parked {
                self.changed.notify_all();
                self.changed.wait(&mut state);
                continue;
            }
            let due = state.alarms.first_key_value().map(|((ns, _), _)| *ns);
            if due.is_some_and(|ns| ns <= now_ns())
                && let Some((_, alarm)) = state.alarms.pop_first()
            {
                return Next::Ring(alarm);
            }
            match state.lines.pop_front() {
                Some(line) => {
                    if let Some(line) = line.upgrade() {
                        return Next::Look(line);
                    }
                }
                None => _ = self.changed.wait_until(&mut state, due.unwrap_or(u64::MAX)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
