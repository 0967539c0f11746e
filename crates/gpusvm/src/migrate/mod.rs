//! Migration: pages change their home, and their bytes travel with them.
//!
//! The host mm's protocol is claim → stage → (copy) → commit → finish, and each step here is a token that the
//! next one consumes: [`Claim`] → [`Staged`] → [`Committed`]. Whatever happens in between, dropping the token
//! at hand finishes the migration, and what was not committed is where it was. DMA mappings are guards too
//! (`batch`), so they end before the migration does.
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

use crate::device::{MapError, PagemapAddr};
use crate::devmem::CopyError;
use crate::scratch::refill;
use alloc::vec::Vec;
use hostmm::{ClaimId, ClaimRequest, Claimed, Destination, DevicePage, HostMm, MmError};
use units::{HostFrame, HostVa};

/// How a migration to VRAM is to be done (`struct drm_pagemap_migrate_details`).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct MigrateDetails {
    /// Minimum residency: how long CPU touches leave the pages alone, in milliseconds. A touch that was deferred
    /// once is served when that residency ends, whatever migration follows.
    pub timeslice_ms: u32,
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
    /// Memory is short (`-ENOMEM`).
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
    id: ClaimId,
}

impl<'a> Claim<'a> {
    /// Collects by address (`migrate_vma_setup`).
    fn by_address(mm: &'a dyn HostMm, request: &ClaimRequest, out: &mut [Claimed]) -> Result<Self, MmError> {
        Ok(Self { mm, id: mm.claim(request, out)? })
    }

    /// Collects by device page (`migrate_device_pfns`).
    fn by_page(mm: &'a dyn HostMm, pages: &[DevicePage], out: &mut [Option<HostVa>]) -> Result<Self, MmError> {
        Ok(Self { mm, id: mm.claim_device(pages, out)? })
    }

    /// Names the destinations.
    fn stage(self, to: &[Destination], frames: &mut [Option<HostFrame>]) -> Result<Staged<'a>, MmError> {
        self.mm.stage(self.id, to, frames)?;
        Ok(Staged(self))
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.mm.finish(self.id);
    }
}

/// A migration whose destinations are named: the device may carry.
struct Staged<'a>(Claim<'a>);

impl<'a> Staged<'a> {
    /// Makes the destinations the homes of what was carried.
    fn commit(self, wanted: &[bool], moved: &mut [bool]) -> Committed<'a> {
        self.0.mm.commit(self.0.id, wanted, moved);
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

/// What a migration needs an entry a page for; spare ones are kept by the pagemap.
#[derive(Default)]
pub(crate) struct Buffers {
    claimed: Vec<Claimed>,
    to: Vec<Destination>,
    frames: Vec<Option<HostFrame>>,
    pages: Vec<Option<DevicePage>>,
    addr: Vec<Option<PagemapAddr>>,
    carried: Vec<bool>,
    wanted: Vec<bool>,
    moved: Vec<bool>,
}

impl Buffers {
    /// All empty, for `pages` pages.
    fn reset(&mut self, pages: usize) {
        refill(&mut self.claimed, pages, Claimed::No);
        refill(&mut self.to, pages, Destination::Stay);
        refill(&mut self.frames, pages, None);
        refill(&mut self.pages, pages, None);
        refill(&mut self.addr, pages, None);
        refill(&mut self.carried, pages, false);
        refill(&mut self.wanted, pages, false);
        refill(&mut self.moved, pages, false);
    }
}
