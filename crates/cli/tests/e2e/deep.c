/*
 * A library opens the device: loaded as it is, with RTLD_DEEPBIND (bound at once and at the first call), and by functions of
 * libc's own handle; and by dlmopen, where it has a libc of its own.
 *
 *     deep LIBRARY      (this file with -DLIBRARY)
 *
 * One line each: "ok" or "no device", and whether a name that is nowhere leaves an error and one that is there does not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef LIBRARY
int open_node(void);
int (*kept)(const char *, int, ...) = open;
int open_node(void) {
    int by_call = open("/dev/dri/renderD128", O_RDWR), by_word = kept("/dev/dri/renderD128", O_RDWR);
    int both = by_call >= 0 && by_word >= 0;
    close(by_call);
    close(by_word);
    return both ? 0 : -1;
}
#else
static void tell(const char *how, int result) {
    printf("%s: %s\n", how, result < 0 ? "no device" : "ok");
    fflush(stdout);
}

static void by_library(const char *how, void *library) {
    int (*open_node)(void);
    if (!library || !(*(void **)&open_node = dlsym(library, "open_node")))
        printf("%s: %s\n", how, dlerror());
    else
        tell(how, open_node());
}

int main(int count, char **arguments) {
    if (count < 3)
        return 2;
    by_library("plain", dlopen(arguments[1], RTLD_NOW));
    by_library("deep, lazy", dlopen(arguments[2], RTLD_LAZY | RTLD_DEEPBIND));
    by_library("deep", dlopen(arguments[3], RTLD_NOW | RTLD_DEEPBIND));
    int (*libcs)(const char *, int, ...);
    void *libc = dlopen("libc.so.6", RTLD_NOW);
    *(void **)&libcs = dlsym(libc, "open");
    tell("libc's", libcs("/dev/dri/renderD128", O_RDWR));
    *(void **)&libcs = dlsym(RTLD_DEFAULT, "open");
    tell("default", libcs("/dev/dri/renderD128", O_RDWR));
    *(void **)&libcs = dlsym(libc, "__open");
    tell("__open", libcs("/dev/dri/renderD128", O_RDWR));
    *(void **)&libcs = dlvsym(libc, "open64", "GLIBC_2.2.5");
    tell("by version", libcs("/dev/dri/renderD128", O_RDWR));
    *(void **)&libcs = dlvsym(RTLD_DEFAULT, "__open64", "GLIBC_2.2.5");
    tell("default by version", libcs("/dev/dri/renderD128", O_RDWR));
    int is_there = dlsym(libc, "open") && !dlerror(), is_not = !dlsym(libc, "no_such_name") && dlerror();
    is_not &= !dlvsym(libc, "open", "GLIBC_0") && dlerror() && !dlvsym(RTLD_DEFAULT, "no_such_name", "GLIBC_0") && dlerror();
    printf("errors %s\n", is_there && is_not && !dlerror() ? "right" : "wrong");
    fflush(stdout);
    by_library("dlmopen", dlmopen(LM_ID_NEWLM, arguments[3], RTLD_NOW));
    return 0;
}
#endif
