/*
 * Lists of ids: all CoValues by row id, those that wait for erasure, those that
 * some peer lacks something of.
 */
#include <string.h>

#include "storage/covalue_internal.h"
#include "storage/covalue_pack.h"

/* A list under way. */
struct listing {
    struct bfti_pack pack;
    bft_id_list list;
    size_t text; /* where the ids begin */
};

/* What is to be listed: the scan that is there for it takes what it knows. */
struct extract {
    enum bfti_cotree tree;
    bft_status (*scan)(struct listing *l, bft_cursor *cursor,
                       const struct extract *which);
    uint64_t after_row, last_row, limit;
    bft_slice after;
    bool instant; /* the list is as it is at one instant */
};

static bft_status list_start(struct listing *l, void *buf, size_t len)
{
    memset(l, 0, sizeof(*l));
    l->text = sizeof(l->list);
    return bfti_pack_init(&l->pack, buf, len, sizeof(l->list));
}

/* Add ID; false when it did not fit.  If it is the first it stays counted, so
 * that finishing says what length would do. */
static bool list_add(struct listing *l, bft_slice id)
{
    size_t front = l->pack.front;
    size_t back = l->pack.back;
    uint32_t *end;

    (void)bfti_pack_bytes(&l->pack, id.data, id.len);
    end = bfti_pack_row(&l->pack, sizeof(*end));
    if (end == NULL) {
        l->list.more = 1;
        if (l->list.count != 0) {
            l->pack.front = front;
            l->pack.back = back;
            l->pack.over = false;
        }
        return false;
    }
    *end = (uint32_t)(l->pack.front - l->text);
    l->list.count++;
    return true;
}

static bft_status list_finish(struct listing *l, size_t *used)
{
    const struct bfti_pack_table table = {sizeof(uint32_t), l->list.count,
                                          &l->list.ends};
    bft_status status;

    l->list.text = (uint32_t)l->text;
    l->list.text_len = (uint32_t)(l->pack.front - l->text);
    status = bfti_pack_finish(&l->pack, &table, 1, used);
    if (status != BFT_OK)
        return bfti_fail(status, "covalue store: the list takes %zu bytes",
                         *used);
    memcpy(l->pack.buf, &l->list, sizeof(l->list));
    return BFT_OK;
}

static bft_status list(bft_covalue_store *store, const struct extract *which,
                       void *buf, size_t len, size_t *used)
{
    struct listing l;
    bft_cursor *cursor;
    bft_status status;

    if (used == NULL)
        return bfti_fail(BFT_INVALID, "covalue store: an output is NULL");
    *used = 0;
    status = bfti_covalue_gate(store);
    if (status == BFT_OK)
        status = bfti_covalue_check_id(which->after, "an id");
    if (status == BFT_OK)
        status = list_start(&l, buf, len);
    if (status == BFT_OK)
        status = which->instant
                     ? bft_cursor_open(store->tree[which->tree], &cursor)
                     : bfti_covalue_cursor_get(store, which->tree, &cursor);
    if (status != BFT_OK)
        return status;
    status = which->scan(&l, cursor, which);
    if (which->instant)
        bft_cursor_close(cursor);
    else
        bfti_covalue_cursor_put(store, which->tree, cursor);
    return status == BFT_OK ? list_finish(&l, used) : status;
}

/* --- CoValues ------------------------------------------------------------------------ */

static bft_status ids_scan(struct listing *l, bft_cursor *cursor,
                           const struct extract *which)
{
    uint64_t after = which->after_row;
    uint64_t limit = which->limit;
    struct bfti_cokey low;
    struct bfti_cokey high;
    bft_status status;

    if (after >= which->last_row)
        return BFT_OK;
    status = bft_cursor_bounds(
        cursor, bfti_cokey_row(&low, COVALUES_ROW, after + 1),
        bfti_cokey_row(&high, COVALUES_ROW, which->last_row + 1));
    if (status == BFT_OK)
        status = bft_cursor_first(cursor);
    while (status == BFT_OK) {
        bft_slice id;

        if (limit-- == 0) {
            l->list.more = 1;
            return BFT_OK;
        }
        status = bft_cursor_value(cursor, &id);
        if (status != BFT_OK)
            return status;
        if (!list_add(l, id))
            return BFT_OK;
        status = bft_cursor_next(cursor);
    }
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

bft_status bft_covalue_ids(bft_covalue_store *store, uint64_t after,
                           uint64_t limit, void *buf, size_t len, size_t *used)
{
    /* Not what comes meanwhile: of a commit that makes several the scan could
     * pass by the first and meet the second, and rows are told by counting. */
    const struct extract which = {.tree = COVALUES,
                                  .scan = ids_scan,
                                  .after_row = after,
                                  .last_row = bft_covalue_count(store),
                                  .limit = limit};

    return list(store, &which, buf, len, used);
}

/* --- deletions ----------------------------------------------------------------------- */

static bft_status deletions_scan(struct listing *l, bft_cursor *cursor,
                                 const struct extract *which)
{
    bft_slice after = which->after;
    struct bfti_cokey key;
    bft_status status;

    status = bft_cursor_prefix(cursor, bfti_cokey_tag(&key, DELETIONS_WAITING));
    if (status == BFT_OK)
        status = after.data == NULL
                     ? bft_cursor_first(cursor)
                     : bft_cursor_seek(
                           cursor, BFT_GT,
                           bfti_cokey_id(&key, DELETIONS_WAITING, after));
    for (; status == BFT_OK; status = bft_cursor_next(cursor)) {
        bft_slice id;

        status = bft_cursor_key(cursor, &id);
        if (status != BFT_OK)
            return status;
        id = (bft_slice){(const uint8_t *)id.data + 1, id.len - 1};
        if (!list_add(l, id))
            return BFT_OK;
    }
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

bft_status bft_covalue_deletions(bft_covalue_store *store, bft_slice after,
                                 void *buf, size_t len, size_t *used)
{
    const struct extract which = {.tree = DELETIONS,
                                  .scan = deletions_scan,
                                  .after = after,
                                  .instant = true};

    return list(store, &which, buf, len, used);
}

/* --- unsynced ------------------------------------------------------------------------ */

/* Go to the first record of an id above ID: its peers all start with ID and the
 * two zero bytes that end it, and nothing else sorts in between 00 00 and 00 ff
 * or higher. */
static bft_status seek_past(bft_cursor *cursor, bft_slice id)
{
    struct bfti_cokey key;
    bft_slice prefix = bfti_cokey_peers(&key, id);

    if (prefix.len == 0)
        return bfti_fail(BFT_TOO_BIG, "covalue store: an id of %zu bytes",
                         id.len);
    key.bytes[prefix.len - 1] = 1;
    return bft_cursor_seek(cursor, BFT_GE, prefix);
}

static bft_status unsynced_scan(struct listing *l, bft_cursor *cursor,
                                const struct extract *which)
{
    bft_slice after = which->after;
    bft_slice all = {NULL, 0};
    bft_status status = bft_cursor_bounds(cursor, all, all);

    if (status == BFT_OK)
        status = after.data == NULL ? bft_cursor_first(cursor)
                                    : seek_past(cursor, after);
    while (status == BFT_OK) {
        uint8_t bytes[BFT_KEY_MAX];
        bft_slice key;
        bft_slice id = {bytes, 0};

        status = bft_cursor_key(cursor, &key);
        if (status != BFT_OK)
            return status;
        if (bfti_key_get_text(key.data, key.len, bytes, &id.len) == 0)
            return bfti_fail(BFT_CORRUPT, "covalue store: an unsynced key");
        if (!list_add(l, id))
            return BFT_OK;
        status = seek_past(cursor, id);
    }
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

bft_status bft_covalue_unsynced(bft_covalue_store *store, bft_slice after,
                                void *buf, size_t len, size_t *used)
{
    const struct extract which = {.tree = UNSYNCED,
                                  .scan = unsynced_scan,
                                  .after = after,
                                  .instant = true};

    return list(store, &which, buf, len, used);
}
