/*
 * Several changes over any leaves, visible all at once.
 *
 * The latches of all leaves are taken in (tree, key) order, a new page is built
 * for each, one frame is linked, the pages are published naming the batch's
 * word, which then says "visible" for all of them at once; only then are the
 * latches released.  A reader that meets a page of a pending batch uses the page
 * before it.  Nothing waits for I/O while it holds a latch: whoever lacks memory
 * or room releases all, gets it, and starts again.
 */
#include "snapshot.h"
#include "tomb.h"

#include <assert.h>

enum {
    TAIL_RECORDS = 8,
    EVICT_PER_CHANGE = 8, /* tries, at most */
    SPARE_TRIES = 256,    /* that free nothing, at more than is needed */
    LAST_TRIES = 20000,   /* likewise, before a batch fails */
    FIRST_GROUPS = 8,
};

/* The changes that fall into one leaf, and the page that will hold them. */
struct group {
    struct bfti_tree *tree;
    struct bfti_entry *entry;
    uint64_t id;
    size_t from, to; /* of the changes */
    uint64_t spare;  /* got while nothing was latched, for the new page */
    uint64_t place;  /* the new page */
    unsigned units;  /* its size */
    uint64_t previous;
    bool replaces;              /* previous is a page that goes */
    struct bfti_minipage *tail; /* the page whose tail takes the changes, or
                                   NULL: a page is built */
};

struct all {
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_tree *const *trees;
    const struct bfti_change *changes;
    size_t n;
    struct group *group; /* FIRST, or allocated */
    size_t groups, cap;
    size_t tried;    /* groups of the last attempt */
    size_t supplied; /* with spares for this one */
    /* What stopped an attempt, to be dealt with while nothing is latched. */
    enum bfti_room need;
    bool kept;               /* no content of nodes is dropped */
    bool cleared;            /* so much was evicted as all of it may want */
    struct bfti_gather turn; /* at getting places for pages */
    bool thrifty; /* memory is short: no copies of pages, fresh ones on top */
    size_t need_records, need_dead; /* lists for so many */
    uint64_t need_id;
    bool need_later;                  /* of a merge: the background can do it */
    size_t need_from, need_to;        /* changes too many for one page */
    struct group first[FIRST_GROUPS]; /* last: all before it begins as zeros */
};

static struct bfti_view change_view(const struct bfti_change *change)
{
    struct bfti_view view;
    memset(&view, 0, sizeof(view));
    view.prefix = view.suffix = change->key.data;
    view.suffix_len = (uint16_t)change->key.len;
    view.value = change->value.data;
    view.value_len = (uint32_t)change->value.len;
    view.op = change->op;
    view.flags = change->flags;
    return view;
}

/* Pages that a batch builds may be larger than others: they are merged soon. */
static size_t batch_page_max(const struct bfti_tree *tree)
{
    size_t most = (size_t)tree->leaf_bytes * 4;
    size_t pool = bfti_page_bytes_most();
    size_t least = bfti_page_bytes_max(tree->leaf_bytes);
    size_t budget = (size_t)tree->engine->options.memory_bytes / 64;
    if (most > pool)
        most = pool;
    if (most > budget)
        most = budget;
    return most > least ? most : least;
}

static size_t changes_bytes(const struct all *a, size_t from, size_t to)
{
    size_t bytes = 0;
    for (size_t i = from; i < to; i++)
        bytes += sizeof(struct bfti_slot) + a->changes[i].key.len +
                 a->changes[i].value.len;
    return bytes;
}

/* --- one leaf, under its latch ------------------------------------------- */

static void list_changes(struct all *a, struct bfti_list *list, size_t from,
                         size_t to)
{
    list->count = to - from;
    list->dead_count = 0;
    for (size_t i = from; i < to; i++)
        list->view[i - from] = change_view(&a->changes[i]);
}

static bool is_last_leaf(const struct bfti_run_spec *spec)
{
    return spec->high.len == 0 && spec->sibling == 0;
}

/* Of the last leaf's page, where ids and times grow: what comes next goes behind
 * all that there is, so its tail takes as much again as there is, and what the
 * page below took if that was full. */
static size_t last_page_bytes(const struct all *a, const struct group *g,
                              size_t least, size_t each, uint64_t beneath)
{
    size_t most = batch_page_max(g->tree);
    size_t wish = bfti_word_in_memory(beneath) ? most : 2 * least;
    if (a->thrifty || least >= most)
        return least;
    if (wish < least + TAIL_RECORDS * each)
        wish = least + TAIL_RECORDS * each;
    return wish < most ? wish : most;
}

/* Of the group's page: with tail room for more of the kind, if that keeps it to
 * the usual size.  Who brings several changes at once will bring as many again,
 * and then building the page is what costs: half of what a batch's page may be
 * is usual for it. */
static size_t page_bytes(const struct all *a, const struct group *g,
                         const struct bfti_run_spec *spec, uint64_t beneath)
{
    size_t least = bfti_minipage_size(spec, 0, 0);
    size_t most = bfti_page_bytes_max(g->tree->leaf_bytes);
    size_t count = g->to - g->from;
    size_t each =
        sizeof(struct bfti_slot) + changes_bytes(a, g->from, g->to) / count;
    size_t wanted = TAIL_RECORDS;
    if (is_last_leaf(spec))
        return last_page_bytes(a, g, least, each, beneath);
    if (count > 1 && most < batch_page_max(g->tree) / 2)
        most = batch_page_max(g->tree) / 2;
    if (count > wanted && count <= BFTI_TAIL_MAX)
        wanted = count;
    for (size_t n = wanted; !a->thrifty && n; n /= 2)
        if (least + n * each <= most)
            return least + n * each;
    return least;
}

/* Has the last leaf's PAGE so much of what it may have, that the new one of SPEC
 * would soon be full?  Then it is left as it is, and the new one lies on top. */
static bool is_nearly_full(const struct all *a, const struct group *g,
                           const struct bfti_run_spec *spec,
                           const struct bfti_minipage *page, uint64_t beneath)
{
    size_t most = batch_page_max(g->tree);
    return g->replaces && !a->thrifty && is_last_leaf(spec) &&
           !bfti_word_in_memory(beneath) && bfti_minipage_is_dirty(page) &&
           bfti_minipage_size(spec, 0, 0) > most - most / 8;
}

/* The run of the new page: the changes over what the top page holds.  FLAGS
 * and BENEATH are those of the new page.  False: too big even so. */
static bool group_spec(struct all *a, struct bfti_writer *w, struct group *g,
                       struct bfti_run_spec *spec, size_t *bytes,
                       uint16_t *flags, uint64_t *beneath)
{
    struct bfti_list *list = a->rec->list;
    struct bfti_list *all = &list[2];
    struct bfti_minipage *page = NULL;
    size_t most = batch_page_max(g->tree);

    memset(spec, 0, sizeof(*spec));
    spec->low = bfti_writer_low(w);
    spec->high = bfti_writer_high(w);
    spec->sibling = bfti_writer_sibling(w);
    spec->tree_id = g->tree->id;
    spec->keep = BFTI_KEEP_ALL;
    *flags = 0;
    *beneath = g->previous = bfti_entry_word(w->entry);
    g->replaces = false;
    if (bfti_word_in_memory(g->previous))
        page = bfti_page_at(&a->engine->buffer, g->previous);
    if (page && a->thrifty && !bfti_minipage_frozen(page) &&
        !bfti_word_in_memory(atomic_load(&page->beneath)))
        bfti_freeze(a->rec, page);
    if (page && !bfti_minipage_frozen(page)) {
        *flags = page->flags;
        *beneath = atomic_load(&page->beneath);
        g->replaces = true;
    }
    /* Whatever the page holds; and the lists are made for no more. */
    if (changes_bytes(a, g->from, g->to) > most)
        return false;
    list_changes(a, all, g->from, g->to);
    if (g->replaces) {
        bfti_minipage_list(page, bfti_minipage_tail(page), &list[0], &list[1]);
        list_changes(a, &list[1], g->from, g->to);
        bfti_list_merge(all, &list[1], &list[0]);
    }
    if (a->engine->buffer.forgets && *beneath == 0)
        bfti_list_keep_values(all); /* deletions have nothing to cover */
    spec->view = all->view;
    spec->count = all->count;
    spec->dead = all->dead;
    spec->dead_count = all->dead_count;
    *bytes = page_bytes(a, g, spec, *beneath);
    if (*bytes > most && *beneath) {
        bfti_list_keep_dirty(all);
        *flags = 0;
        spec->count = all->count;
        *bytes = page_bytes(a, g, spec, *beneath);
    }
    return *bytes <= most && !is_nearly_full(a, g, spec, page, *beneath);
}

/* The lists hold the group's changes and the page that they replace.  False:
 * see a->need. */
static bool group_lists(struct all *a, struct bfti_writer *w,
                        const struct group *g)
{
    uint64_t word = bfti_entry_word(w->entry);
    const struct bfti_minipage *page =
        bfti_word_in_memory(word) ? bfti_page_at(&a->engine->buffer, word)
                                  : NULL;
    /* More than one page can have are turned down before they are listed. */
    size_t most = batch_page_max(g->tree) / sizeof(struct bfti_slot) + 1;
    size_t changes = g->to - g->from < most ? g->to - g->from : most;
    if (bfti_writer_lists_fit(w, page, changes))
        return true;
    a->need = BFTI_ROOM_LISTS;
    a->need_records = w->records;
    a->need_dead = w->dead;
    return false;
}

/* The leaf cannot take its changes onto its page, nor one of SPEC: what is to be
 * done? */
static void ask_room(struct all *a, const struct group *g,
                     const struct bfti_run_spec *spec, uint64_t beneath)
{
    struct bfti_minipage *page;
    a->need = BFTI_ROOM_MERGE;
    a->need_later = false;
    a->need_id = g->id;
    a->need_from = g->from;
    /* On a page of their own they would fit: freeze what is there. */
    a->need_to = changes_bytes(a, g->from, g->to) > batch_page_max(g->tree) / 2
                     ? g->to
                     : g->from;
    if (!g->replaces)
        return;
    page = bfti_page_at(&a->engine->buffer, g->previous);
    if (bfti_word_in_memory(beneath) || !bfti_minipage_is_dirty(page))
        return;
    bfti_freeze(a->rec, page);
    /* The changes go onto a page on top.  In the last leaf, where what comes next
     * lies behind all that there is: in others this page, which stays clean when
     * a writer merges it, is what next changes and reads come to. */
    a->need_later = atomic_load(&a->engine->background) && !a->thrifty &&
                    a->need_to == a->need_from && is_last_leaf(spec);
}

/* The leaf's page if its tail has room for all of the group's changes. */
static struct bfti_minipage *group_tail(struct all *a, const struct group *g)
{
    uint64_t word = bfti_entry_word(g->entry);
    struct bfti_minipage *page;
    size_t bytes = 0;
    if (!bfti_word_in_memory(word))
        return NULL;
    page = bfti_page_at(&a->engine->buffer, word);
    for (size_t i = g->from; i < g->to; i++)
        bytes += a->changes[i].key.len + a->changes[i].value.len;
    if (bfti_minipage_frozen(page) ||
        !bfti_minipage_fits_all(page, a->changes[g->from].key, g->to - g->from,
                                bytes))
        return NULL;
    bfti_minipage_append_soon(page, bytes);
    return page;
}

/* A place of the units that the group wants; 0: there is none now. */
static uint64_t group_place(struct all *a, struct group *g)
{
    struct bfti_pool *pool = a->engine->buffer.pool;
    uint64_t place = g->spare;
    unsigned units = place ? bfti_memory_units(place) : 0;
    /* A leaf that was split since has moved the spares on by one group: that of
     * another tree may be larger than a page of this one ever is. */
    if (units >= g->units &&
        units <= bfti_pool_class(batch_page_max(g->tree))) {
        g->spare = 0;
        return place;
    }
    /* Within what is left of the budget, until that was tried. */
    return a->cleared ||
                   bfti_pool_free_bytes(pool) >= (size_t)g->units * BFTI_UNIT
               ? bfti_pool_alloc(pool, g->units)
               : 0;
}

/* Have a place for the changes of the group that the latched leaf of W holds: in
 * its page's tail, or in a page built for it.  False: see a->need. */
static bool group_build(struct all *a, struct bfti_writer *w, struct group *g)
{
    struct bfti_run_spec spec;
    size_t bytes;
    uint16_t flags;
    uint64_t beneath;
    struct bfti_minipage *page;

    g->tail = group_tail(a, g);
    if (g->tail)
        return true;
    if (!group_lists(a, w, g))
        return false;
    if (!group_spec(a, w, g, &spec, &bytes, &flags, &beneath)) {
        ask_room(a, g, &spec, beneath);
        return false;
    }
    g->units = bfti_pool_class(bytes);
    g->place = group_place(a, g);
    if (g->place == 0) {
        a->need = BFTI_ROOM_UNITS;
        return false;
    }
    page = bfti_page_at(&a->engine->buffer, g->place);
    bfti_minipage_build(page, bfti_memory_bytes(g->place), &spec, g->id, flags,
                        beneath);
    page->leaf_bytes = g->tree->leaf_bytes;
    return true;
}

/* --- all leaves ---------------------------------------------------------- */

static void groups_free(struct all *a)
{
    if (a->group != a->first)
        bfti_free(a->engine->env, a->group);
}

static struct group *group_add(struct all *a)
{
    struct group *g;
    uint64_t spare;
    if (a->groups == a->cap) {
        struct group *grown =
            bfti_alloc(a->engine->env, 2 * a->cap * sizeof(*grown));
        if (!grown)
            return NULL;
        memcpy(grown, a->group, a->groups * sizeof(*grown));
        groups_free(a);
        a->group = grown;
        a->cap *= 2;
    }
    g = &a->group[a->groups];
    spare = a->groups < a->supplied ? g->spare : 0;
    memset(g, 0, sizeof(*g));
    g->spare = spare;
    a->groups++;
    return g;
}

/* The spares that nobody took. */
static void spares_free(struct all *a)
{
    while (a->supplied) {
        struct group *g = &a->group[--a->supplied];
        if (g->spare)
            bfti_pool_free(a->engine->buffer.pool, g->spare);
        g->spare = 0;
    }
}

static void release_all(struct all *a, bool changed)
{
    while (a->groups) {
        struct group *g = &a->group[--a->groups];
        if (g->place && !changed)
            bfti_pool_free(a->engine->buffer.pool, g->place);
        bfti_unlatch(a->engine->env, g->entry, changed);
    }
}

/* Latch the leaf of change FROM and find how far its range goes. */
static bft_status group_latch(struct all *a, struct bfti_writer *w,
                              struct group *g, size_t from)
{
    bft_slice high;
    bft_status status;
    bfti_writer_begin(w, a->trees[from], a->rec);
    w->latched = from > 0; /* the groups before */
    status = bfti_writer_latch(w, a->changes[from].key);
    if (status != BFT_OK || !w->entry)
        return status;
    g->tree = a->trees[from];
    g->entry = w->entry;
    g->id = w->id;
    g->from = from;
    g->to = from + 1;
    high = bfti_writer_high(w);
    while (g->to < a->n && a->trees[g->to] == g->tree &&
           (high.len == 0 || bfti_key_compare(a->changes[g->to].key, high) < 0))
        g->to++;
    return BFT_OK;
}

/* The node that W met away.  Many may be, and all are needed in one attempt: none
 * goes before the batch is done. */
static bft_status load_node(struct all *a, struct bfti_writer *w)
{
    a->need = BFTI_ROOM_NODE;
    bfti_nodes_keep(a->engine, &a->kept);
    return bfti_writer_load(w);
}

/* What the leaves of some changes from FROM on, of one tree, have in memory is
 * brought for all of them at once.  Returns where those end. */
static size_t look_ahead(const struct all *a, size_t from)
{
    bft_slice keys[BFTI_LOOK_AHEAD];
    size_t n = 0;
    while (n < BFTI_LOOK_AHEAD && from + n < a->n &&
           a->trees[from + n] == a->trees[from]) {
        keys[n] = a->changes[from + n].key;
        n++;
    }
    if (n > 1)
        bfti_leaf_look_ahead_latched(a->trees[from], a->rec, keys, n);
    return from + n;
}

/* One attempt at latching and building all.  *READY false: a->need. */
static bft_status attempt(struct all *a, bool *ready)
{
    struct bfti_writer w;
    size_t ahead = 0;
    bft_status status = BFT_OK;
    w.is_away = false;
    *ready = true;
    for (size_t i = 0; status == BFT_OK && *ready && i < a->n;) {
        struct group *g = group_add(a);
        if (i >= ahead)
            ahead = look_ahead(a, i);
        if (!g) {
            status = bfti_fail(BFT_NO_MEMORY, "no memory for a batch");
            break;
        }
        status = group_latch(a, &w, g, i);
        if (status != BFT_OK || !w.entry) {
            a->groups--;
            *ready = false;
            break;
        }
        *ready = group_build(a, &w, g);
        i = g->to;
    }
    a->tried = a->groups;
    if (status != BFT_OK || !*ready)
        release_all(a, false);
    spares_free(a);
    return status == BFT_OK && w.is_away ? load_node(a, &w) : status;
}

/* Behind its latch, before the batch is decided: the page's tail takes the
 * changes, which readers do not count yet. */
static void publish_tail(struct all *a, const struct group *g, uint64_t number)
{
    struct bfti_minipage *page = g->tail;
    atomic_store(&page->tail_before, bfti_minipage_tail(page));
    atomic_store(&page->batch_word, &a->rec->batch);
    atomic_store(&page->batch, number); /* [batch] before the first append */
    for (size_t i = g->from; i < g->to; i++) {
        const struct bfti_change *change = &a->changes[i];
        bfti_minipage_append(page, change->key, change->value, change->op,
                             change->flags);
    }
}

/* The same with a page of its own. */
static void publish_page(struct all *a, const struct group *g, uint64_t number)
{
    struct bfti_buffer *buffer = &a->engine->buffer;
    struct bfti_minipage *page = bfti_page_at(buffer, g->place);
    page->previous = g->previous;
    atomic_store(&page->batch_word, &a->rec->batch);
    atomic_store(&page->batch, number);
    bfti_pool_publish(buffer->pool, g->place, g->id);
    bfti_entry_set(g->entry, g->place); /* [place] */
}

/* Is ENTRY's latch one of ours? */
static bool is_ours(const struct all *a, const struct bfti_entry *entry)
{
    for (size_t i = 0; i < a->groups; i++)
        if (a->group[i].entry == entry)
            return true;
    return false;
}

/* Is what GUARD watches as it was? */
static bool watched_holds(const struct all *a, const struct bfti_guard *guard)
{
    for (size_t i = 0;
         i + bfti_fault_on(BFTI_FAULT_TXN_UNWATCHED) < guard->watches; i++) {
        const struct bfti_watch *watch = &guard->watch[i];
        /* [latch], [seq] as in bfti_copy_fresh.  seq_cst: of two who each watch
         * what the other has latched, one sees the other. */
        if ((atomic_load(&watch->entry->latch) && !is_ours(a, watch->entry)) ||
            atomic_load(&watch->entry->seq) != watch->seq)
            return false;
    }
    return true;
}

/* With all latches held, behind bfti_publish_begin(), and what was read is shown. */
static bft_status guard_holds(const struct all *a,
                              const struct bfti_guard *guard)
{
    uint64_t newest = bfti_snapshots_newest(a->engine);
    if (newest > guard->saved)
        return (bft_status)BFTI_OVERTAKEN;
    for (size_t i = 0; i < a->n; i++)
        if (bfti_reads_stop(a->trees[i], a->rec, a->changes[i].key, newest))
            return (bft_status)BFTI_HELD;
    for (size_t i = 0; i < a->n; i++)
        if (bfti_tomb_stops(a->trees[i], a->rec,
                            a->changes[i].key)) /* [tomb] */
            return (bft_status)BFTI_OVERTAKEN;
    if (guard->reads && bfti_reads_coming(guard->reads, a->rec))
        return (bft_status)BFTI_HELD;
    /* [tomb] behind the look at what is coming.  Odd: one was about to be seen. */
    if (guard->history &&
        (atomic_load(&a->engine->history) != guard->history ||
         guard->tombs_made % 2 != 0 ||
         atomic_load(&a->engine->tombs_made) != guard->tombs_made))
        return (bft_status)BFTI_OVERTAKEN;
    return watched_holds(a, guard) ? BFT_OK : (bft_status)BFTI_OVERTAKEN;
}

/* All latches held, all pages built: log, publish, decide. */
static void publish_all(struct all *a, struct bfti_frame *frame,
                        uint64_t number, uint64_t *end)
{
    struct bfti_buffer *buffer = &a->engine->buffer;
    uint64_t lsn;

    PARK("batch:latched");
    bfti_wal_enter(buffer->wal, &a->rec->wal);
    bfti_wal_link(buffer->wal, &a->rec->wal, frame, &lsn, end);
    PARK("batch:logged");
    for (size_t i = 0; i < a->groups; i++) {
        struct group *g = &a->group[i];
        struct bfti_minipage *page =
            g->tail ? g->tail : bfti_page_at(buffer, g->place);
        uint64_t gathered = bfti_table_change(buffer->table, g->id);
        if (gathered == 0)
            gathered = bfti_closed(buffer, page);
        for (size_t c = g->from; c < g->to; c++) {
            const struct bfti_places *extents = a->changes[c].extents;
            for (size_t e = 0; extents && e < extents->count; e++)
                bfti_extent_link(buffer->pf, extents->place[e], gathered);
        }
        if (g->tail)
            publish_tail(a, g, number);
        else
            publish_page(a, g, number);
        if (bfti_fault_on(BFTI_FAULT_BATCH_EARLY))
            atomic_store(&a->rec->batch, 0);
        PARK("batch:part-published");
    }
    atomic_store(&a->rec->batch, 0); /* [batch] visible, all of it */
    PARK("batch:decided");
    for (size_t i = 0; i < a->groups; i++) {
        struct group *g = &a->group[i];
        struct bfti_minipage *page =
            g->tail ? g->tail : bfti_page_at(buffer, g->place);
        atomic_store(&page->batch, 0);
        if (!g->tail && g->replaces)
            bfti_pool_retire(buffer->pool, g->previous);
    }
}

/* The same if GUARD holds. */
static bft_status publish_guarded(struct all *a, struct bfti_frame *frame,
                                  const struct bfti_guard *guard, uint64_t *end)
{
    struct bfti_rec *rec = a->rec;
    uint64_t number = atomic_fetch_add(&a->engine->batch_number, 1) + 1;
    bool shows = guard->reads && !bfti_fault_on(BFTI_FAULT_READS_HIDDEN);
    bft_status status;
    atomic_store_explicit(&rec->publishes, 0, memory_order_relaxed);
    /* [batch] pending, before it publishes: while it does and the batch is
     * pending nothing of it is visible. */
    atomic_store(&rec->batch, number);
    bfti_wal_show(&rec->wal, frame);
    bfti_publish_begin(rec);
    if (shows)
        bfti_reads_show(a->engine, rec, guard->reads); /* [reads] */
    status = guard_holds(a, guard);
    if (status == BFT_OK)
        publish_all(a, frame, number, end);
    else
        atomic_store(&rec->batch, 0);
    if (shows)
        bfti_reads_hide(a->engine, rec);
    bfti_publish_end(rec);
    bfti_wal_hide(&rec->wal);
    return status;
}

/* The same of a step that takes records of a deleted range away.  To those who read
 * or take a snapshot nothing changes: so it is not shown. */
static bft_status publish_step(struct all *a, struct bfti_frame *frame,
                               struct bfti_tomb_step *step, uint64_t *end)
{
    uint64_t number = atomic_fetch_add(&a->engine->batch_number, 1) + 1;
    if (!bfti_tomb_step_enter(step))
        return (bft_status)BFTI_OVERTAKEN;
    atomic_store(&a->rec->batch, number); /* [batch] pending */
    publish_all(a, frame, number, end);
    bfti_tomb_step_leave(step);
    return BFT_OK;
}

/* --- what an attempt lacked ---------------------------------------------- */

/* Too many changes for one page: give the leaf's range more leaves, cut at keys
 * of the batch itself.  Harmless when the batch then fails. */
static bft_status spread(struct all *a)
{
    struct bfti_tree *tree = a->trees[a->need_from];
    size_t bytes = changes_bytes(a, a->need_from, a->need_to);
    size_t parts = bytes / (batch_page_max(tree) / 3) + 1;
    bft_slice keys[BFTI_PARTS_MAX];
    size_t count = a->need_to - a->need_from, n = 0;
    if (parts > BFTI_PARTS_MAX)
        parts = BFTI_PARTS_MAX;
    for (size_t i = 1; i < parts; i++) {
        size_t at = a->need_from + i * count / parts;
        if (at > a->need_from + n && at < a->need_to)
            keys[n++] = a->changes[at].key;
    }
    if (n == 0)
        return BFT_OK; /* one record: it fits an empty page */
    bft_status status = bfti_leaf_touch(tree, a->rec, keys[0]);
    if (status != BFT_OK)
        return status;
    return bfti_split_at(&a->engine->buffer, a->rec, a->need_id, keys, n);
}

/* Let pages leave until there is as much room as the whole batch will want, by
 * what the groups of the last attempt wanted.  Else each attempt would come one
 * group further than the last. */
static bft_status clear_room(struct all *a)
{
    struct bfti_buffer *buffer = &a->engine->buffer;
    /* 64 bits everywhere: bytes times changes. */
    uint64_t wanted = 0;
    size_t tries = EVICT_PER_CHANGE * a->n;
    unsigned damaged = BFTI_DAMAGED_MAX;
    bft_status status = BFT_OK;
    for (size_t i = 0; i < a->tried; i++)
        wanted += (uint64_t)a->group[i].units * BFTI_UNIT;
    /* A quarter more: what is free lies in pieces. */
    wanted = wanted * a->n / a->group[a->tried - 1].to * 5 / 4;
    if (wanted > a->engine->options.memory_bytes / 2)
        wanted = a->engine->options.memory_bytes / 2;
    /* Where damaged leaves are met all the time this is enough: the pages are
     * still to be had one by one. */
    while (status == BFT_OK && tries-- && damaged > 0 &&
           bfti_pool_free_bytes(buffer->pool) < wanted) {
        bool done;
        status = bfti_evict_other(buffer, a->rec, &damaged, &done);
    }
    return status;
}

/* Get places for the pages of all groups of the last attempt, the one that found
 * none included: they are needed at once.  The next attempt has them as they are:
 * what is free lies in pieces, and places that were given back are not found again
 * by who takes small ones out of the large. */
static bft_status supply_units(struct all *a)
{
    struct bfti_buffer *buffer = &a->engine->buffer;
    bft_status status = BFT_OK;
    if (!a->cleared) {
        a->cleared = true;
        return clear_room(a);
    }
    a->turn.tries = a->thrifty ? LAST_TRIES : SPARE_TRIES;
    while (a->supplied < a->tried && status == BFT_OK) {
        struct group *g = &a->group[a->supplied];
        g->spare = 0;
        if (g->units)
            status = bfti_gather_alloc(buffer, a->rec, &a->turn, g->units,
                                       &g->spare);
        a->supplied += status == BFT_OK;
        if (status == BFT_BUSY) { /* from the first on, in another turn */
            spares_free(a);
            status = BFT_OK;
        }
    }
    if (status != BFT_OK)
        spares_free(a);
    if (status != BFT_OK && !a->thrifty && status == BFT_NO_MEMORY)
        status = BFT_OK;
    a->thrifty = true;
    return status;
}

static bft_status supply_lists(struct all *a)
{
    const struct bfti_writer w = {.tree = a->trees[0],
                                  .rec = a->rec,
                                  .records = a->need_records,
                                  .dead = a->need_dead};
    return bfti_writer_lists(&w);
}

/* The leaf NEED_ID has a frozen page that is in the way. */
static bft_status supply_merge(struct all *a)
{
    struct bfti_engine *engine = a->engine;
    bft_status status;
    bool done;
    if (a->need_later) {
        bfti_queue_push(engine, &engine->merges, a->need_id);
        return BFT_OK;
    }
    status = bfti_merge(&engine->buffer, a->rec, a->need_id,
                        BFTI_MERGE_KEEP | BFTI_MERGE_ROOM, &done);
    if (status == BFT_OK && a->need_to > a->need_from)
        return spread(a);
    if (status == BFT_OK && !done)
        engine->env->yield(engine->env->ctx);
    return status;
}

static bft_status supply(struct all *a)
{
    if (a->need == BFTI_ROOM_NODE)
        return BFT_OK; /* by the attempt */
    if (a->need == BFTI_ROOM_LISTS)
        return supply_lists(a);
    if (a->need == BFTI_ROOM_UNITS)
        return supply_units(a);
    return supply_merge(a);
}

bft_status bfti_leaf_write_all(struct bfti_engine *engine, struct bfti_rec *rec,
                               struct bfti_tree *const *trees,
                               const struct bfti_change *changes, size_t n,
                               struct bfti_frame *frame,
                               const struct bfti_guard *guard, uint64_t *end)
{
    struct all a;
    bool ready = false;
    bft_status status = BFT_OK;

    memset(&a, 0, offsetof(struct all, first));
    a.group = a.first;
    a.cap = FIRST_GROUPS;
    a.engine = engine;
    a.rec = rec;
    a.trees = trees;
    a.changes = changes;
    a.n = n;
    *end = 0;
    if (n == 0)
        return BFT_OK;
    /* Ends: every attempt that fails is followed by getting what it lacked. */
    while (status == BFT_OK && !ready) {
        status = attempt(&a, &ready);
        if (status == BFT_OK && !ready)
            status = supply(&a);
    }
    if (status == BFT_OK) {
        status = guard->step ? publish_step(&a, frame, guard->step, end)
                             : publish_guarded(&a, frame, guard, end);
        release_all(&a, status == BFT_OK);
    }
    bfti_gather_end(&engine->buffer, &a.turn);
    bfti_nodes_release(engine, &a.kept);
    groups_free(&a);
    return status;
}
