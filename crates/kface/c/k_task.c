// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Tasks: each is a coroutine of the scheduler that drives the run. What the kernel has once a CPU or once a task (current, the
 * preempt count, the locks that lockdep knows of) is put aside wherever another task may go on.
 */
#include <linux/cred.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include "k.h"

extern struct task_struct *k_current __asm__("const_current_task");
extern unsigned long k_preempt_count __asm__("__preempt_count");

struct k_task *k_self;
static struct k_task *tasks;
static int last;

/* Others may go on in `call`. */
#define AWAY(call)					\
	do {						\
		struct k_task *me = k_self;		\
		unsigned long count = k_preempt_count;	\
							\
		call;					\
		run_as(me, count);			\
	} while (0)

static void run_as(struct k_task *task, unsigned long count)
{
	k_self = task;
	k_current = &task->task;
	k_preempt_count = count;
}

static struct k_task *task_new(const char *name, void (*body)(void *), void *arg)
{
	struct k_task *made = k_must_alloc(sizeof(*made));

	made->next = tasks;
	tasks = made;
	made->task.pid = ++last;
	made->task.tgid = 1;
	made->task.mm = made->task.active_mm = k_mm();
	strscpy(made->task.comm, name, sizeof(made->task.comm));
	made->body = body;
	made->arg = arg;
	return made;
}

/* The task that is there before any is made. */
void k_enter(void)
{
	run_as(task_new("program", NULL, NULL), (unsigned long)PREEMPT_ENABLED);
}

static void begin(void *arg)
{
	struct k_task *task = arg;

	run_as(task, (unsigned long)PREEMPT_ENABLED);
	task->body(task->arg);
	k_balanced(task);
	task->ended = true;
	k_wake(task);
}

static struct k_task *start(const char *name, void (*body)(void *), void *arg, int daemon)
{
	struct k_task *made = task_new(name, body, arg);

	AWAY(kface_spawn(made->task.comm, begin, made, daemon));
	return made;
}

struct k_task *k_spawn(const char *name, void (*body)(void *), void *arg) { return start(name, body, arg, 0); }
void k_spawn_daemon(const char *name, void (*body)(void *), void *arg) { start(name, body, arg, 1); }

void k_join(struct k_task *task)
{
	while (!task->ended)
		k_block(task, task->task.comm);
}

/* Whether any task is so. */
bool k_any_task(bool (*is)(const struct k_task *))
{
	struct k_task *task;

	for (task = tasks; task; task = task->next) {
		if (is(task))
			return true;
	}
	return false;
}

/* Engines and others that serve run here for the first time. */
void k_runs_begin(void)
{
	AWAY(kface_runs_begin());
}

void k_yield(void)
{
	AWAY(kface_yield());
}

void k_point(const char *what, const char *name, unsigned long ip)
{
	AWAY(kface_point(what, name, ip));
}

void k_block(const void *channel, const char *what)
{
	AWAY(kface_block((unsigned long)channel, what));
}

void k_wake(const void *channel)
{
	AWAY(kface_wake((unsigned long)channel));
}

/* Kernel threads that use a process' memory: the memory is always here. */
void kthread_use_mm(struct mm_struct *mm)
{
}

void kthread_unuse_mm(struct mm_struct *mm)
{
}
