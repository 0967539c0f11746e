//! Carrying pages: the move of a staged pair, and the copy of every other.
//!
//! A leg is a run of pages on its way from one place to another:
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
use crate::claim::{Entry, From};
use crate::map::{Home, Mark, PageMap};
use crate::sys::uffd::Uffd;
use crate::sys::{Errno, access, mem, task};
use crate::{LiveMm, Transport};
use gpusvm::hostmm::{Destination, DevicePage, Place, Transferred};
use sync::atomic::AtomicU64;
use units::{HostFrame, HostRange, HostVa, PAGE_SHIFT, SZ_2M, SZ_4K, bytes_of};

/// Which way pages go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    ToDevice,
    Home,
    Across,
}

/// A run of pages on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leg {
    pub way: Way,
    pub src: Place,
    pub dst: Place,
    pub pages: usize,
}

/// Why pages are carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    Migrate,
    PutBack,
}

/// How one step ended.
enum Step {
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
enum Pushed {
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

/// Moves pages and says how many really went. Linux 6.18 may have moved more than it counts (see
/// [`Uffd::move_pages`]): those are gone at the source and there at the destination, which was empty. They must be
/// found before an event can be read: a page that is in nobody's books is lost.
pub(crate) fn move_exactly(descriptor: &Uffd, dst: u64, src: u64, pages: usize) -> (usize, Option<Errno>) {
    let progress = descriptor.move_pages(dst, src, bytes_of(pages));
    let mut went = (progress.bytes >> PAGE_SHIFT) as usize;
    while progress.error.is_some() && went < pages {
        let here = bytes_of(went);
        let ((gone, at_source), (come, at_destination)) =
            (leading_run(src + here, pages - went), leading_run(dst + here, pages - went));
        if at_source || !at_destination {
            break;
        }
        went += gone.min(come);
    }
    (went, progress.error)
}

/// How many pages from `addr` on are resident as the first one is, and whether it is. At most 512 are looked at.
pub(crate) fn leading_run(addr: u64, pages: usize) -> (usize, bool) {
    let mut resident = [0u8; 512];
    let pages = pages.min(resident.len());
    if mem::mincore(HostRange::sized(HostVa(addr), bytes_of(pages)), &mut resident).is_err() {
        // Not mapped as a whole: let the ioctl say what is wrong.
        return (pages, true);
    }
    let first = resident[0] & 1;
    (resident[..pages].iter().take_while(|&&page| page & 1 == first).count(), first == 1)
}

const MAX_TRIES: u32 = 4000;

impl Leg {
    pub const fn to_device(va: HostVa, page: DevicePage, pages: usize) -> Self {
        Self { way: Way::ToDevice, src: Place::Host(HostFrame(va.page_number())), dst: Place::Device(page), pages }
    }
    pub const fn home(page: DevicePage, va: HostVa, pages: usize) -> Self {
        Self { way: Way::Home, src: Place::Device(page), dst: Place::Host(HostFrame(va.page_number())), pages }
    }
    pub const fn across(from: DevicePage, to: DevicePage, pages: usize) -> Self {
        Self { way: Way::Across, src: Place::Device(from), dst: Place::Device(to), pages }
    }

    /// The leg of an entry, or `None` where it goes nowhere.
    fn of(entry: &Entry) -> Option<Self> {
        match (entry.from, entry.to) {
            (From::System | From::Hole, Destination::Device(page)) => Some(Self::to_device(entry.va, page, 1)),
            (From::Device(page), Destination::Ram) => Some(Self::home(page, entry.va, 1)),
            (From::Device(from), Destination::Device(to)) => Some(Self::across(from, to, 1)),
            _ => None,
        }
    }

    fn turned(self) -> Self {
        let way = match self.way {
            Way::ToDevice => Way::Home,
            Way::Home => Way::ToDevice,
            Way::Across => Way::Across,
        };
        Self { way, src: self.dst, dst: self.src, pages: self.pages }
    }

    /// Page `offset` of it.
    fn at(self, offset: usize) -> Self {
        let (src, dst) = (self.src.add(offset as u64), self.dst.add(offset as u64));
        Self { way: self.way, src, dst, pages: 1 }
    }

    /// Whether page `offset` of this leg puts `entry` back.
    pub fn reverses(self, entry: &Entry, offset: usize) -> bool {
        !entry.committed
            && !entry.dead
            && entry.is_carried()
            && Self::of(entry).is_some_and(|leg| leg.turned() == self.at(offset))
    }

    /// Pages up to the next 2M boundary of the program's addresses: chunks may be different VMAs.
    fn clipped(self, pages: usize) -> usize {
        let host = match (self.src, self.dst) {
            (Place::Host(frame), _) | (_, Place::Host(frame)) => frame.0,
            (Place::Device(page), _) => page.frame,
        };
        let slot = SZ_2M >> PAGE_SHIFT;
        pages.min((slot - host % slot) as usize)
    }
}

impl LiveMm {
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
            let open = !entry.dead && entry.carried.is_none_or(|how| how == Transferred::Failed);
            (pair && open).then_some((claim, index, leg))
        };
        let (claim, index, mut leg) = find(0)?;
        while leg.pages < most
            && find(leg.pages)
                .is_some_and(|(other, at, next)| other == claim && at == index + leg.pages && next.way == leg.way)
        {
            leg.pages += 1;
        }
        Some((claim, index, leg))
    }

    /// Carries a run of staged pairs and notes each result in its entry.
    pub(crate) fn carry_staged(&self, claim: u64, entry: usize, leg: Leg, done: &mut [Transferred]) {
        self.carry(claim, entry, leg, Purpose::Migrate, done);
    }

    /// Puts a run back. What cannot go back stays where it is, and that becomes its home: bytes come first.
    pub(crate) fn put_back(&self, claim: u64, entry: usize, leg: Leg) {
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
        for (offset, how) in done.iter().enumerate() {
            let Some(mut state) = map.entry(claim, entry + offset) else { continue };
            if *how != Transferred::Failed {
                self.counters.put_back.fetch_add(1);
                state.carried = None;
            } else if !state.dead {
                self.counters.stranded.fetch_add(1);
                state.committed = true;
                if let Destination::Device(page) = state.to {
                    map.set_home(state.va, Home::Device(page));
                    map.set_frame(page, Frame::Home(state.va));
                } else {
                    map.set_home(state.va, Home::System);
                }
            }
            map.set_entry(claim, entry + offset, state);
        }
    }

    fn holding_bytes(&self, place: Place, pages: usize) -> Vec<DevicePage> {
        let Place::Device(first) = place else { return Vec::new() };
        let map = self.map.lock();
        let Some(arena) = map.arena(first.pagemap) else { return Vec::new() };
        (0..pages as u64).map(|offset| first.add(offset)).filter(|page| arena.has_bytes(page.frame)).collect()
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
        let held = self.gate.hold_events();
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
            let (run, resident) = leading_run(src, pages);
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
        let step = self.push(leg.way, dst, src, pages);
        if let Pushed::Went(pages, how) = step {
            done[..pages].fill(how);
            self.note_step(claim, entry, Leg { pages, ..leg }, purpose, &done[..pages]);
        }
        step.into()
    }

    /// The ioctl itself.
    fn push(&self, way: Way, dst: u64, src: u64, pages: usize) -> Pushed {
        let descriptor = if way == Way::Home { &self.program } else { &self.device };
        let (went, error) = match self.transport {
            Transport::Move if way == Way::ToDevice => self.through_airlock(dst, src, pages),
            Transport::Move => move_exactly(descriptor, dst, src, pages),
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
            // Both places hold a page: a rule was broken. What the program sees wins, and it is counted.
            Some(Errno::EXIST) if way == Way::Home && leading_run(dst, 1).1 => {
                self.counters.conflicts.fetch_add(1);
                Pushed::Went(1, Transferred::Copied)
            }
            Some(Errno::AGAIN) => Pushed::Not(Step::Again),
            Some(Errno::BUSY) => Pushed::Not(Step::Busy),
            Some(Errno::INVAL | Errno::NOENT) if pages > 1 => Pushed::Not(Step::Narrow),
            // A hole after all; the next look says so, or whose it is.
            Some(Errno::NOENT) if way == Way::ToDevice => Pushed::Not(Step::Again),
            Some(Errno::INVAL) if way == Way::Home => match descriptor.copy(dst, src, SZ_4K) {
                copied if copied.bytes == SZ_4K => Pushed::Went(1, Transferred::Copied),
                copied if copied.error == Some(Errno::AGAIN) => Pushed::Not(Step::Again),
                _ => Pushed::Not(self.count_invalid()),
            },
            Some(Errno::INVAL | Errno::NOENT) => Pushed::Not(self.count_invalid()),
            Some(_) => {
                self.counters.failed.fetch_add(1);
                Pushed::Not(Step::Failed)
            }
        }
    }

    fn count_invalid(&self) -> Step {
        self.counters.invalid.fetch_add(1);
        Step::Failed
    }

    /// Empties a whole slot that was used in pieces, so that it takes a huge page in one piece.
    fn prepare_slot(&self, dst: Place, pages: usize) {
        let Place::Device(page) = dst else { return };
        let needs = self.map.lock().arena_mut(page.pagemap).is_some_and(|arena| arena.use_slot(page.frame, pages));
        if let (true, Some(start)) = (needs, self.places.address(page)) {
            let _ = mem::advise(HostRange::sized(HostVa(start), SZ_2M), mem::Advice::DontNeed);
        }
    }

    fn note_step(&self, claim: u64, entry: usize, leg: Leg, purpose: Purpose, done: &[Transferred]) {
        let mut guard = self.map.lock();
        let map = &mut *guard;
        for (offset, &how) in done.iter().enumerate() {
            let page = leg.at(offset);
            if let Place::Device(dst) = page.dst {
                map.note_bytes(dst, how != Transferred::Hole);
            }
            if let (Place::Device(src), Transferred::Moved) = (page.src, how) {
                map.note_bytes(src, false);
            }
            if purpose == Purpose::Migrate
                && let Some(mut state) = map.entry(claim, entry + offset)
            {
                state.carried = Some(how);
                map.set_entry(claim, entry + offset, state);
            }
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

    /// Gives the program's page a copy of its own where it is shared. The page may vanish under us: then the
    /// fault of this very thread must be answered although the page is claimed.
    fn break_sharing(&self, claim: u64, entry: usize) {
        let va = self.set_filling(claim, entry, 1, true);
        if let Some(va) = va {
            let _ = mem::advise(HostRange::sized(va, SZ_4K), mem::Advice::PopulateWrite);
        }
        self.set_filling(claim, entry, 1, false);
    }

    fn set_filling(&self, claim: u64, entry: usize, pages: usize, filling: bool) -> Option<HostVa> {
        let mut map = self.map.lock();
        let entries = map.claims.get_mut(&claim)?.entries.get_mut(entry..entry + pages)?;
        entries.iter_mut().for_each(|entry| entry.filling = filling);
        entries.first().filter(|entry| !entry.dead).map(|entry| entry.va)
    }

    /// Without UFFDIO_MOVE: keep writers out, copy, drop the source. The drop raises an event of our own, whose
    /// message names exactly the range that is noted beforehand; so no lock is held here.
    fn copy_to_device(&self, claim: u64, entry: usize, leg: Leg, purpose: Purpose, done: &mut [Transferred]) -> Step {
        let (Some(va), Some(dst)) = (self.address(leg.src).map(HostVa), self.address(leg.dst)) else {
            return Step::Failed;
        };
        let range = HostRange::sized(va, bytes_of(leg.pages));
        match self.program.protect(range, true) {
            Ok(()) => {}
            Err(Errno::AGAIN) => return Step::Again,
            Err(_) => return self.count_invalid(),
        }
        self.set_filling(claim, entry, leg.pages, true);
        let pushed = match self.device.copy(dst, va.0, range.len()) {
            progress if progress.bytes > 0 => {
                Pushed::Went((progress.bytes >> PAGE_SHIFT) as usize, Transferred::Copied)
            }
            progress if progress.error == Some(Errno::AGAIN) => Pushed::Not(Step::Again),
            _ => Pushed::Not(self.count_invalid()),
        };
        if let Pushed::Went(pages, how) = pushed {
            // The note comes first: from now on the page's bytes are in VRAM, whatever becomes of the source.
            done[..pages].fill(how);
            self.note_step(claim, entry, Leg { pages, ..leg }, purpose, &done[..pages]);
            self.drop_own(HostRange::sized(va, bytes_of(pages)));
        }
        let _ = self.program.protect(range, false);
        self.set_filling(claim, entry, leg.pages, false);
        self.program.wake(range);
        pushed.into()
    }

    /// A pair that was not staged, or is no pair of a migration at all: bytes go where the tables said.
    fn copy_page(&self, src: Place, dst: Place) -> Transferred {
        let (Some(from), Some(to)) = (self.address(src), self.address(dst)) else { return Transferred::Failed };
        let mut buffer = [0u8; SZ_4K as usize];
        let sound = {
            let map = self.map.lock();
            map.is_sound(src) && map.is_sound(dst)
        };
        if !sound {
            return Transferred::Failed;
        }
        if self.is_claimed(src) || self.is_claimed(dst) {
            // The claimer may be this very thread; waiting for the page would be for ever.
            let staged =
                matches!(dst, Place::Device(page) if matches!(self.map.lock().frame(page), Some(Frame::Staged(_))));
            if !staged || self.is_claimed(src) {
                return Transferred::Failed;
            }
        }
        if access::read(from, &mut buffer).is_err() {
            return Transferred::Failed;
        }
        if access::write(to, &buffer).is_ok() {
            return Transferred::Copied;
        }
        let Place::Device(page) = dst else { return Transferred::Failed };
        if !matches!(self.map.lock().frame(page), Some(Frame::Staged(_))) {
            return Transferred::Failed;
        }
        if self.device.copy(to, buffer.as_ptr() as u64, SZ_4K).bytes != SZ_4K {
            return Transferred::Failed;
        }
        let mut guard = self.map.lock();
        guard.note_bytes(page, true);
        guard.note_stray(page);
        Transferred::Copied
    }

    fn is_claimed(&self, place: Place) -> bool {
        matches!(place, Place::Host(frame) if self.map.lock().mark(HostVa(frame.0 << PAGE_SHIFT)) != Mark::Free)
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

    /// A zero page at home, where a device reported a page carried and carried nothing.
    pub(crate) fn zero_home(&self, va: HostVa) {
        let mut tries = 0;
        loop {
            let held = self.gate.hold_events();
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
    /// How many entries from `entry` on still go exactly this way, and whether a reader is at the first.
    fn alive_run(&mut self, claim: u64, entry: usize, leg: &Leg, purpose: Purpose) -> (usize, bool) {
        let goes = |offset: usize| {
            self.entry(claim, entry + offset).is_some_and(|state| {
                let way = Leg::of(&state).map(|way| if purpose == Purpose::PutBack { way.turned() } else { way });
                !state.dead && !state.zeroing && way == Some(leg.at(offset))
            })
        };
        let run = (0..leg.pages).take_while(|&offset| goes(offset)).count();
        let entries = self.claims.get_mut(&claim).map_or(&mut [][..], |claim| &mut claim.entries);
        let zeroing = entries.get(entry).is_some_and(|entry| entry.zeroing);
        // From now on no reader fills them.
        entries.iter_mut().skip(entry).take(run).for_each(|entry| entry.sealed = true);
        (run, zeroing)
    }

    /// Whether a place is still what a translation can have meant. A staged pair that an event has torn apart since
    /// is no pair any more, but its bytes must not be copied either: one of its places is another page's by now.
    fn is_sound(&self, place: Place) -> bool {
        let Place::Device(page) = place else { return true };
        let staged_for = |va: HostVa| match self.mark(va) {
            Mark::Claimed { claim, entry } => {
                self.entry(claim, entry).filter(|entry| !entry.dead && !entry.remapped).map(|entry| entry.to)
            }
            _ => None,
        };
        match self.frame(page) {
            Some(Frame::Home(va)) => {
                self.home(va) == Home::Device(page) && (self.mark(va) == Mark::Free || staged_for(va).is_some())
            }
            Some(Frame::Staged(va)) => staged_for(va) == Some(Destination::Device(page)),
            // The access will say that it is empty.
            _ => true,
        }
    }

    pub fn note_bytes(&mut self, page: DevicePage, bytes: bool) {
        if let Some(arena) = self.arena_mut(page.pagemap) {
            arena.set_bytes(page.frame, bytes);
        }
    }

    /// Notes that something else than its page was copied to a staged frame.
    fn note_stray(&mut self, page: DevicePage) {
        let Some(Frame::Staged(va)) = self.frame(page) else { return };
        let Mark::Claimed { claim, entry } = self.mark(va) else { return };
        if let Some(mut state) = self.entry(claim, entry) {
            state.strayed = true;
            self.set_entry(claim, entry, state);
        }
    }
}
