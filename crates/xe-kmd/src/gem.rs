//! Buffer objects, as far as the CPU sees them: handles, sizes, and where to mmap the device file for them.
//!
//! What backs a BO is the device file itself, which is sparse: each BO has a span of it to itself, for as long as
//! the file lives. So the driver holds no byte of a BO, and a mapping outlives the handle. And so closing a handle
//! frees no memory: nobody here knows whether the span is still mapped, in this process or in a child of it. Binding
//! a BO to a GPU address is not there yet.
//!
//! Locking: inside the file's lock.
//!
//! Upstream: `xe_bo.c` (`xe_gem_create_ioctl`), `drm_vma_manager.c`.

use xe_uapi::gem::{self, GemCreate, GemFlags};

use crate::errno::Errno;
use crate::ids::IdTable;
use units::{SZ_1G, SZ_4K, SZ_64K};
use xe_spec::platform::Platform;

/// First offset of BOs in the device file.
const FIRST_OFFSET: u64 = 4 * SZ_1G;
/// Length of the device file.
pub(crate) const FILE_BYTES: u64 = 1 << 40;

/// A file's BOs.
pub(crate) struct Gem {
    bos: IdTable<Bo>,
    next_offset: u64,
}

/// One BO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bo {
    /// Where the device file shows it.
    pub offset: u64,
}

impl Default for Gem {
    fn default() -> Self {
        Self { bos: IdTable::default(), next_offset: FIRST_OFFSET }
    }
}

impl Gem {
    /// A BO of `size` bytes, a multiple of 4K: its handle.
    pub(crate) fn create(&mut self, size: u64) -> Result<u32, Errno> {
        let end = self.next_offset.checked_add(size).filter(|end| *end <= FILE_BYTES).ok_or(Errno::ENOSPC)?;
        let handle = self.bos.insert(Bo { offset: self.next_offset }).ok_or(Errno::ENOSPC)?;
        self.next_offset = end;
        Ok(handle)
    }

    /// What a handle names.
    pub(crate) fn get(&self, handle: u32) -> Option<Bo> {
        self.bos.get(handle)
    }

    /// Gives a handle up.
    pub(crate) fn close(&mut self, handle: u32) -> Option<Bo> {
        self.bos.remove(handle)
    }
}

/// Mask of all memory regions: bit 0 system memory, bit 1 + n the VRAM of tile n.
pub(crate) const fn region_mask(platform: &Platform) -> u32 {
    (1 << (platform.tiles.len() + 1)) - 1
}

/// Checks GEM_CREATE's arguments, in upstream's order; whether a VM id is known is the caller's to check.
pub(crate) fn check_create(platform: &Platform, args: &GemCreate) -> Result<(), Errno> {
    let in_vram = args.placement & !1 != 0;
    let flags = GemFlags::from_bits(args.flags);
    let zeros = args.extensions == 0 && args.pad == [0; 3] && args.reserved == [0; 2] && args.handle == 0;
    let Some(flags) = flags.filter(|_| zeros) else { return Err(Errno::EINVAL) };
    if args.placement == 0 || args.placement & !region_mask(platform) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags.contains(GemFlags::NO_COMPRESSION) {
        return Err(Errno::EOPNOTSUPP);
    }
    let granule = if in_vram && platform.needs_64k { SZ_64K } else { SZ_4K };
    if args.size == 0 || !args.size.is_multiple_of(granule) {
        return Err(Errno::EINVAL);
    }
    if flags.contains(GemFlags::NEEDS_VISIBLE_VRAM) && !in_vram {
        return Err(Errno::EINVAL);
    }
    let wc_only = in_vram || flags.contains(GemFlags::SCANOUT);
    match args.cpu_caching {
        gem::CACHING_WC => Ok(()),
        gem::CACHING_WB if !wc_only => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}
