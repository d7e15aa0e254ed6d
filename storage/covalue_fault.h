/*
 * Planted faults of the covalue store, for tests that ask whether the ordinary
 * checks would notice.  Compiled in only when BFT_FAULTS is defined; each is
 * off until its bit is set.
 */
#ifndef BFTI_COVALUE_FAULT_H
#define BFTI_COVALUE_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>

enum bfti_covalue_fault_bit {
    /* Each change of a transaction is committed by itself. */
    BFTI_COVALUE_FAULT_ATOMICITY = 1 << 0,
    /* A commit that asks for a sync gets durability none. */
    BFTI_COVALUE_FAULT_DURABILITY = 1 << 1,
    /* An erasure removes sessions but not their transactions and signatures. */
    BFTI_COVALUE_FAULT_ERASURE = 1 << 2,
    /* bytesSinceLastSignature is not stored. */
    BFTI_COVALUE_FAULT_BYTES_SINCE = 1 << 3,
    /* An upsert replaces the header that is there. */
    BFTI_COVALUE_FAULT_HEADER = 1 << 4,
    /* A finished deletion is queued again. */
    BFTI_COVALUE_FAULT_REQUEUE = 1 << 5,
};

#ifdef BFT_FAULTS
/* The faults that are on; tests set it.  Defined in covalue.c. */
extern _Atomic unsigned bfti_covalue_fault_mask;

static inline bool bfti_covalue_fault_on(enum bfti_covalue_fault_bit bit)
{
    return (atomic_load_explicit(&bfti_covalue_fault_mask,
                                 memory_order_relaxed) &
            (unsigned)bit) != 0;
}
#else
static inline bool bfti_covalue_fault_on(enum bfti_covalue_fault_bit bit)
{
    (void)bit;
    return false;
}
#endif

#endif
