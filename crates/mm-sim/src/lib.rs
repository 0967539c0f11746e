//! A model of Linux' memory management, deterministic.
//!
//! What a program, a driver and a device see of an mm: VMAs, page table entries (none, a frame, a migration
//! entry, a page of VRAM, poison), frames with real bytes, references and pins, interval notifiers with sequence
//! counts, walks that fault, migrations with a result per page, CPU threads that fault on pages of VRAM, COW
//! after fork; and userfaultfd over the same VMAs and frames. Two stand on it:
//!
//! * an engine, as in a kernel: [`Sim`] implements [`hostmm::HostMm`] and [`hostmm::HostMemory`];
//! * mm-live, which moves its own process' memory by userfaultfd: [`SimKernel`] implements [`mm_live::kernel::Kernel`].
//!
//! | file | what |
//! |---|---|
//! | `sim` | [`Sim`], the one lock, the mmap lock, invalidations, the traits of the joint |
//! | `state` | what the lock guards, and the check of every book against every other |
//! | `space`, `mapping`, `frames`, `vram`, `content` | one address space; what makes neighbours one VMA; system memory; pages of VRAM; bytes |
//! | `notifier` | interval notifiers and sequence counts |
//! | `access`, `memory` | CPU accesses and faults; device accesses |
//! | `walk` | the walk with faults |
//! | `migrate/` | claims, transfers, commits |
//! | `calls/`, `fork` | mmap and its relatives; fork |
//! | `uffd/` | userfaultfd |
//! | `config` | what it is made with, and what may go wrong |
//!
//! Simplified: one process (a forked child is read only, its pages of VRAM are copied at the fork), no swap, no
//! KSM, no zero page (a read touch takes a frame), no mlock and no guards, a claim leaves COW-shared pages alone, a huge
//! mapping is 512 entries and a mark. `docs/userfaultfd.md` has the rules of userfaultfd, each with a case that the real
//! kernel and this model pass.
//!
//! Locking: one lock guards all; callbacks run without it. Four condition variables: messages, events read, threads
//! woken, and `changed` for all else. Migrations, CPU faults on VRAM, madvise and the calls of a descriptor hold the mmap
//! lock for reading across steps, changes of mappings hold it for writing.
//!
//! Upstream: mm/memory.c, mm/hmm.c, mm/migrate_device.c, mm/mmu_notifier.c, mm/userfaultfd.c, fs/userfaultfd.c.
#![forbid(unsafe_code)]

mod access;
mod calls;
mod config;
mod content;
mod event;
mod footprint;
mod fork;
mod frames;
mod mapping;
mod memory;
mod migrate;
mod notifier;
mod sim;
mod slab;
mod sorted;
mod space;
mod state;
mod uffd;
mod vram;
mod walk;

pub use access::CpuError;
pub use calls::{Advice, MapKind, Remap};
pub use config::{Config, Injection, Log, Placement};
pub use event::{Counters, Event};
pub use sim::Sim;
pub use state::ChildId;
pub use uffd::SimKernel;

use state::State;
