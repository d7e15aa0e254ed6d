/*
 * Multi-gets and scans that read ahead while others write, checkpoint, evict and
 * move leaves in the file: no answer is older than what was acknowledged before
 * the call, and each is its key's.
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

enum { KEYS = 4000, WRITERS = 2, READERS = 2, ASKED = 60, ROWS = 200 };

/* A value is its key and a version, again and again. */
enum { VALUE = 64 };

static struct {
    struct engine_fixture *f;
    bft_tree *tree;
    _Atomic uint32_t version[KEYS]; /* acknowledged */
    _Atomic bool stop;
    _Atomic uint64_t checked;
} world;

struct thread {
    pthread_t thread;
    unsigned number;
    uint64_t random;
};

static bft_slice key_of(char text[16], uint32_t k)
{
    return (bft_slice){text, (size_t)snprintf(text, 16, "%08u", k)};
}

static void value_of(uint32_t k, uint32_t version, uint32_t value[VALUE / 4])
{
    for (unsigned i = 0; i < VALUE / 4; i += 2) {
        value[i] = k;
        value[i + 1] = version;
    }
}

static void put(uint32_t k, uint32_t version)
{
    char text[16];
    uint32_t value[VALUE / 4];
    value_of(k, version, value);
    expect_ok(bft_put(world.tree, key_of(text, k), (bft_slice){value, VALUE}));
    atomic_store(&world.version[k], version);
}

/* BYTES is a whole value of K, of version LEAST or later. */
static void check(uint32_t k, uint32_t least, const void *bytes, size_t len)
{
    uint32_t got[VALUE / 4], value[VALUE / 4];
    assert_int_equal(VALUE, len);
    memcpy(got, bytes, VALUE);
    value_of(k, got[1], value);
    assert_memory_equal(value, got, VALUE);
    if (got[1] < least)
        fail_msg("key %u: version %u, and %u was acknowledged before",
                 (unsigned)k, (unsigned)got[1], (unsigned)least);
    atomic_fetch_add(&world.checked, 1);
}

static void *write_on(void *arg)
{
    struct thread *t = arg;
    uint32_t version = 2;
    for (; !atomic_load(&world.stop); version++) {
        uint32_t k = (uint32_t)(random_of(&t->random) % KEYS);
        put(k - k % WRITERS + t->number, version);
    }
    return NULL;
}

static void ask(struct thread *t)
{
    static _Thread_local struct {
        bft_answer item[ASKED];
        uint32_t key[ASKED], least[ASKED];
        char text[ASKED][16];
        uint32_t value[ASKED][VALUE / 4];
    } a;
    for (unsigned i = 0; i < ASKED; i++) {
        a.key[i] = (uint32_t)(random_of(&t->random) % KEYS);
        a.least[i] = atomic_load(&world.version[a.key[i]]);
        a.item[i] = (bft_answer){.key = key_of(a.text[i], a.key[i]),
                                 .buf = a.value[i],
                                 .buf_len = VALUE};
    }
    expect_ok(bft_multi_get(world.tree, a.item, ASKED));
    for (unsigned i = 0; i < ASKED; i++) {
        expect_ok(a.item[i].status);
        check(a.key[i], a.least[i], a.value[i], a.item[i].value_len);
    }
}

static void scan(struct thread *t)
{
    uint32_t from = (uint32_t)(random_of(&t->random) % (KEYS - ROWS));
    uint32_t least[ROWS];
    char text[16];
    bft_cursor *cursor;
    for (uint32_t i = 0; i < ROWS; i++)
        least[i] = atomic_load(&world.version[from + i]);
    expect_ok(bft_cursor_open_newest(world.tree, &cursor));
    expect_ok(bft_cursor_seek(cursor, BFT_GE, key_of(text, from)));
    for (uint32_t i = 0; i < ROWS; i++) {
        bft_slice key, value, want = key_of(text, from + i);
        expect_ok(bft_cursor_record(cursor, &key, &value));
        assert_int_equal(want.len, key.len);
        assert_memory_equal(want.data, key.data, key.len);
        check(from + i, least[i], value.data, value.len);
        if (i + 1 < ROWS)
            expect_ok(bft_cursor_next(cursor));
    }
    bft_cursor_close(cursor);
}

static void *read_on(void *arg)
{
    struct thread *t = arg;
    while (!atomic_load(&world.stop)) {
        if (random_of(&t->random) % 2)
            ask(t);
        else
            scan(t);
    }
    return NULL;
}

static void run(enum engine_backend backend)
{
    struct thread threads[WRITERS + READERS];
    memset(&world, 0, sizeof(world));
    world.f = engine_fixture_make(backend);
    world.f->options.promote_percent = 10;
    engine_slow_reads(world.f, true);
    engine_open(world.f);
    world.tree = engine_tree(world.f, "t", 512);
    for (uint32_t k = 0; k < KEYS; k++)
        put(k, 1);
    for (unsigned i = 0; i < WRITERS + READERS; i++) {
        threads[i].number = i;
        threads[i].random = random_next();
        assert_int_equal(0, pthread_create(&threads[i].thread, NULL,
                                           i < WRITERS ? write_on : read_on,
                                           &threads[i]));
    }
    for (unsigned i = 0; i < 30 || atomic_load(&world.checked) < 20000; i++)
        expect_ok(bft_checkpoint(world.f->db));
    atomic_store(&world.stop, true);
    for (unsigned i = 0; i < WRITERS + READERS; i++)
        assert_int_equal(0, pthread_join(threads[i].thread, NULL));
    expect_ok(bft_verify(world.f->db));
    engine_fixture_free(world.f);
}

static void answers_read_ahead_are_not_old(void **state)
{
    static const enum engine_backend backends[] = {ENGINE_SIM, ENGINE_DIRECT,
                                                   ENGINE_URING};
    (void)state;
    for (size_t b = 0; b < sizeof(backends) / sizeof(backends[0]); b++)
        run(backends[b]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_read_ahead_are_not_old),
    };
    (void)random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
