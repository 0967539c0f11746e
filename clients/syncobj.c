/*
 * Syncobjs without a GPU: every ioctl, flag and errno of the DRM core's own fences. A line for what is not as it should
 * be; the last line is `SYNCOBJ ok` or `SYNCOBJ BAD failures=<n>`. Exit status 0 or 1; 2 where a call failed that must not.
 */
#define _GNU_SOURCE
#include "is.h"
#include "syncobj.h"
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/time.h>

static int fd;

static int is_readable(int descriptor) {
    struct pollfd poll_one = {.fd = descriptor, .events = POLLIN};
    return poll(&poll_one, 1, 0) == 1 && poll_one.revents == POLLIN;
}

/* Does something 20 ms later, on another thread. */
struct later {
    void (*what)(uint32_t handle);
    uint32_t handle;
    pthread_t thread;
};

static void *run_later(void *argument) {
    struct later *later = argument;
    usleep(20000);
    later->what(later->handle);
    return NULL;
}

static void begin(struct later *later) {
    if ((errno = pthread_create(&later->thread, NULL, run_later, later)))
        die("pthread_create");
}

static void signal_it(uint32_t handle) { IS(syncobj_change(fd, IOC_SYNCOBJ_SIGNAL, &handle, 1), 0); }
static void signal_and_reset(uint32_t handle) {
    signal_it(handle);
    IS(syncobj_change(fd, IOC_SYNCOBJ_RESET, &handle, 1), 0);
}
static void add_point_9(uint32_t handle) { IS(syncobj_point(fd, handle, 9), 0); }

static void capabilities(void) {
    struct get_cap cap = {.capability = CAP_SYNCOBJ};
    IS(answer(fd, IOC_GET_CAP, &cap), 0);
    IS(cap.value, 1);
    cap = (struct get_cap){.capability = CAP_SYNCOBJ_TIMELINE};
    IS(answer(fd, IOC_GET_CAP, &cap), 0);
    IS(cap.value, 1);
}

static void handles(void) {
    struct syncobj_create create = {.flags = 2};
    IS(answer(fd, IOC_SYNCOBJ_CREATE, &create), EINVAL);
    uint32_t first = syncobj_new(fd, 0), second = syncobj_new(fd, CREATE_SIGNALED);
    IS(first, 1);
    IS(second, 2);
    IS(syncobj_drop(fd, first), 0);
    IS(syncobj_drop(fd, first), EINVAL);
    IS(syncobj_new(fd, 0), 1);
    struct syncobj_destroy padded = {.handle = first, .pad = 1};
    IS(answer(fd, IOC_SYNCOBJ_DESTROY, &padded), EINVAL);
    IS(syncobj_drop(fd, 0), EINVAL);
    IS(syncobj_drop(fd, first), 0);
    IS(syncobj_drop(fd, second), 0);
}

static void binary(void) {
    uint32_t one[2] = {syncobj_new(fd, 0), syncobj_new(fd, CREATE_SIGNALED)}, bad[2] = {one[0], 0xdeadbeef}, first;
    IS(syncobj_waits(fd, one, 0, 0, 0, NULL), 0);
    IS(syncobj_waits(fd, one, 1, 0, 0x10, NULL), EINVAL);
    IS(syncobj_waits(fd, one, 1, 0, WAIT_AVAILABLE, NULL), EINVAL);
    IS(syncobj_waits(fd, bad, 2, 0, 0, NULL), ENOENT);
    IS(syncobj_waits(fd, NULL, 1, 0, 0, NULL), EFAULT);
    IS(syncobj_waits(fd, one, 1, 0, 0, NULL), EINVAL);
    IS(syncobj_waits(fd, one, 1, 0, WAIT_FOR_SUBMIT, NULL), ETIME);
    IS(syncobj_waits(fd, one, 1, 1, WAIT_FOR_SUBMIT, NULL), ETIME);
    IS(syncobj_waits(fd, one, 1, -1, WAIT_FOR_SUBMIT, NULL), ETIME);
    IS(syncobj_waits(fd, one, 2, 0, WAIT_FOR_SUBMIT, &first), 0);
    IS(first, 1);
    IS(syncobj_waits(fd, one, 2, now_ns() + 10000000, WAIT_FOR_SUBMIT | WAIT_ALL, NULL), ETIME);
    IS(syncobj_waits(fd, one + 1, 1, INT64_MAX, WAIT_DEADLINE, &first), 0);
    IS(first, 0);

    struct later later = {.what = signal_it, .handle = one[0]};
    begin(&later);
    IS(syncobj_waits(fd, one, 2, now_ns() + WAIT_NS, WAIT_FOR_SUBMIT | WAIT_ALL, NULL), 0);
    pthread_join(later.thread, NULL);
    IS(syncobj_change(fd, IOC_SYNCOBJ_RESET, one, 2), 0);
    IS(syncobj_waits(fd, one + 1, 1, 0, 0, NULL), EINVAL);
    later.what = signal_and_reset;
    begin(&later);
    IS(syncobj_wait_one(fd, one[0], WAIT_FOR_SUBMIT), 0);
    pthread_join(later.thread, NULL);

    for (int n = 0; n < 2; n++) {
        unsigned long request = n ? IOC_SYNCOBJ_RESET : IOC_SYNCOBJ_SIGNAL;
        IS(syncobj_change(fd, request, one, 0), EINVAL);
        IS(syncobj_change(fd, request, bad, 2), ENOENT);
        IS(syncobj_change(fd, request, NULL, 1), EFAULT);
        struct syncobj_array padded = {.handles = AT(one), .count = 1, .pad = 1};
        IS(answer(fd, request, &padded), EINVAL);
    }
    IS(syncobj_drop(fd, one[0]), 0);
    IS(syncobj_drop(fd, one[1]), 0);
}

static void timelines(void) {
    uint32_t line = syncobj_new(fd, 0), bad = 0xdeadbeef;
    uint64_t three = 3, five = 5, nine = 9;
    IS(syncobj_query(fd, line, 0), 0);
    IS(syncobj_timeline_waits(fd, &line, &three, 0, 0, 0), 0);
    IS(syncobj_timeline_waits(fd, &line, &three, 1, 0, 0x20), EINVAL);
    IS(syncobj_timeline_waits(fd, &bad, &three, 1, 0, 0), ENOENT);
    IS(syncobj_timeline_waits(fd, &line, &three, 1, 0, 0), EINVAL);
    IS(syncobj_timeline_waits(fd, &line, (void *)8, 1, 0, 0), EFAULT);
    IS(syncobj_timeline_waits(fd, &line, &three, 1, 0, WAIT_AVAILABLE), ETIME);
    IS(syncobj_point(fd, line, three), 0);
    IS(syncobj_point(fd, line, five), 0);
    IS(syncobj_query(fd, line, 0), 5);
    IS(syncobj_query(fd, line, QUERY_LAST_SUBMITTED), 5);
    IS(syncobj_timeline_waits(fd, &line, &three, 1, 0, 0), 0);
    IS(syncobj_timeline_waits(fd, &line, NULL, 1, 0, 0), 0);
    IS(syncobj_timeline_waits(fd, &line, &nine, 1, 0, 0), EINVAL);
    IS(syncobj_timeline_waits(fd, &line, &nine, 1, 0, WAIT_FOR_SUBMIT), ETIME);
    struct later later = {.what = add_point_9, .handle = line};
    begin(&later);
    IS(syncobj_timeline_waits(fd, &line, &nine, 1, now_ns() + WAIT_NS, WAIT_FOR_SUBMIT), 0);
    pthread_join(later.thread, NULL);
    IS(syncobj_waits(fd, &line, 1, 0, 0, NULL), 0);

    struct syncobj_timeline_array array = {.handles = AT(&line), .points = AT(&five), .count = 1, .flags = 2};
    IS(answer(fd, IOC_SYNCOBJ_QUERY, &array), EINVAL);
    IS(answer(fd, IOC_SYNCOBJ_TIMELINE_SIGNAL, &array), EINVAL);
    array.flags = array.count = 0;
    IS(answer(fd, IOC_SYNCOBJ_QUERY, &array), EINVAL);
    IS(answer(fd, IOC_SYNCOBJ_TIMELINE_SIGNAL, &array), EINVAL);
    array.count = 1;
    array.points = 8;
    IS(answer(fd, IOC_SYNCOBJ_QUERY, &array), EFAULT);
    IS(answer(fd, IOC_SYNCOBJ_TIMELINE_SIGNAL, &array), EFAULT);
    array.handles = AT(&bad);
    IS(answer(fd, IOC_SYNCOBJ_QUERY, &array), ENOENT);
    IS(answer(fd, IOC_SYNCOBJ_TIMELINE_SIGNAL, &array), ENOENT);
    IS(syncobj_drop(fd, line), 0);
}

static int transfer(uint32_t src, uint64_t src_point, uint32_t dst, uint64_t dst_point, uint32_t flags) {
    struct syncobj_transfer transfer = {.src = src, .src_point = src_point, .dst = dst, .dst_point = dst_point, .flags = flags};
    return answer(fd, IOC_SYNCOBJ_TRANSFER, &transfer);
}

static void transfers(void) {
    uint32_t line = syncobj_new(fd, 0), plain = syncobj_new(fd, 0);
    IS(transfer(line, 0, plain, 0, 0), EINVAL);
    IS(transfer(line, 0, 77, 0, 0), ENOENT);
    IS(transfer(77, 0, plain, 0, 0), ENOENT);
    IS(transfer(line, 0, plain, 0, WAIT_ALL), EINVAL);
    struct syncobj_transfer padded = {.src = line, .dst = plain, .pad = 1};
    IS(answer(fd, IOC_SYNCOBJ_TRANSFER, &padded), EINVAL);
    IS(syncobj_point(fd, line, 4), 0);
    IS(transfer(line, 5, plain, 0, 0), EINVAL);
    IS(transfer(line, 4, plain, 0, 0), 0);
    IS(syncobj_waits(fd, &plain, 1, 0, 0, NULL), 0);
    IS(transfer(plain, 0, line, 6, 0), 0);
    IS(syncobj_query(fd, line, 0), 6);
    struct later later = {.what = add_point_9, .handle = line};
    begin(&later);
    IS(transfer(line, 9, plain, 12, WAIT_FOR_SUBMIT), 0);
    pthread_join(later.thread, NULL);
    IS(syncobj_query(fd, plain, 0), 12);
    IS(syncobj_drop(fd, line), 0);
    IS(syncobj_drop(fd, plain), 0);
}

static int to_fd(uint32_t handle, uint32_t flags, uint64_t point, int *descriptor) {
    struct syncobj_handle args = {.handle = handle, .flags = flags, .point = point, .fd = -1};
    int error = answer(fd, IOC_SYNCOBJ_HANDLE_TO_FD, &args);
    *descriptor = args.fd;
    return error;
}

static int from_fd(int descriptor, uint32_t flags, uint64_t point, uint32_t *handle) {
    struct syncobj_handle args = {.handle = *handle, .flags = flags, .point = point, .fd = descriptor};
    int error = answer(fd, IOC_SYNCOBJ_FD_TO_HANDLE, &args);
    *handle = args.handle;
    return error;
}

static void descriptors(void) {
    uint32_t own = syncobj_new(fd, 0), other = 0;
    int shared, copy, none;
    IS(to_fd(77, 0, 0, &none), EINVAL);
    IS(to_fd(own, 4, 0, &none), EINVAL);
    IS(to_fd(own, 0, 1, &none), EINVAL);
    struct syncobj_handle padded = {.handle = own, .pad = 1};
    IS(answer(fd, IOC_SYNCOBJ_HANDLE_TO_FD, &padded), EINVAL);
    IS(answer(fd, IOC_SYNCOBJ_FD_TO_HANDLE, &padded), EINVAL);
    IS(to_fd(own, 0, 0, &shared), 0);
    copy = dup(shared);
    close(shared);
    IS(from_fd(shared, 0, 0, &other), EINVAL);
    IS(from_fd(copy, 4, 0, &other), EINVAL);
    IS(from_fd(copy, FD_SYNC_FILE, 0, &own), EINVAL);
    IS(from_fd(0, 0, 0, &other), EINVAL);
    IS(from_fd(-1, 0, 0, &other), EINVAL);
    IS(from_fd(copy, 0, 0, &other), 0);
    close(copy);
    IS(other != own, 1);
    /* one syncobj with two names */
    signal_it(other);
    IS(syncobj_waits(fd, &own, 1, 0, 0, NULL), 0);
    struct syncobj_handle shorter = {.handle = own};
    IS(answer(fd, IOC_SYNCOBJ_HANDLE_TO_FD_SHORT, &shorter), 0);
    IS(answer(fd, IOC_SYNCOBJ_FD_TO_HANDLE_SHORT, &shorter), 0);
    close(shorter.fd);
    IS(syncobj_drop(fd, shorter.handle), 0);
    IS(syncobj_drop(fd, own), 0);
    IS(syncobj_waits(fd, &other, 1, 0, 0, NULL), 0);
    IS(syncobj_drop(fd, other), 0);
}

static void sync_files(void) {
    uint32_t own = syncobj_new(fd, 0), other = syncobj_new(fd, 0), bad = 77;
    int file;
    IS(to_fd(77, FD_SYNC_FILE, 0, &file), ENOENT);
    IS(to_fd(own, FD_SYNC_FILE, 0, &file), EINVAL);
    signal_it(own);
    IS(to_fd(own, FD_SYNC_FILE, 0, &file), 0);
    IS(is_readable(file), 1);
    struct sync_fence_info one = {0};
    struct sync_file_info info = {.num_fences = 1, .fences = AT(&one)};
    IS(answer(file, IOC_SYNC_FILE_INFO, &info), 0);
    IS(info.status + info.num_fences, 2);
    IS(one.status, 1);
    IS(one.timestamp != 0 && one.timestamp <= (uint64_t)now_ns(), 1);
    IS(strcmp(one.driver_name, "xe"), 0);
    info.flags = 1;
    IS(answer(file, IOC_SYNC_FILE_INFO, &info), EINVAL);
    info = (struct sync_file_info){.num_fences = 1, .fences = 8};
    IS(answer(file, IOC_SYNC_FILE_INFO, &info), EFAULT);
    struct sync_merge merge = {.fd2 = 0};
    IS(answer(file, IOC_SYNC_MERGE, &merge), ENOENT);
    merge = (struct sync_merge){.fd2 = file, .flags = 1};
    IS(answer(file, IOC_SYNC_MERGE, &merge), EINVAL);
    uint64_t deadline[2] = {1, 0};
    IS(answer(file, IOC_SYNC_SET_DEADLINE, deadline), 0);
    deadline[1] = 1;
    IS(answer(file, IOC_SYNC_SET_DEADLINE, deadline), EINVAL);
    IS(answer(file, 0xc0303e07u, &merge), ENOTTY);
    IS(answer(file, IOC_SYNCOBJ_DESTROY, &merge), ENOTTY);
    /* the fence stays what it was */
    IS(syncobj_change(fd, IOC_SYNCOBJ_RESET, &own, 1), 0);
    IS(from_fd(file, FD_SYNC_FILE, 0, &bad), ENOENT);
    IS(from_fd(file, 0, 0, &other), EINVAL);
    IS(from_fd(file, FD_SYNC_FILE, 0, &other), 0);
    IS(syncobj_waits(fd, &other, 1, 0, 0, NULL), 0);
    IS(from_fd(file, FD_SYNC_FILE | FD_TIMELINE, 4, &own), 0);
    close(file);
    IS(syncobj_query(fd, own, 0), 4);
    IS(to_fd(own, FD_SYNC_FILE | FD_TIMELINE, 5, &file), EINVAL);
    IS(to_fd(own, FD_SYNC_FILE | FD_TIMELINE, 4, &file), 0);
    IS(is_readable(file), 1);
    close(file);
    IS(syncobj_drop(fd, own), 0);
    IS(syncobj_drop(fd, other), 0);
}

static int watch(uint32_t handle, uint32_t flags, uint64_t point, int descriptor) {
    struct syncobj_eventfd args = {.handle = handle, .flags = flags, .point = point, .fd = descriptor};
    return answer(fd, IOC_SYNCOBJ_EVENTFD, &args);
}

static void eventfds(void) {
    uint32_t own = syncobj_new(fd, 0);
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), file = open("/dev/null", O_RDWR), shared;
    IS(watch(own, WAIT_ALL, 0, event), EINVAL);
    IS(watch(77, 0, 0, event), ENOENT);
    IS(watch(own, 0, 0, file), EINVAL);
    IS(watch(own, 0, 0, -1), EBADF);
    IS(to_fd(own, 0, 0, &shared), 0);
    IS(watch(own, 0, 0, shared), EINVAL);
    close(shared);
    struct syncobj_eventfd padded = {.handle = own, .fd = event, .pad = 1};
    IS(answer(fd, IOC_SYNCOBJ_EVENTFD, &padded), EINVAL);
    uint64_t count = 0;
    IS(watch(own, 0, 0, event), 0);
    IS(watch(own, WAIT_AVAILABLE, 7, event), 0);
    IS(is_readable(event), 0);
    IS(syncobj_point(fd, own, 6), 0);
    IS(read(event, &count, 8) == 8 && count == 1, 1);
    IS(syncobj_point(fd, own, 8), 0);
    IS(read(event, &count, 8) == 8 && count == 1, 1);
    IS(watch(own, 0, 8, event), 0);
    IS(read(event, &count, 8) == 8 && count == 1, 1);
    /* it is written although the program has closed its own descriptor */
    int copy = dup(event);
    IS(watch(own, 0, 9, event), 0);
    close(event);
    IS(syncobj_point(fd, own, 9), 0);
    IS(is_readable(copy), 1);
    close(copy);
    close(file);
    IS(syncobj_drop(fd, own), 0);
}

static volatile sig_atomic_t alarms;
static void on_alarm(int number) { alarms += number == SIGALRM; }

static void interruptions(void) {
    uint32_t own = syncobj_new(fd, 0);
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval soon = {.it_value.tv_usec = 20000};
    setitimer(ITIMER_REAL, &soon, NULL);
    /* like most programs, not by a call that starts anew */
    struct syncobj_wait wait = {.handles = AT(&own), .count = 1, .timeout = INT64_MAX, .flags = WAIT_FOR_SUBMIT};
    IS(ioctl(fd, IOC_SYNCOBJ_WAIT, &wait) == -1 ? errno : 0, EINTR);
    IS(alarms, 1);
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    wait.timeout = now_ns() + 60000000;
    IS(ioctl(fd, IOC_SYNCOBJ_WAIT, &wait) == -1 ? errno : 0, ETIME);
    IS(alarms, 2);
    IS(syncobj_drop(fd, own), 0);
}

int main(void) {
    fd = open("/dev/dri/renderD128", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        die("open /dev/dri/renderD128");
    capabilities();
    handles();
    binary();
    timelines();
    transfers();
    descriptors();
    sync_files();
    eventfds();
    interruptions();
    close(fd);
    return verdict("SYNCOBJ");
}
