/* A program that ends while its threads are inside the library, and so inside its heap and libc's. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static void *look(void *none) {
    for (;;) {
        DIR *folder = opendir("/dev/dri");
        while (folder && readdir(folder)) {}
        if (folder) closedir(folder);
    }
    return none;
}
int main(void) {
    pthread_t threads[4];
    int card = open("/dev/dri/renderD128", O_RDWR);
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, look, NULL);
    usleep(20000);
    printf("%s\n", card < 0 ? "BAD no device" : "ok");
    fflush(stdout);
    _exit(0);
}
