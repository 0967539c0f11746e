//! The joint between an engine of shared virtual memory and a host's memory management: traits, and what crosses.
//!
//! A leaf: it knows no engine and no host mm. Two worlds implement [`HostMm`]: `mm-live` (the memory of this very process, moved by userfaultfd) and
//! `mm-sim` (a model of Linux' mm). `docs/hostmm.md` is the contract, one row a guarantee;
//! the engine may assume the weaker side of each row only, and the suite in
//! `conformance` (a feature) runs one file against all.
//!
//! What crosses is runs: pages that follow each other in the program's address space and, where they are anywhere,
//! follow each other there too ([`Run`]). A huge page is one run; a run ends only where something differs.
//!
//! | module | what |
//! |---|---|
//! | `mm` | [`HostMm`] and what it is asked; [`PagemapOps`], by which it asks back |
//! | `memory` | [`HostMemory`], the data plane: what a device does to bytes |
//! | `notify` | [`NotifierOps`], events and sequences |
//! | `place` | [`Place`], [`Run`], names of VRAM |
//! | `migration` | [`Migration`], one object from the claim to the finish |
//!
//! # Migration: claim → stage → (the device transfers) → commit → finish
//!
//! One [`Migration`] goes through all of it; each step reads and writes its parts.
//!
//! 1. [`HostMm::claim`] calls every notifier ([`EventKind::Migrate`]) and collects the pages of a range as parts.
//!    A claimed page belongs to this migration until `finish`: no second claim gets it, a CPU fault on it waits.
//!    Linux: `migrate_vma_setup` (migration entries, the CPU cannot touch the page).
//!    Live: the CPU *goes on writing* a claimed system page until the very instant of its transfer.
//! 2. [`HostMm::stage`] names the destination of each part. From now on exactly these pairs may *move*.
//! 3. The device's copy engine walks its page tables and asks [`HostMemory::transfer`] to carry what it
//!    translated. A staged pair moves (live: `UFFDIO_MOVE`, no byte is copied) or is copied while the CPU is
//!    kept out; any other pair is copied, just as the wrong page tables said.
//! 4. [`HostMm::commit`] makes the destinations of what was carried the pages' places, and says of each part whether that
//!    succeeded (Linux: `migrate_vma_pages`; a page may fail there on its own).
//! 5. [`HostMm::finish`] frees the sources of what was committed, puts back what was not, and wakes every
//!    CPU thread that waits (Linux: `migrate_vma_finalize`).
//!
//! # Locking
//!
//! `claim`, `commit` and `finish` may call notifiers and pagemap operations, so call them with no engine lock
//! of notifier rank or below held. CPU faults call [`PagemapOps::migrate_to_ram`] from a thread of the
//! *reader class* in the live world: it takes notifier-level locks only, and waits for nothing but the bounded
//! drain of a TLB flush.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "conformance")]
pub mod conformance;
mod memory;
mod migration;
mod mm;
mod notify;
mod place;

pub use memory::{AccessError, AtomicOp, HostMemory};
pub use migration::{ClaimId, Migration, Part, Reporter};
pub use mm::{ClaimRequest, Claimed, CpuFault, FaultOutcome, HostMm, MmError, PagemapOps, Toward, Vma, Walk};
pub use notify::{EventKind, MmEvent, NotifierId, NotifierOps, Seq};
pub use place::{DevicePage, DeviceRun, OwnerId, PagemapId, Place, Run, WalkRun};
pub use units::{Outcome, Report};
