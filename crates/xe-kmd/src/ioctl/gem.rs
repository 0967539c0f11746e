//! GEM_CREATE, GEM_MMAP_OFFSET, GEM_CLOSE.
//!
//! Locking: the file's lock.
//!
//! Upstream: `xe_gem_create_ioctl`, `xe_gem_mmap_offset_ioctl`, `drm_gem_close_ioctl`.

use xe_uapi::drm::GemClose;
use xe_uapi::gem::{GemCreate, GemMmapOffset, MMAP_OFFSET_PCI_BARRIER, PCI_BARRIER_OFFSET};

use super::{Reply, require};
use crate::errno::Errno;
use crate::file::File;
use crate::gem::check_create;

/// GEM_CREATE.
pub(super) fn create(file: &File, args: &mut GemCreate) -> Reply {
    check_create(file.shared.platform(), args)?;
    let mut names = file.names.lock();
    if args.vm_id != 0 && names.vms.get(args.vm_id).is_none() {
        return Err(Errno::ENOENT);
    }
    args.handle = names.gem.create(args.size)?;
    Ok(0)
}

/// GEM_MMAP_OFFSET.
pub(super) fn mmap_offset(file: &File, args: &mut GemMmapOffset) -> Reply {
    require(args.extensions == 0 && args.reserved == [0; 2] && args.flags & !MMAP_OFFSET_PCI_BARRIER == 0)?;
    if args.flags == MMAP_OFFSET_PCI_BARRIER {
        require(args.handle == 0)?;
        args.offset = PCI_BARRIER_OFFSET;
        return Ok(0);
    }
    args.offset = file.names.lock().gem.get(args.handle).ok_or(Errno::ENOENT)?.offset;
    Ok(0)
}

/// GEM_CLOSE.
pub(super) fn close(file: &File, args: &mut GemClose) -> Reply {
    let closed = file.names.lock().gem.close(args.handle);
    closed.map(|_| 0).ok_or(Errno::EINVAL)
}
