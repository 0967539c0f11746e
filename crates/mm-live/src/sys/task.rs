//! What a thread of ours does to itself, and how it waits: signal mask, CPU, poll, and the kick that ends a poll.

use super::descriptor::Fd;
use super::{Errno, call, check};
use crate::kernel::Ready;
use units::{HostRange, HostVa, SZ_4K, SZ_64K};

const SIGSET_BYTES: usize = 8;

/// Blocks every signal of this thread but SIGSEGV and SIGBUS, which its own fixups need (a synchronous signal
/// that is blocked kills the process).
pub(crate) fn block_signals() {
    const SIG_SETMASK: usize = 2;
    // libc sends 32 and 33 to every thread it knows, and waits for each, when it cancels one or changes its user.
    let open = [libc::SIGSEGV, libc::SIGBUS, 32, 33].iter().fold(0u64, |set, signal| set | 1 << (signal - 1));
    let mask = !open;
    let args = [SIG_SETMASK, core::ptr::from_ref(&mask) as usize, 0, SIGSET_BYTES, 0, 0];
    // SAFETY: the kernel reads eight bytes of mask.
    let _ = unsafe { call(libc::SYS_rt_sigprocmask, args) };
}

/// CPUs this process may run on, lowest first; at most 64 are looked at.
pub(crate) fn cpus() -> u64 {
    let mut mask = [0u64; 16];
    let args = [0, size_of_val(&mask), mask.as_mut_ptr() as usize, 0, 0, 0];
    // SAFETY: the kernel writes at most the size given.
    match check(unsafe { call(libc::SYS_sched_getaffinity, args) }) {
        Ok(_) if mask[0] != 0 => mask[0],
        _ => 1,
    }
}

/// The CPU that this thread runs on just now.
pub(crate) fn current_cpu() -> u32 {
    let mut cpu = 0u32;
    // SAFETY: the kernel writes four bytes.
    let _ = unsafe { call(libc::SYS_getcpu, [core::ptr::from_mut(&mut cpu) as usize, 0, 0, 0, 0, 0]) };
    cpu
}

/// Keeps this thread on one CPU.
pub(crate) fn pin(cpu: u32) {
    let mask = 1u64 << cpu;
    let args = [0, size_of_val(&mask), core::ptr::from_ref(&mask) as usize, 0, 0, 0];
    // SAFETY: the kernel reads eight bytes of mask.
    let _ = unsafe { call(libc::SYS_sched_setaffinity, args) };
}

/// Where this thread's own state is, which must never migrate: its stack up to the thread control block with
/// static TLS, and the page of its dynamic thread vector. `stack_vma` is the mapping around its stack.
pub(crate) fn own_ranges(stack_vma: HostRange) -> [HostRange; 2] {
    let (fs, dtv): (u64, u64);
    // SAFETY: the x86-64 ABI keeps the thread pointer at fs:0.
    unsafe { core::arch::asm!("mov {}, fs:[0]", out(reg) fs, options(nostack, readonly)) };
    // SAFETY: glibc keeps the dynamic thread vector's address behind it; only its value is used, as a number.
    unsafe { core::arch::asm!("mov {}, fs:[8]", out(reg) dtv, options(nostack, readonly)) };
    // The control block ends a stack's mapping; what follows may be the program's, merged by the kernel.
    let top = HostVa(fs).add(1).align_up(SZ_4K);
    let here = HostVa(core::ptr::from_ref(&fs) as u64);
    // A thread whose control block is elsewhere (the main thread's) keeps what is around its stack pointer.
    let end = if stack_vma.contains(HostVa(fs)) { top } else { here.add(SZ_64K).page() };
    let stack = HostRange::new(stack_vma.start, HostVa(end.0.min(stack_vma.end.0)));
    [stack, HostRange::around(HostVa(dtv), SZ_4K)]
}

/// An address on this thread's stack.
pub(crate) fn stack_address() -> HostVa {
    let here = 0u8;
    HostVa(core::ptr::from_ref(&here) as u64)
}

/// An eventfd that ends a poll.
#[derive(Debug)]
pub(crate) struct Kick(Fd);

impl Kick {
    /// A new one.
    pub fn new() -> Result<Self, Errno> {
        const EFD_FLAGS: usize = (libc::O_CLOEXEC | libc::O_NONBLOCK) as usize;
        // SAFETY: eventfd2 takes values.
        check(unsafe { call(libc::SYS_eventfd2, [0, EFD_FLAGS, 0, 0, 0, 0]) })
            .map(|fd| Self(Fd::new(fd as i32).raised()))
    }

    /// The descriptor's number.
    pub fn raw(&self) -> i32 {
        self.0.raw()
    }

    /// Ends the polls that wait, or the next one.
    pub fn ring(&self) {
        let one = 1u64;
        let args = [self.0.raw() as usize, core::ptr::from_ref(&one) as usize, 8, 0, 0, 0];
        // SAFETY: the kernel reads eight bytes.
        let _ = unsafe { call(libc::SYS_write, args) };
    }

    /// Makes it quiet again.
    pub fn quiet(&self) {
        let mut count = 0u64;
        let args = [self.0.raw() as usize, core::ptr::from_mut(&mut count) as usize, 8, 0, 0, 0];
        // SAFETY: the kernel writes eight bytes.
        let _ = unsafe { call(libc::SYS_read, args) };
    }
}

/// Waits for messages or a kick, at most `timeout_ms` (-1: for ever).
pub(crate) fn poll(uffd: i32, kick: &Kick, timeout_ms: i32) -> Ready {
    let mut fds = [
        libc::pollfd { fd: uffd, events: libc::POLLIN, revents: 0 },
        libc::pollfd { fd: kick.0.raw(), events: libc::POLLIN, revents: 0 },
    ];
    // SAFETY: the kernel reads and writes two pollfds.
    let _ = unsafe { call(libc::SYS_poll, [fds.as_mut_ptr() as usize, 2, timeout_ms as isize as usize, 0, 0, 0]) };
    Ready { messages: fds[0].revents != 0, kicked: fds[1].revents & libc::POLLIN != 0 }
}

/// Whether the system calls of this thread are filtered (seccomp), by a container perhaps.
pub(crate) fn is_filtered() -> bool {
    const FILTER: usize = 2;
    // SAFETY: the call reads and writes no memory.
    check(unsafe { call(libc::SYS_prctl, [libc::PR_GET_SECCOMP as usize, 0, 0, 0, 0, 0]) }) == Ok(FILTER)
}
