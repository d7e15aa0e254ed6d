/*
 * Many threads on one database with tiny leaves and a tiny pool: writers of
 * their own keys who must read what they wrote, batches whose keys readers must
 * never see half of, scans that must stay in order, checkpoints, evictions,
 * splits and absorptions all the while.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bftree.h"
#include "index/engine.h"
#include "tests/support/random.h"

enum { WRITERS = 3, KEYS = 400, BATCH_KEYS = 24, DEFAULT_ROUNDS = 12000 };

struct shared {
    bft_db *db;
    bft_tree *tree[2];
    atomic_bool stop;
    unsigned rounds;
    uint64_t seed;
};

struct worker {
    struct shared *shared;
    unsigned id;
    pthread_t thread;
    char error[256]; /* first failure, for the main thread to report */
};

#define CHECK(w, condition, ...)                                   \
    do {                                                           \
        if (!(condition) && !(w)->error[0])                        \
            snprintf((w)->error, sizeof((w)->error), __VA_ARGS__); \
    } while (0)

static bft_slice key_of(char *buf, size_t cap, const char *kind, unsigned a,
                        unsigned b)
{
    int len = snprintf(buf, cap, "%s-%03u-%05u", kind, a, b);
    bft_slice key = {buf, (size_t)len};
    return key;
}

static void check_status(struct worker *w, bft_status status, const char *what)
{
    char text[160];
    if (status == BFT_OK)
        return;
    bft_last_error(text, sizeof(text));
    CHECK(w, false, "%s: %s: %s", what, bft_strerror(status), text);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* --- writers of their own keys ------------------------------------------- */

static void own_write(struct worker *w, unsigned *model, uint64_t *random)
{
    struct shared *s = w->shared;
    unsigned i = (unsigned)(next_random(random) % KEYS);
    bft_tree *tree = s->tree[i % 2];
    char kbuf[32], vbuf[200];
    bft_slice key = key_of(kbuf, sizeof(kbuf), "own", w->id, i);

    if (next_random(random) % 4 == 0) {
        check_status(w, bft_delete(tree, key), "delete");
        model[i] = 0;
        return;
    }
    model[i] = (unsigned)(next_random(random) % 1000000) + 1;
    memset(vbuf, 'v', sizeof(vbuf));
    memcpy(vbuf, &model[i], sizeof(model[i]));
    bft_slice value = {vbuf, 8 + next_random(random) % 160};
    check_status(w, bft_put(tree, key, value), "put");
}

static void own_read(struct worker *w, const unsigned *model, unsigned i)
{
    struct shared *s = w->shared;
    char kbuf[32], vbuf[200];
    size_t len;
    unsigned got = 0;
    bft_slice key = key_of(kbuf, sizeof(kbuf), "own", w->id, i);
    bft_status status = bft_get(s->tree[i % 2], key, vbuf, sizeof(vbuf), &len);

    if (status == BFT_OK)
        memcpy(&got, vbuf, sizeof(got));
    else if (status != BFT_NOT_FOUND)
        check_status(w, status, "get");
    CHECK(w, got == model[i], "writer %u key %u: %u read, %u written", w->id, i,
          got, model[i]);
}

static void *writer_main(void *arg)
{
    struct worker *w = arg;
    unsigned model[KEYS] = {0};
    uint64_t random = w->shared->seed + 1000 + w->id;

    for (unsigned round = 0; round < w->shared->rounds && !w->error[0];
         round++) {
        own_write(w, model, &random);
        own_read(w, model, (unsigned)(next_random(&random) % KEYS));
    }
    for (unsigned i = 0; i < KEYS && !w->error[0]; i++)
        own_read(w, model, i);
    return NULL;
}

/* --- batches ------------------------------------------------------------- */

static void *batch_main(void *arg)
{
    struct worker *w = arg;
    struct shared *s = w->shared;
    bft_batch *batch;

    check_status(w, bft_batch_create(s->db, &batch), "batch create");
    for (uint64_t serial = 1; serial <= s->rounds / 4 && !w->error[0];
         serial++) {
        char kbuf[32], vbuf[64];
        memset(vbuf, 'b', sizeof(vbuf));
        memcpy(vbuf, &serial, sizeof(serial));
        for (unsigned i = 0; i < BATCH_KEYS; i++) {
            bft_slice key = key_of(kbuf, sizeof(kbuf), "batch", i * 37, i);
            bft_slice value = {vbuf, sizeof(vbuf)};
            check_status(w, bft_batch_put(batch, s->tree[i % 2], key, value),
                         "batch put");
        }
        check_status(w, bft_batch_commit(batch, BFT_DEFAULT, NULL),
                     "batch commit");
    }
    bft_batch_free(batch);
    return NULL;
}

/* Whoever has seen a batch on one key sees it, or a later one, on all. */
static void *batch_reader_main(void *arg)
{
    struct worker *w = arg;
    struct shared *s = w->shared;
    uint64_t random = s->seed + 77 + w->id;

    while (!atomic_load(&s->stop) && !w->error[0]) {
        uint64_t seen = 0;
        for (unsigned n = 0; n < 8; n++) {
            unsigned i = (unsigned)(next_random(&random) % BATCH_KEYS);
            char kbuf[32], vbuf[64];
            size_t len;
            uint64_t serial = 0;
            bft_slice key = key_of(kbuf, sizeof(kbuf), "batch", i * 37, i);
            bft_status status =
                bft_get(s->tree[i % 2], key, vbuf, sizeof(vbuf), &len);
            if (status == BFT_OK)
                memcpy(&serial, vbuf, sizeof(serial));
            else if (status != BFT_NOT_FOUND)
                check_status(w, status, "get");
            CHECK(w, serial >= seen,
                  "batch %llu was visible, then key %u showed %llu",
                  (unsigned long long)seen, i, (unsigned long long)serial);
            seen = serial;
        }
    }
    return NULL;
}

/* --- scans, checkpoints -------------------------------------------------- */

static void *scan_main(void *arg)
{
    struct worker *w = arg;
    struct shared *s = w->shared;

    for (unsigned round = 0; !atomic_load(&s->stop) && !w->error[0]; round++) {
        bft_cursor *cursor;
        bool forward = round % 2 == 0;
        unsigned char last[64];
        size_t last_len = 0;
        bft_status status;

        check_status(w, bft_cursor_open(s->tree[round / 2 % 2], &cursor),
                     "cursor open");
        for (;;) {
            bft_slice key = {NULL, 0};
            size_t least;
            int order;
            status =
                forward ? bft_cursor_next(cursor) : bft_cursor_prev(cursor);
            if (status != BFT_OK)
                break;
            check_status(w, bft_cursor_key(cursor, &key), "cursor key");
            least = key.len < last_len ? key.len : last_len;
            order = memcmp(key.data, last, least);
            if (order == 0)
                order = (key.len > last_len) - (key.len < last_len);
            CHECK(w, last_len == 0 || (forward ? order > 0 : order < 0),
                  "a scan is out of order");
            memcpy(last, key.data, key.len);
            last_len = key.len;
        }
        if (status != BFT_NOT_FOUND)
            check_status(w, status, "cursor step");
        bft_cursor_close(cursor);
    }
    return NULL;
}

static void *checkpoint_main(void *arg)
{
    struct worker *w = arg;
    struct shared *s = w->shared;

    while (!atomic_load(&s->stop) && !w->error[0])
        check_status(w, bft_checkpoint(s->db), "checkpoint");
    return NULL;
}

/* --- the whole ----------------------------------------------------------- */

/* Inner nodes leave memory, as soon as nobody has used them for a moment. */
static void *drop_main(void *arg)
{
    const struct worker *w = arg;
    while (!atomic_load(&w->shared->stop)) {
        bfti_nodes_drop(w->shared->db->engine, 0, SIZE_MAX);
        sched_yield();
    }
    return NULL;
}

static void start(struct worker *w, struct shared *s, unsigned id,
                  void *(*run)(void *))
{
    memset(w, 0, sizeof(*w));
    w->shared = s;
    w->id = id;
    assert_int_equal(0, pthread_create(&w->thread, NULL, run, w));
}

static void join(struct worker *w)
{
    pthread_join(w->thread, NULL);
    if (w->error[0])
        fail_msg("%s", w->error);
}

static void threads_agree_on_one_database(void **state)
{
    /* Inner nodes come and go all the time. */
    struct bfti_surroundings surroundings = {.nodes_bytes = 1};
    bft_options options = {.size = sizeof(options),
                           .memory_bytes = 512 << 10,
                           .log_bytes = 256 << 10,
                           .log_segment_bytes = 64 << 10,
                           .leaf_bytes = 512,
                           .internal = &surroundings,
                           .storage = BFT_STORAGE_MEMORY};
    bft_tree_options large = {.size = sizeof(large), .leaf_bytes = 4096};
    bft_stats stats = {.size = sizeof(stats)};
    struct worker writer[WRITERS], batcher, reader, scanner, checkpointer,
        dropper;
    struct shared s;
    const char *rounds = getenv("BFT_STRESS_ROUNDS");

    (void)state;
    memset(&s, 0, sizeof(s));
    random_start();
    surroundings.small_deltas = random_below(2);
    s.seed = random_next();
    s.rounds = rounds ? (unsigned)strtoul(rounds, NULL, 10) : DEFAULT_ROUNDS;
    assert_int_equal(BFT_OK, bft_open("stress", &options, &s.db));
    assert_int_equal(BFT_OK, bft_tree_open(s.db, "one", NULL, &s.tree[0]));
    /* Pages with long tails, too. */
    assert_int_equal(BFT_OK, bft_tree_open(s.db, "two", &large, &s.tree[1]));

    for (unsigned i = 0; i < WRITERS; i++)
        start(&writer[i], &s, i, writer_main);
    start(&batcher, &s, 10, batch_main);
    start(&reader, &s, 11, batch_reader_main);
    start(&scanner, &s, 12, scan_main);
    start(&checkpointer, &s, 13, checkpoint_main);
    start(&dropper, &s, 14, drop_main);
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(writer[i].thread, NULL);
    pthread_join(batcher.thread, NULL);
    atomic_store(&s.stop, true);
    join(&reader);
    join(&scanner);
    join(&checkpointer);
    join(&dropper);
    for (unsigned i = 0; i < WRITERS; i++)
        if (writer[i].error[0])
            fail_msg("%s", writer[i].error);
    if (batcher.error[0])
        fail_msg("%s", batcher.error);
    assert_int_equal(BFT_OK, bft_verify(s.db));
    assert_int_equal(BFT_OK, bft_stats_read(s.db, &stats));
    print_message("nodes +%llu-%llu\n", (unsigned long long)stats.nodes_read,
                  (unsigned long long)stats.nodes_dropped);
    assert_true(stats.nodes_read && stats.nodes_dropped);
    assert_int_equal(BFT_OK, bft_close(s.db));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_agree_on_one_database),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
