/* A program that closes every descriptor it does not know, as daemons and fork helpers do, with memory in VRAM; then it
 * forks: the child holds no file of its parent's. Says what went wrong; exit 1 where something did. With an argument it opens no device. */
#define _GNU_SOURCE
#include "../../../../clients/gpu.h"
#include <sys/wait.h>

#define BYTES (1ul << 20)

static int wrong(const char *memory) {
    int count = 0;
    for (unsigned long at = 0; at < BYTES; at += PAGE)
        count += memory[at + 100] != 7;
    return count;
}

/* Files of /proc that a forked child has, and that are its parent's. */
static int inherited(void) {
    int count = 0;
    for (int fd = 3; fd < 8192; fd++) {
        char path[64], name[200] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        count += readlink(path, name, sizeof name - 1) > 0 && !strncmp(name, "/proc/", 6);
    }
    return count;
}

static void store(struct gpu *gpu, unsigned tile, char *memory, unsigned long offset) {
    struct batch batch = {0};
    for (unsigned long at = offset; at < BYTES; at += PAGE)
        store32(&batch, memory + at, 0x01020304);
    if ((errno = run(gpu, tile, &batch)))
        die("run");
}

static void close_all(int but) {
    for (int fd = 3; fd < 8192; fd++)
        if (fd != but)
            close(fd);
}

int main(int argc, char **argv) {
    struct gpu gpu = {.fd = -1};
    char *memory = aligned_alloc(BYTES, BYTES);
    (void)argv;
    memset(memory, 7, BYTES);
    if (argc < 2) {
        gpu_open(&gpu);
        store(&gpu, 0, memory, 0);
    } else {
        usleep(300000);
    }
    close_all(gpu.fd);
    if (argc < 2)
        store(&gpu, 1, memory, 8);
    else
        usleep(300000);
    pid_t child = fork();
    if (child == 0)
        _exit((wrong(memory) != 0) + 2 * (inherited() != 0));
    int status = -1;
    waitpid(child, &status, 0);
    int lost = wrong(memory);
    printf("child %d, %d pages wrong\n", status, lost);
    return status || lost;
}
