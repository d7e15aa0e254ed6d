/*
 * Extents that are unlinked but may still be reached, and their release: by
 * the superblocks on disk, by one that a backup copies from, by log frames
 * that recovery would read, by readers.
 *
 * An unlink after the c-th cut waits until both superblocks are of later cuts:
 * neither image can then contain it.  The superblock of an abandoned
 * checkpoint counts for nothing, also when its write got through in part.
 */
#include <assert.h>
#include <string.h>

#include "error.h"
#include "pagefile_internal.h"

enum { BATCH = 128 };

/* What an entry must be older than. */
struct release_bounds {
    uint64_t cut;      /* of the older superblock on disk */
    uint64_t redo_lsn; /* the lower of both */
    bool quick;        /* no image ever had it */
    bool holding;      /* ... and HOLD counts like a superblock on disk */
    struct space_checkpoint hold;
};

/* Moves over a detached list: what stays is packed to the front. */
struct sweep {
    struct bfti_pagefile *pf;
    struct held_node *to; /* where the next entry that stays goes */
    unsigned to_count;
    struct held_entry batch[BATCH];
    uint64_t place[BATCH];
    size_t n;
    uint64_t kept; /* blocks that stay for the bounds' HOLD alone */
};

/* --- the lists ------------------------------------------------------------- */

static void held_mark(struct bfti_pagefile *pf, uint64_t place)
{
    uint64_t block = place_block(place);
    uint64_t end = block + place_blocks(place);

    pf->space.held_blocks += place_blocks(place);
    for (; block < end; block++)
        bit_put(space_chunk_of(&pf->space, block)->held, block, true);
}

static void list_append(struct held_list *list, struct held_node *node)
{
    node->next = NULL;
    if (list->tail != NULL)
        list->tail->next = node;
    else
        list->head = node;
    list->tail = node;
}

void bfti_held_push_locked(struct bfti_pagefile *pf, struct held_list *list,
                           const struct held_entry *entry)
{
    if (list->tail == NULL || list->tail->count == HELD_PER_NODE) {
        struct held_node *node = bfti_alloc(pf->env, sizeof *node);
        if (node == NULL) {
            /* Nobody will look at it again: it is held until the next open,
             * whose map does not have it. */
            held_mark(pf, entry->place);
            return;
        }
        node->count = 0;
        list_append(list, node);
    }
    list->tail->entry[list->tail->count++] = *entry;
    held_mark(pf, entry->place);
}

void bfti_held_push_node_locked(struct bfti_pagefile *pf,
                                struct held_node *node, const uint64_t *places,
                                size_t count)
{
    assert(count <= HELD_PER_NODE);

    node->count = (unsigned)count;
    for (size_t i = 0; i < count; i++) {
        struct held_entry entry = {places[i], pf->space.epoch, 0};
        node->entry[i] = entry;
        held_mark(pf, places[i]);
    }
    list_append(&pf->space.waiting, node);
}

void bfti_held_free(struct bfti_pagefile *pf, struct held_list *list)
{
    while (list->head != NULL) {
        struct held_node *next = list->head->next;
        bfti_free(pf->env, list->head);
        list->head = next;
    }
    list->tail = NULL;
}

/* --- a sweep ----------------------------------------------------------------- */

static void sweep_keep(struct sweep *sweep, const struct held_entry *entry)
{
    if (sweep->to_count == HELD_PER_NODE) {
        sweep->to->count = HELD_PER_NODE;
        sweep->to = sweep->to->next;
        sweep->to_count = 0;
    }
    sweep->to->entry[sweep->to_count++] = *entry;
}

/* Ask which of the batch no reader names, and free those.  Without the lock:
 * the answer may need a barrier on every processor. */
static void sweep_flush(struct sweep *sweep)
{
    struct bfti_pagefile *pf = sweep->pf;

    if (sweep->n == 0)
        return;
    for (size_t i = 0; i < sweep->n; i++)
        sweep->place[i] = sweep->batch[i].place;
    if (pf->unnamed != NULL)
        pf->unnamed(pf->unnamed_ctx, sweep->place, sweep->n);
    else
        memset(sweep->place, 0, sizeof sweep->place);

    bfti_space_lock(pf);
    for (size_t i = 0; i < sweep->n; i++) {
        if (sweep->place[i] == 0)
            bfti_space_free_held_locked(pf, sweep->batch[i].place);
        else
            sweep_keep(sweep, &sweep->batch[i]);
    }
    bfti_space_unlock(pf);
    sweep->n = 0;
}

/* Blocks of ENTRY that stay for the copy alone: since nothing that was allocated
 * later is among them, these are never more than were used when it began. */
static unsigned blocks_for_copy(struct bfti_pagefile *pf,
                                const struct release_bounds *bounds,
                                const struct held_entry *entry)
{
    uint64_t block = place_block(entry->place);
    if (!bounds->holding ||
        (entry->epoch < bounds->hold.cut &&
         (entry->lsn == 0 || entry->lsn < bounds->hold.redo_lsn)))
        return 0;
    bfti_space_lock(pf);
    bool copied = bit_get(space_chunk_of(&pf->space, block)->copied, block);
    bfti_space_unlock(pf);
    return copied ? place_blocks(entry->place) : 0;
}

/* Take NODE's entries: those within BOUNDS to the batch, others stay.  False:
 * one was too young for the superblocks, and so are all in later nodes. */
static bool sweep_node(struct sweep *sweep, const struct held_node *node,
                       const struct release_bounds *bounds)
{
    bool go_on = true;

    /* Kept entries overwrite this node from the front, never beyond I. */
    unsigned count = node->count;
    for (unsigned i = 0; i < count; i++) {
        struct held_entry entry = node->entry[i];
        bool late = !bounds->quick && entry.epoch >= bounds->cut;
        if (late)
            go_on = false;
        if (late || (entry.lsn != 0 && entry.lsn >= bounds->redo_lsn)) {
            sweep_keep(sweep, &entry);
            continue;
        }
        unsigned kept = blocks_for_copy(sweep->pf, bounds, &entry);
        if (kept > 0) {
            sweep->kept += kept;
            sweep_keep(sweep, &entry);
            continue;
        }
        sweep->batch[sweep->n++] = entry;
        if (sweep->n == BATCH)
            sweep_flush(sweep);
    }
    return go_on;
}

/* Release what BOUNDS allows of the detached LIST; give the blocks of it that
 * stay for a copy alone. */
static uint64_t list_sweep(struct bfti_pagefile *pf, struct held_list *list,
                           const struct release_bounds *bounds)
{
    if (list->head == NULL)
        return 0;
    struct sweep sweep = {.pf = pf, .to = list->head};
    struct held_node *node = list->head;
    while (sweep_node(&sweep, node, bounds) && node->next != NULL)
        node = node->next;
    sweep_flush(&sweep);

    /* Nodes behind the last kept entry and up to NODE are empty now. */
    struct held_node *rest = node->next;
    struct held_node *empty = sweep.to->next;
    while (sweep.to != node && empty != rest) {
        struct held_node *next = empty->next;
        bfti_free(pf->env, empty);
        empty = next;
    }
    sweep.to->count = sweep.to_count;
    sweep.to->next = rest;
    if (rest == NULL)
        list->tail = sweep.to;
    if (sweep.to_count == 0 && sweep.to == list->head) {
        list->head = rest;
        if (rest == NULL)
            list->tail = NULL;
        bfti_free(pf->env, sweep.to);
    }
    return sweep.kept;
}

/* Put what a sweep left in front of what was unlinked meanwhile. */
static void list_reattach(struct held_list *list, struct held_list *left)
{
    if (left->head == NULL)
        return;
    left->tail->next = list->head;
    list->head = left->head;
    if (list->tail == NULL)
        list->tail = left->tail;
}

static void held_sweep(struct bfti_pagefile *pf)
{
    struct bfti_space *space = &pf->space;

    /* Superblocks written from here on only allow more.  So does the copy that
     * a hold begins from here on: it is of one of them. */
    bfti_space_lock(pf);
    struct held_list quick = space->quick;
    struct held_list waiting = space->waiting;
    memset(&space->quick, 0, sizeof space->quick);
    memset(&space->waiting, 0, sizeof space->waiting);
    const struct space_checkpoint *older = &space->on_disk[0];
    const struct space_checkpoint *newer = &space->on_disk[1];
    struct release_bounds bounds = {
        .cut = older->cut < newer->cut ? older->cut : newer->cut,
        .redo_lsn = older->redo_lsn < newer->redo_lsn ? older->redo_lsn
                                                      : newer->redo_lsn,
        .holding = space->holding,
        .hold = space->hold,
    };
    bfti_space_unlock(pf);

    struct release_bounds quick_bounds = {.quick = true};
    (void)list_sweep(pf, &quick, &quick_bounds);
    uint64_t kept = list_sweep(pf, &waiting, &bounds);

    bfti_space_lock(pf);
    list_reattach(&space->quick, &quick);
    list_reattach(&space->waiting, &waiting);
    space->kept_blocks = space->holding ? kept : 0;
    space->cursor = 0;
    bfti_space_unlock(pf);
}

/* --- the end of the file ------------------------------------------------------ */

/* The block after the last used one.  Under the lock. */
static uint64_t used_end(const struct bfti_space *space)
{
    for (size_t i = space->chunk_count; i-- > 0;) {
        const uint64_t *used = space->chunk[i]->used;
        for (size_t word = CHUNK_WORDS; word-- > 0;)
            if (used[word] != 0)
                return i * (uint64_t)CHUNK_BLOCKS + word * 64 + 64 -
                       (unsigned)__builtin_clzll(used[word]);
    }
    return 0;
}

/*
 * Cut free blocks off the end, but for an eighth of what is used: the file
 * would only grow again.  Blocks beyond the new end are out of the allocator's
 * reach before the call and its growth is held up until it is over, else the
 * cut could take an extent written there.
 */
static bft_status tail_cut(struct bfti_pagefile *pf)
{
    struct bfti_space *space = &pf->space;

    bfti_space_lock(pf);
    uint64_t slack = space->used_blocks / 8;
    if (slack < GROWTH_MIN)
        slack = GROWTH_MIN;
    uint64_t keep = used_end(space) + slack;
    /* relaxed: changed only under the lock that we hold. */
    if (atomic_load_explicit(&pf->end, memory_order_relaxed) < keep + slack) {
        bfti_space_unlock(pf);
        return BFT_OK;
    }
    bfti_space_shrink_locked(pf, keep);
    atomic_store(&space->truncating, 1);
    bfti_space_unlock(pf);

    bft_status status = pf->file->ops->truncate(pf->file, keep * BFTI_BLOCK);

    bfti_space_lock(pf);
    if (status == BFT_OK)
        atomic_store_explicit(&pf->end, keep, memory_order_relaxed);
    atomic_store(&space->truncating, 0);
    bfti_space_unlock(pf);
    pf->env->wake(pf->env->ctx, &space->truncating, true);
    return status;
}

bft_status bfti_space_release(struct bfti_pagefile *pf)
{
    bft_status status = BFT_OK;

    bfti_mutex_lock(pf->env, &pf->space.release_lock);
    if (pf->space.ready) {
        held_sweep(pf);
        status = tail_cut(pf);
    }
    bfti_mutex_unlock(pf->env, &pf->space.release_lock);
    return status;
}
