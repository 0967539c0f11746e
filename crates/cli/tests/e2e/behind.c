/*
 * Maps memory right behind what is loaded of the dynamic linker, before the device is there, and lets a tile store into it. The kernel makes one
 * mapping of that and of the linker's .bss.
 */
#define _GNU_SOURCE
#include "gpu.h"
#include <link.h>
#include <sys/mman.h>

enum { BLOCK = 1 << 16, MAPPED = 8 * BLOCK };

static int find_end(struct dl_phdr_info *object, size_t size, void *found) {
    (void)size;
    const char *name = strrchr(object->dlpi_name, '/');
    if (!name || strncmp(name, "/ld-", 4))
        return 0;
    for (int n = 0; n < object->dlpi_phnum; n++) {
        const ElfW(Phdr) *header = &object->dlpi_phdr[n];
        uintptr_t end = (object->dlpi_addr + header->p_vaddr + header->p_memsz + 4095) & ~4095ul;
        if (header->p_type == PT_LOAD && end > *(uintptr_t *)found)
            *(uintptr_t *)found = end;
    }
    return 1;
}

int main(void) {
    uintptr_t end = 0;
    dl_iterate_phdr(find_end, &end);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    char *memory = mmap((void *)end, MAPPED, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (!end || memory != (char *)end)
        die("no room behind the dynamic linker");
    memset(memory, 1, MAPPED);
    volatile uint32_t *block = (uint32_t *)((end + BLOCK - 1) & ~(BLOCK - 1ul));
    struct gpu gpu;
    struct batch batch = {0};
    gpu_open(&gpu);
    store32(&batch, (void *)block, 7);
    if ((errno = run(&gpu, 0, &batch)))
        die("run");
    printf("%u\n", *block);
    return 0;
}
