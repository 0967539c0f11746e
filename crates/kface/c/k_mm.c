// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The memory of one process. Its page tables are real ones, in pages of k_mem.c; the tree's own hmm, pagewalk, migrate_device,
 * memremap and mmu_notifier work on them. Here is what lies around these: faults of the CPU, munmap, mprotect, and the reverse
 * map, which for anonymous memory of one process is the page's index.
 */
#include <linux/hugetlb.h>
#include <linux/swap.h>
#include <linux/leafops.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include "k_area.h"

struct mm_struct init_mm;
static struct mm_struct *mm;
struct mm_struct *k_mm(void)
{
	return mm;
}

struct mm_struct *mm_alloc(void)
{
	struct mm_struct *made = kzalloc(sizeof(*made) + PAGE_SIZE, GFP_KERNEL);

	atomic_set(&made->mm_users, 1);
	atomic_set(&made->mm_count, 1);
	init_rwsem(&made->mmap_lock);
	spin_lock_init(&made->page_table_lock);
	made->pgd = page_address(k_page_new());
	made->task_size = TASK_SIZE_MAX;
	return made;
}

void k_mm_init(void)
{
	mm = mm_alloc();
}

/* Page tables: made as they are needed, never given back. */
static unsigned long table(void)
{
	return __pa(page_address(k_page_new()));
}

pte_t *k_entry(unsigned long addr)
{
	p4d_t *p4d = p4d_offset(pgd_offset(mm, addr), addr);
	pud_t *pud;
	pmd_t *pmd;

	if (p4d_none(*p4d))
		set_p4d(p4d, __p4d(_PAGE_TABLE | table()));
	pud = pud_offset(p4d, addr);
	if (pud_none(*pud))
		set_pud(pud, __pud(_PAGE_TABLE | table()));
	pmd = pmd_offset(pud, addr);
	if (pmd_none(*pmd))
		set_pmd(pmd, __pmd(_PAGE_TABLE | table()));
	return pte_offset_kernel(pmd, addr);
}

/* The lock of page tables. */
spinlock_t *k_tables_lock(void)
{
	/* With so few CPUs there is one. */
	BUILD_BUG_ON(IS_ENABLED(CONFIG_SPLIT_PTE_PTLOCKS));
	return &mm->page_table_lock;
}

pte_t pte_mkwrite(pte_t pte, struct vm_area_struct *vma)
{
	return pte_mkwrite_novma(pte);
}

struct page *vm_normal_page(struct vm_area_struct *vma, unsigned long addr, pte_t pte)
{
	return is_zero_pfn(pte_pfn(pte)) ? NULL : pfn_to_page(pte_pfn(pte));
}

/* The reverse map. */
void folio_add_new_anon_rmap(struct folio *folio, struct vm_area_struct *vma, unsigned long addr, rmap_t flags)
{
	folio->mapping = (void *)((unsigned long)vma->anon_vma | FOLIO_MAPPING_ANON);
	folio->index = linear_page_index(vma, addr);
	atomic_set(&folio->_mapcount, 0);
	SetPageAnonExclusive(&folio->page);
	if (!folio_is_zone_device(folio))
		__folio_set_swapbacked(folio);
}

void folio_remove_rmap_ptes(struct folio *folio, struct page *page, int pages, struct vm_area_struct *vma)
{
	atomic_dec(&page->_mapcount);
}

static pte_t mapping_of(struct folio *folio, struct vm_area_struct *vma, bool write)
{
	unsigned long pfn = folio_pfn(folio);
	pte_t pte;

	if (folio_is_device_private(folio))
		return swp_entry_to_pte(write ? make_writable_device_private_entry(pfn)
					      : make_readable_device_private_entry(pfn));
	pte = pte_mkdirty(pfn_pte(pfn, vma->vm_page_prot));
	return write ? pte_mkwrite(pte, vma) : pte_wrprotect(pte);
}

static void map_again(pte_t *pte, struct folio *from, struct folio *to, struct vm_area_struct *vma)
{
	softleaf_t leaf = softleaf_from_pte(*pte);

	if (pte_none(*pte) || pte_present(*pte) || !softleaf_is_migration(leaf) || softleaf_to_pfn(leaf) != folio_pfn(from))
		return;
	folio_get(to);
	atomic_inc(&to->_mapcount);
	if (!softleaf_is_migration_read(leaf))
		SetPageAnonExclusive(&to->page);
	set_pte(pte, mapping_of(to, vma, softleaf_is_migration_write(leaf)));
}

void remove_migration_ptes(struct folio *from, struct folio *to, enum ttu_flags flags)
{
	unsigned long addr = from->index << PAGE_SHIFT;
	struct vm_area_struct *vma = find_vma_intersection(mm, addr, addr + 1);

	if (!vma)
		return;
	spin_lock(k_tables_lock());
	map_again(k_entry(addr), from, to, vma);
	if (k_child_entry(addr))
		map_again(k_child_entry(addr), from, to, vma);
	spin_unlock(k_tables_lock());
}

/* Whether an entry, which is not a migration's, leads to this folio. */
static bool leads_to(pte_t pte, struct folio *folio)
{
	softleaf_t leaf;

	if (pte_none(pte) || pte_present(pte))
		return !pte_none(pte) && pte_pfn(pte) == folio_pfn(folio);
	leaf = softleaf_from_pte(pte);
	return !softleaf_is_migration(leaf) && softleaf_to_pfn(leaf) == folio_pfn(folio);
}

/* A notice that goes out while a fault is served is what the engine's checks are for. */
void k_notice(struct mmu_notifier_range *range)
{
	if (k_faults_served())
		kface_reached("memory changed while a fault was served");
	mmu_notifier_invalidate_range_start(range);
}

static void unmap_for_migration(pte_t *pte, struct folio *folio, bool exclusive, struct vm_area_struct *vma)
{
	unsigned long pfn = folio_pfn(folio);
	softleaf_t leaf;
	bool write;

	if (!leads_to(*pte, folio))
		return;
	write = pte_present(*pte) ? pte_write(*pte) : softleaf_is_device_private_write(softleaf_from_pte(*pte));
	leaf = write ? make_writable_migration_entry(pfn)
		     : exclusive ? make_readable_exclusive_migration_entry(pfn) : make_readable_migration_entry(pfn);
	set_pte(pte, swp_entry_to_pte(leaf));
	folio_remove_rmap_pte(folio, &folio->page, vma);
	folio_put(folio);
}

/* The mappings of a folio, by its index: what eviction by frame needs. */
void try_to_migrate(struct folio *folio, enum ttu_flags flags)
{
	unsigned long addr = folio->index << PAGE_SHIFT;
	struct vm_area_struct *vma = find_vma_intersection(mm, addr, addr + 1);
	struct mmu_notifier_range range;
	bool exclusive;

	if (!vma)
		return;
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, addr, addr + PAGE_SIZE);
	k_notice(&range);
	spin_lock(k_tables_lock());
	exclusive = PageAnonExclusive(&folio->page);
	ClearPageAnonExclusive(&folio->page);
	unmap_for_migration(k_entry(addr), folio, exclusive, vma);
	if (k_child_entry(addr))
		unmap_for_migration(k_child_entry(addr), folio, exclusive, vma);
	spin_unlock(k_tables_lock());
	mmu_notifier_invalidate_range_end(&range);
}

int folio_migrate_mapping(struct address_space *mapping, struct folio *to, struct folio *from, int extra)
{
	if (mapping)
		kface_give_up("a page of a file is migrated");
	if (folio_ref_count(from) != 1 + extra + folio_mapcount(from))
		return -EAGAIN;
	to->index = from->index;
	to->mapping = from->mapping;
	if (folio_test_swapbacked(from) && !folio_is_zone_device(to))
		__folio_set_swapbacked(to);
	return 0;
}

void folio_migrate_flags(struct folio *to, struct folio *from)
{
	if (folio_test_uptodate(from))
		__folio_mark_uptodate(to);
	if (folio_test_dirty(from))
		folio_set_dirty(to);
}

struct address_space *folio_mapping(const struct folio *folio)
{
	return folio_test_anon(folio) ? NULL : folio->mapping;
}

bool folio_mark_dirty(struct folio *folio)
{
	return !folio_test_set_dirty(folio);
}

/* The lists of pages: one that is on them can be taken off them. */
bool folio_isolate_lru(struct folio *folio)
{
	if (!folio_test_clear_lru(folio))
		return false;
	folio_get(folio);
	return true;
}

void folio_putback_lru(struct folio *folio)
{
	folio_set_lru(folio);
	folio_put(folio);
}

void folio_add_lru(struct folio *folio) { folio_set_lru(folio); }
void folio_add_lru_vma(struct folio *folio, struct vm_area_struct *vma) { folio_set_lru(folio); }
void lru_add_drain(void) { }
void lru_add_drain_all(void) { }

void folio_unlock(struct folio *folio)
{
	clear_bit_unlock(PG_locked, folio_flags(folio, 0));
	k_wake(folio);
}

void unlock_page(struct page *page)
{
	folio_unlock(page_folio(page));
}

void __folio_lock(struct folio *folio)
{
	while (!folio_trylock(folio))
		k_block(folio, "a locked page");
}

/* Waits while the page behind an entry is locked, by whoever moves it. The page tables are locked. */
static void wait_on_locked(struct page *page)
{
	struct folio *folio = page_folio(page);

	spin_unlock(k_tables_lock());
	kface_reached("a fault waited for a page that moves");
	if (folio_test_locked(folio))
		k_block(folio, "a page that moves");
}

void migration_entry_wait(struct mm_struct *of, pmd_t *pmd, unsigned long addr)
{
	pte_t *pte = k_entry(addr);

	spin_lock(k_tables_lock());
	if (!pte_none(*pte) && !pte_present(*pte) && softleaf_is_migration(softleaf_from_pte(*pte)))
		wait_on_locked(softleaf_to_page(softleaf_from_pte(*pte)));
	else
		spin_unlock(k_tables_lock());
}

void folio_copy(struct folio *to, struct folio *from)
{
	memcpy(folio_address(to), folio_address(from), folio_size(from));
}

/* Faults of the CPU, and of those who fault on its behalf. The page tables are locked, and unlocked on return. */
static vm_fault_t fault_device_page(struct vm_area_struct *vma, unsigned long addr, pte_t *pte, unsigned int flags)
{
	struct page *page = softleaf_to_page(softleaf_from_pte(*pte));
	struct vm_fault vmf = { .vma = vma, .address = addr & PAGE_MASK, .real_address = addr, .flags = flags };
	vm_fault_t result;

	vmf.page = page;
	vmf.orig_pte = *pte;
	if (!trylock_page(page)) {
		wait_on_locked(page);
		return 0;
	}
	get_page(page);
	spin_unlock(k_tables_lock());
	kface_reached("a CPU fault migrated a page back");
	result = page_pgmap(page)->ops->migrate_to_ram(&vmf);
	unlock_page(page);
	put_page(page);
	return result;
}

void k_map_new(struct vm_area_struct *vma, unsigned long addr, pte_t *pte, struct page *page)
{
	folio_add_new_anon_rmap(page_folio(page), vma, addr, RMAP_EXCLUSIVE);
	folio_add_lru_vma(page_folio(page), vma);
	set_pte(pte, mapping_of(page_folio(page), vma, vma->vm_flags & VM_WRITE));
}

static vm_fault_t fault_hole(struct vm_area_struct *vma, unsigned long addr, pte_t *pte)
{
	struct page *page = k_page_new();

	if (!page || (!vma->anon_vma && __anon_vma_prepare(vma)))
		return VM_FAULT_OOM;
	__folio_mark_uptodate(page_folio(page));
	spin_lock(k_tables_lock());
	if (!pte_none(*pte)) {
		spin_unlock(k_tables_lock());
		put_page(page);
		return 0;
	}
	k_map_new(vma, addr, pte, page);
	spin_unlock(k_tables_lock());
	return 0;
}

vm_fault_t handle_mm_fault(struct vm_area_struct *vma, unsigned long addr, unsigned int flags, struct pt_regs *regs)
{
	pte_t *pte = k_entry(addr);

	spin_lock(k_tables_lock());
	if (pte_present(*pte)) {
		if (flags & FAULT_FLAG_WRITE && vma->vm_flags & VM_WRITE)
			return k_fault_shared(vma, addr, pte);
		spin_unlock(k_tables_lock());
		return 0;
	}
	if (pte_none(*pte)) {
		spin_unlock(k_tables_lock());
		return fault_hole(vma, addr, pte);
	}
	if (softleaf_is_device_private(softleaf_from_pte(*pte)))
		return fault_device_page(vma, addr, pte, flags);
	wait_on_locked(softleaf_to_page(softleaf_from_pte(*pte)));
	return 0;
}

/* The program's CPU: the byte at an address, in the page that its page tables lead to. */
int k_cpu_access(unsigned long addr, bool write, unsigned char **byte)
{
	unsigned int flags = FAULT_FLAG_USER | (write ? FAULT_FLAG_WRITE : 0);
	int tries;

	for (tries = 0; tries < 32; tries++) {
		struct vm_area_struct *vma;
		vm_fault_t result;
		pte_t *pte = k_entry(addr);

		if (pte_present(*pte) && (!write || pte_write(*pte))) {
			*byte = (unsigned char *)page_address(pfn_to_page(pte_pfn(*pte))) + offset_in_page(addr);
			return 0;
		}
		mmap_read_lock(mm);
		vma = find_vma_intersection(mm, addr, addr + 1);
		if (vma && vma->vm_flags & (write ? VM_WRITE : VM_READ))
			result = handle_mm_fault(vma, addr, flags, NULL);
		else
			result = VM_FAULT_SIGSEGV;
		mmap_read_unlock(mm);
		if (result & VM_FAULT_ERROR)
			return -EFAULT;
		/* Others that were in the way get somewhere until the program is back at its access. */
		if (!pte_present(*pte))
			k_yield();
	}
	return -EBUSY;
}

int k_cpu_touch(unsigned long addr, unsigned char **byte)
{
	return k_cpu_access(addr, false, byte);
}

bool k_page_writable(unsigned long addr)
{
	pte_t *pte = k_entry(addr);

	if (pte_none(*pte) || pte_present(*pte))
		return !pte_none(*pte) && pte_write(*pte);
	return softleaf_is_device_private_write(softleaf_from_pte(*pte));
}

int k_page_is(unsigned long addr, unsigned long *pfn)
{
	pte_t *pte = k_entry(addr);

	if (pte_none(*pte))
		return 'n';
	if (pte_present(*pte)) {
		*pfn = pte_pfn(*pte);
		return 'r';
	}
	*pfn = softleaf_to_pfn(softleaf_from_pte(*pte));
	return softleaf_is_device_private(softleaf_from_pte(*pte)) ? 'd' : 'm';
}

/* Changes of mappings, each told as the kernel tells it: the area first, then the notice, then the entries. */
static void zap(unsigned long start, unsigned long end)
{
	for (; start < end; start += PAGE_SIZE) {
		pte_t *pte = k_entry(start);
		struct page *page = NULL;
		unsigned long pfn;
		int what;

		spin_lock(k_tables_lock());
		what = k_page_is(start, &pfn);
		set_pte(pte, __pte(0));
		if (what == 'r' || what == 'd') {
			page = pfn_to_page(pfn);
			folio_remove_rmap_pte(page_folio(page), page, NULL);
		}
		spin_unlock(k_tables_lock());
		if (page)
			put_page(page);
	}
}

/* As munmap(2): areas go with the memory locked for writing, their pages with the memory locked for reading, all told of at once. */
void k_munmap(unsigned long start, unsigned long end)
{
	struct mmu_notifier_range range;
	struct vm_area_struct *vma;
	bool any = false;

	mmap_write_lock(mm);
	while ((vma = find_vma_intersection(mm, start, end))) {
		k_area_split(vma, start, end);
		k_area_gone(vma);
		any = true;
	}
	mmap_write_downgrade(mm);
	if (any) {
		mmu_notifier_range_init(&range, MMU_NOTIFY_UNMAP, 0, mm, start, end);
		k_notice(&range);
		zap(start, end);
		mmu_notifier_invalidate_range_end(&range);
	}
	mmap_read_unlock(mm);
}

/* As madvise(2) with MADV_DONTNEED: area by area. */
void k_dontneed(unsigned long start, unsigned long end)
{
	struct mmu_notifier_range range;
	struct vm_area_struct *vma;

	mmap_read_lock(mm);
	for (; (vma = find_vma_intersection(mm, start, end)); start = vma->vm_end) {
		mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, max(start, vma->vm_start), min(end, vma->vm_end));
		k_notice(&range);
		zap(max(start, vma->vm_start), min(end, vma->vm_end));
		mmu_notifier_invalidate_range_end(&range);
	}
	mmap_read_unlock(mm);
}

/* Pages of this process alone may be written again as soon as their area may; one in VRAM, when it is back. */
static void protect_entry(pte_t *pte, struct vm_area_struct *vma, bool write)
{
	softleaf_t leaf;

	if (pte_none(*pte))
		return;
	if (pte_present(*pte)) {
		set_pte(pte, write ? pte_mkwrite(*pte, vma) : pte_wrprotect(*pte));
		return;
	}
	leaf = softleaf_from_pte(*pte);
	if (!write && softleaf_is_device_private_write(leaf))
		set_pte(pte, swp_entry_to_pte(make_readable_device_private_entry(softleaf_to_pfn(leaf))));
}

static void protect_area(struct vm_area_struct *vma, unsigned long start, unsigned long end, bool write)
{
	struct mmu_notifier_range range;
	unsigned long addr;

	mmu_notifier_range_init(&range, MMU_NOTIFY_PROTECTION_VMA, 0, mm, start, end);
	k_notice(&range);
	for (addr = start; addr < end; addr += PAGE_SIZE) {
		spin_lock(k_tables_lock());
		protect_entry(k_entry(addr), vma, write);
		spin_unlock(k_tables_lock());
	}
	mmu_notifier_invalidate_range_end(&range);
}

/* As mprotect(2): area by area, up to where nothing is; one that has these rights already is passed over. */
void k_mprotect(unsigned long start, unsigned long end, bool write)
{
	struct vm_area_struct *vma;
	unsigned long behind;

	mmap_write_lock(mm);
	for (; (vma = find_vma_intersection(mm, start, start + 1)) && start < end; start = behind) {
		vm_flags_t flags = write ? vma->vm_flags | VM_WRITE : vma->vm_flags & ~VM_WRITE;

		behind = min(end, vma->vm_end);
		if (flags == vma->vm_flags)
			continue;
		k_area_split(vma, start, behind);
		vm_flags_reset(vma, flags);
		k_area_merge(start, behind);
		protect_area(find_vma_intersection(mm, start, start + 1), start, behind, write);
	}
	mmap_write_unlock(mm);
}

/* The notifier core wants no walk that is under way while it makes the first of its books. */
int mm_take_all_locks(struct mm_struct *of) { return 0; }
void mm_drop_all_locks(struct mm_struct *of) { }

/* Lives of the process: it does not end while a scene runs. */
void mmput(struct mm_struct *of) { atomic_dec(&of->mm_users); }
void mmput_async(struct mm_struct *of) { atomic_dec(&of->mm_users); }
void __mmdrop(struct mm_struct *of) { }

/* The CPU's own translations are not modelled: it walks at each access. Counters of memory are nobody's. */
void flush_tlb_mm_range(struct mm_struct *of, unsigned long start, unsigned long end, unsigned int shift, bool tables) { }
void mm_trace_rss_stat(struct mm_struct *of, int member) { }
void percpu_counter_add_batch(struct percpu_counter *counter, s64 amount, s32 batch) { }
int percpu_counter_batch = 32;
void __mmap_lock_do_trace_start_locking(struct mm_struct *of, bool write) { }
void __mmap_lock_do_trace_acquire_returned(struct mm_struct *of, bool write, bool success) { }
void __mmap_lock_do_trace_released(struct mm_struct *of, bool write) { }
void mod_node_page_state(struct pglist_data *node, enum node_stat_item item, long delta) { }

/* A file's memory, which only lockdep's priming makes. */
void address_space_init_once(struct address_space *mapping)
{
	memset(mapping, 0, sizeof(*mapping));
	init_rwsem(&mapping->i_mmap_rwsem);
}
