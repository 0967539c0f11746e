//! Two neighbouring ranges on different tiles, whose memory changes under them in every way a program knows.
//!
//! ```text
//!   page   0        4                12          16          20        24    26              32
//!          | first: system memory, bound on tile 0  | second: in VRAM1, bound on tile 1       |
//!                   [ advice         ][ emptied, both ranges  ]        [hole ]
//! ```
//!
//! One event (DONTNEED) hits both ranges, so what is flushed must be the union of their tiles and of their spans.
//! Advice cuts the first range, which is removed while its tile runs. The hole is unmapped and mapped anew. A second
//! VM mirrors the same memory, and is destroyed with its job in flight. No atomics: this memory is not quiet.
//!
//! A page that was emptied may hold any value from before, or 0; all others hold what was written last. When all
//! is quiet again, tile 0 writes to every page, and all of that must be there.

use super::process::{Process, act, mirror, outcome, queue, refused, signal};
use super::words::{self, Expected, Held, mark, word};
use crate::finding::Finding;
use machine::checked::MapKind;
use machine::program::{Advice, Batch};
use std::ops::Range;
use std::sync::Arc;
use units::{HostRange, TileId, bytes_of};

/// Pages that each tile writes to: of the first range, of the second.
const TOUCHED: [[usize; 3]; 2] = [[0, 6, 13], [17, 22, 31]];
/// Pages that the CPU thread writes to.
const BY_CPU: [usize; 2] = [6, 31];
/// Pages that the second VM writes to.
const BY_GUEST: [usize; 2] = [0, 22];
const FIRST: Range<usize> = 0..16;
const ADVISED: Range<usize> = 4..12;
const EMPTIED: Range<usize> = 12..20;
const HOLE: Range<usize> = 24..26;
/// Batches of each tile, the first of them before the threads start.
const ROUNDS: u64 = 3;
/// An entry of PVC's PAT table that is coherent, and not the default one.
const ANOTHER_PAT: u32 = 5;

const CPU: u64 = 2;
const GUEST: u64 = 3;
const LAST: u64 = 4;

/// Plays it, and judges what it leaves.
pub(super) fn play(process: &Arc<Process>) -> Result<(), Finding> {
    let stage = Arc::new(Stage::set(process.clone())?);
    let outcome = outcome([
        act(&stage, "tile 0's thread", |stage| stage.touch_by_tile(TileId(0))),
        act(&stage, "tile 1's thread", |stage| stage.touch_by_tile(TileId(1))),
        act(&stage, "CPU thread", Stage::touch_by_cpu),
        act(&stage, "changer", Stage::change),
        act(&stage, "adviser", |stage| stage.advise(ADVISED, Advice::Pat(ANOTHER_PAT))),
        act(&stage, "guest", Stage::come_and_go),
    ]);
    let judged = words::judge(process, stage.words());
    // Lost data says more than the error that it led to.
    judged.and(outcome).and_then(|()| stage.touch_all()).and_then(|()| process.judge())
}

/// The memory before the threads start.
struct Stage {
    process: Arc<Process>,
    all: HostRange,
}

impl Stage {
    /// Each tile has bound its range.
    fn set(process: Arc<Process>) -> Result<Self, Finding> {
        let all = process.checked.sim.mmap(32, MapKind::Anonymous);
        for page in 0..all.pages() {
            process.checked.sim.store_u64(all.page_at(page), 0).map_err(|e| signal("first touch", e))?;
        }
        let stage = Self { process, all };
        stage.advise(FIRST, Advice::SystemMemory)?;
        for tile in [TileId(0), TileId(1)] {
            stage.process.run_batch(&stage.process.main, tile, &stage.batch_of_tile(tile, 0))?;
        }
        Ok(stage)
    }

    fn part(&self, pages: Range<usize>) -> HostRange {
        HostRange::sized(self.all.page_at(pages.start), bytes_of(pages.len()))
    }

    fn batch_of_tile(&self, tile: TileId, round: u64) -> Vec<u8> {
        self.batch(u64::from(tile.0), TOUCHED[tile.index()], round)
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

    fn touch_by_cpu(&self) -> Result<(), Finding> {
        for page in BY_CPU {
            let store = self.process.checked.sim.store_u64(word(self.all, page, CPU), mark(CPU, page, 0));
            store.map_err(|e| signal("CPU touch", e))?;
        }
        Ok(())
    }

    fn change(&self) -> Result<(), Finding> {
        let sim = &self.process.checked.sim;
        sim.madvise_dontneed(self.part(EMPTIED));
        let hole = self.part(HOLE);
        sim.munmap(hole);
        sim.mmap_at(hole, MapKind::Anonymous)
            .map_err(|_| Finding::Books("memory that was unmapped is still taken".into()))
    }

    fn advise(&self, pages: Range<usize>, advice: Advice) -> Result<(), Finding> {
        let advised = self.process.thread().madvise(self.process.vm(), self.part(pages), advice);
        advised.map_err(|e| refused("MADVISE", e))
    }

    /// A VM of its own; its job is not waited for. The job's memory stays: it may still be read.
    fn come_and_go(&self) -> Result<(), Finding> {
        let program = self.process.thread();
        let vm = mirror(&program)?;
        let queue = queue(&program, vm, TileId(1))?;
        let job = self.process.prepare(&self.batch(GUEST, BY_GUEST, 0))?;
        self.process.submit(&program, queue, job)?;
        program.queue_destroy(queue).map_err(|e| refused("EXEC_QUEUE_DESTROY", e))?;
        program.vm_destroy(vm).map_err(|e| refused("VM_DESTROY", e))
    }

    fn words(&self) -> impl Iterator<Item = Expected> {
        let of = |who: u64, writer, pages: &'static [usize], round| {
            pages.iter().map(move |&page| {
                let held = if who == GUEST || EMPTIED.contains(&page) { Held::Perhaps } else { Held::Surely };
                Expected { at: word(self.all, page, who), page, writer, value: mark(who, page, round), held }
            })
        };
        of(0, "tile 0", &TOUCHED[0], ROUNDS - 1)
            .chain(of(1, "tile 1", &TOUCHED[1], ROUNDS - 1))
            .chain(of(CPU, "the CPU thread", &BY_CPU, 0))
            .chain(of(GUEST, "the second VM", &BY_GUEST, 0))
    }

    /// One batch of tile 0 over all of it, the hole too.
    fn touch_all(&self) -> Result<(), Finding> {
        let pages = || TOUCHED.into_iter().flatten().chain(HOLE);
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
