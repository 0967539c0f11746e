//! What memory promises an engine, one table (`crates/kface/cases/memory.txt`): on the model, and on the tree's own files under the
//! glue: `KERNEL_TREE=DIR cargo test -p pontoon-kernel --test memory`.

mod given;
mod model;

use kernel::explore::{Accesses, Search};
use kface::memory::{cases, differences};

#[test]
fn the_model_keeps_what_the_table_promises() {
    let cases = cases();
    let differ: Vec<String> = cases.iter().flat_map(|case| differences(case, &model::play(case))).collect();
    assert!(differ.is_empty(), "{} cases, and:\n{}", cases.len(), differ.join("\n"));
}

#[test]
fn the_tree_keeps_what_the_table_promises() {
    let Some((_, shop)) = given::tree("only the model was compared with the table") else { return };
    let built = shop.link().expect("linked");
    let seeds = 0..cases().len() as u64;
    let all = Search { scene: "memory", tiles: 1, seeds, all: true, points: Accesses::Marked };
    let explored = shop.explore(&built, &all).expect("explored");
    let found: Vec<_> = explored.found.iter().map(|finding| finding.text.as_str()).collect();
    assert!(found.is_empty(), "{} cases, and:\n{}", explored.runs, found.join("\n"));
    assert!(explored.not_judged.is_empty() && explored.missed.is_empty(), "{:?}", explored.not_judged);
    assert_eq!(explored.runs, cases().len() as u64);
}
