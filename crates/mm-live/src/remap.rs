//! mremap: pages in VRAM, their claims and their registration follow the mapping to its new place.

use crate::LiveMm;
use crate::arena::Frame;
use crate::entry::From;
use crate::forget::{Forget, Lost};
use crate::map::{Chunk, Home, Mark, PageMap, Watched};
use hostmm::{Destination, EventKind};
use units::{HostRange, HostVa, SZ_2M};

/// An mremap whose place is still taken in our books.
///
/// Threads queue their events after they have let go of the mappings, so an mremap to a place may be read before the
/// munmap or mremap of another thread that made room there (once in 90,000 mremaps of the stress). Pages or a
/// registration are still noted at the place then. What was remapped waits in limbo, under addresses that do not
/// exist, out of the way of its own UNMAP, and is settled when the place is free, or no event is on its way.
/// Until then the kernel refuses every ioctl of ours on the program, so a fault there waits too.
///
/// Not told apart is what happens when the remapping thread is through with yet another mremap *from* that place
/// before the first thread has queued its event. Wrappers of mremap ([`LiveMm::at_home`]) leave no event at all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remap {
    limbo: HostRange,
    to: HostVa,
}

impl Remap {
    const fn target(&self) -> HostRange {
        HostRange::sized(self.to, self.limbo.len())
    }
}

/// Addresses that no mapping has; each stay in limbo has its own.
const LIMBO: u64 = 1 << 62;

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

    /// An mremap was read.
    pub(crate) fn take_remap(&self, from: HostRange, to: HostVa) {
        let target = HostRange::sized(to, from.len());
        let taken = self.map.lock().is_kept(target);
        if taken {
            let stay = self.counters.late_remaps.fetch_add(1);
            let limbo = HostRange::sized(HostVa(LIMBO + stay % (1 << 20) * (1 << 41)), from.len());
            self.map.lock().rekey(from, limbo.start);
            self.deferred.lock().push(Remap { limbo, to });
            self.tell_later(from, EventKind::Unmap, Lost::default(), None);
        } else {
            // What has arrived is not claimed before the translations of its old place are gone.
            let untold = self.map.lock().untold.add(target);
            self.arrive(from, to, None);
            self.tell_later(from, EventKind::Unmap, Lost::default(), Some(untold));
        }
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
            if self.maps.at(remap.to).is_some() {
                // The notice of its old place was queued when it went to limbo, before this one.
                let untold = self.map.lock().untold.add(remap.target());
                self.arrive(remap.limbo, remap.to, Some(untold));
            } else {
                // It has been unmapped since; that was taken for the end of what lay there before.
                let lost = self.forget(remap.limbo, Forget::Mapping);
                self.tell_later(remap.target(), EventKind::Unmap, lost, None);
            }
        }
    }

    /// Puts pages and registration from their old place, or from limbo, to the new one. What is still noted there
    /// is a claim that came before the mapping, or a leftover.
    fn arrive(&self, from: HostRange, to: HostVa, untold: Option<u64>) {
        let target = HostRange::sized(to, from.len());
        let lost = self.forget(target, Forget::Mapping);
        self.tell_later(target, EventKind::Unmap, lost, untold);
        self.map.lock().rekey(from, to);
    }
}

impl PageMap {
    /// Whether pages in VRAM or a registration are noted in `range`.
    pub fn is_kept(&self, range: HostRange) -> bool {
        let registered = |chunk: &Chunk| chunk.registered.iter().any(|part| part.range.overlaps(range));
        self.chunks_at(range).any(|(_, chunk)| registered(chunk))
            || self.concerned(range).iter().any(|page| page.1 != Home::System)
    }

    /// mremap: what lay in `from` now lies at `to`, its claims and its registration with it.
    fn rekey(&mut self, from: HostRange, to: HostVa) {
        let moved = |va: HostVa| to.add(va.offset_from(from.start));
        let parts: Vec<Watched> = self
            .chunks_at(from)
            .flat_map(|(_, chunk)| &chunk.registered)
            .filter_map(|part| Some(Watched { range: part.range.intersect(from)?, ..*part }))
            .collect();
        let pages = self.concerned(from);
        // A DONTNEED of before does not find them any more.
        self.quarantine.settle(from, u64::MAX);
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
        if from.start.0 >= LIMBO {
            for number in self.chunks_in(from) {
                self.chunks.remove(number);
            }
        }
        for Watched { range, sure } in parts {
            let (mut start, end) = (moved(range.start), moved(range.start).add(range.len()));
            while start < end {
                let piece = HostRange::new(start, end.min(start.add(SZ_2M).align_down(SZ_2M)));
                self.chunk_mut(start).add_registered(Watched { range: piece, sure });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LiveMm;
    use crate::sys::mem;
    use crate::sys::uffd::Message;
    use hostmm::{
        ClaimRequest, Claimed, CpuFault, DevicePage, FaultOutcome, HostMm, MmError, MmEvent, NotifierOps, OwnerId,
        PagemapId, PagemapOps, Select,
    };
    use std::sync::Arc;
    use sync::Mutex;
    use sync::atomic::AtomicU32;
    use units::SZ_4K;

    #[derive(Default)]
    struct Freed(Mutex<Vec<u64>>);

    impl PagemapOps for Freed {
        fn migrate_to_ram(&self, _: &dyn HostMm, _: &CpuFault) -> FaultOutcome {
            FaultOutcome::Retry
        }
        fn folio_free(&self, first: DevicePage, pages: usize) {
            self.0.lock().extend((0..pages as u64).map(|index| first.frame + index));
        }
    }

    const fn frame(frame: u64) -> DevicePage {
        DevicePage { pagemap: PagemapId(0), frame }
    }

    /// A world in whose books frame 1 is home at `a` and frame 2 at `g`, both registered; `t` is free.
    fn world() -> Option<(Arc<LiveMm>, Arc<Freed>, [HostRange; 3])> {
        let mm = LiveMm::start_for_test()?;
        let freed = Arc::new(Freed::default());
        mm.pagemap_insert(PagemapId(0), OwnerId(1), 16, freed.clone());
        let places = [(); 3].map(|()| mem::map_arena(SZ_2M).expect("2M of addresses"));
        let mut map = mm.map.lock();
        for (place, page) in [(places[0], frame(1)), (places[1], frame(2))] {
            map.set_home(place.start, Home::Device(page));
            map.set_frame(page, Frame::Home(place.start));
            map.chunk_mut(place.start).add_registered(Watched { range: place, sure: true });
        }
        drop(map);
        Some((mm, freed, places))
    }

    fn read(mm: &LiveMm, messages: &[Message]) {
        let _closed = mm.gate.close();
        for &message in messages {
            mm.take_event(message);
            mm.take_remaps(Order::Sure);
        }
    }

    fn end(mm: &LiveMm, places: [HostRange; 3]) {
        read(mm, &places.map(|place| Message::Unmap { start: place.start.0, end: place.end.0 }));
        mm.kick.ring();
        mm.settle();
        assert!(mm.stop());
    }

    #[test]
    fn an_mremap_read_before_what_made_room_for_it() {
        let Some((mm, freed, [a, g, t])) = world() else { return };
        let (remap, unmap) = (
            |from: HostRange, to: HostRange| Message::Remap { from: from.start.0, to: to.start.0, len: from.len() },
            |range: HostRange| Message::Unmap { start: range.start.0, end: range.end.0 },
        );
        // Done as a -> t, then g -> a; read the other way round.
        read(&mm, &[remap(g, a), unmap(g), remap(a, t), unmap(a)]);
        assert_eq!([a, g, t].map(|place| mm.device_page(place.start)), [Some(frame(2)), None, Some(frame(1))]);
        assert!(!mm.has_deferred() && freed.0.lock().is_empty());
        assert!(mm.map.lock().chunk(a.start).is_some_and(|chunk| chunk.is_registered(a.start)));
        end(&mm, [a, g, t]);
        assert_eq!(freed.0.lock().len(), 2);
    }

    #[test]
    fn what_waits_and_is_unmapped_meanwhile_is_freed() {
        let Some((mm, freed, [a, g, t])) = world() else { return };
        mem::unmap(a);
        let messages = [
            Message::Remap { from: g.start.0, to: a.start.0, len: g.len() },
            Message::Unmap { start: g.start.0, end: g.end.0 },
            Message::Remap { from: a.start.0, to: t.start.0, len: a.len() },
            // Of what came from g, before that of what went to t.
            Message::Unmap { start: a.start.0, end: a.end.0 },
            Message::Unmap { start: a.start.0, end: a.end.0 },
        ];
        read(&mm, &messages);
        mm.kick.ring();
        mm.settle();
        assert_eq!([a, g, t].map(|place| mm.device_page(place.start)), [None, None, Some(frame(1))]);
        assert_eq!(*freed.0.lock(), [2]);
        end(&mm, [a, g, t]);
    }

    /// Says in which order it was told, and at the first notice waits until another thread has tried to deliver.
    struct Slow {
        told: Mutex<Vec<HostVa>>,
        begun: AtomicU32,
        tried: AtomicU32,
    }

    impl NotifierOps for Slow {
        fn invalidate(&self, event: &MmEvent) {
            let is_first = self.begun.swap(1) == 0;
            while is_first && self.tried.load() == 0 {
                crate::sys::task::relax();
            }
            self.told.lock().push(event.range.start);
        }
    }

    #[test]
    fn notices_are_delivered_in_order_and_no_claim_overtakes_them() {
        let Some((mm, freed, [a, g, t])) = world() else { return };
        let slow = Arc::new(Slow { told: Mutex::default(), begun: AtomicU32::new(0), tried: AtomicU32::new(0) });
        for place in [a, g] {
            mm.notifier_insert(place, slow.clone()).expect("a notifier");
        }
        // The readers find that somebody delivers.
        let alone = mm.queue.delivering.lock();
        read(
            &mm,
            &[
                Message::Remap { from: a.start.0, to: t.start.0, len: a.len() },
                Message::Unmap { start: g.start.0, end: g.end.0 },
            ],
        );
        let claim = || {
            let request = ClaimRequest {
                range: HostRange::sized(t.start, SZ_4K),
                owner: OwnerId(1),
                select: Select::DeviceOnly,
                fault: None,
            };
            let mut out = [Claimed::No];
            let claimed = mm.claim(&request, &mut out);
            (claimed, out[0])
        };
        assert_eq!(claim(), (Err(MmError::Stale), Claimed::No), "its old place has translations");
        let mut out = [None];
        let nothing = mm.claim_device(&[frame(1)], &mut out).expect("a claim");
        mm.finish(nothing);
        assert_eq!(out, [None]);
        drop(alone);

        let first = sync::spawn("first", {
            let mm = mm.clone();
            move || mm.deliver_notices()
        });
        while slow.begun.load() == 0 {
            crate::sys::task::relax();
        }
        mm.deliver_notices();
        assert_eq!(*slow.told.lock(), [], "a notice was overtaken");
        slow.tried.store(1);
        first.join();
        mm.settle();
        assert_eq!(*slow.told.lock(), [a.start, g.start]);
        assert_eq!(*freed.0.lock(), [2]);
        let (claimed, page) = claim();
        assert_eq!(page, Claimed::Device(frame(1)));
        mm.finish(claimed.expect("a claim"));
        end(&mm, [a, g, t]);
    }
}
