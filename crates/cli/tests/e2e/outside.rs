//! What a process of ours sees to that shares the program's memory, and not its end: reports of programs that leave without libc, and
//! debuggers.

use crate::clients::{Client, pontoon, skipped, userfaultfd};
use std::time::{Duration, Instant};

#[test]
fn a_process_that_leaves_without_libc_is_reported() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("abrupt");
    for way in [&[][..], &["--hostile"], &["--no-move"]] {
        for (how, code) in [("instruction", 5), ("kill", 128 + 9), ("become", 0)] {
            let run = client.run(way, &[how]);
            assert_eq!(
                (run.code, run.out.as_str()),
                (Some(code), "No child processes\n"),
                "{way:?} {how}: {}",
                run.err
            );
            // Where memory is always on the move, somebody may have died in the middle of it.
            if way == ["--hostile"] && run.err.contains("is not in the report") {
                assert_eq!(run.reports.len(), 0, "{how}: {}", run.err);
                continue;
            }
            assert_eq!(run.reports.len(), 1, "{way:?} {how}: {}", run.err);
            assert!(run.count("gpu_fault_count") > 0 && run.times("SYSTEM->VRAM0") > 0, "{how}: {}", run.report);
        }
    }
}

/// A thread that a signal has ended may have held a lock: nobody waits for it. So it was in one run of six.
#[test]
fn a_run_ends_with_its_program() {
    if !userfaultfd() {
        return;
    }
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; kill -TERM $$";
    let dir = tempfile::tempdir().expect("a temporary folder");
    for _ in 0..20 {
        let (mut command, start) = (pontoon(), Instant::now());
        command.args(["run", "--hostile", "--report"]).arg(dir.path().join("report")).args(["--", "sh", "-c", script]);
        let output = command.output().expect("the command starts");
        assert_eq!(output.status.code(), Some(128 + 15));
        assert!(start.elapsed() < Duration::from_secs(5), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A debugger stops the threads that answer, and waits then for each of the others: also for one that waits, in the kernel, for an answer.
#[test]
fn a_thread_goes_on_whose_change_a_debugger_lets_nobody_hear_of() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("held");
    for way in [&[][..], &["--no-move"]] {
        let run = client.run(way, &[]);
        if run.code == Some(2) {
            return may_not_attach(&run.err);
        }
        assert_eq!((run.code, run.out.as_str()), (Some(0), "went on\n"), "{way:?}: {}", run.err);
    }
}

/// It attaches while memory is dropped and moved at every moment, so it stops movers and readers in the middle of what they do.
#[test]
fn a_debugger_attaches_to_a_program_that_drops_what_is_in_vram() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("attached");
    for way in ["--hostile", "--no-move"] {
        // By copies nobody brings pages home from outside, and a thread may wait for one in the middle of its copy.
        let arguments = if way == "--no-move" { &["once"][..] } else { &[] };
        let run = client.run(&[way], arguments);
        if run.code == Some(2) {
            return may_not_attach(&run.err);
        }
        assert_eq!((run.code, run.out.as_str()), (Some(0), "all stopped\n"), "{way}: {}", run.err);
        assert_eq!(run.count("stray_writes"), 0, "{way}");
    }
}

/// It attaches while memory that migrates at every moment is written to files: a thread in such a call stops when it has its page, and who
/// would bring it is stopped, at any point of a migration. No byte of the program's or the device's is lost.
#[test]
fn a_debugger_attaches_to_a_program_that_writes_what_is_in_vram_to_files() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("writes");
    for way in [&[][..], &["--hostile"], &["--no-move"]] {
        // By copies nobody brings pages home from outside: there only what was written is looked at.
        let arguments = if way == ["--no-move"] { &["2"][..] } else { &[] };
        let run = client.run(way, arguments);
        if run.code == Some(2) {
            return may_not_attach(&run.err);
        }
        assert_eq!((run.code, run.out.as_str()), (Some(0), "all stopped, exact\n"), "{way:?}: {}", run.err);
        assert_eq!((run.count("stray_writes"), run.count("stale_vram")), (0, 0), "{way:?}");
    }
}

/// No program of this user may be a debugger here. In CI that is a failure.
fn may_not_attach(why: &str) {
    assert!(std::env::var_os("PONTOON_CI").is_none(), "CI must not skip: {why}");
    skipped(&format!("a debugger may not attach: {why}"));
}
