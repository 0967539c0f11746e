//! The scheduler that drives this thread, if any.
//!
//! A live run reads one process-wide flag here and no thread-local: in a preloaded library even a constant
//! thread-local is a call that may run the program's malloc.

use crate::sim::Scheduler;
use core::cell::Cell;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

/// Set by the first checked run of the process, and never cleared.
static CHECKED: AtomicBool = AtomicBool::new(false);

std::thread_local! {
    static CURRENT: Cell<*const Scheduler<'static>> = const { Cell::new(ptr::null()) };
}

/// Calls `f` with the scheduler that drives this thread; `None` on a live thread, and while the scheduler itself
/// is at work (so a schedule may use locks and atomics of this crate: for it they are live).
#[inline(always)]
pub(crate) fn with<R>(f: impl FnOnce(&Scheduler<'_>) -> R) -> Option<R> {
    if CHECKED.load(Ordering::Relaxed) { with_current(f) } else { None }
}

fn with_current<R>(f: impl FnOnce(&Scheduler<'_>) -> R) -> Option<R> {
    let current = CURRENT.with(Cell::get);
    // SAFETY: the pointer is null, or `enter` put it there on this thread and has not returned yet, so the
    // scheduler it borrows is alive. A coroutine that is suspended inside of `f` when `enter` returns is never
    // resumed.
    let scheduler = unsafe { current.as_ref() }?;
    (!scheduler.is_at_work()).then(|| f(scheduler))
}

/// Makes `scheduler` the one that drives this thread while `body` runs; runs may be nested.
pub(crate) fn enter<R>(scheduler: &Scheduler<'_>, body: impl FnOnce() -> R) -> R {
    CHECKED.store(true, Ordering::Relaxed);
    let _restore = Restore(CURRENT.with(|current| current.replace(ptr::from_ref(scheduler).cast())));
    body()
}

/// Runs `f` as on a live thread.
pub(crate) fn without<R>(f: impl FnOnce() -> R) -> R {
    if !CHECKED.load(Ordering::Relaxed) {
        return f();
    }
    let _restore = Restore(CURRENT.with(|current| current.replace(ptr::null())));
    f()
}

struct Restore(*const Scheduler<'static>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.with(|current| current.set(self.0));
    }
}
