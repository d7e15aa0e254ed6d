/*
 * A database that only caches: its leaves lie in memory and nowhere else.  What
 * eviction would write is forgotten, a whole leaf at a time: so no older record of
 * a key is left when a newer one goes, nor a record whose deletion does.  The
 * emptied leaf is a page without records, until a neighbour absorbs it.
 */
#include "forget.h"

#include <assert.h>

/* An emptied leaf's page, with two fences of the greatest length. */
enum {
    STOCK_BYTES = sizeof(struct bfti_minipage) + sizeof(struct bfti_run) +
                  (size_t)2 * BFTI_KEY_MAX + 64,
    TAIL_RECORDS = 6, /* room in a page that others may go on with */
};

static struct bfti_minipage *page_at(struct bfti_buffer *buffer, uint64_t place)
{
    return bfti_page_at(buffer, place);
}

static bool has_records(const struct bfti_minipage *page)
{
    return bfti_run_count(bfti_minipage_run(page)) > 0 ||
           bfti_minipage_tail(page) > 0;
}

/* Is it the tree's last leaf, where ids and times grow? */
static bool is_last(const struct bfti_run_spec *spec)
{
    return spec->high.len == 0 && spec->sibling == 0;
}

/* A page of SPEC that is all of leaf ID: with tail ROOM for more, if there is
 * memory for it.  0: there is none. */
static uint64_t build(struct bfti_buffer *buffer,
                      const struct bfti_run_spec *spec, uint64_t id,
                      uint32_t leaf_bytes, bool room)
{
    size_t least = bfti_minipage_size(spec, 0, 0), wish = least;
    size_t most = bfti_page_bytes_max(leaf_bytes);
    uint64_t place;
    struct bfti_minipage *page;
    if (room)
        wish = bfti_minipage_size(
            spec, is_last(spec) ? BFTI_TAIL_MAX : TAIL_RECORDS,
            bfti_run_size(spec) / (is_last(spec) ? 1 : 4));
    if (wish > most)
        wish = least > most ? least : most;
    place = bfti_pool_alloc(buffer->pool, bfti_pool_class(wish));
    if (place == 0 && wish > least)
        place = bfti_pool_alloc(buffer->pool, bfti_pool_class(least));
    for (unsigned i = 0; place == 0 && i < BFTI_STOCK; i++)
        if (least <= STOCK_BYTES)
            place = atomic_exchange(&buffer->stock[i], 0);
    if (place == 0)
        return 0;
    page = page_at(buffer, place);
    bfti_minipage_build(page, bfti_memory_bytes(place), spec, id, 0, 0);
    page->leaf_bytes = leaf_bytes;
    return place;
}

void bfti_forget_stock(struct bfti_buffer *buffer)
{
    for (unsigned i = 0; i < BFTI_STOCK; i++) {
        uint64_t none = 0, place = atomic_load(&buffer->stock[i]);
        /* One that lies where the heap's next zone is to be goes: it would never be
         * vacated. */
        if (place && bfti_pool_in_zone(buffer->pool, place) &&
            atomic_compare_exchange_strong(&buffer->stock[i], &place, 0)) {
            bfti_pool_free(buffer->pool, place);
            place = 0;
        }
        if (place)
            continue;
        place = bfti_pool_alloc(buffer->pool, bfti_pool_class(STOCK_BYTES));
        if (place &&
            !atomic_compare_exchange_strong(&buffer->stock[i], &none, place))
            bfti_pool_free(buffer->pool, place);
    }
}

/* --- forgetting ---------------------------------------------------------- */

/* Under the latch: a page without records in the place of WORD's, and of what lies
 * beneath it.  False: there is no memory. */
static bool empty(struct bfti_buffer *buffer, struct bfti_entry *entry,
                  uint64_t id, uint64_t word)
{
    const struct bfti_minipage *page = page_at(buffer, word);
    const struct bfti_run *run = bfti_minipage_run(page);
    uint64_t beneath = atomic_load(&page->beneath);
    struct bfti_run_spec spec;
    uint64_t fresh;
    memset(&spec, 0, sizeof(spec));
    spec.low = bfti_run_low(run);
    spec.high = bfti_run_high(run);
    spec.sibling = bfti_run_sibling(run);
    spec.tree_id = le32_get(run->tree_id);
    fresh = build(buffer, &spec, id, page->leaf_bytes, false);
    if (fresh == 0)
        return false;
    PARK("forget:built");
    bfti_pool_publish(buffer->pool, fresh, id);
    bfti_entry_set(entry, fresh); /* [place] */
    PARK("forget:swung");
    bfti_pool_retire(buffer->pool, word);
    if (beneath)
        bfti_pool_retire(buffer->pool, beneath);
    return true;
}

/* A page that was used, which the clock met only because its place is to be the
 * heap's. */
static bool is_to_move(struct bfti_buffer *buffer, uint64_t place)
{
    return bfti_pool_vacating(buffer->pool) &&
           !bfti_pool_is_cold(buffer->pool, place);
}

enum bfti_forgot bfti_forget(struct bfti_buffer *buffer, struct bfti_rec *rec,
                             struct bfti_entry *entry, uint64_t id,
                             uint64_t place)
{
    uint64_t word = bfti_entry_word(entry), beneath;
    struct bfti_minipage *page;
    if (!bfti_word_in_memory(word))
        return BFTI_FORGOT_NOTHING;
    page = page_at(buffer, word);
    beneath = atomic_load(&page->beneath);
    assert(beneath == 0 || bfti_word_in_memory(beneath));
    assert(atomic_load(&page->batch) == 0);
    if (word != place)
        return beneath == place ? BFTI_FORGOT_FOLD : BFTI_FORGOT_NOTHING;
    if (beneath == 0 && !has_records(page)) {
        /* Nobody absorbs a tree's only leaf, and the heap waits for its place. */
        if (bfti_pool_in_zone(buffer->pool, place))
            (void)empty(buffer, entry, id, word);
        return BFTI_FORGOT_EMPTY;
    }
    if (is_to_move(buffer, place)) {
        if (beneath == 0 && !bfti_minipage_frozen(page))
            bfti_freeze(rec, page);
        return BFTI_FORGOT_FOLD;
    }
    return empty(buffer, entry, id, word) ? BFTI_FORGOT_LEAF
                                          : BFTI_FORGOT_NOTHING;
}

/* --- lists --------------------------------------------------------------- */

/* Under the latch: what PAGE's list comes to at most. */
static size_t records_of(const struct bfti_minipage *page)
{
    return bfti_run_count(bfti_minipage_run(page)) + bfti_minipage_tail(page);
}

/* The thread's lists, for two pages with their records in all; no longer than that,
 * as all of them stay. */
enum { FIRST, BOTH, SECOND, LISTS };

/* False: one of the lists is too short. */
static bool lists_fit(const struct bfti_rec *rec, const size_t *records)
{
    for (unsigned i = 0; i < LISTS; i++)
        if (!bfti_list_fits(&rec->list[i], records[i], 0))
            return false;
    return true;
}

static bft_status lists_reserve(struct bfti_buffer *buffer,
                                struct bfti_rec *rec, const size_t *records)
{
    bft_status status = BFT_OK;
    for (unsigned i = 0; status == BFT_OK && i < LISTS; i++) {
        /* Somewhat more: there may be when we are back. */
        size_t count = records[i] + records[i] / 8 + 8;
        if (!bfti_list_fits(&rec->list[i], records[i], 0))
            status = bfti_list_reserve(buffer->env, &rec->list[i], count, 0);
    }
    return status;
}

/* Under the latch: that many, of the pages A and B (NULL: none). */
static void lists_want(size_t *records, const struct bfti_minipage *a,
                       const struct bfti_minipage *b)
{
    records[FIRST] = records_of(a);
    records[SECOND] = b ? records_of(b) : 0;
    records[BOTH] = records[FIRST] + records[SECOND];
}

/* The records of PAGE in list I; BOTH is used. */
static struct bfti_list *list_page(struct bfti_rec *rec, unsigned i,
                                   const struct bfti_minipage *page)
{
    bfti_minipage_list(page, bfti_minipage_tail(page), &rec->list[i],
                       &rec->list[BOTH]);
    return &rec->list[i];
}

/* --- folding ------------------------------------------------------------- */

enum fold_next {
    FOLD_DONE,
    FOLD_NOTHING, /* is frozen, or may be changed now */
    FOLD_LACKS,   /* lists, fences or ids, to be got without the latch */
    FOLD_ROOM,    /* no blocks for pages */
    FOLD_TOO_BIG, /* for as many leaves as one can become */
};

struct fold {
    struct bfti_buffer *buffer;
    struct bfti_rec *rec;
    struct bfti_entry *entry;
    const bft_slice *force; /* keys to cut at, or NULL */
    size_t force_count;

    uint64_t word, below;  /* the pages' places; BELOW 0: there is one only */
    struct bfti_list *all; /* what they have, with values */
    size_t parts, cut[BFTI_PARTS_MAX];
    uint64_t part_id[BFTI_PARTS_MAX]; /* 0: the leaf's own */
    uint64_t part_page[BFTI_PARTS_MAX];
    size_t fence_len[BFTI_PARTS_MAX];
    size_t ids;                  /* of PART_ID, that there are */
    size_t records[LISTS], want; /* lists for so many, and ids with fences */
};

/* Low fence of part I >= 1. */
static uint8_t *fence(const struct fold *f, size_t i)
{
    return (uint8_t *)f->rec->buf[2] + i * BFTI_KEY_MAX;
}

static const struct bfti_run *run_of(const struct fold *f)
{
    return bfti_minipage_run(page_at(f->buffer, f->word));
}

/* Records FROM to TO of all, as part I of the leaf. */
static struct bfti_run_spec part_spec(const struct fold *f, size_t i,
                                      size_t from, size_t to)
{
    const struct bfti_run *run = run_of(f);
    bool last = i + 1 == f->parts;
    struct bfti_run_spec spec;
    memset(&spec, 0, sizeof(spec));
    spec.view = f->all->view + from;
    spec.count = to - from;
    spec.keep = BFTI_KEEP_VALUES;
    spec.low =
        i == 0 ? bfti_run_low(run) : (bft_slice){fence(f, i), f->fence_len[i]};
    spec.high = last ? bfti_run_high(run)
                     : (bft_slice){fence(f, i + 1), f->fence_len[i + 1]};
    spec.sibling = last ? bfti_run_sibling(run) : f->part_id[i + 1];
    spec.tree_id = le32_get(run->tree_id);
    return spec;
}

/* Under the latch: what the leaf has.  False: nothing is to be folded. */
static bool fold_find(struct fold *f)
{
    const struct bfti_minipage *page;
    f->word = bfti_entry_word(f->entry);
    if (!bfti_word_in_memory(f->word))
        return false;
    page = page_at(f->buffer, f->word);
    f->below = atomic_load(&page->beneath);
    assert(f->below == 0 || bfti_word_in_memory(f->below));
    return f->force || f->below || bfti_minipage_frozen(page);
}

static bool fold_list(struct fold *f)
{
    const struct bfti_minipage *top = page_at(f->buffer, f->word);
    const struct bfti_minipage *below =
        f->below ? page_at(f->buffer, f->below) : NULL;
    lists_want(f->records, top, below);
    if (!lists_fit(f->rec, f->records))
        return false;
    f->all = list_page(f->rec, FIRST, top);
    if (below) {
        struct bfti_list *older = list_page(f->rec, SECOND, below);
        bfti_list_merge(&f->rec->list[BOTH], f->all, older);
        f->all = &f->rec->list[BOTH];
    }
    bfti_list_keep_values(f->all);
    return true;
}

/* Cuts at the keys that were asked for, as all of it fits one leaf. */
static void cut_forced(struct fold *f)
{
    const struct bfti_run *run = run_of(f);
    bft_slice low = bfti_run_low(run);
    for (size_t i = 0; i < f->force_count && f->parts < BFTI_PARTS_MAX; i++) {
        bft_slice key = f->force[i];
        bool found;
        if (bfti_run_range(run, key) != 0 || bfti_key_compare(key, low) <= 0)
            continue;
        memcpy(fence(f, f->parts), key.data, key.len);
        f->fence_len[f->parts] = key.len;
        f->cut[f->parts] = bfti_list_search(f->all, key, &found);
        f->parts++;
        low = key;
    }
}

/* Into how many leaves, and where?  FOLD_DONE: it is known. */
static enum fold_next fold_cut(struct fold *f)
{
    const struct bfti_minipage *page = page_at(f->buffer, f->word);
    size_t most = bfti_leaf_run_max(page->leaf_bytes), wanted;
    /* What a block has room for: a leaf of 32 KiB may be longer. */
    const size_t bound = bfti_page_bytes_most() - sizeof(*page);
    struct bfti_run_spec spec;
    bft_status status;
    memset(f->fence_len, 0, sizeof(f->fence_len));
    f->cut[0] = 0;
    f->parts = 1;
    spec = part_spec(f, 0, 0, f->all->count);
    /* No leaf is written: of what would be too many they are larger. */
    for (;; most *= 2) {
        most = most < bound ? most : bound;
        status = bfti_run_cuts(&spec, most, is_last(&spec), f->cut + 1,
                               BFTI_PARTS_MAX - 1, &f->parts);
        if (status != BFT_TOO_BIG || most == bound)
            break;
    }
    if (status != BFT_OK)
        return FOLD_TOO_BIG;
    wanted = f->parts + (f->parts == 1 ? f->force_count : 0);
    if (f->want < wanted)
        f->want = wanted;
    if (f->ids + 1 < f->want || f->rec->buf_cap[2] < f->want * BFTI_KEY_MAX)
        return FOLD_LACKS;
    if (f->parts == 1)
        cut_forced(f);
    for (size_t i = 1; i < f->parts; i++)
        if (f->fence_len[i] == 0)
            f->fence_len[i] =
                bfti_key_separator(&f->all->view[f->cut[i] - 1],
                                   &f->all->view[f->cut[i]], fence(f, i));
    return FOLD_DONE;
}

static void pages_free(struct fold *f)
{
    for (size_t i = 0; i < f->parts; i++) {
        if (f->part_page[i])
            bfti_pool_free(f->buffer->pool, f->part_page[i]);
        f->part_page[i] = 0;
    }
}

static bool fold_build(struct fold *f)
{
    uint32_t leaf_bytes = page_at(f->buffer, f->word)->leaf_bytes;
    bool ascends = bfti_run_high(run_of(f)).len == 0;
    for (size_t i = 0; i < f->parts; i++) {
        bool last = i + 1 == f->parts;
        size_t to = last ? f->all->count : f->cut[i + 1];
        struct bfti_run_spec spec = part_spec(f, i, f->cut[i], to);
        /* What comes next goes behind those that are split off. */
        f->part_page[i] = build(f->buffer, &spec, f->part_id[i], leaf_bytes,
                                last || !ascends);
        if (f->part_page[i] == 0) {
            pages_free(f);
            return false;
        }
    }
    return true;
}

static void release_parts(const struct fold *f, size_t n, bool changed)
{
    for (size_t i = 1; i < n; i++)
        bfti_unlatch(f->buffer->env,
                     bfti_table_entry(f->buffer->table, f->part_id[i]),
                     changed);
}

/* May the leaf be split?  The new leaves' latches are ours then. */
static bool begin_split(struct fold *f)
{
    const struct bfti_hooks *hooks = &f->buffer->hooks;
    const struct bfti_run *run = run_of(f);
    uint32_t tree_id = le32_get(run->tree_id);
    if (!hooks->begin(hooks->ctx, f->rec, tree_id, bfti_run_low(run)))
        return false;
    for (size_t i = 1; i < f->parts; i++) {
        if (bfti_latch_try(bfti_table_entry(f->buffer->table, f->part_id[i])))
            continue;
        release_parts(f, i, false); /* who was led to it long ago looks */
        hooks->end(hooks->ctx, tree_id);
        return false;
    }
    return true;
}

static void publish_part(struct fold *f, size_t i)
{
    struct bfti_entry *entry =
        i == 0 ? f->entry : bfti_table_entry(f->buffer->table, f->part_id[i]);
    bfti_pool_publish(f->buffer->pool, f->part_page[i], f->part_id[i]);
    bfti_entry_set(entry, f->part_page[i]); /* [place] */
}

/* Right's words, left's word, parent, release the right: as for other splits
 * (merge.c). */
static void fold_swing(struct fold *f)
{
    const struct bfti_hooks *hooks = &f->buffer->hooks;
    uint32_t tree_id = le32_get(run_of(f)->tree_id);
    bft_slice keys[BFTI_PARTS_MAX];
    for (size_t i = f->parts; --i > 0;) {
        publish_part(f, i);
        keys[i] = (bft_slice){fence(f, i), f->fence_len[i]};
    }
    publish_part(f, 0);
    PARK("fold:swung");
    if (f->parts > 1) {
        hooks->split(hooks->ctx, tree_id, keys + 1, f->part_id + 1,
                     f->parts - 1);
        hooks->end(hooks->ctx, tree_id);
        release_parts(f, f->parts, true);
        bfti_count(f->rec, BFTI_N_SPLITS, f->parts - 1);
    }
    bfti_pool_retire(f->buffer->pool, f->word);
    if (f->below)
        bfti_pool_retire(f->buffer->pool, f->below);
}

static enum fold_next fold_latched(struct fold *f)
{
    enum fold_next next;
    if (!fold_find(f))
        return FOLD_NOTHING;
    if (!fold_list(f))
        return FOLD_LACKS;
    next = fold_cut(f);
    if (next != FOLD_DONE)
        return next;
    if (!fold_build(f))
        return FOLD_ROOM;
    PARK("fold:built");
    if (f->parts > 1 && !begin_split(f)) {
        pages_free(f);
        return FOLD_NOTHING;
    }
    fold_swing(f);
    return FOLD_DONE;
}

/* What FOLD_LACKS asked for. */
static bft_status fold_supply(struct fold *f)
{
    bft_status status = lists_reserve(f->buffer, f->rec, f->records);
    if (status == BFT_OK && f->want > 1)
        status = bfti_rec_buf(f->rec, 2, f->want * BFTI_KEY_MAX);
    while (status == BFT_OK && f->ids + 1 < f->want) {
        status = bfti_id_alloc_split(f->buffer->table, &f->part_id[f->ids + 1]);
        f->ids += status == BFT_OK;
    }
    return status;
}

/* There are no blocks for the leaf's pages.  So others go; and if none can, what it
 * has. */
static bft_status make_room(struct fold *f)
{
    unsigned damaged = 0;
    bool freed = false;
    bft_status status = BFT_OK;
    enum { TRIES = 64 };
    for (int i = 0; status == BFT_OK && !freed && i < TRIES; i++)
        status = bfti_evict_other(f->buffer, f->rec, &damaged, &freed);
    if (status != BFT_OK || freed || !bfti_latch_try(f->entry))
        return status;
    freed = fold_find(f) && empty(f->buffer, f->entry, f->part_id[0], f->word);
    bfti_unlatch(f->buffer->env, f->entry, freed);
    if (freed)
        bfti_count(f->rec, BFTI_N_FORGOTTEN, 1);
    return BFT_OK;
}

static bft_status fold(struct fold *f, unsigned flags, bool *done)
{
    enum { ROUNDS = 8 };
    enum fold_next next = FOLD_LACKS;
    bft_status status = BFT_OK;
    *done = false;
    /* Each round has what the last one lacked; others may have changed the leaf
     * meanwhile, and then it is looked at again another time. */
    for (int i = 0; status == BFT_OK && next == FOLD_LACKS && i < ROUNDS; i++) {
        if (!bfti_latch_briefly(f->entry))
            return BFT_OK;
        next = fold_latched(f);
        if (next == FOLD_TOO_BIG &&
            empty(f->buffer, f->entry, f->part_id[0], f->word))
            bfti_count(f->rec, BFTI_N_FORGOTTEN, 1);
        /* A cursor on what was split off watches this latch's number only. */
        bfti_unlatch(f->buffer->env, f->entry,
                     next == FOLD_TOO_BIG ||
                         (next == FOLD_DONE && f->parts > 1));
        if (next == FOLD_LACKS)
            status = fold_supply(f);
    }
    *done = next == FOLD_DONE;
    if (*done)
        bfti_count(f->rec, BFTI_N_MERGES, 1);
    if (next == FOLD_ROOM && flags & BFTI_MERGE_ROOM)
        status = make_room(f);
    return status;
}

bft_status bfti_fold(struct bfti_buffer *buffer, struct bfti_rec *rec,
                     uint64_t id, unsigned flags, const bft_slice *force,
                     size_t n, bool *done)
{
    struct fold *f = bfti_alloc(buffer->env, sizeof(*f));
    bft_status status;
    *done = false;
    if (!f)
        return bfti_fail(BFT_NO_MEMORY, "no memory to merge a page");
    memset(f, 0, sizeof(*f));
    f->buffer = buffer;
    f->rec = rec;
    f->entry = bfti_table_entry(buffer->table, id);
    f->part_id[0] = id;
    f->force = force;
    f->force_count = n;
    status = fold(f, flags, done);
    for (size_t i = *done ? f->parts : 1; i <= f->ids; i++)
        bfti_id_free(buffer->table, f->part_id[i]);
    bfti_free(buffer->env, f);
    return status;
}

/* --- absorbing ----------------------------------------------------------- */

/* Two neighbours, under the latches of both. */
struct pair {
    struct bfti_buffer *buffer;
    struct bfti_rec *rec;
    uint64_t id[2];
    struct bfti_entry *entry[2];
    uint64_t word[2];
    struct bfti_minipage *page[2];
    size_t records[LISTS]; /* lists for so many */
};

/* Is leaf I of the pair one page, and nothing else? */
static bool is_single(struct pair *p, unsigned i)
{
    p->word[i] = bfti_entry_word(p->entry[i]);
    if (!bfti_word_in_memory(p->word[i]))
        return false;
    p->page[i] = page_at(p->buffer, p->word[i]);
    return atomic_load(&p->page[i]->beneath) == 0 &&
           !bfti_minipage_frozen(p->page[i]) && p->page[i]->page_id == p->id[i];
}

/* The left one is latched: latch the right one, if it can be absorbed. */
static bool latch_right(struct pair *p)
{
    const struct bfti_run *left, *right;
    if (!is_single(p, 0))
        return false;
    left = bfti_minipage_run(p->page[0]);
    p->id[1] = bfti_run_sibling(left);
    if (p->id[1] == 0)
        return false;
    p->entry[1] = bfti_table_entry(p->buffer->table, p->id[1]);
    if (!bfti_latch_try(p->entry[1]))
        return false;
    if (is_single(p, 1)) {
        right = bfti_minipage_run(p->page[1]);
        if (le32_get(right->tree_id) == le32_get(left->tree_id) &&
            bfti_key_compare(bfti_run_low(right), bfti_run_high(left)) == 0)
            return true;
    }
    bfti_unlatch(p->buffer->env, p->entry[1], false);
    return false;
}

/* What both have, and what leaf it makes.  False: the lists are too
 * short, or it is not small: unless one has nothing, half a leaf. */
static bool joint(struct pair *p, struct bfti_run_spec *spec, bool *lacks)
{
    struct bfti_list *left, *right, *both = &p->rec->list[BOTH];
    size_t bytes;
    lists_want(p->records, p->page[0], p->page[1]);
    *lacks = !lists_fit(p->rec, p->records);
    if (*lacks)
        return false;
    left = list_page(p->rec, FIRST, p->page[0]);
    right = list_page(p->rec, SECOND, p->page[1]);
    bfti_list_keep_values(left);
    bfti_list_keep_values(right);
    bfti_list_merge(both, left, right);
    memset(spec, 0, sizeof(*spec));
    spec->view = both->view;
    spec->count = both->count;
    spec->keep = BFTI_KEEP_VALUES;
    spec->low = bfti_run_low(bfti_minipage_run(p->page[0]));
    spec->high = bfti_run_high(bfti_minipage_run(p->page[1]));
    spec->sibling = bfti_run_sibling(bfti_minipage_run(p->page[1]));
    spec->tree_id = le32_get(bfti_minipage_run(p->page[0])->tree_id);
    bytes = bfti_run_size(spec);
    if (left->count == 0 || right->count == 0)
        return bytes <= bfti_page_bytes_max(p->page[0]->leaf_bytes);
    return bytes <= bfti_leaf_run_max(p->page[0]->leaf_bytes) / 2;
}

/* Under both latches: left's word, right's word, release the right, parent.  The
 * caller releases the left. */
static void swing(struct pair *p, uint64_t place, bft_slice key)
{
    struct bfti_buffer *buffer = p->buffer;
    const struct bfti_hooks *hooks = &buffer->hooks;
    uint32_t tree_id = le32_get(bfti_minipage_run(p->page[0])->tree_id);
    bool gone;
    bfti_pool_publish(buffer->pool, place, p->id[0]);
    bfti_entry_set(p->entry[0], place); /* [place] */
    PARK("absorb:left-set");
    bfti_entry_set(p->entry[1], p->id[0]); /* [place] forward */
    bfti_unlatch(buffer->env, p->entry[1], true);
    PARK("absorb:forwarded");
    gone = hooks->absorbed(hooks->ctx, tree_id, key, p->id[1]);
    hooks->end(hooks->ctx, tree_id);
    if (gone)
        bfti_entry_set(p->entry[1], 0); /* [place] */
    bfti_pool_retire(buffer->pool, p->word[0]);
    bfti_pool_retire(buffer->pool, p->word[1]);
    if (gone)
        bfti_id_free(buffer->table, p->id[1]);
}

/* Both are latched; the left one stays so.  False: nothing has changed. */
static bool absorb_latched(struct pair *p, bool *lacks)
{
    const struct bfti_hooks *hooks = &p->buffer->hooks;
    struct bfti_run_spec spec;
    bft_slice key = bfti_run_low(bfti_minipage_run(p->page[1]));
    uint64_t place;
    if (!joint(p, &spec, lacks))
        return false;
    place = build(p->buffer, &spec, p->id[0], p->page[0]->leaf_bytes,
                  spec.count > 0);
    if (place == 0)
        return false;
    PARK("absorb:written");
    if (!hooks->begin(hooks->ctx, p->rec, spec.tree_id, key)) {
        bfti_pool_free(p->buffer->pool, place);
        return false;
    }
    swing(p, place, key);
    return true;
}

/* *LACKS: longer lists are needed. */
static bool absorb_once(struct pair *p, bool *lacks)
{
    const struct bfti_env *env = p->buffer->env;
    bool done = false;
    *lacks = false;
    if (!bfti_latch_try(p->entry[0]))
        return false;
    if (latch_right(p)) {
        done = absorb_latched(p, lacks);
        if (!done)
            bfti_unlatch(env, p->entry[1], false);
    }
    bfti_unlatch(env, p->entry[0], done);
    return done;
}

bft_status bfti_absorb_pages(struct bfti_buffer *buffer, struct bfti_rec *rec,
                             uint64_t left, bool *done)
{
    struct pair p = {.buffer = buffer, .rec = rec, .id = {left, 0}};
    bft_status status = BFT_OK;
    bool lacks;
    p.entry[0] = bfti_table_entry(buffer->table, left);
    *done = absorb_once(&p, &lacks);
    if (lacks) {
        status = lists_reserve(buffer, rec, p.records);
        if (status == BFT_OK)
            *done = absorb_once(&p, &lacks);
    }
    if (*done)
        bfti_count(rec, BFTI_N_LEAF_MERGES, 1);
    return status;
}

bool bfti_absorb_around(struct bfti_buffer *buffer, struct bfti_rec *rec,
                        uint64_t id)
{
    const struct bfti_hooks *hooks = &buffer->hooks;
    uint8_t low[BFTI_KEY_MAX];
    bft_slice key = {low, 0};
    uint64_t left = 0;
    uint32_t tree_id;
    bool done = false;
    if (!bfti_leaf_begin(buffer, rec, id, low, &key.len, &tree_id))
        return false;
    if (key.len)
        left = hooks->before(hooks->ctx, rec, tree_id, key);
    /* Without memory, or where others are at work, it stays as it is until the
     * clock comes round. */
    if (left)
        (void)(bfti_absorb_pages(buffer, rec, left, &done) == BFT_OK);
    if (!done)
        (void)(bfti_absorb_pages(buffer, rec, id, &done) == BFT_OK);
    return done;
}
