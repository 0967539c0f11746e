//! dma-bufs: descriptors of a buffer's own memory, which any process maps, and makes a buffer of.
//!
//! The machine keeps no descriptor of a buffer's memory, so one is had from the mapping (`/proc/self/map_files`, which needs
//! CAP_CHECKPOINT_RESTORE or root). What it shows is known by name and seal: nobody changes its length any more.
//!
//! Locking: none.
//!
//! Upstream: `dma-buf.c` (`dma_buf_fops`), `drm_gem_prime_mmap`.

use super::passed::{Process, errno_of};
use super::{fail, inside, interpose, real};
use crate::device::{self, File, Passed};
use crate::minor::{Kind, Minor};
use crate::nodes::{self, Entry};
use crate::session;
use core::ffi::c_int;
use libc::{EINVAL, off64_t};
use machine::{BytesId, Errno, SharedBytes};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, SealFlags};
use std::sync::Arc;
use units::HostVa;
use xe_uapi::drm::PrimeFlags;

interpose! {
    fn lseek(fd: c_int, offset: off64_t, from: c_int) -> off64_t {
        if nodes::entry(fd) == Entry::Buffer {
            return seek(fd, offset, from);
        }
        // SAFETY: the program's own arguments.
        unsafe { real::lseek64(fd, offset, from) }
    }
    fn lseek64(fd: c_int, offset: off64_t, from: c_int) -> off64_t {
        // SAFETY: the program's own arguments; the two forms are one where off_t has 64 bits.
        unsafe { lseek(fd, offset, from) }
    }
}

/// Upstream: `dma_buf_llseek`: a way to learn the size, and nothing else.
fn seek(fd: c_int, offset: off64_t, from: c_int) -> off64_t {
    if offset != 0 || !matches!(from, libc::SEEK_SET | libc::SEEK_END) {
        return fail(EINVAL).into();
    }
    // SAFETY: the program's own descriptor.
    unsafe { real::lseek64(fd, 0, from) }
}

/// A new descriptor of the memory that is mapped at `at`.
pub fn open(at: HostVa, bytes: u64, how: PrimeFlags) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/map_files/{:x}-{:x}", at.0, at.0 + bytes);
    let file = rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(errno_of)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).map_err(errno_of)?;
    let access = if how.contains(PrimeFlags::RDWR) { OFlags::RDWR } else { OFlags::RDONLY };
    let close = if how.contains(PrimeFlags::CLOEXEC) { OFlags::CLOEXEC } else { OFlags::empty() };
    rustix::fs::open(&path, access | close, Mode::empty()).map_err(errno_of)
}

/// What a descriptor shows. `EBADF`: it is none; `EINVAL`: no buffer.
pub fn shown(fd: c_int) -> Result<SharedBytes, Errno> {
    let path = format!("/proc/self/fd/{fd}");
    let name = std::fs::read_link(&path).map_err(|_| Errno::EBADF)?;
    let label = device::label_in(name.as_os_str().as_encoded_bytes()).ok_or(Errno::EINVAL)?;
    let file = reopen(fd)?;
    let seals = rustix::fs::fcntl_get_seals(&file).map_err(errno_of)?;
    if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
        return Err(Errno::EINVAL);
    }
    let stat = rustix::fs::fstat(&file).map_err(errno_of)?;
    Ok(SharedBytes { id: BytesId { device: stat.st_dev, inode: stat.st_ino }, bytes: stat.st_size as u64, label })
}

/// Whether a descriptor shows a buffer.
pub fn is_shown(fd: c_int) -> bool {
    inside(|_| shown(fd)).is_ok()
}

/// The same memory, open for reading and writing: a device does both, whatever the descriptor allows a CPU.
pub fn reopen(fd: c_int) -> Result<OwnedFd, Errno> {
    rustix::fs::open(format!("/proc/self/fd/{fd}"), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(errno_of)
}

/// Whether a mapping of `length` bytes at `offset` is within a dma-buf.
pub fn may_map(fd: c_int, length: usize, offset: off64_t) -> bool {
    let size = inside(|_| shown(fd)).map_or(0, |shown| shown.bytes);
    let end = u64::try_from(offset).ok().and_then(|offset| offset.checked_add(length as u64));
    end.and_then(|end| end.checked_next_multiple_of(units::SZ_4K)).is_some_and(|end| end <= size)
}

/// What a dma-buf stands for, with a file of this process's machine. One that came from elsewhere gets one here: from
/// another process, from the parent, or by a way that the table of descriptors does not see.
pub fn find(fd: c_int, signals: &super::signals::Held) -> Result<(Passed, Arc<dyn File>, u32), device::Errno> {
    let epoch = session::epoch();
    if let Some((passed, file)) = nodes::passed(fd, epoch).filter(|_| session::is_alive(epoch)) {
        return Ok((passed, file, epoch));
    }
    shown(fd).map_err(|errno| device::Errno(errno.0))?;
    let (file, epoch) = session::open(Minor { device: 0, kind: Kind::Render })?;
    let passed = file.adopt(fd, &Process { signals, file: &file, epoch })?;
    nodes::give_buffer(fd, passed.clone(), file.clone(), epoch);
    Ok((passed, file, epoch))
}
