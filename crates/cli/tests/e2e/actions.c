/* One thread changes the action of SIGBUS over and over, another one gets the signal: whatever handler runs has the mask and
 * the kind of argument that it was registered with. So it is natively. */
#define _GNU_SOURCE
#include "gpu.h"
#include <pthread.h>
#include <signal.h>

enum { SIGNALS = 200000 };

static volatile sig_atomic_t stop;
static volatile long wrong, seen[2];

/* Whether a handler that blocks `own` may run with what is blocked now. */
static void look(int which, int own, int other) {
    sigset_t now;
    pthread_sigmask(SIG_BLOCK, NULL, &now);
    wrong += !sigismember(&now, own) || sigismember(&now, other);
    seen[which]++;
}

static void simple(int signal) {
    (void)signal;
    look(0, SIGUSR1, SIGUSR2);
}

static void informed(int signal, siginfo_t *info, void *context) {
    wrong += !context || info->si_signo != signal || info->si_pid != getpid();
    look(1, SIGUSR2, SIGUSR1);
}

static void *change(void *unused) {
    struct sigaction actions[2] = {{.sa_handler = simple}, {.sa_sigaction = informed, .sa_flags = SA_SIGINFO}}, old;
    sigaddset(&actions[0].sa_mask, SIGUSR1);
    sigaddset(&actions[1].sa_mask, SIGUSR2);
    for (unsigned turn = 0; !stop; turn++) {
        sigaction(SIGBUS, &actions[turn & 1], &old);
        int matches = old.sa_flags & SA_SIGINFO ? old.sa_sigaction == informed : old.sa_handler == simple;
        wrong += turn && !matches;
    }
    return unused;
}

int main(void) {
    struct gpu gpu;
    pthread_t thread;
    sigset_t set;
    gpu_open(&gpu);
    signal(SIGBUS, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_create(&thread, NULL, change, NULL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    /* As many as it takes to see both handlers. */
    for (long i = 0; i < SIGNALS || !seen[0] || !seen[1]; i++)
        pthread_kill(pthread_self(), SIGBUS);
    stop = 1;
    pthread_join(thread, NULL);
    printf("%ld wrong\n", wrong);
    return wrong != 0;
}
