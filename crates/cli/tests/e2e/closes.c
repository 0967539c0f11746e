/* A program that closes every descriptor that it does not know, as daemons and shells do: what the GPU stored is there
 * afterwards, here and in a child, and the GPU goes on. A child that became another user holds nothing of its parent's
 * /proc. `closes idle` opens no device. Says what went wrong. */
#define _GNU_SOURCE
#include "gpu.h"
#include <sys/wait.h>

enum { BLOCK = 1 << 20 };

static int wrong_bytes(const unsigned char *block, const char *who) {
    int wrong = 0;
    for (int at = 0; at < BLOCK; at += PAGE)
        wrong += block[at + 100] != 7;
    if (wrong)
        printf("%s: %d pages are wrong\n", who, wrong);
    return wrong;
}

static void store(struct gpu *gpu, unsigned char *block, unsigned tile, const char *when) {
    struct batch batch = {0};
    for (int at = 8; at < BLOCK; at += PAGE)
        store32(&batch, block + at, 0x01020304);
    int error = run(gpu, tile, &batch);
    if (error)
        printf("%s: %s\n", when, strerror(error));
}

/* Descriptors of another process's /proc that this one holds. */
static int inherited(void) {
    char own[32], path[32], link[256];
    int found = 0;
    snprintf(own, sizeof own, "/proc/%d/", getpid());
    for (int fd = 3; fd < 1024; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(path, link, sizeof link - 1);
        link[length < 0 ? 0 : length] = 0;
        if (!strncmp(link, "/proc/", 6) && strncmp(link, own, strlen(own)))
            found += printf("child: %d is %s\n", fd, link);
    }
    return found;
}

int main(int argc, char **argv) {
    struct gpu gpu = {.fd = -1};
    int is_idle = argc > 1 && *argv[1], status = -1;
    unsigned char *block = aligned_alloc(BLOCK, BLOCK);
    memset(block, 7, BLOCK);
    if (!is_idle) {
        gpu_open(&gpu);
        store(&gpu, block, 0, "before");
    }
    usleep(100000);
    for (int fd = 3; fd < 1024; fd++) {
        if (fd == gpu.fd)
            continue;
        close(fd);
        if (dup2(1, fd) == fd)
            close(fd);
        if (fcntl(fd, F_GETFD) != -1 || errno != EBADF)
            printf("%d is still open\n", fd);
    }
    closefrom(gpu.fd + 1 > 3 ? gpu.fd + 1 : 3);
    if (close_range(9, 5, 0) != -1 || errno != EINVAL)
        printf("an empty range is closed\n");
    if (!is_idle)
        store(&gpu, block, 1, "afterwards");
    usleep(100000);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int bad = wrong_bytes(block, "child") + inherited();
        fflush(stdout);
        _exit(bad != 0);
    }
    waitpid(child, &status, 0);
    return (wrong_bytes(block, "parent") != 0) | (status != 0);
}
