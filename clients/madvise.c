/*
 * MADVISE: every kind of advice, what it does and what it is refused for. A line for what is not as it should be; the last
 * line is `MADVISE ok` or `MADVISE BAD failures=<n>`. Exit status 0 or 1; 2 where a call failed that must not.
 */
#define _GNU_SOURCE
#include "is.h"
#include "prime.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

struct mem_range_attr {
    uint64_t extensions, start, end;
    uint32_t devmem_fd, migration_policy, atomic, atomic_reserved, pat, pat_reserved;
    uint64_t reserved[2];
};
SIZE_IS(mem_range_attr, 64);
struct query_attrs { uint64_t extensions; uint32_t vm_id, count; uint64_t start, range, entry_bytes, entries, reserved[2]; };
SIZE_IS(query_attrs, 64);
#define IOC_QUERY_ATTRS 0xc040644du
enum { ATOMIC_DEVICE = 1, ATOMIC_GLOBAL = 2, ATOMIC_CPU = 3, WILLNEED = 0, DONTNEED = 1 };
enum { BIND_AUTORESET = 1 << 6, CONFIG_HAS_PURGING = 0x20 };

#define BLOCK (2ul << 20)
#define GPU 0x100000000000ull

static struct gpu gpu;

static int advise(const volatile void *at, size_t bytes, uint32_t attr, uint32_t value, uint16_t region) {
    struct madvise args = {.start = AT(at), .range = bytes, .vm_id = gpu.vm, .attr = attr, .value = value, .region = region};
    return answer(gpu.fd, IOC_MADVISE, &args);
}

/* Says whether a buffer is needed; 1: its contents are there, 0: they are gone, or a negative errno. */
static int purgeable(uint32_t vm, uint64_t at, size_t bytes, uint32_t value) {
    uint32_t retained = 0;
    struct madvise args = {.start = at, .range = bytes, .vm_id = vm, .attr = PURGEABLE, .value = value, .pointer = AT(&retained)};
    int error = answer(gpu.fd, IOC_MADVISE, &args);
    return error ? -error : (int)retained;
}

/* What is advised at an address. */
static struct mem_range_attr told(const volatile void *at) {
    struct mem_range_attr attr = {0};
    struct query_attrs query = {.vm_id = gpu.vm, .count = 1, .start = AT(at), .range = PAGE, .entry_bytes = sizeof attr, .entries = AT(&attr)};
    must_ioctl(gpu.fd, IOC_QUERY_ATTRS, &query, "VM_QUERY_MEM_RANGE_ATTRS");
    IS(query.count, 1);
    return attr;
}

static volatile uint32_t *block(void) {
    char *all = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == (char *)MAP_FAILED)
        die("mmap");
    return (void *)((AT(all) + BLOCK - 1) & -BLOCK);
}

static void store(unsigned tile, volatile uint32_t *at, uint32_t value) {
    struct batch batch = {0};
    store32(&batch, (void *)at, value);
    IS(run(&gpu, tile, &batch), 0);
    IS(*at, value);
}

/* Only a change of the region tells the second advice from the first. */
static void locations(void) {
    volatile uint32_t *at = block();
    IS(advise(at, BLOCK, PREFERRED_LOC, -2u, 0), EINVAL);
    IS(advise(at, BLOCK, PREFERRED_LOC, 0, 1), EINVAL);
    IS(advise(at, BLOCK, PREFERRED_LOC, -1u, 1), EINVAL);
    IS(advise(at, BLOCK, PREFERRED_LOC, 999, 1), ENOENT);
    IS(advise(at, BLOCK, PREFERRED_LOC, 1, 1), ENOENT);
    IS(advise(at, BLOCK, PREFERRED_LOC, gpu.fd, 0), ENOENT);
    IS(advise(at, BLOCK, PREFERRED_LOC, gpu.fd, 3), ENOENT);
    struct madvise odd = {.start = AT(at), .range = BLOCK, .vm_id = gpu.vm, .attr = PREFERRED_LOC, .policy = 2};
    IS(answer(gpu.fd, IOC_MADVISE, &odd), EINVAL);
    odd.policy = 0, odd.pointer = 8;
    IS(answer(gpu.fd, IOC_MADVISE, &odd), EINVAL);
    at[9] = 9;
    for (uint16_t round = 0; round < 4; round++) {
        uint16_t region = 1 + round % 2;
        IS(advise(at, BLOCK, PREFERRED_LOC, gpu.fd, region), 0);
        IS(told(at).devmem_fd, gpu.fd);
        store(0, at + round, round + 70);
        IS(advise(at, BLOCK, PREFERRED_LOC, gpu.fd, 3 - region), 0);
        struct batch batch = {0};
        store32(&batch, (void *)(at + 100 + round), round);
        IS(run(&gpu, 0, &batch), 0);
        batch = (struct batch){0};
        store32(&batch, (void *)(at + 200 + round), round);
        IS(advise(at, BLOCK, PREFERRED_LOC, gpu.fd, region), 0);
        IS(run(&gpu, 0, &batch), 0);
    }
    for (uint32_t round = 0; round < 4; round++)
        IS(at[round] == 70 + round && at[100 + round] == round && at[200 + round] == round, 1);
    IS(at[9], 9);
    IS(advise(at, BLOCK, PREFERRED_LOC, -1u, 0), 0);
    store(1, at, 5);
}

static void others(void) {
    volatile uint32_t *at = block();
    IS(advise(at, BLOCK, PAT, 1, 0), 0);
    IS(told(at).pat, 1);
    store(0, at, 1);
    IS(advise(at, BLOCK, PAT, 8, 0), EINVAL);
    IS(advise(at, BLOCK, PAT, 1, 1), EINVAL);
    IS(advise(at, BLOCK, ATOMIC, 4, 0), EINVAL);
    IS(advise(at, BLOCK, 4, 0, 0), EINVAL);
    IS(advise(at, 0, PAT, 1, 0), EINVAL);
    IS(advise((char *)at + 1, BLOCK, PAT, 1, 0), EINVAL);
    IS(purgeable(gpu.vm, AT(at), BLOCK, 2), -EINVAL);
    IS(purgeable(gpu.vm, AT(at), BLOCK, DONTNEED), 1);
    struct madvise bad = {.start = AT(at), .range = BLOCK, .vm_id = gpu.vm, .attr = PURGEABLE, .pointer = 8};
    IS(answer(gpu.fd, IOC_MADVISE, &bad), EFAULT);
    uint32_t one = 1;
    bad.pointer = AT(&one);
    IS(answer(gpu.fd, IOC_MADVISE, &bad), EINVAL);
    bad.pointer = 0, bad.vm_id = 99;
    IS(answer(gpu.fd, IOC_MADVISE, &bad), EINVAL);
}

static int bind_in(uint32_t vm, struct bind_op op) {
    op.pat_index = PAT_COHERENT;
    struct vm_bind bind = {.vm_id = vm, .num_binds = 1, .bind = op};
    return answer(gpu.fd, IOC_VM_BIND, &bind);
}

static uint32_t make(size_t bytes, uint32_t placement) {
    struct gem_create create = {.size = bytes, .placement = placement, .cpu_caching = CACHING_WC};
    must_ioctl(gpu.fd, IOC_GEM_CREATE, &create, "GEM_CREATE");
    return create.handle;
}

static void *map(uint32_t handle, size_t bytes) {
    struct gem_mmap_offset offset = {.handle = handle};
    must_ioctl(gpu.fd, IOC_GEM_MMAP_OFFSET, &offset, "GEM_MMAP_OFFSET");
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, gpu.fd, offset.offset);
}

static void drop(uint32_t handle) {
    struct gem_close close = {.handle = handle};
    must_ioctl(gpu.fd, IOC_GEM_CLOSE, &close, "GEM_CLOSE");
}

static void atomics_of_buffers(void) {
    static const struct { uint32_t placement; int device, global, cpu; } rows[] = {
        {PLACE_SYSTEM, EINVAL, EINVAL, 0}, {PLACE_VRAM0, 0, EINVAL, EINVAL}, {PLACE_SYSTEM | PLACE_VRAM1, 0, 0, 0},
    };
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++) {
        uint32_t handle = make(BLOCK, rows[n].placement);
        IS(bind_in(gpu.vm, (struct bind_op){.obj = handle, .range = BLOCK, .addr = GPU, .op = BIND_MAP}), 0);
        IS(advise((void *)GPU, BLOCK, ATOMIC, ATOMIC_DEVICE, 0), rows[n].device);
        IS(advise((void *)GPU, BLOCK, ATOMIC, ATOMIC_GLOBAL, 0), rows[n].global);
        IS(advise((void *)GPU, BLOCK, ATOMIC, ATOMIC_CPU, 0), rows[n].cpu);
        /* a location is for mirrors */
        IS(advise((void *)GPU, BLOCK, PREFERRED_LOC, -1u, 0), 0);
        IS(told((void *)GPU).devmem_fd, 0);
        IS(bind_in(gpu.vm, (struct bind_op){.range = BLOCK, .addr = GPU, .op = BIND_UNMAP}), 0);
        drop(handle);
    }
}

/* Others take all of VRAM 0. */
static void press(void) {
    enum { COUNT = 18, BYTES = 64 << 20 };
    uint32_t handles[COUNT];
    for (int n = 0; n < COUNT; n++)
        handles[n] = make(BYTES, PLACE_VRAM0);
    for (int n = 0; n < COUNT; n++)
        drop(handles[n]);
}

static sigjmp_buf after;
static void jump(int signal) { siglongjmp(after, signal); }

static int touch(volatile uint32_t *at) {
    int signal = sigsetjmp(after, 1);
    if (!signal)
        *at = 1;
    return signal;
}

static void purges(void) {
    uint32_t *config = ask(gpu.fd, QUERY_CONFIG, NULL);
    IS(config[4] & CONFIG_HAS_PURGING, CONFIG_HAS_PURGING);
    free(config);
    uint32_t handle = make(BLOCK, PLACE_VRAM0);
    volatile uint32_t *cpu = map(handle, BLOCK);
    struct bind_op op = {.obj = handle, .range = BLOCK, .addr = GPU, .op = BIND_MAP}, twin = op;
    twin.addr += BLOCK;
    IS(bind_in(gpu.vm, op), 0);
    IS(bind_in(gpu.vm, twin), 0);
    cpu[3] = 33;
    /* what one of two VMAs needs stays */
    IS(purgeable(gpu.vm, GPU, BLOCK, DONTNEED), 1);
    press();
    IS(purgeable(gpu.vm, GPU, BLOCK, DONTNEED), 1);
    IS(cpu[3], 33);
    /* what none needs may go, and until then is for nobody new */
    IS(bind_in(gpu.vm, (struct bind_op){.range = BLOCK, .addr = GPU + BLOCK, .op = BIND_UNMAP}), 0);
    IS(purgeable(gpu.vm, GPU, BLOCK, DONTNEED), 1);
    int none;
    IS(bind_in(gpu.vm, twin), EBUSY);
    IS(map(handle, BLOCK) == MAP_FAILED ? errno : 0, EBUSY);
    IS(prime_export(gpu.fd, handle, 0, &none), EBUSY);
    IS(purgeable(gpu.vm, GPU, BLOCK, WILLNEED), 1);
    struct batch batch = {0};
    store32(&batch, (void *)(GPU + 16), 44);
    IS(run(&gpu, 0, &batch), 0);
    IS(cpu[4], 44);
    IS(purgeable(gpu.vm, GPU, BLOCK, DONTNEED), 1);
    press();
    IS(purgeable(gpu.vm, GPU, BLOCK, WILLNEED), 0);
    /* gone for good */
    IS(purgeable(gpu.vm, GPU, BLOCK, WILLNEED), 0);
    IS(bind_in(gpu.vm, twin), EINVAL);
    IS(map(handle, BLOCK) == MAP_FAILED ? errno : 0, EINVAL);
    IS(prime_export(gpu.fd, handle, 0, &none), EINVAL);
    IS(touch(cpu), SIGBUS);
    store32(&batch, (void *)GPU, 1);
    IS(run(&gpu, 0, &batch), EIO);
    IS(bind_in(gpu.vm, (struct bind_op){.range = BLOCK, .addr = GPU, .op = BIND_UNMAP}), 0);
    munmap((void *)cpu, BLOCK);
    drop(handle);
}

/* What others may have stays. */
static void shared(void) {
    uint32_t handle = make(BLOCK, PLACE_VRAM0);
    int dma_buf;
    IS(prime_export(gpu.fd, handle, PRIME_CLOEXEC, &dma_buf), 0);
    volatile uint32_t *cpu = map(handle, BLOCK);
    cpu[1] = 11;
    IS(bind_in(gpu.vm, (struct bind_op){.obj = handle, .range = BLOCK, .addr = GPU, .op = BIND_MAP}), 0);
    IS(purgeable(gpu.vm, GPU, BLOCK, DONTNEED), 1);
    press();
    IS(purgeable(gpu.vm, GPU, BLOCK, WILLNEED), 1);
    IS(cpu[1], 11);
    IS(bind_in(gpu.vm, (struct bind_op){.range = BLOCK, .addr = GPU, .op = BIND_UNMAP}), 0);
    munmap((void *)cpu, BLOCK);
    close(dma_buf);
    drop(handle);
}

/* Advice goes with the memory that it was given for, where the mirror was bound so. */
static void resets(void) {
    for (uint32_t flag = 0; flag <= BIND_AUTORESET; flag += BIND_AUTORESET) {
        volatile uint32_t *at = block();
        struct bind_op mirror = {.range = BLOCK, .addr = AT(at), .op = BIND_MAP, .flags = BIND_CPU_ADDR_MIRROR | flag};
        IS(bind_in(gpu.vm, mirror), 0);
        IS(advise(at, BLOCK, ATOMIC, ATOMIC_CPU, 0), 0);
        IS(advise(at, BLOCK, PREFERRED_LOC, gpu.fd, 2), 0);
        store(0, at, 1);
        struct batch batch = {0};
        store32(&batch, (void *)(at + 1), 2); /* what goes is in VRAM again, so the GPU is told of it */
        IS(run(&gpu, 0, &batch), 0);
        IS(told(at).atomic, ATOMIC_CPU);
        munmap((void *)at, BLOCK);
        volatile uint32_t *other = block();
        /* every store here is a fault of the GPU, at which ranges of memory that is gone are collected */
        for (int n = 0; n < 200 && (n == 0 || (flag && told(at).atomic)); n++) {
            store(0, other, 2 + n);
            usleep(1000);
        }
        IS(told(at).atomic, flag ? 0 : ATOMIC_CPU);
        IS(told(at).devmem_fd, flag ? 0 : gpu.fd);
        IS(mmap((void *)at, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at, 1);
        store(1, at, 3);
        IS(told(at).atomic, flag ? 0 : ATOMIC_CPU);
    }
}

int main(void) {
    signal(SIGBUS, jump);
    gpu_open(&gpu);
    locations();
    others();
    atomics_of_buffers();
    resets();
    shared();
    purges();
    return verdict("MADVISE");
}
