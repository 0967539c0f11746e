//! What an event takes away: pages, and with munmap their mapping.
//!
//! # Why a REMOVE drops nothing in system memory
//!
//! The kernel raises an event for DONTNEED and FREE before it touches the pages, and none when it has done so. A page that
//! left for VRAM in between would survive a DONTNEED. One is tempted to drop the pages here, ahead of the madvise. That
//! loses writes:
//!
//! * The thread of the madvise is free once its event is *read*, which is before anything is done here. It may drop the
//!   pages and return, write new ones, or unmap the range; another thread may map it anew, and write. What lies at the
//!   address now is then none of the pages that the event was about.
//! * No descriptor tells this apart. The second one knows nothing of the program's changes. The first one refuses a
//!   move only until the thread of the madvise has run again (`mmap_changing`), which is *before* it drops pages: from
//!   then on it moves old pages and new ones alike. (Of munmap and mremap the event comes after the change, so there
//!   the first descriptor is exact: see [`bounce`](crate::bounce).)
//! * The event of MADV_FREE is the same, and a write that comes after it must stay.
//!
//! So nothing is dropped. The pages that are present when the event is read may be old ones, and stay in system memory
//! until they are known to be gone (see [`quarantine`](crate::books)). A page that comes to its place later came
//! after the DONTNEED, or while it ran. Until it is gone a page reads as it did, by the CPU and by devices: as if the
//! access came before the madvise, which its caller cannot tell, since it has not returned.
//!
//! Not exact is one case: the thread of a madvise is seen to run, and is then held up for longer than the quarantine's
//! patience before it drops its pages, and one of them migrates meanwhile. That page reads as before the DONTNEED.

use crate::LiveMm;
use crate::books::{Books, Frame, Mark, Page, Residency};
use crate::held::NOTHING;
use hostmm::DeviceRun;
use sync::time::now_ns;
use units::HostRange;

/// What an event takes away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forget {
    /// Pages; the mapping, and its registration, stay.
    Pages,
    /// The mapping.
    Mapping,
}

impl LiveMm {
    /// Takes pages, or their mapping, out of the books. Gives frames to empty now, and to free when the notifiers were called.
    pub(crate) fn forget(&self, range: HostRange, what: Forget) -> Vec<DeviceRun> {
        let mut books = self.books.lock();
        let (lost, cancelled) = books.forget(range, what);
        self.counters.cancelled.add(cancelled);
        if what == Forget::Mapping {
            books.forget_registration(range);
        }
        lost
    }

    /// A REMOVE was read: the pages of `range` that are in system memory stay there until it is known what becomes of
    /// them. Only a registered mapping raises the event. Of any other the kernel drops the pages under the lock under
    /// which it found no registration.
    pub(crate) fn set_aside(&self, range: HostRange) {
        let parts = self.registered_parts(range);
        let runs: Vec<HostRange> = parts.into_iter().flat_map(|part| self.held(part)).map(|held| held.range).collect();
        self.books.lock().quarantine.add_pending(&runs);
    }

    /// What of `range` raises events, part by part.
    pub(crate) fn registered_parts(&self, range: HostRange) -> Vec<HostRange> {
        let books = self.books.lock();
        let registered = books.chunks_at(range).flat_map(|(_, chunk)| &chunk.registered);
        registered.filter_map(|part| part.range.intersect(range)).collect()
    }

    /// Before a look at pages: gives what the look may settle afterwards.
    pub(crate) fn begin_look(&self) -> u64 {
        let (serial, pending) = {
            let quarantine = &self.books.lock().quarantine;
            (quarantine.serial(), quarantine.has_pending())
        };
        if pending && !self.kernel.event_pending() {
            self.books.lock().quarantine.start_clocks(now_ns(), serial);
        }
        serial
    }

    /// Looks whether pending pages of `range` are gone.
    pub(crate) fn settle_dropped(&self, range: HostRange) {
        if !self.books.lock().quarantine.has_pending() {
            return;
        }
        let serial = self.begin_look();
        let pending = self.books.lock().quarantine.pending_in(range);
        for part in pending {
            let mut rest = part;
            while !rest.is_empty() {
                let mut held = [NOTHING; 16];
                let (found, end) = self.kernel.scan(rest, &mut held);
                let looked = HostRange::new(rest.start, end.min(rest.end));
                self.books.lock().quarantine.settle_absent(looked, &held[..found], serial);
                if end <= rest.start {
                    break;
                }
                rest.start = end;
            }
        }
    }

    /// Drops pages by DONTNEED, and knows its own events again: each VMA raises one.
    pub(crate) fn drop_own(&self, range: HostRange) {
        let mut rest = range;
        while let Some(part) = self.kernel.mapping(rest.start).and_then(|mapping| mapping.range.intersect(rest)) {
            self.own_drops.lock().push(part);
            // The event outlives the call: its message may be read but not looked at when this returns.
            if self.kernel.drop_pages(part).is_err() {
                self.is_own_drop(part);
            }
            rest.start = part.end;
            if rest.is_empty() {
                return;
            }
        }
    }

    pub(crate) fn is_own_drop(&self, range: HostRange) -> bool {
        let mut own = self.own_drops.lock();
        let Some(index) = own.iter().position(|&own| own == range) else { return false };
        own.swap_remove(index);
        true
    }
}

impl Books {
    /// Claimed pages are cancelled; of the others the frames are lost. Gives these, and how many pages were cancelled. Pages whose mapping
    /// stays and that the copying path is about to drop stay claimed: nobody may write them before that is done.
    fn forget(&mut self, range: HostRange, what: Forget) -> (Vec<DeviceRun>, u64) {
        let (mut lost, mut cancelled) = (Vec::new(), 0);
        let (mut kept, mut nobodys) = (Vec::new(), Vec::new());
        for (run, page) in self.known(range) {
            match (page.mark, page.residency) {
                (Mark::Claimed(id), _) => {
                    cancelled += run.pages() as u64;
                    if let Some(claim) = self.claims.get_mut(id) {
                        claim.update(run, |entry| {
                            entry.cancelled = true;
                            let both = [entry.source_page(), entry.target_page()];
                            nobodys.extend(both.into_iter().flatten().map(|first| (first, entry.pages)));
                            if entry.dropping && what == Forget::Pages {
                                kept.push((entry.range(), page.mark));
                            }
                        });
                    }
                }
                (_, Residency::Device(first)) => {
                    self.set_frames(first, run.pages(), Frame::Cancelled);
                    lost.push(DeviceRun { first, pages: run.pages() });
                }
                _ => {}
            }
            self.set(run, Page { residency: Residency::System, mark: Mark::Free });
        }
        kept.into_iter().for_each(|(run, mark)| self.set_mark(run, mark));
        nobodys.into_iter().for_each(|(first, pages)| self.set_homes(first, pages, None));
        (lost, cancelled)
    }

    fn forget_registration(&mut self, range: HostRange) {
        self.quarantine.settle(range, u64::MAX);
        for number in self.chunks_in(range) {
            if let Some(chunk) = self.chunks.get_mut(number) {
                chunk.subtract_registered(range);
                if chunk.is_idle() && chunk.registered.is_empty() {
                    self.chunks.remove(number);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::books::Watched;
    use crate::kernel::Message;
    use crate::sys::{access, mem};
    use hostmm::{ClaimRequest, HostMm, Migration, OwnerId, PagemapId, Place, Toward};
    use units::{HostVa, SZ_2M, SZ_4K, SZ_64K};

    const PAGES: usize = (SZ_64K / SZ_4K) as usize;

    /// What a claim makes of a page.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Seen {
        No,
        Hole,
        System,
    }

    fn claimed(mm: &LiveMm, range: HostRange) -> Vec<Seen> {
        let mut migration = Migration::default();
        let request = ClaimRequest { range, owner: OwnerId(1), toward: Toward::Vram(PagemapId(0)), fault: None };
        mm.claim(&request, &mut migration).expect("memory of one mapping");
        let mut out = vec![Seen::No; range.pages()];
        for part in &migration.parts {
            let seen = if matches!(part.from, Some(Place::Host(_))) { Seen::System } else { Seen::Hole };
            out[range.page_index(part.range.start)..][..part.pages()].fill(seen);
        }
        mm.finish(&mut migration);
        out
    }

    fn fill(range: HostRange) {
        (0..range.pages()).for_each(|i| access::write(range.page_at(i).0, &[7]).expect("memory of ours"));
    }

    fn reads(va: HostVa) -> u8 {
        let mut byte = [0];
        access::read(va.0, &mut byte).expect("memory of ours");
        byte[0]
    }

    /// When a REMOVE is settled, what lies at its addresses may be new: written after a MADV_FREE, or another thread's
    /// after a munmap. It stays; and it does not migrate before it is known not to be old.
    #[test]
    fn a_remove_takes_nothing_out_of_system_memory() {
        let Some(mm) = LiveMm::start_for_test() else { return };
        let (chunk, whole) = mem::map_guarded(SZ_2M).expect("2M of addresses");
        let (range, beside) =
            (HostRange::sized(chunk.start, SZ_64K), HostRange::sized(chunk.start.add(SZ_64K), SZ_64K));
        let block = HostRange::new(range.start, beside.end);
        fill(block);
        mm.books.lock().chunk_mut(chunk.start).add_registered(Watched { range: chunk, sure: true });
        {
            let _closed = mm.barrier.close();
            mm.take_event(Message::Remove(range));
        }
        mm.kernel.kick();
        mm.settle();
        assert!((0..PAGES).all(|i| reads(range.page_at(i)) == 7), "pages were dropped");
        let found = claimed(&mm, block);
        assert!(found[..PAGES].iter().all(|page| *page == Seen::No), "an old page may leave: {found:?}");
        assert!(found[PAGES..].iter().all(|page| matches!(page, Seen::System)), "{found:?}");

        // The madvise drops one of them: that one is a hole like any other.
        mem::advise(HostRange::sized(range.start, SZ_4K), mem::Advice::DontNeed).expect("memory of ours");
        let found = claimed(&mm, block);
        assert_eq!(found[..2], [Seen::Hole, Seen::No]);
        fill(HostRange::sized(range.start, SZ_4K));
        assert!(matches!(claimed(&mm, block)[..2], [Seen::System, Seen::No]));

        // The others were freed only, and are not set aside for ever.
        while claimed(&mm, block).contains(&Seen::No) {
            sync::yield_now();
        }
        assert!((0..PAGES).all(|i| reads(range.page_at(i)) == 7));
        mem::unmap(whole);
        assert!(mm.stop());
    }
}
