/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* The smallest driver: three VRAMs of a block's pages each, the last one another owner's, and migrations there and back. */
#ifndef KFACE_K_VRAM_H
#define KFACE_K_VRAM_H

#include "k.h"

#define K_VRAMS 3
#define K_BLOCK_PAGES 16
#define K_BLOCK_START 0x7f0000000000UL

void k_vrams_new(void);
/* Whose pages those of a VRAM are; of none: nobody's. */
void *k_vram_owner(int vram);
/* As k_page_is(), with the VRAM's number for a page of one, and a dot for nothing. */
int k_vram_place(unsigned long addr);
/* A page of the block goes to the page of the same number in VRAM. What is collected, and what moves, is said. */
void k_vram_begin(unsigned long start, unsigned long end, int vram);
void k_vram_commit(void);
void k_vram_end(void);
void k_vram_back(unsigned long start, unsigned long end);
void k_vram_evict(int vram);

#endif
