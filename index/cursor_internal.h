/* What the two files of cursors share: the copy of a part of a leaf. */
#ifndef BFTI_CURSOR_INTERNAL_H
#define BFTI_CURSOR_INTERNAL_H

#include "engine.h"

/* A key of the cursor's own; len 0: unbounded. */
struct bfti_bound {
    uint16_t len;
    uint8_t bytes[BFTI_KEY_MAX];
};
static inline bft_slice bfti_bound_key(const struct bfti_bound *bound)
{
    bft_slice key = {bound->bytes, bound->len};
    return key;
}
/* KEY may lie in BOUND itself. */
static inline void bfti_bound_set(struct bfti_bound *bound, bft_slice key)
{
    bound->len = (uint16_t)key.len;
    if (key.len)
        memmove(bound->bytes, key.data, key.len);
}

/* A record in the copy: its key at AT of the bytes, its value behind it.
 * 32 bits: a leaf and the pages on top of it may be over 64 KiB. */
struct bfti_copied {
    uint32_t at;
    uint32_t value_len;
    uint16_t key_len;
    uint8_t flags;
};

/*
 * All visible records of [low, high), which is a leaf's range or a part of it,
 * in memory of the cursor's own.  Fields are owner only.
 */
struct bfti_copy {
    const struct bfti_env *env;
    bool valid;
    const struct bfti_entry *entry; /* of the leaf it was taken of */
    uint32_t seq;                   /* as it was before it was taken */
    struct bfti_bound low, high;
    unsigned ahead; /* leaves after this one whose reading was announced */
    struct bfti_copied *record; /* ascending */
    size_t count, cap;
    uint8_t *bytes;
    size_t used, bytes_cap;
};

/* What to copy. */
struct bfti_copy_wish {
    bft_slice key;
    /* False: records from KEY on.  True: records below KEY, or, if OR_EQUAL,
     * not above it; KEY.len 0: the last ones of the tree. */
    bool before, or_equal;
    /* With BEFORE false: leave out values, or just count. */
    enum { BFTI_COPY_ALL, BFTI_COPY_KEYS, BFTI_COPY_COUNT } only;
    size_t window;       /* at most so many, unless the leaf must be read */
    bft_slice low, high; /* the cursor's bounds: nothing outside is copied */
};

/* Copy of the leaf that holds what is wished for.  COPY is not valid after a
 * failure.  BFT_GONE: the tree was dropped. */
BFT_MUST_CHECK bft_status bfti_copy_take(struct bfti_copy *copy,
                                         struct bfti_tree *tree,
                                         struct bfti_rec *rec,
                                         const struct bfti_copy_wish *wish);
void bfti_copy_free(struct bfti_copy *copy);

/* Has nothing been published in the leaf since? */
static inline bool bfti_copy_fresh(const struct bfti_copy *copy)
{
    /* [latch] acquire, then [seq] acquire: a writer publishes, bumps the number
     * and lets go of the latch, in that order.  A free latch says that whatever
     * was published before has its bump before our look at the number. */
    return copy->valid &&
           atomic_load_explicit(&copy->entry->latch, memory_order_acquire) ==
               0 &&
           atomic_load_explicit(&copy->entry->seq, memory_order_acquire) ==
               copy->seq;
}
static inline bft_slice bfti_copy_key(const struct bfti_copy *copy, size_t i)
{
    const struct bfti_copied *record = &copy->record[i];
    bft_slice key = {copy->bytes + record->at, record->key_len};
    return key;
}
static inline bft_slice bfti_copy_value(const struct bfti_copy *copy, size_t i)
{
    const struct bfti_copied *record = &copy->record[i];
    bft_slice value = {copy->bytes + record->at + record->key_len,
                       record->value_len};
    return value;
}

#endif
