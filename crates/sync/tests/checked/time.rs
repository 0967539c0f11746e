//! Virtual time.

use crate::{find, message, seed};
use std::sync::Arc;
use sync::sim::{Limits, Outcome, Random, Replay, TimeRule, run};
use sync::{Condvar, Mutex, spawn, time, yield_now};

const MS: u64 = 1_000_000;

#[test]
fn virtual_time_passes_when_nothing_can_run() {
    let real = std::time::Instant::now();
    let report = seed(3, || {
        let start = time::now_ns();
        let sleeper = spawn("sleeper", move || {
            time::sleep_ns(3_600_000 * MS);
            assert_eq!(time::now_ns() - start, 3_600_000 * MS);
        });
        let (lock, condvar) = (Mutex::new(()), Condvar::new());
        let mut guard = lock.lock();
        assert!(!condvar.wait_for(&mut guard, 5 * MS), "nobody notifies");
        assert_eq!(time::now_ns() - start, 5 * MS);
        assert!(!condvar.wait_until(&mut guard, start), "long past");
        assert_eq!(time::now_ns() - start, 5 * MS);
        drop(guard);
        while time::now_ns() < start + 6 * MS {
            yield_now();
        }
        sleeper.join();
    });
    assert_eq!(report.outcome, Outcome::Finished);
    assert_eq!(report.virtual_ns, 3_600_000 * MS);
    assert!(real.elapsed().as_secs() < 60);
}

#[test]
fn a_timeout_races_with_slow_work_only_where_asked() {
    fn timed() {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let shared = gate.clone();
        let worker = spawn("worker", move || {
            *shared.0.lock() = true;
            shared.1.notify_all();
        });
        let mut done = gate.0.lock();
        while !*done {
            assert!(gate.1.wait_for(&mut done, 1000 * MS), "timed out");
        }
        drop(done);
        worker.join();
    }
    assert!(find(500, timed).is_none());
    let racing = Limits { time: TimeRule::Racing, ..Limits::default() };
    let found = (0..2000).map(|n| run(&mut Random::new(n), racing, timed)).find(|report| report.outcome.is_finding());
    let found = found.expect("a timeout before the notification");
    assert_eq!(message(&found), "timed out");
    assert_eq!(run(&mut Replay::new(found.deviations.clone()), racing, timed), found);
}
