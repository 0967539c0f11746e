//! Ranks of the driver's locks: the table of the crate's header, as the checker enforces it.
//!
//! From [`TABLES`] on a lock may be taken in reader class.

use sync::rank::Rank;

/// What the kernel calls the lock of a rank, where it has one that a reader would know.
pub fn lock_name(rank: Rank) -> Option<&'static str> {
    match rank {
        VM => Some("vm->lock"),
        Rank::MMAP => Some("mmap_lock"),
        BO => Some("dma_resv"),
        MIGRATE => Some("driver_migrate_lock"),
        Rank::NOTIFIER => Some("notifier_lock"),
        _ => None,
    }
}

/// The order of a queue's jobs; nothing but leaves under it.
pub(crate) const RING: Rank = Rank::level(4);
/// `Vm::state`.
pub(crate) const VM: Rank = Rank::VM;
/// `Bo::state`.
pub(crate) const BO: Rank = Rank::level(10);
/// A range of a mirror: one of `RangeLocks`.
pub(crate) const RANGE: Rank = Rank::level(11);
/// `Shared::migrate_lock`.
pub(crate) const MIGRATE: Rank = Rank::level(12);
/// `Bo::state` of an import: the exporter's is held.
pub(crate) const IMPORT: Rank = Rank::level(13);
/// A VM's page tables on one tile.
pub(crate) const TABLES: Rank = Rank::level(36);
/// A tile's VRAM: the host may be told to empty a slot with it held.
pub(crate) const VRAM: Rank = Rank::FRAMES;
/// Ranges whose mapping is gone.
pub(crate) const GARBAGE: Rank = Rank::level(44);
/// A tile's migration slots: tables are made with it held.
pub(crate) const SLOTS: Rank = Rank::level(56);
/// A tile's pool of tables.
pub(crate) const POOL: Rank = Rank::level(60);
/// A syncobj; the user fences of a queue of binds. Their fences are asked with it held.
pub(crate) const SYNCOBJ: Rank = Rank::level(61);
/// The start of the thread that runs jobs.
pub(crate) const WORKER: Rank = Rank::level(62);
/// Names, contexts, queues of faults, waiters, lists.
pub(crate) const LEAF: Rank = Rank::LEAF;
