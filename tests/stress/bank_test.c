/*
 * A bank: eight threads move money between accounts, leaves split, merge and
 * leave memory beneath, power goes in the middle, and no money is ever made or
 * lost.  Every snapshot has all of it.
 *
 * Who moves money claims both accounts, each by a compare-and-swap that puts its
 * name into the record, and then writes both in one batch.  Nobody else writes a
 * claimed account.  Every write of an account raises its version: so a reader
 * that reads some accounts twice, and finds the same versions, knows what all of
 * them had at one instant between (Y. Afek and others, "Atomic snapshots of shared
 * memory", 1993), and there the sum must be right.
 *
 * Others move money by transactions of either isolation, past accounts that are
 * claimed; and read by snapshots, in which all sums must be right.
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
    MOVERS = 8,
    READERS = 2,
    GROUPS = 6, /* money stays in its group */
    GROUP = 4,  /* accounts of a group */
    ACCOUNTS = GROUPS * GROUP,
    TREES = 2,
    MONEY = 1000, /* of each account, at first */
    MOVES = 120,  /* tries of a thread in a round */
    ROUNDS = 12,
    OTHERS = 8, /* records between two accounts */
    OTHERS_BYTES = 120,
};

struct account {
    uint64_t version;
    uint32_t owner; /* 0: nobody has claimed it */
    int32_t balance;
    uint8_t padding[20];
};

struct bank {
    struct engine_fixture *f;
    bft_tree *tree[TREES];
    _Atomic bool stop;
    _Atomic uint64_t moved, refused, instants; /* that a sum was checked at */
    _Atomic uint64_t committed, conflicts, snapshots;
};

struct worker {
    struct bank *bank;
    uint64_t random;
    pthread_t thread;
    unsigned id; /* from 1 */
    char error[300];
};

static unsigned below(struct worker *w, unsigned limit)
{
    return (unsigned)(random_of(&w->random) % limit);
}

static void wrong(struct worker *w, bft_status status, const char *what)
{
    char text[160] = "";
    if (w->error[0])
        return;
    (void)bft_last_error(text, sizeof(text));
    snprintf(w->error, sizeof(w->error), "%s: %s: %s", what,
             bft_strerror(status), text);
}

static void expect(struct worker *w, bft_status status, const char *what)
{
    if (status != BFT_OK)
        wrong(w, status, what);
}

static bft_slice key_of(char buf[24], unsigned account, unsigned other)
{
    int len = other ? snprintf(buf, 24, "account-%02u-%02u", account, other)
                    : snprintf(buf, 24, "account-%02u", account);
    return (bft_slice){buf, (size_t)len};
}

static bft_tree *tree_of(const struct bank *b, unsigned account)
{
    return b->tree[account % TREES];
}

static bft_slice slice_of(const struct account *a)
{
    return (bft_slice){a, sizeof(*a)};
}

/* --- moving money ----------------------------------------------------------- */

static bool look(struct worker *w, unsigned account, struct account *a)
{
    char kbuf[24];
    size_t len = 0;
    bft_status status = bft_get(tree_of(w->bank, account),
                                key_of(kbuf, account, 0), a, sizeof(*a), &len);
    if (status != BFT_OK || len != sizeof(*a))
        wrong(w, status, "an account is not there");
    return !w->error[0];
}

/* A is the record with what shall be changed; it becomes the next one. */
static bft_status swap(struct worker *w, unsigned account,
                       const struct account *old, struct account *a)
{
    char kbuf[24];
    bft_slice expected = slice_of(old), value = slice_of(a);
    a->version = old->version + 1;
    return bft_replace(tree_of(w->bank, account), key_of(kbuf, account, 0),
                       &expected, &value);
}

/* False: somebody else has it, or comes first. */
static bool claim(struct worker *w, unsigned account, struct account *a)
{
    struct account old;
    bft_status status;
    if (!look(w, account, &old) || old.owner)
        return false;
    *a = old;
    a->owner = w->id;
    status = swap(w, account, &old, a);
    if (status != BFT_OK && status != BFT_CONFLICT)
        wrong(w, status, "claiming");
    return status == BFT_OK;
}

/* Nobody can have changed what is claimed. */
static void give_up(struct worker *w, unsigned account,
                    const struct account *claimed)
{
    struct account a = *claimed;
    a.owner = 0;
    expect(w, swap(w, account, claimed, &a), "giving up a claim");
}

static void pay(struct worker *w, bft_batch *batch, const unsigned account[2],
                struct account a[2])
{
    int32_t amount = (int32_t)below(w, 100);
    a[0].balance -= amount;
    a[1].balance += amount;
    for (unsigned i = 0; i < 2; i++) {
        char kbuf[24];
        a[i].owner = 0;
        a[i].version++;
        expect(w,
               bft_batch_put(batch, tree_of(w->bank, account[i]),
                             key_of(kbuf, account[i], 0), slice_of(&a[i])),
               "batch put");
    }
    expect(w, bft_batch_commit(batch, BFT_DEFAULT, NULL), "commit");
    atomic_fetch_add(&w->bank->moved, 1);
}

/* Of both accounts, as the transaction sees them; false: one is claimed. */
static bool txn_change(struct worker *w, bft_txn *txn,
                       const unsigned account[2])
{
    int32_t amount = (int32_t)below(w, 100);
    for (unsigned i = 0; i < 2; i++) {
        char kbuf[24];
        struct account a;
        size_t len;
        bft_tree *tree = tree_of(w->bank, account[i]);
        bft_slice key = key_of(kbuf, account[i], 0);
        expect(w, bft_txn_get(txn, tree, key, &a, sizeof(a), &len), "txn get");
        if (w->error[0] || a.owner)
            return false;
        a.balance += i ? amount : -amount;
        a.version++;
        expect(w, bft_txn_put(txn, tree, key, slice_of(&a)), "txn put");
    }
    return true;
}

static void move_by_txn(struct worker *w, const unsigned account[2])
{
    bft_isolation isolation =
        below(w, 2) ? BFT_SERIALIZABLE : BFT_SNAPSHOT_ISOLATION;
    bft_txn *txn;
    bft_status status;
    expect(w, bft_txn_begin(w->bank->f->db, isolation, &txn), "txn begin");
    if (w->error[0])
        return;
    if (!txn_change(w, txn, account)) {
        bft_txn_abort(txn);
        return;
    }
    if (below(w, 4) == 0)
        sched_yield();
    status = bft_txn_commit(txn, BFT_DEFAULT, NULL);
    if (status != BFT_CONFLICT)
        expect(w, status, "txn commit");
    atomic_fetch_add(&w->bank->moved, status == BFT_OK);
    atomic_fetch_add(
        status == BFT_OK ? &w->bank->committed : &w->bank->conflicts, 1);
}

static void move(struct worker *w, bft_batch *batch)
{
    unsigned group = below(w, GROUPS) * GROUP;
    unsigned first = below(w, GROUP);
    unsigned account[2] = {group + first,
                           group + (first + 1 + below(w, GROUP - 1)) % GROUP};
    struct account a[2];
    if (below(w, 3) == 0) {
        move_by_txn(w, account);
        return;
    }
    if (!claim(w, account[0], &a[0])) {
        atomic_fetch_add(&w->bank->refused, 1);
        return;
    }
    if (below(w, 4) == 0)
        sched_yield();
    if (claim(w, account[1], &a[1])) {
        pay(w, batch, account, a);
        return;
    }
    give_up(w, account[0], &a[0]);
    atomic_fetch_add(&w->bank->refused, 1);
}

static void *mover_main(void *arg)
{
    struct worker *w = arg;
    bft_batch *batch;
    expect(w, bft_batch_create(w->bank->f->db, &batch), "batch create");
    for (unsigned i = 0; i < MOVES && !w->error[0]; i++)
        move(w, batch);
    bft_batch_free(batch);
    return NULL;
}

/* --- watching ------------------------------------------------------------------ */

/* The accounts from FROM on, so many, one after the other or by multi-get. */
static void collect(struct worker *w, unsigned from, unsigned count,
                    struct account *a)
{
    char kbuf[ACCOUNTS][24];
    bft_answer item[ACCOUNTS];
    if (below(w, 2)) {
        for (unsigned i = 0; i < count && !w->error[0]; i++)
            (void)look(w, from + i, &a[i]);
        return;
    }
    for (unsigned t = 0; t < TREES; t++) {
        size_t n = 0;
        for (unsigned i = 0; i < count; i++)
            if ((from + i) % TREES == t)
                item[n++] = (bft_answer){.key = key_of(kbuf[i], from + i, 0),
                                         .buf = &a[i],
                                         .buf_len = sizeof(a[i])};
        expect(w, bft_multi_get(w->bank->tree[t], item, n), "multi-get");
        for (size_t i = 0; i < n; i++)
            expect(w, item[i].status, "an account is not there");
    }
}

static int64_t sum_of(const struct account *a, unsigned count)
{
    int64_t sum = 0;
    for (unsigned i = 0; i < count; i++)
        sum += a[i].balance;
    return sum;
}

/* Of one group, or of all. */
static void watch(struct worker *w)
{
    struct account one[ACCOUNTS], two[ACCOUNTS];
    bool all = below(w, 8) == 0;
    unsigned from = all ? 0 : below(w, GROUPS) * GROUP;
    unsigned count = all ? ACCOUNTS : GROUP;
    memset(one, 0, sizeof(one));
    memset(two, 0, sizeof(two));
    collect(w, from, count, one);
    collect(w, from, count, two);
    for (unsigned i = 0; i < count; i++)
        if (one[i].version != two[i].version)
            return;
    atomic_fetch_add(&w->bank->instants, 1);
    if (sum_of(one, count) != (int64_t)count * MONEY && !w->error[0])
        snprintf(w->error, sizeof(w->error),
                 "%u accounts from %u have %lld in all", count, from,
                 (long long)sum_of(one, count));
}

/* By a cursor over a whole tree, past what else is in it. */
static void snapshot_walk(struct worker *w, bft_snapshot *snapshot, unsigned t,
                          struct account *a)
{
    bft_cursor *cursor;
    bft_slice key, value;
    char kbuf[24];
    bft_status status;
    unsigned account = t;
    expect(w, bft_snapshot_cursor(snapshot, w->bank->tree[t], &cursor),
           "snapshot cursor");
    if (!cursor)
        return;
    while ((status = bft_cursor_next(cursor)) == BFT_OK) {
        bft_slice next = key_of(kbuf, account, 0);
        expect(w, bft_cursor_record(cursor, &key, &value), "cursor record");
        if (w->error[0] || key.len != next.len)
            continue;
        if (account < ACCOUNTS && memcmp(key.data, next.data, key.len) == 0)
            memcpy(&a[account], value.data, sizeof(*a));
        account += TREES;
    }
    if (status != BFT_NOT_FOUND)
        wrong(w, status, "snapshot cursor step");
    bft_cursor_close(cursor);
}

static void snapshot_look(struct worker *w, bft_snapshot *snapshot,
                          struct account *a)
{
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        char kbuf[24];
        size_t len;
        expect(w,
               bft_snapshot_get(snapshot, tree_of(w->bank, i),
                                key_of(kbuf, i, 0), &a[i], sizeof(a[i]), &len),
               "an account is not in the snapshot");
    }
}

/* Twice, with time between: each group has its money, and nothing changes. */
static void watch_snapshot(struct worker *w)
{
    struct account a[2][ACCOUNTS];
    bft_snapshot *snapshot;
    expect(w, bft_snapshot_take(w->bank->f->db, &snapshot), "snapshot");
    memset(a, 0, sizeof(a));
    for (unsigned n = 0; n < 2 && !w->error[0]; n++) {
        if (below(w, 2))
            snapshot_look(w, snapshot, a[n]);
        else
            for (unsigned t = 0; t < TREES; t++)
                snapshot_walk(w, snapshot, t, a[n]);
        sched_yield();
    }
    bft_snapshot_release(snapshot);
    atomic_fetch_add(&w->bank->snapshots, 1);
    for (unsigned from = 0; from < ACCOUNTS && !w->error[0]; from += GROUP)
        if (sum_of(a[0] + from, GROUP) != (int64_t)GROUP * MONEY)
            snprintf(w->error, sizeof(w->error),
                     "in a snapshot the accounts from %u have %lld", from,
                     (long long)sum_of(a[0] + from, GROUP));
    for (unsigned i = 0; i < ACCOUNTS && !w->error[0]; i++)
        if (a[0][i].version != a[1][i].version)
            snprintf(w->error, sizeof(w->error), "a snapshot has changed");
}

static void *reader_main(void *arg)
{
    struct worker *w = arg;
    while (!atomic_load(&w->bank->stop) && !w->error[0])
        if (below(w, 3) == 0)
            watch_snapshot(w);
        else
            watch(w);
    return NULL;
}

/* --- what moves the leaves ------------------------------------------------------ */

static void *stir_main(void *arg)
{
    struct worker *w = arg;
    struct bfti_engine *engine = w->bank->f->db->engine;
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    uint8_t value[OTHERS_BYTES] = {0};
    while (!atomic_load(&w->bank->stop) && !w->error[0]) {
        char kbuf[24];
        unsigned account = below(w, ACCOUNTS);
        bft_slice key = key_of(kbuf, account, 1 + below(w, OTHERS));
        bool done;
        if (below(w, 3))
            expect(w,
                   bft_put(tree_of(w->bank, account), key,
                           (bft_slice){value, below(w, OTHERS_BYTES)}),
                   "put");
        else
            expect(w, bft_delete(tree_of(w->bank, account), key), "delete");
        for (unsigned i = 0; i < 4; i++)
            expect(w, bfti_evict_one(&engine->buffer, rec, &done), "evict");
        expect(w, bfti_sweep(engine, rec), "sweep");
        if (below(w, 100) == 0)
            expect(w, bft_checkpoint(w->bank->f->db), "checkpoint");
    }
    return NULL;
}

/* --- the whole --------------------------------------------------------------------- */

static void open_trees(struct bank *b)
{
    b->tree[0] = engine_tree(b->f, "one", 512);
    b->tree[1] = engine_tree(b->f, "two", 2048);
}

/* One batch opens all accounts. */
static void open_accounts(struct bank *b)
{
    struct account a = {.version = 1, .balance = MONEY};
    bft_batch *batch;
    expect_ok(bft_batch_create(b->f->db, &batch));
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        char kbuf[24];
        expect_ok(bft_batch_put(batch, tree_of(b, i), key_of(kbuf, i, 0),
                                slice_of(&a)));
    }
    expect_ok(bft_batch_commit(batch, BFT_SYNC, NULL));
    bft_batch_free(batch);
}

/* Nobody else is at work: all accounts are there, and each group has its money.
 * Claims that power has cut off are let go. */
static void audit(struct bank *b)
{
    struct worker w = {.bank = b, .random = 1};
    struct account a[ACCOUNTS];
    memset(a, 0, sizeof(a));
    for (unsigned i = 0; i < ACCOUNTS; i++)
        if (look(&w, i, &a[i]) && a[i].owner)
            give_up(&w, i, &a[i]);
    if (w.error[0])
        fail_msg("%s", w.error);
    for (size_t from = 0; from < ACCOUNTS; from += GROUP)
        assert_int_equal(GROUP * MONEY, sum_of(a + from, GROUP));
    expect_ok(bft_verify(b->f->db));
}

static void start(struct bank *b, struct worker *w, unsigned id,
                  void *(*main)(void *))
{
    memset(w, 0, sizeof(*w));
    w->bank = b;
    w->id = id;
    w->random = random_next();
    assert_int_equal(0, pthread_create(&w->thread, NULL, main, w));
}

static void finish(struct worker *w)
{
    assert_int_equal(0, pthread_join(w->thread, NULL));
    if (w->error[0])
        fail_msg("thread %u: %s", w->id, w->error);
}

/* What power that goes now would leave. */
static struct bfti_vfs *image_of(struct bank *b)
{
    struct bfti_vfs *image;
    uint64_t when = atomic_load(&b->moved) + random_below(MOVERS * MOVES / 4);
    for (unsigned i = 0; i < 100000 && atomic_load(&b->moved) < when; i++)
        sched_yield();
    expect_ok(bfti_sim_image(
        b->f->vfs, (enum bfti_sim_policy)random_below(BFTI_SIM_POLICIES),
        random_next(), &image));
    return image;
}

static void recover(struct bank *b, struct bfti_vfs *image)
{
    b->f->past = engine_stats(b->f);
    expect_ok(bft_close(b->f->db));
    b->f->db = NULL;
    bfti_vfs_sim_destroy(b->f->vfs);
    b->f->vfs = image;
    engine_open(b->f);
    open_trees(b);
}

static void run_round(struct bank *b, bool crashes)
{
    struct worker mover[MOVERS], reader[READERS], stir;
    struct bfti_vfs *image = NULL;
    atomic_store(&b->stop, false);
    start(b, &stir, 100, stir_main);
    for (unsigned i = 0; i < READERS; i++)
        start(b, &reader[i], 50 + i, reader_main);
    for (unsigned i = 0; i < MOVERS; i++)
        start(b, &mover[i], 1 + i, mover_main);
    if (crashes)
        image = image_of(b);
    for (unsigned i = 0; i < MOVERS; i++)
        finish(&mover[i]);
    atomic_store(&b->stop, true);
    for (unsigned i = 0; i < READERS; i++)
        finish(&reader[i]);
    finish(&stir);
    audit(b);
    if (crashes) {
        recover(b, image);
        audit(b);
    }
}

static void print_run(const struct bank *b, const bft_stats *stats)
{
    uint64_t evictions = stats->evictions_clean + stats->evictions_dirty;
    print_message("%llu moves, %llu refused, %llu by transactions, %llu "
                  "conflicts, %llu sums, %llu snapshots; %llu splits, %llu "
                  "leaves absorbed, %llu evictions, %llu promotions\n",
                  (unsigned long long)atomic_load(&b->moved),
                  (unsigned long long)atomic_load(&b->refused),
                  (unsigned long long)atomic_load(&b->committed),
                  (unsigned long long)atomic_load(&b->conflicts),
                  (unsigned long long)atomic_load(&b->instants),
                  (unsigned long long)atomic_load(&b->snapshots),
                  (unsigned long long)stats->splits,
                  (unsigned long long)stats->leaf_merges,
                  (unsigned long long)evictions,
                  (unsigned long long)stats->promotions);
    assert_true(stats->splits && evictions && stats->promotions);
}

/* Whoever has published a part of a batch gives way, at times: others look just
 * then. */
static void give_way(const char *point)
{
    static _Thread_local unsigned parts;
    if (strcmp(point, "batch:part-published") == 0 && parts++ % 16 == 0)
        sched_yield();
}

static void have_them_give_way(bool yes)
{
#ifndef NDEBUG
    atomic_store(&bfti_park, yes ? give_way : NULL);
#else
    (void)yes;
    (void)give_way;
#endif
}

static void run_bank(enum engine_backend backend, bool no_threads,
                     bft_durability durability, bool crashes)
{
    struct bank b;
    bft_stats stats;
    memset(&b, 0, sizeof(b));
    b.f = engine_fixture_make(backend);
    b.f->options.no_threads = no_threads;
    b.f->options.durability = durability;
    b.f->surroundings.nodes_bytes = 1; /* inner nodes come and go */
    engine_open(b.f);
    open_trees(&b);
    open_accounts(&b);
    have_them_give_way(true);
    for (unsigned round = 0; round < ROUNDS; round++)
        run_round(&b, crashes);
    have_them_give_way(false);
    stats = engine_stats(b.f);
    print_run(&b, &stats);
    assert_true(atomic_load(&b.moved) && atomic_load(&b.refused));
    assert_true(atomic_load(&b.instants));
    assert_true(atomic_load(&b.committed) && atomic_load(&b.conflicts));
    assert_true(atomic_load(&b.snapshots) > ROUNDS);
    engine_fixture_free(b.f);
}

static void no_money_is_made_or_lost(void **state)
{
    (void)state;
    random_start();
    run_bank(ENGINE_MEMORY, false, BFT_DEFAULT, false);
    run_bank(ENGINE_POSIX, true, BFT_BUFFERED, false);
}

static void nor_by_a_crash(void **state)
{
    (void)state;
    random_start();
    run_bank(ENGINE_SIM, false, BFT_BUFFERED, true);
    run_bank(ENGINE_SIM, true, BFT_NONE, true);
    run_bank(ENGINE_SIM, false, BFT_SYNC, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_money_is_made_or_lost),
        cmocka_unit_test(nor_by_a_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
