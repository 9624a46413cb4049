/* A disk that takes a millisecond to flush, for measurements on machines whose disk takes none or varies. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static void pause_once(void) {
    struct timespec pause = {0, 1000000};
    nanosleep(&pause, 0);
}

int fsync(int descriptor) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    pause_once();
    return next(descriptor);
}

int fdatasync(int descriptor) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    pause_once();
    return next(descriptor);
}
