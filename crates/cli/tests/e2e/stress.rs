//! CPU threads, queues of both tiles, buffers beside mirrored memory and a thread that changes mappings, in half the VRAM that
//! they touch: all sums are exact, and pages went every way that there is.

use crate::clients::{Client, userfaultfd};

fn all_sums_are_right(options: &[&str]) {
    if !userfaultfd() {
        return;
    }
    let run = Client::new("stress").run(&[&["--vram", "16M"], options].concat(), &["-l", "24"]);
    assert_eq!((run.code, run.out.lines().last()), (Some(0), Some("STRESS ok")), "{}{}", run.out, run.err);
    let wrong = ["stray_writes", "stray_reads", "stale_vram", "malformed", "gpu_faults_refused", "bans", "unfit_vram"];
    assert_eq!(wrong.map(|name| run.count(name)), [0; 7], "{}", run.report["records"]);
    for way in ["VRAM0->VRAM1", "VRAM1->VRAM0"] {
        assert!(run.times(way) > 0, "{way}: {}", run.report["migrations"]);
    }
    for count in ["cpu_fault_count", "evictions", "bo_evictions"] {
        assert!(run.count(count) > 0, "{count}: {}", run.report["migrations"]);
    }
}

#[test]
fn sums_are_exact_under_all_that_happens_at_once() {
    all_sums_are_right(&[]);
}

#[test]
fn sums_are_exact_by_the_copying_path() {
    all_sums_are_right(&["--no-move"]);
}

#[test]
fn sums_are_exact_while_all_else_migrates() {
    all_sums_are_right(&["--hostile"]);
}

/// The client can fail: it finds a copy from tile to tile that loses its data.
#[test]
fn lost_pages_are_found() {
    if !userfaultfd() {
        return;
    }
    let run = Client::new("stress").run(&["--vram", "16M", "--behaviour", "a=upstream"], &["-l", "24"]);
    assert_eq!(run.code, Some(1), "{}{}", run.out, run.err);
    assert!(run.out.contains("STRESS BAD"), "{}", run.out);
}
