/*
 * What an opening takes from what it finds: the newer superblock, the values that
 * the log names, and which directory a new database's name is in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "index/image.h"
#include "park.h"

enum { SHORT = 40, RECORDS = 12000 };

static bft_slice text_slice(const char *text)
{
    return (bft_slice){text, strlen(text)};
}

static void put_short(bft_tree *tree, unsigned i)
{
    static const uint8_t value[SHORT];
    char buf[16];
    bft_slice key = {buf, (size_t)snprintf(buf, sizeof(buf), "k%08u", i)};
    expect_ok(bft_put(tree, key, (bft_slice){value, SHORT}));
}

/* --- long values ------------------------------------------------------------- */

struct source {
    size_t at;
    unsigned kind;
};

static uint8_t byte_at(size_t at, unsigned kind)
{
    return (uint8_t)((at * 2654435761u >> 13) + kind * 77);
}

static bft_status source_read(void *ctx, void *buf, size_t len)
{
    struct source *source = ctx;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)buf)[i] = byte_at(source->at + i, source->kind);
    source->at += len;
    return BFT_OK;
}

static void put_long(bft_tree *tree, const char *key, size_t bytes,
                     unsigned kind)
{
    struct source source = {0, kind};
    expect_ok(
        bft_put_stream(tree, text_slice(key), bytes, source_read, &source));
}

static void expect_long(bft_tree *tree, const char *key, size_t bytes,
                        unsigned kind)
{
    uint8_t *value;
    size_t len;
    void *got;
    expect_ok(bft_get_copy(tree, text_slice(key), &got, &len));
    assert_int_equal(bytes, len);
    value = got;
    for (size_t i = 0; i < len; i++)
        if (value[i] != byte_at(i, kind))
            fail_msg("byte %zu of %s is wrong", i, key);
    bft_free(got);
}

/* Values that frames name by where they are: of a tree that stays, replaced ones,
 * and of one that is dropped further on.  What is evicted before redo comes to them
 * is not written over them. */
static void long_values_are_redone(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_tree *tree, *other;
    bft_slice all = {NULL, 0};
    uint64_t count;
    (void)state;
    f->options.no_threads = true;
    f->options.log_bytes = 8 << 20;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    other = engine_tree(f, "other", 512);
    for (unsigned i = 0; i < RECORDS; i++)
        put_short(tree, i);
    put_long(tree, "x", 3000000, 1);
    put_long(other, "x", 2500000, 2);
    put_long(tree, "y", 2000000, 3);
    put_long(tree, "x", 1200000, 4);
    put_long(other, "y", 1100000, 5);
    put_long(tree, "z", 4000000, 6);
    expect_ok(bft_tree_drop(f->db, "other"));
    expect_ok(bft_sync(f->db));
    engine_crash(f, BFTI_SIM_KEEP, 1);
    assert_true(engine_stats(f).recovered_frames > RECORDS);
    tree = engine_tree(f, "t", 512);
    for (unsigned round = 0; round < 2; round++) {
        expect_long(tree, "x", 1200000, 4);
        expect_long(tree, "y", 2000000, 3);
        expect_long(tree, "z", 4000000, 6);
        expect_ok(bft_count(tree, all, all, &count));
        assert_int_equal(RECORDS + 3, count);
        expect_ok(bft_verify(f->db));
        engine_reopen(f);
        tree = engine_tree(f, "t", 512);
    }
    engine_fixture_free(f);
}

#ifndef NDEBUG

struct putter {
    bft_tree *tree;
    bft_db *db;
    bool is_short;
};

static void put_behind(void *arg)
{
    const struct putter *putter = arg;
    if (putter->is_short)
        put_short(putter->tree, 7);
    else
        put_long(putter->tree, "late", 3000000, 7);
}

static void drop_other(void *arg)
{
    const struct putter *putter = arg;
    expect_ok(bft_tree_drop(putter->db, "other"));
}

/* Crash and redo all, FRAMES at least: there was no image. */
static bft_tree *redo_all(struct engine_fixture *f, uint64_t *frames)
{
    expect_ok(bft_sync(f->db));
    engine_crash(f, BFTI_SIM_KEEP, 1);
    assert_true(f->db->engine->recovered_frames > *frames);
    *frames = f->db->engine->recovered_frames;
    return engine_tree(f, "t", 512);
}

/* A put that overlaps the drop of its tree may be in the log behind it: then its
 * extents are given back, and nobody else's; but not while the log names them, which
 * it does when a crash comes before the next image. */
static void goes_behind_the_drop(bool is_short)
{
    uint64_t frames = 0;
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct parked writer, dropper;
    struct bfti_space_stats space;
    struct putter putter;
    bft_tree *tree;
    f->options.no_threads = true;
    f->options.log_bytes = 8 << 20;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    putter = (struct putter){engine_tree(f, "other", 512), f->db, is_short};
    put_long(tree, "x", 2000000, 1);
    assert_true(park_start(&writer, "write:guarded", 0, put_behind, &putter));
    assert_true(park_start(&dropper, "drop:logged", 0, drop_other, &putter));
    park_end(&writer);
    park_end(&dropper);
    put_long(tree, "y", 1500000, 2);
    tree = redo_all(f, &frames);
    put_long(tree, "z", 4000000, 3);
    for (unsigned i = 0; i < 3; i++) {
        put_short(tree, i);
        tree = redo_all(f, &frames);
        expect_long(tree, "x", 2000000, 1);
        expect_long(tree, "y", 1500000, 2);
        expect_long(tree, "z", 4000000, 3);
        expect_ok(bft_verify(f->db));
    }
    expect_ok(bft_checkpoint(f->db));
    assert_in_range(engine_stats(f).live_bytes, 7500000, 8500000);
    assert_in_range(engine_stats(f).held_bytes, 0, 500000);
    bfti_space_stats(f->db->engine->buffer.pf, &space);
    assert_int_equal(0, space.private_extents); /* else a verify looks away */
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void a_value_behind_the_drop_of_its_tree_goes(void **state)
{
    (void)state;
    goes_behind_the_drop(false);
    goes_behind_the_drop(true);
}

#endif

/* Bytes that live after a redo in which a value was replaced so often. */
static uint64_t live_after(unsigned replaced)
{
    enum { FEW = 600, LONG = 20000 };
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_tree *tree;
    uint64_t live;
    f->options.no_threads = true;
    f->options.log_bytes = 8 << 20;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    for (unsigned i = 0; i < replaced; i++)
        put_long(tree, "x", LONG, 4 + i);
    put_long(tree, "x", LONG, 2);
    for (unsigned i = 0; i < FEW; i++)
        put_short(tree, i);
    put_long(tree, "y", LONG, 3);
    expect_ok(bft_sync(f->db));
    engine_crash(f, BFTI_SIM_KEEP, 1);
    assert_true(engine_stats(f).recovered_frames > FEW); /* no image between */
    tree = engine_tree(f, "t", 512);
    expect_long(tree, "x", LONG, 2);
    expect_long(tree, "y", LONG, 3);
    expect_ok(bft_verify(f->db));
    expect_ok(bft_checkpoint(f->db));
    live = engine_stats(f).live_bytes;
    engine_fixture_free(f);
    return live;
}

/* Values that were replaced go while others are still to be redone, and so does their
 * space. */
static void a_replaced_value_goes_in_redo(void **state)
{
    uint64_t live = live_after(0);
    (void)state;
    assert_in_range(live_after(6), live, live + 40000);
}

/* The image has the value that a later frame names, and redo begins with an
 * earlier one, which takes it away: it stays until redo has come to its frame, be
 * it the FIRST that names one, or not. */
static void stays_until_redone(bool first)
{
    static struct bfti_wal_thread slow; /* as long as the log is open */
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct bfti_wal *wal;
    bft_tree *tree;
    uint64_t count;
    bft_slice all = {NULL, 0};
    f->options.no_threads = true;
    f->options.log_bytes = 8 << 20;
    engine_open(f);
    tree = engine_tree(f, "t", 512);
    for (unsigned i = 0; i < RECORDS; i++)
        put_short(tree, i);
    /* Redo begins where a writer is who has not left. */
    wal = f->db->engine->buffer.wal;
    memset(&slow, 0, sizeof(slow));
    bfti_wal_attach(wal, &slow);
    bfti_wal_enter(wal, &slow);
    expect_ok(bft_put(tree, text_slice("a"), text_slice("short")));
    if (!first)
        put_long(tree, "b", 100000, 5);
    for (unsigned i = 0; i < RECORDS; i++)
        put_short(tree, i);
    put_long(tree, "a", 400000, 4);
    if (first)
        put_long(tree, "b", 100000, 5);
    put_long(tree, "c", 120000, 6);
    expect_ok(bft_checkpoint(f->db));
    bfti_wal_leave(wal, &slow);
    expect_ok(bft_sync(f->db));
    engine_crash(f, BFTI_SIM_KEEP, 1);
    assert_true(engine_stats(f).recovered_frames > RECORDS);
    tree = engine_tree(f, "t", 512);
    for (unsigned i = 0; i < RECORDS; i++)
        put_short(tree, i);
    expect_long(tree, "a", 400000, 4);
    expect_long(tree, "b", 100000, 5);
    expect_long(tree, "c", 120000, 6);
    expect_ok(bft_count(tree, all, all, &count));
    assert_int_equal(RECORDS + 3, count);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void what_the_log_still_names_stays(void **state)
{
    (void)state;
    stays_until_redone(true);
    stays_until_redone(false);
}

/* Frames name what redo gave back: the next image is none that begins with them. */
static void one_frame_that_is_redone_counts(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    (void)engine_tree(f, "t", 512);
    for (unsigned frames = 0; frames < 2; frames++) {
        expect_ok(bft_checkpoint(f->db));
        assert_false(bfti_images_are_whole(f->db->engine));
        if (frames)
            put_short(engine_tree(f, "t", 512), 1);
        expect_ok(bft_sync(f->db));
        engine_crash(f, BFTI_SIM_KEEP, 1);
        assert_int_equal(frames, engine_stats(f).recovered_frames);
        assert_int_equal(bfti_wal_end(f->db->engine->buffer.wal),
                         f->db->engine->superblock.durable_mark);
        assert_int_equal(frames, bfti_images_are_whole(f->db->engine));
    }
    engine_fixture_free(f);
}

/* Of leaves that are evicted the changes are written only: they are not read. */
static void a_redo_of_many_leaves_reads_few(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    uint64_t read;
    (void)state;
    f->options.no_threads = true;
    f->options.log_bytes = 8 << 20;
    engine_open(f);
    for (unsigned i = 0; i < RECORDS; i++)
        put_short(engine_tree(f, "t", 512), i);
    expect_ok(bft_checkpoint(f->db));
    for (unsigned i = 0; i < RECORDS; i += 3)
        put_short(engine_tree(f, "t", 512), i * 7 % RECORDS);
    expect_ok(bft_sync(f->db));
    read = engine_stats(f).extents_read;
    engine_crash(f, BFTI_SIM_KEEP, 1);
    assert_in_range(engine_stats(f).extents_read - read, 0, RECORDS / 100);
    engine_fixture_free(f);
}

/* --- the log ----------------------------------------------------------------- */

/* What is left of 300 records of which none was synced, by a kill. */
static struct engine_fixture *killed(struct bfti_vfs **crashed)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    f->options.no_threads = true;
    engine_open(f);
    for (unsigned i = 0; i < 300; i++)
        put_short(engine_tree(f, "t", 512), i);
    expect_ok(bfti_sim_image(f->vfs, BFTI_SIM_KEEP, 1, crashed));
    engine_close(f);
    return f;
}

/* Open that, with the NTH read of the log going wrong as SEED has it; *MORE: there
 * was one. */
static bft_status open_killed(struct engine_fixture *f,
                              struct bfti_vfs *crashed, uint64_t nth,
                              uint64_t seed, enum bfti_sim_harm harm,
                              uint64_t *more)
{
    struct bfti_sim_fault fault = {
        .ops = BFTI_SIM_READ, .path = "/db/log-", .nth = nth, .harm = harm};
    bft_status status;
    bfti_vfs_sim_destroy(f->vfs);
    expect_ok(bfti_sim_image(crashed, BFTI_SIM_KEEP, seed, &f->vfs));
    bfti_sim_fail(f->vfs, &fault);
    status = engine_open_status(f);
    *more = bfti_sim_struck(f->vfs);
    bfti_sim_heal(f->vfs);
    return status;
}

static void count_read(void *arg, enum bfti_sim_op op)
{
    *(unsigned *)arg += op == BFTI_SIM_READ;
}

/* Reads of an opening that redoes short values, and a long one, if LONG. */
static unsigned reads_of_redo(bool is_long)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct bfti_vfs *crashed;
    unsigned reads = 0;
    f->options.no_threads = true;
    f->options.log_bytes = 8 << 20;
    f->options.memory_bytes = 32 << 20; /* leaves need no reading */
    engine_open(f);
    for (unsigned i = 0; i < RECORDS; i++)
        put_short(engine_tree(f, "t", 512), i);
    if (is_long)
        put_long(engine_tree(f, "t", 512), "x", 20000, 1);
    expect_ok(bfti_sim_image(f->vfs, BFTI_SIM_KEEP, 1, &crashed));
    engine_close(f);
    bfti_vfs_sim_destroy(f->vfs);
    f->vfs = crashed;
    bfti_sim_set_delay(f->vfs, count_read, &reads);
    engine_open(f);
    bfti_sim_set_delay(f->vfs, NULL, NULL);
    engine_fixture_free(f);
    return reads;
}

/* To learn what is to be kept it is read once more, where it names anything. */
static void a_log_without_long_values_is_read_twice(void **state)
{
    unsigned reads = reads_of_redo(false);
    (void)state;
    assert_true(reads_of_redo(true) > reads + reads / 8);
}

/* It is read twice, and the second time less of it may be right. */
static void a_log_that_reads_otherwise_is_told(void **state)
{
    struct bfti_vfs *crashed;
    struct engine_fixture *f = killed(&crashed);
    unsigned told = 0;
    uint64_t more;
    (void)state;
    for (uint64_t nth = 1, seed = 1; seed < 9; nth++) {
        bft_status status =
            open_killed(f, crashed, nth, seed, BFTI_SIM_FLIP, &more);
        char text[400] = "";
        if (!more) {
            seed++;
            nth = 0;
        }
        if (status == BFT_OK) {
            engine_close(f);
            continue;
        }
        expect_status(BFT_CORRUPT, status);
        (void)bft_last_error(text, sizeof(text));
        told += strstr(text, "when read again") != NULL;
    }
    assert_true(told > 0);
    bfti_vfs_sim_destroy(crashed);
    engine_fixture_free(f);
}

/* A read that gives less than the file has is no end of the log, neither where it
 * is looked for nor where it is written once more. */
static void a_short_read_is_no_end_of_the_log(void **state)
{
    bft_slice all = {NULL, 0};
    struct bfti_vfs *crashed;
    struct engine_fixture *f = killed(&crashed);
    uint64_t more = 1, count;
    unsigned told = 0;
    (void)state;
    for (uint64_t nth = 1; more; nth++) {
        bft_status status =
            open_killed(f, crashed, nth, nth, BFTI_SIM_SHORT, &more);
        if (status != BFT_OK) {
            expect_status(BFT_IO, status);
            told++;
            engine_open(f);
        }
        expect_ok(bft_count(engine_tree(f, "t", 512), all, all, &count));
        assert_int_equal(300, count);
        engine_close(f);
    }
    assert_true(told > 2);
    bfti_vfs_sim_destroy(crashed);
    engine_fixture_free(f);
}

/* --- superblocks --------------------------------------------------------------- */

static void move_superblock(struct engine_fixture *f, unsigned slot,
                            uint8_t block[BFTI_BLOCK], bool write)
{
    struct bfti_file *file;
    uint64_t at = (uint64_t)slot * BFTI_BLOCK;
    size_t got;
    expect_ok(f->vfs->ops->open(f->vfs, "/db/data", 0, &file));
    if (write)
        expect_ok(file->ops->write(file, at, block, BFTI_BLOCK));
    else
        expect_ok(file->ops->read(file, at, block, BFTI_BLOCK, &got));
    file->ops->close(file);
}

/* A database that is closed, and both its superblocks as they were. */
struct aged {
    struct engine_fixture *f;
    uint8_t old[2][BFTI_BLOCK];
    unsigned records;
};

static void aged_make(struct aged *a)
{
    a->f = engine_fixture_make(ENGINE_SIM);
    a->f->options.no_threads = true;
    a->records = 500;
    engine_open(a->f);
    for (unsigned i = 0; i < a->records; i++)
        put_short(engine_tree(a->f, "t", 512), i);
    engine_close(a->f);
    for (unsigned slot = 0; slot < 2; slot++)
        move_superblock(a->f, slot, a->old[slot], false);
}

/* It goes on, but for SLOT; what that rests on is gone. */
static void aged_go_on(struct aged *a, unsigned slot)
{
    engine_open(a->f);
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < 3000; i++)
            put_short(engine_tree(a->f, "t", 512), a->records++);
        expect_ok(bft_checkpoint(a->f->db));
    }
    engine_close(a->f);
    move_superblock(a->f, slot, a->old[slot], true);
}

/* Opened, it has everything. */
static void aged_check(struct aged *a)
{
    bft_slice all = {NULL, 0};
    uint64_t count;
    expect_ok(bft_count(engine_tree(a->f, "t", 512), all, all, &count));
    assert_int_equal(a->records, count);
    expect_ok(bft_verify(a->f->db));
    engine_close(a->f);
}

/* One that is whole, but which the disk did not take for long: what it rests on is
 * gone. */
static void an_older_superblock_in_either_slot_is_passed_over(void **state)
{
    struct aged a;
    (void)state;
    aged_make(&a);
    for (unsigned slot = 0; slot < 2; slot++) {
        aged_go_on(&a, slot);
        engine_open(a.f);
        aged_check(&a);
    }
    engine_fixture_free(a.f);
}

static bft_status verify_it(struct engine_fixture *f)
{
    return bft_verify(f->db);
}

/* CALL, of whose reads of the page file the first are those of superblocks, while
 * the system refuses to read SLOT.  If it fails the text says so. */
static bft_status unread(struct engine_fixture *f, unsigned slot,
                         bft_status (*call)(struct engine_fixture *f))
{
    struct bfti_sim_fault fault = {.ops = BFTI_SIM_READ,
                                   .path = "/db/data",
                                   .nth = slot + 1,
                                   .harm = BFTI_SIM_REFUSE,
                                   .status = BFT_IO};
    char text[600], said[40];
    uint64_t struck = bfti_sim_struck(f->vfs);
    bft_status status;
    bfti_sim_fail(f->vfs, &fault);
    status = call(f);
    if (status != BFT_OK) {
        (void)bft_last_error(text, sizeof(text));
        (void)snprintf(said, sizeof(said), "data: superblock %u", slot);
        if (!strstr(text, said))
            fail_msg("not %s, but: %s", said, text);
    }
    assert_int_equal(struck + 1, bfti_sim_struck(f->vfs));
    bfti_sim_heal(f->vfs);
    return status;
}

/* Either is there for when the other is lost; also to who only reads. */
static void a_superblock_that_cannot_be_read_is_done_without(void **state)
{
    struct aged a;
    (void)state;
    aged_make(&a);
    for (unsigned i = 0; i < 4; i++) {
        a.f->options.read_only = i >= 2;
        expect_ok(unread(a.f, i % 2, engine_open_status));
        if (i < 2) /* or one of them is in memory */
            expect_status(BFT_IO, unread(a.f, i, verify_it));
        aged_check(&a);
    }
    engine_fixture_free(a.f);
}

/* But not for one that is older, and rests on what is gone: when the other one can
 * be read again everything is there. */
static void a_superblock_that_is_needed_and_unread_is_told(void **state)
{
    struct aged a;
    (void)state;
    aged_make(&a);
    for (unsigned slot = 0; slot < 2; slot++) {
        aged_go_on(&a, slot);
        expect_status(BFT_IO, unread(a.f, slot ^ 1u, engine_open_status));
        engine_open(a.f);
        aged_check(&a);
    }
    engine_fixture_free(a.f);
}

/* Nor is a database made anew whose only superblock cannot be read. */
static void an_unread_superblock_is_not_taken_for_none(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct bfti_vfs *killed;
    uint8_t id[16];
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    memcpy(id, f->db->engine->database_id, sizeof(id));
    expect_ok(bfti_sim_image(f->vfs, BFTI_SIM_KEEP, 1, &killed));
    engine_close(f);
    bfti_vfs_sim_destroy(f->vfs);
    f->vfs = killed;
    expect_status(BFT_IO, unread(f, 0, engine_open_status));
    engine_open(f);
    assert_memory_equal(id, f->db->engine->database_id, sizeof(id));
    engine_fixture_free(f);
}

/* Of two that one opening wrote, too. */
static void the_last_superblock_is_taken(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    uint8_t old[BFTI_BLOCK];
    (void)state;
    f->options.no_threads = true;
    for (unsigned slot = 0; slot < 2; slot++) {
        uint64_t sequence;
        engine_open(f);
        put_short(engine_tree(f, "t", 512), slot);
        expect_ok(bft_checkpoint(f->db));
        move_superblock(f, slot, old, false);
        put_short(engine_tree(f, "t", 512), slot);
        expect_ok(bft_checkpoint(f->db));
        sequence = f->db->engine->superblock.sequence;
        engine_close(f);
        move_superblock(f, slot, old, true);
        engine_open(f);
        assert_true(f->db->engine->superblock.sequence >= sequence);
        engine_close(f);
    }
    engine_fixture_free(f);
}

/* Frames of an opening whose superblock is lost are older than those to come. */
static void an_incarnation_is_above_those_of_the_log(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    uint8_t none[BFTI_BLOCK] = {0};
    struct bfti_vfs *crashed;
    uint64_t incarnation;
    unsigned slot;
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    for (unsigned i = 0; i < 3; i++) {
        put_short(engine_tree(f, "t", 512), i);
        expect_ok(bft_sync(f->db));
        if (i < 2)
            engine_crash(f, BFTI_SIM_KEEP, 1);
    }
    incarnation = engine_stats(f).incarnation;
    slot = f->db->engine->superblock_slot;
    expect_ok(bfti_sim_image(f->vfs, BFTI_SIM_KEEP, 1, &crashed));
    engine_close(f);
    bfti_vfs_sim_destroy(f->vfs);
    f->vfs = crashed;
    move_superblock(f, slot, none, true);
    engine_open(f);
    assert_true(engine_stats(f).incarnation > incarnation);
    engine_fixture_free(f);
}

/* The superblock that was found may not be durable: nothing is written before it
 * is. */
static void what_was_found_is_made_durable_first(void **state)
{
    struct bfti_vfs *crashed;
    struct engine_fixture *f = killed(&crashed);
    struct bfti_sim_fault fault = {.ops = BFTI_SIM_SYNC,
                                   .path = "/db/data",
                                   .nth = 1,
                                   .harm = BFTI_SIM_REFUSE,
                                   .status = BFT_IO};
    uint8_t before[2][BFTI_BLOCK], after[BFTI_BLOCK];
    (void)state;
    bfti_vfs_sim_destroy(f->vfs);
    f->vfs = crashed;
    for (unsigned slot = 0; slot < 2; slot++)
        move_superblock(f, slot, before[slot], false);
    bfti_sim_fail(f->vfs, &fault);
    expect_status(BFT_IO, engine_open_status(f));
    bfti_sim_heal(f->vfs);
    for (unsigned slot = 0; slot < 2; slot++) {
        move_superblock(f, slot, after, false);
        assert_memory_equal(before[slot], after, sizeof(after));
    }
    engine_open(f);
    engine_fixture_free(f);
}

/* What a kill leaves of a database before its first superblock is written, once the
 * directory above is synced. */
struct unmade {
    struct engine_fixture *f;
    struct bfti_vfs *image;
    bool synced;
};

static void image_before_superblock(void *arg, const struct bfti_sim_step *step)
{
    struct unmade *u = arg;
    u->synced |= step->op == BFTI_SIM_SYNC_DIR && strcmp(step->path, "/") == 0;
    if (u->synced && !u->image && step->op == BFTI_SIM_WRITE &&
        strstr(step->path, "/data"))
        expect_ok(bfti_sim_image(u->f->vfs, BFTI_SIM_KEEP, 1, &u->image));
}

/* Names that are there may not be durable: they are before there is a superblock. */
static void names_are_durable_before_a_superblock(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct unmade u = {f, NULL, false};
    struct bfti_sim_fault fault = {.ops = BFTI_SIM_SYNC_DIR,
                                   .path = "/db",
                                   .nth = 1,
                                   .sticky = true,
                                   .harm = BFTI_SIM_REFUSE,
                                   .status = BFT_IO};
    (void)state;
    f->options.no_threads = true;
    bfti_sim_on_step(f->vfs, image_before_superblock, &u);
    engine_open(f);
    engine_close(f);
    assert_non_null(u.image);
    bfti_vfs_sim_destroy(f->vfs);
    f->vfs = u.image;
    bfti_sim_fail(f->vfs, &fault);
    expect_status(BFT_IO, engine_open_status(f));
    bfti_sim_heal(f->vfs);
    engine_open(f);
    engine_fixture_free(f);
}

/* What a new database begins with is in its first superblock. */
static void a_new_database_has_ids_of_its_own(void **state)
{
    uint8_t id[2][16];
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
        f->options.no_threads = true;
        engine_open(f);
        assert_int_equal(1, engine_stats(f).incarnation);
        memcpy(id[i], f->db->engine->database_id, sizeof(id[i]));
        f->options.log_segment_bytes = 1 << 20; /* of a new one */
        engine_crash(f, BFTI_SIM_KEEP, 1);
        assert_memory_equal(id[i], f->db->engine->database_id, sizeof(id[i]));
        assert_int_equal(1, engine_tree(f, "t", 512)->tree->id);
        assert_int_equal(64 << 10, f->db->engine->options.log_segment_bytes);
        engine_fixture_free(f);
    }
    for (unsigned half = 0; half < 16; half += 8)
        assert_int_not_equal(0, memcmp(id[0] + half, id[1] + half, 8));
}

/* --- names ----------------------------------------------------------------------- */

static char synced[300];

static bft_status note_dir(struct bfti_vfs *vfs, const char *dir)
{
    (void)vfs;
    (void)snprintf(synced, sizeof(synced), "%s", dir);
    return BFT_OK;
}

/* The directory that has the last name of a path: that is what makes it durable. */
static void the_directory_above_is_synced(void **state)
{
    static const char *const cases[][2] = {
        {"/a/bc", "/a/"},   {"/a/b", "/a/"},     {"/a/b/", "/a/"},
        {"/a/bc//", "/a/"}, {"/a", "/"},         {"a", "."},
        {"ab/", "."},       {"a/b", "a/"},       {"/", "//.."},
        {"//", "//.."},     {".", "./.."},       {"..", "../.."},
        {"a/.", "a/./.."},  {"a/..", "a/../.."}, {"a/../", "a/../.."},
        {"a/.b", "a/"},     {"a/..b", "a/"},
    };
    struct bfti_vfs_ops ops;
    struct bfti_vfs vfs = {.ops = &ops};
    (void)state;
    memset(&ops, 0, sizeof(ops));
    ops.sync_dir = note_dir;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        expect_ok(bfti_sync_parent(bfti_env_system(), &vfs, cases[i][0]));
        assert_string_equal(cases[i][1], synced);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(long_values_are_redone),
#ifndef NDEBUG
        cmocka_unit_test(a_value_behind_the_drop_of_its_tree_goes),
#endif
        cmocka_unit_test(a_replaced_value_goes_in_redo),
        cmocka_unit_test(what_the_log_still_names_stays),
        cmocka_unit_test(one_frame_that_is_redone_counts),
        cmocka_unit_test(a_redo_of_many_leaves_reads_few),
        cmocka_unit_test(a_log_without_long_values_is_read_twice),
        cmocka_unit_test(a_log_that_reads_otherwise_is_told),
        cmocka_unit_test(a_short_read_is_no_end_of_the_log),
        cmocka_unit_test(an_older_superblock_in_either_slot_is_passed_over),
        cmocka_unit_test(a_superblock_that_cannot_be_read_is_done_without),
        cmocka_unit_test(a_superblock_that_is_needed_and_unread_is_told),
        cmocka_unit_test(an_unread_superblock_is_not_taken_for_none),
        cmocka_unit_test(the_last_superblock_is_taken),
        cmocka_unit_test(an_incarnation_is_above_those_of_the_log),
        cmocka_unit_test(what_was_found_is_made_durable_first),
        cmocka_unit_test(names_are_durable_before_a_superblock),
        cmocka_unit_test(a_new_database_has_ids_of_its_own),
        cmocka_unit_test(the_directory_above_is_synced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
