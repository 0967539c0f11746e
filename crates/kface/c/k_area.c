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

/* What mprotect changes is no matter for whose pages an area has. */
static struct anon_vma *family_of(struct vm_area_struct *area, vm_flags_t flags)
{
	return area && !((area->vm_flags ^ flags) & ~VM_ACCESS_FLAGS) ? area->anon_vma : NULL;
}

/* An area gets its first page: it is one of a neighbour's family, the later one's first, or begins its own. */
int __anon_vma_prepare(struct vm_area_struct *area)
{
	struct vm_area_struct *behind = find_vma_intersection(k_mm(), area->vm_end, area->vm_end + 1);
	struct vm_area_struct *before = find_vma_intersection(k_mm(), area->vm_start - 1, area->vm_start);

	area->anon_vma = family_of(behind, area->vm_flags) ?: family_of(before, area->vm_flags);
	if (!area->anon_vma) {
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
static bool are_one(struct vm_area_struct *area, struct vm_area_struct *next)
{
	return area->vm_end == next->vm_start && area->vm_flags == next->vm_flags &&
	       (!area->anon_vma || !next->anon_vma || area->anon_vma == next->anon_vma);
}

/* Makes one of those in a range and around it. */
void k_area_merge(unsigned long start, unsigned long end)
{
	struct vm_area_struct *area = find_vma_intersection(k_mm(), start - 1, end + 1), *next;

	while (area && area->vm_end <= end && (next = find_vma_intersection(k_mm(), area->vm_end, end + 1))) {
		if (!are_one(area, next)) {
			area = next;
			continue;
		}
		area->anon_vma = area->anon_vma ?: next->anon_vma;
		area_is(area, area->vm_start, next->vm_end);
		k_area_gone(next);
	}
}

void k_vma_add(unsigned long start, unsigned long end)
{
	mmap_write_lock(k_mm());
	area_new(start, end, VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE, NULL);
	k_area_merge(start, end);
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
