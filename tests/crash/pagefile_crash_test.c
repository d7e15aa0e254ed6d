/*
 * The page file under power cuts: a small database of leaves, a catalogue and
 * checkpoints, cut off before each of its steps, with each of the things that
 * a disk may have made of what was not synced.  What the newest superblock
 * names must be there, and be no older than the last checkpoint that was
 * acknowledged; and the database goes on from it.  Once more with a disk whose
 * sectors are blocks: of what was not synced whole blocks are garbage.
 */
#include "fileio/pagefile_internal.h"
#include "pagefile_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "fileio/fault.h"
#include "fileio/vfs_sim.h"
#include "random.h"
#include "tally.h"

enum {
    LEAVES = 10,
    CHECKPOINTS = 7,
    ENTRY_BYTES = 24, /* of a leaf in the catalogue */
    CATALOGUE_BYTES = LEAVES * ENTRY_BYTES,
};

struct leaf {
    uint64_t place, salt, len;
};

struct database {
    struct bfti_env env;
    struct bfti_vfs *vfs;
    struct bfti_pagefile *pf;
    struct bfti_scratch scratch;
    uint64_t rng;
    struct leaf leaf[LEAVES];
    uint64_t catalogue;
    struct bfti_superblock sb; /* the newest on disk */
    unsigned slot;             /* it stands in */
};

/* What is known outside: the leaves of each checkpoint that was begun. */
struct oracle {
    struct leaf leaf[64][LEAVES];
    uint64_t begun, acknowledged;
};

/* --- what waits for a sync ------------------------------------------------ */

enum { BLOCKS = 1024 };

/* The page file's table, while it is watched. */
static struct {
    const struct bfti_vfs_ops *real;
    struct bfti_vfs_ops ops;
    bool on, waits[BLOCKS];
} watch;

static bft_status watch_write(struct bfti_file *file, uint64_t offset,
                              const void *buf, size_t len)
{
    for (uint64_t at = offset; at < offset + len; at += BFTI_BLOCK) {
        assert_true(at / BFTI_BLOCK < BLOCKS);
        watch.waits[at / BFTI_BLOCK] = true;
    }
    return watch.real->write(file, offset, buf, len);
}

static bft_status watch_sync(struct bfti_file *file)
{
    bft_status status = watch.real->sync(file);
    if (status == BFT_OK)
        memset(watch.waits, false, sizeof watch.waits);
    return status;
}

static void watch_file(struct bfti_file *file)
{
    watch.real = file->ops;
    watch.ops = *file->ops;
    watch.ops.write = watch_write;
    watch.ops.sync = watch_sync;
    file->ops = &watch.ops;
    memset(watch.waits, false, sizeof watch.waits);
}

/* In LEFT some of the blocks that waited are garbage. */
static void wreck(struct bfti_vfs *left, uint64_t seed)
{
    uint64_t size;
    size_t got;

    if (bfti_sim_size(left, BFTI_SIM_DISK, "/data", &size) != BFT_OK ||
        size == 0)
        return;
    uint8_t *bytes = malloc((size_t)size);
    EXPECT_STATUS(BFT_OK, bfti_sim_read(left, BFTI_SIM_DISK, "/data", 0, bytes,
                                        (size_t)size, &got));
    for (uint64_t at = 0; at + BFTI_BLOCK <= size; at += BFTI_BLOCK)
        if (watch.waits[at / BFTI_BLOCK] && random_of(&seed) % 2 == 0)
            pf_fill(bytes + at, BFTI_BLOCK, random_of(&seed));
    EXPECT_STATUS(BFT_OK, bfti_sim_put(left, "/data", bytes, (size_t)size));
    free(bytes);
}

/* --- the database --------------------------------------------------------- */

static bft_status database_open(struct database *db, struct bfti_vfs *vfs,
                                bool create, uint64_t seed)
{
    memset(db, 0, sizeof *db);
    db->env = *bfti_env_system();
    db->vfs = vfs;
    db->rng = seed;
    struct bfti_pagefile_options options = {
        .env = &db->env,
        .vfs = vfs,
        .path = "/data",
        .create = create,
        .compress = (seed & 1) != 0,
    };
    bft_status status = bfti_pagefile_open(&options, &db->pf);
    if (status == BFT_OK && watch.on)
        watch_file(bfti_pagefile_file(db->pf));
    return status;
}

static void database_close(struct database *db)
{
    bfti_scratch_free(&db->env, &db->scratch);
    bfti_pagefile_close(db->pf);
}

static bft_status leaf_replace(struct database *db, struct leaf *leaf)
{
    struct leaf fresh = {.salt = random_of(&db->rng)};
    struct bfti_extent_info info = {BFTI_EXTENT_LEAF, 1, fresh.salt, 0};
    uint8_t raw[20000];

    /* Most share blocks. */
    fresh.len = (fresh.salt >> 8) % (fresh.salt % 4 == 0 ? sizeof raw : 1900);
    pf_fill(raw, (size_t)fresh.len, fresh.salt);
    memset(raw, 0, (size_t)fresh.len / 2); /* zstd has something to do */
    bft_status status =
        bfti_extent_write(db->pf, &info, raw, (size_t)fresh.len, &fresh.place);
    if (status != BFT_OK)
        return status;
    bfti_extent_link(db->pf, fresh.place, 0);
    if (leaf->place != 0)
        status = bfti_extent_unlink(db->pf, leaf->place, 0, 0);
    *leaf = fresh;
    return status;
}

static bft_status catalogue_write(struct database *db)
{
    struct bfti_extent_info info = {BFTI_EXTENT_CATALOGUE, 0, 0, 0};
    uint64_t old = db->catalogue;
    le64 raw[CATALOGUE_BYTES / 8];

    for (unsigned i = 0; i < LEAVES; i++) {
        raw[i * 3] = le64_of(db->leaf[i].place);
        raw[i * 3 + 1] = le64_of(db->leaf[i].salt);
        raw[i * 3 + 2] = le64_of(db->leaf[i].len);
    }
    bft_status status =
        bfti_extent_write(db->pf, &info, raw, sizeof raw, &db->catalogue);
    if (status != BFT_OK)
        return status;
    bfti_extent_link(db->pf, db->catalogue, 0);
    return old == 0 ? BFT_OK : bfti_extent_unlink(db->pf, old, 0, 0);
}

static bft_status checkpoint(struct database *db, struct oracle *oracle)
{
    struct bfti_superblock sb = {
        .major = BFTI_FORMAT_MAJOR,
        .sequence = db->sb.sequence + 1,
        .root_count = 1,
        .log_segment_bytes = 64 << 10,
    };
    size_t count;
    bool more;

    (void)bfti_space_cut(db->pf);
    bft_status status = catalogue_write(db);
    if (status == BFT_OK)
        status = bfti_space_write(db->pf, db->sb.map, db->sb.map_count, sb.map,
                                  BFTI_MAP_PLACES, &count);
    if (status == BFT_OK)
        status = bfti_pagefile_sync(db->pf);
    if (status != BFT_OK)
        return status;
    sb.map_count = (uint32_t)count;
    sb.root[0] = db->catalogue;

    oracle->begun = sb.sequence;
    memcpy(oracle->leaf[sb.sequence], db->leaf, sizeof db->leaf);
    status = bfti_superblock_write(db->pf, !db->slot, &sb);
    if (status != BFT_OK)
        return status;
    oracle->acknowledged = sb.sequence;
    db->slot = !db->slot;
    db->sb = sb;
    bfti_space_finish(db->pf, 1);
    if (sb.sequence % 3 != 0) { /* into the other slot, too */
        status = bfti_superblock_write(db->pf, !db->slot, &sb);
        if (status != BFT_OK)
            return status;
        bfti_space_twin(db->pf);
    }
    status = bfti_space_release(db->pf);
    db->pf->space.hole_floor = 0;
    return status == BFT_OK ? bfti_space_punch(db->pf, 3, &more) : status;
}

static bft_status work(struct database *db, struct oracle *oracle,
                       unsigned checkpoints)
{
    bft_status status = BFT_OK;

    for (unsigned i = 0; i < checkpoints && status == BFT_OK; i++) {
        for (unsigned j = 0; j < 4 && status == BFT_OK; j++)
            status = leaf_replace(db, &db->leaf[random_of(&db->rng) % LEAVES]);
        if (status == BFT_OK)
            status = checkpoint(db, oracle);
    }
    return status;
}

static bft_status create(struct database *db)
{
    bft_status status = bfti_space_reset(db->pf);
    if (status == BFT_OK)
        status = db->vfs->ops->sync_dir(db->vfs, "/");
    return status;
}

/* --- recovery ------------------------------------------------------------- */

static bft_status leaf_check(struct database *db, const struct leaf *leaf)
{
    struct bfti_extent_info info;
    const void *raw;
    size_t len;
    uint8_t want[20000];

    if (leaf->place == 0)
        return BFT_OK;
    bft_status status =
        bfti_extent_read(db->pf, leaf->place, &db->scratch, &info, &raw, &len);
    if (status != BFT_OK)
        return status;
    pf_fill(want, (size_t)leaf->len, leaf->salt);
    memset(want, 0, (size_t)leaf->len / 2);
    return len == leaf->len && memcmp(raw, want, len) == 0 ? BFT_OK
                                                           : BFT_CORRUPT;
}

static bft_status catalogue_read(struct database *db)
{
    struct bfti_extent_info info;
    const void *raw;
    size_t len;

    db->catalogue = db->sb.root[0];
    bft_status status = bfti_extent_read(db->pf, db->catalogue, &db->scratch,
                                         &info, &raw, &len);
    if (status != BFT_OK)
        return status;
    if (len != CATALOGUE_BYTES)
        return BFT_CORRUPT;
    for (unsigned i = 0; i < LEAVES; i++) {
        le64 entry[3];
        memcpy(entry, (const uint8_t *)raw + i * sizeof entry, sizeof entry);
        db->leaf[i].place = le64_get(entry[0]);
        db->leaf[i].salt = le64_get(entry[1]);
        db->leaf[i].len = le64_get(entry[2]);
    }
    return BFT_OK;
}

/* Take the newest superblock and all it names; then, as recovery must, write
 * it into the other slot before anything else.  BFT_NOT_FOUND: there is none,
 * which is right before the first was acknowledged. */
static bft_status recover(struct database *db, const struct oracle *oracle)
{
    struct bfti_superblock slot[2];
    bft_status verdict[2];

    bft_status status = bfti_superblock_read(db->pf, slot, verdict);
    if (status != BFT_OK)
        return status;
    if (verdict[0] != BFT_OK && verdict[1] != BFT_OK)
        return oracle->acknowledged == 0 ? BFT_NOT_FOUND : BFT_CORRUPT;
    db->slot = verdict[0] != BFT_OK ||
               (verdict[1] == BFT_OK && slot[1].sequence > slot[0].sequence);
    db->sb = slot[db->slot];
    if (db->sb.sequence < oracle->acknowledged ||
        db->sb.sequence > oracle->begun)
        return BFT_CORRUPT;

    status =
        bfti_space_load(db->pf, db->sb.map, db->sb.map_count, &db->scratch);
    if (status == BFT_OK)
        status = catalogue_read(db);
    if (status == BFT_OK &&
        memcmp(db->leaf, oracle->leaf[db->sb.sequence], sizeof db->leaf) != 0)
        status = BFT_CORRUPT;
    for (unsigned i = 0; i < LEAVES && status == BFT_OK; i++)
        status = leaf_check(db, &db->leaf[i]);
    if (status == BFT_OK)
        status = bfti_pagefile_sync(db->pf);
    if (status == BFT_OK) {
        db->slot = !db->slot;
        db->sb.sequence++;
        status = bfti_superblock_write(db->pf, db->slot, &db->sb);
    }
    return status;
}

/* --- crashes -------------------------------------------------------------- */

/* Run on SIM until the power goes, at step AT. */
static void run_until(struct bfti_vfs *sim, struct oracle *oracle, uint64_t at,
                      uint64_t seed)
{
    struct database db;

    memset(oracle, 0, sizeof *oracle);
    bfti_sim_crash_at(sim, at);
    if (database_open(&db, sim, true, seed) != BFT_OK)
        return;
    bft_status status = create(&db);
    if (status == BFT_OK)
        status = work(&db, oracle, CHECKPOINTS);
    database_close(&db);
    if (at == UINT64_MAX)
        EXPECT_STATUS(BFT_OK, status);
}

/* Recover what a crash left, work on, and recover once more. */
static bft_status go_on(struct bfti_vfs *left, struct oracle *oracle,
                        uint64_t seed)
{
    struct database db;

    bft_status status = database_open(&db, left, false, seed);
    if (status == BFT_NOT_FOUND && oracle->acknowledged == 0)
        return BFT_OK;
    if (status != BFT_OK)
        return status;
    status = recover(&db, oracle);
    if (status == BFT_NOT_FOUND) {
        database_close(&db);
        return BFT_OK;
    }
    if (status == BFT_OK)
        status = work(&db, oracle, 3);
    database_close(&db);
    if (status != BFT_OK)
        return status;
    status = database_open(&db, left, false, seed);
    if (status == BFT_OK) {
        status = recover(&db, oracle);
        database_close(&db);
    }
    return status;
}

static uint64_t images; /* looked at by this process */

/* Crash before every step, with every policy; give how many went wrong.
 * WRECKING: what waited for a sync, too. */
static unsigned crash_everywhere(uint64_t seed, bool wrecking)
{
    const struct bfti_env *env = bfti_env_system();
    struct oracle *oracle = calloc(1, sizeof *oracle);
    struct oracle *after = calloc(1, sizeof *after);
    uint64_t steps = UINT64_MAX;
    unsigned wrong = 0;

    for (uint64_t at = 0; at <= steps; at++) {
        struct bfti_vfs *sim = bfti_vfs_sim_create(env, seed), *left;
        if (at == 0) { /* how many steps are there? */
            run_until(sim, oracle, UINT64_MAX, seed);
            steps = bfti_sim_steps(sim);
            bfti_vfs_sim_destroy(sim);
            sim = bfti_vfs_sim_create(env, seed);
        }
        watch.on = wrecking;
        run_until(sim, oracle, at, seed);
        watch.on = false;
        for (int policy = 0; policy < BFTI_SIM_POLICIES; policy++) {
            if (wrecking && policy == BFTI_SIM_KILL)
                continue; /* the power did not go */
            EXPECT_STATUS(BFT_OK,
                          bfti_sim_image(sim, (enum bfti_sim_policy)policy,
                                         seed + at, &left));
            images++;
            if (wrecking)
                wreck(left, seed + at);
            *after = *oracle;
            bft_status status = go_on(left, after, seed + at);
            if (status != BFT_OK && wrong++ == 0)
                print_message(
                    "step %llu, %s: %s\n", (unsigned long long)at,
                    bfti_sim_policy_name((enum bfti_sim_policy)policy),
                    bft_strerror(status));
            bfti_vfs_sim_destroy(left);
        }
        bfti_vfs_sim_destroy(sim);
    }
    free(oracle);
    free(after);
    return wrong;
}

static void every_crash_leaves_a_whole_checkpoint(void **state)
{
    (void)state;
    uint64_t seed = random_start();

    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(crash_everywhere(seed + i, false), 0);
    tally(TALLY_IMAGES, images);
}

static void no_torn_block_harms_what_was_synced(void **state)
{
    (void)state;
    uint64_t seed = random_start();

    images = 0;
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(crash_everywhere(seed + i, true), 0);
    tally(TALLY_IMAGES, images);
}

#ifdef BFT_FAULTS

/* The test above would notice. */
static void an_unsynced_page_file_is_found_out(void **state)
{
    (void)state;
    uint64_t seed = random_start();

    bfti_fault = BFTI_FAULT_BIT(BFTI_FAULT_DATA_NOT_SYNCED);
    unsigned wrong = crash_everywhere(seed, false);
    bfti_fault = 0;
    assert_true(wrong > 0);
}

static void blocks_left_open_are_found_out(void **state)
{
    (void)state;
    uint64_t seed = random_start();
    unsigned wrong = 0;

    bfti_fault = BFTI_FAULT_BIT(BFTI_FAULT_BLOCK_NOT_CLOSED);
    for (unsigned i = 0; i < 4; i++)
        wrong += crash_everywhere(seed + i, true);
    bfti_fault = 0;
    assert_true(wrong > 0);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_crash_leaves_a_whole_checkpoint),
        cmocka_unit_test(no_torn_block_harms_what_was_synced),
#ifdef BFT_FAULTS
        cmocka_unit_test(an_unsynced_page_file_is_found_out),
        cmocka_unit_test(blocks_left_open_are_found_out),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
