// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * F: a block is in VRAM when the process forks, and the GPU writes it afterwards. The child must have what was there before, as with a
 * write of the CPU.
 */
#include "k_scene.h"

/* What the GPU writes at the start of a page. */
static u64 written(unsigned long addr)
{
	return ~k_stage_pattern(addr);
}

/* A write of the tile; what the handler says of its faults. */
static int write_page(struct k_stage *stage, unsigned long addr)
{
	kface_u64 value = written(addr);
	int tries, err;

	for (tries = 0; tries < 4; tries++) {
		if (!kface_gpu_access(0, stage->vm->usm.asid, addr, 1, &value))
			return 0;
		err = k_xe_fault(stage->vm, 0, addr, true);
		if (err)
			return err;
		k_work_run_all();
	}
	return -EAGAIN;
}

static void write_all(struct k_stage *stage)
{
	int i, err = 0, jobs = k_jobs;

	for (i = 0; i < K_PAGES && !err; i++)
		err = write_page(stage, K_BLOCK + i * PAGE_SIZE);
	kface_gpu_records();
	k_stage_tell_fault("write", 0, err, k_jobs - jobs);
}

static void look(void)
{
	int i, child = 0, own = 0, changed = 0, kept = 0;
	u64 found = 0;

	for (i = 0; i < K_PAGES; i++) {
		unsigned long addr = K_BLOCK + i * PAGE_SIZE;
		unsigned char *byte;
		u64 *word = k_child_page(addr);

		if (word) {
			found = child++ ? found : *word;
			kept += *word == k_stage_pattern(addr);
		}
		if (!k_cpu_touch(addr, &byte)) {
			own++;
			changed += *(u64 *)byte == written(addr);
		}
	}
	k_stage_tell_data("child", "the child", K_PAGES, child, kept, found);
	k_stage_tell_data("parent", "the CPU", K_PAGES, own, changed, 0);
}

static void play(long parameter)
{
	struct k_stage stage;

	k_step("populate");
	k_stage_new(&stage, 1, true);
	k_step("tile 0 faults");
	k_stage_fault(&stage, 0, K_BLOCK, "before");
	k_stage_where(K_BLOCK, K_PAGES, "before");
	k_step("the process forks");
	k_fork(K_BLOCK, K_PAGES, NULL);
	k_work_run_all();
	k_step("tile 0 writes");
	write_all(&stage);
	k_stage_where(K_BLOCK, K_PAGES, "written");
	k_step("all comes home");
	k_stage_evict(0);
	look();
}

const struct k_scene k_scene_f = { "F", play };
