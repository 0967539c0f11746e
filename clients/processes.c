/*
 * Several processes on one device: its VRAM is one, whoever has it.
 *
 *     processes totals MIB ROUNDS [PROCESSES]   each adds to its own MIB of memory and of a buffer; the sums are exact
 *     processes turns MIB ROUNDS [PROCESSES]    the same, one after the other, round by round
 *     processes killed                          a process that is killed gives its VRAM back at once
 *     processes stopped                         one that is stopped keeps what it has, and blocks nobody
 *     processes forked                          a child opens the device again, beside what it has from its parent
 *     processes shares                          fdinfo tells each client's share, queries and debugfs the sum
 *     processes shared                          a buffer of VRAM goes to another process, and is in VRAM for both, once
 *     processes orphaned                        the same where its exporter is killed
 *     processes told                            what fdinfo of another process tells, however it is read; one that is stopped keeps nobody
 *     processes reset                           debugfs counts of all, and resets a GT for all, also by a process without the device
 *
 * A line for what is not as it should be; the last line is `PROCESSES ok` or `PROCESSES BAD failures=<n>`. Exit status 0 or 1; 2
 * where a call failed that must not.
 */
#define _GNU_SOURCE
#include "is.h"
#include "prime.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#define MB (1ul << 20)
#define BLOCK (64ul << 10)
#define BUFFER_AT 0x100000000000ull

static struct gpu gpu;
/* What parent and child tell each other: a byte each way. */
static int up[2], down[2];

static void tell(int pipe[2]) {
    if (write(pipe[1], "x", 1) != 1)
        die("write to a pipe");
}

static void await(int pipe[2]) {
    char byte;
    if (read(pipe[0], &byte, 1) != 1)
        die("read of a pipe");
}

/* A child that does `play` and ends with what it found wrong. */
static pid_t begin(void (*play)(void)) {
    fflush(stdout);
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        play();
        exit(failures ? 1 : 0);
    }
    return child;
}

static void ends_well(pid_t child) {
    int status = -1;
    if (waitpid(child, &status, 0) != child)
        die("waitpid");
    IS(status, 0);
}

/* Bytes of tile 0's VRAM that are used, by whomever. */
static uint64_t vram_used(int fd) {
    struct query_head *head = ask(fd, QUERY_MEM_REGIONS, NULL);
    uint64_t used = ((struct mem_region *)(head + 1))[1].used;
    free(head);
    return used;
}

static uint32_t buffer(int fd, size_t size, uint32_t placement, int *error) {
    struct gem_create create = {.size = size, .placement = placement, .cpu_caching = CACHING_WC};
    *error = try_ioctl(fd, IOC_GEM_CREATE, &create) ? errno : 0;
    return create.handle;
}

static uint32_t must_buffer(int fd, size_t size) {
    int error;
    uint32_t handle = buffer(fd, size, PLACE_VRAM0, &error);
    IS(error, 0);
    return handle;
}

static volatile uint32_t *map(int fd, uint32_t handle, size_t size) {
    struct gem_mmap_offset offset = {.handle = handle};
    must_ioctl(fd, IOC_GEM_MMAP_OFFSET, &offset, "GEM_MMAP_OFFSET");
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset.offset);
    if (at == MAP_FAILED)
        die("mmap of a buffer");
    return at;
}

static char *memory(size_t size) {
    char *at = aligned_alloc(2 * MB, size);
    if (!at)
        die("aligned_alloc");
    memset(at, 0, size);
    return at;
}

/* Adds to the first word of every block. */
static void add_to_all(unsigned tile, uint64_t at, size_t size, uint32_t value) {
    struct batch batch = {0};
    for (size_t block = 0; block < size; block += BLOCK)
        atomic_add32(&batch, (void *)(at + block), value);
    IS(run(&gpu, tile, &batch), 0);
}

static void store_to_all(uint64_t at, size_t size, uint32_t value) {
    struct batch batch = {0};
    for (size_t block = 0; block < size; block += BLOCK)
        store32(&batch, (void *)(at + block), value);
    IS(run(&gpu, 0, &batch), 0);
}

static void all_are(volatile const char *at, size_t size, uint32_t value) {
    unsigned wrong = 0;
    for (size_t block = 0; block < size; block += BLOCK)
        wrong += *(volatile const uint32_t *)(at + block) != value;
    IS(wrong, 0);
}

static size_t total;
static unsigned rounds, number, count;
static int turns[16][2]; /* whose turn it is, where they take turns */

static void add_up(void) {
    gpu_open(&gpu);
    char *mine = memory(total);
    uint32_t handle = must_buffer(gpu.fd, total);
    volatile uint32_t *words = map(gpu.fd, handle, total);
    gpu_bind(&gpu, (struct bind_op){.obj = handle, .range = total, .addr = BUFFER_AT, .op = BIND_MAP});
    for (unsigned round = 0; round < rounds; round++) {
        if (turns[0][1])
            await(turns[number]);
        add_to_all(0, (uintptr_t)mine, total, 1 + round);
        add_to_all(0, BUFFER_AT, total, 1 + round);
        if (turns[0][1])
            tell(turns[(number + 1) % count]);
    }
    all_are(mine, total, rounds * (rounds + 1) / 2);
    all_are((volatile const char *)words, total, rounds * (rounds + 1) / 2);
    gpu_close(&gpu);
}

static void totals(void) {
    pid_t children[16];
    for (number = 0; number < count; number++)
        children[number] = begin(add_up);
    if (turns[0][1])
        tell(turns[0]);
    for (unsigned n = 0; n < count; n++)
        ends_well(children[n]);
}

/* Takes VRAM both ways, says so, and lives on. */
static void hold(void) {
    gpu_open(&gpu);
    must_buffer(gpu.fd, 2 * MB);
    store_to_all((uintptr_t)memory(2 * MB), 2 * MB, 7);
    tell(up);
    pause();
}

static void killed(void) {
    gpu_open(&gpu);
    must_buffer(gpu.fd, MB);
    IS(vram_used(gpu.fd), MB);
    pid_t child = begin(hold);
    await(up);
    IS(vram_used(gpu.fd), 5 * MB);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    IS(vram_used(gpu.fd), MB);
    /* and it can be had: all that the device has */
    must_buffer(gpu.fd, vram_of_a_tile(gpu.fd) - MB);
    IS(vram_used(gpu.fd), vram_of_a_tile(gpu.fd));
}

static void fill(void) {
    gpu_open(&gpu);
    size_t all = vram_of_a_tile(gpu.fd);
    char *mine = memory(all);
    store_to_all((uintptr_t)mine, all, 7);
    IS(vram_used(gpu.fd), all);
    tell(up);
    await(down);
    all_are(mine, all, 7);
}

static void stopped(void) {
    pid_t child = begin(fill);
    await(up);
    kill(child, SIGSTOP);
    waitpid(child, NULL, WUNTRACED);
    gpu_open(&gpu);
    size_t all = vram_of_a_tile(gpu.fd);
    IS(vram_used(gpu.fd), all);
    int error;
    buffer(gpu.fd, MB, PLACE_VRAM0, &error);
    IS(error, ENOMEM);
    buffer(gpu.fd, MB, PLACE_VRAM0 | PLACE_SYSTEM, &error);
    IS(error, 0);
    char *mine = memory(2 * MB);
    store_to_all((uintptr_t)mine, 2 * MB, 9);
    IS(vram_used(gpu.fd), all);
    kill(child, SIGCONT);
    /* what it was asked for meanwhile it gives now; then it is asked again */
    while (buffer(gpu.fd, all, PLACE_VRAM0, &error), error == ENOMEM)
        usleep(1000);
    IS(error, 0);
    all_are(mine, 2 * MB, 9);
    tell(down);
    ends_well(child);
}

/* Opens the device again, and goes on with what it has from its parent. */
static void again(void) {
    int inherited = gpu.fd;
    gpu_open(&gpu);
    IS(inherited != gpu.fd, 1);
    char *mine = memory(2 * MB);
    add_to_all(0, (uintptr_t)mine, 2 * MB, 3);
    await(down);
    IS(vram_used(gpu.fd), 5 * MB);
    IS(vram_used(inherited), 5 * MB);
    tell(up);
    await(down);
    all_are(mine, 2 * MB, 3);
    gpu_close(&gpu);
    close(inherited);
}

static void forked(void) {
    gpu_open(&gpu);
    must_buffer(gpu.fd, MB);
    char *mine = memory(2 * MB);
    add_to_all(0, (uintptr_t)mine, 2 * MB, 1);
    pid_t child = begin(again);
    add_to_all(0, (uintptr_t)mine, 2 * MB, 1);
    tell(down);
    await(up);
    IS(vram_used(gpu.fd), 5 * MB);
    tell(down);
    ends_well(child);
    IS(vram_used(gpu.fd), 3 * MB);
    add_to_all(0, (uintptr_t)mine, 2 * MB, 1);
    all_are(mine, 2 * MB, 3);
}

/* A number behind `key` in a file, in bytes where it has a unit. */
static uint64_t number_in(const char *path, const char *key) {
    char line[256];
    FILE *file = fopen(path, "r");
    if (!file)
        die(path);
    uint64_t value = ~0ull;
    while (fgets(line, sizeof line, file)) {
        char unit[8] = "";
        unsigned long long found;
        const char *at = line + strspn(line, " ");
        size_t length = strlen(key);
        if (strncmp(at, key, length) || at[length] != ':')
            continue;
        sscanf(at + length + 1, "%llu %7s", &found, unit);
        value = found << (!strcmp(unit, "KiB") ? 10 : !strcmp(unit, "MiB") ? 20 : 0);
    }
    fclose(file);
    return value;
}

static uint64_t fdinfo(int fd, const char *key) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    return number_in(path, key);
}

/* The same of another process, found as gputop finds it: by the directories of its descriptors. */
static uint64_t fdinfo_of(pid_t process, int fd, const char *key) {
    char path[64], name[16], copy[64];
    snprintf(name, sizeof name, "%d", fd);
    snprintf(path, sizeof path, "/proc/%d/fd", process);
    int links = open(path, O_RDONLY | O_DIRECTORY);
    struct stat stat;
    IS(fstatat(links, name, &stat, 0), 0);
    IS(S_ISCHR(stat.st_mode) && stat.st_rdev == makedev(226, 128), 1);
    ssize_t length = readlinkat(links, name, path, sizeof path);
    IS(length == 19 && !memcmp(path, "/dev/dri/renderD128", 19), 1);
    snprintf(path, sizeof path, "/proc/%d/fdinfo", process);
    int infos = open(path, O_RDONLY | O_DIRECTORY);
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", process, fd);
    int info = openat(infos, name, O_RDONLY);
    snprintf(copy, sizeof copy, "/proc/self/fd/%d", info);
    uint64_t value = number_in(path, key);
    IS(number_in(copy, key) == value, 1);
    close(links), close(infos), close(info);
    return value;
}

static uint64_t above;

static void share(void) {
    gpu_open(&gpu);
    must_buffer(gpu.fd, 3 * MB);
    IS(fdinfo(gpu.fd, "drm-resident-vram0"), 3 * MB);
    IS(fdinfo(gpu.fd, "drm-client-id") > above, 1);
    IS(vram_used(gpu.fd), 4 * MB);
    IS(number_in("/sys/kernel/debug/dri/0/vram0_mm", "usage"), 4 * MB);
    IS(number_in("/sys/kernel/debug/dri/0/vram0_mm", "size"), vram_of_a_tile(gpu.fd));
}

static void shares(void) {
    gpu_open(&gpu);
    must_buffer(gpu.fd, MB);
    IS(fdinfo(gpu.fd, "drm-resident-vram0"), MB);
    above = fdinfo(gpu.fd, "drm-client-id");
    ends_well(begin(share));
    IS(fdinfo(gpu.fd, "drm-resident-vram0"), MB);
    IS(vram_used(gpu.fd), MB);
}

/* What the children have to tell, in memory of both. */
static struct { int fd, copy, plain; uint64_t client; } *of_child;

static void be_told_of(void) {
    gpu_open(&gpu);
    must_buffer(gpu.fd, 2 * MB);
    of_child->client = fdinfo(gpu.fd, "drm-client-id");
    of_child->fd = gpu.fd;
    of_child->copy = dup(gpu.fd);
    of_child->plain = open("/dev/null", O_RDONLY);
    tell(up);
    await(down);
    must_buffer(gpu.fd, MB);
    struct gpu second;
    gpu_open(&second);
    must_buffer(second.fd, 4 * MB);
    of_child->copy = second.fd;
    tell(up);
    await(down);
}

/* The parent has no device of its own: it looks on. */
static void told(void) {
    of_child = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child = begin(be_told_of);
    await(up);
    int fd = of_child->fd;
    IS(fdinfo_of(child, fd, "drm-resident-vram0"), 2 * MB);
    IS(fdinfo_of(child, fd, "drm-client-id"), of_child->client);
    IS(fdinfo_of(child, of_child->copy, "drm-client-id"), of_child->client);
    tell(down);
    await(up);
    IS(fdinfo_of(child, fd, "drm-resident-vram0"), 3 * MB);
    IS(fdinfo_of(child, of_child->copy, "drm-resident-vram0"), 4 * MB);
    IS(fdinfo_of(child, of_child->copy, "drm-client-id") == of_child->client, 0);
    /* what is no node is as the kernel has it */
    char path[64], command[128];
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", child, of_child->plain);
    IS(number_in(path, "drm-client-id") == ~0ull && number_in(path, "pos") == 0, 1);
    /* any program of the run is told, too */
    snprintf(command, sizeof command, "grep -q '^drm-resident-vram0:.3 MiB$' /proc/%d/fdinfo/%d", child, fd);
    IS(system(command), 0);
    kill(child, SIGSTOP);
    waitpid(child, NULL, WUNTRACED);
    IS(number_in(path, "pos"), 0);
    IS(fdinfo_of(child, fd, "drm-client-id") == ~0ull, 1);
    kill(child, SIGCONT);
    IS(fdinfo_of(child, fd, "drm-client-id"), of_child->client);
    tell(down);
    ends_well(child);
}

#define GT0 "/sys/kernel/debug/dri/0/gt0/"

/* What a write to a file of debugfs says: 0, or the errno. */
static int order(const char *path, const char *text) {
    int fd = open(path, O_WRONLY), error = 0;
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        error = errno;
    close(fd);
    return error;
}

/* A job that waits for ever, until somebody else resets the GT. */
static void be_reset(void) {
    gpu_open(&gpu);
    uint32_t *words = mmap(NULL, 2 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    /* MI_SEMAPHORE_WAIT by polling until word 0 equals 1, which nobody writes */
    const uint32_t poll[] = {0x0e00c002, 1, (uint32_t)AT(words), (uint32_t)(AT(words) >> 32), 0x05000000};
    memcpy(words + PAGE / 4, poll, sizeof poll);
    struct exec exec = {.exec_queue_id = gpu.queues[0], .address = AT(words + PAGE / 4), .num_batch_buffer = 1};
    must_ioctl(gpu.fd, IOC_EXEC, &exec, "EXEC");
    tell(up);
    await(down);
    struct queue_property banned = {.exec_queue_id = gpu.queues[0]};
    must_ioctl(gpu.fd, IOC_EXEC_QUEUE_GET_PROPERTY, &banned, "GET_PROPERTY");
    IS(banned.value, 1);
}

static void reset(void) {
    IS(number_in(GT0 "stats", "svm_pagefault_count"), 0);
    pid_t child = begin(be_reset);
    await(up);
    for (int tries = 0; tries < 500 && number_in(GT0 "stats", "svm_pagefault_count") == 0; tries++)
        usleep(10000);
    IS(number_in(GT0 "stats", "svm_pagefault_count") > 0, 1);
    IS(number_in(GT0 "stats", "prl_aborted_count"), 0);
    IS(number_in(GT0 "../vram_mm", "usage") - 1 < 64 * MB, 1);
    IS(order(GT0 "stats", "maybe"), EINVAL);
    IS(order(GT0 "stats", "on"), 0);
    IS(number_in(GT0 "stats", "svm_pagefault_count"), 0);
    kill(child, SIGSTOP);
    waitpid(child, NULL, WUNTRACED);
    IS(order(GT0 "force_reset_sync", "1"), EIO);
    kill(child, SIGCONT);
    IS(order(GT0 "force_reset_sync", "1"), 0);
    tell(down);
    ends_well(child);
}

static int ends[2];

/* Of a tile's VRAM: there is no room for two. */
#define SHARED (5 * MB)

static void add_to_buffer(uint32_t value) { add_to_all(0, BUFFER_AT, SHARED, value); }

/* A buffer of VRAM, bound, whose descriptor goes to who waits for it at the other end. */
static uint32_t export(void) {
    gpu_open(&gpu);
    uint32_t handle = must_buffer(gpu.fd, SHARED);
    gpu_bind(&gpu, (struct bind_op){.obj = handle, .range = SHARED, .addr = BUFFER_AT, .op = BIND_MAP});
    add_to_buffer(5);
    int dma_buf;
    IS(prime_export(gpu.fd, handle, PRIME_CLOEXEC | PRIME_RDWR, &dma_buf), 0);
    send_fd(ends[0], dma_buf);
    close(dma_buf);
    return handle;
}

/* The buffer that comes by the socket, bound: it is in VRAM here, too. */
static uint32_t import(void) {
    gpu_open(&gpu);
    uint32_t handle;
    int dma_buf = receive_fd(ends[1]);
    IS(prime_import(gpu.fd, dma_buf, &handle), 0);
    close(dma_buf);
    IS(fdinfo(gpu.fd, "drm-resident-vram0"), SHARED);
    IS(fdinfo(gpu.fd, "drm-total-system"), 0);
    IS(map(gpu.fd, handle, SHARED)[0], 5);
    gpu_bind(&gpu, (struct bind_op){.obj = handle, .range = SHARED, .addr = BUFFER_AT, .op = BIND_MAP});
    add_to_buffer(1);
    IS(fdinfo(gpu.fd, "drm-resident-vram0"), SHARED);
    /* it is one buffer */
    IS(vram_used(gpu.fd), SHARED);
    return handle;
}

static void import_and_add(void) {
    uint32_t handle = import();
    volatile const char *words = (volatile const char *)map(gpu.fd, handle, SHARED);
    /* it goes for another one, in both processes; and comes again */
    must_buffer(gpu.fd, 4 * MB);
    IS(vram_used(gpu.fd), 4 * MB);
    add_to_buffer(1);
    IS(vram_used(gpu.fd), SHARED);
    tell(up);
    await(down);
    IS(vram_used(gpu.fd), SHARED);
    add_to_buffer(1);
    all_are(words, SHARED, 18);
    gpu_close(&gpu);
}

static void shared(void) {
    pid_t child = begin(import_and_add);
    uint32_t handle = export();
    volatile const char *words = (volatile const char *)map(gpu.fd, handle, SHARED);
    await(up);
    IS(fdinfo(gpu.fd, "drm-resident-vram0"), 0);
    all_are(words, SHARED, 7);
    add_to_buffer(10);
    tell(down);
    ends_well(child);
    all_are(words, SHARED, 18);
    IS(vram_used(gpu.fd), SHARED);
    gpu_close(&gpu);
    gpu_open(&gpu);
    IS(vram_used(gpu.fd), 0);
}

static void export_and_wait(void) {
    export();
    pause();
}

/* The exporter is killed: the buffer stays, and what it takes of VRAM is the importer's. */
static void orphaned(void) {
    pid_t child = begin(export_and_wait);
    uint32_t handle = import();
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    IS(vram_used(gpu.fd), SHARED);
    add_to_buffer(1);
    all_are((volatile const char *)map(gpu.fd, handle, SHARED), SHARED, 7);
    IS(fdinfo(gpu.fd, "drm-resident-vram0"), SHARED);
    gpu_close(&gpu);
    gpu_open(&gpu);
    IS(vram_used(gpu.fd), 0);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (pipe(up) || pipe(down))
        die("pipe");
    if ((!strcmp(what, "totals") || !strcmp(what, "turns")) && argc > 3) {
        total = strtoul(argv[2], NULL, 0) * MB;
        rounds = (unsigned)atoi(argv[3]);
        count = argc > 4 ? (unsigned)atoi(argv[4]) % 17 : 2;
        for (unsigned n = 0; what[1] == 'u' && n < count; n++)
            if (pipe(turns[n]))
                die("pipe");
        totals();
    } else if (!strcmp(what, "killed")) {
        killed();
    } else if (!strcmp(what, "stopped")) {
        stopped();
    } else if (!strcmp(what, "forked")) {
        forked();
    } else if (!strcmp(what, "shares")) {
        shares();
    } else if (!strcmp(what, "shared") || !strcmp(what, "orphaned")) {
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
            die("socketpair");
        what[0] == 's' ? shared() : orphaned();
    } else if (!strcmp(what, "told")) {
        told();
    } else if (!strcmp(what, "reset")) {
        reset();
    } else {
        fprintf(stderr, "usage: processes totals|turns MIB ROUNDS [PROCESSES] | killed | stopped | forked | shares | shared | orphaned | told | reset\n");
        return 2;
    }
    return verdict("PROCESSES");
}
