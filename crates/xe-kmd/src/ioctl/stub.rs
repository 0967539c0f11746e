//! What the real driver does and this one does not: said once, to the observer and to the caller.
//!
//! docs/coverage.md lists all of it.

use super::Reply;
use crate::errno::Errno;
use crate::event::Event;
use crate::file::File;

/// Tells the observer that a program asked for `what`; the answer is `EOPNOTSUPP`.
pub(super) fn missing(file: &File, ioctl: u32, what: &'static str) -> Errno {
    file.shared.gpu.emit(Event::Stub { ioctl: ioctl as u8, what });
    Errno::EOPNOTSUPP
}

/// An ioctl that is not in the table.
pub(super) fn unknown(file: &File, number: u8) -> Reply {
    match number {
        xe_uapi::ioctl::NR_OBSERVATION => Err(missing(file, u32::from(number), "OBSERVATION")),
        _ => Err(Errno::EINVAL),
    }
}
