/* fork() while the program's own handler of it, registered before the device was opened, waits for a GPU job: the
 * handler takes the mutex that another thread holds over each job. Says nothing where every child sees the jobs. */
#include "gpu.h"
#include <pthread.h>
#include <sys/wait.h>

enum { FORKS = 25 };

static struct gpu gpu;
static pthread_mutex_t jobs = PTHREAD_MUTEX_INITIALIZER;
static uint32_t *word, done;
static _Atomic int stop;

static void before(void) { pthread_mutex_lock(&jobs); }
static void after(void) { pthread_mutex_unlock(&jobs); }

static void *submit(void *unused) {
    for (; !stop; usleep(100)) {
        struct batch batch = {0};
        pthread_mutex_lock(&jobs);
        store32(&batch, word, done + 1);
        if ((errno = run(&gpu, done % TILES, &batch)))
            die("run");
        done++;
        pthread_mutex_unlock(&jobs);
    }
    return unused;
}

int main(void) {
    pthread_t thread;
    pthread_atfork(before, after, after);
    gpu_open(&gpu);
    word = aligned_alloc(PAGE, PAGE);
    *word = 0;
    pthread_create(&thread, NULL, submit, NULL);
    for (int i = 0; i < FORKS; i++) {
        int status = -1;
        pid_t child = fork();
        if (child == 0)
            _exit(*word != done);
        waitpid(child, &status, 0);
        if (status)
            printf("child %d: status %#x\n", i, (unsigned)status);
    }
    stop = 1;
    pthread_join(thread, NULL);
    return 0;
}
