/*
 * A power cut, or a kill, before every step of a backup: the database loses
 * nothing, and the copy is refused as unfinished or is a whole one; and whole it
 * is from the moment that the call has returned.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backup_model.h"
#include "tally.h"

enum { IMAGES = 6000, PUTS = 3, TELLS = 3 };

static const bft_slice NONE = {NULL, 0};

struct shots {
    struct bfti_vfs *sim;
    struct bfti_vfs *image[IMAGES];
    unsigned puts[IMAGES]; /* acknowledged before */
    bool marked[IMAGES];   /* of the copy there was more than its mark */
    bool done[IMAGES];     /* taken after the call had returned */
    unsigned count;
    bool begun, over;
    bft_db *db;
    unsigned tells, put;
};

static void take_one(struct shots *shots, enum bfti_sim_policy policy,
                     uint64_t seed)
{
    if (shots->count == IMAGES)
        return;
    shots->marked[shots->count] = shots->begun;
    shots->done[shots->count] = shots->over;
    shots->puts[shots->count] = shots->put;
    if (bfti_sim_image(shots->sim, policy, seed, &shots->image[shots->count]) !=
        BFT_OK)
        abort();
    shots->count++;
}

static void take(void *arg, const struct bfti_sim_step *step)
{
    struct shots *shots = arg;
    shots->begun = shots->begun || strstr(step->path, "copy/data") != NULL ||
                   strstr(step->path, "copy/log-") != NULL;
    for (unsigned policy = 0; policy < BFTI_SIM_POLICIES; policy++)
        for (uint64_t seed = 0; seed < (policy < BFTI_SIM_PREFIX ? 1 : 3);
             seed++)
            take_one(shots, (enum bfti_sim_policy)policy,
                     step->number * 97 + (uint64_t)policy * 3 + seed);
}

static bft_tree *acknowledged(bft_db *db)
{
    bft_tree *tree;
    expect_ok(bft_tree_open(db, "acknowledged", NULL, &tree));
    return tree;
}

/* Durable commits between the pieces of the copy, and a checkpoint that would
 * give back what the copy needs. */
static bft_status go_on(void *ctx, const bft_backup_progress *now)
{
    struct shots *shots = ctx;
    (void)now;
    if (shots->tells++ >= TELLS)
        return BFT_OK;
    for (unsigned i = 0; i < PUTS; i++) {
        char text[32];
        bft_slice key = model_key(text, shots->put);
        expect_ok(bft_put(acknowledged(shots->db), key, key));
        shots->put++;
    }
    expect_ok(bft_checkpoint(shots->db));
    return BFT_OK;
}

static bft_status open_image(struct engine_fixture *f, struct bfti_vfs *image,
                             const char *path, bft_db **db)
{
    bft_options options = f->options;
    struct bfti_surroundings surroundings = {.env = &f->env, .vfs = image};
    options.internal = &surroundings;
    options.must_exist = true;
    return bft_open(path, &options, db);
}

static void check_copy(struct engine_fixture *f, struct bfti_vfs *image,
                       const struct model *model, uint64_t puts, bool marked,
                       bool done)
{
    char text[400];
    uint64_t count;
    bft_db *db;
    bft_status status = open_image(f, image, "/copy", &db);
    if (status == BFT_OK) {
        model_check(model, db);
        expect_ok(bft_count(acknowledged(db), NONE, NONE, &count));
        assert_true(count <= puts);
        expect_ok(bft_verify(db));
        expect_ok(bft_close(db));
        return;
    }
    bft_last_error(text, sizeof(text));
    assert_false(done);
    if (status == BFT_NOT_FOUND && !marked)
        return;
    expect_status(BFT_CORRUPT, status);
    assert_non_null(strstr(text, "not finished"));
}

static void check_source(struct engine_fixture *f, struct bfti_vfs *image,
                         const struct model *model, unsigned puts, bool again)
{
    uint64_t count;
    bft_db *db;
    expect_ok(open_image(f, image, "/db", &db));
    model_check(model, db);
    expect_ok(bft_count(acknowledged(db), NONE, NONE, &count));
    assert_true(count >= puts && count <= (uint64_t)puts + 1);
    expect_ok(bft_verify(db));
    if (again) {
        bft_status status = bft_backup(db, "/copy", NULL);
        if (status != BFT_EXISTS) /* it was whole */
            expect_ok(status);
        expect_ok(bft_verify(db));
    }
    expect_ok(bft_close(db));
}

static void a_crash_leaves_the_database_and_no_wrong_copy(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct shots *shots = calloc(1, sizeof(*shots));
    struct model *model = model_make(7);
    bft_backup_options options = {
        .size = sizeof(options), .progress = go_on, .ctx = shots};
    unsigned whole;
    (void)state;
    f->options.no_threads = true;
    f->options.durability = BFT_SYNC;
    engine_open(f);
    model_change(model, f->db, 150);
    (void)acknowledged(f->db);
    shots->sim = f->vfs;
    shots->db = f->db;
    bfti_sim_on_step(f->vfs, take, shots);
    expect_ok(bft_backup(f->db, "/copy", &options));
    whole = shots->count;
    shots->over = true;
    expect_ok(bft_checkpoint(f->db));
    bfti_sim_on_step(f->vfs, NULL, NULL);
    assert_true(whole > 200 && shots->count > whole && shots->count < IMAGES);
    for (unsigned i = 0; i < shots->count; i++) {
        bool again = i % 5 == 0;
        check_copy(f, shots->image[i], model, 0, shots->marked[i],
                   shots->done[i]);
        check_source(f, shots->image[i], model, shots->puts[i], again);
        if (again)
            check_copy(f, shots->image[i], model, shots->put, true, true);
        bfti_vfs_sim_destroy(shots->image[i]);
    }
    tally(TALLY_IMAGES, shots->count);
    free(shots);
    model_free(model);
    engine_fixture_free(f);
}

/* --- increments --------------------------------------------------------------- */

static const char *const chain[] = {"/base", "/copy"};

static bft_status restore_image(struct engine_fixture *f,
                                struct bfti_vfs *image, const char *to)
{
    struct bfti_surroundings surroundings = {.env = &f->env, .vfs = image};
    bft_options options = {.size = sizeof(options), .internal = &surroundings};
    return bft_restore(chain, 2, to, &options);
}

static void check_not_finished(bft_status status)
{
    char text[400];
    bft_last_error(text, sizeof(text));
    if (status == BFT_NOT_FOUND)
        return;
    expect_status(BFT_CORRUPT, status);
    assert_non_null(strstr(text, "not finished"));
}

static void check_database(struct engine_fixture *f, struct bfti_vfs *image,
                           const char *path, const struct model *model,
                           bool done)
{
    bft_db *db;
    bft_status status = open_image(f, image, path, &db);
    if (status == BFT_OK) {
        model_check(model, db);
        expect_ok(bft_verify(db));
        expect_ok(bft_close(db));
    } else {
        assert_false(done);
        check_not_finished(status);
    }
}

/* Before every step of making one, and of restoring it. */
static void a_crash_leaves_no_wrong_increment(void **state)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct shots *shots = calloc(1, sizeof(*shots));
    struct model *model = model_make(8);
    bft_backup_options options = {
        .size = sizeof(options), .base = chain, .base_count = 1};
    unsigned made;
    (void)state;
    f->options.no_threads = true;
    engine_open(f);
    model_change(model, f->db, 150);
    expect_ok(bft_backup(f->db, "/base", NULL));
    model_change(model, f->db, 20);
    shots->sim = f->vfs;
    bfti_sim_on_step(f->vfs, take, shots);
    expect_ok(bft_backup(f->db, "/copy", &options));
    made = shots->count;
    expect_ok(restore_image(f, f->vfs, "/restored"));
    shots->over = true;
    expect_ok(bft_checkpoint(f->db));
    bfti_sim_on_step(f->vfs, NULL, NULL);
    assert_true(made > 100 && shots->count > made + 100 &&
                shots->count < IMAGES);
    for (unsigned i = 0; i < shots->count; i++) {
        bft_status status = restore_image(f, shots->image[i], "/mine");
        if (status == BFT_OK) {
            check_database(f, shots->image[i], "/mine", model, true);
        } else {
            assert_true(i < made);
            check_not_finished(status);
        }
        check_database(f, shots->image[i], "/restored", model, shots->done[i]);
        bfti_vfs_sim_destroy(shots->image[i]);
    }
    tally(TALLY_IMAGES, shots->count);
    free(shots);
    model_free(model);
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crash_leaves_the_database_and_no_wrong_copy),
        cmocka_unit_test(a_crash_leaves_no_wrong_increment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
