//! The machine's book: every event of engine and driver is folded into counters and a list of migrations.
//!
//! Nothing is counted anywhere else; reports, tables and test assertions read this.
//!
//! Locking: one lock, under which nothing else is taken. It is taken by observers in reader class, so nothing under it
//! waits, and memory is asked for at the first use of a counter or of a list only (a list has its whole capacity from
//! then on). It is no scheduling point ([`sync::unscheduled`]): that somebody counts changes no run.

use crate::stats::Stats;
use crate::timeline::Timeline;
use gpusvm::Where;
use std::collections::BTreeMap;
use sync::Mutex;
use sync::rank::{self, Rank};
use units::{HostRange, TileId};
use xe_kmd::{RetryStep, Serviced};
use xe_spec::fault::Access;

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

/// Counts of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Flow {
    /// Migrations.
    pub times: u64,
    /// Pages of them.
    pub pages: u64,
}

/// What happened so far.
#[derive(Clone, Default, Debug)]
pub struct Book {
    /// Per direction.
    pub flows: BTreeMap<(Where, Where), Flow>,
    /// The first migrations in full.
    pub migrations: Vec<Migration>,
    /// The first GPU faults in full.
    pub gpu_faults: Vec<GpuFault>,
    /// GPU faults answered.
    pub gpu_fault_count: u64,
    /// The same, by tile.
    pub gpu_faults_of: BTreeMap<TileId, u64>,
    /// Of these, refused.
    pub gpu_faults_refused: u64,
    /// CPU faults that brought pages back, with address and nanoseconds of the first ones.
    pub cpu_faults: Vec<(u64, usize, u64)>,
    /// CPU faults that brought pages back.
    pub cpu_fault_count: u64,
    /// CPU faults that minimum residency deferred, each time.
    pub cpu_faults_deferred: u64,
    /// Notifier calls.
    pub invalidations: u64,
    /// Spans bound.
    pub binds: u64,
    /// Binds whose pages had changed since they were collected: tried again.
    pub stale_binds: u64,
    /// TLB flushes that the driver asked for, by tile.
    pub flushes_of: BTreeMap<TileId, u64>,
    /// Migrations that failed.
    pub failed_migrations: u64,
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
    /// Counts by tile, direction, cause and size.
    pub stats: Stats,
    /// Everything in order, where somebody wants it.
    pub timeline: Timeline,
    /// The first atomic that was refused: its tile and its address.
    pub refused_atomic: Option<(TileId, u64)>,
    /// What programs asked for that the driver does not do: (ioctl number, what), with how often.
    pub stubs: BTreeMap<(u8, &'static str), u64>,
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
        self.with_book(|book| book.flows.get(&(from, to)).copied().unwrap_or_default())
    }

    /// Keeps so many events in order from now on.
    pub fn keep_timeline(&self, room: usize) {
        self.with_book(|book| book.timeline.keep(room));
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
        });
        self.with_book(|book| match *event {
            Event::Migrated { range, from, to, pages, ns, .. } => {
                let flow = book.flows.entry((from, to)).or_default();
                flow.times += 1;
                flow.pages += pages as u64;
                keep(&mut book.migrations, Migration { range, from, to, pages, ns });
            }
            Event::CpuFault { addr, pages, ns } => {
                book.cpu_fault_count += 1;
                keep(&mut book.cpu_faults, (addr.0, pages, ns));
            }
            Event::CpuFaultDeferred { .. } => book.cpu_faults_deferred += 1,
            Event::Invalidated { .. } => book.invalidations += 1,
            Event::MigrateFailed { .. } => book.failed_migrations += 1,
            _ => {}
        });
    }
}

impl xe_kmd::Observer for Ledger {
    fn event(&self, event: &xe_kmd::Event) {
        use xe_kmd::Event;
        self.with_book(|book| {
            book.stats.driver(event);
            book.timeline.driver(event);
        });
        self.with_book(|book| match *event {
            Event::Fault { tile, addr, access, outcome, ns, .. } => {
                if access == Access::Atomic && matches!(outcome, Serviced::Refused(_)) {
                    book.refused_atomic.get_or_insert((tile, addr.0));
                }
                book.gpu_fault_count += 1;
                *book.gpu_faults_of.entry(tile).or_default() += 1;
                book.gpu_faults_refused += u64::from(matches!(outcome, Serviced::Refused(_)));
                keep(&mut book.gpu_faults, GpuFault { tile, addr: addr.0, outcome, ns });
            }
            Event::Bind { .. } => book.binds += 1,
            Event::Copy { carried, crossings, .. } => {
                book.copied_pages += u64::from(carried);
                book.bus_pages += u64::from(carried * crossings);
            }
            Event::Retry { step: RetryStep::Bind, .. } => book.stale_binds += 1,
            Event::TlbFlush { tile, .. } => *book.flushes_of.entry(tile).or_default() += 1,
            Event::FenceArrayHole { .. } => book.fence_array_holes += 1,
            Event::UnfitVram { .. } => book.unfit_vram += 1,
            Event::BoEvicted { .. } => book.bo_evictions += 1,
            Event::Banned { .. } => book.bans += 1,
            Event::Stub { ioctl, what } => *book.stubs.entry((ioctl, what)).or_default() += 1,
            _ => {}
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
