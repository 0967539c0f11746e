//! The built-in scene: one block, touched by both tiles and a CPU thread, while an unmapper takes its neighbour away.
//!
//! ```text
//!   one VMA:  | block: 4 of 16 pages used by all three touchers | neighbour: in VRAM0, unmapped meanwhile |
//!   in each page:  word 0 tile 0's, word 1 tile 1's, word 2 the CPU's, word 3 a counter that all of them add to
//! ```
//!
//! GPU atomics and the CPU's meet in word 3, so a write that is lost while the page travels is seen as a count that
//! is short. Everything goes through the uAPI: batches and fences lie in memory that migrates too.

use crate::finding::Finding;
use machine::behaviour;
use machine::checked::{Checked, Config, CpuError, MapKind};
use machine::program::{Batch, Class, Program};
use machine::{Errno, Injection, Record};
use std::sync::Arc;
use units::{HostRange, HostVa, SZ_4K, SZ_64K, TileId};

/// Pages of the block that are touched, spread over it.
const TOUCHED: [usize; 4] = [0, 5, 10, 15];
/// Times that each toucher adds to a page's counter.
const ROUNDS: u64 = 2;
/// Virtual time after which a job that is not done counts as hung.
const PATIENCE_NS: i64 = 2_000_000_000;

/// Whose rules the simulated mm follows.
pub use machine::checked::Manner;

/// What a run came upon: a search in which none of this happens looks past the races that it is there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Binds whose pages had changed since they were collected.
    pub stale_binds: u64,
}

/// Runs the scene to its end, inside a checked run. What it leaves is judged here too.
pub fn run(manner: Manner, behaviours: &str, reached: &mut Reached) -> Result<(), Finding> {
    let rules = behaviour::parse(behaviours).map_err(|what| Finding::Refused { what })?;
    let config = match manner {
        Manner::Linux => Config::LINUX,
        Manner::Userfaultfd => Config::USERFAULTFD,
    };
    let checked = Checked::new(config, rules, Injection::default()).map_err(|e| refused("probe", e))?;
    let stage = Arc::new(Stage::set(checked)?);
    let tile = |n: u8| {
        let stage = stage.clone();
        act(if n == 0 { "tile 0's thread" } else { "tile 1's thread" }, move || stage.touch_by_tile(TileId(n)))
    };
    let actors = [
        tile(0),
        tile(1),
        act("CPU thread", {
            let stage = stage.clone();
            move || stage.touch_by_cpu()
        }),
        act("unmapper", {
            let stage = stage.clone();
            move || stage.unmap_neighbour()
        }),
    ];
    let mut outcome = Ok(());
    for actor in actors {
        outcome = outcome.and(actor.outcome());
    }
    let judged = stage.judge();
    reached.stale_binds = stage.checked.core.ledger().read().stale_binds;
    stage.close();
    // Lost data says more than the error that it led to.
    judged.and(outcome)
}

/// A thread of the scene and the place of its outcome.
struct Actor {
    handle: sync::JoinHandle,
    outcome: Arc<sync::Mutex<Result<(), Finding>>>,
}

fn act(name: &'static str, body: impl FnOnce() -> Result<(), Finding> + Send + 'static) -> Actor {
    let outcome = Arc::new(sync::Mutex::new(Ok(())));
    let handle = sync::spawn(name, {
        let outcome = outcome.clone();
        move || {
            let result = body();
            *outcome.lock() = result;
        }
    });
    Actor { handle, outcome }
}

impl Actor {
    fn outcome(self) -> Result<(), Finding> {
        self.handle.join();
        self.outcome.lock().clone()
    }
}

/// The process before its threads start.
struct Stage {
    checked: Checked,
    main: Program,
    vm: u32,
    queues: [u32; 2],
    block: HostRange,
    neighbour: HostRange,
}

fn refused(what: &str, error: Errno) -> Finding {
    Finding::Refused { what: format!("{what}: {error}") }
}

impl Stage {
    /// A VM that mirrors the process, a queue a tile, the block in system memory, its neighbour in VRAM0.
    fn set(checked: Checked) -> Result<Self, Finding> {
        let main = checked.open();
        let vm = main.vm_create().map_err(|e| refused("VM_CREATE", e))?;
        main.bind_mirror(vm, 57, None).map_err(|e| refused("VM_BIND", e))?;
        let queue =
            |tile| main.queue_create(vm, Class::Compute, TileId(tile)).map_err(|e| refused("EXEC_QUEUE_CREATE", e));
        let queues = [queue(0)?, queue(1)?];
        let all = checked.sim.mmap(32, MapKind::Anonymous);
        let (block, neighbour) = (HostRange::sized(all.start, SZ_64K), HostRange::sized(all.start.add(SZ_64K), SZ_64K));
        for page in 0..all.pages() {
            checked.sim.store_u64(all.page_at(page), 0).map_err(|e| signal("first touch", e))?;
        }
        let stage = Self { checked, main, vm, queues, block, neighbour };
        let mut batch = Batch::default();
        batch.store(stage.neighbour.start.mirror(), 1);
        stage.run_batch(&stage.main, TileId(0), &batch.end())?;
        Ok(stage)
    }

    fn touch_by_tile(&self, tile: TileId) -> Result<(), Finding> {
        let program = self.checked.thread_of(self.main.file().clone());
        for round in 0..ROUNDS {
            let mut batch = Batch::default();
            for page in TOUCHED {
                let own = word(self.block, page, u64::from(tile.0));
                batch.store(own.mirror(), mark(u64::from(tile.0), page, round) as u32);
                batch.increment(word(self.block, page, 3).mirror());
            }
            self.run_batch(&program, tile, &batch.end())?;
        }
        Ok(())
    }

    fn touch_by_cpu(&self) -> Result<(), Finding> {
        let sim = &self.checked.sim;
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
        self.checked.sim.munmap(self.neighbour);
        Ok(())
    }

    /// Puts a batch into fresh memory of the program, runs it on a tile and waits for its fence.
    fn run_batch(&self, program: &Program, tile: TileId, bytes: &[u8]) -> Result<(), Finding> {
        const DONE: u64 = 0x600d_f00d;
        let sim = &self.checked.sim;
        let memory = sim.mmap(2, MapKind::Anonymous);
        let fence = memory.page_at(1);
        sim.store(memory.start, bytes).map_err(|e| signal("writing a batch", e))?;
        let queue = self.queues[tile.index()];
        program.exec(queue, memory.start.mirror(), fence.mirror(), DONE).map_err(|e| refused("EXEC", e))?;
        program.wait(fence, DONE, PATIENCE_NS, queue).map_err(|e| refused("WAIT_USER_FENCE", e))?;
        sim.munmap(memory);
        Ok(())
    }

    /// What a user would see, then what the device and the mm noted.
    fn judge(&self) -> Result<(), Finding> {
        let counters = self.checked.core.gpu().counters();
        self.judge_data(counters.stray_writes)?;
        if counters.stray_writes + counters.stray_reads > 0 {
            return Err(Finding::Stray { writes: counters.stray_writes, reads: counters.stray_reads });
        }
        if counters.stale_vram > 0 {
            return Err(Finding::Stale { accesses: counters.stale_vram });
        }
        self.checked.sim.settle();
        self.checked.sim.check().map_err(Finding::Books)
    }

    fn judge_data(&self, stray_writes: u64) -> Result<(), Finding> {
        const WRITERS: [&str; 4] = ["tile 0", "tile 1", "the CPU thread", "all of them together"];
        let mut wrong = Vec::new();
        for page in TOUCHED {
            for who in 0..4u64 {
                let expected = if who == 3 { 3 * ROUNDS } else { mark(who, page, ROUNDS - 1) };
                let found = self.checked.sim.load_u64(word(self.block, page, who)).map_err(|e| signal("reading", e))?;
                if found != expected {
                    wrong.push((page, WRITERS[who as usize], expected, found));
                }
            }
        }
        let Some(&(page, writer, expected, found)) = wrong.first() else { return Ok(()) };
        let first_stray = self.checked.core.gpu().take_records().iter().find_map(|record| match record {
            Record::StrayWrite { iova, .. } => Some(iova.0),
            _ => None,
        });
        Err(Finding::DataLost { words: wrong.len(), page, writer, expected, found, stray_writes, first_stray })
    }

    /// Ends everything, so that the run ends with nothing held.
    fn close(&self) {
        for queue in self.queues {
            let _ = self.main.queue_destroy(queue);
        }
        let _ = self.main.vm_destroy(self.vm);
        self.main.file().close();
        self.checked.core.engines().stop();
        // The memory holds the pagemaps, and the device behind them holds the memory: it must let go of them.
        self.checked.sim.exit();
    }
}

fn signal(what: &str, error: CpuError) -> Finding {
    Finding::Signal { what: format!("{what}: {error:?}") }
}

/// Word `index` of a page of the block.
fn word(block: HostRange, page: usize, index: u64) -> HostVa {
    block.start.add(page as u64 * SZ_4K + index * 8)
}

/// What a toucher leaves in its word; never 0, and different for each.
fn mark(who: u64, page: usize, round: u64) -> u64 {
    0x1000_0000 * (who + 1) + 0x100 * page as u64 + round + 1
}
