/*
 * Merging: a frozen page leaves memory, as a delta extent or together with the
 * base page beneath it, which may split the leaf.  Belongs to no thread: whoever
 * meets a frozen page may do it; the swing, under the latch, finds out who won.
 * See README.md for the states and for what each step leaves behind.
 */
#include "core.h"
#include "forget.h"

#include <assert.h>

enum {
    DEFER_SHARE = 32, /* of the budget, that is worth a grace period */
    DELTA_LEAF_MIN = 2 * BFTI_BLOCK, /* the smallest leaf with one */
};

/* One attempt, from naming the frozen page to the swing. */
struct merge {
    struct bfti_buffer *buffer;
    struct bfti_rec *rec;
    struct bfti_entry *entry;
    uint64_t id;
    unsigned flags;

    uint64_t word;   /* the leaf's word when we began */
    uint64_t frozen; /* place of the frozen page; == word when it is on top */
    struct bfti_minipage *page; /* the frozen page */
    uint64_t head;              /* disk content beneath it, 0 none */
    uint32_t tree_id, leaf_bytes;
    struct bfti_content disk; /* of it what was read */
    size_t old_places;        /* of DISK, that the swing unlinks */
    bool complete, plain; /* no record, no large record, beneath is unknown */

    struct bfti_list *all; /* content of the new base page(s) */
    struct bfti_list *own; /* the frozen page's records */
    size_t cut[BFTI_PARTS_MAX];
    size_t parts;
    uint64_t part_id[BFTI_PARTS_MAX];
    uint64_t part_place[BFTI_PARTS_MAX]; /* extents written */
    uint64_t part_page[BFTI_PARTS_MAX];  /* pages built to stay, or 0 */
    size_t ids_made, places_made;
    uint8_t *fence; /* low fence of part I >= 1: in buf[2], at I * KEY_MAX */
    size_t fence_len[BFTI_PARTS_MAX];
    unsigned deltas;         /* of the list that it makes; 0: base pages */
    bool lacked_room;        /* to divide the page above */
    struct bfti_places dead; /* extents of large values to unlink */
    const bft_slice *force;  /* keys to cut at (bfti_split_at), or NULL */
    size_t force_count;
};

static struct bfti_minipage *at(const struct merge *m, uint64_t place)
{
    return bfti_page_at(m->buffer, place);
}

/* Has the frozen page we named been neither merged nor left behind? */
static bool still_there(void *arg)
{
    struct merge *m = arg;
    if (bfti_entry_word(m->entry) != m->word)
        return false;
    return m->frozen == m->word ||
           atomic_load(&at(m, m->word)->beneath) == m->frozen;
}

/* Name the leaf's frozen page; false when it has none. */
static bool name_frozen(struct merge *m)
{
    /* Ends: each retry means that another thread changed the leaf. */
    for (;;) {
        uint64_t beneath;
        m->word = bfti_entry_word(m->entry);
        if (!bfti_word_in_memory(m->word))
            return false;
        bfti_hazard_set(m->rec, BFTI_HAZARD_TOP, m->word);
        if (bfti_entry_word(m->entry) != m->word)
            continue;
        m->page = at(m, m->word);
        m->frozen = m->word;
        if (bfti_minipage_frozen(m->page))
            break;
        beneath = atomic_load(&m->page->beneath); /* [beneath] */
        if (!bfti_word_in_memory(beneath))
            return false;
        m->frozen = beneath;
        bfti_hazard_set(m->rec, BFTI_HAZARD_FROZEN, beneath);
        if (!still_there(m))
            continue;
        m->page = at(m, beneath);
        break;
    }
    /* Frozen: nothing beneath it is swung but by the merge that replaces it. */
    m->head = atomic_load(&m->page->beneath);
    m->tree_id = le32_get(bfti_minipage_run(m->page)->tree_id);
    m->leaf_bytes = m->page->leaf_bytes;
    m->complete = m->head == 0 || (m->page->flags & BFTI_PAGE_COMPLETE);
    m->plain = m->head == 0 || (m->page->flags & BFTI_PAGE_PLAIN);
    assert(m->head == 0 || bfti_word_on_disk(m->head));
    return true;
}

/* --- content ------------------------------------------------------------- */

/* Read the disk content, with DELTAS_ONLY without its base page. */
static bft_status read_disk(struct merge *m, bool deltas_only, bool *stable)
{
    m->disk.above = bfti_minipage_run(m->page);
    return bfti_disk_read(m->buffer, m->rec, m->head, m->tree_id, m->id,
                          still_there, m, deltas_only, stable, &m->disk);
}

static bft_status read_beneath(struct merge *m, bool *stable)
{
    bool known = m->complete && m->plain;
    bft_status status;
    *stable = true;
    m->old_places = 0;
    if (m->head == 0)
        return BFT_OK;
    /* A complete, plain page: its records are all here and refer to nothing
     * outside.  Deltas must be read to know what lies beneath them. */
    status = read_disk(m, known, stable);
    m->old_places = bfti_word_deltas(m->head) + (size_t)1;
    if (known)
        m->disk.count = 0;
    return status;
}

static bool list_has_large(const struct bfti_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->view[i].flags & BFTI_REC_LARGE)
            return true;
    return list->dead_count > 0;
}

/*
 * Small enough to stand in a delta of its own?  Not what mostly deletes: the
 * base would never get small, and its leaf never be absorbed.  Not what has to
 * do with large values: the delta would keep those that are superseded.
 */
static bool fits_delta(const struct merge *m, const struct bfti_list *list)
{
    size_t bytes = 0, puts = 0, deletes = 0;
    if (list_has_large(list))
        return false;
    for (size_t i = 0; i < list->count; i++) {
        const struct bfti_view *view = &list->view[i];
        puts += view->op == BFTI_OP_PUT;
        deletes += view->op == BFTI_OP_DELETE;
        if (bfti_op_is_dirty(view->op))
            bytes += sizeof(struct bfti_slot) + view->suffix_len +
                     view->prefix_len + view->value_len;
    }
    return bytes <= m->leaf_bytes / 4 && deletes * 4 <= puts;
}

/*
 * The thread's lists.  Two are as long as page and disk content together, and no
 * other is longer than it must be: they stay, and memory has them then.
 */
enum {
    OWN,   /* the frozen page's */
    TMP,   /* room to make the others with */
    ALL,   /* with what lies beneath */
    OTHER, /* takes turns with it */
    TOP,   /* of the frozen one what changed, or the page above */
};
enum { TOP_MORE = 32 }; /* records that the page above may get meanwhile */

static bft_status reserve_list(struct merge *m, unsigned i, size_t count,
                               size_t dead)
{
    return bfti_list_reserve(m->buffer->env, &m->rec->list[i], count, dead);
}

/* For what is listed of PAGE, and MORE records, in list I. */
static bft_status reserve_page(struct merge *m, unsigned i,
                               const struct bfti_minipage *page, size_t more)
{
    unsigned tail = bfti_minipage_tail(page);
    size_t count = bfti_minipage_records(page, tail) + more;
    size_t dead = bfti_minipage_dead_max(page, tail) + more;
    bft_status status = reserve_list(m, TMP, count, dead);
    return status == BFT_OK ? reserve_list(m, i, count, dead) : status;
}

/* The page above the frozen one, or NULL; if another comes, the swing fails. */
static struct bfti_minipage *above(const struct merge *m)
{
    return m->frozen == m->word ? NULL : at(m, m->word);
}

/* The frozen page's records. */
static bft_status list_own(struct merge *m)
{
    bft_status status = reserve_page(m, OWN, m->page, 0);
    if (status != BFT_OK)
        return status;
    m->own = &m->rec->list[OWN];
    bfti_minipage_list(m->page, bfti_minipage_tail(m->page), m->own,
                       &m->rec->list[TMP]);
    return BFT_OK;
}

/* Room for list_all(). */
static bft_status reserve_all(struct merge *m)
{
    const struct bfti_run *const *run = m->disk.run;
    unsigned runs = m->disk.count, tail = bfti_minipage_tail(m->page);
    size_t count = bfti_runs_records(run, runs);
    size_t dead = bfti_runs_dead(run, runs);
    bft_status status = reserve_page(m, OWN, m->page, 0);
    if (status == BFT_OK)
        status = reserve_page(m, TOP, m->page, 0);
    if (status == BFT_OK)
        status = reserve_list(m, TMP, count, dead);
    count += bfti_minipage_records(m->page, tail);
    dead += bfti_minipage_dead_max(m->page, tail);
    for (unsigned i = ALL; status == BFT_OK && runs && i <= OTHER; i++)
        status = reserve_list(m, i, count, dead);
    return status;
}

/* The frozen page's records, with DIRTY_ONLY without those that repeat what
 * lies beneath, and all that was read there as m->all. */
static bft_status list_all(struct merge *m, bool dirty_only)
{
    struct bfti_list *list = m->rec->list;
    bft_status status = reserve_all(m);
    if (status != BFT_OK)
        return status;
    bfti_minipage_list(m->page, bfti_minipage_tail(m->page), &list[OWN],
                       &list[TMP]);
    m->own = m->all = &list[OWN];
    if (dirty_only) {
        m->all = &list[TOP];
        bfti_minipage_list(m->page, bfti_minipage_tail(m->page), m->all,
                           &list[TMP]);
        bfti_list_keep_dirty(m->all);
    }
    if (m->disk.count) {
        bfti_list_runs(&list[ALL], m->all, m->disk.run, m->disk.count,
                       &list[TMP], &list[OTHER]);
        m->all = &list[ALL];
    }
    return BFT_OK;
}

/* An append pattern: everything new sorts behind everything old. */
static bool is_ascending(const struct merge *m)
{
    const struct bfti_run *old = m->disk.count ? m->disk.run[0] : NULL;
    const struct bfti_run *run = bfti_minipage_run(m->page);
    struct bfti_view last_old, first_new;
    if (bfti_run_high(run).len == 0 && bfti_run_sibling(run) == 0)
        return true; /* the rightmost leaf: ids and times grow there */
    if (!old || bfti_run_count(old) == 0 || m->own->count == 0)
        return false;
    last_old = bfti_run_view(old, bfti_run_count(old) - 1);
    first_new = m->own->view[0];
    return bfti_view_compare(&first_new, &last_old) > 0;
}

static uint8_t *fence(const struct merge *m, size_t i)
{
    return m->fence ? m->fence + i * BFTI_KEY_MAX : NULL;
}

static bft_slice part_low(const struct merge *m, size_t i)
{
    bft_slice s = {fence(m, i), m->fence_len[i]};
    return i == 0 ? bfti_run_low(bfti_minipage_run(m->page)) : s;
}

static bft_slice part_high(const struct merge *m, size_t i)
{
    return i + 1 == m->parts ? bfti_run_high(bfti_minipage_run(m->page))
                             : part_low(m, i + 1);
}

static uint64_t part_sibling(const struct merge *m, size_t i)
{
    return i + 1 == m->parts ? bfti_run_sibling(bfti_minipage_run(m->page))
                             : m->part_id[i + 1];
}

static struct bfti_run_spec part_spec(const struct merge *m, size_t i,
                                      const struct bfti_list *list, size_t from,
                                      size_t to)
{
    struct bfti_run_spec spec;
    memset(&spec, 0, sizeof(spec));
    spec.view = list->view + from;
    spec.count = to - from;
    spec.low = part_low(m, i);
    spec.high = part_high(m, i);
    spec.sibling = part_sibling(m, i);
    spec.tree_id = m->tree_id;
    return spec;
}

/* Of LIST's records, those of the part. */
static struct bfti_run_spec part_of(const struct merge *m, size_t i,
                                    const struct bfti_list *list)
{
    bool found;
    size_t from = i ? bfti_list_search(list, part_low(m, i), &found) : 0;
    size_t to = i + 1 < m->parts
                    ? bfti_list_search(list, part_high(m, i), &found)
                    : list->count;
    return part_spec(m, i, list, from, to);
}

/* --- writing ------------------------------------------------------------- */

static bft_status write_extent(struct merge *m, enum bfti_extent_type type,
                               size_t i, const struct bfti_run_spec *spec)
{
    struct bfti_extent_info info = {
        type, m->tree_id, m->part_id[i],
        m->buffer->wal ? bfti_wal_end(m->buffer->wal) : 0};
    size_t bytes = bfti_run_size(spec);
    bft_status status = bfti_rec_buf(m->rec, 0, bytes);
    if (status != BFT_OK)
        return status;
    bfti_run_build(m->rec->buf[0], spec);
    status = bfti_extent_write(m->buffer->pf, &info, m->rec->buf[0], bytes,
                               &m->part_place[i]);
    if (status == BFT_OK)
        m->places_made = i + 1;
    return status;
}

/* LIST as a delta over BENEATH. */
static bft_status write_delta(struct merge *m, const struct bfti_list *list,
                              uint64_t beneath)
{
    struct bfti_run_spec spec = part_spec(m, 0, list, 0, list->count);
    spec.keep = BFTI_KEEP_DIRTY;
    spec.dead = list->dead;
    spec.dead_count = list->dead_count;
    spec.beneath = beneath;
    m->deltas = bfti_word_deltas(beneath) + 1;
    return write_extent(m, BFTI_EXTENT_DELTA, 0, &spec);
}

/* Cuts at the keys that were asked for; they leave parts that fit, because all
 * of it fits one leaf (checked). */
static void cut_forced(struct merge *m)
{
    const struct bfti_run *run = bfti_minipage_run(m->page);
    bft_slice low = bfti_run_low(run);
    for (size_t i = 0; i < m->force_count; i++) {
        bft_slice key = m->force[i];
        bool found;
        if (bfti_run_range(run, key) != 0 || bfti_key_compare(key, low) <= 0)
            continue;
        memcpy(fence(m, m->parts), key.data, key.len);
        m->fence_len[m->parts] = key.len;
        m->cut[m->parts] = bfti_list_search(m->all, key, &found);
        m->parts++;
        low = key;
    }
}

static bft_status cut_parts(struct merge *m)
{
    struct bfti_run_spec spec = part_spec(m, 0, m->all, 0, m->all->count);
    bft_status status;
    spec.keep = BFTI_KEEP_VALUES;
    m->cut[0] = 0;
    status =
        bfti_run_cuts(&spec, bfti_leaf_run_max(m->leaf_bytes), is_ascending(m),
                      m->cut + 1, BFTI_PARTS_MAX - 1, &m->parts);
    if (status == BFT_OK && (m->parts > 1 || m->force))
        status =
            bfti_rec_buf(m->rec, 2, (m->parts + m->force_count) * BFTI_KEY_MAX);
    if (status != BFT_OK)
        return status;
    m->fence = m->rec->buf[2];
    if (m->force && m->parts == 1)
        cut_forced(m);
    for (size_t i = 1; i < m->parts; i++) {
        const struct bfti_view *view = m->all->view;
        if (m->fence_len[i] == 0)
            m->fence_len[i] = bfti_key_separator(&view[m->cut[i] - 1],
                                                 &view[m->cut[i]], fence(m, i));
        status = bfti_id_alloc_split(m->buffer->table, &m->part_id[i]);
        if (status != BFT_OK)
            return status;
        m->ids_made = i;
    }
    return BFT_OK;
}

static size_t part_begin(const struct merge *m, size_t i)
{
    return m->cut[i] + (i > 0 && (bfti_fault_on(BFTI_FAULT_SPLIT_DROPS) ||
                                  bfti_fault_on(BFTI_FAULT_SPLIT_WRONG_SIDE)));
}

static size_t part_end(const struct merge *m, size_t i)
{
    return i + 1 == m->parts
               ? m->all->count
               : m->cut[i + 1] + bfti_fault_on(BFTI_FAULT_SPLIT_WRONG_SIDE);
}

static bft_status write_base(struct merge *m)
{
    bft_status status;
    bfti_list_keep_values(m->all);
    if (m->disk.count > 0 && m->all->count > 0 &&
        bfti_fault_on(BFTI_FAULT_MERGE_DROPS))
        m->all->count--;
    status = cut_parts(m);
    for (size_t i = 0; status == BFT_OK && i < m->parts; i++) {
        struct bfti_run_spec spec =
            part_spec(m, i, m->all, part_begin(m, i), part_end(m, i));
        spec.keep = BFTI_KEEP_VALUES;
        status = write_extent(m, BFTI_EXTENT_LEAF, i, &spec);
    }
    return status;
}

/* Extents of large values that nothing in the leaf refers to any more.  *STABLE
 * false: another merge was faster, they are gone already. */
static bft_status collect_dead(struct merge *m, bool *stable)
{
    bft_status status = BFT_OK;
    if (m->deltas)
        return BFT_OK; /* the delta carries them on */
    for (size_t i = 0; status == BFT_OK && i < m->all->dead_count; i++) {
        uint64_t place = le64_get(m->all->dead[i].place);
        if (m->buffer->hooks.log_named &&
            m->buffer->hooks.log_named(m->buffer->hooks.ctx, place))
            continue;
        /* It stays until the swing, ours or another's: named, then looked
         * whether it is still to come. */
        bfti_hazard_set(m->rec, BFTI_HAZARD_BENEATH, place);
        *stable = still_there(m);
        if (!*stable)
            return BFT_OK;
        status =
            bfti_large_places(m->buffer, m->rec, m->all->dead[i], &m->dead);
    }
    return status;
}

/* --- pages that stay ----------------------------------------------------- */

/* The word of part I's disk content. */
static uint64_t disk_word(const struct merge *m, size_t i)
{
    return m->deltas ? bfti_delta_word(m->part_place[i], m->deltas)
                     : m->part_place[i];
}

/* Part I's page of at most MOST bytes; 0: it would be larger, or there is no
 * memory. */
static uint64_t build_page(struct merge *m, size_t i,
                           struct bfti_run_spec *spec, uint16_t flags,
                           size_t most)
{
    size_t bytes = bfti_minipage_size(spec, 4, 256);
    uint64_t place;
    struct bfti_minipage *page;
    if (bytes > most)
        bytes = bfti_minipage_size(spec, 0, 0);
    if (bytes > most)
        return 0;
    place = bfti_pool_alloc(m->buffer->pool, bfti_pool_class(bytes));
    if (place == 0)
        return 0;
    page = at(m, place);
    bfti_minipage_build(page, bfti_memory_bytes(place), spec, m->part_id[i],
                        flags, disk_word(m, i));
    page->leaf_bytes = m->leaf_bytes;
    return place;
}

/* The frozen page is on top: build what follows it while no latch is held. */
static void build_kept(struct merge *m)
{
    /* A complete page stays complete: what it holds is what was written. */
    const struct bfti_list *list = m->complete && !m->deltas ? m->all : m->own;
    uint16_t flags = 0;
    if (!(m->flags & BFTI_MERGE_KEEP) || m->frozen != m->word)
        return;
    if (m->complete)
        flags |= BFTI_PAGE_COMPLETE;
    if (m->complete && m->plain && !list_has_large(list))
        flags |= BFTI_PAGE_PLAIN;
    for (size_t i = 0; i < m->parts; i++) {
        struct bfti_run_spec spec = part_of(m, i, list);
        spec.keep = BFTI_KEEP_CLEAN;
        /* It is only a cache. */
        m->part_page[i] =
            build_page(m, i, &spec, flags, bfti_page_bytes_max(m->leaf_bytes));
    }
}

/* --- swing --------------------------------------------------------------- */

static void link_new(struct merge *m, uint64_t gathered)
{
    for (size_t i = 0; i < m->places_made; i++)
        bfti_extent_link(m->buffer->pf, m->part_place[i], gathered);
}

/* The swing is done: what it replaced goes.  A list of held extents that cannot
 * grow costs space until the next open, no data. */
static void unlink_old(struct merge *m, uint64_t gathered)
{
    struct bfti_pagefile *pf = m->buffer->pf;
    uint64_t lsn = bfti_last_lsn(m->buffer);
    bft_status status = BFT_OK;
    for (size_t i = 0; status == BFT_OK && i < m->old_places; i++)
        status = bfti_extent_unlink(pf, m->disk.place[i], gathered, 0);
    for (size_t i = 0; status == BFT_OK && i < m->dead.count; i++)
        status = bfti_extent_unlink(pf, m->dead.place[i], gathered, lsn);
}

static bool in_part(const struct merge *m, size_t i, const struct bfti_view *v)
{
    return (i == 0 || bfti_view_compare_key(v, part_low(m, i)) >= 0) &&
           (i + 1 == m->parts || bfti_view_compare_key(v, part_high(m, i)) < 0);
}

/*
 * Part I's page as TOP is, with a run and a tail.  Where a record of the tail has
 * less in common with the run than its records have among themselves, one run of
 * all may be larger than any block; this is never larger than TOP, its fences
 * apart, and those have their room (bfti_page_bytes_most).
 */
static uint64_t build_like(struct merge *m, size_t i, struct bfti_minipage *top)
{
    struct bfti_list *list = &m->rec->list[TOP];
    unsigned tail = bfti_minipage_tail(top), taken = 0;
    struct bfti_minipage *page;
    size_t bytes = 0;
    uint64_t place;

    bfti_list_from_run(list, bfti_minipage_run(top));
    struct bfti_run_spec spec = part_of(m, i, list);
    spec.keep = BFTI_KEEP_ALL;
    if (i == 0) {
        spec.dead = list->dead;
        spec.dead_count = list->dead_count;
    }
    for (unsigned t = 0; t < tail; t++) {
        struct bfti_view v = bfti_minipage_tail_view(top, t);
        if (!in_part(m, i, &v))
            continue;
        taken++;
        bytes += v.suffix_len + v.value_len;
    }
    bytes = bfti_minipage_size(&spec, taken, bytes);
    assert(bytes <= bfti_page_bytes_most() + (size_t)2 * BFTI_KEY_MAX);
    place = bfti_pool_alloc(m->buffer->pool, bfti_pool_class(bytes));
    if (place == 0)
        return 0;
    page = at(m, place);
    bfti_minipage_build(page, bfti_memory_bytes(place), &spec, m->part_id[i], 0,
                        disk_word(m, i));
    page->leaf_bytes = m->leaf_bytes;
    for (unsigned t = 0; t < tail; t++) {
        struct bfti_view v = bfti_minipage_tail_view(top, t);
        if (in_part(m, i, &v))
            bfti_minipage_append(page, (bft_slice){v.suffix, v.suffix_len},
                                 (bft_slice){v.value, v.value_len}, v.op,
                                 v.flags);
    }
    return place;
}

/* Under the latch: have the lists room for the page above the frozen one, which
 * may have grown? */
static bool top_fits(const struct merge *m, const struct bfti_minipage *top)
{
    unsigned tail = bfti_minipage_tail(top);
    size_t count = bfti_minipage_records(top, tail);
    size_t dead = bfti_minipage_dead_max(top, tail);
    return bfti_list_fits(&m->rec->list[TOP], count, dead) &&
           bfti_list_fits(&m->rec->list[TMP], count, dead);
}

/* Under the latch: the page above the frozen one is divided among the parts.
 * False: no memory; nothing has changed. */
static bool divide_top(struct merge *m, struct bfti_minipage *top)
{
    size_t most = (size_t)BFTI_UNITS_MAX * BFTI_UNIT - BFTI_BLOCK_HEAD;
    struct bfti_list *list = &m->rec->list[TOP];
    bool listed = false; /* build_like() lists something else */
    for (size_t i = 0; i < m->parts; i++) {
        if (!listed)
            bfti_minipage_list(top, bfti_minipage_tail(top), list,
                               &m->rec->list[TMP]);
        struct bfti_run_spec spec = part_of(m, i, list);
        spec.keep = BFTI_KEEP_ALL;
        if (i == 0) {
            spec.dead = list->dead;
            spec.dead_count = list->dead_count;
        } else if (spec.count == 0) {
            continue; /* its word names the extent */
        }
        /* However full the page was: its records must go somewhere. */
        listed = bfti_minipage_size(&spec, 0, 0) <= most;
        m->part_page[i] =
            listed ? build_page(m, i, &spec, 0, most) : build_like(m, i, top);
        if (m->part_page[i] == 0)
            return false;
    }
    return true;
}

static uint64_t part_word(const struct merge *m, size_t i)
{
    return m->part_page[i] ? m->part_page[i] : disk_word(m, i);
}

static void publish_part(struct merge *m, size_t i, struct bfti_entry *entry)
{
    if (m->part_page[i])
        bfti_pool_publish(m->buffer->pool, m->part_page[i], m->part_id[i]);
    bfti_entry_set(entry, part_word(m, i)); /* [place] */
}

/* Latch the new ids; false: try again later with others. */
static bool latch_parts(struct merge *m)
{
    for (size_t i = 1; i < m->parts; i++) {
        struct bfti_table *table = m->buffer->table;
        if (bfti_latch_try(bfti_table_entry(table, m->part_id[i]))) {
            /* Not an id that the running checkpoint has passed by: its image
             * could not say that the leaf is not there. */
            if (bfti_table_change(table, m->part_id[i]) == 0)
                continue;
            bfti_unlatch(m->buffer->env, bfti_table_entry(table, m->part_id[i]),
                         false);
        }
        while (--i > 0)
            bfti_unlatch(m->buffer->env, bfti_table_entry(table, m->part_id[i]),
                         false);
        return false;
    }
    return true;
}

static void release_parts(const struct merge *m)
{
    for (size_t i = 1; i < m->parts; i++)
        bfti_unlatch(m->buffer->env,
                     bfti_table_entry(m->buffer->table, m->part_id[i]), true);
}

/* Under the leaf's latch and its new neighbours': right's words, left's word,
 * parent, release the right.  The caller releases the left.  A right one that was
 * let go before the parent knows it could be split in turn, and the tree would
 * lead past it to what was split off. */
static void swing_split(struct merge *m)
{
    struct bfti_table *table = m->buffer->table;
    bft_slice keys[BFTI_PARTS_MAX];
    for (size_t i = m->parts; --i > 0;) {
        bfti_table_inherit(table, m->id, m->part_id[i]);
        PARK("merge:inherited");
        publish_part(m, i, bfti_table_entry(table, m->part_id[i]));
        keys[i] = part_low(m, i);
    }
    publish_part(m, 0, m->entry);
    if (bfti_fault_on(BFTI_FAULT_SPLIT_LET_GO))
        release_parts(m);
    PARK("merge:split-published");
    m->buffer->hooks.split(m->buffer->hooks.ctx, m->tree_id, keys + 1,
                           m->part_id + 1, m->parts - 1);
    m->buffer->hooks.end(m->buffer->hooks.ctx, m->tree_id);
    if (!bfti_fault_on(BFTI_FAULT_SPLIT_LET_GO))
        release_parts(m);
    bfti_count(m->rec, BFTI_N_SPLITS, m->parts - 1);
}

/* What a split needs before it may change anything: room for the parts of the
 * page on TOP, a tree that nobody is dropping, the new leaves' latches. */
static bool begin_split(struct merge *m, struct bfti_minipage *top)
{
    const struct bfti_hooks *hooks = &m->buffer->hooks;
    if (top && !top_fits(m, top))
        return false;
    if (top && !divide_top(m, top)) {
        m->lacked_room = true;
        return false;
    }
    if (!hooks->begin(hooks->ctx, m->rec, m->tree_id, part_low(m, 0)))
        return false;
    if (latch_parts(m))
        return true;
    hooks->end(hooks->ctx, m->tree_id);
    return false;
}

/* A checkpoint has closed the leaf with the frozen page: what the merge made of
 * it is what the image has, whatever else is merged before the checkpoint looks
 * again. */
static void take_closed(struct merge *m)
{
    uint64_t words[BFTI_PARTS_MAX];
    for (size_t i = 0; i < m->parts; i++)
        words[i] = disk_word(m, i);
    bfti_table_take_for(m->buffer->table, m->page->closed_by, m->part_id, words,
                        m->parts);
}

/* Under the leaf's latch.  False: lost, or a split could not begin. */
static bool swing(struct merge *m)
{
    struct bfti_minipage *top = above(m);
    uint64_t gathered;
    if (!still_there(m) && !bfti_fault_on(BFTI_FAULT_MERGE_BLIND))
        return false;
    if (m->parts > 1 && !begin_split(m, top))
        return false;
    gathered = bfti_table_change(m->buffer->table, m->id);
    PARK("merge:decided");
    link_new(m, gathered);
    if (gathered == 0 && m->page->closed_by)
        take_closed(m);
    if (m->parts > 1)
        swing_split(m);
    else if (top)
        atomic_store(&top->beneath, disk_word(m, 0)); /* [beneath] */
    else
        publish_part(m, 0, m->entry);
    PARK("merge:swung");
    unlink_old(m, gathered);
    bfti_pool_retire(m->buffer->pool, m->frozen);
    if (top && m->parts > 1)
        bfti_pool_retire(m->buffer->pool, m->word);
    return true;
}

/* --- one attempt --------------------------------------------------------- */

static void give_back(struct merge *m)
{
    for (size_t i = 0; i < m->places_made; i++)
        bfti_extent_discard(m->buffer->pf, m->part_place[i]);
    for (size_t i = 1; i <= m->ids_made; i++)
        bfti_id_free(m->buffer->table, m->part_id[i]);
    for (size_t i = 0; i < BFTI_PARTS_MAX; i++)
        if (m->part_page[i])
            bfti_pool_free(m->buffer->pool, m->part_page[i]);
}

/* How many deltas may a leaf of LEAF_BYTES with that HEAD have, when a merge with
 * FLAGS is done? */
static unsigned deltas_max(const struct bfti_buffer *buffer, uint64_t head,
                           uint32_t leaf_bytes, unsigned flags)
{
    if (head == 0 || !(flags & (BFTI_MERGE_DELTA | BFTI_MERGE_EVICT)))
        return 0;
    if (buffer->hurried)
        return BFTI_DELTAS_MAX;
    /* An extent takes a block at least: of a leaf of hardly more a delta would
     * save no writing, and cost who reads the leaf as much as the leaf does. */
    return leaf_bytes >= DELTA_LEAF_MIN ||
           ((flags & BFTI_MERGE_DELTA) && buffer->small_deltas);
}

bool bfti_merge_reads(const struct bfti_buffer *buffer,
                      const struct bfti_minipage *page, unsigned flags)
{
    uint64_t head = atomic_load(&page->beneath);
    return bfti_word_on_disk(head) &&
           bfti_word_deltas(head) >=
               deltas_max(buffer, head, page->leaf_bytes, flags);
}

/* A further delta, which needs no reading. */
static bft_status prepare_delta(struct merge *m)
{
    if (bfti_word_deltas(m->head) > 0)
        atomic_store(&m->buffer->lists, true);
    return write_delta(m, m->own, m->head);
}

/* One delta in the place of all there are, without the base page.  *READY
 * false, and *STABLE true: there is too much for one. */
static bft_status prepare_fold(struct merge *m, bool *ready, bool *stable)
{
    unsigned deltas = bfti_word_deltas(m->head);
    bft_status status = read_disk(m, true, stable);
    *ready = false;
    if (status != BFT_OK || !*stable)
        return status;
    m->old_places = deltas;
    /* A record that is only cached must not cover the one that a delta has. */
    status = list_all(m, !bfti_fault_on(BFTI_FAULT_FOLD_KEEPS_CACHED));
    if (status != BFT_OK || !fits_delta(m, m->all))
        return status;
    *ready = true;
    return write_delta(m, m->all, m->disk.place[deltas]);
}

/* Base pages of all that there is, of which what lies beneath is read. */
static bft_status prepare_base(struct merge *m, bool *stable)
{
    bft_status status;
    PARK("merge:read");
    status = list_all(m, false);
    if (status == BFT_OK)
        status = write_base(m);
    PARK("merge:dead-next");
    if (status == BFT_OK && m->parts > 1)
        status = m->buffer->hooks.ready(m->buffer->hooks.ctx, m->rec,
                                        m->tree_id, part_low(m, 0));
    if (status == BFT_OK)
        status = collect_dead(m, stable);
    return status;
}

/* The base page could not be read, which gave STATUS: a checkpoint leaves it alone,
 * once, instead of keeping the log for it.  Not if it was read, and has another
 * range: the page is not that leaf's. */
static bool is_delta_instead(struct merge *m, bft_status status)
{
    if (status == BFT_OK || status == BFT_GONE || m->disk.count > 0 ||
        !(m->flags & BFTI_MERGE_DELTA) || bfti_word_deltas(m->head) > 0 ||
        !fits_delta(m, m->own))
        return false;
    m->old_places = 0;
    return true;
}

/* Everything up to the swing.  *READY false: start again later. */
static bft_status prepare(struct merge *m, bool *ready)
{
    unsigned most = deltas_max(m->buffer, m->head, m->leaf_bytes, m->flags);
    bool stable = true, delta = false;
    bft_status status = list_own(m);
    *ready = false;
    if (status == BFT_OK && most > 0 && fits_delta(m, m->own)) {
        delta = bfti_word_deltas(m->head) < most;
        status = delta      ? prepare_delta(m)
                 : most > 1 ? prepare_fold(m, &delta, &stable)
                            : BFT_OK;
    }
    if (status == BFT_OK && stable && !delta) {
        status = read_beneath(m, &stable);
        if (is_delta_instead(m, status)) {
            status = prepare_delta(m);
            stable = true;
        } else if (status == BFT_OK && stable) {
            status = prepare_base(m, &stable);
        }
    }
    if (status != BFT_OK || !stable)
        return status;
    PARK("merge:written");
    build_kept(m);
    /* Late, as it grows while we write. */
    if (m->parts > 1 && above(m))
        status = reserve_page(m, TOP, above(m), TOP_MORE);
    *ready = status == BFT_OK;
    return status;
}

static void note_result(struct merge *m)
{
    size_t live = 0;
    bfti_count(m->rec, m->deltas ? BFTI_N_DELTAS : BFTI_N_MERGES, 1);
    if (m->deltas || m->parts > 1 || !m->buffer->hooks.small)
        return;
    for (size_t i = 0; i < m->all->count; i++)
        live += sizeof(struct bfti_slot) + m->all->view[i].suffix_len +
                m->all->view[i].value_len;
    if (live < m->leaf_bytes / 4) /* as the sweep has it */
        m->buffer->hooks.small(m->buffer->hooks.ctx);
}

static bft_status merge(struct bfti_buffer *buffer, struct bfti_rec *rec,
                        uint64_t id, unsigned flags, const bft_slice *force,
                        size_t force_count, bool *done)
{
    struct merge *m = bfti_alloc(buffer->env, sizeof(*m));
    bft_status status = BFT_OK;
    bool ready = false, evict;

    *done = false;
    if (!m)
        return bfti_fail(BFT_NO_MEMORY, "no memory to merge a page");
    memset(m, 0, sizeof(*m));
    m->buffer = buffer;
    m->rec = rec;
    m->entry = bfti_table_entry(buffer->table, id);
    m->id = id;
    m->flags = flags;
    m->force = force;
    m->force_count = force_count;
    m->parts = 1;
    m->part_id[0] = id;
    if (name_frozen(m)) {
        PARK("merge:named");
        status = prepare(m, &ready);
    }
    if (ready)
        PARK("merge:ready");
    if (status == BFT_OK && ready && bfti_latch_briefly(m->entry)) {
        *done = swing(m);
        if (*done) {
            m->places_made = m->ids_made = 0;
            memset(m->part_page, 0, sizeof(m->part_page));
            note_result(m);
        }
        /* A cursor on what was split off watches this latch's number only. */
        bfti_unlatch(buffer->env, m->entry, *done && m->parts > 1);
    }
    if (status == BFT_GONE) /* its tree was dropped, and this leaf with it */
        status = BFT_OK;
    give_back(m);
    for (unsigned i = 0; i < BFTI_HAZARDS; i++)
        bfti_hazard_clear(rec, i);
    bfti_free(buffer->env, m->dead.place);
    evict = m->lacked_room && (flags & BFTI_MERGE_ROOM);
    bfti_free(buffer->env, m);
    /* Splits make these; who splits much passes no other place where they would
     * go. */
    if (*done && bfti_defer_bytes(buffer->threads) >
                     bfti_pool_budget(buffer->pool) / DEFER_SHARE)
        bfti_defer_step(buffer->threads);
    if (evict) { /* the pool may be in pieces with enough free in all */
        unsigned damaged = 1;
        status = bfti_evict_other(buffer, rec, &damaged, &evict);
    }
    return status;
}

bft_status bfti_merge(struct bfti_buffer *buffer, struct bfti_rec *rec,
                      uint64_t id, unsigned flags, bool *done)
{
    return buffer->forgets ? bfti_fold(buffer, rec, id, flags, NULL, 0, done)
                           : merge(buffer, rec, id, flags, NULL, 0, done);
}

bft_status bfti_split_at(struct bfti_buffer *buffer, struct bfti_rec *rec,
                         uint64_t id, const bft_slice *keys, size_t n)
{
    struct bfti_entry *entry = bfti_table_entry(buffer->table, id);
    bool done;
    if (n >= BFTI_PARTS_MAX)
        n = BFTI_PARTS_MAX - 1;
    if (buffer->forgets)
        return bfti_fold(buffer, rec, id, 0, keys, n, &done);
    bfti_latch(buffer->env, entry);
    uint64_t word = bfti_entry_word(entry);
    if (bfti_word_in_memory(word)) {
        struct bfti_minipage *page = bfti_page_at(buffer, word);
        if (!bfti_minipage_frozen(page) &&
            !bfti_word_in_memory(atomic_load(&page->beneath)))
            bfti_freeze(rec, page);
    }
    bfti_unlatch(buffer->env, entry, false);
    return merge(buffer, rec, id, 0, keys, n, &done);
}

void bfti_freeze(struct bfti_rec *rec, struct bfti_minipage *page)
{
    bfti_minipage_freeze(page);
    bfti_count(rec, BFTI_N_FREEZES, 1);
}

uint64_t bfti_closed(struct bfti_buffer *buffer,
                     const struct bfti_minipage *top)
{
    uint64_t beneath = atomic_load(&top->beneath);
    if (!bfti_word_in_memory(beneath))
        return 0;
    return bfti_table_running(buffer->table,
                              bfti_page_at(buffer, beneath)->closed_by);
}
