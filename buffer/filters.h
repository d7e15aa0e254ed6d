/*
 * Filters: what leaves on disk have not, in a few bytes each.
 *
 * A filter is a Bloom filter (Bloom, CACM 1970) of all keys in the disk content
 * that a page table's word leads to.  It is made when such content was read for a
 * key that it has not, and spares the next such read.  Content does not change
 * under its word, so a filter is right as long as the extent is not reused:
 * whoever makes or asks one has named the extent in a hazard slot, and who finds
 * that no slot names it any more forgets its filter before he frees it.
 *
 * A cache: what is not there, or not sure, is to be read.  Its memory comes from
 * the heap, with the need for it, up to a share of the budget, and stays.
 */
#ifndef BFTI_FILTERS_H
#define BFTI_FILTERS_H

#include "core.h"

struct bfti_filters;

/* Of BYTES at most, from ENV, while POOL, which may be NULL, has that much of its
 * budget for what is no page.  *OUT is NULL, and that is fine for all calls, when
 * BYTES are too few.  Errors:  BFT_NO_MEMORY. */
BFT_MUST_CHECK bft_status bfti_filters_create(const struct bfti_env *env,
                                              struct bfti_threads *threads,
                                              const struct bfti_pool *pool,
                                              size_t bytes,
                                              struct bfti_filters **out);
/* Nobody is in a call any more. */
void bfti_filters_destroy(struct bfti_filters *filters);
size_t bfti_filters_bytes(const struct bfti_filters *filters);

/* Has the content of WORD surely no record of KEY?  WORD's extent is named, and
 * was in use after that.  Any thread; waits for nobody. */
bool bfti_filters_lack(struct bfti_filters *filters, uint64_t word,
                       bft_slice key);
/* CONTENT is all that WORD leads to, and lacked a key.  WORD's extent is named,
 * and was in use after that.  True: it has a filter now and had none. */
bool bfti_filters_add(struct bfti_filters *filters, uint64_t word,
                      const struct bfti_content *content);
/* PLACE, an extent, is named by nobody and about to be free. */
void bfti_filters_forget(struct bfti_filters *filters, uint64_t place);

#endif
