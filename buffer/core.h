/*
 * What the parts of buffer/ work on together, and what they ask of above.
 */
#ifndef BFTI_CORE_H
#define BFTI_CORE_H

#include "fileio/fileio.h"
#include "minipage.h"
#include "place.h"
#include "pool.h"
#include "run.h"
#include "threads.h"

/* Counters, one set in each thread's record. */
enum bfti_counter {
    BFTI_N_GETS,
    BFTI_N_PUTS,
    BFTI_N_DELETES,
    BFTI_N_INSERTS,
    BFTI_N_BATCHES,
    BFTI_N_BATCH_RECORDS,
    BFTI_N_STEPS,
    BFTI_N_HITS,
    BFTI_N_MISSES,
    BFTI_N_FILTERED,
    BFTI_N_PROMOTIONS,
    BFTI_N_PROMOTIONS_DROPPED,
    BFTI_N_REBUILDS,
    BFTI_N_GROWTHS,
    BFTI_N_FREEZES,
    BFTI_N_MERGES,
    BFTI_N_DELTAS,
    BFTI_N_SPLITS,
    BFTI_N_LEAF_MERGES,
    BFTI_N_EVICT_CLEAN,
    BFTI_N_EVICT_DIRTY,
    BFTI_N_CHECKPOINTS,
    BFTI_N_WAITS,
    BFTI_N_NODES_READ,
    BFTI_N_NODES_DROPPED,
    BFTI_N_LEAVES_MOVED,
    BFTI_N_EXPIRED,
    BFTI_N_FORGOTTEN,
    BFTI_N_LAST
};
_Static_assert(BFTI_N_LAST <= (int)BFTI_COUNTERS, "room in struct bfti_rec");

/* Of a leaf that is split at once.  Two fences and the prefix of keys of the
 * greatest length leave a leaf room for hardly more than one record, so that a
 * page in memory, which has them once, may hold what fills dozens of leaves. */
enum { BFTI_PARTS_MAX = 64 };

/* Calls up, made under LEFT's latch where nothing else is said; they wait for
 * nobody. */
struct bfti_hooks {
    void *ctx;
    /* No latch is held: have in memory what _begin needs.  May read. */
    bft_status (*ready)(void *ctx, struct bfti_rec *rec, uint32_t tree_id,
                        bft_slice key);
    /* A split of the leaf that begins at KEY, or an absorption of it, is about to
     * publish its words, and _end follows.  False: the tree is being dropped, or
     * what _ready got is gone; nothing may change. */
    bool (*begin)(void *ctx, struct bfti_rec *rec, uint32_t tree_id,
                  bft_slice key);
    void (*end)(void *ctx, uint32_t tree_id);
    /* A split gave the ranges from KEYS[i] on to IDS[i]. */
    void (*split)(void *ctx, uint32_t tree_id, const bft_slice *keys,
                  const uint64_t *ids, size_t n);
    /* The leaf that begins at KEY, ID, was absorbed by its left neighbour.
     * False: the tree goes on leading to ID, which goes on forwarding. */
    bool (*absorbed)(void *ctx, uint32_t tree_id, bft_slice key, uint64_t id);
    /* A merge left a leaf nearly empty: its neighbours may absorb it. */
    void (*small)(void *ctx);
    /* Recovery: is PLACE named by a log frame that is still to be applied? */
    bool (*log_named)(void *ctx, uint64_t place);
    /* No latch is held: up to MAX leaves behind the one with KEY, in order; fewer
     * where more would have to be read. */
    size_t (*following)(void *ctx, struct bfti_rec *rec, uint32_t tree_id,
                        bft_slice key, uint64_t *ids, size_t max);
    /* No latch is held: the leaf in front of the one that begins at KEY; 0: not
     * known. */
    uint64_t (*before)(void *ctx, struct bfti_rec *rec, uint32_t tree_id,
                       bft_slice key);
};

struct bfti_filters;

enum { BFTI_STOCK = 2 };

struct bfti_buffer {
    const struct bfti_env *env;
    struct bfti_threads *threads;
    struct bfti_pool *pool;
    struct bfti_filters *filters; /* NULL: none */
    struct bfti_table *table;
    struct bfti_pagefile *pf;
    struct bfti_wal *wal; /* NULL until recovery has opened it */
    struct bfti_hooks hooks;
    /* Evictions read nothing while a leaf's list has room for a further delta: in
     * recovery, that meets each leaf seldom. */
    _Atomic bool hurried;
    bool
        small_deltas; /* from checkpoints also below 8 KiB: for tests.  Fixed */
    _Atomic bool
        lists; /* a leaf may have several deltas: images are to say so */
    _Atomic uint32_t gatherer, tickets; /* bfti_gather_alloc() */
    /* Nothing is written: what leaves memory is forgotten (forget.c).  Fixed. */
    bool forgets;
    _Atomic uint64_t stock[BFTI_STOCK]; /* blocks for that, or 0 */
};

/* The most bytes that a page with changes is built with: a block takes these and
 * longer fences, which the page gets when its leaf is split under it. */
static inline size_t bfti_page_bytes_most(void)
{
    return (size_t)BFTI_UNITS_MAX * BFTI_UNIT - BFTI_BLOCK_HEAD -
           (size_t)2 * BFTI_KEY_MAX;
}
/* The pages of a leaf with LEAF_BYTES on disk are at most this big in memory:
 * room for all of a full leaf, header, fences and a tail. */
static inline size_t bfti_page_bytes_max(size_t leaf_bytes)
{
    size_t bytes = leaf_bytes + leaf_bytes / 2 + 512;
    size_t most = bfti_page_bytes_most();
    return bytes < most ? bytes : most;
}
/* A position in the last frame linked, 0 if there is none: frames that begin at
 * the log's end or behind it name nothing that is unlinked now.  Redo that
 * starts there lets it go. */
static inline uint64_t bfti_last_lsn(const struct bfti_buffer *buffer)
{
    uint64_t end = buffer->wal ? bfti_wal_end(buffer->wal) : 0;
    return end ? end - 1 : 0;
}
/* Payload bytes of a leaf extent of LEAF_BYTES. */
static inline size_t bfti_leaf_run_max(size_t leaf_bytes)
{
    return leaf_bytes - BFTI_EXTENT_HEADER;
}

static inline struct bfti_minipage *bfti_page_at(struct bfti_buffer *buffer,
                                                 uint64_t place)
{
    return bfti_pool_at(buffer->pool, place);
}

/*
 * A block of UNITS, evicting others until there is one.  Does I/O; no latch is
 * held and no hazard slot is in use.  Errors: those of eviction; BFT_NO_MEMORY
 * when eviction finds nothing to evict for long.
 */
BFT_MUST_CHECK bft_status bfti_buffer_alloc(struct bfti_buffer *buffer,
                                            struct bfti_rec *rec,
                                            unsigned units, uint64_t *place);
/*
 * A turn at gathering blocks for many pages, to be kept until all are there: two
 * that each have half of what they need would wait for each other.
 */
struct bfti_gather {
    uint32_t ticket; /* 0: it has no turn */
    unsigned tries;  /* that are left, of those that free nothing */
};
/*
 * As bfti_buffer_alloc(), in TURN's turn, which begins when others have ended
 * theirs; one that gets no further, as its thread was stopped or there is no more
 * memory, loses its turn to who waits for one.
 * Errors: also BFT_BUSY: the turn is lost.  All blocks that were gathered are to be
 * given back before the next call, which waits for another turn.
 */
BFT_MUST_CHECK bft_status bfti_gather_alloc(struct bfti_buffer *buffer,
                                            struct bfti_rec *rec,
                                            struct bfti_gather *turn,
                                            unsigned units, uint64_t *place);
void bfti_gather_end(struct bfti_buffer *buffer, struct bfti_gather *turn);
/* Take one page out of memory.  *DONE: something was freed or moved on. */
BFT_MUST_CHECK bft_status bfti_evict_one(struct bfti_buffer *buffer,
                                         struct bfti_rec *rec, bool *done);
/* The same for who needs room for another leaf: one that is damaged cannot be
 * merged, is met again and again, and is passed over *DAMAGED times, which this
 * counts down.  It is told of by reads of it, by checkpoints and by background
 * steps. */
enum { BFTI_DAMAGED_MAX = 64 };
BFT_MUST_CHECK bft_status bfti_evict_other(struct bfti_buffer *buffer,
                                           struct bfti_rec *rec,
                                           unsigned *damaged, bool *done);
/* Up to N pages, BFTI_EVICT_MAX at most.  Dirty ones that are cold as well go with the one in front of
 * them, so that neighbours are written in the order of their keys.  What must be
 * read for them is read together, BYTES of it at most; 0: each for itself. */
enum { BFTI_EVICT_MAX = 32 };
BFT_MUST_CHECK bft_status bfti_evict_several(struct bfti_buffer *buffer,
                                             struct bfti_rec *rec, size_t n,
                                             size_t bytes);

enum bfti_merge_flags {
    BFTI_MERGE_KEEP = 1,  /* keep its records in memory as cached ones */
    BFTI_MERGE_DELTA = 2, /* a delta extent will do where it is small and the
                             leaf is not */
    BFTI_MERGE_EVICT = 8, /* the same; the page leaves memory */
    BFTI_MERGE_ROOM = 4,  /* when a split lacks memory for the page on top, let
                             another page go, so that a next attempt has it */
};

/*
 * Move the frozen page of leaf ID into the page file: read what lies beneath,
 * write one extent (or several: a split), swing.  The latch is only tried, at
 * the end; no latch is held across I/O.  *DONE: false when there was no frozen
 * page, somebody else was faster, or the latch was taken: look again.
 */
BFT_MUST_CHECK bft_status bfti_merge(struct bfti_buffer *buffer,
                                     struct bfti_rec *rec, uint64_t id,
                                     unsigned flags, bool *done);
/* Of a database that only caches: have the blocks in stock that forgetting takes
 * when no other is free.  No latch is held. */
void bfti_forget_stock(struct bfti_buffer *buffer);
/* The low end, BFTI_KEY_MAX bytes at most, and the tree of the leaf ID, which has a
 * page.  False: it has none any more.  No hazard slot is in use. */
bool bfti_leaf_begin(struct bfti_buffer *buffer, struct bfti_rec *rec,
                     uint64_t id, uint8_t *low, size_t *low_len,
                     uint32_t *tree_id);
/* Is the frozen PAGE's merge likely to read what lies beneath? */
bool bfti_merge_reads(const struct bfti_buffer *buffer,
                      const struct bfti_minipage *page, unsigned flags);
/* Cut the range of leaf ID, which has a page in memory, at KEYS (ascending, N
 * below BFTI_PARTS_MAX).  A hint: may do less, or nothing. */
BFT_MUST_CHECK bft_status bfti_split_at(struct bfti_buffer *buffer,
                                        struct bfti_rec *rec, uint64_t id,
                                        const bft_slice *keys, size_t n);
/* Let leaf LEFT, of a tree with LEAF_BYTES, absorb its right neighbour if both
 * are small.  *DONE as above. */
BFT_MUST_CHECK bft_status bfti_absorb(struct bfti_buffer *buffer,
                                      struct bfti_rec *rec, uint64_t left,
                                      uint32_t leaf_bytes, bool *done);

/*
 * Copy the extents of leaf ID's disk content, if one of them reaches into the part
 * of the file that is being cleaned (bfti_space_clean_begin).  No latch is held
 * across I/O; it is only tried, at the end.  *DONE: they were, and the old ones
 * unlinked.  *ROOM false: there is no room for them below that part.
 * Errors:  BFT_CORRUPT, BFT_IO, BFT_NO_SPACE, BFT_NO_MEMORY.
 */
BFT_MUST_CHECK bft_status bfti_relocate(struct bfti_buffer *buffer,
                                        struct bfti_rec *rec, uint64_t id,
                                        bool *room, bool *done);

/* Under the latch: freeze PAGE, the leaf's top. */
void bfti_freeze(struct bfti_rec *rec, struct bfti_minipage *page);
/* Under the latch: what is put on TOP now, is it too late for the running
 * checkpoint?  Its epoch, else 0.  As GATHERED of space.c for extents that a
 * record names; the leaf's own still count for the image. */
uint64_t bfti_closed(struct bfti_buffer *buffer,
                     const struct bfti_minipage *top);

/* A leaf's disk content, in a thread's scratch memory. */
struct bfti_content {
    const struct bfti_run *above; /* the caller's: the page over it, or NULL */
    const struct bfti_run *run[BFTI_DELTAS_MAX + 1]; /* newest first: deltas,
                                                        the base page */
    uint64_t place[BFTI_DELTAS_MAX + 1]; /* of each, and of what comes next */
    unsigned count;                      /* of runs that were read */
};
/*
 * The disk content with the word HEAD, newest first, to its base page, or up to
 * that with DELTAS_ONLY.  STILL says, after a hazard slot was set, whether what
 * led to HEAD is unchanged; *STABLE false: it was not, start again.  Checks tree,
 * page, run and the list, and that all have the same range.  On failure what was read is in CONTENT, and the place
 * behind that is the one that the failure speaks of.  TREE_ID 0: any tree; then
 * the text names neither it nor the page, and the caller says which.
 */
BFT_MUST_CHECK bft_status bfti_disk_read(struct bfti_buffer *buffer,
                                         struct bfti_rec *rec, uint64_t head,
                                         uint32_t tree_id, uint64_t page_id,
                                         bool (*still)(void *arg), void *arg,
                                         bool deltas_only, bool *stable,
                                         struct bfti_content *content);
/* Put before the text of a failure, STATUS, that it was met in this page, of this
 * tree or, 0, of one that is not known yet. */
bft_status bfti_page_blame(bft_status status, uint32_t tree_id,
                           uint64_t page_id) __attribute__((cold));
#ifdef __clang_analyzer__
#define bfti_page_blame(status, tree_id, page_id) \
    ((void)(bfti_page_blame)(status, tree_id, page_id), (status))
#endif

/* What the page file asks before it frees extents (bfti_pagefile_options): zeroes
 * those of N PLACES that nobody names.  Their filters are forgotten. */
void bfti_disk_unnamed(void *buffer, uint64_t *places, size_t n);

/* N extents were read together, which took NS: did it wait for a device? */
void bfti_note_reads(struct bfti_rec *rec, size_t n, uint64_t ns);

/* All extents of large values, as one growing array. */
struct bfti_places {
    uint64_t *place;
    size_t count, cap;
};
BFT_MUST_CHECK bft_status bfti_places_add(const struct bfti_env *env,
                                          struct bfti_places *places,
                                          uint64_t place);
/* The extents of LARGE: its list, if it has one, and its parts.  Reads the list;
 * the caller has made sure that it stays. */
BFT_MUST_CHECK bft_status bfti_large_places(struct bfti_buffer *buffer,
                                            struct bfti_rec *rec,
                                            struct bfti_large large,
                                            struct bfti_places *places);
static inline bool bfti_large_is_list(uint64_t bytes)
{
    return bytes > BFTI_EXTENT_RAW_MAX;
}

#endif
