// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Locks. A tree that is configured with lock debugging takes all its locks through functions, and those are here. A lock's
 * state lives in the kernel's own structure, so what inline functions read of it is true. Who cannot have a lock waits
 * (kface_lock_wait); each lock that is held is written down, so the tree's own assertions of held locks are answered.
 */
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/srcu.h>
#include <linux/spinlock.h>
#include <linux/ww_mutex.h>
#include "k.h"

int debug_locks = 1;
int debug_locks_silent;
int oops_in_progress;

#define HERE ((unsigned long)__builtin_return_address(0))

struct lockdep_map rcu_lock_map = { .name = "rcu_read_lock" };

/* Who cannot have a lock waits for whoever gives one back that lies there. */
static void wait_while(bool taken, const void *lock, const struct lockdep_map *map)
{
	if (taken)
		k_block(lock, map->name ? map->name : "?");
}

/* Spin locks. */
void __raw_spin_lock_init(raw_spinlock_t *lock, const char *name, struct lock_class_key *key, short inner)
{
	memset(lock, 0, sizeof(*lock));
	lock->dep_map.name = name;
}

static void spin(raw_spinlock_t *lock, int sub, unsigned long ip)
{
	k_point("spin_lock", lock->dep_map.name, ip);
	preempt_disable();
	while (atomic_read(&lock->raw_lock.val))
		wait_while(true, lock, &lock->dep_map);
	atomic_set(&lock->raw_lock.val, 1);
	k_hold(&lock->dep_map, K_ALONE, sub, true);
}

static void unspin(raw_spinlock_t *lock)
{
	k_drop(&lock->dep_map);
	atomic_set(&lock->raw_lock.val, 0);
	__preempt_count_sub(1);
	k_wake(lock);
}

void _raw_spin_lock(raw_spinlock_t *lock) { spin(lock, 0, HERE); }
void _raw_spin_lock_nested(raw_spinlock_t *lock, int subclass) { spin(lock, subclass, HERE); }
void _raw_spin_lock_irq(raw_spinlock_t *lock) { spin(lock, 0, HERE); }
void _raw_spin_lock_bh(raw_spinlock_t *lock) { spin(lock, 0, HERE); }
unsigned long _raw_spin_lock_irqsave(raw_spinlock_t *lock) { spin(lock, 0, HERE); return 0; }
void _raw_spin_unlock(raw_spinlock_t *lock) { unspin(lock); }
void _raw_spin_unlock_irq(raw_spinlock_t *lock) { unspin(lock); }
void _raw_spin_unlock_bh(raw_spinlock_t *lock) { unspin(lock); }
void _raw_spin_unlock_irqrestore(raw_spinlock_t *lock, unsigned long flags) { unspin(lock); }

int _raw_spin_trylock(raw_spinlock_t *lock)
{
	k_point("spin_trylock", lock->dep_map.name, HERE);
	if (atomic_read(&lock->raw_lock.val))
		return 0;
	preempt_disable();
	atomic_set(&lock->raw_lock.val, 1);
	k_hold(&lock->dep_map, K_ALONE, 0, false);
	return 1;
}

/* Read-write semaphores: the count is 1 for a writer, and 256 more for each reader. */
#define WRITER 1
#define READER 256

void __init_rwsem(struct rw_semaphore *sem, const char *name, struct lock_class_key *key)
{
	memset(sem, 0, sizeof(*sem));
	sem->dep_map.name = name;
}

static void take(struct rw_semaphore *sem, int mode, int sub, bool orders, unsigned long ip)
{
	k_may_sleep("rw_semaphore");
	k_point(mode == K_SHARED ? "down_read" : "down_write", sem->dep_map.name, ip);
	while (mode == K_SHARED ? atomic_long_read(&sem->count) & WRITER : atomic_long_read(&sem->count))
		wait_while(true, sem, &sem->dep_map);
	atomic_long_add(mode == K_SHARED ? READER : WRITER, &sem->count);
	k_hold(&sem->dep_map, mode, sub, orders);
}

static int try(struct rw_semaphore *sem, int mode, unsigned long ip)
{
	long count;

	k_point(mode == K_SHARED ? "down_read_trylock" : "down_write_trylock", sem->dep_map.name, ip);
	count = atomic_long_read(&sem->count);
	if (mode == K_SHARED ? count & WRITER : count)
		return 0;
	atomic_long_add(mode == K_SHARED ? READER : WRITER, &sem->count);
	k_hold(&sem->dep_map, mode, 0, false);
	return 1;
}

static void give(struct rw_semaphore *sem, int mode)
{
	k_drop(&sem->dep_map);
	atomic_long_sub(mode == K_SHARED ? READER : WRITER, &sem->count);
	k_wake(sem);
}

/*
 * A handler that looks at the process' memory again and again gets nowhere, unless it waits for somebody whom the schedule keeps from
 * going on (an munmap between areas that are gone and its notice): so others go first now and then.
 */
static void take_shared(struct rw_semaphore *sem, int sub, unsigned long ip)
{
	bool counts = k_mm() && sem == &k_mm()->mmap_lock && k_self->patience;

	if (counts && k_self->patience % K_LOOKS == 0)
		k_yield();
	if (counts && --k_self->patience == 0) {
		kface_event("endless_retry");
		kface_number("looks", K_PATIENCE);
		kface_event_end();
		kface_give_up("a handler does not end");
	}
	take(sem, K_SHARED, sub, true, ip);
}

void down_read(struct rw_semaphore *sem) { take_shared(sem, 0, HERE); }
void down_read_nested(struct rw_semaphore *sem, int subclass) { take_shared(sem, subclass, HERE); }
int down_read_interruptible(struct rw_semaphore *sem) { take_shared(sem, 0, HERE); return 0; }
int down_read_killable(struct rw_semaphore *sem) { take_shared(sem, 0, HERE); return 0; }
int down_read_trylock(struct rw_semaphore *sem) { return try(sem, K_SHARED, HERE); }
void down_write(struct rw_semaphore *sem) { take(sem, K_ALONE, 0, true, HERE); }
void down_write_nested(struct rw_semaphore *sem, int subclass) { take(sem, K_ALONE, subclass, true, HERE); }
int down_write_killable(struct rw_semaphore *sem) { take(sem, K_ALONE, 0, true, HERE); return 0; }
int down_write_trylock(struct rw_semaphore *sem) { return try(sem, K_ALONE, HERE); }
void up_read(struct rw_semaphore *sem) { give(sem, K_SHARED); }
void up_write(struct rw_semaphore *sem) { give(sem, K_ALONE); }

void downgrade_write(struct rw_semaphore *sem)
{
	k_drop(&sem->dep_map);
	atomic_long_add(READER - WRITER, &sem->count);
	k_hold(&sem->dep_map, K_SHARED, 0, false);
	k_wake(sem);
}

/* Mutexes: the owner is the task. */
void mutex_init_lockdep(struct mutex *lock, const char *name, struct lock_class_key *key)
{
	memset(lock, 0, sizeof(*lock));
	lock->dep_map.name = name;
}

bool mutex_is_locked(struct mutex *lock)
{
	return atomic_long_read(&lock->owner) != 0;
}

static void lock_mutex(struct mutex *lock, int sub, bool orders, unsigned long ip)
{
	k_may_sleep("mutex");
	k_point("mutex_lock", lock->dep_map.name, ip);
	while (mutex_is_locked(lock))
		wait_while(true, lock, &lock->dep_map);
	atomic_long_set(&lock->owner, (long)current);
	k_hold(&lock->dep_map, K_ALONE, sub, orders);
}

void mutex_lock_nested(struct mutex *lock, unsigned int subclass) { lock_mutex(lock, subclass, true, HERE); }
void _mutex_lock_nest_lock(struct mutex *lock, struct lockdep_map *nest) { lock_mutex(lock, 0, !nest, HERE); }

int mutex_lock_interruptible_nested(struct mutex *lock, unsigned int subclass)
{
	lock_mutex(lock, subclass, true, HERE);
	return 0;
}

int _mutex_lock_killable(struct mutex *lock, unsigned int subclass, struct lockdep_map *nest)
{
	lock_mutex(lock, subclass, !nest, HERE);
	return 0;
}

int _mutex_trylock_nest_lock(struct mutex *lock, struct lockdep_map *nest)
{
	k_point("mutex_trylock", lock->dep_map.name, HERE);
	if (mutex_is_locked(lock))
		return 0;
	atomic_long_set(&lock->owner, (long)current);
	k_hold(&lock->dep_map, K_ALONE, 0, false);
	return 1;
}

void mutex_unlock(struct mutex *lock)
{
	k_drop(&lock->dep_map);
	atomic_long_set(&lock->owner, 0);
	k_wake(lock);
}

void mutex_destroy(struct mutex *lock)
{
}

/* Mutexes of a transaction: who has one already is told so; of two that wait for each other the younger gives up. */
static int lock_ww(struct ww_mutex *lock, struct ww_acquire_ctx *ctx, unsigned long ip)
{
	if (ctx && READ_ONCE(lock->ctx) == ctx)
		return -EALREADY;
	k_point("ww_mutex_lock", lock->base.dep_map.name, ip);
	if (ctx && lock->ctx && ctx->acquired && (long)(ctx->stamp - lock->ctx->stamp) > 0)
		return -EDEADLK;
	lock_mutex(&lock->base, 0, !ctx, ip);
	if (ctx) {
		lock->ctx = ctx;
		ctx->acquired++;
	}
	return 0;
}

int ww_mutex_lock(struct ww_mutex *lock, struct ww_acquire_ctx *ctx) { return lock_ww(lock, ctx, HERE); }
int ww_mutex_lock_interruptible(struct ww_mutex *lock, struct ww_acquire_ctx *ctx) { return lock_ww(lock, ctx, HERE); }

int ww_mutex_trylock(struct ww_mutex *lock, struct ww_acquire_ctx *ctx)
{
	return mutex_is_locked(&lock->base) ? 0 : !lock_ww(lock, ctx, HERE);
}

void ww_mutex_unlock(struct ww_mutex *lock)
{
	if (lock->ctx) {
		lock->ctx->acquired--;
		lock->ctx = NULL;
	}
	mutex_unlock(&lock->base);
}

/* Whether a task is in a section that reads, by what lockdep was told. */
static bool k_rcu_reads(const struct k_task *task)
{
	int i;

	for (i = 0; i < task->holding; i++) {
		if (task->held[i].map == &rcu_lock_map)
			return true;
	}
	return false;
}

/* Sleeping where preemption is off, or where others wait for this to end that reads. */
void k_may_sleep(const char *where)
{
	if (preempt_count() || (k_self && k_rcu_reads(k_self))) {
		kface_event("sleep_in_atomic");
		kface_text("where", where);
		kface_event_end();
	}
}

void __might_sleep(const char *file, int line)
{
	k_may_sleep(file);
}

void __might_resched(const char *file, int line, unsigned int offsets)
{
	if (preempt_count() != (offsets & MIGHT_RESCHED_PREEMPT_MASK))
		k_may_sleep(file);
}

void __might_fault(const char *file, int line)
{
}

/*
 * Reclaim, as the locks that an allocation may take: it may enter a file system, and it may unmap pages, of which notifiers are told.
 * Whoever allocates under one of these, or takes one of them under a lock that reclaim needs, can wait for himself.
 */
static struct lockdep_map reclaim_map = { .key = (void *)&reclaim_map, .name = "fs_reclaim" };

/* What is asked for before there are tasks orders nothing. */
static bool may_reclaim(gfp_t flags)
{
	return k_self && flags & __GFP_DIRECT_RECLAIM && !(flags & __GFP_NOLOCKDEP) && !(current->flags & PF_MEMALLOC);
}

static bool may_enter_fs(gfp_t flags)
{
	return current_gfp_context(flags) & __GFP_FS;
}

void fs_reclaim_acquire(gfp_t flags)
{
	if (!may_reclaim(flags))
		return;
	if (may_enter_fs(flags))
		lock_map_acquire(&reclaim_map);
#ifdef CONFIG_MMU_NOTIFIER
	lock_map_acquire(&__mmu_notifier_invalidate_range_start_map);
	lock_map_release(&__mmu_notifier_invalidate_range_start_map);
#endif
}

void fs_reclaim_release(gfp_t flags)
{
	if (may_reclaim(flags) && may_enter_fs(flags))
		lock_map_release(&reclaim_map);
}

int __cond_resched_lock(spinlock_t *lock)
{
	return 0;
}

/* Read-copy-update: a grace period is over when nobody reads. */
struct lockdep_map rcu_bh_lock_map = { .name = "rcu_read_lock_bh" };
struct lockdep_map rcu_sched_lock_map = { .name = "rcu_read_lock_sched" };
struct lockdep_map rcu_callback_map = { .name = "rcu_callback" };

int debug_lockdep_rcu_enabled(void) { return 1; }
int rcu_read_lock_held(void) { return lock_is_held_type(&rcu_lock_map, -1); }
int rcu_read_lock_sched_held(void) { return preempt_count() != 0; }
bool rcu_is_watching(void) { return true; }

void lockdep_rcu_suspicious(const char *file, const int line, const char *text)
{
	kface_event("warn");
	kface_text("file", file);
	kface_number("line", line);
	kface_text("text", text);
	kface_event_end();
}

/* Who waits for a grace period looks again whenever somebody went on. */
static void grace_period(int *readers)
{
	k_may_sleep("a grace period");
	while (readers ? *readers : k_any_task(k_rcu_reads))
		k_yield();
}

void synchronize_rcu(void) { grace_period(NULL); }

static int srcu_readers;

int __srcu_read_lock(struct srcu_struct *srcu)
{
	srcu_readers++;
	return 0;
}

void __srcu_read_unlock(struct srcu_struct *srcu, int idx) { srcu_readers--; }
void __srcu_check_read_flavor(struct srcu_struct *srcu, int flavor) { }
void synchronize_srcu(struct srcu_struct *srcu) { grace_period(&srcu_readers); }

/* Callbacks run as work, behind a grace period of both kinds. */
struct callback {
	struct work_struct work;
	struct rcu_head *head;
	rcu_callback_t done;
	void *memory;
};

static void call(struct work_struct *work)
{
	struct callback *callback = container_of(work, struct callback, work);

	grace_period(NULL);
	grace_period(&srcu_readers);
	if (callback->done)
		callback->done(callback->head);
	else
		kvfree(callback->memory);
	kfree(callback);
}

static void later(struct rcu_head *head, rcu_callback_t done, void *memory)
{
	struct callback *callback = k_must_alloc(sizeof(*callback));

	INIT_WORK(&callback->work, call);
	callback->head = head;
	callback->done = done;
	callback->memory = memory;
	queue_work_on(WORK_CPU_UNBOUND, system_wq, &callback->work);
}

void call_rcu(struct rcu_head *head, rcu_callback_t done) { later(head, done, NULL); }
void call_srcu(struct srcu_struct *srcu, struct rcu_head *head, rcu_callback_t done) { later(head, done, NULL); }

void k_kvfree_call_rcu(void *head, void *memory) __asm__("kvfree_call_rcu");
void k_kvfree_call_rcu(void *head, void *memory) { later(NULL, NULL, memory); }
