/* Buffers and compression contexts that extent.c borrows from the page file,
 * so that writing and reading allocate nothing once warm. */
#ifndef BFTI_EXTENT_POOL_H
#define BFTI_EXTENT_POOL_H

#include "pagefile_internal.h"

enum { BUFFER_BYTES = BFTI_EXTENT_GRAINS_MAX * BFTI_GRAIN };

static inline unsigned bfti_blocks_of(size_t bytes)
{
    return (unsigned)((bytes + BFTI_BLOCK - 1) / BFTI_BLOCK);
}

struct write_buffer {
    struct write_buffer *next; /* under pool_lock, while in the pool */
    uint8_t *bytes;   /* BUFFER_BYTES, aligned to a block as direct I/O asks */
    void *compressor; /* made at first use; NULL where it cannot be */
    void *memory;
};

/* Borrow a buffer; its bytes are what the last user left.  Threads: any. */
BFT_MUST_CHECK bft_status bfti_buffer_take(struct bfti_pagefile *pf,
                                           struct write_buffer **out);
void bfti_buffer_give(struct bfti_pagefile *pf, struct write_buffer *buffer);

/* Compress RAW, WITH a dictionary or NULL, into at most ROOM bytes AT; give their
 * number, 0 when it does not fit, memory is short or the build cannot. */
size_t bfti_compress(struct bfti_pagefile *pf, struct write_buffer *buffer,
                     const struct bfti_dictionary *with, void *at, size_t room,
                     const void *raw, size_t raw_len);

/* Decompress to exactly RAW_LEN bytes.  BFT_NO_MEMORY; without a text,
 * BFT_CORRUPT, and BFT_UNSUPPORTED in a build without zstd. */
BFT_MUST_CHECK bft_status bfti_decompress(struct bfti_pagefile *pf,
                                          const struct bfti_dictionary *with,
                                          void *raw, size_t raw_len,
                                          const void *at, size_t len);

#endif
