// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* A: one tile faults a block into its VRAM, then the other tile faults the same block. */
#include "k_scene.h"

static void play(long parameter)
{
	struct k_stage stage;

	k_step("populate");
	k_stage_new(&stage, 2, true);
	k_step("tile 0 faults");
	k_stage_fault(&stage, 0, K_BLOCK, "tile 0");
	k_stage_where(K_BLOCK, K_PAGES, "tile 0");
	k_stage_read_by_tile(&stage, 0, K_BLOCK, K_PAGES, "tile 0");
	k_step("tile 1 faults");
	k_stage_fault(&stage, 1, K_BLOCK, "tile 1");
	k_stage_where(K_BLOCK, K_PAGES, "tile 1");
	k_stage_read_by_tile(&stage, 1, K_BLOCK, K_PAGES, "tile 1");
	k_step("the CPU reads");
	k_stage_read_by_cpu(K_BLOCK, K_PAGES, "home");
	k_stage_where(K_BLOCK, K_PAGES, "home");
}

const struct k_scene k_scene_a = { "A", play };
