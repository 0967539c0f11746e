/*
 * VMs without faults for scenes: buffers, binds, and jobs that wait for syncobjs and signal them. All of them are on one open file,
 * to which handles and syncobjs belong. A batch lies in a page of its VM's code buffer.
 */
#ifndef CLIENTS_PLAIN_H
#define CLIENTS_PLAIN_H

#include "scene.h"
#include "syncobj.h"

#define CODE_AT 0x100000ul
#define CODE_PAGES 16u
#define FIRST_BUFFER 0x40000000ul
#define BUFFER_STRIDE (16ul << 20)
#define NOTHING_AT 0x80000000ul
#define BLOCK_64K (64ul << 10)

struct plain {
    uint32_t vm, queues[MAX_TILES];
    char *code;
    unsigned jobs;
};

/* Its piece comes first: touches name that. */
struct buffer {
    struct piece piece;
    uint32_t handle;
    uint64_t gpu, size;
};

/* Syncobjs; 0: none. */
struct order { uint32_t behind, signals; };

static int plain_fd = -1;
static unsigned plain_tiles;

static inline int plain_open_device(void) {
    if (plain_fd < 0) {
        plain_fd = open("/dev/dri/renderD128", O_RDWR | O_CLOEXEC);
        if (plain_fd < 0)
            die("open /dev/dri/renderD128");
        plain_tiles = tiles_of(plain_fd);
    }
    return plain_fd;
}

static inline uint32_t buffer_make(size_t size, uint32_t placement) {
    struct gem_create create = {.size = size, .placement = placement, .cpu_caching = placement == PLACE_SYSTEM ? CACHING_WB : CACHING_WC};
    must_ioctl(plain_open_device(), IOC_GEM_CREATE, &create, "GEM_CREATE");
    return create.handle;
}

static inline char *buffer_map(uint32_t handle, size_t size) {
    struct gem_mmap_offset offset = {.handle = handle};
    must_ioctl(plain_fd, IOC_GEM_MMAP_OFFSET, &offset, "GEM_MMAP_OFFSET");
    char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, plain_fd, (off_t)offset.offset);
    if (at == MAP_FAILED)
        die("mmap of a buffer");
    return at;
}

static inline void buffer_open(struct buffer *buffer, unsigned number, const char *name, size_t pages, uint32_t placement) {
    buffer->size = (pages * PAGE + BLOCK_64K - 1) & -BLOCK_64K;
    buffer->handle = buffer_make(buffer->size, placement);
    buffer->gpu = FIRST_BUFFER + number * BUFFER_STRIDE;
    buffer->piece = (struct piece){name, buffer_map(buffer->handle, buffer->size), pages, calloc(pages, sizeof(struct page))};
}

/* How many syncs an order has. */
static inline uint32_t syncs_of(struct order order, struct sync syncs[2]) {
    uint32_t count = 0;
    if (order.behind)
        syncs[count++] = (struct sync){.type = SYNC_SYNCOBJ, .addr = order.behind};
    if (order.signals)
        syncs[count++] = (struct sync){.type = SYNC_SYNCOBJ, .flags = SYNC_SIGNAL, .addr = order.signals};
    return count;
}

/* 0, or the errno. */
static inline int plain_bind(const struct plain *vm, uint32_t op, uint32_t handle, uint64_t at, uint64_t size, struct order order) {
    struct sync syncs[2];
    struct vm_bind bind = {
        .vm_id = vm->vm, .num_binds = 1, .num_syncs = syncs_of(order, syncs), .syncs = AT(syncs),
        .bind = {.obj = handle, .pat_index = PAT_COHERENT, .range = size, .addr = at, .op = op},
    };
    return answer(plain_fd, IOC_VM_BIND, &bind);
}

static inline void bind_buffer(const struct plain *vm, const struct buffer *buffer, struct order order) {
    if ((errno = plain_bind(vm, BIND_MAP, buffer->handle, buffer->gpu, buffer->size, order)))
        die("VM_BIND of a buffer");
}

/* NULL: where nothing is. */
static inline void unbind_buffer(const struct plain *vm, const struct buffer *buffer, struct order order) {
    uint64_t at = buffer ? buffer->gpu : NOTHING_AT, size = buffer ? buffer->size : BLOCK_64K;
    if ((errno = plain_bind(vm, BIND_UNMAP, 0, at, size, order)))
        die(buffer ? "VM_BIND that unmaps" : "VM_BIND without work");
}

static inline void wait_for(uint32_t fence, const char *name) {
    if ((errno = syncobj_wait_one(plain_fd, fence, 0)))
        die(name);
}

static inline void plain_queue(struct plain *vm, unsigned tile) {
    struct gpu gpu = {.fd = plain_fd, .vm = vm->vm};
    vm->queues[tile] = queue_open(&gpu, engine_of(plain_fd, tile));
}

static inline void plain_open(struct plain *vm) {
    struct vm_create create = {0};
    must_ioctl(plain_open_device(), IOC_VM_CREATE, &create, "VM_CREATE");
    vm->vm = create.vm_id;
    uint32_t code = buffer_make(CODE_PAGES * PAGE, PLACE_SYSTEM);
    vm->code = buffer_map(code, CODE_PAGES * PAGE);
    struct order done = {.signals = syncobj_new(plain_fd, 0)};
    if ((errno = plain_bind(vm, BIND_MAP, code, CODE_AT, CODE_PAGES * PAGE, done)))
        die("VM_BIND of the code");
    wait_for(done.signals, "the wait for the code");
    for (unsigned tile = 0; tile < plain_tiles; tile++)
        plain_queue(vm, tile);
}

/* A job that writes. Its end is waited for where nothing signals it: 0, or the errno; EIO: what it wrote did not arrive. */
static inline int plain_job(struct plain *vm, unsigned tile, int writer, const struct touch *touches, size_t count, struct order order) {
    struct batch batch = {0};
    if (writer >= 0)
        scene_seq[writer]++;
    for (const struct touch *t = touches; t < touches + count; t++)
        for (size_t page = t->from; page < t->to; page++) {
            uint64_t at = ((struct buffer *)t->piece)->gpu + page * PAGE + (1 + (unsigned)writer) * WORD;
            store32(&batch, (void *)at, mark((unsigned)writer, page));
        }
    emit(&batch, MI_BATCH_BUFFER_END);
    unsigned page_of_code = vm->jobs++ % CODE_PAGES;
    memcpy(vm->code + page_of_code * PAGE, batch.words, batch.length * sizeof(uint32_t));
    free(batch.words);
    int waits = !order.signals;
    if (waits)
        order.signals = syncobj_new(plain_fd, 0);
    struct sync syncs[2];
    struct exec exec = {
        .exec_queue_id = vm->queues[tile], .num_syncs = syncs_of(order, syncs), .syncs = AT(syncs),
        .address = CODE_AT + page_of_code * PAGE, .num_batch_buffer = 1,
    };
    int error = answer(plain_fd, IOC_EXEC, &exec);
    if (!error && waits)
        error = syncobj_wait_one(plain_fd, order.signals, 0);
    for (const struct touch *t = touches; !error && t < touches + count; t++)
        for (size_t page = t->from; page < t->to; page++) {
            uint32_t found = *(volatile uint32_t *)word_at(t, page, 1 + (unsigned)writer);
            if (waits && found != mark((unsigned)writer, page))
                error = EIO;
            else
                note(t, page, writer);
        }
    return error;
}

/* The same after a job that had to be refused: its queue is banned, the next job finds another one. */
static inline void plain_replace(struct plain *vm, unsigned tile) {
    struct queue_destroy queue = {.exec_queue_id = vm->queues[tile]};
    must_ioctl(plain_fd, IOC_EXEC_QUEUE_DESTROY, &queue, "EXEC_QUEUE_DESTROY");
    plain_queue(vm, tile);
}

/* Buffers of 2M, as many as a tile's VRAM has room for; they are given back together. */
static uint32_t *fillers[MAX_TILES];
static size_t filled[MAX_TILES];

static inline void fill(unsigned tile) {
    plain_open_device();
    size_t more = vram_of_a_tile(plain_fd) / BLOCK_2M;
    fillers[tile] = realloc(fillers[tile], (filled[tile] + more) * sizeof(uint32_t));
    if (!fillers[tile])
        die("realloc");
    for (size_t n = 0; n < more; n++)
        fillers[tile][filled[tile]++] = buffer_make(BLOCK_2M, PLACE_VRAM0 << tile);
}

static inline void drain(unsigned tile) {
    while (filled[tile] > 0) {
        struct gem_close close = {.handle = fillers[tile][--filled[tile]]};
        must_ioctl(plain_fd, IOC_GEM_CLOSE, &close, "GEM_CLOSE");
    }
}

#endif
