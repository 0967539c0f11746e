/*
 * Fork: memory is in VRAM when the process forks, and the GPU stores into it afterwards. The child must read what was there before.
 *
 *     fork [TILE]
 *
 * Linux 7.2 and 7.3 hand the page that both have to the GPU for writing (docs/findings.md, F). The last line says what the child read:
 * `FORK ok`, or `FORK BAD pages=<n>`: so many of the block's 16 pages held what the GPU stored after the fork; `FORK BAD lost=<n>`: so
 * many of the parent's do not hold it. Exit status 0 or 1; 2 where
 * a call failed that must not.
 *
 *     cc -O1 -Wall -Wextra -Werror clients/fork.c -o fork
 */
#define _GNU_SOURCE
#include "gpu.h"
#include <sys/mman.h>
#include <sys/wait.h>

#define BLOCK (64ul << 10)
#define PAGES (BLOCK / PAGE)
enum { BEFORE = 0x11110000, AFTER = 0x22220000 };

/* The GPU stores a word in each page of the block. */
static void store_all(struct gpu *gpu, unsigned tile, char *block, uint32_t value) {
    struct batch batch = {0};
    for (size_t i = 0; i < PAGES; i++)
        store32(&batch, block + i * PAGE, value + (uint32_t)i);
    if (run(gpu, tile, &batch))
        die("the GPU stores");
}

/* How many pages do not hold what `value` says. */
static int others(const char *block, uint32_t value) {
    int count = 0;
    for (size_t i = 0; i < PAGES; i++)
        count += *(const volatile uint32_t *)(block + i * PAGE) != value + (uint32_t)i;
    return count;
}

int main(int argc, char **argv) {
    unsigned tile = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
    struct gpu gpu;
    int go[2], status = -1;
    gpu_open(&gpu);
    gpu_mirror(&gpu);
    char *reserved = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (reserved == MAP_FAILED || pipe(go))
        die("memory and a pipe");
    char *block = (char *)(((uintptr_t)reserved + BLOCK - 1) & ~(BLOCK - 1));
    memset(block, 0, BLOCK);
    store_all(&gpu, tile, block, BEFORE);
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        char byte;
        /* Nothing of the block is touched before the parent's GPU has stored. */
        if (read(go[0], &byte, 1) != 1)
            _exit(2 * PAGES);
        _exit(others(block, BEFORE));
    }
    store_all(&gpu, tile, block, AFTER);
    if (write(go[1], "x", 1) != 1 || waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) > (int)PAGES)
        die("the child");
    int shown = WEXITSTATUS(status), lost = others(block, AFTER);
    if (lost)
        printf("FORK BAD lost=%d\n", lost);
    else if (shown)
        printf("FORK BAD pages=%d\n", shown);
    else
        printf("FORK ok\n");
    return lost || shown;
}
