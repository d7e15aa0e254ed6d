/*
 * A run of random operations on a few trees, each beside the map of what it
 * should hold: its state, and the keys and values that it draws.  What differs
 * from the map is asserted here.
 */
#ifndef MODEL_RUN_H
#define MODEL_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bftree.h"
#include "model_map.h"

enum {
    MODEL_TREES = 6,
    MODEL_KEYS = 20000, /* numbers that random keys are drawn from */
    MODEL_BUF = 3 << 20,
};

struct engine_fixture;

struct model_slot {
    bool live;
    char name[32];
    uint32_t leaf_bytes;
    unsigned style; /* of its keys */
    bft_tree *tree;
    struct model_map map;
    uint64_t head, tail; /* of the queue, of ascending keys */
    uint64_t low;        /* of descending keys */
};

enum model_phase {
    MODEL_RANDOM,
    MODEL_ASCENDING,
    MODEL_DESCENDING,
    MODEL_QUEUE,
    MODEL_PHASES,
};

/* The one that goes on. */
extern struct model_run {
    struct engine_fixture *f;
    struct model_slot slot[MODEL_TREES];
    enum model_phase phase;
    uint64_t op, ops;
    uint64_t names; /* given so far */
    uint64_t events[7];
    bool threads;
} model_run;

extern uint8_t model_buf[MODEL_BUF];

struct model_key {
    uint8_t bytes[BFT_KEY_MAX];
    size_t len;
};

static inline bft_slice model_slice(const struct model_key *key)
{
    return (bft_slice){key->bytes, key->len};
}

/* The longest key of the slot. */
size_t model_key_max(const struct model_slot *s);
/* The key number N of the slot; the order of keys is that of numbers in all
 * styles but 2 and 3. */
struct model_key model_key_of(const struct model_slot *s, uint64_t n);
/* A key for a write that adds. */
struct model_key model_key_to_add(struct model_slot *s);
/* A key that is likely there. */
struct model_key model_key_there(struct model_slot *s);
/* A key to delete: of a queue, at its end. */
struct model_key model_key_to_delete(struct model_slot *s);
/* One that has a tree. */
struct model_slot *model_any_slot(void);

/* LEN random bytes. */
struct model_value model_make_value(uint64_t len);
/* Mostly small, now and then out of the leaf. */
struct model_value model_any_value(const struct model_slot *s);
struct model_value model_huge_value(void);
/* Its bytes, in model_buf. */
bft_slice model_value_slice(struct model_value value);

/* Print what a failure is about. */
void model_describe(const struct model_slot *s, bft_slice key);
/* The tree answers for KEY as the map does. */
void model_check_get(struct model_slot *s, bft_slice key);

#endif
