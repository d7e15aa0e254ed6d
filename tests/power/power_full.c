/*
 * A file system runs full under a database:
 *
 *   power_full DIRECTORY
 *
 * DIRECTORY is empty, on a file system of its own.  A file takes all of its space but
 * a few MiB, and then records are put until there is none.  That is an error of the
 * put, never a signal; what was put before is there, it goes on when the file is gone,
 * and all is there when the process has ended without closing.  Prints how many, and
 * ends with 0, or with 1 and says what was not so.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bftree.h"

enum {
    FIRST = 100,
    MOST = 200000,
    VALUE = 1000,
    LEFT = 4 << 20, /* bytes */
    ROUNDS = 100,   /* of a tenth of a second, until freed space is there */
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

/* Returns how many records there are when the program ends, of which all survive. */
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
    if (bft_sync(db) != BFT_OK)
        fail("a sync with room");
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
    if (waitpid(child, &status, 0) != child || status != 0)
        return 1;
    if (read(told[0], &count, sizeof(count)) != sizeof(count))
        fail("no word from the child");
    open_and_close(count);
    open_and_close(count);
    return 0;
}
