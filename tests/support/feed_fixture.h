/*
 * Short forms of what tests of feeds ask.  All of them assert that the calls
 * they make succeed.
 */
#ifndef FEED_FIXTURE_H
#define FEED_FIXTURE_H

#include "bftree_feed.h"
#include "engine_fixture.h"

bft_slice feed_text(const char *chars);
bool feed_is(bft_slice a, const char *b);

/* A database that checkpoints only when told to; _durable: each write is synced
 * at once, _idle: nothing is, and nothing runs in the background. */
struct engine_fixture *feed_open_durable(int backend);
struct engine_fixture *feed_open_idle(int backend);

bft_feed *feed_at(struct engine_fixture *f, uint64_t lsn);
/* The next commit; or the one change of the next commit, which is an OP. */
bft_commit feed_next_commit(bft_feed *feed);
const bft_change *feed_next_change(bft_feed *feed, bft_change_op op);
/* There is no more by now. */
void feed_at_end(bft_feed *feed);

/* COUNT records of some 1000 bytes, with keys that are numbers. */
void feed_put_some(bft_tree *tree, unsigned from, unsigned count);
/* Put "k", of a tree that is ARG. */
void feed_put_k(void *arg);
uint32_t feed_tree_id(bft_tree *tree);

#endif
