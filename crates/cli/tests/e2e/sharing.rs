//! Several processes on one device: its VRAM is one.

use crate::clients::{Client, Run, userfaultfd};

/// The device of these tests: what a process takes of it the others miss.
const LITTLE: [&str; 2] = ["--vram", "8M"];

fn right(client: &Client, way: &[&str], arguments: &[&str]) -> Run {
    let run = client.run(&[&LITTLE, way].concat(), arguments);
    assert_eq!((run.code, run.out.as_str()), (Some(0), "PROCESSES ok\n"), "{way:?} {arguments:?}: {}", run.err);
    for count in ["stray_writes", "stray_reads", "stale_vram"] {
        assert!(run.reports.iter().all(|report| report[count] == 0), "{way:?} {arguments:?}: {count}");
    }
    run
}

/// At the same time, each has 6M of its own memory and a buffer of 6M.
#[test]
fn processes_that_want_more_than_there_is_lose_nothing() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("processes");
    for way in [&[][..], &["--hostile"], &["--no-move"]] {
        for processes in ["2", "4"] {
            right(&client, way, &["totals", "6", "5", processes]);
        }
    }
}

/// In turn, each has 3M of its own memory and a buffer of 3M: that is less than there is, and is evicted for the other.
#[test]
fn processes_evict_each_other() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("processes");
    for way in [&[][..], &["--no-move"]] {
        let run = right(&client, way, &["turns", "3", "4", "2"]);
        let evictions: Vec<_> = run.reports.iter().map(|of| [&of["evictions"], &of["bo_evictions"]]).collect();
        assert!(evictions.len() == 2 && evictions.iter().flatten().all(|n| **n != 0), "{way:?}: {evictions:?}");
        let alone = right(&client, way, &["turns", "3", "4", "1"]);
        assert_eq!(alone.count("evictions") + alone.count("bo_evictions"), 0, "{way:?}");
    }
}

#[test]
fn the_life_of_a_process_is_the_life_of_its_share() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("processes");
    for way in [&[][..], &["--no-move"]] {
        for play in ["killed", "stopped", "forked", "shares", "shared", "orphaned", "told", "reset"] {
            right(&client, way, &[play]);
        }
    }
}

#[test]
fn debugfs_tells_of_the_open_files_and_buffers_of_all_processes() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("debugfs");
    for way in [&[][..], &["--device", "bmg"]] {
        let run = client.run(&[&LITTLE, way].concat(), &[]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), "DEBUGFS ok\n"), "{way:?}: {}", run.err);
    }
}
