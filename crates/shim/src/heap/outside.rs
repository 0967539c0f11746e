//! A process of ours that shares this one's memory, and not its end.
//!
//! It is no thread of the program, so neither a system call that ends all threads nor a debugger that stops them reaches it. libc
//! needs a control block for whatever runs: it uses that of a thread which begins it and then sleeps for ever. Its parent is nobody
//! of the program (the one in between leaves at once), so no `wait` of the program sees it.
//!
//! Locking: none.

use super::pages;
use super::thread::{STACK_SIZE, spawn_thread};
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, Ordering};
use units::HostRange;

/// What it runs: the thread whose control block it uses is given. It must not return before it is done with this process' memory.
///
/// A thread of the program that ended inside the heap holds its lock for ever: a body that goes on then allocates nothing, or has an alarm
/// that ends it.
pub type Outside = fn(u32);

/// What the two processes are given. It lies on the stack of the thread that sleeps.
struct Order {
    body: Outside,
    thread: u32,
    stack: HostRange,
}

/// The process in between is gone, and the program can see none.
static LENT: AtomicBool = AtomicBool::new(false);

/// Whether what was just begun is there, and is no child of this process: it waits a moment for that.
pub fn is_lent() -> bool {
    wait_briefly(|| LENT.load(Ordering::Acquire))
}

/// Waits until something is so, but not for long. Whether it is.
pub fn wait_briefly(is_so: impl Fn() -> bool) -> bool {
    for _ in 0..1000 {
        if is_so() {
            return true;
        }
        sync::time::sleep_ns(100_000);
    }
    is_so()
}

/// Begins it. False where the system gives no thread or no process; the body may not have run yet.
pub fn begin(body: Outside) -> bool {
    let (Some(between), Some(stack)) = (pages::stack(STACK_SIZE), pages::stack(STACK_SIZE)) else { return false };
    LENT.store(false, Ordering::Release);
    let lend = move || {
        let thread = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        let mut order = Order { body, thread, stack };
        LENT.store(clone(start_outside, between, (&raw mut order).cast()), Ordering::Release);
        loop {
            sync::time::sleep_ns(u64::MAX / 4);
        }
    };
    spawn_thread("pontoon-lends", Box::new(lend)).is_ok()
}

/// A process with this memory, and descriptors of its own. Its end is told to nobody. Whether there was one, and it began the next.
fn clone(body: extern "C" fn(*mut c_void) -> c_int, stack: HostRange, order: *mut c_void) -> bool {
    // SAFETY: the stack is ours, writable, and given to nobody else; `body` takes what `order` points to.
    let process = unsafe { libc::clone(body, stack.end.0 as *mut c_void, libc::CLONE_VM, order) };
    let mut status = -1;
    // SAFETY: room for its status.
    process > 0 && unsafe { libc::waitpid(process, &raw mut status, libc::__WALL) } == process && status == 0
}

/// The process in between: its child is nobody's when it has ended.
extern "C" fn start_outside(order: *mut c_void) -> c_int {
    // SAFETY: it lies on a stack that is never left (`begin`).
    let stack = unsafe { (*order.cast::<Order>()).stack };
    // SAFETY: as in `clone`. It is not waited for.
    let process = unsafe { libc::clone(run, stack.end.0 as *mut c_void, libc::CLONE_VM, order) };
    c_int::from(process <= 0)
}

extern "C" fn run(order: *mut c_void) -> c_int {
    // SAFETY: as in `start_outside`.
    let &Order { body, thread, .. } = unsafe { &*order.cast::<Order>() };
    body(thread);
    0
}
