/*
 * compare_engines' adapter for WiredTiger: a session and its cursors for each
 * thread.
 *
 * Advice that was followed, by page of source.wiredtiger.com, 3.2:
 *   tune_cache       cache_size for the working set; the eviction threads.
 *   tune_durability  transaction_sync and its method; without it the log is
 *                    written, not forced.
 *   tune_page_sizes  smaller leaves and memory_page_max for random reads under
 *                    a small cache.
 *   tune_system_buffer_cache  direct_io=[data], so that pages are not cached
 *                    twice; the bound counts the kernel's copy too.
 *   tune_cursors     cursors are kept and reset, not reopened.
 *   tune_mmap        no mapping for tables that are written.
 *   checkpoint       every 60 seconds, as its largest user sets it.
 * 45 % of the budget is the cache: with half of it the process was killed for
 * passing the bound, in batches (dirty log pages and its allocator come on top).
 * Old by 2019: Debian 12 ships 3.2.1.
 */
#include <stdlib.h>
#include <wiredtiger.h>

#include "peer.h"

struct peer {
    WT_CONNECTION *connection;
    size_t value_len;
};

struct peer_session {
    WT_SESSION *session;
    WT_CURSOR *cursor;
    size_t value_len;
};

static void must(int result, const char *what)
{
    if (result)
        rig_die("wiredtiger: %s: %s", what, wiredtiger_strerror(result));
}

static void open_text(const struct peer_config *config, char *text, size_t len)
{
    bool larger = config->setting == PEER_LARGER;
    uint64_t cache = !larger           ? config->memory_bytes
                     : config->filling ? (uint64_t)512 * PEER_MIB
                                       : config->memory_bytes * 45 / 100;

    snprintf(
        text, len,
        "create,cache_size=%llu,log=(enabled=true,file_max=32MB),"
        "checkpoint=(wait=60),transaction_sync=(enabled=%s,"
        "method=fsync),eviction=(threads_min=1,threads_max=2),mmap=false%s",
        (unsigned long long)cache,
        config->setting == PEER_SYNC ? "true" : "false",
        larger ? ",direct_io=[data]" : "");
}

static const char *table_text(const struct peer_config *config)
{
    return config->setting == PEER_LARGER
               ? "key_format=u,value_format=u,allocation_size=4KB,"
                 "leaf_page_max=8KB,memory_page_max=512KB"
               : "key_format=u,value_format=u";
}

static void describe(FILE *to, const struct peer_config *config)
{
    char text[512];

    open_text(config, text, sizeof(text));
    fprintf(to, "WiredTiger %d.%d.%d: %s; table %s; snapshot isolation",
            WIREDTIGER_VERSION_MAJOR, WIREDTIGER_VERSION_MINOR,
            WIREDTIGER_VERSION_PATCH, text, table_text(config));
}

static struct peer *open_peer(const struct peer_config *config)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    WT_SESSION *session;
    char text[512];

    if (!peer)
        rig_die("out of memory");
    peer->value_len = config->value_len;
    rig_make_dir(config->dir);
    open_text(config, text, sizeof(text));
    must(wiredtiger_open(config->dir, NULL, text, &peer->connection), "open");
    must(peer->connection->open_session(peer->connection, NULL, NULL, &session),
         "session");
    must(session->create(session, "table:t", table_text(config)), "table");
    must(session->close(session, NULL), "session");
    return peer;
}

static void close_peer(struct peer *peer)
{
    must(peer->connection->close(peer->connection, NULL), "close");
    free(peer);
}

static void settle(struct peer *peer)
{
    WT_SESSION *session;

    must(peer->connection->open_session(peer->connection, NULL, NULL, &session),
         "session");
    must(session->checkpoint(session, NULL), "checkpoint");
    must(session->close(session, NULL), "session");
}

static struct peer_session *session_open(struct peer *peer)
{
    struct peer_session *session = calloc(1, sizeof(*session));

    if (!session)
        rig_die("out of memory");
    session->value_len = peer->value_len;
    must(peer->connection->open_session(
             peer->connection, NULL, "isolation=snapshot", &session->session),
         "session");
    must(session->session->open_cursor(session->session, "table:t", NULL,
                                       "overwrite=true", &session->cursor),
         "cursor");
    return session;
}

static void session_close(struct peer_session *session)
{
    must(session->session->close(session->session, NULL), "session");
    free(session);
}

static void set_key(WT_CURSOR *cursor, const uint8_t *key)
{
    WT_ITEM item = {.data = key, .size = RIG_KEY};

    cursor->set_key(cursor, &item);
}

static bool get(struct peer_session *session, const uint8_t *key,
                uint8_t *value)
{
    WT_CURSOR *cursor = session->cursor;
    WT_ITEM found;
    int result;

    set_key(cursor, key);
    result = cursor->search(cursor);
    if (result == WT_NOTFOUND)
        return false;
    must(result, "search");
    must(cursor->get_value(cursor, &found), "value");
    peer_value_copy("wiredtiger", value, found.data, found.size,
                    session->value_len);
    must(cursor->reset(cursor), "reset");
    return true;
}

static int insert(struct peer_session *session, const uint8_t *key,
                  const uint8_t *value)
{
    WT_CURSOR *cursor = session->cursor;
    WT_ITEM item = {.data = value, .size = session->value_len};

    set_key(cursor, key);
    cursor->set_value(cursor, &item);
    return cursor->insert(cursor);
}

/* A conflict with another writer is its way to say: again. */
static void put(struct peer_session *session, const uint8_t *key,
                const uint8_t *value, bool exists)
{
    int result;

    (void)exists;
    do
        result = insert(session, key, value);
    while (result == WT_ROLLBACK);
    must(result, "insert");
    must(session->cursor->reset(session->cursor), "reset");
}

static void erase(struct peer_session *session, const uint8_t *key)
{
    WT_CURSOR *cursor = session->cursor;
    int result;

    do {
        set_key(cursor, key);
        result = cursor->remove(cursor);
    } while (result == WT_ROLLBACK);
    if (result != WT_NOTFOUND)
        must(result, "remove");
    must(cursor->reset(cursor), "reset");
}

static int commit_many(struct peer_session *session,
                       const struct peer_record *records, size_t n)
{
    WT_SESSION *in = session->session;
    int result = in->begin_transaction(in, NULL);

    for (size_t i = 0; i < n && result == 0; i++)
        result = insert(session, records[i].key, records[i].value);
    if (result == 0)
        return in->commit_transaction(in, NULL);
    must(in->rollback_transaction(in, NULL), "rollback");
    return result;
}

static void put_many(struct peer_session *session,
                     const struct peer_record *records, size_t n, bool exist)
{
    int result;

    (void)exist;
    do
        result = commit_many(session, records, n);
    while (result == WT_ROLLBACK);
    must(result, "commit");
}

static size_t get_many(struct peer_session *session,
                       struct peer_record *records, size_t n)
{
    WT_SESSION *in = session->session;
    size_t found = 0;

    must(in->begin_transaction(in, NULL), "begin");
    for (size_t i = 0; i < n; i++)
        found += get(session, records[i].key, records[i].value);
    must(in->commit_transaction(in, NULL), "commit");
    return found;
}

static int scan_start(WT_CURSOR *cursor, const struct peer_scan *scan)
{
    int result, side;

    if (!scan->from)
        return scan->back ? cursor->prev(cursor) : cursor->next(cursor);
    set_key(cursor, scan->from);
    result = cursor->search_near(cursor, &side);
    if (result)
        return result;
    if (scan->back && side > 0)
        return cursor->prev(cursor);
    if (!scan->back && side < 0)
        return cursor->next(cursor);
    return 0;
}

static void scan(struct peer_session *session, struct peer_scan *scan)
{
    WT_CURSOR *cursor = session->cursor;
    WT_ITEM key, value;
    int result;

    for (result = scan_start(cursor, scan); result == 0;
         result = scan->back ? cursor->prev(cursor) : cursor->next(cursor)) {
        must(cursor->get_key(cursor, &key), "key");
        must(cursor->get_value(cursor, &value), "value");
        if (!peer_scan_row(scan, key.data, key.size, value.data, value.size))
            break;
    }
    if (result != WT_NOTFOUND)
        must(result, "cursor");
    must(cursor->reset(cursor), "reset");
}

const struct peer_kind peer_wiredtiger = {
    .name = "wiredtiger",
    .abilities =
        PEER_CAN_BATCH | PEER_CAN_BACK | PEER_CAN_SYNC | PEER_CAN_REOPEN,
    .multi_get_by = "one read transaction",
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
