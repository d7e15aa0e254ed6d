#include "fuzz_history.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"

const char *const history_tree[HISTORY_TREES] = {"narrow", "wide", "dropped",
                                                 "late"};
static const uint32_t leaf_bytes[HISTORY_TREES] = {512, 4096, 1024, 512};

bft_slice history_key(unsigned tree, unsigned key, char *buf)
{
    /* Neighbours share long prefixes in one tree, and nothing in the other. */
    int len = snprintf(buf, 32, tree % 2 ? "%05u" : "a key with %07u", key);

    if (tree % 2)
        for (int i = 0; i < len / 2; i++) {
            char c = buf[i];
            buf[i] = buf[len - 1 - i];
            buf[len - 1 - i] = c;
        }
    return (bft_slice){buf, (size_t)len};
}

/* --- living --------------------------------------------------------------- */

static struct history_step *step_add(struct history *h, enum history_kind kind,
                                     unsigned tree)
{
    if (h->count == h->cap) {
        h->cap = h->cap ? h->cap * 2 : 1024;
        h->step = realloc(h->step, h->cap * sizeof(*h->step));
        assert_non_null(h->step);
    }
    h->step[h->count] = (struct history_step){.kind = kind, .tree = tree};
    return &h->step[h->count++];
}

/* Steps from FROM on are one commit, just done. */
static void committed(struct history *h, size_t from)
{
    bft_stats stats = {.size = sizeof(stats)};

    expect_ok(bft_stats_read(h->f->db, &stats));
    for (; from < h->count; from++)
        h->step[from].end = stats.accepted_lsn;
}

static bft_tree *create(struct history *h, unsigned tree)
{
    bft_tree *handle = engine_tree(h->f, history_tree[tree], leaf_bytes[tree]);

    (void)step_add(h, HISTORY_CREATE, tree);
    committed(h, h->count - 1);
    return handle;
}

/* Of a value in a batch, which takes an eighth of the smallest budget at most. */
enum { IN_BATCH = 4000 };

static size_t value_len(unsigned tree)
{
    switch (random_below(40)) {
    case 0:
        return 1500 + random_below(12000); /* large, whatever the leaf */
    case 1:
        return 0;
    default:
        return random_below(tree == 1 ? 200 : 60);
    }
}

/* A random put or delete in TREE, into BATCH or at once. */
static void change(struct history *h, bft_tree *const *handle, unsigned tree,
                   bft_batch *batch)
{
    static char bytes[16000];
    char buf[32];
    struct history_step *s = step_add(h, HISTORY_PUT, tree);
    bft_slice key, value;

    s->key = (unsigned)random_below(HISTORY_KEYS);
    key = history_key(tree, s->key, buf);
    if (random_below(5) == 0) {
        s->kind = HISTORY_DELETE;
        expect_ok(batch ? bft_batch_delete(batch, handle[tree], key)
                        : bft_delete(handle[tree], key));
        return;
    }
    s->value = (struct model_value){random_next(), value_len(tree)};
    if (batch && s->value.len > IN_BATCH)
        s->value.len = IN_BATCH;
    model_value_bytes(s->value, 0, bytes, s->value.len);
    value = (bft_slice){bytes, s->value.len};
    expect_ok(batch ? bft_batch_put(batch, handle[tree], key, value)
                    : bft_put(handle[tree], key, value));
}

static void batch_of(struct history *h, bft_tree *const *handle, unsigned trees)
{
    size_t from = h->count;
    bft_batch *batch;

    expect_ok(bft_batch_create(h->f->db, &batch));
    for (size_t n = 2 + random_below(6); n > 0; n--)
        change(h, handle, (unsigned)random_below(trees), batch);
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    bft_batch_free(batch);
    committed(h, from);
}

static void changes(struct history *h, bft_tree *const *handle, unsigned trees,
                    size_t n)
{
    for (; n > 0; n--) {
        size_t from = h->count;
        if (random_below(30) == 0) {
            batch_of(h, handle, trees);
            continue;
        }
        change(h, handle, (unsigned)random_below(trees), NULL);
        committed(h, from);
    }
}

struct streamed {
    struct model_value value;
    uint64_t at;
};

static bft_status stream(void *ctx, void *buf, size_t len)
{
    struct streamed *s = ctx;
    model_value_bytes(s->value, s->at, buf, len);
    s->at += len;
    return BFT_OK;
}

/* A value that the log only refers to, of three extents and their list. */
static void put_long(struct history *h, bft_tree *const *handle)
{
    struct history_step *s = step_add(h, HISTORY_PUT, 1);
    struct streamed from = {{random_next(), (1 << 20) + 5000}, 0};
    char buf[32];

    s->key = (unsigned)random_below(HISTORY_KEYS);
    s->value = from.value;
    expect_ok(bft_put_stream(handle[1], history_key(1, s->key, buf),
                             from.value.len, stream, &from));
    committed(h, h->count - 1);
}

/* Commits that the next opening will take from the log. */
static size_t tail_commits(const struct history *h)
{
    bft_stats stats = {.size = sizeof(stats)};
    size_t i = h->count;

    expect_ok(bft_stats_read(h->f->db, &stats));
    while (i > 0 && h->step[i - 1].end > stats.redo_lsn)
        i--;
    return h->count - i;
}

/* The log from a checkpoint on: what a crash leaves to be applied. */
static void live_tail(struct history *h, bft_tree **handle)
{
    expect_ok(bft_checkpoint(h->f->db));
    expect_ok(bfti_sim_image(h->f->vfs, BFTI_SIM_KEEP, 1, &h->earlier));
    handle[3] = create(h, 3);
    changes(h, handle, 2, 60);
    expect_ok(bft_tree_drop(h->f->db, history_tree[2]));
    (void)step_add(h, HISTORY_DROP, 2);
    committed(h, h->count - 1);
    handle[2] = handle[3];
    if (random_below(2))
        put_long(h, handle);
    /* Checkpoints come by themselves, too.  What is synced shows by marks in
     * the frames behind; none tells of the last ones. */
    do {
        changes(h, handle, 2, 20 + random_below(60));
        expect_ok(bft_sync(h->f->db));
        changes(h, handle, 2, 80 + random_below(80));
    } while (tail_commits(h) < 80);
}

struct history *history_make(void)
{
    struct history *h = calloc(1, sizeof(*h));
    bft_tree *handle[HISTORY_TREES];

    assert_non_null(h);
    h->f = engine_fixture_make(ENGINE_SIM);
    h->f->options.no_threads = true;
    h->f->options.log_bytes = 512 << 10; /* the tail is not checkpointed */
    h->f->options.compress = random_below(2);
    h->f->eager = true;
    engine_open(h->f);
    for (unsigned t = 0; t < 3; t++)
        handle[t] = create(h, t);
    changes(h, handle, 3, 3000);
    expect_ok(bft_checkpoint(h->f->db));
    changes(h, handle, 3, 600);
    live_tail(h, handle);
    h->stats = engine_stats(h->f);
    expect_ok(bfti_sim_image(h->f->vfs, BFTI_SIM_KEEP, 1, &h->image));
    engine_close(h->f);
    return h;
}

void history_free(struct history *h)
{
    bfti_vfs_sim_destroy(h->image);
    bfti_vfs_sim_destroy(h->earlier);
    engine_fixture_free(h->f);
    free(h->step);
    free(h);
}

/* --- what it held --------------------------------------------------------- */

void history_state_at(const struct history *h, uint64_t upto,
                      struct history_state *state)
{
    memset(state, 0, sizeof(*state));
    for (size_t i = 0; i < h->count && h->step[i].end <= upto; i++) {
        const struct history_step *s = &h->step[i];
        char buf[32];
        bft_slice key = history_key(s->tree, s->key, buf);
        switch (s->kind) {
        case HISTORY_PUT:
            model_map_put(&state->map[s->tree], key, s->value);
            break;
        case HISTORY_DELETE:
            model_map_delete(&state->map[s->tree], key);
            break;
        case HISTORY_CREATE:
            state->there[s->tree] = true;
            break;
        case HISTORY_DROP:
            state->there[s->tree] = false;
            model_map_clear(&state->map[s->tree]);
            break;
        }
    }
}

void history_state_clear(struct history_state *state)
{
    for (unsigned t = 0; t < HISTORY_TREES; t++)
        model_map_clear(&state->map[t]);
}
