//! The replaceable spawner; alone in its process, because it is the process's.
// It stands for the preload library, which starts threads in its own way.
#![allow(clippy::disallowed_methods)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use sync::{Body, SpawnError, set_spawner, spawn, try_spawn};

static STARTED: AtomicU32 = AtomicU32::new(0);

fn counting(name: &'static str, body: Body) -> Result<(), SpawnError> {
    if name == "refused" {
        return Err(SpawnError);
    }
    STARTED.fetch_add(1, Ordering::Relaxed);
    std::thread::spawn(body);
    Ok(())
}

#[test]
fn threads_come_from_the_spawner_that_was_set() {
    let ran = Arc::new(AtomicU32::new(0));
    let count = |ran: &Arc<AtomicU32>| {
        let ran = ran.clone();
        move || {
            ran.fetch_add(1, Ordering::Relaxed);
        }
    };
    spawn("by std", count(&ran)).join();
    assert_eq!((ran.load(Ordering::Relaxed), STARTED.load(Ordering::Relaxed)), (1, 0));

    set_spawner(counting);
    spawn("by ours", count(&ran)).join();
    assert_eq!((ran.load(Ordering::Relaxed), STARTED.load(Ordering::Relaxed)), (2, 1));
    assert_eq!(try_spawn("refused", count(&ran)).err(), Some(SpawnError));

    // Tasks are no threads.
    let task = count(&ran);
    let report = sync::sim::run(&mut sync::sim::Replay::default(), sync::sim::Limits::default(), move || {
        spawn("refused", task).join();
    });
    assert!(!report.outcome.is_finding());
    assert_eq!((ran.load(Ordering::Relaxed), STARTED.load(Ordering::Relaxed)), (3, 1));
}
