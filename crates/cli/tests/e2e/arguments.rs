//! Bad arguments from a C program: the errno of the real interface, and the program lives on.

use crate::clients::{Client, userfaultfd};
use std::path::Path;

#[test]
fn pointers_to_nowhere_are_efault_and_no_signal() {
    if !userfaultfd() {
        return;
    }
    let client = Client::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/bad_pointers.c"));
    let run = client.run(&[], &[]);
    assert_eq!((run.code, run.out.as_str()), (Some(0), ""), "{}", run.err);
}
