//! The command itself: what is linked into it, and how it refuses nonsense.

use crate::clients::pontoon;
use std::process::Command;

/// The command depends on the preload library only so that both are built at once. Were it linked in, its `open` and
/// `ioctl` would answer the command's own calls.
#[test]
fn no_interposer_is_linked_into_the_command() {
    let nm = Command::new("nm").args(["--defined-only", env!("CARGO_BIN_EXE_pontoon")]).output();
    let symbols = String::from_utf8(nm.expect("nm, which comes with the C compiler").stdout).expect("names");
    let defined = |name: &str| symbols.lines().any(|line| line.split_whitespace().next_back() == Some(name));
    assert!(defined("main"), "the list is one");
    for interposed in ["open", "open64", "openat", "ioctl", "close", "mmap", "mmap64", "fork", "sigaction"] {
        assert!(!defined(interposed), "{interposed}");
    }
}

#[test]
fn nonsense_is_refused_with_cause_and_remedy() {
    let cases: [(&[&str], &str); 5] = [
        (&["run", "--behaviour", "a=nonsense", "--", "true"], "a=upstream"),
        (&["run", "--", "/nonexistent/program"], "cannot start /nonexistent/program"),
        (&["check", "--seeds", "5..1"], "has no seed in it"),
        (&["check", "--behaviour", "b"], "unknown behaviour 'b'"),
        (&["run"], "PROGRAM"),
    ];
    for (arguments, expected) in cases {
        let output = pontoon().args(arguments).output().expect("the command starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
}

#[test]
fn the_programs_exit_code_is_ours() {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + 15)] {
        let output = pontoon().args(["run", "--", "sh", "-c", script]).output().expect("the command starts");
        assert_eq!(output.status.code(), Some(code), "{script}");
    }
}

#[test]
fn a_full_disk_is_said_and_no_panic() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device of every Linux");
    let output = pontoon().arg("behaviours").stdout(full).output().expect("the command starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), errors.contains("cannot be written")), (Some(2), true), "{errors}");
}
