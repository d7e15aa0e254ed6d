#include "fault_life.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"

bool fault_life_aloud;

unsigned fault_draw(struct fault_life *l, unsigned limit)
{
    return (unsigned)(random_of(&l->known.random) % limit);
}

bool fault_well(struct fault_life *l, bft_status status)
{
    char text[400] = "";
    if (status == BFT_OK)
        return true;
    (void)bft_last_error(text, sizeof(text));
    l->failures++;
    if (fault_life_aloud)
        print_message("           %d: %s\n", (int)status, text);
    /* A file may seem to end too early. */
    if (status != BFT_IO && status != BFT_NO_SPACE && status != BFT_NO_MEMORY &&
        status != BFT_POISONED && !(status == BFT_CORRUPT && l->shortened))
        fail_msg("%d (%s): %s", (int)status, bft_strerror(status), text);
    if (!text[0] || !fault_struck(l))
        fail_msg("%d (%s): \"%s\", and nothing was made to fail", (int)status,
                 bft_strerror(status), text);
    return false;
}

/* --- what is there ---------------------------------------------------------------- */

/* Bytes of a value were read, or STATUS says that there is none: of KNOWN. */
static void check_value(struct known_look *look, const struct known *known,
                        unsigned t, unsigned k, bft_status status,
                        const void *bytes, size_t len)
{
    uint32_t seed = status == BFT_OK ? known_seed_of(known, bytes, len) : 0;
    if (known->any || ((status == BFT_OK || status == BFT_NOT_FOUND) &&
                       seed != UINT32_MAX && known_may_be(look, known, seed)))
        return;
    print_error("key %u of tree %u: status %d, %zu bytes, seed %u; known are",
                k, t, (int)status, len, seed);
    for (unsigned i = 0; i < known->count; i++)
        print_error(" %s%u", i == known->acked ? "*" : "", known->may[i].seed);
    print_error("\n");
    fail();
}

/* The name that TREE has in DB, and its handle: 1, 2, or 0 when there is none. */
static bft_status find(bft_db *db, unsigned t, const struct known_tree *known,
                       bft_tree **tree, uint32_t *which)
{
    bft_tree_options options = {.size = sizeof(options),
                                .must_exist = true,
                                .leaf_bytes = known->leaf_bytes,
                                .ttl_ms = known->ttl_ms};
    bft_status status = BFT_NOT_FOUND;
    char text[16];
    for (*which = 1; *which <= 2 && status == BFT_NOT_FOUND; ++*which)
        status = bft_tree_open(db, known_name(text, t, *which), &options, tree);
    --*which;
    if (status == BFT_NOT_FOUND)
        *which = 0;
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

static void look_begin(struct fault_life *l, const struct known_db *known,
                       bool power)
{
    memset(&l->look, 0, sizeof(l->look));
    l->look.known = known;
    l->look.power = power;
}

static void check_by_cursor(struct fault_life *l, bft_tree *tree, unsigned t)
{
    const struct known_tree *known = &l->look.known->tree[t];
    bft_slice key, value;
    bft_cursor *cursor;
    bft_status status;
    unsigned next = 0;
    expect_ok(bft_cursor_open(tree, &cursor));
    while ((status = bft_cursor_next(cursor)) == BFT_OK) {
        unsigned k;
        expect_ok(bft_cursor_record(cursor, &key, &value));
        k = known_key_number(key);
        assert_true(k >= next);
        for (; next < k; next++)
            check_value(&l->look, &known->key[next], t, next, BFT_NOT_FOUND,
                        NULL, 0);
        check_value(&l->look, &known->key[k], t, k, BFT_OK, value.data,
                    value.len);
        next = k + 1;
    }
    expect_status(BFT_NOT_FOUND, status);
    bft_cursor_close(cursor);
    for (; next < KNOWN_KEYS; next++)
        check_value(&l->look, &known->key[next], t, next, BFT_NOT_FOUND, NULL,
                    0);
}

static void check_by_key(struct fault_life *l, bft_tree *tree, unsigned t)
{
    const struct known_tree *known = &l->look.known->tree[t];
    char text[32];
    for (unsigned k = 0; k < KNOWN_KEYS; k++) {
        size_t len = 0;
        bft_status status = BFT_NOT_FOUND;
        if (tree)
            status = bft_get(tree, known_key(text, k), l->bytes, KNOWN_LEN_MAX,
                             &len);
        if (status != BFT_NOT_FOUND)
            expect_ok(status);
        check_value(&l->look, &known->key[k], t, k, status, l->bytes, len);
    }
}

void fault_expect_records(struct fault_life *l, bft_db *db,
                          const struct known_db *known, bool power, bool scan,
                          bft_tree *tree[KNOWN_TREES])
{
    uint32_t which, torn;
    look_begin(l, known, power);
    for (unsigned t = 0; t < KNOWN_TREES; t++) {
        expect_ok(find(db, t, &known->tree[t], &tree[t], &which));
        if (!known_may_be(&l->look, &known->tree[t].name, which))
            fail_msg("tree %u is there under name %u", t, which);
        if (scan && tree[t])
            check_by_cursor(l, tree[t], t);
        else
            check_by_key(l, tree[t], t);
    }
    torn = known_torn(&l->look);
    if (torn)
        fail_msg("change %u is there in part", torn);
}

void fault_expect_sound(struct fault_life *l, bft_db *db)
{
    bft_status status = bft_verify(db);
    char text[400];
    (void)bft_last_error(text, sizeof(text));
    if (status == BFT_CORRUPT && l->blind && strstr(text, "nothing leads to"))
        l->base->with_lost_space++;
    else
        expect_ok(status);
}

void fault_expect_db(struct fault_life *l, struct bfti_vfs *vfs,
                     const char *path, const struct known_db *known, bool power)
{
    struct bfti_surroundings surroundings;
    bft_options options = fault_options(l, &surroundings, vfs);
    bft_tree *tree[KNOWN_TREES];
    bft_db *db;
    expect_ok(bft_open(path, &options, &db));
    fault_expect_records(l, db, known, power, true, tree);
    fault_expect_sound(l, db);
    expect_ok(bft_close(db));
}

/* --- the database and its trees -------------------------------------------------- */

void fault_find(struct fault_life *l, unsigned t)
{
    const struct known_tree *known = &l->known.tree[t];
    uint32_t which;
    if (!l->f->db ||
        !fault_well(l, find(l->f->db, t, known, &l->tree[t], &which)))
        return;
    look_begin(l, &l->known, false);
    if (!known_may_be(&l->look, &known->name, which))
        fail_msg("tree %u is there under name %u", t, which);
}

bool fault_open(struct fault_life *l)
{
    memset(l->tree, 0, sizeof(l->tree));
    if (!fault_well(l, engine_open_status(l->f))) {
        assert_null(l->f->db);
        return false;
    }
    for (unsigned t = 0; t < KNOWN_TREES; t++)
        fault_find(l, t);
    return true;
}

void fault_close(struct fault_life *l)
{
    fault_release_snapshot(l);
    l->f->past = engine_stats(l->f);
    if (l->f->db && fault_well(l, bft_close(l->f->db)))
        known_synced(&l->known);
    l->f->db = NULL;
    memset(l->tree, 0, sizeof(l->tree));
}

/* The name of tree T was changed to WHICH, and, if EMPTY, its records went. */
static void change_tree(struct fault_life *l, unsigned t, uint32_t which,
                        bool empty, bft_status status)
{
    struct known_tree *tree = &l->known.tree[t];
    struct known_value value = {.op = known_op(&l->known), .seed = which};
    if (which != UINT32_MAX)
        known_change(&tree->name, value, status);
    value.seed = 0;
    for (unsigned k = 0; empty && k < KNOWN_KEYS; k++)
        known_change(&tree->key[k], value, status);
}

void fault_make(struct fault_life *l, unsigned t, uint32_t leaf_bytes,
                uint64_t ttl_ms)
{
    struct known_tree *tree = &l->known.tree[t];
    bft_tree_options options = {
        .size = sizeof(options), .leaf_bytes = leaf_bytes, .ttl_ms = ttl_ms};
    char text[16];
    bft_status status;
    if (!l->f->db)
        return;
    tree->leaf_bytes = leaf_bytes;
    tree->ttl_ms = ttl_ms;
    status =
        bft_tree_open(l->f->db, known_name(text, t, 1), &options, &l->tree[t]);
    change_tree(l, t, 1, false, status);
    (void)fault_well(l, status);
}

/* The name that it has for certain, NULL: not known. */
static const char *name_of(struct fault_life *l, unsigned t, char text[16])
{
    const struct known *name = &l->known.tree[t].name;
    uint32_t which = name->may[name->acked].seed;
    if (!l->f->db || !which || name->acked + 1 != name->count)
        return NULL;
    return known_name(text, t, which);
}

void fault_drop(struct fault_life *l, unsigned t)
{
    char text[16];
    const char *name = name_of(l, t, text);
    bft_status status;
    if (!name)
        return;
    status = bft_tree_drop(l->f->db, name);
    change_tree(l, t, 0, true, status);
    if (fault_well(l, status))
        l->tree[t] = NULL;
    else
        fault_find(l, t);
}

void fault_truncate(struct fault_life *l, unsigned t)
{
    char text[16];
    const char *name = name_of(l, t, text);
    bft_status status;
    if (!name)
        return;
    status = bft_tree_truncate(l->f->db, name);
    change_tree(l, t, UINT32_MAX, true, status);
    (void)fault_well(l, status);
}

void fault_rename(struct fault_life *l, unsigned t)
{
    const struct known *known = &l->known.tree[t].name;
    char text[16], new_text[16];
    const char *name = name_of(l, t, text);
    bft_status status;
    uint32_t which;
    if (!name)
        return;
    which = 3 - known->may[known->acked].seed;
    status = bft_tree_rename(l->f->db, name, known_name(new_text, t, which));
    change_tree(l, t, which, false, status);
    (void)fault_well(l, status);
}

/* --- writes ---------------------------------------------------------------------------- */

static void note(struct fault_life *l, unsigned t, unsigned k,
                 struct known_value value, bft_status status)
{
    known_change(&l->known.tree[t].key[k], value, status);
}

static bft_slice bytes_of(struct fault_life *l, uint32_t seed)
{
    known_bytes(seed, 0, l->bytes, known_len(seed));
    return (bft_slice){l->bytes, known_len(seed)};
}

void fault_put_until(struct fault_life *l, unsigned t, unsigned k,
                     enum known_size size, uint64_t until)
{
    struct known_value value = {.seed = known_seed(&l->known, size),
                                .op = known_op(&l->known),
                                .until = until};
    bft_slice bytes = bytes_of(l, value.seed);
    char text[32];
    bft_status status;
    if (!l->tree[t])
        return;
    status = until ? bft_put_until(l->tree[t], known_key(text, k), bytes, until)
                   : bft_put(l->tree[t], known_key(text, k), bytes);
    note(l, t, k, value, status);
    (void)fault_well(l, status);
}

void fault_put(struct fault_life *l, unsigned t, unsigned k,
               enum known_size size)
{
    fault_put_until(l, t, k, size, 0);
}

struct stream {
    uint32_t seed;
    size_t at;
};

static bft_status read_stream(void *ctx, void *buf, size_t len)
{
    struct stream *s = ctx;
    known_bytes(s->seed, s->at, buf, len);
    s->at += len;
    return BFT_OK;
}

void fault_stream(struct fault_life *l, unsigned t, unsigned k,
                  enum known_size size)
{
    struct known_value value = {.seed = known_seed(&l->known, size),
                                .op = known_op(&l->known)};
    struct stream s = {.seed = value.seed};
    char text[32];
    bft_status status;
    if (!l->tree[t])
        return;
    status = bft_put_stream(l->tree[t], known_key(text, k),
                            known_len(value.seed), read_stream, &s);
    note(l, t, k, value, status);
    (void)fault_well(l, status);
}

void fault_delete(struct fault_life *l, unsigned t, unsigned k)
{
    struct known_value value = {.op = known_op(&l->known)};
    char text[32];
    bft_status status;
    if (!l->tree[t])
        return;
    status = bft_delete(l->tree[t], known_key(text, k));
    note(l, t, k, value, status);
    (void)fault_well(l, status);
}

void fault_delete_range(struct fault_life *l, unsigned t, unsigned low,
                        unsigned high, bool count)
{
    struct known_value value = {.op = known_op(&l->known)};
    char text[32], high_text[32];
    uint64_t deleted;
    bft_status status;
    if (!l->tree[t])
        return;
    status =
        bft_delete_range(l->tree[t], known_key(text, low),
                         known_key(high_text, high), count ? &deleted : NULL);
    for (unsigned k = low; k < high; k++)
        note(l, t, k, value, status);
    (void)fault_well(l, status);
}

/* A change of one of several keys in a batch or transaction. */
static struct known_value one_of(struct fault_life *l, uint32_t op, unsigned i)
{
    struct known_value value = {.op = op};
    if (i % 4 != 3)
        value.seed =
            known_seed(&l->known, i % 4 == 2 ? KNOWN_MIDDLE : KNOWN_SHORT);
    return value;
}

static bft_status batch_add(struct fault_life *l, bft_batch *batch, unsigned t,
                            unsigned k, struct known_value value)
{
    char text[32];
    if (!value.seed)
        return bft_batch_delete(batch, l->tree[t], known_key(text, k));
    return bft_batch_put(batch, l->tree[t], known_key(text, k),
                         bytes_of(l, value.seed));
}

void fault_batch(struct fault_life *l, unsigned trees, unsigned k,
                 unsigned count, bft_durability durability)
{
    struct known_value value[KNOWN_KEYS];
    uint32_t op = known_op(&l->known);
    bft_status status;
    bft_batch *batch;
    for (unsigned t = 0; t < trees; t++)
        if (!l->tree[t])
            return;
    if (!fault_well(l, bft_batch_create(l->f->db, &batch)))
        return;
    status = BFT_OK;
    for (unsigned i = 0; i < count && status == BFT_OK; i++) {
        value[i] = one_of(l, op, i);
        status = batch_add(l, batch, i % trees, (k + i) % KNOWN_KEYS, value[i]);
    }
    if (fault_well(l, status)) {
        status = bft_batch_commit(batch, durability, NULL);
        for (unsigned i = 0; i < count; i++)
            note(l, i % trees, (k + i) % KNOWN_KEYS, value[i], status);
        if (fault_well(l, status) && durability == BFT_SYNC)
            known_synced(&l->known);
    }
    bft_batch_free(batch);
}

static bft_status txn_write(struct fault_life *l, bft_txn *txn, unsigned t,
                            unsigned k, struct known_value value)
{
    char text[32];
    if (!value.seed)
        return bft_txn_delete(txn, l->tree[t], known_key(text, k));
    return bft_txn_put(txn, l->tree[t], known_key(text, k),
                       bytes_of(l, value.seed));
}

void fault_txn(struct fault_life *l, unsigned t, unsigned k, unsigned count)
{
    struct known_value value[KNOWN_KEYS];
    uint32_t op = known_op(&l->known);
    char text[32];
    bft_status status;
    bft_txn *txn;
    size_t len;
    if (!l->tree[t] ||
        !fault_well(l, bft_txn_begin(l->f->db, BFT_SERIALIZABLE, &txn)))
        return;
    status = bft_txn_get(txn, l->tree[t], known_key(text, k), l->bytes,
                         KNOWN_LEN_MAX, &len);
    if (status == BFT_OK || status == BFT_NOT_FOUND) {
        look_begin(l, &l->known, false);
        check_value(&l->look, &l->known.tree[t].key[k], t, k, status, l->bytes,
                    len);
        status = BFT_OK;
    }
    for (unsigned i = 0; i < count && status == BFT_OK; i++) {
        value[i] = one_of(l, op, i);
        status = txn_write(l, txn, t, (k + 1 + i) % KNOWN_KEYS, value[i]);
    }
    if (!fault_well(l, status)) {
        bft_txn_abort(txn);
        return;
    }
    status = bft_txn_commit(txn, BFT_DEFAULT, NULL);
    for (unsigned i = 0; i < count; i++)
        note(l, t, (k + 1 + i) % KNOWN_KEYS, value[i], status);
    (void)fault_well(l, status);
}

/* --- reads ---------------------------------------------------------------------------- */

/* A read that may fail ended with STATUS; else it is as KNOWN has it. */
static void check_read(struct fault_life *l, const struct known_db *known,
                       unsigned t, unsigned k, bft_status status, size_t len)
{
    if (status != BFT_OK && status != BFT_NOT_FOUND) {
        (void)fault_well(l, status);
        return;
    }
    look_begin(l, known, false);
    l->look.either_gone = known == &l->past;
    check_value(&l->look, &known->tree[t].key[k], t, k, status, l->bytes, len);
}

/* Of the calls that read a key one. */
static bft_status read_key(struct fault_life *l, unsigned t, unsigned k,
                           size_t *len)
{
    bft_answer answer = {.buf = l->bytes, .buf_len = KNOWN_LEN_MAX};
    char text[32];
    bft_status status;
    void *copy;
    answer.key = known_key(text, k);
    if (k % 3 == 0)
        return bft_get(l->tree[t], answer.key, l->bytes, KNOWN_LEN_MAX, len);
    if (k % 3 == 1) {
        status = bft_get_copy(l->tree[t], answer.key, &copy, len);
        assert_true(*len <= KNOWN_LEN_MAX);
        if (status == BFT_OK)
            memcpy(l->bytes, copy, *len);
        bft_free(copy);
        return status;
    }
    status = bft_multi_get(l->tree[t], &answer, 1);
    *len = answer.value_len;
    return status == BFT_OK ? answer.status : status;
}

void fault_get(struct fault_life *l, unsigned t, unsigned k)
{
    bft_status status;
    size_t len = 0;
    if (!l->tree[t])
        return;
    status = read_key(l, t, k, &len);
    check_read(l, &l->known, t, k, status, len);
}

/* All that CURSOR shows is what KNOWN has. */
static void scan(struct fault_life *l, const struct known_db *known, unsigned t,
                 bft_cursor *cursor)
{
    bool down = known == &l->past;
    bft_slice key, value;
    unsigned count = 0;
    bft_status status;
    while ((status = down ? bft_cursor_prev(cursor)
                          : bft_cursor_next(cursor)) == BFT_OK) {
        unsigned k;
        assert_true(count++ < KNOWN_KEYS);
        expect_ok(bft_cursor_key(cursor, &key));
        k = known_key_number(key);
        status = bft_cursor_value(cursor, &value);
        if (status == BFT_OK)
            memcpy(l->bytes, value.data, value.len);
        check_read(l, known, t, k, status, value.len);
    }
    if (status != BFT_NOT_FOUND)
        (void)fault_well(l, status);
    bft_cursor_close(cursor);
}

void fault_scan(struct fault_life *l, unsigned t)
{
    bft_cursor *cursor;
    if (l->tree[t] && fault_well(l, bft_cursor_open(l->tree[t], &cursor)))
        scan(l, &l->known, t, cursor);
}

void fault_take_snapshot(struct fault_life *l)
{
    fault_release_snapshot(l);
    if (l->f->db && fault_well(l, bft_snapshot_take(l->f->db, &l->snapshot)))
        l->past = l->known;
}

void fault_snapshot_get(struct fault_life *l, unsigned t, unsigned k)
{
    char text[32];
    bft_status status;
    size_t len;
    if (!l->snapshot || !l->tree[t])
        return;
    status = bft_snapshot_get(l->snapshot, l->tree[t], known_key(text, k),
                              l->bytes, KNOWN_LEN_MAX, &len);
    check_read(l, &l->past, t, k, status, len);
}

void fault_snapshot_scan(struct fault_life *l, unsigned t)
{
    bft_cursor *cursor;
    if (l->snapshot && l->tree[t] &&
        fault_well(l, bft_snapshot_cursor(l->snapshot, l->tree[t], &cursor)))
        scan(l, &l->past, t, cursor);
}

void fault_release_snapshot(struct fault_life *l)
{
    bft_snapshot_release(l->snapshot);
    l->snapshot = NULL;
}

/* --- durability ----------------------------------------------------------------------- */

void fault_sync(struct fault_life *l)
{
    if (l->f->db && fault_well(l, bft_sync(l->f->db)))
        known_synced(&l->known);
}

void fault_checkpoint(struct fault_life *l)
{
    if (l->f->db && fault_well(l, bft_checkpoint(l->f->db)))
        known_synced(&l->known);
}
