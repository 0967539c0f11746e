/* A page is replaced by another of the same kind while its 2M are in VRAM. Without the library the kernel merges the new
 * mapping with its neighbours; beside registered memory it does not. Atomics on the page beside it, which need a whole
 * block in VRAM, must arrive all the same. Says what became of them; exit 1 where one did not arrive. With an argument the
 * page is unmapped and mapped, in the place of MAP_FIXED. */
#define _GNU_SOURCE
#include "../../../../clients/gpu.h"
#include <sys/mman.h>

#define CHUNK (2ul << 20)

int main(int argc, char **argv) {
    struct gpu gpu;
    struct batch batch = {0};
    (void)argv;
    gpu_open(&gpu);
    char *room = mmap(NULL, 3 * CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *block = (char *)(((uintptr_t)room + CHUNK - 1) & ~(CHUNK - 1));
    memset(block, 0, CHUNK);
    store32(&batch, block, 1);
    if ((errno = run(&gpu, 0, &batch)))
        die("store");
    if (argc > 1)
        munmap(block + 5 * PAGE, PAGE);
    mmap(block + 5 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    block[5 * PAGE] = 1;
    for (unsigned tile = 0; tile < TILES; tile++) {
        gpu_open(&gpu); /* a queue that was banned is of no use */
        atomic_inc32(&batch, block + 6 * PAGE);
        int error = run(&gpu, tile, &batch);
        if (error)
            printf("tile %u: %s\n", tile, strerror(error));
    }
    uint32_t arrived = *(uint32_t *)(block + 6 * PAGE);
    printf("%u of %d atomics arrived, the new page has %d\n", arrived, TILES, block[5 * PAGE]);
    return arrived != TILES;
}
