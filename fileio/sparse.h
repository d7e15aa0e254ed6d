/*
 * Bytes of a file in memory: a table of pages, absent where nothing was
 * written, shared between copies until one of them writes.  A copy costs a
 * pointer a page, so a test can keep thousands of images of one file.
 *
 * Threads: the caller serialises calls on one object; objects that share
 * pages may be used by different threads at the same time.
 */
#ifndef BFTI_SPARSE_H
#define BFTI_SPARSE_H

#include "env.h"

enum {
    BFTI_SPARSE_PAGE = 16384, /* shared and copied whole */
    BFTI_SPARSE_BLOCK = 4096, /* counted and punched */
};

struct bfti_sparse_page;

/* Zero-initialised: an empty file. */
struct bfti_sparse {
    struct bfti_sparse_page **pages;
    size_t page_count; /* entries of PAGES; NULL: a hole */
    uint64_t size;
    uint64_t blocks; /* written and not punched, BFTI_SPARSE_BLOCK each */
};

void bfti_sparse_free(const struct bfti_env *env, struct bfti_sparse *sparse);

/* Make the empty TO equal to FROM.  Errors: BFT_NO_MEMORY, TO stays empty. */
BFT_MUST_CHECK bft_status bfti_sparse_copy(const struct bfti_env *env,
                                           struct bfti_sparse *to,
                                           const struct bfti_sparse *from);

/* Copy up to LEN bytes at OFFSET into BUF; holes read as zeros.  Returns how
 * many bytes lie before the end. */
size_t bfti_sparse_read(const struct bfti_sparse *sparse, uint64_t offset,
                        void *buf, size_t len);

/* OFFSET + LEN is at most INT64_MAX in all of these.  After BFT_NO_MEMORY a
 * part may have been done. */
BFT_MUST_CHECK bft_status bfti_sparse_write(const struct bfti_env *env,
                                            struct bfti_sparse *sparse,
                                            uint64_t offset, const void *data,
                                            size_t len);
BFT_MUST_CHECK bft_status bfti_sparse_resize(const struct bfti_env *env,
                                             struct bfti_sparse *sparse,
                                             uint64_t bytes);
/* Zero a range, as far as the file goes; whole blocks are given back. */
BFT_MUST_CHECK bft_status bfti_sparse_zero(const struct bfti_env *env,
                                           struct bfti_sparse *sparse,
                                           uint64_t offset, uint64_t len);

/* How many of LEN bytes at OFFSET can be written with at most BLOCKS_MAX new
 * blocks. */
size_t bfti_sparse_fit(const struct bfti_sparse *sparse, uint64_t offset,
                       size_t len, uint64_t blocks_max);

#endif
