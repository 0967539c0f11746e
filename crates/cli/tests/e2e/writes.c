/*
 * A debugger attaches to all threads, one after the other, while two of them write(2) memory to files that the device has in VRAM, over and over: a
 * thread in such a call can only be stopped when it has its pages. Another thread has the device store to the memory, and the main
 * one adds to it. The debugger is a child of this program, or there is none: with an argument it runs for so many
 * seconds. Exit status 2: it may not attach.
 */
#define _GNU_SOURCE
#include "gpu.h"
#include <dirent.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

enum { BYTES = 1 << 20, MOST = 64, TIMES = 8, PATIENCE_S = 20 };
enum { STORED, ADDED, KEPT, WORDS = 1024 };

static _Atomic int stop;
static unsigned (*block)[WORDS];
static unsigned stored;

static void *writes(void *name) {
    int file = memfd_create(name, 0);
    while (!stop)
        if (pwrite(file, block, BYTES, 0) != BYTES)
            die("pwrite");
    return NULL;
}

static void *works(void *gpu) {
    while (!stop) {
        struct batch batch = {0};
        stored++;
        for (size_t page = 0; page < BYTES / PAGE; page++)
            store32(&batch, &block[page][STORED], stored);
        if ((errno = run(gpu, stored % TILES, &batch)))
            die("run");
    }
    return NULL;
}

/* The thread that did not stop must not stop once it could. */
static void too_late(int unused) {
    (void)unused;
    kill(getppid(), SIGCONT);
    _exit(3);
}

/* Attaches to all, and lets them go. Ends this process where one does not stop. */
static int attach(int process) {
    char path[64];
    int threads[MOST], count = 0;
    snprintf(path, sizeof path, "/proc/%d/task", process);
    DIR *tasks = opendir(path);
    alarm(PATIENCE_S);
    for (struct dirent *task; tasks && (task = readdir(tasks)) && count < MOST;)
        if ((threads[count] = atoi(task->d_name))) {
            if (!ptrace(PTRACE_ATTACH, threads[count], 0, 0))
                count++;
            else if (errno != ESRCH) /* it has ended */
                return errno == EPERM ? 2 : 3;
        }
    /* As gdb does it: all are asked to stop before the first is waited for. */
    for (int i = 0; i < count; i++)
        waitpid(threads[i], NULL, __WALL);
    alarm(0);
    closedir(tasks);
    while (count)
        ptrace(PTRACE_DETACH, threads[--count], 0, 0);
    return 0;
}

static int debug(int process) {
    signal(SIGALRM, too_late);
    for (int time = 0; time < TIMES; time++) {
        usleep(50000 + 7000 * time);
        int result = attach(process);
        if (result)
            return result;
    }
    return 0;
}

/* Each store of the device and each addition of the CPU is there, and nothing else has changed. */
static int is_exact(unsigned added) {
    for (size_t page = 0; page < BYTES / PAGE; page++) {
        if (block[page][STORED] != stored || block[page][ADDED] != added)
            return 0;
        for (size_t word = KEPT; word < WORDS; word++)
            if (block[page][word] != page * WORDS + word)
                return 0;
    }
    return 1;
}

int main(int argc, char **argv) {
    struct gpu gpu;
    pthread_t threads[3];
    int status = 0, process = getpid();
    unsigned added = 0;
    char *room = mmap(NULL, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    gpu_open(&gpu);
    if (room == MAP_FAILED)
        die("mmap");
    block = (void *)(((uintptr_t)room + BYTES - 1) & ~(uintptr_t)(BYTES - 1));
    for (size_t page = 0; page < BYTES / PAGE; page++)
        for (size_t word = KEPT; word < WORDS; word++)
            block[page][word] = page * WORDS + word;
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    time_t end = argc > 1 ? time(NULL) + atoi(argv[1]) : 0;
    pid_t child = argc > 1 ? -1 : fork();
    if (child == 0)
        _exit(debug(process));
    pthread_create(&threads[0], NULL, writes, "first");
    pthread_create(&threads[1], NULL, writes, "second");
    pthread_create(&threads[2], NULL, works, &gpu);
    do {
        for (size_t page = 0; page < BYTES / PAGE; page++)
            block[page][ADDED]++;
        added++;
    } while (child > 0 ? waitpid(child, &status, WNOHANG) == 0 : time(NULL) < end);
    stop = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    printf("%s, %s\n", status == 0 ? "all stopped" : "a thread did not stop", is_exact(added) ? "exact" : "wrong bytes");
    return WIFEXITED(status) && WEXITSTATUS(status) == 2 ? 2 : 0;
}
