//! Four queues of faults, by address space: faults of one VM, from all tiles, are served one after the other.
//!
//! A queue has one server at a time. Who wants to serve takes whatever queue is idle and drains it, on its own
//! thread: usually the thread of the engine that faulted, so no hand-off to another CPU is paid. A fault that
//! arrives while its queue is served is taken by that server: it looks once more before it leaves.
//!
//! Queues are as long as they must be: a context stalls at its first fault, so there are never more entries
//! than contexts. (Hardware's queue has a size; upstream computes it so that it never overflows.)
//!
//! Locking: one leaf lock a queue, not held while a fault is served.
//!
//! Upstream: `struct xe_pagefault_queue`, `xe_pagefault_handler`, `xe_pagefault_queue_work`.

use std::collections::{BTreeMap, VecDeque};

use sync::Mutex;
use sync::rank::mutex;
use sync::time::now_ns;
use units::GpuVa;
use xe_spec::fault::{Asid, ContextId, FaultRecord};

use crate::event::Serviced;
use crate::ranks;

/// Number of queues.
const QUEUES: usize = 4;

/// How often in a row a context may be told "it is mapped already" of one address. More than a few come from races
/// of engines; this many only from a mapping that the device does not accept, and would come for ever.
const MOST_VALID: u32 = 64;

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
    /// Contexts whose last answer was "valid": for which page, and how often in a row.
    valid: BTreeMap<ContextId, (GpuVa, u32)>,
}

/// All queues.
pub(crate) struct FaultQueues {
    queues: [Mutex<Queue>; QUEUES],
}

impl FaultQueues {
    /// Empty queues.
    pub(crate) fn new() -> Self {
        Self { queues: std::array::from_fn(|_| mutex(ranks::LEAF, Queue::default())) }
    }

    /// Queues a fault. The interrupt's half: takes a leaf lock and returns.
    pub(crate) fn push(&self, record: FaultRecord) {
        self.of(record.asid).lock().waiting.push_back(Queued { record, since_ns: now_ns() });
    }

    /// Serves every queue that is idle until it is empty; the number of faults served.
    pub(crate) fn drain(&self, mut serve: impl FnMut(Queued)) -> usize {
        self.queues.iter().map(|queue| Self::drain_one(queue, &mut serve)).sum()
    }

    /// Notes a fault's answer. False where this one was found mapped so often in a row that the device evidently
    /// does not accept the mapping: the driver's tables are wrong, and a replay would only fault again.
    pub(crate) fn makes_progress(&self, record: &FaultRecord, outcome: Serviced) -> bool {
        let valid = &mut self.of(record.asid).lock().valid;
        if outcome != Serviced::Valid {
            valid.remove(&record.context);
            return true;
        }
        let (page, times) = valid.entry(record.context).or_insert((record.addr.page(), 0));
        *times = if *page == record.addr.page() { *times + 1 } else { 1 };
        *page = record.addr.page();
        *times < MOST_VALID
    }

    /// Forgets the faults of a context that ended.
    pub(crate) fn squash(&self, context: ContextId, asid: Asid) {
        let mut queue = self.of(asid).lock();
        queue.waiting.retain(|fault| fault.record.context != context);
        queue.valid.remove(&context);
    }

    fn drain_one(queue: &Mutex<Queue>, serve: &mut impl FnMut(Queued)) -> usize {
        let mut count = 0;
        let Some(mut next) = Self::start(queue) else { return 0 };
        loop {
            serve(next);
            count += 1;
            match Self::go_on(queue) {
                Some(fault) => next = fault,
                None => return count,
            }
        }
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

    /// The next fault; without one the queue is idle again.
    fn go_on(queue: &Mutex<Queue>) -> Option<Queued> {
        let mut queue = queue.lock();
        let next = queue.waiting.pop_front();
        queue.served = next.is_some();
        next
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
        let mut inner = 0;
        let served = queues.drain(|fault| {
            if seen.is_empty() {
                queues.push(fault_record(5, 3));
                // Re-entry: the queue of space 5 has its server; the other is idle.
                inner = queues.drain(|other| assert_eq!(other.record.asid, Asid(6)));
            }
            seen.push((fault.record.asid.0, fault.record.context.0));
        });
        assert_eq!((served, inner), (4, 1));
        assert_eq!(seen, [(5, 0), (5, 1), (5, 2), (5, 3)]);
    }

    #[test]
    fn a_mapping_that_the_device_does_not_accept_is_given_up() {
        let queues = FaultQueues::new();
        let answers = |n| (0..n).filter(|_| queues.makes_progress(&fault_record(5, 1), Serviced::Valid)).count();
        assert_eq!(answers(10), 10);
        assert!(queues.makes_progress(&fault_record(5, 1), Serviced::Resolved), "a bind starts the count again");
        assert_eq!(answers(200), MOST_VALID as usize - 1);
        assert!(queues.makes_progress(&fault_record(5, 2), Serviced::Valid), "another context is not concerned");
    }

    #[test]
    fn the_faults_of_an_ended_context_are_forgotten() {
        let queues = FaultQueues::new();
        queues.push(fault_record(5, 1));
        queues.push(fault_record(5, 2));
        queues.squash(ContextId(1), Asid(5));
        assert_eq!(queues.drain(|fault| assert_eq!(fault.record.context, ContextId(2))), 1);
    }
}
