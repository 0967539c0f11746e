/*
 * A scene of the checker on a real device: pieces of memory whose pages have a counter and a word for each writer, and what
 * they must hold. `pontoon emit-c` writes the program that uses this; it puts these headers in front of it.
 *
 * Each page's word 0 is a counter that all may add to; word 1 + W belongs to writer W. Words are 8 bytes apart. What threads
 * that run at the same time take away from each other is not judged ("unsure").
 */
#ifndef CLIENTS_SCENE_H
#define CLIENTS_SCENE_H

#include "gpu.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define MOST_WRITERS 16
#define WORD 8ul
#define BLOCK_2M (2ul << 20)

struct page {
    uint32_t words[1 + MOST_WRITERS];
    int gone, unsure;
    int pinned[2]; /* a pipe that holds the page; none: 0 */
};

struct piece {
    const char *name;
    char *at;
    size_t pages;
    struct page *page;
};

enum verb { READ, WRITE, ADD };
struct touch { enum verb verb; struct piece *piece; size_t from, to; };

static unsigned scene_writers, scene_wrong;
static uint32_t scene_seq[MOST_WRITERS];

static inline void *room_of(size_t bytes) {
    char *room = mmap(NULL, bytes + 2 * BLOCK_2M, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED)
        die("mmap");
    return (char *)(((uintptr_t)room + BLOCK_2M) & ~(BLOCK_2M - 1));
}

static inline void piece_map_pages(struct piece *piece, size_t from, size_t to, int flags) {
    char *at = mmap(piece->at + from * PAGE, (to - from) * PAGE, PROT_READ | PROT_WRITE, flags | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        die("mmap");
    for (size_t p = from; p < to; p++)
        piece->page[p].gone = 0;
}

/* Memory at a 2M boundary, with nothing beside it. */
static inline void piece_map(struct piece *piece, const char *name, size_t pages, int shared, int huge, int filled) {
    *piece = (struct piece){name, room_of(pages * PAGE), pages, calloc(pages, sizeof(struct page))};
    piece_map_pages(piece, 0, pages, shared ? MAP_SHARED : MAP_PRIVATE);
    if (huge && madvise(piece->at, pages * PAGE, MADV_HUGEPAGE) != 0)
        die("MADV_HUGEPAGE");
    for (size_t p = 0; filled && p < pages; p++)
        ((volatile char *)piece->at)[p * PAGE] = 0;
}

static inline uint32_t mark(unsigned writer, size_t page) {
    return (writer + 1) << 28 | (uint32_t)page << 18 | scene_seq[writer];
}

static inline void judge(const struct piece *piece, size_t page, unsigned word, uint32_t found, const char *reader) {
    const struct page *known = &piece->page[page];
    if (known->gone || known->unsure || found == known->words[word])
        return;
    if (__atomic_fetch_add(&scene_wrong, 1, __ATOMIC_SEQ_CST) == 0)
        printf("WRONG: %s reads 0x%x in word %u of page %zu of %s, not 0x%x\n", reader, found, word, page, piece->name, known->words[word]);
}

static inline void note(const struct touch *touch, size_t page, int writer) {
    struct page *known = &touch->piece->page[page];
    if (touch->verb == WRITE)
        known->words[1 + writer] = mark((unsigned)writer, page);
    else if (touch->verb == ADD)
        __atomic_fetch_add(&known->words[0], 1, __ATOMIC_SEQ_CST);
}

static inline char *word_at(const struct touch *touch, size_t page, unsigned word) {
    return touch->piece->at + page * PAGE + word * WORD;
}

/* The dword at `from`, by a register, to `to`. */
static inline void copy32(struct batch *batch, const void *from, const void *to) {
    const void *ends[2] = {from, to};
    for (int i = 0; i < 2; i++) {
        uint64_t at = (uintptr_t)ends[i];
        emit(batch, i ? 0x12080002u : 0x14880002u); /* MI_STORE_REGISTER_MEM, MI_LOAD_REGISTER_MEM, relative */
        emit(batch, 0x600);
        emit(batch, (uint32_t)at);
        emit(batch, (uint32_t)(at >> 32));
    }
}

/* One job; judged where `alone` says that nobody else works. 0, or the errno. */
static inline int job(struct gpu *gpu, unsigned tile, int writer, int alone, const struct touch *touches, size_t count) {
    struct batch batch = {0};
    uint32_t *results = calloc((1 + MOST_WRITERS) * BLOCK_2M / PAGE * 2, sizeof *results);
    size_t read = 0;
    if (writer >= 0)
        scene_seq[writer]++;
    for (const struct touch *t = touches; t < touches + count; t++)
        for (size_t page = t->from; page < t->to; page++) {
            if (t->verb == WRITE)
                store32(&batch, word_at(t, page, 1 + (unsigned)writer), mark((unsigned)writer, page));
            else if (t->verb == ADD)
                atomic_inc32(&batch, word_at(t, page, 0));
            else
                for (unsigned word = 0; word <= scene_writers; word++)
                    copy32(&batch, word_at(t, page, word), &results[read++]);
        }
    int error = run(gpu, tile, &batch);
    read = 0;
    for (const struct touch *t = touches; !error && t < touches + count; t++)
        for (size_t page = t->from; page < t->to; page++) {
            for (unsigned word = 0; t->verb == READ && word <= scene_writers; word++, read++)
                if (alone)
                    judge(t->piece, page, word, results[read], tile ? "tile 1" : "tile 0");
            note(t, page, writer);
        }
    free(results);
    return error;
}

static inline void cpu(int writer, int alone, const struct touch *touches, size_t count) {
    if (writer >= 0)
        scene_seq[writer]++;
    for (const struct touch *t = touches; t < touches + count; t++)
        for (size_t page = t->from; page < t->to; page++) {
            if (t->verb == WRITE)
                *(volatile uint64_t *)word_at(t, page, 1 + (unsigned)writer) = mark((unsigned)writer, page);
            else if (t->verb == ADD)
                __atomic_fetch_add((uint32_t *)word_at(t, page, 0), 1, __ATOMIC_SEQ_CST);
            for (unsigned word = 0; t->verb == READ && alone && word <= scene_writers; word++)
                judge(t->piece, page, word, *(volatile uint32_t *)word_at(t, page, word), "the CPU");
            note(t, page, writer);
        }
}

static inline void emptied(struct piece *piece, size_t from, size_t to) {
    for (size_t p = from; p < to; p++)
        memset(piece->page[p].words, 0, sizeof piece->page[p].words);
}

static inline void unsure(struct piece *piece, size_t from, size_t to) {
    for (size_t p = from; piece->page && p < to; p++) /* none: it is not there yet, and comes from one that is */
        piece->page[p].unsure = 1;
}

static inline void unmap(struct piece *piece, size_t from, size_t to) {
    if (munmap(piece->at + from * PAGE, (to - from) * PAGE) != 0)
        die("munmap");
    emptied(piece, from, to);
    for (size_t p = from; p < to; p++)
        piece->page[p].gone = 1;
}

static inline void advise(struct piece *piece, size_t from, size_t to, int advice) {
    if (madvise(piece->at + from * PAGE, (to - from) * PAGE, advice) != 0)
        die("madvise");
}

/* A page in a pipe has one more reference, as it has where it is pinned: it does not migrate. */
static inline void pin(struct piece *piece, size_t from, size_t to) {
    for (size_t p = from; p < to; p++) {
        struct iovec page = {.iov_base = piece->at + p * PAGE, .iov_len = PAGE};
        if (pipe(piece->page[p].pinned) != 0 || vmsplice(piece->page[p].pinned[1], &page, 1, 0) != (ssize_t)PAGE)
            die("vmsplice");
    }
}

static inline void unpin(struct piece *piece, size_t from, size_t to) {
    for (size_t p = from; p < to; p++) {
        close(piece->page[p].pinned[0]);
        close(piece->page[p].pinned[1]);
    }
}

enum { ADVISE_PREFERRED_LOC = 0, ADVISE_PAT = 2 };
enum { PREFER_DEVICE = 0, PREFER_SYSTEM = -1 };

static inline void gpu_advise(struct gpu *gpu, const struct piece *piece, size_t from, size_t to, uint32_t attr, uint32_t value, uint16_t region) {
    struct madvise args = {
        .vm_id = gpu->vm, .start = (uintptr_t)piece->at + from * PAGE, .range = (to - from) * PAGE, .attr = attr, .value = value, .region = region,
    };
    must_ioctl(gpu->fd, IOC_MADVISE, &args, "MADVISE");
}

static inline void protect(struct piece *piece, size_t from, size_t to, int write) {
    if (mprotect(piece->at + from * PAGE, (to - from) * PAGE, PROT_READ | (write ? PROT_WRITE : 0)) != 0)
        die("mprotect");
}

/* mremap to `shift` bytes past a 2M boundary; `keep`: an empty mapping stays. */
static inline void move(struct piece *piece, size_t from, size_t to, struct piece *into, const char *name, size_t shift, int keep) {
    size_t pages = to - from;
    char *room = (char *)room_of(pages * PAGE + BLOCK_2M) + shift;
    int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (keep ? 4 /* MREMAP_DONTUNMAP */ : 0);
    if (mremap(piece->at + from * PAGE, pages * PAGE, pages * PAGE, flags, room) != room)
        die("mremap");
    *into = (struct piece){name, room, pages, calloc(pages, sizeof(struct page))};
    memcpy(into->page, piece->page + from, pages * sizeof(struct page));
    emptied(piece, from, to);
    for (size_t p = from; p < to; p++)
        piece->page[p].gone = !keep;
}

static inline void look(const struct piece *piece, const char *reader) {
    for (size_t page = 0; page < piece->pages; page++)
        for (unsigned word = 0; !piece->page[page].gone && word <= scene_writers; word++)
            judge(piece, page, word, *(volatile uint32_t *)(piece->at + page * PAGE + word * WORD), reader);
}

static inline void fork_and_look(struct piece *const *pieces, size_t count) {
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        for (size_t i = 0; i < count; i++)
            if (pieces[i]->at)
                look(pieces[i], "the forked child");
        fflush(stdout);
        _exit(scene_wrong != 0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0)
        __atomic_fetch_add(&scene_wrong, 1, __ATOMIC_SEQ_CST);
}

#define REGION_OF_DEFAULT 0xffffffffu

static inline void prefetch(struct gpu *gpu, const struct piece *piece, size_t from, size_t to, uint32_t region) {
    uint64_t *fence = calloc(8, sizeof *fence);
    struct sync sync = {.type = SYNC_USER_FENCE, .flags = SYNC_SIGNAL, .addr = (uintptr_t)fence, .value = FENCE_VALUE};
    struct vm_bind bind = {
        .vm_id = gpu->vm, .num_binds = 1, .num_syncs = 1, .syncs = (uintptr_t)&sync,
        .bind = {.pat_index = PAT_COHERENT, .addr = (uintptr_t)piece->at + from * PAGE, .range = (to - from) * PAGE,
                 .op = BIND_PREFETCH, .prefetch_region = region},
    };
    must_ioctl(gpu->fd, IOC_VM_BIND, &bind, "VM_BIND of a prefetch");
    if ((errno = wait_fence(gpu->fd, fence, 0)))
        die("wait for a prefetch");
    free(fence);
}

/* A job that must be refused, or must not. */
static inline void must(int error, int fails, const char *step) {
    if (error && !fails) {
        printf("REFUSED: %s: %s\n", step, strerror(error));
        exit(3);
    }
    if (!error && fails) {
        printf("ALLOWED: %s\n", step);
        exit(3);
    }
}

static inline int scene_end(const char *name, struct piece *const *pieces, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (pieces[i]->at)
            look(pieces[i], "the CPU");
    printf("SCENE %s: %s, %u words wrong\n", name, scene_wrong ? "DATA LOST" : "ok", scene_wrong);
    return scene_wrong != 0;
}

#endif
