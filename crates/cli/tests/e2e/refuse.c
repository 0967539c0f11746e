/* Runs a program for which the kernel refuses something, by a seccomp filter:
 *   refuse userfaultfd PROGRAM ...   that system call is not permitted (EPERM)
 *   refuse mincore PROGRAM ..., refuse memfd_create PROGRAM ...   the same
 *   refuse queries PROGRAM ...       no PROCMAP_QUERY and no PAGEMAP_SCAN, as before Linux 6.7 (ENOTTY)
 *   refuse features PROGRAM ...      no feature of userfaultfd, as before Linux 6.8 that of moving (EINVAL) */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IF(value, then, otherwise) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, then, otherwise)
#define ANSWER(errno_) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (errno_))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static struct sock_filter userfaultfd[] = {LOAD(nr), IF(SYS_userfaultfd, 0, 1), ANSWER(EPERM), ALLOW};

static struct sock_filter mincore[] = {LOAD(nr), IF(SYS_mincore, 0, 1), ANSWER(EPERM), ALLOW};

static struct sock_filter memfd_create[] = {LOAD(nr), IF(SYS_memfd_create, 0, 1), ANSWER(EPERM), ALLOW};

static struct sock_filter queries[] = {
    LOAD(nr), IF(SYS_ioctl, 0, 4), LOAD(args[1]), IF(0xc0686611, 1, 0), IF(0xc0606610, 0, 1), ANSWER(ENOTTY), ALLOW};

static struct sock_filter features[] = {
    LOAD(nr), IF(SYS_ioctl, 0, 3), LOAD(args[1]), IF(0xc018aa3f, 0, 1), ANSWER(EINVAL), ALLOW};

int main(int argc, char **argv) {
    struct sock_fprog program = {sizeof userfaultfd / sizeof *userfaultfd, userfaultfd};
    if (argc > 1 && !strcmp(argv[1], "mincore"))
        program = (struct sock_fprog){sizeof mincore / sizeof *mincore, mincore};
    if (argc > 1 && !strcmp(argv[1], "memfd_create"))
        program = (struct sock_fprog){sizeof memfd_create / sizeof *memfd_create, memfd_create};
    if (argc > 1 && !strcmp(argv[1], "queries"))
        program = (struct sock_fprog){sizeof queries / sizeof *queries, queries};
    if (argc > 1 && !strcmp(argv[1], "features"))
        program = (struct sock_fprog){sizeof features / sizeof *features, features};
    if (argc < 3 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        perror("refuse");
        return 2;
    }
    execvp(argv[2], argv + 2);
    perror(argv[2]);
    return 2;
}
