/*
 * Ranges: how many records, exactly or about, the first and the last.
 *
 * A range is LOW <= key < HIGH; a length of 0 leaves that side open.  Counting
 * looks at one leaf after the other, as a cursor does, and copies no record.
 */
#include "expiry.h"
#include "tomb.h"

enum {
    SAMPLES = 16,               /* leaves that an estimate reads, beside the
                                   first and the last */
    EXACT_LEAVES = SAMPLES + 2, /* so few are counted */
};

struct range {
    struct bfti_tree *tree;
    struct bfti_rec *rec;
    bft_slice low, high;
};

static bool is_empty(const struct range *range)
{
    return range->low.len && range->high.len &&
           bfti_key_compare(range->low, range->high) >= 0;
}

static bft_status open_range(bft_tree *handle, bft_slice low, bft_slice high,
                             struct range *range)
{
    struct bfti_engine *engine;
    bft_status status = bfti_gate_tree(handle, &engine, &range->rec);
    if (status == BFT_OK)
        status = bfti_check_bound(low);
    if (status == BFT_OK)
        status = bfti_check_bound(high);
    if (status != BFT_OK)
        return status;
    range->tree = bfti_handle_tree(handle);
    range->low = low;
    range->high = high;
    return BFT_OK;
}

/* --- counting ------------------------------------------------------------- */

/* Add to *COUNT the records from FROM on: those of its leaf, or all up to the
 * range's end. */
static bft_status count_from(const struct range *range, bft_slice from,
                             bool one_leaf, uint64_t *count)
{
    struct bfti_copy copy = {.env = range->tree->engine->env};
    struct bfti_bound at;
    struct bfti_copy_wish wish = {.only = BFTI_COPY_COUNT,
                                  .window = SIZE_MAX,
                                  .ahead = one_leaf ? 0 : BFTI_AHEAD,
                                  .further = !one_leaf,
                                  .now = bfti_tree_now(range->tree),
                                  .high = range->high};
    bft_status status;
    bfti_bound_set(&at, from);
    /* Ends: the key rises with each round. */
    for (;;) {
        wish.key = bfti_bound_key(&at);
        status = bfti_copy_shown(&copy, range->tree, range->rec, &wish,
                                 BFTI_TOMB_NEWEST);
        if (status != BFT_OK)
            break;
        *count += copy.count;
        at = copy.high;
        if (one_leaf || at.len == 0 ||
            (range->high.len &&
             bfti_key_compare(bfti_bound_key(&at), range->high) >= 0))
            break;
    }
    bfti_copy_free(&copy);
    return status;
}

bft_status bft_count(bft_tree *tree, bft_slice low, bft_slice high,
                     uint64_t *records)
{
    struct range range = {.tree = NULL};
    uint64_t count;
    bft_status status;
    if (!records)
        return bfti_fail(BFT_INVALID, "bft_count: an output is NULL");
    *records = 0;
    do {
        status = open_range(tree, low, high, &range);
        count = 0;
        if (status == BFT_OK && !is_empty(&range))
            status = count_from(&range, low, false, &count);
    } while (bfti_handle_moved(tree, range.tree, status));
    if (status == BFT_OK)
        *records = count;
    return status;
}

/* --- estimating ----------------------------------------------------------- */

struct sample {
    size_t leaves; /* in the range */
    size_t keys;
    struct bfti_bound key[SAMPLES + 1]; /* the lowest of leaves spread over the
                                           range, and of the last one */
};

static void add_key(void *arg, bft_slice key)
{
    struct sample *sample = arg;
    bfti_bound_set(&sample->key[sample->keys++], key);
}

/* Of the tree as of one instant; the keys only when there are leaves enough. */
static bft_status sample_leaves(const struct range *range,
                                struct sample *sample)
{
    const struct bfti_inner *root;
    sample->keys = 0;
    bfti_read_begin(range->rec);
    root = bfti_tree_root(range->tree); /* [root] */
    if (root) {
        size_t n = bfti_inner_leaves(root, range->low, range->high);
        size_t inside = n - 2, ordinal[SAMPLES + 1];
        sample->leaves = n;
        if (n > EXACT_LEAVES) {
            for (size_t i = 0; i < SAMPLES; i++)
                ordinal[i] = 1 + (2 * i + 1) * inside / (2 * (size_t)SAMPLES);
            ordinal[SAMPLES] = n - 1;
            bfti_inner_lows(root, range->low, range->high, ordinal, SAMPLES + 1,
                            add_key, sample);
            /* Of a node that came in between there were fewer than thought. */
            while (sample->keys && sample->keys <= SAMPLES)
                add_key(sample, bfti_bound_key(&sample->key[sample->keys - 1]));
        }
    }
    bfti_read_end(range->rec);
    return root ? BFT_OK
                : bfti_fail(BFT_GONE, "tree %s was dropped", range->tree->name);
}

/* With the nodes at the ends of the range in memory: a few leaves of them are a
 * small range, all of them are not.  Those between need not be read. */
static bft_status sample_range(const struct range *range, struct sample *sample)
{
    struct bfti_engine *engine = range->tree->engine;
    bool kept = false;
    bft_status status;
    bfti_nodes_keep(engine, &kept);
    status = bfti_node_load(range->tree, range->rec, range->low, false);
    if (status == BFT_OK)
        status = bfti_node_load(range->tree, range->rec, range->high, true);
    if (status == BFT_OK)
        status = sample_leaves(range, sample);
    bfti_nodes_release(engine, &kept);
    return status;
}

static bft_status estimate(const struct range *range, struct sample *sample,
                           uint64_t *records)
{
    uint64_t ends = 0, sampled = 0;
    bft_status status = sample_range(range, sample);
    if (status != BFT_OK)
        return status;
    if (sample->keys == 0)
        return count_from(range, range->low, false, records);
    status = count_from(range, range->low, true, &ends);
    for (size_t i = 0; i < sample->keys && status == BFT_OK; i++)
        status = count_from(range, bfti_bound_key(&sample->key[i]), true,
                            i < SAMPLES ? &sampled : &ends);
    if (status == BFT_OK)
        *records = ends + (uint64_t)((double)sampled / SAMPLES *
                                     (double)(sample->leaves - 2));
    return status;
}

bft_status bft_estimate(bft_tree *tree, bft_slice low, bft_slice high,
                        uint64_t *records)
{
    struct range range;
    struct sample *sample;
    uint64_t count = 0;
    const struct bfti_env *env;
    bft_status status;
    if (!records)
        return bfti_fail(BFT_INVALID, "bft_estimate: an output is NULL");
    *records = 0;
    status = open_range(tree, low, high, &range);
    if (status != BFT_OK || is_empty(&range))
        return status;
    env = range.tree->engine->env;
    sample = bfti_alloc(env, sizeof(*sample)); /* 17 KiB of keys */
    if (!sample)
        return bfti_fail(BFT_NO_MEMORY, "no memory for an estimate");
    do {
        count = 0;
        range.tree = bfti_handle_tree(tree);
        status = estimate(&range, sample, &count);
    } while (bfti_handle_moved(tree, range.tree, status));
    bfti_free(env, sample);
    if (status == BFT_OK)
        *records = count;
    return status;
}

/* --- first and last ------------------------------------------------------- */

static bft_status copy_record(const struct bfti_env *env, bft_slice key,
                              bft_slice value, bft_record **out)
{
    bft_record *record;
    uint8_t *bytes;
    if (value.len > SIZE_MAX - sizeof(*record) - key.len)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a record");
    record = bfti_give(env, sizeof(*record) + key.len + value.len);
    if (!record)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a record of %zu bytes",
                         key.len + value.len);
    bytes = (uint8_t *)(record + 1);
    memcpy(bytes, key.data, key.len);
    if (value.len)
        memcpy(bytes + key.len, value.data, value.len);
    record->key = (bft_slice){bytes, key.len};
    record->value = (bft_slice){bytes + key.len, value.len};
    *out = record;
    return BFT_OK;
}

static bft_status end_record(const struct bfti_env *env, bft_cursor *cursor,
                             bool last, bft_record **out)
{
    /* Ends: a round is repeated only after a writer removed the record whose
     * large value was to be read. */
    for (;;) {
        bft_slice key, value;
        bft_status status =
            last ? bft_cursor_last(cursor) : bft_cursor_first(cursor);
        if (status == BFT_OK)
            status = bft_cursor_key(cursor, &key);
        if (status != BFT_OK)
            return status;
        status = bft_cursor_value(cursor, &value);
        if (status == BFT_OK)
            return copy_record(env, key, value, out);
        if (status != BFT_NOT_FOUND)
            return status;
    }
}

static bft_status end_of(bft_tree *tree, bft_slice low, bft_slice high,
                         bool last, bft_record **out)
{
    bft_cursor *cursor;
    bft_status status;
    if (!out)
        return bfti_fail(BFT_INVALID, "%s: an output is NULL",
                         last ? "bft_last" : "bft_first");
    *out = NULL;
    status = bft_cursor_open_newest(tree, &cursor);
    if (status != BFT_OK)
        return status;
    status = bft_cursor_bounds(cursor, low, high);
    if (status == BFT_OK)
        status = end_record(tree->db->engine->env, cursor, last, out);
    bft_cursor_close(cursor);
    return status;
}

bft_status bft_first(bft_tree *tree, bft_slice low, bft_slice high,
                     bft_record **record)
{
    return end_of(tree, low, high, false, record);
}

bft_status bft_last(bft_tree *tree, bft_slice low, bft_slice high,
                    bft_record **record)
{
    return end_of(tree, low, high, true, record);
}
