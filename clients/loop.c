/*
 * Loop: a program that knows nothing of GPUs and does what breaks those who move its memory: it loads and unloads
 * libraries, forks, takes signals, remaps, protects and frees memory, in three threads, and checks every byte.
 *
 *     loop [ITERATIONS]        (200)
 *
 * The last line is the same in every run: `LOOP ok iterations=<n> checksum=<16 digits>`. A wrong byte ends the
 * program with `LOOP BAD <where>` and status 1.
 *
 *     cc -O1 -Wall -Wextra -Werror clients/loop.c -o loop -pthread
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define KB 1024ul
#define SLOTS 64

static unsigned iterations = 200;

static void wrong(const char *where) {
    printf("LOOP BAD %s\n", where);
    fflush(stdout);
    _exit(1);
}

static uint64_t next(uint64_t *state) {
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

static void fill(void *at, size_t bytes, uint64_t seed) {
    uint64_t *words = at;
    for (size_t i = 0; i < bytes / 8; i++)
        words[i] = (seed ^ i) * 0x9e3779b97f4a7c15ull;
}

/* The sum of the bytes that fill() left, every one compared. */
static uint64_t check(const void *at, size_t bytes, uint64_t seed, const char *where) {
    const uint64_t *words = at;
    uint64_t sum = 0;
    for (size_t i = 0; i < bytes / 8; i++) {
        if (words[i] != (seed ^ i) * 0x9e3779b97f4a7c15ull)
            wrong(where);
        sum += words[i];
    }
    return sum;
}

/* A timer's handler counts on a page of malloc's, as any of the program's memory may be where the GPU is. */
static volatile uint64_t *ticks;

static void on_alarm(int signal) {
    (void)signal;
    (*ticks)++;
}

static void start_timer(void) {
    ticks = aligned_alloc(PAGE, PAGE);
    *ticks = 0;
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval every = {{0, 2000}, {0, 2000}};
    setitimer(ITIMER_REAL, &every, NULL);
}

static void stop_timer(void) {
    struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &never, NULL);
}

static uint64_t libraries(void) {
    void *library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        wrong("dlopen");
    double (*root)(double);
    *(void **)&root = dlsym(library, "sqrt");
    if (!root || root(1764.0) != 42.0)
        wrong("sqrt");
    dlclose(library);
    return 42;
}

static uint64_t mappings(uint64_t seed) {
    size_t size = 512 * KB;
    unsigned char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        wrong("mmap");
    fill(at, size, seed);
    unsigned char *grown = mremap(at, size, 3 * size, MREMAP_MAYMOVE);
    if (grown == MAP_FAILED)
        wrong("mremap grows");
    uint64_t sum = check(grown, size, seed, "after mremap grew it");
    for (size_t i = size; i < 3 * size; i += PAGE)
        if (grown[i])
            wrong("new pages are zero");
    if (mprotect(grown, size, PROT_READ))
        wrong("mprotect");
    sum += check(grown, size, seed, "while it is read-only");
    if (mprotect(grown, size, PROT_READ | PROT_WRITE))
        wrong("mprotect back");
    /* a hole in the middle, which then is mapped anew */
    if (munmap(grown + 128 * KB, 64 * KB))
        wrong("munmap a part");
    sum += check(grown, 128 * KB, seed, "before the hole");
    unsigned char *hole = mmap(grown + 128 * KB, 64 * KB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    for (size_t i = 0; i < 64 * KB; i += 64)
        if (hole[i])
            wrong("a new mapping is zero");
    fill(hole, 64 * KB, seed + 1);
    if (madvise(grown + 2 * size, size, MADV_DONTNEED) || grown[2 * size])
        wrong("DONTNEED");
    unsigned char *small = mremap(grown, 3 * size, size, 0);
    if (small == MAP_FAILED)
        wrong("mremap shrinks");
    sum += check(small + 128 * KB, 64 * KB, seed + 1, "in the hole");
    munmap(small, size);
    return sum;
}

struct slot {
    void *at;
    size_t bytes;
    uint64_t seed;
};

/* One slot is freed, grown or filled anew; what was there is checked before. */
static uint64_t allocations(struct slot *slots, uint64_t *random) {
    uint64_t sum = 0;
    for (int i = 0; i < 16; i++) {
        struct slot *slot = &slots[next(random) % SLOTS];
        uint64_t kind = next(random) % 4;
        size_t bytes = (kind == 3 ? 8 + next(random) % (600 * KB) : 8 + next(random) % (8 * KB)) & ~7ul;
        if (slot->at)
            sum += check(slot->at, slot->bytes, slot->seed, "malloc'ed memory");
        if (kind == 0 || !slot->at) {
            free(slot->at);
            slot->at = malloc(bytes);
        } else {
            size_t kept = bytes < slot->bytes ? bytes : slot->bytes;
            slot->at = realloc(slot->at, bytes);
            if (slot->at)
                sum += check(slot->at, kept, slot->seed, "realloc'ed memory");
        }
        if (!slot->at)
            wrong("malloc");
        *slot = (struct slot){slot->at, bytes, next(random)};
        fill(slot->at, bytes, slot->seed);
    }
    return sum;
}

/* A child sees all of its parent's memory. */
static uint64_t children(struct slot *slots) {
    fflush(stdout);
    pid_t child = fork();
    if (child < 0)
        wrong("fork");
    if (child == 0) {
        for (int i = 0; i < SLOTS; i++)
            if (slots[i].at)
                check(slots[i].at, slots[i].bytes, slots[i].seed, "the parent's memory in a child");
        void *own = malloc(300 * KB);
        fill(own, 300 * KB, 5);
        check(own, 300 * KB, 5, "a child's own memory");
        free(own);
        _exit(0);
    }
    int status = -1;
    while (waitpid(child, &status, 0) < 0)
        ;
    if (status != 0)
        wrong("a child failed");
    return 1;
}

static void *worker(void *argument) {
    uint64_t number = (uintptr_t)argument, random = number, sum = 0;
    struct slot *slots = calloc(SLOTS, sizeof *slots);
    for (unsigned i = 0; i < iterations; i++) {
        sum += allocations(slots, &random);
        if (i % 4 == number % 4)
            sum += mappings(random);
        if (number == 0 && i % 8 == 0)
            sum += libraries();
        if (number == 0 && i % 20 == 0)
            sum += children(slots);
    }
    for (int i = 0; i < SLOTS; i++)
        free(slots[i].at);
    free(slots);
    uint64_t *result = malloc(sizeof *result);
    *result = sum;
    return result;
}

int main(int argc, char **argv) {
    if (argc > 1)
        iterations = (unsigned)strtoul(argv[1], NULL, 0);
    start_timer();
    pthread_t threads[2];
    for (uintptr_t i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, worker, (void *)(i + 1)))
            wrong("pthread_create");
    uint64_t *sums[3] = {worker((void *)0)};
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], (void **)&sums[i + 1]);
    stop_timer();
    uint64_t sum = 0;
    for (int i = 0; i < 3; i++)
        sum = sum * 31 + *sums[i];
    if (iterations >= 100 && *ticks == 0)
        wrong("no signal arrived");
    printf("LOOP ok iterations=%u checksum=%016llx\n", iterations, (unsigned long long)sum);
    return 0;
}
