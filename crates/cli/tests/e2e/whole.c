/* Writes 4M to a memory file in one call, of which the second half is in VRAM. Says how much was written. */
#define _GNU_SOURCE
#include "gpu.h"
#include <sys/mman.h>

int main(void) {
    struct gpu gpu;
    struct batch batch = {0};
    size_t bytes = 4 << 20, step = 64 << 10;
    char *block = aligned_alloc(2 << 20, bytes);
    gpu_open(&gpu);
    memset(block, 1, bytes);
    for (size_t at = bytes / 2; at < bytes; at += step)
        store32(&batch, block + at, 2);
    if ((errno = run(&gpu, 0, &batch)))
        die("run");
    int file = memfd_create("whole", 0);
    ssize_t wrote = write(file, block, bytes);
    if (wrote < 0)
        printf("errno %d\n", errno);
    else
        printf("wrote %zd\n", wrote);
    return 0;
}
