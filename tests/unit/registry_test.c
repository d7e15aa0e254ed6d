/*
 * Databases of one process are independent: one is opened and closed while another
 * recovers, or makes its last checkpoint, or calls functions that are not ours;
 * only who wants the same directory waits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine_fixture.h"

enum { PATIENCE_S = 100, OPENERS = 4, TURNS = 400 };

static bft_slice text_slice(const char *text)
{
    return (bft_slice){text, strlen(text)};
}

static void put_one(bft_db *db, const char *key)
{
    bft_tree *tree;
    expect_ok(bft_tree_open(db, "t", NULL, &tree));
    expect_ok(bft_put(tree, text_slice(key), text_slice(key)));
}

static bool has_one(bft_db *db, const char *key)
{
    char got[16];
    size_t len;
    bft_tree *tree;
    return bft_tree_open(db, "t", NULL, &tree) == BFT_OK &&
           bft_get(tree, text_slice(key), got, sizeof(got), &len) == BFT_OK;
}

/* --- a call that is stopped in the middle --------------------------------- */

/* What is called there, and how it goes on. */
static struct {
    struct bfti_vfs_ops ops;
    struct bfti_vfs vfs; /* the machine's, but for the lock */
    void (*within)(void);
    _Atomic int then; /* of the next call: a bft_status */
    const char *path; /* of another directory, or the same */
    const bft_options *options;
    bft_db *db;
    bft_status answer[4];
} stopped;

static _Atomic int stage; /* 1: within the call; 2: go on */

static bft_status stopped_lock(struct bfti_file *file)
{
    bft_status then;
    if (stopped.within)
        stopped.within();
    then = (bft_status)atomic_exchange(&stopped.then, BFT_OK);
    return then == BFT_OK ? bfti_vfs_posix()->ops->lock(file)
                          : bfti_fail(then, "as told");
}

/* Its openings call WITHIN. */
static struct engine_fixture *make_stopping(void (*within)(void))
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    memset(&stopped, 0, sizeof(stopped));
    atomic_store(&stage, 0);
    stopped.ops = *bfti_vfs_posix()->ops;
    stopped.ops.lock = stopped_lock;
    stopped.vfs.ops = &stopped.ops;
    stopped.within = within;
    f->vfs = &stopped.vfs;
    f->options.no_threads = true;
    return f;
}

static bft_status make_nothing(void *ctx, bft_db *db, void **object)
{
    *object = ctx;
    return db ? BFT_OK : BFT_INVALID;
}

static void call_within(void *object)
{
    (void)object;
    stopped.within();
}

/* The last closing of DB calls WITHIN. */
static void stop_closing(bft_db *db, void (*within)(void))
{
    void *object;
    stopped.within = within;
    expect_ok(
        bft_db_shared(db, "stop", make_nothing, call_within, db, &object));
}

static void wait_within(void)
{
    if (atomic_load(&stage) != 0)
        return;
    atomic_store(&stage, 1);
    while (atomic_load(&stage) != 2)
        sched_yield();
}

static void await_within(void)
{
    while (atomic_load(&stage) != 1)
        sched_yield();
}

static void *close_it(void *db)
{
    return bft_close(db) == BFT_OK ? NULL : db;
}

static void *open_it(void *arg)
{
    struct engine_fixture *f = arg;
    (void)engine_open_status(f); /* what it says, the test sees */
    return NULL;
}

/* A database that has nothing to do with it. */
static void use_another(void)
{
    struct engine_fixture *other = engine_fixture_make(ENGINE_POSIX);
    alarm(PATIENCE_S); /* else it would wait for ever */
    other->options.no_threads = true;
    engine_open(other);
    put_one(other->db, "other");
    engine_reopen(other);
    assert_true(has_one(other->db, "other"));
    engine_fixture_free(other);
    alarm(0);
}

static void another_is_used_while_one_is_closed(void **state)
{
    struct engine_fixture *f = make_stopping(NULL);
    pthread_t thread;
    void *failed;

    (void)state;
    engine_open(f);
    put_one(f->db, "here");
    stop_closing(f->db, wait_within);
    assert_int_equal(0, pthread_create(&thread, NULL, close_it, f->db));
    await_within();
    use_another();
    atomic_store(&stage, 2);
    assert_int_equal(0, pthread_join(thread, &failed));
    assert_null(failed);
    stopped.within = NULL;
    f->db = NULL;
    engine_open(f);
    assert_true(has_one(f->db, "here"));
    engine_fixture_free(f);
}

static void another_is_used_while_one_is_opened(void **state)
{
    struct engine_fixture *f = make_stopping(wait_within);
    pthread_t thread;

    (void)state;
    assert_int_equal(0, pthread_create(&thread, NULL, open_it, f));
    await_within();
    use_another();
    atomic_store(&stage, 2);
    assert_int_equal(0, pthread_join(thread, NULL));
    assert_non_null(f->db);
    engine_fixture_free(f);
}

/* --- calls from within ----------------------------------------------------- */

/* All that is called while a database is opened or closed may use others. */
static void who_is_called_may_use_another(void **state)
{
    struct engine_fixture *f = make_stopping(use_another);

    (void)state;
    engine_open(f);
    put_one(f->db, "here");
    stop_closing(f->db, use_another);
    engine_reopen(f);
    assert_true(has_one(f->db, "here"));
    stopped.within = NULL;
    engine_fixture_free(f);
}

/* The very directory: it would wait for itself. */
static void use_the_same(void)
{
    bft_db *db;
    alarm(PATIENCE_S);
    /* provokes: bft_open BFT_BUSY */
    stopped.answer[0] = bft_open(stopped.path, stopped.options, &db);
    stopped.answer[1] = bft_close(stopped.db);
    stopped.answer[2] = bft_backup(stopped.db, "none", NULL);
    alarm(0);
}

static void who_is_called_does_not_get_the_same(void **state)
{
    struct engine_fixture *f = make_stopping(use_the_same);

    (void)state;
    f->surroundings.vfs = f->vfs;
    f->options.internal = &f->surroundings;
    stopped.path = f->path;
    stopped.options = &f->options;
    stopped.answer[0] = BFT_OK;
    engine_open(f);
    assert_int_equal(BFT_BUSY, stopped.answer[0]);
    stopped.db = f->db;
    put_one(f->db, "here");
    stop_closing(f->db, use_the_same);
    stopped.answer[0] = BFT_OK;
    engine_close(f);
    assert_int_equal(BFT_BUSY, stopped.answer[0]);
    assert_int_equal(BFT_INVALID, stopped.answer[1]);
    assert_int_equal(BFT_INVALID, stopped.answer[2]);
    stopped.within = NULL;
    engine_open(f);
    assert_true(has_one(f->db, "here"));
    engine_fixture_free(f);
}

/* --- the same directory from another thread -------------------------------- */

static _Atomic bool came;

static void *open_and_look(void *arg)
{
    struct engine_fixture *f = arg;
    bft_db *db;
    void *missing = f;
    if (bft_open(f->path, &f->options, &db) != BFT_OK)
        return f;
    atomic_store(&came, true);
    if (has_one(db, "here"))
        missing = NULL;
    return bft_close(db) == BFT_OK ? missing : f;
}

static void sleep_a_little(void)
{
    const struct timespec little = {0, 50 * 1000 * 1000};
    nanosleep(&little, NULL);
}

static void who_wants_the_same_waits_for_its_end(void **state)
{
    struct engine_fixture *f = make_stopping(NULL);
    pthread_t closer, opener;
    void *failed;

    (void)state;
    f->surroundings.vfs = f->vfs;
    f->options.internal = &f->surroundings;
    engine_open(f);
    put_one(f->db, "here");
    stop_closing(f->db, wait_within);
    assert_int_equal(0, pthread_create(&closer, NULL, close_it, f->db));
    await_within();
    atomic_store(&came, false);
    assert_int_equal(0, pthread_create(&opener, NULL, open_and_look, f));
    sleep_a_little();
    assert_false(atomic_load(&came));
    atomic_store(&stage, 2);
    assert_int_equal(0, pthread_join(closer, &failed));
    assert_null(failed);
    assert_int_equal(0, pthread_join(opener, &failed));
    assert_null(failed);
    f->db = NULL;
    engine_fixture_free(f);
}

static void who_waits_opens_what_another_could_not(void **state)
{
    struct engine_fixture *f = make_stopping(NULL);
    pthread_t first, opener;
    void *failed;

    (void)state;
    f->surroundings.vfs = f->vfs;
    f->options.internal = &f->surroundings;
    engine_open(f);
    put_one(f->db, "here");
    engine_close(f);
    stopped.within = wait_within;
    atomic_store(&stopped.then, BFT_IO);
    assert_int_equal(0, pthread_create(&first, NULL, open_it, f));
    await_within();
    atomic_store(&came, false);
    assert_int_equal(0, pthread_create(&opener, NULL, open_and_look, f));
    sleep_a_little();
    assert_false(atomic_load(&came));
    atomic_store(&stage, 2);
    assert_int_equal(0, pthread_join(first, NULL));
    assert_null(f->db);
    assert_int_equal(0, pthread_join(opener, &failed));
    assert_null(failed);
    engine_fixture_free(f);
}

/* Its directory goes with the last handle, and comes back with the next. */
static void *open_and_close_in_memory(void *arg)
{
    const bft_options *options = arg;
    for (unsigned i = 0; i < TURNS; i++) {
        bft_db *db;
        bft_tree *tree;
        if (bft_open("registry", options, &db) != BFT_OK ||
            bft_tree_open(db, "t", NULL, &tree) != BFT_OK ||
            bft_put(tree, text_slice("a"), text_slice("b")) != BFT_OK ||
            !has_one(db, "a") || bft_close(db) != BFT_OK)
            return arg;
    }
    return NULL;
}

static void threads_open_and_close_what_goes_each_time(void **state)
{
    bft_options options = {.size = sizeof(options),
                           .no_threads = true,
                           .memory_bytes = 256 << 10,
                           .storage = BFT_STORAGE_MEMORY};
    pthread_t thread[OPENERS];
    bft_db *db;

    (void)state;
    for (size_t i = 0; i < OPENERS; i++)
        assert_int_equal(0, pthread_create(&thread[i], NULL,
                                           open_and_close_in_memory, &options));
    for (size_t i = 0; i < OPENERS; i++) {
        void *failed;
        assert_int_equal(0, pthread_join(thread[i], &failed));
        assert_null(failed);
    }
    options.must_exist = true;
    expect_status(BFT_NOT_FOUND, bft_open("registry", &options, &db));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_is_used_while_one_is_closed),
        cmocka_unit_test(another_is_used_while_one_is_opened),
        cmocka_unit_test(who_is_called_may_use_another),
        cmocka_unit_test(who_is_called_does_not_get_the_same),
        cmocka_unit_test(who_wants_the_same_waits_for_its_end),
        cmocka_unit_test(who_waits_opens_what_another_could_not),
        cmocka_unit_test(threads_open_and_close_what_goes_each_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
