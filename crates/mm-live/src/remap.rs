//! mremap: pages in VRAM, their claims and their registration follow the mapping to its new place.

use crate::LiveMm;
use crate::arena::Frame;
use crate::claim::From;
use crate::events::{Forget, Lost};
use crate::map::{Home, Mark, PageMap};
use gpusvm::hostmm::{Destination, EventKind};
use units::{HostRange, HostVa, SZ_2M};

/// An mremap: what lay in `from` lies at `to`.
///
/// Threads queue their events after they have let go of the mappings, so an mremap to a place may be heard of before
/// the munmap or mremap that made room there. While pages or a registration are still noted at the place, that
/// event is on its way, and the mremap is settled after it; at the latest when no event is on its way any more.
/// Until then the kernel refuses every ioctl of ours on the program, so nothing can go wrong meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remap {
    pub from: HostRange,
    pub to: HostVa,
}

impl Remap {
    pub const fn target(&self) -> HostRange {
        HostRange::sized(self.to, self.from.len())
    }
}

/// Which mremaps to settle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Those whose place is free.
    Sure,
    /// All: no event is on its way.
    Any,
}

impl LiveMm {
    /// mremaps that were read and not settled yet.
    pub(crate) fn has_deferred(&self) -> bool {
        !self.deferred.lock().is_empty()
    }

    /// Settles mremaps whose place is free, or all.
    pub(crate) fn take_remaps(&self, order: Order) {
        loop {
            let next = {
                let mut deferred = self.deferred.lock();
                let map = self.map.lock();
                let found = deferred.iter().position(|remap| !map.is_kept(remap.target()));
                let found = found.or((order == Order::Any && !deferred.is_empty()).then_some(0));
                found.map(|index| deferred.remove(index))
            };
            let Some(remap) = next else { return };
            // What is still there is a claim that came before the mapping, or a leftover.
            let lost = self.forget(remap.target(), Forget::Mapping);
            self.tell_later(remap.target(), EventKind::Unmap, lost);
            self.map.lock().rekey(remap.from, remap.to);
            self.tell_later(remap.from, EventKind::Unmap, Lost::default());
        }
    }
}

impl PageMap {
    /// Whether pages in VRAM or a registration are noted in `range`.
    pub fn is_kept(&self, range: HostRange) -> bool {
        let registered = |number| {
            self.chunks.get(number).is_some_and(|chunk| chunk.registered.iter().any(|part| part.overlaps(range)))
        };
        self.chunks_in(range).iter().any(registered) || self.concerned(range).iter().any(|page| page.1 != Home::System)
    }

    /// mremap: what lay in `from` now lies at `to`, its claims and its registration with it.
    fn rekey(&mut self, from: HostRange, to: HostVa) {
        let moved = |va: HostVa| to.add(va.offset_from(from.start));
        let parts: Vec<HostRange> = self
            .chunks_in(from)
            .iter()
            .filter_map(|number| self.chunks.get(number))
            .flat_map(|chunk| chunk.registered.iter().filter_map(|part| part.intersect(from)))
            .collect();
        let pages = self.concerned(from);
        for &(va, _, _) in &pages {
            self.set_home(va, Home::System);
            self.set_mark(va, Mark::Free);
        }
        for (va, home, mark) in pages {
            self.set_home(moved(va), home);
            match mark {
                Mark::Free | Mark::Filling { .. } => {}
                Mark::Claimed { claim, entry } => self.move_claimed(claim, entry, moved(va), mark),
            }
            match home {
                Home::Device(page) if mark == Mark::Free => self.set_frame(page, Frame::Home(moved(va))),
                _ => {}
            }
        }
        for part in parts {
            let (mut start, end) = (moved(part.start), moved(part.start).add(part.len()));
            while start < end {
                let piece = HostRange::new(start, end.min(start.add(SZ_2M).align_down(SZ_2M)));
                self.chunk_mut(start).add_registered(piece);
                start = piece.end;
            }
        }
    }

    fn move_claimed(&mut self, claim: u64, entry: usize, va: HostVa, mark: Mark) {
        let Some(mut state) = self.entry(claim, entry) else { return };
        (state.va, state.remapped) = (va, true);
        self.set_entry(claim, entry, state);
        self.set_mark(va, mark);
        let frames = [
            match state.from {
                From::Device(page) => Some(page),
                _ => None,
            },
            match state.to {
                Destination::Device(page) => Some(page),
                _ => None,
            },
        ];
        for page in frames.into_iter().flatten() {
            match self.frame(page) {
                Some(Frame::Home(_)) => self.set_frame(page, Frame::Home(va)),
                Some(Frame::Staged(_)) => self.set_frame(page, Frame::Staged(va)),
                _ => {}
            }
        }
    }
}
