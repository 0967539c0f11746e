/* With LIBRARY: a library that wraps functions of libc and makes their system calls by number, or one by another, as
 * allocators and fakeroot do. Else a program that calls them: its memory, which such calls change, goes to both tiles and back. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef LIBRARY

unsigned calls_that_were_wrapped;

#define BY_NUMBER(...) (calls_that_were_wrapped++, syscall(__VA_ARGS__))

void *mmap64(void *at, size_t length, int prot, int flags, int fd, off64_t offset) {
    return (void *)BY_NUMBER(SYS_mmap, at, length, prot, flags, fd, offset);
}
void *mmap(void *at, size_t length, int prot, int flags, int fd, off_t offset) { return mmap64(at, length, prot, flags, fd, offset); }
int munmap(void *at, size_t length) { return (int)BY_NUMBER(SYS_munmap, at, length); }
int mprotect(void *at, size_t length, int prot) { return (int)BY_NUMBER(SYS_mprotect, at, length, prot); }
int madvise(void *at, size_t length, int advice) { return (int)BY_NUMBER(SYS_madvise, at, length, advice); }
int close(int fd) { return (int)BY_NUMBER(SYS_close, fd); }
int dup2(int from, int to) { return (int)BY_NUMBER(SYS_dup2, from, to); }

int __fxstatat64(int version, int dir, const char *path, void *out, int flags) {
    (void)version;
    return (int)BY_NUMBER(SYS_newfstatat, dir, path, out, flags);
}
int fstatat64(int dir, const char *path, void *out, int flags) { return __fxstatat64(1, dir, path, out, flags); }
int fstatat(int dir, const char *path, void *out, int flags) { return fstatat64(dir, path, out, flags); }

#else

#include "gpu.h"
#include <sys/stat.h>

extern unsigned calls_that_were_wrapped __attribute__((weak));

int main(void) {
    enum { BYTES = 4 << 20, STEP = 64 << 10 };
    struct gpu gpu = {0};
    gpu_open(&gpu);
    for (unsigned round = 0; round < 4; round++) {
        uint32_t *words = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (words == MAP_FAILED)
            die("mmap");
        struct batch batch = {0};
        for (unsigned i = 0; i < BYTES; i += STEP)
            store32(&batch, (char *)words + i, i + round);
        if ((errno = run(&gpu, round % tiles_of(gpu.fd), &batch)))
            die("run");
        if (mprotect(words, STEP, PROT_READ) || madvise((char *)words + STEP, STEP, MADV_DONTNEED))
            die("mprotect, madvise");
        for (unsigned i = 0; i < BYTES; i += STEP)
            if (words[i / 4] != (i == STEP ? 0 : i + round))
                printf("the word at %u is %u in round %u\n", i, words[i / 4], round);
        if (munmap(words, BYTES) || dup2(gpu.fd, 99) != 99 || close(99))
            die("munmap, dup2, close");
    }
    struct stat stat;
    if (fstatat(AT_FDCWD, "/dev/dri/renderD128", &stat, 0) || !S_ISCHR(stat.st_mode))
        die("fstatat");
    if (&calls_that_were_wrapped && calls_that_were_wrapped >= 20)
        puts("wrapped");
    return 0;
}

#endif
