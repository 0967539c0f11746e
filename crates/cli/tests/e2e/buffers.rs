//! Buffer objects, userptrs and advice, in every way that pages travel.

use crate::clients::{Client, is_right, userfaultfd};

fn all_right(options: &[&str], arguments: &[&str]) {
    if !userfaultfd() {
        return;
    }
    let run = Client::new("bo").run(options, arguments);
    assert_eq!((run.code, run.out.as_str()), (Some(0), "bo: all right\n"), "{}", run.err);
    // Three buffers of 400 MiB took turns in 1 GiB, four times.
    assert!(run.count("bo_evictions") >= 4, "{}", run.report);
    let losses = ["stray_writes", "stray_reads", "stale_vram", "malformed"];
    assert_eq!(losses.map(|name| run.count(name)), [0; 4]);
    // The mirror was touched at the CPU's mapping of two buffers, and of nothing else that is no memory for it.
    assert_eq!(["gpu_faults_refused", "bans"].map(|name| run.count(name)), [2; 2]);
}

/// A job with dma-fences has its evicted buffers back, or is refused; so is a PREFETCH.
#[test]
fn who_finds_no_room_in_vram_is_told() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("room");
    for device in ["pvc-2t", "bmg"] {
        let run = client.run(&["--vram", "8M", "--device", device], &[]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), "ROOM ok\n"), "{device}: {}", run.err);
    }
}

#[test]
fn buffers_keep_their_bytes_wherever_they_are() {
    all_right(&[], &[]);
}

#[test]
fn buffers_keep_their_bytes_by_the_copying_path() {
    all_right(&["--no-move"], &[]);
}

#[test]
fn buffers_keep_their_bytes_while_all_else_migrates() {
    all_right(&["--hostile"], &["watched"]);
}

#[test]
fn buffers_go_from_file_to_file_and_from_process_to_process() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("prime");
    for options in [&[][..], &["--no-move"], &["--hostile"]] {
        is_right(&client, options, &[]);
    }
}

#[test]
fn advice_is_taken_refused_and_forgotten_as_upstream_does() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("madvise");
    for options in [&[][..], &["--no-move"]] {
        let run = client.run(options, &[]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), "MADVISE ok\n"), "{options:?}: {}", run.err);
        // Only the region of the advice changed between these, and the faulting tile was always the first.
        assert!(run.times("VRAM0->VRAM1") >= 2, "{}", run.report["migrations"]);
        assert!(run.times("VRAM1->VRAM0") >= 2, "{}", run.report["migrations"]);
        assert_eq!(run.report["stubs"], serde_json::json!({}), "{}", run.report);
    }
}
