/*
 * What a caller makes of a feed: a copy of all trees, by applying each commit
 * to plain sorted arrays, to be compared with the database.
 */
#ifndef FEED_COPY_H
#define FEED_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bftree.h"
#include "bftree_feed.h"

struct feed_record {
    uint8_t *bytes; /* key, then value */
    size_t key_len, value_len;
    bool unknown; /* the value was replaced before it was read: a later commit
                     must tell by what */
};

struct feed_tree {
    uint32_t id;
    char name[256];
    struct feed_record *record; /* ascending */
    size_t count, cap;
};

/* All zeros: of an empty database.  By one thread at a time. */
struct feed_copy {
    struct feed_tree *tree;
    size_t trees;
    uint64_t lsn; /* of the last commit applied */
    uint64_t commits, changes, passed_over, unread;
    char error[400]; /* the first thing that was wrong; empty: none */
};

/* Apply COMMIT, which FEED gave just now.  False: see error. */
bool feed_copy_apply(struct feed_copy *copy, bft_feed *feed,
                     const bft_commit *commit);
/* All that FEED has by now. */
bool feed_copy_catch_up(struct feed_copy *copy, bft_feed *feed);
/* Is it what DB, which nobody writes, holds? */
bool feed_copy_is(struct feed_copy *copy, bft_db *db);
/* A second one, as FROM is now. */
void feed_copy_clone(struct feed_copy *copy, const struct feed_copy *from);
/* NULL: there is none. */
struct feed_tree *feed_copy_tree(struct feed_copy *copy, uint32_t id);
const struct feed_record *feed_copy_find(const struct feed_tree *tree,
                                         bft_slice key);
void feed_copy_free(struct feed_copy *copy);

#endif
