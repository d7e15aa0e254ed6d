/*
 * compare_engines' adapter for this engine, as "What to set" of the README
 * advises.  The log is on, checksums cannot be turned off.  Its budget is meant
 * for all of it, so it gets all that a bound leaves for an engine.  Where all
 * fits, leaves are of 16 KiB, and the log may be as long as RocksDB's memtables
 * together; in larger both are the defaults.
 */
#include <stdlib.h>

#include "bftree_calls.h"
#include "peer.h"

struct peer {
    bft_db *db;
    bft_tree *tree;
    size_t value_len;
};

struct peer_session {
    struct peer *peer;
    bft_batch *batch;
};

static unsigned log_mib(const struct peer_config *config)
{
    return config->setting == PEER_LARGER ? 64 : 256;
}

static unsigned leaf_bytes(const struct peer_config *config)
{
    return config->setting == PEER_LARGER ? 4096 : 16384;
}

static void describe(FILE *to, const struct peer_config *config)
{
    fprintf(to,
            "bftree %s: memory_bytes %llu MiB, durability %s, log_bytes %u "
            "MiB, leaf_bytes %u, no compression, checksums on",
            bft_version(), (unsigned long long)config->memory_bytes / PEER_MIB,
            config->setting == PEER_SYNC ? "SYNC" : "BUFFERED", log_mib(config),
            leaf_bytes(config));
}

static struct peer *open_peer(const struct peer_config *config)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    bft_options options = {
        .size = sizeof(options),
        .durability = config->setting == PEER_SYNC ? BFT_SYNC : BFT_BUFFERED,
        .memory_bytes = config->memory_bytes,
        .log_bytes = log_mib(config) * PEER_MIB,
        .leaf_bytes = leaf_bytes(config),
    };

    if (!peer)
        rig_die("out of memory");
    peer->value_len = config->value_len;
    must(bft_open(config->dir, &options, &peer->db), "open");
    must(bft_tree_open(peer->db, "t", NULL, &peer->tree), "tree");
    return peer;
}

static void close_peer(struct peer *peer)
{
    must(bft_close(peer->db), "close");
    free(peer);
}

static void settle(struct peer *peer)
{
    must(bft_checkpoint(peer->db), "checkpoint");
}

static struct peer_session *session_open(struct peer *peer)
{
    struct peer_session *session = calloc(1, sizeof(*session));

    if (!session)
        rig_die("out of memory");
    session->peer = peer;
    must(bft_batch_create(peer->db, &session->batch), "batch");
    return session;
}

static void session_close(struct peer_session *session)
{
    bft_batch_free(session->batch);
    free(session);
}

static bool get(struct peer_session *session, const uint8_t *key,
                uint8_t *value)
{
    size_t len, value_len = session->peer->value_len;
    bft_status status = bft_get(session->peer->tree, slice(key, RIG_KEY), value,
                                value_len, &len);

    if (status == BFT_NOT_FOUND)
        return false;
    must(status, "get");
    if (len != value_len)
        rig_die("bftree: a value of %zu bytes", len);
    return true;
}

static void put(struct peer_session *session, const uint8_t *key,
                const uint8_t *value, bool exists)
{
    (void)exists;
    must(bft_put(session->peer->tree, slice(key, RIG_KEY),
                 slice(value, session->peer->value_len)),
         "put");
}

static void erase(struct peer_session *session, const uint8_t *key)
{
    must(bft_delete(session->peer->tree, slice(key, RIG_KEY)), "delete");
}

static void put_many(struct peer_session *session,
                     const struct peer_record *records, size_t n, bool exist)
{
    (void)exist;
    for (size_t i = 0; i < n; i++)
        must(bft_batch_put(session->batch, session->peer->tree,
                           slice(records[i].key, RIG_KEY),
                           slice(records[i].value, session->peer->value_len)),
             "batch");
    must(bft_batch_commit(session->batch, BFT_DEFAULT, NULL), "commit");
}

static size_t get_many(struct peer_session *session,
                       struct peer_record *records, size_t n)
{
    bft_answer answer[PEER_BATCH];
    size_t found = 0, value_len = session->peer->value_len;

    for (size_t i = 0; i < n; i++)
        answer[i] = (bft_answer){.key = slice(records[i].key, RIG_KEY),
                                 .buf = records[i].value,
                                 .buf_len = value_len};
    must(bft_multi_get(session->peer->tree, answer, n), "multi-get");
    for (size_t i = 0; i < n; i++) {
        if (answer[i].status == BFT_NOT_FOUND)
            continue;
        if (answer[i].value_len != value_len)
            rig_die("bftree: a value of %zu bytes", answer[i].value_len);
        found++;
    }
    return found;
}

static void scan(struct peer_session *session, struct peer_scan *scan)
{
    bft_cursor *cursor;
    bft_slice key, value;
    bft_status status;

    must(bft_cursor_open(session->peer->tree, &cursor), "cursor");
    if (scan->from)
        status = bft_cursor_seek(cursor, scan->back ? BFT_LE : BFT_GE,
                                 slice(scan->from, RIG_KEY));
    else
        status =
            scan->back ? bft_cursor_last(cursor) : bft_cursor_first(cursor);
    while (status == BFT_OK) {
        must(bft_cursor_record(cursor, &key, &value), "record");
        if (!peer_scan_row(scan, key.data, key.len, value.data, value.len))
            break;
        status = scan->back ? bft_cursor_prev(cursor) : bft_cursor_next(cursor);
    }
    if (status != BFT_NOT_FOUND)
        must(status, "cursor");
    bft_cursor_close(cursor);
}

const struct peer_kind peer_bftree = {
    .name = "bftree",
    .abilities =
        PEER_CAN_BATCH | PEER_CAN_BACK | PEER_CAN_SYNC | PEER_CAN_REOPEN,
    .multi_get_by = "one call (bft_multi_get)",
    .settled = "a checkpoint",
    .describe = describe,
    .open = open_peer,
    .close = close_peer,
    .settle = settle,
    .session_open = session_open,
    .session_close = session_close,
    .get = get,
    .put = put,
    .erase = erase,
    .put_many = put_many,
    .get_many = get_many,
    .scan = scan,
};
