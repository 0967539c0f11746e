//! Looking at pages the way a device will use them (Linux: `hmm_range_fault` in `mm/hmm.c`).
//!
//! A system page is reported by its own place, so nothing can go wrong between the look and the use that the
//! access itself would not find out: a device reaches it by address, and copy-on-write, swap and the splitting of
//! huge pages happen under it as they do under the program.
//!
//! Faulting in touches memory, so it waits for readers where a hole lies in a registered chunk: no reader walks.

use crate::LiveMm;
use crate::map::{Home, Mark, PageMap};
use crate::sys::{access, mem};
use hostmm::{Backing, DevicePage, FaultOutcome, HostPage, MmError, Vma, Walk};
use units::{HostFrame, HostRange, HostVa, ORDER_2M, SZ_2M, SZ_4K};

/// How often a walk takes hurdles away before it says `Stale`.
const MAX_ROUNDS: u32 = 8;
const CLAIM_PATIENCE_NS: u64 = 1_000_000;

/// What keeps a walk from reporting.
enum Hurdle {
    /// A migration has a page.
    Claimed,
    /// A page is in a VRAM that the walker cannot see.
    Foreign(HostVa, DevicePage),
    /// Pages are absent.
    Absent(Vec<HostRange>),
}

impl LiveMm {
    pub(crate) fn walk_range(&self, walk: &Walk, pages: &mut [HostPage]) -> Result<(), MmError> {
        self.alive()?;
        if self.program.event_pending() && self.pump() {
            self.kick.ring();
        }
        for _ in 0..MAX_ROUNDS {
            if walk.valid_since.is_some_and(|(id, seq)| self.notifiers.read_retry(id, seq)) {
                return Err(MmError::Stale);
            }
            match self.look_at(walk, pages)? {
                None => return Ok(()),
                Some(Hurdle::Claimed) => {
                    self.await_claims();
                    return Err(MmError::Stale);
                }
                Some(Hurdle::Foreign(va, page)) => match self.fault_device(va, page, walk.write) {
                    Some(FaultOutcome::Fatal) => return Err(MmError::NoVma),
                    Some(FaultOutcome::Defer) => return Err(MmError::Stale),
                    Some(FaultOutcome::Retry) | None => {}
                },
                Some(Hurdle::Absent(runs)) => runs.into_iter().try_for_each(|run| self.populate(run, walk.write))?,
            }
        }
        Err(MmError::Stale)
    }

    /// Waits a little for a migration to end.
    fn await_claims(&self) {
        let mut map = self.map.lock();
        if !map.claims.is_empty() {
            self.claims_changed.wait_for(&mut map, CLAIM_PATIENCE_NS);
        }
    }

    fn look_at(&self, walk: &Walk, pages: &mut [HostPage]) -> Result<Option<Hurdle>, MmError> {
        let mut at = walk.range.start;
        let mut absent = Vec::new();
        while at < walk.range.end {
            let Some(vma) = self.vma_at(at).filter(|vma| !vma.io && (vma.read || vma.write)) else {
                if walk.fault {
                    return Err(MmError::NoVma);
                }
                pages[walk.range.page_index(at)] = HostPage::HOLE;
                at = at.add(SZ_4K);
                continue;
            };
            if walk.write && !vma.write {
                return Err(MmError::Denied);
            }
            let part = vma.range.intersect(walk.range).ok_or(MmError::NoVma)?;
            let mut resident = vec![0u8; part.pages()];
            self.present(part, &mut resident).map_err(|_| MmError::NoVma)?;
            let out = &mut pages[walk.range.page_index(part.start)..][..part.pages()];
            if let Some(hurdle) = self.map.lock().report(walk, &vma, part, &resident, out) {
                return Ok(Some(hurdle));
            }
            self.note_orders(part, out);
            if walk.fault {
                absent.extend(absent_runs(part, out));
            }
            at = part.end;
        }
        Ok((!absent.is_empty()).then_some(Hurdle::Absent(absent)))
    }

    /// Huge pages: one look a 2M block that is wholly there.
    fn note_orders(&self, part: HostRange, out: &mut [HostPage]) {
        let mut block = HostRange::around(part.start.align_up(SZ_2M), SZ_2M);
        while part.covers(block) {
            let first = part.page_index(block.start);
            let pages = &mut out[first..first + block.pages()];
            let whole = pages.iter().all(|page| matches!(page.backing, Backing::System(_)));
            if whole && self.pagemap.is_huge(block.start) {
                pages.iter_mut().for_each(|page| page.order = ORDER_2M);
            }
            block = HostRange::sized(block.end, SZ_2M);
        }
    }

    /// Faults a run in: by madvise, or page by page where that is refused (a kernel-mode fault without privilege).
    fn populate(&self, run: HostRange, write: bool) -> Result<(), MmError> {
        let advice = if write { mem::Advice::PopulateWrite } else { mem::Advice::PopulateRead };
        if mem::advise(run, advice).is_ok() {
            return Ok(());
        }
        for va in (0..run.pages()).map(|index| run.page_at(index)) {
            let touched = if write { access::add(va.0, 4, 0).map(drop) } else { access::read(va.0, &mut [0; 4]) };
            touched.map_err(|_| MmError::NoVma)?;
        }
        Ok(())
    }
}

impl PageMap {
    fn report(&self, walk: &Walk, vma: &Vma, part: HostRange, resident: &[u8], out: &mut [HostPage]) -> Option<Hurdle> {
        for (index, page) in out.iter_mut().enumerate() {
            let va = part.page_at(index);
            let (home, mark) = self.look(va);
            let claimed = matches!(mark, Mark::Claimed { .. });
            *page = match home {
                _ if claimed && walk.fault => return Some(Hurdle::Claimed),
                _ if claimed => HostPage::HOLE,
                Home::Device(device) => {
                    let seen = self.arena(device.pagemap).is_some_and(|arena| Some(arena.owner) == walk.owner);
                    if !seen && walk.fault {
                        return Some(Hurdle::Foreign(va, device));
                    }
                    let backing = if seen { Backing::Device(device) } else { Backing::None };
                    HostPage { backing, write: seen && vma.write, order: 0 }
                }
                Home::System if resident[index] & 1 != 0 => {
                    HostPage { backing: Backing::System(HostFrame(va.page_number())), write: vma.write, order: 0 }
                }
                Home::System => HostPage::HOLE,
            };
        }
        None
    }
}

fn absent_runs(part: HostRange, out: &[HostPage]) -> Vec<HostRange> {
    let absent = out.iter().enumerate().filter(|(_, page)| page.backing == Backing::None);
    crate::claim::runs_of(absent.map(|(index, _)| part.start.add(index as u64 * SZ_4K)).collect()).collect()
}
