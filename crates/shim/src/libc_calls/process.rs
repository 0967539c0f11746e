//! Load, end and fork of the process.

use super::real::{self, Handler, Symbol};
use super::{below, errno, fail, interpose, raw, signals, threads};
use crate::{heap, session};
use core::ffi::{c_int, c_long, c_void};
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::{mem, ptr};

/// What the first machine of a process needs: handlers for SIGSEGV and SIGBUS. A panic of the machine ends the process:
/// half a driver must not go on moving memory.
pub fn prepare() {
    signals::install();
    std::panic::set_hook(Box::new(|panic| {
        super::complain(&panic.to_string().replace('\n', ": "));
        std::process::abort();
    }));
}

extern "C" fn fork_prepare() {
    session::fork_prepare();
}

extern "C" fn fork_parent() {
    if !session::fork_parent() {
        let own = own_id();
        let _ = FORKS.iter().find(|slot| slot.compare_exchange(own, own | FAILED, SeqCst, SeqCst).is_ok());
    }
}

extern "C" fn fork_child() {
    if !session::fork_child() {
        // Before anything of the program runs that would find zeros in the place of its memory.
        // SAFETY: ends this process.
        unsafe { raw::call(libc::SYS_exit_group, 1, 0, 0, 0, 0, 0) };
    }
    FORKS.iter().for_each(|slot| slot.store(0, SeqCst));
}

/// Threads that are in a call of fork, 0: none.
static FORKS: [AtomicU32; 64] = [const { AtomicU32::new(0) }; 64];
/// The fork of that thread has failed: its child has ended.
const FAILED: u32 = 1 << 31;

fn own_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get() as u32
}

static HANDLES_FORKS: AtomicBool = AtomicBool::new(false);

/// Registers our handlers of fork before anybody else's. libc runs handlers before a fork in reverse order, so ours
/// runs last: the program's handlers may wait for GPU jobs, and the engines still run then. After the fork ours runs
/// first: the program's handlers may touch memory and open the device.
fn handle_forks_first() {
    if !HANDLES_FORKS.swap(true, Ordering::Relaxed) {
        let own = ptr::null_mut();
        // SAFETY: three functions of the right type, which stay loaded as long as the process: no library is named.
        unsafe { real::__register_atfork(Some(fork_prepare), Some(fork_parent), Some(fork_child), own) };
    }
}

/// libc is initialised before the libraries that need it.
extern "C" fn at_load() {
    below::find();
    threads::keep_own();
    handle_forks_first();
    // libc calls what was registered first last. So early, that is after the destructors of all libraries: these run
    // from a function that libc registers later.
    // SAFETY: a function of the right type, which stays loaded as long as the process: no library is named.
    unsafe { real::__cxa_atexit(Some(at_end), ptr::null_mut(), ptr::null_mut()) };
    session::loaded();
}

/// Destructors: of the program first, then ours, then those of libraries that were loaded after us.
extern "C" fn at_exit() {
    session::begin_to_finish();
}

unsafe extern "C" fn at_end(_unused: *mut c_void) {
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

/// Where the system gives no thread for that, the main one does it, when nothing else of it is left: in the last round of
/// the destructors of its thread-specific data.
pub fn end_in_main() {
    let mut key = 0;
    // SAFETY: room for the key, and a function of the right type, which stays loaded as long as the process.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(last_of_main)) } == 0 {
        LAST.store(key, Ordering::Relaxed);
        leave_for_round(1);
    }
}

static LAST: AtomicU32 = AtomicU32::new(0);

fn leave_for_round(round: usize) {
    // SAFETY: a key of ours; its value is a number.
    unsafe { libc::pthread_setspecific(LAST.load(Ordering::Relaxed), ptr::without_provenance(round)) };
}

extern "C" fn last_of_main(round: *mut c_void) {
    const ROUNDS: usize = 4;
    match round.addr() {
        ROUNDS => end_with_the_last_thread(),
        round => leave_for_round(round + 1),
    }
}

/// seccomp(2), for which libc has no function.
///
/// # Safety
/// The program's own arguments.
pub unsafe fn seccomp(operation: usize, flags: usize, argument: usize) -> c_long {
    if matches!(operation as u32, libc::SECCOMP_SET_MODE_STRICT | libc::SECCOMP_SET_MODE_FILTER) {
        session::filtered();
    }
    // SAFETY: the caller's contract.
    unsafe { raw::call(libc::SYS_seccomp, operation, flags, argument, 0, 0, 0) }
}

#[cfg_attr(not(test), used, unsafe(link_section = ".init_array"))]
#[cfg_attr(test, allow(dead_code))]
static AT_LOAD: extern "C" fn() = at_load;

#[cfg_attr(not(test), used, unsafe(link_section = ".fini_array"))]
#[cfg_attr(test, allow(dead_code))]
static AT_EXIT: extern "C" fn() = at_exit;

interpose! {
    // What pthread_atfork calls. Constructors of other libraries come here before our own has run.
    fn __register_atfork(prepare: Handler, parent: Handler, child: Handler, library: *mut c_void) -> c_int {
        handle_forks_first();
        // SAFETY: the program's own arguments.
        unsafe { real::__register_atfork(prepare, parent, child, library) }
    }
    fn fork() -> libc::pid_t {
        let own = own_id();
        let slot = FORKS.iter().find(|slot| slot.compare_exchange(0, own, SeqCst, SeqCst).is_ok());
        // SAFETY: no precondition that the program does not keep.
        let child = unsafe { real::fork() };
        let has_failed = slot.is_some_and(|slot| slot.swap(0, SeqCst) & FAILED != 0);
        if child <= 0 || !has_failed {
            return child;
        }
        // SAFETY: nothing is wanted of its status. A signal is waited out; somebody else may have waited for it.
        while unsafe { libc::waitpid(child, ptr::null_mut(), libc::__WALL) } < 0 && errno() == libc::EINTR {}
        fail(libc::EAGAIN)
    }
    fn prctl(option: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int {
        if option == libc::PR_SET_SECCOMP {
            session::filtered();
        }
        // SAFETY: the program's own arguments; one that was not given is not looked at by this option.
        unsafe { real::prctl(option, a, b, c, d) }
    }
    fn _exit(status: c_int) -> ! {
        session::finish();
        // SAFETY: the program's own argument.
        unsafe { real::_exit(status) }
    }
    #[allow(non_snake_case)]
    fn _Exit(status: c_int) -> ! {
        // SAFETY: the program's own argument.
        unsafe { _exit(status) }
    }
}
