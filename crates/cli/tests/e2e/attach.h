/*
 * A debugger that attaches to all threads of its parent, one after the other, again and again.
 */
#ifndef ATTACH_H
#define ATTACH_H

#include "gpu.h"
#include <dirent.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

enum { MOST_THREADS = 64, ATTACHMENTS = 8, ATTACH_PATIENCE_S = 100 };
/* Each is waited for before the next is asked to stop; or all are asked before, as gdb does it. */
enum attach_order { EACH_ALONE, ALL_AT_ONCE };

/* The thread that did not stop must not stop once it could. */
static inline void too_late(int unused) {
    (void)unused;
    kill(getppid(), SIGCONT);
    _exit(3);
}

/* Waits until a thread has stopped that was asked to; 0 where it has ended. A signal that comes first is the thread's own and is handed on:
 * otherwise the stop would come when the thread has been let go, and stop the whole process. */
static inline int stops(int thread) {
    for (int status; waitpid(thread, &status, __WALL) > 0 && WIFSTOPPED(status);) {
        if (WSTOPSIG(status) == SIGSTOP)
            return 1;
        ptrace(PTRACE_CONT, thread, 0, WSTOPSIG(status));
    }
    errno = ESRCH;
    return 0;
}

/* Attaches to all, and lets them go: 0; 2 where it may not. Ends this process where one does not stop. */
static inline int attach(int process, enum attach_order order) {
    char path[64];
    int threads[MOST_THREADS], count = 0;
    snprintf(path, sizeof path, "/proc/%d/task", process);
    DIR *tasks = opendir(path);
    alarm(ATTACH_PATIENCE_S);
    for (struct dirent *task; tasks && (task = readdir(tasks)) && count < MOST_THREADS;)
        if ((threads[count] = atoi(task->d_name))) {
            if (!ptrace(PTRACE_ATTACH, threads[count], 0, 0) && (order == ALL_AT_ONCE || stops(threads[count])))
                count++;
            else if (errno != ESRCH) /* it has ended */
                return errno == EPERM ? 2 : 3;
        }
    for (int i = 0; order == ALL_AT_ONCE && i < count; i++)
        stops(threads[i]);
    alarm(0);
    closedir(tasks);
    while (count)
        ptrace(PTRACE_DETACH, threads[--count], 0, 0);
    return 0;
}

/* The same some times, at other moments: 0, or what went wrong. */
static inline int attach_often(int process, enum attach_order order) {
    signal(SIGALRM, too_late);
    for (int time = 0; time < ATTACHMENTS; time++) {
        usleep(50000 + 7000 * time);
        int result = attach(process, order);
        if (result)
            return result;
    }
    return 0;
}

#endif
