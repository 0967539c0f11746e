//! Memory that changes its owner while its neighbour migrates: given back by one thread, and taken by another.
//!
//! ```text
//!   one VMA:  | neighbour: fought over by both tiles | given: emptied, unmapped, mapped anew |
//!   page       0                                      16                                     32
//! ```
//!
//! The neighbour keeps the mapping watched, where somebody watches. The taker maps the addresses as soon as it can, and
//! writes: these words are its own.

use super::process::{Process, act, outcome, signal};
use super::words::{self, Expected, Held, expected, mark, store, word};
use crate::finding::Finding;
use machine::checked::MapKind;
use machine::program::Batch;
use std::sync::Arc;
use units::{HostRange, SZ_64K, TileId};

/// Pages that both tiles write to.
const FOUGHT_OVER: [usize; 2] = [2, 9];
/// Pages that the taker writes to.
const TAKEN: [usize; 2] = [0, 7];
/// Batches of each tile, the first of them before the threads start.
const ROUNDS: u64 = 3;

const TAKER: u64 = 2;
const COUNTER: u64 = 3;
const LAST: u64 = 4;

/// Plays it, and judges what it leaves.
pub(super) fn play(process: &Arc<Process>) -> Result<(), Finding> {
    let stage = Arc::new(Stage::set(process.clone())?);
    let outcome = outcome([
        act(&stage, "tile 0's thread", |stage| stage.touch_by_tile(TileId(0))),
        act(&stage, "tile 1's thread", |stage| stage.touch_by_tile(TileId(1))),
        act(&stage, "giver", Stage::give),
        act(&stage, "taker", Stage::take),
    ]);
    let judged = words::judge(process, stage.words());
    // Lost data says more than the error that it led to.
    judged.and(outcome).and_then(|()| stage.touch_last()).and_then(|()| process.judge())
}

/// The memory before the threads start.
struct Stage {
    process: Arc<Process>,
    neighbour: HostRange,
    given: HostRange,
}

impl Stage {
    fn set(process: Arc<Process>) -> Result<Self, Finding> {
        let all = process.filled(32)?;
        let (neighbour, given) = (HostRange::sized(all.start, SZ_64K), HostRange::sized(all.start.add(SZ_64K), SZ_64K));
        let stage = Self { process, neighbour, given };
        for tile in [TileId(0), TileId(1)] {
            stage.process.run_batch(&stage.process.main, tile, &stage.fight(tile, 0))?;
        }
        Ok(stage)
    }

    fn fight(&self, tile: TileId, round: u64) -> Vec<u8> {
        let mut batch = Batch::default();
        store(&mut batch, self.neighbour, u64::from(tile.0), &FOUGHT_OVER, round);
        for page in FOUGHT_OVER {
            batch.increment(word(self.neighbour, page, COUNTER).mirror());
        }
        batch.end()
    }

    fn touch_by_tile(&self, tile: TileId) -> Result<(), Finding> {
        let program = self.process.thread();
        (1..ROUNDS).try_for_each(|round| self.process.run_batch(&program, tile, &self.fight(tile, round)))
    }

    fn give(&self) -> Result<(), Finding> {
        let sim = &self.process.checked.sim;
        sim.madvise_dontneed(self.given);
        sim.munmap(self.given);
        Ok(())
    }

    fn take(&self) -> Result<(), Finding> {
        let sim = &self.process.checked.sim;
        while sim.mmap_at(self.given, MapKind::Anonymous).is_err() {
            sync::yield_now();
        }
        for page in TAKEN {
            let store = sim.store_u64(word(self.given, page, TAKER), mark(TAKER, page, 0));
            store.map_err(|e| signal("the taker's touch", e))?;
        }
        Ok(())
    }

    fn words(&self) -> impl Iterator<Item = Expected> {
        expected(self.neighbour, 0, "tile 0", &FOUGHT_OVER, ROUNDS - 1, Held::Surely)
            .chain(expected(self.neighbour, 1, "tile 1", &FOUGHT_OVER, ROUNDS - 1, Held::Surely))
            .chain(expected(self.given, TAKER, "the taker", &TAKEN, 0, Held::Surely))
            .chain(words::counters(self.neighbour, COUNTER, &FOUGHT_OVER, 2 * ROUNDS))
    }

    /// One batch of tile 0 over all of it.
    fn touch_last(&self) -> Result<(), Finding> {
        let mut batch = Batch::default();
        store(&mut batch, self.neighbour, LAST, &FOUGHT_OVER, 0);
        store(&mut batch, self.given, LAST, &TAKEN, 0);
        self.process.run_batch(&self.process.main, TileId(0), &batch.end())?;
        let of = |block, pages| expected(block, LAST, "tile 0, when all was quiet,", pages, 0, Held::Surely);
        words::judge(&self.process, of(self.neighbour, &FOUGHT_OVER).chain(of(self.given, &TAKEN)))
    }
}
