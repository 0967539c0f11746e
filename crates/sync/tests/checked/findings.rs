//! What the checker finds.

use crate::{ab_ba, find, lost_update, message, seed, under};
use std::sync::Arc;
use sync::atomic::{AtomicBool, AtomicU32};
use sync::sim::{BlockedOn, Limits, Outcome, Pct, Random, Replay, TaskId, run};
use sync::{Condvar, Mutex, RwLock, choose, spawn, yield_now};

#[test]
fn finds_a_lost_update_and_replays_it() {
    let (at, report) = find(20, lost_update).expect("a lost update within 20 seeds");
    assert!(message(&report).contains("an update was lost"));
    assert_eq!(seed(at, lost_update), report, "the same seed, the same run");
    let replayed = under(&mut Replay::new(report.deviations.clone()), lost_update);
    assert_eq!(replayed, report, "its deviations, the same run");
    assert!(!under(&mut Replay::default(), lost_update).outcome.is_finding(), "run to block loses nothing");
}

#[test]
fn deviations_shrink() {
    let (_, report) = find(20, lost_update).expect("a lost update");
    let mut kept = report.deviations.clone();
    let mut n = 0;
    while n < kept.len() {
        let mut fewer = kept.clone();
        fewer.remove(n);
        if under(&mut Replay::new(fewer.clone()), lost_update).outcome.is_finding() {
            kept = fewer;
        } else {
            n += 1;
        }
    }
    // Away in the middle of an update, and back; taking away one at a time may leave one more.
    assert!((1..=3).contains(&kept.len()) && kept.len() < report.deviations.len(), "{kept:?}");
}

#[test]
fn pct_finds_it_too_and_an_atomic_update_is_never_lost() {
    let found = (0..200).any(|n| under(&mut Pct::new(n, 2, 40), lost_update).outcome.is_finding());
    assert!(found);
    fn no_lost_update() {
        let count = Arc::new(AtomicU32::new(0));
        let tasks = [(); 3].map(|()| {
            let count = count.clone();
            spawn("adder", move || {
                count.fetch_add(1);
            })
        });
        tasks.into_iter().for_each(sync::JoinHandle::join);
        assert_eq!(count.load(), 3);
    }
    assert!(find(300, no_lost_update).is_none());
}

#[test]
fn finds_an_ab_ba_deadlock_and_says_who_waits_for_whom() {
    let (at, report) = find(50, ab_ba).expect("a deadlock");
    let Outcome::Deadlock { waiting } = &report.outcome else { panic!("{}", report.outcome) };
    let held_by = |n: usize| match &waiting[n].on {
        BlockedOn::Lock { owner, .. } => *owner,
        other => panic!("{other}"),
    };
    assert_eq!((waiting[0].name, held_by(0)), ("root", Some("ba")));
    assert_eq!((waiting[1].name, held_by(1)), ("ba", Some("root")));
    assert_eq!(seed(at, ab_ba), report);
    assert_eq!(report.leaked, 0);
}

#[test]
fn finds_a_self_deadlock_a_lost_wakeup_and_a_recursive_read() {
    let report = seed(0, || {
        let lock = Mutex::new(());
        let _first = lock.lock();
        let _second = lock.lock();
    });
    assert!(matches!(report.outcome, Outcome::Deadlock { .. }), "{}", report.outcome);

    fn lost_wakeup() {
        let gate = Arc::new((AtomicBool::new(false), Mutex::new(()), Condvar::new()));
        let shared = gate.clone();
        let opener = spawn("opener", move || {
            shared.0.store(true);
            shared.2.notify_one(); // without the mutex: may come between the look and the wait
        });
        let mut guard = gate.1.lock();
        while !gate.0.load() {
            gate.2.wait(&mut guard);
        }
        drop(guard);
        opener.join();
    }
    let (_, report) = find(200, lost_wakeup).expect("a lost wakeup");
    assert!(report.outcome.to_string().contains("waits for a notification of Condvar"), "{}", report.outcome);

    fn recursive_read() {
        let lock = Arc::new(RwLock::new(()));
        let shared = lock.clone();
        let writer = spawn("writer", move || drop(shared.write()));
        let outer = lock.read();
        let inner = lock.read(); // deadlocks where the writer queued up in between
        drop((outer, inner));
        writer.join();
    }
    assert!(find(200, recursive_read).is_some());
}

#[test]
fn a_panic_is_a_finding_with_message_and_place() {
    let report = seed(1, || {
        let task = spawn("unlucky", || panic!("number {}", 13));
        task.join();
        unreachable!("the run ends at the panic");
    });
    let Outcome::Panicked { name, location, .. } = &report.outcome else { panic!("{}", report.outcome) };
    assert_eq!((*name, message(&report)), ("unlucky", "number 13"));
    assert!(location.contains("findings.rs"), "{location}");

    let caught = seed(1, || {
        let _ = std::panic::catch_unwind(|| panic!("caught"));
    });
    assert_eq!(message(&caught), "caught");
    let quiet = seed(1, || std::panic::resume_unwind(Box::new("no hook")));
    assert_eq!(message(&quiet), "no hook");
}

#[test]
fn a_livelock_is_a_finding() {
    let limits = Limits { steps: 1000, ..Limits::default() };
    let report = run(&mut Random::new(7), limits, || {
        let flag = AtomicBool::new(false);
        while !flag.load() {
            yield_now();
        }
    });
    assert_eq!(report.outcome, Outcome::StepLimit { task: TaskId(0), name: "root" });
    assert_eq!(report.steps, 1000);
    let report = run(&mut Random::new(7), limits, || while choose(2) < 2 {});
    assert!(matches!(report.outcome, Outcome::StepLimit { .. }));
}
