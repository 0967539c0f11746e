//! Whose a page is: what was written after a page was given up stays, whoever wrote it.

use crate::clients::{Client, Run, userfaultfd};
use std::path::Path;

fn run(source: &str, options: &[&str], arguments: &[&str]) -> Run {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e").join(source);
    Client::of(&path).run(options, arguments)
}

#[test]
fn an_address_that_is_dropped_and_unmapped_is_the_next_owners() {
    if !userfaultfd() {
        return;
    }
    let run = run("reuse.c", &[], &["3000"]);
    assert_eq!((run.code, run.out.as_str()), (Some(0), "3000 rounds, 3000 taken, 0 lost\n"), "{}", run.err);
}

#[test]
fn what_is_written_after_madv_free_stays() {
    if !userfaultfd() {
        return;
    }
    for (way, rounds) in [(&[][..], 40), (&["--no-move"], 200)] {
        let run = run("free.c", way, &[&rounds.to_string()]);
        let right = format!("{} writes, 0 lost\n", rounds * 40);
        assert_eq!((run.code, run.out), (Some(0), right), "{way:?}: {}", run.err);
    }
}

#[test]
fn the_librarys_own_memory_is_refused() {
    if !userfaultfd() {
        return;
    }
    let run = run("ours.c", &[], &[]);
    let right = "library found, tiles 2, all found, 0 written\n";
    assert_eq!((run.code, run.out.as_str()), (Some(0), right), "{}", run.err);
}

#[test]
fn memory_right_behind_the_dynamic_linker_is_the_programs() {
    if !userfaultfd() {
        return;
    }
    let run = run("behind.c", &[], &[]);
    assert_eq!((run.code, run.out.as_str()), (Some(0), "7\n"), "{}", run.err);
    assert!(run.times("SYSTEM->VRAM0") > 0, "{}", run.report);
}

#[test]
fn memory_beside_what_the_gpu_uses_can_be_remapped() {
    if !userfaultfd() {
        return;
    }
    let run = run("remap.c", &[], &["600"]);
    assert_eq!((run.code, run.out.as_str()), (Some(0), "600 rounds, 0 failed, 0 wrong\n"), "{}", run.err);
}

#[test]
fn memory_that_is_mapped_anew_keeps_no_bind_out() {
    if !userfaultfd() {
        return;
    }
    for how in ["munmap", "mmap", "mremap", "stays"] {
        let run = run("anew.c", &[], &[how]);
        let right = if how == "stays" { "Device or resource busy\n" } else { "bound\n" };
        assert_eq!((run.code, run.out.as_str()), (Some(0), right), "{how}: {}", run.err);
    }
}

#[test]
fn a_page_that_was_replaced_is_part_of_its_block() {
    if !userfaultfd() {
        return;
    }
    let ways: [&[&str]; 3] = [&[], &["--hostile"], &["--no-move"]];
    for (way, arguments) in ways.iter().flat_map(|way| [(way, &[][..]), (way, &["unmapped"])]) {
        let run = run("replaced.c", way, arguments);
        let right = "2 of 2 atomics arrived, the new page has 1\n";
        assert_eq!((run.code, run.out.as_str()), (Some(0), right), "{way:?}: {}", run.err);
    }
}
