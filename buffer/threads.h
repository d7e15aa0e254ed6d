/*
 * What each thread owns in an engine: hazard slots, its log slots, scratch
 * memory; and reclamation built on them.
 *
 * Mini-pages and extents are protected by hazard slots (Michael 2004, with the
 * reader's fence moved into the reclaimer by membarrier where the system has
 * it).  Inner nodes are protected by read-side sections (RCU): liburcu's bp
 * flavour in reclaim_urcu.c, or C11 atomics in reclaim_c11.c for the thread
 * sanitizer and for systems without liburcu; in a build without threads by
 * nothing, reclaim_single.c.
 */
#ifndef BFTI_THREADS_H
#define BFTI_THREADS_H

#include "ahead.h"
#include "fileio/fileio.h"
#include "run.h"

enum {
    BFTI_HAZARD_TOP = 0,     /* the page that a page-table word names */
    BFTI_HAZARD_FROZEN = 1,  /* what lies beneath it in memory, or before it */
    BFTI_HAZARD_EXTENT = 2,  /* the extent that heads its disk content: a leaf
                               without pages is known by it */
    BFTI_HAZARD_SPARE = 3,   /* a second leaf of the same operation */
    BFTI_HAZARD_BENEATH = 4, /* an extent that the former leads to: what lies
                                beneath a delta, in turn those of large values */
    BFTI_HAZARD_NODE = 5, /* the extent of an inner node that is being read */
    BFTI_HAZARDS = 6,
};

enum { BFTI_LISTS = 5, BFTI_COUNTERS = 32 };
enum {
    BFTI_SCRATCH_RUN = 0, /* the first of a leaf's disk content, newest first */
    BFTI_SCRATCH_VALUE = BFTI_DELTAS_MAX + 1,
    BFTI_SCRATCHES,
};

/* How far scans of a tree go one way, as a rule. */
struct bfti_habit {
    uint64_t of;     /* twice the tree's id, and 1 if they go back */
    uint32_t leaves; /* of a scan, in BFTI_HABIT_PARTS; 0: nothing is known */
};
enum { BFTI_HABITS = 8, BFTI_HABIT_PARTS = 16 };

struct bfti_rec {
    _Atomic uint64_t hazard[BFTI_HAZARDS]; /* a place, or 0 */
    struct bfti_wal_thread wal;
    _Atomic uint64_t
        reading; /* the section's epoch, or 0; not of reclaim_urcu.c */
    _Atomic uint32_t used;  /* 1 while a thread owns it */
    _Atomic uint64_t batch; /* number of its pending batch, or 0.  [batch] */
    _Atomic uint64_t publishing; /* odd while it publishes.  [publish] */
    /* What it is about to publish: one record, which the page at this place takes
     * into its tail, of PUBLISHES_TAIL records by then; 0: the batch above.
     * [publish] */
    _Atomic uint64_t publishes;
    _Atomic uint32_t publishes_tail;
    void *_Atomic reads; /* that it shows, see index/reads.c */
    _Atomic uint64_t counter[BFTI_COUNTERS]; /* owner adds, stats read */

    /* Owner only from here. */
    struct bfti_scratch scratch[BFTI_SCRATCHES];
    struct bfti_ahead *ahead; /* what it read ahead; NULL: nothing yet */
    struct bfti_list list[BFTI_LISTS];
    void *buf[3]; /* page images under construction, grown by rec_buf */
    size_t buf_cap[3];
    uint64_t random; /* xorshift state, never 0 */
    uint32_t
        awaited; /* reads from now on that are thought to wait for a device,
                         because one did lately: worth to be announced */
    struct bfti_habit habit[BFTI_HABITS]; /* at what each is of */
    struct bfti_threads *threads;         /* fixed after creation */
    struct bfti_rec *next;                /* fixed once registered */
};

struct bfti_threads;

BFT_MUST_CHECK bft_status bfti_threads_create(const struct bfti_env *env,
                                              struct bfti_threads **out);
/* No thread is inside the engine any more. */
void bfti_threads_destroy(struct bfti_threads *threads);
/* Records made so far and from now on are attached to WAL. */
void bfti_threads_set_wal(struct bfti_threads *threads, struct bfti_wal *wal);

/* The calling thread's record: made at first use, handed to another thread
 * after this one ends.  NULL: out of memory.  Fast when used before (thread
 * local cache keyed by the registry's never reused serial number). */
struct bfti_rec *bfti_rec_current(struct bfti_threads *threads);
/* For objects that outlive a call: a record of their own, and its return. */
struct bfti_rec *bfti_rec_take(struct bfti_threads *threads);
void bfti_rec_give(struct bfti_rec *rec);
size_t bfti_threads_bytes(struct bfti_threads *threads); /* memory held */
/* All records made so far: the first, and then each one's next. */
struct bfti_rec *bfti_rec_first(struct bfti_threads *threads);

/* At least BYTES at rec->buf[I]; contents are lost when it grows. */
BFT_MUST_CHECK bft_status bfti_rec_buf(struct bfti_rec *rec, unsigned i,
                                       size_t bytes);
uint64_t bfti_rec_random(struct bfti_rec *rec);

/*
 * Name PLACE in slot I.  The caller then reads again whatever led it there and
 * only believes in PLACE if nothing changed.  [hazard]
 */
void bfti_hazard_set(struct bfti_rec *rec, unsigned i, uint64_t place);
static inline void bfti_hazard_clear(struct bfti_rec *rec, unsigned i)
{
    /* [hazard] release: our reads of what it named end before it. */
    atomic_store_explicit(&rec->hazard[i], 0, memory_order_release);
}
/* Clear (set to 0) in PLACES every entry that no record names.  Each place was
 * unlinked before the call.  Places in memory are the same that start at the same
 * byte. */
void bfti_hazard_unnamed(void *threads, uint64_t *places, size_t n);

/* Sum of counter I over all records. */
uint64_t bfti_threads_count(struct bfti_threads *threads, unsigned i);
static inline void bfti_count(struct bfti_rec *rec, unsigned i, uint64_t n)
{
    /* Only the owner adds: no read-modify-write needed. */
    atomic_store_explicit(
        &rec->counter[i],
        atomic_load_explicit(&rec->counter[i], memory_order_relaxed) + n,
        memory_order_relaxed);
}

/* Read-side sections for inner nodes.  No I/O, allocation, wait or callback
 * inside; they do not nest. */
void bfti_read_begin(struct bfti_rec *rec);
void bfti_read_end(struct bfti_rec *rec);
/* Wait until every section that runs now has ended.  Not inside a section. */
void bfti_read_wait(struct bfti_threads *threads);

/*
 * A thread publishes from _begin to _end: what it decided on behind _begin it has
 * published by _end.  bfti_publish_wait() returns when all have ended that began
 * before it, so that those still to come see what was stored before the call.
 * The owner may be stopped inside for as long as it likes: of one that is inside
 * for longer than that takes, and was at NUMBER all the time, STAYS is told, once.
 * True: it is not waited for.  [publish]
 */
void bfti_publish_begin(struct bfti_rec *rec);
void bfti_publish_end(struct bfti_rec *rec);
void bfti_publish_wait(struct bfti_threads *threads,
                       bool (*stays)(void *ctx, struct bfti_rec *rec,
                                     uint64_t number),
                       void *ctx);
/* Is it still at NUMBER?  Then it was when all was read that was read before. */
static inline bool bfti_publish_is_at(const struct bfti_rec *rec,
                                      uint64_t number)
{
    /* What was read before is ordered by the acquire of those reads; [publish]
     * acquire, for those that follow. */
    return atomic_load_explicit(&rec->publishing, memory_order_acquire) ==
           number;
}

/* What a block waits by, in the block itself: written once it is deferred, read
 * by none of those that still read the rest. */
struct bfti_deferred {
    struct bfti_deferred *next;
    void *block;
    size_t bytes;
    uint64_t holds; /* that had begun when it was deferred */
};
/* Blocks to be deferred are of ENV, and not of the registry's: before the first
 * one. */
void bfti_defer_set_env(struct bfti_threads *threads,
                        const struct bfti_env *env);
/* Free BLOCK (env alloc, BYTES long, with LINK in it), which nothing leads to
 * any more, after a grace period, at a later step. */
void bfti_defer_free(struct bfti_threads *threads, struct bfti_deferred *link,
                     void *block, size_t bytes);
/* Until _unhold nothing is freed that is deferred from now on: a checkpoint
 * walks a retired tree, whose root it reads after this call.  HOLD is the
 * caller's, and fills itself. */
struct bfti_hold {
    struct bfti_hold *older, *newer;
    uint64_t number;
};
void bfti_defer_hold(struct bfti_threads *threads, struct bfti_hold *hold);
void bfti_defer_unhold(struct bfti_threads *threads, struct bfti_hold *hold);
/* Number of the oldest hold, 0: there is none. */
uint64_t bfti_defer_oldest(struct bfti_threads *threads);
/* A background step: wait for a grace period and free what was deferred before
 * it and before every hold there is.  Returns bytes still waiting. */
size_t bfti_defer_step(struct bfti_threads *threads);
size_t bfti_defer_bytes(struct bfti_threads *threads);

#endif
