/*
 * The engine against plain sorted maps: random operations on every backend,
 * with tiny leaves and pools, reopened again and again, and everything compared
 * each time.
 *
 * BFT_SEED repeats a run, BFT_MODEL_RUN picks one of the runs, BFT_MODEL_OPS
 * says how many operations they share.  Runs without threads repeat exactly.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "model_map.h"
#include "random.h"

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
    RUNS = 2 * ENGINE_BACKENDS, /* with threads and without */
    REOPEN_EVERY = 25000,
    TREES = 6,
    RECORDS_MAX = 6000, /* of one tree; then more is deleted than put */
    BATCH_MAX = 64,
    BUF = 3 << 20,
    KEY_SPACE = 20000,
};

struct slot {
    bool live;
    char name[32];
    uint32_t leaf_bytes;
    unsigned style; /* of its keys */
    bft_tree *tree;
    struct model_map map;
    uint64_t head, tail; /* of the queue, of ascending keys */
    uint64_t low;        /* of descending keys */
};

static struct run {
    struct engine_fixture *f;
    struct slot slot[TREES];
    unsigned phase;
    uint64_t op, ops;
    uint64_t names; /* given so far */
    uint64_t events[5];
    bool threads;
} run;

static uint8_t buf[BUF];

/* --- keys ----------------------------------------------------------------- */

struct key {
    uint8_t bytes[BFT_KEY_MAX];
    size_t len;
};

static bft_slice slice_of(const struct key *key)
{
    return (bft_slice){key->bytes, key->len};
}

static size_t key_max(const struct slot *s)
{
    return s->leaf_bytes / 4;
}

static void put_be64(uint8_t *to, uint64_t n)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(n >> (56 - 8 * i));
}

/* The key number N of the slot; the order of keys is that of numbers in all
 * styles but 2 and 3. */
static struct key key_of(const struct slot *s, uint64_t n)
{
    struct key key = {.len = 0};
    uint64_t h = n * 0x9e3779b97f4a7c15u;
    switch (s->style) {
    case 0:
        put_be64(key.bytes, n);
        key.len = 8;
        break;
    case 1: /* a long prefix in common */
        key.len = (size_t)snprintf((char *)key.bytes, 100,
                                   "co_zabcdefghijklmnopqrst/session/%014llu",
                                   (unsigned long long)n);
        break;
    case 2: /* any length, few letters: many prefixes in common */
        key.len = 1 + (h >> 40) % (n % 16 == 0 ? key_max(s) : 24);
        for (size_t i = 0; i < key.len; i++) {
            h = h * 6364136223846793005u + 1442695040888963407u;
            key.bytes[i] = (uint8_t)("\0\0a\xff"[h >> 62]);
        }
        break;
    case 4: /* as long as can be, and different only at the end */
        key.len = key_max(s);
        memset(key.bytes, 'p', key.len);
        put_be64(key.bytes + key.len - 8, n);
        break;
    default: /* groups */
        snprintf((char *)key.bytes, 100, "%03llu/", h >> 56 & 0x3f ?
                 (unsigned long long)(h >> 56 & 0x3f) : 0ull);
        put_be64(key.bytes + 4, n);
        key.len = 12;
        break;
    }
    return key;
}

enum { PHASE_RANDOM, PHASE_ASCENDING, PHASE_DESCENDING, PHASE_QUEUE, PHASES };

/* A key for a write that adds. */
static struct key key_to_add(struct slot *s)
{
    uint64_t middle = UINT64_C(1) << 32;
    switch (random_below(8) ? run.phase : PHASE_RANDOM) {
    case PHASE_ASCENDING:
    case PHASE_QUEUE:
        return key_of(s, middle + s->head++);
    case PHASE_DESCENDING:
        return key_of(s, middle - ++s->low);
    default:
        return key_of(s, random_below(KEY_SPACE));
    }
}

/* A key that is likely there. */
static struct key key_there(struct slot *s)
{
    struct key key;
    if (s->map.count && random_below(8)) {
        bft_slice there = model_map_key(&s->map, random_below(s->map.count));
        memcpy(key.bytes, there.data, there.len);
        key.len = there.len;
        return key;
    }
    return key_of(s, random_below(KEY_SPACE));
}

/* A key to delete: of a queue, at its end. */
static struct key key_to_delete(struct slot *s)
{
    if (run.phase == PHASE_QUEUE && random_below(8)) {
        if (s->tail < s->head)
            return key_of(s, (UINT64_C(1) << 32) + s->tail++);
        if (s->map.count) {
            struct key key;
            bft_slice first = model_map_key(&s->map, 0);
            memcpy(key.bytes, first.data, first.len);
            key.len = first.len;
            return key;
        }
    }
    return key_there(s);
}

static struct slot *any_slot(void)
{
    struct slot *s;
    do
        s = &run.slot[random_below(TREES)];
    while (!s->live);
    return s;
}

/* --- values --------------------------------------------------------------- */

static struct model_value make_value(uint64_t len)
{
    struct model_value value = {random_next(), len};
    return value;
}

/* Mostly small, now and then out of the leaf. */
static struct model_value any_value(const struct slot *s)
{
    size_t kind = random_below(1000);
    if (kind < 20)
        return make_value(0);
    if (kind < 960)
        return make_value(random_below(120));
    if (kind < 990)
        return make_value(random_below(s->leaf_bytes / 4));
    return make_value(s->leaf_bytes / 4 + random_below(s->leaf_bytes * 2));
}

static struct model_value huge_value(void)
{
    static const uint32_t around[] = {16 << 10, 508 << 10, 1 << 20, 2 << 20};
    return make_value(around[random_below(4)] + random_below(9000));
}

static bft_slice value_slice(struct model_value value)
{
    assert_true(value.len <= BUF);
    model_value_bytes(value, 0, buf, value.len);
    return (bft_slice){buf, value.len};
}

/* --- comparing ------------------------------------------------------------ */

static void describe(const struct slot *s, bft_slice key)
{
    print_error("tree %s (leaves of %u bytes, style %u), key of %zu bytes:",
                s->name, (unsigned)s->leaf_bytes, s->style, key.len);
    for (size_t i = 0; i < key.len && i < 48; i++)
        print_error(" %02x", ((const uint8_t *)key.data)[i]);
    print_error("\n");
}

static void check_get(struct slot *s, bft_slice key)
{
    const struct model_value *want = model_map_get(&s->map, key);
    size_t len = 0;
    bft_status status = bft_get(s->tree, key, buf, BUF, &len);
    char text[400] = "";
    if (status == (want ? BFT_OK : BFT_NOT_FOUND) &&
        len == (want ? want->len : 0) &&
        (!want || model_value_is(*want, 0, buf, len)))
        return;
    (void)bft_last_error(text, sizeof(text));
    describe(s, key);
    print_error("got status %d, %zu bytes; %s\n", (int)status, len, text);
    if (want)
        print_error("expected %llu bytes of seed %llx\n",
                    (unsigned long long)want->len,
                    (unsigned long long)want->seed);
    else
        print_error("expected nothing\n");
    fail();
}

static bool count_tree(void *arg, const char *name)
{
    size_t *live = arg;
    for (size_t i = 0; i < TREES; i++)
        if (run.slot[i].live && strcmp(run.slot[i].name, name) == 0) {
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
    for (size_t i = 0; i < TREES; i++)
        expected += run.slot[i].live;
    expect_ok(bft_tree_list(run.f->db, count_tree, &live));
    assert_int_equal(expected, live);
}

static void check_scans(struct slot *s);

static void check_all(void)
{
    expect_ok(bft_verify(run.f->db));
    check_trees();
    for (size_t i = 0; i < TREES; i++) {
        struct slot *s = &run.slot[i];
        if (!s->live)
            continue;
        for (size_t r = 0; r < s->map.count; r++)
            check_get(s, model_map_key(&s->map, r));
        check_scans(s);
        for (size_t r = 0; r < 500; r++) {
            struct key key = key_of(s, random_below(KEY_SPACE));
            check_get(s, slice_of(&key));
        }
    }
}

/* --- operations ----------------------------------------------------------- */

static void op_put(void)
{
    struct slot *s = any_slot();
    struct key key = random_below(4) ? key_to_add(s) : key_there(s);
    struct model_value value = any_value(s);
    expect_ok(bft_put(s->tree, slice_of(&key), value_slice(value)));
    model_map_put(&s->map, slice_of(&key), value);
}

static void op_insert(void)
{
    struct slot *s = any_slot();
    struct key key = random_below(2) ? key_to_add(s) : key_there(s);
    struct model_value value = any_value(s);
    bool there = model_map_get(&s->map, slice_of(&key)) != NULL;
    expect_status(there ? BFT_EXISTS : BFT_OK,
                  bft_insert(s->tree, slice_of(&key), value_slice(value)));
    if (!there)
        model_map_put(&s->map, slice_of(&key), value);
}

/* Expecting what is there, or something near to it; sometimes to remove it. */
static void op_replace(void)
{
    static uint8_t expected[BUF];
    struct slot *s = any_slot();
    struct key key = random_below(4) ? key_there(s) : key_to_add(s);
    struct model_value value = any_value(s);
    const struct model_value *there = model_map_get(&s->map, slice_of(&key));
    bft_slice from = {expected, there ? there->len : random_below(20)}, to;
    bool absent = there ? random_below(8) == 0 : random_below(2);
    bool right = !!there != absent, remove = !absent && random_below(4) == 0;
    if (there)
        model_value_bytes(*there, 0, expected, there->len);
    if (there && !absent && from.len && random_below(4) == 0) {
        expected[random_below(from.len)] ^= 4;
        right = false;
    }
    to = value_slice(value);
    expect_status(right ? BFT_OK : BFT_CONFLICT,
                  bft_replace(s->tree, slice_of(&key), absent ? NULL : &from,
                              remove ? NULL : &to));
    if (right && remove)
        model_map_delete(&s->map, slice_of(&key));
    else if (right)
        model_map_put(&s->map, slice_of(&key), value);
}

static void op_delete(void)
{
    struct slot *s = any_slot();
    struct key key = key_to_delete(s);
    expect_ok(bft_delete(s->tree, slice_of(&key)));
    model_map_delete(&s->map, slice_of(&key));
}

static void op_get(void)
{
    struct slot *s = any_slot();
    struct key key = key_there(s);
    check_get(s, slice_of(&key));
}

static void op_get_range(void)
{
    struct slot *s = any_slot();
    struct key key = key_there(s);
    const struct model_value *want = model_map_get(&s->map, slice_of(&key));
    uint64_t offset = want ? random_below(want->len + 10) : 0;
    size_t len = random_below(1000), got = 0, due;
    expect_status(want ? BFT_OK : BFT_NOT_FOUND,
                  bft_get_range(s->tree, slice_of(&key), offset, buf, len,
                                &got));
    if (!want)
        return;
    due = offset >= want->len            ? 0
          : want->len - offset < len ? (size_t)(want->len - offset)
                                     : len;
    assert_int_equal(due, got);
    assert_true(model_value_is(*want, offset, buf, got));
}

static void op_get_small(void)
{
    struct slot *s = any_slot();
    struct key key = key_there(s);
    const struct model_value *want = model_map_get(&s->map, slice_of(&key));
    size_t len = 0;
    void *copy;
    if (!want || want->len == 0)
        return;
    expect_status(BFT_TOO_SMALL, bft_get(s->tree, slice_of(&key), buf,
                                         random_below(want->len), &len));
    assert_int_equal(want->len, len);
    expect_ok(bft_get_copy(s->tree, slice_of(&key), &copy, &len));
    assert_int_equal(want->len, len);
    assert_true(model_value_is(*want, 0, copy, len));
    bft_free(copy);
}

/* Many at once, some twice, some absent. */
static void op_multi_get(void)
{
    enum { KEYS = 40, EACH = 4000 };
    static struct key key[KEYS];
    bft_answer item[KEYS];
    struct slot *s = any_slot();
    size_t n = 1 + random_below(KEYS);
    for (size_t i = 0; i < n; i++) {
        key[i] = i && random_below(10) == 0 ? key[i - 1] : key_there(s);
        item[i] = (bft_answer){.key = slice_of(&key[i]),
                               .buf = buf + i * EACH,
                               .buf_len = EACH};
    }
    expect_ok(bft_multi_get(s->tree, item, n));
    for (size_t i = 0; i < n; i++) {
        const struct model_value *want = model_map_get(&s->map, item[i].key);
        bft_status due = !want               ? BFT_NOT_FOUND
                         : want->len > EACH ? BFT_TOO_SMALL
                                            : BFT_OK;
        if (due == item[i].status &&
            item[i].value_len == (want ? want->len : 0) &&
            (due != BFT_OK ||
             model_value_is(*want, 0, item[i].buf, item[i].value_len)))
            continue;
        describe(s, item[i].key);
        print_error("answer %zu of %zu: status %d, %zu bytes\n", i, n,
                    (int)item[i].status, item[i].value_len);
        fail();
    }
}

static void op_huge(void)
{
    struct slot *s = any_slot();
    struct key key = random_below(2) ? key_there(s) : key_to_add(s);
    struct model_value value = huge_value();
    expect_ok(bft_put(s->tree, slice_of(&key), value_slice(value)));
    model_map_put(&s->map, slice_of(&key), value);
    check_get(s, slice_of(&key));
}

struct stream {
    struct model_value value;
    uint64_t at, fail_at;
};

static bft_status stream_read(void *arg, void *to, size_t len)
{
    struct stream *stream = arg;
    if (stream->at >= stream->fail_at)
        return BFT_CONFLICT;
    model_value_bytes(stream->value, stream->at, to, len);
    stream->at += len;
    return BFT_OK;
}

static void op_stream(void)
{
    struct slot *s = any_slot();
    struct key key = random_below(2) ? key_there(s) : key_to_add(s);
    struct stream stream = {random_below(3) ? any_value(s) : huge_value(), 0,
                            UINT64_MAX};
    bool failing = random_below(4) == 0 && stream.value.len > 0;
    if (failing)
        stream.fail_at = random_below(stream.value.len > 600000 ? 2 : 1);
    expect_status(failing ? BFT_CONFLICT : BFT_OK,
                  bft_put_stream(s->tree, slice_of(&key), stream.value.len,
                                 stream_read, &stream));
    if (!failing)
        model_map_put(&s->map, slice_of(&key), stream.value);
    check_get(s, slice_of(&key));
}

/* --- batches -------------------------------------------------------------- */

struct change {
    struct slot *slot;
    struct key key;
    bool put;
    struct model_value value;
};

static struct change change[600];

/* What a batch may hold, the books of the library included. */
static size_t batch_bytes_max(void)
{
    return run.f->options.memory_bytes / 8 * 3 / 4;
}

static void commit_changes(size_t n)
{
    static const bft_durability how[] = {BFT_DEFAULT, BFT_NONE, BFT_BUFFERED};
    bft_durability durability =
        random_below(100) ? how[random_below(3)] : BFT_SYNC;
    uint64_t lsn = 0;
    bft_batch *batch;
    expect_ok(bft_batch_create(run.f->db, &batch));
    for (size_t i = 0; i < n; i++) {
        struct change *c = &change[i];
        if (c->put)
            expect_ok(bft_batch_put(batch, c->slot->tree, slice_of(&c->key),
                                    value_slice(c->value)));
        else
            expect_ok(bft_batch_delete(batch, c->slot->tree,
                                       slice_of(&c->key)));
    }
    expect_ok(bft_batch_commit(batch, durability, &lsn));
    if (durability == BFT_SYNC)
        assert_true(bft_durable_lsn(run.f->db) >= lsn);
    else if (random_below(200) == 0)
        expect_ok(bft_wait_durable(run.f->db, lsn));
    assert_int_equal(0, bft_batch_count(batch));
    bft_batch_free(batch);
    for (size_t i = 0; i < n; i++) {
        struct change *c = &change[i];
        if (c->put)
            model_map_put(&c->slot->map, slice_of(&c->key), c->value);
        else
            model_map_delete(&c->slot->map, slice_of(&c->key));
    }
    for (size_t i = 0; i < n && i < 4; i++) {
        struct change *c = &change[random_below(n)];
        check_get(c->slot, slice_of(&c->key));
    }
}

/* Over any trees; a key may come twice. */
static void op_batch(void)
{
    size_t n = 1 + random_below(random_below(8) ? 8 : BATCH_MAX);
    struct slot *one = random_below(2) ? any_slot() : NULL;
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        struct change *c = &change[i];
        c->slot = one ? one : any_slot();
        c->put = random_below(3) != 0;
        c->key = c->put ? key_to_add(c->slot) : key_to_delete(c->slot);
        if (i && random_below(10) == 0 && change[i - 1].slot == c->slot)
            c->key = change[i - 1].key;
        c->value = make_value(random_below(100) ? random_below(100)
                                                : random_below(4000));
        bytes += c->key.len + c->value.len + 64;
        if (bytes > batch_bytes_max())
            n = i; /* without this one */
    }
    commit_changes(n);
}

/* Neighbours: many more bytes than the leaves they fall into can hold. */
static void op_batch_dense(void)
{
    struct slot *s = any_slot();
    size_t bytes = 0, n = 0;
    size_t want = 2000 + random_below(batch_bytes_max() - 2000);
    uint64_t from = random_below(2) ? random_below(KEY_SPACE)
                                    : (UINT64_C(1) << 40) + run.op * 1000;
    bool put = random_below(3) != 0;
    while (n < sizeof(change) / sizeof(change[0]) && bytes < want) {
        struct change *c = &change[n++];
        c->slot = s;
        c->put = put;
        c->key = key_of(s, from++);
        c->value = make_value(random_below(s->leaf_bytes / 8));
        bytes += c->key.len + c->value.len + 64;
    }
    commit_changes(n);
}

static void op_batch_too_big(void)
{
    struct slot *s = any_slot();
    struct key key = key_to_add(s);
    struct model_value value = make_value(run.f->options.memory_bytes / 8);
    bft_batch *batch;
    expect_ok(bft_batch_create(run.f->db, &batch));
    expect_status(BFT_TOO_BIG, bft_batch_put(batch, s->tree, slice_of(&key),
                                             value_slice(value)));
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    bft_batch_free(batch);
    key.len = key_max(s) + 1;
    memset(key.bytes, 'x', key.len);
    expect_status(BFT_TOO_BIG, bft_put(s->tree, slice_of(&key),
                                       value_slice(make_value(3))));
}

/* --- cursors -------------------------------------------------------------- */

/* Where a cursor should be: on record AT of the map (of those in FROM..TO), or
 * in front of all, or behind all, or nowhere. */
struct place {
    struct slot *slot;
    bft_cursor *cursor;
    struct key low, high;
    enum { NOWHERE, ON, IN_FRONT, BEHIND } where;
    struct key at;
};

static size_t first_of(const struct place *p)
{
    bool found;
    return p->low.len ? model_map_search(&p->slot->map, slice_of(&p->low),
                                         &found)
                      : 0;
}

static size_t end_of(const struct place *p)
{
    bool found;
    return p->high.len ? model_map_search(&p->slot->map, slice_of(&p->high),
                                          &found)
                       : p->slot->map.count;
}

/* The cursor answered STATUS; it should be on record I, of those it regards. */
static void check_place(struct place *p, bft_status status, size_t i,
                        bool there, const char *how)
{
    const struct model_record *record =
        there ? &p->slot->map.record[i] : NULL;
    bft_slice key = {NULL, 0}, value = {NULL, 0};
    char text[400] = "";
    if (status == BFT_OK) {
        expect_ok(bft_cursor_key(p->cursor, &key));
        expect_ok(bft_cursor_value(p->cursor, &value));
    }
    if (there && status == BFT_OK && key.len == record->key_len &&
        memcmp(key.data, record->key, key.len) == 0 &&
        value.len == record->value.len &&
        model_value_is(record->value, 0, value.data, value.len)) {
        p->where = ON;
        p->at.len = key.len;
        memcpy(p->at.bytes, key.data, key.len);
        return;
    }
    if (!there && status == BFT_NOT_FOUND)
        return;
    (void)bft_last_error(text, sizeof(text));
    print_error("cursor, %s: status %d (%s), key and value of %zu and %zu "
                "bytes\n",
                how, (int)status, text, key.len, value.len);
    if (status == BFT_OK)
        describe(p->slot, key);
    print_error("expected %s\n", there ? "this" : "none");
    if (there)
        describe(p->slot, model_map_key(&p->slot->map, i));
    fail();
}

static void place_seek(struct place *p)
{
    bft_seek how = (bft_seek)random_below(5);
    struct key key = random_below(2) ? key_there(p->slot)
                                     : key_of(p->slot, random_below(KEY_SPACE));
    size_t from = first_of(p), to = end_of(p), i;
    bool found, there;
    i = model_map_search(&p->slot->map, slice_of(&key), &found);
    if (how == BFT_GT && found)
        i++;
    if (how == BFT_LT || (how == BFT_LE && !found))
        i--; /* wraps below 0: beyond all */
    there = i < p->slot->map.count && (how != BFT_EQ || found);
    if ((how == BFT_GE || how == BFT_GT) && there && i < from)
        i = from;
    if ((how == BFT_LE || how == BFT_LT) && there && i >= to)
        i = to - 1;
    there = there && to > from && i >= from && i < to;
    p->where = NOWHERE;
    check_place(p, bft_cursor_seek(p->cursor, how, slice_of(&key)), i, there,
                "seek");
}

static void place_step(struct place *p, bool forward)
{
    size_t from = first_of(p), to = end_of(p), i = from;
    bft_status status =
        forward ? bft_cursor_next(p->cursor) : bft_cursor_prev(p->cursor);
    bool found = true, there = from < to;
    if (p->where == NOWHERE || (p->where == IN_FRONT) == forward) {
        i = forward ? from : to - 1;
    }
    if (p->where == ON) {
        i = model_map_search(&p->slot->map, slice_of(&p->at), &found);
        i = forward ? i + found : i - 1;
        there = there && i >= from && i < to;
    } else if (p->where == IN_FRONT) {
        there = there && forward;
    } else if (p->where == BEHIND) {
        there = there && !forward;
    }
    if (!there && (p->where != NOWHERE || from < to))
        p->where = forward ? BEHIND : IN_FRONT;
    check_place(p, status, i, there, forward ? "next" : "prev");
}

static void place_open(struct place *p, struct slot *s)
{
    memset(p, 0, sizeof(*p));
    p->slot = s;
    expect_ok(bft_cursor_open(s->tree, &p->cursor));
}

/* Seeks and steps, with writes of the same thread between. */
static void op_cursor(void)
{
    struct place p;
    size_t steps = random_below(random_below(8) ? 30 : 400);
    bool forward = random_below(2);
    place_open(&p, any_slot());
    if (random_below(3) == 0) {
        p.low = key_there(p.slot);
        p.high = key_there(p.slot);
        if (random_below(3) == 0)
            p.low.len = 0;
        if (random_below(3) == 0)
            p.high.len = 0;
        expect_ok(bft_cursor_bounds(p.cursor, slice_of(&p.low),
                                    slice_of(&p.high)));
    }
    if (random_below(4))
        place_seek(&p);
    while (steps--) {
        if (random_below(16) == 0)
            forward = !forward;
        if (random_below(40) == 0)
            place_seek(&p);
        else
            place_step(&p, forward);
        if (p.where == ON && random_below(20) == 0) {
            struct key key = random_below(2) ? p.at : key_there(p.slot);
            struct model_value value = any_value(p.slot);
            if (random_below(2)) {
                expect_ok(bft_delete(p.slot->tree, slice_of(&key)));
                model_map_delete(&p.slot->map, slice_of(&key));
            } else {
                expect_ok(bft_put(p.slot->tree, slice_of(&key),
                                  value_slice(value)));
                model_map_put(&p.slot->map, slice_of(&key), value);
            }
        }
    }
    bft_cursor_close(p.cursor);
}

/* All of a tree, both ways. */
static void check_scans(struct slot *s)
{
    struct place p;
    for (int forward = 0; forward < 2; forward++) {
        place_open(&p, s);
        for (size_t i = 0; i <= s->map.count; i++)
            place_step(&p, forward);
        bft_cursor_close(p.cursor);
    }
}

/* --- ranges --------------------------------------------------------------- */

static void check_end(struct slot *s, bft_status status, bft_record *record,
                      size_t i, bool there)
{
    expect_status(there ? BFT_OK : BFT_NOT_FOUND, status);
    if (!there)
        return;
    assert_int_equal(s->map.record[i].key_len, record->key.len);
    assert_memory_equal(s->map.record[i].key, record->key.data,
                        record->key.len);
    assert_true(record->value.len == s->map.record[i].value.len &&
                model_value_is(s->map.record[i].value, 0, record->value.data,
                               record->value.len));
    bft_free(record);
}

static void op_range(void)
{
    struct place p = {.slot = any_slot()};
    size_t from, to;
    uint64_t count, about;
    bft_record *record;
    bft_status status;
    if (random_below(4))
        p.low = key_there(p.slot);
    if (random_below(4))
        p.high = key_there(p.slot);
    from = first_of(&p);
    to = end_of(&p);
    expect_ok(bft_count(p.slot->tree, slice_of(&p.low), slice_of(&p.high),
                        &count));
    assert_int_equal(from < to ? to - from : 0, count);
    expect_ok(bft_estimate(p.slot->tree, slice_of(&p.low), slice_of(&p.high),
                           &about));
    if (count < 10) /* of more than 18 leaves some may be empty */
        assert_true(about < 1000);
    status = bft_first(p.slot->tree, slice_of(&p.low), slice_of(&p.high),
                       &record);
    check_end(p.slot, status, record, from, from < to);
    status = bft_last(p.slot->tree, slice_of(&p.low), slice_of(&p.high),
                      &record);
    check_end(p.slot, status, record, to - 1, from < to);
}

/* Mostly of a few neighbours. */
static void op_delete_range(void)
{
    struct place p = {.slot = any_slot()};
    size_t count = p.slot->map.count, from = 0, to = count;
    uint64_t deleted;
    if (count > 50 && random_below(50)) {
        from = random_below(count);
        to = from + random_below(random_below(8) ? 30 : 300);
        p.low.len = model_map_key(&p.slot->map, from).len;
        memcpy(p.low.bytes, model_map_key(&p.slot->map, from).data, p.low.len);
        if (to < count) {
            p.high.len = model_map_key(&p.slot->map, to).len;
            memcpy(p.high.bytes, model_map_key(&p.slot->map, to).data,
                   p.high.len);
        }
    }
    if (to > count)
        to = count;
    expect_ok(bft_delete_range(p.slot->tree, slice_of(&p.low),
                               slice_of(&p.high), &deleted));
    assert_int_equal(to - from, deleted);
    while (to > from)
        model_map_delete(&p.slot->map, model_map_key(&p.slot->map, --to));
    expect_ok(bft_count(p.slot->tree, slice_of(&p.low), slice_of(&p.high),
                        &deleted));
    assert_int_equal(0, deleted);
}

/* --- trees ---------------------------------------------------------------- */

static void slot_make(struct slot *s)
{
    static const uint32_t leaf[] = {512, 512, 1024, 1536, 2048, 4096};
    memset(s, 0, sizeof(*s));
    snprintf(s->name, sizeof(s->name), "tree %llu",
             (unsigned long long)run.names++);
    s->live = true;
    s->leaf_bytes = leaf[random_below(6)];
    s->style = (unsigned)random_below(5);
    s->tree = engine_tree(run.f, s->name, s->leaf_bytes);
}

static void op_tree(void)
{
    struct slot *s = &run.slot[1 + random_below(TREES - 1)];
    size_t len;
    if (!s->live) {
        slot_make(s);
        return;
    }
    expect_ok(bft_tree_drop(run.f->db, s->name));
    expect_status(BFT_GONE,
                  bft_get(s->tree, (bft_slice){"k", 1}, buf, BUF, &len));
    expect_status(BFT_GONE, bft_put(s->tree, (bft_slice){"k", 1},
                                    (bft_slice){"v", 1}));
    expect_status(BFT_NOT_FOUND, bft_tree_drop(run.f->db, s->name));
    model_map_clear(&s->map);
    s->live = false;
    if (random_below(2))
        slot_make(s);
    check_trees();
}

/* Its handle, and so the slot, goes on. */
static void op_tree_change(void)
{
    struct slot *s = &run.slot[random_below(TREES)];
    char name[32];
    if (!s->live)
        return;
    if (random_below(3) == 0) {
        expect_ok(bft_tree_truncate(run.f->db, s->name));
        model_map_clear(&s->map);
        s->tail = s->head;
        return;
    }
    snprintf(name, sizeof(name), "tree %llu", (unsigned long long)run.names++);
    expect_ok(bft_tree_rename(run.f->db, s->name, name));
    expect_status(BFT_NOT_FOUND, bft_tree_rename(run.f->db, s->name, "x"));
    expect_status(BFT_EXISTS, bft_tree_rename(run.f->db, name, name));
    memcpy(s->name, name, sizeof(name));
    check_trees();
}

static void op_checkpoint(void)
{
    expect_ok(bft_checkpoint(run.f->db));
}

static void op_sync(void)
{
    expect_ok(bft_sync(run.f->db));
}

static void op_verify(void)
{
    expect_ok(bft_verify(run.f->db));
}

/* --- reopening ------------------------------------------------------------ */

static void choose_options(void)
{
    static const uint32_t promote[] = {1, 30, 100, 101};
    static const bft_durability how[] = {BFT_BUFFERED, BFT_BUFFERED, BFT_NONE};
    bft_options *o = &run.f->options;
    o->memory_bytes = (256 << 10) + random_below(4) * (256 << 10);
    o->promote_percent = promote[random_below(4)];
    o->durability = how[random_below(3)];
    o->no_threads = !run.threads;
    o->compress = random_below(2);
    o->leaf_bytes = 512;
}

/* Make certain that all survives what comes, and let it come. */
static void crash(void)
{
    if (random_below(2)) {
        struct slot *s = any_slot();
        struct change *c = &change[0];
        bft_batch *batch;
        c->key = key_to_add(s);
        expect_ok(bft_batch_create(run.f->db, &batch));
        expect_ok(bft_batch_delete(batch, s->tree, slice_of(&c->key)));
        expect_ok(bft_batch_commit(batch, BFT_BUFFERED, NULL));
        bft_batch_free(batch);
        model_map_delete(&s->map, slice_of(&c->key));
        choose_options();
        engine_crash(run.f, BFTI_SIM_KILL, random_next());
        return;
    }
    expect_ok(bft_sync(run.f->db));
    choose_options();
    engine_crash(run.f, (enum bfti_sim_policy)random_below(BFTI_SIM_POLICIES),
                 random_next());
}

static void reopen(void)
{
    if (run.f->backend == ENGINE_SIM && random_below(4)) {
        crash();
    } else {
        engine_close(run.f);
        choose_options();
        engine_open(run.f);
    }
    for (size_t i = 0; i < TREES; i++) {
        if (!run.slot[i].live)
            continue;
        bft_tree_options o = {.size = sizeof(o), .must_exist = true};
        expect_ok(bft_tree_open(run.f->db, run.slot[i].name, &o,
                                &run.slot[i].tree));
    }
    check_all();
}

/* --- a run ---------------------------------------------------------------- */

/* What is done how often, of 100,000. */
static const struct {
    void (*run)(void);
    unsigned share;
} operations[] = {
    {op_put, 33567},       {op_insert, 9000},      {op_delete, 18000},
    {op_get, 22000},       {op_get_range, 3000},   {op_get_small, 1000},
    {op_batch, 6500},      {op_batch_dense, 300},  {op_batch_too_big, 20},
    {op_huge, 30},         {op_stream, 60},        {op_tree, 40},
    {op_checkpoint, 15},   {op_sync, 35},         {op_cursor, 1500},
    {op_verify, 3},
    {op_multi_get, 400},   {op_range, 300},
    {op_replace, 4000},   {op_delete_range, 200},
    {op_tree_change, 30},
};

static void one_operation(void)
{
    size_t left = random_below(100000), i = 0;
    struct slot *s = any_slot();
    if (s->map.count > RECORDS_MAX) {
        uint64_t lowest = random_below(s->map.count - 100);
        for (size_t n = 0; n < 100; n++) {
            bft_slice key = model_map_key(&s->map, lowest);
            expect_ok(bft_delete(s->tree, key));
            model_map_delete(&s->map, key);
        }
    }
    while (i + 1 < sizeof(operations) / sizeof(operations[0]) &&
           left >= operations[i].share)
        left -= operations[i++].share;
    operations[i].run();
}

static void run_all(uint64_t seed, unsigned number, uint64_t ops)
{
    enum engine_backend backend =
        (enum engine_backend)(number % ENGINE_BACKENDS);
    bft_stats stats;
    memset(&run, 0, sizeof(run));
    random_seed(seed * 1000003 + number);
    run.threads = number >= ENGINE_BACKENDS;
    run.ops = ops;
    run.f = engine_fixture_make(backend);
    choose_options();
    engine_open(run.f);
    for (size_t i = 0; i < TREES - 1; i++)
        slot_make(&run.slot[i]);
    for (run.op = 1; run.op <= ops; run.op++) {
        if (run.op % 5000 == 0)
            run.phase = (unsigned)random_below(PHASES);
        one_operation();
        if (run.op % REOPEN_EVERY == 0)
            reopen();
    }
    reopen();
    stats = engine_stats(run.f);
    run.events[0] = stats.splits;
    run.events[1] = stats.merges;
    run.events[2] = stats.growths;
    run.events[3] = stats.evictions_clean + stats.evictions_dirty;
    run.events[4] = stats.checkpoints;
    print_message("%s, %s threads: splits %llu merges %llu deltas %llu growths "
                  "%llu evictions %llu+%llu checkpoints %llu absorbed %llu "
                  "promoted %llu\n",
                  engine_backend_name(backend), run.threads ? "with" : "no",
                  (unsigned long long)stats.splits,
                  (unsigned long long)stats.merges,
                  (unsigned long long)stats.deltas,
                  (unsigned long long)stats.growths,
                  (unsigned long long)stats.evictions_clean,
                  (unsigned long long)stats.evictions_dirty,
                  (unsigned long long)stats.checkpoints,
                  (unsigned long long)stats.leaf_merges,
                  (unsigned long long)stats.promotions);
    engine_fixture_free(run.f);
    for (size_t i = 0; i < TREES; i++)
        model_map_clear(&run.slot[i].map);
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

static uint64_t seed_of_all;

/* Where a failure happened: cmocka leaves the test by a jump. */
static int say_where(void **state)
{
    (void)state;
    if (run.op <= run.ops)
        print_error("at operation %llu; BFT_SEED=%llu repeats it\n",
                    (unsigned long long)run.op,
                    (unsigned long long)seed_of_all);
    return 0;
}

/* How many of all operations a backend's runs have.  The last two differ from
 * the first in how the bytes reach the same files, no more. */
static uint64_t share_of(enum engine_backend backend, uint64_t total)
{
    static const unsigned weight[ENGINE_BACKENDS] = {
        [ENGINE_POSIX] = 3,  [ENGINE_MEMORY] = 3, [ENGINE_SIM] = 3,
        [ENGINE_DIRECT] = 1, [ENGINE_URING] = 1,
    };
    return total * weight[backend] / (3 + 3 + 3 + 1 + 1);
}

static void backend_test(enum engine_backend backend)
{
    uint64_t total = number_from("BFT_MODEL_OPS", OPS), events[5] = {0};
    uint64_t only = number_from("BFT_MODEL_RUN", UINT64_MAX);
    uint64_t share = share_of(backend, total);
    uint64_t least = EVENTS * share / OPS_AT_FULL;
    for (unsigned number = backend; number < RUNS; number += ENGINE_BACKENDS) {
        if (only != UINT64_MAX && only != number)
            continue;
        print_message("run %u: BFT_SEED=%llu BFT_MODEL_RUN=%u\n", number,
                      (unsigned long long)seed_of_all, number);
        run_all(seed_of_all, number, share / (RUNS / ENGINE_BACKENDS) + 1);
        for (size_t i = 0; i < 5; i++)
            events[i] += run.events[i];
    }
    for (size_t i = 0; only == UINT64_MAX && i < 5; i++)
        assert_true(events[i] >= least);
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
        cmocka_unit_test_teardown(sim_holds_what_a_sorted_map_holds,
                                  say_where),
    };
    seed_of_all = random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
