/*
 * Eviction: second chance over the pool's blocks; a clean page is dropped, a
 * dirty one is frozen and merged.  The latch is only tried.
 */
#include "core.h"

#include <assert.h>

enum {
    EVICT_TRIES = 20000, /* of a thread that needs room */
    LIMIT_TRIES = 32,    /* of one that finds room beyond the budget */
    TOGETHER = 16,       /* pages that are merged with one wait for reads */
};

/* What is to be done with the leaf of a victim, once its latch is let go. */
enum evict_next { EVICT_NOTHING, EVICT_MERGE, EVICT_DROPPED };

/* Under the latch of the leaf PAGE_ID, whose block PLACE the clock chose.  *READS:
 * the merge is likely to read. */
static enum evict_next look(struct bfti_buffer *buffer, struct bfti_rec *rec,
                            struct bfti_entry *entry, uint64_t place,
                            bool *reads)
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
        *reads = bfti_merge_reads(buffer, page, BFTI_MERGE_EVICT);
        return EVICT_MERGE;
    }
    bfti_entry_set(entry, beneath); /* [place] */
    PARK("evict:dropped");
    bfti_pool_retire(buffer->pool, place);
    return EVICT_DROPPED;
}

/* Choose a victim, *ID, and drop it or freeze it. */
static enum evict_next choose(struct bfti_buffer *buffer, struct bfti_rec *rec,
                              uint64_t *id, bool *reads)
{
    uint64_t place;
    struct bfti_entry *entry;
    enum evict_next next;

    *reads = false;
    if (!bfti_pool_victim(buffer->pool, &place, id))
        return EVICT_NOTHING;
    entry = bfti_table_entry(buffer->table, *id);
    PARK("evict:chosen");
    if (!bfti_latch_try(entry))
        return EVICT_NOTHING; /* a writer is at it: it is not cold */
    next = look(buffer, rec, entry, place, reads);
    bfti_unlatch(buffer->env, entry, false);
    if (next == EVICT_DROPPED)
        bfti_count(rec, BFTI_N_EVICT_CLEAN, 1);
    return next;
}

static bft_status merge_victim(struct bfti_buffer *buffer, struct bfti_rec *rec,
                               uint64_t id, bool *done)
{
    bft_status status = bfti_merge(buffer, rec, id, BFTI_MERGE_EVICT, done);
    if (*done)
        bfti_count(rec, BFTI_N_EVICT_DIRTY, 1);
    return status;
}

bft_status bfti_evict_one(struct bfti_buffer *buffer, struct bfti_rec *rec,
                          bool *done)
{
    uint64_t id;
    bool reads;
    enum evict_next next = choose(buffer, rec, &id, &reads);

    *done = next == EVICT_DROPPED;
    return next == EVICT_MERGE ? merge_victim(buffer, rec, id, done) : BFT_OK;
}

bft_status bfti_evict_other(struct bfti_buffer *buffer, struct bfti_rec *rec,
                            unsigned *damaged, bool *done)
{
    bft_status status = bfti_evict_one(buffer, rec, done);
    if (status != BFT_CORRUPT || *damaged == 0)
        return status;
    --*damaged;
    return BFT_OK;
}

bft_status bfti_evict_several(struct bfti_buffer *buffer, struct bfti_rec *rec,
                              size_t n, size_t bytes)
{
    uint64_t victim[TOGETHER], read[TOGETHER];
    size_t victims = 0, reads = 0;
    bft_status status = BFT_OK;

    /* Should this stop half-way, those that are frozen are merged by whoever
     * meets them. */
    for (size_t i = 0; i < n && victims < TOGETHER; i++) {
        uint64_t id;
        bool does;
        if (choose(buffer, rec, &id, &does) != EVICT_MERGE)
            continue;
        victim[victims++] = id;
        if (does)
            read[reads++] = id;
    }
    if (reads > 1)
        (void)bfti_ahead_read(buffer, rec, buffer, read, reads, bytes);
    for (size_t i = 0; status == BFT_OK && i < victims; i++) {
        bool done;
        status = merge_victim(buffer, rec, victim[i], &done);
    }
    bfti_ahead_drop(rec, buffer);
    return status;
}

bft_status bfti_buffer_alloc(struct bfti_buffer *buffer, struct bfti_rec *rec,
                             unsigned units, uint64_t *place)
{
    const struct bfti_env *env = buffer->env;
    unsigned damaged = BFTI_DAMAGED_MAX;
    *place = 0;
    /* What others use of the budget is free in the pool, and stays so if it can
     * be: for some tries, because no evicting may make up for it. */
    for (int i = 0; i < LIMIT_TRIES && bfti_pool_free_bytes(buffer->pool) <
                                           (size_t)units * BFTI_UNIT;
         i++) {
        bool done;
        bft_status status = bfti_evict_other(buffer, rec, &damaged, &done);
        if (status != BFT_OK)
            return status;
    }
    *place = bfti_pool_alloc(buffer->pool, units);
    if (*place)
        return BFT_OK;
    bfti_count(rec, BFTI_N_WAITS, 1);
    for (int i = 0; i < EVICT_TRIES; i++) {
        bool done;
        bft_status status = bfti_evict_other(buffer, rec, &damaged, &done);
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
