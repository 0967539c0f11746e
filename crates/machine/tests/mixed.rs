//! A huge page costs the same after mixed use of VRAM as before it: counted, not timed.
//!
//! What could make it dear is left behind by others: a slot of VRAM or a bounce buffer that was used in
//! pieces keeps a page table, and splits the next huge page; so would a block that lies across two slots.

use gpusvm::Where;
use hostmm::{HostMm, PagemapId, Walk, WalkRun};
use machine::Injection;
use machine::behaviour::Behaviours;
use machine::checked::{Checked, Config, Manner, MapKind};
use machine::measure::Calls;
use machine::program::{Batch, Class, Program};
use sync::sim::{self, Limits, Random};
use units::{HostRange, HostVa, ORDER_2M, SZ_2M, SZ_4K, SZ_64K, TileId};

/// 2M blocks of VRAM that a tile has.
const SLOTS: usize = 8;
const ROUNDS: usize = 6;

/// A program with a queue on each tile. Batch and fence lie in pages that no device migrates: less than 64K.
struct Stand {
    checked: Checked,
    program: Program,
    queues: [u32; 2],
    job: HostRange,
    serial: u64,
}

/// What a step took: calls that a mover makes, and how the pages went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Work {
    calls: Calls,
    /// Pages to VRAM, home, across, copied, put back.
    pages: [u64; 5],
}

impl Stand {
    fn new() -> Self {
        let checked = Checked::new(Config::default(), Manner::Userfaultfd, Behaviours::CORRECT, Injection::default());
        let checked = checked.expect("a machine");
        let program = checked.open();
        let vm = program.vm_create().expect("a VM");
        program.bind_mirror(vm, None).expect("a bind");
        let queues = [0, 1].map(|tile| program.queue_create(vm, Class::Compute, TileId(tile)).expect("a queue"));
        let job = checked.sim.mmap(2, MapKind::Anonymous);
        Self { checked, program, queues, job, serial: 0 }
    }

    /// Memory of the program, 2M aligned, of which every `step`th page is touched.
    fn block(&self, bytes: u64, kind: MapKind, step: usize) -> HostRange {
        let whole = self.checked.sim.mmap(((bytes + SZ_2M) / SZ_4K) as usize, kind);
        let block = HostRange::sized(whole.start.align_up(SZ_2M), bytes);
        (0..block.pages()).step_by(step).for_each(|n| self.put(block.page_at(n), 0));
        block
    }

    fn put(&self, at: HostVa, value: u64) {
        self.checked.sim.store_u64(at, value).expect("mapped");
    }

    fn get(&self, at: HostVa) -> u64 {
        self.checked.sim.load_u64(at).expect("mapped")
    }

    /// A tile stores at `at`.
    fn store(&mut self, tile: usize, at: HostVa, value: u32) {
        self.serial += 1;
        let batch = Batch::default().store(at.mirror(), value).end();
        self.checked.sim.store(self.job.start, &batch).expect("mapped");
        let fence = self.job.page_at(1);
        self.program.exec(self.queues[tile], self.job.start.mirror(), fence.mirror(), self.serial).expect("a job");
        self.program.wait(fence, self.serial, -1, self.queues[tile]).expect("it ends");
    }

    /// What was done so far by those who move: readers wait and are woken as the schedule has it.
    fn work(&self) -> Work {
        let live = self.checked.live().expect("mm-live");
        let (calls, stats) = (live.calls(), live.stats());
        let calls = Calls { read: 0, probe: 0, wake: 0, poll: 0, eventfd: 0, ..calls };
        Work { calls, pages: [stats.to_device, stats.to_system, stats.across, stats.copied, stats.put_back] }
    }

    fn done_by(&mut self, step: impl FnOnce(&mut Self)) -> Work {
        let before = self.work();
        step(self);
        // A CPU goes on before its reader has done.
        self.checked.settle();
        let after = self.work();
        let pages = core::array::from_fn(|n| after.pages[n] - before.pages[n]);
        Work { calls: after.calls.since(&before.calls), pages }
    }

    /// A block goes round: a touch, tile 0, tile 1. The CPU finds what tile 1 had stored.
    fn round(&mut self, block: HostRange, last: &mut u32) -> [Work; 3] {
        let home = self.done_by(|stand| assert_eq!(stand.get(block.start), u64::from(*last)));
        assert!(self.is_huge(block), "it was split on its way");
        *last += 1;
        let value = *last;
        let faults = [0, 1].map(|tile| self.done_by(|stand| stand.store(tile, block.start, value)));
        [home, faults[0], faults[1]]
    }

    fn is_huge(&self, block: HostRange) -> bool {
        let mut runs: Vec<WalkRun> = Vec::new();
        let walk = Walk { range: block, valid_since: None, vma: None, fault: false, write: false, owner: None };
        self.checked.live().expect("mm-live").walk(&walk, &mut runs).expect("mapped");
        runs.len() == 1 && runs[0].order == ORDER_2M
    }

    /// Blocks of every kind, more than both tiles hold, that come, go round, are evicted, and go.
    fn use_mixedly(&mut self) {
        let value = 7;
        for round in 0..3 {
            let mut blocks = Vec::new();
            for n in 0..SLOTS / 2 {
                blocks.push(self.block(SZ_2M, MapKind::Huge, 1));
                blocks.push(self.block(SZ_2M, MapKind::Anonymous, 1));
                blocks.push(self.block(SZ_2M, MapKind::Anonymous, 3 + n));
                let many = self.block(SZ_2M, MapKind::Anonymous, 1);
                let parts =
                    (n % 2..32).step_by(2).map(|part| HostRange::sized(many.start.add(part as u64 * SZ_64K), SZ_64K));
                blocks.extend(parts);
            }
            for (n, block) in blocks.iter().enumerate() {
                self.store(0, block.start, value);
                if n % 3 == round {
                    self.store(1, block.start, value);
                }
                if n % 7 == 0 {
                    assert_eq!(self.get(block.start), u64::from(value));
                }
            }
            for block in blocks {
                assert_eq!(self.get(block.start), u64::from(value), "round {round}");
                self.store(round % 2, block.start, value);
                self.checked.sim.munmap(block);
            }
            self.checked.settle();
        }
    }

    /// Homecomings that no touch asked for.
    fn evictions(&self) -> u64 {
        let ledger = self.checked.core.ledger();
        let home: u64 = [0, 1].map(|tile| ledger.flow(Where::Vram(PagemapId(tile)), Where::System).times).iter().sum();
        home - ledger.look(|book| book.stats.cpu_faults.total())
    }

    fn end(self) {
        self.checked.sim.check().expect("the books balance");
        self.program.file().close();
        self.checked.core.engines().stop();
        assert!(self.checked.end(), "everything migrates back");
    }
}

/// Calls of the median round, by kind, of each step. The first round registers, and may empty a slot that was pieced.
fn calls(rounds: &[[Work; 3]]) -> [Vec<(&'static str, u64)>; 3] {
    core::array::from_fn(|step| {
        let kinds = Calls::default().named().into_iter().enumerate();
        let median = |index: usize| {
            let mut counts: Vec<u64> = rounds[1..].iter().map(|round| round[step].calls.named()[index].1).collect();
            counts.sort_unstable();
            counts[counts.len() / 2]
        };
        kinds.map(|(index, (name, _))| (name, median(index))).filter(|(_, count)| *count > 0).collect()
    })
}

fn play() {
    let mut stand = Stand::new();
    let hot = stand.block(SZ_2M, MapKind::Huge, 1);
    let mut last = 0;
    let mut go_round = |stand: &mut Stand| -> Vec<_> { (0..ROUNDS).map(|_| stand.round(hot, &mut last)).collect() };
    let before = go_round(&mut stand);
    stand.use_mixedly();
    let after = go_round(&mut stand);
    let [home, to_vram, across] = calls(&before);
    assert_eq!(home, [("move", 1)]);
    assert_eq!(to_vram, [("move", 2), ("procmap_query", 1), ("pagemap_scan", 1)]);
    assert_eq!(across, [("move", 1), ("procmap_query", 1)]);
    assert_eq!(calls(&after), [home, to_vram, across]);
    for [home, to_vram, across] in before[1..].iter().chain(&after[1..]) {
        assert_eq!(
            [home.pages, to_vram.pages, across.pages],
            [[0, 512, 0, 0, 0], [512, 0, 0, 0, 0], [0, 0, 512, 0, 0]]
        );
        assert_eq!([home, to_vram, across].map(|work| work.calls.r#move), [1, 2, 1]);
    }
    assert!(stand.evictions() > 0, "VRAM was never short");
    stand.end();
}

/// Every slot of a tile had a huge page that went in two halves: the rest of it was in pieces.
fn cut_all_slots() {
    let mut stand = Stand::new();
    let blocks: Vec<_> = (0..SLOTS).map(|_| stand.block(SZ_2M, MapKind::Huge, 1)).collect();
    blocks.iter().for_each(|block| stand.store(0, block.start, 1));
    for block in blocks {
        let middle = block.page_at(block.pages() / 2);
        for half in [HostRange::new(block.start, middle), HostRange::new(middle, block.end)] {
            stand.checked.sim.munmap(half);
            stand.checked.settle();
        }
    }
    let hot = stand.block(SZ_2M, MapKind::Huge, 1);
    let mut last = 0;
    (0..ROUNDS).for_each(|_| _ = stand.round(hot, &mut last));
    stand.end();
}

/// A fork brings each 2M home by one move, and asks for nothing page by page.
fn fork() {
    const BLOCKS: u64 = 4;
    let mut stand = Stand::new();
    let all = stand.block(BLOCKS * SZ_2M, MapKind::Anonymous, 1);
    (0..BLOCKS).for_each(|block| stand.store(0, all.start.add(block * SZ_2M), 1));
    let Work { calls, pages } = stand.done_by(|stand| _ = stand.checked.fork().expect("a child"));
    assert_eq!(pages, [0, 512 * BLOCKS, 0, 0, 0]);
    let made: Vec<_> = calls.named().into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(made, [("unregister", BLOCKS), ("move", BLOCKS), ("procmap_query", BLOCKS)]);
    stand.end();
}

fn run(play: fn()) {
    for seed in 0..3 {
        let limits = Limits { steps: 100_000_000, ..Limits::default() };
        let report = sim::run(&mut Random::new(seed), limits, play);
        assert!(!report.outcome.is_finding(), "seed {seed}: {:?}", report.outcome);
    }
}

#[test]
fn a_huge_page_costs_the_same_after_mixed_use() {
    run(play);
}

#[test]
fn a_huge_page_stays_whole_where_another_was_cut() {
    run(cut_all_slots);
}

#[test]
fn a_fork_moves_each_range_once() {
    run(fork);
}
