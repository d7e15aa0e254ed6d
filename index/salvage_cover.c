/*
 * Salvage: which ranges of keys were found.
 *
 * Pages are taken the newest first, each for those of its keys that no page
 * before it had; so none is written twice, and what is left at the end is lost.
 * Ranges are disjoint.  They are records of a tree in the new database, for
 * there may be as many as leaves: the low fence is the key, and the range that
 * has no low fence stands in memory.
 */
#include "salvage.h"

/* Value of a record; the high fence follows. */
struct cover_record {
    le64 lsn;
    le64 records;
    uint8_t old;
};
_Static_assert(sizeof(struct cover_record) == 17, "no padding");

/* A range that was found. */
struct found {
    struct salvage_range range;
    struct salvage_origin origin;
};

static void set_low(struct salvage_range *range, bft_slice key)
{
    range->low_len = key.len;
    if (key.len)
        memcpy(range->low, key.data, key.len);
}

static void set_high(struct salvage_range *range, bft_slice key)
{
    range->high_len = key.len;
    if (key.len)
        memcpy(range->high, key.data, key.len);
}

/* Does KEY lie below HIGH, where a HIGH of no bytes is above all? */
static bool below(bft_slice key, bft_slice high)
{
    return high.len == 0 || bfti_key_compare(key, high) < 0;
}

/* The record that CURSOR is on. */
static bft_status found_at(bft_cursor *cursor, struct found *found)
{
    struct cover_record record;
    bft_slice key, value;
    bft_status status = bft_cursor_record(cursor, &key, &value);
    if (status != BFT_OK)
        return status;
    if (value.len < sizeof(record) ||
        value.len - sizeof(record) > sizeof(found->range.high))
        return bfti_fail(BFT_CORRUPT, "salvage: a record of its own is wrong");
    memcpy(&record, value.data, sizeof(record));
    found->origin = (struct salvage_origin){
        le64_get(record.lsn), le64_get(record.records), record.old != 0};
    set_low(&found->range, key);
    value.data = (const uint8_t *)value.data + sizeof(record);
    value.len -= sizeof(record);
    set_high(&found->range, value);
    return BFT_OK;
}

static void found_first(const struct salvage_tree *tree, struct found *found)
{
    bft_slice high = {tree->first->high, tree->first->high_len};
    found->origin = tree->first->origin;
    found->range.low_len = 0;
    set_high(&found->range, high);
}

/* The range at or before KEY, by its low fence, else the first behind it: for a
 * walk that goes on with find_next.  *THERE false: none at all. */
static bft_status find_from(const struct salvage_tree *tree, bft_slice key,
                            bft_cursor **cursor, struct found *found,
                            bool *there)
{
    bft_status status = BFT_NOT_FOUND;
    *there = true;
    *cursor = NULL;
    found->range.low_len = found->range.high_len = 0;
    if (tree->cover)
        status = bft_cursor_open_newest(tree->cover, cursor);
    if (*cursor)
        status =
            key.len ? bft_cursor_seek(*cursor, BFT_LE, key) : BFT_NOT_FOUND;
    if (status == BFT_NOT_FOUND && tree->first) {
        /* The cursor is on no record: its next one is the first. */
        found_first(tree, found);
        return BFT_OK;
    }
    if (status == BFT_NOT_FOUND && *cursor)
        status = bft_cursor_first(*cursor);
    *there = status != BFT_NOT_FOUND;
    if (status == BFT_OK)
        status = found_at(*cursor, found);
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

static bft_status find_next(bft_cursor *cursor, struct found *found,
                            bool *there)
{
    bft_status status = cursor ? bft_cursor_next(cursor) : BFT_NOT_FOUND;
    *there = status == BFT_OK;
    if (status == BFT_OK)
        status = found_at(cursor, found);
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

/* --- asking -------------------------------------------------------------- */

/* MISSING begins where nothing was found up to now, FOUND comes next.  True: it
 * is settled what is missing; *THERE false: nothing. */
static bool narrow(struct salvage_range *missing, const struct found *found,
                   bool *there)
{
    bft_slice high = salvage_high(missing), low = salvage_low(&found->range);
    if (bfti_key_compare(low, salvage_low(missing)) > 0) {
        if (below(low, high))
            set_high(missing, low);
        return true;
    }
    if (below(salvage_low(missing), salvage_high(&found->range))) {
        set_low(missing, salvage_high(&found->range));
        *there = found->range.high_len && below(salvage_low(missing), high);
    }
    return !*there;
}

bft_status bfti_salvage_missing(struct salvage_tree *tree,
                                const struct salvage_range *range,
                                struct salvage_range *missing, bool *there)
{
    struct found found;
    bft_cursor *cursor;
    bool more;
    bft_status status =
        find_from(tree, salvage_low(range), &cursor, &found, &more);
    *missing = *range;
    *there = true;
    while (status == BFT_OK && more && !narrow(missing, &found, there))
        status = find_next(cursor, &found, &more);
    bft_cursor_close(cursor);
    return status;
}

static bft_status changed_newer(const struct salvage_tree *tree, bft_slice key,
                                uint64_t lsn, bool *newer)
{
    le64 changed;
    size_t len;
    bft_status status =
        bft_get(tree->changed, key, &changed, sizeof(changed), &len);
    *newer = status == BFT_OK && le64_get(changed) > lsn;
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

bft_status bfti_salvage_newer(struct salvage_tree *tree, bft_slice key,
                              uint64_t lsn, bool *newer)
{
    struct found found;
    bft_cursor *cursor;
    bool there;
    bft_status status = find_from(tree, key, &cursor, &found, &there);
    *newer = status == BFT_OK && there &&
             bfti_key_compare(salvage_low(&found.range), key) <= 0 &&
             below(key, salvage_high(&found.range)) && found.origin.lsn > lsn;
    bft_cursor_close(cursor);
    if (status == BFT_OK && !*newer && tree->changed)
        status = changed_newer(tree, key, lsn, newer);
    return status;
}

bft_status bfti_salvage_changed(struct salvage *s, struct salvage_tree *tree,
                                bft_slice key, uint64_t lsn)
{
    le64 value = le64_of(lsn);
    bft_status status = BFT_OK;
    if (!tree->changed)
        status = bfti_salvage_work_tree(s, "changed", tree->id, &tree->changed);
    return status == BFT_OK
               ? bft_put(tree->changed, key, (bft_slice){&value, sizeof(value)})
               : status;
}

/* --- finding ------------------------------------------------------------- */

static bft_status cover_first(struct salvage *s, struct salvage_tree *tree,
                              const struct salvage_range *range,
                              const struct salvage_origin *origin)
{
    struct salvage_first *first = bfti_alloc(s->env, sizeof(*first));
    if (!first)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a tree to be salvaged");
    first->origin = *origin;
    first->high_len = range->high_len;
    memcpy(first->high, range->high, range->high_len);
    bfti_free(s->env, tree->first);
    tree->first = first;
    return BFT_OK;
}

bft_status bfti_salvage_cover(struct salvage *s, struct salvage_tree *tree,
                              const struct salvage_range *range,
                              const struct salvage_origin *origin)
{
    struct cover_record record = {le64_of(origin->lsn),
                                  le64_of(origin->records), origin->old};
    uint8_t value[sizeof(record) + BFTI_KEY_MAX];
    bft_status status = BFT_OK;
    if (range->low_len == 0)
        return cover_first(s, tree, range, origin);
    if (!tree->cover)
        status = bfti_salvage_work_tree(s, "cover", tree->id, &tree->cover);
    memcpy(value, &record, sizeof(record));
    memcpy(value + sizeof(record), range->high, range->high_len);
    return status == BFT_OK
               ? bft_put(tree->cover, salvage_low(range),
                         (bft_slice){value, sizeof(record) + range->high_len})
               : status;
}

/* --- telling ------------------------------------------------------------- */

void bfti_salvage_tell_range(struct salvage *s, const struct salvage_tree *tree,
                             const struct salvage_range *range,
                             bft_salvage_kind kind, uint64_t records)
{
    bft_salvage_damage damage;
    memset(&damage, 0, sizeof(damage));
    damage.kind = kind;
    damage.text = kind == BFT_SALVAGE_LOST
                      ? "no page of these keys is whole"
                      : "these records may be older than what was lost";
    damage.tree_id = tree->id;
    damage.tree = tree->named ? tree->name : NULL;
    damage.low = salvage_low(range);
    damage.high = salvage_high(range);
    damage.records = records;
    bfti_salvage_tell(s, &damage);
}

/* Ranges side by side that are of one kind: told as one. */
struct stretch {
    struct salvage *s;
    const struct salvage_tree *tree;
    struct salvage_range range;
    bft_salvage_kind kind; /* or 0: nothing is to be told */
    uint64_t records;
};

static void stretch_tell(const struct stretch *t)
{
    if (t->kind)
        bfti_salvage_tell_range(t->s, t->tree, &t->range, t->kind, t->records);
}

/* RANGE comes next. */
static void stretch_add(struct stretch *t, const struct salvage_range *range,
                        bft_salvage_kind kind, uint64_t records)
{
    if (kind != t->kind) {
        stretch_tell(t);
        t->kind = kind;
        t->records = 0;
        set_low(&t->range, salvage_low(range));
    }
    set_high(&t->range, salvage_high(range));
    t->records += records;
}

bft_status bfti_salvage_tell_ranges(struct salvage *s,
                                    struct salvage_tree *tree)
{
    struct stretch stretch = {s, tree, {0}, 0, 0};
    struct salvage_range lost = {0}; /* where nothing was found yet */
    struct found found;
    bft_cursor *cursor;
    bool more, end = false;
    bft_status status =
        find_from(tree, salvage_low(&lost), &cursor, &found, &more);
    while (status == BFT_OK && more) {
        bft_slice low = salvage_low(&found.range);
        if (bfti_key_compare(low, salvage_low(&lost)) > 0) {
            set_high(&lost, low);
            stretch_add(&stretch, &lost, BFT_SALVAGE_LOST, 0);
        }
        stretch_add(&stretch, &found.range,
                    found.origin.old ? BFT_SALVAGE_OLD : 0,
                    found.origin.records);
        set_low(&lost, salvage_high(&found.range));
        end = found.range.high_len == 0;
        status = find_next(cursor, &found, &more);
    }
    bft_cursor_close(cursor);
    if (status != BFT_OK)
        return status;
    lost.high_len = 0;
    if (!end)
        stretch_add(&stretch, &lost, BFT_SALVAGE_LOST, 0);
    stretch_tell(&stretch);
    return BFT_OK;
}
