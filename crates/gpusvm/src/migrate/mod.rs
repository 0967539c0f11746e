//! Migration: pages change their place, and their bytes travel with them.
//!
//! The host mm's protocol is claim → stage → (copy) → commit → finish, over one [`Migration`] whose parts are runs.
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

use hostmm::{ClaimRequest, Claimed, DeviceRun, HostMm, Migration, MmError, Part};

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

/// Pages that live at their destination, and those of them that were holes.
fn arrived<'a>(parts: impl Iterator<Item = &'a Part>) -> (usize, usize) {
    parts.filter(|part| part.carried()).fold((0, 0), |(pages, holes), part| {
        (pages + part.pages(), holes + if part.from.is_none() { part.pages() } else { 0 })
    })
}
