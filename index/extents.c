/*
 * Which extents does a leaf's content refer to?  For dropping a tree and for
 * the audit of space.
 */
#include "engine.h"

#include <stdlib.h>

/* A look at a leaf. */
struct look {
    struct bfti_reader *r;
    struct bfti_places *places;
    bool stable;
    bft_status damage; /* something could not be read, what follows was */
};

static bool goes_on(const struct look *look, bft_status status)
{
    return status == BFT_OK && look->stable;
}

/* STATUS of a read: damage is noted, and is no failure. */
static bft_status note_damage(struct look *look, bft_status status)
{
    if (status != BFT_CORRUPT)
        return status;
    look->damage = status;
    look->stable = bfti_reader_still(look->r);
    return BFT_OK;
}

static bft_status add_large(struct look *look, struct bfti_large large)
{
    struct bfti_reader *r = look->r;
    bft_status status;
    bfti_hazard_set(r->rec, BFTI_HAZARD_BENEATH,
                    bfti_word_extent(le64_get(large.place)));
    look->stable = bfti_reader_still(r);
    if (!look->stable)
        return BFT_OK;
    status = bfti_large_places(&r->tree->engine->buffer, r->rec, large,
                               look->places);
    if (status == BFT_CORRUPT)
        status = bfti_reader_blame(r, bfti_fail_in(status, "a value"));
    return note_damage(look, status);
}

/* Only a PUT owns its value; a cached record's is owned beneath. */
static bft_status add_view(struct look *look, const struct bfti_view *view)
{
    struct bfti_large large;
    if (!(view->flags & BFTI_REC_LARGE) || view->op != BFTI_OP_PUT)
        return BFT_OK;
    memcpy(&large, view->value, sizeof(large));
    return add_large(look, large);
}

static bft_status add_run(struct look *look, const struct bfti_run *run)
{
    bft_status status = BFT_OK;
    if (!run || !(le16_get(run->flags) & BFTI_RUN_HAS_LARGE))
        return BFT_OK;
    for (unsigned i = 0; goes_on(look, status) && i < bfti_run_count(run);
         i++) {
        struct bfti_view view = bfti_run_view(run, i);
        status = add_view(look, &view);
    }
    for (unsigned i = 0; goes_on(look, status) && i < le16_get(run->dead_count);
         i++)
        status = add_large(look, bfti_run_dead(run, i));
    return status;
}

static bft_status add_page(struct look *look, const struct bfti_minipage *page)
{
    unsigned tail = bfti_minipage_tail(page);
    bft_status status = add_run(look, bfti_minipage_run(page));
    for (unsigned i = 0; goes_on(look, status) && i < tail; i++) {
        struct bfti_view view = bfti_minipage_tail_view(page, i);
        status = add_view(look, &view);
    }
    return status;
}

/* What the leaf has on the disk, to *DISK.  Without LARGE values the base page is
 * not read: nothing but itself is in it. */
static bft_status add_disk(struct look *look, bool large,
                           struct bfti_content *disk)
{
    struct bfti_reader *r = look->r;
    const struct bfti_env *env = r->tree->engine->env;
    unsigned deltas = bfti_word_deltas(r->head), known;
    bft_status status = BFT_OK;
    disk->count = 0;
    if (!r->head)
        return BFT_OK;
    if (!large && deltas == 0)
        return bfti_places_add(env, look->places, r->head);
    disk->above = r->pages ? bfti_minipage_run(r->page[0]) : NULL;
    disk->place[0] = bfti_word_extent(r->head);
    if (r->disk.count)
        *disk = r->disk;
    else
        status =
            bfti_disk_read(&r->tree->engine->buffer, r->rec, r->head, 0, r->id,
                           bfti_reader_still, r, !large, &look->stable, disk);
    if (status == BFT_CORRUPT)
        status = bfti_reader_blame(r, status);
    status = note_damage(look, status);
    /* What comes behind those that were read is known, too. */
    known = disk->count + (disk->count <= deltas);
    for (unsigned i = 0; goes_on(look, status) && i < known; i++)
        status = bfti_places_add(env, look->places, disk->place[i]);
    return status;
}

static int compare_places(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* After redo a page and what lies beneath it may refer to one and the same
 * value. */
static void make_unique(struct bfti_places *places)
{
    size_t kept = 0;
    if (places->count == 0)
        return;
    qsort(places->place, places->count, sizeof(*places->place), compare_places);
    for (size_t i = 1; i < places->count; i++)
        if (places->place[i] != places->place[kept])
            places->place[++kept] = places->place[i];
    places->count = kept + 1;
}

bft_status bfti_leaf_extents(struct bfti_reader *r, struct bfti_places *places,
                             bool *stable)
{
    struct look look = {r, places, true, BFT_OK};
    bool large = atomic_load(&r->tree->has_large);
    struct bfti_content disk;
    bft_status status = add_disk(&look, large, &disk);
    for (unsigned i = 0; large && goes_on(&look, status) && i < r->pages; i++)
        status = add_page(&look, r->page[i]);
    for (unsigned i = 0; large && goes_on(&look, status) && i < disk.count; i++)
        status = add_run(&look, disk.run[i]);
    if (goes_on(&look, status) && large)
        make_unique(places);
    *stable = look.stable;
    return goes_on(&look, status) ? look.damage : status;
}
