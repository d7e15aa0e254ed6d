/*
 * Reading what lies beneath the pages in memory: base pages, deltas, and the
 * extents of large values.
 */
#include "filters.h"

#include <stdio.h>

/* Read the extent, unless that was done ahead.  Should those bytes be wrong they
 * are read once more: then they are this call's, and so is the text. */
static bft_status read_extent(struct bfti_buffer *buffer, struct bfti_rec *rec,
                              struct bfti_scratch *scratch, uint64_t place,
                              struct bfti_extent_info *info, const void **raw,
                              size_t *raw_len)
{
    const void *stored = bfti_ahead_take(buffer, rec, place);
    uint64_t began;
    bft_status status;
    if (stored && bfti_extent_open(buffer->pf, place, stored, scratch, info,
                                   raw, raw_len) == BFT_OK)
        return BFT_OK;
    began = buffer->env->now_ns(buffer->env->ctx);
    status = bfti_extent_read(buffer->pf, place, scratch, info, raw, raw_len);
    bfti_note_reads(rec, 1, buffer->env->now_ns(buffer->env->ctx) - began);
    return status;
}

/* Read one leaf or delta extent and check that it is this leaf's. */
static bft_status read_run(struct bfti_buffer *buffer, struct bfti_rec *rec,
                           struct bfti_scratch *scratch, uint64_t place,
                           uint32_t tree_id, uint64_t page_id,
                           const struct bfti_run **run, bool *is_delta)
{
    struct bfti_extent_info info;
    const void *raw;
    size_t raw_len;
    const char *wrong;
    bft_status status =
        read_extent(buffer, rec, scratch, place, &info, &raw, &raw_len);
    *run = NULL;
    *is_delta = false;
    if (status != BFT_OK)
        return status;
    if (info.type != BFTI_EXTENT_LEAF && info.type != BFTI_EXTENT_DELTA)
        wrong = "it is no leaf";
    else if (info.page_id != page_id)
        wrong = "it belongs to another page";
    else if (tree_id && info.tree_id != tree_id)
        wrong = "it belongs to another tree";
    else
        wrong = bfti_run_check(raw, raw_len);
    if (!wrong && buffer->table && /* none in salvage */
        bfti_run_sibling(raw) >= bfti_table_ids(buffer->table))
        wrong = "its neighbour was never made";
    if (wrong)
        return bfti_extent_wrong(buffer->pf, place, wrong);
    *is_delta = info.type == BFTI_EXTENT_DELTA;
    *run = raw;
    return BFT_OK;
}

static bft_status wrong_kind(const struct bfti_buffer *buffer, uint64_t place,
                             bool is_delta)
{
    return bfti_extent_wrong(buffer->pf, place,
                             is_delta
                                 ? "it is a delta where a base page should be"
                                 : "it is a base page where a delta should be");
}

/* The word of what lies beneath the delta RUN, from PLACE, beneath which there
 * are to be DELTAS others. */
static bft_status word_beneath(const struct bfti_buffer *buffer, uint64_t place,
                               const struct bfti_run *run, unsigned deltas,
                               uint64_t *word)
{
    char wrong[100];
    *word = le64_get(run->beneath);
    if (bfti_word_on_disk(*word) && bfti_word_deltas(*word) == deltas)
        return BFT_OK;
    (void)snprintf(wrong, sizeof(wrong),
                   "it names %#llx beneath it, which leads to %u deltas and "
                   "not to %u",
                   (unsigned long long)*word, bfti_word_deltas(*word), deltas);
    return bfti_extent_wrong(buffer->pf, place, wrong);
}

/* All of a leaf has one range.  A page that was put over it without a look at the
 * disk has the one that the inner nodes gave. */
static bft_status check_ranges(const struct bfti_buffer *buffer,
                               const struct bfti_content *content)
{
    const struct bfti_run *above = content->above;
    for (unsigned i = 0; i < content->count; i++) {
        const struct bfti_run *run = content->run[i];
        if (above &&
            (bfti_key_compare(bfti_run_low(above), bfti_run_low(run)) != 0 ||
             bfti_key_compare(bfti_run_high(above), bfti_run_high(run)) != 0))
            return bfti_extent_wrong(
                buffer->pf, content->place[i],
                "it has another range than what is above it");
        above = run;
    }
    return BFT_OK;
}

static bft_status read_chain(struct bfti_buffer *buffer, struct bfti_rec *rec,
                             uint64_t head, uint32_t tree_id, uint64_t page_id,
                             bool (*still)(void *arg), void *arg,
                             bool deltas_only, bool *stable,
                             struct bfti_content *content)
{
    unsigned deltas = bfti_word_deltas(head);
    uint64_t word = head;

    content->count = 0;
    *stable = false;
    if (deltas > BFTI_DELTAS_MAX)
        return bfti_fail(BFT_CORRUPT, "its word leads to %u deltas", deltas);
    for (unsigned i = 0; i <= deltas; i++) {
        bool is_delta;
        bft_status status;
        content->place[i] = bfti_word_extent(word);
        /* A delta's image names what lies beneath; all of it lives as long as
         * the leaf's disk content has this head, which stays named. */
        bfti_hazard_set(rec, i ? BFTI_HAZARD_BENEATH : BFTI_HAZARD_EXTENT,
                        content->place[i]);
        if (!still(arg))
            return BFT_OK;
        PARK("read:extent-named");
        if (deltas_only && i == deltas)
            break;
        status = read_run(buffer, rec, &rec->scratch[BFTI_SCRATCH_RUN + i],
                          content->place[i], tree_id, page_id, &content->run[i],
                          &is_delta);
        if (status == BFT_OK && is_delta != (i < deltas))
            status = wrong_kind(buffer, content->place[i], is_delta);
        if (status == BFT_OK && is_delta)
            status = word_beneath(buffer, content->place[i], content->run[i],
                                  deltas - i - 1, &word);
        if (status != BFT_OK)
            return status;
        content->count++;
    }
    *stable = true;
    return check_ranges(buffer, content);
}

bft_status bfti_disk_read(struct bfti_buffer *buffer, struct bfti_rec *rec,
                          uint64_t head, uint32_t tree_id, uint64_t page_id,
                          bool (*still)(void *arg), void *arg, bool deltas_only,
                          bool *stable, struct bfti_content *content)
{
    bft_status status = read_chain(buffer, rec, head, tree_id, page_id, still,
                                   arg, deltas_only, stable, content);
    if (status == BFT_CORRUPT && tree_id)
        status = bfti_page_blame(status, tree_id, page_id);
    return status;
}

#undef bfti_page_blame
bft_status bfti_page_blame(bft_status status, uint32_t tree_id,
                           uint64_t page_id)
{
    return tree_id
               ? bfti_fail_in(status, "page %llu of tree %u",
                              (unsigned long long)page_id, (unsigned)tree_id)
               : bfti_fail_in(status, "page %llu", (unsigned long long)page_id);
}

void bfti_disk_unnamed(void *ctx, uint64_t *places, size_t n)
{
    enum { GROUP = 256 };
    struct bfti_buffer *buffer = ctx;
    uint64_t asked[GROUP];
    for (size_t done = 0; done < n; done += GROUP) {
        size_t count = n - done < GROUP ? n - done : GROUP;
        memcpy(asked, places + done, count * sizeof(asked[0]));
        bfti_hazard_unnamed(buffer->threads, places + done, count);
        for (size_t i = 0; i < count; i++)
            if (places[done + i] == 0 && asked[i] != 0)
                bfti_filters_forget(buffer->filters, asked[i]);
    }
}

bft_status bfti_places_add(const struct bfti_env *env,
                           struct bfti_places *places, uint64_t place)
{
    if (places->count == places->cap) {
        size_t cap = places->cap ? places->cap * 2 : 16;
        uint64_t *grown =
            bfti_realloc(env, places->place, cap * sizeof(*grown));
        if (!grown)
            return bfti_fail(BFT_NO_MEMORY, "no memory for a list of extents");
        places->place = grown;
        places->cap = cap;
    }
    places->place[places->count++] = place;
    return BFT_OK;
}

static bft_status no_list(const struct bfti_buffer *buffer, uint64_t place,
                          uint64_t bytes)
{
    char wrong[64];
    (void)snprintf(wrong, sizeof(wrong),
                   "it is no list of a value of %llu bytes",
                   (unsigned long long)bytes);
    return bfti_extent_wrong(buffer->pf, place, wrong);
}

bft_status bfti_large_places(struct bfti_buffer *buffer, struct bfti_rec *rec,
                             struct bfti_large large,
                             struct bfti_places *places)
{
    uint64_t place = le64_get(large.place), bytes = bfti_large_bytes(&large);
    struct bfti_extent_info info;
    const void *raw;
    size_t raw_len;
    bft_status status = bfti_places_add(buffer->env, places, place);
    if (status != BFT_OK || !bfti_large_is_list(bytes))
        return status;
    status =
        bfti_extent_read(buffer->pf, place, &rec->scratch[BFTI_SCRATCH_VALUE],
                         &info, &raw, &raw_len);
    if (status != BFT_OK)
        return status;
    if (info.type != BFTI_EXTENT_VALUE_LIST || raw_len % 8 ||
        raw_len / 8 != (bytes + BFTI_EXTENT_RAW_MAX - 1) / BFTI_EXTENT_RAW_MAX)
        return no_list(buffer, place, bytes);
    for (size_t i = 0; status == BFT_OK && i < raw_len / 8; i++)
        status = bfti_places_add(buffer->env, places,
                                 le64_get(((const le64 *)raw)[i]));
    return status;
}
