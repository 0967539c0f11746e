//! The thread by which a process evicts for others.
//!
//! It takes none of the driver's locks but for those that an eviction takes, so whoever waits for it waits for no thread
//! that may itself wait for another process.
//!
//! Locking: none that it takes itself: it sleeps on the count of requests.

use super::{MAX_TILES, Place, Pool, Row, asked, served};
use crate::interconnect::DeviceId;
use crate::wiring::Core;
use std::sync::{Arc, Weak};
use sync::atomic::AtomicBool;
use sync::{JoinHandle, Mutex, SpawnError};
use units::TileId;

/// Evicts from VRAM what another process needs.
pub trait Evict: Send + Sync + 'static {
    /// Sends so many bytes of what was used the longest time ago to system memory, as far as it can.
    fn evict(&self, device: DeviceId, tile: TileId, bytes: u64);
}

/// The devices of a machine.
pub(crate) struct Cores(Vec<Weak<Core>>);

impl Cores {
    /// These.
    pub fn of(cores: &[Arc<Core>]) -> Self {
        Self(cores.iter().map(Arc::downgrade).collect())
    }
}

impl Evict for Cores {
    fn evict(&self, device: DeviceId, tile: TileId, bytes: u64) {
        if let Some(core) = self.0.get(usize::from(device.0)).and_then(Weak::upgrade) {
            core.device().evict(tile, bytes);
        }
    }
}

/// The thread.
pub struct Server {
    pool: Arc<Pool>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle>>,
}

impl Server {
    /// Begins.
    ///
    /// # Errors
    /// The system gave no thread.
    pub fn start(pool: &Arc<Pool>, memory: impl Evict) -> Result<Self, SpawnError> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = sync::try_spawn_daemon("evict", {
            let (pool, stop) = (pool.clone(), stop.clone());
            move || {
                while !stop.load() {
                    pool.serve(&memory);
                }
            }
        })?;
        Ok(Self { pool: pool.clone(), stop, thread: Mutex::new(Some(thread)) })
    }

    /// Ends, once nothing is being evicted.
    pub fn stop(&self) {
        self.stop.store(true);
        self.pool.ring();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            thread.join();
        }
    }
}

impl Pool {
    /// Waits for a request and serves what was asked for so far.
    fn serve(&self, memory: &impl Evict) {
        let count = self.words.load(asked(self.slot));
        if count == self.words.load(served(self.slot)) {
            self.words.wait(asked(self.slot), count, u64::MAX);
            return;
        }
        for place in (0..self.sizes.len()).map(Place) {
            let bytes = self.words.swap(place.word(Row::Wanted, self.slot), 0);
            if bytes > 0 {
                let (device, tile) = (place.0 / MAX_TILES, place.0 % MAX_TILES);
                memory.evict(DeviceId(device as u8), TileId(tile as u8), bytes);
            }
        }
        self.words.swap(served(self.slot), count);
        self.words.wake(served(self.slot));
    }

    /// Asks this process itself for nothing.
    fn ring(&self) {
        self.words.add(asked(self.slot), 1);
        self.words.wake(asked(self.slot));
    }
}
