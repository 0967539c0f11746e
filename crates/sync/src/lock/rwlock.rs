//! The word of a reader-writer lock.
//!
//! `state` counts the readers, or carries the writer's bit; a second bit says that somebody sleeps on it.
//! `queued` counts the writers that want it: while there are any, new readers wait, so a writer is not
//! starved, and a reader that takes the lock twice can deadlock, as it can in the kernel.
//!
//! The last release wakes all sleepers, which look again. That is a herd, but of the handful of threads of a
//! driver.

use crate::futex;
use core::sync::atomic::{AtomicU32, Ordering};

const WRITER: u32 = 1 << 31;
const SLEPT_ON: u32 = 1 << 30;
const READERS: u32 = SLEPT_ON - 1;

/// The lock under a [`crate::RwLock`].
pub struct RawRwLock {
    state: AtomicU32,
    queued: AtomicU32,
}

impl RawRwLock {
    /// A free lock.
    pub const fn new() -> Self {
        Self { state: AtomicU32::new(0), queued: AtomicU32::new(0) }
    }

    pub(crate) fn acquire_shared(&self) {
        while !self.take_shared() {
            self.sleep_unless(|state| state & WRITER == 0 && self.queued.load(Ordering::SeqCst) == 0);
        }
    }

    pub(crate) fn try_acquire_shared(&self) -> bool {
        self.take_shared()
    }

    pub(crate) fn release_shared(&self) {
        let left = self.state.fetch_sub(1, Ordering::Release) - 1;
        if left == SLEPT_ON {
            self.wake_sleepers();
        }
    }

    pub(crate) fn acquire_exclusive(&self) {
        if self.take_exclusive() {
            return;
        }
        self.queued.fetch_add(1, Ordering::SeqCst);
        while !self.take_exclusive() {
            self.sleep_unless(|state| state & !SLEPT_ON == 0);
        }
        self.queued.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn try_acquire_exclusive(&self) -> bool {
        self.take_exclusive()
    }

    pub(crate) fn release_exclusive(&self) {
        if self.state.swap(0, Ordering::SeqCst) & SLEPT_ON != 0 {
            futex::wake_all(&self.state);
        }
    }

    /// From writer to the only reader, without letting a writer in between.
    pub(crate) fn downgrade(&self) {
        if self.state.swap(1, Ordering::SeqCst) & SLEPT_ON != 0 {
            futex::wake_all(&self.state);
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.state.load(Ordering::Relaxed) & !SLEPT_ON != 0
    }

    pub(crate) fn is_held_exclusively(&self) -> bool {
        self.state.load(Ordering::Relaxed) & WRITER != 0
    }

    fn take_shared(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & WRITER == 0 && state & READERS != READERS && self.queued.load(Ordering::SeqCst) == 0 {
            match self.state.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    fn take_exclusive(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & !SLEPT_ON == 0 {
            match self.state.compare_exchange_weak(state, state | WRITER, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// Marks the lock as slept on and sleeps, unless `free` holds of its state.
    ///
    /// Nobody sleeps too long: a sleeper that is not admitted sleeps on a state that is held, or is free with a
    /// writer queued. Either way a release is still to come, and it changes the state before it wakes.
    #[cold]
    fn sleep_unless(&self, free: impl Fn(u32) -> bool) {
        let state = self.state.load(Ordering::SeqCst);
        if free(state) {
            return;
        }
        let marked = state | SLEPT_ON;
        let mark = self.state.compare_exchange(state, marked, Ordering::SeqCst, Ordering::SeqCst);
        if mark.is_ok() && !free(marked) {
            futex::wait(&self.state, marked);
        }
    }

    #[cold]
    fn wake_sleepers(&self) {
        // Where this fails somebody holds the lock again, and the mark stays for its release.
        if self.state.compare_exchange(SLEPT_ON, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            futex::wake_all(&self.state);
        }
    }
}

impl Default for RawRwLock {
    fn default() -> Self {
        Self::new()
    }
}
