/* A fork whose memory cannot migrate back: the thread that forks has forbidden itself the calls that would bring it (a page that is
 * pinned for ten seconds does the same). fork fails with EAGAIN, no child runs, nobody is left behind, and all goes on; so do its
 * handlers. stuck IOCTL (in hex): the call that is refused. */
#include "gpu.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int handled;

static void before(void) { handled += 1; }
static void after(void) { handled += 10; }
static void in_child(void) {
    if (write(1, "a child ran\n", 12) < 0)
        _exit(9);
}

static void refuse(unsigned command) {
    struct sock_filter some[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, command, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EBUSY),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof some / sizeof *some, some};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
        die("prctl");
}

int main(int argc, char **argv) {
    struct gpu gpu;
    struct batch batch = {0};
    pthread_atfork(before, after, in_child);
    gpu_open(&gpu);
    char *block = aligned_alloc(2 << 20, 2 << 20);
    memset(block, 0, 2 << 20);
    store32(&batch, block + 4096, 7);
    if ((errno = run(&gpu, 0, &batch)))
        die("run");
    refuse(argc > 1 ? strtoul(argv[1], NULL, 16) : 0);
    pid_t child = fork();
    int error = errno, left = waitpid(-1, NULL, WNOHANG);
    printf("fork %s, %s, handlers %d, ", child == -1 ? strerror(error) : "went on", left == -1 ? "no child" : "a child", handled);
    store32(&batch, block + 8192, 8);
    error = run(&gpu, 1, &batch);
    printf("store %d, words %u %u\n", error, *(volatile uint32_t *)(block + 4096), *(volatile uint32_t *)(block + 8192));
    /* The end would try for as long. */
    fflush(stdout);
    return kill(getpid(), SIGKILL);
}
