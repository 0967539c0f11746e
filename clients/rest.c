/*
 * Rest: a block of 64K goes to VRAM, one page of it is unmapped, and the GPU touches what is left.
 *
 *     rest
 *
 * The CPU writes every word of page P as 0xc0de0000|P; tile 0 stores 0x70500000|P into word 0 of each page, so that the
 * block is in VRAM0; the last page is unmapped; tile 0 stores 0x70510000|P into word 1 of each of the 15 that are left; the
 * CPU looks at all of them. One line:
 *
 *     REST ok pages=15
 *     REST refused (why) pages=15     the job ended with an error; every page is as it was before it
 *     REST BAD pages=<n>              so many pages have a wrong byte
 *
 * Exit status 0, 3, 1; or 2 where another call failed.
 */
#define _GNU_SOURCE
#include "gpu.h"
#include <sys/mman.h>

#define BLOCK 65536ul
#define LEFT (BLOCK / PAGE - 1)

/* A mapping of one block, with nothing that it could join with on either side. */
static uint32_t *lonely_block(void) {
    char *room = mmap(NULL, 3 * BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED)
        die("mmap");
    char *block = (char *)(((uintptr_t)room + BLOCK) & ~(BLOCK - 1));
    if (mprotect(block, BLOCK, PROT_READ | PROT_WRITE) != 0)
        die("mprotect");
    return (uint32_t *)block;
}

static int store_word(struct gpu *gpu, uint32_t *block, size_t pages, unsigned word) {
    struct batch batch = {0};
    for (size_t page = 0; page < pages; page++)
        store32(&batch, block + page * PAGE / 4 + word, (uint32_t)(0x70500000u | word << 16 | page));
    return run(gpu, 0, &batch);
}

static size_t wrong_pages(const uint32_t *block, unsigned stored) {
    size_t wrong = 0;
    for (size_t page = 0; page < LEFT; page++) {
        int right = 1;
        for (size_t i = 0; i < PAGE / 4; i++) {
            uint32_t want = i < stored ? 0x70500000u | (uint32_t)(i << 16) : 0xc0de0000u;
            right &= block[page * PAGE / 4 + i] == (want | page);
        }
        wrong += !right;
    }
    return wrong;
}

int main(void) {
    struct gpu gpu = {0};
    gpu_open(&gpu);
    uint32_t *block = lonely_block();
    for (size_t i = 0; i < BLOCK / 4; i++)
        block[i] = 0xc0de0000u | (uint32_t)(i / (PAGE / 4));
    if ((errno = store_word(&gpu, block, LEFT + 1, 0)))
        die("run");
    if (munmap((char *)block + LEFT * PAGE, PAGE) != 0)
        die("munmap");
    int error = store_word(&gpu, block, LEFT, 1);
    size_t wrong = wrong_pages(block, error ? 1 : 2);
    if (wrong)
        printf("REST BAD pages=%zu\n", wrong);
    else if (error)
        printf("REST refused (%s) pages=%zu\n", strerror(error), (size_t)LEFT);
    else
        printf("REST ok pages=%zu\n", (size_t)LEFT);
    gpu_close(&gpu);
    return wrong ? 1 : error ? 3 : 0;
}
