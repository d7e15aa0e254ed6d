/*
 * One thread lives a random life: single changes, batches, large values, trees
 * made and dropped, checkpoints, evictions, reopenings.  A hook in the simulated
 * disk takes images before I/O steps.  They are looked at after the call that
 * took them, because opening a database takes the library's lock.
 *
 * All follows from the seed: the engine's clock and random numbers too.
 *
 * "Ghosts" are frames of a log behind its end: the tail of a log, some of whose
 * frames were lost, is cut off at the first gap, and what lies behind is
 * overwritten only bit by bit.  When all frames have one length a new frame ends
 * where an old one begins, and nothing but its incarnation tells them apart.
 */
#include "crash_life.h"

#include <assert.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bftree.h"
#include "crash_oracle.h"
#include "fileio/fileio.h"
#include "fileio/vfs_sim.h"
#include "index/engine.h"

enum {
    SEEN_BITS = 17,
    PENDING_MAX = 32,
    VALUE_MAX = 1200 << 10,
    BATCH_MAX = 12,
};
static const char dir[] = "/db";

enum phase { PHASE_CREATE, PHASE_RECOVERY, PHASE_LIVE, PHASE_DROP };

/* An image, and what must be found in it. */
struct shot {
    struct shot *next;
    struct bfti_vfs *sim;
    enum bfti_sim_policy policy;
    enum crash_step kind;
    uint64_t number;
    uint64_t synced, buffered, issued; /* of the oracle, then */
    const char *doing;
};

struct life {
    struct crash_run *run;
    uint64_t id;
    unsigned depth;
    bool ghosts, map;
    bool company; /* a second thread checkpoints and evicts meanwhile */
    struct bfti_vfs *sim;
    bft_options options;
    struct bfti_surroundings surroundings;
    struct bfti_env env;
    uint64_t rng;
    _Atomic uint64_t env_rng, clock;

    bft_db *db;
    struct bfti_engine *engine; /* of DB, for its counters */
    bft_tree *tree[CRASH_TREES];
    struct crash_oracle *oracle;
    const char *doing; /* the call under way */
    uint8_t *value;

    /* Taking images. */
    enum phase phase;
    bool kill_too;       /* a kill keeps what was not synced */
    uint64_t synced, buffered; /* while phase is RECOVERY */
    uint64_t issued;
    unsigned rate;       /* one step in RATE... */
    unsigned big;        /* rarer still: images are large */
    struct shot *first, **last;
    struct shot *pending[PENDING_MAX]; /* of pages: why is not known yet */
    unsigned pending_count;
    uint64_t splits, evictions, merges;
    bool superblock_last, making; /* a new segment under way */
    pthread_mutex_t hook_lock;
    _Atomic bool stop;
};

const char *crash_step_name(enum crash_step step)
{
    static const char *const name[CRASH_STEPS] = {
        "creation", "log append", "new segment", "segment reuse",
        "large value", "merge", "split", "eviction", "checkpoint",
        "superblock", "tree drop", "recovery"};
    return name[step];
}

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t next(uint64_t *state)
{
    return mix(*state += 0x9e3779b97f4a7c15u);
}

static unsigned roll(struct life *l, size_t sides)
{
    return (unsigned)(next(&l->rng) % sides);
}

static bool failed(const struct life *l)
{
    return l->run->failure[0] != 0;
}

/* Note the first failure; always false. */
__attribute__((format(printf, 2, 3))) static bool failure(struct life *l,
                                                          const char *format,
                                                          ...)
{
    struct crash_run *r = l->run;
    size_t n;
    va_list args;

    if (failed(l))
        return false;
    n = (size_t)snprintf(r->failure, sizeof(r->failure),
                         "BFT_SEED=%llu BFT_LIFE=%llu, depth %u, commit %llu, "
                         "%s: ",
                         (unsigned long long)r->seed,
                         (unsigned long long)l->id, l->depth,
                         (unsigned long long)l->oracle->issued, l->doing);
    va_start(args, format);
    vsnprintf(r->failure + n, sizeof(r->failure) - n, format, args);
    va_end(args);
    return false;
}

static bool fine(struct life *l, bft_status status)
{
    char text[400] = "";

    if (status == BFT_OK)
        return true;
    (void)bft_last_error(text, sizeof(text));
    return failure(l, "%d (%s): %s", (int)status, bft_strerror(status), text);
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
    return mix(atomic_fetch_add(&l->env_rng, 0x9e3779b97f4a7c15u));
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

static void report(void *ctx, bft_status status, const char *text)
{
    struct life *l = ctx;
    (void)failure(l, "a background step failed: %d: %s", (int)status, text);
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
    l->options.internal = &l->surroundings;
    l->options.report = report;
    l->options.report_ctx = l;
    l->last = &l->first;
    l->value = malloc(VALUE_MAX);
    assert(l->value);
}

/* --- distinct images -------------------------------------------------------- */

struct hash {
    struct bfti_vfs *sim;
    uint64_t sum;
};

static uint64_t hash_side(struct bfti_vfs *sim, enum bfti_sim_side side,
                          const char *path)
{
    static uint64_t buf[8192];
    uint64_t bytes, h = 1;
    size_t got;

    if (bfti_sim_size(sim, side, path, &bytes) != BFT_OK)
        return 2;
    h = mix(h + bytes);
    for (uint64_t at = 0; at < bytes; at += got) {
        if (bfti_sim_read(sim, side, path, at, buf, sizeof(buf), &got) !=
                BFT_OK ||
            got == 0)
            return 3;
        for (size_t i = 0; i < got / 8; i++)
            h = (h ^ buf[i]) * 0x9e3779b97f4a7c15u, h ^= h >> 29;
    }
    return h;
}

static void hash_file(void *arg, const char *name)
{
    struct hash *hash = arg;
    char path[300];
    uint64_t h = 0;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    for (const char *at = name; *at; at++)
        h = mix(h * 257 + (uint8_t)*at);
    h = mix(h ^ hash_side(hash->sim, BFTI_SIM_CACHE, path));
    if (bfti_sim_waiting(hash->sim))
        h = mix(h ^ hash_side(hash->sim, BFTI_SIM_DISK, path));
    hash->sum += h;
}

static bool is_new(struct crash_run *r, struct bfti_vfs *sim)
{
    struct hash hash = {sim, 0};
    size_t at, mask = ((size_t)1 << SEEN_BITS) - 1;

    (void)(sim->ops->list(sim, dir, hash_file, &hash) == BFT_OK);
    hash.sum |= 1;
    for (at = (size_t)mix(hash.sum) & mask; r->seen[at];
         at = (at + 1) & mask)
        if (r->seen[at] == hash.sum)
            return false;
    r->seen[at] = hash.sum;
    return true;
}

static void count_image(struct crash_run *r, const struct shot *shot)
{
    r->images++;
    r->images_of[shot->kind]++;
    if (is_new(r, shot->sim)) {
        r->distinct++;
        r->distinct_of[shot->kind]++;
    }
}

/* --- taking images ---------------------------------------------------------- */

static struct shot *take(struct life *l, enum crash_step kind,
                         enum bfti_sim_policy policy, uint64_t number)
{
    struct shot *shot = calloc(1, sizeof(*shot));
    const struct crash_oracle *o = l->oracle;
    bool opening = l->phase == PHASE_RECOVERY;
    /* Acknowledged before the image was taken, begun after it at the latest. */
    uint64_t synced = opening ? l->synced : o->synced;
    uint64_t buffered = opening ? l->buffered : o->buffered;

    assert(shot);
    if (bfti_sim_image(l->sim, policy, next(&l->rng), &shot->sim) != BFT_OK)
        abort();
    shot->policy = policy;
    shot->kind = kind;
    shot->number = number;
    shot->synced = synced;
    shot->buffered = policy == BFTI_SIM_KILL ? buffered : synced;
    shot->issued = opening ? l->issued : o->issued;
    shot->doing = l->doing;
    *l->last = shot;
    l->last = &shot->next;
    return shot;
}

static bool is_log(const char *path)
{
    return path && strstr(path, "/log-") != NULL;
}

static uint64_t counter(const struct life *l, enum bfti_counter which)
{
    return bfti_threads_count(l->engine->buffer.threads, which);
}

/* Images of pages were taken before it was known what the pages are written
 * for: the counters have moved, or something else is done by now. */
static void settle_pending(struct life *l, bool other)
{
    uint64_t splits, evictions, merges;
    enum crash_step kind = CRASH_VALUE;
    bool moved;

    if (!l->engine)
        return;
    splits = counter(l, BFTI_N_SPLITS);
    evictions = counter(l, BFTI_N_EVICT_DIRTY);
    merges = counter(l, BFTI_N_MERGES) + counter(l, BFTI_N_DELTAS);
    moved = splits != l->splits || evictions != l->evictions ||
            merges != l->merges;
    if (splits != l->splits)
        kind = CRASH_SPLIT;
    else if (evictions != l->evictions)
        kind = CRASH_EVICTION;
    else if (merges != l->merges)
        kind = CRASH_MERGE;
    if (moved || other) {
        for (unsigned i = 0; i < l->pending_count; i++)
            l->pending[i]->kind = kind;
        l->pending_count = 0;
    }
    l->splits = splits;
    l->evictions = evictions;
    l->merges = merges;
}

/* What is about to be done?  -1: write a page, it will show why. */
static int classify(struct life *l, const struct bfti_sim_step *step)
{
    bool log = is_log(step->path);
    bool data = strstr(step->path, "/data") != NULL;
    bool superblock = data && step->op == BFTI_SIM_WRITE &&
                      step->offset < 2 * (uint64_t)BFTI_BLOCK;
    bool its_sync =
        data && step->op == BFTI_SIM_SYNC && l->superblock_last;
    bool reuse = step->op == BFTI_SIM_RENAME && is_log(step->path) &&
                 !strstr(step->path, "log-new");

    if (data)
        l->superblock_last = superblock;
    /* A file keeps the path it was opened by: once it is a segment it is still
     * "log-new" here, and a new one shows by being filled. */
    if (log && strstr(step->path, "log-new") &&
        (step->op == BFTI_SIM_CREATE ||
         (step->op == BFTI_SIM_WRITE && step->offset == 0 &&
          step->len == l->options.log_segment_bytes)))
        l->making = true;
    if (l->phase == PHASE_CREATE)
        return CRASH_CREATE;
    if (l->phase == PHASE_RECOVERY)
        return CRASH_RECOVERY;
    if (superblock || its_sync)
        return CRASH_SUPERBLOCK;
    if (reuse)
        return CRASH_REUSE;
    if (l->phase == PHASE_DROP)
        return CRASH_DROP;
    if (atomic_load(&l->engine->epoch))
        return CRASH_CHECKPOINT;
    if (step->op == BFTI_SIM_SYNC_DIR) {
        bool made = l->making;
        l->making = false;
        return made ? CRASH_SEGMENT : CRASH_REUSE;
    }
    if (log)
        return l->making ? CRASH_SEGMENT : CRASH_LOG;
    return -1;
}

/* One step of a kind in so many, and then so many images. */
static const struct {
    unsigned every, images;
} plan[CRASH_STEPS + 1] = {
    [CRASH_CREATE] = {1, 1},      [CRASH_LOG] = {4, 1},
    [CRASH_SEGMENT] = {3, 1},     [CRASH_REUSE] = {1, 6},
    [CRASH_MERGE] = {1, 1},       [CRASH_CHECKPOINT] = {12, 1},
    [CRASH_SUPERBLOCK] = {1, 2},  [CRASH_DROP] = {2, 2},
    [CRASH_RECOVERY] = {6, 1},    [CRASH_STEPS] = {2, 1},
};

static void take_some(struct life *l, const struct bfti_sim_step *step)
{
    int kind = classify(l, step);
    unsigned which = kind < 0 ? CRASH_STEPS : (unsigned)kind;
    unsigned images = plan[which].images;
    bool rare_in_company = l->company && kind == CRASH_SUPERBLOCK;

    if (l->phase >= PHASE_LIVE)
        settle_pending(l, kind >= 0);
    if (roll(l, plan[which].every * (rare_in_company ? 6 : l->rate)) != 0)
        return;
    /* Nothing waits: all crashes are one. */
    if (bfti_sim_waiting(l->sim) == 0)
        images = 1;
    for (unsigned i = 0, policy = roll(l, BFTI_SIM_POLICIES); i < images;
         i++, policy = (policy + 1 + roll(l, 2)) % BFTI_SIM_POLICIES) {
        struct shot *shot = take(
            l, kind < 0 ? CRASH_VALUE : (enum crash_step)kind,
            (enum bfti_sim_policy)policy, step->number);
        if (kind < 0 && l->pending_count < PENDING_MAX)
            l->pending[l->pending_count++] = shot;
    }
}

static void on_step(void *arg, const struct bfti_sim_step *step)
{
    struct life *l = arg;

    pthread_mutex_lock(&l->hook_lock);
    take_some(l, step);
    pthread_mutex_unlock(&l->hook_lock);
}

/* --- opening and closing ----------------------------------------------------- */

static void forget_handles(struct life *l)
{
    l->db = NULL;
    l->engine = NULL;
    memset(l->tree, 0, sizeof(l->tree));
}

static bool open_db(struct life *l, enum phase phase)
{
    bft_status status;

    l->surroundings.vfs = l->sim;
    l->phase = phase;
    l->superblock_last = false;
    status = bft_open(dir, &l->options, &l->db);
    l->phase = PHASE_LIVE;
    l->run->reopenings++;
    if (status != BFT_OK) {
        forget_handles(l);
        return fine(l, status);
    }
    l->engine = l->db->engine;
    l->splits = counter(l, BFTI_N_SPLITS);
    l->evictions = counter(l, BFTI_N_EVICT_DIRTY);
    l->merges = counter(l, BFTI_N_MERGES) + counter(l, BFTI_N_DELTAS);
    return !failed(l);
}

static bool open_trees(struct life *l)
{
    bft_tree_options must_exist = {.size = sizeof(must_exist),
                                   .must_exist = true};

    for (unsigned t = 0; t < CRASH_TREES; t++)
        if (crash_has_tree(l->oracle, t) &&
            !fine(l, bft_tree_open(l->db, crash_tree_name(t), &must_exist,
                                   &l->tree[t])))
            return false;
    return true;
}

/* What lives have gone through, so that a test can tell that it was much. */
static void count_life(struct life *l)
{
    struct crash_run *r = l->run;

    r->splits += counter(l, BFTI_N_SPLITS);
    r->leaf_merges += counter(l, BFTI_N_LEAF_MERGES);
    r->deltas += counter(l, BFTI_N_DELTAS);
    r->promotions += counter(l, BFTI_N_PROMOTIONS);
    r->evictions += counter(l, BFTI_N_EVICT_DIRTY);
    r->checkpoints += counter(l, BFTI_N_CHECKPOINTS);
}

static bool close_db(struct life *l)
{
    bft_status status;

    l->doing = "close";
    count_life(l);
    status = bft_close(l->db);
    for (unsigned i = 0; i < l->pending_count; i++)
        l->pending[i]->kind = CRASH_CHECKPOINT;
    l->pending_count = 0;
    forget_handles(l);
    if (!fine(l, status))
        return false;
    crash_acknowledge(l->oracle, BFT_SYNC);
    return true;
}

/* Give up the database as a crash does. */
static void abandon_db(struct life *l)
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
    if (!fine(l, status))
        return false;
    crash_acknowledge(l->oracle, durability ? durability
                                            : l->options.durability);
    l->run->commits++;
    return true;
}

static bool have_tree(struct life *l, unsigned t)
{
    bft_tree_options options = {.size = sizeof(options),
                                .leaf_bytes = 512u << roll(l, 3)};

    if (l->tree[t])
        return true;
    l->doing = "create tree";
    crash_begin(l->oracle);
    crash_create_tree(l->oracle, t);
    return acknowledged(l, bft_tree_open(l->db, crash_tree_name(t), &options,
                                         &l->tree[t]),
                        BFT_DEFAULT);
}

static size_t value_len(struct life *l)
{
    if (l->ghosts)
        return 48;
    switch (roll(l, 16)) {
    case 0:
    case 1:
        return roll(l, 30);
    case 2:
    case 3:
    case 4:
        return 100 + roll(l, 110);
    case 5:
        if (l->big && roll(l, 6) == 0)
            return roll(l, 4) ? (size_t)roll(l, 700 << 10) : VALUE_MAX - 8;
        return roll(l, 6) ? 200 + roll(l, 2800) : 3000 + roll(l, 70000);
    default:
        return 40 + roll(l, 60);
    }
}

static bool op_put(struct life *l)
{
    unsigned t = roll(l, CRASH_TREES), k;
    uint8_t key[CRASH_KEY_MAX];
    size_t len = value_len(l);

    /* Neighbours now and then: leaves that fill. */
    k = roll(l, l->oracle->keys);
    if (l->ghosts)
        k |= 1;
    if (!have_tree(l, t))
        return false;
    l->doing = "put";
    crash_begin(l->oracle);
    crash_put(l->oracle, t, k, len);
    crash_value(l->oracle, t, k, l->value, len);
    return acknowledged(l,
                        bft_put(l->tree[t], crash_key(k, key),
                                (bft_slice){l->value, len}),
                        BFT_DEFAULT);
}

static bool op_insert(struct life *l)
{
    unsigned t = roll(l, CRASH_TREES), k = roll(l, l->oracle->keys);
    uint8_t key[CRASH_KEY_MAX];
    size_t len = value_len(l);
    bft_status status;

    if (!have_tree(l, t))
        return false;
    l->doing = "insert";
    if (crash_has(l->oracle, t, k)) {
        status = bft_insert(l->tree[t], crash_key(k, key),
                            (bft_slice){l->value, 0});
        return status == BFT_EXISTS ||
               failure(l, "insert of a key that is there: %d", (int)status);
    }
    crash_begin(l->oracle);
    crash_put(l->oracle, t, k, len);
    crash_value(l->oracle, t, k, l->value, len);
    return acknowledged(l,
                        bft_insert(l->tree[t], crash_key(k, key),
                                   (bft_slice){l->value, len}),
                        BFT_DEFAULT);
}

/* As when the memory is full. */
static bool op_evict(struct life *l)
{
    struct bfti_rec *rec = bfti_rec_current(l->engine->buffer.threads);

    l->doing = "evict";
    for (unsigned i = 0, n = 1 + roll(l, 12); i < n; i++) {
        bool done;
        if (!fine(l, bfti_evict_one(&l->engine->buffer, rec, &done)))
            return false;
    }
    l->doing = "sweep";
    return fine(l, bfti_sweep(l->engine, rec));
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
    unsigned k[64], max = 10 + roll(l, 54), n = 0;
    uint8_t key[CRASH_KEY_MAX];
    bft_cursor *cursor;
    bft_status status;
    bft_slice at;

    l->doing = "cursor";
    if (!fine(l, bft_cursor_open(l->tree[t], &cursor)))
        return false;
    status = bft_cursor_seek(cursor, BFT_GE,
                             crash_key(roll(l, l->oracle->keys), key));
    while (status == BFT_OK && n < max) {
        status = bft_cursor_key(cursor, &at);
        if (status != BFT_OK)
            break;
        k[n++] = crash_key_number(at);
        status = bft_cursor_next(cursor);
    }
    bft_cursor_close(cursor);
    if (status != BFT_NOT_FOUND && !fine(l, status))
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
    unsigned t = roll(l, CRASH_TREES);

    if (!have_tree(l, t))
        return false;
    return roll(l, 10) == 0 ? delete_many(l, t)
                            : delete_key(l, t, roll(l, l->oracle->keys));
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
    unsigned t = roll(l, CRASH_TREES), k = roll(l, l->oracle->keys);
    uint8_t key[CRASH_KEY_MAX];
    size_t len = roll(l, 4) ? 130 + roll(l, 3000) : 3000 + roll(l, 30000);
    const uint8_t *at = l->value;

    if (l->big && roll(l, 4) == 0)
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
    unsigned n = 1 + roll(l, BATCH_MAX);
    uint8_t key[CRASH_KEY_MAX];

    for (unsigned i = 0; i < n; i++) {
        unsigned t = roll(l, CRASH_TREES), k = roll(l, l->oracle->keys);
        size_t len = value_len(l);
        bft_status status;

        if (!l->tree[t])
            continue;
        if (len > 3000)
            len %= 3000;
        if (roll(l, 4) == 0) {
            crash_delete(l->oracle, t, k);
            status = bft_batch_delete(batch, l->tree[t], crash_key(k, key));
        } else {
            crash_put(l->oracle, t, k, len);
            crash_value(l->oracle, t, k, l->value, len);
            status = bft_batch_put(batch, l->tree[t], crash_key(k, key),
                                   (bft_slice){l->value, len});
        }
        if (!fine(l, status))
            return false;
    }
    return true;
}

static bool op_batch(struct life *l)
{
    static const bft_durability some[] = {BFT_DEFAULT, BFT_NONE, BFT_BUFFERED,
                                          BFT_SYNC};
    bft_durability durability = some[roll(l, 4)];
    bft_batch *batch;
    uint64_t lsn;
    bool ok;

    if (!have_tree(l, roll(l, CRASH_TREES)))
        return false;
    l->doing = "batch";
    if (!fine(l, bft_batch_create(l->db, &batch)))
        return false;
    crash_begin(l->oracle);
    ok = fill_batch(l, batch) &&
         acknowledged(l, bft_batch_commit(batch, durability, &lsn), durability);
    bft_batch_free(batch);
    if (ok && roll(l, 6) == 0) {
        l->doing = "wait_durable";
        ok = acknowledged(l, bft_wait_durable(l->db, lsn), BFT_SYNC);
    }
    return ok;
}

static bool op_drop(struct life *l)
{
    unsigned t = roll(l, CRASH_TREES);

    if (!l->tree[t])
        return true;
    l->doing = "drop";
    l->phase = PHASE_DROP;
    crash_begin(l->oracle);
    crash_drop_tree(l->oracle, t);
    l->tree[t] = NULL;
    if (!acknowledged(l, bft_tree_drop(l->db, crash_tree_name(t)),
                      BFT_DEFAULT))
        return false;
    if (roll(l, 3) == 0) {
        l->doing = "checkpoint after drop";
        if (!acknowledged(l, bft_checkpoint(l->db), BFT_SYNC))
            return false;
    }
    l->phase = PHASE_LIVE;
    return true;
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
    unsigned t = roll(l, CRASH_TREES), k = roll(l, l->oracle->keys);
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
           failure(l, "key %u of %s, which is %s: %d", k, crash_tree_name(t),
                   has ? "there" : "not there", (int)status);
}

static bool op_reopen(struct life *l)
{
    uint64_t issued = l->oracle->issued;

    if (!close_db(l))
        return false;
    l->doing = "open";
    l->synced = l->buffered = l->issued = issued;
    return open_db(l, PHASE_RECOVERY) && open_trees(l);
}

static bool step_life(struct life *l)
{
    unsigned what = roll(l, 1000);
    bool ok;

    if (l->ghosts)
        ok = what < 900   ? op_put(l)
             : what < 950 ? op_sync(l)
             : what < 965 ? op_evict(l)
             : what < 970 ? op_checkpoint(l)
                          : op_get(l);
    else
        ok = what < 470   ? op_put(l)
             : what < 540 ? op_get(l)
             : what < 600 ? op_insert(l)
             : what < 700 ? op_delete(l)
             : what < 860 ? op_batch(l)
             : what < 900 ? op_stream(l)
             : what < 950 ? op_evict(l)
             : what < 977 ? op_sync(l)
             : what < 985 ? op_checkpoint(l)
             : what < 994 ? op_drop(l)
             : l->company ? op_sync(l)
                          : op_reopen(l);
    if (l->engine && !l->company)
        settle_pending(l, true);
    return ok && !failed(l);
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
    l->options.leaf_bytes = roll(l, 2) ? 512 : 1024;
    l->options.durability = some[roll(l, 4)];
    l->options.compress = roll(l, 4) == 0;
    l->options.no_threads = true;
    l->map = roll(l, 4) == 0; /* slow: each call compares what is mapped */
}

static struct life *life_make(struct crash_run *r, uint64_t id, uint64_t seed)
{
    struct life *l = calloc(1, sizeof(*l));

    assert(l);
    l->run = r;
    l->id = id;
    l->rng = mix(seed + 1);
    l->env_rng = mix(seed + 2);
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
        life_make(life->run, life->id, life->rng ^ mix(shot->number));

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
    abandon_db(l);
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
    if (!fine(l, bft_verify(l->db)))
        return false;
    l->doing = "check";
    return crash_check(l->oracle, l->db, must, issued, cut, text,
                       sizeof(text)) ||
           failure(l, "%s", text);
}

static bool look_at_shots(struct life *l);

/* Lose the power, or be killed, now; go on with what is left. */
static bool crash_now(struct life *l)
{
    enum bfti_sim_policy policy =
        (enum bfti_sim_policy)roll(l, BFTI_SIM_POLICIES);
    struct crash_oracle *after;
    struct bfti_vfs *image;
    uint64_t cut;

    if (!look_at_shots(l))
        return false;
    l->issued = l->oracle->issued;
    l->synced = l->oracle->synced;
    l->buffered = policy == BFTI_SIM_KILL ? l->oracle->buffered : l->synced;
    if (bfti_sim_image(l->sim, policy, next(&l->rng), &image) != BFT_OK)
        abort();
    abandon_db(l);
    bfti_vfs_sim_destroy(l->sim);
    l->sim = image;
    l->options.report = report;
    bfti_sim_set_map(l->sim, l->map);
    if (l->depth == 0)
        bfti_sim_on_step(l->sim, on_step, l);
    l->doing = "open after a crash";
    l->run->crashes++;
    if (!open_db(l, PHASE_RECOVERY) ||
        !check_db(l, l->buffered, l->issued, &cut) || !look_at_shots(l))
        return false;
    after = crash_oracle_cut(l->oracle, cut);
    crash_oracle_free(l->oracle);
    l->oracle = after;
    return open_trees(l);
}

/* Go on where the crash left off, and stop again: in order, or not. */
static bool go_on(struct life *l)
{
    unsigned rounds = 1 + roll(l, l->ghosts ? 5 : 3);
    uint64_t cut;

    if (!open_trees(l))
        return false;
    while (rounds--) {
        unsigned n = 1 + roll(l, l->ghosts ? 4 : 12);

        while (n--)
            if (!step_life(l))
                return false;
        if (l->ghosts || roll(l, 3)) {
            if (!crash_now(l))
                return false;
        } else if (!op_reopen(l) ||
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

    count_image(life->run, shot);
    l = life_after(life, shot);
    l->doing = "open";
    l->issued = shot->issued;
    l->buffered = shot->buffered;
    l->synced = shot->synced;
    if (l->depth == 1 && roll(l, 3) == 0)
        bfti_sim_on_step(l->sim, on_step, l);
    ok = open_db(l, PHASE_RECOVERY);
    bfti_sim_on_step(l->sim, NULL, NULL);
    ok = ok && check_db(l, shot->buffered, shot->issued, &cut) && look_at_shots(l);
    if (ok) {
        l->oracle = crash_oracle_cut(life->oracle, cut);
        /* Once opened, what was found is durable. */
        if (l->depth == 1 && roll(l, 4) == 0)
            (void)take(l, CRASH_RECOVERY, BFTI_SIM_DROP, shot->number);
        ok = look_at_shots(l) && go_on(l);
        crash_oracle_free(l->oracle);
    }
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
    while (shot) {
        struct shot *done = shot;

        if (ok) {
            ok = look_at(l, shot);
            if (failed(l))
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
        if (!op_batch(l) || failed(l))
            return false;
    return true;
}

static void *keep_company(void *arg)
{
    struct life *l = arg;
    uint64_t rng = env_random(l);
    struct bfti_rec *rec = bfti_rec_current(l->engine->buffer.threads);
    bft_status status = BFT_OK;

    uint64_t seen = 0;

    while (status == BFT_OK && !atomic_load(&l->stop)) {
        uint64_t begun = atomic_load(&l->oracle->issued);
        bool done;

        if (begun - seen < 4) { /* let something become dirty */
            l->env.yield(l->env.ctx);
            continue;
        }
        seen = begun;
        if (next(&rng) % 3 == 0)
            status = bft_checkpoint(l->db);
        for (unsigned i = 0; status == BFT_OK && i < 4; i++)
            status = bfti_evict_one(&l->engine->buffer, rec, &done);
    }
    if (status != BFT_OK)
        report(l, status, "a checkpoint or an eviction");
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
            ok = step_life(l);
        atomic_store(&l->stop, true);
        pthread_join(thread, NULL);
        settle_pending(l, true);
        ok = ok && !failed(l) &&
             (roll(l, 3) ? look_at_shots(l) : crash_now(l));
    }
    return ok;
}

static bool live_on(struct life *l)
{
    bool full = l->oracle->keys > 500;
    unsigned operations = full ? 60 : l->big ? 60 : 300 + roll(l, 200);
    bool ok;

    if (full)
        l->rate = 20;
    else if (l->company)
        l->rate = 2;
    bfti_sim_on_step(l->sim, on_step, l);
    ok = open_db(l, PHASE_CREATE) && look_at_shots(l);
    if (full && ok)
        ok = fill(l) && look_at_shots(l);
    if (l->company)
        return ok && live_in_company(l);
    for (unsigned i = 0; ok && i < operations; i++)
        ok = step_life(l) && (roll(l, 80) ? look_at_shots(l) : crash_now(l));
    return ok && close_db(l) && look_at_shots(l);
}

static bool live(struct crash_run *r, uint64_t id)
{
    struct life *l = life_make(r, id, r->seed * 1000003 + id);
    bool ok;

    l->sim = bfti_vfs_sim_create(bfti_env_system(), next(&l->rng));
    assert(l->sim);
    bfti_sim_set_map(l->sim, l->map);
    l->ghosts = r->ghosts;
    if (l->ghosts && l->options.durability == BFT_SYNC)
        l->options.durability = BFT_BUFFERED;
    l->big = id % 16 == 7;
    l->company = r->company;
    if (l->company)
        l->map = false; /* mapped stores are compared while another stores */
    l->oracle = crash_oracle_make(l->big                        ? 12
                                  : id % 8 == 3 && !r->ghosts ? 900
                                  : 2 * (20 + roll(l, 60)));
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

bool crash_run(struct crash_run *r)
{
    bool ok = true;

    r->failure[0] = 0;
    r->seen = calloc((size_t)1 << SEEN_BITS, sizeof(*r->seen));
    assert(r->seen);
    for (uint64_t id = 0; ok && id < r->lives && !enough(r); id++)
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
    printf("%u images (%u distinct), %u crashes more, %u commits, %u openings\n",
           r->images, r->distinct, r->crashes, r->commits, r->reopenings);
    for (int i = 0; i < CRASH_STEPS; i++)
        printf("  %-14s %6u, %6u distinct\n",
               crash_step_name((enum crash_step)i), r->images_of[i],
               r->distinct_of[i]);
    printf("  splits %llu, leaf merges %llu, deltas %llu, promotions %llu, "
           "evictions %llu, checkpoints %llu\n",
           (unsigned long long)r->splits, (unsigned long long)r->leaf_merges,
           (unsigned long long)r->deltas, (unsigned long long)r->promotions,
           (unsigned long long)r->evictions,
           (unsigned long long)r->checkpoints);
    fflush(stdout);
}
