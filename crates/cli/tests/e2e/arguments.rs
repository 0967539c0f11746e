//! Bad arguments from a C program: the errno of the real interface, and the program lives on.

use crate::clients::{Client, userfaultfd};

#[test]
fn pointers_to_nowhere_are_efault_and_no_signal() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("bad_pointers");
    let run = client.run(&[], &[]);
    assert_eq!((run.code, run.out.as_str()), (Some(0), ""), "{}", run.err);
}

#[test]
fn paths_to_nowhere_are_efault_too() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("bad_paths");
    for way in [&[][..], &["--hostile"], &["--no-move"]] {
        let run = client.run(way, &[]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), ""), "{way:?}: {}", run.err);
    }
}

#[test]
fn a_limit_on_files_leaves_the_device_usable() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("file_limit");
    for way in [&[][..], &["--hostile"], &["--no-move"]] {
        let run = client.run(way, &[]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), ""), "{way:?}: {}", run.err);
    }
}
