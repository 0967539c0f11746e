/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What scenes share: memory with a pattern, faults of the GPU, where pages are, and whether their bytes are still there. */
#ifndef KFACE_K_SCENE_H
#define KFACE_K_SCENE_H

#include "k_xe.h"

#define K_PAGES 16
#define K_BLOCK 0x7f0000000000UL

struct k_stage {
	struct xe_device *xe;
	struct xe_vm *vm;
};

/* A device, a process with one block of memory, each page written by the CPU, and a VM that mirrors the process. */
void k_stage_new(struct k_stage *stage, int tiles, bool needs_64k);
/* A fault of an access of a tile, told with what the handler said. */
int k_stage_fault(struct k_stage *stage, int tile, unsigned long addr, const char *step);
/* A read of each page by a tile, through its page tables; told: how many the tile could read, how many held their bytes. */
void k_stage_read_by_tile(struct k_stage *stage, int tile, unsigned long from, int pages, const char *step);
void k_stage_read_by_cpu(unsigned long from, int pages, const char *step);
/* What the CPU writes at the start of a page. */
u64 k_stage_pattern(unsigned long addr);
/* Told: what the handler said of a tile's faults, and how many copy jobs there were. */
void k_stage_tell_fault(const char *step, int tile, int err, int jobs);
/* Told: of so many pages, how many somebody could read, how many held what they should, and what the first did. */
void k_stage_tell_data(const char *step, const char *by, int pages, int read, int kept, u64 found);
void k_stage_where(unsigned long from, int pages, const char *step);
/* A tile's number for a page in its VRAM, r for system memory, n for nothing, m for one that moves. */
char k_stage_place(unsigned long addr);
/* All buffers of a tile that hold pages of the process are evicted. */
void k_stage_evict(int tile);
void k_step(const char *step);

#endif
