//! Contexts, jobs and commands.

mod support;

use support::*;
use units::{GpuVa, HostFrame, SZ_4K, SZ_64K, TileId};
use xe_hw::port::BusAddr;
use xe_hw::{Job, Record, Step};
use xe_spec::fault::{ContextId, EngineClass, EngineId, FaultAck};

const VA: GpuVa = GpuVa(0x4000_0000);

/// A rig with a page of VRAM at [`VA`].
fn rig() -> Rig {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    rig.tables.map_group(&gpu, VA, device(vram(0)));
    rig
}

fn data(rig: &Rig, offset: usize) -> u64 {
    rig.bus.quad(BusAddr::Vram(vram(0)), offset)
}

fn jump(dw0: u32, to: GpuVa) -> [u32; 3] {
    [dw0, to.0 as u32, (to.0 >> 32) as u32]
}

fn inline_atomic(opcode: u32, first: u64, second: u64) -> [u32; 11] {
    let size = if opcode & 0x20 != 0 { 1 << 19 } else { 0 };
    let (a, b) = ([first as u32, (first >> 32) as u32], [second as u32, (second >> 32) as u32]);
    let dw0 = 0x1780_0009 | 1 << 18 | size | opcode << 8;
    [dw0, VA.0 as u32, (VA.0 >> 32) as u32, a[0], b[0], a[1], b[1], 0, 0, 0, 0]
}

#[test]
fn stores_and_the_fence_in_order() {
    let rig = rig();
    let context = rig.context();
    let qword = [0x1020_0003, VA.0 as u32 + 8, 0, 0x89ab_cdef, 0x0123_4567];
    let words = [&[0, 0x0280_0000, 0x0400_0001][..], &store(VA.add(4), 6), &qword, &[BBE]].concat();
    let batch = Some(rig.batch_at(0, &words));
    rig.gpu.submit(context, Job { seqno: 3, batch, fence: Some((VA.add(0x100), 0xfe)) });
    assert_eq!(rig.irq.take_ready(), [CCS]);
    assert_eq!(rig.run(), Step::Idle);
    assert_eq!((data(&rig, 0), data(&rig, 8)), (6 << 32, 0x0123_4567_89ab_cdef));
    assert_eq!(data(&rig, 0x100), 0xfe);
    assert_eq!(rig.irq.take(), [Told::Done(context, 3)]);
    let counters = rig.gpu.counters();
    assert_eq!((counters.commands, counters.jobs), (6, 1));
}

#[test]
fn a_fence_may_fault_and_needs_no_batch() {
    let mut rig = rig();
    let gpu = rig.gpu.clone();
    let context = rig.context();
    let fence = VA.add(SZ_64K);
    gpu.submit(context, Job { seqno: 1, batch: None, fence: Some((fence, 1)) });
    gpu.submit(context, Job { seqno: 2, batch: None, fence: None });
    assert_eq!(rig.run(), Step::Wait);
    let fault = rig.irq.the_fault();
    assert_eq!(fault.addr, fence);
    rig.tables.map(&gpu, fence, 0, system(gpu.iommu_map(HostFrame(1), 1, true)));
    gpu.fault_ack(fault.slot, FaultAck::Replay);
    assert_eq!(rig.run(), Step::Idle);
    assert_eq!(rig.irq.take(), [Told::Done(context, 1), Told::Done(context, 2)]);
    assert_eq!(rig.bus.quad(BusAddr::System(HostFrame(1)), 0), 1);
}

#[test]
fn atomics_of_both_sizes() {
    let rig = rig();
    let start = 0x0000_0007_ffff_ffff_u64;
    let high = start & !0 << 32;
    let cases: [(u32, u64, u64, u64); 26] = [
        (0x01, 0x0f0f_0f0f, 0, high | 0x0f0f_0f0f),
        (0x22, 1 << 63, 0, start | 1 << 63),
        (0x23, start, 0, 0),
        (0x05, 0, 0, 0x0000_0007_0000_0000),
        (0x06, 0, 0, 0x0000_0007_ffff_fffe),
        (0x07, 3, 0, 0x0000_0007_0000_0002),
        (0x08, 0xf, 0, 0x0000_0007_ffff_fff0),
        (0x0e, 0xffff_ffff, 5, 0x0000_0007_0000_0005),
        (0x0e, 1, 5, start),
        (0x25, 0, 0, 0x0000_0008_0000_0000),
        (0x24, 1 << 40, 0, 1 << 40),
        (0x2e, start, 2 << 40, 2 << 40),
        (0x09, 0, 0, high | 1),
        (0x29, 1, 0, 0xffff_fff8_0000_0002),
        // The dword is -1 where it is signed, and the largest where it is not.
        (0x0a, 5, 0, high | 5),
        (0x0a, 0xffff_fffe, 0, start),
        (0x0b, 5, 0, start),
        (0x0b, 0x8000_0000, 0, high | 0x8000_0000),
        (0x0c, 5, 0, start),
        (0x0d, 5, 0, high | 5),
        (0x2a, u64::MAX, 0, start),
        (0x2b, u64::MAX, 0, u64::MAX),
        (0x2c, u64::MAX, 0, u64::MAX),
        (0x2d, u64::MAX, 0, start),
        (0x0f, 0, 0, high | 0xffff_fffe),
        (0x2f, 0, 0, start - 1),
    ];
    for (opcode, first, second, expected) in cases {
        rig.bus.poke(BusAddr::Vram(vram(0)), 0, &[start as u32, (start >> 32) as u32]);
        let context = rig.context();
        rig.submit(context, 1, &[&inline_atomic(opcode, first, second)[..], &[BBE]].concat());
        assert_eq!(rig.run(), Step::Idle);
        assert_eq!(data(&rig, 0), expected, "{opcode:#x}");
    }
    assert_eq!(rig.gpu.take_records(), []);
}

#[test]
fn jumps_chain_and_the_second_level_comes_back() {
    let rig = rig();
    let context = rig.context();
    let (second, chained, tail) = (BATCH.add(0x400), BATCH.add(0x800), BATCH.add(0xc00));
    rig.batch_at(0x100, &[&store(VA, 1)[..], &jump(0x18c0_0001, chained)].concat());
    rig.batch_at(0x200, &[&store(VA.add(4), 2)[..], &[BBE]].concat());
    rig.batch_at(0x300, &[&store(VA.add(12), 4)[..], &[BBE]].concat());
    let first = [&jump(0x18c0_0001, second)[..], &store(VA.add(8), 3), &jump(0x1880_0101, tail)].concat();
    rig.submit(context, 1, &first);
    assert_eq!(rig.run(), Step::Idle);
    assert_eq!((data(&rig, 0), data(&rig, 8)), (2 << 32 | 1, 4 << 32 | 3));
}

#[test]
fn what_is_no_command_kills_its_context_and_no_other() {
    for garbage in [
        vec![0xdead_beef],
        vec![0x7208_0025],
        vec![0x5680_0008],
        vec![0x6101_0013],
        vec![0x1000_0003, 0, 0, 0],
        vec![0x1780_0001 | 7 << 8, VA.0 as u32, 0],
        vec![0x1780_0001 | 0x0a << 8, VA.0 as u32, 0],
        [&inline_atomic(0x10, 0, 0)[..], &[]].concat(),
        vec![0x1780_0001 | 0x25 << 8, VA.0 as u32, 0],
        vec![0x1880_0000, 0, 0],
    ] {
        let rig = rig();
        let (bad, good) = (rig.context(), rig.context());
        let batch = Some(rig.batch_at(0, &[&store(VA, 1)[..], &garbage, &store(VA.add(4), 1), &[BBE]].concat()));
        rig.gpu.submit(bad, Job { seqno: 4, batch, fence: Some((VA.add(0x20), 1)) });
        rig.gpu.submit(bad, Job { seqno: 5, batch, fence: None });
        let batch = Some(rig.batch_at(0x100, &store_batch(VA.add(8), 9)));
        rig.gpu.submit(good, Job { seqno: 1, batch, fence: None });
        assert_eq!(rig.run(), Step::Idle);
        assert_eq!(rig.irq.take(), [Told::Killed(bad, 4), Told::Done(good, 1)]);
        assert_eq!((data(&rig, 0), data(&rig, 8), data(&rig, 0x20)), (1, 9, 0), "nothing is skipped");
        let at = BATCH.add(16);
        assert_eq!(rig.gpu.take_records(), [Record::UnknownCommand { context: bad, at, dword: garbage[0] }]);
        rig.gpu.submit(bad, Job { seqno: 6, batch: None, fence: None });
        assert_eq!(rig.run(), Step::Idle, "dead contexts stay dead");
        assert_eq!(rig.gpu.counters().kills, 1);
    }
}

#[test]
fn contexts_take_turns_command_by_command() {
    let rig = rig();
    let (spinner, writer) = (rig.context(), rig.context());
    rig.submit(spinner, 1, &[&[0x0280_0000][..], &jump(0x1880_0001, BATCH)].concat());
    let words: Vec<u32> = (0..8).flat_map(|i| store(VA.add(4 * i), 1)).chain([BBE]).collect();
    let batch = Some(rig.batch_at(0x100, &words));
    rig.gpu.submit(writer, Job { seqno: 2, batch, fence: None });
    for i in 0..18 {
        assert_eq!(rig.irq.take(), [], "{i}");
        assert_eq!(rig.gpu.step(CCS), Step::Ran);
    }
    assert_eq!(rig.irq.take(), [Told::Done(writer, 2)]);
    rig.gpu.context_destroy(spinner);
    assert_eq!(rig.gpu.step(CCS), Step::Idle);
}

#[test]
fn a_loop_inside_one_line_sees_the_word_that_ends_it() {
    let rig = rig();
    let context = rig.context();
    rig.submit(context, 1, &jump(0x1880_0001, BATCH));
    for _ in 0..5 {
        assert_eq!(rig.gpu.step(CCS), Step::Ran);
    }
    rig.batch_at(0, &[BBE]);
    assert_eq!(rig.run(), Step::Idle);
    assert_eq!(rig.irq.take(), [Told::Done(context, 1)]);
}

#[test]
fn others_run_while_one_waits_and_kill_ends_it() {
    let rig = rig();
    let (waits, runs) = (rig.context(), rig.context());
    let batch = Some(rig.batch_at(0x100, &store_batch(VA.add(SZ_64K), 1)));
    rig.gpu.submit(waits, Job { seqno: 1, batch, fence: None });
    rig.submit(runs, 1, &store_batch(VA, 1));
    assert_eq!(rig.run(), Step::Wait);
    let told = rig.irq.take();
    let [Told::Fault(fault), Told::Done(done, 1)] = told[..] else { panic!("a fault and a job: {told:?}") };
    assert_eq!((fault.slot.context, done), (waits, runs));
    rig.irq.take_ready();
    rig.gpu.fault_ack(fault.slot, FaultAck::Kill);
    assert_eq!(rig.irq.take(), [], "only a step kills");
    assert_eq!(rig.irq.take_ready(), [CCS]);
    assert_eq!(rig.run(), Step::Idle);
    assert_eq!(rig.irq.take(), [Told::Killed(waits, 1)]);
    rig.gpu.fault_ack(fault.slot, FaultAck::Replay);
    assert_eq!(rig.gpu.take_records(), [Record::BadAck(fault.slot)]);
}

#[test]
fn a_late_answer_answers_no_other_fault() {
    let rig = rig();
    let context = rig.context();
    rig.submit(context, 1, &store_batch(VA.add(SZ_64K), 1));
    assert_eq!(rig.run(), Step::Wait);
    let first = rig.irq.the_fault();
    rig.gpu.fault_ack(first.slot, FaultAck::Replay);
    assert_eq!(rig.run(), Step::Wait, "nothing was mapped");
    let second = rig.irq.the_fault();
    rig.gpu.fault_ack(first.slot, FaultAck::Kill);
    assert_eq!(rig.gpu.take_records(), [Record::BadAck(first.slot)]);
    assert_eq!(rig.run(), Step::Wait);
    assert_eq!(rig.irq.take(), [], "the second fault still waits");
    rig.gpu.fault_ack(second.slot, FaultAck::Kill);
    assert_eq!(rig.run(), Step::Idle);
    assert_eq!(rig.irq.take(), [Told::Killed(context, 1)]);
}

#[test]
fn a_destroyed_context_forgets_its_fault() {
    let rig = rig();
    let context = rig.context();
    rig.submit(context, 1, &store_batch(VA.add(SZ_64K), 1));
    assert_eq!(rig.run(), Step::Wait);
    rig.gpu.context_destroy(context);
    rig.gpu.fault_ack(rig.irq.the_fault().slot, FaultAck::Replay);
    assert_eq!(rig.run(), Step::Idle);
    assert_eq!(rig.gpu.take_records(), [], "an answer that comes too late is no mistake");
    assert_ne!(rig.context(), context);
}

#[test]
fn engines_of_the_platform_and_no_others() {
    let rig = rig();
    let all: Vec<_> = rig.gpu.engines().map(|engine| (engine.tile.0, engine.class, engine.instance)).collect();
    let of = |tile| {
        let instances = |class, count| (0..count).map(move |n| (tile, class, n));
        instances(EngineClass::Copy, 4).chain(instances(EngineClass::Compute, 2))
    };
    assert_eq!(all, of(0).chain(of(1)).collect::<Vec<_>>());
    let none = EngineId { tile: TileId(0), class: EngineClass::Copy, instance: 7 };
    let context = rig.gpu.context_create(none, ASID);
    rig.gpu.submit(context, Job { seqno: 1, batch: None, fence: None });
    assert_eq!(rig.gpu.take_records(), [Record::NoSuchEngine(none), Record::NoSuchContext(context)]);
    rig.gpu.submit(ContextId(999), Job { seqno: 1, batch: None, fence: None });
    assert_eq!(rig.gpu.take_records(), [Record::NoSuchContext(ContextId(999))]);
}

#[test]
fn two_tiles_walk_their_own_tables() {
    let rig = rig();
    let far = EngineId { tile: TileId(1), ..CCS };
    let mut tables = Tables::new(TileId(1), 0);
    rig.gpu.set_root(TileId(1), ASID, tables.root, true);
    tables.map_group(&rig.gpu, VA, device(far_vram(SZ_64K)));
    rig.bus.poke(BusAddr::Vram(far_vram(SZ_64K + SZ_4K)), 0, &store_batch(VA, 3));
    let context = rig.gpu.context_create(far, ASID);
    rig.gpu.submit(context, Job { seqno: 1, batch: Some(VA.add(SZ_4K)), fence: None });
    assert_eq!([(); 3].map(|()| rig.gpu.step(far)), [Step::Ran, Step::Ran, Step::Idle]);
    assert_eq!(rig.bus.word(BusAddr::Vram(far_vram(SZ_64K)), 0), 3);
    assert_eq!(data(&rig, 0), 0);
}
