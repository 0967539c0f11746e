/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* What the C files of the glue share. Everything that it knows of the kernel comes from the headers of the user's tree. */
#ifndef KFACE_K_H
#define KFACE_K_H

#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/lockdep.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include "kface.h"

/* libc; the kernel's headers have their own of the others. */
void *malloc(size_t);
void free(void *);

/* k_warn.c */
int k_bug(unsigned long ip);

/* The scenes. */
struct k_scene {
	const char *name;
	void (*play)(long parameter);
};
extern const struct k_scene k_scene_a, k_scene_b, k_scene_c, k_scene_d1, k_scene_d2;

/* k_print.c: what printk would print, for the kernel's own formats. */
int k_format(char *out, size_t size, const char *format, va_list args);

/* k_task.c */
void k_enter(void);
struct mm_struct *k_mm(void);

/* k_lock.c */
void k_may_sleep(const char *where);
/* How often the process' memory is still locked for reading before a handler counts as one that never ends. */
extern long k_patience, k_looks;

/* k_wait.c */
void k_work_run_all(void);
void k_wait_for(bool (*done)(void *), void *arg, const char *what);

/* k_mem.c */
#define K_POISON_NEW 0x5a
#define K_POISON_FREED 0x6b
extern long k_fail_countdown;
extern const char *k_fail_what;
void k_mem_init(void);
struct page *k_page_new(void);

/* k_mm.c */
void k_mm_init(void);
void k_vma_add(unsigned long start, unsigned long end);
void k_munmap(unsigned long start, unsigned long end);
void k_mprotect(unsigned long start, unsigned long end, bool write);
int k_cpu_touch(unsigned long addr, unsigned char **byte);
int k_page_is(unsigned long addr, unsigned long *pfn);

/* k_xe.c */
struct xe_device;
struct xe_vm;
struct xe_device *k_xe_new(int tiles, bool needs_64k);
struct xe_vm *k_xe_vm_new(struct xe_device *xe);
int k_xe_bind_mirror(struct xe_vm *vm, u64 addr, u64 bytes, u64 fence, bool *reached);
int k_xe_fault(struct xe_vm *vm, int tile, u64 addr, bool write);

#endif
