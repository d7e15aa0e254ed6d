/*
 * compare_engines' adapter for SQLite: one connection for each thread, one
 * table, every statement prepared once.
 *
 * Advice that was followed, by page of sqlite.org:
 *   wal.html              WAL: "significantly faster in most scenarios"; OFF or
 *                         NORMAL instead of FULL where a power cut may lose the
 *                         end of the log.
 *   pragma.html           synchronous, cache_size, mmap_size, wal_autocheckpoint.
 *   mmap.html             mapped reads where all fits; none under a bound, where
 *                         a fault cannot be told from a hit.
 *   withoutrowid.html     for tables with a non-integer key and small rows: of
 *                         long ones more than a quarter of a page goes to pages
 *                         of its own, so where all fits pages are larger then,
 *                         and under a bound the table has row numbers.
 *   pragma.html           a log that was checkpointed is overwritten from its
 *                         begin: it is not cut off between cells, as no user
 *                         would, since a sync of a file that grows costs more.
 *   threadsafe.html       NOMUTEX: a connection is used by one thread.
 *   lang_transaction.html BEGIN IMMEDIATE for transactions that write.
 * Writers take a mutex of ours, because SQLite's own way to wait for another
 * writer is to sleep and try again.
 */
#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>

#include "peer.h"

enum statement {
    GET,
    INSERT,
    UPDATE,
    ERASE,
    BEGIN_WRITE,
    BEGIN_READ,
    COMMIT,
    FORWARD,
    BACKWARD,
    FIRST,
    LAST,
    STATEMENTS,
};

static const char *const statement_text[STATEMENTS] = {
    [GET] = "SELECT v FROM t WHERE k = ?1",
    [INSERT] = "INSERT INTO t(k, v) VALUES(?1, ?2)",
    [UPDATE] = "UPDATE t SET v = ?2 WHERE k = ?1",
    [ERASE] = "DELETE FROM t WHERE k = ?1",
    [BEGIN_WRITE] = "BEGIN IMMEDIATE",
    [BEGIN_READ] = "BEGIN",
    [COMMIT] = "COMMIT",
    [FORWARD] = "SELECT k, v FROM t WHERE k >= ?1 ORDER BY k",
    [BACKWARD] = "SELECT k, v FROM t WHERE k <= ?1 ORDER BY k DESC",
    [FIRST] = "SELECT k, v FROM t ORDER BY k",
    [LAST] = "SELECT k, v FROM t ORDER BY k DESC",
};

struct peer {
    struct peer_config config;
    char path[4096];
    pthread_mutex_t writer;
};

struct peer_session {
    struct peer *peer;
    sqlite3 *db;
    sqlite3_stmt *statement[STATEMENTS];
};

static void must(sqlite3 *db, bool fine, const char *what)
{
    if (!fine)
        rig_die("sqlite: %s: %s", what, sqlite3_errmsg(db));
}

enum { SHORT = 200, LARGE_PAGE = 16384, SMALL_PAGE = 4096 };

static bool larger(const struct peer_config *config)
{
    return config->setting == PEER_LARGER;
}

static unsigned page_bytes(const struct peer_config *config)
{
    return config->value_len > SHORT && !larger(config) ? LARGE_PAGE
                                                        : SMALL_PAGE;
}

static const char *table(const struct peer_config *config)
{
    return config->value_len > SHORT && larger(config) ? "" : " WITHOUT ROWID";
}

/* A bound of its own would leave the kernel's cache, which the cgroup counts
 * too, too little: the kernel's is the large one there. */
static uint64_t cache_kib(const struct peer_config *config)
{
    if (!larger(config))
        return config->memory_bytes >> 10;
    if (config->filling)
        return UINT64_C(512) << 10;
    return config->memory_bytes / 16 / config->threads >> 10;
}

static unsigned wal_pages(const struct peer_config *config)
{
    return (larger(config) ? 64 : 256) * (PEER_MIB / page_bytes(config));
}

static uint64_t mmap_bytes(const struct peer_config *config)
{
    return larger(config) ? 0 : config->memory_bytes;
}

static const char *synchronous(const struct peer_config *config)
{
    return config->setting == PEER_SYNC ? "FULL" : "OFF";
}

static void describe(FILE *to, const struct peer_config *config)
{
    fprintf(to,
            "SQLite %s: WAL, synchronous=%s, cache_size %llu KiB for each "
            "connection, mmap_size %llu MiB, wal_autocheckpoint %u pages, "
            "page_size %u, %s, BLOB key, one connection for each thread, "
            "writers behind a mutex of the bench",
            sqlite3_libversion(), synchronous(config),
            (unsigned long long)cache_kib(config),
            (unsigned long long)mmap_bytes(config) / PEER_MIB,
            wal_pages(config), page_bytes(config),
            *table(config) ? "WITHOUT ROWID" : "rowid table");
}

static void run(sqlite3 *db, const char *format, unsigned long long value)
{
    char text[128];

    snprintf(text, sizeof(text), format, value);
    must(db, sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK, text);
}

static sqlite3 *connect(struct peer *peer)
{
    const struct peer_config *config = &peer->config;
    sqlite3 *db = NULL;
    char text[128];

    must(db,
         sqlite3_open_v2(peer->path, &db,
                         SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
                             SQLITE_OPEN_NOMUTEX,
                         NULL) == SQLITE_OK,
         peer->path);
    sqlite3_busy_timeout(db, 60000);
    run(db, "PRAGMA page_size = %llu", page_bytes(config));
    run(db, "PRAGMA journal_mode = WAL", 0);
    snprintf(text, sizeof(text), "PRAGMA synchronous = %s",
             synchronous(config));
    must(db, sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK, text);
    run(db, "PRAGMA cache_size = -%llu", cache_kib(config));
    run(db, "PRAGMA mmap_size = %llu", mmap_bytes(config));
    run(db, "PRAGMA wal_autocheckpoint = %llu", wal_pages(config));
    snprintf(text, sizeof(text),
             "CREATE TABLE IF NOT EXISTS t(k BLOB PRIMARY KEY, v BLOB)%s",
             table(config));
    must(db, sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK, text);
    return db;
}

static struct peer *open_peer(const struct peer_config *config)
{
    struct peer *peer = calloc(1, sizeof(*peer));

    if (!peer || pthread_mutex_init(&peer->writer, NULL))
        rig_die("out of memory");
    peer->config = *config;
    rig_make_dir(config->dir);
    snprintf(peer->path, sizeof(peer->path), "%s/bench.sqlite", config->dir);
    return peer;
}

static void close_peer(struct peer *peer)
{
    pthread_mutex_destroy(&peer->writer);
    free(peer);
}

static void settle(struct peer *peer)
{
    sqlite3 *db = connect(peer);
    int result = sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_RESTART,
                                           NULL, NULL);

    must(db, result == SQLITE_OK, "checkpoint");
    must(db, sqlite3_close(db) == SQLITE_OK, "close");
}

static struct peer_session *session_open(struct peer *peer)
{
    struct peer_session *session = calloc(1, sizeof(*session));

    if (!session)
        rig_die("out of memory");
    session->peer = peer;
    session->db = connect(peer);
    for (int i = 0; i < STATEMENTS; i++)
        must(session->db,
             sqlite3_prepare_v3(session->db, statement_text[i], -1,
                                SQLITE_PREPARE_PERSISTENT,
                                &session->statement[i], NULL) == SQLITE_OK,
             statement_text[i]);
    return session;
}

static void session_close(struct peer_session *session)
{
    for (int i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(session->statement[i]);
    must(session->db, sqlite3_close(session->db) == SQLITE_OK, "close");
    free(session);
}

static void bind(struct peer_session *session, enum statement which, int at,
                 const uint8_t *data, size_t len)
{
    must(session->db,
         sqlite3_bind_blob(session->statement[which], at, data, (int)len,
                           SQLITE_STATIC) == SQLITE_OK,
         "bind");
}

static void step_to_end(struct peer_session *session, enum statement which,
                        const uint8_t *key, const uint8_t *value)
{
    sqlite3_stmt *statement = session->statement[which];

    if (key)
        bind(session, which, 1, key, RIG_KEY);
    if (value)
        bind(session, which, 2, value, session->peer->config.value_len);
    must(session->db, sqlite3_step(statement) == SQLITE_DONE,
         statement_text[which]);
    must(session->db, sqlite3_reset(statement) == SQLITE_OK,
         statement_text[which]);
}

static bool get(struct peer_session *session, const uint8_t *key,
                uint8_t *value)
{
    sqlite3_stmt *statement = session->statement[GET];
    int result;

    bind(session, GET, 1, key, RIG_KEY);
    result = sqlite3_step(statement);
    must(session->db, result == SQLITE_ROW || result == SQLITE_DONE, "get");
    if (result == SQLITE_ROW) {
        const void *found = sqlite3_column_blob(statement, 0);

        peer_value_copy("sqlite", value, found,
                        (size_t)sqlite3_column_bytes(statement, 0),
                        session->peer->config.value_len);
    }
    must(session->db, sqlite3_reset(statement) == SQLITE_OK, "get");
    return result == SQLITE_ROW;
}

static void put(struct peer_session *session, const uint8_t *key,
                const uint8_t *value, bool exists)
{
    pthread_mutex_lock(&session->peer->writer);
    step_to_end(session, exists ? UPDATE : INSERT, key, value);
    pthread_mutex_unlock(&session->peer->writer);
    if (sqlite3_changes(session->db) != 1)
        rig_die("sqlite: nothing to update");
}

static void erase(struct peer_session *session, const uint8_t *key)
{
    pthread_mutex_lock(&session->peer->writer);
    step_to_end(session, ERASE, key, NULL);
    pthread_mutex_unlock(&session->peer->writer);
}

static void put_many(struct peer_session *session,
                     const struct peer_record *records, size_t n, bool exist)
{
    pthread_mutex_lock(&session->peer->writer);
    step_to_end(session, BEGIN_WRITE, NULL, NULL);
    for (size_t i = 0; i < n; i++)
        step_to_end(session, exist ? UPDATE : INSERT, records[i].key,
                    records[i].value);
    step_to_end(session, COMMIT, NULL, NULL);
    pthread_mutex_unlock(&session->peer->writer);
}

static size_t get_many(struct peer_session *session,
                       struct peer_record *records, size_t n)
{
    size_t found = 0;

    step_to_end(session, BEGIN_READ, NULL, NULL);
    for (size_t i = 0; i < n; i++)
        found += get(session, records[i].key, records[i].value);
    step_to_end(session, COMMIT, NULL, NULL);
    return found;
}

static void scan(struct peer_session *session, struct peer_scan *scan)
{
    enum statement which = scan->from ? (scan->back ? BACKWARD : FORWARD)
                                      : (scan->back ? LAST : FIRST);
    sqlite3_stmt *statement = session->statement[which];
    int result;

    if (scan->from)
        bind(session, which, 1, scan->from, RIG_KEY);
    while ((result = sqlite3_step(statement)) == SQLITE_ROW) {
        const void *key = sqlite3_column_blob(statement, 0);
        const void *value = sqlite3_column_blob(statement, 1);

        if (!peer_scan_row(scan, key,
                           (size_t)sqlite3_column_bytes(statement, 0), value,
                           (size_t)sqlite3_column_bytes(statement, 1)))
            break;
    }
    must(session->db, result == SQLITE_ROW || result == SQLITE_DONE, "scan");
    must(session->db, sqlite3_reset(statement) == SQLITE_OK, "scan");
}

const struct peer_kind peer_sqlite = {
    .name = "sqlite",
    .abilities =
        PEER_CAN_BATCH | PEER_CAN_BACK | PEER_CAN_SYNC | PEER_CAN_REOPEN,
    .multi_get_by = "one read transaction",
    .settled = "wal_checkpoint(RESTART)",
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
