// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The areas of the process: where memory is, with which rights, and of which family its pages are. */
#include <linux/rmap.h>
#include "k_area.h"

#define AREAS 16

static struct vm_area_struct *areas[AREAS];
/* Whose pages an area has: only the address of one is looked at. */
#define NAMES 32
static struct { long unused[4]; } names[NAMES];
static int named;

struct vm_area_struct *find_vma_intersection(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	struct vm_area_struct *first = NULL;
	int i;

	for (i = 0; i < AREAS; i++) {
		struct vm_area_struct *area = areas[i];

		if (area && area->vm_end > start && area->vm_start < end && (!first || area->vm_start < first->vm_start))
			first = area;
	}
	return first;
}

struct vm_area_struct *find_vma(struct mm_struct *mm, unsigned long addr)
{
	return find_vma_intersection(mm, addr, ULONG_MAX);
}

/* The tree that the kernel keeps areas in is asked for them by inline code only. */
void *mtree_load(struct maple_tree *tree, unsigned long addr)
{
	if (tree != &k_mm()->mm_mt)
		kface_give_up("a maple tree that is not the process' is asked");
	return find_vma_intersection(k_mm(), addr, addr + 1);
}

static void area_is(struct vm_area_struct *area, unsigned long start, unsigned long end)
{
	area->vm_start = start;
	area->vm_end = end;
	area->vm_pgoff = start >> PAGE_SHIFT;
}

static struct vm_area_struct *area_new(unsigned long start, unsigned long end, vm_flags_t flags, struct anon_vma *anon)
{
	int i;

	for (i = 0; i < AREAS && areas[i]; i++)
		;
	if (i == AREAS)
		kface_give_up("more areas than the glue has room for");
	areas[i] = k_must_alloc(sizeof(*areas[i]));
	areas[i]->vm_mm = k_mm();
	vm_flags_init(areas[i], flags);
	areas[i]->vm_page_prot = PAGE_SHARED;
	areas[i]->anon_vma = anon;
	area_is(areas[i], start, end);
	return areas[i];
}

/* The area that ends at `addr`, or that begins there, if its rights are these. */
static struct vm_area_struct *neighbour(unsigned long addr, bool ends, vm_flags_t flags)
{
	struct vm_area_struct *area = find_vma_intersection(k_mm(), ends ? addr - 1 : addr, ends ? addr : addr + 1);

	return area && area->vm_flags == flags && (ends ? area->vm_end : area->vm_start) == addr ? area : NULL;
}

/* An area gets its first page: it is one of a neighbour's family, the later one's first, or begins its own. */
int __anon_vma_prepare(struct vm_area_struct *area)
{
	struct vm_area_struct *behind = neighbour(area->vm_end, false, area->vm_flags);
	struct vm_area_struct *before = neighbour(area->vm_start, true, area->vm_flags);

	if (behind && behind->anon_vma) {
		area->anon_vma = behind->anon_vma;
	} else if (before && before->anon_vma) {
		area->anon_vma = before->anon_vma;
	} else {
		if (named == NAMES)
			kface_give_up("more families of pages than the glue has room for");
		area->anon_vma = (void *)&names[named++];
	}
	return 0;
}

void k_area_gone(struct vm_area_struct *area)
{
	int i;

	for (i = 0; i < AREAS; i++)
		areas[i] = areas[i] == area ? NULL : areas[i];
}

/* Neighbours that agree are one area, as in the kernel; those whose pages are of two families stay two. */
void k_vma_add(unsigned long start, unsigned long end)
{
	vm_flags_t flags = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE;
	struct vm_area_struct *before, *behind;
	struct anon_vma *anon = NULL;

	mmap_write_lock(k_mm());
	before = neighbour(start, true, flags);
	behind = neighbour(end, false, flags);
	if (before && behind && before->anon_vma && behind->anon_vma && before->anon_vma != behind->anon_vma)
		behind = NULL;
	if (behind) {
		end = behind->vm_end;
		anon = behind->anon_vma;
		k_area_gone(behind);
	}
	if (before) {
		area_is(before, before->vm_start, end);
		before->anon_vma = before->anon_vma ?: anon;
	} else {
		area_new(start, end, flags, anon);
	}
	mmap_write_unlock(k_mm());
}

/* What lies before `start` and behind `end` becomes areas of their own. */
void k_area_split(struct vm_area_struct *area, unsigned long start, unsigned long end)
{
	unsigned long from = area->vm_start, behind = area->vm_end;

	if (from < start)
		area_new(from, start, area->vm_flags, area->anon_vma);
	if (end < behind)
		area_new(end, behind, area->vm_flags, area->anon_vma);
	area_is(area, max(from, start), min(behind, end));
}
