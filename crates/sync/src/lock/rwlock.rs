//! The word of a reader-writer lock.
//!
//! `state` counts the readers, or carries the writer's bit; a second bit says that somebody sleeps on it.
//! `queued` counts the writers that want it: while there are any, new readers wait, so a writer is not
//! starved, and a reader that takes the lock twice can deadlock, as it can in the kernel.
//!
//! The last release wakes all sleepers, which look again. That is a herd, but of the handful of threads of a
//! driver.

use crate::futex;
#[cfg(feature = "std")]
use crate::hook::{Access, ObjectKind, Queue, Word};
use crate::rank::Rank;
use crate::tag::Tag;
use core::sync::atomic::{AtomicU32, Ordering};

const WRITER: u32 = 1 << 31;
const SLEPT_ON: u32 = 1 << 30;
const READERS: u32 = SLEPT_ON - 1;

/// The lock under a [`crate::RwLock`].
pub struct RawRwLock {
    state: AtomicU32,
    queued: AtomicU32,
    #[cfg_attr(not(feature = "std"), expect(dead_code))]
    tag: Tag,
    #[cfg_attr(not(feature = "std"), expect(dead_code))]
    rank: Rank,
}

impl RawRwLock {
    /// A free lock without a rank.
    pub const fn new() -> Self {
        Self::ranked(Rank::NONE)
    }

    /// A free lock of that rank.
    pub const fn ranked(rank: Rank) -> Self {
        Self { state: AtomicU32::new(0), queued: AtomicU32::new(0), tag: Tag::new(), rank }
    }

    #[inline]
    pub(crate) fn acquire_shared(&self) {
        checked_but_the_word!(|s| s.acquire(self, &self.tag, Access::Shared));
        self.acquire_shared_live();
    }

    #[inline]
    pub(crate) fn try_acquire_shared(&self) -> bool {
        checked!(|s| s.try_acquire(self, Access::Shared));
        self.take_shared()
    }

    #[inline]
    pub(crate) fn release_shared(&self) {
        #[cfg(feature = "std")]
        crate::hook::with(|s| s.release(self, &self.tag, Access::Shared));
        self.release_shared_live();
    }

    #[inline]
    pub(crate) fn acquire_exclusive(&self) {
        checked_but_the_word!(|s| s.acquire(self, &self.tag, Access::Exclusive));
        self.acquire_exclusive_live();
    }

    #[inline]
    pub(crate) fn try_acquire_exclusive(&self) -> bool {
        checked!(|s| s.try_acquire(self, Access::Exclusive));
        self.take_exclusive()
    }

    #[inline]
    pub(crate) fn release_exclusive(&self) {
        #[cfg(feature = "std")]
        crate::hook::with(|s| s.release(self, &self.tag, Access::Exclusive));
        self.release_exclusive_live();
    }

    /// From writer to the only reader, without letting a writer in between.
    pub(crate) fn downgrade(&self) {
        checked!(|s| s.downgrade(self, &|| self.downgrade_live()));
        self.downgrade_live();
    }

    pub(crate) fn is_held(&self) -> bool {
        self.state.load(Ordering::Relaxed) & !SLEPT_ON != 0
    }

    pub(crate) fn is_held_exclusively(&self) -> bool {
        self.state.load(Ordering::Relaxed) & WRITER != 0
    }

    fn acquire_shared_live(&self) {
        while !self.take_shared() {
            self.sleep_unless(|state| self.admits_shared(state));
        }
    }

    fn release_shared_live(&self) {
        let left = self.state.fetch_sub(1, Ordering::SeqCst) - 1;
        if left == SLEPT_ON {
            self.wake_sleepers();
        }
    }

    fn acquire_exclusive_live(&self) {
        if self.take_exclusive() {
            return;
        }
        self.queued.fetch_add(1, Ordering::SeqCst);
        while !self.take_exclusive() {
            self.sleep_unless(admits_exclusive);
        }
        self.queued.fetch_sub(1, Ordering::SeqCst);
    }

    fn release_exclusive_live(&self) {
        if self.state.swap(0, Ordering::SeqCst) & SLEPT_ON != 0 {
            futex::wake_all(&self.state);
        }
    }

    fn downgrade_live(&self) {
        if self.state.swap(1, Ordering::SeqCst) & SLEPT_ON != 0 {
            futex::wake_all(&self.state);
        }
    }

    fn take_shared(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while self.admits_shared(state) {
            match self.state.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    fn admits_shared(&self, state: u32) -> bool {
        state & WRITER == 0 && state & READERS != READERS && self.queued.load(Ordering::SeqCst) == 0
    }

    fn take_exclusive(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while admits_exclusive(state) {
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

fn admits_exclusive(state: u32) -> bool {
    state & !SLEPT_ON == 0
}

impl Default for RawRwLock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "std")]
impl Word for RawRwLock {
    fn kind(&self) -> ObjectKind {
        ObjectKind::RwLock
    }

    fn tag(&self) -> &Tag {
        &self.tag
    }

    fn rank(&self) -> Rank {
        self.rank
    }

    fn take(&self, access: Access) -> bool {
        match access {
            Access::Shared => self.take_shared(),
            Access::Exclusive => self.take_exclusive(),
        }
    }

    fn take_live(&self, access: Access) {
        match access {
            Access::Shared => self.acquire_shared_live(),
            Access::Exclusive => self.acquire_exclusive_live(),
        }
    }

    fn give_back(&self, access: Access) {
        match access {
            Access::Shared => self.release_shared_live(),
            Access::Exclusive => self.release_exclusive_live(),
        }
    }

    fn queue(&self, step: Queue) {
        match step {
            Queue::Enter => self.queued.fetch_add(1, Ordering::SeqCst),
            Queue::Leave => self.queued.fetch_sub(1, Ordering::SeqCst),
        };
    }
}
