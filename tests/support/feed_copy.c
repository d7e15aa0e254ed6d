#include "feed_copy.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((format(printf, 2, 3))) static bool wrong(struct feed_copy *copy,
                                                        const char *format, ...)
{
    va_list args;
    if (copy->error[0])
        return false;
    va_start(args, format);
    (void)vsnprintf(copy->error, sizeof(copy->error), format, args);
    va_end(args);
    return false;
}

static bool wrong_status(struct feed_copy *copy, const char *what,
                         bft_status status)
{
    char text[300];
    bft_last_error(text, sizeof(text));
    return wrong(copy, "%s: %s: %s", what, bft_strerror(status), text);
}

/* --- trees and records ---------------------------------------------------- */

struct feed_tree *feed_copy_tree(struct feed_copy *copy, uint32_t id)
{
    for (size_t i = 0; i < copy->trees; i++)
        if (copy->tree[i].id == id)
            return &copy->tree[i];
    return NULL;
}

static size_t place_of(const struct feed_tree *tree, bft_slice key, bool *found)
{
    size_t low = 0, high = tree->count;
    *found = false;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct feed_record *r = &tree->record[middle];
        size_t least = r->key_len < key.len ? r->key_len : key.len;
        int order = memcmp(r->bytes, key.data, least);
        if (order == 0)
            order = (r->key_len > key.len) - (r->key_len < key.len);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct feed_record *feed_copy_find(const struct feed_tree *tree,
                                         bft_slice key)
{
    bool found;
    size_t at = place_of(tree, key, &found);
    return found ? &tree->record[at] : NULL;
}

static void records_free(struct feed_tree *tree)
{
    for (size_t i = 0; i < tree->count; i++)
        free(tree->record[i].bytes);
    free(tree->record);
    tree->record = NULL;
    tree->count = tree->cap = 0;
}

static void tree_add(struct feed_copy *copy, uint32_t id, const char *name)
{
    struct feed_tree *tree;
    copy->tree = realloc(copy->tree, (copy->trees + 1) * sizeof(*copy->tree));
    if (!copy->tree)
        abort();
    tree = &copy->tree[copy->trees++];
    memset(tree, 0, sizeof(*tree));
    tree->id = id;
    (void)snprintf(tree->name, sizeof(tree->name), "%s", name);
}

static void tree_remove(struct feed_copy *copy, struct feed_tree *tree)
{
    records_free(tree);
    *tree = copy->tree[--copy->trees];
}

/* --- changes -------------------------------------------------------------- */

static void set(struct feed_tree *tree, struct feed_record record)
{
    bool found;
    size_t at =
        place_of(tree, (bft_slice){record.bytes, record.key_len}, &found);
    if (found) {
        free(tree->record[at].bytes);
        tree->record[at] = record;
        return;
    }
    if (tree->count == tree->cap) {
        tree->cap = tree->cap ? tree->cap * 2 : 64;
        tree->record = realloc(tree->record, tree->cap * sizeof(record));
        if (!tree->record)
            abort();
    }
    memmove(&tree->record[at + 1], &tree->record[at],
            (tree->count - at) * sizeof(record));
    tree->record[at] = record;
    tree->count++;
}

static void forget(struct feed_tree *tree, bft_slice key)
{
    bool found;
    size_t at = place_of(tree, key, &found);
    if (!found)
        return;
    free(tree->record[at].bytes);
    memmove(&tree->record[at], &tree->record[at + 1],
            (--tree->count - at) * sizeof(*tree->record));
}

/* All from LOW up to HIGH. */
static void forget_range(struct feed_tree *tree, bft_slice low, bft_slice high)
{
    bool found;
    size_t from = low.len ? place_of(tree, low, &found) : 0;
    size_t to = high.len ? place_of(tree, high, &found) : tree->count;
    if (to <= from)
        return;
    for (size_t i = from; i < to; i++)
        free(tree->record[i].bytes);
    memmove(&tree->record[from], &tree->record[to],
            (tree->count - to) * sizeof(*tree->record));
    tree->count -= to - from;
}

static bool put(struct feed_copy *copy, bft_feed *feed, struct feed_tree *tree,
                const bft_change *change)
{
    struct feed_record record = {.key_len = change->key.len,
                                 .value_len = (size_t)change->value_bytes};
    size_t got;
    bft_status status;
    record.bytes = malloc(record.key_len + record.value_len + 1);
    if (!record.bytes)
        abort();
    memcpy(record.bytes, change->key.data, change->key.len);
    status = bft_feed_value(feed, change, 0, record.bytes + record.key_len,
                            record.value_len, &got);
    if (status == BFT_GONE && change->value.len == 0) {
        record.unknown = true;
        copy->unread++;
    } else if (status != BFT_OK || got != record.value_len) {
        free(record.bytes);
        return wrong_status(copy, "bft_feed_value", status);
    }
    set(tree, record);
    return true;
}

static bool apply_to_tree(struct feed_copy *copy, bft_feed *feed,
                          const bft_change *change)
{
    struct feed_tree *tree = feed_copy_tree(copy, change->tree_id);
    if (!tree) { /* of a write that met a drop or a truncation */
        copy->passed_over++;
        return true;
    }
    switch (change->op) {
    case BFT_CHANGE_PUT:
        return put(copy, feed, tree, change);
    case BFT_CHANGE_DELETE:
        forget(tree, change->key);
        return true;
    case BFT_CHANGE_DELETE_RANGE:
        forget_range(tree, change->key, change->high);
        return true;
    case BFT_CHANGE_TREE_DROP:
        if (strcmp(tree->name, change->name) != 0)
            return wrong(copy, "tree %s dropped as %s", tree->name,
                         change->name);
        tree_remove(copy, tree);
        return true;
    case BFT_CHANGE_TREE_RENAME:
        if (strcmp(tree->name, change->old_name) != 0)
            return wrong(copy, "tree %s renamed as %s", tree->name,
                         change->old_name);
        (void)snprintf(tree->name, sizeof(tree->name), "%s", change->name);
        return true;
    case BFT_CHANGE_TREE_TRUNCATE:
        if (strcmp(tree->name, change->name) != 0)
            return wrong(copy, "tree %s truncated as %s", tree->name,
                         change->name);
        records_free(tree);
        tree->id = change->new_tree_id;
        return true;
    default:
        return wrong(copy, "a change has op %d", (int)change->op);
    }
}

bool feed_copy_apply(struct feed_copy *copy, bft_feed *feed,
                     const bft_commit *commit)
{
    if (commit->lsn <= copy->lsn || commit->lsn % 8 || commit->count == 0)
        return wrong(copy, "after LSN %llu came %llu, with %zu changes",
                     (unsigned long long)copy->lsn,
                     (unsigned long long)commit->lsn, commit->count);
    if (bft_feed_lsn(feed) != commit->lsn)
        return wrong(copy, "the feed is not behind its commit");
    copy->lsn = commit->lsn;
    copy->commits++;
    for (size_t i = 0; i < commit->count; i++) {
        const bft_change *change = &commit->changes[i];
        copy->changes++;
        if (change->op != BFT_CHANGE_TREE_CREATE) {
            if (!apply_to_tree(copy, feed, change))
                return false;
            continue;
        }
        if (feed_copy_tree(copy, change->tree_id))
            return wrong(copy, "tree %u made twice", change->tree_id);
        tree_add(copy, change->tree_id, change->name);
    }
    return true;
}

bool feed_copy_catch_up(struct feed_copy *copy, bft_feed *feed)
{
    bft_commit commit;
    bft_status status;
    while ((status = bft_feed_next(feed, 0, &commit)) == BFT_OK)
        if (!feed_copy_apply(copy, feed, &commit))
            return false;
    return status == BFT_NOT_FOUND ||
           wrong_status(copy, "bft_feed_next", status);
}

void feed_copy_clone(struct feed_copy *copy, const struct feed_copy *from)
{
    *copy = *from;
    copy->tree = NULL;
    copy->trees = 0;
    for (size_t i = 0; i < from->trees; i++) {
        const struct feed_tree *tree = &from->tree[i];
        tree_add(copy, tree->id, tree->name);
        for (size_t k = 0; k < tree->count; k++) {
            struct feed_record record = tree->record[k];
            size_t bytes = record.key_len + record.value_len;
            record.bytes = malloc(bytes + 1);
            if (!record.bytes)
                abort();
            memcpy(record.bytes, tree->record[k].bytes, bytes);
            set(&copy->tree[i], record);
        }
    }
}

/* --- comparing ------------------------------------------------------------ */

static bool same_record(struct feed_copy *copy, const struct feed_tree *tree,
                        size_t i, bft_slice key, bft_slice value)
{
    const struct feed_record *r = &tree->record[i];
    if (i >= tree->count)
        return wrong(copy, "tree %s: the copy lacks %.*s", tree->name,
                     (int)key.len, (const char *)key.data);
    if (r->key_len != key.len || memcmp(r->bytes, key.data, key.len) != 0)
        return wrong(copy, "tree %s: the copy has %.*s for %.*s", tree->name,
                     (int)r->key_len, (const char *)r->bytes, (int)key.len,
                     (const char *)key.data);
    if (r->unknown || r->value_len != value.len ||
        memcmp(r->bytes + r->key_len, value.data, value.len) != 0)
        return wrong(copy, "tree %s: %.*s has another value in the copy%s",
                     tree->name, (int)key.len, (const char *)key.data,
                     r->unknown ? ", none" : "");
    return true;
}

static bool same_tree(struct feed_copy *copy, bft_db *db,
                      const struct feed_tree *tree)
{
    bft_tree_options o = {.size = sizeof(o), .must_exist = true};
    bft_cursor *cursor;
    bft_tree *handle;
    size_t i = 0;
    bool same = true;
    bft_status status = bft_tree_open(db, tree->name, &o, &handle);
    uint32_t id;
    if (status == BFT_OK)
        status = bft_tree_id(handle, &id);
    if (status == BFT_OK)
        status = bft_cursor_open(handle, &cursor);
    if (status != BFT_OK)
        return wrong_status(copy, tree->name, status);
    if (id != tree->id)
        same = wrong(copy, "tree %s is %u, in the copy %u", tree->name, id,
                     tree->id);
    while (same && (status = bft_cursor_next(cursor)) == BFT_OK) {
        bft_slice key, value;
        status = bft_cursor_record(cursor, &key, &value);
        same = status == BFT_OK ? same_record(copy, tree, i++, key, value)
                                : wrong_status(copy, "record", status);
    }
    bft_cursor_close(cursor);
    if (same && status != BFT_NOT_FOUND)
        same = wrong_status(copy, "cursor", status);
    if (same && i != tree->count)
        same = wrong(copy, "tree %s: %zu records, %zu in the copy", tree->name,
                     i, tree->count);
    return same;
}

static bool count_tree(void *ctx, const char *name)
{
    (void)name;
    ++*(size_t *)ctx;
    return true;
}

bool feed_copy_is(struct feed_copy *copy, bft_db *db)
{
    size_t trees = 0;
    bft_status status = bft_tree_list(db, count_tree, &trees);
    if (status != BFT_OK)
        return wrong_status(copy, "bft_tree_list", status);
    if (trees != copy->trees)
        return wrong(copy, "%zu trees, %zu in the copy", trees, copy->trees);
    for (size_t i = 0; i < copy->trees; i++)
        if (!same_tree(copy, db, &copy->tree[i]))
            return false;
    return true;
}

void feed_copy_free(struct feed_copy *copy)
{
    for (size_t i = 0; i < copy->trees; i++)
        records_free(&copy->tree[i]);
    free(copy->tree);
    memset(copy, 0, sizeof(*copy));
}
