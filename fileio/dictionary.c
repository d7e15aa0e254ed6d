/*
 * Dictionaries of zstd: training and digesting.  What they are for, codec.c says.
 *
 * Trained by zstd's fast cover (zdict.h), after Liao, Petri, Moffat and Wirth,
 * "Effective construction of relative Lempel-Ziv dictionaries" (WWW 2016), with
 * parameters that are fixed: a search for better ones takes many times as long.
 */
#include <string.h>

#include "codec_internal.h"
#include "error.h"

#if BFT_WITH_ZSTD
/* For dictionaries whose memory comes from the environment, and for training in
 * bounded time. */
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>
#define ZDICT_STATIC_LINKING_ONLY
#include <zdict.h>

enum {
    DICTIONARY_LEVEL = 1,
    SOURCE_BYTES = 32 << 10, /* what is compressed has at most about so many */
    HASH_LOG_MAX = 13,       /* 32 KiB; level 1 would take 128 for short ones */
    SEGMENT_BYTES = 200,     /* that are chosen together; fast cover's k */
    MATCH_BYTES = 8,         /* its d */
    FREQUENCY_LOG = 15,      /* its f: a table of 128 KiB */
};

/* zstd says of a failure neither what it was nor whose. */
static void *zstd_alloc(void *dictionary, size_t bytes)
{
    struct bfti_dictionary *d = dictionary;
    void *memory = bfti_alloc(d->env, bytes);
    d->no_memory = d->no_memory || memory == NULL;
    return memory;
}

static void zstd_free(void *dictionary, void *memory)
{
    const struct bfti_dictionary *d = dictionary;
    bfti_free(d->env, memory);
}

static bft_status digest(struct bfti_dictionary *d, bool to_write)
{
    ZSTD_customMem memory = {zstd_alloc, zstd_free, d};
    ZSTD_compressionParameters how =
        ZSTD_getCParams(DICTIONARY_LEVEL, SOURCE_BYTES, d->len);

    d->frame_id = ZSTD_getDictID_fromDict(d->raw, d->len);
    if (d->frame_id == 0)
        return BFT_CORRUPT;
    d->reader = ZSTD_createDDict_advanced(d->raw, d->len, ZSTD_dlm_byRef,
                                          ZSTD_dct_fullDict, memory);
    if (d->reader == NULL)
        return d->no_memory ? BFT_NO_MEMORY : BFT_CORRUPT;
    if (how.hashLog > HASH_LOG_MAX)
        how.hashLog = HASH_LOG_MAX;
    if (to_write) /* without it no more is written with it */
        d->writer = ZSTD_createCDict_advanced(d->raw, d->len, ZSTD_dlm_byRef,
                                              ZSTD_dct_fullDict, how, memory);
    return BFT_OK;
}

void bfti_dictionary_retire(struct bfti_dictionary *dictionary)
{
    (void)ZSTD_freeCDict(dictionary->writer);
    dictionary->writer = NULL;
}

static void undigest(struct bfti_dictionary *d)
{
    bfti_dictionary_retire(d);
    (void)ZSTD_freeDDict(d->reader);
}

size_t bfti_dictionary_bytes(const struct bfti_dictionary *dictionary)
{
    return sizeof(*dictionary) + dictionary->len +
           ZSTD_sizeof_CDict(dictionary->writer) +
           ZSTD_sizeof_DDict(dictionary->reader);
}

size_t bfti_dictionary_train(void *at, size_t room, const void *samples,
                             const size_t *lens, unsigned count)
{
    ZDICT_fastCover_params_t how;

    memset(&how, 0, sizeof(how));
    how.k = SEGMENT_BYTES;
    how.d = MATCH_BYTES;
    how.f = FREQUENCY_LOG;
    how.accel = 1;
    how.steps = 1;
    how.splitPoint = 1.0;
    how.zParams.compressionLevel = DICTIONARY_LEVEL;
    size_t len =
        ZDICT_trainFromBuffer_fastCover(at, room, samples, lens, count, how);
    return ZDICT_isError(len) ? 0 : len;
}

uint32_t bfti_frame_id(const void *at, size_t len)
{
    return ZSTD_getDictID_fromFrame(at, len);
}

#else

static bft_status digest(struct bfti_dictionary *d, bool to_write)
{
    (void)d, (void)to_write;
    return BFT_OK;
}

void bfti_dictionary_retire(struct bfti_dictionary *dictionary)
{
    (void)dictionary;
}

static void undigest(struct bfti_dictionary *d)
{
    (void)d;
}

size_t bfti_dictionary_bytes(const struct bfti_dictionary *dictionary)
{
    return sizeof(*dictionary) + dictionary->len;
}

size_t bfti_dictionary_train(void *at, size_t room, const void *samples,
                             const size_t *lens, unsigned count)
{
    (void)at, (void)room, (void)samples, (void)lens, (void)count;
    return 0;
}

uint32_t bfti_frame_id(const void *at, size_t len)
{
    (void)at, (void)len;
    return 0;
}

#endif

bft_status bfti_dictionary_make(const struct bfti_env *env, unsigned number,
                                const void *raw, size_t len, bool to_write,
                                struct bfti_dictionary **out)
{
    struct bfti_dictionary *d = bfti_alloc(env, sizeof(*d) + len);
    bft_status status = BFT_NO_MEMORY;

    *out = NULL;
    if (d != NULL) {
        memset(d, 0, sizeof(*d));
        d->env = env;
        d->number = number;
        d->len = len;
        memcpy(d->raw, raw, len);
        status = digest(d, to_write);
    }
    if (status == BFT_OK) {
        *out = d;
        return BFT_OK;
    }
    bfti_dictionary_free(d);
    return status == BFT_NO_MEMORY
               ? bfti_fail(status, "no memory for a dictionary of %zu bytes",
                           len)
               : status;
}

void bfti_dictionary_free(struct bfti_dictionary *dictionary)
{
    if (dictionary == NULL)
        return;
    undigest(dictionary);
    bfti_free(dictionary->env, dictionary);
}
