#include "covalue_crash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bftree_stores.h"
#include "fileio/vfs_sim.h"
#include "index/engine.h"
#include "tally.h"

#define ok(call) is_ok((call), #call)

enum {
    MESSAGES = 24,
    EACH = 3,   /* transactions of a message */
    BIG = 1200, /* of the CoValue that is erased: several batches */
    AT_ONCE = 60,
    IMAGES_MAX = 4096,
    BUF = 1 << 18,
    SAID = 200,
};

/* What had been acknowledged when an image was taken. */
struct acked {
    uint64_t messages, synced; /* up to which one */
    bool erasing, erased;      /* the big one: begun; done, with a sync */
};

struct image {
    struct bfti_vfs *vfs;
    enum bfti_sim_policy policy;
    uint64_t step;
    struct acked acked;
};

struct crash {
    struct bfti_vfs *sim;
    bft_db *db;
    bft_covalue_store *store;
    struct acked acked;
    struct image images[IMAGES_MAX];
    size_t count;
    uint64_t *buf;
    /* Images of an erasure under way that it survived as not begun, and as
     * begun: those that opening finished. */
    size_t stored, finished;
    char torn[SAID], lost[SAID]; /* what was wrong, first of all */
};

/* With the text that says why not. */
static void is_ok(bft_status status, const char *call)
{
    char said[SAID];

    if (status == BFT_OK)
        return;
    (void)bft_last_error(said, sizeof(said));
    fail_msg("%s: %s", call, said);
}

/* --- opening ------------------------------------------------------------------------ */

static void db_open(struct bfti_vfs *vfs, bft_db **db,
                    bft_covalue_store **store)
{
    const struct bfti_surroundings around = {.env = bfti_env_system(),
                                             .vfs = vfs};
    const bft_options options = {.size = sizeof(options),
                                 .memory_bytes = 256 << 10,
                                 .log_bytes = 256 << 10,
                                 .log_segment_bytes = 64 << 10,
                                 .no_threads = true,
                                 .internal = &around};

    ok(bft_open("/db", &options, db));
    ok(bft_covalue_open(*db, NULL, store));
}

/* Before each step: what a crash now would leave.  Looked at later, for the
 * step is in the middle of a call. */
static void take_images(void *arg, const struct bfti_sim_step *step)
{
    struct crash *c = arg;

    for (int policy = 0; policy < BFTI_SIM_POLICIES; policy++) {
        struct image *image = &c->images[c->count];

        assert_true(c->count < IMAGES_MAX);
        image->policy = (enum bfti_sim_policy)policy;
        image->step = step->number;
        image->acked = c->acked;
        ok(bfti_sim_image(c->sim, image->policy, step->number, &image->vfs));
        c->count++;
    }
}

/* --- looking at an image ------------------------------------------------------------- */

static void say(char *said, const struct image *image, const char *what,
                uint64_t number)
{
    if (said[0] == 0)
        snprintf(said, SAID, "before step %llu, %s: %s %llu",
                 (unsigned long long)image->step,
                 bfti_sim_policy_name(image->policy), what,
                 (unsigned long long)number);
}

static const bft_covalue_view *load(struct crash *c, bft_covalue_store *store,
                                    const char *id)
{
    size_t used;

    ok(bft_covalue_load(store, (bft_slice){id, strlen(id)}, BFT_LOAD_CONTENT,
                        c->buf, BUF, &used));
    return (const void *)c->buf;
}

/* Messages 1 to the count of CoValues, less the big one, each whole. */
static void look_at_messages(struct crash *c, const struct image *image,
                             bft_covalue_store *store)
{
    uint64_t count = bft_covalue_count(store) - 1;
    bool kill = image->policy == BFTI_SIM_KILL;

    if (count < image->acked.synced)
        say(c->lost, image, "a synced message is lost after", count);
    if (kill && count < image->acked.messages)
        say(c->lost, image, "a buffered message is lost after", count);
    for (uint64_t i = 1; i <= count; i++) {
        const bft_covalue_view *view;
        uint64_t row;
        char id[16];

        snprintf(id, sizeof(id), "co_z%llu", (unsigned long long)i);
        if (bft_covalue_row(store, (bft_slice){id, strlen(id)}, &row) !=
            BFT_OK) {
            say(c->torn, image, "there is no message", i);
            return;
        }
        view = load(c, store, id);
        if (view->session_count != 1 || view->transaction_count != EACH)
            say(c->torn, image, "there is a part of message", i);
    }
}

static void look_at_erasure(struct crash *c, const struct image *image,
                            bft_covalue_store *store,
                            const bft_covalue_census *census)
{
    const bft_covalue_view *view = load(c, store, "co_zbig");
    uint64_t left =
        census->transactions - EACH * (bft_covalue_count(store) - 1);

    if (image->acked.erasing && !image->acked.erased) {
        c->stored += view->session_count == 2;
        c->finished += view->session_count == 1;
    }
    if (census->orphan_transactions != 0 || census->erasures_unfinished != 0)
        say(c->torn, image, "an erasure left transactions:", left);
    if (view->session_count == 2 ? left != BIG + 1 : left != 1)
        say(c->torn, image, "a half erased CoValue has transactions:", left);
    if (view->session_count == 1 && !image->acked.erasing)
        say(c->torn, image, "erased before its time, with", left);
    if (view->session_count == 2 && image->acked.erased)
        say(c->lost, image, "a synced erasure is lost, with", left);
}

static void look_at(struct crash *c, const struct image *image)
{
    bft_covalue_census census = {.size = sizeof(census)};
    bft_db *db;
    bft_covalue_store *store;

    db_open(image->vfs, &db, &store);
    ok(bft_verify(db));
    if (bft_covalue_check(store, &census) != BFT_OK) {
        say(c->torn, image, "the check fails, of CoValues there are",
            bft_covalue_count(store));
    } else {
        look_at_messages(c, image, store);
        look_at_erasure(c, image, store, &census);
    }
    bft_covalue_close(store);
    ok(bft_close(db));
}

static void look_at_all(struct crash *c)
{
    tally(TALLY_IMAGES, c->count);
    for (size_t i = 0; i < c->count; i++) {
        look_at(c, &c->images[i]);
        bfti_vfs_sim_destroy(c->images[i].vfs);
    }
    c->count = 0;
}

/* --- the workload ---------------------------------------------------------------------- */

static void apply(struct crash *c, bft_covalue_op *ops, size_t count,
                  bft_durability durability)
{
    ok(bft_covalue_apply(c->store, ops, count, durability, NULL));
}

static bft_slice slice(const char *text)
{
    return (bft_slice){text, strlen(text)};
}

/* The CoValue that will be erased, durable before any crash. */
static void store_big(struct crash *c)
{
    bft_covalue_op ops[AT_ONCE] = {
        {.kind = BFT_OP_COVALUE, .id = slice("co_zbig"), .value = slice("{}")},
        {.kind = BFT_OP_SESSION,
         .flags = BFT_OP_LATEST,
         .idx = 1,
         .id = slice("d$"),
         .value = slice("sig")},
        {.kind = BFT_OP_TRANSACTION,
         .flags = BFT_OP_LATEST,
         .value = slice("kept")},
        {.kind = BFT_OP_SESSION,
         .flags = BFT_OP_LATEST,
         .idx = 50,
         .id = slice("s"),
         .value = slice("sig")},
    };

    apply(c, ops, 4, BFT_BUFFERED);
    for (uint64_t i = 0; i < BIG; i += AT_ONCE) {
        for (uint64_t k = 0; k < AT_ONCE; k++)
            ops[k] = (bft_covalue_op){.kind = BFT_OP_TRANSACTION,
                                      .row = 2,
                                      .idx = i + k,
                                      .value = slice("gone")};
        apply(c, ops, AT_ONCE, BFT_BUFFERED);
    }
    ok(bft_checkpoint(c->db));
}

/* As one message of Jazz: header, session row, transactions; every third one
 * with a sync. */
static void store_message(struct crash *c, uint64_t i)
{
    bft_durability durability = i % 3 == 0 ? BFT_SYNC : BFT_BUFFERED;
    bft_covalue_op ops[2 + EACH];
    char id[16];

    snprintf(id, sizeof(id), "co_z%llu", (unsigned long long)i);
    ops[0] = (bft_covalue_op){.kind = BFT_OP_COVALUE,
                              .id = slice(id),
                              .value = slice("{\"header\":1}")};
    ops[1] = (bft_covalue_op){.kind = BFT_OP_SESSION,
                              .flags = BFT_OP_LATEST,
                              .idx = EACH,
                              .bytes = 60,
                              .id = slice("s"),
                              .value = slice("signature")};
    for (uint64_t k = 0; k < EACH; k++)
        ops[2 + k] = (bft_covalue_op){.kind = BFT_OP_TRANSACTION,
                                      .flags = BFT_OP_LATEST,
                                      .idx = k,
                                      .value = slice("{\"changes\":[]}")};
    apply(c, ops, 2 + EACH, durability);
    c->acked.messages = i;
    if (durability == BFT_SYNC)
        c->acked.synced = i;
}

static void workload(struct crash *c)
{
    for (uint64_t i = 1; i <= MESSAGES; i++) {
        store_message(c, i);
        look_at_all(c);
        if (i != MESSAGES / 2)
            continue;
        c->acked.erasing = true;
        ok(bft_covalue_erase(c->store, slice("co_zbig"), BFT_SYNC, NULL));
        c->acked.erased = true;
        c->acked.synced = i;
        look_at_all(c);
        ok(bft_checkpoint(c->db));
        look_at_all(c);
    }
}

static void crash_everywhere(struct crash *c)
{
    c->buf = malloc(BUF);
    assert_non_null(c->buf);
    c->sim = bfti_vfs_sim_create(bfti_env_system(), 1);
    assert_non_null(c->sim);
    db_open(c->sim, &c->db, &c->store);
    store_big(c);
    bfti_sim_on_step(c->sim, take_images, c);
    workload(c);
    bfti_sim_on_step(c->sim, NULL, NULL);
    bft_covalue_close(c->store);
    ok(bft_close(c->db));
    bfti_vfs_sim_destroy(c->sim);
    free(c->buf);
}

const char *every_crash_leaves_whole_transactions(void)
{
    static struct crash c;

    memset(&c, 0, sizeof(c));
    crash_everywhere(&c);
    if (c.torn[0] == 0 &&
        (c.stored < BFTI_SIM_POLICIES || c.finished < BFTI_SIM_POLICIES))
        return "hardly a crash met the erasure";
    return c.torn[0] != 0 ? c.torn : NULL;
}

const char *what_was_synced_survives_every_crash(void)
{
    static struct crash c;

    memset(&c, 0, sizeof(c));
    crash_everywhere(&c);
    return c.lost[0] != 0 ? c.lost : NULL;
}
