//! Copies so long that they go straight from memory to memory, where that blocks nowhere.

mod support;

use support::*;
use units::{GpuVa, HostFrame, SZ_2M, SZ_4K, bytes_of};
use xe_hw::port::BusAddr;
use xe_hw::{Job, Step};
use xe_spec::fault::{Access, FaultAck};
use xe_spec::platform::PVC;

const SRC: GpuVa = GpuVa(0x4000_0000);
const DST: GpuVa = GpuVa(0x8000_0000);
/// Where the copy is in VRAM; the source is at its start.
const TO: u64 = 64 << 20;
/// Leaves of 2M on each side.
const LEAVES: u64 = 3;
const PAGES: usize = (LEAVES * SZ_2M / SZ_4K) as usize;
/// Pages that go the long way where a leaf is new: they fill the TLB.
const FIRST: usize = 4;

/// Page `n` of the source is full of `n + 1`, modulo 251.
fn rig(blocks: bool) -> Rig {
    let mut rig = Rig::with(&PVC, xe_hw::Injection::default(), blocks);
    let gpu = rig.gpu.clone();
    for n in 0..LEAVES {
        rig.tables.map(&gpu, SRC.add(n * SZ_2M), 1, device(vram(n * SZ_2M)));
        rig.tables.map(&gpu, DST.add(n * SZ_2M), 1, device(vram(TO + n * SZ_2M)));
    }
    (0..PAGES).for_each(|page| rig.bus.fill(BusAddr::Vram(vram(bytes_of(page))), byte(page)));
    rig
}

fn byte(page: usize) -> u8 {
    (page % 251) as u8 + 1
}

fn copied(page: usize) -> BusAddr {
    BusAddr::Vram(vram(TO + bytes_of(page)))
}

fn submit(rig: &Rig, src: GpuVa, dst: GpuVa, pages: usize) {
    let context = rig.gpu.context_create(BCS, ASID);
    let batch = Some(rig.batch_at(0, &copy_batch(src, dst, pages)));
    rig.gpu.submit(context, Job { seqno: 1, batch, fence: None });
}

/// To the next rest of the engine.
fn run(rig: &Rig) -> Step {
    let mut steps = (0..10_000).map(|_| rig.gpu.step(BCS));
    steps.find(|step| !matches!(step, Step::Ran | Step::Fault)).expect("an end")
}

#[test]
fn whole_pages_are_streamed() {
    let rig = rig(true);
    submit(&rig, SRC, DST, PAGES);
    assert_eq!(run(&rig), Step::Idle);
    assert!((0..PAGES).all(|page| rig.bus.is_all(copied(page), byte(page))));
    assert_eq!(rig.bus.take_streamed(), PAGES - LEAVES as usize * FIRST);
    assert_eq!(rig.gpu.take_records(), []);
}

#[test]
fn what_is_short_or_overlaps_or_lies_elsewhere_in_its_page_is_not() {
    let odd = [(SRC, DST, 256), (SRC.add(64), DST, PAGES - 1), (SRC, DST.add(8), PAGES - 1)];
    for (src, dst, pages) in odd.into_iter().chain([(SRC, SRC.add(SZ_4K), PAGES - 1)]) {
        let rig = rig(true);
        submit(&rig, src, dst, pages);
        assert_eq!((run(&rig), rig.bus.take_streamed()), (Step::Idle, 0));
    }
}

/// An access that may block lets go of what a flush waits for; a streamed page does not.
#[test]
fn memory_whose_accesses_may_block_is_read() {
    for (blocks, streamed) in [(true, 0), (false, PAGES - LEAVES as usize * FIRST)] {
        let mut rig = rig(blocks);
        let gpu = rig.gpu.clone();
        let iova = gpu.iommu_map(HostFrame(0x1000), PAGES, true);
        for n in 0..LEAVES {
            rig.tables.map(&gpu, SRC.add(n * SZ_2M), 1, system(iova.add(n * SZ_2M)));
        }
        rig.bus.fill(BusAddr::System(HostFrame(0x1000 + PAGES as u64 - 1)), 0x5a);
        submit(&rig, SRC, DST, PAGES);
        assert_eq!((run(&rig), rig.bus.take_streamed()), (Step::Idle, streamed));
        assert!(rig.bus.is_all(copied(PAGES - 1), 0x5a));
    }
}

#[test]
fn a_fault_comes_for_the_page_that_is_missing_and_the_copy_goes_on_from_there() {
    let mut rig = rig(true);
    let gpu = rig.gpu.clone();
    let hole = DST.add((LEAVES - 1) * SZ_2M);
    rig.tables.write(&gpu, hole, 1, false, 0);
    submit(&rig, SRC, DST, PAGES);
    assert_eq!(run(&rig), Step::Wait);
    let fault = rig.irq.the_fault();
    assert_eq!((fault.addr, fault.access), (hole, Access::Write));
    // What was streamed is not streamed again.
    rig.bus.fill(BusAddr::Vram(vram(bytes_of(FIRST))), 0xee);
    rig.tables.map(&gpu, hole, 1, device(vram(TO + (LEAVES - 1) * SZ_2M)));
    gpu.fault_ack(fault.slot, FaultAck::Replay);
    assert_eq!(run(&rig), Step::Idle);
    assert!((0..PAGES).all(|page| rig.bus.is_all(copied(page), byte(page))));
}

#[test]
fn a_page_that_does_not_answer_is_told_of_as_by_any_other_access() {
    let rig = rig(true);
    let gone = 700;
    rig.bus.empty(vram(TO + bytes_of(gone)));
    submit(&rig, SRC, DST, PAGES);
    assert_eq!(run(&rig), Step::Idle);
    assert!(matches!(rig.gpu.take_records()[..], [xe_hw::Record::StaleVram { .. }]));
    let others = (0..PAGES).filter(|page| *page != gone);
    assert!(others.into_iter().all(|page| rig.bus.is_all(copied(page), byte(page))));
}
