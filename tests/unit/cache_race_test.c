/*
 * A thread that is stopped while it forgets a leaf, or makes one of its pages: others
 * read what was there, and put as much as they like.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#ifndef NDEBUG

#include "engine_fixture.h"
#include "park.h"
#include "random.h"

enum { BUDGET = 256 << 10, VALUE = 60, KEYS = 3000, PUTS = 20000 };

struct race {
    struct engine_fixture *f;
    bft_tree *tree;
    uint64_t random;
    _Atomic unsigned newest[KEYS]; /* begun; 0: none */
    _Atomic unsigned done[KEYS];   /* has ended */
};

struct text {
    char chars[32];
};

static bft_slice key_of(struct text *text, const char *kind, uint64_t n)
{
    int len = snprintf(text->chars, sizeof(text->chars), "%s%012llu", kind,
                       (unsigned long long)n);
    return (bft_slice){text->chars, (size_t)len};
}

static bft_status put(bft_tree *tree, bft_slice key, unsigned n)
{
    char value[VALUE];
    memset(value, (int)n, sizeof(value));
    memcpy(value, &n, sizeof(n));
    return bft_put(tree, key, (bft_slice){value, VALUE});
}

/* Puts of one thread, until it is stopped, and then the rest. */
static void put_many(void *arg)
{
    struct race *r = arg;
    for (unsigned n = 1; n <= PUTS; n++) {
        unsigned key = (unsigned)(random_of(&r->random) >> 20) % KEYS;
        struct text text;
        atomic_store(&r->newest[key], n);
        expect_ok(put(r->tree, key_of(&text, "a", key), n));
        atomic_store(&r->done[key], n);
    }
}

/* What was put is there as it was put last, or it is gone. */
static unsigned look_at_all(struct race *r)
{
    unsigned found = 0;
    for (unsigned key = 0; key < KEYS; key++) {
        unsigned least = atomic_load(&r->done[key]), n;
        char value[VALUE];
        struct text text;
        size_t len;
        bft_status status =
            bft_get(r->tree, key_of(&text, "a", key), value, VALUE, &len);
        if (status == BFT_NOT_FOUND)
            continue;
        expect_ok(status);
        memcpy(&n, value, sizeof(n));
        assert_in_range(n, least, atomic_load(&r->newest[key]));
        assert_int_not_equal(0, n);
        found++;
    }
    return found;
}

static void stopped_at(const char *point, unsigned skip)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    static struct race r;
    struct parked parked;
    bft_tree *other;
    bft_stats stats;
    uint64_t random = 3;
    memset(&r, 0, sizeof(r));
    r.f = f;
    f->options.storage = BFT_STORAGE_CACHE;
    f->options.durability = BFT_NONE;
    f->options.memory_bytes = BUDGET;
    f->options.leaf_bytes = 1024;
    f->options.no_threads = true;
    engine_open(f);
    r.tree = engine_tree(f, "a", 0);
    assert_true(park_start(&parked, point, skip, put_many, &r));
    assert_true(look_at_all(&r) > 0);
    other = engine_tree(f, "b", 0);
    for (unsigned n = 0; n < 4 * BUDGET / VALUE; n++) {
        struct text text;
        expect_ok(put(other, key_of(&text, "b", random_of(&random) >> 30), n));
    }
    (void)look_at_all(&r);
    stats = engine_stats(f);
    assert_in_range(stats.memory_used_bytes, 1,
                    BUDGET + BUDGET / 8 + 2 * (64 << 10));
    park_end(&parked);
    (void)look_at_all(&r);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void a_stopped_thread_stops_nobody(void **state)
{
    static const char *const points[] = {
        "forget:built", "forget:swung",   "evict:forgotten", "fold:built",
        "fold:swung",   "absorb:written", "absorb:left-set", "absorb:forwarded",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(points) / sizeof(*points); i++)
        for (unsigned skip = 0; skip < 80; skip += 40) {
            print_message("%s, %u\n", points[i], skip);
            stopped_at(points[i], skip);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stopped_thread_stops_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0;
}

#endif
