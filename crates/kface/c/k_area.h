/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
#ifndef KFACE_K_AREA_H
#define KFACE_K_AREA_H

#include <linux/mmu_notifier.h>
#include "k.h"

/* mm/internal.h, which is not for others. */
int __anon_vma_prepare(struct vm_area_struct *area);

void k_area_split(struct vm_area_struct *area, unsigned long start, unsigned long end);
void k_area_merge(unsigned long start, unsigned long end);
void k_area_gone(struct vm_area_struct *area);

/* k_mm.c: the entry of an address, the lock of all of them, a notice; a page that nobody has is mapped there, with the area's rights. */
pte_t *k_entry(unsigned long addr);
spinlock_t *k_tables_lock(void);
void k_notice(struct mmu_notifier_range *range);
void k_map_new(struct vm_area_struct *vma, unsigned long addr, pte_t *pte, struct page *page);

/* k_fork.c: the child's entry of an address, if there is one; a write to a page that a child has, too. */
pte_t *k_child_entry(unsigned long addr);
vm_fault_t k_fault_shared(struct vm_area_struct *vma, unsigned long addr, pte_t *pte);

#endif
