//! Locks, waiting, threads, time, randomness and choice: real, or driven by the checker.
//!
//! Everything of engine, driver, hardware and host models that could make two runs differ goes through this
//! crate. A process-wide flag that only the checker sets is asked first; only behind it a thread-local is
//! read, so a live run never touches one (see docs/soundness.md).
#![no_std]
#![deny(unsafe_code)]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod atomic;
mod futex;
mod lock;
mod raw;
#[cfg(feature = "std")]
mod thread;
pub mod time;

pub use lock::{
    Condvar, MappedMutexGuard, Mutex, MutexGuard, RawMutex, RawRwLock, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
#[cfg(feature = "std")]
pub use thread::{Body, JoinHandle, SpawnError, Spawner, choose, point, set_spawner, spawn, try_spawn, yield_now};
