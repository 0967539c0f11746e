/* The device's files cannot be removed, renamed or changed: as in sysfs, root gets EPERM. What is not there is not there.
 * Only names that sysfs itself refuses to change, or that lie in a folder of the device's, are given: were the library wrong, nothing real would
 * be harmed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER "/sys/devices/pci0000:4c/0000:4c:01.0/0000:4d:00.0"
#define ATTRIBUTE FOLDER "/vendor"

static int bad;

#define FAILS(call, with)                                       \
    do {                                                        \
        errno = 0;                                              \
        if ((call) != -1 || errno != (with))                    \
            bad += printf("%s: %s\n", #call, strerror(errno));  \
    } while (0)

int main(void) {
    char here[] = "/tmp/changes-XXXXXX", *name = here, *volatile nowhere = (char *)1;
    if (access(FOLDER, F_OK))
        return 3;
    FAILS(unlink(ATTRIBUTE), EPERM);
    FAILS(unlink(FOLDER "/nothing"), ENOENT);
    FAILS(unlinkat(AT_FDCWD, ATTRIBUTE, 0), EPERM);
    FAILS(remove(ATTRIBUTE), EPERM);
    FAILS(rmdir(FOLDER), EPERM);
    FAILS(mkdir(FOLDER, 0755), EEXIST);
    FAILS(mkdir(FOLDER "/new", 0755), EPERM);
    FAILS(symlink("vendor", FOLDER "/new"), EPERM);
    FAILS(chmod(ATTRIBUTE, 0600), EPERM);
    FAILS(fchmodat(AT_FDCWD, ATTRIBUTE, 0666, 0), EPERM);
    FAILS(chown(ATTRIBUTE, 1, 1), EPERM);
    FAILS(truncate(ATTRIBUTE, 0), EPERM);
    FAILS(utimensat(AT_FDCWD, ATTRIBUTE, NULL, 0), EPERM);
    FAILS(rename(ATTRIBUTE, FOLDER "/new"), EPERM);
    FAILS(link(ATTRIBUTE, FOLDER "/new"), EPERM);
    FAILS(unlink(nowhere), EFAULT);
    int dir = open(FOLDER, O_RDONLY | O_DIRECTORY);
    FAILS(unlinkat(dir, "vendor", 0), EPERM);
    FAILS(chdir(FOLDER) ? 0 : unlink("vendor"), EPERM);
    if (access(ATTRIBUTE, F_OK) || access("vendor", F_OK))
        bad += printf("a file is gone\n");
    if (!mkdtemp(name) || chmod(name, 0700) || rename(name, FOLDER "/new") != -1 || errno != EPERM || rmdir(name))
        bad += printf("other files: %s\n", strerror(errno));
    return bad != 0;
}
