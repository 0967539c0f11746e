//! To system memory, because VRAM is needed: a whole allocation, wherever its pages are mapped.
//!
//! Pages are claimed by device page, not by address, so no VMA and no mirror is asked; the host mm finds the
//! mappings and calls their notifiers. Minimum residency does not count here.
//!
//! Locking: no engine lock held; may be called from the driver's VRAM allocation path.
//! Upstream: `drm_pagemap_evict_to_ram`.

use super::Claim;
use crate::call::MigrateError;
use crate::event::{Event, Where, Why};
use crate::pagemap::Pagemap;
use crate::scratch::Buffers;
use crate::zdd::ZddView;
use hostmm::{DevicePage, DeviceRun, HostMm, Part};
use units::HostRange;

/// How often an allocation is tried to be emptied.
const ATTEMPTS: u32 = 3;

impl Pagemap {
    /// Empties the allocation that `page` lies in (`drm_pagemap_evict_to_ram`). `Ok`: no page lives in it any
    /// more, and it is released as soon as nobody else looks at it. `Busy`: some stayed, after three attempts.
    /// An allocation that is gone already is `Ok`. Call with no lock held that notifier callbacks take.
    pub fn evict_to_ram(&self, page: DevicePage) -> Result<(), MigrateError> {
        let Some(zdd) = self.zdds.get(page) else {
            self.observer.event(&Event::EvictionOvertaken { pages: 0 });
            return Ok(());
        };
        let evicted = self.evict_zdd(&zdd);
        self.release(self.zdds.put(zdd.key));
        evicted
    }

    fn evict_zdd(&self, zdd: &ZddView) -> Result<(), MigrateError> {
        let mm = self.mm.upgrade().ok_or(MigrateError::Gone)?;
        let mut buffers = self.scratch.take();
        let (mut last, mut first_seen, mut carried) = (MigrateError::Busy, None, 0);
        for _ in 0..ATTEMPTS {
            if !self.zdds.live_runs(zdd.key, &mut buffers.work.live) {
                break;
            }
            first_seen.get_or_insert_with(|| pages_of(&buffers.work.live));
            match self.evict_once(&*mm, &mut buffers) {
                Ok(pages) => carried += pages,
                Err(error) => last = error,
            }
        }
        if self.zdds.live_runs(zdd.key, &mut buffers.work.live) {
            return Err(last);
        }
        let by_others = first_seen.map(|seen: usize| seen.saturating_sub(carried));
        if by_others != Some(0) {
            self.observer.event(&Event::EvictionOvertaken { pages: by_others.unwrap_or(0) });
        }
        Ok(())
    }

    /// One attempt; the pages that it carried.
    fn evict_once(&self, mm: &dyn HostMm, buffers: &mut Buffers) -> Result<usize, MigrateError> {
        let start_ns = sync::time::now_ns();
        let Buffers { migration, work } = buffers;
        let claim = Claim::by_page(mm, &work.live, migration)?;
        self.carry_back(claim, work)?;
        let pages = migration.carried();
        if let Some(range) = hull(&migration.parts)
            && pages > 0
        {
            let (from, to) = (Where::Vram(self.id), Where::System);
            let ns = sync::time::now_ns().saturating_sub(start_ns);
            self.observer.event(&Event::Migrated { range, from, to, why: Why::Evicted, pages, carried: pages, ns });
        }
        Ok(pages)
    }
}

fn pages_of(runs: &[DeviceRun]) -> usize {
    runs.iter().map(|run| run.pages).sum()
}

/// The smallest range around all `parts`.
fn hull(parts: &[Part]) -> Option<HostRange> {
    let first = parts.iter().map(|part| part.range.start).min()?;
    let last = parts.iter().map(|part| part.range.end).max()?;
    Some(HostRange::new(first, last))
}
