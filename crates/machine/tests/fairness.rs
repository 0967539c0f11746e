//! Nobody starves: the whole machine on the simulated mm, with accesses that compete for one block for ever.

use gpusvm::Where;
use hostmm::PagemapId;
use machine::Injection;
use machine::behaviour::Behaviours;
use machine::checked::{Checked, Config, Manner, MapKind};
use machine::program::{Batch, Class, Program};
use std::sync::Arc;
use sync::atomic::AtomicU64;
use sync::sim::{self, Limits, Random, TimeRule};
use units::{HostRange, SZ_64K, TileId};

const fn vram(tile: u16) -> Where {
    Where::Vram(PagemapId(tile))
}

const DONE: u64 = 0x600d_f00d;

/// A thread of the program that has a tile run atomics on every other page of `block`, until `over`.
fn atomics(checked: &Checked, program: &Program, vm: u32, tile: TileId, block: HostRange, over: &AtomicU64) {
    let queue = program.queue_create(vm, Class::Compute, tile).expect("a queue");
    let memory = checked.sim.mmap(2, MapKind::Anonymous);
    let mut batch = Batch::default();
    (0..8).for_each(|n| _ = batch.increment(block.page_at(2 * n).mirror()));
    checked.sim.store(memory.start, &batch.end()).expect("mapped");
    let fence = memory.page_at(1);
    while over.load() == 0 {
        checked.sim.store_u64(fence, 0).expect("mapped");
        program.exec(queue, memory.start.mirror(), fence.mirror(), DONE).expect("a job");
        program.wait(fence, DONE, -1, queue).expect("the job ends");
    }
    program.queue_destroy(queue).expect("the queue");
}

/// Both tiles run atomics in one 64K block, each of which asks for 5 ms of residency; a CPU writes another page of it.
/// The first residency that an access meets is the last: it is deferred no more often than 5 ms of waits allow. (Time
/// races with the tasks here, so the pages may be gone again before their toucher runs: then there is another turn.)
#[test]
fn a_cpu_access_ends_while_both_tiles_run_atomics() {
    // The simulated kernel has a deferred toucher wait for 20 us, mm-live for 1 ms.
    const A_TURN: u64 = 5_000 / 20 + 2;
    const MOST_DEFERRALS: u64 = 4 * A_TURN;
    for manner in [Manner::Linux, Manner::Userfaultfd] {
        for seed in 0..8 {
            let limits = Limits { time: TimeRule::Racing, ..Limits::default() };
            let report = sim::run(&mut Random::new(seed), limits, move || {
                let checked = Checked::new(Config::default(), manner, Behaviours::CORRECT, Injection::default());
                let checked = Arc::new(checked.expect("a machine"));
                let main = checked.open();
                let vm = main.vm_create().expect("a VM");
                main.bind_mirror(vm, None).expect("a bind");
                let area = checked.sim.mmap(32, MapKind::Anonymous);
                let block = HostRange::sized(area.start.align_up(SZ_64K), SZ_64K);
                (0..16).for_each(|n| checked.sim.store_u64(block.page_at(n), 0).expect("mapped"));
                let over = Arc::new(AtomicU64::new(0));
                let tiles = [0, 1].map(|tile| {
                    let (checked, over, program) =
                        (checked.clone(), over.clone(), checked.thread_of(main.file().clone()));
                    sync::spawn("tile", move || atomics(&checked, &program, vm, TileId(tile), block, &over))
                });
                let deferred = || checked.core.ledger().look(|book| book.stats.cpu_faults_deferred);
                let stolen = || checked.core.ledger().flow(vram(0), vram(1)).times;
                for touch in 1..=3 {
                    let so_far = stolen();
                    while stolen() == so_far {
                        sync::time::sleep_ns(10_000);
                    }
                    let before = deferred();
                    checked.sim.store_u64(block.page_at(1), touch).expect("mapped");
                    let times = deferred() - before;
                    assert!(times <= MOST_DEFERRALS, "deferred {times} times");
                }
                over.store(1);
                tiles.into_iter().for_each(sync::JoinHandle::join);
                main.vm_destroy(vm).expect("the VM");
                main.file().close();
                checked.core.engines().stop();
                assert!(checked.end(), "everything migrates back");
            });
            assert!(!report.outcome.is_finding(), "{manner:?} seed {seed}: {:?}", report.outcome);
        }
    }
}
