// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* Completions, wait queues, work queues with workers of their own, time. */
#include <linux/completion.h>
#include <linux/jiffies.h>
#include <linux/irq_work.h>
#include <linux/ktime.h>
#include <linux/timer.h>
#include <linux/wait.h>
#include <linux/swait.h>
#include <linux/workqueue.h>
#include "k.h"

unsigned long volatile jiffies = 1000;

struct workqueue_struct {
	bool ordered;
	struct work_struct *running;
};

static struct workqueue_struct any_queue;
struct workqueue_struct *system_wq = &any_queue;
struct workqueue_struct *system_percpu_wq = &any_queue;
struct workqueue_struct *system_dfl_wq = &any_queue;

/* Work that is queued and has not begun, in order, and what each worker does. */
#define QUEUED 64
#define WORKERS 3
static struct { struct work_struct *work; struct workqueue_struct *queue; } queued[QUEUED];
static struct work_struct *doing[WORKERS];
static struct workqueue_struct *of_queue[WORKERS];
static int waiting;

static bool is_pending(struct work_struct *work)
{
	return test_bit(WORK_STRUCT_PENDING_BIT, work_data_bits(work));
}

static bool is_running(const struct work_struct *work)
{
	int i;

	for (i = 0; i < WORKERS; i++) {
		if (doing[i] == work)
			return true;
	}
	return false;
}

static void remove(int at)
{
	memmove(&queued[at], &queued[at + 1], (--waiting - at) * sizeof(queued[0]));
}

/* The first that may begin: no work runs twice at once, and an ordered queue does one after the other. */
static int next_work(void)
{
	int i;

	for (i = 0; i < waiting; i++) {
		if (!is_running(queued[i].work) && !(queued[i].queue->ordered && queued[i].queue->running))
			return i;
	}
	return -1;
}

static void serve(void *arg)
{
	struct work_struct **mine = arg;

	for (;;) {
		struct workqueue_struct *queue;
		int at = next_work();

		if (at < 0) {
			k_block(queued, "work");
			continue;
		}
		*mine = queued[at].work;
		queue = queued[at].queue;
		queue->running = *mine;
		of_queue[mine - doing] = queue;
		remove(at);
		clear_bit(WORK_STRUCT_PENDING_BIT, work_data_bits(*mine));
		k_point("work begins", "work", (unsigned long)(*mine)->func);
		k_self->patience = K_PATIENCE;
		(*mine)->func(*mine);
		k_self->patience = 0;
		*mine = NULL;
		queue->running = NULL;
		k_wake(queued);
		k_changed();
	}
}

/* Work of interrupts, in order, by a task of its own. */
static struct irq_work *irq_queue[16];
static int irq_first, irq_last;

/* Who finds it queued already leaves it so. */
static bool irq_work_claim(struct irq_work *work)
{
	return !(atomic_fetch_or(IRQ_WORK_CLAIMED, &work->node.a_flags) & IRQ_WORK_PENDING);
}

bool irq_work_queue(struct irq_work *work)
{
	if (!irq_work_claim(work))
		return false;
	if (irq_last - irq_first == ARRAY_SIZE(irq_queue))
		kface_give_up("more interrupts wait than the glue has room for");
	irq_queue[irq_last++ % ARRAY_SIZE(irq_queue)] = work;
	k_wake(irq_queue);
	return true;
}

static void interrupt(void *arg)
{
	for (;;) {
		struct irq_work *work;

		while (irq_first == irq_last)
			k_block(irq_queue, "work");
		work = irq_queue[irq_first++ % ARRAY_SIZE(irq_queue)];
		atomic_andnot(IRQ_WORK_PENDING, &work->node.a_flags);
		work->func(work);
		atomic_andnot(IRQ_WORK_BUSY, &work->node.a_flags);
		k_changed();
	}
}

static bool is_quiet(void *work)
{
	return !irq_work_is_busy(work);
}

void irq_work_sync(struct irq_work *work)
{
	k_wait_for(is_quiet, work, "irq_work_sync");
}

void k_workers_start(void)
{
	int i;

	for (i = 0; i < WORKERS; i++)
		k_spawn_daemon("kworker", serve, &doing[i]);
	k_spawn_daemon("irq", interrupt, NULL);
}

int k_work_running(const struct workqueue_struct *queue)
{
	int i, running = 0;

	for (i = 0; i < WORKERS; i++)
		running += doing[i] && of_queue[i] == queue;
	return running;
}

static bool all_done(void *arg)
{
	int i;

	for (i = 0; i < WORKERS; i++) {
		if (doing[i])
			return false;
	}
	return !waiting;
}

void k_work_run_all(void)
{
	k_wait_for(all_done, NULL, "all work");
}

static char changes;

void k_changed(void)
{
	k_wake(&changes);
}

void k_wait_for(bool (*done)(void *), void *arg, const char *what)
{
	k_may_sleep(what);
	while (!done(arg))
		k_block(&changes, what);
}

bool queue_work_on(int cpu, struct workqueue_struct *queue, struct work_struct *work)
{
	if (test_and_set_bit(WORK_STRUCT_PENDING_BIT, work_data_bits(work)))
		return false;
	if (waiting == QUEUED)
		kface_give_up("more work is queued than the glue has room for");
	queued[waiting].work = work;
	queued[waiting++].queue = queue;
	k_wake(queued);
	return true;
}

static bool is_idle(void *work)
{
	return !is_pending(work) && !is_running(work);
}

bool flush_work(struct work_struct *work)
{
	bool was = !is_idle(work);

	k_wait_for(is_idle, work, "flush_work");
	return was;
}

static bool take_back(struct work_struct *work)
{
	int i;

	for (i = 0; i < waiting; i++) {
		if (queued[i].work == work) {
			remove(i);
			clear_bit(WORK_STRUCT_PENDING_BIT, work_data_bits(work));
			return true;
		}
	}
	return false;
}

bool cancel_work_sync(struct work_struct *work)
{
	bool was = take_back(work);

	k_wait_for(is_idle, work, "cancel_work_sync");
	return was;
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
	return take_back(&work->work);
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
	struct workqueue_struct *queue = kzalloc(sizeof(*queue), GFP_KERNEL);

	if (queue)
		queue->ordered = flags & __WQ_ORDERED;
	return queue;
}

void destroy_workqueue(struct workqueue_struct *queue)
{
	k_work_run_all();
	kfree(queue);
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

int default_wake_function(struct wait_queue_entry *entry, unsigned int mode, int flags, void *key)
{
	return wake_up_state(entry->private, mode);
}

int autoremove_wake_function(struct wait_queue_entry *entry, unsigned int mode, int sync, void *key)
{
	int woken = default_wake_function(entry, mode, sync, key);

	if (woken)
		list_del_init(&entry->entry);
	return woken;
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
	spin_lock(&head->lock);
	if (list_empty(&entry->entry))
		list_add_tail(&entry->entry, &head->head);
	set_current_state(state);
	spin_unlock(&head->lock);
	return 0;
}

void finish_wait(struct wait_queue_head *head, struct wait_queue_entry *entry)
{
	__set_current_state(TASK_RUNNING);
	spin_lock(&head->lock);
	list_del_init(&entry->entry);
	spin_unlock(&head->lock);
}

void __wake_up_locked(struct wait_queue_head *head, unsigned int mode, int most)
{
	struct wait_queue_entry *entry, *next;

	list_for_each_entry_safe(entry, next, &head->head, entry)
		entry->func(entry, mode, 0, NULL);
}

int __wake_up(struct wait_queue_head *head, unsigned int mode, int most, void *key)
{
	spin_lock(&head->lock);
	__wake_up_locked(head, mode, most);
	spin_unlock(&head->lock);
	return 0;
}

void wake_up_var(void *variable)
{
	k_changed();
}

int wake_up_state(struct task_struct *task, unsigned int state)
{
	k_point("wake_up", task->comm, 0);
	if (!(READ_ONCE(task->__state) & state))
		return 0;
	WRITE_ONCE(task->__state, TASK_RUNNING);
	k_wake(task);
	return 1;
}

/* Sleeps until somebody wakes the task: who is running already goes on at once. */
void schedule(void)
{
	k_may_sleep("schedule");
	while (READ_ONCE(current->__state) != TASK_RUNNING)
		k_block(current, "a wake up");
}

/* No time passes: what it would guard against, hardware that does not answer, is not modelled. */
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
	k_point("wait_for_completion", "completion", (unsigned long)__builtin_return_address(0));
	k_wait_for(is_done, done, "completion");
	if (done->done != UINT_MAX)
		done->done--;
}

void complete(struct completion *done)
{
	if (done->done != UINT_MAX)
		done->done++;
	k_changed();
}

void complete_all(struct completion *done)
{
	done->done = UINT_MAX;
	k_changed();
}

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
