/*
 * Which extents does a leaf's content refer to?  For dropping a tree and for
 * the audit of space.
 */
#include "engine.h"

#include <stdlib.h>

static bft_status add_large(struct bfti_reader *r, struct bfti_large large,
                            struct bfti_places *places, bool *stable)
{
    bft_status status;
    bfti_hazard_set(r->rec, BFTI_HAZARD_BENEATH,
                    bfti_word_extent(le64_get(large.place)));
    *stable = bfti_reader_still(r);
    if (!*stable)
        return BFT_OK;
    status = bfti_large_places(&r->tree->engine->buffer, r->rec, large, places);
    return status == BFT_CORRUPT
               ? bfti_reader_blame(r, bfti_fail_in(status, "a value"))
               : status;
}

/* Only a PUT owns its value; a cached record's is owned beneath. */
static bft_status add_view(struct bfti_reader *r, const struct bfti_view *view,
                           struct bfti_places *places, bool *stable)
{
    struct bfti_large large;
    if (!(view->flags & BFTI_REC_LARGE) || view->op != BFTI_OP_PUT)
        return BFT_OK;
    memcpy(&large, view->value, sizeof(large));
    return add_large(r, large, places, stable);
}

static bft_status add_run(struct bfti_reader *r, const struct bfti_run *run,
                          struct bfti_places *places, bool *stable)
{
    bft_status status = BFT_OK;
    if (!run || !(le16_get(run->flags) & BFTI_RUN_HAS_LARGE))
        return BFT_OK;
    for (unsigned i = 0; status == BFT_OK && *stable && i < bfti_run_count(run);
         i++) {
        struct bfti_view view = bfti_run_view(run, i);
        status = add_view(r, &view, places, stable);
    }
    for (unsigned i = 0;
         status == BFT_OK && *stable && i < le16_get(run->dead_count); i++)
        status = add_large(r, bfti_run_dead(run, i), places, stable);
    return status;
}

static bft_status add_page(struct bfti_reader *r,
                           const struct bfti_minipage *page,
                           struct bfti_places *places, bool *stable)
{
    unsigned tail = bfti_minipage_tail(page);
    bft_status status = add_run(r, bfti_minipage_run(page), places, stable);
    for (unsigned i = 0; status == BFT_OK && *stable && i < tail; i++) {
        struct bfti_view view = bfti_minipage_tail_view(page, i);
        status = add_view(r, &view, places, stable);
    }
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
    const struct bfti_env *env = r->tree->engine->env;
    bool large = atomic_load(&r->tree->has_large);
    bft_status status = BFT_OK;
    *stable = true;
    if (r->head && !large && bfti_word_deltas(r->head) == 0)
        return bfti_places_add(env, places, r->head);
    status = bfti_reader_disk(r, stable);
    for (unsigned i = 0; status == BFT_OK && *stable && i < r->disk.count; i++)
        status = bfti_places_add(env, places, r->disk.place[i]);
    if (status != BFT_OK || !*stable || !large)
        return status;
    for (unsigned i = 0; status == BFT_OK && *stable && i < r->pages; i++)
        status = add_page(r, r->page[i], places, stable);
    for (unsigned i = 0; status == BFT_OK && *stable && i < r->disk.count; i++)
        status = add_run(r, r->disk.run[i], places, stable);
    make_unique(places);
    return status;
}
