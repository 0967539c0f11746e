//! Jobs, on threads of the checker.

use super::*;
use sync::sim::{Limits, Outcome, Random, run};

/// What ran so far, in order.
type Log = Arc<Mutex<Vec<u32>>>;

fn note(log: &Log, number: u32) -> Body {
    let log = log.clone();
    Box::new(move || {
        log.lock().push(number);
        Ok(())
    })
}

/// Runs a scene under some schedules.
fn checked(scene: fn()) {
    for seed in 0..40 {
        let report = run(&mut Random::new(seed), Limits::default(), scene);
        assert_eq!(report.outcome, Outcome::Finished, "seed {seed}");
    }
}

#[test]
fn a_jobs_fence_ends_as_the_job_does() {
    checked(|| {
        let (worker, queue, log) = (Worker::new(), JobQueue::new(), Log::default());
        let after = vec![Fence::over(Ok(())), Fence::over(Err(Errno::EIO))];
        let done = queue.submit(&worker, after, note(&log, 1)).expect("a task");
        let failed = queue.submit(&worker, Vec::new(), Box::new(|| Err(Errno::ENOMEM))).expect("a task");
        assert_eq!((done.wait(None), failed.wait(None)), (Some(Ok(())), Some(Err(Errno::ENOMEM))));
        assert_eq!((queue.last().result(), &log.lock()[..]), (Some(Err(Errno::ENOMEM)), &[1][..]));
        worker.stop();
    });
}

#[test]
fn jobs_run_in_order_and_after_what_they_depend_on() {
    checked(|| {
        let (worker, queue, log) = (Worker::new(), JobQueue::new(), Log::default());
        let gates = [Fence::new(), Fence::new()];
        let after = [vec![gates[0].clone()], vec![], vec![gates[1].clone()], vec![gates[0].clone()]];
        let submit = |(number, after)| queue.submit(&worker, after, note(&log, number)).expect("a task");
        let done: Vec<_> = (0..).zip(after).map(submit).collect();
        assert!(done.iter().all(|fence| !fence.is_over()) && log.lock().is_empty());
        let last = queue.last();
        let other = sync::spawn("gates", move || gates.iter().rev().for_each(|gate| gate.signal(Err(Errno::EIO))));
        assert_eq!(last.wait(None), Some(Ok(())));
        assert_eq!(&log.lock()[..], &[0, 1, 2, 3]);
        assert!(done.iter().all(|fence| fence.result() == Some(Ok(()))));
        other.join();
        worker.stop();
    });
}

#[test]
fn queues_do_not_wait_for_each_other() {
    checked(|| {
        let (worker, log) = (Worker::new(), Log::default());
        let (stuck, free, gate) = (JobQueue::new(), JobQueue::new(), Fence::new());
        let blocked = stuck.submit(&worker, vec![Fence::new()], note(&log, 1)).expect("a task");
        let done = free.submit(&worker, vec![gate.clone()], note(&log, 2)).expect("a task");
        gate.signal(Ok(()));
        assert_eq!(done.wait(None), Some(Ok(())));
        assert_eq!((blocked.result(), &log.lock()[..]), (None, &[2][..]));
        drop(stuck);
        assert_eq!((blocked.result(), log.lock().len()), (Some(Err(Errno::ECANCELED)), 1), "dropped, not run");
        worker.stop();
    });
}

#[test]
fn a_queue_that_is_cancelled_takes_no_job() {
    checked(|| {
        let (worker, queue, log) = (Worker::new(), JobQueue::new(), Log::default());
        queue.cancel(Errno::EIO);
        for after in [vec![], vec![Fence::new()]] {
            let done = queue.submit(&worker, after, note(&log, 1)).expect("a task");
            assert_eq!(done.result(), Some(Err(Errno::EIO)));
        }
        worker.stop();
        assert!(log.lock().is_empty());
    });
}

#[test]
fn submitters_and_the_worker_run_every_job_once() {
    checked(|| {
        let (worker, queue, log) = (Arc::new(Worker::new()), Arc::new(JobQueue::new()), Log::default());
        let gate = Fence::new();
        let submitters = [0, 100].map(|first| {
            let (worker, queue, log, gate) = (worker.clone(), queue.clone(), log.clone(), gate.clone());
            sync::spawn("submitter", move || {
                for (number, after) in [(first, vec![]), (first + 1, vec![gate]), (first + 2, vec![])] {
                    queue.submit(&worker, after, note(&log, number)).expect("a task");
                }
            })
        });
        gate.signal(Ok(()));
        submitters.into_iter().for_each(sync::JoinHandle::join);
        assert_eq!(queue.last().wait(None), Some(Ok(())));
        let ran = log.lock().clone();
        for first in [0, 100] {
            let own: Vec<_> = ran.iter().filter(|number| (first..first + 3).contains(*number)).collect();
            assert_eq!(own, [&first, &(first + 1), &(first + 2)]);
        }
        assert_eq!(ran.len(), 6);
        worker.stop();
    });
}

#[test]
fn timers_go_off_in_time_and_in_order() {
    checked(|| {
        let (worker, log, rung) = (Worker::new(), Log::default(), Fence::new());
        let start = now_ns();
        for (number, ns) in [(2, 2000), (1, 1000), (3, 2000)] {
            let (log, rung) = (log.clone(), rung.clone());
            let alarm = move || {
                assert!(now_ns() >= start + ns);
                log.lock().push(number);
                if number == 3 {
                    rung.signal(Ok(()));
                }
            };
            worker.at(start + ns, Box::new(alarm)).expect("a task");
        }
        rung.wait(None);
        assert_eq!(&log.lock()[..], &[1, 2, 3]);
        worker.stop();
    });
}

#[test]
fn a_parked_worker_begins_nothing() {
    checked(|| {
        let (worker, queue, log, gate) = (Worker::new(), JobQueue::new(), Log::default(), Fence::new());
        worker.park();
        let done = queue.submit(&worker, vec![gate.clone()], note(&log, 1)).expect("a task");
        worker.park();
        gate.signal(Ok(()));
        assert_eq!(done.wait(Some(sync::time::after_ns(1_000_000))), None);
        worker.unpark();
        assert_eq!(done.wait(Some(sync::time::after_ns(1_000_000))), None, "one still wants it parked");
        worker.unpark();
        assert_eq!(done.wait(None), Some(Ok(())));
        worker.stop();
    });
}
