//! Where a page cannot simply move: shared copy-on-write, or a kernel without UFFDIO_MOVE.

use crate::LiveMm;
use crate::leg::Leg;
use crate::sys::{Errno, mem};
use crate::transfer::{Purpose, Step};
use hostmm::{Place, Transferred};
use units::{HostRange, HostVa, PAGE_SHIFT, SZ_4K, bytes_of};

impl LiveMm {
    /// Gives the program's page a copy of its own where it is shared. The page may vanish under us: then the
    /// fault of this very thread must be answered although the page is claimed.
    pub(crate) fn break_sharing(&self, claim: u64, entry: usize) {
        let va = self.set_filling(claim, entry, 1, true);
        if let Some(va) = va {
            let _ = mem::advise(HostRange::sized(va, SZ_4K), mem::Advice::PopulateWrite);
        }
        self.set_filling(claim, entry, 1, false);
    }

    fn set_filling(&self, claim: u64, entry: usize, pages: usize, filling: bool) -> Option<HostVa> {
        let mut map = self.map.lock();
        let entries = map.claims.get_mut(claim)?.entries.get_mut(entry..entry + pages)?;
        entries.iter_mut().for_each(|entry| entry.filling = filling);
        entries.first().filter(|entry| !entry.dead).map(|entry| entry.va)
    }

    /// Waits until no reader is in the middle of filling a hole of the claim. The mover holds nothing here, and a
    /// reader that fills waits for nobody.
    fn let_fillers_out(&self, claim: u64) {
        let is_busy = || {
            let map = self.map.lock();
            map.claims.get(claim).is_some_and(|claim| claim.entries.iter().any(|entry| entry.zeroing))
        };
        while is_busy() {
            crate::sys::task::relax();
        }
    }

    /// Without UFFDIO_MOVE: keep writers out, copy, drop the source. The drop raises an event of our own, whose
    /// message names exactly the range that is noted beforehand; so no lock is held here.
    pub(crate) fn copy_to_device(
        &self,
        claim: u64,
        entry: usize,
        leg: Leg,
        purpose: Purpose,
        done: &mut [Transferred],
    ) -> Step {
        let (Some(va), Some(dst)) = (self.address(leg.src).map(HostVa), self.address(leg.dst)) else {
            return Step::Failed;
        };
        let range = HostRange::sized(va, bytes_of(leg.pages));
        match self.program.protect(range, true) {
            Ok(()) => {}
            Err(Errno::AGAIN) => return Step::Again,
            Err(_) => return self.count_invalid(),
        }
        self.set_filling(claim, entry, leg.pages, true);
        let copied = self.device.copy(dst, va.0, range.len());
        // What is missing from here on is missing because it is in VRAM: no reader may fill it with zeros.
        self.set_filling(claim, entry, leg.pages, false);
        self.let_fillers_out(claim);
        let pages = (copied.bytes >> PAGE_SHIFT) as usize;
        let step = match copied.error {
            _ if pages > 0 => self.keep_copy(claim, entry, Leg { pages, ..leg }, purpose, &mut done[..pages]),
            Some(Errno::AGAIN) => Step::Again,
            _ => self.count_invalid(),
        };
        if let Step::Went(pages) = step {
            self.drop_own(HostRange::sized(va, bytes_of(pages)));
            self.give_up_undropped(claim, entry, Leg { pages, ..leg }, &mut done[..pages]);
        }
        let _ = self.program.protect(range, false);
        self.program.wake(range);
        step
    }

    /// Notes a copy before its source goes: from now on the page's bytes are in VRAM, whatever becomes of the source.
    /// A copy of what lies there since another mapping took the place is none of the page; it is thrown away.
    fn keep_copy(&self, claim: u64, entry: usize, leg: Leg, purpose: Purpose, done: &mut [Transferred]) -> Step {
        let unread = self.hold_events();
        let (alive, _) = self.map.lock().alive_run(claim, entry, &leg, purpose);
        if alive == leg.pages && !self.program.event_pending() {
            done.fill(Transferred::Copied);
            self.note_step(claim, entry, leg, purpose, done);
            return Step::Went(leg.pages);
        }
        drop(unread);
        if let Place::Device(page) = leg.dst {
            let copies: Vec<_> = (0..leg.pages as u64).map(|offset| page.add(offset)).collect();
            self.empty_frames(&copies);
        }
        Step::Again
    }

    /// A page that an mremap took away from under the drop is in system memory still: that is where it stays.
    fn give_up_undropped(&self, claim: u64, entry: usize, leg: Leg, done: &mut [Transferred]) {
        let mut tries = 0;
        let _unread = loop {
            let unread = self.hold_events();
            if !self.program.event_pending() {
                break unread;
            }
            drop(unread);
            if !self.make_way(&mut tries) {
                return;
            }
        };
        for (offset, how) in done.iter_mut().enumerate() {
            let state = self.map.lock().entry(claim, entry + offset);
            let remapped =
                state.is_some_and(|state| state.remapped && !state.dead && self.leading_run(state.va.0, 1).1);
            if let (true, Place::Device(page)) = (remapped, leg.dst.add(offset as u64)) {
                *how = Transferred::Failed;
                self.note_carried(claim, entry + offset, *how);
                self.empty_frames(&[page]);
            }
        }
    }
}
