/*
 * Snapshots: which are open, and how one comes between writes.
 *
 * A snapshot is a number.  While one is open, who changes a record keeps what it
 * was (history.c) before the change is published, unless that was done since the
 * newest snapshot was taken.  A snapshot reads the tree, then the history.
 *
 * So it must be said of every write whether it came before a snapshot or after
 * it: a writer looks for the newest one between bfti_publish_begin() and the
 * publishing, with the latches of its leaves held; to take one is to store a
 * higher number, then to look at those who publish just then: who does not go on
 * is not waited for (late.c).  [publish]
 *
 * Then the snapshot is settled: it is decided which writes it has.  Who saw the
 * number publishes after that, and settles it himself when its taker, who may be
 * stopped, has not.  [settled]
 */
#include "snapshot.h"
#include "cache.h"
#include "expiry.h"
#include "tomb.h"

#include <assert.h>

enum {
    MAGIC_SNAPSHOT = 0x62667473,
    PATIENCE = 8, /* rounds of a write before snapshots give way to it */
    STOPPED_NS = 10 * 1000 * 1000,
    GIVE_WAY_NS = 1000 * 1000,
    READER_LOOKS = 16,
    READER_NAP_NS = 100 * 1000,
};

/* --- which are open ------------------------------------------------------- */

uint64_t bfti_snapshot_number(const struct bft_snapshot *snapshot)
{
    return snapshot->number;
}

const struct bfti_late *bfti_snapshot_late(const struct bft_snapshot *snapshot)
{
    return &snapshot->late;
}

uint64_t bfti_snapshot_now(const struct bft_snapshot *snapshot,
                           const struct bfti_tree *tree)
{
    return tree->ttl_ms ? snapshot->now : 0;
}

uint64_t bfti_snapshots_time(struct bfti_engine *engine, uint64_t now)
{
    bfti_mutex_lock(engine->env, &engine->snapshots_lock);
    for (struct bft_snapshot *s = engine->snapshots; s; s = s->older)
        now = s->now < now ? s->now : now;
    bfti_mutex_unlock(engine->env, &engine->snapshots_lock);
    return now;
}

uint64_t bfti_snapshots_oldest(struct bfti_engine *engine)
{
    uint64_t oldest = UINT64_MAX;
    bfti_mutex_lock(engine->env, &engine->snapshots_lock);
    for (struct bft_snapshot *s = engine->snapshots; s; s = s->older)
        oldest = s->number;
    bfti_mutex_unlock(engine->env, &engine->snapshots_lock);
    return oldest;
}

bool bfti_snapshots_any(struct bfti_engine *engine, uint64_t from,
                        uint64_t until)
{
    bool any = false;
    bfti_mutex_lock(engine->env, &engine->snapshots_lock);
    for (struct bft_snapshot *s = engine->snapshots; s && !any; s = s->older)
        any = s->number >= from && s->number < until;
    bfti_mutex_unlock(engine->env, &engine->snapshots_lock);
    return any;
}

/* Under snapshots_lock. */
static void set_newest(struct bfti_engine *engine)
{
    atomic_store(&engine->snapshot_newest, /* [publish] */
                 engine->snapshots ? engine->snapshots->number : 0);
}

static void link_newest(struct bfti_engine *engine, struct bft_snapshot *s)
{
    s->number = ++engine->snapshot_count;
    /* Under the lock: what expired before somebody looked for the oldest one
     * has expired for those that come behind. */
    s->now = bfti_now(engine);
    s->older = engine->snapshots;
    if (s->older)
        s->older->newer = s;
    engine->snapshots = s;
    set_newest(engine);
}

static void unlink_it(struct bft_snapshot *s)
{
    struct bfti_engine *engine = s->engine;
    if (s->newer)
        s->newer->older = s->older;
    else
        engine->snapshots = s->older;
    if (s->older)
        s->older->newer = s->newer;
    s->engine = NULL;
    set_newest(engine);
}

/* --- settling -------------------------------------------------------------- */

/* The oldest up to UNTIL that is not settled, under snapshots_lock; NULL: none.
 * They are settled in order, so these are the newest ones. */
static struct bft_snapshot *unsettled(const struct bfti_engine *engine,
                                      uint64_t until)
{
    struct bft_snapshot *found = NULL;
    for (struct bft_snapshot *s = engine->snapshots; s && !s->settled;
         s = s->older)
        if (s->number <= until)
            found = s;
    return found;
}

static uint64_t next_to_settle(struct bfti_engine *engine, uint64_t until)
{
    const struct bft_snapshot *s;
    uint64_t number;
    if (atomic_load(&engine->snapshot_settled) + 1 == until)
        return until;
    bfti_mutex_lock(engine->env, &engine->snapshots_lock);
    s = unsettled(engine, until);
    number = s ? s->number : 0;
    bfti_mutex_unlock(engine->env, &engine->snapshots_lock);
    return number;
}

uint64_t bfti_snapshots_hold(struct bfti_engine *engine)
{
    bfti_mutex_lock(engine->env, &engine->snapshots_lock);
    return atomic_load(&engine->snapshot_settled);
}

void bfti_snapshots_let(struct bfti_engine *engine)
{
    bfti_mutex_unlock(engine->env, &engine->snapshots_lock);
}

/* LATE is what snapshot NUMBER keeps, and all before it are settled; unless another
 * was first, or it has ended, or more than MADE ranges were deleted: they are in it,
 * and a late writer may have become visible before they did. */
static void set_settled(struct bfti_engine *engine, uint64_t number,
                        uint64_t made, struct bfti_late *late)
{
    struct bft_snapshot *s;
    bool holds;
    bfti_mutex_lock(engine->env, &engine->snapshots_lock);
    s = unsettled(engine, number);
    holds = atomic_load(&engine->tombs_made) == made; /* [tomb] */
    if (s && s->number == number && holds) {
        s->late = *late;
        memset(late, 0, sizeof(*late));
        s->settled = true;
    }
    if ((!s || s->settled) && atomic_load(&engine->snapshot_settled) < number)
        atomic_store(&engine->snapshot_settled, number); /* [settled] */
    bfti_mutex_unlock(engine->env, &engine->snapshots_lock);
    bfti_late_free(engine->env, late);
}

/* Settle all up to UNTIL that are open.  Errors: bfti_late_keep(). */
static bft_status settle_until(struct bfti_engine *engine, struct bfti_rec *rec,
                               uint64_t until)
{
    /* Ends: each round settles one, or follows one who did, or a deletion. */
    while (atomic_load(&engine->snapshot_settled) < until) {
        struct bfti_late late = {.record = NULL};
        uint64_t number = next_to_settle(engine, until);
        uint64_t made = atomic_load(&engine->tombs_made); /* [tomb] */
        bft_status status;
        if (number == 0) /* they have ended */
            break;
        /* [publish] whoever did not see the number has published when this
         * returns, or comes behind it. */
        status = bfti_fault_on(BFTI_FAULT_SNAPSHOT_HASTY)
                     ? BFT_OK
                     : bfti_late_keep(engine, rec, number, &late);
        if (status != BFT_OK)
            return status;
        PARK("snapshot:looked");
        set_settled(engine, number, made, &late);
    }
    return BFT_OK;
}

/* --- kept away ------------------------------------------------------------ */

static bool is_refusing(const struct bfti_engine *engine)
{
    for (const struct bft_snapshot *s = engine->snapshots; s; s = s->older)
        if (!s->of_cursor)
            return true;
    return false;
}

bft_status bfti_snapshots_stop(struct bfti_engine *engine, const char *what,
                               const char *tree)
{
    bool open;
    bfti_mutex_lock(engine->env, &engine->snapshots_lock);
    open = is_refusing(engine);
    if (!open)
        engine->snapshot_stops++;
    bfti_mutex_unlock(engine->env, &engine->snapshots_lock);
    return open ? bfti_fail(BFT_BUSY,
                            "%s: while a snapshot or a transaction is open "
                            "tree %s cannot be %s",
                            engine->path, tree, what)
                : BFT_OK;
}

void bfti_snapshots_go(struct bfti_engine *engine)
{
    bfti_mutex_lock(engine->env, &engine->snapshots_lock);
    engine->snapshot_stops--;
    bfti_mutex_unlock(engine->env, &engine->snapshots_lock);
    atomic_fetch_add(&engine->snapshot_word, 1);
    engine->env->wake(engine->env->ctx, &engine->snapshot_word, true);
}

bft_status bfti_saver_begin(struct bfti_saver *saver, struct bfti_rec *rec)
{
    struct bfti_engine *engine = saver->engine;
    uint64_t newest;
    if (saver->rounds++ == PATIENCE && !saver->in_haste) {
        atomic_fetch_add(&engine->snapshot_haste, 1);
        saver->in_haste = true;
    }
    newest = bfti_snapshots_newest(engine);
    saver->guard = (struct bfti_guard){.saved = newest};
    /* [settled] else who sees this write and not yet that of a late writer could
     * find the snapshot to have the late one only. */
    return newest && !bfti_fault_on(BFTI_FAULT_SNAPSHOT_UNSETTLED)
               ? settle_until(engine, rec, newest)
               : BFT_OK;
}

/* Somebody who is being decided has read what is to be changed: he is soon done,
 * unless he was stopped. */
static void wait_for_reader(struct bfti_saver *saver)
{
    const struct bfti_env *env = saver->engine->env;
    _Atomic uint32_t never = 0; /* nobody wakes it: a bounded sleep */
    saver->rounds--;
    if (saver->held++ < READER_LOOKS)
        env->yield(env->ctx);
    else
        env->wait(env->ctx, &never, 0, READER_NAP_NS);
}

bool bfti_saver_again(struct bfti_saver *saver, bft_status *status)
{
    bool held = *status == (bft_status)BFTI_HELD;
    if (!held && *status != (bft_status)BFTI_OVERTAKEN)
        return false;
    *status = BFT_OK;
    if (held)
        wait_for_reader(saver);
    return true;
}

void bfti_saver_end(struct bfti_saver *saver)
{
    struct bfti_engine *engine = saver->engine;
    if (!saver->in_haste)
        return;
    saver->in_haste = false;
    atomic_fetch_sub(&engine->snapshot_haste, 1);
    atomic_fetch_add(&engine->snapshot_word, 1);
    engine->env->wake(engine->env->ctx, &engine->snapshot_word, true);
}

/* --- taking and releasing ------------------------------------------------- */

/* Writers that were overtaken over and over are to come to an end: but they may
 * be stopped, so not for long. */
static void give_way(struct bfti_engine *engine)
{
    uint32_t seen = atomic_load(&engine->snapshot_word);
    if (atomic_load(&engine->snapshot_haste))
        engine->env->wait(engine->env->ctx, &engine->snapshot_word, seen,
                          GIVE_WAY_NS);
}

/* Put S among those that are open.  False: not now. */
static bool try_link(struct bfti_engine *engine, struct bft_snapshot *s)
{
    bool linked;
    bfti_mutex_lock(engine->env, &engine->snapshots_lock);
    linked = s->of_cursor ||
             (engine->snapshot_stops == 0 &&
              (engine->options.read_only || bfti_history_is_there(engine)));
    if (linked)
        link_newest(engine, s);
    bfti_mutex_unlock(engine->env, &engine->snapshots_lock);
    return linked;
}

static bft_status link_snapshot(struct bfti_engine *engine,
                                struct bfti_rec *rec, struct bft_snapshot *s)
{
    /* Ends: whoever stops snapshots does so for one change. */
    for (;;) {
        uint32_t seen = atomic_load(&engine->snapshot_word);
        bft_status status = engine->options.read_only
                                ? BFT_OK
                                : bfti_history_begin(engine, rec);
        if (status != BFT_OK)
            return status;
        PARK("snapshot:history-there");
        if (try_link(engine, s))
            return BFT_OK;
        engine->env->wait(engine->env->ctx, &engine->snapshot_word, seen,
                          STOPPED_NS);
    }
}

/* S is linked: it is taken when this returns, or ends. */
static bft_status settle(struct bfti_engine *engine, struct bfti_rec *rec,
                         struct bft_snapshot *s)
{
    bft_status status;
    PARK("snapshot:linked");
    status = settle_until(engine, rec, s->number);
    if (status != BFT_OK)
        bfti_instant_end(s);
    return status;
}

static void fill(struct bft_snapshot *s, bft_db *db, struct bfti_engine *engine,
                 bool of_cursor)
{
    memset(s, 0, sizeof(*s));
    s->magic = MAGIC_SNAPSHOT;
    s->db = db;
    s->engine = engine;
    s->env = engine->env; /* outlives the handle */
    s->of_cursor = of_cursor;
    atomic_store(&s->uses, 1);
}

bft_status bft_snapshot_take(bft_db *db, bft_snapshot **out)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    bft_snapshot *s;
    bft_status status;
    if (!out)
        return bfti_fail(BFT_INVALID, "bft_snapshot_take: an output is NULL");
    *out = NULL;
    status = bfti_gate(db, &engine);
    if (status == BFT_OK)
        status = bfti_check_keeps(engine, "it has no snapshots");
    if (status != BFT_OK)
        return status;
    rec = bfti_rec_current(engine->buffer.threads);
    s = rec ? bfti_alloc(engine->env, sizeof(*s)) : NULL;
    if (!s)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a snapshot");
    fill(s, db, engine, false);
    give_way(engine);
    status = link_snapshot(engine, rec, s);
    if (status == BFT_OK)
        status = settle(engine, rec, s);
    if (status == BFT_OK)
        *out = s;
    else
        bfti_free(engine->env, s);
    return status;
}

bft_status bfti_instant_begin(struct bfti_engine *engine, struct bfti_rec *rec,
                              bft_db *db, struct bft_snapshot *s)
{
    fill(s, db, engine, true);
    give_way(engine);
    (void)try_link(engine, s);
    return settle(engine, rec, s);
}

void bfti_instant_end(struct bft_snapshot *s)
{
    struct bfti_engine *engine = s->engine;
    /* No close runs beside this call, as none does beside others. */
    if (engine && engine->fork_generation == bfti_fork_generation()) {
        bfti_mutex_lock(engine->env, &engine->snapshots_lock);
        unlink_it(s);
        bfti_mutex_unlock(engine->env, &engine->snapshots_lock);
    }
    s->magic = 0;
    bfti_late_free(s->env, &s->late);
}

void bfti_snapshot_use(struct bft_snapshot *snapshot)
{
    atomic_fetch_add(&snapshot->uses, 1);
}

void bft_snapshot_release(bft_snapshot *s)
{
    if (!s || s->magic != MAGIC_SNAPSHOT)
        return;
    if (atomic_fetch_sub(&s->uses, 1) > 1)
        return;
    bfti_instant_end(s);
    bfti_free(s->env, s);
}

void bfti_snapshots_end(bft_db *db)
{
    struct bfti_engine *engine = db->engine;
    struct bft_snapshot *s, *older;
    bfti_mutex_lock(engine->env, &engine->snapshots_lock);
    for (s = engine->snapshots; s; s = older) {
        older = s->older;
        if (s->db == db)
            unlink_it(s);
    }
    bfti_mutex_unlock(engine->env, &engine->snapshots_lock);
}

/* --- reading -------------------------------------------------------------- */

bft_status bfti_snapshot_gate(const struct bft_snapshot *s, bft_tree *tree,
                              struct bfti_engine **engine,
                              struct bfti_rec **rec)
{
    bft_status status;
    *engine = NULL;
    *rec = NULL;
    if (!s)
        return bfti_fail(BFT_INVALID, "the snapshot is NULL");
    if (s->magic != MAGIC_SNAPSHOT)
        return bfti_fail(BFT_INVALID, "the snapshot was released");
    status = bfti_gate(s->db, engine);
    if (status == BFT_OK)
        status = bfti_gate_tree(tree, engine, rec);
    if (status == BFT_OK && *engine != s->engine)
        return bfti_fail(BFT_INVALID,
                         "the tree is of another database than the snapshot");
    return status;
}

bft_status bfti_snapshot_read(const struct bft_snapshot *snapshot,
                              struct bfti_rec *rec, struct bfti_tree *tree,
                              bft_slice key, struct bfti_take *take,
                              bool *found)
{
    struct bfti_version version;
    bool there = false;
    bft_status status, asked;
    if (bfti_late_find(&snapshot->late, tree, key, &version))
        return bfti_version_take(rec, &version, take, found);
    if (bfti_tomb_hides(tree, rec, key, snapshot->number)) {
        *found = false;
        return BFT_OK;
    }
    /* The tree first: a change that it shows was saved before. */
    status = bfti_value_read(tree, rec, key, take, found);
    if (status != BFT_OK && status != BFT_TOO_SMALL)
        return status;
    PARK("snapshot:tree-read");
    asked = bfti_history_find(tree->engine, rec, tree, key, snapshot->number,
                              &there, &version);
    if (asked != BFT_OK)
        return asked;
    if (there && !bfti_fault_on(BFTI_FAULT_SNAPSHOT_NEWER)) {
        status = bfti_version_take(rec, &version, take, found);
        bfti_version_free(&version);
    }
    return status;
}

static bft_status get(bft_snapshot *snapshot, bft_tree *tree, bft_slice key,
                      struct bfti_take *take)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_tree *inside;
    bool found;
    bft_status status = bfti_snapshot_gate(snapshot, tree, &engine, &rec);
    if (status == BFT_OK)
        status = bfti_check_key(key);
    if (status != BFT_OK)
        return status;
    take->env = engine->env;
    inside = bfti_handle_tree(tree);
    take->now = bfti_snapshot_now(snapshot, inside);
    bfti_count(rec, BFTI_N_GETS, 1);
    status = bfti_snapshot_read(snapshot, rec, inside, key, take, &found);
    return bfti_take_end(take, status, found);
}

bft_status bft_snapshot_get(bft_snapshot *snapshot, bft_tree *tree,
                            bft_slice key, void *buf, size_t buf_len,
                            size_t *value_len)
{
    struct bfti_take take = {.buf = buf, .buf_len = buf_len};
    bft_status status;
    if (value_len)
        *value_len = 0;
    if (!value_len || (!buf && buf_len))
        return bfti_fail(BFT_INVALID, "bft_snapshot_get: an output is NULL");
    status = get(snapshot, tree, key, &take);
    if (status == BFT_OK || status == BFT_TOO_SMALL)
        *value_len = take.value_len;
    return status;
}

bft_status bft_snapshot_get_copy(bft_snapshot *snapshot, bft_tree *tree,
                                 bft_slice key, void **value, size_t *value_len)
{
    struct bfti_take take = {.allocate = true};
    bft_status status;
    if (value)
        *value = NULL;
    if (value_len)
        *value_len = 0;
    if (!value || !value_len)
        return bfti_fail(BFT_INVALID,
                         "bft_snapshot_get_copy: an output is NULL");
    status = get(snapshot, tree, key, &take);
    if (status != BFT_OK) {
        bft_free(take.buf);
        return status;
    }
    *value = take.buf;
    *value_len = take.value_len;
    return BFT_OK;
}
