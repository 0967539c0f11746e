//! What the real driver does and this one does not: said once, to the observer and to the caller.
//!
//! docs/coverage.md lists all of it.

use xe_uapi::ioctl as nr;
use xe_uapi::query::{OBSERVATION_EU_STALL, OBSERVATION_OA, Observation};

use super::{Reply, require};
use crate::errno::Errno;
use crate::event::Event;
use crate::file::File;

/// OBSERVATION: there is nothing to observe.
///
/// Upstream: `xe_observation_ioctl`.
pub(super) fn observation(file: &File, args: &mut Observation) -> Reply {
    let ops = match args.observation_type {
        OBSERVATION_OA => 0..=2,
        OBSERVATION_EU_STALL => 0..=0,
        _ => return Err(Errno::EINVAL),
    };
    require(args.extensions == 0 && ops.contains(&args.observation_op))?;
    file.shared.gpu.emit(Event::Stub { ioctl: nr::number(nr::OBSERVATION), what: "OBSERVATION" });
    Err(Errno::EOPNOTSUPP)
}
