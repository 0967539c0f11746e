//! The queue of faults: one for the device, with as many servers as there are threads that have nothing better to do.
//!
//! Who wants to serve takes the fault that waits longest, on its own thread: usually the thread of the engine that
//! faulted, so no hand-off to another CPU is paid. Faults of different ranges, tiles and VMs are served at the same time;
//! faults that meet on one range do so at its lock ([`RangeLocks`](crate::svm::RangeLocks)).
//!
//! Who finds nothing here may sleep: each fault is with the one who took it, and an answer wakes the engine. Between two
//! faults a server may do something else, so that no engine stands still for the faults of all.
//!
//! Nothing is remembered of a fault that was answered. Linux' next release lets each worker keep the window of its last fault
//! and answers those that fall into it without a look; an invalidation does not clear it, so success may be reported where
//! nothing is mapped any more (N2). Here a second fault looks at the range, under the notifier lock.
//!
//! The queue is as long as it must be: a context stalls at its first fault, so there are never more entries
//! than contexts. (Hardware's queue has a size; upstream computes it so that it never overflows.)
//!
//! Locking: a leaf lock, not held while a fault is served.
//!
//! Upstream: `struct xe_pagefault_queue`, `xe_pagefault_handler`, `xe_pagefault_queue_work`.

use std::collections::VecDeque;

use sync::rank::mutex;
use sync::time::now_ns;
use sync::{Mutex, Told};
use xe_spec::fault::{ContextId, FaultRecord};

use crate::ranks;

/// A fault that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queued {
    pub record: FaultRecord,
    /// When it was queued.
    pub since_ns: u64,
}

/// All faults that wait.
pub(crate) struct FaultQueue {
    waiting: Mutex<VecDeque<Queued>>,
}

impl FaultQueue {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self { waiting: mutex(ranks::LEAF, VecDeque::new()) }
    }

    /// Queues a fault. The interrupt's half: takes a leaf lock and returns.
    pub(crate) fn push(&self, record: FaultRecord) {
        self.waiting.lock().push_back(Queued { record, since_ns: now_ns() });
    }

    /// Serves one fault; false where none waits.
    pub(crate) fn serve_next(&self, serve: impl FnOnce(Queued)) -> bool {
        let mut waiting = self.waiting.lock();
        let next = waiting.pop_front();
        if next.is_none() {
            sync::tell(&waiting, Told::Looks);
        }
        drop(waiting);
        next.map(serve).is_some()
    }

    /// Forgets the faults of a context that ended.
    pub(crate) fn squash(&self, context: ContextId) {
        self.waiting.lock().retain(|fault| fault.record.slot.context != context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fault_record;

    #[test]
    fn faults_are_taken_in_order_by_whoever_comes() {
        let queue = FaultQueue::new();
        for n in 0..3 {
            queue.push(fault_record(5, n));
        }
        let seen = Mutex::new(Vec::new());
        let note = |fault: Queued| seen.lock().push(fault.record.slot.context.0);
        assert!(queue.serve_next(|first| {
            // A second server, of the same VM, while the first one is at work.
            assert!(queue.serve_next(note));
            note(first);
            queue.push(fault_record(5, 3));
        }));
        while queue.serve_next(note) {}
        assert_eq!(*seen.lock(), [1, 0, 2, 3]);
    }

    #[test]
    fn the_faults_of_an_ended_context_are_forgotten() {
        let queue = FaultQueue::new();
        queue.push(fault_record(5, 1));
        queue.push(fault_record(5, 2));
        queue.squash(ContextId(1));
        assert!(queue.serve_next(|fault| assert_eq!(fault.record.slot.context, ContextId(2))));
        assert!(!queue.serve_next(|_| unreachable!()));
    }
}
