/*
 * What a Battlemage does that a Ponte Vecchio refuses, and the other way round: one page in VRAM, atomics in system memory, cache
 * attributes, scratch pages beside faults, a hint against compression, a render engine, 48 bits of address. The GT's version says which
 * one it is. A line for what is not as it should be; the last line is `FAMILY bmg ok`, `FAMILY pvc ok`, or the same with
 * `BAD failures=<n>`. Exit status 0 or 1; 2 where a call failed that must not.
 */
#define _GNU_SOURCE
#include "is.h"
#include "prime.h"
#include <sys/mman.h>

enum { VM_SCRATCH = 1, GEM_NO_COMPRESSION = 8, CONFIG_NO_COMPRESSION_HINT = 8, CLASS_RENDER = 0 };
enum { ATOMIC_DEVICE = 1, ATOMIC_GLOBAL = 2, LOCATION_SYSTEM = -1 };
#define GPU 0x100000000000ull
#define BLOCK (2ul << 20)
#define BLOCK_64K (64ul << 10)

static struct gpu gpu;
static int bmg;

static int create_buffer(uint64_t size, uint32_t flags, uint32_t *handle) {
    struct gem_create create = {.size = size, .placement = PLACE_VRAM0, .flags = flags, .cpu_caching = CACHING_WC};
    int error = answer(gpu.fd, IOC_GEM_CREATE, &create);
    *handle = create.handle;
    return error;
}

static int map_at(struct bind_op op) {
    uint64_t fence = 0;
    struct sync sync = {.type = SYNC_USER_FENCE, .flags = SYNC_SIGNAL, .addr = AT(&fence), .value = FENCE_VALUE};
    struct vm_bind bind = {.vm_id = gpu.vm, .num_binds = 1, .bind = op, .num_syncs = 1, .syncs = AT(&sync)};
    int error = answer(gpu.fd, IOC_VM_BIND, &bind);
    return error ? error : wait_fence(gpu.fd, &fence, 0);
}

static int stores(uint32_t value, uint64_t at) {
    struct batch batch = {0};
    store32(&batch, (void *)at, value);
    return run(&gpu, 0, &batch);
}

/* A buffer in VRAM of one page, and one page of a buffer. */
static void a_page_in_vram(void) {
    uint32_t handle, large;
    IS(create_buffer(PAGE, 0, &handle), bmg ? 0 : EINVAL);
    IS(create_buffer(BLOCK_64K, 0, &large), 0);
    struct bind_op op = {.obj = large, .pat_index = PAT_COHERENT, .obj_offset = 3 * PAGE, .range = PAGE, .addr = GPU + 5 * PAGE, .op = BIND_MAP};
    IS(map_at(op), bmg ? 0 : EINVAL);
    if (!bmg)
        return;
    struct gem_mmap_offset offset = {.handle = large};
    must_ioctl(gpu.fd, IOC_GEM_MMAP_OFFSET, &offset, "GEM_MMAP_OFFSET");
    volatile uint32_t *cpu = mmap(NULL, BLOCK_64K, PROT_READ | PROT_WRITE, MAP_SHARED, gpu.fd, offset.offset);
    IS(stores(0x4b, GPU + 5 * PAGE + 8), 0);
    IS(cpu[(3 * PAGE + 8) / 4], 0x4b);
    op.obj = handle;
    op.obj_offset = 0;
    op.addr = GPU + 6 * PAGE;
    IS(map_at(op), 0);
    IS(stores(1, GPU + 6 * PAGE), 0);
    op = (struct bind_op){.range = 2 * PAGE, .addr = GPU + 5 * PAGE, .op = BIND_UNMAP};
    IS(map_at(op), 0);
}

/* One page of its own range, by the advice on both sides of it: a Ponte Vecchio cannot do an atomic there at all. */
static void a_small_atomic(void) {
    char *all = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t *word = (void *)(((AT(all) + BLOCK - 1) & -BLOCK) + 3 * PAGE);
    *word = 7;
    struct madvise args = {.start = AT(word), .range = PAGE, .vm_id = gpu.vm, .attr = ATOMIC, .value = ATOMIC_GLOBAL};
    IS(answer(gpu.fd, IOC_MADVISE, &args), 0);
    struct batch batch = {0};
    atomic_inc32(&batch, word);
    IS(run(&gpu, 0, &batch), bmg ? 0 : EIO);
    IS(*word, bmg ? 8 : 7);
    if (!bmg) { /* the queue is banned */
        gpu.queues[0] = queue_open(&gpu, engine_of(gpu.fd, 0));
    }
}

/* Atomics of the device, on memory that shall stay in system memory. */
static void an_atomic_in_system_memory(void) {
    char *all = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t *word = (void *)((AT(all) + BLOCK - 1) & -BLOCK);
    struct madvise args = {.start = AT(word), .range = BLOCK, .vm_id = gpu.vm, .attr = PREFERRED_LOC, .value = LOCATION_SYSTEM};
    IS(answer(gpu.fd, IOC_MADVISE, &args), 0);
    args.attr = ATOMIC;
    args.value = ATOMIC_DEVICE;
    IS(answer(gpu.fd, IOC_MADVISE, &args), 0);
    *word = 40;
    for (int n = 0; n < 2; n++) {
        struct batch batch = {0};
        atomic_inc32(&batch, word);
        IS(run(&gpu, 0, &batch), 0);
    }
    IS(*word, 42);
}

/* Which indices there are, and that a userptr needs one that snoops. */
static void cache_attributes(void) {
    char *page = mmap(NULL, BLOCK_64K, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct madvise args = {.start = AT(page), .range = PAGE, .vm_id = gpu.vm, .attr = PAT, .value = bmg ? 27 : 7};
    IS(answer(gpu.fd, IOC_MADVISE, &args), 0);
    args.value++;
    IS(answer(gpu.fd, IOC_MADVISE, &args), EINVAL);
    struct bind_op op = {.obj_offset = AT(page), .pat_index = 3, .range = PAGE, .addr = GPU, .op = BIND_MAP_USERPTR};
    IS(map_at(op), bmg ? EINVAL : 0);
    op.pat_index = 2;
    IS(map_at(op), bmg ? 0 : EINVAL);
    op.pat_index = 26;
    IS(map_at(op), bmg ? 0 : EINVAL);
    IS(stores(0x26, GPU + 4), 0);
    IS(((volatile uint32_t *)page)[1], 0x26);
}

/* Where nothing is, a VM with a scratch page takes stores and goes on. */
static void scratch_beside_faults(void) {
    struct vm_create create = {.flags = VM_LONG_RUNNING | VM_FAULTING | VM_SCRATCH};
    IS(answer(gpu.fd, IOC_VM_CREATE, &create), bmg ? 0 : EINVAL);
    if (!bmg)
        return;
    struct gpu other = gpu;
    other.vm = create.vm_id;
    gpu_bind(&other, (struct bind_op){.range = 1ull << 47, .op = BIND_MAP, .flags = BIND_CPU_ADDR_MIRROR});
    other.queues[0] = queue_open(&other, engine_of(gpu.fd, 0));
    volatile uint32_t *word = calloc(1, PAGE);
    struct batch batch = {0};
    store32(&batch, (void *)(1ull << 47 | 0x5000), 1);
    store32(&batch, (void *)word, 2);
    IS(run(&other, 0, &batch), 0);
    IS(*word, 2);
    struct queue_destroy destroy = {.exec_queue_id = other.queues[0]};
    must_ioctl(gpu.fd, IOC_EXEC_QUEUE_DESTROY, &destroy, "EXEC_QUEUE_DESTROY");
    struct vm_destroy vm = {.vm_id = other.vm};
    must_ioctl(gpu.fd, IOC_VM_DESTROY, &vm, "VM_DESTROY");
}

static void a_render_engine(void) {
    struct engine_instance engine = {.class = CLASS_RENDER};
    struct queue_create queue = {.width = 1, .num_placements = 1, .vm_id = gpu.vm, .instances = AT(&engine)};
    IS(answer(gpu.fd, IOC_EXEC_QUEUE_CREATE, &queue), bmg ? 0 : EINVAL);
    if (!bmg)
        return;
    struct gpu render = gpu;
    render.queues[0] = queue.exec_queue_id;
    volatile uint32_t *word = calloc(1, PAGE);
    struct batch batch = {0};
    store32(&batch, (void *)word, 0x7c5);
    IS(run(&render, 0, &batch), 0);
    IS(*word, 0x7c5);
}

static void what_it_tells(void) {
    struct {
        struct query_head head;
        uint64_t info[];
    } *config = ask(gpu.fd, QUERY_CONFIG, NULL);
    IS(config->info[CONFIG_VA_BITS], bmg ? 48 : 57);
    IS(config->info[1] & CONFIG_NO_COMPRESSION_HINT, bmg ? CONFIG_NO_COMPRESSION_HINT : 0);
    free(config);
    uint32_t handle;
    IS(create_buffer(BLOCK_64K, GEM_NO_COMPRESSION, &handle), bmg ? 0 : EOPNOTSUPP);
    struct bind_op op = {.obj_offset = 0, .pat_index = PAT_COHERENT, .range = PAGE, .addr = 1ull << 48, .op = BIND_MAP, .flags = 1 << 2};
    IS(map_at(op), bmg ? EINVAL : 0);
}

int main(void) {
    gpu_open(&gpu);
    struct query_head *head = ask(gpu.fd, QUERY_GT_LIST, NULL);
    struct gt *gt = (void *)(head + 1);
    bmg = gt->ip_major == 20;
    IS(gt->ip_major * 100 + gt->ip_minor, bmg ? 2001 : 0);
    free(head);
    what_it_tells();
    a_page_in_vram();
    a_small_atomic();
    an_atomic_in_system_memory();
    cache_attributes();
    scratch_beside_faults();
    a_render_engine();
    const char *family = bmg ? "bmg" : "pvc";
    if (failures)
        printf("FAMILY %s BAD failures=%d\n", family, failures);
    else
        printf("FAMILY %s ok\n", family);
    return failures != 0;
}
