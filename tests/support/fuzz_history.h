/*
 * A database on a simulated disk with all there is to damage, and the history
 * that made it: what it held after each of its commits.
 */
#ifndef TEST_FUZZ_HISTORY_H
#define TEST_FUZZ_HISTORY_H

#include "engine_fixture.h"
#include "model_map.h"

enum { HISTORY_TREES = 4 };
extern const char *const history_tree[HISTORY_TREES];

/* One change.  A key is a tree and a number below HISTORY_KEYS. */
enum { HISTORY_KEYS = 1500 };
enum history_kind { HISTORY_PUT, HISTORY_DELETE, HISTORY_CREATE, HISTORY_DROP };
struct history_step {
    enum history_kind kind;
    unsigned tree, key;
    struct model_value value;
    uint64_t end; /* log position behind its commit */
};

struct history {
    struct engine_fixture *f; /* closed; its file system is not used */
    struct bfti_vfs *image;   /* what the last crash left */
    struct bfti_vfs *earlier; /* what one before the tail would have left */
    struct history_step *step;
    size_t count, cap;
    bft_stats stats; /* of the life */
};

/* Live: trees of small and large leaves, a dropped one, values of all lengths,
 * deltas, checkpoints, batches, and a tail of the log in which a few commits
 * were synced.  Random numbers decide. */
struct history *history_make(void);
void history_free(struct history *h);

/* The key of that number in BUF (32 bytes), of that tree. */
bft_slice history_key(unsigned tree, unsigned key, char *buf);

/* What trees hold; a tree may not be there. */
struct history_state {
    bool there[HISTORY_TREES];
    struct model_map map[HISTORY_TREES];
};
/* After all steps that end at or below UPTO. */
void history_state_at(const struct history *h, uint64_t upto,
                      struct history_state *state);
void history_state_clear(struct history_state *state);

#endif
