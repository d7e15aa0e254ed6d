/* Images of a life: when they are taken, what of, and whether they are new. */
#include "crash_life_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    h = random_mix(h + bytes);
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

    snprintf(path, sizeof(path), "%s/%s", crash_dir, name);
    for (const char *at = name; *at; at++)
        h = random_mix(h * 257 + (uint8_t)*at);
    h = random_mix(h ^ hash_side(hash->sim, BFTI_SIM_CACHE, path));
    if (bfti_sim_waiting(hash->sim))
        h = random_mix(h ^ hash_side(hash->sim, BFTI_SIM_DISK, path));
    hash->sum += h;
}

static bool is_new(struct crash_run *r, struct bfti_vfs *sim)
{
    struct hash hash = {sim, 0};
    size_t at, mask = ((size_t)1 << SEEN_BITS) - 1;

    (void)(sim->ops->list(sim, crash_dir, hash_file, &hash) == BFT_OK);
    hash.sum |= 1;
    for (at = (size_t)random_mix(hash.sum) & mask; r->seen[at];
         at = (at + 1) & mask)
        if (r->seen[at] == hash.sum)
            return false;
    r->seen[at] = hash.sum;
    return true;
}

void crash_count_image(struct crash_run *r, const struct shot *shot)
{
    r->images++;
    r->images_of[shot->kind]++;
    r->past += shot->past;
    if (is_new(r, shot->sim)) {
        r->distinct++;
        r->distinct_of[shot->kind]++;
    }
}

/* --- taking images ---------------------------------------------------------- */

struct shot *crash_take(struct life *l, enum crash_step kind,
                        enum bfti_sim_policy policy, uint64_t number)
{
    struct shot *shot = calloc(1, sizeof(*shot));
    const struct crash_oracle *o = l->oracle;
    bool opening = l->phase == PHASE_RECOVERY;
    /* Acknowledged before the image was taken, begun after it at the latest. */
    uint64_t synced = opening ? l->synced : o->synced;
    uint64_t buffered = opening ? l->buffered : o->buffered;

    assert(shot);
    if (bfti_sim_image(l->sim, policy, random_of(&l->rng), &shot->sim) !=
        BFT_OK)
        abort();
    shot->policy = policy;
    shot->kind = kind;
    shot->number = number;
    shot->synced = synced;
    shot->buffered = policy == BFTI_SIM_KILL ? buffered : synced;
    shot->issued = opening ? l->issued : o->issued;
    shot->doing = l->doing;
    shot->past = !crash_is_company && l->snapshot;
    *l->last = shot;
    l->last = &shot->next;
    return shot;
}

static bool is_log(const char *path)
{
    return path && strstr(path, "/log-") != NULL;
}

uint64_t crash_counter(const struct life *l, enum bfti_counter which)
{
    return bfti_threads_count(l->engine->buffer.threads, which);
}

/* Images of pages were taken before it was known what the pages are written
 * for: the counters have moved, or something else is done by now. */
void crash_settle(struct life *l, bool other)
{
    uint64_t splits, evictions, merges;
    enum crash_step kind = CRASH_VALUE;
    bool moved;

    if (!l->engine)
        return;
    splits = crash_counter(l, BFTI_N_SPLITS);
    evictions = crash_counter(l, BFTI_N_EVICT_DIRTY);
    merges = crash_counter(l, BFTI_N_MERGES) + crash_counter(l, BFTI_N_DELTAS);
    moved =
        splits != l->splits || evictions != l->evictions || merges != l->merges;
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
    bool its_sync = data && step->op == BFTI_SIM_SYNC && l->superblock_last;
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
    [CRASH_CREATE] = {1, 1},     [CRASH_LOG] = {4, 1},
    [CRASH_SEGMENT] = {3, 1},    [CRASH_REUSE] = {1, 6},
    [CRASH_MERGE] = {1, 1},      [CRASH_CHECKPOINT] = {12, 1},
    [CRASH_SUPERBLOCK] = {1, 2}, [CRASH_DROP] = {2, 2},
    [CRASH_RECOVERY] = {6, 1},   [CRASH_STEPS] = {2, 1},
};

static void take_some(struct life *l, const struct bfti_sim_step *step)
{
    int kind = classify(l, step);
    unsigned which = kind < 0 ? CRASH_STEPS : (unsigned)kind;
    unsigned images = plan[which].images;
    bool rare_in_company = l->company && kind == CRASH_SUPERBLOCK;
    bool all = l->run->operations && l->depth == 0;

    if (l->phase >= PHASE_LIVE)
        crash_settle(l, kind >= 0);
    if (!all &&
        crash_roll(l, plan[which].every * (rare_in_company ? 6 : l->rate)) != 0)
        return;
    if (all)
        images = BFTI_SIM_POLICIES;
    /* Nothing waits: all crashes are one. */
    if (bfti_sim_waiting(l->sim) == 0)
        images = 1;
    if (all) {
        l->run->steps++;
        l->run->points += images;
    }
    for (unsigned i = 0, policy = crash_roll(l, BFTI_SIM_POLICIES); i < images;
         i++, policy = (policy + 1 + (all ? 0 : crash_roll(l, 2))) %
                       BFTI_SIM_POLICIES) {
        struct shot *shot =
            crash_take(l, kind < 0 ? CRASH_VALUE : (enum crash_step)kind,
                       (enum bfti_sim_policy)policy, step->number);
        if (kind < 0 && l->pending_count < PENDING_MAX)
            l->pending[l->pending_count++] = shot;
    }
}

_Thread_local bool crash_is_company;

/* Within a checkpoint: let the other thread write something that its cut does
 * not have.  Not for ever: it may be waiting for us. */
static void let_write(struct life *l)
{
    enum { YIELDS = 200 };
    uint64_t begun = atomic_load(&l->oracle->issued);

    for (int i = 0; i < YIELDS && !atomic_load(&l->stop) &&
                    atomic_load(&l->oracle->issued) - begun < 2;
         i++)
        l->env.yield(l->env.ctx);
}

void crash_on_step(void *arg, const struct bfti_sim_step *step)
{
    struct life *l = arg;

    pthread_mutex_lock(&l->hook_lock);
    take_some(l, step);
    pthread_mutex_unlock(&l->hook_lock);
    if (crash_is_company && atomic_load(&l->engine->epoch))
        let_write(l);
}
