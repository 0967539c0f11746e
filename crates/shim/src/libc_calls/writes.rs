//! write and its kin, of files of sysfs and debugfs: what the kernel would refuse is refused, and the old value stays.
//!
//! libc's own writes, of its streams, are not seen here. So what a stream has in its buffer is judged where it is flushed or closed,
//! and libc then flushes it to nowhere, or to where nothing can be written, so that the stream learns of its error. Such a stream
//! keeps its buffer, whatever the program wants: tee wants none, and bash writes lines. A stream that the end of the process
//! flushes, and dprintf, are not seen (`docs/coverage.md`).

use super::{errno, events, fail, inside, interpose, peek, real, set_errno};
use crate::nodes::{self, Entry};
use crate::view::{self, Written};
use crate::{fdinfo, session};
use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicBool, Ordering};
use libc::{EFAULT, EINVAL, EOF, FILE, O_CLOEXEC, iovec, off64_t, size_t, ssize_t};
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;

/// What sysfs takes at once.
const MOST: usize = 4096;

interpose! {
    fn write(fd: c_int, bytes: *const c_void, count: size_t) -> ssize_t {
        if let Some(result) = events::write_to(fd) {
            return result;
        }
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
        if offset >= 0 && let Some(result) = events::write_to(fd) {
            return result;
        }
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
        if let Some(result) = events::write_to(fd) {
            return result;
        }
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
    fn ftruncate(fd: c_int, length: off64_t) -> c_int {
        match nodes::entry(fd) {
            // A value has the length that it has.
            Entry::Checked if length >= 0 && is_checked(fd) => 0,
            Entry::Node(_) | Entry::Buffer if events::write_to(fd).is_some() => fail(EINVAL),
            // SAFETY: the program's own arguments.
            _ => unsafe { real::ftruncate64(fd, length) },
        }
    }
    fn ftruncate64(fd: c_int, length: off64_t) -> c_int {
        // SAFETY: the program's own arguments; the two forms are one where off_t has 64 bits.
        unsafe { ftruncate(fd, length) }
    }
    fn fflush(file: *mut FILE) -> c_int {
        // SAFETY: the program's own stream, or none.
        if !file.is_null() && nodes::entry(unsafe { libc::fileno(file) }) == Entry::Checked {
            // SAFETY: the program's own stream.
            if let Some(Err(errno)) = unsafe { flush(file) } {
                set_errno(errno);
                return EOF;
            }
        }
        // SAFETY: the program's own argument.
        unsafe { real::fflush(file) }
    }
    fn setvbuf(file: *mut FILE, buffer: *mut c_char, how: c_int, size: size_t) -> c_int {
        // SAFETY: the program's own stream.
        if how != libc::_IOFBF && nodes::entry(unsafe { libc::fileno(file) }) == Entry::Checked {
            return 0;
        }
        // SAFETY: the program's own arguments.
        unsafe { real::setvbuf(file, buffer, how, size) }
    }
}

/// Whether the standard output would write lines, and does not for as long as it is a file that is checked.
static HOLDS_LINES: AtomicBool = AtomicBool::new(false);

/// The standard output is another file from now on: a shell's, whose stream goes on with it.
pub fn output_changed() {
    let is_checked = nodes::entry(libc::STDOUT_FILENO) == Entry::Checked;
    // SAFETY: libc's own stream.
    let stream = unsafe { stdout };
    let set = |how| {
        // SAFETY: libc's own stream, which keeps its buffer.
        unsafe { real::setvbuf(stream, core::ptr::null_mut(), how, libc::BUFSIZ as size_t) };
    };
    // SAFETY: libc's own stream.
    if is_checked && unsafe { __flbf(stream) } != 0 {
        HOLDS_LINES.store(true, Ordering::Relaxed);
        set(libc::_IOFBF);
    } else if !is_checked && HOLDS_LINES.swap(false, Ordering::Relaxed) {
        set(libc::_IOLBF);
    }
}

unsafe extern "C" {
    static stdout: *mut FILE;
    fn __flbf(file: *mut FILE) -> c_int;
    fn __fpending(file: *mut FILE) -> size_t;
    fn flockfile(file: *mut FILE);
    fn funlockfile(file: *mut FILE);
}

/// The head of a stream, as libc's headers have it for all programs.
#[repr(C)]
struct Stream {
    flags: c_int,
    read: [*const u8; 3],
    first: *const u8,
    end: *const u8,
}

/// Judges what a stream has in its buffer as the write of a value, and empties the buffer. `None` where there is nothing to judge;
/// the errno where it was refused.
///
/// # Safety
/// A stream of the program, still open.
pub unsafe fn flush(file: *mut FILE) -> Option<Result<(), c_int>> {
    // SAFETY: the caller's contract.
    unsafe { flockfile(file) };
    // SAFETY: the caller's contract; it is locked.
    let result = unsafe { flush_locked(file) };
    // SAFETY: locked above.
    unsafe { funlockfile(file) };
    result
}

/// # Safety
/// As for [`flush`]; the stream is locked.
unsafe fn flush_locked(file: *mut FILE) -> Option<Result<(), c_int>> {
    // SAFETY: the caller's contract.
    let fd = unsafe { libc::fileno(file) };
    // SAFETY: the caller's contract.
    let count = unsafe { __fpending(file) };
    // SAFETY: every stream of libc begins so.
    let stream = unsafe { &*file.cast::<Stream>() };
    if count == 0 || stream.end as usize - stream.first as usize != count {
        return None;
    }
    // SAFETY: the bytes that wait to be written; nobody changes them while the stream is locked.
    let text = unsafe { core::slice::from_raw_parts(stream.first, count.min(MOST)) };
    let judged = judge(fd, text)?;
    inside(|_| {
        let keeps = if judged.is_ok() { OFlags::WRONLY } else { OFlags::RDONLY };
        let nowhere = rustix::fs::open("/dev/null", keeps | OFlags::CLOEXEC, Mode::empty()).ok()?;
        // SAFETY: the program keeps its descriptor open for the time of the call.
        let own = unsafe { BorrowedFd::borrow_raw(fd) };
        let closes = rustix::io::fcntl_getfd(own).ok()?.contains(FdFlags::CLOEXEC);
        let aside = rustix::io::fcntl_dupfd_cloexec(own, 0).ok()?;
        let stands = |file: &OwnedFd| {
            // SAFETY: the program's descriptor is another file for the time of the call.
            unsafe { real::dup3(file.as_raw_fd(), fd, if closes { O_CLOEXEC } else { 0 }) }
        };
        stands(&nowhere);
        // SAFETY: the caller's contract.
        unsafe { real::fflush(file) };
        stands(&aside);
        Some(judged)
    })
}

/// What a write of a value to a file says that is checked; `None` where it is another file by now.
fn judge(fd: c_int, text: &[u8]) -> Option<Result<(), c_int>> {
    let before = errno();
    let written = checked(fd, text)?;
    let refused = errno();
    set_errno(before);
    Some(if written < 0 { Err(refused) } else { Ok(()) })
}

/// Whether a descriptor is a file that is checked, and not another by now.
fn is_checked(fd: c_int) -> bool {
    inside(|_| nodes::inode(fd).is_some_and(|(dev, ino)| view::special(dev, ino).is_some()))
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
            Written::Order(gt, what) => fdinfo::order(gt, what),
            Written::Nothing => Ok(()),
        }))
    })?;
    Some(match result {
        Ok(()) => text.len() as ssize_t,
        Err(errno) => fail(errno) as ssize_t,
    })
}
