/* A life of a database: made, called at random, closed, and looked at again. */
#include "api_fuzz.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct engine_fixture *make(void)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);

    f->options.no_threads = true;
    engine_seed(f, 1);
    engine_open(f);
    return f;
}

static void life_start(struct life *life)
{
    struct engine_fixture *gone;

    memset(life, 0, sizeof(*life));
    life->f = make();
    life->other = make();
    life->foreign = engine_tree(life->other, "foreign", 0);
    gone = make();
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

void api_life(unsigned calls, bool (*more)(void))
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

    struct life life;

    random_bytes(api_bytes, sizeof(api_bytes));
    life_start(&life);
    for (unsigned i = 0; i < calls && (!more || more()); i++)
        if (random_below(20) < 19)
            call[random_below(sizeof(call) / sizeof(*call))](&life);
        else
            rare[random_below(sizeof(rare) / sizeof(*rare))](&life);
    life_end(&life);
}
