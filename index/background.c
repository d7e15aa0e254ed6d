/*
 * Background work as bounded steps, which two threads loop over: one makes room
 * (merges, evictions, the next log segment, deferred frees), one checkpoints, makes
 * images for the space that waits for them, cleans the file, and gives space back.
 * Without threads the steps run in the foreground of writers.
 */
#include "expiry.h"
#include "image.h"
#include "tomb.h"

enum {
    EVICT_BURST = 64,
    EVICT_SHARE = 128 << 10, /* of the budget, for each that goes with others:
                                small pools are not to be emptied */
    MERGE_BURST = 16,
    STEP_WAIT_MS = 200,
    RECORD_WAIT_NS = 10 * 1000 * 1000,
    HOLES = 256,      /* at a step: some milliseconds of system calls */
    HOLES_ALONE = 16, /* without threads, which a writer waits for */
    HOLES_WAIT_MS = 10,
    CLEAN_ALONE = 16 << 10, /* bytes; without threads */
    REST_NS = 1000 * 1000 * 1000,
    REST_LOG_SHARE = 64,
    NODE_STEPS = 256,
    PURGE_LEAVES = 256, /* at a step; and where a writer waits for it */
    PURGE_ALONE = 4,
    /* Of what lives, and of the log's limit: more than both may not wait without
     * that an image is made; nor, unless one cannot be, without that writers do. */
    DUE_LIVE_SHARE = 8,
    DUE_LOG_SHARE = 32,
    FULL_LIVE_SHARE = 3,
    FULL_LOG_SHARE = 16,
    DEFER_SHARE = 64, /* of the budget: before writers see to it (gate.c) */
};

/* --- queues -------------------------------------------------------------- */

void bfti_queue_push(struct bfti_engine *engine, struct bfti_queue *queue,
                     uint64_t id)
{
    bfti_mutex_lock(engine->env, &queue->lock);
    if (queue->count < BFTI_QUEUE)
        queue->id[(queue->head + queue->count++) % BFTI_QUEUE] = id;
    bfti_mutex_unlock(engine->env, &queue->lock);
    bfti_wake_evictor(engine);
}

bool bfti_queue_pop(struct bfti_engine *engine, struct bfti_queue *queue,
                    uint64_t *id)
{
    bool some;
    bfti_mutex_lock(engine->env, &queue->lock);
    some = queue->count > 0;
    if (some) {
        *id = queue->id[queue->head];
        queue->head = (queue->head + 1) % BFTI_QUEUE;
        queue->count--;
    }
    bfti_mutex_unlock(engine->env, &queue->lock);
    return some;
}

/* --- steps --------------------------------------------------------------- */

static void report(struct bfti_engine *engine, bft_status status)
{
    char text[512];
    if (status == BFT_OK || !engine->options.report)
        return;
    bft_last_error(text, sizeof(text));
    engine->options.report(engine->options.report_ctx, status, text);
}

static bool low_on_room(const struct bfti_engine *engine)
{
    struct bfti_pool *pool = engine->buffer.pool;
    return bfti_pool_free_bytes(pool) < bfti_pool_pages(pool) / BFTI_ROOM_SHARE;
}

/* *SOME: there were frozen pages. */
static bft_status step_merges(struct bfti_engine *engine, struct bfti_rec *rec,
                              bool *some)
{
    uint64_t id[MERGE_BURST];
    bft_status status = BFT_OK;
    bool done, roomy = !low_on_room(engine);
    size_t n, bytes;
    *some = false;
    do {
        for (n = 0; n < MERGE_BURST &&
                    bfti_queue_pop(engine, &engine->merges, &id[n]);)
            n++;
        *some = *some || n > 0;
        bytes = n > 1 ? bfti_fetch_bytes(engine, rec) : 0;
        if (bytes) /* each merge would wait for its own */
            (void)bfti_ahead_read(&engine->buffer, rec, engine, id, n, bytes);
        /* After a failure the others are left to whoever meets them. */
        for (size_t i = 0; status == BFT_OK && i < n; i++)
            status = bfti_merge(&engine->buffer, rec, id[i],
                                roomy ? BFTI_MERGE_KEEP : 0, &done);
        bfti_ahead_drop(rec, engine);
    } while (status == BFT_OK && n == MERGE_BURST);
    return status;
}

/* Waiting for the readers of what was replaced interrupts every processor: not
 * after each split while there are many. */
static void step_deferred(struct bfti_engine *engine, bool busy)
{
    size_t bytes = bfti_defer_bytes(engine->buffer.threads);
    if (bytes > (busy ? engine->options.memory_bytes / DEFER_SHARE : 0))
        bfti_defer_step(engine->buffer.threads);
}

static bft_status step_evict(struct bfti_engine *engine, struct bfti_rec *rec)
{
    bft_status status = BFT_OK;
    uint64_t share = engine->options.memory_bytes / EVICT_SHARE;
    size_t n =
        1 + (share < BFTI_EVICT_MAX ? (size_t)share : BFTI_EVICT_MAX - 1);
    for (size_t i = 0;
         status == BFT_OK && i < EVICT_BURST &&
         (low_on_room(engine) || bfti_pool_vacating(engine->buffer.pool));) {
        i += n;
        status = bfti_evict_several(&engine->buffer, rec, n,
                                    bfti_fetch_bytes(engine, rec));
    }
    return status;
}

/* The first of several failures. */
struct failure {
    bft_status status;
    char text[512];
};

static void note(struct failure *failure, bft_status status)
{
    if (status == BFT_OK || failure->status != BFT_OK)
        return;
    failure->status = status;
    bft_last_error(failure->text, sizeof(failure->text));
}

/* Where one of them fails, as what is damaged makes it fail each time, the others
 * go on.  *MORE: what was deleted is to go on being taken away. */
static bft_status room_steps(struct bfti_engine *engine, struct bfti_rec *rec,
                             unsigned purge_leaves, bool *more)
{
    struct failure failure = {.status = BFT_OK};
    bool busy;
    (void)bfti_memory_elsewhere(engine);
    note(&failure, step_merges(engine, rec, &busy));
    note(&failure, bfti_sweep(engine, rec));
    note(&failure, step_evict(engine, rec));
    if (!bfti_wal_poisoned(engine->buffer.wal))
        note(&failure, bfti_wal_prepare(engine->buffer.wal));
    bfti_nodes_drop(engine, 0, NODE_STEPS);
    note(&failure, bfti_purge(engine, rec, purge_leaves));
    note(&failure, bfti_tombs_sweep(engine, rec, purge_leaves, more));
    step_deferred(engine, busy);
    return failure.status == BFT_OK
               ? BFT_OK
               : bfti_fail(failure.status, "%s", failure.text);
}

/* --- space ---------------------------------------------------------------- */

/* What waits may be a part of what lives, or of the log's limit if that is more:
 * a small database is not to make images all the time. */
static bool waits_more(struct bfti_engine *engine, uint64_t live_share,
                       uint64_t log_share)
{
    uint64_t after = atomic_load(&engine->held_after), live, waiting;
    bfti_space_glance(engine->buffer.pf, &live, &waiting);
    /* What an image leaves held, of the one before it, it would leave again: else
     * one would follow the other for ever. */
    waiting = waiting > after ? waiting - after : 0;
    return waiting > live / live_share &&
           waiting > engine->options.log_bytes / log_share;
}

bool bfti_space_is_due(struct bfti_engine *engine)
{
    return waits_more(engine, DUE_LIVE_SHARE, DUE_LOG_SHARE);
}

bool bfti_space_is_full(struct bfti_engine *engine)
{
    return waits_more(engine, FULL_LIVE_SHARE, FULL_LOG_SHARE);
}

bool bfti_space_staged(struct bfti_engine *engine)
{
    uint64_t live, waiting;
    bfti_space_glance(engine->buffer.pf, &live, &waiting);
    return !engine->recovering &&
           live > 2 * (engine->options.log_bytes / DUE_LOG_SHARE);
}

/* Did the last image leave so much waiting that only another redo start helps? */
static bool waits_for_log(struct bfti_engine *engine)
{
    uint64_t after = atomic_load(&engine->held_after), live, waiting;
    bfti_space_glance(engine->buffer.pf, &live, &waiting);
    return after > live / DUE_LIVE_SHARE &&
           after > engine->options.log_bytes / DUE_LOG_SHARE;
}

/* A checkpoint for the log, or an image for the space that waits for one, if it is
 * due; WAIT: for another checkpoint.  *SOME: it was. */
static bft_status step_checkpoint(struct bfti_engine *engine,
                                  struct bfti_rec *rec, bool wait, bool *some)
{
    bool whole = atomic_load(&engine->want_checkpoint);
    atomic_store(&engine->want_space, false);
    *some = !engine->options.read_only && /* nobody would start from it */
            !bfti_wal_poisoned(engine->buffer.wal) &&
            (whole || bfti_space_is_due(engine));
    if (!*some)
        return BFT_OK;
    if (!whole) {
        bft_status status = bfti_checkpoint_space(engine, rec, wait);
        if (status == BFT_OK && waits_for_log(engine))
            atomic_store(&engine->want_checkpoint, true);
        *some = status != BFT_BUSY;
        return status != BFT_BUSY ? status : BFT_OK;
    }
    return wait ? bfti_checkpoint(engine, rec)
                : bfti_checkpoint_try(engine, rec);
}

/* Give free space back to the file system; *MORE: there is more to be given. */
static bft_status step_holes(struct bfti_engine *engine, unsigned holes,
                             bool *more)
{
    *more = false;
    if (engine->options.read_only || bfti_wal_poisoned(engine->buffer.wal))
        return BFT_OK;
    return bfti_space_punch(engine->buffer.pf, holes, more);
}

void bfti_background_run(struct bfti_engine *engine, struct bfti_rec *rec)
{
    bool more, some;
    if (engine->recovering || !engine->buffer.wal)
        return;
    report(engine, room_steps(engine, rec, PURGE_ALONE, &more));
    if (engine->buffer.forgets) /* there is no file */
        return;
    report(engine, step_checkpoint(engine, rec, false, &some));
    report(engine, bfti_clean(engine, rec, CLEAN_ALONE, false, &more));
    if (!more)
        report(engine, step_holes(engine, HOLES_ALONE, &more));
}

/* --- threads ------------------------------------------------------------- */

static void wake(struct bfti_engine *engine, _Atomic uint32_t *word)
{
    atomic_fetch_add(word, 1);
    engine->env->wake(engine->env->ctx, word, true);
}

/* The calling thread's, which is to work as long as the engine does: should memory
 * be short just now, it waits for some.  NULL: the engine stops. */
static struct bfti_rec *record_of(struct bfti_engine *engine)
{
    _Atomic uint32_t never = 0; /* nobody wakes it: a bounded sleep */
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    while (!rec && !atomic_load(&engine->stopping)) {
        engine->env->wait(engine->env->ctx, &never, 0, RECORD_WAIT_NS);
        rec = bfti_rec_current(engine->buffer.threads);
    }
    return rec;
}

/* Only a sleeping thread is woken: 1 says that it sleeps. */
void bfti_wake_evictor(struct bfti_engine *engine)
{
    if (atomic_load(&engine->background) &&
        atomic_exchange(&engine->evictor_word, 0) == 1)
        engine->env->wake(engine->env->ctx, &engine->evictor_word, true);
}

void bfti_wake_checkpointer(struct bfti_engine *engine)
{
    if (atomic_load(&engine->background))
        wake(engine, &engine->checkpointer_word);
}

static void evictor_main(void *arg)
{
    struct bfti_engine *engine = arg;
    struct bfti_rec *rec = record_of(engine);
    bft_status last = BFT_OK;
    while (rec && !atomic_load(&engine->stopping)) {
        bft_status status;
        bool more;
        atomic_store(&engine->evictor_word, 1);
        if (atomic_load(&engine->stopping)) /* told before the word was set */
            break;
        PARK("evictor:step");
        status = room_steps(engine, rec, PURGE_LEAVES, &more);
        if (status != last)
            report(engine, status);
        last = status;
        if ((!low_on_room(engine) && !more) || status != BFT_OK)
            engine->env->wait(engine->env->ctx, &engine->evictor_word, 1,
                              (uint64_t)STEP_WAIT_MS * 1000000);
    }
}

/* How long nothing has been written. */
struct rest {
    uint64_t end; /* of the log */
    uint64_t since_ns;
    bool done; /* once is enough, whatever redo starts from then */
};

/* What was deleted last lies in memory as long as nothing makes a checkpoint, and
 * over all that it deletes.  So who has stopped writing gets one, if there is
 * something to it. */
static void note_rest(struct bfti_engine *engine, struct rest *rest)
{
    uint64_t now = engine->env->now_ns(engine->env->ctx);
    uint64_t end = bfti_wal_end(engine->buffer.wal);
    /* Who makes a checkpoint, or changes trees, does not rest. */
    bool quiet = end == rest->end && bfti_mutex_try(&engine->checkpoint_lock);
    if (quiet)
        bfti_mutex_unlock(engine->env, &engine->checkpoint_lock);
    if (!quiet) {
        *rest = (struct rest){.end = end, .since_ns = now};
    } else if (!rest->done && now - rest->since_ns > REST_NS &&
               bfti_log_used(engine) >
                   engine->options.log_bytes / REST_LOG_SHARE) {
        rest->done = true;
        atomic_store(&engine->want_checkpoint, true);
    }
}

static void checkpointer_main(void *arg)
{
    struct bfti_engine *engine = arg;
    struct bfti_rec *rec = record_of(engine);
    struct rest rest = {0, 0, false};
    bft_status last = BFT_OK;
    while (rec && !atomic_load(&engine->stopping)) {
        uint32_t seen = atomic_load(&engine->checkpointer_word);
        bool more, some;
        bft_status status;
        if (atomic_load(&engine->stopping)) /* told before the word was read */
            break;
        PARK("checkpointer:step");
        note_rest(engine, &rest);
        status = step_checkpoint(engine, rec, true, &some);
        if (some && status != last)
            report(engine, status);
        last = some ? status : last;
        if (some && status == BFT_OK)
            continue;
        status = bfti_clean_within_budget(engine, rec, &more);
        /* What is free is about to be used, or cut off. */
        if (status == BFT_OK && !more)
            status = step_holes(engine, HOLES, &more);
        if (status != BFT_OK && status != last)
            report(engine, last = status);
        engine->env->wait(engine->env->ctx, &engine->checkpointer_word, seen,
                          (uint64_t)(more ? HOLES_WAIT_MS : STEP_WAIT_MS) *
                              1000000);
    }
}

bft_status bfti_background_start(struct bfti_engine *engine)
{
    const struct bfti_env *env = engine->env;
    bft_status status;
    if (engine->options.no_threads || !env->thread_start)
        return BFT_OK;
    atomic_store(&engine->background, true);
    status =
        env->thread_start(env->ctx, evictor_main, engine, &engine->evictor);
    if (status == BFT_OK && !engine->buffer.forgets)
        status = env->thread_start(env->ctx, checkpointer_main, engine,
                                   &engine->checkpointer);
    if (status != BFT_OK)
        bfti_background_stop(engine);
    return status;
}

void bfti_background_stop(struct bfti_engine *engine)
{
    const struct bfti_env *env = engine->env;
    atomic_store(&engine->stopping, true);
    if (engine->evictor) {
        bfti_wake_evictor(engine);
        env->thread_join(env->ctx, engine->evictor);
    }
    if (engine->checkpointer) {
        wake(engine, &engine->checkpointer_word);
        env->thread_join(env->ctx, engine->checkpointer);
    }
    engine->evictor = engine->checkpointer = NULL;
    atomic_store(&engine->background, false);
}
