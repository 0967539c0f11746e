//! What is compiled of a tree, and with what: symbols of the configuration, the tree's files, glue. The kernel's own is
//! [`Kit::xe`]; tests have a small one for a tree of their own.

/// A file of glue.
#[derive(Clone, Copy)]
pub struct Source {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub text: &'static str,
}

/// A set of things to compile.
pub struct Kit {
    /// Lines of the configuration, `CONFIG_X=y` or `CONFIG_X=n`, each of which must stick.
    pub config: &'static [&'static str],
    /// Flags for all objects.
    pub flags: &'static str,
    /// Objects that must be there.
    pub units: &'static [&'static str],
    /// Objects that are built where the tree has their source.
    pub optional: &'static [&'static str],
    /// The object whose saved command the glue is compiled with.
    pub pattern: &'static str,
    /// Glue.
    pub glue: Vec<Source>,
    /// Objects whose marked accesses are scheduling points where interleavings are explored.
    pub watched: &'static [&'static str],
    /// Flags by which the compiler says so.
    pub watch_flags: &'static str,
    /// Questions to the compiler: `KFACE_` and the name become 1 where the lines compile, else 0.
    pub probes: &'static [(&'static str, &'static str)],
    /// Functions that the glue looks at on their way: it defines `__wrap_NAME`.
    pub wraps: &'static [&'static str],
    /// Headers of the system that tools of the build include, and the package of Debian's that has each.
    pub headers: &'static [(&'static str, &'static str)],
    /// Files without which a tree is too old.
    pub needs: &'static [&'static str],
}

impl Kit {
    /// The SVM engine, the xe driver's part of it, and the memory manager's part under both.
    pub fn xe() -> Self {
        Self {
            config: CONFIG,
            // Kernel objects align stacks to 8 bytes, the C library wants 16; tables of unwinding let a task end inside of them.
            // Line numbers are what a step is told by.
            flags: "-mpreferred-stack-boundary=4 -fasynchronous-unwind-tables -g1",
            units: UNITS,
            optional: OPTIONAL,
            pattern: "drivers/gpu/drm/xe/xe_svm.o",
            glue: kface::source::FILES.iter().map(|file| Source { name: file.name, text: file.text }).collect(),
            watched: WATCHED,
            watch_flags: "-fsanitize=thread --param tsan-distinguish-volatile=1 --param tsan-instrument-func-entry-exit=0 -Wno-tsan",
            probes: PROBES,
            wraps: &["dma_fence_array_create", "__mmu_notifier_invalidate_range_start"],
            // objtool's.
            headers: &[("gelf.h", "libelf-dev")],
            needs: &["drivers/gpu/drm/drm_gpusvm.c", "drivers/gpu/drm/drm_pagemap.c", "drivers/gpu/drm/xe/xe_svm.c"],
        }
    }

    /// The objects that this tree is to give.
    pub(crate) fn units_of(&self, has: impl Fn(&str) -> bool) -> Vec<&'static str> {
        let optional = self.optional.iter().filter(|unit| has(&source_of(unit)));
        self.units.iter().chain(optional).copied().collect()
    }
}

/// The source of an object.
pub(crate) fn source_of(unit: &str) -> String {
    format!("{}.c", unit.trim_end_matches(".o"))
}

/// tinyconfig and these. Lock debugging takes all locks out of line; warnings must not be configured away.
const CONFIG: &[&str] = &[
    "CONFIG_64BIT=y",
    "CONFIG_SMP=y",
    "CONFIG_NR_CPUS=2",
    "CONFIG_EXPERT=y",
    "CONFIG_CC_OPTIMIZE_FOR_PERFORMANCE=y",
    "CONFIG_PRINTK=y",
    "CONFIG_BUG=y",
    "CONFIG_DEBUG_KERNEL=y",
    "CONFIG_DEBUG_BUGVERBOSE=y",
    "CONFIG_DEBUG_SPINLOCK=y",
    "CONFIG_PROVE_LOCKING=y",
    "CONFIG_DEBUG_ATOMIC_SLEEP=y",
    "CONFIG_NUMA=n",
    "CONFIG_SPARSEMEM_VMEMMAP=y",
    "CONFIG_MEMORY_HOTPLUG=y",
    "CONFIG_MEMORY_HOTREMOVE=y",
    "CONFIG_MIGRATION=y",
    "CONFIG_ZONE_DMA=n",
    "CONFIG_ZONE_DEVICE=y",
    "CONFIG_DEVICE_PRIVATE=y",
    "CONFIG_TRANSPARENT_HUGEPAGE=y",
    "CONFIG_TRANSPARENT_HUGEPAGE_ALWAYS=y",
    "CONFIG_MMU_NOTIFIER=y",
    "CONFIG_HMM_MIRROR=y",
    "CONFIG_PCI=y",
    "CONFIG_PCI_P2PDMA=y",
    "CONFIG_ACPI=y",
    "CONFIG_PM=y",
    "CONFIG_MODULES=y",
    "CONFIG_SHMEM=y",
    "CONFIG_TMPFS=y",
    "CONFIG_INPUT=y",
    "CONFIG_VT=n",
    "CONFIG_I2C=y",
    "CONFIG_X86_PLATFORM_DEVICES=y",
    "CONFIG_AGP=n",
    "CONFIG_DRM=y",
    "CONFIG_DRM_I915=n",
    "CONFIG_DRM_XE=y",
    "CONFIG_DRM_XE_DISPLAY=n",
    "CONFIG_DRM_XE_DEBUG=y",
    "CONFIG_DRM_XE_GPUSVM=y",
    "CONFIG_DRM_XE_PAGEMAP=y",
    "CONFIG_CPU_MITIGATIONS=n",
    "CONFIG_STACKPROTECTOR=n",
    "CONFIG_JUMP_LABEL=n",
    "CONFIG_PARAVIRT=n",
    "CONFIG_HYPERVISOR_GUEST=n",
    "CONFIG_X86_KERNEL_IBT=n",
    "CONFIG_FTRACE=n",
    "CONFIG_KASAN=n",
    "CONFIG_DEBUG_INFO_NONE=y",
    "CONFIG_RANDOMIZE_BASE=n",
    "CONFIG_RELOCATABLE=n",
    "CONFIG_EFI=n",
];

const UNITS: &[&str] = &[
    "drivers/gpu/drm/drm_pagemap.o",
    "drivers/gpu/drm/drm_pagemap_util.o",
    "drivers/gpu/drm/drm_gpusvm.o",
    "drivers/gpu/drm/drm_exec.o",
    "drivers/gpu/drm/drm_gpuvm.o",
    "drivers/gpu/drm/drm_suballoc.o",
    "drivers/gpu/drm/xe/xe_svm.o",
    "drivers/gpu/drm/xe/xe_migrate.o",
    "drivers/gpu/drm/xe/xe_vm.o",
    "drivers/gpu/drm/xe/xe_pt.o",
    "drivers/gpu/drm/xe/xe_pt_walk.o",
    "drivers/gpu/drm/xe/xe_range_fence.o",
    "drivers/gpu/drm/xe/xe_sync.o",
    "drivers/gpu/drm/xe/xe_bb.o",
    "drivers/gpu/drm/xe/xe_sa.o",
    "drivers/gpu/drm/xe/xe_pagefault.o",
    "drivers/gpu/drm/xe/xe_validation.o",
    "drivers/gpu/drm/xe/xe_tlb_inval.o",
    "drivers/gpu/drm/xe/xe_tlb_inval_job.o",
    "drivers/gpu/drm/xe/xe_userptr.o",
    "drivers/gpu/drm/xe/xe_vram.o",
    "drivers/gpu/drm/xe/xe_pat.o",
    "drivers/gpu/drm/xe/xe_exec_queue.o",
    "drivers/gpu/drm/xe/xe_tile.o",
    "drivers/dma-buf/dma-fence.o",
    "drivers/dma-buf/dma-fence-array.o",
    "drivers/dma-buf/dma-fence-chain.o",
    "drivers/dma-buf/dma-resv.o",
    "lib/interval_tree.o",
    "lib/rbtree.o",
    "lib/llist.o",
    "lib/xarray.o",
    "lib/radix-tree.o",
    "lib/list_sort.o",
    "lib/percpu-refcount.o",
    "lib/refcount.o",
    "mm/mmu_notifier.o",
    "mm/hmm.o",
    "mm/pagewalk.o",
    "mm/pgtable-generic.o",
    "mm/memremap.o",
    "mm/migrate_device.o",
];

const WATCHED: &[&str] = &[
    "drivers/gpu/drm/drm_pagemap.o",
    "drivers/gpu/drm/drm_gpusvm.o",
    "drivers/gpu/drm/xe/xe_svm.o",
    "drivers/gpu/drm/xe/xe_pt.o",
    "mm/mmu_notifier.o",
    "mm/hmm.o",
    "mm/migrate_device.o",
];

const OPTIONAL: &[&str] =
    &["drivers/gpu/buddy.o", "drivers/gpu/drm/drm_buddy.o", "drivers/gpu/drm/xe/xe_page_reclaim.o"];

const PROBES: &[(&str, &str)] = &[
    (
        "HAS_RANGE_FLAGS",
        "#include <drm/drm_gpusvm.h>\nvoid probe(struct drm_gpusvm_range *range);\nvoid probe(struct drm_gpusvm_range *range) { range->flags.unmapped = 1; }\n",
    ),
    (
        "HAS_PAGING_MASK",
        "#include \"xe_gt_types.h\"\nvoid probe(struct xe_gt *gt);\nvoid probe(struct xe_gt *gt) { gt->usm.paging_logical_mask = 1; }\n",
    ),
    (
        "HAS_PAGING_ENGINE",
        "#include \"xe_gt_types.h\"\nvoid probe(struct xe_gt *gt);\nvoid probe(struct xe_gt *gt) { gt->usm.paging_hwe0 = 0; }\n",
    ),
];
