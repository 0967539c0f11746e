//! Memory that changes its owner while its neighbours migrate: given back by one thread and taken by another, or moved away
//! and unmapped.
//!
//! ```text
//!   one VMA:  | neighbour: both tiles and a second VM | given: unmapped, mapped anew | moved: in VRAM0, remapped |
//!   page       0                                       16                             32                          48
//! ```
//!
//! The neighbour keeps the mapping watched, where somebody watches. `given` is emptied and unmapped by one thread; another
//! one maps the same addresses as soon as it can, and writes: these words are its own. `moved` goes to another place, where
//! it is unmapped; its old place stays mapped, empty, and tile 0 writes there all the time. The second VM is new: what it
//! looks up first may be in the middle of a migration.

use super::process::{Process, act, mirror, outcome, queue, refused, signal};
use super::words::{self, Expected, Held, mark, word};
use crate::finding::Finding;
use machine::checked::{MapKind, Remap};
use machine::program::Batch;
use std::ops::Range;
use std::sync::Arc;
use units::{HostRange, TileId, bytes_of};

const GIVEN: Range<usize> = 16..32;
const MOVED: Range<usize> = 32..48;
/// Pages that both tiles and the second VM write to.
const FOUGHT_OVER: [usize; 2] = [2, 9];
/// Pages that the taker writes to.
const TAKEN: [usize; 2] = [16, 23];
/// Pages of `moved` that tile 0 writes to.
const AT_HOME: [usize; 2] = [32, 40];
/// Batches of each tile, the first of them before the threads start.
const ROUNDS: u64 = 3;

const TAKER: u64 = 2;
const GUEST: u64 = 3;
const LAST: u64 = 4;

/// Plays it, and judges what it leaves.
pub(super) fn play(process: &Arc<Process>) -> Result<(), Finding> {
    let stage = Arc::new(Stage::set(process.clone())?);
    let thread = |name, body: fn(&Stage) -> Result<(), Finding>| {
        let stage = stage.clone();
        act(name, move || body(&stage))
    };
    let outcome = outcome([
        thread("tile 0's thread", |stage| stage.touch_by_tile(TileId(0))),
        thread("tile 1's thread", |stage| stage.touch_by_tile(TileId(1))),
        thread("giver", Stage::give),
        thread("taker", Stage::take),
        thread("mover", Stage::move_away),
        thread("guest", Stage::come_and_go),
    ]);
    let judged = words::judge(process, stage.words());
    // Lost data says more than the error that it led to.
    judged.and(outcome).and_then(|()| stage.touch_last()).and_then(|()| process.judge())
}

/// The memory before the threads start.
struct Stage {
    process: Arc<Process>,
    all: HostRange,
}

impl Stage {
    fn set(process: Arc<Process>) -> Result<Self, Finding> {
        let all = process.checked.sim.mmap(MOVED.end, MapKind::Anonymous);
        for page in 0..all.pages() {
            process.checked.sim.store_u64(all.page_at(page), 0).map_err(|e| signal("first touch", e))?;
        }
        let stage = Self { process, all };
        for tile in [TileId(1), TileId(0)] {
            stage.process.run_batch(&stage.process.main, tile, &stage.batch_of_tile(tile, 0))?;
        }
        Ok(stage)
    }

    fn part(&self, pages: Range<usize>) -> HostRange {
        HostRange::sized(self.all.page_at(pages.start), bytes_of(pages.len()))
    }

    fn batch_of_tile(&self, tile: TileId, round: u64) -> Vec<u8> {
        let own = if tile == TileId(0) { &AT_HOME[..] } else { &[] };
        self.batch(u64::from(tile.0), own.iter().copied().chain(FOUGHT_OVER), round)
    }

    /// Stores to the words of `who` in these pages.
    fn batch(&self, who: u64, pages: impl IntoIterator<Item = usize>, round: u64) -> Vec<u8> {
        let mut batch = Batch::default();
        for page in pages {
            batch.store(word(self.all, page, who).mirror(), mark(who, page, round) as u32);
        }
        batch.end()
    }

    fn touch_by_tile(&self, tile: TileId) -> Result<(), Finding> {
        let program = self.process.thread();
        (1..ROUNDS).try_for_each(|round| self.process.run_batch(&program, tile, &self.batch_of_tile(tile, round)))
    }

    fn give(&self) -> Result<(), Finding> {
        let sim = &self.process.checked.sim;
        sim.madvise_dontneed(self.part(GIVEN));
        sim.munmap(self.part(GIVEN));
        Ok(())
    }

    fn take(&self) -> Result<(), Finding> {
        let sim = &self.process.checked.sim;
        while sim.mmap_at(self.part(GIVEN), MapKind::Anonymous).is_err() {
            sync::yield_now();
        }
        for page in TAKEN {
            let store = sim.store_u64(word(self.all, page, TAKER), mark(TAKER, page, 0));
            store.map_err(|e| signal("the taker's touch", e))?;
        }
        Ok(())
    }

    fn move_away(&self) -> Result<(), Finding> {
        let sim = &self.process.checked.sim;
        let away = sim.mremap_as(Remap { keep: true, ..Remap::anywhere(self.part(MOVED)) });
        let away = away.map_err(|errno| Finding::Refused { what: format!("mremap: errno {}", errno.0) })?;
        sim.munmap(away);
        Ok(())
    }

    /// A VM of its own, for one job.
    fn come_and_go(&self) -> Result<(), Finding> {
        let program = self.process.thread();
        let vm = mirror(&program)?;
        let queue = queue(&program, vm, TileId(1))?;
        self.process.run_on(&program, queue, &self.batch(GUEST, FOUGHT_OVER, 0))?;
        program.queue_destroy(queue).map_err(|e| refused("EXEC_QUEUE_DESTROY", e))?;
        program.vm_destroy(vm).map_err(|e| refused("VM_DESTROY", e))
    }

    fn words(&self) -> impl Iterator<Item = Expected> {
        let of = |who: u64, writer, pages: &'static [usize], round| {
            pages.iter().map(move |&page| {
                let held = if MOVED.contains(&page) { Held::Perhaps } else { Held::Surely };
                Expected { at: word(self.all, page, who), page, writer, value: mark(who, page, round), held }
            })
        };
        of(0, "tile 0", &FOUGHT_OVER, ROUNDS - 1)
            .chain(of(0, "tile 0", &AT_HOME, ROUNDS - 1))
            .chain(of(1, "tile 1", &FOUGHT_OVER, ROUNDS - 1))
            .chain(of(TAKER, "the taker", &TAKEN, 0))
            .chain(of(GUEST, "the second VM", &FOUGHT_OVER, 0))
    }

    /// One batch of tile 0 over all of it.
    fn touch_last(&self) -> Result<(), Finding> {
        let pages = || FOUGHT_OVER.into_iter().chain(TAKEN).chain(AT_HOME);
        self.process.run_batch(&self.process.main, TileId(0), &self.batch(LAST, pages(), 0))?;
        let expected = |page| Expected {
            at: word(self.all, page, LAST),
            page,
            writer: "tile 0, when all was quiet,",
            value: mark(LAST, page, 0),
            held: Held::Surely,
        };
        words::judge(&self.process, pages().map(expected))
    }
}
