//! write and its kin, of files of sysfs and debugfs: what the kernel would refuse is refused, and the old value stays.
//!
//! libc's own writes, of its streams, are not seen here (`docs/coverage.md`).

use super::{fail, inside, interpose, peek, real};
use crate::nodes::{self, Entry};
use crate::session;
use crate::view::{self, Written};
use core::ffi::{c_int, c_void};
use libc::{EFAULT, iovec, off64_t, size_t, ssize_t};
use rustix::fd::BorrowedFd;

/// What sysfs takes at once.
const MOST: usize = 4096;

interpose! {
    fn write(fd: c_int, bytes: *const c_void, count: size_t) -> ssize_t {
        if count > 0 && nodes::entry(fd) == Entry::Checked {
            // SAFETY: the program's own bytes, which it leaves alone for the time of the call.
            match unsafe { peek::array(bytes.cast(), count.min(MOST)) } {
                None => return fail(EFAULT) as ssize_t,
                Some(text) => if let Some(result) = checked(fd, text) { return result },
            }
        }
        // SAFETY: the program's own arguments.
        unsafe { real::write(fd, bytes, count) }
    }
    fn pwrite64(fd: c_int, bytes: *const c_void, count: size_t, offset: off64_t) -> ssize_t {
        if nodes::entry(fd) == Entry::Checked && offset >= 0 {
            // SAFETY: the program's own arguments; sysfs knows no offset.
            return unsafe { write(fd, bytes, count) };
        }
        // SAFETY: the program's own arguments.
        unsafe { real::pwrite64(fd, bytes, count, offset) }
    }
    fn pwrite(fd: c_int, bytes: *const c_void, count: size_t, offset: off64_t) -> ssize_t {
        // SAFETY: the program's own arguments; the two forms are one where off_t has 64 bits.
        unsafe { pwrite64(fd, bytes, count, offset) }
    }
    fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
        if nodes::entry(fd) == Entry::Checked && (1..=1024).contains(&count) {
            // SAFETY: the program's own array, which it leaves alone for the time of the call.
            let Some(parts) = (unsafe { peek::array(parts, count as usize) }) else { return fail(EFAULT) as ssize_t };
            // Each of them is a value of its own to the kernel; one that is empty is none.
            let Some(part) = parts.iter().find(|part| part.iov_len > 0) else { return 0 };
            // SAFETY: the program's own bytes.
            return unsafe { write(fd, part.iov_base, part.iov_len) };
        }
        // SAFETY: the program's own arguments.
        unsafe { real::writev(fd, parts, count) }
    }
}

/// A write to a file that is checked; `None` where it is another file by now.
fn checked(fd: c_int, text: &[u8]) -> Option<ssize_t> {
    let result = inside(|_| {
        // SAFETY: the program keeps its descriptor open for the time of the call.
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        let stat = rustix::fs::fstat(file).ok()?;
        let new = view::written(stat.st_dev, stat.st_ino, text)?;
        Some(new.and_then(|new| match new {
            Written::Value(new) => {
                let put = rustix::io::pwrite(file, new.as_bytes(), 0);
                let put = put.and_then(|_| rustix::fs::ftruncate(file, new.len() as u64));
                session::schedule_changed();
                put.map_err(rustix::io::Errno::raw_os_error)
            }
            Written::Reset(gt) => {
                if let Some(device) = session::running() {
                    device.reset_gt(gt);
                }
                Ok(())
            }
            Written::Nothing => Ok(()),
        }))
    })?;
    Some(match result {
        Ok(()) => text.len() as ssize_t,
        Err(errno) => fail(errno) as ssize_t,
    })
}
