//! Tasks of C under the project's scheduler: points, waiting by channels, deadlocks.
//!
//! C's locks keep their state in the kernel's own structures; what C needs from here is to stop a task at a point, to let it
//! wait for a channel (an address), and to wake who waits. A run ends with its process, so nothing is ever unwound.
//!
//! Key types: none; the functions are what `ffi` gives to C.
//!
//! Locking: a mutex and a condition variable a waiting task.

use crate::evidence::Line;
use crate::runs;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use sync::{Condvar, Mutex};

/// A task that waits.
struct Waiter {
    channel: u64,
    task: &'static str,
    what: String,
    parker: Arc<Parker>,
}

#[derive(Default)]
struct Parker {
    woken: Mutex<bool>,
    wakes: Condvar,
}

thread_local! {
    static WAITING: RefCell<Vec<Waiter>> = const { RefCell::new(Vec::new()) };
    /// Tasks that have not ended, the root among them.
    static LIVE: Cell<usize> = const { Cell::new(1) };
}

/// Starts a task.
pub(crate) fn spawn(name: String, is_daemon: bool, body: impl FnOnce() + Send + 'static) {
    // Tasks are few and live as long as the process.
    let name: &'static str = Box::leak(name.into_boxed_str());
    LIVE.set(LIVE.get() + 1);
    let body = move || {
        body();
        LIVE.set(LIVE.get() - 1);
        if WAITING.with_borrow(Vec::len) == LIVE.get() && !runs::is_over() {
            deadlock();
        }
    };
    drop(if is_daemon { sync::spawn_daemon(name, body) } else { sync::spawn(name, body) });
}

fn task() -> (&'static str, u32) {
    sync::sim::here().map_or(("?", 0), |here| (here.name, here.serial))
}

/// A scheduling point.
pub(crate) fn point(ip: u64, about: impl FnOnce() -> (String, String)) {
    let (name, serial) = task();
    runs::step(name, serial, ip, about);
    sync::point();
}

/// Lets others go on first.
pub(crate) fn yield_now() {
    let (name, serial) = task();
    runs::step(name, serial, 0, || ("looks again".to_owned(), String::new()));
    sync::yield_now();
}

/// Waits until somebody wakes `channel`.
pub(crate) fn block(channel: u64, what: impl FnOnce() -> String) {
    let (task, serial) = task();
    let (what, parker) = (what(), Arc::new(Parker::default()));
    runs::step(task, serial, channel, || ("waits for".to_owned(), what.clone()));
    let all = WAITING.with_borrow_mut(|waiting| {
        waiting.push(Waiter { channel, task, what, parker: parker.clone() });
        waiting.len() == LIVE.get()
    });
    if all {
        deadlock();
    }
    let mut woken = parker.woken.lock();
    while !*woken {
        parker.wakes.wait(&mut woken);
    }
}

/// Wakes who waits for `channel`.
pub(crate) fn wake(channel: u64) {
    let woken: Vec<Waiter> =
        WAITING.with_borrow_mut(|waiting| waiting.extract_if(.., |waiter| waiter.channel == channel).collect());
    for waiter in woken {
        *waiter.parker.woken.lock() = true;
        waiter.parker.wakes.notify_all();
    }
}

/// Nobody can go on.
fn deadlock() -> ! {
    let mut waiting = WAITING.with_borrow(|waiting| {
        let blocked = waiting.iter().filter(|waiter| !is_idle(&waiter.what));
        blocked.map(|waiter| format!("{} waits for {}", waiter.task, waiter.what)).collect::<Vec<_>>()
    });
    // The same deadlock has the same text.
    waiting.sort_unstable();
    Line::new("deadlock").with("text", waiting.join("; ")).write();
    runs::finish()
}

/// What tasks that serve others wait for when there is nothing to do.
fn is_idle(what: &str) -> bool {
    matches!(what, "work" | "a job")
}
