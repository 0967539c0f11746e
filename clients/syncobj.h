/*
 * The DRM core's syncobjs: numbers and layouts, and a call each that gives 0 or the errno.
 */
#ifndef CLIENTS_SYNCOBJ_H
#define CLIENTS_SYNCOBJ_H

#include "gpu.h"
#include <time.h>

struct get_cap { uint64_t capability, value; };
struct syncobj_create { uint32_t handle, flags; };
struct syncobj_destroy { uint32_t handle, pad; };
struct syncobj_handle { uint32_t handle, flags; int32_t fd; uint32_t pad; uint64_t point; };
SIZE_IS(syncobj_handle, 24);
struct syncobj_wait { uint64_t handles; int64_t timeout; uint32_t count, flags, first, pad; uint64_t deadline; };
SIZE_IS(syncobj_wait, 40);
struct syncobj_timeline_wait { uint64_t handles, points; int64_t timeout; uint32_t count, flags, first, pad; uint64_t deadline; };
SIZE_IS(syncobj_timeline_wait, 48);
struct syncobj_array { uint64_t handles; uint32_t count, pad; };
SIZE_IS(syncobj_array, 16);
struct syncobj_timeline_array { uint64_t handles, points; uint32_t count, flags; };
SIZE_IS(syncobj_timeline_array, 24);
struct syncobj_transfer { uint32_t src, dst; uint64_t src_point, dst_point; uint32_t flags, pad; };
SIZE_IS(syncobj_transfer, 32);
struct syncobj_eventfd { uint32_t handle, flags; uint64_t point; int32_t fd; uint32_t pad; };
SIZE_IS(syncobj_eventfd, 24);

#define IOC_GET_CAP 0xc010640cu
#define IOC_SYNCOBJ_CREATE 0xc00864bfu
#define IOC_SYNCOBJ_DESTROY 0xc00864c0u
#define IOC_SYNCOBJ_HANDLE_TO_FD 0xc01864c1u
#define IOC_SYNCOBJ_FD_TO_HANDLE 0xc01864c2u
#define IOC_SYNCOBJ_HANDLE_TO_FD_SHORT 0xc01064c1u /* of programs that know of no point */
#define IOC_SYNCOBJ_FD_TO_HANDLE_SHORT 0xc01064c2u
#define IOC_SYNCOBJ_WAIT 0xc02864c3u
#define IOC_SYNCOBJ_RESET 0xc01064c4u
#define IOC_SYNCOBJ_SIGNAL 0xc01064c5u
#define IOC_SYNCOBJ_TIMELINE_WAIT 0xc03064cau
#define IOC_SYNCOBJ_QUERY 0xc01864cbu
#define IOC_SYNCOBJ_TRANSFER 0xc02064ccu
#define IOC_SYNCOBJ_TIMELINE_SIGNAL 0xc01864cdu
#define IOC_SYNCOBJ_EVENTFD 0xc01864cfu

/* on the descriptor of a sync file */
struct sync_merge { char name[32]; int32_t fd2, fence; uint32_t flags, pad; };
SIZE_IS(sync_merge, 48);
struct sync_fence_info { char obj_name[32], driver_name[32]; int32_t status; uint32_t flags; uint64_t timestamp; };
SIZE_IS(sync_fence_info, 80);
struct sync_file_info { char name[32]; int32_t status; uint32_t flags, num_fences, pad; uint64_t fences; };
SIZE_IS(sync_file_info, 56);
#define IOC_SYNC_MERGE 0xc0303e03u
#define IOC_SYNC_FILE_INFO 0xc0383e04u
#define IOC_SYNC_SET_DEADLINE 0x40103e05u

enum { CAP_SYNCOBJ = 0x13, CAP_SYNCOBJ_TIMELINE = 0x14 };
enum { CREATE_SIGNALED = 1 };
enum { FD_SYNC_FILE = 1, FD_TIMELINE = 2 };
enum { WAIT_ALL = 1, WAIT_FOR_SUBMIT = 2, WAIT_AVAILABLE = 4, WAIT_DEADLINE = 8 };
enum { QUERY_LAST_SUBMITTED = 1 };
enum { SYNC_SYNCOBJ = 0, SYNC_TIMELINE = 1 };

/* 0, or the errno */
static inline int answer(int fd, unsigned long request, void *argument) {
    return try_ioctl(fd, request, argument) == 0 ? 0 : errno;
}

static inline int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

#define AT(array) ((uint64_t)(uintptr_t)(array))

static inline uint32_t syncobj_new(int fd, uint32_t flags) {
    struct syncobj_create create = {.flags = flags};
    must_ioctl(fd, IOC_SYNCOBJ_CREATE, &create, "SYNCOBJ_CREATE");
    return create.handle;
}

static inline int syncobj_drop(int fd, uint32_t handle) {
    struct syncobj_destroy destroy = {.handle = handle};
    return answer(fd, IOC_SYNCOBJ_DESTROY, &destroy);
}

static inline int syncobj_change(int fd, unsigned long request, const uint32_t *handles, uint32_t count) {
    struct syncobj_array array = {.handles = AT(handles), .count = count};
    return answer(fd, request, &array);
}

static inline int syncobj_waits(int fd, const uint32_t *handles, uint32_t count, int64_t timeout, uint32_t flags, uint32_t *first) {
    struct syncobj_wait wait = {.handles = AT(handles), .count = count, .timeout = timeout, .flags = flags, .first = ~0u};
    int error = answer(fd, IOC_SYNCOBJ_WAIT, &wait);
    if (first)
        *first = wait.first;
    return error;
}

/* Waits for one syncobj, half a minute at most. */
static inline int syncobj_wait_one(int fd, uint32_t handle, uint32_t flags) {
    return syncobj_waits(fd, &handle, 1, now_ns() + WAIT_NS, flags, NULL);
}

static inline int syncobj_timeline_waits(int fd, const uint32_t *handles, const uint64_t *points, uint32_t count, int64_t timeout, uint32_t flags) {
    struct syncobj_timeline_wait wait = {
        .handles = AT(handles), .points = AT(points), .count = count, .timeout = timeout, .flags = flags,
    };
    return answer(fd, IOC_SYNCOBJ_TIMELINE_WAIT, &wait);
}

static inline int syncobj_point(int fd, uint32_t handle, uint64_t point) {
    struct syncobj_timeline_array array = {.handles = AT(&handle), .points = AT(&point), .count = 1};
    return answer(fd, IOC_SYNCOBJ_TIMELINE_SIGNAL, &array);
}

static inline uint64_t syncobj_query(int fd, uint32_t handle, uint32_t flags) {
    uint64_t point = ~0ull;
    struct syncobj_timeline_array array = {.handles = AT(&handle), .points = AT(&point), .count = 1, .flags = flags};
    must_ioctl(fd, IOC_SYNCOBJ_QUERY, &array, "SYNCOBJ_QUERY");
    return point;
}

/* The fence of a syncobj as a descriptor. */
static inline int sync_file(int fd, uint32_t handle) {
    struct syncobj_handle args = {.handle = handle, .flags = FD_SYNC_FILE};
    must_ioctl(fd, IOC_SYNCOBJ_HANDLE_TO_FD, &args, "SYNCOBJ_HANDLE_TO_FD");
    return args.fd;
}

/* The fence of a descriptor becomes that of a syncobj. */
static inline int syncobj_import(int fd, uint32_t handle, int file) {
    struct syncobj_handle args = {.handle = handle, .flags = FD_SYNC_FILE, .fd = file};
    return answer(fd, IOC_SYNCOBJ_FD_TO_HANDLE, &args);
}

/* 1, 0, or a negative errno */
static inline int sync_status(int file) {
    struct sync_file_info info = {0};
    must_ioctl(file, IOC_SYNC_FILE_INFO, &info, "SYNC_IOC_FILE_INFO");
    return info.status;
}

static inline int sync_merged(int file, int other) {
    struct sync_merge merge = {.fd2 = other};
    must_ioctl(file, IOC_SYNC_MERGE, &merge, "SYNC_IOC_MERGE");
    return merge.fence;
}

#endif
