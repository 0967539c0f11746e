//! Carrying pages: the steps of a staged pair's way.
//!
//! | way | descriptor | fails with |
//! |---|---|---|
//! | to device | first into the airlock, second out of it | EBUSY: pinned or shared copy-on-write; EINVAL: not movable |
//! | home | first (program): exact against munmap and DONTNEED, which make it EAGAIN | EINVAL: read-only meanwhile, so copied |
//! | across | second | |
//!
//! Each step holds the intake lock shared from the look at the page map to the note of the result, so an event is
//! processed either before the step or after it, never in between. What leaves the program goes through the
//! [`airlock`](crate::airlock), because the second descriptor would move whatever lies at the address now.
//!
//! EAGAIN: let go, read the events oneself ([`LiveMm::pump`]), yield to the thread that raised them (the kernel
//! refuses until it has run), and only then try again.

use crate::arena::Frame;
use crate::entry::Entry;
use crate::leg::{Leg, Way};
use crate::map::{Mark, PageMap};
use crate::sys::uffd::Uffd;
use crate::sys::{Errno, task};
use crate::{LiveMm, Transport};
use hostmm::{Place, Transferred};
use sync::atomic::AtomicU64;
use units::{HostVa, PAGE_SHIFT, SZ_4K, bytes_of};

/// Why pages are carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    Migrate,
    PutBack,
}

/// How one step ended.
pub(crate) enum Step {
    /// Pages that went, or were holes; their results are noted.
    Went(usize),
    /// One page cannot go.
    Failed,
    /// An event is in the way.
    Again,
    /// Not as one piece.
    Narrow,
    /// Pinned or shared.
    Busy,
}

/// What one ioctl did.
pub(crate) enum Pushed {
    /// Pages that went, and how.
    Went(usize, Transferred),
    /// None.
    Not(Step),
}

impl core::convert::From<Pushed> for Step {
    fn from(pushed: Pushed) -> Self {
        match pushed {
            Pushed::Went(pages, _) => Self::Went(pages),
            Pushed::Not(step) => step,
        }
    }
}

const MAX_TRIES: u32 = 4000;

impl LiveMm {
    /// Moves pages and says how many really went. Linux 6.18 may have moved more than it counts (see
    /// [`Uffd::move_pages`]): those are gone at the source and there at the destination, which was empty. They must be
    /// found before an event can be read: a page that is in nobody's books is lost.
    pub(crate) fn move_exactly(&self, descriptor: &Uffd, dst: u64, src: u64, pages: usize) -> (usize, Option<Errno>) {
        let progress = descriptor.move_pages(dst, src, bytes_of(pages));
        let mut went = (progress.bytes >> PAGE_SHIFT) as usize;
        while progress.error.is_some() && went < pages {
            let here = bytes_of(went);
            let ((gone, at_source), (come, at_destination)) =
                (self.leading_run(src + here, pages - went), self.leading_run(dst + here, pages - went));
            if at_source || !at_destination {
                break;
            }
            went += gone.min(come);
        }
        (went, progress.error)
    }

    /// The address of a place.
    pub(crate) fn address(&self, place: Place) -> Option<u64> {
        match place {
            Place::Host(frame) => Some(frame.0 << PAGE_SHIFT),
            Place::Device(page) => self.places.address(page),
        }
    }

    pub(crate) fn transfer_run(&self, src: Place, dst: Place, done: &mut [Transferred]) {
        let mut at = 0;
        while at < done.len() {
            let rest = done.len() - at;
            let staged = self.staged_run(src.add(at as u64), dst.add(at as u64), rest);
            match staged {
                Some((claim, entry, leg)) => {
                    self.carry_staged(claim, entry, leg, &mut done[at..at + leg.pages]);
                    at += leg.pages;
                }
                None => {
                    done[at] = self.copy_page(src.add(at as u64), dst.add(at as u64));
                    at += 1;
                }
            }
        }
    }

    /// The longest run of exactly staged pairs, of one claim, that begins here.
    fn staged_run(&self, src: Place, dst: Place, most: usize) -> Option<(u64, usize, Leg)> {
        let map = self.map.lock();
        let find = |offset: usize| {
            let va = match src.add(offset as u64) {
                Place::Host(frame) => HostVa(frame.0 << PAGE_SHIFT),
                Place::Device(page) => match map.frame(page)? {
                    Frame::Home(va) => va,
                    _ => return None,
                },
            };
            let Mark::Claimed { claim, entry: index } = map.mark(va) else { return None };
            let entry = map.entry(claim, index)?;
            let leg = Leg::of(&entry)?;
            let pair = leg.src == src.add(offset as u64) && leg.dst == dst.add(offset as u64);
            (pair && entry.is_open()).then_some((claim, index, leg))
        };
        let (claim, index, mut leg) = find(0)?;
        // The claim's next entries are the next pages' as long as they are alive.
        let entries = map.entries(claim).iter().skip(index).take(most).enumerate();
        let follows = |(offset, entry): &(usize, &Entry)| entry.is_open() && Leg::of(entry) == Some(leg.at(*offset));
        leg.pages = entries.take_while(follows).count();
        Some((claim, index, leg))
    }

    /// Carries a run of staged pairs and notes each result in its entry.
    pub(crate) fn carry_staged(&self, claim: u64, entry: usize, leg: Leg, done: &mut [Transferred]) {
        self.carry(claim, entry, leg, Purpose::Migrate, done);
    }

    /// Puts a run back; gives how many pages did not go and are not dead.
    pub(crate) fn put_back(&self, claim: u64, entry: usize, leg: Leg) -> usize {
        let mut done = vec![Transferred::Failed; leg.pages];
        // What was copied there left its old bytes behind.
        self.empty_frames(&self.holding_bytes(leg.dst, leg.pages));
        self.carry(claim, entry, leg, Purpose::PutBack, &mut done);
        if let Place::Device(page) = leg.src {
            let copied = |offset: &usize| done[*offset] == Transferred::Copied;
            let left: Vec<_> = (0..leg.pages).filter(copied).map(|offset| page.add(offset as u64)).collect();
            self.empty_frames(&left);
        }
        let mut guard = self.map.lock();
        let map = &mut *guard;
        let mut left = 0;
        for (offset, how) in done.iter().enumerate() {
            let Some(mut state) = map.entry(claim, entry + offset) else { continue };
            if *how != Transferred::Failed {
                self.counters.put_back.fetch_add(1);
                state.carried = None;
                map.set_entry(claim, entry + offset, state);
            } else if !state.dead {
                left += 1;
            }
        }
        left
    }

    fn carry(&self, claim: u64, entry: usize, leg: Leg, purpose: Purpose, done: &mut [Transferred]) {
        let mut at = 0;
        let mut tries = 0;
        let mut limit = usize::MAX;
        let mut populated = None;
        while at < leg.pages {
            let rest = Leg { pages: leg.pages - at, ..leg.at(at) };
            match self.step(claim, entry + at, rest, limit, purpose, &mut done[at..]) {
                Step::Went(pages) => {
                    at += pages;
                    (tries, limit) = (0, usize::MAX);
                    continue;
                }
                Step::Narrow => {
                    limit = 1;
                    continue;
                }
                Step::Again if self.make_way(&mut tries) => continue,
                Step::Busy if leg.way == Way::ToDevice && purpose == Purpose::Migrate && populated != Some(at) => {
                    populated = Some(at);
                    self.break_sharing(claim, entry + at);
                    continue;
                }
                Step::Busy if leg.way != Way::ToDevice || purpose == Purpose::PutBack => {
                    if self.make_way(&mut tries) {
                        continue;
                    }
                }
                Step::Busy => drop(self.counters.busy.fetch_add(1)),
                Step::Failed | Step::Again => {}
            }
            // Patience is for the whole leg: where events keep coming, the rest stays where it is.
            let lost = if tries >= MAX_TRIES { leg.pages - at } else { 1 };
            done[at..at + lost].fill(Transferred::Failed);
            if purpose == Purpose::Migrate {
                (at..at + lost).for_each(|page| self.note_carried(claim, entry + page, Transferred::Failed));
            }
            at += lost;
            (tries, limit) = (0, usize::MAX);
        }
    }

    /// Makes way for who raised an event. False when that has been done often enough.
    pub(crate) fn make_way(&self, tries: &mut u32) -> bool {
        *tries += 1;
        self.counters.again.fetch_add(1);
        if self.pump() {
            self.kick.ring();
        }
        if *tries < 200 {
            task::relax()
        } else {
            task::nap_us(50)
        }
        *tries < MAX_TRIES
    }

    fn step(
        &self,
        claim: u64,
        entry: usize,
        leg: Leg,
        limit: usize,
        purpose: Purpose,
        done: &mut [Transferred],
    ) -> Step {
        let held = self.hold_events();
        let (alive, zeroing) = self.map.lock().alive_run(claim, entry, &leg, purpose);
        let mut pages = leg.clipped(alive.min(limit));
        if zeroing {
            return Step::Again;
        }
        if pages == 0 {
            return Step::Failed;
        }
        let (Some(src), Some(dst)) = (self.address(leg.src), self.address(leg.dst)) else { return Step::Failed };
        if leg.way == Way::ToDevice {
            let (run, resident) = self.leading_run(src, pages);
            pages = run;
            if !resident {
                // What was seen is the claimed mapping's only if no change of it had begun by then.
                if self.program.event_pending() {
                    return Step::Again;
                }
                done[..pages].fill(Transferred::Hole);
                self.note_step(claim, entry, Leg { pages, ..leg }, purpose, &done[..pages]);
                return Step::Went(pages);
            }
        }
        self.prepare_slot(leg.dst, pages);
        if self.transport == Transport::Copy && leg.way == Way::ToDevice {
            drop(held);
            return self.copy_to_device(claim, entry, Leg { pages, ..leg }, purpose, done);
        }
        let step = self.push(leg.way, leg.src, dst, src, pages);
        if let Pushed::Went(pages, how) = step {
            done[..pages].fill(how);
            self.note_step(claim, entry, Leg { pages, ..leg }, purpose, &done[..pages]);
        }
        step.into()
    }

    /// The ioctl itself.
    fn push(&self, way: Way, from: Place, dst: u64, src: u64, pages: usize) -> Pushed {
        let descriptor = if way == Way::Home { &self.program } else { &self.device };
        let (went, error) = match self.transport {
            Transport::Move if way == Way::ToDevice => self.through_airlock(dst, src, pages),
            Transport::Move => self.move_exactly(descriptor, dst, src, pages),
            Transport::Copy => {
                let progress = descriptor.copy(dst, src, bytes_of(pages));
                ((progress.bytes >> PAGE_SHIFT) as usize, progress.error)
            }
        };
        let how = if self.transport == Transport::Move { Transferred::Moved } else { Transferred::Copied };
        if went > 0 {
            return Pushed::Went(went, how);
        }
        match error {
            None => Pushed::Went(pages, how),
            // Both places hold something: a guard of MADV_GUARD_INSTALL, or a rule was broken. What the program sees
            // wins, and it is counted.
            Some(Errno::EXIST) if way == Way::Home => {
                self.counters.conflicts.fetch_add(1);
                Pushed::Went(1, Transferred::Copied)
            }
            Some(Errno::AGAIN) => Pushed::Not(Step::Again),
            Some(Errno::BUSY) => Pushed::Not(Step::Busy),
            Some(Errno::INVAL | Errno::NOENT | Errno::FAULT) if pages > 1 => Pushed::Not(Step::Narrow),
            // Taken back by the kernel, after MADV_FREE: it is zeros now.
            Some(Errno::NOENT | Errno::FAULT) if way != Way::ToDevice && self.refill_if_absent(from) => {
                Pushed::Not(Step::Again)
            }
            // A hole after all; the next look says so, or whose it is.
            Some(Errno::NOENT) if way == Way::ToDevice => Pushed::Not(Step::Again),
            Some(Errno::INVAL) if way == Way::Home => self.copy_home(dst, src),
            // No mapping, and no event of its end.
            Some(Errno::NOENT) if way == Way::Home && self.maps.at(HostVa(dst)).is_none() => self.copy_home(dst, src),
            Some(Errno::INVAL | Errno::NOENT) => Pushed::Not(self.count_invalid()),
            Some(_) => {
                self.counters.failed.fetch_add(1);
                Pushed::Not(Step::Failed)
            }
        }
    }

    /// One page home by a copy: its mapping is read-only by now. Where it is another mapping, which only a change
    /// without an event leaves behind, its page is of no use to anybody.
    fn copy_home(&self, dst: u64, src: u64) -> Pushed {
        let copied = self.program.copy(dst, src, SZ_4K);
        match copied.error {
            None => return Pushed::Went(1, Transferred::Copied),
            Some(Errno::AGAIN) => return Pushed::Not(Step::Again),
            Some(Errno::EXIST) => drop(self.counters.conflicts.fetch_add(1)),
            Some(Errno::NOENT) if self.program.event_pending() => return Pushed::Not(Step::Again),
            Some(Errno::NOENT) => drop(self.counters.orphaned.fetch_add(1)),
            Some(_) => return Pushed::Not(self.count_invalid()),
        }
        Pushed::Went(1, Transferred::Copied)
    }

    pub(crate) fn count_invalid(&self) -> Step {
        self.counters.invalid.fetch_add(1);
        Step::Failed
    }

    pub(crate) fn note_step(&self, claim: u64, entry: usize, leg: Leg, purpose: Purpose, done: &[Transferred]) {
        let mut guard = self.map.lock();
        let map = &mut *guard;
        for (offset, &how) in done.iter().enumerate() {
            if let Place::Device(dst) = leg.dst {
                map.note_bytes(dst.add(offset as u64), how != Transferred::Hole);
            }
            if let (Place::Device(src), Transferred::Moved) = (leg.src, how) {
                map.note_bytes(src.add(offset as u64), false);
            }
        }
        if purpose == Purpose::Migrate {
            let entries = map.entries_mut(claim).iter_mut().skip(entry);
            entries.zip(done.iter()).for_each(|(entry, &how)| entry.carried = Some(how));
        }
        drop(guard);
        let pages = done.iter().filter(|&&how| how != Transferred::Hole).count() as u64;
        let copied = done.iter().filter(|&&how| how == Transferred::Copied).count() as u64;
        self.counters.copied.fetch_add(copied);
        self.counters.holes.fetch_add(done.len() as u64 - pages);
        self.way_counter(leg.way).fetch_add(pages);
    }

    const fn way_counter(&self, way: Way) -> &AtomicU64 {
        match way {
            Way::ToDevice => &self.counters.to_device,
            Way::Home => &self.counters.to_home,
            Way::Across => &self.counters.across,
        }
    }

    pub(crate) fn note_carried(&self, claim: u64, entry: usize, how: Transferred) {
        let mut map = self.map.lock();
        if let Some(mut state) = map.entry(claim, entry) {
            state.carried = Some(how);
            map.set_entry(claim, entry, state);
        }
    }
}

impl PageMap {
    /// How many entries from `entry` on still go exactly this way, and whether a reader is at the first.
    pub(crate) fn alive_run(&mut self, claim: u64, entry: usize, leg: &Leg, purpose: Purpose) -> (usize, bool) {
        let goes = |(offset, state): &(usize, &Entry)| {
            let way = Leg::of(state).map(|way| if purpose == Purpose::PutBack { way.turned() } else { way });
            !state.dead && !state.zeroing && way == Some(leg.at(*offset))
        };
        let entries = self.entries_mut(claim).get_mut(entry..).unwrap_or_default();
        let run = entries.iter().take(leg.pages).enumerate().take_while(goes).count();
        // From now on no reader fills them.
        entries[..run].iter_mut().for_each(|entry| entry.sealed = true);
        (run, entries.first().is_some_and(|entry| entry.zeroing))
    }
}
