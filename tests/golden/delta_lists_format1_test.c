/*
 * A whole database, format 1, with what came to that format later: leaves whose
 * disk content is a list of several deltas over a base page, and records that
 * expire, in pages, deltas, values outside the leaf and the log, as a killed
 * process left them.  What an earlier version wrote stays readable.
 *
 * BFT_GOLDEN_OUT=DIR writes the image anew, as for database_format1_test.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "golden_image.h"

enum {
    START = 1000000, /* what time it is when it is written */
    LIFE = 60000,
    RECORDS = 48,
    CHANGES = 5, /* of one delta */
    LONG = 3000,
    VALUE_MAX = LONG,
};

static const bft_slice NONE = {NULL, 0};
static uint64_t clock_ms;

static uint64_t wall_ms(void *ctx)
{
    (void)ctx;
    return clock_ms;
}

/* --- what it holds ------------------------------------------------------------ */

static struct book {
    const char *name;
    bft_tree *tree;
    uint64_t ttl_ms;
    uint32_t leaf_bytes;
    unsigned deltas; /* of its first leaf */
    struct {
        bool there;
        uint8_t seed;
        uint32_t len;
        uint64_t expires; /* 0: never */
    } record[RECORDS];
} books[] = {
    {.name = "few", .leaf_bytes = 4096, .deltas = 3},
    {.name = "many", .leaf_bytes = 4096, .deltas = BFTI_DELTAS_MAX},
    {.name = "times", .leaf_bytes = 4096, .ttl_ms = LIFE, .deltas = 2},
    {.name = "long", .leaf_bytes = 512, .ttl_ms = BFT_FOREVER},
};
enum { FEW, MANY, TIMES, LONGER, BOOKS };

/* NULL while only the books are kept. */
static struct engine_fixture *writer;

static bft_slice key_of(char text[16], unsigned n)
{
    return (bft_slice){text, (size_t)snprintf(text, 16, "key-%03u", n)};
}

/* Long ones are nearly all zeros, for the sake of the image. */
static bft_slice value_of(uint8_t seed, uint32_t len)
{
    static uint8_t bytes[VALUE_MAX];
    memset(bytes, 0, len);
    for (uint32_t i = 0; i < len; i += len < 100 ? 1 : 1 + len / 8)
        bytes[i] = (uint8_t)(seed + i / 3);
    return (bft_slice){bytes, len};
}

/* EXPIRES: 0: never; or BFT_FOREVER: as the tree has it. */
static void put(struct book *b, unsigned n, unsigned seed, uint32_t len,
                uint64_t expires)
{
    bft_slice value = value_of((uint8_t)seed, len);
    bool by_tree = expires == BFT_FOREVER;
    char text[16];
    if (by_tree)
        expires = b->ttl_ms == LIFE ? clock_ms + LIFE : 0;
    b->record[n].there = true;
    b->record[n].seed = (uint8_t)seed;
    b->record[n].len = len;
    /* Of long ones in seconds. */
    b->record[n].expires =
        len == LONG ? (expires + 999) / 1000 * 1000 : expires;
    if (writer)
        expect_ok(
            by_tree ? bft_put(b->tree, key_of(text, n), value)
                    : bft_put_until(b->tree, key_of(text, n), value, expires));
}

static void take(struct book *b, unsigned n)
{
    char text[16];
    b->record[n].there = false;
    if (writer)
        expect_ok(bft_delete(b->tree, key_of(text, n)));
}

static void checkpoint(void)
{
    if (writer)
        expect_ok(bft_checkpoint(writer->db));
}

static void make(struct book *b)
{
    bft_tree_options o = {
        .size = sizeof(o), .leaf_bytes = b->leaf_bytes, .ttl_ms = b->ttl_ms};
    memset(b->record, 0, sizeof(b->record));
    if (writer)
        expect_ok(bft_tree_open(writer->db, b->name, &o, &b->tree));
}

/* When record N of those with times expires: at a time of its own, never, past
 * when it is put, as long from then as the tree says. */
static uint64_t time_of(const struct book *b, unsigned n)
{
    if (!b->ttl_ms || n % 4 == 3)
        return BFT_FOREVER;
    return n % 4 == 0 ? clock_ms + 1000 + n : n % 4 == 1 ? 0 : clock_ms - 1;
}

/* One delta more on each leaf that is to have one. */
static void pile_up(unsigned round)
{
    clock_ms += 100;
    for (int i = 0; i < BOOKS; i++) {
        struct book *b = &books[i];
        for (unsigned c = 0; round < b->deltas && c < CHANGES; c++) {
            unsigned n = (round * 7 + c * 9) % RECORDS;
            put(b, n, 100 + round * CHANGES + c, 14, time_of(b, n));
        }
        if (round < b->deltas)
            take(b, round * 5 + 2);
    }
    checkpoint();
}

/* All that is in pages and deltas. */
static void before_the_last_checkpoint(void)
{
    for (int i = 0; i < BOOKS; i++) {
        make(&books[i]);
        for (unsigned n = 0; i != LONGER && n < RECORDS; n++)
            put(&books[i], n, n, 12, time_of(&books[i], n));
    }
    checkpoint();
    /* As recovery does, which lets lists grow as long as they may. */
    if (writer)
        writer->db->engine->buffer.hurried = true;
    for (unsigned round = 0; round < BFTI_DELTAS_MAX; round++)
        pile_up(round);
    if (writer)
        writer->db->engine->buffer.hurried = false;
    for (unsigned n = 0; n < 4; n++)
        put(&books[LONGER], n, n, LONG, time_of(&books[LONGER], n));
    checkpoint();
}

/* All that is in the log. */
static void after_the_last_checkpoint(void)
{
    clock_ms += 5000;
    for (int i = 0; i < BOOKS; i++)
        for (unsigned n = 40; n < 44; n++)
            put(&books[i], n, 200 + n, 10, time_of(&books[i], n));
    put(&books[LONGER], 45, 245, LONG, clock_ms + 1);
    take(&books[MANY], 44);
    take(&books[TIMES], 45);
}

/* The same each time. */
static void keep_books(struct engine_fixture *f)
{
    writer = f;
    clock_ms = START;
    before_the_last_checkpoint();
    after_the_last_checkpoint();
    writer = NULL;
}

static void write_database(const void *ctx, const char *to)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    (void)ctx;
    f->options.no_threads = true;
    f->env.wall_ms = wall_ms;
    engine_seed(f, 1);
    engine_open(f);
    keep_books(f);
    expect_ok(bft_sync(f->db));
    golden_image_write(to, f);
    engine_fixture_free(f);
}

/* --- reading ------------------------------------------------------------------ */

static bool is_alive(const struct book *b, unsigned n)
{
    return b->record[n].there &&
           (b->record[n].expires == 0 || b->record[n].expires > clock_ms);
}

static void check_record(const struct book *b, bft_tree *tree, unsigned n)
{
    static uint8_t got[VALUE_MAX];
    bool alive = is_alive(b, n);
    bft_slice want = value_of(b->record[n].seed, b->record[n].len);
    uint64_t expires;
    char text[16];
    size_t len;
    expect_status(alive ? BFT_OK : BFT_NOT_FOUND,
                  bft_get(tree, key_of(text, n), got, sizeof(got), &len));
    if (!alive)
        return;
    assert_int_equal(want.len, len);
    assert_memory_equal(want.data, got, len);
    if (!b->ttl_ms)
        return;
    expect_ok(bft_expiry(tree, key_of(text, n), &expires));
    assert_int_equal(b->record[n].expires, expires);
}

static void check_book(struct engine_fixture *f, const struct book *b)
{
    bft_tree_options o = {.size = sizeof(o),
                          .must_exist = true,
                          .leaf_bytes = b->leaf_bytes,
                          .ttl_ms = b->ttl_ms};
    bft_cursor *cursor;
    bft_slice key;
    bft_tree *tree;
    uint64_t count, alive = 0;
    char text[16];
    expect_ok(bft_tree_open(f->db, b->name, &o, &tree));
    expect_ok(bft_cursor_open(tree, &cursor));
    for (unsigned n = 0; n < RECORDS; n++) {
        check_record(b, tree, n);
        if (!is_alive(b, n))
            continue;
        alive++;
        expect_ok(bft_cursor_next(cursor));
        expect_ok(bft_cursor_key(cursor, &key));
        assert_memory_equal(key_of(text, n).data, key.data, key.len);
    }
    expect_status(BFT_NOT_FOUND, bft_cursor_next(cursor));
    bft_cursor_close(cursor);
    expect_ok(bft_count(tree, NONE, NONE, &count));
    assert_int_equal(alive, count);
}

/* Deltas that the first leaf of TREE has on disk. */
static unsigned deltas_of(struct engine_fixture *f, bft_tree *tree)
{
    struct bfti_rec *rec = bfti_rec_current(f->db->engine->buffer.threads);
    struct bfti_reader reader;
    char text[16];
    expect_ok(bfti_reader_open(&reader, bfti_handle_tree(tree), rec,
                               key_of(text, 0), false));
    bfti_reader_close(&reader);
    return bfti_word_deltas(reader.head);
}

/* The image has what it is there for. */
static void check_lists(struct engine_fixture *f)
{
    assert_int_equal(BFTI_FEATURE_DELTA_LISTS | BFTI_FEATURE_EXPIRY,
                     f->db->engine->superblock.must_know);
    for (int i = 0; i < BOOKS; i++)
        assert_int_equal(books[i].deltas,
                         deltas_of(f, engine_tree(f, books[i].name, 0)));
}

/* At each time at which something expires, the last of which is behind all. */
static void check_all(struct engine_fixture *f, uint64_t now)
{
    clock_ms = now;
    expect_ok(bft_verify(f->db));
    for (int i = 0; i < BOOKS; i++)
        check_book(f, &books[i]);
}

static void check_database(const void *ctx, struct engine_fixture *f)
{
    uint64_t now;
    (void)ctx;
    keep_books(NULL);
    now = clock_ms;
    f->options.read_only = true;
    f->env.wall_ms = wall_ms;
    engine_open(f);
    check_lists(f);
    check_all(f, now);
    check_all(f, START + 6000);
    engine_close(f);
    f->options.read_only = false;
    clock_ms = now;
    engine_open(f);
    check_all(f, now);
    check_all(f, now + 1);
    engine_reopen(f);
    check_all(f, START + LIFE);
    check_all(f, START + LIFE + 1000);
    /* What expired is removed, lists are merged, and all of it is written. */
    expect_ok(bft_remove_expired(engine_tree(f, "times", 0), NULL));
    expect_ok(bft_checkpoint(f->db));
    engine_reopen(f);
    check_all(f, START + LIFE + 1000);
    check_all(f, UINT64_MAX / 2);
}

static void lists_and_times_are_read(void **state)
{
    (void)state;
    golden_image_test(&(struct golden_image){
        "database_format1_lists.txt", write_database, check_database, NULL});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_and_times_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
