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
    MODEL_PASTS = 3, /* snapshots that are open at a time */
};

struct engine_fixture;

struct model_key {
    uint8_t bytes[BFT_KEY_MAX];
    size_t len;
};

static inline bft_slice model_slice(const struct model_key *key)
{
    return (bft_slice){key->bytes, key->len};
}

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

/* Where a cursor should be: on a record of the map (of those from LOW up to
 * HIGH), or in front of all, or behind all, or nowhere. */
struct model_place {
    struct model_slot *slot;
    const struct model_map *map; /* what it shows */
    bft_cursor *cursor;
    struct model_key low, high;
    enum { MODEL_NOWHERE, MODEL_ON, MODEL_IN_FRONT, MODEL_BEHIND } where;
    struct model_key at;
};

/* What a snapshot shows. */
struct model_past {
    bft_snapshot *snapshot; /* NULL: none, or it is released */
    struct model_map map[MODEL_TREES];
    struct model_place place; /* of a cursor that stays open while other things
                                 are done, if it has one */
};

/* What a run counts of its own. */
enum model_deed {
    MODEL_SNAPSHOTS,  /* taken */
    MODEL_PAST_GETS,  /* of a record that is another by now, or is gone */
    MODEL_PAST_STEPS, /* of their cursors */
    MODEL_REFUSALS,   /* of what waits until there is no snapshot */
    MODEL_COMMITS,    /* of transactions that wrote */
    MODEL_CONFLICTS,
    MODEL_ABORTS,
    MODEL_TXN_SCANS,
    MODEL_LOADS,
    MODEL_BACKUPS,
    MODEL_DEEDS,
};

/* The one that goes on. */
extern struct model_run {
    struct engine_fixture *f;
    struct model_slot slot[MODEL_TREES];
    enum model_phase phase;
    uint64_t op, ops;
    uint64_t names; /* given so far */
    uint64_t events[8];
    uint64_t deeds[MODEL_DEEDS];
    struct model_past past[MODEL_PASTS];
    bool threads;
} model_run;

extern uint8_t model_buf[MODEL_BUF];

/* The longest key of the slot. */
size_t model_key_max(const struct model_slot *s);
/* The key number N of the slot; the order of keys is that of numbers in all
 * styles but 2 and 3. */
struct model_key model_key_of(const struct model_slot *s, uint64_t n);
/* A key for a write that adds. */
struct model_key model_key_to_add(struct model_slot *s);
/* A key that is likely there; or likely in MAP, of the same slot. */
struct model_key model_key_there(const struct model_slot *s);
struct model_key model_key_in(const struct model_slot *s,
                              const struct model_map *map);
/* That of record I. */
struct model_key model_key_at(const struct model_map *map, size_t i);
/* A key to delete: of a queue, at its end. */
struct model_key model_key_to_delete(struct model_slot *s);
/* One that has a tree. */
struct model_slot *model_any_slot(void);
/* What a batch may hold, the books of the library included. */
size_t model_batch_bytes_max(void);

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
/* STATUS and LEN bytes in model_buf are what a get of WANT answers; NULL: there
 * is none. */
void model_check_answer(const struct model_slot *s, bft_slice key,
                        const struct model_value *want, bft_status status,
                        size_t len);
/* Write that to the tree and to the map; NULL: delete it. */
void model_write(struct model_slot *s, bft_slice key,
                 const struct model_value *value);

#endif
