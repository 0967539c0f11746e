// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What tasks hold, and in which order classes of locks are taken: two that are taken in both orders can deadlock, whether or
 * not they did here. A class is lockdep's key and subclass; who only tries, or reads recursively, orders nothing.
 */
#include <linux/lockdep.h>
#include "k.h"

#define CLASSES 96

static const void *class_keys[CLASSES];
static int class_subs[CLASSES];
static const char *class_names[CLASSES];
/* Of each class, those that were taken under it, or under one of these. */
static u64 below[CLASSES][(CLASSES + 63) / 64];
static int classes;

static int class_of(const struct lockdep_map *map, int sub)
{
	const void *key = map->key ? (const void *)map->key : (const void *)map->name;
	/* Lockdep's own place for this. */
	void **known = sub < NR_LOCKDEP_CACHING_CLASSES ? (void **)&map->class_cache[sub] : NULL;
	int i;

	if (known && *known)
		return (long)*known - 1;
	for (i = 0; i < classes; i++) {
		if (class_keys[i] != key || class_subs[i] != sub)
			continue;
		if (known)
			*known = (void *)(i + 1L);
		return i;
	}
	if (classes == CLASSES)
		kface_give_up("more classes of locks than the glue has room for");
	class_keys[i] = key;
	class_subs[i] = sub;
	class_names[i] = map->name ? map->name : "?";
	classes++;
	if (known)
		*known = (void *)(i + 1L);
	return i;
}

/* Whether `to` has been taken under `from`, or under what was taken under it. */
static bool leads(int from, int to)
{
	return below[from][to / 64] >> to % 64 & 1;
}

/* From now on all that leads to `before` leads to `class`, and to what that leads to. */
static void join(int before, int class)
{
	int i, word;

	for (i = 0; i < classes; i++) {
		if (i != before && !leads(i, before))
			continue;
		for (word = 0; word < ARRAY_SIZE(below[i]); word++)
			below[i][word] |= below[class][word];
		below[i][class / 64] |= 1ULL << class % 64;
	}
}

static void ordered(int before, int class)
{
	if (before == class || leads(before, class))
		return;
	if (leads(class, before)) {
		kface_event("lock_order");
		kface_text("taken", class_names[class]);
		kface_text("under", class_names[before]);
		kface_event_end();
	}
	join(before, class);
}

void k_hold(const struct lockdep_map *map, int mode, int sub, bool orders)
{
	struct k_task *self = k_self;
	int i, class = class_of(map, sub);

	for (i = 0; i < self->holding; i++) {
		struct k_held *held = &self->held[i];

		if (held->map == map && held->mode == mode) {
			held->times++;
			return;
		}
	}
	for (i = 0; orders && i < self->holding; i++) {
		if (self->held[i].orders)
			ordered(self->held[i].class, class);
	}
	if (self->holding == K_HELD)
		kface_give_up("more locks are held than the glue has room for");
	/* A lock that was only tried comes after none, but others come after it. */
	self->held[self->holding++] = (struct k_held){ map, mode, 1, class, orders || mode != K_RECURSIVE };
}

void k_drop(const struct lockdep_map *map)
{
	struct k_task *self = k_self;
	int i;

	for (i = self->holding - 1; i >= 0; i--) {
		if (self->held[i].map != map)
			continue;
		if (--self->held[i].times == 0) {
			self->holding--;
			memmove(&self->held[i], &self->held[i + 1], (self->holding - i) * sizeof(self->held[0]));
		}
		return;
	}
	kface_event("unlock_of_free_lock");
	kface_text("lock", map->name ? map->name : "?");
	kface_event_end();
}

int lock_is_held_type(const struct lockdep_map *map, int read)
{
	int i;

	for (i = 0; i < k_self->holding; i++) {
		const struct k_held *held = &k_self->held[i];

		if (held->map == map && (read < 0 || !!read == (held->mode != K_ALONE)))
			return 1;
	}
	return 0;
}

/* A task that ends holds nothing. */
void k_balanced(const struct k_task *task)
{
	if (!task->holding)
		return;
	kface_event("ends_with_lock");
	kface_text("lock", task->held[0].map->name);
	kface_event_end();
}

/* Lockdep's questions and the hooks of inline code. */
void lock_acquire(struct lockdep_map *map, unsigned int subclass, int trylock, int read, int check,
		  struct lockdep_map *nest, unsigned long ip)
{
	k_hold(map, read == 2 ? K_RECURSIVE : read ? K_SHARED : K_ALONE, subclass, !trylock && !nest && read != 2);
}

void lock_release(struct lockdep_map *map, unsigned long ip)
{
	k_drop(map);
}

void lockdep_init_map_type(struct lockdep_map *map, const char *name, struct lock_class_key *key, int subclass,
			   u8 inner, u8 outer, u8 type)
{
	memset(map, 0, sizeof(*map));
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
