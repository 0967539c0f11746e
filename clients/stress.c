/*
 * Stress: three CPU threads and two queues on each of two tiles add to the same pages and rewrite words of their own in them,
 * in memory that is mirrored and in buffer objects, while another thread changes the mappings beside and forks.
 *
 *     stress [-a] [-p PROCESSES] SECONDS       or      stress [-a] [-p PROCESSES] -l LOOPS
 *
 * It touches twice the VRAM there is: give it little, `pontoon run --vram 16M -- stress 60`. With LOOPS each queue runs so
 * many batches, however long that takes. Where there are two devices, each has a queue on each of its tiles, both over the same
 * memory; buffers are the first one's, and the second one stores into those that it can import. With -a a buffer may be in any tile's
 * VRAM, for devices whose tiles reach none but their own. With several PROCESSES each does all of this in memory of its own, and they have the
 * devices' VRAM together. In both cases they touch three times the VRAM there is. Each page has a counter that all add to, a word for each actor, and words that
 * nobody changes. In the end every counter is the sum of what was added, every own word the last that was written.
 *
 * CPU threads do not add to counters of buffer objects: an atomic of the CPU and one of a device are none together there.
 *
 *     cc -O1 -Wall -Wextra -Werror clients/stress.c -o stress -lpthread
 */
#define _GNU_SOURCE
#include "gpu.h"
#include "prime.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#define MB (1ul << 20)
#define CHUNK (2 * MB)
#define NEIGHBOUR (256ul << 10) /* the end of each chunk is the mapper's */
enum { CPUS = 3, QUEUES = 2 * TILES, ACTORS = CPUS + QUEUES, BUFFERS = 6, OPERATIONS = 8, FORK_EVERY = 16, MAX_PROCESSES = 8 };
#define SECOND_NODE "/dev/dri/renderD129"
enum { COUNTER = 0, OWN = 1, FIXED = OWN + ACTORS, WORDS = PAGE / 4 };

struct page {
    _Atomic uint32_t *cpu;
    uint64_t gpu;
};

/* What an actor knows of a page. */
struct mark {
    uint32_t added, own;
};

static struct gpu gpus[QUEUES / TILES];
static struct page *pages;
static size_t page_count, mirrored, imported; /* the first ones are mirrored; the second device reaches so many */
static struct mark *marks[ACTORS];
static char *chunks;
static size_t chunk_count;
static unsigned tiles, apart;
static unsigned long loops, processes = 1;
static time_t deadline;
static atomic_int working, failed;
static atomic_ulong batches, adds, rewrites, children, changes;

static void wrong(const char *what, size_t at, uint32_t got, uint32_t want) {
    printf("STRESS BAD %s %zu: %#x, not %#x\n", what, at, got, want);
    fflush(stdout);
    failed = 1;
}

static uint64_t next(uint64_t *state) {
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

/* Any of the first pages; every other time one of a tenth, which so goes from tile to tile and is not evicted first. */
static size_t any_page(uint64_t *random, size_t count) {
    size_t from = next(random) % 2 ? count : count / 10;
    return next(random) % from;
}

static uint32_t fixed(size_t page, unsigned word) {
    return (uint32_t)((page * WORDS + word) * 0x9e3779b1u);
}

static int is_over(unsigned long done) {
    return failed || (loops ? done >= loops : time(NULL) >= deadline);
}

/* A batch of adds and stores; then what it did is certain. */
static void *queue(void *argument) {
    unsigned number = (unsigned)(uintptr_t)argument, actor = CPUS + number;
    uint64_t random = 77 + number;
    /* No bus carries another device's atomics to a buffer. */
    int is_guest = gpus[number / TILES].fd != gpus[0].fd;
    size_t reached = is_guest ? imported : page_count;
    for (unsigned long done = 0; !is_over(done); done++) {
        struct batch batch = {0};
        size_t at[OPERATIONS];
        uint32_t add[OPERATIONS];
        for (int i = 0; i < OPERATIONS; i++) {
            at[i] = any_page(&random, reached);
            add[i] = 1 + (uint32_t)next(&random) % 9;
            uint64_t gpu = pages[at[i]].gpu;
            store32(&batch, (void *)(gpu + 4 * (OWN + actor)), ++marks[actor][at[i]].own);
            if (is_guest && at[i] >= mirrored)
                continue;
            atomic_add32(&batch, (void *)gpu, add[i]);
            marks[actor][at[i]].added += add[i];
            adds++;
        }
        int error = run(&gpus[number / TILES], number % tiles, &batch);
        if (error) {
            printf("STRESS BAD queue %u batch %lu: %s\n", number, done, strerror(error));
            failed = 1;
        }
        batches++;
        rewrites += OPERATIONS;
    }
    working--;
    return NULL;
}

/* What CPU threads do brings memory back from VRAM, a fork all of it: they keep pace with the queues, so that on slow machines too some
 * stays for others to push out. */
static void wait_for_a_batch(void) {
    for (unsigned long seen = batches; working && !failed && batches == seen;)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

static void *cpu(void *argument) {
    unsigned actor = (unsigned)(uintptr_t)argument;
    uint64_t random = 7 + actor;
    while (working && !failed) {
        for (int i = 0; i < 3; i++) {
            size_t at = any_page(&random, page_count);
            struct mark *mark = &marks[actor][at];
            _Atomic uint32_t *words = pages[at].cpu, *own = &words[OWN + actor];
            if (at < mirrored) {
                uint32_t add = 1 + (uint32_t)next(&random) % 9;
                atomic_fetch_add(&words[COUNTER], add);
                mark->added += add;
                adds++;
            }
            if (*own != mark->own)
                wrong("own word of page", at, *own, mark->own);
            *own = ++mark->own;
            rewrites++;
        }
        wait_for_a_batch();
    }
    return NULL;
}

static void fill_neighbour(char *at, uint32_t seed) {
    for (size_t i = 0; i < NEIGHBOUR; i += 64)
        *(uint32_t *)(at + i) = seed + (uint32_t)i;
}

static void check_neighbour(const char *at, uint32_t seed, const char *when) {
    for (size_t i = 0; i < NEIGHBOUR; i += 64) {
        uint32_t got = *(const volatile uint32_t *)(at + i);
        if (got != seed + (uint32_t)i) {
            wrong(when, i, got, seed + (uint32_t)i);
            return;
        }
    }
}

static void must(int right, const char *what) {
    if (!right) {
        printf("STRESS BAD %s: %s\n", what, strerror(errno));
        failed = 1;
    }
}

static void child_of(char *at, uint32_t seed) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        check_neighbour(at, seed, "a child's neighbour");
        for (size_t page = 0; page < mirrored; page += 5)
            for (unsigned word = FIXED; word < WORDS; word += 37)
                if (pages[page].cpu[word] != fixed(page, word))
                    wrong("a child's page", page, pages[page].cpu[word], fixed(page, word));
        _exit(failed);
    }
    int status = -1;
    must(child > 0 && waitpid(child, &status, 0) == child && status == 0, "a child");
    children++;
}

/* Changes mappings beside what the others use, and looks whether the bytes come along. */
static void *mapper(void *argument) {
    (void)argument;
    uint64_t random = 3;
    for (uint32_t round = 1; working && !failed; round++) {
        char *at = chunks + (next(&random) % chunk_count + 1) * CHUNK - NEIGHBOUR;
        fill_neighbour(at, round);
        must(!mprotect(at, NEIGHBOUR, PROT_READ), "mprotect");
        check_neighbour(at, round, "while it is read-only");
        must(!mprotect(at, NEIGHBOUR, PROT_READ | PROT_WRITE), "mprotect back");
        if (round % FORK_EVERY == 0)
            child_of(at, round);
        char *away = mremap(at, NEIGHBOUR, 2 * NEIGHBOUR, MREMAP_MAYMOVE);
        must(away != MAP_FAILED, "mremap away");
        check_neighbour(away, round, "where it was moved");
        must(mremap(away, NEIGHBOUR, NEIGHBOUR, MREMAP_MAYMOVE | MREMAP_FIXED, at) == at, "mremap back");
        must(!munmap(away + NEIGHBOUR, NEIGHBOUR), "munmap");
        check_neighbour(at, round, "where it was moved back");
        must(!madvise(at, NEIGHBOUR, MADV_DONTNEED) && !*(volatile uint32_t *)(at + PAGE), "what is not needed is zero");
        must(!munmap(at + NEIGHBOUR / 2, NEIGHBOUR / 2), "munmap of the end");
        char *again = mmap(at + NEIGHBOUR / 2, NEIGHBOUR / 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        must(again == at + NEIGHBOUR / 2 && !*(volatile uint32_t *)again, "a new mapping is zero");
        changes += 7;
        wait_for_a_batch();
    }
    return NULL;
}

static void add_page(char *cpu, uint64_t gpu) {
    struct page *page = &pages[page_count];
    *page = (struct page){(_Atomic uint32_t *)cpu, gpu};
    for (unsigned word = FIXED; word < WORDS; word++)
        page->cpu[word] = fixed(page_count, word);
    page_count++;
}

/* The second device has it, too, where it reaches it. */
static int import_buffer(struct bind_op op) {
    uint32_t theirs;
    int dma_buf;
    if (prime_export(gpus[0].fd, op.obj, PRIME_CLOEXEC | PRIME_RDWR, &dma_buf))
        return 0;
    int found = !prime_import(gpus[1].fd, dma_buf, &theirs);
    close(dma_buf);
    op.obj = theirs;
    if (found)
        gpu_bind(&gpus[1], op);
    return found;
}

/* A buffer in a tile's VRAM, bound where no memory of the program can be. */
static void add_buffer(struct gpu *gpu, unsigned number, size_t size) {
    static uint64_t at = 0x100000000000;
    uint32_t any = (PLACE_VRAM0 << tiles) - PLACE_VRAM0, one = PLACE_VRAM0 << number % tiles;
    struct gem_create create = {.size = size, .placement = apart ? any : one, .cpu_caching = CACHING_WC};
    must_ioctl(gpu->fd, IOC_GEM_CREATE, &create, "GEM_CREATE");
    struct gem_mmap_offset offset = {.handle = create.handle};
    must_ioctl(gpu->fd, IOC_GEM_MMAP_OFFSET, &offset, "GEM_MMAP_OFFSET");
    char *cpu = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, gpu->fd, (off_t)offset.offset);
    if (cpu == MAP_FAILED)
        die("mmap of a buffer");
    struct bind_op op = {.obj = create.handle, .range = size, .addr = at, .op = BIND_MAP};
    gpu_bind(gpu, op);
    int reaches = imported == page_count && gpus[1].fd != gpu->fd && import_buffer(op);
    for (size_t i = 0; i < size; i += PAGE)
        add_page(cpu + i, at + i);
    imported = reaches ? page_count : imported;
    at += (size + CHUNK - 1) & -CHUNK;
}

static void set_up(void) {
    struct gpu *gpu = &gpus[0];
    gpu_open(gpu);
    tiles = gpu->tiles < TILES ? gpu->tiles : TILES;
    int two = !access(SECOND_NODE, F_OK);
    if (two) {
        gpu_open_node(&gpus[1], SECOND_NODE);
        tiles = gpus[1].tiles < tiles ? gpus[1].tiles : tiles;
    } else {
        gpus[1] = *gpu;
    }
    for (unsigned tile = 0; tile < tiles && !two; tile++) {
        struct engine_instance second = engine_of(gpu->fd, tile);
        second.instance = 1;
        gpus[1].queues[tile] = queue_open(gpu, second);
    }
    size_t vram = vram_of_a_tile(gpu->fd), buffers = vram / 4 & -(64ul << 10);
    size_t all = (two || processes > 1 ? 3 : 2) * (1 + two) * tiles * vram / processes;
    chunk_count = (all - BUFFERS * buffers) / (CHUNK - NEIGHBOUR);
    pages = calloc(all / PAGE, sizeof *pages);
    char *room = mmap(NULL, (chunk_count + 1) * CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!pages || room == MAP_FAILED)
        die("memory");
    chunks = (char *)(((uintptr_t)room + CHUNK - 1) & -CHUNK);
    for (size_t i = 0; i < chunk_count * CHUNK; i += PAGE)
        if (i % CHUNK < CHUNK - NEIGHBOUR)
            add_page(chunks + i, (uintptr_t)chunks + i);
    mirrored = imported = page_count;
    for (unsigned n = 0; n < BUFFERS; n++)
        add_buffer(gpu, n, buffers);
    for (unsigned actor = 0; actor < ACTORS; actor++)
        if (!(marks[actor] = calloc(page_count, sizeof *marks[actor])))
            die("memory");
}

static void check_all(void) {
    for (size_t page = 0; page < page_count; page++) {
        uint32_t sum = 0;
        for (unsigned actor = 0; actor < ACTORS; actor++) {
            uint32_t own = pages[page].cpu[OWN + actor];
            sum += marks[actor][page].added;
            if (own != marks[actor][page].own)
                wrong("the last own word of page", page, own, marks[actor][page].own);
        }
        if (pages[page].cpu[COUNTER] != sum)
            wrong("the counter of page", page, pages[page].cpu[COUNTER], sum);
        for (unsigned word = FIXED; word < WORDS; word++)
            if (pages[page].cpu[word] != fixed(page, word))
                wrong("a word that nobody changes of page", page, pages[page].cpu[word], fixed(page, word));
    }
}

/* All but the first process; each goes on as that does. */
static pid_t others[MAX_PROCESSES];

static void be_several(void) {
    for (unsigned long n = 1; n < processes; n++) {
        pid_t other = fork();
        if (other < 0)
            die("fork");
        if (!other) {
            memset(others, 0, sizeof others);
            return;
        }
        others[n] = other;
    }
}

static void wait_for_the_others(void) {
    for (unsigned long n = 1; n < processes; n++) {
        int status = 0;
        if (others[n])
            must(waitpid(others[n], &status, 0) == others[n] && status == 0, "another process");
    }
}

int main(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "al:p:")) != -1;)
        if (option == 'a')
            apart = 1;
        else
            *(option == 'l' ? &loops : &processes) = option == '?' ? 0 : strtoul(optarg, NULL, 0);
    if (optind < argc)
        deadline = time(NULL) + strtol(argv[optind], NULL, 0);
    if ((!loops && !deadline) || !processes || processes > MAX_PROCESSES) {
        fprintf(stderr, "stress [-a] [-p PROCESSES] SECONDS, or stress [-a] [-p PROCESSES] -l LOOPS\n");
        return 2;
    }
    be_several();
    set_up();
    pthread_t threads[ACTORS + 1];
    working = QUEUES;
    for (uintptr_t n = 0; n <= ACTORS; n++) {
        void *(*body)(void *) = n < CPUS ? cpu : n < ACTORS ? queue : mapper;
        if (pthread_create(&threads[n], NULL, body, (void *)(n < CPUS ? n : n - CPUS)))
            die("pthread_create");
    }
    for (int n = 0; n <= ACTORS; n++)
        pthread_join(threads[n], NULL);
    check_all();
    wait_for_the_others();
    printf("%lu batches, %lu adds and %lu rewrites of %zu pages, %lu changes of mappings, %lu children\n", batches, adds, rewrites,
           page_count, changes, children);
    printf("STRESS %s\n", failed ? "failed" : "ok");
    return failed;
}
