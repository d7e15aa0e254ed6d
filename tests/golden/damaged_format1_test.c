/*
 * Damaged databases, format 1, and one of a newer format: what is told of each,
 * by status, file, byte and page, stays what it is; and what is whole of it is
 * read.  All of them were one small database, killed with two commits in its log.
 *
 * BFT_GOLDEN_OUT=DIR makes the images anew, as in database_format1_test.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "golden_image.h"

enum {
    RECORDS = 30,
    LATE = 2, /* of them, that are in the log only */
    SEGMENT = 64 << 10,
    FILE_MAX = 1 << 20,
    MAJOR_AT = 8, /* in a superblock */
    CHECKSUM_AT = 508,
};

/* --- what it holds -------------------------------------------------------- */

static bft_slice key_of(char text[32], unsigned n)
{
    return (bft_slice){text, (size_t)snprintf(text, 32, "bird %03u", n)};
}

static bft_slice value_of(char text[80], unsigned n)
{
    int len = snprintf(text, 80, "what is said of bird %u, %.*s", n,
                       (int)(n % 20), "and then some more..");
    return (bft_slice){text, (size_t)len};
}

static void put(struct engine_fixture *f, unsigned n, bft_durability durability)
{
    char key[32], value[80];
    bft_batch *batch;

    expect_ok(bft_batch_create(f->db, &batch));
    expect_ok(bft_batch_put(batch, engine_tree(f, "birds", 512), key_of(key, n),
                            value_of(value, n)));
    expect_ok(bft_batch_commit(batch, durability, NULL));
    bft_batch_free(batch);
}

/* CROSSES: the log behind the checkpoint begins in one segment and ends in the
 * next. */
static void fill(struct engine_fixture *f, bool crosses)
{
    for (unsigned n = 0; n < RECORDS - LATE; n++)
        put(f, n, BFT_BUFFERED);
    while (crosses && bfti_wal_end(f->db->engine->buffer.wal) < SEGMENT - 150)
        put(f, 0, BFT_BUFFERED);
    expect_ok(bft_checkpoint(f->db));
    for (unsigned n = RECORDS - LATE; n < RECORDS; n++)
        put(f, n, BFT_SYNC);
}

/* --- making damage -------------------------------------------------------- */

struct bytes {
    struct engine_fixture *f;
    char path[400];
    uint8_t byte[FILE_MAX];
    size_t len;
};

static struct bytes *bytes_of(struct engine_fixture *f, const char *name)
{
    struct bytes *b = calloc(1, sizeof(*b));
    FILE *in;

    assert_non_null(b);
    b->f = f;
    (void)snprintf(b->path, sizeof(b->path), "%s/%s", f->path, name);
    in = fopen(b->path, "rb");
    assert_non_null(in);
    b->len = fread(b->byte, 1, sizeof(b->byte), in);
    (void)fclose(in);
    return b;
}

static void bytes_back(struct bytes *b)
{
    FILE *out = fopen(b->path, "wb");

    assert_non_null(out);
    assert_int_equal(b->len, fwrite(b->byte, 1, b->len, out));
    assert_int_equal(0, fclose(out));
    free(b);
}

/* What a drive leaves that writes half a sector: not even bftree's crashes. */
static void tear_superblocks(struct engine_fixture *f, unsigned from)
{
    struct bytes *b = bytes_of(f, "data");

    for (unsigned i = from; i < 2; i++)
        memset(b->byte + (size_t)i * BFTI_BLOCK + 256, 0, 256);
    bytes_back(b);
}

static void tear_one(struct engine_fixture *f)
{
    tear_superblocks(f, 1);
}

static void tear_both(struct engine_fixture *f)
{
    tear_superblocks(f, 0);
}

static void flip_leaf(struct engine_fixture *f)
{
    struct bytes *b = bytes_of(f, "data");
    struct bfti_extent_header head;
    size_t at = (size_t)2 * BFTI_BLOCK;

    for (;; at += BFTI_BLOCK) {
        assert_true(at < b->len);
        memcpy(&head, b->byte + at, sizeof(head));
        if (head.type == BFTI_EXTENT_LEAF && le32_get(head.stored_len))
            break;
    }
    b->byte[at + 100] ^= 4;
    bytes_back(b);
}

static void cut_file(struct engine_fixture *f)
{
    struct bytes *b = bytes_of(f, "data");

    b->len -= BFTI_BLOCK + 100;
    bytes_back(b);
}

static void lose_segment(struct engine_fixture *f)
{
    char path[400];

    (void)snprintf(path, sizeof(path), "%s/log-%016x", f->path, 0);
    assert_int_equal(0, remove(path));
}

/* Behind all of its frames: nothing is lost, as it happens. */
static void cut_segment(struct engine_fixture *f)
{
    struct bytes *b = bytes_of(f, "log-0000000000000000");

    b->len = 50000;
    bytes_back(b);
}

/* In the first of the frames behind the checkpoint; the second says that the log
 * was durable past it. */
static void flip_log(struct engine_fixture *f)
{
    struct bytes *b = bytes_of(f, "log-0000000000000000");
    char key[32];
    size_t at = b->len;
    bft_slice late = key_of(key, RECORDS - LATE);

    do
        assert_true(at-- > 0);
    while (memcmp(b->byte + at, late.data, late.len) != 0);
    b->byte[at] ^= 1;
    bytes_back(b);
}

static void make_newer(struct engine_fixture *f)
{
    struct bytes *b = bytes_of(f, "data");

    for (unsigned i = 0; i < 2; i++) {
        uint8_t *at = b->byte + (size_t)i * BFTI_BLOCK;
        le32 checksum;
        at[MAJOR_AT] = 9;
        checksum = le32_of(bfti_crc32c(0, at, CHECKSUM_AT));
        memcpy(at + CHECKSUM_AT, &checksum, sizeof(checksum));
    }
    bytes_back(b);
}

/* --- the images ----------------------------------------------------------- */

static const struct image {
    const char *name;
    void (*harm)(struct engine_fixture *f);
    bft_status opens;  /* as */
    bft_status verify; /* if it opens */
    unsigned told;     /* records whose reading is told, likewise */
    const char *says;  /* each text */
    const char *says_too;
} images[] = {
    {"damaged_format1_superblock.txt", tear_one, BFT_OK, BFT_OK, 0, "", ""},
    {"damaged_format1_superblocks.txt", tear_both, BFT_CORRUPT, 0, 0,
     "/data: there is no superblock to be read, at byte 0 or at byte 4096", ""},
    {"damaged_format1_leaf.txt", flip_leaf, BFT_OK, BFT_CORRUPT, 9,
     "page 1 of tree birds: ", "/data: extent at byte 8192, 512 bytes: "},
    {"damaged_format1_cut.txt", cut_file, BFT_CORRUPT, 0, 0,
     "free-space map, part 0: ", "/data: extent at byte 45056, "},
    {"damaged_format1_lost_log.txt", lose_segment, BFT_CORRUPT, 0, 0,
     "/log-0000000000000000: the segment is missing", ""},
    {"damaged_format1_cut_log.txt", cut_segment, BFT_CORRUPT, 0, 0,
     "/log-0000000000000000: byte 50000: the file ends there", ""},
    {"damaged_format1_log.txt", flip_log, BFT_CORRUPT, 0, 0,
     "/log-0000000000000000: byte ", "the checksum of the payload is wrong"},
    {"newer_format9.txt", make_newer, BFT_TOO_NEW, 0, 0,
     "/data: superblock 0 has format 9.0", ""},
};
enum { IMAGES = sizeof(images) / sizeof(images[0]) };

static void write_image(const void *ctx, const char *to)
{
    const struct image *image = ctx;
    struct engine_fixture *f = engine_fixture_make(ENGINE_POSIX);
    struct engine_fixture *harmed = engine_fixture_make(ENGINE_POSIX);

    f->options.no_threads = true;
    f->options.log_bytes = 4 * SEGMENT;
    engine_seed(f, 1);
    engine_open(f);
    fill(f, image->harm == lose_segment);
    golden_image_write(to, f);
    golden_image_read(to, harmed);
    image->harm(harmed);
    golden_image_write(to, harmed);
    engine_fixture_free(harmed);
    engine_fixture_free(f);
}

/* --- reading -------------------------------------------------------------- */

static bool is_told(const struct image *image, bft_status want,
                    bft_status status)
{
    char text[600];

    expect_status(want, status);
    if (want == BFT_OK)
        return false;
    (void)bft_last_error(text, sizeof(text));
    if (!strstr(text, image->says) || !strstr(text, image->says_too))
        fail_msg("%s: \"%s\" has not \"%s\" and \"%s\"", image->name, text,
                 image->says, image->says_too);
    return true;
}

static void read_records(const struct image *image, struct engine_fixture *f)
{
    bft_tree_options o = {.size = sizeof(o), .must_exist = true};
    char key[32], want[80], got[80];
    unsigned told = 0;
    bft_tree *tree;
    size_t len;

    expect_ok(bft_tree_open(f->db, "birds", &o, &tree));
    for (unsigned n = 0; n < RECORDS; n++) {
        bft_slice right = value_of(want, n);
        bft_status status =
            bft_get(tree, key_of(key, n), got, sizeof(got), &len);
        if (status == BFT_CORRUPT && image->told) {
            told += is_told(image, BFT_CORRUPT, status);
            continue;
        }
        expect_ok(status);
        assert_int_equal(right.len, len);
        assert_memory_equal(right.data, got, len);
    }
    assert_int_equal(image->told, told);
}

static void check_image(const void *ctx, struct engine_fixture *f)
{
    const struct image *image = ctx;
    /* Read-only, which changes nothing, then as it comes.  The opening writes a
     * torn superblock again, in memory or in the file. */
    for (int writes = 0; writes < 2; writes++) {
        f->options.read_only = !writes;
        if (is_told(image, image->opens, engine_open_status(f)))
            continue;
        read_records(image, f);
        (void)is_told(image, image->verify, bft_verify(f->db));
        engine_close(f);
    }
}

static void damage_is_told_as_ever(void **state)
{
    (void)state;
    for (unsigned i = 0; i < IMAGES; i++)
        golden_image_test(&(struct golden_image){images[i].name, write_image,
                                                 check_image, &images[i]});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage_is_told_as_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
