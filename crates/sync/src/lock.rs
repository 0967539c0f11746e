//! First light: to be replaced by the dual lock.
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Raw lock.
#[allow(missing_docs)]
pub struct RawLock(AtomicBool);
#[allow(unsafe_code)]
// SAFETY: a compare-exchange admits one holder.
unsafe impl lock_api::RawMutex for RawLock {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = RawLock(AtomicBool::new(false));
    type GuardMarker = lock_api::GuardSend;
    fn lock(&self) {
        while !self.try_lock() {
            core::hint::spin_loop();
        }
    }
    fn try_lock(&self) -> bool {
        self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}
/// A mutual exclusion lock.
pub type Mutex<T> = lock_api::Mutex<RawLock, T>;
/// Its guard.
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawLock, T>;

/// Raw rw lock.
#[allow(missing_docs)]
pub struct RawRw(RawLock);
#[allow(unsafe_code)]
// SAFETY: exclusive for readers too, for now.
unsafe impl lock_api::RawRwLock for RawRw {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = RawRw(<RawLock as lock_api::RawMutex>::INIT);
    type GuardMarker = lock_api::GuardSend;
    fn lock_shared(&self) {
        lock_api::RawMutex::lock(&self.0)
    }
    fn try_lock_shared(&self) -> bool {
        lock_api::RawMutex::try_lock(&self.0)
    }
    unsafe fn unlock_shared(&self) {
        // SAFETY: held by the caller.
        unsafe { lock_api::RawMutex::unlock(&self.0) }
    }
    fn lock_exclusive(&self) {
        lock_api::RawMutex::lock(&self.0)
    }
    fn try_lock_exclusive(&self) -> bool {
        lock_api::RawMutex::try_lock(&self.0)
    }
    unsafe fn unlock_exclusive(&self) {
        // SAFETY: held by the caller.
        unsafe { lock_api::RawMutex::unlock(&self.0) }
    }
}
/// A reader-writer lock.
pub type RwLock<T> = lock_api::RwLock<RawRw, T>;
/// Its shared guard.
pub type RwLockReadGuard<'a, T> = lock_api::RwLockReadGuard<'a, RawRw, T>;
/// Its exclusive guard.
pub type RwLockWriteGuard<'a, T> = lock_api::RwLockWriteGuard<'a, RawRw, T>;

/// A condition variable for [`Mutex`].
#[derive(Default)]
pub struct Condvar(AtomicU32);
impl Condvar {
    /// A new one.
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }
    /// Waits; may wake without cause.
    pub fn wait<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>) {
        let seen = self.0.load(Ordering::Acquire);
        MutexGuard::unlocked(guard, || {
            while self.0.load(Ordering::Acquire) == seen {
                core::hint::spin_loop();
            }
        });
    }
    /// Waits at most `ns` nanoseconds; false where that time passed.
    pub fn wait_for<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, ns: u64) -> bool {
        let _ = ns;
        self.wait(guard);
        true
    }
    /// Wakes one.
    pub fn notify_one(&self) {
        self.notify_all();
    }
    /// Wakes all.
    pub fn notify_all(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}
