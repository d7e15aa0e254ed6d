/*
 * Runs as they are read: check, fences, search, views.
 *
 * Search compares the run's common prefix once, then only four-byte heads as
 * numbers, without a branch that depends on them; keys are touched where heads
 * are equal.
 */
#include <assert.h>

#include "run_internal.h"

/* --- check ---------------------------------------------------------------- */

/* All that must hold before any record may be looked at. */
static const char *check_header(const struct bfti_run *run, size_t len)
{
    if (len < sizeof *run)
        return "run: shorter than its header";
    if (le32_get(run->bytes) != len)
        return "run: its length is not that of its image";
    if (len > BFTI_RUN_BYTES_MAX)
        return "run: longer than a run can be";
    if (le16_get(run->flags) & ~(unsigned)BFTI_RUN_HAS_LARGE ||
        le32_get(run->reserved) != 0)
        return "run: unknown flags";
    if (le16_get(run->prefix_len) > BFTI_KEY_MAX ||
        le16_get(run->low_len) > BFTI_KEY_MAX ||
        le16_get(run->high_len) > BFTI_KEY_MAX)
        return "run: a prefix or fence is longer than a key";
    if (le16_get(run->count) == 0 && le16_get(run->prefix_len) != 0)
        return "run: a prefix without keys";
    size_t fixed = sizeof *run +
                   sizeof(struct bfti_slot) * le16_get(run->count) +
                   sizeof(struct bfti_large) * le16_get(run->dead_count) +
                   le16_get(run->prefix_len) + le16_get(run->low_len) +
                   le16_get(run->high_len);
    if (fixed > len)
        return "run: slots and fences reach past its end";
    return NULL;
}

/* SLOT by itself; its bytes are to start at AT, LEN is the run's. */
static const char *check_slot(const struct bfti_run *run,
                              const struct bfti_slot *slot, size_t at,
                              size_t len)
{
    size_t key_len = le16_get(slot->key_len);
    size_t value_len = le16_get(slot->value_len);

    if (le16_get(slot->offset) != at || key_len + value_len > len - at)
        return "run: a record is not where it must be";
    if (le16_get(run->prefix_len) + key_len == 0 ||
        le16_get(run->prefix_len) + key_len > BFTI_KEY_MAX)
        return "run: a key is empty or too long";
    if (slot->op < BFTI_OP_PUT || slot->op > BFTI_OP_ABSENT)
        return "run: unknown operation";
    if (slot->flags & ~(unsigned)BFTI_REC_LARGE)
        return "run: unknown record flags";
    if (!bfti_op_has_value(slot->op) && (value_len != 0 || slot->flags != 0))
        return "run: an absent record has a value";
    if (slot->flags & BFTI_REC_LARGE && value_len != sizeof(struct bfti_large))
        return "run: a large value's reference has a wrong length";
    if (le32_get(slot->head) != bfti_head((const uint8_t *)run + at, key_len))
        return "run: a slot's head is not its key's";
    return NULL;
}

/* Slots I - 1 and I, both checked by themselves. */
static bool ascends(const struct bfti_run *run, const struct bfti_slot *slot)
{
    uint32_t left = le32_get(slot[-1].head), right = le32_get(slot->head);
    const uint8_t *base = (const uint8_t *)run;
    if (left != right)
        return left < right;
    return bfti_compare_beyond_head(
               base + le16_get(slot[-1].offset), le16_get(slot[-1].key_len),
               base + le16_get(slot->offset), le16_get(slot->key_len)) < 0;
}

static const char *check_records(const struct bfti_run *run, size_t len)
{
    const struct bfti_slot *slots = bfti_run_slots(run);
    unsigned count = bfti_run_count(run);
    size_t at = (size_t)(bfti_run_prefix(run) - (const uint8_t *)run) +
                le16_get(run->prefix_len) + le16_get(run->low_len) +
                le16_get(run->high_len);
    bool large = le16_get(run->dead_count) != 0;

    for (unsigned i = 0; i < count; i++) {
        const char *wrong = check_slot(run, slots + i, at, len);
        if (wrong)
            return wrong;
        if (i > 0 && !ascends(run, slots + i))
            return "run: keys do not ascend";
        large = large || slots[i].flags & BFTI_REC_LARGE;
        at += (size_t)le16_get(slots[i].key_len) + le16_get(slots[i].value_len);
    }
    if (at != len)
        return "run: bytes behind its last record";
    if (large != (le16_get(run->flags) & BFTI_RUN_HAS_LARGE))
        return "run: its flags do not tell of its large values";
    return NULL;
}

static const char *check_fences(const struct bfti_run *run)
{
    unsigned count = bfti_run_count(run);
    bft_slice low = bfti_run_low(run), high = bfti_run_high(run);

    if (low.len > 0 && high.len > 0 && bfti_key_compare(low, high) >= 0)
        return "run: its low fence is not below its high fence";
    if (count == 0)
        return NULL;
    struct bfti_view first = bfti_run_view(run, 0);
    struct bfti_view last = bfti_run_view(run, count - 1);
    if (low.len > 0 && bfti_view_compare_key(&first, low) < 0)
        return "run: a key lies below its low fence";
    if (high.len > 0 && bfti_view_compare_key(&last, high) >= 0)
        return "run: a key lies above its high fence";
    return NULL;
}

const char *bfti_run_check(const void *image, size_t len)
{
    const struct bfti_run *run = image;
    const char *wrong = check_header(run, len);
    if (!wrong)
        wrong = check_records(run, len);
    if (!wrong)
        wrong = check_fences(run);
    return wrong;
}

/* --- fences and keys ------------------------------------------------------ */

bft_slice bfti_run_low(const struct bfti_run *run)
{
    const uint8_t *at = bfti_run_prefix(run) + le16_get(run->prefix_len);
    return (bft_slice){at, le16_get(run->low_len)};
}

bft_slice bfti_run_high(const struct bfti_run *run)
{
    const uint8_t *at = bfti_run_prefix(run) + le16_get(run->prefix_len) +
                        le16_get(run->low_len);
    return (bft_slice){at, le16_get(run->high_len)};
}

struct bfti_large bfti_run_dead(const struct bfti_run *run, unsigned i)
{
    assert(i < le16_get(run->dead_count));
    const struct bfti_slot *end = bfti_run_slots(run) + bfti_run_count(run);
    struct bfti_large large;
    memcpy(&large, (const uint8_t *)end + i * sizeof large, sizeof large);
    return large;
}

int bfti_key_compare(bft_slice a, bft_slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = bfti_compare_bytes(a.data, b.data, len);
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

int bfti_run_range(const struct bfti_run *run, bft_slice key)
{
    bft_slice low = bfti_run_low(run), high = bfti_run_high(run);
    if (low.len > 0 && bfti_key_compare(key, low) < 0)
        return -1;
    if (high.len > 0 && bfti_key_compare(key, high) >= 0)
        return 1;
    return 0;
}

/* --- views ---------------------------------------------------------------- */

void bfti_view_key(const struct bfti_view *v, void *buf)
{
    if (v->prefix_len > 0)
        memcpy(buf, v->prefix, v->prefix_len);
    if (v->suffix_len > 0)
        memcpy((uint8_t *)buf + v->prefix_len, v->suffix, v->suffix_len);
}

/* SHORTER's prefix is no longer than LONGER's. */
static int compare_parts(const struct bfti_view *shorter,
                         const struct bfti_view *longer)
{
    size_t split = shorter->prefix_len;
    size_t middle = longer->prefix_len - split;
    size_t len = middle < shorter->suffix_len ? middle : shorter->suffix_len;

    /* Views of one run share the prefix itself. */
    if (shorter->prefix != longer->prefix) {
        int order = bfti_compare_bytes(shorter->prefix, longer->prefix, split);
        if (order != 0)
            return order;
    }
    int order =
        bfti_compare_bytes(shorter->suffix, longer->prefix + split, len);
    if (order != 0)
        return order;
    if (len < middle)
        return -1;
    return bfti_key_compare(
        (bft_slice){shorter->suffix + len, shorter->suffix_len - len},
        (bft_slice){longer->suffix, longer->suffix_len});
}

int bfti_view_compare(const struct bfti_view *a, const struct bfti_view *b)
{
    if (a->prefix_len <= b->prefix_len)
        return compare_parts(a, b);
    int order = compare_parts(b, a);
    return (order < 0) - (order > 0);
}

int bfti_view_compare_key(const struct bfti_view *a, bft_slice key)
{
    size_t len = a->prefix_len < key.len ? a->prefix_len : key.len;
    int order = bfti_compare_bytes(a->prefix, key.data, len);
    if (order != 0)
        return order;
    if (len < a->prefix_len)
        return 1;
    return bfti_key_compare(
        (bft_slice){a->suffix, a->suffix_len},
        (bft_slice){len > 0 ? (const uint8_t *)key.data + len : key.data,
                    key.len - len});
}

/* --- search --------------------------------------------------------------- */

/* BASE, or HALF slots on when the slot before there has a head below HEAD.
 * Never a branch: it would be predicted wrong every second time. */
static inline const struct bfti_slot *step(const struct bfti_slot *base,
                                           unsigned half, uint32_t head)
{
#ifdef __clang__
    /* Of this it makes a conditional move, of a choice a branch. */
    return base + (size_t)(le32_get(base[half - 1].head) < head) * half;
#else
    const struct bfti_slot *right = base + half;
    return le32_get(right[-1].head) < head ? right : base;
#endif
}

/* The first of COUNT slots whose head is at least HEAD. */
static inline unsigned lower_head(const struct bfti_slot *slots, unsigned count,
                                  uint32_t head)
{
    const struct bfti_slot *base = slots;

    /* Without a branch nothing is loaded on a guess, so each step would wait
     * for memory by itself: ask for what three steps can meet at once. */
    while (count > 64) {
        for (size_t i = 1; i < 8; i++)
            __builtin_prefetch(base + i * (count / 8));
        for (int i = 0; i < 3; i++) {
            base = step(base, count / 2, head);
            count -= count / 2;
        }
    }
    if (count > 12)
        for (size_t i = 1; i < 4; i++)
            __builtin_prefetch(base + i * (count / 4));
    for (; count > 1; count -= count / 2)
        base = step(base, count / 2, head);
    return (unsigned)(base - slots) +
           (count > 0 && le32_get(base->head) < head);
}

/*
 * Slot FROM is the first that has HEAD: the first slot from there on whose key
 * is at least SUFFIX.  Mostly no other slot has the head; keys that differ late
 * share it widely.
 */
static unsigned search_equal_heads(const struct bfti_run *run, unsigned from,
                                   uint32_t head, const uint8_t *suffix,
                                   size_t len, bool *found)
{
    const struct bfti_slot *slots = bfti_run_slots(run);
    unsigned count = bfti_run_count(run), low = from, stride = 1;

    while (stride < count - from && le32_get(slots[from + stride].head) == head)
        stride *= 2;
    unsigned high = stride < count - from ? from + stride : count;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        const struct bfti_slot *slot = slots + middle;
        int order = 1;
        if (le32_get(slot->head) == head)
            order = bfti_compare_beyond_head(
                (const uint8_t *)run + le16_get(slot->offset),
                le16_get(slot->key_len), suffix, len);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *found = false;
    return low;
}

unsigned bfti_run_search(const struct bfti_run *run, bft_slice key, bool *found)
{
    unsigned count = bfti_run_count(run);
    size_t prefix_len = le16_get(run->prefix_len);
    const uint8_t *suffix = key.data;
    size_t len = key.len;

    *found = false;
    if (prefix_len > 0) {
        size_t common = prefix_len < len ? prefix_len : len;
        int order = bfti_compare_bytes(suffix, bfti_run_prefix(run), common);
        if (order != 0)
            return order < 0 ? 0 : count;
        if (len < prefix_len)
            return 0;
        suffix += prefix_len;
        len -= prefix_len;
    }
    uint32_t head = bfti_head(suffix, len);
    unsigned at = lower_head(bfti_run_slots(run), count, head);
    if (at == count || le32_get(bfti_run_slots(run)[at].head) != head)
        return at;
    return search_equal_heads(run, at, head, suffix, len, found);
}
