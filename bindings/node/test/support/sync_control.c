/*
 * Loaded before the C library of a process under test: its syncs wait, or fail,
 * while a file says so, and are counted there; and the disk is full, or the addon
 * gets no memory to note a database.  The file that BFT_SYNC_CONTROL names holds
 * seven numbers of 32 bits: 1 to hold syncs up, 1 to have them fail; how many have
 * been asked for, and how many of those have ended; how many pass whatever is held
 * up; 1 to let no file grow; and 1 for that memory.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct control {
    _Atomic uint32_t hold, fail, asked, ended, passing, full, poor;
};

int fsync(int fd);
int fdatasync(int fd);
ssize_t pwrite(int fd, const void *buf, size_t len, off_t at);
ssize_t pwrite64(int fd, const void *buf, size_t len, off_t at);
void *realloc(void *block, size_t bytes);

static struct control *control(void)
{
    static struct control *_Atomic shared;
    struct control *mapped = atomic_load(&shared);
    const char *path = getenv("BFT_SYNC_CONTROL");
    int fd;

    if (mapped != NULL || path == NULL)
        return mapped;
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        abort();
    mapped =
        mmap(NULL, sizeof(*mapped), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (mapped == MAP_FAILED)
        abort();
    atomic_store(&shared, mapped);
    return mapped;
}

static int controlled(const char *name, int fd)
{
    static const struct timespec millisecond = {0, 1000000};
    struct control *c = control();
    /* The object pointer is a function's: dlsym() has no other way. */
    union {
        void *object;
        int (*function)(int fd);
    } real = {dlsym(RTLD_NEXT, name)};
    uint32_t number;
    int result;

    if (c == NULL)
        return real.function(fd);
    number = atomic_fetch_add(&c->asked, 1);
    while (atomic_load(&c->hold) != 0 && number >= atomic_load(&c->passing))
        (void)nanosleep(&millisecond, NULL);
    if (atomic_load(&c->fail) != 0) {
        errno = EIO;
        result = -1;
    } else {
        result = real.function(fd);
    }
    (void)atomic_fetch_add(&c->ended, 1);
    return result;
}

int fsync(int fd)
{
    return controlled("fsync", fd);
}

int fdatasync(int fd)
{
    return controlled("fdatasync", fd);
}

/* Blocks that a file has are its own. */
static int takes_room(int fd, size_t len, off_t at)
{
    struct stat file;
    return fstat(fd, &file) == 0 && at + (off_t)len > file.st_size;
}

static ssize_t writing(const char *name, int fd, const void *buf, size_t len,
                       off_t at)
{
    struct control *c = control();
    union {
        void *object;
        ssize_t (*function)(int fd, const void *buf, size_t len, off_t at);
    } real = {dlsym(RTLD_NEXT, name)};

    if (c != NULL && atomic_load(&c->full) != 0 && takes_room(fd, len, at)) {
        errno = ENOSPC;
        return -1;
    }
    return real.function(fd, buf, len, at);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t at)
{
    return writing("pwrite", fd, buf, len, at);
}

/* The name that programs with large files use; off_t is as long here. */
ssize_t pwrite64(int fd, const void *buf, size_t len, off_t at)
{
    return writing("pwrite64", fd, buf, len, at);
}

/* The first list of databases of a JavaScript thread has so many. */
enum { HANDLES = 16 };

/* Is CODE in the addon? */
static int of_addon(void *code)
{
    Dl_info info;
    return dladdr(code, &info) != 0 && info.dli_fname != NULL &&
           strstr(info.dli_fname, "bftree.node") != NULL;
}

void *realloc(void *block, size_t bytes)
{
    struct control *c = control();
    union {
        void *object;
        void *(*function)(void *block, size_t bytes);
    } real = {dlsym(RTLD_NEXT, "realloc")};

    if (c != NULL && atomic_load(&c->poor) != 0 && block == NULL &&
        bytes == HANDLES * sizeof(void *) &&
        of_addon(__builtin_return_address(0))) {
        errno = ENOMEM;
        return NULL;
    }
    return real.function(block, bytes);
}
