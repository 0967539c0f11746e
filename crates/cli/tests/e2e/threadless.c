/* A program that is given no more threads: it is told so where it asks for the device, and its main may leave before a thread
 * that it has.
 * threadless open|leave */
#include "gpu.h"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define IS(call, left) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, left, 0)

static struct sock_filter none[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    IS(SYS_clone, 2),
    IS(SYS_clone3, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
};

static volatile int refused;

static void refuse_threads(void) {
    struct sock_fprog filter = {sizeof none / sizeof *none, none};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
        die("prctl");
    refused = 1;
}

static void *late(void *unused) {
    while (!refused)
        usleep(1000);
    usleep(50000);
    printf("the last thread\n");
    return unused;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "leave")) {
        struct gpu gpu;
        pthread_t thread;
        gpu_open(&gpu);
        pthread_create(&thread, NULL, late, NULL);
        refuse_threads();
        pthread_exit(NULL);
    }
    refuse_threads();
    for (int turn = 0; turn < 3; turn++) {
        errno = 0;
        int fd = open("/dev/dri/renderD128", O_RDWR);
        printf("%d %s\n", fd, strerror(errno));
    }
    return 0;
}
