/* The switches of fault.h. */
#include "fault.h"

#ifdef BFT_FAULTS
_Atomic unsigned bfti_fault;
#endif
#ifndef NDEBUG
bfti_park_hook *_Atomic bfti_park;
#endif
