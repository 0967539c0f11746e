//! The life of a process: forks with handlers of the program's own, filters of system calls.

use crate::clients::{Client, userfaultfd};
use std::path::Path;
use std::process::Command;

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
fn a_program_that_uses_the_device_may_filter_itself() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("sandboxed");
    let mut cases = vec![vec!["wide"]];
    for (how, who) in [("prctl", "main"), ("seccomp", "main"), ("prctl", "child")] {
        cases.extend(["exit", "_exit"].map(|by| vec![how, who, by]));
    }
    for way in WAYS {
        for case in &cases {
            let run = client.run(way, case);
            assert_eq!((run.code, run.out.as_str()), (Some(5), "word x\n"), "{way:?} {case:?}: {}", run.err);
            assert!(run.count("gpu_fault_count") > 0, "{}", run.report);
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

/// In the kernel a call holds the open file that it began on.
#[test]
fn a_call_goes_on_when_another_thread_closes_its_descriptor() {
    if !userfaultfd() {
        return;
    }
    let run = Client::here("inflight").run(&[], &[]);
    assert_eq!((run.code, run.out.as_str()), (Some(0), "it came\n"), "{}", run.err);
}

#[test]
fn what_is_done_by_number_is_as_by_name() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("by_number");
    for way in WAYS {
        let run = client.run(way, &[]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), ""), "{way:?}: {}", run.err);
    }
}

/// The call that brings pages home is refused to the thread that forks.
#[test]
fn a_fork_whose_memory_does_not_come_home_fails() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("stuck");
    for (way, home) in [(WAYS[0], "c028aa05"), (WAYS[2], "c028aa03")] {
        let run = client.run(way, &[home]);
        let right = "fork Resource temporarily unavailable, no child, handlers 11, store 0, words 7 8\n";
        assert_eq!(run.out, right, "{way:?}: {}", run.err);
    }
}

#[test]
fn a_handler_runs_with_its_own_mask_and_flags() {
    if !userfaultfd() {
        return;
    }
    let run = Client::here("actions").run(&[], &[]);
    assert_eq!((run.code, run.out.as_str()), (Some(0), "0 wrong\n"), "{}", run.err);
}

#[test]
fn who_is_given_no_thread_is_told_so_and_ends_well() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("threadless");
    for way in [WAYS[0], WAYS[2]] {
        let run = client.run(way, &["open"]);
        let right = "-1 Cannot allocate memory\n".repeat(3);
        assert_eq!((run.code, run.out), (Some(0), right), "{way:?}: {}", run.err);
        assert!(run.err.contains("ulimit -u"), "{}", run.err);
    }
    for way in WAYS {
        let run = client.run(way, &["leave"]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), "the last thread\n"), "{way:?}: {}", run.err);
    }
}

#[test]
fn destructors_of_libraries_use_the_device() {
    if !userfaultfd() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let library = dir.path().join("library.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/destructors.c");
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-DLIBRARY", "-o"]).arg(&library).arg(source).arg("-I").arg(include);
    assert!(compiler.status().expect("a C compiler").success());
    let client = Client::here("destructors");
    for way in WAYS {
        let run = client.run(way, &[library.to_str().expect("text")]);
        assert_eq!(
            (run.code, run.out.as_str()),
            (Some(0), "main ends\nvm 0, store 0, word 7\n"),
            "{way:?}: {}",
            run.err
        );
        assert!(run.count("gpu_fault_count") > 0, "the report is of the very end: {}", run.report);
    }
}

#[test]
fn threads_on_stacks_of_the_programs_own_can_be_joined() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("joins");
    for way in WAYS {
        let run = client.run(way, &[]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), ""), "{way:?}: {}", run.err);
    }
}

#[test]
fn a_tracer_of_all_threads_reads_what_the_gpu_stored() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("tracer");
    for way in WAYS {
        let run = client.run(way, &[]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), "status 0, texts 40\n"), "{way:?}: {}", run.err);
        assert!(run.err.contains("a tracer"), "it is said: {}", run.err);
    }
}

#[test]
fn a_child_that_outlives_its_run_keeps_the_device() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("outlives");
    for way in WAYS {
        let run = client.run(way, &[]);
        assert_eq!(
            (run.code, run.out.as_str()),
            (Some(0), "folder gone, node there, store 0, word 7\n"),
            "{way:?}: {}",
            run.err
        );
    }
}

#[test]
fn a_mapping_that_two_sides_began_is_moved_and_grown_whole() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("split");
    for way in WAYS {
        let run = client.run(way, &[]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), "split: all right\n"), "{way:?}: {}", run.err);
    }
}

/// F of docs/findings.md: what the GPU stores after a fork is the parent's alone, wherever the block was.
#[test]
fn a_child_does_not_read_what_the_gpu_stores_after_the_fork() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("fork");
    for (options, tile) in [(&[][..], "0"), (&[], "1"), (&["--no-move"], "0"), (&["--hostile"], "1")] {
        let run = client.run(options, &[tile]);
        assert_eq!((run.code, run.out.trim()), (Some(0), "FORK ok"), "{options:?}: {}", run.err);
        assert!(run.count("bans") == 0 && run.report["migrations"].to_string().contains("->VRAM"), "{options:?}");
    }
}
