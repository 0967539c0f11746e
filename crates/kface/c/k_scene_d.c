// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * D1: an allocation fails while a fault collects its pages. D2: half of a block becomes read-only, and the GPU writes the other
 * half, which the range still spans.
 */
#include "k_scene.h"

static void play_d1(long parameter)
{
	struct k_stage stage;

	k_step("populate");
	k_stage_new(&stage, 1, true);
	k_step("an allocation fails");
	k_fail_countdown = parameter;
	k_stage_fault(&stage, 0, K_BLOCK, "fails");
	k_fail_countdown = -1;
	k_stage_read_by_tile(&stage, 0, K_BLOCK, K_PAGES, "fails");
	k_step("the CPU reads");
	k_stage_read_by_cpu(K_BLOCK, K_PAGES, "home");
}

static void play_d2(long parameter)
{
	unsigned long half = K_BLOCK + K_PAGES / 2 * PAGE_SIZE, addr;
	struct k_stage stage;
	kface_u64 value;

	k_step("populate");
	k_stage_new(&stage, 1, true);
	k_step("tile 0 faults");
	k_stage_fault(&stage, 0, K_BLOCK, "whole");
	k_stage_read_by_cpu(K_BLOCK, K_PAGES, "home");
	k_step("half of the block becomes read-only");
	k_mprotect(half, K_BLOCK + K_PAGES * PAGE_SIZE, false);
	k_step("tile 0 faults again");
	k_stage_fault(&stage, 0, K_BLOCK, "half");
	/* A range may have become smaller: what it does not span has a fault of its own. */
	for (addr = K_BLOCK + PAGE_SIZE; addr < half; addr += PAGE_SIZE)
		if (kface_gpu_access(0, stage.vm->usm.asid, addr, 0, &value))
			k_stage_fault(&stage, 0, addr, "rest");
	k_stage_read_by_tile(&stage, 0, K_BLOCK, K_PAGES / 2, "half");
}

const struct k_scene k_scene_d1 = { "D1", play_d1 };
const struct k_scene k_scene_d2 = { "D2", play_d2 };
