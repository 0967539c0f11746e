//! The machine's book: every event of engine and driver is folded into counters and a list of migrations.
//!
//! Nothing is counted anywhere else; reports, tables and test assertions read this.
//!
//! Locking: one lock, under which nothing else is taken. It is taken by observers in reader class, so nothing under it
//! waits, and memory is asked for at the first use of a counter or of a list only (a list has its whole capacity from
//! then on). It is no scheduling point ([`sync::unscheduled`]): that somebody counts changes no run.

use crate::gt_stats::GtStats;
use crate::stats::{Flow, Stats};
use crate::timeline::Timeline;
use gpusvm::Where;
use std::collections::BTreeMap;
use sync::Mutex;
use sync::rank::{self, Rank};
use units::{HostRange, TileId};
use xe_kmd::{Errno, Serviced};
use xe_spec::fault::{Access, ContextId};

/// Migrations kept in full; later ones are only counted.
const KEPT: usize = 4096;

/// One migration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Migration {
    /// The range that it was asked for.
    pub range: HostRange,
    /// Where its pages were.
    pub from: Where,
    /// Where they are.
    pub to: Where,
    /// How many.
    pub pages: usize,
    /// Nanoseconds.
    pub ns: u64,
}

/// One GPU fault that was serviced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GpuFault {
    /// Faulting tile.
    pub tile: TileId,
    /// Faulting address.
    pub addr: u64,
    /// How it ended.
    pub outcome: Serviced,
    /// From queue to answer, nanoseconds.
    pub ns: u64,
}

impl GpuFault {
    /// Why it was refused, if it was.
    #[must_use]
    pub const fn refusal(&self) -> Option<Errno> {
        match self.outcome {
            Serviced::Refused(errno) => Some(errno),
            _ => None,
        }
    }
}

/// What happened so far: the counters of [`Stats`], what only the machine asks for beside them, and the first events in full.
#[derive(Clone, Default, Debug)]
pub struct Book {
    /// The first migrations in full.
    pub migrations: Vec<Migration>,
    /// The first GPU faults in full.
    pub gpu_faults: Vec<GpuFault>,
    /// CPU faults that brought pages back, with address and nanoseconds of the first ones.
    pub cpu_faults: Vec<(u64, usize, u64)>,
    /// Pages that copy engines carried.
    pub copied_pages: u64,
    /// Crossings of the system's bus by such pages.
    pub bus_pages: u64,
    /// Queues banned.
    pub bans: u64,
    /// Arrays of fences with a slot that nobody filled.
    pub fence_array_holes: u64,
    /// Binds that were refused over pages in VRAM that no leaf can map: warnings of the kernel.
    pub unfit_vram: u64,
    /// Buffer objects that gave up their VRAM.
    pub bo_evictions: u64,
    /// Collections of pages that a change of the address space overtook.
    pub collections_overtaken: u64,
    /// Prefetches whose pages changed between two tiles.
    pub prefetches_overtaken: u64,
    /// Evictions that found less than they were begun for.
    pub evictions_overtaken: u64,
    /// Flushes of a TLB while a job ran.
    pub flushes_beside_jobs: u64,
    /// Changes of the address space that came to a mirror while a VM ended.
    pub changes_at_an_end: u64,
    /// CPU faults that brought pages back while a VM ended.
    pub cpu_faults_at_an_end: u64,
    /// Ranges that were removed as their memory was gone.
    pub collected: u64,
    /// VMs that have begun to end, and have not ended.
    ending: u64,
    /// Jobs of a context that it was given and did not end.
    running: BTreeMap<ContextId, u64>,
    /// Counts by tile, direction, cause and size.
    pub stats: Stats,
    /// What debugfs counts, by tile.
    pub gt_stats: BTreeMap<u8, GtStats>,
    /// Everything in order, where somebody wants it.
    pub timeline: Timeline,
    /// The first fault that was refused for want of VRAM, or as it was an atomic's.
    pub refused: Option<GpuFault>,
    /// What programs asked for that the driver does not do: (ioctl number, what), with how often.
    pub stubs: BTreeMap<(u8, &'static str), u64>,
}

impl Book {
    /// One job of a context less; what a banned queue left counts no more.
    fn job_done(&mut self, context: ContextId) {
        if let Some(left) = self.running.get_mut(&context) {
            *left -= 1;
            if *left == 0 {
                self.running.remove(&context);
            }
        }
    }
}

/// The shared book.
pub struct Ledger {
    book: Mutex<Book>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { book: rank::mutex(Rank::LEAF, Book::default()) }
    }
}

impl Ledger {
    /// A copy of the book as it stands.
    pub fn read(&self) -> Book {
        self.with_book(|book| book.clone())
    }

    /// Times that pages went this way.
    pub fn flow(&self, from: Where, to: Where) -> Flow {
        self.with_book(|book| book.stats.flow(from, to))
    }

    /// Keeps so many events in order from now on.
    pub fn keep_timeline(&self, room: usize) {
        self.with_book(|book| book.timeline.keep(room));
    }

    /// What debugfs counts of a tile begins anew.
    pub fn clear_gt_stats(&self, tile: TileId) {
        self.with_book(|book| book.gt_stats.remove(&tile.0));
    }

    /// Does some work, and keeps for the timelines of these books why pages of `range` go meanwhile.
    pub(crate) fn because<'a, R>(
        ledgers: impl Iterator<Item = &'a Self> + Clone,
        range: HostRange,
        why: &'static str,
        work: impl FnOnce() -> R,
    ) -> R {
        ledgers.clone().for_each(|ledger| ledger.with_book(|book| book.timeline.begin_reason(range, why)));
        let done = work();
        ledgers.for_each(|ledger| ledger.with_book(|book| book.timeline.end_reason(range, why)));
        done
    }

    /// Looks at the book without a copy of it. Nothing else is done under its lock.
    pub fn look<R>(&self, f: impl FnOnce(&Book) -> R) -> R {
        self.with_book(|book| f(book))
    }

    fn with_book<R>(&self, f: impl FnOnce(&mut Book) -> R) -> R {
        sync::unscheduled(|| f(&mut self.book.lock()))
    }
}

impl gpusvm::Observer for Ledger {
    fn event(&self, event: &gpusvm::Event) {
        use gpusvm::Event;
        self.with_book(|book| {
            book.stats.svm(event);
            book.timeline.svm(event);
            match *event {
                Event::Migrated { range, from, to, pages, ns, .. } => {
                    keep(&mut book.migrations, Migration { range, from, to, pages, ns });
                }
                Event::CpuFault { addr, pages, ns, .. } => {
                    book.cpu_faults_at_an_end += u64::from(book.ending > 0);
                    keep(&mut book.cpu_faults, (addr.0, pages, ns));
                }
                Event::Invalidated { .. } => book.changes_at_an_end += u64::from(book.ending > 0),
                Event::EvictionOvertaken { .. } => book.evictions_overtaken += 1,
                Event::Retried { .. } => book.collections_overtaken += 1,
                _ => {}
            }
        });
    }
}

impl xe_kmd::Observer for Ledger {
    fn event(&self, event: &xe_kmd::Event) {
        use xe_kmd::Event;
        self.with_book(|book| {
            book.stats.driver(event);
            GtStats::count(&mut book.gt_stats, event);
            book.timeline.driver(event);
            match *event {
                Event::Fault { tile, addr, access, outcome, ns, .. } => {
                    let fault = GpuFault { tile, addr: addr.0, outcome, ns };
                    let has_reason = |errno| access == Access::Atomic || errno == Errno::ENOMEM;
                    if fault.refusal().is_some_and(has_reason) {
                        book.refused.get_or_insert(fault);
                    }
                    keep(&mut book.gpu_faults, fault);
                }
                Event::Copy { carried, crossings, .. } => {
                    book.copied_pages += u64::from(carried);
                    book.bus_pages += u64::from(carried * crossings);
                }
                Event::FenceArrayHole { .. } => book.fence_array_holes += 1,
                Event::UnfitVram { .. } => book.unfit_vram += 1,
                Event::BoEvicted { .. } => book.bo_evictions += 1,
                Event::PrefetchOvertaken { .. } => book.prefetches_overtaken += 1,
                Event::Collected { .. } => book.collected += 1,
                Event::Banned { context, .. } => {
                    book.bans += 1;
                    book.running.remove(&context);
                }
                Event::VmEnding { .. } => book.ending += 1,
                Event::VmClosed { .. } => book.ending = book.ending.saturating_sub(1),
                Event::JobSubmitted { context, .. } => *book.running.entry(context).or_default() += 1,
                Event::JobDone { context, .. } => book.job_done(context),
                Event::TlbFlush { .. } => book.flushes_beside_jobs += u64::from(!book.running.is_empty()),
                Event::Stub { ioctl, what } => *book.stubs.entry((ioctl, what)).or_default() += 1,
                _ => {}
            }
        });
    }
}

fn keep<T>(list: &mut Vec<T>, item: T) {
    if list.is_empty() {
        list.reserve_exact(KEPT);
    }
    if list.len() < KEPT {
        list.push(item);
    }
}

/// The name of a place in reports: SYSTEM, VRAM0, VRAM1.
pub fn place_name(place: Where) -> String {
    match place {
        Where::System => "SYSTEM".into(),
        Where::Vram(pagemap) => format!("VRAM{}", pagemap.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_asks_for_memory_once() {
        let mut list = Vec::new();
        keep(&mut list, 0);
        let capacity = list.capacity();
        (0..2 * KEPT).for_each(|n| keep(&mut list, n));
        assert_eq!((list.len(), list.capacity()), (KEPT, capacity));
    }
}
