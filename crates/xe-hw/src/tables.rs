//! Page-table memory: one pool a tile, apart from the frames that hold pages, addressed by DPA.
//!
//! A pool takes host memory only for those pieces of tables that were written. Entries that nobody wrote read as 0, which no
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

/// Entries that are kept together.
const PIECE: usize = 64;

/// Tables that a pool takes memory for at first.
const FIRST_TABLES: usize = 32;

/// Pieces that a pool takes memory for at first.
const FIRST_PIECES: usize = 32;

type Piece = [u64; PIECE];

/// Where the pieces of a table are in which something was written: their places among all, from 1; 0 for none.
#[derive(Clone, Copy, Default)]
struct Table([u32; ENTRIES / PIECE]);

/// What was written to the tables of a pool.
#[derive(Default)]
struct Written {
    /// By number, as far up as anybody wrote.
    tables: Vec<Table>,
    /// Of all of them.
    pieces: Vec<Piece>,
}

impl Written {
    fn piece(&self, table: usize, n: usize) -> Option<&Piece> {
        let place = self.tables.get(table)?.0[n];
        self.pieces.get((place as usize).checked_sub(1)?)
    }

    fn piece_mut(&mut self, table: usize, n: usize) -> &mut Piece {
        if self.tables.len() <= table {
            if self.tables.is_empty() {
                self.tables.reserve(FIRST_TABLES);
            }
            self.tables.resize(table + 1, Table::default());
        }
        let place = &mut self.tables[table].0[n];
        if *place == 0 {
            if self.pieces.is_empty() {
                self.pieces.reserve(FIRST_PIECES);
            }
            self.pieces.push([0; PIECE]);
            *place = self.pieces.len() as u32;
        }
        &mut self.pieces[*place as usize - 1]
    }

    /// One entry; there are so many.
    fn entry(&self, table: usize, index: usize) -> u64 {
        self.piece(table, index / PIECE).map_or(0, |piece| piece[index % PIECE])
    }

    /// Writes consecutive entries, which are there.
    fn write(&mut self, table: usize, first: usize, mut entries: &[u64]) {
        let mut at = first;
        while !entries.is_empty() {
            let piece = &mut self.piece_mut(table, at / PIECE)[at % PIECE..];
            let here = piece.len().min(entries.len());
            piece[..here].copy_from_slice(&entries[..here]);
            (at, entries) = (at + here, &entries[here..]);
        }
    }

    /// The next entry from `index` on, below `end`, that is not 0, and where it stands.
    fn next_entry(&self, table: usize, index: usize, end: usize) -> Option<(usize, u64)> {
        (index / PIECE..end.div_ceil(PIECE)).find_map(|n| {
            let (start, piece) = (n * PIECE, self.piece(table, n)?);
            let (from, to) = (index.max(start) - start, (end - start).min(PIECE));
            let place = from + piece.get(from..to)?.iter().position(|word| *word != 0)?;
            Some((start + place, piece[place]))
        })
    }
}

/// The pools of all tiles.
pub(crate) struct Tables {
    pools: Vec<Pool>,
}

impl Tables {
    pub(crate) fn new(platform: &Platform) -> Self {
        let pools = platform.tiles.iter().map(|tile| Pool {
            base: tile.tables_base,
            tables: tile.tables_size / TABLE_BYTES,
            written: rank::rwlock(Rank::LEAF, Written::default()),
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
        written.write(number, first, entries);
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
    written: RwLock<Written>,
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
    held: Option<(&'a Pool, RwLockReadGuard<'a, Written>)>,
}

impl Reader<'_> {
    /// One entry; `None` where there is no such table.
    pub(crate) fn entry(&mut self, table: Dpa, index: usize) -> Option<u64> {
        match self.table(table, index..index + 1) {
            Some((written, number)) => (index < ENTRIES).then(|| written.entry(number, index)),
            None => (index < ENTRIES).then(|| self.bus.table_entry(table, index)).flatten(),
        }
    }

    /// As many consecutive entries as `words` has room for, which are in one table and, where it is in a pool, were written together; false
    /// where they are not to be had at once.
    pub(crate) fn group(&mut self, table: Dpa, first: usize, words: &mut [u64]) -> bool {
        let entries = first..first + words.len();
        let Some((written, number)) = self.table(table, entries) else { return false };
        let piece = written.piece(number, first / PIECE);
        let found = piece.and_then(|piece| piece.get(first % PIECE..first % PIECE + words.len()));
        found.map(|found| words.copy_from_slice(found)).is_some()
    }

    /// The next entry from `index` on, below `end`, that is not 0, and where it stands.
    pub(crate) fn next_entry(&mut self, table: Dpa, index: usize, end: usize) -> Option<(usize, u64)> {
        match self.table(table, index..end) {
            Some((written, number)) => written.next_entry(number, index, end.min(ENTRIES)),
            None => (index..end).find_map(|at| Some((at, self.bus.table_entry(table, at).filter(|word| *word != 0)?))),
        }
    }

    /// The pool of a table, which is held from now on, and its number there; `None` where it is in no pool.
    fn table(&mut self, table: Dpa, entries: Range<usize>) -> Option<(&Written, usize)> {
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
        Some((written, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_what_was_written_and_zeros() {
        let mut written = Written::default();
        written.write(1, PIECE - 2, &[1, 2, 3]);
        written.write(1, ENTRIES - 1, &[4]);
        written.write(3, 0, &[5]);
        let indexes = [0, PIECE - 2, PIECE, PIECE + 1, ENTRIES - 1];
        assert_eq!(indexes.map(|index| written.entry(1, index)), [0, 1, 3, 0, 4]);
        assert_eq!([0, 2, 3, 4].map(|table| written.entry(table, 0)), [0, 0, 5, 0]);
        let found = |index, end| written.next_entry(1, index, end);
        assert_eq!(found(0, ENTRIES), Some((PIECE - 2, 1)));
        assert_eq!(found(PIECE, ENTRIES), Some((PIECE, 3)));
        assert_eq!(found(PIECE + 1, ENTRIES), Some((ENTRIES - 1, 4)));
        assert_eq!([found(PIECE + 1, ENTRIES - 1), found(0, PIECE - 2), found(9, 8)], [None; 3]);
    }
}
