/* A process that limits its files to 64K opens the device and uses it; its counters too. What would lie beyond the limit
 * cannot be mapped. The end of the process, which writes a report, is no signal either. */
#define _GNU_SOURCE
#include "gpu.h"
#include <sys/mman.h>
#include <sys/resource.h>

static void limit_files(unsigned long bytes) {
    struct rlimit limit = {bytes, bytes};
    if (setrlimit(RLIMIT_FSIZE, &limit))
        die("setrlimit");
}

int main(void) {
    struct gpu gpu;
    struct batch batch = {0};
    uint32_t *word = aligned_alloc(PAGE, PAGE);
    limit_files(64 << 10);
    gpu_open(&gpu);
    store32(&batch, word, 7);
    if ((errno = run(&gpu, 0, &batch)))
        die("run");
    if (*word != 7)
        puts("the store is lost");
    if (mmap(NULL, PAGE, PROT_READ, MAP_SHARED, gpu.fd, 0x50000) != MAP_FAILED || errno != ENOMEM)
        puts("a page beyond the limit can be mapped");
    limit_files(0);
    if (open("/sys/kernel/debug/dri/0/gt0/stats", O_RDONLY) >= 0 || errno != EFBIG)
        puts("counters where no file may have a byte");
    return 0;
}
