//! Carrying pages: the steps of a staged transfer.
//!
//! | direction | descriptor | fails with |
//! |---|---|---|
//! | to the device | the program's into a buffer, the device's out of it | EBUSY: pinned or shared copy-on-write; EINVAL: not movable |
//! | to system memory | the program's: exact against munmap and DONTNEED, which make it EAGAIN | EINVAL: read-only meanwhile, so copied |
//! | across | the device's | |
//!
//! Each step holds the events lock shared from the look at the books to the note of the result, so an event is
//! processed either before the step or after it, never in between. What leaves the program goes through the
//! [`bounce`](crate::bounce) buffer, because the device's descriptor would move whatever lies at the address now.
//!
//! EAGAIN: let go, read the events oneself ([`LiveMm::drain`]), yield to the thread that raised them (the kernel
//! refuses until it has run), and only then try again.

use crate::books::{Books, Entry, Filling, From};
use crate::bounce::Stuck;
use crate::kernel::{Descriptor, Errno};
use crate::turns::Refusals;
use crate::{LiveMm, Transport, objects};
use hostmm::Place;
use sync::Counter;
use units::{HostRange, HostVa, Outcome, PAGE_SHIFT, Report, SZ_2M, SZ_4K, bytes_of};

/// From where to where pages go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    ToDevice,
    ToSystem,
    Across,
}

/// Why pages are carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    Migrate,
    PutBack,
}

/// Pages that are carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Transfer {
    pub claim: u64,
    /// How the engine names the pages.
    pub name: HostRange,
    pub purpose: Purpose,
}

impl Transfer {
    fn rest(self, done: usize) -> Self {
        Self { name: HostRange::new(self.name.page_at(done), self.name.end), ..self }
    }
    pub(crate) fn first(self, pages: usize) -> Self {
        Self { name: HostRange::sized(self.name.start, bytes_of(pages)), ..self }
    }
}

/// What a step is about: pages of one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub direction: Direction,
    pub from: Place,
    pub to: Place,
    pub pages: usize,
    pub huge: bool,
}

/// How one step ended.
pub(crate) enum Step {
    /// Pages that went, or were holes; their results are noted.
    Went(usize, Outcome),
    /// One page cannot go.
    Failed,
    /// An event is in the way.
    Again,
    /// Not as one piece.
    Single,
    /// Pinned or shared.
    Busy,
}

const MAX_TRIES: u32 = 4000;

impl LiveMm {
    /// Moves pages and says how many really went. Linux 6.18 may have moved more than it counts (see
    /// [`Kernel::move_pages`](crate::kernel::Kernel::move_pages)): those are gone at the source and there at the
    /// destination, which was empty. They must be found before an event can be read: a page that is in nobody's books is
    /// lost. Where a process outside may have brought pages home, a page that is not where it was is an event to be read.
    pub(crate) fn move_exactly(
        &self,
        by: Descriptor,
        dst: HostVa,
        src: HostVa,
        pages: usize,
    ) -> (usize, Option<Errno>) {
        let progress = self.kernel.move_pages(by, dst, src, bytes_of(pages));
        let mut went = (progress.bytes >> PAGE_SHIFT) as usize;
        while progress.error.is_some() && went < pages {
            let here = bytes_of(went);
            let (gone, at_source) = self.leading_run(src.add(here), pages - went);
            if at_source {
                break;
            }
            let (come, at_destination) = self.leading_run(dst.add(here), pages - went);
            if !at_destination {
                break;
            }
            went += gone.min(come);
        }
        match progress.error {
            Some(Errno::NOENT | Errno::EXIST) if self.has_rescued() => (went, Some(Errno::AGAIN)),
            error => (went, error),
        }
    }

    /// The address of a place.
    pub(crate) fn address(&self, place: Place) -> Option<HostVa> {
        match place {
            Place::Host(frame) => Some(objects::address(frame).unwrap_or(HostVa(frame.0 << PAGE_SHIFT))),
            Place::Device(page) => self.places.address(page),
        }
    }

    pub(crate) fn transfer_run(&self, src: Place, dst: Place, pages: usize, report: &mut Report<'_>) {
        let mut at = 0;
        while at < pages {
            let (from, to) = (src.add(at as u64), dst.add(at as u64));
            let staged = self.books.lock().staged(from, to, pages - at);
            match staged {
                Some((claim, name)) => {
                    self.carry(Transfer { claim, name, purpose: Purpose::Migrate }, report);
                    at += name.pages();
                }
                None => {
                    report(1, self.copy_unstaged(from, to));
                    at += 1;
                }
            }
        }
    }

    /// Carries staged pages, notes each result in the books, and reports all of them.
    pub(crate) fn carry(&self, transfer: Transfer, report: &mut Report<'_>) {
        let (mut at, mut limit, mut unshared) = (0, usize::MAX, None);
        let mut tries = self.refusals();
        // One page that is held is waited for; where several are, that would take minutes.
        let mut waited = false;
        while at < transfer.name.pages() {
            let rest = transfer.rest(at);
            let to_device = match self.step(rest, limit) {
                (Step::Went(pages, outcome), _) => {
                    report(pages, outcome);
                    at += pages;
                    tries.forget();
                    limit = usize::MAX;
                    continue;
                }
                (Step::Single, _) => {
                    limit = 1;
                    continue;
                }
                (Step::Again, _) if self.yield_to_raiser(&mut tries) => continue,
                (Step::Busy, direction) => direction == Some(Direction::ToDevice),
                (Step::Failed | Step::Again, _) => {
                    // The budget is for the whole transfer: where events keep coming, the rest stays where it is.
                    let lost = if tries.count >= MAX_TRIES { rest.name.pages() } else { 1 };
                    self.give_up(rest.first(lost), report);
                    at += lost;
                    tries.forget();
                    limit = usize::MAX;
                    continue;
                }
            };
            let leaves = to_device && transfer.purpose == Purpose::Migrate;
            if leaves && unshared != Some(at) {
                unshared = Some(at);
                tries.insist();
                self.break_sharing(rest.first(1));
            } else if leaves || waited || !self.yield_to_raiser(&mut tries) {
                if leaves {
                    self.counters.busy.add(1);
                }
                waited |= !leaves;
                self.give_up(rest.first(1), report);
                at += 1;
                tries.forget();
                limit = usize::MAX;
            }
        }
    }

    fn give_up(&self, transfer: Transfer, report: &mut Report<'_>) {
        if transfer.purpose == Purpose::Migrate {
            let mut books = self.books.lock();
            books.update_named(transfer, |entry| entry.outcome = Outcome::Failed);
        }
        report(transfer.name.pages(), Outcome::Failed);
    }

    /// None yet.
    pub(crate) const fn refusals(&self) -> Refusals<'_> {
        Refusals::new(&self.turns)
    }

    /// Lets the thread run that raised an event. False when that has been done often enough.
    pub(crate) fn yield_to_raiser(&self, tries: &mut Refusals<'_>) -> bool {
        tries.add();
        self.counters.again.add(1);
        if self.drain() {
            self.kernel.kick();
        }
        if tries.count < 200 {
            sync::yield_now();
        } else {
            sync::time::sleep_ns(50_000);
        }
        tries.count < MAX_TRIES
    }

    fn step(&self, transfer: Transfer, limit: usize) -> (Step, Option<Direction>) {
        let held = self.hold_events();
        let mut books = self.books.lock();
        let (mut piece, renew) = match books.piece(transfer, limit) {
            Err(step) => return (step, None),
            Ok(piece) => (piece, books.use_slot(&piece, self.transport)),
        };
        drop(books);
        let (Some(src), Some(dst)) = (self.address(piece.from), self.address(piece.to)) else {
            return (Step::Failed, None);
        };
        if renew {
            let _ = self.kernel.drop_pages(HostRange::sized(dst, SZ_2M));
        }
        if self.transport == Transport::Copy && piece.direction == Direction::ToDevice {
            // A hole cannot be protected: it would be filled, copied, and written before it is dropped.
            let (pages, resident) = self.leading_run(src, piece.pages);
            piece.pages = pages;
            let transfer = transfer.first(pages);
            if resident {
                drop(held);
                return (self.copy_to_device(transfer, &piece, src, dst), Some(piece.direction));
            }
            if self.kernel.event_pending() {
                return (Step::Again, Some(piece.direction));
            }
            self.note(transfer, Outcome::Zeroed);
            return (Step::Went(pages, Outcome::Zeroed), Some(piece.direction));
        }
        let transfer = transfer.first(piece.pages);
        let (step, stuck) = self.push(&piece, src, dst);
        let mut went = 0;
        if let Step::Went(pages, outcome) = step {
            self.note(transfer.first(pages), outcome);
            went = pages;
        }
        if let Some(stuck) = stuck {
            drop(held);
            self.return_stuck(transfer.rest(went), stuck);
        }
        (step, Some(piece.direction))
    }

    /// The ioctl itself.
    fn push(&self, piece: &Piece, src: HostVa, dst: HostVa) -> (Step, Option<Stuck<'_>>) {
        let pages = piece.pages;
        let by = if piece.direction == Direction::ToSystem { Descriptor::Program } else { Descriptor::Device };
        let (went, error) = match (self.transport, piece.direction) {
            (Transport::Move, Direction::ToDevice) => {
                let passed = self.bounce(dst, src, pages, piece.huge);
                if let (0, Some(_)) = (passed.pages, &passed.stuck) {
                    self.counters.failed.add(1);
                    return (Step::Failed, passed.stuck);
                }
                if passed.stuck.is_some() {
                    return (Step::Went(passed.pages, Outcome::Moved), passed.stuck);
                }
                (passed.pages, passed.error)
            }
            (Transport::Move, _) => self.move_exactly(by, dst, src, pages),
            (Transport::Copy, _) => {
                let progress = self.kernel.copy(by, dst, src, bytes_of(pages));
                ((progress.bytes >> PAGE_SHIFT) as usize, progress.error)
            }
        };
        let outcome = if self.transport == Transport::Move { Outcome::Moved } else { Outcome::Copied };
        let step = match error {
            _ if went > 0 => Step::Went(went, outcome),
            None => Step::Went(pages, outcome),
            Some(errno) => self.explain_failure(errno, piece, src, dst),
        };
        (step, None)
    }

    fn explain_failure(&self, errno: Errno, piece: &Piece, src: HostVa, dst: HostVa) -> Step {
        match (errno, piece.direction) {
            // Both places hold something: a guard of MADV_GUARD_INSTALL, or a rule was broken. What the program sees
            // wins, and it is counted.
            (Errno::EXIST, Direction::ToSystem) => {
                self.counters.conflicts.add(1);
                Step::Went(1, Outcome::Copied)
            }
            (Errno::AGAIN, _) => Step::Again,
            (Errno::BUSY, _) => Step::Busy,
            (Errno::NOENT, Direction::ToDevice) => self.meet_hole(piece, src),
            (Errno::INVAL | Errno::NOENT | Errno::FAULT, _) if piece.pages > 1 => Step::Single,
            // Taken back by the kernel, after MADV_FREE: it is zeros now.
            (Errno::NOENT | Errno::FAULT, Direction::ToSystem | Direction::Across)
                if self.refill_if_absent(piece.from) =>
            {
                Step::Again
            }
            (Errno::INVAL, Direction::ToSystem) => self.copy_back(dst, src),
            // No mapping, and no event of its end.
            (Errno::NOENT, Direction::ToSystem) if self.vma_at(dst).is_none() => self.copy_back(dst, src),
            (Errno::INVAL | Errno::NOENT, _) => self.count_invalid(),
            _ => {
                self.counters.failed.add(1);
                Step::Failed
            }
        }
    }

    /// A page that is gone since it was claimed: zeros, if no change of its mapping had begun when it was looked at.
    fn meet_hole(&self, piece: &Piece, src: HostVa) -> Step {
        let (pages, held) = self.leading_run(src, piece.pages);
        if held || self.kernel.event_pending() { Step::Again } else { Step::Went(pages, Outcome::Zeroed) }
    }

    /// One page back by a copy: its mapping is read-only by now. Where it is another mapping, which only a change
    /// without an event leaves behind, its page is of no use to anybody.
    fn copy_back(&self, dst: HostVa, src: HostVa) -> Step {
        let copied = self.kernel.copy(Descriptor::Program, dst, src, SZ_4K);
        match copied.error {
            None => {}
            Some(Errno::AGAIN) => return Step::Again,
            Some(Errno::EXIST) => self.counters.conflicts.add(1),
            Some(Errno::NOENT) if self.kernel.event_pending() => return Step::Again,
            Some(Errno::NOENT) => self.counters.orphaned.add(1),
            Some(_) => return self.count_invalid(),
        }
        Step::Went(1, Outcome::Copied)
    }

    pub(crate) fn count_invalid(&self) -> Step {
        self.counters.invalid.add(1);
        Step::Failed
    }

    /// Notes in the books that pages went.
    pub(crate) fn note(&self, transfer: Transfer, outcome: Outcome) {
        let mut books = self.books.lock();
        let Some((piece, _)) = books.part(transfer) else { return };
        if let Place::Device(dst) = piece.to {
            books.note_bytes(dst, piece.pages, outcome != Outcome::Zeroed);
        }
        if let (Place::Device(src), Outcome::Moved) = (piece.from, outcome) {
            books.note_bytes(src, piece.pages, false);
        }
        if transfer.purpose == Purpose::Migrate {
            books.update_named(transfer, |entry| entry.outcome = outcome);
        }
        drop(books);
        let pages = piece.pages as u64;
        match outcome {
            Outcome::Zeroed => return self.counters.holes.add(pages),
            Outcome::Copied => self.counters.copied.add(pages),
            _ => {}
        }
        self.direction_counter(piece.direction).add(pages);
    }

    const fn direction_counter(&self, direction: Direction) -> &Counter {
        match direction {
            Direction::ToDevice => &self.counters.to_device,
            Direction::ToSystem => &self.counters.to_system,
            Direction::Across => &self.counters.across,
        }
    }
}

impl Books {
    /// The longest run of exactly staged pairs, of one claim, that begins here: the claim, and its name for the pages.
    fn staged(&self, src: Place, dst: Place, most: usize) -> Option<(u64, HostRange)> {
        let va = match src {
            Place::Host(frame) => HostVa(frame.0 << PAGE_SHIFT),
            Place::Device(page) => match self.frame(page)? {
                crate::books::Frame::Backs(va) => va,
                _ => return None,
            },
        };
        let crate::books::Mark::Claimed(id) = self.mark(va) else { return None };
        let entry = self.claims.get(id)?.find(va)?;
        let offset = entry.range().page_index(va);
        let is_pair = entry.is_open()
            && entry.source().add(offset as u64) == src
            && entry.to.map(|to| to.add(offset as u64)) == Some(dst);
        let pages = most.min(entry.pages - offset);
        is_pair.then(|| (id, HostRange::sized(entry.name().page_at(offset), bytes_of(pages))))
    }

    pub(crate) fn update_named(&mut self, transfer: Transfer, change: impl FnMut(&mut Entry)) {
        if let Some(claim) = self.claims.get_mut(transfer.claim) {
            claim.update_named(0, transfer.name, change);
        }
    }

    /// The first pages of a transfer that have one direction, whatever became of them meanwhile.
    fn part(&self, transfer: Transfer) -> Option<(Piece, Entry)> {
        let entries = &self.claims.get(transfer.claim)?.entries;
        let entry = entries.iter().find(|entry| entry.name().contains(transfer.name.start))?;
        let offset = entry.name().page_index(transfer.name.start);
        let pages = transfer.name.pages().min(entry.pages - offset);
        let (source, target) = (entry.source().add(offset as u64), entry.to?.add(offset as u64));
        let (from, to) = if transfer.purpose == Purpose::PutBack { (target, source) } else { (source, target) };
        let direction = match (from, to) {
            (Place::Host(_), Place::Device(_)) => Direction::ToDevice,
            (Place::Device(_), Place::Host(_)) => Direction::ToSystem,
            (Place::Device(_), Place::Device(_)) => Direction::Across,
            (Place::Host(_), Place::Host(_)) => return None,
        };
        Some((Piece { direction, from, to, pages, huge: entry.huge }, *entry))
    }

    /// Where the first page of a transfer goes.
    pub(crate) fn frame_of(&self, transfer: Transfer) -> Option<Place> {
        self.part(transfer).map(|(piece, _)| piece.to)
    }

    /// What can go in one step; from now on no reader fills it.
    fn piece(&mut self, transfer: Transfer, limit: usize) -> Result<Piece, Step> {
        let (mut piece, entry) = self.part(transfer).ok_or(Step::Failed)?;
        if entry.cancelled {
            return Err(Step::Failed);
        }
        if entry.filling == Filling::Busy {
            return Err(Step::Again);
        }
        piece.pages = piece.clipped(piece.pages.min(limit));
        piece.huge &= entry.from == From::System;
        self.update_named(transfer.first(piece.pages), |entry| entry.filling = Filling::Never);
        Ok(piece)
    }

    /// Whether the 2M slot that pages go to must be emptied first, to take a huge page in one piece.
    fn use_slot(&mut self, piece: &Piece, transport: Transport) -> bool {
        let Place::Device(page) = piece.to else { return false };
        let huge = match piece.from {
            _ if transport == Transport::Copy => false,
            Place::Host(_) => piece.huge,
            Place::Device(from) => self.is_huge(from),
        };
        self.arena_mut(page.pagemap).is_some_and(|arena| arena.use_slot(page.frame, piece.pages, huge))
    }
}

impl Piece {
    /// Pages up to the next 2M boundary of the program's addresses, or of both frames: chunks may be different VMAs.
    fn clipped(&self, pages: usize) -> usize {
        let slot = SZ_2M >> PAGE_SHIFT;
        let left = |place: Place| match place {
            Place::Host(frame) => slot - frame.0 % slot,
            Place::Device(page) => slot - page.frame % slot,
        };
        let host = match (self.from, self.to) {
            (Place::Host(_), _) => left(self.from),
            (_, Place::Host(_)) => left(self.to),
            (from, to) => left(from).min(left(to)),
        };
        pages.min(host as usize)
    }
}
