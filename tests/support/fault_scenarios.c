/*
 * Eight things that are done with a database, each of some hundred calls of the
 * disk.  What they draw follows from the seed of the life.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fault_life.h"
#include "fileio/fileio.h"

enum { LEAF = 512, WIDE = 4096 };

/* Records of the trees that follow from the number of a key. */
static void fill(struct fault_life *l, unsigned t, unsigned low, unsigned high,
                 unsigned step)
{
    for (unsigned k = low; k < high; k += step)
        fault_put(l, t, k,
                  k % 11 == 4   ? KNOWN_MIDDLE
                  : k % 61 == 9 ? KNOWN_OUTSIDE
                                : KNOWN_SHORT);
}

static unsigned any_key(struct fault_life *l)
{
    return fault_draw(l, KNOWN_KEYS);
}

/* --- work: small changes, reads, checkpoints, pages that give way ------------- */

static void prepare_work(struct fault_life *l)
{
    fault_make(l, 0, LEAF, 0);
    fault_make(l, 1, WIDE, 0);
    fill(l, 0, 0, 60, 1);
    for (unsigned k = 0; k < KNOWN_KEYS; k++)
        fault_put(l, 1, k, KNOWN_KILO);
}

static void work_step(struct fault_life *l)
{
    unsigned k = any_key(l);
    switch (fault_draw(l, 8)) {
    case 0:
        fault_delete(l, 0, k);
        break;
    case 1:
        fault_batch(l, 2, k, 6, BFT_DEFAULT);
        break;
    case 2:
        fault_batch(l, 1, k, 3, BFT_SYNC);
        break;
    case 3:
    case 4:
        fault_get(l, k % 2, k);
        break;
    case 5:
        fault_put(l, 0, k, KNOWN_OUTSIDE);
        break;
    default:
        fault_put(l, 0, k, KNOWN_SHORT);
        break;
    }
}

static void work(struct fault_life *l)
{
    if (!fault_open(l))
        return;
    for (unsigned i = 0; i < 24; i++) {
        work_step(l);
        if (i == 8)
            fault_scan(l, 0);
        if (i == 16)
            fault_checkpoint(l);
    }
    /* So many leaves do not fit into memory. */
    fault_merge(l, 1, fault_draw(l, 20), 160, 1, KNOWN_KILO);
    fault_close(l);
    if (!fault_open(l))
        return;
    for (unsigned i = 0; i < 6; i++)
        work_step(l);
    fault_sync(l);
}

/* --- recovery ---------------------------------------------------------------------- */

static void prepare_recovery(struct fault_life *l)
{
    for (unsigned t = 0; t < KNOWN_TREES; t++)
        fault_make(l, t, LEAF, 0);
    fill(l, 0, 0, 100, 1);
    fill(l, 1, 0, 90, 1);
    fill(l, 2, 0, 20, 1);
    fault_stream(l, 0, 150, KNOWN_STREAMED);
    fault_checkpoint(l);
    for (unsigned i = 0; i < 30; i++)
        fault_put(l, 0, any_key(l), KNOWN_SHORT);
    fault_batch(l, 3, any_key(l), 9, BFT_DEFAULT);
    fault_stream(l, 0, 150, KNOWN_STREAMED);
    fault_stream(l, 0, 151, KNOWN_STREAMED);
    fault_delete(l, 0, 151);
    fault_put(l, 0, 152, KNOWN_OUTSIDE);
    fault_delete_range(l, 1, 10, 70, false);
    fill(l, 1, 12, 60, 7);
    fault_load(l, 3, 0, 60, 1, KNOWN_SHORT);
    fault_rename(l, 3);
    fault_drop(l, 2);
    for (unsigned i = 0; i < 20; i++)
        fault_put(l, fault_draw(l, 2), any_key(l), KNOWN_SHORT);
    fault_sync(l);
    fill(l, 0, any_key(l), KNOWN_KEYS, 9); /* what a kill leaves */
}

static void recover(struct fault_life *l)
{
    if (!fault_open(l))
        return;
    for (unsigned i = 0; i < 6; i++) {
        fault_put(l, 0, any_key(l), KNOWN_SHORT);
        fault_get(l, 1, any_key(l));
    }
    fault_scan(l, 3);
    fault_close(l);
}

/* --- loads --------------------------------------------------------------------------- */

static void prepare_load(struct fault_life *l)
{
    fault_make(l, 0, LEAF, 0);
    fault_make(l, 1, LEAF, 0);
    fill(l, 0, 0, 30, 1);
}

static void load(struct fault_life *l)
{
    if (!fault_open(l))
        return;
    fault_put(l, 0, any_key(l), KNOWN_SHORT);
    fault_load(l, 1, fault_draw(l, 8), KNOWN_KEYS, 1, KNOWN_SHORT);
    fault_put(l, 1, any_key(l), KNOWN_SHORT);
    fault_scan(l, 1);
    fault_make(l, 2, WIDE, 0);
    fault_load(l, 2, 0, KNOWN_KEYS, 1 + fault_draw(l, 3), KNOWN_SHORT);
    fault_put(l, 0, any_key(l), KNOWN_SHORT);
    fault_close(l);
}

static void prepare_merge(struct fault_life *l)
{
    fault_make(l, 0, LEAF, 0);
    fault_make(l, 1, WIDE, 0);
    fill(l, 0, 0, KNOWN_KEYS, 2);
    fault_load(l, 1, 0, KNOWN_KEYS, 3, KNOWN_SHORT);
}

static void merge(struct fault_life *l)
{
    unsigned low;
    if (!fault_open(l))
        return;
    low = fault_draw(l, 20);
    fault_merge(l, 0, low, KNOWN_KEYS - 10, 1, KNOWN_SHORT);
    fault_get(l, 0, any_key(l));
    fault_checkpoint(l);
    fault_merge(l, 1, any_key(l), KNOWN_KEYS, 1, KNOWN_SHORT);
    fault_merge(l, 0, low, KNOWN_KEYS, 5, KNOWN_SHORT);
    fault_close(l);
}

/* --- backup and restore -------------------------------------------------------------- */

#define COPY      "/copy"
#define INCREMENT "/increment"
static const char *const chain[] = {COPY, INCREMENT};

static bft_status copy_to(struct fault_life *l, const char *path,
                          size_t base_count)
{
    bft_backup_options options = {
        .size = sizeof(options), .base = chain, .base_count = base_count};
    return bft_backup(l->f->db, path, &options);
}

static bft_status restore_to(struct fault_life *l, const char *path)
{
    struct bfti_surroundings surroundings;
    bft_options options = fault_options(l, &surroundings, l->f->vfs);
    return bft_restore(chain, 2, path, &options);
}

static void prepare_backup(struct fault_life *l)
{
    fault_make(l, 0, LEAF, 0);
    fault_make(l, 1, WIDE, 0);
    fill(l, 0, 0, 80, 1);
    fill(l, 1, 0, 60, 1);
    fault_put(l, 1, 70, KNOWN_LARGE);
}

static void backup(struct fault_life *l)
{
    l->told[0] = l->told[1] = l->told[2] = BFT_NOT_FOUND;
    if (!fault_open(l))
        return;
    for (unsigned i = 0; i < 5; i++)
        fault_put(l, i % 2, any_key(l), KNOWN_SHORT);
    l->older = l->known;
    l->told[0] = copy_to(l, COPY, 0);
    (void)fault_well(l, l->told[0]);
    for (unsigned i = 0; i < 5; i++)
        fault_put(l, i % 2, any_key(l), KNOWN_MIDDLE);
    l->past = l->known;
    if (l->told[0] == BFT_OK) {
        l->told[1] = copy_to(l, INCREMENT, 1);
        (void)fault_well(l, l->told[1]);
    }
    fault_put(l, 0, any_key(l), KNOWN_SHORT);
    if (l->told[1] == BFT_OK) {
        l->told[2] = restore_to(l, "/restored");
        (void)fault_well(l, l->told[2]);
    }
    fault_put(l, 0, any_key(l), KNOWN_SHORT);
}

/* What a call that ended with STATUS has left in PATH is refused, or is all of
 * KNOWN.  Which? */
static bool whole(struct fault_life *l, const char *path, bft_status status,
                  const struct known_db *known)
{
    struct bfti_surroundings surroundings;
    struct bfti_vfs *image;
    bft_options options;
    bft_status opened;
    bft_db *db;
    /* A copy that was opened is no backup any more. */
    expect_ok(bfti_sim_image(l->f->vfs, BFTI_SIM_KILL, 1, &image));
    options = fault_options(l, &surroundings, image);
    options.must_exist = true;
    opened = bft_open(path, &options, &db);
    if (opened == BFT_OK)
        expect_ok(bft_close(db));
    else if (opened != BFT_NOT_FOUND)
        expect_status(BFT_CORRUPT, opened);
    assert_true(opened == BFT_OK || status != BFT_OK);
    if (opened == BFT_OK)
        fault_expect_db(l, image, path, known, false);
    bfti_vfs_sim_destroy(image);
    return opened == BFT_OK;
}

static void after_backup(struct fault_life *l)
{
    bool copied = whole(l, COPY, l->told[0], &l->older);
    bft_status status;
    (void)whole(l, "/restored", l->told[2], &l->past);
    engine_open(l->f);
    if (l->told[0] != BFT_OK) {
        status = copy_to(l, COPY, 0);
        expect_status(copied ? BFT_EXISTS : BFT_OK, status);
        if (status == BFT_OK)
            (void)whole(l, COPY, status, &l->known);
    }
    if (l->told[1] != BFT_OK) {
        status = copy_to(l, INCREMENT, 1);
        if (status == BFT_OK)
            l->past = l->known;
        else /* it is there as a whole, of the time of the call */
            expect_status(BFT_EXISTS, status);
    }
    engine_close(l->f);
    expect_ok(restore_to(l, "/again"));
    (void)whole(l, "/again", BFT_OK, &l->past);
}

/* --- salvage ------------------------------------------------------------------------- */

static void prepare_salvage(struct fault_life *l)
{
    fault_make(l, 0, LEAF, 0);
    fault_make(l, 1, WIDE, 0);
    fault_make(l, 2, LEAF, 0);
    fill(l, 0, 0, 70, 1);
    fill(l, 2, 0, 10, 1);
    fault_checkpoint(l);
    fill(l, 1, 0, 60, 1);
    fault_put(l, 1, 70, KNOWN_LARGE);
    fault_drop(l, 2);
    fault_checkpoint(l);
    fill(l, 0, 20, 100, 7);
    fault_rename(l, 1);
}

static uint64_t sum_of_data(struct fault_life *l)
{
    uint8_t *bytes;
    uint64_t size, sum;
    size_t len;
    expect_ok(bfti_sim_size(l->f->vfs, BFTI_SIM_CACHE, "/db/data", &size));
    bytes = malloc((size_t)size);
    assert_non_null(bytes);
    expect_ok(bfti_sim_read(l->f->vfs, BFTI_SIM_CACHE, "/db/data", 0, bytes,
                            (size_t)size, &len));
    assert_int_equal(size, len);
    sum = bfti_crc32c(0, bytes, len);
    free(bytes);
    return sum;
}

static bft_status salvage_to(struct fault_life *l, const char *path,
                             bft_salvage_report *report)
{
    struct bfti_surroundings surroundings;
    bft_options options = fault_options(l, &surroundings, l->f->vfs);
    bft_salvage_options salvage = {.size = sizeof(salvage),
                                   .database = &options};
    *report = (bft_salvage_report){.size = sizeof(*report)};
    return bft_salvage("/db", path, &salvage, report);
}

/* What the tree in DB has, each of it a value that was written. */
static void look_at_salvaged(struct fault_life *l, bft_db *db, unsigned t,
                             struct known_tree *known)
{
    bft_tree_options options = {.size = sizeof(options), .must_exist = true};
    bft_tree *tree = NULL;
    char text[32];
    for (uint32_t which = 1; which <= 2 && !tree; which++) {
        bft_status status =
            bft_tree_open(db, known_name(text, t, which), &options, &tree);
        if (status == BFT_OK)
            known->name.may[0].seed = which;
        else
            expect_status(BFT_NOT_FOUND, status);
    }
    for (unsigned k = 0; tree && k < KNOWN_KEYS; k++) {
        size_t len;
        bft_status status =
            bft_get(tree, known_key(text, k), l->bytes, KNOWN_LEN_MAX, &len);
        uint32_t seed = 0;
        if (status == BFT_OK)
            seed = known_seed_ever(&l->known, l->bytes, len);
        else
            expect_status(BFT_NOT_FOUND, status);
        assert_true(seed != UINT32_MAX);
        known->key[k].may[0].seed = seed;
    }
}

/* All that salvage has put into PATH on VFS; to be freed. */
static struct known_db *salvaged(struct fault_life *l, struct bfti_vfs *vfs,
                                 const char *path)
{
    struct known_db *known = malloc(sizeof(*known));
    struct bfti_surroundings surroundings;
    bft_options options = fault_options(l, &surroundings, vfs);
    bft_db *db;
    assert_non_null(known);
    known_clear(known);
    known->now_ms = l->known.now_ms;
    known->random = l->known.random;
    known->last_seed = l->known.last_seed;
    expect_ok(bft_open(path, &options, &db));
    for (unsigned t = 0; t < KNOWN_TREES; t++)
        look_at_salvaged(l, db, t, &known->tree[t]);
    expect_ok(bft_close(db));
    return known;
}

/* What comes back when nothing fails is what is known from then on. */
static void damage(struct fault_life *l)
{
    struct bfti_vfs *damaged = l->f->vfs;
    bool map_lost = fault_draw(l, 2);
    struct known_db *known;
    uint64_t bytes;
    expect_ok(bfti_sim_size(damaged, BFTI_SIM_CACHE, "/db/data", &bytes));
    for (unsigned i = 0; i < 4; i++)
        expect_ok(bfti_sim_flip(damaged, "/db/data",
                                8192 + fault_draw(l, (unsigned)bytes - 8192),
                                0x10));
    /* Without superblocks pages are looked for all through the file. */
    for (unsigned i = 0; map_lost && i < 2; i++)
        expect_ok(bfti_sim_flip(damaged, "/db/data", i * 4096 + 64, 0x10));
    l->base->sum = sum_of_data(l);
    expect_ok(bfti_sim_image(damaged, BFTI_SIM_KILL, 1, &l->f->vfs));
    expect_ok(salvage_to(l, "/out", &l->base->report));
    known = salvaged(l, l->f->vfs, "/out");
    l->known = *known;
    free(known);
    bfti_vfs_sim_destroy(l->f->vfs);
    l->f->vfs = damaged;
}

static void salvage(struct fault_life *l)
{
    bft_salvage_report report;
    l->told[0] = salvage_to(l, "/out", &report);
    (void)fault_well(l, l->told[0]);
    /* What could not be read is damage like any other, and told. */
    if (l->told[0] == BFT_OK &&
        memcmp(&report, &l->base->report, sizeof(report)) != 0) {
        assert_true(fault_struck(l));
        l->told[0] = BFT_CORRUPT;
    }
}

static void after_salvage(struct fault_life *l)
{
    bft_salvage_report report;
    assert_int_equal(l->base->sum, sum_of_data(l));
    if (l->told[0] == BFT_OK)
        fault_expect_db(l, l->f->vfs, "/out", &l->known, false);
    else if (l->told[0] == BFT_CORRUPT)
        free(salvaged(l, l->f->vfs, "/out"));
    expect_ok(salvage_to(l, "/again", &report));
    assert_memory_equal(&report, &l->base->report, sizeof(report));
    fault_expect_db(l, l->f->vfs, "/again", &l->known, false);
    assert_int_equal(l->base->sum, sum_of_data(l));
}

/* --- ranges, snapshots, transactions, records that expire --------------------------- */

enum { SECOND = 1000 };

static void prepare_ranges(struct fault_life *l)
{
    fault_make(l, 0, LEAF, 0);
    fault_make(l, 1, LEAF, BFT_FOREVER);
    fill(l, 0, 0, 70, 1);
    for (unsigned k = 0; k < 30; k++)
        fault_put_until(l, 1, k, KNOWN_SHORT,
                        l->known.now_ms + (1 + k % 5) * SECOND);
    fault_put_until(l, 1, 40, KNOWN_OUTSIDE, l->known.now_ms + SECOND);
    fault_put_until(l, 1, 41, KNOWN_OUTSIDE, l->known.now_ms + 9 * SECOND);
}

static void remove_expired(struct fault_life *l)
{
    uint64_t removed;
    if (l->tree[1])
        (void)fault_well(l, bft_remove_expired(l->tree[1], &removed));
}

static void ranges(struct fault_life *l)
{
    unsigned low;
    if (!fault_open(l))
        return;
    fault_take_snapshot(l);
    low = fault_draw(l, 20);
    fault_delete_range(l, 0, low, low + 25, false);
    fault_put(l, 0, low + 10, KNOWN_SHORT);
    fault_snapshot_get(l, 0, low + 5);
    fault_txn(l, 0, any_key(l), 5);
    fault_delete_range(l, 0, 50, 60, true);
    fault_snapshot_scan(l, 0);
    l->known.now_ms += 2 * SECOND + SECOND / 2;
    for (unsigned i = 0; i < 3; i++)
        fault_put_until(l, 1, any_key(l), KNOWN_SHORT,
                        l->known.now_ms + i * SECOND);
    fault_snapshot_get(l, 1, 3);
    fault_release_snapshot(l);
    remove_expired(l);
    fault_take_snapshot(l);
    fault_txn(l, 0, any_key(l), 4);
    fault_delete_range(l, 1, 10, 20, false);
    l->known.now_ms += SECOND;
    fault_put(l, 0, any_key(l), KNOWN_OUTSIDE);
    fault_snapshot_get(l, 0, any_key(l));
    fault_close(l);
    if (!fault_open(l))
        return;
    fault_txn(l, 0, any_key(l), 3);
    fault_scan(l, 1);
}

/* --- trees ---------------------------------------------------------------------------- */

/* Into a database that is made. */
static void fill_trees(struct fault_life *l)
{
    for (unsigned t = 0; t < 3; t++)
        fault_make(l, t, LEAF, 0);
    fill(l, 0, 0, 30, 1);
    fill(l, 1, 0, 10, 1);
    fill(l, 2, 0, 20, 1);
    fault_stream(l, 2, 60, KNOWN_STREAMED);
    fault_put(l, 2, 61, KNOWN_LARGE);
}

static void trees(struct fault_life *l)
{
    if (!fault_open(l))
        return;
    fill_trees(l);
    fault_close(l);
    if (!fault_open(l))
        return;
    fault_make(l, 3, WIDE, 0);
    fill(l, 3, any_key(l), KNOWN_KEYS, 12);
    fault_rename(l, 1);
    fault_put(l, 1, any_key(l), KNOWN_SHORT);
    fault_stream(l, 3, any_key(l), KNOWN_SEVERAL);
    fault_truncate(l, 0);
    fault_put(l, 0, any_key(l), KNOWN_SHORT);
    fault_drop(l, 2);
    fault_checkpoint(l);
    fault_get(l, 3, any_key(l));
    fault_make(l, 2, LEAF, 0);
    fault_stream(l, 2, any_key(l), KNOWN_LARGE);
    fault_rename(l, 1);
    fault_close(l);
    if (!fault_open(l))
        return;
    fault_truncate(l, 3);
    fault_drop(l, 0);
    fault_put(l, 3, any_key(l), KNOWN_SHORT);
}

const struct fault_scenario fault_scenarios[] = {
    {.name = "work", .prepare = prepare_work, .work = work},
    {.name = "recovery",
     .map = true,
     .prepare = prepare_recovery,
     .killed = true,
     .work = recover},
    {.name = "load", .map = true, .prepare = prepare_load, .work = load},
    {.name = "merge", .prepare = prepare_merge, .work = merge},
    {.name = "backup",
     .map = true,
     .prepare = prepare_backup,
     .work = backup,
     .after = after_backup},
    {.name = "salvage",
     .prepare = prepare_salvage,
     .work = salvage,
     .after = after_salvage,
     .damage = damage},
    {.name = "ranges", .prepare = prepare_ranges, .work = ranges},
    {.name = "trees", .map = true, .work = trees},
};
const unsigned fault_scenario_count =
    sizeof(fault_scenarios) / sizeof(fault_scenarios[0]);
