/*
 * Does what a file of records says (crates/fuzz/src/live.rs writes them): ioctls with arguments that were made elsewhere,
 * changes of memory, forks. Writes down how each ioctl was answered.
 *
 * Beside it goes on a neighbour on each device (two at most): another open file with a queue on each tile, whose jobs must be
 * done whatever happens. Exit code 1 and a line on stderr where they are not, or where VRAM stays taken at the end of a sequence.
 */
#define _GNU_SOURCE
#include "gpu.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

enum { DESK_BYTES = 8192, FIRST_FD = 500, EVENT_FD = 490, MOST_FDS = 64, DEVICES = 2 };
enum { OP_START = 1, OP_PUT, OP_IOCTL, OP_MEMORY, OP_CLOSE, OP_REOPEN, OP_FORK, OP_RESET, OP_SLEEP, OP_BEAT, OP_END };
enum { MAP, MAP_SHARED_, UNMAP, READ_ONLY, WRITABLE, DONTNEED, FREE, MOVE, LOAD, STORE };

static char *const desk = (char *)0x600000000000, *const arena = (char *)0x600010000000, *const code = (char *)0x600020000000;
static const size_t desk_size = 0x10000, arena_size = 8ul << 20, mapped_size = 4ul << 20, code_size = 0x10000;

struct record { uint64_t op, a, b, c, d, e; };

static const char *const nodes[2 * DEVICES] = {"/dev/dri/card0", "/dev/dri/renderD128", "/dev/dri/card1", "/dev/dri/renderD129"};
static const int device_fds[DEVICES] = {480, 482};
static int files[2 * DEVICES] = {-1, -1, -1, -1};
static int devices;
static sigjmp_buf out_of_reach;
static volatile sig_atomic_t guarded;
static struct gpu neighbours[DEVICES];
static uint64_t *fence, beats;
static FILE *answers;

static void fault(int signal) {
    if (guarded)
        siglongjmp(out_of_reach, 1);
    fprintf(stderr, "signal %d\n", signal);
    _exit(1);
}

/* Copies where there is memory. */
static void copy(void *to, const void *from, size_t bytes) {
    guarded = 1;
    if (sigsetjmp(out_of_reach, 1) == 0)
        memmove(to, from, bytes);
    guarded = 0;
}

static void map(char *at, size_t bytes, int flags) {
    if (mmap(at, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        die("mmap");
}

static void reopen(int n) {
    if (files[n] >= 0)
        close(files[n]);
    files[n] = open(nodes[n], O_RDWR | O_CLOEXEC);
    if (files[n] < 0)
        die(nodes[n]);
}

static void start(void) {
    map(desk, desk_size, MAP_PRIVATE);
    munmap(arena, arena_size);
    map(arena, mapped_size, MAP_PRIVATE);
    map(code, code_size, MAP_PRIVATE);
    for (int n = 0; n < 2 * devices; n++)
        reopen(n);
    for (int n = 0; n < devices; n++)
        if (dup2(files[2 * n], device_fds[n]) < 0)
            die("dup2");
    int event = eventfd(0, EFD_CLOEXEC);
    if (event < 0 || dup2(event, EVENT_FD) < 0)
        die("eventfd");
    close(event);
}

static void beat_on(const struct gpu *neighbour) {
    static struct batch batches[2];
    for (unsigned tile = 0; tile < neighbour->tiles && tile < 2; tile++) {
        struct batch *batch = &batches[tile];
        uint32_t *data = (uint32_t *)(fence + 64 + tile);
        batch->length = 0;
        store32(batch, data, ++beats);
        emit(batch, MI_BATCH_BUFFER_END);
        *fence = 0;
        struct sync sync = {.type = SYNC_USER_FENCE, .flags = SYNC_SIGNAL, .addr = (uintptr_t)fence, .value = FENCE_VALUE};
        struct exec exec = {.exec_queue_id = neighbour->queues[tile], .num_syncs = 1, .syncs = (uintptr_t)&sync,
                            .address = (uintptr_t)batch->words, .num_batch_buffer = 1};
        must_ioctl(neighbour->fd, IOC_EXEC, &exec, "the neighbour's EXEC");
        if ((errno = wait_fence(neighbour->fd, fence, neighbour->queues[tile])))
            die("the neighbour's wait");
        if (*data != (uint32_t)beats) {
            fprintf(stderr, "the neighbour's data: %u, not %u\n", *data, (uint32_t)beats);
            exit(1);
        }
    }
}

static void beat(void) {
    for (int n = 0; n < devices; n++)
        beat_on(&neighbours[n]);
}

static void do_ioctl(const struct record *record) {
    int on = record->a < 2 * DEVICES ? files[record->a] : (int)record->a;
    char *at = (char *)record->c;
    static char bytes[1 << 14];
    fwrite(desk, 1, DESK_BYTES, answers);
    int64_t error = ioctl(on, record->b, at) < 0 ? errno : 0;
    memset(bytes, 0, record->d);
    copy(bytes, at, record->d);
    if (error == 0 && record->e) {
        /* Descriptors have the same numbers in every world. */
        int *fd = (int *)(bytes + record->e - 1), moved = fcntl(*fd, F_DUPFD_CLOEXEC, FIRST_FD);
        if (moved >= 0) {
            close(*fd);
            *fd = moved;
        }
    }
    fwrite(&error, sizeof error, 1, answers);
    fwrite(bytes, 1, record->d, answers);
}

static void do_memory(const struct record *record) {
    char *at = arena + record->b * PAGE;
    size_t bytes = record->c * PAGE;
    volatile char byte = 0;
    switch (record->a) {
    case MAP: map(at, bytes, MAP_PRIVATE); break;
    case MAP_SHARED_: map(at, bytes, MAP_SHARED); break;
    case UNMAP: munmap(at, bytes); break;
    case READ_ONLY: mprotect(at, bytes, PROT_READ); break;
    case WRITABLE: mprotect(at, bytes, PROT_READ | PROT_WRITE); break;
    case DONTNEED: madvise(at, bytes, MADV_DONTNEED); break;
    case FREE: madvise(at, bytes, MADV_FREE); break;
    case MOVE: {
        char *to = arena + record->d * PAGE;
        if (to + bytes <= at || at + bytes <= to) {
            /* Even where it fails, what was there may be gone. */
            void *moved = mremap(at, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to);
            (void)moved;
        }
        break;
    }
    default:
        for (size_t n = 0; n < record->c; n++) {
            uint64_t value = (uintptr_t)(at + n * PAGE);
            if (record->a == LOAD)
                copy((void *)&byte, at + n * PAGE, 1);
            else
                copy(at + n * PAGE, &value, sizeof value);
        }
    }
}

static void do_fork(void) {
    pid_t child = fork();
    if (child == 0) {
        char byte;
        copy(&byte, arena, 1);
        _exit(0);
    }
    if (child > 0)
        waitpid(child, NULL, 0);
}

static void reset(unsigned gt) {
    char path[64];
    unsigned tiles = neighbours[0].tiles;
    snprintf(path, sizeof path, "/sys/kernel/debug/dri/%u/gt%u/force_reset_sync", gt / tiles, gt % tiles);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file >= 0 && write(file, "1", 1) == 1)
        close(file);
}

/* Jobs that others wait for may run for this long only: an munmap waits for those that use the memory by a userptr. */
static void shorten_jobs(int device) {
    static const char *const classes[] = {"bcs", "ccs"};
    for (unsigned n = 0; n < 2 * neighbours[device].tiles; n++) {
        char path[128];
        snprintf(path, sizeof path, "/sys/class/drm/card%d/device/tile%u/gt%u/engines/%s/job_timeout_ms", device, n / 2, n / 2, classes[n % 2]);
        int file = open(path, O_WRONLY | O_CLOEXEC);
        if (file < 0 || write(file, "100", 3) != 3)
            die(path);
        close(file);
    }
}

/* Bytes of memory that a device's processes have. */
static uint64_t used_on(const struct gpu *neighbour) {
    uint64_t used = 0;
    struct query_head *head = ask(neighbour->fd, QUERY_MEM_REGIONS, NULL);
    struct mem_region *regions = (struct mem_region *)(head + 1);
    for (uint32_t n = 0; n < head->count; n++)
        used += regions[n].used;
    free(head);
    return used;
}

/* Nothing of the sequence is left. */
static void end(void) {
    for (int fd = FIRST_FD; fd < FIRST_FD + MOST_FDS; fd++)
        close(fd);
    close(EVENT_FD);
    for (int n = 0; n < devices; n++)
        close(device_fds[n]);
    for (int n = 0; n < 2 * devices; n++) {
        close(files[n]);
        files[n] = -1;
    }
    munmap(arena, arena_size);
    munmap(desk, desk_size);
    munmap(code, code_size);
    beat();
    uint64_t used = 0;
    for (int tries = 0; tries < 200; tries++) {
        /* What is the neighbour's comes back with a touch. */
        *(volatile uint64_t *)fence = 0;
        used = 0;
        for (int n = 0; n < devices; n++)
            used += used_on(&neighbours[n]);
        if (used <= 8ul << 20)
            return;
        usleep(5000);
    }
    fprintf(stderr, "%lu bytes of memory stay taken\n", (unsigned long)used);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s RECORDS ANSWERS\n", argv[0]);
        return 2;
    }
    FILE *records = fopen(argv[1], "rbe");
    answers = fopen(argv[2], "wbe");
    if (!records || !answers)
        die("records and answers");
    while (devices < DEVICES && access(nodes[2 * devices + 1], F_OK) == 0) {
        gpu_open_node(&neighbours[devices], nodes[2 * devices + 1]);
        shorten_jobs(devices++);
    }
    if (posix_memalign((void **)&fence, 65536, 65536))
        die("memory");
    signal(SIGSEGV, fault);
    signal(SIGBUS, fault);
    struct record record;
    while (fread(&record, sizeof record, 1, records) == 1) {
        switch (record.op) {
        case OP_START: start(); break;
        case OP_PUT: {
            char *bytes = malloc(record.b + 1);
            if (!bytes || fread(bytes, 1, record.b, records) != record.b)
                die("a record");
            copy((char *)record.a, bytes, record.b);
            free(bytes);
            break;
        }
        case OP_IOCTL: do_ioctl(&record); break;
        case OP_MEMORY: do_memory(&record); break;
        case OP_CLOSE: if (record.a >= FIRST_FD && record.a < FIRST_FD + MOST_FDS) close(record.a); break;
        case OP_REOPEN: reopen(record.a % (2 * devices)); break;
        case OP_FORK: fflush(answers); do_fork(); break;
        case OP_RESET: reset(record.a); break;
        case OP_SLEEP: nanosleep(&(struct timespec){.tv_nsec = (long)record.a}, NULL); break;
        case OP_BEAT: beat(); break;
        case OP_END: end(); break;
        default: fprintf(stderr, "no such record\n"); return 2;
        }
    }
    fclose(answers);
    for (int n = 0; n < devices; n++)
        gpu_close(&neighbours[n]);
    return 0;
}
