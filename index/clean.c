/*
 * The cleaner: keeps the file's length near what lives in it, by bringing what
 * lies at its end to free space nearer to the front.
 *
 * A pass goes from a grain on (of the ceiling, fileio/space_clean.c) to the end
 * of the file, some extents at a step.  An extent's header tells what it is of:
 * leaves are copied one by one (buffer/relocate.c); inner nodes and parts of
 * the page table at the end of the pass, between two images, as only images
 * name them, and so are dictionaries; what each image writes anew need not be
 * copied.  An image then makes the old copies free, and the end is cut off.
 *
 * Parts of large values stay where they are: they do not say whose they are,
 * and the log names them.  A pass that ends with a file as long as before is
 * made only some times.
 */
#include "catalogue.h"
#include "image.h"

enum {
    BYTES_PER_S = 16 << 20, /* looked at and copied, at most */
    STEP_NS = 10 * 1000 * 1000,
    PASS_NS = 250 * 1000 * 1000, /* from the end of a pass to the next one */
    STEP_BYTES = BYTES_PER_S / (1000 * 1000 * 1000 / STEP_NS),
    SCRATCH_KEPT = 64 << 10,
};

/* --- inner nodes and parts of the page table ------------------------------ */

/* A copy of the extent PLACE, linked. */
static bft_status copy_extent(struct bfti_engine *engine, struct bfti_rec *rec,
                              uint64_t place, enum bfti_extent_type type,
                              uint64_t *copy)
{
    struct bfti_pagefile *pf = engine->buffer.pf;
    struct bfti_extent_info info;
    const void *raw;
    size_t len;
    bft_status status = bfti_extent_read_as(
        pf, place, type, &rec->scratch[BFTI_SCRATCH_VALUE], &info, &raw, &len);
    if (status == BFT_OK)
        status = bfti_extent_write(pf, &info, raw, len, copy);
    if (status == BFT_OK)
        bfti_extent_link(pf, *copy, 0);
    return status;
}

/* NODE has no extent from now on but FRESH, or none (0).  The old one, or FRESH if
 * the tree has left the node meanwhile, is given back. */
static bft_status node_swing(struct bfti_engine *engine,
                             struct bfti_inner *node, uint64_t place,
                             uint64_t fresh, bool *changed)
{
    uint64_t old = place;
    /* [node] */
    *changed = atomic_compare_exchange_strong(&node->place, &old, fresh);
    if (*changed)
        node->image_place = fresh;
    else
        place = fresh;
    return place ? bfti_extent_unlink(engine->buffer.pf, place, 0, 0) : BFT_OK;
}

/* Bring what NODE's image lies in, and those below it, out of the part that is to
 * be free: bottom nodes as copies; the others, which are in memory and name their
 * children's places, lose theirs, and the next image writes them.  *CHANGED: it
 * has another, or none. */
/* NOLINTNEXTLINE(misc-no-recursion): as deep as the tree */
static bft_status lift_node(struct bfti_engine *engine, struct bfti_rec *rec,
                            struct bfti_inner *node, bool *changed)
{
    uint64_t place = atomic_load(&node->place), fresh = 0; /* [node] */
    bool move = place > BFTI_NODE_RETIRED &&
                bfti_space_is_high(engine->buffer.pf, place);
    bft_status first = BFT_OK, status = BFT_OK;
    *changed = false;
    for (unsigned i = 0; node->height > 1 && i < node->count; i++) {
        bool below;
        status = lift_node(engine, rec, bfti_inner_child(node, i), &below);
        /* Those that were moved are in no image but by a new one of this. */
        move = move || below;
        if (first == BFT_OK)
            first = status;
    }
    if (!move || place <= BFTI_NODE_RETIRED)
        return first;
    if (node->height == 1) {
        bfti_hazard_set(rec, BFTI_HAZARD_NODE, place);
        if (atomic_load(&node->place) == place)
            status = copy_extent(engine, rec, place, BFTI_EXTENT_INNER, &fresh);
        bfti_hazard_clear(rec, BFTI_HAZARD_NODE);
        PARK("clean:node-copied");
    }
    if (status == BFT_OK && (fresh || node->height > 1))
        status = node_swing(engine, node, place, fresh, changed);
    return first == BFT_OK ? status : first;
}

static bft_status lift_trees(struct bfti_engine *engine, struct bfti_rec *rec)
{
    bft_status first = BFT_OK;
    for (struct bfti_tree *t = engine->trees; t; t = t->next) {
        struct bfti_hold hold;
        struct bfti_inner *root;
        bft_status status = BFT_OK;
        bool changed;
        /* What its tree leaves meanwhile stays readable. */
        bfti_defer_hold(engine->buffer.threads, &hold);
        root = bfti_tree_root(t); /* [root] */
        if (root)
            status = lift_node(engine, rec, root, &changed);
        bfti_defer_unhold(engine->buffer.threads, &hold);
        if (first == BFT_OK)
            first = status;
    }
    return first;
}

static bft_status lift_parts(struct bfti_engine *engine, struct bfti_rec *rec)
{
    struct bfti_pagefile *pf = engine->buffer.pf;
    struct bfti_table *table = engine->buffer.table;
    bft_status status = BFT_OK;
    for (size_t i = 0; status == BFT_OK && i < bfti_table_parts(table); i++) {
        struct bfti_part *part = bfti_table_part(table, i);
        uint64_t old = part->place, copy;
        if (!old || !bfti_space_is_high(pf, old))
            continue;
        status = copy_extent(engine, rec, old, BFTI_EXTENT_TABLE, &copy);
        if (status != BFT_OK)
            break;
        part->place = copy; /* each image writes the directory anew */
        status = bfti_extent_unlink(pf, old, 0, 0);
    }
    return status;
}

/* Between two images, which checkpoint_lock keeps away, the extents that only
 * images name are changed like any other: the next one has the copies, and what
 * they replace waits for it. */
static bft_status lift_structure(struct bfti_engine *engine,
                                 struct bfti_rec *rec)
{
    bft_status status, parts, dictionaries;
    if (!bfti_mutex_try(&engine->checkpoint_lock))
        return BFT_OK; /* in another pass */
    status = lift_trees(engine, rec);
    parts = lift_parts(engine, rec);
    dictionaries = bfti_dictionaries_lift(engine);
    bfti_mutex_unlock(engine->env, &engine->checkpoint_lock);
    if (status == BFT_OK)
        status = parts;
    return status == BFT_OK ? dictionaries : status;
}

/* --- a pass --------------------------------------------------------------- */

/* What begins at GRAIN, where something lives, is moved if it is a leaf's.
 * *BYTES: looked at.  *ROOM false: there is none for more. */
static bft_status clean_extent(struct bfti_engine *engine, struct bfti_rec *rec,
                               uint64_t grain, uint64_t *bytes, bool *room)
{
    struct bfti_buffer *buffer = &engine->buffer;
    struct bfti_extent_info info;
    uint64_t place;
    bool done;
    bft_status status = bfti_extent_find(
        buffer->pf, grain, &rec->scratch[BFTI_SCRATCH_VALUE], &place, &info);
    *bytes = BFTI_BLOCK;
    engine->clean_grain = grain + 1;
    if (status != BFT_OK || !place)
        return status;
    *bytes = (uint64_t)bfti_disk_grains(place) * BFTI_GRAIN;
    engine->clean_grain = grain + bfti_disk_grains(place);
    if ((info.type != BFTI_EXTENT_LEAF && info.type != BFTI_EXTENT_DELTA) ||
        info.page_id == BFTI_PAGE_ID_NONE ||
        info.page_id >= bfti_table_ids(buffer->table))
        return BFT_OK;
    status = bfti_relocate(buffer, rec, info.page_id, room, &done);
    /* Reading it will tell those whom it concerns, and bft_verify; or its tree was
     * dropped. */
    return status == BFT_CORRUPT || status == BFT_GONE ? BFT_OK : status;
}

/* *OVER: the pass is through, or there is no more room below its ceiling. */
static bft_status clean_some(struct bfti_engine *engine, struct bfti_rec *rec,
                             uint64_t bytes, bool *over)
{
    bft_status status = BFT_OK;
    uint64_t done = 0, some = 0;
    *over = false;
    while (status == BFT_OK && done < bytes && !*over &&
           !atomic_load(&engine->epoch)) { /* goes on after the checkpoint */
        uint64_t grain =
            bfti_space_clean_next(engine->buffer.pf, engine->clean_grain);
        bool room = true;
        if (grain)
            status = clean_extent(engine, rec, grain, &some, &room);
        *over = !grain || !room;
        done += grain ? some : 0;
    }
    /* A part of a large value is half a megabyte. */
    if (rec->scratch[BFTI_SCRATCH_VALUE].stored_cap +
            rec->scratch[BFTI_SCRATCH_VALUE].raw_cap >
        SCRATCH_KEPT)
        bfti_scratch_free(engine->env, &rec->scratch[BFTI_SCRATCH_VALUE]);
    return status;
}

/* The image that makes free what the pass has left. */
static bft_status clean_end(struct bfti_engine *engine, struct bfti_rec *rec,
                            bool wait)
{
    bft_status status = lift_structure(engine, rec);
    bft_status image = bfti_checkpoint_space(engine, rec, wait);
    return status == BFT_OK && image != BFT_BUSY ? image : status;
}

bft_status bfti_clean(struct bfti_engine *engine, struct bfti_rec *rec,
                      uint64_t bytes, bool wait, bool *more)
{
    struct bfti_pagefile *pf = engine->buffer.pf;
    bft_status status = BFT_OK;
    bool over = false;
    *more = false;
    if (engine->options.read_only || engine->recovering ||
        atomic_load(&engine->failed) || bfti_wal_poisoned(engine->buffer.wal) ||
        !bfti_mutex_try(&engine->clean_lock))
        return BFT_OK;
    if (engine->clean_grain == 0)
        over = !bfti_space_clean_begin(pf, &engine->clean_grain);
    if (engine->clean_grain)
        status = clean_some(engine, rec, bytes, &over);
    if (engine->clean_grain && status == BFT_OK && over)
        status = clean_end(engine, rec, wait);
    if (engine->clean_grain && (status != BFT_OK || over)) {
        bfti_space_clean_end(pf);
        engine->clean_grain = 0;
    }
    *more = engine->clean_grain != 0;
    bfti_mutex_unlock(engine->env, &engine->clean_lock);
    return status;
}

bft_status bfti_clean_within_budget(struct bfti_engine *engine,
                                    struct bfti_rec *rec, bool *more)
{
    uint64_t now = engine->env->now_ns(engine->env->ctx);
    bool before = engine->cleaning;
    bft_status status;
    *more = before;
    if (now < engine->clean_after_ns)
        return BFT_OK;
    status = bfti_clean(engine, rec, STEP_BYTES, true, more);
    engine->cleaning = *more;
    engine->clean_after_ns = engine->env->now_ns(engine->env->ctx) +
                             (before && !*more ? PASS_NS : STEP_NS);
    return status;
}
