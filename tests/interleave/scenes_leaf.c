/* One leaf: its word, its page in memory and what lies beneath. */
#include "scenes.h"
#include "stage.h"

enum { HOT = 2, KEYS = 4, OTHERS = 20 };

/* A leaf on the disk with the keys a to d, all of them 1. */
static void open_leaf(struct stage *st)
{
    stage_database(st);
    for (unsigned key = 0; key < KEYS; key++)
        stage_put(st, SCENE_THREADS, key, 1);
    stage_send_out(st, HOT);
    st->number = stage_leaf(st, HOT);
}

static void get_hot(struct stage *st, unsigned thread)
{
    (void)stage_get(st, thread, HOT);
}

static void put_hot(struct stage *st, unsigned thread)
{
    stage_put(st, thread, HOT, 2 + thread);
}

/* The clock comes to other leaves, too. */
static void evict(struct stage *st, unsigned thread)
{
    struct bfti_buffer *buffer = &st->db->engine->buffer;
    const struct bfti_entry *entry =
        bfti_table_entry(buffer->table, st->number);
    bool done;

    (void)thread;
    for (int i = 0;
         i < 4 && (i == 0 || bfti_word_in_memory(bfti_entry_word(entry))); i++)
        expect_fine(st, bfti_evict_one(buffer, stage_rec(st), &done));
}

const struct scene scene_promote = {
    .name = "promote",
    .says = "get, which brings the leaf to memory; put to it; its eviction",
    .open = open_leaf,
    .play = {get_hot, put_hot, evict},
};

/* --- merging ----------------------------------------------------------------- */

static void open_frozen(struct stage *st)
{
    open_leaf(st);
    stage_put(st, SCENE_THREADS, HOT, 9);
    stage_freeze(st, HOT);
}

static void merge(struct stage *st, unsigned thread)
{
    bool done;

    (void)thread;
    expect_fine(st, bfti_merge(&st->db->engine->buffer, stage_rec(st),
                               st->number, BFTI_MERGE_KEEP, &done));
}

static void put_and_merge(struct stage *st, unsigned thread)
{
    merge(st, thread);
    put_hot(st, thread);
}

const struct scene scene_merge = {
    .name = "merge",
    .says = "merge of a frozen page; the same, and a put; get",
    .open = open_frozen,
    .play = {merge, put_and_merge, get_hot},
};

/* --- ranges -------------------------------------------------------------------- */

static void delete_range(struct stage *st, unsigned thread)
{
    struct linear_op op = {.kind = LINEAR_DELETE, .thread = thread, .key = HOT};

    linear_set(&op, HOT, LINEAR_ABSENT);
    op.call = stage_tick(st);
    expect_fine(st, bft_delete_range(st->tree[0], (bft_slice){"bA", 2},
                                     stage_key(HOT + 1), NULL));
    op.end = stage_tick(st);
    linear_add(&st->history, &op);
}

/* So many leaves in front of the hot key that the deletion leaves that one to
 * others, and the range goes on being one that is deleted. */
static void open_long(struct stage *st)
{
    uint8_t buf[STAGE_VALUE_MAX];

    st->simulated = true;
    st->value_bytes = 100;
    stage_database(st);
    for (unsigned key = 0; key < KEYS; key++)
        stage_put(st, SCENE_THREADS, key, 1);
    for (unsigned i = 0; i < OTHERS; i++) {
        const char key[] = {'b', (char)('A' + i)};

        expect_fine(st, bft_put(st->tree[0], (bft_slice){key, sizeof(key)},
                                stage_value(st, buf, 1)));
    }
    expect_fine(st, bft_checkpoint(st->db));
}

static void end_range(struct stage *st)
{
    stage_copy(st);
    stage_crash(st);
}

const struct scene scene_range = {
    .name = "range",
    .says = "deletion of a range; put into it; get; then a feed, and a kill",
    .open = open_long,
    .play = {delete_range, put_hot, get_hot},
    .end = end_range,
};
