//! PRIME_HANDLE_TO_FD, PRIME_FD_TO_HANDLE, GEM_FLINK, GEM_OPEN: BOs from file to file.
//!
//! Locking: the file's lock, and that of the table of shared BOs; never both.
//!
//! Upstream: `drm_prime_handle_to_fd_ioctl`, `xe_gem_prime_export`, `drm_prime_fd_to_handle_ioctl`, `xe_gem_prime_import`,
//! `drm_gem_flink_ioctl`, `drm_gem_open_ioctl`.

use std::sync::Arc;

use units::SZ_4K;
use xe_uapi::drm::{GemFlink, GemOpen, PrimeFlags, PrimeHandle};

use super::core::reachable;
use super::{Reply, require};
use crate::bo::{Bo, BoConfig};
use crate::caller::{Caller, Kind, Passed, SharedBytes};
use crate::errno::Errno;
use crate::file::File;

/// PRIME_HANDLE_TO_FD. `EPERM`: the BO is a VM's own.
pub(super) fn handle_to_fd(file: &File, args: &mut PrimeHandle, caller: &dyn Caller) -> Reply {
    let how = PrimeFlags::from_bits(args.flags).ok_or(Errno::EINVAL)?;
    let bo = file.bo(args.handle).ok_or(Errno::ENOENT)?;
    if bo.config.vm.is_some() {
        return Err(Errno::EPERM);
    }
    bo.standing().check()?;
    let (fd, id) = caller.share(bo.object(), bo.config.size, how, Passed(Kind::DmaBuf(bo.clone())))?;
    bo.note_export(id);
    file.bos.note_bytes(id, &bo);
    file.names.lock().gem.note_prime(args.handle, &bo);
    args.fd = fd;
    Ok(0)
}

/// PRIME_FD_TO_HANDLE. `EOPNOTSUPP`: the BO may be in the VRAM of a device only that this one does not reach.
pub(super) fn fd_to_handle(file: &File, args: &mut PrimeHandle, caller: &dyn Caller) -> Reply {
    args.handle = file.import_bo(&find(file, caller, args.fd)?)?;
    Ok(0)
}

/// The BO of the bytes that a descriptor shows: it may have to be made.
pub(super) fn find(file: &File, caller: &dyn Caller, fd: i32) -> Result<Arc<Bo>, Errno> {
    let SharedBytes { id, bytes, label } = caller.shared(fd)?;
    if let Some(bo) = file.bos.of_bytes(id) {
        return Ok(bo);
    }
    require(bytes > 0 && bytes.is_multiple_of(SZ_4K))?;
    let adopt = || caller.adopt(fd, bytes);
    let bo = match (BoConfig::of_label(label, bytes, &file.shared), caller.passed(fd)) {
        (Some(config), _) => Bo::like(&file.shared, config, id, adopt),
        (None, Some(Passed(Kind::DmaBuf(exported)))) => Bo::import(&file.shared, &exported, adopt),
        (None, _) => Bo::of_object(&file.shared, bytes, adopt),
    }?;
    Ok(file.bos.note_bytes(id, &bo))
}

/// GEM_FLINK. Render nodes do not have it (`EACCES`).
pub(super) fn flink(file: &File, args: &mut GemFlink) -> Reply {
    let bo = reachable(file)?.bo(args.handle).ok_or(Errno::ENOENT)?;
    args.name = file.bos.number(&bo);
    Ok(0)
}

/// GEM_OPEN. Render nodes do not have it (`EACCES`).
pub(super) fn open(file: &File, args: &mut GemOpen) -> Reply {
    let bo = reachable(file)?.bos.of_number(args.name).ok_or(Errno::ENOENT)?;
    args.handle = file.add_bo(&bo)?;
    args.size = bo.config.size;
    Ok(0)
}
