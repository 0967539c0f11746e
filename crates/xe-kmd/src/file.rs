//! A DRM file: one open of the device node, with its own names for VMs and queues.

use std::sync::Arc;

use units::HostVa;

use crate::device::Device;
use crate::errno::Errno;

/// One open file. Upstream: `struct xe_file`.
pub struct File {
    device: Arc<Device>,
}

impl File {
    pub(crate) fn new(device: Arc<Device>) -> Self {
        Self { device }
    }

    /// One ioctl: `cmd` is the request's low 32 bits, `arg` its argument in the caller's memory.
    pub fn ioctl(&self, _cmd: u32, _arg: HostVa) -> Result<u32, Errno> {
        Err(Errno::ENOTTY)
    }

    /// Closes the file: everything that it names ends.
    pub fn close(&self) {}

    /// The device behind it.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }
}
