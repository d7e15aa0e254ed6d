/* Runs against plain arrays: build, search, fences, and what check lets by. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"
#include "records.h"

enum { RECORDS = 160, DEAD = 5 };

static struct record model[RECORDS];
static struct bfti_view views[RECORDS];
static struct bfti_large dead[DEAD];
static const bft_slice no_key = {NULL, 0};

static bft_slice text(const char *key)
{
    return (bft_slice){key, strlen(key)};
}

/* A spec of random records that fit one run; their fences touch them. */
static struct bfti_run_spec random_spec(enum bfti_keep keep, size_t count)
{
    count = records_make(model, count, (unsigned)random_below(RECORD_SHAPES));
    for (size_t i = 0; i < count; i++)
        views[i] = record_view(model + i);
    random_bytes(dead, sizeof dead);
    struct bfti_run_spec spec = {
        .view = views,
        .count = count,
        .dead = dead,
        .dead_count = random_below(2) ? random_below(DEAD + 1) : 0,
        .keep = keep,
        .sibling = random_next(),
        .beneath = random_next(),
        .tree_id = (uint32_t)random_next(),
    };
    if (count > 1 && random_below(2)) {
        /* The last is the high fence: it is not in the run. */
        spec.low = record_key(model);
        spec.high = record_key(model + count - 1);
        spec.count--;
    }
    while (bfti_run_size(&spec) > BFTI_RUN_BYTES_MAX)
        spec.count--;
    return spec;
}

static uint8_t op_after(enum bfti_keep keep, uint8_t op)
{
    bool value = op == BFTI_OP_PUT || op == BFTI_OP_CACHED;
    bool dirty = op == BFTI_OP_PUT || op == BFTI_OP_DELETE;
    switch (keep) {
    case BFTI_KEEP_DIRTY:
        return dirty ? op : 0;
    case BFTI_KEEP_VALUES:
        return value ? BFTI_OP_PUT : 0;
    case BFTI_KEEP_CLEAN:
        return value ? BFTI_OP_CACHED : BFTI_OP_ABSENT;
    default:
        return op;
    }
}

static size_t common(const struct record *a, const struct record *b)
{
    size_t len = 0;
    while (len < a->key_len && len < b->key_len && a->key[len] == b->key[len])
        len++;
    return len;
}

static void expect_run(const struct bfti_run *run,
                       const struct bfti_run_spec *spec)
{
    bool kept_dead =
        spec->keep == BFTI_KEEP_ALL || spec->keep == BFTI_KEEP_DIRTY;
    size_t dead_count = kept_dead ? spec->dead_count : 0, count = 0;
    size_t first = 0, last = 0;
    bool large = dead_count > 0;

    for (size_t i = 0; i < spec->count; i++) {
        uint8_t op = op_after(spec->keep, model[i].op);
        if (!op)
            continue;
        if (count == 0)
            first = i;
        last = i;
        struct bfti_view v = bfti_run_view(run, (unsigned)count++);
        record_expect(model + i, op, &v);
        large = large || model[i].flags & BFTI_REC_LARGE;
    }
    assert_int_equal(bfti_run_count(run), count);
    assert_int_equal(le16_get(run->prefix_len),
                     count ? common(model + first, model + last) : 0);
    assert_int_equal(le16_get(run->flags), large ? BFTI_RUN_HAS_LARGE : 0);
    assert_int_equal(le16_get(run->dead_count), dead_count);
    for (size_t i = 0; i < dead_count; i++) {
        struct bfti_large d = bfti_run_dead(run, (unsigned)i);
        assert_memory_equal(&d, dead + i, sizeof d);
    }
    assert_int_equal(bfti_key_compare(bfti_run_low(run), spec->low), 0);
    assert_int_equal(bfti_key_compare(bfti_run_high(run), spec->high), 0);
    assert_true(bfti_run_sibling(run) == spec->sibling);
    assert_true(le64_get(run->beneath) == spec->beneath);
    assert_int_equal(le32_get(run->tree_id), spec->tree_id);
}

static void a_built_run_gives_back_its_records(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 4000; round++) {
        enum bfti_keep keep = (enum bfti_keep)random_below(4);
        size_t count = round % 3 ? random_below(RECORDS + 1) : random_below(4);
        struct bfti_run_spec spec = random_spec(keep, count);
        size_t size = bfti_run_size(&spec);
        uint8_t *a = malloc(size), *b = malloc(size);
        assert_non_null(a);
        assert_non_null(b);

        /* Whatever the room held before, every byte is written. */
        memset(a, 0xaa, size);
        memset(b, 0x55, size);
        assert_int_equal(bfti_run_build(a, &spec), size);
        assert_int_equal(bfti_run_build(b, &spec), size);
        assert_memory_equal(a, b, size);
        assert_null(bfti_run_check(a, size));
        expect_run((const struct bfti_run *)a, &spec);
        free(a);
        free(b);
    }
}

/* Views of a run, any stretch of them, make the run that the records make. */
static void a_run_of_another_runs_views_is_the_same(void **state)
{
    (void)state;
    static uint8_t image[BFTI_RUN_BYTES_MAX], want[BFTI_RUN_BYTES_MAX],
        got[BFTI_RUN_BYTES_MAX];
    for (unsigned round = 0; round < 1500; round++) {
        struct bfti_run_spec spec =
            random_spec(BFTI_KEEP_ALL, 1 + random_below(RECORDS));
        struct bfti_view room[RECORDS];
        struct bfti_large dead_room[DEAD];
        struct bfti_list list = {
            .view = room, .cap = RECORDS, .dead = dead_room, .dead_cap = DEAD};

        bfti_run_build(image, &spec);
        bfti_list_from_run(&list, (const struct bfti_run *)image);
        size_t from = random_below(spec.count + 1);
        spec.count = random_below(spec.count + 1 - from);
        spec.keep = (enum bfti_keep)random_below(4);
        spec.view = views + from;
        size_t size = bfti_run_build(want, &spec);
        spec.view = list.view + from;
        spec.dead = list.dead;
        assert_int_equal(bfti_run_size(&spec), size);
        assert_int_equal(bfti_run_build(got, &spec), size);
        assert_memory_equal(got, want, size);
    }
}

/* --- search --------------------------------------------------------------- */

static void expect_search(const struct bfti_run *run, size_t count,
                          const uint8_t *key, size_t len)
{
    size_t at = 0;
    while (at < count &&
           key_order(model[at].key, model[at].key_len, key, len) < 0)
        at++;
    bool there = at < count &&
                 key_order(model[at].key, model[at].key_len, key, len) == 0;
    bool found = !there;
    assert_int_equal(bfti_run_search(run, (bft_slice){key, len}, &found), at);
    assert_true(found == there);
}

/* KEY itself and what lies closest to it. */
static void expect_search_around(const struct bfti_run *run, size_t count,
                                 const struct record *r)
{
    uint8_t key[BFTI_KEY_MAX + 1];
    size_t len = r->key_len;

    memcpy(key, r->key, len);
    expect_search(run, count, key, len);
    key[len] = 0;
    expect_search(run, count, key, len + 1);
    key[random_below(len)]++;
    expect_search(run, count, key, len);
    expect_search(run, count, r->key, random_below(len));
    expect_search(run, count, r->key, len - 1);
}

static void search_agrees_with_a_plain_array(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 1000; round++) {
        struct bfti_run_spec spec =
            random_spec(BFTI_KEEP_ALL, 1 + random_below(RECORDS));
        uint8_t *image = malloc(bfti_run_size(&spec));
        assert_non_null(image);
        bfti_run_build(image, &spec);
        const struct bfti_run *run = (const struct bfti_run *)image;
        struct record other;

        for (size_t i = 0; i < spec.count; i++)
            expect_search_around(run, spec.count, model + i);
        for (unsigned i = 0; i < 50; i++) {
            record_random_key(&other, (unsigned)random_below(RECORD_SHAPES));
            expect_search(run, spec.count, other.key, other.key_len);
        }
        expect_search(run, spec.count, NULL, 0);
        free(image);
    }
}

static void search_in_an_empty_run_finds_nothing(void **state)
{
    (void)state;
    struct bfti_run run;
    struct bfti_run_spec spec = {0};
    bool found = true;

    assert_int_equal(bfti_run_build(&run, &spec), sizeof run);
    assert_null(bfti_run_check(&run, sizeof run));
    assert_int_equal(bfti_run_search(&run, text("k"), &found), 0);
    assert_false(found);
}

/* --- fences, order, separators -------------------------------------------- */

static void range_tells_the_side_of_the_fences(void **state)
{
    (void)state;
    uint8_t image[200];
    struct bfti_run_spec spec = {.low = text("b"), .high = text("d")};
    const struct bfti_run *run = (const struct bfti_run *)image;

    bfti_run_build(image, &spec);
    assert_int_equal(bfti_run_range(run, text("azz")), -1);
    assert_int_equal(bfti_run_range(run, text("b")), 0);
    assert_int_equal(bfti_run_range(run, text("czz")), 0);
    assert_int_equal(bfti_run_range(run, text("d")), 1);
    assert_int_equal(bfti_run_range(run, text("dd")), 1);
    spec.low = spec.high = no_key;
    bfti_run_build(image, &spec);
    assert_int_equal(bfti_run_range(run, text("\x01")), 0);
    assert_int_equal(bfti_run_range(run, text("\xff\xff")), 0);
}

static int sign(int order)
{
    return (order > 0) - (order < 0);
}

static void views_compare_as_whole_keys(void **state)
{
    (void)state;
    struct record a, b;
    for (unsigned round = 0; round < 20000; round++) {
        unsigned shape = (unsigned)random_below(RECORD_SHAPES);
        record_random_key(&a, shape);
        record_random_key(&b, shape);
        record_random_value(&a);
        record_random_value(&b);
        struct bfti_view x = record_view(&a), y = record_view(&b);
        struct bfti_view again = record_view(&a);
        int want = record_order(&a, &b);

        assert_int_equal(sign(bfti_view_compare(&x, &y)), want);
        assert_int_equal(sign(bfti_view_compare(&y, &x)), -want);
        assert_int_equal(bfti_view_compare(&x, &again), 0);
        assert_int_equal(sign(bfti_view_compare_key(&x, record_key(&b))), want);
        assert_int_equal(sign(bfti_key_compare(record_key(&a), record_key(&b))),
                         want);
    }
}

static void separators_are_the_shortest_between(void **state)
{
    (void)state;
    struct record r[2];
    uint8_t key[BFTI_KEY_MAX];
    for (unsigned round = 0; round < 20000; round++) {
        if (records_make(r, 2, (unsigned)random_below(RECORD_SHAPES)) < 2)
            continue;
        struct bfti_view a = record_view(r), b = record_view(r + 1);
        size_t len = bfti_key_separator(&a, &b, key);

        assert_in_range(len, 1, r[1].key_len);
        assert_true(key_order(r[0].key, r[0].key_len, key, len) < 0);
        assert_true(key_order(key, len, r[1].key, r[1].key_len) <= 0);
        /* One byte less, the largest such key up to b, is not above a. */
        assert_true(key_order(r[0].key, r[0].key_len, r[1].key, len - 1) >= 0);
    }
}

/* --- check ---------------------------------------------------------------- */

/* Use everything a run offers; for the address sanitizer to watch. */
static void walk(const struct bfti_run *run)
{
    static uint8_t key[BFTI_KEY_MAX];
    unsigned count = bfti_run_count(run);
    volatile uint8_t sink = 0;
    bool found;

    for (unsigned i = 0; i < count; i++) {
        struct bfti_view v = bfti_run_view(run, i);
        bft_slice whole = {key, bfti_view_key_len(&v)};
        assert_in_range(whole.len, 1, BFTI_KEY_MAX);
        bfti_view_key(&v, key);
        for (uint32_t j = 0; j < v.value_len; j++)
            sink = (uint8_t)(sink ^ v.value[j]);
        if (v.flags & BFTI_REC_LARGE)
            assert_int_equal(v.value_len, sizeof(struct bfti_large));
        assert_int_equal(bfti_run_search(run, whole, &found), i);
        assert_true(found);
        assert_int_equal(bfti_run_range(run, whole), 0);
    }
    for (unsigned i = 0; i < le16_get(run->dead_count); i++)
        (void)bfti_run_dead(run, i);
    (void)sink;
}

/* In a block of exactly its length, so that a byte too far is seen. */
static void check_and_walk(const uint8_t *image, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    if (len > 0)
        memcpy(copy, image, len);
    if (!bfti_run_check(copy, len))
        walk((const struct bfti_run *)copy);
    free(copy);
}

static void no_cut_passes_check(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 30; round++) {
        struct bfti_run_spec spec =
            random_spec(BFTI_KEEP_ALL, random_below(12));
        size_t size = bfti_run_size(&spec);
        uint8_t *image = calloc(1, size + 1);
        assert_non_null(image);
        bfti_run_build(image, &spec);
        for (size_t len = 0; len < size; len++) {
            uint8_t *cut = malloc(len ? len : 1);
            assert_non_null(cut);
            memcpy(cut, image, len);
            assert_non_null(bfti_run_check(cut, len));
            /* The same with a header that agrees. */
            if (len >= sizeof(struct bfti_run)) {
                ((struct bfti_run *)cut)->bytes = le32_of((uint32_t)len);
                assert_non_null(bfti_run_check(cut, len));
            }
            free(cut);
        }
        assert_non_null(bfti_run_check(image, size + 1));
        free(image);
    }
}

static void what_passes_check_is_safe_to_use(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 150; round++) {
        struct bfti_run_spec spec = random_spec(BFTI_KEEP_ALL, random_below(8));
        size_t size = bfti_run_size(&spec);
        uint8_t *image = malloc(size);
        assert_non_null(image);
        bfti_run_build(image, &spec);
        /* Every bit of what steers, and of some of the rest. */
        for (size_t at = 0; at < size; at += at < 400 ? 1 : 13)
            for (unsigned bit = 0; bit < 8; bit++) {
                image[at] ^= (uint8_t)(1u << bit);
                check_and_walk(image, size);
                image[at] ^= (uint8_t)(1u << bit);
            }
        /* Several bytes at once. */
        for (unsigned i = 0; i < 300; i++) {
            uint8_t *bad = malloc(size);
            assert_non_null(bad);
            memcpy(bad, image, size);
            for (size_t n = 1 + random_below(4); n > 0; n--)
                bad[random_below(size < 120 ? size : 120)] =
                    (uint8_t)random_next();
            if (random_below(2))
                memcpy(bad, image, 4);
            check_and_walk(bad, size);
            free(bad);
        }
        free(image);
    }
}

/* Two records, "ka" and "kb" with one byte of value, dead 1, fences k and l. */
static size_t small_run(uint8_t *image)
{
    static const uint8_t bytes[] = "kakb12";
    struct bfti_view v[2] = {
        {.prefix = bytes, .suffix = bytes, .value = bytes + 4},
        {.prefix = bytes, .suffix = bytes + 2, .value = bytes + 5},
    };
    for (unsigned i = 0; i < 2; i++) {
        v[i].suffix_len = 2;
        v[i].value_len = 1;
        v[i].op = BFTI_OP_PUT;
    }
    struct bfti_run_spec spec = {.view = v,
                                 .count = 2,
                                 .dead = dead,
                                 .dead_count = 1,
                                 .low = text("k"),
                                 .high = text("l")};
    return bfti_run_build(image, &spec);
}

static void each_broken_rule_is_named(void **state)
{
    (void)state;
    /* Offsets in small_run: slots at 40 and 52, dead at 64, prefix at 80,
     * fences at 81 and 82, then a1b2. */
    static const struct {
        unsigned at;
        uint8_t value;
        const char *wrong;
    } rule[] = {
        {0, 88, "run: its length is not that of its image"},
        {4, 200, "run: slots and fences reach past its end"},
        {6, 0, "run: a record is not where it must be"},
        {9, 5, "run: a prefix or fence is longer than a key"},
        {14, 0, "run: its flags do not tell of its large values"},
        {14, 3, "run: unknown flags"},
        {36, 1, "run: unknown flags"},
        {43, 'b', "run: a slot's head is not its key's"},
        {44, 82, "run: a record is not where it must be"},
        {46, 9, "run: a record is not where it must be"},
        {48, 0, "run: a record is not where it must be"},
        {50, 0, "run: unknown operation"},
        {50, 5, "run: unknown operation"},
        {50, BFTI_OP_DELETE, "run: an absent record has a value"},
        {51, 1, "run: a large value's reference has a wrong length"},
        {51, 2, "run: unknown record flags"},
        {60, 0, "run: bytes behind its last record"},
        {81, 'l', "run: its low fence is not below its high fence"},
        {80, 'j', "run: a key lies below its low fence"},
        {80, 'l', "run: a key lies above its high fence"},
        {85, 'a', "run: a slot's head is not its key's"},
    };
    uint8_t image[200];
    size_t size = small_run(image);

    assert_int_equal(size, 87);
    assert_null(bfti_run_check(image, size));
    for (size_t i = 0; i < sizeof rule / sizeof *rule; i++) {
        uint8_t before = image[rule[i].at];
        assert_int_not_equal(before, rule[i].value);
        image[rule[i].at] = rule[i].value;
        const char *wrong = bfti_run_check(image, size);
        assert_non_null(wrong);
        assert_string_equal(wrong, rule[i].wrong);
        image[rule[i].at] = before;
    }
    static uint8_t long_image[BFTI_RUN_BYTES_MAX + 1];
    memcpy(long_image, image, size);
    ((struct bfti_run *)long_image)->bytes = le32_of(sizeof long_image);
    assert_string_equal(bfti_run_check(long_image, sizeof long_image),
                        "run: longer than a run can be");
    /* Equal keys, with the head that goes with it: neither below the other. */
    image[85] = 'a';
    image[55] = 'a';
    assert_string_equal(bfti_run_check(image, size), "run: keys do not ascend");
}

static void keys_are_not_empty_nor_too_long(void **state)
{
    (void)state;
    static uint8_t key[BFTI_KEY_MAX + 1], image[2 * sizeof key];
    struct bfti_view v = {.prefix = key,
                          .suffix = key,
                          .suffix_len = sizeof key,
                          .value = key,
                          .op = BFTI_OP_PUT};
    struct bfti_run_spec spec = {.view = &v, .count = 1};

    v.suffix_len = BFTI_KEY_MAX;
    assert_null(bfti_run_check(image, bfti_run_build(image, &spec)));
    /* Made by hand: build asserts that nobody asks for it. */
    struct bfti_run *run = (struct bfti_run *)image;
    struct bfti_slot *slot = (struct bfti_slot *)(run + 1);
    size_t size = le32_get(run->bytes);
    slot->key_len = le16_of(1);
    run->bytes = le32_of((uint32_t)size + 1);
    assert_string_equal(bfti_run_check(image, size + 1),
                        "run: a key is empty or too long");
    size -= BFTI_KEY_MAX;
    slot->key_len = run->prefix_len = le16_of(0);
    slot->offset = le16_of((uint16_t)size);
    run->bytes = le32_of((uint32_t)size);
    assert_string_equal(bfti_run_check(image, size),
                        "run: a key is empty or too long");
}

/* --- cuts ----------------------------------------------------------------- */

enum { CUT_RECORDS = 700, CUTS = 400 };
static struct record many[CUT_RECORDS];
static struct bfti_view many_views[CUT_RECORDS];
static size_t cuts[CUTS];

/* Build part I of PARTS with the separators that a split would use; returns
 * its size. */
static size_t build_part(const struct bfti_run_spec *spec, size_t i,
                         size_t parts)
{
    static uint8_t low[BFTI_KEY_MAX], high[BFTI_KEY_MAX];
    static uint8_t image[BFTI_RUN_BYTES_MAX];
    struct bfti_run_spec part = *spec;
    size_t from = i > 0 ? cuts[i - 1] : 0;
    size_t end = i + 1 < parts ? cuts[i] : spec->count;

    assert_true(from < end && end <= spec->count);
    part.keep = BFTI_KEEP_VALUES;
    part.view = spec->view + from;
    part.count = end - from;
    if (i > 0) {
        part.low.data = low;
        part.low.len =
            bfti_key_separator(spec->view + from - 1, spec->view + from, low);
    }
    if (i + 1 < parts) {
        part.high.data = high;
        part.high.len =
            bfti_key_separator(spec->view + end - 1, spec->view + end, high);
    }
    size_t size = bfti_run_size(&part);
    assert_in_range(size, sizeof(struct bfti_run), BFTI_RUN_BYTES_MAX);
    assert_int_equal(bfti_run_build(image, &part), size);
    assert_null(bfti_run_check(image, size));
    if (parts > 1)
        assert_true(bfti_run_count((const struct bfti_run *)image) > 0);
    return size;
}

/* COUNT records of up to a quarter of LEAF_BYTES each. */
static struct bfti_run_spec leaf_spec(size_t leaf_bytes, size_t count)
{
    unsigned shape = (unsigned)random_below(RECORD_SHAPES);
    for (size_t i = 0; i < count; i++) {
        do {
            record_random_key(many + i, shape);
        } while (many[i].key_len > leaf_bytes / 4);
        record_random_value(many + i);
        size_t room = leaf_bytes / 4 - many[i].key_len;
        if (many[i].value_len > room) {
            many[i].value_len = room;
            many[i].flags = 0;
        }
    }
    count = records_sort(many, count);
    for (size_t i = 0; i < count; i++)
        many_views[i] = record_view(many + i);
    struct bfti_run_spec spec = {.view = many_views, .count = count};
    if (count > 2 && random_below(2)) {
        spec.low = record_key(many);
        spec.high = record_key(many + count - 1);
        spec.count--;
    }
    return spec;
}

static void every_part_fits_its_leaf(void **state)
{
    (void)state;
    static const size_t leaf[] = {256, 300, 512, 1024, 4096, 16384};
    for (unsigned round = 0; round < 5000; round++) {
        size_t leaf_bytes = leaf[random_below(6)], parts = 0, again;
        struct bfti_run_spec spec =
            leaf_spec(leaf_bytes, 1 + random_below(CUT_RECORDS / 2));
        bool ascending = random_below(2);
        struct bfti_run_spec whole = spec;
        whole.keep = BFTI_KEEP_VALUES;

        assert_int_equal(
            bfti_run_cuts(&spec, leaf_bytes, ascending, cuts, CUTS, &parts),
            BFT_OK);
        if (bfti_run_size(&whole) <= leaf_bytes)
            assert_int_equal(parts, 1);
        for (size_t i = 0; i < parts; i++)
            assert_in_range(build_part(&spec, i, parts), 0, leaf_bytes);
        if (parts == 1)
            continue;
        /* As many cuts as are needed are allowed; one less may not do. */
        assert_int_equal(bfti_run_cuts(&spec, leaf_bytes, ascending, cuts,
                                       parts - 1, &again),
                         BFT_OK);
        assert_int_equal(again, parts);
        bft_status status = bfti_run_cuts(&spec, leaf_bytes, ascending, cuts,
                                          parts - 2, &again);
        if (!ascending || status != BFT_OK)
            assert_int_equal(status, BFT_TOO_BIG);
        else
            for (size_t i = 0; i < again; i++)
                assert_in_range(build_part(&spec, i, again), 0, leaf_bytes);
    }
}

/* N records of the same size with numbers for keys. */
static struct bfti_run_spec even_spec(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        memcpy(many[i].key, "even", 4);
        many[i].key[4] = (uint8_t)(i >> 8);
        many[i].key[5] = (uint8_t)i;
        many[i].key_len = 6;
        many[i].value_len = 30;
        memset(many[i].value, 'v', 30);
        many[i].op = BFTI_OP_PUT;
        many[i].flags = 0;
        many_views[i] = record_view(many + i);
    }
    return (struct bfti_run_spec){.view = many_views, .count = count};
}

static void parts_are_balanced_or_filled_on_the_left(void **state)
{
    (void)state;
    for (size_t count = 90; count < CUT_RECORDS; count += 7) {
        struct bfti_run_spec spec = even_spec(count);
        size_t parts, least = SIZE_MAX, most = 0, leaf_bytes = 4096;

        assert_int_equal(
            bfti_run_cuts(&spec, leaf_bytes, false, cuts, CUTS, &parts),
            BFT_OK);
        for (size_t i = 0; i < parts; i++) {
            size_t size = build_part(&spec, i, parts);
            least = size < least ? size : least;
            most = size > most ? size : most;
        }
        /* The last part is short of the others by what bisection left, a
         * 64th of a leaf, and a record at most in each of them. */
        assert_in_range(most - least, 0, parts * (leaf_bytes / 64 + 2 * 48));
        assert_int_equal(
            bfti_run_cuts(&spec, leaf_bytes, true, cuts, CUTS, &parts), BFT_OK);
        for (size_t i = 0; i + 1 < parts; i++)
            assert_in_range(build_part(&spec, i, parts), leaf_bytes * 92 / 100,
                            leaf_bytes * 95 / 100 + 1);
    }
}

/* The largest records of the smallest leaf: alone, with fences as long, they
 * take more than the 95% that ascending parts are filled to. */
static void a_largest_record_may_stand_alone(void **state)
{
    (void)state;
    size_t parts;
    for (size_t i = 0; i < 5; i++) {
        memset(many[i].key, 'k', 64);
        many[i].key[63] = (uint8_t)i;
        many[i].key_len = 64;
        many[i].value_len = 0;
        many[i].op = BFTI_OP_PUT;
        many[i].flags = 0;
        many_views[i] = record_view(many + i);
    }
    struct bfti_run_spec spec = {.view = many_views,
                                 .count = 4,
                                 .low = record_key(many),
                                 .high = record_key(many + 4)};
    for (size_t leaf_bytes = 244; leaf_bytes < 257; leaf_bytes++) {
        assert_int_equal(
            bfti_run_cuts(&spec, leaf_bytes, true, cuts, CUTS, &parts), BFT_OK);
        assert_int_equal(parts, 4);
        for (size_t i = 0; i < parts; i++)
            assert_in_range(build_part(&spec, i, parts), 0, leaf_bytes);
    }
}

static void cuts_refuse_what_cannot_fit(void **state)
{
    (void)state;
    struct bfti_run_spec spec = even_spec(300);
    size_t parts;

    assert_int_equal(bfti_run_cuts(&spec, 1024, false, cuts, 3, &parts),
                     BFT_TOO_BIG);
    assert_int_equal(bfti_run_cuts(&spec, 80, false, cuts, CUTS, &parts),
                     BFT_TOO_BIG);
    /* Nothing of it is kept: one empty run. */
    for (size_t i = 0; i < 300; i++)
        many_views[i].op = BFTI_OP_ABSENT, many_views[i].value_len = 0;
    assert_int_equal(bfti_run_cuts(&spec, 256, false, cuts, 0, &parts), BFT_OK);
    assert_int_equal(parts, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_built_run_gives_back_its_records),
        cmocka_unit_test(a_run_of_another_runs_views_is_the_same),
        cmocka_unit_test(search_agrees_with_a_plain_array),
        cmocka_unit_test(search_in_an_empty_run_finds_nothing),
        cmocka_unit_test(range_tells_the_side_of_the_fences),
        cmocka_unit_test(views_compare_as_whole_keys),
        cmocka_unit_test(separators_are_the_shortest_between),
        cmocka_unit_test(no_cut_passes_check),
        cmocka_unit_test(what_passes_check_is_safe_to_use),
        cmocka_unit_test(each_broken_rule_is_named),
        cmocka_unit_test(keys_are_not_empty_nor_too_long),
        cmocka_unit_test(every_part_fits_its_leaf),
        cmocka_unit_test(parts_are_balanced_or_filled_on_the_left),
        cmocka_unit_test(a_largest_record_may_stand_alone),
        cmocka_unit_test(cuts_refuse_what_cannot_fit),
    };
    random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
