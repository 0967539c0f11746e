//! The life of a process: forks with handlers of the program's own, filters of system calls.

use crate::clients::{Client, userfaultfd};

/// By default, with all memory on the move, and by the copying path.
const WAYS: [&[&str]; 3] = [&[], &["--hostile"], &["--no-move"]];

#[test]
fn the_programs_handlers_of_fork_may_wait_for_jobs() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("handlers");
    for way in WAYS {
        let run = client.run(way, &[]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), ""), "{way:?}: {}", run.err);
    }
}

#[test]
fn a_child_that_may_only_write_and_leave_does() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("filtered");
    for way in WAYS {
        for leave in ["exit", "_exit"] {
            let run = client.run(way, &[leave]);
            assert_eq!((run.code, run.out.as_str()), (Some(0), "x status 0\n"), "{way:?} {leave}: {}", run.err);
        }
    }
}

#[test]
fn descriptors_of_ours_cannot_be_closed_and_are_not_inherited() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("closes");
    for (way, idle) in [(WAYS[0], ""), (WAYS[1], ""), (WAYS[1], "idle"), (WAYS[2], "")] {
        let run = client.run(way, &[idle]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), ""), "{way:?} {idle}: {}", run.err);
    }
}
