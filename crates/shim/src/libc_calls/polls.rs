//! poll and ppoll of dma-bufs, which are readable when nobody writes any more and writable when nobody reads or writes; and of nodes,
//! which are neither, ever.
//!
//! To the kernel both are memory files, which are always ready. So a poll that has a dma-buf waits for sync files of its fences in its
//! place, for as long as the call lasts, and one that has a node leaves that out. A call where there is none of them costs one load.
//! select, epoll and system calls by number do not know of fences: there a dma-buf is ready, and epoll takes none (EPERM). A handler
//! that jumps out of such a poll leaves the sync files open.
//!
//! Locking: none while it waits.
//!
//! Upstream: `dma_buf_poll`, `drm_poll`.

use super::passed::Process;
use super::signals::Held;
use super::{descriptors, events, inside, interpose, peek, real, shared};
use crate::nodes::{self, Entry};
use core::ffi::{c_int, c_short};
use core::slice;
use libc::{POLLIN, POLLOUT, nfds_t, pollfd, sigset_t, size_t, timespec};
use std::vec::Vec;
use units::HostVa;
use xe_uapi::dma_buf::{DmaBufSyncFile, EXPORT_SYNC_FILE, SyncFlags};

interpose! {
    fn poll(polled: *mut pollfd, count: nfds_t, timeout_ms: c_int) -> c_int {
        // SAFETY: the program's own arguments, or what stands for them.
        by_fences(polled, count, |polled, count| unsafe { real::poll(polled, count, timeout_ms) })
    }
    fn ppoll(polled: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int {
        // SAFETY: the program's own arguments, or what stands for them.
        by_fences(polled, count, |polled, count| unsafe { real::ppoll(polled, count, timeout, mask) })
    }
    fn __poll_chk(polled: *mut pollfd, count: nfds_t, timeout_ms: c_int, _room: size_t) -> c_int {
        // SAFETY: the program's own arguments; the compiler knew the array's length.
        unsafe { poll(polled, count, timeout_ms) }
    }
    fn __ppoll_chk(polled: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t, _room: size_t) -> c_int {
        // SAFETY: the program's own arguments; the compiler knew the array's length.
        unsafe { ppoll(polled, count, timeout, mask) }
    }
}

fn by_fences(polled: *mut pollfd, count: nfds_t, wait: impl Fn(*mut pollfd, nfds_t) -> c_int) -> c_int {
    if !nodes::has_polled() {
        return wait(polled, count);
    }
    // SAFETY: the program's own array, which it leaves alone for the time of the call.
    let asked = unsafe { peek::array(polled, count as usize) };
    // On the program's own stack: an ioctl refuses memory of this library.
    let mut room = DmaBufSyncFile { flags: 0, fd: -1 };
    let all = asked.and_then(|asked| inside(|signals| Polled::new(asked, &mut room, signals)));
    let Some(mut all) = all else { return wait(polled, count) };
    let found = wait(all.entries.as_mut_ptr(), all.entries.len() as nfds_t);
    let result = if found < 0 {
        found
    } else {
        // SAFETY: the same array, which was readable; the kernel would write there, too.
        all.tell(unsafe { slice::from_raw_parts_mut(polled, count as usize) })
    };
    inside(|_| all.end());
    result
}

/// A fence that stands for an entry.
struct Stand {
    of: usize,
    event: c_short,
}

/// What the kernel is asked instead: the program's entries, then the sync files.
struct Polled {
    entries: Vec<pollfd>,
    stands: Vec<Stand>,
}

impl Polled {
    /// `None` where no entry is a node, or a dma-buf whose fences matter.
    fn new(asked: &[pollfd], room: &mut DmaBufSyncFile, signals: &Held) -> Option<Self> {
        let is_buffer =
            |entry: &pollfd| entry.events & (POLLIN | POLLOUT) != 0 && nodes::entry(entry.fd) == Entry::Buffer;
        if !asked.iter().any(|entry| is_buffer(entry) || events::is_silent(entry.fd)) {
            return None;
        }
        let mut all = Self { entries: asked.to_vec(), stands: Vec::new() };
        for node in all.entries.iter_mut().filter(|entry| events::is_silent(entry.fd)) {
            node.fd = -1;
        }
        for (of, entry) in asked.iter().enumerate().filter(|(_, entry)| is_buffer(entry)) {
            for (event, what) in [(POLLIN, SyncFlags::READ), (POLLOUT, SyncFlags::WRITE)] {
                if entry.events & event != 0
                    && let Some(fd) = sync_file(entry.fd, what, room, signals)
                {
                    all.entries[of].events &= !event;
                    all.entries.push(pollfd { fd, events: POLLIN, revents: 0 });
                    all.stands.push(Stand { of, event });
                }
            }
        }
        Some(all)
    }

    /// The answers, in the program's own array; how many entries have one.
    fn tell(&self, polled: &mut [pollfd]) -> c_int {
        let (own, files) = self.entries.split_at(polled.len());
        for (entry, answered) in polled.iter_mut().zip(own) {
            entry.revents = answered.revents;
        }
        for (file, stand) in files.iter().zip(&self.stands) {
            if file.revents != 0 {
                polled[stand.of].revents |= stand.event;
            }
        }
        polled.iter().filter(|entry| entry.revents != 0).count() as c_int
    }

    fn end(self) {
        for file in &self.entries[self.entries.len() - self.stands.len()..] {
            // SAFETY: a descriptor that this poll was given, and nobody else knows.
            unsafe { descriptors::close(file.fd) };
        }
    }
}

/// A descriptor that is readable when whoever wants this may begin; `None` where there is none to be had.
fn sync_file(fd: c_int, what: SyncFlags, room: &mut DmaBufSyncFile, signals: &Held) -> Option<c_int> {
    // The number may be another file's by now, closed and opened by libc itself.
    shared::shown(fd).ok()?;
    let (passed, file, epoch) = shared::find(fd, signals).ok()?;
    room.flags = what.bits() as u32;
    let at = HostVa(core::ptr::from_mut(room) as u64);
    file.ioctl_on(&passed, EXPORT_SYNC_FILE, at, &Process { signals, file: &file, epoch }).ok()?;
    Some(room.fd)
}
