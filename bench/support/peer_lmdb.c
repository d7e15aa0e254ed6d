/*
 * compare_engines' adapter for LMDB.
 *
 * Advice that was followed, from lmdb.h:
 *   mdb_env_open, MDB_NOSYNC and MDB_WRITEMAP  where a power cut may lose the
 *       latest commits; neither where each must survive.
 *   MDB_NORDAHEAD  "may help random read performance when the DB is larger than
 *       RAM": in the bounded setting only.
 *   MDB_NOMEMINIT  no zeroes into fresh pages.
 *   MDB_NOTLS, mdb_txn_renew  a thread keeps its read transaction and renews it
 *       instead of making one for each get; so too mdb_cursor_renew.
 *   MDB_APPEND is not used: it is for loads that know their keys to ascend,
 *       which no other adapter is told either.
 * Old by 2019: Debian 12 ships 0.9.24.
 */
#include <lmdb.h>
#include <stdlib.h>

#include "peer.h"

struct peer {
    MDB_env *env;
    MDB_dbi dbi;
    size_t value_len;
};

struct peer_session {
    struct peer *peer;
    MDB_txn *reader;
    MDB_cursor *cursor; /* bound to reader */
};

static void must(int result, const char *what)
{
    if (result)
        rig_die("lmdb: %s: %s", what, mdb_strerror(result));
}

static unsigned flags_of(const struct peer_config *config)
{
    unsigned flags = MDB_NOTLS | MDB_NOMEMINIT;

    if (config->setting != PEER_SYNC)
        flags |= MDB_NOSYNC | MDB_WRITEMAP;
    if (config->setting == PEER_LARGER)
        flags |= MDB_NORDAHEAD;
    return flags;
}

static void describe(FILE *to, const struct peer_config *config)
{
    fprintf(to,
            "LMDB %d.%d.%d: %sNOTLS, NOMEMINIT%s, map of 64 GiB; its cache is "
            "the kernel's; readers renewed, not reopened",
            MDB_VERSION_MAJOR, MDB_VERSION_MINOR, MDB_VERSION_PATCH,
            config->setting == PEER_SYNC ? "" : "NOSYNC, WRITEMAP, ",
            config->setting == PEER_LARGER ? ", NORDAHEAD" : "");
}

static struct peer *open_peer(const struct peer_config *config)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    MDB_txn *txn;

    if (!peer)
        rig_die("out of memory");
    peer->value_len = config->value_len;
    rig_make_dir(config->dir);
    must(mdb_env_create(&peer->env), "create");
    must(mdb_env_set_mapsize(peer->env, (size_t)64 << 30), "map size");
    must(mdb_env_open(peer->env, config->dir, flags_of(config), 0644), "open");
    must(mdb_txn_begin(peer->env, NULL, 0, &txn), "begin");
    must(mdb_dbi_open(txn, NULL, 0, &peer->dbi), "table");
    must(mdb_txn_commit(txn), "commit");
    return peer;
}

static void close_peer(struct peer *peer)
{
    must(mdb_env_sync(peer->env, 1), "sync");
    mdb_env_close(peer->env);
    free(peer);
}

static void settle(struct peer *peer)
{
    must(mdb_env_sync(peer->env, 1), "sync");
}

static struct peer_session *session_open(struct peer *peer)
{
    struct peer_session *session = calloc(1, sizeof(*session));

    if (!session)
        rig_die("out of memory");
    session->peer = peer;
    must(mdb_txn_begin(peer->env, NULL, MDB_RDONLY, &session->reader), "begin");
    must(mdb_cursor_open(session->reader, peer->dbi, &session->cursor),
         "cursor");
    mdb_txn_reset(session->reader);
    return session;
}

static void session_close(struct peer_session *session)
{
    mdb_cursor_close(session->cursor);
    mdb_txn_abort(session->reader);
    free(session);
}

static MDB_val of_key(const uint8_t *key)
{
    /* The interface has no const; the library does not write through it. */
    return (MDB_val){RIG_KEY, (void *)(uintptr_t)key};
}

static bool get_in(struct peer_session *session, const uint8_t *key,
                   uint8_t *value)
{
    MDB_val at = of_key(key), found;
    int result = mdb_get(session->reader, session->peer->dbi, &at, &found);

    if (result == MDB_NOTFOUND)
        return false;
    must(result, "get");
    peer_value_copy("lmdb", value, found.mv_data, found.mv_size,
                    session->peer->value_len);
    return true;
}

static bool get(struct peer_session *session, const uint8_t *key,
                uint8_t *value)
{
    bool found;

    must(mdb_txn_renew(session->reader), "renew");
    found = get_in(session, key, value);
    mdb_txn_reset(session->reader);
    return found;
}

static size_t get_many(struct peer_session *session,
                       struct peer_record *records, size_t n)
{
    size_t found = 0;

    must(mdb_txn_renew(session->reader), "renew");
    for (size_t i = 0; i < n; i++)
        found += get_in(session, records[i].key, records[i].value);
    mdb_txn_reset(session->reader);
    return found;
}

static void put_in(struct peer *peer, MDB_txn *txn, const uint8_t *key,
                   const uint8_t *value)
{
    MDB_val at = of_key(key);
    MDB_val data = {peer->value_len, (void *)(uintptr_t)value};

    must(mdb_put(txn, peer->dbi, &at, &data, 0), "put");
}

static void put(struct peer_session *session, const uint8_t *key,
                const uint8_t *value, bool exists)
{
    MDB_txn *txn;

    (void)exists;
    must(mdb_txn_begin(session->peer->env, NULL, 0, &txn), "begin");
    put_in(session->peer, txn, key, value);
    must(mdb_txn_commit(txn), "commit");
}

static void put_many(struct peer_session *session,
                     const struct peer_record *records, size_t n, bool exist)
{
    MDB_txn *txn;

    (void)exist;
    must(mdb_txn_begin(session->peer->env, NULL, 0, &txn), "begin");
    for (size_t i = 0; i < n; i++)
        put_in(session->peer, txn, records[i].key, records[i].value);
    must(mdb_txn_commit(txn), "commit");
}

static void erase(struct peer_session *session, const uint8_t *key)
{
    MDB_val at = of_key(key);
    MDB_txn *txn;
    int result;

    must(mdb_txn_begin(session->peer->env, NULL, 0, &txn), "begin");
    result = mdb_del(txn, session->peer->dbi, &at, NULL);
    if (result != MDB_NOTFOUND)
        must(result, "delete");
    must(mdb_txn_commit(txn), "commit");
}

/* SET_RANGE is a ceiling; the floor is the one before it. */
static int scan_start(struct peer_session *session,
                      const struct peer_scan *scan, MDB_val *key,
                      MDB_val *value)
{
    int result;

    if (!scan->from)
        return mdb_cursor_get(session->cursor, key, value,
                              scan->back ? MDB_LAST : MDB_FIRST);
    *key = of_key(scan->from);
    result = mdb_cursor_get(session->cursor, key, value, MDB_SET_RANGE);
    if (!scan->back)
        return result;
    if (result == MDB_NOTFOUND)
        return mdb_cursor_get(session->cursor, key, value, MDB_LAST);
    if (result == 0 && memcmp(key->mv_data, scan->from, RIG_KEY) != 0)
        return mdb_cursor_get(session->cursor, key, value, MDB_PREV);
    return result;
}

static void scan(struct peer_session *session, struct peer_scan *scan)
{
    MDB_val key, value;
    int result;

    must(mdb_txn_renew(session->reader), "renew");
    must(mdb_cursor_renew(session->reader, session->cursor), "cursor");
    for (result = scan_start(session, scan, &key, &value); result == 0;
         result = mdb_cursor_get(session->cursor, &key, &value,
                                 scan->back ? MDB_PREV : MDB_NEXT))
        if (!peer_scan_row(scan, key.mv_data, key.mv_size, value.mv_data,
                           value.mv_size))
            break;
    if (result != MDB_NOTFOUND)
        must(result, "cursor");
    mdb_txn_reset(session->reader);
}

const struct peer_kind peer_lmdb = {
    .name = "lmdb",
    .abilities =
        PEER_CAN_BATCH | PEER_CAN_BACK | PEER_CAN_SYNC | PEER_CAN_REOPEN,
    .multi_get_by = "one read transaction",
    .settled = "mdb_env_sync",
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
