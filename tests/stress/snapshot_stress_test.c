/*
 * Snapshots and transactions beside all that changes records, leaves and
 * histories.
 *
 * All numbers that matter lie in slots: records of two trees that take turns, with
 * others between them that come and go.  Of every snapshot it is known what must
 * hold in it: accounts have the same sum, a batch's slots the same number, a
 * writer's first slot what its second has, a pair no less than nothing.  And
 * whatever it showed first it shows until it is released.
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
#include <stdatomic.h>

#include "engine_fixture.h"
#include "random.h"

enum {
    TREES = 2,
    /* Threads of each kind. */
    MOVERS = 3,
    SKEWERS = 2,
    BATCHERS = 2,
    CAUSERS = 2,
    REPLACERS = 2,
    TAKERS = 2,
    /* Slots. */
    ACCOUNTS = 20,
    MARKS = MOVERS, /* of what a mover committed last */
    PAIRS = 3,
    BATCH = 6, /* slots of a batcher */
    LARGE = 3,
    ACCOUNT = 0,
    MARK = ACCOUNT + ACCOUNTS,
    PAIR = MARK + MARKS,
    BATCHED = PAIR + 2 * PAIRS,
    CAUSED = BATCHED + BATCH * BATCHERS,
    LARGES = CAUSED + 2 * CAUSERS,
    SLOTS = LARGES + LARGE,
    SPREAD = 7, /* slots of one kind lie so far from each other */
    OTHERS = 8, /* records between two slots */
    MONEY = 1000,
    HELD = 3, /* snapshots of a taker */
    VALUE_MAX = 1200 * 1000,
    ROUNDS = 4,
    MOVES = 100, /* of a mover in a round, at least */
    LOOKS = 60,  /* in a round, at least */
};
static_assert(SLOTS % SPREAD != 0, "each slot has a key of its own");

struct world {
    struct engine_fixture *f;
    bft_tree *tree[TREES];
    _Atomic bool stop, failed;
    _Atomic uint64_t wanted; /* looks by the end of the round */
    _Atomic uint64_t serial; /* numbers that nobody else has */
    int64_t caused[CAUSERS]; /* of one thread each */
    _Atomic uint64_t commits, conflicts, looks, taken;
};

struct worker {
    struct world *world;
    uint64_t random;
    pthread_t thread;
    unsigned id;             /* among its kind */
    uint8_t *value, *wanted; /* VALUE_MAX bytes each */
    char error[400];
};

/* What a snapshot shows. */
struct seen {
    bool there[SLOTS];
    int64_t number[SLOTS];
    size_t len[SLOTS];
};

struct held {
    bft_snapshot *snapshot;
    struct seen seen;
    uint64_t records, sum; /* of all records there are */
};

static unsigned below(struct worker *w, unsigned limit)
{
    return (unsigned)(random_of(&w->random) % limit);
}

static void wrong(struct worker *w, bft_status status, const char *what)
{
    char text[160] = "";
    atomic_store(&w->world->failed, true);
    if (w->error[0])
        return;
    (void)bft_last_error(text, sizeof(text));
    snprintf(w->error, sizeof(w->error), "%s: %s: %s", what,
             bft_strerror(status), text);
}

static bool expect(struct worker *w, bft_status status, const char *what)
{
    if (status != BFT_OK)
        wrong(w, status, what);
    return status == BFT_OK;
}

static void differs(struct worker *w, const char *what, unsigned slot,
                    int64_t expected, int64_t is)
{
    atomic_store(&w->world->failed, true);
    if (!w->error[0])
        snprintf(w->error, sizeof(w->error),
                 "%s: slot %u: expected %lld, is %lld", what, slot,
                 (long long)expected, (long long)is);
}

/* --- slots -------------------------------------------------------------------- */

static bft_tree *tree_of(const struct world *world, unsigned slot)
{
    return world->tree[slot % TREES];
}

/* OTHER 0: the slot itself. */
static bft_slice key_of(char buf[24], unsigned slot, unsigned other)
{
    unsigned place = slot * SPREAD % SLOTS;
    int len = other ? snprintf(buf, 24, "slot-%03u-%02u", place, other)
                    : snprintf(buf, 24, "slot-%03u", place);
    return (bft_slice){buf, (size_t)len};
}

/* False: KEY is another's. */
static bool slot_of(bft_slice key, unsigned *slot)
{
    char buf[24];
    for (*slot = 0; *slot < SLOTS; ++*slot) {
        bft_slice k = key_of(buf, *slot, 0);
        if (k.len == key.len && memcmp(k.data, key.data, k.len) == 0)
            return true;
    }
    return false;
}

/* A value of NUMBER with LEN bytes: all of them say which it is.  None: 0. */
static bft_slice value_of(uint8_t *buf, int64_t number, size_t len)
{
    uint64_t mixed = random_mix((uint64_t)number);
    memset(buf, (int)(mixed % 251), len);
    for (size_t at = 0; at + 512 <= len; at += 512)
        memcpy(buf + at, &mixed, sizeof(mixed));
    if (len)
        memcpy(buf, &number, sizeof(number));
    return (bft_slice){buf, len};
}

static bool number_of(struct worker *w, const void *data, size_t len,
                      int64_t *number)
{
    *number = 0;
    if (len >= sizeof(*number))
        memcpy(number, data, sizeof(*number));
    (void)value_of(w->wanted, *number, len);
    if (len == 0 || memcmp(w->wanted, data, len) == 0)
        return true;
    wrong(w, BFT_OK, "a value is of two");
    return false;
}

static size_t short_len(struct worker *w)
{
    return sizeof(int64_t) + below(w, 40);
}

static size_t any_len(struct worker *w)
{
    switch (below(w, 12)) {
    case 0:
        return 0;
    case 1:
        return 65528 + below(w, 16); /* apart or not */
    case 2:
        return 65536 + below(w, 200 * 1000);
    case 3:
        return below(w, 4) ? 3000 : VALUE_MAX - below(w, 100 * 1000);
    case 4:
    case 5:
        return sizeof(int64_t) + below(w, 4000);
    default:
        return short_len(w);
    }
}

static int64_t next_serial(struct worker *w)
{
    return (int64_t)atomic_fetch_add(&w->world->serial, 1) + 1;
}

static void slot_put(struct worker *w, unsigned slot, int64_t number,
                     size_t len)
{
    char buf[24];
    expect(w,
           bft_put(tree_of(w->world, slot), key_of(buf, slot, 0),
                   value_of(w->value, number, len)),
           "put");
}

/* --- what a snapshot shows ---------------------------------------------------- */

static void see(struct worker *w, struct seen *seen, unsigned slot,
                const void *data, size_t len)
{
    if (number_of(w, data, len, &seen->number[slot]))
        seen->there[slot] = true;
    seen->len[slot] = len;
}

static void see_by_get(struct worker *w, bft_snapshot *snapshot, unsigned slot,
                       struct seen *seen)
{
    char buf[24];
    void *value;
    size_t len;
    bft_status status = bft_snapshot_get_copy(
        snapshot, tree_of(w->world, slot), key_of(buf, slot, 0), &value, &len);
    if (status == BFT_OK)
        see(w, seen, slot, value, len);
    else if (status != BFT_NOT_FOUND)
        wrong(w, status, "get of a snapshot");
    bft_free(value);
}

static void see_record(struct worker *w, bft_slice key, bft_slice value,
                       struct held *held)
{
    uint64_t sum = 0;
    unsigned slot;
    if (slot_of(key, &slot))
        see(w, &held->seen, slot, value.data, value.len);
    for (size_t i = 0; i < key.len; i++)
        sum = random_mix(sum + ((const uint8_t *)key.data)[i]);
    for (size_t i = 0; i < value.len; i += value.len / 64 + 1)
        sum = random_mix(sum + ((const uint8_t *)value.data)[i]);
    held->sum += random_mix(sum + value.len);
    held->records++;
}

static void see_tree(struct worker *w, bft_tree *tree, bool back,
                     struct held *held)
{
    bft_cursor *cursor;
    bft_status status;
    if (!expect(w, bft_snapshot_cursor(held->snapshot, tree, &cursor),
                "cursor of a snapshot"))
        return;
    status = back ? bft_cursor_last(cursor) : bft_cursor_first(cursor);
    while (status == BFT_OK && !w->error[0]) {
        bft_slice key, value;
        status = bft_cursor_record(cursor, &key, &value);
        if (status != BFT_OK)
            break;
        see_record(w, key, value, held);
        if (below(w, 16) == 0)
            sched_yield();
        status = back ? bft_cursor_prev(cursor) : bft_cursor_next(cursor);
    }
    if (status != BFT_NOT_FOUND)
        wrong(w, status, "stepping in a snapshot");
    bft_cursor_close(cursor);
}

static void check_equal(struct worker *w, const struct seen *expected,
                        const struct seen *is, const char *what)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        if (expected->there[i] != is->there[i])
            differs(w, what, i, expected->there[i], is->there[i]);
        if (expected->number[i] != is->number[i])
            differs(w, what, i, expected->number[i], is->number[i]);
        if (expected->len[i] != is->len[i])
            differs(w, what, i, (int64_t)expected->len[i], (int64_t)is->len[i]);
    }
}

static void check_accounts(struct worker *w, const struct seen *seen)
{
    int64_t sum = 0;
    for (unsigned i = ACCOUNT; i < ACCOUNT + ACCOUNTS; i++)
        sum += seen->number[i];
    if (sum != (int64_t)ACCOUNTS * MONEY)
        differs(w, "the sum of all accounts", ACCOUNT,
                (int64_t)ACCOUNTS * MONEY, sum);
    for (unsigned i = PAIR; i < PAIR + 2 * PAIRS; i += 2)
        if (seen->number[i] + seen->number[i + 1] < 0)
            differs(w, "a pair is below 0", i, 0,
                    seen->number[i] + seen->number[i + 1]);
}

static void check_order(struct worker *w, const struct seen *seen)
{
    for (unsigned i = 0; i < BATCH * BATCHERS; i++) {
        unsigned slot = BATCHED + i, first = slot - i % BATCH;
        if (seen->there[slot] != seen->there[first] ||
            seen->number[slot] != seen->number[first])
            differs(w, "a part of a batch", slot, seen->number[first],
                    seen->number[slot]);
    }
    for (unsigned i = CAUSED; i < CAUSED + 2 * CAUSERS; i += 2)
        if (seen->number[i] != seen->number[i + 1] &&
            seen->number[i] != seen->number[i + 1] + 1)
            differs(w, "a second write without the first", i,
                    seen->number[i + 1], seen->number[i]);
}

static void look_at(struct worker *w, struct held *held)
{
    struct held now = {.snapshot = held->snapshot};
    bool first = held->records == 0, back = below(w, 2);
    atomic_fetch_add(&w->world->looks, 1);
    if (!first && below(w, 2)) {
        for (unsigned i = 0; i < SLOTS && !w->error[0]; i++)
            see_by_get(w, held->snapshot, i, &now.seen);
        check_equal(w, &held->seen, &now.seen, "what a get shows later");
        return;
    }
    for (unsigned t = 0; t < TREES; t++)
        see_tree(w, w->world->tree[t], back, &now);
    if (w->error[0])
        return;
    if (first)
        *held = now;
    check_equal(w, &held->seen, &now.seen, "what a cursor shows later");
    if (held->records != now.records || held->sum != now.sum)
        differs(w, "all records", 0, (int64_t)held->records,
                (int64_t)now.records);
    check_accounts(w, &now.seen);
    check_order(w, &now.seen);
}

static void *taker_main(void *arg)
{
    struct worker *w = arg;
    struct held *held = calloc(HELD, sizeof(*held));
    while (!atomic_load(&w->world->stop) && !w->error[0]) {
        struct held *h = &held[below(w, HELD)];
        if (h->snapshot && below(w, 3) == 0) {
            bft_snapshot_release(h->snapshot);
            memset(h, 0, sizeof(*h));
        } else if (!h->snapshot) {
            if (expect(w, bft_snapshot_take(w->world->f->db, &h->snapshot),
                       "taking a snapshot"))
                atomic_fetch_add(&w->world->taken, 1);
        }
        if (h->snapshot && below(w, 4))
            look_at(w, h);
    }
    for (unsigned i = 0; i < HELD; i++) {
        if (held[i].snapshot && !w->error[0])
            look_at(w, &held[i]);
        bft_snapshot_release(held[i].snapshot);
    }
    free(held);
    return NULL;
}

/* --- transactions --------------------------------------------------------------- */

static bool txn_number(struct worker *w, bft_txn *txn, unsigned slot,
                       int64_t *number)
{
    uint8_t buf[64];
    char kbuf[24];
    size_t len = 0;
    bft_slice key = key_of(kbuf, slot, 0), value;
    bft_cursor *cursor;
    bft_status status;
    if (below(w, 3)) {
        status = bft_txn_get(txn, tree_of(w->world, slot), key, buf,
                             sizeof(buf), &len);
        return expect(w, status, "get of a transaction") &&
               number_of(w, buf, len, number);
    }
    status = bft_txn_cursor(txn, tree_of(w->world, slot), &cursor);
    if (status == BFT_OK) {
        bool there;
        status = bft_cursor_seek(cursor, below(w, 2) ? BFT_LE : BFT_GE, key);
        if (status == BFT_OK)
            status = bft_cursor_value(cursor, &value);
        there = status == BFT_OK && number_of(w, value.data, value.len, number);
        bft_cursor_close(cursor);
        if (there)
            return true;
    }
    wrong(w, status, "cursor of a transaction");
    return false;
}

static void txn_set(struct worker *w, bft_txn *txn, unsigned slot,
                    int64_t number)
{
    char buf[24];
    expect(w,
           bft_txn_put(txn, tree_of(w->world, slot), key_of(buf, slot, 0),
                       value_of(w->value, number, short_len(w))),
           "put of a transaction");
}

/* False: a conflict, or given up. */
static bool txn_end(struct worker *w, bft_txn *txn)
{
    bft_status status;
    if (w->error[0] || below(w, 10) == 0) {
        bft_txn_abort(txn);
        return false;
    }
    status = bft_txn_commit(txn, BFT_DEFAULT, NULL);
    if (status != BFT_OK && status != BFT_CONFLICT)
        wrong(w, status, "commit");
    atomic_fetch_add(
        status == BFT_OK ? &w->world->commits : &w->world->conflicts, 1);
    return status == BFT_OK;
}

/* What was not committed left nothing; what was is in the next snapshot. */
static void check_mark(struct worker *w, int64_t expected)
{
    unsigned slot = MARK + w->id;
    bft_snapshot *snapshot;
    struct seen seen;
    memset(&seen, 0, sizeof(seen));
    if (!expect(w, bft_snapshot_take(w->world->f->db, &snapshot),
                "taking a snapshot"))
        return;
    see_by_get(w, snapshot, slot, &seen);
    bft_snapshot_release(snapshot);
    if (seen.number[slot] != expected)
        differs(w, "what was committed last", slot, expected,
                seen.number[slot]);
}

static void move(struct worker *w, int64_t *mark)
{
    unsigned from = below(w, ACCOUNTS);
    unsigned to = (from + 1 + below(w, ACCOUNTS - 1)) % ACCOUNTS;
    int64_t a, b, amount = below(w, 100), number = next_serial(w);
    bft_txn *txn;
    if (!expect(w,
                bft_txn_begin(w->world->f->db,
                              below(w, 2) ? BFT_SERIALIZABLE
                                          : BFT_SNAPSHOT_ISOLATION,
                              &txn),
                "begin"))
        return;
    if (txn_number(w, txn, ACCOUNT + from, &a) &&
        txn_number(w, txn, ACCOUNT + to, &b)) {
        txn_set(w, txn, ACCOUNT + from, a - amount);
        txn_set(w, txn, ACCOUNT + to, b + amount);
        txn_set(w, txn, MARK + w->id, number);
    }
    if (txn_end(w, txn))
        *mark = number;
    check_mark(w, *mark);
}

static void *mover_main(void *arg)
{
    struct worker *w = arg;
    int64_t mark = -1;
    slot_put(w, MARK + w->id, mark, 8);
    for (unsigned i = 0; (i < MOVES || atomic_load(&w->world->looks) <
                                           atomic_load(&w->world->wanted)) &&
                         !atomic_load(&w->world->failed);
         i++)
        move(w, &mark);
    return NULL;
}

/* Each reads both of a pair and writes one. */
static void *skewer_main(void *arg)
{
    struct worker *w = arg;
    while (!atomic_load(&w->world->stop) && !w->error[0]) {
        unsigned pair = PAIR + 2 * below(w, PAIRS), side = below(w, 2);
        int64_t n[2], amount = 1 + below(w, 100);
        bft_txn *txn;
        if (!expect(w, bft_txn_begin(w->world->f->db, BFT_SERIALIZABLE, &txn),
                    "begin"))
            break;
        if (txn_number(w, txn, pair, &n[0]) &&
            txn_number(w, txn, pair + 1, &n[1]))
            txn_set(w, txn, pair + side,
                    n[0] + n[1] < amount ? n[side] + 70 : n[side] - amount);
        (void)txn_end(w, txn);
    }
    return NULL;
}

/* --- other writers -------------------------------------------------------------- */

static void *batcher_main(void *arg)
{
    struct worker *w = arg;
    bft_batch *batch;
    expect(w, bft_batch_create(w->world->f->db, &batch), "batch create");
    while (!atomic_load(&w->world->stop) && !w->error[0]) {
        int64_t number = next_serial(w);
        bool removal = below(w, 4) == 0;
        for (unsigned i = 0; i < BATCH; i++) {
            unsigned slot = BATCHED + w->id * BATCH + i;
            char buf[24];
            bft_slice key = key_of(buf, slot, 0);
            bft_slice value =
                value_of(w->value, number, below(w, 20) ? 8 : 500);
            bft_tree *tree = tree_of(w->world, slot);
            expect(w,
                   removal ? bft_batch_delete(batch, tree, key)
                           : bft_batch_put(batch, tree, key, value),
                   "batch");
        }
        expect(w, bft_batch_commit(batch, BFT_DEFAULT, NULL), "batch commit");
    }
    bft_batch_free(batch);
    return NULL;
}

/* First one slot, then the other; both are in the snapshot that comes then. */
static void cause(struct worker *w, unsigned slot, int64_t number)
{
    struct seen seen;
    bft_snapshot *snapshot;
    slot_put(w, slot, number, short_len(w));
    slot_put(w, slot + 1, number, short_len(w));
    if (below(w, 4) || !expect(w, bft_snapshot_take(w->world->f->db, &snapshot),
                               "taking a snapshot"))
        return;
    memset(&seen, 0, sizeof(seen));
    for (unsigned i = 0; i < 2; i++) {
        see_by_get(w, snapshot, slot + i, &seen);
        if (seen.number[slot + i] != number)
            differs(w, "what the thread itself wrote", slot + i, number,
                    seen.number[slot + i]);
    }
    bft_snapshot_release(snapshot);
}

static void *causer_main(void *arg)
{
    struct worker *w = arg;
    int64_t *number = &w->world->caused[w->id];
    while (!atomic_load(&w->world->stop) && !w->error[0])
        cause(w, CAUSED + 2 * w->id, ++*number);
    return NULL;
}

static void *replacer_main(void *arg)
{
    struct worker *w = arg;
    while (!atomic_load(&w->world->stop) && !w->error[0]) {
        unsigned slot = LARGES + below(w, LARGE);
        char buf[24];
        if (below(w, 6) == 0)
            expect(w, bft_delete(tree_of(w->world, slot), key_of(buf, slot, 0)),
                   "delete");
        else {
            size_t len = any_len(w);
            slot_put(w, slot, len ? next_serial(w) : 0, len);
        }
    }
    return NULL;
}

/* Records between the slots, what moves leaves, and checkpoints, in which
 * histories go. */
static void stir(struct worker *w)
{
    struct bfti_engine *engine = w->world->f->db->engine;
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    unsigned slot = below(w, SLOTS);
    char low[24], high[24];
    bft_slice key = key_of(low, slot, 1 + below(w, OTHERS));
    bft_tree *tree = tree_of(w->world, slot);
    bool done;
    if (below(w, 12) == 0)
        expect(w, bft_delete_range(tree, key, key_of(high, slot, 99), NULL),
               "delete range");
    else if (below(w, 3))
        expect(w, bft_put(tree, key, value_of(w->value, 1, below(w, 100) + 8)),
               "put");
    else
        expect(w, bft_delete(tree, key), "delete");
    for (unsigned i = 0; i < 2; i++)
        expect(w, bfti_evict_one(&engine->buffer, rec, &done), "evict");
    expect(w, bfti_sweep(engine, rec), "sweep");
    if (below(w, 50) == 0)
        expect(w, bft_checkpoint(w->world->f->db), "checkpoint");
}

static void *stirrer_main(void *arg)
{
    struct worker *w = arg;
    while (!atomic_load(&w->world->stop) && !w->error[0])
        stir(w);
    return NULL;
}

/* --- the whole ------------------------------------------------------------------ */

static void worker_make(struct world *world, struct worker *w, unsigned id)
{
    memset(w, 0, sizeof(*w));
    w->world = world;
    w->id = id;
    w->random = random_next();
    w->value = malloc(VALUE_MAX);
    w->wanted = malloc(VALUE_MAX);
    assert_non_null(w->value);
    assert_non_null(w->wanted);
}

static void worker_free(struct worker *w)
{
    free(w->value);
    free(w->wanted);
    if (w->error[0])
        fail_msg("thread %u: %s", w->id, w->error);
}

static void fill(struct world *world)
{
    struct worker w;
    worker_make(world, &w, 0);
    for (unsigned i = 0; i < ACCOUNTS; i++)
        slot_put(&w, ACCOUNT + i, MONEY, 8);
    for (unsigned i = 0; i < 2 * PAIRS; i++)
        slot_put(&w, PAIR + i, 50, 8);
    worker_free(&w);
}

static const struct {
    unsigned count;
    void *(*main)(void *);
} kinds[] = {
    {MOVERS, mover_main},       {SKEWERS, skewer_main},
    {BATCHERS, batcher_main},   {CAUSERS, causer_main},
    {REPLACERS, replacer_main}, {TAKERS, taker_main},
    {1, stirrer_main},
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]), WORKERS_MAX = 32 };

static void run_round(struct world *world)
{
    static struct worker worker[WORKERS_MAX];
    unsigned n = 0;
    atomic_store(&world->stop, false);
    atomic_store(&world->wanted, atomic_load(&world->looks) + LOOKS);
    for (unsigned kind = 0; kind < KINDS; kind++)
        for (unsigned i = 0; i < kinds[kind].count; i++, n++) {
            worker_make(world, &worker[n], i);
            assert_int_equal(0, pthread_create(&worker[n].thread, NULL,
                                               kinds[kind].main, &worker[n]));
        }
    for (unsigned i = 0; i < n; i++) {
        if (i == MOVERS)
            atomic_store(&world->stop, true);
        assert_int_equal(0, pthread_join(worker[i].thread, NULL));
    }
    for (unsigned i = 0; i < n; i++)
        worker_free(&worker[i]);
    expect_ok(bft_verify(world->f->db));
}

static void run_world(enum engine_backend backend, bool no_threads,
                      uint32_t leaf_bytes)
{
    struct world world;
    bft_stats stats;
    memset(&world, 0, sizeof(world));
    world.f = engine_fixture_make(backend);
    world.f->options.no_threads = no_threads;
    engine_open(world.f);
    world.tree[0] = engine_tree(world.f, "one", 512);
    world.tree[1] = engine_tree(world.f, "two", leaf_bytes);
    fill(&world);
    for (unsigned round = 0; round < ROUNDS; round++)
        run_round(&world);
    stats = engine_stats(world.f);
    print_message("%llu commits, %llu conflicts, %llu snapshots, %llu looks; "
                  "%llu splits, %llu leaves absorbed, %llu checkpoints\n",
                  (unsigned long long)atomic_load(&world.commits),
                  (unsigned long long)atomic_load(&world.conflicts),
                  (unsigned long long)atomic_load(&world.taken),
                  (unsigned long long)atomic_load(&world.looks),
                  (unsigned long long)stats.splits,
                  (unsigned long long)stats.leaf_merges,
                  (unsigned long long)stats.checkpoints);
    assert_true(atomic_load(&world.commits) && atomic_load(&world.conflicts));
    assert_true(atomic_load(&world.taken) && stats.splits);
    engine_fixture_free(world.f);
}

static void every_snapshot_is_one_instant(void **state)
{
    (void)state;
    random_start();
    run_world(ENGINE_MEMORY, false, 512);
    run_world(ENGINE_POSIX, true, 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_snapshot_is_one_instant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
