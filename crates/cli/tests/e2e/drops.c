/* Root becomes nobody and starts a program, as su does, which opens the device for the first time and uses it. */
#define _GNU_SOURCE
#include "gpu.h"
#include <grp.h>

int main(int argc, char **argv) {
    struct gpu gpu;
    struct batch batch = {0};
    uint32_t *word = aligned_alloc(PAGE, PAGE);
    *word = 0;
    if (argc == 1 && (setgroups(0, NULL) || setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534) ||
                      execl(argv[0], argv[0], "use", NULL)))
        die("cannot become nobody");
    gpu_open(&gpu);
    store32(&batch, word, 7);
    if ((errno = run(&gpu, 1, &batch)))
        die("run");
    gpu_close(&gpu);
    return *word != 7;
}
