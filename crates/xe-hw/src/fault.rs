//! From a refused access to a fault record, and from the driver's answer back to the stalled context.
//!
//! A context has at most one fault pending. While it waits, the engine runs other contexts. Replay tries the
//! same access again, nothing before it; kill ends the context at the engine's next step.
//!
//! Locking: the engine's lock, released before the driver is told.
//!
//! Upstream: the page-fault and acknowledge messages of the GuC (`xe_guc_pagefault.c`).

use crate::access::Initiator;
use crate::gpu::Gpu;
use crate::record::Record;
use crate::walker::Refusal;
use units::GpuVa;
use xe_spec::fault::{Access, ContextId, EngineId, FaultAck, FaultRecord};

/// A refused access: where, how and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    pub(crate) addr: GpuVa,
    pub(crate) access: Access,
    pub(crate) refusal: Refusal,
}

impl Gpu {
    /// Tells the driver that `context` stalls. No lock is held.
    pub(crate) fn report(&self, by: Initiator, context: ContextId, stall: Stall) {
        self.log.count_fault(stall.refusal.fault_type);
        self.irq.page_fault(FaultRecord {
            engine: by.engine,
            context,
            asid: by.asid,
            addr: self.strip(stall.addr),
            access: stall.access,
            fault_type: stall.refusal.fault_type,
            level: stall.refusal.level,
        });
    }

    /// The driver's answer to the pending fault of `context`. Calls `engine_ready`, never another interrupt.
    /// A context that is gone meanwhile is no matter; one that has no fault pending is a record.
    pub fn fault_ack(&self, engine: EngineId, context: ContextId, ack: FaultAck) {
        let Some((_, unit)) = self.engines.find(engine) else {
            self.log.record(Record::NoSuchEngine(engine));
            return;
        };
        match unit.acknowledge(context, ack) {
            Some(true) => self.irq.engine_ready(engine),
            Some(false) => self.log.record(Record::BadAck(context)),
            None => {}
        }
    }
}
