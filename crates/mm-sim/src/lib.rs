//! A model of Linux' memory management, deterministic, in two manners.
//!
//! What a program, a driver and a device see of an mm: VMAs, page table entries (none, a frame, a migration
//! entry, a page of VRAM), frames with real bytes, references and pins, interval notifiers with sequence
//! counts, walks that fault, migrations with a result per page, CPU threads that fault on pages of VRAM, COW
//! after fork. [`Sim`] implements [`hostmm::HostMm`] and [`hostmm::HostMemory`]; nothing else
//! of the engine is named here, so that another engine can stand on it.
//!
//! [`Manner`] chooses between the rules of a kernel's own mm and those of a process that moves its memory by
//! userfaultfd. The difference is exactly the rows of `docs/hostmm.md`; one conformance suite runs on both.
//!
//! | file | what |
//! |---|---|
//! | `sim` | [`Sim`], the one lock, invalidations, the traits of the joint |
//! | `state` | what the lock guards, and the check of every book against every other |
//! | `space`, `frames`, `vram`, `content` | one address space; system memory; pages of VRAM; bytes |
//! | `notifier` | interval notifiers and sequence counts |
//! | `access`, `memory` | CPU accesses and faults; device accesses |
//! | `walk` | the walk with faults |
//! | `migrate/` | claims, transfers, commits, in both manners |
//! | `calls`, `fork` | mmap and its relatives; fork |
//! | `userfaultfd` | faults and events served by reader tasks |
//!
//! Simplified: one process (a forked child is read only, its pages of VRAM are copied at the fork), no swap, no
//! KSM, no zero page (a read touch takes a frame), a claim leaves COW-shared pages alone, a huge mapping is 512
//! entries and a mark.
//!
//! Locking: one lock guards all; callbacks run without it. Two condition variables: `changed` (anything that a
//! thread may wait for) and `work` (readers). In the Linux manner migrations and CPU faults on VRAM hold the
//! mmap lock for reading across calls, changes of mappings hold it for writing.
//!
//! Upstream: mm/memory.c, mm/hmm.c, mm/migrate_device.c, mm/mmu_notifier.c, mm/userfaultfd.c.
#![forbid(unsafe_code)]

mod access;
mod calls;
mod config;
mod content;
mod event;
mod fork;
mod frames;
mod memory;
mod migrate;
mod notifier;
mod sim;
mod space;
mod state;
mod userfaultfd;
mod vram;
mod walk;

pub use access::CpuError;
pub use calls::{MapKind, NotMapped};
pub use config::{Config, Log, Manner};
pub use event::{Counters, Event};
pub use sim::Sim;
pub use state::ChildId;

use state::State;
