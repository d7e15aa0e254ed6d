/*
 * The pool of extent.c: write buffers, each with a compressor of its own, and
 * decompressors.  Both are free lists of bounded length under one mutex.
 */
#include "extent_pool.h"

#include "error.h"

#if BFT_WITH_ZSTD
/* For contexts whose memory comes from the environment. */
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>
#endif

enum {
    BUFFERS_KEPT = 16,
    BUFFERS_AT_OPEN = 2, /* so that an evictor and a checkpoint can always
                          * write, however short memory is later */
    READERS_KEPT = 16,
    COMPRESSION_LEVEL = 1,
};

/* --- write buffers ------------------------------------------------------- */

static struct write_buffer *buffer_make(const struct bfti_env *env)
{
    struct write_buffer *buffer = bfti_alloc(env, sizeof *buffer);
    if (buffer == NULL)
        return NULL;
    buffer->memory = bfti_alloc(env, BUFFER_BYTES + BFTI_BLOCK);
    if (buffer->memory == NULL) {
        bfti_free(env, buffer);
        return NULL;
    }
    uintptr_t past = (uintptr_t)buffer->memory % BFTI_BLOCK;
    buffer->bytes = (uint8_t *)buffer->memory + (BFTI_BLOCK - past);
    buffer->compressor = NULL;
    return buffer;
}

static void buffer_free(const struct bfti_env *env, struct write_buffer *buffer)
{
#if BFT_WITH_ZSTD
    ZSTD_freeCCtx(buffer->compressor);
#endif
    bfti_free(env, buffer->memory);
    bfti_free(env, buffer);
}

bft_status bfti_buffer_take(struct bfti_pagefile *pf, struct write_buffer **out)
{
    bfti_mutex_lock(pf->env, &pf->pool_lock);
    struct write_buffer *buffer = pf->buffers;
    if (buffer != NULL) {
        pf->buffers = buffer->next;
        pf->buffer_count--;
    }
    bfti_mutex_unlock(pf->env, &pf->pool_lock);

    if (buffer == NULL)
        buffer = buffer_make(pf->env);
    *out = buffer;
    return buffer != NULL
               ? BFT_OK
               : bfti_fail(BFT_NO_MEMORY,
                           "%s: no memory for a write buffer of %d bytes",
                           pf->path, BUFFER_BYTES);
}

void bfti_buffer_give(struct bfti_pagefile *pf, struct write_buffer *buffer)
{
    bfti_mutex_lock(pf->env, &pf->pool_lock);
    bool keep = pf->buffer_count < BUFFERS_KEPT;
    if (keep) {
        buffer->next = pf->buffers;
        pf->buffers = buffer;
        pf->buffer_count++;
    }
    bfti_mutex_unlock(pf->env, &pf->pool_lock);
    if (!keep)
        buffer_free(pf->env, buffer);
}

bft_status bfti_extent_pool_fill(struct bfti_pagefile *pf)
{
    for (unsigned i = 0; i < BUFFERS_AT_OPEN; i++) {
        struct write_buffer *buffer = buffer_make(pf->env);
        if (buffer == NULL)
            return bfti_fail(BFT_NO_MEMORY,
                             "%s: no memory for a write buffer of %d bytes",
                             pf->path, BUFFER_BYTES);
        bfti_buffer_give(pf, buffer);
    }
    return BFT_OK;
}

/* --- compression ---------------------------------------------------------- */

#if BFT_WITH_ZSTD

struct zstd_reader {
    struct zstd_reader *next; /* under pool_lock, while in the pool */
    ZSTD_DCtx *context;
};

static ZSTD_customMem zstd_memory(const struct bfti_env *env)
{
    ZSTD_customMem memory = {env->alloc, env->free, env->ctx};
    return memory;
}

size_t bfti_compress(struct bfti_pagefile *pf, struct write_buffer *buffer,
                     const struct bfti_dictionary *with, void *at, size_t room,
                     const void *raw, size_t raw_len)
{
    if (buffer->compressor == NULL)
        buffer->compressor = ZSTD_createCCtx_advanced(zstd_memory(pf->env));
    if (buffer->compressor == NULL)
        return 0;
    size_t len = with != NULL
                     ? ZSTD_compress_usingCDict(buffer->compressor, at, room,
                                                raw, raw_len, with->writer)
                     : ZSTD_compressCCtx(buffer->compressor, at, room, raw,
                                         raw_len, COMPRESSION_LEVEL);
    return ZSTD_isError(len) ? 0 : len;
}

static struct zstd_reader *reader_make(const struct bfti_env *env)
{
    struct zstd_reader *reader = bfti_alloc(env, sizeof *reader);
    if (reader == NULL)
        return NULL;
    reader->context = ZSTD_createDCtx_advanced(zstd_memory(env));
    if (reader->context == NULL) {
        bfti_free(env, reader);
        return NULL;
    }
    return reader;
}

static void reader_free(const struct bfti_env *env, struct zstd_reader *reader)
{
    ZSTD_freeDCtx(reader->context);
    bfti_free(env, reader);
}

static struct zstd_reader *reader_take(struct bfti_pagefile *pf)
{
    bfti_mutex_lock(pf->env, &pf->pool_lock);
    struct zstd_reader *reader = pf->readers;
    if (reader != NULL) {
        pf->readers = reader->next;
        pf->reader_count--;
    }
    bfti_mutex_unlock(pf->env, &pf->pool_lock);
    return reader != NULL ? reader : reader_make(pf->env);
}

static void reader_give(struct bfti_pagefile *pf, struct zstd_reader *reader)
{
    bfti_mutex_lock(pf->env, &pf->pool_lock);
    bool keep = pf->reader_count < READERS_KEPT;
    if (keep) {
        reader->next = pf->readers;
        pf->readers = reader;
        pf->reader_count++;
    }
    bfti_mutex_unlock(pf->env, &pf->pool_lock);
    if (!keep)
        reader_free(pf->env, reader);
}

bft_status bfti_decompress(struct bfti_pagefile *pf,
                           const struct bfti_dictionary *with, void *raw,
                           size_t raw_len, const void *at, size_t len)
{
    struct zstd_reader *reader = reader_take(pf);
    if (reader == NULL)
        return bfti_fail(BFT_NO_MEMORY, "%s: no memory to decompress with",
                         pf->path);
    size_t got =
        with != NULL
            ? ZSTD_decompress_usingDDict(reader->context, raw, raw_len, at, len,
                                         with->reader)
            : ZSTD_decompressDCtx(reader->context, raw, raw_len, at, len);
    reader_give(pf, reader);
    return !ZSTD_isError(got) && got == raw_len ? BFT_OK : BFT_CORRUPT;
}

static void readers_free(struct bfti_pagefile *pf)
{
    while (pf->readers != NULL) {
        struct zstd_reader *next = pf->readers->next;
        reader_free(pf->env, pf->readers);
        pf->readers = next;
    }
}

#else

size_t bfti_compress(struct bfti_pagefile *pf, struct write_buffer *buffer,
                     const struct bfti_dictionary *with, void *at, size_t room,
                     const void *raw, size_t raw_len)
{
    (void)pf, (void)buffer, (void)with, (void)at, (void)room, (void)raw,
        (void)raw_len;
    return 0;
}

bft_status bfti_decompress(struct bfti_pagefile *pf,
                           const struct bfti_dictionary *with, void *raw,
                           size_t raw_len, const void *at, size_t len)
{
    (void)pf, (void)with, (void)raw, (void)raw_len, (void)at, (void)len;
    return BFT_UNSUPPORTED;
}

static void readers_free(struct bfti_pagefile *pf)
{
    (void)pf;
}

#endif

void bfti_extent_pool_free(struct bfti_pagefile *pf)
{
    readers_free(pf);
    while (pf->buffers != NULL) {
        struct write_buffer *next = pf->buffers->next;
        buffer_free(pf->env, pf->buffers);
        pf->buffers = next;
    }
}
