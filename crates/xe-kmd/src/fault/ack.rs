//! The answer to a fault.
//!
//! Success lets the stalled access be tried again. Failure kills the context; that the queue is banned for it
//! is learnt from the device's own report ([`Device::context_killed`](crate::Device::context_killed)).
//!
//! Locking: called with no lock held.
//!
//! Upstream: `xe_pagefault_queue_work`, `guc_ack_fault`.

use sync::time::now_ns;
use xe_spec::fault::FaultAck;

use super::queue::Queued;
use crate::errno::Errno;
use crate::event::{Event, Serviced};
use crate::gpu::Gpu;

/// Answers a fault by its outcome.
pub(super) fn ack(gpu: &Gpu, fault: &Queued, outcome: Result<Serviced, Errno>) {
    let record = &fault.record;
    let (ack, outcome) = match outcome {
        Ok(outcome) => (FaultAck::Replay, outcome),
        Err(errno) => (FaultAck::Kill, Serviced::Refused(errno)),
    };
    gpu.tell(Event::Fault {
        asid: record.asid,
        tile: record.slot.engine.tile,
        addr: record.addr,
        access: record.access,
        outcome,
        ns: now_ns() - fault.since_ns,
    });
    gpu.hw.fault_ack(record.slot, ack);
}
