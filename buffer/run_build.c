/*
 * Runs as they are made: size, build, where to cut a leaf that has outgrown
 * its size, and the separators between the parts.
 */
#include <assert.h>

#include "run_internal.h"

size_t bfti_view_common(const struct bfti_view *a, const struct bfti_view *b)
{
    size_t a_len = bfti_view_key_len(a), b_len = bfti_view_key_len(b);
    size_t len = a_len < b_len ? a_len : b_len, at = 0;

    if (a->prefix == b->prefix && a->prefix_len == b->prefix_len)
        at = a->prefix_len;
    for (; at < len; at++) {
        uint8_t x =
            at < a->prefix_len ? a->prefix[at] : a->suffix[at - a->prefix_len];
        uint8_t y =
            at < b->prefix_len ? b->prefix[at] : b->suffix[at - b->prefix_len];
        if (x != y)
            break;
    }
    return at;
}

/* --- build ---------------------------------------------------------------- */

/* The operation a kept record has in the run, or 0: it is left out. */
static inline uint8_t kept_op(enum bfti_keep keep, uint8_t op)
{
    switch (keep) {
    case BFTI_KEEP_ALL:
        return op;
    case BFTI_KEEP_DIRTY:
        return bfti_op_is_dirty(op) ? op : 0;
    case BFTI_KEEP_VALUES:
        return bfti_op_has_value(op) ? BFTI_OP_PUT : 0;
    case BFTI_KEEP_CLEAN:
        return bfti_op_has_value(op) ? BFTI_OP_CACHED : BFTI_OP_ABSENT;
    }
    return 0;
}

/* What of a spec goes into the run. */
struct tally {
    size_t count;
    size_t bytes;       /* of whole keys and values */
    size_t first, last; /* views kept, when count is not 0 */
    size_t prefix_len;
    size_t dead_count;
    bool large;
};

static struct tally tally(const struct bfti_run_spec *spec)
{
    struct tally t = {0};

    if (spec->keep == BFTI_KEEP_ALL || spec->keep == BFTI_KEEP_DIRTY)
        t.dead_count = spec->dead_count;
    t.large = t.dead_count > 0;
    for (size_t i = 0; i < spec->count; i++) {
        const struct bfti_view *v = spec->view + i;
        if (!kept_op(spec->keep, v->op))
            continue;
        if (t.count++ == 0)
            t.first = i;
        t.last = i;
        t.bytes += bfti_view_key_len(v) + v->value_len;
        t.large = t.large || v->flags & BFTI_REC_LARGE;
    }
    if (t.count > 0)
        t.prefix_len =
            bfti_view_common(spec->view + t.first, spec->view + t.last);
    return t;
}

static size_t tally_size(const struct tally *t,
                         const struct bfti_run_spec *spec)
{
    size_t size = sizeof(struct bfti_run) +
                  t->count * sizeof(struct bfti_slot) +
                  t->dead_count * sizeof(struct bfti_large) + t->prefix_len +
                  spec->low.len + spec->high.len;
    return size + t->bytes - t->count * t->prefix_len;
}

size_t bfti_run_size(const struct bfti_run_spec *spec)
{
    struct tally t = tally(spec);
    return tally_size(&t, spec);
}

static uint8_t *put(uint8_t *at, const void *data, size_t len)
{
    if (len > 0)
        memcpy(at, data, len);
    return at + len;
}

/* The key of V without its first SKIP bytes, then the value; returns the end.
 * In runs and tails the value lies behind the suffix: then one copy does. */
static uint8_t *put_record(uint8_t *at, const struct bfti_view *v, size_t skip)
{
    if (skip < v->prefix_len) {
        at = put(at, v->prefix + skip, v->prefix_len - skip);
        skip = 0;
    } else {
        skip -= v->prefix_len;
    }
    const uint8_t *suffix = v->suffix + skip;
    size_t len = v->suffix_len - skip;
    if (v->value == v->suffix + v->suffix_len)
        return put(at, suffix, len + v->value_len);
    at = put(at, suffix, len);
    return put(at, v->value, v->value_len);
}

static void put_header(struct bfti_run *run, const struct bfti_run_spec *spec,
                       const struct tally *t, size_t size)
{
    *run = (struct bfti_run){
        .bytes = le32_of((uint32_t)size),
        .count = le16_of((uint16_t)t->count),
        .dead_count = le16_of((uint16_t)t->dead_count),
        .prefix_len = le16_of((uint16_t)t->prefix_len),
        .low_len = le16_of((uint16_t)spec->low.len),
        .high_len = le16_of((uint16_t)spec->high.len),
        .flags = le16_of(t->large ? BFTI_RUN_HAS_LARGE : 0),
        .sibling = le64_of(spec->sibling),
        .beneath = le64_of(spec->beneath),
        .tree_id = le32_of(spec->tree_id),
    };
}

/* Slots at SLOT and bytes at AT for every view kept; returns their end. */
static uint8_t *put_records(struct bfti_run *run,
                            const struct bfti_run_spec *spec,
                            const struct tally *t, uint8_t *at)
{
    struct bfti_slot *slot = (struct bfti_slot *)(run + 1);

    for (size_t i = t->first; t->count > 0 && i <= t->last; i++) {
        const struct bfti_view *v = spec->view + i;
        uint8_t op = kept_op(spec->keep, v->op);
        if (!op)
            continue;
        assert(v->value_len <= UINT16_MAX);
        assert(bfti_view_key_len(v) > 0);
        assert(bfti_view_key_len(v) <= BFTI_KEY_MAX);
        assert(bfti_op_has_value(v->op) || v->value_len == 0);
        size_t key_len = bfti_view_key_len(v) - t->prefix_len;
        uint8_t *end = put_record(at, v, t->prefix_len);
        *slot++ = (struct bfti_slot){
            .head = le32_of(bfti_head(at, key_len)),
            .offset = le16_of((uint16_t)(at - (uint8_t *)run)),
            .key_len = le16_of((uint16_t)key_len),
            .value_len = le16_of((uint16_t)v->value_len),
            .op = op,
            .flags = v->flags,
        };
        at = end;
    }
    return at;
}

size_t bfti_run_build(void *buf, const struct bfti_run_spec *spec)
{
    struct tally t = tally(spec);
    size_t size = tally_size(&t, spec);
    struct bfti_run *run = buf;

    assert(size <= BFTI_RUN_BYTES_MAX);
    put_header(run, spec, &t, size);
    uint8_t *at = (uint8_t *)(run + 1) + t.count * sizeof(struct bfti_slot);
    at = put(at, spec->dead, t.dead_count * sizeof *spec->dead);
    if (t.count > 0) {
        const struct bfti_view *first = spec->view + t.first;
        size_t len =
            first->prefix_len < t.prefix_len ? first->prefix_len : t.prefix_len;
        at = put(at, first->prefix, len);
        at = put(at, first->suffix, t.prefix_len - len);
    }
    at = put(at, spec->low.data, spec->low.len);
    at = put(at, spec->high.data, spec->high.len);
    at = put_records(run, spec, &t, at);
    assert((size_t)(at - (uint8_t *)buf) == size);
#if BFT_CHECK >= 2
    assert(!bfti_run_check(buf, size));
#endif
    return size;
}

/* --- cuts ----------------------------------------------------------------- */

/* A part of the views that grows to the right, and what its run would take
 * without its high fence. */
struct part {
    size_t count;
    size_t bytes; /* of whole keys and values */
    size_t prefix_len;
    size_t low_len;
};

static size_t part_size(const struct part *part)
{
    return sizeof(struct bfti_run) + part->count * sizeof(struct bfti_slot) +
           part->low_len + part->bytes -
           (part->count > 0 ? (part->count - 1) * part->prefix_len : 0);
}

/* PART with the record V, which has COMMON bytes in common with the view
 * before it. */
static struct part part_with(const struct part *part, const struct bfti_view *v,
                             size_t common)
{
    size_t key_len = bfti_view_key_len(v);
    struct part with = *part;
    if (part->count == 0)
        with.prefix_len = key_len;
    else if (common < with.prefix_len)
        with.prefix_len = common;
    with.bytes += key_len + v->value_len;
    with.count++;
    return with;
}

/* The first view from I on that a base page keeps. */
static size_t next_kept(const struct bfti_run_spec *spec, size_t i)
{
    while (i < spec->count && !bfti_op_has_value(spec->view[i].op))
        i++;
    return i;
}

/*
 * Where the run that starts at view FROM with a low fence of LOW_LEN bytes
 * ends: as far right as it stays within LIMIT bytes, or behind its first
 * record if even that is over (but within BYTES_MAX).  FROM itself: not even
 * the first record fits BYTES_MAX.
 *
 * Between parts stands a separator, a prefix of the right part's first key:
 * that key's length is taken for it.  A run only ever grows with a record
 * more, its high fence apart: so the search ends at the first that is over
 * without one, and may pass a cut that an unusually long fence rules out.
 */
static size_t part_end(const struct bfti_run_spec *spec, size_t from,
                       size_t low_len, size_t limit, size_t bytes_max)
{
    struct part part = {.low_len = low_len};
    size_t end = from, previous = from;

    for (size_t i = from; i < spec->count;) {
        size_t next = next_kept(spec, i + 1);
        size_t common =
            i == from ? 0
                      : bfti_view_common(spec->view + previous, spec->view + i);
        part = part_with(&part, spec->view + i, common);
        size_t high_len = next == spec->count
                              ? spec->high.len
                              : bfti_view_key_len(spec->view + next);
        size_t size = part_size(&part);
        if (size + high_len <= (i == from ? bytes_max : limit))
            end = next;
        if (size > limit)
            break;
        previous = i;
        i = next;
    }
    return end;
}

/*
 * Cut into parts of at most LIMIT bytes, from the left.  *PARTS is their
 * number; false when more than CUTS_MAX cuts are needed or a single record
 * does not fit: *PARTS is then 0 in the latter case.
 */
static bool cut_greedily(const struct bfti_run_spec *spec, size_t limit,
                         size_t bytes_max, size_t *cuts, size_t cuts_max,
                         size_t *parts)
{
    size_t from = next_kept(spec, 0), low_len = spec->low.len;

    *parts = 1;
    for (;;) {
        size_t end = part_end(spec, from, low_len, limit, bytes_max);
        if (end == spec->count)
            return true;
        if (end == from) {
            *parts = 0;
            return false;
        }
        if (*parts > cuts_max)
            return false;
        cuts[*parts - 1] = end;
        *parts += 1;
        low_len = bfti_view_key_len(spec->view + end);
        from = end;
    }
}

/*
 * The same number of parts with the least limit, within a 64th of BYTES_MAX:
 * what greedy cutting leaves to the last part is then as much as the others
 * have.
 */
static void balance(const struct bfti_run_spec *spec, size_t bytes_max,
                    size_t *cuts, size_t parts)
{
    size_t low = bytes_max / 4, high = bytes_max, made;

    while (high - low > bytes_max / 64) {
        size_t limit = low + (high - low) / 2;
        if (cut_greedily(spec, limit, bytes_max, cuts, parts - 1, &made) &&
            made == parts)
            high = limit;
        else
            low = limit;
    }
    bool cut = cut_greedily(spec, high, bytes_max, cuts, parts - 1, &made);
    assert(cut && made == parts);
    (void)cut;
}

bft_status bfti_run_cuts(const struct bfti_run_spec *spec, size_t leaf_bytes,
                         bool ascending, size_t *cuts, size_t cuts_max,
                         size_t *parts)
{
    struct bfti_run_spec base = *spec;
    base.keep = BFTI_KEEP_VALUES;

    assert(leaf_bytes <= BFTI_RUN_BYTES_MAX);
    *parts = 1;
    if (bfti_run_size(&base) <= leaf_bytes)
        return BFT_OK;
    /* Room on the left, and now and then even fewer cuts: fences differ in
     * length. */
    size_t made;
    if (ascending && cut_greedily(&base, leaf_bytes - leaf_bytes / 20,
                                  leaf_bytes, cuts, cuts_max, &made)) {
        *parts = made;
        return BFT_OK;
    }
    if (!cut_greedily(&base, leaf_bytes, leaf_bytes, cuts, cuts_max, &made)) {
        if (made == 0)
            return bfti_fail(BFT_TOO_BIG,
                             "a record does not fit a leaf of %zu bytes",
                             leaf_bytes);
        return bfti_fail(BFT_TOO_BIG,
                         "%zu records need more than %zu leaves of %zu bytes",
                         spec->count, cuts_max + 1, leaf_bytes);
    }
    *parts = made;
    if (!ascending)
        balance(&base, leaf_bytes, cuts, made);
    return BFT_OK;
}

size_t bfti_key_separator(const struct bfti_view *a, const struct bfti_view *b,
                          void *buf)
{
    /* Shorter strings are prefixes of A, or lie outside. */
    size_t len = bfti_view_common(a, b) + 1;
    size_t head = len < b->prefix_len ? len : b->prefix_len;

    assert(bfti_view_compare(a, b) < 0);
    assert(len <= bfti_view_key_len(b));
    put(put(buf, b->prefix, head), b->suffix, len - head);
    return len;
}
