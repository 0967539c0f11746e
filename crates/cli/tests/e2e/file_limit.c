/* A process that limits its files to 64K opens the device and uses it; its counters too, and a buffer of more.
 * The end of the process, which writes a report, is no signal either. */
#define _GNU_SOURCE
#include "gpu.h"
#include <sys/mman.h>
#include <sys/resource.h>

#define MOST (64ul << 10)

static void limit_files(unsigned long bytes) {
    struct rlimit limit = {bytes, MOST};
    if (setrlimit(RLIMIT_FSIZE, &limit))
        die("setrlimit");
}

#define BUFFER (1ul << 20)

static char *buffer(int fd) {
    struct gem_create create = {.size = BUFFER, .placement = PLACE_SYSTEM, .cpu_caching = CACHING_WB};
    must_ioctl(fd, IOC_GEM_CREATE, &create, "GEM_CREATE");
    struct gem_mmap_offset offset = {.handle = create.handle};
    must_ioctl(fd, IOC_GEM_MMAP_OFFSET, &offset, "GEM_MMAP_OFFSET");
    char *at = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset.offset);
    if (at == MAP_FAILED)
        die("mmap");
    return at;
}

int main(void) {
    struct gpu gpu;
    struct batch batch = {0};
    uint32_t *word = aligned_alloc(PAGE, PAGE);
    limit_files(MOST);
    gpu_open(&gpu);
    store32(&batch, word, 7);
    if ((errno = run(&gpu, 0, &batch)))
        die("run");
    if (*word != 7)
        puts("the store is lost");
    buffer(gpu.fd)[BUFFER - 1] = 1;
    limit_files(0);
    if (open("/sys/kernel/debug/dri/0/gt0/stats", O_RDONLY) >= 0 || errno != EFBIG)
        puts("counters where no file may have a byte");
    limit_files(MOST);
    return 0;
}
