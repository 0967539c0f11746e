//! Our locks, vouched for to `lock_api`.

#[cfg(feature = "std")]
use crate::lock::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};
use crate::lock::{RawMutex, RawRwLock};

// SAFETY: `acquire` returns, and `try_acquire` returns true, only after the compare-exchange (or swap) that took
// the word from free to held; until `release` no other one can succeed.
unsafe impl lock_api::RawMutex for RawMutex {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = RawMutex::new();
    type GuardMarker = lock_api::GuardSend;

    #[inline]
    fn lock(&self) {
        self.acquire();
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.try_acquire()
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.release();
    }

    fn is_locked(&self) -> bool {
        self.is_held()
    }
}

// SAFETY: a writer is admitted only by the compare-exchange from a state without readers and writer, a reader only
// by one from a state without a writer; each holder's part of the state stays until its own release.
unsafe impl lock_api::RawRwLock for RawRwLock {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = RawRwLock::new();
    type GuardMarker = lock_api::GuardSend;

    #[inline]
    fn lock_shared(&self) {
        self.acquire_shared();
    }

    #[inline]
    fn try_lock_shared(&self) -> bool {
        self.try_acquire_shared()
    }

    #[inline]
    unsafe fn unlock_shared(&self) {
        self.release_shared();
    }

    #[inline]
    fn lock_exclusive(&self) {
        self.acquire_exclusive();
    }

    #[inline]
    fn try_lock_exclusive(&self) -> bool {
        self.try_acquire_exclusive()
    }

    #[inline]
    unsafe fn unlock_exclusive(&self) {
        self.release_exclusive();
    }

    fn is_locked(&self) -> bool {
        self.is_held()
    }

    fn is_locked_exclusive(&self) -> bool {
        self.is_held_exclusively()
    }
}

// SAFETY: the state goes from writer to one reader in a single exchange.
unsafe impl lock_api::RawRwLockDowngrade for RawRwLock {
    #[inline]
    unsafe fn downgrade(&self) {
        RawRwLock::downgrade(self);
    }
}

/// The word of the lock that a shared guard holds.
#[cfg(feature = "std")]
pub(crate) fn lock_of_reader<'a, T: ?Sized>(guard: &RwLockReadGuard<'a, T>) -> &'a RawRwLock {
    // SAFETY: the caller holds the lock by `guard`, which is given back when it is dropped, and not before.
    unsafe { RwLockReadGuard::rwlock(guard).raw() }
}

/// The word of the lock that an exclusive guard holds.
#[cfg(feature = "std")]
pub(crate) fn lock_of_writer<'a, T: ?Sized>(guard: &RwLockWriteGuard<'a, T>) -> &'a RawRwLock {
    // SAFETY: as above.
    unsafe { RwLockWriteGuard::rwlock(guard).raw() }
}

/// The word of the mutex that a guard holds.
#[cfg(feature = "std")]
pub(crate) fn mutex_of<'a, T: ?Sized>(guard: &MutexGuard<'a, T>) -> &'a RawMutex {
    // SAFETY: the caller holds the mutex by `guard`, and this crate gives it back only in exchange for having it
    // again before the guard is used or dropped.
    unsafe { MutexGuard::mutex(guard).raw() }
}
