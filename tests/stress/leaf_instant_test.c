/*
 * Whoever looks at many records of a leaf sees it as of one instant: all of a
 * batch, or none, also while the batch's records are being appended.
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
#include <stdatomic.h>

#include "engine_fixture.h"

enum { PLACES = 7, MOVES_MIN = 2000, COUNTS = 400000 };

struct shuttle {
    bft_tree *tree;
    _Atomic bool stop;
    _Atomic uint64_t moves;
    bft_status status;
};

static bft_slice key_of(char buf[16], unsigned i)
{
    return (bft_slice){buf, (size_t)snprintf(buf, 16, "place-%u", i % PLACES)};
}

/* One record goes from key to key, by a batch each time. */
static void *shuttle_main(void *arg)
{
    struct shuttle *s = arg;
    bft_batch *batch;
    s->status = bft_batch_create(bft_tree_db(s->tree), &batch);
    for (unsigned i = 0; s->status == BFT_OK && !atomic_load(&s->stop); i++) {
        char from[16], to[16];
        bft_slice value = {"there", 5};
        s->status = bft_batch_delete(batch, s->tree, key_of(from, i));
        if (s->status == BFT_OK)
            s->status = bft_batch_put(batch, s->tree, key_of(to, i + 1), value);
        if (s->status == BFT_OK)
            s->status = bft_batch_commit(batch, BFT_DEFAULT, NULL);
        atomic_fetch_add(&s->moves, 1);
    }
    bft_batch_free(batch);
    return NULL;
}

static void a_leaf_is_counted_as_of_one_instant(void **state)
{
    struct engine_fixture *f = engine_fixture_open(ENGINE_MEMORY);
    struct shuttle s = {.tree = engine_tree(f, "t", 4096)};
    bft_slice none = {NULL, 0};
    pthread_t thread;
    char kbuf[16];
    (void)state;
    expect_ok(bft_put(s.tree, key_of(kbuf, 0), (bft_slice){"there", 5}));
    assert_int_equal(0, pthread_create(&thread, NULL, shuttle_main, &s));
    for (unsigned i = 0; i < COUNTS || atomic_load(&s.moves) < MOVES_MIN; i++) {
        uint64_t count;
        expect_ok(bft_count(s.tree, none, none, &count));
        if (count != 1)
            fail_msg("count %u of a tree with one record is %llu", i,
                     (unsigned long long)count);
    }
    atomic_store(&s.stop, true);
    assert_int_equal(0, pthread_join(thread, NULL));
    assert_int_equal(BFT_OK, s.status);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_leaf_is_counted_as_of_one_instant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
