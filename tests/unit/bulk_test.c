/*
 * Bulk loads: what is loaded is there, full and in order, as a whole or not at
 * all, whatever fails and whatever others do meanwhile.
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
#include "bulk_source.h"
#include "random.h"

static const bft_slice NONE = {NULL, 0};

static bft_slice text_slice(const char *text)
{
    return (bft_slice){text, strlen(text)};
}

static bool error_says(const char *what)
{
    char text[400];
    (void)bft_last_error(text, sizeof(text));
    return strstr(text, what) != NULL;
}

/* --- what is loaded ------------------------------------------------------- */

/* Records between those that are there, others gone, others changed. */
static void live_with(bft_tree *tree, uint64_t count)
{
    uint64_t before = bulk_count(tree);
    char key[32];
    for (uint64_t i = 0; i < count; i += 3) {
        (void)snprintf(key, sizeof(key), "%016llu!", (unsigned long long)i);
        expect_ok(bft_put(tree, text_slice(key), text_slice("between")));
    }
    assert_int_equal(before + (count + 2) / 3, bulk_count(tree));
    for (uint64_t i = 0; i < count; i += 3) {
        (void)snprintf(key, sizeof(key), "%016llu!", (unsigned long long)i);
        expect_ok(bft_delete(tree, text_slice(key)));
    }
    assert_int_equal(before, bulk_count(tree));
}

static void load_and_look(enum engine_backend backend, struct bulk_source *s,
                          unsigned fill_percent)
{
    struct engine_fixture *f = engine_fixture_open(backend);
    bft_tree *tree = engine_tree(f, "t", s->leaf_bytes);
    bulk_load(tree, s, fill_percent);
    bulk_expect(tree, s);
    expect_ok(bft_verify(f->db));
    engine_reopen(f);
    tree = engine_tree(f, "t", 0);
    bulk_expect(tree, s);
    live_with(tree, s->count < 1000 ? s->count : 1000);
    expect_ok(bft_verify(f->db));
    bulk_expect(tree, s);
    expect_ok(bft_delete_range(tree, NONE, NONE, NULL));
    for (unsigned i = 0; i < 4; i++)
        expect_ok(bft_checkpoint(f->db));
    /* Large values went with their records: leaves and a few blocks are
     * left. */
    assert_true(engine_stats(f).live_bytes <
                (engine_stats(f).leaves + 64) * 8 * BFTI_BLOCK);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void what_is_loaded_is_there_on_all_backends(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct bulk_source s = {.count = 3000,
                                .keys = BULK_RAGGED,
                                .values = BULK_MIXED,
                                .leaf_bytes = 4096};
        print_message("           %s\n",
                      engine_backend_name((enum engine_backend)b));
        load_and_look((enum engine_backend)b, &s, 100);
        bulk_free(&s);
    }
}

static void keys_values_and_leaves_of_all_sizes_are_loaded(void **state)
{
    static const uint32_t leaves[] = {512, 1024, 8192, 32768};
    static const unsigned fills[] = {100, 10, 70, 0};
    (void)state;
    for (unsigned i = 0; i < 4; i++)
        for (unsigned keys = BULK_SHORT; keys <= BULK_LONG; keys++)
            for (unsigned values = BULK_SMALL; values <= BULK_MIXED; values++) {
                struct bulk_source s = {.count = 1200,
                                        .keys = (enum bulk_keys)keys,
                                        .values = (enum bulk_values)values,
                                        .leaf_bytes = leaves[i]};
                load_and_look(ENGINE_MEMORY, &s, fills[(i + keys) % 4]);
                bulk_free(&s);
            }
}

/* Around the first leaves, and the first inner nodes of each height. */
static void any_number_of_records_is_loaded(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    (void)state;
    for (uint64_t count = 0; count < 9000;
         count += count < 40 ? 1 : 1 + random_below(count / 4)) {
        struct bulk_source s = {.count = count,
                                .keys = (enum bulk_keys)random_below(3),
                                .leaf_bytes = 512};
        char name[32];
        bft_tree *tree;
        (void)snprintf(name, sizeof(name), "t%llu", (unsigned long long)count);
        tree = engine_tree(f, name, 512);
        bulk_load(tree, &s, 100);
        bulk_expect(tree, &s);
        expect_ok(bft_verify(f->db));
        if (count % 3 == 0)
            expect_ok(bft_tree_drop(f->db, name));
        bulk_free(&s);
    }
    engine_reopen(f);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* Places of all leaves in the order of keys. */
static size_t leaf_places(struct engine_fixture *f, bft_tree *handle,
                          uint64_t *place, size_t most)
{
    struct bfti_tree *tree = bfti_handle_tree(handle);
    uint8_t high[BFTI_KEY_MAX];
    bft_slice key = {high, 0};
    size_t n = 0;
    do {
        uint64_t id = bfti_inner_range(bfti_tree_root(tree), key, NULL, NULL,
                                       high, &key.len);
        assert_true(n < most);
        place[n++] =
            bfti_entry_word(bfti_table_entry(f->db->engine->buffer.table, id));
    } while (key.len);
    return n;
}

static void leaves_are_full_and_lie_in_order(void **state)
{
    enum { MOST = 4000, RECORDS = 100000 };
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    struct bulk_source s = {.count = RECORDS, .leaf_bytes = 4096};
    uint64_t *place = calloc(MOST, sizeof(*place));
    size_t full, half;
    bft_stats before, after;
    (void)state;
    f->options.memory_bytes = 8 << 20;
    f->options.no_threads = true;
    engine_open(f);
    before = engine_stats(f);
    bulk_load(engine_tree(f, "full", 4096), &s, 0);
    after = engine_stats(f);
    full = leaf_places(f, engine_tree(f, "full", 0), place, MOST);
    for (size_t i = 1; i < full; i++) {
        assert_true(bfti_word_on_disk(place[i]));
        assert_int_equal(bfti_disk_grain(place[i - 1]) + 8,
                         bfti_disk_grain(place[i]));
    }
    /* A record is a slot of 12 bytes, 2 or 3 of the key and 40 of the value. */
    assert_true(full > RECORDS * 54 / 4096 && full < RECORDS * 56 / 4000);
    /* Nothing of it went through the log, nor into pages. */
    assert_true(after.accepted_lsn - before.accepted_lsn < 1000);
    assert_true(after.merges + after.deltas <
                before.merges + 4); /* the old leaf */
    bulk_load(engine_tree(f, "half", 4096), &s, 50);
    half = leaf_places(f, engine_tree(f, "half", 0), place, MOST);
    assert_true(half > 19 * full / 10 && half < 22 * full / 10);
    expect_ok(bft_verify(f->db));
    bulk_free(&s);
    free(place);
    engine_fixture_free(f);
}

/* The leaves do not go through the pool, and all that the load holds is
 * counted. */
static void a_load_stays_inside_the_budget(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    struct bulk_source s = {.count = 200000, .leaf_bytes = 4096};
    size_t before;
    bft_tree *tree;
    (void)state;
    f->options.memory_bytes = 2 << 20;
    engine_open(f);
    tree = engine_tree(f, "t", 4096);
    before = engine_env_bytes(f);
    bulk_load(tree, &s, 100); /* 12 MB */
    assert_true(engine_stats(f).memory_used_bytes < (2 << 20) + (2 << 18));
    assert_true(engine_env_bytes(f) - before < 1 << 20);
    assert_int_equal(0, atomic_load(&f->db->engine->load_bytes));
    bulk_free(&s);
    engine_fixture_free(f);
}

/* --- what is refused ------------------------------------------------------ */

/* All is as if there had been no load. */
static void expect_untouched(struct engine_fixture *f, const bft_stats *before)
{
    bft_stats after = engine_stats(f);
    assert_int_equal(before->live_bytes, after.live_bytes);
    assert_int_equal(before->leaves, after.leaves);
    assert_int_equal(before->trees, after.trees);
    assert_int_equal(0, atomic_load(&f->db->engine->load_bytes));
    expect_ok(bft_verify(f->db));
}

static void keys_out_of_order_are_named(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_stats before;
    bft_tree *tree;
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    before = engine_stats(f);
    for (uint64_t at = 1; at < 3000; at += at < 30 ? 1 : 700) {
        struct bulk_source s = {.count = 3000,
                                .values = BULK_MIXED,
                                .leaf_bytes = 512,
                                .bad_at = at};
        char name[32];
        (void)snprintf(name, sizeof(name),
                       "record %llu:", (unsigned long long)at + 1);
        expect_status(BFT_INVALID, bulk_try(tree, &s));
        assert_true(error_says(name));
        expect_untouched(f, &before);
        bulk_free(&s);
    }
    engine_fixture_free(f);
}

struct odd {
    bft_bulk_record record;
    unsigned calls;
};

static bft_status odd_next(void *ctx, bft_bulk_record *record)
{
    struct odd *odd = ctx;
    if (odd->calls++ == 0) {
        record->key = text_slice("a");
        return BFT_OK;
    }
    *record = odd->record;
    return BFT_OK;
}

static bft_status no_bytes(void *ctx, void *buf, size_t len)
{
    (void)ctx;
    (void)buf;
    (void)len;
    return BFT_GONE;
}

static void odd_records_and_arguments_are_refused(void **state)
{
    static const uint8_t bytes[200];
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    bft_tree *tree = engine_tree(f, "t", 512);
    struct {
        bft_bulk_record record;
        bft_status status;
    } odd[] = {
        {{.key = {NULL, 0}}, BFT_INVALID},
        {{.key = {NULL, 3}}, BFT_INVALID},
        {{.key = {bytes, 0}}, BFT_INVALID},
        /* A quarter of a leaf; provokes: bft_bulk_load BFT_TOO_BIG */
        {{.key = {bytes, 129}}, BFT_TOO_BIG},
        {{.key = {"b", 1}, .value = {NULL, 1}}, BFT_INVALID},
        {{.key = {"b", 1}, .bytes = UINT64_C(1) << 40, .read = no_bytes},
         BFT_TOO_BIG},
        {{.key = {"a", 1}}, BFT_INVALID},
        {{.key = {"A", 1}}, BFT_INVALID},
        {{.key = {"b", 1}, .bytes = 20, .read = no_bytes}, BFT_GONE},
        {{.key = {"b", 1}, .bytes = 700000, .read = no_bytes}, BFT_GONE},
    };
    bft_bulk_options options = {.size = sizeof(options)};
    (void)state;
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        struct odd source = {.record = odd[i].record};
        expect_status(odd[i].status,
                      bft_bulk_load(tree, NULL, odd_next, &source, NULL));
        assert_true(odd[i].status == BFT_GONE || error_says("record 2:"));
        assert_int_equal(0, bulk_count(tree));
    }
    expect_status(BFT_INVALID, bft_bulk_load(tree, NULL, NULL, NULL, NULL));
    expect_status(BFT_INVALID, bft_bulk_load(NULL, NULL, odd_next, NULL, NULL));
    options.fill_percent = 9;
    expect_status(BFT_INVALID,
                  bft_bulk_load(tree, &options, odd_next, NULL, NULL));
    options.fill_percent = 101;
    expect_status(BFT_INVALID,
                  bft_bulk_load(tree, &options, odd_next, NULL, NULL));
    options.fill_percent = 0;
    options.size = 1;
    expect_status(BFT_INVALID,
                  bft_bulk_load(tree, &options, odd_next, NULL, NULL));
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void an_abandoned_load_leaves_nothing(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_stats before;
    bft_tree *tree;
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    before = engine_stats(f);
    for (uint64_t at = 1; at < 8000; at = at * 3 + 1) {
        struct bulk_source s = {.count = 8000,
                                .keys = BULK_RAGGED,
                                .values = BULK_MIXED,
                                .leaf_bytes = 512,
                                .stop_at = at,
                                .stop_with = BFT_UNSUPPORTED};
        expect_status(BFT_UNSUPPORTED, bulk_try(tree, &s));
        expect_untouched(f, &before);
        assert_int_equal(0, bulk_count(tree));
        bulk_free(&s);
    }
    engine_fixture_free(f);
}

static void only_empty_trees_are_loaded(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    struct bulk_source s = {.count = 2000, .leaf_bytes = 512};
    bft_tree *tree = engine_tree(f, "t", 512);
    (void)state;
    expect_ok(bft_put(tree, text_slice("z"), NONE));
    /* provokes: bft_bulk_load BFT_EXISTS */
    expect_status(BFT_EXISTS, bulk_try(tree, &s));
    assert_int_equal(0, s.n); /* nothing was asked for */
    expect_ok(bft_delete(tree, text_slice("z")));
    bulk_load(tree, &s, 100);
    expect_status(BFT_EXISTS, bulk_try(tree, &s));
    expect_ok(bft_tree_truncate(f->db, "t"));
    bulk_load(tree, &s, 100);
    /* Many leaves, all empty. */
    expect_ok(bft_delete_range(tree, NONE, NONE, NULL));
    bulk_load(tree, &s, 100);
    bulk_expect(tree, &s);
    expect_ok(bft_verify(f->db));
    bulk_free(&s);
    engine_fixture_free(f);
}

/* --- what others do meanwhile, by the callback ---------------------------- */

struct meanwhile {
    struct engine_fixture *f;
    bft_tree *tree, *other;
    uint64_t at;
    void (*what)(struct meanwhile *m);
};

static void do_meanwhile(void *arg, uint64_t n)
{
    struct meanwhile *m = arg;
    if (n == m->at)
        m->what(m);
}

static void drop_it(struct meanwhile *m)
{
    expect_ok(bft_tree_drop(m->f->db, "t"));
}

static void truncate_it(struct meanwhile *m)
{
    expect_ok(bft_put(m->tree, text_slice("z"), NONE));
    expect_ok(bft_tree_truncate(m->f->db, "t"));
}

static void rename_it(struct meanwhile *m)
{
    expect_ok(bft_tree_rename(m->f->db, "t", "new"));
    (void)engine_tree(m->f, "t", 512);
}

static void put_one(struct meanwhile *m)
{
    expect_ok(bft_put(m->tree, text_slice("z"), text_slice("kept")));
}

static void put_and_delete(struct meanwhile *m)
{
    for (unsigned i = 0; i < 200; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "z%u", i);
        expect_ok(bft_put(m->tree, text_slice(key), text_slice(key)));
    }
    expect_ok(bft_checkpoint(m->f->db));
    expect_ok(bft_delete_range(m->tree, NONE, NONE, NULL));
}

static void load_it(struct meanwhile *m)
{
    struct bulk_source s = {.count = 500, .leaf_bytes = 512};
    bulk_load(m->tree, &s, 100);
    bulk_free(&s);
}

static void load_another(struct meanwhile *m)
{
    struct bulk_source s = {.count = 500, .leaf_bytes = 512};
    bulk_load(m->other, &s, 100);
    bulk_expect(m->other, &s);
    bulk_free(&s);
}

static void use_others(struct meanwhile *m)
{
    unsigned count = 0;
    for (unsigned i = 0; i < 2000; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "o%u", i);
        expect_ok(bft_put(m->other, text_slice(key), text_slice(key)));
    }
    expect_ok(bft_checkpoint(m->f->db));
    expect_ok(bft_verify(m->f->db));
    assert_int_equal(0, bulk_count(m->tree));
    assert_int_equal(2, engine_stats(m->f).trees);
    (void)count;
    expect_ok(bft_checkpoint(m->f->db));
}

static void what_others_do_meanwhile_has_an_answer(void **state)
{
    static const struct {
        void (*what)(struct meanwhile *m);
        bft_status status;
        uint64_t left; /* records of the tree, if it was not loaded */
    } cases[] = {
        {drop_it, BFT_GONE, 0},      {truncate_it, BFT_OK, 0},
        {rename_it, BFT_OK, 0},      {put_one, BFT_EXISTS, 1},
        {put_and_delete, BFT_OK, 0}, {load_it, BFT_EXISTS, 500},
        {load_another, BFT_OK, 0},   {use_others, BFT_OK, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (uint64_t at = 0; at <= 3000; at += 1500) {
            struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
            struct meanwhile m = {.f = f, .at = at, .what = cases[i].what};
            struct bulk_source s = {.count = 3000,
                                    .leaf_bytes = 512,
                                    .each = do_meanwhile,
                                    .arg = &m};
            f->options.no_threads = at == 1500;
            engine_open(f);
            m.tree = engine_tree(f, "t", 512);
            m.other = engine_tree(f, "other", 512);
            expect_status(cases[i].status, bulk_try(m.tree, &s));
            s.each = NULL;
            if (cases[i].status == BFT_OK)
                bulk_expect(m.tree, &s);
            else if (cases[i].status != BFT_GONE)
                assert_int_equal(cases[i].left, bulk_count(m.tree));
            expect_ok(bft_verify(f->db));
            engine_crash(f, BFTI_SIM_KILL, i);
            m.tree =
                engine_tree(f, cases[i].what == rename_it ? "new" : "t", 512);
            if (cases[i].status == BFT_OK)
                bulk_expect(m.tree, &s);
            else
                assert_int_equal(cases[i].left, bulk_count(m.tree));
            expect_ok(bft_verify(f->db));
            bulk_free(&s);
            engine_fixture_free(f);
        }
}

static void back_up(struct meanwhile *m)
{
    expect_ok(bft_backup(m->f->db, "/during", NULL));
}

/* What is in the tree T of a copy. */
static void expect_copy(struct engine_fixture *f, const char *path,
                        struct bulk_source *s)
{
    bft_options options = f->options;
    bft_tree *tree;
    bft_db *db;
    expect_ok(bft_open(path, &options, &db));
    expect_ok(bft_tree_open(db, "t", NULL, &tree));
    expect_ok(bft_verify(db));
    if (s)
        bulk_expect(tree, s);
    else
        assert_int_equal(0, bulk_count(tree));
    expect_ok(bft_close(db));
}

/* Its records are not in the log: a feed tells where they are. */
static void a_feed_tells_of_a_load(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    struct bulk_source s = {.count = 500, .leaf_bytes = 512};
    bft_feed_options options = {.size = sizeof(options), .hold_bytes = 1 << 20};
    bft_tree *tree = engine_tree(f, "t", 512);
    uint32_t old_id, new_id;
    bft_commit commit;
    bft_feed *feed;
    (void)state;
    expect_ok(bft_feed_open(f->db, BFT_FEED_NOW, &options, &feed));
    expect_ok(bft_tree_id(tree, &old_id));
    bulk_load(tree, &s, 100);
    expect_ok(bft_tree_id(tree, &new_id));
    assert_true(old_id != new_id);
    do /* a feed from now on may begin a little earlier */
        expect_ok(bft_feed_next(feed, BFT_FEED_FOREVER, &commit));
    while (commit.changes->op == BFT_CHANGE_TREE_CREATE);
    assert_int_equal(1, commit.count);
    assert_int_equal(BFT_CHANGE_TREE_LOAD, commit.changes->op);
    assert_string_equal("t", commit.changes->name);
    assert_int_equal(old_id, commit.changes->tree_id);
    assert_int_equal(new_id, commit.changes->new_tree_id);
    bft_feed_close(feed);
    bulk_free(&s);
    engine_fixture_free(f);
}

static void a_backup_has_all_or_nothing_of_a_load(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    struct meanwhile m = {.f = f, .at = 700, .what = back_up};
    struct bulk_source s = {.count = 1500,
                            .values = BULK_MIXED,
                            .leaf_bytes = 512,
                            .each = do_meanwhile,
                            .arg = &m};
    (void)state;
    m.tree = engine_tree(f, "t", 512);
    bulk_load(m.tree, &s, 100);
    s.each = NULL;
    expect_ok(bft_backup(f->db, "/after", NULL));
    expect_copy(f, "/during", NULL);
    expect_copy(f, "/after", &s);
    bulk_free(&s);
    engine_fixture_free(f);
}

/* --- what fails ----------------------------------------------------------- */

static void a_full_disk_leaves_nothing(void **state)
{
    (void)state;
    for (uint64_t room = 16 << 10; room < 900 << 10; room += 29 << 10) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        struct bulk_source s = {.count = 6000,
                                .values = room % 2 ? BULK_MIXED : BULK_SMALL,
                                .leaf_bytes = 4096};
        bft_status status;
        bft_tree *tree;
        f->options.no_threads = true;
        engine_open(f);
        tree = engine_tree(f, "t", 4096);
        expect_ok(bft_checkpoint(f->db));
        bfti_sim_set_capacity(f->vfs, bfti_sim_used(f->vfs) + room);
        status = bulk_try(tree, &s);
        bfti_sim_set_capacity(f->vfs, UINT64_MAX);
        if (status != BFT_OK) {
            /* provokes: bft_bulk_load BFT_NO_SPACE */
            expect_status(BFT_NO_SPACE, status);
            assert_int_equal(0, bulk_count(tree));
            expect_ok(bft_verify(f->db));
            for (unsigned i = 0; i < 3; i++)
                expect_ok(bft_checkpoint(f->db));
            assert_true(engine_stats(f).live_bytes < 200000);
            assert_true(engine_stats(f).held_bytes < 200000);
            bulk_load(tree, &s, 100);
        }
        bulk_expect(tree, &s);
        engine_crash(f, BFTI_SIM_DROP, room);
        bulk_expect(engine_tree(f, "t", 4096), &s);
        expect_ok(bft_verify(f->db));
        bulk_free(&s);
        engine_fixture_free(f);
    }
}

/* Every step of the disk fails once, or from then on; then a crash. */
static void a_failing_disk_leaves_all_or_nothing(void **state)
{
    unsigned refused = 0;
    uint64_t struck = 1;
    (void)state;
    for (uint64_t nth = 1; struck; nth++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        struct bulk_source s = {
            .count = 300, .values = BULK_MIXED, .leaf_bytes = 512};
        struct bfti_sim_fault fault = {.ops = BFTI_SIM_STEPS,
                                       .nth = nth,
                                       .sticky = nth % 2,
                                       .harm = BFTI_SIM_REFUSE,
                                       .status = BFT_IO};
        enum bfti_sim_policy policy = nth % 3 ? BFTI_SIM_DROP : BFTI_SIM_KEEP;
        bft_status status;
        bft_tree *tree;
        f->options.no_threads = true;
        engine_open(f);
        tree = engine_tree(f, "t", 512);
        expect_ok(bft_sync(f->db));
        bfti_sim_fail(f->vfs, &fault);
        status = bulk_try(tree, &s);
        struck = bfti_sim_struck(f->vfs);
        bfti_sim_heal(f->vfs);
        refused += status != BFT_OK;
        assert_true(struck ? status == BFT_IO || status == BFT_POISONED ||
                                 status == BFT_OK
                           : status == BFT_OK);
        /* What the log could not take or sync is done, but may not survive. */
        if (status == BFT_OK || bulk_count(tree))
            bulk_expect(tree, &s);
        expect_ok(bft_verify(f->db));
        engine_crash(f, policy, nth);
        atomic_store(&f->reported, 0);
        tree = engine_tree(f, "t", 512);
        if (status == BFT_OK || bulk_count(tree))
            bulk_expect(tree, &s);
        expect_ok(bft_verify(f->db));
        bulk_free(&s);
        engine_fixture_free(f);
    }
    print_message("           refused %u times\n", refused);
    assert_true(refused > 20);
}

static void without_memory_a_load_leaves_nothing(void **state)
{
    unsigned refused = 0, done = 0;
    (void)state;
    for (int64_t left = 0; done < 4; left += 1 + left / 50) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        struct bulk_source s = {.count = 1500,
                                .keys = BULK_RAGGED,
                                .values = left % 2 ? BULK_MIXED : BULK_SMALL,
                                .leaf_bytes = 512};
        bft_status status;
        bft_tree *tree;
        f->options.no_threads = true;
        f->allocs_sticky = left % 3 == 2;
        engine_open(f);
        tree = engine_tree(f, "t", 512);
        atomic_store(&f->allocs_left, left);
        status = bulk_try(tree, &s);
        done += atomic_load(&f->allocs_left) > 0;
        atomic_store(&f->allocs_left, -1);
        refused += status != BFT_OK;
        if (status != BFT_OK) {
            /* provokes: bft_bulk_load BFT_NO_MEMORY */
            expect_status(BFT_NO_MEMORY, status);
            assert_int_equal(0, bulk_count(tree));
            assert_int_equal(0, atomic_load(&f->db->engine->load_bytes));
            expect_ok(bft_verify(f->db));
            bulk_load(tree, &s, 100);
        }
        bulk_expect(tree, &s);
        expect_ok(bft_verify(f->db));
        bulk_free(&s);
        engine_fixture_free(f);
    }
    print_message("           refused %u times\n", refused);
    assert_true(refused > 10);
}

/* Read superblock SLOT of the page file, or write it. */
static void superblock(struct bfti_vfs *vfs, unsigned slot,
                       uint8_t bytes[BFTI_BLOCK], bool write)
{
    struct bfti_file *file;
    size_t got = BFTI_BLOCK;
    uint64_t at = (uint64_t)slot * BFTI_BLOCK;
    expect_ok(vfs->ops->open(vfs, "/db/data", BFTI_OPEN_PAGES, &file));
    if (write)
        expect_ok(vfs->ops->write(file, at, bytes, BFTI_BLOCK));
    else
        expect_ok(vfs->ops->read(file, at, bytes, BFTI_BLOCK, &got));
    assert_int_equal(BFTI_BLOCK, got);
    vfs->ops->close(file);
}

/* SLOT has what was the newest before the load, and the other is lost. */
static void lose_superblocks(unsigned slot)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct bulk_source s = {.count = 1000, .leaf_bytes = 512};
    struct bfti_vfs *image;
    uint8_t older[BFTI_BLOCK], newer[BFTI_BLOCK];
    char text[400];
    f->options.no_threads = true;
    engine_open(f);
    expect_ok(bft_checkpoint(f->db));
    if (f->db->engine->superblock_slot != slot) {
        bft_slice key = {"key", 3};
        expect_ok(bft_put(engine_tree(f, "other", 512), key, key));
        expect_ok(bft_checkpoint(f->db));
    }
    assert_int_equal(slot, f->db->engine->superblock_slot);
    superblock(f->vfs, slot, older, false);
    bulk_load(engine_tree(f, "t", 512), &s, 100);
    expect_ok(bfti_sim_image(f->vfs, BFTI_SIM_DROP, 1, &image));
    engine_close(f);
    bfti_vfs_sim_destroy(f->vfs);
    f->vfs = image;
    superblock(f->vfs, slot, newer, false);
    expect_ok(bfti_sim_flip(f->vfs, "/db/data",
                            (uint64_t)(slot ^ 1) * BFTI_BLOCK + 100, 1));
    superblock(f->vfs, slot, older, true);
    expect_status(BFT_CORRUPT, engine_open_status(f));
    assert_true(error_says("loaded into tree t"));
    (void)bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, slot ? "at byte 0," : "at byte 4096,"));
    superblock(f->vfs, slot, newer, true);
    engine_open(f);
    bulk_expect(engine_tree(f, "t", 512), &s);
    bulk_free(&s);
    engine_fixture_free(f);
}

/* The superblocks that have the tree are lost before the next ones: the older one
 * is not taken for the newest, in which the tree would be empty.  One of them is
 * enough. */
static void a_lost_superblock_shows(void **state)
{
    (void)state;
    lose_superblocks(0);
    lose_superblocks(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_loaded_is_there_on_all_backends),
        cmocka_unit_test(keys_values_and_leaves_of_all_sizes_are_loaded),
        cmocka_unit_test(any_number_of_records_is_loaded),
        cmocka_unit_test(leaves_are_full_and_lie_in_order),
        cmocka_unit_test(a_load_stays_inside_the_budget),
        cmocka_unit_test(keys_out_of_order_are_named),
        cmocka_unit_test(odd_records_and_arguments_are_refused),
        cmocka_unit_test(an_abandoned_load_leaves_nothing),
        cmocka_unit_test(only_empty_trees_are_loaded),
        cmocka_unit_test(what_others_do_meanwhile_has_an_answer),
        cmocka_unit_test(a_feed_tells_of_a_load),
        cmocka_unit_test(a_backup_has_all_or_nothing_of_a_load),
        cmocka_unit_test(a_full_disk_leaves_nothing),
        cmocka_unit_test(a_failing_disk_leaves_all_or_nothing),
        cmocka_unit_test(without_memory_a_load_leaves_nothing),
        cmocka_unit_test(a_lost_superblock_shows),
    };
    (void)random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
