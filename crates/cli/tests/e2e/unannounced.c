/* What changes memory, threads or signals without an event of userfaultfd, while all memory migrates. Says what went
 * wrong, a line each; says nothing where it is all right. With an argument main leaves by pthread_exit instead. */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <time.h>
#include <unistd.h>

#define SIZE (2ul << 20)
#define GUARD_INSTALL 102 /* Linux 6.13 */
#define GUARD_REMOVE 103

static int wrong;
static sigjmp_buf back;

static void check(int good, const char *what) {
    if (!good) {
        printf("%s\n", what);
        wrong = 1;
    }
}

/* 2M of memory, full of 0x5a, in VRAM by the time it returns, or after a second. */
static unsigned char *filled(void) {
    unsigned char *whole = mmap(0, 2 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), there = 1;
    unsigned char *memory = (unsigned char *)(((uintptr_t)whole + SIZE) & ~(SIZE - 1));
    memset(memory, 0x5a, SIZE);
    for (int turn = 0; turn < 1000 && there & 1; turn++) {
        usleep(1000);
        mincore(memory + 65536, 4096, &there);
    }
    return memory;
}

static int zeros(const unsigned char *memory, unsigned long bytes) {
    while (bytes && !memory[bytes - 1])
        bytes--;
    return !bytes;
}

static void leave(int signal) {
    (void)signal;
    siglongjmp(back, 1);
}

static void guards(void) {
    unsigned char *memory = filled();
    signal(SIGSEGV, leave);
    if (madvise(memory + 8192, 8192, GUARD_INSTALL))
        return; /* an older kernel */
    if (!sigsetjmp(back, 1)) {
        *(volatile unsigned char *)(memory + 8192);
        check(0, "a guard can be read");
    }
    madvise(memory + 8192, 8192, GUARD_REMOVE);
    check(zeros(memory + 8192, 8192), "old bytes behind a guard");
    check(memory[4096] == 0x5a && memory[16384] == 0x5a, "bytes beside a guard");
    signal(SIGSEGV, SIG_DFL);
}

static void shared_over(void) {
    unsigned char *memory = filled();
    int id = shmget(IPC_PRIVATE, SIZE, 0600);
    void *at = shmat(id, memory, SHM_REMAP);
    shmctl(id, IPC_RMID, 0);
    check(at == memory && zeros(memory, SIZE), "old bytes in a segment of shared memory");
    shmdt(memory);
    mmap(memory, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    usleep(200000);
    check(zeros(memory, SIZE), "old bytes in fresh memory");
}

static void blocked(void) {
    unsigned char *memory = filled();
    struct timespec second = {1, 0};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGABRT);
    sigprocmask(SIG_BLOCK, &set, 0);
    kill(getpid(), SIGABRT);
    mprotect(memory, 4096, PROT_READ);
    check(sigtimedwait(&set, 0, &second) == SIGABRT, "a blocked signal is gone");
}

static void locked(void) {
    struct rusage usage;
    if (mlockall(MCL_CURRENT))
        return; /* not allowed to */
    getrusage(RUSAGE_SELF, &usage);
    munlockall();
    check(usage.ru_maxrss < 2 << 20, "mlockall filled memory that is not the program's");
}

/* It takes no signal that is meant for the process; libc's own, for setgid, end a pause. */
static void *other(void *unused) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, 0);
    for (;;)
        pause();
    return unused;
}

static void *last(void *unused) {
    filled();
    return unused;
}

int main(int argc, char **argv) {
    pthread_t thread;
    if (argc > 1) {
        puts(argv[1]);
        pthread_create(&thread, 0, last, 0);
        pthread_exit(0);
    }
    pthread_create(&thread, 0, other, 0);
    check(!setgid(getgid()) && !setuid(getuid()), "the user cannot be set");
    guards();
    shared_over();
    blocked();
    locked();
    return wrong;
}
