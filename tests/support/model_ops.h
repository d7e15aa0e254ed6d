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

/* Seeks and steps, with writes of the same thread between. */
void model_op_cursor(void);
void model_op_range(void);
/* Mostly of a few neighbours. */
void model_op_delete_range(void);

/* All of a tree, both ways. */
void model_check_scans(struct model_slot *s);

#endif
