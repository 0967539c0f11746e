// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The entry: hands over what the Rust half needs, and plays the scene that it names. */
#include <linux/radix-tree.h>
#include <linux/string.h>
#include "k.h"

extern const char *const kface_traps[];
extern const kface_u64 kface_trap_count, kface_trap_base;

/* The objects' own initialisation, whose places the link puts into one section. */
extern const int __start_kface_initcalls[] __attribute__((weak)), __stop_kface_initcalls[] __attribute__((weak));

static void initialise(void)
{
	const int *place;

	radix_tree_init();
	for (place = __start_kface_initcalls; place < __stop_kface_initcalls; place++)
		((int (*)(void))((long)place + *place))();
}

static const struct k_scene *const scenes[] = {
	&k_scene_a, &k_scene_b, &k_scene_c, &k_scene_d1, &k_scene_d2, &k_scene_f,
	&k_scene_faults, &k_scene_munmap, &k_scene_evict, &k_scene_cpufault, &k_scene_gc, &k_scene_fork,
	&k_scene_late, &k_scene_mixed,
	&k_scene_queue, &k_scene_close, &k_scene_glue, &k_scene_memory,
	&k_scene_diff_faults, &k_scene_diff_munmap, &k_scene_diff_evict,
};

static const char *scene_name(int index)
{
	return index < ARRAY_SIZE(scenes) ? scenes[index]->name : NULL;
}

static int scene(const char *name, long parameter)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(scenes); i++) {
		if (strcmp(scenes[i]->name, name))
			continue;
		k_mem_init();
		k_mm_init();
		k_enter();
		k_workers_start();
		initialise();
		k_every_access = kface_every_access();
		scenes[i]->play(parameter);
		kface_gpu_records();
		return 0;
	}
	return -1;
}

int main(void)
{
	struct kface_c_half half = {
		.scene = scene,
		.scene_name = scene_name,
		.bug = k_bug,
		.traps = kface_traps,
		.trap_count = kface_trap_count,
		.trap_base = kface_trap_base,
	};

	return kface_main(&half);
}
