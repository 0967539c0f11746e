//! The kernel, by instruction: every `unsafe` of this crate is below here.
//!
//! System calls are made by the `syscall` instruction, never through libc's wrappers: our own preload library
//! interposes those (a `mmap` of the arena would recurse into it), and they write `errno`, which is
//! thread-local (a fault thread must not touch thread-locals: see the crate header).
//!
//! * [`linux`]: all of it as one [`Kernel`](crate::kernel::Kernel)
//! * [`uffd`]: the two userfaultfds and their ioctls
//! * [`access`]: bytes at addresses that may vanish, with a fixup for SIGSEGV and SIGBUS
//! * [`mem`]: mmap, madvise, mincore of arenas and of the program's pages
//! * [`maps`]: what lies at an address (PROCMAP_QUERY, or the text of maps)
//! * [`pagemap`]: huge pages and swapped ones (PAGEMAP_SCAN, or the words of pagemap)
//! * [`descriptor`]: the descriptors of all these: high numbers, and opened anew where a program closed them
//! * [`homes`]: whose bytes each frame of VRAM has, for a process that shares this memory
//! * [`raised`]: events that we raise ourselves, to keep the kernel refusing
//! * [`task`]: what a thread does to itself (signal mask, CPU, poll)
//! * [`words`]: words that processes share, and locks that end with a process
//!
//! Soundness: the program's memory, and the arenas, are bytes outside of Rust's abstract machine. No Rust
//! reference to them is ever formed; they are named by address (`u64`) and reached by assembly or by the kernel.

pub(crate) mod access;
pub(crate) mod descriptor;
pub(crate) mod homes;
pub(crate) mod linux;
pub(crate) mod maps;
pub(crate) mod mem;
pub(crate) mod pagemap;
pub(crate) mod raised;
pub(crate) mod task;
pub(crate) mod uffd;
pub(crate) mod words;

pub(crate) use crate::kernel::Errno;
use descriptor::Fd;

/// Opens a file read-only (or for both with `write`); `path` ends in NUL.
pub(crate) fn open(path: &core::ffi::CStr, access: Access) -> Result<Fd, Errno> {
    const AT_FDCWD: usize = -100isize as usize;
    let flags = libc::O_CLOEXEC as usize | if access == Access::ReadWrite { libc::O_RDWR as usize } else { 0 };
    // SAFETY: the path is a NUL-terminated string that outlives the call.
    check(unsafe { call(libc::SYS_openat, [AT_FDCWD, path.as_ptr() as usize, flags, 0, 0, 0]) })
        .map(|fd| Fd::new(fd as i32))
}

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// O_RDONLY.
    Read,
    /// O_RDWR.
    ReadWrite,
}

/// A system call's result as the kernel gives it: a negative errno or a value.
fn check(ret: isize) -> Result<usize, Errno> {
    if (-4095..0).contains(&ret) { Err(Errno(-ret as i32)) } else { Ok(ret as usize) }
}

/// Reads a file at an offset; gives how many bytes there were.
fn read_at(file: &Fd, into: &mut [u8], offset: usize) -> Result<usize, Errno> {
    let args = [file.raw() as usize, into.as_mut_ptr() as usize, into.len(), offset, 0, 0];
    // SAFETY: the kernel writes to the slice, at most its length.
    check(unsafe { call(libc::SYS_pread64, args) })
}

/// An ioctl with a struct argument.
///
/// # Safety
/// `arg` must be the struct that `request` of `fd` takes, and what it points to must be valid for it.
unsafe fn ioctl<T>(fd: &Fd, request: u32, arg: &mut T) -> Result<usize, Errno> {
    let arg = core::ptr::from_mut(arg) as usize;
    // SAFETY: the caller vouches for the struct.
    check(unsafe { call(libc::SYS_ioctl, [fd.raw() as usize, request as usize, arg, 0, 0, 0]) })
}

/// A raw system call.
///
/// # Safety
/// As the system call says.
#[inline]
unsafe fn call(number: i64, a: [usize; 6]) -> isize {
    let ret: isize;
    // SAFETY: the caller vouches for the call; the kernel changes rax, rcx and r11 only.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => ret,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        )
    };
    ret
}
