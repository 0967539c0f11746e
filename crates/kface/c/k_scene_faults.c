// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What is explored: accesses of tiles, whose faults are served at once, beside the CPU and what changes the process' memory.
 * Who writes has a word of his own in each page, so none may ever be lost; all of it is looked at when all have ended.
 */
#include <linux/dma-resv.h>
#include "xe_svm.h"
#include "k_scene.h"

#define WRITERS 4
#define TRIES 24

/* One who writes his word of each page of some pages, again and again. */
struct writer {
	struct k_stage *stage;
	/* A tile, or -1: the CPU. */
	int tile;
	int slot;
	unsigned long start;
	int pages;
	int rounds;
	/* What he wrote last. */
	u64 wrote[K_PAGES];
};

static struct k_stage stage;
static struct writer writers[WRITERS];
static int writing;
static int serving;

static void found(const char *text, unsigned long addr, u64 value)
{
	kface_event("finding");
	kface_text("text", text);
	kface_number("address", addr);
	kface_number("value", value);
	kface_event_end();
}

bool k_faults_served(void)
{
	return serving > 0;
}

/* An access of a tile: what the hardware does, fault by fault. */
static bool tile_access(struct writer *w, unsigned long addr, bool write, u64 *value)
{
	int tries, err;

	for (tries = 0; tries < TRIES; tries++) {
		kface_u64 word = *value;

		k_point(write ? "tile writes" : "tile reads", "memory", addr);
		if (!kface_gpu_access(w->tile, stage.vm->usm.asid, addr, write, &word)) {
			*value = word;
			return true;
		}
		serving++;
		err = k_xe_fault(stage.vm, w->tile, addr, write);
		serving--;
		if (serving)
			kface_reached("two faults were served at once");
		if (err) {
			found("a fault of mapped memory is refused", addr, err);
			return false;
		}
		if (tries)
			k_yield();
	}
	found("a tile faults again and again", addr, tries);
	return false;
}

static bool cpu_access(unsigned long addr, bool write, u64 *value)
{
	unsigned char *byte;

	k_point(write ? "CPU writes" : "CPU reads", "memory", addr);
	if (k_cpu_touch(addr, &byte)) {
		found("a CPU faults again and again", addr, 0);
		return false;
	}
	if (write)
		*(u64 *)byte = *value;
	else
		*value = *(u64 *)byte;
	return true;
}

static bool access(struct writer *w, unsigned long addr, bool write, u64 *value)
{
	return w->tile < 0 ? cpu_access(addr, write, value) : tile_access(w, addr, write, value);
}

static void write_pages(void *arg)
{
	struct writer *w = arg;
	int round, i;

	for (round = 0; round < w->rounds; round++) {
		for (i = 0; i < w->pages; i++) {
			unsigned long addr = w->start + i * PAGE_SIZE + w->slot * 8;
			u64 value = 0, next = ((u64)(w->slot + 1) << 32) + round * 100 + i + 1;

			if (!access(w, addr, false, &value))
				return;
			if (value != w->wrote[i])
				found("a writer reads something else than he wrote", addr, value);
			if (!access(w, addr, true, &next))
				return;
			w->wrote[i] = next;
		}
	}
}

/* Pages are given by number in the block. */
static struct k_task *writer(int tile, int first, int pages, int rounds)
{
	struct writer *w = &writers[writing++];

	*w = (struct writer){ &stage, tile, writing, K_BLOCK + first * PAGE_SIZE, pages, rounds };
	return k_spawn(tile < 0 ? "CPU" : tile ? "tile 1" : "tile 0", write_pages, w);
}

/* Everything that was written is there. */
static void look(void)
{
	int n, i;

	for (n = 0; n < writing; n++) {
		for (i = 0; i < writers[n].pages; i++) {
			unsigned long addr = writers[n].start + i * PAGE_SIZE + writers[n].slot * 8;
			u64 value = 0;

			if (cpu_access(addr, false, &value) && value != writers[n].wrote[i])
				found("LOST: the CPU does not find what was written last", addr, value);
		}
	}
	if (k_freed_pages_written())
		found("a page that was given back has been written to", 0, k_freed_pages_written());
}

static void settle(struct k_task **tasks, int count)
{
	int i;

	for (i = 0; i < count; i++)
		k_join(tasks[i]);
	k_work_run_all();
	look();
}

static void begin(int tiles)
{
	/* One tile maps its VRAM by 4K, as the cards that people have; two want 64K. */
	k_stage_new(&stage, tiles, tiles > 1);
	kface_runs_begin();
}

/* Two workers serve faults of one block, one of which may be another tile's; the CPU writes in it, too. */
static void play_faults(long tiles)
{
	struct k_task *tasks[3];

	begin(tiles);
	tasks[0] = writer(0, 2, 2, 2);
	tasks[1] = writer(tiles - 1, 3, 2, 2);
	tasks[2] = writer(-1, 3, 1, 2);
	settle(tasks, 3);
}

static void unmap_end(void *arg)
{
	k_point("munmap", "the last pages", 0);
	k_munmap(K_BLOCK + 12 * PAGE_SIZE, K_BLOCK + K_PAGES * PAGE_SIZE);
}

/* The end of a block is unmapped while faults of its beginning are served: ranges are collected and made anew. */
static void play_munmap(long tiles)
{
	struct k_task *tasks[3];

	begin(tiles);
	tasks[0] = writer(0, 2, 2, 2);
	tasks[1] = writer(tiles - 1, 8, 1, 2);
	tasks[2] = k_spawn("munmap", unmap_end, NULL);
	settle(tasks, 3);
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
		kface_reached("a buffer was evicted");
		xe_svm_bo_evict(bo);
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
	settle(tasks, 3);
}

/* Two CPU threads bring pages home that a tile takes away again. */
static void play_cpufault(long tiles)
{
	struct k_task *tasks[3];

	begin(tiles);
	tasks[0] = writer(0, 2, 3, 2);
	tasks[1] = writer(-1, 2, 2, 2);
	tasks[2] = writer(-1, 3, 2, 2);
	settle(tasks, 3);
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
	tasks[0] = writer(0, 2, 2, 2);
	tasks[1] = writer(tiles - 1, 3, 1, 2);
	tasks[2] = writer(-1, 4, 1, 1);
	settle(tasks, 3);
}

const struct k_scene k_scene_faults = { "faults", play_faults };
const struct k_scene k_scene_munmap = { "munmap", play_munmap };
const struct k_scene k_scene_evict = { "evict", play_evict };
const struct k_scene k_scene_cpufault = { "cpufault", play_cpufault };
const struct k_scene k_scene_gc = { "gc", play_gc };
