/*
 * A mapping of which one half was first used by the GPU and the other by the CPU is one mapping for the program: mremap
 * moves, shrinks and grows it whole, whatever the library made of it meanwhile.
 */
#define _GNU_SOURCE
#include "gpu.h"
#include "is.h"
#include <sys/mman.h>

#define HALF (4ul << 20)

static uint32_t *split(struct gpu *gpu) {
    char *all = mmap(NULL, 3 * HALF, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t *memory = (void *)(((uintptr_t)all + HALF - 1) & -HALF);
    struct batch batch = {0};
    store32(&batch, memory + 1, 11);
    expect(!run(gpu, 0, &batch), "a store");
    memory[HALF / 4 + 1] = 22;
    return memory;
}

static void holds(const uint32_t *memory, const char *what) {
    expect(memory != MAP_FAILED && memory[1] == 11 && memory[HALF / 4 + 1] == 22, what);
}

int main(void) {
    struct gpu gpu;
    gpu_open(&gpu);
    for (int round = 0; round < 5; round++) {
        uint32_t *memory = split(&gpu);
        char *to = mmap(NULL, 2 * HALF, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memory = mremap(memory, 2 * HALF, 2 * HALF, MREMAP_MAYMOVE | MREMAP_FIXED, to);
        expect((char *)memory == to, "moved to a place");
        holds(memory, "what was moved");
        struct batch batch = {0};
        if (memory != MAP_FAILED) {
            store32(&batch, memory + 2, 33);
            expect(!run(&gpu, 1, &batch) && memory[2] == 33, "a store after the move");
        }
        memory = split(&gpu);
        memory = mremap(memory, 2 * HALF, 3 * HALF, MREMAP_MAYMOVE);
        holds(memory, "what grew");
    }
    gpu_close(&gpu);
    printf("split: %s\n", failures ? "failed" : "all right");
    return failures != 0;
}
