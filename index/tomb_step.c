/*
 * Taking away what a tombstone of a range lies over: some records of one leaf at
 * a time, in one frame with the news that the tombstone does not lie there any
 * more.  The background does that, who waits until all is gone, and who is about
 * to write under a tombstone, for the keys next to his.
 *
 * Nobody writes a record under a tombstone.  So those that were there when a step
 * looked are all there are as long as the piece is the same.
 */
#include "expiry.h"
#include "snapshot.h"
#include "tomb.h"

#include <assert.h>

enum {
    RECORDS = 256,      /* of a step, at most, */
    SHARE = 16,         /* and of the budget, by their keys */
    SPARE = 8,          /* pieces that others may make between two looks */
    LOG_BYTES = 1 << 9, /* of a step, without its keys */
    WHOLE_STEPS = 16,   /* of a writer, at the low end of a piece */
    GIVE_WAY_NS = 1000 * 1000,
};

/* --- the piece -------------------------------------------------------------- */

enum seen { NONE, COMING, THERE };

/* Does TOMB go on behind what S passes by? */
static bool goes_on(const struct bfti_tomb_step *s,
                    const struct bfti_tombs *tombs,
                    const struct bfti_tomb *tomb)
{
    bft_slice high = bfti_tomb_high(tombs, tomb);
    return s->behind.len == 0 || high.len == 0 ||
           bfti_key_compare(bfti_bound_key(&s->behind), high) < 0;
}

/* What lies over the key that S is to begin with, or at any place if BORN says
 * that, 0 the first piece there is; S gets it.  COMING: it is about to. */
static enum seen look(struct bfti_tomb_step *s, const bft_slice *key,
                      uint64_t born)
{
    uint64_t word = atomic_load(&s->tree->tombs_word); /* [tomb] */
    struct bfti_tombs *tombs;
    const struct bfti_tomb *tomb = NULL;
    enum seen seen = NONE;
    bfti_read_begin(s->rec);
    tombs = atomic_load(&s->tree->tombs);
    if (key)
        tomb = bfti_tombs_find(tombs, *key);
    for (size_t i = 0; !key && tombs && !tomb && i < tombs->count; i++)
        if ((born ? tombs->tomb[i].born == born
                  : tombs->tomb[i].born <= word >> 1) &&
            goes_on(s, tombs, &tombs->tomb[i]))
            tomb = &tombs->tomb[i];
    if (tomb)
        seen = tomb->born <= word >> 1 ? THERE : COMING;
    if (seen == THERE) {
        s->born = tomb->born;
        s->stamp = bfti_tomb_stamp(tombs, tomb);
        bfti_bound_set(&s->from, key ? *key : bfti_tomb_low(tombs, tomb));
        if (!key && bfti_key_compare(bfti_bound_key(&s->from),
                                     bfti_bound_key(&s->behind)) < 0)
            s->from = s->behind;
        bfti_bound_set(&s->high, bfti_tomb_high(tombs, tomb));
    }
    bfti_read_end(s->rec);
    return seen;
}

/* Begin where the piece does. */
static void from_low(struct bfti_tomb_step *s)
{
    const struct bfti_tombs *tombs;
    const struct bfti_tomb *tomb;
    bfti_read_begin(s->rec);
    tombs = atomic_load(&s->tree->tombs);
    tomb = bfti_tombs_find(tombs, bfti_bound_key(&s->from));
    if (tomb)
        bfti_bound_set(&s->from, bfti_tomb_low(tombs, tomb));
    bfti_read_end(s->rec);
}

/* Room for the set without the part that S clears. */
static bft_status make_fresh(struct bfti_tomb_step *s)
{
    struct bfti_engine *engine = s->tree->engine;
    const struct bfti_tombs *tombs;
    size_t count, bytes;
    bfti_read_begin(s->rec);
    tombs = atomic_load(&s->tree->tombs);
    count = tombs ? tombs->count : 0;
    bytes = tombs ? tombs->used : 0;
    bfti_read_end(s->rec);
    s->fresh = bfti_tombs_make(engine, count + SPARE,
                               bytes + (size_t)SPARE * BFTI_KEY_MAX);
    return s->fresh ? BFT_OK
                    : bfti_fail(BFT_NO_MEMORY,
                                "no memory to clear a range of tree %s",
                                s->tree->name);
}

/* Under tombs_lock: is the part that S clears still the piece's?  Then fresh is
 * the set without it. */
static bool still(struct bfti_tomb_step *s)
{
    const struct bfti_tombs *tombs = atomic_load(&s->tree->tombs);
    const struct bfti_tomb *tomb =
        bfti_tombs_find(tombs, bfti_bound_key(&s->from));
    bft_slice next = bfti_bound_key(&s->next), high;
    if (!tomb || tomb->born != s->born)
        return false;
    high = bfti_tomb_high(tombs, tomb);
    if (high.len && (next.len == 0 || bfti_key_compare(next, high) > 0))
        return false;
    return bfti_tombs_without(s->fresh, tombs, bfti_bound_key(&s->from), next);
}

bool bfti_tomb_step_enter(struct bfti_tomb_step *s)
{
    if (!bfti_mutex_try(&s->tree->tombs_lock))
        return false;
    if (still(s))
        return true;
    bfti_mutex_unlock(s->tree->engine->env, &s->tree->tombs_lock);
    return false;
}

void bfti_tomb_step_leave(struct bfti_tomb_step *s)
{
    struct bfti_tree *tree = s->tree;
    uint64_t number = (atomic_load(&tree->tombs_word) >> 1) + 1;
    for (struct bfti_tomb_count *c = tree->tomb_counts; c; c = c->next)
        if (c->born == s->born)
            c->records += s->records;
    PARK("tomb:cleared");
    /* The records have gone before: so who finds nothing over a key finds no
     * record of before either. */
    bfti_tombs_put(tree, s->fresh);
    s->fresh = NULL;
    bfti_tombs_show(tree, number);
    bfti_mutex_unlock(tree->engine->env, &tree->tombs_lock);
}

/* --- a step ------------------------------------------------------------------ */

/* The records of a step. */
struct removal {
    struct bfti_tomb_step *step;
    struct bfti_copy copy; /* keys only */
    size_t count;          /* of them, from the first on */
    struct bfti_change *changes;
    struct bfti_tree **trees;
    struct bfti_frame *frame;
};

/* Which records?  Those of a leaf from FROM on, or some of them. */
static bft_status choose(struct removal *r)
{
    struct bfti_tomb_step *s = r->step;
    struct bfti_copy_wish wish = {.key = bfti_bound_key(&s->from),
                                  .only = BFTI_COPY_KEYS,
                                  .window = RECORDS,
                                  .high = bfti_bound_key(&s->high)};
    size_t most = (size_t)s->tree->engine->options.memory_bytes / SHARE;
    size_t bytes = 0;
    bft_status status = bfti_copy_take(&r->copy, s->tree, s->rec, &wish);
    bft_slice next = bfti_bound_key(&r->copy.high);
    if (status != BFT_OK)
        return status;
    for (r->count = 0; r->count < r->copy.count && r->count < RECORDS &&
                       bytes + BFT_KEY_MAX < most;
         r->count++)
        bytes += bfti_copy_key(&r->copy, r->count).len;
    if (r->count < r->copy.count)
        next = bfti_copy_key(&r->copy, r->count);
    /* A leaf may go on behind the piece. */
    if (wish.high.len &&
        (next.len == 0 || bfti_key_compare(next, wish.high) > 0))
        next = wish.high;
    bfti_bound_set(&s->next, next);
    return BFT_OK;
}

/* How many of them have not expired?  Their leaf may have been split meanwhile. */
static bft_status count_living(struct removal *r)
{
    struct bfti_tomb_step *s = r->step;
    struct bfti_copy copy = {.env = r->copy.env};
    struct bfti_bound at = s->from;
    struct bfti_copy_wish wish = {.only = BFTI_COPY_COUNT,
                                  .window = SIZE_MAX,
                                  .now = bfti_tree_now(s->tree),
                                  .high = bfti_bound_key(&s->next)};
    bft_status status = BFT_OK;
    size_t count = 0;
    s->records = r->count;
    if (!s->tree->ttl_ms)
        return BFT_OK;
    /* Ends: the key rises with each round. */
    do {
        wish.key = bfti_bound_key(&at);
        status = bfti_copy_take(&copy, s->tree, s->rec, &wish);
        count += status == BFT_OK ? copy.count : 0;
        at = copy.high;
    } while (status == BFT_OK && at.len &&
             (wish.high.len == 0 ||
              bfti_key_compare(bfti_bound_key(&at), wish.high) < 0));
    s->records = count < r->count ? count : r->count;
    bfti_copy_free(&copy);
    return status;
}

/* What they are is kept for snapshots that the tombstone comes behind. */
static bft_status save(struct removal *r)
{
    struct bfti_tomb_step *s = r->step;
    struct bfti_engine *engine = s->tree->engine;
    bft_status status = BFT_OK;
    if (!bfti_snapshots_any(engine, 0, s->stamp))
        return BFT_OK;
    for (size_t i = 0; i < r->count && status == BFT_OK; i++)
        status = bfti_history_save(engine, s->rec, s->tree,
                                   bfti_copy_key(&r->copy, i), s->stamp - 1);
    return status;
}

static bft_status prepare(struct removal *r)
{
    struct bfti_tomb_step *s = r->step;
    struct bfti_engine *engine = s->tree->engine;
    struct bfti_frame_range range = {s->tree->id, bfti_bound_key(&s->from),
                                     bfti_bound_key(&s->next), NULL, 0};
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): a pointer */
    size_t each = sizeof(*r->changes) + sizeof(*r->trees);
    size_t bytes = bfti_frame_range_size(&range);
    void *payload;
    uint8_t *to;
    bft_status status;
    r->changes = bfti_alloc(engine->env, each * (r->count + 1));
    if (!r->changes)
        return bfti_fail(BFT_NO_MEMORY, "no memory to clear a range");
    r->trees = (struct bfti_tree **)(r->changes + r->count + 1);
    for (size_t i = 0; i < r->count; i++) {
        struct bfti_frame_record record = {s->tree->id,
                                           BFTI_OP_DELETE,
                                           0,
                                           bfti_copy_key(&r->copy, i),
                                           {NULL, 0}};
        memset(&r->changes[i], 0, sizeof(r->changes[i]));
        r->changes[i].key = record.key;
        r->changes[i].op = BFTI_OP_DELETE;
        r->trees[i] = s->tree;
        bytes += bfti_frame_record_size(&record);
    }
    status = bfti_wal_make_room(engine->buffer.wal, bytes + LOG_BYTES);
    if (status == BFT_OK)
        status = bfti_frame_create(engine->buffer.wal, BFTI_FRAME_CLEAR, bytes,
                                   &r->frame, &payload);
    if (status != BFT_OK)
        return status;
    to = bfti_frame_range_put(payload, &range);
    for (size_t i = 0; i < r->count; i++) {
        struct bfti_frame_record record = {
            s->tree->id, BFTI_OP_DELETE, 0, r->changes[i].key, {NULL, 0}};
        to = bfti_frame_record_put(to, &record);
    }
    bfti_frame_seal(engine->buffer.wal, r->frame);
    return BFT_OK;
}

/* There were none: only the tombstone changes. */
static bft_status publish_none(struct removal *r, uint64_t *end)
{
    struct bfti_tomb_step *s = r->step;
    struct bfti_engine *engine = s->tree->engine;
    bool holds;
    if (s->waits)
        bfti_mutex_lock(engine->env, &s->tree->tombs_lock);
    else if (!bfti_mutex_try(&s->tree->tombs_lock))
        return (bft_status)BFTI_OVERTAKEN;
    holds = bfti_tree_root(s->tree) && still(s);
    if (!holds) {
        bfti_mutex_unlock(engine->env, &s->tree->tombs_lock);
        return (bft_status)BFTI_OVERTAKEN;
    }
    *end = bfti_tree_log(engine, s->rec, r->frame);
    bfti_tomb_step_leave(s);
    return BFT_OK;
}

static bft_status publish(struct removal *r)
{
    struct bfti_tomb_step *s = r->step;
    struct bfti_engine *engine = s->tree->engine;
    struct bfti_guard guard = {.saved = UINT64_MAX, .step = s};
    uint64_t end = 0;
    bft_status status;
    PARK("tomb:chosen");
    status = r->count
                 ? bfti_leaf_write_all(engine, s->rec, r->trees, r->changes,
                                       r->count, r->frame, &guard, &end)
                 : publish_none(r, &end);
    if (status != BFT_OK)
        return status;
    r->frame = NULL;
    return bfti_commit(engine, s->rec, BFT_NONE, end);
}

/* Whoever holds the lock has done what it was taken for. */
static void pass_lock(struct bfti_tree *tree)
{
    const struct bfti_env *env = tree->engine->env;
    bfti_mutex_lock(env, &tree->tombs_lock);
    bfti_mutex_unlock(env, &tree->tombs_lock);
}

/* Readers that were overtaken over and over are to come to an end: but they may be
 * stopped, so not for long. */
static void give_way(const struct bfti_tree *tree)
{
    const struct bfti_env *env = tree->engine->env;
    _Atomic uint32_t never = 0; /* nobody wakes it: a bounded sleep */
    if (atomic_load(&tree->tombs_haste))
        env->wait(env->ctx, &never, 0, GIVE_WAY_NS);
}

/* Would a step of S, who does not wait, have to?  For who changes the set, or for
 * the checkpoint that histories are made behind. */
static bool would_wait(struct bfti_tomb_step *s)
{
    struct bfti_engine *engine = s->tree->engine;
    if (!bfti_mutex_try(&s->tree->tombs_lock))
        return true;
    bfti_mutex_unlock(engine->env, &s->tree->tombs_lock);
    return bfti_snapshots_any(engine, 0, s->stamp) &&
           !bfti_history_is_there(engine);
}

/* Clear what S begins with and some more.  Fine, too, if another came before:
 * BFTI_OVERTAKEN for one who does not wait. */
static bft_status step(struct bfti_tomb_step *s)
{
    struct bfti_engine *engine = s->tree->engine;
    struct removal r = {.step = s, .copy = {.env = engine->env}};
    bft_status status;
    if (!s->waits && would_wait(s))
        return (bft_status)BFTI_OVERTAKEN;
    give_way(s->tree);
    status = choose(&r);
    PARK("tomb:listed");
    if (status == BFT_OK)
        status = count_living(&r);
    if (status == BFT_OK)
        status = save(&r);
    if (status == BFT_OK)
        status = make_fresh(s);
    if (status == BFT_OK)
        status = prepare(&r);
    if (status == BFT_OK)
        status = publish(&r);
    if (status == (bft_status)BFTI_OVERTAKEN && s->waits) {
        pass_lock(s->tree);
        status =
            bfti_tree_root(s->tree)
                ? BFT_OK
                : bfti_fail(BFT_GONE, "tree %s was dropped", s->tree->name);
    }
    if (r.frame)
        bfti_frame_free(engine->buffer.wal, r.frame);
    bfti_free(engine->heap, s->fresh);
    s->fresh = NULL;
    bfti_free(engine->env, r.changes);
    bfti_copy_free(&r.copy);
    return status;
}

/* --- who takes steps ---------------------------------------------------------- */

static struct bfti_tomb_step *step_make(struct bfti_tree *tree,
                                        struct bfti_rec *rec)
{
    struct bfti_tomb_step *s = bfti_alloc(tree->engine->env, sizeof(*s));
    if (!s) {
        (void)bfti_fail(BFT_NO_MEMORY, "no memory to clear a range of tree %s",
                        tree->name);
        return NULL;
    }
    memset(s, 0, sizeof(*s));
    s->tree = tree;
    s->rec = rec;
    s->waits = true;
    return s;
}

/* Is it that something of a leaf cannot be read? */
static bool is_damage(bft_status status)
{
    return status == BFT_CORRUPT || status == BFT_IO;
}

/* A step of S failed for that: the next begins behind the leaf, or, where nobody can
 * tell how far that goes or there are many pieces, behind the piece.  False: that is
 * the end of the tree. */
static bool pass_by(struct bfti_tomb_step *s)
{
    if (bfti_tombs_crowded(s->tree) ||
        !bfti_leaf_end(s->tree, s->rec, bfti_bound_key(&s->from), &s->behind))
        s->behind = s->high;
    return s->behind.len > 0;
}

bft_status bfti_tomb_clear(struct bfti_tree *tree, struct bfti_rec *rec,
                           bft_slice key)
{
    struct bfti_tomb_step *s;
    bool whole = true;
    unsigned steps = 0;
    bft_status status = BFT_OK;
    if (!bfti_tomb_stops(tree, rec, key))
        return BFT_OK;
    s = step_make(tree, rec);
    if (!s)
        return BFT_NO_MEMORY;
    /* Ends: each round clears something, or follows one who did; and nobody
     * deletes the range over and over without that others go on. */
    while (status == BFT_OK) {
        enum seen seen = look(s, &key, 0);
        if (seen == NONE)
            break;
        if (seen == COMING) {
            pass_lock(tree);
            continue;
        }
        /* No more pieces, if there are many: but his own leaf is what counts, and
         * a piece may be as long as the tree. */
        whole = whole && bfti_tombs_crowded(tree) &&
                (steps++ < WHOLE_STEPS || bfti_tombs_full(tree->engine));
        if (whole)
            from_low(s);
        status = bfti_gate_write(tree->engine, rec, 0);
        if (status == BFT_OK)
            status = step(s);
        if (whole && is_damage(status)) {
            whole = false;
            status = BFT_OK;
        }
    }
    bfti_free(tree->engine->env, s);
    return status;
}

/* Take STEPS at most of what the tombstone BORN, or any, has left behind where S
 * begins.  What cannot be read is PASSED by, with that for the STATUS.  *DONE: there
 * is no more. */
static bft_status clear(struct bfti_tomb_step *s, uint64_t born, unsigned steps,
                        bool passes, bool *done)
{
    bft_status first = BFT_OK, status = BFT_OK;
    *done = false;
    for (unsigned i = 0; i < steps && status == BFT_OK && !*done; i++) {
        *done = look(s, NULL, born) != THERE;
        if (!*done)
            status = step(s);
        if (status == (bft_status)BFTI_OVERTAKEN) {
            *done = true;
            status = BFT_OK;
        } else if (passes && is_damage(status)) {
            first = first == BFT_OK ? status : first;
            *done = !pass_by(s);
            status = BFT_OK;
        }
    }
    return status == BFT_OK ? first : status;
}

bft_status bfti_tombs_clear(struct bfti_tree *tree, struct bfti_rec *rec,
                            uint64_t born, unsigned steps, bool *done)
{
    struct bfti_tomb_step *s = step_make(tree, rec);
    bft_status status = BFT_NO_MEMORY;
    *done = false;
    if (s)
        status = clear(s, born, steps, born == 0, done);
    bfti_free(tree->engine->env, s);
    return born == 0 && is_damage(status) ? BFT_OK : status;
}

/* Of TREE, from where the sweep is.  *MORE: there is more of it. */
static bft_status sweep_tree(struct bfti_tree *tree, struct bfti_rec *rec,
                             unsigned leaves, bool *more)
{
    struct bfti_purge *p = &tree->engine->tombs_sweep;
    struct bfti_tomb_step *s = step_make(tree, rec);
    bft_status status;
    bool done;
    if (!s)
        return BFT_NO_MEMORY;
    s->waits = false;
    bfti_bound_set(&s->behind, (bft_slice){p->at, p->at_len});
    status = clear(s, 0, leaves, true, &done);
    *more = !done;
    p->at_len = s->behind.len;
    memcpy(p->at, s->behind.bytes, p->at_len);
    bfti_free(tree->engine->env, s);
    return status;
}

bft_status bfti_tombs_sweep(struct bfti_engine *engine, struct bfti_rec *rec,
                            unsigned leaves, bool *more)
{
    struct bfti_purge *p = &engine->tombs_sweep;
    bft_status first = BFT_OK, status = BFT_OK;
    bool again;
    *more = false;
    if (!atomic_load(&engine->tombs) || !bfti_may_remove(engine) ||
        !bfti_mutex_try(&p->lock))
        return BFT_OK;
    again = p->tree != 0; /* from the first one on, before it is at the end */
    while ((status == BFT_OK || is_damage(status)) && !*more) {
        struct bfti_tree *tree =
            bfti_tree_after(engine, p->tree ? p->tree - 1 : 0);
        if (!tree || tree->id != p->tree)
            p->at_len = 0;
        p->tree = tree ? tree->id : 0;
        if (!tree && !again)
            break;
        again = again && tree;
        status = tree && bfti_tombs_alive(tree)
                     ? sweep_tree(tree, rec, leaves, more)
                     : BFT_OK;
        first = first == BFT_OK ? status : first;
        if (tree && !*more) {
            p->tree = tree->id + 1;
            p->at_len = 0;
        }
    }
    bfti_mutex_unlock(engine->env, &p->lock);
    return first == BFT_GONE ? BFT_OK : first;
}
