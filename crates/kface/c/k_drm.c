// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What DRM and the device core give a driver: managed memory and actions that nobody undoes (a run ends with its process),
 * objects, synchronisation objects, shrinkers that never shrink, and memory of user space, which is memory.
 */
#include <linux/device.h>
#include <linux/ioport.h>
#include <linux/shrinker.h>
#include <linux/uaccess.h>
#include <linux/bitmap.h>
#include <drm/drm_drv.h>
#include <drm/drm_gem.h>
#include <drm/drm_managed.h>
#include <drm/drm_syncobj.h>
#include "k.h"

struct resource iomem_resource = { .name = "iomem", .end = -1 };
unsigned long huge_zero_pfn = ~0UL;
pteval_t __supported_pte_mask = ~0;
pteval_t __default_kernel_pte_mask = ~0;
struct cpuinfo_x86 boot_cpu_data;
struct srcu_struct tracepoint_srcu;

/* Devices. */
bool drm_dev_enter(struct drm_device *dev, int *idx) { *idx = 0; return true; }
void drm_dev_exit(int idx) { }
void drm_dev_get(struct drm_device *dev) { }
void drm_dev_put(struct drm_device *dev) { }

int __devm_add_action(struct device *dev, void (*action)(void *), void *data, const char *name) { return 0; }
void __drmm_mutex_release(struct drm_device *dev, void *data) { }
void __drmm_workqueue_release(struct drm_device *dev, void *data) { }

int __drmm_add_action_or_reset(struct drm_device *dev, drmres_release_t action, void *data, const char *name)
{
	return 0;
}

void *drmm_kmalloc(struct drm_device *dev, size_t size, gfp_t flags) { return kmalloc(size, flags); }

/* Physical addresses that no memory has: where device memory gets its page structures. */
#define FREE_REGIONS 0x2000000000ULL

struct resource *devm_request_free_mem_region(struct device *dev, struct resource *base, unsigned long size)
{
	static u64 next = FREE_REGIONS;
	struct resource *found = kzalloc(sizeof(*found), GFP_KERNEL);

	found->start = next;
	found->end = next + size - 1;
	next += ALIGN(size, SZ_1G);
	return found;
}

/* Shrinkers. */
struct shrinker *shrinker_alloc(unsigned int flags, const char *format, ...)
{
	return kzalloc(sizeof(struct shrinker), GFP_KERNEL);
}

void shrinker_register(struct shrinker *shrinker) { }
void shrinker_free(struct shrinker *shrinker) { kfree(shrinker); }

/* Objects. */
void drm_gem_private_object_init(struct drm_device *dev, struct drm_gem_object *object, size_t size)
{
	object->dev = dev;
	object->size = size;
	kref_init(&object->refcount);
	drm_gem_gpuva_init(object);
	dma_resv_init(&object->_resv);
	if (!object->resv)
		object->resv = &object->_resv;
}

void drm_gem_object_release(struct drm_gem_object *object)
{
	dma_resv_fini(&object->_resv);
}

void drm_gem_object_free(struct kref *kref)
{
	struct drm_gem_object *object = container_of(kref, struct drm_gem_object, refcount);

	object->funcs->free(object);
}

/* Synchronisation objects: the last fence. */
int drm_syncobj_create(struct drm_syncobj **out, uint32_t flags, struct dma_fence *fence)
{
	struct drm_syncobj *object = kzalloc(sizeof(*object), GFP_KERNEL);

	kref_init(&object->refcount);
	spin_lock_init(&object->lock);
	rcu_assign_pointer(object->fence, fence ? dma_fence_get(fence) : dma_fence_get_stub());
	*out = object;
	return 0;
}

void drm_syncobj_replace_fence(struct drm_syncobj *object, struct dma_fence *fence)
{
	struct dma_fence *before = rcu_dereference_protected(object->fence, true);

	rcu_assign_pointer(object->fence, dma_fence_get(fence));
	dma_fence_put(before);
}

/* A point of a time line: here, all that came before is waited for, too. */
void drm_syncobj_add_point(struct drm_syncobj *object, struct dma_fence_chain *chain, struct dma_fence *fence,
			   uint64_t point)
{
	struct dma_fence *before = rcu_dereference_protected(object->fence, true);

	dma_fence_chain_init(chain, dma_fence_get(before), dma_fence_get(fence), point);
	rcu_assign_pointer(object->fence, &chain->base);
	dma_fence_put(before);
}

void drm_syncobj_free(struct kref *kref)
{
	struct drm_syncobj *object = container_of(kref, struct drm_syncobj, refcount);

	dma_fence_put(rcu_dereference_protected(object->fence, true));
	kfree(object);
}

/* Memory of user space. */
unsigned long _copy_from_user(void *to, const void __user *from, unsigned long bytes)
{
	memcpy(to, (const void __force *)from, bytes);
	return 0;
}

unsigned long _copy_to_user(void __user *to, const void *from, unsigned long bytes)
{
	memcpy((void __force *)to, from, bytes);
	return 0;
}

__asm__(".pushsection .text\n"
	".globl __get_user_8, preempt_schedule_thunk, preempt_schedule_notrace_thunk\n"
	"__get_user_8: mov (%rax),%rdx\n xor %eax,%eax\n ret\n"
	"preempt_schedule_thunk: ret\n"
	"preempt_schedule_notrace_thunk: ret\n"
	".popsection\n");

/* Small things that other objects of the kernel would give; bound by name, because there are several ways to call each. */
unsigned int k_weight32(unsigned int word) __asm__("__sw_hweight32");
unsigned long k_weight64(u64 word) __asm__("__sw_hweight64");
unsigned long k_weight64(u64 word)
{
	unsigned long bits = 0;

	for (; word; word &= word - 1)
		bits++;
	return bits;
}

unsigned int k_weight32(unsigned int word) { return k_weight64(word); }

ssize_t sized_strscpy(char *to, const char *from, size_t size)
{
	size_t length = strnlen(from, size - 1);

	memcpy(to, from, length);
	to[length] = 0;
	return length;
}

unsigned long _find_next_bit(const unsigned long *words, unsigned long bits, unsigned long from)
{
	while (from < bits && !test_bit(from, words))
		from++;
	return from;
}

unsigned int k_weighted_or(unsigned long *to, const unsigned long *a, const unsigned long *b, unsigned int bits)
	__asm__("__bitmap_weighted_or");
unsigned int k_weighted_or(unsigned long *to, const unsigned long *a, const unsigned long *b, unsigned int bits)
{
	unsigned int i, weight = 0;

	for (i = 0; i < BITS_TO_LONGS(bits); i++) {
		to[i] = a[i] | b[i];
		weight += k_weight64(to[i]);
	}
	return weight;
}

void memset_io(volatile void __iomem *to, int byte, size_t bytes) { memset((void __force *)to, byte, bytes); }
void memcpy_toio(volatile void __iomem *to, const void *from, size_t bytes) { memcpy((void __force *)to, from, bytes); }

void memcpy_fromio(void *to, const volatile void __iomem *from, size_t bytes)
{
	memcpy(to, (const void __force *)from, bytes);
}
