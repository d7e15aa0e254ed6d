/*
 * The comparison's adapter for this engine.
 */
#include <stdlib.h>
#include <string.h>

#include "bftree_calls.h"
#include "store.h"

struct store {
    bft_db *db;
    bft_tree *tree;
    bft_batch *batch;
    bft_cursor *cursor; /* of the scan under way */
};

static void describe(FILE *to, const struct store_config *config)
{
    fprintf(to,
            "bftree %s: memory_bytes %llu, log_bytes %llu, durability %s, "
            "leaf_bytes 4096, background threads on",
            bft_version(), (unsigned long long)config->memory_bytes,
            (unsigned long long)config->log_bytes,
            config->sync ? "SYNC" : "BUFFERED");
}

static struct store *open_store(const struct store_config *config)
{
    struct store *store = calloc(1, sizeof(*store));
    bft_options options = {
        .size = sizeof(options),
        .durability = config->sync ? BFT_SYNC : BFT_BUFFERED,
        .memory_bytes = config->memory_bytes,
        .log_bytes = config->log_bytes,
    };

    if (!store)
        rig_die("out of memory");
    must(bft_open(config->dir, &options, &store->db), "open");
    must(bft_tree_open(store->db, "t", NULL, &store->tree), "tree");
    must(bft_batch_create(store->db, &store->batch), "batch");
    return store;
}

static void close_store(struct store *store)
{
    bft_batch_free(store->batch);
    must(bft_close(store->db), "close");
    free(store);
}

static bool get(struct store *store, const uint8_t *key,
                uint8_t value[RIG_VALUE])
{
    size_t len;
    bft_status status =
        bft_get(store->tree, slice(key, RIG_KEY), value, RIG_VALUE, &len);

    if (status == BFT_NOT_FOUND)
        return false;
    must(status, "get");
    if (len != RIG_VALUE)
        rig_die("bftree: a value of %zu bytes", len);
    return true;
}

static void update(struct store *store, const uint8_t *key,
                   const uint8_t *value)
{
    must(bft_put(store->tree, slice(key, RIG_KEY), slice(value, RIG_VALUE)),
         "put");
}

static void erase(struct store *store, const uint8_t *key)
{
    must(bft_delete(store->tree, slice(key, RIG_KEY)), "delete");
}

static void begin(struct store *store)
{
    bft_batch_clear(store->batch);
}

static void put_in(struct store *store, const uint8_t *key,
                   const uint8_t *value)
{
    must(bft_batch_put(store->batch, store->tree, slice(key, RIG_KEY),
                       slice(value, RIG_VALUE)),
         "batch");
}

static void commit(struct store *store)
{
    must(bft_batch_commit(store->batch, BFT_DEFAULT, NULL), "commit");
}

static bft_status scan_start(struct store *store, const uint8_t *from,
                             bool back)
{
    if (from)
        return bft_cursor_seek(store->cursor, back ? BFT_LE : BFT_GE,
                               slice(from, RIG_KEY));
    return back ? bft_cursor_last(store->cursor)
                : bft_cursor_first(store->cursor);
}

static size_t scan(struct store *store, const uint8_t *from, bool back,
                   size_t rows)
{
    uint8_t last[RIG_KEY];
    bft_slice key, value;
    size_t seen = 0;

    must(bft_cursor_open(store->tree, &store->cursor), "cursor");
    for (bft_status status = scan_start(store, from, back); seen < rows;
         status = back ? bft_cursor_prev(store->cursor)
                       : bft_cursor_next(store->cursor)) {
        if (status == BFT_NOT_FOUND)
            break;
        must(status, "cursor");
        must(bft_cursor_key(store->cursor, &key), "key");
        must(bft_cursor_value(store->cursor, &value), "value");
        if (key.len != RIG_KEY ||
            !rig_value_begins(key.data, value.data, value.len))
            rig_die("bftree: a row that holds what is not its own");
        if (seen && (memcmp(last, key.data, RIG_KEY) < 0) == back)
            rig_die("bftree: rows out of order");
        memcpy(last, key.data, RIG_KEY);
        /* Before the step: asking for one row takes one row. */
        if (++seen == rows)
            break;
    }
    bft_cursor_close(store->cursor);
    return seen;
}

static void settle(struct store *store)
{
    must(bft_checkpoint(store->db), "checkpoint");
}

const struct store_kind store_bftree = {
    .name = "bftree",
    .describe = describe,
    .open = open_store,
    .close = close_store,
    .get = get,
    .update = update,
    .erase = erase,
    .begin = begin,
    .insert_in = put_in,
    .update_in = put_in,
    .commit = commit,
    .scan = scan,
    .settle = settle,
};
