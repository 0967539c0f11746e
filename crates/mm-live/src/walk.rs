//! Looking at pages the way a device will use them (Linux: `hmm_range_fault` in `mm/hmm.c`).
//!
//! A system page is reported by its own place, so nothing can go wrong between the look and the use that the
//! access itself would not find out: a device reaches it by address, and copy-on-write, swap and the splitting of
//! huge pages happen under it as they do under the program.
//!
//! Faulting in touches memory, so it waits for readers where a hole lies in a registered chunk: no reader walks.

use crate::LiveMm;
use crate::books::{Books, Mark, Page, Residency};
use crate::held::NOTHING;
use crate::kernel::{Held, Populate};
use crate::reader::Touch;
use hostmm::{AtomicOp, DevicePage, FaultOutcome, MmError, Place, Run, Vma, Walk, WalkRun};
use units::{HostFrame, HostRange, HostVa, ORDER_2M, SZ_2M};

/// How often a walk takes hurdles away before it says `Stale`.
const MAX_ROUNDS: u32 = 8;
const CLAIM_TIMEOUT_NS: u64 = 1_000_000;

/// What keeps a walk from reporting.
enum Hurdle {
    /// A migration has a page.
    Claimed,
    /// A page is in a VRAM that the walker cannot see.
    Foreign(HostVa, DevicePage),
    /// Pages are absent.
    Absent,
}

impl LiveMm {
    pub(crate) fn walk_range(&self, walk: &Walk, runs: &mut Vec<WalkRun>) -> Result<(), MmError> {
        self.alive()?;
        // Good for one look: what comes after took its time.
        let mut known = self.still_known(walk);
        let mut refusals = self.refusals();
        for _ in 0..MAX_ROUNDS {
            if walk.valid_since.is_some_and(|(id, seq)| self.notifiers.read_retry(id, seq)) {
                return Err(MmError::Stale);
            }
            match self.look_at(walk, known.take(), runs)? {
                None => return Ok(()),
                Some(Hurdle::Claimed) => {
                    self.await_claims();
                    return Err(MmError::Stale);
                }
                Some(Hurdle::Foreign(va, page)) => {
                    match self.fault_device(Touch { addr: va, write: walk.write, thread: 0 }, page, None) {
                        Some(FaultOutcome::Fatal) => return Err(MmError::NoVma),
                        Some(FaultOutcome::Defer) => return Err(MmError::Stale),
                        Some(FaultOutcome::Retry) | None => {}
                    }
                }
                Some(Hurdle::Absent) => {
                    refusals.insist();
                    let absent = runs.iter().filter(|run| run.run.place.is_none()).map(|run| run.run.range);
                    absent.collect::<Vec<_>>().into_iter().try_for_each(|range| self.populate(range, walk.write))?;
                }
            }
        }
        Err(MmError::Stale)
    }

    /// The VMA that the caller has looked up, if nothing is known to have changed it.
    fn still_known(&self, walk: &Walk) -> Option<Vma> {
        let ((vma, seq), (id, _)) = (walk.vma?, walk.valid_since?);
        (vma.range.covers(walk.range) && self.notifiers.is_mapping_kept(id, seq)).then_some(vma)
    }

    /// Waits a little for a migration to end.
    fn await_claims(&self) {
        if self.kernel.event_pending() && self.drain() {
            self.kernel.kick();
        }
        let mut books = self.books.lock();
        if !books.claims.is_empty() {
            self.claims_changed.wait_for(&mut books, CLAIM_TIMEOUT_NS);
        }
    }

    /// One look at all of the range: what is there, or what is in the way.
    fn look_at(&self, walk: &Walk, known: Option<Vma>, runs: &mut Vec<WalkRun>) -> Result<Option<Hurdle>, MmError> {
        runs.clear();
        let mut at = walk.range.start;
        while at < walk.range.end {
            let rest = HostRange::new(at, walk.range.end);
            let Some(vma) = known.or_else(|| self.single_vma_at(at)) else {
                if walk.fault {
                    return Err(MmError::NoVma);
                }
                let end = self.vma_from(at).map_or(rest.end, |vma| vma.range.start.min(rest.end));
                push(runs, HostRange::new(at, end), None, false, 0);
                at = end;
                continue;
            };
            if walk.write && !vma.write {
                return Err(MmError::Denied);
            }
            if walk.fault && vma.io {
                return Err(MmError::NoVma);
            }
            let part = vma.range.intersect(rest).ok_or(MmError::NoVma)?;
            if let Some(hurdle) = self.look_at_part(walk, &vma, part, runs) {
                return Ok(Some(hurdle));
            }
            at = part.end;
        }
        let is_absent = |run: &WalkRun| run.run.place.is_none();
        Ok((walk.fault && runs.iter().any(is_absent)).then_some(Hurdle::Absent))
    }

    /// The same for what lies in one VMA. Only what may be in system memory is asked of the kernel.
    fn look_at_part(&self, walk: &Walk, vma: &Vma, part: HostRange, runs: &mut Vec<WalkRun>) -> Option<Hurdle> {
        let mut rest = part;
        while !rest.is_empty() {
            let mut held = [NOTHING; 16];
            let device_end = self.books.lock().device_until(rest);
            let (found, end) = match device_end {
                end if end > rest.start => (0, end),
                _ => {
                    let (found, end) = self.kernel.scan(rest, &mut held);
                    (found, end.min(rest.end))
                }
            };
            let looked = HostRange::new(rest.start, end);
            if let Some(hurdle) = self.books.lock().report(walk, vma, looked, &held[..found], runs) {
                return Some(hurdle);
            }
            rest.start = end;
        }
        None
    }

    /// Faults a run in: by madvise, or page by page where that is refused (a kernel-mode fault without privilege). Also where readers
    /// answer: a thread that waits for them in a call of the kernel cannot be stopped, nor can a debugger then that stops them.
    fn populate(&self, run: HostRange, write: bool) -> Result<(), MmError> {
        let access = if write { Populate::Write } else { Populate::Read };
        let is_watched = self.books.lock().is_watched(run);
        if !is_watched && self.kernel.populate(run, access).is_ok() {
            return Ok(());
        }
        for va in (0..run.pages()).map(|index| run.page_at(index)) {
            let touched = if write {
                self.kernel.atomic(va, 4, AtomicOp::Add(0)).map(drop)
            } else {
                self.kernel.read(va, &mut [0; 4])
            };
            touched.map_err(|_| MmError::NoVma)?;
        }
        Ok(())
    }
}

impl Books {
    /// Whether faults in it may be reported.
    fn is_watched(&self, range: HostRange) -> bool {
        let last = HostVa(range.end.0.saturating_sub(1)).max(range.start);
        [range.start, last].iter().any(|at| self.chunk(*at).is_some_and(|chunk| !chunk.registered.is_empty()))
    }

    /// Up to where all pages of `range` live in VRAM.
    fn device_until(&self, range: HostRange) -> HostVa {
        let lives = |(_, page): &(HostRange, Page)| matches!(page.residency, Residency::Device(_));
        self.runs(range).take_while(lives).last().map_or(range.start, |(run, _)| run.end)
    }

    fn report(
        &self,
        walk: &Walk,
        vma: &Vma,
        range: HostRange,
        held: &[Held],
        runs: &mut Vec<WalkRun>,
    ) -> Option<Hurdle> {
        for (run, page) in self.runs(range) {
            let claimed = matches!(page.mark, Mark::Claimed(_));
            match page.residency {
                _ if claimed && walk.fault => return Some(Hurdle::Claimed),
                _ if claimed => push(runs, run, None, false, 0),
                Residency::Device(first) => {
                    let seen = self.arena(first.pagemap).is_some_and(|arena| Some(arena.owner) == walk.owner);
                    if !seen && walk.fault {
                        return Some(Hurdle::Foreign(run.start, first));
                    }
                    push(runs, run, seen.then_some(Place::Device(first)), seen && vma.write, 0);
                }
                Residency::System => report_system(run, held, vma.write, runs),
            }
        }
        None
    }
}

/// What a scan saw of a run of system memory.
fn report_system(run: HostRange, held: &[Held], write: bool, runs: &mut Vec<WalkRun>) {
    let mut at = run.start;
    for (part, huge) in held.iter().filter_map(|held| Some((held.range.intersect(run)?, held.huge))) {
        push(runs, HostRange::new(at, part.start), None, false, 0);
        // A huge page that is cut is named in small ones: 0 is always a right answer.
        let whole = huge && part.start.is_aligned(SZ_2M) && part.end.is_aligned(SZ_2M);
        let place = Place::Host(HostFrame(part.start.page_number()));
        push(runs, part, Some(place), write, if whole { ORDER_2M } else { 0 });
        at = part.end;
    }
    push(runs, HostRange::new(at, run.end), None, false, 0);
}

fn push(runs: &mut Vec<WalkRun>, range: HostRange, place: Option<Place>, write: bool, order: u8) {
    if !range.is_empty() {
        WalkRun::push(runs, WalkRun { run: Run { range, place }, write, order });
    }
}
