//! GEM_CREATE, GEM_MMAP_OFFSET, GEM_CLOSE.
//!
//! Locking: the file's lock.
//!
//! Upstream: `xe_gem_create_ioctl`, `xe_gem_mmap_offset_ioctl`, `drm_gem_close_ioctl`.

use units::HostFrame;
use xe_uapi::drm::GemClose;
use xe_uapi::gem::{
    GemCreate, GemFlags, GemMmapOffset, MMAP_OFFSET_PCI_BARRIER, PCI_BARRIER_OFFSET, PROPERTY_PXP_TYPE,
};

use super::extensions::{self, check_protection};
use super::{Reply, require};
use crate::bo::{Bo, BoConfig};
use crate::errno::Errno;
use crate::file::File;
use crate::gem::check_create;

/// GEM_CREATE.
pub(super) fn create(file: &File, args: &mut GemCreate) -> Reply {
    check_create(file.shared.platform(), args)?;
    let vm = match args.vm_id {
        0 => None,
        id => Some(file.vm(id).ok_or(Errno::ENOENT)?.asid),
    };
    let flags = GemFlags::from_bits_retain(args.flags);
    let config = BoConfig {
        size: args.size,
        placement: args.placement,
        caching: args.cpu_caching,
        vm,
        defer: flags.contains(GemFlags::DEFER_BACKING),
        no_compression: flags.contains(GemFlags::NO_COMPRESSION),
    };
    let bo = Bo::create(&file.shared, config)?;
    extensions::for_each(file, args.extensions, |ext| {
        require(ext.property == PROPERTY_PXP_TYPE)?;
        check_protection(ext.value)
    })?;
    args.handle = file.add_bo(&bo)?;
    Ok(0)
}

/// GEM_MMAP_OFFSET.
pub(super) fn mmap_offset(file: &File, args: &mut GemMmapOffset) -> Reply {
    require(args.extensions == 0 && args.reserved == [0; 2] && args.flags & !MMAP_OFFSET_PCI_BARRIER == 0)?;
    if args.flags == MMAP_OFFSET_PCI_BARRIER {
        require(file.shared.platform().has_vram() && args.handle == 0)?;
        args.offset = PCI_BARRIER_OFFSET;
        return Ok(0);
    }
    args.offset = file.bo(args.handle).ok_or(Errno::ENOENT)?.offset();
    Ok(0)
}

/// GEM_CLOSE.
pub(super) fn close(file: &File, args: &mut GemClose) -> Reply {
    // The BO may end here: not under the file's lock.
    let closed = file.names.lock().gem.close(args.handle);
    closed.map(|_| 0).ok_or(Errno::EINVAL)
}

impl File {
    /// What an mmap of `bytes` bytes of the device file at `offset` shows: the first frame of a buffer object's memory.
    /// `None`: another device's, which no CPU reaches by this one. `EINVAL`: no BO starts there, or it is shorter, or its contents
    /// are gone; `EACCES`: the file has no handle of it; `EBUSY`: they are not needed.
    ///
    /// Upstream: `drm_gem_mmap`, `drm_vma_node_is_allowed`, `xe_bo_cpu_fault`.
    pub fn mmap(&self, offset: u64, bytes: u64) -> Result<Option<HostFrame>, Errno> {
        require(self.shared.offsets.has(offset, bytes))?;
        let bo = self.names.lock().gem.at(offset).ok_or(Errno::EACCES)?;
        bo.standing().check()?;
        Ok((!bo.is_imported()).then(|| bo.object()))
    }
}
