/*
 * Readers without latches on a few keys that are written all the time, with
 * values of every kind: in a page's tail, in its run, in an extent of their own,
 * on disk only.  Whatever a reader gets is one value as it was written,
 * whole, and never older than what it has seen before.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bftree.h"
#include "random.h"

enum {
    KEYS = 12,
    WRITERS = 2,
    READERS = 3,
    FILLERS = 3000, /* keys whose writes drive the others out of memory */
    ROUNDS = 20000,
    LONGEST = 6000, /* with leaves of 1,024 bytes: well over what fits inside */
    HEAD = 8,
};

static struct shared {
    bft_db *db;
    bft_tree *tree;
    unsigned rounds;
    atomic_bool stop;
    _Atomic uint32_t last[KEYS]; /* version that a put has returned for */
    _Atomic uint64_t reads;
} shared;

struct worker {
    pthread_t thread;
    uint64_t random;
    unsigned id;
    uint32_t seen[KEYS];
    char error[300];
};

static void fail_with(struct worker *w, const char *what, bft_status status)
{
    char text[160] = "";
    if (status != BFT_OK)
        (void)bft_last_error(text, sizeof(text));
    if (!w->error[0])
        snprintf(w->error, sizeof(w->error), "%s: %s %s", what,
                 bft_strerror(status), text);
    atomic_store(&shared.stop, true);
}

static bft_slice key_of(char buf[24], const char *kind, uint64_t n)
{
    return (bft_slice){buf,
                       (size_t)snprintf(buf, 24, "%s-%06u", kind, (unsigned)n)};
}

/* In the midst of the fillers, each in a leaf of others. */
static bft_slice hot_key(char buf[24], unsigned key)
{
    bft_slice name = key_of(buf, "filler", 100 + 250 * key);
    buf[name.len++] = '!';
    return name;
}

/* --- values ------------------------------------------------------------------ */

static uint32_t length_of(uint32_t version)
{
    static const uint32_t most[] = {40, 40, 200, 250, 1000, LONGEST};
    uint32_t mixed = (uint32_t)random_mix(version);
    return HEAD + mixed % (most[version % 6] - HEAD);
}

static uint8_t byte_at(uint32_t version, size_t at)
{
    return (uint8_t)(version * 31 + at * 7 + at / 256);
}

static size_t make_value(uint8_t bytes[LONGEST], uint32_t version)
{
    uint32_t len = length_of(version);
    memcpy(bytes, &version, 4);
    memcpy(bytes + 4, &len, 4);
    for (size_t i = HEAD; i < len; i++)
        bytes[i] = byte_at(version, i);
    return len;
}

/* LEAST: the version that was there before the read began. */
static void check_value(struct worker *w, unsigned key, uint32_t least,
                        const uint8_t *bytes, size_t len)
{
    uint32_t version, said;
    if (len < HEAD) {
        fail_with(w, "a value without its head", BFT_OK);
        return;
    }
    memcpy(&version, bytes, 4);
    memcpy(&said, bytes + 4, 4);
    if (said != len || len != length_of(version))
        fail_with(w, "a value of another one's length", BFT_OK);
    for (size_t i = HEAD; i < len && i < LONGEST; i++)
        if (bytes[i] != byte_at(version, i)) {
            fail_with(w, "a value of two", BFT_OK);
            return;
        }
    if (version < least || version < w->seen[key])
        fail_with(w, "an older value than before", BFT_OK);
    w->seen[key] = version;
}

/* --- writers ------------------------------------------------------------------- */

static bft_status write_one(struct worker *w, uint32_t *version)
{
    static const char filler[150] = "f";
    uint8_t bytes[LONGEST];
    char buf[24];
    unsigned key =
        (unsigned)(random_of(&w->random) % (KEYS / WRITERS)) * WRITERS + w->id;
    bft_status status;
    size_t len;
    if (random_of(&w->random) % 4 == 0) {
        bft_slice value = {filler, sizeof(filler)};
        uint64_t n = random_of(&w->random) % FILLERS;
        return bft_put(shared.tree, key_of(buf, "filler", n), value);
    }
    ++*version;
    len = make_value(bytes, *version);
    status = bft_put(shared.tree, hot_key(buf, key), (bft_slice){bytes, len});
    if (status == BFT_OK)
        atomic_store(&shared.last[key], *version);
    return status;
}

static void *writer_main(void *arg)
{
    struct worker *w = arg;
    uint32_t version = 0;
    for (unsigned i = 0; i < shared.rounds && !atomic_load(&shared.stop); i++) {
        bft_status status = write_one(w, &version);
        if (status != BFT_OK)
            fail_with(w, "a put", status);
    }
    return NULL;
}

/* --- readers ------------------------------------------------------------------- */

static bft_status read_whole(struct worker *w, unsigned key, bft_slice name)
{
    uint8_t bytes[LONGEST];
    uint32_t least = atomic_load(&shared.last[key]);
    size_t len;
    bft_status status = bft_get(shared.tree, name, bytes, sizeof(bytes), &len);
    if (status == BFT_OK)
        check_value(w, key, least, bytes, len);
    return status;
}

static bft_status read_copy(struct worker *w, unsigned key, bft_slice name)
{
    uint32_t least = atomic_load(&shared.last[key]);
    void *bytes;
    size_t len;
    bft_status status = bft_get_copy(shared.tree, name, &bytes, &len);
    if (status == BFT_OK)
        check_value(w, key, least, bytes, len);
    bft_free(bytes);
    return status;
}

static bft_status read_by_cursor(struct worker *w, unsigned key, bft_slice name)
{
    uint32_t least = atomic_load(&shared.last[key]);
    bft_slice value = {NULL, 0};
    bft_cursor *cursor;
    bft_status status = bft_cursor_open(shared.tree, &cursor);
    if (status != BFT_OK)
        return status;
    status = bft_cursor_seek(cursor, BFT_EQ, name);
    if (status == BFT_OK)
        status = bft_cursor_value(cursor, &value);
    if (status == BFT_OK)
        check_value(w, key, least, value.data, value.len);
    bft_cursor_close(cursor);
    return status;
}

static void *reader_main(void *arg)
{
    static bft_status (*const read[])(struct worker *, unsigned, bft_slice) = {
        read_whole, read_whole, read_copy, read_by_cursor};
    struct worker *w = arg;
    while (!atomic_load(&shared.stop)) {
        uint64_t roll = random_of(&w->random);
        unsigned key = (unsigned)(roll % KEYS);
        uint32_t least = atomic_load(&shared.last[key]);
        char buf[24];
        bft_slice name = hot_key(buf, key);
        bft_status status = read[roll >> 32 & 3](w, key, name);
        atomic_fetch_add(&shared.reads, 1);
        if (status != BFT_OK && !(status == BFT_NOT_FOUND && least == 0))
            fail_with(w, "a read", status);
    }
    return NULL;
}

static void *checkpoint_main(void *arg)
{
    struct worker *w = arg;
    while (!atomic_load(&shared.stop)) {
        bft_status status = bft_checkpoint(shared.db);
        if (status != BFT_OK)
            fail_with(w, "a checkpoint", status);
    }
    return NULL;
}

/* --- the whole ------------------------------------------------------------------ */

static void start(struct worker *w, unsigned id, void *(*run)(void *))
{
    memset(w, 0, sizeof(*w));
    w->id = id;
    w->random = random_next();
    assert_int_equal(0, pthread_create(&w->thread, NULL, run, w));
}

static void open_shared(void)
{
    bft_options options = {.size = sizeof(options),
                           .memory_bytes = 384 << 10,
                           .log_bytes = 512 << 10,
                           .log_segment_bytes = 64 << 10,
                           .leaf_bytes = 1024,
                           .promote_percent = 50,
                           .storage = BFT_STORAGE_MEMORY};
    const char *rounds = getenv("BFT_STRESS_ROUNDS");
    memset(&shared, 0, sizeof(shared));
    random_start();
    shared.rounds = rounds ? (unsigned)strtoul(rounds, NULL, 10) : ROUNDS;
    assert_int_equal(BFT_OK, bft_open("torn", &options, &shared.db));
    assert_int_equal(BFT_OK, bft_tree_open(shared.db, "t", NULL, &shared.tree));
}

static void no_reader_sees_a_torn_or_an_older_value(void **state)
{
    struct worker worker[WRITERS + READERS + 1];
    bft_stats stats = {.size = sizeof(stats)};
    unsigned n = 0;
    (void)state;
    open_shared();
    for (unsigned i = 0; i < WRITERS; i++)
        start(&worker[n++], i, writer_main);
    for (unsigned i = 0; i < READERS; i++)
        start(&worker[n++], i, reader_main);
    start(&worker[n++], 0, checkpoint_main);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(0, pthread_join(worker[i].thread, NULL));
        if (i == WRITERS - 1)
            atomic_store(&shared.stop, true);
    }
    for (unsigned i = 0; i < n; i++)
        if (worker[i].error[0])
            fail_msg("%s", worker[i].error);
    assert_int_equal(BFT_OK, bft_stats_read(shared.db, &stats));
    print_message(
        "%llu reads, %llu evictions, %llu splits, %llu promotions\n",
        (unsigned long long)atomic_load(&shared.reads),
        (unsigned long long)(stats.evictions_clean + stats.evictions_dirty),
        (unsigned long long)stats.splits, (unsigned long long)stats.promotions);
    assert_int_equal(BFT_OK, bft_verify(shared.db));
    assert_int_equal(BFT_OK, bft_close(shared.db));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_reader_sees_a_torn_or_an_older_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
