/*
 * What compare_engines asks of an engine, and what it hands to one: records of
 * RIG_KEY and value_len bytes, atomic calls, visible to others on return.
 *
 * A peer is one open database; a session is one thread's way into it.  Nothing
 * here reports an error: an engine that fails ends the worker process with a
 * text, and the row says so.
 */
#ifndef PEER_H
#define PEER_H

#include <string.h>

#include "rig.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    PEER_VALUE_MAX = 1024,
    PEER_BATCH = 100, /* records of a batch and of a multi-get */
    PEER_MIB = 1 << 20,
};

enum peer_setting {
    PEER_MEMORY, /* all fits; a log that a kill of the process survives */
    PEER_LARGER, /* ten times the budget, bound by a memory cgroup */
    PEER_SYNC,   /* all fits; each commit survives a power cut */
};

struct peer_config {
    const char *dir; /* this engine's alone */
    enum peer_setting setting;
    uint64_t memory_bytes; /* LARGER: of the engine, not of the process */
    uint64_t records;      /* about how many there will be */
    size_t value_len;
    unsigned threads; /* sessions at one time, at most */
    bool filling;     /* LARGER: the untimed load, not bound by the cgroup */
};

/* A point operation's key and value, or one of a batch. */
struct peer_record {
    uint8_t key[RIG_KEY];
    uint8_t value[PEER_VALUE_MAX];
};

/* A scan in progress: the checks, and how far it came. */
struct peer_scan {
    const uint8_t *from; /* NULL: from the end that it starts at */
    bool back;
    size_t rows;      /* wanted */
    size_t seen;      /* out */
    size_t value_len; /* every row's */
    uint8_t last[RIG_KEY];
};

enum peer_ability {
    PEER_CAN_BATCH = 1,  /* many records in one atomic commit */
    PEER_CAN_BACK = 2,   /* scan from high to low */
    PEER_CAN_SYNC = 4,   /* a commit that survives a power cut */
    PEER_CAN_REOPEN = 8, /* what was there at close is there at open */
};

struct peer;
struct peer_session;

struct peer_kind {
    const char *name;
    unsigned abilities;
    const char *multi_get_by; /* "one call", "one read transaction", ... */
    const char *settled;      /* what settle() does */
    void (*describe)(FILE *to, const struct peer_config *config);
    struct peer *(*open)(const struct peer_config *config);
    void (*close)(struct peer *peer);
    /* Bring what was written to where it will stay. */
    void (*settle)(struct peer *peer);
    struct peer_session *(*session_open)(struct peer *peer);
    void (*session_close)(struct peer_session *session);

    /* One commit each.  get: false when there is none. */
    bool (*get)(struct peer_session *session, const uint8_t *key,
                uint8_t *value);
    /* EXISTS: the caller knows that the key is there, or that it is not. */
    void (*put)(struct peer_session *session, const uint8_t *key,
                const uint8_t *value, bool exists);
    void (*erase)(struct peer_session *session, const uint8_t *key);
    /* N records, at most PEER_BATCH, in one commit where the engine can. */
    void (*put_many)(struct peer_session *session,
                     const struct peer_record *records, size_t n, bool exist);
    /* The values of N keys into their records; how many there were. */
    size_t (*get_many)(struct peer_session *session,
                       struct peer_record *records, size_t n);
    void (*scan)(struct peer_session *session, struct peer_scan *scan);
};

/* The length of the values of a session, which each adapter has from its
 * configuration, is checked by these. */
static inline void peer_value_copy(const char *engine, uint8_t *to,
                                   const void *from, size_t from_len,
                                   size_t value_len)
{
    if (from_len != value_len)
        rig_die("%s: a value of %zu bytes, not %zu", engine, from_len,
                value_len);
    memcpy(to, from, from_len);
}

/* Look at one row of a scan; false when it was the last one wanted. */
static inline bool peer_scan_row(struct peer_scan *scan, const void *key,
                                 size_t key_len, const void *value,
                                 size_t value_len)
{
    /* Key bytes 8..15 are repeated at the head of the value. */
    if (key_len != RIG_KEY || value_len != scan->value_len ||
        memcmp((const uint8_t *)key + 8, value, 8) != 0)
        rig_die("a row that holds what is not its own");
    if (scan->seen && (memcmp(scan->last, key, RIG_KEY) < 0) == scan->back)
        rig_die("rows out of order");
    memcpy(scan->last, key, RIG_KEY);
    return ++scan->seen < scan->rows;
}

/* Those that this program was built with; ends with NULL. */
extern const struct peer_kind *const peer_kinds[];

extern const struct peer_kind peer_bftree, peer_sqlite, peer_lmdb, peer_rocksdb,
    peer_leveldb, peer_wiredtiger, peer_bf_tree_rust;

#ifdef __cplusplus
}
#endif

#endif
