/* What a program sees of the device without using it: one line a fact, `ok NAME` or `BAD NAME`. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static int bad;
static void fact(const char *name, int holds) {
    printf("%s %s\n", holds ? "ok" : "BAD", name);
    bad |= !holds;
}
static int is_node(const struct stat *st, unsigned minor_number) {
    return S_ISCHR(st->st_mode) && st->st_rdev == makedev(226, minor_number);
}
static int links_to(int fd, const char *path) {
    char name[64], link[256];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(name, link, sizeof link - 1);
    if (n < 0) return 0;
    link[n] = 0;
    return !strcmp(link, path);
}
static int reads(const char *path, const char *part) {
    char text[4096];
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    return strstr(text, part) != NULL;
}
/* The kind of file system by path, and by a descriptor; 0 where they differ. */
static long kind(const char *path) {
    struct statfs by_path, by_fd;
    int fd = open(path, O_PATH);
    int failed = fd < 0 || statfs(path, &by_path) || fstatfs(fd, &by_fd);
    close(fd);
    return failed || by_path.f_type != by_fd.f_type ? 0 : by_path.f_type;
}
static void on_alarm(int sig) {
    (void)sig;
}
/* A node has no events: it is never ready, and there is nothing to read or write. */
static void events(void) {
    int fd = open("/dev/dri/card0", O_RDWR | O_NONBLOCK), loop = epoll_create1(0);
    char bytes[8] = "";
    struct iovec part = {bytes, sizeof bytes};
    struct pollfd polled[2] = {{fd, POLLIN | POLLOUT | POLLPRI, 0}, {1, POLLOUT, 0}};
    fact("poll of a node", poll(polled, 1, 0) == 0 && poll(polled, 2, 0) == 1 && !polled[0].revents && polled[1].revents == POLLOUT);
    fd_set in, out;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(fd, &in);
    FD_SET(fd, &out);
    FD_SET(1, &out);
    struct timeval at_once = {0, 0};
    struct timespec now = {0, 0};
    fact("select of a node", select(fd + 1, &in, &out, NULL, &at_once) == 1 && FD_ISSET(1, &out) && !FD_ISSET(fd, &out) && !FD_ISSET(fd, &in));
    FD_SET(fd, &in);
    fact("pselect of a node", pselect(fd + 1, &in, NULL, NULL, &now, NULL) == 0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT};
    fact("epoll of a node", !epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event) && epoll_wait(loop, &event, 1, 0) == 0 &&
                                !epoll_ctl(loop, EPOLL_CTL_DEL, fd, &event));
    fact("open as it was asked for", (fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (O_RDWR | O_NONBLOCK));
    fact("read of a node", read(fd, bytes, sizeof bytes) == -1 && errno == EAGAIN && readv(fd, &part, 1) == -1 && errno == EAGAIN);
    fact("write to a node", write(fd, bytes, sizeof bytes) == -1 && errno == EINVAL && writev(fd, &part, 1) == -1 && errno == EINVAL &&
                                pwrite(fd, bytes, 1, 0) == -1 && errno == EINVAL && ftruncate(fd, 0) == -1 && errno == EINVAL);
    int in_only = open("/dev/dri/card0", O_RDONLY), out_only = open("/dev/dri/card0", O_WRONLY);
    fact("only as it was opened", write(in_only, bytes, 1) == -1 && errno == EBADF && read(out_only, bytes, 1) == -1 && errno == EBADF);
    fact("no writing by a mapping", mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, in_only, 1ll << 32) == MAP_FAILED && errno == EACCES &&
                                        mmap(0, 4096, PROT_READ, MAP_SHARED, in_only, 1ll << 32) == MAP_FAILED && errno == EINVAL &&
                                        mmap(0, 4096, PROT_WRITE, MAP_SHARED, out_only, 1ll << 32) == MAP_FAILED && errno == EACCES);
    signal(SIGALRM, on_alarm);
    alarm(1);
    fcntl(fd, F_SETFL, 0);
    fact("a read waits until a signal comes", read(fd, bytes, sizeof bytes) == -1 && errno == EINTR);
    int pipes[2];
    fact("others are as before", !pipe(pipes) && write(pipes[1], "x", 1) == 1 && read(pipes[0], bytes, 1) == 1 && *bytes == 'x');
    close(fd), close(loop), close(in_only), close(out_only), close(pipes[0]), close(pipes[1]);
}
static void on_segv(int sig) {
    (void)sig;
    static const char line[] = "ok the program's SIGSEGV handler runs\n";
    if (write(1, line, sizeof line - 1) < 0) _exit(3);
    _exit(bad);
}

int main(void) {
    struct stat st, card, render;
    struct statx sx;
    char buffer[PATH_MAX];
    setvbuf(stdout, NULL, _IONBF, 0);

    fact("stat of the render node", !stat("/dev/dri/renderD128", &render) && is_node(&render, 128));
    fact("lstat of the card, oddly written", !lstat("//dev/./dri//card0", &card) && is_node(&card, 0));
    fact("one file system, two inodes", card.st_dev == render.st_dev && card.st_ino != render.st_ino);
    fact("statx", !statx(AT_FDCWD, "/dev/dri/card0", 0, STATX_ALL, &sx) && S_ISCHR(sx.stx_mode) &&
                      sx.stx_rdev_major == 226 && sx.stx_rdev_minor == 0 && sx.stx_ino == card.st_ino);
    fact("no second card", stat("/dev/dri/card1", &st) == -1 && errno == ENOENT);
    fact("access", !access("/dev/dri/renderD128", R_OK | W_OK) && access("/dev/dri/card7", F_OK) == -1);

    errno = 77;
    int fd = open("/dev/dri/renderD128", O_RDWR | O_CLOEXEC);
    fact("open keeps errno", fd >= 0 && errno == 77);
    fact("close-on-exec as asked", fcntl(fd, F_GETFD) == FD_CLOEXEC);
    fact("fstat is the same node", !fstat(fd, &st) && is_node(&st, 128) && st.st_ino == render.st_ino && st.st_dev == render.st_dev);
    fact("fstatat of an empty path", !fstatat(fd, "", &st, AT_EMPTY_PATH) && is_node(&st, 128));
    fact("/proc/self/fd names the node", links_to(fd, "/dev/dri/renderD128"));
    snprintf(buffer, sizeof buffer, "/proc/self/fd/%d", fd);
    char *real = realpath(buffer, NULL);
    fact("realpath of /proc/self/fd", real && !strcmp(real, "/dev/dri/renderD128"));
    free(real);
    int again = open(buffer, O_RDWR);
    fact("/proc/self/fd opens the device anew", again >= 0 && again != fd && links_to(again, "/dev/dri/renderD128"));
    close(again);

    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 100);
    fact("a duplicate is a node", copy >= 100 && links_to(copy, "/dev/dri/renderD128"));
    close(copy);
    fact("closing the duplicate leaves the node", links_to(fd, "/dev/dri/renderD128"));
    int file = open("/dev/null", O_RDONLY);
    fact("dup2 replaces a node", dup2(file, fd) == fd && links_to(fd, "/dev/null"));
    fact("an ordinary descriptor knows no DRM", ioctl(fd, 0xc0406400u, buffer) == -1 && errno == ENOTTY);
    close(fd);
    close(file);

    int dir = open("/dev/dri", O_RDONLY | O_DIRECTORY);
    fd = openat(dir, "card0", O_RDWR);
    fact("openat relative to the directory", links_to(fd, "/dev/dri/card0") && !fstat(fd, &st) && is_node(&st, 0));
    fact("fstatat relative to the directory", !fstatat(dir, "card0", &st, 0) && is_node(&st, 0));
    fact("the directory has its own name", links_to(dir, "/dev/dri"));
    close_range(dir < fd ? dir : fd, dir < fd ? fd : dir, 0);
    fact("close_range closes", fcntl(fd, F_GETFD) == -1 && errno == EBADF);

    int nodes = 0;
    DIR *entries = opendir("/dev/dri");
    for (struct dirent *e; entries && (e = readdir(entries));) nodes += e->d_name[0] != '.';
    if (entries) {
        fd = openat(dirfd(entries), "renderD128", O_RDWR);
        fact("openat relative to a directory stream", links_to(fd, "/dev/dri/renderD128"));
        close(fd);
        closedir(entries);
    }
    fact("two nodes and their paths are listed", nodes == 3);
    struct dirent **list;
    int n = scandir("/sys/class/drm", &list, NULL, alphasort);
    fact("scandir", n == 5);
    while (n-- > 0) free(list[n]);

    fact("chdir into the tree", !chdir("/dev/dri") && getcwd(buffer, sizeof buffer) && !strcmp(buffer, "/dev/dri"));
    fd = open("card0", O_RDWR);
    fact("open relative to there", links_to(fd, "/dev/dri/card0") && !fstat(fd, &st) && is_node(&st, 0));
    close(fd);
    fact("stat relative to there", !stat("renderD128", &st) && is_node(&st, 128));
    fact("and out again", !chdir("/"));
    fact(".. leads to the real parent", !stat("/dev/dri/../null", &st) && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3));

    fact("sysfs by number", realpath("/sys/dev/char/226:128/device", buffer) && !strcmp(strrchr(buffer, '/'), "/0000:4d:00.0"));
    fact("the result is a path that is shown", !access(buffer, F_OK) && !strncmp(buffer, "/sys/devices/", 13));
    ssize_t length = readlink("/sys/dev/char/226:0/device/subsystem", buffer, sizeof buffer);
    fact("subsystem is pci", length > 4 && !memcmp(buffer + length - 4, "/pci", 4));
    fact("two tiles", !access("/sys/dev/char/226:0/device/tile1/gt1/engines/ccs/.defaults/job_timeout_ms", F_OK) &&
                          access("/sys/dev/char/226:0/device/tile2", F_OK) == -1);
    fact("device id", reads("/sys/class/drm/card0/device/device", "0x0bd5") && reads("/sys/class/drm/card0/device/vendor", "0x8086"));
    struct stat above;
    fact("debugfs looks mounted", !stat("/sys/kernel/debug/.", &st) && !stat("/sys/kernel/debug/..", &above) && st.st_dev != above.st_dev);
    fact("debugfs info", reads("/sys/kernel/debug/dri/0/info", "tile_count 2") && reads("/sys/kernel/debug/dri/128/name", "xe dev=0000:4d:00.0"));

    fact("files of sysfs are in sysfs", kind("/sys/class/drm/card0/device/uevent") == 0x62656572 &&
                                             kind("/sys/bus/pci/devices/0000:4d:00.0") == 0x62656572 && kind("/sys/class/drm") == 0x62656572);
    fact("those of debugfs in debugfs", kind("/sys/kernel/debug/dri/0/info") == 0x64626720);
    fact("nodes in devtmpfs", kind("/dev/dri") == 0x01021994 && kind("/dev/dri/renderD128") == 0x01021994);
    fact("real ones where they are", kind("/sys/class/drm/..") == 0x62656572 && kind("/proc/self/fd") == 0x9fa0);
    struct statfs fs;
    fact("statfs of nothing", statfs("/sys/class/drm/none", &fs) == -1 && errno == ENOENT && fstatfs(-1, &fs) == -1 && errno == EBADF);

    fd = open("/dev/dri/card0", O_RDWR);
    snprintf(buffer, sizeof buffer, "/proc/self/fdinfo/%d", fd);
    int info = open(buffer, O_RDONLY), stats = open("/sys/kernel/debug/dri/0/gt0/stats", O_RDONLY);
    fact("what the device tells, too", !fstatfs(info, &fs) && fs.f_type == 0x9fa0 && !fstatfs(stats, &fs) && fs.f_type == 0x64626720 &&
                                           !fstatfs(fd, &fs) && fs.f_type == 0x01021994);
    close(info), close(stats);
    fact("counters of both GTs", reads("/sys/kernel/debug/dri/0/gt0/stats", "svm_pagefault_count: ") &&
                                     reads("/sys/kernel/debug/dri/0/gt1/stats", "tlb_inval_count: "));
    events();
    pid_t child = fork();
    if (child == 0) {
        memset(buffer, 0, sizeof buffer);
        int inherited = ioctl(fd, 0xc0406400u, buffer) == 0;
        int own = open("/dev/dri/card0", O_RDWR);
        int alive = own >= 0 && !(ioctl(own, 0xc0406400u, buffer) == -1 && errno == ENODEV);
        _exit(inherited && alive && links_to(own, "/dev/dri/card0") ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    fact("a fork child uses what it inherited and opens its own", status == 0);
    fact("the parent goes on", !fstat(fd, &st) && is_node(&st, 0));

    child = fork();
    if (child == 0) {
        *(volatile int *)8 = 1;
        _exit(0);
    }
    waitpid(child, &status, 0);
    fact("a wild store still kills", WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);

    struct sigaction action = {.sa_handler = on_segv}, old;
    fact("sigaction gives the old action", !sigaction(SIGSEGV, &action, &old) && old.sa_handler == SIG_DFL);
    fact("and then the new one", !sigaction(SIGSEGV, NULL, &old) && old.sa_handler == on_segv);
    *(volatile int *)8 = 1;
    fact("a wild store is handled", 0);
    return 1;
}
