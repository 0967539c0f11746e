/* System calls by number, and process_madvise, on memory that is in VRAM and on descriptors: as by name. Says what is wrong, a
 * line each; says nothing where it is all right. */
#define _GNU_SOURCE
#include "gpu.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define BLOCK (2ul << 20)
enum { GUARD_INSTALL = 102, GUARD_REMOVE = 103 }; /* Linux 6.13 */

static struct gpu gpu;
static int wrong;

static void check(int good, const char *what) {
    if (!good) {
        printf("%s: %s\n", what, strerror(errno));
        wrong = 1;
    }
}

/* 2M of ones, in VRAM but for its first page, where a GPU store left a five in each fourth page. */
static char *in_vram(void) {
    char *mapped = mmap(NULL, 3 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *block = (char *)(((uintptr_t)mapped + BLOCK - 1) & ~(BLOCK - 1));
    struct batch batch = {0};
    memset(block, 1, BLOCK);
    for (unsigned page = 0; page < BLOCK / PAGE; page += 4)
        store32(&batch, block + page * PAGE, 5);
    if ((errno = run(&gpu, 0, &batch)))
        die("run");
    return block;
}

static uint32_t word(const char *block, unsigned page) { return *(volatile uint32_t *)(block + page * PAGE); }

/* A guard drops what was there, also where one of several parts is meant. */
static void guards(int by_number) {
    char *block = in_vram();
    struct iovec parts[2] = {{block + 8 * PAGE, PAGE}, {block + 32 * PAGE, 2 * PAGE}};
    int self = syscall(SYS_pidfd_open, getpid(), 0);
    ssize_t done = by_number ? syscall(SYS_process_madvise, self, parts, 2, GUARD_INSTALL, 0) : process_madvise(self, parts, 2, GUARD_INSTALL, 0);
    close(self);
    if (done < 0 && errno == EINVAL)
        return; /* an older kernel */
    check(done == 3 * PAGE, "process_madvise");
    check(!syscall(SYS_madvise, block, BLOCK, GUARD_REMOVE), "madvise");
    check(!word(block, 8) && !word(block, 32) && !word(block, 33), "old bytes behind a guard");
    check(word(block, 4) == 5 && word(block, 9) == 0x01010101, "bytes beside a guard");
    block = in_vram();
    check(!syscall(SYS_madvise, block + 8 * PAGE, PAGE, GUARD_INSTALL), "madvise installs");
    check(!madvise(block, BLOCK, GUARD_REMOVE) && !word(block, 8), "old bytes behind a guard of madvise");
}

/* Rights and places change, the bytes stay. */
static void changes(void) {
    char *block = in_vram();
    check(!syscall(SYS_mprotect, block + 8 * PAGE, 8 * PAGE, PROT_READ), "mprotect");
    check(word(block, 8) == 5 && word(block, 16) == 5, "bytes that became read-only");
    for (int turn = 0; turn < 20; turn++) {
        block = in_vram();
        char *there = mmap(NULL, BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        char *moved = (char *)syscall(SYS_mremap, block - 8 * PAGE, 16 * PAGE, 16 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, there);
        check(moved == there, "mremap across the start of a block");
        check(word(moved, 12) == 5, "bytes that moved");
    }
    check(!syscall(SYS_mlock, block + 64 * PAGE, PAGE) && word(block, 64) == 5, "mlock");
}

static void descriptors(void) {
    struct device_query query = {.query = QUERY_CONFIG};
    int fd = syscall(SYS_dup, gpu.fd);
    check(fd >= 0 && !syscall(SYS_ioctl, fd, IOC_DEVICE_QUERY, &query) && query.size, "ioctl of a duplicate");
    check(!syscall(SYS_close, fd) && syscall(SYS_close, fd) < 0 && errno == EBADF, "close");
    for (int other = 3; other < 1024; other++)
        if (other != gpu.fd)
            syscall(SYS_close, other);
    syscall(SYS_close_range, 1024, ~0u, 0);
    check(word(in_vram(), 8) == 5, "memory after all descriptors were closed");
    fd = syscall(SYS_fcntl, 1, F_DUPFD_CLOEXEC, 100);
    check(fd >= 100 && !syscall(SYS_close, fd), "fcntl of another file");
}

/* Six arguments, errors, and errno where there is none. */
static void passes(void) {
    char *at = (char *)syscall(SYS_mmap, 0, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(at != MAP_FAILED && !(at[0] = 0), "mmap");
    check(syscall(SYS_mmap, 0, BLOCK, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 5) == -1 && errno == EINVAL, "an odd offset");
    errno = 77;
    check(syscall(SYS_getpid) == getpid() && !syscall(SYS_mprotect, at, PAGE, PROT_READ) && errno == 77, "errno is kept");
    check(syscall(SYS_mprotect, -4096l, 8192, PROT_READ) == -1 && errno == ENOMEM, "mprotect of nothing");
    check(syscall(SYS_madvise, -4096l, 8192l, GUARD_INSTALL) == -1 && errno == EINVAL, "a guard of nothing");
    int self = syscall(SYS_pidfd_open, getpid(), 0);
    check(syscall(SYS_process_madvise, self, 8l, 1, GUARD_INSTALL, 0) == -1 && errno == EFAULT, "parts that are no memory");
    check(syscall(SYS_process_madvise, self, at, 1l << 20, GUARD_INSTALL, 0) == -1 && errno == EINVAL, "too many parts");
    struct iovec all = {(void *)-4096l, ~0ul};
    check(syscall(SYS_process_madvise, self, &all, 1, GUARD_INSTALL, 0) == -1, "a part that is no memory");
    check(syscall(511) == -1 && errno == ENOSYS, "a number of nothing");
    long child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (!child)
        syscall(SYS_exit_group, 7);
    int status;
    check(syscall(SYS_wait4, child, &status, 0, 0) == child && status == 7 << 8, "a child");
}

int main(void) {
    gpu_open(&gpu);
    guards(0);
    guards(1);
    changes();
    descriptors();
    passes();
    return wrong;
}
