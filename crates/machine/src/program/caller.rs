//! Whom a program's ioctls are done for: a process with one descriptor, of the device or of another one.

use std::sync::Arc;
use units::HostFrame;
use xe_kmd::{BytesId, Caller, Descriptor, Doorbell, Errno, File, Location, Nobody, Passed, SharedBytes};
use xe_uapi::drm::PrimeFlags;

/// The process.
pub(super) struct Process {
    /// What the descriptor that an ioctl names is of.
    pub named: Arc<File>,
}

impl Process {
    /// The descriptor that an ioctl names.
    pub(super) const DEVICE: u32 = 3;
}

impl Caller for Process {
    fn location(&self, fd: i32, region: u16) -> Option<Location> {
        (fd == Self::DEVICE as i32).then(|| self.named.location(region))
    }

    fn is_interrupted(&self) -> bool {
        Nobody.is_interrupted()
    }

    fn slice_ns(&self) -> u64 {
        Nobody.slice_ns()
    }

    fn descriptor(&self, passed: Passed) -> Result<Descriptor, Errno> {
        Nobody.descriptor(passed)
    }

    fn passed(&self, fd: i32) -> Option<Passed> {
        Nobody.passed(fd)
    }

    fn share(&self, at: HostFrame, bytes: u64, how: PrimeFlags, passed: Passed) -> Result<(i32, BytesId), Errno> {
        Nobody.share(at, bytes, how, passed)
    }

    fn shared(&self, fd: i32) -> Result<SharedBytes, Errno> {
        Nobody.shared(fd)
    }

    fn adopt(&self, fd: i32, bytes: u64) -> Result<HostFrame, Errno> {
        Nobody.adopt(fd, bytes)
    }

    fn eventfd(&self, fd: i32) -> Result<Arc<dyn Doorbell>, Errno> {
        Nobody.eventfd(fd)
    }
}
