//! Sleeping on a word of memory: the one primitive every live lock of this crate is made of.
//!
//! A thread sleeps while a word holds an expected value and is woken by address. The calls go straight to
//! the kernel (rustix, `linux_raw`): no libc, no errno, no thread-local, no allocation, so a thread that
//! answers the page faults of its own process may use them. Without the `std` feature there is no kernel to
//! ask, and waiting is spinning.
//!
//! Upstream: futex(2); in the Linux kernel the counterpart would be a wait queue.

use core::sync::atomic::AtomicU32;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// Woken, or the word did not hold the expected value: look again.
    Look,
    /// The deadline passed.
    TimedOut,
}

/// Sleeps while `word` holds `expected`; returns early for no reason now and then.
pub(crate) fn wait(word: &AtomicU32, expected: u32) {
    let _ = wait_until(word, expected, None);
}

#[cfg(feature = "std")]
mod kernel {
    use super::{AtomicU32, Waited};
    use core::num::NonZeroU32;
    use core::sync::atomic::{AtomicBool, Ordering};
    use rustix::io::Errno;
    use rustix::thread::futex;

    static IS_ALONE: AtomicBool = AtomicBool::new(false);
    static LEAVE: crate::Mutex<Option<fn() -> !>> = crate::Mutex::new(None);

    /// Says that no other thread runs in this memory any more. Whoever would sleep on a word from now on calls `leave` instead: what
    /// it waits for was the work of a thread that is dead.
    pub fn alone(leave: fn() -> !) {
        *LEAVE.lock() = Some(leave);
        IS_ALONE.store(true, Ordering::Relaxed);
    }

    /// Sleeps while `word` holds `expected`, at most until `deadline_ns` (absolute, `CLOCK_MONOTONIC`).
    pub(crate) fn wait_until(word: &AtomicU32, expected: u32, deadline_ns: Option<u64>) -> Waited {
        // The bitset form takes an absolute time, so that a wait that was interrupted does not start anew.
        let deadline = deadline_ns.map(crate::time::timespec);
        if IS_ALONE.load(Ordering::Relaxed)
            && let Some(leave) = *LEAVE.lock()
        {
            leave();
        }
        match futex::wait_bitset(word, futex::Flags::PRIVATE, expected, deadline.as_ref(), NonZeroU32::MAX) {
            Err(Errno::TIMEDOUT) => Waited::TimedOut,
            _ => Waited::Look,
        }
    }

    /// Wakes one sleeper.
    pub(crate) fn wake_one(word: &AtomicU32) {
        let _ = futex::wake(word, futex::Flags::PRIVATE, 1);
    }

    /// Wakes all sleepers.
    pub(crate) fn wake_all(word: &AtomicU32) {
        let _ = futex::wake(word, futex::Flags::PRIVATE, i32::MAX as u32);
    }
}

#[cfg(not(feature = "std"))]
mod kernel {
    use super::{AtomicU32, Waited};
    use core::sync::atomic::Ordering;

    /// Spins while `word` holds `expected`, at most until `deadline_ns` of [`crate::time::now_ns`].
    pub(crate) fn wait_until(word: &AtomicU32, expected: u32, deadline_ns: Option<u64>) -> Waited {
        while word.load(Ordering::Acquire) == expected {
            if deadline_ns.is_some_and(|deadline| crate::time::now_ns() >= deadline) {
                return Waited::TimedOut;
            }
            core::hint::spin_loop();
        }
        Waited::Look
    }

    /// Nobody sleeps.
    pub(crate) fn wake_one(_: &AtomicU32) {}

    /// Nobody sleeps.
    pub(crate) fn wake_all(_: &AtomicU32) {}
}

#[cfg(feature = "std")]
pub use kernel::alone;
pub(crate) use kernel::{wait_until, wake_all, wake_one};
