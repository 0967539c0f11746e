// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Memory: the slab allocator's entry points over libc, pages with their struct page, per-CPU memory. What was not asked to
 * be zero is poison, and so is what was freed; an allocation can be made to fail.
 */
#include <linux/gfp.h>
#include <linux/mmzone.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include "k.h"

/* System pages lie here and are their own physical addresses; the structures of all pages are in one reservation. */
#define RAM_BASE 0x100000000UL
#define RAM_BYTES (64UL << 20)
#define VMEMMAP_BASE 0x400000000000UL
#define VMEMMAP_BYTES (16UL << 30)

unsigned long vmemmap_base;
unsigned long page_offset_base;
unsigned long vmalloc_base = 0x600000000000UL;
unsigned long phys_base;
unsigned long direct_map_physmem_end = ~0UL;
unsigned long max_pfn = (RAM_BASE + RAM_BYTES) >> PAGE_SHIFT;
unsigned int pgdir_shift = 39;
unsigned int ptrs_per_p4d = 1;
unsigned long zero_page_pfn;
struct pglist_data contig_page_data;
kmem_buckets kmalloc_caches[NR_KMALLOC_TYPES];

long k_fail_countdown = -1;
const char *k_fail_what;

static unsigned long used_pages;
static struct page *freed_pages;
static unsigned long pages_in_use;

extern unsigned long k_preempt_count __asm__("__preempt_count");

void k_mem_init(void)
{
	k_preempt_count = (unsigned long)PREEMPT_ENABLED;
	vmemmap_base = (unsigned long)kface_reserve(VMEMMAP_BASE, VMEMMAP_BYTES);
	kface_reserve(RAM_BASE, RAM_BYTES);
	kface_reserve(K_HEAP_BASE, K_HEAP_BYTES);
	kface_reserve(K_SHADOW_BASE, K_HEAP_BYTES >> 4);
	zero_page_pfn = page_to_pfn(k_page_new());
}

/* What stands in front of an allocation says how long it is, and who asked for it: nobody, where the glue did. */
struct head {
	size_t size;
	unsigned long from;
};
#define HEAD sizeof(struct head)
#define HERE ((unsigned long)__builtin_return_address(0))

static struct head *head_of(const void *memory) { return (struct head *)((unsigned char *)memory - HEAD); }

static unsigned long heap_used = HEAD;

static void shade(const void *memory, size_t size, int what)
{
	memset(k_shadow((unsigned long)memory), what, DIV_ROUND_UP(size, 16));
}

static void *must_alloc(size_t size, int fill, unsigned long from)
{
	unsigned char *memory = (unsigned char *)K_HEAP_BASE + heap_used + HEAD;

	heap_used += HEAD + ALIGN(size, 16);
	if (heap_used > K_HEAP_BYTES)
		kface_give_up("the glue has no memory left");
	*head_of(memory) = (struct head){ size, from };
	shade(memory, size, K_IN_USE);
	memset(memory, fill, size);
	return memory;
}

void *k_must_alloc(size_t size) { return must_alloc(size, 0, 0); }

static void *allocate(size_t size, gfp_t flags, unsigned long from)
{
	if (gfpflags_allow_blocking(flags))
		k_may_sleep("an allocation that may wait");
	fs_reclaim_acquire(flags);
	fs_reclaim_release(flags);
	if (k_fail_countdown >= 0 && k_fail_countdown-- == 0) {
		kface_event("allocation_failed");
		kface_number("bytes", size);
		kface_event_end();
		return NULL;
	}
	return must_alloc(size, flags & __GFP_ZERO ? 0 : K_POISON_NEW, from);
}

void *k_alloc_for(size_t size, unsigned long from) { return allocate(size, GFP_KERNEL | __GFP_ZERO, from); }

unsigned long k_heap_mark(void)
{
	return heap_used;
}

/* Who asked for the memory that still leads to this; 0, where nothing does: then it is lost. */
static unsigned long holder_of(const void *memory, size_t size)
{
	unsigned long at = HEAD, start = (unsigned long)memory;

	while (at < heap_used) {
		unsigned char *other = (unsigned char *)K_HEAP_BASE + at + HEAD;
		const unsigned long *word = (const unsigned long *)other;
		const unsigned long *end = word + head_of(other)->size / sizeof(*word);

		if (other != memory && *k_shadow((unsigned long)other) == K_IN_USE) {
			for (; word < end; word++) {
				if (*word - start < size)
					return head_of(other)->from ?: 1;
			}
		}
		at += HEAD + ALIGN(head_of(other)->size, 16);
	}
	return 0;
}

void k_leaks(unsigned long from, unsigned long behind)
{
	while (from < behind) {
		unsigned char *memory = (unsigned char *)K_HEAP_BASE + from + HEAD;
		struct head *head = head_of(memory);

		if (head->from && head->size && *k_shadow((unsigned long)memory) == K_IN_USE) {
			kface_event("leak");
			kface_number("bytes", head->size);
			kface_number("ip", head->from);
			kface_number("holder", holder_of(memory, head->size));
			kface_event_end();
		}
		from += HEAD + ALIGN(head->size, 16);
	}
}

static void release(const void *memory)
{
	size_t size;

	if (ZERO_OR_NULL_PTR(memory))
		return;
	if (k_is_freed((unsigned long)memory)) {
		kface_event("double_free");
		kface_event_end();
		return;
	}
	size = head_of(memory)->size;
	memset((void *)memory, K_POISON_FREED, size);
	shade(memory, size, K_FREED);
}

/*
 * The slab's entry points. Releases change the text of their prototypes more often than what is passed, so they are bound
 * by name, and the probe step looks whether what is passed is still this.
 */
#define ENTRY(name, symbol, ...) void *name(__VA_ARGS__) __asm__(symbol); void *name(__VA_ARGS__)

ENTRY(k_kmalloc, "__kmalloc_noprof", size_t size, gfp_t flags) { return allocate(size, flags, HERE); }
ENTRY(k_kmalloc_cache, "__kmalloc_cache_noprof", struct kmem_cache *cache, gfp_t flags, size_t size)
{
	return allocate(size, flags, HERE);
}
ENTRY(k_kmalloc_large, "__kmalloc_large_noprof", size_t size, gfp_t flags) { return allocate(size, flags, HERE); }
ENTRY(k_kvmalloc, "__kvmalloc_node_noprof", size_t size, unsigned long align, gfp_t flags, int node)
{
	return allocate(size, flags, HERE);
}

static void *again(const void *old, size_t size, gfp_t flags, unsigned long from)
{
	void *memory = allocate(size, flags, from);
	size_t had = ZERO_OR_NULL_PTR(old) ? 0 : head_of(old)->size;

	if (memory && had) {
		memcpy(memory, old, min(had, size));
		release(old);
	}
	return memory;
}

ENTRY(k_krealloc, "krealloc_node_align_noprof", const void *old, size_t size, unsigned long align, gfp_t flags, int node)
{
	return again(old, size, flags, HERE);
}
ENTRY(k_kvrealloc, "kvrealloc_node_align_noprof", const void *old, size_t size, unsigned long align, gfp_t flags, int node)
{
	return again(old, size, flags, HERE);
}

ENTRY(k_kmemdup, "kmemdup_noprof", const void *from, size_t size, gfp_t flags)
{
	void *memory = allocate(size, flags, HERE);

	return memory ? memcpy(memory, from, size) : NULL;
}

void kfree(const void *memory) { release(memory); }
void kvfree(const void *memory) { release(memory); }

size_t k_roundup(size_t size) __asm__("kmalloc_size_roundup");
size_t k_roundup(size_t size) { return size; }

/* A cache is the size of its objects, and what makes them. */
struct cache {
	size_t size;
	void (*ctor)(void *);
};

ENTRY(k_cache_new, "__kmem_cache_create_args", const char *name, unsigned int size, struct kmem_cache_args *args,
      slab_flags_t flags)
{
	struct cache *cache = allocate(sizeof(*cache), __GFP_ZERO, HERE);

	cache->size = size;
	cache->ctor = args ? args->ctor : NULL;
	return cache;
}

static void *object_of(struct cache *cache, gfp_t flags, unsigned long from)
{
	void *object = allocate(cache->size, flags, from);

	if (object && cache->ctor)
		cache->ctor(object);
	return object;
}

ENTRY(k_cache_alloc, "kmem_cache_alloc_noprof", struct cache *cache, gfp_t flags)
{
	return object_of(cache, flags, HERE);
}

ENTRY(k_cache_alloc_lru, "kmem_cache_alloc_lru_noprof", struct cache *cache, void *lru, gfp_t flags)
{
	return object_of(cache, flags, HERE);
}

void kmem_cache_free(struct kmem_cache *cache, void *object) { release(object); }
void kmem_cache_destroy(struct kmem_cache *cache) { release(cache); }

/* Pages. */
struct page *k_page_new(void)
{
	struct page *page = freed_pages;

	if (page) {
		freed_pages = (struct page *)page->private;
	} else {
		if (used_pages == RAM_BYTES >> PAGE_SHIFT)
			return NULL;
		page = pfn_to_page((RAM_BASE >> PAGE_SHIFT) + used_pages++);
	}
	pages_in_use++;
	memset(page, 0, sizeof(*page));
	set_page_links(page, ZONE_NORMAL, 0, page_to_pfn(page));
	atomic_set(&page->_mapcount, -1);
	init_page_count(page);
	memset(page_address(page), 0, PAGE_SIZE);
	return page;
}

static bool is_poison(const unsigned long *word)
{
	int i;

	for (i = 0; i < PAGE_SIZE / sizeof(*word); i++) {
		if (word[i] != 0x0101010101010101UL * K_POISON_FREED)
			return false;
	}
	return true;
}

/* Pages of system memory that were given back and hold something else than they did then. */
int k_freed_pages_written(void)
{
	struct page *page;
	int written = 0;

	for (page = freed_pages; page; page = (struct page *)page->private)
		written += !is_poison(page_address(page));
	return written;
}

static void page_gone(struct page *page)
{
	memset(page_address(page), K_POISON_FREED, PAGE_SIZE);
	page->private = (unsigned long)freed_pages;
	freed_pages = page;
	pages_in_use--;
}

unsigned long k_pages_in_use(void)
{
	return pages_in_use;
}

/* mm/internal.h, which is not for others. */
void free_zone_device_folio(struct folio *folio);

struct folio *__folio_alloc_noprof(gfp_t flags, unsigned int order, int node, nodemask_t *mask)
{
	struct page *page;

	/* Large folios cannot be had: callers fall back to pages. */
	if (order || (k_fail_countdown >= 0 && k_fail_countdown-- == 0))
		return NULL;
	page = k_page_new();
	return page ? page_folio(page) : NULL;
}

void __folio_put(struct folio *folio)
{
	if (folio_is_zone_device(folio))
		free_zone_device_folio(folio);
	else
		page_gone(&folio->page);
}

void __freed_pages(struct page *page, unsigned int order)
{
	if (put_page_testzero(page))
		page_gone(page);
}

/* What the tree's memremap asks of the memory map: structures of pages that hold device memory, and are free. */
void memmap_init_zone_device(struct zone *zone, unsigned long start, unsigned long pages, struct dev_pagemap *pgmap)
{
	unsigned long pfn;

	for (pfn = start; pfn < start + pages; pfn++) {
		struct page *page = pfn_to_page(pfn);

		memset(page, 0, sizeof(*page));
		set_page_links(page, ZONE_DEVICE, 0, pfn);
		atomic_set(&page->_mapcount, -1);
		__SetPageReserved(page);
		page_folio(page)->pgmap = pgmap;
		set_page_count(page, 0);
	}
}

int add_pages(int node, unsigned long pfn, unsigned long pages, struct mhp_params *params) { return 0; }
void __remove_pages(unsigned long pfn, unsigned long pages, struct vmem_altmap *alt, struct dev_pagemap *pgmap) { }
void move_pfn_range_to_zone(struct zone *zone, unsigned long pfn, unsigned long pages, struct vmem_altmap *alt,
			    int type, bool isolate) { }
void remove_pfn_range_from_zone(struct zone *zone, unsigned long pfn, unsigned long pages) { }
void mem_hotplug_begin(void) { }
void mem_hotplug_done(void) { }
bool mhp_range_allowed(u64 start, u64 bytes, bool mapped) { return true; }
int pfnmap_track(unsigned long pfn, unsigned long bytes, pgprot_t *prot) { return 0; }
void pfnmap_untrack(unsigned long pfn, unsigned long bytes) { }

int region_intersects(resource_size_t start, size_t bytes, unsigned long flags, unsigned long desc)
{
	return REGION_DISJOINT;
}

/*
 * Per-CPU: one CPU, whose memory is the variable itself, because a process has nothing at %gs. The types of these differ from
 * tree to tree, their names do not.
 */
__asm__(".pushsection .data\n"
	".globl __preempt_count, cpu_number, this_cpu_off, const_current_task, current_task\n"
	".balign 64\n"
	"__preempt_count: .quad 0\n"
	"cpu_number: .quad 0\n"
	"this_cpu_off: .quad 0\n"
	"const_current_task: current_task: .quad 0\n"
	".popsection\n");

unsigned long __per_cpu_offset[NR_CPUS];
struct cpumask __cpu_possible_mask = { .bits = { 1 } };
struct cpumask __cpu_online_mask = { .bits = { 1 } };

void __percpu *pcpu_alloc_noprof(size_t size, size_t align, bool reserved, gfp_t flags)
{
	return (void __percpu *)allocate(size, __GFP_ZERO, HERE);
}

void free_percpu(void __percpu *memory)
{
	release((void __force *)memory);
}
