/* A tracer of all threads, as `strace -f` is: it stops each at its system calls, one after the other, and reads what
 * write(2) is given. The traced program, which this is with an argument, writes memory that the GPU has just stored to. */
#define _GNU_SOURCE
#include "gpu.h"
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

enum { BYTES = 64 };

static int traced(void) {
    struct gpu gpu;
    gpu_open(&gpu);
    char *text = aligned_alloc(1 << 16, 1 << 16);
    memset(text, 'x', 1 << 16);
    int null = open("/dev/null", O_WRONLY);
    for (unsigned turn = 0; turn < 20; turn++) {
        struct batch batch = {0};
        store32(&batch, text, 0x79797979);
        if ((errno = run(&gpu, turn % TILES, &batch)))
            die("run");
        if (write(null, text, BYTES) != BYTES)
            die("write");
    }
    return 0;
}

/* Lets a thread run to its next system call; reads what it is about to write. Gives how often the text was seen. */
static int look(pid_t thread) {
    struct user_regs_struct registers;
    char text[BYTES];
    if (ptrace(PTRACE_GETREGS, thread, NULL, &registers) || registers.orig_rax != SYS_write || registers.rdx != BYTES)
        return 0;
    struct iovec to = {text, BYTES}, from = {(void *)registers.rsi, BYTES};
    return process_vm_readv(thread, &to, 1, &from, 1, 0) == BYTES && !memcmp(text, "yyyyxxxx", 8);
}

int main(int argc, char **argv) {
    if (argc > 1)
        return traced();
    pid_t program = fork(), thread;
    int status = 0, seen = 0;
    if (program == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        execl(argv[0], argv[0], "traced", NULL);
        _exit(2);
    }
    waitpid(program, &status, 0);
    ptrace(PTRACE_SETOPTIONS, program, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
    ptrace(PTRACE_SYSCALL, program, NULL, NULL);
    while ((thread = waitpid(-1, &status, __WALL)) > 0) {
        if (!WIFSTOPPED(status)) {
            if (thread == program)
                break;
            continue;
        }
        int signal = WSTOPSIG(status), is_call = signal == (SIGTRAP | 0x80);
        if (is_call)
            seen += look(thread);
        int is_own = is_call || signal == SIGTRAP || signal == SIGSTOP;
        ptrace(PTRACE_SYSCALL, thread, NULL, is_own ? 0l : (long)signal);
    }
    /* at the beginning of each call and at its end */
    printf("status %#x, texts %d\n", (unsigned)status, seen);
    return 0;
}
