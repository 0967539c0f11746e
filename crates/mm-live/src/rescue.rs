//! Pages that a process outside brings home, for threads that wait for them in a system call while a debugger has stopped who would.
//!
//! A thread that touches an absent page in the program itself can be stopped there. One that does so in a system call (`write(2)` of memory in VRAM)
//! can be stopped only when it has the page, so a debugger that has stopped its reader, or the mover of the page, waits for ever.
//!
//! | the page, when its reader or mover is stopped | what happens |
//! |---|---|
//! | in VRAM, whether a migration has claimed it or not | it moves home |
//! | in a bounce buffer, between the two moves | it moves home |
//! | at its place, and nobody has woken the thread | the thread is woken |
//! | absent, and never anywhere else | nothing: zeros must not be taken for a page that is on its way |
//! | anywhere, and an event is unread, aside, or in the hands of a stopped reader | nothing: the kernel refuses, or the page may be another's |
//! | stuck in a bounce buffer, for want of memory; pinned; of a mapping that is read-only by now | nothing |
//!
//! All pages go, as which one is waited for only a message says, and to read messages is a reader's. A move home is one ioctl by the program's
//! descriptor: it happens before a change of the mapping or not at all, and where the page is elsewhere by then it fails.
//!
//! The books are settled later, by whoever reads events next, after what was read ([`LiveMm::settle_rescued`]): a page that is at its place is
//! nowhere else. So a migration of it is cancelled, as by a DONTNEED, its frame is nobody's, and the engine is told. Until then
//!
//! * the barrier is closed, so no device begins to use VRAM; an access that was in the middle of a frame is told to try again;
//! * a mover that finds no page where it was, or one where none was, takes that for an event that is in the way: it reads;
//! * no page comes to a frame, and none to a bounce buffer, but by a step of a mover that had begun before ([`LiveMm::hold_events`]), and that
//!   step's pages were noted before. So whose bytes a place has, once read, stays so until the end of the turn.
//!
//! Locking: none, but for the turn of the process outside ([`aside`](crate::aside)), for which readers wait.

use crate::aside::Aside;
use crate::books::chunk_range;
use crate::forget::Forget;
use crate::kernel::{Descriptor, Errno};
use crate::sys::homes::Homes;
use crate::{LiveMm, Transport};
use hostmm::{DevicePage, EventKind, PagemapId};
use sync::RwLockReadGuard;
use sync::time::now_ns;
use units::{HostRange, HostVa, PAGE_SHIFT, SZ_2M, SZ_4K, bytes_of};

/// All addresses that a program may have.
const EVERYWHERE: HostRange = HostRange::new(HostVa(1 << 16), HostVa((1 << 47) - SZ_4K));
/// How long a turn is: readers that go on wait for its end.
const TURN_NS: u64 = 100_000_000;

/// How far a rescue is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From here on.
    From(DevicePage),
    /// All has been tried.
    End,
    /// Not now: an event is in the way, or readers read.
    Refused,
}

impl LiveMm {
    /// Brings all pages home, where nobody has read for a while although somebody waits.
    pub(crate) fn rescue(&self, aside: &Aside, is_stuck: impl Fn() -> bool) {
        if !self.kernel.wait(0).messages {
            // Its message may be with a stopped reader. Woken, a thread that waits in a system call says so again.
            return self.kernel.wake(EVERYWHERE);
        }
        self.bring_all(aside, is_stuck);
    }

    /// The same at any time, and though nobody waits: right then as well, which a test shows.
    #[doc(hidden)]
    pub fn bring_home_now(&self) {
        if let Some(aside) = &self.aside {
            self.bring_all(aside, || !aside.is_being_read());
        }
    }

    fn bring_all(&self, aside: &Aside, is_stuck: impl Fn() -> bool) {
        let Some(homes) = self.homes.as_deref().filter(|_| self.transport == Transport::Move) else { return };
        let mut way = Way::From(DevicePage { pagemap: PagemapId(0), frame: 0 });
        while let Way::From(page) = way {
            way = aside.in_turn(&is_stuck, || self.rescue_from(aside, homes, page)).unwrap_or(Way::Refused);
        }
        self.kernel.wake(EVERYWHERE);
        // Whoever can read settles it.
        self.kernel.kick();
    }

    /// A turn of it.
    fn rescue_from(&self, aside: &Aside, homes: &Homes, page: DevicePage) -> Way {
        if aside.has_events_in_hand() || self.kernel.event_pending() {
            return Way::Refused;
        }
        aside.begin_rescue(|| self.barrier.hold());
        let end = now_ns() + TURN_NS;
        // First those that may go on from a buffer to a frame.
        if !self.rescue_bounced(homes) {
            return Way::Refused;
        }
        let mut page = page;
        while page.pagemap.index() < crate::books::MAX_PAGEMAPS {
            let run = homes.run(page);
            let Some((first, home, pages)) = run else {
                page = DevicePage { pagemap: PagemapId(page.pagemap.0 + 1), frame: 0 };
                continue;
            };
            match self.places.address(first) {
                Some(from) if !self.bring(home, from, pages) => return Way::Refused,
                _ => page = first.add(pages as u64),
            }
            if now_ns() > end {
                return Way::From(page);
            }
        }
        Way::End
    }

    fn rescue_bounced(&self, homes: &Homes) -> bool {
        let bounced = self.bounce.ranges().iter().enumerate();
        bounced
            .filter_map(|(number, range)| Some((homes.bounced(number)?, range.start)))
            .all(|(home, from)| self.bring(home, from, (SZ_2M >> PAGE_SHIFT) as usize))
    }

    /// Moves pages home that are there. False where the kernel refuses everything.
    fn bring(&self, home: HostVa, from: HostVa, pages: usize) -> bool {
        let (mut done, mut limit) = (0, pages);
        while done < pages {
            let bytes = bytes_of(limit.min(pages - done));
            let (to, from) = (home.add(bytes_of(done)), from.add(bytes_of(done)));
            let progress = self.kernel.move_pages(Descriptor::Program, to, from, bytes);
            let went = (progress.bytes >> PAGE_SHIFT) as usize;
            self.counters.rescued.add(went as u64);
            done += went;
            match progress.error {
                Some(Errno::AGAIN) => return false,
                // Not as one piece, or not this one.
                Some(_) if went == 0 && limit > 1 => limit = 1,
                Some(_) if went == 0 => done += 1,
                _ => {}
            }
        }
        true
    }

    /// Behind the closed barrier, for who has read and settled all events: what is at its place is nowhere else. Where a change has
    /// begun meanwhile, which may have taken a page elsewhere before it was looked for, it is done again. True where there was something to
    /// settle.
    pub(crate) fn settle_rescued(&self) -> bool {
        let Some(aside) = self.aside.as_ref().filter(|aside| aside.take_rescued()) else { return false };
        let chunks: Vec<u64> = self.books.lock().chunks.iter().map(|(number, _)| number).collect();
        for chunk in chunks.into_iter().map(chunk_range) {
            let known = self.books.lock().known(chunk);
            let at_home: Vec<HostRange> =
                known.into_iter().flat_map(|(run, _)| self.held(run)).map(|held| held.range).collect();
            let (Some(first), Some(last)) = (at_home.first(), at_home.last()) else { continue };
            let around = HostRange::new(first.start, last.end);
            let place = self.books.lock().undelivered.add(around);
            let lost = at_home.iter().flat_map(|range| self.forget(*range, Forget::Pages)).collect();
            self.notify_later(around, EventKind::Clear, lost, Some(place));
        }
        if self.has_deferred() || self.kernel.event_pending() {
            aside.keep_rescued();
        }
        aside.open(&self.barrier);
        true
    }

    /// Where pages can be brought home: waits until what was is settled, and keeps it so that no other page comes to a frame
    /// meanwhile which somebody brings home. `None` where there is no such process.
    pub(crate) fn hold_rescues(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.aside.as_ref().map(|_| self.hold_events())
    }

    /// Whether pages may have been brought home that the books have elsewhere.
    pub(crate) fn has_rescued(&self) -> bool {
        self.aside.as_ref().is_some_and(Aside::has_rescued)
    }

    /// A table of whose bytes the frames of a pagemap hold.
    pub(crate) fn add_homes(&self, id: PagemapId, frames: u64) {
        if let Some(Ok(table)) = self.homes.as_ref().map(|homes| homes.add(id, frames)) {
            self.own(table);
        }
    }

    pub(crate) fn note_bounced(&self, buffer: usize, home: Option<HostVa>) {
        if let Some(homes) = &self.homes {
            homes.set_bounced(buffer, home);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::books::{Frame, Mark, Page, Residency};
    use crate::sys::{access, mem};
    use hostmm::{
        AccessError, AtomicOp, ClaimRequest, CpuFault, FaultOutcome, HostMemory, HostMm, Migration, OwnerId,
        PagemapOps, Place, Toward,
    };
    use std::sync::Arc;
    use units::HostFrame;

    const PAGES: usize = 4;
    const FIRST: DevicePage = DevicePage { pagemap: PagemapId(0), frame: 0 };

    struct Nobody;

    impl PagemapOps for Nobody {
        fn migrate_to_ram(&self, _: &dyn HostMm, _: &CpuFault) -> FaultOutcome {
            FaultOutcome::Retry
        }
        fn folio_free(&self, _: DevicePage, _: usize) {}
    }

    /// Pages of the program, each with its number, on their way to VRAM.
    struct Away {
        mm: Arc<LiveMm>,
        range: HostRange,
        whole: HostRange,
        migration: Migration,
    }

    impl Away {
        /// Claimed and staged.
        fn new() -> Option<Self> {
            let mm = LiveMm::start_for_test()?;
            mm.pagemap_insert(FIRST.pagemap, OwnerId(1), 512, Arc::new(Nobody));
            let (chunk, whole) = mem::map_guarded(SZ_2M).expect("2M of addresses");
            let range = HostRange::sized(chunk.start, bytes_of(PAGES));
            (0..PAGES).for_each(|i| access::write(range.page_at(i).0, &[7 + i as u8]).expect("memory of ours"));
            let mut migration = Migration::default();
            let request = ClaimRequest { range, owner: OwnerId(1), toward: Toward::Vram(FIRST.pagemap), fault: None };
            mm.claim(&request, &mut migration).expect("memory of one mapping");
            migration.aim(range, FIRST);
            mm.stage(&mut migration).expect("empty frames");
            Some(Self { mm, range, whole, migration })
        }

        fn transfer(&mut self) {
            let from = Place::Host(HostFrame(self.range.start.page_number()));
            let mut report = self.migration.report_from(0);
            self.mm.transfer(from, Place::Device(FIRST), PAGES, &mut |pages, how| report.note(pages, how));
        }

        fn arrive(&mut self) {
            self.transfer();
            self.mm.commit(&mut self.migration);
            self.mm.finish(&mut self.migration);
            assert!(self.mm.held(self.range).is_empty());
        }

        /// From outside. The threads of this program that are not in the middle of something go on, and settle it.
        fn rescue(&self) {
            self.mm.bring_home_now();
        }

        /// All is at home, each byte as it was, and the books say so.
        fn end(mut self, rescued: usize) {
            self.mm.wait_open();
            self.mm.commit(&mut self.migration);
            self.mm.finish(&mut self.migration);
            self.mm.settle();
            assert_eq!(self.mm.stats().rescued, rescued as u64);
            let mut byte = [0];
            for page in 0..PAGES {
                let va = self.range.page_at(page);
                assert!(self.mm.holds(va), "{page}");
                assert_eq!(access::read(va.0, &mut byte).map(|()| byte[0]), Ok(7 + page as u8));
                let books = self.mm.books.lock();
                assert_eq!(books.page(va), Page { residency: Residency::System, mark: Mark::Free });
                assert_eq!(books.frame(FIRST.add(page as u64)), Some(Frame::Empty));
            }
            assert!(!self.mm.barrier.is_closed() && !self.mm.has_aside());
            let stats = self.mm.stats();
            assert_eq!((stats.conflicts, stats.stale, stats.unexpected, stats.stranded), (0, 0, 0, 0));
            assert!(self.mm.migrate_all_back());
            mem::unmap(self.whole);
            assert!(self.mm.stop());
        }
    }

    #[test]
    fn a_page_that_lives_in_vram_comes_home() {
        let Some(mut away) = Away::new() else { return };
        away.arrive();
        away.rescue();
        away.end(PAGES);
    }

    #[test]
    fn a_page_whose_migration_is_not_committed_comes_home() {
        let Some(mut away) = Away::new() else { return };
        away.transfer();
        away.rescue();
        away.end(PAGES);
    }

    /// The mover is stopped between the two moves by which a page leaves, and goes on with the second.
    #[test]
    fn a_page_comes_home_from_a_bounce_buffer() {
        let Some(away) = Away::new() else { return };
        let mm = &away.mm;
        let held = mm.hold_events();
        let buffer = mm.bounce.ranges()[0];
        let at = buffer.start.add(away.range.start.0 % SZ_2M);
        mm.note_bounced(0, Some(away.range.start));
        assert_eq!(mm.move_exactly(Descriptor::Program, at, away.range.start, 2), (2, None));
        away.rescue();
        assert!(away.mm.holds(away.range.start) && mm.barrier.is_closed());
        let to = mm.places.address(FIRST).expect("a frame");
        assert_eq!(mm.move_exactly(Descriptor::Device, to, at, 2), (0, Some(Errno::AGAIN)));
        mm.note_bounced(0, None);
        drop(held);
        away.end(2);
    }

    /// A mover that is about to move pages back finds them at home, and reads.
    #[test]
    fn who_moves_a_page_back_meets_one_that_is_there() {
        let Some(mut away) = Away::new() else { return };
        away.arrive();
        let held = away.mm.hold_events();
        away.rescue();
        let from = away.mm.places.address(FIRST).expect("a frame");
        let (went, _) = away.mm.move_exactly(Descriptor::Program, away.range.start, from, PAGES);
        assert_eq!(went, PAGES, "as if it had moved them");
        drop(held);
        away.end(PAGES);
    }

    /// A device that is in the middle of a frame when its page goes is told to try again, not that the frame is empty.
    #[test]
    fn a_device_in_the_middle_of_a_frame_tries_again() {
        let Some(mut away) = Away::new() else { return };
        away.arrive();
        let held = away.mm.hold_events();
        away.rescue();
        // Past the barrier, as it was when it began.
        let at = away.mm.places.address(FIRST).expect("a frame");
        let fault = away.mm.kernel.atomic(at, 4, AtomicOp::Add(1)).expect_err("an empty frame");
        assert_eq!(away.mm.explain(Place::Device(FIRST), fault), AccessError::Again);
        drop(held);
        away.end(PAGES);
    }

    /// The program moves a mapping after its page came home, and before anybody has settled that: the page went along.
    #[test]
    fn a_page_that_came_home_follows_its_mapping() {
        let Some(mut away) = Away::new() else { return };
        away.arrive();
        let (mm, from) = (away.mm.clone(), HostRange::sized(away.range.start, SZ_2M));
        let to = HostRange::sized(mem::map_guarded(SZ_2M).expect("2M of addresses").0.start, SZ_2M);
        let held = mm.hold_events();
        away.rescue();
        let mover = sync::spawn("program", move || mem::remap(from, to.start).expect("memory of ours"));
        while !mm.kernel.event_pending() {
            sync::yield_now();
        }
        drop(held);
        mover.join();
        mm.settle();
        let at = HostRange::sized(to.start, away.range.len());
        for page in 0..PAGES {
            assert_eq!(mm.books.lock().residency(at.page_at(page)), Residency::System);
            assert_eq!(mm.books.lock().frame(FIRST.add(page as u64)), Some(Frame::Empty));
        }
        assert_eq!((mm.stats().rescued, mm.has_rescued()), (PAGES as u64, false));
        mem::unmap(to);
        assert!(mm.stop());
    }

    /// What a DONTNEED has dropped, as its thread was told by the reading, does not come back while the reader has not settled it.
    #[test]
    fn nothing_comes_home_while_a_reader_has_an_event_in_hand() {
        let Some(mut away) = Away::new() else { return };
        away.arrive();
        let (mm, range) = (away.mm.clone(), away.range);
        let aside = mm.aside.as_ref().expect("a real kernel");
        let closed = mm.barrier.close();
        let dropper = sync::spawn("dropper", move || {
            mem::advise(range, mem::Advice::DontNeed).expect("memory of ours");
        });
        let mut out = [crate::kernel::Message::Other(0); 4];
        while mm.read_messages(&mut out) == 0 {}
        dropper.join();
        assert!(aside.has_events_in_hand());
        away.rescue();
        assert_eq!((mm.stats().rescued, mm.holds(range.start)), (0, false));
        mm.take_event(out[0]);
        mm.end_reading();
        drop(closed);
        mm.kernel.kick();
        mm.settle();
        away.rescue();
        assert_eq!((mm.stats().rescued, mm.holds(range.start)), (0, false));
        mm.wait_open();
        mem::unmap(away.whole);
        assert!(mm.stop());
    }
}
