//! Batches: what one source's engine carries in one go, and the mappings it does that by.
//!
//! Pages of system memory are pulled into VRAM by the destination's engine. Pages of another pagemap are
//! *pushed* by the source's, which may be of another device: the destination pages are mapped for it by the destination's own
//! operations and handed to the source's `copy_to_ram` as addresses. A batch never mixes sources.
//!
//! Mappings are guards, one for each run: they end when the batch does, whatever its outcome.
//!
//! Locking: none held, none taken. Upstream: `drm_pagemap_migrate_map_system_pages`,
//! `drm_pagemap_migrate_map_device_private_pages`, `drm_pagemap_migrate_sys_to_dev`,
//! `drm_pagemap_migrate_remote_to_local`.

use crate::device::{Device, Direction, MapError, PagemapAddr};
use crate::devmem::{CopyError, CopyRun, DevmemOps};
use crate::event::Where;
use alloc::vec::Vec;
use hostmm::{DevicePage, Migration, Part, Place};
use units::{HostFrame, Iova, Outcome, Report};

/// Where the pages of a part are; holes are in system memory.
pub(super) fn source(part: &Part) -> Where {
    match part.from {
        None | Some(Place::Host(_)) => Where::System,
        Some(Place::Device(page)) => Where::Vram(page.pagemap),
    }
}

/// Decides what needs no engine: a hole is carried by saying so, and what has no destination stays.
pub(super) fn settle_holes(migration: &mut Migration) {
    for part in &mut migration.parts {
        match (part.from, part.to) {
            (_, None) => part.outcome = Outcome::Failed,
            (None, Some(_)) => part.outcome = Outcome::Zeroed,
            (Some(_), Some(_)) => {}
        }
    }
}

/// The parts that are still to be carried from the first one at `at` or behind, as far as they have one source: the
/// source, and their places in the migration. Parts in between that need no engine are passed over.
pub(super) fn next_batch(parts: &[Part], at: usize) -> Option<(Where, core::ops::Range<usize>)> {
    let pending = |part: &&Part| part.outcome == Outcome::Pending;
    let first = at + parts[at..].iter().position(|part| pending(&part))?;
    let from = source(&parts[first]);
    let same = |part: &&Part| !pending(part) || source(part) == from;
    Some((from, first..first + parts[first..].iter().take_while(same).count()))
}

/// Runs one copy and writes its report to the parts from `first` on. What the engine says nothing of has failed. Gives
/// the part behind.
pub(super) fn report(
    migration: &mut Migration,
    first: usize,
    pages: usize,
    copy: impl FnOnce(&mut Report<'_>) -> Result<(), CopyError>,
) -> Result<usize, CopyError> {
    let mut left = pages;
    let mut reporter = migration.report_from(first);
    copy(&mut |pages, outcome| {
        let pages = pages.min(left);
        left -= pages;
        reporter.note(pages, outcome);
    })?;
    reporter.note(left, Outcome::Failed);
    Ok(reporter.part())
}

/// System memory mapped for a device, one mapping for each run.
pub(super) struct DmaMapped<'a> {
    device: &'a dyn Device,
    mapped: &'a mut Vec<(Iova, usize)>,
}

impl<'a> DmaMapped<'a> {
    /// Maps `pairs`, each a page of VRAM, a frame and a number of pages, and writes to `runs` what the device is given.
    pub(super) fn new(
        device: &'a dyn Device,
        pairs: impl Iterator<Item = (DevicePage, HostFrame, usize)>,
        dir: Direction,
        mapped: &'a mut Vec<(Iova, usize)>,
        runs: &mut Vec<CopyRun>,
    ) -> Result<Self, MapError> {
        mapped.clear();
        runs.clear();
        let this = Self { device, mapped };
        for (page, frame, pages) in pairs {
            let iova = device.dma_map(frame, pages, dir)?;
            this.mapped.push((iova, pages));
            runs.push(CopyRun { page, addr: PagemapAddr::system(iova, pages, dir) });
        }
        Ok(this)
    }
}

impl Drop for DmaMapped<'_> {
    fn drop(&mut self) {
        for (iova, pages) in self.mapped.drain(..) {
            self.device.dma_unmap(iova, pages);
        }
    }
}

/// Pages of VRAM mapped for the device whose engine will write them.
pub(super) struct DeviceMapped<'a> {
    by: &'a dyn Device,
    runs: &'a mut Vec<CopyRun>,
}

impl<'a> DeviceMapped<'a> {
    /// Maps the second of each of `pairs` (source, destination, number of pages), which are all `ops`', for `by`.
    pub(super) fn new(
        ops: &dyn DevmemOps,
        by: &'a dyn Device,
        pairs: impl Iterator<Item = (DevicePage, DevicePage, usize)>,
        runs: &'a mut Vec<CopyRun>,
    ) -> Result<Self, MapError> {
        runs.clear();
        let this = Self { by, runs };
        for (page, to, pages) in pairs {
            let addr = ops.device_map(by, to, pages, Direction::FromDevice)?;
            this.runs.push(CopyRun { page, addr });
        }
        Ok(this)
    }

    /// What the source's engine is given.
    pub(super) fn runs(&self) -> &[CopyRun] {
        self.runs
    }
}

impl Drop for DeviceMapped<'_> {
    fn drop(&mut self) {
        for run in self.runs.drain(..) {
            run.addr.unmap(self.by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use hostmm::{PagemapId, Run};
    use units::{HostRange, HostVa, bytes_of};

    #[test]
    fn a_batch_has_one_source() {
        let vram = |pagemap, frame| Some(Place::Device(DevicePage { pagemap: PagemapId(pagemap), frame }));
        let system = |frame| Some(Place::Host(HostFrame(frame)));
        let mut migration = Migration::default();
        for (i, place) in [system(1), None, system(5), vram(1, 0), vram(1, 9), vram(2, 10)].into_iter().enumerate() {
            migration.collect(Run { range: HostRange::sized(HostVa(bytes_of(i)), bytes_of(1)), place });
        }
        migration.aim(HostRange::new(HostVa(0), HostVa(bytes_of(6))), DevicePage { pagemap: PagemapId(0), frame: 0 });
        settle_holes(&mut migration);
        assert_eq!(migration.parts[1].outcome, Outcome::Zeroed);
        let expected =
            vec![(Where::System, 0..3), (Where::Vram(PagemapId(1)), 3..5), (Where::Vram(PagemapId(2)), 5..6)];
        let mut at = 0;
        let batches = core::iter::from_fn(|| next_batch(&migration.parts, at).inspect(|(_, batch)| at = batch.end));
        assert_eq!(batches.take(9).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_the_engine_says_nothing_of_has_failed() {
        let mut migration = Migration::default();
        for (i, frame) in [Some(1), None, Some(5)].into_iter().enumerate() {
            let range = HostRange::sized(HostVa(bytes_of(2 * i)), bytes_of(2));
            migration.collect(Run { range, place: frame.map(|frame| Place::Host(HostFrame(frame))) });
        }
        migration.aim(HostRange::new(HostVa(0), HostVa(bytes_of(6))), DevicePage { pagemap: PagemapId(0), frame: 0 });
        settle_holes(&mut migration);
        let behind = report(&mut migration, 0, 4, |report| {
            report(3, Outcome::Moved);
            Ok(())
        });
        assert_eq!(behind, Ok(4));
        let seen: Vec<_> = migration.parts.iter().map(|part| (part.pages(), part.outcome)).collect();
        let (moved, zeroed, failed) = (Outcome::Moved, Outcome::Zeroed, Outcome::Failed);
        assert_eq!(seen, [(2, moved), (2, zeroed), (1, moved), (1, failed)]);
    }
}
