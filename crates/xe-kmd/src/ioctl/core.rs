//! The DRM core's ioctls.
//!
//! Upstream: `drm_ioctl.c` (`drm_version`, `drm_getcap`).

use units::HostVa;
use xe_uapi::drm::{self, GetCap, Version};

use super::Reply;
use crate::errno::Errno;
use crate::file::File;

/// What render nodes do not have (`EACCES`). Upstream: `drm_ioctl_permit`.
pub(super) const fn reachable(file: &File) -> Result<&File, Errno> {
    if file.is_render { Err(Errno::EACCES) } else { Ok(file) }
}

/// VERSION: who the driver is.
pub(super) fn version(file: &File, args: &mut Version) -> Reply {
    (args.version_major, args.version_minor, args.version_patchlevel) = (1, 1, 0);
    args.name_len = text(file, "xe", args.name, args.name_len)?;
    args.date_len = text(file, "0", args.date, args.date_len)?;
    args.desc_len = text(file, "Intel Xe Graphics", args.desc, args.desc_len)?;
    Ok(0)
}

/// Copies as much of `text` as fits; its true length.
fn text(file: &File, text: &str, to: u64, capacity: u64) -> Result<u64, Errno> {
    let fits = text.len().min(usize::try_from(capacity).unwrap_or(usize::MAX));
    if fits > 0 && HostVa(to) != HostVa(0) {
        file.shared.copy_out(to, &text.as_bytes()[..fits])?;
    }
    Ok(text.len() as u64)
}

/// GET_CAP: what the core can do.
pub(super) fn get_cap(_file: &File, args: &mut GetCap) -> Reply {
    args.value = match args.capability {
        drm::CAP_TIMESTAMP_MONOTONIC | drm::CAP_SYNCOBJ | drm::CAP_SYNCOBJ_TIMELINE => 1,
        drm::CAP_PRIME => drm::PRIME_BOTH_WAYS,
        _ => return Err(Errno::EINVAL),
    };
    Ok(0)
}
