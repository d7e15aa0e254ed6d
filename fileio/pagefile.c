/* The page file as a whole: opening, closing, syncing. */
#include <assert.h>
#include <string.h>

#include "error.h"
#include "fault.h"
#include "pagefile_internal.h"

static char *text_copy(const struct bfti_env *env, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = bfti_alloc(env, bytes);
    if (copy != NULL)
        memcpy(copy, text, bytes);
    return copy;
}

/* Note how long the file is: no extent lies above. */
static bft_status end_find(struct bfti_pagefile *pf)
{
    uint64_t bytes;
    bft_status status = pf->file->ops->size(pf->file, &bytes);
    if (status == BFT_OK)
        atomic_store(&pf->end, bytes / BFTI_BLOCK + (bytes % BFTI_BLOCK != 0));
    return status;
}

bft_status bfti_pagefile_open(const struct bfti_pagefile_options *options,
                              struct bfti_pagefile **out)
{
    const struct bfti_env *env = options->env;
    struct bfti_vfs *vfs = options->vfs;
    int flags = BFTI_OPEN_PAGES | (options->create ? BFTI_OPEN_CREATE : 0) |
                (options->read_only ? BFTI_OPEN_READ_ONLY : 0);

    *out = NULL;
    struct bfti_pagefile *pf = bfti_alloc(env, sizeof *pf);
    if (pf == NULL)
        return bfti_fail(BFT_NO_MEMORY, "%s: no memory to open it",
                         options->path);
    memset(pf, 0, sizeof *pf);
    pf->env = pf->space_env = env;
    pf->vfs = vfs;
    pf->compress = options->compress;
    pf->codecs.limit = options->memory_bytes / CODEC_SHARE;
    pf->space.hole_floor = GROWTH_MIN;
    pf->unnamed = options->unnamed;
    pf->unnamed_ctx = options->unnamed_ctx;
    pf->path_of = options->path_of;
    pf->path_of_ctx = options->path_of_ctx;

    bft_status status = BFT_OK;
    pf->path = text_copy(env, options->path);
    if (pf->path == NULL) {
        status =
            bfti_fail(BFT_NO_MEMORY, "%s: no memory to open it", options->path);
        goto free_pagefile;
    }
    status = bfti_extent_pool_fill(pf);
    if (status != BFT_OK)
        goto free_pool;
    status = vfs->ops->open(vfs, pf->path, flags, &pf->file);
    if (status != BFT_OK)
        goto free_pool;
    status = end_find(pf);
    if (status != BFT_OK)
        goto close_file;
    *out = pf;
    return BFT_OK;

close_file:
    pf->file->ops->close(pf->file);
free_pool:
    bfti_extent_pool_free(pf);
    bfti_free(env, pf->path);
free_pagefile:
    bfti_free(env, pf);
    return status;
}

void bfti_pagefile_close(struct bfti_pagefile *pf)
{
    if (pf == NULL)
        return;
    bfti_space_clear(pf);
    pf->file->ops->close(pf->file);
    bfti_codecs_free(pf);
    bfti_extent_pool_free(pf);
    bfti_share_end(pf);
    bfti_free(pf->env, pf->path);
    bfti_free(pf->env, pf);
}

bft_status bfti_pagefile_sync(struct bfti_pagefile *pf)
{
    bft_status status = BFT_OK;

    bfti_share_settle(pf);
    bfti_mutex_lock(pf->env, &pf->sync_lock);
    if (atomic_load(&pf->sync_failed)) {
        /* The system has marked the lost pages clean: a second sync would
         * succeed without having written them. */
        status = bfti_fail(BFT_POISONED, "%s: a sync failed before", pf->path);
    } else if (!bfti_fault_on(BFTI_FAULT_DATA_NOT_SYNCED)) {
        status = pf->file->ops->sync(pf->file);
        if (status != BFT_OK)
            atomic_store(&pf->sync_failed, true);
    }
    bfti_mutex_unlock(pf->env, &pf->sync_lock);
    return status;
}

bool bfti_pagefile_poisoned(const struct bfti_pagefile *pf)
{
    return atomic_load(&pf->sync_failed);
}

struct bfti_file *bfti_pagefile_file(struct bfti_pagefile *pf)
{
    return pf->file;
}

void bfti_pagefile_set_heap(struct bfti_pagefile *pf,
                            const struct bfti_env *env)
{
    assert(!pf->space.ready && pf->space.chunk_count == 0);
    pf->space_env = env;
}
