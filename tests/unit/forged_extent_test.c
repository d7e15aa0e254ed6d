/*
 * Extents that hold what no version writes, with checksums that are right and that
 * those who refer to them expect: who reads one says which, and where.
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
#include "fileio/fileio.h"
#include "index/image.h"
#include "numbered_key.h"

enum { RECORDS = 4000 };

/* The same seal with another payload: what nobody reads is varied until it is. */
static void seal(uint8_t *extent, size_t len, uint16_t seal)
{
    struct bfti_extent_header head;
    uint32_t sum, n = 0;

    do {
        memcpy(&head, extent, sizeof(head));
        head.reserved = le32_of(++n);
        memcpy(extent, &head, sizeof(head));
        sum = bfti_crc32c(0, extent + sizeof(le32), len - sizeof(le32));
    } while ((sum & 0xffff) != seal);
    head.checksum = le32_of(sum);
    memcpy(extent, &head, sizeof(head));
}

/* Is there one of TYPE at AT, of at most LEFT bytes? */
static bool is_extent(const uint8_t *at, size_t left,
                      enum bfti_extent_type type, size_t *len)
{
    struct bfti_extent_header head;

    memcpy(&head, at, sizeof(head));
    *len = le32_get(head.stored_len);
    return head.type == type && *len > sizeof(head) && *len <= left &&
           bfti_crc32c(0, at + sizeof(le32), *len - sizeof(le32)) ==
               le32_get(head.checksum);
}

/* Of an extent of LEN bytes; false: it stays as it is. */
typedef bool edit(uint8_t *extent, size_t len);
static uint64_t edited; /* its grain */

static bool spoil(uint8_t *extent, size_t len)
{
    size_t payload = len - sizeof(struct bfti_extent_header);

    memset(extent + sizeof(struct bfti_extent_header), 0xee,
           payload < 32 ? payload : 32);
    return true;
}

static uint16_t seal_of(const uint8_t *extent)
{
    const struct bfti_extent_header *head = (const void *)extent;

    return le32_get(head->checksum) & 0xffff;
}

static bool spoil_sealed(uint8_t *extent, size_t len)
{
    uint16_t sum = seal_of(extent);

    (void)spoil(extent, len);
    seal(extent, len, sum);
    return true;
}

/* An inner node: le16 children, le16 height; at 8 the first child's le64. */
static bool set_child(uint8_t *extent, size_t len, uint64_t child)
{
    le64 word = le64_of(child);
    uint16_t sum = seal_of(extent);

    memcpy(extent + sizeof(struct bfti_extent_header) + 8, &word, sizeof(word));
    seal(extent, len, sum);
    return true;
}

static unsigned height_of(const uint8_t *extent)
{
    return extent[sizeof(struct bfti_extent_header) + 2];
}

static void set_height(uint8_t *extent, uint8_t height)
{
    extent[sizeof(struct bfti_extent_header) + 2] = height;
}

/* A root that is its own child. */
static bool close_circle(uint8_t *extent, size_t len)
{
    if (height_of(extent) != 2)
        return false;
    set_height(extent, 3);
    return set_child(
        extent, len,
        bfti_disk_place(edited, (unsigned)(len + BFTI_GRAIN - 1) / BFTI_GRAIN,
                        seal_of(extent)));
}

/* A root as one above what is a leaf's parent. */
static bool raise_root(uint8_t *extent, size_t len)
{
    uint16_t sum = seal_of(extent);

    if (height_of(extent) != 2)
        return false;
    set_height(extent, 3);
    seal(extent, len, sum);
    return true;
}

static bool lead_nowhere(uint8_t *extent, size_t len)
{
    return set_child(extent, len, 1 << 20);
}

static bool shorten(uint8_t *extent, size_t len)
{
    struct bfti_extent_header *head = (void *)extent;
    uint16_t sum = seal_of(extent);

    if (le64_get(head->page_id) & BFTI_DIRECTORY_ID)
        return false;
    assert_int_equal(0, head->codec);
    head->raw_len = le32_of(le32_get(head->raw_len) - 8);
    head->stored_len = le32_of((uint32_t)len - 8);
    seal(extent, len - 8, sum);
    return true;
}

/* The catalogue: le32 trees, le32 the first one's id, le32 bytes of its leaves. */
static bool make_leaves_odd(uint8_t *extent, size_t len)
{
    uint16_t sum = seal_of(extent);

    extent[sizeof(struct bfti_extent_header) + 8] = 7;
    seal(extent, len, sum);
    return true;
}

/* A directory of the page table names one part more, which was never written. */
static bool add_hole(uint8_t *extent, size_t len)
{
    struct bfti_extent_header *head = (void *)extent;
    uint16_t sum = le32_get(head->checksum) & 0xffff;

    if (!(le64_get(head->page_id) & BFTI_DIRECTORY_ID))
        return false;
    assert_int_equal(0, head->codec);
    assert_true(len + sizeof(le64) <= BFTI_GRAIN);
    head->raw_len = le32_of(le32_get(head->raw_len) + sizeof(le64));
    head->stored_len = le32_of((uint32_t)(len + sizeof(le64)));
    memset(extent + len, 0, sizeof(le64));
    seal(extent, len + sizeof(le64), sum);
    return true;
}

/* All of TYPE in the file. */
static void change(struct engine_fixture *f, enum bfti_extent_type type,
                   edit *how)
{
    struct bfti_file *file;
    uint64_t size;
    size_t got, len;
    unsigned changed = 0;

    expect_ok(bfti_sim_size(f->vfs, BFTI_SIM_CACHE, "/db/data", &size));
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    expect_ok(f->vfs->ops->open(f->vfs, "/db/data", BFTI_OPEN_PAGES, &file));
    expect_ok(file->ops->read(file, 0, bytes, size, &got));
    for (size_t at = (size_t)2 * BFTI_BLOCK; at + BFTI_GRAIN <= got;
         at += BFTI_GRAIN)
        if (is_extent(bytes + at, got - at, type, &len)) {
            edited = at / BFTI_GRAIN;
            changed += how(bytes + at, len);
        }
    expect_ok(file->ops->write(file, 0, bytes, got));
    file->ops->close(file);
    free(bytes);
    assert_true(changed > 0);
}

static void expect_told(const char *words)
{
    char text[400];

    (void)bft_last_error(text, sizeof(text));
    if (!strstr(text, words) || !strstr(text, "data: extent at byte "))
        fail_msg("'%s' does not say '%s' and where", text, words);
}

static struct engine_fixture *closed_with(unsigned records)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct text text;

    f->options.no_threads = true;
    engine_open(f);
    for (unsigned i = 0; i < records; i++)
        expect_ok(bft_put(engine_tree(f, "t", 512), key_of(&text, i),
                          (bft_slice){&text, sizeof(text)}));
    engine_close(f);
    return f;
}

/* Inner nodes for which there is no room leave memory, and are read again. */
static struct engine_fixture *closed(void)
{
    return closed_with(RECORDS);
}

static void an_open_says_what_no_version_writes(void **state)
{
    static const struct {
        enum bfti_extent_type type;
        edit *how;
        unsigned records;
        const char *words, *too;
    } cases[] = {
        {BFTI_EXTENT_TABLE, spoil_sealed, RECORDS, "a part of the page table",
         ""},
        {BFTI_EXTENT_TABLE, shorten, RECORDS,
         "a part of the page table: ", "it has 4088 bytes"},
        {BFTI_EXTENT_INNER, spoil_sealed, RECORDS, "an inner node of tree t",
         ""},
        {BFTI_EXTENT_INNER, close_circle, RECORDS, "an inner node of tree t",
         "nodes high"},
        {BFTI_EXTENT_INNER, raise_root, RECORDS, "an inner node of tree t",
         "a child of another height"},
        {BFTI_EXTENT_INNER, lead_nowhere, 1, "an inner node of tree t",
         "a page that was never made"},
        {BFTI_EXTENT_CATALOGUE, spoil_sealed, RECORDS, "the catalogue", ""},
        {BFTI_EXTENT_CATALOGUE, make_leaves_odd, 1,
         "the catalogue: ", "leaves of tree t have 519 bytes"},
        {BFTI_EXTENT_MAP, spoil_sealed, RECORDS, "free-space map", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct engine_fixture *f = closed_with(cases[i].records);

        change(f, cases[i].type, cases[i].how);
        expect_status(BFT_CORRUPT, engine_open_status(f));
        expect_told(cases[i].words);
        expect_told(cases[i].too);
        f->db = NULL;
        engine_fixture_free(f);
    }
}

/* An inner node that was in order when the database was opened. */
static void a_get_says_what_no_version_writes(void **state)
{
    struct engine_fixture *f = closed();
    bft_status status = BFT_OK;
    struct text text;
    char value[sizeof(text)];
    size_t len;

    (void)state;
    engine_open(f);
    bft_tree *tree = engine_tree(f, "t", 512);

    change(f, BFTI_EXTENT_INNER, spoil_sealed);
    for (unsigned i = 0; i < RECORDS && status == BFT_OK; i++)
        status = bft_get(tree, key_of(&text, i), value, sizeof(value), &len);
    expect_status(BFT_CORRUPT, status);
    expect_told("an inner node of tree t");
    engine_fixture_free(f);
}

/* A value of so many extents that a list has their places. */
static void an_open_says_which_list_of_a_value_is_damaged(void **state)
{
    enum { LEN = 5 << 20 };
    struct engine_fixture *f = engine_fixture_open(ENGINE_SIM);
    struct bfti_vfs *image;
    char *value = calloc(1, LEN);

    (void)state;
    assert_non_null(value);
    expect_ok(bft_put(engine_tree(f, "t", 512), (bft_slice){"k", 1},
                      (bft_slice){value, LEN}));
    free(value);
    expect_ok(bfti_sim_image(f->vfs, BFTI_SIM_KEEP, 1, &image));
    engine_close(f);
    bfti_vfs_sim_destroy(f->vfs);
    f->vfs = image;
    change(f, BFTI_EXTENT_VALUE_LIST, spoil);
    expect_status(BFT_CORRUPT, engine_open_status(f));
    expect_told("a value that the log names");
    f->db = NULL;
    engine_fixture_free(f);
}

static void expect_records(struct engine_fixture *f, unsigned count)
{
    bft_slice all = {NULL, 0};
    uint64_t got;

    expect_ok(bft_verify(f->db));
    expect_ok(bft_count(engine_tree(f, "t", 512), all, all, &got));
    assert_int_equal(count, got);
}

/* Directories of the page table had parts without a place, which were made when the
 * image had all its leaves: they open, and such a part is used like any other. */
static void a_part_that_was_never_written_is_empty(void **state)
{
    struct engine_fixture *f = closed();
    struct bfti_table *table;
    struct text text;
    unsigned n = RECORDS;

    (void)state;
    change(f, BFTI_EXTENT_TABLE, add_hole);
    engine_open(f);
    table = f->db->engine->buffer.table;
    assert_true(bfti_table_parts(table) * (uint64_t)BFTI_PART_IDS >
                bfti_table_ids(table) + BFTI_PART_IDS);
    expect_records(f, n);
    expect_ok(bft_checkpoint(f->db));
    for (; bfti_table_ids(table) < 2 * BFTI_PART_IDS; n++)
        expect_ok(bft_put(engine_tree(f, "t", 512), key_of(&text, n),
                          (bft_slice){&text, sizeof(text)}));
    expect_records(f, n);
    engine_reopen(f);
    expect_records(f, n);
    engine_fixture_free(f);
}

/* Nor is anything lost with it. */
static void salvage_misses_nothing_in_such_a_part(void **state)
{
    struct engine_fixture *f = closed();
    bft_options options = f->options;
    bft_salvage_options how = {.size = sizeof(how), .database = &options};
    bft_salvage_report report = {.size = sizeof(report)};

    (void)state;
    change(f, BFTI_EXTENT_TABLE, add_hole);
    options.internal = &f->surroundings;
    expect_ok(bft_salvage("/db", "/out", &how, &report));
    assert_true(report.map_read);
    assert_int_equal(0, report.extents_damaged);
    assert_int_equal(RECORDS, report.records);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_open_says_what_no_version_writes),
        cmocka_unit_test(a_part_that_was_never_written_is_empty),
        cmocka_unit_test(salvage_misses_nothing_in_such_a_part),
        cmocka_unit_test(a_get_says_what_no_version_writes),
        cmocka_unit_test(an_open_says_which_list_of_a_value_is_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
