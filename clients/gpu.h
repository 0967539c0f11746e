/*
 * A GPU in a few calls: one VM that mirrors the process's addresses, one queue a tile, batches that are
 * built in malloc'ed memory. Every failure ends the program with a line that says which call failed and why.
 */
#ifndef CLIENTS_GPU_H
#define CLIENTS_GPU_H

#include "xe.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TILES 2     /* what clients use that need a second tile */
#define MAX_TILES 4
#define PAGE 4096ul
#define FENCE_VALUE 0x600dfe9ceull
#define WAIT_NS 300000000000ll

struct gpu {
    int fd;
    uint32_t vm, queues[MAX_TILES];
    unsigned tiles;
    unsigned va_bits;
};

static inline void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(2);
}

static inline int try_ioctl(int fd, unsigned long command, void *argument) {
    int result;
    do {
        result = ioctl(fd, command, argument);
    } while (result == -1 && (errno == EINTR || errno == EAGAIN));
    return result;
}

static inline void must_ioctl(int fd, unsigned long command, void *argument, const char *what) {
    if (try_ioctl(fd, command, argument) != 0)
        die(what);
}

/* The answer to a query, to be freed; its size where wanted. */
static inline void *ask(int fd, uint32_t query, uint32_t *size) {
    struct device_query q = {.query = query};
    must_ioctl(fd, IOC_DEVICE_QUERY, &q, "query size");
    void *data = calloc(1, q.size);
    if (!data)
        die("calloc");
    q.data = (uintptr_t)data;
    must_ioctl(fd, IOC_DEVICE_QUERY, &q, "query");
    if (size)
        *size = q.size;
    return data;
}

/* Waits until *fence is the value; 0, or the errno. A queue that is banned ends the wait. */
static inline int wait_fence(int fd, uint64_t *fence, uint32_t queue) {
    struct wait_user_fence wait = {
        .addr = (uintptr_t)fence, .op = WAIT_EQUAL, .value = FENCE_VALUE, .mask = ~0ull, .timeout = WAIT_NS, .exec_queue_id = queue,
    };
    return try_ioctl(fd, IOC_WAIT_USER_FENCE, &wait) == 0 ? 0 : errno;
}

/* Binds, and waits for it. */
static inline void gpu_bind(struct gpu *gpu, struct bind_op op) {
    uint64_t *fence = calloc(8, sizeof *fence);
    struct sync sync = {.type = SYNC_USER_FENCE, .flags = SYNC_SIGNAL, .addr = (uintptr_t)fence, .value = FENCE_VALUE};
    op.pat_index = PAT_COHERENT;
    struct vm_bind bind = {.vm_id = gpu->vm, .num_binds = 1, .bind = op, .num_syncs = 1, .syncs = (uintptr_t)&sync};
    must_ioctl(gpu->fd, IOC_VM_BIND, &bind, "VM_BIND");
    if ((errno = wait_fence(gpu->fd, fence, 0)))
        die("wait for the bind");
    free(fence);
}

/* Maps every CPU address at the same GPU address. */
static inline void gpu_mirror(struct gpu *gpu) {
    gpu_bind(gpu, (struct bind_op){.range = 1ull << gpu->va_bits, .op = BIND_MAP, .flags = BIND_CPU_ADDR_MIRROR});
}

/* The first engine of a GT that computes; one that copies will do. */
static inline struct engine_instance engine_of(int fd, unsigned gt) {
    struct query_head *head = ask(fd, QUERY_ENGINES, NULL);
    struct engine *engines = (void *)(head + 1);
    struct engine_instance found = {.pad = 1};
    for (uint32_t i = 0; i < head->count; i++) {
        struct engine_instance e = engines[i].instance;
        if (e.gt_id == gt && (e.class == CLASS_COMPUTE || (e.class == CLASS_COPY && found.pad)))
            found = e;
    }
    free(head);
    errno = ENODEV;
    if (found.pad)
        die("no engine on a GT");
    return found;
}

/* How many tiles there are, each with a GT. */
static inline unsigned tiles_of(int fd) {
    struct query_head *head = ask(fd, QUERY_GT_LIST, NULL);
    unsigned tiles = head->count < MAX_TILES ? head->count : MAX_TILES;
    free(head);
    return tiles;
}

/* Bytes of VRAM that each tile has. */
static inline uint64_t vram_of_a_tile(int fd) {
    struct query_head *head = ask(fd, QUERY_MEM_REGIONS, NULL);
    uint64_t total = ((struct mem_region *)(head + 1))[1].total;
    free(head);
    return total;
}

/* A queue on one engine. */
static inline uint32_t queue_open(struct gpu *gpu, struct engine_instance engine) {
    struct queue_create queue = {.width = 1, .num_placements = 1, .vm_id = gpu->vm, .instances = (uintptr_t)&engine};
    must_ioctl(gpu->fd, IOC_EXEC_QUEUE_CREATE, &queue, "EXEC_QUEUE_CREATE");
    return queue.exec_queue_id;
}

/* The device behind a node. */
static inline void gpu_open_node(struct gpu *gpu, const char *node) {
    gpu->fd = open(node, O_RDWR | O_CLOEXEC);
    if (gpu->fd < 0)
        die(node);
    struct {
        struct query_head head;
        uint64_t info[];
    } *config = ask(gpu->fd, QUERY_CONFIG, NULL);
    gpu->va_bits = config->info[CONFIG_VA_BITS];
    free(config);
    struct vm_create vm = {.flags = VM_LONG_RUNNING | VM_FAULTING};
    must_ioctl(gpu->fd, IOC_VM_CREATE, &vm, "VM_CREATE");
    gpu->vm = vm.vm_id;
    gpu_mirror(gpu);
    gpu->tiles = tiles_of(gpu->fd);
    for (unsigned tile = 0; tile < gpu->tiles; tile++)
        gpu->queues[tile] = queue_open(gpu, engine_of(gpu->fd, tile));
}

static inline void gpu_open(struct gpu *gpu) { gpu_open_node(gpu, "/dev/dri/renderD128"); }

static inline void gpu_close(struct gpu *gpu) {
    for (unsigned tile = 0; tile < gpu->tiles; tile++) {
        struct queue_destroy queue = {.exec_queue_id = gpu->queues[tile]};
        must_ioctl(gpu->fd, IOC_EXEC_QUEUE_DESTROY, &queue, "EXEC_QUEUE_DESTROY");
    }
    struct vm_destroy vm = {.vm_id = gpu->vm};
    must_ioctl(gpu->fd, IOC_VM_DESTROY, &vm, "VM_DESTROY");
    close(gpu->fd);
}

/* A batch under construction. */
struct batch {
    uint32_t *words;
    size_t length, room;
};

static inline void emit(struct batch *batch, uint32_t word) {
    if (batch->length == batch->room) {
        batch->room = batch->room ? batch->room * 2 : 1024;
        batch->words = realloc(batch->words, batch->room * sizeof(uint32_t));
        if (!batch->words)
            die("realloc");
    }
    batch->words[batch->length++] = word;
}

static inline void emit_address(struct batch *batch, uint32_t command, const void *at) {
    uint64_t address = (uintptr_t)at;
    emit(batch, command);
    emit(batch, (uint32_t)address);
    emit(batch, (uint32_t)(address >> 32));
}

static inline void store32(struct batch *batch, const void *at, uint32_t value) {
    emit_address(batch, MI_STORE_DWORD, at);
    emit(batch, value);
}

static inline void store64(struct batch *batch, const void *at, uint64_t value) {
    emit_address(batch, MI_STORE_QWORD, at);
    emit(batch, (uint32_t)value);
    emit(batch, (uint32_t)(value >> 32));
}

static inline void atomic_inc32(struct batch *batch, const void *at) {
    emit_address(batch, MI_ATOMIC_INC, at);
}

static inline void atomic_add32(struct batch *batch, const void *at, uint32_t value) {
    emit_address(batch, MI_ATOMIC_ADD, at);
    emit(batch, value);
    for (int i = 0; i < 7; i++)
        emit(batch, 0);
}

/* Runs the batch on a tile, waits for its fence, frees it; 0, or the errno of what failed. */
static inline int run(struct gpu *gpu, unsigned tile, struct batch *batch) {
    if (tile >= gpu->tiles)
        return ENODEV;
    emit(batch, MI_BATCH_BUFFER_END);
    uint64_t *fence = calloc(8, sizeof *fence);
    struct sync sync = {.type = SYNC_USER_FENCE, .flags = SYNC_SIGNAL, .addr = (uintptr_t)fence, .value = FENCE_VALUE};
    struct exec exec = {
        .exec_queue_id = gpu->queues[tile],
        .num_syncs = 1,
        .syncs = (uintptr_t)&sync,
        .address = (uintptr_t)batch->words,
        .num_batch_buffer = 1,
    };
    int error = try_ioctl(gpu->fd, IOC_EXEC, &exec) == 0 ? wait_fence(gpu->fd, fence, gpu->queues[tile]) : errno;
    if (!error)
        free(fence); /* else the GPU may write it yet */
    free(batch->words);
    *batch = (struct batch){0};
    return error;
}

#endif
