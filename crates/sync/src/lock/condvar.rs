//! The condition variable.
//!
//! A word counts the notifications. Who waits remembers the count, releases the mutex and sleeps until the
//! count is another one; who notifies counts on where somebody waits, and makes a system call only where somebody sleeps.

use super::{MutexGuard, Polling};
use crate::futex::{self, Waited};
#[cfg(feature = "std")]
use crate::raw::mutex_of;
use crate::tag::Tag;
use crate::time;
use core::sync::atomic::{AtomicU32, Ordering};

/// A condition variable for [`crate::Mutex`]. All waits may end without cause, so wait in a loop.
pub struct Condvar {
    notified: AtomicU32,
    waiting: AtomicU32,
    /// Those of the waiting that sleep, or are about to.
    sleeping: AtomicU32,
    #[cfg_attr(not(feature = "std"), expect(dead_code))]
    tag: Tag,
}

impl Condvar {
    /// A new one.
    pub const fn new() -> Self {
        Self { notified: AtomicU32::new(0), waiting: AtomicU32::new(0), sleeping: AtomicU32::new(0), tag: Tag::new() }
    }

    /// Waits; may wake without cause.
    pub fn wait<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>) {
        self.wait_until(guard, u64::MAX);
    }

    /// Waits at most `ns` nanoseconds; false where that time passed.
    pub fn wait_for<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, ns: u64) -> bool {
        self.wait_until(guard, time::after_ns(ns))
    }

    /// Waits until `deadline_ns` of [`time::now_ns`] at most (`u64::MAX`: for ever); false where it passed.
    pub fn wait_until<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, deadline_ns: u64) -> bool {
        self.wait_by(guard, deadline_ns, |seen, deadline| self.sleep(seen, deadline))
    }

    /// The same, for an answer that may come soon: looks for it before it sleeps, for as long as `polling` has learnt.
    pub fn poll_until<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, deadline_ns: u64, polling: &Polling) -> bool {
        self.wait_by(guard, deadline_ns, |seen, deadline| {
            polling.wait(deadline, || self.is_notified(seen), || self.sleep(seen, deadline))
        })
    }

    fn wait_by<T: ?Sized>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        deadline_ns: u64,
        wait: impl FnOnce(u32, Option<u64>) -> bool,
    ) -> bool {
        let deadline = (deadline_ns != u64::MAX).then_some(deadline_ns);
        checked!(|s| s.wait(&self.tag, mutex_of(guard), deadline));
        // Counted while the mutex is held: a notifier that changed the condition after us sees us.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let seen = self.notified.load(Ordering::SeqCst);
        let woken = MutexGuard::unlocked(guard, || wait(seen, deadline));
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        woken
    }

    /// Wakes one.
    pub fn notify_one(&self) {
        #[cfg(feature = "std")]
        crate::hook::with(|s| s.notify_one(&self.tag));
        if self.count_on() {
            futex::wake_one(&self.notified);
        }
    }

    /// Wakes all.
    pub fn notify_all(&self) {
        #[cfg(feature = "std")]
        crate::hook::with(|s| s.notify_all(&self.tag));
        if self.count_on() {
            futex::wake_all(&self.notified);
        }
    }

    /// Wakes all, from under the mutex that they wait with: nobody can have come to wait since it was taken, so this is no
    /// scheduling point.
    pub fn notify_all_held<T: ?Sized>(&self, _held: &MutexGuard<'_, T>) {
        #[cfg(feature = "std")]
        crate::hook::with(|s| s.notify_all_held(&self.tag));
        if self.count_on() {
            futex::wake_all(&self.notified);
        }
    }

    fn is_notified(&self, seen: u32) -> bool {
        self.notified.load(Ordering::SeqCst) != seen
    }

    fn sleep(&self, seen: u32, deadline_ns: Option<u64>) -> bool {
        // Counted before the word is looked at: a notifier that does not see us has counted on, and we do not sleep.
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        while !self.is_notified(seen) {
            if futex::wait_until(&self.notified, seen, deadline_ns) == Waited::TimedOut {
                break;
            }
        }
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        self.is_notified(seen)
    }

    /// Counts a notification; true where somebody may sleep for it.
    fn count_on(&self) -> bool {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return false;
        }
        self.notified.fetch_add(1, Ordering::SeqCst);
        self.sleeping.load(Ordering::SeqCst) > 0
    }
}

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}
