//! What the hardware says of an access that its page tables refuse, and what the driver answers.
//!
//! Upstream: `xe_guc_pagefault.c` (the message), `xe_pagefault_types.h`.

use units::{GpuVa, TileId};

/// How the faulting access meant to use the page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Access {
    /// A read; instruction fetch is one too.
    Read,
    /// A write.
    Write,
    /// A read-modify-write.
    Atomic,
}

/// Why the walker refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FaultType {
    /// No valid entry at some level.
    NotPresent,
    /// A leaf without RW.
    WriteViolation,
    /// A leaf without AE.
    AtomicViolation,
    /// An entry that the device forbids: a VRAM leaf of 4K where 64K is needed, or a table outside of VRAM.
    /// Not recoverable.
    Malformed,
}

/// Names the hardware context (a logical ring context of one exec queue on one engine).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ContextId(pub u32);

/// Address space id: one a VM, 1..2^20.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Asid(pub u32);

/// One engine of the device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EngineId {
    /// Tile (and GT: one a tile) that it belongs to.
    pub tile: TileId,
    /// Class.
    pub class: EngineClass,
    /// Instance inside the class.
    pub instance: u16,
}

/// Classes of engines that the model has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EngineClass {
    /// Render (RCS), without its shaders.
    Render,
    /// Blitter (BCS).
    Copy,
    /// Compute (CCS).
    Compute,
}

impl EngineClass {
    /// All of them, in the order in which the kernel lists engines.
    pub const ALL: [Self; 3] = [Self::Render, Self::Copy, Self::Compute];

    /// What the kernel calls it, in sysfs and fdinfo.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Render => "rcs",
            Self::Copy => "bcs",
            Self::Compute => "ccs",
        }
    }
}

/// Names one fault of one context, and no other fault of it: an answer that comes late answers nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FaultSlot {
    /// Which engine stalls.
    pub engine: EngineId,
    /// Which context.
    pub context: ContextId,
    /// Rises from fault to fault of the context.
    pub serial: u64,
}

/// A page fault that the device reports. The context is stalled until the driver answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultRecord {
    /// Whose, and which: what the answer names.
    pub slot: FaultSlot,
    /// Address space of the access.
    pub asid: Asid,
    /// Address; its page is what counts.
    pub addr: GpuVa,
    /// How it was meant.
    pub access: Access,
    /// Why it was refused.
    pub fault_type: FaultType,
    /// Level of the table at which the walk ended.
    pub level: u8,
}

/// The driver's answer to a [`FaultRecord`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultAck {
    /// Serviced: the access is tried again.
    Replay,
    /// Cannot be served: the context is killed.
    Kill,
}
