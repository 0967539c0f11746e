/*
 * Commands: what a user-mode driver puts into its batches, each checked by its result: registers and arithmetic,
 * timestamps, waits, flushes, copies and fills of any shape, a ring that the CPU feeds while the GPU polls it, queues
 * of several engines, and commands that must be refused.
 *
 *     commands
 *
 * The last line is `COMMANDS ok`. What is wrong ends the program with `COMMANDS BAD <what>` and status 1.
 *
 *     cc -O1 -Wall -Wextra -Werror clients/commands.c -o commands
 */
#include "gpu.h"
#include <sched.h>
#include <time.h>

#define MB (1ul << 20)
#define ENGINE_RELATIVE (1u << 19)
#define GENERAL(n) (0x600u + 8 * (n))
#define TIMESTAMP 0x358u
#define CONTEXT_TIMESTAMP 0x3a8u
#define REFERENCE_HZ 19200000ull

static void wrong(const char *what) {
    printf("COMMANDS BAD %s\n", what);
    fflush(stdout);
    _exit(1);
}

static void expect(int holds, const char *what) {
    if (!holds)
        wrong(what);
}

/* A queue on any of the engines of a class on a tile, as many as are wanted. */
static uint32_t queue_of(struct gpu *gpu, unsigned tile, unsigned class, unsigned first, unsigned count) {
    struct engine_instance engines[9];
    for (unsigned i = 0; i < count; i++)
        engines[i] = (struct engine_instance){class, first + i, tile, 0};
    struct queue_create queue = {.width = 1, .num_placements = count, .vm_id = gpu->vm, .instances = (uintptr_t)engines};
    must_ioctl(gpu->fd, IOC_EXEC_QUEUE_CREATE, &queue, "EXEC_QUEUE_CREATE");
    return queue.exec_queue_id;
}

static void destroy(struct gpu *gpu, uint32_t id) {
    struct queue_destroy queue = {.exec_queue_id = id};
    must_ioctl(gpu->fd, IOC_EXEC_QUEUE_DESTROY, &queue, "EXEC_QUEUE_DESTROY");
}

static int is_banned(struct gpu *gpu, uint32_t id) {
    struct queue_property property = {.exec_queue_id = id};
    must_ioctl(gpu->fd, IOC_EXEC_QUEUE_GET_PROPERTY, &property, "EXEC_QUEUE_GET_PROPERTY");
    return property.value == 1;
}

struct job {
    uint32_t *words;
    uint64_t *fence;
    uint32_t queue;
};

/* Hands a batch to a queue. */
static struct job start(struct gpu *gpu, uint32_t queue, struct batch *batch) {
    emit(batch, MI_BATCH_BUFFER_END);
    struct job job = {batch->words, calloc(8, sizeof(uint64_t)), queue};
    struct sync sync = {.type = SYNC_USER_FENCE, .flags = SYNC_SIGNAL, .addr = (uintptr_t)job.fence, .value = FENCE_VALUE};
    struct exec exec = {
        .exec_queue_id = queue, .num_syncs = 1, .syncs = (uintptr_t)&sync, .address = (uintptr_t)job.words, .num_batch_buffer = 1,
    };
    must_ioctl(gpu->fd, IOC_EXEC, &exec, "EXEC");
    *batch = (struct batch){0};
    return job;
}

static void finish(struct gpu *gpu, struct job job, const char *what) {
    if ((errno = wait_fence(gpu->fd, job.fence, job.queue))) {
        perror(what);
        wrong(what);
    }
    free(job.fence);
    free(job.words);
}

static void do_on(struct gpu *gpu, uint32_t queue, struct batch *batch, const char *what) {
    finish(gpu, start(gpu, queue, batch), what);
}

static void emit_all(struct batch *batch, const uint32_t *words, size_t count) {
    for (size_t i = 0; i < count; i++)
        emit(batch, words[i]);
}
#define EMIT(batch, ...) emit_all(batch, (uint32_t[]){__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / 4)
#define AT(p) (uint32_t)(uintptr_t)(p), (uint32_t)((uint64_t)(uintptr_t)(p) >> 32)

static void registers(struct gpu *gpu, uint32_t queue) {
    struct batch batch = {0};
    uint32_t *out = calloc(16, 4);
    out[8] = 30;
    EMIT(&batch, 0x11000003 | ENGINE_RELATIVE, GENERAL(0), 12, GENERAL(0) + 4, 0);
    EMIT(&batch, 0x14800002 | ENGINE_RELATIVE, GENERAL(1), AT(&out[8]));
    EMIT(&batch, 0x11000001 | ENGINE_RELATIVE, GENERAL(1) + 4, 0);
    EMIT(&batch, 0x0d000003, 0x08008000, 0x08008401, 0x10000000, 0x18000831); /* R2 = R0 + R1 */
    EMIT(&batch, 0x15000001 | ENGINE_RELATIVE | 1 << 18, GENERAL(2), GENERAL(3));
    EMIT(&batch, 0x12000002 | ENGINE_RELATIVE, GENERAL(3), AT(&out[0]));
    do_on(gpu, queue, &batch, "registers");
    expect(out[0] == 42, "12 + 30 in registers");
    free(out);
}

static void timestamps(struct gpu *gpu, uint32_t queue) {
    struct batch batch = {0};
    uint64_t *out = calloc(8, 8);
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    EMIT(&batch, 0x13000203 | 3 << 14, AT(&out[0]), 0, 0);
    EMIT(&batch, 0x12000002 | ENGINE_RELATIVE, CONTEXT_TIMESTAMP, AT(&out[2]));
    EMIT(&batch, 0x12000002 | ENGINE_RELATIVE, TIMESTAMP, AT(&out[3]));
    EMIT(&batch, 0x13000203 | 3 << 14, AT(&out[1]), 0, 0);
    EMIT(&batch, 0x13000203 | 1 << 14, AT(&out[4]), 0x1234, 0x5678);
    do_on(gpu, queue, &batch, "timestamps");
    clock_gettime(CLOCK_MONOTONIC, &after);
    uint64_t span = (after.tv_sec - before.tv_sec) * 1000000000ull + after.tv_nsec - before.tv_nsec;
    expect(out[0] <= out[1] && out[1] - out[0] <= span * REFERENCE_HZ / 1000000000 + 1, "two timestamps");
    expect((uint32_t)out[3] - (uint32_t)out[0] <= out[1] - out[0], "a timestamp between them");
    expect(out[4] == 0x567800001234, "a flush writes its data");
    free(out);
}

static uint8_t pattern(size_t i) {
    return (uint8_t)(i * 2654435761u >> 13);
}

/* Copies from one malloc'ed buffer to another in pieces of 256 KB, as a driver does. */
static void copies(struct gpu *gpu, uint32_t queue, size_t bytes) {
    struct batch batch = {0};
    uint8_t *from = malloc(bytes), *to = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        from[i] = pattern(i);
    for (size_t at = 0; at < bytes; at += 1 << 18) {
        size_t piece = bytes - at < 1 << 18 ? bytes - at : 1 << 18;
        EMIT(&batch, 0x56800008, piece - 1, 0, 0, 0, AT(from + at), AT(to + at), 0);
    }
    do_on(gpu, queue, &batch, "a copy");
    for (size_t i = 0; i < bytes; i++)
        expect(to[i] == pattern(i), "a copied byte");
    /* lines of 100 bytes, 128 apart, to lines 300 apart; then two fills */
    EMIT(&batch, 0x56c00005, bytes - 1 < 0x3ffff ? bytes - 1 : 0x3ffff, 0, 0, AT(to), 0x5a000000);
    EMIT(&batch, 0x56820008, 99, 499, 127, 299, AT(from), AT(to), 0);
    EMIT(&batch, 0x56c20005, 9, 499, 299, AT(to + 200), 0xa5000000);
    /* pixels of 32 bits: 16 x 8 of them to the left upper corner of a surface 4096 wide, behind all that */
    EMIT(&batch, 0x50800008, 3 << 24 | 4096, 0, 8 << 16 | 16, AT(to + 200000), 0, 1024, AT(from));
    do_on(gpu, queue, &batch, "a matrix");
    for (size_t i = 0; i < 500 * 300; i++) {
        size_t line = i / 300, column = i % 300;
        uint8_t want = column < 100 ? pattern(line * 128 + column) : column >= 200 && column < 210 ? 0xa5 : 0x5a;
        expect(to[i] == want, "a byte of a matrix");
    }
    for (size_t line = 0; line < 8; line++)
        expect(!memcmp(to + 200000 + 4096 * line, from + 1024 * line, 64), "a line of pixels");
    free(from);
    free(to);
}

/* Each waits for the other's word, on two tiles. */
static void meeting(struct gpu *gpu, const uint32_t *queues) {
    uint32_t *words = calloc(1024, 4);
    struct job jobs[2];
    for (int i = 0; i < 2; i++) {
        struct batch batch = {0};
        for (uint32_t round = 1; round <= 20; round++) {
            store32(&batch, &words[512 * i], round);
            EMIT(&batch, 0x0e009003, round, AT(&words[512 * !i]), 0);
        }
        store32(&batch, &words[512 * i + 1], 77);
        jobs[i] = start(gpu, queues[i], &batch);
    }
    for (int i = 0; i < 2; i++)
        finish(gpu, jobs[i], "a meeting");
    expect(words[1] == 77 && words[513] == 77, "both came through");
    free(words);
}

/* A batch that never ends: it polls a word, does what stands behind it, and comes back. The CPU feeds it. */
static void ring(struct gpu *gpu, uint32_t feeder, uint32_t neighbour) {
    volatile uint32_t *tail = aligned_alloc(PAGE, PAGE), *seen = aligned_alloc(PAGE, PAGE);
    memset((void *)tail, 0, PAGE);
    memset((void *)seen, 0, PAGE);
    struct batch batch = {0};
    emit(&batch, 0);
    batch.length = 0;
    uint32_t *begin = batch.words; /* it does not grow: see emit */
    for (uint32_t round = 1; round <= 3; round++) {
        EMIT(&batch, 0x0e009003, round, AT(tail), 0);
        store32(&batch, (void *)seen, round);
    }
    EMIT(&batch, 0x0e00d003, 3, AT(tail), 0); /* until it is not 3 */
    EMIT(&batch, 0x18800001, AT(begin));
    struct job job = start(gpu, feeder, &batch);
    for (uint32_t round = 1; round <= 3; round++) {
        /* its engine serves others meanwhile */
        uint32_t *other = calloc(16, 4);
        struct batch work = {0};
        store32(&work, other, round);
        do_on(gpu, neighbour, &work, "a neighbour of a ring");
        expect(*other == round, "a neighbour's word");
        free(other);
        __atomic_store_n(tail, round, __ATOMIC_RELEASE);
        struct wait_user_fence wait = {
            .addr = (uintptr_t)seen, .op = WAIT_EQUAL, .value = round, .mask = ~0u, .timeout = WAIT_NS, .exec_queue_id = feeder,
        };
        /* the batch never ends, but it comes to its next wait */
        must_ioctl(gpu->fd, IOC_WAIT_USER_FENCE, &wait, "wait for a word of a ring");
    }
    expect(!is_banned(gpu, feeder), "a ring is no hang");
    destroy(gpu, feeder);
    expect(*job.fence == 0, "a ring never ends");
    free(job.words);
    free(job.fence);
    free((void *)tail);
    free((void *)seen);
}

/* A loop that counts in memory, and ends by what it counted. An atomic needs a page of VRAM: 64K. */
static void loop(struct gpu *gpu, uint32_t queue) {
    uint32_t *words = aligned_alloc(64 * 1024, 64 * 1024);
    memset(words, 0, 64 * 1024);
    struct batch batch = {0};
    emit(&batch, 0);
    batch.length = 0;
    uint32_t *begin = batch.words;
    atomic_inc32(&batch, &words[0]);
    /* goes on while 10 is greater than the count: memory < 10 */
    EMIT(&batch, 0x1b200002 | 2 << 12, 10, AT(&words[0]));
    EMIT(&batch, 0x18800001, AT(begin));
    do_on(gpu, queue, &batch, "a loop");
    expect(words[0] == 10, "ten rounds");
    free(words);
}

/* What is no command, or none that there is, ends its queue and no other. */
static void refusals(struct gpu *gpu) {
    static const struct {
        const char *what;
        unsigned class;
        uint32_t words[4];
    } cases[] = {
        {"a walker", CLASS_COMPUTE, {0x72080025}},
        {"a tiled copy", CLASS_COPY, {0x50a00008}},
        {"no command", CLASS_COPY, {0xdeadbeef}},
        {"a copy by a compute engine", CLASS_COMPUTE, {0x56800008}},
        {"a register that is not there", CLASS_COPY, {0x12000002 | ENGINE_RELATIVE, 0x700}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t queue = queue_of(gpu, 0, cases[i].class, 0, 1), *word = calloc(64, 4);
        struct batch batch = {0};
        emit_all(&batch, cases[i].words, 4);
        for (int n = 0; n < 40; n++)
            emit(&batch, 0);
        store32(&batch, word, 1);
        struct job job = start(gpu, queue, &batch);
        expect(wait_fence(gpu->fd, job.fence, queue) == EIO && is_banned(gpu, queue), cases[i].what);
        expect(*word == 0 && *job.fence == 0, "nothing behind a hang is done");
        destroy(gpu, queue);
        free(word);
        free(job.words);
        free(job.fence);
    }
}

/* A number behind a key of the device's fdinfo, opened by `how`. */
static uint64_t usage_of(struct gpu *gpu, const char *key, int how) {
    char name[64], text[8192] = {0};
    FILE *file = NULL;
    if (how == 0) {
        snprintf(name, sizeof name, "/proc/self/fdinfo/%d", gpu->fd);
        file = fopen(name, "r");
    } else {
        snprintf(name, sizeof name, "%d", gpu->fd);
        int dir = open("/proc/self/fdinfo", O_RDONLY | O_DIRECTORY), fd = openat(dir, name, O_RDONLY);
        close(dir);
        file = fd < 0 ? NULL : fdopen(fd, "r");
    }
    expect(file && fread(text, 1, sizeof text - 1, file) > 0, "fdinfo is read");
    fclose(file);
    expect(!strncmp(text, "pos:", 4) && strstr(text, "\ndrm-driver:\txe\n"), "fdinfo has the kernel's lines and the device's");
    const char *line = strstr(text, key);
    expect(line != NULL, key);
    return strtoull(line + strlen(key), NULL, 0);
}

/* The time of a queue is told, while it runs and when it has ended. */
static void usage(struct gpu *gpu) {
    uint64_t before = usage_of(gpu, "drm-cycles-bcs:", 0), total = usage_of(gpu, "drm-total-cycles-bcs:", 1);
    uint32_t queue = queue_of(gpu, 0, CLASS_COPY, 0, 1), *word = calloc(16, 4);
    struct batch batch = {0};
    EMIT(&batch, 0x0e009003, 1, AT(word), 0);
    struct job job = start(gpu, queue, &batch);
    usleep(20000);
    uint64_t during = usage_of(gpu, "drm-cycles-bcs:", 1);
    __atomic_store_n(word, 1, __ATOMIC_RELEASE);
    finish(gpu, job, "a wait that is measured");
    destroy(gpu, queue);
    uint64_t after = usage_of(gpu, "drm-cycles-bcs:", 0), passed = usage_of(gpu, "drm-total-cycles-bcs:", 0) - total;
    expect(before < during && during <= after, "a queue's time grows and stays");
    expect(after - before <= passed, "no more than has passed");
    expect(usage_of(gpu, "drm-engine-capacity-bcs:", 0) == 8 && usage_of(gpu, "drm-client-id:", 0) > 0, "what there is");
    free(word);
}

static void state(struct gpu *gpu, uint32_t queue) {
    static const struct { uint32_t word; int length; } commands[] = {
        {0x61090001, 3}, {0x69040302, 1}, {0x72000004, 6}, {0x61050000, 2}, {0x61010014, 22}, {0x7a000a04, 6},
    };
    struct batch batch = {0};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        emit(&batch, commands[i].word);
        for (int n = 1; n < commands[i].length; n++)
            emit(&batch, 0);
    }
    uint64_t *out = calloc(8, 8);
    EMIT(&batch, 0x7a000004, 1 << 14, AT(&out[0]), 7, 8);
    do_on(gpu, queue, &batch, "state of shaders");
    expect(out[0] == 0x800000007, "a PIPE_CONTROL writes its data");
    free(out);
}

int main(void) {
    struct gpu gpu;
    gpu_open(&gpu);
    uint32_t copy[TILES], compute = queue_of(&gpu, 0, CLASS_COMPUTE, 0, 1);
    for (unsigned tile = 0; tile < TILES; tile++)
        copy[tile] = queue_of(&gpu, tile, CLASS_COPY, 0, 1);
    registers(&gpu, compute);
    registers(&gpu, copy[1]);
    timestamps(&gpu, copy[0]);
    state(&gpu, compute);
    for (unsigned tile = 0; tile < TILES; tile++)
        copies(&gpu, copy[tile], 3 * MB + 12345);
    uint32_t any = queue_of(&gpu, 1, CLASS_COPY, 0, 4);
    copies(&gpu, any, MB);
    meeting(&gpu, copy);
    loop(&gpu, compute);
    ring(&gpu, queue_of(&gpu, 0, CLASS_COPY, 2, 1), queue_of(&gpu, 0, CLASS_COPY, 2, 1));
    refusals(&gpu);
    usage(&gpu);
    gpu_close(&gpu);
    printf("COMMANDS ok\n");
    return 0;
}
