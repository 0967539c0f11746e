// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The glue itself, by what the kernel promises: a finding here is a lie of ours. Locks exclude, waits end, work runs once at a
 * time, a notice changes the sequence, migration and hmm (the tree's own, over our page tables) keep what is in the pages.
 */
#include <linux/completion.h>
#include <linux/hmm.h>
#include <linux/migrate.h>
#include <linux/mmu_notifier.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include "k_scene.h"

static DEFINE_MUTEX(mutex);
static DECLARE_RWSEM(sem);
static DEFINE_SPINLOCK(spin);
static DECLARE_WAIT_QUEUE_HEAD(queue);
static DECLARE_COMPLETION(done);
static int in_mutex, in_spin, readers, writers, flag, running, times, notices;
static struct work_struct work;

static void check(bool right, const char *promise)
{
	if (right)
		return;
	kface_event("finding");
	kface_text("text", promise);
	kface_event_end();
}

static void pause(void)
{
	k_point("inside", "a section", 0);
}

static void exclude(void *arg)
{
	mutex_lock(&mutex);
	check(!in_mutex++, "a mutex has one owner");
	pause();
	in_mutex--;
	mutex_unlock(&mutex);
	spin_lock(&spin);
	check(!in_spin++, "a spin lock has one owner");
	pause();
	in_spin--;
	spin_unlock(&spin);
	down_read(&sem);
	readers++;
	check(!writers, "no writer is beside a reader");
	pause();
	readers--;
	up_read(&sem);
	down_write(&sem);
	check(!readers && !writers++, "a writer is alone");
	pause();
	writers--;
	downgrade_write(&sem);
	check(!down_write_trylock(&sem), "who has downgraded still reads");
	up_read(&sem);
}

static void run(struct work_struct *of)
{
	check(!running++, "a work item does not run beside itself");
	pause();
	running--;
	times++;
}

static void queue_twice(void *arg)
{
	schedule_work(&work);
	pause();
	schedule_work(&work);
	flush_work(&work);
	check(times >= 1, "flush_work waits for the work");
}

static void wait(void *arg)
{
	wait_event(queue, READ_ONCE(flag));
	wait_for_completion(&done);
	check(flag, "a wait ends when its condition holds");
}

static void wake(void *arg)
{
	pause();
	WRITE_ONCE(flag, 1);
	wake_up(&queue);
	complete_all(&done);
}

static bool notice(struct mmu_interval_notifier *of, const struct mmu_notifier_range *range, unsigned long seq)
{
	mmu_interval_set_seq(of, seq);
	notices++;
	return true;
}

static const struct mmu_interval_notifier_ops ops = { .invalidate = notice };
static struct mmu_interval_notifier ours;

static void sequences(void)
{
	unsigned long seq = mmu_interval_read_begin(&ours);

	check(!mmu_interval_read_retry(&ours, seq), "a sequence holds while nothing changes");
	k_mprotect(K_BLOCK, K_BLOCK + PAGE_SIZE, false);
	check(mmu_interval_read_retry(&ours, seq), "a change is seen by who read before it");
	seq = mmu_interval_read_begin(&ours);
	check(!mmu_interval_read_retry(&ours, seq), "a change is not seen by who reads after it");
}

static u64 first_word(unsigned long addr)
{
	unsigned char *byte;

	return k_cpu_touch(addr, &byte) ? 0 : *(u64 *)byte;
}

/* A migration that has no place to go: all pages are offered, with a notice, and stay what they were. */
static void migration(void)
{
	static unsigned long src[4], dst[4];
	unsigned long start = K_BLOCK + 4 * PAGE_SIZE, before = notices;
	struct migrate_vma args = { .start = start, .end = start + 4 * PAGE_SIZE, .src = src, .dst = dst,
				    .flags = MIGRATE_VMA_SELECT_SYSTEM };
	u64 word = first_word(start);

	mmap_read_lock(k_mm());
	args.vma = find_vma_intersection(k_mm(), start, start + 1);
	check(!migrate_vma_setup(&args), "migrate_vma_setup takes a good range");
	check(args.cpages == 4, "all pages of system memory can be moved");
	check(notices > before, "migrate_vma_setup tells what it does");
	migrate_vma_pages(&args);
	migrate_vma_finalize(&args);
	mmap_read_unlock(k_mm());
	check(first_word(start) == word, "a migration that goes nowhere loses nothing");
	check(first_word(start + 3 * PAGE_SIZE) == word + 3 * PAGE_SIZE, "a migration that goes nowhere loses nothing");
}

static int look_at(unsigned long addr, unsigned long flags, unsigned long *pfn)
{
	struct hmm_range range = { .notifier = &ours, .start = addr, .end = addr + PAGE_SIZE, .hmm_pfns = pfn,
				   .default_flags = flags };
	int err;

	*pfn = 0;
	do {
		range.notifier_seq = mmu_interval_read_begin(&ours);
		mmap_read_lock(k_mm());
		err = hmm_range_fault(&range);
		mmap_read_unlock(k_mm());
	} while (err == -EBUSY);
	return err;
}

static void hmm(struct k_stage *stage)
{
	unsigned long addr = K_BLOCK + 8 * PAGE_SIZE, pfn;
	u64 word = first_word(addr);

	check(!look_at(addr, 0, &pfn) && pfn & HMM_PFN_VALID, "hmm finds a page that is there");
	if (k_xe_fault(stage->vm, 0, addr, false) || k_page_is(addr, &pfn) != 'd')
		kface_give_up("the block does not come to VRAM");
	check(!look_at(addr, 0, &pfn) && !(pfn & HMM_PFN_VALID), "hmm shows nobody a device's page but its owner");
	check(!look_at(addr, HMM_PFN_REQ_FAULT, &pfn) && pfn & HMM_PFN_VALID, "hmm migrates a device's page back for others");
	check(k_page_is(addr, &pfn) == 'r' && first_word(addr) == word, "a page that migrates back is what it was");
}

static void play(long tiles)
{
	struct k_stage stage;
	struct task_struct *me = current;
	struct k_task *tasks[6];
	int i;

	k_stage_new(&stage, 1, false);
	INIT_WORK(&work, run);
	if (mmu_interval_notifier_insert(&ours, k_mm(), K_BLOCK, K_PAGES * PAGE_SIZE, &ops))
		kface_give_up("a notifier cannot be inserted");
	k_runs_begin();
	check(current == me, "a task is itself when runs begin");
	for (i = 0; i < 2; i++) {
		tasks[i] = k_spawn("excludes", exclude, NULL);
		tasks[2 + i] = k_spawn("queues", queue_twice, NULL);
	}
	tasks[4] = k_spawn("waits", wait, NULL);
	tasks[5] = k_spawn("wakes", wake, NULL);
	for (i = 0; i < ARRAY_SIZE(tasks); i++)
		k_join(tasks[i]);
	sequences();
	migration();
	hmm(&stage);
	kface_reached("all promises were looked at");
}

const struct k_scene k_scene_glue = { "glue", play };
