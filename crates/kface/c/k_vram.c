// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The smallest driver, over the tree's own migrate_device.c and memremap.c: it copies with the CPU and has no page tables. */
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/pagemap.h>
#include "k_vram.h"

/* The glue's regions of device memory are of so many bytes at least. */
#define REGION SZ_128M

struct resource *devm_request_free_mem_region(struct device *dev, struct resource *base, unsigned long size);

static struct vram {
	struct dev_pagemap map;
	unsigned char *bytes;
	bool in_use[K_BLOCK_PAGES];
} vrams[K_VRAMS];
static struct device device;
static int owners[2];

/* The migration that is under way. */
static struct {
	struct migrate_vma args;
	unsigned long src[K_BLOCK_PAGES], dst[K_BLOCK_PAGES];
	unsigned long pages;
	bool by_range;
} now;

void *k_vram_owner(int vram)
{
	return vram < 0 ? NULL : &owners[vram / 2];
}

static struct vram *vram_of(struct page *page)
{
	return container_of(page_pgmap(page), struct vram, map);
}

static int index_in(struct vram *vram, struct page *page)
{
	return page_to_pfn(page) - PHYS_PFN(vram->map.range.start);
}

static unsigned char *bytes_of(struct page *page)
{
	return is_device_private_page(page) ? vram_of(page)->bytes + index_in(vram_of(page), page) * PAGE_SIZE
					    : page_address(page);
}

int k_vram_place(unsigned long addr)
{
	unsigned long pfn;
	int what = k_page_is(addr, &pfn);

	if (what == 'd')
		return '0' + (vram_of(pfn_to_page(pfn)) - vrams);
	return what == 'n' ? '.' : what;
}

/* What a page that is collected is: a hole, of system memory, or of a VRAM; a dash for one that is not. */
static int letter(unsigned long src)
{
	struct page *page = migrate_pfn_to_page(src);

	if (!(src & MIGRATE_PFN_MIGRATE))
		return '-';
	if (!page)
		return 'h';
	return is_device_private_page(page) ? '0' + (vram_of(page) - vrams) : 'r';
}

static void say(const char *what, int (*is)(unsigned long))
{
	char text[K_BLOCK_PAGES + 1];
	int i;

	for (i = 0; i < now.pages; i++)
		text[i] = is(now.src[i]);
	text[i] = 0;
	kface_said(what, text);
}

static int moved(unsigned long src)
{
	return src & MIGRATE_PFN_MIGRATE ? '+' : '-';
}

static struct page *page_at(int vram, unsigned long addr)
{
	struct page *page = pfn_to_page(PHYS_PFN(vrams[vram].map.range.start) + (addr - K_BLOCK_START) / PAGE_SIZE);

	zone_device_page_init(page, &vrams[vram].map, 0);
	return page;
}

/* A place for a page that was collected, with its bytes; none where it is to stay. */
static unsigned long place_for(unsigned long src, int vram, unsigned long addr)
{
	struct page *from = migrate_pfn_to_page(src), *to;

	if (!(src & MIGRATE_PFN_MIGRATE))
		return 0;
	if (from && vram >= 0 && is_device_private_page(from) && vram_of(from) == &vrams[vram])
		return 0;
	to = vram < 0 ? k_page_new() : page_at(vram, addr);
	if (vram < 0)
		lock_page(to);
	if (from)
		memcpy(bytes_of(to), bytes_of(from), PAGE_SIZE);
	else
		memset(bytes_of(to), 0, PAGE_SIZE);
	return migrate_pfn(page_to_pfn(to));
}

/* Holes do not migrate back. */
static int begin(unsigned long start, unsigned long end, int vram, struct page *fault)
{
	unsigned long i;

	now.args = (struct migrate_vma){ .start = start, .end = end, .src = now.src, .dst = now.dst, .fault_page = fault,
					 .pgmap_owner = k_vram_owner(max(vram, 0)),
					 .flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE };
	if (fault)
		now.args.pgmap_owner = page_pgmap(fault)->owner;
	if (vram >= 0)
		now.args.flags |= MIGRATE_VMA_SELECT_SYSTEM;
	now.by_range = true;
	now.pages = (end - start) / PAGE_SIZE;
	now.args.vma = find_vma_intersection(k_mm(), start, start + 1);
	if (!now.args.vma || now.args.vma->vm_end < end)
		return -EINVAL;
	if (migrate_vma_setup(&now.args))
		return -EBUSY;
	for (i = 0; i < now.pages && vram < 0; i++)
		now.src[i] = migrate_pfn_to_page(now.src[i]) ? now.src[i] : 0;
	if (!fault)
		say("collects", letter);
	for (i = 0; i < now.pages; i++)
		now.dst[i] = place_for(now.src[i], vram, start + i * PAGE_SIZE);
	return 0;
}

/* The process' memory is locked for reading, up to the end. */
void k_vram_begin(unsigned long start, unsigned long end, int vram)
{
	int err;

	mmap_read_lock(k_mm());
	err = begin(start, end, vram, NULL);
	if (!err)
		return;
	now.pages = 0;
	kface_said("refused", find_vma_intersection(k_mm(), start, start + 1) ? "an area ends there" : "no area");
	mmap_read_unlock(k_mm());
}

static void mark(void)
{
	unsigned long i;

	for (i = 0; i < now.pages; i++) {
		struct page *page = migrate_pfn_to_page(now.dst[i]);

		if (now.src[i] & MIGRATE_PFN_MIGRATE && page && is_device_private_page(page))
			vram_of(page)->in_use[index_in(vram_of(page), page)] = true;
	}
}

static void commit(void)
{
	if (now.by_range)
		migrate_vma_pages(&now.args);
	else
		migrate_device_pages(now.src, now.dst, now.pages);
	mark();
}

void k_vram_commit(void)
{
	if (!now.pages)
		return;
	commit();
	say("moves", moved);
}

void k_vram_end(void)
{
	if (!now.pages)
		return;
	if (now.by_range)
		migrate_vma_finalize(&now.args);
	else
		migrate_device_finalize(now.src, now.dst, now.pages);
	if (now.by_range)
		mmap_read_unlock(k_mm());
	now.pages = 0;
}

void k_vram_back(unsigned long start, unsigned long end)
{
	k_vram_begin(start, end, -1);
	k_vram_commit();
	k_vram_end();
}

void k_vram_evict(int vram)
{
	unsigned long i;

	now.by_range = false;
	now.pages = K_BLOCK_PAGES;
	migrate_device_range(now.src, PHYS_PFN(vrams[vram].map.range.start), now.pages);
	say("collects", letter);
	for (i = 0; i < now.pages; i++)
		now.dst[i] = place_for(now.src[i], -1, 0);
	k_vram_commit();
	k_vram_end();
}

/* A CPU came to a page of VRAM: it alone migrates back, even if a migration of others is under way. */
static vm_fault_t to_ram(struct vm_fault *vmf)
{
	static const char *const asked[] = { "vram0 is asked for page", "vram1 is asked for page", "vram2 is asked for page" };
	unsigned long addr = vmf->address & PAGE_MASK;
	typeof(now) under_way = now;

	kface_said_number(asked[vram_of(vmf->page) - vrams], index_in(vram_of(vmf->page), vmf->page));
	if (!begin(addr, addr + PAGE_SIZE, -1, vmf->page)) {
		commit();
		migrate_vma_finalize(&now.args);
	}
	now = under_way;
	return 0;
}

/* What never held a page of the process is nobody's to know. */
static void page_freed(struct folio *folio)
{
	struct vram *vram = vram_of(&folio->page);
	int index = index_in(vram, &folio->page);

	if (vram->in_use[index])
		kface_said_freed(vram - vrams, index);
	vram->in_use[index] = false;
}

static const struct dev_pagemap_ops ops = { .folio_free = page_freed, .migrate_to_ram = to_ram };

void k_vrams_new(void)
{
	int i;

	for (i = 0; i < K_VRAMS; i++) {
		struct resource *region = devm_request_free_mem_region(&device, NULL, REGION);

		vrams[i].bytes = k_must_alloc(K_BLOCK_PAGES * PAGE_SIZE);
		vrams[i].map.type = MEMORY_DEVICE_PRIVATE;
		vrams[i].map.range.start = region->start;
		vrams[i].map.range.end = region->end;
		vrams[i].map.nr_range = 1;
		vrams[i].map.ops = &ops;
		vrams[i].map.owner = k_vram_owner(i);
		if (IS_ERR(devm_memremap_pages(&device, &vrams[i].map)))
			kface_give_up("device memory gets no page structures");
	}
}
