#include "feed_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

bft_slice feed_text(const char *chars)
{
    return (bft_slice){chars, strlen(chars)};
}

bool feed_is(bft_slice a, const char *b)
{
    return a.len == strlen(b) && memcmp(a.data, b, a.len) == 0;
}

struct engine_fixture *feed_open_durable(int backend)
{
    struct engine_fixture *f =
        engine_fixture_make((enum engine_backend)backend);
    f->options.memory_bytes = 16 << 20;
    f->options.log_bytes = 16 << 20;
    f->options.durability = BFT_SYNC;
    engine_open(f);
    return f;
}

struct engine_fixture *feed_open_idle(int backend)
{
    struct engine_fixture *f =
        engine_fixture_make((enum engine_backend)backend);
    f->options.memory_bytes = 16 << 20;
    f->options.log_bytes = 16 << 20;
    f->options.no_threads = true;
    engine_open(f);
    return f;
}

bft_feed *feed_at(struct engine_fixture *f, uint64_t lsn)
{
    bft_feed *feed;
    expect_ok(bft_feed_open(f->db, lsn, NULL, &feed));
    return feed;
}

bft_commit feed_next_commit(bft_feed *feed)
{
    bft_commit commit;
    expect_ok(bft_feed_next(feed, 0, &commit));
    assert_true(commit.count > 0);
    assert_true(commit.lsn == bft_feed_lsn(feed));
    return commit;
}

const bft_change *feed_next_change(bft_feed *feed, bft_change_op op)
{
    bft_commit commit = feed_next_commit(feed);
    assert_int_equal(1, commit.count);
    assert_int_equal(op, commit.changes[0].op);
    return commit.changes;
}

void feed_at_end(bft_feed *feed)
{
    bft_commit commit = {1, NULL, 1};
    expect_status(BFT_NOT_FOUND, bft_feed_next(feed, 0, &commit));
    assert_true(commit.lsn == 0 && commit.count == 0 && !commit.changes);
}

void feed_put_some(bft_tree *tree, unsigned from, unsigned count)
{
    static uint8_t value[1000];
    for (unsigned n = from; n < from + count; n++) {
        char key[16];
        snprintf(key, sizeof(key), "%08u", n);
        expect_ok(
            bft_put(tree, feed_text(key), (bft_slice){value, sizeof(value)}));
    }
}

uint32_t feed_tree_id(bft_tree *tree)
{
    uint32_t id;
    expect_ok(bft_tree_id(tree, &id));
    assert_int_not_equal(0, id);
    return id;
}

void feed_put_k(void *arg)
{
    expect_ok(bft_put(arg, feed_text("k"), feed_text("v")));
}
