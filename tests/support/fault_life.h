/*
 * A database on a simulated disk that goes on, on one thread, while calls of the
 * disk or allocations fail, with what is known of it; and what has to hold once
 * they succeed again.  What is asserted here names the call that broke it.
 */
#ifndef TEST_FAULT_LIFE_H
#define TEST_FAULT_LIFE_H

#include "engine_fixture.h"
#include "fault_known.h"

/* What fails: calls of the disk, or allocations where there are no ops. */
struct fault_kind {
    const char *name;
    unsigned ops;
    enum bfti_sim_harm harm;
    bft_status status;
};

struct fault_shot {
    const struct fault_kind *kind; /* NULL: nothing fails */
    uint64_t nth;                  /* 1.. */
    bool sticky;
};
enum { FAULT_SHOTS = 2 };

struct fault_life;

struct fault_scenario {
    const char *name;
    bool map; /* the disk offers to map files */
    /* Make what the work begins with, in the open database; nothing fails.  NULL:
     * there is no database yet. */
    void (*prepare)(struct fault_life *l);
    /* It is closed otherwise; this leaves what a kill leaves. */
    bool killed;
    /* Open the database and work, while something fails. */
    void (*work)(struct fault_life *l);
    /* Once nothing fails any more; may be NULL. */
    void (*after)(struct fault_life *l);
    /* Damage the closed database: it is not opened from then on; may be NULL. */
    void (*damage)(struct fault_life *l);
};

/* What all lives of a scenario begin with. */
struct fault_base {
    const struct fault_scenario *scenario;
    uint64_t seed;
    bool map;
    struct bfti_vfs *disk;
    struct known_db known;
    uint64_t with_lost_space; /* looks that found some */
    uint64_t evictions;       /* of the life in which nothing failed */
    /* Of salvage: what it told, and the bytes of the damaged file. */
    bft_salvage_report report;
    uint64_t sum;
    /* Of the life in which nothing failed: calls by op, and allocations. */
    uint64_t calls[12], allocs;
};

struct fault_life {
    struct engine_fixture *f;
    struct fault_base *base;
    struct known_db known;
    bft_tree *tree[KNOWN_TREES]; /* NULL: not open */
    bft_snapshot *snapshot;
    struct known_db past, older; /* of the snapshot, or a scenario's own */
    bft_status told[3];          /* likewise */
    uint8_t *bytes;              /* KNOWN_LEN_MAX */
    uint64_t failures;           /* calls that failed */
    bool shortened;              /* reads may be short */
    bool blind; /* and there may be space that no read could tell of */
    struct fault_shot shot[FAULT_SHOTS];
    int64_t allocs_before; /* it was armed */
    uint64_t clock_ns;
    struct known_look look;
};

/* Of the disks of all lives.  SEED: what the scenario draws. */
struct fault_base *fault_base_make(const struct fault_scenario *scenario,
                                   uint64_t seed, bool map);
void fault_base_free(struct fault_base *base);
/* Live with what fails, and assert all that has to hold then.  Did any strike? */
bool fault_live(struct fault_base *base,
                const struct fault_shot shot[FAULT_SHOTS]);
/* What the life that ended with a failed assertion began with, and what failed in
 * it; NULL when there is none. */
const struct fault_base *fault_of_life(struct fault_shot shot[FAULT_SHOTS]);
/* Print what calls that fail tell. */
extern bool fault_life_aloud;

/* --- for scenarios: calls that may fail, and what they tell ------------------ */

bool fault_struck(const struct fault_life *l);
/* Below LIMIT. */
unsigned fault_draw(struct fault_life *l, unsigned limit);
/* STATUS is what a call returned that should succeed: did it?  If not, something
 * was made to fail, and the text tells. */
bool fault_well(struct fault_life *l, bft_status status);
/* Open the database and the trees that there are. */
bool fault_open(struct fault_life *l);
void fault_close(struct fault_life *l);
/* Find the tree by the names it may have. */
void fault_find(struct fault_life *l, unsigned t);
/* Open or make it under its first name. */
void fault_make(struct fault_life *l, unsigned t, uint32_t leaf_bytes,
                uint64_t ttl_ms);
void fault_drop(struct fault_life *l, unsigned t);
void fault_truncate(struct fault_life *l, unsigned t);
void fault_rename(struct fault_life *l, unsigned t);
void fault_put(struct fault_life *l, unsigned t, unsigned k,
               enum known_size size);
void fault_put_until(struct fault_life *l, unsigned t, unsigned k,
                     enum known_size size, uint64_t until);
void fault_stream(struct fault_life *l, unsigned t, unsigned k,
                  enum known_size size);
void fault_delete(struct fault_life *l, unsigned t, unsigned k);
/* From LOW on, below HIGH; COUNT: it is to say how many. */
void fault_delete_range(struct fault_life *l, unsigned t, unsigned low,
                        unsigned high, bool count);
/* Puts of COUNT keys from K on, and a deletion, each in the next of TREES trees. */
void fault_batch(struct fault_life *l, unsigned trees, unsigned k,
                 unsigned count, bft_durability durability);
/* A transaction that reads K and writes COUNT keys behind it. */
void fault_txn(struct fault_life *l, unsigned t, unsigned k, unsigned count);
void fault_get(struct fault_life *l, unsigned t, unsigned k);
void fault_scan(struct fault_life *l, unsigned t);
void fault_take_snapshot(struct fault_life *l);
void fault_snapshot_get(struct fault_life *l, unsigned t, unsigned k);
void fault_snapshot_scan(struct fault_life *l, unsigned t);
void fault_release_snapshot(struct fault_life *l);
/* Keys from LOW on, every STEPth, below HIGH: into an empty tree; or, as a merge,
 * into one that may have records. */
void fault_load(struct fault_life *l, unsigned t, unsigned low, unsigned high,
                unsigned step, enum known_size usual);
void fault_merge(struct fault_life *l, unsigned t, unsigned low, unsigned high,
                 unsigned step, enum known_size usual);
void fault_sync(struct fault_life *l);
void fault_checkpoint(struct fault_life *l);

/* The database in PATH on VFS is what KNOWN tells, and fit for use.  POWER: it
 * was lost.  It may be opened by this: see bft_backup(). */
void fault_expect_db(struct fault_life *l, struct bfti_vfs *vfs,
                     const char *path, const struct known_db *known,
                     bool power);
/* The same of an open database; its trees go to TREE. */
void fault_expect_records(struct fault_life *l, bft_db *db,
                          const struct known_db *known, bool power, bool scan,
                          bft_tree *tree[KNOWN_TREES]);
/* It is sound.  But of a leaf that goes, and that could not be read, nor by the
 * checkpoint behind that, the space is lost: index/README.md, section 7. */
void fault_expect_sound(struct fault_life *l, bft_db *db);
/* Options of an open with the surroundings of the life; VFS is borrowed. */
bft_options fault_options(struct fault_life *l,
                          struct bfti_surroundings *surroundings,
                          struct bfti_vfs *vfs);

extern const struct fault_scenario fault_scenarios[];
extern const unsigned fault_scenario_count;

#endif
