//! Load, end and fork of the process.

use super::{interpose, real, signals};
use crate::session;
use core::ffi::c_int;

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
