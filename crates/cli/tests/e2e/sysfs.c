/* Scheduling properties of an engine class in sysfs: what the kernel refuses is refused, and the old value stays. Says what
 * is wrong, a line each; says nothing where it is all right. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define ENGINES "/sys/class/drm/card0/device/tile1/gt1/engines/ccs/"

static int wrong;

/* Writes, and looks at what is there afterwards. `expected` is 0 or the errno. */
static void put(const char *name, int flags, const char *text, int expected, const char *after) {
    char path[200], now[64] = "";
    snprintf(path, sizeof path, ENGINES "%s", name);
    int fd = open(path, flags), error = 0;
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        error = errno;
    if (fd >= 0)
        close(fd);
    fd = open(path, O_RDONLY);
    ssize_t got = read(fd, now, sizeof now - 1);
    close(fd);
    if (error != expected || got < 1 || strcmp(now, after)) {
        printf("%s, \"%s\": %s, now \"%s\"\n", name, text, strerror(error), now);
        wrong = 1;
    }
}

/* The same by a stream, which writes when it is flushed or closed; and what a stream says of it. */
static void print(const char *name, const char *text, int expected, const char *after) {
    char path[200], now[64] = "";
    snprintf(path, sizeof path, ENGINES "%s", name);
    FILE *file = fopen(path, "w");
    int flushed = file && fputs(text, file) >= 0 ? fflush(file) : EOF, flush_error = flushed ? errno : 0;
    int failed = file && ferror(file), closed = file ? fclose(file) : EOF;
    int fd = open(path, O_RDONLY);
    ssize_t got = read(fd, now, sizeof now - 1);
    close(fd);
    if (flush_error != expected || closed || failed != !!expected || got < 1 || strcmp(now, after)) {
        printf("%s, \"%s\" by a stream: %s, now \"%s\"\n", name, text, strerror(flush_error), now);
        wrong = 1;
    }
}

/* Closed without a flush before, and without a buffer if libc had its way. */
static void print_at_close(const char *name, const char *text, int expected) {
    char path[200];
    snprintf(path, sizeof path, ENGINES "%s", name);
    FILE *file = fopen(path, "we");
    setvbuf(file, NULL, _IONBF, 0);
    int closed = file && fputs(text, file) >= 0 ? fclose(file) : 0, error = closed ? errno : 0;
    if (error != expected)
        printf("%s, \"%s\" by a stream that is closed: %s\n", name, text, strerror(error)), wrong = 1;
}

int main(void) {
    put("timeslice_duration_us", O_WRONLY, "garbage", EINVAL, "1000\n");
    put("timeslice_duration_us", O_WRONLY | O_TRUNC, "", 0, "1000\n");
    put("timeslice_duration_us", O_WRONLY | O_TRUNC, "7", 0, "7\n");
    put("timeslice_duration_us", O_RDWR | O_APPEND, "0x10\n", 0, "16\n");
    put("timeslice_duration_us", O_WRONLY, "4294967296", ERANGE, "16\n");
    put("timeslice_duration_us", O_WRONLY, "0", EINVAL, "16\n");
    put("timeslice_duration_us", O_WRONLY, "10000001", EINVAL, "16\n");
    put("timeslice_duration_min", O_WRONLY, "10", 0, "10\n");
    put("timeslice_duration_us", O_WRONLY, "9", EINVAL, "16\n");
    put("timeslice_duration_max", O_WRONLY, "9", EINVAL, "10000000\n");
    put("timeslice_duration_max", O_WRONLY, "10000001", EINVAL, "10000000\n");
    put(".defaults/timeslice_duration_us", O_WRONLY | O_TRUNC, "7", EACCES, "1000\n");
    put("../../freq0/min_freq", O_WRONLY, "899", EINVAL, "900\n");
    put("../../freq0/max_freq", O_WRONLY, "1601", EINVAL, "1600\n");
    put("../../freq0/max_freq", O_WRONLY, "fast", EINVAL, "1600\n");
    put("../../freq0/min_freq", O_WRONLY, "1500\n", 0, "1500\n");
    put("../../freq0/max_freq", O_WRONLY, "1000", 0, "1000\n");
    put("../../freq0/rpa_freq", O_WRONLY, "1000", EACCES, "1600\n");
    put("../../freq0/power_profile", O_WRONLY, "Base", EINVAL, "[base]    power_saving\n");
    put("../../freq0/power_profile", O_WRONLY, "power_saving\n", 0, "base    [power_saving]\n");
    put("../../freq0/throttle/reasons", O_WRONLY, "", EACCES, "none\n");
    put("../../gtidle/idle_residency_ms", O_WRONLY, "1", EACCES, "0\n");
    int fd = open(ENGINES "job_timeout_ms", O_WRONLY), other = dup(fd);
    const void *volatile nowhere = (void *)8;
    struct iovec parts[2] = {{"", 0}, {"60\n", 3}};
    if (write(other, nowhere, 2) != -1 || errno != EFAULT || writev(other, parts, 2) != 3 || pwrite(fd, "x", 1, 1) != -1)
        printf("writes by a duplicate, a vector, with an offset\n"), wrong = 1;
    put("job_timeout_ms", O_WRONLY, "none", EINVAL, "60\n");
    print("job_timeout_ms", "garbage", EINVAL, "60\n");
    print("job_timeout_ms", "0x20\n", 0, "32\n");
    print_at_close("job_timeout_ms", "many", EINVAL);
    print("job_timeout_ms", "99999", EINVAL, "32\n");
    print_at_close("job_timeout_ms", "70", 0);
    fd = open(ENGINES "job_timeout_ms", O_RDWR);
    if (ftruncate(fd, 0) || ftruncate(fd, -1) != -1 || errno != EINVAL)
        printf("ftruncate: %s\n", strerror(errno)), wrong = 1;
    close(fd);
    put("job_timeout_ms", O_WRONLY, "", 0, "70\n");
    return wrong;
}
