//! Schedules, their text, and what a run tells of them.

use crate::{lost_update, seed, under};
use std::sync::Arc;
use sync::atomic::AtomicU32;
use sync::sim::{
    Decision, Deviation, Limits, OpKind, Pct, Random, Replay, RunReport, Schedule, Taken, TaskId, TraceRule, run,
};
use sync::{Condvar, Mutex, spawn};

#[test]
fn the_trace_tells_what_was_done_and_its_hash_depends_on_it() {
    let traced = Limits { trace: TraceRule::Steps, ..Limits::default() };
    let mut hashes = std::collections::BTreeSet::new();
    let runs: Vec<RunReport> = (0..20).map(|n| run(&mut Random::new(n), traced, lost_update)).collect();
    for report in &runs {
        hashes.insert(report.trace_hash);
        assert_eq!(report.trace.len() as u64, report.steps);
        let updates = report.trace.iter().filter(|step| step.op.kind == OpKind::Store && step.op.object == 1).count();
        assert_eq!(updates, 10);
    }
    assert!(hashes.len() > 15, "20 seeds, {} runs", hashes.len());
}

#[test]
fn a_deviation_is_read_as_it_is_written() {
    for text in ["17>3", "4=21"] {
        assert_eq!(text.parse::<Deviation>().map(|deviation| deviation.to_string()), Ok(text.to_owned()));
    }
    for text in ["", "17", "x>1", "3>64", "3>", "=1"] {
        assert!(text.parse::<Deviation>().is_err(), "{text}");
    }
}

#[test]
fn a_deviation_that_does_not_apply_is_passed_over() {
    let plain = under(&mut Replay::default(), lost_update);
    for text in ["3>63", "4>0", "5=7", "100000>1"] {
        let deviations = vec![text.parse::<Deviation>().expect("a deviation"); 2];
        assert_eq!(under(&mut Replay::new(deviations), lost_update), plain, "{text}");
    }
}

#[test]
fn a_task_that_waits_cannot_be_picked() {
    let waits_for_ever = || {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let shared = gate.clone();
        let waiter = spawn("waiter", move || {
            let mut open = shared.0.lock();
            while !*open {
                shared.1.wait(&mut open);
            }
        });
        for _ in 0..6 {
            sync::point();
        }
        *gate.0.lock() = true;
        gate.1.notify_all();
        waiter.join();
    };
    let plain = under(&mut Replay::default(), waits_for_ever);
    let everywhere = (1..plain.steps).map(|step| Deviation { step, to: Taken::Task(TaskId(1)) }).collect();
    let report = under(&mut Replay::new(everywhere), waits_for_ever);
    assert_eq!((report.outcome.is_finding(), report.virtual_ns), (false, plain.virtual_ns));
    let applied = Replay::new(report.deviations.clone());
    assert_eq!(under(&mut applied.clone(), waits_for_ever), report);
}

/// Enumerates all schedules, depth first, as an explorer would.
struct Exhaustive {
    path: Vec<(u32, u32)>,
    depth: usize,
}

impl Exhaustive {
    fn next(&mut self, of: u32) -> u32 {
        if self.depth == self.path.len() {
            self.path.push((0, of));
        }
        self.depth += 1;
        self.path[self.depth - 1].0
    }

    fn advance(&mut self) -> bool {
        self.depth = 0;
        while let Some((at, of)) = self.path.pop() {
            if at + 1 < of {
                self.path.push((at + 1, of));
                return true;
            }
        }
        false
    }
}

impl Schedule for Exhaustive {
    fn pick(&mut self, at: &Decision<'_>) -> TaskId {
        let n = self.next(at.candidates().len());
        at.candidates().nth(n).expect("one of the candidates")
    }
    fn choose(&mut self, _: u64, n: u32) -> u32 {
        self.next(n)
    }
}

#[test]
fn all_schedules_can_be_enumerated() {
    let mut schedule = Exhaustive { path: Vec::new(), depth: 0 };
    let (mut runs, mut lost) = (0, 0);
    let mut hashes = std::collections::BTreeSet::new();
    loop {
        let report = under(&mut schedule, || {
            let count = Arc::new(AtomicU32::new(0));
            let tasks = [(); 2].map(|()| {
                let count = count.clone();
                spawn("adder", move || count.store(count.load() + 1))
            });
            tasks.into_iter().for_each(sync::JoinHandle::join);
            assert_eq!(count.load(), 2);
        });
        runs += 1;
        lost += u32::from(report.outcome.is_finding());
        assert!(hashes.insert(report.trace_hash), "no run twice");
        if !schedule.advance() {
            break;
        }
    }
    assert!(lost > 0 && lost < runs, "{lost} of {runs}");
}

/// Who looks on counts under a lock, and the run is the one that it would be without.
#[test]
fn what_is_unscheduled_changes_no_run() {
    fn adders(looks_on: bool) {
        let (count, seen) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(0)));
        let look = |seen: &Mutex<u32>| sync::unscheduled(|| *seen.lock() += 1);
        let tasks = [(); 2].map(|()| {
            let (count, seen) = (count.clone(), seen.clone());
            spawn("adder", move || {
                for _ in 0..5 {
                    count.fetch_add(1);
                    if looks_on {
                        look(&seen);
                    }
                }
            })
        });
        tasks.into_iter().for_each(sync::JoinHandle::join);
        assert_eq!(sync::unscheduled(|| *seen.lock()), if looks_on { 10 } else { 0 });
    }
    for n in 0..20 {
        let (with, without) = (seed(n, || adders(true)), seed(n, || adders(false)));
        assert_eq!((with.outcome.is_finding(), with.trace_hash), (false, without.trace_hash));
    }
}

/// Priorities that are asked at every choice.
struct AlwaysAsked(Pct);

impl Schedule for AlwaysAsked {
    fn pick(&mut self, at: &Decision<'_>) -> TaskId {
        self.0.pick(at)
    }
    fn choose(&mut self, step: u64, n: u32) -> u32 {
        self.0.choose(step, n)
    }
    fn started(&mut self, task: TaskId) {
        self.0.started(task);
    }
}

/// That a schedule is not asked the same again changes no run.
#[test]
fn who_goes_on_is_who_would_be_picked() {
    fn scene() {
        let count = Arc::new(Mutex::new(0));
        let adders = [(); 3].map(|()| {
            let count = count.clone();
            spawn("adder", move || {
                for n in 0..20 {
                    *count.lock() += 1;
                    if n % 7 == 0 {
                        sync::yield_now();
                    }
                }
                let last = count.clone();
                spawn("late", move || *last.lock() += 1).join();
            })
        });
        adders.into_iter().for_each(sync::JoinHandle::join);
    }
    for seed in 0..100 {
        let mut asked = AlwaysAsked(Pct::new(seed, 4, 60));
        assert_eq!(under(&mut Pct::new(seed, 4, 60), scene), under(&mut asked, scene));
    }
}

/// That most points look at nothing changes no run, wherever it ends: where each step is written down, each is decided.
#[test]
fn what_is_passed_quickly_is_what_would_be_decided() {
    fn scene() {
        let shared = Arc::new((Mutex::new(0), Condvar::new(), sync::RwLock::new(0)));
        let tasks = [0, 1, 2].map(|number| {
            let shared = shared.clone();
            spawn("both", move || {
                let (count, changed, table) = &*shared;
                for n in 0..8 {
                    let (seen, chosen) = (*table.read(), sync::choose(3));
                    *table.write() = seen + chosen;
                    *count.lock() += 1;
                    changed.notify_all();
                    if n % 3 == number {
                        sync::yield_now();
                    }
                }
                let mut count = count.lock();
                while *count < 20 {
                    changed.wait(&mut count);
                }
            })
        });
        tasks.into_iter().for_each(sync::JoinHandle::join);
    }
    let mut ended = 0;
    for seed in 0..200 {
        let limits = Limits { steps: 40 + seed, ..Limits::default() };
        let pct = |limits| run(&mut Pct::new(seed, 4, 60), limits, scene);
        let decided = pct(Limits { trace: TraceRule::Steps, ..limits });
        let quick = pct(limits);
        ended += u32::from(quick.outcome.is_finding());
        assert_eq!(quick, RunReport { trace: Vec::new(), ..decided });
    }
    assert!((50..200).contains(&ended), "{ended} of 200 runs end at their limit");
}
