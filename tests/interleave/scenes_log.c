/* The log by itself, with segments of 4 KiB; and a checkpoint, which drops it. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "fileio/vfs_memory.h"
#include "scenes.h"
#include "stage.h"

enum { SEGMENT = 4096, FRAMES = 8, SHORT = 1500, LONG = 3000 };

struct log_stage {
    struct bfti_wal_options options;
    struct bfti_wal *wal;
    struct bfti_wal_thread thread[SCENE_THREADS];
    struct {
        uint64_t lsn, end;
        size_t len; /* 0: not appended */
        unsigned seen;
    } frame[FRAMES]; /* by what each of its bytes is */
};

static void open_log(struct stage *st)
{
    struct log_stage *log = calloc(1, sizeof(*log));

    assert(log);
    st->own = log;
    st->vfs = bfti_vfs_memory_create(st->env);
    assert(st->vfs);
    expect_fine(st, st->vfs->ops->make_dir(st->vfs, "db"));
    log->options = (struct bfti_wal_options){
        .env = st->env, .vfs = st->vfs, .dir = "db", .segment_bytes = SEGMENT};
    expect_fine(st, bfti_wal_open(&log->options, 0, 0, 0, 1, &log->wal));
    for (unsigned i = 0; i < SCENE_THREADS; i++)
        bfti_wal_attach(log->wal, &log->thread[i]);
}

/* What is settled stays so. */
static void look_at_settled(struct stage *st)
{
    struct log_stage *log = st->own;
    uint64_t settled = bfti_wal_settled(log->wal);

    if (bfti_wal_settled(log->wal) < settled)
        stage_fail(st, "what was settled is not any more");
}

static void append(struct stage *st, unsigned thread, uint8_t id, size_t len)
{
    struct log_stage *log = st->own;
    struct bfti_frame *frame;
    uint64_t lsn, end;
    void *payload;

    expect_fine(st, bfti_frame_create(log->wal, id, len, &frame, &payload));
    memset(payload, id, len);
    bfti_frame_seal(log->wal, frame);
    bfti_wal_enter(log->wal, &log->thread[thread]);
    bfti_wal_link(log->wal, &log->thread[thread], frame, &lsn, &end);
    expect_fine(st, bfti_wal_copy(log->wal, &log->thread[thread], end));
    bfti_wal_leave(log->wal, &log->thread[thread]);
    log->frame[id].lsn = lsn;
    log->frame[id].end = end;
    log->frame[id].len = len;
}

static void sync_log(struct stage *st, unsigned thread, uint8_t id)
{
    struct log_stage *log = st->own;

    expect_fine(
        st, bfti_wal_sync(log->wal, &log->thread[thread], log->frame[id].end));
    if (bfti_wal_durable(log->wal) < log->frame[id].end)
        stage_fail(st, "a sync has ended, and the frame is not durable");
    look_at_settled(st);
}

static void append_and_sync(struct stage *st, unsigned thread)
{
    append(st, thread, 1, SHORT);
    sync_log(st, thread, 1);
}

/* The segment of the other's frame is full, is dropped, and comes back as the one
 * that the last frame goes to. */
static void turn_segments(struct stage *st, unsigned thread)
{
    struct log_stage *log = st->own;

    append(st, thread, 2, LONG);
    append(st, thread, 3, LONG);
    sync_log(st, thread, 3);
    expect_fine(st, bfti_wal_drop_below(log->wal, bfti_wal_durable(log->wal)));
    append(st, thread, 4, LONG);
}

static void append_only(struct stage *st, unsigned thread)
{
    append(st, thread, 5, SHORT);
}

static bft_status see(void *stage, uint64_t lsn, uint8_t type,
                      const void *payload, size_t len)
{
    struct stage *st = stage;
    struct log_stage *log = st->own;
    const uint8_t *bytes = payload;
    bool right = type < FRAMES && log->frame[type].len == len &&
                 log->frame[type].lsn == lsn;

    for (size_t i = 0; right && i < len; i++)
        right = bytes[i] == type;
    if (!right)
        stage_fail(st, "a frame that nobody appended is at %llu",
                   (unsigned long long)lsn);
    log->frame[type].seen++;
    return BFT_OK;
}

static void end_log(struct stage *st)
{
    struct log_stage *log = st->own;
    uint64_t first = bfti_wal_first(log->wal);
    struct bfti_wal_found found;

    /* The first frame that is whole behind what was dropped. */
    for (unsigned id = 0; id < FRAMES; id++)
        if (log->frame[id].lsn < first && log->frame[id].end > first)
            stage_fail(st, "the log begins within a frame");
    expect_fine(st, bfti_wal_scan(&log->options, first, 0, see, st, &found));
    for (unsigned id = 0; id < FRAMES; id++)
        if (log->frame[id].len && log->frame[id].lsn >= first &&
            log->frame[id].seen != 1)
            stage_fail(st, "frame %u was seen %u times", id,
                       log->frame[id].seen);
    bfti_wal_close(log->wal);
    free(log);
}

const struct scene scene_log = {
    .name = "log",
    .says = "append and sync; appends, a sync, a drop, an append to what was "
            "dropped; append",
    .open = open_log,
    .play = {append_and_sync, turn_segments, append_only},
    .end = end_log,
};

/* --- checkpoints ------------------------------------------------------------------ */

enum { RECORDS = 8, RIGHT = RECORDS - 1 };

/* A frozen page with more than a leaf can hold: its merge splits. */
static void open_full(struct stage *st)
{
    st->simulated = true;
    st->value_bytes = 80;
    stage_database(st);
    for (unsigned key = 0; key < RECORDS; key++)
        stage_put(st, SCENE_THREADS, key, 1);
    st->number = stage_leaf(st, 0);
    stage_freeze(st, 0);
}

static void checkpoint(struct stage *st, unsigned thread)
{
    (void)thread;
    expect_fine(st, bft_checkpoint(st->db));
}

static void split_and_put(struct stage *st, unsigned thread)
{
    bool done;

    expect_fine(st, bfti_merge(&st->db->engine->buffer, stage_rec(st),
                               st->number, 0, &done));
    stage_put(st, thread, RIGHT, 2);
}

static void put_left(struct stage *st, unsigned thread)
{
    stage_put(st, thread, 0, 3);
}

const struct scene scene_checkpoint = {
    .name = "checkpoint",
    .says = "checkpoint; split of a leaf, and put to the right one; put to the "
            "left one; then a kill",
    .open = open_full,
    .play = {checkpoint, split_and_put, put_left},
    .end = stage_crash,
};
