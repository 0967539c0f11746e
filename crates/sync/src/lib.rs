//! Locks, waiting, threads, time, randomness and choice: real, or driven by the checker.
//!
//! Everything of engine, driver, hardware and host models that could make two runs differ goes through this
//! crate. A process-wide flag that only the checker sets is asked first; only behind it a thread-local is
//! read, so a live run never touches one (see docs/soundness.md).
#![no_std]
#![deny(unsafe_code)]
#[cfg(feature = "std")]
extern crate std;
extern crate alloc;

pub mod atomic;
mod lock;
#[cfg(feature = "std")]
mod thread;
#[cfg(feature = "std")]
pub mod time;

pub use lock::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(feature = "std")]
pub use thread::{JoinHandle, choose, point, spawn, yield_now};
