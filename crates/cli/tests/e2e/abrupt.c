/*
 * Lets a tile store, and leaves without libc knowing: by an instruction of its own, by a signal that kills, or as another program.
 * Before that it looks for children that it did not make.
 *
 *     abrupt instruction|kill|become
 */
#define _GNU_SOURCE
#include "gpu.h"
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void leave(long number, long a, long b, long c) {
    __asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
}

int main(int count, char **arguments) {
    char how = count > 1 ? arguments[1][0] : 'i', *block = aligned_alloc(1 << 16, 1 << 16);
    char *next[] = {"true", NULL};
    struct gpu gpu;
    struct batch batch = {0};
    gpu_open(&gpu);
    memset(block, 1, 1 << 16);
    store32(&batch, block, 7);
    if ((errno = run(&gpu, 0, &batch)))
        die("run");
    printf("%s\n", waitpid(-1, NULL, __WALL | WNOHANG) == -1 ? strerror(errno) : "a child");
    fflush(stdout);
    /* By then the machine rests, unless it is hostile: none of its threads, which end as well, is in the middle of a change. */
    usleep(200000);
    if (how == 'k')
        raise(SIGKILL);
    if (how == 'b')
        leave(SYS_execve, (long)"/bin/true", (long)next, 0);
    leave(SYS_exit_group, 5, 0, 0);
    return 1;
}
