//! Scheduling points by name, choices, and what is touched under a lock.

#[cfg(feature = "std")]
pub use crate::hook::Told;

/// A scheduling point: nothing, live.
#[inline]
pub fn point() {
    #[cfg(feature = "std")]
    crate::hook::with(|s| s.point(crate::hook::OpKind::Point));
}

/// Lets others run. In a loop that waits without a lock, this is what lets the loop end.
pub fn yield_now() {
    #[cfg(feature = "std")]
    {
        checked!(|s| s.yield_now());
        rustix::thread::sched_yield();
    }
    #[cfg(not(feature = "std"))]
    core::hint::spin_loop();
}

/// Runs `f` without any scheduling point: what it does is one step with what goes before. For who only looks on and
/// counts; nothing in `f` waits for another task. The locks that it takes are taken in this way only.
pub fn unscheduled<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(feature = "std")]
    return crate::raw::current::without(f);
    #[cfg(not(feature = "std"))]
    f()
}

/// Tells the checker that what is done under this mutex, from when it was taken to when it is given back, is no more than
/// this; both without a scheduling point in between, or it counts for nothing. Two tasks that tell of different parts are not in each
/// other's way, whose turn comes first: exploring by classes ([`sim::Reduced`](crate::sim::Reduced)) goes by that. Nothing, live.
#[cfg(feature = "std")]
#[inline]
pub fn tell<T: ?Sized>(guard: &crate::MutexGuard<'_, T>, told: Told) {
    crate::hook::with(|s| s.tell(crate::raw::mutex_of(guard), told));
}

/// A choice below `n`, made by the schedule; 0 live.
pub fn choose(n: u32) -> u32 {
    checked!(|s| s.choose(n));
    let _ = n;
    0
}
