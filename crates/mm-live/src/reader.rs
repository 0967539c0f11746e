//! The reader threads: one a CPU, pinned, because a hand-off to another CPU costs more than a 64K migration.
//!
//! Rules, as measured and as the stress decided:
//!
//! * Poll, then pump, then deliver notices, then serve faults one by one from the shared queue: a reader that is
//!   busy with one fault does not keep the others.
//! * Every message is answered: with pages and a wake, with a wake alone (stale), or by the `finish` of the
//!   migration that has the page.
//! * A fault that met EAGAIN goes to the end of the queue; events are read before it is taken up again.
//! * Own stack, no signals but SIGSEGV and SIGBUS, no thread-locals, no waiting for another thread but the short
//!   locks of this crate and what the engine's reader class allows.

use crate::LiveMm;
use crate::arena::Frame;
use crate::entry::From;
use crate::events::Fault;
use crate::map::{Home, Mark, chunk_range};
use crate::sys::uffd::Progress;
use crate::sys::{Errno, task};
use hostmm::{CpuFault, DevicePage, FaultOutcome, HostMm};
use std::sync::Arc;
use sync::time::now_ns;
use units::{HostRange, HostVa, SZ_4K, SZ_64K};

/// What a fault turned out to be.
enum Look {
    /// A migration has the page: its end answers.
    Claimed,
    /// In VRAM.
    Device(DevicePage),
    /// A hole; these pages around it may be filled, and are marked for it.
    Hole { range: HostRange, turn: u32 },
    /// A claimed page that may be filled nevertheless: a hole that has not gone yet, or the mover's own fault.
    ClaimedHole { claim: u64, entry: usize },
    /// Write protection that nobody wants any more.
    Protected,
}

/// Whether a fault was answered.
#[derive(PartialEq, Eq)]
enum Served {
    Answered,
    TryAgain,
}

const DEFER_NS: u64 = 1_000_000;
const MAX_TRIES: u32 = 64;

pub(crate) fn run(mm: &Arc<LiveMm>, cpu: u32) {
    task::block_signals();
    task::pin(cpu);
    mm.exclude_own_thread();
    while !mm.is_stopping() {
        // The engine first: sequences stay odd, and frames unusable, until it was told.
        mm.deliver_notices();
        let busy = mm.serve_next();
        let timeout = match (busy, mm.has_deferred()) {
            (true, _) => 0,
            // The event that one waits for has been read, or will be; who raised it must run again before it is over.
            (_, true) => {
                mm.pump();
                1
            }
            _ => mm.wake_deferred(),
        };
        let ready = task::poll(mm.program.raw(), &mm.kick, timeout);
        if ready.kicked {
            mm.kick.quiet();
        }
        if ready.messages {
            mm.pump();
        }
    }
    // The next reader sees the end too.
    mm.kick.ring();
}

impl LiveMm {
    fn serve_next(&self) -> bool {
        let mut faults = self.queue.faults.lock();
        let Some(fault) = faults.pop_front() else { return false };
        let more = !faults.is_empty();
        drop(faults);
        if more {
            // The other readers may all be asleep, and this fault may take its time.
            self.kick.ring();
        }
        if self.serve(&fault) == Served::TryAgain {
            self.counters.postponed_faults.fetch_add(1);
            if fault.tries >= MAX_TRIES {
                self.wake_page(fault.addr);
                return true;
            }
            self.pump();
            self.queue.faults.lock().push_back(Fault { tries: fault.tries + 1, ..fault });
            task::relax();
        }
        true
    }

    fn serve(&self, fault: &Fault) -> Served {
        match self.look(fault) {
            Look::Claimed => drop(self.counters.claimed_faults.fetch_add(1)),
            Look::Device(page) => return self.serve_device(fault, page),
            Look::Hole { range, turn } => return self.serve_hole(fault, range, turn),
            Look::ClaimedHole { claim, entry } => return self.serve_claimed_hole(fault, claim, entry),
            Look::Protected => {
                if self.program.protect(HostRange::sized(fault.addr, SZ_4K), false) == Err(Errno::AGAIN) {
                    return Served::TryAgain;
                }
                self.wake_page(fault.addr);
            }
        }
        Served::Answered
    }

    fn look(&self, fault: &Fault) -> Look {
        let mut guard = self.map.lock();
        let map = &mut *guard;
        let addr = fault.addr;
        match map.mark(addr) {
            Mark::Claimed { claim, entry } => {
                let Some(mut state) = map.entry(claim, entry).filter(|_| !fault.protected) else {
                    return Look::Claimed;
                };
                let hole = state.from == From::Hole && state.carried.is_none() && !state.sealed;
                if !(hole || state.filling) || state.zeroing || state.dead {
                    return Look::Claimed;
                }
                (state.filled, state.zeroing) = (true, true);
                map.set_entry(claim, entry, state);
                return Look::ClaimedHole { claim, entry };
            }
            // Another reader is about to answer, and wakes all that it fills.
            Mark::Filling { .. } => return Look::Claimed,
            Mark::Free => {}
        }
        if fault.protected {
            return Look::Protected;
        }
        if let Home::Device(page) = map.home(addr) {
            return Look::Device(page);
        }
        let Some(part) = map
            .chunk(addr)
            .and_then(|chunk| chunk.registered.iter().map(|part| part.range).find(|range| range.contains(addr)))
        else {
            // Late; or a mapping that is registered although nobody here did it: a registered mapping grew in place,
            // and what it grew by is registered too, without an event. A hole either way, if it is still one.
            self.counters.stale_faults.fetch_add(1);
            map.last_turn = map.last_turn.wrapping_add(1);
            let turn = map.last_turn;
            map.set_mark(addr, Mark::Filling { turn });
            return Look::Hole { range: HostRange::sized(addr, SZ_4K), turn };
        };
        let block = HostRange::around(addr, SZ_64K).intersect(part).unwrap_or(HostRange::sized(addr, SZ_4K));
        let fillable = |va: HostVa| map.home(va) == Home::System && map.mark(va) == Mark::Free;
        let mut range = HostRange::sized(addr, SZ_4K);
        while range.end < block.end && fillable(range.end) {
            range.end = range.end.add(SZ_4K);
        }
        while range.start > block.start && fillable(HostVa(range.start.0 - SZ_4K)) {
            range.start = HostVa(range.start.0 - SZ_4K);
        }
        map.last_turn = map.last_turn.wrapping_add(1);
        let turn = map.last_turn;
        (0..range.pages()).for_each(|index| map.set_mark(range.page_at(index), Mark::Filling { turn }));
        Look::Hole { range, turn }
    }

    /// Fills a hole that a migration has claimed and not carried yet.
    fn serve_claimed_hole(&self, fault: &Fault, claim: u64, entry: usize) -> Served {
        let held = self.hold_events();
        // An event may have taken the page elsewhere, and something else here, before it was held back.
        let here = self.map.lock().mark(fault.addr) == Mark::Claimed { claim, entry };
        let again = here && self.program.zero(HostRange::sized(fault.addr, SZ_4K)).error == Some(Errno::AGAIN);
        drop(held);
        let mut map = self.map.lock();
        if let Some(mut state) = map.entry(claim, entry) {
            state.zeroing = false;
            map.set_entry(claim, entry, state);
        }
        drop(map);
        if again {
            return Served::TryAgain;
        }
        self.wake_page(fault.addr);
        Served::Answered
    }

    /// Fills a hole with the zero page, and the holes next to it in its 64K.
    fn serve_hole(&self, fault: &Fault, range: HostRange, turn: u32) -> Served {
        let mut resident = [0u8; (SZ_64K / SZ_4K) as usize];
        let at = range.page_index(fault.addr);
        let held = self.hold_events();
        // An event may have taken pages elsewhere, and others here, before it was held back.
        let ours: Vec<bool> = {
            let map = self.map.lock();
            (0..range.pages()).map(|index| map.mark(range.page_at(index)) == Mark::Filling { turn }).collect()
        };
        let answer = match self.present(range, &mut resident) {
            Ok(()) if ours[at] => {
                let is_hole = |index: &usize| resident[*index] & 1 == 0 && ours[*index];
                let first = (0..at).rev().take_while(is_hole).last().unwrap_or(at);
                let pages = (at..range.pages()).take_while(is_hole).count();
                let holes = HostRange::new(range.page_at(first), range.page_at(at + pages));
                (pages > 0).then(|| self.fill(holes))
            }
            _ => None,
        };
        drop(held);
        {
            let mut map = self.map.lock();
            for va in (0..range.pages()).map(|index| range.page_at(index)) {
                if map.mark(va) == (Mark::Filling { turn }) {
                    map.set_mark(va, Mark::Free);
                }
            }
        }
        let again = answer.is_some_and(|progress| progress.bytes == 0 && progress.error == Some(Errno::AGAIN));
        if again { &self.counters.again } else { &self.counters.hole_faults }.fetch_add(1);
        // Others may have been told to wait for this.
        self.program.wake(range);
        self.retire_chunks([range.start.0 / chunk_range(0).len()]);
        if again { Served::TryAgain } else { Served::Answered }
    }

    /// Fills holes. What was dropped there is gone; what is there now is new.
    fn fill(&self, holes: HostRange) -> Progress {
        let progress = self.program.zero(holes);
        self.map.lock().quarantine.settle(HostRange::sized(holes.start, progress.bytes), u64::MAX);
        progress
    }

    fn serve_device(&self, fault: &Fault, page: DevicePage) -> Served {
        self.counters.device_faults.fetch_add(1);
        let outcome = self.fault_device(fault.addr, page, fault.write);
        match outcome {
            None => self.wake_page(fault.addr),
            Some(FaultOutcome::Retry) => {
                if self.is_still(fault.addr, page) {
                    return Served::TryAgain;
                }
                self.wake_page(fault.addr);
            }
            Some(FaultOutcome::Defer) => self.queue.later.lock().push((now_ns() + DEFER_NS, *fault)),
            Some(FaultOutcome::Fatal) => {
                self.counters.fatal_faults.fetch_add(1);
                self.program.poison(HostRange::sized(fault.addr, SZ_4K));
                self.wake_page(fault.addr);
            }
        }
        Served::Answered
    }

    /// Asks the owner of a device page to bring it home. `None` where its mapping is gone.
    pub(crate) fn fault_device(&self, addr: HostVa, page: DevicePage, write: bool) -> Option<FaultOutcome> {
        let vma = self.vma_at(addr)?;
        let ops = self.map.lock().arena(page.pagemap).map(|arena| Arc::clone(&arena.ops))?;
        let mm: &dyn HostMm = self;
        Some(ops.migrate_to_ram(mm, &CpuFault { addr: addr.page(), page, vma: vma.range, write }))
    }

    /// Whether the page is where it was, and nobody is at it.
    fn is_still(&self, addr: HostVa, page: DevicePage) -> bool {
        let map = self.map.lock();
        map.home(addr) == Home::Device(page)
            && map.mark(addr) == Mark::Free
            && matches!(map.frame(page), Some(Frame::Home(_)))
    }

    fn wake_page(&self, addr: HostVa) {
        self.program.wake(HostRange::sized(addr, SZ_4K));
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
