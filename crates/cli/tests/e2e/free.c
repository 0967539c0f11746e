/* MADV_FREE lets the kernel take a page until the page is written again: a write that comes after it stays. The CPU frees,
 * writes and reads single pages of its own, while both tiles store to other pages of the same 2M. No page is shared. Says
 * how many writes were lost; exit 1 where there was one. Argument: rounds. */
#define _GNU_SOURCE
#include "../../../../clients/gpu.h"
#include <pthread.h>
#include <sys/mman.h>

enum { PAGES = 1024, OWN_EVERY = 8, FREES = 40 };
#define CHUNK (2ul << 20)

static struct gpu gpu;
static char *region;
static int rounds;
static _Atomic int stop;
static pthread_barrier_t barrier;

static volatile uint32_t *word(int page) { return (volatile uint32_t *)(region + (unsigned long)page * PAGE); }

static void *tile(void *number) {
    unsigned seed = 1 + (unsigned)(long)number;
    for (int round = 0; round < rounds; round++) {
        pthread_barrier_wait(&barrier);
        while (!stop) {
            struct batch batch = {0};
            for (int i = 0; i < 24; i++) {
                int page = rand_r(&seed) % PAGES;
                if (page % OWN_EVERY)
                    store32(&batch, (void *)(word(page) + (long)number), 1);
            }
            if ((errno = run(&gpu, (unsigned)(long)number, &batch)))
                die("run");
        }
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

int main(int argc, char **argv) {
    unsigned seed = 9;
    long lost = 0, writes = 0;
    pthread_t threads[TILES];
    rounds = argc > 1 ? atoi(argv[1]) : 40;
    gpu_open(&gpu);
    pthread_barrier_init(&barrier, NULL, TILES + 1);
    for (long number = 0; number < TILES; number++)
        pthread_create(&threads[number], NULL, tile, (void *)number);
    for (int round = 0; round < rounds; round++) {
        char *room = mmap(NULL, PAGES * PAGE + CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        region = (char *)(((uintptr_t)room + CHUNK - 1) & ~(CHUNK - 1));
        stop = 0;
        pthread_barrier_wait(&barrier);
        for (int i = 0; i < FREES; i++) {
            volatile uint32_t *own = word(rand_r(&seed) % (PAGES / OWN_EVERY) * OWN_EVERY);
            madvise((void *)own, PAGE, MADV_FREE);
            *own = (uint32_t)round + 1;
            usleep((useconds_t)rand_r(&seed) % 200);
            lost += *own != (uint32_t)round + 1;
            writes++;
        }
        stop = 1;
        pthread_barrier_wait(&barrier);
        munmap(room, PAGES * PAGE + CHUNK);
    }
    for (int number = 0; number < TILES; number++)
        pthread_join(threads[number], NULL);
    printf("%ld writes, %ld lost\n", writes, lost);
    return lost != 0;
}
