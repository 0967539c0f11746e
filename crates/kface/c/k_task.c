// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The current task: one, of a process that has the memory of k_mm.c. */
#include <linux/sched.h>
#include <linux/cred.h>
#include <linux/sched/mm.h>
#include "k.h"

extern struct task_struct *k_current __asm__("const_current_task");

void k_enter(void)
{
	struct task_struct *task = kzalloc(sizeof(*task), GFP_KERNEL);

	task->pid = task->tgid = 1;
	task->mm = task->active_mm = k_mm();
	strscpy(task->comm, "program", sizeof(task->comm));
	k_current = task;
}

/* Kernel threads that use a process' memory: the memory is always here. */
void kthread_use_mm(struct mm_struct *mm)
{
}

void kthread_unuse_mm(struct mm_struct *mm)
{
}
