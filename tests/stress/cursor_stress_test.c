/*
 * Cursors while others write: in both directions over leaves that split, empty
 * and grow together again.  Keys ascend, no lasting key is missed, and no step
 * shows less than what was committed before it began.  Verify runs beside all
 * that and finds nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bftree.h"
#include "random.h"

/* Key I is lasting when I is a multiple of LASTING; the others come and go. */
enum { KEYS = 3000, LASTING = 10, SCANNERS = 2, WRITERS = 2, ROUNDS = 60000 };

static struct shared {
    bft_db *db;
    bft_tree *tree;
    atomic_bool stop;
    _Atomic uint32_t clock;
    /* Of each lasting key: the newest version that a put has returned for, and
     * the time when it did. */
    _Atomic uint64_t committed[KEYS];
    _Atomic uint64_t scans;
    char error[300]; /* the first, under lock */
    pthread_mutex_t lock;
} shared;

struct worker {
    pthread_t thread;
    uint64_t seed;
    unsigned id;
};

static void fail_with(const char *what, bft_status status, int key)
{
    char text[160] = "";
    if (status != BFT_OK)
        bft_last_error(text, sizeof(text));
    pthread_mutex_lock(&shared.lock);
    if (!shared.error[0])
        snprintf(shared.error, sizeof(shared.error), "%s at %d: %s %s", what,
                 key, bft_strerror(status), text);
    pthread_mutex_unlock(&shared.lock);
    atomic_store(&shared.stop, true);
}

/* xorshift: each thread its own, so that the seed fixes what it does. */
static uint32_t next(struct worker *w)
{
    w->seed ^= w->seed << 13;
    w->seed ^= w->seed >> 7;
    w->seed ^= w->seed << 17;
    return (uint32_t)(w->seed >> 32);
}

static bft_slice key_of(char buf[16], int i)
{
    bft_slice key = {buf, 8};
    snprintf(buf, 16, "%08d", i);
    return key;
}

/* A value: the version in front, then padding. */
static bft_status put(int i, uint32_t version, size_t len)
{
    uint8_t bytes[200];
    char buf[16];
    bft_slice value = {bytes, len};
    memset(bytes, 'v', sizeof(bytes));
    memcpy(bytes, &version, sizeof(version));
    return bft_put(shared.tree, key_of(buf, i), value);
}

/* --- writers --------------------------------------------------------------- */

/* A lasting key of this writer's own. */
static bft_status write_lasting(struct worker *w)
{
    int i = (int)(next(w) % (KEYS / LASTING / WRITERS)) * LASTING * WRITERS +
            (int)w->id * LASTING;
    uint32_t version = (uint32_t)(atomic_load(&shared.committed[i]) >> 32) + 1;
    bft_status status = put(i, version, 4 + next(w) % 60);
    if (status == BFT_OK)
        atomic_store(&shared.committed[i],
                     (uint64_t)version << 32 |
                         (atomic_fetch_add(&shared.clock, 1) + 1));
    return status;
}

/* A stretch of the others, now filled, now emptied. */
static bft_status write_stretch(struct worker *w)
{
    int from = (int)(next(w) % KEYS), count = (int)(next(w) % 60);
    bool fill = next(w) % 2;
    bft_status status = BFT_OK;
    char buf[16];
    for (int i = from; status == BFT_OK && i < from + count && i < KEYS; i++)
        if (i % LASTING)
            status = fill ? put(i, 0, 4 + next(w) % 190)
                          : bft_delete(shared.tree, key_of(buf, i));
    return status;
}

static void *writer(void *arg)
{
    struct worker *w = arg;
    for (int round = 0; round < ROUNDS && !atomic_load(&shared.stop);) {
        bft_status status;
        if (next(w) % 20) {
            status = write_lasting(w);
            round++;
        } else {
            status = write_stretch(w);
            round += 30;
        }
        if (status != BFT_OK)
            fail_with("a write", status, 0);
    }
    return NULL;
}

/* --- scanners -------------------------------------------------------------- */

/* The key that the cursor is on, and its version. */
static bft_status read_record(bft_cursor *cursor, int *key, uint32_t *version)
{
    bft_slice slice;
    char buf[16] = "";
    bft_status status = bft_cursor_key(cursor, &slice);
    if (status != BFT_OK)
        return status;
    memcpy(buf, slice.data, 8);
    *key = (int)strtol(buf, NULL, 10);
    status = bft_cursor_value(cursor, &slice);
    if (status == BFT_OK)
        memcpy(version, slice.data, sizeof(*version));
    else if (status == BFT_NOT_FOUND && *key % LASTING)
        status = BFT_OK; /* a large value, deleted since */
    return status;
}

/* What is at KEY was reached by a step that began at TIME; the last one shown
 * was LAST. */
static void check_record(bool up, int last, int key, uint32_t version,
                         uint32_t time)
{
    uint64_t committed = atomic_load(&shared.committed[key]);
    if (up ? key <= last : key >= last)
        fail_with("keys out of order", BFT_OK, key);
    for (int i = last + (up ? 1 : -1); i != key; i += up ? 1 : -1)
        if (i % LASTING == 0)
            fail_with("a lasting key is missed", BFT_OK, i);
    if (key % LASTING == 0 && (uint32_t)committed <= time &&
        version < (uint32_t)(committed >> 32))
        fail_with("a value older than the step", BFT_OK, key);
}

static void scan(struct worker *w, bft_cursor *cursor, bool up)
{
    int last = up ? -1 : KEYS, key = 0;
    uint32_t version = 0, time = atomic_load(&shared.clock);
    bft_status status = up ? bft_cursor_first(cursor) : bft_cursor_last(cursor);
    while (status == BFT_OK && !atomic_load(&shared.stop)) {
        status = read_record(cursor, &key, &version);
        if (status != BFT_OK)
            break;
        check_record(up, last, key, version, time);
        last = key;
        if (next(w) % 50 == 0) { /* turn around for a step */
            status = up ? bft_cursor_prev(cursor) : bft_cursor_next(cursor);
            if (status != BFT_OK && status != BFT_NOT_FOUND)
                break;
            /* One may have come in behind us: go on from where we were. */
            char buf[16];
            time = atomic_load(&shared.clock);
            status = bft_cursor_seek(cursor, up ? BFT_GT : BFT_LT,
                                     key_of(buf, last));
            continue;
        }
        time = atomic_load(&shared.clock);
        status = up ? bft_cursor_next(cursor) : bft_cursor_prev(cursor);
    }
    if (atomic_load(&shared.stop))
        return;
    if (status != BFT_NOT_FOUND)
        fail_with("a step", status, key);
    else if (up ? last < KEYS - LASTING : last != 0)
        fail_with("a scan ends early", BFT_OK, last);
    atomic_fetch_add(&shared.scans, 1);
}

static void *scanner(void *arg)
{
    struct worker *w = arg;
    bft_cursor *cursor;
    bft_status status = bft_cursor_open_newest(shared.tree, &cursor);
    if (status != BFT_OK)
        fail_with("opening a cursor", status, 0);
    for (unsigned i = w->id; !atomic_load(&shared.stop); i++)
        scan(w, cursor, i % 2 == 0);
    bft_cursor_close(cursor);
    return NULL;
}

/* --- all together ---------------------------------------------------------- */

static void *verifier(void *arg)
{
    (void)arg;
    for (int i = 0; !atomic_load(&shared.stop); i++) {
        bft_status status =
            i % 4 == 3 ? bft_checkpoint(shared.db) : bft_verify(shared.db);
        if (status != BFT_OK)
            fail_with(i % 4 == 3 ? "a checkpoint" : "verify", status, i);
    }
    return NULL;
}

static void start(struct worker *w, unsigned id, uint64_t seed,
                  void *(*run)(void *arg))
{
    w->id = id;
    w->seed = seed | 1;
    assert_int_equal(pthread_create(&w->thread, NULL, run, w), 0);
}

static void cursors_keep_up_with_writers(void **state)
{
    bft_options options = {.size = sizeof(options),
                           .storage = BFT_STORAGE_MEMORY,
                           .durability = BFT_NONE,
                           .memory_bytes = 256 << 10,
                           .leaf_bytes = 512,
                           .log_segment_bytes = 64 << 10,
                           .log_bytes = 1 << 20};
    struct worker writers[WRITERS], scanners[SCANNERS], verify;
    (void)state;
    random_start();
    assert_int_equal(bft_open("cursor_stress", &options, &shared.db), BFT_OK);
    assert_int_equal(bft_tree_open(shared.db, "t", NULL, &shared.tree), BFT_OK);
    for (int i = 0; i < KEYS; i += LASTING)
        assert_int_equal(put(i, 0, 4), BFT_OK);
    for (unsigned i = 0; i < WRITERS; i++)
        start(&writers[i], i, random_next(), writer);
    for (unsigned i = 0; i < SCANNERS; i++)
        start(&scanners[i], i, random_next(), scanner);
    start(&verify, 0, random_next(), verifier);
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(writers[i].thread, NULL);
    atomic_store(&shared.stop, true);
    for (unsigned i = 0; i < SCANNERS; i++)
        pthread_join(scanners[i].thread, NULL);
    pthread_join(verify.thread, NULL);
    if (shared.error[0])
        fail_msg("%s", shared.error);
    printf("%llu scans\n", (unsigned long long)atomic_load(&shared.scans));
    assert_int_equal(bft_verify(shared.db), BFT_OK);
    assert_int_equal(bft_close(shared.db), BFT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cursors_keep_up_with_writers),
    };
    pthread_mutex_init(&shared.lock, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
