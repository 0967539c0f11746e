//! Flushes against accesses under thousands of schedules: after a flush nothing reaches the old frame.

mod support;

use std::sync::Arc;
use support::*;
use sync::Mutex;
use sync::sim::{Limits, Outcome, Pct, Random, Schedule, run};
use units::{GpuVa, SZ_4K, SZ_64K};
use xe_hw::port::BusAddr;
use xe_hw::{Counters, FlushFault, Injection, Step};
use xe_spec::fault::FaultAck;
use xe_spec::platform::PVC;

const VA: GpuVa = GpuVa(0x4000_0000);
const SCHEDULES: u64 = 3_000;

/// Three stores against: clear the entries, flush, take the frame away. With a first store before (a TLB hit to
/// come) or not (a walk to race with).
fn scene(flush: FlushFault, warm: bool, seen: &Mutex<Vec<Counters>>) {
    let mut rig = Rig::with(&PVC, Injection { flush, ..Injection::default() }, true);
    let gpu = rig.gpu.clone();
    rig.tables.map_group(&gpu, VA, device(vram(0)));
    let context = rig.context();
    if warm {
        rig.submit(context, 1, &store_batch(VA, 1));
        rig.run();
        rig.irq.take();
    }
    let words = [&store(VA, 2)[..], &store(VA.add(4), 3), &store(VA.add(8), 4), &[BBE]].concat();
    rig.submit(context, 2, &words);
    let (engine, bus) = (gpu.clone(), rig.bus.clone());
    let engine = sync::spawn("engine", move || while engine.step(CCS) == Step::Ran {});
    let leaves = rig.tables.table(&gpu, VA, 0, false);
    gpu.table_write_run(leaves, (VA.0 >> 12) as usize & 511, &[0; 16]);
    rig.flush(VA.add(SZ_4K), SZ_64K - SZ_4K);
    bus.empty(vram(0));
    engine.join();
    if let [Told::Fault(fault)] = rig.irq.take()[..] {
        gpu.fault_ack(fault.slot, FaultAck::Kill);
    }
    rig.run();
    seen.lock().push(gpu.counters());
}

/// Counters at the end of every schedule.
fn explore(flush: FlushFault, warm: bool) -> Vec<Counters> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    for seed in 0..SCHEDULES {
        let mine = seen.clone();
        let (mut even, mut lopsided) = (Random::new(seed), Pct::new(seed, 3, 100));
        let schedule: &mut dyn Schedule = if seed % 2 == 0 { &mut even } else { &mut lopsided };
        let report = run(schedule, Limits::default(), move || scene(flush, warm, &mine));
        assert_eq!(report.outcome, Outcome::Finished, "seed {seed}");
    }
    Arc::try_unwrap(seen).map(Mutex::into_inner).unwrap_or_default()
}

#[test]
fn no_schedule_reaches_the_old_frame_after_a_flush() {
    for warm in [false, true] {
        let runs = explore(FlushFault::None, warm);
        let count = |what: fn(&Counters) -> bool| runs.iter().filter(|counters| what(counters)).count();
        assert_eq!(count(|counters| counters.stale_vram > 0), 0);
        assert!(count(|counters| counters.kills == 1) > 0, "some flushes came before an access");
        assert!(count(|counters| counters.kills == 0) > 0, "some came after all");
        assert!(count(|counters| counters.drains > 0) > 0, "some waited");
    }
}

/// A batch that jumps to itself is ended after the command that it is executing, whoever is quicker.
#[test]
fn a_context_that_ends_gets_no_other_turn() {
    for seed in 0..50 {
        let report = run(&mut Random::new(seed), Limits::default(), || {
            let mut rig = Rig::new();
            let gpu = rig.gpu.clone();
            rig.tables.map_group(&gpu, VA, device(vram(0)));
            let context = rig.context();
            let forever = [&store(VA, 1)[..], &[0x1880_0001, BATCH.0 as u32, (BATCH.0 >> 32) as u32]].concat();
            rig.submit(context, 1, &forever);
            rig.bus.shut_gate(BusAddr::Vram(vram(0)));
            let engine = sync::spawn("engine", {
                let gpu = gpu.clone();
                move || while gpu.step(CCS) == Step::Ran {}
            });
            rig.bus.await_visitor();
            let end = sync::spawn("end", {
                let gpu = gpu.clone();
                move || gpu.context_destroy(context)
            });
            // Time passes when nobody else can run: the command waits at the gate, and its end for the command.
            sync::time::sleep_ns(1);
            let before = gpu.counters().commands;
            rig.bus.open_gate();
            end.join();
            engine.join();
            assert_eq!(gpu.counters().commands - before, 1);
        });
        assert_eq!(report.outcome, Outcome::Finished, "seed {seed}");
    }
}

#[test]
fn a_flush_that_is_lost_or_does_not_wait_is_found() {
    for (flush, warm) in [(FlushFault::SkipDrain, false), (FlushFault::SkipDrain, true), (FlushFault::LoseAll, true)] {
        let runs = explore(flush, warm);
        assert!(runs.iter().any(|counters| counters.stale_vram > 0), "{flush:?}");
    }
}
