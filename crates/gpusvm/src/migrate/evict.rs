//! To system memory, because VRAM is needed: a whole allocation, wherever its pages are mapped.
//!
//! Pages are claimed by device page, not by address, so no VMA and no mirror is asked; the host mm finds the
//! mappings and tells their notifiers. Minimum residency does not count here.
//!
//! Locking: no engine lock held; may be called from the driver's VRAM allocation path.
//! Upstream: `drm_pagemap_evict_to_ram`.

use super::{Claim, MigrateError};
use crate::event::{Event, Where};
use crate::pagemap::Pagemap;
use crate::zdd::ZddView;
use alloc::vec;
use alloc::vec::Vec;
use hostmm::{Destination, DevicePage, HostMm};
use units::{HostRange, HostVa, SZ_4K};

/// How often an allocation is tried to be emptied.
const ATTEMPTS: u32 = 3;

impl Pagemap {
    /// Empties the allocation that `page` lies in (`drm_pagemap_evict_to_ram`). `Ok`: no page lives in it any
    /// more, and it is released as soon as nobody else looks at it. `Busy`: some stayed, after three attempts.
    /// An allocation that is gone already is `Ok`. Call with no lock held that notifier callbacks take.
    pub fn evict_to_ram(&self, page: DevicePage) -> Result<(), MigrateError> {
        let Some(zdd) = self.zdds.get(page) else { return Ok(()) };
        let evicted = self.evict_zdd(&zdd);
        self.release(self.zdds.put(zdd.key));
        evicted
    }

    fn evict_zdd(&self, zdd: &ZddView) -> Result<(), MigrateError> {
        let mm = self.mm.upgrade().ok_or(MigrateError::Gone)?;
        let mut last = MigrateError::Busy;
        for _ in 0..ATTEMPTS {
            let mut live = Vec::with_capacity(zdd.pages);
            self.zdds.live_pages(zdd.key, &mut live);
            if live.is_empty() {
                return Ok(());
            }
            match self.evict_once(&*mm, &live) {
                Ok(()) => {}
                Err(error) => last = error,
            }
        }
        let mut live = Vec::new();
        self.zdds.live_pages(zdd.key, &mut live);
        if live.is_empty() { Ok(()) } else { Err(last) }
    }

    fn evict_once(&self, mm: &dyn HostMm, live: &[DevicePage]) -> Result<(), MigrateError> {
        let start_ns = sync::time::now_ns();
        let mut buffers = self.scratch.take();
        let buffers = &mut *buffers;
        buffers.reset(live.len());
        let mut places = vec![None; live.len()];
        let claim = Claim::by_page(mm, live, &mut places)?;
        for (i, &page) in live.iter().enumerate().filter(|(i, _)| places[*i].is_some()) {
            (buffers.pages[i], buffers.to[i]) = (Some(page), Destination::Ram);
        }
        let pages = self.carry_home(claim, buffers)?.pages;
        if let Some(range) = hull(&places)
            && pages > 0
        {
            let (from, to) = (Where::Vram(self.id), Where::System);
            let ns = sync::time::now_ns().saturating_sub(start_ns);
            self.observer.event(&Event::Migrated { range, from, to, pages, carried: pages, ns });
        }
        Ok(())
    }
}

/// The smallest range around all `places`.
fn hull(places: &[Option<HostVa>]) -> Option<HostRange> {
    let first = places.iter().flatten().min()?;
    let last = places.iter().flatten().max()?;
    Some(HostRange::new(first.page(), last.page().add(SZ_4K)))
}
