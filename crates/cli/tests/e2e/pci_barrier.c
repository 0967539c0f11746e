/* The page of the PCI barrier: stores of any kind are dropped, every word reads 0xdeadbeef, what it may not be mapped as is EINVAL.
 * An atomic makes it plain memory; what is mapped in its place later is nothing of it. */
#define _GNU_SOURCE
#include "gpu.h"
#include <emmintrin.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

static const uint32_t dead = 0xdeadbeef;
static int fd;
static uint64_t offset;

static void *map(size_t bytes, int prot, int flags) { return mmap(NULL, bytes, prot, flags, fd, (off_t)offset); }

static volatile uint32_t *page(void) {
    void *at = map(PAGE, PROT_WRITE, MAP_SHARED);
    if (at == MAP_FAILED)
        die("mmap");
    return at;
}

static void refused(size_t bytes, int prot, int flags, const char *what) {
    if (map(bytes, prot, flags) != MAP_FAILED || errno != EINVAL)
        printf("%s can be mapped\n", what);
}

static void all_dead(volatile uint32_t *words, const char *after) {
    for (size_t i = 0; i < PAGE / 4; i++)
        if (words[i] != dead) {
            printf("word %zu is %#x after %s\n", i, words[i], after);
            return;
        }
}

/* Every word, by stores of each width, and around the caches. */
static void store(volatile uint32_t *words) {
    for (size_t i = 0; i < PAGE / 4; i++)
        words[i] = (uint32_t)i;
    all_dead(words, "stores of 32 bits");
    for (size_t i = 0; i < PAGE; i++)
        ((volatile uint8_t *)words)[i] = 7;
    all_dead(words, "stores of 8 bits");
    for (size_t i = 0; i < PAGE / 2; i++)
        ((volatile uint16_t *)words)[i] = (uint16_t)i;
    for (size_t i = 0; i < PAGE / 8; i++)
        ((volatile uint64_t *)words)[i] = i * 3;
    all_dead(words, "stores of 16 and 64 bits");
    for (size_t i = 0; i < PAGE / 16; i++) {
        _mm_store_si128((__m128i *)words + i, _mm_set1_epi32((int)i));
        _mm_stream_si128((__m128i *)words + i, _mm_set1_epi32((int)i));
    }
    for (size_t i = 0; i < PAGE / 4; i++)
        _mm_stream_si32((int *)words + i, (int)i);
    all_dead(words, "stores of vectors, and around the caches");
}

static void atomic(volatile uint32_t *words) {
    uint32_t old = __atomic_fetch_add(words + 5, 1, __ATOMIC_SEQ_CST);
    words[6] = 6;
    if (old != dead || words[5] != dead + 1 || words[6] != 6)
        puts("an atomic is not done");
}

static sigjmp_buf back;
static void caught(int signal) {
    (void)signal;
    siglongjmp(back, 1);
}

/* A page of the program's own in its place, which may only be read. */
static void in_its_place(volatile uint32_t *words) {
    munmap((void *)words, PAGE);
    int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    if (mmap((void *)words, PAGE, PROT_READ, how, -1, 0) != (void *)words)
        die("mmap in its place");
    signal(SIGSEGV, caught);
    if (!sigsetjmp(back, 1)) {
        words[0] = 1;
        puts("a store to a page that may only be read is dropped");
    }
}

int main(void) {
    struct gpu gpu = {0};
    struct gem_mmap_offset args = {.flags = 1};
    gpu_open(&gpu);
    fd = gpu.fd;
    must_ioctl(fd, IOC_GEM_MMAP_OFFSET, &args, "GEM_MMAP_OFFSET");
    offset = args.offset;
    refused(2 * PAGE, PROT_WRITE, MAP_SHARED, "more than a page");
    refused(PAGE, PROT_WRITE, MAP_PRIVATE, "a copy");
    refused(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, "a page to read");
    refused(PAGE, PROT_EXEC, MAP_SHARED, "a page to execute");
    volatile uint32_t *words = page(), *others = page();
    all_dead(words, "nothing");
    store(words);
    if (words == others || others[0] != dead)
        puts("two mappings are not two");
    atomic(others);
    store(words);
    words = mremap((void *)words, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page());
    if (words == MAP_FAILED || words[0] != dead)
        die("mremap");
    words[0] = 1;
    in_its_place(page());
    return 0;
}
