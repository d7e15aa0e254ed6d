/*
 * The comparison's adapter for SQLite: one connection, one WITHOUT ROWID table,
 * every statement prepared once.
 */
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

enum { PAGE = 4096 };

enum statement {
    GET,
    INSERT,
    UPDATE,
    ERASE,
    BEGIN,
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
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    /* A caller that wants fewer rows stops asking: no LIMIT to count. */
    [FORWARD] = "SELECT k, v FROM t WHERE k >= ?1 ORDER BY k",
    [BACKWARD] = "SELECT k, v FROM t WHERE k <= ?1 ORDER BY k DESC",
    [FIRST] = "SELECT k, v FROM t ORDER BY k",
    [LAST] = "SELECT k, v FROM t ORDER BY k DESC",
};

struct store {
    sqlite3 *db;
    sqlite3_stmt *statement[STATEMENTS];
};

static void must(struct store *store, bool fine, const char *what)
{
    if (!fine)
        rig_die("sqlite: %s: %s", what, sqlite3_errmsg(store->db));
}

static void run(struct store *store, const char *text)
{
    must(store, sqlite3_exec(store->db, text, NULL, NULL, NULL) == SQLITE_OK,
         text);
}

static unsigned long long log_pages(const struct store_config *config)
{
    return (unsigned long long)(config->log_bytes / PAGE);
}

static void describe(FILE *to, const struct store_config *config)
{
    fprintf(to,
            "SQLite %s: WAL, synchronous=%s, cache_size %llu KiB, "
            "wal_autocheckpoint %llu pages, page_size %d, locking_mode=%s, "
            "no mmap, WITHOUT ROWID, BLOB keys, statements prepared once, "
            "no mutexes (one connection, one thread)",
            sqlite3_libversion(), config->sync ? "FULL" : "NORMAL",
            (unsigned long long)(config->memory_bytes >> 10), log_pages(config),
            PAGE, config->shared_file ? "NORMAL" : "EXCLUSIVE");
}

static void set_up(struct store *store, const struct store_config *config)
{
    char text[128];

    snprintf(text, sizeof(text), "PRAGMA page_size = %d", PAGE);
    run(store, text);
    if (!config->shared_file)
        run(store, "PRAGMA locking_mode = EXCLUSIVE");
    run(store, "PRAGMA journal_mode = WAL");
    run(store, config->sync ? "PRAGMA synchronous = FULL"
                            : "PRAGMA synchronous = NORMAL");
    snprintf(text, sizeof(text), "PRAGMA cache_size = -%llu",
             (unsigned long long)(config->memory_bytes >> 10));
    run(store, text);
    snprintf(text, sizeof(text), "PRAGMA wal_autocheckpoint = %llu",
             log_pages(config));
    run(store, text);
    run(store, "PRAGMA mmap_size = 0");
    run(store, "CREATE TABLE t(k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID");
}

static struct store *open_store(const struct store_config *config)
{
    struct store *store = calloc(1, sizeof(*store));
    char path[4096];

    if (!store)
        rig_die("out of memory");
    rig_make_dir(config->dir);
    snprintf(path, sizeof(path), "%s/bench.sqlite", config->dir);
    must(store,
         sqlite3_open_v2(path, &store->db,
                         SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
                             SQLITE_OPEN_NOMUTEX,
                         NULL) == SQLITE_OK,
         path);
    set_up(store, config);
    for (int i = 0; i < STATEMENTS; i++)
        must(store,
             sqlite3_prepare_v3(store->db, statement_text[i], -1,
                                SQLITE_PREPARE_PERSISTENT, &store->statement[i],
                                NULL) == SQLITE_OK,
             statement_text[i]);
    return store;
}

static void close_store(struct store *store)
{
    for (int i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(store->statement[i]);
    must(store, sqlite3_close(store->db) == SQLITE_OK, "close");
    free(store);
}

static void bind(struct store *store, sqlite3_stmt *statement, int at,
                 const uint8_t *data, int len)
{
    must(store,
         sqlite3_bind_blob(statement, at, data, len, SQLITE_STATIC) ==
             SQLITE_OK,
         "bind");
}

static void step_to_end(struct store *store, enum statement which,
                        const uint8_t *key, const uint8_t *value)
{
    sqlite3_stmt *statement = store->statement[which];

    if (key)
        bind(store, statement, 1, key, RIG_KEY);
    if (value)
        bind(store, statement, 2, value, RIG_VALUE);
    must(store, sqlite3_step(statement) == SQLITE_DONE, statement_text[which]);
    must(store, sqlite3_reset(statement) == SQLITE_OK, statement_text[which]);
}

static bool get(struct store *store, const uint8_t *key,
                uint8_t value[RIG_VALUE])
{
    sqlite3_stmt *statement = store->statement[GET];
    int result;

    bind(store, statement, 1, key, RIG_KEY);
    result = sqlite3_step(statement);
    must(store, result == SQLITE_ROW || result == SQLITE_DONE, "get");
    if (result == SQLITE_ROW) {
        const void *found = sqlite3_column_blob(statement, 0);

        if (sqlite3_column_bytes(statement, 0) != RIG_VALUE)
            rig_die("sqlite: a value of another length");
        memcpy(value, found, RIG_VALUE);
    }
    must(store, sqlite3_reset(statement) == SQLITE_OK, "get");
    return result == SQLITE_ROW;
}

static void update(struct store *store, const uint8_t *key,
                   const uint8_t *value)
{
    step_to_end(store, UPDATE, key, value);
    if (sqlite3_changes(store->db) != 1)
        rig_die("sqlite: nothing to update");
}

static void erase(struct store *store, const uint8_t *key)
{
    step_to_end(store, ERASE, key, NULL);
}

static void begin(struct store *store)
{
    step_to_end(store, BEGIN, NULL, NULL);
}

static void insert_in(struct store *store, const uint8_t *key,
                      const uint8_t *value)
{
    step_to_end(store, INSERT, key, value);
}

static void commit(struct store *store)
{
    step_to_end(store, COMMIT, NULL, NULL);
}

static size_t scan(struct store *store, const uint8_t *from, bool back,
                   size_t rows)
{
    enum statement which =
        from ? (back ? BACKWARD : FORWARD) : (back ? LAST : FIRST);
    sqlite3_stmt *statement = store->statement[which];
    uint8_t last[RIG_KEY];
    size_t seen = 0;
    int result = SQLITE_ROW;

    if (from)
        bind(store, statement, 1, from, RIG_KEY);
    while (seen < rows && (result = sqlite3_step(statement)) == SQLITE_ROW) {
        const uint8_t *key = sqlite3_column_blob(statement, 0);
        const uint8_t *value = sqlite3_column_blob(statement, 1);

        if (sqlite3_column_bytes(statement, 0) != RIG_KEY ||
            !rig_value_begins(key, value,
                              (size_t)sqlite3_column_bytes(statement, 1)))
            rig_die("sqlite: a row that holds what is not its own");
        if (seen && (memcmp(last, key, RIG_KEY) < 0) == back)
            rig_die("sqlite: rows out of order");
        memcpy(last, key, RIG_KEY);
        seen++;
    }
    must(store, result == SQLITE_ROW || result == SQLITE_DONE, "scan");
    must(store, sqlite3_reset(statement) == SQLITE_OK, "scan");
    return seen;
}

static void settle(struct store *store)
{
    /* All of it; the file keeps its length, as between a user's checkpoints. */
    must(store,
         sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_RESTART,
                                   NULL, NULL) == SQLITE_OK,
         "checkpoint");
}

const struct store_kind store_sqlite = {
    .name = "sqlite",
    .describe = describe,
    .open = open_store,
    .close = close_store,
    .get = get,
    .update = update,
    .erase = erase,
    .begin = begin,
    .insert_in = insert_in,
    .update_in = update,
    .commit = commit,
    .scan = scan,
    .settle = settle,
};
