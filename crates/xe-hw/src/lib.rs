//! The software GPU: tiles, VRAM, walker, TLB, IOMMU, command streamers and copy engines.
//!
//! The hardware obeys the page tables it is given. They lie in pools of VRAM as the 64-bit words that
//! [`xe_spec::pte`] defines, and every access walks them: a wrong entry does here what it would do to silicon.
//! The hardware knows neither the driver nor the host's memory; both are behind [`port`].
//!
//! The way of one access of a command streamer, file by file:
//!
//! | step | file |
//! |---|---|
//! | a command is fetched and decoded | `engine/exec.rs`, `engine/decode.rs` |
//! | its access asks the TLB, inside a window that a flush waits for | `mmu/access.rs`, `mmu/mod.rs`, `mmu/tlb.rs` |
//! | a miss walks the tables | `mmu/walker.rs`, `tables.rs` |
//! | a refusal becomes a fault record, the context stalls until the ack | `fault.rs`, `engine/mod.rs` |
//! | a system page goes through the IOMMU | `iommu.rs` |
//! | the memory answers | [`port::Bus`] |
//!
//! The driver's own copies do not pass the TLB and run on the caller's thread: `copy.rs`. What a driver
//! or a program did wrong is a [`Record`]; nothing here panics because of it.
//!
//! A module uses those below it only (`cargo xtask tidy` checks it), from the ground up: `port`, `inject`, `record`,
//! `tables` and `iommu`; `chip`, which holds these; `mmu`; `fault`; `engine`; `copy`; and `gpu`, the device, which
//! alone is seen from outside and alone calls back.
//!
//! Locking: every lock is a leaf (`Rank::LEAF`): none is taken under another, and none is held while the bus or
//! [`port::Interrupts`] is called. So all of the device may be called with any ranked lock of the driver held.
//!
//! Upstream: none, this is the device. What the model has stands in `docs/hardware.md`; not listed there means
//! not modelled.
#![forbid(unsafe_code)]

mod chip;
mod copy;
mod engine;
mod fault;
mod gpu;
mod inject;
mod iommu;
mod mmu;
pub mod port;
mod record;
mod tables;

pub use copy::CopyJob;
pub use engine::{Job, Step};
pub use gpu::Gpu;
pub use inject::{FlushFault, Injection, Numbered};
pub use mmu::Translation;
pub use record::{Counters, Record, Violation};
