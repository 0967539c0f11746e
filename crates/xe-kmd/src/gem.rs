//! Handles of buffer objects. One is given anew once it is closed; mappings that were made keep the bytes.
//!
//! Locking: inside the file's lock. A BO must not end under it: what is taken out is dropped by who took it.
//!
//! Upstream: `drm_gem.c` (handles), `xe_gem_create_ioctl`.

use std::sync::Arc;

use units::SZ_4K;
use xe_spec::platform::Platform;
use xe_uapi::gem::{self, GemCreate, GemFlags};

use crate::bo::{Bo, region_mask};
use crate::errno::Errno;
use crate::ids::IdTable;

/// A file's BOs.
#[derive(Default)]
pub(crate) struct Gem {
    handles: IdTable<Handle>,
}

/// What a handle names.
#[derive(Clone)]
pub(crate) struct Handle {
    pub bo: Arc<Bo>,
    /// An import of its bytes finds this handle.
    is_prime: bool,
}

impl Gem {
    /// A handle for a BO. `ENOSPC`: none is left.
    pub(crate) fn add(&mut self, bo: Arc<Bo>) -> Result<u32, Errno> {
        bo.add_handle();
        let handle = self.handles.insert(Handle { bo: bo.clone(), is_prime: false });
        handle.ok_or(Errno::ENOSPC).inspect_err(|_| bo.drop_handle())
    }

    /// The handle that an import of this BO gives: the one that it was exported or imported by, or a new one.
    ///
    /// Upstream: `drm_prime_lookup_buf_handle`.
    pub(crate) fn import(&mut self, bo: &Arc<Bo>) -> Result<u32, Errno> {
        let known = self.handles.iter().find(|(_, handle)| handle.is_prime && Arc::ptr_eq(&handle.bo, bo));
        if let Some((handle, _)) = known {
            return Ok(handle);
        }
        let handle = self.add(bo.clone())?;
        self.note_prime(handle, bo);
        Ok(handle)
    }

    /// An import of this BO gives this handle, if that is still its.
    pub(crate) fn note_prime(&mut self, handle: u32, bo: &Arc<Bo>) {
        if let Some(handle) = self.handles.get_mut(handle).filter(|handle| Arc::ptr_eq(&handle.bo, bo)) {
            handle.is_prime = true;
        }
    }

    /// What a handle names.
    pub(crate) fn get(&self, handle: u32) -> Option<Handle> {
        self.handles.get(handle)
    }

    /// The BO that the device file shows from `offset` on, if a handle of it is here.
    pub(crate) fn at(&self, offset: u64) -> Option<Arc<Bo>> {
        self.handles.values().find(|handle| handle.bo.offset() == offset).map(|handle| handle.bo.clone())
    }

    /// All that handles name.
    pub(crate) fn bos(&self) -> Vec<Arc<Bo>> {
        self.handles.values().map(|handle| handle.bo.clone()).collect()
    }

    /// Gives a handle up.
    pub(crate) fn close(&mut self, handle: u32) -> Option<Arc<Bo>> {
        let Handle { bo, .. } = self.handles.remove(handle)?;
        bo.drop_handle();
        Some(bo)
    }

    /// Gives all handles up.
    pub(crate) fn take_all(&mut self) -> Vec<Handle> {
        let handles = self.handles.take_all();
        handles.iter().for_each(|handle| handle.bo.drop_handle());
        handles
    }
}

/// Checks GEM_CREATE's arguments, in upstream's order. Whether a VM id is known is the caller's to check, whether the size
/// fits a placement [`Bo::create`]'s.
pub(crate) fn check_create(platform: &Platform, args: &GemCreate) -> Result<(), Errno> {
    let in_vram = args.placement & !1 != 0;
    let flags = GemFlags::from_bits(args.flags);
    let zeros = args.pad == [0; 3] && args.reserved == [0; 2] && args.handle == 0;
    let Some(flags) = flags.filter(|_| zeros) else { return Err(Errno::EINVAL) };
    if args.placement == 0 || args.placement & !region_mask(platform) != 0 {
        return Err(Errno::EINVAL);
    }
    if args.size == 0 || !args.size.is_multiple_of(SZ_4K) {
        return Err(Errno::EINVAL);
    }
    if flags.contains(GemFlags::NO_COMPRESSION) && !platform.compresses {
        return Err(Errno::EOPNOTSUPP);
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
