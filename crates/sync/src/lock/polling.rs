//! Looking for a while before a thread sleeps.
//!
//! To wake a thread costs a system call, and it runs ten microseconds later or more: several times what a short job of
//! an engine takes. So a thread that waits for such an answer looks at the word for a while before it sleeps, if that
//! helped the last times. How long is learnt:
//!
//! | the wait | the next one looks |
//! |---|---|
//! | ended while the thread looked | as long |
//! | ended soon after the thread slept | twice as long, from [`FIRST_NS`] to [`LONGEST_NS`] |
//! | the same, for the [`PATIENCE`]th time after it had looked that long | not at all, nor do [`REST`] waits: the answer takes longer, or cannot come while the thread looks |
//! | took longer than [`SOON_NS`] | not at all |
//!
//! A thread that may run on one CPU only never looks: nobody could answer meanwhile. So the price is bounded: [`LONGEST_NS`]
//! of a CPU for a wait that is not answered, and none for a thread that is idle. The checker never comes here: a wait is one
//! operation there.
//!
//! Upstream: the halt polling of KVM (`kvm_vcpu_halt`), which learns by the same rules but for the rest.

use crate::time::now_ns;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

const FIRST_NS: u32 = 25_000;
const LONGEST_NS: u32 = 100_000;
const SOON_NS: u64 = 500_000;
const PATIENCE: u32 = 4;
const REST: u32 = 32;
/// Looks between two looks at the clock.
const LOOKS: u32 = 16;

/// What the waits for one kind of answer have learnt. Threads that learn at the same time may forget what one of them did.
#[derive(Debug, Default)]
pub struct Polling {
    /// How long to look.
    ns: AtomicU32,
    /// Waits in a row that were in vain; where none looks, those of the rest.
    misses: AtomicU32,
}

impl Polling {
    /// Nothing learnt: does not look.
    pub const fn new() -> Self {
        Self { ns: AtomicU32::new(0), misses: AtomicU32::new(0) }
    }

    /// Waits for `is_over`: looks for a while, then `sleep`s, which returns at the end or at `deadline_ns`; what that
    /// returned, true where looking was enough.
    pub(super) fn wait(
        &self,
        deadline_ns: Option<u64>,
        is_over: impl Fn() -> bool,
        sleep: impl FnOnce() -> bool,
    ) -> bool {
        let (start, now) = (now_ns(), (self.ns.load(Relaxed), self.misses.load(Relaxed)));
        let end = start.saturating_add(now.0.into()).min(deadline_ns.unwrap_or(u64::MAX));
        let seen = look(end, is_over);
        let over = seen || sleep();
        let (ns, misses) = match now {
            (ns, _) if seen => (ns, 0),
            now if over => after_sleep(now, now_ns() - start, has_other_cpus),
            (_, misses) => (0, misses),
        };
        self.ns.store(ns, Relaxed);
        self.misses.store(misses, Relaxed);
        over
    }
}

/// Whether it is over before `end_ns`.
fn look(end_ns: u64, is_over: impl Fn() -> bool) -> bool {
    while now_ns() < end_ns {
        for _ in 0..LOOKS {
            if is_over() {
                return true;
            }
            core::hint::spin_loop();
        }
    }
    false
}

/// How long to look, and the misses, after a wait that looking did not end, and that took `waited_ns` with its sleep.
fn after_sleep((ns, misses): (u32, u32), waited_ns: u64, may_look: impl FnOnce() -> bool) -> (u32, u32) {
    match (ns, misses) {
        _ if waited_ns > SOON_NS => (0, 0),
        (0, 1..REST) => (0, misses + 1),
        (0, _) if may_look() => (FIRST_NS, 0),
        (0, _) => (0, 1),
        (..LONGEST_NS, _) => ((2 * ns).min(LONGEST_NS), 0),
        (_, ..PATIENCE) => (ns, misses + 1),
        _ => (0, 1),
    }
}

/// Whether the calling thread may run on several CPUs.
#[cfg(feature = "std")]
fn has_other_cpus() -> bool {
    rustix::thread::sched_getaffinity(None).is_ok_and(|cpus| cpus.count() > 1)
}

/// Without a kernel to ask, a wait looks all the time.
#[cfg(not(feature = "std"))]
fn has_other_cpus() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    /// One that has learnt to look for the longest time.
    fn looks_long() -> Polling {
        Polling { ns: AtomicU32::new(LONGEST_NS), misses: AtomicU32::new(1) }
    }

    /// How long the next waits look after `waits` that took so long each, none of which looking ended.
    fn learnt(waits: &[u64], cpus: u32) -> alloc::vec::Vec<u32> {
        let next = |now: &mut (u32, u32), waited: &u64| {
            *now = after_sleep(*now, *waited, || cpus > 1);
            Some(now.0)
        };
        waits.iter().scan((0, 0), next).collect()
    }

    #[test]
    fn looks_longer_where_that_may_help() {
        assert_eq!(learnt(&[20_000; 4], 2), [25_000, 50_000, 100_000, 100_000]);
        assert_eq!(learnt(&[20_000, 20_000, 600_000, 600_000], 2), [25_000, 50_000, 0, 0], "idle");
        assert_eq!(learnt(&[20_000; 100], 1), [0; 100]);
    }

    #[test]
    fn does_not_look_for_a_while_where_that_did_not_help() {
        let looks = learnt(&[150_000; 3 + 4 + 1 + 32], 2);
        assert_eq!((looks[2], looks[6]), (LONGEST_NS, LONGEST_NS), "patient");
        assert!(looks[7..39].iter().all(|ns| *ns == 0), "{looks:?}");
        assert_eq!(looks[39], FIRST_NS, "tries again");
    }

    #[test]
    fn a_wait_that_looking_ends_does_not_sleep() {
        let (polling, looks) = (looks_long(), Cell::new(0));
        let is_over = || looks.replace(looks.get() + 1) == 3;
        assert!(polling.wait(None, is_over, || panic!("slept")));
        assert_eq!((polling.ns.load(Relaxed), polling.misses.load(Relaxed)), (LONGEST_NS, 0));
    }

    #[test]
    fn looks_no_longer_than_to_the_deadline() {
        let looked = Cell::new(false);
        assert!(!looks_long().wait(Some(0), || looked.replace(true), || false));
        assert!(!looked.get());
    }
}
