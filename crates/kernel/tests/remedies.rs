//! The remedies of docs/findings.md as patches to the user's tree, judged patch by patch: `KERNEL_TREE=DIR cargo test -p
//! pontoon-kernel --test remedies`.

mod edit;
mod given;

use edit::remedy::{COMPARE, COUNT_FILLED, GO_HOME, MEMORY_TYPE, MIXED_GO_HOME, NO_OWNER, PAGE_SIZE, WRITABLE};
use edit::{Edit, patch, patch_behind};
use kernel::Workshop;
use kernel::judge::{Outcome, Verdict};
use kernel::series::Patch;
use std::path::Path;

/// Each state of a series by its name, with what is said of it.
fn judged(shop: &Workshop, series: &[Patch], subsets: bool, ids: &[&'static str]) -> Vec<(String, Vec<Verdict>)> {
    let mut all = Vec::new();
    let tell = |state: &str, verdicts: anyhow::Result<Vec<Verdict>>| {
        let verdicts = verdicts.unwrap_or_else(|error| panic!("{state}: {error:#}"));
        verdicts.iter().for_each(|verdict| println!("{state}: {}", verdict.line()));
        all.push((state.to_owned(), verdicts));
    };
    shop.judge_series(series, subsets, ids, tell).expect("judged");
    all
}

/// What is said patch by patch.
fn states(shop: &Workshop, series: &[Patch], id: &'static str) -> Vec<Verdict> {
    judged(shop, series, false, &[id]).into_iter().flat_map(|(_, verdicts)| verdicts).collect()
}

fn cross_tile(shop: &Workshop, tree: &Path) {
    let series = [patch(tree, "compare", COMPARE), patch_behind(tree, "go home", COMPARE, GO_HOME)];
    let verdicts = states(shop, &series, "A");
    assert_eq!(verdicts[0].outcome, Outcome::Found);
    assert!(verdicts[0].evidence.starts_with("LOST 16 of 16 pages, driver says success, SILENT"));
    assert_eq!(verdicts[1].outcome, Outcome::Clean);
    assert!(verdicts[1].evidence.starts_with("kept 16 of 16 pages"));
    let series = [patch(tree, "memory type", MEMORY_TYPE), patch_behind(tree, "page size", MEMORY_TYPE, PAGE_SIZE)];
    let verdicts = states(shop, &series, "A");
    assert_eq!(verdicts[0].outcome, Outcome::Found);
    assert!(verdicts[0].evidence.contains("page table is one that the device forbids"));
    assert_eq!(verdicts[1].outcome, Outcome::Clean);
    assert_eq!(verdicts[1].evidence, "kept 16 of 16 pages, moved to tile 1 in one copy");
    let series = [patch(tree, "by type, mixed blocks go home", &[MEMORY_TYPE, PAGE_SIZE, MIXED_GO_HOME].concat())];
    assert_eq!(states(shop, &series, "A")[0].evidence, "kept 16 of 16 pages, moved to tile 1 in one copy");
}

#[test]
fn remedies_are_judged_as_the_findings_say() {
    let Some((tree, shop)) = given::tree("nothing was judged") else { return };
    cross_tile(&shop, &tree);
    for (id, edits) in [("B", NO_OWNER), ("C", COUNT_FILLED), ("F", WRITABLE)] {
        let verdicts = states(&shop, &[patch(&tree, id, edits)], id);
        assert_eq!(verdicts[0].outcome, Outcome::Clean, "{}", verdicts[0].line());
    }
}

/// Of three patches each subset is a driver of its own. A-v keeps the pages, unless A-i has made all addresses of the copy 0
/// before; the count of the fences is C's, whatever stands beside it.
#[test]
fn every_subset_of_a_series_is_judged() {
    let Some((tree, shop)) = given::tree("no subset was judged") else { return };
    let by_type = [MEMORY_TYPE, PAGE_SIZE].concat();
    let series =
        [patch(&tree, "compare", COMPARE), patch(&tree, "by type", &by_type), patch(&tree, "count", COUNT_FILLED)];
    let clean = |verdicts: Vec<Verdict>| verdicts.iter().map(|verdict| verdict.outcome == Outcome::Clean).collect();
    let judged = judged(&shop, &series, true, &["A", "C"]);
    let seen: Vec<(String, Vec<bool>)> = judged.into_iter().map(|(state, verdicts)| (state, clean(verdicts))).collect();
    let expected: [(&str, [bool; 2]); 7] = [
        ("patch 1/3 compare", [false, false]),
        ("patch 2/3 by type", [false, false]),
        ("patch 3/3 count", [false, true]),
        ("only 2", [true, false]),
        ("only 3", [false, true]),
        ("only 1 + 3", [false, true]),
        ("only 2 + 3", [true, true]),
    ];
    assert_eq!(seen, expected.map(|(state, clean)| (state.to_owned(), clean.to_vec())));
}

/// All five in a row: each state mends what the ones before it mend, and nothing else. With A-ii before it, A-v has nothing to copy.
#[test]
fn the_five_remedies_are_judged_patch_by_patch() {
    let Some((tree, shop)) = given::tree("no series of five was judged") else { return };
    let by_type = [MEMORY_TYPE, PAGE_SIZE].concat();
    let all: [(&str, &[Edit]); 5] =
        [("A-i", COMPARE), ("A-ii", GO_HOME), ("A-v", &by_type), ("B-ii", NO_OWNER), ("C", COUNT_FILLED)];
    let series = all.map(|(name, edits)| patch(&tree, name, edits));
    let judged = judged(&shop, &series, false, &["A", "B", "C"]);
    let clean = judged.iter().map(|(_, verdicts)| verdicts.iter().map(|verdict| verdict.outcome == Outcome::Clean));
    let clean: Vec<Vec<bool>> = clean.map(Iterator::collect).collect();
    let expected =
        [[false, false, false], [true, false, false], [true, false, false], [true, true, false], [true, true, true]];
    assert_eq!(clean, expected);
    assert!(judged[0].1[0].evidence.contains("SILENT") && judged[4].1[0].evidence.contains("through system memory"));
}
