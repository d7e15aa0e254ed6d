/*
 * SQLite: a table for each tree, a connection for writing and one for each
 * snapshot.  Writes are gathered in a transaction as for LMDB.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rival.h"

enum { WRITES_MAX = 500 }; /* of a transaction */

enum statement {
    GET,
    PUT,
    INSERT,
    DELETE,
    COUNT,
    COUNT_FROM,
    DELETE_RANGE,
    DELETE_FROM,
    FORWARD,
    FORWARD_FROM,
    BACKWARD,
    BACKWARD_FROM,
    SEEK_GE,
    SEEK_GT,
    SEEK_LE,
    SEEK_LT,
    STATEMENTS,
};

/* An empty blob comes before all keys; of what has no end, the form without. */
static const char *const statement_text[STATEMENTS] = {
    [GET] = "SELECT k, v FROM t%u WHERE k = ?1",
    [PUT] = "INSERT OR REPLACE INTO t%u VALUES(?1, ?2)",
    [INSERT] = "INSERT OR IGNORE INTO t%u VALUES(?1, ?2)",
    [DELETE] = "DELETE FROM t%u WHERE k = ?1",
    [COUNT] = "SELECT count(*) FROM t%u WHERE k >= ?1 AND k < ?2",
    [COUNT_FROM] = "SELECT count(*) FROM t%u WHERE k >= ?1",
    [DELETE_RANGE] = "DELETE FROM t%u WHERE k >= ?1 AND k < ?2",
    [DELETE_FROM] = "DELETE FROM t%u WHERE k >= ?1",
    [FORWARD] = "SELECT k, v FROM t%u WHERE k >= ?1 AND k < ?2 ORDER BY k",
    [FORWARD_FROM] = "SELECT k, v FROM t%u WHERE k >= ?1 ORDER BY k",
    [BACKWARD] =
        "SELECT k, v FROM t%u WHERE k >= ?1 AND k < ?2 ORDER BY k DESC",
    [BACKWARD_FROM] = "SELECT k, v FROM t%u WHERE k >= ?1 ORDER BY k DESC",
    [SEEK_GE] = "SELECT k, v FROM t%u WHERE k >= ?1 ORDER BY k LIMIT 1",
    [SEEK_GT] = "SELECT k, v FROM t%u WHERE k > ?1 ORDER BY k LIMIT 1",
    [SEEK_LE] = "SELECT k, v FROM t%u WHERE k <= ?1 ORDER BY k DESC LIMIT 1",
    [SEEK_LT] = "SELECT k, v FROM t%u WHERE k < ?1 ORDER BY k DESC LIMIT 1",
};

struct connection {
    sqlite3 *db;
    sqlite3_stmt *statement[RIVAL_TREES][STATEMENTS];
};

struct store {
    struct connection own, past[RIVAL_PASTS];
    bool in_txn;
    unsigned writes;
};

static void check(const struct connection *c, int code, const char *what)
{
    if (code != SQLITE_OK)
        fail_msg("sqlite: %s: %s", what, sqlite3_errmsg(c->db));
}

static void exec(const struct connection *c, const char *sql)
{
    check(c, sqlite3_exec(c->db, sql, NULL, NULL, NULL), sql);
}

static void connect(struct connection *c, const char *dir)
{
    char path[400];
    snprintf(path, sizeof(path), "%s/sqlite", dir);
    check(c, sqlite3_open(path, &c->db), "open");
    exec(c, "PRAGMA journal_mode=WAL");
    exec(c, "PRAGMA synchronous=OFF");
    exec(c, "PRAGMA cache_size=-65536");
    for (unsigned t = 0; t < RIVAL_TREES; t++) {
        char sql[160];
        snprintf(sql, sizeof(sql),
                 "CREATE TABLE IF NOT EXISTS t%u(k BLOB PRIMARY KEY, "
                 "v BLOB NOT NULL) WITHOUT ROWID",
                 t);
        exec(c, sql);
        for (int i = 0; i < STATEMENTS; i++) {
            /* NOLINTNEXTLINE(clang-diagnostic-format-nonliteral): above */
            snprintf(sql, sizeof(sql), statement_text[i], t);
            check(c,
                  sqlite3_prepare_v2(c->db, sql, -1, &c->statement[t][i], NULL),
                  sql);
        }
    }
}

static void disconnect(struct connection *c)
{
    for (unsigned t = 0; t < RIVAL_TREES; t++)
        for (int i = 0; i < STATEMENTS; i++)
            (void)sqlite3_finalize(c->statement[t][i]);
    check(c, sqlite3_close(c->db), "close");
}

static void commit(struct store *s)
{
    if (s->in_txn)
        exec(&s->own, "COMMIT");
    s->in_txn = false;
    s->writes = 0;
}

static struct connection *begin(struct store *s)
{
    if (s->writes++ >= WRITES_MAX)
        commit(s);
    if (!s->in_txn)
        exec(&s->own, "BEGIN IMMEDIATE");
    s->in_txn = true;
    return &s->own;
}

static void *store_open(const char *dir)
{
    struct store *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    connect(&s->own, dir);
    for (unsigned p = 0; p < RIVAL_PASTS; p++)
        connect(&s->past[p], dir);
    return s;
}

static void store_close(void *store)
{
    struct store *s = store;
    commit(s);
    for (unsigned p = 0; p < RIVAL_PASTS; p++)
        disconnect(&s->past[p]);
    disconnect(&s->own);
    free(s);
}

/* --- statements --------------------------------------------------------------- */

static void bind(struct connection *c, sqlite3_stmt *statement, int at,
                 bft_slice blob)
{
    /* NULL would be no blob. */
    check(c,
          sqlite3_bind_blob64(statement, at, blob.data ? blob.data : "",
                              blob.len, SQLITE_STATIC),
          "bind");
}

/* With its parameters; B is for those that have two. */
static sqlite3_stmt *prepared(struct connection *c, unsigned tree,
                              enum statement which, bft_slice a, bft_slice b)
{
    sqlite3_stmt *statement = c->statement[tree][which];
    bind(c, statement, 1, a);
    if (sqlite3_bind_parameter_count(statement) > 1)
        bind(c, statement, 2, b);
    return statement;
}

static bool row(struct connection *c, sqlite3_stmt *statement)
{
    int code = sqlite3_step(statement);
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        check(c, code, "step");
    return code == SQLITE_ROW;
}

static bft_slice column(sqlite3_stmt *statement, int i)
{
    bft_slice slice = {sqlite3_column_blob(statement, i),
                       (size_t)sqlite3_column_bytes(statement, i)};
    return slice;
}

/* Run one without rows; how many it changed. */
static uint64_t change(struct connection *c, unsigned tree,
                       enum statement which, bft_slice key, bft_slice value)
{
    sqlite3_stmt *statement = prepared(c, tree, which, key, value);
    (void)row(c, statement);
    (void)sqlite3_reset(statement);
    return (uint64_t)sqlite3_changes(c->db);
}

/* --- reading ------------------------------------------------------------------ */

static void get(struct connection *c, unsigned tree, bft_slice key,
                struct rival_answer *answer)
{
    sqlite3_stmt *statement = prepared(c, tree, GET, key, key);
    bool there = row(c, statement);
    bft_slice value = there ? column(statement, 1) : (bft_slice){NULL, 0};
    rival_say_found(answer, there ? &value : NULL);
    (void)sqlite3_reset(statement);
}

static void scan(struct connection *c, const struct rival_op *op, size_t limit,
                 struct rival_answer *answer)
{
    enum statement which = op->backward ? BACKWARD : FORWARD;
    sqlite3_stmt *statement;
    which += op->high.len == 0;
    statement = prepared(c, op->tree, which, op->key, op->high);
    while (answer->number < limit && row(c, statement))
        rival_say_record(answer, column(statement, 0), column(statement, 1));
    (void)sqlite3_reset(statement);
}

static void seek(struct connection *c, const struct rival_op *op,
                 struct rival_answer *answer)
{
    static const enum statement way[] = {
        [BFT_GE] = SEEK_GE, [BFT_GT] = SEEK_GT, [BFT_LE] = SEEK_LE,
        [BFT_LT] = SEEK_LT, [BFT_EQ] = GET,
    };
    sqlite3_stmt *statement =
        prepared(c, op->tree, way[op->how], op->key, op->key);
    bool there = row(c, statement);
    answer->status = there ? BFT_OK : BFT_NOT_FOUND;
    if (there)
        rival_say_record(answer, column(statement, 0), column(statement, 1));
    (void)sqlite3_reset(statement);
}

static void count(struct connection *c, const struct rival_op *op,
                  struct rival_answer *answer)
{
    sqlite3_stmt *statement = prepared(
        c, op->tree, op->high.len ? COUNT : COUNT_FROM, op->key, op->high);
    assert_true(row(c, statement));
    answer->number = (uint64_t)sqlite3_column_int64(statement, 0);
    (void)sqlite3_reset(statement);
}

/* --- writing ------------------------------------------------------------------ */

static void replace(struct connection *c, const struct rival_op *op,
                    struct rival_answer *answer)
{
    sqlite3_stmt *statement = prepared(c, op->tree, GET, op->key, op->key);
    bool there = row(c, statement);
    bool same = op->value.data ? there && rival_compare(column(statement, 1),
                                                        op->value) == 0
                               : !there;
    (void)sqlite3_reset(statement);
    answer->status = same ? BFT_OK : BFT_CONFLICT;
    if (same)
        (void)change(c, op->tree, op->value2.data ? PUT : DELETE, op->key,
                     op->value2);
}

static void txn(struct store *s, const struct rival_op *op,
                struct rival_answer *answer)
{
    bool is_txn = op->kind == RIVAL_TXN;
    struct connection *c;
    commit(s);
    c = begin(s);
    for (size_t i = 0; i < op->changes; i++) {
        const struct rival_change *one = &op->change[i];
        (void)change(c, one->tree, one->there ? PUT : DELETE, one->key,
                     one->value);
        one = &op->change[op->changes - 1 - i];
        if (is_txn)
            get(c, one->tree, one->key, answer);
    }
    if (is_txn)
        scan(c, op, op->limit, answer);
    if (is_txn && !op->commit) {
        exec(c, "ROLLBACK");
        s->in_txn = false;
    }
    commit(s);
}

/* --- one operation ------------------------------------------------------------ */

static void past(struct store *s, const struct rival_op *op,
                 struct rival_answer *answer)
{
    struct connection *c = &s->past[op->past];
    switch (op->kind) {
    case RIVAL_PAST_TAKE:
        commit(s);
        exec(c, "BEGIN");
        exec(c, "SELECT count(*) FROM (SELECT 1 FROM t0 LIMIT 1)");
        break;
    case RIVAL_PAST_GET:
        get(c, op->tree, op->key, answer);
        break;
    case RIVAL_PAST_SCAN:
        scan(c, op, op->limit, answer);
        break;
    default:
        exec(c, "COMMIT");
    }
}

static void run(void *store, const struct rival_op *op,
                struct rival_answer *answer)
{
    struct store *s = store;
    switch (op->kind) {
    case RIVAL_PUT:
        (void)change(begin(s), op->tree, PUT, op->key, op->value);
        break;
    case RIVAL_INSERT:
        answer->status = change(begin(s), op->tree, INSERT, op->key, op->value)
                             ? BFT_OK
                             : BFT_EXISTS;
        break;
    case RIVAL_REPLACE:
        replace(begin(s), op, answer);
        break;
    case RIVAL_DELETE:
        (void)change(begin(s), op->tree, DELETE, op->key, op->key);
        break;
    case RIVAL_GET:
        get(begin(s), op->tree, op->key, answer);
        break;
    case RIVAL_SEEK:
        seek(begin(s), op, answer);
        break;
    case RIVAL_SCAN:
        scan(begin(s), op, op->limit, answer);
        break;
    case RIVAL_COUNT:
        count(begin(s), op, answer);
        break;
    case RIVAL_END:
        scan(begin(s), op, 1, answer);
        answer->status = answer->number ? BFT_OK : BFT_NOT_FOUND;
        break;
    case RIVAL_DELETE_RANGE:
        answer->number = change(begin(s), op->tree,
                                op->high.len ? DELETE_RANGE : DELETE_FROM,
                                op->key, op->high);
        break;
    case RIVAL_BATCH:
    case RIVAL_TXN:
        txn(s, op, answer);
        break;
    default:
        past(s, op, answer);
    }
}

const struct rival rival_sqlite = {"sqlite", store_open, store_close, run};
