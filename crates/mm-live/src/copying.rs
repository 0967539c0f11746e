//! Where a page cannot simply move: shared copy-on-write, or a kernel without UFFDIO_MOVE.

use crate::LiveMm;
use crate::books::Filling;
use crate::kernel::{Descriptor, Errno};
use crate::transfer::{Piece, Step, Transfer};
use hostmm::{AtomicOp, DeviceRun, Place};
use units::{HostRange, HostVa, Outcome, PAGE_SHIFT, bytes_of};

impl LiveMm {
    /// Gives the program's page a copy of its own where it is shared. The page may vanish under us: then the
    /// fault of this very thread must be answered although the page is claimed.
    pub(crate) fn break_sharing(&self, page: Transfer) {
        if let Some(va) = self.set_filling(page, Filling::Open) {
            // By an access of this thread's own: see `LiveMm::populate` in `walk`.
            let _ = self.kernel.atomic(va, 4, AtomicOp::Add(0));
        }
        self.set_filling(page, Filling::Never);
    }

    /// Lets readers fill pages of a claim, or not any more. A reader in the middle of one is waited for: it waits for
    /// nobody. Gives where the first page is.
    fn set_filling(&self, pages: Transfer, filling: Filling) -> Option<HostVa> {
        loop {
            let (mut busy, mut first) = (false, None);
            self.books.lock().update_named(pages, |entry| {
                busy |= entry.filling == Filling::Busy;
                if entry.filling != Filling::Busy {
                    entry.filling = filling;
                }
                first = first.or((!entry.cancelled).then_some(entry.va));
            });
            if !busy {
                return first;
            }
            sync::yield_now();
        }
    }

    /// Without UFFDIO_MOVE: keep writers out, copy, drop the source. The drop raises an event of our own, whose
    /// message names exactly the range that is noted beforehand; so no lock is held here.
    pub(crate) fn copy_to_device(&self, transfer: Transfer, piece: &Piece, src: HostVa, dst: HostVa) -> Step {
        let range = HostRange::sized(src, bytes_of(piece.pages));
        match self.kernel.protect(range, true) {
            Ok(()) => {}
            Err(Errno::AGAIN) => return Step::Again,
            // Kernels before 6.3 protect within one mapping only.
            Err(Errno::NOENT) if piece.pages > 1 => return Step::Single,
            Err(_) => return self.count_invalid(),
        }
        self.set_filling(transfer, Filling::Open);
        let copied = self.kernel.copy(Descriptor::Device, dst, src, range.len());
        // What is missing from here on is missing because it is in VRAM: no reader may fill it with zeros.
        self.set_filling(transfer, Filling::Never);
        let pages = (copied.bytes >> PAGE_SHIFT) as usize;
        let mut step = match copied.error {
            _ if pages > 0 => self.keep_copy(transfer.first(pages), piece.to),
            Some(Errno::AGAIN) => Step::Again,
            _ => self.count_invalid(),
        };
        if let Step::Went(pages, _) = step
            && !self.drop_source(transfer.first(pages), src, piece.to)
        {
            step = Step::Again;
        }
        let _ = self.kernel.protect(range, false);
        self.kernel.wake(range);
        step
    }

    /// Drops what was copied. False where it is there still.
    fn drop_source(&self, transfer: Transfer, src: HostVa, to: Place) -> bool {
        self.drop_own(HostRange::sized(src, transfer.name.len()));
        self.books.lock().update_named(transfer, |entry| entry.dropping = false);
        self.is_dropped(transfer, to)
    }

    /// Notes a copy before its source goes: from now on the pages' bytes are in VRAM, whatever becomes of the source.
    /// The program may free a page between this and the drop. What it writes then must come after the drop: its writers,
    /// whom the protection stops, wait for the end of the claim.
    /// A copy of what lies there since another mapping took the place is none of the pages'; it is thrown away.
    fn keep_copy(&self, transfer: Transfer, to: Place) -> Step {
        let pages = transfer.name.pages();
        let unread = self.hold_events();
        let mut alive = true;
        self.books.lock().update_named(transfer, |entry| alive &= !entry.cancelled && !entry.is_remapped());
        if alive && !self.kernel.event_pending() {
            self.note(transfer, Outcome::Copied);
            self.books.lock().update_named(transfer, |entry| entry.dropping = true);
            return Step::Went(pages, Outcome::Copied);
        }
        drop(unread);
        self.empty_places(to, pages);
        Step::Again
    }

    /// Whether all of it was dropped from system memory. Pages that an mremap took away from under the drop are there
    /// still: that is where they stay, and their copies are thrown away.
    fn is_dropped(&self, transfer: Transfer, to: Place) -> bool {
        let mut tries = self.refusals();
        let _unread = loop {
            let unread = self.hold_events();
            if !self.kernel.event_pending() {
                break unread;
            }
            drop(unread);
            if !self.yield_to_raiser(&mut tries) {
                return true;
            }
        };
        let mut left = Vec::new();
        self.books.lock().update_named(transfer, |entry| {
            if entry.is_remapped() && !entry.cancelled {
                left.push((entry.name(), entry.range()));
            }
        });
        left.retain(|(_, range)| (0..range.pages()).any(|index| self.holds(range.page_at(index))));
        for (name, _) in &left {
            let part = Transfer { name: *name, ..transfer };
            self.books.lock().update_named(part, |entry| entry.outcome = Outcome::Failed);
            self.empty_places(to.add(transfer.name.page_index(name.start) as u64), name.pages());
        }
        left.is_empty()
    }

    fn empty_places(&self, first: Place, pages: usize) {
        if let Place::Device(first) = first {
            self.empty_frames(&[DeviceRun { first, pages }]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{access, mem};
    use crate::{Config, Transport};
    use hostmm::{
        ClaimRequest, CpuFault, DevicePage, EventKind, FaultOutcome, HostMemory, HostMm, Migration, OwnerId, PagemapId,
        PagemapOps, Toward,
    };
    use std::sync::Arc;
    use units::{HostFrame, SZ_2M, SZ_4K};

    struct Nobody;

    impl PagemapOps for Nobody {
        fn migrate_to_ram(&self, _: &dyn HostMm, _: &CpuFault) -> FaultOutcome {
            FaultOutcome::Retry
        }
        fn folio_free(&self, _: DevicePage, _: usize) {}
    }

    fn copying() -> Option<Arc<LiveMm>> {
        let mm = LiveMm::start(Config { transport: Transport::Copy, ..Config::default() });
        let mm = mm.inspect_err(|refused| crate::skipped(&format!("{refused}"))).ok()?;
        mm.pagemap_insert(PagemapId(0), OwnerId(1), 16, Arc::new(Nobody));
        Some(mm)
    }

    /// A page that the program frees after its bytes went and before its source is dropped, and then writes.
    #[test]
    fn what_is_written_after_a_page_was_freed_is_not_dropped() {
        let Some(mm) = copying() else { return };
        let (chunk, whole) = mem::map_guarded(SZ_2M).expect("2M of addresses");
        let page = HostRange::sized(chunk.start, SZ_4K);
        access::write(page.start.0, &[7]).expect("memory of ours");
        let first = Place::Device(DevicePage { pagemap: PagemapId(0), frame: 0 });
        let request = ClaimRequest { range: page, owner: OwnerId(1), toward: Toward::Vram(PagemapId(0)), fault: None };
        let mut migration = Migration::default();
        mm.claim(&request, &mut migration).expect("memory of one mapping");
        migration.aim(page, DevicePage { pagemap: PagemapId(0), frame: 0 });
        mm.stage(&mut migration).expect("empty frames");
        let claim = migration.id.expect("a claim").0;
        let transfer = Transfer { claim, name: page, purpose: crate::transfer::Purpose::Migrate };
        mm.kernel.protect(page, true).expect("registered memory");
        assert!(matches!(mm.keep_copy(transfer, first), Step::Went(1, Outcome::Copied)));

        let program = sync::spawn("program", move || {
            mem::advise(page, mem::Advice::DontNeed).expect("memory of ours");
            access::write(page.start.0, &[8]).expect("memory of ours");
        });
        while !program.is_finished() && mm.stats().claimed_faults == 0 {
            sync::yield_now();
        }
        mm.drop_source(transfer, page.start, first);
        mm.finish(&mut migration);
        program.join();
        let mut byte = [0];
        assert_eq!(access::read(page.start.0, &mut byte).map(|()| byte[0]), Ok(8));
        mem::unmap(whole);
        assert!(mm.stop());
    }

    /// What comes to an address that is unmapped while its page is copied would be dropped in the page's place.
    #[test]
    fn an_unmap_waits_for_copies_of_its_memory() {
        let Some(mm) = copying() else { return };
        let (chunk, whole) = mem::map_guarded(SZ_2M).expect("2M of addresses");
        let [page, beside] = [0, 1].map(|n| HostRange::sized(chunk.start.add(n * SZ_4K), SZ_4K));
        access::write(page.start.0, &[7]).expect("memory of ours");
        let request = ClaimRequest { range: page, owner: OwnerId(1), toward: Toward::Vram(PagemapId(0)), fault: None };
        let mut migration = Migration::default();
        mm.claim(&request, &mut migration).expect("memory of one mapping");
        mm.while_invalidated(beside, EventKind::Unmap, || ());

        let is_held = || !mm.books.lock().quarantine.within(page, 0).is_empty();
        assert!(!is_held(), "nobody waits yet");
        let program = {
            let mm = mm.clone();
            let is_over = move |mm: &LiveMm| assert!(mm.books.lock().claims.is_empty(), "the claim ended before");
            sync::spawn("program", move || mm.while_invalidated(page, EventKind::Unmap, || is_over(&mm)))
        };
        while !is_held() {
            sync::yield_now();
        }
        assert!(!program.is_finished() && !mm.books.lock().claims.is_empty());
        mm.finish(&mut migration);
        program.join();
        assert!(!is_held());
        mem::unmap(whole);
        assert!(mm.stop());
    }

    /// What is no page cannot be protected from writes: filled for a copy, it could be written before it is dropped.
    #[test]
    fn a_hole_is_not_copied() {
        let Some(mm) = copying() else { return };
        let (chunk, whole) = mem::map_guarded(SZ_2M).expect("2M of addresses");
        let range = HostRange::sized(chunk.start, 3 * SZ_4K);
        [0, 2].into_iter().for_each(|i| access::write(range.page_at(i).0, &[7]).expect("memory of ours"));
        let request = ClaimRequest { range, owner: OwnerId(1), toward: Toward::Vram(PagemapId(0)), fault: None };
        let mut migration = Migration::default();
        mm.claim(&request, &mut migration).expect("memory of one mapping");
        let first = DevicePage { pagemap: PagemapId(0), frame: 0 };
        migration.aim(range, first);
        mm.stage(&mut migration).expect("empty frames");
        let mut outcomes = Vec::new();
        let back = Place::Host(HostFrame(range.start.page_number()));
        mm.transfer(back, Place::Device(first), 3, &mut |pages, outcome| outcomes.extend(vec![outcome; pages]));
        assert_eq!(outcomes, [Outcome::Copied, Outcome::Zeroed, Outcome::Copied]);
        assert!(mm.held(range).is_empty());
        mm.finish(&mut migration);
        let mut byte = [0];
        let mut reads = |i: usize| access::read(range.page_at(i).0, &mut byte).map(|()| byte[0]);
        assert_eq!([0, 1, 2].map(&mut reads), [Ok(7), Ok(0), Ok(7)]);
        mem::unmap(whole);
        assert!(mm.stop());
    }
}
