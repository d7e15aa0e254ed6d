/* What has expired is removed beside writers: a put that comes between the look
 * at a leaf and the removal survives, and who is stopped in a leaf is passed by. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "index/expiry.h"
#include "park.h"

static const bft_slice KEY = {"k", 1}, OTHER = {"o", 1};
static _Atomic uint64_t clock_ms;

static uint64_t wall_ms(void *ctx)
{
    (void)ctx;
    return atomic_load(&clock_ms);
}

struct removal {
    bft_tree *tree;
    uint64_t removed;
};

static void run(void *arg)
{
    struct removal *r = arg;
    expect_ok(bft_remove_expired(r->tree, &r->removed));
}

static void a_newer_record_is_not_removed(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    bft_tree_options options = {.size = sizeof(options), .ttl_ms = 1000};
    struct parked parked;
    struct removal r = {.removed = 0};
    char buf[8];
    size_t len;
    (void)state;
    f->options.no_threads = true;
    f->env.wall_ms = wall_ms;
    atomic_store(&clock_ms, 1000);
    engine_open(f);
    expect_ok(bft_tree_open(f->db, "t", &options, &r.tree));
    expect_ok(bft_put(r.tree, KEY, KEY));
    expect_ok(bft_put(r.tree, OTHER, KEY));
    atomic_store(&clock_ms, 2000);
    assert_true(park_start(&parked, "purge:chosen", 0, run, &r));
    expect_ok(bft_insert(r.tree, KEY, OTHER));
    park_end(&parked);
    assert_int_equal(1, r.removed);
    expect_ok(bft_get(r.tree, KEY, buf, sizeof(buf), &len));
    assert_int_equal(1, len);
    assert_int_equal('o', buf[0]);
    engine_fixture_free(f);
}

static void put_other(void *tree)
{
    expect_ok(bft_put(tree, OTHER, OTHER));
}

/* Else the thread that makes room would wait as long as he does. */
static void a_stopped_writer_stops_no_pass(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    bft_tree_options options = {.size = sizeof(options), .ttl_ms = 1000};
    bft_tree *first, *second;
    struct bfti_rec *rec;
    struct parked parked;
    (void)state;
    f->options.no_threads = true;
    f->env.wall_ms = wall_ms;
    atomic_store(&clock_ms, 1000);
    engine_open(f);
    rec = bfti_rec_current(f->db->engine->buffer.threads);
    expect_ok(bft_tree_open(f->db, "t", &options, &first));
    expect_ok(bft_tree_open(f->db, "u", &options, &second));
    expect_ok(bft_put(first, KEY, KEY));
    expect_ok(bft_put(second, KEY, KEY));
    atomic_store(&clock_ms, 2000);
    assert_true(park_start(&parked, "write:logged", 0, put_other, first));
    expect_ok(bfti_purge(f->db->engine, rec, 16));
    assert_int_equal(1, engine_stats(f).expired_removed);
    park_end(&parked);
    /* The next pass comes to it, as soon as there is one. */
    expect_ok(bfti_purge(f->db->engine, rec, 16));
    assert_int_equal(1, engine_stats(f).expired_removed);
    atomic_store(&clock_ms, 3000);
    expect_ok(bfti_purge(f->db->engine, rec, 16));
    assert_int_equal(3, engine_stats(f).expired_removed);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_newer_record_is_not_removed),
        cmocka_unit_test(a_stopped_writer_stops_no_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
