/*
 * Crashes about every sync of every short sequence of calls on a database that is
 * nearly new, or, where the cleaner is among them, has space for it to clean.  Nearly all crash bugs of file systems need three calls or fewer,
 * and show right after a sync (Mohan et al., "Finding Crash-Consistency Bugs with
 * Bounded Black-Box Crash Testing", OSDI 2018); so all sequences are tried, and
 * none is drawn.
 *
 * BFT_SEQUENCE_LENGTH: of the longest sequences; 2 else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "fileio/pagefile_internal.h"
#include "random.h"
#include "tally.h"

enum {
    KEYS = 4,
    LENGTH_MAX = 4,
    STATES_MAX = 2 * LENGTH_MAX + 2,
    IMAGES = 400,
    SMALL = 40,
    BIG = 3000, /* outside the leaf */
    STEPS_MAX = 100,
    OLD = 12, /* values that are gone */
};

static const bft_slice ALL = {NULL, 0};

/* What a key has: the number of the change that put it, 0 for nothing.  BIG ones
 * are odd. */
struct contents {
    unsigned version[KEYS];
};

struct image {
    struct bfti_vfs *vfs;
    enum bfti_sim_policy policy;
    unsigned low, high; /* it shows one of these states */
};

static struct {
    struct engine_fixture *f;
    bft_tree *tree;
    struct contents state[STATES_MAX];
    unsigned
        newest;    /* state that a call under way makes, or the last one made */
    unsigned made; /* state of the last call that has returned */
    unsigned synced; /* state that a power cut leaves at least */
    unsigned next;   /* version */
    bool after_sync; /* the last step was one */
    struct image image[IMAGES];
    unsigned images;
    const char *name[LENGTH_MAX];
    unsigned length;
    bft_snapshot *snapshot; /* or NULL; from one call to another */
    struct contents past;   /* what it shows */
    uint64_t moved;         /* leaves, by the cleaner */
} now;

/* --- contents ------------------------------------------------------------- */

static bft_slice key_of(unsigned k)
{
    static const char *const name[KEYS] = {"ant", "bee", "cat", "dog"};

    return (bft_slice){name[k], strlen(name[k])};
}

static size_t value_of(unsigned version, char value[BIG])
{
    size_t len = version % 2 ? BIG : SMALL;

    memset(value, 'a' + (int)(version % 26), len);
    (void)snprintf(value, SMALL, "%u", version);
    return len;
}

/* The state that the call to come makes: a copy of the last one, to be changed. */
static struct contents *next_state(void)
{
    assert_true(now.newest + 1 < STATES_MAX);
    now.state[now.newest + 1] = now.state[now.newest];
    return &now.state[++now.newest];
}

static unsigned version_for(bool big)
{
    now.next += 2;
    return now.next | big;
}

static void returned(void)
{
    now.made = now.newest;
}

static void returned_durable(void)
{
    returned();
    now.synced = now.made;
}

/* --- images --------------------------------------------------------------- */

static void take(void)
{
    static const enum bfti_sim_policy power[] = {
        BFTI_SIM_KEEP, BFTI_SIM_PREFIX, BFTI_SIM_REORDER, BFTI_SIM_TORN};
    const enum bfti_sim_policy policies[] = {BFTI_SIM_KILL, BFTI_SIM_DROP,
                                             power[random_below(4)]};

    for (size_t i = 0; i < sizeof(policies) / sizeof(*policies); i++) {
        struct image *image = &now.image[now.images++];

        assert_true(now.images <= IMAGES);
        image->policy = policies[i];
        image->low = policies[i] == BFTI_SIM_KILL ? now.made : now.synced;
        image->high = now.newest;
        if (bfti_sim_image(now.f->vfs, image->policy, random_below(1u << 30),
                           &image->vfs) != BFT_OK)
            abort();
    }
}

static void at_step(void *arg, const struct bfti_sim_step *step)
{
    bool is_sync = (step->op & (BFTI_SIM_SYNC | BFTI_SIM_SYNC_DIR)) != 0;

    (void)arg;
    if (is_sync || now.after_sync)
        take();
    now.after_sync = is_sync;
}

/* --- what an image shows -------------------------------------------------- */

static void fail_at(const struct image *image, const char *what)
{
    char said[300];

    bft_last_error(said, sizeof(said));
    print_error("%s", "after");
    for (unsigned i = 0; i < now.length; i++)
        print_error(" %s", now.name[i]);
    print_error(", policy %s, states %u to %u: %s (%s)\n",
                bfti_sim_policy_name(image->policy), image->low, image->high,
                what, said);
    fail();
}

static void read_contents(const struct image *image, bft_tree *tree,
                          struct contents *c)
{
    static char value[BIG], want[BIG];
    uint64_t count, found = 0;

    for (unsigned k = 0; k < KEYS; k++) {
        size_t len;
        bft_status status =
            bft_get(tree, key_of(k), value, sizeof(value), &len);

        c->version[k] = 0;
        if (status == BFT_NOT_FOUND)
            continue;
        if (status != BFT_OK)
            fail_at(image, "a key cannot be read");
        c->version[k] = (unsigned)strtoul(value, NULL, 10);
        if (value_of(c->version[k], want) != len || memcmp(value, want, len))
            fail_at(image, "a value is not what was put");
        found++;
    }
    if (bft_count(tree, ALL, ALL, &count) != BFT_OK || count != found)
        fail_at(image, "the count is not that of the keys");
}

static bool is_among_states(const struct image *image, const struct contents *c)
{
    for (unsigned i = image->low; i <= image->high; i++)
        if (memcmp(c, &now.state[i], sizeof(*c)) == 0)
            return true;
    return false;
}

static void look_at(const struct image *image)
{
    struct bfti_surroundings surroundings = {.env = &now.f->env,
                                             .vfs = image->vfs};
    bft_options options = now.f->options;
    struct contents c, again;
    bft_tree *tree;
    bft_db *db;

    options.internal = &surroundings;
    options.must_exist = true;
    if (bft_open("/db", &options, &db) != BFT_OK)
        fail_at(image, "it cannot be opened");
    expect_ok(bft_tree_open(db, "t", NULL, &tree));
    read_contents(image, tree, &c);
    if (!is_among_states(image, &c))
        fail_at(image, "it shows a state that there was not");
    if (bft_verify(db) != BFT_OK)
        fail_at(image, "it cannot be verified");
    /* What recovery wrote is lived from. */
    expect_ok(bft_put(tree, (bft_slice){"e", 1}, ALL));
    expect_ok(bft_delete(tree, (bft_slice){"e", 1}));
    expect_ok(bft_checkpoint(db));
    read_contents(image, tree, &again);
    if (memcmp(&c, &again, sizeof(c)) != 0)
        fail_at(image, "a checkpoint changes it");
    expect_ok(bft_close(db));
}

/* --- the calls ------------------------------------------------------------ */

static void put_as(unsigned k, bool big)
{
    static char value[BIG];
    unsigned version = version_for(big);
    size_t len = value_of(version, value);

    next_state()->version[k] = version;
    expect_ok(bft_put(now.tree, key_of(k), (bft_slice){value, len}));
    returned();
}

static void do_put(void)
{
    put_as(2, false);
}

static void do_overwrite(void)
{
    put_as(0, false);
}

static void do_big(void)
{
    put_as(1, true);
}

static void do_delete(void)
{
    next_state()->version[1] = 0;
    expect_ok(bft_delete(now.tree, key_of(1)));
    returned();
}

static void do_range_delete(void)
{
    uint64_t deleted;
    struct contents *c = next_state();

    c->version[1] = c->version[2] = 0;
    expect_ok(bft_delete_range(now.tree, key_of(1), key_of(3), &deleted));
    returned();
}

static void do_batch(void)
{
    static char value[BIG];
    unsigned version = version_for(true);
    size_t len = value_of(version, value);
    struct contents *c = next_state();
    bft_batch *batch;

    c->version[0] = 0;
    c->version[2] = c->version[3] = version;
    expect_ok(bft_batch_create(now.f->db, &batch));
    expect_ok(bft_batch_delete(batch, now.tree, key_of(0)));
    for (unsigned k = 2; k < KEYS; k++)
        expect_ok(
            bft_batch_put(batch, now.tree, key_of(k), (bft_slice){value, len}));
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    bft_batch_free(batch);
    returned();
}

/* Whatever was done since it was taken. */
static void release_snapshot(void)
{
    static char value[BIG], want[BIG];

    if (!now.snapshot)
        return;
    for (unsigned k = 0; k < KEYS; k++) {
        unsigned version = now.past.version[k];
        size_t len;
        bft_status status = bft_snapshot_get(now.snapshot, now.tree, key_of(k),
                                             value, sizeof(value), &len);

        expect_status(version ? BFT_OK : BFT_NOT_FOUND, status);
        if (!version)
            continue;
        assert_int_equal(value_of(version, want), len);
        assert_memory_equal(want, value, len);
    }
    bft_snapshot_release(now.snapshot);
    now.snapshot = NULL;
}

/* It stays open through the calls that follow, up to the next of these. */
static void do_snapshot(void)
{
    if (now.snapshot) {
        release_snapshot();
        return;
    }
    expect_ok(bft_snapshot_take(now.f->db, &now.snapshot));
    now.past = now.state[now.newest];
    put_as(3, false);
}

/* What the background does with space that nobody needs: a pass of the cleaner, and
 * the sweep. */
static void do_gc(void)
{
    struct bfti_engine *engine = now.f->db->engine;
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    bool more = true;

    engine->buffer.pf->space.cleaned_times = 0; /* it is not too soon */
    for (unsigned i = 0; more && i < STEPS_MAX; i++)
        expect_ok(bfti_clean(engine, rec, 64 << 10, true, &more));
    expect_ok(bfti_sweep(engine, rec));
    now.moved = engine_stats(now.f).leaves_moved;
}

static void do_transaction(void)
{
    static char value[BIG], read[BIG];
    unsigned version = version_for(false);
    size_t len = value_of(version, value), got;
    struct contents *c = next_state();
    bft_txn *txn;
    bft_status status;

    c->version[0] = version;
    c->version[3] = 0;
    expect_ok(bft_txn_begin(now.f->db, BFT_SERIALIZABLE, &txn));
    status = bft_txn_get(txn, now.tree, key_of(1), read, sizeof(read), &got);
    assert_int_equal(c->version[1] ? BFT_OK : BFT_NOT_FOUND, status);
    expect_ok(bft_txn_put(txn, now.tree, key_of(0), (bft_slice){value, len}));
    expect_ok(bft_txn_delete(txn, now.tree, key_of(3)));
    expect_ok(bft_txn_commit(txn, BFT_DEFAULT, NULL));
    returned();
}

/* A record that has expired is not there, and is then removed. */
static void do_expire(void)
{
    uint64_t removed;

    next_state()->version[2] = 0;
    expect_ok(bft_put_until(now.tree, key_of(2), key_of(2), 1));
    returned();
    expect_ok(bft_remove_expired(now.tree, &removed));
}

static void do_checkpoint(void)
{
    expect_ok(bft_checkpoint(now.f->db));
    returned_durable();
}

static void do_sync(void)
{
    expect_ok(bft_sync(now.f->db));
    returned_durable();
}

static void open_tree(void)
{
    bft_tree_options options = {
        .size = sizeof(options), .leaf_bytes = 512, .ttl_ms = 1000000000};

    expect_ok(bft_tree_open(now.f->db, "t", &options, &now.tree));
    /* A few blocks are worth cleaning, too. */
    now.f->db->engine->buffer.pf->space.hole_floor = 0;
}

static void do_reopen(void)
{
    release_snapshot();
    engine_reopen(now.f);
    returned_durable();
    open_tree();
}

static const struct {
    const char *name;
    void (*run)(void);
} calls[] = {
    {"put", do_put},
    {"overwrite", do_overwrite},
    {"delete", do_delete},
    {"batch", do_batch},
    {"big", do_big},
    {"range-delete", do_range_delete},
    {"expire", do_expire},
    {"checkpoint", do_checkpoint},
    {"snapshot", do_snapshot},
    {"transaction", do_transaction},
    {"reopen", do_reopen},
    {"sync", do_sync},
    {"gc", do_gc},
};
enum { CALLS = sizeof(calls) / sizeof(*calls) };

/* --- sequences ------------------------------------------------------------ */

/* Space at the front of the file, and what lives behind it: the cleaner has work. */
static void leave_space(void)
{
    static char value[BIG];
    bft_tree *old = engine_tree(now.f, "old", 512);
    char key[16];

    memset(value, 'o', sizeof(value));
    for (unsigned i = 0; i < OLD; i++) {
        int len = snprintf(key, sizeof(key), "old-%u", i);
        expect_ok(bft_put(old, (bft_slice){key, (size_t)len},
                          (bft_slice){value, sizeof(value)}));
    }
    expect_ok(bft_checkpoint(now.f->db));
    for (unsigned k = 0; k < KEYS; k++)
        put_as(k, false);
    expect_ok(bft_checkpoint(now.f->db));
    expect_ok(bft_tree_drop(now.f->db, "old"));
    expect_ok(bft_checkpoint(now.f->db));
}

static void begin(bool space)
{
    memset(&now, 0, sizeof(now));
    now.f = engine_fixture_make(ENGINE_SIM);
    now.f->options.no_threads = true;
    now.f->options.durability = BFT_BUFFERED;
    engine_open(now.f);
    open_tree();
    if (space)
        leave_space();
    put_as(0, false);
    put_as(1, false);
    do_sync();
    /* One state to begin with. */
    now.state[0] = now.state[now.newest];
    now.newest = now.made = now.synced = 0;
    bfti_sim_on_step(now.f->vfs, at_step, NULL);
}

static unsigned end(void)
{
    unsigned images;

    release_snapshot();
    take();
    engine_close(now.f);
    bfti_sim_on_step(now.f->vfs, NULL, NULL);
    images = now.images;
    for (unsigned i = 0; i < now.images; i++) {
        look_at(&now.image[i]);
        bfti_vfs_sim_destroy(now.image[i].vfs);
    }
    engine_fixture_free(now.f);
    return images;
}

static bool has_gc(unsigned number, unsigned length)
{
    for (; length > 0; length--, number /= CALLS)
        if (calls[number % CALLS].run == do_gc)
            return true;
    return false;
}

/* Sequence NUMBER of those of LENGTH calls. */
static unsigned run_sequence(unsigned number, unsigned length)
{
    begin(has_gc(number, length));
    for (; now.length < length; number /= CALLS) {
        now.name[now.length++] = calls[number % CALLS].name;
        calls[number % CALLS].run();
    }
    return end();
}

static void every_short_sequence_survives_a_crash(void **state)
{
    const char *text =
        getenv("BFT_SEQUENCE_LENGTH"); /* NOLINT(concurrency-mt-unsafe) */
    unsigned longest = text ? (unsigned)strtoul(text, NULL, 10) : 2;
    uint64_t images = 0, sequences = 0, cleaned = 0;

    (void)state;
    random_start();
    assert_in_range(longest, 1, LENGTH_MAX);
    for (unsigned length = 1, count = CALLS; length <= longest;
         length++, count *= CALLS)
        for (unsigned number = 0; number < count; number++, sequences++) {
            images += run_sequence(number, length);
            cleaned += now.moved > 0;
        }
    print_message("the cleaner moved leaves in %u of them\n",
                  (unsigned)cleaned);
    assert_true(cleaned > sequences / 20);
    tally(TALLY_SEQUENCES, sequences);
    tally(TALLY_IMAGES, images);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_short_sequence_survives_a_crash),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
