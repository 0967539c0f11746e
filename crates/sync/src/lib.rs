//! Locks, waiting, threads, time, randomness and choice: real, or driven by the checker.
//!
//! Everything of engine, driver, hardware and host models that could make two runs differ goes through this
//! crate. Each type is one type that serves both worlds, decided at run time and not by a cargo feature, which
//! would be the same for a whole build:
//!
//! - **Live**, locks are words that threads sleep on by futex(2). The path of a lock reads no thread-local, calls
//!   no libc and allocates nothing, so threads that answer the page faults of their own process may take it.
//! - **Checked**, inside of [`sim::run`], threads are coroutines on one OS thread, time is virtual, and each
//!   operation that others can see is a *scheduling point*, where a schedule says who goes on. Which operations
//!   those are is written down in [`sim`].
//!
//! A process-wide flag that only the checker sets is asked first; only behind it a thread-local is read, so a live
//! run never touches one (see docs/soundness.md).
//!
//! The way through the crate: [`Mutex`], [`RwLock`], [`Condvar`] (`lock`), [`atomic`], [`spawn`], [`time`],
//! [`point`], [`choose`]: what code under test uses. [`rank`]: the order of locks. `hook`: the table of functions that all
//! of these ask. [`sim`]: the checker's side, which fills it in.
//! `raw`: all there is of `unsafe`.
//!
//! Without the `std` feature there are no threads and no checker, locks spin, and a clock has to be given.
//!
//! Upstream: mutex, rw_semaphore, wait queues, kthreads, lockdep and ktime of the kernel.
#![no_std]
#![deny(unsafe_code)]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

/// Under a hook: does what the hook does, and returns that. Live: nothing.
macro_rules! checked {
    (|$hook:ident| $done:expr) => {
        #[cfg(feature = "std")]
        if let Some(done) = crate::hook::with(|$hook| $done) {
            return done;
        }
    };
}

/// Under a hook that takes a lock altogether: returns. Live, and where it leaves the lock's word to the caller: nothing.
macro_rules! checked_but_the_word {
    (|$hook:ident| $taken:expr) => {
        #[cfg(feature = "std")]
        if crate::hook::with(|$hook| $taken) == Some(false) {
            return;
        }
    };
}

pub mod atomic;
mod counter;
mod futex;
#[cfg(feature = "std")]
mod hook;
mod lock;
mod point;
pub mod rank;
mod raw;
#[cfg(feature = "std")]
pub mod sim;
mod tag;
#[cfg(feature = "std")]
mod thread;
pub mod time;

pub use counter::Counter;
#[cfg(feature = "std")]
pub use futex::alone;
pub use lock::{
    Condvar, MappedMutexGuard, Mutex, MutexGuard, Polling, RawMutex, RawRwLock, RwLock, RwLockReadGuard,
    RwLockWriteGuard,
};
#[cfg(feature = "std")]
pub use point::{Told, is_told, tell, tell_each, tell_exclusive, tell_shared};
pub use point::{choose, point, unscheduled, yield_now};
#[cfg(feature = "std")]
pub use thread::{
    Body, JoinHandle, SpawnError, Spawner, set_spawner, spawn, spawn_daemon, try_spawn, try_spawn_daemon,
};
