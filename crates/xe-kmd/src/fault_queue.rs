//! Four queues of faults, by address space: faults of one VM, from all tiles, are served one after the other.
//!
//! A queue has one server at a time. Who wants to serve takes one fault of a queue that nobody serves, on its own
//! thread: usually the thread of the engine that faulted, so no hand-off to another CPU is paid. A fault that
//! arrives while its queue is served is left to that server: who has served a fault looks for another before it sleeps.
//! In between it may do something else, so that no engine stands still for the faults of all.
//!
//! Queues are as long as they must be: a context stalls at its first fault, so there are never more entries
//! than contexts. (Hardware's queue has a size; upstream computes it so that it never overflows.)
//!
//! Locking: one leaf lock a queue, not held while a fault is served.
//!
//! Upstream: `struct xe_pagefault_queue`, `xe_pagefault_handler`, `xe_pagefault_queue_work`.

use std::collections::VecDeque;

use sync::Mutex;
use sync::atomic::AtomicU32;
use sync::rank::mutex;
use sync::time::now_ns;
use xe_spec::fault::{Asid, ContextId, FaultRecord};

use crate::ranks;

/// Number of queues.
const QUEUES: usize = 4;

/// A fault that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queued {
    pub record: FaultRecord,
    /// When it was queued.
    pub since_ns: u64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Queued>,
    /// Somebody serves it.
    served: bool,
}

/// All queues.
pub(crate) struct FaultQueues {
    queues: [Mutex<Queue>; QUEUES],
    /// Where the next server begins to look.
    turn: AtomicU32,
}

impl FaultQueues {
    /// Empty queues.
    pub(crate) fn new() -> Self {
        Self { queues: std::array::from_fn(|_| mutex(ranks::LEAF, Queue::default())), turn: AtomicU32::new(0) }
    }

    /// Queues a fault. The interrupt's half: takes a leaf lock and returns.
    pub(crate) fn push(&self, record: FaultRecord) {
        self.of(record.asid).lock().waiting.push_back(Queued { record, since_ns: now_ns() });
    }

    /// Serves one fault of a queue that nobody serves; false where there is none. After true the caller owes another
    /// call: what was queued meanwhile was left to it.
    pub(crate) fn serve_next(&self, serve: impl FnOnce(Queued)) -> bool {
        let first = self.turn.fetch_add(1) as usize;
        let next = (first..first + QUEUES).find_map(|n| {
            let queue = &self.queues[n % QUEUES];
            Some((queue, Self::start(queue)?))
        });
        let Some((queue, fault)) = next else { return false };
        serve(fault);
        queue.lock().served = false;
        true
    }

    /// Forgets the faults of a context that ended.
    pub(crate) fn squash(&self, context: ContextId, asid: Asid) {
        self.of(asid).lock().waiting.retain(|fault| fault.record.slot.context != context);
    }

    /// Becomes the server of an idle queue that has something.
    fn start(queue: &Mutex<Queue>) -> Option<Queued> {
        let mut queue = queue.lock();
        if queue.served {
            return None;
        }
        let first = queue.waiting.pop_front()?;
        queue.served = true;
        Some(first)
    }

    const fn of(&self, asid: Asid) -> &Mutex<Queue> {
        &self.queues[asid.0 as usize % QUEUES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fault_record;

    #[test]
    fn one_space_is_served_in_order_and_a_served_queue_is_left_alone() {
        let queues = FaultQueues::new();
        for n in 0..3 {
            queues.push(fault_record(5, n));
        }
        queues.push(fault_record(6, 9));
        let mut seen = Vec::new();
        while queues.serve_next(|fault| {
            if seen.is_empty() {
                queues.push(fault_record(5, 3));
                // Re-entry: the queue of space 5 has its server; the other is idle.
                assert!(queues.serve_next(|other| assert_eq!(other.record.asid, Asid(6))));
                assert!(!queues.serve_next(|_| unreachable!()));
            }
            seen.push((fault.record.asid.0, fault.record.slot.context.0));
        }) {}
        assert_eq!(seen, [(5, 0), (5, 1), (5, 2), (5, 3)]);
    }

    #[test]
    fn the_faults_of_an_ended_context_are_forgotten() {
        let queues = FaultQueues::new();
        queues.push(fault_record(5, 1));
        queues.push(fault_record(5, 2));
        queues.squash(ContextId(1), Asid(5));
        assert!(queues.serve_next(|fault| assert_eq!(fault.record.slot.context, ContextId(2))));
        assert!(!queues.serve_next(|_| unreachable!()));
    }
}
