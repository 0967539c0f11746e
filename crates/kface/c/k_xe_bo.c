// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Buffer objects in VRAM: the tree's own buddy allocator hands out blocks, which are memory here and VRAM to the device. */
#include <linux/gpu_buddy.h>
#include <linux/dma-resv.h>
#include <drm/drm_gem.h>
#include "xe_ttm_vram_mgr_types.h"
#include "xe_vram.h"
#include "xe_ttm_vram_mgr.h"
#include "k_xe.h"

unsigned char *k_vram[K_TILES];
static struct xe_vram_region *regions[K_TILES];
static int bos_in[K_TILES];

int k_xe_bos_in_vram(int tile)
{
	return bos_in[tile];
}

void k_xe_vram_new(struct xe_device *xe, int id)
{
	struct xe_tile *tile = &xe->tiles[id];
	struct xe_vram_region *vr = kzalloc(sizeof(*vr), GFP_KERNEL);

	vr->xe = xe;
	vr->id = id;
	vr->dpa_base = K_VRAM_BASE + id * K_VRAM_STRIDE;
	vr->usable_size = vr->actual_physical_size = vr->io_size = K_VRAM_BYTES;
	vr->io_start = 0xf000000000ULL + id * K_VRAM_BYTES;
	vr->placement = XE_PL_VRAM0 + id;
	vr->migrate = tile->migrate;
	if (gpu_buddy_init(&vr->ttm.mm, K_VRAM_BYTES, SZ_4K))
		kface_give_up("the buddy allocator cannot be made");
	xe->ttm.man_drv[XE_PL_VRAM0 + id] = &vr->ttm.manager;
	tile->mem.vram = tile->mem.kernel_vram = regions[id] = vr;
}

/* Buffers with pages of the process, which the driver makes without a VM. */
static struct xe_bo *devmem[16];

static bool is_of(const struct xe_bo *bo, int tile)
{
	return tile < 0 || bo->ttm.resource->mem_type == XE_PL_VRAM0 + tile;
}

struct xe_bo *k_xe_devmem_get(int tile)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(devmem); i++) {
		if (devmem[i] && is_of(devmem[i], tile) && kref_get_unless_zero(&devmem[i]->ttm.base.refcount))
			return devmem[i];
	}
	return NULL;
}

static void devmem_is(struct xe_bo *from, struct xe_bo *to)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(devmem); i++) {
		if (devmem[i] == from) {
			devmem[i] = to;
			return;
		}
	}
}

static void give_back(struct xe_bo *bo)
{
	struct ttm_resource *res = bo->ttm.resource;

	gpu_buddy_free_list(&regions[res->mem_type - XE_PL_VRAM0]->ttm.mm, &to_xe_ttm_vram_mgr_resource(res)->blocks, 0);
	drm_gem_object_release(&bo->ttm.base);
	kfree(res);
	kfree(bo);
}

static void give_back_later(struct work_struct *work)
{
	struct xe_bo *bo = container_of(work, struct xe_bo, ttm.delayed_delete);

	dma_resv_wait_timeout(&bo->ttm.base._resv, DMA_RESV_USAGE_BOOKKEEP, false, MAX_SCHEDULE_TIMEOUT);
	give_back(bo);
}

/* The memory of a buffer is nobody else's before those are done with it whose fences are in it. */
static void bo_gone(struct drm_gem_object *object)
{
	struct xe_bo *bo = gem_to_xe_bo(object);

	bos_in[bo->ttm.resource->mem_type - XE_PL_VRAM0]--;
	devmem_is(bo, NULL);
	if (object->resv != &object->_resv || dma_resv_test_signaled(object->resv, DMA_RESV_USAGE_BOOKKEEP)) {
		give_back(bo);
		return;
	}
	INIT_WORK(&bo->ttm.delayed_delete, give_back_later);
	schedule_work(&bo->ttm.delayed_delete);
}

static const struct drm_gem_object_funcs bo_funcs = { .free = bo_gone };

static int tile_of(u32 flags, struct xe_tile *tile)
{
	int id;

	for (id = 0; id < K_TILES; id++) {
		if (flags & (XE_BO_FLAG_VRAM0 << id))
			return id;
	}
	return tile ? tile->id : 0;
}

static bool is_late(const struct xe_vm *vm, enum ttm_bo_type type)
{
	return k_xe_is_late && !vm && type == ttm_bo_type_device;
}

/* Contiguous, aligned to its size up to 2M, zero as the driver's clearing leaves it. */
static struct xe_bo *bo_new(struct xe_device *xe, struct xe_tile *tile, struct xe_vm *vm, size_t bytes, u32 flags,
			    enum ttm_bo_type type)
{
	int id = tile_of(flags, tile);
	struct xe_vram_region *vr = regions[id];
	struct xe_ttm_vram_mgr_resource *res = kzalloc(sizeof(*res), GFP_KERNEL);
	struct xe_bo *bo = kzalloc(sizeof(*bo), GFP_KERNEL);
	u64 least = xe->info.vram_flags & XE_VRAM_FLAGS_NEED64K ? SZ_64K : SZ_4K, offset;

	if (!res || !bo)
		return ERR_PTR(-ENOMEM);
	bytes = ALIGN(bytes, least);
	INIT_LIST_HEAD(&res->blocks);
	if (gpu_buddy_alloc_blocks(&vr->ttm.mm, 0, K_VRAM_BYTES, bytes, least, &res->blocks,
				   GPU_BUDDY_CONTIGUOUS_ALLOCATION))
		return ERR_PTR(-ENOSPC);
	offset = gpu_buddy_block_offset(list_first_entry(&res->blocks, struct gpu_buddy_block, link));
	if (!is_late(vm, type))
		memset(k_vram[id] + offset, 0, bytes);
	res->base.mem_type = XE_PL_VRAM0 + id;
	res->base.size = bytes;
	res->base.start = offset >> PAGE_SHIFT;
	res->base.bo = &bo->ttm;
	bo->ttm.resource = &res->base;
	bo->ttm.bdev = &xe->ttm;
	bo->ttm.type = type;
	bo->ttm.base.resv = vm ? xe_vm_resv(vm) : NULL;
	bo->ttm.base.funcs = &bo_funcs;
	drm_gem_private_object_init(&xe->drm, &bo->ttm.base, bytes);
	bo->flags = flags;
	bo->vm = vm;
	bo->tile = tile;
	bo->created = true;
	iosys_map_set_vaddr(&bo->vmap, k_vram[id] + offset);
	INIT_LIST_HEAD(&bo->pinned_link);
	INIT_LIST_HEAD(&bo->vram_userfault_link);
	bos_in[id]++;
	return bo;
}

/* Who uses the buffer has to wait for the fence that is in it. */
static void clear_late(struct xe_bo *bo)
{
	struct dma_fence *fence = k_xe_clear_late(bo->vmap.vaddr, bo->ttm.resource->size);

	if (dma_resv_reserve_fences(bo->ttm.base.resv, 1))
		kface_give_up("there is no memory for a fence");
	dma_resv_add_fence(bo->ttm.base.resv, fence, DMA_RESV_USAGE_KERNEL);
	dma_fence_put(fence);
}

struct xe_bo *xe_bo_create_locked(struct xe_device *xe, struct xe_tile *tile, struct xe_vm *vm, size_t bytes,
				  enum ttm_bo_type type, u32 flags, struct drm_exec *exec)
{
	struct xe_bo *bo = bo_new(xe, tile, vm, bytes, flags, type);

	if (!IS_ERR(bo) && !vm) {
		/* Locked before anybody else can find it. */
		dma_resv_lock(bo->ttm.base.resv, NULL);
		if (is_late(vm, type))
			clear_late(bo);
		devmem_is(NULL, bo);
	}
	return bo;
}

static struct xe_bo *pinned(struct xe_bo *bo)
{
	if (!IS_ERR(bo))
		bo->ttm.pin_count = 1;
	return bo;
}

struct xe_bo *xe_bo_create_pin_map(struct xe_device *xe, struct xe_tile *tile, struct xe_vm *vm, size_t bytes,
				   enum ttm_bo_type type, u32 flags, struct drm_exec *exec)
{
	return pinned(bo_new(xe, tile, vm, bytes, flags, type));
}

struct xe_bo *xe_managed_bo_create_pin_map(struct xe_device *xe, struct xe_tile *tile, size_t bytes, u32 flags)
{
	return pinned(bo_new(xe, tile, NULL, bytes, flags, ttm_bo_type_kernel));
}

u64 vram_region_gpu_offset(struct ttm_resource *res)
{
	return regions[res->mem_type - XE_PL_VRAM0]->dpa_base;
}

dma_addr_t xe_bo_addr(struct xe_bo *bo, u64 offset, size_t page)
{
	return vram_region_gpu_offset(bo->ttm.resource) + ((u64)bo->ttm.resource->start << PAGE_SHIFT) + offset;
}

bool mem_type_is_vram(u32 type) { return type >= XE_PL_VRAM0 && type < XE_PL_VRAM0 + K_TILES; }
bool xe_bo_is_vram(struct xe_bo *bo) { return mem_type_is_vram(bo->ttm.resource->mem_type); }
bool xe_bo_is_stolen(struct xe_bo *bo) { return false; }
bool xe_bo_is_stolen_devmem(struct xe_bo *bo) { return false; }
bool xe_bo_needs_ccs_pages(struct xe_bo *bo) { return false; }
bool xe_bo_has_single_placement(struct xe_bo *bo) { return true; }
int xe_bo_lock(struct xe_bo *bo, bool interruptible) { return dma_resv_lock(bo->ttm.base.resv, NULL); }
void xe_bo_unlock(struct xe_bo *bo) { dma_resv_unlock(bo->ttm.base.resv); }
void xe_bo_unpin(struct xe_bo *bo) { bo->ttm.pin_count--; }
int xe_bo_validate(struct xe_bo *bo, struct xe_vm *vm, bool evict, struct drm_exec *exec) { return 0; }
void xe_bo_put(struct xe_bo *bo) { if (bo) drm_gem_object_put(&bo->ttm.base); }

/* Marks where the last reference of an object went that is freed later. */
void __xe_bo_release_dummy(struct kref *kref) { }

void xe_bo_put_commit(struct llist_head *deferred)
{
	struct llist_node *freed = llist_del_all(deferred);
	struct xe_bo *bo, *next;

	llist_for_each_entry_safe(bo, next, freed, freed)
		drm_gem_object_free(&bo->ttm.base.refcount);
}

/* Objects whose last reference went where nothing may sleep. */
static void free_async(struct work_struct *work)
{
	xe_bo_put_commit(&container_of(work, struct xe_device, bo_device.async_free)->bo_device.async_list);
}

void k_xe_bos_init(struct xe_device *xe)
{
	INIT_WORK(&xe->bo_device.async_free, free_async);
	init_llist_head(&xe->bo_device.async_list);
}

/* Lists of least recently used objects: nothing is evicted but by a scene. */
void ttm_lru_bulk_move_init(struct ttm_lru_bulk_move *bulk) { }
void ttm_lru_bulk_move_fini(struct ttm_device *dev, struct ttm_lru_bulk_move *bulk) { }
void ttm_lru_bulk_move_tail(struct ttm_lru_bulk_move *bulk) { }
void ttm_bo_move_to_lru_tail(struct ttm_buffer_object *bo) { }
