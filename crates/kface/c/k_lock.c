// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Locks. A tree that is configured with lock debugging takes all its locks through functions, and those are here. A lock's
 * state lives in the kernel's own structure, so what inline functions read of it is true. Who cannot have a lock waits
 * (kface_lock_wait); each lock that is held is written down, so the tree's own assertions of held locks are answered.
 */
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/rcupdate.h>
#include <linux/srcu.h>
#include <linux/spinlock.h>
#include <linux/ww_mutex.h>
#include "k.h"

int debug_locks = 1;
int debug_locks_silent;
int oops_in_progress;

#define HELD 48

/* What a task holds: the map that lockdep knows the lock by, and how. */
struct held {
	const struct lockdep_map *map;
	int mode;
	int times;
};

enum { SHARED = 1, ALONE = 0 };

static struct held held[HELD];
static int holding;

static void hold(const struct lockdep_map *map, int mode)
{
	int i;

	for (i = 0; i < holding; i++) {
		if (held[i].map == map && held[i].mode == mode) {
			held[i].times++;
			return;
		}
	}
	if (holding == HELD)
		kface_give_up("more locks are held than the glue has room for");
	held[holding++] = (struct held){ map, mode, 1 };
}

static void drop(const struct lockdep_map *map)
{
	int i;

	for (i = holding - 1; i >= 0; i--) {
		if (held[i].map != map)
			continue;
		if (--held[i].times == 0)
			held[i] = held[--holding];
		return;
	}
	kface_event("unlock_of_free_lock");
	kface_text("lock", map->name ? map->name : "?");
	kface_event_end();
}

/* Lockdep's questions and the hooks of inline code. */
void lock_acquire(struct lockdep_map *map, unsigned int subclass, int trylock, int read, int check,
		  struct lockdep_map *nest, unsigned long ip)
{
	hold(map, read ? SHARED : ALONE);
}

void lock_release(struct lockdep_map *map, unsigned long ip)
{
	drop(map);
}

int lock_is_held_type(const struct lockdep_map *map, int read)
{
	int i;

	for (i = 0; i < holding; i++) {
		if (held[i].map == map && (read < 0 || !!read == held[i].mode))
			return 1;
	}
	return 0;
}

void lockdep_init_map_type(struct lockdep_map *map, const char *name, struct lock_class_key *key, int subclass,
			   u8 inner, u8 outer, u8 type)
{
	map->name = name;
	map->key = key;
}

u32 lock_sequence(struct lockdep_map *map)
{
	return 0;
}

void debug_check_no_locks_freed(const void *from, unsigned long size)
{
}

int debug_locks_off(void)
{
	return 0;
}

/* Who cannot have what it wants, and there is nobody else to wait for: a deadlock. */
static void wait_for(bool free, const struct lockdep_map *map)
{
	if (!free) {
		kface_event("deadlock");
		kface_text("lock", map->name ? map->name : "?");
		kface_event_end();
		kface_give_up("a lock is taken that its holder does not give back");
	}
}

/* Spin locks. */
void __raw_spin_lock_init(raw_spinlock_t *lock, const char *name, struct lock_class_key *key, short inner)
{
	memset(lock, 0, sizeof(*lock));
	lock->dep_map.name = name;
}

static void spin(raw_spinlock_t *lock)
{
	preempt_disable();
	wait_for(!atomic_read(&lock->raw_lock.val), &lock->dep_map);
	atomic_set(&lock->raw_lock.val, 1);
	hold(&lock->dep_map, ALONE);
}

static void unspin(raw_spinlock_t *lock)
{
	drop(&lock->dep_map);
	atomic_set(&lock->raw_lock.val, 0);
	__preempt_count_sub(1);
}

void _raw_spin_lock(raw_spinlock_t *lock) { spin(lock); }
void _raw_spin_lock_nested(raw_spinlock_t *lock, int subclass) { spin(lock); }
void _raw_spin_lock_irq(raw_spinlock_t *lock) { spin(lock); }
void _raw_spin_lock_bh(raw_spinlock_t *lock) { spin(lock); }
unsigned long _raw_spin_lock_irqsave(raw_spinlock_t *lock) { spin(lock); return 0; }
void _raw_spin_unlock(raw_spinlock_t *lock) { unspin(lock); }
void _raw_spin_unlock_irq(raw_spinlock_t *lock) { unspin(lock); }
void _raw_spin_unlock_bh(raw_spinlock_t *lock) { unspin(lock); }
void _raw_spin_unlock_irqrestore(raw_spinlock_t *lock, unsigned long flags) { unspin(lock); }

int _raw_spin_trylock(raw_spinlock_t *lock)
{
	if (atomic_read(&lock->raw_lock.val))
		return 0;
	spin(lock);
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

static void take(struct rw_semaphore *sem, int mode)
{
	long count = atomic_long_read(&sem->count);

	k_may_sleep("rw_semaphore");
	wait_for(mode == SHARED ? !(count & WRITER) : !count, &sem->dep_map);
	atomic_long_add(mode == SHARED ? READER : WRITER, &sem->count);
	hold(&sem->dep_map, mode);
}

static int try(struct rw_semaphore *sem, int mode)
{
	long count = atomic_long_read(&sem->count);

	if (mode == SHARED ? count & WRITER : count)
		return 0;
	atomic_long_add(mode == SHARED ? READER : WRITER, &sem->count);
	hold(&sem->dep_map, mode);
	return 1;
}

static void give(struct rw_semaphore *sem, int mode)
{
	drop(&sem->dep_map);
	atomic_long_sub(mode == SHARED ? READER : WRITER, &sem->count);
}

long k_patience = -1, k_looks;

/* A handler that looks at the process' memory again and again gets nowhere. */
static void take_shared(struct rw_semaphore *sem)
{
	if (k_mm() && sem == &k_mm()->mmap_lock && k_patience >= 0 && k_patience-- == 0) {
		kface_event("endless_retry");
		kface_number("looks", k_looks);
		kface_event_end();
		kface_give_up("a handler does not end");
	}
	take(sem, SHARED);
}

void down_read(struct rw_semaphore *sem) { take_shared(sem); }
int down_read_interruptible(struct rw_semaphore *sem) { take_shared(sem); return 0; }
int down_read_killable(struct rw_semaphore *sem) { take_shared(sem); return 0; }
int down_read_trylock(struct rw_semaphore *sem) { return try(sem, SHARED); }
void down_write(struct rw_semaphore *sem) { take(sem, ALONE); }
int down_write_killable(struct rw_semaphore *sem) { take(sem, ALONE); return 0; }
int down_write_trylock(struct rw_semaphore *sem) { return try(sem, ALONE); }
void up_read(struct rw_semaphore *sem) { give(sem, SHARED); }
void up_write(struct rw_semaphore *sem) { give(sem, ALONE); }

void downgrade_write(struct rw_semaphore *sem)
{
	give(sem, ALONE);
	take(sem, SHARED);
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

static void lock_mutex(struct mutex *lock)
{
	k_may_sleep("mutex");
	wait_for(!mutex_is_locked(lock), &lock->dep_map);
	atomic_long_set(&lock->owner, (long)current);
	hold(&lock->dep_map, ALONE);
}

void mutex_lock_nested(struct mutex *lock, unsigned int subclass) { lock_mutex(lock); }
void _mutex_lock_nest_lock(struct mutex *lock, struct lockdep_map *nest) { lock_mutex(lock); }
int mutex_lock_interruptible_nested(struct mutex *lock, unsigned int subclass) { lock_mutex(lock); return 0; }

int _mutex_lock_killable(struct mutex *lock, unsigned int subclass, struct lockdep_map *nest)
{
	lock_mutex(lock);
	return 0;
}

int _mutex_trylock_nest_lock(struct mutex *lock, struct lockdep_map *nest)
{
	if (mutex_is_locked(lock))
		return 0;
	lock_mutex(lock);
	return 1;
}

void mutex_unlock(struct mutex *lock)
{
	drop(&lock->dep_map);
	atomic_long_set(&lock->owner, 0);
}

void mutex_destroy(struct mutex *lock)
{
}

/* Mutexes of a transaction: who holds one in the same transaction is told so; nobody else is wounded yet. */
int ww_mutex_lock(struct ww_mutex *lock, struct ww_acquire_ctx *ctx)
{
	if (ctx && READ_ONCE(lock->ctx) == ctx)
		return -EALREADY;
	lock_mutex(&lock->base);
	if (ctx) {
		lock->ctx = ctx;
		ctx->acquired++;
	}
	return 0;
}

int ww_mutex_lock_interruptible(struct ww_mutex *lock, struct ww_acquire_ctx *ctx)
{
	return ww_mutex_lock(lock, ctx);
}

int ww_mutex_trylock(struct ww_mutex *lock, struct ww_acquire_ctx *ctx)
{
	return mutex_is_locked(&lock->base) ? 0 : !ww_mutex_lock(lock, ctx);
}

void ww_mutex_unlock(struct ww_mutex *lock)
{
	if (lock->ctx) {
		lock->ctx->acquired--;
		lock->ctx = NULL;
	}
	mutex_unlock(&lock->base);
}

/* Sleeping where preemption is off. */
void k_may_sleep(const char *where)
{
	if (preempt_count()) {
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

void fs_reclaim_acquire(gfp_t flags)
{
}

void fs_reclaim_release(gfp_t flags)
{
}

int __cond_resched_lock(spinlock_t *lock)
{
	return 0;
}

/* Read-copy-update: with nothing that is preempted inside, each grace period is over at once. */
struct lockdep_map rcu_lock_map = { .name = "rcu_read_lock" };
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

void synchronize_rcu(void)
{
	k_may_sleep("synchronize_rcu");
}

void call_rcu(struct rcu_head *head, rcu_callback_t done)
{
	done(head);
}

void k_kvfree_call_rcu(void *head, void *memory) __asm__("kvfree_call_rcu");
void k_kvfree_call_rcu(void *head, void *memory)
{
	kvfree(memory);
}

int __srcu_read_lock(struct srcu_struct *srcu) { return 0; }
void __srcu_read_unlock(struct srcu_struct *srcu, int idx) { }
void __srcu_check_read_flavor(struct srcu_struct *srcu, int flavor) { }
void synchronize_srcu(struct srcu_struct *srcu) { }

void call_srcu(struct srcu_struct *srcu, struct rcu_head *head, rcu_callback_t done)
{
	done(head);
}
