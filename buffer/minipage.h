/*
 * A mini-page: an immutable run of records sorted by key and an append tail.
 * One release store of the tail's count publishes a record; nothing published
 * is changed.  Layout in its block: header | run image | tail slots growing up
 * ... heap growing down.
 */
#ifndef BFTI_MINIPAGE_H
#define BFTI_MINIPAGE_H

#include "run.h"

enum {
    BFTI_TAIL_MAX = 16,      /* records whose keys are in no order */
    BFTI_TAIL_LONG = 256,    /* records, those before them in order included */
    BFTI_TAIL_NONE = 0xffff, /* no count */
    BFTI_TAIL_FROZEN = 0x8000, /* bit of tail: nothing is appended any more */
};

struct bfti_minipage {
    /* What lies beneath: a frozen mini-page's place, an extent's (a delta's
     * image names the rest), or 0: this page holds all of the leaf.  Swung
     * under the leaf's latch.  [beneath] */
    _Atomic uint64_t beneath;
    /* The number of a batch that changed this page and may not be decided yet,
     * or 0.  While *BATCH_WORD equals it the batch is pending: readers regard
     * only the first TAIL_BEFORE tail records, or, when that is
     * BFTI_TAIL_NONE, the page at PREVIOUS in place of this one.  [batch] */
    _Atomic uint64_t batch;
    const _Atomic uint64_t *_Atomic batch_word;
    uint64_t
        previous;     /* of a page that a batch built: the word before; fixed */
    uint64_t page_id; /* fixed */
    _Atomic uint32_t tail; /* count, and BFTI_TAIL_FROZEN.  [tail] */
    uint32_t bytes;        /* of the whole block, this header included; fixed */
    uint16_t heap_used;    /* of the tail's heap; under the leaf's latch */
    /* So many of the tail's first records have rising keys: they are searched as
     * a run is, and there may be many.  Never falls; it rises, under the latch,
     * before the record shows. */
    _Atomic uint16_t tail_sorted;
    uint16_t flags;      /* enum bfti_minipage_flag; fixed */
    uint16_t dirty;      /* dirty records in the run; fixed */
    uint32_t tail_dirty; /* dirty records in the tail; under the latch */
    uint32_t leaf_bytes; /* of its tree; set by who builds it; fixed */
    _Atomic uint32_t tail_before; /* see BATCH */
    /* Of a frozen page: low bits of the epoch of the checkpoint whose image has
     * the leaf as it is with this page and no more, or 0.  Under the latch. */
    uint32_t closed_by;
};
_Static_assert(sizeof(struct bfti_minipage) % 8 == 0, "the run is aligned");

enum bfti_minipage_flag {
    BFTI_PAGE_COMPLETE = 1, /* every record of the leaf is in it: a key that is
                               not found here is absent */
    BFTI_PAGE_PLAIN = 2,    /* with COMPLETE: nothing beneath refers to a large
                               value */
};

static inline const struct bfti_run *
bfti_minipage_run(const struct bfti_minipage *page)
{
    return (const struct bfti_run *)(page + 1);
}

/* Count of published tail records (acquire). */
static inline unsigned bfti_minipage_tail(const struct bfti_minipage *page)
{
    /* [tail] acquire: pairs with the release in bfti_minipage_append. */
    return atomic_load_explicit(&page->tail, memory_order_acquire) &
           ~(unsigned)BFTI_TAIL_FROZEN;
}
/* Of the first TAIL tail records, those that are in order. */
static inline unsigned bfti_minipage_sorted(const struct bfti_minipage *page,
                                            unsigned tail)
{
    /* relaxed: who counted TAIL [tail] sees the number as it was then at least,
     * and it rises only with records behind those. */
    unsigned sorted =
        atomic_load_explicit(&page->tail_sorted, memory_order_relaxed);
    return sorted < tail ? sorted : tail;
}
/* Count of tail records that are visible: those of a pending batch are not. */
static inline unsigned bfti_minipage_visible(const struct bfti_minipage *page)
{
    unsigned tail = bfti_minipage_tail(page);
    /* [batch] after the tail: whoever counts a batch's record sees its number,
     * set before it, or that it is decided. */
    uint64_t batch = atomic_load(&page->batch);
    if (batch) {
        unsigned before = atomic_load(&page->tail_before);
        const _Atomic uint64_t *word = atomic_load(&page->batch_word);
        if (atomic_load(word) == batch && before < tail)
            tail = before;
    }
    return tail;
}
/* The same for who looks at many records, and is to see all of a batch's or none:
 * a batch that was decided after its first records were counted has more. */
static inline unsigned
bfti_minipage_visible_all(const struct bfti_minipage *page)
{
    unsigned tail, visible;
    /* Ends: each round follows an append, for which a page has little room. */
    do {
        tail = bfti_minipage_tail(page);
        visible = bfti_minipage_visible(page);
    } while (bfti_minipage_tail(page) != tail);
    return visible;
}
static inline bool bfti_minipage_frozen(const struct bfti_minipage *page)
{
    return atomic_load_explicit(&page->tail, memory_order_acquire) &
           BFTI_TAIL_FROZEN;
}
static inline bool bfti_minipage_is_dirty(const struct bfti_minipage *page)
{
    return page->dirty || page->tail_dirty ||
           le16_get(bfti_minipage_run(page)->dead_count);
}

/* Bytes a block needs for a page whose run is built from SPEC, with tail room
 * for RECORDS records of BYTES key and value bytes in all. */
size_t bfti_minipage_size(const struct bfti_run_spec *spec, unsigned records,
                          size_t bytes);

/* Build a page in BLOCK of BYTES bytes; all that the run does not take is tail
 * room.  The page is private until its place is published. */
void bfti_minipage_build(void *block, size_t bytes,
                         const struct bfti_run_spec *spec, uint64_t page_id,
                         uint16_t flags, uint64_t beneath);

/* Is there tail room for a record?  Under the leaf's latch. */
bool bfti_minipage_fits(const struct bfti_minipage *page, size_t key_len,
                        size_t value_len);
/* Is there for RECORDS records with rising keys, FIRST the first of them, of BYTES
 * key and value bytes in all? */
bool bfti_minipage_fits_all(const struct bfti_minipage *page, bft_slice first,
                            size_t records, size_t bytes);
/* BYTES of records are about to be appended: begin to fetch where they go. */
void bfti_minipage_append_soon(const struct bfti_minipage *page, size_t bytes);
/* Append and publish (release).  Fits, not frozen, under the leaf's latch. */
void bfti_minipage_append(struct bfti_minipage *page, bft_slice key,
                          bft_slice value, uint8_t op, uint8_t flags);
/* No more appends.  Under the latch. */
void bfti_minipage_freeze(struct bfti_minipage *page);

/* The newest record of KEY in the page (tail from its newest end, then the
 * run).  Any thread that has named the page. */
bool bfti_minipage_find(const struct bfti_minipage *page, bft_slice key,
                        struct bfti_view *out);

/* Tail record I, in the order of appends; below the tail's count. */
struct bfti_view bfti_minipage_tail_view(const struct bfti_minipage *page,
                                         unsigned i);

/* What a list of the page comes to at most, with TAIL of its tail (from
 * bfti_minipage_tail; more may be appended, unless it is frozen): records, and
 * references that are dead. */
static inline size_t bfti_minipage_records(const struct bfti_minipage *page,
                                           unsigned tail)
{
    return bfti_run_count(bfti_minipage_run(page)) + (size_t)tail;
}
size_t bfti_minipage_dead_max(const struct bfti_minipage *page, unsigned tail);

/* The page's records as a sorted list, newest of each key; superseded LARGE
 * puts and the run's dead references in list->dead.  TAIL is the count to
 * regard.  Needs a reserve of what the two above say for both LIST and TMP. */
void bfti_minipage_list(const struct bfti_minipage *page, unsigned tail,
                        struct bfti_list *list, struct bfti_list *tmp);

#endif
