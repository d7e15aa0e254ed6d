/* Shared by threads.c, defer.c, ahead.c and the three forms of read-side sections. */
#ifndef BFTI_THREADS_INTERNAL_H
#define BFTI_THREADS_INTERNAL_H

#include "os.h"
#include "threads.h"

#if defined(__SANITIZE_THREAD__)
#define BFTI_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BFTI_TSAN 1
#endif
#endif
#ifndef BFTI_TSAN
#define BFTI_TSAN 0
#endif

/* Blocks that wait for a grace period, first deferred first, and who holds
 * them. */
struct bfti_defer {
    const struct bfti_env *env; /* fixed before the first: theirs */
    struct bfti_mutex lock;
    struct bfti_deferred *first, *last; /* under lock */
    struct bfti_hold *oldest, *newest;  /* under lock */
    uint64_t holds;                     /* under lock: so far */
    _Atomic size_t bytes;               /* relaxed */
};

struct bfti_threads {
    const struct bfti_env *env;      /* fixed after init */
    uint64_t serial;                 /* fixed after init, never reused */
    struct bfti_mutex lock;          /* guards wal and pushes to recs */
    struct bfti_wal *wal;            /* under lock */
    _Atomic(struct bfti_rec *) recs; /* [records] only ever grows */
    _Atomic size_t bytes;            /* of records, their lists and buffers;
                                        relaxed */
    _Atomic uint64_t epoch;          /* reclaim_c11.c: [section] */
    struct bfti_defer defer;
    struct bfti_threads *next_live; /* under the process lock */
};

/* [records] acquire: pairs with the release in record_create(): whoever sees a
 * record sees its fixed fields. */
static inline struct bfti_rec *bfti_threads_first(struct bfti_threads *threads)
{
    return atomic_load_explicit(&threads->recs, memory_order_acquire);
}

/* What a thread has of its own beside its records: all zeros at its start. */
enum { BFTI_THREADS_CACHE = 8 };
struct bfti_threads_own {
    uint64_t number; /* never reused; 0: not yet given */
    /* Where it found its records: serial numbers in a row do not meet here.  A
     * stale entry is harmless: no later registry has its serial number. */
    struct {
        uint64_t serial;
        struct bfti_rec *rec;
    } cache[BFTI_THREADS_CACHE];
};

/* Exchange what the calling thread has with *OWN: for surroundings that run
 * several threads of the engine on one of the system's, between two calls or
 * within one.  Not in a read-side section: liburcu's belongs to the system's
 * thread. */
void bfti_threads_swap(struct bfti_threads_own *own);

/* The calling thread ends: its records go back to all live registries.  Called
 * by os_*.c, and by surroundings with threads of their own. */
void bfti_threads_leave(void);

/* What read-side sections need before the first one; any number of times.
 * False: out of memory. */
bool bfti_read_init(void);

void bfti_defer_init(struct bfti_defer *defer, const struct bfti_env *env);
/* Frees everything at once: no reader is left. */
void bfti_defer_destroy(struct bfti_threads *threads);

/*
 * The two halves of one store-load fence.  Of a thread that stores A, passes
 * the light one, loads B and a thread that stores B, passes the heavy one,
 * loads A, at least one sees the other's store.
 *
 * Light fences are compiler barriers where the system can put the processor's
 * fence into all running threads from outside.
 */
extern _Atomic bool bfti_fences_are_light; /* fixed before the first registry */

static inline void bfti_fence_light(void)
{
    if (!BFT_WITH_THREADS) /* nobody to be in order with */
        return;
    /* relaxed: fixed before any thread could get here. */
    if (atomic_load_explicit(&bfti_fences_are_light, memory_order_relaxed))
        atomic_signal_fence(memory_order_seq_cst);
    else
        atomic_thread_fence(memory_order_seq_cst);
}
static inline void bfti_fence_heavy(void)
{
    if (!BFT_WITH_THREADS)
        return;
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&bfti_fences_are_light, memory_order_relaxed))
        bfti_os_fence_all();
}

#endif
