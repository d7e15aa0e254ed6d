/* Operations of a model run on records, one at a time and in batches. */
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "model_ops.h"
#include "random.h"

/* --- one at a time -------------------------------------------------------- */

void model_op_put(void)
{
    struct model_slot *s = model_any_slot();
    struct model_key key =
        random_below(4) ? model_key_to_add(s) : model_key_there(s);
    struct model_value value = model_any_value(s);
    expect_ok(bft_put(s->tree, model_slice(&key), model_value_slice(value)));
    model_map_put(&s->map, model_slice(&key), value);
}

void model_op_insert(void)
{
    struct model_slot *s = model_any_slot();
    struct model_key key =
        random_below(2) ? model_key_to_add(s) : model_key_there(s);
    struct model_value value = model_any_value(s);
    bool there = model_map_get(&s->map, model_slice(&key)) != NULL;
    expect_status(
        there ? BFT_EXISTS : BFT_OK,
        bft_insert(s->tree, model_slice(&key), model_value_slice(value)));
    if (!there)
        model_map_put(&s->map, model_slice(&key), value);
}

void model_op_replace(void)
{
    static uint8_t expected[MODEL_BUF];
    struct model_slot *s = model_any_slot();
    struct model_key key =
        random_below(4) ? model_key_there(s) : model_key_to_add(s);
    struct model_value value = model_any_value(s);
    const struct model_value *there = model_map_get(&s->map, model_slice(&key));
    bft_slice from = {expected, there ? there->len : random_below(20)}, to;
    bool absent = there ? random_below(8) == 0 : random_below(2);
    bool right = !!there != absent, remove = !absent && random_below(4) == 0;
    if (there)
        model_value_bytes(*there, 0, expected, there->len);
    if (there && !absent && from.len && random_below(4) == 0) {
        expected[random_below(from.len)] ^= 4;
        right = false;
    }
    to = model_value_slice(value);
    expect_status(right ? BFT_OK : BFT_CONFLICT,
                  bft_replace(s->tree, model_slice(&key), absent ? NULL : &from,
                              remove ? NULL : &to));
    if (right && remove)
        model_map_delete(&s->map, model_slice(&key));
    else if (right)
        model_map_put(&s->map, model_slice(&key), value);
}

void model_op_delete(void)
{
    struct model_slot *s = model_any_slot();
    struct model_key key = model_key_to_delete(s);
    expect_ok(bft_delete(s->tree, model_slice(&key)));
    model_map_delete(&s->map, model_slice(&key));
}

void model_op_get(void)
{
    struct model_slot *s = model_any_slot();
    struct model_key key = model_key_there(s);
    model_check_get(s, model_slice(&key));
}

void model_op_get_range(void)
{
    struct model_slot *s = model_any_slot();
    struct model_key key = model_key_there(s);
    const struct model_value *want = model_map_get(&s->map, model_slice(&key));
    uint64_t offset = want ? random_below(want->len + 10) : 0;
    size_t len = random_below(1000), got = 0, due;
    expect_status(want ? BFT_OK : BFT_NOT_FOUND,
                  bft_get_range(s->tree, model_slice(&key), offset, model_buf,
                                len, &got));
    if (!want)
        return;
    due = offset >= want->len        ? 0
          : want->len - offset < len ? (size_t)(want->len - offset)
                                     : len;
    assert_int_equal(due, got);
    assert_true(model_value_is(*want, offset, model_buf, got));
}

void model_op_get_small(void)
{
    struct model_slot *s = model_any_slot();
    struct model_key key = model_key_there(s);
    const struct model_value *want = model_map_get(&s->map, model_slice(&key));
    size_t len = 0;
    void *copy;
    if (!want || want->len == 0)
        return;
    expect_status(BFT_TOO_SMALL, bft_get(s->tree, model_slice(&key), model_buf,
                                         random_below(want->len), &len));
    assert_int_equal(want->len, len);
    expect_ok(bft_get_copy(s->tree, model_slice(&key), &copy, &len));
    assert_int_equal(want->len, len);
    assert_true(model_value_is(*want, 0, copy, len));
    bft_free(copy);
}

void model_op_multi_get(void)
{
    enum { KEYS = 40, EACH = 4000 };
    static struct model_key key[KEYS];
    bft_answer item[KEYS];
    struct model_slot *s = model_any_slot();
    size_t n = 1 + random_below(KEYS);
    for (size_t i = 0; i < n; i++) {
        key[i] = i && random_below(10) == 0 ? key[i - 1] : model_key_there(s);
        item[i] = (bft_answer){.key = model_slice(&key[i]),
                               .buf = model_buf + i * EACH,
                               .buf_len = EACH};
    }
    expect_ok(bft_multi_get(s->tree, item, n));
    for (size_t i = 0; i < n; i++) {
        const struct model_value *want = model_map_get(&s->map, item[i].key);
        bft_status due = !want              ? BFT_NOT_FOUND
                         : want->len > EACH ? BFT_TOO_SMALL
                                            : BFT_OK;
        if (due == item[i].status &&
            item[i].value_len == (want ? want->len : 0) &&
            (due != BFT_OK ||
             model_value_is(*want, 0, item[i].buf, item[i].value_len)))
            continue;
        model_describe(s, item[i].key);
        print_error("answer %zu of %zu: status %d, %zu bytes\n", i, n,
                    (int)item[i].status, item[i].value_len);
        fail();
    }
}

void model_op_huge(void)
{
    struct model_slot *s = model_any_slot();
    struct model_key key =
        random_below(2) ? model_key_there(s) : model_key_to_add(s);
    struct model_value value = model_huge_value();
    expect_ok(bft_put(s->tree, model_slice(&key), model_value_slice(value)));
    model_map_put(&s->map, model_slice(&key), value);
    model_check_get(s, model_slice(&key));
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

void model_op_stream(void)
{
    struct model_slot *s = model_any_slot();
    struct model_key key =
        random_below(2) ? model_key_there(s) : model_key_to_add(s);
    struct stream stream = {random_below(3) ? model_any_value(s)
                                            : model_huge_value(),
                            0, UINT64_MAX};
    bool failing = random_below(4) == 0 && stream.value.len > 0;
    if (failing)
        stream.fail_at = random_below(stream.value.len > 600000 ? 2 : 1);
    expect_status(failing ? BFT_CONFLICT : BFT_OK,
                  bft_put_stream(s->tree, model_slice(&key), stream.value.len,
                                 stream_read, &stream));
    if (!failing)
        model_map_put(&s->map, model_slice(&key), stream.value);
    model_check_get(s, model_slice(&key));
}

/* --- batches --------------------------------------------------------------- */

struct change {
    struct model_slot *slot;
    struct model_key key;
    bool put;
    struct model_value value;
};

static struct change change[600];

static void commit_changes(size_t n)
{
    static const bft_durability how[] = {BFT_DEFAULT, BFT_NONE, BFT_BUFFERED};
    bft_durability durability =
        random_below(100) ? how[random_below(3)] : BFT_SYNC;
    uint64_t lsn = 0;
    bft_batch *batch;
    expect_ok(bft_batch_create(model_run.f->db, &batch));
    for (size_t i = 0; i < n; i++) {
        struct change *c = &change[i];
        if (c->put)
            expect_ok(bft_batch_put(batch, c->slot->tree, model_slice(&c->key),
                                    model_value_slice(c->value)));
        else
            expect_ok(
                bft_batch_delete(batch, c->slot->tree, model_slice(&c->key)));
    }
    expect_ok(bft_batch_commit(batch, durability, &lsn));
    if (durability == BFT_SYNC)
        assert_true(bft_durable_lsn(model_run.f->db) >= lsn);
    else if (random_below(200) == 0)
        expect_ok(bft_wait_durable(model_run.f->db, lsn));
    assert_int_equal(0, bft_batch_count(batch));
    bft_batch_free(batch);
    for (size_t i = 0; i < n; i++) {
        struct change *c = &change[i];
        if (c->put)
            model_map_put(&c->slot->map, model_slice(&c->key), c->value);
        else
            model_map_delete(&c->slot->map, model_slice(&c->key));
    }
    for (size_t i = 0; i < n && i < 4; i++) {
        struct change *c = &change[random_below(n)];
        model_check_get(c->slot, model_slice(&c->key));
    }
}

void model_op_batch(void)
{
    size_t n = 1 + random_below(random_below(8) ? 8 : 64);
    struct model_slot *one = random_below(2) ? model_any_slot() : NULL;
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        struct change *c = &change[i];
        c->slot = one ? one : model_any_slot();
        c->put = random_below(3) != 0;
        c->key =
            c->put ? model_key_to_add(c->slot) : model_key_to_delete(c->slot);
        if (i && random_below(10) == 0 && change[i - 1].slot == c->slot)
            c->key = change[i - 1].key;
        c->value = model_make_value(random_below(100) ? random_below(100)
                                                      : random_below(4000));
        bytes += c->key.len + c->value.len + 64;
        if (bytes > model_batch_bytes_max())
            n = i; /* without this one */
    }
    commit_changes(n);
}

void model_op_batch_dense(void)
{
    struct model_slot *s = model_any_slot();
    size_t bytes = 0, n = 0;
    size_t want = 2000 + random_below(model_batch_bytes_max() - 2000);
    uint64_t from = random_below(2) ? random_below(MODEL_KEYS)
                                    : (UINT64_C(1) << 40) + model_run.op * 1000;
    bool put = random_below(3) != 0;
    while (n < sizeof(change) / sizeof(change[0]) && bytes < want) {
        struct change *c = &change[n++];
        c->slot = s;
        c->put = put;
        c->key = model_key_of(s, from++);
        c->value = model_make_value(random_below(s->leaf_bytes / 8));
        bytes += c->key.len + c->value.len + 64;
    }
    commit_changes(n);
}

void model_op_batch_too_big(void)
{
    struct model_slot *s = model_any_slot();
    struct model_key key = model_key_to_add(s);
    struct model_value value =
        model_make_value(model_run.f->options.memory_bytes / 8);
    bft_batch *batch;
    expect_ok(bft_batch_create(model_run.f->db, &batch));
    expect_status(BFT_TOO_BIG, bft_batch_put(batch, s->tree, model_slice(&key),
                                             model_value_slice(value)));
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    bft_batch_free(batch);
    key.len = model_key_max(s) + 1;
    memset(key.bytes, 'x', key.len);
    expect_status(BFT_TOO_BIG, bft_put(s->tree, model_slice(&key),
                                       model_value_slice(model_make_value(3))));
}
