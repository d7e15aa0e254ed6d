/*
 * Backups that are stopped between two steps while others write: what was
 * written before the image was complete is in the copy, as a whole, and what
 * the copy is made from stays although the database has no more use for it.
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

#include "backup_model.h"
#include "fileio/fault.h"
#include "park.h"
#include "random.h"

#ifndef NDEBUG

struct race {
    struct engine_fixture *f;
    struct model *model, *then;
    unsigned stops;
    const char *point;
};

/* Of the thread that makes the backup, and of no other. */
static _Thread_local struct race *racing;

static void churn(struct race *race)
{
    for (int i = 0; i < 4; i++) {
        model_change(race->model, race->f->db, 300);
        expect_ok(bft_checkpoint(race->f->db));
    }
    model_truncate(race->model, race->f->db, 1);
    expect_ok(bft_checkpoint(race->f->db));
    expect_ok(bft_checkpoint(race->f->db));
    model_change(race->model, race->f->db, 500);
}

static void *at_point(void *arg)
{
    struct race *race = arg;
    if (strcmp(race->point, "backup:held") == 0) {
        churn(race);
        return NULL;
    }
    /* Its end is not in the log that the copy gets; a later stage's may be. */
    if (strcmp(race->point, "checkpoint:synced") == 0) {
        if (race->then)
            model_free(race->then);
        race->then = model_copy(race->model);
    }
    model_change(race->model, race->f->db, 210);
    return NULL;
}

static void others_go_on(const char *point)
{
    static const char *const points[] = {
        "checkpoint:cut",     "checkpoint:gathered", "checkpoint:structure",
        "checkpoint:written", "checkpoint:synced",   "backup:held"};
    struct race *race = racing;
    pthread_t thread;
    for (size_t i = 0; race && i < sizeof(points) / sizeof(*points); i++) {
        if (strcmp(point, points[i]) != 0)
            continue;
        racing = NULL;
        race->point = point;
        race->stops++;
        assert_int_equal(0, pthread_create(&thread, NULL, at_point, race));
        assert_int_equal(0, pthread_join(thread, NULL));
        racing = race;
    }
}

static void the_log_makes_the_image_whole(void **state)
{
    uint64_t seed = random_start();
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = engine_fixture_make((enum engine_backend)b);
        struct race race = {.f = f, .model = model_make(seed + (uint64_t)b)};
        char path[300];
        f->options.no_threads = true; /* no checkpoint but those here */
        f->options.memory_bytes = 4 << 20;
        f->options.log_bytes = 16 << 20;
        engine_open(f);
        model_change(race.model, f->db, 3000);
        racing = &race;
        atomic_store(&bfti_park, others_go_on);
        expect_ok(bft_backup(f->db, backup_path(f, path), NULL));
        atomic_store(&bfti_park, NULL);
        racing = NULL;
        assert_true(race.stops >= 6);
        for (int round = 0; round < 2; round++) {
            bft_db *copy = backup_open(f, path, round == 0);
            bft_stats stats = {.size = sizeof(stats)};
            expect_ok(bft_stats_read(copy, &stats));
            if (round == 0)
                assert_true(stats.recovered_frames > 500);
            model_check(race.then, copy);
            expect_ok(bft_verify(copy));
            expect_ok(bft_close(copy));
        }
        model_check(race.model, f->db);
        expect_ok(bft_verify(f->db));
        model_free(race.then);
        model_free(race.model);
        backup_remove(f, path);
        engine_fixture_free(f);
    }
}

enum { LEAF = 512, LAST = 1999 };

static bft_slice key_of(char buf[16], unsigned i)
{
    return (bft_slice){buf, (size_t)snprintf(buf, 16, "key-%06u", i)};
}

/* Put record I and write its leaf. */
static void write_leaf(struct engine_fixture *f, bft_tree *tree, unsigned i)
{
    struct bfti_buffer *buffer = &f->db->engine->buffer;
    char buf[16];
    bool done;
    expect_ok(bft_put(tree, key_of(buf, i), (bft_slice){buf, sizeof(buf)}));
    for (unsigned n = 0; n < 400; n++)
        expect_ok(
            bfti_evict_one(buffer, bfti_rec_current(buffer->threads), &done));
}

/* What is on the disk of record I's leaf. */
static uint64_t place_of(const struct engine_fixture *f, bft_tree *tree,
                         unsigned i)
{
    char buf[16];
    const struct bfti_inner *root = bfti_tree_root(bfti_handle_tree(tree));
    uint64_t word = bfti_entry_word(bfti_table_entry(
        f->db->engine->buffer.table, bfti_inner_find(root, key_of(buf, i))));
    assert_true(bfti_word_on_disk(word));
    return word;
}

static void run_backup(void *arg)
{
    struct engine_fixture *f = arg;
    char path[300];
    expect_ok(bft_backup(f->db, backup_path(f, path), NULL));
}

static void run_verify(void *arg)
{
    struct engine_fixture *f = arg;
    expect_ok(bft_verify(f->db));
}

/* An extent that verify has met is not reused before its end, though nothing leads
 * to it any more and no image has it: the backup that ends is no checkpoint. */
static void the_end_of_a_backup_disturbs_no_verify(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    struct parked backup, verify;
    char buf[16], path[300];
    bft_tree *tree;
    uint64_t met, held;
    (void)state;
    f->options.no_threads = true;
    f->options.promote_percent = 101;
    f->options.log_bytes = 16 << 20;
    engine_open(f);
    tree = engine_tree(f, "t", LEAF);
    for (unsigned i = 0; i <= LAST; i++)
        expect_ok(bft_put(tree, key_of(buf, i), (bft_slice){buf, sizeof(buf)}));
    assert_true(park_start(&backup, "backup:held", 0, run_backup, f));
    write_leaf(f, tree, 0);
    assert_true(park_start(&verify, "verify:leaf-met", 20, run_verify, f));
    met = place_of(f, tree, 0);
    write_leaf(f, tree, 0); /* nothing leads there any more */
    assert_true(place_of(f, tree, 0) != met);
    held = engine_stats(f).held_bytes;
    assert_true(held > 0);
    park_end(&backup);
    assert_int_equal(held, engine_stats(f).held_bytes);
    for (unsigned i = LAST; i > LAST - 200; i -= 10)
        write_leaf(f, tree, i);
    park_end(&verify);
    expect_ok(bft_checkpoint(f->db)); /* what the backup's end left, too */
    expect_ok(bft_checkpoint(f->db));
    assert_true(engine_stats(f).held_bytes < held);
    backup_remove(f, backup_path(f, path));
    engine_fixture_free(f);
}

#else
static void the_end_of_a_backup_disturbs_no_verify(void **state)
{
    (void)state;
    skip();
}

static void the_log_makes_the_image_whole(void **state)
{
    (void)state;
    skip(); /* no PARK points in this build */
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_log_makes_the_image_whole),
        cmocka_unit_test(the_end_of_a_backup_disturbs_no_verify),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
