/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Writers of the block, for scenes that are explored. */
#ifndef KFACE_K_WRITER_H
#define KFACE_K_WRITER_H

#include "k_books.h"
#include "k_scene.h"

/* Who serves faults: whoever has them, as a worker would, or the driver's own queue. */
enum k_served { K_AT_ONCE, K_BY_QUEUE };

/* Who writes from the page of that number on, by a tile in a VM, or (-1) by the CPU. */
struct k_task *k_writer(struct xe_vm *vm, enum k_served served, int tile, int first, int pages, int rounds);
/* Waits for all of them, and looks whether what they wrote is there. */
void k_settle(struct k_task **tasks, int count);
/* The process forks; at the end the child must have what was there then, word by word. */
void k_writers_fork(void);
void k_found(const char *text, unsigned long addr, u64 value);
/* The VM that is being closed, or is: its faults may be refused. */
extern const struct xe_vm *k_closing;

#endif
