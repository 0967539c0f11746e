//! What the process outside (`crate::outside`) asks of the kernel for itself.
//!
//! It keeps the rights that the program had when it began, and the program may give its own up while it can still write to the memory
//! that both have. So it confines itself to calls on what is open, and opens nothing any more.
//!
//! Locking: none.

use super::{errno, raw, real, set_errno};
use crate::nodes::{self, Entry};
use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicI32, Ordering};
use libc::{sock_filter, sock_fprog};
use rustix::fd::{AsRawFd, OwnedFd};

/// What it calls.
const CALLS: [libc::c_long; 31] = [
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_close,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigreturn,
    libc::SYS_setitimer,
    // Helpers for stopped readers: threads of this process, under this filter.
    libc::SYS_clone,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Lets this process call nothing else from now on; other calls are EPERM. False where the kernel has no filters.
pub fn confine() -> bool {
    const ARCH: u32 = 0xc000_003e;
    let step =
        |code: u32, jt: usize, jf: usize, k: u32| sock_filter { code: code as u16, jt: jt as u8, jf: jf as u8, k };
    let load = |at: usize| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at as u32);
    let is = |value: u32, yes: usize, no: usize| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, value);
    let end = |action: u32| step(libc::BPF_RET | libc::BPF_K, 0, 0, action);
    let mut filter = vec![load(4), is(ARCH, 0, CALLS.len() + 1), load(0)];
    filter.extend(CALLS.iter().enumerate().map(|(index, call)| is(*call as u32, CALLS.len() - index, 0)));
    filter.push(end(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    filter.push(end(libc::SECCOMP_RET_ALLOW));
    let mut program = sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let program = (&raw mut program).addr();
    // SAFETY: by number, as libc's function is ours; it changes this process only, which gains no rights by execve anyway.
    let is_bound = unsafe { raw::call(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0) } == 0;
    let set = libc::SECCOMP_SET_MODE_FILTER as usize;
    // SAFETY: a filter that lives until the kernel has copied it.
    is_bound && unsafe { raw::call(libc::SYS_seccomp, set, 0, program, 0, 0, 0) } == 0
}

/// Closes this process' copies of all descriptors but the library's and the machine's: the program may close its own, and somebody
/// may wait for that.
pub fn close_all_but_ours() {
    let is_kept = |fd: &c_int| matches!(nodes::entry(*fd), Entry::Machine | Entry::Library);
    let mut from = 0;
    for kept in nodes::ours_in(0, u32::MAX).filter(is_kept) {
        if kept > from {
            close_range(from, kept - 1);
        }
        from = kept + 1;
    }
    close_range(from, c_int::MAX);
}

/// Closes all of them.
pub fn close_all() {
    close_range(0, c_int::MAX);
}

fn close_range(first: c_int, last: c_int) {
    // SAFETY: copies that no code of this process uses.
    unsafe { raw::call(libc::SYS_close_range, first as usize, last as usize, 0, 0, 0, 0) };
}

/// Whether the program was built with a sanitizer, which stands before libc's functions and is not made for such a process.
pub fn is_instrumented() -> bool {
    // SAFETY: asks for a name that the runtimes of all sanitizers export.
    !unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__sanitizer_print_stack_trace".as_ptr()) }.is_null()
}

/// A fault ends this process: no handler of the program's runs here.
pub fn die_by_faults() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        act(signal, libc::SIG_DFL);
    }
    act(libc::SIGALRM, on_tick as *const () as usize);
    let signals = 1u64 << (libc::SIGALRM - 1);
    let signals = (&raw const signals).addr();
    // SAFETY: a set of 8 bytes, as the kernel has them.
    unsafe { raw::call(libc::SYS_rt_sigprocmask, libc::SIG_UNBLOCK as usize, signals, 0, 8, 0, 0) };
}

fn act(signal: c_int, handler: usize) {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all bits zero is a valid action.
    let of = unsafe { action.assume_init_mut() };
    of.sa_sigaction = handler;
    of.sa_flags = libc::SA_RESTART;
    // SAFETY: a valid action with a handler of the right type; this process has handlers of its own.
    unsafe { real::sigaction(signal, action.as_ptr(), ptr::null_mut()) };
}

/// The thread that `end_with` was told of.
static THREAD: AtomicI32 = AtomicI32::new(-1);

/// From now on this process ends so many seconds after the thread, at the latest; `stat` is its file of that name. 0: it does not.
pub fn end_with(stat: &OwnedFd, seconds: u32) {
    THREAD.store(stat.as_raw_fd(), Ordering::Release);
    tick(seconds);
}

/// Ends this process in so many seconds, whatever it does.
pub fn die_in(seconds: u32) {
    act(libc::SIGALRM, libc::SIG_DFL);
    tick(seconds);
}

fn tick(seconds: u32) {
    let period = libc::timeval { tv_sec: seconds.into(), tv_usec: 0 };
    let timer = libc::itimerval { it_interval: period, it_value: period };
    // SAFETY: a valid timer; nothing is told of the one before.
    unsafe { raw::call(libc::SYS_setitimer, libc::ITIMER_REAL as usize, (&raw const timer).addr(), 0, 0, 0, 0) };
}

/// Ends this process, and nothing is done before.
pub fn leave() -> ! {
    loop {
        // SAFETY: no code of this process runs any more.
        unsafe { raw::call(libc::SYS_exit_group, 1, 0, 0, 0, 0, 0) };
    }
}

/// Whoever is interrupted may hold locks that the program needs as long as it lives.
extern "C" fn on_tick(_: c_int) {
    let (mut byte, before) = (0u8, errno());
    let (fd, into) = (THREAD.load(Ordering::Acquire) as usize, (&raw mut byte).addr());
    // SAFETY: room for one byte.
    if unsafe { raw::call(libc::SYS_pread64, fd, into, 1, 0, 0, 0) } < 0 {
        leave();
    }
    set_errno(before);
}
