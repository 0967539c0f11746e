/*
 * A table of argument checks: a line a call, what is wrong with it, and the errno that Linux' own driver gives, as its source has it
 * (0: it is right). Prints the lines that disagree.
 */
#include "syncobj.h"
#include "is.h"

/* a line overrides what is right with what is not */
#pragma GCC diagnostic ignored "-Woverride-init"

#define IOC_GET_UNIQUE 0xc0106401u
#define IOC_GET_MAGIC 0x80046402u
#define IOC_SET_VERSION 0xc0106407u
#define IOC_SET_CLIENT_CAP 0x4010640du
#define IOC_SET_MASTER 0x641eu
#define IOC_DROP_MASTER 0x641fu
#define IOC_MODE_GETRESOURCES 0xc04064a0u
#define IOC_SET_CLIENT_NAME 0xc01064d1u
#define IOC_OBSERVATION 0x4020644bu
#define IOC_EXEC_QUEUE_SET_PROPERTY 0x4028644eu
#define IOC_VM_GET_PROPERTY 0xc038644fu

struct ext { uint64_t next; uint32_t name, pad, property, pad2; uint64_t value, reserved[2]; };
SIZE_IS(ext, 48);
struct observation { uint64_t extensions, type, op, param; };
SIZE_IS(observation, 32);
struct vm_property { uint64_t extensions; uint32_t vm_id, property, size, pad; uint64_t data, reserved[3]; };
SIZE_IS(vm_property, 56);
struct set_version { int32_t di_major, di_minor, dd_major, dd_minor; };
SIZE_IS(set_version, 16);
struct client_name { uint64_t length, name; };
SIZE_IS(client_name, 16);

#define K64 0x10000ul
#define HERE 0x100000000000ul
#define NOWHERE 8
#define NO_NAME 777

static struct gpu gpu;
static int card, is_bmg;
static uint32_t cached, plain, vram, bare; /* BOs: WB and WC in system memory, in VRAM, WC without compression */
static uint32_t copies, binds;             /* queues */
static struct engine_instance copy = {CLASS_COPY, 0, 0, 0}, bind_engine = {5, 0, 0, 0}, render = {0, 0, 0, 0};

static void row(int line, const char *what, int fd, unsigned long request, void *argument, int want) {
    int got = answer(fd, request, argument);
    if (got != want) {
        printf("line %d: %s: %d (%s), not %d (%s)\n", line, what, got, strerror(got), want, strerror(want));
        failures++;
    }
}

#define ROW(want, fd, request, type, ...) row(__LINE__, #request, fd, request, &(struct type){__VA_ARGS__}, want)
#define QUERY(want, ...) ROW(want, gpu.fd, IOC_DEVICE_QUERY, device_query, __VA_ARGS__)
#define GEM(want, ...) ROW(want, gpu.fd, IOC_GEM_CREATE, gem_create, .size = K64, .placement = PLACE_SYSTEM, .cpu_caching = CACHING_WB, __VA_ARGS__)
#define OFFSET(want, ...) ROW(want, gpu.fd, IOC_GEM_MMAP_OFFSET, gem_mmap_offset, .handle = cached, __VA_ARGS__)
#define VM(want, ...) ROW(want, gpu.fd, IOC_VM_CREATE, vm_create, __VA_ARGS__)
#define FAULTS(want, ...) ROW(want, gpu.fd, IOC_VM_GET_PROPERTY, vm_property, .vm_id = gpu.vm, __VA_ARGS__)
#define BIND_WITH(want, with, ...)                                                                                                                   \
    ROW(want, gpu.fd, IOC_VM_BIND, vm_bind, .vm_id = gpu.vm, .num_binds = 1, .bind = {.pat_index = PAT_COHERENT, with, __VA_ARGS__})
#define MAP(want, ...) BIND_WITH(want, .range = K64, .addr = HERE, .op = BIND_MAP, .obj = plain, __VA_ARGS__)
#define ALL(want, ...) BIND_WITH(want, .op = BIND_UNMAP_ALL, .obj = plain, __VA_ARGS__)
#define UNMAP(want, ...) BIND_WITH(want, .range = K64, .addr = HERE, .op = BIND_UNMAP, __VA_ARGS__)
#define PREFETCH(want, ...) BIND_WITH(want, .range = K64, .addr = HERE, .op = BIND_PREFETCH, __VA_ARGS__)
#define QUEUE(want, ...)                                                                                                                             \
    ROW(want, gpu.fd, IOC_EXEC_QUEUE_CREATE, queue_create, .width = 1, .num_placements = 1, .vm_id = gpu.vm, .instances = AT(&copy), __VA_ARGS__)
#define SET(want, ...) QUEUE(want, .extensions = AT((&(struct ext){__VA_ARGS__})))
#define ENGINES(want, wide, many, ...) QUEUE(want, .width = wide, .num_placements = many, .instances = AT(((struct engine_instance[]){__VA_ARGS__})))
#define JOB(want, ...) ROW(want, gpu.fd, IOC_EXEC, exec, .exec_queue_id = copies, __VA_ARGS__)
#define WAIT(want, ...) ROW(want, gpu.fd, IOC_WAIT_USER_FENCE, wait_user_fence, .addr = AT(&word), .value = 1, .mask = ~0ul, __VA_ARGS__)
#define OBSERVE(want, ...) ROW(want, gpu.fd, IOC_OBSERVATION, observation, __VA_ARGS__)
#define NAME(want, text) ROW(want, gpu.fd, IOC_SET_CLIENT_NAME, client_name, sizeof(text) - 1, AT(text))

enum { DEFER = 1, SCANOUT = 2, VISIBLE = 4, NO_COMPRESSION = 8 };
enum { NULL_MAP = 1 << 2, DUMPABLE = 1 << 3, CHECK_PXP = 1 << 4, AUTORESET = 1 << 6, DECOMPRESS = 1 << 7 };
enum { PRIORITY = 0, TIMESLICE, PXP, REPLAY, GROUP, GROUP_PRIORITY, STATE_CACHE };

static void buffers(void) {
    GEM(0, .flags = DEFER);
    GEM(EINVAL, .size = 0);
    GEM(EINVAL, .size = 100);
    GEM(ENOSPC, .size = -1ul << 32);
    GEM(EINVAL, .placement = 0);
    GEM(EINVAL, .placement = 1u << 9);
    GEM(EINVAL, .flags = 16);
    GEM(EINVAL, .flags = VISIBLE);
    GEM(EINVAL, .flags = SCANOUT);
    GEM(0, .flags = SCANOUT, .cpu_caching = CACHING_WC);
    GEM(EINVAL, .cpu_caching = 0);
    GEM(EINVAL, .cpu_caching = 3);
    GEM(EINVAL, .placement = PLACE_VRAM0);
    GEM(is_bmg ? 0 : EINVAL, .placement = PLACE_VRAM0, .cpu_caching = CACHING_WC, .size = PAGE);
    GEM(EINVAL, .handle = 1);
    GEM(EINVAL, .pad = {0, 0, 1});
    GEM(EINVAL, .reserved = {1});
    GEM(ENOENT, .vm_id = NO_NAME);
    GEM(ENOENT, .vm_id = NO_NAME, .placement = PLACE_VRAM0, .cpu_caching = CACHING_WC, .size = PAGE);
    GEM(is_bmg ? 0 : EOPNOTSUPP, .flags = NO_COMPRESSION);
    GEM(EINVAL, .flags = NO_COMPRESSION, .size = 0);
    GEM(EFAULT, .extensions = NOWHERE);
    GEM(0, .extensions = AT((&(struct ext){.value = 0})));
    GEM(ENODEV, .extensions = AT((&(struct ext){.value = 1})));
    GEM(EINVAL, .extensions = AT((&(struct ext){.value = 7})));
    GEM(EINVAL, .extensions = AT((&(struct ext){.name = 5})));
    GEM(EINVAL, .extensions = AT((&(struct ext){.property = 1})));
    OFFSET(0, .flags = 0);
    OFFSET(EINVAL, .flags = 2);
    OFFSET(EINVAL, .flags = 1);
    OFFSET(0, .flags = 1, .handle = 0);
    OFFSET(ENOENT, .handle = NO_NAME);
    OFFSET(EINVAL, .extensions = 8);
    OFFSET(EINVAL, .reserved = {0, 1});
    ROW(EINVAL, gpu.fd, IOC_GEM_CLOSE, gem_close, NO_NAME, 0);
}

static void address_spaces(void) {
    VM(0, .flags = VM_LONG_RUNNING);
    VM(EINVAL, .flags = VM_FAULTING);
    VM(EINVAL, .flags = 16);
    VM(EINVAL, .flags = 8);
    VM(is_bmg ? 0 : EINVAL, .flags = VM_LONG_RUNNING | VM_FAULTING | 1);
    VM(EINVAL, .extensions = 8);
    VM(EINVAL, .reserved = {1});
    ROW(ENOENT, gpu.fd, IOC_VM_DESTROY, vm_destroy, .vm_id = NO_NAME);
    ROW(EINVAL, gpu.fd, IOC_VM_DESTROY, vm_destroy, .vm_id = gpu.vm, .pad = 1);
    FAULTS(0, .property = 0);
    FAULTS(EINVAL, .property = 1);
    FAULTS(EINVAL, .size = 1);
    FAULTS(EINVAL, .pad = 1);
    FAULTS(EINVAL, .extensions = 8);
    FAULTS(EINVAL, .reserved = {0, 0, 1});
    FAULTS(ENOENT, .vm_id = NO_NAME);
}

static void binding(void) {
    MAP(0, .flags = DUMPABLE | CHECK_PXP | BIND_READONLY | BIND_IMMEDIATE);
    MAP(EINVAL, .op = 5);
    MAP(EINVAL, .flags = 1 << 8);
    MAP(EINVAL, .obj = 0);
    MAP(ENOENT, .obj = NO_NAME);
    MAP(EINVAL, .range = 0);
    MAP(EINVAL, .range = 2 * K64);
    MAP(EINVAL, .obj_offset = K64);
    MAP(EINVAL, .obj_offset = 100);
    MAP(EINVAL, .addr = HERE + 1);
    MAP(EINVAL, .addr = 1ul << gpu.va_bits);
    MAP(EINVAL, .range = -PAGE, .addr = 1 << 20);
    MAP(EINVAL, .prefetch_region = 1);
    MAP(EINVAL, .flags = AUTORESET);
    MAP(EINVAL, .flags = NULL_MAP);
    MAP(0, .flags = NULL_MAP, .obj = 0);
    MAP(EINVAL, .flags = NULL_MAP | AUTORESET, .obj = 0);
    MAP(EINVAL, .flags = NULL_MAP, .obj = 0, .obj_offset = PAGE);
    MAP(is_bmg ? 0 : EINVAL, .obj = vram, .range = PAGE);
    MAP(EINVAL, .obj = cached, .pat_index = 0);
    MAP(0, .pat_index = 0);
    MAP(is_bmg ? 0 : EINVAL, .pat_index = 8);
    MAP(is_bmg ? 0 : EINVAL, .pat_index = 15);
    MAP(EINVAL, .pat_index = 16);
    MAP(EINVAL, .pat_index = 19);
    MAP(is_bmg ? 0 : EINVAL, .pat_index = 20);
    MAP(EINVAL, .pat_index = 28);
    MAP(is_bmg ? 0 : EOPNOTSUPP, .flags = DECOMPRESS);
    MAP(is_bmg ? 0 : EOPNOTSUPP, .flags = DECOMPRESS | NULL_MAP, .obj = 0);
    MAP(EINVAL, .flags = DECOMPRESS, .pat_index = 9);
    MAP(EINVAL, .flags = DECOMPRESS, .range = 0);
    MAP(EINVAL, .obj = bare, .pat_index = 9);
    ALL(0, .pat_index = 0);
    ALL(0, .flags = DUMPABLE | CHECK_PXP);
    ALL(EINVAL, .flags = DECOMPRESS);
    ALL(EINVAL, .obj = 0);
    ALL(EINVAL, .addr = HERE);
    ALL(EINVAL, .range = K64);
    ALL(ENOENT, .obj = NO_NAME);
    ALL(0, .obj = cached);
    ALL(EINVAL, .obj = cached, .pat_index = 0);
    ALL(0, .obj = cached, .obj_offset = K64);
    ALL(EINVAL, .obj = cached, .obj_offset = K64 + PAGE);
    ALL(is_bmg ? 0 : EINVAL, .obj = vram, .obj_offset = PAGE);
    ALL(EINVAL, .obj = bare, .pat_index = 9);
    ALL(EINVAL, .pat_index = 16);
    UNMAP(0, .flags = BIND_READONLY | BIND_IMMEDIATE | DUMPABLE | CHECK_PXP);
    UNMAP(EINVAL, .pat_index = 99);
    UNMAP(EINVAL, .obj = plain);
    UNMAP(EINVAL, .flags = DECOMPRESS);
    UNMAP(EINVAL, .flags = BIND_CPU_ADDR_MIRROR);
    MAP(0, .obj = plain);
    PREFETCH(0, .prefetch_region = 0);
    PREFETCH(0, .prefetch_region = -1u);
    PREFETCH(EINVAL, .prefetch_region = 1);
    PREFETCH(EINVAL, .prefetch_region = 9);
    PREFETCH(EINVAL, .prefetch_region = 64);
    PREFETCH(EINVAL, .obj = plain);
    MAP(0, .obj = vram);
    PREFETCH(EINVAL, .prefetch_region = 0);
    PREFETCH(0, .prefetch_region = 1, .flags = BIND_READONLY | BIND_IMMEDIATE | DUMPABLE);
    UNMAP(0, .flags = 0);
    ROW(EINVAL, gpu.fd, IOC_VM_BIND, vm_bind, .vm_id = NO_NAME);
    ROW(ENOENT, gpu.fd, IOC_VM_BIND, vm_bind, .vm_id = gpu.vm, .exec_queue_id = NO_NAME);
    ROW(EINVAL, gpu.fd, IOC_VM_BIND, vm_bind, .vm_id = gpu.vm, .exec_queue_id = copies);
    ROW(0, gpu.fd, IOC_VM_BIND, vm_bind, .vm_id = gpu.vm, .exec_queue_id = binds);
    ROW(EFAULT, gpu.fd, IOC_VM_BIND, vm_bind, .vm_id = gpu.vm, .num_binds = 2, .bind = {.extensions = NOWHERE});
    ROW(EINVAL, gpu.fd, IOC_VM_BIND, vm_bind, .vm_id = gpu.vm, .num_syncs = 1025);
    ROW(EINVAL, gpu.fd, IOC_VM_BIND, vm_bind, .vm_id = gpu.vm, .pad2 = 1);
}

static void queues(void) {
    QUEUE(0, .flags = 1);
    QUEUE(EINVAL, .flags = 2);
    QUEUE(EINVAL, .width = 0);
    QUEUE(EINVAL, .width = 9, .num_placements = 9);
    QUEUE(EINVAL, .reserved = {1});
    QUEUE(EFAULT, .instances = NOWHERE);
    QUEUE(ENOENT, .vm_id = NO_NAME);
    ENGINES(0, 1, 1, {CLASS_COPY, 0, 0, 3});
    ENGINES(0, 1, 2, copy, copy);
    ENGINES(EINVAL, 1, 1, {CLASS_COPY, 63, 0, 0});
    ENGINES(EINVAL, 1, 1, {CLASS_COPY, 0, 9, 0});
    ENGINES(EINVAL, 1, 1, {2, 0, 0, 0});
    ENGINES(EINVAL, 1, 1, {6, 0, 0, 0});
    ENGINES(is_bmg ? 0 : EINVAL, 1, 1, render);
    ENGINES(EINVAL, 1, 2, copy, {CLASS_COMPUTE, 0, 0, 0});
    ENGINES(EINVAL, 2, 1, copy, copy);
    ENGINES(is_bmg ? EINVAL : EOPNOTSUPP, 2, 1, copy, {CLASS_COPY, 1, 0, 0});
    ENGINES(0, 1, 1, bind_engine);
    ENGINES(0, 1, 1, {5, 0, 0, 1});
    ENGINES(EINVAL, 1, 1, {5, 1, 0, 0});
    ENGINES(EINVAL, 1, 1, {5, 0, 9, 0});
    ENGINES(EINVAL, 1, 2, bind_engine, bind_engine);
    ROW(ENOENT, gpu.fd, IOC_EXEC_QUEUE_DESTROY, queue_destroy, .exec_queue_id = NO_NAME);
    ROW(EINVAL, gpu.fd, IOC_EXEC_QUEUE_DESTROY, queue_destroy, .exec_queue_id = copies, .pad = 1);
    ROW(0, gpu.fd, IOC_EXEC_QUEUE_GET_PROPERTY, queue_property, .exec_queue_id = copies, .extensions = 8);
    ROW(EINVAL, gpu.fd, IOC_EXEC_QUEUE_GET_PROPERTY, queue_property, .exec_queue_id = copies, .property = 1);
    ROW(EINVAL, gpu.fd, IOC_EXEC_QUEUE_GET_PROPERTY, queue_property, .exec_queue_id = copies, .reserved = {1});
    ROW(ENOENT, gpu.fd, IOC_EXEC_QUEUE_GET_PROPERTY, queue_property, .exec_queue_id = NO_NAME);
    ROW(EINVAL, gpu.fd, IOC_EXEC_QUEUE_SET_PROPERTY, queue_property, .exec_queue_id = copies, .property = PRIORITY);
    ROW(EINVAL, gpu.fd, IOC_EXEC_QUEUE_SET_PROPERTY, queue_property, .exec_queue_id = copies, .property = GROUP_PRIORITY);
    ROW(EINVAL, gpu.fd, IOC_EXEC_QUEUE_SET_PROPERTY, queue_property, .exec_queue_id = copies, .property = GROUP_PRIORITY, .value = 3);
    ROW(EINVAL, gpu.fd, IOC_EXEC_QUEUE_SET_PROPERTY, queue_property, .exec_queue_id = NO_NAME, .property = GROUP_PRIORITY, .reserved = {1});
    ROW(ENOENT, gpu.fd, IOC_EXEC_QUEUE_SET_PROPERTY, queue_property, .exec_queue_id = NO_NAME, .property = GROUP_PRIORITY);
    JOB(0, .num_batch_buffer = 0);
    JOB(EINVAL, .num_batch_buffer = 2);
    JOB(EINVAL, .extensions = 8);
    JOB(EINVAL, .pad = {1});
    JOB(EINVAL, .reserved = {1});
    JOB(EINVAL, .num_syncs = 1025);
    JOB(EINVAL, .exec_queue_id = binds);
    JOB(ENOENT, .exec_queue_id = NO_NAME);
}

static void properties(void) {
    static char image[13 * PAGE];
    struct ext chain[17];
    SET(0, .property = PRIORITY, .value = 1);
    SET(EINVAL, .property = PRIORITY, .value = 3);
    SET(EINVAL, .property = PRIORITY, .value = 1, .pad = 1);
    SET(EINVAL, .property = PRIORITY, .value = 1, .pad2 = 1);
    SET(EINVAL, .property = PRIORITY, .value = 1, .name = 1);
    SET(EFAULT, .property = PRIORITY, .value = 1, .next = NOWHERE);
    SET(0, .property = PRIORITY, .value = 1, .reserved = {1, 1});
    SET(EINVAL, .property = TIMESLICE, .value = 0);
    SET(0, .property = TIMESLICE, .value = 1);
    SET(EINVAL, .property = TIMESLICE, .value = 10000001);
    SET(EINVAL, .property = TIMESLICE, .value = 1ul << 32 | 1000);
    SET(0, .property = PXP, .value = 0);
    SET(ENODEV, .property = PXP, .value = 1);
    SET(EINVAL, .property = PXP, .value = 5);
    SET(0, .property = REPLAY, .value = AT(image));
    SET(EFAULT, .property = REPLAY, .value = NOWHERE);
    SET(EINVAL, .property = REPLAY, .value = AT(image), .next = AT((&(struct ext){.property = REPLAY, .value = AT(image)})));
    SET(ENODEV, .property = GROUP, .value = 1ul << 63);
    SET(ENODEV, .property = GROUP, .value = 3);
    SET(EINVAL, .property = GROUP_PRIORITY, .value = 1);
    SET(EFAULT, .property = GROUP_PRIORITY, .value = 1, .next = NOWHERE);
    SET(EOPNOTSUPP, .property = STATE_CACHE, .value = 1);
    SET(EINVAL, .property = 7);
    if (is_bmg)
        QUEUE(0, .instances = AT(&render), .extensions = AT((&(struct ext){.property = STATE_CACHE, .value = 1})));
    QUEUE(EOPNOTSUPP, .instances = AT(&bind_engine), .extensions = AT((&(struct ext){.property = STATE_CACHE})));
    for (int i = 0; i < 17; i++)
        chain[i] = (struct ext){.next = AT(&chain[i + 1]), .property = PRIORITY, .value = 1};
    chain[16].next = 0;
    QUEUE(E2BIG, .extensions = AT(chain));
    QUEUE(0, .extensions = AT(chain + 1));
}

static void the_rest(void) {
    uint64_t word = 1;
    char room[64] = {0};
    WAIT(0, .timeout = -1);
    WAIT(ETIME, .value = 2, .timeout = 1000);
    WAIT(EFAULT, .addr = NOWHERE);
    WAIT(EINVAL, .addr = AT(&word) + 4);
    WAIT(EINVAL, .op = 6);
    WAIT(EINVAL, .flags = 2);
    WAIT(EINVAL, .pad = 1);
    WAIT(ENOENT, .exec_queue_id = NO_NAME);
    QUERY(0, .query = QUERY_CONFIG);
    QUERY(EINVAL, .query = QUERY_CONFIG, .size = 1);
    QUERY(EFAULT, .query = QUERY_CONFIG, .size = 48, .data = NOWHERE);
    QUERY(EINVAL, .query = 77);
    QUERY(EINVAL, .query = QUERY_CONFIG, .extensions = 8);
    QUERY(EINVAL, .query = QUERY_CONFIG, .reserved = {1});
    OBSERVE(EINVAL, .type = 2);
    OBSERVE(EINVAL, .type = 0, .op = 3);
    OBSERVE(EINVAL, .type = 1, .op = 1);
    OBSERVE(EINVAL, .extensions = 8);
    row(__LINE__, "an ioctl beyond the driver's", gpu.fd, 0xc0106490u, room, EINVAL);
    row(__LINE__, "a terminal's", gpu.fd, 0x5401, room, ENOTTY);
}

/* Whether fdinfo tells a line. */
static int is_told(const char *line) {
    char path[64], text[4096] = "";
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", gpu.fd);
    FILE *stream = fopen(path, "r");
    size_t length = stream ? fread(text, 1, sizeof text - 1, stream) : 0;
    if (stream)
        fclose(stream);
    return length > 0 && strstr(text, line);
}

static void core(void) {
    char room[64] = {0}, long_name[65];
    memset(long_name, 'x', sizeof long_name);
    for (uint64_t cap = 0; cap < 0x17; cap++)
        ROW(cap == 5 || cap == 6 || cap == 0x13 || cap == 0x14 ? 0 : EOPNOTSUPP, gpu.fd, IOC_GET_CAP, get_cap, .capability = cap);
    ROW(EOPNOTSUPP, card, IOC_SET_CLIENT_CAP, get_cap, .capability = 2, .value = 1);
    ROW(EACCES, gpu.fd, IOC_SET_CLIENT_CAP, get_cap, .capability = 2, .value = 1);
    NAME(0, "a-name");
    IS(is_told("\ndrm-client-name:\ta-name\n"), 1);
    NAME(EINVAL, "two words");
    NAME(EINVAL, "nul\0");
    ROW(0, gpu.fd, IOC_SET_CLIENT_NAME, client_name, 64, AT(long_name));
    ROW(EINVAL, gpu.fd, IOC_SET_CLIENT_NAME, client_name, 65, AT(long_name));
    ROW(EFAULT, gpu.fd, IOC_SET_CLIENT_NAME, client_name, 1, NOWHERE);
    NAME(0, "");
    IS(is_told("\ndrm-client-name:"), 0);
    row(__LINE__, "SET_MASTER, by the master", card, IOC_SET_MASTER, NULL, 0);
    ROW(0, card, IOC_SET_VERSION, set_version, 1, 4, -1, -1);
    ROW(EINVAL, card, IOC_SET_VERSION, set_version, 1, 5, -1, -1);
    ROW(EINVAL, card, IOC_SET_VERSION, set_version, -1, -1, 2, 0);
    row(__LINE__, "DROP_MASTER", card, IOC_DROP_MASTER, NULL, 0);
    row(__LINE__, "DROP_MASTER, by nobody", card, IOC_DROP_MASTER, NULL, EINVAL);
    ROW(EACCES, card, IOC_SET_VERSION, set_version, 1, 4, -1, -1);
    row(__LINE__, "SET_MASTER", card, IOC_SET_MASTER, NULL, 0);
    row(__LINE__, "GET_UNIQUE", card, IOC_GET_UNIQUE, room, 0);
    row(__LINE__, "GET_MAGIC", card, IOC_GET_MAGIC, room, 0);
    row(__LINE__, "MODE_GETRESOURCES", card, IOC_MODE_GETRESOURCES, room, EOPNOTSUPP);
    row(__LINE__, "an ioctl of old", card, 0xc0106403u, room, EINVAL);
    static const uint32_t primary[] = {
        IOC_SET_MASTER, IOC_DROP_MASTER, IOC_GET_UNIQUE, IOC_GET_MAGIC, IOC_SET_VERSION, IOC_MODE_GETRESOURCES, 0xc008640au, 0xc010640bu,
    };
    for (size_t i = 0; i < sizeof primary / sizeof *primary; i++)
        row(__LINE__, "the render node", gpu.fd, primary[i], room, EACCES);
}

static uint32_t bo(struct gem_create create) {
    create.size = K64;
    must_ioctl(gpu.fd, IOC_GEM_CREATE, &create, "GEM_CREATE");
    return create.handle;
}

int main(void) {
    gpu_open(&gpu);
    card = open("/dev/dri/card0", O_RDWR | O_CLOEXEC);
    is_bmg = gpu.va_bits == 48;
    cached = bo((struct gem_create){.placement = PLACE_SYSTEM, .cpu_caching = CACHING_WB});
    plain = bo((struct gem_create){.placement = PLACE_SYSTEM, .cpu_caching = CACHING_WC});
    vram = bo((struct gem_create){.placement = PLACE_VRAM0, .cpu_caching = CACHING_WC});
    bare = bo((struct gem_create){.placement = PLACE_SYSTEM, .cpu_caching = CACHING_WC, .flags = is_bmg ? NO_COMPRESSION : 0});
    copies = queue_open(&gpu, copy);
    binds = queue_open(&gpu, bind_engine);
    buffers();
    address_spaces();
    binding();
    queues();
    properties();
    the_rest();
    core();
    return failures > 0;
}
