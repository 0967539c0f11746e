/*
 * A thread is in an ioctl of the device while another closes the only descriptor of it: the file stays open until the call returns, and its
 * queue lives as long.
 */
#include "gpu.h"
#include <pthread.h>

static volatile uint64_t word;
static struct gpu gpu;

static void *waits(void *unused) {
    struct wait_user_fence wait = {
        .addr = (uintptr_t)&word, .op = WAIT_EQUAL, .value = 1, .mask = ~0ull, .timeout = WAIT_NS, .exec_queue_id = gpu.queues[0],
    };
    errno = try_ioctl(gpu.fd, IOC_WAIT_USER_FENCE, &wait) ? errno : 0;
    printf("%s\n", errno ? strerror(errno) : "it came");
    return unused;
}

int main(void) {
    pthread_t waiter;
    gpu_open(&gpu);
    pthread_create(&waiter, NULL, waits, NULL);
    usleep(200000);
    if (close(gpu.fd))
        die("close");
    usleep(100000);
    word = 1;
    pthread_join(waiter, NULL);
    if (fcntl(gpu.fd, F_GETFD) != -1)
        die("the descriptor is still open");
    gpu_open(&gpu);
    gpu_close(&gpu);
    return 0;
}
