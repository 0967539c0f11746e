//! To VRAM: a range of addresses moves into one allocation, whole or not at all (as far as can be known).
//!
//! The claim comes first: it says whether there is anything to move and whether all of it can, and only then is VRAM
//! asked for. What is claimed may lie in system memory, nowhere yet, or in the VRAM of other tiles and of peers; each source is a
//! batch. Where all pages are in the destination pagemap already, nothing happens; where some of them are, the
//! migration ends as busy: the driver migrates the range back first, then tries again. So it does where an engine does not reach the
//! destination. A driver may ask for the same where pages are in a *sibling* of the destination ([`FromOthers`]).
//!
//! The allocation belongs to a zdd from its first moment here on, so every way out puts it, and the last put
//! releases it, exactly once.
//!
//! Locking: none held by the caller below its SVM lock. Upstream: `drm_pagemap_migrate_to_devmem`,
//! `drm_pagemap_populate_mm` (which allocates before it collects).

use super::batch::{DeviceMapped, DmaMapped, next_batch, report, settle_holes, source};
use super::{Claim, arrived};
use crate::call::{FromOthers, MigrateDetails, MigrateError};
use crate::device::Direction;
use crate::devmem::Devmem;
use crate::event::{Event, Where, Why};
use crate::pagemap::{Pagemap, PagemapSet};
use crate::scratch::{Buffers, Work};
use crate::zdd::ZddKey;
use core::ops::Range;
use hostmm::{ClaimRequest, DevicePage, HostMm, Migration, MmError, PagemapId, Part, Toward};
use units::{HostRange, Outcome, SZ_4K};

const NS_PER_MS: u64 = 1_000_000;

/// Where a migration goes.
struct Target {
    zdd: ZddKey,
    base: DevicePage,
    range: HostRange,
    start_ns: u64,
}

impl Pagemap {
    /// Moves `range` into an allocation, page by page from its base (`drm_pagemap_migrate_to_devmem`). `populate` gives
    /// the allocation once it is known that all of the range can move; `None` ends the migration as `NoMemory`.
    ///
    /// The allocation is released when the last page has left it, or at once where none came. Where all pages were in
    /// this pagemap already nothing moves, none is asked for, and that is `Ok`. After `Busy` some pages may have moved.
    /// `range` lies in one private anonymous VMA; `Invalid` or `Busy` else. `CpuTurn` is a matter of some milliseconds at
    /// most. Call with no lock of the engine held, and
    /// none that its callbacks take; `populate` is called like that too, and CPU touches of the range wait for it.
    pub fn migrate_to_devmem(
        &self,
        range: HostRange,
        details: &MigrateDetails,
        populate: impl FnOnce() -> Option<Devmem>,
    ) -> Result<(), MigrateError> {
        self.migrate_range(range, details, populate).inspect_err(|&error| {
            self.observer.event(&Event::MigrateFailed { range, to: Where::Vram(self.id), error });
        })
    }

    /// The same into an allocation that the driver gives when it is asked (`drm_pagemap_populate_mm`): for whoever wants pages
    /// in this VRAM, of this device or another.
    pub fn populate_mm(&self, range: HostRange, details: &MigrateDetails) -> Result<(), MigrateError> {
        self.migrate_to_devmem(range, details, || self.ops.devmem_alloc(range.pages()))
    }

    fn migrate_range(
        &self,
        range: HostRange,
        details: &MigrateDetails,
        populate: impl FnOnce() -> Option<Devmem>,
    ) -> Result<(), MigrateError> {
        let start_ns = sync::time::now_ns();
        if !range.start.is_aligned(SZ_4K) || !range.end.is_aligned(SZ_4K) || range.is_empty() {
            return Err(MigrateError::Invalid);
        }
        let mm = self.mm.upgrade().ok_or(MigrateError::Gone)?;
        let set = self.set.upgrade().ok_or(MigrateError::Gone)?;
        if self.turns().holds(range, start_ns) {
            return Err(MigrateError::CpuTurn);
        }
        let mut buffers = self.scratch.take();
        let Buffers { migration, work } = &mut *buffers;
        let request = ClaimRequest { range, owner: self.owner, toward: Toward::Vram(self.id), fault: None };
        let claim = match Claim::by_address(&*mm, &request, migration) {
            Ok(None) => return Ok(()),
            Ok(Some(claim)) if self.movable(claim.migration, range, &set, details.from_others) => claim,
            Ok(Some(claim))
                if details.from_others == FromOthers::SiblingsStay && stays(claim.migration, range, &set, self) =>
            {
                return Ok(());
            }
            Ok(Some(_)) | Err(MmError::Stale) => return Err(why_not(&*mm, range)),
            Err(error) => return Err(error.into()),
        };
        if details.settle_ms > 0 && is_settling(claim.migration, &set, start_ns) {
            return Err(MigrateError::Settling);
        }
        let devmem = populate().ok_or(MigrateError::NoMemory)?;
        if !self.holds(&devmem, range) {
            self.ops.devmem_release(devmem);
            return Err(MigrateError::Invalid);
        }
        let base = devmem.base;
        let target = Target { zdd: self.zdds.create(devmem), base, range, start_ns };
        let migrated = self.migrate_into(claim, &target, details, work, &set);
        if migrated.is_ok() {
            self.put_what_stayed(&target, &migration.parts);
        }
        self.release(self.zdds.put(target.zdd));
        migrated?;
        self.report(&target, &migration.parts);
        if migration.parts.iter().all(Part::carried) { Ok(()) } else { Err(MigrateError::Busy) }
    }

    /// Whether the allocation is this pagemap's and holds the range.
    fn holds(&self, devmem: &Devmem, range: HostRange) -> bool {
        let end = devmem.base.frame.checked_add(devmem.pages as u64);
        let ours = devmem.base.pagemap == self.id && end.is_some_and(|end| end <= self.frames);
        ours && range.pages() <= devmem.pages
    }

    /// Whether what was claimed shall move: all of it, and none of it from here.
    fn movable(&self, migration: &Migration, range: HostRange, set: &PagemapSet, from_others: FromOthers) -> bool {
        let movable = |part: &Part| match source(part) {
            Where::System => true,
            Where::Vram(id) => id != self.id && self.is_pushed(id, set, from_others),
        };
        migration.pages() == range.pages() && migration.parts.iter().all(movable)
    }

    /// Whether pages of another pagemap come by its engine.
    fn is_pushed(&self, from: PagemapId, set: &PagemapSet, from_others: FromOthers) -> bool {
        let may = match from_others {
            FromOthers::Push => true,
            FromOthers::RefuseSiblings | FromOthers::SiblingsStay => set.get(from).is_none(),
            FromOthers::RefuseAll => false,
        };
        may && set.find(from).is_some_and(|from| from.ops.pushes_to(self.id))
    }

    fn migrate_into(
        &self,
        claim: Claim<'_>,
        target: &Target,
        details: &MigrateDetails,
        work: &mut Work,
        set: &PagemapSet,
    ) -> Result<(), MigrateError> {
        claim.migration.aim(target.range, target.base);
        let staged = claim.stage()?;
        let migration = &mut *staged.0.migration;
        settle_holes(migration);
        let mut at = 0;
        while let Some((from, batch)) = next_batch(&migration.parts, at) {
            at = self.carry(from, batch, migration, work, set)?;
        }

        // From here on nothing fails as a whole, only run by run.
        let now_ns = sync::time::now_ns();
        self.zdds.set_timeslice_end(target.zdd, now_ns.saturating_add(u64::from(details.timeslice_ms) * NS_PER_MS));
        if details.settle_ms > 0 && migration.parts.iter().any(|part| source(part) != Where::System) {
            self.zdds.settle(target.zdd, now_ns.saturating_add(u64::from(details.settle_ms) * NS_PER_MS));
        }
        self.zdds.populate(target.zdd, target.range.pages());
        staged.commit().finish();
        Ok(())
    }

    /// Frames that nothing arrived in: nothing lives there.
    fn put_what_stayed(&self, target: &Target, parts: &[Part]) {
        for part in parts.iter().filter(|part| !part.carried()) {
            self.pages_put(target.base.add(target.range.page_index(part.range.start) as u64), part.pages());
        }
    }

    /// Carries one batch: pulled from system memory, or pushed by the tile that has it. Gives the part behind.
    fn carry(
        &self,
        from: Where,
        batch: Range<usize>,
        migration: &mut Migration,
        work: &mut Work,
        set: &PagemapSet,
    ) -> Result<usize, MigrateError> {
        let first = batch.start;
        let parts = migration.parts[batch].iter().filter(|part| part.outcome == Outcome::Pending);
        let pages = parts.clone().map(Part::pages).sum();
        let behind = match from {
            Where::System => {
                let pairs = parts.filter_map(|part| Some((part.to?.device()?, part.from?.host()?, part.pages())));
                let Work { runs, dma, .. } = work;
                let _mapped = DmaMapped::new(self.ops.device(), pairs, Direction::ToDevice, dma, runs)?;
                report(migration, first, pages, |told| self.ops.copy_to_devmem(runs, told))?
            }
            Where::Vram(id) => {
                let peer = set.find(id).ok_or(MigrateError::Busy)?;
                let pairs = parts.filter_map(|part| Some((part.from?.device()?, part.to?.device()?, part.pages())));
                let mapped = DeviceMapped::new(&*self.ops, peer.ops.device(), pairs, &mut work.runs)?;
                report(migration, first, pages, |told| peer.ops.copy_to_ram(mapped.runs(), told))?
            }
        };
        Ok(behind)
    }

    /// Tells of what moved, source by source.
    fn report(&self, target: &Target, parts: &[Part]) {
        let ns = sync::time::now_ns().saturating_sub(target.start_ns);
        let is_first = |at: &usize| parts[..*at].iter().all(|part| source(part) != source(&parts[*at]));
        for from in (0..parts.len()).filter(is_first).map(|at| source(&parts[at])) {
            let (pages, holes) = arrived(parts.iter().filter(|part| source(part) == from));
            if pages > 0 {
                let ns = ns * pages as u64 / target.range.pages() as u64;
                let (range, to, carried) = (target.range, Where::Vram(self.id), pages - holes);
                self.observer.event(&Event::Migrated { range, from, to, why: Why::Wanted, pages, carried, ns });
            }
        }
    }
}

/// Whether a claim got all of `range`, and all of it from VRAM of the same device, which the tile of `to` reaches.
fn stays(migration: &Migration, range: HostRange, set: &PagemapSet, to: &Pagemap) -> bool {
    let here = |part: &Part| matches!(source(part), Where::Vram(id) if set.get(id).is_some() && to.ops.pushes_to(id));
    migration.pages() == range.pages() && migration.parts.iter().all(here)
}

/// Whether any of the pages is to stay in the VRAM where it is, for now.
fn is_settling(migration: &Migration, set: &PagemapSet, now_ns: u64) -> bool {
    let in_vram = migration.parts.iter().filter_map(|part| part.from?.device());
    in_vram.filter_map(|page| set.find(page.pagemap)?.zdds.find(page)).any(|zdd| now_ns < zdd.settled_ns)
}

/// Why a claim did not get all of `range`: the VMA may say that it never will.
fn why_not(mm: &dyn HostMm, range: HostRange) -> MigrateError {
    match mm.vma_lookup(range.start) {
        None => MigrateError::NoVma,
        Some(vma) if !vma.range.covers(range) => MigrateError::Invalid,
        Some(_) => MigrateError::Busy,
    }
}
