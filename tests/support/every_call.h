/*
 * Every call of the engine's door, made where each must fail with the same
 * status and leave a text of its own that says why: for a handle that is not to
 * be used, a disk that refuses, a database that cannot be written.
 *
 * They assert nothing, so that a forked child can make them too: what is wrong
 * is printed and counted.
 */
#ifndef TEST_EVERY_CALL_H
#define TEST_EVERY_CALL_H

#include <stdint.h>

#include "bftree_backup.h"
#include "bftree_bulk.h"

struct calls {
    bft_status expected;
    const char *words; /* in the text of each; NULL: any text */
    unsigned wrong;    /* so many had another status or text */
};

/* Did a call answer STATUS as expected?  MADE is the call's text; before it
 * calls_stale() leaves one that it must replace. */
void calls_stale(void);
void calls_note(struct calls *c, bft_status status, const char *made);
#define CALL(c, call) (calls_stale(), calls_note(c, call, #call))

/* Their other arguments are fine. */
void every_call_on_db(struct calls *c, bft_db *db);
void every_call_on_tree(struct calls *c, bft_tree *tree);
void every_call_on_batch(struct calls *c, bft_batch *batch, bft_tree *tree);
void every_call_on_cursor(struct calls *c, bft_cursor *cursor);
void every_call_on_snapshot(struct calls *c, bft_snapshot *snapshot,
                            bft_tree *tree);
/* TXN has ended when it returns. */
void every_call_on_txn(struct calls *c, bft_txn *txn, bft_tree *tree);

/* Each reads the leaf of KEY, which has a record that is alone in its tree. */
void every_read(struct calls *c, bft_tree *tree, bft_slice key);
/* The same of a tree whose records expire. */
void every_expiring_read(struct calls *c, bft_tree *tree, bft_slice key);
void every_past_read(struct calls *c, bft_snapshot *snapshot, bft_txn *txn,
                     bft_tree *tree, bft_slice key);
void every_move(struct calls *c, bft_cursor *cursor, bft_slice key);
/* CURSOR is on a large value. */
void every_fetch(struct calls *c, bft_cursor *cursor);

/* Calls that write the tree, and those that make something survive, as a commit
 * of LSN is to. */
void every_write(struct calls *c, bft_tree *tree);
void every_expiring_write(struct calls *c, bft_tree *tree);
void every_batch_commit(struct calls *c, bft_batch *batch);
void every_sync(struct calls *c, bft_db *db, uint64_t lsn);
/* With trees "dropped", "emptied" and "renamed"; makes "new". */
void every_tree_change(struct calls *c, bft_db *db);

#endif
