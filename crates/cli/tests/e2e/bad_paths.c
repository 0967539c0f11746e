/* Paths that are no memory, for each call that takes one: EFAULT as the kernel says it, never a signal. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static int bad;

#define REFUSED(call, with)                                                  \
    do {                                                                     \
        errno = 0;                                                           \
        if ((long)(call) > 0 || errno != (with))                             \
            bad += printf("%s of %p: %s\n", #call, path, strerror(errno));   \
    } while (0)
#define FAULTS(call) REFUSED(call, EFAULT)

static void every_call(char *path) {
    char room[64];
    struct stat st;
    struct statx stx;
    FAULTS(open(path, O_RDONLY));
    FAULTS(openat(AT_FDCWD, path, O_RDONLY));
    FAULTS(openat(3, path, O_RDONLY));
    FAULTS(creat(path, 0600));
    FAULTS(fopen(path, "r"));
    FAULTS(stat(path, &st));
    FAULTS(lstat(path, &st));
    FAULTS(fstatat(AT_FDCWD, path, &st, 0));
    FAULTS(fstatat(3, path, &st, AT_EMPTY_PATH));
    FAULTS(statx(AT_FDCWD, path, 0, STATX_ALL, &stx));
    FAULTS(access(path, F_OK));
    FAULTS(euidaccess(path, F_OK));
    FAULTS(faccessat(AT_FDCWD, path, F_OK, 0));
    FAULTS(getxattr(path, "user.x", room, sizeof room));
    FAULTS(lgetxattr(path, "user.x", room, sizeof room));
    FAULTS(listxattr(path, room, sizeof room));
    FAULTS(llistxattr(path, room, sizeof room));
    FAULTS(readlink(path, room, sizeof room));
    FAULTS(readlinkat(AT_FDCWD, path, room, sizeof room));
    FAULTS(chdir(path));
}

static void all_paths(void) {
    char *pages = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *cut = pages + 4096 - strlen("/dev/dr");
    memcpy(cut, "/dev/dr", strlen("/dev/dr"));
    munmap(pages + 4096, 4096);
    mprotect(pages + 2 * 4096, 4096, PROT_NONE);
    char *nowhere[] = {(char *)1, cut, pages + 4096, pages + 2 * 4096 + 5, (char *)-4096, (char *)(1ul << 47)};
    for (unsigned i = 0; i < sizeof nowhere / sizeof *nowhere; i++)
        every_call(nowhere[i]);
}

int main(void) {
    char path[64], room[64], *volatile nowhere = (char *)1;
    volatile size_t endless = -1;
    all_paths();
    int fd = open("/dev/dri/renderD128", O_RDWR);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    all_paths();
    FAULTS(readlink(path, nowhere, 60));
    REFUSED(readlink(path, room, 0), EINVAL);
    REFUSED(readlink(path, room, endless), EINVAL);
    if (readlink(path, room, 8) != 8 || memcmp(room, "/dev/dri", 8))
        bad += printf("a link is not cut\n");
    return bad != 0;
}
