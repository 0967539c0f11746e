/*
 * Two devices and what one has of the other's: a buffer by PRIME, in the exporter's VRAM or in system memory; memory in a peer's VRAM.
 *
 *     peers prime ROUNDS [strangers]     a buffer stays where upstream has it, both devices store, it moves and is evicted meanwhile
 *     peers closed [strangers]           the exporter closes everything while the other device has the buffer mapped
 *     peers fences [strangers]           fences on a dma-buf are those of both devices
 *     peers unmap ROUNDS                 memory goes from device to device while the program unmaps and empties parts of it
 *     peers gather ROUNDS                memory that lies on both tiles of the first device goes to the second one
 *     peers turns ROUNDS tiles|devices   two tiles of the first device, or both devices, store into one block in turn
 *
 * `strangers`: the devices do not reach each other's VRAM. A line for what is not as it should be; the last line is `PEERS ok` or
 * `PEERS BAD failures=<n>`. Exit status 0 or 1; 2 where a call failed that must not.
 */
#define _GNU_SOURCE
#include <poll.h>
#include "is.h"
#include "prime.h"
#include <pthread.h>
#include <sys/mman.h>

#define BLOCK (64ul << 10)
#define BYTES (4 * BLOCK)
#define PAGES (BYTES / PAGE)
#define MB (1ul << 20)
#define HERE 0x100000000000ull
#define BATCHES 0x200000ull
#define MI_BATCH_BUFFER_START 0x18800101u /* address low, high */

static struct gpu gpus[2];
static int strangers;

/* A number behind `key` in the fdinfo of a device's file, in bytes where it has a unit. */
static uint64_t fdinfo(struct gpu *gpu, const char *key) {
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", gpu->fd);
    FILE *file = fopen(path, "r");
    if (!file)
        die(path);
    uint64_t value = ~0ull;
    while (fgets(line, sizeof line, file)) {
        unsigned long long found;
        char unit[8] = "";
        size_t length = strlen(key);
        if (!strncmp(line, key, length) && line[length] == ':') {
            sscanf(line + length + 1, "%llu %7s", &found, unit);
            value = found << (!strcmp(unit, "KiB") ? 10 : !strcmp(unit, "MiB") ? 20 : 0);
        }
    }
    fclose(file);
    return value;
}

static uint64_t in_vram(void) { return fdinfo(&gpus[0], "drm-resident-vram0"); }
static uint64_t in_system(void) { return fdinfo(&gpus[0], "drm-resident-gtt"); }

static int make(struct gpu *gpu, size_t size, uint32_t placement, uint32_t *handle) {
    struct gem_create create = {.size = size, .placement = placement, .cpu_caching = CACHING_WC};
    int error = answer(gpu->fd, IOC_GEM_CREATE, &create);
    *handle = create.handle;
    return error;
}

static volatile uint32_t *map(struct gpu *gpu, uint32_t handle) {
    struct gem_mmap_offset offset = {.handle = handle};
    must_ioctl(gpu->fd, IOC_GEM_MMAP_OFFSET, &offset, "GEM_MMAP_OFFSET");
    void *at = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, gpu->fd, offset.offset);
    if (at == MAP_FAILED)
        die("mmap of a buffer");
    return at;
}

static void bind_here(struct gpu *gpu, uint32_t handle) {
    gpu_bind(gpu, (struct bind_op){.obj = handle, .range = BYTES, .addr = HERE, .op = BIND_MAP});
}

static void drop(struct gpu *gpu, uint32_t handle) {
    struct gem_close close = {.handle = handle};
    IS(answer(gpu->fd, IOC_GEM_CLOSE, &close), 0);
}

/* A word in each page, from `first` on; each device has words of its own. */
static void store_each(struct gpu *gpu, uint32_t first) {
    struct batch batch = {0};
    unsigned word = gpu == &gpus[1];
    for (unsigned n = 0; n < PAGES; n++)
        store32(&batch, (void *)(HERE + n * PAGE + 4 * word), first + n);
    IS(run(gpu, 0, &batch), 0);
}

static void are(volatile uint32_t *bytes, struct gpu *gpu, uint32_t first) {
    unsigned word = gpu == &gpus[1], wrong = 0;
    for (unsigned n = 0; n < PAGES; n++)
        wrong += bytes[n * PAGE / 4 + word] != first + n;
    IS(wrong, 0);
}

/* Takes all VRAM of the first device, and gives it back. */
static void press(void) {
    uint32_t handle;
    IS(make(&gpus[0], vram_of_a_tile(gpus[0].fd), PLACE_VRAM0, &handle), 0);
    drop(&gpus[0], handle);
}

/* A buffer that may be in VRAM only: devices that do not reach it cannot have it. */
static void vram_only(void) {
    uint32_t handle, theirs = 0;
    int dma_buf;
    IS(make(&gpus[0], BYTES, PLACE_VRAM0, &handle), 0);
    IS(prime_export(gpus[0].fd, handle, PRIME_CLOEXEC | PRIME_RDWR, &dma_buf), 0);
    IS(prime_import(gpus[1].fd, dma_buf, &theirs), strangers ? EOPNOTSUPP : 0);
    if (!strangers) {
        bind_here(&gpus[1], theirs);
        store_each(&gpus[1], 100);
        IS(in_vram(), BYTES);
        /* a CPU reaches it by its own device only: a touch would be SIGBUS */
        volatile uint32_t *nothing = map(&gpus[1], theirs);
        int pipes[2];
        expect(!pipe(pipes), "a pipe");
        IS(write(pipes[1], (void *)nothing, 1) < 0 ? errno : 0, EFAULT);
        close(pipes[0]), close(pipes[1]);
        munmap((void *)nothing, BYTES);
        IS(dma_buf_sync(dma_buf, DMA_BUF_READ), 0);
        IS(in_vram(), BYTES);
        volatile uint32_t *bytes = map(&gpus[0], handle);
        are(bytes, &gpus[1], 100);
        munmap((void *)bytes, BYTES);
        gpu_bind(&gpus[1], (struct bind_op){.range = BYTES, .addr = HERE, .op = BIND_UNMAP});
        drop(&gpus[1], theirs);
    }
    close(dma_buf);
    drop(&gpus[0], handle);
    IS(in_vram(), 0);
}

struct mover { pthread_t thread; int dma_buf, stop; uint32_t handle; };

/* Sends the buffer to and fro between VRAM and system memory. */
static void *move(void *argument) {
    struct mover *mover = argument;
    while (!__atomic_load_n(&mover->stop, __ATOMIC_SEQ_CST)) {
        IS(dma_buf_sync(mover->dma_buf, DMA_BUF_READ), 0);
        struct bind_op to_vram = {.obj = 0, .range = BYTES, .addr = HERE, .op = BIND_PREFETCH, .prefetch_region = 1};
        struct vm_bind bind = {.vm_id = gpus[0].vm, .num_binds = 1, .bind = to_vram};
        IS(answer(gpus[0].fd, IOC_VM_BIND, &bind), 0);
    }
    return NULL;
}

static unsigned rounds;

static void prime(void) {
    vram_only();
    uint32_t handle, theirs, again;
    int dma_buf;
    IS(make(&gpus[0], BYTES, PLACE_VRAM0 | PLACE_SYSTEM, &handle), 0);
    IS(prime_export(gpus[0].fd, handle, PRIME_CLOEXEC | PRIME_RDWR, &dma_buf), 0);
    IS(prime_import(gpus[1].fd, dma_buf, &theirs), 0);
    IS(prime_import(gpus[1].fd, dma_buf, &again), 0);
    IS(again, theirs);
    bind_here(&gpus[0], handle), bind_here(&gpus[1], theirs);
    volatile uint32_t *bytes = map(&gpus[0], handle);
    store_each(&gpus[0], 1000);
    store_each(&gpus[1], 2000);
    IS(in_vram(), strangers ? 0 : BYTES);
    IS(in_system(), strangers ? BYTES : 0);
    are(bytes, &gpus[0], 1000), are(bytes, &gpus[1], 2000);
    /* it moves: by a CPU's access, and for want of room */
    IS(dma_buf_sync(dma_buf, DMA_BUF_READ), 0);
    IS(in_system(), BYTES);
    store_each(&gpus[1], 3000);
    are(bytes, &gpus[0], 1000), are(bytes, &gpus[1], 3000);
    press();
    store_each(&gpus[1], 4000), store_each(&gpus[0], 5000);
    are(bytes, &gpus[0], 5000), are(bytes, &gpus[1], 4000);
    struct mover mover = {.dma_buf = dma_buf, .handle = handle};
    expect(!pthread_create(&mover.thread, NULL, move, &mover), "a thread");
    for (unsigned round = 0; round < rounds; round++) {
        store_each(&gpus[round % 3 != 0], 10000 + round);
        are(bytes, &gpus[round % 3 != 0], 10000 + round);
    }
    __atomic_store_n(&mover.stop, 1, __ATOMIC_SEQ_CST);
    pthread_join(mover.thread, NULL);
    munmap((void *)bytes, BYTES);
    drop(&gpus[1], theirs), drop(&gpus[0], handle);
    close(dma_buf);
}

/* The exporter's handle, descriptor and file go, and the other device goes on. */
static void closed(void) {
    uint32_t handle, theirs;
    int dma_buf, second = open("/dev/dri/renderD128", O_RDWR | O_CLOEXEC);
    struct gpu exporter = {.fd = second};
    IS(make(&exporter, BYTES, strangers ? PLACE_SYSTEM : PLACE_VRAM0, &handle), 0);
    IS(prime_export(second, handle, PRIME_CLOEXEC | PRIME_RDWR, &dma_buf), 0);
    IS(prime_import(gpus[1].fd, dma_buf, &theirs), 0);
    volatile uint32_t *bytes = map(&exporter, handle);
    bind_here(&gpus[1], theirs);
    store_each(&gpus[1], 100);
    close(dma_buf);
    close(second);
    store_each(&gpus[1], 200);
    are(bytes, &gpus[1], 200);
    /* others need its VRAM: it leaves, and comes back for the next use */
    press();
    store_each(&gpus[1], 250);
    are(bytes, &gpus[1], 250);
    drop(&gpus[1], theirs);
    store_each(&gpus[1], 300);
    are(bytes, &gpus[1], 300);
    gpu_bind(&gpus[1], (struct bind_op){.range = BYTES, .addr = HERE, .op = BIND_UNMAP});
    munmap((void *)bytes, BYTES);
}

/* A job that runs until *stop is written, and the sync file of its end. */
static int spinning(volatile uint32_t **stop) {
    struct vm_create vm = {0};
    must_ioctl(gpus[0].fd, IOC_VM_CREATE, &vm, "VM_CREATE");
    struct engine_instance engine = {.class = CLASS_COPY};
    struct queue_create queue = {.width = 1, .num_placements = 1, .vm_id = vm.vm_id, .instances = AT(&engine)};
    must_ioctl(gpus[0].fd, IOC_EXEC_QUEUE_CREATE, &queue, "EXEC_QUEUE_CREATE");
    uint32_t handle, done = syncobj_new(gpus[0].fd, 0);
    IS(make(&gpus[0], BYTES, PLACE_SYSTEM, &handle), 0);
    *stop = map(&gpus[0], handle);
    struct bind_op op = {.obj = handle, .pat_index = PAT_COHERENT, .range = BYTES, .addr = BATCHES, .op = BIND_MAP};
    struct vm_bind bind = {.vm_id = vm.vm_id, .num_binds = 1, .bind = op};
    must_ioctl(gpus[0].fd, IOC_VM_BIND, &bind, "VM_BIND");
    (*stop)[1] = (uint32_t)BATCHES;
    (*stop)[2] = (uint32_t)(BATCHES >> 32);
    (*stop)[0] = MI_BATCH_BUFFER_START;
    struct sync sync = {.type = SYNC_SYNCOBJ, .flags = SYNC_SIGNAL, .addr = done};
    struct exec exec = {
        .exec_queue_id = queue.exec_queue_id, .num_syncs = 1, .syncs = AT(&sync), .address = BATCHES, .num_batch_buffer = 1,
    };
    must_ioctl(gpus[0].fd, IOC_EXEC, &exec, "EXEC");
    return sync_file(gpus[0].fd, done);
}

struct later { pthread_t thread; int dma_buf, begun, done; };

static void *sync_now(void *argument) {
    struct later *later = argument;
    __atomic_store_n(&later->begun, 1, __ATOMIC_SEQ_CST);
    IS(dma_buf_sync(later->dma_buf, DMA_BUF_READ), 0);
    __atomic_store_n(&later->done, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

/* What a poll of a dma-buf says, and of a pipe beside it that is ready to be written; it leaves no descriptor behind. */
static int polled(int dma_buf, short events, int ms) {
    int pipes[2], before = dup(0), after;
    close(before);
    if (pipe(pipes))
        die("pipe");
    struct pollfd both[2] = {{.fd = dma_buf, .events = events}, {.fd = ms ? -1 : pipes[1], .events = POLLOUT}};
    int found = poll(both, 2, ms);
    IS(found, (both[0].revents != 0) + !ms);
    IS(both[1].revents, ms ? 0 : POLLOUT);
    close(pipes[0]), close(pipes[1]);
    after = dup(0);
    close(after);
    IS(after, before);
    return both[0].revents;
}

/* A fence that one device's file put on a dma-buf is there by the other's, and a CPU's access waits for it. */
static void fences(void) {
    uint32_t handle, theirs, got = syncobj_new(gpus[1].fd, 0);
    volatile uint32_t *stop;
    int dma_buf, back, end = spinning(&stop);
    IS(make(&gpus[0], BYTES, PLACE_VRAM0 | PLACE_SYSTEM, &handle), 0);
    IS(prime_export(gpus[0].fd, handle, PRIME_CLOEXEC | PRIME_RDWR, &dma_buf), 0);
    IS(prime_import(gpus[1].fd, dma_buf, &theirs), 0);
    IS(prime_export(gpus[1].fd, theirs, PRIME_CLOEXEC | PRIME_RDWR, &back), 0);
    struct dma_buf_sync_file in = {.flags = DMA_BUF_WRITE, .fd = end}, out = {.flags = DMA_BUF_READ};
    IS(polled(back, POLLIN | POLLOUT, 0), POLLIN | POLLOUT);
    in.flags = DMA_BUF_READ;
    IS(answer(dma_buf, IOC_DMA_BUF_IMPORT_SYNC_FILE, &in), 0);
    IS(polled(back, POLLIN | POLLOUT, 0), POLLIN);
    in.flags = DMA_BUF_WRITE;
    IS(answer(dma_buf, IOC_DMA_BUF_IMPORT_SYNC_FILE, &in), 0);
    IS(polled(back, POLLIN | POLLOUT, 0), 0);
    IS(polled(dma_buf, POLLIN, 20), 0);
    IS(answer(back, IOC_DMA_BUF_EXPORT_SYNC_FILE, &out), 0);
    IS(sync_status(out.fd), 0);
    IS(dma_buf_sync(back, DMA_BUF_READ | DMA_BUF_END), 0);
    struct later later = {.dma_buf = back};
    expect(!pthread_create(&later.thread, NULL, sync_now, &later), "a thread");
    while (!__atomic_load_n(&later.begun, __ATOMIC_SEQ_CST))
        usleep(1000);
    usleep(20000);
    IS(__atomic_load_n(&later.done, __ATOMIC_SEQ_CST), 0);
    *stop = MI_BATCH_BUFFER_END;
    IS(polled(dma_buf, POLLOUT, 10000), POLLOUT);
    pthread_join(later.thread, NULL);
    IS(later.done, 1);
    IS(polled(back, POLLIN | POLLOUT, 0), POLLIN | POLLOUT);
    IS(sync_status(out.fd), 1);
    IS(syncobj_import(gpus[1].fd, got, out.fd), 0);
    IS(syncobj_waits(gpus[1].fd, &got, 1, 0, 0, NULL), 0);
    close(end), close(out.fd), close(dma_buf), close(back);
    drop(&gpus[1], theirs), drop(&gpus[0], handle);
}

static char *block;

static uint32_t *page_of(struct gpu *gpu) {
    return (uint32_t *)(block + (gpu == &gpus[1] ? 1 : 2) * PAGE);
}

static void store_once(struct gpu *gpu, uint32_t value) {
    struct batch batch = {0};
    for (unsigned n = 0; n < 64; n++)
        store32(&batch, page_of(gpu) + n, value);
    IS(run(gpu, 0, &batch), 0);
}

/* A device stores into a page of its own, round after round; the CPU finds each store. */
static void *store_on(void *argument) {
    struct gpu *gpu = argument;
    uint32_t *word = page_of(gpu);
    for (unsigned round = 1; round <= rounds; round++) {
        store_once(gpu, round);
        for (unsigned n = 0; n < 64 && round % 4 == 0; n++)
            IS(__atomic_load_n(word + n, __ATOMIC_SEQ_CST), round);
    }
    return NULL;
}

/* New memory over four pages, and two pages emptied, again and again: what is stored to both is found. */
static void *change(void *argument) {
    int *stop = argument;
    for (uint32_t round = 1; !__atomic_load_n(stop, __ATOMIC_SEQ_CST); round++) {
        uint32_t *fresh = (uint32_t *)(block + 12 * PAGE), *emptied = (uint32_t *)(block + 4 * PAGE);
        if (mmap(fresh, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
            die("mmap over a part");
        IS(*fresh, 0);
        *fresh = round;
        *emptied = round;
        if (madvise(emptied, 2 * PAGE, MADV_DONTNEED))
            die("madvise");
        IS(*emptied, 0);
        IS(*fresh, round);
        /* a fault that meets the gap makes a range of a page, which never migrates */
        usleep(1000);
    }
    return NULL;
}

/* Memory that the second device prefers in the first one's VRAM, where both store, while parts of it go. */
static void unmap(void) {
    char *memory = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    block = (char *)(((uintptr_t)memory + BLOCK - 1) & -BLOCK);
    memset(block, 0, BLOCK);
    struct madvise args = {
        .start = (uintptr_t)block, .range = BLOCK, .vm_id = gpus[1].vm, .attr = PREFERRED_LOC, .value = gpus[0].fd, .region = 1,
    };
    IS(answer(gpus[1].fd, IOC_MADVISE, &args), 0);
    pthread_t threads[3];
    int stop = 0;
    store_once(&gpus[1], 1), store_once(&gpus[0], 1);
    expect(!pthread_create(&threads[0], NULL, store_on, &gpus[0]), "a thread");
    expect(!pthread_create(&threads[1], NULL, store_on, &gpus[1]), "a thread");
    expect(!pthread_create(&threads[2], NULL, change, &stop), "a thread");
    pthread_join(threads[0], NULL), pthread_join(threads[1], NULL);
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    pthread_join(threads[2], NULL);
    for (unsigned page = 1; page <= 2; page++)
        for (unsigned n = 0; n < 64; n++)
            IS(((uint32_t *)(block + page * PAGE))[n], rounds);
}

/* The pieces of a block lie on both tiles of the first device, or every other one in system memory; the second device takes them all. */
static void gather(void) {
    enum { PIECES = 2 * MB / BLOCK, WORDS = BLOCK / 4 };
    char *room = mmap(NULL, 4 * MB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t *words = (uint32_t *)(((uintptr_t)room + 2 * MB - 1) & -(2 * MB));
    for (uint32_t round = 0; round < rounds; round++) {
        struct batch all = {0};
        for (unsigned n = 0; n < PIECES; n++) {
            /* the even ones first: while there is a gap behind each, it is a range of its own */
            unsigned piece = 2 * n % PIECES + 2 * n / PIECES, tile = piece % 2;
            uint32_t *at = words + piece * WORDS, first = round << 24 | piece * WORDS;
            if (mmap(at, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
                die("mmap of a piece");
            for (unsigned i = 0; i < WORDS; i++)
                at[i] = first + i;
            struct batch own = {0};
            store32(&own, at, first);
            if (!tile || round % 2)
                IS(run(&gpus[0], tile, &own), 0);
            if (round % 3)
                store32(&all, at + 1, first + 1);
            else
                atomic_add32(&all, at + 2, 0);
        }
        IS(run(&gpus[1], 0, &all), 0);
        unsigned wrong = 0;
        for (unsigned i = 0; i < PIECES * WORDS; i++)
            wrong += words[i] != (round << 24 | i);
        IS(wrong, 0);
        munmap(words, 2 * MB);
    }
}

/* Two engines store into pages of their own in one block. */
static void turns(int on_tiles) {
    uint32_t *words = aligned_alloc(2 * MB, 2 * MB);
    memset(words, 0, 2 * MB);
    for (unsigned round = 1; round <= rounds; round++)
        for (unsigned n = 0; n < 2; n++) {
            struct batch batch = {0};
            store32(&batch, words + n * PAGE / 4, round);
            IS(run(&gpus[on_tiles ? 0 : n], on_tiles ? n : 0, &batch), 0);
        }
    IS(words[0], rounds);
    IS(words[PAGE / 4], rounds);
    free(words);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    strangers = !strcmp(argv[argc - 1], "strangers");
    rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
    gpu_open_node(&gpus[0], "/dev/dri/renderD128");
    gpu_open_node(&gpus[1], "/dev/dri/renderD129");
    if (!strcmp(what, "prime"))
        prime();
    else if (!strcmp(what, "closed"))
        closed();
    else if (!strcmp(what, "fences"))
        fences();
    else if (!strcmp(what, "unmap"))
        unmap();
    else if (!strcmp(what, "gather"))
        gather();
    else if (!strcmp(what, "turns"))
        turns(!strcmp(argv[argc - 1], "tiles"));
    else
        return fprintf(stderr, "usage: peers prime|unmap|gather|turns ROUNDS | closed | fences [strangers|tiles]\n"), 2;
    gpu_close(&gpus[1]), gpu_close(&gpus[0]);
    return verdict("PEERS");
}
