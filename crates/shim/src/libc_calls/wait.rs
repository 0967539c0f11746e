//! WAIT_USER_FENCE, so that a signal ends it.
//!
//! The driver's own wait does not know of signals, which are blocked while it runs. So a long wait is made of short
//! ones, and between them it is asked whether the kernel would have ended it.

use super::signals::{Held, Pending};
use crate::device::{Errno, File};
use core::mem::offset_of;
use sync::time::now_ns;
use units::HostVa;
use xe_uapi::exec::{UFENCE_WAIT_FLAG_ABSTIME, WaitUserFence};
use xe_uapi::ioctl::WAIT_USER_FENCE;
use zerocopy::IntoBytes;

/// How long a signal may go unnoticed, in nanoseconds.
const SLICE_NS: u64 = 5_000_000;

/// The ioctl; EFAULT where `argument` points nowhere. A relative timeout is what is left of it on return.
pub fn wait_user_fence(file: &dyn File, argument: HostVa, signals: &Held) -> Result<u32, Errno> {
    let mut asked = WaitUserFence::default();
    file.copy_from_user(argument, asked.as_mut_bytes())?;
    let is_absolute = asked.flags & UFENCE_WAIT_FLAG_ABSTIME != 0;
    let deadline = match u64::try_from(asked.timeout) {
        Ok(timeout) if is_absolute => timeout,
        Ok(timeout) => now_ns().saturating_add(timeout),
        Err(_) => u64::MAX,
    };
    let result = wait_in_slices(file, &asked, deadline, signals);
    if !is_absolute && asked.timeout >= 0 {
        let left = i64::try_from(deadline.saturating_sub(now_ns())).unwrap_or(i64::MAX);
        let timeout = argument.add(offset_of!(WaitUserFence, timeout) as u64);
        file.copy_to_user(timeout, left.as_bytes())?;
    }
    result
}

fn wait_in_slices(file: &dyn File, asked: &WaitUserFence, deadline: u64, signals: &Held) -> Result<u32, Errno> {
    loop {
        let until = deadline.min(now_ns().saturating_add(SLICE_NS));
        let mut slice =
            WaitUserFence { flags: asked.flags | UFENCE_WAIT_FLAG_ABSTIME, timeout: until as i64, ..*asked };
        let result = file.ioctl(WAIT_USER_FENCE, HostVa(&raw mut slice as u64));
        if result != Err(Errno(libc::ETIME)) || now_ns() >= deadline {
            return result;
        }
        if signals.pending() != Pending::Nothing {
            return Err(Errno(libc::EINTR));
        }
    }
}
