/*
 * A tree of inner nodes held against a sorted array of separators, with keys of
 * every awkward shape, in memory that is counted and can be refused.
 */
#ifndef INNER_FIXTURE_H
#define INNER_FIXTURE_H

#include "index/inner.h"

/* --- random numbers, which BFT_SEED repeats ----------------------------- */

/* Print what repeats the run. */
void inner_random_start(void);
/* A test's own sequence. */
void inner_random(uint64_t salt);

/* --- surroundings ------------------------------------------------------- */

extern struct inner_memory {
    size_t blocks;        /* allocated now */
    size_t allocations;   /* since inner_refuse_from() */
    size_t refuse_from;   /* 0: none; else this one and all after fail */
    uint64_t bytes_asked; /* of the last allocation */
} inner_memory;
extern const struct bfti_env inner_env;

/* The Nth allocation from now on, and all after it, fail; 0: none. */
void inner_refuse_from(size_t n);

/* --- keys --------------------------------------------------------------- */

struct key {
    uint16_t len;
    uint8_t byte[BFTI_KEY_MAX];
};

bft_slice inner_slice(const struct key *key);

typedef void make_key(struct key *key);
make_key inner_key_short, inner_key_zeros, inner_key_ones, inner_key_longest,
    inner_key_shared, inner_key_number, inner_key_mixed;
enum { INNER_SHAPES = 6 };
extern make_key *const inner_key_shapes[INNER_SHAPES]; /* all but mixed */

/* LEN bytes with NUMBER in the last eight. */
void inner_key_make(struct key *key, uint64_t number, size_t len);
/* The same, with the number in front: keys have little in common. */
void inner_key_front(struct key *key, uint64_t number, size_t len);
/* Up to MAX keys, ascending and distinct. */
size_t inner_make_keys(make_key *make, struct key *keys, size_t max);

/* --- the model ---------------------------------------------------------- */

enum { MODEL_MAX = 20000 };

/* Leaf I holds keys from separator[i] on; separator 0 is no key. */
struct model {
    struct key *separator[MODEL_MAX];
    uint64_t id[MODEL_MAX];
    size_t count;
    uint64_t next_id;
    struct bfti_inner *root;
};

struct model *inner_model_create(void);
/* Asserts that no block is left. */
void inner_model_destroy(struct model *m);
/* Of the array alone. */
void inner_model_insert(struct model *m, const struct key *key, uint64_t id);
void inner_model_remove(struct model *m, size_t i);

/* The tree is the model. */
void inner_check_tree(const struct model *m);
/* Searches for a key that MAKE makes, the empty one, and one of the model's
 * with its neighbours find what the model says. */
void inner_search_around(const struct model *m, make_key *make);

/* --- changes ------------------------------------------------------------ */

/* Swing the root, and free what the change replaced. */
void inner_accept(struct model *m, struct bfti_inner_change *change);
/* Insert the N distinct ascending KEYS.  False, and nothing changed, when they
 * are in too many nodes for one change. */
bool inner_insert(struct model *m, const struct key *keys, size_t n);
/* The same, one by one if need be. */
void inner_insert_each(struct model *m, const struct key *keys, size_t n);
void inner_remove_leaf(struct model *m, size_t i);
/* CHANGES random ones with keys of MAKE, searching after each. */
void inner_grow(struct model *m, make_key *make, size_t changes);

#endif
