//! Memory in VRAM that moves away, is read there, and unmapped, while a tile writes to its old place, which stays mapped.
//!
//! Its frames are free when it has left them, or its new place is gone. Whoever still writes by a translation of the old place
//! reaches them then. A CPU thread touches the old place: a page may be on its way home when it moves away, and must be there
//! afterwards.

use super::process::{Process, act, outcome, signal};
use super::words::{self, Expected, Held, expected, mark, store, word};
use crate::finding::Finding;
use machine::checked::Remap;
use machine::program::Batch;
use std::sync::Arc;
use units::{HostRange, TileId};

/// Pages that tile 0 writes to.
const TOUCHED: [usize; 2] = [3, 12];
/// A page that the CPU wrote to before.
const KEPT: [usize; 1] = [9];
/// Times that the CPU touches it.
const TOUCHES: usize = 3;
/// Stores to each of them, of one batch.
const STORES: u64 = 4;
/// Times that the memory moves.
const MOVES: u64 = 2;
/// Jobs meanwhile.
const ROUNDS: u64 = 3;

const CPU: u64 = 1;
const LAST: u64 = 2;

/// Plays it, and judges what it leaves.
pub(super) fn play(process: &Arc<Process>) -> Result<(), Finding> {
    let stage = Arc::new(Stage::set(process.clone())?);
    let outcome = outcome([
        act(&stage, "tile 0's thread", Stage::write),
        act(&stage, "mover", Stage::move_away),
        act(&stage, "CPU thread", Stage::touch_by_cpu),
    ]);
    let judged = words::judge(process, stage.words());
    judged.and(outcome).and_then(|()| stage.touch_last()).and_then(|()| process.judge())
}

struct Stage {
    process: Arc<Process>,
    block: HostRange,
    /// That the device knows: it can go on while it is told of what moves.
    job: HostRange,
}

impl Stage {
    fn set(process: Arc<Process>) -> Result<Self, Finding> {
        let block = process.filled(16)?;
        for page in KEPT {
            let store = process.checked.sim.store_u64(word(block, page, CPU), mark(CPU, page, 0));
            store.map_err(|e| signal("the first store", e))?;
        }
        let mut batch = Batch::default();
        (0..STORES).for_each(|round| store(&mut batch, block, 0, &TOUCHED, round));
        let stage = Self { job: process.prepare(&batch.end())?, process, block };
        stage.process.run(&stage.process.main, stage.process.queue(TileId(0)), stage.job)?;
        Ok(stage)
    }

    fn write(&self) -> Result<(), Finding> {
        let program = self.process.thread();
        (0..ROUNDS).try_for_each(|_| self.process.run(&program, self.process.queue(TileId(0)), self.job))
    }

    fn move_away(&self) -> Result<(), Finding> {
        let sim = &self.process.checked.sim;
        for turn in 0..MOVES {
            let away = sim.mremap_as(Remap { keep: true, ..Remap::anywhere(self.block) });
            let away = away.map_err(|errno| Finding::Refused { what: format!("mremap: errno {}", errno.0) })?;
            if turn == 0 {
                words::judge(&self.process, expected(away, CPU, "the CPU, before it moved,", &KEPT, 0, Held::Surely))?;
            }
            sim.munmap(away);
        }
        Ok(())
    }

    fn touch_by_cpu(&self) -> Result<(), Finding> {
        for page in (0..TOUCHES).flat_map(|_| KEPT) {
            let loaded = self.process.checked.sim.load_u64(word(self.block, page, CPU));
            loaded.map_err(|e| signal("CPU touch", e))?;
        }
        Ok(())
    }

    fn words(&self) -> impl Iterator<Item = Expected> {
        expected(self.block, 0, "tile 0", &TOUCHED, STORES - 1, Held::Perhaps)
    }

    fn touch_last(&self) -> Result<(), Finding> {
        let mut batch = Batch::default();
        store(&mut batch, self.block, LAST, &TOUCHED, 0);
        self.process.run_batch(&self.process.main, TileId(0), &batch.end())?;
        words::judge(
            &self.process,
            expected(self.block, LAST, "tile 0, when all was quiet,", &TOUCHED, 0, Held::Surely),
        )
    }
}
