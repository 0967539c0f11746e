//! Defect B, live: of a block of 64K in VRAM one page is unmapped, and the GPU touches the rest.

use crate::clients::{Client, userfaultfd};

#[test]
fn what_a_munmap_leaves_in_vram_is_refused_by_upstream_and_served_by_ours() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("rest");
    let run = client.run(&["--behaviour", "b=upstream"], &[]);
    assert_eq!((run.code, run.out.trim()), (Some(3), "REST refused (Input/output error) pages=15"), "{}", run.err);
    assert_eq!(["unfit_vram", "gpu_faults_refused", "bans"].map(|name| run.count(name)), [1; 3]);
    assert!(run.report["gpu_faults"].to_string().contains("EINVAL"), "{}", run.report["gpu_faults"]);
    for behaviour in ["b=ours", "b=posted", "b=none-below-64k", "b=evict-partial", "b=granule", "b=retry-once"] {
        let run = client.run(&["--behaviour", behaviour], &[]);
        assert_eq!((run.code, run.out.trim()), (Some(0), "REST ok pages=15"), "{behaviour}: {}", run.err);
        assert_eq!(["unfit_vram", "bans"].map(|name| run.count(name)), [0; 2], "{behaviour}");
    }
    let copying = client.run(&["--no-move"], &[]);
    assert_eq!((copying.code, copying.count("unfit_vram")), (Some(0), 0), "{}{}", copying.out, copying.err);
}
