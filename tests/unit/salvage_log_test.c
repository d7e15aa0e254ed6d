/*
 * Salvage of a damaged log, and of any damage: every record whose page and
 * value are whole comes back, whatever else is not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fileio/wal_internal.h"
#include "random.h"
#include "salvage_rig.h"

/* --- the log -------------------------------------------------------------- */

struct logged {
    uint64_t lsn, end;
    uint8_t *payload;
    size_t len;
    uint8_t type;
};

struct frames {
    struct logged frame[8000];
    size_t count;
    uint64_t segment_bytes;
};

static bft_status frame_note(void *arg, uint64_t lsn, uint8_t type,
                             const void *payload, size_t len)
{
    struct frames *frames = arg;
    struct logged *frame = &frames->frame[frames->count++];
    assert_true(frames->count < 8000);
    *frame = (struct logged){lsn, lsn + wal_frame_bytes(len), malloc(len + 1),
                             len, type};
    assert_non_null(frame->payload);
    memcpy(frame->payload, payload, len);
    return BFT_OK;
}

/* Of the undamaged image, from the redo start on. */
static struct frames *frames_read(struct bfti_vfs *vfs,
                                  const struct bfti_superblock *sb)
{
    struct bfti_wal_options options = {.env = bfti_env_system(),
                                       .vfs = vfs,
                                       .dir = FROM,
                                       .segment_bytes = sb->log_segment_bytes};
    struct bfti_wal_found found;
    struct frames *frames = calloc(1, sizeof(*frames));
    assert_non_null(frames);
    frames->segment_bytes = sb->log_segment_bytes;
    expect_ok(bfti_wal_scan(&options, sb->redo_lsn, sb->durable_mark,
                            frame_note, frames, &found));
    return frames;
}

static void frames_free(struct frames *frames)
{
    for (size_t i = 0; i < frames->count; i++)
        free(frames->frame[i].payload);
    free(frames);
}

static bool frame_has(const struct logged *frame, const struct entry *e)
{
    const uint8_t *at = frame->payload, *end = at + frame->len;
    if (frame->type != BFTI_FRAME_WRITE)
        return false;
    while (at < end) {
        struct bfti_frame_record record;
        assert_null(bfti_frame_record_get(&at, end, &record));
        if (record.key.len == e->key_len &&
            memcmp(record.key.data, e->key, e->key_len) == 0)
            return true;
    }
    return false;
}

/* Does a frame that was told to be lost, or, with ANY, any frame, have E's
 * key? */
static bool logged_key(const struct rig *r, const struct frames *frames,
                       const struct entry *e, bool any)
{
    for (size_t i = 0; i < frames->count; i++) {
        const struct logged *frame = &frames->frame[i];
        bool lost = any;
        for (unsigned t = 0; !lost && t < r->told_count; t++) {
            const struct told *told = &r->told[t];
            uint64_t first = strtoull(told->file + 4, NULL, 16);
            uint64_t from = first + told->damage.offset;
            lost = told->damage.kind == BFT_SALVAGE_LOG &&
                   frame->lsn < from + told->damage.bytes && frame->end > from;
        }
        if (lost && frame_has(frame, e))
            return true;
    }
    return false;
}

/* The trees of a rig, and their numbers, which pages have. */
static const char *const tree_names[] = {"narrow", "wide", "cleared"};
enum { TREES = sizeof(tree_names) / sizeof(tree_names[0]) };
static uint32_t tree_ids[TREES];

static void tree_ids_note(const struct rig *r)
{
    for (int i = 0; i < TREES; i++)
        tree_ids[i] = bfti_tree_by_name(r->f->db->engine, tree_names[i])->id;
}

/* A database that was killed with many changes in its log, of which all
 * but the last hundred are known to have been durable. */
static struct rig *rig_killed(struct frames **frames)
{
    struct rig *r = rig_make();
    struct map *map;
    rig_fill(r);
    expect_ok(bft_checkpoint(r->f->db));
    rig_changes(r->f, 1500);
    expect_ok(bft_sync(r->f->db));
    rig_changes(r->f, 100);
    tree_ids_note(r);
    rig_image(r, false);
    map = map_read(r->image);
    *frames = frames_read(r->image, &map->sb);
    free(map);
    assert_true((*frames)->count > 400);
    return r;
}

/* What differs are keys that a lost frame has. */
static size_t expect_all_but_logged(struct rig *r, const struct frames *frames)
{
    struct dump got = rig_salvage(r);
    size_t lost = 0;
    for (size_t i = 0; i < r->whole.count; i++) {
        const struct entry *e = &r->whole.entry[i];
        if (dump_same_value(dump_find(&got, e), e))
            continue;
        assert_true(logged_key(r, frames, e, false));
        lost++;
    }
    for (size_t i = 0; i < got.count; i++)
        assert_true(dump_find(&r->whole, &got.entry[i]) ||
                    logged_key(r, frames, &got.entry[i], false));
    assert_int_equal(0, r->report.ranges_lost);
    free(got.entry);
    return lost;
}

static void a_damaged_frame_takes_its_own_records_only(void **state)
{
    struct frames *frames;
    struct rig *r;
    (void)state;
    random_start();
    r = rig_killed(&frames);
    for (int round = 0; round < 15; round++) {
        const struct logged *frame =
            &frames->frame[random_below(frames->count / 2)];
        uint64_t at =
            frame->lsn + random_below((size_t)BFTI_FRAME_HEADER + frame->len);
        const struct told *told;
        char name[40];
        rig_repair(r);
        snprintf(name, sizeof(name), "log-%016llx",
                 (unsigned long long)(at - at % frames->segment_bytes));
        rig_damage_at(r, name, at % frames->segment_bytes);
        expect_all_but_logged(r, frames);
        assert_int_equal(1, r->report.log_gaps);
        assert_int_equal(frames->count - 1, r->report.log_frames);
        assert_int_equal(frame->end - frame->lsn, r->report.log_gap_bytes);
        told = rig_told_of(r, BFT_SALVAGE_LOG);
        assert_int_equal(frame->lsn % frames->segment_bytes,
                         told->damage.offset);
    }
    frames_free(frames);
    rig_free(r);
}

static void a_missing_segment_takes_its_own_frames_only(void **state)
{
    struct frames *frames;
    struct rig *r;
    uint64_t middle;
    char path[64];
    (void)state;
    random_start();
    r = rig_killed(&frames);
    middle = frames->frame[frames->count / 3].lsn;
    snprintf(path, sizeof(path), FROM "/log-%016llx",
             (unsigned long long)(middle - middle % frames->segment_bytes));
    expect_ok(r->image->ops->remove(r->image, path));
    expect_all_but_logged(r, frames);
    assert_int_equal(1, r->report.log_gaps);
    frames_free(frames);
    rig_free(r);
}

/* What is not known to have been durable may be the torn tail of a crash: the
 * log ends there, as it does for recovery. */
static void a_torn_tail_ends_the_log(void **state)
{
    struct frames *frames;
    struct rig *r;
    const struct logged *frame;
    struct dump got;
    (void)state;
    random_start();
    r = rig_killed(&frames);
    frame = &frames->frame[frames->count - 20];
    {
        char name[40];
        uint64_t at = frame->lsn + 8;
        snprintf(name, sizeof(name), "log-%016llx",
                 (unsigned long long)(at - at % frames->segment_bytes));
        rig_damage_at(r, name, at % frames->segment_bytes);
    }
    got = rig_salvage(r);
    assert_int_equal(0, r->report.log_gaps);
    assert_int_equal(frames->count - 20, r->report.log_frames);
    free(r->whole.entry);
    expect_ok(r->image->ops->remove(r->image, TO "/lock"));
    r->whole = dump_of(r->f, r->image, FROM);
    dump_expect_same(&r->whole, &got);
    free(got.entry);
    frames_free(frames);
    rig_free(r);
}

/* --- any damage ----------------------------------------------------------- */

static int key_order(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return bfti_key_compare((bft_slice){x->key, x->key_len},
                            (bft_slice){y->key, y->key_len});
}

/* Is there a record with E's key and value, in whatever tree? */
static bool has_record(const struct dump *dump, const struct entry *e)
{
    const struct entry *at = dump->count ? bsearch(e, dump->entry, dump->count,
                                                   sizeof(*e), key_order)
                                         : NULL;
    if (!at)
        return false;
    while (at > dump->entry && key_order(at - 1, e) == 0)
        at--;
    for (; at < dump->entry + dump->count && key_order(at, e) == 0; at++)
        if (dump_same_value(at, e))
            return true;
    return false;
}

/* Harm the page file, and the log with *LOG. */
static void harm(struct rig *r, bool *log)
{
    uint64_t bytes;
    uint8_t block[BFTI_BLOCK] = {0};
    size_t got, n = 1 + random_below(60);
    struct bfti_file *file;
    expect_ok(r->image->ops->open(r->image, FROM "/data", 0, &file));
    expect_ok(file->ops->size(file, &bytes));
    for (size_t i = 0; i < n; i++) {
        uint64_t at =
            random_below((size_t)bytes / BFTI_BLOCK) * (uint64_t)BFTI_BLOCK;
        switch (random_below(4)) {
        case 0: /* another block's, which lies where it should not */
            expect_ok(file->ops->read(file,
                                      random_below((size_t)bytes / BFTI_BLOCK) *
                                          (uint64_t)BFTI_BLOCK,
                                      block, sizeof(block), &got));
            break;
        case 1:
            memset(block, 0, sizeof(block));
            break;
        case 2:
            random_bytes(block, sizeof(block));
            break;
        default:
            expect_ok(file->ops->read(file, at, block, sizeof(block), &got));
            block[random_below(sizeof(block))] ^= 1;
        }
        expect_ok(file->ops->write(file, at, block, sizeof(block)));
    }
    if (random_below(4) == 0) /* both superblocks */
        for (uint64_t at = 0; at < 2; at++)
            expect_ok(file->ops->write(file, at * BFTI_BLOCK, block, 512));
    file->ops->close(file);
    if (random_below(5) == 0)
        expect_ok(bfti_sim_cut(r->image, FROM "/data",
                               random_below((size_t)bytes + 1)));
    *log = random_below(3) == 0;
}

/* Harm some bytes of frames. */
static void harm_log(struct rig *r, const struct frames *frames)
{
    for (size_t n = random_below(5) + 1; n > 0 && frames->count; n--) {
        uint64_t at =
            frames->frame[random_below(frames->count)].lsn + random_below(32);
        char name[40];
        snprintf(name, sizeof(name), "log-%016llx",
                 (unsigned long long)(at - at % frames->segment_bytes));
        rig_damage_at(r, name, at % frames->segment_bytes);
    }
}

static bool place_is_whole(struct map *damaged, uint64_t place,
                           const void **raw, size_t *len)
{
    struct bfti_extent_info info;
    return map_extent(damaged, place, &info, raw, len) == BFT_OK;
}

static bool part_is_whole(struct map *damaged, uint64_t place, uint32_t *crc)
{
    const void *raw;
    size_t len;
    if (!place_is_whole(damaged, place, &raw, &len))
        return false;
    *crc = bfti_crc32c(*crc, raw, len);
    return true;
}

/* Are all extents of VIEW's value whole?  Its length and checksum go to E. */
static bool value_is_whole(struct map *damaged, const struct bfti_view *view,
                           struct entry *e)
{
    struct bfti_large large;
    uint64_t places[16];
    const void *raw;
    size_t len, count;
    e->value_crc = 0;
    if (!(view->flags & BFTI_REC_LARGE)) {
        e->value_len = view->value_len;
        e->value_crc = bfti_crc32c(0, view->value, view->value_len);
        return true;
    }
    memcpy(&large, view->value, sizeof(large));
    e->value_len = (size_t)bfti_large_bytes(&large);
    if (!bfti_large_is_list(e->value_len))
        return part_is_whole(damaged, le64_get(large.place), &e->value_crc);
    if (!place_is_whole(damaged, le64_get(large.place), &raw, &len))
        return false;
    count = len / 8;
    assert_true(count <= 16);
    for (size_t i = 0; i < count; i++)
        places[i] = le64_get(((const le64 *)raw)[i]);
    for (size_t i = 0; i < count; i++)
        if (!part_is_whole(damaged, places[i], &e->value_crc))
            return false;
    return true;
}

/* How many records had to be there. */
static struct {
    unsigned all, large, several, little; /* of several extents; of few bytes */
} wanted;

/* The record of VIEW, whose page is whole, is there, if it is what its tree held
 * before, and its value is whole. */
static void expect_record(const struct rig *r, struct map *damaged,
                          const struct dump *got, uint32_t tree_id,
                          const struct bfti_view *view,
                          const struct frames *frames, bool log)
{
    struct entry e;
    int tree = 0;
    memset(&e, 0, sizeof(e));
    while (tree < TREES && tree_ids[tree] != tree_id)
        tree++;
    if (!bfti_op_has_value(view->op) || tree == TREES ||
        !value_is_whole(damaged, view, &e))
        return;
    e.key_len = bfti_view_key_len(view);
    bfti_view_key(view, e.key);
    /* In its tree: of a short value another may have the like by chance. */
    (void)snprintf(e.tree, sizeof(e.tree), "%s", tree_names[tree]);
    if (!dump_same_value(dump_find(&r->whole, &e), &e) ||
        (log && logged_key(r, frames, &e, true)))
        return;
    wanted.all++;
    wanted.little += e.value_len < 8;
    wanted.large += (view->flags & BFTI_REC_LARGE) != 0;
    wanted.several +=
        (view->flags & BFTI_REC_LARGE) != 0 && bfti_large_is_list(e.value_len);
    if (!has_record(got, &e))
        fail_msg("\"%.*s\" of %s, %zu bytes, is missing, and its page and "
                 "value are whole (map %d, log %d)",
                 (int)e.key_len, (const char *)e.key, e.tree, e.value_len,
                 r->report.map_read, log);
}

/* The records of an extent of a page that is whole. */
static void expect_extent(const struct rig *r, struct map *damaged,
                          const struct dump *got, const void *raw, size_t len,
                          const struct frames *frames, bool log)
{
    struct bfti_run *run = malloc(len + 1);
    assert_non_null(run);
    memcpy(run, raw, len);
    for (unsigned v = 0; v < bfti_run_count(run); v++) {
        struct bfti_view view = bfti_run_view(run, v);
        expect_record(r, damaged, got, le32_get(run->tree_id), &view, frames,
                      log);
    }
    free(run);
}

/* All records of pages that are whole are there, and those of the deltas above an
 * extent that is not. */
static void expect_whole_pages(const struct rig *r, const struct map *map,
                               const struct dump *got,
                               const struct frames *frames, bool log)
{
    struct map *damaged = calloc(1, sizeof(*damaged));
    assert_non_null(damaged);
    map_open(damaged, r->image);
    for (size_t i = 0; i < map->count; i++) {
        const struct live *live = &map->live[i];
        const void *raw;
        size_t len;
        for (unsigned p = 0;
             p < live->places &&
             place_is_whole(damaged, live->place[p], &raw, &len);
             p++)
            expect_extent(r, damaged, got, raw, len, frames, log);
    }
    map_close(damaged);
    free(damaged);
}

static void what_is_whole_comes_back_whatever_else_is_damaged(void **state)
{
    unsigned mapped = 0, unmapped = 0, old = 0;
    (void)state;
    random_start();
    for (int base = 0; base < 3; base++) {
        struct frames *frames;
        struct rig *r = rig_killed(&frames);
        struct map *map = map_read(r->image);
        struct dump whole = {0};
        whole.count = r->whole.count;
        whole.entry = malloc(whole.count * sizeof(*whole.entry));
        assert_non_null(whole.entry);
        memcpy(whole.entry, r->whole.entry, whole.count * sizeof(*whole.entry));
        dump_forget_names(&whole);
        for (int round = 0; round < 15; round++) {
            struct dump got;
            bool log;
            rig_repair(r);
            harm(r, &log);
            if (log)
                harm_log(r, frames);
            r->options.old = BFT_SALVAGE_OLD_UNMAPPED;
            got = rig_salvage(r);
            dump_forget_names(&got);
            expect_whole_pages(r, map, &got, frames, log);
            for (size_t i = 0; i < whole.count && !log; i++)
                assert_true(has_record(&got, &whole.entry[i]) ||
                            r->report.extents_damaged > 0 ||
                            r->report.records_lost > 0 ||
                            r->report.ranges_lost + r->report.ranges_old > 0);
            mapped += r->report.map_read;
            unmapped += !r->report.map_read;
            old += r->report.records_old > 0;
            free(got.entry);
        }
        free(whole.entry);
        free(map);
        frames_free(frames);
        rig_free(r);
    }
    printf("the map was read %u times, not %u, old records %u\n", mapped,
           unmapped, old);
    printf("%u records had to be there, %u with large values, %u of several "
           "extents, %u of less than 8 bytes\n",
           wanted.all, wanted.large, wanted.several, wanted.little);
    assert_true(mapped > 3 && unmapped > 3);
    assert_true(wanted.large > 100 && wanted.little > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_damaged_frame_takes_its_own_records_only),
        cmocka_unit_test(a_missing_segment_takes_its_own_frames_only),
        cmocka_unit_test(a_torn_tail_ends_the_log),
        cmocka_unit_test(what_is_whole_comes_back_whatever_else_is_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
