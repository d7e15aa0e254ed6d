/*
 * What tests may do inside the library: plant a fault, to see whether a test
 * notices, and stop a thread between two steps, to see whom that delays.
 */
#ifndef BFTI_FAULT_H
#define BFTI_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- planted faults: each is off until its bit is set ---------------------- */

/* Each one, its bit, and what goes wrong; tests/planted_faults.txt says who
 * notices. */
#define BFTI_FAULT_MAP(X)                                                      \
    X(LOG_NOT_SYNCED, 0, "a sync commit skips the sync")                       \
    X(OLD_INCARNATION, 1, "ghosts stay in the log, and the scan takes them")   \
    X(TORN_FRAME, 2, "payload checksums are not tested")                       \
    X(DATA_NOT_SYNCED, 3, "a superblock before its extents")                   \
    X(LOG_NOT_COPIED, 4, "a buffered commit leaves its frame in memory")       \
    X(LOG_DROPPED_EARLY, 5, "log goes before the superblock that replaces it") \
    X(REDO_TOO_LATE, 6, "redo starts at an image's end, not at its cut")       \
    X(REDO_SKIPS_LAST, 7, "recovery leaves out the last frame")                \
    X(REDO_OLD_AGAIN, 8, "recovery applies old frames behind new ones")        \
    X(EXTENT_REUSED_EARLY, 9, "space is reused that an image still has")       \
    X(GATHER_SKIPS_SPLIT, 10, "an image lacks leaves of late splits")          \
    X(MERGE_DROPS, 11, "a merge loses the last record of a leaf")              \
    X(MERGE_UNDELETES, 12, "what a delete covers comes back in a merge")       \
    X(MERGE_BLIND, 13, "a merge does not look whether another was faster")     \
    X(FOLD_KEEPS_CACHED, 14, "a cached record covers a delta's")               \
    X(SPLIT_DROPS, 15, "the first record right of a separator is lost")        \
    X(SPLIT_WRONG_SIDE, 16, "that record goes to the left of it")              \
    X(ABSORB_DROPS, 17, "an absorption loses the right leaf's last record")    \
    X(EVICTION_DROPS, 18, "a dirty page leaves memory as a clean one")         \
    X(NAMES_IGNORED, 19, "memory is reused that a reader has named")           \
    X(BATCH_EARLY, 20, "a batch is visible with its first leaf")               \
    X(SNAPSHOT_NEWER, 21, "a get of a snapshot reads the newest version")      \
    X(SNAPSHOT_HASTY, 22, "a snapshot does not meet those who publish")        \
    X(TXN_UNWATCHED, 23, "a commit does not look at one leaf that it read")    \
    X(EXPIRED_READ, 24, "what has expired is still read")                      \
    X(SNAPSHOT_UNSETTLED, 25, "a writer overtakes who takes a snapshot")       \
    X(RANGE_NOT_REDONE, 26, "recovery leaves out ranges that were deleted")    \
    X(RANGE_UNSEEN, 27, "a writer does not look for ranges being deleted")     \
    X(PROMOTE_BLIND, 28, "a page of what was read covers what came since")     \
    X(LOG_SLOTS_UNSEEN, 29, "log goes that a thread is still copying to")      \
    X(DICTIONARY_LATE, 30, "a dictionary is named behind leaves that need it") \
    X(READS_HIDDEN, 31, "a commit does not show what it has read")             \
    X(FILTERS_KEPT, 32, "a filter outlives the extent that it is of")          \
    X(FILTERS_ASTRAY, 33, "a filter is asked while its leaf is being split")   \
    X(SPLIT_LET_GO, 34, "what is split off is let go before inner nodes know") \
    X(BLOCK_NOT_CLOSED, 35, "shared blocks stay open after a sync")

enum bfti_fault_number {
#define BFTI_FAULT_NUMBER(name, number, what) BFTI_FAULT_##name = (number),
    BFTI_FAULT_MAP(BFTI_FAULT_NUMBER)
#undef BFTI_FAULT_NUMBER
    /* No fault to be noticed: the page file's checksums are not tested, so that
     * fuzzers come to what lies behind them. */
    BFTI_FAULT_FORGED = 63,
};
#define BFTI_FAULT_BIT(number) (UINT64_C(1) << (number))

#ifdef BFT_FAULTS
extern _Atomic uint64_t bfti_fault; /* bits of those on; tests set it */

static inline bool bfti_fault_on(enum bfti_fault_number number)
{
    return (atomic_load_explicit(&bfti_fault, memory_order_relaxed) &
            BFTI_FAULT_BIT(number)) != 0;
}
#else
static inline bool bfti_fault_on(enum bfti_fault_number number)
{
    (void)number;
    return false;
}
#endif

/* --- park points ----------------------------------------------------------- */

/*
 * PARK("part:step") marks a moment between two atomic operations.  A test that
 * sets a hook is called there, and may keep the thread as long as it likes: it
 * holds what it holds at that moment.  Not in builds with NDEBUG.
 */
typedef void bfti_park_hook(const char *point);

#ifdef NDEBUG
#define PARK(point) ((void)0)
#else
#define PARK(point) bfti_park_at(point)

extern bfti_park_hook *_Atomic bfti_park; /* NULL: nobody is stopped */

static inline void bfti_park_at(const char *point)
{
    /* [park] acquire: the hook sees what the test prepared before it set it. */
    bfti_park_hook *hook =
        atomic_load_explicit(&bfti_park, memory_order_acquire);

    if (hook != NULL)
        hook(point);
}
#endif

#endif
