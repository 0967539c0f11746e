/*
 * A debugger has stopped all threads but one, those that answer among them, and that one drops memory that is in VRAM: it goes
 * on all the same, so that it can be stopped, too. The debugger is a child of this program. Exit status 2: it may not attach.
 */
#define _GNU_SOURCE
#include "attach.h"
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

enum { BYTES = 1 << 16, MOST = 64, PATIENCE_S = 10 };

/* Stops them, tells so, and lets them go when it is told, or has waited for long enough. */
static int debug(int process, int said, int say) {
    char path[64], word;
    int threads[MOST], count = 0;
    if (read(said, &word, 1) != 1)
        return 2;
    snprintf(path, sizeof path, "/proc/%d/task", process);
    DIR *tasks = opendir(path);
    for (struct dirent *task; tasks && (task = readdir(tasks)) && count < MOST;)
        if ((threads[count] = atoi(task->d_name)) && threads[count] != process) {
            if (ptrace(PTRACE_ATTACH, threads[count], 0, 0) || !stops(threads[count]))
                return 2;
            count++;
        }
    if (!count || write(say, "s", 1) != 1)
        return 2;
    fcntl(said, F_SETFL, O_NONBLOCK);
    for (int waited = 0; waited < PATIENCE_S * 10; waited++) {
        if (read(said, &word, 1) == 1)
            break;
        usleep(100000);
    }
    for (int i = 0; i < count; i++)
        ptrace(PTRACE_DETACH, threads[i], 0, 0);
    return 0;
}

int main(void) {
    int there[2], back[2], status = 0;
    char word, *block, *room = mmap(NULL, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct gpu gpu;
    struct batch batch = {0};
    struct timespec start, end;
    int process = getpid();
    gpu_open(&gpu);
    if (room == MAP_FAILED || pipe(there) || pipe(back))
        die("pipe");
    block = (char *)(((uintptr_t)room + BYTES - 1) & ~(uintptr_t)(BYTES - 1));
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    pid_t child = fork();
    if (child == 0) {
        close(there[1]);
        int result = debug(process, there[0], back[1]);
        _exit(result);
    }
    close(back[1]);
    memset(block, 1, BYTES);
    store32(&batch, block, 7);
    if ((errno = run(&gpu, 0, &batch)))
        die("run");
    if (write(there[1], "g", 1) != 1)
        die("write");
    if (read(back[0], &word, 1) == 1) {
        clock_gettime(CLOCK_MONOTONIC, &start);
        madvise(block, BYTES, MADV_DONTNEED);
        clock_gettime(CLOCK_MONOTONIC, &end);
        printf("%s\n", end.tv_sec - start.tv_sec < PATIENCE_S / 2 ? "went on" : "was held");
        fflush(stdout);
        if (write(there[1], "d", 1) != 1)
            die("write");
    }
    waitpid(child, &status, 0);
    if (WEXITSTATUS(status) == 0 && *block != 0)
        printf("old bytes\n");
    return WEXITSTATUS(status);
}
