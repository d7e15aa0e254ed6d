/*
 * What a reader that had to go to disk leaves in memory for the next one: while
 * there is memory to spare, and data are not many times as much, all of the leaf;
 * else the one record that it found; or that it did not, where no filter tells.
 *
 * Whole leaves answer every key, those that nobody wrote too, and are made once;
 * single records make the most of memory that is short.  Either is a hint: when
 * the latch is taken, or the leaf has changed, it is dropped.
 */
#include "engine.h"

enum {
    TAIL_RECORDS = 3, /* tail room of a page that is made for one record more */
    TAIL_MUCH = 1,    /* of much data: such room is memory that holds nothing */
    SPARE_SHARE = 4,  /* memory to spare: so much of the budget is free */
    SHORT_SHARE = 8,  /* less than that: the evictor works (background.c) */
    RATE_SHARE = 4,   /* of the usual rate, where memory is not to spare */
    MUCH_TIMES = 4,   /* the budget, and more, in the file: most of what is read
                         will have to go again */
};

/* Is a SHARE'th of the budget free? */
static bool is_free(const struct bfti_engine *engine, unsigned share)
{
    return bfti_pool_free_bytes(engine->buffer.pool) >=
           engine->options.memory_bytes / share;
}

/* Is there so much that single records are to be kept from the first on?  Leaves
 * that fill memory with what lies beside them take long to give way. */
static bool is_much(const struct bfti_engine *engine)
{
    uint64_t live, waiting;
    bfti_space_glance(engine->buffer.pf, &live, &waiting);
    return live / MUCH_TIMES > engine->options.memory_bytes;
}

bool bfti_leaf_wanted(const struct bfti_reader *r)
{
    struct bfti_engine *engine = r->tree->engine;
    uint32_t percent = engine->options.promote_percent;
    if (!r->disk.count || r->pages > 1 || r->pending ||
        (r->pages && bfti_minipage_frozen(r->page[0])))
        return false;
    /* What comes in sends something out then: seldom, so that what is asked for
     * often comes to stay. */
    if (!is_free(engine, SPARE_SHARE))
        percent = (percent + RATE_SHARE - 1) / RATE_SHARE;
    else if (r->rec->awaited && is_much(engine))
        percent *= RATE_SHARE; /* each costs far less than a read */
    if (bfti_rec_random(r->rec) % 100 >= percent)
        return false;
    /* Perhaps there are only readers, and nobody else asks for room. */
    if (!is_free(engine, SHORT_SHARE))
        bfti_wake_evictor(engine);
    return true;
}

/* --- listing a leaf ------------------------------------------------------ */

/*
 * The thread's lists.  Two have room for the records of R, and MORE, no other for
 * more than it must: they stay, and memory has them then.
 */
enum {
    ONE, /* of a page, or of one on disk */
    TMP, /* room to make one with, or takes turns with ALL */
    ALL, /* so far; the next is in the other of these */
    NEXT,
};

static bft_status reserve(const struct bfti_reader *r, const unsigned *tail,
                          size_t more)
{
    const struct bfti_run *const *run = r->disk.run;
    size_t disk = bfti_runs_records(run, r->disk.count), count = disk + more;
    size_t dead = bfti_runs_dead(run, r->disk.count) + more;
    /* What one run has on disk is listed where it stays. */
    size_t one = r->disk.count > 1 && disk > more ? disk : more;
    bft_status status = BFT_OK;
    for (unsigned i = 0; i < r->pages; i++) {
        size_t records = bfti_minipage_records(r->page[i], tail[i]);
        one = records > one ? records : one;
        count += records;
        dead += bfti_minipage_dead_max(r->page[i], tail[i]);
    }
    for (unsigned i = ONE; status == BFT_OK && i <= NEXT; i++)
        status = bfti_list_reserve(r->tree->engine->env, &r->rec->list[i],
                                   i >= ALL ? count : one, dead);
    return status;
}

/* What lies beneath the pages, as they would cache it: the values. */
static void turn_clean(struct bfti_list *list)
{
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (!bfti_op_has_value(list->view[i].op))
            continue;
        list->view[kept] = list->view[i];
        list->view[kept++].op = BFTI_OP_CACHED;
    }
    list->count = kept;
    list->dead_count = 0; /* it is for the disk content to carry them */
}

bft_status bfti_leaf_list(const struct bfti_reader *r, const unsigned *tail,
                          const struct bfti_list **out)
{
    struct bfti_list *list = r->rec->list, *all = NULL;
    bft_status status = reserve(r, tail, 0);
    *out = NULL;
    if (status != BFT_OK)
        return status;
    if (r->disk.count) {
        all = &list[ALL];
        bfti_list_runs(all, NULL, r->disk.run, r->disk.count, &list[ONE],
                       &list[TMP]);
        turn_clean(all);
    }
    for (unsigned i = r->pages; i-- > 0;) {
        struct bfti_list *next = all == &list[ALL] ? &list[NEXT] : &list[ALL];
        if (!all) {
            bfti_minipage_list(r->page[i], tail[i], next, &list[TMP]);
        } else {
            bfti_minipage_list(r->page[i], tail[i], &list[ONE], &list[TMP]);
            bfti_list_merge(next, &list[ONE], all);
        }
        all = next;
    }
    *out = all;
    return BFT_OK;
}

/* --- a new page ---------------------------------------------------------- */

/* A page of all that is in LIST, which comes from R. */
static void spec_of(const struct bfti_reader *r, const struct bfti_list *list,
                    struct bfti_run_spec *spec)
{
    const struct bfti_run *fences = bfti_reader_run(r);
    memset(spec, 0, sizeof(*spec));
    spec->view = list->view;
    spec->count = list->count;
    spec->dead = list->dead; /* of the page that it replaces */
    spec->dead_count = list->dead_count;
    spec->low = bfti_run_low(fences);
    spec->high = bfti_run_high(fences);
    spec->sibling = bfti_run_sibling(fences);
    spec->tree_id = r->tree->id;
    spec->keep = BFTI_KEEP_ALL;
}

/* Under the latch: is the leaf as it was listed, with TAIL records in the tail
 * of its page?  A frozen page is not. */
static bool as_listed(const struct bfti_reader *r, unsigned tail)
{
    struct bfti_reader seen = *r;
    return bfti_reader_still(&seen) &&
           (r->pages == 0 || atomic_load(&r->page[0]->tail) == tail);
}

/* Build SPEC's page in a block for BYTES and, if the leaf still is as listed,
 * put it in the place of R's.  False: no room, or too late. */
static bool put_page(const struct bfti_reader *r,
                     const struct bfti_run_spec *spec, size_t bytes,
                     uint16_t flags, unsigned tail)
{
    struct bfti_buffer *buffer = &r->tree->engine->buffer;
    struct bfti_minipage *page;
    bool done = false;
    uint64_t place = bfti_pool_try_alloc(buffer->pool, bfti_pool_class(bytes));
    if (place == 0)
        return false;
    page = bfti_page_at(buffer, place);
    bfti_minipage_build(page, bfti_memory_bytes(place), spec, r->id, flags,
                        r->head);
    page->leaf_bytes = r->tree->leaf_bytes;
    PARK("promote:built");
    if (bfti_latch_try(r->entry)) {
        done = as_listed(r, tail) || bfti_fault_on(BFTI_FAULT_PROMOTE_BLIND);
        if (done) {
            bfti_pool_publish(buffer->pool, place, r->id);
            PARK("promote:published");
            bfti_entry_set(r->entry, place); /* [place] */
            PARK("promote:swung");
            if (r->pages)
                bfti_pool_retire(buffer->pool, r->place[0]);
        }
        bfti_unlatch(buffer->env, r->entry, false);
    }
    if (!done)
        bfti_pool_free(buffer->pool, place);
    return done;
}

static void count(const struct bfti_reader *r, bool done)
{
    bfti_count(r->rec, done ? BFTI_N_PROMOTIONS : BFTI_N_PROMOTIONS_DROPPED, 1);
}

/* --- all of the leaf ------------------------------------------------------ */

static bool has_large(const struct bfti_content *disk)
{
    bool large = false;
    for (unsigned i = 0; !large && i < disk->count; i++)
        large = le16_get(disk->run[i]->flags) & BFTI_RUN_HAS_LARGE;
    return large;
}

void bfti_leaf_promote_all(const struct bfti_reader *r,
                           const struct bfti_list *list, unsigned tail)
{
    size_t most = bfti_page_bytes_max(r->tree->leaf_bytes), bytes;
    uint16_t flags = BFTI_PAGE_COMPLETE;
    struct bfti_run_spec spec;
    spec_of(r, list, &spec);
    if (!has_large(&r->disk))
        flags |= BFTI_PAGE_PLAIN;
    bytes = bfti_minipage_size(&spec, 4, 256);
    if (bytes > most)
        bytes = bfti_minipage_size(&spec, 0, 0);
    count(r, bytes <= most && put_page(r, &spec, bytes, flags, tail));
}

/* --- one record ----------------------------------------------------------- */

/* Append it to the page that is there.  False: that has no room. */
static bool append(const struct bfti_reader *r, bft_slice key,
                   const struct bfti_view *record)
{
    struct bfti_buffer *buffer = &r->tree->engine->buffer;
    struct bfti_minipage *page = bfti_page_at(buffer, r->place[0]);
    bft_slice value = {record->value, record->value_len};
    struct bfti_view there;
    bool fits = true, done = false;
    if (bfti_latch_try(r->entry)) {
        struct bfti_reader seen = *r;
        fits = bfti_minipage_fits(page, key.len, value.len);
        /* Only if what lies directly beneath the top is what was read.  A write
         * of that key since we looked must not be covered. */
        done = fits && bfti_reader_still(&seen) &&
               !bfti_minipage_frozen(page) &&
               !bfti_minipage_find(page, key, &there);
        PARK("promote:latched");
        if (done)
            bfti_minipage_append(page, key, value, record->op, record->flags);
        bfti_unlatch(buffer->env, r->entry, false);
    }
    if (fits)
        count(r, done);
    return fits;
}

/* A page of what the one there holds, if there is one, and of RECORD. */
static void rebuild(const struct bfti_reader *r, const struct bfti_view *record)
{
    struct bfti_list *list = r->rec->list;
    size_t most = bfti_page_bytes_max(r->tree->leaf_bytes), bytes;
    size_t len = bfti_view_key_len(record) + record->value_len;
    unsigned more = is_much(r->tree->engine) ? TAIL_MUCH : TAIL_RECORDS;
    unsigned tail[3] = {0};
    struct bfti_run_spec spec;
    if (r->pages)
        tail[0] = bfti_minipage_visible(r->page[0]);
    if (reserve(r, tail, 1) != BFT_OK) {
        count(r, false);
        return;
    }
    list[ONE].count = list[ONE].dead_count = 0;
    if (r->pages)
        bfti_minipage_list(r->page[0], tail[0], &list[ONE], &list[TMP]);
    list[TMP].view[0] = *record;
    list[TMP].count = 1;
    list[TMP].dead_count = 0;
    /* Should the page have the key by now, then what it has counts. */
    bfti_list_merge(&list[ALL], &list[ONE], &list[TMP]);
    spec_of(r, &list[ALL], &spec);
    bytes = bfti_minipage_size(&spec, more, len * more);
    if (bytes > most)
        bytes = bfti_minipage_size(&spec, 0, 0);
    count(r, bytes <= most && put_page(r, &spec, bytes, 0, tail[0]));
}

static void promote_leaf(const struct bfti_reader *r)
{
    const struct bfti_list *list;
    unsigned tail[3] = {0};
    if (r->pages)
        tail[0] = bfti_minipage_visible(r->page[0]);
    if (bfti_leaf_list(r, tail, &list) == BFT_OK)
        bfti_leaf_promote_all(r, list, tail[0]);
    else
        count(r, false);
}

void bfti_leaf_promote(const struct bfti_reader *r, bft_slice key,
                       const struct bfti_view *view)
{
    const struct bfti_engine *engine = r->tree->engine;
    bool whole = is_free(engine, SPARE_SHARE) && !is_much(engine);
    struct bfti_view record;
    if (!view && r->fresh && !whole)
        return; /* its filter answers for it, and for others */
    if (!bfti_leaf_wanted(r))
        return;
    if (whole) {
        promote_leaf(r);
        return;
    }
    /* Of VIEW only the value is sure: a large one that was read may have had the
     * leaf opened anew. */
    memset(&record, 0, sizeof(record));
    record.suffix = key.data;
    record.suffix_len = (uint16_t)key.len;
    record.op = BFTI_OP_ABSENT;
    if (view) {
        record.value = view->value;
        record.value_len = view->value_len;
        record.flags = view->flags;
        record.op = BFTI_OP_CACHED;
    }
    if (!r->pages || !append(r, key, &record))
        rebuild(r, &record);
}
