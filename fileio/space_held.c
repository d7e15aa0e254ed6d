/*
 * Extents that are unlinked but may still be reached, and their release: by
 * the superblocks on disk, by one that a backup copies from, by log frames
 * that recovery would read, by readers.
 *
 * An unlink after the c-th cut waits until both superblocks are of later cuts:
 * neither image can then contain it.  What the checkpoint of that cut has itself
 * replaced, its image does not contain either: that waits for one cut less.  The
 * superblock of an abandoned checkpoint counts for nothing, also when its write
 * got through in part.
 */
#include <assert.h>
#include <string.h>

#include "error.h"
#include "fault.h"
#include "pagefile_internal.h"

/* What a node must be older than. */
struct release_bounds {
    uint64_t cut;      /* of the older superblock on disk */
    uint64_t redo_lsn; /* the lower of both */
    bool quick;        /* no image ever had it */
    bool holding;      /* ... and HOLD counts like a superblock on disk */
    struct space_checkpoint hold;
};

/* --- the lists ------------------------------------------------------------ */

static void held_mark(struct bfti_pagefile *pf, uint64_t place)
{
    uint64_t block = place_block(place);
    uint64_t end = block + place_blocks(place);

    if (place_is_shared(&pf->space, place)) {
        bfti_share_hold_locked(&pf->space, place);
        return;
    }
    pf->space.held_blocks += place_blocks(place);
    pf->space.held_grains += place_blocks(place) * (uint64_t)BLOCK_GRAINS;
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
                           uint64_t place, uint64_t epoch, uint64_t lsn)
{
    struct held_node *node = list->tail;

    held_mark(pf, place);
    if (node == NULL || node->count == HELD_PER_NODE || node->epoch != epoch) {
        node = bfti_alloc(pf->space_env, sizeof *node);
        if (node == NULL)
            /* Nobody will look at it again: it is held until the next open,
             * whose map does not have it. */
            return;
        node->epoch = epoch;
        node->lsn = 0;
        node->count = 0;
        list_append(list, node);
    }
    if (node->lsn < lsn)
        node->lsn = lsn;
    node->place[node->count++] = place;
}

void bfti_held_push_node_locked(struct bfti_pagefile *pf,
                                struct held_list *list, struct held_node *node,
                                uint64_t epoch, const uint64_t *places,
                                size_t count)
{
    assert(count <= HELD_PER_NODE);

    node->epoch = epoch;
    node->lsn = 0;
    node->count = (unsigned)count;
    for (size_t i = 0; i < count; i++) {
        node->place[i] = places[i];
        held_mark(pf, places[i]);
    }
    list_append(list, node);
}

void bfti_held_free(struct bfti_pagefile *pf, struct held_list *list)
{
    while (list->head != NULL) {
        struct held_node *next = list->head->next;
        bfti_free(pf->space_env, list->head);
        list->head = next;
    }
    list->tail = NULL;
}

/* --- a sweep -------------------------------------------------------------- */

/* STAY[i]: place i of NODE does for the copy alone.  Returns the grains of
 * these: since nothing that was allocated later is among them, they are never
 * more than were used when it began. */
static uint64_t stay_for_copy(struct bfti_pagefile *pf,
                              const struct held_node *node,
                              const struct release_bounds *bounds, bool *stay)
{
    uint64_t kept = 0;

    memset(stay, 0, HELD_PER_NODE * sizeof *stay);
    if (!bounds->holding ||
        (node->epoch < bounds->hold.cut &&
         (node->lsn == 0 || node->lsn < bounds->hold.redo_lsn)))
        return 0;
    bfti_space_lock(pf);
    for (unsigned i = 0; i < node->count; i++) {
        uint64_t block = place_block(node->place[i]);

        stay[i] = bit_get(space_chunk_of(&pf->space, block)->copied, block);
        kept += stay[i] ? place_counts(&pf->space, node->place[i]) : 0;
    }
    bfti_space_unlock(pf);
    return kept;
}

/* Free those of NODE that neither a copy needs nor a reader names; the others
 * stay in it.  Returns the grains that do for a copy.  The question is asked
 * without the lock: the answer may need a barrier on every processor. */
static uint64_t node_sweep(struct bfti_pagefile *pf, struct held_node *node,
                           const struct release_bounds *bounds)
{
    uint64_t named[HELD_PER_NODE];
    bool stay[HELD_PER_NODE];
    uint64_t for_copy = stay_for_copy(pf, node, bounds, stay);
    unsigned kept = 0;

    if (pf->unnamed != NULL) {
        memcpy(named, node->place, node->count * sizeof named[0]);
        pf->unnamed(pf->unnamed_ctx, named, node->count);
    } else {
        memset(named, 0, sizeof named);
    }
    bfti_space_lock(pf);
    for (unsigned i = 0; i < node->count; i++) {
        if (named[i] == 0 && !stay[i])
            bfti_space_free_held_locked(pf, node->place[i]);
        else
            node->place[kept++] = node->place[i];
    }
    bfti_space_unlock(pf);
    node->count = kept;
    return for_copy;
}

/* Release what BOUNDS allows of the detached LIST, up to the first node that is
 * too young for the superblocks: so are all behind it.  Returns the grains that
 * stay for a copy alone. */
static uint64_t list_sweep(struct bfti_pagefile *pf, struct held_list *list,
                           const struct release_bounds *bounds)
{
    uint64_t kept = 0;
    struct held_node **at = &list->head;
    struct held_node *last = NULL;

    while (*at != NULL) {
        struct held_node *node = *at;

        if (!bounds->quick && node->epoch >= bounds->cut &&
            !bfti_fault_on(BFTI_FAULT_EXTENT_REUSED_EARLY))
            return kept;
        if (bounds->quick || node->lsn == 0 || node->lsn < bounds->redo_lsn)
            kept += node_sweep(pf, node, bounds);
        if (node->count > 0) {
            last = node;
            at = &node->next;
            continue;
        }
        *at = node->next;
        bfti_free(pf->space_env, node);
    }
    list->tail = last;
    return kept;
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
    struct held_list replaced = space->replaced;
    struct held_list waiting = space->waiting;
    struct held_list logged = space->logged;
    memset(&space->quick, 0, sizeof space->quick);
    memset(&space->replaced, 0, sizeof space->replaced);
    memset(&space->waiting, 0, sizeof space->waiting);
    memset(&space->logged, 0, sizeof space->logged);
    /* [released] release, after what is freed now was unlinked and before it is:
     * pairs with the acquire in bfti_space_released(). */
    atomic_fetch_add_explicit(&space->released, 1, memory_order_release);
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
    uint64_t kept = list_sweep(pf, &replaced, &bounds);
    kept += list_sweep(pf, &waiting, &bounds);
    kept += list_sweep(pf, &logged, &bounds);

    bfti_space_lock(pf);
    list_reattach(&space->quick, &quick);
    list_reattach(&space->replaced, &replaced);
    list_reattach(&space->waiting, &waiting);
    list_reattach(&space->logged, &logged);
    space->kept_grains = space->holding ? kept : 0;
    bfti_share_trim_locked(pf);
    space->cursor = 0;
    bfti_space_unlock(pf);
}

/* --- the end of the file -------------------------------------------------- */

/* The block after the last used one, which there is: the superblocks are.  Under
 * the lock. */
static uint64_t used_end(const struct bfti_space *space)
{
    size_t word = space->chunk_count * CHUNK_WORDS;
    uint64_t used;

    do {
        word--;
        used = space->chunk[word / CHUNK_WORDS]->used[word % CHUNK_WORDS];
    } while (used == 0);
    return (uint64_t)word * 64 + 64 - (unsigned)__builtin_clzll(used);
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

uint64_t bfti_space_released(const struct bfti_pagefile *pf)
{
    /* [released] acquire: who finds a place in use and then the number that was
     * there before, cannot have found what came to that place after a release. */
    return atomic_load_explicit(&pf->space.released, memory_order_acquire);
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
