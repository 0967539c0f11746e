//! Programs that know nothing of the library, and take its things for nobody's.

use crate::clients::{Client, userfaultfd};
use std::path::Path;

#[test]
fn a_program_closes_every_descriptor_that_it_does_not_know() {
    if !userfaultfd() {
        return;
    }
    let client = Client::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/closes.c"));
    for (options, arguments) in [(&[][..], &[][..]), (&["--no-move"], &[]), (&["--hostile"], &["no device"])] {
        let run = client.run(options, arguments);
        assert_eq!((run.code, run.out.as_str()), (Some(0), "child 0, 0 pages wrong\n"), "{options:?}: {}", run.err);
    }
}
