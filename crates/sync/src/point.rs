//! Scheduling points by name, and choices.

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

/// A choice below `n`, made by the schedule; 0 live.
pub fn choose(n: u32) -> u32 {
    checked!(|s| s.choose(n));
    let _ = n;
    0
}
