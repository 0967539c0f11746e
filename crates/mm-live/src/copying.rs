//! Where a page cannot simply move: shared copy-on-write, or a kernel without UFFDIO_MOVE.

use crate::LiveMm;
use crate::leg::Leg;
use crate::sys::{Errno, mem};
use crate::transfer::{Purpose, Pushed, Step};
use gpusvm::hostmm::Transferred;
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
        let entries = map.claims.get_mut(&claim)?.entries.get_mut(entry..entry + pages)?;
        entries.iter_mut().for_each(|entry| entry.filling = filling);
        entries.first().filter(|entry| !entry.dead).map(|entry| entry.va)
    }

    /// Waits until no reader is in the middle of filling a hole of the claim. The mover holds nothing here, and a
    /// reader that fills waits for nobody.
    fn let_fillers_out(&self, claim: u64) {
        let is_busy = || {
            let map = self.map.lock();
            map.claims.get(&claim).is_some_and(|claim| claim.entries.iter().any(|entry| entry.zeroing))
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
        let pushed = match self.device.copy(dst, va.0, range.len()) {
            progress if progress.bytes > 0 => {
                Pushed::Went((progress.bytes >> PAGE_SHIFT) as usize, Transferred::Copied)
            }
            progress if progress.error == Some(Errno::AGAIN) => Pushed::Not(Step::Again),
            _ => Pushed::Not(self.count_invalid()),
        };
        // What is missing from here on is missing because it is in VRAM: no reader may fill it with zeros.
        self.set_filling(claim, entry, leg.pages, false);
        self.let_fillers_out(claim);
        if let Pushed::Went(pages, how) = pushed {
            // The note comes first: from now on the page's bytes are in VRAM, whatever becomes of the source.
            done[..pages].fill(how);
            self.note_step(claim, entry, Leg { pages, ..leg }, purpose, &done[..pages]);
            self.drop_own(HostRange::sized(va, bytes_of(pages)));
        }
        let _ = self.program.protect(range, false);
        self.program.wake(range);
        pushed.into()
    }
}
