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

/* A record in the copy: its key at AT of the bytes, its value behind it.  A value
 * that a transaction has written may alone take 4 GiB. */
struct bfti_copied {
    size_t at;
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
    bool lasting; /* of a snapshot: nothing that is published changes it */
    const struct bfti_entry *entry; /* of the leaf it was taken of */
    uint32_t seq;                   /* as it was before it was taken */
    const _Atomic uint64_t
        *tombs;          /* the tree's word; NULL: tombstones of ranges
                                      were not regarded.  [tomb] */
    uint64_t tombs_word; /* as it was */
    uint64_t until; /* when the first of its records expires, see expiry.h */
    struct bfti_bound low, high;
    size_t ahead; /* leaves after this one that bfti_leaf_expect was told of */
    struct bfti_copied *record; /* ascending */
    size_t count, cap;
    uint8_t *bytes;
    size_t used, bytes_cap;
};

/* Windows grow while a scan goes on (cursor.c), and so does what is read ahead
 * or announced: a leaf for so many records, nothing for the first window. */
enum { BFTI_AHEAD_RECORDS = 32 };

/* What to copy. */
struct bfti_copy_wish {
    bft_slice key;
    /* False: records from KEY on.  True: records below KEY, or, if OR_EQUAL,
     * not above it; KEY.len 0: the last ones of the tree. */
    bool before, or_equal;
    /* With BEFORE false: leave out values, or just count. */
    enum { BFTI_COPY_ALL, BFTI_COPY_KEYS, BFTI_COPY_COUNT } only;
    size_t window; /* at most so many, unless the leaf must be read */
    size_t ahead;  /* leaves that will be wished for after this one, and, if
                      FURTHER, more of them behind those */
    bool further;
    bool on;      /* it has gone far, and may go to the end */
    uint64_t now; /* of a tree whose records expire: leave those out that did by
                     then, and stamps; 0: values as they are stored */
    bool expired; /* instead: only those, not BEFORE */
    bft_slice low, high; /* the cursor's bounds: nothing outside is copied */
};

/* Copy of the leaf that holds what is wished for.  COPY is not valid after a
 * failure.  BFT_GONE: the tree was dropped. */
BFT_MUST_CHECK bft_status bfti_copy_take(struct bfti_copy *copy,
                                         struct bfti_tree *tree,
                                         struct bfti_rec *rec,
                                         const struct bfti_copy_wish *wish);
void bfti_copy_free(struct bfti_copy *copy);
/* Where the leaf of KEY ends, which may be one that cannot be read.  KEY may lie in END.
 * False: nobody can tell. */
bool bfti_leaf_end(struct bfti_tree *tree, struct bfti_rec *rec, bft_slice key,
                   struct bfti_bound *end);

/* What is to be laid over a copy: records and gaps, ascending. */
struct bfti_over {
    struct bfti_over_item {
        size_t key_at, value_at; /* in BYTES */
        uint32_t key_len, value_len;
        uint64_t rank; /* of items with one key that of the lowest counts */
        bool there;    /* false: there is no such record */
        uint8_t flags;
    } * item;
    size_t count, cap;
    uint8_t *bytes;
    size_t used, bytes_cap;
};
/* Cut COPY, which WISH asked for, at WISH's key and bounds: beyond them it says
 * that there is nothing, where what is laid over it may have something. */
void bfti_copy_narrow(struct bfti_copy *copy,
                      const struct bfti_copy_wish *wish);
/* Leave the part below KEY to the copy, or, if BEFORE, that from KEY on. */
void bfti_copy_cut(struct bfti_copy *copy, bft_slice key, bool before);
/* Lay over COPY those of OVER's items that are in its range. */
BFT_MUST_CHECK bft_status bfti_copy_lay(struct bfti_copy *copy,
                                        struct bfti_over *over);
BFT_MUST_CHECK bft_status bfti_over_add(const struct bfti_env *env,
                                        struct bfti_over *over, bft_slice key,
                                        bft_slice value,
                                        const struct bfti_over_item *like);
void bfti_over_free(const struct bfti_env *env, struct bfti_over *over);
/* Make COPY, just taken of TREE as WISH asked, what SNAPSHOT sees. */
BFT_MUST_CHECK bft_status bfti_copy_turn_back(
    struct bfti_copy *copy, struct bfti_tree *tree, struct bfti_rec *rec,
    const struct bfti_copy_wish *wish, const struct bft_snapshot *snapshot);

/* Has nothing been published in the leaf since? */
static inline bool bfti_copy_fresh(const struct bfti_copy *copy)
{
    /* [latch] acquire, then [seq] acquire: a writer publishes, bumps the number
     * and lets go of the latch, in that order.  A free latch says that whatever
     * was published before has its bump before our look at the number. */
    return copy->valid &&
           (copy->lasting ||
            (atomic_load_explicit(&copy->entry->latch, memory_order_acquire) ==
                 0 &&
             atomic_load_explicit(&copy->entry->seq, memory_order_acquire) ==
                 copy->seq &&
             (!copy->tombs || atomic_load(copy->tombs) == copy->tombs_word)));
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
