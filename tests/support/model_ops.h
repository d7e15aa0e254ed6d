/* What a model run does: each draws its arguments, and asserts its answers. */
#ifndef MODEL_OPS_H
#define MODEL_OPS_H

#include "model_run.h"

void model_op_put(void);
void model_op_insert(void);
/* Expecting what is there, or something near to it; sometimes to remove it. */
void model_op_replace(void);
void model_op_delete(void);
void model_op_get(void);
void model_op_get_range(void);
void model_op_get_small(void);
/* Many at once, some twice, some absent. */
void model_op_multi_get(void);
void model_op_huge(void);
void model_op_stream(void);

/* Over any trees; a key may come twice. */
void model_op_batch(void);
/* Neighbours: many more bytes than the leaves they fall into can hold. */
void model_op_batch_dense(void);
void model_op_batch_too_big(void);

/* Of a cursor that is open at P. */
void model_place_seek(struct model_place *p);
void model_place_step(struct model_place *p, bool forward);
/* What it is on is what it was on when it came there. */
void model_place_again(struct model_place *p);
void model_place_bound(struct model_place *p);
void model_place_close(struct model_place *p);

/* Seeks and steps, with writes of the same thread between. */
void model_op_cursor(void);
void model_op_instant(void);
void model_op_range(void);
/* Mostly of a few neighbours. */
void model_op_delete_range(void);

/* All of a tree. */
void model_check_scan(struct model_slot *s, bool forward);

/* Snapshots: at most MODEL_PASTS, each beside what everything was. */
void model_op_snapshot_take(void);
/* With one of those that are open, if the draw finds one: a get, often of a
 * record that is just being changed; a cursor, which stays open from one
 * operation to the next and may do so longer than the snapshot; what is refused
 * meanwhile; the release. */
void model_op_past(void);
/* True: none is open, and STATUS is BFT_OK.  False: one is, and STATUS, of what
 * has to wait until there is none, is BFT_BUSY.  Anything else fails. */
bool model_done_alone(bft_status status);
bool model_past_is_open(void);
/* Around a close: cursors, and some of the snapshots, end before it, the others,
 * which are of no use any more, behind it. */
void model_pasts_closing(void);
void model_pasts_closed(void);

/* A transaction from begin to end, with other writes beside it. */
void model_op_txn(void);

/* Of a tree that is empty, or emptied for it. */
void model_op_load(void);
/* The same of the one with the fewest records, if they are few, while there is a
 * snapshot. */
void model_op_load_refused(void);
/* Into one that has records. */
void model_op_merge(void);
/* Into memory, while more is written; it is opened and compared. */
void model_op_backup(void);

#endif
