// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The promises of the process' memory, case by case (cases/memory.txt): what the tree's own migrate_device, hmm and mmu_notifier
 * say over the glue. An answer that stands otherwise in the table is a lie of the glue, or the table's, or news of that tree.
 */
#include <linux/hmm.h>
#include <linux/mmu_notifier.h>
#include "k_vram.h"

#define BLOCK_END (K_BLOCK_START + K_BLOCK_PAGES * PAGE_SIZE)

static struct page *pins[K_BLOCK_PAGES], *held;
static struct mmu_interval_notifier ours;
static unsigned long looked;
static bool playing;

static unsigned long address(int page)
{
	return K_BLOCK_START + page * PAGE_SIZE;
}

static bool changes(struct mmu_interval_notifier *of, const struct mmu_notifier_range *range, unsigned long seq)
{
	mmu_interval_set_seq(of, seq);
	return true;
}

static const struct mmu_interval_notifier_ops ops = { .invalidate = changes };

/* What pages of a range were when the kernel told that they change. */
void k_memory_notice(const char *kind, const struct mmu_notifier_range *range)
{
	char places[K_BLOCK_PAGES + 1];
	unsigned long addr = max(range->start, K_BLOCK_START), end = min(range->end, BLOCK_END);
	int i = 0;

	if (!playing)
		return;
	for (; addr < end; addr += PAGE_SIZE)
		places[i++] = k_vram_place(addr);
	places[i] = 0;
	kface_said_notice(kind, range->start, range->end, places);
}

/* In a task of its own: a migration may be under way, and has the process' memory locked. */
static void access(void *arg)
{
	struct kface_step *step = arg;
	unsigned char *byte;

	if (k_cpu_access(address(step->first), step->write, &byte))
		kface_said("signal", "SEGV");
	else if (step->write)
		*(u64 *)byte = step->number;
	else
		kface_said_number("value", *(u64 *)byte);
}

static struct page *page_of(int page)
{
	unsigned long pfn;
	int what = k_page_is(address(page), &pfn);

	if (what == 'n')
		kface_give_up("a page that is not there is held");
	return pfn_to_page(pfn);
}

static void pin(int page)
{
	unsigned char *byte;

	if (k_cpu_access(address(page), true, &byte))
		kface_give_up("a page cannot be written and is to be pinned");
	pins[page] = page_of(page);
	get_page(pins[page]);
}

static void hold(int page)
{
	held = page_of(page);
	get_page(held);
}

static void end(void)
{
	k_vram_end();
	if (held)
		put_page(held);
	held = NULL;
}

static int look_once(struct hmm_range *range)
{
	int err;

	mmap_read_lock(k_mm());
	err = hmm_range_fault(range);
	mmap_read_unlock(k_mm());
	return err;
}

static void tell_walk(const struct kface_step *step, int err, const unsigned long *pfns)
{
	char shows[K_BLOCK_PAGES + 1], writes[K_BLOCK_PAGES + 1];
	int i;

	if (err) {
		kface_said("answer", err == -EBUSY ? "EBUSY" : err == -EPERM ? "EPERM" : err == -EFAULT ? "EFAULT" : "other");
		return;
	}
	for (i = 0; i < step->pages; i++) {
		shows[i] = pfns[i] & HMM_PFN_VALID ? k_vram_place(address(step->first + i)) : '.';
		writes[i] = pfns[i] & HMM_PFN_WRITE ? '+' : '-';
	}
	shows[i] = writes[i] = 0;
	kface_said("shows", shows);
	kface_said("lets write", writes);
}

static void walk(const struct kface_step *step)
{
	unsigned long pfns[K_BLOCK_PAGES] = {};
	struct hmm_range range = { .notifier = &ours, .start = address(step->first),
				   .end = address(step->first + step->pages), .hmm_pfns = pfns,
				   .dev_private_owner = k_vram_owner(step->vram) };
	int err;

	range.default_flags = (step->fault ? HMM_PFN_REQ_FAULT : 0) | (step->write ? HMM_PFN_REQ_WRITE : 0);
	do {
		range.notifier_seq = step->since ? looked : mmu_interval_read_begin(&ours);
		err = look_once(&range);
	} while (err == -EBUSY && !step->since);
	tell_walk(step, err, pfns);
}

static void migrate(unsigned long first, unsigned long behind, int vram)
{
	k_vram_begin(first, behind, vram);
	k_vram_commit();
	k_vram_end();
}

static void perform(struct kface_step *step)
{
	unsigned long first = address(step->first), behind = address(step->first + step->pages);

	switch (step->what) {
	case KFACE_DO_MAP: return k_vma_add(first, behind);
	case KFACE_DO_UNMAP: return k_munmap(first, behind);
	case KFACE_DO_PROTECT: return k_mprotect(first, behind, step->write);
	case KFACE_DO_DONTNEED: return k_dontneed(first, behind);
	case KFACE_DO_CPU: return k_join(k_spawn("cpu", access, step));
	case KFACE_DO_PIN: return pin(step->first);
	case KFACE_DO_UNPIN: return put_page(pins[step->first]);
	case KFACE_DO_MIGRATE: return migrate(first, behind, step->vram);
	case KFACE_DO_BEGIN: return k_vram_begin(first, behind, step->vram);
	case KFACE_DO_HOLD: return hold(step->first);
	case KFACE_DO_COMMIT: return k_vram_commit();
	case KFACE_DO_END: return end();
	case KFACE_DO_BACK: return k_vram_back(first, behind);
	case KFACE_DO_EVICT: return k_vram_evict(step->vram);
	case KFACE_DO_LOOK: looked = mmu_interval_read_begin(&ours); return;
	case KFACE_DO_WALK: return walk(step);
	default: kface_give_up("a step that the scene does not know");
	}
}

static void tell_state(void)
{
	struct vm_area_struct *area;
	unsigned long addr;

	for (addr = K_BLOCK_START; addr < BLOCK_END; addr += PAGE_SIZE)
		kface_is_page(k_vram_place(addr), k_page_writable(addr));
	for (addr = K_BLOCK_START; (area = find_vma_intersection(k_mm(), addr, BLOCK_END)); addr = area->vm_end)
		kface_is_area(area->vm_start, area->vm_end, !!(area->vm_flags & VM_WRITE));
}

static void play(long tiles)
{
	struct kface_step step;

	k_vrams_new();
	if (mmu_interval_notifier_insert(&ours, k_mm(), K_BLOCK_START, K_BLOCK_PAGES * PAGE_SIZE, &ops))
		kface_give_up("a notifier cannot be inserted");
	playing = true;
	k_runs_begin();
	while (kface_step(&step)) {
		perform(&step);
		tell_state();
		kface_step_done();
	}
	kface_reached("a case was played to its end");
}

const struct k_scene k_scene_memory = { "memory", play };
