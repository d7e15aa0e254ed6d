/*
 * Salvage: the log.
 *
 * Where the map was read, all whole frames from its redo start on are applied,
 * in order.  Where it was not, the log is taken from its oldest segment on:
 * what follows the last hole is applied as it is, which is exact whatever the pages
 * hold, for each key that it touches gets the last value there was.  A frame
 * before a hole may be older than the page, which then has what the hole lacks:
 * it counts only where no newer page was found.
 */
#include <inttypes.h>
#include <stdio.h>

#include "salvage.h"
#include "tomb.h"

static struct bfti_wal_options log_options(const struct salvage *s)
{
    struct bfti_wal_options options;
    memset(&options, 0, sizeof(options));
    options.env = s->env;
    options.vfs = s->vfs;
    options.dir = s->from;
    options.segment_bytes = s->segment_bytes;
    return options;
}

static void tell_log(struct salvage *s, uint64_t from, uint64_t to,
                     const char *why)
{
    bft_salvage_damage damage;
    char name[32];
    memset(&damage, 0, sizeof(damage));
    (void)snprintf(name, sizeof(name), "log-%016" PRIx64,
                   from - from % s->segment_bytes);
    damage.kind = BFT_SALVAGE_LOG;
    damage.text = why;
    damage.file = name;
    damage.offset = from % s->segment_bytes;
    damage.bytes = to - from;
    bfti_salvage_tell(s, &damage);
}

static bft_status on_gap(void *arg, uint64_t from, uint64_t to, const char *why)
{
    struct salvage *s = arg;
    s->gap_end = to;
    tell_log(s, from, to, why);
    return BFT_OK;
}

/* --- records ------------------------------------------------------------- */

static bft_status put(struct salvage *s, const struct salvage_tree *tree,
                      const struct bfti_frame_record *record, bool *done)
{
    struct bfti_large large;
    if (!(record->flags & BFTI_REC_LARGE))
        return bfti_salvage_put(s, tree, 0, record->key, record->value, done);
    memcpy(&large, record->value.data, sizeof(large));
    return bfti_salvage_large(s, tree, 0, record->key, large, done);
}

static bft_status apply(struct salvage *s, uint64_t lsn,
                        const struct bfti_frame_record *record)
{
    struct salvage_tree *tree = bfti_salvage_find(s, record->tree_id);
    bool done = false, newer = false;
    bft_status status = BFT_OK;
    /* In a log without holes a tree that nobody made was dropped. */
    if (tree || !s->mapped || s->log.gaps || !s->catalogue_exact)
        status = bfti_salvage_tree(s, record->tree_id, lsn < s->catalogue_lsn,
                                   &tree);
    if (status == BFT_OK && tree && !s->mapped && lsn < s->log.unbroken)
        status = bfti_salvage_newer(tree, record->key, lsn, &newer);
    if (status != BFT_OK || !tree || newer || !tree->target)
        return status;
    if (record->op == BFTI_OP_PUT)
        status = put(s, tree, record, &done);
    /* A value that is lost does not leave an older one. */
    if (status == BFT_OK && !done) {
        status = bft_delete(tree->target, record->key);
        if (status == BFT_TOO_BIG || status == BFT_INVALID)
            status = BFT_OK; /* nor can the tree have it */
    }
    s->report.log_records++;
    return status;
}

/* All of a frame or nothing. */
static const char *check_records(const uint8_t *at, const uint8_t *end)
{
    const char *wrong = NULL;
    while (!wrong && at < end) {
        struct bfti_frame_record record;
        wrong = bfti_frame_record_get(&at, end, &record);
    }
    return wrong;
}

static bft_status on_write(struct salvage *s, uint64_t lsn, const uint8_t *at,
                           size_t len)
{
    const uint8_t *end = at + len;
    const char *wrong = check_records(at, end);
    bft_status status = BFT_OK;
    if (wrong)
        tell_log(s, lsn, lsn + BFTI_FRAME_HEADER + len, wrong);
    while (!wrong && status == BFT_OK && at < end) {
        struct bfti_frame_record record;
        wrong = bfti_frame_record_get(&at, end, &record);
        if (!wrong)
            status = apply(s, lsn, &record);
    }
    return status;
}

/* A range that was deleted.  In a log with holes, without the map, pages may be
 * newer than the frame: records of theirs are left. */
static bft_status on_range(struct salvage *s, uint64_t lsn, uint8_t type,
                           const uint8_t *payload, size_t len)
{
    struct bfti_frame_range range;
    struct salvage_tree *tree;
    if (bfti_frame_range_get(payload, len, &range) != BFT_OK) {
        tell_log(s, lsn, lsn + BFTI_FRAME_HEADER + len,
                 "the frame of a range is malformed");
        return BFT_OK;
    }
    if (type == BFTI_FRAME_CLEAR)
        return on_write(s, lsn, range.behind, range.behind_len);
    tree = bfti_salvage_find(s, range.tree_id);
    return tree && tree->target && (s->mapped || lsn >= s->log.unbroken)
               ? bft_delete_range(tree->target, range.low, range.high, NULL)
               : BFT_OK;
}

/* --- frames -------------------------------------------------------------- */

static bft_status on_tree(struct salvage *s, uint64_t lsn, uint8_t type,
                          const void *payload, size_t len)
{
    struct bfti_frame_tree change;
    bft_status status = BFT_OK;
    if (s->catalogue && lsn < s->catalogue_lsn)
        return BFT_OK; /* which has it */
    if (bfti_frame_tree_get(type, payload, len, &change) != BFT_OK) {
        tell_log(s, lsn, lsn + BFTI_FRAME_HEADER + len,
                 "the frame of a tree is malformed");
        return BFT_OK;
    }
    if (type == BFTI_FRAME_DROP)
        return bfti_salvage_dropped(s, change.id);
    if (type == BFTI_FRAME_TRUNCATE || type == BFTI_FRAME_LOAD)
        status = bfti_salvage_dropped(s, change.old_id);
    return status == BFT_OK ? bfti_salvage_created(s, lsn, &change) : status;
}

static bft_status on_frame(void *arg, uint64_t lsn, uint8_t type,
                           const void *payload, size_t len)
{
    struct salvage *s = arg;
    switch (type) {
    case BFTI_FRAME_WRITE:
        return on_write(s, lsn, payload, len);
    case BFTI_FRAME_CREATE:
    case BFTI_FRAME_DROP:
    case BFTI_FRAME_TRUNCATE:
    case BFTI_FRAME_RENAME:
    case BFTI_FRAME_LOAD:
        return on_tree(s, lsn, type, payload, len);
    case BFTI_FRAME_RANGE:
    case BFTI_FRAME_CLEAR:
        return on_range(s, lsn, type, payload, len);
    default:
        tell_log(s, lsn, lsn + BFTI_FRAME_HEADER + len,
                 "a frame of a type that is not known");
        return BFT_OK;
    }
}

static bft_status read_log(struct salvage *s,
                           const struct bfti_wal_salvage_calls *calls,
                           struct bfti_wal_salvaged *out)
{
    struct bfti_wal_options options = log_options(s);
    memset(out, 0, sizeof(*out));
    return s->segment_bytes ? bfti_wal_salvage(&options, s->log_start,
                                               s->log_mark, calls, out)
                            : BFT_OK;
}

/* What was loaded is in the image of a checkpoint, and nowhere else. */
static bft_status look_at_frame(void *arg, uint64_t lsn, uint8_t type,
                                const void *payload, size_t len)
{
    struct salvage *s = arg;
    struct bfti_frame_tree load;
    (void)lsn;
    if (type != BFTI_FRAME_LOAD ||
        bfti_frame_tree_get(type, payload, len, &load) != BFT_OK)
        return BFT_OK;
    if (load.sequence > s->loaded)
        s->loaded = load.sequence;
    return bfti_places_add(s->env, &s->loads, load.id);
}

bft_status bfti_salvage_log_look(struct salvage *s)
{
    struct bfti_wal_salvage_calls calls = {s, look_at_frame, NULL};
    s->loads.count = 0;
    return read_log(s, &calls, &s->log);
}

bft_status bfti_salvage_log_apply(struct salvage *s)
{
    struct bfti_wal_salvage_calls calls = {s, on_frame, on_gap};
    struct bfti_wal_salvaged done;
    bft_status status;
    s->gap_end = s->log.first;
    status = read_log(s, &calls, &done);
    s->report.log_frames = done.frames;
    s->report.log_gaps = done.gaps;
    s->report.log_gap_bytes = done.gap_bytes;
    return status;
}
