//! Events of a node, of which there are none: it is never readable and never writable, and a read waits for ever.
//!
//! To the kernel a node is a memory file, which is always ready and takes any bytes. So read, write, select and epoll_ctl of one are
//! answered here (poll: `polls`), as a device answers that has no display. Of a dma-buf nothing can be read or written. System
//! calls by number, and libc's own calls, see the memory file.
//!
//! Locking: none.
//!
//! Upstream: `drm_read`, `drm_poll`; `xe_driver_fops` and `dma_buf_fops` have no write.

use super::{errno, fail, inside, interpose, peek, real, received, shared};
use crate::nodes::{self, Entry};
use core::ffi::{c_int, c_ulong, c_void};
use core::ptr;
use libc::{EAGAIN, EBADF, EINVAL, O_ACCMODE, O_NONBLOCK, O_RDONLY, O_WRONLY};
use libc::{epoll_event, fd_set, iovec, sigset_t, size_t, ssize_t, timespec, timeval};

interpose! {
    fn read(fd: c_int, bytes: *mut c_void, count: size_t) -> ssize_t {
        // SAFETY: the program's own arguments.
        read_from(fd).unwrap_or_else(|| unsafe { real::read(fd, bytes, count) })
    }
    fn __read_chk(fd: c_int, bytes: *mut c_void, count: size_t, room: size_t) -> ssize_t {
        // SAFETY: the program's own arguments.
        read_from(fd).unwrap_or_else(|| unsafe { real::__read_chk(fd, bytes, count, room) })
    }
    fn readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
        // SAFETY: the program's own arguments.
        read_from(fd).unwrap_or_else(|| unsafe { real::readv(fd, parts, count) })
    }
    fn select(end: c_int, read: *mut fd_set, write: *mut fd_set, other: *mut fd_set, wait: *mut timeval) -> c_int {
        [read, write, other].into_iter().for_each(|set| without_nodes(set, end));
        // SAFETY: the program's own arguments.
        unsafe { real::select(end, read, write, other, wait) }
    }
    fn pselect(end: c_int, read: *mut fd_set, write: *mut fd_set, other: *mut fd_set, wait: *const timespec, mask: *const sigset_t) -> c_int {
        [read, write, other].into_iter().for_each(|set| without_nodes(set, end));
        // SAFETY: the program's own arguments.
        unsafe { real::pselect(end, read, write, other, wait, mask) }
    }
    fn epoll_ctl(set: c_int, what: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
        let before = errno();
        // SAFETY: the program's own arguments.
        let result = unsafe { real::epoll_ctl(set, what, fd, event) };
        // What can never be ready need not be in the set; a memory file may not.
        if result != 0 && errno() == libc::EPERM && is_silent(fd) {
            super::set_errno(before);
            return 0;
        }
        result
    }
}

/// Whether a descriptor is a node's, and not another file's by now.
pub fn is_silent(fd: c_int) -> bool {
    matches!(nodes::entry(fd), Entry::Node(_)) && inside(|_| received::is_node(fd))
}

/// Whether a descriptor is a dma-buf's, and not another file's by now.
fn is_buffer(fd: c_int) -> bool {
    nodes::entry(fd) == Entry::Buffer && shared::is_shown(fd)
}

/// How a descriptor was opened: [`O_ACCMODE`] and [`O_NONBLOCK`] of it.
pub fn opened(fd: c_int) -> c_int {
    // SAFETY: it has no argument.
    unsafe { real::fcntl(fd, libc::F_GETFL, 0) & (O_ACCMODE | O_NONBLOCK) }
}

/// What a read gives; `None` where the kernel reads.
fn read_from(fd: c_int) -> Option<ssize_t> {
    let is_node = is_silent(fd);
    if !is_node && !is_buffer(fd) {
        return None;
    }
    let opened = opened(fd);
    Some(match opened & O_ACCMODE {
        O_WRONLY => fail(EBADF),
        _ if !is_node => fail(EINVAL),
        _ if opened & O_NONBLOCK != 0 => fail(EAGAIN),
        // SAFETY: nothing is polled: it ends for a signal.
        _ => unsafe { real::ppoll(ptr::null_mut(), 0, ptr::null(), ptr::null()) },
    } as ssize_t)
}

/// What a write gives; `None` where the kernel writes.
pub fn write_to(fd: c_int) -> Option<ssize_t> {
    let is_ours = is_silent(fd) || is_buffer(fd);
    is_ours.then(|| fail(if opened(fd) & O_ACCMODE == O_RDONLY { EBADF } else { EINVAL }) as ssize_t)
}

/// Takes the nodes below `end` out of a set, which the program leaves alone for the time of the call.
fn without_nodes(set: *mut fd_set, end: c_int) {
    const BITS: usize = c_ulong::BITS as usize;
    if end <= 0 || set.is_null() || !nodes::has_polled() {
        return;
    }
    for fd in nodes::ours_in(0, end as u32 - 1).filter(|fd| is_silent(*fd)) {
        let (word, bit) = (set.cast::<c_ulong>().wrapping_add(fd as usize / BITS), 1 << (fd as usize % BITS));
        // SAFETY: the program's own set: a word that can be read, and that the kernel would write.
        if unsafe { peek::array(word, 1) }.is_some_and(|words| words[0] & bit != 0) {
            // SAFETY: as above.
            unsafe { *word &= !bit };
        }
    }
}
