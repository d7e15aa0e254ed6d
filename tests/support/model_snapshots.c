/* Operations of a model run by snapshots. */
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "model_ops.h"
#include "random.h"

/* --- which are open ------------------------------------------------------- */

static bool is_open(const struct model_past *past)
{
    return past->snapshot || past->place.cursor;
}

bool model_past_is_open(void)
{
    bool any = false;
    for (size_t i = 0; i < MODEL_PASTS; i++)
        any = any || is_open(&model_run.past[i]);
    return any;
}

bool model_done_alone(bft_status status)
{
    bool alone = !model_past_is_open();
    expect_status(alone ? BFT_OK : BFT_BUSY, status);
    model_run.deeds[MODEL_REFUSALS] += !alone;
    return alone;
}

static struct model_past *any_past(void)
{
    return &model_run.past[random_below(MODEL_PASTS)];
}

/* Nothing has the snapshot any more. */
static void forget(struct model_past *past)
{
    if (is_open(past))
        return;
    for (size_t t = 0; t < MODEL_TREES; t++)
        model_map_clear(&past->map[t]);
}

static void release(struct model_past *past)
{
    bft_snapshot_release(past->snapshot);
    past->snapshot = NULL;
    forget(past);
}

static void cursor_close(struct model_past *past)
{
    model_place_close(&past->place);
    forget(past);
}

void model_op_snapshot_take(void)
{
    struct model_past *past = any_past();
    if (is_open(past))
        return;
    expect_ok(bft_snapshot_take(model_run.f->db, &past->snapshot));
    for (size_t t = 0; t < MODEL_TREES; t++)
        model_map_copy(&past->map[t], &model_run.slot[t].map);
    model_run.deeds[MODEL_SNAPSHOTS]++;
}

/* --- around a close ------------------------------------------------------- */

void model_pasts_closing(void)
{
    for (size_t i = 0; i < MODEL_PASTS; i++) {
        struct model_past *past = &model_run.past[i];
        if (past->place.cursor)
            cursor_close(past);
        if (past->snapshot && random_below(2))
            release(past);
    }
}

void model_pasts_closed(void)
{
    for (size_t i = 0; i < MODEL_PASTS; i++) {
        struct model_past *past = &model_run.past[i];
        size_t len;
        if (!past->snapshot)
            continue;
        expect_status(BFT_INVALID,
                      bft_snapshot_get(past->snapshot, model_any_slot()->tree,
                                       (bft_slice){"k", 1}, model_buf,
                                       MODEL_BUF, &len));
        release(past);
    }
}

/* --- reading -------------------------------------------------------------- */

static bool is_changed(const struct model_value *was,
                       const struct model_value *is)
{
    return !was != !is ||
           (was && (was->seed != is->seed || was->len != is->len));
}

static void check_past(struct model_past *past, size_t t, bft_slice key)
{
    struct model_slot *s = &model_run.slot[t];
    const struct model_value *want = model_map_get(&past->map[t], key);
    bft_status status;
    size_t len;
    void *copy;
    if (random_below(2)) {
        status = bft_snapshot_get(past->snapshot, s->tree, key, model_buf,
                                  MODEL_BUF, &len);
    } else {
        status =
            bft_snapshot_get_copy(past->snapshot, s->tree, key, &copy, &len);
        if (len)
            memcpy(model_buf, copy, len);
        bft_free(copy);
    }
    model_check_answer(s, key, want, status, len);
    model_run.deeds[MODEL_PAST_GETS] +=
        is_changed(want, model_map_get(&s->map, key));
}

static void op_get(struct model_past *past)
{
    struct model_slot *s = model_any_slot();
    size_t t = (size_t)(s - model_run.slot);
    struct model_key key =
        random_below(4) ? model_key_in(s, &past->map[t]) : model_key_there(s);
    if (random_below(3) == 0) {
        struct model_value value = model_any_value(s);
        model_write(s, model_slice(&key), random_below(3) ? &value : NULL);
    }
    check_past(past, t, model_slice(&key));
}

static void past_open(struct model_past *past)
{
    struct model_slot *s = model_any_slot();
    struct model_place *p = &past->place;
    memset(p, 0, sizeof(*p));
    p->slot = s;
    p->map = &past->map[s - model_run.slot];
    expect_ok(bft_snapshot_cursor(past->snapshot, s->tree, &p->cursor));
    if (random_below(3) == 0)
        model_place_bound(p);
    if (random_below(4))
        model_place_seek(p);
}

static void op_cursor(struct model_past *past)
{
    struct model_place *p = &past->place;
    size_t steps = random_below(random_below(8) ? 30 : 300);
    bool forward = random_below(2);
    if (!p->cursor)
        past_open(past);
    else if (p->where == MODEL_ON)
        model_place_again(p);
    for (; steps > 0; steps--) {
        if (random_below(16) == 0)
            forward = !forward;
        if (random_below(40) == 0)
            model_place_seek(p);
        else
            model_place_step(p, forward);
        model_run.deeds[MODEL_PAST_STEPS]++;
    }
    if (random_below(4) == 0)
        cursor_close(past);
}

static void op_release(struct model_past *past)
{
    if (!past->snapshot) {
        if (past->place.cursor)
            cursor_close(past);
        return;
    }
    release(past);
}

/* What has to wait, waits also for a cursor that outlives its snapshot. */
static void op_refused(void)
{
    const char *name = model_any_slot()->name;
    if (random_below(3) == 0) {
        model_op_load_refused();
        return;
    }
    expect_status(BFT_BUSY, random_below(2)
                                ? bft_tree_drop(model_run.f->db, name)
                                : bft_tree_truncate(model_run.f->db, name));
    model_run.deeds[MODEL_REFUSALS]++;
}

void model_op_past(void)
{
    struct model_past *past = any_past();
    if (!is_open(past))
        return;
    switch (random_below(20)) {
    case 0:
    case 1:
        op_release(past);
        break;
    case 2:
    case 3:
    case 4:
    case 5:
        op_cursor(past);
        break;
    case 6:
    case 7:
    case 8:
        op_refused();
        break;
    default:
        if (past->snapshot)
            op_get(past);
    }
}
