/*
 * How the extents of each tree are compressed: not, by zstd, or by zstd with a
 * dictionary of the tree's own, whichever took the least space of those that
 * were looked at.  One set of choices for each page file.
 *
 * Calls that change a tree's dictionaries, or give their places, are made by
 * one thread at a time, while no checkpoint runs but the caller's.
 */
#ifndef BFTI_CODEC_H
#define BFTI_CODEC_H

#include "pagefile.h"

enum { BFTI_DICTIONARIES_MAX = 4 }; /* of a tree, as long as it lives */

enum bfti_codec_choice {
    BFTI_CODEC_OPEN = 0, /* too few were looked at: zstd where it saves space */
    BFTI_CODEC_NONE = 1,
    BFTI_CODEC_ZSTD = 2,
    BFTI_CODEC_DICTIONARY = 3,
};

struct bfti_codec_stats {
    enum bfti_codec_choice choice; /* for leaves */
    unsigned dictionaries;
    uint64_t dictionary_bytes; /* in the file */
    /* Bytes, in blocks or grains, of extents written that might have taken
     * fewer: as they would be uncompressed, and as they are. */
    uint64_t raw_bytes, stored_bytes;
};
/* Of tree TREE_ID.  Threads: any. */
void bfti_codec_stats(struct bfti_pagefile *pf, uint32_t tree_id,
                      struct bfti_codec_stats *out);
/* Of all trees together, those included that went; no choice. */
void bfti_codec_stats_all(struct bfti_pagefile *pf,
                          struct bfti_codec_stats *out);
/* Memory of all trees' dictionaries and samples.  Threads: any. */
size_t bfti_codec_bytes(const struct bfti_pagefile *pf);

/* Are there samples enough to train a dictionary, and of which tree? */
bool bfti_codec_ready(struct bfti_pagefile *pf, uint32_t *tree_id);
/*
 * Train a dictionary for that tree, and if it saves enough, write and link it:
 * from now on the tree's leaves are compressed with it.  Not WANTED: the tree is
 * none, and its samples go.  Takes some 10 ms, and about 1 MiB of the C library's
 * memory, which zstd does not ask the surroundings for.  LSN: the log's end.
 * Errors: BFT_NO_MEMORY, BFT_NO_SPACE, BFT_IO; nothing is changed.
 */
BFT_MUST_CHECK bft_status bfti_codec_train(struct bfti_pagefile *pf,
                                           uint32_t tree_id, bool wanted,
                                           uint64_t lsn);

/* How many dictionaries tree TREE_ID has.  Threads: any. */
unsigned bfti_codec_count(struct bfti_pagefile *pf, uint32_t tree_id);
/* Where the dictionaries of tree TREE_ID lie, the oldest first; how many.  NAMING:
 * for an image. */
unsigned bfti_codec_places(struct bfti_pagefile *pf, uint32_t tree_id,
                           bool naming, uint64_t places[BFTI_DICTIONARIES_MAX]);
/* An image has COUNT dictionaries for the tree, at PLACES: read them.
 * Errors:  BFT_CORRUPT names path, offset and tree.  BFT_IO, BFT_NO_MEMORY. */
BFT_MUST_CHECK bft_status bfti_codec_load(struct bfti_pagefile *pf,
                                          uint32_t tree_id,
                                          const uint64_t *places,
                                          unsigned count,
                                          struct bfti_scratch *scratch);
/* RAW is what an extent of type BFTI_EXTENT_DICTIONARY holds, of the tree and with
 * the page id that INFO says: extents that need it can be read.  BFT_CORRUPT,
 * BFT_NO_MEMORY. */
BFT_MUST_CHECK bft_status bfti_codec_offer(struct bfti_pagefile *pf,
                                           const struct bfti_extent_info *info,
                                           const void *raw, size_t len);
/* Bring those of the tree's dictionaries that reach into the part that is to
 * become free out of it. */
BFT_MUST_CHECK bft_status bfti_codec_lift(struct bfti_pagefile *pf,
                                          uint32_t tree_id, uint64_t lsn);
/* No image from now on has the tree: the space of its dictionaries waits for the
 * next one.  Leaves can be read until _forget. */
void bfti_codec_drop(struct bfti_pagefile *pf, uint32_t tree_id);
/* The dropped tree has no leaf any more: free what its dictionaries took.  False:
 * somebody uses them; to be asked again.  A leaf that is read after that is
 * BFT_GONE. */
bool bfti_codec_forget(struct bfti_pagefile *pf, uint32_t tree_id);

#endif
