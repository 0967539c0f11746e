/* Memory that the GPU used, and that is in system memory again, is unmapped and mapped anew at the same place, and the CPU
 * writes to it. By then no driver has a range there, so another bind may take the place; a live range refuses it (EBUSY).
 * Argument: how the memory goes, "munmap", "mmap" over it or "mremap" over it; "stays" keeps it. Says what the bind says. */
#define _GNU_SOURCE
#include "gpu.h"
#include <sys/mman.h>

#define CHUNK (2ul << 20)

static void *map(void *at, int flags) {
    void *got = mmap(at, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (got == MAP_FAILED)
        die("mmap");
    return got;
}

int main(int argc, char **argv) {
    struct gpu gpu;
    struct batch batch = {0};
    char how = argc > 1 ? argv[1][1] : 't';
    gpu_open(&gpu);
    char *room = mmap(NULL, 2 * CHUNK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *block = map((char *)(((uintptr_t)room + CHUNK - 1) & ~(CHUNK - 1)), MAP_FIXED);
    memset(block, 1, CHUNK);
    store32(&batch, block, 2);
    if ((errno = run(&gpu, 0, &batch)))
        die("store");
    for (size_t at = 0; at < CHUNK; at += PAGE)
        block[at]++;
    usleep(100000); /* nothing is watched any more */
    if (how == 'u')
        munmap(block, CHUNK);
    if (how == 'u' || how == 'm')
        map(block, MAP_FIXED);
    if (how == 'r' && mremap(map(NULL, 0), CHUNK, CHUNK, MREMAP_MAYMOVE | MREMAP_FIXED, block) != block)
        die("mremap");
    memset(block, 3, CHUNK);
    struct vm_bind bind = {
        .vm_id = gpu.vm,
        .num_binds = 1,
        .bind = {.pat_index = PAT_COHERENT, .addr = (uintptr_t)block, .range = CHUNK, .op = BIND_UNMAP},
    };
    printf("%s\n", try_ioctl(gpu.fd, IOC_VM_BIND, &bind) ? strerror(errno) : "bound");
    return 0;
}
