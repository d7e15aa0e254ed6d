/*
 * Feeds beside writers, checkpoints that drop and reuse segments, truncations,
 * and other feeds that come and go: each sees every commit once and in order,
 * can read what it was told of, and one that holds the log makes a copy of all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bftree.h"
#include "tests/support/feed_copy.h"
#include "tests/support/random.h"

enum { WRITERS = 3, KEYS = 200, BATCH_KEYS = 12, DEFAULT_ROUNDS = 8000 };

struct shared {
    char path[256];
    bft_db *db;
    bft_tree *tree[2]; /* [1] is truncated now and then */
    atomic_bool stop;
    unsigned rounds;
    uint64_t seed;
    /* Whoever uses the handle has it: only calls on feeds may be beside a close. */
    pthread_mutex_t handle;
    bool closing; /* under it */
};

struct worker {
    struct shared *shared;
    unsigned id;
    pthread_t thread;
    _Atomic uint64_t commits;
    uint64_t gone;
    atomic_bool ended;
    char error[500]; /* first failure, for the main thread to report */
};

static void note(struct worker *w, const char *what)
{
    if (!w->error[0])
        snprintf(w->error, sizeof(w->error), "%s", what);
}

static void check(struct worker *w, bft_status status, const char *what)
{
    char text[200];
    if (status == BFT_OK || w->error[0])
        return;
    bft_last_error(text, sizeof(text));
    snprintf(w->error, sizeof(w->error), "%s: %s: %s", what,
             bft_strerror(status), text);
}

/* Did a call fail because the database is closed by now? */
static bool closed(const struct worker *w, bft_status status)
{
    return status == BFT_INVALID && atomic_load(&w->shared->stop);
}

/* --- writers -------------------------------------------------------------- */

/* A writer's own key; the values of a key count up. */
static void *writer_main(void *arg)
{
    struct worker *w = arg;
    struct shared *s = w->shared;
    uint64_t random = s->seed + w->id;
    uint64_t serial[KEYS] = {0};
    uint8_t value[300] = {0};
    bft_batch *batch;
    check(w, bft_batch_create(s->db, &batch), "create");
    for (unsigned round = 0; round < s->rounds && !w->error[0]; round++) {
        bool batched = random_of(&random) % 8 == 0;
        unsigned n = batched ? BATCH_KEYS : 1;
        uint64_t first = random_of(&random);
        for (unsigned i = 0; i < n; i++) {
            unsigned k = (unsigned)((first + i) % KEYS);
            char text[32];
            bft_slice key = {
                text, (size_t)snprintf(text, sizeof(text), "%u-%u", w->id, k)};
            bft_slice bytes = {value, 8 + random_of(&random) % 250};
            bft_tree *tree = s->tree[k % 4 == 0];
            serial[k]++;
            memcpy(value, &serial[k], sizeof(serial[k]));
            check(w,
                  batched ? bft_batch_put(batch, tree, key, bytes)
                          : bft_put(tree, key, bytes),
                  "put");
        }
        if (batched)
            check(w,
                  bft_batch_commit(
                      batch, random_of(&random) % 4 ? BFT_BUFFERED : BFT_SYNC,
                      NULL),
                  "commit");
    }
    bft_batch_free(batch);
    return NULL;
}

static void *checkpoint_main(void *arg)
{
    struct worker *w = arg;
    struct shared *s = w->shared;
    for (unsigned i = 0; !atomic_load(&s->stop) && !w->error[0]; i++) {
        check(w, bft_checkpoint(s->db), "checkpoint");
        if (i % 8 == 0)
            check(w, bft_tree_truncate(s->db, "two"), "truncate");
    }
    return NULL;
}

/* --- feeds ---------------------------------------------------------------- */

/* What the feed tells of tree "one" can be read: that value, or a later one. */
static void check_visible(struct worker *w, const bft_commit *commit,
                          uint32_t one)
{
    const bft_change *c = &commit->changes[commit->count - 1];
    uint64_t told, read = 0;
    uint8_t value[300];
    size_t len;
    bft_status status;
    if (c->op != BFT_CHANGE_PUT || c->tree_id != one)
        return;
    memcpy(&told, c->value.data, sizeof(told));
    status = bft_get(w->shared->tree[0], c->key, value, sizeof(value), &len);
    if (closed(w, status))
        return;
    check(w, status, "get");
    memcpy(&read, value, sizeof(read));
    if (read < told)
        note(w, "a commit came before it could be read");
}

/* At the lowest LSN, which may be dropped meanwhile.  NULL: the database was
 * closed. */
static bft_feed *begin(struct worker *w)
{
    bft_db *db = w->shared->db;
    bft_feed *feed;
    bft_status status;
    assert_int_equal(0, pthread_mutex_lock(&w->shared->handle));
    /* Ends: a round is repeated only after a further checkpoint. */
    do
        status = w->shared->closing
                     ? BFT_INVALID
                     : bft_feed_open(db, bft_feed_lowest(db), NULL, &feed);
    while (status == BFT_GONE);
    assert_int_equal(0, pthread_mutex_unlock(&w->shared->handle));
    if (!closed(w, status))
        check(w, status, "open");
    return status == BFT_OK ? feed : NULL;
}

/* Waits for each commit; begins again where the log does when it is late. */
static void *follower_main(void *arg)
{
    struct worker *w = arg;
    struct shared *s = w->shared;
    uint64_t last = 0;
    bft_feed *feed = begin(w);
    uint32_t one;
    check(w, bft_tree_id(s->tree[0], &one), "id");
    while (feed && !w->error[0]) {
        bft_commit commit;
        bft_status status =
            bft_feed_next(feed, w->id % 2 ? BFT_FEED_FOREVER : 1, &commit);
        if (status == BFT_GONE) {
            w->gone++;
            bft_feed_close(feed);
            feed = begin(w);
            continue;
        }
        if (status == BFT_NOT_FOUND && w->id % 2 == 0)
            continue;
        if (closed(w, status))
            break;
        check(w, status, "next");
        if (status != BFT_OK)
            break;
        if (commit.lsn <= last)
            note(w, "a commit came twice");
        last = commit.lsn;
        atomic_fetch_add(&w->commits, 1);
        assert_int_equal(0, pthread_mutex_lock(&s->handle));
        if (!s->closing)
            check_visible(w, &commit, one);
        assert_int_equal(0, pthread_mutex_unlock(&s->handle));
    }
    bft_feed_close(feed);
    atomic_store(&w->ended, true);
    return NULL;
}

/* Feeds that are opened, read a little, and closed. */
static void *visitor_main(void *arg)
{
    struct worker *w = arg;
    struct shared *s = w->shared;
    uint64_t random = s->seed + 99 + w->id;
    while (!atomic_load(&s->stop) && !w->error[0]) {
        bft_feed_options o = {.size = sizeof(o),
                              .hold_bytes = random_of(&random) % 100000};
        uint64_t at =
            random_of(&random) % 2 ? BFT_FEED_NOW : bft_feed_lowest(s->db);
        bft_commit commit;
        bft_feed *feed;
        bft_status status = bft_feed_open(s->db, at, &o, &feed);
        if (status == BFT_GONE && at != BFT_FEED_NOW)
            continue;
        check(w, status, "visit");
        for (unsigned i = 0; status == BFT_OK && i < 20; i++)
            status = bft_feed_next(feed, i % 2, &commit);
        if (status != BFT_NOT_FOUND && status != BFT_GONE)
            check(w, status, "visitor's next");
        w->commits++;
        bft_feed_close(feed);
    }
    return NULL;
}

/* --- the whole ------------------------------------------------------------ */

static void start(struct worker *w, struct shared *s, unsigned id,
                  void *(*run)(void *))
{
    memset(w, 0, sizeof(*w));
    w->shared = s;
    w->id = id;
    assert_int_equal(0, pthread_create(&w->thread, NULL, run, w));
}

static void join(struct worker *w)
{
    assert_int_equal(0, pthread_join(w->thread, NULL));
    if (w->error[0])
        fail_msg("%s", w->error);
}

static void open_shared(struct shared *s, bft_storage storage)
{
    bft_options options = {.size = sizeof(options),
                           .memory_bytes = 1 << 20,
                           .log_bytes = 256 << 10,
                           .log_segment_bytes = 64 << 10,
                           .leaf_bytes = 512,
                           .storage = storage};
    const char *rounds = getenv("BFT_STRESS_ROUNDS");
    memset(s, 0, sizeof(*s));
    assert_int_equal(0, pthread_mutex_init(&s->handle, NULL));
    s->seed = random_next();
    s->rounds = rounds ? (unsigned)strtoul(rounds, NULL, 10) : DEFAULT_ROUNDS;
    snprintf(s->path, sizeof(s->path), "feeds");
    if (storage == BFT_STORAGE_FILES) {
        snprintf(s->path, sizeof(s->path), "%s/feed-XXXXXX",
                 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
        assert_non_null(mkdtemp(s->path));
    }
    assert_int_equal(BFT_OK, bft_open(s->path, &options, &s->db));
    assert_int_equal(BFT_OK, bft_tree_open(s->db, "one", NULL, &s->tree[0]));
    assert_int_equal(BFT_OK, bft_tree_open(s->db, "two", NULL, &s->tree[1]));
}

static void remove_files(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    char name[600];
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        (void)unlink(name); /* not the two that begin with a dot */
    }
    closedir(dir);
    assert_int_equal(0, rmdir(path));
}

/* The writers have come to their end: is the copy all there is? */
static void finish(struct shared *s, struct feed_copy *copy, bft_feed *feed)
{
    assert_int_equal(BFT_OK, bft_sync(s->db));
    if (!feed_copy_catch_up(copy, feed) || !feed_copy_is(copy, s->db))
        fail_msg("%s", copy->error);
    assert_true(copy->lsn == bft_durable_lsn(s->db));
    assert_int_equal(BFT_OK, bft_verify(s->db));
}

/* What the main thread does while the others run: makes a copy. */
static void copy_until(struct shared *s, struct feed_copy *copy, bft_feed *feed)
{
    while (copy->commits < s->rounds * WRITERS / 2) {
        bft_commit commit;
        bft_status status = bft_feed_next(feed, 100, &commit);
        if (status == BFT_NOT_FOUND)
            continue;
        assert_int_equal(BFT_OK, status);
        if (!feed_copy_apply(copy, feed, &commit))
            fail_msg("%s", copy->error);
    }
}

/* A follower that came too late for all that the writers did has something to
 * follow all the same. */
static void give_a_commit(struct shared *s, const struct worker *follower)
{
    while (!atomic_load(&follower->commits) && !atomic_load(&follower->ended)) {
        assert_int_equal(BFT_OK, bft_put(s->tree[0], (bft_slice){"late", 4},
                                         (bft_slice){"\0\0\0\0\0\0\0", 8}));
        assert_int_equal(BFT_OK, bft_sync(s->db));
    }
}

/* HOLDING: a feed holds the log, and sees all of it; else nothing holds it, and
 * feeds may come too late. */
static void feeds_see_all_in_order(bft_storage storage, bool holding)
{
    bft_feed_options hold = {.size = sizeof(hold), .hold_bytes = 1u << 30};
    struct worker writer[WRITERS], checkpointer, follower[2], visitor;
    struct feed_copy copy = {.trees = 0};
    struct shared s;
    bft_feed *feed;

    random_start();
    open_shared(&s, storage);
    assert_int_equal(BFT_OK, bft_feed_open(s.db, 0, &hold, &feed));
    if (!holding)
        bft_feed_close(feed);
    for (unsigned i = 0; i < WRITERS; i++)
        start(&writer[i], &s, i, writer_main);
    start(&checkpointer, &s, 20, checkpoint_main);
    for (unsigned i = 0; i < 2; i++)
        start(&follower[i], &s, 30 + i, follower_main);
    start(&visitor, &s, 40, visitor_main);
    if (holding)
        copy_until(&s, &copy, feed);
    for (unsigned i = 0; i < WRITERS; i++)
        join(&writer[i]);
    for (unsigned i = 0; i < 2; i++)
        give_a_commit(&s, &follower[i]);
    atomic_store(&s.stop, true);
    join(&checkpointer);
    join(&visitor);
    if (holding) {
        finish(&s, &copy, feed);
        bft_feed_close(feed);
    }
    assert_int_equal(0, pthread_mutex_lock(&s.handle));
    s.closing = true;
    assert_int_equal(0, pthread_mutex_unlock(&s.handle));
    assert_int_equal(BFT_OK, bft_close(s.db)); /* which ends the followers */
    join(&follower[0]);
    join(&follower[1]);
    for (unsigned i = 0; i < 2; i++)
        assert_true(atomic_load(&follower[i].commits) > 0);
    print_message(
        "%llu commits copied, %llu passed over; followers %llu, %llu, "
        "late %llu times; %llu visits\n",
        (unsigned long long)copy.commits, (unsigned long long)copy.passed_over,
        (unsigned long long)atomic_load(&follower[0].commits),
        (unsigned long long)atomic_load(&follower[1].commits),
        (unsigned long long)(follower[0].gone + follower[1].gone),
        (unsigned long long)atomic_load(&visitor.commits));
    feed_copy_free(&copy);
    if (storage == BFT_STORAGE_FILES)
        remove_files(s.path);
}

static void a_holding_feed_copies_files(void **state)
{
    (void)state;
    feeds_see_all_in_order(BFT_STORAGE_FILES, true);
}

static void a_holding_feed_copies_memory(void **state)
{
    (void)state;
    feeds_see_all_in_order(BFT_STORAGE_MEMORY, true);
}

static void late_feeds_of_files_are_told_so(void **state)
{
    (void)state;
    feeds_see_all_in_order(BFT_STORAGE_FILES, false);
}

static void late_feeds_of_memory_are_told_so(void **state)
{
    (void)state;
    feeds_see_all_in_order(BFT_STORAGE_MEMORY, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_holding_feed_copies_files),
        cmocka_unit_test(a_holding_feed_copies_memory),
        cmocka_unit_test(late_feeds_of_files_are_told_so),
        cmocka_unit_test(late_feeds_of_memory_are_told_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
