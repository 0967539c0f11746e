/* Root becomes nobody and starts a program, as su does, which opens the device for the first time and uses it.
 * `drops late`: root opens the device and uses it, then becomes nobody and ends. */
#define _GNU_SOURCE
#include "gpu.h"
#include <grp.h>

static void become_nobody(void) {
    if (setgroups(0, NULL) || setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
        die("cannot become nobody");
}

int main(int argc, char **argv) {
    struct gpu gpu;
    struct batch batch = {0};
    uint32_t *word = aligned_alloc(PAGE, PAGE);
    *word = 0;
    int is_late = argc > 1 && !strcmp(argv[1], "late");
    if (argc == 1) {
        become_nobody();
        execl(argv[0], argv[0], "use", NULL);
        die("execl");
    }
    gpu_open(&gpu);
    store32(&batch, word, 7);
    if ((errno = run(&gpu, 1, &batch)))
        die("run");
    gpu_close(&gpu);
    if (is_late)
        become_nobody();
    return *word != 7;
}
