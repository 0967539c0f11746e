// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* What scenes share. */
#include "xe_svm.h"
#include "k_scene.h"

u64 k_stage_pattern(unsigned long addr)
{
	return 0x5eed000000000000ULL | addr;
}

void k_step(const char *step)
{
	kface_event("step");
	kface_text("step", step);
	kface_event_end();
}

void k_stage_new(struct k_stage *stage, int tiles, bool needs_64k)
{
	unsigned long addr;
	unsigned char *byte;
	int err;

	k_vma_add(K_BLOCK, K_BLOCK + K_PAGES * PAGE_SIZE);
	for (addr = K_BLOCK; addr < K_BLOCK + K_PAGES * PAGE_SIZE; addr += PAGE_SIZE) {
		if (k_cpu_touch(addr, &byte))
			kface_give_up("the CPU cannot write its own memory");
		*(u64 *)byte = k_stage_pattern(addr);
	}
	stage->xe = k_xe_new(tiles, needs_64k);
	stage->vm = k_xe_vm_new(stage->xe);
	err = k_xe_bind_mirror(stage->vm, 0, 1ULL << 56, 0, NULL);
	if (err)
		kface_give_up("the mirror cannot be bound");
	kface_gpu_records();
}

void k_stage_tell_fault(const char *step, int tile, int err, int jobs)
{
	kface_event("fault");
	kface_text("step", step);
	kface_number("tile", tile);
	kface_signed("errno", err);
	kface_number("jobs", jobs);
	kface_event_end();
}

int k_stage_fault(struct k_stage *stage, int tile, unsigned long addr, const char *step)
{
	int jobs = k_jobs, err = k_xe_fault(stage->vm, tile, addr, false);

	k_work_run_all();
	kface_gpu_records();
	k_stage_tell_fault(step, tile, err, k_jobs - jobs);
	return err;
}

void k_stage_tell_data(const char *step, const char *by, int pages, int read, int kept, u64 found)
{
	kface_event("data");
	kface_text("step", step);
	kface_text("by", by);
	kface_number("pages", pages);
	kface_number("read", read);
	kface_number("kept", kept);
	kface_number("first", found);
	kface_event_end();
}

void k_stage_read_by_tile(struct k_stage *stage, int tile, unsigned long from, int pages, const char *step)
{
	char by[] = "tile 0";
	int i, read = 0, kept = 0;
	u64 found = 0;

	by[5] += tile;
	for (i = 0; i < pages; i++) {
		unsigned long addr = from + i * PAGE_SIZE;
		kface_u64 value = 0;

		if (kface_gpu_access(tile, stage->vm->usm.asid, addr, 0, &value))
			continue;
		found = read++ ? found : value;
		kept += value == k_stage_pattern(addr);
	}
	kface_gpu_records();
	k_stage_tell_data(step, by, pages, read, kept, found);
}

void k_stage_read_by_cpu(unsigned long from, int pages, const char *step)
{
	int i, read = 0, kept = 0;
	u64 found = 0;

	for (i = 0; i < pages; i++) {
		unsigned long addr = from + i * PAGE_SIZE;
		unsigned char *byte;

		if (k_cpu_touch(addr, &byte))
			continue;
		found = read++ ? found : *(u64 *)byte;
		kept += *(u64 *)byte == k_stage_pattern(addr);
	}
	kface_gpu_records();
	k_stage_tell_data(step, "the CPU", pages, read, kept, found);
}

/* Which tile's VRAM a device page is of: its pagemap says. */
static int tile_of(unsigned long pfn)
{
	struct dev_pagemap *pagemap = page_pgmap(pfn_to_page(pfn));

	return container_of(pagemap, struct xe_pagemap, pagemap)->vr->id;
}

char k_stage_place(unsigned long addr)
{
	unsigned long pfn;
	int what = k_page_is(addr, &pfn);

	return what == 'd' ? '0' + tile_of(pfn) : what;
}

void k_stage_where(unsigned long from, int pages, const char *step)
{
	int ram = 0, vram[K_TILES] = {}, nowhere = 0, i;

	for (i = 0; i < pages; i++) {
		char place = k_stage_place(from + i * PAGE_SIZE);

		if (place == 'r')
			ram++;
		else if (place == '0' || place == '1')
			vram[place - '0']++;
		else
			nowhere++;
	}
	kface_event("where");
	kface_text("step", step);
	kface_number("ram", ram);
	kface_number("vram0", vram[0]);
	kface_number("vram1", vram[1]);
	kface_number("nowhere", nowhere);
	kface_event_end();
}

void k_stage_evict(int tile)
{
	int tries;

	for (tries = 0; tries < K_PAGES; tries++) {
		struct xe_bo *bo = k_xe_devmem_get(tile);

		if (!bo)
			return;
		xe_bo_lock(bo, false);
		xe_svm_bo_evict(bo);
		xe_bo_unlock(bo);
		xe_bo_put(bo);
		k_work_run_all();
	}
}
