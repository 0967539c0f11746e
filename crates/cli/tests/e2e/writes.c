/*
 * A debugger attaches to all threads, one after the other, while two of them write(2) memory to files that the device has in VRAM, over and over: a
 * thread in such a call can only be stopped when it has its pages. Another thread has the device store to the memory, and the main
 * one adds to it. The debugger is a child of this program, or there is none: with an argument it runs for so many
 * seconds. Exit status 2: it may not attach.
 */
#define _GNU_SOURCE
#include "attach.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

enum { BYTES = 1 << 20 };
enum { STORED, ADDED, KEPT, WORDS = 1024 };

static _Atomic int stop;
static unsigned (*block)[WORDS];
static unsigned stored;

static void *writes(void *name) {
    int file = memfd_create(name, 0);
    while (!stop)
        if (pwrite(file, block, BYTES, 0) != BYTES)
            die("pwrite");
    return NULL;
}

static void *works(void *gpu) {
    while (!stop) {
        struct batch batch = {0};
        stored++;
        for (size_t page = 0; page < BYTES / PAGE; page++)
            store32(&batch, &block[page][STORED], stored);
        if ((errno = run(gpu, stored % TILES, &batch)))
            die("run");
    }
    return NULL;
}

/* Each store of the device and each addition of the CPU is there, and nothing else has changed. */
static int is_exact(unsigned added) {
    for (size_t page = 0; page < BYTES / PAGE; page++) {
        if (block[page][STORED] != stored || block[page][ADDED] != added)
            return 0;
        for (size_t word = KEPT; word < WORDS; word++)
            if (block[page][word] != page * WORDS + word)
                return 0;
    }
    return 1;
}

int main(int argc, char **argv) {
    struct gpu gpu;
    pthread_t threads[3];
    int status = 0, process = getpid();
    unsigned added = 0;
    char *room = mmap(NULL, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    gpu_open(&gpu);
    if (room == MAP_FAILED)
        die("mmap");
    block = (void *)(((uintptr_t)room + BYTES - 1) & ~(uintptr_t)(BYTES - 1));
    for (size_t page = 0; page < BYTES / PAGE; page++)
        for (size_t word = KEPT; word < WORDS; word++)
            block[page][word] = page * WORDS + word;
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    time_t end = argc > 1 ? time(NULL) + atoi(argv[1]) : 0;
    pid_t child = argc > 1 ? -1 : fork();
    if (child == 0)
        _exit(attach_often(process, ALL_AT_ONCE));
    pthread_create(&threads[0], NULL, writes, "first");
    pthread_create(&threads[1], NULL, writes, "second");
    pthread_create(&threads[2], NULL, works, &gpu);
    do {
        for (size_t page = 0; page < BYTES / PAGE; page++)
            block[page][ADDED]++;
        added++;
    } while (child > 0 ? waitpid(child, &status, WNOHANG) == 0 : time(NULL) < end);
    stop = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    printf("%s, %s\n", status == 0 ? "all stopped" : "a thread did not stop", is_exact(added) ? "exact" : "wrong bytes");
    return WIFEXITED(status) && WEXITSTATUS(status) == 2 ? 2 : 0;
}
