//! The commands of the memory interface that look at memory, at registers and at clocks, and those that say how shaders
//! shall run.

mod support;

use support::*;
use sync::sim::{Limits, Outcome, Random};
use units::{GpuVa, HostFrame, SZ_64K};
use xe_hw::port::BusAddr;
use xe_hw::{Job, Record, Step};
use xe_spec::fault::{ContextId, EngineId, FaultAck};
use xe_spec::regs;
use xe_spec::share::{Priority, Share};

const VA: GpuVa = GpuVa(0x4000_0000);
/// Register commands: relative to the engine.
const REL: u32 = 1 << 19;

fn rig() -> Rig {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    rig.tables.map_group(&gpu, VA, device(vram(0)));
    rig
}

fn word(rig: &Rig, offset: usize) -> u32 {
    rig.bus.word(BusAddr::Vram(vram(0)), offset)
}

fn quad(rig: &Rig, offset: usize) -> u64 {
    rig.bus.quad(BusAddr::Vram(vram(0)), offset)
}

fn poke(rig: &Rig, offset: usize, words: &[u32]) {
    rig.bus.poke(BusAddr::Vram(vram(0)), offset, words);
}

/// Runs a batch to its end on a context.
fn run_on(rig: &Rig, context: ContextId, words: &[u32]) -> Vec<Told> {
    rig.submit(context, 1, &[words, &[BBE]].concat());
    let mut now = 0;
    while let Step::Sleep(until) = rig.run() {
        assert!(until > now);
        now = until;
        while sync::time::now_ns() < until {
            sync::yield_now();
        }
    }
    rig.irq.take()
}

fn completes(rig: &Rig, words: &[u32]) {
    let context = rig.context();
    assert_eq!(run_on(rig, context, words), [Told::Done(context, 1)], "{words:x?}");
    assert_eq!(rig.gpu.take_records(), []);
}

fn hangs(rig: &Rig, words: &[u32]) {
    let context = rig.context();
    assert_eq!(run_on(rig, context, words), [Told::Killed(context, 1)], "{words:x?}");
    assert!(matches!(rig.gpu.take_records()[..], [Record::UnknownCommand { dword, .. }] if dword == words[0]));
}

fn at(va: GpuVa) -> [u32; 2] {
    [va.0 as u32, (va.0 >> 32) as u32]
}

fn command<const N: usize>(words: [&[u32]; N]) -> Vec<u32> {
    words.concat()
}

#[test]
fn a_store_takes_as_many_quadwords_as_it_says() {
    const SDI: u32 = 0x20 << 23 | 1 << 21;
    let rig = rig();
    completes(&rig, &[SDI | 7, VA.0 as u32, 0, 1, 2, 3, 4, 5, 6]);
    assert_eq!([0, 8, 16, 24].map(|at| quad(&rig, at)), [2 << 32 | 1, 4 << 32 | 3, 6 << 32 | 5, 0]);
    // As a page table is filled: more dwords than the length fields of other commands have room for.
    let many: Vec<u32> = (0..400).collect();
    completes(&rig, &[&[SDI | 401, VA.0 as u32, 0], &many[..]].concat());
    assert_eq!((quad(&rig, 0), quad(&rig, 199 * 8)), (1 << 32, 399 << 32 | 398));
    hangs(&rig, &[SDI | 4, VA.0 as u32, 0, 1, 2, 3]);
}

#[test]
fn registers_go_from_data_to_memory_and_back() {
    let rig = rig();
    poke(&rig, 0x40, &[0xabcd]);
    completes(
        &rig,
        &command([
            &[0x1100_0003 | REL, 0x600, 0x1111, 0x604, 0x2222],
            &[0x1500_0001 | REL | 1 << 18, 0x600, 0x60c],
            &command([&[0x1480_0002 | REL, 0x608], &at(VA.add(0x40))]),
            &command([&[0x1200_0002 | REL, 0x600], &at(VA)]),
            &command([&[0x1200_0002 | REL, 0x604], &at(VA.add(4))]),
            &command([&[0x1200_0002 | REL, 0x608], &at(VA.add(8))]),
            &command([&[0x1200_0002 | REL, 0x60c], &at(VA.add(12))]),
        ]),
    );
    assert_eq!((quad(&rig, 0), quad(&rig, 8)), (0x2222_0000_1111, 0x1111_0000_abcd));
}

#[test]
fn registers_are_the_contexts_own_and_outlive_a_job() {
    let rig = rig();
    let (one, other) = (rig.context(), rig.context());
    run_on(&rig, one, &[0x1100_0001 | REL, 0x600, 7]);
    run_on(&rig, other, &[0x1100_0001 | REL, 0x600, 8]);
    run_on(&rig, one, &command([&[0x1200_0002 | REL, 0x600], &at(VA)]));
    assert_eq!(word(&rig, 0), 7);
}

#[test]
fn what_is_written_to_a_register_that_is_not_the_contexts_is_dropped() {
    let rig = rig();
    poke(&rig, 0, &[9]);
    // The second is another engine's; the third cannot be written.
    for register in [0x700, 0x22600 - 0x2000, 0x3a8] {
        completes(
            &rig,
            &command([
                &[0x1100_0003 | REL, register, 1, 0x600, 5],
                &[0x1500_0001 | REL | 1 << 18, 0x600, register],
                &command([&[0x1480_0002 | REL, register], &at(VA)]),
                &command([&[0x1200_0002 | REL, 0x600], &at(VA)]),
            ]),
        );
        assert_eq!(word(&rig, 0), 5, "the other half of the command is done");
    }
    hangs(&rig, &command([&[0x1200_0002 | REL, 0x700], &at(VA)]));
    // The first compute engine by its address, and the render engine's, remapped, which is what user space uses.
    completes(&rig, &[0x1100_0001, 0x1a600, 1]);
    completes(&rig, &[0x1102_0001, 0x2600, 1]);
    completes(&rig, &[0x1100_0001, 0x2600, 1]);
    hangs(&rig, &command([&[0x1240_0002 | REL, 0x600], &at(VA)]));
}

#[test]
fn arithmetic_between_registers_and_memory() {
    let rig = rig();
    let alu = |op: u32, to: u32, from: u32| op << 20 | to << 10 | from;
    let minus = [alu(0x080, 0x20, 0), alu(0x080, 0x21, 1), alu(0x101, 0, 0), alu(0x580, 2, 0x31)];
    completes(
        &rig,
        &command([
            &[0x1100_0007 | REL, 0x600, 5, 0x604, 0, 0x608, 7, 0x60c, 0],
            &command([&[0x0d00_0003], &minus]),
            &command([&[0x1200_0002 | REL, 0x610], &at(VA)]),
            &command([&[0x1200_0002 | REL, 0x614], &at(VA.add(4))]),
        ]),
    );
    assert_eq!(quad(&rig, 0), !5u64.wrapping_sub(7));
    hangs(&rig, &[0x0d00_0000, 0x7ff0_0000]);
}

#[test]
fn arithmetic_loads_and_stores_where_the_accumulator_points_to() {
    let rig = rig();
    poke(&rig, 0x40, &[0x89ab_cdef, 0x0123_4567]);
    let alu = |op: u32, to: u32, from: u32| op << 20 | to << 10 | from;
    let point = |register| [alu(0x080, 0x20, register), alu(0x081, 0x21, 0), alu(0x100, 0, 0)];
    let load = command([&point(0), &[alu(0x082, 2, 0x31), alu(0x001, 0, 0)]]);
    let store = command([&point(1), &[alu(0x181, 0x31, 2), alu(0x002, 0, 0)]]);
    let [low, high] = at(VA.add(0x40));
    completes(
        &rig,
        &command([
            &[0x1100_0007 | REL, 0x600, low, 0x604, high, 0x608, VA.0 as u32, 0x60c, 0],
            &command([&[0x0d00_0008], &load, &store]),
        ]),
    );
    assert_eq!(quad(&rig, 0), 0x0123_4567_89ab_cdef);
    hangs(&rig, &[0x0d00_0000, alu(0x082, 2, 0x20), 0]);
}

#[test]
fn a_predicate_skips_what_follows_up_to_the_next_one() {
    // How the predicate is set, the result, and whether commands are skipped.
    let cases = [(0, 0, false), (1, 0, true), (1, 1, false), (1, 2, true), (2, 0, false), (2, 3, true), (0xf, 0, true)];
    for (condition, result, skips) in cases {
        let rig = rig();
        completes(
            &rig,
            &command([
                &[0x1100_0001 | REL, 0x3bc, result],
                &[0x0080_0000 | condition],
                &store(VA, 1),
                &[0x1880_8101, 0xdead_0000, 0].map(|word| if skips { word } else { 0 }),
                &[0x0080_0000],
                &store(VA.add(4), 1),
            ]),
        );
        assert_eq!([word(&rig, 0), word(&rig, 4)], [u32::from(!skips), 1], "{condition} {result}");
    }
    hangs(&rig(), &[0x0080_0003]);
    let rig = rig();
    let context = rig.context();
    run_on(&rig, context, &[0x0080_000f]);
    run_on(&rig, context, &store(VA, 7));
    assert_eq!(word(&rig, 0), 7, "a batch begins without a predicate");
}

#[test]
fn a_batch_goes_on_where_a_register_says() {
    let rig = rig();
    rig.batch_at(0x100, &command([&store(VA, 5), &[BBE]]));
    let [low, high] = at(BATCH.add(0x400));
    let jump = [0x1884_0101, 0xdead_0000, 0];
    completes(&rig, &command([&[0x1100_0003 | REL, 0x600, low, 0x604, high], &jump, &store(VA, 9)]));
    assert_eq!(word(&rig, 0), 5);
}

#[test]
fn a_conditional_end_ends_where_its_comparison_does_not_hold() {
    let cases =
        [(0, 5, 4, true), (0, 4, 4, false), (1, 4, 4, true), (2, 3, 4, true), (3, 5, 4, false), (5, 4, 4, false)];
    for (compare, memory, data, goes_on) in cases {
        let rig = rig();
        poke(&rig, 0x40, &[memory]);
        let end = command([&[0x1b20_0002 | compare << 12, data], &at(VA.add(0x40))]);
        completes(&rig, &command([&end, &store(VA, 1)]));
        assert_eq!(word(&rig, 0) == 1, goes_on, "{compare} {memory} {data}");
    }
    hangs(&rig(), &command([&[0x1b00_0002, 0], &at(VA)]));
}

#[test]
fn a_conditional_end_ends_one_level_or_all() {
    for (this_level, came_back) in [(0, 0), (1 << 18, 1)] {
        let rig = rig();
        let end = command([&[0x1b20_0002 | this_level, 0], &at(VA.add(0x40))]);
        rig.batch_at(0x100, &command([&end, &store(VA, 9), &[BBE]]));
        let jump = command([&[0x18c0_0001], &at(BATCH.add(0x400))]);
        completes(&rig, &command([&jump, &store(VA.add(4), 1)]));
        assert_eq!((word(&rig, 0), word(&rig, 4)), (0, came_back));
    }
}

/// Runs in virtual time, which passes by sleeping only.
fn in_virtual_time(body: fn()) {
    let report = sync::sim::run(&mut Random::new(1), Limits::default(), body);
    assert_eq!(report.outcome, Outcome::Finished);
}

#[test]
fn a_semaphore_waits_without_work_and_sees_the_word_change() {
    in_virtual_time(|| {
        let rig = rig();
        let (waits, other) = (rig.context(), rig.context());
        let wait = command([&[0x0e00_9003, 4], &at(VA.add(0x40)), &[0]]);
        rig.submit(waits, 1, &command([&wait, &store(VA, 1), &[BBE]]));
        let Step::Sleep(until) = rig.run() else { panic!("nothing but a wait: a pause") };
        let batch = Some(rig.batch_at(0x100, &store_batch(VA.add(8), 2)));
        rig.gpu.submit(other, Job { seqno: 5, batch, fence: None });
        assert_eq!(rig.run(), Step::Sleep(until));
        assert_eq!(rig.irq.take(), [Told::Done(other, 5)], "others run meanwhile");
        let commands = rig.gpu.counters().commands;
        assert_eq!((rig.run(), rig.gpu.counters().commands), (Step::Sleep(until), commands));
        // A second of waiting takes few looks, and the time is the context's own.
        let start = sync::time::now_ns();
        while sync::time::now_ns() - start < 1_000_000_000 {
            let Step::Sleep(until) = rig.run() else { panic!("a pause") };
            sync::time::sleep_ns(until - sync::time::now_ns());
        }
        let looks = rig.gpu.counters().commands - commands;
        assert!((250..300).contains(&looks), "{looks}");
        assert!(rig.gpu.context_ran_ns(waits) >= 1_000_000_000);
        poke(&rig, 0x40, &[5]);
        assert_eq!(rig.run(), Step::Idle);
        assert_eq!((word(&rig, 0), rig.irq.take()), (1, vec![Told::Done(waits, 1)]));
        assert!(rig.gpu.context_ran_ns(other) < 1_000_000);
    });
}

#[test]
fn a_waiting_context_can_be_destroyed() {
    let rig = rig();
    let context = rig.context();
    rig.submit(context, 1, &command([&[0x0e00_c002, 1], &at(VA)]));
    assert!(matches!(rig.run(), Step::Sleep(_)));
    rig.gpu.context_destroy(context);
    assert_eq!((rig.run(), rig.irq.take()), (Step::Idle, vec![]));
}

#[test]
fn all_modes_of_a_wait() {
    for (mode, word) in [(0, 5), (1, 4), (2, 3), (3, 4), (4, 4), (5, 9)] {
        let rig = rig();
        poke(&rig, 0, &[word]);
        completes(&rig, &command([&[0x0e00_8002 | mode << 12, 4], &at(VA)]));
    }
    let rig = rig();
    // A signal, where the word is right already; then a register of the context, and the engine's time.
    poke(&rig, 0, &[5]);
    completes(&rig, &command([&[0x0e00_1002, 5], &at(VA)]));
    let of_engine = |offset: u32| regs::engine_base(CCS.class, CCS.instance) + offset;
    let load = [0x1100_0001, of_engine(regs::CS_GPR), 7];
    completes(&rig, &command([&load, &[0x0e01_c003, 7, of_engine(regs::CS_GPR), 0, 0]]));
    completes(&rig, &[0x0e01_9002, 1, of_engine(regs::RING_TIMESTAMP), 0]);
    // A register that does not exist, a signal for one, a comparison that does not exist.
    hangs(&rig, &[0x0e01_9002, 0, of_engine(0x24), 0]);
    hangs(&rig, &[0x0e01_1002, 0, of_engine(regs::CS_GPR), 0]);
    hangs(&rig, &command([&[0x0e00_f002, 0], &at(VA)]));
}

#[test]
fn a_wait_for_a_register_pauses_and_ends_with_time() {
    in_virtual_time(|| {
        let rig = rig();
        let time = regs::engine_base(CCS.class, CCS.instance) + regs::RING_TIMESTAMP;
        let context = rig.context();
        let start = sync::time::now_ns();
        let later = xe_spec::platform::PVC.timestamp(start + 1_000_000) as u32;
        rig.submit(context, 1, &[0x0e01_9002, later, time, 0, BBE]);
        while let Step::Sleep(until) = rig.run() {
            sync::time::sleep_ns(until - sync::time::now_ns());
        }
        let waited = sync::time::now_ns() - start;
        assert!((900_000..1_200_000).contains(&waited), "{waited} ns for a millisecond");
        assert_eq!(rig.irq.take(), [Told::Done(context, 1)]);
    });
}

#[test]
fn a_loop_that_polls_pauses_and_a_loop_that_works_does_not() {
    let rig = rig();
    let context = rig.context();
    poke(&rig, 0x40, &[1]);
    let end = command([&[0x1b20_0002, 0], &at(VA.add(0x40))]);
    let jump = command([&[0x1880_0101], &at(BATCH)]);
    rig.submit(context, 1, &command([&end, &jump]));
    assert!(matches!(rig.run(), Step::Sleep(_)));
    poke(&rig, 0x40, &[0]);
    while rig.run() != Step::Idle {
        sync::yield_now();
    }
    assert_eq!(rig.irq.take(), [Told::Done(context, 1)]);
    // The word changes at every look.
    rig.submit(context, 2, &command([&atomic_inc(VA.add(0x40)), &end, &jump]));
    for _ in 0..1000 {
        assert_eq!(rig.gpu.step(CCS), Step::Ran);
    }
}

#[test]
fn a_loop_that_loads_the_same_and_writes_nothing_pauses() {
    let (rig, jump) = (rig(), command([&[0x1880_0101], &at(BATCH)]));
    let context = rig.context();
    let load = command([&[0x1480_0002 | REL, 0x608], &at(VA.add(0x40))]);
    rig.submit(context, 1, &command([&load, &store(VA, 1), &jump]));
    for _ in 0..1000 {
        assert_eq!(rig.gpu.step(CCS), Step::Ran);
    }
    let rig = self::rig();
    let context = rig.context();
    rig.submit(context, 1, &command([&load, &jump]));
    assert!(matches!(rig.run(), Step::Sleep(_)));
}

#[test]
fn flushes_write_what_they_are_told() {
    let rig = rig();
    let before = sync::time::now_ns();
    let pipe = |flags: u32, to: GpuVa| command([&[0x7a00_0004, flags], &at(to), &[0xffff_0001, 2]]);
    completes(&rig, &command([&[0x7a00_0a04, 0, 0, 0, 0, 0], &pipe(1 << 14, VA), &pipe(3 << 14, VA.add(8))]));
    assert_eq!(quad(&rig, 0), 0x2_ffff_0001);
    let hz = u64::from(rig.gpu.platform().reference_clock);
    let ticks = |ns: u64| (ns as u128 * hz as u128 / 1_000_000_000) as u64 & ((1 << 36) - 1);
    assert!((ticks(before)..=ticks(sync::time::now_ns())).contains(&quad(&rig, 8)));
    assert_eq!(rig.irq.take_interrupts(), []);
    hangs(&rig, &pipe(2 << 14, VA));
    hangs(&rig, &pipe(1 << 14 | 1 << 24, VA));
    completes(&rig, &command([&[0x1300_4203], &at(VA.add(16)), &[3, 4]]));
    assert_eq!(quad(&rig, 16), 0x4_0000_0003);
    completes(&rig, &[0x1300_0001, 0, 0, 0x0480_0000]);
    hangs(&rig, &command([&[0x1300_4203], &at(VA.add(16 | 4)), &[3, 4]]));
}

#[test]
fn a_batch_interrupts_where_it_asks_to_and_where_it_begins_to_wait() {
    let rig = rig();
    let of = |words: &[u32]| {
        completes(&rig, words);
        rig.irq.take_interrupts().len()
    };
    assert_eq!([of(&[0x0100_0000]), of(&[0]), of(&store(VA, 1))], [1, 0, 0]);
    assert_eq!([of(&[0x7a00_0004, 1 << 8, 0, 0, 0, 0]), of(&[0x7a00_0004, 0, 0, 0, 0, 0])], [1, 0]);
    assert_eq!([of(&[0x1300_0103, 0, 0, 0, 0]), of(&[0x1300_0003, 0, 0, 0, 0])], [1, 0]);
    let context = rig.context();
    let wait = command([&[0x0e00_c002, 1], &at(VA.add(0x40))]);
    rig.submit(context, 1, &command([&store(VA, 5), &wait, &[BBE]]));
    while rig.irq.take_interrupts().is_empty() {
        rig.gpu.step(CCS);
    }
    assert_eq!(word(&rig, 0), 5);
    for _ in 0..50 {
        rig.gpu.look_again();
        assert_eq!(rig.gpu.step(CCS), Step::Ran);
    }
    assert_eq!(rig.irq.take_interrupts(), [], "once a wait");
}

#[test]
fn state_of_shaders_is_taken_and_a_walker_is_not() {
    let rig = rig();
    let zeros = |dw0: u32, dwords: usize| command([&[dw0], &vec![0; dwords - 1]]);
    completes(
        &rig,
        &command([
            &zeros(0x6109_0001, 3),
            &[0x6904_0302],
            &zeros(0x7200_0004, 6),
            &zeros(0x6105_0000, 2),
            &zeros(0x6101_0014, 22),
            &store(VA, 1),
        ]),
    );
    assert_eq!(word(&rig, 0), 1);
    hangs(&rig, &zeros(0x7208_0025, 39));
}

#[test]
fn a_timestamp_of_a_context_counts_its_own_time() {
    in_virtual_time(|| {
        let rig = rig();
        let context = rig.context();
        let wait = command([&[0x0e00_c002, 1], &at(VA.add(0x40))]);
        rig.submit(context, 1, &command([&wait, &[0x1200_0002 | REL, 0x3a8], &at(VA), &[BBE]]));
        assert!(matches!(rig.run(), Step::Sleep(_)));
        sync::time::sleep_ns(10_000_000);
        poke(&rig, 0x40, &[1]);
        assert_eq!(rig.run(), Step::Idle);
        sync::time::sleep_ns(10_000_000);
        assert_eq!(word(&rig, 0), 192_000, "ticks of 19.2 MHz in 10 ms");
        assert_eq!(rig.gpu.context_ran_ns(context), 10_000_000, "and none while it has no job");
    });
}

#[test]
fn the_higher_priority_goes_first_and_a_timeslice_keeps_the_turn() {
    let rig = rig();
    let share = |priority, timeslice_us| Share { priority, timeslice_us };
    let on = |share| rig.gpu.context_create_on(&[CCS], ASID, share);
    let low = on(share(Priority::Low, 0));
    let (two, three) = (on(share(Priority::Normal, 32)), on(share(Priority::Normal, 48)));
    // Each counts its commands in a word of its own.
    for (n, context) in [(0, low), (1, two), (2, three)] {
        let inc = atomic_inc(VA.add(4 * n));
        let batch = Some(rig.batch_at(0x40 * n as usize, &command([&inc, &inc, &inc, &inc, &inc, &inc, &[BBE]])));
        rig.gpu.submit(context, Job { seqno: 1, batch, fence: None });
    }
    let counts = |steps: usize| {
        for _ in 0..steps {
            assert_eq!(rig.gpu.step(CCS), Step::Ran);
        }
        [word(&rig, 0), word(&rig, 4), word(&rig, 8)]
    };
    let seen = [counts(1), counts(1), counts(1), counts(2), counts(2), counts(3)];
    assert_eq!(seen.map(|[low, ..]| low), [0; 6], "the low one waits");
    let turns = seen.map(|[_, two, three]| (two, three));
    assert_eq!(turns, [(1, 0), (2, 0), (2, 1), (2, 3), (4, 3), (4, 6)]);
    rig.gpu.context_share(low, share(Priority::High, 0));
    assert_eq!(rig.run(), Step::Idle);
    assert_eq!(counts(0), [6, 6, 6]);
}

#[test]
fn a_fault_of_a_low_priority_is_used_at_once() {
    let mut rig = rig();
    let low = rig.gpu.context_create_on(&[CCS], ASID, Share { priority: Priority::Low, timeslice_us: 0 });
    let page = VA.add(SZ_64K);
    rig.submit(low, 1, &store_batch(page, 1));
    assert_eq!(rig.run(), Step::Wait);
    let fault = rig.irq.the_fault();
    let high = rig.gpu.context_create_on(&[CCS], ASID, Share { priority: Priority::High, timeslice_us: 0 });
    let batch = Some(rig.batch_at(0x100, &command([&[0x1880_0001], &at(BATCH.add(0x400))])));
    rig.gpu.submit(high, Job { seqno: 1, batch, fence: None });
    let gpu = rig.gpu.clone();
    rig.tables.map(&gpu, page, 0, system(gpu.iommu_map(HostFrame(1), 1, true)));
    rig.gpu.fault_ack(fault.slot, FaultAck::Replay);
    assert_eq!(rig.gpu.step(CCS), Step::Ran);
    assert_eq!(rig.bus.word(BusAddr::System(HostFrame(1)), 0), 1);
}

#[test]
fn a_context_of_several_engines_runs_where_there_is_least_to_do() {
    let rig = rig();
    let engines = [0, 1].map(|instance| EngineId { instance, ..CCS });
    let on = |placement: &[EngineId]| rig.gpu.context_create_on(placement, ASID, Share::default());
    let (spinner, any) = (on(&engines[..1]), on(&engines));
    let jump = Some(rig.batch_at(0x200, &command([&[0x1880_0001], &at(BATCH.add(0x800))])));
    rig.gpu.submit(spinner, Job { seqno: 1, batch: jump, fence: None });
    rig.irq.take_ready();
    // Its register goes with it.
    let batch = |words: &[u32]| Some(rig.batch_at(0, &command([words, &[BBE]])));
    rig.gpu.submit(any, Job { seqno: 1, batch: batch(&[0x1100_0001 | REL, 0x600, 7]), fence: None });
    assert_eq!(rig.irq.take_ready(), [engines[1]]);
    while rig.gpu.step(engines[1]) != Step::Idle {}
    rig.gpu.context_destroy(spinner);
    let other = on(&engines[1..]);
    rig.gpu.submit(other, Job { seqno: 1, batch: jump, fence: None });
    rig.irq.take_ready();
    let store = command([&[0x1200_0002 | REL, 0x600], &at(VA)]);
    rig.gpu.submit(any, Job { seqno: 2, batch: batch(&store), fence: None });
    assert_eq!(rig.irq.take_ready(), [engines[0]]);
    // It is not idle now: what comes next stays behind what it does.
    rig.gpu.context_destroy(other);
    let third = on(&engines[..1]);
    rig.gpu.submit(third, Job { seqno: 1, batch: jump, fence: None });
    rig.gpu.submit(any, Job { seqno: 3, batch: None, fence: Some((VA.add(8), 3)) });
    rig.irq.take();
    for _ in 0..20 {
        rig.gpu.step(engines[0]);
    }
    assert_eq!((rig.irq.take(), word(&rig, 0)), (vec![Told::Done(any, 2), Told::Done(any, 3)], 7));
    assert_eq!(rig.gpu.step(engines[1]), Step::Idle);
    rig.gpu.context_destroy(any);
    assert_eq!(rig.gpu.take_records(), []);
}

#[test]
fn a_pause_of_one_and_the_rest_of_an_engine_are_nobody_elses_time() {
    in_virtual_time(|| {
        let rig = rig();
        let (waits, other) = (rig.context(), rig.context());
        let batch = Some(rig.batch_at(0x100, &store_batch(VA.add(8), 2)));
        let run_other = |seqno| rig.gpu.submit(other, Job { seqno, batch, fence: None });
        let ran = || [waits, other].map(|context| rig.gpu.context_ran_ns(context) / 1_000_000);
        // The step that ends the job is the last one: nobody asks the engine for more, and time passes.
        run_other(1);
        assert_eq!([rig.gpu.step(CCS), rig.gpu.step(CCS)], [Step::Ran; 2]);
        assert_eq!(rig.irq.take(), [Told::Done(other, 1)]);
        sync::time::sleep_ns(5_000_000);
        rig.submit(waits, 1, &command([&[0x0e00_9003, 4], &at(VA.add(0x40)), &[0]]));
        assert!(matches!(rig.run(), Step::Sleep(_)));
        assert_eq!(ran(), [0, 0]);
        // The pause is over when the other one comes.
        sync::time::sleep_ns(7_000_000);
        run_other(2);
        assert!(matches!(rig.run(), Step::Sleep(_)));
        assert_eq!(ran(), [7, 0]);
        sync::time::sleep_ns(1_000_000);
        rig.gpu.context_destroy(waits);
        sync::time::sleep_ns(3_000_000);
        run_other(3);
        assert_eq!((rig.run(), ran()), (Step::Idle, [0, 0]));
    });
}

#[test]
fn what_passes_before_the_next_step_counts_already() {
    in_virtual_time(|| {
        let rig = rig();
        let (spins, other) = (rig.context(), rig.context());
        let ran = || [spins, other].map(|context| rig.gpu.context_ran_ns(context) / 1_000_000);
        rig.submit(spins, 1, &command([&[0x1880_0001], &at(BATCH)]));
        assert_eq!(rig.gpu.step(CCS), Step::Ran);
        sync::time::sleep_ns(5_000_000);
        assert_eq!(ran(), [5, 0]);
        assert_eq!((rig.gpu.step(CCS), ran()), (Step::Ran, [5, 0]));
    });
}
