/*
 * Threads look for keys of their own, which are there or not as they left them,
 * in leaves that they share: what comes and goes there, splits and moves is the
 * others' doing, and most of it is on disk.  No answer may be another.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "engine_fixture.h"
#include "random.h"

enum {
    THREADS = 4,
    KEYS = 3000, /* of a thread, every THREADS'th of all */
    STEPS = 25000,
    VALUE = 40,
    MANY = 16,
    LEAF = 1024,
};

struct owner {
    struct engine_fixture *f;
    bft_tree *tree;
    unsigned id;
    uint64_t random;
    bool there[KEYS];
    pthread_t thread;
};

static bft_slice key_of(const struct owner *o, char buf[24], unsigned i)
{
    return (bft_slice){
        buf, (size_t)snprintf(buf, 24, "key-%06u", i * THREADS + o->id)};
}

static void get(const struct owner *o, unsigned i)
{
    char kbuf[24], value[VALUE];
    size_t len;
    expect_status(
        o->there[i] ? BFT_OK : BFT_NOT_FOUND,
        bft_get(o->tree, key_of(o, kbuf, i), value, sizeof(value), &len));
}

static void get_many(const struct owner *o, unsigned from)
{
    char kbuf[MANY][24], value[MANY][VALUE];
    bft_answer answer[MANY];
    memset(answer, 0, sizeof(answer));
    for (unsigned i = 0; i < MANY; i++) {
        answer[i].key = key_of(o, kbuf[i], (from + i * 3) % KEYS);
        answer[i].buf = value[i];
        answer[i].buf_len = VALUE;
    }
    expect_ok(bft_multi_get(o->tree, answer, MANY));
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(o->there[(from + i * 3) % KEYS] ? BFT_OK
                                                         : BFT_NOT_FOUND,
                         answer[i].status);
}

static void change(struct owner *o, unsigned i)
{
    char kbuf[24], value[VALUE] = {0};
    bft_slice key = key_of(o, kbuf, i), bytes = {value, VALUE};
    switch (random_of(&o->random) % 3) {
    case 0:
        expect_ok(bft_put(o->tree, key, bytes));
        o->there[i] = true;
        break;
    case 1:
        expect_status(o->there[i] ? BFT_EXISTS : BFT_OK,
                      bft_insert(o->tree, key, bytes));
        o->there[i] = true;
        break;
    default:
        expect_ok(bft_delete(o->tree, key));
        o->there[i] = false;
    }
}

static void *own(void *arg)
{
    struct owner *o = arg;
    for (unsigned step = 0; step < STEPS; step++) {
        /* Together they go through the keys, a stretch at a time, and leave what
         * is behind them to be evicted. */
        unsigned stretch = step / 500 * 97;
        unsigned i = (stretch + (unsigned)(random_of(&o->random) % 400)) % KEYS;
        if (random_of(&o->random) % 4 == 0)
            change(o, i);
        else if (random_of(&o->random) % 8 == 0)
            get_many(o, (unsigned)(random_of(&o->random) % KEYS));
        else
            get(o, random_of(&o->random) % 2
                       ? i
                       : (unsigned)(random_of(&o->random) % KEYS));
        if (o->id == 0 && step % 5000 == 4999)
            expect_ok(bft_checkpoint(o->f->db));
    }
    return NULL;
}

static void nobody_is_told_that_what_is_there_is_not(void **state)
{
    static struct owner owners[THREADS];
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    uint64_t seed = random_start();
    bft_tree *tree;
    (void)state;
    memset(owners, 0, sizeof(owners));
    f->options.memory_bytes = 320 << 10;
    f->options.log_bytes = 1 << 20;
    engine_open(f);
    tree = engine_tree(f, "t", LEAF);
    for (unsigned t = 0; t < THREADS; t++) {
        owners[t] = (struct owner){
            .f = f, .tree = tree, .id = t, .random = seed + UINT64_C(977) * t};
        assert_int_equal(
            0, pthread_create(&owners[t].thread, NULL, own, &owners[t]));
    }
    for (unsigned t = 0; t < THREADS; t++)
        assert_int_equal(0, pthread_join(owners[t].thread, NULL));
    for (unsigned t = 0; t < THREADS; t++)
        for (unsigned i = 0; i < KEYS; i++)
            get(&owners[t], i);
    print_message("           %llu reads spared, %llu read\n",
                  (unsigned long long)engine_stats(f).filter_hits,
                  (unsigned long long)engine_stats(f).page_misses);
    assert_true(engine_stats(f).filter_hits > STEPS / 100);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_is_told_that_what_is_there_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
