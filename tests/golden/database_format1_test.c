/*
 * A whole database, format 1: superblocks, map, pages with and without a delta,
 * values outside the leaf, the list of trees, and the log behind the last
 * checkpoint, as a killed process left them.  What an earlier version wrote
 * stays readable.
 *
 * BFT_GOLDEN_OUT=DIR writes the images anew, of the version under test.  That is
 * for a new format, beside the old image: an old one is never replaced.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "golden_image.h"

enum {
    RECORDS = 48,
    VALUE_MAX = 600000,
};

/* --- what it holds -------------------------------------------------------- */

static struct shelf {
    const char *name; /* NULL: there is no such tree */
    uint32_t leaf_bytes;
    bft_tree *tree;
    struct {
        bool there;
        uint8_t seed;
        uint32_t len;
    } record[RECORDS];
} shelves[5];

enum { BIRDS, FISH, GONE, EMPTIED, MOVED, SHELVES };

/* NULL while only the books are kept. */
static struct engine_fixture *writer;

static bft_slice key_of(char text[64], const struct shelf *s, unsigned n)
{
    int len = snprintf(text, 64, "%s/%03u%s", s->leaf_bytes == 512 ? "a" : "",
                       n, n % 5 ? "" : " with a longer key than the others");
    return (bft_slice){text, (size_t)len};
}

/* Long values are nearly all zeros, for the sake of the image. */
static bft_slice value_of(uint8_t seed, uint32_t len)
{
    static uint8_t bytes[VALUE_MAX];
    memset(bytes, 0, len);
    for (uint32_t i = 0; i < len; i += len < 1000 ? 1 : 1 + len / 8)
        bytes[i] = (uint8_t)(seed + i / 3);
    return (bft_slice){bytes, len};
}

static void put(struct shelf *s, unsigned n, unsigned seed, uint32_t len)
{
    char text[64];
    s->record[n].there = true;
    s->record[n].seed = (uint8_t)seed;
    s->record[n].len = len;
    if (writer)
        expect_ok(
            bft_put(s->tree, key_of(text, s, n), value_of((uint8_t)seed, len)));
}

static void drop(struct shelf *s, unsigned n)
{
    char text[64];
    s->record[n].there = false;
    if (writer)
        expect_ok(bft_delete(s->tree, key_of(text, s, n)));
}

static void make(struct shelf *s, const char *name, uint32_t leaf_bytes)
{
    memset(s, 0, sizeof(*s));
    s->name = name;
    s->leaf_bytes = leaf_bytes;
    if (writer)
        s->tree = engine_tree(writer, name, leaf_bytes);
}

/* One batch over two trees. */
static void put_both(unsigned n, unsigned seed)
{
    bft_batch *batch = NULL;
    if (writer)
        expect_ok(bft_batch_create(writer->db, &batch));
    for (int i = BIRDS; i <= FISH; i++) {
        struct shelf *s = &shelves[i];
        char text[64];
        s->record[n].there = true;
        s->record[n].seed = (uint8_t)seed;
        s->record[n].len = 70;
        if (writer)
            expect_ok(bft_batch_put(batch, s->tree, key_of(text, s, n),
                                    value_of((uint8_t)seed, 70)));
    }
    if (writer)
        expect_ok(bft_batch_commit(batch, BFT_SYNC, NULL));
    bft_batch_free(batch);
}

static void checkpoint(void)
{
    if (writer)
        expect_ok(bft_checkpoint(writer->db));
}

static void empty(struct shelf *s)
{
    memset(s->record, 0, sizeof(s->record));
    if (writer)
        expect_ok(bft_tree_truncate(writer->db, s->name));
}

/* All that is in the pages. */
static void before_the_last_checkpoint(void)
{
    make(&shelves[BIRDS], "birds", 512);
    make(&shelves[FISH], "fish", 4096);
    make(&shelves[GONE], "gone", 512);
    make(&shelves[EMPTIED], "emptied", 1024);
    make(&shelves[MOVED], "moved", 2048);
    for (int i = 0; i < SHELVES; i++)
        for (unsigned n = 0; n < (i == BIRDS ? RECORDS : 12u); n++)
            put(&shelves[i], n, n, 20 + n % 40);
    put(&shelves[BIRDS], 3, 3, 3000);
    put(&shelves[BIRDS], 4, 4, VALUE_MAX);
    put(&shelves[FISH], 5, 5, 0);
    checkpoint();
    for (unsigned n = 0; n < RECORDS; n += 16) {
        put(&shelves[BIRDS], n, n + 100, 30);
        drop(&shelves[BIRDS], n + 1);
    }
    checkpoint();
}

/* All that is in the log. */
static void after_the_last_checkpoint(void)
{
    put_both(7, 200);
    put_both(47, 201);
    drop(&shelves[BIRDS], 20);
    put(&shelves[FISH], 8, 202, 5000);
    put(&shelves[FISH], 9, 203, 0);
    if (writer) {
        expect_ok(bft_tree_drop(writer->db, shelves[GONE].name));
        expect_ok(bft_tree_rename(writer->db, "moved", "renamed"));
    }
    shelves[GONE].name = NULL;
    shelves[MOVED].name = "renamed";
    empty(&shelves[EMPTIED]);
    put(&shelves[EMPTIED], 1, 204, 10);
    put(&shelves[MOVED], 2, 205, 10);
}

/* --- images --------------------------------------------------------------- */

static void write_database(const void *ctx, const char *to)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    f->options.no_threads = true;
    f->options.compress = *(const bool *)ctx;
    engine_seed(f, 1);
    engine_open(f);
    writer = f;
    before_the_last_checkpoint();
    after_the_last_checkpoint();
    writer = NULL;
    expect_ok(bft_sync(f->db));
    assert_true(engine_stats(f).deltas > 0 && engine_stats(f).splits > 0);
    golden_image_write(to, f);
    engine_fixture_free(f);
}

/* --- reading -------------------------------------------------------------- */

static void check_shelf(struct engine_fixture *f, const struct shelf *s)
{
    static uint8_t got[VALUE_MAX];
    bft_tree_options o = {.size = sizeof(o), .must_exist = true};
    uint64_t count, there = 0;
    bft_tree *tree;
    char text[64];
    size_t len;
    expect_ok(bft_tree_open(f->db, s->name, &o, &tree));
    for (unsigned n = 0; n < RECORDS; n++) {
        bool is = s->record[n].there;
        bft_slice want = value_of(s->record[n].seed, s->record[n].len);
        expect_status(
            is ? BFT_OK : BFT_NOT_FOUND,
            bft_get(tree, key_of(text, s, n), got, sizeof(got), &len));
        there += is;
        if (!is)
            continue;
        assert_int_equal(want.len, len);
        assert_memory_equal(want.data, got, len);
    }
    expect_ok(
        bft_count(tree, (bft_slice){NULL, 0}, (bft_slice){NULL, 0}, &count));
    assert_int_equal(there, count);
    o.leaf_bytes = s->leaf_bytes; /* another one would be refused */
    expect_ok(bft_tree_open(f->db, s->name, &o, &tree));
}

static bool count_one(void *ctx, const char *name)
{
    (void)name;
    ++*(int *)ctx;
    return true;
}

static void check_all(struct engine_fixture *f)
{
    int trees = 0;
    expect_ok(bft_verify(f->db));
    for (int i = 0; i < SHELVES; i++)
        if (shelves[i].name)
            check_shelf(f, &shelves[i]);
    expect_ok(bft_tree_list(f->db, count_one, &trees));
    assert_int_equal(SHELVES - 1, trees);
}

/* A build without zstd says which file asks for it, and where. */
static void check_refused(struct engine_fixture *f)
{
    char text[400];
    expect_status(BFT_UNSUPPORTED, engine_open_status(f));
    (void)bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, "/data: extent at byte "));
    assert_non_null(strstr(text, "compressed, and this build has no zstd"));
}

static void check_database(const void *ctx, struct engine_fixture *f)
{
    bool compress = *(const bool *)ctx;
    writer = NULL;
    before_the_last_checkpoint();
    after_the_last_checkpoint();
    f->options.read_only = true;
    if (compress && !BFT_WITH_ZSTD) {
        check_refused(f);
        return;
    }
    engine_open(f);
    check_all(f);
    engine_close(f);
    f->options.read_only = false;
    engine_open(f);
    check_all(f);
    engine_reopen(f);
    check_all(f);
}

static void a_database_is_read(void **state)
{
    const bool compress = false;
    (void)state;
    golden_image_test(&(struct golden_image){
        "database_format1.txt", write_database, check_database, &compress});
}

static void a_compressed_database_is_read_or_refused(void **state)
{
    const bool compress = true;
    (void)state;
    golden_image_test(&(struct golden_image){"database_format1_zstd.txt",
                                             write_database, check_database,
                                             &compress});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_database_is_read),
        cmocka_unit_test(a_compressed_database_is_read_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
