//! The VRAM that the processes of a run share: how much of it each has, how old that is, and who asks whom for some.
//!
//! Each process has a machine of its own, and gives out device addresses of its own. What they share is the amount, in words that
//! all of them see ([`Words`]). A process has a slot of these:
//!
//! ```text
//!   most slots ever | next client |  slot 0: asked, served, process | slot 1: ...   a word each
//!   tile 0 of device 0:  turn | used by slot 0, slot 1, ... | oldest of slot 0, ... | wanted of slot 0, ...
//!   tile 1 ...
//!   buffers that processes have together ([`buffers`])
//! ```
//!
//! * **Charge**: a process adds to its own `used`, then adds up those of all: where that is more than there is, it takes its
//!   own back. Two that try at once may both give way, and ask; none ever has too much.
//! * **Turn**: who finds no room takes the tile's turn, until its charge fits: nobody else charges anything meanwhile, so what others
//!   evict for it is its own. A turn is over by itself after [`TURN_NS`].
//! * **Ask**: it asks the process whose oldest block is the oldest of all: it adds to its `wanted`, counts its `asked`
//!   up, and sleeps until `served` has come as far. A thread of the asked process ([`Server`]) evicts.
//! * **Death**: a slot is a process's as long as that has a lock which the kernel takes away with it. Whoever finds no room, or
//!   tells how much is used, tries the locks of the others: one that it gets is a dead process's, whose words it clears.
//!
//! Nobody holds anything of the pool while it waits for another process, and what is done under a slot's lock is a few stores. So
//! a process that is stopped keeps what it has, and blocks nobody: it is not asked, as if its VRAM were pinned, and its turn
//! passes. Who has asked one in vain for [`PATIENCE_NS`] does not wait for it again until it has served something.
//!
//! Locking: `clearing` is held over a few stores, to keep this process's threads apart: to the kernel they are one.
//!
//! Upstream: one `ttm_resource_manager` a tile with one list by age for all clients (`ttm_bo_evict_first`); the count by client is
//! the dmem cgroup's; the turn is what `xe_validation.c` calls exhaustive eviction.

mod buffers;
mod server;
pub mod simulated;
#[cfg(test)]
mod tests;

pub(crate) use server::Cores;
pub use server::{Evict, Server};

use crate::interconnect::DeviceId;
use crate::profile::MAX_DEVICES;
use mm_live::Words;
use std::sync::Arc;
use sync::Mutex;
use sync::atomic::AtomicU64;
use sync::rank::{self, Rank};
use sync::time::{after_ns, now_ns, sleep_ns};
use units::TileId;
use xe_kmd::{BytesId, Entry, Room};
use xe_spec::platform::Platform;

/// Nothing is taken under it but what simulated words are kept by.
const CLEARING: Rank = Rank::level(62);
/// Processes that may use the devices at the same time.
pub const MAX_PROCESSES: usize = 512;
/// How long a process is waited for that was asked for VRAM and runs: on a busy machine its thread was seen to get no CPU for ten seconds.
pub const PATIENCE_NS: u64 = 60_000_000_000;
/// How long a process may keep others from charging.
pub const TURN_NS: u64 = 50_000_000;
/// The most that is asked for at once, so that it is served in time.
const PIECE: u64 = 32 << 20;
/// How long to wait where a process that was asked could give nothing.
const PAUSE_NS: u64 = 5_000_000;
/// How often a process that is waited for is looked at: it may be dead, or stopped.
const LOOK_NS: u64 = 5_000_000;

const MAX_TILES: usize = 4;
/// The word with the number of slots that ever had a process.
const SLOTS: usize = 0;
/// The word with the number of clients that ever were.
const CLIENTS: usize = 1;
/// Where the slots' own words begin, three each.
const BELLS: usize = 2;
/// Where the tiles' words begin: for each tile a row of each kind.
const TILES: usize = BELLS + 3 * MAX_PROCESSES;

/// What is known of a process on a tile.
#[derive(Clone, Copy)]
enum Row {
    /// Bytes that it has.
    Used,
    /// When the oldest of that was used.
    Oldest,
    /// Bytes that others want of it.
    Wanted,
}

const ROWS: usize = 3;
/// Words of a tile.
const OF_A_TILE: usize = 1 + ROWS * MAX_PROCESSES;

/// Words of a pool.
pub const WORDS: usize = buffers::END;

/// A tile of a device.
#[derive(Clone, Copy)]
struct Place(usize);

impl Place {
    const fn of(device: DeviceId, tile: TileId) -> Self {
        Self(device.0 as usize * MAX_TILES + tile.0 as usize)
    }

    const fn word(self, row: Row, slot: usize) -> usize {
        self.turn() + 1 + row as usize * MAX_PROCESSES + slot
    }

    /// The word of its [`Turn`].
    const fn turn(self) -> usize {
        TILES + self.0 * OF_A_TILE
    }
}

/// Whose turn a tile is: until when, and one more than the slot in the lowest bits; 0: nobody's.
#[derive(Clone, Copy)]
struct Turn(u64);

impl Turn {
    const SLOT: u64 = (2 * MAX_PROCESSES - 1) as u64;

    const fn until(end_ns: u64, slot: usize) -> Self {
        Self(end_ns & !Self::SLOT | (slot as u64 + 1))
    }

    const fn end_ns(self) -> u64 {
        self.0 & !Self::SLOT
    }

    const fn is_of(self, slot: usize) -> bool {
        self.0 & Self::SLOT == slot as u64 + 1
    }

    const fn is_of_another(self, slot: usize) -> bool {
        self.0 != 0 && !self.is_of(slot)
    }
}

/// Requests that a process was sent, counted.
const fn asked(slot: usize) -> usize {
    BELLS + 3 * slot
}

/// Those of them that it has served.
const fn served(slot: usize) -> usize {
    BELLS + 3 * slot + 1
}

/// The process's number.
const fn process(slot: usize) -> usize {
    BELLS + 3 * slot + 2
}

/// The VRAM of a run's devices, as one of its processes shares it.
pub struct Pool {
    words: Arc<dyn Words>,
    /// This process's.
    slot: usize,
    /// Bytes of VRAM, by place.
    sizes: Vec<u64>,
    /// Of each slot what it had served when it was waited for in vain, one more.
    vain: Vec<AtomicU64>,
    clearing: Mutex<()>,
}

impl Pool {
    /// Takes a free slot; `None` where there is none. All processes have the same devices.
    pub fn join(words: Arc<dyn Words>, platforms: &[&Platform]) -> Option<Arc<Self>> {
        let slot = (0..MAX_PROCESSES).find(|&slot| words.try_lock(slot))?;
        let mut sizes = vec![0; MAX_DEVICES * MAX_TILES];
        for (device, platform) in (0..).zip(platforms) {
            for (tile, facts) in (0..).zip(platform.tiles) {
                sizes[Place::of(DeviceId(device), TileId(tile)).0] = facts.vram_size;
            }
        }
        let vain = (0..MAX_PROCESSES).map(|_| AtomicU64::new(0)).collect();
        let pool = Self { words, slot, sizes, vain, clearing: rank::mutex(CLEARING, ()) };
        pool.clear(slot);
        pool.words.swap(process(slot), pool.words.process().into());
        pool.raise(SLOTS, slot as u64 + 1);
        Some(Arc::new(pool))
    }

    /// Raises a number to `least`. Others may raise it at the same time; it never falls.
    fn raise(&self, word: usize, least: u64) {
        let mut seen = self.words.load(word);
        while seen < least {
            let was = self.words.compare_exchange(word, seen, least);
            seen = if was == seen { least } else { was };
        }
    }

    /// Nobody lives in a slot whose lock this process has: it has nothing, and nobody waits for it.
    fn clear(&self, slot: usize) {
        self.unmark_all(slot);
        for place in (0..self.sizes.len()).map(Place) {
            self.words.swap(place.word(Row::Used, slot), 0);
            self.words.swap(place.word(Row::Wanted, slot), 0);
            self.words.swap(place.word(Row::Oldest, slot), u64::MAX);
        }
        self.words.swap(served(slot), self.words.load(asked(slot)));
        self.words.wake(served(slot));
    }

    fn slots(&self) -> std::ops::Range<usize> {
        0..(self.words.load(SLOTS) as usize).min(MAX_PROCESSES)
    }

    fn others(&self) -> impl Iterator<Item = usize> {
        self.slots().filter(|slot| *slot != self.slot)
    }

    fn used(&self, place: Place, slot: usize) -> u64 {
        self.words.load(place.word(Row::Used, slot))
    }

    /// What all slots have together, but for one.
    fn sum(&self, place: Place, without: Option<usize>) -> u64 {
        let seen = self.look(place);
        let slots = self.slots().filter(|slot| Some(*slot) != without);
        let sum = slots.fold(0, |sum: u64, slot| sum.saturating_add(self.used(place, slot)));
        sum.saturating_sub(self.counted_twice(&seen))
    }

    fn used_by_all(&self, place: Place) -> u64 {
        self.sum(place, None)
    }

    /// Charges so many bytes, of that buffer if it is one that others may have.
    fn try_charge(&self, place: Place, bytes: u64, id: Option<BytesId>) -> Option<Entry> {
        let turn = Turn(self.words.load(place.turn()));
        if turn.is_of_another(self.slot) && turn.end_ns() > now_ns() {
            return None;
        }
        self.words.add(place.word(Row::Used, self.slot), bytes);
        let entry = id.map_or(Entry::NONE, |id| self.enter(place, bytes, id));
        let fits = self.used_by_all(place) <= self.sizes[place.0];
        if !fits {
            self.leave(entry);
            self.uncharge(place, bytes);
        } else if turn.is_of(self.slot) {
            self.words.compare_exchange(place.turn(), turn.0, 0);
            self.words.wake(place.turn());
        }
        fits.then_some(entry)
    }

    /// Takes the tile's turn, or keeps it; false where others have it all the time.
    fn take_turn(&self, place: Place) -> bool {
        let deadline = after_ns(PATIENCE_NS);
        loop {
            let now = now_ns();
            let turn = Turn(self.words.load(place.turn()));
            if !turn.is_of_another(self.slot) || turn.end_ns() <= now {
                let mine = Turn::until(now + TURN_NS, self.slot);
                if self.words.compare_exchange(place.turn(), turn.0, mine.0) == turn.0 {
                    return true;
                }
            } else if now >= deadline {
                return false;
            } else {
                self.words.wait(place.turn(), turn.0, turn.end_ns().min(deadline));
            }
        }
    }

    fn uncharge(&self, place: Place, bytes: u64) {
        self.words.add(place.word(Row::Used, self.slot), bytes.wrapping_neg());
    }

    fn used_by_others(&self, place: Place) -> u64 {
        self.bury(place);
        self.sum(place, Some(self.slot))
    }

    /// Clears the slots of processes that died with VRAM of that place; whether there were any.
    fn bury(&self, place: Place) -> bool {
        let holders = self.others().filter(|slot| self.used(place, *slot) > 0);
        holders.filter(|slot| self.bury_one(*slot)).count() > 0
    }

    fn bury_one(&self, slot: usize) -> bool {
        let _alone = self.clearing.lock();
        let is_dead = self.words.try_lock(slot);
        if is_dead {
            self.clear(slot);
            self.words.unlock(slot);
        }
        is_dead
    }

    fn make_room(&self, place: Place, bytes: u64, oldest_ns: u64) -> Room {
        let missing = || self.used_by_all(place).saturating_add(bytes).saturating_sub(self.sizes[place.0]);
        if self.bury(place) || !self.take_turn(place) || missing() == 0 {
            return Room::Theirs;
        }
        let oldest = |slot: &usize| self.words.load(place.word(Row::Oldest, *slot));
        let may_give = |slot: &usize| self.used(place, *slot) > 0 && !self.is_silent(*slot);
        let holder = self.others().filter(may_give).min_by_key(oldest);
        let Some(slot) = holder.filter(|slot| oldest(slot) <= oldest_ns) else { return Room::Ours };
        let before = missing();
        if before > 0 {
            self.ask(place, slot, before.min(PIECE));
            if missing() >= before {
                // What it has is on its way, perhaps.
                sleep_ns(PAUSE_NS);
            }
        }
        Room::Theirs
    }

    /// Whether a process is stopped, or was waited for in vain and has served nothing since.
    fn is_silent(&self, slot: usize) -> bool {
        self.is_stopped(slot) || self.vain[slot].load() == self.words.load(served(slot)) + 1
    }

    fn is_stopped(&self, slot: usize) -> bool {
        self.words.is_stopped(self.words.load(process(slot)) as u32)
    }

    /// Asks a process for so many bytes, and waits until it has done what it can, is dead or stopped, or has done nothing for too long.
    fn ask(&self, place: Place, slot: usize, bytes: u64) {
        self.words.add(place.word(Row::Wanted, slot), bytes);
        let number = self.words.add(asked(slot), 1) + 1;
        self.words.wake(asked(slot));
        let deadline = after_ns(PATIENCE_NS);
        loop {
            let so_far = self.words.load(served(slot));
            if so_far >= number || self.bury_one(slot) || self.is_stopped(slot) {
                return;
            }
            let now = now_ns();
            if now >= deadline {
                return self.vain[slot].store(so_far + 1);
            }
            self.words.wait(served(slot), so_far, deadline.min(now + LOOK_NS));
        }
    }
}

/// A device's part of the pool.
pub struct Budget {
    /// The whole of it.
    pub pool: Arc<Pool>,
    /// The device.
    pub device: DeviceId,
}

impl Budget {
    fn place(&self, tile: TileId) -> Place {
        Place::of(self.device, tile)
    }
}

impl xe_kmd::Budget for Budget {
    fn try_charge(&self, tile: TileId, bytes: u64) -> bool {
        self.pool.try_charge(self.place(tile), bytes, None).is_some()
    }
    fn try_charge_buffer(&self, tile: TileId, bytes: u64, id: BytesId) -> Option<Entry> {
        self.pool.try_charge(self.place(tile), bytes, Some(id))
    }
    fn enter(&self, tile: TileId, bytes: u64, id: BytesId) -> Entry {
        self.pool.enter(self.place(tile), bytes, id)
    }
    fn leave(&self, entry: Entry) {
        self.pool.leave(entry);
    }
    fn uncharge(&self, tile: TileId, bytes: u64) {
        self.pool.uncharge(self.place(tile), bytes);
    }
    fn note_oldest(&self, tile: TileId, used_ns: u64) {
        self.pool.words.swap(self.place(tile).word(Row::Oldest, self.pool.slot), used_ns);
    }
    fn make_room(&self, tile: TileId, bytes: u64, oldest_ns: u64) -> Room {
        self.pool.make_room(self.place(tile), bytes, oldest_ns)
    }
    fn used_by_others(&self, tile: TileId) -> u64 {
        self.pool.used_by_others(self.place(tile))
    }
    fn next_client(&self) -> u64 {
        self.pool.words.add(CLIENTS, 1) + 1
    }
}
