//! Words that simulated processes share, for the checker: every access is a step of the schedule.
//!
//! Locking: one leaf around all of it.

use super::{Budget, Evict, Pool, Server, WORDS};
use crate::interconnect::DeviceId;
use mm_live::Words;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use sync::rank::{self, Rank};
use sync::time::now_ns;
use sync::{Condvar, Mutex, SpawnError};
use units::TileId;
use xe_kmd::Budget as _;
use xe_spec::platform::Platform;

struct State {
    words: Vec<u64>,
    /// Which process has a lock.
    locks: BTreeMap<usize, u32>,
    stopped: BTreeSet<u32>,
}

/// All of them.
pub struct World {
    state: Mutex<State>,
    changed: Condvar,
}

impl World {
    /// As a new file has them.
    pub fn new() -> Arc<Self> {
        let state = State { words: vec![0; WORDS], locks: BTreeMap::new(), stopped: BTreeSet::new() };
        Arc::new(Self { state: rank::mutex(Rank::LEAF, state), changed: Condvar::new() })
    }

    /// What a process sees of them.
    pub fn process(self: &Arc<Self>, number: u32) -> Arc<Process> {
        Arc::new(Process { world: self.clone(), number })
    }

    /// A process is killed: its locks go.
    pub fn kill(&self, number: u32) {
        self.state.lock().locks.retain(|_, owner| *owner != number);
    }

    /// A process is stopped: nothing here keeps it from running but its own good will.
    pub fn stop(&self, number: u32) {
        self.state.lock().stopped.insert(number);
    }

    fn change(&self, word: usize, new: impl FnOnce(u64) -> u64) -> u64 {
        let words = &mut self.state.lock().words;
        let old = words[word];
        words[word] = new(old);
        old
    }
}

/// One process's view.
pub struct Process {
    world: Arc<World>,
    number: u32,
}

impl Words for Process {
    fn load(&self, word: usize) -> u64 {
        self.world.state.lock().words[word]
    }
    fn swap(&self, word: usize, value: u64) -> u64 {
        self.world.change(word, |_| value)
    }
    fn add(&self, word: usize, value: u64) -> u64 {
        self.world.change(word, |old| old.wrapping_add(value))
    }
    fn compare_exchange(&self, word: usize, old: u64, new: u64) -> u64 {
        self.world.change(word, |now| if now == old { new } else { now })
    }
    fn wait(&self, word: usize, seen: u64, until_ns: u64) {
        let mut state = self.world.state.lock();
        if state.words[word] as u32 == seen as u32 {
            self.world.changed.wait_until(&mut state, until_ns);
        }
    }
    fn wake(&self, _: usize) {
        self.world.changed.notify_all();
    }
    fn try_lock(&self, lock: usize) -> bool {
        *self.world.state.lock().locks.entry(lock).or_insert(self.number) == self.number
    }
    fn unlock(&self, lock: usize) {
        self.world.state.lock().locks.remove(&lock);
    }
    fn process(&self) -> u32 {
        self.number
    }
    fn is_stopped(&self, process: u32) -> bool {
        self.world.state.lock().stopped.contains(&process)
    }
}

/// Another process that uses the first device: it takes VRAM, and gives what it is asked for.
pub struct Neighbour {
    holds: Arc<Holds>,
    server: Server,
}

/// Times that it asks for what it takes.
const TRIES: usize = 16;

struct Holds {
    budget: Budget,
    bytes: Mutex<BTreeMap<TileId, u64>>,
}

impl Neighbour {
    /// It opens the device.
    ///
    /// # Errors
    /// The system gave no thread; or there are too many processes.
    pub fn start(words: Arc<Process>, platforms: &[&Platform]) -> Result<Self, SpawnError> {
        let pool = Pool::join(words, platforms).ok_or(SpawnError)?;
        let budget = Budget { pool: pool.clone(), device: DeviceId(0) };
        let holds = Arc::new(Holds { budget, bytes: Mutex::new(BTreeMap::new()) });
        let server = Server::start(&pool, holds.clone())?;
        Ok(Self { holds, server })
    }

    /// Takes so much more of a tile's VRAM; false where it did not get that.
    pub fn take(&self, tile: TileId, bytes: u64) -> bool {
        let budget = &self.holds.budget;
        let fits = |_| {
            let fits = budget.try_charge(tile, bytes);
            if !fits {
                budget.make_room(tile, bytes, u64::MAX);
            }
            fits
        };
        let has = (0..TRIES).any(fits);
        if has {
            *self.holds.bytes.lock().entry(tile).or_default() += bytes;
            budget.note_oldest(tile, now_ns());
        }
        has
    }

    /// Gives so much of it back, as far as it has that.
    pub fn give(&self, tile: TileId, bytes: u64) {
        self.holds.evict(DeviceId(0), tile, bytes);
    }

    /// What it has.
    pub fn has(&self, tile: TileId) -> u64 {
        self.holds.bytes.lock().get(&tile).copied().unwrap_or(0)
    }

    /// What the others have, by the words.
    pub fn sees(&self, tile: TileId) -> u64 {
        self.holds.budget.used_by_others(tile)
    }

    /// It ends.
    pub fn stop(&self) {
        self.server.stop();
    }
}

impl Evict for Arc<Holds> {
    fn evict(&self, _: DeviceId, tile: TileId, bytes: u64) {
        let mut all = self.bytes.lock();
        let has = all.entry(tile).or_default();
        let gives = bytes.min(*has);
        *has -= gives;
        drop(all);
        self.budget.uncharge(tile, gives);
    }
}
