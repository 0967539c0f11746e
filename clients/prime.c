/*
 * Buffers from file to file and from process to process: PRIME, dma-bufs, FLINK; every ioctl, flag and errno. A line for
 * what is not as it should be; the last line is `PRIME ok` or `PRIME BAD failures=<n>`. Exit status 0 or 1; 2 where a call
 * failed that must not.
 */
#define _GNU_SOURCE
#include "is.h"
#include "prime.h"
#include <sys/mman.h>
#include <sys/wait.h>

#define BYTES (256ul << 10)
#define GPU 0x100000000000ull

static int open_node(const char *path) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        die(path);
    return fd;
}

static uint32_t make(int fd, uint32_t placement, uint32_t vm) {
    struct gem_create create = {.size = BYTES, .placement = placement, .vm_id = vm, .cpu_caching = CACHING_WC};
    must_ioctl(fd, IOC_GEM_CREATE, &create, "GEM_CREATE");
    return create.handle;
}

static int drop(int fd, uint32_t handle) {
    struct gem_close close = {.handle = handle};
    return answer(fd, IOC_GEM_CLOSE, &close);
}

static volatile uint32_t *map(int fd, uint32_t handle) {
    struct gem_mmap_offset offset = {.handle = handle};
    must_ioctl(fd, IOC_GEM_MMAP_OFFSET, &offset, "GEM_MMAP_OFFSET");
    void *at = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset.offset);
    if (at == MAP_FAILED)
        die("mmap of a buffer");
    return at;
}

/* The tile stores a word into a buffer, bound for the time of it. */
static void store(struct gpu *gpu, unsigned tile, uint32_t handle, unsigned word, uint32_t value) {
    struct bind_op op = {.obj = handle, .pat_index = PAT_COHERENT, .range = BYTES, .addr = GPU, .op = BIND_MAP};
    struct vm_bind bind = {.vm_id = gpu->vm, .num_binds = 1, .bind = op};
    must_ioctl(gpu->fd, IOC_VM_BIND, &bind, "VM_BIND");
    struct batch batch = {0};
    store32(&batch, (void *)(GPU + 4 * word), value);
    expect(!run(gpu, tile, &batch), "a store into a buffer");
    bind.bind = (struct bind_op){.range = BYTES, .addr = GPU, .op = BIND_UNMAP};
    must_ioctl(gpu->fd, IOC_VM_BIND, &bind, "unbind");
}

static void errors(int fd) {
    struct get_cap cap = {.capability = CAP_PRIME};
    IS(answer(fd, IOC_GET_CAP, &cap), 0);
    IS(cap.value, 3);
    int none, pipes[2], memory = memfd_create("pontoon-bo:1", MFD_CLOEXEC);
    uint32_t handle = make(fd, PLACE_VRAM0, 0), other;
    IS(prime_export(fd, handle, 4, &none), EINVAL);
    IS(prime_export(fd, 0xdeadbeef, 4, &none), EINVAL);
    IS(prime_export(fd, 0xdeadbeef, 0, &none), ENOENT);
    struct vm_create vm = {0};
    must_ioctl(fd, IOC_VM_CREATE, &vm, "VM_CREATE");
    uint32_t private = make(fd, PLACE_VRAM0, vm.vm_id);
    IS(prime_export(fd, private, 0, &none), EPERM);
    IS(prime_import(fd, -1, &other), EBADF);
    IS(prime_import(fd, 999, &other), EBADF);
    IS(prime_import(fd, fd, &other), EINVAL);
    if (pipe(pipes))
        die("pipe");
    IS(prime_import(fd, pipes[0], &other), EINVAL);
    /* a file of this name that anybody can cut is no dma-buf */
    IS(ftruncate(memory, BYTES), 0);
    IS(prime_import(fd, memory, &other), EINVAL);
    close(pipes[0]), close(pipes[1]), close(memory);
    IS(drop(fd, handle), 0);
    IS(drop(fd, private), 0);
}

static void handles(int one, int two) {
    uint32_t handle = make(one, PLACE_VRAM1, 0), again, far, more;
    int dma_buf, second;
    IS(prime_export(one, handle, PRIME_CLOEXEC | PRIME_RDWR, &dma_buf), 0);
    IS(fcntl(dma_buf, F_GETFD), FD_CLOEXEC);
    IS(prime_import(one, dma_buf, &again), 0);
    IS(again, handle);
    IS(prime_import(two, dma_buf, &far), 0);
    IS(prime_import(two, dma_buf, &again), 0);
    IS(again, far);
    /* what the importer exports is the same buffer */
    IS(prime_export(two, far, 0, &second), 0);
    IS(fcntl(second, F_GETFD), 0);
    IS(prime_import(one, second, &again), 0);
    IS(again, handle);
    volatile uint32_t *here = map(one, handle), *there = map(two, far);
    here[7] = 77;
    IS(there[7], 77);
    /* all handles go; a dup of the descriptor keeps the buffer */
    IS(close(second), 0);
    second = dup(dma_buf);
    IS(close(dma_buf), 0);
    IS(drop(one, handle), 0);
    IS(drop(two, far), 0);
    IS(drop(two, far), EINVAL);
    IS(prime_import(one, second, &again), 0);
    IS(prime_import(two, second, &more), 0);
    volatile uint32_t *third = map(two, more);
    IS(third[7], 77);
    IS(close(second), 0);
    third[8] = 88;
    IS(here[8], 88);
    IS(drop(one, again), 0);
    IS(drop(two, more), 0);
    munmap((void *)here, BYTES), munmap((void *)there, BYTES), munmap((void *)third, BYTES);
}

static void descriptor(int fd) {
    uint32_t handle = make(fd, PLACE_SYSTEM | PLACE_VRAM0, 0);
    volatile uint32_t *words = map(fd, handle);
    int reads, writes;
    IS(prime_export(fd, handle, PRIME_CLOEXEC, &reads), 0);
    IS(prime_export(fd, handle, PRIME_CLOEXEC | PRIME_RDWR, &writes), 0);
    IS(lseek(writes, 0, SEEK_END), BYTES);
    IS(lseek(writes, 0, SEEK_SET), 0);
    IS(lseek(writes, 0, SEEK_CUR) == -1 ? errno : 0, EINVAL);
    IS(lseek(writes, 1, SEEK_SET) == -1 ? errno : 0, EINVAL);
    IS(lseek(writes, -1, SEEK_END) == -1 ? errno : 0, EINVAL);
    IS(ftruncate(writes, 0) == -1, 1);
    IS(lseek(writes, 0, SEEK_END), BYTES);
    volatile uint32_t *by_fd = mmap(NULL, BYTES - PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, writes, PAGE);
    IS(by_fd == MAP_FAILED, 0);
    words[PAGE / 4 + 3] = 33;
    IS(by_fd[3], 33);
    by_fd[4] = 44;
    IS(words[PAGE / 4 + 4], 44);
    IS(mmap(NULL, BYTES, PROT_READ, MAP_SHARED, writes, PAGE) == MAP_FAILED ? errno : 0, EINVAL);
    IS(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, writes, 0) == MAP_FAILED ? errno : 0, EINVAL);
    IS(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, reads, 0) == MAP_FAILED ? errno : 0, EACCES);
    volatile uint32_t *seen = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, reads, 0);
    IS(seen[PAGE / 4 + 4], 44);
    munmap((void *)by_fd, BYTES - PAGE), munmap((void *)seen, BYTES), munmap((void *)words, BYTES);

    IS(dma_buf_sync(writes, DMA_BUF_READ), 0);
    IS(dma_buf_sync(writes, DMA_BUF_WRITE | DMA_BUF_END), 0);
    IS(dma_buf_sync(writes, DMA_BUF_READ | DMA_BUF_WRITE | DMA_BUF_END), 0);
    IS(dma_buf_sync(writes, 0), EINVAL);
    IS(dma_buf_sync(writes, DMA_BUF_END), EINVAL);
    IS(dma_buf_sync(writes, DMA_BUF_READ | 8), EINVAL);
    IS(answer(writes, IOC_DMA_BUF_SYNC, (void *)8), EFAULT);
    char name[33] = "a name";
    IS(answer(writes, IOC_DMA_BUF_SET_NAME, name), 0);
    IS(answer(writes, IOC_DMA_BUF_SET_NAME_SHORT, name), 0);
    memset(name, 'x', 32);
    IS(answer(writes, IOC_DMA_BUF_SET_NAME, name), EINVAL);
    name[31] = 0;
    IS(answer(writes, IOC_DMA_BUF_SET_NAME, name), 0);
    IS(answer(writes, IOC_DMA_BUF_SET_NAME, (void *)8), EFAULT);
    IS(answer(writes, 0x40086209u, name), ENOTTY);
    IS(answer(writes, IOC_SYNC_FILE_INFO, name), ENOTTY);
    close(reads), close(writes);
    IS(drop(fd, handle), 0);
}

/* Readers wait for writers, writers for all. */
static void fences(int fd) {
    uint32_t handle = make(fd, PLACE_SYSTEM, 0), never = syncobj_new(fd, 0), got = syncobj_new(fd, 0);
    int dma_buf;
    IS(prime_export(fd, handle, PRIME_CLOEXEC, &dma_buf), 0);
    struct dma_buf_sync_file out = {.flags = DMA_BUF_READ | DMA_BUF_WRITE};
    IS(answer(dma_buf, IOC_DMA_BUF_EXPORT_SYNC_FILE, &out), 0);
    IS(syncobj_import(fd, got, out.fd), 0);
    IS(syncobj_waits(fd, &got, 1, 0, 0, NULL), 0);
    close(out.fd);
    out = (struct dma_buf_sync_file){.flags = 0};
    IS(answer(dma_buf, IOC_DMA_BUF_EXPORT_SYNC_FILE, &out), EINVAL);
    out.flags = DMA_BUF_READ | DMA_BUF_END;
    IS(answer(dma_buf, IOC_DMA_BUF_EXPORT_SYNC_FILE, &out), EINVAL);
    IS(answer(dma_buf, IOC_DMA_BUF_IMPORT_SYNC_FILE, &out), EINVAL);
    struct dma_buf_sync_file in = {.flags = DMA_BUF_WRITE, .fd = -1};
    IS(answer(dma_buf, IOC_DMA_BUF_IMPORT_SYNC_FILE, &in), EINVAL);
    in.fd = dma_buf;
    IS(answer(dma_buf, IOC_DMA_BUF_IMPORT_SYNC_FILE, &in), EINVAL);
    /* a fence that is over is in nobody's way */
    syncobj_change(fd, IOC_SYNCOBJ_SIGNAL, &never, 1);
    in.fd = sync_file(fd, never);
    IS(answer(dma_buf, IOC_DMA_BUF_IMPORT_SYNC_FILE, &in), 0);
    out.flags = DMA_BUF_READ;
    IS(answer(dma_buf, IOC_DMA_BUF_EXPORT_SYNC_FILE, &out), 0);
    IS(syncobj_import(fd, got, out.fd), 0);
    IS(syncobj_waits(fd, &got, 1, 0, 0, NULL), 0);
    close(in.fd), close(out.fd), close(dma_buf);
    IS(drop(fd, handle), 0);
}

static void names(int render) {
    int card = open_node("/dev/dri/card0"), other = open_node("/dev/dri/card0");
    uint32_t handle = make(card, PLACE_VRAM0, 0), hidden = make(render, PLACE_VRAM0, 0);
    struct gem_flink flink = {.handle = handle}, again = flink, wrong = {.handle = 77};
    IS(answer(card, IOC_GEM_FLINK, &flink), 0);
    IS(answer(card, IOC_GEM_FLINK, &again), 0);
    IS(again.name, flink.name);
    IS(answer(card, IOC_GEM_FLINK, &wrong), ENOENT);
    wrong.handle = hidden;
    IS(answer(render, IOC_GEM_FLINK, &wrong), EACCES);
    struct gem_open open_it = {.name = flink.name}, twice = open_it, refused = open_it, bad = {.name = 0x7777};
    IS(answer(render, IOC_GEM_OPEN, &refused), EACCES);
    IS(answer(other, IOC_GEM_OPEN, &bad), ENOENT);
    IS(answer(other, IOC_GEM_OPEN, &open_it), 0);
    IS(open_it.size, BYTES);
    IS(answer(other, IOC_GEM_OPEN, &twice), 0);
    IS(twice.handle == open_it.handle, 0);
    volatile uint32_t *here = map(card, handle), *there = map(other, open_it.handle);
    here[5] = 55;
    IS(there[5], 55);
    /* an import finds the handle that was exported */
    int dma_buf;
    uint32_t found;
    IS(prime_export(other, twice.handle, PRIME_CLOEXEC, &dma_buf), 0);
    IS(prime_import(other, dma_buf, &found), 0);
    IS(found, twice.handle);
    IS(drop(card, handle), 0);
    IS(drop(other, open_it.handle), 0);
    IS(drop(other, twice.handle), 0);
    /* the name went with the last handle */
    IS(answer(other, IOC_GEM_OPEN, &open_it), ENOENT);
    munmap((void *)here, BYTES), munmap((void *)there, BYTES);
    close(dma_buf), close(card), close(other);
    IS(drop(render, hidden), 0);
}

/* What another process does with a descriptor that came by a socket: it has a device of its own. */
static int receiver(int socket) {
    failures = 0;
    int dma_buf = receive_fd(socket);
    IS(lseek(dma_buf, 0, SEEK_END), BYTES);
    IS(dma_buf_sync(dma_buf, DMA_BUF_READ), 0);
    IS(dma_buf_sync(dma_buf, 0), EINVAL);
    volatile uint32_t *by_fd = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, dma_buf, 0);
    IS(by_fd[1], 11);
    struct gpu gpu;
    gpu_open(&gpu);
    uint32_t handle, again;
    IS(prime_import(gpu.fd, dma_buf, &handle), 0);
    IS(prime_import(gpu.fd, dma_buf, &again), 0);
    IS(again, handle);
    store(&gpu, 0, handle, 2, 22);
    store(&gpu, 1, handle, 3, 33);
    volatile uint32_t *mapped = map(gpu.fd, handle);
    IS(mapped[2], 22);
    IS(by_fd[3], 33);
    /* back by a descriptor of this process */
    int back;
    IS(prime_export(gpu.fd, handle, PRIME_CLOEXEC | PRIME_RDWR, &back), 0);
    send_fd(socket, back);
    char byte;
    IS(read(socket, &byte, 1), 1);
    IS(by_fd[4], 44);
    gpu_close(&gpu);
    return failures;
}

static void processes(struct gpu *gpu) {
    int sockets[2], dma_buf, status;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
        die("socketpair");
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0)
        exit(receiver(sockets[1]));
    uint32_t handle = make(gpu->fd, PLACE_VRAM1, 0), again;
    store(gpu, 0, handle, 1, 11);
    IS(prime_export(gpu->fd, handle, PRIME_CLOEXEC | PRIME_RDWR, &dma_buf), 0);
    send_fd(sockets[0], dma_buf);
    int back = receive_fd(sockets[0]);
    volatile uint32_t *words = map(gpu->fd, handle);
    IS(words[2], 22);
    IS(words[3], 33);
    /* another descriptor of the same bytes: the same buffer */
    IS(prime_import(gpu->fd, back, &again), 0);
    IS(again, handle);
    store(gpu, 1, handle, 4, 44);
    IS(write(sockets[0], "x", 1), 1);
    IS(waitpid(child, &status, 0), child);
    IS(status, 0);
    munmap((void *)words, BYTES);
    close(dma_buf), close(back), close(sockets[0]), close(sockets[1]);
    IS(drop(gpu->fd, handle), 0);
}

/* A child uses the descriptors that its parent had open. */
static void inherited(struct gpu *gpu) {
    uint32_t handle = make(gpu->fd, PLACE_VRAM0, 0), its;
    int dma_buf, status;
    store(gpu, 1, handle, 6, 66);
    IS(prime_export(gpu->fd, handle, PRIME_CLOEXEC | PRIME_RDWR, &dma_buf), 0);
    volatile uint32_t *words = map(gpu->fd, handle);
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        failures = 0;
        IS(dma_buf_sync(dma_buf, DMA_BUF_WRITE), 0);
        IS(lseek(dma_buf, 0, SEEK_END), BYTES);
        IS(prime_import(gpu->fd, dma_buf, &its), 0);
        volatile uint32_t *mapped = map(gpu->fd, its);
        IS(mapped[6], 66);
        mapped[6] = 67;
        exit(failures);
    }
    IS(waitpid(child, &status, 0), child);
    IS(status, 0);
    IS(words[6], 67);
    munmap((void *)words, BYTES);
    close(dma_buf);
    IS(drop(gpu->fd, handle), 0);
}

int main(void) {
    struct gpu gpu;
    gpu_open(&gpu);
    int other = open_node("/dev/dri/renderD128");
    errors(gpu.fd);
    handles(gpu.fd, other);
    descriptor(gpu.fd);
    fences(gpu.fd);
    names(other);
    processes(&gpu);
    inherited(&gpu);
    close(other);
    gpu_close(&gpu);
    return verdict("PRIME");
}
