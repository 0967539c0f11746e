/*
 * A debugger attaches to all threads, one after the other, while one of them drops memory that the device has in VRAM, as fast as it can, and
 * another has the device work on it: each thread stops, again and again. The debugger is a child of this program. Exit
 * status 2: it may not attach.
 */
#define _GNU_SOURCE
#include "gpu.h"
#include <dirent.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

enum { BYTES = 1 << 20, MOST = 64, TIMES = 8, PATIENCE_S = 15 };

static _Atomic int stop;
static char *block;

static void *drops(void *unused) {
    while (!stop)
        madvise(block, BYTES, MADV_DONTNEED);
    return unused;
}

static void *works(void *gpu) {
    struct batch batch = {0};
    for (size_t at = 0; at < BYTES; at += 4096)
        store32(&batch, block + at, 7);
    while (!stop)
        if ((errno = run(gpu, 0, &batch)))
            die("run");
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
            if (!ptrace(PTRACE_ATTACH, threads[count], 0, 0) && waitpid(threads[count], NULL, __WALL) > 0)
                count++;
            else if (errno != ESRCH) /* it has ended */
                return errno == EPERM ? 2 : 3;
        }
    alarm(0);
    closedir(tasks);
    while (count)
        ptrace(PTRACE_DETACH, threads[--count], 0, 0);
    return 0;
}

int main(void) {
    struct gpu gpu;
    pthread_t dropper, worker;
    int status = 0, process = getpid();
    char *room = mmap(NULL, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    gpu_open(&gpu);
    if (room == MAP_FAILED)
        die("mmap");
    block = (char *)(((uintptr_t)room + BYTES - 1) & ~(uintptr_t)(BYTES - 1));
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGALRM, too_late);
        for (int time = 0; time < TIMES; time++) {
            usleep(50000 + 7000 * time);
            int result = attach(process);
            if (result)
                _exit(result);
        }
        _exit(0);
    }
    pthread_create(&dropper, NULL, drops, NULL);
    pthread_create(&worker, NULL, works, &gpu);
    waitpid(child, &status, 0);
    stop = 1;
    pthread_join(dropper, NULL);
    pthread_join(worker, NULL);
    printf("%s\n", status == 0 ? "all stopped" : "a thread did not stop");
    return WIFEXITED(status) && WEXITSTATUS(status) == 2 ? 2 : 0;
}
