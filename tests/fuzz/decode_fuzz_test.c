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

#include "covalue_fixture.h"
#include "engine_fixture.h"
#include "fileio/wal_internal.h"
#include "fuzz.h"
#include "index/inner.h"
#include "random.h"
#include "records.h"
#include "storage/keycodec.h"

static struct {
    unsigned taken, refused;
} reached;

static void both_at_least(unsigned taken, unsigned refused)
{
    printf("taken %u, refused %u\n", reached.taken, reached.refused);
    if (fuzz_counts())
        assert_true(reached.taken >= taken && reached.refused >= refused);
}

/* A copy of *LEN bytes of BYTE, damaged a few times, in a block of its own
 * length. */
static uint8_t *damaged_copy(const void *byte, size_t *len)
{
    struct fuzz_bytes b = {malloc(*len + 600), *len, *len + 600};
    uint8_t *exact;

    assert_non_null(b.byte);
    memcpy(b.byte, byte, *len);
    for (size_t n = 1 + random_below(4); n > 0; n--)
        fuzz_harm(&b, random_below(2) ? 0 : random_below(b.len + 1),
                  (size_t)1 << random_below(5));
    exact = malloc(b.len ? b.len : 1);
    assert_non_null(exact);
    memcpy(exact, b.byte, b.len);
    free(b.byte);
    *len = b.len;
    return exact;
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

static void use_run(const struct bfti_run *run)
{
    static uint8_t key[BFTI_KEY_MAX], before[BFTI_KEY_MAX];
    size_t before_len = 0;

    for (unsigned i = 0; i < bfti_run_count(run); i++) {
        struct bfti_view v = bfti_run_view(run, i);
        bft_slice whole = {key, bfti_view_key_len(&v)};
        uint32_t sum = 0;
        bool found;
        fuzz_assert(whole.len >= 1 && whole.len <= BFTI_KEY_MAX);
        bfti_view_key(&v, key);
        for (uint32_t j = 0; j < v.value_len; j++)
            sum += v.value[j];
        fuzz_assert(sum <= v.value_len * 255u);
        fuzz_assert(i == 0 ||
                    key_order(before, before_len, key, whole.len) < 0);
        fuzz_assert(bfti_run_search(run, whole, &found) == i && found);
        fuzz_assert(bfti_run_range(run, whole) == 0);
        memcpy(before, key, whole.len);
        before_len = whole.len;
    }
    for (unsigned i = 0; i < le16_get(run->dead_count); i++)
        (void)bfti_run_dead(run, i);
}

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
        uint8_t *bad = damaged_copy(good, &len);
        if (len >= sizeof(struct bfti_run) && random_below(2))
            ((struct bfti_run *)bad)->bytes = le32_of((uint32_t)len);
        if (bfti_run_check(bad, len)) {
            reached.refused++;
        } else {
            use_run((const struct bfti_run *)bad);
            reached.taken++;
        }
        free(bad);
        free(good);
    }
    both_at_least(500, 5000);
}

/* --- inner nodes ---------------------------------------------------------- */

static bft_status any_child(void *arg, uint64_t place, unsigned height,
                            struct bfti_inner **node)
{
    (void)arg;
    if (height == 1 && place % 2)
        return bfti_inner_stub(bfti_env_system(), place, node);
    if (place % 16 == 15)
        return bfti_fail(BFT_CORRUPT, "no such child");
    return bfti_inner_create(bfti_env_system(), place, node);
}

static void use_node(struct bfti_inner *node)
{
    static uint8_t key[BFTI_KEY_MAX];

    const struct bfti_inner *here = bfti_inner_here(node);

    fuzz_assert(here->count >= 1 && here->bytes <= BFTI_INNER_BYTES_MAX);
    for (unsigned i = 0; node->height == 1 && i < here->count; i++) {
        bft_slice at = {key, i ? bfti_inner_key(here, i, key) : 0};
        fuzz_assert(bfti_inner_find(node, at) == bfti_inner_page(here, i));
    }
}

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
        uint8_t *bad = damaged_copy(good, &len);
        struct bfti_inner *node;
        bft_status status = bfti_inner_decode(bfti_env_system(), bad, len,
                                              any_child, NULL, &node);
        if (status == BFT_OK) {
            use_node(node);
            bfti_inner_destroy(bfti_env_system(), node);
            reached.taken++;
        } else {
            fuzz_assert(status == BFT_CORRUPT && !node);
            reached.refused++;
        }
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
        uint8_t *bad = damaged_copy(good, &len);
        const uint8_t *at = bad, *end = bad + len;
        const char *wrong = NULL;
        while (!wrong && at < end) {
            struct bfti_frame_record record;
            const uint8_t *from = at;
            wrong = bfti_frame_record_get(&at, end, &record);
            if (wrong)
                break;
            fuzz_assert(at > from && at <= end);
            fuzz_assert(record.key.len >= 1 && record.key.len <= BFT_KEY_MAX);
            fuzz_assert((const uint8_t *)record.value.data + record.value.len ==
                        at);
            reached.taken++;
        }
        reached.refused += wrong != NULL;
        free(bad);
        free(good);
    }
    both_at_least(20000, 3000);
}

/* --- the log -------------------------------------------------------------- */

enum { SEGMENT = 65536, SEGMENTS = 3 };

/* What a frame's header may say, its checksum being right. */
static size_t forge_frame(uint8_t *log, uint64_t at)
{
    struct wal_frame_header head;
    size_t len = random_below(300);
    uint64_t said = len;

    memset(&head, 0, sizeof(head));
    switch (random_below(400)) {
    case 0:
        said = random_next() >> random_below(64);
        break;
    case 1: /* far beyond what there is, or a whole segment */
        said = random_below(2) ? 0xffffffff : SEGMENT;
        break;
    }
    head.len = le32_of((uint32_t)said);
    head.lsn = le64_of(random_below(400) ? at : at + 8);
    head.mark = le64_of(random_below(400) ? at / 3 : random_next());
    head.incarnation =
        le32_of((uint32_t)(1 + at / 40000 - (random_below(400) == 0)));
    head.type = (uint8_t)random_below(5);
    if (at + wal_frame_bytes(len) > SEGMENT * SEGMENTS)
        return 0;
    random_bytes(log + at + sizeof(head), len);
    head.payload_crc = le32_of(bfti_crc32c(0, log + at + sizeof(head), len) +
                               (random_below(400) == 0));
    head.checksum =
        le32_of(bfti_crc32c(0, (uint8_t *)&head + 4, sizeof(head) - 4));
    memcpy(log + at, &head, sizeof(head));
    return (size_t)wal_frame_bytes(len);
}

struct scanned {
    uint64_t next;
    size_t bytes;
};

static bft_status see_frame(void *arg, uint64_t lsn, uint8_t type,
                            const void *payload, size_t len)
{
    struct scanned *s = arg;
    const uint8_t *byte = payload;

    (void)type;
    fuzz_assert(lsn == s->next);
    for (size_t i = 0; i < len; i++)
        s->bytes += byte[i] & 1;
    s->next = lsn + wal_frame_bytes(len);
    return BFT_OK;
}

static void a_forged_log_ends_somewhere(void **state)
{
    static uint8_t log[SEGMENT * SEGMENTS];
    unsigned frames = 0;

    (void)state;
    memset(&reached, 0, sizeof(reached));
    for (unsigned round = 0; fuzz_next(&round, 1000, 4);) {
        struct bfti_vfs *sim = bfti_vfs_sim_create(bfti_env_system(), 1);
        struct bfti_wal_options options = {.env = bfti_env_system(),
                                           .vfs = sim,
                                           .dir = "/",
                                           .segment_bytes = SEGMENT};
        struct bfti_wal_found found;
        struct scanned seen = {0, 0};
        uint64_t at = 0;
        size_t step = 1;
        bft_status status;
        assert_non_null(sim);
        memset(log, 0, sizeof(log));
        while (step > 0 && random_below(300))
            at += step = forge_frame(log, at);
        if (random_below(3) == 0) {
            struct fuzz_bytes bytes = {log, sizeof(log), sizeof(log)};
            fuzz_harm(&bytes, 0, BFTI_SIM_SECTOR);
        }
        for (unsigned i = 0; i < SEGMENTS; i++) {
            char path[64];
            if (i && random_below(20) == 0)
                continue;
            snprintf(path, sizeof(path), "/log-%016llx",
                     (unsigned long long)i * SEGMENT);
            expect_ok(bfti_sim_put(sim, path, log + i * SEGMENT,
                                   random_below(8) ? SEGMENT
                                                   : random_below(SEGMENT)));
        }
        status = bfti_wal_scan(&options, 0, random_below(2) ? 0 : at / 2,
                               see_frame, &seen, &found);
        fuzz_assert(status == BFT_OK || status == BFT_CORRUPT);
        if (status == BFT_OK)
            fuzz_assert(found.end == seen.next &&
                        found.highest_mark <= found.end);
        reached.taken += status == BFT_OK;
        reached.refused += status == BFT_CORRUPT;
        frames += (unsigned)found.frames;
        bfti_vfs_sim_destroy(sim);
    }
    printf("%u frames\n", frames);
    both_at_least(50, 30);
}

/* --- keys ----------------------------------------------------------------- */

/* What is read is what its writing gives again. */
static void parts_of_keys_are_read_as_written(void **state)
{
    (void)state;
    memset(&reached, 0, sizeof(reached));
    for (unsigned round = 0; fuzz_next(&round, 40000, 5);) {
        size_t len, used, text_len;
        uint8_t *in = random_block(&len, 24);
        uint8_t number[BFTI_KEY_NUMBER_MAX], text[24], again[60];
        uint64_t value;
        if (len > 0 && random_below(2))
            in[0] = (uint8_t)(240 + random_below(16));
        used = bfti_key_get_number(in, len, &value);
        if (used) {
            fuzz_assert(used <= len &&
                        bfti_key_put_number(number, value) == used &&
                        memcmp(number, in, used) == 0);
            reached.taken++;
        }
        used = bfti_key_get_text(in, len, text, &text_len);
        if (used) {
            bft_slice whole = {text, text_len};
            fuzz_assert(used <= len && bfti_key_text_len(whole) == used &&
                        bfti_key_put_text(again, whole) == used &&
                        memcmp(again, in, used) == 0);
            reached.taken++;
        } else {
            reached.refused++;
        }
        free(in);
    }
    both_at_least(10000, 5000);
}

/* --- packed changes of the covalue store ---------------------------------- */

static size_t pack_op(uint8_t *to, unsigned covalues)
{
    uint8_t kind = (uint8_t)(1 + random_below(9)), id[16], value[40];
    size_t id_len = random_below(8) ? 3 : random_below(16);
    size_t value_len = random_below(40), at = 24;
    bool more = kind == BFT_OP_SESSION || kind == BFT_OP_LOCK;
    le64 number[5];

    memset(id, 'a' + (int)random_below(5), sizeof(id));
    memset(value, 'v', sizeof(value));
    to[0] = kind;
    to[1] = (uint8_t)(random_below(3) ? 0 : random_below(16));
    to[2] = (uint8_t)id_len;
    to[3] = 0;
    le32 len = le32_of((uint32_t)value_len);
    memcpy(to + 4, &len, 4);
    for (unsigned i = 0; i < 5; i++)
        number[i] = le64_of(random_below(12) ? random_below(covalues + 2)
                                             : random_next());
    memcpy(to + 8, number, 16);
    if (more) {
        memcpy(to + at, number + 2, 24);
        at += 24;
    }
    memcpy(to + at, id, id_len);
    memcpy(to + at + id_len, value, value_len);
    return at + id_len + value_len;
}

static void packed_changes_happen_whole_or_not(void **state)
{
    struct covalue_fixture *f = covalue_fixture_open(0);
    unsigned malformed = 0;

    (void)state;
    memset(&reached, 0, sizeof(reached));
    for (unsigned round = 0; fuzz_next(&round, 15000, 6);) {
        uint8_t packed[20 * 120];
        size_t len = 0;
        uint64_t rows[8], before = bft_covalue_changes(f->store);
        uint64_t count = bft_covalue_count(f->store);
        bft_covalue_applied applied;
        uint8_t *bytes;
        bft_status status;
        for (size_t n = 1 + random_below(random_below(4) ? 2 : 18); n > 0; n--)
            len += pack_op(packed + len, (unsigned)count);
        if (random_below(2)) {
            bytes = damaged_copy(packed, &len);
        } else {
            bytes = malloc(len);
            assert_non_null(bytes);
            memcpy(bytes, packed, len);
        }
        status = bft_covalue_apply_packed(f->store, bytes, len, BFT_DEFAULT,
                                          rows, random_below(9), &applied);
        free(bytes);
        if (status == BFT_OK) {
            reached.taken++;
        } else {
            fuzz_assert(status == BFT_INVALID || status == BFT_EXISTS ||
                        status == BFT_NOT_FOUND || status == BFT_CONFLICT ||
                        status == BFT_TOO_BIG);
            fuzz_assert(bft_covalue_changes(f->store) == before);
            fuzz_assert(bft_covalue_count(f->store) == count);
            fuzz_assert(applied.lsn == 0);
            reached.refused++;
            malformed += status == BFT_INVALID;
        }
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
        cmocka_unit_test(a_forged_log_ends_somewhere),
        cmocka_unit_test(parts_of_keys_are_read_as_written),
        cmocka_unit_test(packed_changes_happen_whole_or_not),
    };
    fuzz_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
