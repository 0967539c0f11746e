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

/* k_warn.c */
int k_bug(unsigned long ip);

/* The scenes. */
struct k_scene {
	const char *name;
	void (*play)(long parameter);
};
extern const struct k_scene k_scene_a, k_scene_b, k_scene_c, k_scene_d1, k_scene_d2, k_scene_f;
extern const struct k_scene k_scene_faults, k_scene_munmap, k_scene_evict, k_scene_cpufault, k_scene_gc, k_scene_fork, k_scene_late, k_scene_mixed;
extern const struct k_scene k_scene_queue, k_scene_close, k_scene_glue, k_scene_memory;
extern const struct k_scene k_scene_diff_faults, k_scene_diff_munmap, k_scene_diff_evict;
bool k_faults_served(void);
struct mmu_notifier_range;
void k_memory_notice(const char *kind, const struct mmu_notifier_range *range);

/* k_watch.c: whether each access of what is watched is a scheduling point. */
extern int k_every_access;

/* k_print.c: what printk would print, for the kernel's own formats. */
int k_format(char *out, size_t size, const char *format, va_list args);

/* k_task.c: a task, with what lockdep knows it to hold. */
enum k_mode { K_ALONE, K_SHARED, K_RECURSIVE };
struct k_held {
	const struct lockdep_map *map;
	enum k_mode mode;
	int times;
	int class;
	/* Whether what is taken under it comes after it. */
	bool orders;
};
#define K_HELD 48
struct k_task {
	struct task_struct task;
	struct k_task *next;
	void (*body)(void *);
	void *arg;
	bool ended;
	/* How often the process' memory may still be locked for reading before a handler counts as one that never ends. */
	int patience;
	int holding;
	struct k_held held[K_HELD];
};
#define K_PATIENCE 2000
/* After so many looks others go first. */
#define K_LOOKS 64
extern struct k_task *k_self;
void k_enter(void);
struct k_task *k_spawn(const char *name, void (*body)(void *), void *arg);
void k_spawn_daemon(const char *name, void (*body)(void *), void *arg);
void k_join(struct k_task *task);
bool k_any_task(bool (*is)(const struct k_task *));
/* Others may go on: at a place that they can tell; until somebody wakes the channel; after all others that can. */
void k_point(const char *what, const char *name, unsigned long ip);
void k_block(const void *channel, const char *what);
void k_wake(const void *channel);
void k_runs_begin(void);
void k_yield(void);
struct mm_struct *k_mm(void);

/* k_order.c */
void k_hold(const struct lockdep_map *map, int mode, int sub, bool orders);
void k_drop(const struct lockdep_map *map);
void k_balanced(const struct k_task *task);

/* k_lock.c */
void k_may_sleep(const char *where);

/* k_wait.c */
void k_workers_start(void);
void k_work_run_all(void);
/* How many workers of the driver's that serve a queue are at it. */
int k_work_running(const struct workqueue_struct *queue);
/* Waits for what somebody tells by k_changed(). */
void k_wait_for(bool (*done)(void *), void *arg, const char *what);
void k_changed(void);

/* k_mem.c */
#define K_POISON_NEW 0x5a
#define K_POISON_FREED 0x6b
extern long k_fail_countdown;
extern const char *k_fail_what;
void k_mem_init(void);
void *k_must_alloc(size_t size);
/* Zero, in the name of who is there. */
void *k_alloc_for(size_t size, unsigned long from);
/* The slab's memory, and a byte about each 16 of it: what was freed is not given out again, so who still uses it is found. */
#define K_HEAP_BASE 0x200000000UL
#define K_HEAP_BYTES (256UL << 20)
#define K_SHADOW_BASE 0x240000000UL
enum { K_NEVER_USED, K_IN_USE, K_FREED };
static __always_inline unsigned char *k_shadow(unsigned long addr)
{
	return (unsigned char *)(K_SHADOW_BASE + ((addr - K_HEAP_BASE) >> 4));
}
static __always_inline bool k_is_freed(unsigned long addr)
{
	return addr - K_HEAP_BASE < K_HEAP_BYTES && *k_shadow(addr) == K_FREED;
}
int k_freed_pages_written(void);
unsigned long k_pages_in_use(void);
/* How far the slab's memory is used; what was asked for between two such marks and has not been given back is told. */
unsigned long k_heap_mark(void);
void k_leaks(unsigned long from, unsigned long behind);
struct page *k_page_new(void);

/* k_mm.c */
void k_mm_init(void);
void k_vma_add(unsigned long start, unsigned long end);
void k_munmap(unsigned long start, unsigned long end);
void k_mprotect(unsigned long start, unsigned long end, bool write);
void k_dontneed(unsigned long start, unsigned long end);
int k_cpu_access(unsigned long addr, bool write, unsigned char **byte);
int k_cpu_touch(unsigned long addr, unsigned char **byte);
bool k_page_writable(unsigned long addr);
int k_page_is(unsigned long addr, unsigned long *pfn);

/* k_fork.c: a child has so many pages, too; the one that its CPU would read without a fault. `shared` is told each page when it is both's. */
void k_fork(unsigned long start, int count, void (*shared)(unsigned long addr));
void *k_child_page(unsigned long addr);

/* k_xe.c */
struct xe_device;
struct xe_vm;
struct xe_device *k_xe_new(int tiles, bool needs_64k);
struct xe_vm *k_xe_vm_new(struct xe_device *xe);
int k_xe_bind_mirror(struct xe_vm *vm, u64 addr, u64 bytes, u64 fence, bool *reached);
int k_xe_fault(struct xe_vm *vm, int tile, u64 addr, bool write);
int k_xe_fault_by_queue(struct xe_device *xe, u32 asid, int tile, u64 addr, bool write);
/* Parts of the pools of batches that are kept until somebody wants them are given back. */
void k_xe_pools_settle(struct xe_device *xe);
void k_xe_vm_close(struct xe_vm *vm);

#endif
