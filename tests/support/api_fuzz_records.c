/* Calls on records, batches, trees and plain cursors. */
#include "api_fuzz.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- calls ---------------------------------------------------------------- */

static const struct model_value *known(struct life *life, struct allowed a,
                                       struct tree_arg arg, bft_slice key)
{
    return a.odd ? NULL : model_map_get(&life->map[arg.t], key);
}

void api_get(struct life *life)
{
    static uint8_t buf[12000];
    struct allowed a = {0, false};
    char text[32];
    struct tree_arg tree = api_any_tree(life, &a);
    bft_slice key = api_any_key(&a, 0, text);
    const struct model_value *want = known(life, a, tree, key);
    size_t room = random_below(2) ? sizeof(buf) : random_below(20), len = 77;
    bool no_len = random_below(40) == 0, no_buf = random_below(40) == 0;
    bft_status good = !want              ? BFT_NOT_FOUND
                      : room < want->len ? BFT_TOO_SMALL
                                         : BFT_OK;

    if (no_len || (no_buf && room))
        api_blame(&a, BFT_INVALID);
    if (api_judge(a, good,
                  bft_get(tree.handle, key, no_buf ? NULL : buf, room,
                          no_len ? NULL : &len),
                  "bft_get"))
        api_expect_whole(want, buf, len);
    else if (!no_len)
        api_expect_len(a, want, len);
}

void api_get_range(struct life *life)
{
    static uint8_t buf[3000];
    struct allowed a = {0, false};
    char text[32];
    struct tree_arg tree = api_any_tree(life, &a);
    bft_slice key = api_any_key(&a, 0, text);
    const struct model_value *want = known(life, a, tree, key);
    uint64_t at = random_below(8) ? random_below(3000) : random_next();
    size_t len = random_below(sizeof(buf) + 1), got = 77;
    bool no_got = random_below(40) == 0;

    if (no_got)
        api_blame(&a, BFT_INVALID);
    if (api_judge(
            a, want ? BFT_OK : BFT_NOT_FOUND,
            bft_get_range(tree.handle, key, at, buf, len, no_got ? NULL : &got),
            "bft_get_range")) {
        uint64_t left = want && at < want->len ? want->len - at : 0;
        fuzz_assert(got == (left < len ? left : len));
        api_expect_value(want, at, buf, got);
    } else if (!no_got) {
        fuzz_assert(got == 0);
    }
}

void api_write(struct life *life)
{
    struct allowed a = {0, false};
    struct model_value value;
    char text[32];
    struct tree_arg tree = api_any_tree(life, &a);
    bft_slice key = api_any_key(&a, api_leaf_bytes[tree.t], text);
    const struct model_value *had;
    bft_status status;

    switch (random_below(3)) {
    case 0:
        if (api_judge(a, BFT_OK, bft_delete(tree.handle, key), "bft_delete"))
            model_map_delete(&life->map[tree.t], key);
        return;
    case 1: {
        bft_slice bytes_of = api_any_value(life, &a, &value);
        had = known(life, a, tree, key);
        status = bft_insert(tree.handle, key, bytes_of);
        if (api_judge(a, had ? BFT_EXISTS : BFT_OK, status, "bft_insert"))
            model_map_put(&life->map[tree.t], key, value);
        return;
    }
    default: {
        bft_slice bytes_of = api_any_value(life, &a, &value);
        status = bft_put(tree.handle, key, bytes_of);
        if (api_judge(a, BFT_OK, status, "bft_put"))
            model_map_put(&life->map[tree.t], key, value);
    }
    }
}

struct streamed {
    struct model_value value;
    uint64_t at, fail_at;
};

static bft_status stream(void *ctx, void *buf, size_t len)
{
    struct streamed *s = ctx;

    fuzz_assert(len > 0 && len <= 512 << 10);
    if (s->at + len > s->fail_at)
        return BFT_UNSUPPORTED;
    model_value_bytes(s->value, s->at, buf, len);
    s->at += len;
    return BFT_OK;
}

void api_put_stream(struct life *life)
{
    struct allowed a = {0, false};
    struct streamed from = {{++life->number, random_below(40000)}, 0, API_NONE};
    char text[32];
    struct tree_arg tree = api_any_tree(life, &a);
    bft_slice key = api_any_key(&a, api_leaf_bytes[tree.t], text);
    bool no_read = random_below(20) == 0;

    if (random_below(3) == 0)
        from.value.len = random_below(200);
    if (no_read)
        api_blame(&a, BFT_INVALID);
    if (random_below(10) == 0) {
        from.value.len = BFT_VALUE_MAX + 1ull + random_below(1000);
        api_blame(&a, BFT_TOO_BIG);
    } else if (random_below(8) == 0 && from.value.len) {
        from.fail_at = random_below((size_t)from.value.len);
        api_blame(&a, BFT_UNSUPPORTED);
    }
    if (api_judge(a, BFT_OK,
                  bft_put_stream(tree.handle, key, from.value.len,
                                 no_read ? NULL : stream, &from),
                  "bft_put_stream"))
        model_map_put(&life->map[tree.t], key, from.value);
}

void api_batch_forget(struct life *life)
{
    for (unsigned t = 0; t < API_TREES; t++)
        model_map_clear(&life->pending[t]);
}

void api_batch_add(struct life *life)
{
    struct allowed a = {0, false};
    struct model_value value = {0, API_NONE};
    char text[32];
    struct tree_arg tree = api_any_tree(life, &a);
    bft_slice key = api_any_key(&a, api_leaf_bytes[tree.t], text);
    bft_batch *batch = random_below(40) ? life->batch : NULL;
    bool remove = random_below(3) == 0;
    bft_status status;

    if (tree.handle == life->dropped) /* told by the commit */
        tree.handle = NULL;
    if (tree.handle == NULL || batch == NULL || random_below(30) == 0) {
        if (tree.handle && batch)
            tree.handle = life->foreign;
        api_blame(&a, BFT_INVALID);
    }
    /* The commit tells of keys too long for the tree: not here. */
    if (key.len > api_leaf_bytes[tree.t] / 4 && key.len <= BFT_KEY_MAX)
        return;
    if (remove) {
        status = bft_batch_delete(batch, tree.handle, key);
    } else {
        bft_slice of = api_any_value(life, &a, &value);
        if (value.len > 1000 && value.len != API_NONE)
            return;
        status = bft_batch_put(batch, tree.handle, key, of);
    }
    if (!a.odd && status == BFT_TOO_BIG && bft_batch_bytes(batch) > 20000)
        return; /* it is full */
    if (api_judge(a, BFT_OK, status, "bft_batch_put"))
        model_map_put(&life->pending[tree.t], key, value);
}

void api_pending_apply(struct model_map *map, const struct model_map *pending)
{
    for (size_t i = 0; i < pending->count; i++) {
        bft_slice key = model_map_key(pending, i);
        if (pending->record[i].value.len == API_NONE)
            model_map_delete(map, key);
        else
            model_map_put(map, key, pending->record[i].value);
    }
}

void api_batch_commit(struct life *life)
{
    struct allowed a = {0, false};
    bft_batch *batch = random_below(10) ? life->batch : NULL;
    int durability =
        random_below(8) ? (int)random_below(4) : 4 + (int)random_below(90);
    uint64_t lsn = 77;

    if (!batch || durability > BFT_SYNC)
        api_blame(&a, BFT_INVALID);
    if (!api_judge(a, BFT_OK,
                   bft_batch_commit(batch, (bft_durability)durability, &lsn),
                   "bft_batch_commit")) {
        fuzz_assert(lsn == 0);
        return;
    }
    fuzz_assert(bft_batch_count(batch) == 0);
    for (unsigned t = 0; t < API_TREES; t++)
        api_pending_apply(&life->map[t], &life->pending[t]);
    api_batch_forget(life);
}

bool api_past_is_open(const struct life *life)
{
    return life->snapshot || life->past_cursor || life->txn || life->txn_cursor;
}

/* The third tree is dropped and made again, or emptied. */
void api_drop(struct life *life)
{
    struct allowed a = {0, false};
    static const char *const odd[] = {NULL, ""};
    bool truncate = random_below(2);
    bft_status (*change)(bft_db * db, const char *name) =
        truncate ? bft_tree_truncate : bft_tree_drop;
    const char *call = truncate ? "bft_tree_truncate" : "bft_tree_drop";
    bft_status good = !life->tree[2]           ? BFT_NOT_FOUND
                      : api_past_is_open(life) ? BFT_BUSY
                                               : BFT_OK;

    if (random_below(2)) {
        api_blame(&a, BFT_INVALID);
        (void)api_judge(a, BFT_OK, change(life->f->db, odd[random_below(2)]),
                        call);
        return;
    }
    if (!api_judge(a, good, change(life->f->db, api_tree_name[2]), call))
        return;
    if (!truncate) {
        if (life->cursor) /* it may be of this tree */
            bft_cursor_close(life->cursor);
        life->cursor = NULL;
        life->dropped = life->tree[2];
        life->tree[2] = NULL;
    }
    model_map_clear(&life->map[2]);
    /* Its changes would be refused, with those of other trees. */
    bft_batch_clear(life->batch);
    api_batch_forget(life);
    if (truncate && random_below(2))
        api_bulk_load(life);
}

void api_tree_open(struct life *life)
{
    static char long_name[300];
    bft_tree_options options = {.size = sizeof(options)};
    struct allowed a = {0, false};
    unsigned t = (unsigned)random_below(API_TREES);
    const char *name = api_tree_name[t];
    bft_tree *handle = (bft_tree *)api_bytes;
    bool no_out = random_below(20) == 0;

    options.leaf_bytes = api_leaf_bytes[t];
    memset(long_name, 'n', 256 + random_below(20));
    switch (random_below(8)) {
    case 0:
        name = random_below(2) ? NULL : "";
        api_blame(&a, BFT_INVALID);
        break;
    case 1:
        name = long_name;
        api_blame(&a, BFT_INVALID);
        break;
    case 2:
        options.size = random_below(2) ? 0 : sizeof(options) + 8;
        api_blame(&a, BFT_INVALID);
        break;
    case 3:
        options.leaf_bytes = 1 + (uint32_t)random_below(100) * 777;
        if (options.leaf_bytes == api_leaf_bytes[t])
            return;
        api_blame(&a, BFT_INVALID);
        break;
    case 4:
        options.must_exist = true;
        break;
    }
    if (no_out)
        api_blame(&a, BFT_INVALID);
    if (api_judge(
            a, options.must_exist && !life->tree[t] ? BFT_NOT_FOUND : BFT_OK,
            bft_tree_open(life->f->db, name, &options, no_out ? NULL : &handle),
            "bft_tree_open")) {
        fuzz_assert(!life->tree[t] || life->tree[t] == handle);
        life->tree[t] = handle;
    } else if (!no_out) {
        fuzz_assert(handle == NULL);
    }
}

static int order_of(bft_slice a, bft_slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = memcmp(a.data, b.data, len);
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* A walk from LOW to HIGH, which may be the wrong way round. */
void api_walk(struct life *life)
{
    struct allowed a = {0, false};
    char low_text[32], high_text[32];
    struct tree_arg tree = api_any_tree(life, &a);
    bft_slice low, high, key;
    bft_cursor *cursor = NULL;
    bft_status status;
    size_t i;

    if (!api_judge(a, BFT_OK, bft_cursor_open(tree.handle, &cursor),
                   "bft_cursor_open")) {
        fuzz_assert(cursor == NULL);
        return;
    }
    low = api_any_bound(&a, low_text);
    high = api_any_bound(&a, high_text);
    if (!api_judge(a, BFT_OK, bft_cursor_bounds(cursor, low, high),
                   "bft_cursor_bounds")) {
        bft_cursor_close(cursor);
        return;
    }
    for (i = 0; i < life->map[tree.t].count; i++) {
        bft_slice want = model_map_key(&life->map[tree.t], i);
        if ((low.len && order_of(want, low) < 0) ||
            (high.len && order_of(want, high) >= 0))
            continue;
        status = bft_cursor_next(cursor);
        fuzz_assert(status == BFT_OK);
        expect_ok(bft_cursor_key(cursor, &key));
        fuzz_assert(order_of(key, want) == 0);
    }
    status = bft_cursor_next(cursor);
    fuzz_assert(status == BFT_NOT_FOUND);
    bft_cursor_close(cursor);
}

/* Any step of a cursor that stays open; of what it shows only that it is. */
void api_cursor(struct life *life)
{
    struct allowed a = {0, false};
    char text[32];
    bft_cursor *cursor = random_below(30) ? life->cursor : NULL;
    bft_slice key = api_any_key(&a, 0, text), out = {api_bytes, 77};
    int how =
        random_below(10) ? (int)random_below(5) : 5 + (int)random_below(90);
    bft_status status = BFT_OK;

    if (!life->cursor) {
        expect_ok(bft_cursor_open(life->tree[random_below(2)], &life->cursor));
        return;
    }
    if (how > BFT_EQ || !cursor)
        api_blame(&a, BFT_INVALID);
    switch (random_below(6)) {
    case 0:
        status = bft_cursor_seek(cursor, (bft_seek)how, key);
        if (!a.odd)
            a = (struct allowed){3, true}; /* OK, or NOT_FOUND */
        if (key.len == 0)                  /* at the end that it means */
            a.mask |= 3;
        (void)api_judge(a, BFT_OK, status, "bft_cursor_seek");
        return;
    case 1:
        status = bft_cursor_next(cursor);
        break;
    case 2:
        status = bft_cursor_prev(cursor);
        break;
    case 3:
        status = bft_cursor_key(cursor, &out);
        fuzz_assert(status != BFT_OK || out.len > 0);
        break;
    case 4:
        status = bft_cursor_value(cursor, random_below(8) ? &out : NULL);
        break;
    default:
        status = bft_cursor_prefix(cursor, (bft_slice){"key", random_below(4)});
    }
    fuzz_assert(status == BFT_OK || status == BFT_NOT_FOUND ||
                status == BFT_INVALID);
    fuzz_assert(cursor || status == BFT_INVALID);
}

static bft_status no_object(void *ctx, bft_db *db, void **object)
{
    (void)ctx;
    (void)db;
    (void)object;
    return BFT_UNSUPPORTED;
}

/* Calls on the whole database, the odd ones of them. */
void api_database(struct life *life)
{
    struct allowed a = {0, false};
    bft_db *db = random_below(2) ? life->f->db : NULL;
    bft_stats stats = {.size = random_below(2) ? sizeof(stats) : 8};
    void *object = api_bytes;
    char few[4];

    if (!db)
        api_blame(&a, BFT_INVALID);
    switch (random_below(8)) {
    case 0:
        (void)api_judge(a, BFT_OK, bft_sync(db), "bft_sync");
        break;
    case 1:
        (void)api_judge(a, BFT_OK, bft_checkpoint(db), "bft_checkpoint");
        break;
    case 2:
        (void)api_judge(a, BFT_OK, bft_verify(db), "bft_verify");
        break;
    case 3:
        if (stats.size != sizeof(stats))
            api_blame(&a, BFT_INVALID);
        (void)api_judge(a, BFT_OK, bft_stats_read(db, &stats),
                        "bft_stats_read");
        break;
    case 4:
        api_blame(&a, BFT_INVALID);
        (void)api_judge(a, BFT_OK,
                        bft_wait_durable(db, UINT64_MAX - random_below(9)),
                        "bft_wait_durable");
        break;
    case 5:
        api_blame(&a, BFT_INVALID);
        (void)api_judge(a, BFT_OK, bft_tree_list(db, NULL, NULL),
                        "bft_tree_list");
        break;
    case 6:
        api_blame(&a, db ? BFT_UNSUPPORTED : BFT_INVALID);
        (void)api_judge(
            a, BFT_OK,
            bft_db_shared(db, "none", no_object, NULL, NULL, &object),
            "bft_db_shared");
        break;
    default:
        (void)bft_last_error(NULL, 0);
        (void)bft_last_error(few, sizeof(few));
        bft_batch_free(NULL);
        bft_batch_clear(NULL);
        (void)bft_durable_lsn(db);
    }
}
