//! What the checker and the live locks cost. Run with `--release`; figures are of this machine, now.
// It measures real time, from outside of any run.
#![allow(clippy::disallowed_types)]

use std::sync::Arc;
use std::time::Instant;
use sync::atomic::AtomicU64;
use sync::sim::{Limits, Pct, Random, Replay, Schedule, run};
use sync::{JoinHandle, Mutex, spawn};

/// Four tasks, fifty increments each under one mutex.
fn toy() {
    let count = Arc::new(Mutex::new(0u32));
    let tasks: Vec<JoinHandle> = (0..4)
        .map(|_| {
            let count = count.clone();
            spawn("adder", move || (0..50).for_each(|_| *count.lock() += 1))
        })
        .collect();
    tasks.into_iter().for_each(JoinHandle::join);
    assert_eq!(*count.lock(), 200);
}

fn checked(name: &str, runs: u64, mut schedule: impl FnMut(u64) -> Box<dyn Schedule>) {
    let start = Instant::now();
    let (mut steps, mut switches) = (0, 0);
    for n in 0..runs {
        let report = run(&mut *schedule(n), Limits::default(), toy);
        assert!(!report.outcome.is_finding());
        steps += report.steps;
        switches += report.switches;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{name:<14} {:>8.0} runs/s  {:>4} points/run  {:>5.1} ns/point  {:>5.1} M switches/s",
        runs as f64 / seconds,
        steps / runs,
        seconds * 1e9 / steps as f64,
        switches as f64 / seconds / 1e6
    );
}

fn live(name: &str, mut body: impl FnMut()) {
    const TIMES: u32 = 20_000_000;
    let start = Instant::now();
    (0..TIMES).for_each(|_| body());
    println!("{name:<32} {:>5.1} ns", start.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES));
}

fn main() {
    let (lock, word) = (Mutex::new(0u64), AtomicU64::new(0));
    live("live lock and unlock", || *lock.lock() += 1);
    live("live atomic add", || {
        word.fetch_add(1);
    });
    checked("random", 100_000, |n| Box::new(Random::new(n)));
    checked("pct, depth 3", 200_000, |n| Box::new(Pct::new(n, 3, 200)));
    checked("run to block", 200_000, |_| Box::new(Replay::default()));
    live("lock and unlock, checker present", || *lock.lock() += 1);
}
