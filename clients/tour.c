/*
 * The tour: memory of malloc travels system -> VRAM of tile 0 -> VRAM of tile 1 -> system, and every byte is compared
 * with a model at every stop.
 *
 * Each block is taken twice: with a check by the CPU after each step (which migrates the pages back each time), and
 * without (so that they go from tile to tile). One line a step:
 *
 *     STEP <name> ok|BAD bytes=<n> [first=<offset of the first wrong byte> wrong=<how many>]
 *
 * Exit status: 0 where every step is ok, 1 where one is bad, 2 where a call failed.
 *
 *     cc -O1 -Wall -Wextra -Werror clients/tour.c -o tour
 */
#define _GNU_SOURCE
#include "gpu.h"
#include <sys/mman.h>

static int bad;

static void step(const char *name, int holds, size_t bytes) {
    printf("STEP %s %s bytes=%zu\n", name, holds ? "ok" : "BAD", bytes);
    bad |= !holds;
}

/* The device: is it an xe of two tiles that mirrors CPU addresses? */
static void check_device(void) {
    int fd = open("/dev/dri/renderD128", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        die("open /dev/dri/renderD128");
    char name[16] = "";
    struct version version = {.name_len = sizeof name - 1, .name = name};
    must_ioctl(fd, IOC_VERSION, &version, "VERSION");
    step("version", !strcmp(name, "xe") && version.name_len == 2, version.name_len);

    uint32_t size;
    struct {
        struct query_head head;
        uint64_t info[];
    } *config = ask(fd, QUERY_CONFIG, &size);
    uint64_t wanted = CONFIG_HAS_VRAM | CONFIG_HAS_MIRROR;
    step("config", config->head.count >= 5 && (config->info[CONFIG_FLAGS] & wanted) == wanted && config->info[CONFIG_VA_BITS] >= 48, size);
    free(config);

    struct query_head *gts = ask(fd, QUERY_GT_LIST, &size);
    struct gt *gt = (void *)(gts + 1);
    step("two-tiles", gts->count == TILES && gt[0].tile_id == 0 && gt[1].tile_id == 1 && gt[0].gt_id == 0 && gt[1].gt_id == 1, size);

    struct query_head *regions = ask(fd, QUERY_MEM_REGIONS, &size);
    struct mem_region *region = (void *)(regions + 1);
    uint64_t vram = 0;
    int right = regions->count == 1 + TILES;
    for (uint32_t i = 0; i < regions->count; i++) {
        if (region[i].class == REGION_VRAM) {
            vram |= 1ull << region[i].instance;
            right &= region[i].min_page_size == 65536 && region[i].total >= (64 << 20);
        }
    }
    step("regions", right && vram == (gt[0].near_regions | gt[1].near_regions) && !(gt[0].near_regions & gt[1].near_regions), size);
    free(gts);
    free(regions);

    struct query_head *engines = ask(fd, QUERY_ENGINES, &size);
    struct engine *engine = (void *)(engines + 1);
    unsigned per_gt[TILES] = {0};
    for (uint32_t i = 0; i < engines->count; i++)
        if (engine[i].instance.gt_id < TILES)
            per_gt[engine[i].instance.gt_id]++;
    step("engines", per_gt[0] && per_gt[1], size);
    free(engines);
    close(fd);
}

/* A block of malloc's memory, and what it should hold: in plain pages that no GPU ever sees. */
struct block {
    const char *name;
    unsigned char *data, *model;
    size_t size;
    unsigned pass;
};

static void compare(struct block *block, const char *what) {
    char name[64];
    snprintf(name, sizeof name, "%s.%s", block->name, what);
    if (!memcmp(block->data, block->model, block->size)) {
        step(name, 1, block->size);
        return;
    }
    size_t first = block->size, wrong = 0;
    for (size_t i = 0; i < block->size; i++) {
        if (block->data[i] != block->model[i]) {
            first = i < first ? i : first;
            wrong++;
        }
    }
    printf("STEP %s BAD bytes=%zu first=%zu wrong=%zu\n", name, block->size, first, wrong);
    memcpy(block->model, block->data, block->size); /* so that the next step is judged by itself */
    bad = 1;
}

/* The CPU writes every byte. */
static void fill(struct block *block, unsigned seed) {
    uint32_t *words = (uint32_t *)block->data, *model = (uint32_t *)block->model;
    for (size_t i = 0; i < block->size / sizeof *words; i++)
        words[i] = model[i] = (uint32_t)(i * 2654435761u) ^ (seed << 24 | seed);
}

static uint32_t *word(unsigned char *block, size_t page, size_t index) {
    return (uint32_t *)(block + page * PAGE) + index;
}

/* A tile stores to every page and counts in it: stores of 32 and 64 bits, INC, ADD; near the start and at the end. */
static void touch(struct gpu *gpu, struct block *block, unsigned tile) {
    struct batch batch = {0};
    unsigned pass = ++block->pass;
    size_t last = PAGE / 4 - 1, mine = 16 + 8 * (pass % 32);
    for (size_t page = 0; page < block->size / PAGE; page++) {
        uint32_t mark = (uint32_t)(0xa0000000u | tile << 24 | pass << 16 | page);
        store32(&batch, word(block->data, page, mine), mark);
        store64(&batch, word(block->data, page, mine + 2), (uint64_t)mark << 32 | ~mark);
        atomic_inc32(&batch, word(block->data, page, 0));
        atomic_add32(&batch, word(block->data, page, last), tile * 1000 + pass);

        *word(block->model, page, mine) = mark;
        *word(block->model, page, mine + 2) = ~mark;
        *word(block->model, page, mine + 3) = mark;
        *word(block->model, page, 0) += 1;
        *word(block->model, page, last) += tile * 1000 + pass;
    }
    char name[64];
    int error = run(gpu, tile, &batch);
    snprintf(name, sizeof name, "%s.pass%u.run-on-tile%u", block->name, pass, tile);
    step(name, error == 0, 0);
    if (error) {
        fprintf(stderr, "%s: %s\n", name, strerror(error));
        exit(1);
    }
}

static void travel(struct gpu *gpu, struct block *block) {
    fill(block, 1);
    compare(block, "cpu-fill");
    touch(gpu, block, 0);
    compare(block, "after-tile0");
    touch(gpu, block, 1);
    compare(block, "after-tile1");

    fill(block, 2);
    touch(gpu, block, 0);
    touch(gpu, block, 1);
    compare(block, "system-vram0-vram1-cpu");

    fill(block, 3);
    touch(gpu, block, 1);
    touch(gpu, block, 0);
    touch(gpu, block, 1);
    touch(gpu, block, 0);
    compare(block, "to-and-fro");

    /* the CPU writes one byte a page while the rest is where the GPU left it, then a tile goes on */
    touch(gpu, block, 1);
    for (size_t page = 0; page < block->size / PAGE; page++)
        block->data[page * PAGE + 2000] = block->model[page * PAGE + 2000] = (unsigned char)(page + 7);
    touch(gpu, block, 0);
    compare(block, "cpu-between-tiles");
}

static void tour(struct gpu *gpu, const char *name, size_t size, int huge) {
    struct block block = {.name = name, .size = size};
    block.data = aligned_alloc(size, size);
    block.model = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!block.data || block.model == MAP_FAILED)
        die("memory");
    if (huge)
        madvise(block.data, size, MADV_HUGEPAGE); /* advice: any answer will do */
    travel(gpu, &block);
    free(block.data);
    munmap(block.model, size);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    check_device();
    struct gpu gpu = {0};
    gpu_open(&gpu);
    step("mirror", 1, 0);
    tour(&gpu, "64K", 64 << 10, 0);
    tour(&gpu, "2M", 2 << 20, 1);
    gpu_close(&gpu);
    printf("TOUR %s\n", bad ? "BAD" : "ok");
    return bad;
}
