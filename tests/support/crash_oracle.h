/*
 * What a database must be after a crash, kept outside of it: every commit with
 * its number and all that it changed, and what was acknowledged.  The state
 * found must be that after some prefix of the commits, with every acknowledged
 * one in it.
 */
#ifndef CRASH_ORACLE_H
#define CRASH_ORACLE_H

#include <stdatomic.h>

#include "bftree.h"

enum { CRASH_TREES = 4, CRASH_KEY_MAX = 64 };

/* An item is a key of a tree, or (key = keys) the tree itself. */
struct crash_entry {
    uint64_t commit; /* its number */
    uint64_t salt;   /* of the life that wrote it */
    int32_t before;  /* the item's entry before this one, or -1 */
    uint32_t item;
    uint32_t len; /* of the value */
    bool present;
};

struct crash_oracle {
    unsigned keys; /* of each tree */
    uint64_t salt; /* of what is written now */
    struct crash_entry *entry;
    size_t count, cap;
    int32_t *last; /* of each item */
    /* Another thread may read these. */
    _Atomic uint64_t issued;   /* commits begun: the number of the last */
    _Atomic uint64_t buffered; /* that one and all before survive a kill */
    _Atomic uint64_t synced;   /* ... and a power cut */
};

struct crash_oracle *crash_oracle_make(unsigned keys);
void crash_oracle_free(struct crash_oracle *oracle);
/* ORACLE as it was after commit CUT, all of which was acknowledged; what is
 * written from now on differs from all that was written before. */
struct crash_oracle *crash_oracle_cut(const struct crash_oracle *oracle,
                                      uint64_t cut);

/* --- commits: begin one before the call, then say what it changes ---------- */

void crash_begin(struct crash_oracle *oracle);
void crash_put(struct crash_oracle *oracle, unsigned tree, unsigned key,
               size_t len);
void crash_delete(struct crash_oracle *oracle, unsigned tree, unsigned key);
void crash_create_tree(struct crash_oracle *oracle, unsigned tree);
void crash_drop_tree(struct crash_oracle *oracle, unsigned tree);
void crash_truncate_tree(struct crash_oracle *oracle, unsigned tree);
/* All commits so far were acknowledged so. */
void crash_acknowledge(struct crash_oracle *oracle, bft_durability durability);

/* --- what is written ------------------------------------------------------- */

const char *crash_tree_name(unsigned tree);
bft_slice crash_key(unsigned key, uint8_t buf[CRASH_KEY_MAX]);
/* Which one it may be: anything when it is none. */
unsigned crash_key_number(bft_slice key);
/* The value that the commit under way puts there. */
void crash_value(const struct crash_oracle *oracle, unsigned tree, unsigned key,
                 void *buf, size_t len);
/* Is it there, after the last commit? */
bool crash_has_tree(const struct crash_oracle *oracle, unsigned tree);
bool crash_has(const struct crash_oracle *oracle, unsigned tree, unsigned key);

/* --- what is found --------------------------------------------------------- */

/* Read all of DB.  True: it is as after commit *CUT, MUST <= *CUT <= ISSUED.
 * Else TEXT says what is wrong. */
bool crash_check(const struct crash_oracle *oracle, bft_db *db, uint64_t must,
                 uint64_t issued, uint64_t *cut, char *text, size_t text_len);

#endif
