/*
 * A database that only caches: whatever is put stays within the budget, what is
 * read stays, what it cannot do is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bftree_feed.h"
#include "engine_fixture.h"
#include "random.h"

enum { BUDGET = 256 << 10, VALUE = 100, KEY_MOST = 1024 };

static struct engine_fixture *make(bool threads, uint32_t leaf_bytes)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    f->options.storage = BFT_STORAGE_CACHE;
    f->options.memory_bytes = BUDGET;
    f->options.leaf_bytes = leaf_bytes;
    f->options.no_threads = !threads;
    f->options.durability = BFT_DEFAULT;
    engine_open(f);
    return f;
}

struct text {
    char chars[KEY_MOST];
};

static bft_slice number(struct text *text, uint64_t n)
{
    int len = snprintf(text->chars, sizeof(text->chars), "%016llx",
                       (unsigned long long)n);
    return (bft_slice){text->chars, (size_t)len};
}

static bool is_there(bft_tree *tree, bft_slice key)
{
    char buf[VALUE];
    size_t len;
    bft_status status = bft_get(tree, key, buf, sizeof(buf), &len);
    if (status != BFT_NOT_FOUND)
        expect_ok(status);
    return status == BFT_OK;
}

/* --- the bound ------------------------------------------------------------ */

enum pattern { ASCENDING, DESCENDING, RANDOM, CLUSTERS };

struct filling {
    enum pattern pattern;
    bool threads;
    uint32_t leaf_bytes;
    size_t key_len;
    bool back; /* keys differ at their end only: fences are long */
};

static bft_slice filling_key(const struct filling *how, struct text *text,
                             uint64_t n, uint64_t *random)
{
    size_t at = how->back ? how->key_len - 16 : 0;
    uint64_t value = n;
    if (how->pattern == DESCENDING)
        value = UINT32_MAX - n;
    else if (how->pattern == RANDOM)
        value = random_of(random);
    else if (how->pattern == CLUSTERS)
        value = random_mix(n / 100) + n % 100;
    memset(text->chars, 'k', how->key_len);
    for (int i = 0; i < 16; i++)
        text->chars[at + (size_t)i] =
            "0123456789abcdef"[value >> (60 - 4 * i) & 15];
    return (bft_slice){text->chars, how->key_len};
}

/* What bftree.h allows: an eighth more, and for each thread 16 leaves, 64 KiB at
 * least; two of its own. */
static size_t allowed(const struct filling *how)
{
    size_t each = (size_t)16 * how->leaf_bytes;
    return BUDGET + BUDGET / 8 + 3 * (each > 64 << 10 ? each : 64 << 10);
}

static void check_bound(struct engine_fixture *f, const struct filling *how)
{
    bft_stats stats = engine_stats(f);
    assert_in_range(stats.memory_used_bytes, 1, allowed(how));
    assert_int_equal(0, stats.file_bytes);
    assert_int_equal(0, stats.live_bytes + stats.held_bytes);
    assert_int_equal(0, stats.log_bytes + stats.log_segments_made);
    assert_int_equal(0, stats.extents_written + stats.checkpoints);
    assert_true(stats.leaves * 128 < BUDGET);
}

/* Puts 20 times the budget.  All memory that there is counts, what the engine
 * knows of and what not. */
static void fill(const struct filling *how)
{
    struct engine_fixture *f = make(how->threads, how->leaf_bytes);
    bft_tree *tree = engine_tree(f, "t", 0);
    char value[VALUE] = {0};
    uint64_t count = (uint64_t)20 * BUDGET / (how->key_len + VALUE), found = 0;
    uint64_t random = 1, again = 1;
    size_t first = engine_env_bytes(f), bytes, most = first, most_early = first;
    struct text text;
    for (uint64_t n = 0; n < count; n++) {
        expect_ok(bft_put(tree, filling_key(how, &text, n, &random),
                          (bft_slice){value, VALUE}));
        if (n % 64 == 0) {
            check_bound(f, how);
            bytes = engine_env_bytes(f);
            most = bytes > most ? bytes : most;
            if (n < count / 4)
                most_early = most;
        }
    }
    /* The pool was there from the beginning. */
    assert_in_range(most - first, 0, allowed(how) - BUDGET);
    assert_in_range(most, 1, most_early + (32 << 10));
    for (uint64_t n = 0; n < count; n++)
        found += is_there(tree, filling_key(how, &text, n, &again));
    /* A thread of its own forgets ahead, up to some fifty leaves. */
    assert_in_range(found * (how->key_len + VALUE),
                    BUDGET / (how->threads ? 32 : 8), BUDGET * 2);
    expect_ok(
        bft_count(tree, (bft_slice){NULL, 0}, (bft_slice){NULL, 0}, &again));
    if (how->threads) /* they may have gone on between the two */
        assert_in_range(again, 1, found);
    else
        assert_int_equal(found, again);
    assert_true(engine_stats(f).leaves_forgotten > 0);
    print_message("%llu of %llu are there; %zu bytes, %zu at first\n",
                  (unsigned long long)found, (unsigned long long)count, most,
                  first);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void whatever_is_put_stays_within_the_budget(void **state)
{
    (void)state;
    for (int pattern = ASCENDING; pattern <= CLUSTERS; pattern++) {
        fill(&(struct filling){.pattern = (enum pattern)pattern,
                               .leaf_bytes = 4096,
                               .key_len = 16});
        fill(&(struct filling){.pattern = (enum pattern)pattern,
                               .leaf_bytes = 512,
                               .key_len = 16});
    }
}

static void long_keys_stay_within_it(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        fill(&(struct filling){.pattern = i % 2 ? RANDOM : ASCENDING,
                               .leaf_bytes = 4096,
                               .key_len = 1024,
                               .back = i > 1});
}

static void threads_of_its_own_keep_it(void **state)
{
    (void)state;
    for (int pattern = ASCENDING; pattern <= RANDOM; pattern++)
        fill(&(struct filling){.pattern = (enum pattern)pattern,
                               .threads = true,
                               .leaf_bytes = 1024,
                               .key_len = 24});
}

/* Batches as large as they may be. */
static void batches_stay_within_it(void **state)
{
    const struct filling how = {.leaf_bytes = 1024, .key_len = 16};
    struct engine_fixture *f = make(false, how.leaf_bytes);
    bft_tree *tree = engine_tree(f, "t", 0);
    char value[VALUE] = {0};
    uint64_t random = 1, lsn;
    bft_batch *batch;
    (void)state;
    expect_ok(bft_batch_create(f->db, &batch));
    for (int i = 0; i < 200; i++) {
        bft_status status = BFT_OK;
        while (status == BFT_OK) {
            struct text text;
            status = bft_batch_put(batch, tree,
                                   number(&text, random_of(&random) >> 40),
                                   (bft_slice){value, VALUE});
        }
        expect_status(BFT_TOO_BIG, status);
        expect_ok(bft_batch_commit(batch, BFT_NONE, &lsn));
        assert_int_equal(0, lsn);
        check_bound(f, &how);
    }
    bft_batch_free(batch);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* A window of keys that moves on: what is behind it was deleted, one by one or by
 * ranges.  The leaves go as well. */
static void leaves_that_were_emptied_go(void **state)
{
    enum { WINDOW = 500, MOVES = 400 };
    struct engine_fixture *f = make(false, 512);
    bft_tree *tree = engine_tree(f, "t", 0);
    char value[VALUE] = {0};
    (void)state;
    for (uint64_t move = 0; move < MOVES; move++) {
        struct text low, high;
        for (uint64_t n = 0; n < WINDOW; n++)
            expect_ok(bft_put(tree, number(&low, move * WINDOW + n),
                              (bft_slice){value, VALUE}));
        if (move % 2)
            expect_ok(bft_delete_range(tree, number(&low, move * WINDOW),
                                       number(&high, move * WINDOW + WINDOW),
                                       NULL));
        for (uint64_t n = 0; n < WINDOW && move % 2 == 0; n++)
            expect_ok(bft_delete(tree, number(&low, move * WINDOW + n)));
    }
    assert_in_range(engine_stats(f).leaves, 1, 2 * BUDGET / 512);
    assert_true(engine_stats(f).leaf_merges > MOVES);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* Trees that come and go leave nothing but what their names take. */
static void trees_that_go_leave_room(void **state)
{
    enum { ROUNDS = 40 };
    struct engine_fixture *f = make(false, 1024);
    char value[VALUE] = {0};
    struct text text;
    bft_tree *tree;
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        tree = engine_tree(f, "coming", 0);
        for (uint64_t n = 0; n < 2000; n++)
            expect_ok(
                bft_put(tree, number(&text, n), (bft_slice){value, VALUE}));
        expect_ok(bft_tree_rename(f->db, "coming", "going"));
        if (round % 2)
            expect_ok(bft_tree_truncate(f->db, "going"));
        assert_int_equal(round % 2 == 0, is_there(tree, number(&text, 1999)));
        expect_ok(bft_tree_drop(f->db, "going"));
    }
    assert_int_equal(0, engine_stats(f).leaves);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* --- what stays ----------------------------------------------------------- */

enum { HOT = 100 };

static bft_slice hot_key(struct text *text, uint64_t i)
{
    return number(text, (i % HOT << 40) + 1);
}

/* How many of the hot ones are left behind 20 times the budget of others?  READ: one
 * of them is read at each put, and put again if it is not there, as users of caches
 * do; *MISSES counts that. */
static unsigned survivors(bool threads, bool read, unsigned *misses)
{
    struct engine_fixture *f = make(threads, 1024);
    bft_tree *tree = engine_tree(f, "t", 0);
    char value[VALUE] = {0};
    uint64_t count = (uint64_t)20 * BUDGET / (16 + VALUE), random = 7;
    unsigned left = 0;
    struct text text;
    *misses = 0;
    for (unsigned i = 0; i < HOT; i++)
        expect_ok(bft_put(tree, hot_key(&text, i), (bft_slice){value, VALUE}));
    for (uint64_t n = 0; n < count; n++) {
        uint64_t cold = (UINT64_C(1) << 60) + (random_of(&random) >> 8);
        expect_ok(
            bft_put(tree, number(&text, cold), (bft_slice){value, VALUE}));
        if (!read || is_there(tree, hot_key(&text, n)))
            continue;
        ++*misses;
        expect_ok(bft_put(tree, hot_key(&text, n), (bft_slice){value, VALUE}));
    }
    for (unsigned i = 0; i < HOT; i++)
        left += is_there(tree, hot_key(&text, i));
    engine_fixture_free(f);
    return left;
}

static void what_is_read_all_the_time_stays(void **state)
{
    (void)state;
    for (int threads = 0; threads < 2; threads++) {
        unsigned misses, none;
        unsigned hot = survivors(threads, true, &misses);
        unsigned cold = survivors(threads, false, &none);
        print_message("of %d records %u are left that were read, with %u "
                      "misses, and %u that were not\n",
                      HOT, hot, misses, cold);
        /* They lie in a few leaves, one of which a thread may have forgotten
         * just before the end: with threads the misses tell how often. */
        if (!threads)
            assert_in_range(hot, HOT * 3 / 4, HOT);
        assert_in_range(misses, 0, 20 * BUDGET / (16 + VALUE) / 8);
        assert_in_range(cold, 0, HOT / 10);
    }
}

static void nothing_goes_while_there_is_room(void **state)
{
    enum { RECORDS = BUDGET / 4 / (16 + VALUE) };
    struct engine_fixture *f = make(false, 1024);
    bft_tree *tree = engine_tree(f, "t", 0);
    char value[VALUE] = {0};
    uint64_t records;
    struct text text;
    (void)state;
    for (uint64_t n = 0; n < RECORDS; n++)
        expect_ok(bft_put(tree, number(&text, random_mix(n)),
                          (bft_slice){value, VALUE}));
    expect_ok(
        bft_count(tree, (bft_slice){NULL, 0}, (bft_slice){NULL, 0}, &records));
    assert_int_equal(RECORDS, records);
    assert_int_equal(0, engine_stats(f).leaves_forgotten);
    engine_fixture_free(f);
}

/* A tree's only leaf has no neighbour, so it stays when it was emptied, but not where
 * the heap is to have its next zone: else eviction would go on for ever to vacate
 * that, and forget what there is room for. */
static void trees_of_one_leaf_take_no_room_of_others(void **state)
{
    enum { TREES = 150, RECORDS = 20 * BUDGET / (16 + VALUE) };
    struct engine_fixture *f = make(false, 512);
    char value[VALUE] = {0}, name[16];
    bft_tree *tree;
    uint64_t forgotten;
    struct text text;
    (void)state;
    for (unsigned i = 0; i < TREES; i++) {
        snprintf(name, sizeof(name), "small%u", i);
        expect_ok(bft_put(engine_tree(f, name, 0), number(&text, i),
                          (bft_slice){value, VALUE}));
    }
    tree = engine_tree(f, "t", 0);
    for (uint64_t n = 0; n < RECORDS; n++)
        expect_ok(bft_put(tree, number(&text, random_mix(n)),
                          (bft_slice){value, VALUE}));
    assert_in_range(engine_stats(f).memory_used_bytes, BUDGET / 8 * 7,
                    BUDGET + BUDGET / 8);
    forgotten = engine_stats(f).leaves_forgotten;
    for (uint64_t n = 0; n < 1000; n++)
        expect_ok(bft_put(tree, number(&text, 0), (bft_slice){value, VALUE}));
    assert_in_range(engine_stats(f).leaves_forgotten - forgotten, 0, 40);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* A leaf's pages are blocks, which no leaf of 32 KiB fits as a whole. */
static void leaves_may_be_as_large_as_in_others(void **state)
{
    enum { LARGEST = 32 << 10, MEMORY = 2 << 20, RECORDS = 60000 };
    (void)state;
    for (int ascends = 0; ascends < 2; ascends++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
        char value[VALUE] = {0};
        bft_tree *tree;
        uint64_t found = 0;
        struct text text;
        f->options.storage = BFT_STORAGE_CACHE;
        f->options.memory_bytes = MEMORY;
        f->options.leaf_bytes = LARGEST;
        f->options.no_threads = true;
        f->options.durability = BFT_DEFAULT;
        engine_open(f);
        tree = engine_tree(f, "t", 0);
        for (uint64_t n = 0; n < RECORDS; n++)
            expect_ok(bft_put(tree, number(&text, ascends ? n : random_mix(n)),
                              (bft_slice){value, VALUE}));
        expect_ok(bft_count(tree, (bft_slice){NULL, 0}, (bft_slice){NULL, 0},
                            &found));
        assert_in_range(found * (16 + VALUE), MEMORY / 8, MEMORY);
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

static bft_status next_record(void *ctx, bft_bulk_record *record)
{
    static struct text text;
    static const char value[VALUE] = {'m'};
    uint64_t *n = ctx;
    if (*n == 1000)
        return BFT_NOT_FOUND;
    record->key = number(&text, (*n)++);
    record->value = (bft_slice){value, VALUE};
    return BFT_OK;
}

static void a_merge_of_sorted_records_is_batches(void **state)
{
    struct engine_fixture *f = make(false, 1024);
    bft_tree *tree = engine_tree(f, "t", 0);
    uint64_t n = 0, records;
    struct text text;
    (void)state;
    expect_ok(bft_bulk_merge(tree, next_record, &n, &records));
    assert_int_equal(1000, records);
    assert_true(is_there(tree, number(&text, 999)));
    engine_fixture_free(f);
}

/* --- what is refused ------------------------------------------------------ */

static void expect_refusal(bft_status expected, bft_status status,
                           const char *names)
{
    char text[512];
    bft_last_error(text, sizeof(text));
    assert_int_equal(expected, status);
    if (!strstr(text, "cache-only") || !strstr(text, names))
        fail_msg("%s, and not of %s", text, names);
}

static bft_status no_record(void *ctx, bft_bulk_record *record)
{
    (void)ctx;
    (void)record;
    return BFT_NOT_FOUND;
}

static void what_would_have_to_keep_is_refused(void **state)
{
    struct engine_fixture *f = make(true, 1024);
    bft_tree *tree = engine_tree(f, "t", 0);
    bft_snapshot *snapshot;
    bft_cursor *cursor;
    bft_batch *batch;
    bft_feed *feed;
    bft_txn *txn;
    uint64_t lsn;
    (void)state;
    expect_refusal(BFT_UNSUPPORTED, bft_snapshot_take(f->db, &snapshot),
                   "snapshots");
    expect_refusal(BFT_UNSUPPORTED,
                   bft_txn_begin(f->db, BFT_SERIALIZABLE, &txn),
                   "transactions");
    expect_refusal(BFT_UNSUPPORTED, bft_cursor_open(tree, &cursor),
                   "for the newest");
    expect_refusal(BFT_UNSUPPORTED, bft_feed_open(f->db, 0, NULL, &feed),
                   "feeds");
    expect_refusal(BFT_UNSUPPORTED, bft_backup(f->db, "elsewhere", NULL),
                   "backups");
    expect_refusal(BFT_UNSUPPORTED,
                   bft_bulk_load(tree, NULL, no_record, NULL, NULL), "loads");
    expect_refusal(BFT_UNSUPPORTED, bft_sync(f->db), "survives");
    expect_refusal(BFT_UNSUPPORTED, bft_checkpoint(f->db), "survives");
    expect_refusal(BFT_UNSUPPORTED, bft_wait_durable(f->db, 0), "survives");
    assert_int_equal(0, bft_durable_lsn(f->db));
    assert_int_equal(0, bft_feed_lowest(f->db));
    expect_ok(bft_batch_create(f->db, &batch));
    expect_ok(
        bft_batch_put(batch, tree, (bft_slice){"k", 1}, (bft_slice){"v", 1}));
    expect_refusal(BFT_UNSUPPORTED, bft_batch_commit(batch, BFT_SYNC, &lsn),
                   "survives");
    expect_refusal(BFT_UNSUPPORTED, bft_batch_commit(batch, BFT_BUFFERED, NULL),
                   "survives");
    assert_int_equal(1, bft_batch_count(batch));
    assert_false(is_there(tree, (bft_slice){"k", 1}));
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    assert_true(is_there(tree, (bft_slice){"k", 1}));
    bft_batch_free(batch);
    expect_ok(bft_cursor_open_newest(tree, &cursor));
    expect_ok(bft_cursor_first(cursor));
    expect_ok(bft_cursor_refresh(cursor));
    expect_ok(bft_cursor_first(cursor));
    bft_cursor_close(cursor);
    engine_fixture_free(f);
}

/* How long may a value be with a key of 8 bytes in leaves of 1,024?  Of an eighth
 * three times, less 64, less a slot of 12. */
enum { VALUE_LIMIT = 1024 / 8 * 3 - 64 - 12 - 8 };

static bft_status zeros(void *ctx, void *buf, size_t len)
{
    (void)ctx;
    memset(buf, 0, len);
    return BFT_OK;
}

static void a_value_has_to_fit_into_a_leaf(void **state)
{
    struct engine_fixture *f = make(false, 1024);
    bft_tree *tree = engine_tree(f, "t", 0);
    char value[VALUE_LIMIT + 1] = {0};
    bft_slice key = {"12345678", 8}, fits = {value, VALUE_LIMIT},
              large = {value, VALUE_LIMIT + 1}, none = {NULL, 0};
    bft_batch *batch;
    (void)state;
    expect_ok(bft_put(tree, key, fits));
    expect_refusal(BFT_TOO_BIG, bft_put(tree, key, large), "leaf of 1024");
    expect_refusal(BFT_TOO_BIG, bft_replace(tree, key, &fits, &large), "leaf");
    expect_ok(bft_put_stream(tree, key, fits.len, zeros, NULL));
    expect_refusal(BFT_TOO_BIG,
                   bft_put_stream(tree, key, large.len, zeros, NULL), "leaf");
    expect_ok(bft_batch_create(f->db, &batch));
    expect_ok(bft_batch_put(batch, tree, (bft_slice){"k", 1}, none));
    expect_ok(bft_batch_put(batch, tree, key, large));
    expect_refusal(BFT_TOO_BIG, bft_batch_commit(batch, BFT_NONE, NULL),
                   "leaf");
    bft_batch_free(batch);
    assert_false(is_there(tree, (bft_slice){"k", 1}));
    expect_ok(bft_delete(tree, key));
    engine_fixture_free(f);
}

static void expect_option(bft_options options, const char *names)
{
    bft_db *db;
    expect_refusal(BFT_INVALID, bft_open("cache", &options, &db), names);
    assert_null(db);
}

static void options_that_contradict_it_are_refused(void **state)
{
    const bft_options fine = {.size = sizeof(fine),
                              .storage = BFT_STORAGE_CACHE,
                              .memory_bytes = BUDGET};
    bft_options options = fine;
    bft_tree_options large = {.size = sizeof(large), .leaf_bytes = 32768};
    bft_db *db, *other;
    bft_tree *tree;
    (void)state;
    options.durability = BFT_SYNC;
    expect_option(options, "option durability");
    options.durability = BFT_BUFFERED;
    expect_option(options, "option durability");
    options = fine;
    options.read_only = true;
    expect_option(options, "option read_only");
    options = fine;
    options.compress = true;
    expect_option(options, "option compress");
    options = fine;
    options.leaf_bytes = 8192 + 512;
    expect_option(options, "option leaf_bytes");
    options.leaf_bytes = 8192;
    expect_ok(bft_open("cache", &options, &db));
    expect_refusal(BFT_INVALID, bft_tree_open(db, "t", &large, &tree),
                   "option leaf_bytes");
    options.storage = BFT_STORAGE_MEMORY;
    expect_status(BFT_INVALID, bft_open("cache", &options, &other));
    expect_ok(bft_close(db));
}

/* It is gone when it is closed, and a name that another has is not taken. */
static void it_begins_and_ends_empty(void **state)
{
    bft_options options = {.size = sizeof(options),
                           .storage = BFT_STORAGE_CACHE,
                           .must_exist = true};
    bft_options memory = {.size = sizeof(memory),
                          .storage = BFT_STORAGE_MEMORY};
    bft_backup_options to = {.size = sizeof(to), .to = BFT_BACKUP_MEMORY};
    bft_db *db, *other;
    bft_tree *tree, *same;
    (void)state;
    expect_status(BFT_NOT_FOUND, bft_open("cache", &options, &db));
    options.must_exist = false;
    options.error_if_exists = true;
    expect_ok(bft_open("cache", &options, &db));
    expect_status(BFT_EXISTS, bft_open("cache", &options, &other));
    options.error_if_exists = false;
    expect_ok(bft_open("cache", &options, &other));
    expect_ok(bft_tree_open(db, "t", NULL, &tree));
    expect_ok(bft_tree_open(other, "t", NULL, &same));
    expect_ok(bft_put(tree, (bft_slice){"k", 1}, (bft_slice){"v", 1}));
    assert_true(is_there(same, (bft_slice){"k", 1}));
    expect_ok(bft_close(db));
    assert_true(is_there(same, (bft_slice){"k", 1}));
    expect_ok(bft_close(other));
    options.must_exist = true;
    expect_status(BFT_NOT_FOUND, bft_open("cache", &options, &db));
    options.must_exist = false;

    expect_ok(bft_open("memory", &memory, &db));
    expect_ok(bft_backup(db, "copy", &to));
    expect_ok(bft_close(db));
    expect_refusal(BFT_INVALID, bft_open("copy", &options, &db), "holds");
    expect_ok(bft_open("copy", &memory, &db));
    expect_ok(bft_close(db));
}

static bft_status give_up(void *ctx, const bft_backup_progress *progress)
{
    (void)ctx;
    (void)progress;
    return BFT_CONFLICT;
}

/* Nothing is taken away where there is something else, or below it. */
static void what_it_is_refused_stays(void **state)
{
    bft_options options = {.size = sizeof(options),
                           .storage = BFT_STORAGE_CACHE};
    bft_options memory = {.size = sizeof(memory),
                          .storage = BFT_STORAGE_MEMORY};
    bft_backup_options to = {
        .size = sizeof(to), .to = BFT_BACKUP_MEMORY, .progress = give_up};
    bft_db *db, *below;
    bft_tree *tree;
    (void)state;
    expect_ok(bft_open("memory", &memory, &db));
    expect_ok(bft_tree_open(db, "t", NULL, &tree));
    expect_ok(bft_put(tree, (bft_slice){"k", 1}, (bft_slice){"v", 1}));
    expect_status(BFT_CONFLICT, bft_backup(db, "half", &to));
    expect_ok(bft_close(db));
    for (int i = 0; i < 2; i++)
        expect_status(BFT_CORRUPT, bft_open("half", &options, &db));

    expect_ok(bft_open("cache", &options, &db));
    expect_ok(bft_open("cache/below", &options, &below));
    expect_ok(bft_close(db));
    expect_ok(bft_open("cache", &options, &db));
    expect_ok(bft_close(below));
    expect_ok(bft_close(db));
}

static void what_is_restored_is_no_cache(void **state)
{
    bft_options options = {.size = sizeof(options),
                           .storage = BFT_STORAGE_CACHE};
    const char *backup = "nowhere";
    (void)state;
    expect_status(BFT_INVALID, bft_restore(&backup, 1, "there", &options));
}

/* --- without memory ------------------------------------------------------- */

/* Whatever allocation fails, a put does so as a whole, and what is read is what was
 * put last, or nothing. */
static void without_memory_nothing_older_comes_back(void **state)
{
    enum { KEYS = 6000, ROUNDS = 60 };
    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct engine_fixture *f = make(false, 512);
        bft_tree *tree = engine_tree(f, "t", 0);
        unsigned *newest = calloc(KEYS, sizeof(*newest)), failures = 0;
        uint64_t random = round;
        f->tolerated = BFT_NO_MEMORY;
        assert_non_null(newest);
        for (unsigned n = 1; n < 12000; n++) {
            unsigned key = (unsigned)(random_of(&random) % KEYS), value[20];
            struct text text;
            size_t len;
            bft_status status;
            if (n > 3000 && n % 40 == 0)
                atomic_store(&f->allocs_left,
                             (int64_t)(random_of(&random) % 60));
            value[0] = n;
            status = bft_put(tree, number(&text, key),
                             (bft_slice){value, sizeof(value)});
            if (status != BFT_OK) {
                expect_status(BFT_NO_MEMORY, status);
                failures++;
            }
            atomic_store(&f->allocs_left, -1);
            len = 0;
            if (bft_get(tree, number(&text, key), value, sizeof(value), &len) ==
                BFT_OK) {
                assert_true(value[0] == n ||
                            (status != BFT_OK && value[0] == newest[key]));
                newest[key] = value[0];
            } else {
                newest[key] = 0;
            }
        }
        atomic_store(&f->allocs_left, -1);
        free(newest);
        if (round == 0)
            print_message("%u puts failed\n", failures);
        engine_fixture_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_is_put_stays_within_the_budget),
        cmocka_unit_test(long_keys_stay_within_it),
        cmocka_unit_test(threads_of_its_own_keep_it),
        cmocka_unit_test(batches_stay_within_it),
        cmocka_unit_test(leaves_that_were_emptied_go),
        cmocka_unit_test(trees_that_go_leave_room),
        cmocka_unit_test(what_is_read_all_the_time_stays),
        cmocka_unit_test(nothing_goes_while_there_is_room),
        cmocka_unit_test(trees_of_one_leaf_take_no_room_of_others),
        cmocka_unit_test(leaves_may_be_as_large_as_in_others),
        cmocka_unit_test(a_merge_of_sorted_records_is_batches),
        cmocka_unit_test(what_would_have_to_keep_is_refused),
        cmocka_unit_test(a_value_has_to_fit_into_a_leaf),
        cmocka_unit_test(options_that_contradict_it_are_refused),
        cmocka_unit_test(it_begins_and_ends_empty),
        cmocka_unit_test(what_it_is_refused_stays),
        cmocka_unit_test(what_is_restored_is_no_cache),
        cmocka_unit_test(without_memory_nothing_older_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
