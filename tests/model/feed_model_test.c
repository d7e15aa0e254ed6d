/*
 * Random changes of every kind, on every backend, and a copy made from the feed
 * alone: whenever all is durable the copy is the database, whatever was
 * checkpointed, closed, or lost in a crash meanwhile.
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
#include "feed_copy.h"
#include "random.h"
#include "tally.h"

enum { TREES = 4, KEYS = 300, STEPS = 3000, HOLD = 64 << 20 };

struct run {
    struct engine_fixture *f;
    bft_feed *feed;
    struct feed_copy copy;
    unsigned reopened, gone;
    uint64_t commits, unread;
};

#define expect_copy(run, call)                 \
    do {                                       \
        if (!(call))                           \
            fail_msg("%s", (run)->copy.error); \
    } while (0)

static bft_slice random_key(char buf[32])
{
    int len = snprintf(buf, 32, "key%03zu", random_below(KEYS));
    return (bft_slice){buf, (size_t)len};
}

static bft_slice random_value(uint8_t *buf)
{
    static const size_t longest[] = {20, 20, 20, 20, 300, 300, 8000, 1500000};
    size_t kind = random_below(8);
    size_t len;
    if (kind == 7 && random_below(10))
        kind = 0;
    len = random_below(longest[kind]);
    random_bytes(buf, len < 64 ? len : 64);
    return (bft_slice){buf, len};
}

static bft_tree *random_tree(struct run *r)
{
    char name[8];
    snprintf(name, sizeof(name), "t%zu", random_below(TREES));
    return engine_tree(r->f, name, 512);
}

static void random_batch(struct run *r, uint8_t *buf)
{
    bft_batch *batch;
    char key[32];
    size_t count = 1 + random_below(20);
    bft_durability how = random_below(2) ? BFT_SYNC : BFT_BUFFERED;
    expect_ok(bft_batch_create(r->f->db, &batch));
    for (size_t i = 0; i < count; i++) {
        bft_tree *tree = random_tree(r);
        if (random_below(4) == 0) {
            expect_ok(bft_batch_delete(batch, tree, random_key(key)));
        } else {
            bft_slice value = {buf, random_below(200)};
            random_bytes(buf, 16);
            expect_ok(bft_batch_put(batch, tree, random_key(key), value));
        }
    }
    expect_ok(bft_batch_commit(batch, how, NULL));
    bft_batch_free(batch);
}

static void random_tree_change(struct run *r)
{
    char name[8], other[8];
    bft_status status;
    snprintf(name, sizeof(name), "t%zu", random_below(TREES));
    snprintf(other, sizeof(other), "t%zu", random_below(TREES));
    (void)random_tree(r);
    switch (random_below(3)) {
    case 0:
        status = bft_tree_drop(r->f->db, name);
        break;
    case 1:
        status = bft_tree_truncate(r->f->db, name);
        break;
    default:
        status = bft_tree_rename(r->f->db, name, other);
        break;
    }
    assert_true(status == BFT_OK || status == BFT_NOT_FOUND ||
                status == BFT_EXISTS);
}

static bft_status open_feed(struct run *r)
{
    bft_feed_options o = {.size = sizeof(o), .hold_bytes = HOLD};
    return bft_feed_open(r->f->db, r->copy.lsn, &o, &r->feed);
}

/* Everything is durable: is the copy all of it? */
static void settle(struct run *r)
{
    expect_ok(bft_sync(r->f->db));
    expect_copy(r, feed_copy_catch_up(&r->copy, r->feed));
    assert_true(bft_durable_lsn(r->f->db) == r->copy.lsn);
    expect_copy(r, feed_copy_is(&r->copy, r->f->db));
}

/* Close or crash, and open again; sometimes the feed lags behind then. */
static void restart(struct run *r)
{
    bool crash = r->f->backend == ENGINE_SIM && random_below(3);
    if (random_below(2))
        settle(r);
    if (random_below(2)) {
        bft_feed_close(r->feed);
        r->feed = NULL;
    }
    if (crash)
        engine_crash(r->f,
                     (enum bfti_sim_policy)random_below(BFTI_SIM_POLICIES),
                     random_next());
    else
        engine_reopen(r->f);
    bft_feed_close(r->feed);
    r->reopened++;
    r->commits += r->copy.commits;
    r->unread += r->copy.unread;
    r->copy.commits = r->copy.unread = 0;
}

static void step(struct run *r, uint8_t *buf)
{
    char key[32];
    bft_status status;
    switch (random_below(20)) {
    case 0:
        random_tree_change(r);
        break;
    case 1:
    case 2:
        random_batch(r, buf);
        break;
    case 3:
    case 4:
        expect_ok(bft_delete(random_tree(r), random_key(key)));
        break;
    case 5:
        status = bft_insert(random_tree(r), random_key(key), random_value(buf));
        assert_true(status == BFT_OK || status == BFT_EXISTS);
        break;
    case 6:
        if (random_below(4) == 0)
            expect_ok(bft_checkpoint(r->f->db));
        break;
    case 7:
        expect_copy(r, feed_copy_catch_up(&r->copy, r->feed));
        break;
    case 8:
        if (random_below(10) == 0)
            settle(r);
        break;
    default:
        expect_ok(bft_put(random_tree(r), random_key(key), random_value(buf)));
        break;
    }
}

/* After a restart that dropped what the copy had not read, it begins anew, from
 * a database that is emptied. */
static void begin(struct run *r)
{
    char name[8];
    assert_true(r->copy.lsn < bft_feed_lowest(r->f->db));
    for (unsigned i = 0; i < TREES; i++) {
        bft_status status;
        snprintf(name, sizeof(name), "t%u", i);
        status = bft_tree_drop(r->f->db, name);
        assert_true(status == BFT_OK || status == BFT_NOT_FOUND);
    }
    expect_ok(bft_sync(r->f->db));
    feed_copy_free(&r->copy);
    expect_ok(bft_feed_open(r->f->db, BFT_FEED_NOW, NULL, &r->feed));
    r->copy.lsn = bft_feed_lsn(r->feed);
    bft_feed_close(r->feed);
    expect_ok(open_feed(r));
}

static void lives(struct run *r)
{
    uint8_t *buf = calloc(1, 1500000);
    assert_non_null(buf);
    expect_ok(open_feed(r));
    for (unsigned i = 0; i < STEPS; i++) {
        bft_status status;
        step(r, buf);
        if (random_below(200))
            continue;
        restart(r);
        /* The hold went with the old life: what the copy lacks may be gone. */
        status = open_feed(r);
        if (status != BFT_GONE) {
            expect_ok(status);
            continue;
        }
        r->gone++;
        begin(r);
    }
    settle(r);
    expect_ok(bft_verify(r->f->db));
    bft_feed_close(r->feed);
    free(buf);
}

static void the_feed_makes_a_copy(void **state)
{
    (void)state;
    random_start();
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct run r = {.f = engine_fixture_make((enum engine_backend)b)};
        r.f->options.memory_bytes = 8 << 20;
        r.f->options.log_bytes = 256 << 10;
        engine_open(r.f);
        lives(&r);
        print_message("%s: %llu commits, %u restarts, %u too late, %llu values "
                      "replaced before they were read\n",
                      engine_backend_name(r.f->backend),
                      (unsigned long long)(r.commits + r.copy.commits),
                      r.reopened, r.gone,
                      (unsigned long long)(r.unread + r.copy.unread));
        tally(TALLY_OPERATIONS, STEPS);
        feed_copy_free(&r.copy);
        engine_fixture_free(r.f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_feed_makes_a_copy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
