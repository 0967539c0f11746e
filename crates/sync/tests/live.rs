//! The live locks under real threads: small stress runs that fail where a wake-up is lost or two holders meet.

use std::sync::Arc;
use sync::atomic::{AtomicU32, AtomicU64};
use sync::{Condvar, JoinHandle, Mutex, Polling, RwLock, spawn, time};

const THREADS: u64 = 4;
const MS: u64 = 1_000_000;

fn crowd(body: impl Fn(u64) + Send + Sync + 'static) {
    let body = Arc::new(body);
    let threads: Vec<JoinHandle> = (0..THREADS)
        .map(|i| {
            let body = body.clone();
            spawn("crowd", move || body(i))
        })
        .collect();
    threads.into_iter().for_each(JoinHandle::join);
}

#[test]
fn a_mutex_admits_one() {
    const ROUNDS: u64 = 50_000;
    let count = Arc::new(Mutex::new(0u64));
    let shared = count.clone();
    crowd(move |_| {
        for _ in 0..ROUNDS {
            let mut count = shared.lock();
            // Torn on purpose: a second holder would lose an increment.
            let seen = *count;
            std::hint::black_box(&mut count);
            *count = seen + 1;
        }
    });
    assert_eq!(*count.lock(), THREADS * ROUNDS);
}

#[test]
fn a_sleeping_waiter_gets_the_mutex() {
    let lock = Arc::new(Mutex::new(0u32));
    let shared = lock.clone();
    let guard = lock.lock();
    let waiter = spawn("waiter", move || *shared.lock() += 1);
    time::sleep_ns(20 * MS); // long enough to be asleep on the word
    assert!(lock.try_lock().is_none());
    assert!(!waiter.is_finished());
    drop(guard);
    waiter.join();
    assert_eq!(*lock.lock(), 1);
}

#[test]
fn a_queue_loses_nothing() {
    const ITEMS: u64 = 20_000;
    let queue = Arc::new((Mutex::new(Vec::<u64>::new()), Condvar::new(), Condvar::new()));
    let sum = Arc::new(AtomicU64::new(0));
    let (shared, total) = (queue.clone(), sum.clone());
    crowd(move |i| {
        let (items, filled, emptied) = &*shared;
        for n in 1..=ITEMS {
            let mut items = items.lock();
            if i % 2 == 0 {
                while items.len() >= 4 {
                    emptied.wait(&mut items);
                }
                items.push(n);
                filled.notify_one();
            } else {
                while items.is_empty() {
                    filled.wait(&mut items);
                }
                total.fetch_add(items.pop().expect("not empty"));
                emptied.notify_one();
            }
        }
    });
    assert_eq!(sum.load(), (THREADS / 2) * ITEMS * (ITEMS + 1) / 2);
}

#[test]
fn no_answer_is_missed_between_looking_and_sleeping() {
    const TURNS: u64 = 20_000;
    let turn = Arc::new((Mutex::new(0u64), Condvar::new(), Polling::new()));
    let shared = turn.clone();
    // Two play, each in its turn; the others only look on. Now and then one is late, so that waits sleep, too.
    crowd(move |i| {
        let (now, changed, polling) = &*shared;
        let mut turn = now.lock();
        while *turn < TURNS {
            if i < 2 && *turn % 2 == i {
                if turn.is_multiple_of(500) {
                    sync::MutexGuard::unlocked(&mut turn, || time::sleep_ns(MS));
                }
                *turn += 1;
                changed.notify_all();
            } else {
                changed.poll_until(&mut turn, u64::MAX, polling);
            }
        }
    });
    assert_eq!(*turn.0.lock(), TURNS);
}

#[test]
fn notify_all_frees_every_waiter() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let shared = gate.clone();
    let opener = spawn("opener", {
        let gate = gate.clone();
        move || {
            time::sleep_ns(20 * MS);
            *gate.0.lock() = true;
            gate.1.notify_all();
        }
    });
    crowd(move |_| {
        let mut open = shared.0.lock();
        while !*open {
            shared.1.wait(&mut open);
        }
    });
    opener.join();
}

#[test]
fn a_wait_times_out_and_holds_the_lock_again() {
    let pair = (Mutex::new(()), Condvar::new());
    let mut guard = pair.0.lock();
    let before = time::now_ns();
    assert!(!pair.1.wait_for(&mut guard, 15 * MS));
    assert!(time::now_ns() - before >= 15 * MS);
    assert!(pair.0.try_lock().is_none());
    assert!(!pair.1.wait_until(&mut guard, before), "a deadline of the past");
}

#[test]
fn writers_exclude_readers_and_readers_share() {
    const ROUNDS: u64 = 20_000;
    let pair = Arc::new(RwLock::new((0u64, 0u64)));
    let shared = pair.clone();
    crowd(move |i| {
        for n in 0..ROUNDS {
            if (n + i) % 4 == 0 {
                let mut pair = shared.write();
                pair.0 += 1;
                std::hint::black_box(&mut pair);
                pair.1 += 1;
            } else {
                let pair = shared.read();
                assert_eq!(pair.0, pair.1);
            }
        }
    });
    assert_eq!(*pair.read(), (THREADS * ROUNDS / 4, THREADS * ROUNDS / 4));
    let (one, two) = (pair.read(), pair.try_read());
    assert!(two.is_some() && pair.try_write().is_none());
    drop((one, two));
    let read = sync::RwLockWriteGuard::downgrade(pair.write());
    assert!(pair.try_read().is_some() && pair.try_write().is_none());
    drop(read);
    assert!(pair.try_write().is_some());
}

#[test]
fn a_queued_writer_holds_up_new_readers() {
    let lock = Arc::new(RwLock::new(0u32));
    let reader = lock.read();
    let shared = lock.clone();
    let writer = spawn("writer", move || *shared.write() = 1);
    while lock.try_read().is_some() {
        sync::yield_now();
    }
    let shared = lock.clone();
    let late = spawn("late", move || assert_eq!(*shared.read(), 1));
    time::sleep_ns(10 * MS);
    assert!(!writer.is_finished() && !late.is_finished());
    drop(reader);
    writer.join();
    late.join();
}

#[test]
fn a_thread_that_panics_has_ended() {
    let steps = Arc::new(AtomicU32::new(0));
    let shared = steps.clone();
    let thread = spawn("panics", move || {
        shared.fetch_add(1);
        std::panic::resume_unwind(Box::new("quietly"));
    });
    thread.join();
    assert_eq!(steps.load(), 1);
}

#[test]
fn time_is_the_kernels_monotonic_clock() {
    let uptime: f64 = std::fs::read_to_string("/proc/uptime")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .expect("/proc/uptime");
    // Uptime counts suspended time too, so it can only be the later one.
    assert!(time::now_ns() as f64 / 1e9 <= uptime + 1.0);
    let before = time::now_ns();
    time::sleep_ns(5 * MS);
    assert!(time::now_ns() - before >= 5 * MS);
}
