//! What a call of the engine will accept, and how it fails.

use crate::device::MapError;
use crate::devmem::CopyError;
use hostmm::{MmError, OwnerId};

/// What the caller of one call will accept (`struct drm_gpusvm_ctx`).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Ctx {
    /// Pages in VRAM of this owner are used where they are, all others are brought to system memory first;
    /// `None`: all are (`device_private_page_owner`).
    pub owner: Option<OwnerId>,
    /// A new range of at most this many bytes (but 4K) is made only where all of its pages are present.
    pub check_pages_threshold: u64,
    /// The device will only read: write permission is not asked for, DMA is mapped one way.
    pub read_only: bool,
    /// A new range may migrate, if its VMA can.
    pub devmem_possible: bool,
    /// A page of system memory is an error ([`SvmError::Fault`]).
    pub devmem_only: bool,
    /// VRAM that does not cover aligned granules of so many bytes is as good as mixed ([`SvmError::Mixed`]); 0: any will do.
    pub device_granule: u64,
    /// System memory and VRAM may mix in a range, and so may allocations of one pagemap; two pagemaps never.
    pub allow_mixed: bool,
}

/// How a call of the engine failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SvmError {
    /// An argument makes no sense, or no chunk size fits (`-EINVAL`).
    Invalid,
    /// No VMA at the address (`-ENOENT`).
    NoVma,
    /// Write wanted, and the VMA forbids it (`-EPERM`).
    Denied,
    /// A VMA of device registers (`-EIO`).
    Io,
    /// Pages could not be had: unmapped, not mappable, or in system memory against `devmem_only` (`-EFAULT`).
    Fault,
    /// Memory is short (`-ENOMEM`).
    NoMemory,
    /// Lost races for a whole second (`-EBUSY`).
    Busy,
    /// The pages lie in different places, and the context wants one (`-EOPNOTSUPP`).
    Mixed,
    /// The process ends, or there is no such range (any more).
    Gone,
}

impl From<MmError> for SvmError {
    fn from(error: MmError) -> Self {
        match error {
            MmError::Stale => Self::Busy,
            MmError::NoVma => Self::Fault,
            MmError::Denied => Self::Denied,
            MmError::NoMemory => Self::NoMemory,
            MmError::Gone => Self::Gone,
        }
    }
}

/// How a migration to VRAM is to be done (`struct drm_pagemap_migrate_details`).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct MigrateDetails {
    /// Minimum residency: how long CPU touches leave the pages alone, in milliseconds. A touch that was deferred
    /// once is served when that residency ends, whatever migration follows.
    pub timeslice_ms: u32,
    /// What happens to pages that lie in another pagemap.
    pub from_others: FromOthers,
    /// For how long pages that come from another pagemap stay against migrations that name such a time, too, in milliseconds:
    /// against thrash between tiles and devices. 0: no time, and none is respected.
    pub settle_ms: u32,
}

/// What a migration to VRAM does with pages that lie in another pagemap: one answer for every place that asks. A *sibling* is a pagemap of
/// the same device; one of another device is a peer's.
///
/// Upstream has four such places, which disagree for two pagemaps of one device (defect A): the count of own pages, the
/// shortcut beside it, what is skipped page by page, and how a destination is mapped.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum FromOthers {
    /// Their engine pushes them to the destination, where it reaches that.
    #[default]
    Push,
    /// Those of a sibling make the migration [`Busy`](MigrateError::Busy), as if they were in the destination already beside others that
    /// are not: the driver evicts the range and tries again. A peer pushes.
    RefuseSiblings,
    /// The same, whosever the other pagemap is.
    RefuseAll,
    /// As siblings are refused; but where all pages of the range are in VRAM of this device, nothing moves, and that is success.
    SiblingsStay,
}

/// How a migration failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MigrateError {
    /// Not all pages can migrate now: pinned, in another migration, already partly there, or lost a race.
    /// Some may have moved (`-EBUSY`).
    Busy,
    /// Pages came from another pagemap a moment ago, and are to stay ([`settle_ms`](MigrateDetails::settle_ms)).
    Settling,
    /// A CPU fault in these pages was deferred and is to be served first: try again (`-EBUSY`).
    CpuTurn,
    /// No VMA there (`-ENOENT`).
    NoVma,
    /// The range is not page-aligned, spans VMAs, or does not fit the allocation (`-EINVAL`).
    Invalid,
    /// Memory is short, or VRAM is (`-ENOMEM`).
    NoMemory,
    /// A page could not be mapped for the copying device.
    Map(MapError),
    /// The copy failed; everything is where it was.
    Copy(CopyError),
    /// The process, or the device, ends.
    Gone,
}

impl MigrateError {
    /// Whether something is short that may be there again in a moment: memory, bus addresses, a slot of the copy engine.
    pub(crate) const fn is_shortage(self) -> bool {
        matches!(self, Self::NoMemory | Self::Map(MapError::NoSpace) | Self::Copy(CopyError::NoMemory))
    }
}

impl From<MmError> for MigrateError {
    fn from(error: MmError) -> Self {
        match error {
            MmError::Stale | MmError::Denied => Self::Busy,
            MmError::NoVma => Self::NoVma,
            MmError::NoMemory => Self::NoMemory,
            MmError::Gone => Self::Gone,
        }
    }
}

impl From<MapError> for MigrateError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

impl From<CopyError> for MigrateError {
    fn from(error: CopyError) -> Self {
        Self::Copy(error)
    }
}
