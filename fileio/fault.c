/* The switches of fault.h. */
#include "fault.h"

#ifdef BFT_FAULTS
_Atomic uint64_t bfti_fault;
#endif
#ifndef NDEBUG
bfti_park_hook *_Atomic bfti_park;
#endif
