//! Scenes on two tiles, on the tree's own code: `KERNEL_TREE=DIR cargo test --release -p pontoon-kernel --test two_tiles`.

mod edit;
mod given;

use edit::remedy::{COMPARE, DROP_LATER, GO_HOME, MEMORY_TYPE, MIXED_GO_HOME, NO_OWNER, PAGE_SIZE, WRITABLE};
use edit::{Edit, patch};
use kernel::explore::{Accesses, Explored, Search};
use kernel::judge::Outcome;
use kernel::{Built, Workshop};

const SEEDS: u64 = 300;
const SCENES: &[&str] = &["faults", "munmap", "evict", "cpufault", "gc", "fork", "late", "mixed", "queue", "close"];

fn explored(shop: &Workshop, built: &Built, scene: &str) -> Explored {
    let search = Search { scene, tiles: 2, seeds: 0..SEEDS, all: true, points: Accesses::Marked };
    let explored = shop.explore(built, &search).expect("explored");
    println!("{scene}: {} runs: {:?} {:?}", explored.runs, explored.missed, explored.not_judged);
    explored.found.iter().for_each(|one| println!("    seed {} and {} runs: {}", one.seed, one.runs, one.text));
    explored
}

/// Each scene with what is found in it, but for two tiles that take a block from each other: no remedy is for that (D8).
fn found(shop: &Workshop, built: &Built) -> Vec<(&'static str, Vec<String>)> {
    let texts = |scene| {
        let explored = explored(shop, built, scene);
        assert!(explored.missed.is_empty() && explored.not_judged.is_empty(), "{scene}");
        explored.found.into_iter().map(|one| one.text).filter(|text| !text.starts_with("two tiles take")).collect()
    };
    SCENES.iter().map(|scene| (*scene, texts(scene))).collect()
}

/// Releases 7.2 and 7.3 lose data where two tiles share a block (A). With B, F and what is written down for a VM that is closed
/// mended, blocks that go home first lose none. A copy from tile to tile does, where a page of the block is in system memory: the
/// entries of 64K that it needs cannot be made. It loses none where such blocks go home.
#[test]
fn two_tiles_lose_data_and_do_not_with_the_remedies() {
    let Some((tree, shop)) = given::tree("two tiles were not explored") else { return };
    let as_it_is = shop.link_watched().expect("linked");
    // D8 alone would be a finding, too.
    let as_it_is = explored(&shop, &as_it_is, "faults");
    assert!(as_it_is.outcome() == Outcome::Found && as_it_is.found.iter().any(|one| one.text.starts_with("LOST")));
    let others = [NO_OWNER, WRITABLE, DROP_LATER].concat();
    let mended = |name, remedy: &[&[Edit]]| {
        println!("{name}");
        let edits = [remedy.concat(), others.clone()].concat();
        found(&shop, &shop.link_patched(&[&patch(&tree, name, &edits)]).expect("linked"))
    };
    let is_clean = |all: Vec<(&str, Vec<String>)>| assert!(all.iter().all(|(_, texts)| texts.is_empty()), "{all:?}");
    is_clean(mended("A-i and A-ii", &[COMPARE, GO_HOME]));
    is_clean(mended("A-v, and A-ii for mixed blocks", &[MEMORY_TYPE, PAGE_SIZE, MIXED_GO_HOME]));
    let direct = mended("A-v", &[MEMORY_TYPE, PAGE_SIZE]);
    for (scene, texts) in direct {
        assert_eq!(texts.iter().any(|text| text == "malformed table"), scene == "mixed", "{scene}: {texts:?}");
        assert_eq!(texts.is_empty(), scene != "mixed", "{scene}: {texts:?}");
    }
}
