//! The end of a run: everything unwinds, and what does not is counted.

use crate::{message, seed, under};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use sync::sim::{Outcome, Replay};
use sync::{Condvar, Mutex, RwLock, choose, spawn, time, yield_now};

struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_abandoned_run_unwinds_every_task_and_releases_every_guard() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let locks = Arc::new((Mutex::new(()), RwLock::new(()), Condvar::new(), Mutex::new(())));
    for n in 0..100 {
        dropped.store(0, Ordering::Relaxed);
        let (count, shared) = (dropped.clone(), locks.clone());
        let report = seed(n, move || {
            let part = || (Dropped(count.clone()), shared.clone());
            let (mark, it) = part();
            spawn("holds", move || {
                let (_mark, _guard, _read) = (mark, it.0.lock(), it.1.read());
                it.2.wait(&mut it.3.lock()); // for ever
            });
            let (mark, it) = part();
            spawn("waits", move || {
                let _mark = mark;
                let _write = it.1.write();
                let _guard = it.0.lock();
                time::sleep_ns(u64::MAX / 2);
            });
            let (mark, it) = part();
            spawn("never", move || drop((mark, it)));
            let _mark = Dropped(count.clone());
            for _ in 0..choose(6) {
                yield_now();
            }
            panic!("enough");
        });
        assert_eq!(message(&report), "enough");
        assert_eq!(report.leaked, 0);
        assert_eq!(dropped.load(Ordering::Relaxed), 4, "seed {n}");
        assert!(locks.0.try_lock().is_some() && locks.1.try_write().is_some() && locks.3.try_lock().is_some());
    }
}

#[test]
fn a_destructor_that_needs_a_lock_of_another_task_gets_it() {
    struct Needs(Arc<Mutex<u32>>);
    impl Drop for Needs {
        fn drop(&mut self) {
            *self.0.lock() += 1;
        }
    }
    let lock = Arc::new(Mutex::new(0));
    let shared = lock.clone();
    let report = under(&mut Replay::default(), move || {
        let needs = Needs(shared.clone());
        let holder = spawn("holder", move || {
            let _guard = shared.lock();
            time::sleep_ns(2);
        });
        spawn("panics", || {
            time::sleep_ns(1);
            panic!("while the lock is held");
        });
        holder.join();
        drop(needs);
    });
    // The root unwinds first, and cannot go on before the holder has unwound.
    assert!(message(&report).contains("while the lock is held"));
    assert_eq!((report.leaked, *lock.lock()), (0, 1));
}

#[test]
fn a_waiter_that_unwinds_takes_the_mutex_back_first() {
    struct StillHeld(Arc<Mutex<()>>);
    impl Drop for StillHeld {
        fn drop(&mut self) {
            let held = self.0.try_lock().is_none();
            FOUND_HELD.store(if held { 1 } else { 2 }, Ordering::Relaxed);
        }
    }
    static FOUND_HELD: AtomicUsize = AtomicUsize::new(0);
    let report = under(&mut Replay::default(), || {
        let lock = Arc::new(Mutex::new(()));
        let shared = lock.clone();
        spawn("waits", move || Condvar::new().wait(&mut shared.lock()));
        spawn("holds", move || {
            time::sleep_ns(1);
            let _guard = lock.lock();
            let _check = StillHeld(lock.clone());
            time::sleep_ns(2);
        });
        time::sleep_ns(2);
        panic!("while one waits and one holds");
    });
    assert_eq!((report.outcome.is_finding(), report.leaked), (true, 0));
    assert_eq!(FOUND_HELD.load(Ordering::Relaxed), 1);
}

#[test]
fn what_cannot_be_unwound_is_counted() {
    struct WaitsForEver;
    impl Drop for WaitsForEver {
        fn drop(&mut self) {
            Condvar::new().wait(&mut Mutex::new(()).lock());
        }
    }
    let report = seed(0, || {
        let _stuck = WaitsForEver;
        panic!("unwinds into the destructor");
    });
    assert!(message(&report).contains("unwinds"));
    assert_eq!(report.leaked, 1);
    // The thread is none the worse for it.
    assert_eq!(seed(0, || drop(spawn("after", || ()))).outcome, Outcome::Finished);
}

#[test]
fn a_run_does_not_wait_for_daemons() {
    let report = seed(0, || {
        let work = Arc::new((Mutex::new(0u32), Condvar::new()));
        let shared = work.clone();
        sync::spawn_daemon("service", move || {
            let mut left = shared.0.lock();
            loop {
                while *left == 0 {
                    shared.1.wait(&mut left);
                }
                *left -= 1;
                shared.1.notify_all();
            }
        });
        *work.0.lock() = 3;
        work.1.notify_all();
        let mut left = work.0.lock();
        while *left > 0 {
            work.1.wait(&mut left);
        }
    });
    assert_eq!((report.outcome, report.leaked), (Outcome::Finished, 0));
}

#[test]
fn places_of_tasks_are_reused_and_too_many_are_a_finding() {
    let report = seed(0, || (0..200).for_each(|_| spawn("short", || ()).join()));
    assert_eq!((report.outcome, report.tasks.len()), (Outcome::Finished, 201));
    let report = seed(0, || {
        let gate = Arc::new((Mutex::new(()), Condvar::new()));
        for _ in 0..64 {
            let gate = gate.clone();
            spawn("waits", move || gate.1.wait(&mut gate.0.lock()));
        }
    });
    assert!(message(&report).contains("more than 64 tasks"), "{}", report.outcome);
}
