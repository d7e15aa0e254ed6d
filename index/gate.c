/*
 * What every public call asks before it works: is the handle open, in the right
 * process, may it write, is there room?
 */
#include "cache.h"
#include "image.h"
#include "tomb.h"

#include <assert.h>

enum {
    ROOM_WAITS = 3000,
    ROOM_WAIT_NS = 10 * 1000 * 1000,
    /* Replaced inner nodes, as parts of the budget: worth freeing, and worth
     * waiting for who holds them. */
    DEFER_SHARE = 32,
    DEFER_SHARE_MAX = 8,
    DEFER_WAITS = 100,
    DEFER_WAIT_NS = 1000 * 1000,
    SPACE_WAITS = 10,
    SPACE_WAIT_NS = 10 * 1000 * 1000,
};

bft_status bfti_gate(bft_db *db, struct bfti_engine **engine)
{
    *engine = NULL;
    if (!db)
        return bfti_fail(BFT_INVALID, "the database handle is NULL");
    if (db->magic != BFTI_MAGIC_DB || !db->engine)
        return bfti_fail(BFT_INVALID, "the database handle is closed");
    if (db->engine->fork_generation != bfti_fork_generation())
        return bfti_fail(BFT_FORKED, "%s was opened before fork: open it again",
                         db->engine->path);
    *engine = db->engine;
    return BFT_OK;
}

bft_status bfti_gate_open(bft_tree *tree, struct bfti_engine **engine)
{
    *engine = NULL;
    if (!tree)
        return bfti_fail(BFT_INVALID, "the tree handle is NULL");
    if (tree->magic != BFTI_MAGIC_TREE)
        return bfti_fail(BFT_INVALID, "the tree handle is closed");
    return bfti_gate(tree->db, engine);
}

bft_status bfti_gate_tree(bft_tree *tree, struct bfti_engine **engine,
                          struct bfti_rec **rec)
{
    bft_status status = bfti_gate_open(tree, engine);
    *rec = NULL;
    if (status != BFT_OK)
        return status;
    *rec = bfti_rec_current((*engine)->buffer.threads);
    if (!*rec)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a thread's record");
    return BFT_OK;
}

bft_status bfti_check_key(bft_slice key)
{
    if (key.len == 0 || !key.data)
        return bfti_fail(BFT_INVALID, "the key is empty");
    if (key.len > BFT_KEY_MAX)
        return bfti_fail(BFT_TOO_BIG, "the key has %zu bytes, the limit is %u",
                         key.len, BFT_KEY_MAX);
    return BFT_OK;
}

bft_status bfti_check_bound(bft_slice bound)
{
    if (!bound.data && bound.len)
        return bfti_fail(BFT_INVALID, "a bound is NULL with a length");
    if (bound.len > BFT_KEY_MAX)
        return bfti_fail(BFT_TOO_BIG,
                         "a bound has %zu bytes, the limit of keys is %u",
                         bound.len, BFT_KEY_MAX);
    return BFT_OK;
}

void bfti_engine_fail(struct bfti_engine *engine, bft_status status)
{
    uint32_t fine = 0;
    /* The first failure stays. */
    (void)atomic_compare_exchange_strong(&engine->failed, &fine,
                                         (uint32_t)(-(int)status));
}

size_t bfti_memory_elsewhere(struct bfti_engine *engine)
{
    const struct bfti_buffer *buffer = &engine->buffer;
    size_t bytes = bfti_threads_bytes(buffer->threads) +
                   bfti_codec_bytes(buffer->pf) +
                   atomic_load(&engine->load_bytes);
    if (engine->heap != engine->env)
        bytes += bfti_pool_outside(buffer->pool);
    else
        bytes += bfti_table_bytes(buffer->table) +
                 bfti_defer_bytes(buffer->threads) +
                 bfti_filters_bytes(buffer->filters) +
                 atomic_load(&engine->inner_bytes);
    bfti_pool_elsewhere(buffer->pool, bytes);
    return bytes;
}

/* Replaced inner nodes count against the budget.  Who holds them, a checkpoint
 * that writes a tree, goes on meanwhile; for one that stopped there writers wait
 * once. */
static void free_replaced(struct bfti_engine *engine, struct bfti_rec *rec)
{
    struct bfti_threads *threads = engine->buffer.threads;
    uint64_t budget = engine->options.memory_bytes;
    _Atomic uint32_t word = 0;
    if (bfti_defer_bytes(threads) <= budget / DEFER_SHARE)
        return;
    for (int i = 0; bfti_defer_step(threads) > budget / DEFER_SHARE_MAX; i++) {
        uint64_t hold = bfti_defer_oldest(threads);
        if (hold == 0 || hold == atomic_load(&engine->hold_given_up))
            return;
        if (i == 0)
            bfti_count(rec, BFTI_N_WAITS, 1);
        if (i == DEFER_WAITS) {
            atomic_store(&engine->hold_given_up, hold);
            return;
        }
        engine->env->wait(engine->env->ctx, &word, 0, DEFER_WAIT_NS);
    }
}

/*
 * Space that waits for an image makes the file grow.  Writers see to it that one is
 * made, and wait when it does not come fast enough; but if none comes, since who
 * makes it was stopped, once only: then the file grows.
 */
static void wait_for_space(struct bfti_engine *engine, struct bfti_rec *rec)
{
    uint32_t seen = atomic_load(&engine->log_word);
    if (!atomic_load(&engine->background) || !bfti_space_is_due(engine))
        return;
    if (!atomic_exchange(&engine->want_space, true))
        bfti_wake_checkpointer(engine);
    /* One more, so that 0 is none. */
    if (atomic_load(&engine->space_given_up) == (uint64_t)seen + 1 ||
        !bfti_space_is_full(engine))
        return;
    bfti_count(rec, BFTI_N_WAITS, 1);
    for (int i = 0; i < SPACE_WAITS && bfti_space_is_full(engine); i++) {
        if (atomic_load(&engine->log_word) != seen)
            return;
        engine->env->wait(engine->env->ctx, &engine->log_word, seen,
                          SPACE_WAIT_NS);
    }
    if (atomic_load(&engine->log_word) == seen)
        atomic_store(&engine->space_given_up, (uint64_t)seen + 1);
}

uint64_t bfti_log_used(const struct bfti_engine *engine)
{
    /* First where it begins: the other way round a checkpoint that comes between
     * may begin it behind the end that was seen. */
    uint64_t redo_lsn = atomic_load(&engine->redo_lsn);
    PARK("gate:redo-seen");
    return bfti_wal_end(engine->buffer.wal) - redo_lsn;
}

uint64_t bfti_redo_start(const struct bfti_engine *engine)
{
    struct bfti_wal *wal = engine->buffer.wal;
    /* The log's end first, then the slots. */
    uint64_t start = bfti_wal_end(wal), slots = bfti_wal_lowest_in_flight(wal);
    uint64_t last = atomic_load(&engine->redo_lsn);
    if (slots < start)
        start = slots;
    /* A slot may tell less than where the last image begins, and of what the log
     * has no more: its thread noted a mark, and was stopped before the slot had
     * it.  It had linked nothing then; what it links lies behind. */
    return start > last ? start : last;
}

/* Does a writer that has not stored its frame yet keep the redo start where the
 * last image has put it?  Then another image frees none of the log. */
static bool is_held_back(struct bfti_engine *engine)
{
    return bfti_wal_lowest_in_flight(engine->buffer.wal) <=
           atomic_load(&engine->redo_lsn);
}

/* Is all of it in use that may be, which an image would free?  One is asked for in
 * good time. */
static bool log_is_full(struct bfti_engine *engine)
{
    uint64_t used = bfti_log_used(engine);
    if (used > engine->options.log_bytes / 2 &&
        !atomic_load(&engine->want_checkpoint) && !is_held_back(engine) &&
        !atomic_exchange(&engine->want_checkpoint, true))
        bfti_wake_checkpointer(engine);
    return used > engine->options.log_bytes && !is_held_back(engine);
}

/* The log has entered a new segment: the one after it is made in the background,
 * so that no writer has to. */
static void note_segment(struct bfti_engine *engine)
{
    uint64_t segment =
        bfti_wal_end(engine->buffer.wal) / engine->options.log_segment_bytes;
    if (atomic_load_explicit(&engine->log_segment, memory_order_relaxed) ==
        segment) /* relaxed: a hint */
        return;
    atomic_store_explicit(&engine->log_segment, segment, memory_order_relaxed);
    bfti_wake_evictor(engine);
}

bft_status bfti_check_writable(const struct bfti_engine *engine)
{
    return engine->options.read_only
               ? bfti_fail(BFT_READ_ONLY, "%s was opened read-only",
                           engine->path)
               : BFT_OK;
}

bft_status bfti_check_keeps(const struct bfti_engine *engine, const char *why)
{
    return engine->buffer.forgets
               ? bfti_fail(BFT_UNSUPPORTED, "%s is a cache-only database: %s",
                           engine->path, why)
               : BFT_OK;
}

bft_status bfti_check_leaf_share(uint32_t leaf_bytes, uint64_t memory_bytes)
{
    enum { LEAVES_LEAST = 32 };
    return leaf_bytes > memory_bytes / LEAVES_LEAST
               ? bfti_fail(BFT_INVALID,
                           "option leaf_bytes is %u: at most 1/%d of the "
                           "memory budget in a cache-only database",
                           (unsigned)leaf_bytes, LEAVES_LEAST)
               : BFT_OK;
}

/* Where there is no thread for it, who writes takes some of what was deleted away.
 * What fails here fails again where it matters. */
static void clear_some(struct bfti_engine *engine, struct bfti_rec *rec)
{
    bool more;
    if (!atomic_load(&engine->background) && atomic_load(&engine->tombs))
        (void)(bfti_tombs_sweep(engine, rec, 1, &more) == BFT_OK);
}

bft_status bfti_gate_write(struct bfti_engine *engine, struct bfti_rec *rec,
                           size_t bytes)
{
    uint32_t failed = atomic_load(&engine->failed), images_failed;
    if (engine->options.read_only)
        return bfti_check_writable(engine);
    if (failed)
        return bfti_fail((bft_status)(-(int)failed),
                         "%s refuses writes since an earlier failure: close "
                         "and reopen it",
                         engine->path);
    if (bfti_wal_poisoned(engine->buffer.wal))
        return bfti_fail(BFT_POISONED, "%s: a sync failed: close and reopen it",
                         engine->path);
    free_replaced(engine, rec);
    (void)bfti_memory_elsewhere(engine);
    if (bfti_pool_free_bytes(engine->buffer.pool) <
            bfti_pool_pages(engine->buffer.pool) / BFTI_ROOM_SHARE ||
        bfti_pool_vacating(engine->buffer.pool))
        bfti_wake_evictor(engine);
    wait_for_space(engine, rec);
    clear_some(engine, rec);
    images_failed = atomic_load(&engine->images_failed);
    for (int i = 0; log_is_full(engine); i++) {
        uint32_t seen = atomic_load(&engine->log_word);
        if (!atomic_load(&engine->background)) {
            bft_status status = bfti_checkpoint(engine, rec);
            if (status != BFT_OK)
                return status;
            continue;
        }
        if (i == 0)
            bfti_count(rec, BFTI_N_WAITS, 1);
        /* Better a long log than a writer stuck for ever: if that cannot be had
         * either, its making tells why. */
        if (i > ROOM_WAITS ||
            atomic_load(&engine->images_failed) != images_failed)
            break;
        engine->env->wait(engine->env->ctx, &engine->log_word, seen,
                          ROOM_WAIT_NS);
        failed = atomic_load(&engine->failed);
        if (failed || bfti_wal_poisoned(engine->buffer.wal))
            return bfti_fail(BFT_POISONED, "%s: a sync failed", engine->path);
    }
    note_segment(engine);
    return bfti_wal_make_room(engine->buffer.wal, bytes);
}
