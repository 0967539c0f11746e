//! The accounts against the kernel's word: frames that we count as used are the pages that mincore finds in the arenas.

use crate::clients::{Client, userfaultfd};
use serde_json::Value;
use std::path::Path;

fn frames(report: &Value, which: &str) -> Vec<u64> {
    let list = report["memory"][which].as_array().unwrap_or_else(|| panic!("no {which} in {report}"));
    list.iter().map(|n| n.as_u64().expect("a number")).collect()
}

#[test]
fn what_is_left_in_vram_is_what_mincore_finds_there() {
    if !userfaultfd() {
        return;
    }
    let client = Client::new("peek");
    for (size, tiles, at) in [("65536", "0", 0), ("65536", "01", 1), ("2097152", "10", 0), ("4194304", "1", 1)] {
        let run = client.run(&[], &["-s", size, "-t", tiles, "-l"]);
        assert_eq!(run.code, Some(0), "{}{}", run.out, run.err);
        let (accounted, mincore) = (frames(&run.report, "accounted_frames"), frames(&run.report, "mincore_frames"));
        assert_eq!(accounted, mincore, "{size} by {tiles}");
        let block = size.parse::<u64>().expect("a size") / 4096;
        assert!(accounted[at] >= block, "the block is in VRAM{at}: {accounted:?}");
    }
}

/// Nobody's fault brings them back: they were missing among the migrations.
#[test]
fn what_a_fork_or_an_mremap_brings_back_is_a_migration() {
    if !userfaultfd() {
        return;
    }
    let client = Client::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/comes_back.c"));
    for change in ["fork", "mremap"] {
        let run = client.run(&[], &[change]);
        assert_eq!(run.code, Some(0), "{change}: {}{}", run.out, run.err);
        let pages = |way: &str| run.report["migrated_pages"][way].as_u64().unwrap_or(0);
        assert_eq!(pages("VRAM0->SYSTEM"), pages("SYSTEM->VRAM0"), "{change}: {}", run.report["migrated_pages"]);
        assert!(pages("VRAM0->SYSTEM") >= 512, "{change}: {}", run.report["migrated_pages"]);
    }
}
