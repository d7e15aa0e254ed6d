/*
 * Read-side sections by liburcu, bp flavour: threads need no registration of
 * ours, sections cost no fence where the system has membarrier, and a grace
 * period waits for the sections of all databases of the process.
 *
 * The library's functions are called, not their inline forms: those read a
 * struct that promises an alignment which the library does not keep, and the
 * undefined-behaviour sanitizer ends the program at the first section.
 *
 * rec->reading is no part of the mechanism here: it lets asserts see whether
 * a thread is inside a section.
 */
#include "threads_internal.h"

#include <assert.h>
#include <urcu/urcu-bp.h>

#include "once.h"

static struct bfti_once once = BFTI_ONCE;

static void init(void)
{
    /* A fork leaves the sections of the parent's other threads open in the
     * child, where nobody ends them and every wait would hang; liburcu
     * forgets them if it is told. */
    atomic_store(&once.done,
                 pthread_atfork(urcu_bp_before_fork, urcu_bp_after_fork_parent,
                                urcu_bp_after_fork_child) == 0);
}

bool bfti_read_init(void)
{
    return bfti_once(&once, init);
}

void bfti_read_begin(struct bfti_rec *rec)
{
    assert(atomic_load_explicit(&rec->reading, memory_order_relaxed) == 0);
    /* relaxed: for this thread's asserts only. */
    atomic_store_explicit(&rec->reading, 1, memory_order_relaxed);
    /* [section] pairs with urcu_bp_synchronize_rcu(). */
    urcu_bp_read_lock();
}

void bfti_read_end(struct bfti_rec *rec)
{
    assert(atomic_load_explicit(&rec->reading, memory_order_relaxed) != 0);
    /* [section] pairs with urcu_bp_synchronize_rcu(). */
    urcu_bp_read_unlock();
    atomic_store_explicit(&rec->reading, 0, memory_order_relaxed);
}

void bfti_read_wait(struct bfti_threads *threads)
{
    (void)threads;
    /* [section] what was unlinked before is read by nobody after. */
    urcu_bp_synchronize_rcu();
}
