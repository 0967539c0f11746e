// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* What is explored: accesses of tiles, whose faults are served at once, beside the CPU and what changes the process' memory. */
#include <linux/dma-resv.h>
#include "xe_svm.h"
#include "k_writer.h"

static struct k_stage stage;

/* Pages are given by number in the block. */
static struct k_task *writer(int tile, int first, int pages, int rounds)
{
	return k_writer(stage.vm, K_AT_ONCE, tile, first, pages, rounds);
}

static void begin(int tiles)
{
	/* One tile maps its VRAM by 4K, as the cards that people have; two want 64K. */
	k_stage_new(&stage, tiles, tiles > 1);
	k_runs_begin();
}

/* Two workers serve faults of one block, one of which may be another tile's; the CPU writes in it, too. */
static void play_faults(long tiles)
{
	struct k_task *tasks[3];

	begin(tiles);
	tasks[0] = writer(0, 2, 2, 2);
	tasks[1] = writer(tiles - 1, 3, 2, 2);
	tasks[2] = writer(-1, 3, 1, 2);
	k_settle(tasks, 3);
}

static void unmap_end(void *arg)
{
	k_point("munmap", "the last pages", 0);
	k_munmap(K_BLOCK + 12 * PAGE_SIZE, K_BLOCK + K_PAGES * PAGE_SIZE);
}

/* A tile's access to memory that is gone: it is refused, and as what it is. */
static void touch_nothing(int tile)
{
	unsigned long addr = K_BLOCK + 13 * PAGE_SIZE;
	kface_u64 value = 0;
	int err;

	if (!kface_gpu_access(tile, stage.vm->usm.asid, addr, 0, &value)) {
		k_found("a tile reads memory that is unmapped", addr, value);
		return;
	}
	err = k_xe_fault(stage.vm, tile, addr, false);
	kface_reached("a tile touched memory that is gone");
	if (err != -ENOENT && err != -EFAULT)
		k_found("a fault of memory that is gone is answered", addr, err);
}

/* The end of a block is unmapped while faults of its beginning are served: ranges are collected and made anew. */
static void play_munmap(long tiles)
{
	struct k_task *tasks[3];

	begin(tiles);
	tasks[0] = writer(0, 2, 2, 2);
	tasks[1] = writer(tiles - 1, 8, 1, 2);
	tasks[2] = k_spawn("munmap", unmap_end, NULL);
	k_settle(tasks, 3);
	touch_nothing(0);
}

static void evict(void *arg)
{
	int i;

	for (i = 0; i < 2; i++) {
		struct xe_bo *bo = k_xe_devmem_get(-1);

		k_point("evict", "a buffer", 0);
		/* As the memory manager: what somebody else has locked is left alone. */
		if (!bo || !dma_resv_trylock(bo->ttm.base.resv)) {
			xe_bo_put(bo);
			k_yield();
			continue;
		}
		if (!xe_svm_bo_evict(bo))
			kface_reached("a buffer was evicted");
		xe_bo_unlock(bo);
		xe_bo_put(bo);
	}
}

/* Buffers are evicted, as the memory manager does where VRAM runs out. */
static void play_evict(long tiles)
{
	struct k_task *tasks[3];

	begin(tiles);
	tasks[0] = writer(0, 2, 2, 2);
	tasks[1] = writer(-1, 3, 1, 2);
	tasks[2] = k_spawn("evict", evict, NULL);
	k_settle(tasks, 3);
}

/* Two CPU threads migrate pages back that a tile takes away again. */
static void play_cpufault(long tiles)
{
	struct k_task *tasks[3];

	begin(tiles);
	tasks[0] = writer(0, 2, 3, 2);
	tasks[1] = writer(-1, 2, 2, 2);
	tasks[2] = writer(-1, 3, 2, 2);
	k_settle(tasks, 3);
}

static void unmap_and_map(void *arg)
{
	k_munmap(K_BLOCK, K_BLOCK + K_PAGES * PAGE_SIZE);
	k_vma_add(K_BLOCK, K_BLOCK + K_PAGES * PAGE_SIZE);
}

/* The whole block goes and comes back while it is in VRAM; who collects what is left of it meets new faults. */
static void play_gc(long tiles)
{
	struct k_task *tasks[3];

	begin(tiles);
	if (k_xe_fault(stage.vm, 0, K_BLOCK, false))
		kface_give_up("the block does not come to VRAM");
	tasks[0] = k_spawn("remap", unmap_and_map, NULL);
	k_join(tasks[0]);
	if (!list_empty(&stage.vm->svm.garbage_collector.range_list))
		kface_reached("what was unmapped waits for the collector");
	tasks[0] = writer(0, 2, 2, 2);
	tasks[1] = writer(tiles - 1, 3, 1, 2);
	tasks[2] = writer(-1, 4, 1, 1);
	k_settle(tasks, 3);
}

static void fork(void *arg)
{
	int i;

	for (i = 0; i < 4; i++)
		k_point("fork", "the process", 0);
	k_writers_fork();
}

/* Tiles and the CPU store into pages of a block; how many they are. */
static int start_writers(struct k_task **tasks, long tiles)
{
	int count = 0;

	tasks[count++] = writer(0, 2, 2, 2);
	tasks[count++] = writer(-1, 3, 1, 2);
	if (tiles > 1)
		tasks[count++] = writer(1, 3, 1, 2);
	return count;
}

/* The process forks while tiles and the CPU store into a block that is both's from then on, and buffers are evicted. */
static void play_fork(long tiles)
{
	struct k_task *tasks[5];
	int count;

	begin(tiles);
	count = start_writers(tasks, tiles);
	tasks[count++] = k_spawn("fork", fork, NULL);
	/* Who takes pages away by frame has no lock that keeps a fork out. */
	tasks[count++] = k_spawn("evict", evict, NULL);
	k_settle(tasks, count);
}

/*
 * Fences that signal late: others have work in the queue of page tables and copies, buffers are cleared when their turn comes,
 * buffers are evicted, and the end of the block is unmapped.
 */
static void play_late(long tiles)
{
	struct k_task *tasks[5];
	int count;

	begin(tiles);
	k_xe_be_late();
	count = start_writers(tasks, tiles);
	tasks[count++] = k_spawn("evict", evict, NULL);
	tasks[count++] = k_spawn("munmap", unmap_end, NULL);
	k_settle(tasks, count);
	touch_nothing(0);
}

/* A page goes by MADV_DONTNEED and comes back by a store, while its neighbours are in VRAM. */
static void drop_and_store(void *arg)
{
	unsigned long addr = K_BLOCK + 6 * PAGE_SIZE;
	unsigned char *byte;
	int i;

	for (i = 0; i < 2; i++) {
		k_point("madvise", "a page", addr);
		k_dontneed(addr, addr + PAGE_SIZE);
		if (k_cpu_access(addr, true, &byte))
			k_found("a CPU faults again and again", addr, 0);
		else if (*(u64 *)byte)
			k_found("a page that was dropped is not empty", addr, *(u64 *)byte);
		if (k_stage_place(K_BLOCK + 2 * PAGE_SIZE) == '0')
			kface_reached("a block was in VRAM but for a page");
	}
}

/* Blocks that are partly in VRAM: the engine moves all or nothing. */
static void play_mixed(long tiles)
{
	struct k_task *tasks[3];

	begin(tiles);
	tasks[0] = writer(0, 2, 2, 3);
	tasks[1] = writer(tiles - 1, 3, 1, 3);
	tasks[2] = k_spawn("madvise", drop_and_store, NULL);
	k_settle(tasks, 3);
}

const struct k_scene k_scene_faults = { "faults", play_faults };
const struct k_scene k_scene_munmap = { "munmap", play_munmap };
const struct k_scene k_scene_evict = { "evict", play_evict };
const struct k_scene k_scene_cpufault = { "cpufault", play_cpufault };
const struct k_scene k_scene_gc = { "gc", play_gc };
const struct k_scene k_scene_late = { "late", play_late };
const struct k_scene k_scene_mixed = { "mixed", play_mixed };
const struct k_scene k_scene_fork = { "fork", play_fork };
