/*
 * The copy that a cursor has of a part of a leaf, so that it needs neither latch
 * nor hazard slot between calls.  One linear pass: list what the pages and the
 * disk content hold, newest first, then copy what is visible.
 *
 * A scan that had to read a leaf may leave all of it in memory for others.
 */
#include "cursor_internal.h"
#include "expiry.h"

#include <assert.h>

enum { COPY_BYTES_MIN = 1024, COPY_RECORDS_MIN = 16 };

/* The records of a leaf: views in a list, or, where there is nothing to merge,
 * a run as it is. */
struct source {
    const struct bfti_list *list;
    const struct bfti_run *run;
    size_t count;
    unsigned tail[3]; /* records regarded of each page's tail */
};

static inline struct bfti_view source_view(const struct source *s, size_t i)
{
    return s->list ? s->list->view[i] : bfti_run_view(s->run, (unsigned)i);
}

static size_t source_search(const struct source *s, bft_slice key, bool *found)
{
    return s->list ? bfti_list_search(s->list, key, found)
                   : bfti_run_search(s->run, key, found);
}

/* --- collecting ---------------------------------------------------------- */

/* Does PAGE, with TAIL records in its tail, only repeat what lies beneath? */
static bool only_repeats(const struct bfti_minipage *page, unsigned tail)
{
    if (page->dirty || le16_get(bfti_minipage_run(page)->dead_count))
        return false;
    for (unsigned i = 0; i < tail; i++)
        if (bfti_op_is_dirty(bfti_minipage_tail_view(page, i).op))
            return false;
    return true;
}

/* LISTED: as a list in any case. */
static bft_status collect(const struct bfti_reader *r, bool listed,
                          struct source *s)
{
    s->list = NULL;
    s->run = NULL;
    s->count = 0;
    for (unsigned i = 0; i < r->pages; i++)
        s->tail[i] = bfti_minipage_visible_all(r->page[i]);
    if (r->disk.count == 1 &&
        (r->pages == 0 ||
         (r->pages == 1 && only_repeats(r->page[0], s->tail[0]))))
        s->run = r->disk.run[0];
    else if (r->pages == 1 && r->complete && s->tail[0] == 0)
        s->run = bfti_minipage_run(r->page[0]);
    if (listed || !s->run) {
        bft_status status = bfti_leaf_list(r, s->tail, &s->list);
        assert(status != BFT_OK || s->list);
        s->count = status == BFT_OK ? s->list->count : 0;
        return status;
    }
    s->count = bfti_run_count(s->run);
    return BFT_OK;
}

/* --- copying ------------------------------------------------------------- */

void bfti_copy_free(struct bfti_copy *copy)
{
    copy->valid = false;
    bfti_free(copy->env, copy->record);
    bfti_free(copy->env, copy->bytes);
    copy->record = NULL;
    copy->bytes = NULL;
    copy->cap = copy->bytes_cap = copy->count = copy->used = 0;
}

static bft_status no_memory(void)
{
    return bfti_fail(BFT_NO_MEMORY, "no memory for a cursor");
}

/* Room for so many RECORDS of so many BYTES, with those that are there: copying
 * itself looks for none. */
static bft_status reserve(struct bfti_copy *copy, size_t records, size_t bytes)
{
    if (copy->cap < records) {
        size_t cap = records < COPY_RECORDS_MIN ? COPY_RECORDS_MIN : records;
        struct bfti_copied *grown =
            bfti_realloc(copy->env, copy->record, cap * sizeof(*grown));
        if (!grown)
            return no_memory();
        copy->record = grown;
        copy->cap = cap;
    }
    if (copy->bytes_cap < bytes) {
        size_t cap = bytes < COPY_BYTES_MIN ? COPY_BYTES_MIN : bytes;
        uint8_t *grown = bfti_realloc(copy->env, copy->bytes, cap);
        if (!grown)
            return no_memory();
        copy->bytes = grown;
        copy->bytes_cap = cap;
    }
    return BFT_OK;
}

/* Bytes that copies of the records [FROM, TO) take, or more. */
static size_t bytes_of(const struct source *s, size_t from, size_t to)
{
    size_t bytes = 0;
    if (!s->list)
        return le32_get(s->run->bytes) +
               (to - from) * le16_get(s->run->prefix_len);
    for (size_t i = from; i < to; i++)
        bytes +=
            bfti_view_key_len(&s->list->view[i]) + s->list->view[i].value_len;
    return bytes;
}

/* There is room. */
static inline void copy_add(struct bfti_copy *copy, const struct bfti_view *v)
{
    size_t key_len = bfti_view_key_len(v);
    uint8_t *at = copy->bytes + copy->used;
    copy->record[copy->count++] =
        (struct bfti_copied){.at = copy->used,
                             .value_len = v->value_len,
                             .key_len = (uint16_t)key_len,
                             .flags = v->flags};
    memcpy(at, v->prefix, v->prefix_len);
    at += v->prefix_len;
    if (v->value == v->suffix + v->suffix_len) { /* as in runs: one copy does */
        memcpy(at, v->suffix, v->suffix_len + v->value_len);
    } else {
        memcpy(at, v->suffix, v->suffix_len);
        if (v->value_len)
            memcpy(at + v->suffix_len, v->value, v->value_len);
    }
    copy->used += key_len + v->value_len;
}

/* A view of a record that expires: take the stamp off.  False: it has expired by
 * NOW. */
static bool bare(struct bfti_copy *copy, struct bfti_view *v, uint64_t now)
{
    uint64_t expires = bfti_view_expires(v);
    bft_slice stored = {v->value, v->value_len};
    if (bfti_expired(expires, now))
        return false;
    if (expires && expires < copy->until)
        copy->until = expires;
    if (!(v->flags & BFTI_REC_LARGE)) {
        stored = bfti_payload(stored);
        v->value = stored.data;
        v->value_len = (uint32_t)stored.len;
    }
    return true;
}

/* Does the record count?  If so V is what is copied of it. */
static inline bool is_wished(struct bfti_copy *copy, struct bfti_view *v,
                             const struct bfti_copy_wish *wish)
{
    return bfti_op_has_value(v->op) &&
           (!wish->now || bare(copy, v, wish->now) != wish->expired);
}

static void bound_of_view(struct bfti_bound *bound, struct bfti_view v)
{
    bound->len = (uint16_t)bfti_view_key_len(&v);
    bfti_view_key(&v, bound->bytes);
}

/* From WISH's key on.  Where the window cuts the leaf, the copy looks like one
 * of a smaller leaf: going on by key finds the rest. */
static bft_status copy_from(struct bfti_copy *copy,
                            const struct bfti_copy_wish *wish, size_t window,
                            const struct bfti_run *fences,
                            const struct source *s)
{
    bool found;
    size_t from = wish->key.len ? source_search(s, wish->key, &found) : 0;
    size_t end =
        wish->high.len ? source_search(s, wish->high, &found) : s->count;
    size_t i = from;
    bft_status status = BFT_OK;
    /* Those that do not count, as deleted ones, make a window reach further. */
    while (status == BFT_OK && i < end && copy->count < window) {
        size_t most = window - copy->count;
        size_t to = end - i > most ? i + most : end;
        if (wish->only != BFTI_COPY_COUNT)
            status = reserve(copy, copy->count + (to - i),
                             copy->used + bytes_of(s, i, to));
        for (; status == BFT_OK && i < to; i++) {
            struct bfti_view v = source_view(s, i);
            if (!is_wished(copy, &v, wish))
                continue;
            if (wish->only == BFTI_COPY_KEYS)
                v.value_len = 0;
            if (wish->only == BFTI_COPY_COUNT)
                copy->count++;
            else
                copy_add(copy, &v);
        }
    }
    bfti_bound_set(&copy->low, from ? wish->key : bfti_run_low(fences));
    if (i < s->count)
        bound_of_view(&copy->high, source_view(s, i));
    else
        bfti_bound_set(&copy->high, bfti_run_high(fences));
    return status;
}

static void reverse(struct bfti_copy *copy)
{
    for (size_t i = 0, j = copy->count; i + 1 < j; i++) {
        struct bfti_copied kept = copy->record[i];
        copy->record[i] = copy->record[--j];
        copy->record[j] = kept;
    }
}

/* Down from WISH's key. */
static bft_status copy_below(struct bfti_copy *copy,
                             const struct bfti_copy_wish *wish, size_t window,
                             const struct bfti_run *fences,
                             const struct source *s)
{
    bool found = false;
    size_t to = wish->key.len ? source_search(s, wish->key, &found) : s->count;
    size_t begin = 0, i;
    bft_status status = BFT_OK;
    if (found && wish->or_equal)
        to++;
    if (wish->low.len)
        begin = source_search(s, wish->low, &found);
    for (i = to; status == BFT_OK && i > begin && copy->count < window;) {
        size_t most = window - copy->count;
        size_t down = i - begin > most ? i - most : begin;
        status = reserve(copy, copy->count + (i - down),
                         copy->used + bytes_of(s, down, i));
        while (status == BFT_OK && i > down) {
            struct bfti_view v = source_view(s, --i);
            if (is_wished(copy, &v, wish))
                copy_add(copy, &v);
        }
    }
    if (status != BFT_OK) /* I may be behind the last of them */
        return status;
    reverse(copy);
    if (to < s->count)
        bound_of_view(&copy->high, source_view(s, to));
    else
        bfti_bound_set(&copy->high, bfti_run_high(fences));
    if (i == 0)
        bfti_bound_set(&copy->low, bfti_run_low(fences));
    else if (i == begin) /* the bound, lest the end is looked for below it */
        bfti_bound_set(&copy->low, wish->low);
    else
        bound_of_view(&copy->low, source_view(s, i));
    return BFT_OK;
}

/* --- taking -------------------------------------------------------------- */

static bft_status take(struct bfti_copy *copy, struct bfti_reader *r,
                       const struct bfti_copy_wish *wish, bool *stable)
{
    const struct bfti_run *fences;
    struct source s;
    size_t window;
    bool promoting;
    bft_status status = BFT_OK;

    *stable = true;
    if (!r->complete)
        status = bfti_reader_disk(r, stable);
    if (status != BFT_OK || !*stable)
        return status;
    promoting = bfti_leaf_wanted(r);
    status = collect(r, promoting, &s);
    /* What was read from disk has cost more than copying all of it. */
    window = r->disk.count ? SIZE_MAX : wish->window;
    fences = bfti_reader_run(r);
    copy->count = copy->used = 0;
    copy->until = UINT64_MAX;
    if (status == BFT_OK)
        status = wish->before ? copy_below(copy, wish, window, fences, &s)
                              : copy_from(copy, wish, window, fences, &s);
    if (status != BFT_OK)
        return status;
    *stable = bfti_reader_still(r);
    PARK("cursor:copied");
    if (*stable && promoting)
        bfti_leaf_promote_all(r, s.list, s.tail[0]);
    if (!r->disk.count)
        bfti_reader_touch(r);
    bfti_count(r->rec, r->disk.count ? BFTI_N_MISSES : BFTI_N_HITS, 1);
    return BFT_OK;
}

bft_status bfti_copy_take(struct bfti_copy *copy, struct bfti_tree *tree,
                          struct bfti_rec *rec,
                          const struct bfti_copy_wish *wish)
{
    bool descend_before = wish->before && !wish->or_equal;
    const struct bfti_entry *last = copy->entry;
    size_t ahead = copy->ahead;
    copy->valid = false;
    if (ahead == 0)
        copy->ahead = bfti_leaf_expect(tree, rec, copy, wish->key, wish->before,
                                       wish->before ? wish->low : wish->high,
                                       wish->ahead, wish->further);
    /* Ends: a round is repeated only after another thread changed the leaf. */
    for (;;) {
        struct bfti_reader r;
        bool stable, still;
        bft_status status =
            bfti_reader_open(&r, tree, rec, wish->key, descend_before);
        if (status != BFT_OK)
            return status;
        /* Before any tail is looked at.  What open read from disk already is
         * still the content if the word is the same at the end. */
        copy->entry = r.entry;
        copy->seq = atomic_load_explicit(&r.entry->seq, /* [seq] */
                                         memory_order_acquire);
        status = take(copy, &r, wish, &stable);
        still = status == BFT_OK || bfti_reader_still(&r);
        bfti_reader_close(&r);
        copy->valid = status == BFT_OK && stable;
        if (copy->valid && ahead && copy->entry != last)
            copy->ahead--;
        if (copy->valid && copy->ahead && wish->on)
            copy->ahead = bfti_leaf_expect_on(
                tree, rec, wish->key, wish->before,
                wish->before ? wish->low : wish->high, copy->ahead);
        if (copy->valid || (status != BFT_OK && still))
            return status;
    }
}

bool bfti_leaf_end(struct bfti_tree *tree, struct bfti_rec *rec, bft_slice key,
                   struct bfti_bound *end)
{
    struct bfti_inner *root;
    struct bfti_bound found;
    uint64_t id = BFTI_PAGE_ID_NONE;
    size_t len = 0;
    bfti_read_begin(rec);
    root = bfti_tree_root(tree); /* [root] */
    if (root)
        id = bfti_inner_range(root, key, NULL, NULL, found.bytes, &len);
    bfti_read_end(rec);
    if (id != BFTI_PAGE_ID_NONE)
        bfti_bound_set(end, (bft_slice){found.bytes, len});
    return id != BFTI_PAGE_ID_NONE;
}
