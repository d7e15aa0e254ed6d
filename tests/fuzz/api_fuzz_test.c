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

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine_fixture.h"
#include "fuzz.h"
#include "model_map.h"
#include "random.h"

enum { ROUNDS = 100, CALLS = 1500, TREES = 3, KEYS = 300, BYTES = 70000 };

static const char *const tree_name[TREES] = {"small", "usual",
                                             "comes and goes"};
static const uint32_t leaf_bytes[TREES] = {512, 4096, 1024};
static uint8_t bytes[BYTES];

struct life {
    struct engine_fixture *f, *other; /* OTHER: another database */
    bft_tree *tree[TREES], *dropped, *foreign, *closed;
    struct model_map map[TREES];
    bft_batch *batch;
    struct model_map pending[TREES]; /* of BATCH; a length of NONE: deleted */
    bft_cursor *cursor;
    uint64_t number; /* of the next value */
};
#define NONE UINT64_MAX

/* Statuses that a call may give: what its arguments are blamed for, or, when
 * they are good, only what the model says. */
struct allowed {
    unsigned mask; /* bit -status */
    bool odd;
};
static struct {
    unsigned good, odd, of[32];
} reached;

static void blame(struct allowed *a, bft_status status)
{
    a->mask |= 1u << -(int)status;
    a->odd = true;
}

/* True when STATUS is BFT_OK. */
static bool judge(struct allowed a, bft_status good, bft_status status,
                  const char *call)
{
    char text[300];

    if (!a.odd)
        a.mask = 1u << -(int)good;
    if (!(a.mask >> -(int)status & 1)) {
        bft_last_error(text, sizeof(text));
        fuzz_fail("%s gave %d, of %#x: %s", call, (int)status, a.mask, text);
    }
    if (status != BFT_OK && status != BFT_NOT_FOUND) {
        fuzz_assert(bft_last_error(text, sizeof(text)) > 0 && text[0]);
        reached.of[-(int)status]++;
    }
    reached.good += !a.odd;
    reached.odd += a.odd;
    return status == BFT_OK;
}

/* --- arguments ------------------------------------------------------------ */

struct tree_arg {
    bft_tree *handle;
    unsigned t; /* which, if it is good */
};

static struct tree_arg any_tree(struct life *life, struct allowed *a)
{
    struct tree_arg arg = {NULL, (unsigned)random_below(TREES)};

    switch (random_below(40)) {
    case 0:
        blame(a, BFT_INVALID);
        return arg;
    case 1:
        if (!life->dropped)
            break;
        arg = (struct tree_arg){life->dropped, 2};
        blame(a, BFT_GONE);
        return arg;
    case 2:
        arg.handle = life->closed;
        blame(a, BFT_INVALID);
        return arg;
    }
    arg.handle = life->tree[arg.t];
    if (!arg.handle)
        arg.handle = life->tree[arg.t = 0];
    return arg;
}

/* LEAF: bytes of the leaves that are to hold it; 0: it is only looked for. */
static bft_slice any_key(struct allowed *a, uint32_t leaf, char *buf)
{
    size_t len = 0;

    switch (random_below(40)) {
    case 0:
        blame(a, BFT_INVALID);
        return (bft_slice){NULL, random_below(2) * 5};
    case 1:
        blame(a, BFT_INVALID);
        return (bft_slice){buf, 0};
    case 2: /* lengths near the largest number, for sums that wrap around */
        blame(a, BFT_TOO_BIG);
        return (bft_slice){bytes, SIZE_MAX - random_below(40000)};
    case 3:
        len = 100 + random_below(60);
        break;
    case 4:
        len = BFT_KEY_MAX - 1 + random_below(4);
        break;
    }
    if (len == 0) {
        int n = snprintf(buf, 32, "key %u", (unsigned)random_below(KEYS));
        return (bft_slice){buf, (size_t)n};
    }
    if (len > BFT_KEY_MAX || (leaf && len > leaf / 4))
        blame(a, BFT_TOO_BIG);
    return (bft_slice){bytes, len};
}

static bft_slice any_value(struct life *life, struct allowed *a,
                           struct model_value *value)
{
    *value = (struct model_value){++life->number, random_below(50)};
    switch (random_below(40)) {
    case 0:
        blame(a, BFT_INVALID);
        return (bft_slice){NULL, 5};
    case 1:
        blame(a, BFT_TOO_BIG);
        return (bft_slice){bytes, SIZE_MAX - random_below(40000)};
    case 2:
        value->len = random_below(12000);
        break;
    case 3:
        value->len = 0;
        return (bft_slice){NULL, 0};
    }
    static uint8_t room[12000];
    model_value_bytes(*value, 0, room, (size_t)value->len);
    return (bft_slice){room, (size_t)value->len};
}

/* --- calls ---------------------------------------------------------------- */

static const struct model_value *known(struct life *life, struct allowed a,
                                       struct tree_arg arg, bft_slice key)
{
    return a.odd ? NULL : model_map_get(&life->map[arg.t], key);
}

static void call_get(struct life *life)
{
    static uint8_t buf[12000];
    struct allowed a = {0, false};
    char text[32];
    struct tree_arg tree = any_tree(life, &a);
    bft_slice key = any_key(&a, 0, text);
    const struct model_value *want = known(life, a, tree, key);
    size_t room = random_below(2) ? sizeof(buf) : random_below(20), len = 77;
    bool no_len = random_below(40) == 0, no_buf = random_below(40) == 0;
    bft_status good = !want              ? BFT_NOT_FOUND
                      : room < want->len ? BFT_TOO_SMALL
                                         : BFT_OK;

    if (no_len || (no_buf && room))
        blame(&a, BFT_INVALID);
    if (judge(a, good,
              bft_get(tree.handle, key, no_buf ? NULL : buf, room,
                      no_len ? NULL : &len),
              "bft_get"))
        fuzz_assert(len == want->len && model_value_is(*want, 0, buf, len));
    else if (!no_len)
        fuzz_assert(len == (!a.odd && want ? want->len : 0));
}

static void call_get_range(struct life *life)
{
    static uint8_t buf[3000];
    struct allowed a = {0, false};
    char text[32];
    struct tree_arg tree = any_tree(life, &a);
    bft_slice key = any_key(&a, 0, text);
    const struct model_value *want = known(life, a, tree, key);
    uint64_t at = random_below(8) ? random_below(3000) : random_next();
    size_t len = random_below(sizeof(buf) + 1), got = 77;
    bool no_got = random_below(40) == 0;

    if (no_got)
        blame(&a, BFT_INVALID);
    if (judge(
            a, want ? BFT_OK : BFT_NOT_FOUND,
            bft_get_range(tree.handle, key, at, buf, len, no_got ? NULL : &got),
            "bft_get_range")) {
        uint64_t left = at < want->len ? want->len - at : 0;
        fuzz_assert(got == (left < len ? left : len));
        fuzz_assert(model_value_is(*want, at, buf, got));
    } else if (!no_got) {
        fuzz_assert(got == 0);
    }
}

static void call_write(struct life *life)
{
    struct allowed a = {0, false};
    struct model_value value;
    char text[32];
    struct tree_arg tree = any_tree(life, &a);
    bft_slice key = any_key(&a, leaf_bytes[tree.t], text);
    const struct model_value *had;
    bft_status status;

    switch (random_below(3)) {
    case 0:
        if (judge(a, BFT_OK, bft_delete(tree.handle, key), "bft_delete"))
            model_map_delete(&life->map[tree.t], key);
        return;
    case 1: {
        bft_slice bytes_of = any_value(life, &a, &value);
        had = known(life, a, tree, key);
        status = bft_insert(tree.handle, key, bytes_of);
        if (judge(a, had ? BFT_EXISTS : BFT_OK, status, "bft_insert"))
            model_map_put(&life->map[tree.t], key, value);
        return;
    }
    default: {
        bft_slice bytes_of = any_value(life, &a, &value);
        status = bft_put(tree.handle, key, bytes_of);
        if (judge(a, BFT_OK, status, "bft_put"))
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

static void call_put_stream(struct life *life)
{
    struct allowed a = {0, false};
    struct streamed from = {{++life->number, random_below(40000)}, 0, NONE};
    char text[32];
    struct tree_arg tree = any_tree(life, &a);
    bft_slice key = any_key(&a, leaf_bytes[tree.t], text);
    bool no_read = random_below(20) == 0;

    if (random_below(3) == 0)
        from.value.len = random_below(200);
    if (no_read)
        blame(&a, BFT_INVALID);
    if (random_below(10) == 0) {
        from.value.len = BFT_VALUE_MAX + 1ull + random_below(1000);
        blame(&a, BFT_TOO_BIG);
    } else if (random_below(8) == 0 && from.value.len) {
        from.fail_at = random_below((size_t)from.value.len);
        blame(&a, BFT_UNSUPPORTED);
    }
    if (judge(a, BFT_OK,
              bft_put_stream(tree.handle, key, from.value.len,
                             no_read ? NULL : stream, &from),
              "bft_put_stream"))
        model_map_put(&life->map[tree.t], key, from.value);
}

static void batch_forget(struct life *life)
{
    for (unsigned t = 0; t < TREES; t++)
        model_map_clear(&life->pending[t]);
}

static void call_batch_add(struct life *life)
{
    struct allowed a = {0, false};
    struct model_value value = {0, NONE};
    char text[32];
    struct tree_arg tree = any_tree(life, &a);
    bft_slice key = any_key(&a, leaf_bytes[tree.t], text);
    bft_batch *batch = random_below(40) ? life->batch : NULL;
    bool remove = random_below(3) == 0;
    bft_status status;

    if (tree.handle == life->dropped) /* told by the commit */
        tree.handle = NULL;
    if (tree.handle == NULL || batch == NULL || random_below(30) == 0) {
        if (tree.handle && batch)
            tree.handle = life->foreign;
        blame(&a, BFT_INVALID);
    }
    /* The commit tells of keys too long for the tree: not here. */
    if (key.len > leaf_bytes[tree.t] / 4 && key.len <= BFT_KEY_MAX)
        return;
    if (remove) {
        status = bft_batch_delete(batch, tree.handle, key);
    } else {
        bft_slice of = any_value(life, &a, &value);
        if (value.len > 1000 && value.len != NONE)
            return;
        status = bft_batch_put(batch, tree.handle, key, of);
    }
    if (!a.odd && status == BFT_TOO_BIG && bft_batch_bytes(batch) > 20000)
        return; /* it is full */
    if (judge(a, BFT_OK, status, "bft_batch_put"))
        model_map_put(&life->pending[tree.t], key, value);
}

static void call_batch_commit(struct life *life)
{
    struct allowed a = {0, false};
    bft_batch *batch = random_below(10) ? life->batch : NULL;
    int durability =
        random_below(8) ? (int)random_below(4) : 4 + (int)random_below(90);
    uint64_t lsn = 77;

    if (!batch || durability > BFT_SYNC)
        blame(&a, BFT_INVALID);
    if (!judge(a, BFT_OK,
               bft_batch_commit(batch, (bft_durability)durability, &lsn),
               "bft_batch_commit")) {
        fuzz_assert(lsn == 0);
        return;
    }
    fuzz_assert(bft_batch_count(batch) == 0);
    for (unsigned t = 0; t < TREES; t++)
        for (size_t i = 0; i < life->pending[t].count; i++) {
            struct model_value value = life->pending[t].record[i].value;
            bft_slice key = model_map_key(&life->pending[t], i);
            if (value.len == NONE)
                model_map_delete(&life->map[t], key);
            else
                model_map_put(&life->map[t], key, value);
        }
    batch_forget(life);
}

/* The third tree is dropped and made again. */
static void call_drop(struct life *life)
{
    struct allowed a = {0, false};
    static const char *const odd[] = {NULL, ""};
    bft_status status;

    if (random_below(2)) {
        blame(&a, BFT_INVALID);
        (void)judge(a, BFT_OK, bft_tree_drop(life->f->db, odd[random_below(2)]),
                    "bft_tree_drop");
        return;
    }
    status = bft_tree_drop(life->f->db, tree_name[2]);
    if (!judge(a, life->tree[2] ? BFT_OK : BFT_NOT_FOUND, status,
               "bft_tree_drop"))
        return;
    if (life->cursor) /* it may be of this tree */
        bft_cursor_close(life->cursor);
    life->cursor = NULL;
    life->dropped = life->tree[2];
    life->tree[2] = NULL;
    model_map_clear(&life->map[2]);
    /* Its changes would be refused, with those of other trees. */
    bft_batch_clear(life->batch);
    batch_forget(life);
}

static void call_tree_open(struct life *life)
{
    static char long_name[300];
    bft_tree_options options = {.size = sizeof(options)};
    struct allowed a = {0, false};
    unsigned t = (unsigned)random_below(TREES);
    const char *name = tree_name[t];
    bft_tree *handle = (bft_tree *)bytes;
    bool no_out = random_below(20) == 0;

    options.leaf_bytes = leaf_bytes[t];
    memset(long_name, 'n', 256 + random_below(20));
    switch (random_below(8)) {
    case 0:
        name = random_below(2) ? NULL : "";
        blame(&a, BFT_INVALID);
        break;
    case 1:
        name = long_name;
        blame(&a, BFT_INVALID);
        break;
    case 2:
        options.size = random_below(2) ? 0 : sizeof(options) + 8;
        blame(&a, BFT_INVALID);
        break;
    case 3:
        options.leaf_bytes = 1 + (uint32_t)random_below(100) * 777;
        if (options.leaf_bytes == leaf_bytes[t])
            return;
        blame(&a, BFT_INVALID);
        break;
    case 4:
        options.must_exist = true;
        break;
    }
    if (no_out)
        blame(&a, BFT_INVALID);
    if (judge(
            a, options.must_exist && !life->tree[t] ? BFT_NOT_FOUND : BFT_OK,
            bft_tree_open(life->f->db, name, &options, no_out ? NULL : &handle),
            "bft_tree_open")) {
        fuzz_assert(!life->tree[t] || life->tree[t] == handle);
        life->tree[t] = handle;
    } else if (!no_out) {
        fuzz_assert(handle == NULL);
    }
}

static bft_slice any_bound(struct allowed *a, char *buf)
{
    struct allowed own = {0, false};
    bft_slice bound = any_key(&own, 0, buf);

    if (bound.len == 0)
        return bound; /* no bound */
    if (!bound.data)
        blame(a, BFT_INVALID);
    else if (bound.len > BFT_KEY_MAX)
        blame(a, BFT_TOO_BIG);
    return bound;
}

static int order_of(bft_slice a, bft_slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = memcmp(a.data, b.data, len);
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* A walk from LOW to HIGH, which may be the wrong way round. */
static void call_walk(struct life *life)
{
    struct allowed a = {0, false};
    char low_text[32], high_text[32];
    struct tree_arg tree = any_tree(life, &a);
    bft_slice low, high, key;
    bft_cursor *cursor = NULL;
    bft_status status;
    size_t i;

    if (!judge(a, BFT_OK, bft_cursor_open(tree.handle, &cursor),
               "bft_cursor_open")) {
        fuzz_assert(cursor == NULL);
        return;
    }
    low = any_bound(&a, low_text);
    high = any_bound(&a, high_text);
    if (!judge(a, BFT_OK, bft_cursor_bounds(cursor, low, high),
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
static void call_cursor(struct life *life)
{
    struct allowed a = {0, false};
    char text[32];
    bft_cursor *cursor = random_below(30) ? life->cursor : NULL;
    bft_slice key = any_key(&a, 0, text), out = {bytes, 77};
    int how =
        random_below(10) ? (int)random_below(5) : 5 + (int)random_below(90);
    bft_status status = BFT_OK;

    if (!life->cursor) {
        expect_ok(bft_cursor_open(life->tree[random_below(2)], &life->cursor));
        return;
    }
    if (how > BFT_EQ || !cursor)
        blame(&a, BFT_INVALID);
    switch (random_below(6)) {
    case 0:
        status = bft_cursor_seek(cursor, (bft_seek)how, key);
        if (!a.odd)
            a = (struct allowed){3, true}; /* OK, or NOT_FOUND */
        if (key.len == 0)                  /* at the end that it means */
            a.mask |= 3;
        (void)judge(a, BFT_OK, status, "bft_cursor_seek");
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
static void call_database(struct life *life)
{
    struct allowed a = {0, false};
    bft_db *db = random_below(2) ? life->f->db : NULL;
    bft_stats stats = {.size = random_below(2) ? sizeof(stats) : 8};
    void *object = bytes;
    char few[4];

    if (!db)
        blame(&a, BFT_INVALID);
    switch (random_below(8)) {
    case 0:
        (void)judge(a, BFT_OK, bft_sync(db), "bft_sync");
        break;
    case 1:
        (void)judge(a, BFT_OK, bft_checkpoint(db), "bft_checkpoint");
        break;
    case 2:
        (void)judge(a, BFT_OK, bft_verify(db), "bft_verify");
        break;
    case 3:
        if (stats.size != sizeof(stats))
            blame(&a, BFT_INVALID);
        (void)judge(a, BFT_OK, bft_stats_read(db, &stats), "bft_stats_read");
        break;
    case 4:
        blame(&a, BFT_INVALID);
        (void)judge(a, BFT_OK,
                    bft_wait_durable(db, UINT64_MAX - random_below(9)),
                    "bft_wait_durable");
        break;
    case 5:
        blame(&a, BFT_INVALID);
        (void)judge(a, BFT_OK, bft_tree_list(db, NULL, NULL), "bft_tree_list");
        break;
    case 6:
        blame(&a, db ? BFT_UNSUPPORTED : BFT_INVALID);
        (void)judge(a, BFT_OK,
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
    for (unsigned t = 0; t < TREES; t++)
        life->tree[t] = engine_tree(life->f, tree_name[t], leaf_bytes[t]);
    expect_ok(bft_batch_create(life->f->db, &life->batch));
}

/* All of it is there, now and after another opening. */
static void life_end(struct life *life)
{
    bft_cursor_close(life->cursor);
    bft_batch_free(life->batch);
    for (unsigned again = 0; again < 2; again++) {
        for (unsigned t = 0; t < TREES; t++) {
            if (!life->tree[t])
                continue;
            for (size_t i = 0; i < life->map[t].count; i++) {
                const struct model_record *r = &life->map[t].record[i];
                void *value;
                size_t len;
                expect_ok(bft_get_copy(life->tree[t],
                                       model_map_key(&life->map[t], i), &value,
                                       &len));
                fuzz_assert(len == r->value.len &&
                            model_value_is(r->value, 0, value, len));
                bft_free(value);
            }
        }
        expect_ok(bft_verify(life->f->db));
        if (again)
            break;
        engine_reopen(life->f);
        for (unsigned t = 0; t < TREES; t++)
            if (life->tree[t])
                life->tree[t] =
                    engine_tree(life->f, tree_name[t], leaf_bytes[t]);
    }
    for (unsigned t = 0; t < TREES; t++)
        model_map_clear(&life->map[t]);
    batch_forget(life);
    engine_fixture_free(life->other);
    engine_fixture_free(life->f);
}

static void odd_arguments_get_a_status_and_change_nothing(void **state)
{
    static void (*const call[])(struct life * life) = {
        call_write,        call_write,     call_write,     call_get,
        call_get,          call_get_range, call_batch_add, call_batch_add,
        call_batch_add,    call_cursor,    call_cursor,    call_put_stream,
        call_batch_commit, call_tree_open,
    };
    static void (*const rare[])(struct life * life) = {call_walk, call_database,
                                                       call_drop};

    (void)state;
    memset(&reached, 0, sizeof(reached));
    for (unsigned round = 0; fuzz_next(&round, ROUNDS, 1);) {
        struct life life;
        random_bytes(bytes, sizeof(bytes));
        life_start(&life);
        for (unsigned i = 0; i < CALLS; i++)
            if (random_below(20))
                call[random_below(sizeof(call) / sizeof(*call))](&life);
            else
                rare[random_below(3)](&life);
        life_end(&life);
    }
    printf("%u good calls, %u odd ones; invalid %u, too big %u, gone %u, "
           "exists %u, too small %u\n",
           reached.good, reached.odd, reached.of[-BFT_INVALID],
           reached.of[-BFT_TOO_BIG], reached.of[-BFT_GONE],
           reached.of[-BFT_EXISTS], reached.of[-BFT_TOO_SMALL]);
    if (!fuzz_counts())
        return;
    assert_true(reached.good > ROUNDS * CALLS / 3);
    assert_true(reached.odd > ROUNDS * CALLS / 20);
    assert_true(reached.of[-BFT_INVALID] > ROUNDS * 20);
    assert_true(reached.of[-BFT_TOO_BIG] > ROUNDS * 10);
    assert_true(reached.of[-BFT_GONE] > ROUNDS / 2);
    assert_true(reached.of[-BFT_EXISTS] > ROUNDS);
    assert_true(reached.of[-BFT_TOO_SMALL] > ROUNDS);
}

/* Options with one or two odd fields: refused, or a database that works. */
static void odd_options_are_refused_or_work(void **state)
{
    static const uint64_t odd[] = {
        1,    2,     101,    102,     511,     512,     1000,    4095,
        4096, 65536, 100000, 1 << 18, 1 << 20, 1 << 22, 5 << 20, SIZE_MAX};

    (void)state;
    memset(&reached, 0, sizeof(reached));
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
        reached.good += status == BFT_OK;
        reached.odd += status == BFT_INVALID;
        if (status == BFT_OK) {
            bft_tree *tree = engine_tree(f, "t", 0);
            expect_ok(
                bft_put(tree, (bft_slice){"k", 1}, (bft_slice){bytes, 6000}));
            expect_ok(bft_verify(f->db));
        } else {
            fuzz_assert(f->db == NULL);
        }
        engine_fixture_free(f);
    }
    printf("%u opened, %u refused\n", reached.good, reached.odd);
    if (fuzz_counts())
        assert_true(reached.good > 30 && reached.odd > 30);
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
