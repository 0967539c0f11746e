//! Jobs that do not end.
//!
//! Others wait for the fence of a job in a VM with dma-fences: the kernel itself, other devices. So such a job may have an
//! engine for the time of the job timeout of its class and no longer; then its context is killed and its queue banned. It is the time
//! that the context ran that counts, since many may share an engine; but a context that did not run at all between two looks
//! will not come to an end either.
//!
//! One timer a queue, set when a job is the first of its ring and none is set yet. It goes off on the worker.
//!
//! Locking: the queue's leaf lock, and that of the worker. The hardware is asked with neither held.
//!
//! Upstream: `drm_sched_job_timedout`, `guc_exec_queue_timedout_job`, `check_timeout`.

use std::sync::Arc;

use sync::time::{after_ns, now_ns};

use super::{EngineQueue, ExecQueue, Jobs, QueueKind};
use crate::errno::Errno;

/// What is known of the first job in the ring.
#[derive(Default)]
pub(super) struct Watch {
    /// The timer is set.
    is_set: bool,
    /// When the job was the first.
    since_ns: u64,
    /// How long the context had run by then.
    ran_before_ns: u64,
    /// How long it had run when it was looked at.
    looked_at_ns: Option<u64>,
}

/// What a look at the first job comes to.
#[derive(PartialEq, Eq, Debug)]
enum Look {
    /// There is none.
    Nothing,
    /// Look again then.
    Again(u64),
    TooLong,
}

impl ExecQueue {
    /// Whether its jobs may not run for ever.
    pub(super) fn has_timeout(&self) -> bool {
        !self.vm.is_long_running()
    }

    /// A job was put into the ring as its first.
    pub(super) fn watch(self: &Arc<Self>, queue: &EngineQueue) {
        if self.has_timeout() {
            self.watch_next(queue);
            self.set_timer(queue, after_ns(queue.job_timeout_ns));
        }
    }

    /// Another job is the first one.
    pub(super) fn watch_next(&self, queue: &EngineQueue) {
        if self.has_timeout() {
            let ran = self.vm.shared.gpu.hw.context_ran_ns(queue.context);
            queue.jobs.lock().watch_from(now_ns(), ran);
        }
    }

    /// Whether the first job has begun; for one that may run for ever, whether there is one.
    pub(super) fn has_begun(&self, queue: &EngineQueue) -> bool {
        let ran = self.vm.shared.gpu.hw.context_ran_ns(queue.context);
        let jobs = queue.jobs.lock();
        !jobs.running.is_empty() && (!self.has_timeout() || ran > jobs.watch.ran_before_ns)
    }

    fn set_timer(self: &Arc<Self>, queue: &EngineQueue, at_ns: u64) {
        if std::mem::replace(&mut queue.jobs.lock().watch.is_set, true) {
            return;
        }
        let own = Arc::downgrade(self);
        let alarm = move || {
            if let Some(own) = own.upgrade() {
                own.look();
            }
        };
        // The thread is there since the first job. Where it ended, so does the process.
        let _ = self.vm.shared.worker.at(at_ns, Box::new(alarm));
    }

    fn look(self: &Arc<Self>) {
        let QueueKind::Engine(queue) = &self.kind else { return };
        let ran = self.vm.shared.gpu.hw.context_ran_ns(queue.context);
        let look = queue.jobs.lock().look(now_ns(), ran, queue.job_timeout_ns);
        match look {
            Look::Nothing => {}
            Look::Again(ns) => self.set_timer(queue, ns),
            Look::TooLong => self.kill(queue, Errno::ETIME),
        }
    }
}

impl Jobs {
    fn watch_from(&mut self, now_ns: u64, ran_ns: u64) {
        (self.watch.since_ns, self.watch.ran_before_ns, self.watch.looked_at_ns) = (now_ns, ran_ns, None);
    }

    /// Looks at the first job; the timer is not set any more.
    fn look(&mut self, now_ns: u64, ran_ns: u64, timeout_ns: u64) -> Look {
        let watch = &mut self.watch;
        watch.is_set = false;
        if self.banned || self.running.is_empty() {
            return Look::Nothing;
        }
        let full = watch.since_ns.saturating_add(timeout_ns);
        if now_ns < full {
            return Look::Again(full);
        }
        let ran = ran_ns.saturating_sub(watch.ran_before_ns);
        if ran >= timeout_ns || watch.looked_at_ns == Some(ran_ns) {
            return Look::TooLong;
        }
        watch.looked_at_ns = Some(ran_ns);
        Look::Again(now_ns + timeout_ns - ran)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Running;
    use super::*;
    use crate::fence::Fence;

    const LIMIT: u64 = 5_000_000_000;

    fn with_a_job() -> Jobs {
        let mut jobs = Jobs::new();
        jobs.reserve().expect("room");
        jobs.begin(Running { user: None, finished: Fence::new() }).expect("not banned");
        jobs.watch_from(1000, 50);
        jobs
    }

    #[test]
    fn time_without_an_engine_does_not_count() {
        let mut jobs = with_a_job();
        let full = 1000 + LIMIT;
        assert_eq!(jobs.look(full - 1, 60, LIMIT), Look::Again(full));
        assert_eq!(jobs.look(full, 60, LIMIT), Look::Again(full + LIMIT - 10));
        assert_eq!(jobs.look(2 * full, 50 + LIMIT - 1, LIMIT), Look::Again(2 * full + 1));
        assert_eq!(jobs.look(2 * full + 1, 50 + LIMIT, LIMIT), Look::TooLong);
    }

    #[test]
    fn a_context_that_does_not_run_is_stuck() {
        let mut jobs = with_a_job();
        let full = 1000 + LIMIT;
        assert!(matches!(jobs.look(full, 60, LIMIT), Look::Again(_)));
        assert_eq!(jobs.look(2 * full, 60, LIMIT), Look::TooLong);
    }

    #[test]
    fn without_a_job_nothing_is_looked_at() {
        let mut jobs = with_a_job();
        assert!(jobs.next_done(1).is_some());
        assert_eq!(jobs.look(u64::MAX, 0, LIMIT), Look::Nothing);
    }
}
