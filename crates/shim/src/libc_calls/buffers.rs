//! mmap of a node at a buffer's offset: the program gets a mapping of the buffer's own memory.
//!
//! The machine has that memory mapped; the program's mapping is a duplicate of the machine's, which needs no descriptor
//! and lives as long as the program wants. Of another device's buffer, which was imported, it gets memory that is not there: the
//! kernel itself answers a touch with SIGBUS and a system call with EFAULT.

use super::{inside, real};
use crate::device::Errno;
use crate::session;
use core::ffi::{c_int, c_void};
use libc::{MAP_FAILED, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_SHARED, PROT_NONE, PROT_READ, PROT_WRITE, size_t};
use rustix::fs::{MemfdFlags, memfd_create};
use std::os::fd::AsRawFd;
use units::HostVa;

/// Maps `length` bytes, shared, of what the node `fd` shows at `offset`.
pub fn map(at: *mut c_void, length: size_t, prot: c_int, flags: c_int, fd: c_int, offset: u64) -> Result<usize, Errno> {
    let page = units::SZ_4K as usize;
    if length == 0 {
        return Err(Errno(libc::EINVAL));
    }
    let length = length.checked_next_multiple_of(page).ok_or(Errno(libc::ENOMEM))?;
    let Some(source) = inside(|_| find(fd, offset, length as u64))? else {
        return map_nothing(at, length, prot, flags);
    };
    let fixed = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0;
    if flags & MAP_FIXED_NOREPLACE == MAP_FIXED_NOREPLACE {
        let hold = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
        // SAFETY: nothing that exists is replaced.
        check(unsafe { real::mmap64(at, length, PROT_NONE, hold, -1, 0) })?;
    }
    if fixed && !(at as usize).is_multiple_of(page) {
        return Err(Errno(libc::EINVAL));
    }
    let how = libc::MREMAP_MAYMOVE | if fixed { libc::MREMAP_FIXED } else { 0 };
    // SAFETY: a length of 0 duplicates a shared mapping and leaves it; what is replaced, the program asked to.
    let mapped = check(unsafe { real::mremap(source.0 as *mut c_void, 0, length, how, at) })?;
    // Programs map buffers for writing only and read them all the same, which silicon allows.
    let prot = if prot & PROT_WRITE != 0 { prot | PROT_READ } else { prot };
    // SAFETY: the mapping that was just made, of which nobody knows yet.
    unsafe { real::madvise(mapped as *mut c_void, length, libc::MADV_DOFORK) };
    // SAFETY: the same.
    unsafe { real::mprotect(mapped as *mut c_void, length, prot) };
    Ok(mapped)
}

/// A mapping that lies behind the end of its file.
fn map_nothing(at: *mut c_void, length: size_t, prot: c_int, flags: c_int) -> Result<usize, Errno> {
    let empty = memfd_create("imported", MemfdFlags::CLOEXEC).map_err(|errno| Errno(errno.raw_os_error()))?;
    let flags = MAP_SHARED | flags & (MAP_FIXED | MAP_FIXED_NOREPLACE);
    // SAFETY: what is replaced, the program asked to.
    check(unsafe { real::mmap64(at, length, prot, flags, empty.as_raw_fd(), 0) })
}

fn find(fd: c_int, offset: u64, bytes: u64) -> Result<Option<HostVa>, Errno> {
    session::file(fd)?.0.mmap(offset, bytes)
}

fn check(mapped: *mut c_void) -> Result<usize, Errno> {
    if mapped == MAP_FAILED { Err(Errno(super::errno())) } else { Ok(mapped as usize) }
}
