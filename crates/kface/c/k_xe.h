/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What the files of the xe device share. */
#ifndef KFACE_K_XE_H
#define KFACE_K_XE_H

#include "xe_bo.h"
#include "xe_device_types.h"
#include "xe_exec_queue.h"
#include "xe_exec_queue_types.h"
#include "xe_gt_types.h"
#include "xe_hw_engine_types.h"
#include "xe_sched_job_types.h"
#include "xe_tile_types.h"
#include "xe_vm.h"
#include "xe_vram_types.h"
#include "k.h"

/* The VRAM of a tile, in its own address space and in memory. */
#define K_TILES 2
#define K_VRAM_BYTES (64ULL << 20)
#define K_VRAM_STRIDE (1ULL << 37)
#define K_VRAM_BASE (1ULL << 36)

extern unsigned char *k_vram[K_TILES];

/* k_xe_bo.c */
void k_xe_vram_new(struct xe_device *xe, int tile);
void k_xe_bos_init(struct xe_device *xe);
int k_xe_bos_in_vram(int tile);
/* A buffer of the process' own memory in VRAM of a tile (-1: of any), with a reference; none, where there is none. */
struct xe_bo *k_xe_devmem_get(int tile);

/* k_xe_job.c */
void k_xe_queues_init(struct xe_gt *gt);
void k_engines_start(int tiles);
extern int k_jobs;
/* Fences signal late from here on: others have work in each queue, an engine clears the buffers of the process' memory. */
extern bool k_xe_is_late;
void k_xe_be_late(void);
/* Memory is cleared by an engine of its own; the fence that says so. */
struct dma_fence *k_xe_clear_late(void *memory, size_t bytes);

#endif
