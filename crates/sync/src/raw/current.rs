//! The hook that drives this thread, if any.
//!
//! A live run reads one process-wide flag here and no thread-local: in a preloaded library even a constant
//! thread-local is a call that may run the program's malloc.

use crate::hook::Hook;
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};

/// Set by the first checked run of the process, and never cleared.
static CHECKED: AtomicBool = AtomicBool::new(false);

/// Set by the first hook of the process that wants to be told, and never cleared.
static LISTENED: AtomicBool = AtomicBool::new(false);

/// A hook that lives as long as it is installed.
type Installed = *const (dyn Hook + 'static);

std::thread_local! {
    static CURRENT: Cell<Option<Installed>> = const { Cell::new(None) };
}

/// Calls `f` with the hook that drives this thread; `None` on a live thread, and inside of [`without`].
#[inline(always)]
pub(crate) fn with<R>(f: impl FnOnce(&dyn Hook) -> R) -> Option<R> {
    if CHECKED.load(Ordering::Relaxed) { with_current(f) } else { None }
}

/// The same, where the hook wants to be told ([`Hook::listens`]). One flag is read as long as none of the process ever did.
#[inline(always)]
pub(crate) fn with_listener(f: impl FnOnce(&dyn Hook)) {
    if LISTENED.load(Ordering::Relaxed) {
        with_current(|hook| {
            if hook.listens() {
                f(hook)
            }
        });
    }
}

fn with_current<R>(f: impl FnOnce(&dyn Hook) -> R) -> Option<R> {
    let current = CURRENT.with(Cell::get)?;
    // SAFETY: `enter` put the pointer there on this thread and has not returned yet, so the hook that it borrows is
    // alive. A coroutine that is suspended inside of `f` when `enter` returns is never resumed.
    let hook = unsafe { &*current };
    Some(f(hook))
}

/// Makes `hook` the one that drives this thread while `body` runs; may be nested.
pub(crate) fn enter<R>(hook: &dyn Hook, body: impl FnOnce() -> R) -> R {
    CHECKED.store(true, Ordering::Relaxed);
    LISTENED.fetch_or(hook.listens(), Ordering::Relaxed);
    let hook: *const (dyn Hook + '_) = hook;
    // SAFETY: only the lifetime of the pointer's type changes. It is used by `with_current` alone, while this function
    // runs, and the hook is borrowed for longer.
    let hook: Installed = unsafe { core::mem::transmute(hook) };
    let _restore = Restore(CURRENT.with(|current| current.replace(Some(hook))));
    body()
}

/// Runs `f` as on a live thread.
pub(crate) fn without<R>(f: impl FnOnce() -> R) -> R {
    if !CHECKED.load(Ordering::Relaxed) {
        return f();
    }
    let _restore = Restore(CURRENT.with(|current| current.replace(None)));
    f()
}

struct Restore(Option<Installed>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.with(|current| current.set(self.0));
    }
}
