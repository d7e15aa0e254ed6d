/* Operations of a model run by cursors and on ranges. */
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "model_ops.h"
#include "random.h"

/* --- cursors -------------------------------------------------------------- */

static size_t first_of(const struct model_place *p)
{
    bool found;
    return p->low.len ? model_map_search(p->map, model_slice(&p->low), &found)
                      : 0;
}

static size_t end_of(const struct model_place *p)
{
    bool found;
    return p->high.len ? model_map_search(p->map, model_slice(&p->high), &found)
                       : p->map->count;
}

/* The cursor answered STATUS; it should be on record I, of those it regards. */
static void check_place(struct model_place *p, bft_status status, size_t i,
                        bool there, const char *how)
{
    const struct model_record *record = there ? &p->map->record[i] : NULL;
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
        p->where = MODEL_ON;
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
        model_describe(p->slot, key);
    print_error("expected %s\n", there ? "this" : "none");
    if (there)
        model_describe(p->slot, model_map_key(p->map, i));
    fail();
}

void model_place_seek(struct model_place *p)
{
    bft_seek how = (bft_seek)random_below(5);
    struct model_key key =
        random_below(2) ? model_key_in(p->slot, p->map)
                        : model_key_of(p->slot, random_below(MODEL_KEYS));
    size_t from = first_of(p), to = end_of(p), i;
    bool found, there;
    i = model_map_search(p->map, model_slice(&key), &found);
    if (how == BFT_GT && found)
        i++;
    if (how == BFT_LT || (how == BFT_LE && !found))
        i--; /* wraps below 0: beyond all */
    there = i < p->map->count && (how != BFT_EQ || found);
    if ((how == BFT_GE || how == BFT_GT) && there && i < from)
        i = from;
    if ((how == BFT_LE || how == BFT_LT) && there && i >= to)
        i = to - 1;
    there = there && to > from && i >= from && i < to;
    p->where = MODEL_NOWHERE;
    check_place(p, bft_cursor_seek(p->cursor, how, model_slice(&key)), i, there,
                "seek");
}

void model_place_step(struct model_place *p, bool forward)
{
    size_t from = first_of(p), to = end_of(p), i = from;
    bft_status status =
        forward ? bft_cursor_next(p->cursor) : bft_cursor_prev(p->cursor);
    bool found = true, there = from < to;
    if (p->where == MODEL_NOWHERE || (p->where == MODEL_IN_FRONT) == forward) {
        i = forward ? from : to - 1;
    }
    if (p->where == MODEL_ON) {
        i = model_map_search(p->map, model_slice(&p->at), &found);
        i = forward ? i + found : i - 1;
        there = there && i >= from && i < to;
    } else if (p->where == MODEL_IN_FRONT) {
        there = there && forward;
    } else if (p->where == MODEL_BEHIND) {
        there = there && !forward;
    }
    if (!there && (p->where != MODEL_NOWHERE || from < to))
        p->where = forward ? MODEL_BEHIND : MODEL_IN_FRONT;
    check_place(p, status, i, there, forward ? "next" : "prev");
}

void model_place_again(struct model_place *p)
{
    bool found;
    size_t i = model_map_search(p->map, model_slice(&p->at), &found);
    assert_true(p->where == MODEL_ON && found);
    check_place(p, BFT_OK, i, true, "as before");
}

void model_place_bound(struct model_place *p)
{
    p->low = model_key_in(p->slot, p->map);
    p->high = model_key_in(p->slot, p->map);
    if (random_below(3) == 0)
        p->low.len = 0;
    if (random_below(3) == 0)
        p->high.len = 0;
    expect_ok(bft_cursor_bounds(p->cursor, model_slice(&p->low),
                                model_slice(&p->high)));
}

void model_place_close(struct model_place *p)
{
    bft_cursor_close(p->cursor);
    p->cursor = NULL;
}

static void place_open(struct model_place *p, struct model_slot *s)
{
    memset(p, 0, sizeof(*p));
    p->slot = s;
    p->map = &s->map;
    expect_ok(bft_cursor_open_newest(s->tree, &p->cursor));
}

/* A cursor shows what was there when it was opened, or refreshed, whatever is
 * written meanwhile. */
void model_op_instant(void)
{
    struct model_place p = {.slot = model_any_slot()};
    struct model_map was = {.count = 0};
    size_t steps = random_below(random_below(8) ? 40 : 400);
    bool forward = random_below(2);
    model_map_copy(&was, &p.slot->map);
    p.map = &was;
    expect_ok(bft_cursor_open(p.slot->tree, &p.cursor));
    if (random_below(3) == 0)
        model_place_bound(&p);
    while (steps--) {
        if (random_below(16) == 0)
            forward = !forward;
        if (random_below(20) == 0)
            model_place_seek(&p);
        else
            model_place_step(&p, forward);
        if (random_below(4) == 0) {
            struct model_key key = p.where == MODEL_ON && random_below(2)
                                       ? p.at
                                       : model_key_there(p.slot);
            struct model_value value = model_any_value(p.slot);
            model_write(p.slot, model_slice(&key),
                        random_below(2) ? NULL : &value);
        }
        if (random_below(100) == 0) {
            expect_ok(bft_cursor_refresh(p.cursor));
            p.where = MODEL_NOWHERE;
            model_map_clear(&was);
            model_map_copy(&was, &p.slot->map);
        }
    }
    model_place_close(&p);
    model_map_clear(&was);
}

void model_op_cursor(void)
{
    struct model_place p;
    size_t steps = random_below(random_below(8) ? 30 : 400);
    bool forward = random_below(2);
    place_open(&p, model_any_slot());
    if (random_below(3) == 0)
        model_place_bound(&p);
    if (random_below(4))
        model_place_seek(&p);
    while (steps--) {
        if (random_below(16) == 0)
            forward = !forward;
        if (random_below(40) == 0)
            model_place_seek(&p);
        else
            model_place_step(&p, forward);
        if (p.where == MODEL_ON && random_below(20) == 0) {
            struct model_key key =
                random_below(2) ? p.at : model_key_there(p.slot);
            struct model_value value = model_any_value(p.slot);
            model_write(p.slot, model_slice(&key),
                        random_below(2) ? NULL : &value);
        }
    }
    model_place_close(&p);
}

void model_check_scan(struct model_slot *s, bool forward)
{
    struct model_place p;
    place_open(&p, s);
    for (size_t i = 0; i <= s->map.count; i++)
        model_place_step(&p, forward);
    model_place_close(&p);
}

/* --- ranges ---------------------------------------------------------------- */

static void check_end(struct model_slot *s, bft_status status,
                      bft_record *record, size_t i, bool there)
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

void model_op_range(void)
{
    struct model_slot *s = model_any_slot();
    struct model_place p = {.slot = s, .map = &s->map};
    size_t from, to;
    uint64_t count, about;
    bft_record *record;
    bft_status status;
    if (random_below(4))
        p.low = model_key_there(p.slot);
    if (random_below(4))
        p.high = model_key_there(p.slot);
    from = first_of(&p);
    to = end_of(&p);
    expect_ok(bft_count(p.slot->tree, model_slice(&p.low), model_slice(&p.high),
                        &count));
    assert_int_equal(from < to ? to - from : 0, count);
    expect_ok(bft_estimate(p.slot->tree, model_slice(&p.low),
                           model_slice(&p.high), &about));
    if (count < 10) /* of more than 18 leaves some may be empty */
        assert_true(about < 1000);
    status = bft_first(p.slot->tree, model_slice(&p.low), model_slice(&p.high),
                       &record);
    check_end(p.slot, status, record, from, from < to);
    status = bft_last(p.slot->tree, model_slice(&p.low), model_slice(&p.high),
                      &record);
    check_end(p.slot, status, record, to - 1, from < to);
}

void model_op_delete_range(void)
{
    struct model_slot *s = model_any_slot();
    struct model_place p = {.slot = s, .map = &s->map};
    size_t count = p.slot->map.count, from = 0, to = count;
    uint64_t deleted;
    if (count > 50 && random_below(50)) {
        from = random_below(count);
        to = from + random_below(random_below(8) ? 30 : 300);
        p.low = model_key_at(&p.slot->map, from);
        if (to < count)
            p.high = model_key_at(&p.slot->map, to);
    }
    if (to > count)
        to = count;
    /* Who does not ask how many leaves the records there, for what comes next to
     * meet them. */
    if (random_below(3)) {
        expect_ok(bft_delete_range(p.slot->tree, model_slice(&p.low),
                                   model_slice(&p.high), NULL));
    } else {
        expect_ok(bft_delete_range(p.slot->tree, model_slice(&p.low),
                                   model_slice(&p.high), &deleted));
        assert_int_equal(to - from, deleted);
    }
    while (to > from)
        model_map_delete(&p.slot->map, model_map_key(&p.slot->map, --to));
    expect_ok(bft_count(p.slot->tree, model_slice(&p.low), model_slice(&p.high),
                        &deleted));
    assert_int_equal(0, deleted);
}
