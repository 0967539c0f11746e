//! Page-table memory: one pool a tile, apart from the frames that hold pages, addressed by DPA.
//!
//! A pool takes host memory only for tables that were written. Entries that nobody wrote read as 0, which no
//! real VRAM promises: a driver that forgets to clear a fresh table is not found here, but one that reuses a
//! table without clearing it is.
//!
//! A driver that keeps its tables in memory of its own lends them: what is in no pool is asked of the bus
//! ([`Bus::table_entry`]), entry by entry.
//!
//! Locking: one reader-writer lock a pool. A walk holds that of the pool it is in shared for its few loads
//! ([`Reader`]), a write holds it exclusively: so a walk's loads from one pool and one [`Tables::write`] exclude each
//! other, and nothing finer is promised. A walk that goes on in another pool lets go of the first.

use crate::port::Bus;
use std::ops::Range;
use sync::rank::{self, Rank};
use sync::{RwLock, RwLockReadGuard, Told};
use units::Dpa;
use xe_spec::platform::Platform;
use xe_spec::pte::{ENTRIES, TABLE_BYTES};

type Table = Box<[u64; ENTRIES]>;

/// The pools of all tiles.
pub(crate) struct Tables {
    pools: Vec<Pool>,
}

impl Tables {
    pub(crate) fn new(platform: &Platform) -> Self {
        let pools = platform.tiles.iter().map(|tile| Pool {
            base: tile.tables_base,
            tables: tile.tables_size / TABLE_BYTES,
            written: rank::rwlock(Rank::LEAF, Vec::new()),
        });
        Self { pools: pools.collect() }
    }

    /// For one walk; `bus` answers for tables that lie outside of the pools.
    pub(crate) fn reader<'a>(&'a self, bus: &'a dyn Bus) -> Reader<'a> {
        Reader { tables: self, bus, held: None }
    }

    /// Writes consecutive entries; `false`, and nothing written, where they do not lie in one table of a pool.
    pub(crate) fn write(&self, table: Dpa, first: usize, entries: &[u64]) -> bool {
        let end = first.saturating_add(entries.len());
        let Some((pool, number)) = self.find(table).filter(|_| end <= ENTRIES) else { return false };
        let mut written = pool.written.write();
        sync::tell_exclusive(&written, groups(table, first..end).map(Told::Writes));
        if written.len() <= number {
            written.resize_with(number + 1, || None);
        }
        written[number].get_or_insert_with(|| Box::new([0; ENTRIES]))[first..end].copy_from_slice(entries);
        true
    }

    /// The pool of a table, and its number there.
    fn find(&self, table: Dpa) -> Option<(&Pool, usize)> {
        self.pools.iter().find_map(|pool| Some((pool, pool.number(table)?)))
    }
}

/// Entries that are told of together: a leaf of 64K has as many.
const GROUP: usize = 16;

/// Numbers for entries of a table, which are not 0.
fn groups(table: Dpa, entries: Range<usize>) -> impl Iterator<Item = u64> {
    (entries.start / GROUP..entries.end.div_ceil(GROUP)).map(move |group| (table.0 | group as u64) + 1)
}

/// One tile's pool.
struct Pool {
    base: Dpa,
    tables: u64,
    written: RwLock<Vec<Option<Table>>>,
}

impl Pool {
    /// Number of the table at `table`, if it is a table of this pool.
    fn number(&self, table: Dpa) -> Option<usize> {
        let inside = table.0.checked_sub(self.base.0)?;
        (table.is_aligned(TABLE_BYTES) && inside / TABLE_BYTES < self.tables).then_some((inside / TABLE_BYTES) as usize)
    }
}

/// A look at tables: the pool of the last entry stands still.
pub(crate) struct Reader<'a> {
    tables: &'a Tables,
    bus: &'a dyn Bus,
    held: Option<(&'a Pool, RwLockReadGuard<'a, Vec<Option<Table>>>)>,
}

impl Reader<'_> {
    /// One entry; `None` where there is no such table.
    pub(crate) fn entry(&mut self, table: Dpa, index: usize) -> Option<u64> {
        match self.words(table, index..index + 1) {
            Some(Some(words)) => words.get(index).copied(),
            Some(None) => (index < ENTRIES).then_some(0),
            None => (index < ENTRIES).then(|| self.bus.table_entry(table, index)).flatten(),
        }
    }

    /// The next entry from `index` on, below `end`, that is not 0, and where it stands.
    pub(crate) fn next_entry(&mut self, table: Dpa, index: usize, end: usize) -> Option<(usize, u64)> {
        match self.words(table, index..end) {
            Some(Some(words)) => {
                let rest = words.get(index..end)?;
                let empty = rest.chunks_exact(8).take_while(|words| words.iter().fold(0, |all, word| all | word) == 0);
                let skipped = 8 * empty.count();
                let place = skipped + rest[skipped..].iter().position(|word| *word != 0)?;
                Some((index + place, rest[place]))
            }
            Some(None) => None,
            None => (index..end).find_map(|at| Some((at, self.bus.table_entry(table, at).filter(|word| *word != 0)?))),
        }
    }

    /// The words of a table of a pool, which is held from now on; `Some(None)` where nobody wrote it, `None` where it is in no pool.
    fn words(&mut self, table: Dpa, entries: Range<usize>) -> Option<Option<&[u64; ENTRIES]>> {
        let here = self.held.as_ref().and_then(|(pool, _)| pool.number(table));
        let number = match here {
            Some(number) => number,
            None => {
                self.held = None;
                let (pool, number) = self.tables.find(table)?;
                self.held = Some((pool, pool.written.read()));
                number
            }
        };
        let (_, written) = self.held.as_ref()?;
        sync::tell_shared(written, groups(table, entries).map(Told::Reads));
        Some(written.get(number).and_then(Option::as_deref))
    }
}
