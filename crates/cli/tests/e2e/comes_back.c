/* 2M that a tile has in VRAM come back because the process forks (`fork`), or moves the mapping (`mremap`). */
#define _GNU_SOURCE
#include "gpu.h"
#include <sys/mman.h>
#include <sys/wait.h>

enum { BYTES = 2 << 20 };

static void use(struct gpu *gpu, char *at) {
    struct batch batch = {0};
    store32(&batch, at, 7);
    if ((errno = run(gpu, 0, &batch)))
        die("run");
}

int main(int argc, char **argv) {
    struct gpu gpu;
    int status = 0, forks = argc > 1 && !strcmp(argv[1], "fork");
    gpu_open(&gpu);
    char *memory = mmap(NULL, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *aligned = (char *)(((uintptr_t)memory + BYTES - 1) & ~((uintptr_t)BYTES - 1));
    memset(aligned, 1, BYTES);
    use(&gpu, aligned);
    if (forks) {
        pid_t child = fork();
        if (!child)
            _exit(*(volatile uint32_t *)aligned != 7);
        waitpid(child, &status, 0);
    } else {
        char *moved = mremap(aligned, BYTES, 2 * BYTES, MREMAP_MAYMOVE);
        status = moved == MAP_FAILED || *(volatile uint32_t *)moved != 7;
    }
    return status != 0;
}
