/*
 * Writing one leaf, or several at once.  Under the latch: make room in memory
 * reserved beforehand, log, publish.  No I/O and no wait inside.
 */
#include "snapshot.h"
#include "tomb.h"

#include <assert.h>

enum { LATCH_WAIT_NS = 5 * 1000 * 1000, AT_ONCE_NS = 50 * 1000 };
/* Tail room of a page that is built anew.  That of a tree's last leaf, where ids
 * and times grow, gets all that a tail may have: there is one in a tree. */
enum { TAIL_RECORDS = 6, TAIL_RECORDS_LAST = BFTI_TAIL_MAX };

void bfti_writer_begin(struct bfti_writer *w, struct bfti_tree *tree,
                       struct bfti_rec *rec)
{
    w->tree = tree;
    w->rec = rec;
    w->entry = NULL;
    w->reserve = 0;
    w->low_len = w->high_len = 0;
    w->sibling = 0;
    w->latched = false;
    w->at_once = false;
    w->is_away = false;
}

static struct bfti_buffer *buffer_of(const struct bfti_writer *w)
{
    return &w->tree->engine->buffer;
}

void bfti_writer_end(struct bfti_writer *w)
{
    if (w->reserve)
        bfti_pool_free(buffer_of(w)->pool, w->reserve);
    w->reserve = 0;
}

void bfti_writer_unlatch(struct bfti_writer *w, bool changed)
{
    bfti_unlatch(w->tree->engine->env, w->entry, changed);
    w->entry = NULL;
}

/* The latched leaf's page, or NULL when it is on disk. */
static struct bfti_minipage *top_of(const struct bfti_writer *w)
{
    uint64_t word = bfti_entry_word(w->entry);
    return bfti_word_in_memory(word) ? bfti_page_at(buffer_of(w), word) : NULL;
}

/* The node of KEY has no content in memory. */
static void note_away(struct bfti_writer *w, bft_slice key)
{
    w->away_len = (uint16_t)key.len;
    if (key.len)
        memcpy(w->away, key.data, key.len);
    w->is_away = true;
}

/* Under the latch, which a splitter or absorber holds until the parent is
 * changed, the inner nodes tell a leaf's exact range, and its neighbour.  False:
 * KEY is another leaf's, or they are away. */
static bool range_of(struct bfti_writer *w, bft_slice key)
{
    uint64_t id = 0;
    struct bfti_inner *root;
    w->sibling = 0;
    bfti_read_begin(w->rec);
    root = bfti_tree_root(w->tree); /* [root] */
    if (root)
        id = bfti_inner_range(root, key, w->low, &w->low_len, w->high,
                              &w->high_len);
    if (root && id == BFTI_PAGE_ID_NONE)
        note_away(w, key); /* gone since the leaf was chosen */
    if (id == w->id && w->high_len) {
        bft_slice high = {w->high, w->high_len};
        w->sibling = bfti_inner_find(root, high);
        if (w->sibling == BFTI_PAGE_ID_NONE)
            note_away(w, high);
    }
    bfti_read_end(w->rec);
    return id == w->id && !w->is_away;
}

/* The leaf of KEY, by the inner nodes.  False: the tree is gone. */
static bool choose_leaf(struct bfti_writer *w, bft_slice key)
{
    struct bfti_inner *root;
    bfti_read_begin(w->rec);
    root = bfti_tree_root(w->tree); /* [root] */
    w->id = root ? bfti_inner_find(root, key) : BFTI_PAGE_ID_NONE;
    bfti_read_end(w->rec);
    if (root && w->id == BFTI_PAGE_ID_NONE)
        note_away(w, key);
    return root != NULL;
}

/* Under the latch: is it the leaf of KEY? */
static bool is_leaf_of(struct bfti_writer *w, bft_slice key)
{
    const struct bfti_minipage *page = top_of(w);
    const struct bfti_run *run;
    if (!page) /* what failed to tell the inner nodes said so before it let go */
        return bfti_word_on_disk(bfti_entry_word(w->entry)) &&
               !atomic_load(&w->tree->engine->failed) && range_of(w, key);
    run = bfti_minipage_run(page);
    /* The root may have gone while we waited: who takes it under all latches
     * has nobody write behind its back (bulk.c). */
    return page->page_id == w->id && le32_get(run->tree_id) == w->tree->id &&
           bfti_run_range(run, key) == 0 && bfti_tree_root(w->tree);
}

/* Under the latch of a leaf that is not KEY's: do the inner nodes lead there all
 * the same, and not until an absorber tells them?  Or may they, for ever? */
static bool is_astray(const struct bfti_writer *w, bft_slice key)
{
    if (w->is_away)
        return false;
    return atomic_load(&w->tree->engine->failed) ||
           (!bfti_word_forwards(bfti_entry_word(w->entry)) &&
            bfti_leaf_leads(w->tree, w->rec, key, false, w->id));
}

/* One attempt.  No entry: look again. */
static bft_status try_latch(struct bfti_writer *w, bft_slice key)
{
    struct bfti_engine *engine = w->tree->engine;
    bool astray;
    w->entry = NULL;
    w->is_away = false;
    if (!choose_leaf(w, key))
        return bfti_fail(BFT_GONE, "tree %s was dropped", w->tree->name);
    if (w->is_away)
        return BFT_OK;
    w->entry = bfti_table_entry(engine->buffer.table, w->id);
    PARK("write:leaf-chosen");
    /* Not for long without another look which leaf it is: of a batch, which
     * holds latches, one that has become a leaf elsewhere meanwhile may come
     * before those, and its holder wait for us. */
    if (!bfti_latch_within(engine->env, w->entry,
                           w->at_once ? AT_ONCE_NS : LATCH_WAIT_NS)) {
        w->entry = NULL;
        return w->at_once ? BFT_BUSY : BFT_OK;
    }
    if (is_leaf_of(w, key))
        return BFT_OK;
    PARK("write:leaf-missed");
    astray = is_astray(w, key);
    bfti_writer_unlatch(w, false);
    return astray ? bfti_leaf_astray(w->tree, w->id) : BFT_OK;
}

bft_status bfti_writer_load(struct bfti_writer *w)
{
    bft_slice away = {w->away, w->away_len};
    return bfti_node_load(w->tree, w->rec, away, false);
}

bft_status bfti_writer_latch(struct bfti_writer *w, bft_slice key)
{
    struct bfti_engine *engine = w->tree->engine;
    bool kept = false;
    bft_status status = try_latch(w, key);
    /* Ends: each round follows a change that another thread completed, or one
     * that failed, or has a node more in memory; what else leads astray is told. */
    while (status == BFT_OK && !w->entry && !(w->is_away && w->latched)) {
        if (w->is_away) {
            bfti_nodes_keep(engine, &kept); /* two may be needed at once */
            status = bfti_writer_load(w);
        }
        if (status == BFT_OK)
            status = try_latch(w, key);
    }
    bfti_nodes_release(engine, &kept);
    return status;
}

bft_slice bfti_writer_low(const struct bfti_writer *w)
{
    struct bfti_minipage *page = top_of(w);
    bft_slice low = {w->low, w->low_len};
    return page ? bfti_run_low(bfti_minipage_run(page)) : low;
}

bft_slice bfti_writer_high(const struct bfti_writer *w)
{
    struct bfti_minipage *page = top_of(w);
    bft_slice high = {w->high, w->high_len};
    return page ? bfti_run_high(bfti_minipage_run(page)) : high;
}

/* The right neighbour of a leaf on disk: by the tree, exact under the latch. */
uint64_t bfti_writer_sibling(const struct bfti_writer *w)
{
    const struct bfti_minipage *page = top_of(w);
    return page ? bfti_run_sibling(bfti_minipage_run(page)) : w->sibling;
}

/* --- making room --------------------------------------------------------- */

enum { WRITER_LISTS = 3 }; /* of the thread's that building a page takes */

bool bfti_writer_lists_fit(struct bfti_writer *w,
                           const struct bfti_minipage *page, size_t more)
{
    const struct bfti_list *list = w->rec->list;
    unsigned tail = page ? bfti_minipage_tail(page) : 0;
    bool fit = true;
    /* Each of the new records supersedes one of the page at most. */
    w->records = more + (page ? bfti_minipage_records(page, tail) : 0);
    w->dead = page ? bfti_minipage_dead_max(page, tail) : 0;
    for (unsigned i = 0; i < WRITER_LISTS; i++)
        fit = fit && bfti_list_fits(&list[i], w->records, w->dead);
    return fit;
}

bft_status bfti_writer_lists(const struct bfti_writer *w)
{
    bft_status status = BFT_OK;
    /* Somewhat more: the page may have grown when we are back. */
    for (unsigned i = 0; status == BFT_OK && i < WRITER_LISTS; i++)
        status = bfti_list_reserve(w->tree->engine->env, &w->rec->list[i],
                                   w->records + w->records / 8 + 8,
                                   w->dead + w->dead / 8);
    return status;
}

/* Take the reserve if it has UNITS. */
static uint64_t take_reserve(struct bfti_writer *w, unsigned units)
{
    uint64_t place = w->reserve;
    if (place == 0 || bfti_memory_units(place) < units)
        return 0;
    w->reserve = 0;
    return place;
}

/* A reserve of UNITS, outside the latch. */
static bft_status reserve(struct bfti_writer *w, unsigned units)
{
    bfti_writer_end(w);
    return bfti_buffer_alloc(buffer_of(w), w->rec, units, &w->reserve);
}

static void spec_fences(const struct bfti_writer *w, struct bfti_run_spec *spec)
{
    memset(spec, 0, sizeof(*spec));
    spec->low = bfti_writer_low(w);
    spec->high = bfti_writer_high(w);
    spec->sibling = bfti_writer_sibling(w);
    spec->tree_id = w->tree->id;
    spec->keep = BFTI_KEEP_ALL;
}

/* Put a page built from SPEC into the leaf's word; REPLACED (0: none) goes. */
static void install(struct bfti_writer *w, uint64_t place,
                    const struct bfti_run_spec *spec, uint16_t flags,
                    uint64_t beneath, uint64_t replaced)
{
    struct bfti_buffer *buffer = buffer_of(w);
    struct bfti_minipage *page = bfti_page_at(buffer, place);
    bfti_minipage_build(page, bfti_memory_bytes(place), spec, w->id, flags,
                        beneath);
    page->leaf_bytes = w->tree->leaf_bytes;
    bfti_pool_publish(buffer->pool, place, w->id);
    bfti_entry_set(w->entry, place); /* [place] */
    if (replaced)
        bfti_pool_retire(buffer->pool, replaced);
}

static bool is_last_leaf(const struct bfti_run_spec *spec)
{
    return spec->high.len == 0 && spec->sibling == 0;
}

/* A fresh page on top of what is there. */
static enum bfti_room room_fresh(struct bfti_writer *w, size_t bytes,
                                 unsigned *units)
{
    struct bfti_run_spec spec;
    unsigned records = TAIL_RECORDS / 2;
    uint64_t place;
    spec_fences(w, &spec);
    if (is_last_leaf(&spec) &&
        bytes * TAIL_RECORDS_LAST < w->tree->leaf_bytes / 2)
        records = TAIL_RECORDS_LAST;
    *units = 0; /* while no block has room for so many long ones */
    for (; *units == 0 && records > 0; records--)
        *units = bfti_pool_class(
            bfti_minipage_size(&spec, records, bytes * records));
    place = take_reserve(w, *units);
    if (place == 0)
        return BFTI_ROOM_UNITS;
    install(w, place, &spec, 0, bfti_entry_word(w->entry), 0);
    return BFTI_ROOM_OK;
}

/* The largest page with MOST bytes that has tail room for BYTES at least, a
 * quarter more than the content if that fits, as much again in the last leaf; 0:
 * none. */
static size_t page_bytes(const struct bfti_run_spec *spec, size_t bytes,
                         size_t most)
{
    size_t least = bfti_minipage_size(spec, 1, bytes);
    bool last = is_last_leaf(spec);
    size_t wish =
        bfti_minipage_size(spec, last ? TAIL_RECORDS_LAST : TAIL_RECORDS,
                           bytes + bfti_run_size(spec) / (last ? 1 : 4));
    if (least > most)
        return 0;
    return wish < most ? wish : most;
}

/* The page is full: the same records in a new block, sorted, with tail room. */
static enum bfti_room room_rebuild(struct bfti_writer *w,
                                   struct bfti_minipage *page, size_t bytes,
                                   unsigned *units)
{
    size_t most = bfti_page_bytes_max(w->tree->leaf_bytes), want;
    struct bfti_list *list = &w->rec->list[0];
    struct bfti_run_spec spec;
    uint16_t flags = page->flags;
    uint64_t place, word = bfti_entry_word(w->entry);

    if (!bfti_writer_lists_fit(w, page, 0))
        return BFTI_ROOM_LISTS;
    bfti_minipage_list(page, bfti_minipage_tail(page), list, &w->rec->list[1]);
    if (buffer_of(w)->forgets && atomic_load(&page->beneath) == 0)
        bfti_list_keep_values(list); /* deletions have nothing to cover */
    spec_fences(w, &spec);
    spec.view = list->view;
    spec.count = list->count;
    spec.dead = list->dead;
    spec.dead_count = list->dead_count;
    want = page_bytes(&spec, bytes, most);
    if (want == 0 && atomic_load(&page->beneath) != 0) {
        bfti_list_keep_dirty(list);
        flags = 0;
        spec.count = list->count;
        want = page_bytes(&spec, bytes, most);
    }
    if (want == 0) {
        /* Full at its top class: it is to be merged. */
        if (bfti_word_in_memory(atomic_load(&page->beneath)))
            return BFTI_ROOM_MERGE;
        bfti_freeze(w->rec, page);
        bfti_queue_push(w->tree->engine, &w->tree->engine->merges, w->id);
        return room_fresh(w, bytes, units);
    }
    *units = bfti_pool_class(want);
    place = take_reserve(w, *units);
    if (place == 0)
        return BFTI_ROOM_UNITS;
    bfti_count(w->rec, BFTI_N_REBUILDS, 1);
    if (*units > bfti_memory_units(word))
        bfti_count(w->rec, BFTI_N_GROWTHS, 1);
    install(w, place, &spec, flags, atomic_load(&page->beneath), word);
    return BFTI_ROOM_OK;
}

/* Under the latch: have a page on top that fits one record.  UNITS, LISTS:
 * reserve so much, outside the latch, and come back.  MERGE: so must the frozen
 * page go. */
static enum bfti_room make_room(struct bfti_writer *w, size_t key_len,
                                size_t value_len, unsigned *units)
{
    struct bfti_minipage *page = top_of(w);
    if (!page || bfti_minipage_frozen(page))
        return room_fresh(w, key_len + value_len, units);
    if (bfti_minipage_fits(page, key_len, value_len))
        return BFTI_ROOM_OK;
    return room_rebuild(w, page, key_len + value_len, units);
}

/* After make_room asked for something; not latched. */
static bft_status get_room(struct bfti_writer *w, enum bfti_room room,
                           unsigned units)
{
    struct bfti_engine *engine = w->tree->engine;
    bool done;
    bft_status status;
    if (room == BFTI_ROOM_UNITS) {
        if (!atomic_load(&engine->background))
            bfti_background_run(engine, w->rec);
        return reserve(w, units);
    }
    bfti_count(w->rec, BFTI_N_WAITS, 1);
    status = bfti_merge(buffer_of(w), w->rec, w->id,
                        BFTI_MERGE_KEEP | BFTI_MERGE_ROOM, &done);
    if (status == BFT_OK && !done)
        engine->env->yield(engine->env->ctx);
    return status;
}

/* The same without evicting anything, which would take hazard slots.  False:
 * there is no such room. */
static bool quick_room(struct bfti_writer *w, unsigned units)
{
    struct bfti_pool *pool = buffer_of(w)->pool;
    uint64_t place = bfti_pool_free_bytes(pool) < (size_t)units * BFTI_UNIT
                         ? 0
                         : bfti_pool_alloc(pool, units);
    if (place == 0)
        return false;
    bfti_writer_end(w);
    w->reserve = place;
    return true;
}

/* --- one change ---------------------------------------------------------- */

/* Under the latch, with room: log, then publish. */
static void publish(struct bfti_writer *w, const struct bfti_change *change,
                    struct bfti_frame *frame, uint64_t *end)
{
    struct bfti_buffer *buffer = buffer_of(w);
    uint64_t lsn, gathered;
    *end = 0;
    if (frame) {
        bfti_wal_enter(buffer->wal, &w->rec->wal);
        bfti_wal_link(buffer->wal, &w->rec->wal, frame, &lsn, end);
    }
    PARK("write:logged");
    gathered = bfti_table_change(buffer->table, w->id);
    if (change->extents && gathered == 0)
        gathered = bfti_closed(buffer, top_of(w));
    if (change->extents)
        for (size_t i = 0; i < change->extents->count; i++)
            bfti_extent_link(buffer->pf, change->extents->place[i], gathered);
    bfti_minipage_append(top_of(w), change->key, change->value, change->op,
                         change->flags);
    PARK("write:published");
}

const struct bfti_guard bfti_unguarded = {.saved = UINT64_MAX};

/* The same if GUARD holds (it watches no leaves, and shows nothing). */
static bft_status publish_guarded(struct bfti_writer *w,
                                  const struct bfti_change *change,
                                  struct bfti_frame *frame,
                                  const struct bfti_guard *guard, uint64_t *end)
{
    struct bfti_rec *rec = w->rec;
    uint64_t newest;
    bool holds, held;
    if (guard == &bfti_unguarded) {
        publish(w, change, frame, end);
        bfti_writer_unlatch(w, true);
        return BFT_OK;
    }
    /* relaxed: [publish] _begin releases it. */
    atomic_store_explicit(&rec->publishes, bfti_entry_word(w->entry),
                          memory_order_relaxed);
    atomic_store_explicit(&rec->publishes_tail, bfti_minipage_tail(top_of(w)),
                          memory_order_relaxed);
    bfti_wal_show(&rec->wal, frame);
    bfti_publish_begin(rec);
    newest = bfti_snapshots_newest(w->tree->engine);
    held = bfti_reads_stop(w->tree, rec, change->key, newest);
    holds = newest <= guard->saved && !held &&
            (bfti_fault_on(BFTI_FAULT_RANGE_UNSEEN) ||
             !bfti_tomb_stops(w->tree, rec, change->key)); /* [tomb] */
    PARK("write:guarded");
    if (holds)
        publish(w, change, frame, end);
    bfti_publish_end(rec);
    bfti_wal_hide(&rec->wal);
    bfti_writer_unlatch(w, holds);
    if (holds)
        return BFT_OK;
    return held ? (bft_status)BFTI_HELD : (bft_status)BFTI_OVERTAKEN;
}

bft_status bfti_leaf_write(struct bfti_tree *tree, struct bfti_rec *rec,
                           const struct bfti_change *change,
                           struct bfti_frame *frame,
                           const struct bfti_condition *condition,
                           const struct bfti_guard *guard, uint64_t *end)
{
    struct bfti_writer w;
    struct bfti_evidence evidence = {.open = false};
    bft_status status = BFT_OK;

    bfti_writer_begin(&w, tree, rec);
    w.at_once = condition && condition->at_once;
    /* Ends when the page on top has room: what it asks for is got outside the
     * latch, and others can take it away only by making progress. */
    while (status == BFT_OK) {
        enum bfti_room room;
        unsigned units = 0;
        enum bfti_verdict verdict = BFTI_HOLDS;
        status = bfti_writer_latch(&w, change->key);
        if (status != BFT_OK)
            break;
        if (condition)
            verdict = bfti_condition_check(condition, buffer_of(&w), w.entry,
                                           change->key, &evidence);
        if (verdict != BFTI_HOLDS)
            bfti_writer_unlatch(&w, false);
        if (verdict == BFTI_UNKNOWN)
            status = bfti_evidence_gather(condition, tree, rec, change->key,
                                          &evidence, &verdict);
        if (status == BFT_OK && verdict == BFTI_FAILS)
            status = BFT_CONFLICT;
        if (!w.entry)
            continue;
        room = make_room(&w, change->key.len, change->value.len, &units);
        if (room == BFTI_ROOM_OK) {
            status = publish_guarded(&w, change, frame, guard, end);
            break;
        }
        bfti_writer_unlatch(&w, false);
        if (room == BFTI_ROOM_LISTS) {
            status = bfti_writer_lists(&w);
            continue;
        }
        if (evidence.open && room == BFTI_ROOM_UNITS && quick_room(&w, units))
            continue;
        bfti_evidence_drop(rec, &evidence);
        status = get_room(&w, room, units);
    }
    bfti_evidence_drop(rec, &evidence);
    bfti_writer_end(&w);
    return status;
}

bft_status bfti_leaf_touch(struct bfti_tree *tree, struct bfti_rec *rec,
                           bft_slice key)
{
    struct bfti_writer w;
    bft_status status = BFT_OK;
    bfti_writer_begin(&w, tree, rec);
    while (status == BFT_OK) {
        enum bfti_room room = BFTI_ROOM_OK;
        unsigned units = 0;
        struct bfti_minipage *page;
        status = bfti_writer_latch(&w, key);
        if (status != BFT_OK)
            break;
        page = top_of(&w);
        if (!page || bfti_minipage_frozen(page))
            room = room_fresh(&w, 64, &units);
        bfti_writer_unlatch(&w, false);
        if (room == BFTI_ROOM_OK)
            break;
        status = get_room(&w, room, units);
    }
    bfti_writer_end(&w);
    return status;
}
