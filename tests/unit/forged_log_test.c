/*
 * Frames with checksums that are right, which hold what no version writes or what
 * only a newer one does: the opening tells, each time, and what it passes over
 * harms nothing.
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
#include "index/tomb.h"

enum { RECORDS = 20, ROOM = 200 };

static void put_some(bft_tree *tree)
{
    for (unsigned i = 0; i < RECORDS; i++) {
        uint8_t byte = (uint8_t)i;
        expect_ok(bft_put(tree, (bft_slice){&byte, 1}, (bft_slice){&byte, 1}));
    }
}

/* The last frame of the log. */
static void log_frame(struct engine_fixture *f, uint8_t type,
                      const uint8_t *bytes, size_t len)
{
    static struct bfti_wal_thread thread; /* as long as the log is open */
    struct bfti_wal *wal = f->db->engine->buffer.wal;
    struct bfti_frame *frame;
    uint64_t lsn, end;
    void *payload;
    memset(&thread, 0, sizeof(thread));
    bfti_wal_attach(wal, &thread);
    expect_ok(bfti_frame_create(wal, type, len, &frame, &payload));
    memcpy(payload, bytes, len);
    bfti_frame_seal(wal, frame);
    bfti_wal_enter(wal, &thread);
    bfti_wal_link(wal, &thread, frame, &lsn, &end);
    bfti_wal_leave(wal, &thread);
    expect_ok(bfti_wal_sync(wal, &thread, end));
}

/* The range of tree ID from "b" to "c", and LEN bytes that are no record. */
static size_t range_of(uint8_t bytes[ROOM], uint32_t id, size_t len)
{
    struct bfti_frame_range range = {
        .tree_id = id, .low = {"b", 1}, .high = {"c", 1}};
    uint8_t *end = bfti_frame_range_put(bytes, &range);
    memset(end, 0xee, len);
    return (size_t)(end - bytes) + len;
}

/* A database with such a frame; what a crash leaves of it is to be opened. */
static struct engine_fixture *make(uint8_t type, const uint8_t *bytes,
                                   size_t len)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct bfti_vfs *image;
    f->options.no_threads = true;
    engine_open(f);
    put_some(engine_tree(f, "t", 512));
    (void)engine_tree(f, "dropped", 512);
    expect_ok(bft_tree_drop(f->db, "dropped"));
    log_frame(f, type, bytes, len);
    expect_ok(bfti_sim_image(f->vfs, BFTI_SIM_KEEP, 1, &image));
    engine_close(f);
    bfti_vfs_sim_destroy(f->vfs);
    f->vfs = image;
    return f;
}

/* Trees get their numbers in their order. */
enum { TREE = 1, DROPPED = 2 };

static void what_no_version_writes_is_told(void **state)
{
    static const struct {
        uint8_t type;
        size_t range; /* 0: bytes that are none, else so many behind one */
        size_t len;
        bft_status status;
        const char *words;
    } cases[] = {
        {BFTI_FRAME_WRITE, 0, 5, BFT_CORRUPT, "a record's head is cut off"},
        {BFTI_FRAME_LOAD, 0, 5, BFT_CORRUPT, "a tree's frame has 5 bytes"},
        {BFTI_FRAME_CREATE, 0, 5, BFT_CORRUPT, "a tree's frame has 5 bytes"},
        {BFTI_FRAME_RANGE, 0, 5, BFT_CORRUPT, "of a range has 5 bytes"},
        {BFTI_FRAME_CLEAR, 0, 5, BFT_CORRUPT, "of a range has 5 bytes"},
        {BFTI_FRAME_CLEAR, 5, 0, BFT_CORRUPT, "a record's head is cut off"},
        {99, 0, 5, BFT_TOO_NEW, "has type 99"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        uint8_t bytes[ROOM] = {0};
        size_t len = cases[i].range ? range_of(bytes, TREE, cases[i].range)
                                    : cases[i].len;
        struct engine_fixture *f = make(cases[i].type, bytes, len);
        for (unsigned opening = 0; opening < 2; opening++) {
            char text[400] = "";
            expect_status(cases[i].status, engine_open_status(f));
            (void)bft_last_error(text, sizeof(text));
            if (strstr(text, cases[i].words) == NULL)
                fail_msg("'%s' does not say '%s'", text, cases[i].words);
            f->db = NULL;
        }
        engine_fixture_free(f);
    }
}

/* As of one who was slow, in the log behind the drop. */
static void ranges_of_a_dropped_tree_are_passed_over(void **state)
{
    static const uint8_t types[] = {BFTI_FRAME_RANGE, BFTI_FRAME_CLEAR};
    (void)state;
    for (size_t i = 0; i < sizeof(types); i++) {
        uint8_t bytes[ROOM];
        size_t len = range_of(bytes, DROPPED, 0);
        struct engine_fixture *f = make(types[i], bytes, len);
        bft_slice none = {NULL, 0};
        uint64_t count;
        engine_open(f);
        assert_null(bfti_tree_by_id(f->db->engine, DROPPED));
        assert_non_null(bfti_tree_by_id(f->db->engine, TREE));
        expect_ok(bft_count(engine_tree(f, "t", 512), none, none, &count));
        assert_int_equal(RECORDS, count);
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_no_version_writes_is_told),
        cmocka_unit_test(ranges_of_a_dropped_tree_are_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
