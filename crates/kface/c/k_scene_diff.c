// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What is compared with another engine: acts that the run's seed says, one after the other, each to its end. What is seen of them is
 * told where it happens (notices, flushes, copies, answers), and after each act how things are.
 */
#include <linux/mmu_notifier.h>
#include <drm/drm_gpusvm.h>
#include "xe_svm.h"
#include "k_scene.h"

#define TRIES 4
#define BLOCK_END (K_BLOCK + K_PAGES * PAGE_SIZE)

static struct k_stage stage;

static u64 access_by_tile(const struct kface_act *act, unsigned long addr, u64 value)
{
	int tries, err;

	for (tries = 0; tries < TRIES; tries++) {
		kface_u64 word = value;

		if (!kface_gpu_access(act->tile, stage.vm->usm.asid, addr, act->write, &word))
			return word;
		err = k_xe_fault(stage.vm, act->tile, addr, act->write);
		kface_saw_answer(err);
		if (err)
			return 0;
	}
	kface_saw_answer(-ELOOP);
	return 0;
}

static u64 access_by_cpu(const struct kface_act *act, unsigned long addr, u64 value)
{
	unsigned char *byte;
	int err = k_cpu_touch(addr, &byte);

	if (err) {
		kface_saw_answer(err);
		return 0;
	}
	if (act->write)
		*(u64 *)byte = value;
	return *(u64 *)byte;
}

static u64 perform(const struct kface_act *act, u64 value)
{
	unsigned long start = K_BLOCK + act->first * PAGE_SIZE, end = start + act->pages * PAGE_SIZE;

	switch (act->what) {
	case KFACE_TILE:
		return access_by_tile(act, start, value);
	case KFACE_CPU:
		return access_by_cpu(act, start, value);
	case KFACE_UNMAP:
		k_munmap(start, end);
		return 0;
	case KFACE_MAP:
		k_vma_add(start, end);
		return 0;
	default:
		k_stage_evict(act->tile);
		return 0;
	}
}

/* In address order, as the mirror keeps them. */
static void tell_ranges(void)
{
	struct drm_gpusvm *gpusvm = &stage.vm->svm.gpusvm;
	struct drm_gpusvm_notifier *notifier;

	drm_gpusvm_for_each_notifier(notifier, gpusvm, K_BLOCK, BLOCK_END) {
		struct drm_gpusvm_range *range = NULL;

		drm_gpusvm_for_each_range(range, notifier, K_BLOCK, BLOCK_END) {
			struct xe_svm_range *xe = container_of(range, struct xe_svm_range, base);
#if KFACE_HAS_RANGE_FLAGS
			struct drm_gpusvm_pages *pages = &xe->pages;
			bool unmapped = range->flags.unmapped;
#else
			struct drm_gpusvm_pages *pages = &range->pages;
			bool unmapped = range->pages.flags.unmapped;
#endif
			kface_has_range(drm_gpusvm_range_start(range), drm_gpusvm_range_end(range),
					xe->tile_present & ~xe->tile_invalidated, unmapped,
					pages->flags.has_dma_mapping || pages->flags.has_devmem_pages);
		}
	}
}

static void tell_pages(char *places)
{
	int i;

	for (i = 0; i < K_PAGES; i++)
		places[i] = k_stage_place(K_BLOCK + i * PAGE_SIZE);
	places[i] = 0;
}

static void compare(const char *scene, int tiles)
{
	char places[K_PAGES + 1];
	struct kface_act act;
	u64 value = 0;
	u64 read;

	k_stage_new(&stage, tiles, tiles > 1);
	k_runs_begin();
	while (kface_act(scene, tiles, &act)) {
		read = perform(&act, ++value);
		k_work_run_all();
		kface_gpu_records();
		tell_ranges();
		tell_pages(places);
		kface_act_done(read, places, stage.vm->usm.asid);
	}
}

static void play_faults(long tiles) { compare("faults", tiles); }
static void play_munmap(long tiles) { compare("munmap", tiles); }
static void play_evict(long tiles) { compare("evict", tiles); }

const struct k_scene k_scene_diff_faults = { "diff-faults", play_faults };
const struct k_scene k_scene_diff_munmap = { "diff-munmap", play_munmap };
const struct k_scene k_scene_diff_evict = { "diff-evict", play_evict };

/* Each notice, whoever sends it. The link puts this in front of the tree's own function. */
int __real___mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range);
int __wrap___mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range);
int __wrap___mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range)
{
	static const char *const kinds[] = {
		[MMU_NOTIFY_UNMAP] = "unmap",
		[MMU_NOTIFY_CLEAR] = "clear",
		[MMU_NOTIFY_PROTECTION_VMA] = "protection",
		[MMU_NOTIFY_MIGRATE] = "migrate",
	};
	const char *kind = range->event < ARRAY_SIZE(kinds) ? kinds[range->event] : NULL;

	k_memory_notice(kind ? kind : "other", range);
	kface_saw_notice(kind ? kind : "other", range->start, range->end, (unsigned long)__builtin_return_address(0));
	return __real___mmu_notifier_invalidate_range_start(range);
}
