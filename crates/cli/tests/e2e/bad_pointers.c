/* Every ioctl of the device, and some that are none, with arguments that point nowhere: an errno, never a signal, which a
 * handler of the program's would be told of: one from before the device was opened, and one from after. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static const unsigned requests[] = {
    0xc0406400, 0x40086409, 0xc010640c, 0xc0286440, 0xc0386441, 0xc0286442, 0xc0206443, 0x40186444, 0x40886445,
    0xc0306446, 0x40186447, 0xc0286448, 0x40386449, 0xc048644a, 0x4040644c, 0xc040644d,
};

static void told(int signal) {
    static const char text[] = "the program's handler was called\n";
    write(1, text, sizeof text - 1);
    _exit(signal);
}

static int handle(void) {
    struct sigaction action = {.sa_handler = told};
    return sigaction(SIGSEGV, &action, NULL) | sigaction(SIGBUS, &action, NULL);
}

static int try(int fd, char *gone) {
    int bad = 0;
    void *nowhere[] = {NULL, (void *)8, gone + 4096, gone + 4096 - 4, (void *)-4096};
    for (unsigned i = 0; i < sizeof requests / sizeof *requests; i++) {
        for (unsigned j = 0; j < sizeof nowhere / sizeof *nowhere; j++) {
            errno = 0;
            if (ioctl(fd, requests[i], nowhere[j]) != -1 || errno != EFAULT) {
                printf("%#x at %p: errno %d\n", requests[i], nowhere[j], errno);
                bad = 1;
            }
        }
    }
    return bad;
}

int main(void) {
    char *gone = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (gone == MAP_FAILED || munmap(gone + 4096, 4096) || handle())
        return 2;
    int fd = open("/dev/dri/renderD128", O_RDWR);
    int bad = fd < 0 || try(fd, gone) || handle() || try(fd, gone);
    return bad | (ioctl(fd, 0xc004647f, gone) != -1 || (errno != EINVAL && errno != ENOTTY));
}
