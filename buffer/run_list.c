/*
 * Lists: views of records of several runs, merged newest first.  Nothing is
 * allocated but by reserve: the rest runs under latches.
 */
#include <assert.h>

#include "run_internal.h"

/* BLOCK with room for at least COUNT items of SIZE, *CAP the room it has.  HELD
 * counts it. */
static void *grow(const struct bfti_env *env, void *block, size_t *cap,
                  size_t count, size_t size, _Atomic size_t *held)
{
    size_t room = *cap + *cap / 8; /* it stays: not much in vain */
    if (room < count)
        room = count;
    if (room > SIZE_MAX / size)
        return NULL;
    void *moved = block ? bfti_realloc(env, block, room * size)
                        : bfti_alloc(env, room * size);
    if (!moved)
        return NULL;
    if (held) /* relaxed: a figure */
        atomic_fetch_add_explicit(held, (room - *cap) * size,
                                  memory_order_relaxed);
    *cap = room;
    return moved;
}

bft_status bfti_list_reserve(const struct bfti_env *env, struct bfti_list *list,
                             size_t count, size_t dead)
{
    /* Memory for none, too: to add to no address is undefined, even nothing. */
    if (count > list->cap || !list->view) {
        void *view = grow(env, list->view, &list->cap, count ? count : 1,
                          sizeof *list->view, list->held);
        if (!view)
            return bfti_fail(BFT_NO_MEMORY, "no memory to list %zu records",
                             count);
        list->view = view;
    }
    if (dead > list->dead_cap) {
        void *room = grow(env, list->dead, &list->dead_cap, dead,
                          sizeof *list->dead, list->held);
        if (!room)
            return bfti_fail(BFT_NO_MEMORY,
                             "no memory to list %zu dead references", dead);
        list->dead = room;
    }
    return BFT_OK;
}

void bfti_list_free(const struct bfti_env *env, struct bfti_list *list)
{
    bfti_free(env, list->view);
    bfti_free(env, list->dead);
    if (list->held) /* relaxed: a figure */
        atomic_fetch_sub_explicit(list->held,
                                  list->cap * sizeof *list->view +
                                      list->dead_cap * sizeof *list->dead,
                                  memory_order_relaxed);
    *list = (struct bfti_list){.held = list->held};
}

void bfti_list_from_run(struct bfti_list *list, const struct bfti_run *run)
{
    const struct bfti_slot *slots = bfti_run_slots(run);
    const uint8_t *prefix = bfti_run_prefix(run);
    uint16_t prefix_len = le16_get(run->prefix_len);
    size_t count = bfti_run_count(run), dead = le16_get(run->dead_count);

    assert(count <= list->cap);
    assert(dead <= list->dead_cap);
    for (size_t i = 0; i < count; i++)
        list->view[i] = bfti_slot_view(run, slots + i, prefix, prefix_len);
    list->count = count;
    if (dead > 0)
        memcpy(list->dead, slots + count, dead * sizeof *list->dead);
    list->dead_count = dead;
}

/* Note LARGE as dead, unless one of the first UNIQUE references is the same:
 * those of one source differ among themselves. */
static void add_dead(struct bfti_list *list, struct bfti_large large,
                     size_t unique)
{
    for (size_t i = 0; i < unique; i++)
        if (le64_get(list->dead[i].place) == le64_get(large.place))
            return;
    assert(list->dead_count < list->dead_cap);
    list->dead[list->dead_count++] = large;
}

void bfti_list_supersede(struct bfti_list *list, const struct bfti_view *newer,
                         const struct bfti_view *older)
{
    /* A cached copy's value belongs to the put that lies beneath. */
    if (!(older->flags & BFTI_REC_LARGE) || older->op != BFTI_OP_PUT)
        return;
    struct bfti_large large = bfti_view_large(older);
    if (newer->flags & BFTI_REC_LARGE &&
        le64_get(bfti_view_large(newer).place) == le64_get(large.place))
        return;
    add_dead(list, large, list->dead_count);
}

static void copy_views(struct bfti_list *out, const struct bfti_view *view,
                       size_t count)
{
    assert(count <= out->cap - out->count);
    if (count > 0)
        memcpy(out->view + out->count, view, count * sizeof *view);
    out->count += count;
}

/*
 * The first view of LIST from FROM on with a key >= V's.  Strides double from
 * one: a few new records among many old ones cost a logarithm each, records
 * that alternate cost what a plain merge does.
 */
static size_t gallop(const struct bfti_list *list, size_t from,
                     const struct bfti_view *v, bool *equal)
{
    size_t low = from, high = list->count, stride = 1;

    *equal = false;
    for (size_t at = from; at < list->count; at = low + stride - 1) {
        int order = bfti_view_compare(list->view + at, v);
        if (order >= 0) {
            *equal = order == 0;
            high = at;
            break;
        }
        low = at + 1;
        stride *= 2;
    }
    while (low < high && !*equal) {
        size_t middle = low + (high - low) / 2;
        int order = bfti_view_compare(list->view + middle, v);
        *equal = order == 0;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return high;
}

/* Of two records with the same key; OLDER may be NULL. */
static const struct bfti_view *winner(const struct bfti_view *newer,
                                      const struct bfti_view *older)
{
    return older && newer->op == BFTI_OP_DELETE &&
                   bfti_fault_on(BFTI_FAULT_MERGE_UNDELETES)
               ? older
               : newer;
}

void bfti_list_merge(struct bfti_list *out, const struct bfti_list *newer,
                     const struct bfti_list *older)
{
    size_t from = 0;

    assert(out != newer && out != older);
    out->count = 0;
    out->dead_count = 0;
    for (size_t i = 0; i < newer->count; i++) {
        bool equal;
        size_t at = gallop(older, from, newer->view + i, &equal);
        copy_views(out, older->view + from, at - from);
        copy_views(out,
                   winner(newer->view + i, equal ? older->view + at : NULL), 1);
        if (equal)
            bfti_list_supersede(out, newer->view + i, older->view + at);
        from = at + equal;
    }
    if (from < older->count)
        copy_views(out, older->view + from, older->count - from);

    size_t unique = out->dead_count;
    for (size_t i = 0; i < newer->dead_count; i++)
        add_dead(out, newer->dead[i], unique);
    unique = out->dead_count;
    for (size_t i = 0; i < older->dead_count; i++)
        add_dead(out, older->dead[i], unique);
}

void bfti_list_runs(struct bfti_list *out, const struct bfti_list *newest,
                    const struct bfti_run *const *run, unsigned count,
                    struct bfti_list *tmp, struct bfti_list *other)
{
    /* They take turns, so that the last of the merges makes OUT. */
    struct bfti_list *turn[2] = {out, other};
    unsigned merges = newest ? count : count - 1, i = 0;

    assert(count > 0 && newest != out && newest != other && newest != tmp);
    if (!newest) {
        newest = turn[merges % 2];
        bfti_list_from_run(turn[merges % 2], run[i++]);
    }
    while (merges-- > 0) {
        bfti_list_from_run(tmp, run[i++]);
        bfti_list_merge(turn[merges % 2], newest, tmp);
        newest = turn[merges % 2];
    }
}

size_t bfti_runs_records(const struct bfti_run *const *run, unsigned count)
{
    size_t records = 0;
    for (unsigned i = 0; i < count; i++)
        records += bfti_run_count(run[i]);
    return records;
}

size_t bfti_runs_dead(const struct bfti_run *const *run, unsigned count)
{
    size_t dead = 0;
    for (unsigned i = 0; i < count; i++)
        dead += bfti_run_dead_max(run[i]);
    return dead;
}

size_t bfti_list_search(const struct bfti_list *list, bft_slice key,
                        bool *found)
{
    size_t low = 0, high = list->count;

    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = bfti_view_compare_key(list->view + middle, key);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void bfti_list_keep_dirty(struct bfti_list *list)
{
    size_t kept = 0;

    for (size_t i = 0; i < list->count; i++)
        if (bfti_op_is_dirty(list->view[i].op))
            list->view[kept++] = list->view[i];
    list->count = kept;
}

void bfti_list_keep_values(struct bfti_list *list)
{
    size_t kept = 0;

    for (size_t i = 0; i < list->count; i++)
        if (bfti_op_has_value(list->view[i].op))
            list->view[kept++] = list->view[i];
    list->count = kept;
}
