//! Bad arguments from a C program: the errno of the real interface, and the program lives on.

use crate::clients::{Client, pontoon, userfaultfd};
use std::process::Command;

/// A program that prints what is not as it should be, in each way that memory goes.
fn finds_nothing_wrong(name: &str) {
    if !userfaultfd() {
        return;
    }
    let client = Client::here(name);
    for way in [&[][..], &["--hostile"], &["--no-move"]] {
        let run = client.run(way, &[]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), ""), "{way:?}: {}", run.err);
    }
}

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
    finds_nothing_wrong("bad_paths");
}

#[test]
fn a_limit_on_files_leaves_the_device_usable() {
    finds_nothing_wrong("file_limit");
}

#[test]
fn stores_to_the_page_of_the_pci_barrier_are_dropped() {
    finds_nothing_wrong("pci_barrier");
}

#[test]
fn the_devices_files_are_not_the_programs_to_change() {
    let run = Client::here("changes").run(&[], &[]);
    assert_eq!((run.code, run.out.as_str()), (Some(0), ""), "{}", run.err);
}

#[test]
fn wrong_arguments_get_the_kernels_errnos_on_each_device() {
    if !userfaultfd() {
        return;
    }
    let client = Client::here("checks");
    for device in ["pvc-2t", "bmg"] {
        let run = client.run(&["--device", device], &[]);
        assert_eq!((run.code, run.out.as_str()), (Some(0), ""), "{device}: {}", run.err);
    }
}

#[test]
fn what_is_written_to_sysfs_is_checked() {
    let run = Client::here("sysfs").run(&[], &[]);
    assert_eq!((run.code, run.out.as_str()), (Some(0), ""), "{}", run.err);
}

#[test]
fn too_few_descriptors_are_said() {
    if !userfaultfd() {
        return;
    }
    let script = "ulimit -n 5; : < /dev/dri/card0";
    let output = pontoon().args(["run", "--", "sh", "-c", script]).output().expect("starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("ulimit -n") && !errors.contains("unprivileged_userfaultfd"), "{errors}");
}

#[test]
fn too_little_room_for_vram_is_said_and_less_vram_helps() {
    if !userfaultfd() {
        return;
    }
    let run = |outside: &str, options: &[&str], inside: &str| {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{outside} exec \"$@\""), "sh", env!("CARGO_BIN_EXE_pontoon"), "run"])
            .args(options);
        let output =
            command.args(["--", "sh", "-c", &format!("{inside} : < /dev/dri/card0")]).output().expect("starts");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let limit = "ulimit -v 1048576;";
    for (outside, inside) in [(limit, ""), ("", limit)] {
        let (opened, errors) = run(outside, &[], inside);
        assert!(!opened && errors.contains("--vram 64M") && errors.contains("ulimit -v"), "{errors}");
    }
    let (opened, errors) = run(limit, &["--vram", "64M"], "");
    assert!(opened && !errors.contains("ulimit"), "{errors}");
}
