//! A fork among stores of tiles and CPUs, on the tree's own code: `KERNEL_TREE=DIR cargo test --release -p pontoon-kernel --test fork`.

mod edit;
mod given;

use edit::patch;
use edit::remedy::WRITABLE;
use kernel::explore::{Accesses, Explored, Search};
use kernel::judge::Outcome;
use kernel::{Built, Workshop};

const SEEDS: u64 = 1000;
const SHOWN: &str = "a child reads what was stored after the fork";

fn explored(shop: &Workshop, built: &Built) -> Explored {
    let search = Search { scene: "fork", tiles: 1, seeds: 0..SEEDS, all: true, points: Accesses::Marked };
    let explored = shop.explore(built, &search).expect("explored");
    println!("{} runs: {:?} {:?}", explored.runs, explored.reached, explored.not_judged);
    explored.found.iter().for_each(|one| println!("seed {} and {} runs: {}", one.seed, one.runs, one.text));
    explored
}

/// Releases 7.2 and 7.3 map a page in VRAM for a store that both processes have (F). With that mended, no order of events shows it.
#[test]
fn what_is_stored_after_a_fork_is_shown_to_the_child_and_not_with_the_remedy() {
    let Some((tree, shop)) = given::tree("no fork was explored") else { return };
    let as_it_is = explored(&shop, &shop.link_watched().expect("linked"));
    assert!(as_it_is.missed.is_empty() && as_it_is.not_judged.is_empty());
    let texts: Vec<&str> = as_it_is.found.iter().map(|finding| finding.text.as_str()).collect();
    assert_eq!(texts, [SHOWN]);
    let mended = shop.link_patched(&[&patch(&tree, "F", WRITABLE)]).expect("linked");
    let mended = explored(&shop, &mended);
    assert_eq!(mended.outcome(), Outcome::Clean, "{:?} {:?}", mended.found, mended.missed);
}
