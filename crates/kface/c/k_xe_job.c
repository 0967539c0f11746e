// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Queues and jobs. The tree's own code makes queues and batches; what the GPU's firmware and scheduler do is here: a job that
 * is pushed runs on the modelled copy engine, through page tables as they stand, and its fence signals.
 */
#include <linux/dma-fence.h>
#include <linux/dma-fence-array.h>
#include <drm/gpu_scheduler.h>
#include "xe_dep_job_types.h"
#include "xe_lrc.h"
#include "xe_lrc_types.h"
#include "xe_migrate.h"
#include "xe_sched_job.h"
#include "xe_tlb_inval.h"
#include "xe_tlb_inval_types.h"
#include "k_xe.h"

#define HERE ((unsigned long)__builtin_return_address(0))

int k_jobs;
bool k_xe_is_late;

/* The submission back end of a queue. */
static int queue_init(struct xe_exec_queue *q) { return 0; }
static void queue_nothing(struct xe_exec_queue *q) { }
static void queue_destroy(struct xe_exec_queue *q) { xe_exec_queue_fini(q); }
static bool queue_is_fine(struct xe_exec_queue *q) { return false; }

static const struct xe_exec_queue_ops queue_ops = {
	.init = queue_init,
	.kill = queue_nothing,
	.fini = queue_nothing,
	.destroy = queue_destroy,
	.reset_status = queue_is_fine,
};

void k_xe_queues_init(struct xe_gt *gt)
{
	struct xe_hw_engine *engine = &gt->hw_engines[XE_HW_ENGINE_BCS0];

	engine->gt = gt;
	engine->name = "bcs0";
	engine->class = XE_ENGINE_CLASS_COPY;
	engine->engine_id = XE_HW_ENGINE_BCS0;
	engine->eclass = &gt->eclass[XE_ENGINE_CLASS_COPY];
	gt->exec_queue_ops = &queue_ops;
#if KFACE_HAS_PAGING_ENGINE
	gt->usm.paging_hwe0 = engine;
#endif
#if KFACE_HAS_PAGING_MASK
	gt->usm.paging_logical_mask = 1;
#endif
}

/* Of a tile's engines there is one that copies, and it is the driver's own. */
struct xe_hw_engine *k_gt_engine(struct xe_gt *gt) __asm__("xe_gt_hw_engine");
struct xe_hw_engine *k_gt_engine(struct xe_gt *gt) { return &gt->hw_engines[XE_HW_ENGINE_BCS0]; }

bool k_not_reserved(struct xe_hw_engine *engine) __asm__("xe_hw_engine_is_reserved");
bool k_not_reserved(struct xe_hw_engine *engine) { return false; }

/* Contexts of the hardware: the device makes its own. Bound by name: what they take changes. */
struct xe_lrc *k_lrc_new(void) __asm__("xe_lrc_create");
/* One, and how many of its jobs are done: the driver asks whether a queue is idle, and leaves page tables to a job where it is not. */
struct context {
	struct xe_lrc lrc;
	u32 done;
};

struct xe_lrc *k_lrc_new(void)
{
	struct context *made = kzalloc(sizeof(*made), GFP_KERNEL);

	kref_init(&made->lrc.refcount);
	made->lrc.fence_ctx.next_seqno = 1;
	return &made->lrc;
}

static struct context *context_of(struct xe_lrc *lrc) { return container_of(lrc, struct context, lrc); }

void xe_lrc_destroy(struct kref *ref) { kfree(context_of(container_of(ref, struct xe_lrc, refcount))); }

s32 xe_lrc_seqno(struct xe_lrc *lrc)
{
	if (context_of(lrc)->done != lrc->fence_ctx.next_seqno - 1)
		kface_reached("a queue was busy when it was asked");
	return context_of(lrc)->done;
}

u64 k_lrc_timestamp(struct xe_lrc *lrc, u64 *old) __asm__("xe_lrc_update_timestamp");
u64 k_lrc_timestamp(struct xe_lrc *lrc, u64 *old) { return *old = 0; }

/* Jobs. */
static const char *fence_name(struct dma_fence *fence) { return "xe"; }
static void fence_free(struct rcu_head *head) { kfree(container_of(head, struct drm_sched_fence, finished.rcu)); }
static void fence_gone(struct dma_fence *fence) { call_rcu(&fence->rcu, fence_free); }

static const struct dma_fence_ops job_fence_ops = {
	.get_driver_name = fence_name,
	.get_timeline_name = fence_name,
	.release = fence_gone,
};

static void finished_init(struct drm_sched_job *job)
{
	dma_fence_init(&job->s_fence->finished, &job_fence_ops, &job->s_fence->lock, dma_fence_context_alloc(1), 1);
}

/* The scheduler under jobs that flush behind a bind: one runs when what it depends on has signaled. */
struct k_dep_scheduler {
	struct drm_sched_entity entity;
};

struct k_dep_scheduler *k_dep_scheduler_new(void) __asm__("xe_dep_scheduler_create");
struct k_dep_scheduler *k_dep_scheduler_new(void) { return kzalloc(sizeof(struct k_dep_scheduler), GFP_KERNEL); }
void k_dep_scheduler_end(struct k_dep_scheduler *scheduler) __asm__("xe_dep_scheduler_fini");
void k_dep_scheduler_end(struct k_dep_scheduler *scheduler) { kfree(scheduler); }
struct drm_sched_entity *k_dep_entity(struct k_dep_scheduler *scheduler) __asm__("xe_dep_scheduler_entity");
struct drm_sched_entity *k_dep_entity(struct k_dep_scheduler *scheduler) { return &scheduler->entity; }

static int job_init(struct drm_sched_job *job, unsigned long from)
{
	memset(job, 0, sizeof(*job));
	job->s_fence = k_alloc_for(sizeof(*job->s_fence), from);
	if (!job->s_fence)
		return -ENOMEM;
	spin_lock_init(&job->s_fence->lock);
	xa_init_flags(&job->dependencies, XA_FLAGS_ALLOC);
	return 0;
}

int k_sched_job_init(struct drm_sched_job *job) __asm__("drm_sched_job_init");
int k_sched_job_init(struct drm_sched_job *job) { return job_init(job, HERE); }

void drm_sched_job_arm(struct drm_sched_job *job) { finished_init(job); }

/* A job that was never armed has a fence that nobody knows. */
void drm_sched_job_cleanup(struct drm_sched_job *job)
{
	struct dma_fence *fence;
	unsigned long index;

	if (kref_read(&job->s_fence->finished.refcount))
		dma_fence_put(&job->s_fence->finished);
	else
		kfree(job->s_fence);
	job->s_fence = NULL;
	xa_for_each(&job->dependencies, index, fence)
		dma_fence_put(fence);
	xa_destroy(&job->dependencies);
}

int drm_sched_job_add_dependency(struct drm_sched_job *job, struct dma_fence *fence)
{
	u32 id;
	int err = fence ? xa_alloc(&job->dependencies, &id, fence, xa_limit_32b, GFP_KERNEL) : 0;

	if (err)
		dma_fence_put(fence);
	return err;
}

static void wait_for_dependencies(struct drm_sched_job *job)
{
	struct dma_fence *fence;
	unsigned long index;

	xa_for_each(&job->dependencies, index, fence) {
		if (!dma_fence_is_signaled(fence))
			kface_reached("a job waited for what it depends on");
		dma_fence_wait(fence, false);
	}
}

static void run_dep_job(struct xe_dep_job *dep)
{
	struct dma_fence *finished = &dep->drm.s_fence->finished, *fence;

	wait_for_dependencies(&dep->drm);
	fence = dep->ops->run_job(dep);
	if (!IS_ERR_OR_NULL(fence)) {
		dma_fence_wait(fence, false);
		dma_fence_put(fence);
	}
	dma_fence_get(finished);
	dma_fence_signal(finished);
	dep->ops->free_job(dep);
	dma_fence_put(finished);
}

/* Lines of jobs, each served by a task of its own: one for each tile's copy engine, one for jobs that flush, one that clears. */
struct line {
	struct {
		struct drm_sched_job *job;
		void (*run)(struct drm_sched_job *job, unsigned long from);
		/* Who pushed it. */
		unsigned long from;
	} jobs[16];
	int first, last;
};

static struct line lines[K_TILES + 2];
#define FLUSHES (&lines[K_TILES])
#define CLEARS (&lines[K_TILES + 1])

static void serve(void *arg)
{
	struct line *line = arg;

	for (;;) {
		int at;

		while (line->first == line->last)
			k_block(line, "a job");
		at = line->first++ % ARRAY_SIZE(line->jobs);
		line->jobs[at].run(line->jobs[at].job, line->jobs[at].from);
	}
}

static void stand_in_line(struct line *line, struct drm_sched_job *job,
			  void (*run)(struct drm_sched_job *job, unsigned long from), unsigned long from)
{
	int at = line->last % ARRAY_SIZE(line->jobs);

	if (line->last - line->first == ARRAY_SIZE(line->jobs))
		kface_give_up("more jobs wait than the glue has room for");
	line->jobs[at].job = job;
	line->jobs[at].run = run;
	line->jobs[at].from = from;
	line->last++;
	k_wake(line);
}

static void run_flush(struct drm_sched_job *job, unsigned long from) { run_dep_job(container_of(job, struct xe_dep_job, drm)); }
void drm_sched_entity_push_job(struct drm_sched_job *job) { stand_in_line(FLUSHES, job, run_flush, HERE); }

bool xe_sched_job_is_migration(struct xe_exec_queue *q)
{
	return q->vm && (q->vm->flags & XE_VM_FLAG_MIGRATION);
}

struct xe_sched_job *xe_sched_job_create(struct xe_exec_queue *q, u64 *batch)
{
	int i, batches = xe_sched_job_is_migration(q) ? 2 : q->width;
	struct xe_sched_job *job = k_alloc_for(sizeof(*job) + batches * sizeof(job->ptrs[0]), HERE);

	if (!job)
		return ERR_PTR(-ENOMEM);
	if (job_init(&job->drm, HERE)) {
		kfree(job);
		return ERR_PTR(-ENOMEM);
	}
	job->q = xe_exec_queue_get(q);
	kref_init(&job->refcount);
	for (i = 0; i < batches; i++)
		job->ptrs[i].batch_addr = batch[i];
	return job;
}

void xe_sched_job_destroy(struct kref *ref)
{
	struct xe_sched_job *job = container_of(ref, struct xe_sched_job, refcount);

	xe_exec_queue_put(job->q);
	drm_sched_job_cleanup(&job->drm);
	kfree(job);
}

void xe_sched_job_arm(struct xe_sched_job *job)
{
	job->q->lrc[0]->fence_ctx.next_seqno++;
	drm_sched_job_arm(&job->drm);
}

int xe_sched_job_add_deps(struct xe_sched_job *job, struct dma_resv *resv, enum dma_resv_usage usage)
{
	struct dma_resv_iter cursor;
	struct dma_fence *fence;
	int err = 0;

	dma_resv_for_each_fence(&cursor, resv, usage, fence)
		err = err ?: drm_sched_job_add_dependency(&job->drm, dma_fence_get(fence));
	return err;
}

static void run_job(struct drm_sched_job *drm, unsigned long from)
{
	struct xe_sched_job *job = container_of(drm, struct xe_sched_job, drm);
	struct xe_tile *tile = gt_to_tile(job->q->gt);
	unsigned int space = job->q->vm->usm.asid;
	int i, failed = 0;

	wait_for_dependencies(drm);
	if (job->q->vm->flags & XE_VM_FLAG_MIGRATION)
		space = (1U << 20) - 1 - tile->id;
	kface_gpu_root(tile->id, space, xe_bo_addr(job->q->vm->pt_root[tile->id]->bo, 0, SZ_4K), job->q->vm->flags & XE_VM_FLAG_64K);
	for (i = 0; i < 2 && !failed; i++) {
		k_point(i ? "engine copies" : "engine begins", "job", 0);
		/* The ring flushes translations before the second part, which uses what the first part wrote. */
		kface_gpu_flush(tile->id, space, 0, 1ULL << 48);
		failed = kface_gpu_batch(tile->id, space, job->ptrs[i].batch_addr);
	}
	kface_saw_copies(tile->id, from);
	kface_event("job");
	kface_number("tile", tile->id);
	kface_number("failed", failed != 0);
	kface_event_end();
	context_of(job->q->lrc[0])->done++;
	if (failed)
		dma_fence_set_error(&job->drm.s_fence->finished, -EIO);
	dma_fence_signal(&job->drm.s_fence->finished);
	xe_sched_job_put(job);
}

/* Work of others in a queue: nothing that anybody here waits for. */
struct other_work {
	struct drm_sched_job job;
	struct xe_lrc *lrc;
};

static void run_other(struct drm_sched_job *job, unsigned long from)
{
	struct other_work *work = container_of(job, struct other_work, job);
	int i;

	/* Long enough for whoever looks at the queue meanwhile. */
	for (i = 0; i < 4; i++)
		k_yield();
	context_of(work->lrc)->done++;
	kfree(work);
}

static void keep_busy(struct xe_exec_queue *q)
{
	/* It is not the driver who asks for this, under whatever locks of his. */
	struct other_work *work = kzalloc(sizeof(*work), GFP_ATOMIC);

	work->lrc = q->lrc[0];
	work->lrc->fence_ctx.next_seqno++;
	stand_in_line(&lines[gt_to_tile(q->gt)->id], &work->job, run_other, HERE);
}

/* Others' work stands behind: when this is done the queue is not idle. */
void xe_sched_job_push(struct xe_sched_job *job)
{
	k_jobs++;
	stand_in_line(&lines[gt_to_tile(job->q->gt)->id], &job->drm, run_job, HERE);
	if (k_xe_is_late)
		keep_busy(job->q);
}

/* Memory that is cleared when its turn comes, and not at once. */
struct clearing {
	struct drm_sched_job job;
	void *memory;
	size_t bytes;
};

static void run_clear(struct drm_sched_job *job, unsigned long from)
{
	struct clearing *clear = container_of(job, struct clearing, job);
	struct dma_fence *fence = &job->s_fence->finished;
	int i;

	/* Others' buffers are cleared first: so long a copy may be on its way. */
	for (i = 0; i < 24; i++)
		k_yield();
	k_point("engine clears", "a buffer", 0);
	memset(clear->memory, 0, clear->bytes);
	dma_fence_signal(fence);
	drm_sched_job_cleanup(job);
	kfree(clear);
}

struct dma_fence *k_xe_clear_late(void *memory, size_t bytes)
{
	struct clearing *clear = kzalloc(sizeof(*clear), GFP_KERNEL);
	struct dma_fence *fence;

	if (!clear || job_init(&clear->job, HERE))
		kface_give_up("there is no memory for a job that clears");
	clear->memory = memory;
	clear->bytes = bytes;
	drm_sched_job_arm(&clear->job);
	fence = dma_fence_get(&clear->job.s_fence->finished);
	stand_in_line(CLEARS, &clear->job, run_clear, HERE);
	return fence;
}

void k_engines_start(int tiles)
{
	int id;

	k_spawn_daemon("flusher", serve, FLUSHES);
	for (id = 0; id < tiles; id++)
		k_spawn_daemon("engine", serve, &lines[id]);
}

void k_xe_be_late(void)
{
	k_xe_is_late = true;
	k_spawn_daemon("clearer", serve, CLEARS);
}

/* Flushes of translations: the tree's own bookkeeping, over a device that answers at once. */
static struct xe_tile *flushed_tile(struct xe_tlb_inval *inval)
{
	return gt_to_tile(container_of(inval, struct xe_gt, tlb_inval));
}

static int flush_all(struct xe_tlb_inval *inval, u32 seqno)
{
	xe_tlb_inval_done_handler(inval, seqno);
	return 0;
}

static int flush_range(struct xe_tlb_inval *inval, u32 seqno, u64 start, u64 end, u32 asid, struct drm_suballoc *pages)
{
	kface_gpu_flush(flushed_tile(inval)->id, asid, start, end);
	kface_saw_flush(flushed_tile(inval)->id, start, end, HERE);
	xe_tlb_inval_done_handler(inval, seqno);
	return 0;
}

static bool flush_is_ready(struct xe_tlb_inval *inval) { return true; }
static void flush_nothing(struct xe_tlb_inval *inval) { }
static long flush_patience(struct xe_tlb_inval *inval) { return HZ; }

static const struct xe_tlb_inval_ops flush_ops = {
	.all = flush_all,
	.ggtt = flush_all,
	.ppgtt = flush_range,
	.initialized = flush_is_ready,
	.flush = flush_nothing,
	.timeout_delay = flush_patience,
};

void k_flush_init(void *guc, struct xe_tlb_inval *inval) __asm__("xe_guc_tlb_inval_init_early");
void k_flush_init(void *guc, struct xe_tlb_inval *inval)
{
	inval->ops = &flush_ops;
}

/*
 * Arrays of fences, looked at before they are made: a slot that nobody filled still holds the allocator's poison. The link puts
 * this in front of the tree's own function.
 */
struct dma_fence_array *__real_dma_fence_array_create(int count, struct dma_fence **fences, u64 context, unsigned int seqno);
struct dma_fence_array *__wrap_dma_fence_array_create(int count, struct dma_fence **fences, u64 context, unsigned int seqno);
struct dma_fence_array *__wrap_dma_fence_array_create(int count, struct dma_fence **fences, u64 context, unsigned int seqno)
{
	const unsigned long poison = 0x0101010101010101UL * K_POISON_NEW;
	int i, filled = 0;

	for (i = 0; i < count; i++)
		filled += (unsigned long)fences[i] != poison;
	kface_event("fence_array");
	kface_number("counted", count);
	kface_number("filled", filled);
	kface_event_end();
	if (filled < count) {
		kface_event("unfilled_fences");
		kface_number("counted", count);
		kface_number("filled", filled);
		kface_number("ip", HERE);
		kface_event_end();
	}
	return __real_dma_fence_array_create(count, fences, context, seqno);
}
