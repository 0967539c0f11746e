/* One mapping of 6M. The GPU stores into its last MiB only, while the CPU moves [1M, 5M) of it away by mremap. Nothing is
 * shared, so mremap succeeds. Says how often it did not, and how often bytes were wrong; exit 1 where that was. Argument:
 * rounds. */
#define _GNU_SOURCE
#include "../../../../clients/gpu.h"
#include <pthread.h>
#include <sys/mman.h>

#define M (1ul << 20)

static struct gpu gpu;
static char *volatile block;
static pthread_barrier_t barrier;
static int rounds;

static void *tiles(void *unused) {
    (void)unused;
    for (int round = 0; round < rounds; round++) {
        pthread_barrier_wait(&barrier);
        for (unsigned job = 0; job < 6; job++) {
            struct batch batch = {0};
            *(volatile char *)(block + 6 * M - 1) = 1;
            for (unsigned long at = 5 * M; at < 6 * M; at += 65536)
                store32(&batch, block + at, (uint32_t)round + 1);
            if ((errno = run(&gpu, job % TILES, &batch)))
                die("run");
        }
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t thread;
    unsigned seed = 1;
    int failed = 0, wrong = 0;
    rounds = argc > 1 ? atoi(argv[1]) : 1000;
    gpu_open(&gpu);
    pthread_barrier_init(&barrier, NULL, 2);
    pthread_create(&thread, NULL, tiles, NULL);
    char *room = mmap(NULL, 8 * M, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (int round = 0; round < rounds; round++) {
        char *whole = mmap(NULL, 8 * M, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        block = (char *)(((uintptr_t)whole + 2 * M - 1) & ~(2 * M - 1));
        memset(block, 5, 6 * M);
        pthread_barrier_wait(&barrier);
        for (volatile int turn = rand_r(&seed) % 1500000; turn; turn--)
            ;
        char *moved = mremap(block + M, 4 * M, 4 * M, MREMAP_MAYMOVE | MREMAP_FIXED, room + M);
        failed += moved == MAP_FAILED;
        for (unsigned long at = 0; moved != MAP_FAILED && at < 4 * M; at += PAGE)
            wrong += moved[at] != 5;
        if (moved != MAP_FAILED)
            mmap(room + M, 4 * M, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
        pthread_barrier_wait(&barrier);
        for (unsigned long at = 5 * M; at < 6 * M; at += 65536)
            wrong += *(uint32_t *)(block + at) != (uint32_t)round + 1;
        munmap(whole, 8 * M);
    }
    pthread_join(thread, NULL);
    printf("%d rounds, %d failed, %d wrong\n", rounds, failed, wrong);
    return failed || wrong;
}
