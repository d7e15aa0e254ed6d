/*
 * Change feeds: the log's settled frames as commits of changes, and how a feed
 * ends when its database closes beside it.
 */
#include "bftree_feed.h"
#include "cache.h"
#include "expiry.h"
#include "tomb.h"

#include <inttypes.h>

enum { MAGIC_FEED = 0x62667466 };

/* Of `state`: flags, and above them how many calls are inside. */
enum {
    STOPPED = 1,
    CLOSING = 2, /* bft_close() has come to it: it belongs to it from here on */
    CLOSED = 4,  /* bft_close() is done with it */
    CALL = 8,
};

struct bft_feed {
    uint32_t magic;
    uint32_t fork_generation;   /* fixed */
    const struct bfti_env *env; /* fixed */
    _Atomic uint32_t state;     /* [feed] */

    /* Until CLOSED, which waits for the calls inside. */
    bft_db *db;
    struct bfti_engine *engine;
    struct bfti_wal_feed *log;
    struct bft_feed *next; /* of the handle's; under its feeds_lock, or, once
                              CLOSING, bft_close()'s */

    /* Of the last commit; the caller's thread only. */
    bft_change *change;
    size_t count, cap;
    char name[BFTI_NAME_MAX + 1], old_name[BFTI_NAME_MAX + 1];
};

/* --- calls and their end ------------------------------------------------- */

static void leave(bft_feed *feed)
{
    /* [feed] Who closes sees what the call has done; nothing of the feed is
     * touched behind this but its address. */
    const struct bfti_env *env = feed->env;
    uint32_t before = atomic_fetch_sub(&feed->state, CALL);

    if (before & CLOSING)
        env->wake(env->ctx, &feed->state, true);
}

static bft_status check_open(uint32_t state)
{
    if (state & CLOSING)
        return bfti_fail(BFT_INVALID, "the feed's database handle is closed");
    if (state & STOPPED)
        return bfti_fail(BFT_INVALID, "the feed was stopped");
    return BFT_OK;
}

/* With BFT_OK the engine is there until leave(). */
static bft_status enter(bft_feed *feed)
{
    bft_status status;

    if (!feed)
        return bfti_fail(BFT_INVALID, "the feed is NULL");
    if (feed->magic != MAGIC_FEED)
        return bfti_fail(BFT_INVALID, "the feed is closed");
    if (feed->fork_generation != bfti_fork_generation())
        return bfti_fail(BFT_FORKED, "the feed was opened before fork");
    /* [feed] Either we see CLOSING, or bft_close() sees us and waits. */
    status = check_open(atomic_fetch_add(&feed->state, CALL));
    if (status != BFT_OK)
        leave(feed);
    return status;
}

static void feed_free(bft_feed *feed)
{
    feed->magic = 0;
    bfti_free(feed->env, feed->change);
    bfti_free(feed->env, feed);
}

void bfti_feeds_end(bft_db *db)
{
    struct bfti_engine *engine = db->engine;
    const struct bfti_env *env = engine->env;
    bft_feed *feed;

    bfti_mutex_lock(env, &db->feeds_lock);
    for (feed = db->feeds; feed; feed = feed->next)
        atomic_fetch_or(&feed->state, CLOSING); /* [feed] */
    feed = db->feeds;
    db->feeds = NULL;
    bfti_mutex_unlock(env, &db->feeds_lock);
    if (feed)
        bfti_wal_nudge(engine->buffer.wal);
    while (feed) {
        bft_feed *next = feed->next;
        uint32_t state;

        /* Ends: the calls inside have been woken, and none comes to stay. */
        while ((state = atomic_load(&feed->state)) >= CALL)
            env->wait(env->ctx, &feed->state, state, UINT64_MAX);
        bfti_wal_feed_close(feed->log);
        PARK("feed:ended");
        atomic_fetch_or(&feed->state, CLOSED);
        env->wake(env->ctx, &feed->state, true);
        feed = next;
    }
}

/* --- open and close ------------------------------------------------------ */

static bft_status check_options(const bft_feed_options *options)
{
    return !options || options->size == sizeof(*options)
               ? BFT_OK
               : bfti_fail(BFT_INVALID,
                           "option size is %zu, this library knows %zu",
                           options->size, sizeof(*options));
}

bft_status bft_feed_open(bft_db *db, uint64_t lsn,
                         const bft_feed_options *options, bft_feed **out)
{
    struct bfti_engine *engine;
    bft_feed *feed;
    bft_status status;

    if (!out)
        return bfti_fail(BFT_INVALID, "bft_feed_open: an output is NULL");
    *out = NULL;
    status = bfti_gate(db, &engine);
    if (status == BFT_OK)
        status = check_options(options);
    if (status == BFT_OK)
        status = bfti_check_keeps(engine, "it has no feeds");
    if (status != BFT_OK)
        return status;
    feed = bfti_alloc(engine->env, sizeof(*feed));
    if (!feed)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a feed");
    memset(feed, 0, sizeof(*feed));
    feed->magic = MAGIC_FEED;
    feed->fork_generation = engine->fork_generation;
    feed->env = engine->env;
    feed->db = db;
    feed->engine = engine;
    status = bfti_wal_feed_open(engine->buffer.wal,
                                lsn == BFT_FEED_NOW ? BFTI_WAL_NOW : lsn,
                                options ? options->hold_bytes : 0, &feed->log);
    if (status != BFT_OK) {
        feed_free(feed);
        return status;
    }
    bfti_mutex_lock(engine->env, &db->feeds_lock);
    feed->next = db->feeds;
    db->feeds = feed;
    bfti_mutex_unlock(engine->env, &db->feeds_lock);
    *out = feed;
    return BFT_OK;
}

/* Take the feed off its handle's list.  False: bft_close() has it. */
static bool take_off(bft_feed *feed)
{
    bft_db *db = feed->db;
    bft_feed **at = &db->feeds;
    bool ours;

    bfti_mutex_lock(feed->env, &db->feeds_lock);
    ours = !(atomic_load(&feed->state) & CLOSING);
    if (ours) {
        while (*at != feed)
            at = &(*at)->next;
        *at = feed->next;
    }
    bfti_mutex_unlock(feed->env, &db->feeds_lock);
    return ours;
}

void bft_feed_close(bft_feed *feed)
{
    uint32_t state;

    if (!feed || feed->magic != MAGIC_FEED)
        return;
    if (feed->fork_generation != bfti_fork_generation()) {
        feed_free(feed); /* the rest is the parent's */
        return;
    }
    /* As a call of its own: the handle stays while it is inside, and on the list.
     * Once off that nobody waits for it, so by then it needs no engine. */
    state = atomic_fetch_add(&feed->state, CALL);
    PARK("feed:closing");
    if (!(state & CLOSING)) {
        bfti_wal_feed_close(feed->log);
        feed->log = NULL; /* for bft_close(), should it come to it now */
        if (take_off(feed)) {
            PARK("feed:taken-off");
            feed_free(feed);
            return;
        }
    }
    leave(feed);
    /* Ends: bft_close() waits only for calls inside. */
    while (!((state = atomic_load(&feed->state)) & CLOSED))
        feed->env->wait(feed->env->ctx, &feed->state, state, UINT64_MAX);
    feed_free(feed);
}

void bft_feed_stop(bft_feed *feed)
{
    if (!feed || feed->magic != MAGIC_FEED ||
        feed->fork_generation != bfti_fork_generation())
        return;
    /* The flag before the nudge, for the call that waits; the call counted, so
     * that the log stays until it is nudged. */
    if (!(atomic_fetch_add(&feed->state, CALL) & CLOSING)) {
        atomic_fetch_or(&feed->state, STOPPED);
        bfti_wal_nudge(feed->engine->buffer.wal);
    }
    leave(feed);
}

uint64_t bft_feed_lowest(bft_db *db)
{
    struct bfti_engine *engine;

    return bfti_gate(db, &engine) == BFT_OK ? bfti_wal_first(engine->buffer.wal)
                                            : 0;
}

uint64_t bft_feed_lsn(bft_feed *feed)
{
    uint64_t lsn;

    if (enter(feed) != BFT_OK)
        return 0;
    lsn = bfti_wal_feed_position(feed->log);
    leave(feed);
    return lsn;
}

/* --- decoding ------------------------------------------------------------ */

/* NULL: no memory, which was noted. */
static bft_change *add_change(bft_feed *feed)
{
    if (feed->count == feed->cap) {
        size_t cap = feed->cap ? feed->cap * 2 : 16;
        bft_change *grown =
            bfti_realloc(feed->env, feed->change, cap * sizeof(*grown));

        if (!grown) {
            (void)bfti_fail(BFT_NO_MEMORY,
                            "no memory for a commit of more than %zu changes",
                            feed->cap);
            return NULL;
        }
        feed->change = grown;
        feed->cap = cap;
    }
    memset(&feed->change[feed->count], 0, sizeof(*feed->change));
    return &feed->change[feed->count++];
}

static bft_status add_record(void *arg, const struct bfti_frame_record *record)
{
    bool stamped = record->flags & BFTI_FRAME_STAMPED;
    bft_change *change = add_change(arg);
    struct bfti_large large;

    if (!change)
        return BFT_NO_MEMORY;
    change->op = record->op == BFTI_OP_PUT ? BFT_CHANGE_PUT : BFT_CHANGE_DELETE;
    change->tree_id = record->tree_id;
    change->key = record->key;
    if (record->flags & BFTI_REC_LARGE) {
        memcpy(&large, record->value.data, sizeof(large));
        change->value_bytes = bfti_large_bytes(&large);
        change->internal = record->value.data;
        if (stamped) {
            change->expires_ms = bfti_large_expires(&large);
            change->value_bytes -= BFTI_STAMP;
        }
    } else if (record->op == BFTI_OP_PUT) {
        change->value = stamped ? bfti_payload(record->value) : record->value;
        change->value_bytes = change->value.len;
        if (stamped)
            change->expires_ms = bfti_stored_expires(record->value);
    }
    return BFT_OK;
}

static bft_status add_tree(bft_feed *feed, const struct bfti_wal_entry *entry)
{
    struct bfti_frame_tree tree;
    bft_change *change;
    bft_status status =
        bfti_frame_tree_get(entry->type, entry->payload, entry->len, &tree);

    if (status != BFT_OK)
        return status;
    change = add_change(feed);
    if (!change)
        return BFT_NO_MEMORY;
    bfti_frame_name(tree.name, feed->name);
    change->name = feed->name;
    change->tree_id = tree.id;
    change->ttl_ms = tree.ttl_ms;
    change->op = entry->type == BFTI_FRAME_CREATE   ? BFT_CHANGE_TREE_CREATE
                 : entry->type == BFTI_FRAME_DROP   ? BFT_CHANGE_TREE_DROP
                 : entry->type == BFTI_FRAME_RENAME ? BFT_CHANGE_TREE_RENAME
                 : entry->type == BFTI_FRAME_LOAD   ? BFT_CHANGE_TREE_LOAD
                                                    : BFT_CHANGE_TREE_TRUNCATE;
    if (entry->type == BFTI_FRAME_TRUNCATE || entry->type == BFTI_FRAME_LOAD) {
        change->tree_id = tree.old_id;
        change->new_tree_id = tree.id;
    } else if (entry->type == BFTI_FRAME_RENAME) {
        bfti_frame_name(tree.old_name, feed->old_name);
        change->old_name = feed->old_name;
    }
    return BFT_OK;
}

static bft_status add_range(bft_feed *feed, const struct bfti_wal_entry *entry)
{
    struct bfti_frame_range range;
    bft_change *change;
    bft_status status =
        bfti_frame_range_get(entry->payload, entry->len, &range);

    if (status != BFT_OK)
        return status;
    change = add_change(feed);
    if (!change)
        return BFT_NO_MEMORY;
    change->op = BFT_CHANGE_DELETE_RANGE;
    change->tree_id = range.tree_id;
    change->key = range.low;
    change->high = range.high;
    return BFT_OK;
}

static bft_status decode(bft_feed *feed, const struct bfti_wal_entry *entry)
{
    struct bfti_engine *engine = feed->engine;

    feed->count = 0;
    switch (entry->type) {
    case BFTI_FRAME_WRITE:
        return bfti_frame_each(engine->path, entry->lsn, entry->payload,
                               entry->len, add_record, feed);
    case BFTI_FRAME_CREATE:
    case BFTI_FRAME_DROP:
    case BFTI_FRAME_TRUNCATE:
    case BFTI_FRAME_RENAME:
    case BFTI_FRAME_LOAD:
        return add_tree(feed, entry);
    case BFTI_FRAME_RANGE:
        return add_range(feed, entry);
    case BFTI_FRAME_CLEAR: /* of a range whose deletion it has given */
        return BFT_OK;
    default:
        return bfti_fail(BFT_TOO_NEW,
                         "%s: log frame at %" PRIu64 " has type %d",
                         engine->path, entry->lsn, (int)entry->type);
    }
}

/* --- the next commit ----------------------------------------------------- */

static bft_status next_now(bft_feed *feed, bft_commit *commit)
{
    struct bfti_wal_entry entry;
    bft_status status;

    /* Ends: each round follows a frame that changes nothing to who reads. */
    do {
        status = bfti_wal_feed_read(feed->log, &entry);
        if (status == BFT_OK)
            status = decode(feed, &entry);
        if (status != BFT_OK) {
            feed->count = 0;
            return status;
        }
        bfti_wal_feed_pass(feed->log, &entry);
    } while (feed->count == 0);
    commit->lsn = entry.end;
    commit->changes = feed->change;
    commit->count = feed->count;
    return BFT_OK;
}

/* WAIT_MS from now, or UINT64_MAX. */
static uint64_t deadline_of(const struct bfti_env *env, uint64_t wait_ms)
{
    uint64_t now, ns_in_ms = 1000000;

    if (wait_ms >= UINT64_MAX / ns_in_ms)
        return UINT64_MAX;
    now = env->now_ns(env->ctx);
    return wait_ms * ns_in_ms < UINT64_MAX - now ? now + wait_ms * ns_in_ms
                                                 : UINT64_MAX;
}

static bft_status next_by(bft_feed *feed, uint64_t deadline, bft_commit *commit)
{
    const struct bfti_env *env = feed->env;

    /* Ends with a commit, a failure, the deadline, or the feed: each of the
     * first two, and the last, changes what is watched. */
    for (;;) {
        uint32_t watch = bfti_wal_feed_watch(feed->log);
        bft_status status = check_open(atomic_load(&feed->state));
        uint64_t now = 0;

        if (status == BFT_OK)
            status = next_now(feed, commit);
        if (status != BFT_NOT_FOUND)
            return status;
        if (deadline != UINT64_MAX)
            now = env->now_ns(env->ctx);
        if (now >= deadline)
            return bfti_fail_plain(BFT_NOT_FOUND,
                                   "no further commit is durable");
        bfti_wal_feed_wait(feed->log, watch,
                           deadline == UINT64_MAX ? UINT64_MAX
                                                  : deadline - now);
    }
}

bft_status bft_feed_next(bft_feed *feed, uint64_t wait_ms, bft_commit *commit)
{
    bft_status status;
    uint64_t deadline = 0;

    if (!commit)
        return bfti_fail(BFT_INVALID, "bft_feed_next: an output is NULL");
    memset(commit, 0, sizeof(*commit));
    status = enter(feed);
    if (status != BFT_OK)
        return status;
    /* Where there are no threads nobody commits while this one waits. */
    if (wait_ms && feed->env->thread_start)
        deadline = deadline_of(feed->env, wait_ms);
    status = next_by(feed, deadline, commit);
    leave(feed);
    return status;
}

/* --- values that the log only names -------------------------------------- */

static bft_status replaced(void)
{
    return bfti_fail_plain(BFT_GONE, "the value was replaced or removed since");
}

/* LEN bytes from OFFSET of the value LARGE, while KEY has that very one. */
static bft_status read_large(struct bfti_tree *tree, struct bfti_rec *rec,
                             bft_slice key, const struct bfti_large *large,
                             uint64_t offset, void *buf, size_t len)
{
    struct bfti_reader reader;
    struct bfti_view view;
    bool found, stable = false;

    /* Ends: a round is repeated only when the leaf changed meanwhile. */
    while (!stable) {
        bft_status status =
            bfti_leaf_find(&reader, tree, rec, key, &found, &view);

        if (status != BFT_OK)
            return status;
        if (!found || !(view.flags & BFTI_REC_LARGE) ||
            memcmp(view.value, large, sizeof(*large)) != 0) {
            bfti_reader_close(&reader);
            return replaced();
        }
        /* What the view points to may go while the extents are read. */
        view.value = (const uint8_t *)large;
        status =
            bfti_large_read(&reader, key, &view, offset, buf, len, &stable);
        bfti_reader_close(&reader);
        if (status != BFT_OK)
            return status;
    }
    return BFT_OK;
}

static bft_status read_value(bft_feed *feed, const bft_change *change,
                             uint64_t offset, void *buf, size_t len)
{
    struct bfti_engine *engine = feed->engine;
    struct bfti_large large;
    struct bfti_tree *tree;
    struct bfti_rec *rec;

    if (len == 0)
        return BFT_OK;
    if (!change->internal) {
        memcpy(buf, (const uint8_t *)change->value.data + offset, len);
        return BFT_OK;
    }
    rec = bfti_rec_current(engine->buffer.threads);
    if (!rec)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a thread's record");
    tree = bfti_tree_by_id(engine, change->tree_id);
    if (!tree)
        return replaced();
    memcpy(&large, change->internal, sizeof(large));
    if (tree->ttl_ms)
        offset += BFTI_STAMP;
    return read_large(tree, rec, change->key, &large, offset, buf, len);
}

bft_status bft_feed_value(bft_feed *feed, const bft_change *change,
                          uint64_t offset, void *buf, size_t len, size_t *got)
{
    uint64_t rest;
    bft_status status;

    if (got)
        *got = 0;
    if (!got || (!buf && len))
        return bfti_fail(BFT_INVALID, "bft_feed_value: an output is NULL");
    status = enter(feed);
    if (status != BFT_OK)
        return status;
    if (!change || change < feed->change ||
        change >= feed->change + feed->count || change->op != BFT_CHANGE_PUT) {
        status = bfti_fail(BFT_INVALID,
                           "the change is no put of the feed's last commit");
    } else {
        rest = offset < change->value_bytes ? change->value_bytes - offset : 0;
        if (len > rest)
            len = (size_t)rest;
        status = read_value(feed, change, offset, buf, len);
        if (status == BFT_OK)
            *got = len;
    }
    leave(feed);
    return status;
}
