/*
 * A node's descriptor goes over a socket, within one process: what arrives is the same open file. Then it goes through
 * execve, to a program that did not open it: that is a file of its own.
 */
#define _GNU_SOURCE
#include "gpu.h"
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int through_a_socket(int fd) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0)
        die("socketpair");
    union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } control = {0};
    char byte = 'x';
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    control.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
    if (sendmsg(ends[0], &message, 0) != 1 || recvmsg(ends[1], &message, 0) != 1)
        die("sendmsg, recvmsg");
    memcpy(&fd, CMSG_DATA(&control.head), sizeof fd);
    close(ends[0]);
    close(ends[1]);
    return fd;
}

static int query(int fd) {
    struct device_query query = {.query = QUERY_CONFIG};
    return ioctl(fd, IOC_DEVICE_QUERY, &query) == 0 && query.size > 0;
}

int main(int count, char **arguments) {
    if (count > 1) {
        int fd = atoi(arguments[1]);
        struct vm_create vm = {.flags = 0};
        printf("inherited: query %d", query(fd));
        printf(", vm %d\n", ioctl(fd, IOC_VM_CREATE, &vm));
        return 0;
    }
    int first = open("/dev/dri/renderD128", O_RDWR);
    struct vm_create vm = {.flags = 0};
    if (ioctl(first, IOC_VM_CREATE, &vm) != 0)
        die("VM_CREATE");
    int second = through_a_socket(first);
    struct stat about;
    fstat(second, &about);
    printf("received: device %d", S_ISCHR(about.st_mode));
    close(first);
    struct vm_destroy destroy = {.vm_id = vm.vm_id};
    printf(", query %d, vm destroyed %d\n", query(second), ioctl(second, IOC_VM_DESTROY, &destroy));
    int third = (int)syscall(SYS_dup, through_a_socket(second));
    printf("once more: query %d\n", query(third));
    fflush(stdout);
    char number[16];
    snprintf(number, sizeof number, "%d", third);
    execl(arguments[0], arguments[0], number, (char *)NULL);
    die("execl");
}
