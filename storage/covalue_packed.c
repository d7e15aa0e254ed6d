/*
 * Transactions handed over as bytes: the one parser of the packing that
 * bftree_stores.h describes.
 */
#include <string.h>

#include "storage/covalue_internal.h"

struct packed_head {
    uint8_t kind;   /*  0 */
    uint8_t flags;  /*  1 */
    le16 id_len;    /*  2 */
    le32 value_len; /*  4 */
    le64 row;       /*  8 */
    le64 idx;       /* 16 */
};
_Static_assert(sizeof(struct packed_head) == 24, "as published");
_Static_assert(_Alignof(struct packed_head) == 1, "readable at any offset");

/* Of SESSION and LOCK only. */
struct packed_more {
    le64 bytes;      /* 24 */
    le64 expect_row; /* 32 */
    le64 expect_idx; /* 40 */
};
_Static_assert(sizeof(struct packed_more) == 24, "as published");

/* Take LEN bytes off *LEFT; NULL when it has fewer. */
static const void *take(bft_slice *left, size_t len)
{
    const void *at = left->data;

    if (left->len < len)
        return NULL;
    *left = (bft_slice){(const uint8_t *)at + len, left->len - len};
    return at;
}

/* Take one op off the front of *LEFT.  It borrows the bytes. */
static bool unpack(bft_slice *left, bft_covalue_op *op)
{
    struct packed_head head;
    const void *at = take(left, sizeof(head));

    if (at == NULL)
        return false;
    memcpy(&head, at, sizeof(head));
    memset(op, 0, sizeof(*op));
    op->kind = (bft_covalue_op_kind)head.kind;
    op->flags = head.flags;
    op->row = le64_get(head.row);
    op->idx = le64_get(head.idx);
    if (op->kind == BFT_OP_SESSION || op->kind == BFT_OP_LOCK) {
        struct packed_more more;

        at = take(left, sizeof(more));
        if (at == NULL)
            return false;
        memcpy(&more, at, sizeof(more));
        op->bytes = le64_get(more.bytes);
        op->expect_row = le64_get(more.expect_row);
        op->expect_idx = le64_get(more.expect_idx);
    }
    op->id.len = le16_get(head.id_len);
    op->id.data = take(left, op->id.len);
    if (op->id.data == NULL)
        return false;
    op->value.len = le32_get(head.value_len);
    op->value.data = take(left, op->value.len);
    return op->value.data != NULL;
}

static bft_status malformed(size_t at)
{
    return bfti_fail(BFT_INVALID,
                     "covalue store: the packed op at byte %zu is cut short",
                     at);
}

static bft_status count_ops(bft_slice packed, size_t *count)
{
    bft_slice left = packed;
    bft_covalue_op op;

    for (*count = 0; left.len != 0; ++*count) {
        size_t at = packed.len - left.len;

        if (!unpack(&left, &op))
            return malformed(at);
    }
    return BFT_OK;
}

static void rows_copy(const bft_covalue_op *ops, size_t count, uint64_t *rows,
                      size_t rows_max)
{
    size_t n = 0;

    for (size_t i = 0; i < count && n < rows_max; i++)
        if (ops[i].kind == BFT_OP_COVALUE || ops[i].kind == BFT_OP_SESSION)
            rows[n++] = ops[i].result;
}

bft_status bft_covalue_apply_packed(bft_covalue_store *store,
                                    const void *packed, size_t len,
                                    bft_durability durability, uint64_t *rows,
                                    size_t rows_max,
                                    bft_covalue_applied *applied)
{
    enum { FEW = 16 };
    bft_covalue_op few[FEW];
    bft_covalue_op *ops = few;
    bft_slice left = {packed, len};
    size_t count;
    bft_status status;

    if (applied != NULL)
        *applied = (bft_covalue_applied){0, 0, 0};
    status = bfti_covalue_gate(store);
    if (status != BFT_OK)
        return status;
    if (rows == NULL && rows_max != 0)
        return bfti_fail(BFT_INVALID, "covalue store: an output is NULL");
    if (rows_max != 0)
        memset(rows, 0, rows_max * sizeof(*rows));
    if (packed == NULL && len != 0)
        return bfti_fail(BFT_INVALID, "covalue store: packed ops are NULL");
    status = count_ops(left, &count);
    if (status != BFT_OK)
        return status;
    if (count > SIZE_MAX / sizeof(*ops))
        return bfti_fail(BFT_TOO_BIG, "covalue store: %zu packed ops", count);
    if (count > FEW)
        ops = bfti_alloc(store->env, count * sizeof(*ops));
    if (ops == NULL)
        return bfti_fail(BFT_NO_MEMORY, "covalue store: no memory for %zu ops",
                         count);
    for (size_t i = 0; i < count; i++)
        (void)unpack(&left, &ops[i]);
    status = bft_covalue_apply(store, ops, count, durability, applied);
    rows_copy(ops, count, rows, rows_max);
    if (ops != few)
        bfti_free(store->env, ops);
    return status;
}
