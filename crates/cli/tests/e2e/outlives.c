/* A child that goes on when its run has ended, and the run's folder is gone: the device is still there for it. */
#include "gpu.h"
#include <sys/stat.h>

int main(void) {
    struct stat before, after;
    const char *root = getenv("PONTOON_ROOT");
    if (!root || stat("/dev/dri/card0", &before))
        return 2;
    if (fork())
        return 0;
    for (int turn = 0; turn < 20000 && access(root, F_OK) == 0; turn++)
        usleep(1000);
    struct gpu gpu;
    struct batch batch = {0};
    static uint32_t word;
    gpu_open(&gpu);
    store32(&batch, &word, 7);
    int error = run(&gpu, 1, &batch);
    printf("folder %s, node %s, store %d, word %u\n", access(root, F_OK) ? "gone" : "there",
           stat("/dev/dri/card0", &after) || !S_ISCHR(after.st_mode) ? "gone" : "there", error, word);
    return 0;
}
