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
///
/// Live it is the shortest sleep there is (50 us, the timer's slack). `sched_yield` gives up a whole slice (`yield_task_fair` of
/// Linux 7.2), and where several threads of two sessions do that in turn, that of 6.18 was seen to leave all others without a CPU for ten seconds, the
/// kernel's own threads for a minute.
pub fn yield_now() {
    #[cfg(feature = "std")]
    {
        checked!(|s| s.yield_now());
        crate::time::sleep_ns(1);
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
/// what is told meanwhile; all without a scheduling point in between, or it counts for nothing. Two tasks that tell of different parts are not in each
/// other's way, whose turn comes first: exploring by classes ([`sim::Reduced`](crate::sim::Reduced)) goes by that. Nothing, live.
#[cfg(feature = "std")]
#[inline]
pub fn tell<T: ?Sized>(guard: &crate::MutexGuard<'_, T>, told: Told) {
    tell_each(guard, [told]);
}

/// The same of several parts, which are asked for only where somebody listens.
#[cfg(feature = "std")]
#[inline]
pub fn tell_each<T: ?Sized>(guard: &crate::MutexGuard<'_, T>, told: impl IntoIterator<Item = Told>) {
    tell_of(|| crate::raw::mutex_of(guard), told);
}

/// Whether somebody listens, for who would have to look for what it tells.
#[cfg(feature = "std")]
#[inline]
pub fn is_told() -> bool {
    let mut is_told = false;
    crate::hook::with_listener(|_| is_told = true);
    is_told
}

/// The same of what is done under a reader-writer lock that is held shared.
#[cfg(feature = "std")]
#[inline]
pub fn tell_shared<T: ?Sized>(guard: &crate::RwLockReadGuard<'_, T>, told: impl IntoIterator<Item = Told>) {
    tell_of(|| crate::raw::lock_of_reader(guard), told);
}

/// The same of what is done under one that is held alone.
#[cfg(feature = "std")]
#[inline]
pub fn tell_exclusive<T: ?Sized>(guard: &crate::RwLockWriteGuard<'_, T>, told: impl IntoIterator<Item = Told>) {
    tell_of(|| crate::raw::lock_of_writer(guard), told);
}

#[cfg(feature = "std")]
#[inline]
fn tell_of<'a, W: crate::hook::Word + 'a>(word: impl FnOnce() -> &'a W, told: impl IntoIterator<Item = Told>) {
    crate::hook::with_listener(|s| {
        let word = word();
        told.into_iter().for_each(|told| s.tell(word, told));
    });
}

/// A choice below `n`, made by the schedule; 0 live.
pub fn choose(n: u32) -> u32 {
    checked!(|s| s.choose(n));
    let _ = n;
    0
}
