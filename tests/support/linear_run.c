/*
 * Where histories come from: a database with a pool that is too small for it, a
 * thread that keeps its leaves moving, and the threads whose history it is.
 */
#include "linear_run.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fileio/fault.h"
#include "random.h"

enum {
    OPERATIONS = 96,  /* of all threads, about */
    OTHERS_MAX = 200, /* bytes of a value */
    EVICT_STEPS = 12,
    CHECKPOINT_EVERY = 150, /* steps of the mover, about */
};

/* --- giving way ------------------------------------------------------------ */

#ifndef NDEBUG
/* Of this thread: its random numbers, and at one park point in how many it gives
 * way to others; 0: never. */
static _Thread_local uint64_t yield_random;
static _Thread_local unsigned yield_share;

static void give_way(const char *point)
{
    (void)point;
    if (yield_share && random_of(&yield_random) % yield_share == 0)
        sched_yield();
}
#endif

static void give_way_start(const struct linear_run *run, uint64_t seed)
{
#ifndef NDEBUG
    yield_random = seed;
    yield_share = run->o.yield;
    atomic_store(&bfti_park, give_way);
#else
    (void)run;
    (void)seed;
#endif
}

/* --- the database ----------------------------------------------------------- */

static void open_trees(struct linear_run *run)
{
    static const char *const name[LINEAR_TREES] = {"one", "two"};
    for (unsigned i = 0; i < LINEAR_TREES; i++)
        run->tree[i] = engine_tree(run->f, name[i], run->o.leaf_bytes);
    run->ballast = engine_tree(run->f, "ballast", run->o.leaf_bytes);
}

static bft_slice ballast_key(char buf[24], unsigned i)
{
    return (bft_slice){buf, (size_t)snprintf(buf, 24, "ballast-%05u", i)};
}

static void fill(struct linear_run *run)
{
    char kbuf[24];
    uint8_t vbuf[OTHERS_MAX] = {0};
    bft_slice value = {vbuf, run->o.others_bytes};
    assert_true(run->o.others_bytes <= OTHERS_MAX);
    for (unsigned key = 0; key < run->o.keys; key++)
        for (unsigned i = 1; i <= run->o.others && linear_has_others(run, key);
             i++)
            expect_ok(bft_put(run->tree[key % LINEAR_TREES],
                              linear_key(kbuf, key, i), value));
    value.len = OTHERS_MAX;
    for (unsigned i = 0; i < run->o.ballast; i++)
        expect_ok(bft_put(run->ballast, ballast_key(kbuf, i), value));
}

struct linear_run *linear_run_open(const struct linear_options *options,
                                   uint64_t seed)
{
    struct linear_run *run = calloc(1, sizeof(*run));
    assert_non_null(run);
    run->o = *options;
    run->seed = seed;
    run->f = engine_fixture_make(options->backend);
    run->f->options.no_threads = options->no_threads;
    run->f->options.promote_percent = options->promote_percent;
    if (options->crashes && options->policy != BFTI_SIM_KILL)
        run->f->options.durability = BFT_SYNC;
    engine_open(run->f);
    open_trees(run);
    fill(run);
    return run;
}

void linear_run_close(struct linear_run *run)
{
    expect_ok(bft_verify(run->f->db));
    engine_fixture_free(run->f);
    free(run);
}

/* --- what moves the leaves --------------------------------------------------- */

struct mover {
    struct linear_thread t; /* its history is empty */
    bool renamed;           /* the first tree is called "uno" */
    uint64_t steps;
};

static unsigned below(struct mover *m, unsigned limit)
{
    return (unsigned)(random_of(&m->t.random) % limit);
}

static void move_others(struct mover *m)
{
    const struct linear_options *o = &m->t.run->o;
    char kbuf[24], high[24];
    uint8_t vbuf[OTHERS_MAX] = {0};
    unsigned key = below(m, o->keys);
    bft_tree *tree = m->t.run->tree[key % LINEAR_TREES];
    bft_slice name = linear_key(kbuf, key, 1 + below(m, o->others));
    bft_slice value = {vbuf, 1 + below(m, o->others_bytes)};
    bft_status status;
    if (!linear_has_others(m->t.run, key))
        return;
    switch (below(m, 12)) {
    case 0: /* all others behind the key: leaves become small */
        status = bft_delete_range(tree, linear_key(kbuf, key, 1),
                                  linear_key(high, key + 1, 0), NULL);
        break;
    case 1:
    case 2:
    case 3:
        status = bft_delete(tree, name);
        break;
    default:
        status = bft_put(tree, name, value);
        break;
    }
    linear_expect(&m->t, status, "moving others");
}

static void move_ballast(struct mover *m)
{
    char kbuf[24];
    uint8_t vbuf[OTHERS_MAX] = {0};
    bft_tree *tree = m->t.run->ballast;
    bft_slice name = ballast_key(kbuf, below(m, m->t.run->o.ballast));
    bft_slice value = {vbuf, sizeof(vbuf)};
    size_t len;
    bft_status status = below(m, 2)
                            ? bft_put(tree, name, value)
                            : bft_get(tree, name, vbuf, sizeof(vbuf), &len);
    linear_expect(&m->t, status, "moving ballast");
}

static void evict(struct mover *m)
{
    struct bfti_engine *engine = m->t.run->f->db->engine;
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    bool done;
    for (unsigned i = 0; i < EVICT_STEPS; i++)
        linear_expect(&m->t, bfti_evict_one(&engine->buffer, rec, &done),
                      "evict");
    linear_expect(&m->t, bfti_sweep(engine, rec), "sweep");
}

static void rename_tree(struct mover *m)
{
    linear_expect(&m->t,
                  bft_tree_rename(m->t.run->f->db, m->renamed ? "uno" : "one",
                                  m->renamed ? "one" : "uno"),
                  "rename");
    m->renamed = !m->renamed;
}

static void move(struct mover *m)
{
    const struct linear_options *o = &m->t.run->o;
    if (below(m, CHECKPOINT_EVERY) == 0)
        linear_expect(&m->t, bft_checkpoint(m->t.run->f->db), "checkpoint");
    if (o->renames && below(m, 20) == 0)
        rename_tree(m);
    if (below(m, o->crowded ? 300 : 3) == 0)
        evict(m);
    if (o->others)
        move_others(m);
    if (o->ballast)
        move_ballast(m);
}

static void *mover_main(void *arg)
{
    struct mover *m = arg;
    give_way_start(m->t.run, m->t.random);
    while (!atomic_load(&m->t.run->stop) && !m->t.error[0])
        move(m);
    if (m->renamed)
        rename_tree(m);
    return NULL;
}

/* --- a history ----------------------------------------------------------------- */

static void *thread_main(void *arg)
{
    struct linear_thread *t = arg;
    struct linear_run *run = t->run;
    give_way_start(run, t->random);
    linear_expect(t, bft_batch_create(run->f->db, &t->batch), "batch create");
    atomic_fetch_add(&run->ready, 1);
    while (!atomic_load(&run->go))
        sched_yield();
    /* The others have their share of a history, too. */
    for (unsigned i = 0; i < run->operations && !t->error[0] &&
                         t->history.count < LINEAR_OPS_MAX / LINEAR_THREADS / 2;
         i++)
        linear_do(t);
    linear_end_pasts(t);
    bft_batch_free(t->batch);
    atomic_fetch_add(&run->ended, 1);
    return NULL;
}

static void start(struct linear_run *run, struct linear_thread *t, unsigned id,
                  void *(*main)(void *), void *arg)
{
    t->run = run;
    t->id = id;
    t->random = random_next();
    linear_init(&t->history);
    memcpy(t->known, run->start, sizeof(t->known));
    assert_int_equal(0, pthread_create(&t->thread, NULL, main, arg));
}

static void finish(struct linear_thread *t)
{
    assert_int_equal(0, pthread_join(t->thread, NULL));
    if (t->error[0])
        fail_msg("%s, thread %u: %s", t->run->o.name, t->id, t->error);
}

/* How many operations of H were called while one of another thread was under
 * way. */
static uint64_t overlaps_of(const struct linear_history *h)
{
    uint64_t count = 0;
    for (size_t i = 0; i < h->count; i++)
        for (size_t j = 0; j < h->count; j++)
            if (h->op[j].thread != h->op[i].thread &&
                h->op[j].call < h->op[i].call && h->op[i].call < h->op[j].end) {
                count++;
                break;
            }
    return count;
}

/* What all keys have, recorded in H as by one more thread; the next history
 * starts with it. */
static void read_all(struct linear_run *run, struct linear_history *h)
{
    struct linear_thread t;
    memset(&t, 0, sizeof(t));
    t.run = run;
    t.id = LINEAR_THREADS;
    linear_init(&t.history);
    for (unsigned key = 0; key < run->o.keys; key++)
        linear_do_get(&t, key);
    if (t.error[0])
        fail_msg("%s, at the end: %s", run->o.name, t.error);
    for (size_t i = 0; i < t.history.count; i++)
        linear_add(h, &t.history.op[i]);
    linear_free(&t.history);
    memcpy(run->start, t.known, sizeof(run->start));
}

/* --- a crash -------------------------------------------------------------------- */

struct crash {
    struct bfti_vfs *image; /* of some moment between FROM and TO */
    uint64_t from, to;
};

/* While the threads run. */
static void crash_take(struct linear_run *run, unsigned threads,
                       struct crash *crash)
{
    uint64_t when =
        atomic_load(&run->now) + random_below((size_t)2 * OPERATIONS);
    while (atomic_load(&run->now) < when && atomic_load(&run->ended) < threads)
        sched_yield();
    crash->from = atomic_fetch_add(&run->now, 1) + 1;
    expect_ok(bfti_sim_image(run->f->vfs, run->o.policy, random_next(),
                             &crash->image));
    crash->to = atomic_fetch_add(&run->now, 1) + 1;
}

/*
 * What is to be ordered of ALL when power went at CRASH: writes that had returned,
 * and those that were under way, which may have been done.  Not what others saw:
 * they may have seen what was not durable yet.
 */
static void crash_cut(const struct linear_history *all,
                      const struct crash *crash, struct linear_history *h)
{
    memcpy(h->start, all->start, sizeof(h->start));
    for (size_t i = 0; i < all->count; i++) {
        struct linear_op op = all->op[i];
        if (!op.writes || op.call > crash->to)
            continue;
        if (op.end > crash->from)
            op.end = LINEAR_NEVER;
        linear_add(h, &op);
    }
}

/* The mover may have been between two of its renamings. */
static void name_back(struct linear_run *run)
{
    bft_tree_options o = {.size = sizeof(o), .must_exist = true};
    bft_tree *tree;
    if (run->o.renames && bft_tree_open(run->f->db, "uno", &o, &tree) == BFT_OK)
        expect_ok(bft_tree_rename(run->f->db, "uno", "one"));
}

static void crash_recover(struct linear_run *run, const struct crash *crash)
{
    struct engine_fixture *f = run->f;
    f->past = engine_stats(f);
    expect_ok(bft_close(f->db));
    f->db = NULL;
    bfti_vfs_sim_destroy(f->vfs);
    f->vfs = crash->image;
    engine_open(f);
    name_back(run);
    open_trees(run);
    expect_ok(bft_verify(f->db));
}

/* --- the whole ------------------------------------------------------------------- */

void linear_run_once(struct linear_run *run, unsigned threads,
                     struct linear_history *h, struct linear_history *crashed)
{
    struct linear_thread thread[LINEAR_THREADS];
    struct mover mover;
    struct crash crash = {NULL, 0, 0};

    memset(thread, 0, sizeof(thread));
    memset(&mover, 0, sizeof(mover));
    /* A snapshot or a transaction of many steps is one operation or two. */
    run->operations = OPERATIONS * (100 + run->o.pasts) / 100 / threads;
    memcpy(h->start, run->start, sizeof(h->start));
    atomic_store(&run->ready, 0);
    atomic_store(&run->ended, 0);
    atomic_store(&run->go, false);
    atomic_store(&run->stop, false);
    start(run, &mover.t, LINEAR_THREADS, mover_main, &mover);
    for (unsigned i = 0; i < threads; i++)
        start(run, &thread[i], i, thread_main, &thread[i]);
    while (atomic_load(&run->ready) < threads)
        sched_yield();
    atomic_store(&run->go, true);
    if (run->o.crashes)
        crash_take(run, threads, &crash);
    for (unsigned i = 0; i < threads; i++)
        finish(&thread[i]);
    atomic_store(&run->stop, true);
    finish(&mover.t);
    for (unsigned i = 0; i < threads; i++) {
        for (size_t j = 0; j < thread[i].history.count; j++)
            linear_add(h, &thread[i].history.op[j]);
        linear_free(&thread[i].history);
    }
    run->overlaps += overlaps_of(h);
    run->recorded += h->count;
    read_all(run, h);
    if (run->o.crashes) {
        crash_cut(h, &crash, crashed);
        crash_recover(run, &crash);
        read_all(run, crashed);
    }
}
