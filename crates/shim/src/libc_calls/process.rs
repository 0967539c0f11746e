//! Load, end and fork of the process.

use super::real::{self, Symbol};
use super::{interpose, signals};
use crate::{heap, session};
use core::ffi::{c_int, c_void};
use core::mem;

/// What the first machine of a process needs: handlers for SIGSEGV and SIGBUS, and to be told of forks. A panic of the
/// machine ends the process: half a driver must not go on moving memory.
pub fn prepare() {
    signals::install();
    // SAFETY: three functions of the right type, which stay loaded as long as the process.
    unsafe { libc::pthread_atfork(Some(fork_prepare), Some(fork_parent), Some(fork_child)) };
    std::panic::set_hook(Box::new(|panic| {
        super::complain(&panic.to_string().replace('\n', ": "));
        std::process::abort();
    }));
}

extern "C" fn fork_prepare() {
    session::fork_prepare();
}

extern "C" fn fork_parent() {
    session::fork_parent();
}

extern "C" fn fork_child() {
    session::fork_child();
}

/// libc is initialised before the libraries that need it.
extern "C" fn at_load() {
    session::loaded();
}

extern "C" fn at_exit() {
    session::finish();
}

static PTHREAD_EXIT: Symbol = Symbol::new(c"pthread_exit");

/// `main` may leave by this, and the process ends when its last thread returns. libc counts threads for that, ours
/// among them, so it would never end: a thread of ours looks instead. libc unwinds this frame, which holds nothing.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
unsafe extern "C-unwind" fn pthread_exit(value: *mut c_void) -> ! {
    if rustix::thread::gettid() == rustix::process::getpid() {
        session::main_leaves();
    }
    // SAFETY: libc's function of this name has this type.
    let leave: unsafe extern "C-unwind" fn(*mut c_void) -> ! = unsafe { mem::transmute(PTHREAD_EXIT.get()) };
    // SAFETY: the program's own argument.
    unsafe { leave(value) }
}

/// Ends the process as libc would, once no thread but ours, and what is left of the main one, is there.
pub fn end_with_the_last_thread() {
    loop {
        sync::time::sleep_ns(20_000_000);
        let threads = std::fs::read_dir("/proc/self/task").map_or(usize::MAX, Iterator::count);
        if threads <= heap::threads_alive() + 1 {
            // SAFETY: this is what libc does when the last thread returns.
            unsafe { libc::exit(0) }
        }
    }
}

#[cfg_attr(not(test), used, unsafe(link_section = ".init_array"))]
#[cfg_attr(test, allow(dead_code))]
static AT_LOAD: extern "C" fn() = at_load;

#[cfg_attr(not(test), used, unsafe(link_section = ".fini_array"))]
#[cfg_attr(test, allow(dead_code))]
static AT_EXIT: extern "C" fn() = at_exit;

interpose! {
    fn _exit(status: c_int) -> ! {
        at_exit();
        // SAFETY: the program's own argument.
        unsafe { real::_exit(status) }
    }
    #[allow(non_snake_case)]
    fn _Exit(status: c_int) -> ! {
        // SAFETY: the program's own argument.
        unsafe { _exit(status) }
    }
}
