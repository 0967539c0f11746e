/* Threads, one after the other, on a stack that the program gives them, while both tiles store to a block right above it
 * in the same mapping: each can be joined. */
#define _GNU_SOURCE
#include "gpu.h"
#include <pthread.h>
#include <sys/mman.h>

enum { THREADS = 3000, PAGES = 16, STACK = PAGES * 4096 };

static struct gpu gpu;
static char *block;
static _Atomic int stop;

static void *store(void *tile) {
    for (uint32_t turn = 1; !stop; turn++) {
        struct batch batch = {0};
        for (unsigned page = 0; page < PAGES; page++)
            store32(&batch, block + page * PAGE + 4 * (uintptr_t)tile, turn);
        if ((errno = run(&gpu, (uintptr_t)tile, &batch)))
            die("run");
        for (unsigned page = 0; page < PAGES; page++)
            if (*(volatile uint32_t *)(block + page * PAGE + 4 * (uintptr_t)tile) != turn)
                puts("a store is lost");
    }
    return NULL;
}

static void *pass(void *argument) {
    usleep(500);
    return argument;
}

int main(void) {
    pthread_t tiles[TILES];
    pthread_attr_t attributes;
    gpu_open(&gpu);
    char *room = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *stack = (char *)(((uintptr_t)room + (2 << 20)) & -(2ul << 20));
    block = stack + STACK;
    for (uintptr_t tile = 0; tile < TILES; tile++)
        pthread_create(&tiles[tile], NULL, store, (void *)tile);
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack, STACK);
    for (long i = 0; i < THREADS; i++) {
        pthread_t thread;
        void *result = NULL;
        if ((errno = pthread_create(&thread, &attributes, pass, (void *)i)))
            die("pthread_create");
        pthread_join(thread, &result);
        if (result != (void *)i)
            puts("a result is wrong");
    }
    stop = 1;
    for (unsigned tile = 0; tile < TILES; tile++)
        pthread_join(tiles[tile], NULL);
    return 0;
}
