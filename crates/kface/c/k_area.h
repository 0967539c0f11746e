/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
#ifndef KFACE_K_AREA_H
#define KFACE_K_AREA_H

#include "k.h"

/* mm/internal.h, which is not for others. */
int __anon_vma_prepare(struct vm_area_struct *area);

void k_area_split(struct vm_area_struct *area, unsigned long start, unsigned long end);
void k_area_merge(unsigned long start, unsigned long end);
void k_area_gone(struct vm_area_struct *area);

#endif
