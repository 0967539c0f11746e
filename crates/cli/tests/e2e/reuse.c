/* One address, two owners in turn. The first maps it, lets GPU and CPU write, drops it (DONTNEED) and unmaps it; the
 * second takes it as soon as it is free, writes words of its own and reads them again. Nothing is shared. Says how many
 * words the second did not find again; exit 1 where there was one. Argument: rounds. */
#define _GNU_SOURCE
#include "../../../../clients/gpu.h"
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#define BYTES (64ul << 10)
#define CHUNK (2ul << 20)

static char *place;
static _Atomic int turn, stop;
static long lost, taken;

/* Another thread's mapping may be there still. */
static char *take_place(void) {
    char *got;
    do
        got = mmap(place, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    while (got == MAP_FAILED);
    return got;
}

static volatile long *word(unsigned long page) { return (volatile long *)(place + page * PAGE); }

static void *second(void *unused) {
    (void)unused;
    while (!stop) {
        if (turn != 1) {
            sched_yield();
            continue;
        }
        take_place();
        taken++;
        for (unsigned long page = 0; page < BYTES / PAGE; page++)
            *word(page) = 0x5eed + (long)page;
        for (int look = 0; look < 50; look++) {
            for (unsigned long page = 0; page < BYTES / PAGE; page++) {
                if (*word(page) != 0x5eed + (long)page) {
                    lost++;
                    *word(page) = 0x5eed + (long)page;
                }
            }
            if (look % 10 == 0)
                usleep(50);
        }
        munmap(place, BYTES);
        turn = 0;
    }
    return NULL;
}

int main(int argc, char **argv) {
    struct gpu gpu;
    pthread_t thread;
    int rounds = argc > 1 ? atoi(argv[1]) : 2000;
    gpu_open(&gpu);
    char *room = mmap(NULL, 2 * CHUNK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    place = (char *)(((uintptr_t)room + CHUNK) & ~(CHUNK - 1));
    munmap(place, BYTES);
    pthread_create(&thread, NULL, second, NULL);
    for (int round = 0; round < rounds; round++) {
        struct batch batch = {0};
        take_place();
        for (unsigned long page = 0; page < BYTES / PAGE; page++)
            *word(page) = round;
        store32(&batch, place + 8, (uint32_t)round);
        if ((errno = run(&gpu, (unsigned)round % TILES, &batch)))
            die("run");
        /* Every other time it is at home again, and registered still. */
        for (unsigned long page = 0; round % 2 && page < BYTES / PAGE; page++)
            *word(page) = round;
        turn = 1;
        madvise(place, BYTES, MADV_DONTNEED);
        munmap(place, BYTES);
        while (turn == 1)
            sched_yield();
    }
    stop = 1;
    pthread_join(thread, NULL);
    printf("%d rounds, %ld taken, %ld lost\n", rounds, taken, lost);
    return lost != 0;
}
