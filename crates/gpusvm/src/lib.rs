//! GPU shared virtual memory: notifiers, ranges, pages, pagemaps, device memory and migration.
//!
//! The engine of Pontoon, vendor-neutral: what Linux calls drm_gpusvm and drm_pagemap. Below it lies a
//! [`hostmm::HostMm`] (the memory manager of a running process, or a simulated one), above it a driver.
//!
//! A fault's way through this crate: `find` (or insert a range) → `migrate::to_devmem` → `collect` (its pages, map them
//! for the device) and, on the way back, `invalidate` (the notifier) and `migrate::to_ram` (CPU fault).
//!
//! Its floors, from below: data (`tree` of notifiers and ranges, `pages`; `pagemap`, `zdd`), the `mirror` with the lock,
//! and the verbs on top (`invalidate`, `find`, `collect`, `evict`; `migrate`).
//!
//! `examples/smallest_driver.rs` is a whole driver in one file: a GPU of one tile, on the memory of its own process.
//!
//! # Key types
//!
//! | type | is | Linux |
//! |---|---|---|
//! | [`GpuSvm`] | the mirror of a process in one GPU VM | `drm_gpusvm` |
//! | `Notifier` ([`NotifierKey`]) | a granule that the host mm reports changes of | `drm_gpusvm_notifier` |
//! | [`Range`] ([`RangeKey`]) | a chunk that is migrated and mapped as one | `drm_gpusvm_range` |
//! | [`Pages`] | what a range's pages are for the device: DMA mappings, device addresses | `drm_gpusvm_pages` |
//! | [`PagemapSet`], [`Pagemap`] | the VRAM of each tile as device-private pages | `drm_pagemap` |
//! | [`Devmem`], `Zdd` | one allocation of VRAM, and the count of pages that live in it | `drm_pagemap_devmem`, `drm_pagemap_zdd` |
//!
//! # Locking
//!
//! From the outside to the inside; a lock is taken only while holding locks above it. Names are those of
//! `sync::rank::Rank`, which the checker enforces.
//!
//! | rank | lock | protects |
//! |---|---|---|
//! | `VM` | the driver's SVM lock (`Vm::state`), shared or alone | no range is removed while somebody works on it: the driver sees to that. Never taken here |
//! | `MMAP` | the host mm's own | claims, walks, the calls of notifiers and of `PagemapOps` |
//! | `NOTIFIER` | **notifier lock** ([`GpuSvm::notifier_lock`]) | notifier and range trees, pages, the driver's range data |
//! | between | the driver's page-table lock | page tables |
//! | `FRAMES` | **zdd lock** of a [`Pagemap`] | its allocations and their counts; nothing is taken under it |
//! | `TLB` | TLB, IOMMU | the hardware's leaves, called under the notifier lock |
//! | `LEAF` | **scratch lock** | spare buffers |
//!
//! No method of [`hostmm::HostMm`] that may call back is called with `NOTIFIER` or below held; only
//! `read_retry` is, as its exactness is *defined* under the notifier lock. [`DevmemOps::devmem_release`]
//! and both copies are called with no engine lock held. Observers are called with none either, save where
//! the caller of the engine holds the notifier lock itself.
//!
//! The *reader class* (threads that serve CPU faults: `migrate::to_ram` and the notifier callbacks beneath)
//! takes `NOTIFIER` and below only, and waits for nothing.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod call;
mod collect;
mod device;
mod devmem;
mod event;
mod evict;
mod find;
mod invalidate;
mod live;
mod migrate;
mod mirror;
mod pagemap;
mod pages;
mod retry;
mod scratch;
mod tree;
mod turn;
mod zdd;

pub use call::{Ctx, FromOthers, MigrateDetails, MigrateError, SvmError};
pub use collect::Mapping;
pub use device::{Device, Direction, MapError, PagemapAddr, Proto};
pub use devmem::{CopyError, CopyRun, Devmem, DevmemOps};
pub use event::{Event, Observer, Where, Why};
pub use mirror::{GpuSvm, GpuSvmOps, NotifierLocked, SvmConfig};
pub use pagemap::{Pagemap, PagemapConfig, PagemapSet, Registry};
pub use pages::Pages;
pub use tree::{NotifierKey, Range, RangeKey};
