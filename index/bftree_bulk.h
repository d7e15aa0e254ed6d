/*
 * Loads of sorted records: into an empty tree at the speed of the disk, and into one
 * that has records as batches.
 */
#ifndef BFTREE_BULK_H
#define BFTREE_BULK_H

#include "bftree.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bft_bulk_options {
    size_t size;
    uint32_t fill_percent; /* of each leaf, 10..100; 0: 100.  Full leaves are
                              least to store and to read; room in them takes
                              later writes between the keys without splits */
} bft_bulk_options;
/* What a bulk load asks for: all zeros when it does. */
typedef struct bft_bulk_record {
    bft_slice key, value; /* borrowed until the next one is asked for */
    /* Or a value of BYTES bytes that READ hands over as bft_put_stream() has
     * it, with the CTX of the load, before the next record is asked for. */
    uint64_t bytes;
    bft_status (*read)(void *ctx, void *buf, size_t len);
    /* As of bft_put_until(), but 0: as long from now as the tree's ttl_ms. */
    uint64_t expires_ms;
} bft_bulk_record;
/*
 * Fill an empty tree (newly made, truncated, or with all its records removed)
 * with the records that NEXT hands over, ascending by key, until it answers
 * BFT_NOT_FOUND.  *RECORDS (may be NULL) is how many.
 *
 * Leaves are packed and written side by side in the order of keys, past the log
 * and past memory.  One step to others and to a crash: first the tree is empty,
 * then it has all of them, and that survives power loss when the call returns,
 * whatever the database's durability.
 *
 * Others may use the tree meanwhile.  If it has a record at the end, the load
 * fails; truncated or renamed, it is loaded all the same.  A tree that has
 * records is not loaded at all: that is bft_bulk_merge().
 *
 * A failure of NEXT or READ abandons the load and is what it returns.  Both may
 * use the library and this tree, but not close the database.  That NEXT is
 * asked for a record tells how far the load is.  A load of none changes
 * nothing.
 *
 * Memory:  records of one leaf, and one write of 256 KiB or 1/16 of the budget
 *          at most; page table and inner nodes, as for any tree; and until the
 *          end 16 to 32 bytes for each leaf, 8 to 16 for each 508 KiB, or part
 *          of it, of a value outside a leaf.  Counted in the budget, where
 *          pages give way; half of what is for leaves is not any more while the
 *          last checkpoint runs.
 * Threads: any number of loads at a time, and all else beside them.  Ends with
 *          a checkpoint; while that runs no other does, and no tree is changed.
 * Errors:  on failure the tree is as without the load, and what was written is
 *          free again, at once or two checkpoints later.
 *          BFT_EXISTS: the tree has a record, at the beginning or the end.
 *          BFT_INVALID: a key that is not above the one before it, or none;
 *          BFT_TOO_BIG: one that is too long for the tree, or a value over
 *          BFT_VALUE_MAX; bft_last_error() counts records from 1.
 *          BFT_GONE: the tree was dropped.  BFT_BUSY: others never stop writing
 *          and removing records.  BFT_NO_SPACE, BFT_IO, BFT_NO_MEMORY,
 *          BFT_READ_ONLY.
 *          BFT_POISONED, or BFT_IO or BFT_NO_SPACE of the log at the very end:
 *          it is loaded, but may not survive; bft_get() tells.
 */
BFT_API BFT_MUST_CHECK bft_status
bft_bulk_load(bft_tree *tree, const bft_bulk_options *options,
              bft_status (*next)(void *ctx, bft_bulk_record *record), void *ctx,
              uint64_t *records);

/*
 * Put the records that NEXT hands over, as to bft_bulk_load(), into a tree that may
 * have records.  Of a key that is there the new value wins.  *RECORDS (may be NULL)
 * is how many were put, also when the call fails.
 *
 * Not one step but many: at most 512 records and about 64 KiB (1/64 of a budget
 * below 4 MiB) at a time, ascending, each such batch visible at once and surviving
 * as a whole.  So others may see, and a crash or a failure leaves, the first ones
 * of what was handed over.  Durable like bft_put(): with BFT_SYNC all that was put
 * is when the call returns, also when it fails, and one sync serves for all but
 * values of more than so many bytes, and streamed ones outside a leaf, which have
 * one each.  That holds also when there was none.
 *
 * It costs what such batches cost: the log takes each record, and each leaf that
 * gets some is written anew.  Records between others take the longer, the fewer of
 * them fall into one leaf.
 *
 * Others may use the tree meanwhile.  To snapshots, cursors and feeds it is as so
 * many commits.  A failure of NEXT or READ ends the call and is what it returns,
 * unless the sync fails, too; what waits for its batch is dropped.
 *
 * Memory:  a batch, about 1/64 of the budget at most, outside of it.
 * Threads: any number of calls at a time, and all else beside them.
 * Errors:  as of bft_put_stream().  BFT_INVALID: also a key that is not above the
 *          one before it; bft_last_error() counts records from 1.
 */
BFT_API BFT_MUST_CHECK bft_status bft_bulk_merge(
    bft_tree *tree, bft_status (*next)(void *ctx, bft_bulk_record *record),
    void *ctx, uint64_t *records);

#ifdef __cplusplus
}
#endif

#endif
