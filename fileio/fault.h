/*
 * Planted faults, for tests that ask whether a test would notice.  Compiled in
 * only when BFT_FAULTS is defined; each is off until its bit is set.
 */
#ifndef BFTI_FAULT_H
#define BFTI_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>

enum bfti_fault_bit {
    BFTI_FAULT_LOG_NOT_SYNCED = 1 << 0,  /* a sync commit skips the sync */
    BFTI_FAULT_OLD_INCARNATION = 1 << 1, /* the log scan goes on into ghosts */
    BFTI_FAULT_TORN_FRAME = 1 << 2,      /* payload checksums are not tested */
    BFTI_FAULT_DATA_NOT_SYNCED = 1 << 3, /* a superblock before its extents */
};

#ifdef BFT_FAULTS
/* The faults that are on; tests set it.  Defined in wal.c. */
extern _Atomic unsigned bfti_fault;

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

#endif
