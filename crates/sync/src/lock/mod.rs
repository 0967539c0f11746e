//! Mutex, reader-writer lock and condition variable: words that are slept on.
//!
//! The guards are `lock_api`'s, so the types read like those of any Rust lock; the words under them are here,
//! in safe code, and `raw` vouches for them to `lock_api`. Each word serves both worlds: live it is a futex,
//! checked the same word is taken by compare-exchange, but waiting means that the scheduler runs another task.
//!
//! `polling` says how long a wait looks before it sleeps.
//!
//! Neighbours: [`crate::futex`] puts threads to sleep, [`crate::rank`] says which lock may be taken under which.
//!
//! Upstream: struct mutex, struct rw_semaphore, wait_queue_head_t.

mod condvar;
mod mutex;
mod polling;
mod rwlock;

pub use condvar::Condvar;
pub use mutex::RawMutex;
pub use polling::Polling;
pub use rwlock::RawRwLock;

/// A mutual exclusion lock.
pub type Mutex<T> = lock_api::Mutex<RawMutex, T>;
/// Its guard.
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawMutex, T>;
/// A guard of a part of what a [`Mutex`] protects.
pub type MappedMutexGuard<'a, T> = lock_api::MappedMutexGuard<'a, RawMutex, T>;
/// A reader-writer lock in which a waiting writer holds up new readers (as the kernel's rw_semaphore does).
pub type RwLock<T> = lock_api::RwLock<RawRwLock, T>;
/// Its shared guard.
pub type RwLockReadGuard<'a, T> = lock_api::RwLockReadGuard<'a, RawRwLock, T>;
/// Its exclusive guard.
pub type RwLockWriteGuard<'a, T> = lock_api::RwLockWriteGuard<'a, RawRwLock, T>;
