/*
 * The engine against plain sorted maps: random operations on every backend,
 * with tiny leaves and pools, reopened again and again, and everything compared
 * each time.
 *
 * BFT_SEED repeats a run, BFT_MODEL_RUN picks one of the runs, BFT_MODEL_OPS
 * says how many operations they share.  Runs without threads repeat exactly.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "fileio/pagefile_internal.h"
#include "model_ops.h"
#include "random.h"
#include "tally.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW_BUILD 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOW_BUILD 1
#endif
#endif

enum {
#ifdef SLOW_BUILD
    OPS = 400000, /* shared by all runs */
#else
    OPS = 1000000,
#endif
    OPS_AT_FULL = 333000, /* with so many on a backend ... */
    EVENTS = 100,         /* ... there are so many of each event */
    EVENT_KINDS = sizeof(model_run.events) / sizeof(model_run.events[0]),
    /* With threads, where there are any, and without. */
    RUNS = (BFT_WITH_THREADS ? 2 : 1) * ENGINE_BACKENDS,
    REOPEN_EVERY = 25000,
    PAST_EVERY = 4,     /* operations while a snapshot is open */
    RECORDS_MAX = 6000, /* of one tree; then more is deleted than put */
};

/* --- comparing ------------------------------------------------------------ */

static bool count_tree(void *arg, const char *name)
{
    size_t *live = arg;
    for (size_t i = 0; i < MODEL_TREES; i++)
        if (model_run.slot[i].live &&
            strcmp(model_run.slot[i].name, name) == 0) {
            ++*live;
            return true;
        }
    print_error("there is a tree %s\n", name);
    fail();
    return false;
}

static void check_trees(void)
{
    size_t live = 0, expected = 0;
    for (size_t i = 0; i < MODEL_TREES; i++)
        expected += model_run.slot[i].live;
    expect_ok(bft_tree_list(model_run.f->db, count_tree, &live));
    assert_int_equal(expected, live);
}

static void check_all(void)
{
    expect_ok(bft_verify(model_run.f->db));
    check_trees();
    for (size_t i = 0; i < MODEL_TREES; i++) {
        struct model_slot *s = &model_run.slot[i];
        if (!s->live)
            continue;
        for (size_t r = 0; r < s->map.count; r++)
            model_check_get(s, model_map_key(&s->map, r));
        model_check_scan(s, true);
        model_check_scan(s, false);
        for (size_t r = 0; r < 500; r++) {
            struct model_key key = model_key_of(s, random_below(MODEL_KEYS));
            model_check_get(s, model_slice(&key));
        }
    }
}

/* --- trees ---------------------------------------------------------------- */

static void slot_make(struct model_slot *s)
{
    static const uint32_t leaf[] = {512, 512, 1024, 1536, 2048, 4096};
    memset(s, 0, sizeof(*s));
    snprintf(s->name, sizeof(s->name), "tree %llu",
             (unsigned long long)model_run.names++);
    s->live = true;
    s->leaf_bytes = leaf[random_below(6)];
    s->style = (unsigned)random_below(5);
    s->tree = engine_tree(model_run.f, s->name, s->leaf_bytes);
}

static void op_tree(void)
{
    struct model_slot *s = &model_run.slot[1 + random_below(MODEL_TREES - 1)];
    size_t len;
    if (!s->live) {
        slot_make(s);
        return;
    }
    if (!model_done_alone(bft_tree_drop(model_run.f->db, s->name)))
        return;
    expect_status(BFT_GONE, bft_get(s->tree, (bft_slice){"k", 1}, model_buf,
                                    MODEL_BUF, &len));
    expect_status(BFT_GONE,
                  bft_put(s->tree, (bft_slice){"k", 1}, (bft_slice){"v", 1}));
    expect_status(BFT_NOT_FOUND, bft_tree_drop(model_run.f->db, s->name));
    model_map_clear(&s->map);
    s->live = false;
    if (random_below(2))
        slot_make(s);
    check_trees();
}

/* Its handle, and so the slot, goes on. */
static void op_tree_change(void)
{
    struct model_slot *s = &model_run.slot[random_below(MODEL_TREES)];
    char name[32];
    if (!s->live)
        return;
    if (random_below(3) == 0) {
        if (!model_done_alone(bft_tree_truncate(model_run.f->db, s->name)))
            return;
        model_map_clear(&s->map);
        s->tail = s->head;
        return;
    }
    snprintf(name, sizeof(name), "tree %llu",
             (unsigned long long)model_run.names++);
    expect_ok(bft_tree_rename(model_run.f->db, s->name, name));
    expect_status(BFT_NOT_FOUND,
                  bft_tree_rename(model_run.f->db, s->name, "x"));
    expect_status(BFT_EXISTS, bft_tree_rename(model_run.f->db, name, name));
    memcpy(s->name, name, sizeof(name));
    check_trees();
}

static void op_checkpoint(void)
{
    expect_ok(bft_checkpoint(model_run.f->db));
}

static void op_sync(void)
{
    expect_ok(bft_sync(model_run.f->db));
}

static void op_verify(void)
{
    expect_ok(bft_verify(model_run.f->db));
}

/* Some of a pass of the cleaner, or all of it, whatever the file is like. */
static void op_clean(void)
{
    struct bfti_engine *engine = model_run.f->db->engine;
    struct bfti_pagefile *pf = engine->buffer.pf;
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    bool more = true;
    bfti_space_lock(pf);
    pf->space.hole_floor = 0; /* a few leaves are as good as many */
    pf->space.cleaned_times = 0;
    bfti_space_unlock(pf);
    for (size_t i = random_below(40); more && i-- > 0;)
        expect_ok(
            bfti_clean(engine, rec, 1 + random_below(64 << 10), true, &more));
}

/* --- reopening ------------------------------------------------------------ */

static void choose_options(void)
{
    static const uint32_t promote[] = {1, 30, 100, 101};
    /* Nodes that may be dropped are, all of them or most. */
    static const size_t nodes[] = {1, 1, 8 << 10};
    static const bft_durability how[] = {BFT_BUFFERED, BFT_BUFFERED, BFT_NONE};
    bft_options *o = &model_run.f->options;
    o->memory_bytes = (256 << 10) + random_below(4) * (256 << 10);
    o->promote_percent = promote[random_below(4)];
    o->durability = how[random_below(3)];
    o->no_threads = !model_run.threads;
    o->compress = random_below(2);
    model_run.f->eager = true;
    o->leaf_bytes = 512;
    engine_slow_reads(model_run.f, random_below(2));
    model_run.f->surroundings.nodes_bytes = nodes[random_below(3)];
}

/* Make certain that all survives what comes, and let it come. */
static void crash(void)
{
    if (random_below(2)) {
        struct model_slot *s = model_any_slot();
        struct model_key key = model_key_to_add(s);
        bft_batch *batch;
        expect_ok(bft_batch_create(model_run.f->db, &batch));
        expect_ok(bft_batch_delete(batch, s->tree, model_slice(&key)));
        expect_ok(bft_batch_commit(batch, BFT_BUFFERED, NULL));
        bft_batch_free(batch);
        model_map_delete(&s->map, model_slice(&key));
        choose_options();
        engine_crash(model_run.f, BFTI_SIM_KILL, random_next());
        return;
    }
    expect_ok(bft_sync(model_run.f->db));
    choose_options();
    engine_crash(model_run.f,
                 (enum bfti_sim_policy)random_below(BFTI_SIM_POLICIES),
                 random_next());
}

static void reopen(void)
{
    model_pasts_closing();
    if (model_run.f->backend == ENGINE_SIM && random_below(4)) {
        crash();
    } else {
        engine_close(model_run.f);
        choose_options();
        engine_open(model_run.f);
    }
    /* Every other time lists of deltas come, as in recovery. */
    model_run.f->db->engine->buffer.hurried = random_below(2);
    for (size_t i = 0; i < MODEL_TREES; i++) {
        if (!model_run.slot[i].live)
            continue;
        bft_tree_options o = {.size = sizeof(o), .must_exist = true};
        expect_ok(bft_tree_open(model_run.f->db, model_run.slot[i].name, &o,
                                &model_run.slot[i].tree));
    }
    model_pasts_closed();
    check_all();
}

/* --- a run ---------------------------------------------------------------- */

/* What is done how often, of 100,000. */
static const struct {
    void (*run)(void);
    unsigned share;
} operations[] = {
    {model_op_put, 32593},        {model_op_insert, 9000},
    {model_op_delete, 18000},     {model_op_get, 22000},
    {model_op_get_range, 3000},   {model_op_get_small, 1000},
    {model_op_batch, 6500},       {model_op_batch_dense, 300},
    {model_op_batch_too_big, 20}, {model_op_huge, 30},
    {model_op_stream, 60},        {op_tree, 40},
    {op_checkpoint, 15},          {op_sync, 35},
    {model_op_cursor, 1500},      {op_verify, 3},
    {model_op_instant, 200},      {model_op_multi_get, 400},
    {model_op_range, 300},        {model_op_replace, 4000},
    {model_op_delete_range, 200}, {op_tree_change, 30},
    {model_op_txn, 600},          {model_op_snapshot_take, 24},
    {model_op_load, 20},          {op_clean, 100},
    {model_op_merge, 30},
};

static void one_operation(void)
{
    size_t left = random_below(100000), i = 0;
    struct model_slot *s = model_any_slot();
    if (s->map.count > RECORDS_MAX) {
        uint64_t lowest = random_below(s->map.count - 100);
        for (size_t n = 0; n < 100; n++) {
            bft_slice key = model_map_key(&s->map, lowest);
            expect_ok(bft_delete(s->tree, key));
            model_map_delete(&s->map, key);
        }
    }
    /* They cost each write something: not for long. */
    if (model_past_is_open() && random_below(PAST_EVERY) == 0)
        model_op_past();
    while (i + 1 < sizeof(operations) / sizeof(operations[0]) &&
           left >= operations[i].share)
        left -= operations[i++].share;
    operations[i].run();
}

/* What is done by itself, or only when something comes together: how often at
 * least, of 100,000 operations.  Usual is five times that, or more. */
static const struct {
    const char *name;
    unsigned least;
} deed[MODEL_DEEDS] = {
    [MODEL_SNAPSHOTS] = {"snapshots", 2},
    [MODEL_PAST_GETS] = {"gets of what has changed since", 4},
    [MODEL_PAST_STEPS] = {"steps", 40},
    [MODEL_REFUSALS] = {"refusals", 2},
    [MODEL_COMMITS] = {"commits", 80},
    [MODEL_CONFLICTS] = {"conflicts", 10},
    [MODEL_ABORTS] = {"aborts", 10},
    [MODEL_TXN_SCANS] = {"scans", 60},
    [MODEL_LOADS] = {"loads", 2},
    [MODEL_BACKUPS] = {"backups", 2},
};

static void run_all(uint64_t seed, unsigned number, uint64_t ops)
{
    enum engine_backend backend =
        (enum engine_backend)(number % ENGINE_BACKENDS);
    bft_stats stats;
    memset(&model_run, 0, sizeof(model_run));
    random_seed(seed * 1000003 + number);
    model_run.threads = number >= ENGINE_BACKENDS;
    model_run.ops = ops;
    model_run.f = engine_fixture_make(backend);
    /* On each backend with threads or without. */
    model_run.f->surroundings.small_deltas =
        (backend + (unsigned)model_run.threads) % 2 == 0;
    engine_seed(model_run.f, seed + number);
    choose_options();
    engine_open(model_run.f);
    for (size_t i = 0; i < MODEL_TREES - 1; i++)
        slot_make(&model_run.slot[i]);
    for (model_run.op = 1; model_run.op <= ops; model_run.op++) {
        if (model_run.op % 5000 == 0)
            model_run.phase = (enum model_phase)random_below(MODEL_PHASES);
        one_operation();
        if (model_run.op % REOPEN_EVERY == REOPEN_EVERY / 2)
            model_op_backup();
        if (model_run.op % REOPEN_EVERY == 0)
            reopen();
    }
    reopen();
    stats = engine_stats(model_run.f);
    model_run.events[0] = stats.splits;
    model_run.events[1] = stats.merges;
    model_run.events[2] = stats.growths;
    model_run.events[3] = stats.evictions_clean + stats.evictions_dirty;
    model_run.events[4] = stats.checkpoints;
    model_run.events[5] = stats.nodes_read;
    model_run.events[6] = stats.nodes_dropped;
    model_run.events[7] = stats.leaves_moved;
    print_message(
        "%s, %s threads, %llu operations: splits %llu merges %llu deltas %llu growths "
        "%llu evictions %llu+%llu checkpoints %llu absorbed %llu "
        "promoted %llu nodes +%llu-%llu moved %llu\n",
        engine_backend_name(backend), model_run.threads ? "with" : "no",
        (unsigned long long)ops, (unsigned long long)stats.splits,
        (unsigned long long)stats.merges, (unsigned long long)stats.deltas,
        (unsigned long long)stats.growths,
        (unsigned long long)stats.evictions_clean,
        (unsigned long long)stats.evictions_dirty,
        (unsigned long long)stats.checkpoints,
        (unsigned long long)stats.leaf_merges,
        (unsigned long long)stats.promotions,
        (unsigned long long)stats.nodes_read,
        (unsigned long long)stats.nodes_dropped,
        (unsigned long long)stats.leaves_moved);
    tally(TALLY_OPERATIONS, ops);
    for (size_t i = 0; i < MODEL_DEEDS; i++)
        print_message("%s %llu%s", deed[i].name,
                      (unsigned long long)model_run.deeds[i],
                      i + 1 < MODEL_DEEDS ? ", " : "\n");
    engine_fixture_free(model_run.f);
    for (size_t i = 0; i < MODEL_TREES; i++)
        model_map_clear(&model_run.slot[i].map);
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name); /* NOLINT(concurrency-mt-unsafe) */
    return text ? strtoull(text, NULL, 0) : otherwise;
}

static uint64_t seed_of_all;

/* Where a failure happened: cmocka leaves the test by a jump. */
static int say_where(void **state)
{
    (void)state;
    if (model_run.op && model_run.op <= model_run.ops)
        print_error("at operation %llu; BFT_SEED=%llu repeats it\n",
                    (unsigned long long)model_run.op,
                    (unsigned long long)seed_of_all);
    return 0;
}

/* How many of all operations a backend's runs have.  The last two differ from
 * the first in how the bytes reach the same files, no more. */
static uint64_t share_of(enum engine_backend backend, uint64_t total)
{
    static const unsigned weight[] = {
        [ENGINE_POSIX] = 3,  [ENGINE_MEMORY] = 3, [ENGINE_SIM] = 3,
        [ENGINE_DIRECT] = 1, [ENGINE_URING] = 1,
    };
    unsigned sum = 0;
    for (int b = 0; b < ENGINE_BACKENDS; b++)
        sum += weight[b];
    return total * weight[backend] / sum;
}

static void backend_test(enum engine_backend backend)
{
    uint64_t total = number_from("BFT_MODEL_OPS", OPS),
             events[EVENT_KINDS] = {0};
    uint64_t deeds[MODEL_DEEDS] = {0};
    uint64_t only = number_from("BFT_MODEL_RUN", UINT64_MAX);
    uint64_t share = share_of(backend, total);
    uint64_t least = EVENTS * share / OPS_AT_FULL;
    for (unsigned number = backend; number < RUNS; number += ENGINE_BACKENDS) {
        if (only != UINT64_MAX && only != number)
            continue;
        print_message("run %u: BFT_SEED=%llu BFT_MODEL_RUN=%u\n", number,
                      (unsigned long long)seed_of_all, number);
        run_all(seed_of_all, number, share / (RUNS / ENGINE_BACKENDS) + 1);
        for (size_t i = 0; i < EVENT_KINDS; i++)
            events[i] += model_run.events[i];
        for (size_t i = 0; i < MODEL_DEEDS; i++)
            deeds[i] += model_run.deeds[i];
    }
    /* In fewer all of a kind may come to nothing by chance. */
    if (only != UINT64_MAX || share < OPS_AT_FULL / 10)
        return;
    for (size_t i = 0; i < EVENT_KINDS; i++)
        assert_true(events[i] >= least);
    /* Deeds come in clusters, a snapshot's steps say: of fewer operations some
     * kinds have none by chance. */
    if (share < OPS_AT_FULL / 4)
        return;
    for (size_t i = 0; i < MODEL_DEEDS; i++)
        assert_true(deeds[i] >= deed[i].least * share / 100000);
}

static void posix_holds_what_a_sorted_map_holds(void **state)
{
    (void)state;
    backend_test(ENGINE_POSIX);
}

static void memory_holds_what_a_sorted_map_holds(void **state)
{
    (void)state;
    backend_test(ENGINE_MEMORY);
}

static void sim_holds_what_a_sorted_map_holds(void **state)
{
    (void)state;
    backend_test(ENGINE_SIM);
}

static void direct_holds_what_a_sorted_map_holds(void **state)
{
    (void)state;
    backend_test(ENGINE_DIRECT);
}

static void uring_holds_what_a_sorted_map_holds(void **state)
{
    (void)state;
    backend_test(ENGINE_URING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(direct_holds_what_a_sorted_map_holds,
                                  say_where),
        cmocka_unit_test_teardown(uring_holds_what_a_sorted_map_holds,
                                  say_where),
        cmocka_unit_test_teardown(posix_holds_what_a_sorted_map_holds,
                                  say_where),
        cmocka_unit_test_teardown(memory_holds_what_a_sorted_map_holds,
                                  say_where),
        cmocka_unit_test_teardown(sim_holds_what_a_sorted_map_holds, say_where),
    };
    seed_of_all = random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
