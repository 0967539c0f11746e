//! Filling and emptying frames, and homes that nothing was carried to.

use crate::LiveMm;
use crate::arena::Frame;
use crate::map::{Home, Mark, PageMap};
use crate::sys::{Errno, mem};
use hostmm::{DevicePage, Place};
use units::{HostRange, HostVa, PAGE_SHIFT, SZ_2M, SZ_4K, bytes_of};

impl LiveMm {
    /// Empties a whole slot that was used in pieces, so that it takes a huge page in one piece.
    pub(crate) fn prepare_slot(&self, dst: Place, pages: usize) {
        let Place::Device(page) = dst else { return };
        let needs = self.map.lock().arena_mut(page.pagemap).is_some_and(|arena| arena.use_slot(page.frame, pages));
        if let (true, Some(start)) = (needs, self.places.address(page)) {
            let _ = mem::advise(HostRange::sized(HostVa(start), SZ_2M), mem::Advice::DontNeed);
        }
    }

    pub(crate) fn holding_bytes(&self, place: Place, pages: usize) -> Vec<DevicePage> {
        let Place::Device(first) = place else { return Vec::new() };
        let map = self.map.lock();
        let Some(arena) = map.arena(first.pagemap) else { return Vec::new() };
        (0..pages as u64).map(|offset| first.add(offset)).filter(|page| arena.has_bytes(page.frame)).collect()
    }

    /// Zero pages for frames that nothing was carried to.
    pub(crate) fn zero_frames(&self, page: DevicePage, pages: usize) {
        self.prepare_slot(Place::Device(page), 1);
        let mut at = 0;
        let mut tries = 0;
        while at < pages {
            let Some(start) = self.places.address(page.add(at as u64)) else { return };
            let progress = self.device.zero(HostRange::sized(HostVa(start), bytes_of(pages - at)));
            at += (progress.bytes >> PAGE_SHIFT) as usize;
            match progress.error {
                Some(Errno::EXIST) if progress.bytes == 0 => at += 1,
                Some(Errno::AGAIN | Errno::EXIST) if progress.bytes > 0 || self.make_way(&mut tries) => {}
                Some(_) => break,
                None => {}
            }
        }
        let mut map = self.map.lock();
        (0..pages as u64).for_each(|offset| map.note_bytes(page.add(offset), true));
    }

    /// Gives a frame whose page the kernel took back zeros, as its page would have at home. False where nobody took
    /// it back. The page is marked meanwhile, so that no migration takes the frame for its own.
    pub(crate) fn refill(&self, page: DevicePage) -> bool {
        let (va, mark) = {
            let mut guard = self.map.lock();
            let map = &mut *guard;
            let Some(Frame::Home(va)) = map.frame(page).filter(|_| map.holds_bytes(page)) else { return false };
            if map.look(va) != (Home::Device(page), Mark::Free) {
                return false;
            }
            map.last_turn = map.last_turn.wrapping_add(1);
            let mark = Mark::Filling { turn: map.last_turn };
            map.set_mark(va, mark);
            (va, mark)
        };
        let taken = self.refill_if_absent(Place::Device(page));
        {
            let mut map = self.map.lock();
            if map.mark(va) == mark {
                map.set_mark(va, Mark::Free);
            }
        }
        // Who touched it meanwhile was told that somebody is at it.
        self.program.wake(HostRange::sized(va, SZ_4K));
        taken
    }

    /// The same for a page that the caller has claimed.
    pub(crate) fn refill_if_absent(&self, place: Place) -> bool {
        let Some(start) = self.address(place).filter(|_| matches!(place, Place::Device(_))) else { return false };
        let absent = !self.leading_run(start, 1).1;
        if absent {
            self.counters.reclaimed.fetch_add(1);
            self.device.zero(HostRange::sized(HostVa(start), SZ_4K));
        }
        absent
    }

    /// A zero page at home, where a device reported a page carried and carried nothing.
    pub(crate) fn zero_home(&self, va: HostVa) {
        let mut tries = 0;
        loop {
            let held = self.hold_events();
            let progress = self.program.zero(HostRange::sized(va, SZ_4K));
            drop(held);
            if progress.error != Some(Errno::AGAIN) || !self.make_way(&mut tries) {
                return;
            }
        }
    }

    /// Empties frames.
    pub(crate) fn empty_frames(&self, pages: &[DevicePage]) {
        let mut sorted = pages.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut at = 0;
        while at < sorted.len() {
            let first = sorted[at];
            let run = (at..sorted.len()).take_while(|&i| sorted[i] == first.add((i - at) as u64)).count();
            if let Some(start) = self.places.address(first) {
                let _ = mem::advise(HostRange::sized(HostVa(start), bytes_of(run)), mem::Advice::DontNeed);
            }
            let mut map = self.map.lock();
            (0..run as u64).for_each(|offset| map.note_bytes(first.add(offset), false));
            at += run;
        }
    }
}

impl PageMap {
    /// Whether the frame of `page` holds bytes.
    pub fn holds_bytes(&self, page: DevicePage) -> bool {
        self.arena(page.pagemap).is_some_and(|arena| arena.has_bytes(page.frame))
    }

    pub fn note_bytes(&mut self, page: DevicePage, bytes: bool) {
        if let Some(arena) = self.arena_mut(page.pagemap) {
            arena.set_bytes(page.frame, bytes);
        }
    }
}
