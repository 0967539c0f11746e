/*
 * What debugfs tells of a device as a whole: its open files, its buffers with a number, its system memory, the tables that
 * the driver wrote to its registers. Of all processes that have it; by one, too, that has it not.
 *
 *     debugfs
 *
 * A line for what is not as it should be; the last line is `DEBUGFS ok` or `DEBUGFS BAD failures=<n>`. Exit status 0 or 1; 2
 * where a call failed that must not. A client of one's own on a real device may run beside others: it looks for its rows only.
 */
#define _GNU_SOURCE
#include "is.h"
#include "prime.h"
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define ROOT "/sys/kernel/debug/dri/0/"
#define MB (1ul << 20)

struct client_name { uint64_t length, text; };
#define IOC_SET_CLIENT_NAME 0xc01064d1u
#define IOC_GET_MAGIC 0x80046402u

static char text[64 << 10];

/* All of a file; its lines. */
static int lines_of(const char *path) {
    int fd = open(path, O_RDONLY), lines = 0;
    ssize_t length = 0, more = fd < 0 ? -1 : 0;
    while (fd >= 0 && (more = read(fd, text + length, sizeof text - 1 - length)) > 0)
        length += more;
    if (more < 0)
        die(path);
    close(fd);
    text[length] = 0;
    for (char *at = text; (at = strchr(at, '\n')); at++)
        lines++;
    return lines;
}

static void begins(const char *path, const char *head) {
    lines_of(path);
    expect(!strncmp(text, head, strlen(head)), path);
}

/* The row of a client by its number, as its words; 0 where there is none. */
struct row { char command[32], master, authenticated, name[80]; int process, minor, user; unsigned magic; unsigned long long id; };

static int row_of(unsigned long long id, struct row *row) {
    lines_of(ROOT "clients");
    for (char *line = strchr(text, '\n'); line && line[1]; line = strchr(line + 1, '\n')) {
        int words = sscanf(line + 1, "%31s %d %d %c %c %d %u %79s %llu", row->command, &row->process, &row->minor, &row->master,
                           &row->authenticated, &row->user, &row->magic, row->name, &row->id);
        if (words == 9 && row->id == id)
            return 1;
    }
    return 0;
}

static unsigned long long client_of(int fd) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    lines_of(path);
    char *at = strstr(text, "drm-client-id:");
    return at ? strtoull(at + 14, NULL, 10) : 0;
}

static int may_administrate(void) {
    lines_of("/proc/self/status");
    char *at = strstr(text, "CapEff:");
    return at && strtoull(at + 7, NULL, 16) >> 21 & 1;
}

static unsigned long long number(const char *path, const char *key) {
    lines_of(path);
    char *at = strstr(text, key);
    return at ? strtoull(at + strlen(key), NULL, 10) : ~0ull;
}

static uint32_t buffer(int fd, uint64_t size, uint32_t placement) {
    struct gem_create create = {.size = size, .placement = placement, .cpu_caching = CACHING_WC};
    must_ioctl(fd, IOC_GEM_CREATE, &create, "GEM_CREATE");
    return create.handle;
}

static void clients(void) {
    const char *head = "             command  tgid dev master a   uid      magic "
                       "                                                            name                   id\n";
    begins(ROOT "clients", head);
    int administrates = may_administrate();
    int card = open("/dev/dri/card0", O_RDWR), render = open("/dev/dri/renderD128", O_RDWR);
    unsigned long long first = client_of(card), second = client_of(render);
    struct row row;
    IS(row_of(first, &row), 1);
    char command[16];
    prctl(PR_GET_NAME, command);
    IS(strcmp(row.command, command), 0);
    IS(row.process, getpid());
    IS(row.user, geteuid());
    IS(row.minor, 0);
    IS(row.master, 'y');
    IS(row.authenticated, 'y');
    IS(row.magic, 0);
    IS(strcmp(row.name, "<unset>"), 0);
    char *rows = strstr(text, "\n") + 1;
    IS(strchr(rows, '\n') - rows, strlen(head) - 1);
    IS(row_of(second, &row), 1);
    IS(row.minor, 128);
    IS(row.master, 'n');
    IS(row.authenticated, administrates ? 'y' : 'n');
    struct client_name name = {4, (uintptr_t)"anna"};
    must_ioctl(card, IOC_SET_CLIENT_NAME, &name, "SET_CLIENT_NAME");
    uint32_t magic = 0;
    must_ioctl(card, IOC_GET_MAGIC, &magic, "GET_MAGIC");
    IS(row_of(first, &row), 1);
    IS(strcmp(row.name, "anna"), 0);
    IS(row.magic, magic);
    close(card);
    IS(row_of(first, &row), 0);
    IS(row_of(second, &row), 1);
    close(render);
    IS(row_of(second, &row), 0);
}

static void names(void) {
    const char *head = "  name     size handles refcount\n";
    char row[64];
    begins(ROOT "gem_names", head);
    int card = open("/dev/dri/card0", O_RDWR), before = lines_of(ROOT "gem_names");
    uint32_t handle = buffer(card, MB, 1);
    IS(lines_of(ROOT "gem_names"), before);
    struct gem_flink flink = {.handle = handle}, again = flink;
    must_ioctl(card, IOC_GEM_FLINK, &flink, "GEM_FLINK");
    lines_of(ROOT "gem_names");
    snprintf(row, sizeof row, "\n%6u %8lu %7d %8d\n", flink.name, MB, 1, 1);
    expect(strstr(text, row) != NULL, row);
    struct gem_open second = {.name = flink.name};
    must_ioctl(card, IOC_GEM_OPEN, &second, "GEM_OPEN");
    int dma_buf;
    IS(prime_export(card, handle, PRIME_CLOEXEC, &dma_buf), 0);
    lines_of(ROOT "gem_names");
    snprintf(row, sizeof row, "\n%6u %8lu %7d %8d\n", flink.name, MB, 2, 2);
    expect(strstr(text, row) != NULL, row);
    uint32_t handles[2] = {handle, second.handle};
    for (int i = 0; i < 2; i++) {
        uint32_t close_it[2] = {handles[i]};
        must_ioctl(card, IOC_GEM_CLOSE, close_it, "GEM_CLOSE");
    }
    /* the number goes with the last handle, though the descriptor keeps the buffer */
    IS(lines_of(ROOT "gem_names"), before);
    handle = again.handle = buffer(card, 2 * MB, 1);
    must_ioctl(card, IOC_GEM_FLINK, &again, "GEM_FLINK");
    IS(again.name, flink.name);
    close(dma_buf);
    close(card);
    IS(lines_of(ROOT "gem_names"), before);
}

static int up[2], down[2];

/* A process with an open file and a buffer of 3 MiB. */
static void other(void) {
    char byte;
    int fd = open("/dev/dri/renderD128", O_RDWR);
    buffer(fd, 3 * MB, 1);
    unsigned long long id = client_of(fd);
    if (write(up[1], &id, sizeof id) != sizeof id || read(down[0], &byte, 1) != 1)
        die("the pipes");
    exit(0);
}

static void together(void) {
    unsigned long long id;
    int status;
    if (pipe(up) || pipe(down))
        die("pipe");
    pid_t child = fork();
    if (child == 0)
        other();
    if (read(up[0], &id, sizeof id) != sizeof id)
        die("the child");
    /* this process has no device */
    struct row row;
    IS(row_of(id, &row), 1);
    IS(row.process, child);
    unsigned long long before = number(ROOT "gtt_mm", "usage: ");
    IS(before >= 3 * MB, 1);
    int fd = open("/dev/dri/renderD128", O_RDWR);
    buffer(fd, 5 * MB, 1);
    IS(number(ROOT "gtt_mm", "usage: "), before + 5 * MB);
    uint32_t size;
    struct query_head *regions = ask(fd, QUERY_MEM_REGIONS, &size);
    IS(number(ROOT "gtt_mm", "size: "), ((struct mem_region *)(regions + 1))[0].total / 4096);
    free(regions);
    begins(ROOT "gtt_mm", "  use_type: 1\n  use_tt: 1\n");
    IS(row_of(id, &row), 1);
    IS(row_of(client_of(fd), &row), 1);
    IS(row.process, getpid());
    if (write(down[1], "x", 1) != 1)
        die("write");
    waitpid(child, &status, 0);
    IS(status, 0);
    IS(row_of(id, &row), 0);
    IS(number(ROOT "gtt_mm", "usage: "), before + 2 * MB);
    close(fd);
}

static void tables(void) {
    begins(ROOT "gt0/pat", "PAT table:");
    expect(strstr(text, "\nPAT[ 0] = [ ") != NULL, "an entry of the PAT");
    expect(lines_of(ROOT "gt0/mocs") > 4 && strstr(text, "MOCS[ 1] = [") != NULL, "an entry of the MOCS");
    /* where they are, and where older tools look for them */
    IS(lines_of(ROOT "tile0/gt0/pat"), lines_of(ROOT "gt0/pat"));
    IS(lines_of(ROOT "tile0/vram_mm"), lines_of(ROOT "vram0_mm"));
    struct stat about;
    IS(stat(ROOT "gtt_mm", &about), 0);
    IS(about.st_mode & 0777, 0444);
}

int main(void) {
    tables();
    clients();
    names();
    together();
    return verdict("DEBUGFS");
}
