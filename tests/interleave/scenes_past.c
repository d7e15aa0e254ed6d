/* Snapshots, batches and transactions over two leaves, each a tree's. */
#include "scenes.h"
#include "stage.h"

enum { LEFT = 0, RIGHT = STAGE_KEYS_OF_TREE };

static void open_two(struct stage *st)
{
    stage_database(st);
    stage_put(st, SCENE_THREADS, LEFT, 1);
    stage_put(st, SCENE_THREADS, RIGHT, 1);
}

/* --- snapshots ----------------------------------------------------------------- */

static void read_past(struct stage *st, bft_snapshot *snapshot,
                      struct linear_op *op, unsigned key)
{
    uint8_t buf[STAGE_VALUE_MAX];
    size_t len;
    bft_status status = bft_snapshot_get(
        snapshot, stage_tree(st, key), stage_key(key), buf, sizeof(buf), &len);

    op->reads |= 1u << key;
    op->seen[key] = stage_number(st, status, buf, len);
}

static void take_and_read(struct stage *st, unsigned thread)
{
    struct linear_op op = {.kind = LINEAR_SNAPSHOT, .thread = thread};
    bft_snapshot *snapshot;

    op.call = stage_tick(st);
    expect_fine(st, bft_snapshot_take(st->db, &snapshot));
    op.end = stage_tick(st);
    read_past(st, snapshot, &op, LEFT);
    read_past(st, snapshot, &op, RIGHT);
    bft_snapshot_release(snapshot);
    linear_add(&st->history, &op);
}

static void put_both(struct stage *st, unsigned thread)
{
    static const unsigned keys[] = {LEFT, RIGHT};
    struct linear_op op = {.kind = LINEAR_BATCH, .thread = thread};
    uint8_t buf[STAGE_VALUE_MAX];
    bft_batch *batch;

    expect_fine(st, bft_batch_create(st->db, &batch));
    for (unsigned i = 0; i < 2; i++) {
        linear_set(&op, keys[i], 2);
        expect_fine(st,
                    bft_batch_put(batch, stage_tree(st, keys[i]),
                                  stage_key(keys[i]), stage_value(st, buf, 2)));
    }
    op.call = stage_tick(st);
    expect_fine(st, bft_batch_commit(batch, BFT_DEFAULT, NULL));
    op.end = stage_tick(st);
    bft_batch_free(batch);
    linear_add(&st->history, &op);
}

static void put_left(struct stage *st, unsigned thread)
{
    stage_put(st, thread, LEFT, 3);
}

const struct scene scene_versions = {
    .name = "versions",
    .says = "snapshot, which is read; batch over two leaves; put to one",
    .open = open_two,
    .play = {take_and_read, put_both, put_left},
};

/* --- transactions ----------------------------------------------------------------- */

static void txn_read(struct stage *st, bft_txn *txn, struct linear_txn *told,
                     unsigned key)
{
    uint8_t buf[STAGE_VALUE_MAX];
    size_t len;
    bft_status status = bft_txn_get(txn, stage_tree(st, key), stage_key(key),
                                    buf, sizeof(buf), &len);

    linear_txn_read(told, key, stage_number(st, status, buf, len));
}

/* Reads both keys, writes KEY. */
static void skew(struct stage *st, unsigned thread, unsigned key)
{
    uint8_t buf[STAGE_VALUE_MAX];
    struct linear_txn told;
    bft_txn *txn;
    bft_status status;
    uint64_t call = stage_tick(st);

    expect_fine(st, bft_txn_begin(st->db, BFT_SERIALIZABLE, &txn));
    linear_txn_begin(&told, thread, true, call, stage_tick(st));
    txn_read(st, txn, &told, LEFT);
    txn_read(st, txn, &told, RIGHT);
    expect_fine(st, bft_txn_put(txn, stage_tree(st, key), stage_key(key),
                                stage_value(st, buf, 2 + thread)));
    linear_txn_write(&told, key, 2 + thread);
    call = stage_tick(st);
    status = bft_txn_commit(txn, BFT_DEFAULT, NULL);
    if (status != BFT_CONFLICT)
        stage_expect(st, status, "a commit");
    linear_txn_end(&told, status == BFT_OK, call, stage_tick(st), &st->history);
}

static void skew_left(struct stage *st, unsigned thread)
{
    skew(st, thread, LEFT);
}

static void skew_right(struct stage *st, unsigned thread)
{
    skew(st, thread, RIGHT);
}

const struct scene scene_skew = {
    .name = "skew",
    .says =
        "two transactions that read two keys, and each writes another one of "
        "them",
    .open = open_two,
    .play = {skew_left, skew_right},
};

static void put_right(struct stage *st, unsigned thread)
{
    stage_put(st, thread, RIGHT, 2 + thread);
}

static void get_right_and_left(struct stage *st, unsigned thread)
{
    (void)stage_get(st, thread, RIGHT);
    (void)stage_get(st, thread, LEFT);
}

const struct scene scene_both = {
    .name = "both",
    .says = "a transaction that reads two keys and writes the left one; put to "
            "the right one; get of the right one, and then of the left one",
    .open = open_two,
    .play = {skew_left, put_right, get_right_and_left},
};
