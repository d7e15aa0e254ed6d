/*
 * Background work as bounded steps, which two threads loop over: one makes room
 * (merges, evictions, the next log segment, deferred frees), one checkpoints.
 * Without threads the steps run in the foreground of writers.
 */
#include "engine.h"

enum {
    EVICT_BURST = 64,
    STEP_WAIT_MS = 200,
    HOLES = 256,      /* at a step: some milliseconds of system calls */
    HOLES_ALONE = 16, /* without threads, which a writer waits for */
    HOLES_WAIT_MS = 10,
    NODE_STEPS = 256,
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
    return bfti_pool_free_bytes(pool) <
           bfti_pool_pages(pool) / BFTI_ROOM_SHARE;
}

/* *SOME: there were frozen pages. */
static bft_status step_merges(struct bfti_engine *engine, struct bfti_rec *rec,
                              bool *some)
{
    uint64_t id;
    bft_status status = BFT_OK;
    bool done, roomy = !low_on_room(engine);
    *some = false;
    while (status == BFT_OK &&
           bfti_queue_pop(engine, &engine->merges, &id)) {
        *some = true;
        status = bfti_merge(&engine->buffer, rec, id,
                            roomy ? BFTI_MERGE_KEEP : 0, &done);
    }
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
    bool done;
    for (int i = 0; status == BFT_OK && i < EVICT_BURST &&
                    (low_on_room(engine) ||
                     bfti_pool_vacating(engine->buffer.pool));
         i++)
        status = bfti_evict_one(&engine->buffer, rec, &done);
    return status;
}

static bft_status room_steps(struct bfti_engine *engine, struct bfti_rec *rec)
{
    bft_status status;
    bool busy;
    (void)bfti_memory_elsewhere(engine);
    status = step_merges(engine, rec, &busy);
    if (status == BFT_OK)
        status = bfti_sweep(engine, rec);
    if (status == BFT_OK)
        status = step_evict(engine, rec);
    if (status == BFT_OK && !bfti_wal_poisoned(engine->buffer.wal))
        status = bfti_wal_prepare(engine->buffer.wal);
    bfti_nodes_drop(engine, 0, NODE_STEPS);
    step_deferred(engine, busy);
    return status;
}

/* Is a checkpoint due for the log or for the space that waits for one? */
static bool checkpoint_due(struct bfti_engine *engine)
{
    struct bfti_space_stats space;
    uint64_t after = atomic_load(&engine->held_after), waiting;
    if (engine->options.read_only) /* nobody would start from it */
        return false;
    if (atomic_load(&engine->want_checkpoint))
        return true;
    bfti_space_stats(engine->buffer.pf, &space);
    waiting = bfti_space_waiting(&space);
    /* What a checkpoint leaves held, of the images before it, it would leave
     * again: else one would follow the other for ever. */
    waiting = waiting > after ? waiting - after : 0;
    return waiting > space.live_bytes / 8 &&
           waiting > engine->options.log_bytes / 4;
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
    bool more;
    if (engine->recovering || !engine->buffer.wal)
        return;
    report(engine, room_steps(engine, rec));
    if (checkpoint_due(engine))
        report(engine, bfti_checkpoint_try(engine, rec));
    report(engine, step_holes(engine, HOLES_ALONE, &more));
}

/* --- threads ------------------------------------------------------------- */

static void wake(struct bfti_engine *engine, _Atomic uint32_t *word)
{
    atomic_fetch_add(word, 1);
    engine->env->wake(engine->env->ctx, word, true);
}

/* Only a sleeping thread is woken: 1 says that it sleeps. */
void bfti_wake_evictor(struct bfti_engine *engine)
{
    if (engine->evictor && atomic_exchange(&engine->evictor_word, 0) == 1)
        engine->env->wake(engine->env->ctx, &engine->evictor_word, true);
}

void bfti_wake_checkpointer(struct bfti_engine *engine)
{
    if (engine->checkpointer)
        wake(engine, &engine->checkpointer_word);
}

static void evictor_main(void *arg)
{
    struct bfti_engine *engine = arg;
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    bft_status last = BFT_OK;
    while (rec && !atomic_load(&engine->stopping)) {
        bft_status status;
        atomic_store(&engine->evictor_word, 1);
        if (atomic_load(&engine->stopping)) /* told before the word was set */
            break;
        PARK("evictor:step");
        status = room_steps(engine, rec);
        if (status != last)
            report(engine, status);
        last = status;
        if (!low_on_room(engine) || status != BFT_OK)
            engine->env->wait(engine->env->ctx, &engine->evictor_word, 1,
                              (uint64_t)STEP_WAIT_MS * 1000000);
    }
}

static void checkpointer_main(void *arg)
{
    struct bfti_engine *engine = arg;
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    bft_status last = BFT_OK;
    while (rec && !atomic_load(&engine->stopping)) {
        uint32_t seen = atomic_load(&engine->checkpointer_word);
        bool more;
        bft_status status;
        if (atomic_load(&engine->stopping)) /* told before the word was read */
            break;
        PARK("checkpointer:step");
        if (checkpoint_due(engine) &&
            !bfti_wal_poisoned(engine->buffer.wal)) {
            status = bfti_checkpoint(engine, rec);
            if (status != last)
                report(engine, status);
            last = status;
            if (status == BFT_OK)
                continue;
        }
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
    status = env->thread_start(env->ctx, evictor_main, engine,
                               &engine->evictor);
    if (status == BFT_OK)
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
}
