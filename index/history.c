/*
 * Histories: what records were while snapshots were open.
 *
 * A history is a tree like others, in the same pool and page file, so that what
 * snapshots need leaves memory like everything else.  No log has its changes and
 * recovery drops it: snapshots end with their process.  Its keys are a tree's
 * number (4 bytes, big-endian) and the key there; the value is a list of
 * versions, oldest first.
 *
 * A version was right for the snapshots from the end of the one before it up to,
 * and without, its own end.  Long values lie apart, under tree number 0, which no
 * tree has, and a serial number.
 *
 * Since nothing is removed from a history, it is left behind when it has grown,
 * for another; and dropped when no snapshot is as old as it.
 */
#include "cursor_internal.h"
#include "expiry.h"
#include "snapshot.h"

#include <assert.h>

enum {
    LEAF_BYTES = 4608,     /* the least that takes the longest key */
    APART_BYTES = 1 << 16, /* values from so many on lie apart */
    GROWN_SHARE = 4,       /* of the budget: then it is left behind */
    ID_BYTES = 4,
    LAY_LEAST = 16, /* versions that are laid over a copy at least, */
    LAY_MAX = 1024, /* and of each epoch at most */
};
static_assert(LEAF_BYTES / BFTI_KEY_SHARE >= BFTI_KEY_MAX, "leaves take keys");
static_assert((int)BFTI_KEY_MAX >= (int)BFT_KEY_MAX + ID_BYTES + 1,
              "keys fit, and the next key there is");

/* A version in a list. */
struct head {
    le64 until, bytes;
    uint8_t kind;
};
static_assert(sizeof(struct head) == 17, "no padding");

/* --- keys and lists ------------------------------------------------------- */

struct history_key {
    size_t len;
    uint8_t bytes[BFTI_KEY_MAX];
};

static bft_slice key_slice(const struct history_key *key)
{
    bft_slice slice = {key->bytes, key->len};
    return slice;
}

static bft_slice key_make(struct history_key *to, uint32_t id, bft_slice key)
{
    for (unsigned i = 0; i < ID_BYTES; i++)
        to->bytes[i] = (uint8_t)(id >> (8 * (ID_BYTES - 1 - i)));
    if (key.len)
        memcpy(to->bytes + ID_BYTES, key.data, key.len);
    to->len = ID_BYTES + key.len;
    return key_slice(to);
}

static bft_slice apart_key(struct history_key *to, uint64_t serial)
{
    le64 number = le64_of(serial);
    bft_slice slice = {&number, sizeof(number)};
    return key_make(to, 0, slice);
}

/* A list in memory that is to be given back; BYTES NULL: there is none. */
struct list {
    uint8_t *bytes;
    size_t len;
};

static bft_slice list_slice(const struct list *list)
{
    bft_slice slice = {list->bytes, list->len};
    return slice;
}

/* Take the next version off *LIST. */
static bft_status version_next(bft_slice *list, struct bfti_version *v)
{
    struct head head;
    size_t len;
    memset(v, 0, sizeof(*v));
    if (list->len >= sizeof(head)) {
        memcpy(&head, list->data, sizeof(head));
        v->until = le64_get(head.until);
        v->bytes = le64_get(head.bytes);
        if (head.kind == BFTI_WAS_APART) {
            struct bfti_large large = {.bytes = head.bytes};
            v->bytes = bfti_large_bytes(&large);
            v->expires = bfti_large_expires(&large);
        }
        v->kind = head.kind;
        v->value.data = (const uint8_t *)list->data + sizeof(head);
        len = v->kind == BFTI_WAS_VALUE   ? (size_t)v->bytes
              : v->kind == BFTI_WAS_APART ? sizeof(le64)
                                          : 0;
        if (v->kind <= BFTI_WAS_APART && len <= list->len - sizeof(head)) {
            v->value.len = len;
            if (v->kind == BFTI_WAS_APART) {
                le64 serial;
                memcpy(&serial, v->value.data, sizeof(serial));
                v->serial = le64_get(serial);
            }
            list->data = (const uint8_t *)v->value.data + len;
            list->len -= sizeof(head) + len;
            return BFT_OK;
        }
    }
    return bfti_fail(BFT_CORRUPT, "a history's list of versions is cut off");
}

static size_t version_size(const struct bfti_version *v)
{
    return sizeof(struct head) + v->value.len;
}

static uint8_t *version_put(uint8_t *to, const struct bfti_version *v)
{
    /* As in the reference to it. */
    uint64_t seconds = v->expires / BFTI_SECOND_MS;
    struct head head = {le64_of(v->until),
                        le64_of(v->bytes | seconds << BFTI_SECONDS_AT),
                        (uint8_t)v->kind};
    memcpy(to, &head, sizeof(head));
    if (v->value.data && v->value.len)
        memcpy(to + sizeof(head), v->value.data, v->value.len);
    return to + version_size(v);
}

/* The first version of LIST that NUMBER does not come behind. */
static bft_status list_find(bft_slice list, uint64_t number, bool *there,
                            struct bfti_version *v)
{
    *there = false;
    while (list.len) {
        bft_status status = version_next(&list, v);
        if (status != BFT_OK)
            return status;
        if (v->until > number) {
            *there = true;
            return BFT_OK;
        }
    }
    return BFT_OK;
}

/* --- epochs --------------------------------------------------------------- */

/* NULL: there is none, and nothing was ever saved. */
static struct bfti_epoch *current(struct bfti_engine *engine)
{
    struct bfti_epoch *epoch;
    /* Ends: one that is left behind has another in its place by then. */
    do
        epoch = atomic_load(&engine->history);
    while (epoch && atomic_load(&epoch->end) != 0);
    return epoch;
}

bool bfti_history_is_there(struct bfti_engine *engine)
{
    return current(engine) != NULL;
}

/* Under checkpoint_lock. */
static bft_status epoch_make(struct bfti_engine *engine, struct bfti_rec *rec)
{
    struct bfti_epoch *epoch = bfti_alloc(engine->env, sizeof(*epoch));
    bft_status status;
    if (!epoch)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a history");
    memset(epoch, 0, sizeof(*epoch));
    status = bfti_tree_make(engine, rec, engine->next_tree_id, "", LEAF_BYTES,
                            NULL, &epoch->tree);
    if (status != BFT_OK) {
        bfti_free(engine->env, epoch);
        return status;
    }
    engine->next_tree_id++;
    epoch->tree->history = true;
    bfti_tree_add(engine, epoch->tree, NULL);
    atomic_store(&epoch->older, atomic_load(&engine->history));
    atomic_store(&engine->history, epoch);
    return BFT_OK;
}

bft_status bfti_history_begin(struct bfti_engine *engine, struct bfti_rec *rec)
{
    bft_status status = BFT_OK;
    if (current(engine))
        return BFT_OK;
    bfti_mutex_lock(engine->env, &engine->checkpoint_lock);
    if (!current(engine))
        status = epoch_make(engine, rec);
    bfti_mutex_unlock(engine->env, &engine->checkpoint_lock);
    return status;
}

static bool has_grown(const struct bfti_engine *engine,
                      struct bfti_epoch *epoch)
{
    return atomic_load(&epoch->saved) >
           engine->options.memory_bytes / GROWN_SHARE;
}

/* EPOCH is left behind: of no use to snapshots that are taken from now on. */
static void leave_behind(struct bfti_engine *engine, struct bfti_epoch *epoch)
{
    bfti_mutex_lock(engine->env, &engine->snapshots_lock);
    atomic_store(&epoch->end, engine->snapshot_count);
    bfti_mutex_unlock(engine->env, &engine->snapshots_lock);
}

/* Behind the last that has something nobody looks any more; who stands there goes
 * on to the end. */
static void cut_off(struct bfti_engine *engine)
{
    struct bfti_epoch *last = NULL;
    struct bfti_epoch *epoch = atomic_load(&engine->history);
    for (; epoch; epoch = atomic_load(&epoch->older))
        if (bfti_tree_root(epoch->tree))
            last = epoch;
    if (!last)
        return;
    epoch = atomic_exchange(&last->older, NULL);
    for (; epoch; epoch = atomic_load(&epoch->older)) {
        epoch->gone = engine->history_gone;
        engine->history_gone = epoch;
    }
}

bft_status bfti_history_turn(struct bfti_engine *engine, struct bfti_rec *rec)
{
    struct bfti_epoch *epoch = current(engine);
    uint64_t oldest;
    bft_status status = BFT_OK;
    /* Another comes first, so that who takes a snapshot, or saves, always finds
     * one, and does not wait for the checkpoint that is under way. */
    if (epoch &&
        (has_grown(engine, epoch) ||
         (atomic_load(&epoch->saved) && bfti_snapshots_newest(engine) == 0))) {
        status = epoch_make(engine, rec);
        if (status == BFT_OK)
            leave_behind(engine, epoch);
    }
    oldest = bfti_snapshots_oldest(engine);
    for (epoch = atomic_load(&engine->history); epoch;
         epoch = atomic_load(&epoch->older)) {
        uint64_t end = atomic_load(&epoch->end);
        bft_status cleared;
        if (end == 0 || end >= oldest || !bfti_tree_root(epoch->tree))
            continue;
        cleared = bfti_tree_clear(engine, rec, epoch->tree);
        if (status == BFT_OK)
            status = cleared;
    }
    cut_off(engine);
    return status;
}

void bfti_history_free(struct bfti_engine *engine)
{
    struct bfti_epoch *epoch = atomic_load(&engine->history);
    while (epoch) {
        struct bfti_epoch *older = atomic_load(&epoch->older);
        bfti_free(engine->env, epoch);
        epoch = older;
    }
    while ((epoch = engine->history_gone)) {
        engine->history_gone = epoch->gone;
        bfti_free(engine->env, epoch);
    }
}

/* --- finding -------------------------------------------------------------- */

/* The list of KEY, to be given back by bft_free(). */
static bft_status list_read(struct bfti_rec *rec, struct bfti_epoch *epoch,
                            bft_slice key, struct list *list)
{
    struct bfti_take take = {.allocate = true, .env = epoch->tree->engine->env};
    bool found = false;
    bft_status status = bfti_value_read(epoch->tree, rec, key, &take, &found);
    *list = (struct list){NULL, 0};
    if (status != BFT_OK || !found) {
        bft_free(take.buf);
        /* It was dropped, and so nobody needs it. */
        return status == BFT_GONE ? BFT_OK : status;
    }
    *list = (struct list){take.buf, take.value_len};
    return BFT_OK;
}

void bfti_version_free(struct bfti_version *version)
{
    bft_free(version->memory);
    version->memory = NULL;
}

static bft_status find(struct bfti_engine *engine, struct bfti_rec *rec,
                       bft_slice key, uint64_t number, bool *there,
                       struct bfti_version *version)
{
    struct bfti_epoch *epoch = atomic_load(&engine->history);
    *there = false;
    memset(version, 0, sizeof(*version));
    for (; epoch; epoch = atomic_load(&epoch->older)) {
        uint64_t end = atomic_load(&epoch->end);
        struct bfti_version v;
        struct list list;
        bool here = false;
        bft_status status;
        if (end && end < number)
            break; /* and those before it ended earlier */
        if (atomic_load(&epoch->until) < number)
            continue;
        status = list_read(rec, epoch, key, &list);
        if (status == BFT_OK)
            status = list_find(list_slice(&list), number, &here, &v);
        if (status != BFT_OK || !here || (*there && v.until > version->until)) {
            bft_free(list.bytes);
            if (status != BFT_OK) {
                bfti_version_free(version);
                *there = false;
                return status;
            }
            continue;
        }
        bfti_version_free(version);
        *version = v;
        version->epoch = epoch;
        version->memory = list.bytes;
        *there = true;
    }
    return BFT_OK;
}

bft_status bfti_history_find(struct bfti_engine *engine, struct bfti_rec *rec,
                             const struct bfti_tree *tree, bft_slice key,
                             uint64_t number, bool *there,
                             struct bfti_version *version)
{
    struct history_key buf;
    return find(engine, rec, key_make(&buf, tree->id, key), number, there,
                version);
}

bool bfti_version_is_there(const struct bfti_version *v, uint64_t now)
{
    uint64_t expires = v->kind == BFTI_WAS_VALUE && now
                           ? bfti_stored_expires(v->value)
                           : v->expires;
    return v->kind != BFTI_WAS_ABSENT && !(now && bfti_expired(expires, now));
}

bft_status bfti_version_take(struct bfti_rec *rec, const struct bfti_version *v,
                             struct bfti_take *take, bool *found)
{
    struct history_key buf;
    bft_status status;
    *found = bfti_version_is_there(v, take->now);
    if (!*found)
        return BFT_OK;
    if (v->kind == BFTI_WAS_VALUE)
        return bfti_take_slice(take, v->value);
    status = bfti_value_read(v->epoch->tree, rec, apart_key(&buf, v->serial),
                             take, found);
    if (status == BFT_OK && !*found)
        return bfti_fail(BFT_CORRUPT, "a history lacks a value");
    return status;
}

/* --- a range --------------------------------------------------------------- */

struct range {
    struct bfti_rec *rec;
    uint64_t number;
    struct history_key low, high; /* as the history has them */
    bool before;
    size_t most; /* that an epoch may still give */
    bft_status (*each)(void *ctx, bft_slice key,
                       const struct bfti_version *version);
    void *ctx;
    struct bfti_cut *cut;
    /* Told of leaves that were looked at; or NULL. */
    bft_status (*watch)(void *ctx, const struct bfti_entry *entry,
                        uint32_t seq);
    void *watch_ctx;
    bool several; /* epochs have something; then who watches is told of what
                     they say together */
};

/* Each epoch has a version of its own of KEY: tell of the one that counts. */
static bft_status tell_of_all(struct range *r, struct bfti_engine *engine,
                              bft_slice full, bft_slice key)
{
    struct bfti_version v;
    bool there;
    bft_status status = find(engine, r->rec, full, r->number, &there, &v);
    if (status == BFT_OK && there) {
        status = r->each(r->ctx, key, &v);
        bfti_version_free(&v);
    }
    return status;
}

/* Tell of record I of COPY. */
static bft_status tell(struct range *r, struct bfti_epoch *epoch,
                       const struct bfti_copy *copy, size_t i)
{
    bft_slice full = bfti_copy_key(copy, i);
    bft_slice key = {(const uint8_t *)full.data + ID_BYTES,
                     full.len - ID_BYTES};
    bft_slice list = bfti_copy_value(copy, i);
    struct list read = {NULL, 0};
    struct bfti_version v;
    bool there = false;
    bft_status status = BFT_OK;
    if (copy->record[i].flags & BFTI_REC_LARGE) {
        status = list_read(r->rec, epoch, full, &read);
        list = list_slice(&read);
    }
    if (status == BFT_OK)
        status = list_find(list, r->number, &there, &v);
    v.epoch = epoch;
    if (status == BFT_OK && there)
        status = r->several ? tell_of_all(r, epoch->tree->engine, full, key)
                            : r->each(r->ctx, key, &v);
    bft_free(read.bytes);
    return status;
}

/* An epoch gave as much as it may, up to AT. */
static void note_cut(struct range *r, bft_slice at)
{
    bft_slice key = {(const uint8_t *)at.data + ID_BYTES, at.len - ID_BYTES};
    bft_slice now = {r->cut->key, r->cut->len};
    assert(at.len > ID_BYTES);
    if (now.len) {
        int order = bfti_key_compare(key, now);
        if (r->before ? order <= 0 : order >= 0)
            return;
    }
    memcpy(r->cut->key, key.data, key.len);
    r->cut->len = key.len;
}

/* Where COPY ends on the way, if that is inside the range. */
static bool goes_on(const struct range *r, const struct bfti_copy *copy,
                    struct bfti_bound *at)
{
    *at = r->before ? copy->low : copy->high;
    if (at->len == 0)
        return false;
    /* A fence may be a short one, behind all keys of the tree. */
    if (!r->before &&
        (at->len < ID_BYTES || memcmp(at->bytes, r->low.bytes, ID_BYTES) != 0))
        return false;
    return r->before
               ? bfti_key_compare(bfti_bound_key(at), key_slice(&r->low)) > 0
               : bfti_key_compare(bfti_bound_key(at), key_slice(&r->high)) < 0;
}

static bft_status range_epoch(struct range *r, struct bfti_epoch *epoch)
{
    struct bfti_copy copy = {.env = epoch->tree->engine->env};
    struct bfti_copy_wish wish = {.before = r->before,
                                  .only = BFTI_COPY_ALL,
                                  .low = key_slice(&r->low),
                                  .high = key_slice(&r->high)};
    struct bfti_bound at;
    size_t left = r->most;
    bft_status status = BFT_OK;
    bfti_bound_set(&at, r->before ? wish.high : wish.low);
    do { /* ends: the key goes on with each round */
        wish.key = bfti_bound_key(&at);
        wish.window = left;
        wish.ahead = r->before ? 0 : left / BFTI_AHEAD_RECORDS;
        status = bfti_copy_take(&copy, epoch->tree, r->rec, &wish);
        if (status == BFT_GONE) {
            status = BFT_OK;
            break;
        }
        if (status == BFT_OK && r->watch)
            status = r->watch(r->watch_ctx, copy.entry, copy.seq);
        for (size_t i = 0; status == BFT_OK && i < copy.count; i++)
            status = tell(r, epoch, &copy, i);
        left -= copy.count < left ? copy.count : left;
        if (status != BFT_OK || !goes_on(r, &copy, &at))
            break;
    } while (left);
    if (status == BFT_OK && left == 0 && goes_on(r, &copy, &at))
        note_cut(r, bfti_bound_key(&at));
    bfti_copy_free(&copy);
    return status;
}

/* EPOCH, if snapshot NUMBER may need it, and those before it. */
static struct bfti_epoch *needed(struct bfti_epoch *epoch, uint64_t number)
{
    uint64_t end = epoch ? atomic_load(&epoch->end) : 0;
    return end && end < number ? NULL : epoch;
}

/* Of all epochs that snapshot r->number may need. */
static bft_status range_all(struct range *r, struct bfti_engine *engine,
                            uint32_t tree_id, bft_slice low, bft_slice high)
{
    bft_slice none = {NULL, 0};
    struct bfti_epoch *epoch = needed(atomic_load(&engine->history), r->number);
    bft_status status = BFT_OK;
    (void)key_make(&r->low, tree_id, low);
    (void)(high.len ? key_make(&r->high, tree_id, high)
                    : key_make(&r->high, tree_id + 1, none));
    r->several =
        r->watch && epoch && needed(atomic_load(&epoch->older), r->number);
    for (; epoch && status == BFT_OK;
         epoch = needed(atomic_load(&epoch->older), r->number))
        if (r->watch || atomic_load(&epoch->until) >= r->number)
            status = range_epoch(r, epoch);
    return status;
}

bft_status
bfti_history_range(struct bfti_engine *engine, struct bfti_rec *rec,
                   const struct bfti_tree *tree, uint64_t number, bft_slice low,
                   bft_slice high, bool before, size_t most,
                   bft_status (*each)(void *ctx, bft_slice key,
                                      const struct bfti_version *version),
                   void *ctx, struct bfti_cut *cut)
{
    struct range r = {.rec = rec,
                      .number = number,
                      .before = before,
                      .most = most,
                      .each = each,
                      .ctx = ctx,
                      .cut = cut};
    cut->len = 0;
    return range_all(&r, engine, tree->id, low, high);
}

bft_status bfti_history_watch(
    struct bfti_engine *engine, struct bfti_rec *rec,
    const struct bfti_tree *tree, uint64_t number, bft_slice low,
    bft_slice high,
    bft_status (*watch)(void *ctx, const struct bfti_entry *entry,
                        uint32_t seq),
    bft_status (*each)(void *ctx, bft_slice key,
                       const struct bfti_version *version),
    void *watch_ctx, void *each_ctx)
{
    struct range r = {.rec = rec,
                      .number = number,
                      .most = SIZE_MAX,
                      .each = each,
                      .ctx = each_ctx,
                      .watch = watch,
                      .watch_ctx = watch_ctx};
    return range_all(&r, engine, tree->id, low, high);
}

/* Lay one version over a copy. */
struct laying {
    const struct bfti_env *env;
    uint64_t now; /* of the snapshot, where records expire */
    struct bfti_over over;
};

static bft_status lay_version(void *ctx, bft_slice key,
                              const struct bfti_version *version)
{
    struct laying *l = ctx;
    struct bfti_over_item like = {.rank = version->until,
                                  .there =
                                      bfti_version_is_there(version, l->now)};
    bft_slice value = {NULL, 0};
    if (version->kind == BFTI_WAS_APART)
        like.flags = BFTI_REC_LARGE;
    else
        value = l->now ? bfti_payload(version->value) : version->value;
    return bfti_over_add(l->env, &l->over, key, value, &like);
}

bft_status bfti_copy_turn_back(struct bfti_copy *copy, struct bfti_tree *tree,
                               struct bfti_rec *rec,
                               const struct bfti_copy_wish *wish,
                               const struct bft_snapshot *snapshot)
{
    struct laying l = {.env = copy->env, .now = wish->now};
    struct bfti_cut cut;
    bft_status status;
    bfti_copy_narrow(copy, wish);
    copy->lasting = true;
    status = bfti_history_range(
        tree->engine, rec, tree, bfti_snapshot_number(snapshot),
        bfti_bound_key(&copy->low), bfti_bound_key(&copy->high), wish->before,
        wish->window < LAY_MAX ? wish->window + LAY_LEAST : LAY_MAX,
        lay_version, &l, &cut);
    if (status == BFT_OK && cut.len) {
        bft_slice key = {cut.key, cut.len};
        bfti_copy_cut(copy, key, wish->before);
    }
    if (status == BFT_OK) /* their rank, 0, goes before all of history */
        status = bfti_late_range(bfti_snapshot_late(snapshot), tree,
                                 bfti_bound_key(&copy->low),
                                 bfti_bound_key(&copy->high), lay_version, &l);
    if (status == BFT_OK)
        status = bfti_copy_lay(copy, &l.over);
    bfti_over_free(l.env, &l.over);
    if (status != BFT_OK)
        copy->valid = false;
    return status;
}

/* --- saving --------------------------------------------------------------- */

/* The record that is to be saved. */
struct save {
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_tree *tree;
    bft_slice key;
    uint64_t newest;
    struct bfti_epoch *epoch;
    struct bfti_version version;
    le64 serial; /* what the value of one that lies apart refers to */
};

/* Whoever publishes in the key's leaf, and began before the snapshot was there,
 * has done so when this returns. */
static bft_status pass_latch(const struct save *s)
{
    struct bfti_writer w;
    bft_status status;
    bfti_writer_begin(&w, s->tree, s->rec);
    status = bfti_writer_latch(&w, s->key);
    if (status == BFT_OK)
        bfti_writer_unlatch(&w, false);
    return status;
}

/* Put PREPARED into the history; it is done with.  BFT_CONFLICT: not as CONDITION
 * says, or the history has been cleared, because nobody needs it any more. */
static bft_status put(struct save *s, struct bfti_prepared *p,
                      const struct bfti_condition *condition)
{
    uint64_t end;
    bft_status status = bfti_leaf_write(s->epoch->tree, s->rec, &p->change,
                                        NULL, condition, &bfti_unguarded, &end);
    if (status == BFT_OK)
        bfti_prepared_done(s->engine, p);
    else
        bfti_prepared_discard(s->engine, p);
    return status == BFT_GONE ? BFT_CONFLICT : status;
}

/* Of the value that is being copied. */
struct copying {
    struct save *save;
    uint64_t at;
};

static bft_status read_on(void *ctx, void *buf, size_t len)
{
    struct copying *c = ctx;
    struct bfti_take take = {
        .buf = buf, .buf_len = len, .offset = c->at, .range = true};
    bool found;
    bft_status status = bfti_value_read(c->save->tree, c->save->rec,
                                        c->save->key, &take, &found);
    if (status == BFT_OK && (!found || take.value_len != len))
        return BFT_CONFLICT; /* it is another by now */
    c->at += len;
    return status;
}

/* What the record refers to; all zeros: nothing, it is no large value. */
static bft_status reference(const struct save *s, struct bfti_large *large)
{
    struct bfti_reader reader;
    struct bfti_view view;
    bool found;
    bft_status status =
        bfti_leaf_find(&reader, s->tree, s->rec, s->key, &found, &view);
    memset(large, 0, sizeof(*large));
    if (status != BFT_OK)
        return status;
    if (found && (view.flags & BFTI_REC_LARGE))
        memcpy(large, view.value, sizeof(*large));
    bfti_reader_close(&reader);
    return BFT_OK;
}

/* Copy the value that LARGE refers to, piece by piece.  BFT_CONFLICT: it changed
 * meanwhile. */
static bft_status copy_apart(struct save *s, const struct bfti_large *large)
{
    struct bfti_engine *engine = s->engine;
    struct bfti_tree *to = s->epoch->tree;
    struct copying copying = {s, 0};
    struct history_key buf;
    struct bfti_prepared p;
    struct bfti_large now;
    bft_slice none = {NULL, 0};
    uint64_t bytes = bfti_large_bytes(large);
    uint64_t serial = atomic_fetch_add(&engine->apart_serial, 1);
    bft_status status = bfti_change_make(engine, s->rec, to, BFTI_OP_PUT,
                                         apart_key(&buf, serial), none, &p);
    if (status != BFT_OK)
        return status;
    status = bfti_large_write(engine, s->rec, to, bytes, false, read_on,
                              &copying, &p.large, &p.extents);
    if (status != BFT_OK) {
        bfti_prepared_done(engine, &p);
        return status;
    }
    p.large.bytes = large->bytes; /* the time that it expires, too */
    status = bfti_prepared_large(engine, to, 0, &p);
    if (status == BFT_OK)
        status = put(s, &p, NULL);
    if (status == BFT_OK) /* in vain or not: it is there */
        atomic_fetch_add(&s->epoch->saved, bytes);
    if (status == BFT_OK)
        status = reference(s, &now);
    if (status == BFT_OK && memcmp(&now, large, sizeof(now)) != 0)
        return BFT_CONFLICT;
    s->serial = le64_of(serial);
    s->version.kind = BFTI_WAS_APART;
    s->version.bytes = bytes;
    s->version.expires = bfti_large_expires(large);
    s->version.value = (bft_slice){&s->serial, sizeof(s->serial)};
    return status;
}

/* What the record is now.  BFT_CONFLICT: it changed meanwhile. */
static bft_status record_read(struct save *s)
{
    struct bfti_take take = {.allocate = true, .env = s->engine->env};
    struct bfti_large large;
    bool found;
    bft_status status = reference(s, &large);
    /* Nothing stays of what an earlier round read, which may have been long. */
    s->version = (struct bfti_version){.until = s->newest + 1};
    if (status == BFT_OK && bfti_large_bytes(&large) >= APART_BYTES)
        return copy_apart(s, &large);
    if (status == BFT_OK)
        status = bfti_value_read(s->tree, s->rec, s->key, &take, &found);
    s->version.memory = take.buf;
    if (status != BFT_OK)
        return status;
    if (found && take.value_len >= APART_BYTES)
        return BFT_CONFLICT; /* it has become one for copy_apart() */
    s->version.kind = found ? BFTI_WAS_VALUE : BFTI_WAS_ABSENT;
    s->version.bytes = take.value_len;
    s->version.value = (bft_slice){take.buf, found ? take.value_len : 0};
    return BFT_OK;
}

/* LIST without what no snapshot needs, and the version at its end. */
static bft_status list_grow(const struct save *s, bft_slice list,
                            struct list *grown)
{
    size_t most = list.len + version_size(&s->version);
    uint8_t *to = bfti_alloc(s->engine->env, most);
    uint64_t from = 0;
    *grown = (struct list){to, 0};
    if (!to)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a history");
    while (list.data && list.len) {
        struct bfti_version v;
        bft_status status = version_next(&list, &v);
        if (status != BFT_OK)
            return status;
        if (bfti_snapshots_any(s->engine, from, v.until))
            to = version_put(to, &v);
        from = v.until;
    }
    to = version_put(to, &s->version);
    grown->len = (size_t)(to - grown->bytes);
    return BFT_OK;
}

/* Before it is there: where nothing is saved for a snapshot, or a newer one, nobody
 * looks. */
static void note_saved(const struct save *s, size_t bytes)
{
    uint64_t until = atomic_load(&s->epoch->until);
    atomic_fetch_add(&s->epoch->saved, bytes);
    /* Ends: each round follows another's, who noted a higher number. */
    while (until < s->newest &&
           !atomic_compare_exchange_weak(&s->epoch->until, &until, s->newest))
        ;
}

/* The record is read: put it at the end of LIST, as the history has it now.
 * BFT_CONFLICT: it has another by then. */
static bft_status save_to(struct save *s, bft_slice key, bft_slice list)
{
    struct bfti_condition condition = {.present = list.data != NULL,
                                       .value = list};
    struct bfti_prepared p;
    struct list grown;
    bft_status status = list_grow(s, list, &grown);
    if (status == BFT_OK)
        status = bfti_change_make(s->engine, s->rec, s->epoch->tree,
                                  BFTI_OP_PUT, key, list_slice(&grown), &p);
    if (status == BFT_OK) {
        note_saved(s, key.len + grown.len);
        status = put(s, &p, &condition);
    }
    bfti_free(s->engine->env, grown.bytes);
    return status;
}

/* *DONE: the history has it, or nobody needs it any more. */
static bft_status save_once(struct save *s, bft_slice key, bool *done)
{
    struct bfti_version version;
    struct list list = {NULL, 0};
    bft_status status;
    *done = false;
    s->epoch = current(s->engine);
    if (!s->epoch || bfti_snapshots_newest(s->engine) == 0) {
        *done = true;
        return BFT_OK;
    }
    status = pass_latch(s);
    /* The record first: if nothing is saved by the time that the history is
     * looked at, it is still what it was for the snapshot. */
    if (status == BFT_OK)
        status = record_read(s);
    PARK("history:record-read");
    if (status != BFT_OK)
        goto free_record;
    status = list_read(s->rec, s->epoch, key, &list);
    if (status == BFT_OK)
        status = find(s->engine, s->rec, key, s->newest, done, &version);
    if (status == BFT_OK && *done)
        bfti_version_free(&version);
    if (status == BFT_OK && !*done) {
        status = save_to(s, key, list_slice(&list));
        *done = status == BFT_OK;
    }
    bft_free(list.bytes);
free_record:
    bfti_version_free(&s->version);
    return status;
}

bft_status bfti_history_save(struct bfti_engine *engine, struct bfti_rec *rec,
                             struct bfti_tree *tree, bft_slice key,
                             uint64_t newest)
{
    struct save s = {.engine = engine,
                     .rec = rec,
                     .tree = tree,
                     .key = key,
                     .newest = newest};
    struct bfti_version version;
    struct history_key buf;
    bft_slice full = key_make(&buf, tree->id, key);
    bool done;
    /* Of cursors nobody has begun one. */
    bft_status status = bfti_history_begin(engine, rec);
    if (status == BFT_OK)
        status = find(engine, rec, full, newest, &done, &version);
    if (status != BFT_OK)
        return status;
    if (done)
        bfti_version_free(&version);
    /* Ends: a round is repeated only after another thread changed or saved the
     * record. */
    while (status == BFT_OK && !done) {
        status = save_once(&s, full, &done);
        if (status == BFT_CONFLICT)
            status = BFT_OK;
    }
    if (s.epoch && has_grown(engine, s.epoch) &&
        !atomic_exchange(&engine->want_checkpoint, true))
        bfti_wake_checkpointer(engine);
    return status;
}
