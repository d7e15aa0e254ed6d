/*
 * Relocation: the extents of a leaf's disk content are copied to where there is
 * free space, and the leaf, or the page that lies on it, names the copies from
 * then on.  Bytes stay what they are but for the place that a delta says it lies
 * on.  So nothing changes for readers but places, and those they look at again.
 */
#include "core.h"

#include <assert.h>

/* Of one leaf: base page and deltas. */
enum { CHAIN_MAX = BFTI_DELTAS_MAX + 1, LATCH_TRIES = 200 };

struct relocation {
    struct bfti_buffer *buffer;
    struct bfti_rec *rec;
    struct bfti_entry *entry;
    uint64_t id;
    uint64_t word, head;        /* as seen */
    struct bfti_minipage *page; /* on top of HEAD, or NULL */
    unsigned count;             /* extents, from the head down to the base */
    uint64_t old[CHAIN_MAX];    /* words, of the head or as a delta has them */
    uint64_t fresh[CHAIN_MAX];  /* copies; 0: not made */
};

static bool still(const struct relocation *r)
{
    return bfti_entry_word(r->entry) == r->word &&
           (!r->page || atomic_load(&r->page->beneath) == r->head);
}

/* Name what the leaf is in memory and what heads its disk content.  False: there
 * is none, or it is being merged, which writes it anew anyway. */
static bool name(struct relocation *r)
{
    r->word = r->head = bfti_entry_word(r->entry);
    if (bfti_word_in_memory(r->word)) {
        bfti_hazard_set(r->rec, BFTI_HAZARD_TOP, r->word);
        if (bfti_entry_word(r->entry) != r->word)
            return false;
        r->page = bfti_page_at(r->buffer, r->word);
        r->head = atomic_load(&r->page->beneath); /* [beneath] */
        if (bfti_minipage_frozen(r->page))
            return false;
    }
    if (!bfti_word_on_disk(r->head))
        return false;
    /* Until the end: while it is named it does not come back as another extent, so
     * a leaf that has it then has had it all the time, and what it leads to. */
    bfti_hazard_set(r->rec, BFTI_HAZARD_SPARE, bfti_word_extent(r->head));
    return still(r);
}

/* Extent I of the chain, whole and this leaf's.  *STABLE false: not any more. */
static bft_status read_link(struct relocation *r, unsigned i,
                            struct bfti_extent_info *info,
                            const struct bfti_run **run, size_t *len,
                            bool *stable)
{
    bool is_delta = bfti_place_tag(r->old[i]) == BFTI_TAG_DELTA;
    uint64_t place = bfti_word_extent(r->old[i]);
    const void *raw;
    bft_status status;

    *run = NULL;
    bfti_hazard_set(r->rec, BFTI_HAZARD_BENEATH, place);
    *stable = still(r);
    if (!*stable)
        return BFT_OK;
    status =
        bfti_extent_read(r->buffer->pf, place,
                         &r->rec->scratch[BFTI_SCRATCH_RUN], info, &raw, len);
    if (status != BFT_OK)
        return status;
    if (info->page_id != r->id ||
        info->type != (is_delta ? BFTI_EXTENT_DELTA : BFTI_EXTENT_LEAF) ||
        bfti_run_check(raw, *len) != NULL)
        return bfti_extent_wrong(r->buffer->pf, place, "it is another page's");
    *run = raw;
    return BFT_OK;
}

/* Find all extents of the leaf.  *HIGH: one of them is to go. */
static bft_status walk(struct relocation *r, bool *high, bool *stable)
{
    uint64_t word = r->head;
    *high = false;
    *stable = true;
    if (bfti_word_deltas(word) > BFTI_DELTAS_MAX)
        return bfti_fail(BFT_CORRUPT, "page %llu: its word leads to %u deltas",
                         (unsigned long long)r->id, bfti_word_deltas(word));
    for (;;) {
        struct bfti_extent_info info;
        const struct bfti_run *run;
        size_t len;
        bft_status status;

        assert(r->count < CHAIN_MAX); /* each word leads to one delta less */
        r->old[r->count++] = word;
        *high =
            *high || bfti_space_is_high(r->buffer->pf, bfti_word_extent(word));
        if (bfti_place_tag(word) == BFTI_TAG_DISK)
            return BFT_OK; /* the base page */
        status = read_link(r, r->count - 1, &info, &run, &len, stable);
        if (status != BFT_OK || !*stable)
            return status;
        word = le64_get(run->beneath);
        if (!bfti_word_on_disk(word) ||
            bfti_word_deltas(word) + 1 !=
                bfti_word_deltas(r->old[r->count - 1]))
            return bfti_fail(BFT_CORRUPT,
                             "page %llu: a delta does not say what it lies on",
                             (unsigned long long)r->id);
    }
}

/* The word of copy I, as the old one is of what it was made from. */
static uint64_t fresh_word(const struct relocation *r, unsigned i)
{
    unsigned deltas = bfti_word_deltas(r->old[i]);
    return deltas ? bfti_delta_word(r->fresh[i], deltas) : r->fresh[i];
}

/* Copy extent I, and in it the place of the copy beneath.  *ROOM false: there is
 * none where copies are to lie. */
static bft_status copy_link(struct relocation *r, unsigned i, bool *room,
                            bool *stable)
{
    struct bfti_extent_info info;
    const struct bfti_run *run;
    struct bfti_run *copy;
    size_t len;
    bft_status status = read_link(r, i, &info, &run, &len, stable);
    if (status != BFT_OK || !*stable)
        return status;
    status = bfti_rec_buf(r->rec, 0, len);
    if (status != BFT_OK)
        return status;
    copy = r->rec->buf[0];
    memcpy(copy, run, len);
    if (i + 1 < r->count)
        copy->beneath = le64_of(fresh_word(r, i + 1));
    status = bfti_extent_write(r->buffer->pf, &info, copy, len, &r->fresh[i]);
    if (status == BFT_OK)
        *room = !bfti_space_is_high(r->buffer->pf, r->fresh[i]);
    return status;
}

/* Under the latch.  False: the leaf has changed, or an image under construction
 * has taken it. */
static bool swing(struct relocation *r)
{
    struct bfti_buffer *buffer = r->buffer;
    bft_status status = BFT_OK;

    if (!still(r) || (r->page && (bfti_minipage_frozen(r->page) ||
                                  atomic_load(&r->page->batch) != 0)))
        return false;
    if (bfti_table_change(buffer->table, r->id) != 0)
        return false;
    for (unsigned i = 0; i < r->count; i++)
        bfti_extent_link(buffer->pf, r->fresh[i], 0);
    if (r->page)
        atomic_store(&r->page->beneath, fresh_word(r, 0)); /* [beneath] */
    else
        bfti_entry_set(r->entry, fresh_word(r, 0)); /* [place] */
    /* Without memory for the list of held extents their space waits for the next
     * open. */
    for (unsigned i = 0; status == BFT_OK && i < r->count; i++)
        status =
            bfti_extent_unlink(buffer->pf, bfti_word_extent(r->old[i]), 0, 0);
    return true;
}

/* A holder who was stopped stops nobody here. */
static bool latch_and_swing(struct relocation *r)
{
    bool done = false;
    for (int i = 0; i < LATCH_TRIES; i++) {
        if (!bfti_latch_try(r->entry))
            continue;
        done = swing(r);
        bfti_unlatch(r->buffer->env, r->entry, false);
        /* Not under the latch: a history's leaf is one that any writer may need. */
        PARK("relocate:swung");
        break;
    }
    return done;
}

static bft_status attempt(struct relocation *r, bool *room, bool *done)
{
    bool high, stable;
    bft_status status = walk(r, &high, &stable);
    if (status != BFT_OK || !stable || !high)
        return status;
    for (unsigned i = r->count; status == BFT_OK && stable && *room && i-- > 0;)
        status = copy_link(r, i, room, &stable);
    if (status != BFT_OK || !stable || !*room)
        return status;
    PARK("relocate:written");
    *done = latch_and_swing(r);
    return BFT_OK;
}

bft_status bfti_relocate(struct bfti_buffer *buffer, struct bfti_rec *rec,
                         uint64_t id, bool *room, bool *done)
{
    struct relocation r = {.buffer = buffer,
                           .rec = rec,
                           .entry = bfti_table_entry(buffer->table, id),
                           .id = id};
    bft_status status = BFT_OK;

    *room = true;
    *done = false;
    if (name(&r)) {
        PARK("relocate:named");
        status = attempt(&r, room, done);
    }
    for (unsigned i = 0; !*done && i < r.count; i++)
        if (r.fresh[i])
            bfti_extent_discard(buffer->pf, r.fresh[i]);
    for (unsigned i = 0; i < BFTI_HAZARDS; i++)
        bfti_hazard_clear(rec, i);
    if (*done)
        bfti_count(rec, BFTI_N_LEAVES_MOVED, 1);
    return status;
}
