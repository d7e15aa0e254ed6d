/*
 * What clients of a simulation know: of each one its commits, in its order,
 * what they changed and when they were under way; and which of them a crash may
 * not take away.  A value is known by its number, from which its bytes follow.
 */
#ifndef DST_ORACLE_H
#define DST_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bftree.h"

enum {
    DST_CLIENTS = 6,
    DST_TREES = 3, /* the last one's records expire */
    DST_TTL_TREE = 2,
    DST_NUMBERS = 96, /* keys of a client in each tree, at most */
    DST_KEYS = DST_TREES * DST_NUMBERS,
    DST_VALUE_MAX = 24 << 10,
    DST_KEY_BYTES = 24,
};

/* --- keys and values --------------------------------------------------------- */

/* Key K of a client: tree K / DST_NUMBERS.  In the first tree those of all
 * clients alternate, in the others each has a range. */
bft_slice dst_key(unsigned client, unsigned k, char buf[DST_KEY_BYTES]);
/* The same by its tree and its number there; one number more is the end of the
 * client's range. */
bft_slice dst_key_at(unsigned client, unsigned tree, unsigned n,
                     char buf[DST_KEY_BYTES]);
/* Whose key it is; false: nobody's. */
bool dst_key_of(bft_slice key, unsigned tree, unsigned *client, unsigned *k);

/* The value number ID, made for tree TREE. */
size_t dst_value(uint64_t id, unsigned tree, void *buf);
/* Its number; 0: these are no value's bytes. */
uint64_t dst_value_id(unsigned tree, const void *bytes, size_t len);

/* --- what is known ------------------------------------------------------------- */

struct dst_change {
    unsigned key;
    uint64_t id; /* 0: removed */
};

enum { DST_CHANGES = DST_NUMBERS }; /* a deletion of a range */

struct dst_commit {
    uint64_t begun, ended; /* moments; UINT64_MAX: has not */
    unsigned count;
    struct dst_change change[DST_CHANGES];
};

/* Of one client, since the database was opened. */
struct dst_book {
    uint64_t base[DST_KEYS]; /* what was there then */
    uint64_t now[DST_KEYS];  /* after the last commit */
    struct dst_commit *commit;
    size_t count, cap;
    size_t buffered, synced; /* those that survive a kill, a power cut */
};

struct dst_oracle {
    unsigned clients, numbers;
    struct dst_book book[DST_CLIENTS];
    uint64_t moment, last_id;
    uint64_t *expires; /* [id]: when, 0: never */
    size_t expires_cap;
};

void dst_oracle_init(struct dst_oracle *o, unsigned clients, unsigned numbers);
void dst_oracle_free(struct dst_oracle *o);

/* A new value's number. */
uint64_t dst_new_id(struct dst_oracle *o, uint64_t expires_ms);

/* Begin a commit of CLIENT; then say what it changes, at most DST_CHANGES; then
 * what became of it. */
struct dst_commit *dst_begin(struct dst_oracle *o, unsigned client);
void dst_note(struct dst_commit *commit, unsigned key, uint64_t id);
/* COUNT commits were accepted, the newest ones of CLIENT. */
void dst_accepted(struct dst_oracle *o, unsigned client, size_t count);
/* It was refused, and nothing has changed. */
void dst_refused(struct dst_oracle *o, unsigned client);
/* All that was accepted before MOMENT survives what DURABILITY says; and all of
 * CLIENT, if it is one. */
void dst_survives(struct dst_oracle *o, uint64_t moment,
                  bft_durability durability, int client);

/* What a crash at this moment may leave. */
struct dst_cut {
    size_t buffered[DST_CLIENTS], synced[DST_CLIENTS], issued[DST_CLIENTS];
};
void dst_cut_now(const struct dst_oracle *o, struct dst_cut *cut);
/* All that was accepted, no more and no less. */
void dst_cut_all(const struct dst_oracle *o, struct dst_cut *cut);

/* --- what is found ------------------------------------------------------------- */

struct dst_found {
    uint64_t id[DST_CLIENTS][DST_KEYS];
    uint64_t from_ms, to_ms; /* what time it was when that was read */
};

/*
 * Is FOUND what CUT may leave: of each client all of its first commits, those
 * that survive among them; and none without those that had ended when it began?
 * KILLED: all crashes since were of the program alone.
 */
bool dst_check(const struct dst_oracle *o, const struct dst_cut *cut,
               bool killed, const struct dst_found *found, char *text,
               size_t len);
/* From here on FOUND is what there is. */
void dst_rebase(struct dst_oracle *o, const struct dst_found *found);

/* May a read between two times give ID for a record that is EXPECTED? */
bool dst_may_be(const struct dst_oracle *o, uint64_t expected, uint64_t id,
                uint64_t from_ms, uint64_t to_ms);

#endif
