//! The word of a mutex.
//!
//! Three states: free, held, held with sleepers. Who finds it held spins for a moment, marks it as having
//! sleepers and sleeps; who releases it makes a system call only where the mark is set.

use crate::futex;
use core::sync::atomic::{AtomicU32, Ordering};

const FREE: u32 = 0;
const HELD: u32 = 1;
const SLEPT_ON: u32 = 2;

/// How often a thread looks again before it sleeps: about as long as a short critical section.
const SPINS: u32 = 100;

/// The lock under a [`crate::Mutex`].
pub struct RawMutex {
    word: AtomicU32,
}

impl RawMutex {
    /// A free lock.
    pub const fn new() -> Self {
        Self { word: AtomicU32::new(FREE) }
    }

    pub(crate) fn acquire(&self) {
        if !self.take() {
            self.acquire_slowly();
        }
    }

    pub(crate) fn try_acquire(&self) -> bool {
        self.take()
    }

    pub(crate) fn release(&self) {
        if self.word.swap(FREE, Ordering::Release) == SLEPT_ON {
            futex::wake_one(&self.word);
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.word.load(Ordering::Relaxed) != FREE
    }

    fn take(&self) -> bool {
        self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn acquire_slowly(&self) {
        for _ in 0..SPINS {
            if self.word.load(Ordering::Relaxed) == SLEPT_ON {
                break;
            }
            if self.take() {
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
