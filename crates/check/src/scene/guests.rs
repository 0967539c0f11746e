//! A block that a tile takes from another one, and VMs that are new to it: what one looks up first may be in the middle of a
//! migration.

use super::process::{Process, act, mirror, outcome, queue, refused, signal};
use super::words::{self, Expected, Held, expected, store, word};
use crate::finding::Finding;
use machine::program::Batch;
use std::sync::Arc;
use units::{HostRange, TileId};

/// Pages that everybody writes to.
const TOUCHED: [usize; 1] = [5];
/// Batches of tile 0.
const ROUNDS: u64 = 2;
/// VMs on tile 1 that have not looked at the block yet.
const GUESTS: u64 = 4;
/// Times that the CPU adds.
const TOUCHES: u64 = 2;

const GUEST: u64 = 1;
const COUNTER: u64 = 2;

/// Plays it, and judges what it leaves.
pub(super) fn play(process: &Arc<Process>) -> Result<(), Finding> {
    let guests = (0..GUESTS).map(|_| {
        let vm = mirror(&process.main)?;
        Ok((vm, queue(&process.main, vm, TileId(1))?))
    });
    let guests = guests.collect::<Result<_, Finding>>()?;
    let stage = Arc::new(Stage { block: process.filled(16)?, guests, process: process.clone() });
    process.run_batch(&process.main, TileId(1), &stage.batch(0, 0))?;
    let outcome = outcome([
        act(&stage, "tile 0's thread", Stage::take),
        act(&stage, "guests", Stage::visit),
        act(&stage, "CPU thread", Stage::touch_by_cpu),
    ]);
    for (vm, queue) in &stage.guests {
        process.main.queue_destroy(*queue).map_err(|e| refused("EXEC_QUEUE_DESTROY", e))?;
        process.main.vm_destroy(*vm).map_err(|e| refused("VM_DESTROY", e))?;
    }
    words::judge(process, stage.words()).and_then(|()| process.judge()).and(outcome)
}

struct Stage {
    process: Arc<Process>,
    block: HostRange,
    /// VMs, with a queue each.
    guests: Vec<(u32, u32)>,
}

impl Stage {
    fn batch(&self, who: u64, round: u64) -> Vec<u8> {
        let mut batch = Batch::default();
        for page in TOUCHED {
            batch.increment(word(self.block, page, COUNTER).mirror());
        }
        store(&mut batch, self.block, who, &TOUCHED, round);
        batch.end()
    }

    fn take(&self) -> Result<(), Finding> {
        let program = self.process.thread();
        (0..ROUNDS).try_for_each(|round| self.process.run_batch(&program, TileId(0), &self.batch(0, round)))
    }

    fn visit(&self) -> Result<(), Finding> {
        let program = self.process.thread();
        let visit =
            |(round, guest): (u64, &(u32, u32))| self.process.run_on(&program, guest.1, &self.batch(GUEST, round));
        (0..).zip(&self.guests).try_for_each(visit)
    }

    fn touch_by_cpu(&self) -> Result<(), Finding> {
        for page in (0..TOUCHES).flat_map(|_| TOUCHED) {
            let added = self.process.checked.sim.fetch_add_u64(word(self.block, page, COUNTER), 1);
            added.map_err(|e| signal("CPU touch", e))?;
        }
        Ok(())
    }

    fn words(&self) -> impl Iterator<Item = Expected> {
        expected(self.block, 0, "tile 0", &TOUCHED, ROUNDS - 1, Held::Surely)
            .chain(expected(self.block, GUEST, "a new VM", &TOUCHED, GUESTS - 1, Held::Surely))
            .chain(words::counters(self.block, COUNTER, &TOUCHED, 1 + ROUNDS + GUESTS + TOUCHES))
    }
}
