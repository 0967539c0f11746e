//! CPU threads, queues of both tiles, buffers beside mirrored memory and a thread that changes mappings, in half the VRAM that
//! they touch: all sums are exact, and pages went every way that there is.

use crate::clients::{Client, userfaultfd};

fn all_sums_are_right(options: &[&str]) {
    if !userfaultfd() {
        return;
    }
    let run = Client::new("stress").run(&[&["--vram", "16M"], options].concat(), &["-l", "24"]);
    assert_eq!((run.code, run.out.lines().last()), (Some(0), Some("STRESS ok")), "{}{}", run.out, run.err);
    assert_eq!(WRONG.map(|name| run.count(name)), [0; 7], "{}", run.report["records"]);
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

const WRONG: [&str; 7] =
    ["stray_writes", "stray_reads", "stale_vram", "malformed", "gpu_faults_refused", "bans", "unfit_vram"];

/// Four tiles of two devices and three CPU threads in each of two processes, in a third of the VRAM that they touch.
fn two_devices_and_two_processes(how_long: &[&str]) {
    if !userfaultfd() {
        return;
    }
    let two = ["--device", "pvc-2t", "--device", "pvc-2t", "--vram", "16M"];
    let run = Client::new("stress").run(&two, &[&["-p", "2"], how_long].concat());
    assert_eq!((run.code, run.out.lines().last()), (Some(0), Some("STRESS ok")), "{}{}", run.out, run.err);
    assert_eq!(run.out.matches("STRESS ok").count(), 2, "{}", run.out);
    for report in &run.reports {
        assert_eq!(WRONG.map(|name| report[name].as_u64()), [Some(0); 7], "{}", report["records"]);
    }
    let across = ["VRAM0->VRAM2", "VRAM1->VRAM3", "VRAM2->VRAM1", "VRAM3->VRAM0"];
    assert!(across.iter().any(|way| run.times(way) > 0), "{}", run.report["migrations"]);
    assert!(run.count("evictions") > 0, "{}", run.report["migrations"]);
}

#[test]
fn sums_are_exact_on_two_devices_and_in_two_processes() {
    two_devices_and_two_processes(&["-l", "24"]);
}

#[test]
#[ignore = "a minute: cargo test --release -p pontoon --test e2e -- --ignored a_minute"]
fn sums_are_exact_on_two_devices_and_in_two_processes_for_a_minute() {
    two_devices_and_two_processes(&["60"]);
}

/// One pagemap for both tiles, a tile's VRAM as partitions with one copy engine, or tiles that reach their own VRAM only: sums are as exact.
/// With one pagemap, and where nobody reaches both, nothing goes from one to another.
#[test]
fn sums_are_exact_however_vram_is_cut_into_pagemaps() {
    if !userfaultfd() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("cut.toml");
    let device = ("pagemaps = 'device'", &[][..], false);
    for (cut, more, moves) in [device, ("pagemaps = 'partition'", &[], true), ("reach = 'tile'", &["-a"], false)] {
        std::fs::write(&file, cut).expect("a file");
        let device = ["--device", file.to_str().expect("text"), "--vram", "16M"];
        let run = Client::new("stress").run(&device, &[&["-l", "12"], more].concat());
        assert_eq!((run.code, run.out.lines().last()), (Some(0), Some("STRESS ok")), "{}{}", run.out, run.err);
        assert_eq!(WRONG.map(|name| run.count(name)), [0; 7], "{}", run.report["records"]);
        let all = &run.report["migrations"];
        assert_eq!(run.times("VRAM0->VRAM1") > 0, moves, "{cut}: {all}");
        assert!(run.times("SYSTEM->VRAM0") > 0, "{cut}: {all}");
    }
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
