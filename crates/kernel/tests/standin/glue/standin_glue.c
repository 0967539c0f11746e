// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Glue for the stand-in: its scenes have the names and tell the events that the kernel's have. */
#include "standin.h"
#include "xe_svm.h"
#include "kface.h"

int strcmp(const char *, const char *);
void *malloc(unsigned long);
void *memset(void *, int, unsigned long);
int memcmp(const void *, const void *, unsigned long);

#if !KFACE_HAS_PAGES || KFACE_HAS_NOTHING || KFACE_HAS_UNUSED != STANDIN_HAS_UNUSED
#error "the probes do not see what the tree has"
#endif

#define PAGES 16

extern const char *const kface_traps[];
extern const kface_u64 kface_trap_count, kface_trap_base;

static long countdown = -1;
static int looks;

/* What was asked for, by whom, and not given back. */
static struct { void *memory; unsigned long bytes, from; } taken[8];

static int place_of(void *memory)
{
	int i;

	for (i = 0; i < 7 && taken[i].memory != memory; i++)
		;
	return i;
}

void standin_free(void *memory)
{
	int at = place_of(memory);

	memset(memory, 0x6b, taken[at].bytes);
	taken[at].memory = 0;
}

void *standin_alloc(unsigned long bytes)
{
	void *memory;
	int at = place_of(0);

	if (countdown >= 0 && countdown-- == 0) {
		kface_event("allocation_failed");
		kface_number("bytes", bytes);
		kface_event_end();
		return 0;
	}
	memory = malloc(bytes);
	taken[at].memory = memory;
	taken[at].bytes = bytes;
	taken[at].from = (unsigned long)__builtin_return_address(0);
	return memory;
}

int standin_look(void)
{
	if (++looks > 50) {
		kface_event("endless_retry");
		kface_number("looks", 50);
		kface_event_end();
		kface_give_up("a handler does not end");
	}
	return 0;
}

void standin_warn(const char *file, int line)
{
	kface_event("warn");
	kface_text("file", file);
	kface_number("line", line);
	kface_text("text", "");
	kface_event_end();
}

struct standin_fence *__real_dma_fence_array_create(int count, struct standin_fence **fences);
struct standin_fence *__wrap_dma_fence_array_create(int count, struct standin_fence **fences)
{
	int i, filled = 0;

	for (i = 0; i < count; i++)
		filled += fences[i] != 0;
	kface_event("fence_array");
	kface_number("counted", count);
	kface_number("filled", filled);
	kface_event_end();
	if (filled < count) {
		kface_event("unfilled_fences");
		kface_number("counted", count);
		kface_number("filled", filled);
		kface_number("ip", (unsigned long)__builtin_return_address(0));
		kface_event_end();
	}
	return __real_dma_fence_array_create(count, fences);
}

static void data(const char *step, int read, int kept)
{
	kface_event("data");
	kface_text("step", step);
	kface_number("pages", PAGES);
	kface_number("read", read);
	kface_number("kept", kept);
	kface_event_end();
}

static void fault(const char *step, int errno)
{
	kface_event("fault");
	kface_text("step", step);
	kface_signed("errno", errno);
	kface_number("jobs", 1);
	kface_event_end();
}

static void scene_a(void)
{
	static unsigned char from[PAGES * STANDIN_PAGE], to[PAGES * STANDIN_PAGE];
	int i, kept = 0;

	if (standin_map.vr != STANDIN_VR)
		kface_give_up("the glue has another header than the tree's files");
	memset(from, 0xaa, sizeof(from));
	kface_event("where");
	kface_text("step", "tile 0");
	kface_number("vram0", PAGES);
	kface_event_end();
	data("tile 0", PAGES, PAGES);
	standin_migrate(from, to, PAGES);
	fault("tile 1", 0);
	for (i = 0; i < PAGES; i++)
		kept += !memcmp(from + i * STANDIN_PAGE, to + i * STANDIN_PAGE, STANDIN_PAGE);
	data("tile 1", PAGES, kept);
	data("home", PAGES, kept);
}

static void scene_f(void)
{
	static unsigned char had[PAGES], copies[PAGES];
	int i, kept = 0, stored = 0;

	kface_event("where");
	kface_text("step", "before");
	kface_number("vram0", PAGES);
	kface_event_end();
	fault("write", 0);
	for (i = 0; i < PAGES; i++) {
		unsigned char *page = standin_writable(&had[i], &copies[i], 1);

		*page = 1;
		kept += had[i] == 0;
		stored += *page == 1;
	}
	data("child", PAGES, kept);
	data("parent", PAGES, stored);
}

static void scene_d1(long parameter)
{
	int mapped = 0, err;

	countdown = parameter;
	err = standin_fault(&mapped);
	countdown = -1;
	fault("fails", err);
	data("fails", mapped ? PAGES : 0, mapped ? PAGES : 0);
	data("home", PAGES, PAGES);
}

void standin_point(void)
{
	kface_point("READ_ONCE", "word", (unsigned long)standin_count);
}

/* Two tasks, and the one that waits for both. */
static int words[2], ended;

static void count(void *arg)
{
	kface_reached("a fault came while another was served");
	kface_reached("a CPU fault migrated a page back");
	standin_count(words);
	ended++;
	kface_wake((unsigned long)&ended);
}

static void take_both(void *arg)
{
	int *first = arg, *second = arg == words ? words + 1 : words, *all[2] = { first, second }, i;

	for (i = 0; i < 2; i++) {
		kface_point("lock", "a word", 0);
		while (*all[i])
			kface_block((unsigned long)all[i], "a word");
		*all[i] = 1;
	}
	for (i = 0; i < 2; i++) {
		*all[i] = 0;
		kface_wake((unsigned long)all[i]);
	}
	ended++;
	kface_wake((unsigned long)&ended);
}

static void two(void (*body)(void *))
{
	kface_runs_begin();
	kface_spawn("one", body, words, 0);
	kface_spawn("other", body, words + 1, 0);
	while (ended < 2)
		kface_block((unsigned long)&ended, "the others");
}

static void scene_race(void)
{
	two(count);
	if (words[0] == 2)
		return;
	kface_event("finding");
	kface_text("text", "an update is lost");
	kface_event_end();
}

/* A scene that never comes to its place, and one that comes to what is not modelled. */
static void scene_nowhere(void)
{
	kface_runs_begin();
}

/* A run that cannot be taken back: it has mapped memory. */
static void scene_maps(void)
{
	kface_runs_begin();
	kface_reached("a CPU fault migrated a page back");
	kface_reached("a fault waited for a page that moves");
	memset(malloc(64 << 20), 0, 1 << 20);
}

/* What is left behind is told. */
static void scene_close(void)
{
	int i;

	kface_runs_begin();
	standin_close();
	for (i = 0; i < 8; i++) {
		if (!taken[i].memory)
			continue;
		kface_event("leak");
		kface_number("bytes", taken[i].bytes);
		kface_number("ip", taken[i].from);
		kface_number("holder", 0);
		kface_event_end();
	}
}

static void scene_queue(void)
{
	static struct standin_fence *fences[2];

	kface_runs_begin();
	standin_sync(fences);
}

static void scene_poison(void)
{
	kface_runs_begin();
	standin_follow(standin_alloc(sizeof(struct standin_node)));
}

static void scene_unmodelled(void)
{
	kface_runs_begin();
	standin_pt();
}

/* An engine to compare with: it answers tiles, and tells of what CPUs do. */
static void scene_diff(void)
{
	struct kface_act act;

	kface_runs_begin();
	while (kface_act("faults", 1, &act)) {
		unsigned long addr = 0x7f0000000000UL + act.first * 4096UL;

		if (act.what == KFACE_TILE)
			kface_saw_answer(0);
		else
			kface_saw_notice("clear", addr, addr + 4096, (unsigned long)standin_count + 1);
		kface_act_done(act.first, "rrrrrrrrrrrrrrrr", 1);
	}
}

static int scene(const char *name, long parameter)
{
	static struct standin_fence *fences[2];

	if (!strcmp(name, "A"))
		scene_a();
	else if (!strcmp(name, "B"))
		standin_pt();
	else if (!strcmp(name, "C"))
		standin_sync(fences);
	else if (!strcmp(name, "D1"))
		scene_d1(parameter);
	else if (!strcmp(name, "D2"))
		standin_handle();
	else if (!strcmp(name, "F"))
		scene_f();
	else if (!strcmp(name, "faults"))
		scene_race();
	else if (!strcmp(name, "munmap"))
		two(take_both);
	else if (!strcmp(name, "evict"))
		scene_nowhere();
	else if (!strcmp(name, "cpufault"))
		scene_maps();
	else if (!strcmp(name, "diff-faults"))
		scene_diff();
	else if (!strcmp(name, "close"))
		scene_close();
	else if (!strcmp(name, "queue"))
		scene_queue();
	else if (!strcmp(name, "glue"))
		scene_poison();
	else if (!strcmp(name, "gc"))
		scene_unmodelled();
	else
		return -1;
	return 0;
}

static const char *scene_name(int index)
{
	static const char *const names[] = { "A", "B", "C", "D1", "D2", "F" };

	return index < 6 ? names[index] : 0;
}

static int bug(unsigned long ip)
{
	return 0;
}

int main(void)
{
	struct kface_c_half half = { scene, scene_name, bug, kface_traps, kface_trap_count, kface_trap_base };

	return kface_main(&half);
}
