/*
 * The least memory, and leaves of which a few fill it: writes, batches that want an
 * eighth of it at once and checkpoints come to an end, with all that they are to
 * have left.  Whether they have at all is the model test's business.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "random.h"

enum { SEEDS = 20, KEY_MAX = 640, VALUE_MAX = 3000, BATCH_MAX = 40 };

struct life {
    struct engine_fixture *f;
    uint64_t random;
    bft_tree *tree;
    bft_batch *batch;
    unsigned keys, values; /* numbers of keys, lengths of values */
    size_t key_len;
    uint8_t value[VALUE_MAX];
    char key[KEY_MAX];
};

static unsigned drawn(struct life *life, unsigned below)
{
    return (unsigned)((random_of(&life->random) >> 20) % below);
}

static bft_slice draw_key(struct life *life)
{
    char number[9];
    (void)snprintf(number, sizeof(number), "%08u", drawn(life, life->keys));
    memcpy(life->key + life->key_len - 8, number, 8);
    return (bft_slice){life->key, life->key_len};
}

static bft_slice draw_value(struct life *life)
{
    size_t len = drawn(life, life->values);
    memset(life->value, (int)drawn(life, 256), len);
    return (bft_slice){life->value, len};
}

static void write_batch(struct life *life)
{
    unsigned n = 2 + drawn(life, BATCH_MAX);
    bft_status status = BFT_OK;
    while (status == BFT_OK && n--)
        status = bft_batch_put(life->batch, life->tree, draw_key(life),
                               draw_value(life));
    if (status == BFT_OK)
        status = bft_batch_commit(life->batch, BFT_NONE, NULL);
    else
        bft_batch_clear(life->batch);
    if (status != BFT_TOO_BIG) /* an eighth of the budget is the limit */
        expect_ok(status);
}

static void live(uint64_t seed)
{
    struct life *life = calloc(1, sizeof(*life));
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    unsigned steps;
    life->f = f;
    life->random = seed;
    f->options.no_threads = true;
    f->options.memory_bytes = 256 << 10;
    f->options.log_bytes = 4 << 20;
    engine_open(f);
    life->tree = engine_tree(f, "t", drawn(life, 4) ? 32768 : 16384);
    expect_ok(bft_batch_create(f->db, &life->batch));
    life->keys = 50 + drawn(life, 2000);
    life->values = 16 + drawn(life, drawn(life, 2) ? 200 : VALUE_MAX - 16);
    life->key_len = 8 + drawn(life, drawn(life, 3) ? 8 : 600);
    memset(life->key, 'k', KEY_MAX);
    steps = 300 + drawn(life, 1000);
    while (steps--) {
        if (drawn(life, 10) < 6)
            expect_ok(bft_put(life->tree, draw_key(life), draw_value(life)));
        else
            write_batch(life);
        if (drawn(life, 400) == 0)
            expect_ok(bft_checkpoint(f->db));
    }
    bft_batch_free(life->batch);
    expect_ok(bft_checkpoint(f->db));
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
    free(life);
}

/* Two leaves whose pages together are more than one page takes. */
static void what_once_failed_does_not(void **state)
{
    (void)state;
    live(1131);
}

static void memory_suffices(void **state)
{
    uint64_t seed = random_start();
    (void)state;
    for (unsigned i = 0; i < SEEDS; i++)
        live(seed + i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_once_failed_does_not),
        cmocka_unit_test(memory_suffices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
