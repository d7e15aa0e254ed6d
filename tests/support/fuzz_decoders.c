/* The parsers of what is stored as bytes, and the use of what they took. */
#include "fuzz_inputs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fileio/wal_internal.h"
#include "fuzz.h"
#include "index/inner.h"
#include "index/tomb.h"
#include "random.h"
#include "records.h"
#include "storage/keycodec.h"

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

bool fuzz_run(const uint8_t *bytes, size_t len)
{
    if (bfti_run_check(bytes, len))
        return false;
    use_run((const struct bfti_run *)bytes);
    return true;
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

bool fuzz_node(const uint8_t *bytes, size_t len)
{
    struct bfti_inner *node;
    bft_status status = bfti_inner_decode(bfti_env_system(), bytes, len,
                                          any_child, NULL, &node);
    if (status != BFT_OK) {
        fuzz_assert(status == BFT_CORRUPT && !node);
        return false;
    }
    use_node(node);
    bfti_inner_destroy(bfti_env_system(), node);
    return true;
}

/* --- records of log frames ------------------------------------------------ */

bool fuzz_records(const uint8_t *bytes, size_t len, unsigned *records)
{
    const uint8_t *at = bytes, *end = bytes + len;

    *records = 0;
    while (at < end) {
        struct bfti_frame_record record;
        const uint8_t *from = at;
        if (bfti_frame_record_get(&at, end, &record))
            return false;
        fuzz_assert(at > from && at <= end);
        fuzz_assert(record.key.len >= 1 && record.key.len <= BFT_KEY_MAX);
        fuzz_assert((const uint8_t *)record.value.data + record.value.len ==
                    at);
        ++*records;
    }
    return true;
}

/* --- deleted ranges -------------------------------------------------------- */

bool fuzz_range(const uint8_t *bytes, size_t len)
{
    struct bfti_frame_range range;
    bft_status status = bfti_frame_range_get(bytes, len, &range);
    uint8_t *again;
    size_t size;

    if (status != BFT_OK) {
        fuzz_assert(status == BFT_CORRUPT && !range.behind);
        return false;
    }
    /* What was read is what its writing gives again, and nothing is left out. */
    size = bfti_frame_range_size(&range);
    again = malloc(size);
    assert_non_null(again);
    fuzz_assert(size + range.behind_len == len &&
                bfti_frame_range_put(again, &range) == again + size &&
                memcmp(again, bytes, size) == 0 &&
                range.behind == bytes + size);
    free(again);
    return true;
}

unsigned fuzz_pieces(const uint8_t *bytes, size_t len)
{
    const uint8_t *at = bytes, *end = bytes + len;
    bft_slice low, high;
    unsigned pieces = 0;

    while (bfti_tombs_next(&at, end, &low, &high)) {
        fuzz_assert(low.len <= BFTI_KEY_MAX && high.len <= BFTI_KEY_MAX &&
                    at <= end && (const uint8_t *)high.data + high.len == at);
        fuzz_assert(high.len == 0 || bfti_key_compare(low, high) < 0);
        pieces++;
    }
    return pieces;
}

/* --- keys ----------------------------------------------------------------- */

unsigned fuzz_key_parts(const uint8_t *bytes, size_t len)
{
    uint8_t number[BFTI_KEY_NUMBER_MAX], *text = malloc(3 * len + 4), *again;
    uint64_t value;
    size_t text_len, used = bfti_key_get_number(bytes, len, &value);
    unsigned taken = 0;

    assert_non_null(text);
    again = text + len + 1;
    if (used) {
        fuzz_assert(used <= len && bfti_key_put_number(number, value) == used &&
                    memcmp(number, bytes, used) == 0);
        taken++;
    }
    used = bfti_key_get_text(bytes, len, text, &text_len);
    if (used) {
        bft_slice whole = {text, text_len};
        fuzz_assert(used <= len && bfti_key_text_len(whole) == used &&
                    bfti_key_put_text(again, whole) == used &&
                    memcmp(again, bytes, used) == 0);
        taken++;
    }
    free(text);
    return taken;
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
    head.mark = le64_of(random_below(400) ? at / 3 / WAL_ALIGN * WAL_ALIGN
                                          : random_next());
    head.incarnation =
        le32_of((uint32_t)(1 + at / 40000 - (random_below(400) == 0)));
    head.type = (uint8_t)random_below(5);
    if (at + wal_frame_bytes(len) > (uint64_t)SEGMENT * SEGMENTS)
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

/* The segments of LOG, of which some are cut or not there. */
static void put_segments(struct bfti_vfs *sim, const uint8_t *log)
{
    for (size_t i = 0; i < SEGMENTS; i++) {
        char path[64];
        if (i && random_below(20) == 19)
            continue;
        snprintf(path, sizeof(path), "/log-%016zx", i * SEGMENT);
        expect_ok(bfti_sim_put(sim, path, log + i * SEGMENT,
                               random_below(8) < 7 ? SEGMENT
                                                   : random_below(SEGMENT)));
    }
}

bft_status fuzz_log(unsigned *frames)
{
    static uint8_t log[SEGMENT * SEGMENTS];
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
    if (random_below(3) == 2) {
        struct fuzz_bytes bytes = {log, sizeof(log), sizeof(log)};
        fuzz_harm(&bytes, 0, BFTI_SIM_SECTOR);
    }
    put_segments(sim, log);
    status = bfti_wal_scan(&options, 0,
                           random_below(2) ? 0 : at / 2 / WAL_ALIGN * WAL_ALIGN,
                           see_frame, &seen, &found);
    fuzz_assert(status == BFT_OK || status == BFT_CORRUPT);
    if (status == BFT_OK)
        fuzz_assert(found.end == seen.next && found.highest_mark <= found.end);
    *frames = (unsigned)found.frames;
    bfti_vfs_sim_destroy(sim);
    return status;
}
