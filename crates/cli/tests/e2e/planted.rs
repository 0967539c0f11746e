//! A mistake planted where a programmer would make it shows itself to a client: in its data, or in an access that
//! the device refuses or records. One test each; and the same client without it is right.

use crate::clients::{Client, Run, userfaultfd};

/// Tile 0, tile 1, tile 0 again store into 64K; what is behind the data is printed page by page.
fn peek(options: &[&str]) -> Option<Run> {
    userfaultfd().then(|| Client::new("peek").run(options, &["-t", "010", "-p", "1"]))
}

#[test]
fn nothing_planted_nothing_wrong() {
    let Some(run) = peek(&[]) else { return };
    assert_eq!((run.code, run.out.trim_end().lines().last()), (Some(0), Some("PEEK ok")), "{}{}", run.out, run.err);
    for quiet in ["stray_writes", "stray_reads", "stale_vram", "malformed", "gpu_faults_refused", "bans"] {
        assert_eq!(run.count(quiet), 0, "{quiet}");
    }
    assert!(run.times("VRAM0->VRAM1") >= 1 && run.times("VRAM1->VRAM0") >= 1, "{}", run.report);
}

#[test]
fn upstreams_remote_side_loses_the_data_by_stray_writes() {
    let Some(run) = peek(&["--behaviour", "a=upstream"]) else { return };
    assert_ne!(run.code, Some(0));
    assert!(run.out.contains("PEEK BAD pages=16") || run.err.contains("run:"), "{}{}", run.out, run.err);
    assert!(run.count("stray_writes") >= 16);
}

#[test]
fn dm_dropped_writes_go_to_the_bus() {
    let Some(run) = peek(&["--behaviour", "plant=dm-dropped"]) else { return };
    assert_ne!(run.code, Some(0), "the client's data is wrong: {}", run.out);
    assert!(run.count("stray_writes") > 0);
}

#[test]
fn ps64_missing_is_refused_as_malformed() {
    let Some(run) = peek(&["--behaviour", "plant=ps64-missing"]) else { return };
    assert_ne!(run.code, Some(0), "{}", run.out);
    assert!(run.count("malformed") > 0 && run.count("gpu_faults_refused") > 0 && run.count("bans") > 0);
}

#[test]
fn rw_cleared_is_refused_in_the_end() {
    let Some(run) = peek(&["--behaviour", "plant=rw-cleared"]) else { return };
    assert_eq!(run.code, Some(2), "the job's error reaches the client: {}{}", run.out, run.err);
    assert!(run.count("gpu_faults_refused") > 0 && run.count("bans") > 0);
}

#[test]
fn no_flush_leaves_stale_translations() {
    let Some(run) = peek(&["--behaviour", "plant=no-flush"]) else { return };
    assert_ne!(run.code, Some(0), "the client's data is wrong: {}", run.out);
    assert!(run.count("stale_vram") > 0);
}
