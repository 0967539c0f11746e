//! mremap: pages in VRAM, their claims and their registration follow the mapping to its new place.

use crate::LiveMm;
use crate::books::{Books, Chunk, Frame, Mark, Page, Residency, Watched};
use crate::forget::Forget;
use hostmm::{EventKind, Place};
use units::{HostFrame, HostRange, HostVa, SZ_2M};

/// An mremap whose place is still taken in our books.
///
/// Threads queue their events after they have let go of the mappings, so an mremap to a place may be read before the
/// munmap or mremap of another thread that made room there (once in 90,000 mremaps of the stress). Pages or a
/// registration are still noted at the place then. What was remapped is deferred, under addresses that do not
/// exist, out of the way of its own UNMAP, and is settled when the place is free, or no event is on its way.
/// Until then the kernel refuses every ioctl of ours on the program, so a fault there waits too.
///
/// Not told apart is what happens when the remapping thread is through with yet another mremap *from* that place
/// before the first thread has queued its event. Wrappers of mremap ([`LiveMm::while_in_system`]) leave no event at all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remap {
    /// Where it is kept meanwhile.
    kept: HostRange,
    to: HostVa,
}

impl Remap {
    const fn target(&self) -> HostRange {
        HostRange::sized(self.to, self.kept.len())
    }
}

/// Addresses that no mapping has; each deferred mremap has its own.
const DEFERRED: u64 = 1 << 62;

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
        self.deferred_count.load() != 0
    }

    /// An mremap was read.
    pub(crate) fn take_remap(&self, from: HostRange, to: HostVa) {
        let target = HostRange::sized(to, from.len());
        let taken = self.books.lock().is_kept(target);
        if taken {
            self.counters.late_remaps.add(1);
            let mut books = self.books.lock();
            books.last_deferred += 1;
            let kept = HostRange::sized(HostVa(DEFERRED + books.last_deferred % (1 << 20) * (1 << 41)), from.len());
            books.rekey(from, kept.start);
            drop(books);
            self.deferred.lock().push(Remap { kept, to });
            self.deferred_count.fetch_add(1);
            self.notify_later(from, EventKind::Unmap, Vec::new(), None);
        } else {
            // What has arrived is not claimed before the translations of its old place are gone.
            let place = self.books.lock().undelivered.add(target);
            self.arrive(from, to, None);
            self.notify_later(from, EventKind::Unmap, Vec::new(), Some(place));
        }
    }

    /// Settles mremaps whose place is free, or all.
    pub(crate) fn take_remaps(&self, order: Order) {
        while self.has_deferred() {
            let next = {
                let mut deferred = self.deferred.lock();
                let books = self.books.lock();
                let found = deferred.iter().position(|remap| !books.is_kept(remap.target()));
                let found = found.or((order == Order::Any && !deferred.is_empty()).then_some(0));
                found.map(|index| deferred.remove(index))
            };
            let Some(remap) = next else { return };
            self.deferred_count.fetch_sub(1);
            if self.kernel.mapping(remap.to).is_some_and(|mapping| mapping.range.contains(remap.to)) {
                // The notice of its old place was queued when it was deferred, before this one.
                let place = self.books.lock().undelivered.add(remap.target());
                self.arrive(remap.kept, remap.to, Some(place));
            } else {
                // It has been unmapped since; that was taken for the end of what lay there before.
                let lost = self.forget(remap.kept, Forget::Mapping);
                self.notify_later(remap.target(), EventKind::Unmap, lost, None);
            }
        }
    }

    /// Puts pages and registration from their old place, or from where it was deferred, to the new one. What is still noted there
    /// is a claim that came before the mapping, or a leftover.
    fn arrive(&self, from: HostRange, to: HostVa, place: Option<u64>) {
        let target = HostRange::sized(to, from.len());
        let lost = self.forget(target, Forget::Mapping);
        self.notify_later(target, EventKind::Unmap, lost, place);
        self.books.lock().rekey(from, to);
    }
}

impl Books {
    /// Whether pages in VRAM or a registration are noted in `range`.
    pub fn is_kept(&self, range: HostRange) -> bool {
        let registered = |chunk: &Chunk| chunk.registered.iter().any(|part| part.range.overlaps(range));
        self.chunks_at(range).any(|(_, chunk)| registered(chunk))
            || self.known(range).iter().any(|(_, page)| page.residency != Residency::System)
    }

    /// mremap: what lay in `from` now lies at `to`, its claims and its registration with it.
    fn rekey(&mut self, from: HostRange, to: HostVa) {
        let moved = |va: HostVa| to.add(va.offset_from(from.start));
        let parts: Vec<Watched> = self
            .chunks_at(from)
            .flat_map(|(_, chunk)| &chunk.registered)
            .filter_map(|part| Some(Watched { range: part.range.intersect(from)?, ..*part }))
            .collect();
        let runs = self.known(from);
        // A DONTNEED of before does not find them any more.
        self.quarantine.settle(from, u64::MAX);
        self.set(from, Page { residency: Residency::System, mark: Mark::Free });
        for (run, page) in runs {
            let place = HostRange::sized(moved(run.start), run.len());
            match (page.residency, page.mark) {
                (residency, Mark::Claimed(id)) => {
                    self.set(place, Page { residency, mark: page.mark });
                    self.move_claimed(id, run, place.start);
                }
                (Residency::Device(first), Mark::Free | Mark::Filling { .. }) => {
                    self.set(place, Page { residency: page.residency, mark: Mark::Free });
                    self.set_frames(first, run.pages(), Frame::Backs(place.start));
                }
                (Residency::System, _) => {}
            }
        }
        if from.start.0 >= DEFERRED {
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

    /// Claimed pages of `from` are at `to` now.
    fn move_claimed(&mut self, id: u64, from: HostRange, to: HostVa) {
        let mut frames = Vec::new();
        if let Some(claim) = self.claims.get_mut(id) {
            claim.update(from, |entry| {
                entry.va = to.add(entry.va.offset_from(from.start));
                if let Some(Place::Host(_)) = entry.to {
                    // On its way back, which is there now.
                    entry.to = Some(Place::Host(HostFrame(entry.va.page_number())));
                }
                let both = [entry.source_page(), entry.target_page()];
                frames.extend(both.into_iter().flatten().map(|first| (first, entry.pages, entry.va)));
            });
        }
        for (first, pages, va) in frames {
            match self.frame(first) {
                Some(Frame::Backs(_)) => self.set_frames(first, pages, Frame::Backs(va)),
                Some(Frame::Staged(_)) => self.set_frames(first, pages, Frame::Staged(va)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LiveMm;
    use crate::kernel::Message;
    use crate::sys::mem;
    use hostmm::{
        ClaimRequest, CpuFault, DevicePage, DeviceRun, FaultOutcome, HostMm, Migration, MmError, MmEvent, NotifierOps,
        OwnerId, PagemapId, PagemapOps, Place, Toward,
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

    /// A world in whose books frame 1 backs `a` and frame 2 `g`, both registered; `t` is free.
    fn world() -> Option<(Arc<LiveMm>, Arc<Freed>, [HostRange; 3])> {
        let mm = LiveMm::start_for_test()?;
        let freed = Arc::new(Freed::default());
        mm.pagemap_insert(PagemapId(0), OwnerId(1), 16, freed.clone());
        let places = [(); 3].map(|()| mem::map_arena(SZ_2M).expect("2M of addresses"));
        let mut books = mm.books.lock();
        for (place, page) in [(places[0], frame(1)), (places[1], frame(2))] {
            books.set_residency(HostRange::sized(place.start, SZ_4K), Residency::Device(page));
            books.set_frames(page, 1, Frame::Backs(place.start));
            books.chunk_mut(place.start).add_registered(Watched { range: place, sure: true });
        }
        drop(books);
        Some((mm, freed, places))
    }

    fn read(mm: &LiveMm, messages: &[Message]) {
        let _closed = mm.barrier.close();
        for &message in messages {
            mm.take_event(message);
            mm.take_remaps(Order::Sure);
        }
    }

    fn end(mm: &LiveMm, places: [HostRange; 3]) {
        read(mm, &places.map(Message::Unmap));
        mm.kernel.kick();
        mm.settle();
        assert!(mm.stop());
    }

    #[test]
    fn an_mremap_read_before_what_made_room_for_it() {
        let Some((mm, freed, [a, g, t])) = world() else { return };
        let (remap, unmap) = (|from: HostRange, to: HostRange| Message::Remap { from, to: to.start }, Message::Unmap);
        // Done as a -> t, then g -> a; read the other way round.
        read(&mm, &[remap(g, a), unmap(g), remap(a, t), unmap(a)]);
        assert_eq!([a, g, t].map(|place| mm.device_page(place.start)), [Some(frame(2)), None, Some(frame(1))]);
        assert!(!mm.has_deferred() && freed.0.lock().is_empty());
        assert!(mm.books.lock().chunk(a.start).is_some_and(|chunk| chunk.watched(a.start).is_some()));
        end(&mm, [a, g, t]);
        assert_eq!(freed.0.lock().len(), 2);
    }

    #[test]
    fn what_waits_and_is_unmapped_meanwhile_is_freed() {
        let Some((mm, freed, [a, g, t])) = world() else { return };
        mem::unmap(a);
        let messages = [
            Message::Remap { from: g, to: a.start },
            Message::Unmap(g),
            Message::Remap { from: a, to: t.start },
            // Of what came from g, before that of what went to t.
            Message::Unmap(a),
            Message::Unmap(a),
        ];
        read(&mm, &messages);
        mm.kernel.kick();
        mm.settle();
        assert_eq!([a, g, t].map(|place| mm.device_page(place.start)), [None, None, Some(frame(1))]);
        assert_eq!(*freed.0.lock(), [2]);
        end(&mm, [a, g, t]);
    }

    #[test]
    fn a_page_on_its_way_back_goes_where_its_mapping_is() {
        let Some((mm, _, [a, g, t])) = world() else { return };
        let page = HostRange::sized(a.start, SZ_4K);
        let request = ClaimRequest { range: page, owner: OwnerId(1), toward: Toward::Ram, fault: None };
        let mut migration = Migration::default();
        mm.claim(&request, &mut migration).expect("a claim");
        mm.stage(&mut migration).expect("a place in system memory");
        let system = |va: HostVa| Some(Place::Host(HostFrame(va.page_number())));
        let destination = || mm.entries(migration.id.map_or(0, |id| id.0)).first().and_then(|entry| entry.to);
        assert_eq!(destination(), system(a.start));
        read(&mm, &[Message::Remap { from: a, to: t.start }]);
        assert_eq!(destination(), system(t.start), "its old place is another mapping's by now");
        mm.finish(&mut migration);
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
                sync::yield_now();
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
        read(&mm, &[Message::Remap { from: a, to: t.start }, Message::Unmap(g)]);
        let claim = || {
            let request = ClaimRequest {
                range: HostRange::sized(t.start, SZ_4K),
                owner: OwnerId(1),
                toward: Toward::Ram,
                fault: None,
            };
            let mut migration = Migration::default();
            mm.claim(&request, &mut migration).map(|_| migration)
        };
        assert_eq!(claim().err(), Some(MmError::Stale), "its old place has translations");
        let mut nothing = Migration::default();
        mm.claim_device(&[DeviceRun { first: frame(1), pages: 1 }], &mut nothing).expect("a claim");
        assert!(nothing.parts.is_empty());
        mm.finish(&mut nothing);
        drop(alone);

        let first = sync::spawn("first", {
            let mm = mm.clone();
            move || mm.deliver_notices()
        });
        while slow.begun.load() == 0 {
            sync::yield_now();
        }
        mm.deliver_notices();
        assert_eq!(*slow.told.lock(), [], "a notice was overtaken");
        slow.tried.store(1);
        first.join();
        mm.settle();
        assert_eq!(*slow.told.lock(), [a.start, g.start]);
        assert_eq!(*freed.0.lock(), [2]);
        let mut migration = claim().expect("a claim");
        assert_eq!(migration.parts[0].from, Some(Place::Device(frame(1))));
        mm.finish(&mut migration);
        end(&mm, [a, g, t]);
    }
}
