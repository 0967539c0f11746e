//! The word of a mutex.
//!
//! Three states: free, held, held with sleepers. Who finds it held spins for a moment, marks it as having
//! sleepers and sleeps; who releases it makes a system call only where the mark is set.

use crate::futex;
#[cfg(feature = "std")]
use crate::hook::{Access, ObjectKind, Queue, Word};
use crate::rank::Rank;
use crate::tag::Tag;
use core::sync::atomic::{AtomicU32, Ordering};

const FREE: u32 = 0;
const HELD: u32 = 1;
const SLEPT_ON: u32 = 2;

/// How often a thread looks again before it sleeps: about as long as a short critical section.
const SPINS: u32 = 100;

/// The lock under a [`crate::Mutex`].
pub struct RawMutex {
    word: AtomicU32,
    #[cfg_attr(not(feature = "std"), expect(dead_code))]
    tag: Tag,
    #[cfg_attr(not(feature = "std"), expect(dead_code))]
    rank: Rank,
}

impl RawMutex {
    /// A free lock without a rank.
    pub const fn new() -> Self {
        Self::ranked(Rank::NONE)
    }

    /// A free lock of that rank.
    pub const fn ranked(rank: Rank) -> Self {
        Self { word: AtomicU32::new(FREE), tag: Tag::new(), rank }
    }

    #[inline]
    pub(crate) fn acquire(&self) {
        checked_but_the_word!(|s| s.acquire(self, &self.tag, Access::Exclusive));
        self.acquire_live();
    }

    #[inline]
    pub(crate) fn try_acquire(&self) -> bool {
        checked!(|s| s.try_acquire(self, Access::Exclusive));
        self.take_free()
    }

    #[inline]
    pub(crate) fn release(&self) {
        #[cfg(feature = "std")]
        crate::hook::with(|s| s.release(self, &self.tag, Access::Exclusive));
        self.release_live();
    }

    #[inline]
    fn acquire_live(&self) {
        if !self.take_free() {
            self.acquire_slowly();
        }
    }

    #[inline]
    fn release_live(&self) {
        if self.word.swap(FREE, Ordering::Release) == SLEPT_ON {
            futex::wake_one(&self.word);
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.word.load(Ordering::Relaxed) != FREE
    }

    #[inline]
    fn take_free(&self) -> bool {
        self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn acquire_slowly(&self) {
        for _ in 0..SPINS {
            if self.word.load(Ordering::Relaxed) == SLEPT_ON {
                break;
            }
            if self.take_free() {
                return;
            }
            core::hint::spin_loop();
        }
        // Whoever slept cannot know whether others still do, so it takes the lock with the mark set.
        while self.word.swap(SLEPT_ON, Ordering::Acquire) != FREE {
            futex::wait(&self.word, SLEPT_ON);
        }
    }
}

impl Default for RawMutex {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "std")]
impl Word for RawMutex {
    fn kind(&self) -> ObjectKind {
        ObjectKind::Mutex
    }

    fn tag(&self) -> &Tag {
        &self.tag
    }

    fn rank(&self) -> Rank {
        self.rank
    }

    fn take(&self, _: Access) -> bool {
        self.take_free()
    }

    fn take_live(&self, _: Access) {
        self.acquire_live();
    }

    fn give_back(&self, _: Access) {
        self.release_live();
    }

    fn queue(&self, _: Queue) {}
}
