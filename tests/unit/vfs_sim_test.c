/*
 * The simulated disk: what each kind of crash leaves of bytes and names.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"
#include "sim_fixture.h"

enum { SECTOR = BFTI_SIM_SECTOR, SEEDS = 300 };

/* --- what a crash leaves of bytes ---------------------------------------- */

static void synced_bytes_survive_every_crash(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_synced_file(sim, "a", (size_t)3 * SECTOR, 's');

    (void)state;
    sim_fill(file, (uint64_t)3 * SECTOR, SECTOR, 'u');
    for (int policy = 0; policy < BFTI_SIM_POLICIES; policy++)
        for (uint64_t seed = 0; seed < 20; seed++) {
            struct bfti_vfs *image =
                sim_image_of(sim, (enum bfti_sim_policy)policy, seed);

            assert_int_equal('s',
                             sim_value_at(image, "a", 0, (size_t)3 * SECTOR));
            sim_destroy(image);
        }
    sim_file_close(file);
    sim_destroy(sim);
}

static void drop_loses_and_keep_keeps_what_waited(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_synced_file(sim, "a", SECTOR, 's');
    struct bfti_vfs *image;

    (void)state;
    sim_fill(file, 0, (size_t)2 * SECTOR, 'u');
    assert_int_equal(1, bfti_sim_waiting(sim));
    image = sim_image_of(sim, BFTI_SIM_DROP, 1);
    assert_int_equal(SECTOR, sim_size_of(image, "a"));
    assert_int_equal('s', sim_value_at(image, "a", 0, SECTOR));
    assert_int_equal(0, bfti_sim_waiting(image));
    sim_destroy(image);
    image = sim_image_of(sim, BFTI_SIM_KEEP, 1);
    assert_int_equal(2 * SECTOR, sim_size_of(image, "a"));
    assert_int_equal('u', sim_value_at(image, "a", 0, (size_t)2 * SECTOR));
    assert_int_equal(0, bfti_sim_waiting(image));
    sim_destroy(image);
    sim_file_close(file);
    sim_destroy(sim);
}

/* What only the cache holds is read by the program that comes after a kill,
 * and lost all the same when the power goes then. */
static void after_a_kill_the_cache_is_there_and_still_waits(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_synced_file(sim, "a", SECTOR, 's');
    struct bfti_vfs *killed;

    (void)state;
    sim_fill(file, 0, SECTOR, 'u');
    sim_file_close(sim_file_open(sim, "new"));
    killed = sim_image_of(sim, BFTI_SIM_KILL, 1);
    sim_file_close(file);
    sim_destroy(sim);
    assert_int_equal('u', sim_value_at(killed, "a", 0, SECTOR));
    assert_true(sim_is_there(killed, "new"));
    assert_int_equal(2, bfti_sim_waiting(killed));
    assert_int_equal('s', sim_byte_after(killed, BFTI_SIM_DROP, "a", 0));
    assert_false(sim_there_after(killed, BFTI_SIM_DROP, "new"));
    file = sim_file_open(killed, "a");
    sim_sync(file);
    sim_sync_dir(killed, "/");
    assert_int_equal('u', sim_byte_after(killed, BFTI_SIM_DROP, "a", 0));
    assert_true(sim_there_after(killed, BFTI_SIM_DROP, "new"));
    sim_file_close(file);
    sim_destroy(killed);
}

/* WRITES sectors, one write each, all waiting. */
enum { WRITES = 8 };
static struct bfti_file *file_of_waiting_sectors(struct bfti_vfs *sim)
{
    struct bfti_file *file =
        sim_synced_file(sim, "a", (size_t)WRITES * SECTOR, 's');

    for (unsigned i = 0; i < WRITES; i++)
        sim_fill(file, (uint64_t)i * SECTOR, SECTOR, 'u');
    return file;
}

/* Which of them arrived, as bits. */
static unsigned arrived(struct bfti_vfs *image)
{
    unsigned bits = 0;

    for (unsigned i = 0; i < WRITES; i++) {
        int value = sim_value_at(image, "a", (uint64_t)i * SECTOR, SECTOR);

        assert_true(value == 's' || value == 'u');
        bits |= value == 'u' ? 1u << i : 0;
    }
    return bits;
}

static bool is_prefix(unsigned bits)
{
    return (bits & (bits + 1)) == 0;
}

static void prefix_keeps_what_came_before_a_moment(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = file_of_waiting_sectors(sim);
    unsigned seen = 0;

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bfti_vfs *image = sim_image_of(sim, BFTI_SIM_PREFIX, seed);
        unsigned bits = arrived(image);

        assert_true(is_prefix(bits));
        seen |= 1u << __builtin_popcount(bits);
        sim_destroy(image);
    }
    /* Every moment comes up, from none to all. */
    assert_int_equal((1u << (WRITES + 1)) - 1, seen);
    sim_file_close(file);
    sim_destroy(sim);
}

/* A prefix is of all files and names together, in the order of the calls. */
static void prefix_orders_files_and_names_among_each_other(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *one = sim_synced_file(sim, "one", SECTOR, 's');
    struct bfti_file *two = sim_synced_file(sim, "two", SECTOR, 's');
    unsigned between = 0;

    (void)state;
    sim_fill(one, 0, SECTOR, 'u');
    sim_file_close(sim_file_open(sim, "new"));
    sim_fill(two, 0, SECTOR, 'u');
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bfti_vfs *image = sim_image_of(sim, BFTI_SIM_PREFIX, seed);
        bool first = sim_byte_at(image, "one", 0) == 'u';
        bool second = sim_is_there(image, "new");
        bool third = sim_byte_at(image, "two", 0) == 'u';

        assert_true(first >= second && second >= third);
        between += second && !third;
        sim_destroy(image);
    }
    assert_true(between > 0);
    sim_file_close(one);
    sim_file_close(two);
    sim_destroy(sim);
}

static void reorder_keeps_any_choice_of_whole_writes(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file =
        sim_synced_file(sim, "a", (size_t)2 * WRITES * SECTOR, 's');
    unsigned out_of_order = 0;

    (void)state;
    /* Two sectors a write: they stay together. */
    for (unsigned i = 0; i < WRITES; i++)
        sim_fill(file, (uint64_t)2 * i * SECTOR, (size_t)2 * SECTOR, 'u');
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bfti_vfs *image = sim_image_of(sim, BFTI_SIM_REORDER, seed);
        unsigned bits = 0;

        for (unsigned i = 0; i < WRITES; i++)
            if (sim_value_at(image, "a", (uint64_t)2 * i * SECTOR,
                             (size_t)2 * SECTOR) == 'u')
                bits |= 1u << i;
        out_of_order += !is_prefix(bits);
        sim_destroy(image);
    }
    assert_true(out_of_order > SEEDS / 2);
    sim_file_close(file);
    sim_destroy(sim);
}

static void torn_splits_a_write_between_sectors_only(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file =
        sim_synced_file(sim, "a", (size_t)WRITES * SECTOR, 's');
    unsigned torn = 0;
    unsigned whole = 0;

    (void)state;
    sim_fill(file, 0, (size_t)WRITES * SECTOR, 'u');
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bfti_vfs *image = sim_image_of(sim, BFTI_SIM_TORN, seed);
        unsigned bits = arrived(image);

        torn += bits != 0 && bits != (1u << WRITES) - 1;
        whole += bits == (1u << WRITES) - 1;
        sim_destroy(image);
    }
    assert_true(torn > SEEDS / 10);
    assert_true(whole > SEEDS / 10);
    sim_file_close(file);
    sim_destroy(sim);
}

/* Two writes in one sector: the disk gets what the cache held, so the second
 * never arrives without the first. */
static void no_crash_makes_a_sector_that_never_was(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_synced_file(sim, "a", SECTOR, 's');
    unsigned seen = 0;

    (void)state;
    sim_fill(file, 0, 100, '1');
    sim_fill(file, 200, 100, '2');
    for (int policy = 0; policy < BFTI_SIM_POLICIES; policy++)
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            struct bfti_vfs *image =
                sim_image_of(sim, (enum bfti_sim_policy)policy, seed);
            bool first = sim_value_at(image, "a", 0, 100) == '1';
            bool second = sim_value_at(image, "a", 200, 100) == '2';

            assert_int_equal('s', sim_value_at(image, "a", 100, 100));
            assert_true(first || !second);
            seen |= 1u << (first + second);
            sim_destroy(image);
        }
    assert_int_equal(7, seen);
    sim_file_close(file);
    sim_destroy(sim);
}

static void a_file_may_have_grown_without_its_bytes(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_synced_file(sim, "a", SECTOR, 's');
    unsigned hollow = 0;

    (void)state;
    sim_fill(file, SECTOR, (size_t)4 * SECTOR, 'u');
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bfti_vfs *image = sim_image_of(sim, BFTI_SIM_TORN, seed);
        uint64_t size = sim_size_of(image, "a");

        assert_int_equal('s', sim_value_at(image, "a", 0, SECTOR));
        hollow += size == (uint64_t)5 * SECTOR &&
                  sim_byte_at(image, "a", (uint64_t)5 * SECTOR - 1) == 0;
        sim_destroy(image);
    }
    assert_true(hollow > 0);
    sim_file_close(file);
    sim_destroy(sim);
}

static void cuts_and_holes_wait_for_a_sync_too(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_synced_file(sim, "a", 16384, 's');
    struct bfti_vfs *image;

    (void)state;
    assert_int_equal(BFT_OK, sim->ops->punch(file, 0, 4096));
    assert_int_equal(BFT_OK, sim->ops->truncate(file, 8192));
    image = sim_image_of(sim, BFTI_SIM_DROP, 1);
    assert_int_equal(16384, sim_size_of(image, "a"));
    assert_int_equal('s', sim_byte_at(image, "a", 0));
    assert_int_equal('s', sim_byte_at(image, "a", 16383));
    sim_destroy(image);
    sim_sync(file);
    image = sim_image_of(sim, BFTI_SIM_DROP, 1);
    assert_int_equal(8192, sim_size_of(image, "a"));
    assert_int_equal(0, sim_byte_at(image, "a", 4095));
    assert_int_equal('s', sim_byte_at(image, "a", 4096));
    sim_destroy(image);
    sim_file_close(file);
    sim_destroy(sim);
}

static void settle_leaves_nothing_waiting(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_file_open(sim, "a");

    (void)state;
    sim_fill(file, 0, 1000, 'u');
    assert_int_equal(BFT_OK, sim->ops->make_dir(sim, "dir"));
    sim_file_close(sim_file_open(sim, "dir/b"));
    assert_int_equal(BFT_OK, sim->ops->remove(sim, "dir/b"));
    assert_int_equal(BFT_OK, bfti_sim_settle(sim));
    assert_int_equal(0, bfti_sim_waiting(sim));
    assert_int_equal('u', sim_byte_after(sim, BFTI_SIM_DROP, "a", 999));
    assert_false(sim_there_after(sim, BFTI_SIM_DROP, "dir/b"));
    sim_file_close(file);
    sim_destroy(sim);
}

/* --- what a crash leaves of names ------------------------------------------ */

static void a_synced_file_without_a_synced_name_is_lost(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_file_open(sim, "a");

    (void)state;
    sim_fill(file, 0, 100, 'u');
    sim_sync(file);
    assert_false(sim_there_after(sim, BFTI_SIM_DROP, "a"));
    assert_true(sim_there_after(sim, BFTI_SIM_KEEP, "a"));
    sim_sync_dir(sim, "/");
    assert_true(sim_there_after(sim, BFTI_SIM_DROP, "a"));
    assert_int_equal('u', sim_byte_after(sim, BFTI_SIM_DROP, "a", 99));
    sim_file_close(file);
    sim_destroy(sim);
}

static void a_directory_needs_its_parent_synced(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file;

    (void)state;
    assert_int_equal(BFT_OK, sim->ops->make_dir(sim, "/db"));
    file = sim_file_open(sim, "/db/a");
    sim_sync(file);
    sim_sync_dir(sim, "/db");
    assert_false(sim_there_after(sim, BFTI_SIM_DROP, "/db/a"));
    sim_sync_dir(sim, "/");
    assert_true(sim_there_after(sim, BFTI_SIM_DROP, "/db/a"));
    sim_file_close(file);
    sim_destroy(sim);
}

static void a_removed_name_may_come_back(void **state)
{
    struct bfti_vfs *sim = sim_create();

    (void)state;
    sim_file_close(sim_synced_file(sim, "a", 100, 's'));
    assert_int_equal(BFT_OK, sim->ops->remove(sim, "a"));
    assert_int_equal('s', sim_byte_after(sim, BFTI_SIM_DROP, "a", 99));
    assert_false(sim_there_after(sim, BFTI_SIM_KEEP, "a"));
    sim_sync_dir(sim, "/");
    assert_false(sim_there_after(sim, BFTI_SIM_DROP, "a"));
    sim_destroy(sim);
}

static void a_rename_is_undone_or_whole(void **state)
{
    struct bfti_vfs *sim = sim_create();
    unsigned seen = 0;

    (void)state;
    sim_file_close(sim_synced_file(sim, "a", 10, 'a'));
    sim_file_close(sim_synced_file(sim, "b", 10, 'b'));
    assert_int_equal(BFT_OK, sim->ops->rename(sim, "a", "b"));
    for (int policy = 0; policy < BFTI_SIM_POLICIES; policy++)
        for (uint64_t seed = 0; seed < 50; seed++) {
            struct bfti_vfs *image =
                sim_image_of(sim, (enum bfti_sim_policy)policy, seed);
            bool undone = sim_is_there(image, "a");

            assert_int_equal(undone ? 'b' : 'a', sim_byte_at(image, "b", 0));
            seen |= undone ? 1 : 2;
            sim_destroy(image);
        }
    assert_int_equal(3, seen);
    sim_sync_dir(sim, "/");
    assert_int_equal('a', sim_byte_after(sim, BFTI_SIM_DROP, "b", 0));
    sim_destroy(sim);
}

static void a_rename_across_directories_waits_in_both(void **state)
{
    struct bfti_vfs *sim = sim_create();

    (void)state;
    assert_int_equal(BFT_OK, sim->ops->make_dir(sim, "dir"));
    sim_file_close(sim_synced_file(sim, "a", 10, 'a'));
    assert_int_equal(BFT_OK, sim->ops->rename(sim, "a", "dir/a"));
    assert_true(sim_there_after(sim, BFTI_SIM_DROP, "a"));
    sim_sync_dir(sim, "dir");
    assert_true(sim_there_after(sim, BFTI_SIM_DROP, "a"));
    assert_int_equal('a', sim_byte_after(sim, BFTI_SIM_DROP, "dir/a", 9));
    sim_sync_dir(sim, "/");
    assert_false(sim_there_after(sim, BFTI_SIM_DROP, "a"));
    assert_true(sim_there_after(sim, BFTI_SIM_DROP, "dir/a"));
    sim_destroy(sim);
}

/* A spare segment is renamed into use and overwritten; the old name, if it
 * comes back, has the new bytes: they are one file. */
static void bytes_belong_to_the_file_and_not_to_the_name(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_synced_file(sim, "old", SECTOR, 's');

    (void)state;
    assert_int_equal(BFT_OK, sim->ops->rename(sim, "old", "new"));
    sim_fill(file, 0, SECTOR, 'u');
    sim_sync(file);
    assert_int_equal('u', sim_byte_after(sim, BFTI_SIM_DROP, "old", 0));
    sim_file_close(file);
    sim_destroy(sim);
}

static void an_open_file_without_a_name_leaves_nothing(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_synced_file(sim, "a", SECTOR, 's');
    uint64_t used = bfti_sim_used(sim);

    (void)state;
    assert_int_equal(BFT_OK, sim->ops->remove(sim, "a"));
    sim_sync_dir(sim, "/");
    sim_fill(file, 0, SECTOR, 'u');
    for (int policy = 0; policy < BFTI_SIM_POLICIES; policy++) {
        struct bfti_vfs *image =
            sim_image_of(sim, (enum bfti_sim_policy)policy, 1);

        assert_false(sim_is_there(image, "a"));
        assert_int_equal(0, bfti_sim_used(image));
        sim_destroy(image);
    }
    assert_int_equal(used, bfti_sim_used(sim));
    sim_file_close(file);
    assert_int_equal(0, bfti_sim_used(sim));
    assert_int_equal(0, bfti_sim_waiting(sim));
    sim_destroy(sim);
}

/* --- images ---------------------------------------------------------------- */

static void images_and_their_origin_do_not_touch(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_synced_file(sim, "a", 100000, 's');
    struct bfti_vfs *image = sim_image_of(sim, BFTI_SIM_KEEP, 1);
    struct bfti_vfs *second;
    struct bfti_file *other = sim_file_open(image, "a");
    uint64_t device[2];
    uint64_t inode[2];

    (void)state;
    sim_fill(other, 50000, 10, 'i');
    sim_fill(file, 60000, 10, 'o');
    sim_sync(other);
    second = sim_image_of(image, BFTI_SIM_DROP, 1);
    assert_int_equal('s', sim_byte_at(sim, "a", 50000));
    assert_int_equal('s', sim_byte_at(image, "a", 60000));
    assert_int_equal(BFT_OK,
                     sim->ops->identify(sim, "a", &device[0], &inode[0]));
    assert_int_equal(BFT_OK,
                     image->ops->identify(image, "a", &device[1], &inode[1]));
    assert_int_not_equal(device[0], device[1]);
    /* Locks are of a running system. */
    assert_int_equal(BFT_OK, sim->ops->lock(file));
    assert_int_equal(BFT_OK, image->ops->lock(other));
    sim_file_close(file);
    sim_destroy(sim);
    sim_file_close(other);
    sim_destroy(image);
    assert_int_equal('i', sim_byte_at(second, "a", 50000));
    assert_int_equal('s', sim_byte_at(second, "a", 60000));
    assert_int_equal(0, bfti_sim_steps(second));
    sim_destroy(second);
}

static void an_image_follows_from_policy_and_seed(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = file_of_waiting_sectors(sim);
    unsigned differ = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct bfti_vfs *one = sim_image_of(sim, BFTI_SIM_TORN, seed);
        struct bfti_vfs *two = sim_image_of(sim, BFTI_SIM_TORN, seed);
        struct bfti_vfs *other = sim_image_of(sim, BFTI_SIM_TORN, seed + 1);

        assert_int_equal(arrived(one), arrived(two));
        differ += arrived(one) != arrived(other);
        sim_destroy(one);
        sim_destroy(two);
        sim_destroy(other);
    }
    assert_true(differ > 25);
    sim_file_close(file);
    sim_destroy(sim);
}

static void a_thousand_images_cost_little(void **state)
{
    enum { BYTES = 10 << 20, IMAGES = 1000, EACH_MAX = 20000 };
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_synced_file(sim, "a", BYTES, 's');
    struct bfti_vfs **images = calloc(IMAGES, sizeof(struct bfti_vfs *));
    size_t before = sim_bytes_live;

    (void)state;
    assert_non_null(images);
    for (uint64_t i = 0; i < IMAGES; i++)
        images[i] = sim_image_of(sim, BFTI_SIM_TORN, i);
    assert_in_range(sim_bytes_live - before, 0, (size_t)IMAGES * EACH_MAX);
    sim_file_close(file);
    sim_destroy(sim);
    assert_int_equal('s', sim_byte_at(images[IMAGES - 1], "a", BYTES - 1));
    for (uint64_t i = 0; i < IMAGES; i++)
        sim_destroy(images[i]);
    free(images);
}

/* --- any run ------------------------------------------------------------------- */

/* Random calls on a few files; whatever the crash, a file has the bytes of its
 * last sync except where it was written since. */
enum { FILES = 3, FILE_BYTES = 40000 };

struct shadow {
    struct bfti_file *file;
    char path[8];
    uint8_t synced[FILE_BYTES];
    bool touched[FILE_BYTES]; /* since the last sync */
};

static void check_shadow(struct bfti_vfs *image, const struct shadow *shadow)
{
    static uint8_t buf[FILE_BYTES];
    size_t got;

    assert_int_equal(BFT_OK, bfti_sim_read(image, BFTI_SIM_CACHE, shadow->path,
                                           0, buf, FILE_BYTES, &got));
    assert_int_equal(FILE_BYTES, got);
    for (size_t i = 0; i < FILE_BYTES; i++)
        if (!shadow->touched[i] && buf[i] != shadow->synced[i])
            fail_msg("%s: byte %zu is %d, not %d", shadow->path, i, buf[i],
                     shadow->synced[i]);
}

static void change_one(struct shadow *shadow)
{
    static uint8_t buf[FILE_BYTES];
    size_t at = random_below(FILE_BYTES);
    size_t len = random_below(FILE_BYTES - at);
    size_t got;

    if (random_below(4) == 0) {
        sim_sync(shadow->file);
        assert_int_equal(BFT_OK, shadow->file->ops->read(shadow->file, 0,
                                                         shadow->synced,
                                                         FILE_BYTES, &got));
        memset(shadow->touched, 0, sizeof(shadow->touched));
        return;
    }
    random_bytes(buf, len);
    if (random_below(5) == 0)
        assert_int_equal(BFT_OK,
                         shadow->file->ops->punch(shadow->file, at, len));
    else
        assert_int_equal(BFT_OK,
                         shadow->file->ops->write(shadow->file, at, buf, len));
    memset(shadow->touched + at, 1, len);
}

static void what_was_synced_and_left_alone_survives(void **state)
{
    enum { ROUNDS = 120 };
    static struct shadow shadows[FILES];
    struct bfti_vfs *sim = sim_create();

    (void)state;
    random_start();
    memset(shadows, 0, sizeof(shadows));
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(shadows[i].path, sizeof(shadows[i].path), "%u", i);
        shadows[i].file = sim_synced_file(sim, shadows[i].path, FILE_BYTES, 0);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        change_one(&shadows[random_below(FILES)]);
        for (int policy = 0; policy < BFTI_SIM_POLICIES; policy++) {
            struct bfti_vfs *image =
                sim_image_of(sim, (enum bfti_sim_policy)policy, random_next());

            for (unsigned i = 0; i < FILES; i++)
                check_shadow(image, &shadows[i]);
            sim_destroy(image);
        }
    }
    for (unsigned i = 0; i < FILES; i++)
        sim_file_close(shadows[i].file);
    sim_destroy(sim);
}

#define SIM_TEST(name) cmocka_unit_test_teardown(name, sim_memory_is_free)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        SIM_TEST(synced_bytes_survive_every_crash),
        SIM_TEST(drop_loses_and_keep_keeps_what_waited),
        SIM_TEST(after_a_kill_the_cache_is_there_and_still_waits),
        SIM_TEST(prefix_keeps_what_came_before_a_moment),
        SIM_TEST(prefix_orders_files_and_names_among_each_other),
        SIM_TEST(reorder_keeps_any_choice_of_whole_writes),
        SIM_TEST(torn_splits_a_write_between_sectors_only),
        SIM_TEST(no_crash_makes_a_sector_that_never_was),
        SIM_TEST(a_file_may_have_grown_without_its_bytes),
        SIM_TEST(cuts_and_holes_wait_for_a_sync_too),
        SIM_TEST(settle_leaves_nothing_waiting),
        SIM_TEST(a_synced_file_without_a_synced_name_is_lost),
        SIM_TEST(a_directory_needs_its_parent_synced),
        SIM_TEST(a_removed_name_may_come_back),
        SIM_TEST(a_rename_is_undone_or_whole),
        SIM_TEST(a_rename_across_directories_waits_in_both),
        SIM_TEST(bytes_belong_to_the_file_and_not_to_the_name),
        SIM_TEST(an_open_file_without_a_name_leaves_nothing),
        SIM_TEST(images_and_their_origin_do_not_touch),
        SIM_TEST(an_image_follows_from_policy_and_seed),
        SIM_TEST(a_thousand_images_cost_little),
        SIM_TEST(what_was_synced_and_left_alone_survives),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
