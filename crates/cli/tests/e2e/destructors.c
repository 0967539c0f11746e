/* With -DLIBRARY: a library that opens the device when it is loaded and uses it when it is unloaded, at the end of the
 * process. Without: a program that loads it, by the path that it is given. */
#define _GNU_SOURCE
#include "gpu.h"
#include <dlfcn.h>

#ifdef LIBRARY
static struct gpu gpu;

__attribute__((constructor)) static void load(void) { gpu_open(&gpu); }

__attribute__((destructor)) static void unload(void) {
    struct batch batch = {0};
    struct vm_create vm = {0};
    uint32_t *word = aligned_alloc(PAGE, PAGE);
    *word = 0;
    store32(&batch, word, 7);
    int made = ioctl(gpu.fd, IOC_VM_CREATE, &vm), stored = run(&gpu, 0, &batch);
    printf("vm %d, store %d, word %u\n", made, stored, *word);
    fflush(stdout);
}
#else
int main(int argc, char **argv) {
    if (argc < 2 || !dlopen(argv[1], RTLD_NOW))
        return 2;
    puts("main ends");
    return 0;
}
#endif
