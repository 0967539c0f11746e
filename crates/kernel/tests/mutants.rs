//! The real files with a recheck, a wait or a notice taken out, one at a time: each must be found by exploring, and its seed must
//! play the same again. `KERNEL_TREE=DIR cargo test --release -p pontoon-kernel --test mutants`.

mod edit;
mod given;

use edit::remedy::DROP_LATER;
use edit::{Edit, GPUSVM, PAGEMAP, XE_SVM, patch};
use kernel::Workshop;
use kernel::explore::{Accesses, Finding, Search};
use kernel::judge::Outcome;
use std::path::Path;

const XE_PT: &str = "drivers/gpu/drm/xe/xe_pt.c";
const NOTIFIER: &str = "mm/mmu_notifier.c";

/// Schedules in which each must be found, and in which the tree as it is must be clean.
const SEEDS: u64 = 1000;

struct Mutant {
    name: &'static str,
    scene: &'static str,
    /// What its finding says.
    says: &'static str,
    edits: &'static [Edit],
}

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "get_pages does not look whether memory changed",
        scene: "cpufault",
        says: "",
        edits: &[Edit {
            file: GPUSVM,
            behind: "map_pages:",
            find: "if (mmu_interval_read_retry(",
            put: "if (0 && mmu_interval_read_retry(",
        }],
    },
    Mutant {
        name: "a notice does not change the sequence",
        scene: "cpufault",
        says: "",
        edits: &[Edit {
            file: GPUSVM,
            behind: "drm_gpusvm_notifier_invalidate(",
            find: "mmu_interval_set_seq(mni, cur_seq);",
            put: "(void)cur_seq;",
        }],
    },
    Mutant {
        name: "a notice does not take the notifier lock",
        scene: "cpufault",
        says: "",
        edits: &[
            Edit {
                file: GPUSVM,
                behind: "drm_gpusvm_notifier_invalidate(",
                find: "down_write(&gpusvm->notifier_lock);",
                put: "",
            },
            Edit {
                file: GPUSVM,
                behind: "drm_gpusvm_notifier_invalidate(",
                find: "up_write(&gpusvm->notifier_lock);",
                put: "",
            },
        ],
    },
    Mutant {
        name: "a notice leaves the pages' addresses",
        scene: "cpufault",
        says: "",
        edits: &[Edit {
            file: XE_SVM,
            behind: "xe_svm_range_notifier_event_end(",
            find: "\tdrm_gpusvm_",
            put: "\tif (0) drm_gpusvm_",
        }],
    },
    Mutant {
        name: "a notice flushes no translation",
        scene: "cpufault",
        says: "",
        edits: &[Edit {
            file: XE_SVM,
            behind: "static void xe_svm_invalidate(",
            find: "if (!tile_mask)",
            put: "if (1)",
        }],
    },
    Mutant {
        name: "a notice zaps no entry",
        scene: "cpufault",
        says: "",
        edits: &[Edit {
            file: XE_SVM,
            behind: "xe_svm_range_notifier_event_begin(",
            find: "if (xe_pt_zap_ptes_range(",
            put: "if (0 && xe_pt_zap_ptes_range(",
        }],
    },
    Mutant {
        name: "a bind does not look whether its pages are still valid",
        scene: "cpufault",
        says: "",
        edits: &[
            Edit {
                file: XE_PT,
                behind: "static int op_check_svm_userptr(",
                find: "if (!xe_svm_range_pages_valid(range)) {",
                put: "if (0) {",
            },
            Edit {
                file: XE_PT,
                behind: "static int op_check_svm_userptr(",
                find: "if (!xe_svm_range_pages_valid(range)) {",
                put: "if (0) {",
            },
        ],
    },
    Mutant {
        name: "nobody waits for a copy",
        scene: "faults",
        says: "",
        edits: &[Edit {
            file: XE_SVM,
            behind: "/* Wait for all copies to complete */",
            find: "dma_fence_wait(fence, false);",
            put: "",
        }],
    },
    Mutant {
        name: "a mapping that was invalidated counts as valid",
        scene: "cpufault",
        says: "",
        edits: &[Edit {
            file: XE_SVM,
            behind: "static bool xe_svm_range_is_valid(",
            find: "xe_vm_has_valid_gpu_mapping(",
            put: "range->tile_present ? true : xe_vm_has_valid_gpu_mapping(",
        }],
    },
    Mutant {
        name: "a range that was unmapped is not collected",
        scene: "munmap",
        says: "",
        edits: &[Edit {
            file: XE_SVM,
            behind: "xe_svm_range_notifier_event_end(",
            find: "mmu_range->event == MMU_NOTIFY_UNMAP",
            put: "0",
        }],
    },
    Mutant {
        name: "a change that ends wakes nobody",
        scene: "cpufault",
        says: "",
        edits: &[Edit {
            file: NOTIFIER,
            behind: "static void mn_itree_inv_end(",
            find: "wake_up_all(",
            put: "if (0) wake_up_all(",
        }],
    },
    Mutant {
        name: "pages of a migration are given back twice",
        scene: "cpufault",
        says: "",
        edits: &[Edit {
            file: PAGEMAP,
            behind: "static int __drm_pagemap_migrate_to_ram(",
            find: "kvfree(buf);",
            put: "kvfree(buf);\n\tkvfree(buf);",
        }],
    },
    Mutant {
        name: "an eviction keeps the process' memory in use",
        scene: "close",
        says: "users of the process' memory",
        edits: &[Edit {
            file: PAGEMAP,
            behind: "int drm_pagemap_evict_to_ram(",
            find: "mmput_async(devmem_allocation->mm);",
            put: "",
        }],
    },
    Mutant {
        name: "a copy's fence is not given back",
        scene: "close",
        says: "bytes that were asked for at xe_bb.c",
        edits: &[Edit {
            file: XE_SVM,
            behind: "/* Wait for all copies to complete */",
            find: "dma_fence_put(fence);",
            put: "",
        }],
    },
    Mutant {
        name: "what a copy has mapped for the device stays mapped",
        scene: "close",
        says: "pages mapped for the device",
        edits: &[Edit {
            file: PAGEMAP,
            behind: "static void drm_pagemap_migrate_unmap_pages(",
            find: "dma_unmap_page(",
            put: "if (0) dma_unmap_page(",
        }],
    },
    Mutant {
        name: "a buffer is not given back",
        scene: "close",
        says: "buffers",
        edits: &[Edit {
            file: XE_SVM,
            behind: "static void xe_svm_devmem_release(",
            find: "xe_bo_put_async(bo);",
            put: "",
        }],
    },
    Mutant {
        name: "memory is asked for under a lock that spins",
        scene: "munmap",
        says: "sleeps where it must not: an allocation that may wait",
        edits: &[Edit {
            file: XE_SVM,
            behind: "xe_svm_garbage_collector_add_range(",
            find: "spin_lock(&vm->svm.garbage_collector.lock);",
            put: "spin_lock(&vm->svm.garbage_collector.lock);\n\tkfree(kmalloc(8, GFP_KERNEL));",
        }],
    },
    Mutant {
        name: "a notice does not wait for page tables that a job writes",
        scene: "late",
        says: "",
        edits: &[Edit {
            file: XE_SVM,
            behind: "static void xe_svm_invalidate(",
            find: "err = dma_resv_wait_timeout(xe_vm_resv(vm),",
            put: "err = 1; if (0) dma_resv_wait_timeout(xe_vm_resv(vm),",
        }],
    },
    Mutant {
        name: "a copy does not wait until its buffer is cleared",
        scene: "late",
        says: "",
        edits: &[Edit {
            file: XE_SVM,
            behind: "/* Ensure that any clearing or async eviction",
            find: "if (!dma_resv_test_signaled(",
            put: "if (0 && !dma_resv_test_signaled(",
        }],
    },
    Mutant {
        name: "a block that is partly in VRAM is not refused",
        scene: "mixed",
        says: "",
        edits: &[Edit {
            file: PAGEMAP,
            behind: "/* Count device-private pages to migrate */",
            find: "else if (own_pages &&",
            put: "else if (0 && own_pages &&",
        }],
    },
    Mutant {
        name: "pages that are in VRAM already are taken once more",
        scene: "mixed",
        says: "",
        edits: &[Edit {
            file: PAGEMAP,
            behind: "/* Count device-private pages to migrate */",
            find: "own_pages += nr_pages;",
            put: "own_pages += 0;",
        }],
    },
    Mutant {
        name: "a fault of memory that is gone has another errno",
        scene: "munmap",
        says: "a fault of memory that is gone is answered: errno -1",
        edits: &[Edit {
            file: GPUSVM,
            behind: "drm_gpusvm_range_find_or_insert(struct",
            find: "err = -ENOENT;",
            put: "err = -EPERM;",
        }],
    },
];

/// The mutants that were asked for by a part of their name, in `MUTANTS`; all, where none was.
fn wanted(mutant: &&Mutant) -> bool {
    std::env::var("MUTANTS").map_or(true, |part| mutant.name.contains(&part))
}

fn search(scene: &str) -> Search<'_> {
    Search { scene, tiles: 1, seeds: 0..SEEDS, all: false, points: Accesses::Marked }
}

/// The end of a VM leaves nothing behind, where what is known to be is mended.
fn close_leaves_nothing(shop: &Workshop, tree: &Path) {
    let built = shop.link_patched(&[&patch(tree, "drop what was written down later", DROP_LATER)]).expect("linked");
    let explored = shop.explore(&built, &search("close")).expect("explored");
    assert_eq!(explored.outcome(), Outcome::Clean, "{:?} {:?}", explored.found, explored.not_judged);
}

fn as_it_is(shop: &Workshop) {
    let built = shop.link_watched().expect("linked");
    let scenes = ["glue", "memory", "faults", "munmap", "evict", "cpufault", "gc", "late", "mixed", "queue"];
    for scene in scenes {
        let explored = shop.explore(&built, &search(scene)).expect("explored");
        assert_eq!(explored.outcome(), Outcome::Clean, "{scene}: {:?} {:?}", explored.found, explored.not_judged);
    }
}

/// A seed plays the same after all seeds before it, in the process that they left, as it does alone.
fn plays_the_same_behind_others(shop: &Workshop) {
    let built = shop.link_watched().expect("linked");
    for scene in ["faults", "munmap", "evict", "cpufault", "gc", "queue", "close"] {
        for seed in [1, 40, 41] {
            let alone = shop.explain(&built, scene, 1, seed..seed + 1, Accesses::Marked).expect("told");
            let behind = shop.explain(&built, scene, 1, 0..seed + 1, Accesses::Marked).expect("told");
            assert!(alone.run.is_some(), "{scene} {seed} comes to its end");
            assert_eq!((alone.run, alone.steps), (behind.run, behind.steps), "{scene} {seed}");
        }
    }
}

/// Whether the mutant is found, and its seed plays twice the same.
fn is_found(shop: &Workshop, tree: &Path, mutant: &Mutant) -> bool {
    let patch = patch(tree, mutant.name, mutant.edits);
    let built = shop.link_patched(&[&patch]).expect("linked");
    let explored = shop.explore(&built, &search(mutant.scene)).expect("explored");
    let says = |finding: &&Finding| finding.text.contains(mutant.says);
    let Some(first) = explored.found.iter().filter(says).min_by_key(|finding| finding.seed) else {
        println!("NOT FOUND in {} schedules: {}", explored.runs, mutant.name);
        return false;
    };
    println!("seed {:<5} {}: {}", first.seed, mutant.name, first.text);
    let seed = first.seed;
    let [once, again] =
        [(); 2].map(|()| shop.explain(&built, mutant.scene, 1, seed..seed + 1, Accesses::Marked).expect("told"));
    let again_said = format!("!!! {}", first.text);
    assert!(once.lines().contains(&again_said), "{}: its seed finds it again", mutant.name);
    assert_eq!((once.run, once.steps), (again.run, again.steps), "{}: bit for bit", mutant.name);
    true
}

#[test]
fn each_mutant_is_found_and_the_tree_as_it_is_is_clean() {
    let Some((tree, shop)) = given::tree("nothing was explored") else { return };
    plays_the_same_behind_others(&shop);
    as_it_is(&shop);
    close_leaves_nothing(&shop, &tree);
    let wanted: Vec<&Mutant> = MUTANTS.iter().filter(wanted).collect();
    assert!(!wanted.is_empty(), "no mutant has such a name");
    let missed: Vec<&str> =
        wanted.into_iter().filter(|mutant| !is_found(&shop, &tree, mutant)).map(|mutant| mutant.name).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
