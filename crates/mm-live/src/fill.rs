//! Filling and emptying frames, and pages of system memory that nothing was carried to.

use crate::LiveMm;
use crate::books::{Frame, Mark, Page, Residency};
use crate::kernel::{Descriptor, Errno};
use hostmm::{DevicePage, DeviceRun, Place};
use units::{HostRange, HostVa, PAGE_SHIFT, SZ_4K, bytes_of};

impl LiveMm {
    /// Zero pages for frames that nothing was carried to.
    pub(crate) fn zero_frames(&self, first: DevicePage, pages: usize) {
        if let Some(arena) = self.books.lock().arena_mut(first.pagemap) {
            // In pieces: the slot that takes them has a page table afterwards.
            arena.use_slot(first.frame, 1, false);
        }
        let (mut at, mut tries) = (0, self.refusals());
        while at < pages {
            let Some(start) = self.places.address(first.add(at as u64)) else { return };
            let progress = {
                let _unread = self.hold_rescues();
                self.kernel.zero(Descriptor::Device, HostRange::sized(start, bytes_of(pages - at)))
            };
            at += (progress.bytes >> PAGE_SHIFT) as usize;
            match progress.error {
                Some(Errno::EXIST) if progress.bytes == 0 => at += 1,
                Some(Errno::AGAIN | Errno::EXIST) if progress.bytes > 0 || self.yield_to_raiser(&mut tries) => {}
                Some(_) => break,
                None => {}
            }
        }
        self.books.lock().note_bytes(first, pages, true);
    }

    /// Gives a frame whose page the kernel took back zeros, as its page would have in system memory. False where nobody took
    /// it back. The page is marked meanwhile, so that no migration takes the frame for its own.
    pub(crate) fn refill(&self, page: DevicePage) -> bool {
        let _unread = self.hold_rescues();
        let (place, mark) = {
            let mut books = self.books.lock();
            let Some(Frame::Backs(va)) = books.frame(page).filter(|_| books.holds_bytes(page)) else { return false };
            if books.page(va) != (Page { residency: Residency::Device(page), mark: Mark::Free }) {
                return false;
            }
            let (place, mark) = (HostRange::sized(va, SZ_4K), books.next_turn());
            books.set_mark(place, mark);
            (place, mark)
        };
        let taken = self.refill_if_absent(Place::Device(page));
        self.books.lock().unmark(place, mark);
        // Who touched it meanwhile was told that somebody is at it.
        self.kernel.wake(place);
        taken
    }

    /// The same for a page that the caller has claimed.
    pub(crate) fn refill_if_absent(&self, place: Place) -> bool {
        let (Place::Device(page), Some(start)) = (place, self.address(place)) else { return false };
        let absent = !self.holds(start);
        if absent {
            self.counters.reclaimed.add(1);
            if let Some(arena) = self.books.lock().arena_mut(page.pagemap) {
                arena.use_slot(page.frame, 1, false);
            }
            self.kernel.zero(Descriptor::Device, HostRange::sized(start, SZ_4K));
        }
        absent
    }

    /// A zero page in system memory, where a device reported a page carried and carried nothing.
    pub(crate) fn zero_in_system(&self, va: HostVa) {
        let mut tries = self.refusals();
        loop {
            let held = self.hold_events();
            let progress = self.kernel.zero(Descriptor::Program, HostRange::sized(va, SZ_4K));
            drop(held);
            if progress.error != Some(Errno::AGAIN) || !self.yield_to_raiser(&mut tries) {
                return;
            }
        }
    }

    /// Empties frames, those that hold bytes.
    pub(crate) fn empty_frames(&self, runs: &[DeviceRun]) {
        for &DeviceRun { first, pages } in runs {
            let Some(start) = self.places.address(first) else { continue };
            let _ = self.kernel.drop_pages(HostRange::sized(start, bytes_of(pages)));
            let mut books = self.books.lock();
            books.note_bytes(first, pages, false);
            if let Some(arena) = books.arena_mut(first.pagemap) {
                arena.cut(first.frame, pages);
            }
        }
    }

    /// Hands device pages back to whose they are. With no lock held.
    pub(crate) fn free_pages(&self, runs: &[DeviceRun]) {
        for &DeviceRun { first, pages } in runs {
            let ops = {
                let mut books = self.books.lock();
                books.set_frames(first, pages, Frame::Empty);
                books.arena(first.pagemap).map(|arena| std::sync::Arc::clone(&arena.ops))
            };
            if let Some(ops) = ops {
                ops.folio_free(first, pages);
            }
        }
    }
}
