/* Memory that free gave back: says whether the kernel has it still. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int main(void) {
    enum { SIZE = 1 << 20 };
    char *memory = malloc(SIZE);
    unsigned char there;
    memset(memory, 1, SIZE);
    void *page = (void *)(((uintptr_t)memory + SIZE / 2) & ~4095ul);
    free(memory);
    puts(mincore(page, 4096, &there) ? "gone" : "kept");
    return 0;
}
