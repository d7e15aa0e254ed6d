/*
 * What frames of the log hold: the one place that makes and reads their bytes,
 * for writers, recovery and feeds.
 *
 * A WRITE frame is a sequence of records: le32 tree id, op, flags, le16 key
 * length, le32 value length, key, value.  All of a frame is applied or none.
 * Flag 1: the value is a reference to a large one; 2: it begins with a stamp.
 *
 * A RANGE frame deletes all records of a range: le32 tree id, le16 length of the
 * lower bound, le16 of the upper one, the bounds.  A CLEAR frame begins in the same
 * way, with a part of such a range that nothing is left in behind it; records as of
 * a WRITE frame, which delete what was left, follow.
 *
 * A frame of a tree: le32 id, le32 leaf bytes (0 of a drop); of a truncation
 * and of a load le32 id of the tree that goes, the first id being its
 * successor's; of a load le64 sequence of the first superblock whose image has
 * the successor; of a renaming one byte with the length of the old name, and
 * that; where the leaf bytes have bit 31, which does not belong to them, le64
 * ttl_ms; then the name.
 */
#include "expiry.h"
#include "tomb.h"

enum { RECORD_HEAD = 12, TREE_HEAD = 8, RANGE_HEAD = 8 };
#define TREE_EXPIRES UINT32_C(0x80000000)

/* --- records ------------------------------------------------------------- */

size_t bfti_frame_record_size(const struct bfti_frame_record *record)
{
    return RECORD_HEAD + record->key.len + record->value.len;
}

uint8_t *bfti_frame_record_put(uint8_t *to,
                               const struct bfti_frame_record *record)
{
    le32 tree_id = le32_of(record->tree_id);
    le16 key_len = le16_of((uint16_t)record->key.len);
    le32 value_len = le32_of((uint32_t)record->value.len);
    memcpy(to, &tree_id, 4);
    to[4] = record->op;
    to[5] = record->flags;
    memcpy(to + 6, &key_len, 2);
    memcpy(to + 8, &value_len, 4);
    to += RECORD_HEAD;
    memcpy(to, record->key.data, record->key.len);
    to += record->key.len;
    if (record->value.len)
        memcpy(to, record->value.data, record->value.len);
    return to + record->value.len;
}

const char *bfti_frame_record_get(const uint8_t **from, const uint8_t *end,
                                  struct bfti_frame_record *record)
{
    const uint8_t *at = *from;
    le32 tree_id, value_len;
    le16 key_len;
    if (end - at < RECORD_HEAD)
        return "a record's head is cut off";
    memcpy(&tree_id, at, 4);
    memcpy(&key_len, at + 6, 2);
    memcpy(&value_len, at + 8, 4);
    record->tree_id = le32_get(tree_id);
    record->op = at[4];
    record->flags = at[5];
    record->key.len = le16_get(key_len);
    record->value.len = le32_get(value_len);
    at += RECORD_HEAD;
    if ((size_t)(end - at) < record->key.len ||
        (size_t)(end - at) - record->key.len < record->value.len)
        return "a record runs past its frame";
    if (record->key.len == 0 || record->key.len > BFT_KEY_MAX)
        return "a record's key has a wrong length";
    if (!bfti_op_is_dirty(record->op))
        return "a record has an unknown operation";
    if ((record->flags & BFTI_REC_LARGE) &&
        record->value.len != sizeof(struct bfti_large))
        return "a large value's reference has a wrong length";
    record->key.data = at;
    record->value.data = at + record->key.len;
    *from = at + record->key.len + record->value.len;
    return NULL;
}

bft_status bfti_frame_each(
    const char *dir, uint64_t lsn, const void *payload, size_t len,
    bft_status (*each)(void *arg, const struct bfti_frame_record *record),
    void *arg)
{
    const uint8_t *at = payload, *end = at + len;
    bft_status status = BFT_OK;
    while (status == BFT_OK && at < end) {
        struct bfti_frame_record record;
        const char *wrong = bfti_frame_record_get(&at, end, &record);
        if (wrong)
            return bfti_fail(BFT_CORRUPT, "%s: log frame at %llu: %s", dir,
                             (unsigned long long)lsn, wrong);
        status = each(arg, &record);
    }
    return status;
}

/* --- ranges --------------------------------------------------------------- */

size_t bfti_frame_range_size(const struct bfti_frame_range *range)
{
    return RANGE_HEAD + range->low.len + range->high.len;
}

uint8_t *bfti_frame_range_put(uint8_t *to, const struct bfti_frame_range *range)
{
    le32 tree_id = le32_of(range->tree_id);
    le16 len[2] = {le16_of((uint16_t)range->low.len),
                   le16_of((uint16_t)range->high.len)};
    memcpy(to, &tree_id, sizeof(tree_id));
    memcpy(to + sizeof(tree_id), len, sizeof(len));
    to += RANGE_HEAD;
    if (range->low.len)
        memcpy(to, range->low.data, range->low.len);
    to += range->low.len;
    if (range->high.len)
        memcpy(to, range->high.data, range->high.len);
    return to + range->high.len;
}

bft_status bfti_frame_range_get(const void *payload, size_t len,
                                struct bfti_frame_range *range)
{
    const uint8_t *at = payload;
    le32 tree_id;
    le16 bound[2];
    if (len >= RANGE_HEAD) {
        memcpy(&tree_id, at, sizeof(tree_id));
        memcpy(bound, at + sizeof(tree_id), sizeof(bound));
        at += RANGE_HEAD;
        len -= RANGE_HEAD;
        range->tree_id = le32_get(tree_id);
        range->low = (bft_slice){at, le16_get(bound[0])};
        range->high = (bft_slice){at + range->low.len, le16_get(bound[1])};
        if (range->low.len <= BFTI_KEY_MAX && range->high.len <= BFTI_KEY_MAX &&
            range->low.len + range->high.len <= len) {
            range->behind = at + range->low.len + range->high.len;
            range->behind_len = len - range->low.len - range->high.len;
            return BFT_OK;
        }
    }
    memset(range, 0, sizeof(*range));
    return bfti_fail(BFT_CORRUPT, "the frame of a range has %zu bytes", len);
}

/* --- trees --------------------------------------------------------------- */

/* Bytes between the head and the name. */
static size_t between(uint8_t type, const struct bfti_frame_tree *tree)
{
    switch (type) {
    case BFTI_FRAME_TRUNCATE:
        return sizeof(le32);
    case BFTI_FRAME_LOAD:
        return sizeof(le32) + sizeof(le64);
    case BFTI_FRAME_RENAME:
        return 1 + tree->old_name.len;
    default:
        return 0;
    }
}

bft_status bfti_frame_tree_make(struct bfti_wal *wal, uint8_t type,
                                const struct bfti_frame_tree *tree,
                                struct bfti_frame **frame)
{
    le32 head[2] = {
        le32_of(tree->id),
        le32_of(tree->leaf_bytes | (tree->ttl_ms ? TREE_EXPIRES : 0))};
    le32 old_id = le32_of(tree->old_id);
    le64 sequence = le64_of(tree->sequence), ttl_ms = le64_of(tree->ttl_ms);
    size_t more = between(type, tree), ttl = tree->ttl_ms ? sizeof(ttl_ms) : 0;
    void *payload;
    uint8_t *to;
    bft_status status = bfti_frame_create(
        wal, type, TREE_HEAD + more + ttl + tree->name.len, frame, &payload);
    if (status != BFT_OK)
        return status;
    to = payload;
    memcpy(to, head, TREE_HEAD);
    to += TREE_HEAD;
    if (type == BFTI_FRAME_TRUNCATE || type == BFTI_FRAME_LOAD) {
        memcpy(to, &old_id, sizeof(old_id));
        if (type == BFTI_FRAME_LOAD)
            memcpy(to + sizeof(old_id), &sequence, sizeof(sequence));
    } else if (type == BFTI_FRAME_RENAME) {
        to[0] = (uint8_t)tree->old_name.len;
        memcpy(to + 1, tree->old_name.data, tree->old_name.len);
    }
    memcpy(to + more, &ttl_ms, ttl);
    memcpy(to + more + ttl, tree->name.data, tree->name.len);
    bfti_frame_seal(wal, *frame);
    return BFT_OK;
}

bft_status bfti_frame_tree_get(uint8_t type, const void *payload, size_t len,
                               struct bfti_frame_tree *tree)
{
    const uint8_t *at = payload, *end = at + len;
    le32 head[2], old_id;
    le64 sequence, ttl_ms;
    memset(tree, 0, sizeof(*tree));
    if (len < TREE_HEAD)
        goto wrong;
    memcpy(head, at, TREE_HEAD);
    tree->id = le32_get(head[0]);
    tree->leaf_bytes = le32_get(head[1]) & ~TREE_EXPIRES;
    at += TREE_HEAD;
    if (type == BFTI_FRAME_TRUNCATE || type == BFTI_FRAME_LOAD) {
        if ((size_t)(end - at) < between(type, tree))
            goto wrong;
        memcpy(&old_id, at, sizeof(old_id));
        tree->old_id = le32_get(old_id);
        at += sizeof(old_id);
        if (type == BFTI_FRAME_LOAD) {
            memcpy(&sequence, at, sizeof(sequence));
            tree->sequence = le64_get(sequence);
            at += sizeof(sequence);
        }
    } else if (type == BFTI_FRAME_RENAME) {
        if (at == end || end - at <= at[0])
            goto wrong;
        tree->old_name = (bft_slice){at + 1, at[0]};
        at += 1 + tree->old_name.len;
    }
    if (le32_get(head[1]) & TREE_EXPIRES) {
        if ((size_t)(end - at) < sizeof(ttl_ms))
            goto wrong;
        memcpy(&ttl_ms, at, sizeof(ttl_ms));
        tree->ttl_ms = le64_get(ttl_ms);
        at += sizeof(ttl_ms);
    }
    tree->name = (bft_slice){at, (size_t)(end - at)};
    if (tree->name.len > 0 && tree->name.len <= BFTI_NAME_MAX)
        return BFT_OK;

wrong:
    memset(tree, 0, sizeof(*tree));
    return bfti_fail(BFT_CORRUPT, "a tree's frame has %zu bytes", len);
}

void bfti_frame_name(bft_slice from, char name[BFTI_NAME_MAX + 1])
{
    memcpy(name, from.data, from.len);
    name[from.len] = 0;
}
