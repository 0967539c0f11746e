//! The driver: faults, SVM policy, VMs, page tables, binds, queues, fences and ioctls.
//!
//! It is written against three things that others implement: the hardware ([`Hw`], a trait of its own), the
//! engine's host mm and host memory (`hostmm`), and programs, which speak the Xe uAPI through
//! [`File::ioctl`]. It never sees the hardware model: what the two share is bits in `xe-spec`.
//!
//! A fault's way: [`Device::page_fault`] queues it, [`Device::service_fault`] serves it: `fault` →
//! `svm::handler` → the engine's range → `svm::devmem` and `migrate` → the engine's pages → `svm::bind` and `pt` →
//! the answer. And back: the engine's notifier → `svm::invalidate` → `tlb_inval`; later `svm::garbage`.
//!
//! A bind's way: `ioctl::bind` checks, `ioctl::ops` changes VMAs, `rebind` writes leaves of BOs (`bo`) and userptrs
//! (`svm::userptr`): now, or by the jobs of a `bind_queue` behind fences (`fence`, `jobs`, `syncobj`).
//!
//! A module uses those below it only (`cargo xtask tidy` has the order): `chip`, `migrate` and `gpu` are the device for
//! page tables and the reader class; `shared` is what VMs, queues and files share of it; `svm` serves faults of a mirror;
//! on it stand `vm`, `exec_queue`, `fault` and `file`, then `ioctl`, and `device` on top.
//!
//! # Locking
//!
//! From the outside to the inside:
//!
//! | lock (ranks: `ranks`) | protects |
//! |---|---|
//! | a bind queue's or ring's own order | held around one submission; never together with the next |
//! | `Vm::state` | VMAs, the life of a VM; shared by faults and prefetches |
//! | a BO's state | where the device finds it, and its binds |
//! | a range's | a range, from the look at it to its bind or its removal |
//! | `Shared::migrate_lock` | nothing; keeps fighting migrations apart |
//! | the host mm's own | claims, walks |
//! | the notifier lock (engine) | ranges, their pages, `RangeData` |
//! | page tables, one a VM and tile | leaves |
//! | leaves: VRAM, tables, slots, contexts, names, fault queue, waiters | allocators and tables |
//!
//! The *reader class* (threads that serve CPU faults) takes the notifier lock and what is below it, and waits
//! for nothing but the drain of a TLB flush. `svm::Space`, `gpu::Gpu` and `migrate` are what it may touch.
#![forbid(unsafe_code)]

mod audit;
mod bind_queue;
mod bo;
mod budget;
mod caller;
mod chip;
mod client;
mod debugfs;
mod device;
mod engine_class;
mod errno;
mod event;
mod exec_queue;
mod fault;
mod fault_queue;
mod fence;
mod file;
mod gem;
mod gpu;
mod ids;
mod ioctl;
mod jobs;
mod master;
mod migrate;
mod offsets;
mod open_files;
mod patience;
pub mod planted;
mod port;
mod pt;
mod ranks;
mod rebind;
mod replays;
mod resv;
mod rules;
mod share;
mod shared;
mod svm;
mod syncobj;
#[cfg(test)]
mod testing;
mod tlb_inval;
pub mod upstream;
mod user;
mod vm;
mod vma;
mod vram;

pub use audit::{RangeBook, SpaceBook};
pub use budget::{Alone, Budget, BytesId, Entry, Room};
pub use caller::{Caller, Descriptor, Doorbell, Location, Nobody, Passed, SharedBytes};
pub use client::{EngineUse, MemoryUse, Usage, Vram};
pub use debugfs::{NamedBo, OpenFile};
pub use device::{Device, Parts};
pub use engine_class::ClassSchedule;
pub use errno::Errno;
pub use event::{CopyDirection, Event, Observer, OtherSide, RetryStep, Serviced, Steps};
pub use file::File;
pub use port::{Hw, HwJob, Interconnect};
pub use ranks::lock_name;
pub use rules::{Mapped, RemoteSide, Rules, UnfitVram, WhenMet};
pub use shared::MigrateLock;
