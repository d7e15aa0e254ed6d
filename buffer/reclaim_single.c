/*
 * Read-side sections in a build without threads: a wait finds none, because
 * its caller is the only thread and is in none.  Where asserts are on, sections
 * are noted all the same: what breaks their rules here frees what is read where
 * there are threads.
 */
#include "threads_internal.h"

#include <assert.h>

#ifdef NDEBUG
enum { NOTED = 0 };
#else
enum { NOTED = 1 };
#endif

static bool runs(const struct bfti_rec *rec)
{
    return atomic_load_explicit(&rec->reading, memory_order_relaxed) != 0;
}

bool bfti_read_init(void)
{
    return true;
}

void bfti_read_begin(struct bfti_rec *rec)
{
    assert(!runs(rec));
    if (NOTED)
        atomic_store_explicit(&rec->reading, 1, memory_order_relaxed);
}

void bfti_read_end(struct bfti_rec *rec)
{
    assert(runs(rec));
    if (NOTED)
        atomic_store_explicit(&rec->reading, 0, memory_order_relaxed);
}

void bfti_read_wait(struct bfti_threads *threads)
{
    const struct bfti_rec *rec = NOTED ? bfti_threads_first(threads) : NULL;

    for (; rec != NULL; rec = rec->next)
        assert(!runs(rec));
}
