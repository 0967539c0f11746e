//! Page-walk caches: where the tables of a tile lie, level by level, so that a walk begins near its end.
//!
//! An entry says that the table of a level for a stretch of addresses lies here. It was read from memory once and is
//! not looked at again: a table that is taken out and not flushed is walked on, whoever has it by then. A walk that
//! ends without a page by way of a cached table is done again from the root, and the entries are forgotten.
//!
//! A flush forgets, at every level, what covers an address of its range.

use units::{Dpa, GpuRange, GpuVa, set_bits};
use xe_spec::fault::Asid;
use xe_spec::pte::{COMPACT_ENTRIES, ENTRIES, LEVEL_SHIFT};

/// log2 of 64K.
pub(crate) const SHIFT_64K: u32 = 16;

/// Slots of a level (a power of two).
const SLOTS: usize = 16;
/// Levels whose tables are kept: those below the root.
pub(crate) const LEVELS: usize = LEVEL_SHIFT.len() - 1;

/// Where a walk goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stop {
    pub(crate) level: u8,
    pub(crate) table: Dpa,
    pub(crate) compact: bool,
}

impl Stop {
    /// log2 of the bytes that one of its entries covers.
    pub(crate) const fn shift(self) -> u32 {
        if self.compact { SHIFT_64K } else { LEVEL_SHIFT[self.level as usize] }
    }

    /// Entries that are used.
    pub(crate) const fn entries(self) -> usize {
        if self.compact { COMPACT_ENTRIES } else { ENTRIES }
    }
}

#[derive(Clone, Copy)]
struct Slot {
    asid: Asid,
    start: GpuVa,
    stop: Stop,
}

/// The caches of one tile.
pub(crate) struct WalkCache {
    levels: [[Option<Slot>; SLOTS]; LEVELS],
    /// Of each level, a bit for each slot that is taken.
    used: [u16; LEVELS],
}

impl WalkCache {
    pub(crate) const fn new() -> Self {
        Self { levels: [[None; SLOTS]; LEVELS], used: [0; LEVELS] }
    }

    /// The lowest table that is known for `addr`.
    pub(crate) fn lookup(&self, asid: Asid, addr: GpuVa) -> Option<Stop> {
        (0..LEVELS).find_map(|level| {
            let start = addr.align_down(bytes(level));
            let slot = self.levels[level][set(start, level)]?;
            (slot.asid == asid && slot.start == start).then_some(slot.stop)
        })
    }

    /// Keeps a table that a walk for `addr` went through.
    pub(crate) fn keep(&mut self, asid: Asid, addr: GpuVa, stop: Stop) {
        let level = stop.level as usize;
        if let Some(slots) = self.levels.get_mut(level) {
            let start = addr.align_down(bytes(level));
            slots[set(start, level)] = Some(Slot { asid, start, stop });
            self.used[level] |= 1 << set(start, level);
        }
    }

    /// Forgets the tables of `asid` that cover an address of `range`.
    pub(crate) fn flush(&mut self, asid: Asid, range: GpuRange) {
        for (level, (slots, used)) in self.levels.iter_mut().zip(&mut self.used).enumerate() {
            let covers = |slot: &Slot| slot.asid == asid && GpuRange::sized(slot.start, bytes(level)).overlaps(range);
            for number in set_bits(u64::from(*used)) {
                if slots[number].is_some_and(|slot| covers(&slot)) {
                    slots[number] = None;
                    *used &= !(1 << number);
                }
            }
        }
    }
}

/// Bytes that a table of `level` covers.
const fn bytes(level: usize) -> u64 {
    (ENTRIES as u64) << LEVEL_SHIFT[level]
}

fn set(start: GpuVa, level: usize) -> usize {
    (start.0 / bytes(level)) as usize & (SLOTS - 1)
}
