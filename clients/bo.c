/*
 * Buffer objects and userptrs on all tiles: what the CPU writes the GPU reads, and back, wherever the bytes are: in
 * system memory, in VRAM of either tile, evicted for others and brought back. Every word is compared.
 */
#define _GNU_SOURCE
#include "gpu.h"
#include "is.h"
#include <sys/mman.h>

struct bo {
    uint32_t handle;
    size_t size;
    uint64_t gpu;
    volatile uint32_t *cpu;
};

static uint64_t next_address = 0x100000000000;

static int bind(struct gpu *gpu, struct bind_op op) {
    uint64_t *fence = calloc(8, sizeof *fence);
    struct sync sync = {.type = SYNC_USER_FENCE, .flags = SYNC_SIGNAL, .addr = (uintptr_t)fence, .value = FENCE_VALUE};
    op.pat_index = PAT_COHERENT;
    struct vm_bind bind = {.vm_id = gpu->vm, .num_binds = 1, .bind = op, .num_syncs = 1, .syncs = (uintptr_t)&sync};
    int error = try_ioctl(gpu->fd, IOC_VM_BIND, &bind) ? errno : wait_fence(gpu->fd, fence, 0);
    free(fence);
    return error;
}

static void *map(struct gpu *gpu, uint32_t handle, size_t size, int flags, void *at) {
    struct gem_mmap_offset offset = {.handle = handle};
    must_ioctl(gpu->fd, IOC_GEM_MMAP_OFFSET, &offset, "GEM_MMAP_OFFSET");
    return mmap(at, size, PROT_READ | PROT_WRITE, flags, gpu->fd, offset.offset);
}

static struct bo make(struct gpu *gpu, size_t size, uint32_t placement, uint32_t flags) {
    int caching = placement == PLACE_SYSTEM ? CACHING_WB : CACHING_WC;
    struct gem_create create = {.size = size, .placement = placement, .cpu_caching = caching};
    must_ioctl(gpu->fd, IOC_GEM_CREATE, &create, "GEM_CREATE");
    struct bo bo = {.handle = create.handle, .size = size, .gpu = next_address};
    next_address += (size + (2ul << 20) - 1) & -(2ul << 20);
    bo.cpu = map(gpu, bo.handle, size, MAP_SHARED, NULL);
    if (bo.cpu == MAP_FAILED)
        die("mmap of a buffer");
    struct bind_op op = {.obj = bo.handle, .range = size, .addr = bo.gpu, .op = BIND_MAP, .flags = flags};
    if ((errno = bind(gpu, op)))
        die("bind of a buffer");
    return bo;
}

static void unmake(struct gpu *gpu, struct bo *bo) {
    struct gem_close close = {.handle = bo->handle};
    must_ioctl(gpu->fd, IOC_GEM_CLOSE, &close, "GEM_CLOSE");
    expect(!bind(gpu, (struct bind_op){.range = bo->size, .addr = bo->gpu, .op = BIND_UNMAP}), "unbind");
}

/* Each tile stores to words of its own, the CPU to others; all find all. */
static void share(struct gpu *gpu, struct bo *bo, const char *what) {
    for (size_t at = 0; at < bo->size / 4; at += bo->size / 64) {
        bo->cpu[at] = 0xc0000000u + at;
        for (unsigned tile = 0; tile < gpu->tiles; tile++) {
            struct batch batch = {0};
            store32(&batch, (void *)(bo->gpu + 4 * (at + 1 + tile)), (tile << 28) + at);
            expect(!run(gpu, tile, &batch), what);
        }
    }
    for (size_t at = 0; at < bo->size / 4; at += bo->size / 64)
        for (unsigned tile = 0; tile < gpu->tiles; tile++)
            expect(bo->cpu[at] == 0xc0000000u + at && bo->cpu[at + 1 + tile] == (tile << 28) + at, what);
}

static void placements(struct gpu *gpu) {
    unsigned regions = 1 + gpu->tiles;
    /* each alone, then all of them */
    for (unsigned n = 0; n <= regions; n++)
        for (uint32_t flags = 0; flags <= BIND_IMMEDIATE; flags += BIND_IMMEDIATE) {
            uint32_t places = n < regions ? 1u << n : (1u << regions) - 1;
            struct bo bo = make(gpu, 4ul << 20, places, flags);
            share(gpu, &bo, "words of a buffer");
            for (uint32_t region = 0; region < regions; region++)
                if (places >> region & 1) {
                    struct bind_op op = {.range = bo.size, .addr = bo.gpu, .op = BIND_PREFETCH, .prefetch_region = region};
                    expect(!bind(gpu, op), "prefetch");
                    share(gpu, &bo, "words of a prefetched buffer");
                }
            unmake(gpu, &bo);
            expect(bo.cpu[1] == 0, "a mapping keeps the bytes of a buffer that is gone");
            munmap((void *)bo.cpu, bo.size);
        }
}

/* Three buffers that each want two fifths of VRAM 0. */
static void evictions(struct gpu *gpu) {
    enum { COUNT = 3 };
    size_t size = vram_of_a_tile(gpu->fd) * 2 / 5 & -(64ul << 10);
    struct bo bos[COUNT];
    for (uint32_t n = 0; n < COUNT; n++)
        bos[n] = make(gpu, size, PLACE_VRAM0, 0);
    for (uint32_t round = 0; round < 4; round++)
        for (uint32_t n = 0; n < COUNT; n++) {
            struct batch batch = {0};
            for (uint64_t at = 0; at < bos[n].size; at += size / 32 & -PAGE)
                atomic_add32(&batch, (void *)(bos[n].gpu + at), n + 1);
            expect(!run(gpu, round % gpu->tiles, &batch), "atomics on a buffer in VRAM");
        }
    for (uint32_t n = 0; n < COUNT; n++) {
        for (uint64_t at = 0; at < bos[n].size; at += size / 32 & -PAGE)
            expect(bos[n].cpu[at / 4] == 4 * (n + 1), "a sum that survives evictions");
        unmake(gpu, &bos[n]);
        munmap((void *)bos[n].cpu, bos[n].size);
    }
}

/* The CPU's memory at another address; the program moves what is there under it. */
static void userptrs(struct gpu *gpu) {
    size_t size = 1ul << 20;
    volatile uint32_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    struct bo user = {.size = size - 4 * PAGE, .gpu = next_address + PAGE, .cpu = memory + PAGE / 4};
    struct bind_op op = {.obj_offset = (uintptr_t)user.cpu, .range = user.size, .addr = user.gpu, .op = BIND_MAP_USERPTR};
    for (int round = 0; round < 3; round++) {
        op.flags = round == 1 ? BIND_IMMEDIATE : 0;
        expect(!bind(gpu, op), "bind of a userptr");
        share(gpu, &user, "words of a userptr");
        /* the mirror has the same memory in VRAM meanwhile */
        struct batch batch = {0};
        store32(&batch, (void *)(memory + 64), 7);
        expect(!run(gpu, gpu->tiles - 1, &batch) && memory[64] == 7, "the mirror beside a userptr");
        share(gpu, &user, "words of a userptr that was in VRAM");
        mmap((void *)memory, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        share(gpu, &user, "words of a userptr after a new mapping");
    }
    expect(!bind(gpu, (struct bind_op){.range = user.size, .addr = user.gpu, .op = BIND_UNMAP}), "unbind of a userptr");
    op.flags = BIND_IMMEDIATE, op.obj_offset = 0x5000;
    expect(bind(gpu, op) == EFAULT, "a userptr of nothing");
    struct bo bo = make(gpu, 64ul << 10, PLACE_SYSTEM, 0);
    op.obj_offset = (uintptr_t)bo.cpu, op.range = bo.size;
    expect(bind(gpu, op) == EFAULT, "a userptr of a map of a buffer");
    unmake(gpu, &bo);
    munmap((void *)memory, size);
}

/* A buffer cuts the mirror open and gives it back; twenty times, at places of their own or at one. */
static void punch(struct gpu *gpu, int same_place, int alone) {
    size_t size = 2ul << 20, room = 24 * size;
    char *all = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint32_t *at = (void *)(((uintptr_t)all + size - 1) & -size);
    struct gem_create create = {.size = size, .placement = PLACE_VRAM0 << (gpu->tiles - 1), .cpu_caching = CACHING_WC};
    must_ioctl(gpu->fd, IOC_GEM_CREATE, &create, "GEM_CREATE");
    for (uint32_t round = 0; round < 20; round++) {
        struct bind_op op = {.obj = create.handle, .range = size, .addr = (uintptr_t)at, .op = BIND_MAP};
        struct batch batch = {0};
        expect(!bind(gpu, op), "bind into the mirror");
        store32(&batch, at + 5, round);
        expect(!run(gpu, 0, &batch) && at[5] == 0, "the buffer has it and the memory has not");
        struct bind_op back = {.range = size, .addr = (uintptr_t)at, .op = BIND_MAP, .flags = BIND_CPU_ADDR_MIRROR};
        expect(!bind(gpu, back), "the mirror again");
        store32(&batch, at + 5, 100 + round);
        expect(!run(gpu, gpu->tiles - 1, &batch) && at[5] == 100 + round, "the memory has it again");
        if (alone)
            expect(bind(gpu, op) == EBUSY, "memory that is in use by the GPU");
        if (same_place) {
            /* what is not mapped any more is in nobody's way */
            munmap(at, size);
            expect(mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at, "mmap");
        } else {
            at += size / 4;
        }
    }
    munmap(all, room);
}

/* The CPU's mapping of a buffer is memory for no GPU: the mirror has none there, and has what stands right before and behind. */
static void mapped(uint32_t placement) {
    struct gpu gpu;
    gpu_open(&gpu);
    size_t size = 64ul << 10;
    uint32_t *memory = mmap(NULL, 3 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct bo bo = make(&gpu, size, placement, 0);
    uint32_t *at = map(&gpu, bo.handle, size, MAP_SHARED | MAP_FIXED, memory + size / 4);
    if (memory == MAP_FAILED || at != memory + size / 4)
        die("mmap");
    *at = 5;
    for (uint32_t round = 1; round < 4; round++) {
        struct batch batch = {0};
        store32(&batch, at - 1, round);
        store32(&batch, at + size / 4, round);
        expect(!run(&gpu, gpu.tiles - 1, &batch) && at[-1] == round && at[size / 4] == round, "memory beside a map of a buffer");
    }
    struct batch batch = {0};
    store32(&batch, at, 7);
    expect(run(&gpu, 0, &batch) == EIO && *at == 5 && bo.cpu[0] == 5, "the mirror at a map of a buffer");
    munmap(memory, 3 * size);
    gpu_close(&gpu);
}

static void bad_maps(struct gpu *gpu) {
    struct bo bo = make(gpu, 64ul << 10, PLACE_SYSTEM, 0);
    expect(map(gpu, bo.handle, 2 * bo.size, MAP_SHARED, NULL) == MAP_FAILED && errno == EINVAL, "more than the buffer");
    expect(map(gpu, bo.handle, bo.size, MAP_PRIVATE, NULL) == MAP_FAILED && errno == EINVAL, "a private map");
    expect(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, gpu->fd, 0x7000000) == MAP_FAILED && errno == EINVAL, "no buffer");
    int other = open("/dev/dri/renderD128", O_RDWR);
    struct gem_mmap_offset offset = {.handle = bo.handle};
    must_ioctl(gpu->fd, IOC_GEM_MMAP_OFFSET, &offset, "GEM_MMAP_OFFSET");
    expect(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, other, offset.offset) == MAP_FAILED && errno == EACCES, "another file's buffer");
    close(other);
    void *fixed = mmap(NULL, bo.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    expect(map(gpu, bo.handle, bo.size, MAP_SHARED | MAP_FIXED, fixed) == fixed, "a map at an address");
    expect(map(gpu, bo.handle, bo.size, MAP_SHARED | MAP_FIXED_NOREPLACE, fixed) == MAP_FAILED && errno == EEXIST, "which is taken");
    bo.cpu[3] = 33;
    expect(((uint32_t *)fixed)[3] == 33, "two maps of one buffer");
    unmake(gpu, &bo);
}

int main(int argc, char **argv) {
    struct gpu gpu;
    /* where somebody else migrates all memory, what the program never touched may be there, and what it touched on its way */
    int alone = argc < 2 || strcmp(argv[1], "watched");
    gpu_open(&gpu);
    placements(&gpu);
    evictions(&gpu);
    userptrs(&gpu);
    punch(&gpu, 0, alone);
    if (alone)
        punch(&gpu, 1, alone);
    bad_maps(&gpu);
    mapped(PLACE_SYSTEM);
    mapped(PLACE_VRAM0);
    gpu_close(&gpu);
    printf("bo: %s\n", failures ? "failed" : "all right");
    return failures != 0;
}
