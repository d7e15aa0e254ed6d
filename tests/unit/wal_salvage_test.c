/* What a damaged log still gives, at the edges of its gaps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wal_fixture.h"

enum { SEGMENT = 64 << 10 };

static void damage(struct wal_fixture *f, uint64_t lsn)
{
    uint8_t byte;
    wal_peek(f, lsn, &byte, 1);
    byte ^= 1;
    wal_poke(f, lsn, &byte, 1);
}

/* What is known to be durable ends just where the damaged frame begins: what follows
 * says that it was durable too. */
static void a_mark_may_end_where_the_damage_begins(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_salvage_calls calls = {NULL, NULL, NULL};
    struct bfti_wal_salvaged out;
    struct wal_place place[3];
    (void)state;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < 3; i++)
        place[i] = wal_append_sync(f, i + 1, 100);
    wal_fixture_close(f);
    damage(f, place[1].lsn + BFTI_FRAME_HEADER);
    assert_int_equal(
        BFT_OK, bfti_wal_salvage(&f->options, 0, place[1].lsn, &calls, &out));
    assert_int_equal(2, out.frames);
    assert_int_equal(1, out.gaps);
    assert_int_equal(place[1].end - place[1].lsn, out.gap_bytes);
    assert_int_equal(place[2].end, out.end);
    assert_int_equal(0, out.first);
    assert_int_equal(place[2].lsn, out.unbroken);
    /* Behind the gap there is none. */
    assert_int_equal(
        BFT_OK, bfti_wal_salvage(&f->options, place[2].lsn, 0, &calls, &out));
    assert_int_equal(0, out.gaps);
    assert_int_equal(place[2].lsn, out.first);
    assert_int_equal(place[2].lsn, out.unbroken);
    wal_fixture_free(f);
}

static bool is_missing(struct wal_fixture *f, uint64_t start)
{
    struct bfti_wal_salvage_calls calls = {NULL, NULL, NULL};
    struct bfti_wal_salvaged out;
    assert_int_equal(BFT_OK,
                     bfti_wal_salvage(&f->options, start, 0, &calls, &out));
    return out.segment_missing;
}

/* Between that of the first frame and the newest, and no other. */
static void a_segment_between_others_is_missed(void **state)
{
    enum { SEGMENTS = 4 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    char path[320];
    (void)state;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < SEGMENTS; i++)
        wal_append_sync(f, i + 1, SEGMENT - BFTI_FRAME_HEADER);
    wal_fixture_close(f);
    assert_false(is_missing(f, 0));
    assert_false(is_missing(f, UINT64_C(2) * SEGMENT));
    wal_segment_path(f, SEGMENT, path);
    assert_int_equal(BFT_OK, f->options.vfs->ops->remove(f->options.vfs, path));
    assert_true(is_missing(f, 0));
    assert_false(is_missing(f, UINT64_C(2) * SEGMENT));
    wal_fixture_free(f);
}

/* A frame of a life before came back behind the end, and with it what was
 * durable then. */
static void a_mark_of_an_older_life_is_none(void **state)
{
    enum { FRAMES = 4 };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_salvage_calls calls = {NULL, NULL, NULL};
    struct wal_place place[FRAMES];
    static const uint8_t zeros[3 * 200];
    struct bfti_wal_salvaged out;
    uint8_t ghost[200];
    size_t len;
    (void)state;
    wal_fixture_open(f, 0, 0);
    for (uint64_t i = 0; i < FRAMES; i++)
        place[i] = wal_append_sync(f, i + 1, 100);
    wal_fixture_close(f);
    len = (size_t)(place[3].end - place[3].lsn);
    assert_in_range(len, 100, sizeof(ghost));
    wal_peek(f, place[3].lsn, ghost, len);
    wal_poke(f, place[1].lsn, zeros, 3 * len);
    wal_fixture_recover(f, 0);
    wal_append_sync(f, 20, 100);
    wal_fixture_close(f);
    wal_poke(f, place[3].lsn, ghost, len);
    assert_int_equal(BFT_OK, bfti_wal_salvage(&f->options, 0, 0, &calls, &out));
    assert_int_equal(2, out.frames);
    assert_int_equal(0, out.gaps);
    assert_int_equal(place[1].end, out.end);
    wal_fixture_free(f);
}

/* From the oldest frame that there is, or the one in which it is asked to
 * start. */
static void a_log_is_read_from_its_first_frame_on(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_salvage_calls calls = {NULL, NULL, NULL};
    struct bfti_wal_salvaged out;
    struct wal_place place[2];
    (void)state;
    wal_fixture_open(f, UINT64_C(3) * SEGMENT, UINT64_C(3) * SEGMENT);
    for (uint64_t i = 0; i < 2; i++)
        place[i] = wal_append_sync(f, i + 1, 100);
    wal_fixture_close(f);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t start = i ? place[1].lsn + 3 : BFTI_WAL_OLDEST;
        assert_int_equal(BFT_OK,
                         bfti_wal_salvage(&f->options, start, 0, &calls, &out));
        assert_int_equal(2 - i, out.frames);
        assert_int_equal(0, out.gaps);
        assert_int_equal(place[i].lsn, out.first);
        assert_int_equal(place[i].lsn, out.unbroken);
        assert_int_equal(place[1].end, out.end);
    }
    wal_fixture_free(f);
}

/* All of it is lost: what is first lies behind that. */
static void a_log_that_is_lost_begins_at_its_end(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_salvage_calls calls = {NULL, NULL, NULL};
    struct bfti_wal_salvaged out;
    (void)state;
    wal_fixture_open(f, 0, 0);
    wal_fixture_close(f);
    assert_int_equal(BFT_OK,
                     bfti_wal_salvage(&f->options, 0, 800, &calls, &out));
    assert_int_equal(0, out.frames);
    assert_int_equal(800, out.gap_bytes);
    assert_int_equal(800, out.end);
    assert_int_equal(800, out.first);
    wal_fixture_free(f);
}

/* Nor is anything changed that was read before it. */
static void what_a_file_lost_is_no_gap_of_others(void **state)
{
    enum { LAST = 1024, SHORT = LAST - BFTI_FRAME_HEADER };
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_wal_salvage_calls calls = {NULL, NULL, NULL};
    struct bfti_wal_salvaged out;
    struct bfti_file *file;
    char path[320];
    (void)state;
    wal_fixture_open(f, 0, 0);
    wal_append(f, 1, SEGMENT - BFTI_FRAME_HEADER - LAST);
    wal_append(f, 2, SHORT);
    assert_int_equal(SEGMENT, wal_append_sync(f, 3, SHORT).lsn);
    wal_fixture_close(f);
    wal_segment_path(f, SEGMENT, path);
    assert_int_equal(BFT_OK,
                     f->options.vfs->ops->open(f->options.vfs, path, 0, &file));
    assert_int_equal(BFT_OK, file->ops->truncate(file, LAST));
    file->ops->close(file);
    assert_int_equal(BFT_OK, bfti_wal_salvage(&f->options, 0, 0, &calls, &out));
    assert_int_equal(3, out.frames);
    assert_int_equal(0, out.gaps);
    wal_fixture_free(f);
}

/* --- how long is a segment? ----------------------------------------------- */

struct named {
    uint64_t lsn, bytes;
};

enum { LISTED_MAX = 3 };
static const struct named *listed;

static bft_status list_in_order(struct bfti_vfs *vfs, const char *dir,
                                void (*each)(void *arg, const char *name),
                                void *arg)
{
    (void)vfs, (void)dir;
    for (unsigned i = 0; i < LISTED_MAX && listed[i].lsn; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "log-%016llx",
                       (unsigned long long)listed[i].lsn - 1);
        each(arg, name);
    }
    return BFT_OK;
}

/* What is guessed of FILES, in this order; a byte is added to where each
 * begins. */
static uint64_t guess(const struct named files[LISTED_MAX])
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_vfs *vfs = f->options.vfs;
    struct bfti_vfs_ops *ops = (void *)(uintptr_t)vfs->ops;
    uint64_t bytes = 1;
    listed = files;
    ops->list = list_in_order;
    for (unsigned i = 0; i < LISTED_MAX && files[i].lsn; i++) {
        struct bfti_file *file;
        char path[320];
        (void)snprintf(path, sizeof(path), "%s/log-%016llx", f->dir,
                       (unsigned long long)files[i].lsn - 1);
        assert_int_equal(BFT_OK,
                         vfs->ops->open(vfs, path, BFTI_OPEN_CREATE, &file));
        assert_int_equal(BFT_OK, file->ops->truncate(file, files[i].bytes));
        file->ops->close(file);
    }
    assert_int_equal(BFT_OK, bfti_wal_guess_segment_bytes(&f->options, &bytes));
    wal_fixture_free(f);
    return bytes;
}

/* Of names alone, also where none begins at 0: their distances tell it,
 * whichever is met first. */
static void the_length_is_guessed_of_names_alone(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 3; first++) {
        struct named files[LISTED_MAX];
        for (unsigned i = 0; i < 3; i++)
            files[i] =
                (struct named){(5 + (first + i) % 3) * SEGMENT + 1, 1000};
        assert_int_equal(SEGMENT, guess(files));
    }
}

/* Files have that length, and names tell of a longer one just as well. */
static void the_length_of_files_counts_as_names_do(void **state)
{
    const struct named files[LISTED_MAX] = {{1, SEGMENT},
                                            {8 * SEGMENT + 1, SEGMENT}};
    (void)state;
    assert_int_equal(SEGMENT, guess(files));
}

/* Nothing speaks for either length but one file. */
static void of_two_files_the_longer_is_believed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        const struct named files[LISTED_MAX] = {{1001, (1 + i) * 4096},
                                                {3001, (2 - i) * 4096}};
        assert_int_equal(2 * 4096, guess(files));
    }
}

/* A distance of names that no name is a multiple of; one name alone; names that
 * are further from each other than a segment can be long. */
static void a_length_that_nothing_speaks_for_is_not_guessed(void **state)
{
    static const struct named files[][LISTED_MAX] = {
        {{1001, 1000}, {1001 + 4096, 1000}},
        {{5 * SEGMENT + 1, 1000}},
        {{(UINT64_C(1) << 31) + 1, 1000}, {(UINT64_C(1) << 32) + 1, 1000}},
    };
    (void)state;
    for (unsigned i = 0; i < sizeof(files) / sizeof(*files); i++)
        assert_int_equal(0, guess(files[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mark_may_end_where_the_damage_begins),
        cmocka_unit_test(a_segment_between_others_is_missed),
        cmocka_unit_test(a_mark_of_an_older_life_is_none),
        cmocka_unit_test(a_log_is_read_from_its_first_frame_on),
        cmocka_unit_test(a_log_that_is_lost_begins_at_its_end),
        cmocka_unit_test(what_a_file_lost_is_no_gap_of_others),
        cmocka_unit_test(the_length_is_guessed_of_names_alone),
        cmocka_unit_test(the_length_of_files_counts_as_names_do),
        cmocka_unit_test(of_two_files_the_longer_is_believed),
        cmocka_unit_test(a_length_that_nothing_speaks_for_is_not_guessed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
