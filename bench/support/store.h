/*
 * What the comparison asks of an engine: records of RIG_KEY and RIG_VALUE
 * bytes, atomic calls, visible to others when they return.
 */
#ifndef STORE_H
#define STORE_H

#include "rig.h"

struct store_config {
    const char *dir; /* empty, for this store alone */
    uint64_t memory_bytes;
    uint64_t log_bytes; /* checkpoint when the log has grown to about this */
    bool sync;          /* each commit survives power loss; else a kill */
    bool shared_file;   /* SQLite: let other processes in */
};

struct store; /* each kind has its own */

struct store_kind {
    const char *name;
    void (*describe)(FILE *to, const struct store_config *config);
    struct store *(*open)(const struct store_config *config);
    void (*close)(struct store *store);

    /* One row in a transaction of its own. */
    bool (*get)(struct store *store, const uint8_t *key,
                uint8_t value[RIG_VALUE]);
    void (*update)(struct store *store, const uint8_t *key,
                   const uint8_t *value);
    void (*erase)(struct store *store, const uint8_t *key);
    /* Many rows in one. */
    void (*begin)(struct store *store);
    void (*insert_in)(struct store *store, const uint8_t *key,
                      const uint8_t *value);
    void (*update_in)(struct store *store, const uint8_t *key,
                      const uint8_t *value);
    void (*commit)(struct store *store);
    /* Visit up to ROWS rows from FROM on (NULL: from the end it starts at);
     * returns how many there were.  Dies when rows are out of order or hold
     * what is not theirs. */
    size_t (*scan)(struct store *store, const uint8_t *from, bool back,
                   size_t rows);
    /* Bring everything from the log into its place, and sync it. */
    void (*settle)(struct store *store);
};

extern const struct store_kind store_bftree, store_sqlite;

#endif
