/*
 * Jobs of a VM with dma-fences: what they wait for, what follows them, and how they end that do not end by themselves
 * (the job timeout, a reset of their GT, the end of their queue). A line for what is not as it should be; the last line is
 * `FENCES ok` or `FENCES BAD failures=<n>`. With `quick` no job runs into its timeout of five seconds. Exit status 0 or 1; 2 where a call failed that must not.
 */
#define _GNU_SOURCE
#include "is.h"
#include "syncobj.h"
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define MI_BATCH_BUFFER_START 0x18800101u /* address low, high */
#define BATCHES 0x200000ull               /* where the buffer lies for the GPU */
#define BATCH_BYTES 256
#define RESULTS 0x8000
#define BYTES 0x10000

struct device {
    int fd;
    uint32_t vm;
    volatile uint32_t *words;
    unsigned batches;
};

static struct sync waits(uint32_t handle) { return (struct sync){.type = SYNC_SYNCOBJ, .addr = handle}; }
static struct sync signals(uint32_t handle) { return (struct sync){.type = SYNC_SYNCOBJ, .flags = SYNC_SIGNAL, .addr = handle}; }
static struct sync at(struct sync sync, uint64_t point) {
    sync.type = SYNC_TIMELINE;
    sync.value = point;
    return sync;
}

static uint32_t vm_new(int fd, uint32_t flags) {
    struct vm_create vm = {.flags = flags};
    must_ioctl(fd, IOC_VM_CREATE, &vm, "VM_CREATE");
    return vm.vm_id;
}

/* A device of its own, with a buffer for batches and what they store. */
static struct device begin(void) {
    struct device device = {.fd = open("/dev/dri/renderD128", O_RDWR | O_CLOEXEC)};
    if (device.fd < 0)
        die("open /dev/dri/renderD128");
    device.vm = vm_new(device.fd, 0);
    struct gem_create create = {.size = BYTES, .placement = PLACE_SYSTEM, .cpu_caching = CACHING_WB};
    must_ioctl(device.fd, IOC_GEM_CREATE, &create, "GEM_CREATE");
    struct gem_mmap_offset offset = {.handle = create.handle};
    must_ioctl(device.fd, IOC_GEM_MMAP_OFFSET, &offset, "GEM_MMAP_OFFSET");
    device.words = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, device.fd, offset.offset);
    if (device.words == MAP_FAILED)
        die("mmap of the buffer");
    struct bind_op op = {.obj = create.handle, .pat_index = PAT_COHERENT, .range = BYTES, .addr = BATCHES, .op = BIND_MAP};
    struct vm_bind bind = {.vm_id = device.vm, .num_binds = 1, .bind = op};
    must_ioctl(device.fd, IOC_VM_BIND, &bind, "VM_BIND");
    return device;
}

static void end(struct device *device) {
    munmap((void *)device->words, BYTES);
    close(device->fd);
}

static uint32_t queue_new(struct device *device, uint32_t vm, unsigned tile) {
    struct engine_instance engine = {.class = CLASS_COPY, .gt_id = (uint16_t)tile};
    struct queue_create queue = {.width = 1, .num_placements = 1, .vm_id = vm, .instances = AT(&engine)};
    must_ioctl(device->fd, IOC_EXEC_QUEUE_CREATE, &queue, "EXEC_QUEUE_CREATE");
    return queue.exec_queue_id;
}

static int queue_drop(struct device *device, uint32_t queue) {
    struct queue_destroy destroy = {.exec_queue_id = queue};
    return answer(device->fd, IOC_EXEC_QUEUE_DESTROY, &destroy);
}

static int is_banned(struct device *device, uint32_t queue) {
    struct queue_property property = {.exec_queue_id = queue};
    must_ioctl(device->fd, IOC_EXEC_QUEUE_GET_PROPERTY, &property, "EXEC_QUEUE_GET_PROPERTY");
    return (int)property.value;
}

static uint64_t batch_new(struct device *device, volatile uint32_t **words) {
    unsigned number = device->batches++;
    *words = device->words + number * BATCH_BYTES / 4;
    return BATCHES + number * BATCH_BYTES;
}

/* Stores a value into a word of the results. */
static uint64_t store(struct device *device, unsigned word, uint32_t value) {
    volatile uint32_t *words;
    uint64_t address = batch_new(device, &words);
    words[0] = MI_STORE_DWORD;
    words[1] = (uint32_t)(BATCHES + RESULTS + 4 * word);
    words[2] = 0;
    words[3] = value;
    words[4] = MI_BATCH_BUFFER_END;
    return address;
}

static uint32_t result(struct device *device, unsigned word) { return device->words[RESULTS / 4 + word]; }

/* Runs until *stop is written. */
static uint64_t spin(struct device *device, volatile uint32_t **stop) {
    uint64_t address = batch_new(device, stop);
    (*stop)[1] = (uint32_t)address;
    (*stop)[2] = (uint32_t)(address >> 32);
    (*stop)[0] = MI_BATCH_BUFFER_START;
    return address;
}

static void stop_it(volatile uint32_t *stop) { *stop = MI_BATCH_BUFFER_END; }

static int exec(struct device *device, uint32_t queue, uint64_t batch, uint32_t count, const struct sync *syncs) {
    struct exec exec = {
        .exec_queue_id = queue, .num_syncs = count, .syncs = AT(syncs), .address = batch, .num_batch_buffer = batch != 0,
    };
    return ioctl(device->fd, IOC_EXEC, &exec) == 0 ? 0 : errno;
}

static int is_readable(int descriptor, int ms) {
    struct pollfd one = {.fd = descriptor, .events = POLLIN};
    return poll(&one, 1, ms) == 1 && one.revents == POLLIN;
}

/* A job waits for another on the other tile; points, sync files, eventfds and syncs without a batch follow. */
static void orders(void) {
    struct device device = begin();
    int fd = device.fd;
    uint32_t first = queue_new(&device, device.vm, 0), second = queue_new(&device, device.vm, 1);
    uint32_t go = syncobj_new(fd, 0), line = syncobj_new(fd, 0), last = syncobj_new(fd, 0);
    uint64_t seven = 7, nine = 9;
    volatile uint32_t *stop;
    struct sync one[] = {signals(go), at(signals(line), 3)};
    IS(exec(&device, first, spin(&device, &stop), 2, one), 0);
    struct sync two[] = {waits(go), at(waits(line), 3), at(signals(line), seven)};
    IS(exec(&device, second, store(&device, 0, 11), 3, two), 0);
    IS(exec(&device, second, store(&device, 1, result(&device, 0) + 22), 0, NULL), 0);
    struct sync three[] = {signals(last)};
    IS(exec(&device, second, 0, 1, three), 0);
    struct sync four[] = {waits(go), signals(last)};
    IS(exec(&device, second, 0, 2, four), EOPNOTSUPP);

    struct syncobj_handle file = {.handle = last, .flags = FD_SYNC_FILE};
    IS(answer(fd, IOC_SYNCOBJ_HANDLE_TO_FD, &file), 0);
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct syncobj_eventfd watch = {.handle = line, .point = seven, .fd = event};
    IS(answer(fd, IOC_SYNCOBJ_EVENTFD, &watch), 0);
    uint64_t count = 0;
    IS(syncobj_waits(fd, &go, 1, now_ns() + 20000000, 0, NULL), ETIME);
    IS(syncobj_timeline_waits(fd, &line, &seven, 1, 0, 0), ETIME);
    IS(syncobj_timeline_waits(fd, &line, &seven, 1, 0, WAIT_AVAILABLE), 0);
    IS(syncobj_timeline_waits(fd, &line, &nine, 1, 0, 0), EINVAL);
    IS(syncobj_query(fd, line, 0), 0);
    IS(syncobj_query(fd, line, QUERY_LAST_SUBMITTED), 7);
    IS(is_readable(file.fd, 0), 0);
    IS(is_readable(event, 0), 0);
    IS(result(&device, 0) + result(&device, 1), 0);

    uint32_t over = syncobj_new(fd, CREATE_SIGNALED);
    int done = sync_file(fd, over), merged = sync_merged(done, file.fd);
    IS(sync_status(done), 1);
    IS(sync_status(file.fd), 0);
    IS(sync_status(merged), 0);
    IS(is_readable(merged, 0), 0);

    stop_it(stop);
    IS(syncobj_wait_one(fd, last, 0), 0);
    IS(sync_status(file.fd), 1);
    IS(sync_status(merged), 1);
    IS(is_readable(merged, 10000), 1);
    close(merged);
    close(done);
    IS(result(&device, 0), 11);
    IS(result(&device, 1), 22);
    IS(syncobj_query(fd, line, 0), 7);
    IS(is_readable(file.fd, 10000), 1);
    IS(is_readable(event, 10000), 1);
    IS(read(event, &count, 8) == 8 && count == 1, 1);

    /* a fence that came by a sync file is waited for like any other */
    uint32_t other = syncobj_new(fd, 0);
    file.handle = other;
    IS(answer(fd, IOC_SYNCOBJ_FD_TO_HANDLE, &file), 0);
    struct sync five[] = {waits(other), signals(go)};
    IS(exec(&device, first, store(&device, 2, 33), 2, five), 0);
    IS(syncobj_wait_one(fd, go, 0), 0);
    IS(result(&device, 2), 33);
    close(file.fd);
    close(event);
    end(&device);
}

static void *stop_later(void *stop) {
    usleep(30000);
    stop_it(stop);
    return NULL;
}

/* Memory that a job uses stays until the job is done, whatever the program does to its mapping meanwhile. */
static void memory_stays(void) {
    for (int n = 0; n < 3; n++) {
        struct device device = begin();
        uint32_t queue = queue_new(&device, device.vm, 0), done = syncobj_new(device.fd, 0);
        char *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            die("mmap");
        struct bind_op op = {
            .obj_offset = AT(memory), .pat_index = PAT_COHERENT, .range = BYTES, .addr = 0x40000000, .op = BIND_MAP_USERPTR,
        };
        struct vm_bind bind = {.vm_id = device.vm, .num_binds = 1, .bind = op};
        must_ioctl(device.fd, IOC_VM_BIND, &bind, "VM_BIND of a userptr");
        volatile uint32_t *stop = (void *)memory;
        stop[1] = 0x40000000;
        stop[2] = 0;
        stop[0] = MI_BATCH_BUFFER_START;
        struct sync out = signals(done);
        IS(exec(&device, queue, 0x40000000, 1, &out), 0);
        IS(syncobj_waits(device.fd, &done, 1, 0, 0, NULL), ETIME);
        pthread_t thread;
        if ((errno = pthread_create(&thread, NULL, stop_later, memory)))
            die("pthread_create");
        if (n == 0)
            IS(mmap(memory, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == memory, 1);
        else if (n == 1)
            IS(madvise(memory, BYTES, MADV_DONTNEED), 0);
        else
            IS(munmap(memory, BYTES), 0);
        IS(syncobj_waits(device.fd, &done, 1, 0, 0, NULL), 0);
        IS(is_banned(&device, queue), 0);
        pthread_join(thread, NULL);
        if (n < 2)
            munmap(memory, BYTES);
        end(&device);
    }
}

/* A child, made while a job waits for another. */
static void forks(void) {
    struct device device = begin();
    uint32_t first = queue_new(&device, device.vm, 0), second = queue_new(&device, device.vm, 1);
    uint32_t go = syncobj_new(device.fd, 0), done = syncobj_new(device.fd, 0);
    volatile uint32_t *stop;
    struct sync one = signals(go), two[] = {waits(go), signals(done)};
    IS(exec(&device, first, spin(&device, &stop), 1, &one), 0);
    IS(exec(&device, second, store(&device, 0, 77), 2, two), 0);
    struct syncobj_handle file = {.handle = done, .flags = FD_SYNC_FILE};
    IS(answer(device.fd, IOC_SYNCOBJ_HANDLE_TO_FD, &file), 0);
    pid_t child = fork();
    if (child == 0) {
        /* a device of its own, without handles; what the parent's gave out is nothing there */
        uint32_t own = syncobj_new(device.fd, 0);
        file.handle = own;
        int error = answer(device.fd, IOC_SYNCOBJ_FD_TO_HANDLE, &file);
        close(file.fd);
        close(device.fd);
        _exit(own != 1 || error != EINVAL);
    }
    int status = -1;
    IS(waitpid(child, &status, 0), child);
    IS(status, 0);
    IS(is_readable(file.fd, 0), 0);
    stop_it(stop);
    IS(syncobj_wait_one(device.fd, done, 0), 0);
    IS(result(&device, 0), 77);
    IS(is_readable(file.fd, 10000), 1);
    close(file.fd);
    end(&device);
}

static void errors(void) {
    struct device device = begin();
    int fd = device.fd;
    uint32_t queue = queue_new(&device, device.vm, 0), empty = syncobj_new(fd, 0), over = syncobj_new(fd, CREATE_SIGNALED);
    uint32_t long_running = queue_new(&device, vm_new(fd, VM_LONG_RUNNING), 0);
    uint64_t batch = store(&device, 0, 1);
    struct { struct sync sync; int error; } cases[] = {
        {waits(empty), EINVAL},
        {waits(77), ENOENT},
        {signals(77), ENOENT},
        {at(waits(over), 0), EINVAL},
        {at(waits(over), 1), EINVAL},
        {at(signals(over), 0), EINVAL},
        {{.type = SYNC_SYNCOBJ, .addr = over, .flags = 2}, EINVAL},
        {{.type = SYNC_SYNCOBJ, .addr = over | 1ull << 32}, EINVAL},
        {{.type = SYNC_SYNCOBJ, .addr = over, .reserved = {1}}, EINVAL},
        {{.type = 9, .addr = over}, EINVAL},
        {{.type = SYNC_USER_FENCE, .addr = BATCHES}, EOPNOTSUPP},
        {{.type = SYNC_USER_FENCE, .flags = SYNC_SIGNAL, .addr = BATCHES + 4}, EINVAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int error = exec(&device, queue, batch, 1, &cases[i].sync);
        if (error != cases[i].error) {
            printf("sync %zu: errno %d, not %d\n", i, error, cases[i].error);
            failures++;
        }
    }
    struct sync user = {.type = SYNC_USER_FENCE, .flags = SYNC_SIGNAL, .addr = BATCHES + RESULTS + 64, .value = FENCE_VALUE};
    struct sync twice[] = {user, user};
    IS(exec(&device, queue, batch, 2, twice), EINVAL);
    IS(exec(&device, queue, batch, 1, NULL), EFAULT);
    struct sync signal = signals(over);
    IS(exec(&device, long_running, batch, 1, &signal), EOPNOTSUPP);
    IS(exec(&device, long_running, 0, 0, NULL), 0);
    /* the ring writes a user fence, and a syncobj follows */
    struct sync both[] = {waits(over), user, signals(empty)};
    IS(exec(&device, queue, batch, 3, both), 0);
    IS(syncobj_wait_one(fd, empty, 0), 0);
    IS(*(volatile uint64_t *)(device.words + (RESULTS + 64) / 4), FENCE_VALUE);
    IS(result(&device, 0), 1);
    end(&device);
}

static void reset(unsigned gt, const char *file, const char *order, int error) {
    char path[80];
    snprintf(path, sizeof path, "/sys/kernel/debug/dri/0/gt%u/%s", gt, file);
    int fd = open(path, O_WRONLY);
    IS(write(fd, order, strlen(order)) == (ssize_t)strlen(order) ? 0 : errno, error);
    close(fd);
}

static void resets(void) {
    for (int n = 0; n < 2; n++) {
        struct device device = begin();
        uint32_t here = queue_new(&device, device.vm, 0), there = queue_new(&device, device.vm, 1);
        uint32_t hung = syncobj_new(device.fd, 0), behind = syncobj_new(device.fd, 0), other = syncobj_new(device.fd, 0);
        volatile uint32_t *stop[2];
        struct sync out[] = {signals(hung), signals(behind), signals(other)};
        IS(exec(&device, here, spin(&device, &stop[0]), 1, out), 0);
        IS(exec(&device, here, store(&device, 0, 1), 1, out + 1), 0);
        IS(exec(&device, there, spin(&device, &stop[1]), 1, out + 2), 0);
        reset(0, "force_reset_sync", "0", 0);
        reset(0, "force_reset_sync", "maybe", EINVAL);
        IS(syncobj_waits(device.fd, &hung, 1, now_ns() + 20000000, 0, NULL), ETIME);
        reset(0, n ? "force_reset" : "force_reset_sync", "1", 0);
        IS(syncobj_wait_one(device.fd, hung, 0), 0);
        IS(syncobj_wait_one(device.fd, behind, 0), 0);
        int file = sync_file(device.fd, hung);
        IS(sync_status(file), -ECANCELED);
        close(file);
        IS(result(&device, 0), 0);
        IS(is_banned(&device, here), 1);
        IS(exec(&device, here, store(&device, 0, 1), 0, NULL), ECANCELED);
        IS(is_banned(&device, there), 0);
        IS(syncobj_waits(device.fd, &other, 1, 0, 0, NULL), ETIME);
        stop_it(stop[1]);
        IS(syncobj_wait_one(device.fd, other, 0), 0);
        uint32_t fresh = queue_new(&device, device.vm, 0), fine = syncobj_new(device.fd, 0);
        struct sync last = signals(fine);
        IS(exec(&device, fresh, store(&device, 0, 44), 1, &last), 0);
        IS(syncobj_wait_one(device.fd, fine, 0), 0);
        IS(result(&device, 0), 44);
        end(&device);
    }
}

static void ends(void) {
    struct device device = begin();
    uint32_t first = queue_new(&device, device.vm, 0), second = queue_new(&device, device.vm, 1), lost = queue_new(&device, device.vm, 0);
    uint32_t own = syncobj_new(device.fd, 0), after = syncobj_new(device.fd, 0), bad = syncobj_new(device.fd, 0);
    volatile uint32_t *stop;
    struct sync one = signals(own), two[] = {waits(own), signals(after)}, three = signals(bad);
    IS(exec(&device, first, spin(&device, &stop), 1, &one), 0);
    IS(exec(&device, second, store(&device, 0, 55), 2, two), 0);
    /* a fence that ends with an error lets who waited for it go on */
    IS(queue_drop(&device, first), 0);
    IS(syncobj_wait_one(device.fd, own, 0), 0);
    IS(syncobj_wait_one(device.fd, after, 0), 0);
    IS(result(&device, 0), 55);
    /* a batch that is not there */
    IS(exec(&device, lost, 0x40000000, 1, &three), 0);
    IS(syncobj_wait_one(device.fd, bad, 0), 0);
    IS(is_banned(&device, lost), 1);
    IS(exec(&device, lost, store(&device, 0, 1), 0, NULL), ECANCELED);
    /* the file is closed over a job that runs */
    IS(exec(&device, second, spin(&device, &stop), 0, NULL), 0);
    end(&device);
}

/* A job may have an engine for five seconds, unless its VM is long-running. */
static void timeouts(void) {
    struct device device = begin();
    uint32_t hangs = queue_new(&device, device.vm, 0), fine = queue_new(&device, device.vm, 1);
    uint32_t hung = syncobj_new(device.fd, 0), after = syncobj_new(device.fd, 0), other = syncobj_new(device.fd, 0);
    volatile uint32_t *stop;
    struct sync one = signals(hung), two = signals(after), three[] = {waits(hung), signals(other)};
    int64_t start = now_ns();
    IS(exec(&device, hangs, spin(&device, &stop), 1, &one), 0);
    IS(exec(&device, hangs, store(&device, 0, 1), 1, &two), 0);
    IS(exec(&device, fine, store(&device, 1, 66), 2, three), 0);
    IS(syncobj_wait_one(device.fd, hung, 0), 0);
    IS(now_ns() - start >= 5000000000, 1);
    IS(syncobj_wait_one(device.fd, after, 0), 0);
    IS(syncobj_wait_one(device.fd, other, 0), 0);
    int files[] = {sync_file(device.fd, hung), sync_file(device.fd, after), sync_file(device.fd, other)};
    IS(sync_status(files[0]), -ETIME);
    IS(sync_status(files[1]), -ECANCELED);
    IS(sync_status(files[2]), 1);
    for (int n = 0; n < 3; n++)
        close(files[n]);
    IS(result(&device, 0), 0);
    IS(result(&device, 1), 66);
    IS(is_banned(&device, hangs), 1);
    IS(is_banned(&device, fine), 0);
    end(&device);
}

int main(int argc, char **argv) {
    orders();
    memory_stays();
    forks();
    errors();
    resets();
    ends();
    if (argc < 2 || strcmp(argv[1], "quick"))
        timeouts();
    return verdict("FENCES");
}
