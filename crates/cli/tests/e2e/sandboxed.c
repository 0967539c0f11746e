/* A program that uses the device, and then lets itself only read, write and leave: any other system call kills it. It ends as it
 * does natively, and what happened on the device is reported.
 * sandboxed prctl|seccomp main|child exit|_exit, or: sandboxed wide (vfork is allowed, and its child leaves) */
#define _GNU_SOURCE
#include "gpu.h"
#include "few.h"
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static struct sock_filter all[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};

static struct gpu gpu;
static char *block;

static void store(unsigned page, unsigned value) {
    struct batch batch = {0};
    store32(&batch, block + page * PAGE, value);
    if ((errno = run(&gpu, page & 1, &batch)))
        die("run");
}

static void filter(const char *how, struct sock_filter *rules, unsigned short length) {
    struct sock_fprog program = {length, rules};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        die("prctl");
    if (!strcmp(how, "seccomp") ? syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) : prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        die(how);
}

static void leave_filtered(const char *how, const char *by) {
    char line[] = "word ?\n";
    filter(how, few, sizeof few / sizeof *few);
    line[5] = *(volatile char *)(block + 4 * PAGE);
    if (write(1, line, sizeof line - 1) < 0)
        _exit(4);
    if (!strcmp(by, "_exit"))
        _exit(5);
    exit(5);
}

int main(int argc, char **argv) {
    int status = -1;
    gpu_open(&gpu);
    block = aligned_alloc(2 << 20, 2 << 20);
    memset(block, 0, 2 << 20);
    store(4, 'x');
    if (argc == 4 && !strcmp(argv[2], "main"))
        leave_filtered(argv[1], argv[3]);
    if (argc == 4) {
        pid_t child = fork();
        if (!child)
            leave_filtered(argv[1], argv[3]);
        waitpid(child, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
    }
    filter("prctl", all, 1);
    for (int turn = 0; turn < 3; turn++) {
        pid_t child = vfork();
        if (!child)
            _exit(6);
        waitpid(child, &status, 0);
        store(8 + turn, 'y');
        if (status != 6 << 8 || block[(8 + turn) * PAGE] != 'y')
            return 1;
    }
    printf("word %c\n", block[4 * PAGE]);
    return 5;
}
