/*
 * The one place where the library meets an allocator.  A static libbftree must
 * not replace the malloc of the program it is linked into, so mimalloc is
 * called by its own names.
 */
#include "alloc.h"

#include <stdint.h>

#if defined(BFT_WITH_MIMALLOC) && BFT_WITH_MIMALLOC
#include <mimalloc.h>
#define SYSTEM_ALLOC   mi_malloc
#define SYSTEM_REALLOC mi_realloc
#define SYSTEM_FREE    mi_free
#else
#include <stdlib.h>
#define SYSTEM_ALLOC   malloc
#define SYSTEM_REALLOC realloc
#define SYSTEM_FREE    free
#endif

/* mimalloc aligns blocks of 8 bytes and less to 8, and malloc(0) and
 * realloc(old, 0) may answer NULL, which would read as out of memory. */
static size_t at_least_16(size_t bytes)
{
    return bytes < 16 ? 16 : bytes;
}

void *bfti_system_alloc(void *ctx, size_t bytes)
{
    (void)ctx;
    return SYSTEM_ALLOC(at_least_16(bytes));
}

void *bfti_system_realloc(void *ctx, void *old, size_t bytes)
{
    (void)ctx;
    return SYSTEM_REALLOC(old, at_least_16(bytes));
}

void bfti_system_free(void *ctx, void *block)
{
    (void)ctx;
    SYSTEM_FREE(block);
}
