//! What an event takes away: pages, and with munmap their mapping.
//!
//! # Why a REMOVE drops nothing in system memory
//!
//! The kernel tells of DONTNEED and FREE before it touches the pages, and nothing tells when it has done so. A page that
//! left for VRAM in between would survive a DONTNEED. One is tempted to drop the pages here, ahead of the madvise. That
//! loses writes:
//!
//! * The thread of the madvise is free once its event is *read*, which is before anything is done here. It may drop the
//!   pages and return, write new ones, or unmap the range; another thread may map it anew, and write. What lies at the
//!   address now is then none of the pages that the event was about.
//! * No descriptor tells this apart. The second one knows nothing of the program's changes. The first one refuses a
//!   move only until the thread of the madvise has run again (`mmap_changing`), which is *before* it drops pages: from
//!   then on it moves old pages and new ones alike. (Of munmap and mremap the event comes after the change, so there
//!   the first descriptor is exact: see [`airlock`](crate::airlock).)
//! * The event of MADV_FREE is the same, and a write that comes after it must stay.
//!
//! So nothing is dropped. The pages that are present when the event is read may be old ones, and stay in system memory
//! until they are known to be gone (see [`quarantine`](crate::quarantine)). A page that comes to its place later came
//! after the DONTNEED, or while it ran. Until it is gone a page reads as it did, by the CPU and by devices: as if the
//! access came before the madvise, which its caller cannot tell, since it has not returned.
//!
//! Not exact is one case: the thread of a madvise is seen to run, and is then held up for longer than the quarantine's
//! patience before it drops its pages, and one of them migrates meanwhile. That page reads as before the DONTNEED.

use crate::arena::Frame;
use crate::map::{Home, Mark};
use crate::sys::{Errno, mem};
use crate::{LiveMm, Transport};
use hostmm::DevicePage;
use units::{HostRange, SZ_4K};

/// What an event takes away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forget {
    /// Pages; the mapping, and its registration, stay.
    Pages,
    /// The mapping.
    Mapping,
}

/// Pages that an event took away.
#[derive(Default)]
pub(crate) struct Lost {
    /// Frames to empty now, and to free when the engine was told.
    pub frames: Vec<DevicePage>,
}

impl LiveMm {
    pub(crate) fn forget(&self, range: HostRange, what: Forget) -> Lost {
        let mut lost = Lost::default();
        let mut guard = self.map.lock();
        let map = &mut *guard;
        for (va, home, mark) in map.concerned(range) {
            if let Mark::Claimed { claim, entry } = mark {
                if let Some(mut state) = map.entry(claim, entry) {
                    state.dead = true;
                    self.counters.died.fetch_add(1);
                    map.set_entry(claim, entry, state);
                }
            } else if let Home::Device(page) = home {
                map.set_frame(page, Frame::Condemned);
                lost.frames.push(page);
            }
            map.set_home(va, Home::System);
            map.set_mark(va, Mark::Free);
        }
        if what == Forget::Mapping {
            map.quarantine.settle(range, u64::MAX);
            for number in map.chunks_in(range) {
                if let Some(chunk) = map.chunks.get_mut(number) {
                    chunk.subtract_registered(range);
                    if chunk.is_idle() && chunk.registered.is_empty() {
                        map.chunks.remove(number);
                    }
                }
            }
        }
        lost
    }

    /// A REMOVE was read: the pages of `range` that are in system memory stay there until it is known what becomes of
    /// them. Only a registered mapping raises the event. Of any other the kernel drops the pages under the lock under
    /// which it found no registration.
    pub(crate) fn set_aside(&self, range: HostRange) {
        let parts: Vec<HostRange> = {
            let map = self.map.lock();
            let registered = map.chunks_at(range).flat_map(|(_, chunk)| &chunk.registered);
            registered.filter_map(|part| part.range.intersect(range)).collect()
        };
        let runs: Vec<HostRange> = parts.into_iter().flat_map(|part| self.present_runs(part)).collect();
        self.map.lock().quarantine.add_pending(&runs);
    }

    /// Before a look at pages: gives what the look may settle afterwards.
    pub(crate) fn begin_look(&self) -> u64 {
        let (serial, pending) = {
            let quarantine = &self.map.lock().quarantine;
            (quarantine.serial(), quarantine.has_pending())
        };
        if pending && !self.program.event_pending() {
            self.map.lock().quarantine.start_clocks(sync::time::now_ns(), serial);
        }
        serial
    }

    /// Looks whether pending pages of `range` are gone.
    pub(crate) fn settle_dropped(&self, range: HostRange) {
        let serial = self.begin_look();
        let pending = self.map.lock().quarantine.pending_in(range);
        for part in pending {
            let mut present = vec![1u8; part.pages()];
            if self.present(part, &mut present).is_ok() {
                self.map.lock().quarantine.settle_absent(part, &present, serial);
            }
        }
    }

    /// Drops the page of an entry that the device reported carried, and that nothing was carried of. It goes the way of
    /// a page that leaves, so it is the claimed mapping's, or it stays. False where it stays.
    pub(crate) fn discard(&self, claim: u64, index: usize) -> bool {
        let (mut tries, mut broken) = (0, false);
        loop {
            let held = self.hold_events();
            let Some(entry) = self.map.lock().entry(claim, index).filter(|entry| !entry.dead) else { return false };
            if self.transport == Transport::Copy {
                drop(held);
                self.drop_own(HostRange::sized(entry.va, SZ_4K));
                return true;
            }
            let scratch = self.scratch.lock();
            let (went, error) = self.through_airlock(scratch.start.0, entry.va.0, 1);
            if went == 1 {
                let _ = mem::advise(*scratch, mem::Advice::DontNeed);
                return true;
            }
            drop(scratch);
            drop(held);
            match error {
                // It is gone already, unless a change has begun that has taken it elsewhere.
                Some(Errno::NOENT) if !self.program.event_pending() => return true,
                Some(Errno::BUSY) if !broken => {
                    broken = true;
                    self.break_sharing(claim, index);
                }
                Some(Errno::AGAIN | Errno::NOENT | Errno::BUSY) if self.make_way(&mut tries) => {}
                _ => return false,
            }
        }
    }

    /// Drops pages by DONTNEED, and knows its own event again.
    pub(crate) fn drop_own(&self, range: HostRange) {
        self.own_drops.lock().push(range);
        // The event outlives the call: its message may be read but not looked at when this returns.
        if mem::advise(range, mem::Advice::DontNeed).is_err() {
            self.is_own_drop(range);
        }
    }

    pub(crate) fn is_own_drop(&self, range: HostRange) -> bool {
        let mut own = self.own_drops.lock();
        let Some(index) = own.iter().position(|&own| own == range) else { return false };
        own.swap_remove(index);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Watched;
    use crate::sys::access;
    use crate::sys::uffd::Message;
    use hostmm::{ClaimRequest, Claimed, HostMm, OwnerId, Select};
    use units::{HostVa, SZ_2M, SZ_64K};

    const PAGES: usize = (SZ_64K / SZ_4K) as usize;

    fn claimed(mm: &LiveMm, range: HostRange) -> Vec<Claimed> {
        let mut out = vec![Claimed::No; range.pages()];
        let request = ClaimRequest { range, owner: OwnerId(1), select: Select::All, fault: None };
        let claim = mm.claim(&request, &mut out).expect("memory of one mapping");
        mm.finish(claim);
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
        mm.map.lock().chunk_mut(chunk.start).add_registered(Watched { range: chunk, sure: true });
        {
            let _closed = mm.gate.close();
            mm.take_event(Message::Remove { start: range.start.0, end: range.end.0 });
        }
        mm.kick.ring();
        mm.settle();
        assert!((0..PAGES).all(|i| reads(range.page_at(i)) == 7), "pages were dropped");
        let found = claimed(&mm, block);
        assert!(found[..PAGES].iter().all(|page| *page == Claimed::No), "an old page may leave: {found:?}");
        assert!(found[PAGES..].iter().all(|page| matches!(page, Claimed::System(_))), "{found:?}");

        // The madvise drops one of them: that one is a hole like any other.
        mem::advise(HostRange::sized(range.start, SZ_4K), mem::Advice::DontNeed).expect("memory of ours");
        let found = claimed(&mm, block);
        assert_eq!(found[..2], [Claimed::Hole, Claimed::No]);
        fill(HostRange::sized(range.start, SZ_4K));
        assert!(matches!(claimed(&mm, block)[..2], [Claimed::System(_), Claimed::No]));

        // The others were freed only, and are not set aside for ever.
        while claimed(&mm, block).contains(&Claimed::No) {
            crate::sys::task::relax();
        }
        assert!((0..PAGES).all(|i| reads(range.page_at(i)) == 7));
        mem::unmap(whole);
        assert!(mm.stop());
    }
}
