/*
 * The parsers of everything that is stored or handed over as bytes, fed with
 * random bytes and with good ones that were damaged after their checksum was
 * looked at: each says no, or gives what can be used.  Bytes lie in blocks of
 * exactly their length, so that the address sanitizer sees one read too far.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "fuzz_inputs.h"
#include "index/inner.h"
#include "index/tomb.h"
#include "random.h"
#include "records.h"

static struct {
    unsigned taken, refused;
} reached;

static void count(bool taken)
{
    reached.taken += taken;
    reached.refused += !taken;
}

static void both_at_least(unsigned taken, unsigned refused)
{
    printf("taken %u, refused %u\n", reached.taken, reached.refused);
    if (fuzz_counts())
        assert_true(reached.taken >= taken && reached.refused >= refused);
}

static uint8_t *random_block(size_t *len, size_t most)
{
    uint8_t *block;

    *len = random_below(most);
    block = malloc(*len ? *len : 1);
    assert_non_null(block);
    random_bytes(block, *len);
    if (random_below(2)) /* small numbers get further */
        for (size_t i = 0; i < *len; i++)
            block[i] = random_below(3) ? 0 : (uint8_t)(block[i] & 7);
    return block;
}

/* --- runs ----------------------------------------------------------------- */

static uint8_t *good_run(size_t *len)
{
    static struct record model[40];
    static struct bfti_view view[40];
    struct bfti_large dead[3];
    struct bfti_run_spec spec = {.view = view, .dead = dead};
    uint8_t *image;

    spec.count = records_make(model, random_below(40),
                              (unsigned)random_below(RECORD_SHAPES));
    for (size_t i = 0; i < spec.count; i++)
        view[i] = record_view(&model[i]);
    random_bytes(dead, sizeof(dead));
    spec.dead_count = random_below(4);
    spec.keep = (enum bfti_keep)random_below(4);
    if (spec.count > 1 && random_below(2)) {
        spec.low = record_key(&model[0]);
        spec.high = record_key(&model[spec.count - 1]);
        spec.count--;
    }
    *len = bfti_run_size(&spec);
    image = malloc(*len);
    assert_non_null(image);
    bfti_run_build(image, &spec);
    return image;
}

static void a_damaged_run_is_refused_or_of_use(void **state)
{
    (void)state;
    memset(&reached, 0, sizeof(reached));
    for (unsigned round = 0; fuzz_next(&round, 50000, 1);) {
        size_t len;
        uint8_t *good =
            random_below(8) ? good_run(&len) : random_block(&len, 300);
        uint8_t *bad = fuzz_damaged_copy(good, &len);
        if (len >= sizeof(struct bfti_run) && random_below(2))
            ((struct bfti_run *)bad)->bytes = le32_of((uint32_t)len);
        count(fuzz_run(bad, len));
        free(bad);
        free(good);
    }
    both_at_least(500, 5000);
}

/* --- inner nodes ---------------------------------------------------------- */

static uint8_t *good_node(size_t *len)
{
    static struct record model[60];
    bft_slice key[60];
    uint64_t word[60];
    size_t n = records_make(model, 1 + random_below(60),
                            (unsigned)random_below(RECORD_SHAPES));
    uint8_t *image;

    for (size_t i = 0; i < n; i++) {
        key[i] = record_key(&model[i]);
        word[i] = random_next() >> random_below(60);
    }
    *len = bfti_inner_encoded_size(key, n);
    image = malloc(*len);
    assert_non_null(image);
    /* A node of height 2 has children of height 1. */
    bfti_inner_encode(image, 1 + (unsigned)random_below(2), word, key, n);
    return image;
}

static void a_damaged_inner_node_is_refused_or_of_use(void **state)
{
    (void)state;
    memset(&reached, 0, sizeof(reached));
    for (unsigned round = 0; fuzz_next(&round, 50000, 2);) {
        size_t len;
        uint8_t *good =
            random_below(8) ? good_node(&len) : random_block(&len, 200);
        uint8_t *bad = fuzz_damaged_copy(good, &len);
        count(fuzz_node(bad, len));
        free(bad);
        free(good);
    }
    both_at_least(500, 5000);
}

/* --- records of log frames ------------------------------------------------ */

static uint8_t *good_frame(size_t *len)
{
    static struct record r;
    static uint8_t payload[20 * (12 + BFTI_KEY_MAX + RECORD_VALUE_MAX)];
    uint8_t *to = payload, *copy;

    for (size_t n = 1 + random_below(19); n > 0; n--) {
        struct bfti_frame_record record = {.tree_id = (uint32_t)n};
        record_random_key(&r, (unsigned)random_below(RECORD_SHAPES));
        record_random_value(&r);
        record.op = random_below(2) ? BFTI_OP_PUT : BFTI_OP_DELETE;
        record.flags = r.flags;
        record.key = record_key(&r);
        record.value = (bft_slice){r.value, r.value_len};
        to = bfti_frame_record_put(to, &record);
    }
    *len = (size_t)(to - payload);
    copy = malloc(*len);
    assert_non_null(copy);
    memcpy(copy, payload, *len);
    return copy;
}

static void damaged_records_of_a_frame_stay_within_it(void **state)
{
    (void)state;
    memset(&reached, 0, sizeof(reached));
    for (unsigned round = 0; fuzz_next(&round, 50000, 3);) {
        size_t len;
        uint8_t *good =
            random_below(8) ? good_frame(&len) : random_block(&len, 200);
        uint8_t *bad = fuzz_damaged_copy(good, &len);
        unsigned records;
        reached.refused += !fuzz_records(bad, len, &records);
        reached.taken += records;
        free(bad);
        free(good);
    }
    both_at_least(20000, 3000);
}

/* --- deleted ranges ---------------------------------------------------------- */

/* A key of LEN bytes, of which FIRST is the first, as it is stored; at TO. */
static uint8_t *put_bound(uint8_t *to, size_t len, uint8_t first)
{
    le16 stored = le16_of((uint16_t)len);
    memcpy(to, &stored, sizeof(stored));
    to += sizeof(stored);
    for (size_t i = 0; i < len; i++)
        to[i] = i ? (uint8_t)random_below(256) : first;
    return to + len;
}

static uint8_t *good_pieces(size_t *len)
{
    uint8_t *bytes = malloc(8 * 2 * 40), *to = bytes;
    assert_non_null(bytes);
    for (uint8_t n = 0; n < 1 + random_below(7); n++) {
        to = put_bound(to, random_below(32), (uint8_t)(2 * n));
        to = put_bound(to, 1 + random_below(31), (uint8_t)(2 * n + 1));
    }
    *len = (size_t)(to - bytes);
    return bytes;
}

static uint8_t *good_range(size_t *len)
{
    static uint8_t key[2][BFTI_KEY_MAX];
    struct bfti_frame_range range = {
        .tree_id = (uint32_t)random_below(9),
        .low = {key[0], random_below(BFTI_KEY_MAX + 1)},
        .high = {key[1], random_below(64)}};
    size_t behind = random_below(40);
    uint8_t *bytes;
    *len = bfti_frame_range_size(&range) + behind;
    bytes = calloc(1, *len);
    assert_non_null(bytes);
    (void)bfti_frame_range_put(bytes, &range);
    return bytes;
}

static void deleted_ranges_stay_within_their_bytes(void **state)
{
    (void)state;
    memset(&reached, 0, sizeof(reached));
    for (unsigned round = 0; fuzz_next(&round, 40000, 7);) {
        size_t len;
        bool pieces = random_below(2);
        uint8_t *good = random_below(8) == 0 ? random_block(&len, 100)
                        : pieces             ? good_pieces(&len)
                                             : good_range(&len);
        uint8_t *bad = fuzz_damaged_copy(good, &len);
        count(pieces ? fuzz_pieces(bad, len) > 0 : fuzz_range(bad, len));
        free(bad);
        free(good);
    }
    both_at_least(3000, 5000);
}

/* --- the log -------------------------------------------------------------- */

static void a_forged_log_ends_somewhere(void **state)
{
    unsigned frames = 0;

    (void)state;
    memset(&reached, 0, sizeof(reached));
    for (unsigned round = 0; fuzz_next(&round, 1000, 4);) {
        unsigned had;
        count(fuzz_log(&had) == BFT_OK);
        frames += had;
    }
    printf("%u frames\n", frames);
    both_at_least(50, 30);
}

/* --- keys ----------------------------------------------------------------- */

static void parts_of_keys_are_read_as_written(void **state)
{
    (void)state;
    memset(&reached, 0, sizeof(reached));
    for (unsigned round = 0; fuzz_next(&round, 40000, 5);) {
        size_t len;
        uint8_t *in = random_block(&len, 24);
        unsigned taken;
        if (len > 0 && random_below(2))
            in[0] = (uint8_t)(240 + random_below(16));
        taken = fuzz_key_parts(in, len);
        reached.taken += taken;
        reached.refused += 2 - taken;
        free(in);
    }
    both_at_least(10000, 5000);
}

/* --- packed changes of the covalue store ---------------------------------- */

static void packed_changes_happen_whole_or_not(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    unsigned malformed = 0;

    (void)state;
    memset(&reached, 0, sizeof(reached));
    for (unsigned round = 0; fuzz_next(&round, 15000, 6);) {
        bft_status status = fuzz_packed(f);
        count(status == BFT_OK);
        malformed += status == BFT_INVALID;
    }
    (void)cv_census(f); /* walks all rows, and they agree */
    expect_ok(bft_verify(f->db));
    covalue_fixture_close(f);
    both_at_least(500, 1000);
    if (fuzz_counts())
        assert_true(malformed > 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_damaged_run_is_refused_or_of_use),
        cmocka_unit_test(a_damaged_inner_node_is_refused_or_of_use),
        cmocka_unit_test(damaged_records_of_a_frame_stay_within_it),
        cmocka_unit_test(deleted_ranges_stay_within_their_bytes),
        cmocka_unit_test(a_forged_log_ends_somewhere),
        cmocka_unit_test(parts_of_keys_are_read_as_written),
        cmocka_unit_test(packed_changes_happen_whole_or_not),
    };
    fuzz_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
