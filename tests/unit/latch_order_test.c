/*
 * Batches take latches in the order of trees and keys.  A leaf's id that a
 * batch has chosen may come back as a leaf elsewhere before it has the latch.
 */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "park.h"

#ifndef NDEBUG

struct job {
    bft_db *db;
    bft_tree *first, *second;
    bft_slice key; /* in both */
    bft_status status;
};

static void run_batch(void *arg)
{
    struct job *job = arg;
    bft_batch *batch;
    bft_slice value = {"v", 1};
    expect_ok(bft_batch_create(job->db, &batch));
    expect_ok(bft_batch_put(batch, job->first, job->key, value));
    expect_ok(bft_batch_put(batch, job->second, job->key, value));
    job->status = bft_batch_commit(batch, BFT_BUFFERED, NULL);
    bft_batch_free(batch);
}

/* Put ascending keys until TREE has a second leaf.  No checkpoint: one would
 * wait for the latch that is held. */
static void fill_until_split(struct engine_fixture *f, bft_tree *tree)
{
    char key[16], bytes[100] = "";
    unsigned i = 0;
    bft_slice value = {bytes, sizeof(bytes)};
    uint64_t splits = engine_stats(f).splits;
    while (engine_stats(f).splits == splits) {
        bft_slice k = {key, (size_t)snprintf(key, sizeof(key), "%06u", i++)};
        expect_ok(bft_put(tree, k, value));
    }
}

static uint64_t leaf_of(struct engine_fixture *f, bft_tree *tree, bft_slice key)
{
    struct bfti_rec *rec = bfti_rec_current(f->db->engine->buffer.threads);
    struct bfti_reader reader;
    expect_ok(bfti_reader_open(&reader, tree->tree, rec, key, false));
    bfti_reader_close(&reader);
    return reader.id;
}

/* A key of TREE in leaf ID. */
static bft_slice key_in_leaf(struct engine_fixture *f, bft_tree *tree,
                             uint64_t id, char buf[16])
{
    bft_slice key = {buf, 6};
    for (unsigned i = 0; i < 999999; i++) {
        (void)snprintf(buf, 16, "%06u", i);
        if (leaf_of(f, tree, key) == id)
            return key;
    }
    fail_msg("no leaf has that id");
    return key;
}

static void await_sleeper(struct engine_fixture *f)
{
    struct bfti_table *table = f->db->engine->buffer.table;
    for (;;) {
        for (uint64_t id = 1; id < bfti_table_ids(table); id++)
            if (atomic_load(&bfti_table_entry(table, id)->latch) == 2)
                return;
        sched_yield();
    }
}

static void a_batch_whose_leaf_moves_in_front_of_it_goes_on(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    bft_tree *low, *middle, *high;
    struct job first, second;
    struct parked stopped, other;
    uint64_t id;
    char key[16];
    (void)state;

    f->options.memory_bytes = 8 << 20;
    f->options.log_bytes = 8 << 20;
    f->options.no_threads = true;
    engine_open(f);
    low = engine_tree(f, "low", 512);
    middle = engine_tree(f, "middle", 512);
    high = engine_tree(f, "high", 512);
    id = leaf_of(f, high, (bft_slice){"1", 1});

    /* It has middle's latch and has chosen high's only leaf... */
    first = (struct job){f->db, middle, high, {"999999", 6}, BFT_OK};
    assert_true(
        park_start(&stopped, "write:leaf-chosen", 1, run_batch, &first));
    /* ... whose id becomes that of a leaf of low. */
    expect_ok(bft_tree_drop(f->db, "high"));
    fill_until_split(f, low);
    second =
        (struct job){f->db, low, middle, key_in_leaf(f, low, id, key), BFT_OK};
    (void)park_start(&other, "write:leaf-chosen", 1, run_batch, &second);
    atomic_store(&other.closed, false);
    await_sleeper(f);
    park_end(&stopped);
    park_end(&other);
    expect_status(BFT_GONE, first.status);
    expect_status(BFT_OK, second.status);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_whose_leaf_moves_in_front_of_it_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0;
}

#endif
