//! To system memory, because a CPU touched a page.
//!
//! The window is the allocation's size around the address, clipped to the VMA; of what is claimed there, only
//! pages of the touched page's own allocation move. Pages of other allocations, or other tiles, stay, and
//! their engines are not asked.
//!
//! Locking: reader class. The claim and the finish run notifier callbacks, which take the notifier lock;
//! beyond that the zdd lock and leaf locks. Nothing here waits.
//! Upstream: `drm_pagemap_migrate_to_ram`, `__drm_pagemap_migrate_to_ram`.

use super::Claim;
use super::batch::{DmaMapped, report, settle_holes};
use crate::call::MigrateError;
use crate::device::Direction;
use crate::event::{Event, Where, Why};
use crate::pagemap::Pagemap;
use crate::scratch::{Buffers, Work};
use crate::zdd::ZddView;
use hostmm::{ClaimRequest, CpuFault, FaultOutcome, HostMm, Migration, Part, Place, Toward};
use units::{HostRange, Outcome, bytes_of};

/// What migrated back.
#[derive(Clone, Copy, Default)]
pub(super) struct MigratedBack {
    pub(super) pages: usize,
}

impl Pagemap {
    /// Serves a CPU's touch of one of its pages (`drm_pagemap_migrate_to_ram`).
    pub(crate) fn cpu_fault(&self, mm: &dyn HostMm, fault: &CpuFault) -> FaultOutcome {
        let start_ns = sync::time::now_ns();
        // Gone meanwhile: the toucher finds something else there.
        let Some(zdd) = self.zdds.find(fault.page) else { return FaultOutcome::Retry };
        let Some(window) = window(&zdd, fault) else { return FaultOutcome::Retry };
        if start_ns < zdd.timeslice_end_ns
            && self.turns().defers(fault.addr.page(), window, zdd.timeslice_end_ns, start_ns)
        {
            self.observer.event(&Event::CpuFaultDeferred { addr: fault.addr });
            return FaultOutcome::Defer;
        }
        match self.migrate_back(mm, fault, &zdd, window) {
            Ok(MigratedBack { pages: 0 }) => FaultOutcome::Retry,
            Ok(MigratedBack { pages }) => {
                let now_ns = sync::time::now_ns();
                self.turns().served(window, now_ns);
                let ns = now_ns.saturating_sub(start_ns);
                let (from, to) = (Where::Vram(self.id), Where::System);
                self.observer.event(&Event::Migrated {
                    range: window,
                    from,
                    to,
                    why: Why::Touched,
                    pages,
                    carried: pages,
                    ns,
                });
                self.observer.event(&Event::CpuFault { addr: fault.addr, thread: fault.thread, pages, ns });
                FaultOutcome::Retry
            }
            // The address space changed under the fault: whoever touches sees what is there now.
            Err(MigrateError::Busy | MigrateError::NoVma) => FaultOutcome::Retry,
            Err(error) => {
                self.observer.event(&Event::MigrateFailed { range: window, to: Where::System, error });
                // The pages are where they were, and their data with them: a shortage may pass.
                if error.is_shortage() { FaultOutcome::Defer } else { FaultOutcome::Fatal }
            }
        }
    }

    fn migrate_back(
        &self,
        mm: &dyn HostMm,
        fault: &CpuFault,
        zdd: &ZddView,
        window: HostRange,
    ) -> Result<MigratedBack, MigrateError> {
        let mut buffers = self.scratch.take();
        let Buffers { migration, work } = &mut *buffers;
        let request =
            ClaimRequest { range: window, owner: self.owner, toward: Toward::Ram, fault: Some(fault.addr.page()) };
        let Some(claim) = Claim::by_address(mm, &request, migration)? else { return Ok(MigratedBack::default()) };
        keep_within(claim.migration, zdd);
        // The frames may be another allocation's by now. Claimed pages keep theirs, so one of them tells for all.
        let first = claim.migration.parts.first().and_then(|part| part.from?.device());
        if first.and_then(|page| self.zdds.find(page)).is_none_or(|found| found.key != zdd.key) {
            return Ok(MigratedBack::default());
        }
        self.carry_back(claim, work)?;
        Ok(MigratedBack { pages: migration.carried() })
    }

    /// Carries all pages of a claim to system memory.
    pub(super) fn carry_back(&self, claim: Claim<'_>, work: &mut Work) -> Result<(), MigrateError> {
        if claim.migration.parts.is_empty() {
            return Ok(());
        }
        let staged = claim.stage()?;
        {
            let migration = &mut *staged.0.migration;
            settle_holes(migration);
            let parts = migration.parts.iter().filter(|part| part.outcome == Outcome::Pending);
            let pages = parts.clone().map(Part::pages).sum();
            let pairs = parts.filter_map(|part| Some((part.from?.device()?, part.to?.host()?, part.pages())));
            let Work { runs, dma, .. } = work;
            let _mapped = DmaMapped::new(self.ops.device(), pairs, Direction::FromDevice, dma, runs)?;
            report(migration, 0, pages, |told| self.ops.copy_to_ram(runs, told))?;
        }
        staged.commit().finish();
        Ok(())
    }
}

/// Takes out what is not of one allocation. A run may reach over its border: frames of neighbours follow each other.
fn keep_within(migration: &mut Migration, zdd: &ZddView) {
    let mut index = 0;
    while let Some(part) = migration.parts.get(index) {
        let Some(first) = part.from.and_then(Place::device) else {
            migration.parts.remove(index);
            continue;
        };
        let inside = if zdd.contains(first) { zdd.pages_from(first) } else { 0 };
        let outside = zdd.base.frame.saturating_sub(first.frame) as usize;
        match (inside, part.pages()) {
            (0, pages) if first.pagemap == zdd.base.pagemap && 0 < outside && outside < pages => {
                migration.split(index, outside);
            }
            (0, _) => _ = migration.parts.remove(index),
            (inside, pages) => {
                if inside < pages {
                    migration.split(index, inside);
                }
                index += 1;
            }
        }
    }
}

/// The allocation's size around the address, clipped to the VMA.
fn window(zdd: &ZddView, fault: &CpuFault) -> Option<HostRange> {
    let size = bytes_of(zdd.pages.next_power_of_two());
    HostRange::around(fault.addr, size).intersect(fault.vma)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devmem::Devmem;
    use crate::zdd::Zdds;
    use alloc::vec::Vec;
    use hostmm::{DevicePage, PagemapId, Run};
    use units::HostVa;

    #[test]
    fn only_the_allocations_own_pages_are_kept() {
        let page = |frame| DevicePage { pagemap: PagemapId(0), frame };
        let zdds = Zdds::new(None);
        let key = zdds.create(Devmem { base: page(16), pages: 8, cookie: 0 });
        let zdd = zdds.find(page(16)).expect("created");
        let mut migration = Migration::default();
        let run = |first: usize, pages, frame| Run {
            range: HostRange::sized(HostVa(bytes_of(first)), bytes_of(pages)),
            place: Some(Place::Device(page(frame))),
        };
        // Over both borders; before; behind; inside.
        for run in [run(0, 32, 4), run(40, 4, 8), run(50, 4, 24), run(60, 2, 20)] {
            migration.collect(run);
        }
        keep_within(&mut migration, &zdd);
        let kept: Vec<_> =
            migration.parts.iter().map(|part| (part.range.start.page_number(), part.pages(), part.from)).collect();
        assert_eq!(kept, [(12, 8, Some(Place::Device(page(16)))), (60, 2, Some(Place::Device(page(20))))]);
        assert_eq!(zdds.put(key).into_iter().count(), 1);
    }
}
