/* Mini-pages against plain arrays: tails, finds, lists, and one writer with
 * readers. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buffer/minipage.h"
#include "random.h"
#include "records.h"

enum { RECORDS = 60, ALL = RECORDS + BFTI_TAIL_LONG, BLOCK = 65535, DEAD = 3 };

/* Newest of each key, in no order; the page under test and its block. */
static struct record model[ALL];
static size_t model_count;
static uint64_t dead[ALL + DEAD];
static size_t dead_count;

static struct record *model_find(const struct record *r)
{
    for (size_t i = 0; i < model_count; i++)
        if (record_order(model + i, r) == 0)
            return model + i;
    return NULL;
}

static void model_bury(uint64_t place)
{
    for (size_t i = 0; i < dead_count; i++)
        if (dead[i] == place)
            return;
    dead[dead_count++] = place;
}

static void model_put(const struct record *r)
{
    struct record *old = model_find(r);
    if (!old) {
        model[model_count++] = *r;
        return;
    }
    *old = *r;
}

/* All that R supersedes is known only at the end: the same place may come
 * again.  So the history is kept. */
static struct record history[ALL];
static size_t history_count;

static void model_dead(void)
{
    for (size_t i = 0; i < history_count; i++) {
        const struct record *old = history + i, *new = model_find(old);
        bool newest = true;
        for (size_t j = i + 1; j < history_count; j++)
            newest = newest && record_order(history + j, old) != 0;
        if (newest || old->op != BFTI_OP_PUT || !(old->flags & BFTI_REC_LARGE))
            continue;
        if (new->flags &
            BFTI_REC_LARGE &&record_place(new) == record_place(old))
            continue;
        model_bury(record_place(old));
    }
}

static void model_add(const struct record *r)
{
    history[history_count++] = *r;
    model_put(r);
}

/* A page of COUNT records with tail room for RECORDS_MORE and BYTES, in a block
 * of exactly the size asked for. */
static struct bfti_minipage *random_page(size_t count, unsigned shape,
                                         unsigned records_more, size_t bytes)
{
    static struct record made[RECORDS];
    struct bfti_view views[RECORDS];
    struct bfti_large refs[DEAD];
    size_t dirty = 0;

    count = records_make(made, count, shape);
    model_count = history_count = dead_count = 0;
    for (size_t i = 0; i < count; i++) {
        views[i] = record_view(made + i);
        dirty += bfti_op_is_dirty(made[i].op);
        model_add(made + i);
    }
    random_bytes(refs, sizeof refs);
    struct bfti_run_spec spec = {.view = views, .count = count, .dead = refs};
    spec.dead_count = random_below(3) ? 0 : random_below(DEAD + 1);
    for (size_t i = 0; i < spec.dead_count; i++)
        model_bury(le64_get(refs[i].place));
    size_t size = bfti_minipage_size(&spec, records_more, bytes);
    assert_in_range(size, sizeof(struct bfti_minipage), BLOCK);
    void *block = malloc(size);
    assert_non_null(block);
    memset(block, 0x5a, size);
    bfti_minipage_build(block, size, &spec, 42, BFTI_PAGE_COMPLETE, 17);

    struct bfti_minipage *page = block;
    assert_int_equal(page->bytes, size);
    assert_int_equal(page->dirty, dirty);
    assert_int_equal(page->flags, BFTI_PAGE_COMPLETE);
    assert_int_equal(atomic_load(&page->beneath), 17);
    assert_int_equal(atomic_load(&page->batch), 0);
    assert_int_equal(page->page_id, 42);
    assert_int_equal(bfti_minipage_tail(page), 0);
    assert_false(bfti_minipage_frozen(page));
    assert_true(bfti_minipage_is_dirty(page) ==
                (dirty > 0 || spec.dead_count > 0));
    return page;
}

static void append(struct bfti_minipage *page, const struct record *r)
{
    bfti_minipage_append(page, record_key(r),
                         (bft_slice){r->value, r->value_len}, r->op, r->flags);
    model_add(r);
}

/* R becomes a new record, or a new version of one of the model's. */
static void random_record(struct record *r, unsigned shape)
{
    record_random_key(r, shape);
    record_random_value(r);
    if (model_count == 0 || random_below(2))
        return;
    const struct record *old = model + random_below(model_count);
    memcpy(r->key, old->key, old->key_len);
    r->key_len = old->key_len;
    if (old->flags & BFTI_REC_LARGE && random_below(3) == 0) {
        memcpy(r->value, old->value, sizeof(struct bfti_large));
        r->value_len = sizeof(struct bfti_large);
        r->flags = BFTI_REC_LARGE;
        r->op = random_below(2) ? BFTI_OP_PUT : BFTI_OP_CACHED;
    }
}

static void expect_finds(const struct bfti_minipage *page, unsigned shape)
{
    struct bfti_view v;
    struct record r;

    for (size_t i = 0; i < model_count; i++) {
        assert_true(bfti_minipage_find(page, record_key(model + i), &v));
        record_expect(model + i, model[i].op, &v);
    }
    for (unsigned i = 0; i < 20; i++) {
        record_random_key(&r, shape);
        bool found = bfti_minipage_find(page, record_key(&r), &v);
        assert_true(found == (model_find(&r) != NULL));
    }
}

/* The lists of a page with exactly the room that is promised to be enough. */
static void expect_lists(const struct bfti_minipage *page)
{
    const struct bfti_run *run = bfti_minipage_run(page);
    unsigned tail = bfti_minipage_tail(page);
    size_t cap = bfti_run_count(run) + tail;
    size_t dead_cap = le16_get(run->dead_count) + tail;
    struct bfti_list list = {.cap = cap, .dead_cap = dead_cap}, tmp;
    list.view = malloc(cap * sizeof *list.view + 1);
    list.dead = malloc(dead_cap * sizeof *list.dead + 1);
    tmp = list;
    tmp.view = malloc(cap * sizeof *list.view + 1);
    tmp.dead = malloc(dead_cap * sizeof *list.dead + 1);
    assert_true(list.view && list.dead && tmp.view && tmp.dead);

    bfti_minipage_list(page, tail, &list, &tmp);
    model_count = records_sort(model, model_count);
    assert_int_equal(list.count, model_count);
    for (size_t i = 0; i < model_count; i++)
        record_expect(model + i, model[i].op, list.view + i);
    model_dead();
    assert_int_equal(list.dead_count, dead_count);
    for (size_t i = 0; i < dead_count; i++) {
        bool there = false;
        for (size_t j = 0; j < dead_count; j++)
            there = there || le64_get(list.dead[j].place) == dead[i];
        assert_true(there);
    }
    free(list.view);
    free(list.dead);
    free(tmp.view);
    free(tmp.dead);
}

static void a_page_agrees_with_a_plain_array(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 500; round++) {
        unsigned shape = (unsigned)random_below(RECORD_SHAPES);
        struct bfti_minipage *page =
            random_page(random_below(RECORDS + 1), shape, BFTI_TAIL_MAX,
                        random_below(2) ? 2000 : 20000);
        struct record r;
        size_t dirty = 0;

        for (;;) {
            random_record(&r, shape);
            if (random_below(6) == 0 ||
                !bfti_minipage_fits(page, r.key_len, r.value_len))
                break;
            append(page, &r);
            dirty += bfti_op_is_dirty(r.op);
            assert_int_equal(page->tail_dirty, dirty);
        }
        if (random_below(2)) {
            unsigned tail = bfti_minipage_tail(page);
            bfti_minipage_freeze(page);
            assert_true(bfti_minipage_frozen(page));
            assert_int_equal(bfti_minipage_tail(page), tail);
        }
        expect_finds(page, shape);
        expect_lists(page);
        free(page);
    }
}

/* What size promises fits, to the last byte, and nothing more. */
static void the_asked_room_is_there(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 500; round++) {
        unsigned records = 1 + (unsigned)random_below(BFTI_TAIL_MAX);
        size_t bytes = records * (1 + random_below(60)), left = bytes;
        struct bfti_minipage *page =
            random_page(random_below(5), 5, records, bytes);
        struct record r = {.op = BFTI_OP_PUT};

        for (unsigned i = 0; i < records; i++) {
            size_t len = i + 1 < records ? bytes / records : left;
            r.key_len = 1 + random_below(len);
            r.value_len = len - r.key_len;
            random_bytes(r.key, r.key_len);
            random_bytes(r.value, r.value_len);
            assert_true(bfti_minipage_fits(page, r.key_len, r.value_len));
            if (i + 1 == records)
                assert_false(
                    bfti_minipage_fits(page, r.key_len, r.value_len + 1));
            append(page, &r);
            left -= len;
        }
        assert_false(bfti_minipage_fits(page, 1, 0));
        assert_false(bfti_minipage_fits(page, SIZE_MAX, 2));
        expect_finds(page, 5);
        expect_lists(page);
        free(page);
    }
}

/* KEY is number N in order, R a put of it. */
static void record_numbered(struct record *r, unsigned n)
{
    memset(r, 0, sizeof(*r));
    r->key[0] = (uint8_t)(n >> 8);
    r->key[1] = (uint8_t)n;
    r->key_len = 2;
    r->op = BFTI_OP_PUT;
    r->value_len = random_below(40);
    random_bytes(r->value, r->value_len);
}

/* Records in order are many; as many as ever that are not come behind them. */
static void a_tail_in_order_is_long(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        struct bfti_minipage *page = random_page(0, 5, BFTI_TAIL_LONG, 20000);
        unsigned many = (unsigned)random_below(BFTI_TAIL_LONG + 1), more = 0;
        struct record r;

        for (unsigned i = 0; i < many; i++) {
            record_numbered(&r, 2 * i + (unsigned)random_below(2));
            assert_true(bfti_minipage_fits_all(page, record_key(&r), 1, 50));
            append(page, &r);
            assert_int_equal(bfti_minipage_sorted(page, i + 1), i + 1);
            assert_int_equal(bfti_minipage_sorted(page, i), i);
        }
        if (many == 0)
            goto done;
        /* The newest again, which is not above itself. */
        for (; bfti_minipage_fits(page, 2, 40); more++) {
            record_numbered(&r, more ? (unsigned)random_below(2 * many)
                                     : r.key[0] * 256U + r.key[1]);
            append(page, &r);
            assert_int_equal(bfti_minipage_sorted(page, many + more + 1), many);
        }
        assert_int_equal(more, many + BFTI_TAIL_MAX < BFTI_TAIL_LONG
                                   ? BFTI_TAIL_MAX
                                   : BFTI_TAIL_LONG - many);
    done:
        expect_finds(page, 5);
        expect_lists(page);
        free(page);
    }
}

/* What comes all at once is in order behind what is, or as much as a tail takes
 * that is not. */
static void several_fit_by_their_first_key(void **state)
{
    (void)state;
    uint8_t low[] = {0, 1}, high[] = {200, 0};
    struct bfti_minipage *page = random_page(0, 5, BFTI_TAIL_LONG, 20000);
    struct record r;

    for (unsigned i = 0; i < 100; i++) {
        record_numbered(&r, 10 + i);
        append(page, &r);
    }
    bft_slice above = {high, 2}, below = {low, 2};
    assert_true(bfti_minipage_fits_all(page, above, BFTI_TAIL_LONG - 100, 99));
    assert_false(bfti_minipage_fits_all(page, above, BFTI_TAIL_LONG - 99, 99));
    assert_true(bfti_minipage_fits_all(page, below, BFTI_TAIL_MAX, 99));
    assert_false(bfti_minipage_fits_all(page, below, BFTI_TAIL_MAX + 1, 99));
    record_numbered(&r, 1);
    append(page, &r);
    assert_true(bfti_minipage_fits_all(page, above, BFTI_TAIL_MAX - 1, 99));
    assert_false(bfti_minipage_fits_all(page, above, BFTI_TAIL_MAX, 99));
    free(page);
}

static void a_page_without_room_takes_nothing(void **state)
{
    (void)state;
    for (unsigned odd = 0; odd < 4; odd++) {
        struct bfti_run_spec spec = {.high = {"abc", odd}};
        size_t size = sizeof(struct bfti_minipage) + bfti_run_size(&spec);
        void *block = malloc(size);
        assert_non_null(block);
        bfti_minipage_build(block, size, &spec, 1, 0, 0);
        assert_false(bfti_minipage_fits(block, 1, 0));
        assert_false(bfti_minipage_is_dirty(block));
        free(block);
    }
}

/* The tail counted earlier is listed, not what came since. */
static void a_list_regards_the_tail_it_is_told(void **state)
{
    (void)state;
    struct bfti_view room[4], more[4], v;
    struct bfti_large none[4];
    struct bfti_list list = {room, 0, 4, none, 0, 4, NULL};
    struct bfti_list tmp = {more, 0, 4, none, 0, 4, NULL};
    struct bfti_run_spec spec = {0};
    static union {
        struct bfti_minipage page;
        uint8_t bytes[1000];
    } block;

    bfti_minipage_build(&block, sizeof block, &spec, 1, 0, 0);
    for (unsigned i = 0; i < 3; i++)
        bfti_minipage_append(&block.page, (bft_slice){"k", 1},
                             (bft_slice){&"abc"[i], 1}, BFTI_OP_PUT, 0);
    bfti_minipage_list(&block.page, 2, &list, &tmp);
    assert_int_equal(list.count, 1);
    assert_int_equal(list.view[0].value[0], 'b');
    assert_true(bfti_minipage_find(&block.page, (bft_slice){"k", 1}, &v));
    assert_int_equal(v.value[0], 'c');
}

/* --- one writer, readers without a latch ---------------------------------- */

enum { READERS = 2, PAGES = 300, KEYS = 4 };

static struct bfti_minipage *pages[PAGES];
static _Atomic unsigned arrived, broken;

/* Version N of a key: N in every byte of the value. */
static void *read_pages(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < PAGES; i++) {
        uint8_t last[KEYS] = {0};
        arrived++;
        do {
            for (uint8_t k = 0; k < KEYS; k++) {
                uint8_t key[6] = {'k', 'e', 'y', ':', 'n', k};
                struct bfti_view v;
                if (!bfti_minipage_find(pages[i], (bft_slice){key, 6}, &v))
                    continue;
                for (uint32_t j = 1; j < v.value_len; j++)
                    broken += v.value[j] != v.value[0];
                broken += v.value_len != 20 || v.value[0] < last[k];
                last[k] = v.value[0];
            }
        } while (!bfti_minipage_frozen(pages[i]));
        unsigned tail = bfti_minipage_tail(pages[i]);
        broken += tail != BFTI_TAIL_MAX;
    }
    return NULL;
}

static void readers_see_whole_records_in_order(void **state)
{
    (void)state;
    enum { BYTES = 1024 };
    struct bfti_run_spec spec = {0};
    uint8_t *room = malloc((size_t)PAGES * BYTES), value[20];
    pthread_t thread[READERS];

    assert_non_null(room);
    for (size_t i = 0; i < PAGES; i++) {
        void *block = room + i * BYTES;
        bfti_minipage_build(block, BYTES, &spec, i, 0, 0);
        pages[i] = block;
    }
    arrived = broken = 0;
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(thread + i, NULL, read_pages, NULL), 0);
    for (unsigned i = 0; i < PAGES; i++) {
        while (arrived < (i + 1) * READERS)
            sched_yield();
        for (unsigned n = 0; n < BFTI_TAIL_MAX; n++) {
            uint8_t key[6] = {'k', 'e', 'y', ':', 'n', (uint8_t)(n % KEYS)};
            memset(value, (int)(n / KEYS), sizeof value);
            bfti_minipage_append(pages[i], (bft_slice){key, 6},
                                 (bft_slice){value, 20}, BFTI_OP_PUT, 0);
        }
        bfti_minipage_freeze(pages[i]);
    }
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(broken, 0);
    free(room);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_agrees_with_a_plain_array),
        cmocka_unit_test(the_asked_room_is_there),
        cmocka_unit_test(a_tail_in_order_is_long),
        cmocka_unit_test(several_fit_by_their_first_key),
        cmocka_unit_test(a_page_without_room_takes_nothing),
        cmocka_unit_test(a_list_regards_the_tail_it_is_told),
        cmocka_unit_test(readers_see_whole_records_in_order),
    };
    random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
