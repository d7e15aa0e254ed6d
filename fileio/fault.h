/*
 * What tests may do inside the library: plant a fault, to see whether a test
 * notices, and stop a thread between two steps, to see whom that delays.
 */
#ifndef BFTI_FAULT_H
#define BFTI_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* --- planted faults: each is off until its bit is set ---------------------- */

enum bfti_fault_bit {
    BFTI_FAULT_LOG_NOT_SYNCED = 1 << 0,  /* a sync commit skips the sync */
    BFTI_FAULT_OLD_INCARNATION = 1 << 1, /* ghosts in the log are left, and the
                                            scan goes on into them */
    BFTI_FAULT_TORN_FRAME = 1 << 2,      /* payload checksums are not tested */
    BFTI_FAULT_DATA_NOT_SYNCED = 1 << 3, /* a superblock before its extents */
};

#ifdef BFT_FAULTS
extern _Atomic unsigned bfti_fault; /* those that are on; tests set it */

static inline bool bfti_fault_on(enum bfti_fault_bit bit)
{
    return (atomic_load_explicit(&bfti_fault, memory_order_relaxed) &
            (unsigned)bit) != 0;
}
#else
static inline bool bfti_fault_on(enum bfti_fault_bit bit)
{
    (void)bit;
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
