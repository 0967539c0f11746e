// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Completions, wait queues, work queues, time. A task that waits runs what work is queued; nothing left is a deadlock. */
#include <linux/completion.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/timer.h>
#include <linux/wait.h>
#include <linux/swait.h>
#include <linux/workqueue.h>
#include "k.h"

unsigned long volatile jiffies = 1000;

struct workqueue_struct {
	const char *name;
};

static struct workqueue_struct any_queue = { "events" };
struct workqueue_struct *system_wq = &any_queue;
struct workqueue_struct *system_percpu_wq = &any_queue;
struct workqueue_struct *system_dfl_wq = &any_queue;

/* Work that is queued and has not begun, in order. */
#define QUEUED 64
static struct work_struct *queued[QUEUED];
static int waiting;

static bool is_pending(struct work_struct *work)
{
	return test_bit(WORK_STRUCT_PENDING_BIT, work_data_bits(work));
}

static void remove(int at)
{
	memmove(&queued[at], &queued[at + 1], (--waiting - at) * sizeof(queued[0]));
}

static bool run_one(void)
{
	struct work_struct *work;

	if (!waiting)
		return false;
	work = queued[0];
	remove(0);
	clear_bit(WORK_STRUCT_PENDING_BIT, work_data_bits(work));
	work->func(work);
	return true;
}

void k_work_run_all(void)
{
	while (run_one())
		;
}

void k_wait_for(bool (*done)(void *), void *arg, const char *what)
{
	k_may_sleep(what);
	while (!done(arg)) {
		if (run_one())
			continue;
		kface_event("deadlock");
		kface_text("lock", what);
		kface_event_end();
		kface_give_up("a task waits for what nobody does");
	}
}

bool queue_work_on(int cpu, struct workqueue_struct *queue, struct work_struct *work)
{
	if (test_and_set_bit(WORK_STRUCT_PENDING_BIT, work_data_bits(work)))
		return false;
	if (waiting == QUEUED)
		kface_give_up("more work is queued than the glue has room for");
	queued[waiting++] = work;
	return true;
}

bool flush_work(struct work_struct *work)
{
	bool was = is_pending(work);

	while (is_pending(work) && run_one())
		;
	return was;
}

bool cancel_work_sync(struct work_struct *work)
{
	int i;

	for (i = 0; i < waiting; i++) {
		if (queued[i] == work) {
			remove(i);
			clear_bit(WORK_STRUCT_PENDING_BIT, work_data_bits(work));
			return true;
		}
	}
	return false;
}

bool disable_work_sync(struct work_struct *work)
{
	return cancel_work_sync(work);
}

/* Timers that never end: what they guard against, hardware that does not answer, is not modelled. */
bool queue_delayed_work_on(int cpu, struct workqueue_struct *queue, struct delayed_work *work, unsigned long delay)
{
	return delay ? true : queue_work_on(cpu, queue, &work->work);
}

bool mod_delayed_work_on(int cpu, struct workqueue_struct *queue, struct delayed_work *work, unsigned long delay)
{
	return queue_delayed_work_on(cpu, queue, work, delay);
}

bool cancel_delayed_work(struct delayed_work *work)
{
	return cancel_work_sync(&work->work);
}

bool cancel_delayed_work_sync(struct delayed_work *work)
{
	return cancel_work_sync(&work->work);
}

void delayed_work_timer_fn(struct timer_list *timer)
{
}

void timer_init_key(struct timer_list *timer, void (*func)(struct timer_list *), unsigned int flags, const char *name,
		    struct lock_class_key *key)
{
	timer->function = func;
}

struct workqueue_struct *alloc_workqueue_noprof(const char *format, unsigned int flags, int most, ...)
{
	return &any_queue;
}

void destroy_workqueue(struct workqueue_struct *queue)
{
	k_work_run_all();
}

/* Wait queues. */
void __init_waitqueue_head(struct wait_queue_head *head, const char *name, struct lock_class_key *key)
{
	spin_lock_init(&head->lock);
	INIT_LIST_HEAD(&head->head);
}

void __init_swait_queue_head(struct swait_queue_head *head, const char *name, struct lock_class_key *key)
{
	raw_spin_lock_init(&head->lock);
	INIT_LIST_HEAD(&head->task_list);
}

int autoremove_wake_function(struct wait_queue_entry *entry, unsigned int mode, int sync, void *key)
{
	list_del_init(&entry->entry);
	return 1;
}

int default_wake_function(struct wait_queue_entry *entry, unsigned int mode, int flags, void *key)
{
	return 1;
}

void init_wait_entry(struct wait_queue_entry *entry, int flags)
{
	entry->flags = flags;
	entry->private = current;
	entry->func = autoremove_wake_function;
	INIT_LIST_HEAD(&entry->entry);
}

long prepare_to_wait_event(struct wait_queue_head *head, struct wait_queue_entry *entry, int state)
{
	if (list_empty(&entry->entry))
		list_add_tail(&entry->entry, &head->head);
	return 0;
}

void finish_wait(struct wait_queue_head *head, struct wait_queue_entry *entry)
{
	list_del_init(&entry->entry);
}

int __wake_up(struct wait_queue_head *head, unsigned int mode, int most, void *key)
{
	struct wait_queue_entry *entry, *next;

	list_for_each_entry_safe(entry, next, &head->head, entry)
		entry->func(entry, mode, 0, key);
	return 0;
}

void __wake_up_locked(struct wait_queue_head *head, unsigned int mode, int most)
{
	__wake_up(head, mode, most, NULL);
}

void wake_up_var(void *variable)
{
}

int wake_up_state(struct task_struct *task, unsigned int state)
{
	return 0;
}

/* The schedule of a wait loop: who gets here has looked at what it waits for, and found it undone. */
static bool never(void *arg)
{
	return false;
}

void schedule(void)
{
	if (!run_one())
		k_wait_for(never, NULL, "schedule");
}

long schedule_timeout(long timeout)
{
	schedule();
	return timeout;
}

void __trace_set_current_state(int state)
{
}

/* Completions. */
static bool is_done(void *arg)
{
	return READ_ONCE(((struct completion *)arg)->done) != 0;
}

static void wait_completion(struct completion *done)
{
	k_wait_for(is_done, done, "completion");
	if (done->done != UINT_MAX)
		done->done--;
}

void complete(struct completion *done)
{
	if (done->done != UINT_MAX)
		done->done++;
}

void complete_all(struct completion *done) { done->done = UINT_MAX; }
void wait_for_completion(struct completion *done) { wait_completion(done); }
int wait_for_completion_interruptible(struct completion *done) { wait_completion(done); return 0; }
bool completion_done(struct completion *done) { return is_done(done); }

bool try_wait_for_completion(struct completion *done)
{
	if (!is_done(done))
		return false;
	wait_completion(done);
	return true;
}

/* No CPU comes or goes. */
int k_no_hotplug(void) __asm__("__cpuhp_setup_state");
int k_no_hotplug(void) { return 0; }

/* Time stands still but where somebody looks at it: who polls the clock sees it move. */
static ktime_t now = NSEC_PER_SEC;

ktime_t ktime_get(void)
{
	return now += NSEC_PER_USEC;
}

unsigned long __msecs_to_jiffies(const unsigned int ms)
{
	return DIV_ROUND_UP((unsigned long)ms * HZ, MSEC_PER_SEC);
}
