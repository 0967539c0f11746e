//! `syscall`: system calls by number.
//!
//! A number whose function is interposed here goes to that function: a program must not get by number what it does not get by
//! name. All others are made at once, with their six arguments, by a few instructions that use no stack: a call that forks
//! returns twice through them, or on another stack.
//!
//! A library behind this one may wrap the same functions, and make its calls by number (gperftools' malloc): what it asks for was looked
//! at on the way to it, and looked at again it would go there for ever. So calls of that library's own code go to the kernel.
//!
//! Descriptors that are none of ours go to the kernel as well: libc's functions of these names may be points of
//! cancellation, and a system call by number is none.
//!
//! Locking: none.

use super::{below, descriptors, memory, process, set_errno, shared};
use crate::nodes::{self, Entry};
use core::arch::naked_asm;
use core::ffi::{c_int, c_long, c_uint};

/// Which numbers are looked at, a bit each.
#[cfg_attr(test, allow(dead_code))]
static LOOKED_AT: [u64; BEYOND / 64] = {
    let mut bits = [0; BEYOND / 64];
    let mut next = 0;
    while next < NUMBERS.len() {
        let number = NUMBERS[next] as usize;
        bits[number / 64] |= 1 << (number % 64);
        next += 1;
    }
    bits
};

/// No number from here on is looked at.
const BEYOND: usize = 512;

/// libc's function of this name.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
#[unsafe(naked)]
unsafe extern "C" fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long {
    naked_asm!(
        "cmp rdi, {beyond}",
        "jae {call}",
        "lea rax, [rip + {looked_at}]",
        "bt qword ptr [rax], rdi",
        "jnc {call}",
        // The last argument again, and behind it who calls; the stack is aligned for a call.
        "mov rax, [rsp]",
        "mov r10, [rsp + 8]",
        "sub rsp, 8",
        "push rax",
        "push r10",
        "call {by_name}",
        "add rsp, 24",
        "ret",
        beyond = const BEYOND,
        looked_at = sym LOOKED_AT,
        by_name = sym by_name,
        call = sym call,
    )
}

/// Makes a system call: -1 and errno, or the result.
///
/// # Safety
/// As the kernel's manual says of that call.
#[unsafe(naked)]
pub unsafe extern "C" fn call(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long {
    naked_asm!(
        "mov rax, rdi",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov rdx, rcx",
        "mov r10, r8",
        "mov r8, r9",
        "mov r9, [rsp + 8]",
        "syscall",
        "cmp rax, -4095",
        "jae 2f",
        "ret",
        "2:",
        "mov rdi, rax",
        "jmp {failed}",
        failed = sym failed,
    )
}

extern "C" fn failed(result: c_long) -> c_long {
    set_errno(-result as c_int);
    -1
}

/// [`NUMBERS`], and the functions that they go to.
macro_rules! by_name {
    (($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident) $($number:ident => $call:expr;)*) => {
        const NUMBERS: &[c_long] = &[$(libc::$number),*];

        #[allow(clippy::too_many_arguments, reason = "a system call's, and who makes it")]
        unsafe extern "C" fn by_name(
            n: c_long, $a: usize, $b: usize, $c: usize, $d: usize, $e: usize, $f: usize, caller: usize,
        ) -> c_long {
            match n {
                _ if is_the_kernels(n, $a) || below::contains(caller) => {}
                // SAFETY: the program's own arguments, which the kernel takes in the order of libc's function.
                $(libc::$number => return unsafe { $call } as c_long,)*
                _ => {}
            }
            // SAFETY: the program's own arguments.
            unsafe { call(n, $a, $b, $c, $d, $e, $f) }
        }
    };
}

by_name! { (a b c d e f)
    SYS_mmap => memory::mmap(a as _, b, c as c_int, d as c_int, e as c_int, f as _);
    SYS_munmap => memory::munmap(a as _, b);
    SYS_mprotect => memory::mprotect(a as _, b, c as c_int);
    SYS_pkey_mprotect => memory::pkey_mprotect(a as _, b, c as c_int, d as c_int);
    SYS_mremap => memory::mremap(a as _, b, c, d as c_int, e as _);
    SYS_madvise => memory::madvise(a as _, b, c as c_int);
    SYS_process_madvise => memory::process_madvise(a as c_int, b as _, c, d as c_int, e as c_uint);
    SYS_shmat => memory::shmat(a as c_int, b as _, c as c_int);
    SYS_mlock => memory::mlock(a as _, b);
    SYS_mlock2 => memory::mlock2(a as _, b, c as c_uint);
    SYS_mlockall => memory::mlockall(a as c_int);
    SYS_lseek => shared::lseek(a as c_int, b as _, c as c_int);
    SYS_close => descriptors::close(a as c_int);
    SYS_close_range => descriptors::close_range(a as c_uint, b as c_uint, c as c_int);
    SYS_dup => descriptors::dup(a as c_int);
    SYS_dup2 => descriptors::dup2(a as c_int, b as c_int);
    SYS_dup3 => descriptors::dup3(a as c_int, b as c_int, c as c_int);
    SYS_fcntl => descriptors::fcntl(a as c_int, b as c_int, c);
    SYS_ioctl => descriptors::ioctl(a as c_int, b, c as _);
    SYS_prctl => process::prctl(a as c_int, b, c, d, e);
    SYS_seccomp => process::seccomp(a, b, c);
    SYS_exit_group => leave(a as c_int);
}

/// # Safety
/// As for `_exit`.
unsafe fn leave(status: c_int) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { process::_exit(status) }
}

/// Whether a call takes one descriptor, and that is none of ours.
fn is_the_kernels(number: c_long, fd: usize) -> bool {
    let takes_one = matches!(number, libc::SYS_close | libc::SYS_dup | libc::SYS_fcntl | libc::SYS_lseek);
    takes_one && nodes::entry(fd as c_int) == Entry::Foreign
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libc_calls::errno;

    #[test]
    fn six_arguments_arrive_and_errors_are_errnos() {
        // SAFETY: a fresh mapping, of a file that is none, in a place that the kernel chooses.
        let at = unsafe { syscall(libc::SYS_mmap, 0, 8192, 3, 0x22, usize::MAX, 0) };
        assert!(at > 0);
        set_errno(77);
        // SAFETY: the mapping of this test; an odd offset is refused, so that the sixth argument is seen.
        let refused = unsafe { call(libc::SYS_mmap, at as usize, 4096, 3, 0x22, usize::MAX, 5) };
        assert_eq!((refused, errno()), (-1, libc::EINVAL));
        set_errno(77);
        // SAFETY: nothing is changed.
        let pid = unsafe { syscall(libc::SYS_getpid, 0, 0, 0, 0, 0, 0) };
        assert_eq!((pid as u32, errno()), (std::process::id(), 77));
        // SAFETY: there are no such calls.
        let none = [511, 512, 1 << 20, -1].map(|number| unsafe { syscall(number, 0, 0, 0, 0, 0, 0) });
        assert_eq!((none, errno()), ([-1; 4], libc::ENOSYS));
        // SAFETY: the mapping of this test.
        assert_eq!(unsafe { syscall(libc::SYS_munmap, at as usize, 8192, 0, 0, 0, 0) }, 0);
    }
}
