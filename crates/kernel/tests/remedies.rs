//! The remedies of docs/findings.md as patches to the user's tree, judged patch by patch: `KERNEL_TREE=DIR cargo test -p
//! pontoon-kernel --test remedies`.

mod edit;
mod given;

use edit::{Edit, PAGEMAP, WRITABLE, XE_SVM, patch, patch_behind};
use kernel::Workshop;
use kernel::judge::{Outcome, Verdict};
use kernel::series::Patch;
use std::path::Path;

const MIGRATE: &str = "drivers/gpu/drm/xe/xe_migrate.c";
const XE_SYNC: &str = "drivers/gpu/drm/xe/xe_sync.c";

/// A-i: what makes addresses for the copy compares devices and not pagemaps.
const COMPARE: &[Edit] = &[Edit {
    file: PAGEMAP,
    behind: "drm_pagemap_migrate_map_device_private_pages(",
    find: "dpagemap == local_dpagemap",
    put: "dpagemap->drm == local_dpagemap->drm",
}];
/// A-ii: and a block with pages in other VRAM of the same device goes home first.
const GO_HOME: &[Edit] = &[
    Edit {
        file: PAGEMAP,
        behind: "/* Count device-private pages to migrate */",
        find: "own_pages += nr_pages;",
        put: "own_pages += nr_pages;\n\t\t\telse if (drm_pagemap_page_zone_device_data(src_page)->dpagemap->drm ==\n\
              \t\t\t\t dpagemap->drm)\n\t\t\t\tnear_pages += nr_pages;",
    },
    Edit {
        file: PAGEMAP,
        behind: "/* Count device-private pages to migrate */",
        find: "} else if (own_pages &&",
        put: "} else if ((own_pages || near_pages) &&",
    },
    Edit {
        file: PAGEMAP,
        behind: "int drm_pagemap_migrate_to_devmem(",
        find: "unsigned long own_pages = 0,",
        put: "unsigned long near_pages = 0, own_pages = 0,",
    },
];
/// A-v: the copy's page tables have the memory type that the address is of.
const MEMORY_TYPE: &[Edit] = &[
    Edit {
        file: MIGRATE,
        behind: "static void build_pt_update_batch_sram(",
        find: "xe_tile_assert(m->tile, sram_addr[i].proto ==",
        put: "xe_tile_assert(m->tile, sram_addr[i].proto == XE_INTERCONNECT_VRAM ||\n\t\t\t\t       sram_addr[i].proto ==",
    },
    Edit {
        file: MIGRATE,
        behind: "static void build_pt_update_batch_sram(",
        find: "level, false, 0);",
        put: "level,\n\t\t\t\t\t\t\t\tsram_addr[i].proto == XE_INTERCONNECT_VRAM, 0);",
    },
];
/// And, where a device wants 64K pages of its memory, they say so.
const PAGE_SIZE: &[Edit] = &[Edit {
    file: MIGRATE,
    behind: "static void build_pt_update_batch_sram(",
    find: "\t\t\tbb->cs[bb->len++] = lower_32_bits(pte);",
    put: "\t\t\tif (sram_addr[i].proto == XE_INTERCONNECT_VRAM && m->q->vm->flags & XE_VM_FLAG_64K)\n\
          \t\t\t\tpte |= XE_PTE_PS64;\n\t\t\tbb->cs[bb->len++] = lower_32_bits(pte);",
}];
/// B-ii: a range that the device could not map in VRAM takes its pages in system memory.
const NO_OWNER: &[Edit] = &[Edit {
    file: XE_SVM,
    behind: "static int __xe_svm_handle_pagefault(",
    find: "\trange_debug(range, \"GET PAGES\");",
    put: "\tif (vm->flags & XE_VM_FLAG_64K && xe_svm_range_size(range) < SZ_64K)\n\
          \t\tctx.device_private_page_owner = NULL;\n\trange_debug(range, \"GET PAGES\");",
}];
/// C: as many fences as were filled in.
const COUNT_FILLED: &[Edit] = &[Edit {
    file: XE_SYNC,
    behind: "xe_sync_in_fence_get(",
    find: "xe_assert(vm->xe, current_fence == num_fence);",
    put: "num_fence = current_fence;",
}];

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
