/*
 * Absorption: a leaf takes over its small right neighbour, so that emptied
 * ranges do not leave an ever-growing tree.  Left always absorbs right: the left
 * neighbour's sibling id then needs no change.
 */
#include "core.h"
#include "forget.h"

struct side {
    uint64_t id;
    struct bfti_entry *entry;
    uint64_t word, head;        /* as seen */
    struct bfti_minipage *page; /* on top, or NULL */
    const struct bfti_run *run; /* fences: of the page or the base */
    struct bfti_places extents; /* disk content that is replaced */
};

struct absorb {
    struct bfti_buffer *buffer;
    struct bfti_rec *rec;
    struct side left, right;
    struct bfti_scratch scratch[BFTI_SCRATCH_VALUE]; /* the left's disk content:
                                                        what comes before values */
    uint32_t tree_id, leaf_bytes;
    uint64_t place; /* of the new base page */
    uint64_t fresh; /* the page on top of it, or 0 */
};

static bool side_still(void *arg)
{
    const struct side *s = arg;
    return bfti_entry_word(s->entry) == s->word &&
           (!s->page || atomic_load(&s->page->beneath) == s->head);
}

/* Name the top page; only leaves whose memory is one unfrozen page, or none,
 * over disk content are taken. */
static bool side_name(struct absorb *a, struct side *s, uint64_t id,
                      unsigned slot)
{
    s->id = id;
    s->entry = bfti_table_entry(a->buffer->table, id);
    s->word = bfti_entry_word(s->entry);
    if (bfti_word_on_disk(s->word)) {
        s->head = s->word;
        return true;
    }
    if (!bfti_word_in_memory(s->word))
        return false;
    bfti_hazard_set(a->rec, slot, s->word);
    if (bfti_entry_word(s->entry) != s->word)
        return false;
    s->page = bfti_page_at(a->buffer, s->word);
    s->head = atomic_load(&s->page->beneath);
    return bfti_word_on_disk(s->head) && !bfti_minipage_frozen(s->page) &&
           atomic_load(&s->page->batch) == 0;
}

/* Read the disk content into LIST (merged, with tombstones of deltas). */
static bft_status side_read(struct absorb *a, struct side *s,
                            struct bfti_list *list, struct bfti_list *tmp1,
                            struct bfti_list *tmp2, bool *stable)
{
    struct bfti_content disk = {.above = s->page ? bfti_minipage_run(s->page)
                                                 : NULL};
    size_t count, dead;
    bft_status status = bfti_disk_read(a->buffer, a->rec, s->head, 0, s->id,
                                       side_still, s, false, stable, &disk);
    if (status == BFT_CORRUPT)
        status = bfti_page_blame(status, a->tree_id, s->id);
    if (status != BFT_OK || !*stable)
        return status;
    s->run = s->page ? bfti_minipage_run(s->page) : disk.run[0];
    count = bfti_runs_records(disk.run, disk.count);
    dead = bfti_runs_dead(disk.run, disk.count);
    status = bfti_list_reserve(a->buffer->env, list, count, dead);
    if (status == BFT_OK)
        status = bfti_list_reserve(a->buffer->env, tmp1, count, dead);
    if (status == BFT_OK)
        status = bfti_list_reserve(a->buffer->env, tmp2, count, dead);
    for (unsigned i = 0; status == BFT_OK && i < disk.count; i++)
        status = bfti_places_add(a->buffer->env, &s->extents, disk.place[i]);
    if (status == BFT_OK)
        bfti_list_runs(list, NULL, disk.run, disk.count, tmp1, tmp2);
    return status;
}

/* Under the latch.  A page that says only what lies beneath it is not carried
 * over: deletions that a merge left cached would fill one that no neighbour fits
 * any more. */
static bool is_carried(const struct side *s)
{
    return s->page && bfti_minipage_is_dirty(s->page);
}

static bool run_is_big(const struct absorb *a, const struct side *s)
{
    return le32_get(bfti_minipage_run(s->page)->bytes) > a->leaf_bytes / 2;
}

/* Without the latch, by what does not change in a page. */
static bool page_is_big(const struct absorb *a, const struct side *s)
{
    return s->page && s->page->dirty && run_is_big(a, s);
}

/* Two sorted lists of disjoint, ascending ranges, one behind the other. */
static void append_list(struct bfti_list *to, const struct bfti_list *more)
{
    if (more->count > 0)
        memcpy(to->view + to->count, more->view,
               more->count * sizeof(*to->view));
    to->count += more->count;
    /* Most lists have none, and then no room for any. */
    if (more->dead_count > 0)
        memcpy(to->dead + to->dead_count, more->dead,
               more->dead_count * sizeof(*to->dead));
    to->dead_count += more->dead_count;
}

static struct bfti_run_spec joint_spec(const struct absorb *a,
                                       const struct bfti_list *list)
{
    struct bfti_run_spec spec;
    memset(&spec, 0, sizeof(spec));
    spec.view = list->view;
    spec.count = list->count;
    spec.low = bfti_run_low(a->left.run);
    spec.high = bfti_run_high(a->right.run);
    spec.sibling = bfti_run_sibling(a->right.run);
    spec.tree_id = a->tree_id;
    return spec;
}

/* The joint base page.  *FITS false: together they are not small. */
static bft_status write_joint(struct absorb *a, struct bfti_list *list,
                              bool *fits)
{
    struct bfti_run_spec spec = joint_spec(a, list);
    struct bfti_extent_info info = {
        BFTI_EXTENT_LEAF, a->tree_id, a->left.id,
        a->buffer->wal ? bfti_wal_end(a->buffer->wal) : 0};
    size_t bytes;
    bft_status status;
    spec.keep = BFTI_KEEP_VALUES;
    bytes = bfti_run_size(&spec);
    *fits = bytes <= bfti_leaf_run_max(a->leaf_bytes) / 2;
    if (!*fits)
        return BFT_OK;
    status = bfti_rec_buf(a->rec, 0, bytes);
    if (status != BFT_OK)
        return status;
    bfti_run_build(a->rec->buf[0], &spec);
    return bfti_extent_write(a->buffer->pf, &info, a->rec->buf[0], bytes,
                             &a->place);
}

enum { TOP_LISTS = 3, TOP_MORE = 16 };

/* What lists of the pages on top come to. */
static void top_records(const struct absorb *a, size_t *records, size_t *dead)
{
    const struct side *side[] = {&a->left, &a->right};
    *records = *dead = 0;
    for (int i = 0; i < 2; i++) {
        const struct bfti_minipage *page = side[i]->page;
        if (!page)
            continue;
        *records += bfti_minipage_records(page, bfti_minipage_tail(page));
        *dead += bfti_minipage_dead_max(page, bfti_minipage_tail(page));
    }
}

/* Room for the lists of build_top, and for some records that come meanwhile. */
static bft_status reserve(struct absorb *a)
{
    size_t records, dead;
    bft_status status = BFT_OK;
    top_records(a, &records, &dead);
    for (unsigned i = 0; status == BFT_OK && i < TOP_LISTS; i++)
        status = bfti_list_reserve(a->buffer->env, &a->rec->list[i],
                                   records + TOP_MORE, dead + TOP_MORE);
    return status;
}

/* Under both latches: the pages on top as one.  False: no memory, more came than
 * there is room for, or together they are more than a page takes, as two can be of
 * which most is in the tails. */
static bool build_top(struct absorb *a)
{
    struct bfti_list *list = a->rec->list;
    struct bfti_run_spec spec;
    struct bfti_minipage *page;
    size_t bytes, records, dead;
    top_records(a, &records, &dead);
    for (unsigned i = 0; i < TOP_LISTS; i++)
        if (!bfti_list_fits(&list[i], records, dead))
            return false;
    list[0].count = list[0].dead_count = 0;
    if (is_carried(&a->left))
        bfti_minipage_list(a->left.page, bfti_minipage_tail(a->left.page),
                           &list[0], &list[2]);
    if (is_carried(&a->right)) {
        bfti_minipage_list(a->right.page, bfti_minipage_tail(a->right.page),
                           &list[1], &list[2]);
        append_list(&list[0], &list[1]);
    }
    spec = joint_spec(a, &list[0]);
    spec.keep = BFTI_KEEP_ALL;
    spec.dead = list[0].dead;
    spec.dead_count = list[0].dead_count;
    bytes = bfti_minipage_size(&spec, 2, 64);
    if (bytes > bfti_page_bytes_max(a->leaf_bytes))
        return false;
    a->fresh = bfti_pool_alloc(a->buffer->pool, bfti_pool_class(bytes));
    if (a->fresh == 0)
        return false;
    page = bfti_page_at(a->buffer, a->fresh);
    bfti_minipage_build(page, bfti_memory_bytes(a->fresh), &spec, a->left.id, 0,
                        a->place);
    page->leaf_bytes = a->leaf_bytes;
    return true;
}

static bft_status unlink_side(struct absorb *a, struct side *s,
                              uint64_t gathered)
{
    bft_status status = BFT_OK;
    for (size_t i = 0; status == BFT_OK && i < s->extents.count; i++)
        status =
            bfti_extent_unlink(a->buffer->pf, s->extents.place[i], gathered, 0);
    return status;
}

/* No checkpoint has taken one of the two just now, nobody is dropping the
 * tree. */
static bool may_change(struct absorb *a)
{
    struct bfti_buffer *buffer = a->buffer;
    if (bfti_table_change(buffer->table, a->left.id) ||
        bfti_table_change(buffer->table, a->right.id))
        return false;
    return buffer->hooks.begin(buffer->hooks.ctx, a->rec, a->tree_id,
                               bfti_run_low(a->right.run));
}

/* Under both latches: left's word, right's word, release the right, parent.
 * The caller releases the left. */
static bool swing(struct absorb *a)
{
    struct bfti_buffer *buffer = a->buffer;
    uint64_t gathered;
    bool gone;
    bft_slice key = bfti_run_low(a->right.run);

    if (!side_still(&a->left) || !side_still(&a->right))
        return false;
    if ((a->left.page && bfti_minipage_frozen(a->left.page)) ||
        (a->right.page && bfti_minipage_frozen(a->right.page)))
        return false;
    /* An image that has one of the two, and will not have the other, would lose
     * the right one's records or have them twice. */
    if (bfti_table_gathered(buffer->table, a->left.id) ||
        bfti_table_gathered(buffer->table, a->right.id))
        return false;
    if ((is_carried(&a->left) && run_is_big(a, &a->left)) ||
        (is_carried(&a->right) && run_is_big(a, &a->right)))
        return false;
    if ((is_carried(&a->left) || is_carried(&a->right)) && !build_top(a))
        return false;
    if (!may_change(a)) {
        if (a->fresh)
            bfti_pool_free(buffer->pool, a->fresh);
        return false;
    }
    gathered = 0;
    bfti_flush_moved(buffer->table, a->right.id, a->left.id);
    bfti_extent_link(buffer->pf, a->place, gathered);
    if (a->fresh)
        bfti_pool_publish(buffer->pool, a->fresh, a->left.id);
    bfti_entry_set(a->left.entry, a->fresh ? a->fresh : a->place); /* [place] */
    PARK("absorb:left-set");
    bfti_entry_set(a->right.entry, a->left.id); /* [place] forward */
    bfti_unlatch(buffer->env, a->right.entry, true);
    PARK("absorb:forwarded");
    gone =
        buffer->hooks.absorbed(buffer->hooks.ctx, a->tree_id, key, a->right.id);
    buffer->hooks.end(buffer->hooks.ctx, a->tree_id);
    /* No tree leads there any more; late arrivals see a free word and descend
     * again. */
    if (gone)
        bfti_entry_set(a->right.entry, 0); /* [place] */
    a->place = 0;                          /* the leaf's now */
    /* Without memory for the list of held extents their space waits for the next
     * open. */
    (void)(unlink_side(a, &a->left, gathered) == BFT_OK &&
           unlink_side(a, &a->right, gathered) == BFT_OK);
    if (a->left.page)
        bfti_pool_retire(buffer->pool, a->left.word);
    if (a->right.page)
        bfti_pool_retire(buffer->pool, a->right.word);
    if (gone)
        bfti_id_free(buffer->table, a->right.id);
    return true;
}

/* Latch left, try right (failed: let go, later again), swing. */
static bool latch_and_swing(struct absorb *a)
{
    const struct bfti_env *env = a->buffer->env;
    bool done;
    if (!bfti_latch_try(a->left.entry))
        return false;
    if (!bfti_latch_try(a->right.entry)) {
        bfti_unlatch(env, a->left.entry, false);
        return false;
    }
    done = swing(a);
    if (!done)
        bfti_unlatch(env, a->right.entry, false);
    bfti_unlatch(env, a->left.entry, done);
    return done;
}

static bft_status attempt(struct absorb *a, bool *done)
{
    struct bfti_list *list = a->rec->list;
    const struct bfti_run *run;
    bft_status status;
    bool stable, fits;
    uint64_t right;

    status = side_read(a, &a->left, &list[0], &list[1], &list[2], &stable);
    if (status != BFT_OK || !stable)
        return status;
    run = a->left.run;
    right = bfti_run_sibling(run);
    a->tree_id = le32_get(run->tree_id);
    if (right == 0 || bfti_run_high(run).len == 0)
        return BFT_OK;
    /* The left's disk content stays where it is while the right's is read. */
    /* Named, lest the leaf's word comes back with another content while the slot
     * for extents serves the right one. */
    bfti_hazard_set(a->rec, BFTI_HAZARD_SPARE, bfti_word_extent(a->left.head));
    if (!side_still(&a->left))
        return BFT_OK;
    for (unsigned i = 0; i < BFTI_SCRATCH_VALUE; i++) {
        a->scratch[i] = a->rec->scratch[i];
        a->rec->scratch[i] = (struct bfti_scratch){.held = a->scratch[i].held};
    }
    if (!side_name(a, &a->right, right, BFTI_HAZARD_FROZEN))
        return BFT_OK;
    status = side_read(a, &a->right, &list[1], &list[2], &list[3], &stable);
    if (status != BFT_OK || !stable)
        return status;
    if (le32_get(a->right.run->tree_id) != a->tree_id ||
        bfti_key_compare(bfti_run_low(a->right.run), bfti_run_high(run)) != 0)
        return BFT_OK;
    if (page_is_big(a, &a->left) || page_is_big(a, &a->right))
        return BFT_OK;
    /* Dead references of a delta are merged away elsewhere first. */
    if (list[0].dead_count || list[1].dead_count)
        return BFT_OK;
    status = bfti_list_reserve(a->buffer->env, &list[0],
                               list[0].count + list[1].count, 0);
    if (status != BFT_OK)
        return status;
    append_list(&list[0], &list[1]);
    bfti_list_keep_values(&list[0]);
    if (list[1].count > 0 && bfti_fault_on(BFTI_FAULT_ABSORB_DROPS))
        list[0].count--;
    status = write_joint(a, &list[0], &fits);
    if (status == BFT_OK && fits)
        status = reserve(a);
    if (status == BFT_OK && fits)
        status = a->buffer->hooks.ready(a->buffer->hooks.ctx, a->rec,
                                        a->tree_id, bfti_run_low(a->right.run));
    if (status == BFT_OK && fits) {
        PARK("absorb:written");
        *done = latch_and_swing(a);
    }
    return status;
}

bft_status bfti_absorb(struct bfti_buffer *buffer, struct bfti_rec *rec,
                       uint64_t left, uint32_t leaf_bytes, bool *done)
{
    struct absorb a;
    bft_status status = BFT_OK;
    *done = false;
    if (buffer->forgets)
        return bfti_absorb_pages(buffer, rec, left, done);
    memset(&a, 0, sizeof(a));
    a.buffer = buffer;
    a.rec = rec;
    a.leaf_bytes = leaf_bytes;
    if (side_name(&a, &a.left, left, BFTI_HAZARD_TOP))
        status = attempt(&a, done);
    if (status == BFT_GONE) /* the tree was dropped */
        status = BFT_OK;
    if (a.place)
        bfti_extent_discard(buffer->pf, a.place);
    for (unsigned i = 0; i < BFTI_HAZARDS; i++)
        bfti_hazard_clear(rec, i);
    for (unsigned i = 0; i < BFTI_SCRATCH_VALUE; i++)
        bfti_scratch_free(buffer->env, &a.scratch[i]);
    bfti_free(buffer->env, a.left.extents.place);
    bfti_free(buffer->env, a.right.extents.place);
    if (*done)
        bfti_count(rec, BFTI_N_LEAF_MERGES, 1);
    return status;
}
