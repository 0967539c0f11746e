//! Page-table memory: one pool a tile, apart from the frames that hold pages, addressed by DPA.
//!
//! A pool takes host memory only for tables that were written. Entries that nobody wrote read as 0, which no
//! real VRAM promises: a driver that forgets to clear a fresh table is not found here, but one that reuses a
//! table without clearing it is.
//!
//! Locking: one reader-writer lock over all pools. A walk holds it shared for its few loads, a write holds it
//! exclusively: so one walk and one [`Tables::write`] exclude each other, and nothing finer is promised.

use sync::RwLock;
use sync::rank::{self, Rank};
use units::Dpa;
use xe_spec::platform::Platform;
use xe_spec::pte::{ENTRIES, TABLE_BYTES};

type Table = Box<[u64; ENTRIES]>;

/// The pools of all tiles.
pub(crate) struct Tables {
    pools: RwLock<Pools>,
}

impl Tables {
    pub(crate) fn new(platform: &Platform) -> Self {
        let pools = platform.tiles.iter().map(|tile| Pool {
            base: tile.tables_base,
            tables: tile.tables_size / TABLE_BYTES,
            written: Vec::new(),
        });
        Self { pools: rank::rwlock(Rank::LEAF, Pools(pools.collect())) }
    }

    /// Runs `body` with the pools standing still.
    pub(crate) fn read<R>(&self, body: impl FnOnce(&Pools) -> R) -> R {
        body(&self.pools.read())
    }

    /// Writes consecutive entries; `false`, and nothing written, where they do not lie in one table of a pool.
    pub(crate) fn write(&self, table: Dpa, first: usize, entries: &[u64]) -> bool {
        let end = first.saturating_add(entries.len());
        let mut pools = self.pools.write();
        match pools.table_mut(table) {
            Some(words) if end <= ENTRIES => words[first..end].copy_from_slice(entries),
            _ => return false,
        }
        true
    }
}

/// All pools, standing still.
pub(crate) struct Pools(Vec<Pool>);

struct Pool {
    base: Dpa,
    tables: u64,
    written: Vec<Option<Table>>,
}

impl Pool {
    /// Number of the table at `table`, if it is a table of this pool.
    fn number(&self, table: Dpa) -> Option<usize> {
        let inside = table.0.checked_sub(self.base.0)?;
        (table.is_aligned(TABLE_BYTES) && inside / TABLE_BYTES < self.tables).then_some((inside / TABLE_BYTES) as usize)
    }
}

impl Pools {
    /// One entry; `None` where there is no such table.
    pub(crate) fn entry(&self, table: Dpa, index: usize) -> Option<u64> {
        let (pool, number) = self.0.iter().find_map(|pool| Some((pool, pool.number(table)?)))?;
        match pool.written.get(number) {
            Some(Some(words)) => words.get(index).copied(),
            _ => (index < ENTRIES).then_some(0),
        }
    }

    fn table_mut(&mut self, table: Dpa) -> Option<&mut Table> {
        let (pool, number) = self.0.iter_mut().find_map(|pool| pool.number(table).map(|number| (pool, number)))?;
        if pool.written.len() <= number {
            pool.written.resize_with(number + 1, || None);
        }
        Some(pool.written[number].get_or_insert_with(|| Box::new([0; ENTRIES])))
    }
}
