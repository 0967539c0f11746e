/*
 * One thread drops 1 MiB again and again (MADV_DONTNEED) while the GPU stores into every page of it, and the CPU reads what is
 * there: zero, or the round's number. One line when all rounds ran.
 *
 *     churn ROUNDS
 */
#define _GNU_SOURCE
#include "gpu.h"
#include <pthread.h>
#include <sys/mman.h>

#define BYTES (1ul << 20)

static _Atomic int stop;
static char *memory;

static void *drop(void *unused) {
    while (!stop)
        madvise(memory, BYTES, MADV_DONTNEED);
    return unused;
}

int main(int count, char **arguments) {
    uint32_t rounds = count > 1 ? (uint32_t)atoi(arguments[1]) : 1, wrong = 0;
    struct gpu gpu;
    gpu_open(&gpu);
    char *room = mmap(NULL, 4 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory = (char *)(((uintptr_t)room + 2 * BYTES - 1) & ~(2 * BYTES - 1));
    pthread_t dropper;
    if (room == MAP_FAILED || pthread_create(&dropper, NULL, drop, NULL) != 0)
        die("mmap, pthread_create");
    for (uint32_t round = 1; round <= rounds; round++) {
        struct batch batch = {0};
        for (size_t at = 0; at < BYTES; at += PAGE)
            store32(&batch, memory + at, round);
        if ((errno = run(&gpu, round & 1, &batch)))
            die("run");
        for (size_t at = 0; at < BYTES; at += PAGE) {
            uint32_t now = *(volatile uint32_t *)(memory + at);
            wrong += now != 0 && now != round;
        }
    }
    stop = 1;
    pthread_join(dropper, NULL);
    printf("%u rounds, %u wrong\n", rounds, wrong);
    return 0;
}
