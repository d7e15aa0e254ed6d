/*
 * Dictionaries to compress leaves with: made when they save blocks, kept as long
 * as the tree, and known to all that reads or moves what the file has.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backup_model.h"
#include "fileio/pagefile_internal.h"
#include "index/image.h"
#include "park.h"
#include "phrases.h"
#include "random.h"

enum { LEAF = 8192, RECORDS = 3000, BUDGET = 4 << 20 };

static struct engine_fixture *make(enum engine_backend backend)
{
    struct engine_fixture *f = engine_fixture_make(backend);
    f->options.memory_bytes = BUDGET;
    f->options.log_bytes = 16 << 20;
    f->options.log_segment_bytes = 1 << 20;
    f->options.leaf_bytes = LEAF;
    f->options.compress = true;
    f->options.no_threads = true;
    return f;
}

static void fill(struct engine_fixture *f, const char *name, uint64_t version)
{
    bft_tree *tree = engine_tree(f, name, LEAF);
    struct phrases p;
    for (uint64_t n = 0; n < RECORDS; n++) {
        phrases_make(&p, n, version);
        expect_ok(bft_put(tree, phrases_key(&p), phrases_value(&p)));
    }
}

static void expect_all(bft_db *db, const char *name, uint64_t version)
{
    bft_tree_options o = {.size = sizeof(o), .must_exist = true};
    char got[sizeof(((struct phrases *)0)->value)];
    struct phrases p;
    bft_tree *tree;
    size_t len;
    expect_ok(bft_tree_open(db, name, &o, &tree));
    for (uint64_t n = 0; n < RECORDS; n++) {
        phrases_make(&p, n, version);
        expect_ok(bft_get(tree, phrases_key(&p), got, sizeof(got), &len));
        assert_int_equal(sizeof(got), len);
        assert_memory_equal(p.value, got, len);
    }
}

/* Written, then by a checkpoint a dictionary made of it, and all written with it. */
static void fill_with_dictionary(struct engine_fixture *f, const char *name)
{
    fill(f, name, 1);
    expect_ok(bft_checkpoint(f->db));
    expect_ok(bft_checkpoint(f->db));
    fill(f, name, 2);
    expect_ok(bft_checkpoint(f->db));
}

static bft_tree_stats stats_of(struct engine_fixture *f, const char *name)
{
    bft_tree_stats stats = {.size = sizeof(stats)};
    expect_ok(bft_tree_stats_read(engine_tree(f, name, LEAF), &stats));
    return stats;
}

static void expect_dictionary(struct engine_fixture *f, const char *name)
{
    bft_tree_stats stats = stats_of(f, name);
    assert_int_equal(BFT_COMPRESSION_DICTIONARY, stats.compression);
    assert_true(stats.dictionaries >= 1);
    assert_true(stats.dictionary_bytes > 1000);
}

/* --- what it saves ----------------------------------------------------------- */

static uint64_t live_bytes(enum engine_backend backend, bool compress,
                           bool roomy)
{
    struct engine_fixture *f = make(backend);
    uint64_t live;
    f->options.compress = compress;
    if (!roomy) /* for dictionaries */
        f->options.memory_bytes = 512 << 10;
    engine_open(f);
    fill_with_dictionary(f, "t");
    expect_ok(bft_verify(f->db));
    expect_all(f->db, "t", 2);
    if (compress && roomy) {
        bft_tree_stats tree = stats_of(f, "t");
        expect_dictionary(f, "t");
        assert_true(tree.compressed_bytes < tree.compressible_bytes);
        assert_int_equal(1, engine_stats(f).dictionaries);
        assert_int_equal(tree.dictionary_bytes,
                         engine_stats(f).dictionary_bytes);
    } else {
        assert_int_equal(0, engine_stats(f).dictionaries);
    }
    live = engine_stats(f).live_bytes;
    engine_fixture_free(f);
    return live;
}

static void phrases_shrink_by_a_dictionary_only(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        uint64_t plain = live_bytes((enum engine_backend)b, false, true);
        uint64_t zstd = live_bytes((enum engine_backend)b, true, false);
        uint64_t own = live_bytes((enum engine_backend)b, true, true);
        print_message("live: %llu plain, %llu zstd, %llu with a dictionary\n",
                      (unsigned long long)plain, (unsigned long long)zstd,
                      (unsigned long long)own);
        assert_true(own * 4 < zstd * 3);
        assert_true(own * 3 < plain * 2);
    }
}

static void what_does_not_shrink_is_left_alone(void **state)
{
    struct engine_fixture *f = make(ENGINE_MEMORY);
    bft_tree_stats before, after;
    bft_tree *tree;
    (void)state;
    random_start();
    engine_open(f);
    tree = engine_tree(f, "t", LEAF);
    for (uint64_t round = 0; round < 3; round++) {
        for (uint64_t n = 0; n < RECORDS; n++) {
            uint8_t value[288];
            struct phrases p;
            phrases_make(&p, n, 1);
            random_bytes(value, sizeof(value));
            expect_ok(bft_put(tree, phrases_key(&p),
                              (bft_slice){value, sizeof(value)}));
        }
        expect_ok(bft_checkpoint(f->db));
    }
    before = stats_of(f, "t");
    assert_int_equal(BFT_COMPRESSION_NONE, before.compression);
    assert_int_equal(0, before.dictionaries);
    /* But for a grain of a short leaf now and then. */
    assert_true(before.compressed_bytes <= before.compressible_bytes &&
                before.compressed_bytes * 100 > before.compressible_bytes * 99);
    /* Other data comes: that is seen by and by. */
    for (uint64_t v = 1; stats_of(f, "t").compression == BFT_COMPRESSION_NONE;
         v++) {
        assert_true(v < 100);
        fill(f, "t", v);
        expect_ok(bft_checkpoint(f->db));
    }
    after = stats_of(f, "t");
    assert_true(after.compressed_bytes < after.compressible_bytes);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* Each training wants eight times as many leaves, and there are four at most. */
static void there_are_few_of_a_tree(void **state)
{
    struct engine_fixture *f = make(ENGINE_MEMORY);
    const uint64_t last = 3 * PHRASES_NEW - 1;
    (void)state;
    f->eager = true;
    engine_open(f);
    for (uint64_t v = 1; v <= last; v++) {
        fill(f, "t", v);
        expect_ok(bft_checkpoint(f->db));
    }
    assert_true(stats_of(f, "t").dictionaries >= 2);
    assert_true(stats_of(f, "t").dictionaries <= BFTI_DICTIONARIES_MAX);
    expect_all(f->db, "t", last);
    expect_ok(bft_verify(f->db));
    engine_reopen(f);
    expect_all(f->db, "t", last);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void memory_stays_within_the_budget(void **state)
{
    struct engine_fixture *f = make(ENGINE_MEMORY);
    (void)state;
    engine_open(f);
    for (int i = 0; i < 4; i++) {
        char name[16];
        snprintf(name, sizeof(name), "t%d", i);
        fill_with_dictionary(f, name);
        assert_true(bfti_codec_bytes(f->db->engine->buffer.pf) <=
                    BUDGET / CODEC_SHARE);
    }
    assert_true(engine_stats(f).dictionaries > 0);
    assert_true(engine_stats(f).dictionaries < 4);
    assert_true(engine_stats(f).memory_used_bytes < BUDGET + BUDGET / 8);
    engine_fixture_free(f);
}

static void statistics_are_of_a_tree_that_is_there(void **state)
{
    struct engine_fixture *f = make(ENGINE_MEMORY);
    bft_tree_stats stats = {.size = sizeof(stats)};
    bft_tree *tree;
    (void)state;
    engine_open(f);
    tree = engine_tree(f, "t", LEAF);
    expect_ok(bft_tree_stats_read(tree, &stats));
    assert_int_equal(BFT_COMPRESSION_OPEN, stats.compression);
    assert_int_equal(0, stats.compressible_bytes);
    expect_status(BFT_INVALID, bft_tree_stats_read(tree, NULL));
    stats.size--;
    expect_status(BFT_INVALID, bft_tree_stats_read(tree, &stats));
    stats.size++;
    expect_ok(bft_tree_drop(f->db, "t"));
    expect_status(BFT_GONE, bft_tree_stats_read(tree, &stats));
    engine_fixture_free(f);
}

/* --- what it survives -------------------------------------------------------- */

static void it_is_there_at_the_next_opening(void **state)
{
    (void)state;
    for (int b = 0; b < ENGINE_BACKENDS; b++) {
        struct engine_fixture *f = make((enum engine_backend)b);
        engine_open(f);
        fill_with_dictionary(f, "t");
        engine_reopen(f);
        expect_dictionary(f, "t");
        expect_all(f->db, "t", 2);
        fill(f, "t", 3);
        f->options.compress = false; /* not written with, but read */
        engine_reopen(f);
        expect_all(f->db, "t", 3);
        fill(f, "t", 4);
        engine_reopen(f);
        f->options.read_only = true;
        engine_reopen(f);
        expect_all(f->db, "t", 4);
        expect_ok(bft_verify(f->db));
        assert_int_equal(1, stats_of(f, "t").dictionaries);
        engine_fixture_free(f);
    }
}

/* Images that a crash would leave at each step. */
struct shots {
    struct engine_fixture *f;
    uint64_t random, every, steps, taken;
    struct bfti_vfs *image[400];
};

static void on_step(void *arg, const struct bfti_sim_step *step)
{
    struct shots *s = arg;
    (void)step;
    if (s->steps++ % s->every != 0)
        return;
    assert_true(s->taken < sizeof(s->image) / sizeof(*s->image));
    expect_ok(bfti_sim_image(
        s->f->vfs,
        (enum bfti_sim_policy)(random_of(&s->random) % BFTI_SIM_POLICIES),
        random_of(&s->random), &s->image[s->taken++]));
}

/* Checkpoint, and look at what crashes on the way leave. */
static void checkpoint_crashing(struct engine_fixture *f, uint64_t seed,
                                uint64_t version)
{
    struct shots s = {.f = f, .random = seed, .every = 1 + seed % 5};
    struct bfti_vfs *vfs = f->vfs;
    bft_db *db = f->db;
    expect_ok(bft_sync(db));
    bfti_sim_on_step(f->vfs, on_step, &s);
    expect_ok(bft_checkpoint(db));
    bfti_sim_on_step(f->vfs, NULL, NULL);
    assert_true(s.taken > 10);
    for (uint64_t i = 0; i < s.taken; i++) {
        f->vfs = s.image[i];
        engine_open(f);
        expect_all(f->db, "t", version);
        expect_ok(bft_verify(f->db));
        expect_ok(bft_close(f->db));
        bfti_vfs_sim_destroy(f->vfs);
    }
    f->vfs = vfs;
    f->db = db;
}

static void no_crash_loses_a_leaf_that_needs_it(void **state)
{
    uint64_t seed = random_start();
    struct engine_fixture *f = make(ENGINE_SIM);
    (void)state;
    f->options.memory_bytes = 2 * BUDGET;
    engine_open(f);
    fill(f, "t", 1);
    expect_ok(bft_checkpoint(f->db)); /* samples */
    fill(f, "t", 2);
    checkpoint_crashing(f, seed % 1000, 2); /* trained, and used */
    expect_dictionary(f, "t");
    fill(f, "t", 3);
    checkpoint_crashing(f, seed / 1000 % 1000, 3);
    engine_crash(f, BFTI_SIM_TORN, seed);
    expect_all(f->db, "t", 3);
    engine_fixture_free(f);
}

/* --- who else has to know ---------------------------------------------------- */

static uint32_t id_of(struct engine_fixture *f, const char *name)
{
    uint32_t id;
    expect_ok(bft_tree_id(engine_tree(f, name, LEAF), &id));
    return id;
}

static uint64_t place_of(struct engine_fixture *f, const char *name)
{
    uint64_t places[BFTI_DICTIONARIES_MAX];
    assert_int_equal(1, bfti_codec_places(f->db->engine->buffer.pf,
                                          id_of(f, name), false, places));
    return places[0];
}

static void damage_to_it_is_told_with_its_place(void **state)
{
    struct engine_fixture *f = make(ENGINE_SIM);
    char text[512], offset[40], tree[40];
    uint64_t place;
    (void)state;
    engine_open(f);
    fill_with_dictionary(f, "t");
    place = place_of(f, "t");
    snprintf(tree, sizeof(tree), "tree %u", (unsigned)id_of(f, "t"));
    snprintf(offset, sizeof(offset), "byte %llu",
             (unsigned long long)bfti_disk_grain(place) * BFTI_GRAIN);
    expect_ok(bfti_sim_flip(f->vfs, "/db/data",
                            bfti_disk_grain(place) * BFTI_GRAIN + 100, 4));
    expect_status(BFT_CORRUPT, bft_verify(f->db));
    bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, offset));
    engine_close(f);
    expect_status(BFT_CORRUPT, engine_open_status(f));
    bft_last_error(text, sizeof(text));
    assert_non_null(strstr(text, offset));
    assert_non_null(strstr(text, "/db/data"));
    assert_non_null(strstr(text, tree));
    f->db = NULL;
    engine_fixture_free(f);
}

static void it_goes_with_its_tree(void **state)
{
    (void)state;
    for (int how = 0; how < 2; how++) {
        struct engine_fixture *f = make(ENGINE_SIM);
        size_t bytes;
        engine_open(f);
        fill_with_dictionary(f, "t");
        expect_ok(bft_tree_rename(f->db, "t", "u"));
        expect_dictionary(f, "u");
        expect_all(f->db, "u", 2);
        bytes = bfti_codec_bytes(f->db->engine->buffer.pf);
        if (how == 0)
            expect_ok(bft_tree_drop(f->db, "u"));
        else
            expect_ok(bft_tree_truncate(f->db, "u"));
        expect_ok(bft_verify(f->db));
        expect_ok(bft_checkpoint(f->db));
        expect_ok(bft_verify(f->db));
        assert_true(bfti_codec_bytes(f->db->engine->buffer.pf) < bytes / 4);
        assert_int_equal(0, engine_stats(f).dictionaries);
        assert_true(engine_stats(f).live_bytes < 100000);
        fill_with_dictionary(f, "u"); /* has one of its own */
        expect_dictionary(f, "u");
        engine_crash(f, BFTI_SIM_DROP, 1);
        expect_all(f->db, "u", 2);
        expect_ok(bft_verify(f->db));
        engine_fixture_free(f);
    }
}

/* What is known of trees, among which each read and write looks for its own. */
static unsigned looked_through(const struct engine_fixture *f)
{
    const struct bfti_codecs *all = &f->db->engine->buffer.pf->codecs;
    unsigned n = 0;
    for (unsigned i = 0; i < CODEC_BUCKETS; i++)
        for (const struct bfti_codec *codec = atomic_load(&all->bucket[i]);
             codec; codec = atomic_load(&codec->next))
            n++;
    return n;
}

/* Trees that went, of which some neighbours in a bucket stay, are not in the way
 * of others; but their figures count. */
static void trees_that_went_are_not_looked_through(void **state)
{
    enum { TREES = 3 * CODEC_BUCKETS, KEPT = 16 };
    struct engine_fixture *f = make(ENGINE_SIM);
    uint64_t before, after;
    char name[16];
    (void)state;
    engine_open(f);
    for (unsigned i = 0; i < TREES; i++) {
        (void)snprintf(name, sizeof(name), "t%u", i);
        for (unsigned n = 0; n < 20; n++) {
            struct phrases p;
            phrases_make(&p, n, i);
            expect_ok(bft_put(engine_tree(f, name, LEAF), phrases_key(&p),
                              phrases_value(&p)));
        }
    }
    expect_ok(bft_checkpoint(f->db));
    assert_in_range(looked_through(f), TREES, 2 * TREES);
    before = engine_stats(f).compressible_bytes;
    for (unsigned i = 0; i < TREES; i++) {
        (void)snprintf(name, sizeof(name), "t%u", i);
        if (i % KEPT)
            expect_ok(bft_tree_drop(f->db, name));
    }
    expect_ok(bft_checkpoint(f->db));
    expect_ok(bft_checkpoint(f->db));
    assert_in_range(looked_through(f), TREES / KEPT, TREES / KEPT + 1);
    after = engine_stats(f).compressible_bytes;
    assert_true(after >= before);
    for (unsigned i = 0; i < TREES; i += KEPT) {
        (void)snprintf(name, sizeof(name), "t%u", i);
        fill(f, name, 2);
        expect_all(f->db, name, 2);
    }
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void redo_drops_it(void **state)
{
    struct engine_fixture *f = make(ENGINE_SIM);
    (void)state;
    engine_open(f);
    fill_with_dictionary(f, "t");
    fill_with_dictionary(f, "u");
    expect_ok(bft_tree_drop(f->db, "t"));
    expect_ok(bft_sync(f->db));
    engine_crash(f, BFTI_SIM_DROP, 1);
    expect_ok(bft_verify(f->db));
    expect_all(f->db, "u", 2);
    assert_int_equal(1, engine_stats(f).dictionaries);
    engine_fixture_free(f);
}

/* The dictionary of a tree that was filled last lies at the file's end. */
static void the_cleaner_moves_it(void **state)
{
    struct engine_fixture *f = make(ENGINE_SIM);
    struct bfti_rec *rec;
    uint64_t before;
    bool more = true;
    (void)state;
    f->options.compress = false;
    engine_open(f);
    fill(f, "goes", 1);
    fill(f, "goes too", 1);
    f->options.compress = true;
    engine_reopen(f);
    f->db->engine->buffer.pf->space.hole_floor = 8;
    fill_with_dictionary(f, "t");
    before = place_of(f, "t");
    expect_ok(bft_tree_drop(f->db, "goes"));
    expect_ok(bft_tree_drop(f->db, "goes too"));
    rec = bfti_rec_current(f->db->engine->buffer.threads);
    expect_ok(bfti_checkpoint_space(f->db->engine, rec, true));
    for (int i = 0; more || i < 10; i++)
        expect_ok(bfti_clean(f->db->engine, rec, 1 << 20, true, &more));
    assert_true(bfti_disk_grain(place_of(f, "t")) < bfti_disk_grain(before));
    expect_ok(bft_verify(f->db));
    engine_crash(f, BFTI_SIM_DROP, 1);
    expect_all(f->db, "t", 2);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

static void copies_have_it(void **state)
{
    struct engine_fixture *f = make(ENGINE_SIM);
    const char *backups[2] = {"/whole", "/more"};
    bft_backup_options more = {
        .size = sizeof(more), .base = backups, .base_count = 1};
    bft_options options;
    bft_db *db;
    (void)state;
    engine_open(f);
    fill(f, "t", 1);
    expect_ok(bft_backup(f->db, "/whole", NULL));
    fill_with_dictionary(f, "t");
    expect_ok(bft_backup(f->db, "/more", &more));
    options = f->options;
    expect_ok(bft_restore(backups, 2, "/restored", &options));
    engine_close(f);
    for (int i = 0; i < 2; i++) {
        const char *path = i ? "/restored" : "/whole";
        db = backup_open(f, path, false);
        expect_all(db, "t", i ? 2 : 1);
        expect_ok(bft_verify(db));
        expect_ok(bft_close(db));
    }
    engine_fixture_free(f);
}

static void salvage_reads_with_it(void **state)
{
    (void)state;
    for (int lost = 0; lost < 4; lost++) {
        struct engine_fixture *f = make(ENGINE_SIM);
        bft_salvage_options options = {.size = sizeof(options)};
        bft_salvage_report report = {.size = sizeof(report)};
        uint64_t place;
        bft_db *db;
        engine_open(f);
        fill_with_dictionary(f, "t");
        place = place_of(f, "t");
        engine_close(f);
        for (int i = 0; i < 2 && lost; i++) /* both superblocks */
            if (lost & (1 << i))
                expect_ok(bfti_sim_flip(f->vfs, "/db/data",
                                        (uint64_t)i * BFTI_BLOCK + 100, 1));
        options.database = &f->options;
        expect_ok(bft_salvage("/db", "/new", &options, &report));
        assert_int_equal(0, report.ranges_lost);
        db = backup_open(f, "/new", false);
        if (lost < 3) /* else it has no name */
            expect_all(db, "t", 2);
        assert_true(report.records >= RECORDS);
        expect_ok(bft_close(db));
        if (lost ==
            0) { /* without it what it was for is lost, and that is told */
            expect_ok(bfti_sim_flip(f->vfs, "/db/data",
                                    bfti_disk_grain(place) * BFTI_GRAIN + 100,
                                    4));
            expect_ok(bft_salvage("/db", "/newer", &options, &report));
            assert_true(report.extents_damaged > 1);
            assert_true(report.ranges_lost + report.ranges_old > 0);
        }
        engine_fixture_free(f);
    }
}

static void threads_of_its_own_train_it(void **state)
{
    struct engine_fixture *f;
    (void)state;
    if (!BFT_WITH_THREADS)
        return;
    f = make(ENGINE_POSIX);
    f->options.no_threads = false;
    f->options.log_bytes = 1 << 20;
    engine_open(f);
    for (uint64_t v = 1; v < 6; v++)
        fill(f, "t", v);
    expect_ok(bft_checkpoint(f->db));
    expect_dictionary(f, "t");
    expect_all(f->db, "t", 5);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

/* What it says of a file that needs one, the golden test looks at. */
static void without_zstd_there_is_none(void **state)
{
    struct engine_fixture *f = make(ENGINE_MEMORY);
    (void)state;
    engine_open(f);
    fill_with_dictionary(f, "t");
    assert_int_equal(0, stats_of(f, "t").dictionaries);
    expect_all(f->db, "t", 2);
    engine_fixture_free(f);
}

/* Nothing is left to read its leaves with.  That is no damage: nobody comes to
 * them any more but who looks through the file. */
static void leaves_of_a_dropped_tree_are_gone(void **state)
{
    enum { LEAVES = 2000 };
    struct engine_fixture *f = make(ENGINE_SIM);
    struct bfti_scratch scratch = {0};
    struct bfti_extent_scan scan;
    struct bfti_extent_info info;
    static uint64_t leaf[LEAVES];
    uint64_t place, found;
    size_t raw_len, count = 0, gone = 0;
    const void *raw;
    (void)state;
    engine_open(f);
    fill_with_dictionary(f, "t");
    expect_dictionary(f, "t");
    fill(f, "behind it", 3); /* so that the file stays as long */
    expect_ok(bft_checkpoint(f->db));
    struct bfti_pagefile *pf = f->db->engine->buffer.pf;
    expect_ok(bfti_extent_scan_begin(&scan, pf));
    for (;;) {
        expect_ok(bfti_extent_scan_next(&scan, &scratch, &place, &info, &raw,
                                        &raw_len));
        if (place == 0)
            break;
        if (info.type == BFTI_EXTENT_LEAF && count < LEAVES)
            leaf[count++] = place;
    }
    bfti_extent_scan_end(&scan);
    expect_ok(bft_tree_drop(f->db, "t"));
    expect_ok(bft_checkpoint(f->db));
    for (size_t i = 0; i < count; i++) {
        bft_status status =
            bfti_extent_read(pf, leaf[i], &scratch, &info, &raw, &raw_len);
        /* From before there was a dictionary; or the file is shorter now. */
        if (status == BFT_OK || status == BFT_CORRUPT)
            continue;
        expect_status(BFT_GONE, status);
        expect_ok(bfti_extent_find(pf, bfti_disk_grain(leaf[i]), &scratch,
                                   &found, &info));
        assert_int_equal(0, found);
        gone++;
    }
    assert_true(gone > 10);
    bfti_scratch_free(&f->env, &scratch);
    engine_fixture_free(f);
}

/* Leaves of the tree are written while a dictionary of it is being made. */
static struct {
    struct engine_fixture *f;
    uint32_t tree_id;
    unsigned trainings;
} busy;

static void write_more(const char *point)
{
    struct bfti_pagefile *pf = busy.f->db->engine->buffer.pf;
    struct bfti_extent_info info = {BFTI_EXTENT_LEAF, busy.tree_id, 1, 0};
    struct phrases p[20];
    uint64_t place;
    if (strcmp(point, "dictionary:sampled") != 0)
        return;
    busy.trainings++;
    for (uint64_t n = 0; n < 5000; n++) {
        for (unsigned i = 0; i < 20; i++)
            phrases_make(&p[i], n * 20 + i, busy.trainings * PHRASES_NEW);
        expect_ok(bfti_extent_write(pf, &info, p, sizeof(p), &place));
        bfti_extent_discard(pf, place);
    }
}

/* As many as there may be, however soon there are samples for more. */
static void there_are_never_too_many(void **state)
{
    struct engine_fixture *f = make(ENGINE_MEMORY);
    (void)state;
    f->eager = true;
    engine_open(f);
    fill(f, "t", 1);
    busy.f = f;
    busy.tree_id = id_of(f, "t");
    busy.trainings = 0;
    atomic_store(&bfti_park, write_more);
    for (unsigned i = 0; i < 2 * BFTI_DICTIONARIES_MAX; i++)
        expect_ok(bft_checkpoint(f->db));
    atomic_store(&bfti_park, NULL);
    assert_true(busy.trainings > BFTI_DICTIONARIES_MAX);
    assert_int_equal(BFTI_DICTIONARIES_MAX, stats_of(f, "t").dictionaries);
    expect_all(f->db, "t", 1);
    expect_ok(bft_verify(f->db));
    engine_reopen(f);
    expect_all(f->db, "t", 1);
    engine_fixture_free(f);
}

static void train(void *arg)
{
    fill_with_dictionary(arg, "t");
}

/* In the checkpoint that made the dictionary: that has no leaf yet. */
static void who_stops_with_a_new_one_stops_nobody(void **state)
{
    struct engine_fixture *f = make(ENGINE_MEMORY);
    struct parked parked;
    (void)state;
    engine_open(f);
    (void)engine_tree(f, "other", LEAF); /* none is made during a checkpoint */
    assert_true(park_start(&parked, "checkpoint:trained", 0, train, f));
    fill(f, "other", 1);
    fill(f, "other", 2);
    expect_all(f->db, "other", 2);
    park_end(&parked);
    expect_dictionary(f, "t");
    expect_all(f->db, "t", 2);
    expect_all(f->db, "other", 2);
    expect_ok(bft_verify(f->db));
    engine_fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest without[] = {
        cmocka_unit_test(without_zstd_there_is_none),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(phrases_shrink_by_a_dictionary_only),
        cmocka_unit_test(what_does_not_shrink_is_left_alone),
        cmocka_unit_test(there_are_few_of_a_tree),
        cmocka_unit_test(memory_stays_within_the_budget),
        cmocka_unit_test(statistics_are_of_a_tree_that_is_there),
        cmocka_unit_test(it_is_there_at_the_next_opening),
        cmocka_unit_test(no_crash_loses_a_leaf_that_needs_it),
        cmocka_unit_test(damage_to_it_is_told_with_its_place),
        cmocka_unit_test(it_goes_with_its_tree),
        cmocka_unit_test(trees_that_went_are_not_looked_through),
        cmocka_unit_test(redo_drops_it),
        cmocka_unit_test(the_cleaner_moves_it),
        cmocka_unit_test(copies_have_it),
        cmocka_unit_test(salvage_reads_with_it),
        cmocka_unit_test(threads_of_its_own_train_it),
        cmocka_unit_test(leaves_of_a_dropped_tree_are_gone),
        cmocka_unit_test(who_stops_with_a_new_one_stops_nobody),
        cmocka_unit_test(there_are_never_too_many),
    };
    return BFT_WITH_ZSTD ? cmocka_run_group_tests(tests, NULL, NULL)
                         : cmocka_run_group_tests(without, NULL, NULL);
}
