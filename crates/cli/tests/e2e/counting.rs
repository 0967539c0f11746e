//! Defect C, live: the first bind of a mirror, with a user fence, on the default queue of a device of two tiles.

use crate::clients::{Client, userfaultfd};

#[test]
fn upstream_miscounts_the_fences_of_the_first_bind() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("peek");
    let run = client.run(&["--behaviour", "c=upstream"], &["-t", "0", "-p", "1"]);
    assert_ne!(run.code, Some(0), "{}", run.out);
    assert!(run.err.contains("VM_BIND: Bad address"), "{}", run.err);
    assert_eq!(run.count("fence_array_holes"), 1);
    for behaviour in ["c=posted", "c=one-queue", "c=ours"] {
        let run = client.run(&["--behaviour", behaviour], &["-t", "0", "-p", "1"]);
        assert_eq!((run.code, run.count("fence_array_holes")), (Some(0), 0), "{behaviour}: {}", run.err);
    }
}
