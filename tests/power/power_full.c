/*
 * A file system runs full under a database:
 *
 *   power_full DIRECTORY
 *
 * DIRECTORY is empty, on a file system of its own.  The log is copied, so that
 * it has holes, or blocks that it shares; a file takes all of the space but a
 * few MiB, and then records are put until there is none.  That is an error of
 * the put, never a signal; what was put before is there, it goes on when the
 * file is gone, and all is there when the process has ended without closing.
 * Prints how many, and ends with 0, or with 1 and says what was not so.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bftree.h"

enum {
    FIRST = 100,
    MOST = 200000,
    VALUE = 1000,
    LEFT = 4 << 20, /* bytes */
    BLOCK = 4096,
    ROUNDS = 100, /* of a tenth of a second, until freed space is there */
};

static char path[2][500]; /* the database and the file */

static int fail(const char *what)
{
    char text[500] = "";
    (void)bft_last_error(text, sizeof(text));
    printf("FULL: %s: %s\n", what, text);
    exit(1);
}

static void open_database(bft_db **db, bft_tree **tree)
{
    bft_options options = {.size = sizeof(options), .log_bytes = 16 << 20};
    if (bft_open(path[0], &options, db) != BFT_OK ||
        bft_tree_open(*db, "t", NULL, tree) != BFT_OK)
        fail("opening");
}

static bft_slice key_of(char text[16], unsigned n)
{
    return (bft_slice){text, (size_t)snprintf(text, 16, "%09u", n)};
}

static bft_status put(bft_tree *tree, unsigned n)
{
    char key[16], value[VALUE];
    memset(value, (int)(n % 251), sizeof(value));
    return bft_put(tree, key_of(key, n), (bft_slice){value, sizeof(value)});
}

static bool is_there(bft_tree *tree, unsigned n)
{
    char key[16];
    size_t len;
    return bft_get(tree, key_of(key, n), NULL, 0, &len) != BFT_NOT_FOUND;
}

static void expect(bft_db *db, bft_tree *tree, unsigned count)
{
    bft_slice all = {NULL, 0};
    uint64_t found = 0;
    if (bft_count(tree, all, all, &found) != BFT_OK || found != count)
        fail("what was put is not all there is");
    if (bft_verify(db) != BFT_OK)
        fail("verify");
}

/* Returns the file, which takes all but LEFT bytes. */
static int fill(void)
{
    static char bytes[1 << 16];
    int file = open(path[1], O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    off_t end;
    for (size_t i = 0; i < sizeof(bytes); i++) /* a file system may compress */
        bytes[i] = (char)rand();
    while (file >= 0 && write(file, bytes, sizeof(bytes)) > 0)
        continue;
    end = file < 0 ? -1 : lseek(file, 0, SEEK_END);
    if (end < LEFT || ftruncate(file, end - LEFT) != 0 || fsync(file) != 0)
        fail("the file system is too small");
    return file;
}

/* --- what is copied ------------------------------------------------------- */

/* As cp does: by reference where that can be, else without what is zero. */
static void copy_file(const char *from, const char *to)
{
    static const char zeros[BLOCK];
    int source = open(from, O_RDONLY | O_CLOEXEC);
    int copy = open(to, O_CREAT | O_WRONLY | O_EXCL | O_CLOEXEC, 0600);
    char bytes[BLOCK];
    off_t at = 0;
    ssize_t n = 0;

    if (source < 0 || copy < 0)
        fail("no file to copy");
    if (ioctl(copy, FICLONE, source) != 0) {
        while ((n = read(source, bytes, BLOCK)) > 0) {
            if (memcmp(bytes, zeros, (size_t)n) != 0 &&
                pwrite(copy, bytes, (size_t)n, at) != n)
                fail("no copy");
            at += n;
        }
        if (n < 0 || ftruncate(copy, at) != 0)
            fail("no copy");
    }
    if (fsync(copy) != 0 || close(copy) != 0 || close(source) != 0)
        fail("no copy");
}

/* The log of the closed database is a copy from here on; what it was copied
 * from stays. */
static void copy_log(void)
{
    char was[2000], now[2000];
    unsigned count = 0;
    DIR *dir = opendir(path[0]);
    const struct dirent *entry;

    /* The stream is ours alone.  NOLINTNEXTLINE(concurrency-mt-unsafe) */
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, "log-", 4) != 0)
            continue;
        (void)snprintf(now, sizeof(now), "%s/%s", path[0], entry->d_name);
        (void)snprintf(was, sizeof(was), "%s-was-%u", path[1], count++);
        if (rename(now, was) != 0)
            fail("no other name");
        copy_file(was, now);
    }
    if (dir == NULL || closedir(dir) != 0 || count == 0)
        fail("no log to copy");
}

/* Returns how many records there are when the program ends, of which all
 * survive. */
static unsigned run_full(void)
{
    const struct timespec tenth = {0, 100000000};
    bft_db *db;
    bft_tree *tree;
    bft_status status = BFT_OK;
    unsigned count = 0;
    int file;

    open_database(&db, &tree);
    for (; count < FIRST; count++)
        if (put(tree, count) != BFT_OK)
            fail("a put with room");
    if (bft_close(db) != BFT_OK)
        fail("closing with room");
    copy_log();
    open_database(&db, &tree);
    file = fill();
    for (; count < MOST; count++) {
        status = put(tree, count);
        if (status != BFT_OK)
            break;
        if (count % 64 == 0 && bft_sync(db) != BFT_OK)
            continue; /* the next put says whether it goes on */
    }
    if (status != BFT_NO_SPACE)
        fail("a full disk is not what the put tells");
    /* Where the log is not mapped the write of a frame may be what fails: then
     * that put is visible, as bft_put() says. */
    if (is_there(tree, count))
        count++;
    expect(db, tree, count);
    printf("full after %u records\n", count);
    if (close(file) != 0 || unlink(path[1]) != 0)
        fail("the file stays");
    sync();
    for (int i = 0; i < ROUNDS && status != BFT_OK; i++) {
        status = put(tree, count);
        if (status != BFT_OK)
            (void)nanosleep(&tenth, NULL);
    }
    if (status != BFT_OK)
        fail("no put with room again");
    count++;
    expect(db, tree, count);
    if (bft_sync(db) != BFT_OK)
        fail("a sync with room again");
    return count;
}

static void open_and_close(unsigned count)
{
    bft_db *db;
    bft_tree *tree;
    open_database(&db, &tree);
    expect(db, tree, count);
    if (bft_close(db) != BFT_OK)
        fail("closing");
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    int told[2], status;
    pid_t child;

    if (argc != 2) {
        fprintf(stderr, "usage: power_full DIRECTORY\n");
        return 2;
    }
    (void)snprintf(path[0], sizeof(path[0]), "%s/db", argv[1]);
    (void)snprintf(path[1], sizeof(path[1]), "%s/file", argv[1]);
    if (pipe(told) != 0)
        fail("no pipe");
    child = fork();
    if (child < 0)
        fail("no process");
    if (child == 0) {
        count = run_full();
        if (write(told[1], &count, sizeof(count)) != sizeof(count))
            fail("no word to the parent");
        (void)fflush(stdout);
        _exit(0); /* as a kill: the database is not closed */
    }
    if (waitpid(child, &status, 0) != child)
        fail("no child");
    if (WIFSIGNALED(status))
        printf("FULL: ended by signal %d\n", WTERMSIG(status));
    if (status != 0)
        return 1;
    if (read(told[0], &count, sizeof(count)) != sizeof(count))
        fail("no word from the child");
    open_and_close(count);
    open_and_close(count);
    return 0;
}
