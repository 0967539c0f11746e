//! The checker: what it finds, that it finds it again, and that it lets nothing behind.
// Some tests run live threads and real time beside the checker.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod end;
mod findings;
mod locks;
mod reduce;
mod schedules;
mod time;
mod worlds;

use std::sync::Arc;
use sync::atomic::AtomicU32;
use sync::sim::{Limits, Outcome, Random, RunReport, Schedule, run};
use sync::{Mutex, spawn};

fn under(schedule: &mut dyn Schedule, root: impl FnOnce() + Send + 'static) -> RunReport {
    run(schedule, Limits::default(), root)
}

fn seed(seed: u64, root: impl FnOnce() + Send + 'static) -> RunReport {
    under(&mut Random::new(seed), root)
}

/// The first finding among `seeds` random runs.
fn find(seeds: u64, root: fn()) -> Option<(u64, RunReport)> {
    (0..seeds).map(|n| (n, seed(n, root))).find(|(_, report)| report.outcome.is_finding())
}

#[track_caller]
fn message(report: &RunReport) -> &str {
    match &report.outcome {
        Outcome::Panicked { message, .. } => message,
        other => panic!("expected a panic: {other}"),
    }
}

/// Two tasks add to a counter, in two steps.
fn lost_update() {
    let count = Arc::new(AtomicU32::new(0));
    let tasks = [(); 2].map(|()| {
        let count = count.clone();
        spawn("adder", move || {
            for _ in 0..5 {
                count.store(count.load() + 1);
            }
        })
    });
    tasks.into_iter().for_each(sync::JoinHandle::join);
    assert_eq!(count.load(), 10, "an update was lost");
}

/// Two tasks take two locks, each in its own order.
fn ab_ba() {
    let locks = Arc::new((Mutex::new(0), Mutex::new(0)));
    let shared = locks.clone();
    let other = spawn("ba", move || {
        let b = shared.1.lock();
        let a = shared.0.lock();
        drop((a, b));
    });
    let a = locks.0.lock();
    let b = locks.1.lock();
    drop((a, b));
    other.join();
}
