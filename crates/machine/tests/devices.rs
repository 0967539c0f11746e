//! Several devices in one machine, over the same memory: what one has in its VRAM another gets, and no write is lost.

use gpusvm::Where;
use hostmm::PagemapId;
use machine::checked::{Checked, Config, Manner, MapKind, PVC_SMALL};
use machine::program::{Batch, Class, Program};
use std::sync::Arc;
use sync::sim::{self, Limits, Random};
use units::{HostRange, HostVa, SZ_64K, TileId};

const DONE: u64 = 0x600d_f00d;

/// A thread of the program with a queue on a tile of one device. Batch and fence lie in pages that no device migrates.
struct Hand {
    checked: Arc<Checked>,
    program: Program,
    queue: u32,
    batch: HostVa,
    fence: HostVa,
}

impl Hand {
    fn new(checked: &Arc<Checked>, program: Program, tile: u8) -> Self {
        let vm = program.vm_create().expect("a VM");
        program.bind_mirror(vm, 57, None).expect("a bind");
        let queue = program.queue_create(vm, Class::Compute, TileId(tile)).expect("a queue");
        let memory = checked.sim.mmap(2, MapKind::Anonymous);
        Self { checked: checked.clone(), program, queue, batch: memory.start, fence: memory.page_at(1) }
    }

    /// Adds one, atomically, to the first word of every page of a block: the block must be in this device's VRAM for that.
    fn add_to(&self, block: HostRange) {
        let mut batch = Batch::default();
        (0..block.pages()).for_each(|n| _ = batch.increment(block.page_at(n).mirror()));
        self.checked.sim.store(self.batch, &batch.end()).expect("mapped");
        self.checked.sim.store_u64(self.fence, 0).expect("mapped");
        self.program.exec(self.queue, self.batch.mirror(), self.fence.mirror(), DONE).expect("a job");
        self.program.wait(self.fence, DONE, -1, self.queue).expect("the job ends");
    }
}

/// Threads on all tiles of two devices, each of which adds to both blocks so many times, beside a CPU that reads.
fn play(manner: Manner, rounds: u64) {
    let checked = Checked::with_devices(Config::default(), manner, &[&PVC_SMALL, &PVC_SMALL]).expect("a machine");
    let checked = Arc::new(checked);
    let area = checked.sim.mmap(48, MapKind::Anonymous);
    let first = HostRange::sized(area.start.align_up(SZ_64K), SZ_64K);
    let blocks = [first, HostRange::sized(first.end, SZ_64K)];
    let programs = checked.open_all();
    let hands = programs.iter().flat_map(|program| [0, 1].map(|tile| (program, tile)));
    let threads: Vec<_> = hands
        .map(|(program, tile)| {
            let (checked, program) = (checked.clone(), checked.thread_of(program.file().clone()));
            sync::spawn("tile", move || {
                let hand = Hand::new(&checked, program, tile);
                (0..rounds).flat_map(|_| blocks).for_each(|block| hand.add_to(block));
            })
        })
        .collect();
    let reader = sync::spawn("reader", {
        let checked = checked.clone();
        move || blocks.iter().for_each(|block| _ = checked.sim.load_u64(block.page_at(3)).expect("mapped"))
    });
    threads.into_iter().chain([reader]).for_each(sync::JoinHandle::join);
    for page in blocks.iter().flat_map(|block| (0..block.pages()).map(|n| block.page_at(n))) {
        assert_eq!(checked.sim.load_u64(page).expect("mapped"), 4 * rounds, "{page}");
    }
    end(&checked, &programs);
}

fn end(checked: &Checked, programs: &[Program]) {
    programs.iter().for_each(|program| program.file().close());
    checked.cores().for_each(|core| core.engines().stop());
    assert!(checked.end(), "everything migrates back");
    for (core, tile) in checked.cores().flat_map(|core| [0, 1].map(|tile| (core, TileId(tile)))) {
        assert_eq!(core.device().vram_used(tile), 0, "VRAM is left");
    }
}

#[test]
fn devices_that_race_for_a_block_all_end() {
    for manner in [Manner::Linux, Manner::Userfaultfd] {
        for seed in 0..10 {
            let report = sim::run(&mut Random::new(seed), Limits::default(), move || play(manner, 1));
            assert!(!report.outcome.is_finding(), "{manner:?} seed {seed}: {:?}", report.outcome);
        }
    }
}

/// Two devices that do not reach each other: a block goes from one to the other by way of system memory.
#[test]
fn a_block_goes_from_device_to_device() {
    for manner in [Manner::Linux, Manner::Userfaultfd] {
        let report = sim::run(&mut Random::new(1), Limits::default(), move || {
            let checked = Checked::with_devices(Config::default(), manner, &[&PVC_SMALL, &PVC_SMALL]);
            let checked = Arc::new(checked.expect("a machine"));
            let area = checked.sim.mmap(32, MapKind::Anonymous);
            let block = HostRange::sized(area.start.align_up(SZ_64K), SZ_64K);
            let programs = checked.open_all();
            let hands =
                programs.iter().map(|program| Hand::new(&checked, checked.thread_of(program.file().clone()), 0));
            let hands: Vec<_> = hands.collect();
            hands[0].add_to(block);
            hands[1].add_to(block);
            let flows = |from, to| checked.cores().map(|core| core.ledger().flow(from, to).pages).collect::<Vec<_>>();
            let vram = |n| Where::Vram(PagemapId(n));
            assert_eq!(flows(vram(0), Where::System), [16, 0], "the first device gave it up");
            assert_eq!(flows(Where::System, vram(2)), [0, 16], "the second device has it");
            assert_eq!(checked.sim.load_u64(block.start).expect("mapped"), 2);
            end(&checked, &programs);
        });
        assert!(!report.outcome.is_finding(), "{manner:?}: {:?}", report.outcome);
    }
}
