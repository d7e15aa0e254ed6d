/*
 * Databases on media that cannot be written, or not by this user: they are read
 * as they are, left by a close or by a kill; and who wants to write is told so,
 * with the file.
 */
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "backup_model.h"

enum { RECORDS = 2000, VALUE = 100, NOBODY = 65534 };

/* What a child found, as its exit status. */
enum { RIGHT, WRONG, NOT_HERE };

static bft_slice key_of(char text[32], unsigned n)
{
    return (bft_slice){text, (size_t)snprintf(text, 32, "key%06u", n)};
}

/* --- in a child ----------------------------------------------------------- */

static int say(const char *what, int line)
{
    char text[400];

    (void)bft_last_error(text, sizeof(text));
    print_error("%s:%d: not so: %s; %s\n", __FILE__, line, what, text);
    return WRONG;
}

#define need(condition)                       \
    do {                                      \
        if (!(condition))                     \
            return say(#condition, __LINE__); \
    } while (0)

static int write_some(const char *path, const bft_options *options, bft_db **db)
{
    static const uint8_t value[VALUE];
    bft_tree_options o = {.size = sizeof(o)};
    char text[32];
    bft_tree *tree;

    need(bft_open(path, options, db) == BFT_OK);
    need(bft_tree_open(*db, "t", &o, &tree) == BFT_OK);
    for (unsigned n = 0; n < RECORDS; n++) {
        need(bft_put(tree, key_of(text, n), (bft_slice){value, VALUE}) ==
             BFT_OK);
        if (n == RECORDS / 2)
            need(bft_checkpoint(*db) == BFT_OK);
    }
    return RIGHT;
}

/* As if it was killed: the process ends. */
static int write_and_die(struct engine_fixture *f)
{
    bft_db *db;

    return write_some(f->path, &f->options, &db);
}

static int write_and_close(struct engine_fixture *f)
{
    bft_db *db;

    if (write_some(f->path, &f->options, &db) != RIGHT)
        return WRONG;
    need(bft_close(db) == BFT_OK);
    return RIGHT;
}

/* What is there is a backup of a database that is elsewhere. */
static int write_a_backup(struct engine_fixture *f)
{
    bft_options options = {.size = sizeof(options),
                           .storage = BFT_STORAGE_MEMORY};
    bft_backup_options backup = {.size = sizeof(backup),
                                 .to = BFT_BACKUP_FILES};
    bft_db *db;

    if (write_some("elsewhere", &options, &db) != RIGHT)
        return WRONG;
    need(bft_backup(db, f->path, &backup) == BFT_OK);
    need(bft_close(db) == BFT_OK);
    return RIGHT;
}

static int restore(struct engine_fixture *f)
{
    static const bft_slice none = {NULL, 0};
    bft_tree_options o = {.size = sizeof(o), .must_exist = true};
    char to[] = "/tmp/bftree-restored-XXXXXX";
    const char *from = f->path;
    bft_tree *tree;
    uint64_t count;
    bft_db *db;

    if (!mkdtemp(to))
        return NOT_HERE;
    need(bft_restore(&from, 1, to, NULL) == BFT_OK);
    need(bft_open(to, NULL, &db) == BFT_OK);
    need(bft_tree_open(db, "t", &o, &tree) == BFT_OK);
    need(bft_count(tree, none, none, &count) == BFT_OK);
    need(count == RECORDS);
    need(bft_close(db) == BFT_OK);
    backup_remove(f, to);
    return RIGHT;
}

static int read_only(struct engine_fixture *f)
{
    bft_tree_options o = {.size = sizeof(o), .must_exist = true};
    bft_options options = f->options;
    uint8_t value[VALUE];
    char text[400];
    bft_tree *tree;
    bft_db *db;
    size_t len;

    options.read_only = true;
    need(bft_open(f->path, &options, &db) == BFT_OK);
    need(bft_tree_open(db, "t", &o, &tree) == BFT_OK);
    for (unsigned n = 0; n < RECORDS; n++)
        need(bft_get(tree, key_of(text, n), value, VALUE, &len) == BFT_OK);
    need(bft_verify(db) == BFT_OK);
    need(bft_put(tree, key_of(text, 0), key_of(text, 0)) == BFT_READ_ONLY);
    need(bft_close(db) == BFT_OK);
    options.read_only = false;
    need(bft_open(f->path, &options, &db) == BFT_READ_ONLY);
    (void)bft_last_error(text, sizeof(text));
    need(strstr(text, f->path) && strstr(text, "/lock"));
    return RIGHT;
}

/* Go on as a user whose files they are not. */
static int be_nobody(struct engine_fixture *f)
{
    if (geteuid() == 0 &&
        (setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY)))
        return NOT_HERE;
    if (access(f->path, R_OK | X_OK) != 0) /* what it lies in is not for all */
        return NOT_HERE;
    need(access(f->path, W_OK) != 0);
    return RIGHT;
}

static int read_as_nobody(struct engine_fixture *f)
{
    int found = be_nobody(f);

    return found == RIGHT ? read_only(f) : found;
}

static int restore_as_nobody(struct engine_fixture *f)
{
    int found = be_nobody(f);

    return found == RIGHT ? restore(f) : found;
}

/* Go on as whoever runs this, on a mount of its own that nobody may write. */
static int be_mounted(struct engine_fixture *f)
{
    if (unshare(CLONE_NEWNS) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount(f->path, f->path, NULL, MS_BIND, NULL) != 0 ||
        mount(NULL, f->path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) != 0)
        return NOT_HERE;
    need(access(f->path, W_OK) != 0);
    return RIGHT;
}

static int read_mounted(struct engine_fixture *f)
{
    int found = be_mounted(f);

    return found == RIGHT ? read_only(f) : found;
}

static int restore_mounted(struct engine_fixture *f)
{
    int found = be_mounted(f);

    return found == RIGHT ? restore(f) : found;
}

/* --- the tests ------------------------------------------------------------ */

static int elsewhere(int (*part)(struct engine_fixture *f),
                     struct engine_fixture *f)
{
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0)
        _exit(part(f));
    assert_int_equal(child, waitpid(child, &status, 0));
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void chmod_all(const struct engine_fixture *f, mode_t files, mode_t dir)
{
    static const char *const name[] = {"lock", "data", "log-0000000000000000"};
    char path[400];

    for (int i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", f->path, name[i]);
        (void)chmod(path, files);
    }
    assert_int_equal(0, chmod(f->path, dir));
}

static void run(int (*leave)(struct engine_fixture *f),
                int (*look)(struct engine_fixture *f), const char *missing)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    int found;

    f->surroundings.vfs = f->vfs;
    f->options.internal = &f->surroundings;
    f->options.log_bytes = 2 << 20;
    f->options.log_segment_bytes = 1 << 20; /* one segment is all */
    f->options.no_threads = true;
    assert_int_equal(RIGHT, elsewhere(leave, f));
    chmod_all(f, 0444, 0555);
    found = elsewhere(look, f);
    chmod_all(f, 0644, 0755);
    assert_int_not_equal(WRONG, found);
    if (found == NOT_HERE)
        print_message("not tested here: %s\n", missing);
    engine_fixture_free(f);
}

static void a_directory_that_is_not_ours_is_read(void **state)
{
    (void)state;
    run(write_and_close, read_as_nobody, "files of another user");
    run(write_and_die, read_as_nobody, "files of another user");
}

static void a_mount_that_cannot_be_written_is_read(void **state)
{
    (void)state;
    run(write_and_close, read_mounted, "a read-only mount");
    run(write_and_die, read_mounted, "a read-only mount");
}

static void a_backup_there_is_restored(void **state)
{
    (void)state;
    run(write_a_backup, restore_as_nobody, "files of another user");
    run(write_a_backup, restore_mounted, "a read-only mount");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_directory_that_is_not_ours_is_read),
        cmocka_unit_test(a_mount_that_cannot_be_written_is_read),
        cmocka_unit_test(a_backup_there_is_restored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
