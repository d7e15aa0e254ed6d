/*
 * Taking what has expired out of trees, so that its space comes back.
 *
 * A pass goes over a tree in key order, some leaves at a step, and removes each
 * record that has expired for everybody: by now, and for every open snapshot.  So
 * no history keeps what goes: who reads one finds nothing either way.  A removal
 * is a conditional delete, which a newer value of the key survives.
 *
 * A pass notes when the first of the records that it leaves expires, and who has
 * published a put when that one does; the next pass begins when that time has
 * come, but not before a part of the tree's lifetime has gone by: so a tree is
 * read some times in the life of a record, not all the time.
 */
#include "cursor_internal.h"
#include "expiry.h"
#include "snapshot.h"

enum {
    LEAF_RECORDS = 256,   /* of one leaf, at a time */
    PASS_SHARE = 8,       /* of the lifetime, between two passes at least ... */
    PASS_MS = 1000,       /* ... and so long, */
    PASS_MOST_MS = 60000, /* but no longer than this */
    LOG_SHARE = 2,        /* of the log's limit: beyond it steps do nothing */
    POOL_SHARE = 2 * BFTI_ROOM_SHARE, /* of its pages: as well below this */
    LOG_BYTES = BFTI_KEY_MAX + 128,
};

/* A record that no pass has seen, or will see, expires then; 0: never. */
static void note(struct bfti_tree *tree, uint64_t expires)
{
    uint64_t due = atomic_load(&tree->expiry_due);
    /* Ends: DUE only falls, but for the beginning of a pass. */
    while (expires && expires < due &&
           !atomic_compare_exchange_weak(&tree->expiry_due, &due, expires))
        ;
}

void bfti_expires_note(struct bfti_tree *tree, const struct bfti_change *change)
{
    const struct bfti_view view = {.value = change->value.data,
                                   .value_len = (uint32_t)change->value.len,
                                   .flags = change->flags};
    if (tree->ttl_ms && change->op == BFTI_OP_PUT)
        note(tree, bfti_view_expires(&view));
}

/* --- one record, one leaf -------------------------------------------------- */

/* A walk over a tree. */
struct walk {
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_tree *tree;
    struct bfti_bound *at; /* where it goes on */
    uint64_t least;        /* when the first of those that stay expires */
    uint64_t removed;
    bft_status damage; /* of the first leaf that was passed by; or BFT_OK */
    bool at_once;      /* leaves that are latched are left to the next pass */
    bool done;
};

/* Remove KEY if its record expired by LIMIT.  BFT_BUSY: its leaf is latched. */
static bft_status remove_one(struct walk *w, bft_slice key, uint64_t limit)
{
    struct bfti_condition gone = {
        .present = true, .now = limit, .expired = true, .at_once = w->at_once};
    struct bfti_engine *engine = w->engine;
    struct bfti_rec *rec = w->rec;
    struct bfti_wal *wal = engine->buffer.wal;
    bft_slice none = {NULL, 0};
    struct bfti_prepared p;
    struct bfti_frame *frame;
    void *payload;
    uint64_t end;
    bft_status status = bfti_change_prepare(engine, rec, w->tree,
                                            BFTI_OP_DELETE, key, none, &p);
    if (status == BFT_OK)
        status = bfti_frame_create(wal, BFTI_FRAME_WRITE,
                                   bfti_frame_record_size(&p.logged), &frame,
                                   &payload);
    if (status != BFT_OK)
        return status;
    bfti_frame_record_put(payload, &p.logged);
    bfti_frame_seal(wal, frame);
    /* A snapshot that is taken from here on is of a later time than LIMIT: the
     * record is none to it, and nothing has to be saved. */
    status = bfti_leaf_write(w->tree, rec, &p.change, frame, &gone,
                             &bfti_unguarded, &end);
    if (status != BFT_OK) {
        bfti_frame_free(wal, frame);
        return status == BFT_CONFLICT ? BFT_OK : status; /* it is another */
    }
    w->removed++;
    bfti_count(rec, BFTI_N_EXPIRED, 1);
    return bfti_commit(engine, rec, BFT_NONE, end);
}

static bft_status walk_leaf(struct walk *w, uint64_t limit)
{
    struct bfti_copy copy = {.env = w->engine->env};
    struct bfti_copy_wish wish = {.key = bfti_bound_key(w->at),
                                  .only = BFTI_COPY_KEYS,
                                  .window = LEAF_RECORDS,
                                  .now = limit,
                                  .expired = true};
    bft_status status = bfti_copy_take(&copy, w->tree, w->rec, &wish);
    PARK("purge:chosen");
    for (size_t i = 0; status == BFT_OK && i < copy.count; i++)
        status = remove_one(w, bfti_copy_key(&copy, i), limit);
    if (status == BFT_BUSY) {
        copy.until = limit;
        status = BFT_OK;
    }
    if (status == BFT_OK) {
        w->least = copy.until < w->least ? copy.until : w->least;
        *w->at = copy.high;
        w->done = w->at->len == 0;
    }
    bfti_copy_free(&copy);
    return status;
}

/* A leaf that cannot be read is told and passed by: so long what expired in it is left
 * to the next pass. */
static bft_status walk_on(struct walk *w, uint64_t limit)
{
    bft_status status = walk_leaf(w, limit);
    if ((status != BFT_CORRUPT && status != BFT_IO) ||
        !bfti_leaf_end(w->tree, w->rec, bfti_bound_key(w->at), w->at))
        return status;
    w->damage = w->damage == BFT_OK ? status : w->damage;
    w->least = limit < w->least ? limit : w->least;
    w->done = w->at->len == 0;
    return BFT_OK;
}

/* --- steps ----------------------------------------------------------------- */

static uint64_t pass_gap(const struct bfti_tree *tree)
{
    uint64_t gap = tree->ttl_ms / PASS_SHARE;
    if (gap > PASS_MOST_MS)
        return PASS_MOST_MS;
    return gap < PASS_MS ? PASS_MS : gap;
}

/* Choose the next tree that is due, in the order of ids.  NULL: none is. */
static struct bfti_tree *next_due(struct bfti_engine *engine, uint64_t now)
{
    struct bfti_purge *p = &engine->purge;
    struct bfti_tree *tree;
    while ((tree = bfti_tree_after(engine, p->tree))) {
        p->tree = tree->id;
        /* Nobody knows yet of one that is being loaded, feeds neither. */
        if (tree->ttl_ms && bfti_tree_is_there(tree) &&
            atomic_load(&tree->expiry_due) <= now && now >= tree->pass_begun &&
            now - tree->pass_begun >= pass_gap(tree))
            return tree;
    }
    p->tree = 0;
    return NULL;
}

/* The tree under way, or the next; NULL: there is nothing to do. */
static struct bfti_tree *choose(struct bfti_engine *engine, uint64_t now)
{
    struct bfti_purge *p = &engine->purge;
    struct bfti_tree *tree =
        p->under_way ? bfti_tree_by_id(engine, p->tree) : NULL;
    if (tree)
        return tree;
    p->under_way = false;
    tree = next_due(engine, now);
    if (tree) {
        p->under_way = true;
        p->at_len = 0;
        p->least = UINT64_MAX;
        /* Before anything is looked at: what is published from here on lowers it
         * again. */
        atomic_store(&tree->expiry_due, UINT64_MAX);
        tree->pass_begun = now;
    }
    return tree;
}

bool bfti_may_remove(const struct bfti_engine *engine)
{
    const struct bfti_buffer *buffer = &engine->buffer;
    return !engine->options.read_only && !atomic_load(&engine->failed) &&
           !bfti_wal_poisoned(buffer->wal) &&
           bfti_log_used(engine) <= engine->options.log_bytes / LOG_SHARE &&
           bfti_pool_free_bytes(buffer->pool) >=
               bfti_pool_pages(buffer->pool) / POOL_SHARE;
}

static bft_status purge_leaf(struct bfti_engine *engine, struct bfti_rec *rec,
                             struct bfti_tree *tree, uint64_t limit)
{
    struct bfti_purge *p = &engine->purge;
    struct bfti_bound at;
    struct walk w = {.engine = engine,
                     .rec = rec,
                     .tree = tree,
                     .at = &at,
                     .least = p->least,
                     .at_once = true};
    bft_status status = bfti_wal_make_room(engine->buffer.wal,
                                           (size_t)LEAF_RECORDS * LOG_BYTES);
    bfti_bound_set(&at, (bft_slice){p->at, p->at_len});
    if (status == BFT_OK)
        status = walk_on(&w, limit);
    p->least = w.least;
    p->at_len = at.len;
    memcpy(p->at, at.bytes, at.len);
    if (status == BFT_OK && !w.done)
        return w.damage;
    /* After a failure the pass is made anew, when the next is due. */
    p->under_way = false;
    note(tree, status == BFT_OK ? p->least : limit);
    if (status == BFT_OK)
        return w.damage;
    return status == BFT_GONE ? BFT_OK : status;
}

bft_status bfti_purge(struct bfti_engine *engine, struct bfti_rec *rec,
                      unsigned leaves)
{
    bft_status status = BFT_OK;
    uint64_t now, limit;
    if (!atomic_load(&engine->expires) || !bfti_may_remove(engine) ||
        !bfti_mutex_try(&engine->purge.lock))
        return BFT_OK;
    now = bfti_now(engine);
    limit = bfti_snapshots_time(engine, now);
    for (unsigned i = 0;
         i < leaves && status == BFT_OK && bfti_may_remove(engine); i++) {
        struct bfti_tree *tree = choose(engine, now);
        if (!tree)
            break;
        status = purge_leaf(engine, rec, tree, limit);
    }
    bfti_mutex_unlock(engine->env, &engine->purge.lock);
    return status;
}

/* --- all of a tree --------------------------------------------------------- */

static bft_status purge_all(bft_tree *handle, struct bfti_rec *rec,
                            struct bfti_tree *tree, struct bfti_bound *at,
                            uint64_t *removed)
{
    struct bfti_engine *engine = tree->engine;
    struct walk w = {.engine = engine,
                     .rec = rec,
                     .tree = tree,
                     .at = at,
                     .least = UINT64_MAX};
    uint64_t limit = bfti_snapshots_time(engine, bfti_now(engine));
    bft_status status = BFT_OK;
    at->len = 0;
    /* Ends: the key rises with each round. */
    while (status == BFT_OK && !w.done) {
        status = bfti_gate_write(engine, rec, (size_t)LEAF_RECORDS * LOG_BYTES);
        if (status == BFT_OK)
            status = walk_on(&w, limit);
    }
    *removed = w.removed;
    if (status == BFT_OK)
        return w.damage;
    /* What a truncation left has nothing to remove. */
    return bfti_handle_moved(handle, tree, status) ? BFT_OK : status;
}

bft_status bft_remove_expired(bft_tree *handle, uint64_t *removed)
{
    struct bfti_engine *engine;
    struct bfti_tree *tree;
    struct bfti_bound *at;
    struct bfti_rec *rec;
    uint64_t count = 0;
    bft_status status = bfti_gate_tree(handle, &engine, &rec);
    if (removed)
        *removed = 0;
    if (status == BFT_OK)
        status = bfti_check_writable(engine);
    tree = status == BFT_OK ? bfti_handle_tree(handle) : NULL;
    if (status == BFT_OK)
        status = bfti_check_expires(tree, 0);
    if (status != BFT_OK)
        return status;
    at = bfti_alloc(engine->env, sizeof(*at));
    if (!at)
        return bfti_fail(BFT_NO_MEMORY, "no memory to look through tree %s",
                         tree->name);
    status = purge_all(handle, rec, tree, at, &count);
    bfti_free(engine->env, at);
    if (removed)
        *removed = count;
    return status;
}
