// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * A child of the process: entries of its own for some pages, made by a fork. Both have the same pages from then on, and may read them; who
 * writes has a copy first. The child's CPU does nothing; at the end somebody looks at what it would read.
 */
#include <linux/hugetlb.h>
#include <linux/swap.h>
#include <linux/leafops.h>
#include <linux/mmu_notifier.h>
#include <linux/rmap.h>
#include "k_area.h"

#define CHILD_PAGES 16

static pte_t entries[CHILD_PAGES];
static unsigned long first;
static int pages;

pte_t *k_child_entry(unsigned long addr)
{
	return addr >= first && addr - first < pages * PAGE_SIZE ? &entries[(addr - first) >> PAGE_SHIFT] : NULL;
}

/* One that moves has no mapping to count: whoever moves it makes both. */
static void share_moving(pte_t *from, pte_t *to, softleaf_t leaf)
{
	kface_reached("the process forked while a page moved");
	set_pte(from, swp_entry_to_pte(make_readable_migration_entry(softleaf_to_pfn(leaf))));
	set_pte(to, *from);
}

/* One page becomes both's, and nobody's to write. */
static void share(pte_t *from, pte_t *to)
{
	struct page *page;

	if (pte_none(*from))
		return;
	if (pte_present(*from)) {
		page = pfn_to_page(pte_pfn(*from));
		set_pte(from, pte_wrprotect(*from));
	} else {
		softleaf_t leaf = softleaf_from_pte(*from);

		if (!softleaf_is_device_private(leaf)) {
			share_moving(from, to, leaf);
			return;
		}
		kface_reached("the process forked while a page was in VRAM");
		page = softleaf_to_page(leaf);
		set_pte(from, swp_entry_to_pte(make_readable_device_private_entry(softleaf_to_pfn(leaf))));
	}
	get_page(page);
	atomic_inc(&page->_mapcount);
	ClearPageAnonExclusive(page);
	set_pte(to, *from);
}

/* As fork(2): the memory is locked for writing, the notice goes out first. */
void k_fork(unsigned long start, int count, void (*shared)(unsigned long addr))
{
	struct mmu_notifier_range range;
	int i;

	if (count > CHILD_PAGES)
		kface_give_up("a child has more pages than there is room for");
	mmap_write_lock(k_mm());
	mmu_notifier_range_init(&range, MMU_NOTIFY_PROTECTION_PAGE, 0, k_mm(), start, start + count * PAGE_SIZE);
	k_notice(&range);
	first = start;
	pages = count;
	for (i = 0; i < count; i++) {
		spin_lock(k_tables_lock());
		share(k_entry(start + i * PAGE_SIZE), &entries[i]);
		if (shared)
			shared(start + i * PAGE_SIZE);
		spin_unlock(k_tables_lock());
	}
	mmu_notifier_invalidate_range_end(&range);
	mmap_write_unlock(k_mm());
}

/* The page that the child has, where its CPU reads it without a fault. */
void *k_child_page(unsigned long addr)
{
	pte_t *pte = k_child_entry(addr);

	return pte && pte_present(*pte) ? page_address(pfn_to_page(pte_pfn(*pte))) : NULL;
}

/* A write to a page that may not be written: it is the process' alone, or a copy is. The page tables are locked, and unlocked on return. */
vm_fault_t k_fault_shared(struct vm_area_struct *vma, unsigned long addr, pte_t *pte)
{
	struct page *old = pfn_to_page(pte_pfn(*pte)), *new, *unused;
	struct mmu_notifier_range range;
	pte_t seen = *pte;

	addr &= PAGE_MASK;
	if (PageAnonExclusive(old) || !atomic_read(&old->_mapcount)) {
		SetPageAnonExclusive(old);
		set_pte(pte, pte_mkwrite(pte_mkdirty(*pte), vma));
		spin_unlock(k_tables_lock());
		return 0;
	}
	get_page(old);
	spin_unlock(k_tables_lock());
	new = k_page_new();
	if (!new) {
		put_page(old);
		return VM_FAULT_OOM;
	}
	memcpy(page_address(new), page_address(old), PAGE_SIZE);
	__folio_mark_uptodate(page_folio(new));
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, k_mm(), addr, addr + PAGE_SIZE);
	k_notice(&range);
	spin_lock(k_tables_lock());
	unused = new;
	if (pte_same(*pte, seen)) {
		folio_remove_rmap_pte(page_folio(old), old, vma);
		k_map_new(vma, addr, pte, new);
		unused = old;
	}
	spin_unlock(k_tables_lock());
	mmu_notifier_invalidate_range_end(&range);
	put_page(unused);
	put_page(old);
	return 0;
}
