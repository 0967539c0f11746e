//! Buffers that several processes may have in VRAM: each of them is charged for all of one, and the sum counts it once.
//!
//! A buffer of a tile has an entry of these words, and a process that has it there has its mark in it:
//!
//! ```text
//!   most entries ever | entry 0: key, bytes, marks of slots 0..32, of 32..64, ... | entry 1: ...
//! ```
//!
//! * **Key**: which bytes, and which tile. While somebody makes the entry its own it has a mark of that process instead.
//! * **Marks**: a bit for each slot, in the lower half; the upper half counts marks that were added, and times that the entry was taken for
//!   another buffer. So who saw the key and then adds its mark notices when the entry was taken meanwhile.
//! * **Sum**: what a tile's processes were charged, less the bytes of each entry for every mark but one. A mark is added after the charge
//!   and goes before it, or with the process (`Pool::clear`); who adds up looks at the marks before and after, and leaves out what
//!   has changed. So the sum is never too small.
//!
//! An entry without marks is free. Who finds none has its buffer counted beside those of the others: too much is charged then, never
//! too little. So it is where two processes make an entry of the same buffer at the same time.
//!
//! Locking: none, and no wait.
//!
//! Upstream: a buffer is one object, whichever process has a handle of it.

use super::{MAX_DEVICES, MAX_PROCESSES, MAX_TILES, OF_A_TILE, Place, Pool, TILES};
use xe_kmd::{BytesId, Entry};

/// Entries that there are.
pub(super) const MOST: usize = 512;
const SLOTS_OF_A_WORD: usize = 32;
const MARKS: usize = MAX_PROCESSES / SLOTS_OF_A_WORD;
const OF_A_BUFFER: usize = 2 + MARKS;
/// Times that one mark is tried, while others take entries.
const TRIES: usize = 8;
/// The word with the number of entries that ever were some buffer's.
const ENTRIES: usize = TILES + MAX_DEVICES * MAX_TILES * OF_A_TILE;
/// The first word behind all of it.
pub(super) const END: usize = ENTRIES + 1 + MOST * OF_A_BUFFER;

/// A key's lowest bits, which say of which tile it is; inodes have fewer bits than what is left.
const PLACE_BITS: u32 = 8;
/// Of a key: a process, by its slot, makes the entry its own.
const TAKEN: u64 = 1 << 63;

/// Added to a word of marks when that changes.
const CHANGE: u64 = 1 << SLOTS_OF_A_WORD;

/// An entry.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Buffer(usize);

/// What an entry was at some time.
#[derive(PartialEq, Eq)]
pub(super) struct Seen {
    buffer: Buffer,
    key: u64,
    marks: u64,
    changes: u64,
}

impl Buffer {
    const fn key(self) -> usize {
        ENTRIES + 1 + self.0 * OF_A_BUFFER
    }

    const fn bytes(self) -> usize {
        self.key() + 1
    }

    fn marks(self) -> impl Iterator<Item = usize> {
        self.key() + 2..self.key() + OF_A_BUFFER
    }

    /// The word and the bit of a slot's mark.
    const fn mark(self, slot: usize) -> (usize, u64) {
        (self.key() + 2 + slot / SLOTS_OF_A_WORD, 1 << (slot % SLOTS_OF_A_WORD))
    }
}

const fn key_of(place: Place, id: BytesId) -> u64 {
    (id.inode << PLACE_BITS | place.0 as u64) & !TAKEN
}

const fn is_at(key: u64, place: Place) -> bool {
    key & TAKEN == 0 && key & ((1 << PLACE_BITS) - 1) == place.0 as u64
}

impl Pool {
    /// This process has that buffer on that tile, and is charged for it.
    pub(super) fn enter(&self, place: Place, bytes: u64, id: BytesId) -> Entry {
        let key = key_of(place, id);
        for _ in 0..TRIES {
            let Some(buffer) = self.find(key, bytes).or_else(|| self.take(key, bytes)) else { break };
            let (word, bit) = buffer.mark(self.slot);
            let marks = self.words.load(word);
            if marks & bit != 0 {
                // Another buffer of the same bytes is about to end here.
                break;
            }
            let marked = (marks | bit).wrapping_add(CHANGE);
            if self.words.load(buffer.key()) == key && self.words.compare_exchange(word, marks, marked) == marks {
                return Entry(Some(buffer.0 as u32));
            }
        }
        Entry(None)
    }

    /// It will be charged no more.
    pub(super) fn leave(&self, entry: Entry) {
        if let Some(entry) = entry.0 {
            self.unmark(Buffer(entry as usize), self.slot);
        }
    }

    fn unmark(&self, buffer: Buffer, slot: usize) {
        let (word, bit) = buffer.mark(slot);
        if self.words.load(word) & bit != 0 {
            self.words.add(word, bit.wrapping_neg());
        }
    }

    /// Takes the marks of a slot that nobody lives in.
    pub(super) fn unmark_all(&self, slot: usize) {
        for buffer in self.buffers() {
            self.unmark(buffer, slot);
            self.words.compare_exchange(buffer.key(), TAKEN | slot as u64, 0);
        }
    }

    /// The buffers of that tile that several processes have.
    pub(super) fn look(&self, place: Place) -> Vec<Seen> {
        let all = self.buffers().map(|buffer| self.see(buffer));
        all.filter(|seen| seen.marks > 1 && is_at(seen.key, place)).collect()
    }

    fn see(&self, buffer: Buffer) -> Seen {
        let words = buffer.marks().take(self.slots().len().div_ceil(SLOTS_OF_A_WORD)).map(|word| self.words.load(word));
        let (marks, changes) = words.fold((0, 0u64), |(marks, changes), word| {
            (marks + u64::from((word as u32).count_ones()), changes.wrapping_add(word >> SLOTS_OF_A_WORD))
        });
        Seen { buffer, key: self.words.load(buffer.key()), marks, changes }
    }

    /// What charges that were added up since then count too often. A buffer that came or went meanwhile counts for each.
    pub(super) fn counted_twice(&self, seen: &[Seen]) -> u64 {
        let still = seen.iter().filter(|seen| self.see(seen.buffer) == **seen);
        let twice = still.map(|seen| self.words.load(seen.buffer.bytes()).saturating_mul(seen.marks - 1));
        twice.fold(0, u64::saturating_add)
    }

    fn buffers(&self) -> impl Iterator<Item = Buffer> {
        (0..(self.words.load(ENTRIES) as usize).min(MOST)).map(Buffer)
    }

    /// The entry of that key. One of other bytes is of a buffer that is no more.
    fn find(&self, key: u64, bytes: u64) -> Option<Buffer> {
        let words = |buffer: &Buffer| [buffer.key(), buffer.bytes()].map(|word| self.words.load(word));
        self.buffers().find(|buffer| words(buffer) == [key, bytes])
    }

    /// Makes a free entry one of that key.
    fn take(&self, key: u64, bytes: u64) -> Option<Buffer> {
        let buffer = (0..MOST).map(Buffer).find(|buffer| self.try_take(*buffer))?;
        self.raise(ENTRIES, buffer.0 as u64 + 1);
        self.words.swap(buffer.bytes(), bytes);
        self.words.swap(buffer.key(), key);
        Some(buffer)
    }

    fn try_take(&self, buffer: Buffer) -> bool {
        let old = self.words.load(buffer.key());
        let is_free = old & TAKEN == 0 && buffer.marks().all(|word| self.words.load(word) as u32 == 0);
        if !is_free || self.words.compare_exchange(buffer.key(), old, TAKEN | self.slot as u64) != old {
            return false;
        }
        let is_unmarked = |word: usize| {
            let marks = self.words.load(word);
            marks as u32 == 0 && self.words.compare_exchange(word, marks, marks.wrapping_add(CHANGE)) == marks
        };
        let is_mine = buffer.marks().all(is_unmarked);
        if !is_mine {
            self.words.swap(buffer.key(), old);
        }
        is_mine
    }
}
