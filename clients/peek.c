/*
 * Peek: tiles store into one block, one after the other, and then the CPU shows what is there.
 *
 *     peek [-s BYTES] [-t TILES] [-p PAGES] [-l]
 *
 * BYTES (65536): size of the block, a power of two from 4096; TILES (01): the order of the tiles; PAGES (all): how many
 * pages are shown. Before, the CPU fills every word of page P with 0xc0de0000|P. Step S (from 0) by tile T stores
 * 0x7T5S0000|P into word S of every page. The CPU does not look in between. One line a page:
 *
 *     PAGE <p> <word of step 0> <word of step 1> ... | <last word>
 *
 * and a last line `PEEK ok` or `PEEK BAD pages=<n>`, where BAD counts pages with a byte that is not as it should be.
 * With -l the CPU does not look at all: the block is left where it is, `PEEK left` is the last line, and the status 0.
 * Exit status 0, 1, or 2 where a call failed.
 */
#define _GNU_SOURCE
#include "gpu.h"

static size_t wrong_pages(const uint32_t *block, size_t pages, const char *tiles, size_t shown) {
    size_t steps = strlen(tiles), wrong = 0;
    for (size_t page = 0; page < pages; page++) {
        const uint32_t *words = block + page * PAGE / 4;
        int right = 1;
        for (size_t i = 0; i < PAGE / 4; i++) {
            uint32_t want = 0xc0de0000u | (uint32_t)page;
            if (i < steps)
                want = (uint32_t)(0x70500000u | (uint32_t)(tiles[i] - '0') << 24 | i << 16 | page);
            right &= words[i] == want;
        }
        wrong += !right;
        if (page < shown) {
            printf("PAGE %zu", page);
            for (size_t i = 0; i < steps; i++)
                printf(" %08x", words[i]);
            printf(" | %08x\n", words[PAGE / 4 - 1]);
        }
    }
    return wrong;
}

int main(int argc, char **argv) {
    size_t size = 65536, shown = ~0ul;
    const char *tiles = "01";
    int leave = 0;
    for (int option; (option = getopt(argc, argv, "s:t:p:l")) != -1;) {
        if (option == 's')
            size = strtoul(optarg, NULL, 0);
        else if (option == 't')
            tiles = optarg;
        else if (option == 'p')
            shown = strtoul(optarg, NULL, 0);
        else if (option == 'l')
            leave = 1;
        else
            return 2;
    }
    if (size < PAGE || (size & (size - 1)) || size / PAGE > 0x10000 || strspn(tiles, "0123") != strlen(tiles) || strlen(tiles) > 16) {
        fprintf(stderr, "peek: BYTES is a power of two from 4096 to 256M, TILES are 0 to 3, at most 16\n");
        return 2;
    }
    struct gpu gpu = {0};
    gpu_open(&gpu);
    uint32_t *block = aligned_alloc(size, size);
    if (!block)
        die("memory");
    for (size_t i = 0; i < size / 4; i++)
        block[i] = 0xc0de0000u | (uint32_t)(i / (PAGE / 4));
    for (size_t i = 0; tiles[i]; i++) {
        struct batch batch = {0};
        unsigned tile = (unsigned)(tiles[i] - '0');
        for (size_t page = 0; page < size / PAGE; page++)
            store32(&batch, block + page * PAGE / 4 + i, (uint32_t)(0x70500000u | tile << 24 | i << 16 | page));
        if ((errno = run(&gpu, tile, &batch)))
            die("run");
    }
    if (leave) {
        printf("PEEK left\n");
        return 0;
    }
    size_t wrong = wrong_pages(block, size / PAGE, tiles, shown);
    if (wrong)
        printf("PEEK BAD pages=%zu\n", wrong);
    else
        printf("PEEK ok\n");
    free(block);
    gpu_close(&gpu);
    return wrong != 0;
}
