/*
 * Inside index/: what is different in a database that only caches.  How leaves are
 * forgotten, buffer/README.md says.
 */
#ifndef BFTI_CACHE_H
#define BFTI_CACHE_H

#include "engine.h"

/* For a call that is about what survives, or about what was: BFT_UNSUPPORTED, and
 * WHY, if ENGINE's database only caches. */
BFT_MUST_CHECK bft_status bfti_check_keeps(const struct bfti_engine *engine,
                                           const char *why);
/* Are leaves of LEAF_BYTES small enough for a cache of MEMORY_BYTES? */
BFT_MUST_CHECK bft_status bfti_check_leaf_share(uint32_t leaf_bytes,
                                                uint64_t memory_bytes);
/* Hook of buffer/. */
uint64_t bfti_tree_before(void *engine, struct bfti_rec *rec, uint32_t tree_id,
                          bft_slice key);

#endif
