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

/* Of names alone, also where none begins at 0: their distances tell it. */
static void the_length_is_guessed_of_names_alone(void **state)
{
    struct wal_fixture *f = wal_fixture_new(WAL_IN_MEMORY, SEGMENT);
    struct bfti_vfs *vfs = f->options.vfs;
    uint64_t bytes = 0;
    (void)state;
    for (uint64_t i = 5; i < 8; i++) {
        struct bfti_file *file;
        char path[320];
        wal_segment_path(f, i * SEGMENT, path);
        assert_int_equal(BFT_OK,
                         vfs->ops->open(vfs, path, BFTI_OPEN_CREATE, &file));
        assert_int_equal(BFT_OK, file->ops->truncate(file, 1000));
        file->ops->close(file);
    }
    assert_int_equal(BFT_OK, bfti_wal_guess_segment_bytes(&f->options, &bytes));
    assert_int_equal(SEGMENT, bytes);
    wal_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mark_may_end_where_the_damage_begins),
        cmocka_unit_test(a_segment_between_others_is_missed),
        cmocka_unit_test(the_length_is_guessed_of_names_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
