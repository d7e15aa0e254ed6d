/*
 * LMDB.  Writes go into a transaction that stays open until a snapshot, a batch
 * or a transaction is to begin: what its own reads see is the same.
 */
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "rival.h"

enum { WRITES_MAX = 500 }; /* of a transaction */

struct store {
    MDB_env *env;
    MDB_dbi tree[RIVAL_TREES];
    MDB_txn *txn;
    unsigned writes;
    MDB_txn *past[RIVAL_PASTS];
};

static void check(int code, const char *what)
{
    if (code != MDB_SUCCESS)
        fail_msg("lmdb: %s: %s", what, mdb_strerror(code));
}

/* Whether there is one. */
static bool found(int code, const char *what)
{
    if (code == MDB_NOTFOUND)
        return false;
    check(code, what);
    return true;
}

static MDB_val val_of(bft_slice slice)
{
    MDB_val val = {slice.len, NULL};
    /* Without its const: nothing writes through it. */
    memcpy(&val.mv_data, &slice.data, sizeof(val.mv_data));
    return val;
}

static bft_slice slice_of(MDB_val val)
{
    bft_slice slice = {val.mv_data, val.mv_size};
    return slice;
}

static void commit(struct store *s)
{
    if (s->txn)
        check(mdb_txn_commit(s->txn), "commit");
    s->txn = NULL;
    s->writes = 0;
}

static MDB_txn *begin(struct store *s)
{
    if (s->writes++ >= WRITES_MAX)
        commit(s);
    if (!s->txn)
        check(mdb_txn_begin(s->env, NULL, 0, &s->txn), "begin");
    return s->txn;
}

static void *store_open(const char *dir)
{
    struct store *s = calloc(1, sizeof(*s));
    char path[400];

    assert_non_null(s);
    snprintf(path, sizeof(path), "%s/lmdb", dir);
    (void)mkdir(path, 0777);
    check(mdb_env_create(&s->env), "create");
    check(mdb_env_set_mapsize(s->env, (size_t)8 << 30), "set the map's size");
    check(mdb_env_set_maxdbs(s->env, RIVAL_TREES), "set the trees");
    check(mdb_env_open(s->env, path, MDB_NOSYNC | MDB_NOTLS, 0666), "open");
    for (unsigned t = 0; t < RIVAL_TREES; t++) {
        char name[8];
        snprintf(name, sizeof(name), "t%u", t);
        check(mdb_dbi_open(begin(s), name, MDB_CREATE, &s->tree[t]),
              "open a tree");
    }
    commit(s);
    return s;
}

static void store_close(void *store)
{
    struct store *s = store;
    commit(s);
    for (unsigned p = 0; p < RIVAL_PASTS; p++)
        if (s->past[p])
            mdb_txn_abort(s->past[p]);
    mdb_env_close(s->env);
    free(s);
}

/* --- reading ------------------------------------------------------------------ */

static void get(MDB_txn *txn, MDB_dbi tree, bft_slice slice,
                struct rival_answer *answer)
{
    MDB_val key = val_of(slice), value;
    bool there = found(mdb_get(txn, tree, &key, &value), "get");
    bft_slice got = there ? slice_of(value) : (bft_slice){NULL, 0};
    rival_say_found(answer, there ? &got : NULL);
}

/* To the first record from TO on, or with BACKWARD to the last one before it;
 * an empty TO: the first or last of all. */
static bool place(MDB_cursor *cursor, bft_slice to, bool backward, MDB_val *key,
                  MDB_val *value)
{
    bool there;
    *key = val_of(to);
    if (to.len == 0)
        return found(
            mdb_cursor_get(cursor, key, value, backward ? MDB_LAST : MDB_FIRST),
            "first or last");
    there = found(mdb_cursor_get(cursor, key, value, MDB_SET_RANGE), "seek");
    if (!backward)
        return there;
    return found(
        mdb_cursor_get(cursor, key, value, there ? MDB_PREV : MDB_LAST),
        "seek back");
}

static bool step(MDB_cursor *cursor, bool backward, MDB_val *key,
                 MDB_val *value)
{
    return found(
        mdb_cursor_get(cursor, key, value, backward ? MDB_PREV : MDB_NEXT),
        "step");
}

static bool in_range(const struct rival_op *op, bool backward, MDB_val key)
{
    return backward ? rival_compare(slice_of(key), op->key) >= 0
                    : op->high.len == 0 ||
                          rival_compare(slice_of(key), op->high) < 0;
}

static void scan(MDB_txn *txn, MDB_dbi tree, const struct rival_op *op,
                 size_t limit, struct rival_answer *answer)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    bool back = op->backward;
    check(mdb_cursor_open(txn, tree, &cursor), "open a cursor");
    for (bool there =
             place(cursor, back ? op->high : op->key, back, &key, &value);
         there && answer->number < limit && in_range(op, back, key);
         there = step(cursor, back, &key, &value))
        rival_say_record(answer, slice_of(key), slice_of(value));
    mdb_cursor_close(cursor);
}

static void seek(MDB_txn *txn, MDB_dbi tree, const struct rival_op *op,
                 struct rival_answer *answer)
{
    bool backward = op->how == BFT_LE || op->how == BFT_LT;
    MDB_cursor *cursor;
    MDB_val key = val_of(op->key), value;
    bool equal, there;
    check(mdb_cursor_open(txn, tree, &cursor), "open a cursor");
    equal = found(mdb_cursor_get(cursor, &key, &value, MDB_SET_KEY), "seek");
    if (equal && op->how != BFT_GT && op->how != BFT_LT) {
        there = true;
    } else if (op->how == BFT_EQ) {
        there = false;
    } else {
        there = place(cursor, op->key, backward, &key, &value);
        if (there && equal && op->how == BFT_GT)
            there = step(cursor, false, &key, &value);
    }
    answer->status = there ? BFT_OK : BFT_NOT_FOUND;
    if (there)
        rival_say_record(answer, slice_of(key), slice_of(value));
    mdb_cursor_close(cursor);
}

/* --- writing ------------------------------------------------------------------ */

static void change(MDB_txn *txn, MDB_dbi tree, bft_slice k, const bft_slice *v)
{
    MDB_val key = val_of(k), value;
    if (!v) {
        (void)found(mdb_del(txn, tree, &key, NULL), "delete");
        return;
    }
    value = val_of(*v);
    check(mdb_put(txn, tree, &key, &value, 0), "put");
}

static void replace(MDB_txn *txn, MDB_dbi tree, const struct rival_op *op,
                    struct rival_answer *answer)
{
    MDB_val key = val_of(op->key), value;
    bool there = found(mdb_get(txn, tree, &key, &value), "get");
    bool same = op->value.data
                    ? there && rival_compare(slice_of(value), op->value) == 0
                    : !there;
    answer->status = same ? BFT_OK : BFT_CONFLICT;
    if (same)
        change(txn, tree, op->key, op->value2.data ? &op->value2 : NULL);
}

static void insert(MDB_txn *txn, MDB_dbi tree, const struct rival_op *op,
                   struct rival_answer *answer)
{
    MDB_val key = val_of(op->key), value = val_of(op->value);
    int code = mdb_put(txn, tree, &key, &value, MDB_NOOVERWRITE);
    answer->status = code == MDB_KEYEXIST ? BFT_EXISTS : BFT_OK;
    if (code != MDB_KEYEXIST)
        check(code, "insert");
}

/* Count the records of the range, and delete them if asked to. */
static void count(MDB_txn *txn, MDB_dbi tree, const struct rival_op *op,
                  bool deleting, struct rival_answer *answer)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    check(mdb_cursor_open(txn, tree, &cursor), "open a cursor");
    for (bool there = place(cursor, op->key, false, &key, &value);
         there && in_range(op, false, key);
         there = step(cursor, false, &key, &value)) {
        if (deleting)
            check(mdb_cursor_del(cursor, 0), "delete");
        answer->number++;
    }
    mdb_cursor_close(cursor);
}

static void txn(struct store *s, const struct rival_op *op,
                struct rival_answer *answer)
{
    MDB_txn *own;
    bool is_txn = op->kind == RIVAL_TXN;
    commit(s);
    own = begin(s);
    for (size_t i = 0; i < op->changes; i++) {
        const struct rival_change *c = &op->change[i];
        change(own, s->tree[c->tree], c->key, c->there ? &c->value : NULL);
        c = &op->change[op->changes - 1 - i];
        if (is_txn)
            get(own, s->tree[c->tree], c->key, answer);
    }
    if (is_txn)
        scan(own, s->tree[op->tree], op, op->limit, answer);
    if (is_txn && !op->commit) {
        mdb_txn_abort(own);
        s->txn = NULL;
    }
    commit(s);
}

/* --- one operation ------------------------------------------------------------ */

static void past(struct store *s, const struct rival_op *op,
                 struct rival_answer *answer)
{
    MDB_txn **past = &s->past[op->past];
    switch (op->kind) {
    case RIVAL_PAST_TAKE:
        commit(s);
        check(mdb_txn_begin(s->env, NULL, MDB_RDONLY, past), "begin to read");
        break;
    case RIVAL_PAST_GET:
        get(*past, s->tree[op->tree], op->key, answer);
        break;
    case RIVAL_PAST_SCAN:
        scan(*past, s->tree[op->tree], op, op->limit, answer);
        break;
    default:
        mdb_txn_abort(*past);
        *past = NULL;
    }
}

static void run(void *store, const struct rival_op *op,
                struct rival_answer *answer)
{
    struct store *s = store;
    MDB_dbi tree = s->tree[op->tree];

    switch (op->kind) {
    case RIVAL_PUT:
        change(begin(s), tree, op->key, &op->value);
        break;
    case RIVAL_INSERT:
        insert(begin(s), tree, op, answer);
        break;
    case RIVAL_REPLACE:
        replace(begin(s), tree, op, answer);
        break;
    case RIVAL_DELETE:
        change(begin(s), tree, op->key, NULL);
        break;
    case RIVAL_GET:
        get(begin(s), tree, op->key, answer);
        break;
    case RIVAL_SEEK:
        seek(begin(s), tree, op, answer);
        break;
    case RIVAL_SCAN:
        scan(begin(s), tree, op, op->limit, answer);
        break;
    case RIVAL_COUNT:
        count(begin(s), tree, op, false, answer);
        break;
    case RIVAL_END:
        scan(begin(s), tree, op, 1, answer);
        answer->status = answer->number ? BFT_OK : BFT_NOT_FOUND;
        break;
    case RIVAL_DELETE_RANGE:
        count(begin(s), tree, op, true, answer);
        break;
    case RIVAL_BATCH:
    case RIVAL_TXN:
        txn(s, op, answer);
        break;
    default:
        past(s, op, answer);
    }
}

const struct rival rival_lmdb = {"lmdb", store_open, store_close, run};
