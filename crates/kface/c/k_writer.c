// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Who writes, and what must be there in the end: accesses of tiles, whose faults are served at once or by the driver's own queue,
 * and of CPUs. Each writer has a word of his own in each page, so none may ever be lost; all of it is looked at when all have ended.
 */
#include "k_writer.h"

#define WRITERS 4
#define TRIES 24

/* One who writes his word of each page of some pages, again and again. */
struct writer {
	/* The VM may be gone while the hardware still has its number. */
	struct xe_vm *vm;
	struct xe_device *xe;
	u32 asid;
	enum k_served served;
	/* A tile, or -1: the CPU. */
	int tile;
	int slot;
	unsigned long start;
	int pages;
	int rounds;
	/* What he wrote last, and had written when a child got the page. */
	u64 wrote[K_PAGES];
	u64 at_fork[K_PAGES];
};

static struct writer writers[WRITERS];
static int writing;
static int serving;
static bool forked;
const struct xe_vm *k_closing;

void k_found(const char *text, unsigned long addr, u64 value)
{
	kface_event("finding");
	kface_text("text", text);
	kface_number("address", addr);
	kface_number("value", value);
	kface_event_end();
}

bool k_faults_served(void)
{
	return serving > 0;
}

/* Whether somebody who is told this errno can go on: of memory that is mapped none is right, but for a VM that is being closed. */
static bool is_refused(const struct writer *w, unsigned long addr, int err)
{
	if (!err)
		return false;
	if (w->vm != k_closing)
		k_found("a fault of mapped memory is refused", addr, err);
	else if (err != -ENOENT && err != -EINVAL)
		k_found("a fault of a VM that is closed is refused", addr, err);
	else
		kface_reached("a fault met a VM that is closed");
	return true;
}

/* Faults of tiles that were served, in all. */
static unsigned long served_in_all;

/* An access of a tile: what the hardware does, fault by fault. */
static bool tile_access(struct writer *w, unsigned long addr, bool write, u64 *value)
{
	unsigned long before = served_in_all;
	int tries, err;

	for (tries = 0; tries < TRIES; tries++) {
		kface_u64 word = *value;

		k_point(write ? "tile writes" : "tile reads", "memory", addr);
		if (!kface_gpu_access(w->tile, w->asid, addr, write, &word)) {
			if (forked && write)
				kface_reached("a tile stored after the fork");
			*value = word;
			return true;
		}
		serving++;
		if (w->served == K_BY_QUEUE)
			err = k_xe_fault_by_queue(w->xe, w->asid, w->tile, addr, write);
		else
			err = k_xe_fault(w->vm, w->tile, addr, write);
		serving--;
		served_in_all++;
		if (serving)
			kface_reached("a fault came while another was served");
		if (is_refused(w, addr, err))
			return false;
		if (tries)
			k_yield();
	}
	/* D8: what one fault brought to its tile, the next one takes to another. */
	k_found(served_in_all - before > tries + tries / 2 ? "two tiles take a block from each other again and again" :
		"a tile faults again and again", addr, tries);
	return false;
}

static bool cpu_access(unsigned long addr, bool write, u64 *value)
{
	unsigned char *byte;

	k_point(write ? "CPU writes" : "CPU reads", "memory", addr);
	if (k_cpu_access(addr, write, &byte)) {
		k_found("a CPU faults again and again", addr, 0);
		return false;
	}
	if (write)
		*(u64 *)byte = *value;
	else
		*value = *(u64 *)byte;
	return true;
}

static bool access(struct writer *w, unsigned long addr, bool write, u64 *value)
{
	return w->tile < 0 ? cpu_access(addr, write, value) : tile_access(w, addr, write, value);
}

static void write_pages(void *arg)
{
	struct writer *w = arg;
	int round, i;

	for (round = 0; round < w->rounds; round++) {
		for (i = 0; i < w->pages; i++) {
			unsigned long addr = w->start + i * PAGE_SIZE + w->slot * 8;
			u64 value = 0, next = ((u64)(w->slot + 1) << 32) + round * 100 + i + 1;

			if (!access(w, addr, false, &value))
				return;
			if (value != w->wrote[i])
				k_found("a writer reads something else than he wrote", addr, value);
			if (!access(w, addr, true, &next))
				return;
			w->wrote[i] = next;
		}
	}
}

struct k_task *k_writer(struct xe_vm *vm, enum k_served served, int tile, int first, int pages, int rounds)
{
	struct writer *w = &writers[writing++];

	*w = (struct writer){
		.vm = vm, .xe = vm ? vm->xe : NULL, .asid = vm ? vm->usm.asid : 0, .served = served, .tile = tile,
		.slot = writing, .start = K_BLOCK + first * PAGE_SIZE, .pages = pages, .rounds = rounds,
	};
	return k_spawn(tile < 0 ? "CPU" : tile ? "tile 1" : "tile 0", write_pages, w);
}

/* A page becomes the child's, too, and no store comes between this and that. */
static void note_shared(unsigned long addr)
{
	int n, i;

	for (n = 0; n < writing; n++) {
		for (i = 0; i < writers[n].pages; i++) {
			if (writers[n].start + i * PAGE_SIZE == addr)
				writers[n].at_fork[i] = writers[n].wrote[i];
		}
	}
}

void k_writers_fork(void)
{
	if (k_faults_served())
		kface_reached("the process forked while a fault was served");
	k_fork(K_BLOCK, K_PAGES, note_shared);
	forked = true;
}

/* What was stored before the fork, and nothing else. All pages are in system memory by then. */
static void look_at_child(const struct writer *w)
{
	int i;

	for (i = 0; i < w->pages; i++) {
		unsigned long addr = w->start + i * PAGE_SIZE;
		u64 *word = k_child_page(addr);

		if (!word)
			k_found("a child has lost a page", addr, 0);
		else if (word[w->slot] != w->at_fork[i])
			k_found(word[w->slot] > w->at_fork[i] ? "a child reads what was stored after the fork"
							      : "LOST: a child does not find what was stored before the fork",
				addr, word[w->slot]);
	}
}

/* Everything that was written is there. */
static void look(void)
{
	int n, i;

	for (n = 0; n < writing; n++) {
		for (i = 0; i < writers[n].pages; i++) {
			unsigned long addr = writers[n].start + i * PAGE_SIZE + writers[n].slot * 8;
			u64 value = 0;

			if (cpu_access(addr, false, &value) && value != writers[n].wrote[i])
				k_found("LOST: the CPU does not find what was written last", addr, value);
		}
	}
	if (k_freed_pages_written())
		k_found("a page that was given back has been written to", 0, k_freed_pages_written());
}

void k_settle(struct k_task **tasks, int count)
{
	int i;

	for (i = 0; i < count; i++)
		k_join(tasks[i]);
	k_work_run_all();
	look();
	if (!forked)
		return;
	k_stage_evict(-1);
	for (i = 0; i < writing; i++)
		look_at_child(&writers[i]);
}
