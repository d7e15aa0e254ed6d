/*
 * Damage in every place of a small database's page file: bytes flipped, pages that
 * are zeros, another page's, each other's or of an earlier time, and the file cut
 * short.  All that is read then is right, or BFT_CORRUPT that tells the file, the
 * byte, and the page or what else lies there.  Drawn are the bit of each byte,
 * which of sixteen bytes, and which blocks take each other's place.
 *
 * BFT_SWEEP_STEP: flip one byte in so many, and cut at one in so many; 16 else.
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
#include "random.h"
#include "sim_fixture.h"
#include "tally.h"
#include "told_place.h"

enum {
    KEYS = 60,
    TREES = 2,
    BIG_AT = 7, /* this key's value is outside the leaf */
    BIG = 9000,
    BLOCK = 4096,
    STEP = 16,
};

#define DATA "/db/data"

static const bft_slice ALL = {NULL, 0};

static struct {
    struct engine_fixture *f;
    struct bfti_vfs *sim; /* closed */
    uint8_t *bytes;       /* of the page file */
    size_t len;
    uint8_t *old; /* of an earlier image, LEN too */
    unsigned refused, told, right;
    struct told_place want; /* of each text while one byte is damaged */
} base;

/* --- the database --------------------------------------------------------- */

static bft_slice key_of(unsigned tree, unsigned k, char text[24])
{
    return (bft_slice){text,
                       (size_t)snprintf(text, 24, "%u key %05u", tree, k)};
}

static size_t value_of(unsigned tree, unsigned k, char value[BIG])
{
    size_t len = k == BIG_AT ? BIG : 20 + k % 90;

    memset(value, 'a' + (int)((k + tree) % 26), len);
    (void)snprintf(value, len, "value %u of %u", k, tree);
    return len;
}

/* Every STRIDEth key is not there in the end. */
enum { STRIDE = 9 };

static void fill(bft_db *db, unsigned tree, bool again)
{
    static char value[BIG];
    char name[8], key[24];
    bft_tree_options options = {.size = sizeof(options), .leaf_bytes = 1024};
    bft_tree *t;

    (void)snprintf(name, sizeof(name), "t%u", tree);
    expect_ok(bft_tree_open(db, name, &options, &t));
    for (unsigned k = 0; k < KEYS; k++) {
        size_t len = value_of(tree, k, value);

        if (again && k % STRIDE == 0)
            expect_ok(bft_delete(t, key_of(tree, k, key)));
        else if (!again || k % 3)
            expect_ok(
                bft_put(t, key_of(tree, k, key), (bft_slice){value, len}));
    }
}

static int make_base(void **state)
{
    size_t old_len;

    (void)state;
    random_start();
    memset(&base, 0, sizeof(base));
    base.f = engine_fixture_make(ENGINE_SIM);
    base.f->options.no_threads = true;
    base.f->options.memory_bytes = 2 << 20;
    engine_open(base.f);
    for (unsigned t = 0; t < TREES; t++)
        fill(base.f->db, t, false);
    expect_ok(bft_checkpoint(base.f->db));
    base.old = sim_contents(base.f->vfs, DATA, &old_len);
    for (unsigned t = 0; t < TREES; t++)
        fill(base.f->db, t, true);
    engine_close(base.f);
    expect_ok(bfti_sim_image(base.f->vfs, BFTI_SIM_KEEP, 1, &base.sim));
    base.bytes = sim_contents(base.sim, DATA, &base.len);
    base.old = realloc(base.old, base.len > old_len ? base.len : old_len);
    assert_non_null(base.old);
    if (base.len > old_len)
        memset(base.old + old_len, 0, base.len - old_len);
    print_message("%zu bytes\n", base.len);
    return 0;
}

static int free_base(void **state)
{
    (void)state;
    free(base.bytes);
    free(base.old);
    bfti_vfs_sim_destroy(base.sim);
    engine_fixture_free(base.f);
    return 0;
}

/* --- what is read --------------------------------------------------------- */

#define wrong(...)                \
    do {                          \
        print_error(__VA_ARGS__); \
        print_error("\n");        \
        fail();                   \
    } while (0)

/* Was damage told, of DAMAGE? */
static bool is_told(bft_status status, const char *damage)
{
    char text[512];

    if (status == BFT_OK)
        return false;
    bft_last_error(text, sizeof(text));
    if (status != BFT_CORRUPT)
        wrong("%s: status %d: %s", damage, (int)status, text);
    if (told_place_lacks(text))
        wrong("%s: the text names %s: \"%s\"", damage, told_place_lacks(text),
              text);
    if (!strstr(text, base.want.byte) || !strstr(text, base.want.part))
        wrong("%s: the text does not say \"%s\" and \"%s\": \"%s\"", damage,
              base.want.byte, base.want.part, text);
    return true;
}

static bool read_key(bft_tree *tree, unsigned t, unsigned k, const char *damage)
{
    static char value[BIG], want[BIG];
    char key[24];
    size_t len;
    bft_status status =
        bft_get(tree, key_of(t, k, key), value, sizeof(value), &len);

    if (status == BFT_NOT_FOUND) {
        if (k % STRIDE != 0)
            wrong("%s: key %u of tree %u is lost", damage, k, t);
        return false;
    }
    if (is_told(status, damage))
        return true;
    if (k % STRIDE == 0)
        wrong("%s: key %u of tree %u is there again", damage, k, t);
    if (len != value_of(t, k, want) || memcmp(value, want, len) != 0)
        wrong("%s: key %u of tree %u has another value", damage, k, t);
    return false;
}

static bool read_all(bft_db *db, const char *damage)
{
    bool told = false;

    for (unsigned t = 0; t < TREES; t++) {
        bft_tree_options options = {.size = sizeof(options),
                                    .must_exist = true};
        uint64_t count;
        char name[8];
        bft_tree *tree;

        (void)snprintf(name, sizeof(name), "t%u", t);
        if (is_told(bft_tree_open(db, name, &options, &tree), damage)) {
            told = true;
            continue;
        }
        for (unsigned k = 0; k < KEYS; k++)
            told |= read_key(tree, t, k, damage);
        if (is_told(bft_count(tree, ALL, ALL, &count), damage))
            told = true;
        else if (count != KEYS - (KEYS + STRIDE - 1) / STRIDE)
            wrong("%s: tree %u has %llu records", damage, t,
                  (unsigned long long)count);
    }
    return told;
}

/* Look at the database with BYTES, LEN of them, as its page file. */
static void look(const uint8_t *bytes, size_t len, const char *damage)
{
    struct bfti_surroundings surroundings = {.env = &base.f->env};
    bft_options options = base.f->options;
    struct bfti_vfs *copy;
    bft_db *db;
    bool told;

    expect_ok(bfti_sim_image(base.sim, BFTI_SIM_KEEP, 1, &copy));
    expect_ok(bfti_sim_put(copy, DATA, bytes, len));
    surroundings.vfs = copy;
    options.internal = &surroundings;
    options.must_exist = true;
    if (is_told(bft_open("/db", &options, &db), damage)) {
        base.refused++;
    } else {
        told = read_all(db, damage);
        if (!is_told(bft_verify(db), damage) && told)
            wrong("%s: what was read is damaged, and bft_verify finds nothing",
                  damage);
        base.told += told;
        base.right += !told;
        (void)is_told(bft_close(db), damage);
    }
    bfti_vfs_sim_destroy(copy);
}

static void print_seen(const char *what, uint64_t times)
{
    print_message("%llu %s: %u refused, %u told by a read, %u right\n",
                  (unsigned long long)times, what, base.refused, base.told,
                  base.right);
    base.refused = base.told = base.right = 0;
}

/* --- damage --------------------------------------------------------------- */

static size_t step_of_sweep(void)
{
    const char *text =
        getenv("BFT_SWEEP_STEP"); /* NOLINT(concurrency-mt-unsafe) */
    size_t step = text ? strtoul(text, NULL, 10) : STEP;

    assert_in_range(step, 1, BLOCK);
    return step;
}

static void flipped_bytes_are_told(void **state)
{
    size_t step = step_of_sweep(), flips = 0;
    char damage[64];

    (void)state;
    for (size_t at = random_below(step); at < base.len; at += step, flips++) {
        uint8_t was = base.bytes[at];

        told_place_of(base.bytes, base.len, at, &base.want);
        base.bytes[at] ^= (uint8_t)(1u << random_below(8));
        (void)snprintf(damage, sizeof(damage), "byte %zu: %02x for %02x", at,
                       base.bytes[at], was);
        look(base.bytes, base.len, damage);
        base.bytes[at] = was;
    }
    memset(&base.want, 0, sizeof(base.want));
    assert_true(base.refused > 0 && base.told > 0);
    print_seen("bytes flipped", flips);
    tally(TALLY_FLIPS, flips);
}

/* Block TO is what FROM has there, and is put back. */
static void look_with_block(size_t to, const uint8_t *from, const char *damage)
{
    uint8_t was[BLOCK];

    memcpy(was, base.bytes + to * BLOCK, BLOCK);
    memcpy(base.bytes + to * BLOCK, from, BLOCK);
    if (memcmp(was, base.bytes + to * BLOCK, BLOCK) != 0)
        look(base.bytes, base.len, damage);
    memcpy(base.bytes + to * BLOCK, was, BLOCK);
}

static void lost_and_stale_blocks_are_told(void **state)
{
    static const uint8_t zeros[BLOCK];
    size_t blocks = base.len / BLOCK;
    char damage[64];

    (void)state;
    for (size_t b = 0; b < blocks; b++) {
        (void)snprintf(damage, sizeof(damage), "block %zu zeroed", b);
        look_with_block(b, zeros, damage);
        (void)snprintf(damage, sizeof(damage), "block %zu of before", b);
        look_with_block(b, base.old + b * BLOCK, damage);
    }
    assert_true(base.refused > 0 && base.told > 0);
    tally(TALLY_DAMAGED, base.refused + base.told + base.right);
    print_seen("blocks lost or stale", 2 * blocks);
}

/* A write that went to the place of another one, which then is lost too or not. */
static void misdirected_blocks_are_told(void **state)
{
    size_t blocks = base.len / BLOCK;
    uint8_t first[BLOCK], second[BLOCK];
    char damage[64];

    (void)state;
    for (size_t n = 0; n < 8 * blocks; n++) {
        size_t a = random_below(blocks), b = random_below(blocks);

        memcpy(first, base.bytes + a * BLOCK, BLOCK);
        memcpy(second, base.bytes + b * BLOCK, BLOCK);
        (void)snprintf(damage, sizeof(damage), "block %zu over %zu", a, b);
        look_with_block(b, first, damage);
        (void)snprintf(damage, sizeof(damage), "blocks %zu and %zu swapped", a,
                       b);
        memcpy(base.bytes + a * BLOCK, second, BLOCK);
        look_with_block(b, first, damage);
        memcpy(base.bytes + a * BLOCK, first, BLOCK);
    }
    tally(TALLY_DAMAGED, base.refused + base.told + base.right);
    print_seen("blocks misdirected", 16 * blocks);
}

static void look_at_cut(size_t at)
{
    char damage[64];

    (void)snprintf(damage, sizeof(damage), "cut to %zu bytes", at);
    look(base.bytes, at, damage);
}

/* One in so many bytes, and each end of a grain. */
static void a_file_cut_short_is_told(void **state)
{
    size_t step = step_of_sweep(), first = random_below(step), cuts = 0;

    (void)state;
    for (size_t at = 0; at < base.len; at++) {
        if (at % step != first && at % BFTI_GRAIN != 0)
            continue;
        look_at_cut(at);
        cuts++;
    }
    assert_true(base.refused > 0);
    tally(TALLY_DAMAGED, cuts);
    print_seen("cuts", cuts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flipped_bytes_are_told),
        cmocka_unit_test(lost_and_stale_blocks_are_told),
        cmocka_unit_test(misdirected_blocks_are_told),
        cmocka_unit_test(a_file_cut_short_is_told),
    };

    return cmocka_run_group_tests(tests, make_base, free_base);
}
