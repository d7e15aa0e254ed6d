/*
 * Read-side sections in C11 atomics, for the thread sanitizer and for systems
 * without liburcu: each section notes the epoch it began in, a wait starts a
 * new epoch and lets the sections of earlier ones end.
 *
 * After Fraser, "Practical lock-freedom" (2004), with waiting in place of his
 * three limbo lists: the callers have their own list (defer.c) and a thread
 * that may wait.
 */
#include "threads_internal.h"

#include <assert.h>

/* Looks before the first nap, and a nap, when a section does not end. */
enum { LOOKS = 100, NAP_NS = 100000 };

bool bfti_read_init(void)
{
    return true;
}

void bfti_read_begin(struct bfti_rec *rec)
{
    /* [section] acquire: pairs with the increment in bfti_read_wait(): a
     * section of the new epoch sees what was unlinked before that began. */
    uint64_t epoch =
        atomic_load_explicit(&rec->threads->epoch, memory_order_acquire);

    assert(atomic_load_explicit(&rec->reading, memory_order_relaxed) == 0);
    /* [section] release: a wait that sees a new section rather than the end
     * of the one before has the reads of that one behind it as well. */
    atomic_store_explicit(&rec->reading, epoch,
                          BFTI_TSAN ? memory_order_seq_cst
                                    : memory_order_release);
    /* [section] pairs with the heavy fence in bfti_read_wait(): either it sees
     * the section, or the section sees the unlink before it. */
    bfti_fence_light();
    /* To be interrupted within a section is no wait. */
    bfti_step(rec->threads->env);
}

void bfti_read_end(struct bfti_rec *rec)
{
    assert(atomic_load_explicit(&rec->reading, memory_order_relaxed) != 0);
    /* [section] release: pairs with the acquire in section_runs(): our reads
     * are over before anything is freed. */
    atomic_store_explicit(&rec->reading, 0, memory_order_release);
}

/* Does REC run a section of an epoch before EPOCH? */
static bool section_runs(struct bfti_rec *rec, uint64_t epoch)
{
    /* [section] acquire: pairs with the releases above. */
    uint64_t reading =
        atomic_load_explicit(&rec->reading, memory_order_acquire);

    return reading != 0 && reading < epoch;
}

void bfti_read_wait(struct bfti_threads *threads)
{
    const struct bfti_env *env = threads->env;
    _Atomic uint32_t never = 0; /* nobody wakes it: a bounded sleep */
    /* [section] seq_cst, of which the release matters here. */
    uint64_t epoch = atomic_fetch_add(&threads->epoch, 1) + 1;
    unsigned looks = 0;

    bfti_fence_heavy();
    for (struct bfti_rec *rec = bfti_threads_first(threads); rec != NULL;
         rec = rec->next)
        /* Ends: a section contains no wait, and the thread's next one is of
         * the new epoch. */
        while (section_runs(rec, epoch)) {
            if (looks++ < LOOKS)
                env->yield(env->ctx);
            else
                env->wait(env->ctx, &never, 0, NAP_NS);
        }
}
