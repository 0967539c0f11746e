//! Monotonic time in nanoseconds: real, or virtual under the checker.
//!
//! Live this is `CLOCK_MONOTONIC` as the kernel counts it, absolute, because user space hands such times in
//! (the wait for a user fence takes one). Checked it is the virtual clock of the run, see [`crate::sim`].
//! Without the `std` feature a clock has to be given (`set_clock`).

#[cfg(not(feature = "std"))]
pub use given::{now_ns, set_clock, sleep_ns};
#[cfg(feature = "std")]
pub(crate) use real::timespec;
#[cfg(feature = "std")]
pub use real::{now_ns, sleep_ns};

/// The time `ns` from now; saturates, and `u64::MAX` means "never" to every wait of this crate.
pub fn after_ns(ns: u64) -> u64 {
    now_ns().saturating_add(ns)
}

#[cfg(feature = "std")]
mod real {
    use rustix::io::Errno;
    use rustix::thread::{self, Timespec};
    use rustix::time::{ClockId, clock_gettime};

    const NS_PER_S: u64 = 1_000_000_000;

    /// Nanoseconds of `CLOCK_MONOTONIC`, or of virtual time.
    pub fn now_ns() -> u64 {
        checked!(|s| s.now_ns());
        let now = clock_gettime(ClockId::Monotonic);
        now.tv_sec as u64 * NS_PER_S + now.tv_nsec as u64
    }

    /// Sleeps `ns` nanoseconds or a little longer.
    pub fn sleep_ns(ns: u64) {
        checked!(|s| s.sleep_ns(ns));
        let until = timespec(now_ns().saturating_add(ns));
        while thread::clock_nanosleep_absolute(ClockId::Monotonic, &until) == Err(Errno::INTR) {}
    }

    /// A time in nanoseconds as the kernel takes it.
    pub(crate) fn timespec(ns: u64) -> Timespec {
        Timespec { tv_sec: (ns / NS_PER_S) as i64, tv_nsec: (ns % NS_PER_S) as _ }
    }
}

#[cfg(not(feature = "std"))]
mod given {
    use crate::Mutex;

    static CLOCK: Mutex<Option<fn() -> u64>> = Mutex::new(None);

    /// Gives the crate a clock: nanoseconds, never going back.
    pub fn set_clock(clock: fn() -> u64) {
        *CLOCK.lock() = Some(clock);
    }

    /// Nanoseconds of the clock that was given; 0 as long as there is none.
    pub fn now_ns() -> u64 {
        let clock = *CLOCK.lock();
        clock.map_or(0, |clock| clock())
    }

    /// Spins `ns` nanoseconds of the clock that was given; returns at once as long as there is none.
    pub fn sleep_ns(ns: u64) {
        let has_clock = CLOCK.lock().is_some();
        let until = now_ns().saturating_add(ns);
        while has_clock && now_ns() < until {
            core::hint::spin_loop();
        }
    }
}
