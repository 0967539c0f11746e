/*
 * A debugger attaches to all threads, one after the other, while one of them drops memory that the device has in VRAM, as fast as it can, and
 * another has the device work on it: each thread stops, again and again. With an argument the device works on it once, and
 * what is dropped is memory that it had. The debugger is a child of this program. Exit status 2: it may not attach.
 */
#define _GNU_SOURCE
#include "attach.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>

enum { BYTES = 1 << 20 };

static _Atomic int stop;
static int once;
static char *block;

static void *drops(void *unused) {
    while (!stop)
        madvise(block, BYTES, MADV_DONTNEED);
    return unused;
}

static void *works(void *gpu) {
    struct batch batch = {0};
    for (size_t at = 0; at < BYTES; at += 4096)
        store32(&batch, block + at, 7);
    do
        if ((errno = run(gpu, 0, &batch)))
            die("run");
    while (!stop && !once);
    return NULL;
}

int main(int argc, char **argv) {
    struct gpu gpu;
    pthread_t dropper, worker;
    int status = 0, process = getpid(), begin[2];
    char *room = mmap(NULL, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)argv;
    once = argc > 1;
    gpu_open(&gpu);
    if (room == MAP_FAILED)
        die("mmap");
    block = (char *)(((uintptr_t)room + BYTES - 1) & ~(uintptr_t)(BYTES - 1));
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    if (pipe(begin))
        die("pipe");
    pid_t child = fork();
    if (child == 0)
        _exit(read(begin[0], &status, 1) == 1 ? attach_often(process, EACH_ALONE) : 4);
    /* What a child was forked for has come home, so it goes back to the device first. */
    if (once)
        works(&gpu);
    pthread_create(&dropper, NULL, drops, NULL);
    if (!once)
        pthread_create(&worker, NULL, works, &gpu);
    if (write(begin[1], "!", 1) != 1)
        die("write");
    waitpid(child, &status, 0);
    stop = 1;
    pthread_join(dropper, NULL);
    if (!once)
        pthread_join(worker, NULL);
    printf("%s\n", status == 0 ? "all stopped" : "a thread did not stop");
    return WIFEXITED(status) && WEXITSTATUS(status) == 2 ? 2 : 0;
}
