/*
 * Buffers from file to file: numbers and layouts of PRIME, FLINK and dma-bufs, and a call each that gives 0 or the errno.
 */
#ifndef CLIENTS_PRIME_H
#define CLIENTS_PRIME_H

#include "syncobj.h"
#include <sys/socket.h>

struct prime_handle { uint32_t handle, flags; int32_t fd; };
SIZE_IS(prime_handle, 12);
struct gem_flink { uint32_t handle, name; };
struct gem_open { uint32_t name, handle; uint64_t size; };
SIZE_IS(gem_open, 16);
#define IOC_GEM_FLINK 0xc008640au
#define IOC_GEM_OPEN 0xc010640bu
#define IOC_PRIME_HANDLE_TO_FD 0xc00c642du
#define IOC_PRIME_FD_TO_HANDLE 0xc00c642eu
enum { CAP_PRIME = 5, PRIME_CLOEXEC = O_CLOEXEC, PRIME_RDWR = O_RDWR };

/* on the descriptor of a dma-buf */
struct dma_buf_sync_file { uint32_t flags; int32_t fd; };
#define IOC_DMA_BUF_SYNC 0x40086200u
#define IOC_DMA_BUF_SET_NAME 0x40086201u
#define IOC_DMA_BUF_SET_NAME_SHORT 0x40046201u
#define IOC_DMA_BUF_EXPORT_SYNC_FILE 0xc0086202u
#define IOC_DMA_BUF_IMPORT_SYNC_FILE 0x40086203u
enum { DMA_BUF_READ = 1, DMA_BUF_WRITE = 2, DMA_BUF_END = 4 };

static inline int prime_export(int fd, uint32_t handle, uint32_t flags, int *out) {
    struct prime_handle prime = {.handle = handle, .flags = flags, .fd = -1};
    int error = answer(fd, IOC_PRIME_HANDLE_TO_FD, &prime);
    *out = prime.fd;
    return error;
}

static inline int prime_import(int fd, int dma_buf, uint32_t *out) {
    struct prime_handle prime = {.fd = dma_buf};
    int error = answer(fd, IOC_PRIME_FD_TO_HANDLE, &prime);
    *out = prime.handle;
    return error;
}

static inline int dma_buf_sync(int dma_buf, uint64_t flags) { return answer(dma_buf, IOC_DMA_BUF_SYNC, &flags); }

/* Sends a descriptor over a socket. */
static inline void send_fd(int socket, int fd) {
    char byte = 1;
    union { struct cmsghdr head; char room[CMSG_SPACE(sizeof fd)]; } control = {0};
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    control.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
    if (sendmsg(socket, &message, 0) != 1)
        die("sendmsg");
}

/* The descriptor that comes over a socket. */
static inline int receive_fd(int socket) {
    char byte;
    int fd;
    union { struct cmsghdr head; char room[CMSG_SPACE(sizeof fd)]; } control;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (recvmsg(socket, &message, 0) != 1 || control.head.cmsg_type != SCM_RIGHTS)
        die("recvmsg");
    memcpy(&fd, CMSG_DATA(&control.head), sizeof fd);
    return fd;
}

#endif
