/*
 * Facts: what a program is told of the device, by queries and by files. A line a fact; a client that needs nothing but the
 * interface runs on whatever there is.
 */
#include "gpu.h"
#include <dirent.h>

static void file(const char *name) {
    char path[256], text[64] = "none\n";
    snprintf(path, sizeof path, "/sys/dev/char/226:128/device/%s", name);
    FILE *stream = fopen(path, "r");
    if (!stream || !fgets(text, sizeof text, stream))
        die(path);
    printf("%s %s", name, text);
    fclose(stream);
}

static int tile_folders(void) {
    DIR *dir = opendir("/sys/dev/char/226:128/device/");
    int found = 0;
    if (!dir)
        die("opendir");
    for (struct dirent *entry; (entry = readdir(dir));)
        found += !strncmp(entry->d_name, "tile", 4);
    closedir(dir);
    return found;
}

int main(void) {
    struct gpu gpu = {0};
    gpu_open(&gpu);
    struct query_head *head = ask(gpu.fd, QUERY_MEM_REGIONS, NULL);
    struct mem_region *region = (void *)(head + 1);
    for (uint32_t i = 1; i < head->count; i++)
        printf("vram%u %lluM visible %lluM\n", region[i].instance - 1, (unsigned long long)region[i].total >> 20,
               (unsigned long long)region[i].visible >> 20);
    free(head);
    head = ask(gpu.fd, QUERY_ENGINES, NULL);
    struct engine *engine = (void *)(head + 1);
    unsigned copy = 0, compute = 0;
    for (uint32_t i = 0; i < head->count; i++) {
        copy += engine[i].instance.class == CLASS_COPY;
        compute += engine[i].instance.class == CLASS_COMPUTE;
    }
    free(head);
    printf("tiles %u folders %d copy %u compute %u\n", gpu.tiles, tile_folders(), copy, compute);
    file("device");
    file("revision");
    for (unsigned tile = 0; tile < gpu.tiles; tile++) {
        uint32_t *word = calloc(1, 1 << 16);
        struct batch batch = {0};
        store32(&batch, word + 1, 7 + tile);
        errno = run(&gpu, tile, &batch);
        printf("tile %u stores %u\n", tile, errno ? 0 : word[1]);
        free(word);
    }
    gpu_close(&gpu);
    return 0;
}
