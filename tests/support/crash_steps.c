/* What a life does: opening and closing, and operations at random. */
#include "crash_life_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fileio/pagefile_internal.h"

enum { LOAD_MOST = 300, MERGE_MOST = 100 }; /* records of a bulk load */

/* --- opening and closing ----------------------------------------------------- */

static void forget_handles(struct life *l)
{
    l->db = NULL;
    l->engine = NULL;
    memset(l->tree, 0, sizeof(l->tree));
    /* It ended with its database. */
    bft_snapshot_release(l->snapshot);
    l->snapshot = NULL;
}

bool crash_open(struct life *l, enum phase phase)
{
    bft_status status;

    l->surroundings.vfs = l->sim;
    l->phase = phase;
    l->superblock_last = false;
    status = bft_open(crash_dir, &l->options, &l->db);
    l->phase = PHASE_LIVE;
    l->run->reopenings++;
    if (status != BFT_OK) {
        forget_handles(l);
        return crash_fine(l, status);
    }
    l->engine = l->db->engine;
    l->engine->buffer.pf->space.hole_floor = 0; /* of a few leaves, too */
    l->engine->buffer.pf->codecs.eager = true;
    l->engine->buffer.hurried = l->run->reopenings % 2; /* lists of deltas */
    l->splits = crash_counter(l, BFTI_N_SPLITS);
    l->evictions = crash_counter(l, BFTI_N_EVICT_DIRTY);
    l->merges =
        crash_counter(l, BFTI_N_MERGES) + crash_counter(l, BFTI_N_DELTAS);
    return !crash_failed(l);
}

bool crash_open_trees(struct life *l)
{
    bft_tree_options must_exist = {.size = sizeof(must_exist),
                                   .must_exist = true};

    for (unsigned t = 0; t < CRASH_TREES; t++)
        if (crash_has_tree(l->oracle, t) &&
            !crash_fine(l, bft_tree_open(l->db, crash_tree_name(t), &must_exist,
                                         &l->tree[t])))
            return false;
    return true;
}

/* What lives have gone through, so that a test can tell that it was much. */
static void count_life(struct life *l)
{
    struct crash_run *r = l->run;

    r->splits += crash_counter(l, BFTI_N_SPLITS);
    r->leaf_merges += crash_counter(l, BFTI_N_LEAF_MERGES);
    r->leaves_moved += crash_counter(l, BFTI_N_LEAVES_MOVED);
    r->deltas += crash_counter(l, BFTI_N_DELTAS);
    r->promotions += crash_counter(l, BFTI_N_PROMOTIONS);
    r->evictions += crash_counter(l, BFTI_N_EVICT_DIRTY);
    r->checkpoints += crash_counter(l, BFTI_N_CHECKPOINTS);
}

bool crash_close(struct life *l)
{
    bft_status status;

    l->doing = "close";
    count_life(l);
    status = bft_close(l->db);
    for (unsigned i = 0; i < l->pending_count; i++)
        l->pending[i]->kind = CRASH_CHECKPOINT;
    l->pending_count = 0;
    forget_handles(l);
    if (!crash_fine(l, status))
        return false;
    crash_acknowledge(l->oracle, BFT_SYNC);
    return true;
}

void crash_abandon(struct life *l)
{
    bfti_sim_on_step(l->sim, NULL, NULL);
    if (!l->db)
        return;
    count_life(l);
    bfti_sim_crash_at(l->sim, 0);
    l->options.report = NULL;
    (void)bft_close(l->db);
    forget_handles(l);
}

/* --- operations -------------------------------------------------------------- */

static bool acknowledged(struct life *l, bft_status status,
                         bft_durability durability)
{
    if (!crash_fine(l, status))
        return false;
    crash_acknowledge(l->oracle,
                      durability ? durability : l->options.durability);
    l->run->commits++;
    return true;
}

static bool have_tree(struct life *l, unsigned t)
{
    bft_tree_options options = {.size = sizeof(options),
                                .leaf_bytes = 512u << crash_roll(l, 3)};

    if (l->tree[t])
        return true;
    l->doing = "create tree";
    crash_begin(l->oracle);
    crash_create_tree(l->oracle, t);
    return acknowledged(
        l, bft_tree_open(l->db, crash_tree_name(t), &options, &l->tree[t]),
        BFT_DEFAULT);
}

static size_t value_len(struct life *l)
{
    if (l->ghosts)
        return 48;
    switch (crash_roll(l, 16)) {
    case 0:
    case 1:
        return crash_roll(l, 30);
    case 2:
    case 3:
    case 4:
        return 100 + crash_roll(l, 110);
    case 5:
        if (l->big && crash_roll(l, 6) == 0)
            return crash_roll(l, 4) ? (size_t)crash_roll(l, 700 << 10)
                                    : VALUE_MAX - 8;
        return crash_roll(l, 6) ? 200 + crash_roll(l, 2800)
                                : 3000 + crash_roll(l, 70000);
    default:
        return 40 + crash_roll(l, 60);
    }
}

static bool op_put(struct life *l)
{
    unsigned t = crash_roll(l, CRASH_TREES), k;
    uint8_t key[CRASH_KEY_MAX];
    size_t len = value_len(l);

    /* Neighbours now and then: leaves that fill. */
    k = crash_roll(l, l->oracle->keys);
    if (l->ghosts)
        k |= 1;
    if (!have_tree(l, t))
        return false;
    l->doing = "put";
    crash_begin(l->oracle);
    crash_put(l->oracle, t, k, len);
    crash_value(l->oracle, t, k, l->value, len);
    return acknowledged(
        l, bft_put(l->tree[t], crash_key(k, key), (bft_slice){l->value, len}),
        BFT_DEFAULT);
}

static bool op_insert(struct life *l)
{
    unsigned t = crash_roll(l, CRASH_TREES), k = crash_roll(l, l->oracle->keys);
    uint8_t key[CRASH_KEY_MAX];
    size_t len = value_len(l);
    bft_status status;

    if (!have_tree(l, t))
        return false;
    l->doing = "insert";
    if (crash_has(l->oracle, t, k)) {
        status =
            bft_insert(l->tree[t], crash_key(k, key), (bft_slice){l->value, 0});
        return status == BFT_EXISTS ||
               crash_failure(l, "insert of a key that is there: %d",
                             (int)status);
    }
    crash_begin(l->oracle);
    crash_put(l->oracle, t, k, len);
    crash_value(l->oracle, t, k, l->value, len);
    return acknowledged(
        l,
        bft_insert(l->tree[t], crash_key(k, key), (bft_slice){l->value, len}),
        BFT_DEFAULT);
}

/* As when the memory is full. */
static bool op_evict(struct life *l)
{
    struct bfti_rec *rec = bfti_rec_current(l->engine->buffer.threads);

    l->doing = "evict";
    for (unsigned i = 0, n = 1 + crash_roll(l, 12); i < n; i++) {
        bool done;
        if (!crash_fine(l, bfti_evict_one(&l->engine->buffer, rec, &done)))
            return false;
    }
    l->doing = "sweep";
    return crash_fine(l, bfti_sweep(l->engine, rec));
}

/* Some of a pass of the cleaner; what has been done in vain is done again. */
static bool op_clean(struct life *l)
{
    struct bfti_rec *rec = bfti_rec_current(l->engine->buffer.threads);
    bool more = true;

    l->doing = "clean";
    l->engine->buffer.pf->space.cleaned_times = 0;
    for (unsigned i = 1 + crash_roll(l, 8); more && i-- > 0;)
        if (!crash_fine(l, bfti_clean(l->engine, rec, 16 << 10, true, &more)))
            return false;
    return true;
}

static bool delete_key(struct life *l, unsigned t, unsigned k)
{
    uint8_t key[CRASH_KEY_MAX];

    l->doing = "delete";
    crash_begin(l->oracle);
    crash_delete(l->oracle, t, k);
    return acknowledged(l, bft_delete(l->tree[t], crash_key(k, key)),
                        BFT_DEFAULT);
}

/* Neighbours, so that leaves become small and are let become one. */
static bool delete_many(struct life *l, unsigned t)
{
    unsigned k[64], max = 10 + crash_roll(l, 54), n = 0;
    uint8_t key[CRASH_KEY_MAX];
    bft_cursor *cursor;
    bft_status status;
    bft_slice at;

    l->doing = "cursor";
    if (!crash_fine(l, bft_cursor_open(l->tree[t], &cursor)))
        return false;
    status = bft_cursor_seek(cursor, BFT_GE,
                             crash_key(crash_roll(l, l->oracle->keys), key));
    while (status == BFT_OK && n < max) {
        status = bft_cursor_key(cursor, &at);
        if (status != BFT_OK)
            break;
        k[n++] = crash_key_number(at);
        status = bft_cursor_next(cursor);
    }
    bft_cursor_close(cursor);
    if (status != BFT_NOT_FOUND && !crash_fine(l, status))
        return false;
    while (n > 0)
        if (!delete_key(l, t, k[--n]))
            return false;
    /* Merged, so that it is seen that they are small. */
    for (unsigned i = 0; i < 4; i++)
        if (!op_evict(l))
            return false;
    return true;
}

static bool op_delete(struct life *l)
{
    unsigned t = crash_roll(l, CRASH_TREES);

    if (!have_tree(l, t))
        return false;
    return crash_roll(l, 10) == 0
               ? delete_many(l, t)
               : delete_key(l, t, crash_roll(l, l->oracle->keys));
}

/* One commit, whatever there is to be deleted; one of nothing is none. */
static bool op_delete_range(struct life *l)
{
    unsigned t = crash_roll(l, CRASH_TREES), n = 0;
    /* Of four ranges one is empty: removing nothing is a commit too. */
    unsigned max = crash_roll(l, 4) ? crash_roll(l, 200) : 0;
    uint8_t low[CRASH_KEY_MAX], high[CRASH_KEY_MAX];
    bft_slice from = crash_key(crash_roll(l, l->oracle->keys), low), at;
    bft_slice to = {NULL, 0};
    bool counts = crash_roll(l, 2);
    uint64_t deleted = 0;
    bft_cursor *cursor;
    bft_status status;

    if (!have_tree(l, t))
        return false;
    l->doing = "cursor";
    if (!crash_fine(l, bft_cursor_open(l->tree[t], &cursor)))
        return false;
    status = bft_cursor_seek(cursor, BFT_GE, from);
    for (; status == BFT_OK; n++) {
        status = bft_cursor_key(cursor, &at);
        if (status != BFT_OK)
            break;
        if (n == max) {
            memcpy(high, at.data, at.len);
            to = (bft_slice){high, at.len};
            break;
        }
        if (n == 0)
            crash_begin(l->oracle);
        crash_delete(l->oracle, t, crash_key_number(at));
        status = bft_cursor_next(cursor);
    }
    bft_cursor_close(cursor);
    if (status != BFT_NOT_FOUND && !crash_fine(l, status))
        return false;
    l->doing = "delete range";
    if (!acknowledged(
            l, bft_delete_range(l->tree[t], from, to, counts ? &deleted : NULL),
            BFT_DEFAULT))
        return false;
    return !counts || deleted == n ||
           crash_failure(l, "%llu of %u records deleted",
                         (unsigned long long)deleted, n);
}

static bft_status read_piece(void *ctx, void *buf, size_t len)
{
    const uint8_t **at = ctx;
    memcpy(buf, *at, len);
    *at += len;
    return BFT_OK;
}

static bool op_stream(struct life *l)
{
    unsigned t = crash_roll(l, CRASH_TREES), k = crash_roll(l, l->oracle->keys);
    uint8_t key[CRASH_KEY_MAX];
    size_t len = crash_roll(l, 4) ? 130 + crash_roll(l, 3000)
                                  : 3000 + crash_roll(l, 30000);
    const uint8_t *at = l->value;

    if (l->big && crash_roll(l, 4) == 0)
        len = 520 << 10;
    if (!have_tree(l, t))
        return false;
    l->doing = "put_stream";
    crash_begin(l->oracle);
    crash_put(l->oracle, t, k, len);
    crash_value(l->oracle, t, k, l->value, len);
    return acknowledged(
        l, bft_put_stream(l->tree[t], crash_key(k, key), len, read_piece, &at),
        BFT_DEFAULT);
}

static bool fill_batch(struct life *l, bft_batch *batch)
{
    unsigned n = 1 + crash_roll(l, BATCH_MAX);
    uint8_t key[CRASH_KEY_MAX];

    for (unsigned i = 0; i < n; i++) {
        unsigned t = crash_roll(l, CRASH_TREES),
                 k = crash_roll(l, l->oracle->keys);
        size_t len = value_len(l);
        bft_status status;

        if (!l->tree[t])
            continue;
        if (len > 3000)
            len %= 3000;
        if (crash_roll(l, 4) == 0) {
            crash_delete(l->oracle, t, k);
            status = bft_batch_delete(batch, l->tree[t], crash_key(k, key));
        } else {
            crash_put(l->oracle, t, k, len);
            crash_value(l->oracle, t, k, l->value, len);
            status = bft_batch_put(batch, l->tree[t], crash_key(k, key),
                                   (bft_slice){l->value, len});
        }
        if (!crash_fine(l, status))
            return false;
    }
    return true;
}

bool crash_op_batch(struct life *l)
{
    static const bft_durability some[] = {BFT_DEFAULT, BFT_NONE, BFT_BUFFERED,
                                          BFT_SYNC};
    bft_durability durability = some[crash_roll(l, 4)];
    bft_batch *batch;
    uint64_t lsn;
    bool ok;

    if (!have_tree(l, crash_roll(l, CRASH_TREES)))
        return false;
    l->doing = "batch";
    if (!crash_fine(l, bft_batch_create(l->db, &batch)))
        return false;
    crash_begin(l->oracle);
    ok = fill_batch(l, batch) &&
         acknowledged(l, bft_batch_commit(batch, durability, &lsn), durability);
    bft_batch_free(batch);
    if (ok && crash_roll(l, 6) == 0) {
        l->doing = "wait_durable";
        ok = acknowledged(l, bft_wait_durable(l->db, lsn), BFT_SYNC);
    }
    return ok;
}

/* --- snapshots and transactions ----------------------------------------------- */

/* Trees are not to go while it is open. */
static bool release(struct life *l)
{
    uint8_t key[CRASH_KEY_MAX];
    bft_status status;
    void *value;
    size_t len;

    if (!l->snapshot)
        return true;
    l->doing = "get of a snapshot";
    status = bft_snapshot_get_copy(l->snapshot, l->past.tree,
                                   crash_key(l->past.key, key), &value, &len);
    bft_free(value);
    bft_snapshot_release(l->snapshot);
    l->snapshot = NULL;
    return status == (l->past.there ? BFT_OK : BFT_NOT_FOUND) ||
           crash_failure(l, "key %u, which was %s: %d", l->past.key,
                         l->past.there ? "there" : "not there", (int)status);
}

static bool op_snapshot(struct life *l)
{
    unsigned t = crash_roll(l, CRASH_TREES);

    if (l->snapshot)
        return release(l);
    if (!l->tree[t])
        return true;
    l->past.tree = l->tree[t];
    l->past.key = crash_roll(l, l->oracle->keys);
    l->past.there = crash_has(l->oracle, t, l->past.key);
    l->doing = "take a snapshot";
    return crash_fine(l, bft_snapshot_take(l->db, &l->snapshot));
}

/* One record of those that a transaction reads and writes. */
static bool txn_change(struct life *l, bft_txn *txn, unsigned t, unsigned k)
{
    uint8_t key[CRASH_KEY_MAX];
    bool has = crash_has(l->oracle, t, k);
    size_t len = value_len(l) % 2000;
    void *value;
    size_t got;
    bft_status status =
        bft_txn_get_copy(txn, l->tree[t], crash_key(k, key), &value, &got);

    bft_free(value);
    if (status != (has ? BFT_OK : BFT_NOT_FOUND))
        return crash_failure(l, "key %u of a transaction, which is %s: %d", k,
                             has ? "there" : "not there", (int)status);
    if (has && crash_roll(l, 3) == 0) {
        crash_delete(l->oracle, t, k);
        return crash_fine(l,
                          bft_txn_delete(txn, l->tree[t], crash_key(k, key)));
    }
    crash_put(l->oracle, t, k, len);
    crash_value(l->oracle, t, k, l->value, len);
    return crash_fine(l, bft_txn_put(txn, l->tree[t], crash_key(k, key),
                                     (bft_slice){l->value, len}));
}

static bool op_txn(struct life *l)
{
    static const bft_durability some[] = {BFT_DEFAULT, BFT_BUFFERED, BFT_SYNC};
    bft_durability durability = some[crash_roll(l, 3)];
    unsigned written = 0;
    bft_txn *txn;
    bool ok = true;

    if (!have_tree(l, crash_roll(l, CRASH_TREES)))
        return false;
    l->doing = "transaction";
    if (!crash_fine(l, bft_txn_begin(l->db, BFT_SERIALIZABLE, &txn)))
        return false;
    crash_begin(l->oracle);
    for (unsigned n = 1 + crash_roll(l, 6); ok && n > 0; n--) {
        unsigned t = crash_roll(l, CRASH_TREES);
        if (!l->tree[t])
            continue;
        ok = txn_change(l, txn, t, crash_roll(l, l->oracle->keys));
        written++;
    }
    if (ok && written)
        return acknowledged(l, bft_txn_commit(txn, durability, NULL),
                            durability);
    bft_txn_abort(txn); /* one that wrote nothing makes nothing durable */
    return ok;
}

/* --- trees and the rest -------------------------------------------------------- */

static bool op_drop(struct life *l)
{
    unsigned t = crash_roll(l, CRASH_TREES);

    if (!l->tree[t])
        return true;
    if (!release(l))
        return false;
    l->doing = "drop";
    l->phase = PHASE_DROP;
    crash_begin(l->oracle);
    crash_drop_tree(l->oracle, t);
    l->tree[t] = NULL;
    if (!acknowledged(l, bft_tree_drop(l->db, crash_tree_name(t)), BFT_DEFAULT))
        return false;
    if (crash_roll(l, 3) == 0) {
        l->doing = "checkpoint after drop";
        if (!acknowledged(l, bft_checkpoint(l->db), BFT_SYNC))
            return false;
    }
    l->phase = PHASE_LIVE;
    return true;
}

static bool op_truncate(struct life *l)
{
    unsigned t = crash_roll(l, CRASH_TREES);

    if (!l->tree[t])
        return true;
    if (!release(l))
        return false;
    l->doing = "truncate";
    l->phase = PHASE_DROP;
    crash_begin(l->oracle);
    crash_truncate_tree(l->oracle, t);
    if (!acknowledged(l, bft_tree_truncate(l->db, crash_tree_name(t)),
                      BFT_DEFAULT))
        return false;
    l->phase = PHASE_LIVE;
    return true;
}

struct loading {
    struct life *life;
    unsigned tree;
    unsigned key[LOAD_MOST];
    size_t len[LOAD_MOST];
    size_t count, at;
    const uint8_t *from; /* rest of a value that is streamed */
    uint8_t buf[CRASH_KEY_MAX];
};

static bft_status next_loaded(void *ctx, bft_bulk_record *record)
{
    struct loading *g = ctx;
    struct life *l = g->life;
    size_t i = g->at++;

    if (i == g->count)
        return BFT_NOT_FOUND;
    crash_value(l->oracle, g->tree, g->key[i], l->value, g->len[i]);
    record->key = crash_key(g->key[i], g->buf);
    record->value = (bft_slice){l->value, g->len[i]};
    return BFT_OK;
}

static bft_status read_loaded(void *ctx, void *buf, size_t len)
{
    struct loading *g = ctx;
    memcpy(buf, g->from, len);
    g->from += len;
    return BFT_OK;
}

/* A crash leaves the first ones: to the oracle each is a commit of its own, of
 * when it is handed over.  Every other one is streamed. */
static bft_status next_merged(void *ctx, bft_bulk_record *record)
{
    struct loading *g = ctx;

    if (g->at < g->count) {
        crash_begin(g->life->oracle);
        crash_put(g->life->oracle, g->tree, g->key[g->at], g->len[g->at]);
    }
    if (next_loaded(ctx, record) != BFT_OK)
        return BFT_NOT_FOUND;
    if (g->at % 2) {
        g->from = record->value.data;
        record->bytes = record->value.len;
        record->read = read_loaded;
    }
    return BFT_OK;
}

static int by_key(const void *a, const void *b)
{
    uint8_t x[CRASH_KEY_MAX], y[CRASH_KEY_MAX];
    bft_slice s = crash_key(*(const unsigned *)a, x);
    bft_slice t = crash_key(*(const unsigned *)b, y);
    return bfti_key_compare(s, t);
}

/* Neighbours, and keys between which some are left out. */
static struct loading *draw_loading(struct life *l, unsigned t, unsigned most)
{
    struct loading *g = calloc(1, sizeof(*g));
    unsigned first = crash_roll(l, l->oracle->keys);

    if (!g)
        abort();
    g->life = l;
    g->tree = t;
    for (unsigned k = first; k < l->oracle->keys && g->count < most; k++)
        if (crash_roll(l, 4))
            g->key[g->count++] = k;
    qsort(g->key, g->count, sizeof(*g->key), by_key);
    for (size_t i = 0; i < g->count; i++)
        g->len[i] = value_len(l);
    return g;
}

static bool op_merge(struct life *l)
{
    unsigned t = crash_roll(l, CRASH_TREES);
    struct loading *g;
    uint64_t records;
    bool ok;

    if (!have_tree(l, t))
        return false;
    g = draw_loading(l, t, crash_roll(l, MERGE_MOST));
    l->doing = "merge";
    ok = acknowledged(l, bft_bulk_merge(l->tree[t], next_merged, g, &records),
                      BFT_DEFAULT);
    if (ok && records != g->count)
        ok = crash_failure(l, "%llu of %zu records merged",
                           (unsigned long long)records, g->count);
    free(g);
    return ok;
}

/* An emptied tree is filled again, with neighbours and others. */
static bool op_load(struct life *l)
{
    unsigned t = crash_roll(l, CRASH_TREES);
    struct loading *g;
    bool ok;

    if (!l->tree[t])
        return true;
    if (!release(l))
        return false;
    crash_begin(l->oracle);
    crash_truncate_tree(l->oracle, t);
    l->doing = "truncate before a load";
    if (!acknowledged(l, bft_tree_truncate(l->db, crash_tree_name(t)),
                      BFT_DEFAULT))
        return false;
    crash_begin(l->oracle);
    g = draw_loading(l, t, LOAD_MOST);
    for (size_t i = 0; i < g->count; i++)
        crash_put(l->oracle, t, g->key[i], g->len[i]);
    l->doing = "load";
    ok = acknowledged(l, bft_bulk_load(l->tree[t], NULL, next_loaded, g, NULL),
                      g->count ? BFT_SYNC : BFT_NONE);
    free(g);
    return ok;
}

static bool op_sync(struct life *l)
{
    l->doing = "sync";
    return acknowledged(l, bft_sync(l->db), BFT_SYNC);
}

static bool op_checkpoint(struct life *l)
{
    l->doing = "checkpoint";
    return acknowledged(l, bft_checkpoint(l->db), BFT_SYNC);
}

static bool op_get(struct life *l)
{
    unsigned t = crash_roll(l, CRASH_TREES), k = crash_roll(l, l->oracle->keys);
    uint8_t key[CRASH_KEY_MAX];
    bool has = crash_has(l->oracle, t, k);
    void *value;
    size_t len;
    bft_status status;

    if (!l->tree[t])
        return true;
    l->doing = "get";
    status = bft_get_copy(l->tree[t], crash_key(k, key), &value, &len);
    bft_free(value);
    return status == (has ? BFT_OK : BFT_NOT_FOUND) ||
           crash_failure(l, "key %u of %s, which is %s: %d", k,
                         crash_tree_name(t), has ? "there" : "not there",
                         (int)status);
}

bool crash_op_reopen(struct life *l)
{
    uint64_t issued = l->oracle->issued;

    if (!crash_close(l))
        return false;
    l->doing = "open";
    l->synced = l->buffered = l->issued = issued;
    return crash_open(l, PHASE_RECOVERY) && crash_open_trees(l);
}

/* A second thread would lose its database. */
static bool op_reopen(struct life *l)
{
    return l->company ? op_sync(l) : crash_op_reopen(l);
}

struct choice {
    unsigned below; /* of 1000, all before it included */
    bool (*op)(struct life *l);
};

static bool choose(struct life *l, const struct choice *choice)
{
    unsigned what = crash_roll(l, 1000);

    while (what >= choice->below)
        choice++;
    return choice->op(l);
}

bool crash_live_a_step(struct life *l)
{
    static const struct choice of_ghosts[] = {
        {900, op_put},        {950, op_sync}, {965, op_evict},
        {970, op_checkpoint}, {1000, op_get},
    };
    static const struct choice of_all[] = {
        {430, op_put},         {450, op_txn},          {470, op_snapshot},
        {540, op_get},         {600, op_insert},       {700, op_delete},
        {852, crash_op_batch}, {860, op_delete_range}, {900, op_stream},
        {940, op_evict},       {950, op_clean},        {977, op_sync},
        {983, op_checkpoint},  {985, op_merge},        {990, op_drop},
        {992, op_truncate},    {995, op_load},         {1000, op_reopen},
    };
    bool ok = choose(l, l->ghosts ? of_ghosts : of_all);

    if (l->engine && !l->company)
        crash_settle(l, true);
    return ok && !crash_failed(l);
}
