#include "every_call.h"

#include <stdio.h>
#include <string.h>

#include "bftree_feed.h"
#include "bftree_stores.h"
#include "fileio/fileio.h"

static const bft_slice NONE = {NULL, 0};
static const char STALE[] = "the text of an earlier failure";

enum { LARGE = 100000 };

/* --- noting ---------------------------------------------------------------- */

void calls_stale(void)
{
    (void)bfti_fail(BFT_INVALID, "%s", STALE);
}

void calls_note(struct calls *c, bft_status status, const char *made)
{
    char text[400] = "";
    bool right = status == c->expected;
    (void)bft_last_error(text, sizeof(text));
    if (right)
        right = strcmp(text, STALE) != 0 &&
                (c->words == NULL || strstr(text, c->words) != NULL);
    if (right)
        return;
    (void)fprintf(stderr, "%s: %d, not %d: \"%s\"%s%s\n", made, (int)status,
                  (int)c->expected, text, c->words ? " should say " : "",
                  c->words ? c->words : "");
    c->wrong++;
}

static bft_status read_zeros(void *ctx, void *buf, size_t len)
{
    (void)ctx;
    memset(buf, 0, len);
    return BFT_OK;
}

static bft_status no_record(void *ctx, bft_bulk_record *record)
{
    (void)ctx;
    (void)record;
    return BFT_NOT_FOUND;
}

static bft_status one_record(void *ctx, bft_bulk_record *record)
{
    unsigned *left = ctx;
    if ((*left)-- == 0)
        return BFT_NOT_FOUND;
    record->key = (bft_slice){"k", 1};
    return BFT_OK;
}

static bool no_name(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
    return false;
}

static bft_status make_nothing(void *ctx, bft_db *db, void **object)
{
    (void)ctx;
    *object = db;
    return BFT_OK;
}

/* --- handles that are not to be used ---------------------------------------- */

/* every call below provokes: BFT_INVALID BFT_FORKED */
void every_call_on_db(struct calls *c, bft_db *db)
{
    bft_stats stats = {.size = sizeof(stats)};
    bft_covalue_store *store;
    bft_snapshot *snapshot;
    char text[2000];
    bft_txn *txn;
    void *object;
    bft_batch *batch;
    bft_tree *tree;
    bft_feed *feed;
    size_t len;
    CALL(c, bft_sync(db));
    CALL(c, bft_checkpoint(db));
    CALL(c, bft_wait_durable(db, 1));
    CALL(c, bft_tree_open(db, "t", NULL, &tree));
    CALL(c, bft_tree_drop(db, "t"));
    CALL(c, bft_tree_truncate(db, "t"));
    CALL(c, bft_tree_rename(db, "t", "u"));
    CALL(c, bft_tree_list(db, no_name, NULL));
    CALL(c, bft_batch_create(db, &batch));
    CALL(c, bft_verify(db));
    CALL(c, bft_backup(db, "copy", NULL));
    CALL(c, bft_feed_open(db, 0, NULL, &feed));
    CALL(c, bft_stats_read(db, &stats));
    CALL(c, bft_stats_json(db, text, sizeof(text), &len));
    CALL(c, bft_db_shared(db, "o", make_nothing, NULL, NULL, &object));
    CALL(c, bft_snapshot_take(db, &snapshot));
    CALL(c, bft_txn_begin(db, BFT_SERIALIZABLE, &txn));
    CALL(c, bft_covalue_open(db, NULL, &store));
}

/* every call below provokes: BFT_INVALID BFT_FORKED BFT_GONE */
void every_call_on_tree(struct calls *c, bft_tree *tree)
{
    bft_slice key = {"k", 1};
    char buf[16];
    bft_answer item = {.key = key, .buf = buf, .buf_len = sizeof(buf)};
    bft_cursor *cursor;
    bft_record *record;
    uint64_t count;
    void *copy;
    size_t len;
    CALL(c, bft_get(tree, key, buf, sizeof(buf), &len));
    CALL(c, bft_get_copy(tree, key, &copy, &len));
    CALL(c, bft_get_range(tree, key, 0, buf, sizeof(buf), &len));
    CALL(c, bft_multi_get(tree, &item, 1));
    CALL(c, bft_put(tree, key, key));
    CALL(c, bft_insert(tree, key, key));
    CALL(c, bft_replace(tree, key, NULL, &key));
    CALL(c, bft_delete(tree, key));
    CALL(c, bft_put_stream(tree, key, LARGE, read_zeros, NULL));
    CALL(c, bft_put_until(tree, key, key, 0));
    CALL(c, bft_insert_until(tree, key, key, 0));
    CALL(c, bft_replace_until(tree, key, NULL, &key, 0));
    CALL(c, bft_put_stream_until(tree, key, LARGE, read_zeros, NULL, 0));
    CALL(c, bft_expiry(tree, key, &count));
    CALL(c, bft_remove_expired(tree, &count));
    CALL(c, bft_cursor_open(tree, &cursor));
    CALL(c, bft_cursor_open_newest(tree, &cursor));
    CALL(c, bft_count(tree, NONE, NONE, &count));
    CALL(c, bft_estimate(tree, NONE, NONE, &count));
    CALL(c, bft_first(tree, NONE, NONE, &record));
    CALL(c, bft_last(tree, NONE, NONE, &record));
    CALL(c, bft_delete_range(tree, NONE, NONE, &count));
    CALL(c, bft_bulk_load(tree, NULL, no_record, NULL, &count));
    CALL(c, bft_bulk_merge(tree, no_record, NULL, &count));
}

/* every call below provokes: BFT_INVALID BFT_FORKED */
void every_call_on_batch(struct calls *c, bft_batch *batch, bft_tree *tree)
{
    bft_slice key = {"k", 1};
    CALL(c, bft_batch_put(batch, tree, key, key));
    CALL(c, bft_batch_put_until(batch, tree, key, key, 0));
    CALL(c, bft_batch_delete(batch, tree, key));
    CALL(c, bft_batch_commit(batch, BFT_DEFAULT, NULL));
}

/* every call below provokes: BFT_INVALID BFT_FORKED */
void every_call_on_cursor(struct calls *c, bft_cursor *cursor)
{
    bft_slice key, value;
    CALL(c, bft_cursor_refresh(cursor));
    CALL(c, bft_cursor_key(cursor, &key));
    CALL(c, bft_cursor_value(cursor, &value));
    CALL(c, bft_cursor_record(cursor, &key, &value));
    CALL(c, bft_cursor_seek(cursor, BFT_GE, (bft_slice){"k", 1}));
    CALL(c, bft_cursor_first(cursor));
    CALL(c, bft_cursor_last(cursor));
    CALL(c, bft_cursor_next(cursor));
    CALL(c, bft_cursor_prev(cursor));
    CALL(c, bft_cursor_bounds(cursor, NONE, NONE));
    CALL(c, bft_cursor_prefix(cursor, NONE));
}

/* every call below provokes: BFT_INVALID BFT_FORKED */
void every_call_on_snapshot(struct calls *c, bft_snapshot *snapshot,
                            bft_tree *tree)
{
    bft_slice key = {"k", 1};
    bft_cursor *cursor;
    char buf[16];
    void *copy;
    size_t len;
    CALL(c, bft_snapshot_get(snapshot, tree, key, buf, sizeof(buf), &len));
    CALL(c, bft_snapshot_get_copy(snapshot, tree, key, &copy, &len));
    CALL(c, bft_snapshot_cursor(snapshot, tree, &cursor));
}

/* every call below provokes: BFT_INVALID BFT_FORKED */
void every_call_on_txn(struct calls *c, bft_txn *txn, bft_tree *tree)
{
    bft_slice key = {"k", 1};
    bft_cursor *cursor;
    char buf[16];
    void *copy;
    size_t len;
    CALL(c, bft_txn_get(txn, tree, key, buf, sizeof(buf), &len));
    CALL(c, bft_txn_get_copy(txn, tree, key, &copy, &len));
    CALL(c, bft_txn_put(txn, tree, key, key));
    CALL(c, bft_txn_put_until(txn, tree, key, key, 0));
    CALL(c, bft_txn_delete(txn, tree, key));
    CALL(c, bft_txn_cursor(txn, tree, &cursor));
    CALL(c, bft_txn_commit(txn, BFT_DEFAULT, NULL));
}

/* --- a disk that refuses ---------------------------------------------------- */

/* every call below provokes: BFT_IO BFT_CORRUPT */
void every_read(struct calls *c, bft_tree *tree, bft_slice key)
{
    char buf[200];
    bft_answer item = {.key = key, .buf = buf, .buf_len = sizeof(buf)};
    bft_record *record;
    uint64_t count;
    void *copy;
    size_t len;
    CALL(c, bft_get(tree, key, buf, sizeof(buf), &len));
    CALL(c, bft_get_copy(tree, key, &copy, &len));
    CALL(c, bft_get_range(tree, key, 0, buf, sizeof(buf), &len));
    CALL(c, bft_multi_get(tree, &item, 1));
    CALL(c, bft_count(tree, NONE, NONE, &count));
    CALL(c, bft_estimate(tree, NONE, NONE, &count));
    CALL(c, bft_first(tree, NONE, NONE, &record));
    CALL(c, bft_last(tree, NONE, NONE, &record));
}

/* every call below provokes: BFT_IO BFT_CORRUPT */
void every_expiring_read(struct calls *c, bft_tree *tree, bft_slice key)
{
    uint64_t expires_ms, removed;
    CALL(c, bft_expiry(tree, key, &expires_ms));
    CALL(c, bft_remove_expired(tree, &removed));
}

/* every call below provokes: BFT_IO BFT_CORRUPT BFT_NO_MEMORY */
void every_past_read(struct calls *c, bft_snapshot *snapshot, bft_txn *txn,
                     bft_tree *tree, bft_slice key)
{
    char buf[200];
    void *copy;
    size_t len;
    CALL(c, bft_snapshot_get(snapshot, tree, key, buf, sizeof(buf), &len));
    CALL(c, bft_snapshot_get_copy(snapshot, tree, key, &copy, &len));
    CALL(c, bft_txn_get(txn, tree, key, buf, sizeof(buf), &len));
    CALL(c, bft_txn_get_copy(txn, tree, key, &copy, &len));
}

/* every call below provokes: BFT_IO BFT_CORRUPT BFT_NO_MEMORY */
void every_fetch(struct calls *c, bft_cursor *cursor)
{
    bft_slice key, value;
    CALL(c, bft_cursor_value(cursor, &value));
    CALL(c, bft_cursor_record(cursor, &key, &value));
}

/* every call below provokes: BFT_IO BFT_CORRUPT BFT_NO_MEMORY BFT_GONE */
void every_move(struct calls *c, bft_cursor *cursor, bft_slice key)
{
    CALL(c, bft_cursor_seek(cursor, BFT_GE, key));
    CALL(c, bft_cursor_first(cursor));
    CALL(c, bft_cursor_last(cursor));
    CALL(c, bft_cursor_next(cursor));
    CALL(c, bft_cursor_prev(cursor));
}

/* every call below provokes: BFT_READ_ONLY BFT_NO_SPACE BFT_IO BFT_POISONED */
void every_write(struct calls *c, bft_tree *tree)
{
    bft_slice key = {"k", 1}, other = {"other", 5};
    unsigned one = 1;
    uint64_t count;
    CALL(c, bft_put(tree, key, key));
    CALL(c, bft_bulk_merge(tree, one_record, &one, &count));
    CALL(c, bft_insert(tree, other, key));
    CALL(c, bft_replace(tree, (bft_slice){"third", 5}, NULL, &key));
    CALL(c, bft_put_stream(tree, key, LARGE, read_zeros, NULL));
    CALL(c, bft_delete_range(tree, NONE, NONE, &count));
    CALL(c, bft_delete(tree, key));
}

/* every call below provokes: BFT_READ_ONLY BFT_NO_SPACE BFT_IO BFT_POISONED */
void every_expiring_write(struct calls *c, bft_tree *tree)
{
    bft_slice key = {"k", 1}, other = {"other", 5};
    CALL(c, bft_put_until(tree, key, key, 0));
    CALL(c, bft_insert_until(tree, other, key, 0));
    CALL(c, bft_replace_until(tree, (bft_slice){"third", 5}, NULL, &key, 0));
    CALL(c, bft_put_stream_until(tree, key, LARGE, read_zeros, NULL, 0));
}

/* every call below provokes: BFT_READ_ONLY BFT_NO_SPACE BFT_IO BFT_POISONED */
void every_batch_commit(struct calls *c, bft_batch *batch)
{
    CALL(c, bft_batch_commit(batch, BFT_DEFAULT, NULL));
}

/* every call below provokes: BFT_READ_ONLY BFT_NO_SPACE BFT_IO BFT_POISONED */
void every_sync(struct calls *c, bft_db *db, uint64_t lsn)
{
    CALL(c, bft_checkpoint(db));
    CALL(c, bft_sync(db));
    CALL(c, bft_wait_durable(db, lsn));
}

/* every call below provokes: BFT_READ_ONLY BFT_NO_SPACE BFT_IO BFT_POISONED */
void every_tree_change(struct calls *c, bft_db *db)
{
    bft_tree *tree;
    CALL(c, bft_tree_open(db, "new", NULL, &tree));
    CALL(c, bft_tree_drop(db, "dropped"));
    CALL(c, bft_tree_truncate(db, "emptied"));
    CALL(c, bft_tree_rename(db, "renamed", "again"));
}
