//! A flush waits for the accesses to VRAM that were in flight, with real threads.

mod support;

use std::sync::Arc;
use support::*;
use sync::Mutex;
use units::{GpuRange, GpuVa, HostFrame, SZ_1G, SZ_2M, SZ_4K, SZ_64K};
use xe_hw::port::BusAddr;
use xe_hw::{FlushFault, Injection, Job, Step};
use xe_spec::fault::EngineId;
use xe_spec::platform::{PVC, VRAM_BAR};

const VA: GpuVa = GpuVa(0x4000_0000);
/// How long a flush is given to be first, which must not be.
const A_WHILE_NS: u64 = 50_000_000;
/// How long it is given at most that must be: the machine may be busy.
const LONG_NS: u64 = 60_000_000_000;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Did {
    Access,
    Flush,
}

/// What ends first: a store whose memory answers only after a while, or a flush that began meanwhile.
fn order(rig: Rig, page: BusAddr, flush_is_first: bool) -> Vec<Did> {
    let context = rig.context();
    rig.submit(context, 1, &store_batch(VA, 1));
    order_of(rig, CCS, page, flush_is_first)
}

/// The same of the job that `engine` has.
fn order_of(rig: Rig, engine: EngineId, page: BusAddr, flush_is_first: bool) -> Vec<Did> {
    let did = Arc::new(Mutex::new(Vec::new()));
    rig.bus.shut_gate(page);
    let rig = Arc::new(rig);
    let accessing = {
        let (rig, did) = (rig.clone(), did.clone());
        sync::spawn("engine", move || {
            assert_eq!(rig.gpu.step(engine), Step::Ran);
            did.lock().push(Did::Access);
        })
    };
    rig.bus.await_visitor();
    let driver = {
        let (rig, did) = (rig.clone(), did.clone());
        sync::spawn("driver", move || {
            rig.gpu.tlb_invalidate(TILE, ASID, GpuRange::sized(VA, SZ_64K));
            did.lock().push(Did::Flush);
        })
    };
    let end = sync::time::after_ns(if flush_is_first { LONG_NS } else { A_WHILE_NS });
    while did.lock().is_empty() && sync::time::now_ns() < end {
        sync::time::sleep_ns(1_000_000);
    }
    let early = did.lock().clone();
    rig.bus.open_gate();
    accessing.join();
    driver.join();
    let all = did.lock().clone();
    assert_eq!(all.len(), 2);
    if early.is_empty() { vec![Did::Access, Did::Flush] } else { all }
}

fn with_vram(injection: Injection) -> (Rig, BusAddr) {
    let mut rig = Rig::with(&PVC, injection, true);
    let gpu = rig.gpu.clone();
    rig.tables.map_group(&gpu, VA, device(vram(0)));
    (rig, BusAddr::Vram(vram(0)))
}

fn with_system(blocks: bool) -> (Rig, BusAddr) {
    with_frame(blocks, HostFrame(3))
}

fn with_frame(blocks: bool, frame: HostFrame) -> (Rig, BusAddr) {
    let mut rig = Rig::with(&PVC, Injection::default(), blocks);
    let gpu = rig.gpu.clone();
    rig.tables.map(&gpu, VA, 0, system(gpu.iommu_map(frame, 1, true)));
    (rig, BusAddr::System(frame))
}

#[test]
fn an_access_to_vram_is_waited_for() {
    let (rig, page) = with_vram(Injection::default());
    let gpu = rig.gpu.clone();
    assert_eq!(order(rig, page, false), [Did::Access, Did::Flush]);
    assert_eq!(gpu.counters().drains, 1);
}

#[test]
fn a_part_of_a_long_copy_is_waited_for() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    let (from, pages) = (VA.add(SZ_1G), 1024);
    for leaf in 0..2 {
        rig.tables.map(&gpu, VA.add(leaf * SZ_2M), 1, device(vram(leaf * SZ_2M)));
        rig.tables.map(&gpu, from.add(leaf * SZ_2M), 1, device(vram(4 * SZ_2M + leaf * SZ_2M)));
    }
    let copying = rig.gpu.context_create(BCS, ASID);
    let batch = Some(rig.batch_at(0, &copy_batch(from, VA, pages)));
    rig.gpu.submit(copying, Job { seqno: 1, batch, fence: None });
    // What comes first of a leaf fills the TLB.
    let streamed = BusAddr::Vram(vram(4 * SZ_4K));
    assert_eq!(order_of(rig, BCS, streamed, false), [Did::Access, Did::Flush]);
}

#[test]
fn without_the_drain_the_flush_is_first() {
    let (rig, page) = with_vram(Injection { flush: FlushFault::SkipDrain, ..Injection::default() });
    assert_eq!(order(rig, page, true), [Did::Flush, Did::Access]);
}

#[test]
fn an_access_to_system_memory_that_may_block_is_not() {
    let (rig, page) = with_system(true);
    assert_eq!(order(rig, page, true), [Did::Flush, Did::Access]);
}

/// It goes to somebody else's pages when it is late: the flush is all that keeps it from that.
#[test]
fn an_access_to_a_peers_window_is_waited_for() {
    let (rig, page) = with_frame(true, VRAM_BAR.add(0x123));
    assert_eq!(order(rig, page, false), [Did::Access, Did::Flush]);
}

#[test]
fn where_system_memory_never_blocks_it_is_inside_the_window() {
    let (rig, page) = with_system(false);
    assert_eq!(order(rig, page, false), [Did::Access, Did::Flush]);
}

#[test]
fn accesses_and_flushes_by_the_thousand_end() {
    let (rig, _) = with_vram(Injection::default());
    let context = rig.context();
    rig.submit(context, 1, &[&store(VA, 1)[..], &[0x1880_0001, BATCH.0 as u32, 0]].concat());
    let rig = Arc::new(rig);
    let engine = {
        let rig = rig.clone();
        sync::spawn("engine", move || while rig.gpu.step(CCS) == Step::Ran {})
    };
    let mut flushes = 0;
    while flushes < 2_000 || rig.gpu.counters().tlb_hits < 2_000 {
        rig.flush(VA, SZ_64K);
        flushes += 1;
    }
    rig.gpu.context_destroy(context);
    engine.join();
    let counters = rig.gpu.counters();
    assert_eq!(counters.flushes, flushes);
    assert!(counters.walks > 1, "a flush makes the next access walk");
    assert_eq!(rig.gpu.take_records(), []);
}
