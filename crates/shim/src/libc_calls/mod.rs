//! The interposed functions, and what else needs libc itself.
//!
//! | module | functions |
//! |---|---|
//! | `open` | open and its kin, fopen, opendir, scandir |
//! | `descriptors` | close, dup, fcntl, ioctl and their kin |
//! | `stat` | stat, statx and their kin |
//! | `statfs` | statfs, fstatfs |
//! | `paths` | access, readlink, realpath, chdir, getcwd |
//! | `changes` | unlink, rename, chmod, mkdir and their kin, which the device's files refuse |
//! | `buffers` | mmap of a buffer |
//! | `passed`, `shared` | descriptors that ioctls give out; lseek of a dma-buf |
//! | `loading`, `objects` | dlopen, dlmopen, dlsym; the tables of a loaded library |
//! | `received` | recvmsg: descriptors of a node that come from elsewhere |
//! | `memory` | mmap of a node; mprotect, mremap, mlock |
//! | `actions` | what the program wants done with SIGSEGV and SIGBUS |
//! | `pieces` | mremap of what the kernel has in pieces |
//! | `signals` | sigaction and signal; blocking the program's signals while we work |
//! | `raw` | syscall |
//! | `below` | libraries that wrap the same functions |
//! | `pci_barrier`, `stores` | the page whose writes are dropped |
//! | `polls` | poll and ppoll, of dma-bufs and nodes |
//! | `events` | read, select, epoll_ctl of a node |
//! | `peek` | strings of the program that may be no memory |
//! | `writes` | write and its kin, of files of sysfs |
//! | `wait` | the one ioctl that waits long |
//! | `process` | load, end, fork |
//! | `programs` | execve, posix_spawn and their kin |
//! | `threads` | pthread_create |
//! | `real` | the functions behind all of these |
//! | `maps` | which memory of libc and this library must stay where it is |
//!
//! A call that is not ours costs one comparison of the path's first bytes, or one load from the table of descriptors.
//! libc's own calls of these functions are invisible here (fopen does not call our open): so the outer functions are
//! interposed too.
#![allow(unsafe_code)]

mod actions;
mod below;
mod buffers;
mod changes;
mod descriptors;
mod events;
mod loading;
pub mod maps;
mod memory;
mod objects;
mod open;
pub mod outside;
mod passed;
mod paths;
pub mod pci_barrier;
mod peek;
mod pieces;
mod polls;
mod process;
mod programs;
mod raw;
mod real;
mod received;
mod shared;
pub mod signals;
mod stat;
mod statfs;
mod stores;
pub mod threads;
mod wait;
mod writes;

use crate::heap;
use crate::view::{self, Look};
use core::ffi::{CStr, c_char, c_int};
use machine::live::high_numbers;
use peek::c_string;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use signals::Held;

pub use process::{end_in_main, end_with_the_last_thread, prepare as prepare_process};
pub use real::pthread_create;

/// Defines exported functions. In the unit tests' program they are ordinary functions: it keeps its own libc.
macro_rules! interpose {
    ($($(#[$attribute:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => { $(
        $(#[$attribute])*
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[cfg_attr(test, allow(dead_code))]
        pub(super) unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? $body
    )* };
}
use interpose;

/// A variable of the environment, as text.
pub fn env(name: &str) -> Option<String> {
    env_bytes(name).map(|value| String::from_utf8_lossy(&value).into_owned())
}

/// A variable of the environment, as it is: a path need not be text.
pub fn env_bytes(name: &str) -> Option<Vec<u8>> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: a C string; the program does not change its environment in another thread meanwhile (libc's own rule).
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: getenv gives a C string that lives as long as the variable is not changed; it is copied at once.
    let value = unsafe { CStr::from_ptr(value) };
    Some(value.to_bytes().to_vec())
}

/// The same file under a high number, out of the program's way: 600, or what a lower limit allows.
pub fn raise(fd: OwnedFd) -> OwnedFd {
    duplicate_high(fd.as_fd()).unwrap_or(fd)
}

/// A duplicate with a number that programs do not reckon with.
fn duplicate_high(fd: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1024);
    let duplicate = |floor: u64| rustix::io::fcntl_dupfd_cloexec(fd, floor as i32);
    duplicate(high_numbers(limit)).or_else(|_| duplicate(limit.min(1024) / 2))
}

/// One line on stderr, by a raw write: no stdio, no lock.
pub fn complain(text: &str) {
    let mut line = [0u8; 512];
    let pieces = b"pontoon: ".iter().chain(text.as_bytes()).take(line.len() - 1).chain(b"\n");
    let length = pieces.zip(&mut line).map(|(from, to)| *to = *from).count();
    let _ = signals::within_file_limit(|| rustix::io::write(rustix::stdio::stderr(), &line[..length]));
}

/// From now on libc's malloc gives no memory back to the kernel: it unmaps by calls of its own, which no wrapper sees, and where pages are
/// copied their addresses must not come to be another mapping's meanwhile. At load: it takes malloc's lock, which who opens the device in a
/// signal's handler may hold.
pub fn keep_freed_memory() {
    for (option, value) in [(libc::M_MMAP_MAX, 0), (libc::M_TRIM_THRESHOLD, -1)] {
        // SAFETY: it changes what malloc does later; any value is a right one.
        unsafe { libc::mallopt(option, value) };
    }
}

/// Closes a descriptor that no code of this library owns any more.
pub fn close_quietly(fd: c_int) {
    // SAFETY: the fork child's copy of a descriptor of the parent's machine: nobody here uses it.
    unsafe { rustix::io::close(fd) }
}

pub fn errno() -> c_int {
    // SAFETY: no precondition.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: libc's errno of this thread.
    unsafe { *errno }
}

pub fn set_errno(value: c_int) {
    // SAFETY: no precondition.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: libc's errno of this thread.
    unsafe { *errno = value }
}

/// Sets errno and gives the -1 to return.
fn fail(errno: c_int) -> c_int {
    set_errno(errno);
    -1
}

/// Does what is ours: with the program's signals blocked, on a stack that never migrates, and with errno as it was.
/// Nothing of ours that takes a lock, allocates or frees runs on a thread of the program without this.
pub fn inside<R>(body: impl FnOnce(&Held) -> R) -> R {
    let before = errno();
    let signals = signals::hold();
    let result = heap::on_own_stack(|| body(&signals));
    drop(signals);
    set_errno(before);
    result
}

/// Where a path leads, for functions that keep errno where nothing is ours.
///
/// # Safety
/// As for [`c_string`]: the program's own path.
unsafe fn look(dirfd: c_int, path: *const c_char) -> Look {
    // SAFETY: the caller's contract.
    let Some(bytes) = (unsafe { c_string(path) }) else { return Look::Foreign };
    if !view::may_concern(dirfd, bytes) {
        return Look::Foreign;
    }
    inside(|_| view::look(dirfd, bytes))
}
