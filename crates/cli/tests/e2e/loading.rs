//! How the device is reached: by libraries that are loaded in unusual ways, by descriptors that come from elsewhere, and with few
//! descriptors to be had.

use crate::clients::{Client, pontoon, userfaultfd};
use std::path::{Path, PathBuf};
use std::process::Command;

/// By default, and by the copying path.
const WAYS: [&[&str]; 2] = [&[], &["--no-move"]];

fn library(dir: &Path, name: &str, source: &str) -> PathBuf {
    let library = dir.join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e").join(source);
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-DLIBRARY", "-Wl,-z,lazy", "-o"]).arg(&library).arg(source);
    assert!(compiler.status().expect("a C compiler").success());
    library
}

#[test]
fn a_library_opens_the_device_however_it_is_loaded() {
    if !userfaultfd() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let libraries = ["plain.so", "lazy.so", "now.so"].map(|name| library(dir.path(), name, "deep.c"));
    let libraries = libraries.each_ref().map(|path| path.to_str().expect("text"));
    let client = Client::here("deep");
    for way in WAYS {
        let run = client.run(way, &libraries);
        let right = "plain: ok\ndeep, lazy: ok\ndeep: ok\nlibc's: ok\ndefault: ok\n__open: ok\nby version: ok\n\
                     default by version: ok\nerrors right\ndlmopen: no device\n";
        assert_eq!((run.code, run.out.as_str()), (Some(0), right), "{way:?}: {}", run.err);
        assert!(run.err.contains("now.so is loaded by dlmopen"), "it is said: {}", run.err);
    }
}

/// A library of the program's wraps the same functions, and makes system calls by number: neither calls the other for ever.
#[test]
fn a_library_that_wraps_the_same_functions_is_behind_ours() {
    if !userfaultfd() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let wraps = library(dir.path(), "wraps.so", "wraps.c");
    let client = Client::here("wraps");
    for way in [&[][..], &["--no-move"], &["--hostile"]] {
        let mut command = pontoon();
        command.arg("run").args(way).arg("--").arg(client.program()).env("LD_PRELOAD", &wraps);
        let output = command.output().expect("it starts");
        let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((output.status.code(), out.as_ref()), (Some(0), "wrapped\n"), "{way:?}: {errors}");
    }
}

#[test]
fn a_descriptor_that_was_passed_on_is_the_device() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("passes");
    for way in WAYS {
        let run = client.run(way, &[]);
        let right = "received: device 1, query 1, vm destroyed 0\nonce more: query 1\ninherited: query 1, vm 0\n";
        assert_eq!((run.code, run.out.as_str()), (Some(0), right), "{way:?}: {}", run.err);
    }
}

/// A shell opens its files under low numbers: ours are near the end, whatever the limit.
#[test]
fn low_numbers_are_the_programs_where_few_are_to_be_had() {
    if !userfaultfd() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("file");
    std::fs::write(&file, "what is in it\n").expect("a file");
    let ways = ["", "--hostile"].map(|way| ["32", "64", "256", "512", "1024"].map(|limit| (limit, way)));
    for (limit, way) in ways.into_iter().flatten() {
        let script = "ulimit -n $0; exec \"$1\" run $3 -- sh -c 'for n in 3 4 5 6 7 8 9; do eval \"exec $n<$0\"; cat <&$n; done' \"$2\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script, limit, env!("CARGO_BIN_EXE_pontoon")]).arg(&file).arg(way);
        let output = shell.output().expect("a shell");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "what is in it\n".repeat(7), "{limit} {way}: {errors}");
        assert!(!errors.contains("descriptors"), "{limit} {way}: {errors}");
    }
    let script = "ulimit -n 12; exec \"$0\" run --hostile -- true";
    let output = Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_pontoon")]).output().expect("a shell");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("limited: of 12 descriptors (ulimit -n) the library takes low ones"), "{errors}");
}
