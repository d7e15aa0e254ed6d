/*
 * Salvage: pages.
 *
 * The map, that is the page table's parts and the directory of them, names the
 * newest extent of each page; fences and tree stand in the page itself, so that
 * inner nodes are not needed.  What the map does not lead to is looked for in
 * every block of the file, and taken the newest first: an extent's LSN is the
 * log's end when it was written, so of two pages of a key the one with the
 * higher LSN is the newer.  Of equal LSN are pages between which nothing was
 * logged; there a delta goes before a base page, and what lies further behind
 * in the file before the rest.
 */
#include "expiry.h"
#include "image.h"
#include "salvage.h"

enum { VALUE_AT_ONCE = BFTI_LOGGED_VALUE_MAX };

/* A leaf's disk content, in the thread's scratch memory. */
struct page {
    uint64_t word, id;
    uint32_t tree_id;
    struct bfti_content disk; /* what could be read, newest first */
    bool whole;               /* to its base page */
};

/* --- large values -------------------------------------------------------- */

/* A value that is read part by part. */
struct value {
    struct salvage *s;
    const struct salvage_tree *tree;
    uint64_t page, bytes, at;
    bft_slice key;
    const uint8_t *part; /* the one that AT lies in, when LOADED */
    uint64_t part_index;
    bool loaded, damaged;
};

static void tell_record(struct salvage *s, const struct salvage_tree *tree,
                        uint64_t page, bft_slice key)
{
    bft_salvage_damage damage;
    memset(&damage, 0, sizeof(damage));
    damage.kind = BFT_SALVAGE_RECORD;
    damage.page = page;
    damage.tree_id = tree->id;
    damage.tree = tree->named ? tree->name : NULL;
    damage.key = key;
    bfti_salvage_tell(s, &damage);
}

/* Part INDEX of the value into scratch memory. */
static bft_status load_part(struct value *v, uint64_t index)
{
    struct salvage *s = v->s;
    uint64_t rest = v->bytes - index * BFTI_EXTENT_RAW_MAX;
    uint64_t want = rest < BFTI_EXTENT_RAW_MAX ? rest : BFTI_EXTENT_RAW_MAX;
    size_t at = (size_t)index + bfti_large_is_list(v->bytes), len;
    struct bfti_extent_info info;
    const void *raw;
    bft_status status =
        at < s->places.count
            ? bfti_extent_read(s->source.pf, s->places.place[at],
                               &s->rec->scratch[BFTI_SCRATCH_VALUE], &info,
                               &raw, &len)
            : bfti_fail(BFT_CORRUPT, "a value has too few parts");
    if (status == BFT_OK && (info.type != BFTI_EXTENT_VALUE ||
                             info.tree_id != v->tree->id || len != want))
        status = bfti_fail(
            BFT_CORRUPT, "the extent at byte %llu is not this value's",
            (unsigned long long)bfti_disk_grain(s->places.place[at]) *
                BFTI_GRAIN);
    v->loaded = status == BFT_OK;
    v->part = v->loaded ? raw : NULL;
    v->part_index = index;
    return status;
}

static bft_status value_read(void *ctx, void *buf, size_t len)
{
    struct value *v = ctx;
    uint8_t *to = buf;
    while (len) {
        uint64_t index = v->at / BFTI_EXTENT_RAW_MAX;
        size_t in = (size_t)(v->at % BFTI_EXTENT_RAW_MAX);
        size_t n =
            BFTI_EXTENT_RAW_MAX - in < len ? BFTI_EXTENT_RAW_MAX - in : len;
        bft_status status = BFT_OK;
        if (!v->loaded || v->part_index != index)
            status = load_part(v, index);
        v->damaged = salvage_is_damage(status);
        if (status != BFT_OK)
            return status;
        memcpy(to, v->part + in, n);
        v->at += n;
        to += n;
        len -= n;
    }
    return BFT_OK;
}

/* A value as the page or the log has it, with its stamp. */
static bft_status put_stored(const struct salvage_tree *tree, bft_slice key,
                             bft_slice value)
{
    return bfti_write_one(tree->target, BFTI_OP_PUT, key, value,
                          BFTI_EXPIRES_STORED, NULL);
}

/* In one piece when it is short: a stream syncs the file for each. */
static bft_status value_write(struct value *v)
{
    struct salvage *s = v->s;
    bft_status status;
    if (v->bytes > VALUE_AT_ONCE)
        return bfti_put_stream(v->tree->target, v->key, v->bytes, value_read, v,
                               BFTI_EXPIRES_STORED);
    if (!s->value)
        s->value = bfti_alloc(s->env, VALUE_AT_ONCE);
    if (!s->value)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a value");
    status = value_read(v, s->value, (size_t)v->bytes);
    return status == BFT_OK
               ? put_stored(v->tree, v->key,
                            (bft_slice){s->value, (size_t)v->bytes})
               : status;
}

/* Can the tree not have the record itself? */
static bool is_refused(bft_status status)
{
    return status == BFT_TOO_BIG || status == BFT_INVALID;
}

bft_status bfti_salvage_large(struct salvage *s,
                              const struct salvage_tree *tree, uint64_t page,
                              bft_slice key, struct bfti_large large,
                              bool *done)
{
    struct value v = {.s = s, .tree = tree, .page = page, .key = key};
    bft_status status = BFT_OK;
    v.bytes = bfti_large_bytes(&large);
    s->places.count = 0;
    *done = false;
    if (v.bytes == 0 || v.bytes > BFT_VALUE_MAX)
        status = bfti_fail(BFT_CORRUPT, "a value of %llu bytes",
                           (unsigned long long)v.bytes);
    if (status == BFT_OK)
        status = bfti_large_places(&s->source, s->rec, large, &s->places);
    v.damaged = salvage_is_damage(status);
    if (status == BFT_OK)
        status = value_write(&v);
    *done = status == BFT_OK;
    if (!v.damaged && !is_refused(status))
        return status;
    tell_record(s, tree, page, key);
    return BFT_OK;
}

bft_status bfti_salvage_put(struct salvage *s, const struct salvage_tree *tree,
                            uint64_t page, bft_slice key, bft_slice value,
                            bool *done)
{
    bft_status status = put_stored(tree, key, value);
    *done = status == BFT_OK;
    if (!is_refused(status))
        return status;
    tell_record(s, tree, page, key);
    return BFT_OK;
}

/* --- one page ------------------------------------------------------------ */

static bool nobody_writes(void *arg)
{
    (void)arg;
    return true;
}

/* Of DISK the runs that are of the same tree as the newest. */
static unsigned of_one_tree(const struct bfti_content *disk)
{
    unsigned n = disk->count > 0;
    while (n < disk->count &&
           le32_get(disk->run[n]->tree_id) == le32_get(disk->run[0]->tree_id))
        n++;
    return n;
}

/* Read the page that WORD leads to.  BFT_CORRUPT: an extent of it is damaged;
 * those above it were read. */
static bft_status page_read(struct salvage *s, uint64_t word, uint64_t id,
                            struct page *page)
{
    bool stable;
    bft_status status;
    memset(page, 0, sizeof(*page));
    page->word = word;
    page->id = id;
    status = bfti_disk_read(&s->source, s->rec, word, 0, id, nobody_writes,
                            NULL, false, &stable, &page->disk);
    if (page->disk.count)
        page->tree_id = le32_get(page->disk.run[0]->tree_id);
    if (of_one_tree(&page->disk) < page->disk.count) {
        page->disk.count = of_one_tree(&page->disk);
        status = bfti_fail(
            BFT_CORRUPT, "page %llu: a delta of tree %lu over another's page",
            (unsigned long long)id, (unsigned long)page->tree_id);
    }
    page->whole = status == BFT_OK;
    return status;
}

/* Longer than a caller's keys are, and fences between them? */
static bool is_too_long(size_t len)
{
    return len > BFT_KEY_MAX;
}

/* Does PAGE have what only a history has, of which no tree is to be made? */
static bool is_history(const struct page *page)
{
    bool is = false;
    for (unsigned r = 0; r < page->disk.count && !is; r++) {
        const struct bfti_run *run = page->disk.run[r];
        is = is_too_long(bfti_run_low(run).len) ||
             is_too_long(bfti_run_high(run).len);
        for (unsigned i = 0; i < bfti_run_count(run) && !is; i++) {
            struct bfti_view view = bfti_run_view(run, i);
            is = is_too_long(bfti_view_key_len(&view));
        }
    }
    return is;
}

/* PAGE is one of a history.  By the newest map and catalogue so is all of its tree;
 * else its number may have been given again. */
static bft_status pass_history(struct salvage *s, const struct page *page)
{
    const struct salvage_tree *tree = bfti_salvage_find(s, page->tree_id);
    return s->mapped && s->catalogue_exact && tree && tree->loading
               ? bfti_salvage_dropped(s, page->tree_id)
               : BFT_OK;
}

/* The extent that a failure to read PAGE speaks of. */
static uint64_t failed_place(const struct page *page)
{
    return page->disk.place[page->disk.count];
}

static void page_range(const struct page *page, struct salvage_range *range)
{
    bft_slice low = bfti_run_low(page->disk.run[0]);
    bft_slice high = bfti_run_high(page->disk.run[0]);
    memset(range, 0, sizeof(*range));
    range->low_len = low.len;
    range->high_len = high.len;
    if (low.len)
        memcpy(range->low, low.data, low.len);
    if (high.len)
        memcpy(range->high, high.data, high.len);
}

static bft_status put_view(struct salvage *s, const struct salvage_tree *tree,
                           uint64_t page, const struct bfti_view *view,
                           uint64_t *records)
{
    uint8_t buf[BFTI_KEY_MAX];
    bft_slice key = {buf, bfti_view_key_len(view)};
    bft_slice value = {view->value, view->value_len};
    struct bfti_large large;
    bool done = false;
    bft_status status;
    bfti_view_key(view, buf);
    if (view->flags & BFTI_REC_LARGE) {
        memcpy(&large, view->value, sizeof(large));
        status = bfti_salvage_large(s, tree, page, key, large, &done);
    } else {
        status = bfti_salvage_put(s, tree, page, key, value, &done);
    }
    *records += done;
    return status;
}

/* Has one of the COUNT runs something to say of VIEW's key? */
static bool runs_have(const struct bfti_run *const *run, unsigned count,
                      const struct bfti_view *view)
{
    uint8_t buf[BFTI_KEY_MAX];
    bool found = false;
    bfti_view_key(view, buf);
    for (unsigned i = 0; !found && i < count; i++)
        (void)bfti_run_search(run[i], (bft_slice){buf, bfti_view_key_len(view)},
                              &found);
    return found;
}

/* Write what the AT'th run of PAGE has in RANGE and the newer ones have not. */
static bft_status put_run(struct salvage *s, const struct salvage_tree *tree,
                          const struct page *page, unsigned at,
                          const struct salvage_range *range, uint64_t *records)
{
    const struct bfti_run *run = page->disk.run[at];
    bft_slice high = salvage_high(range);
    bool found;
    unsigned i =
        range->low_len ? bfti_run_search(run, salvage_low(range), &found) : 0;
    for (; i < bfti_run_count(run); i++) {
        struct bfti_view view = bfti_run_view(run, i);
        bft_status status = BFT_OK;
        if (high.len && bfti_view_compare_key(&view, high) >= 0)
            break;
        if (bfti_op_has_value(view.op) && !runs_have(page->disk.run, at, &view))
            status = put_view(s, tree, page->id, &view, records);
        if (status != BFT_OK)
            return status;
    }
    return BFT_OK;
}

/* Write what PAGE has of keys that nothing was found of yet. */
static bft_status page_put(struct salvage *s, struct salvage_tree *tree,
                           const struct page *page,
                           struct salvage_origin origin)
{
    struct salvage_range range, part;
    bool there;
    bft_status status;
    page_range(page, &range);
    status = bfti_salvage_missing(tree, &range, &part, &there);
    /* Ends: each part is found from then on. */
    while (status == BFT_OK && there) {
        origin.records = 0;
        for (unsigned i = page->disk.count; status == BFT_OK && i-- > 0;)
            status = put_run(s, tree, page, i, &part, &origin.records);
        if (status == BFT_OK)
            status = bfti_salvage_cover(s, tree, &part, &origin);
        s->report.records += origin.records;
        s->report.records_old += origin.old ? origin.records : 0;
        if (status == BFT_OK)
            status = bfti_salvage_missing(tree, &range, &part, &there);
    }
    return status;
}

/* --- changes without what they change ------------------------------------ */

struct order_value {
    le64 word, page, lsn;
};

static void put_big(uint8_t to[8], uint64_t v)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(v >> (56 - 8 * i));
}

static bft_status note_orphan(struct salvage *s, const struct page *page,
                              uint64_t lsn)
{
    struct order_value value = {le64_of(page->word), le64_of(page->id),
                                le64_of(lsn)};
    uint8_t key[16];
    bft_status status = BFT_OK;
    put_big(key, lsn);
    put_big(key + 8, s->orphan_count++);
    if (!s->orphans)
        status = bfti_salvage_work_tree(s, "orphans", 0, &s->orphans);
    return status == BFT_OK ? bft_put(s->orphans, (bft_slice){key, sizeof(key)},
                                      (bft_slice){&value, sizeof(value)})
                            : status;
}

static bft_status orphan_put_view(struct salvage *s,
                                  const struct salvage_tree *tree,
                                  const struct page *page,
                                  const struct bfti_view *view,
                                  uint64_t *records)
{
    uint8_t buf[BFTI_KEY_MAX];
    bft_slice key = {buf, bfti_view_key_len(view)};
    bft_status status;
    bfti_view_key(view, buf);
    status = bft_delete(tree->target, key);
    if (status != BFT_OK && !is_refused(status))
        return status;
    return bfti_op_has_value(view->op)
               ? put_view(s, tree, page->id, view, records)
               : BFT_OK;
}

/* Of the changes in PAGE's AT'th delta those that no newer page or delta has. */
static bft_status orphan_put_run(struct salvage *s, struct salvage_tree *tree,
                                 const struct page *page, unsigned at,
                                 uint64_t lsn, uint64_t *records)
{
    const struct bfti_run *run = page->disk.run[at];
    bft_status status = BFT_OK;
    for (unsigned i = 0; status == BFT_OK && i < bfti_run_count(run); i++) {
        struct bfti_view view = bfti_run_view(run, i);
        uint8_t buf[BFTI_KEY_MAX];
        bft_slice key = {buf, bfti_view_key_len(&view)};
        bool newer;
        if (runs_have(page->disk.run, at, &view))
            continue;
        bfti_view_key(&view, buf);
        status = bfti_salvage_newer(tree, key, lsn, &newer);
        if (status != BFT_OK || newer)
            continue;
        status = orphan_put_view(s, tree, page, &view, records);
        /* Frames before a hole in the log may be older.  By the map none is. */
        if (status == BFT_OK && lsn != SALVAGE_NEWEST)
            status = bfti_salvage_changed(s, tree, key, lsn);
    }
    return status;
}

/* Of the changes in deltas those that no newer page has. */
static bft_status orphan_put(struct salvage *s, struct salvage_tree *tree,
                             const struct page *page, uint64_t lsn)
{
    bool old = lsn != SALVAGE_NEWEST;
    struct salvage_range range;
    uint64_t records = 0;
    bft_status status = BFT_OK;
    for (unsigned i = 0; status == BFT_OK && i < page->disk.count; i++)
        status = orphan_put_run(s, tree, page, i, lsn, &records);
    s->report.records += records;
    s->report.records_old += old ? records : 0;
    page_range(page, &range);
    if (old && records)
        bfti_salvage_tell_range(s, tree, &range, BFT_SALVAGE_OLD, records);
    return status;
}

static struct order_value order_value_of(bft_slice bytes)
{
    struct order_value value;
    memset(&value, 0, sizeof(value));
    if (bytes.len == sizeof(value))
        memcpy(&value, bytes.data, sizeof(value));
    return value;
}

/* Call EACH for every page noted in TREE, in its order. */
static bft_status walk(struct salvage *s, bft_tree *tree,
                       bft_status (*each)(struct salvage *s, uint64_t word,
                                          uint64_t page, uint64_t lsn))
{
    bft_cursor *cursor = NULL;
    bft_status status = bft_cursor_open_newest(tree, &cursor);
    if (status == BFT_OK)
        status = bft_cursor_next(cursor);
    while (status == BFT_OK) {
        bft_slice value;
        struct order_value v;
        status = bft_cursor_value(cursor, &value);
        if (status != BFT_OK)
            break;
        v = order_value_of(value);
        status = each(s, le64_get(v.word), le64_get(v.page), le64_get(v.lsn));
        if (status == BFT_OK)
            status = bft_cursor_next(cursor);
    }
    bft_cursor_close(cursor);
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

static bft_status take_orphan(struct salvage *s, uint64_t word, uint64_t id,
                              uint64_t lsn)
{
    struct salvage_tree *tree;
    struct page page;
    bft_status status = page_read(s, word, id, &page);
    if (status != BFT_OK && !salvage_is_damage(status))
        return status;
    if (!page.disk.count)
        return BFT_OK; /* it was there, and is not any more */
    status = bfti_salvage_tree(s, page.tree_id, false, &tree);
    return status == BFT_OK && tree ? orphan_put(s, tree, &page, lsn) : status;
}

bft_status bfti_salvage_orphans(struct salvage *s)
{
    return s->orphans ? walk(s, s->orphans, take_orphan) : BFT_OK;
}

/* --- by the map ---------------------------------------------------------- */

/* Is a page older than the catalogue, when its tree would be in it? */
static bool before_catalogue(const struct salvage *s, uint64_t lsn)
{
    return lsn <= s->catalogue_lsn;
}

static bft_status mapped_page(struct salvage *s, uint64_t word, uint64_t id)
{
    struct salvage_origin newest = {SALVAGE_NEWEST, 0, false};
    struct salvage_tree *tree;
    struct page page;
    bft_status status = page_read(s, word, id, &page);
    if (status != BFT_OK && !salvage_is_damage(status))
        return status;
    if (status != BFT_OK) {
        s->pages_lost = true;
        bfti_salvage_extent(s, failed_place(&page), id, page.tree_id);
        if (!page.disk.count)
            return BFT_OK;
    }
    if (is_history(&page))
        return pass_history(s, &page);
    /* All trees of this image are in its catalogue. */
    status = bfti_salvage_tree(s, page.tree_id, s->catalogue_exact, &tree);
    if (status != BFT_OK || !tree)
        return status;
    return page.whole ? page_put(s, tree, &page, newest)
                      : note_orphan(s, &page, SALVAGE_NEWEST);
}

static void lose_parts(struct salvage *s, size_t from, size_t to)
{
    s->pages_lost = true;
    for (; from < to && from < s->parts; from++) {
        s->lost_count++;
        s->lost[from / 64] |= UINT64_C(1) << from % 64;
    }
}

static bool part_is_lost(const struct salvage *s, uint64_t page)
{
    uint64_t part = page / BFTI_PART_IDS;
    return part < s->parts && (s->lost[part / 64] >> part % 64 & 1);
}

static bft_status mapped_part(struct salvage *s, size_t index, uint64_t place)
{
    le64 words[BFTI_PART_IDS];
    const void *raw;
    size_t len;
    bool whole;
    bft_status status;
    if (!place) /* the image has no leaf in it: see bfti_table_load() */
        return BFT_OK;
    status = bfti_salvage_meta(s, place, BFTI_EXTENT_TABLE, index, &whole, NULL,
                               &raw, &len);
    if (status == BFT_OK && whole && len != sizeof(words)) {
        (void)bfti_fail(BFT_CORRUPT, "a page-table part has %zu bytes", len);
        bfti_salvage_extent(s, place, 0, 0);
        whole = false;
    }
    if (status != BFT_OK || !whole) {
        lose_parts(s, index, index + 1);
        return status;
    }
    memcpy(words, raw, sizeof(words));
    for (size_t i = 0; status == BFT_OK && i < BFTI_PART_IDS; i++) {
        uint64_t word = le64_get(words[i]);
        if (bfti_word_on_disk(word))
            status = mapped_page(s, word, index * BFTI_PART_IDS + i);
    }
    return status;
}

/* Directory I, whose first part is FIRST. */
static bft_status mapped_directory(struct salvage *s, unsigned i, size_t first,
                                   size_t each)
{
    const void *raw;
    size_t len, parts;
    bool whole;
    uint64_t *places;
    bft_status status = bfti_salvage_meta(s, s->sb.root[i], BFTI_EXTENT_TABLE,
                                          BFTI_DIRECTORY_ID | (i - 1), &whole,
                                          NULL, &raw, &len);
    if (status != BFT_OK || !whole) {
        lose_parts(s, first, first + each);
        return status;
    }
    parts = len / sizeof(le64);
    places = bfti_alloc(s->env, len + sizeof(*places));
    if (!places)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a page-table directory");
    for (size_t p = 0; p < parts; p++)
        places[p] = le64_get(((const le64 *)raw)[p]);
    for (size_t p = 0; status == BFT_OK && p < parts; p++)
        status = mapped_part(s, first + p, places[p]);
    bfti_free(s->env, places);
    return status;
}

bft_status bfti_salvage_mapped_pages(struct salvage *s)
{
    size_t each = BFTI_EXTENT_RAW_MAX / sizeof(le64);
    size_t most = (BFTI_ROOT_PLACES - 1) * each;
    uint64_t parts =
        s->sb.page_ids / BFTI_PART_IDS + (s->sb.page_ids % BFTI_PART_IDS != 0);
    bft_status status = BFT_OK;
    s->parts = parts < most ? (size_t)parts : most;
    s->lost = bfti_alloc(s->env, s->parts / 8 + sizeof(*s->lost));
    if (!s->lost)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a map");
    memset(s->lost, 0, s->parts / 8 + sizeof(*s->lost));
    for (unsigned i = 1; status == BFT_OK && i < s->sb.root_count; i++)
        status = mapped_directory(s, i, (i - 1) * each, each);
    return status;
}

/* --- all through the file ------------------------------------------------ */

/* May any page be taken for a range that is missing?  Of a damaged one there
 * may be a newer one that is whole, if the map is not the newest. */
static bool wants_all(const struct salvage *s)
{
    return !s->mapped || s->doubted || s->options.old == BFT_SALVAGE_OLD_ALWAYS;
}

static bool is_wanted(const struct salvage *s,
                      const struct bfti_extent_info *info)
{
    return wants_all(s) || part_is_lost(s, info->page_id);
}

/* The word of a delta at PLACE with RAW in it: who reads it learns what is wrong
 * with that. */
static uint64_t delta_word(uint64_t place, const void *raw, size_t len)
{
    unsigned deltas = 0;
    if (len >= sizeof(struct bfti_run))
        deltas =
            bfti_word_deltas(le64_get(((const struct bfti_run *)raw)->beneath));
    return bfti_delta_word(place, deltas < BFTI_DELTAS_MAX ? deltas + 1 : 1);
}

static bft_status note_page(struct salvage *s,
                            const struct bfti_extent_info *info, uint64_t place,
                            const void *raw, size_t len)
{
    bool base = info->type == BFTI_EXTENT_LEAF;
    struct order_value value = {
        le64_of(base ? place : delta_word(place, raw, len)),
        le64_of(info->page_id), le64_of(info->lsn)};
    uint8_t key[17];
    put_big(key, ~info->lsn);
    key[8] = base;
    put_big(key + 9, ~bfti_disk_grain(place));
    return bft_put(s->order, (bft_slice){key, sizeof(key)},
                   (bft_slice){&value, sizeof(value)});
}

/* Call EACH for every whole extent of the page file. */
static bft_status
scan(struct salvage *s,
     bft_status (*each)(struct salvage *s, const struct bfti_extent_info *info,
                        uint64_t place, const void *raw, size_t len, void *arg),
     void *arg)
{
    struct bfti_extent_scan scan;
    bft_status status = bfti_extent_scan_begin(&scan, s->source.pf);
    while (status == BFT_OK) {
        struct bfti_extent_info info;
        const void *raw;
        uint64_t place;
        size_t len;
        status =
            bfti_extent_scan_next(&scan, &s->meta, &place, &info, &raw, &len);
        if (status != BFT_OK || place == 0)
            break;
        status = each(s, &info, place, raw, len, arg);
    }
    bfti_extent_scan_end(&scan);
    return status;
}

static bft_status scanned_page(struct salvage *s,
                               const struct bfti_extent_info *info,
                               uint64_t place, const void *raw, size_t len,
                               void *arg)
{
    (void)arg;
    return (info->type == BFTI_EXTENT_LEAF ||
            info->type == BFTI_EXTENT_DELTA) &&
                   is_wanted(s, info)
               ? note_page(s, info, place, raw, len)
               : BFT_OK;
}

static bft_status take_page(struct salvage *s, uint64_t word, uint64_t id,
                            uint64_t lsn)
{
    struct salvage_origin origin = {lsn, 0, true};
    struct salvage_tree *tree;
    struct page page;
    bft_status status = page_read(s, word, id, &page);
    if (status != BFT_OK && (!salvage_is_damage(status) || !page.disk.count))
        return salvage_is_damage(status) ? BFT_OK : status;
    if (is_history(&page))
        return pass_history(s, &page);
    status =
        bfti_salvage_tree(s, page.tree_id, before_catalogue(s, lsn), &tree);
    if (status != BFT_OK || !tree)
        return status;
    return page.whole ? page_put(s, tree, &page, origin)
                      : note_orphan(s, &page, lsn);
}

bft_status bfti_salvage_other_pages(struct salvage *s)
{
    bft_status status = BFT_OK;
    if (s->options.old == BFT_SALVAGE_OLD_NEVER ||
        (s->mapped && !(wants_all(s) ? s->pages_lost : s->lost_count > 0)))
        return BFT_OK;
    status = bfti_salvage_work_tree(s, "pages", 0, &s->order);
    if (status == BFT_OK)
        status = scan(s, scanned_page, NULL);
    return status == BFT_OK ? walk(s, s->order, take_page) : status;
}

static bft_status scanned_dictionary(struct salvage *s,
                                     const struct bfti_extent_info *info,
                                     uint64_t place, const void *raw,
                                     size_t len, void *arg)
{
    bft_status status;
    (void)place;
    (void)arg;
    if (info->type != BFTI_EXTENT_DICTIONARY)
        return BFT_OK;
    status = bfti_codec_offer(s->source.pf, info, raw, len);
    return salvage_is_damage(status) ? BFT_OK : status;
}

bft_status bfti_salvage_other_dictionaries(struct salvage *s)
{
    bool some = !s->has_sb || s->sb.must_know & BFTI_FEATURE_DICTIONARIES;
    bool found = s->mapped && s->catalogue_exact && !s->dictionary_lost;
    return some && !found ? scan(s, scanned_dictionary, NULL) : BFT_OK;
}

struct best {
    uint64_t place, lsn;
};

static bft_status scanned_catalogue(struct salvage *s,
                                    const struct bfti_extent_info *info,
                                    uint64_t place, const void *raw, size_t len,
                                    void *arg)
{
    struct best *best = arg;
    (void)s;
    (void)raw;
    (void)len;
    if (info->type == BFTI_EXTENT_CATALOGUE &&
        (best->place == 0 || info->lsn >= best->lsn))
        *best = (struct best){place, info->lsn};
    return BFT_OK;
}

bft_status bfti_salvage_look_for_catalogue(struct salvage *s)
{
    struct best best = {0, 0};
    bool whole;
    bft_status status = scan(s, scanned_catalogue, &best);
    return status == BFT_OK && best.place
               ? bfti_salvage_catalogue(s, best.place, false, &whole)
               : status;
}
