/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The joint between the C half of the glue, which is compiled with the headers of a kernel tree and is alone to know the
 * tree's structures, and the Rust half, which knows none: plain integers and byte pointers.
 */
#ifndef KFACE_H
#define KFACE_H

typedef unsigned long long kface_u64;

/* What the C half hands over when it starts. */
struct kface_c_half {
	/* Plays a scene; not 0 where there is none of that name. */
	int (*scene)(const char *name, long parameter);
	/* Names of scenes, null behind the last. */
	const char *(*scene_name)(int index);
	/* What stands at an undefined instruction: 0 nothing known, 1 a warning to go on behind, 2 a BUG. */
	int (*bug)(unsigned long ip);
	/* Symbols that are not modelled: an address from `trap_base` on, 64K for each, is one of theirs. */
	const char *const *traps;
	kface_u64 trap_count;
	kface_u64 trap_base;
};
int kface_main(const struct kface_c_half *half);

/* C to Rust: evidence, one line of it an event with its fields. */
void kface_event(const char *event);
void kface_number(const char *field, kface_u64 value);
void kface_signed(const char *field, long value);
void kface_text(const char *field, const char *value);
void kface_event_end(void);
/* Whether an event of this name is told now, for who must put together what it says. */
int kface_is_told(const char *event);
/* Ends the process: a symbol that is not modelled was reached, or the glue does not hold. */
void kface_give_up(const char *why) __attribute__((noreturn));
void kface_not_modelled(const char *symbol) __attribute__((noreturn));

/*
 * Tasks. All of C runs inside of one; every call of these may let others go on before it returns. A point is a place that the
 * schedule may stop a task at: what it is about to do, to which object, and where in the code.
 */
void kface_spawn(const char *name, void (*body)(void *), void *arg, int daemon);
void kface_point(const char *what, const char *object, unsigned long ip);
/* How many marked accesses there are to the next that is a point, which the run's seed says. */
unsigned long kface_pass_by(void);
/* Whether every access is one, marked or not. */
int kface_every_access(void);
void kface_yield(void);
/* Waits until somebody wakes the channel. */
void kface_block(unsigned long channel, const char *what);
void kface_wake(unsigned long channel);

/* From here on each schedule that was asked for is a process of its own; returns in each of them. */
void kface_runs_begin(void);
/* The run came to a place that its scene is about. */
void kface_reached(const char *place);

/*
 * Comparing: acts by the run's seed (acts.rs), what is seen of them where it happens, and how things are after each. Pages are
 * numbers in the block. Nothing is written down while no act is under way.
 */
enum { KFACE_TILE, KFACE_CPU, KFACE_UNMAP, KFACE_MAP, KFACE_EVICT };
struct kface_act {
	int what, tile, first, pages, write;
};
/* The next act; 0 behind the last. */
int kface_act(const char *scene, int tiles, struct kface_act *act);
void kface_saw_answer(long err);
void kface_saw_notice(const char *kind, kface_u64 start, kface_u64 end, unsigned long ip);
void kface_saw_flush(int tile, kface_u64 start, kface_u64 end, unsigned long ip);
/* What the engine of a tile copied since the last call. */
void kface_saw_copies(int tile, unsigned long ip);
void kface_has_range(kface_u64 start, kface_u64 end, int tiles, int unmapped, int mapped);
/* `places` has a letter for each page: r, n, m, or a tile's number. */
void kface_act_done(kface_u64 value, const char *places, unsigned int asid);

/*
 * The promises of the memory: steps of the case that the run's seed says (memory.rs), what each answers in the order in which it
 * comes, and how all pages of the block and all areas are behind it.
 */
enum { KFACE_DO_MAP, KFACE_DO_UNMAP, KFACE_DO_PROTECT, KFACE_DO_DONTNEED, KFACE_DO_CPU, KFACE_DO_PIN, KFACE_DO_UNPIN,
       KFACE_DO_MIGRATE, KFACE_DO_BEGIN, KFACE_DO_HOLD, KFACE_DO_COMMIT, KFACE_DO_END, KFACE_DO_BACK, KFACE_DO_EVICT,
       KFACE_DO_LOOK, KFACE_DO_WALK };
struct kface_step {
	int what, first, pages, vram, write, fault, since;
	kface_u64 number;
};
/* The next step; 0 behind the last. */
int kface_step(struct kface_step *step);
void kface_said(const char *what, const char *how);
void kface_said_number(const char *what, long number);
void kface_said_notice(const char *kind, kface_u64 start, kface_u64 end, const char *places);
void kface_said_freed(int vram, int page);
void kface_is_page(int place, int write);
void kface_is_area(kface_u64 start, kface_u64 end, int write);
void kface_step_done(void);

/* Memory that holds nothing yet; zero where it is read first. */
void *kface_reserve(unsigned long address, unsigned long bytes);

/* The device. Addresses of a tile's VRAM are those of its own address space. */
struct kface_tile {
	kface_u64 base;
	kface_u64 bytes;
	unsigned char *memory;
};
void kface_gpu_new(const struct kface_tile *tiles, int count, int needs_64k, int va_bits);
void kface_gpu_root(int tile, unsigned int asid, kface_u64 root, int needs_64k);
void kface_gpu_flush(int tile, unsigned int asid, kface_u64 start, kface_u64 end);
/* Runs a batch of the tile's copy engine to its end; 0, or -1 where the engine hung or faulted. */
int kface_gpu_batch(int tile, unsigned int asid, kface_u64 batch);
/* One access of a program: 0, or -1 where it faulted. */
int kface_gpu_access(int tile, unsigned int asid, kface_u64 addr, int write, kface_u64 *value);
/* Frames are numbers of system pages, which lie at their own address. */
kface_u64 kface_iommu_map(kface_u64 frame, unsigned long pages, int write);
void kface_iommu_unmap(kface_u64 iova, unsigned long pages);
kface_u64 kface_iommu_mapped(void);
/* Writes down as events what the device noticed since the last call. */
void kface_gpu_records(void);

#endif
