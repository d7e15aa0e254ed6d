/*
 * Between the files of crash_life.h: a life, its images, and what it does.
 */
#ifndef CRASH_LIFE_INTERNAL_H
#define CRASH_LIFE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "bftree.h"
#include "bftree_bulk.h"
#include "crash_life.h"
#include "crash_oracle.h"
#include "fileio/fileio.h"
#include "fileio/vfs_sim.h"
#include "index/engine.h"
#include "random.h"

enum {
    SEEN_BITS = 17,
    PENDING_MAX = 32,
    VALUE_MAX = 1200 << 10,
    BATCH_MAX = 12,
};
extern const char crash_dir[];

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
    bool past; /* a snapshot was open */
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
    bft_snapshot *snapshot; /* or NULL; of the life's own thread */
    struct {
        bft_tree *tree;
        unsigned key;
        bool there;
    } past; /* what it shows of one record */
    struct crash_oracle *oracle;
    const char *doing; /* the call under way */
    uint8_t *value;

    /* Taking images. */
    enum phase phase;
    uint64_t synced, buffered; /* while phase is RECOVERY */
    uint64_t issued;
    unsigned rate; /* one step in RATE... */
    bool big;      /* values of up to 1.2 MiB */
    struct shot *first, **last;
    struct shot *pending[PENDING_MAX]; /* of pages: why is not known yet */
    unsigned pending_count;
    uint64_t splits, evictions, merges;
    bool superblock_last, making; /* a new segment under way */
    pthread_mutex_t hook_lock;
    _Atomic bool stop;
};

static inline unsigned crash_roll(struct life *l, size_t sides)
{
    return (unsigned)(random_of(&l->rng) % sides);
}

static inline bool crash_failed(const struct life *l)
{
    return l->run->failure[0] != 0;
}

/* Note the first failure; always false. */
__attribute__((format(printf, 2, 3))) bool
crash_failure(struct life *l, const char *format, ...);
/* Is STATUS BFT_OK?  Else it is noted. */
bool crash_fine(struct life *l, bft_status status);
/* What the engine is told to report to. */
void crash_report(void *life, bft_status status, const char *text);

/* --- crash_shots.c: taking images ---------------------------------------- */

/* Take an image now; it waits in the life's list. */
struct shot *crash_take(struct life *l, enum crash_step kind,
                        enum bfti_sim_policy policy, uint64_t number);
/* Is this thread the one that keeps a life company? */
extern _Thread_local bool crash_is_company;
/* The hook: takes some. */
void crash_on_step(void *life, const struct bfti_sim_step *step);
/* Say what the images of pages were taken of, if that has shown; OTHER: it
 * shows now or never. */
void crash_settle(struct life *l, bool other);
void crash_count_image(struct crash_run *r, const struct shot *shot);
uint64_t crash_counter(const struct life *l, enum bfti_counter which);

/* --- crash_steps.c: what a life does ------------------------------------- */

bool crash_open(struct life *l, enum phase phase);
bool crash_open_trees(struct life *l);
bool crash_close(struct life *l);
/* Give up the database as a crash does. */
void crash_abandon(struct life *l);
/* Something at random. */
bool crash_live_a_step(struct life *l);
bool crash_op_batch(struct life *l);
bool crash_op_reopen(struct life *l);

#endif
