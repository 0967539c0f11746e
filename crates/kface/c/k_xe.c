// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * An xe device of one tile or two, filled in by hand as far as probing would: what the platform is, VRAM, engines, and then
 * the tree's own code for pagemaps, migration queues, VMs, binds and faults. All of it by the names of the tree's headers.
 */
#include <linux/xarray.h>
#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <uapi/drm/xe_drm.h>
#include "xe_migrate.h"
#include "xe_module.h"
#include "xe_pagefault.h"
#include "xe_pagefault_types.h"
#include "xe_pat.h"
#include "xe_sa.h"
#include "xe_svm.h"
#include "xe_tlb_inval.h"
#include "xe_validation.h"
#include "k_xe.h"

struct xe_modparam xe_modparam = { .svm_notifier_size = 512 };

static struct xe_file *file;
static struct drm_file *drm_file;

static void must(int err, const char *what)
{
	if (err)
		kface_give_up(what);
}

static void platform(struct xe_device *xe, int tiles, bool needs_64k)
{
	xe->info.platform_name = "PVC";
	xe->info.platform = XE_PVC;
	xe->info.graphics_verx100 = 1260;
	xe->info.is_dgfx = 1;
	xe->info.has_usm = 1;
	xe->info.has_asid = 1;
	xe->info.has_atomic_enable_pte_bit = 1;
	xe->info.has_range_tlb_inval = 1;
	xe->info.vram_flags = needs_64k ? XE_VRAM_FLAGS_NEED64K : 0;
	xe->info.va_bits = 57;
	xe->info.vm_max_level = 4;
	xe->info.tile_count = tiles;
	xe->info.gt_count = tiles;
	xe->info.max_gt_per_tile = 1;
	xe->info.mem_region_mask = GENMASK(tiles, 0);
	xe->info.dma_mask_size = 52;
	xe->atomic_svm_timeslice_ms = 5;
}

static void tile_new(struct xe_device *xe, int id)
{
	struct xe_tile *tile = &xe->tiles[id];
	struct xe_gt *gt = kzalloc(sizeof(*gt), GFP_KERNEL);

	tile->xe = xe;
	tile->id = id;
	tile->primary_gt = gt;
	gt->tile = tile;
	gt->info.id = id;
	gt->info.type = XE_GT_TYPE_MAIN;
	/* Execution units, by whose number the fault queue is as long as it is. */
	__set_bit(0, gt->fuse_topo.g_dss_mask);
	bitmap_set(gt->fuse_topo.eu_mask_per_dss, 0, 8);
	gt->ordered_wq = alloc_ordered_workqueue("gt", 0);
	tile->migrate = xe_migrate_alloc(tile);
	must(!tile->migrate, "no memory for a tile's migration");
	k_xe_vram_new(xe, id);
	k_xe_queues_init(gt);
	must(xe_gt_tlb_inval_init_early(gt), "the flushes of a tile cannot be set up");
}

/* All tiles' VRAM is one region of the device. */
static void whole_vram(struct xe_device *xe, int tiles)
{
	struct xe_vram_region *all = kmemdup(xe->tiles[0].mem.vram, sizeof(*all), GFP_KERNEL);

	all->actual_physical_size = (tiles - 1) * K_VRAM_STRIDE + K_VRAM_BYTES;
	xe->mem.vram = all;
}

static void device_memory(int tiles, bool needs_64k)
{
	struct kface_tile memory[K_TILES];
	int id;

	for (id = 0; id < tiles; id++) {
		k_vram[id] = kface_reserve(0x500000000000UL + id * (1UL << 40), K_VRAM_BYTES);
		memory[id] = (struct kface_tile){ K_VRAM_BASE + id * K_VRAM_STRIDE, K_VRAM_BYTES, k_vram[id] };
	}
	kface_gpu_new(memory, tiles, needs_64k, 57);
}

static void migration_new(struct xe_tile *tile)
{
	tile->mem.kernel_bb_pool = xe_sa_bo_manager_init(tile, SZ_1M, 16);
	must(IS_ERR(tile->mem.kernel_bb_pool), "a pool of batches cannot be made");
	tile->primary_gt->usm.bb_pool = xe_sa_bo_manager_init(tile, SZ_512K, 16);
	must(IS_ERR(tile->primary_gt->usm.bb_pool), "a pool of batches cannot be made");
	must(xe_migrate_init(tile->migrate), "xe_migrate_init fails");
	must(xe_pagemap_cache_create(tile), "xe_pagemap_cache_create fails");
}

struct xe_device *k_xe_new(int tiles, bool needs_64k)
{
	struct xe_device *xe = kzalloc(sizeof(*xe), GFP_KERNEL);
	int id;

	xe->drm.dev = kzalloc(sizeof(struct device), GFP_KERNEL);
	xe->drm.unique = "0000:00:02.0";
	platform(xe, tiles, needs_64k);
	device_memory(tiles, needs_64k);
	k_engines_start(tiles);
	k_xe_bos_init(xe);
	xa_init_flags(&xe->usm.asid_to_vm, XA_FLAGS_ALLOC);
	init_rwsem(&xe->usm.lock);
	init_waitqueue_head(&xe->ufence_wq);
	xe->unordered_wq = xe->ordered_wq = xe->destroy_wq = xe->preempt_fence_wq = alloc_ordered_workqueue("xe", 0);
	xe_validation_device_init(&xe->val);
	xe_pat_init_early(xe);
	for (id = 0; id < tiles; id++)
		tile_new(xe, id);
	whole_vram(xe, tiles);
	must(xe_pagefault_init(xe), "xe_pagefault_init fails");
	must(xe_pagemap_shrinker_create(xe), "xe_pagemap_shrinker_create fails");
	for (id = 0; id < tiles; id++)
		migration_new(&xe->tiles[id]);
	file = kzalloc(sizeof(*file), GFP_KERNEL);
	drm_file = kzalloc(sizeof(*drm_file), GFP_KERNEL);
	file->xe = xe;
	file->drm = drm_file;
	drm_file->driver_priv = file;
	kref_init(&file->refcount);
	xa_init_flags(&file->vm.xa, XA_FLAGS_ALLOC1);
	xa_init_flags(&file->exec_queue.xa, XA_FLAGS_ALLOC1);
	mutex_init(&file->vm.lock);
	mutex_init(&file->exec_queue.lock);
	return xe;
}

struct xe_file *xe_file_get(struct xe_file *of) { kref_get(&of->refcount); return of; }
void xe_file_put(struct xe_file *of) { refcount_dec(&of->refcount.refcount); }

struct xe_vm *k_xe_vm_new(struct xe_device *xe)
{
	struct xe_vm *vm = xe_vm_create(xe, XE_VM_FLAG_LR_MODE | XE_VM_FLAG_FAULT_MODE, file);
	int id;

	if (IS_ERR(vm))
		kface_give_up("xe_vm_create fails");
	must(xa_store(&file->vm.xa, vm->usm.asid, vm, GFP_KERNEL) != NULL, "the VM cannot be named");
	for (id = 0; id < xe->info.tile_count; id++)
		kface_gpu_root(id, vm->usm.asid, xe_bo_addr(vm->pt_root[id]->bo, 0, SZ_4K), vm->flags & XE_VM_FLAG_64K);
	return vm;
}

/* VM_BIND of a mirror of the process' memory, on the VM's default queue, with a user fence where there is to be one. */
int k_xe_bind_mirror(struct xe_vm *vm, u64 addr, u64 bytes, u64 fence, bool *reached)
{
	struct drm_xe_sync sync = {
		.type = DRM_XE_SYNC_TYPE_USER_FENCE,
		.flags = DRM_XE_SYNC_FLAG_SIGNAL,
		.addr = fence,
		.timeline_value = 0x600d600d,
	};
	struct drm_xe_vm_bind bind = {
		.vm_id = vm->usm.asid,
		.num_binds = 1,
		.bind = {
			.addr = addr,
			.range = bytes,
			.op = DRM_XE_VM_BIND_OP_MAP,
			.flags = DRM_XE_VM_BIND_FLAG_CPU_ADDR_MIRROR,
			.pat_index = vm->xe->pat.idx[XE_CACHE_WB],
		},
		.num_syncs = fence ? 1 : 0,
		.syncs = (uintptr_t)&sync,
	};

	return xe_vm_bind_ioctl(&vm->xe->drm, &bind, drm_file);
}

/* What the tree's fault handler does of a fault: the area by its address, under the lock that this release wants. */
int k_xe_fault(struct xe_vm *vm, int tile, u64 addr, bool write)
{
	struct xe_vma *vma;
	int err;

	k_self->patience = K_PATIENCE;
	down_write(&vm->lock);
	vma = xe_vm_find_vma_by_addr(vm, addr);
	err = vma ? xe_svm_handle_pagefault(vm, vma, vm->xe->tiles[tile].primary_gt, addr, false) : -EINVAL;
	up_write(&vm->lock);
	k_self->patience = 0;
	return err;
}

/* Through the tree's own queue, by a worker of its own, up to the answer that the hardware would get. */
struct answer {
	bool given;
	int err;
};

static void acknowledge(struct xe_pagefault *fault, int err)
{
	struct answer *answer = fault->producer.private;

	if (k_work_running(gt_to_xe(fault->gt)->usm.pf_wq) > 1)
		kface_reached("two workers served faults at once");
	*answer = (struct answer){ true, err };
	k_changed();
}

static bool is_given(void *answer) { return ((struct answer *)answer)->given; }

int k_xe_fault_by_queue(struct xe_device *xe, u32 asid, int tile, u64 addr, bool write)
{
	static const struct xe_pagefault_ops ops = { .ack_fault = acknowledge };
	struct answer answer = {};
	struct xe_pagefault fault = {
		.gt = xe->tiles[tile].primary_gt,
		.consumer = {
			.page_addr = addr & PAGE_MASK,
			.asid = asid,
			.access_type = write ? XE_PAGEFAULT_ACCESS_TYPE_WRITE : XE_PAGEFAULT_ACCESS_TYPE_READ,
		},
		.producer = { .private = &answer, .ops = &ops },
	};

	must(xe_pagefault_handler(xe, &fault), "the fault queue is full");
	k_wait_for(is_given, &answer, "the answer to a fault");
	return answer.err;
}

static void pool_settle(struct xe_sa_manager *pool)
{
	/* All of it at once can only be had when nobody has any. */
	struct drm_suballoc *part = xe_sa_bo_new(pool, pool->base.size);

	must(IS_ERR(part), "a pool of batches is full");
	xe_sa_bo_free(part, NULL);
}

void k_xe_pools_settle(struct xe_device *xe)
{
	int id;

	for (id = 0; id < xe->info.tile_count; id++) {
		pool_settle(xe->tiles[id].mem.kernel_bb_pool);
		pool_settle(xe->tiles[id].primary_gt->usm.bb_pool);
	}
}

/* As the ioctl that destroys a VM: it has no name any more, then it ends. */
void k_xe_vm_close(struct xe_vm *vm)
{
	xa_erase(&file->vm.xa, vm->usm.asid);
	xe_vm_close_and_put(vm);
}

/* Names in the driver's texts: there is no stepping, and who faults is one engine. */
const char *k_class_name(int class) __asm__("xe_hw_engine_class_to_str");
const char *k_class_name(int class) { return "ccs"; }
const char *k_stepping(int step) __asm__("xe_step_name");
const char *k_stepping(int step) { return "**"; }

/* Power is on. */
void xe_pm_runtime_get(struct xe_device *xe) { }
void xe_pm_runtime_get_noresume(struct xe_device *xe) { }
void xe_pm_runtime_put(struct xe_device *xe) { }
bool xe_pm_might_block_on_suspend_stub(void) __asm__("xe_pm_might_block_on_suspend");
bool xe_pm_might_block_on_suspend_stub(void) { return false; }
void xe_device_assert_mem_access(struct xe_device *xe) { }
void xe_device_wmb(struct xe_device *xe) { }
u64 xe_device_canonicalize_addr(struct xe_device *xe, u64 addr) { return sign_extend64(addr, xe->info.va_bits - 1); }
bool k_not_l2_flush(struct xe_device *xe) __asm__("xe_device_is_l2_flush_optimized");
bool k_not_l2_flush(struct xe_device *xe) { return false; }
bool k_not_a_vf(void *gt) __asm__("xe_sriov_vf_migration_supported");
bool k_not_a_vf(void *gt) { return false; }
int k_no_fixups(void *gt) __asm__("xe_vf_migration_fixups_complete_count");
int k_no_fixups(void *gt) { return 0; }
int k_no_ggtt_wait(void *gt) __asm__("xe_gt_sriov_vf_wait_valid_ggtt");
int k_no_ggtt_wait(void *gt) { return 0; }
void k_no_engine_group(void) __asm__("xe_hw_engine_group_del_exec_queue");
void k_no_engine_group(void) { }
