/*
 * An atomic of tile 0 on memory that can never be in VRAM, or in VRAM like any other: "shared", "file", "stack", "private".
 * One line: how the job ended, and the word.
 */
#define _GNU_SOURCE
#include "gpu.h"
#include <sys/mman.h>

#define BYTES (2ul << 20)

int main(int count, char **arguments) {
    const char *kind = count > 1 ? arguments[1] : "private";
    struct gpu gpu;
    gpu_open(&gpu);
    uint32_t on_stack[4] = {0}, *word = on_stack;
    if (!strcmp(kind, "file")) {
        FILE *file = tmpfile();
        if (!file || ftruncate(fileno(file), BYTES) != 0)
            die("tmpfile");
        word = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
    } else if (strcmp(kind, "stack") != 0) {
        int how = strcmp(kind, "shared") ? MAP_PRIVATE : MAP_SHARED;
        word = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, how | MAP_ANONYMOUS, -1, 0);
    }
    if (word == MAP_FAILED)
        die("mmap");
    struct batch batch = {0};
    atomic_inc32(&batch, word);
    int error = run(&gpu, 0, &batch);
    printf("%s, word %u\n", strerror(error), *word);
    return 0;
}
