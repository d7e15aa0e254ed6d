/*
 * Threads put, delete and read in a database that only caches, which holds a small
 * part of it: each finds of its own keys what it put last or nothing, all find of
 * others' keys nothing older than they found before, and memory stays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "engine_fixture.h"
#include "random.h"

enum {
    OWNERS = 3,
    LOOKERS = 2,
    KEYS = 1500, /* of each owner */
    STEPS = 20000,
    VALUE = 80,
    BATCH = 30,
    BUDGET = 256 << 10,
};

struct stress {
    struct engine_fixture *f;
    bft_tree *tree;
    uint32_t leaf_bytes;
    _Atomic unsigned owners;         /* still at work */
    _Atomic uint64_t found, missed;  /* of what was put */
    _Atomic uint64_t shown, checked; /* to those who look */
};

struct worker {
    struct stress *s;
    unsigned self;
    uint64_t random;
    unsigned puts;
    unsigned newest[OWNERS * KEYS]; /* of an owner: what it put; of others: the
                                       newest that they found */
};

static size_t drawn(struct worker *w, size_t limit)
{
    return (size_t)(random_of(&w->random) >> 16) % limit;
}

struct text {
    char chars[32];
};

/* Keys of owners lie among one another. */
static bft_slice key_of(struct text *text, unsigned key)
{
    int len = snprintf(text->chars, sizeof(text->chars), "key-%08u", key);
    return (bft_slice){text->chars, (size_t)len};
}

static unsigned own_key(struct worker *w)
{
    unsigned n = (unsigned)(drawn(w, 4) ? drawn(w, KEYS) : drawn(w, KEYS / 30));
    return n * OWNERS + w->self;
}

struct value {
    uint8_t bytes[VALUE];
};

static bft_slice value_of(struct value *value, unsigned key, unsigned n)
{
    memset(value->bytes, (int)(n + key), VALUE);
    memcpy(value->bytes, &key, 4);
    memcpy(value->bytes + 4, &n, 4);
    return (bft_slice){value->bytes, 8 + n % (VALUE - 8)};
}

/* The number of the put that VALUE is of: whole, and of that key. */
static unsigned number_in(unsigned key, bft_slice found)
{
    struct value value;
    bft_slice expected;
    unsigned n = 0;
    if (found.len >= 8)
        memcpy(&n, (const uint8_t *)found.data + 4, 4);
    expected = value_of(&value, key, n);
    if (expected.len != found.len ||
        memcmp(expected.data, found.data, found.len) != 0)
        fail_msg("key %u has a value that nobody put", key);
    return n;
}

static void look_at_own(struct worker *w, unsigned key)
{
    struct text text;
    struct value value;
    size_t len;
    bft_status status =
        bft_get(w->s->tree, key_of(&text, key), value.bytes, VALUE, &len);
    if (w->newest[key])
        atomic_fetch_add(status == BFT_OK ? &w->s->found : &w->s->missed, 1);
    if (status == BFT_NOT_FOUND) {
        w->newest[key] = 0;
        return;
    }
    expect_ok(status);
    if (number_in(key, (bft_slice){value.bytes, len}) != w->newest[key])
        fail_msg("key %u is not what was put last: %u", key, w->newest[key]);
}

static void put(struct worker *w, unsigned key)
{
    struct text text;
    struct value value;
    w->newest[key] = ++w->puts;
    expect_ok(bft_put(w->s->tree, key_of(&text, key),
                      value_of(&value, key, w->puts)));
}

static void write_batch(struct worker *w)
{
    bft_batch *batch;
    expect_ok(bft_batch_create(w->s->f->db, &batch));
    for (size_t i = 1 + drawn(w, BATCH); i > 0; i--) {
        unsigned key = own_key(w);
        struct text text;
        struct value value;
        bool puts = drawn(w, 4);
        w->newest[key] = puts ? ++w->puts : 0;
        if (puts)
            expect_ok(bft_batch_put(batch, w->s->tree, key_of(&text, key),
                                    value_of(&value, key, w->puts)));
        else
            expect_ok(bft_batch_delete(batch, w->s->tree, key_of(&text, key)));
    }
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    bft_batch_free(batch);
}

/* Only one key lies in the range, as no key of another's is to go. */
static void remove_range(struct worker *w, unsigned key)
{
    struct text low, high;
    w->newest[key] = 0;
    expect_ok(bft_delete_range(w->s->tree, key_of(&low, key),
                               key_of(&high, key + 1), NULL));
}

static void replace(struct worker *w, unsigned key)
{
    struct text text;
    struct value old, value;
    bft_slice was = value_of(&old, key, w->newest[key]);
    bft_slice now = value_of(&value, key, ++w->puts);
    bft_status status = bft_replace(w->s->tree, key_of(&text, key), &was, &now);
    if (status != BFT_OK)
        expect_status(BFT_CONFLICT, status);
    w->newest[key] = status == BFT_OK ? w->puts : 0;
}

static void check_memory(const struct worker *w)
{
    bft_stats stats = engine_stats(w->s->f);
    size_t each = (size_t)16 * w->s->leaf_bytes, most;
    if (each < 64 << 10)
        each = 64 << 10;
    most = BUDGET + BUDGET / 8 + (OWNERS + LOOKERS + 3) * each;
    if (stats.memory_used_bytes > most)
        fail_msg("%llu bytes of memory, and not %zu",
                 (unsigned long long)stats.memory_used_bytes, most);
    if (stats.file_bytes + stats.log_bytes)
        fail_msg("there are files");
}

static void *own(void *arg)
{
    struct worker *w = arg;
    for (unsigned i = 0; i < STEPS; i++) {
        unsigned key = own_key(w);
        size_t what = drawn(w, 100);
        if (what < 45)
            put(w, key);
        else if (what < 75)
            look_at_own(w, key);
        else if (what < 85) {
            struct text text;
            w->newest[key] = 0;
            expect_ok(bft_delete(w->s->tree, key_of(&text, key)));
            look_at_own(w, key);
        } else if (what < 90)
            replace(w, key);
        else if (what < 96)
            write_batch(w);
        else if (what < 98)
            remove_range(w, key);
        else
            check_memory(w);
    }
    atomic_fetch_sub(&w->s->owners, 1);
    return NULL;
}

/* Nothing that is found is older than what was found before. */
static void note(struct worker *w, bft_slice key, bft_slice value)
{
    char text[9] = {0};
    unsigned of, n;
    if (key.len != 12)
        fail_msg("a key of %zu bytes", key.len);
    memcpy(text, (const char *)key.data + 4, 8);
    of = (unsigned)strtoul(text, NULL, 10);
    n = number_in(of, value);
    if (n < w->newest[of])
        fail_msg("key %u is %u, and was %u", of, n, w->newest[of]);
    w->newest[of] = n;
    atomic_fetch_add(&w->s->shown, 1);
}

static void walk(struct worker *w)
{
    bool back = drawn(w, 2);
    size_t steps = drawn(w, 300);
    bft_cursor *cursor;
    struct text text, last = {{0}};
    bft_status status;
    expect_ok(bft_cursor_open_newest(w->s->tree, &cursor));
    status = bft_cursor_seek(cursor, back ? BFT_LT : BFT_GE,
                             key_of(&text, (unsigned)drawn(w, OWNERS * KEYS)));
    for (bool first = true; status == BFT_OK && steps > 0; steps--) {
        bft_slice key, value;
        expect_ok(bft_cursor_record(cursor, &key, &value));
        note(w, key, value);
        if (!first && (memcmp(key.data, last.chars, 12) > 0) == back)
            fail_msg("out of order");
        memcpy(last.chars, key.data, 12);
        first = false;
        status = back ? bft_cursor_prev(cursor) : bft_cursor_next(cursor);
    }
    if (status != BFT_OK)
        expect_status(BFT_NOT_FOUND, status);
    bft_cursor_close(cursor);
}

static void look_at_many(struct worker *w)
{
    enum { MANY = 20 };
    struct text text[MANY];
    struct value value[MANY];
    bft_answer answer[MANY];
    for (int i = 0; i < MANY; i++)
        answer[i] = (bft_answer){
            .key = key_of(&text[i], (unsigned)drawn(w, OWNERS * KEYS)),
            .buf = value[i].bytes,
            .buf_len = VALUE};
    expect_ok(bft_multi_get(w->s->tree, answer, MANY));
    for (int i = 0; i < MANY; i++)
        if (answer[i].status == BFT_OK)
            note(w, answer[i].key,
                 (bft_slice){value[i].bytes, answer[i].value_len});
}

static void *look(void *arg)
{
    struct worker *w = arg;
    while (atomic_load(&w->s->owners)) {
        if (drawn(w, 3))
            look_at_many(w);
        else
            walk(w);
        if (drawn(w, 200) == 0) {
            expect_ok(bft_verify(w->s->f->db));
            atomic_fetch_add(&w->s->checked, 1);
        }
    }
    return NULL;
}

static void run(uint64_t seed, uint32_t leaf_bytes, bool threads)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    struct stress s = {.f = f, .leaf_bytes = leaf_bytes, .owners = OWNERS};
    pthread_t thread[OWNERS + LOOKERS];
    struct worker *w[OWNERS + LOOKERS];
    bft_stats stats;
    f->options.storage = BFT_STORAGE_CACHE;
    f->options.durability = BFT_NONE;
    f->options.memory_bytes = BUDGET;
    f->options.leaf_bytes = leaf_bytes;
    f->options.no_threads = !threads;
    engine_open(f);
    s.tree = engine_tree(f, "t", 0);
    for (unsigned i = 0; i < OWNERS + LOOKERS; i++) {
        w[i] = calloc(1, sizeof(*w[i]));
        assert_non_null(w[i]);
        w[i]->s = &s;
        w[i]->self = i;
        w[i]->random = seed + i;
        assert_int_equal(
            0, pthread_create(&thread[i], NULL, i < OWNERS ? own : look, w[i]));
    }
    for (unsigned i = 0; i < OWNERS + LOOKERS; i++)
        assert_int_equal(0, pthread_join(thread[i], NULL));
    expect_ok(bft_verify(f->db));
    stats = engine_stats(f);
    print_message(
        "leaves of %u: %llu found, %llu gone, %llu shown, %llu leaves "
        "forgotten\n",
        (unsigned)leaf_bytes, (unsigned long long)s.found,
        (unsigned long long)s.missed, (unsigned long long)s.shown,
        (unsigned long long)stats.leaves_forgotten);
    assert_true(s.found > 1000 && s.missed > 100 && s.shown > 100);
    assert_true(stats.leaves_forgotten > 0);
    for (unsigned i = 0; i < OWNERS + LOOKERS; i++)
        free(w[i]);
    engine_fixture_free(f);
}

static void all_find_what_was_put_last_or_nothing(void **state)
{
    uint64_t seed = random_start();
    (void)state;
    run(seed, 512, true);
    run(seed, 4096, true);
    run(seed, 1024, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_find_what_was_put_last_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
