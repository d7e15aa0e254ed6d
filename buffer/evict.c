/*
 * Eviction: second chance over the pool's blocks; a clean page is dropped, a
 * dirty one is frozen and merged.  The latch is only tried.
 */
#include "core.h"
#include "forget.h"

#include <assert.h>
#include <string.h>

enum {
    EVICT_TRIES = 20000,       /* of a thread that needs room */
    GATHER_NS = 100 * 1000000, /* who gathers blocks for so long has stopped */
    GATHER_TRIES = 8,          /* before it looks whether its turn is lost */
    LIMIT_TRIES = 32,          /* of one that finds room beyond the budget */
    BEHIND = 64,               /* leaves behind a victim that may go with it */
};

/* What is to be done with the leaf of a victim, once its latch is let go: FROZEN
 * to be merged as well, frozen just now. */
enum evict_next { EVICT_NOTHING, EVICT_MERGE, EVICT_FROZEN, EVICT_DROPPED };

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
        return EVICT_FROZEN;
    }
    bfti_entry_set(entry, beneath); /* [place] */
    PARK("evict:dropped");
    bfti_pool_retire(buffer->pool, place);
    return EVICT_DROPPED;
}

/* The same of a database that only caches. */
static enum evict_next forget(struct bfti_buffer *buffer, struct bfti_rec *rec,
                              struct bfti_entry *entry, uint64_t place,
                              uint64_t id)
{
    enum bfti_forgot forgot = bfti_forget(buffer, rec, entry, id, place);
    bfti_unlatch(buffer->env, entry, forgot == BFTI_FORGOT_LEAF);
    if (forgot == BFTI_FORGOT_NOTHING)
        return EVICT_NOTHING;
    if (forgot == BFTI_FORGOT_FOLD)
        return EVICT_MERGE;
    if (forgot == BFTI_FORGOT_LEAF)
        bfti_count(rec, BFTI_N_FORGOTTEN, 1);
    PARK("evict:forgotten");
    return bfti_absorb_around(buffer, rec, id) || forgot == BFTI_FORGOT_LEAF
               ? EVICT_DROPPED
               : EVICT_NOTHING;
}

/* Choose a victim, *ID, and drop it or freeze it. */
static enum evict_next choose(struct bfti_buffer *buffer, struct bfti_rec *rec,
                              uint64_t *id, bool *reads)
{
    uint64_t place;
    struct bfti_entry *entry;
    enum evict_next next;

    *reads = false;
    if (buffer->forgets)
        bfti_forget_stock(buffer);
    if (!bfti_pool_victim(buffer->pool, &place, id))
        return EVICT_NOTHING;
    entry = bfti_table_entry(buffer->table, *id);
    PARK("evict:chosen");
    if (!bfti_latch_try(entry))
        return EVICT_NOTHING; /* a writer is at it: it is not cold */
    if (buffer->forgets)
        return forget(buffer, rec, entry, place, *id);
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
    return next == EVICT_MERGE || next == EVICT_FROZEN
               ? merge_victim(buffer, rec, id, done)
               : BFT_OK;
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

/* What is to be merged, in the order of its keys as far as it lies together. */
struct victims {
    bool together;
    size_t taken, count, reads;
    uint64_t id[BFTI_EVICT_MAX], read[BFTI_EVICT_MAX];
};

bool bfti_leaf_begin(struct bfti_buffer *buffer, struct bfti_rec *rec,
                     uint64_t id, uint8_t *low, size_t *low_len,
                     uint32_t *tree_id)
{
    struct bfti_entry *entry = bfti_table_entry(buffer->table, id);
    uint64_t word = bfti_entry_word(entry);
    bool there = false;
    if (!bfti_word_in_memory(word))
        return false;
    bfti_hazard_set(rec, BFTI_HAZARD_TOP, word);
    if (bfti_entry_word(entry) == word) {
        const struct bfti_run *run =
            bfti_minipage_run(bfti_page_at(buffer, word));
        bft_slice key = bfti_run_low(run);
        memcpy(low, key.data, key.len);
        *low_len = key.len;
        *tree_id = le32_get(run->tree_id);
        there = true;
    }
    bfti_hazard_clear(rec, BFTI_HAZARD_TOP);
    return there;
}

/* The leaves behind the leaf ID; returns how many. */
static size_t list_behind(struct bfti_buffer *buffer, struct bfti_rec *rec,
                          uint64_t id, uint64_t *behind)
{
    uint8_t low[BFTI_KEY_MAX];
    bft_slice key = {low, 0};
    uint32_t tree_id;
    return bfti_leaf_begin(buffer, rec, id, low, &key.len, &tree_id)
               ? buffer->hooks.following(buffer->hooks.ctx, rec, tree_id, key,
                                         behind, BEHIND)
               : 0;
}

/* Freeze the leaf ID's page, if it is dirty and cold, and none is frozen. */
static bool freeze_cold(struct bfti_buffer *buffer, struct bfti_rec *rec,
                        uint64_t id, bool *reads)
{
    struct bfti_entry *entry = bfti_table_entry(buffer->table, id);
    bool frozen = false;
    uint64_t word;
    if (!bfti_word_in_memory(bfti_entry_word(entry)) || !bfti_latch_try(entry))
        return false;
    word = bfti_entry_word(entry);
    if (bfti_word_in_memory(word) && bfti_pool_is_cold(buffer->pool, word) &&
        bfti_minipage_is_dirty(bfti_page_at(buffer, word)))
        frozen = look(buffer, rec, entry, word, reads) == EVICT_FROZEN;
    bfti_unlatch(buffer->env, entry, false);
    return frozen;
}

/* The leaf ID is to be merged: with others, where one wait is enough for what
 * they READ, else at once, so that none stays frozen long. */
static bft_status take(struct bfti_buffer *buffer, struct bfti_rec *rec,
                       struct victims *v, uint64_t id, bool reads)
{
    bool done;
    v->taken++;
    if (!v->together)
        return merge_victim(buffer, rec, id, &done);
    v->id[v->count++] = id;
    if (reads)
        v->read[v->reads++] = id;
    return BFT_OK;
}

/* Choose one, and those behind it. */
static bft_status take_some(struct bfti_buffer *buffer, struct bfti_rec *rec,
                            size_t n, struct victims *v)
{
    uint64_t id, behind[BEHIND];
    size_t count = 0;
    bool reads;
    bft_status status;
    enum evict_next next = choose(buffer, rec, &id, &reads);
    if (next != EVICT_MERGE && next != EVICT_FROZEN)
        return BFT_OK;
    if (next == EVICT_FROZEN && n > 1)
        count = list_behind(buffer, rec, id, behind);
    status = take(buffer, rec, v, id, reads);
    for (size_t i = 0; status == BFT_OK && i < count && v->taken < n; i++) {
        reads = false;
        if (freeze_cold(buffer, rec, behind[i], &reads))
            status = take(buffer, rec, v, behind[i], reads);
    }
    return status;
}

bft_status bfti_evict_several(struct bfti_buffer *buffer, struct bfti_rec *rec,
                              size_t n, size_t bytes)
{
    struct victims v = {.together = bytes > 0};
    bft_status status = BFT_OK;

    if (n > BFTI_EVICT_MAX)
        n = BFTI_EVICT_MAX;
    /* Should this stop half-way, those that are frozen are merged by whoever
     * meets them. */
    for (size_t i = 0; status == BFT_OK && i < n && v.taken < n; i++)
        status = take_some(buffer, rec, n, &v);
    if (v.reads > 1)
        (void)bfti_ahead_read(buffer, rec, buffer, v.read, v.reads, bytes);
    for (size_t i = 0; status == BFT_OK && i < v.count; i++) {
        bool done;
        status = merge_victim(buffer, rec, v.id[i], &done);
    }
    bfti_ahead_drop(rec, buffer);
    return status;
}

/* What others use of the budget is free in the pool, and stays so if it can be:
 * for some tries, because no evicting may make up for it. */
static bft_status keep_budget(struct bfti_buffer *buffer, struct bfti_rec *rec,
                              unsigned units, unsigned *damaged)
{
    bft_status status = BFT_OK;
    for (int i = 0;
         status == BFT_OK && i < LIMIT_TRIES &&
         bfti_pool_free_bytes(buffer->pool) < (size_t)units * BFTI_UNIT;
         i++) {
        bool done;
        status = bfti_evict_other(buffer, rec, damaged, &done);
    }
    return status;
}

/* With MOST tries at evicting; *PLACE is 0 when that was not enough.  *TRIES counts
 * those down that free nothing. */
static bft_status alloc_within(struct bfti_buffer *buffer, struct bfti_rec *rec,
                               unsigned units, unsigned most, unsigned *tries,
                               unsigned *damaged, uint64_t *place)
{
    *place = 0;
    for (unsigned i = 0; i < most && *tries; i++) {
        bool done;
        bft_status status = bfti_evict_other(buffer, rec, damaged, &done);
        if (status != BFT_OK)
            return status;
        *place = bfti_pool_alloc(buffer->pool, units);
        if (*place)
            break;
        if (done)
            continue;
        --*tries;
        buffer->env->yield(buffer->env->ctx);
    }
    return BFT_OK;
}

static bft_status no_room(unsigned units)
{
    return bfti_fail(BFT_NO_MEMORY,
                     "no page could leave the pool to make room for %u bytes",
                     units * BFTI_UNIT);
}

bft_status bfti_buffer_alloc(struct bfti_buffer *buffer, struct bfti_rec *rec,
                             unsigned units, uint64_t *place)
{
    unsigned damaged = BFTI_DAMAGED_MAX, tries = EVICT_TRIES;
    bft_status status = keep_budget(buffer, rec, units, &damaged);
    *place = 0;
    if (status != BFT_OK)
        return status;
    *place = bfti_pool_alloc(buffer->pool, units);
    if (*place)
        return BFT_OK;
    bfti_count(rec, BFTI_N_WAITS, 1);
    status =
        alloc_within(buffer, rec, units, EVICT_TRIES, &tries, &damaged, place);
    return status == BFT_OK && *place == 0 ? no_room(units) : status;
}

/* A ticket that says that its holder got on, and who it is. */
static uint32_t new_ticket(struct bfti_buffer *buffer)
{
    return atomic_fetch_add(&buffer->tickets, 1) | 1U << 31;
}

/* Wait while TICKET has the turn, for GATHER_NS at most; does it still? */
static bool stands_still(struct bfti_buffer *buffer, uint32_t ticket)
{
    const struct bfti_env *env = buffer->env;
    uint64_t now = env->now_ns(env->ctx), end = now + GATHER_NS;
    /* Ends: a wait that is over early, as for a signal, is only waited again. */
    while (atomic_load(&buffer->gatherer) == ticket && now < end) {
        env->wait(env->ctx, &buffer->gatherer, ticket, end - now);
        now = env->now_ns(env->ctx);
    }
    return atomic_load(&buffer->gatherer) == ticket;
}

static void gather_begin(struct bfti_buffer *buffer, struct bfti_gather *turn)
{
    uint32_t seen = 0;
    turn->ticket = new_ticket(buffer);
    /* Ends: with each turn of the loop another one got on, or what did not has lost
     * its turn. */
    while (
        !atomic_compare_exchange_strong(&buffer->gatherer, &seen, turn->ticket))
        if (seen != 0 && !stands_still(buffer, seen))
            seen = 0;
}

/* False: the turn is another's. */
static bool gather_renew(struct bfti_buffer *buffer, struct bfti_gather *turn)
{
    uint32_t ticket = turn->ticket;
    turn->ticket = new_ticket(buffer);
    return atomic_compare_exchange_strong(&buffer->gatherer, &ticket,
                                          turn->ticket);
}

static bft_status lose_turn(struct bfti_gather *turn)
{
    turn->ticket = 0;
    return bfti_fail(BFT_BUSY, "memory was gathered by another");
}

bft_status bfti_gather_alloc(struct bfti_buffer *buffer, struct bfti_rec *rec,
                             struct bfti_gather *turn, unsigned units,
                             uint64_t *place)
{
    unsigned damaged = BFTI_DAMAGED_MAX;
    bft_status status;
    *place = 0;
    if (turn->ticket == 0)
        gather_begin(buffer, turn);
    else if (!gather_renew(buffer, turn))
        return lose_turn(turn);
    status = keep_budget(buffer, rec, units, &damaged);
    if (status == BFT_OK)
        *place = bfti_pool_alloc(buffer->pool, units);
    if (status == BFT_OK && *place == 0)
        bfti_count(rec, BFTI_N_WAITS, 1);
    /* Ends: each turn of the loop takes one of the tries, whatever it freed. */
    while (status == BFT_OK && *place == 0) {
        if (turn->tries == 0)
            return no_room(units);
        if (atomic_load(&buffer->gatherer) != turn->ticket)
            return lose_turn(turn);
        turn->tries--;
        status = alloc_within(buffer, rec, units, GATHER_TRIES, &turn->tries,
                              &damaged, place);
    }
    return status;
}

void bfti_gather_end(struct bfti_buffer *buffer, struct bfti_gather *turn)
{
    uint32_t ticket = turn->ticket;
    if (ticket && atomic_compare_exchange_strong(&buffer->gatherer, &ticket, 0))
        buffer->env->wake(buffer->env->ctx, &buffer->gatherer, false);
    turn->ticket = 0;
}
