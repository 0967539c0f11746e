//! What driver and hardware agree on, and nothing else: page-table bits, fault records, GPU commands,
//! registers,
//! platform facts.
//!
//! The driver *encodes* by this crate and the hardware model *decodes* by it, each on its own: neither sees
//! the other. So a bit that the driver forgets is a bit that the hardware does not find.
//!
//! Upstream: `xe_pt_types.h`, `xe_gtt_defs.h`, `xe_guc_fwif.h` (page-fault messages), `xe_*_commands.h`, `xe_pci.c`.
#![no_std]
#![forbid(unsafe_code)]

pub mod cmd;
pub mod fault;
pub mod mocs;
pub mod pat;
pub mod platform;
pub mod pte;
pub mod regs;
pub mod share;
