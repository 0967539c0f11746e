//! Lock ranks: which lock may be taken under which, and what a reader thread may take at all.
//!
//! A lock may have a rank. Under the checker, a task that takes a ranked lock while it holds one of the same or
//! a higher rank panics, which is a finding; so does a task of the reader class ([`reader`]: it answers CPU
//! faults, and whoever faults waits for it) that takes anything below [`Rank::NOTIFIER`] or without a rank.
//! `try_lock` never waits, so it is free of both rules. Live, ranks cost a byte and nothing else.
//!
//! Upstream: lockdep; the reader's rule is what `lockdep_assert` and fs_reclaim annotations say of mmu
//! notifiers, which must not wait for what may itself wait for memory.

use crate::lock::{Mutex, RawMutex, RawRwLock, RwLock};
use core::fmt;
use core::marker::PhantomData;

/// A place in the order of locks: the higher, the later it is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u8);

impl Rank {
    /// No rank: in no order with any other lock.
    pub const NONE: Rank = Rank(0);
    /// A virtual GPU address space as a whole (xe's `vm->lock`).
    pub const VM: Rank = Rank(8);
    /// The host's address space (`mmap_lock`).
    pub const MMAP: Rank = Rank(16);
    /// Buffer objects and their page tables (`dma_resv`).
    pub const RESV: Rank = Rank(24);
    /// The notifier lock of a GPU SVM (`notifier_lock`): from here on a reader may take it.
    pub const NOTIFIER: Rank = Rank(32);
    /// States of frames of device memory.
    pub const FRAMES: Rank = Rank(40);
    /// TLBs and their invalidation.
    pub const TLB: Rank = Rank(48);
    /// Nothing is taken under it.
    pub const LEAF: Rank = Rank(63);

    /// A rank between the named ones: 1 to 63.
    pub const fn level(level: u8) -> Rank {
        assert!(level >= 1 && level <= 63, "ranks are 1 to 63");
        Rank(level)
    }

    /// As a bit of the set of ranks that a task holds; `NONE` has none.
    #[cfg(feature = "std")]
    pub(crate) fn bit(self) -> u64 {
        (1 << self.0) & !1
    }

    /// The least set of bits that [overtakes](Self::is_overtaken_by) it; `NONE` none does.
    #[cfg(feature = "std")]
    pub(crate) fn limit(self) -> u64 {
        if self == Rank::NONE { u64::MAX } else { 1 << self.0 }
    }

    /// The ranks of a set of bits, the lowest first.
    #[cfg(feature = "std")]
    pub(crate) fn of_bits(bits: u64) -> alloc::vec::Vec<Rank> {
        (1..64).filter(|level| bits >> level & 1 == 1).map(Rank).collect()
    }

    /// Whether a lock of this rank is to be taken before those of a set of bits: one of them has the same rank, or a higher one.
    #[cfg(feature = "std")]
    #[inline]
    pub(crate) fn is_overtaken_by(self, bits: u64) -> bool {
        self != Rank::NONE && bits >> self.0 != 0
    }

    /// The highest rank of a set of bits.
    #[cfg(feature = "std")]
    pub(crate) fn highest(bits: u64) -> Rank {
        Rank(63 - (bits | 1).leading_zeros() as u8)
    }
}

impl fmt::Debug for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Rank::NONE => "no rank",
            Rank::VM => "vm",
            Rank::MMAP => "mmap",
            Rank::RESV => "resv",
            Rank::NOTIFIER => "notifier",
            Rank::FRAMES => "frames",
            Rank::TLB => "tlb",
            Rank::LEAF => "leaf",
            Rank(level) => return write!(f, "rank {level}"),
        };
        f.write_str(name)
    }
}

/// A mutex of that rank.
pub const fn mutex<T>(rank: Rank, value: T) -> Mutex<T> {
    Mutex::from_raw(RawMutex::ranked(rank), value)
}

/// A reader-writer lock of that rank.
pub const fn rwlock<T>(rank: Rank, value: T) -> RwLock<T> {
    RwLock::from_raw(RawRwLock::ranked(rank), value)
}

/// As long as this lives, the current task is of the reader class. Nothing, live.
pub struct Reader {
    #[cfg(feature = "std")]
    before: Rank,
    stays_on_its_thread: PhantomData<*const ()>,
}

/// Puts the current task into the reader class.
pub fn reader() -> Reader {
    Reader {
        #[cfg(feature = "std")]
        before: crate::hook::with(|s| s.set_floor(Rank::NOTIFIER)).unwrap_or(Rank::NONE),
        stays_on_its_thread: PhantomData,
    }
}

#[cfg(feature = "std")]
impl Drop for Reader {
    fn drop(&mut self) {
        crate::hook::with(|s| s.set_floor(self.before));
    }
}
