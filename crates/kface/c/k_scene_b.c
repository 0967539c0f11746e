// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* B-1: a block in VRAM loses its last page, and the GPU comes back to its first one, which a VM that needs 64K cannot map. */
#include "k_scene.h"

static void play(long parameter)
{
	unsigned long last = K_BLOCK + (K_PAGES - 1) * PAGE_SIZE;
	struct k_stage stage;

	k_step("populate");
	k_stage_new(&stage, 1, true);
	k_step("tile 0 faults");
	k_stage_fault(&stage, 0, K_BLOCK, "whole");
	k_stage_where(K_BLOCK, K_PAGES, "whole");
	k_step("munmap of the last page");
	k_munmap(last, last + PAGE_SIZE);
	k_work_run_all();
	k_stage_where(K_BLOCK, K_PAGES - 1, "cut");
	k_step("tile 0 faults again");
	k_stage_fault(&stage, 0, K_BLOCK, "cut");
	k_stage_read_by_tile(&stage, 0, K_BLOCK, 1, "cut");
	k_step("the CPU reads");
	k_stage_read_by_cpu(K_BLOCK, K_PAGES - 1, "home");
}

const struct k_scene k_scene_b = { "B", play };
