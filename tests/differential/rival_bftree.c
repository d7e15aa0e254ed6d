/* The engine, through its installed header, on files and with its threads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"
#include "rival.h"

enum { VALUE_MAX = 256 << 10 };

struct store {
    bft_db *db;
    bft_tree *tree[RIVAL_TREES];
    bft_snapshot *past[RIVAL_PASTS];
    bft_batch *batch;
    uint8_t *buf; /* VALUE_MAX bytes */
};

static void check(bft_status status, const char *what)
{
    char text[400] = "";
    if (status == BFT_OK)
        return;
    (void)bft_last_error(text, sizeof(text));
    fail_msg("bftree: %s: %s: %s", what, bft_strerror(status), text);
}

/* STATUS if it is an answer. */
static bft_status answer_of(bft_status status, const char *what)
{
    if (status != BFT_NOT_FOUND && status != BFT_EXISTS &&
        status != BFT_CONFLICT)
        check(status, what);
    return status;
}

static void *store_open(const char *dir)
{
    /* Mostly larger than memory; leaves are what they were made with. */
    static const uint32_t promote[] = {1, 30, 100};
    struct store *s = calloc(1, sizeof(*s));
    bft_options o = {.size = sizeof(o),
                     .memory_bytes = (uint64_t)(256 << 10) << random_below(3),
                     .log_bytes = 1 << 20,
                     .log_segment_bytes = 64 << 10,
                     .leaf_bytes = 1024,
                     .durability = BFT_NONE,
                     .promote_percent = promote[random_below(3)],
                     .compress = random_below(2),
                     .no_threads = random_below(2)};
    char path[400];

    assert_non_null(s);
    s->buf = malloc(VALUE_MAX);
    assert_non_null(s->buf);
    snprintf(path, sizeof(path), "%s/bftree", dir);
    check(bft_open(path, &o, &s->db), "open");
    for (unsigned t = 0; t < RIVAL_TREES; t++) {
        char name[8];
        snprintf(name, sizeof(name), "t%u", t);
        check(bft_tree_open(s->db, name, NULL, &s->tree[t]), "open a tree");
    }
    check(bft_batch_create(s->db, &s->batch), "make a batch");
    return s;
}

static void store_close(void *store)
{
    struct store *s = store;
    check(bft_verify(s->db), "verify");
    for (unsigned p = 0; p < RIVAL_PASTS; p++)
        bft_snapshot_release(s->past[p]);
    bft_batch_free(s->batch);
    check(bft_close(s->db), "close");
    free(s->buf);
    free(s);
}

static void say_got(struct rival_answer *answer, const struct store *s,
                    bft_status status, size_t len)
{
    bft_slice value = {s->buf, len};
    rival_say_found(answer, answer_of(status, "get") == BFT_OK ? &value : NULL);
}

/* --- cursors ------------------------------------------------------------------ */

static void say_here(struct rival_answer *answer, bft_cursor *cursor)
{
    bft_slice key, value;
    check(bft_cursor_record(cursor, &key, &value), "the record of a cursor");
    rival_say_record(answer, key, value);
}

static void scan(bft_cursor *cursor, const struct rival_op *op,
                 struct rival_answer *answer)
{
    check(bft_cursor_bounds(cursor, op->key, op->high), "bound a cursor");
    while (answer->number < op->limit &&
           answer_of(op->backward ? bft_cursor_prev(cursor)
                                  : bft_cursor_next(cursor),
                     "step") == BFT_OK)
        say_here(answer, cursor);
    bft_cursor_close(cursor);
}

static void seek(const struct store *s, const struct rival_op *op,
                 struct rival_answer *answer)
{
    bft_cursor *cursor;
    check(bft_cursor_open(s->tree[op->tree], &cursor), "open a cursor");
    answer->status =
        answer_of(bft_cursor_seek(cursor, op->how, op->key), "seek");
    if (answer->status == BFT_OK)
        say_here(answer, cursor);
    bft_cursor_close(cursor);
}

static void end_of_range(const struct store *s, const struct rival_op *op,
                         struct rival_answer *answer)
{
    bft_record *record = NULL;
    bft_tree *tree = s->tree[op->tree];
    answer->status =
        answer_of(op->backward ? bft_last(tree, op->key, op->high, &record)
                               : bft_first(tree, op->key, op->high, &record),
                  "the end of a range");
    if (answer->status == BFT_OK)
        rival_say_record(answer, record->key, record->value);
    bft_free(record);
}

/* --- several changes ---------------------------------------------------------- */

static void batch(const struct store *s, const struct rival_op *op)
{
    for (size_t i = 0; i < op->changes; i++) {
        const struct rival_change *c = &op->change[i];
        check(c->there
                  ? bft_batch_put(s->batch, s->tree[c->tree], c->key, c->value)
                  : bft_batch_delete(s->batch, s->tree[c->tree], c->key),
              "add to a batch");
    }
    check(bft_batch_commit(s->batch, BFT_DEFAULT, NULL), "commit a batch");
}

static void txn(const struct store *s, const struct rival_op *op,
                struct rival_answer *answer)
{
    bft_cursor *cursor;
    bft_txn *txn;
    check(bft_txn_begin(s->db,
                        op->past ? BFT_SNAPSHOT_ISOLATION : BFT_SERIALIZABLE,
                        &txn),
          "begin");
    for (size_t i = 0; i < op->changes; i++) {
        const struct rival_change *c = &op->change[i];
        bft_tree *tree = s->tree[c->tree];
        bft_status status;
        size_t len;
        check(c->there ? bft_txn_put(txn, tree, c->key, c->value)
                       : bft_txn_delete(txn, tree, c->key),
              "write in a transaction");
        c = &op->change[op->changes - 1 - i];
        status =
            bft_txn_get(txn, s->tree[c->tree], c->key, s->buf, VALUE_MAX, &len);
        say_got(answer, s, status, len);
    }
    check(bft_txn_cursor(txn, s->tree[op->tree], &cursor), "open a cursor");
    scan(cursor, op, answer);
    if (op->commit)
        check(bft_txn_commit(txn, BFT_DEFAULT, NULL), "commit");
    else
        bft_txn_abort(txn);
}

/* --- snapshots ---------------------------------------------------------------- */

static void past(struct store *s, const struct rival_op *op,
                 struct rival_answer *answer)
{
    bft_snapshot **past = &s->past[op->past];
    bft_tree *tree = s->tree[op->tree];
    bft_cursor *cursor;
    bft_status status;
    size_t len;

    switch (op->kind) {
    case RIVAL_PAST_TAKE:
        check(bft_snapshot_take(s->db, past), "take a snapshot");
        break;
    case RIVAL_PAST_GET:
        status =
            bft_snapshot_get(*past, tree, op->key, s->buf, VALUE_MAX, &len);
        say_got(answer, s, status, len);
        break;
    case RIVAL_PAST_SCAN:
        check(bft_snapshot_cursor(*past, tree, &cursor), "open a cursor");
        scan(cursor, op, answer);
        break;
    default:
        bft_snapshot_release(*past);
        *past = NULL;
    }
}

/* --- one operation ------------------------------------------------------------ */

static void run(void *store, const struct rival_op *op,
                struct rival_answer *answer)
{
    struct store *s = store;
    bft_tree *tree = s->tree[op->tree];
    bft_cursor *cursor;
    bft_status status;
    size_t len;

    switch (op->kind) {
    case RIVAL_PUT:
        check(bft_put(tree, op->key, op->value), "put");
        break;
    case RIVAL_INSERT:
        answer->status =
            answer_of(bft_insert(tree, op->key, op->value), "insert");
        break;
    case RIVAL_REPLACE:
        answer->status = answer_of(
            bft_replace(tree, op->key, op->value.data ? &op->value : NULL,
                        op->value2.data ? &op->value2 : NULL),
            "replace");
        break;
    case RIVAL_DELETE:
        check(bft_delete(tree, op->key), "delete");
        break;
    case RIVAL_GET:
        status = bft_get(tree, op->key, s->buf, VALUE_MAX, &len);
        say_got(answer, s, status, len);
        break;
    case RIVAL_SEEK:
        seek(s, op, answer);
        break;
    case RIVAL_SCAN:
        check(bft_cursor_open(tree, &cursor), "open a cursor");
        scan(cursor, op, answer);
        break;
    case RIVAL_COUNT:
        check(bft_count(tree, op->key, op->high, &answer->number), "count");
        break;
    case RIVAL_END:
        end_of_range(s, op, answer);
        break;
    case RIVAL_DELETE_RANGE:
        check(bft_delete_range(tree, op->key, op->high, &answer->number),
              "delete a range");
        break;
    case RIVAL_BATCH:
        batch(s, op);
        break;
    case RIVAL_TXN:
        txn(s, op, answer);
        break;
    default:
        past(s, op, answer);
    }
}

const struct rival rival_bftree = {"bftree", store_open, store_close, run};
