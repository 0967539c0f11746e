//! Locks and their ranks, under every schedule.

use crate::{find, message, seed, under};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use sync::atomic::AtomicU32;
use sync::sim::{Limits, Outcome, Pct, Random, UnlockRule, run};
use sync::{Condvar, Mutex, RwLock, rank, spawn};

#[test]
fn locks_exclude_under_every_schedule() {
    fn crowd() {
        let pair = Arc::new((Mutex::new(0), RwLock::new(0), AtomicU32::new(0)));
        let tasks = [(); 4].map(|()| {
            let pair = pair.clone();
            spawn("crowd", move || {
                let mut count = pair.0.lock();
                assert_eq!(pair.2.fetch_add(1), 0);
                *count += 1;
                pair.2.fetch_sub(1);
                drop(count);
                let before = *pair.1.read();
                let mut value = pair.1.write();
                sync::point();
                assert!(*value >= before);
                *value += 1;
                let read = sync::RwLockWriteGuard::downgrade(value);
                sync::point();
                assert!(*read > before);
            })
        });
        tasks.into_iter().for_each(sync::JoinHandle::join);
        assert_eq!((*pair.0.lock(), *pair.1.read()), (4, 4));
    }
    assert_eq!(find(500, crowd).map(|(_, report)| report.outcome), None);
    for n in 0..200 {
        let report = under(&mut Pct::new(n, 3, 60), crowd);
        assert_eq!(report.outcome, Outcome::Finished);
    }
}

#[test]
fn readers_share_and_a_queue_loses_nothing() {
    let (shared, missed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for n in 0..50 {
        let (most, spilled) = (shared.clone(), missed.clone());
        let report = seed(n, move || {
            let lock = Arc::new((RwLock::new(()), AtomicU32::new(0)));
            let readers = [(); 3].map(|()| {
                let (lock, most) = (lock.clone(), most.clone());
                spawn("reader", move || {
                    let _guard = lock.0.read();
                    most.fetch_max(lock.1.fetch_add(1) as usize + 1, Ordering::Relaxed);
                    lock.1.fetch_sub(1);
                })
            });
            readers.into_iter().for_each(sync::JoinHandle::join);

            let queue = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
            let takers = [(); 2].map(|()| {
                let (queue, spilled) = (queue.clone(), spilled.clone());
                spawn("taker", move || {
                    for _ in 0..3 {
                        let mut items = queue.0.lock();
                        while items.is_empty() {
                            queue.1.wait(&mut items);
                        }
                        items.pop();
                        spilled.fetch_add(1, Ordering::Relaxed);
                    }
                })
            });
            for n in 0..6 {
                queue.0.lock().push(n);
                queue.1.notify_one();
            }
            takers.into_iter().for_each(sync::JoinHandle::join);
        });
        assert_eq!(report.outcome, Outcome::Finished);
    }
    assert_eq!(shared.load(Ordering::Relaxed), 3, "three readers at once, at least once");
    assert_eq!(missed.load(Ordering::Relaxed), 300);
}

#[test]
fn a_try_lock_sees_a_held_lock_where_unlocks_are_points() {
    let failed = Arc::new(AtomicUsize::new(0));
    let count = |unlock: UnlockRule| {
        failed.store(0, Ordering::Relaxed);
        for n in 0..100 {
            let failed = failed.clone();
            run(&mut Random::new(n), Limits { unlock, ..Limits::default() }, move || {
                let lock = Arc::new(Mutex::new(()));
                let shared = lock.clone();
                let holder = spawn("holder", move || drop(shared.lock()));
                failed.fetch_add(usize::from(lock.try_lock().is_none()), Ordering::Relaxed);
                holder.join();
            });
        }
        failed.load(Ordering::Relaxed)
    };
    assert_eq!(count(UnlockRule::Free), 0);
    assert!(count(UnlockRule::Point) > 0);
}

#[test]
fn ranks_are_kept() {
    let wrong_order = seed(0, || {
        let (notifier, vm) = (rank::rwlock(rank::Rank::NOTIFIER, ()), rank::mutex(rank::Rank::VM, ()));
        let _inner = notifier.read();
        let _outer = vm.lock();
    });
    assert!(message(&wrong_order).contains("rank vm was taken under one of rank notifier"));
    let right_order = seed(0, || {
        let (notifier, vm) = (rank::rwlock(rank::Rank::NOTIFIER, ()), rank::mutex(rank::Rank::VM, ()));
        for _ in 0..2 {
            let _outer = vm.lock();
            let _inner = notifier.write();
            drop(Mutex::new(()).lock());
        }
    });
    assert_eq!(right_order.outcome, Outcome::Finished);
    let reader = seed(0, || {
        let (notifier, plain) = (rank::rwlock(rank::Rank::NOTIFIER, ()), Mutex::new(()));
        let reader = rank::reader();
        drop(notifier.read());
        drop(plain.try_lock());
        drop(reader);
        drop(plain.lock());
        let _reader = rank::reader();
        drop(plain.lock());
    });
    assert!(message(&reader).contains("a reader took a lock"), "{}", reader.outcome);
}
