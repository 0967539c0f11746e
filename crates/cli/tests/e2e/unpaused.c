/* One thread drops a megabyte over and over, without a pause, while jobs of both tiles store to it and the CPU reads it.
 * What is read is what was stored in this round, or zero. */
#define _GNU_SOURCE
#include "gpu.h"
#include <pthread.h>
#include <sys/mman.h>

enum { BYTES = 1 << 20, ROUNDS = 20 };

static char *memory;
static _Atomic int stop;

static void *drop(void *unused) {
    (void)unused;
    while (!stop)
        if (madvise(memory, BYTES, MADV_DONTNEED))
            die("madvise");
    return NULL;
}

int main(void) {
    struct gpu gpu;
    pthread_t dropper;
    gpu_open(&gpu);
    memory = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory = (char *)(((uintptr_t)memory + (2 << 20) - 1) & ~((uintptr_t)(2 << 20) - 1));
    memset(memory, 0, BYTES);
    pthread_create(&dropper, NULL, drop, NULL);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        struct batch batch = {0};
        for (size_t at = 0; at < BYTES; at += PAGE)
            store32(&batch, memory + at, round);
        if ((errno = run(&gpu, round % 2, &batch)))
            die("run");
        for (size_t at = 0; at < BYTES; at += PAGE) {
            uint32_t seen = *(volatile uint32_t *)(memory + at);
            if (seen && seen != round) {
                printf("round %u: %u\n", round, seen);
                return 1;
            }
        }
    }
    stop = 1;
    pthread_join(dropper, NULL);
    return 0;
}
