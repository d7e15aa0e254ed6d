/* Lists against plain arrays: from runs, merged, searched, reserved. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"
#include "records.h"

enum { RECORDS = 120, DEAD = 12, PLACES = 30 };

/* --- memory that can fail ------------------------------------------------- */

static unsigned allocs_left = UINT32_MAX;
static unsigned blocks_held;

static void *env_alloc(void *ctx, size_t bytes)
{
    (void)ctx;
    if (allocs_left == 0)
        return NULL;
    allocs_left--;
    blocks_held++;
    return malloc(bytes);
}

static void *env_realloc(void *ctx, void *old, size_t bytes)
{
    (void)ctx;
    if (allocs_left == 0)
        return NULL;
    allocs_left--;
    return realloc(old, bytes);
}

static void env_free(void *ctx, void *block)
{
    (void)ctx;
    blocks_held -= block != NULL;
    free(block);
}

static const struct bfti_env env = {
    .alloc = env_alloc, .realloc = env_realloc, .free = env_free};

/* --- sources -------------------------------------------------------------- */

/* A list and the records it was made of. */
struct source {
    struct record model[RECORDS];
    size_t count;
    uint8_t image[BFTI_RUN_BYTES_MAX];
    struct bfti_list list;
};

/* Places are few, so that sources name the same ones. */
static void few_places(struct record *r)
{
    struct bfti_large large;
    if (!(r->flags & BFTI_REC_LARGE))
        return;
    large.bytes = le64_of(random_next());
    large.place = le64_of(1 + random_below(PLACES));
    memcpy(r->value, &large, sizeof large);
}

/* References to COUNT different places. */
static size_t random_dead(struct bfti_large *dead, size_t count)
{
    uint64_t first = random_below(PLACES);
    for (size_t i = 0; i < count; i++) {
        dead[i].bytes = le64_of(random_next());
        dead[i].place = le64_of(1 + (first + 7 * i) % PLACES);
    }
    return count;
}

static void source_fill(struct source *s, size_t count, unsigned shape)
{
    struct bfti_view views[RECORDS];
    struct bfti_large dead[DEAD];

    s->count = records_make(s->model, count, shape);
    for (size_t i = 0; i < s->count; i++) {
        few_places(s->model + i);
        views[i] = record_view(s->model + i);
    }
    struct bfti_run_spec spec = {.view = views, .count = s->count};
    spec.dead = dead;
    spec.dead_count = random_dead(dead, random_below(DEAD + 1));
    while (bfti_run_size(&spec) > BFTI_RUN_BYTES_MAX)
        s->count = --spec.count;
    bfti_run_build(s->image, &spec);
    const struct bfti_run *run = (const struct bfti_run *)s->image;
    assert_int_equal(bfti_list_reserve(&env, &s->list, s->count, DEAD), BFT_OK);
    bfti_list_from_run(&s->list, run);

    assert_int_equal(s->list.count, s->count);
    for (size_t i = 0; i < s->count; i++)
        record_expect(s->model + i, s->model[i].op, s->list.view + i);
    assert_int_equal(s->list.dead_count, spec.dead_count);
    assert_memory_equal(s->list.dead, dead, spec.dead_count * sizeof *dead);
}

static struct source newer, older, oldest;

/* --- merge ---------------------------------------------------------------- */

struct expected {
    const struct record *record[2 * RECORDS];
    size_t count;
    bool dead[PLACES + 1];
};

static void expect_superseded(struct expected *e, const struct record *new,
                              const struct record *old)
{
    if (old->op != BFTI_OP_PUT || !(old->flags & BFTI_REC_LARGE))
        return;
    if (new->flags & BFTI_REC_LARGE &&record_place(new) == record_place(old))
        return;
    e->dead[record_place(old)] = true;
}

static void plain_merge(struct expected *e, const struct source *a,
                        const struct source *b)
{
    size_t i = 0, j = 0;
    memset(e, 0, sizeof *e);
    while (i < a->count || j < b->count) {
        int order = i == a->count   ? 1
                    : j == b->count ? -1
                                    : record_order(a->model + i, b->model + j);
        if (order == 0)
            expect_superseded(e, a->model + i, b->model + j);
        e->record[e->count++] = order <= 0 ? a->model + i : b->model + j;
        i += order <= 0;
        j += order >= 0;
    }
    for (i = 0; i < a->list.dead_count; i++)
        e->dead[le64_get(a->list.dead[i].place)] = true;
    for (i = 0; i < b->list.dead_count; i++)
        e->dead[le64_get(b->list.dead[i].place)] = true;
}

static void expect_list(const struct expected *e, const struct bfti_list *list)
{
    bool seen[PLACES + 1] = {false};

    assert_int_equal(list->count, e->count);
    for (size_t i = 0; i < e->count; i++)
        record_expect(e->record[i], e->record[i]->op, list->view + i);
    for (size_t i = 0; i < list->dead_count; i++) {
        uint64_t place = le64_get(list->dead[i].place);
        assert_in_range(place, 1, PLACES);
        assert_true(e->dead[place]);
        assert_false(seen[place]);
        seen[place] = true;
    }
    assert_memory_equal(seen, e->dead, sizeof seen);
}

static void merge_agrees_with_plain_arrays(void **state)
{
    (void)state;
    struct bfti_list out = {0};
    static struct expected e;
    static const size_t size[] = {0, 1, 3, RECORDS};

    for (unsigned round = 0; round < 4000; round++) {
        unsigned shape = (unsigned)random_below(RECORD_SHAPES);
        source_fill(&newer, random_below(size[random_below(4)] + 1), shape);
        source_fill(&older, random_below(size[random_below(4)] + 1), shape);
        assert_int_equal(bfti_list_reserve(&env, &out,
                                           newer.count + older.count,
                                           newer.count + 2 * DEAD),
                         BFT_OK);
        bfti_list_merge(&out, &newer.list, &older.list);
        plain_merge(&e, &newer, &older);
        expect_list(&e, &out);
    }
    bfti_list_free(&env, &out);
}

/* The same record in the same place: not the bytes between members. */
static void same_view(const struct bfti_view *a, const struct bfti_view *b)
{
    assert_ptr_equal(a->prefix, b->prefix);
    assert_ptr_equal(a->suffix, b->suffix);
    assert_ptr_equal(a->value, b->value);
    assert_int_equal(a->prefix_len, b->prefix_len);
    assert_int_equal(a->suffix_len, b->suffix_len);
    assert_int_equal(a->value_len, b->value_len);
    assert_int_equal(a->op, b->op);
    assert_int_equal(a->flags, b->flags);
}

static void merges_in_either_order_agree(void **state)
{
    (void)state;
    struct bfti_list a = {0}, b = {0}, left = {0}, right = {0};
    size_t views = 3 * RECORDS, dead = 3 * (DEAD + RECORDS);

    assert_int_equal(bfti_list_reserve(&env, &a, views, dead), BFT_OK);
    assert_int_equal(bfti_list_reserve(&env, &b, views, dead), BFT_OK);
    assert_int_equal(bfti_list_reserve(&env, &left, views, dead), BFT_OK);
    assert_int_equal(bfti_list_reserve(&env, &right, views, dead), BFT_OK);
    for (unsigned round = 0; round < 500; round++) {
        unsigned shape = (unsigned)random_below(RECORD_SHAPES);
        source_fill(&newer, random_below(RECORDS), shape);
        source_fill(&older, random_below(RECORDS), shape);
        source_fill(&oldest, random_below(RECORDS), shape);
        bfti_list_merge(&a, &newer.list, &older.list);
        bfti_list_merge(&left, &a, &oldest.list);
        bfti_list_merge(&b, &older.list, &oldest.list);
        bfti_list_merge(&right, &newer.list, &b);
        assert_int_equal(left.count, right.count);
        for (size_t i = 0; i < left.count; i++)
            same_view(left.view + i, right.view + i);
    }
    bfti_list_free(&env, &a);
    bfti_list_free(&env, &b);
    bfti_list_free(&env, &left);
    bfti_list_free(&env, &right);
}

/* Any number of runs, with or without a list over them, as merged one by one. */
static void runs_are_merged_as_lists_are(void **state)
{
    (void)state;
    static struct source source[BFTI_DELTAS_MAX + 2];
    struct bfti_list out = {0}, tmp = {0}, other = {0}, want[2] = {{0}, {0}};
    struct bfti_list *all[] = {&out, &tmp, &other, &want[0], &want[1]};
    size_t views = (BFTI_DELTAS_MAX + 2) * RECORDS;

    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(bfti_list_reserve(&env, all[i], views, 2 * views),
                         BFT_OK);
    for (unsigned round = 0; round < 500; round++) {
        unsigned shape = (unsigned)random_below(RECORD_SHAPES);
        unsigned count = 1 + (unsigned)random_below(BFTI_DELTAS_MAX + 1);
        const struct bfti_run *run[BFTI_DELTAS_MAX + 2];
        const struct bfti_list *merged = &source[0].list;
        bool over = random_below(2);
        size_t records = 0;
        for (unsigned i = 0; i < count + over; i++) {
            source_fill(&source[i], random_below(RECORDS / 4), shape);
            run[i] = (const struct bfti_run *)source[i].image;
            records += source[i].count;
            if (i) {
                bfti_list_merge(&want[i % 2], merged, &source[i].list);
                merged = &want[i % 2];
            }
        }
        assert_int_equal(bfti_runs_records(run, count + over), records);
        bfti_list_runs(&out, over ? &source[0].list : NULL, run + over, count,
                       &tmp, &other);
        assert_int_equal(out.count, merged->count);
        assert_int_equal(out.dead_count, merged->dead_count);
        assert_true(out.dead_count <= bfti_runs_dead(run, count + over));
        for (size_t i = 0; i < out.count; i++) {
            assert_ptr_equal(out.view[i].suffix, merged->view[i].suffix);
            assert_int_equal(out.view[i].op, merged->view[i].op);
        }
    }
    for (unsigned i = 0; i < 5; i++)
        bfti_list_free(&env, all[i]);
    for (unsigned i = 0; i < BFTI_DELTAS_MAX + 2; i++)
        bfti_list_free(&env, &source[i].list);
}

/* One record of KEY over another: the places that are dead then. */
static size_t dead_after(uint8_t new_op, uint64_t new_place, uint8_t old_op,
                         uint64_t old_place, const struct bfti_large *known)
{
    struct bfti_large large[2], room[4];
    struct bfti_view v[2], merged[2];
    static const uint8_t key[] = "k";

    large[0] = (struct bfti_large){le64_of(9), le64_of(new_place)};
    large[1] = (struct bfti_large){le64_of(9), le64_of(old_place)};
    for (unsigned i = 0; i < 2; i++)
        v[i] = (struct bfti_view){.prefix = key,
                                  .suffix = key,
                                  .suffix_len = 1,
                                  .value = (const uint8_t *)(large + i),
                                  .value_len = sizeof *large,
                                  .flags = BFTI_REC_LARGE};
    v[0].op = new_op;
    v[1].op = old_op;
    if (!new_place) {
        v[0].value_len = 0;
        v[0].flags = 0;
    }
    struct bfti_large two[2] = {known[0], known[0]};
    struct bfti_list a = {.view = v, .count = 1, .dead = two, .dead_count = 1};
    struct bfti_list b = {
        .view = v + 1, .count = 1, .dead = two + 1, .dead_count = 1};
    struct bfti_list out = {
        .view = merged, .cap = 2, .dead = room, .dead_cap = 4};
    bfti_list_merge(&out, &a, &b);
    assert_int_equal(out.count, 1);
    return out.dead_count;
}

static void a_superseded_large_put_is_dead_once(void **state)
{
    (void)state;
    struct bfti_large other = {le64_of(9), le64_of(77)};
    struct bfti_large same = {le64_of(9), le64_of(5)};

    /* One dead reference, in both sources, is there anyway. */
    assert_int_equal(dead_after(BFTI_OP_PUT, 6, BFTI_OP_PUT, 5, &other), 2);
    assert_int_equal(dead_after(BFTI_OP_DELETE, 0, BFTI_OP_PUT, 5, &other), 2);
    assert_int_equal(dead_after(BFTI_OP_CACHED, 6, BFTI_OP_PUT, 5, &other), 2);
    /* The newer record holds the place. */
    assert_int_equal(dead_after(BFTI_OP_CACHED, 5, BFTI_OP_PUT, 5, &other), 1);
    assert_int_equal(dead_after(BFTI_OP_PUT, 5, BFTI_OP_PUT, 5, &other), 1);
    /* A copy never owned its value. */
    assert_int_equal(dead_after(BFTI_OP_PUT, 6, BFTI_OP_CACHED, 5, &other), 1);
    /* Known as dead already. */
    assert_int_equal(dead_after(BFTI_OP_PUT, 6, BFTI_OP_PUT, 5, &same), 1);
}

/* --- search, memory ------------------------------------------------------- */

static void search_finds_the_first_at_or_above(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 500; round++) {
        unsigned shape = (unsigned)random_below(RECORD_SHAPES);
        source_fill(&newer, random_below(RECORDS), shape);
        for (unsigned i = 0; i < 200; i++) {
            struct record r;
            record_random_key(&r, shape);
            size_t at = 0;
            while (at < newer.count && record_order(newer.model + at, &r) < 0)
                at++;
            bool there =
                at < newer.count && record_order(newer.model + at, &r) == 0;
            bool found = !there;
            assert_int_equal(
                bfti_list_search(&newer.list, record_key(&r), &found), at);
            assert_true(found == there);
        }
    }
}

static void reserve_keeps_what_is_listed(void **state)
{
    (void)state;
    struct bfti_list list = {0};
    char message[100];

    assert_int_equal(bfti_list_reserve(&env, &list, 0, 0), BFT_OK);
    assert_non_null(list.view); /* to add to */
    assert_null(list.dead);
    assert_int_equal(bfti_list_reserve(&env, &list, 3, 1), BFT_OK);
    memset(list.view, 'v', 3 * sizeof *list.view);
    memset(list.dead, 'd', sizeof *list.dead);
    assert_int_equal(bfti_list_reserve(&env, &list, 2000, 1000), BFT_OK);
    assert_true(list.cap >= 2000);
    assert_true(list.dead_cap >= 1000);
    for (size_t i = 0; i < 3 * sizeof *list.view; i++)
        assert_int_equal(((const char *)list.view)[i], 'v');
    assert_int_equal(((const char *)list.dead)[0], 'd');

    /* Refused, it is what it was; of an impossible size too. */
    size_t cap = list.cap;
    allocs_left = 0;
    assert_int_equal(bfti_list_reserve(&env, &list, 90000, 1), BFT_NO_MEMORY);
    assert_int_equal(bfti_list_reserve(&env, &list, 1, 90000), BFT_NO_MEMORY);
    assert_true(bft_last_error(message, sizeof message) > 0);
    allocs_left = UINT32_MAX;
    assert_int_equal(bfti_list_reserve(&env, &list, SIZE_MAX / 8, 1),
                     BFT_NO_MEMORY);
    assert_int_equal(list.cap, cap);
    assert_int_equal(((const char *)list.view)[0], 'v');
    bfti_list_free(&env, &list);
    assert_null(list.view);
    assert_null(list.dead);
}

static int free_sources(void **state)
{
    (void)state;
    bfti_list_free(&env, &newer.list);
    bfti_list_free(&env, &older.list);
    bfti_list_free(&env, &oldest.list);
    return blocks_held != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merge_agrees_with_plain_arrays),
        cmocka_unit_test(merges_in_either_order_agree),
        cmocka_unit_test(runs_are_merged_as_lists_are),
        cmocka_unit_test(a_superseded_large_put_is_dead_once),
        cmocka_unit_test(search_finds_the_first_at_or_above),
        cmocka_unit_test(reserve_keeps_what_is_listed),
    };
    random_start();
    return cmocka_run_group_tests(tests, NULL, free_sources);
}
