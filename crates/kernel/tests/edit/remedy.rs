//! The remedies that `docs/findings.md` and `docs/kernel.md` name, as edits of a tree.
#![allow(dead_code, reason = "no test takes all of them")]

use super::{Edit, GPUSVM, PAGEMAP, XE_SVM};

const MIGRATE: &str = "drivers/gpu/drm/xe/xe_migrate.c";
const XE_SYNC: &str = "drivers/gpu/drm/xe/xe_sync.c";

/// A-i: what makes addresses for the copy compares devices and not pagemaps.
pub const COMPARE: &[Edit] = &[Edit {
    file: PAGEMAP,
    behind: "drm_pagemap_migrate_map_device_private_pages(",
    find: "dpagemap == local_dpagemap",
    put: "dpagemap->drm == local_dpagemap->drm",
}];
/// Pages in other VRAM of the same device are counted.
const COUNT_NEAR: [Edit; 2] = [
    Edit {
        file: PAGEMAP,
        behind: "/* Count device-private pages to migrate */",
        find: "own_pages += nr_pages;",
        put: "own_pages += nr_pages;\n\t\t\telse if (drm_pagemap_page_zone_device_data(src_page)->dpagemap->drm ==\n\
              \t\t\t\t dpagemap->drm)\n\t\t\t\tnear_pages += nr_pages;",
    },
    Edit {
        file: PAGEMAP,
        behind: "int drm_pagemap_migrate_to_devmem(",
        find: "unsigned long own_pages = 0,",
        put: "unsigned long near_pages = 0, own_pages = 0,",
    },
];
/// A block goes home first where `put` says so.
const fn home(put: &'static str) -> Edit {
    Edit { file: PAGEMAP, behind: "/* Count device-private pages to migrate */", find: "} else if (own_pages &&", put }
}
/// A-ii: and a block with pages in other VRAM of the same device goes home first.
pub const GO_HOME: &[Edit] = &[COUNT_NEAR[0], home("} else if ((own_pages || near_pages) &&"), COUNT_NEAR[1]];
/// And, behind A-v, a block does that of which some pages are there and others are not.
pub const MIXED_GO_HOME: &[Edit] =
    &[COUNT_NEAR[0], home("} else if ((own_pages || (near_pages && near_pages != npages)) &&"), COUNT_NEAR[1]];
/// A-v: the copy's page tables have the memory type that the address is of.
pub const MEMORY_TYPE: &[Edit] = &[
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
pub const PAGE_SIZE: &[Edit] = &[Edit {
    file: MIGRATE,
    behind: "static void build_pt_update_batch_sram(",
    find: "\t\t\tbb->cs[bb->len++] = lower_32_bits(pte);",
    put: "\t\t\tif (sram_addr[i].proto == XE_INTERCONNECT_VRAM && m->q->vm->flags & XE_VM_FLAG_64K)\n\
          \t\t\t\tpte |= XE_PTE_PS64;\n\t\t\tbb->cs[bb->len++] = lower_32_bits(pte);",
}];
/// B-ii: a range that the device could not map in VRAM takes its pages in system memory.
pub const NO_OWNER: &[Edit] = &[Edit {
    file: XE_SVM,
    behind: "static int __xe_svm_handle_pagefault(",
    find: "\trange_debug(range, \"GET PAGES\");",
    put: "\tif (vm->flags & XE_VM_FLAG_64K && xe_svm_range_size(range) < SZ_64K)\n\
          \t\tctx.device_private_page_owner = NULL;\n\trange_debug(range, \"GET PAGES\");",
}];
/// C: as many fences as were filled in.
pub const COUNT_FILLED: &[Edit] = &[Edit {
    file: XE_SYNC,
    behind: "xe_sync_in_fence_get(",
    find: "xe_assert(vm->xe, current_fence == num_fence);",
    put: "num_fence = current_fence;",
}];

/// F: a page in VRAM that the CPU may not write is none for a collection that writes.
pub const WRITABLE: &[Edit] = &[Edit {
    file: GPUSVM,
    behind: "int drm_gpusvm_get_pages(",
    find: "\t\t\tif (!ctx->allow_mixed &&",
    put: "\t\t\tif (!ctx->read_only && !(pfns[i] & HMM_PFN_WRITE)) {\n\t\t\t\terr = -EOPNOTSUPP;\n\
          \t\t\t\tgoto err_unmap;\n\t\t\t}\n\t\t\tif (!ctx->allow_mixed &&",
}];

/// What releases 7.2 and 7.3 leave behind: a fault that is refused while its VM is closed is written down for a VM that has
/// dropped what was written down.
pub const DROP_LATER: &[Edit] = &[Edit {
    file: "drivers/gpu/drm/xe/xe_vm.c",
    behind: "/* xe_vm_close_and_put was not called? */",
    find: "xe_assert(xe, !vm->size);",
    put: "xe_assert(xe, !vm->size);\n\txe_vm_clear_fault_entries(vm);",
}];
