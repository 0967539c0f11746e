//! Migration: pages change their home, and their bytes travel with them.
//!
//! The host mm's protocol is claim → stage → (copy) → commit → finish, over one [`Migration`] whose legs are runs.
//! Each step here is a token that the next one consumes: [`Claim`] → [`Staged`] → [`Committed`]. Whatever happens in
//! between, dropping the token at hand finishes the migration, and what was not committed is where it was. DMA
//! mappings are guards too (`batch`), so they end before the migration does.
//!
//! | file | from → to | asked for by |
//! |---|---|---|
//! | `to_devmem` | system memory, holes, other tiles → VRAM | the driver's fault handler, prefetch |
//! | `to_ram` | one allocation's pages → system memory | a CPU's touch |
//! | `evict` | the same, wherever they are mapped | the driver's VRAM manager |
//! | `batch` | what one source's engine carries in one go | all three |
//!
//! Upstream: `drm_pagemap.c`, `migrate_device.c`.

mod batch;
mod evict;
mod to_devmem;
mod to_ram;

use crate::device::MapError;
use crate::devmem::{CopyError, CopyRun};
use alloc::vec::Vec;
use hostmm::{ClaimRequest, Claimed, DeviceRun, HostMm, Leg, Migration, MmError};
use units::Iova;

/// How a migration to VRAM is to be done (`struct drm_pagemap_migrate_details`).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct MigrateDetails {
    /// Minimum residency: how long CPU touches leave the pages alone, in milliseconds. A touch that was deferred
    /// once is served when that residency ends, whatever migration follows.
    pub timeslice_ms: u32,
    /// What happens to pages that lie in another pagemap of the set.
    pub from_peers: FromPeers,
}

/// What a migration to VRAM does with pages that lie in another pagemap of its set: one answer for every place that asks.
///
/// Upstream has four such places, which disagree for two pagemaps of one device (defect A): the count of own pages, the
/// shortcut beside it, what is skipped page by page, and how a destination is mapped.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum FromPeers {
    /// Their engine pushes them to the destination.
    #[default]
    Push,
    /// The migration is [`Busy`](MigrateError::Busy), as if they were in the destination already beside others that are
    /// not: the driver evicts the range and tries again.
    Refuse,
    /// The same; but where all pages of the range are in VRAM of the set, nothing moves, and that is success.
    Stay,
}

/// How a migration failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MigrateError {
    /// Not all pages can migrate now: pinned, in another migration, already partly there, or lost a race.
    /// Some may have moved (`-EBUSY`).
    Busy,
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

/// A migration between claim and finish; dropping it puts everything back.
struct Claim<'a> {
    mm: &'a dyn HostMm,
    migration: &'a mut Migration,
}

impl<'a> Claim<'a> {
    /// Collects by address (`migrate_vma_setup`); `None` where all is at its destination already.
    fn by_address(
        mm: &'a dyn HostMm,
        request: &ClaimRequest,
        migration: &'a mut Migration,
    ) -> Result<Option<Self>, MmError> {
        match mm.claim(request, migration)? {
            Claimed::Begun => Ok(Some(Self { mm, migration })),
            Claimed::There => Ok(None),
        }
    }

    /// Collects by device page (`migrate_device_pfns`).
    fn by_page(mm: &'a dyn HostMm, pages: &[DeviceRun], migration: &'a mut Migration) -> Result<Self, MmError> {
        mm.claim_device(pages, migration)?;
        Ok(Self { mm, migration })
    }

    /// Names the destinations.
    fn stage(self) -> Result<Staged<'a>, MmError> {
        self.mm.stage(self.migration)?;
        Ok(Staged(self))
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.mm.finish(self.migration);
    }
}

/// A migration whose destinations are named: the device may carry.
struct Staged<'a>(Claim<'a>);

impl<'a> Staged<'a> {
    /// Makes the destinations the homes of what was carried.
    fn commit(self) -> Committed<'a> {
        self.0.mm.commit(self.0.migration);
        Committed(self.0)
    }
}

/// A migration that is decided; only the sources are left to be freed.
struct Committed<'a>(Claim<'a>);

impl Committed<'_> {
    /// Frees the sources and wakes who waits.
    fn finish(self) {
        drop(self.0);
    }
}

/// What a migration needs memory for; spare ones are kept by the pagemap, so that the next one allocates nothing.
#[derive(Default)]
pub(crate) struct Buffers {
    migration: Migration,
    work: Work,
}

/// What one batch needs memory for.
#[derive(Default)]
struct Work {
    /// What the copying engine is given.
    runs: Vec<CopyRun>,
    /// DMA mappings of system memory.
    dma: Vec<(Iova, usize)>,
    /// Pages of VRAM to evict.
    live: Vec<DeviceRun>,
}

/// Pages that live at their destination, and those of them that were holes.
fn arrived<'a>(legs: impl Iterator<Item = &'a Leg>) -> (usize, usize) {
    legs.filter(|leg| leg.carried()).fold((0, 0), |(pages, holes), leg| {
        (pages + leg.pages(), holes + if leg.from.is_none() { leg.pages() } else { 0 })
    })
}
