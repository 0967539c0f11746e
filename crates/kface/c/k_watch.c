// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * What the compiler puts in front of each access of the files that are watched. Every one is looked at whether it is to memory that
 * was freed. A marked one (READ_ONCE, WRITE_ONCE) is a scheduling point, if the run's seed has drawn it: most are in loops over
 * pages, and a run that asks the schedule at each of them is five times as long and no richer. Who wants it has every access as one.
 */
#include "k.h"

/* Marked accesses up to the next that is a point. */
static unsigned long k_passed_by = 1;
int k_every_access;

#define HERE ((unsigned long)__builtin_return_address(0))

static noinline void used_after_free(const void *addr, const char *what, unsigned long ip)
{
	kface_event("use_after_free");
	kface_text("what", what);
	kface_number("address", (unsigned long)addr);
	kface_number("ip", ip);
	kface_event_end();
}

static __always_inline void look(const void *addr, const char *what, unsigned long ip)
{
	if (unlikely(k_is_freed((unsigned long)addr)))
		used_after_free(addr, what, ip);
}

static __always_inline void pass(const void *addr, const char *what, unsigned long ip)
{
	if (unlikely(k_every_access) && k_self)
		k_point(what, "", ip);
	look(addr, what, ip);
}

static __always_inline void mark(const void *addr, const char *what, unsigned long ip)
{
	if (k_self && !--k_passed_by) {
		k_passed_by = kface_pass_by();
		k_point(what, "", ip);
	}
	look(addr, what, ip);
}

#define PLAIN(name, what) \
	void name(void *addr); void name(void *addr) { pass(addr, what, HERE); }
#define MARKED(name, what) \
	void name(void *addr); void name(void *addr) { mark(addr, what, HERE); }
#define SIZE(n)							\
	PLAIN(__tsan_read##n, "reads")				\
	PLAIN(__tsan_write##n, "writes")			\
	PLAIN(__tsan_unaligned_read##n, "reads")		\
	PLAIN(__tsan_unaligned_write##n, "writes")		\
	MARKED(__tsan_volatile_read##n, "READ_ONCE")		\
	MARKED(__tsan_volatile_write##n, "WRITE_ONCE")		\
	MARKED(__tsan_unaligned_volatile_read##n, "READ_ONCE")	\
	MARKED(__tsan_unaligned_volatile_write##n, "WRITE_ONCE")

SIZE(1)
SIZE(2)
SIZE(4)
SIZE(8)
SIZE(16)

void __tsan_init(void);
void __tsan_init(void) { }
void __tsan_func_entry(void *from);
void __tsan_func_entry(void *from) { }
void __tsan_func_exit(void);
void __tsan_func_exit(void) { }
void __tsan_read_range(void *addr, size_t size);
void __tsan_read_range(void *addr, size_t size) { look(addr, "reads", HERE); }
void __tsan_write_range(void *addr, size_t size);
void __tsan_write_range(void *addr, size_t size) { look(addr, "writes", HERE); }
