//! Monotonic time in nanoseconds: real, or virtual under the checker.
//!
//! Live this is `CLOCK_MONOTONIC` as the kernel counts it, absolute, because user space hands such times in
//! (the wait for a user fence takes one). Checked it is the virtual clock of the run, see [`crate::sim`].
//! Without the `std` feature a clock has to be given (`set_clock`).

#[cfg(not(feature = "std"))]
pub use given::{now_ns, now_ns_of, set_clock, sleep_ns};
#[cfg(feature = "std")]
pub(crate) use real::timespec;
#[cfg(feature = "std")]
pub use real::{now_ns, now_ns_of, sleep_ns};

/// A clock of the kernel. Under the checker, and where a clock was given, there is one time, and all show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// [`now_ns`].
    Monotonic,
    /// The same, not slewed.
    MonotonicRaw,
    /// Time of day.
    Realtime,
    /// Monotonic, and goes on in suspend.
    Boottime,
    /// International atomic time.
    Tai,
}

/// The time `ns` from now; saturates, and `u64::MAX` means "never" to every wait of this crate.
pub fn after_ns(ns: u64) -> u64 {
    now_ns().saturating_add(ns)
}

#[cfg(feature = "std")]
mod real {
    use rustix::io::Errno;
    use rustix::thread::{self, Timespec};
    use rustix::time::{ClockId, DynamicClockId, clock_gettime, clock_gettime_dynamic};

    const NS_PER_S: u64 = 1_000_000_000;

    /// Nanoseconds of a clock.
    pub fn now_ns_of(clock: super::Clock) -> u64 {
        checked!(|s| s.now_ns());
        let id = match clock {
            super::Clock::Monotonic => ClockId::Monotonic,
            super::Clock::MonotonicRaw => ClockId::MonotonicRaw,
            super::Clock::Realtime => ClockId::Realtime,
            super::Clock::Boottime => ClockId::Boottime,
            super::Clock::Tai => {
                // Without leap seconds set, the kernel's is the time of day.
                let tai = clock_gettime_dynamic(DynamicClockId::Tai);
                return nanoseconds(tai.unwrap_or_else(|_| clock_gettime(ClockId::Realtime)));
            }
        };
        nanoseconds(clock_gettime(id))
    }

    fn nanoseconds(time: Timespec) -> u64 {
        time.tv_sec as u64 * NS_PER_S + time.tv_nsec as u64
    }

    /// Nanoseconds of `CLOCK_MONOTONIC`, or of virtual time.
    pub fn now_ns() -> u64 {
        checked!(|s| s.now_ns());
        nanoseconds(clock_gettime(ClockId::Monotonic))
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

    /// The same: there is one clock.
    pub fn now_ns_of(_: super::Clock) -> u64 {
        now_ns()
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
