//! Checked runs beside each other, inside each other, and beside live threads.

use crate::{ab_ba, seed};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use sync::Mutex;
use sync::atomic::AtomicU64;
use sync::sim::Outcome;

#[test]
fn runs_on_several_threads_beside_live_threads() {
    let live = Arc::new((Mutex::new(0u64), AtomicU64::new(0)));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    // On a busy machine the checkers could be through before the others begin.
    let begun = Arc::new(std::sync::Barrier::new(3));
    let crowd: Vec<_> = (0..2)
        .map(|_| {
            let (live, stop, begun) = (live.clone(), stop.clone(), begun.clone());
            std::thread::spawn(move || {
                let mut done = 0u64;
                begun.wait();
                loop {
                    *live.0.lock() += 1;
                    live.1.fetch_add(1);
                    done += 1;
                    if stop.load(Ordering::Relaxed) {
                        break done;
                    }
                }
            })
        })
        .collect();
    begun.wait();
    let checkers: Vec<_> = (0..2)
        .map(|_| std::thread::spawn(|| (0..300).map(|n| seed(n, ab_ba).trace_hash).collect::<Vec<_>>()))
        .collect();
    let hashes: Vec<_> = checkers.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    assert_eq!(hashes[0], hashes[1]);
    stop.store(true, Ordering::Relaxed);
    let done: u64 = crowd.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    assert!(done > 0);
    assert_eq!((*live.0.lock(), live.1.load()), (done, done));
}

#[test]
fn a_task_may_run_a_checker_and_wait_for_a_live_thread() {
    let lock = Arc::new(Mutex::new(0));
    let shared = lock.clone();
    let (held, release) = std::sync::mpsc::channel();
    let live = std::thread::spawn(move || {
        let mut guard = shared.lock();
        held.send(()).expect("the other end");
        std::thread::sleep(std::time::Duration::from_millis(20));
        *guard += 1;
    });
    release.recv().expect("the other end");
    let shared = lock.clone();
    let report = seed(0, move || {
        let inner = seed(1, ab_ba);
        assert_eq!(inner.trace_hash, seed(1, ab_ba).trace_hash);
        assert!(sync::sim::is_task());
        assert_eq!(*shared.lock(), 1, "held by the live thread until then");
    });
    assert_eq!(report.outcome, Outcome::Finished);
    live.join().expect("no panic");
    assert!(!sync::sim::is_task());
}
