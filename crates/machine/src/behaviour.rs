//! The registry of behaviours: names that a user may choose, each with the kernel function it stands for.
//!
//! A behaviour is `KEY=VARIANT`. The default of every key is the correct one; `upstream` is what Linux 7.2
//! does; `patch` is a switch of the posted patch, of which a list may have several; of any other key it has one. `plant` switches
//! on a mistake made on purpose, where a programmer would make it.

use gpusvm::FromOthers;
use std::fmt::Write;
use xe_kmd::{planted, upstream};

/// One variant of a rule.
pub struct Variant {
    /// Which rule.
    pub key: &'static str,
    /// Which variant.
    pub name: &'static str,
    /// What it is and which function it stands for.
    pub about: &'static str,
    /// What it changes in the tables of rules; `None`: nothing, it is the default or nothing here reads what it sets.
    apply: Option<fn(&mut Behaviours)>,
}

/// How the driver, and the memory management of a process that moves its memory, decide.
#[derive(Clone, Copy)]
pub struct Behaviours {
    /// The driver.
    pub driver: xe_kmd::Rules,
    /// The memory management.
    pub mm: mm_live::Rules,
}

impl Behaviours {
    /// Both as they should.
    pub const CORRECT: Self = Self { driver: xe_kmd::Rules::CORRECT, mm: mm_live::Rules::CORRECT };
}

/// All variants that can be chosen.
pub const VARIANTS: &[Variant] = &[
    Variant {
        key: "a",
        name: "ours",
        about: "A-v: both ends of a copy from tile to tile through the identity window, with DM (default)",
        apply: None,
    },
    Variant {
        key: "a",
        name: "upstream",
        about: "the copy's remote side is written as system memory whatever it is (build_pt_update_batch_sram)",
        apply: Some(|to| to.driver.copy_remote_side = upstream::copy::remote_side),
    },
    Variant {
        key: "a",
        name: "skip",
        about: "A-i: the remote side counts as the tile's own and is not copied (the if of drm_pagemap_migrate_map_device_private_pages)",
        apply: Some(|to| to.driver.copy_remote_side = upstream::copy::skipped),
    },
    Variant {
        key: "a",
        name: "entries",
        about: "A-v as entries of the copy's page tables, with DM, and PS64 for whole pages of 64K (build_pt_update_batch_sram)",
        apply: Some(|to| to.driver.copy_remote_side = upstream::copy::by_entries),
    },
    Variant {
        key: "a",
        name: "bounce",
        about: "A-ii, A-iv: pages of another tile of the device migrate back first (own_pages and -EBUSY of drm_pagemap_migrate_to_devmem)",
        apply: Some(|to| to.driver.from_others = FromOthers::RefuseSiblings),
    },
    Variant {
        key: "a",
        name: "bounce-all",
        about: "the same by pagemap and not by device: pages of a peer migrate back first, too",
        apply: Some(|to| to.driver.from_others = FromOthers::RefuseAll),
    },
    Variant {
        key: "a",
        name: "stay",
        about: "A-iii: pages of another tile of the device stay and are mapped there (own_pages == npages of drm_pagemap_migrate_to_devmem)",
        apply: Some(|to| to.driver.from_others = FromOthers::SiblingsStay),
    },
    Variant {
        key: "a",
        name: "peer",
        about: "A-vi: the remote side is reached over the bus, through the device's own window (peer_map, as posted)",
        apply: Some(|to| to.driver.map_for_push = upstream::copy::through_bar),
    },
    Variant {
        key: "thrash",
        name: "upstream",
        about: "a fault takes pages from another tile or device whenever it would rather have them itself (default)",
        apply: None,
    },
    Variant {
        key: "thrash",
        name: "settle",
        about: "pages that a fault took from another VRAM stay there for 10 ms; who reaches them maps them, atomics take them all the same",
        apply: Some(|to| to.driver.settle_ms = 10),
    },
    Variant {
        key: "b",
        name: "ours",
        about: "ranges below 64K are collected without an owner, and what no leaf maps all the same is evicted (default)",
        apply: None,
    },
    Variant {
        key: "b",
        name: "upstream",
        about: "a page in VRAM that no leaf of 64K maps: a warning, the fault or ioctl is refused (xe_pt_stage_bind_entry)",
        apply: Some(|to| to.driver.unfit_vram = upstream::unfit::UPSTREAM),
    },
    Variant {
        key: "b",
        name: "posted",
        about: "the handler evicts and starts again without a bound; an atomic is dropped (posted hunk, __xe_svm_handle_pagefault)",
        apply: Some(|to| to.driver.unfit_vram = upstream::unfit::POSTED),
    },
    Variant {
        key: "b",
        name: "none-below-64k",
        about: "ranges below 64K are collected without an owner, else as upstream (__xe_svm_handle_pagefault)",
        apply: Some(|to| to.driver.unfit_vram = upstream::unfit::NONE_BELOW_64K),
    },
    Variant {
        key: "b",
        name: "evict-partial",
        about: "the collector evicts what a munmap left of a range, else as upstream (xe_svm_garbage_collector)",
        apply: Some(|to| to.driver.unfit_vram = upstream::unfit::EVICT_PARTIAL),
    },
    Variant {
        key: "b",
        name: "granule",
        about: "the collection refuses VRAM that does not cover granules of 64K, else as upstream (drm_gpusvm_get_pages)",
        apply: Some(|to| to.driver.unfit_vram = upstream::unfit::GRANULE),
    },
    Variant {
        key: "b",
        name: "retry-once",
        about: "what no leaf maps is evicted and collected without an owner, once (xe_pt_stage_bind_entry, handler)",
        apply: Some(|to| to.driver.unfit_vram = upstream::unfit::RETRY_ONCE),
    },
    Variant {
        key: "c",
        name: "ours",
        about: "a bind without work for page tables signals behind the last jobs of all tiles (default)",
        apply: None,
    },
    Variant {
        key: "c",
        name: "upstream",
        about: "its fences are counted by tile and filled along a list that the default queues are not in (xe_sync_in_fence_get)",
        apply: Some(|to| to.driver.bind_fence_slots = upstream::fence::counted_by_tile),
    },
    Variant {
        key: "c",
        name: "posted",
        about: "they are counted along that list, too: of the default queues only tile 0's is waited for",
        apply: Some(|to| to.driver.bind_fence_slots = upstream::fence::posted),
    },
    Variant {
        key: "c",
        name: "one-queue",
        about: "one queue for the binds of all tiles, its fences counted and filled in one loop (xe_vm_create, for 7.4)",
        apply: Some(|to| to.driver = upstream::fence::one_queue(to.driver)),
    },
    Variant {
        key: "d4",
        name: "ours",
        about: "blocks of VRAM in which no page lives any more are given back at once (default)",
        apply: None,
    },
    Variant {
        key: "d4",
        name: "upstream",
        about: "an allocation of VRAM is kept until its last page leaves (drm_pagemap_zdd)",
        apply: Some(|to| to.driver.gives_parts_back = false),
    },
    Variant {
        key: "patch",
        name: "none",
        about: "a, b and c as upstream has them: what the switches of the posted patch (below) are put on",
        apply: Some(without_patch),
    },
    Variant {
        key: "patch",
        name: "peer-map",
        about: "posted: what lies in another pagemap is mapped through peer_map (drm_pagemap.c)",
        apply: Some(|to| to.driver.map_for_push = upstream::copy::through_bar),
    },
    Variant {
        key: "patch",
        name: "enospc",
        about: "posted: a bind that meets VRAM which no leaf of 64K maps says ENOSPC (xe_pt_stage_bind_entry)",
        apply: Some(|to| to.driver.unfit_vram.errno = xe_kmd::Errno::ENOSPC),
    },
    Variant {
        key: "patch",
        name: "copy-flush",
        about: "posted: one more end of a run in xe_svm_copy; runs here never cross a gap, so nothing reads it",
        apply: None,
    },
    Variant {
        key: "patch",
        name: "needs-migrate",
        about: "posted: a test where xe_svm_range_needs_migrate_to_vram says no already; nothing reads it",
        apply: None,
    },
    Variant {
        key: "patch",
        name: "local-dpagemap",
        about: "posted: ctx.local_dpagemap is set in the handler; nothing reads it, here as there",
        apply: None,
    },
    Variant {
        key: "patch",
        name: "handler",
        about: "posted: the handler takes ENOSPC for such VRAM, evicts, drops the atomic and starts again",
        apply: Some(|to| to.driver.unfit_vram.when_met = upstream::unfit::posted_handler),
    },
    Variant {
        key: "patch",
        name: "unmap-pages",
        about: "posted: behind that eviction the range's pages are unmapped (drm_gpusvm_range_unmap_pages)",
        apply: Some(|to| to.driver.unfit_vram.unmaps = true),
    },
    Variant {
        key: "patch",
        name: "timeslice",
        about: "posted: each such round doubles the minimum residency",
        apply: Some(|to| to.driver.unfit_vram.doubles_residency = true),
    },
    Variant {
        key: "patch",
        name: "fence-count",
        about: "posted: fences are counted along the list, as c=posted (xe_sync_in_fence_get)",
        apply: Some(|to| to.driver.bind_fence_slots = upstream::fence::posted),
    },
    Variant {
        key: "plant",
        name: "dm-dropped",
        about: "leaves lose DM: VRAM pages look like system memory (pte_encode_vma)",
        apply: Some(|to| to.driver.encode_leaf = planted::leaf::dm_dropped),
    },
    Variant {
        key: "plant",
        name: "ps64-missing",
        about: "4K entries of a 64K page lose PS64 (xe_pt_stage_bind_entry)",
        apply: Some(|to| to.driver.encode_leaf = planted::leaf::ps64_missing),
    },
    Variant {
        key: "plant",
        name: "rw-cleared",
        about: "leaves lose RW (pte_encode_vma)",
        apply: Some(|to| to.driver.encode_leaf = planted::leaf::rw_cleared),
    },
    Variant {
        key: "plant",
        name: "no-flush",
        about: "entries are cleared and the TLB is not flushed (xe_tlb_inval_range)",
        apply: Some(|to| to.driver.flush = planted::flush::left_out),
    },
    Variant {
        key: "plant",
        name: "window-kept",
        about: "what one tile pushes to another is mapped on the bus, too, and never unmapped (drm_pagemap_unmap_pages)",
        apply: Some(|to| to.driver.map_for_push = planted::ends::window_kept),
    },
    Variant {
        key: "plant",
        name: "unanswered",
        about: "a fault that is refused is not acknowledged: its job waits for ever (xe_pagefault_queue_work)",
        apply: Some(|to| to.driver.answers = planted::ends::refusals_unanswered),
    },
    Variant {
        key: "plant",
        name: "asserted",
        about: "an assertion fails where a leaf in VRAM is written, under the notifier lock (pte_encode_vma)",
        apply: Some(|to| to.driver.encode_leaf = planted::ends::leaf_asserted),
    },
    Variant {
        key: "plant",
        name: "lock-order",
        about: "mm-live takes the lock of its registrations under that of its books; elsewhere the other way round",
        apply: Some(|to| to.mm.on_remove = mm_live::planted::lock_order),
    },
    Variant {
        key: "plant",
        name: "discard-ahead",
        about: "mm-live drops pages ahead of a DONTNEED that it was told of",
        apply: Some(|to| to.mm.on_remove = mm_live::planted::discard_ahead),
    },
    Variant {
        key: "plant",
        name: "insert-uncounted",
        about: "mm-live does not count a new notifier into invalidations that run (mmu_interval_notifier_insert)",
        apply: Some(|to| to.mm.counts_in = mm_live::planted::insert_uncounted),
    },
    Variant {
        key: "plant",
        name: "overtake-notices",
        about: "mm-live claims pages before it has delivered the notice that is about them",
        apply: Some(|to| to.mm.awaits_notices = mm_live::planted::overtake_notices),
    },
];

impl Variant {
    /// Whether it changes any rule.
    pub const fn changes_a_rule(&self) -> bool {
        self.apply.is_some()
    }

    /// Whether a list may have others of its key beside it.
    fn adds_up(&self) -> bool {
        self.key == "patch"
    }
}

/// Upstream, which the posted patch is put on.
fn without_patch(to: &mut Behaviours) {
    to.driver.copy_remote_side = upstream::copy::remote_side;
    to.driver.unfit_vram = upstream::unfit::UPSTREAM;
    to.driver.bind_fence_slots = upstream::fence::counted_by_tile;
}

/// What a list such as `a=upstream,plant=no-flush` chooses; the error names what would be accepted.
pub fn parse(list: &str) -> Result<Behaviours, String> {
    let (mut behaviours, mut chosen) = (Behaviours::CORRECT, Vec::<&Variant>::new());
    for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let variant = VARIANTS.iter().find(|v| item.split_once('=') == Some((v.key, v.name)));
        let variant = variant.ok_or_else(|| unknown(item))?;
        if let Some(Variant { key, name, .. }) =
            chosen.iter().find(|other| other.key == variant.key && !variant.adds_up())
        {
            return Err(format!("'{key}={name}' and '{item}' are two variants of one rule: choose one"));
        }
        chosen.push(variant);
        variant.apply.into_iter().for_each(|apply| apply(&mut behaviours));
    }
    Ok(behaviours)
}

fn unknown(item: &str) -> String {
    let mut text = format!("unknown behaviour '{item}'; there are:");
    for variant in VARIANTS {
        let _ = write!(text, "\n  {}={}  {}", variant.key, variant.name, variant.about);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_refused_with_the_list() {
        let error = parse("a=upsteam").err().expect("refused");
        assert!(error.contains("a=upstream"), "{error}");
        assert!(parse("a").is_err());
        assert!(parse("a=upstream, plant=no-flush,").is_ok());
        assert!(parse("").is_ok());
    }

    #[test]
    fn a_rule_has_one_variant_and_the_patch_many_switches() {
        let error = parse("a=upstream,c=posted,a=ours").err().expect("refused");
        assert_eq!(error, "'a=upstream' and 'a=ours' are two variants of one rule: choose one");
        assert!(parse("plant=no-flush,plant=no-flush").is_err());
        assert!(parse("patch=none,patch=peer-map,patch=enospc,a=upstream").is_ok());
    }
}
