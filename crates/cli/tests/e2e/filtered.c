/* A child that lets itself only read, write and leave, as a sandbox does: any other system call kills it.
 * filtered exit|_exit */
#include "few.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sock_fprog filter = {sizeof few / sizeof *few, few};
    int is_plain = argc > 1 && !strcmp(argv[1], "_exit"), status = -1;
    char *text = malloc(1 << 20);
    memset(text, 'x', 1 << 20);
    pid_t child = fork();
    if (child == 0) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
            _exit(3);
        if (write(1, text + 70000, 1) != 1)
            _exit(4);
        if (is_plain)
            _exit(0);
        exit(0);
    }
    waitpid(child, &status, 0);
    printf(" status %#x\n", (unsigned)status);
    return 0;
}
