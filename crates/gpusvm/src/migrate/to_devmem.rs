//! To VRAM: a range of addresses moves into one allocation, whole or not at all (as far as can be known).
//!
//! What is claimed may lie in system memory, nowhere yet, or in the VRAM of other tiles; each source is a
//! batch. Should pages of the destination pagemap be among them already, all of them end the migration well,
//! and some of them end it as busy: the driver sends the range home first, then tries again.
//!
//! The allocation belongs to a zdd from the first step on, so every way out puts it, and the last put
//! releases it, exactly once.
//!
//! Locking: none held by the caller below its SVM lock. Upstream: `drm_pagemap_migrate_to_devmem`.

use super::batch::{DeviceMapped, DmaMapped, next_batch, source};
use super::{Buffers, Claim, MigrateDetails, MigrateError};
use crate::device::Direction;
use crate::devmem::Devmem;
use crate::event::{Event, Where};
use crate::pagemap::{Pagemap, PagemapSet};
use crate::zdd::ZddKey;
use core::ops::Range;
use hostmm::{ClaimRequest, Claimed, Destination, DevicePage, HostMm, Select};
use units::{HostRange, SZ_4K};

const NS_PER_MS: u64 = 1_000_000;

/// Where a migration goes.
struct Target {
    zdd: ZddKey,
    base: DevicePage,
    range: HostRange,
}

impl Pagemap {
    /// Moves `range` into `devmem`, page by page from its base (`drm_pagemap_migrate_to_devmem`).
    ///
    /// Consumes `devmem`: it is released when the last page has left it, or at once where none came: on every
    /// error, and where all pages were in this pagemap already (then nothing moves, and that is `Ok`). After
    /// `Busy` some pages may have moved. `range` lies in one private anonymous VMA; `Invalid` or `Busy` else.
    /// `CpuTurn` is a matter of some milliseconds at most.
    /// Call with no lock of the engine held, and none that its callbacks take.
    pub fn migrate_to_devmem(
        &self,
        devmem: Devmem,
        range: HostRange,
        details: &MigrateDetails,
    ) -> Result<(), MigrateError> {
        let migrated = self.check(&devmem, range);
        let migrated = match migrated {
            Err(error) => {
                self.ops.devmem_release(devmem);
                Err(error)
            }
            Ok(()) => {
                let base = devmem.base;
                let zdd = self.zdds.create(devmem);
                let migrated = self.migrate_into(&Target { zdd, base, range }, details);
                self.release(self.zdds.put(zdd));
                migrated
            }
        };
        migrated.inspect_err(|&error| {
            self.observer.event(&Event::MigrateFailed { range, to: Where::Vram(self.id), error });
        })
    }

    /// Whether the allocation is this pagemap's and holds the range.
    fn check(&self, devmem: &Devmem, range: HostRange) -> Result<(), MigrateError> {
        let aligned = range.start.is_aligned(SZ_4K) && range.end.is_aligned(SZ_4K);
        let fits = 0 < range.pages() && range.pages() <= devmem.pages;
        let end = devmem.base.frame.checked_add(devmem.pages as u64);
        let ours = devmem.base.pagemap == self.id && end.is_some_and(|end| end <= self.frames);
        if aligned && fits && ours { Ok(()) } else { Err(MigrateError::Invalid) }
    }

    fn migrate_into(&self, target: &Target, details: &MigrateDetails) -> Result<(), MigrateError> {
        let start_ns = sync::time::now_ns();
        let mm = self.mm.upgrade().ok_or(MigrateError::Gone)?;
        let set = self.set.upgrade().ok_or(MigrateError::Gone)?;
        check_vma(&*mm, target.range)?;
        if self.turns.holds(target.range, start_ns) {
            return Err(MigrateError::CpuTurn);
        }

        let pages = target.range.pages();
        let mut buffers = self.scratch.take();
        let buffers = &mut *buffers;
        buffers.reset(pages);
        let request = ClaimRequest { range: target.range, owner: self.owner, select: Select::All, fault: None };
        let claim = Claim::by_address(&*mm, &request, &mut buffers.claimed)?;
        if self.judge(&buffers.claimed, &set)? == Verdict::AlreadyThere {
            return Ok(());
        }
        for (i, to) in buffers.to.iter_mut().enumerate() {
            *to = Destination::Device(target.base.add(i as u64));
        }
        let staged = claim.stage(&buffers.to, &mut buffers.frames)?;
        let mut at = 0;
        while let Some((from, batch)) = next_batch(&buffers.claimed, at) {
            at = batch.end;
            self.carry(from, batch, target, buffers, &set)?;
        }

        // From here on nothing fails as a whole, only page by page.
        let now_ns = sync::time::now_ns();
        self.zdds.set_timeslice_end(target.zdd, now_ns.saturating_add(u64::from(details.timeslice_ms) * NS_PER_MS));
        self.zdds.populate(target.zdd, pages);
        for (wanted, (carried, claimed)) in buffers.wanted.iter_mut().zip(buffers.carried.iter().zip(&buffers.claimed))
        {
            *wanted = *carried || *claimed == Claimed::Hole;
        }
        staged.commit(&buffers.wanted, &mut buffers.moved).finish();
        for (i, _) in buffers.moved.iter().enumerate().filter(|(_, moved)| !**moved) {
            self.pages_put(target.base.add(i as u64), 1);
        }
        self.report(target.range, buffers, &set, sync::time::now_ns().saturating_sub(start_ns));
        if buffers.moved.contains(&false) { Err(MigrateError::Busy) } else { Ok(()) }
    }

    /// Whether what was claimed shall move: all of it, and none of it from here.
    fn judge(&self, claimed: &[Claimed], set: &PagemapSet) -> Result<Verdict, MigrateError> {
        let mut own = 0;
        for page in claimed {
            match page {
                Claimed::No => return Err(MigrateError::Busy),
                Claimed::Hole | Claimed::System(_) => {}
                Claimed::Device(page) if page.pagemap == self.id => own += 1,
                Claimed::Device(page) if set.get(page.pagemap).is_none() => return Err(MigrateError::Busy),
                Claimed::Device(_) => {}
            }
        }
        match own {
            0 => Ok(Verdict::Move),
            own if own == claimed.len() => Ok(Verdict::AlreadyThere),
            _ => Err(MigrateError::Busy),
        }
    }

    /// Carries one batch: pulled from system memory, or pushed by the tile that has it.
    fn carry(
        &self,
        from: Where,
        batch: Range<usize>,
        target: &Target,
        buffers: &mut Buffers,
        set: &PagemapSet,
    ) -> Result<(), MigrateError> {
        let destination = batch.clone().map(|i| target.base.add(i as u64));
        let claimed = &buffers.claimed[batch.clone()];
        let pages = &mut buffers.pages[batch.clone()];
        let addr = &mut buffers.addr[batch.clone()];
        let carried = &mut buffers.carried[batch.clone()];
        match from {
            Where::System => {
                let frames = &mut buffers.frames[batch];
                for (((page, frame), claimed), to) in
                    pages.iter_mut().zip(frames.iter_mut()).zip(claimed).zip(destination)
                {
                    if let Claimed::System(source) = claimed {
                        (*page, *frame) = (Some(to), Some(*source));
                    }
                }
                let _mapped = DmaMapped::new(self.ops.device(), frames, Direction::ToDevice, addr)?;
                self.ops.copy_to_devmem(pages, addr, carried)?;
            }
            Where::Vram(id) => {
                let peer = set.get(id).ok_or(MigrateError::Busy)?;
                for (page, claimed) in pages.iter_mut().zip(claimed) {
                    if let Claimed::Device(source) = claimed {
                        *page = Some(*source);
                    }
                }
                let mapped = DeviceMapped::new(&*self.ops, destination, addr)?;
                peer.ops.copy_to_ram(pages, mapped.addr(), carried)?;
            }
        }
        Ok(())
    }

    /// Tells of what moved, source by source.
    fn report(&self, range: HostRange, buffers: &Buffers, set: &PagemapSet, ns: u64) {
        let sources = core::iter::once(Where::System).chain(set.iter().map(|map| Where::Vram(map.id)));
        for from in sources {
            let (mut pages, mut carried) = (0, 0);
            for (i, claimed) in buffers.claimed.iter().enumerate() {
                if source(claimed) == Some(from) && buffers.moved[i] {
                    pages += 1;
                    carried += usize::from(buffers.carried[i]);
                }
            }
            if pages > 0 {
                let ns = ns * pages as u64 / buffers.claimed.len() as u64;
                let to = Where::Vram(self.id);
                self.observer.event(&Event::Migrated { range, from, to, pages, carried, ns });
            }
        }
    }
}

/// What is to be done with what was claimed.
#[derive(PartialEq, Eq)]
enum Verdict {
    Move,
    AlreadyThere,
}

/// Whether `range` can migrate at all, as far as its VMA says.
fn check_vma(mm: &dyn HostMm, range: HostRange) -> Result<(), MigrateError> {
    let vma = mm.vma_lookup(range.start).ok_or(MigrateError::NoVma)?;
    if !vma.range.covers(range) {
        return Err(MigrateError::Invalid);
    }
    if !vma.anonymous {
        return Err(MigrateError::Busy);
    }
    Ok(())
}
