/* Trees that are emptied at once, or get another name, while others use them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>

#include "engine_fixture.h"
#include "park.h"
#include "random.h"

enum { VALUE = 100, MANY = 3000, WRITERS = 3, ROUNDS = 30 };

static const bft_slice NONE = {NULL, 0};

struct text {
    char chars[32];
};

static bft_slice key_of(struct text *text, uint64_t n)
{
    int len = snprintf(text->chars, sizeof(text->chars), "key%09llu",
                       (unsigned long long)n);
    return (bft_slice){text->chars, (size_t)len};
}

static void put_some(bft_tree *tree, uint64_t count)
{
    static const uint8_t value[VALUE];
    struct text text;
    for (uint64_t n = 0; n < count; n++)
        expect_ok(bft_put(tree, key_of(&text, n),
                          (bft_slice){value, n % 100 ? 50 : VALUE}));
}

static uint64_t count_of(bft_tree *tree)
{
    uint64_t count;
    expect_ok(bft_count(tree, NONE, NONE, &count));
    return count;
}

static bft_tree *open_old(struct engine_fixture *f, const char *name)
{
    bft_tree_options o = {.size = sizeof(o), .must_exist = true};
    bft_tree *tree;
    expect_ok(bft_tree_open(f->db, name, &o, &tree));
    return tree;
}

static bool count_name(void *arg, const char *name)
{
    (void)name;
    ++*(unsigned *)arg;
    return true;
}

static unsigned names(struct engine_fixture *f)
{
    unsigned count = 0;
    expect_ok(bft_tree_list(f->db, count_name, &count));
    return count;
}

/* --- truncating ------------------------------------------------------------- */

static void a_truncated_tree_is_empty_and_goes_on(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = engine_fixture_open((enum engine_backend)b);
        bft_tree *tree = engine_tree(f, "t", 512), *other;
        bft_cursor *cursor;
        bft_record *first;
        struct text text;
        other = engine_tree(f, "other", 512);
        put_some(tree, MANY);
        put_some(other, 100);
        if (b == 1)
            engine_reopen(f);
        tree = open_old(f, "t");
        other = open_old(f, "other");
        expect_ok(bft_cursor_open_newest(tree, &cursor));
        expect_ok(bft_cursor_seek(cursor, BFT_GE, key_of(&text, 500)));
        expect_ok(bft_tree_truncate(f->db, "t"));
        assert_int_equal(0, count_of(tree));
        assert_int_equal(100, count_of(other));
        assert_int_equal(2, names(f));
        assert_ptr_equal(tree, open_old(f, "t"));
        expect_status(BFT_NOT_FOUND, bft_cursor_next(cursor));
        expect_status(BFT_NOT_FOUND, bft_first(tree, NONE, NONE, &first));
        put_some(tree, 10);
        expect_status(BFT_NOT_FOUND, bft_cursor_next(cursor));
        expect_ok(bft_cursor_prev(cursor));
        bft_cursor_close(cursor);
        expect_ok(bft_verify(f->db));
        engine_reopen(f);
        assert_int_equal(10, count_of(open_old(f, "t")));
        assert_int_equal(100, count_of(open_old(f, "other")));
        expect_ok(bft_tree_truncate(f->db, "t"));
        expect_ok(bft_tree_truncate(f->db, "t"));
        expect_ok(bft_tree_drop(f->db, "t"));
        expect_status(BFT_NOT_FOUND, bft_tree_truncate(f->db, "t"));
        expect_status(BFT_INVALID, bft_tree_truncate(f->db, ""));
        expect_status(BFT_INVALID, bft_tree_truncate(f->db, NULL));
        expect_status(BFT_INVALID, bft_tree_truncate(NULL, "t"));
        engine_fixture_free(f);
    }
}

/* Every call on a handle that was opened before goes to the tree of now. */
static void all_calls_find_the_successor(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    bft_slice key = {"k", 1}, one = {"1", 1}, two = {"2", 1};
    bft_batch *batch;
    uint8_t buf[10];
    bft_answer item = {.key = key, .buf = buf, .buf_len = sizeof(buf)};
    uint64_t count;
    size_t len;
    (void)state;
    expect_ok(bft_batch_create(f->db, &batch));
    for (int i = 0; i < 3; i++) {
        expect_ok(bft_put(tree, key, one));
        expect_ok(bft_batch_put(batch, tree, (bft_slice){"b", 1}, two));
        expect_ok(bft_tree_truncate(f->db, "t"));
        expect_status(BFT_NOT_FOUND, bft_get(tree, key, buf, 10, &len));
        expect_status(BFT_NOT_FOUND, bft_get_range(tree, key, 0, buf, 1, &len));
        expect_ok(bft_multi_get(tree, &item, 1));
        assert_int_equal(BFT_NOT_FOUND, item.status);
        expect_ok(bft_estimate(tree, NONE, NONE, &count));
        assert_int_equal(0, count);
        expect_ok(bft_delete_range(tree, NONE, NONE, &count));
        assert_int_equal(0, count);
        expect_status(BFT_CONFLICT, bft_replace(tree, key, &one, &two));
        expect_ok(bft_replace(tree, key, NULL, &two));
        expect_status(BFT_EXISTS, bft_insert(tree, key, one));
        expect_ok(bft_delete(tree, key));
        expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
        assert_int_equal(1, count_of(tree));
    }
    bft_batch_free(batch);
    engine_fixture_free(f);
}

static void truncation_gives_space_and_memory_back(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    uint64_t file = 0, used = 0;
    static uint8_t big[20000];
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    for (int round = 0; round < ROUNDS; round++) {
        bft_tree *tree = engine_tree(f, "t", 512);
        bft_stats stats;
        put_some(tree, MANY);
        expect_ok(bft_put(tree, (bft_slice){"big", 3},
                          (bft_slice){big, sizeof(big)}));
        expect_ok(bft_tree_truncate(f->db, "t"));
        expect_ok(bft_checkpoint(f->db));
        expect_ok(bft_checkpoint(f->db));
        stats = engine_stats(f);
        assert_true(stats.leaves <= 2);
        assert_true(stats.live_bytes < 256 << 10);
        /* A file whose end was free may have been cut by then, or not. */
        if (round <= ROUNDS / 2) {
            file = file > stats.file_bytes ? file : stats.file_bytes;
            used =
                used > stats.memory_used_bytes ? used : stats.memory_used_bytes;
        } else {
            assert_true(stats.file_bytes <= file + file / 4);
            assert_true(stats.memory_used_bytes <= used + (32 << 10));
        }
    }
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* Memory that runs out at any point: the tree is as it was, or it is done. */
static void without_memory_a_tree_stays_as_it_was(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    unsigned refused = 0;
    (void)state;
    f->options.no_threads = true;
    f->surroundings.plain_heap = true; /* each allocation may fail */
    engine_open(f);
    for (int64_t left = 0; left < 12; left++) {
        bft_tree *tree = engine_tree(f, "t", 512);
        bft_status status;
        uint64_t count, before;
        put_some(tree, 200);
        before = count_of(tree);
        atomic_store(&f->allocs_left, left);
        status = bft_tree_truncate(f->db, "t");
        atomic_store(&f->allocs_left, -1);
        count = count_of(tree);
        assert_true(status == BFT_OK || status == BFT_NO_MEMORY);
        assert_int_equal(status == BFT_OK ? 0 : before, count);
        refused += status != BFT_OK;
        put_some(tree, 300); /* splits go on */
        expect_ok(bft_verify(f->db));
        atomic_store(&f->allocs_left, left);
        status = bft_tree_rename(f->db, "t", "u");
        atomic_store(&f->allocs_left, -1);
        assert_true(status == BFT_OK || status == BFT_NO_MEMORY);
        refused += status != BFT_OK;
        if (status == BFT_OK)
            expect_ok(bft_tree_rename(f->db, "u", "t"));
        assert_int_equal(1, names(f));
        assert_int_equal(300, count_of(tree));
        if (left % 4 == 3)
            engine_reopen(f);
    }
    assert_true(refused >= 4);
    engine_fixture_free(f);
}

/* --- with others ------------------------------------------------------------ */

struct others {
    struct engine_fixture *f;
    bft_tree *a, *b;
    _Atomic bool stop;
    unsigned number;
    pthread_t thread;
};

static void must(bft_status status)
{
    char text[300];
    if (status == BFT_OK)
        return;
    (void)bft_last_error(text, sizeof(text));
    (void)fprintf(stderr, "status %d: %s\n", (int)status, text);
    abort();
}

static void *write_main(void *arg)
{
    struct others *o = arg;
    bft_batch *batch;
    must(bft_batch_create(o->f->db, &batch));
    for (uint64_t i = 0; !atomic_load(&o->stop) && i < 20000; i++) {
        struct text text;
        char value[VALUE];
        bft_slice key = key_of(&text, i * WRITERS + o->number), got;
        size_t len;
        bft_status status;
        memset(value, 'a' + (int)(i % 20), sizeof(value));
        got = (bft_slice){value, i % 50 ? 40 : VALUE};
        switch (i % 4) {
        case 0:
            must(bft_batch_put(batch, o->a, key, got));
            must(bft_batch_put(batch, o->b, key, got));
            must(bft_batch_commit(batch, BFT_BUFFERED, NULL));
            break;
        case 1:
            must(bft_put(o->a, key, got));
            break;
        case 2:
            status = bft_insert(o->a, key, got);
            must(status == BFT_EXISTS ? BFT_OK : status);
            break;
        default:
            status = bft_get(o->a, key_of(&text, i), value, VALUE, &len);
            must(status == BFT_NOT_FOUND ? BFT_OK : status);
            break;
        }
    }
    bft_batch_free(batch);
    return NULL;
}

static void *scan_main(void *arg)
{
    struct others *o = arg;
    while (!atomic_load(&o->stop)) {
        bft_cursor *cursor;
        uint64_t count;
        bft_status status;
        must(bft_cursor_open(o->a, &cursor));
        while ((status = bft_cursor_next(cursor)) == BFT_OK &&
               !atomic_load(&o->stop))
            ;
        must(status == BFT_NOT_FOUND ? BFT_OK : status);
        bft_cursor_close(cursor);
        must(bft_count(o->a, NONE, NONE, &count));
        must(bft_estimate(o->a, NONE, NONE, &count));
    }
    return NULL;
}

struct dump {
    uint64_t records, sum;
};

static struct dump dump_of(bft_tree *tree)
{
    struct dump dump = {0, 0};
    bft_cursor *cursor;
    bft_slice key, value;
    expect_ok(bft_cursor_open(tree, &cursor));
    while (bft_cursor_next(cursor) == BFT_OK) {
        expect_ok(bft_cursor_key(cursor, &key));
        expect_ok(bft_cursor_value(cursor, &value));
        dump.records++;
        for (size_t i = 0; i < key.len; i++)
            dump.sum = dump.sum * 31 + ((const uint8_t *)key.data)[i];
        for (size_t i = 0; i < value.len; i++)
            dump.sum = dump.sum * 31 + ((const uint8_t *)value.data)[i];
    }
    bft_cursor_close(cursor);
    return dump;
}

/* Nobody is told that the tree is gone; and what the log makes of it is what
 * there was: a write has come before the truncation in both, or in neither. */
static void writers_and_readers_go_on_during_truncations(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct others o[WRITERS + 1];
    struct dump a, b, again;
    (void)state;
    f->options.memory_bytes = 1 << 20;
    engine_open(f);
    for (unsigned i = 0; i <= WRITERS; i++) {
        memset(&o[i], 0, sizeof(o[i]));
        o[i].f = f;
        o[i].a = engine_tree(f, "a", 512);
        o[i].b = engine_tree(f, "b", 512);
        o[i].number = i;
        assert_int_equal(
            0, pthread_create(&o[i].thread, NULL,
                              i == WRITERS ? scan_main : write_main, &o[i]));
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct text text;
        expect_ok(bft_tree_truncate(f->db, "a"));
        if (round % 4 == 0)
            expect_ok(bft_checkpoint(f->db));
        if (round % 3 == 0)
            expect_ok(bft_tree_rename(f->db, "b", "c"));
        expect_ok(bft_put(o[0].b, key_of(&text, round), NONE));
        if (round % 3 == 0)
            expect_ok(bft_tree_rename(f->db, "c", "b"));
    }
    for (unsigned i = 0; i <= WRITERS; i++)
        atomic_store(&o[i].stop, true);
    for (unsigned i = 0; i <= WRITERS; i++)
        (void)pthread_join(o[i].thread, NULL);
    expect_ok(bft_verify(f->db));
    a = dump_of(o[0].a);
    b = dump_of(o[0].b);
    engine_crash(f, BFTI_SIM_KILL, 1);
    again = dump_of(open_old(f, "a"));
    assert_int_equal(a.records, again.records);
    assert_true(a.sum == again.sum);
    again = dump_of(open_old(f, "b"));
    assert_int_equal(b.records, again.records);
    assert_true(b.sum == again.sum);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* --- renaming --------------------------------------------------------------- */

static void a_tree_is_found_by_its_new_name_only(void **state)
{
    static char long_name[300];
    bft_tree_options o = {.size = sizeof(o), .must_exist = true};
    (void)state;
    memset(long_name, 'n', 256);
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = engine_fixture_open((enum engine_backend)b);
        bft_tree *tree = engine_tree(f, "old", 512), *none;
        put_some(tree, 100);
        (void)engine_tree(f, "other", 512);
        expect_status(BFT_EXISTS, bft_tree_rename(f->db, "old", "other"));
        expect_status(BFT_EXISTS, bft_tree_rename(f->db, "old", "old"));
        expect_status(BFT_NOT_FOUND, bft_tree_rename(f->db, "none", "new"));
        expect_status(BFT_INVALID, bft_tree_rename(f->db, "old", ""));
        expect_status(BFT_INVALID, bft_tree_rename(f->db, "old", long_name));
        expect_status(BFT_INVALID, bft_tree_rename(f->db, NULL, "new"));
        expect_status(BFT_INVALID, bft_tree_rename(NULL, "old", "new"));
        expect_ok(bft_tree_rename(f->db, "old", "new"));
        expect_status(BFT_NOT_FOUND, bft_tree_open(f->db, "old", &o, &none));
        assert_ptr_equal(tree, open_old(f, "new"));
        assert_int_equal(2, names(f));
        put_some(tree, 200);
        engine_reopen(f);
        expect_status(BFT_NOT_FOUND, bft_tree_open(f->db, "old", &o, &none));
        assert_int_equal(200, count_of(open_old(f, "new")));
        engine_fixture_free(f);
    }
}

/* What is created, renamed, truncated and dropped under the same few names comes
 * out of the log as it went in, wherever the last checkpoint was. */
static void names_that_change_hands_are_recovered(void **state)
{
    (void)state;
    for (unsigned run = 0; run < 60; run++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        static const char *const name[] = {"a", "b", "c"};
        uint64_t has[3] = {0}, next = 1; /* records of each; 0: no tree */
        f->options.no_threads = true;
        engine_open(f);
        for (unsigned i = 0; i < 40; i++) {
            unsigned n = (unsigned)random_below(3), m = (n + 1) % 3;
            switch (random_below(6)) {
            case 0:
            case 1:
                if (!has[n] && next < 60) {
                    has[n] = next++;
                    put_some(engine_tree(f, name[n], 512), has[n]);
                }
                break;
            case 2:
                expect_status(!has[n]  ? BFT_NOT_FOUND
                              : has[m] ? BFT_EXISTS
                                       : BFT_OK,
                              bft_tree_rename(f->db, name[n], name[m]));
                if (has[n] && !has[m]) {
                    has[m] = has[n];
                    has[n] = 0;
                }
                break;
            case 3:
                if (has[n] && next < 60) {
                    expect_ok(bft_tree_truncate(f->db, name[n]));
                    has[n] = next++;
                    put_some(open_old(f, name[n]), has[n]);
                }
                break;
            case 4:
                expect_status(has[n] ? BFT_OK : BFT_NOT_FOUND,
                              bft_tree_drop(f->db, name[n]));
                has[n] = 0;
                break;
            default:
                if (random_below(3) == 0)
                    expect_ok(bft_checkpoint(f->db));
                if (random_below(8) == 0)
                    engine_crash(f, BFTI_SIM_KILL, i);
            }
        }
        if (run % 2)
            expect_ok(bft_sync(f->db));
        engine_crash(f, run % 2 ? BFTI_SIM_DROP : BFTI_SIM_KILL, run);
        for (unsigned n = 0; n < 3; n++)
            if (has[n])
                assert_int_equal(has[n], count_of(open_old(f, name[n])));
        assert_int_equal(!!has[0] + !!has[1] + !!has[2], names(f));
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

#ifndef NDEBUG
static struct bfti_entry *entry_of(bft_tree *tree, bft_slice key)
{
    struct bfti_engine *engine = tree->db->engine;
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    uint64_t id;
    bfti_read_begin(rec);
    id = bfti_inner_find(bfti_tree_root(bfti_handle_tree(tree)), key);
    bfti_read_end(rec);
    return bfti_table_entry(engine->buffer.table, id);
}

static void put_large(void *arg)
{
    static const uint8_t value[1000];
    struct text text;
    expect_ok(
        bft_put(arg, key_of(&text, 1), (bft_slice){value, sizeof(value)}));
}

static void truncate_it(void *arg)
{
    expect_ok(bft_tree_truncate(bft_tree_db(arg), "t"));
}

/* A writer holds the leaf's latch, and appends to the leaf's page when the
 * truncation has listed what the leaf has: that is not all of it any more. */
static void truncation_takes_what_a_writer_still_adds(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    struct parked writer, truncation;
    struct text text;
    struct bfti_entry *entry;
    bft_tree *tree;
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    put_some(tree, 1); /* the page that is appended to */
    entry = entry_of(tree, key_of(&text, 1));
    assert_true(park_start(&writer, "write:logged", 0, put_large, tree));
    assert_true(
        park_start(&truncation, "drop:root-taken", 0, truncate_it, tree));
    atomic_store(&truncation.closed, false);
    /* Until it has listed the leaf, and waits for the latch. */
    while (atomic_load(&entry->latch) != 2)
        sched_yield();
    park_end(&writer);
    park_end(&truncation);
    assert_int_equal(0, count_of(tree));
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

struct opening {
    bft_db *db;
    bft_tree_options options;
    bft_status status;
    bft_tree *tree;
};

static void open_it(void *arg)
{
    struct opening *o = arg;
    o->options.size = sizeof(o->options);
    o->status = bft_tree_open(o->db, "t", &o->options, &o->tree);
}

/* Who found no tree, and then the one that another has made, is told if that is not
 * as it was to be. */
static void a_tree_that_another_makes_is_looked_at(void **state)
{
    struct opening late[] = {{.options.leaf_bytes = 1024},
                             {.options.ttl_ms = 1000},
                             {.options.leaf_bytes = 512}};
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
        struct parked opening;
        bft_tree *tree;
        late[i].db = f->db;
        assert_true(
            park_start(&opening, "tree:not-there", 0, open_it, &late[i]));
        tree = engine_tree(f, "t", 512);
        park_end(&opening);
        expect_status(i < 2 ? BFT_INVALID : BFT_OK, late[i].status);
        assert_ptr_equal(i < 2 ? NULL : tree, late[i].tree);
        engine_fixture_free(f);
    }
}

/* The tree is truncated when it was found, and its handle was not. */
static void the_handle_is_the_same_after_a_truncation(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    struct opening late = {.db = f->db};
    struct parked opening;
    (void)state;
    assert_true(park_start(&opening, "tree:found", 0, open_it, &late));
    expect_ok(bft_tree_truncate(f->db, "t"));
    park_end(&opening);
    expect_ok(late.status);
    assert_ptr_equal(tree, late.tree);
    engine_fixture_free(f);
}

static void commit_two(void *arg)
{
    struct text text;
    bft_batch *batch;
    expect_ok(bft_batch_create(bft_tree_db(arg), &batch));
    for (uint64_t n = 0; n < 2; n++)
        expect_ok(bft_batch_put(batch, arg, key_of(&text, n), NONE));
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    bft_batch_free(batch);
}

/* A batch that looks for its trees while one is truncated is in what was before,
 * or in what comes instead, as a whole. */
static void a_batch_is_on_one_side_of_a_truncation(void **state)
{
    (void)state;
    for (unsigned skip = 0; skip < 2; skip++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        struct parked writer, truncation;
        uint64_t count;
        bft_tree *tree;
        f->options.no_threads = true;
        engine_open(f);
        tree = engine_tree(f, "t", 512);
        assert_true(
            park_start(&writer, "batch:tree-found", skip, commit_two, tree));
        assert_true(
            park_start(&truncation, "truncate:added", 0, truncate_it, tree));
        park_end(&writer);
        park_end(&truncation);
        count = count_of(tree);
        assert_true(count == 0 || count == 2);
        engine_crash(f, BFTI_SIM_KILL, 1);
        assert_int_equal(count, count_of(open_old(f, "t")));
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

/* Once others find the new tree a cursor shows no record of the old one, though
 * its leaves are not taken away yet. */
static void a_cursor_leaves_the_tree_when_others_do(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    struct parked truncation;
    struct text text;
    bft_cursor *up, *down;
    bft_slice key;
    bft_tree *tree;
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", 4096);
    put_some(tree, 10);
    expect_ok(bft_cursor_open_newest(tree, &up));
    expect_ok(bft_cursor_open_newest(tree, &down));
    expect_ok(bft_cursor_first(up));
    expect_ok(bft_cursor_last(down));
    expect_ok(bft_cursor_prev(down));
    assert_true(
        park_start(&truncation, "truncate:added", 0, truncate_it, tree));
    expect_ok(bft_put(tree, key_of(&text, 5), (bft_slice){"new", 3}));
    expect_ok(bft_cursor_next(up));
    expect_ok(bft_cursor_key(up, &key));
    assert_int_equal(strlen(text.chars), key.len);
    assert_memory_equal(text.chars, key.data, key.len);
    expect_ok(bft_cursor_prev(down));
    expect_status(BFT_NOT_FOUND, bft_cursor_prev(down));
    expect_status(BFT_NOT_FOUND, bft_cursor_next(up));
    park_end(&truncation);
    bft_cursor_close(up);
    bft_cursor_close(down);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifndef NDEBUG
        cmocka_unit_test(a_batch_is_on_one_side_of_a_truncation),
        cmocka_unit_test(a_cursor_leaves_the_tree_when_others_do),
        cmocka_unit_test(truncation_takes_what_a_writer_still_adds),
        cmocka_unit_test(a_tree_that_another_makes_is_looked_at),
        cmocka_unit_test(the_handle_is_the_same_after_a_truncation),
#endif
        cmocka_unit_test(a_truncated_tree_is_empty_and_goes_on),
        cmocka_unit_test(all_calls_find_the_successor),
        cmocka_unit_test(truncation_gives_space_and_memory_back),
        cmocka_unit_test(without_memory_a_tree_stays_as_it_was),
        cmocka_unit_test(writers_and_readers_go_on_during_truncations),
        cmocka_unit_test(a_tree_is_found_by_its_new_name_only),
        cmocka_unit_test(names_that_change_hands_are_recovered),
    };
    (void)random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
