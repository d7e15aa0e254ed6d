/*
 * Odd arguments among good ones: missing, empty, oversized, of another
 * database, of a dropped tree, of a closed handle.  Each call gives a status
 * that fits its arguments and changes nothing it should not; what is there in
 * the end is what the good calls made.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api_fuzz.h"

enum { ROUNDS = 100, CALLS = 1500 };

/* --- a life --------------------------------------------------------------- */

static void life_start(struct life *life)
{
    struct engine_fixture *gone;

    memset(life, 0, sizeof(*life));
    life->f = engine_fixture_make(ENGINE_MEMORY);
    life->f->options.no_threads = true;
    engine_open(life->f);
    life->other = engine_fixture_open(ENGINE_MEMORY);
    life->foreign = engine_tree(life->other, "foreign", 0);
    gone = engine_fixture_open(ENGINE_MEMORY);
    life->closed = engine_tree(gone, "closed", 0);
    engine_fixture_free(gone);
    for (unsigned t = 0; t < API_TREES; t++)
        life->tree[t] =
            engine_tree(life->f, api_tree_name[t], api_leaf_bytes[t]);
    expect_ok(bft_batch_create(life->f->db, &life->batch));
    api_leave_behind(life);
}

static void tree_is(bft_tree *tree, const struct model_map *map)
{
    for (size_t i = 0; i < map->count; i++) {
        void *value;
        size_t len;
        expect_ok(bft_get_copy(tree, model_map_key(map, i), &value, &len));
        api_expect_whole(&map->record[i].value, value, len);
        bft_free(value);
    }
}

/* All of it is there, now and after another opening. */
static void life_end(struct life *life)
{
    bft_cursor_close(life->cursor);
    bft_batch_free(life->batch);
    api_pasts_end(life);
    for (unsigned again = 0; again < 2; again++) {
        for (unsigned t = 0; t < API_TREES; t++) {
            if (!life->tree[t])
                continue;
            tree_is(life->tree[t], &life->map[t]);
        }
        expect_ok(bft_verify(life->f->db));
        if (again)
            break;
        engine_reopen(life->f);
        for (unsigned t = 0; t < API_TREES; t++)
            if (life->tree[t])
                life->tree[t] =
                    engine_tree(life->f, api_tree_name[t], api_leaf_bytes[t]);
    }
    for (unsigned t = 0; t < API_TREES; t++)
        model_map_clear(&life->map[t]);
    api_batch_forget(life);
    bft_snapshot_release(life->snapshot);
    bft_snapshot_release(life->left_snapshot);
    bft_txn_abort(life->txn);
    bft_txn_abort(life->left_txn);
    bft_feed_close(life->feed);
    bft_feed_close(life->left_feed);
    engine_fixture_free(life->other);
    engine_fixture_free(life->f);
}

static void odd_arguments_get_a_status_and_change_nothing(void **state)
{
    static void (*const call[])(struct life * life) = {
        api_write,        api_write,     api_write,        api_get,
        api_get,          api_get_range, api_batch_add,    api_batch_add,
        api_batch_add,    api_cursor,    api_cursor,       api_put_stream,
        api_batch_commit, api_tree_open, api_snapshot_get, api_snapshot_get,
        api_txn,          api_txn,       api_txn,          api_snapshot_cursor,
        api_feed,
    };
    static void (*const rare[])(struct life * life) = {
        api_walk,          api_database,  api_drop,      api_snapshot_take,
        api_snapshot_take, api_bulk_load, api_bulk_load, api_backup};

    (void)state;
    memset(&api_reached, 0, sizeof(api_reached));
    for (unsigned round = 0; fuzz_next(&round, ROUNDS, 1);) {
        struct life life;
        random_bytes(api_bytes, sizeof(api_bytes));
        life_start(&life);
        for (unsigned i = 0; i < CALLS; i++)
            if (random_below(20))
                call[random_below(sizeof(call) / sizeof(*call))](&life);
            else
                rare[random_below(sizeof(rare) / sizeof(*rare))](&life);
        life_end(&life);
    }
    printf("%u good calls, %u odd ones; invalid %u, too big %u, gone %u, "
           "exists %u, too small %u\n",
           api_reached.good, api_reached.odd, api_reached.of[-BFT_INVALID],
           api_reached.of[-BFT_TOO_BIG], api_reached.of[-BFT_GONE],
           api_reached.of[-BFT_EXISTS], api_reached.of[-BFT_TOO_SMALL]);
    printf("%u loads, %u copies, %u commits of feeds; conflict %u, busy %u\n",
           api_reached.loads, api_reached.copies, api_reached.commits,
           api_reached.of[-BFT_CONFLICT], api_reached.of[-BFT_BUSY]);
    if (!fuzz_counts())
        return;
    assert_true(api_reached.good > ROUNDS * CALLS / 3);
    assert_true(api_reached.odd > ROUNDS * CALLS / 20);
    assert_true(api_reached.of[-BFT_INVALID] > ROUNDS * 20);
    assert_true(api_reached.of[-BFT_TOO_BIG] > ROUNDS * 10);
    assert_true(api_reached.of[-BFT_GONE] > ROUNDS / 5);
    assert_true(api_reached.of[-BFT_EXISTS] > ROUNDS);
    assert_true(api_reached.of[-BFT_TOO_SMALL] > ROUNDS);
    assert_true(api_reached.of[-BFT_CONFLICT] && api_reached.of[-BFT_BUSY]);
    assert_true(api_reached.loads && api_reached.copies);
    assert_true(api_reached.commits > ROUNDS);
}

/* Options with one or two odd fields: refused, or a database that works. */
static void odd_options_are_refused_or_work(void **state)
{
    static const uint64_t odd[] = {
        1,    2,     101,    102,     511,     512,     1000,    4095,
        4096, 65536, 100000, 1 << 18, 1 << 20, 1 << 22, 5 << 20, SIZE_MAX};

    (void)state;
    memset(&api_reached, 0, sizeof(api_reached));
    for (unsigned round = 0; fuzz_next(&round, 300, 2);) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
        bft_options *o = &f->options;
        bft_status status;
        for (size_t n = 1 + random_below(2); n > 0; n--) {
            uint64_t v = odd[random_below(sizeof(odd) / sizeof(*odd))];
            switch (random_below(10)) {
            case 0:
                o->size = (size_t)v;
                break;
            case 1:
                o->storage = (bft_storage)(v % 7);
                break;
            case 2:
                o->durability = (bft_durability)(v % 9);
                break;
            case 3:
                o->memory_bytes = v;
                break;
            case 4:
                o->log_bytes = v;
                break;
            case 5:
                o->log_segment_bytes = v;
                break;
            case 6:
                o->leaf_bytes = (uint32_t)v;
                break;
            case 7:
                o->promote_percent = (uint32_t)v;
                break;
            case 8:
                o->backend = (bft_backend)(v % 7);
                break;
            default:
                o->no_threads = true;
                o->compress = true;
            }
        }
        status = engine_open_status(f);
        fuzz_assert(status == BFT_OK || status == BFT_INVALID);
        api_reached.good += status == BFT_OK;
        api_reached.odd += status == BFT_INVALID;
        if (status == BFT_OK) {
            bft_tree *tree = engine_tree(f, "t", 0);
            expect_ok(bft_put(tree, (bft_slice){"k", 1},
                              (bft_slice){api_bytes, 6000}));
            expect_ok(bft_verify(f->db));
        } else {
            fuzz_assert(f->db == NULL);
        }
        engine_fixture_free(f);
    }
    printf("%u opened, %u refused\n", api_reached.good, api_reached.odd);
    if (fuzz_counts())
        assert_true(api_reached.good > 30 && api_reached.odd > 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_arguments_get_a_status_and_change_nothing),
        cmocka_unit_test(odd_options_are_refused_or_work),
    };
    fuzz_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
