//! The reader threads: one a CPU, pinned, because a hand-off to another CPU costs more than a 64K migration.
//!
//! Rules, as measured and as the stress decided:
//!
//! * Poll, then drain, then deliver notices, then serve faults one by one from the shared queue: a reader that is
//!   busy with one fault does not keep the others.
//! * Every message is answered: with pages and a wake, with a wake alone (stale), or by the `finish` of the
//!   migration that has the page.
//! * A fault that met EAGAIN goes to the end of the queue; events are read before it is taken up again.
//! * Own stack, no signals but SIGSEGV and SIGBUS, no thread-locals, no waiting for another thread but the short
//!   locks of this crate and what the engine's reader class allows.

use crate::LiveMm;
use crate::books::{Books, Filling, Frame, Mark, Page, Residency};
use crate::events::Fault;
use crate::kernel::{Descriptor, Errno, Progress};
use hostmm::{CpuFault, DevicePage, FaultOutcome, HostMm};
use std::sync::Arc;
use sync::time::now_ns;
use units::{HostRange, HostVa, SZ_4K, SZ_64K};

/// What a fault turned out to be.
enum Look {
    /// A migration has the page: its end answers.
    Claimed,
    /// In VRAM, in this registered part.
    Device { page: DevicePage, watched: Option<HostRange> },
    /// A hole; these pages around it may be filled, and are marked for it.
    Hole { range: HostRange, turn: Mark },
    /// A claimed page that may be filled nevertheless: a hole that has not gone yet, or the mover's own fault.
    ClaimedHole { claim: u64, name: HostRange },
    /// Write protection that nobody wants any more. The page is marked, so that no migration protects it for itself
    /// meanwhile.
    Protected { turn: Mark },
}

/// Whether a fault was answered.
#[derive(PartialEq, Eq)]
enum Served {
    Answered,
    TryAgain,
}

const DEFER_NS: u64 = 1_000_000;
/// How often idle chunks are looked for.
const IDLE_MS: i32 = 10;
const MAX_TRIES: u32 = 64;

pub(crate) fn run(mm: &Arc<LiveMm>, number: u32) {
    let _class = sync::rank::reader();
    mm.kernel.become_reader(number);
    mm.exclude_own_thread();
    while !mm.is_stopping() {
        // The engine first: sequences stay odd, and frames unusable, until its notifiers were called.
        mm.deliver_notices();
        mm.serve_next();
        let ready = mm.kernel.wait(mm.timeout_ms());
        if ready.kicked {
            mm.kernel.quiet();
        }
        if ready.messages || mm.has_aside() || mm.has_rescued() {
            mm.drain();
        } else if !ready.kicked {
            mm.retire_idle();
        }
    }
    // The next reader sees the end too.
    mm.kernel.kick();
}

/// An access to a device page.
#[derive(Clone, Copy)]
pub(crate) struct Touch {
    pub addr: HostVa,
    pub write: bool,
    /// Whose it is, by the kernel's number; 0 where that is not known.
    pub thread: u32,
}

impl LiveMm {
    /// How long a reader may wait for messages (ms, -1: for ever).
    fn timeout_ms(&self) -> i32 {
        if !self.queue.faults.lock().is_empty() {
            return 0;
        }
        if self.has_deferred() || self.has_rescued() {
            // The event that one waits for has been read, or will be; who raised it must run again before it is over.
            self.drain();
            return 1;
        }
        match self.wake_deferred() {
            -1 if self.books.lock().idle.is_empty() => -1,
            -1 => IDLE_MS,
            soon => soon,
        }
    }

    fn serve_next(&self) {
        let mut faults = self.queue.faults.lock();
        let Some(fault) = faults.pop_front() else { return };
        let more = !faults.is_empty();
        drop(faults);
        if more {
            // The other readers may all be asleep, and this fault may take its time.
            self.kernel.kick();
        }
        let answered = self.serve(&fault) == Served::Answered;
        if answered || fault.tries >= MAX_TRIES {
            if !answered {
                self.wake_page(fault.addr);
            }
            fault.turn.into_iter().for_each(|turn| self.turns.end(turn));
            return;
        }
        self.counters.postponed_faults.add(1);
        let turn = fault.turn.or_else(|| Some(self.turns.take()));
        self.drain();
        self.queue.faults.lock().push_back(Fault { tries: fault.tries + 1, turn, ..fault });
        sync::yield_now();
    }

    fn serve(&self, fault: &Fault) -> Served {
        match self.look(fault) {
            Look::Claimed => self.counters.claimed_faults.add(1),
            Look::Device { page, watched } => return self.serve_device(fault, page, watched),
            Look::Hole { range, turn } => return self.serve_hole(fault, range, turn),
            Look::ClaimedHole { claim, name } => return self.serve_claimed_hole(fault, claim, name),
            Look::Protected { turn } => {
                let page = HostRange::sized(fault.addr, SZ_4K);
                let ended = self.kernel.protect(page, false);
                self.books.lock().unmark(page, turn);
                // Others may have been told to wait for this.
                self.kernel.wake(page);
                if ended == Err(Errno::AGAIN) {
                    return Served::TryAgain;
                }
            }
        }
        Served::Answered
    }

    fn look(&self, fault: &Fault) -> Look {
        let addr = fault.addr;
        let mut books = self.books.lock();
        let page = books.page(addr);
        match page.mark {
            Mark::Claimed(claim) => return books.look_at_claimed(claim, fault),
            // Another reader is about to answer, and wakes all that it fills.
            Mark::Filling { .. } => return Look::Claimed,
            Mark::Free => {}
        }
        if fault.protected {
            let turn = books.next_turn();
            books.set_mark(HostRange::sized(addr, SZ_4K), turn);
            return Look::Protected { turn };
        }
        if let Residency::Device(page) = page.residency {
            let watched = books.chunk(addr).and_then(|chunk| chunk.watched(addr));
            return Look::Device { page, watched };
        }
        let range = books.fillable(addr).unwrap_or_else(|| {
            // Late; or a mapping that is registered although nobody here did it: a registered mapping grew in place,
            // and what it grew by is registered too, without an event. A hole either way, if it is still one.
            self.counters.stale_faults.add(1);
            HostRange::sized(addr, SZ_4K)
        });
        let turn = books.next_turn();
        books.set_mark(range, turn);
        Look::Hole { range, turn }
    }

    /// Fills a hole that a migration has claimed and not carried yet.
    fn serve_claimed_hole(&self, fault: &Fault, claim: u64, name: HostRange) -> Served {
        let page = HostRange::sized(fault.addr, SZ_4K);
        let held = self.hold_events();
        // An event may have taken the page elsewhere, and something else here, before it was held back.
        let here = self.books.lock().mark(fault.addr) == Mark::Claimed(claim);
        let again = here && self.fill(page).error == Some(Errno::AGAIN);
        drop(held);
        if let Some(claim) = self.books.lock().claims.get_mut(claim) {
            claim.end_filling(name);
        }
        if again {
            return Served::TryAgain;
        }
        self.wake_page(fault.addr);
        Served::Answered
    }

    /// Fills a hole with the zero page, and the holes next to it in its 64K.
    fn serve_hole(&self, fault: &Fault, range: HostRange, turn: Mark) -> Served {
        let held = self.hold_events();
        let answer = self.hole_around(fault.addr, range, turn).map(|holes| self.fill(holes));
        drop(held);
        self.books.lock().unmark(range, turn);
        let again = answer.is_some_and(|progress| progress.bytes == 0 && progress.error == Some(Errno::AGAIN));
        if again { &self.counters.again } else { &self.counters.hole_faults }.add(1);
        // Others may have been told to wait for this.
        self.kernel.wake(range);
        self.books.lock().note_idle(range, now_ns());
        if again { Served::TryAgain } else { Served::Answered }
    }

    /// The pages around `addr` that hold nothing and are still marked with `turn`: an event may have taken pages elsewhere,
    /// and others here, before it was held back.
    fn hole_around(&self, addr: HostVa, range: HostRange, turn: Mark) -> Option<HostRange> {
        let held = self.held(range);
        let books = self.books.lock();
        let is_hole = |va: HostVa| {
            books.mark(va) == turn && !held.iter().any(|held| held.range.contains(va)) && range.contains(va)
        };
        if !is_hole(addr) {
            return None;
        }
        let mut hole = HostRange::sized(addr.page(), SZ_4K);
        while is_hole(hole.end) {
            hole.end = hole.end.add(SZ_4K);
        }
        while hole.start > range.start && is_hole(HostVa(hole.start.0 - SZ_4K)) {
            hole.start = HostVa(hole.start.0 - SZ_4K);
        }
        Some(hole)
    }

    /// Fills holes. What was dropped there is gone; what is there now is new.
    fn fill(&self, holes: HostRange) -> Progress {
        let progress = self.kernel.zero(Descriptor::Program, holes);
        self.books.lock().quarantine.settle(HostRange::sized(holes.start, progress.bytes), u64::MAX);
        progress
    }

    fn serve_device(&self, fault: &Fault, page: DevicePage, watched: Option<HostRange>) -> Served {
        self.counters.device_faults.add(1);
        match self.fault_device(Touch { addr: fault.addr, write: fault.write, thread: fault.thread }, page, watched) {
            None => self.wake_page(fault.addr),
            Some(FaultOutcome::Retry) => {
                if self.books.lock().is_still(fault.addr, page) {
                    return Served::TryAgain;
                }
                self.wake_page(fault.addr);
            }
            Some(FaultOutcome::Defer) => self.queue.later.lock().push((now_ns() + DEFER_NS, *fault)),
            Some(FaultOutcome::Fatal) => {
                self.counters.fatal_faults.add(1);
                self.kernel.poison(HostRange::sized(fault.addr, SZ_4K));
                self.wake_page(fault.addr);
            }
        }
        Served::Answered
    }

    /// Asks the owner of a device page to bring it back. `None` where its mapping is gone. The registered part that the
    /// page lies in is the mapping, as far as its chunk goes.
    pub(crate) fn fault_device(
        &self,
        touch: Touch,
        page: DevicePage,
        watched: Option<HostRange>,
    ) -> Option<FaultOutcome> {
        let Touch { addr, write, thread } = touch;
        let vma = match watched {
            Some(part) => part,
            None => self.vma_at(addr)?.range,
        };
        let ops = self.books.lock().arena(page.pagemap).map(|arena| Arc::clone(&arena.ops))?;
        let mm: &dyn HostMm = self;
        Some(ops.migrate_to_ram(mm, &CpuFault { addr: addr.page(), page, vma, write, thread }))
    }

    fn wake_page(&self, addr: HostVa) {
        self.kernel.wake(HostRange::sized(addr, SZ_4K));
    }

    /// Wakes whose time has come; gives how long a poll may sleep (ms).
    fn wake_deferred(&self) -> i32 {
        let mut later = self.queue.later.lock();
        if later.is_empty() {
            return -1;
        }
        let now = now_ns();
        let mut due = Vec::new();
        later.retain(|&(at, fault)| {
            if at <= now {
                due.push(fault.addr);
            }
            at > now
        });
        let rest = later.len();
        drop(later);
        due.into_iter().for_each(|addr| self.wake_page(addr));
        if rest == 0 { -1 } else { 1 }
    }
}

impl Books {
    /// A fault on a claimed page: its migration's end answers it, or a fill, where that is allowed.
    fn look_at_claimed(&mut self, id: u64, fault: &Fault) -> Look {
        let Some(claim) = self.claims.get_mut(id) else { return Look::Claimed };
        claim.has_waiters = true;
        let open = claim.find(fault.addr).is_some_and(|entry| entry.filling == Filling::Open && !entry.cancelled);
        if fault.protected || !open {
            return Look::Claimed;
        }
        let page = HostRange::sized(fault.addr, SZ_4K);
        let mut name = page;
        claim.update(page, |entry| {
            (entry.filled, entry.filling) = (true, Filling::Busy);
            name = entry.name();
        });
        Look::ClaimedHole { claim: id, name }
    }

    /// The pages around `addr`, in its 64K and its registered part, that are in system memory and that nobody is at.
    fn fillable(&self, addr: HostVa) -> Option<HostRange> {
        let part = self.chunk(addr)?.registered.iter().map(|part| part.range).find(|range| range.contains(addr))?;
        let block = HostRange::around(addr, SZ_64K).intersect(part)?;
        let is_free = |page: Page| page.residency == Residency::System && page.mark == Mark::Free;
        let free = self.runs(block).filter(|(_, page)| is_free(*page)).map(|(run, _)| run);
        free.fold(None, |found: Option<HostRange>, run| match found {
            Some(before) if before.end == run.start => Some(HostRange::new(before.start, run.end)),
            Some(before) if before.contains(addr) => Some(before),
            _ => Some(run),
        })
        .filter(|found| found.contains(addr))
    }

    /// Whether the page is where it was, and nobody is at it.
    fn is_still(&self, addr: HostVa, page: DevicePage) -> bool {
        self.page(addr) == (Page { residency: Residency::Device(page), mark: Mark::Free })
            && matches!(self.frame(page), Some(Frame::Backs(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{access, mem};
    use hostmm::{ClaimRequest, Migration, OwnerId, PagemapId, Toward};
    use units::SZ_2M;

    /// Who is late with the end of a protection must not end that of the next migration, which copies.
    #[test]
    fn a_page_whose_protection_ends_is_not_claimed() {
        let Some(mm) = LiveMm::start_for_test() else { return };
        let (chunk, whole) = mem::map_guarded(SZ_2M).expect("2M of addresses");
        let range = HostRange::sized(chunk.start, 2 * SZ_4K);
        (0..2).for_each(|i| access::write(range.page_at(i).0, &[7]).expect("memory of ours"));
        let claimed = || {
            let mut migration = Migration::default();
            let request = ClaimRequest { range, owner: OwnerId(1), toward: Toward::Vram(PagemapId(0)), fault: None };
            mm.claim(&request, &mut migration).expect("memory of one mapping");
            let places: Vec<_> = migration.parts.iter().map(|part| part.range).collect();
            mm.finish(&mut migration);
            places
        };
        let fault = Fault { addr: range.start, write: true, protected: true, thread: 0, tries: 0, turn: None };
        let look = mm.look(&fault);
        assert_eq!(claimed(), [HostRange::sized(range.page_at(1), SZ_4K)]);
        let Look::Protected { turn } = look else { panic!("a page that is protected") };
        mm.books.lock().unmark(range, turn);
        assert!(mm.serve(&fault) == Served::Answered);
        assert_eq!(claimed(), [range]);
        mem::unmap(whole);
        assert!(mm.stop());
    }
}
