//! Moments that scenes of races are there for, by name: a search in which none of a scene's comes shows nothing of its race.

use machine::ledger::Book;
use machine::{RetryStep, stats::Stats};

/// A moment: its name, and how often it came by the books of a device.
type Moment = (&'static str, fn(&Book) -> u64);

/// All of them.
pub const MOMENTS: [Moment; 18] = [
    ("binds overtaken", |book| book.stats.retries_of(RetryStep::Bind)),
    ("collections refused", |book| book.stats.retries_of(RetryStep::Pages)),
    ("collections overtaken", |book| book.collections_overtaken),
    ("prefetches overtaken", |book| book.prefetches_overtaken),
    ("migrations in each other's way", |book| failed(&book.stats, "busy")),
    ("migrations that gave way to a CPU", |book| failed(&book.stats, "the CPU's turn")),
    ("migrations refused memory", |book| failed(&book.stats, "no memory")),
    ("pages from tile to tile", |book| book.stats.flow_of(super::is_between_tiles).pages),
    ("CPU faults", |book| book.stats.cpu_faults.total()),
    ("CPU faults deferred", |book| book.stats.cpu_faults_deferred),
    ("GPU faults served already", |book| book.stats.tiles.values().map(|tile| tile.valid).sum()),
    ("GPU faults refused", |book| book.stats.gpu_faults_refused()),
    ("flushes beside jobs", |book| book.flushes_beside_jobs),
    ("evictions overtaken", |book| book.evictions_overtaken),
    ("changes while a VM ends", |book| book.changes_at_an_end),
    ("CPU faults while a VM ends", |book| book.cpu_faults_at_an_end),
    ("ranges collected", |book| book.collected),
    ("queues banned", |book| book.bans),
];

fn failed(stats: &Stats, why: &str) -> u64 {
    stats.failed.get(why).copied().unwrap_or(0)
}

/// The number of the moment of that name.
pub fn named(name: &str) -> Option<usize> {
    MOMENTS.iter().position(|(known, _)| *known == name)
}

/// How often each came.
pub type Moments = [u64; MOMENTS.len()];

/// By the books of one device.
pub(super) fn of(book: &Book) -> Moments {
    MOMENTS.map(|(_, count)| count(book))
}
