// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What is explored with the driver's own fault queue: its workers, one beside the other where two VMs mirror one process, and the end
 * of a VM while its faults are served. Of a VM that is gone nothing is left.
 */
#include "k_writer.h"

static struct k_stage stage;

static struct k_task *writer(struct xe_vm *vm, int tile, int first, int pages, int rounds)
{
	return k_writer(vm, K_BY_QUEUE, tile, first, pages, rounds);
}

static struct xe_vm *vm_new(void)
{
	struct xe_vm *vm = k_xe_vm_new(stage.xe);

	if (k_xe_bind_mirror(vm, 0, 1ULL << 56, 0, NULL))
		kface_give_up("the mirror cannot be bound");
	return vm;
}

/* Two VMs of a process, whose faults are served by two workers, and its CPU. */
static void play_queue(long tiles)
{
	struct k_task *tasks[3];
	struct xe_vm *second;

	k_stage_new(&stage, tiles, tiles > 1);
	second = vm_new();
	k_runs_begin();
	tasks[0] = writer(stage.vm, 0, 2, 2, 2);
	tasks[1] = writer(second, tiles - 1, 3, 2, 2);
	tasks[2] = writer(NULL, -1, 3, 1, 2);
	k_settle(tasks, 3);
}

static void close_vm(void *arg)
{
	int i;

	for (i = 0; i < 4; i++)
		k_point("close", "the VM", 0);
	if (k_faults_served())
		kface_reached("a VM was closed while a fault was served");
	k_closing = stage.vm;
	k_xe_vm_close(stage.vm);
}

/* The whole life of a VM. What the device keeps of the last that did something is this one's afterwards, or was it once. */
static void live(long tiles)
{
	struct xe_vm *vm = vm_new();
	unsigned char *byte;
	int tile, i;

	for (tile = 0; tile < tiles; tile++) {
		if (k_xe_fault(vm, tile, K_BLOCK, false))
			k_found("a fault of another VM is refused", K_BLOCK, tile);
		k_stage_evict(tile);
		if (k_xe_fault(vm, tile, K_BLOCK, false))
			k_found("a fault of another VM is refused", K_BLOCK, tile);
		for (i = 0; i < K_PAGES; i++)
			k_cpu_touch(K_BLOCK + i * PAGE_SIZE, &byte);
	}
	k_work_run_all();
	k_xe_vm_close(vm);
	k_work_run_all();
}

/* A VM is closed while its faults are served. */
static void play_close(long tiles)
{
	struct k_task *tasks[4];
	struct k_books before;
	unsigned long behind;

	k_stage_new(&stage, tiles, tiles > 1);
	live(tiles);
	k_books_open(&before);
	stage.vm = vm_new();
	k_runs_begin();
	tasks[0] = writer(stage.vm, 0, 2, 2, 2);
	tasks[1] = writer(stage.vm, tiles - 1, 3, 1, 2);
	tasks[2] = writer(NULL, -1, 3, 1, 1);
	tasks[3] = k_spawn("close", close_vm, NULL);
	k_settle(tasks, 4);
	behind = k_heap_mark();
	live(tiles);
	k_xe_pools_settle(stage.xe);
	k_work_run_all();
	k_books_close(&before, behind);
}

const struct k_scene k_scene_queue = { "queue", play_queue };
const struct k_scene k_scene_close = { "close", play_close };
