//! Descriptors that ioctls give out, and what an ioctl asks of the process.
//!
//! A descriptor of ours is an eventfd, which can be polled and duplicated; the table of descriptors knows what it stands
//! for. That of a dma-buf is the memory itself ([`shared`]). Whoever rings an eventfd has a duplicate of it, hidden from the program: the program may close its own meanwhile,
//! and use the number for something else.
//!
//! Locking: that of the table of descriptors.

use super::shared;
use super::signals::{Held, Pending};
use super::wait::SLICE_NS;
use crate::device::{File, Location};
use crate::nodes::{self, Entry, MAX_FD};
use crate::session;
use machine::{BytesId, Caller, Descriptor, Doorbell, Errno, Passed, SharedBytes};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use units::HostFrame;
use xe_uapi::drm::PrimeFlags;

/// The process, during an ioctl.
pub struct Process<'a> {
    /// Its signals.
    pub signals: &'a Held,
    /// The file that the ioctl is one of.
    pub file: &'a Arc<dyn File>,
    /// The start of the machine that the file belongs to.
    pub epoch: u32,
}

impl Caller for Process<'_> {
    fn is_interrupted(&self) -> bool {
        self.signals.pending() != Pending::Nothing
    }

    fn slice_ns(&self) -> u64 {
        SLICE_NS
    }

    fn descriptor(&self, passed: Passed) -> Result<Descriptor, Errno> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(errno_of)?;
        if event.as_raw_fd() as usize >= MAX_FD {
            return Err(Errno::EMFILE);
        }
        let readable = Hidden::duplicate(event.as_fd())?;
        let fd = event.into_raw_fd();
        nodes::give(fd, passed, self.file.clone(), self.epoch);
        Ok(Descriptor { fd, readable })
    }

    fn passed(&self, fd: i32) -> Option<Passed> {
        nodes::passed(fd, self.epoch).map(|(passed, _)| passed)
    }

    fn share(&self, object: HostFrame, bytes: u64, how: PrimeFlags, passed: Passed) -> Result<(i32, BytesId), Errno> {
        let at = self.file.object_address(object).ok_or(Errno::ENOENT)?;
        let shown = shared::open(at, bytes, how)?;
        if shown.as_raw_fd() as usize >= MAX_FD {
            return Err(Errno::EMFILE);
        }
        let id = shared::shown(shown.as_raw_fd())?.id;
        let fd = shown.into_raw_fd();
        nodes::give_buffer(fd, passed, self.file.clone(), self.epoch);
        Ok((fd, id))
    }

    fn shared(&self, fd: i32) -> Result<SharedBytes, Errno> {
        if nodes::is_hidden(fd) { Err(Errno::EBADF) } else { shared::shown(fd) }
    }

    fn adopt(&self, fd: i32, bytes: u64) -> Result<HostFrame, Errno> {
        let file = shared::reopen(fd)?;
        self.file.adopt_object(file.as_raw_fd(), bytes).ok_or(Errno::ENOMEM)
    }

    fn location(&self, fd: i32, region: u16) -> Option<Location> {
        let Entry::Node(minor) = nodes::entry(fd) else { return None };
        session::running()?.location(minor.device, region)
    }

    fn eventfd(&self, fd: i32) -> Result<Arc<dyn Doorbell>, Errno> {
        if nodes::is_hidden(fd) {
            return Err(Errno::EBADF);
        }
        let kind = std::fs::read_link(format!("/proc/self/fd/{fd}")).map_err(|_| Errno::EBADF)?;
        if nodes::entry(fd) != Entry::Foreign || kind.as_os_str() != "anon_inode:[eventfd]" {
            return Err(Errno::EINVAL);
        }
        // SAFETY: the program's own descriptor, which it gave to this call.
        let event = unsafe { BorrowedFd::borrow_raw(fd) };
        Ok(Hidden::duplicate(event)?)
    }
}

/// A duplicate of an eventfd that the program does not know of.
struct Hidden(Option<OwnedFd>);

impl Hidden {
    fn duplicate(event: BorrowedFd<'_>) -> Result<Arc<Self>, Errno> {
        let high = super::duplicate_high(event);
        let event = high.or_else(|_| rustix::io::fcntl_dupfd_cloexec(event, 3)).map_err(errno_of)?;
        if event.as_raw_fd() as usize >= MAX_FD {
            return Err(Errno::EMFILE);
        }
        nodes::mark_machine(event.as_raw_fd());
        Ok(Arc::new(Self(Some(event))))
    }
}

impl Doorbell for Hidden {
    fn ring(&self) {
        if let Some(event) = &self.0 {
            // A count that is full is as readable as any.
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(event) = self.0.take() {
            let fd = event.into_raw_fd();
            nodes::unmark(fd);
            // SAFETY: nobody else has this number.
            unsafe { rustix::io::close(fd) };
        }
    }
}

pub(super) fn errno_of(errno: rustix::io::Errno) -> Errno {
    Errno(errno.raw_os_error())
}
