//! A refused access, as it travels from the MMU through the engine to the driver.
//!
//! A context has at most one fault pending, and its [`FaultSlot`] names that one: the answer to an earlier fault finds
//! no such slot. While it waits, the engine runs other contexts. Replay tries the
//! same access again, nothing before it; kill ends the context at the engine's next step.
//!
//! Locking: none, this is data.
//!
//! Upstream: the page-fault message of the GuC (`xe_guc_pagefault.c`).

use crate::mmu::access::Initiator;
use crate::mmu::walker::Refusal;
use units::GpuVa;
use xe_spec::fault::{Access, FaultRecord, FaultSlot};

/// A refused access: where, how and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    pub(crate) addr: GpuVa,
    pub(crate) access: Access,
    pub(crate) refusal: Refusal,
}

impl Stall {
    /// What the driver is told.
    pub(crate) fn record(&self, by: &Initiator<'_>, slot: FaultSlot) -> FaultRecord {
        FaultRecord {
            slot,
            asid: by.asid,
            addr: by.chip.strip(self.addr),
            access: self.access,
            fault_type: self.refusal.fault_type,
            level: self.refusal.level,
        }
    }
}
