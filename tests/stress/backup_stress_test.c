/*
 * Backups while threads commit batches over two trees, and another one makes,
 * empties and drops trees and takes checkpoints.  Each writer keeps what it
 * committed, with the positions in the log: a copy has exactly what lies below
 * the position that its backup told of.
 *
 * BFT_COPIES: how many backups are made and compared at least; 20 else.
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
#include <sched.h>

#include "backup_model.h"
#include "random.h"
#include "tally.h"

enum { WRITERS = 3, COPIES = 10, HISTORY = 40000, BETWEEN = 500 };

struct commit {
    uint64_t lsn;
    uint32_t n, version; /* 0: removed */
};

struct writer {
    struct stress *stress;
    unsigned id;
    uint64_t random;
    _Atomic size_t count; /* complete ones */
    struct commit history[HISTORY];
};

struct stress {
    struct engine_fixture *f;
    bft_tree *trees[MODEL_TREES];
    _Atomic bool stop;
    struct writer writers[WRITERS];
    uint64_t lsn[COPIES];
};

static void commit_one(struct writer *w, bft_batch *batch)
{
    struct commit *commit = &w->history[w->count];
    char text[32];
    commit->n =
        (uint32_t)(random_of(&w->random) % (MODEL_KEYS / WRITERS) * WRITERS +
                   w->id);
    if (commit->n == 13)
        commit->n += WRITERS; /* too big for a batch */
    commit->version = random_of(&w->random) % 5
                          ? (uint32_t)(random_of(&w->random) >> 33) | 1
                          : 0;
    for (unsigned i = 0; i < MODEL_TREES; i++)
        expect_ok(commit->version
                      ? bft_batch_put(batch, w->stress->trees[i],
                                      model_key(text, commit->n),
                                      model_value(commit->n, commit->version))
                      : bft_batch_delete(batch, w->stress->trees[i],
                                         model_key(text, commit->n)));
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, &commit->lsn));
    atomic_fetch_add(&w->count, 1);
}

static void *write_on(void *arg)
{
    struct writer *w = arg;
    bft_batch *batch;
    expect_ok(bft_batch_create(w->stress->f->db, &batch));
    while (!atomic_load(&w->stress->stop) && w->count < HISTORY)
        commit_one(w, batch);
    bft_batch_free(batch);
    return NULL;
}

static void *change_trees(void *arg)
{
    struct stress *s = arg;
    uint64_t random = 1;
    while (!atomic_load(&s->stop)) {
        bft_tree *tree = engine_tree(s->f, "third", 512);
        char text[32];
        for (unsigned i = 0; i < 300; i++)
            expect_ok(bft_put(tree, model_key(text, i), model_value(i, 1)));
        if (random_of(&random) % 2)
            expect_ok(bft_tree_truncate(s->f->db, "third"));
        else
            expect_ok(bft_tree_drop(s->f->db, "third"));
        expect_ok(bft_checkpoint(s->f->db));
    }
    return NULL;
}

/* Let each writer commit some more, or all that it may. */
static void await_writers(struct stress *s)
{
    for (unsigned w = 0; w < WRITERS; w++) {
        size_t enough = atomic_load(&s->writers[w].count) + BETWEEN;
        while (atomic_load(&s->writers[w].count) <
               (enough < HISTORY ? enough : HISTORY))
            sched_yield();
    }
}

static bft_status note_lsn(void *ctx, const bft_backup_progress *now)
{
    *(uint64_t *)ctx = now->lsn;
    return BFT_OK;
}

/* What the writers had committed at LSN. */
static void check_copy(struct stress *s, const char *path, uint64_t lsn)
{
    struct model *model = model_make(0);
    bft_db *copy = backup_open(s->f, path, false);
    unsigned within = 0;
    model->exists = true;
    for (unsigned w = 0; w < WRITERS; w++)
        for (size_t i = 0; i < s->writers[w].count; i++) {
            const struct commit *commit = &s->writers[w].history[i];
            if (commit->lsn > lsn)
                break;
            model->version[0][commit->n] = commit->version;
            model->version[1][commit->n] = commit->version;
            within++;
        }
    print_message("%s: %u commits\n", path, within);
    model_check(model, copy);
    expect_ok(bft_verify(copy));
    expect_ok(bft_close(copy));
    model_free(model);
}

static void stress(enum engine_backend backend)
{
    struct stress *s = calloc(1, sizeof(*s));
    struct engine_fixture *f = engine_fixture_make(backend);
    pthread_t thread[WRITERS + 1];
    char path[300], each[COPIES][320];
    uint64_t seed = random_start();
    f->options.memory_bytes = 1 << 20;
    f->options.log_bytes = 1 << 20;
    engine_open(f);
    s->f = f;
    s->trees[0] = engine_tree(f, "first", 512);
    s->trees[1] = engine_tree(f, "second", 512);
    backup_path(f, path);
    for (unsigned w = 0; w < WRITERS; w++) {
        s->writers[w].stress = s;
        s->writers[w].id = w;
        s->writers[w].random = seed + w;
        assert_int_equal(
            0, pthread_create(&thread[w], NULL, write_on, &s->writers[w]));
    }
    assert_int_equal(0,
                     pthread_create(&thread[WRITERS], NULL, change_trees, s));
    for (unsigned i = 0; i < COPIES; i++) {
        bft_backup_options options = {
            .size = sizeof(options), .progress = note_lsn, .ctx = &s->lsn[i]};
        await_writers(s);
        snprintf(each[i], sizeof(each[i]), "%s%u", path, i);
        expect_ok(bft_backup(f->db, each[i], &options));
    }
    atomic_store(&s->stop, true);
    for (unsigned w = 0; w <= WRITERS; w++)
        assert_int_equal(0, pthread_join(thread[w], NULL));
    expect_ok(bft_verify(f->db));
    for (unsigned i = 0; i < COPIES; i++) {
        check_copy(s, each[i], s->lsn[i]);
        backup_remove(f, each[i]);
    }
    engine_fixture_free(f);
    free(s);
}

static void copies_are_cuts_of_the_log(void **state)
{
    const char *text = getenv("BFT_COPIES");
    unsigned long copies = text ? strtoul(text, NULL, 10) : 2 * COPIES;
    (void)state;
    for (unsigned long n = 0; n < copies; n += 2 * COPIES) {
        stress(ENGINE_POSIX);
        stress(ENGINE_MEMORY);
        tally(TALLY_BACKUPS, 2 * COPIES);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_are_cuts_of_the_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
