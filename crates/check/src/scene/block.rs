//! One block, touched by both tiles and a CPU thread, while an unmapper takes its neighbour away.
//!
//! ```text
//!   one VMA:  | block: 4 of 16 pages used by all three touchers | neighbour: in VRAM0, unmapped meanwhile |
//!   in each page:  word 0 tile 0's, word 1 tile 1's, word 2 the CPU's, word 3 a counter that all of them add to
//! ```
//!
//! GPU atomics and the CPU's meet in word 3, so a write that is lost while the page travels is seen as a count that
//! is short.

use super::process::{Process, act, outcome, signal};
use super::words::{self, Expected, Held, mark, word};
use crate::finding::Finding;
use machine::checked::MapKind;
use machine::program::Batch;
use std::sync::Arc;
use units::{HostRange, SZ_64K, TileId};

/// Pages of the block that are touched, spread over it.
const TOUCHED: [usize; 4] = [0, 5, 10, 15];
/// Times that each toucher adds to a page's counter.
const ROUNDS: u64 = 2;

/// Plays it, and judges what it leaves.
pub(super) fn play(process: &Arc<Process>) -> Result<(), Finding> {
    let stage = Arc::new(Stage::set(process.clone())?);
    let outcome = outcome([
        act(&stage, "tile 0's thread", |stage| stage.touch_by_tile(TileId(0))),
        act(&stage, "tile 1's thread", |stage| stage.touch_by_tile(TileId(1))),
        act(&stage, "CPU thread", Stage::touch_by_cpu),
        act(&stage, "unmapper", Stage::unmap_neighbour),
    ]);
    // Lost data says more than the error that it led to.
    words::judge(process, stage.words()).and_then(|()| process.judge()).and(outcome)
}

/// The memory before the threads start.
struct Stage {
    process: Arc<Process>,
    block: HostRange,
    neighbour: HostRange,
}

impl Stage {
    /// The block in system memory, its neighbour in VRAM0.
    fn set(process: Arc<Process>) -> Result<Self, Finding> {
        let sim = &process.checked.sim;
        let all = sim.mmap(32, MapKind::Anonymous);
        let (block, neighbour) = (HostRange::sized(all.start, SZ_64K), HostRange::sized(all.start.add(SZ_64K), SZ_64K));
        for page in 0..all.pages() {
            sim.store_u64(all.page_at(page), 0).map_err(|e| signal("first touch", e))?;
        }
        let mut batch = Batch::default();
        batch.store(neighbour.start.mirror(), 1);
        process.run_batch(&process.main, TileId(0), &batch.end())?;
        Ok(Self { process, block, neighbour })
    }

    fn touch_by_tile(&self, tile: TileId) -> Result<(), Finding> {
        let program = self.process.thread();
        for round in 0..ROUNDS {
            let mut batch = Batch::default();
            for page in TOUCHED {
                let own = word(self.block, page, u64::from(tile.0));
                batch.store(own.mirror(), mark(u64::from(tile.0), page, round) as u32);
                batch.increment(word(self.block, page, 3).mirror());
            }
            self.process.run_batch(&program, tile, &batch.end())?;
        }
        Ok(())
    }

    fn touch_by_cpu(&self) -> Result<(), Finding> {
        let sim = &self.process.checked.sim;
        for round in 0..ROUNDS {
            for page in TOUCHED {
                let failed = |e| signal("CPU touch", e);
                sim.store_u64(word(self.block, page, 2), mark(2, page, round)).map_err(failed)?;
                sim.fetch_add_u64(word(self.block, page, 3), 1).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn unmap_neighbour(&self) -> Result<(), Finding> {
        self.process.checked.sim.munmap(self.neighbour);
        Ok(())
    }

    fn words(&self) -> impl Iterator<Item = Expected> {
        const WRITERS: [&str; 4] = ["tile 0", "tile 1", "the CPU thread", "all of them together"];
        TOUCHED.into_iter().flat_map(move |page| {
            (0..4u64).map(move |who| Expected {
                at: word(self.block, page, who),
                page,
                writer: WRITERS[who as usize],
                value: if who == 3 { 3 * ROUNDS } else { mark(who, page, ROUNDS - 1) },
                held: Held::Surely,
            })
        })
    }
}
