//! Copies and fills of programs.

mod support;

use support::*;
use units::{GpuVa, HostFrame, SZ_4K, SZ_64K};
use xe_hw::port::BusAddr;
use xe_hw::{Job, Record, Step};
use xe_spec::fault::{Access, ContextId, FaultAck};

/// 128K of VRAM, and behind a hole as much again.
const SRC: GpuVa = GpuVa(0x4000_0000);
const DST: GpuVa = GpuVa(0x5000_0000);
const BYTES: usize = 2 * SZ_64K as usize;
const DST_FRAMES: u64 = 0x10_0000;

fn rig() -> Rig {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    for i in 0..2 {
        rig.tables.map_group(&gpu, SRC.add(i * SZ_64K), device(vram(i * SZ_64K)));
        rig.tables.map_group(&gpu, DST.add(i * SZ_64K), device(vram(DST_FRAMES + i * SZ_64K)));
    }
    let words: Vec<u32> = (0..BYTES as u32 / 4).map(|n| n.wrapping_mul(0x9e37_79b9)).collect();
    for (page, words) in words.chunks(1024).enumerate() {
        rig.bus.poke(BusAddr::Vram(vram(page as u64 * SZ_4K)), 0, words);
    }
    rig
}

fn bytes(rig: &Rig, frames: u64) -> Vec<u8> {
    let word = |at: u64| rig.bus.word(BusAddr::Vram(vram(frames + at / SZ_4K * SZ_4K)), (at % SZ_4K) as usize);
    (0..BYTES as u64 / 4).flat_map(|n| word(4 * n).to_le_bytes()).collect()
}

/// What the destination should hold: a copy of zeros in which `change` did what the command does.
fn expect(rig: &Rig, change: impl FnOnce(&[u8], &mut [u8])) {
    let mut expected = vec![0; BYTES];
    change(&bytes(rig, 0), &mut expected);
    let found = bytes(rig, DST_FRAMES);
    let differs = found.iter().zip(&expected).position(|(found, expected)| found != expected);
    assert_eq!(differs, None);
}

fn run(rig: &Rig) -> Step {
    for _ in 0..10_000 {
        match rig.gpu.step(BCS) {
            Step::Ran | Step::Fault => {}
            end => return end,
        }
    }
    panic!("still running");
}

fn submit(rig: &Rig, words: &[u32]) -> ContextId {
    let context = rig.gpu.context_create(BCS, ASID);
    let batch = Some(rig.batch_at(0, &[words, &[BBE]].concat()));
    rig.gpu.submit(context, Job { seqno: 1, batch, fence: None });
    context
}

fn completes(rig: &Rig, words: &[u32]) {
    let context = submit(rig, words);
    assert_eq!((run(rig), rig.irq.take()), (Step::Idle, vec![Told::Done(context, 1)]));
    assert_eq!(rig.gpu.take_records(), []);
}

fn mem_set(flags: u32, [width, height, pitch]: [u32; 3], dst: GpuVa, byte: u32) -> Vec<u32> {
    let [low, high] = at(dst);
    vec![0x56c0_0005 | flags, width, height, pitch, low, high, byte << 24 | 3]
}

#[test]
fn a_line_of_any_length_from_anywhere_to_anywhere() {
    for (width, from, to) in [(1, 0, 0), (0x369, 5, 0x801), (0x3fff, 1, 3), (0x1_fffe, 1, 2), (0x1000, 0xfff, 0xfff)] {
        let rig = rig();
        completes(&rig, &mem_copy(0, [width - 1, 9, 0, 0], SRC.add(from), DST.add(to)));
        let (width, from, to) = (width as usize, from as usize, to as usize);
        expect(&rig, |src, dst| dst[to..to + width].copy_from_slice(&src[from..from + width]));
    }
}

#[test]
fn a_matrix_has_its_own_pitch_on_each_side() {
    let rig = rig();
    let (width, height, from, to) = (200, 127, 256, 300);
    completes(&rig, &mem_copy(1 << 17, [width - 1, height - 1, from - 1, to - 1], SRC, DST.add(7)));
    let [width, height, from, to] = [width, height, from, to].map(|n| n as usize);
    expect(&rig, |src, dst| {
        for line in 0..height {
            dst[7 + line * to..][..width].copy_from_slice(&src[line * from..][..width]);
        }
    });
    // Without gaps it is one line.
    let rig = self::rig();
    completes(&rig, &mem_copy(1 << 17, [0x3fff, 7, 0x3fff, 0x3fff], SRC, DST));
    assert!(rig.bus.take_writes().len() <= 2 * 32 + 1, "whole pages");
    expect(&rig, |src, dst| dst.copy_from_slice(src));
}

#[test]
fn pages_of_256_bytes() {
    let rig = rig();
    completes(&rig, &mem_copy(1 << 19, [16, 0, 0, 0], SRC, DST));
    expect(&rig, |src, dst| dst[..17 * 256].copy_from_slice(&src[..17 * 256]));
}

#[test]
fn bytes_are_set() {
    let rig = rig();
    completes(&rig, &mem_set(0, [0x1_2344, 3, 3], DST.add(1), 0xa5));
    expect(&rig, |_, dst| dst[1..0x1_2346].fill(0xa5));
    let rig = self::rig();
    completes(&rig, &mem_set(1 << 17, [9, 4, 99], DST, 0x11));
    expect(&rig, |_, dst| (0..5).for_each(|line| dst[line * 100..][..10].fill(0x11)));
}

#[test]
fn a_linear_rectangle_of_pixels() {
    let rig = rig();
    let ([sl, sh], [dl, dh]) = (at(SRC), at(DST));
    // 32 bits a pixel, from (3, 2) to (10, 20)..(40, 30).
    completes(&rig, &[0x5080_0008, 3 << 24 | 512, 20 << 16 | 10, 30 << 16 | 40, dl, dh, 2 << 16 | 3, 1024, sl, sh]);
    let lines = |src: &[u8], dst: &mut [u8], shift: usize| {
        for line in 0..10 {
            let from = (2 + line) * 1024 + 3 * 4;
            dst[shift + (20 + line) * 512 + 10 * 4..][..120].copy_from_slice(&src[from..from + 120]);
        }
    };
    expect(&rig, |src, dst| lines(src, dst, 0));
    for extended in [10, 20] {
        let rig = self::rig();
        let mut block = vec![0x5040_0000 | 2 << 19 | extended, 511, 20 << 16 | 10, 30 << 16 | 40, dl, dh, 1 << 16];
        block.extend([2 << 16 | 3, 1023, sl, sh, 0]);
        block.resize(extended as usize + 2, 0);
        completes(&rig, &block);
        expect(&rig, |src, dst| lines(src, dst, 512));
    }
}

#[test]
fn what_is_not_modelled_hangs() {
    let (src, dst) = (at(SRC), at(DST));
    let fast = |dw0: u32, dw1: u32| vec![dw0, dw1, 0, 1 << 16 | 1, dst[0], dst[1], 0, 64, src[0], src[1]];
    let block = |dw0: u32, dw1: u32| vec![dw0, dw1, 0, 1 << 16 | 1, dst[0], dst[1], 0, 0, 63, src[0], src[1], 0];
    let all = [
        fast(0x5080_0008 | 2 << 20, 64),
        fast(0x5080_0008 | 1 << 13, 64),
        fast(0x5080_0008, 7 << 24 | 64),
        fast(0x5080_0008, 2 << 24 | 64),
        block(0x5040_000a, 1 << 30 | 63),
        block(0x5040_000a, 1 << 29 | 63),
        block(0x5040_000a | 1 << 12, 63),
        mem_copy(1 << 16, [0; 4], SRC, DST),
        mem_copy(1 << 17 | 1 << 19, [0; 4], SRC, DST),
        mem_copy(2 << 17, [0; 4], SRC, DST),
        mem_copy(1, [0; 4], SRC, DST),
    ];
    for words in all {
        let rig = rig();
        let context = submit(&rig, &words);
        assert_eq!((run(&rig), rig.irq.take()), (Step::Idle, vec![Told::Killed(context, 1)]), "{words:x?}");
        assert!(matches!(rig.gpu.take_records()[..], [Record::UnknownCommand { .. }]));
        expect(&rig, |_, _| {});
    }
    // And a compute engine copies nothing.
    let rig = rig();
    let context = rig.context();
    rig.submit(context, 1, &mem_copy(0, [0; 4], SRC, DST));
    assert_eq!((rig.run(), rig.irq.take()), (Step::Idle, vec![Told::Killed(context, 1)]));
}

#[test]
fn a_copy_goes_on_in_its_middle_after_a_fault_of_either_side() {
    let mut rig = rig();
    let gpu = rig.gpu.clone();
    let (hole, end) = (SRC.add(BYTES as u64), BYTES as u64 + SZ_4K);
    let context = submit(&rig, &mem_copy(0, [end as u32 - 1, 0, 0, 0], SRC, DST));
    assert_eq!(run(&rig), Step::Wait);
    let fault = rig.irq.the_fault();
    assert_eq!((fault.addr, fault.access, fault.slot.context), (hole, Access::Read, context));
    expect(&rig, |src, dst| dst.copy_from_slice(src));
    // What was done is not done again, though the source changes.
    for page in 0..BYTES as u64 / SZ_4K {
        rig.bus.fill(BusAddr::Vram(vram(page * SZ_4K)), 0xee);
    }
    let before = rig.bus.take_writes().len();
    rig.tables.map(&gpu, hole, 0, system(gpu.iommu_map(HostFrame(7), 1, true)));
    rig.bus.fill(BusAddr::System(HostFrame(7)), 0x77);
    gpu.fault_ack(fault.slot, FaultAck::Replay);
    assert_eq!(run(&rig), Step::Wait);
    let fault = rig.irq.the_fault();
    assert_eq!((fault.addr, fault.access), (DST.add(BYTES as u64), Access::Write));
    // What was read is not read again, though it has gone.
    rig.bus.vanish(HostFrame(7));
    rig.tables.map(&gpu, fault.addr, 0, system(gpu.iommu_map(HostFrame(8), 1, true)));
    gpu.fault_ack(fault.slot, FaultAck::Replay);
    assert_eq!((run(&rig), rig.irq.take()), (Step::Idle, vec![Told::Done(context, 1)]));
    assert!(rig.bus.is_all(BusAddr::System(HostFrame(8)), 0x77));
    assert_eq!((before, rig.bus.take_writes().len()), (BYTES / SZ_4K as usize, 1));
    assert!(!rig.bus.is_all(BusAddr::Vram(vram(DST_FRAMES)), 0xee));
}

#[test]
fn others_have_their_turn_inside_of_a_large_copy() {
    let rig = rig();
    submit(&rig, &mem_copy(0, [BYTES as u32 - 1, 0, 0, 0], SRC, DST));
    let context = rig.gpu.context_create(BCS, ASID);
    let batch = Some(rig.batch_at(0x100, &store_batch(DST, 1)));
    rig.gpu.submit(context, Job { seqno: 2, batch, fence: None });
    for _ in 0..4 {
        assert_eq!(rig.gpu.step(BCS), Step::Ran);
    }
    assert_eq!(rig.irq.take(), [Told::Done(context, 2)]);
    assert_eq!(run(&rig), Step::Idle);
}

#[test]
fn null_pages_read_as_zeros_and_swallow_writes() {
    let mut rig = rig();
    let gpu = rig.gpu.clone();
    let (from, to) = (GpuVa(0x6000_0000), GpuVa(0x7000_0000));
    for va in [from, to] {
        let null = xe_spec::pte::Leaf { null: true, ..device(vram(0)) };
        rig.tables.map(&gpu, va, 1, xe_spec::pte::Leaf { addr: 0, ..null });
    }
    completes(&rig, &mem_set(0, [BYTES as u32 - 1, 0, 0], DST, 0xff));
    completes(&rig, &mem_copy(0, [0x1_8000, 0, 0, 0], from, DST));
    completes(&rig, &mem_copy(0, [0x1_8000, 0, 0, 0], SRC, to));
    expect(&rig, |_, dst| dst[0x1_8001..].fill(0xff));
}

#[test]
fn pixels_without_extent_are_none() {
    let rig = rig();
    let ([sl, sh], [dl, dh]) = (at(SRC), at(DST));
    completes(&rig, &[0x5080_0008, 64, 5 << 16 | 5, 5 << 16 | 9, dl, dh, 0, 64, sl, sh]);
    completes(&rig, &[0x5080_0008, 64, 5 << 16 | 5, 1 << 16 | 1, dl, dh, 0, 64, sl, sh]);
    expect(&rig, |_, _| {});
}
