/*
 * Reading one leaf without latch: find it, name what it consists of in hazard
 * slots, search from the newest part down.  The rule everywhere: name a place,
 * read again whatever led there, believe it only if nothing changed.
 */
#include "engine.h"

/* --- finding ------------------------------------------------------------- */

static bft_status descend(struct bfti_tree *tree, struct bfti_rec *rec,
                          bft_slice key, bool before, uint64_t *id)
{
    /* Ends: after each round the leaf's node is in memory, or was. */
    for (;;) {
        struct bfti_inner *root;
        bft_status status;
        *id = BFTI_PAGE_ID_NONE;
        bfti_read_begin(rec);
        root = bfti_tree_root(tree); /* [root] */
        if (root)
            *id = before ? bfti_inner_find_before(root, key)
                         : bfti_inner_find(root, key);
        bfti_read_end(rec);
        if (!root)
            return bfti_fail(BFT_GONE, "tree %s was dropped", tree->name);
        if (*id != BFTI_PAGE_ID_NONE)
            return BFT_OK;
        status = bfti_node_load(tree, rec, key, before);
        if (status != BFT_OK)
            return status;
    }
}

/* So much of a page is fetched ahead of its search: its head and most slots. */
enum { LINE = 64, PAGE_LINES = 6, WRITE_LINES = 8 };
enum {
    ANNOUNCED_MAX = BFTI_ADVISED_MAX, /* leaves, for a scan that goes on */
    FETCH_SHARE = 64,  /* of the budget: what is read ahead at a time */
    THREADS_SHARE = 4, /* what threads have, and may still read ahead */
};

/* Find the leaves of KEYS.  *AWAY: how many have their node not in memory.  False:
 * the tree was dropped. */
static bool find_leaves(struct bfti_tree *tree, struct bfti_rec *rec,
                        const bft_slice *keys, size_t n, uint64_t *ids,
                        size_t *away)
{
    struct bfti_table *table = tree->engine->buffer.table;
    struct bfti_inner *root;
    *away = 0;
    bfti_read_begin(rec);
    root = bfti_tree_root(tree); /* [root] */
    for (size_t i = 0; root && i < n; i++) {
        ids[i] = bfti_inner_find(root, keys[i]);
        *away += ids[i] == BFTI_PAGE_ID_NONE;
        __builtin_prefetch(bfti_table_entry(table, ids[i]));
    }
    bfti_read_end(rec);
    return root != NULL;
}

/* Read the nodes that were away: what fails now fails again where it is told. */
static void load_away(struct bfti_tree *tree, struct bfti_rec *rec,
                      const bft_slice *keys, size_t n, const uint64_t *ids)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] == BFTI_PAGE_ID_NONE &&
            bfti_node_load(tree, rec, keys[i], false) != BFT_OK)
            return;
}

/* Begin to fetch the first LINES of what leaf ID has in memory.  Not named: the
 * block may be another page's by now, or none's.  It is the pool's, and nothing of
 * it is believed. */
static void fetch_lines(struct bfti_buffer *buffer, uint64_t id, unsigned lines)
{
    uint64_t word = bfti_entry_word(bfti_table_entry(buffer->table, id));
    for (unsigned at = 0; bfti_word_in_memory(word) && at < lines; at++)
        __builtin_prefetch((const char *)bfti_page_at(buffer, word) +
                           (size_t)LINE * at);
}

bool bfti_leaf_look_ahead(struct bfti_tree *tree, struct bfti_rec *rec,
                          const bft_slice *keys, size_t n, uint64_t *ids)
{
    struct bfti_buffer *buffer = &tree->engine->buffer;
    size_t away;
    bool there = find_leaves(tree, rec, keys, n, ids, &away);
    if (there && away) {
        load_away(tree, rec, keys, n, ids);
        there = find_leaves(tree, rec, keys, n, ids, &away);
    }
    for (size_t i = 0; there && i < n; i++)
        fetch_lines(buffer, ids[i], PAGE_LINES);
    return there;
}

void bfti_leaf_look_ahead_latched(struct bfti_tree *tree, struct bfti_rec *rec,
                                  const bft_slice *keys, size_t n)
{
    uint64_t ids[BFTI_LOOK_AHEAD];
    size_t away;
    if (!find_leaves(tree, rec, keys, n, ids, &away))
        return;
    for (size_t i = 0; i < n; i++)
        if (ids[i] != BFTI_PAGE_ID_NONE)
            fetch_lines(&tree->engine->buffer, ids[i], WRITE_LINES);
}

void bfti_leaf_announce(struct bfti_engine *engine, struct bfti_rec *rec,
                        const uint64_t *ids, size_t n)
{
    struct bfti_buffer *buffer = &engine->buffer;
    uint64_t place[ANNOUNCED_MAX];
    size_t count = 0;
    for (size_t i = 0; rec->awaited && i < n; i++) {
        bool fetched;
        uint64_t head = bfti_ahead_head(buffer, rec, ids[i], &fetched);
        if (head && !fetched)
            place[count++] = bfti_word_extent(head);
        if (count == ANNOUNCED_MAX || i + 1 == n) {
            bfti_extents_advise(buffer->pf, place, count);
            count = 0;
        }
    }
}

size_t bfti_fetch_bytes(const struct bfti_engine *engine,
                        const struct bfti_rec *rec)
{
    uint64_t budget = engine->options.memory_bytes;
    if (!rec->awaited || !bfti_extents_overlap(engine->buffer.pf))
        return 0;
    if (bfti_threads_bytes(engine->buffer.threads) > budget / THREADS_SHARE)
        return 0;
    return budget / FETCH_SHARE < BFTI_AHEAD_BYTES
               ? (size_t)(budget / FETCH_SHARE)
               : BFTI_AHEAD_BYTES;
}

size_t bfti_leaf_fetch(struct bfti_engine *engine, struct bfti_rec *rec,
                       const void *owner, const uint64_t *ids, size_t n)
{
    size_t bytes = bfti_fetch_bytes(engine, rec);
    return bytes ? bfti_ahead_read(&engine->buffer, rec, owner, ids, n, bytes)
                 : 0;
}

/* The leaf of KEY and those after it, or BACK before it, up to that of BOUND, N at
 * most. */
static size_t leaves_from(struct bfti_tree *tree, struct bfti_rec *rec,
                          bft_slice key, bool back, bft_slice bound,
                          uint64_t *ids, size_t n)
{
    struct bfti_inner *root;
    uint64_t last = BFTI_PAGE_ID_NONE;
    size_t found = 0, i = 0;
    bfti_read_begin(rec);
    root = bfti_tree_root(tree); /* [root] */
    if (root)
        ids[found++] = back ? bfti_inner_find_before(root, key)
                            : bfti_inner_find(root, key);
    if (found && ids[0] == BFTI_PAGE_ID_NONE)
        found = 0;
    if (found && bound.len)
        last = bfti_inner_find(root, bound);
    if (found)
        found += bfti_inner_following(root, key, back, ids + 1, n - 1);
    bfti_read_end(rec);
    while (i < found && ids[i] != last)
        i++;
    return i < found ? i + 1 : found;
}

/* Must something be read for leaf ID that was not read ahead? */
static bool is_to_be_read(struct bfti_tree *tree, struct bfti_rec *rec,
                          uint64_t id)
{
    bool fetched;
    return bfti_ahead_head(&tree->engine->buffer, rec, id, &fetched) &&
           !fetched;
}

size_t bfti_leaf_expect(struct bfti_tree *tree, struct bfti_rec *rec,
                        const void *owner, bft_slice key, bool back,
                        bft_slice bound, size_t leaves, bool further)
{
    bool together = bfti_extents_overlap(tree->engine->buffer.pf);
    uint64_t ids[2 * BFTI_AHEAD];
    size_t n, read = 1;
    if (!rec->awaited || leaves == 0)
        return 0;
    if (leaves > BFTI_AHEAD - 1)
        leaves = BFTI_AHEAD - 1;
    n = leaves_from(tree, rec, key, back, bound, ids,
                    together && further ? 2 * (leaves + 1) : leaves + 1);
    if (n < 2)
        return 0;
    if (together) {
        if (!is_to_be_read(tree, rec, ids[0]))
            return 0;
        read = bfti_leaf_fetch(tree->engine, rec, owner, ids,
                               n < leaves + 1 ? n : leaves + 1);
        if (read == 0)
            return 0;
    }
    /* What is not read together comes while the first is waited for, and gone
     * through, where there is a cache that it can come to. */
    bfti_leaf_announce(tree->engine, rec, ids + read, n - read);
    return together ? read - 1 : n - 1;
}

size_t bfti_leaf_expect_on(struct bfti_tree *tree, struct bfti_rec *rec,
                           bft_slice key, bool back, bft_slice bound,
                           size_t ahead)
{
    uint64_t ids[ANNOUNCED_MAX];
    size_t n;
    if (!rec->awaited || ahead > ANNOUNCED_MAX / 2 ||
        bfti_extents_overlap(tree->engine->buffer.pf))
        return ahead;
    n = leaves_from(tree, rec, key, back, bound, ids, ANNOUNCED_MAX);
    if (n <= ahead + 1)
        return ahead;
    bfti_leaf_announce(tree->engine, rec, ids + ahead + 1, n - ahead - 1);
    return n - 1;
}

static bool batch_pending(const struct bfti_reader *r)
{
    return r->pending && atomic_load(r->pending_word) == r->pending;
}

bool bfti_reader_still(void *arg)
{
    const struct bfti_reader *r = arg;
    if (bfti_entry_word(r->entry) != r->word)
        return false;
    if (r->pending && !batch_pending(r))
        return false;
    for (unsigned i = 0; i < r->pages; i++) {
        uint64_t beneath = i + 1 < r->pages ? r->place[i + 1] : r->head;
        if (atomic_load(&r->page[i]->beneath) != beneath)
            return false;
    }
    return true;
}

enum arrival { ARRIVED, MOVED_ON, CHANGED, TOO_FAR, AGAIN };

/* Is the leaf that RUN belongs to the one that holds KEY? */
static enum arrival arrive(const struct bfti_reader *r,
                           const struct bfti_run *run, bft_slice key,
                           bool before)
{
    bft_slice low = bfti_run_low(run), high = bfti_run_high(run);
    if (le32_get(run->tree_id) != r->tree->id)
        return AGAIN;
    if (!before) {
        int side = bfti_run_range(run, key);
        return side < 0 ? AGAIN : side > 0 ? TOO_FAR : ARRIVED;
    }
    /* Keys just below KEY: low < KEY <= high. */
    if (key.len == 0)
        return high.len == 0 ? ARRIVED : TOO_FAR;
    if (low.len && bfti_key_compare(key, low) <= 0)
        return AGAIN;
    if (high.len && bfti_key_compare(key, high) > 0)
        return TOO_FAR;
    return ARRIVED;
}

/* Name the page at PLACE as the next of the chain, in SLOT. */
static void chain_add(struct bfti_reader *r, uint64_t place)
{
    r->place[r->pages] = place;
    r->page[r->pages] = bfti_page_at(&r->tree->engine->buffer, place);
    r->pages++;
}

/* From the word on: name all pages in memory.  ARRIVED: the chain is whole, and
 * the leaf may still be the wrong one. */
static enum arrival name_chain(struct bfti_reader *r)
{
    static const unsigned slot[] = {BFTI_HAZARD_FROZEN, BFTI_HAZARD_SPARE};
    uint64_t beneath;
    unsigned used = 0;

    r->pages = 0;
    r->pending = 0;
    r->head = 0;
    r->disk.count = 0;
    if (bfti_word_on_disk(r->word)) {
        r->head = r->word;
        return ARRIVED;
    }
    bfti_hazard_set(r->rec, BFTI_HAZARD_TOP, r->word);
    if (bfti_entry_word(r->entry) != r->word)
        return AGAIN;
    chain_add(r, r->word);
    r->pending = atomic_load(&r->page[0]->batch); /* [batch] */
    if (r->pending) {
        r->pending_word = atomic_load(&r->page[0]->batch_word);
        if (atomic_load(&r->page[0]->tail_before) == BFTI_TAIL_NONE &&
            batch_pending(r)) {
            /* What was there before the batch is what counts. */
            beneath = r->page[0]->previous;
            r->pages = 0;
            if (bfti_word_on_disk(beneath)) {
                r->head = beneath;
                return ARRIVED;
            }
            bfti_hazard_set(r->rec, slot[used++], beneath);
            if (bfti_entry_word(r->entry) != r->word || !batch_pending(r))
                return AGAIN;
            chain_add(r, beneath);
        } else {
            r->pending = 0;
        }
    }
    beneath = atomic_load(&r->page[0]->beneath); /* [beneath] */
    if (bfti_word_in_memory(beneath)) {
        bfti_hazard_set(r->rec, slot[used], beneath);
        r->head = beneath; /* for still: what the last page names */
        if (!bfti_reader_still(r))
            return AGAIN;
        chain_add(r, beneath);
        beneath = atomic_load(&r->page[1]->beneath);
    }
    r->head = beneath;
    return ARRIVED;
}

const struct bfti_run *bfti_reader_run(const struct bfti_reader *r)
{
    return r->pages ? bfti_minipage_run(r->page[0]) : r->disk.run[0];
}

bft_status bfti_reader_disk(struct bfti_reader *r, bool *stable)
{
    bft_status status;
    *stable = true;
    if (r->disk.count || r->head == 0)
        return BFT_OK;
    r->disk.above = r->pages ? bfti_minipage_run(r->page[0]) : NULL;
    status = bfti_disk_read(&r->tree->engine->buffer, r->rec, r->head, 0, r->id,
                            bfti_reader_still, r, false, stable, &r->disk);
    if (status != BFT_OK || !*stable)
        r->disk.count = 0;
    return status == BFT_CORRUPT ? bfti_reader_blame(r, status) : status;
}

bft_status bfti_reader_blame(const struct bfti_reader *r, bft_status status)
{
    return bfti_fail_in(status, "page %llu of tree %s",
                        (unsigned long long)r->id, r->tree->name);
}

/* Does a filter say that HEAD, which R found beneath the pages, has not KEY?  Then
 * it is named like what is read. */
static bool ask_filter(struct bfti_reader *r, bft_slice key)
{
    bfti_hazard_set(r->rec, BFTI_HAZARD_EXTENT, bfti_word_extent(r->head));
    PARK("read:filter-named");
    r->lacks = bfti_reader_still(r) &&
               bfti_filters_lack(r->tree->engine->buffer.filters, r->head, key);
    return r->lacks;
}

/* The same of a leaf that has nothing in memory.  Nothing says then that it is
 * KEY's but that the inner nodes led to it, while they told the truth. */
static bool ask_cold(struct bfti_reader *r, bft_slice key)
{
    if (!r->asks || !bfti_word_on_disk(r->word) || !ask_filter(r, key))
        return false;
    r->lacks = bfti_tree_leads_right(r->tree, r->structure) ||
               bfti_fault_on(BFTI_FAULT_FILTERS_ASTRAY);
    return r->lacks;
}

/* Look at leaf r->id.  ARRIVED: it is the one, or *STATUS is a failure;
 * MOVED_ON: r->id is the next to look at; CHANGED: it is to be looked at again;
 * AGAIN: to be found again.  FIRST: the inner nodes led to it. */
static enum arrival look(struct bfti_reader *r, bft_slice key, bool before,
                         bool first, bft_status *status)
{
    enum arrival where;
    bool stable;
    *status = BFT_OK;
    r->entry = bfti_table_entry(r->tree->engine->buffer.table, r->id);
    PARK("read:leaf-chosen");
    r->word = bfti_entry_word(r->entry);
    if (r->word == 0)
        return AGAIN;
    if (bfti_word_forwards(r->word)) {
        r->id = r->word; /* absorbed: go where it says */
        return MOVED_ON;
    }
    where = name_chain(r);
    PARK("read:named");
    if (where == AGAIN)
        return CHANGED;
    if (r->pages == 0) { /* its fences are on disk */
        if (first && ask_cold(r, key))
            return ARRIVED;
        *status = bfti_reader_disk(r, &stable);
        if (*status != BFT_OK && bfti_reader_still(r))
            return ARRIVED;
        if (*status != BFT_OK || !stable) {
            *status = BFT_OK;
            return CHANGED;
        }
    }
    where = arrive(r, bfti_reader_run(r), key, before);
    if (where != TOO_FAR)
        return where;
    r->id = bfti_run_sibling(bfti_reader_run(r));
    return r->id ? MOVED_ON : AGAIN;
}

static bool is_complete(const struct bfti_reader *r)
{
    return r->head == 0 ||
           (r->pages && (r->page[r->pages - 1]->flags & BFTI_PAGE_COMPLETE));
}

bft_status bfti_leaf_astray(const struct bfti_tree *tree, uint64_t id)
{
    const struct bfti_engine *engine = tree->engine;
    uint32_t failed = atomic_load(&engine->failed);
    if (failed) /* the inner nodes may never tell where the key belongs */
        return bfti_fail((bft_status)(-(int)failed),
                         "%s: an earlier failure left tree %s without way to "
                         "the key: close and reopen it",
                         engine->path, tree->name);
    return bfti_fail(BFT_CORRUPT,
                     "page %llu of tree %s: %s: it is not the leaf that the "
                     "inner nodes take it for",
                     (unsigned long long)id, tree->name, engine->path);
}

bool bfti_leaf_leads(struct bfti_tree *tree, struct bfti_rec *rec,
                     bft_slice key, bool before, uint64_t id)
{
    struct bfti_inner *root;
    bool leads;
    bfti_read_begin(rec);
    root = bfti_tree_root(tree); /* [root] */
    leads = root && id == (before ? bfti_inner_find_before(root, key)
                                  : bfti_inner_find(root, key));
    bfti_read_end(rec);
    return leads;
}

/* Is leaf ID, to which the tree leads for KEY and which R found not to be KEY's,
 * one that nobody is at work on who could mend that?  README.md, 6. */
static bool is_astray(struct bfti_reader *r, uint64_t id, bft_slice key,
                      bool before)
{
    /* [seq], [latch] Nobody has the latch now, and nobody who changed something
     * had it between here and the end, if the number is the same then.  First
     * the number and then the latch, at the end the other way round: who lets go
     * counts before. */
    uint32_t seq = atomic_load(&r->entry->seq);
    if (atomic_load(&r->entry->latch) != 0 || bfti_word_forwards(r->word) ||
        !bfti_leaf_leads(r->tree, r->rec, key, before, id))
        return false;
    if (bfti_entry_word(r->entry) != r->word ||
        (r->word && !bfti_reader_still(r)))
        return false;
    return atomic_load(&r->entry->latch) == 0 &&
           atomic_load(&r->entry->seq) == seq;
}

/* Each round goes twice as far as the one before it: where an earlier failure kept
 * a split from the inner nodes KEY is to the right of where they lead, perhaps far.
 * So only after ROUNDS_FAILED rounds it is not to be found there. */
enum { HOPS = 8, ROUNDS_FAILED = 12 };

/* Find the leaf, look at it, and at those that it leads to. */
static enum arrival open_round(struct bfti_reader *r, bft_slice key,
                               bool before, unsigned round, bft_status *status)
{
    const struct bfti_engine *engine = r->tree->engine;
    bool far = round >= ROUNDS_FAILED;
    unsigned hops = (unsigned)HOPS << (far ? ROUNDS_FAILED : round);
    enum arrival where = CHANGED;
    uint64_t id;
    r->structure = atomic_load(&r->tree->structure); /* [structure] */
    *status = descend(r->tree, r->rec, key, before, &r->id);
    id = r->id;
    for (unsigned i = 0; *status == BFT_OK && i < hops; i++) {
        where = look(r, key, before, i == 0, status);
        if (*status != BFT_OK || where == ARRIVED)
            break;
        /* A failure is known before the latch is let go: so it is asked last. */
        if (i == 0 && where != CHANGED && is_astray(r, id, key, before) &&
            (far || atomic_load(&engine->failed) == 0))
            *status = bfti_leaf_astray(r->tree, id);
        if (where == AGAIN)
            break;
    }
    return where;
}

static bft_status open_leaf(struct bfti_reader *r, struct bfti_tree *tree,
                            struct bfti_rec *rec, bft_slice key, bool before,
                            bool asks)
{
    enum arrival where;
    r->tree = tree;
    r->rec = rec;
    r->asks = asks;
    r->lacks = r->fresh = false;
    /* Ends: each round follows a change that another thread has completed or is
     * at, or goes further than the last; what else leads astray is told. */
    for (unsigned round = 0;; round++) {
        bft_status status;
        where = open_round(r, key, before, round, &status);
        if (status != BFT_OK) {
            bfti_reader_close(r);
            return status;
        }
        if (where == ARRIVED)
            break;
    }
    r->complete = is_complete(r);
    return BFT_OK;
}

bft_status bfti_reader_open(struct bfti_reader *r, struct bfti_tree *tree,
                            struct bfti_rec *rec, bft_slice key, bool before)
{
    return open_leaf(r, tree, rec, key, before, false);
}

bool bfti_leaf_lacks(struct bfti_tree *tree, struct bfti_rec *rec,
                     bft_slice key, uint64_t id, uint64_t structure)
{
    struct bfti_reader r = {.tree = tree,
                            .rec = rec,
                            .id = id,
                            .asks = true,
                            .structure = structure};
    bool lacks;
    if (id == BFTI_PAGE_ID_NONE)
        return false;
    r.entry = bfti_table_entry(tree->engine->buffer.table, id);
    r.word = r.head = bfti_entry_word(r.entry);
    lacks = ask_cold(&r, key);
    bfti_reader_close(&r);
    if (lacks)
        bfti_count(rec, BFTI_N_FILTERED, 1);
    return lacks;
}

bool bfti_reader_open_cached(struct bfti_reader *r, struct bfti_tree *tree,
                             struct bfti_rec *rec, bft_slice key, uint64_t id)
{
    r->tree = tree;
    r->rec = rec;
    r->id = id;
    r->asks = r->lacks = r->fresh = false;
    r->entry = bfti_table_entry(tree->engine->buffer.table, id);
    r->word = bfti_entry_word(r->entry);
    if (bfti_word_in_memory(r->word) && name_chain(r) == ARRIVED && r->pages &&
        arrive(r, bfti_reader_run(r), key, false) == ARRIVED) {
        r->complete = is_complete(r);
        return true;
    }
    bfti_reader_close(r);
    return false;
}

void bfti_reader_touch(const struct bfti_reader *r)
{
    if (r->pages)
        bfti_pool_touch(r->tree->engine->buffer.pool, r->place[0]);
}

void bfti_reader_close(struct bfti_reader *r)
{
    for (unsigned i = 0; i < BFTI_HAZARDS; i++)
        bfti_hazard_clear(r->rec, i);
}

void bfti_reader_at(struct bfti_reader *r, struct bfti_tree *tree,
                    struct bfti_rec *rec, uint64_t id)
{
    r->tree = tree;
    r->rec = rec;
    r->id = id;
    r->asks = r->lacks = r->fresh = false;
    r->entry = bfti_table_entry(tree->engine->buffer.table, id);
    do {
        r->word = bfti_entry_word(r->entry);
        r->pages = 0;
        r->pending = 0;
        r->head = 0;
        r->disk.count = 0;
        r->complete = true;
        if (bfti_place_tag(r->word) == BFTI_TAG_NONE)
            return;
    } while (name_chain(r) == AGAIN);
    r->complete = r->head == 0;
}

/* --- searching ----------------------------------------------------------- */

static bool find_in_run(const struct bfti_run *run, bft_slice key,
                        struct bfti_view *view)
{
    bool found;
    unsigned i = bfti_run_search(run, key, &found);
    if (found)
        *view = bfti_run_view(run, i);
    return found;
}

bool bfti_reader_find_cached(struct bfti_reader *r, bft_slice key, bool *found,
                             struct bfti_view *view)
{
    bool hit = false;
    *found = false;
    for (unsigned i = 0; !hit && i < r->pages; i++)
        hit = bfti_minipage_find(r->page[i], key, view);
    if (!hit && !r->complete) {
        if (r->pages ? !ask_filter(r, key) : !r->lacks)
            return false;
        bfti_reader_touch(r);
        bfti_count(r->rec, BFTI_N_FILTERED, 1);
        return true;
    }
    bfti_reader_touch(r);
    bfti_count(r->rec, BFTI_N_HITS, 1);
    *found = hit && bfti_op_has_value(view->op);
    return true;
}

/* KEY was not in the content that R has read. */
static void add_filter(struct bfti_reader *r, bft_slice key)
{
    struct bfti_filters *filters = r->tree->engine->buffer.filters;
    r->fresh = bfti_filters_add(filters, r->head, &r->disk) &&
               bfti_filters_lack(filters, r->head, key);
}

bft_status bfti_reader_find(struct bfti_reader *r, bft_slice key, bool *found,
                            struct bfti_view *view, bool *stable)
{
    bool hit = false;
    bft_status status;
    *stable = true;
    if (bfti_reader_find_cached(r, key, found, view))
        return BFT_OK;
    status = bfti_reader_disk(r, stable);
    if (status != BFT_OK) { /* or did the leaf move while we read? */
        *stable = bfti_reader_still(r);
        return *stable ? status : BFT_OK;
    }
    if (!*stable)
        return BFT_OK;
    bfti_count(r->rec, BFTI_N_MISSES, 1);
    for (unsigned i = 0; !hit && i < r->disk.count; i++)
        hit = find_in_run(r->disk.run[i], key, view);
    *found = hit && bfti_op_has_value(view->op);
    if (!*found)
        add_filter(r, key);
    return BFT_OK;
}

bft_status bfti_leaf_find(struct bfti_reader *r, struct bfti_tree *tree,
                          struct bfti_rec *rec, bft_slice key, bool *found,
                          struct bfti_view *view)
{
    bool stable = false;
    *found = false;
    /* Ends: a round is repeated only after another thread changed the leaf. */
    while (!stable) {
        bft_status status = open_leaf(r, tree, rec, key, false, true);
        if (status != BFT_OK)
            return status;
        status = bfti_reader_find(r, key, found, view, &stable);
        if (status != BFT_OK) {
            bfti_reader_close(r);
            return status;
        }
    }
    return BFT_OK;
}
