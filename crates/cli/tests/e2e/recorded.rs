//! What a run leaves, and what is made of it: a record, a page, a trace; and what a refused atomic says.

use crate::clients::{Client, pontoon, skipped, userfaultfd};
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn a_record_becomes_a_page_and_a_trace_elsewhere() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("tour");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [record, page, trace, direct] = ["record", "page", "trace", "direct"].map(|name| dir.path().join(name));
    let mut command = pontoon();
    command.args(["run", "--record"]).arg(&record).arg("--trace").arg(&direct).arg("--").arg(client.program());
    let output = command.args(["-t", "01"]).output().expect("the command starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut command = pontoon();
    command.arg("report").arg(&record).arg("--html").arg(&page).arg("--trace").arg(&trace);
    let output = command.output().expect("the command starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let html = fs::read_to_string(&page).expect("a page");
    for part in ["<svg", "The costliest ranges", "the CPU touched it", "tile 1: write", "svm_pagefault_count"] {
        assert!(html.contains(part), "{part} is in the page");
    }
    assert!(!html.contains("<script src") && !html.contains("http://www.example"), "it needs nothing else");
    let trace = fs::read(&trace).expect("a trace");
    assert_eq!(trace, fs::read(&direct).expect("a trace"), "the same from the run itself");
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(&record).expect("a record")).expect("one process");
    // The program has one thread, and a queue on each tile.
    let thread = format!("thread {} CPU faults", kept["process"]);
    for name in ["tile0 ccs1 faults", "tile1 binds", "migrations VRAM0->VRAM1", &thread, "fault write", "job 1"] {
        assert!(trace.windows(name.len()).any(|part| part == name.as_bytes()), "{name} is in the trace");
    }

    // What had no room is said.
    let cut = dir.path().join("cut");
    let text = fs::read_to_string(&record).expect("a record").replace("\"timeline_lost\":0", "\"timeline_lost\":5");
    fs::write(&cut, text).expect("a file");
    let output = pontoon().arg("report").arg(&cut).output().expect("the command starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is full: 5 later events are not in it"), "{said}");

    // Tables alone; and what is no report.
    let output = pontoon().arg("report").arg(&record).output().expect("the command starts");
    assert!(String::from_utf8_lossy(&output.stdout).contains("SYSTEM->VRAM0"));
    let output = pontoon().arg("report").arg(&page).output().expect("the command starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains(":1: no report of a process"), "{said}");
}

#[test]
fn a_record_tells_why_pages_went_for_no_fault() {
    if !userfaultfd() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [record, page] = ["record", "page"].map(|name| dir.path().join(name));
    let mut command = pontoon();
    command.args(["run", "--hostile", "--record"]).arg(&record);
    let script = "for i in 1 2 3 4 5 6; do (sleep 0.05; :); done; exit 0";
    let output = command.args(["--", "sh", "-c", script]).output().expect("the command starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = pontoon().arg("report").arg(&record).arg("--html").arg(&page).output().expect("the command starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let html = fs::read_to_string(&page).expect("a page");
    for part in ["<h2>sh ", "<h2>sleep ", "no fault: --hostile", "no fault: a fork"] {
        assert!(html.contains(part), "{part}: {html}");
    }
}

#[test]
fn an_atomic_that_cannot_be_is_refused_with_the_reason() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("astray");
    for (kind, why) in [("shared", "shared memory"), ("file", "shared memory"), ("stack", "the main stack")] {
        let run = client.run(&[], &[kind]);
        assert_eq!(run.out, "Input/output error, word 0\n", "{kind}: {}", run.err);
        let lines: Vec<&str> = run.err.lines().filter(|line| line.contains("EIO, as on hardware")).collect();
        assert!(lines.len() == 1 && lines[0].contains(why), "{kind}: {}", run.err);
    }
    let run = client.run(&[], &["private"]);
    assert_eq!((run.out.as_str(), run.err.as_str()), ("Success, word 1\n", ""));
}

/// Whoever drops memory all the time starves nobody: a fault is served within a bounded number of rounds of its handler.
#[test]
fn memory_that_is_dropped_all_the_time_starves_no_job() {
    if !userfaultfd() {
        return;
    }
    const ROUNDS: u64 = 40;
    let client = Client::here("churn");
    for way in [&[][..], &["--no-move"]] {
        let run = client.run(way, &[&ROUNDS.to_string()]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), "40 rounds, 0 wrong\n"), "{way:?}: {}", run.err);
        let retries = run.report["stats"]["retries"].as_object().expect("counts");
        let retries: u64 = retries.values().filter_map(serde_json::Value::as_u64).sum();
        let faults = run.count("gpu_fault_count");
        assert!(retries <= 8 * faults, "{way:?}: {retries} rounds of {}", run.report["stats"]);
        let drops = run.report["memory"]["counters"]["removes"].as_u64().expect("a count");
        // Seen: 350 to 5,700 a round; where each page of a migration had to find its gap, up to 29,000.
        assert!(drops <= ROUNDS * 12_000, "{way:?}: {drops} changes in {ROUNDS} rounds");
    }
}

#[test]
fn a_shell_completes_the_words_and_there_are_man_pages() {
    let output = pontoon().args(["completions", "bash"]).output().expect("the command starts");
    let script = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(script.contains("--hostile") && !script.contains("tidy-up"), "only words for users");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = pontoon().arg("man").arg(dir.path()).output().expect("the command starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = fs::read_to_string(dir.path().join("pontoon-run.1")).expect("a man page");
    assert!(page.contains("hostile") && page.contains("pontoon report run.json"), "{page}");
}

#[test]
fn a_debian_package_has_the_command_its_pages_and_its_completions() {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        return skipped("there is no dpkg-deb");
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [package, root] = ["pontoon.deb", "root"].map(|name| dir.path().join(name));
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/deb.sh");
    let made = Command::new(recipe).arg(env!("CARGO_BIN_EXE_pontoon")).arg(&package).status();
    assert!(made.expect("a shell").success());
    let unpacked = Command::new("dpkg-deb").arg("-x").arg(&package).arg(&root).status();
    assert!(unpacked.expect("dpkg-deb starts").success());
    let version = Command::new(root.join("usr/bin/pontoon")).arg("--version").output().expect("it starts");
    assert_eq!(String::from_utf8_lossy(&version.stdout), concat!("pontoon ", env!("CARGO_PKG_VERSION"), "\n"));
    let listed = Command::new("dpkg-deb").arg("-c").arg(&package).output().expect("dpkg-deb starts");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.starts_with("drwxr-xr-x"), "everybody may look into it: {listed}");
    for file in [
        "doc/pontoon/docs/profiles.md",
        "doc/pontoon/docs/adr/0006-runs.md",
        "man/man1/pontoon-run.1.gz",
        "bash-completion/completions/pontoon",
        "zsh/vendor-completions/_pontoon",
        "doc/pontoon/examples/tour.c",
    ] {
        assert!(root.join("usr/share").join(file).metadata().is_ok_and(|file| file.len() > 100), "{file}");
    }
}
