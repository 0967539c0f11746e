// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* C: VM_BIND of a mirror on a two-tile device's default queue, with a user fence and nothing to do for the page tables. */
#include "k_scene.h"

static u64 fence;

static void play(long parameter)
{
	struct k_stage stage;
	int err;

	k_step("populate");
	k_stage_new(&stage, parameter == 1 ? 1 : 2, true);
	k_step("bind with a fence");
	err = k_xe_bind_mirror(stage.vm, 0, 1ULL << 56, (uintptr_t)&fence, NULL);
	k_work_run_all();
	kface_event("bind");
	kface_signed("errno", err);
	kface_number("fence", fence);
	kface_event_end();
}

const struct k_scene k_scene_c = { "C", play };
