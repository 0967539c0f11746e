/* GPU stores, and an ioctl that answers, into each writable mapping that is not the program's: the library's heap, stacks,
 * data, VRAM. Each must be refused, as a kernel refuses a user pointer into itself, and the process must live. Says what was
 * written; exit 1 where something was. */
#define _GNU_SOURCE
#include "../../../../clients/gpu.h"

static int is_library(const char *name) { return strstr(name, "pontoon") != NULL && name[0] == '/'; }

/* Between the program with its heap, and what the kernel gives by itself. */
static int is_apart(unsigned long start) { return start >= 0x600000000000ul && start < 0x7e0000000000ul; }

int main(void) {
    static unsigned long places[256];
    int found = 0, written = 0, library = 0, tiles = 0;
    unsigned long library_end = 0;
    char line[512], rights[8], name[256];
    struct gpu gpu;
    gpu_open(&gpu);
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps) && found < 256) {
        unsigned long start, end;
        name[0] = 0;
        if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %255s", &start, &end, rights, name) < 3)
            continue;
        /* .bss follows the library's file, and ld.so's memory for the main thread may follow .bss; a tile's memory is larger than anything of this program. */
        int of_library = is_library(name) || (!name[0] && start == library_end), tile = !name[0] && end - start >= 1ul << 30;
        int own = of_library || (!name[0] && (tile || is_apart(start)));
        library_end = is_library(name) ? end : 0;
        library += of_library && rights[1] == 'w';
        tiles += tile && rights[1] == 'w';
        if (own && rights[0] == 'r' && rights[1] == 'w')
            places[found++] = of_library ? start + 64 : end - 64;
    }
    fclose(maps);
    for (int i = 0; i < found; i++) {
        struct device_query query = {.query = QUERY_CONFIG, .data = places[i] & ~(PAGE - 1)};
        struct batch batch = {0};
        ask(gpu.fd, QUERY_CONFIG, &query.size);
        if (ioctl(gpu.fd, IOC_DEVICE_QUERY, &query) == 0 || errno != EFAULT)
            printf("query at %lx: %s\n", places[i], strerror(errno)), written++;
        gpu_open(&gpu);
        store32(&batch, (void *)places[i], 0);
        if (run(&gpu, 0, &batch) == 0)
            printf("store at %lx\n", places[i]), written++;
    }
    printf("library %s, tiles %d, all %s, %d written\n", library ? "found" : "missing", tiles, found > 6 ? "found" : "missing", written);
    return written != 0;
}
