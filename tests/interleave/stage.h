/*
 * What scenes are played on: a small database in memory, opened anew for each, and a
 * history of what was read and written, which is checked at the end with the
 * database itself.  Keys are "a", "b", ...; values are numbers that each write has
 * for itself.
 */
#ifndef STAGE_H
#define STAGE_H

#include "bftree.h"
#include "explore.h"
#include "fileio/fileio.h"
#include "fileio/vfs_sim.h"
#include "index/engine.h"
#include "linear_check.h"

enum { STAGE_KEYS = 16, STAGE_KEYS_OF_TREE = 8, STAGE_VALUE_MAX = 128 };

struct stage {
    const struct scene *scene;
    struct sched *s;
    const struct bfti_env *env;
    struct bfti_vfs *vfs;
    bool simulated; /* VFS is: before stage_database() */
    struct bfti_surroundings surroundings;
    bft_options options; /* before stage_database() */
    bft_db *db;          /* NULL: the scene has none */
    bft_tree *tree[2];   /* of the keys to "h", and of those from "i" on */
    size_t value_bytes;  /* of the next puts */
    struct linear_history history;
    uint64_t now;    /* counts calls and ends */
    uint64_t number; /* a leaf, or what the scene likes */
    void *own;       /* the scene's */
};

/* --- by scenes, before --------------------------------------------------------- */

/* A database, and two trees in it, with leaves of 512 bytes. */
void stage_database(struct stage *st);
struct bfti_rec *stage_rec(struct stage *st);
/* The page id of KEY's leaf. */
uint64_t stage_leaf(struct stage *st, unsigned key);
/* All that is in memory of KEY's leaf is on the disk, and no longer in memory. */
void stage_send_out(struct stage *st, unsigned key);
/* Freeze the page of KEY's leaf. */
void stage_freeze(struct stage *st, unsigned key);

/* --- operations, recorded -------------------------------------------------------- */

void stage_put(struct stage *st, unsigned thread, unsigned key, uint32_t value);
uint32_t stage_get(struct stage *st, unsigned thread, unsigned key);
/* For those that a scene records itself. */
uint64_t stage_tick(struct stage *st);
bft_slice stage_key(unsigned key);
bft_tree *stage_tree(struct stage *st, unsigned key);
bft_slice stage_value(struct stage *st, uint8_t buf[STAGE_VALUE_MAX],
                      uint32_t number);
uint32_t stage_number(struct stage *st, bft_status status, const uint8_t *buf,
                      size_t len);
/* By an end: a copy made of all that a feed gives has the same records. */
void stage_copy(struct stage *st);
/* By an end: what a kill now leaves is opened in the place of the database, and has
 * the same records. */
void stage_crash(struct stage *st);
/* Of a step that must succeed. */
void stage_expect(struct stage *st, bft_status status, const char *what);
#define expect_fine(st, call) stage_expect(st, call, #call)

#endif
