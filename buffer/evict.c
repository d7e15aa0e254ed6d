/*
 * Eviction: second chance over the pool's blocks; a clean page is dropped, a
 * dirty one is frozen and merged.  The latch is only tried.
 */
#include "core.h"

#include <assert.h>

enum {
    EVICT_TRIES = 20000, /* of a thread that needs room */
    LIMIT_TRIES = 32,    /* of one that finds room beyond the budget */
};

/* What is to be done with the leaf of a victim, once its latch is let go. */
enum evict_next { EVICT_NOTHING, EVICT_MERGE, EVICT_DROPPED };

/* Under the latch of the leaf PAGE_ID, whose block PLACE the clock chose. */
static enum evict_next look(struct bfti_buffer *buffer, struct bfti_rec *rec,
                            struct bfti_entry *entry, uint64_t place)
{
    uint64_t word = bfti_entry_word(entry), beneath;
    struct bfti_minipage *page;
    if (!bfti_word_in_memory(word))
        return EVICT_NOTHING;
    page = bfti_page_at(buffer, word);
    beneath = atomic_load(&page->beneath);
    if (word != place)
        return beneath == place ? EVICT_MERGE : EVICT_NOTHING;
    if (bfti_minipage_frozen(page) || bfti_word_in_memory(beneath))
        return EVICT_MERGE;
    if ((bfti_minipage_is_dirty(page) &&
         !bfti_fault_on(BFTI_FAULT_EVICTION_DROPS)) ||
        beneath == 0) {
        bfti_freeze(rec, page);
        return EVICT_MERGE;
    }
    bfti_entry_set(entry, beneath); /* [place] */
    PARK("evict:dropped");
    bfti_pool_retire(buffer->pool, place);
    return EVICT_DROPPED;
}

bft_status bfti_evict_one(struct bfti_buffer *buffer, struct bfti_rec *rec,
                          bool *done)
{
    uint64_t place, page_id;
    struct bfti_entry *entry;
    enum evict_next next;
    bft_status status;

    *done = false;
    if (!bfti_pool_victim(buffer->pool, &place, &page_id))
        return BFT_OK;
    entry = bfti_table_entry(buffer->table, page_id);
    PARK("evict:chosen");
    if (!bfti_latch_try(entry))
        return BFT_OK; /* a writer is at it: it is not cold */
    next = look(buffer, rec, entry, place);
    bfti_unlatch(buffer->env, entry, false);
    if (next == EVICT_DROPPED) {
        bfti_count(rec, BFTI_N_EVICT_CLEAN, 1);
        *done = true;
        return BFT_OK;
    }
    if (next == EVICT_NOTHING)
        return BFT_OK;
    status = bfti_merge(buffer, rec, page_id, BFTI_MERGE_EVICT, done);
    if (*done)
        bfti_count(rec, BFTI_N_EVICT_DIRTY, 1);
    return status;
}

bft_status bfti_buffer_alloc(struct bfti_buffer *buffer, struct bfti_rec *rec,
                             unsigned units, uint64_t *place)
{
    const struct bfti_env *env = buffer->env;
    *place = 0;
    /* What others use of the budget is free in the pool, and stays so if it can
     * be: for some tries, because no evicting may make up for it. */
    for (int i = 0; i < LIMIT_TRIES && bfti_pool_free_bytes(buffer->pool) <
                                           (size_t)units * BFTI_UNIT;
         i++) {
        bool done;
        bft_status status = bfti_evict_one(buffer, rec, &done);
        if (status != BFT_OK)
            return status;
    }
    *place = bfti_pool_alloc(buffer->pool, units);
    if (*place)
        return BFT_OK;
    bfti_count(rec, BFTI_N_WAITS, 1);
    for (int i = 0; i < EVICT_TRIES; i++) {
        bool done;
        bft_status status = bfti_evict_one(buffer, rec, &done);
        if (status != BFT_OK)
            return status;
        *place = bfti_pool_alloc(buffer->pool, units);
        if (*place)
            return BFT_OK;
        if (!done)
            env->yield(env->ctx);
    }
    return bfti_fail(BFT_NO_MEMORY,
                     "no page could leave the pool to make room for %u bytes",
                     units * BFTI_UNIT);
}
