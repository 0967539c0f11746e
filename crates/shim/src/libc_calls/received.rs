//! Descriptors of a node that come by ways which the table of descriptors does not see: received over a socket, taken by
//! pidfd_getfd, inherited through execve.
//!
//! A node's descriptor is a memory file with the node's path as its name. One whose file is open in this process already
//! shares the open file of the device; any other is a file of this process's own machine.
//!
//! Locking: that of the table of descriptors.

use super::{inside, interpose, real};
use crate::minor::Minor;
use crate::nodes::{self, Entry};
use crate::session;
use core::ffi::{c_int, c_uint};
use core::{ptr, slice};
use libc::{mmsghdr, msghdr, ssize_t, timespec};
use rustix::fs::CWD;
use std::mem::MaybeUninit;

interpose! {
    fn recvmsg(socket: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
        // SAFETY: the program's own arguments.
        let got = unsafe { real::recvmsg(socket, message, flags) };
        if got >= 0 {
            // SAFETY: libc has filled it.
            look_at(unsafe { &*message });
        }
        got
    }
    fn recvmmsg(socket: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, wait: *mut timespec) -> c_int {
        // SAFETY: the program's own arguments.
        let got = unsafe { real::recvmmsg(socket, messages, count, flags, wait) };
        if let Some(filled) = usize::try_from(got).ok().filter(|filled| *filled > 0) {
            // SAFETY: libc has filled so many.
            unsafe { slice::from_raw_parts(messages, filled) }.iter().for_each(|message| look_at(&message.msg_hdr));
        }
        got
    }
}

/// Looks at the descriptors in a message that the kernel has just filled.
fn look_at(message: &msghdr) {
    // SAFETY: the kernel has filled the message, and its control data where it says so.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: none, or a part of the control data.
    while let Some(part) = unsafe { next.as_ref() } {
        if (part.cmsg_level, part.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: a part of the control data.
            let data = unsafe { libc::CMSG_DATA(part) };
            let bytes = part.cmsg_len - (data as usize - ptr::from_ref(part) as usize);
            // SAFETY: the kernel has written so many bytes there.
            let bytes = unsafe { slice::from_raw_parts(data, bytes) };
            for fd in bytes.as_chunks().0 {
                adopt(c_int::from_ne_bytes(*fd));
            }
        }
        // SAFETY: the message, and a part of its control data.
        next = unsafe { libc::CMSG_NXTHDR(message, part) };
    }
}

/// Makes `fd` a node's descriptor where the table does not know it and it is one. False where it is none.
pub fn adopt(fd: c_int) -> bool {
    nodes::entry(fd) == Entry::Foreign && inside(|_| minor_of(fd).is_some_and(|minor| take(fd, minor)))
}

/// Whether a descriptor is a node's, by the name of its memory file.
pub fn is_node(fd: c_int) -> bool {
    minor_of(fd).is_some()
}

/// The node that a memory file shows by its name. Not by std, whose readlink is our own.
fn minor_of(fd: c_int) -> Option<Minor> {
    let mut target = [MaybeUninit::uninit(); 64];
    let (name, _) = rustix::fs::readlinkat_raw(CWD, format!("/proc/self/fd/{fd}").as_str(), &mut target).ok()?;
    nodes::of_name(name)
}

fn take(fd: c_int, minor: Minor) -> bool {
    let Some(inode) = nodes::inode(fd) else { return false };
    let known = nodes::ours_in(0, u32::MAX)
        .find(|known| nodes::entry(*known) == Entry::Node(minor) && nodes::inode(*known) == Some(inode));
    if let Some(known) = known {
        nodes::share(known, fd);
        return true;
    }
    session::open(minor).is_ok_and(|(file, epoch)| {
        nodes::install(fd, minor, file, epoch);
        true
    })
}
