/*
 * One thread lives a random life: single changes, batches, large values, trees
 * made and dropped, checkpoints, evictions, reopenings.  A hook in the simulated
 * disk takes images before I/O steps.  They are looked at after the call that
 * took them, because opening a database takes the library's lock.
 *
 * All follows from the seed, the engine's clock and random numbers too, but for
 * lives in company of a second thread.
 *
 * "Ghosts" are frames of a log behind its end: a tail, some of whose frames were
 * lost, is cut off at the first gap.  When all frames have one length a new frame
 * ends where an old one began, so that old one must be gone, or be known by its
 * incarnation.
 */
#include "crash_life_internal.h"
#include "tally.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char crash_dir[] = "/db";

const char *crash_step_name(enum crash_step step)
{
    static const char *const name[CRASH_STEPS] = {
        "creation",    "log append", "new segment", "segment reuse",
        "large value", "merge",      "split",       "eviction",
        "checkpoint",  "superblock", "tree drop",   "recovery"};
    return name[step];
}

bool crash_failure(struct life *l, const char *format, ...)
{
    struct crash_run *r = l->run;
    size_t n;
    va_list args;

    if (crash_failed(l))
        return false;
    n = (size_t)snprintf(r->failure, sizeof(r->failure),
                         "BFT_SEED=%llu BFT_LIFE=%llu, depth %u, commit %llu, "
                         "%s: ",
                         (unsigned long long)r->seed, (unsigned long long)l->id,
                         l->depth, (unsigned long long)l->oracle->issued,
                         l->doing);
    va_start(args, format);
    vsnprintf(r->failure + n, sizeof(r->failure) - n, format, args);
    va_end(args);
    return false;
}

bool crash_fine(struct life *l, bft_status status)
{
    char text[400] = "";

    if (status == BFT_OK)
        return true;
    (void)bft_last_error(text, sizeof(text));
    return crash_failure(l, "%d (%s): %s", (int)status, bft_strerror(status),
                         text);
}

/* --- surroundings ---------------------------------------------------------- */

static uint64_t env_now(void *ctx)
{
    struct life *l = ctx;
    return atomic_fetch_add(&l->clock, 1000000);
}

static uint64_t env_wall(void *ctx)
{
    (void)ctx;
    return 1700000000000;
}

static uint64_t env_random(void *ctx)
{
    struct life *l = ctx;
    return random_mix(atomic_fetch_add(&l->env_rng, 0x9e3779b97f4a7c15u));
}

static void env_wait(void *ctx, _Atomic uint32_t *word, uint32_t expected,
                     uint64_t timeout_ns)
{
    (void)ctx, (void)word, (void)expected, (void)timeout_ns;
}

static void env_wake(void *ctx, _Atomic uint32_t *word, bool all)
{
    (void)ctx, (void)word, (void)all;
}

static void env_yield(void *ctx)
{
    (void)ctx;
}

void crash_report(void *ctx, bft_status status, const char *text)
{
    struct life *l = ctx;
    (void)crash_failure(l, "a background step failed: %d: %s", (int)status,
                        text);
}

static void surround(struct life *l)
{
    l->env = *bfti_env_system(); /* its memory needs no context */
    l->env.ctx = l;
    l->env.now_ns = env_now;
    l->env.wall_ms = env_wall;
    l->env.random = env_random;
    l->env.thread_start = NULL;
    if (!l->company) {
        l->env.wait = env_wait;
        l->env.wake = env_wake;
        l->env.yield = env_yield;
    }
    l->surroundings.env = &l->env;
    l->surroundings.vfs = l->sim;
    l->surroundings.nodes_bytes = 1; /* what can be read again is dropped */
    l->options.internal = &l->surroundings;
    l->options.report = crash_report;
    l->options.report_ctx = l;
    l->last = &l->first;
    l->value = malloc(VALUE_MAX);
    assert(l->value);
}

/* --- what an image holds ------------------------------------------------------- */

static void choose_options(struct life *l)
{
    static const bft_durability some[] = {BFT_NONE, BFT_BUFFERED, BFT_BUFFERED,
                                          BFT_SYNC};

    l->options.size = sizeof(l->options);
    l->options.memory_bytes = 256 << 10;
    l->options.log_bytes = 128 << 10;
    l->options.log_segment_bytes = 64 << 10;
    l->options.leaf_bytes = crash_roll(l, 2) ? 512 : 1024;
    l->options.durability = some[crash_roll(l, 4)];
    l->options.compress = crash_roll(l, 2) == 0;
    l->options.no_threads = true;
    l->map =
        crash_roll(l, 4) == 0; /* slow: each call compares what is mapped */
}

static struct life *life_make(struct crash_run *r, uint64_t id, uint64_t seed)
{
    struct life *l = calloc(1, sizeof(*l));

    assert(l);
    l->run = r;
    l->id = id;
    l->rng = random_mix(seed + 1);
    l->env_rng = random_mix(seed + 2);
    l->surroundings.small_deltas = seed % 2;
    l->rate = 1;
    l->doing = "create";
    pthread_mutex_init(&l->hook_lock, NULL);
    choose_options(l);
    return l;
}

/* The life that goes on in SHOT's image, after a crash of LIFE. */
static struct life *life_after(const struct life *life, struct shot *shot)
{
    struct life *l =
        life_make(life->run, life->id, life->rng ^ random_mix(shot->number));

    l->depth = life->depth + 1;
    l->sim = shot->sim;
    shot->sim = NULL;
    l->options = life->options;
    l->ghosts = life->ghosts;
    l->big = life->big;
    l->map = life->map;
    l->oracle = life->oracle; /* as long as it is opened and checked */
    l->rate = 1;
    bfti_sim_set_map(l->sim, l->map);
    surround(l);
    return l;
}

static void life_end(struct life *l)
{
    crash_abandon(l);
    while (l->first) {
        struct shot *shot = l->first;
        l->first = shot->next;
        if (shot->sim)
            bfti_vfs_sim_destroy(shot->sim);
        free(shot);
    }
    bfti_vfs_sim_destroy(l->sim);
    pthread_mutex_destroy(&l->hook_lock);
    free(l->value);
    free(l);
}

static bool check_db(struct life *l, uint64_t must, uint64_t issued,
                     uint64_t *cut)
{
    char text[700];

    l->doing = "verify";
    if (!crash_fine(l, bft_verify(l->db)))
        return false;
    l->doing = "check";
    return crash_check(l->oracle, l->db, must, issued, cut, text,
                       sizeof(text)) ||
           crash_failure(l, "%s", text);
}

static bool look_at_shots(struct life *l);

/* Lose the power, or be killed, now; go on with what is left. */
static bool crash_now(struct life *l)
{
    enum bfti_sim_policy policy =
        (enum bfti_sim_policy)crash_roll(l, BFTI_SIM_POLICIES);
    struct crash_oracle *after;
    struct bfti_vfs *image;
    uint64_t cut;

    if (!look_at_shots(l))
        return false;
    l->issued = l->oracle->issued;
    l->synced = l->oracle->synced;
    l->buffered = policy == BFTI_SIM_KILL ? l->oracle->buffered : l->synced;
    if (bfti_sim_image(l->sim, policy, random_of(&l->rng), &image) != BFT_OK)
        abort();
    crash_abandon(l);
    bfti_vfs_sim_destroy(l->sim);
    l->sim = image;
    l->options.report = crash_report;
    bfti_sim_set_map(l->sim, l->map);
    if (l->depth == 0)
        bfti_sim_on_step(l->sim, crash_on_step, l);
    l->doing = "open after a crash";
    l->run->crashes++;
    if (!crash_open(l, PHASE_RECOVERY) ||
        !check_db(l, l->buffered, l->issued, &cut) || !look_at_shots(l))
        return false;
    after = crash_oracle_cut(l->oracle, cut);
    crash_oracle_free(l->oracle);
    l->oracle = after;
    return crash_open_trees(l);
}

/* Go on where the crash left off, and stop again: in order, or not. */
static bool go_on(struct life *l)
{
    unsigned rounds = 1 + crash_roll(l, l->ghosts ? 5 : 3);
    uint64_t cut;

    if (!crash_open_trees(l))
        return false;
    while (rounds--) {
        unsigned n = 1 + crash_roll(l, l->ghosts ? 4 : 12);

        while (n--)
            if (!crash_live_a_step(l))
                return false;
        if (l->ghosts || crash_roll(l, 3)) {
            if (!crash_now(l))
                return false;
        } else if (!crash_op_reopen(l) ||
                   !check_db(l, l->oracle->issued, l->oracle->issued, &cut)) {
            return false;
        }
    }
    return true;
}

static bool look_at(struct life *life, struct shot *shot)
{
    struct life *l;
    uint64_t cut;
    bool ok;

    crash_count_image(life->run, shot);
    l = life_after(life, shot);
    l->doing = "open";
    l->issued = shot->issued;
    l->buffered = shot->buffered;
    l->synced = shot->synced;
    if (l->depth == 1 && crash_roll(l, 3) == 0)
        bfti_sim_on_step(l->sim, crash_on_step, l);
    ok = crash_open(l, PHASE_RECOVERY);
    bfti_sim_on_step(l->sim, NULL, NULL);
    ok = ok && check_db(l, shot->buffered, shot->issued, &cut) &&
         look_at_shots(l);
    if (ok) {
        l->oracle = crash_oracle_cut(life->oracle, cut);
        /* Once opened, what was found is durable. */
        if (l->depth == 1 && crash_roll(l, 4) == 0)
            (void)crash_take(l, CRASH_RECOVERY, BFTI_SIM_DROP, shot->number);
        ok = look_at_shots(l) && go_on(l);
        crash_oracle_free(l->oracle);
    }
    l->oracle = NULL;
    life_end(l);
    return ok;
}

/*
 * The same image, and one superblock is damaged besides.  The other one is used
 * when the log reaches back to where that starts, and then nothing is missing;
 * else the opening fails.
 */
static bool look_at_damaged(struct life *life, const struct shot *shot)
{
    struct shot damaged = *shot;
    uint64_t at = crash_roll(life, 2) * (uint64_t)BFTI_BLOCK + 100, cut;
    struct life *l;
    bft_status status;
    bool ok = true;

    if (bfti_sim_image(shot->sim, BFTI_SIM_KEEP, shot->number, &damaged.sim) !=
        BFT_OK)
        abort();
    l = life_after(life, &damaged);
    l->doing = "open with a damaged superblock";
    (void)(bfti_sim_flip(l->sim, "/db/data", at, 4) == BFT_OK);
    status = bft_open(crash_dir, &l->options, &l->db);
    if (status == BFT_OK) {
        l->engine = l->db->engine;
        l->run->damaged_opened++;
        ok = check_db(l, shot->buffered, shot->issued, &cut);
    } else if (status != BFT_CORRUPT) {
        ok = crash_fine(l, status);
    }
    l->run->damaged++;
    l->oracle = NULL;
    life_end(l);
    return ok;
}

/* Name the image in the failure. */
static void blame(struct life *l, const struct shot *shot)
{
    size_t n = strlen(l->run->failure);

    snprintf(l->run->failure + n, sizeof(l->run->failure) - n,
             "\n  in image %u: before step %llu (%s, during %s), policy %s, "
             "commits %llu..%llu",
             l->run->images, (unsigned long long)shot->number,
             crash_step_name(shot->kind), shot->doing,
             bfti_sim_policy_name(shot->policy),
             (unsigned long long)shot->buffered,
             (unsigned long long)shot->issued);
}

static bool look_at_shots(struct life *l)
{
    struct shot *shot = l->first;
    bool ok = true;

    l->first = NULL;
    l->last = &l->first;
    l->pending_count = 0; /* of these */
    while (shot) {
        struct shot *done = shot;

        if (ok) {
            ok = (l->depth > 0 || crash_roll(l, 4) ||
                  look_at_damaged(l, shot)) &&
                 look_at(l, shot);
            if (crash_failed(l))
                blame(l, shot);
            if (l->run->images_max && l->run->images >= l->run->images_max)
                ok = false;
        }
        shot = shot->next;
        if (done->sim)
            bfti_vfs_sim_destroy(done->sim);
        free(done);
    }
    return ok;
}

/* --- lives ----------------------------------------------------------------------- */

/* Every eighth life fills its memory, so that writers evict. */
static bool fill(struct life *l)
{
    for (unsigned i = 0; i < 500; i++)
        if (!crash_op_batch(l) || crash_failed(l))
            return false;
    crash_settle(l, true);
    return true;
}

static void *keep_company(void *arg)
{
    struct life *l = arg;
    uint64_t rng = env_random(l);
    struct bfti_rec *rec = bfti_rec_current(l->engine->buffer.threads);
    bft_status status = BFT_OK;

    uint64_t seen = 0;

    crash_is_company = true;
    while (status == BFT_OK && !atomic_load(&l->stop)) {
        uint64_t begun = atomic_load(&l->oracle->issued);
        bool done;

        if (begun - seen < 4) { /* let something become dirty */
            l->env.yield(l->env.ctx);
            continue;
        }
        seen = begun;
        if (random_of(&rng) % 3 == 0)
            status = bft_checkpoint(l->db);
        for (unsigned i = 0; status == BFT_OK && i < 4; i++)
            status = bfti_evict_one(&l->engine->buffer, rec, &done);
        if (status == BFT_OK)
            status = bfti_clean(l->engine, rec, 16 << 10, true, &done);
    }
    if (status != BFT_OK)
        crash_report(l, status, "a checkpoint or an eviction");
    return NULL;
}

/* In company not all follows from the seed. */
static bool live_in_company(struct life *l)
{
    pthread_t thread;
    bool ok = true;

    for (unsigned round = 0; ok && round < 20; round++) {
        atomic_store(&l->stop, false);
        if (pthread_create(&thread, NULL, keep_company, l) != 0)
            abort();
        for (unsigned i = 0; ok && i < 25; i++)
            ok = crash_live_a_step(l);
        atomic_store(&l->stop, true);
        pthread_join(thread, NULL);
        crash_settle(l, true);
        ok = ok && !crash_failed(l) &&
             (crash_roll(l, 3) ? look_at_shots(l) : crash_now(l));
    }
    return ok;
}

static bool live_on(struct life *l)
{
    bool full = l->oracle->keys > 500, all = l->run->operations != 0;
    unsigned operations = all              ? l->run->operations
                          : full || l->big ? 60
                                           : 300 + crash_roll(l, 200);
    bool ok;

    if (full)
        l->rate = 20;
    else if (l->company)
        l->rate = 2;
    bfti_sim_on_step(l->sim, crash_on_step, l);
    ok = crash_open(l, PHASE_CREATE) && look_at_shots(l);
    if (full && ok)
        ok = fill(l) && look_at_shots(l);
    if (l->company)
        return ok && live_in_company(l);
    for (unsigned i = 0; ok && i < operations; i++)
        ok = crash_live_a_step(l) &&
             (all || crash_roll(l, 80) ? look_at_shots(l) : crash_now(l));
    return ok && crash_close(l) && look_at_shots(l);
}

static bool live(struct crash_run *r, uint64_t id)
{
    struct life *l = life_make(r, id, r->seed * 1000003 + id);
    bool ok;

    l->sim = bfti_vfs_sim_create(bfti_env_system(), random_of(&l->rng));
    assert(l->sim);
    bfti_sim_set_map(l->sim, l->map);
    l->ghosts = r->ghosts;
    if (l->ghosts && l->options.durability == BFT_SYNC)
        l->options.durability = BFT_BUFFERED;
    l->big = id % 16 == 7 && !r->operations;
    l->company = r->company;
    if (l->company)
        l->map = false; /* mapped stores are compared while another stores */
    l->oracle = crash_oracle_make(l->big ? 12
                                  : id % 8 == 3 && !r->ghosts && !r->operations
                                      ? 900
                                      : 2 * (20 + crash_roll(l, 60)));
    surround(l);
    ok = live_on(l);
    crash_oracle_free(l->oracle);
    l->oracle = NULL;
    life_end(l);
    return ok;
}

/* Are there images enough, of every kind that is counted? */
static bool enough(const struct crash_run *r)
{
    static const bool counted[CRASH_STEPS] = {
        [CRASH_LOG] = true,        [CRASH_REUSE] = true,
        [CRASH_EVICTION] = true,   [CRASH_SPLIT] = true,
        [CRASH_CHECKPOINT] = true, [CRASH_SUPERBLOCK] = true,
        [CRASH_DROP] = true,       [CRASH_RECOVERY] = true};

    for (int i = 0; i < CRASH_STEPS; i++)
        if (counted[i] && r->distinct_of[i] < r->each)
            return false;
    return r->distinct >= r->wanted;
}

/* Is there to be a life ID? */
static bool goes_on(const struct crash_run *r, uint64_t id)
{
    if (!r->operations)
        return id < r->lives && !enough(r);
    return id < r->lives || (r->only == UINT64_MAX && r->points < r->wanted);
}

bool crash_run(struct crash_run *r)
{
    bool ok = true;

    r->failure[0] = 0;
    r->seen = calloc((size_t)1 << SEEN_BITS, sizeof(*r->seen));
    assert(r->seen);
    for (uint64_t id = 0; ok && goes_on(r, id); id++)
        if (r->only == UINT64_MAX || r->only == id)
            ok = live(r, id);
    return r->failure[0] == 0 && enough(r);
}

void crash_run_free(struct crash_run *r)
{
    free(r->seen);
    r->seen = NULL;
}

void crash_run_print(const struct crash_run *r)
{
    printf(
        "%u images (%u distinct), %u crashes more, %u commits, %u openings\n",
        r->images, r->distinct, r->crashes, r->commits, r->reopenings);
    tally(TALLY_IMAGES, r->images + r->crashes);
    if (r->operations) {
        printf("  %u steps, %u images of them\n", r->steps, r->points);
        tally(TALLY_POINTS, r->points);
    }
    for (int i = 0; i < CRASH_STEPS; i++)
        printf("  %-14s %6u, %6u distinct\n",
               crash_step_name((enum crash_step)i), r->images_of[i],
               r->distinct_of[i]);
    printf("  splits %llu, leaf merges %llu, deltas %llu, promotions %llu, "
           "evictions %llu, checkpoints %llu, leaves moved %llu\n",
           (unsigned long long)r->splits, (unsigned long long)r->leaf_merges,
           (unsigned long long)r->deltas, (unsigned long long)r->promotions,
           (unsigned long long)r->evictions, (unsigned long long)r->checkpoints,
           (unsigned long long)r->leaves_moved);
    printf("  %u with a superblock damaged, %u of them opened; %u while a "
           "snapshot was open\n",
           r->damaged, r->damaged_opened, r->past);
    fflush(stdout);
}
