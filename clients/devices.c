/*
 * Several devices over one memory: what programs are told of them, threads of all tiles of all devices and of the CPU that add
 * to the same words, a location on another device, and a buffer that goes from device to device. Arguments: rounds, blocks of 64K to
 * add to, and `strangers` where the devices do not reach each other's VRAM. A line
 * for each device and for what is not as it should be; the last line is `DEVICES ok` or `DEVICES BAD failures=<n>`. Exit
 * status 0 or 1; 2 where a call failed that must not.
 */
#define _GNU_SOURCE
#include "is.h"
#include "prime.h"
#include <dirent.h>
#include <limits.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define MAX_DEVICES 4
#define BLOCK (64ul << 10)
#define WORDS (BLOCK / PAGE)
#define CPUS 3
#define GPU_AT 0x100000000000ull
enum { ATOMIC_DEVICE = 1 };

static struct gpu gpus[MAX_DEVICES];
static unsigned devices;
static unsigned rounds = 50, blocks = 4;
static int strangers;
static char *shared;

/* The slot on the PCI bus, as sysfs has it for a node. */
static void slot_of(unsigned device, char slot[16]) {
    char path[64], target[256];
    snprintf(path, sizeof path, "/sys/class/drm/card%u/device", device);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0)
        die(path);
    target[length] = 0;
    snprintf(slot, 16, "%s", strrchr(target, '/') + 1);
}

/* Every device is found by directory, by slot and by number. */
static void enumerate(void) {
    DIR *dri = opendir("/dev/dri");
    if (!dri)
        die("/dev/dri");
    unsigned cards = 0, renders = 0;
    for (struct dirent *entry; (entry = readdir(dri));) {
        cards += !strncmp(entry->d_name, "card", 4);
        renders += !strncmp(entry->d_name, "renderD", 7);
    }
    closedir(dri);
    devices = cards < MAX_DEVICES ? cards : MAX_DEVICES;
    IS(renders, cards);
    char slots[MAX_DEVICES][16];
    for (unsigned device = 0; device < devices; device++) {
        char node[64], path[96], real[PATH_MAX];
        snprintf(node, sizeof node, "/dev/dri/renderD%u", 128 + device);
        gpu_open_node(&gpus[device], node);
        slot_of(device, slots[device]);
        printf("%s %s tiles %u\n", node, slots[device], gpus[device].tiles);
        snprintf(path, sizeof path, "/dev/dri/by-path/pci-%s-render", slots[device]);
        expect(realpath(path, real) && !strcmp(real, node), "a node by its slot");
        struct stat stat;
        expect(!fstat(gpus[device].fd, &stat) && minor(stat.st_rdev) == 128 + device, "the number of a node");
        for (unsigned other = 0; other < device; other++)
            expect(strcmp(slots[device], slots[other]), "a slot of its own");
    }
}

struct hand { pthread_t thread; unsigned device, tile; };

static uint32_t *word(unsigned n) { return (uint32_t *)(shared + n * PAGE); }

/* A tile adds one to each word, round after round: each time all of it must be in that tile's own VRAM. */
static void *add_by_tile(void *argument) {
    struct hand *hand = argument;
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned block = 0; block < blocks; block++) {
            struct batch batch = {0};
            for (unsigned n = 0; n < WORDS; n++)
                atomic_inc32(&batch, word(block * WORDS + n));
            int error = run(&gpus[hand->device], hand->tile, &batch);
            if (error) {
                errno = error;
                die("a job of atomics");
            }
        }
    }
    return NULL;
}

static void *add_by_cpu(void *none) {
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned n = 0; n < blocks * WORDS; n++)
            __atomic_fetch_add(word(n), 1, __ATOMIC_SEQ_CST);
    return none;
}

static void add_together(void) {
    shared = mmap(NULL, (blocks + 1) * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        die("mmap");
    shared = (char *)(((uintptr_t)shared + BLOCK - 1) & -BLOCK);
    memset(shared, 0, blocks * BLOCK);
    struct hand hands[MAX_DEVICES * MAX_TILES];
    unsigned count = 0;
    for (unsigned device = 0; device < devices; device++)
        for (unsigned tile = 0; tile < gpus[device].tiles; tile++) {
            hands[count] = (struct hand){.device = device, .tile = tile};
            expect(!pthread_create(&hands[count].thread, NULL, add_by_tile, &hands[count]), "a thread");
            count++;
        }
    pthread_t cpus[CPUS];
    for (unsigned n = 0; n < CPUS; n++)
        expect(!pthread_create(&cpus[n], NULL, add_by_cpu, NULL), "a thread");
    for (unsigned n = 0; n < count; n++)
        pthread_join(hands[n].thread, NULL);
    for (unsigned n = 0; n < CPUS; n++)
        pthread_join(cpus[n], NULL);
    for (unsigned n = 0; n < blocks * WORDS; n++)
        IS(*word(n), (count + CPUS) * rounds);
}

/* A word in each page of the block, by a tile that need not have them in its own VRAM. */
static void store_each(struct gpu *gpu, uint32_t value) {
    struct batch batch = {0};
    for (unsigned n = 0; n < WORDS; n++)
        store32(&batch, word(n), value + n);
    IS(run(gpu, 0, &batch), 0);
}

/* Atomics on pages that lie in another device's VRAM, by advice: no bus carries them, so the pages come to who does them. */
static void atomics_elsewhere(void) {
    struct madvise args = {
        .start = (uintptr_t)shared, .range = BLOCK, .vm_id = gpus[0].vm, .attr = ATOMIC, .value = ATOMIC_DEVICE,
    };
    IS(answer(gpus[0].fd, IOC_MADVISE, &args), 0);
    for (uint32_t value = 4000; value < 6000; value += 1000) {
        store_each(&gpus[1], value);
        store_each(&gpus[0], value + 100);
        struct batch batch = {0};
        for (unsigned n = 0; n < WORDS; n++)
            atomic_inc32(&batch, word(n));
        IS(run(&gpus[0], 0, &batch), 0);
        for (unsigned n = 0; n < WORDS; n++)
            IS(*word(n), value + 101 + n);
    }
}

/* Advice that names another device: pages go to its VRAM, and this one stores there, if it reaches it. */
static void advise_elsewhere(void) {
    struct madvise args = {
        .start = (uintptr_t)shared, .range = BLOCK, .vm_id = gpus[0].vm, .attr = PREFERRED_LOC, .value = gpus[1].fd, .region = 1,
    };
    IS(answer(gpus[0].fd, IOC_MADVISE, &args), strangers ? ENOLINK : 0);
    for (uint32_t value = 0; value < 3000; value += 1000) {
        store_each(&gpus[0], value);
        for (unsigned n = 0; n < WORDS; n++)
            IS(*word(n), value + n);
        store_each(&gpus[1], value + 500);
        store_each(&gpus[0], value + 600);
    }
    atomics_elsewhere();
    args.region = 9;
    IS(answer(gpus[0].fd, IOC_MADVISE, &args), ENOENT);
    args.value = gpus[0].fd;
    args.region = 1;
    IS(answer(gpus[0].fd, IOC_MADVISE, &args), 0);
}

/* A buffer of the first device, seen by the last: a tile of that stores a word, and the CPU finds it. */
static void share_a_buffer(void) {
    struct gpu *from = &gpus[0], *to = &gpus[devices - 1];
    struct gem_create create = {.size = BLOCK, .placement = PLACE_SYSTEM | PLACE_VRAM0, .cpu_caching = CACHING_WC};
    must_ioctl(from->fd, IOC_GEM_CREATE, &create, "GEM_CREATE");
    struct gem_mmap_offset offset = {.handle = create.handle};
    must_ioctl(from->fd, IOC_GEM_MMAP_OFFSET, &offset, "GEM_MMAP_OFFSET");
    volatile uint32_t *bytes = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, from->fd, offset.offset);
    if (bytes == MAP_FAILED)
        die("mmap of a buffer");
    int dma_buf;
    uint32_t handle;
    IS(prime_export(from->fd, create.handle, PRIME_RDWR, &dma_buf), 0);
    IS(prime_import(to->fd, dma_buf, &handle), 0);
    gpu_bind(to, (struct bind_op){.obj = handle, .range = BLOCK, .addr = GPU_AT, .op = BIND_MAP});
    struct batch batch = {0};
    store32(&batch, (void *)(GPU_AT + 64), 0xc0ffee);
    IS(run(to, 0, &batch), 0);
    IS(bytes[16], 0xc0ffee);
    gpu_bind(to, (struct bind_op){.range = BLOCK, .addr = GPU_AT, .op = BIND_UNMAP});
    gpu_mirror(to);
    struct gem_close close_from = {.handle = create.handle}, close_to = {.handle = handle};
    IS(answer(from->fd, IOC_GEM_CLOSE, &close_from), 0);
    IS(answer(to->fd, IOC_GEM_CLOSE, &close_to), 0);
    munmap((void *)bytes, BLOCK);
    close(dma_buf);
}

int main(int argc, char **argv) {
    if (argc > 1)
        rounds = atoi(argv[1]);
    if (argc > 2)
        blocks = atoi(argv[2]);
    strangers = argc > 3 && !strcmp(argv[3], "strangers");
    enumerate();
    add_together();
    if (devices > 1) {
        advise_elsewhere();
        share_a_buffer();
    }
    for (unsigned device = 0; device < devices; device++)
        gpu_close(&gpus[device]);
    printf(failures ? "DEVICES BAD failures=%d\n" : "DEVICES ok\n", failures);
    return failures != 0;
}
