/*
 * What trees may hold after calls of which some failed: of each key the values
 * that it can have by what the installed headers say, and which of them a kill
 * or a loss of power may bring back.
 */
#ifndef TEST_FAULT_KNOWN_H
#define TEST_FAULT_KNOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bftree.h"

enum {
    KNOWN_TREES = 4,
    KNOWN_KEYS = 160, /* of a tree */
    KNOWN_MAYBE = 20,
    KNOWN_OPS = 4096, /* changes of a life */
};

/* How long a value is: the lowest bits of its seed. */
enum known_size {
    KNOWN_SHORT,    /* 0 to 79 bytes */
    KNOWN_MIDDLE,   /* 300: in a leaf of 4 KiB, not in one of 512 bytes */
    KNOWN_KILO,     /* 1,000 */
    KNOWN_OUTSIDE,  /* 3,000: in its frame, and in no leaf */
    KNOWN_LARGE,    /* 20,000 */
    KNOWN_STREAMED, /* 150,000: frames name it by its place */
    KNOWN_SEVERAL,  /* 540,000: in several extents */
    KNOWN_LEN_MAX = 540000,
};

/* Seed 0: there is none. */
struct known_value {
    uint32_t seed;
    uint32_t op;    /* the change that made it: each is there as a whole */
    uint64_t until; /* expires then; 0: never */
};

/* A failed change either is there or is not, and may go with a crash. */
struct known {
    struct known_value may[KNOWN_MAYBE]; /* in the order of the changes */
    unsigned count, acked; /* the last that was acknowledged; those before it
                              only a loss of power brings back */
    bool any;              /* there was no room for all */
};

struct known_tree {
    struct known key[KNOWN_KEYS];
    struct known name; /* seed 0: no such tree, 1 or 2: under that name */
    uint32_t leaf_bytes;
    uint64_t ttl_ms;
};

/* To be copied. */
struct known_db {
    struct known_tree tree[KNOWN_TREES];
    uint32_t op, last_seed;
    uint64_t random; /* what a scenario draws */
    uint64_t now_ms; /* of the wall clock */
};

void known_clear(struct known_db *db);
/* A new seed, for a value so long. */
uint32_t known_seed(struct known_db *db, enum known_size size);
/* The number of a change that begins. */
uint32_t known_op(struct known_db *db);
/* KNOWN was changed to that, or was not: it ended with STATUS. */
void known_change(struct known *known, struct known_value value,
                  bft_status status);
/* Everything so far survives a loss of power. */
void known_synced(struct known_db *db);

bft_slice known_key(char text[32], unsigned k);
unsigned known_key_number(bft_slice key);
const char *known_name(char text[16], unsigned tree, unsigned which);
size_t known_len(uint32_t seed);
void known_bytes(uint32_t seed, size_t from, void *buf, size_t len);

/* What is asked of what was read. */
struct known_look {
    const struct known_db *known;
    bool power;       /* the power was lost: what was synced has to be there */
    bool either_gone; /* what may have expired may be there or not */
    /* By number of the change, bits: 1 it is there, 2 it is not. */
    uint8_t seen[KNOWN_OPS];
};
/* SEED, 0 for none, is what KNOWN has, which may be. */
bool known_may_be(struct known_look *look, const struct known *known,
                  uint32_t seed);
/* The seed of those bytes, if it is one of what KNOWN may be; else UINT32_MAX. */
uint32_t known_seed_of(const struct known *known, const void *bytes,
                       size_t len);
/* The seed of those bytes, if DB ever gave it. */
uint32_t known_seed_ever(const struct known_db *db, const void *bytes,
                         size_t len);
/* No change is there in part: its number, or 0. */
uint32_t known_torn(const struct known_look *look);

#endif
