/*
 * VRAM without room: a job of a VM with dma-fences has its evicted buffers back before it runs, or is refused; a PREFETCH
 * of a buffer to where there is no room is refused, and changes nothing.
 *
 *     room
 *
 * Wants a device with 8 MiB of VRAM a tile that nobody else uses. A line for what is not as it should be; the last line is
 * `ROOM ok` or `ROOM BAD failures=<n>`. Exit status 0 or 1; 2 where a call failed that must not.
 */
#define _GNU_SOURCE
#include "is.h"
#include "plain.h"

#define MB (1ul << 20)
#define BUFFER (5 * MB)
enum { VRAM_OF_TILE_0 = 2, SYSTEM_OR_VRAM = 3 };
static const uint64_t at = 0x200000000000, further = 0x200010000000;

static uint64_t resident(void) {
    char path[64], line[256];
    unsigned long long found = 0;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", plain_fd);
    FILE *file = fopen(path, "r");
    if (!file)
        die(path);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "drm-resident-vram0: %llu MiB", &found) == 1)
            break;
    fclose(file);
    return found * MB;
}

static void drop(uint32_t handle) {
    uint32_t close_it[2] = {handle};
    must_ioctl(plain_fd, IOC_GEM_CLOSE, close_it, "GEM_CLOSE");
}

static void jobs(void) {
    struct plain vm = {0};
    struct order none = {0};
    plain_open(&vm);
    uint32_t mine = buffer_make(BUFFER, VRAM_OF_TILE_0);
    IS(plain_bind(&vm, BIND_MAP, mine, at, BUFFER, none), 0);
    char *bytes = buffer_map(mine, BUFFER);
    memset(bytes, 7, BUFFER);
    uint32_t theirs = buffer_make(BUFFER, VRAM_OF_TILE_0);
    IS(resident(), BUFFER);
    IS(plain_job(&vm, 0, -1, NULL, 0, none), 0);
    /* the job did not touch it, and it is there all the same: the other went for it */
    drop(theirs);
    IS(resident(), BUFFER);
    IS(bytes[0] + bytes[BUFFER - 1], 14);
    uint32_t more = buffer_make(BUFFER, VRAM_OF_TILE_0);
    IS(plain_bind(&vm, BIND_MAP, more, further, BUFFER, none), 0);
    IS(plain_job(&vm, 0, -1, NULL, 0, none), ENOMEM);
    IS(plain_job(&vm, 0, -1, NULL, 0, none), ENOMEM);
    IS(plain_bind(&vm, BIND_UNMAP, 0, further, BUFFER, none), 0);
    IS(plain_job(&vm, 0, -1, NULL, 0, none), 0);
    IS(plain_bind(&vm, BIND_UNMAP, 0, at, BUFFER, none), 0);
    drop(more);
    drop(mine);
    munmap(bytes, BUFFER);
    IS(resident(), 0);
}

static int prefetch_to(uint32_t vm, uint32_t region) {
    struct vm_bind bind = {.vm_id = vm, .num_binds = 1};
    bind.bind = (struct bind_op){.op = BIND_PREFETCH, .addr = at, .range = MB, .pat_index = PAT_COHERENT, .prefetch_region = region};
    return answer(plain_fd, IOC_VM_BIND, &bind);
}

static void prefetches(void) {
    struct gpu gpu;
    gpu_open(&gpu);
    plain_fd = gpu.fd;
    uint32_t big = buffer_make(16 * MB, SYSTEM_OR_VRAM), small = buffer_make(BUFFER, SYSTEM_OR_VRAM);
    gpu_bind(&gpu, (struct bind_op){.obj = big, .range = 16 * MB, .addr = at, .op = BIND_MAP});
    IS(prefetch_to(gpu.vm, 1), ENOMEM);
    IS(prefetch_to(gpu.vm, 0), 0);
    gpu_bind(&gpu, (struct bind_op){.obj = small, .range = BUFFER, .addr = at, .op = BIND_MAP});
    IS(prefetch_to(gpu.vm, 0), 0);
    IS(resident(), 0);
    IS(prefetch_to(gpu.vm, 1), 0);
    IS(resident(), BUFFER);
    gpu_close(&gpu);
}

int main(void) {
    jobs();
    prefetches();
    return verdict("ROOM");
}
