/*
 * The simulated disk: what each kind of crash leaves, what faults do, and that
 * a run repeats.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fileio/fileio.h"
#include "fileio/vfs_sim.h"
#include "random.h"

enum { SECTOR = BFTI_SIM_SECTOR, SEEDS = 300 };

/* --- helpers ------------------------------------------------------------- */

/* The system's surroundings, with memory counted and made to run out. */
static size_t blocks_live;
static size_t bytes_live;
static int64_t allocs_left = -1; /* negative: no end */

static bool alloc_refused(void)
{
    if (allocs_left < 0)
        return false;
    return allocs_left-- == 0 ? (allocs_left = 0, true) : false;
}

static void *counted_alloc(void *ctx, size_t bytes)
{
    size_t *block;

    (void)ctx;
    if (alloc_refused())
        return NULL;
    block = malloc(bytes + 16);
    assert_non_null(block);
    block[0] = bytes;
    blocks_live++;
    bytes_live += bytes;
    return block + 2;
}

static void counted_free(void *ctx, void *old)
{
    size_t *block = old;

    (void)ctx;
    if (old == NULL)
        return;
    block -= 2;
    blocks_live--;
    bytes_live -= block[0];
    free(block);
}

static void *counted_realloc(void *ctx, void *old, size_t bytes)
{
    void *block = counted_alloc(ctx, bytes);

    if (block == NULL || old == NULL)
        return block;
    memcpy(block, old,
           ((size_t *)old)[-2] < bytes ? ((size_t *)old)[-2] : bytes);
    counted_free(ctx, old);
    return block;
}

static struct bfti_env env;

static struct bfti_vfs *sim_create(void)
{
    struct bfti_vfs *sim;

    env = *bfti_env_system();
    env.alloc = counted_alloc;
    env.realloc = counted_realloc;
    env.free = counted_free;
    allocs_left = -1;
    sim = bfti_vfs_sim_create(&env, 1);
    assert_non_null(sim);
    return sim;
}

static void sim_destroy(struct bfti_vfs *sim)
{
    bfti_vfs_sim_destroy(sim);
}

static int no_memory_is_lost(void **state)
{
    (void)state;
    assert_int_equal(0, blocks_live);
    assert_int_equal(0, bytes_live);
    return 0;
}

static struct bfti_file *file_open(struct bfti_vfs *sim, const char *path)
{
    struct bfti_file *file;

    assert_int_equal(BFT_OK,
                     sim->ops->open(sim, path, BFTI_OPEN_CREATE, &file));
    return file;
}

static void file_close(struct bfti_file *file)
{
    file->ops->close(file);
}

/* LEN bytes of VALUE at OFFSET. */
static bft_status fill_status(struct bfti_file *file, uint64_t offset,
                              size_t len, int value)
{
    char *buf = malloc(len);
    bft_status status;

    assert_non_null(buf);
    memset(buf, value, len);
    status = file->ops->write(file, offset, buf, len);
    free(buf);
    return status;
}

static void fill(struct bfti_file *file, uint64_t offset, size_t len, int value)
{
    assert_int_equal(BFT_OK, fill_status(file, offset, len, value));
}

static void sync_file(struct bfti_file *file)
{
    assert_int_equal(BFT_OK, file->ops->sync(file));
}

static void sync_dir(struct bfti_vfs *sim, const char *dir)
{
    assert_int_equal(BFT_OK, sim->ops->sync_dir(sim, dir));
}

/* A file whose name and LEN bytes of VALUE are on the disk. */
static struct bfti_file *synced_file(struct bfti_vfs *sim, const char *path,
                                     size_t len, int value)
{
    struct bfti_file *file = file_open(sim, path);

    fill(file, 0, len, value);
    sync_file(file);
    sync_dir(sim, "/");
    assert_int_equal(0, bfti_sim_waiting(sim));
    return file;
}

static struct bfti_vfs *image_of(struct bfti_vfs *sim,
                                 enum bfti_sim_policy policy, uint64_t seed)
{
    struct bfti_vfs *image;

    assert_int_equal(BFT_OK, bfti_sim_image(sim, policy, seed, &image));
    assert_non_null(image);
    return image;
}

static bool is_there(struct bfti_vfs *sim, const char *path)
{
    uint64_t bytes;
    bft_status status = bfti_sim_size(sim, BFTI_SIM_CACHE, path, &bytes);

    assert_true(status == BFT_OK || status == BFT_NOT_FOUND);
    return status == BFT_OK;
}

static uint64_t size_of(struct bfti_vfs *sim, const char *path)
{
    uint64_t bytes;

    assert_int_equal(BFT_OK, bfti_sim_size(sim, BFTI_SIM_CACHE, path, &bytes));
    return bytes;
}

/* The byte at OFFSET, -1 behind the end. */
static int byte_on(struct bfti_vfs *sim, enum bfti_sim_side side,
                   const char *path, uint64_t offset)
{
    uint8_t byte;
    size_t got;

    assert_int_equal(BFT_OK,
                     bfti_sim_read(sim, side, path, offset, &byte, 1, &got));
    return got == 1 ? byte : -1;
}

static int byte_at(struct bfti_vfs *sim, const char *path, uint64_t offset)
{
    return byte_on(sim, BFTI_SIM_CACHE, path, offset);
}

/* The one value of all LEN bytes at OFFSET; fails when they differ. */
static int value_at(struct bfti_vfs *sim, const char *path, uint64_t offset,
                    size_t len)
{
    int value = byte_at(sim, path, offset);

    for (size_t i = 1; i < len; i++)
        assert_int_equal(value, byte_at(sim, path, offset + i));
    return value;
}

/* The byte at OFFSET after a crash of this kind. */
static int byte_after(struct bfti_vfs *sim, enum bfti_sim_policy policy,
                      const char *path, uint64_t offset)
{
    struct bfti_vfs *image = image_of(sim, policy, 1);
    int value = byte_at(image, path, offset);

    sim_destroy(image);
    return value;
}

static bool there_after(struct bfti_vfs *sim, enum bfti_sim_policy policy,
                        const char *path)
{
    struct bfti_vfs *image = image_of(sim, policy, 1);
    bool there = is_there(image, path);

    sim_destroy(image);
    return there;
}

/* --- what a crash leaves of bytes ---------------------------------------- */

static void synced_bytes_survive_every_crash(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "a", (size_t)3 * SECTOR, 's');

    (void)state;
    fill(file, (uint64_t)3 * SECTOR, SECTOR, 'u');
    for (int policy = 0; policy < BFTI_SIM_POLICIES; policy++)
        for (uint64_t seed = 0; seed < 20; seed++) {
            struct bfti_vfs *image =
                image_of(sim, (enum bfti_sim_policy)policy, seed);

            assert_int_equal('s', value_at(image, "a", 0, (size_t)3 * SECTOR));
            sim_destroy(image);
        }
    file_close(file);
    sim_destroy(sim);
}

static void drop_loses_and_keep_keeps_what_waited(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "a", SECTOR, 's');
    struct bfti_vfs *image;

    (void)state;
    fill(file, 0, (size_t)2 * SECTOR, 'u');
    assert_int_equal(1, bfti_sim_waiting(sim));
    image = image_of(sim, BFTI_SIM_DROP, 1);
    assert_int_equal(SECTOR, size_of(image, "a"));
    assert_int_equal('s', value_at(image, "a", 0, SECTOR));
    assert_int_equal(0, bfti_sim_waiting(image));
    sim_destroy(image);
    image = image_of(sim, BFTI_SIM_KEEP, 1);
    assert_int_equal(2 * SECTOR, size_of(image, "a"));
    assert_int_equal('u', value_at(image, "a", 0, (size_t)2 * SECTOR));
    assert_int_equal(0, bfti_sim_waiting(image));
    sim_destroy(image);
    file_close(file);
    sim_destroy(sim);
}

/* What only the cache holds is read by the program that comes after a kill,
 * and lost all the same when the power goes then. */
static void after_a_kill_the_cache_is_there_and_still_waits(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "a", SECTOR, 's');
    struct bfti_vfs *killed;

    (void)state;
    fill(file, 0, SECTOR, 'u');
    file_close(file_open(sim, "new"));
    killed = image_of(sim, BFTI_SIM_KILL, 1);
    file_close(file);
    sim_destroy(sim);
    assert_int_equal('u', value_at(killed, "a", 0, SECTOR));
    assert_true(is_there(killed, "new"));
    assert_int_equal(2, bfti_sim_waiting(killed));
    assert_int_equal('s', byte_after(killed, BFTI_SIM_DROP, "a", 0));
    assert_false(there_after(killed, BFTI_SIM_DROP, "new"));
    file = file_open(killed, "a");
    sync_file(file);
    sync_dir(killed, "/");
    assert_int_equal('u', byte_after(killed, BFTI_SIM_DROP, "a", 0));
    assert_true(there_after(killed, BFTI_SIM_DROP, "new"));
    file_close(file);
    sim_destroy(killed);
}

/* WRITES sectors, one write each, all waiting. */
enum { WRITES = 8 };
static struct bfti_file *file_of_waiting_sectors(struct bfti_vfs *sim)
{
    struct bfti_file *file =
        synced_file(sim, "a", (size_t)WRITES * SECTOR, 's');

    for (unsigned i = 0; i < WRITES; i++)
        fill(file, (uint64_t)i * SECTOR, SECTOR, 'u');
    return file;
}

/* Which of them arrived, as bits. */
static unsigned arrived(struct bfti_vfs *image)
{
    unsigned bits = 0;

    for (unsigned i = 0; i < WRITES; i++) {
        int value = value_at(image, "a", (uint64_t)i * SECTOR, SECTOR);

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
        struct bfti_vfs *image = image_of(sim, BFTI_SIM_PREFIX, seed);
        unsigned bits = arrived(image);

        assert_true(is_prefix(bits));
        seen |= 1u << __builtin_popcount(bits);
        sim_destroy(image);
    }
    /* Every moment comes up, from none to all. */
    assert_int_equal((1u << (WRITES + 1)) - 1, seen);
    file_close(file);
    sim_destroy(sim);
}

/* A prefix is of all files and names together, in the order of the calls. */
static void prefix_orders_files_and_names_among_each_other(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *one = synced_file(sim, "one", SECTOR, 's');
    struct bfti_file *two = synced_file(sim, "two", SECTOR, 's');
    unsigned between = 0;

    (void)state;
    fill(one, 0, SECTOR, 'u');
    file_close(file_open(sim, "new"));
    fill(two, 0, SECTOR, 'u');
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bfti_vfs *image = image_of(sim, BFTI_SIM_PREFIX, seed);
        bool first = byte_at(image, "one", 0) == 'u';
        bool second = is_there(image, "new");
        bool third = byte_at(image, "two", 0) == 'u';

        assert_true(first >= second && second >= third);
        between += second && !third;
        sim_destroy(image);
    }
    assert_true(between > 0);
    file_close(one);
    file_close(two);
    sim_destroy(sim);
}

static void reorder_keeps_any_choice_of_whole_writes(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file =
        synced_file(sim, "a", (size_t)2 * WRITES * SECTOR, 's');
    unsigned out_of_order = 0;

    (void)state;
    /* Two sectors a write: they stay together. */
    for (unsigned i = 0; i < WRITES; i++)
        fill(file, (uint64_t)2 * i * SECTOR, (size_t)2 * SECTOR, 'u');
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bfti_vfs *image = image_of(sim, BFTI_SIM_REORDER, seed);
        unsigned bits = 0;

        for (unsigned i = 0; i < WRITES; i++)
            if (value_at(image, "a", (uint64_t)2 * i * SECTOR,
                         (size_t)2 * SECTOR) == 'u')
                bits |= 1u << i;
        out_of_order += !is_prefix(bits);
        sim_destroy(image);
    }
    assert_true(out_of_order > SEEDS / 2);
    file_close(file);
    sim_destroy(sim);
}

static void torn_splits_a_write_between_sectors_only(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file =
        synced_file(sim, "a", (size_t)WRITES * SECTOR, 's');
    unsigned torn = 0;
    unsigned whole = 0;

    (void)state;
    fill(file, 0, (size_t)WRITES * SECTOR, 'u');
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bfti_vfs *image = image_of(sim, BFTI_SIM_TORN, seed);
        unsigned bits = arrived(image);

        torn += bits != 0 && bits != (1u << WRITES) - 1;
        whole += bits == (1u << WRITES) - 1;
        sim_destroy(image);
    }
    assert_true(torn > SEEDS / 10);
    assert_true(whole > SEEDS / 10);
    file_close(file);
    sim_destroy(sim);
}

/* Two writes in one sector: the disk gets what the cache held, so the second
 * never arrives without the first. */
static void no_crash_makes_a_sector_that_never_was(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "a", SECTOR, 's');
    unsigned seen = 0;

    (void)state;
    fill(file, 0, 100, '1');
    fill(file, 200, 100, '2');
    for (int policy = 0; policy < BFTI_SIM_POLICIES; policy++)
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            struct bfti_vfs *image =
                image_of(sim, (enum bfti_sim_policy)policy, seed);
            bool first = value_at(image, "a", 0, 100) == '1';
            bool second = value_at(image, "a", 200, 100) == '2';

            assert_int_equal('s', value_at(image, "a", 100, 100));
            assert_true(first || !second);
            seen |= 1u << (first + second);
            sim_destroy(image);
        }
    assert_int_equal(7, seen);
    file_close(file);
    sim_destroy(sim);
}

static void a_file_may_have_grown_without_its_bytes(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "a", SECTOR, 's');
    unsigned hollow = 0;

    (void)state;
    fill(file, SECTOR, (size_t)4 * SECTOR, 'u');
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct bfti_vfs *image = image_of(sim, BFTI_SIM_TORN, seed);
        uint64_t size = size_of(image, "a");

        assert_int_equal('s', value_at(image, "a", 0, SECTOR));
        hollow += size == (uint64_t)5 * SECTOR &&
                  byte_at(image, "a", (uint64_t)5 * SECTOR - 1) == 0;
        sim_destroy(image);
    }
    assert_true(hollow > 0);
    file_close(file);
    sim_destroy(sim);
}

static void cuts_and_holes_wait_for_a_sync_too(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "a", 16384, 's');
    struct bfti_vfs *image;

    (void)state;
    assert_int_equal(BFT_OK, sim->ops->punch(file, 0, 4096));
    assert_int_equal(BFT_OK, sim->ops->truncate(file, 8192));
    image = image_of(sim, BFTI_SIM_DROP, 1);
    assert_int_equal(16384, size_of(image, "a"));
    assert_int_equal('s', byte_at(image, "a", 0));
    assert_int_equal('s', byte_at(image, "a", 16383));
    sim_destroy(image);
    sync_file(file);
    image = image_of(sim, BFTI_SIM_DROP, 1);
    assert_int_equal(8192, size_of(image, "a"));
    assert_int_equal(0, byte_at(image, "a", 4095));
    assert_int_equal('s', byte_at(image, "a", 4096));
    sim_destroy(image);
    file_close(file);
    sim_destroy(sim);
}

static void settle_leaves_nothing_waiting(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = file_open(sim, "a");

    (void)state;
    fill(file, 0, 1000, 'u');
    assert_int_equal(BFT_OK, sim->ops->make_dir(sim, "dir"));
    file_close(file_open(sim, "dir/b"));
    assert_int_equal(BFT_OK, sim->ops->remove(sim, "dir/b"));
    assert_int_equal(BFT_OK, bfti_sim_settle(sim));
    assert_int_equal(0, bfti_sim_waiting(sim));
    assert_int_equal('u', byte_after(sim, BFTI_SIM_DROP, "a", 999));
    assert_false(there_after(sim, BFTI_SIM_DROP, "dir/b"));
    file_close(file);
    sim_destroy(sim);
}

/* --- what a crash leaves of names ------------------------------------------ */

static void a_synced_file_without_a_synced_name_is_lost(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = file_open(sim, "a");

    (void)state;
    fill(file, 0, 100, 'u');
    sync_file(file);
    assert_false(there_after(sim, BFTI_SIM_DROP, "a"));
    assert_true(there_after(sim, BFTI_SIM_KEEP, "a"));
    sync_dir(sim, "/");
    assert_true(there_after(sim, BFTI_SIM_DROP, "a"));
    assert_int_equal('u', byte_after(sim, BFTI_SIM_DROP, "a", 99));
    file_close(file);
    sim_destroy(sim);
}

static void a_directory_needs_its_parent_synced(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file;

    (void)state;
    assert_int_equal(BFT_OK, sim->ops->make_dir(sim, "/db"));
    file = file_open(sim, "/db/a");
    sync_file(file);
    sync_dir(sim, "/db");
    assert_false(there_after(sim, BFTI_SIM_DROP, "/db/a"));
    sync_dir(sim, "/");
    assert_true(there_after(sim, BFTI_SIM_DROP, "/db/a"));
    file_close(file);
    sim_destroy(sim);
}

static void a_removed_name_may_come_back(void **state)
{
    struct bfti_vfs *sim = sim_create();

    (void)state;
    file_close(synced_file(sim, "a", 100, 's'));
    assert_int_equal(BFT_OK, sim->ops->remove(sim, "a"));
    assert_int_equal('s', byte_after(sim, BFTI_SIM_DROP, "a", 99));
    assert_false(there_after(sim, BFTI_SIM_KEEP, "a"));
    sync_dir(sim, "/");
    assert_false(there_after(sim, BFTI_SIM_DROP, "a"));
    sim_destroy(sim);
}

static void a_rename_is_undone_or_whole(void **state)
{
    struct bfti_vfs *sim = sim_create();
    unsigned seen = 0;

    (void)state;
    file_close(synced_file(sim, "a", 10, 'a'));
    file_close(synced_file(sim, "b", 10, 'b'));
    assert_int_equal(BFT_OK, sim->ops->rename(sim, "a", "b"));
    for (int policy = 0; policy < BFTI_SIM_POLICIES; policy++)
        for (uint64_t seed = 0; seed < 50; seed++) {
            struct bfti_vfs *image =
                image_of(sim, (enum bfti_sim_policy)policy, seed);
            bool undone = is_there(image, "a");

            assert_int_equal(undone ? 'b' : 'a', byte_at(image, "b", 0));
            seen |= undone ? 1 : 2;
            sim_destroy(image);
        }
    assert_int_equal(3, seen);
    sync_dir(sim, "/");
    assert_int_equal('a', byte_after(sim, BFTI_SIM_DROP, "b", 0));
    sim_destroy(sim);
}

static void a_rename_across_directories_waits_in_both(void **state)
{
    struct bfti_vfs *sim = sim_create();

    (void)state;
    assert_int_equal(BFT_OK, sim->ops->make_dir(sim, "dir"));
    file_close(synced_file(sim, "a", 10, 'a'));
    assert_int_equal(BFT_OK, sim->ops->rename(sim, "a", "dir/a"));
    assert_true(there_after(sim, BFTI_SIM_DROP, "a"));
    sync_dir(sim, "dir");
    assert_true(there_after(sim, BFTI_SIM_DROP, "a"));
    assert_int_equal('a', byte_after(sim, BFTI_SIM_DROP, "dir/a", 9));
    sync_dir(sim, "/");
    assert_false(there_after(sim, BFTI_SIM_DROP, "a"));
    assert_true(there_after(sim, BFTI_SIM_DROP, "dir/a"));
    sim_destroy(sim);
}

/* A spare segment is renamed into use and overwritten; the old name, if it
 * comes back, has the new bytes: they are one file. */
static void bytes_belong_to_the_file_and_not_to_the_name(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "old", SECTOR, 's');

    (void)state;
    assert_int_equal(BFT_OK, sim->ops->rename(sim, "old", "new"));
    fill(file, 0, SECTOR, 'u');
    sync_file(file);
    assert_int_equal('u', byte_after(sim, BFTI_SIM_DROP, "old", 0));
    file_close(file);
    sim_destroy(sim);
}

static void an_open_file_without_a_name_leaves_nothing(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "a", SECTOR, 's');
    uint64_t used = bfti_sim_used(sim);

    (void)state;
    assert_int_equal(BFT_OK, sim->ops->remove(sim, "a"));
    sync_dir(sim, "/");
    fill(file, 0, SECTOR, 'u');
    for (int policy = 0; policy < BFTI_SIM_POLICIES; policy++) {
        struct bfti_vfs *image = image_of(sim, (enum bfti_sim_policy)policy, 1);

        assert_false(is_there(image, "a"));
        assert_int_equal(0, bfti_sim_used(image));
        sim_destroy(image);
    }
    assert_int_equal(used, bfti_sim_used(sim));
    file_close(file);
    assert_int_equal(0, bfti_sim_used(sim));
    assert_int_equal(0, bfti_sim_waiting(sim));
    sim_destroy(sim);
}

/* --- images ---------------------------------------------------------------- */

static void images_and_their_origin_do_not_touch(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "a", 100000, 's');
    struct bfti_vfs *image = image_of(sim, BFTI_SIM_KEEP, 1);
    struct bfti_vfs *second;
    struct bfti_file *other = file_open(image, "a");
    uint64_t device[2];
    uint64_t inode[2];

    (void)state;
    fill(other, 50000, 10, 'i');
    fill(file, 60000, 10, 'o');
    sync_file(other);
    second = image_of(image, BFTI_SIM_DROP, 1);
    assert_int_equal('s', byte_at(sim, "a", 50000));
    assert_int_equal('s', byte_at(image, "a", 60000));
    assert_int_equal(BFT_OK,
                     sim->ops->identify(sim, "a", &device[0], &inode[0]));
    assert_int_equal(BFT_OK,
                     image->ops->identify(image, "a", &device[1], &inode[1]));
    assert_int_not_equal(device[0], device[1]);
    /* Locks are of a running system. */
    assert_int_equal(BFT_OK, sim->ops->lock(file));
    assert_int_equal(BFT_OK, image->ops->lock(other));
    file_close(file);
    sim_destroy(sim);
    file_close(other);
    sim_destroy(image);
    assert_int_equal('i', byte_at(second, "a", 50000));
    assert_int_equal('s', byte_at(second, "a", 60000));
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
        struct bfti_vfs *one = image_of(sim, BFTI_SIM_TORN, seed);
        struct bfti_vfs *two = image_of(sim, BFTI_SIM_TORN, seed);
        struct bfti_vfs *other = image_of(sim, BFTI_SIM_TORN, seed + 1);

        assert_int_equal(arrived(one), arrived(two));
        differ += arrived(one) != arrived(other);
        sim_destroy(one);
        sim_destroy(two);
        sim_destroy(other);
    }
    assert_true(differ > 25);
    file_close(file);
    sim_destroy(sim);
}

static void a_thousand_images_cost_little(void **state)
{
    enum { BYTES = 10 << 20, IMAGES = 1000, EACH_MAX = 20000 };
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "a", BYTES, 's');
    struct bfti_vfs **images = calloc(IMAGES, sizeof(struct bfti_vfs *));
    size_t before = bytes_live;

    (void)state;
    assert_non_null(images);
    for (uint64_t i = 0; i < IMAGES; i++)
        images[i] = image_of(sim, BFTI_SIM_TORN, i);
    assert_in_range(bytes_live - before, 0, (size_t)IMAGES * EACH_MAX);
    file_close(file);
    sim_destroy(sim);
    assert_int_equal('s', byte_at(images[IMAGES - 1], "a", BYTES - 1));
    for (uint64_t i = 0; i < IMAGES; i++)
        sim_destroy(images[i]);
    free(images);
}

/* --- steps ------------------------------------------------------------------ */

struct steps {
    char text[1024];
    struct bfti_vfs *sim;
    uint64_t waiting; /* before the step */
};

static void note_step(void *arg, const struct bfti_sim_step *step)
{
    struct steps *steps = arg;
    char line[128];

    snprintf(line, sizeof(line), "%d:%d %s%s%s %d+%d\n", (int)step->number,
             (int)step->op, step->path, step->to != NULL ? ">" : "",
             step->to != NULL ? step->to : "", (int)step->offset,
             (int)step->len);
    strcat(steps->text, line);
    steps->waiting = bfti_sim_waiting(steps->sim);
}

static void every_call_that_reaches_the_disk_is_a_step(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct steps steps = {.sim = sim};
    struct bfti_file *file;
    char buf[8];
    size_t got;
    uint64_t ignored;

    (void)state;
    bfti_sim_on_step(sim, note_step, &steps);
    assert_int_equal(BFT_OK, sim->ops->make_dir(sim, "d"));
    file = file_open(sim, "d/a");
    fill(file, 5, 7, 'x');
    assert_int_equal(1 + 1, steps.waiting);
    assert_int_equal(BFT_OK, sim->ops->read(file, 0, buf, 8, &got));
    assert_int_equal(BFT_OK, sim->ops->size(file, &ignored));
    assert_int_equal(BFT_OK, sim->ops->lock(file));
    file_close(file_open(sim, "d/a"));
    sync_file(file);
    assert_int_equal(3, steps.waiting);
    assert_int_equal(BFT_OK, sim->ops->truncate(file, 3));
    assert_int_equal(BFT_OK, sim->ops->punch(file, 1, 2));
    assert_int_equal(BFT_OK, sim->ops->rename(sim, "d/a", "d/b"));
    sync_dir(sim, "d");
    assert_int_equal(BFT_OK, sim->ops->remove(sim, "d/b"));
    assert_string_equal("0:32 d 0+0\n"
                        "1:16 d/a 0+0\n"
                        "2:1 d/a 5+7\n"
                        "3:2 d/a 0+0\n"
                        "4:4 d/a 3+0\n"
                        "5:8 d/a 1+2\n"
                        "6:128 d/a>d/b 0+0\n"
                        "7:256 d 0+0\n"
                        "8:64 d/b 0+0\n",
                        steps.text);
    assert_int_equal(9, bfti_sim_steps(sim));
    file_close(file);
    sim_destroy(sim);
}

/* The program of the next test: how many of its calls succeeded. */
static unsigned three_writes_and_syncs(struct bfti_vfs *sim)
{
    struct bfti_file *file;
    unsigned done = 0;

    if (sim->ops->open(sim, "a", BFTI_OPEN_CREATE, &file) != BFT_OK)
        return 0;
    done++;
    for (int i = 0; i < 3; i++) {
        done += fill_status(file, (uint64_t)i * SECTOR, SECTOR, 'u') == BFT_OK;
        done += sim->ops->sync(file) == BFT_OK;
    }
    done += sim->ops->sync_dir(sim, "/") == BFT_OK;
    file_close(file);
    return done;
}

static void the_power_goes_at_any_step(void **state)
{
    enum { STEPS = 8 };

    (void)state;
    for (unsigned at = 0; at <= STEPS; at++) {
        struct bfti_vfs *sim = sim_create();
        struct bfti_vfs *image;
        struct bfti_file *file;
        uint64_t synced = at >= 1 ? (at - 1) / 2 : 0;
        char text[128];

        bfti_sim_crash_at(sim, at);
        assert_int_equal(at, three_writes_and_syncs(sim));
        if (at < STEPS) {
            assert_int_equal(BFT_IO, sim->ops->open(sim, "a", 0, &file));
            bft_last_error(text, sizeof(text));
            assert_string_equal("a: simulated power cut", text);
            assert_int_equal(BFT_IO, sim->ops->make_dir(sim, "d"));
        }
        assert_int_equal(at, bfti_sim_steps(sim));
        image = image_of(sim, BFTI_SIM_DROP, 1);
        assert_int_equal(at == STEPS, is_there(image, "a"));
        sim_destroy(image);
        if (at > 0) {
            sync_dir((bfti_sim_crash_at(sim, UINT64_MAX), sim), "/");
            image = image_of(sim, BFTI_SIM_DROP, 1);
            assert_int_equal((synced > 3 ? 3 : synced) * SECTOR,
                             size_of(image, "a"));
            sim_destroy(image);
        }
        sim_destroy(sim);
    }
}

struct crash_test {
    struct bfti_vfs *sim;
    unsigned images;
    unsigned acknowledged; /* syncs that returned */
};

/* At every step, under every policy: what was acknowledged is there. */
static void check_images(void *arg, const struct bfti_sim_step *step)
{
    struct crash_test *test = arg;

    for (int policy = 0; policy < BFTI_SIM_POLICIES; policy++) {
        struct bfti_vfs *image =
            image_of(test->sim, (enum bfti_sim_policy)policy, step->number);

        for (unsigned i = 0; i < test->acknowledged; i++)
            assert_int_equal('u', byte_at(image, "a", (uint64_t)i * SECTOR));
        test->images++;
        sim_destroy(image);
    }
}

static void a_hook_takes_images_at_every_step(void **state)
{
    enum { SYNCS = 20 };
    struct bfti_vfs *sim = sim_create();
    struct crash_test test = {.sim = sim};
    struct bfti_file *file = synced_file(sim, "a", 0, 0);
    uint64_t before = bfti_sim_steps(sim);

    (void)state;
    bfti_sim_on_step(sim, check_images, &test);
    for (unsigned i = 0; i < SYNCS; i++) {
        fill(file, (uint64_t)i * SECTOR, SECTOR, 'u');
        sync_file(file);
        test.acknowledged++;
    }
    assert_int_equal(2 * SYNCS, bfti_sim_steps(sim) - before);
    assert_int_equal(2 * SYNCS * BFTI_SIM_POLICIES, test.images);
    file_close(file);
    sim_destroy(sim);
}

static void cut_the_power(void *arg, const struct bfti_sim_step *step)
{
    bfti_sim_crash_at(arg, step->number);
}

static void a_hook_can_cut_the_power(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "a", SECTOR, 's');

    (void)state;
    bfti_sim_on_step(sim, cut_the_power, sim);
    assert_int_equal(BFT_IO, fill_status(file, 0, SECTOR, 'u'));
    assert_int_equal('s', byte_at(sim, "a", 0));
    file_close(file);
    sim_destroy(sim);
}

/* --- faults ------------------------------------------------------------------ */

static void set_fault(struct bfti_vfs *sim, unsigned ops, uint64_t nth,
                      enum bfti_sim_harm harm, bft_status status)
{
    struct bfti_sim_fault fault = {
        .ops = ops, .nth = nth, .harm = harm, .status = status};

    bfti_sim_fail(sim, &fault);
}

static void the_nth_call_fails_and_changes_nothing(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "a", SECTOR, 's');
    char text[128];

    (void)state;
    set_fault(sim, BFTI_SIM_WRITE, 2, BFTI_SIM_REFUSE, BFT_NO_SPACE);
    fill(file, 0, 10, '1');
    sync_file(file);
    assert_int_equal(BFT_NO_SPACE, fill_status(file, 0, 10, '2'));
    bft_last_error(text, sizeof(text));
    assert_string_equal("a: simulated failure", text);
    assert_int_equal('1', byte_at(sim, "a", 0));
    assert_int_equal(0, bfti_sim_waiting(sim));
    fill(file, 0, 10, '3');
    assert_int_equal('3', byte_at(sim, "a", 0));
    assert_int_equal(1, bfti_sim_struck(sim));
    file_close(file);
    sim_destroy(sim);
}

static void a_sticky_fault_strikes_until_healed(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "wal-1", SECTOR, 's');
    struct bfti_file *other = synced_file(sim, "pages", SECTOR, 's');
    struct bfti_sim_fault fault = {.ops = BFTI_SIM_WRITE | BFTI_SIM_SYNC,
                                   .path = "wal",
                                   .nth = 2,
                                   .sticky = true,
                                   .status = BFT_IO};

    (void)state;
    bfti_sim_fail(sim, &fault);
    fill(file, 0, 10, '1');
    fill(other, 0, 10, '1');
    sync_file(other);
    for (int i = 0; i < 3; i++)
        assert_int_equal(BFT_IO, file->ops->sync(file));
    assert_int_equal(BFT_IO, fill_status(file, 0, 10, '2'));
    fill(other, 0, 10, '2');
    assert_int_equal(4, bfti_sim_struck(sim));
    bfti_sim_heal(sim);
    fill(file, 0, 10, '3');
    sync_file(file);
    file_close(file);
    file_close(other);
    sim_destroy(sim);
}

static void every_kind_of_call_can_be_refused(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file;
    struct bfti_file *other;
    char buf[8];
    size_t got;
    uint64_t number;

    (void)state;
    assert_int_equal(BFT_OK, sim->ops->make_dir(sim, "d"));
    bfti_sim_set_map(sim, true);
    file = file_open(sim, "a");
    fill(file, 0, 100, 'u');
    for (unsigned op = 1; op <= BFTI_SIM_ALL; op *= 2) {
        bfti_sim_heal(sim);
        bfti_sim_fail(
            sim, &(struct bfti_sim_fault){
                     .ops = op, .nth = 1, .sticky = true, .status = BFT_IO});
#define EXPECT(bit, call) \
    assert_int_equal(op == (bit) ? BFT_IO : BFT_OK, (call))
        EXPECT(BFTI_SIM_WRITE, fill_status(file, 0, 10, 'u'));
        EXPECT(BFTI_SIM_SYNC, sim->ops->sync(file));
        EXPECT(BFTI_SIM_READ, sim->ops->read(file, 0, buf, 8, &got));
        EXPECT(BFTI_SIM_QUERY, sim->ops->size(file, &number));
        EXPECT(BFTI_SIM_QUERY, sim->ops->lock(file));
        EXPECT(BFTI_SIM_QUERY, sim->ops->identify(sim, "a", &number, &number));
        EXPECT(BFTI_SIM_PUNCH, sim->ops->punch(file, 0, 10));
        EXPECT(BFTI_SIM_TRUNCATE, sim->ops->truncate(file, 100));
        EXPECT(BFTI_SIM_SYNC_DIR, sim->ops->sync_dir(sim, "d"));
        if (op == BFTI_SIM_CREATE || op == BFTI_SIM_OPEN) {
            assert_int_equal(
                op == BFTI_SIM_CREATE ? BFT_IO : BFT_OK,
                sim->ops->open(sim, "b", BFTI_OPEN_CREATE, &other));
            if (other != NULL)
                file_close(other);
            assert_int_equal(
                op == BFTI_SIM_OPEN ? BFT_IO : BFT_OK,
                sim->ops->open(sim, "a", BFTI_OPEN_CREATE, &other));
            if (other != NULL)
                file_close(other);
        }
        if (op == BFTI_SIM_RENAME || op == BFTI_SIM_REMOVE ||
            op == BFTI_SIM_MAKE_DIR) {
            EXPECT(BFTI_SIM_MAKE_DIR,
                   sim->ops->make_dir(sim, op == BFTI_SIM_RENAME ? "x" : "y"));
            bfti_sim_heal(sim);
            file_close(file_open(sim, "c"));
            set_fault(sim, op, 1, BFTI_SIM_REFUSE, BFT_IO);
            EXPECT(BFTI_SIM_RENAME, sim->ops->rename(sim, "c", "e"));
            bfti_sim_heal(sim);
            file_close(file_open(sim, "e"));
            set_fault(sim, op, 1, BFTI_SIM_REFUSE, BFT_IO);
            EXPECT(BFTI_SIM_REMOVE, sim->ops->remove(sim, "e"));
        }
#undef EXPECT
    }
    file_close(file);
    sim_destroy(sim);
}

/* The error that databases learned about in 2018: the sync that fails says so
 * once, and the next one succeeds without the data. */
static void a_failed_sync_forgets_what_waited(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "a", SECTOR, 's');

    (void)state;
    set_fault(sim, BFTI_SIM_SYNC, 1, BFTI_SIM_REFUSE, BFT_IO);
    fill(file, 0, (size_t)3 * SECTOR, 'u');
    assert_int_equal(BFT_IO, file->ops->sync(file));
    assert_int_equal(0, bfti_sim_waiting(sim));
    sync_file(file);
    assert_int_equal('u', byte_at(sim, "a", 0));
    assert_int_equal('s', byte_after(sim, BFTI_SIM_KEEP, "a", 0));
    assert_int_equal('u', byte_after(sim, BFTI_SIM_KILL, "a", 0));
    /* The size is written by any sync; the bytes behind it were not. */
    assert_int_equal(0,
                     byte_after(sim, BFTI_SIM_KEEP, "a", (uint64_t)2 * SECTOR));
    fill(file, SECTOR, 1, 'v');
    sync_file(file);
    assert_int_equal('s', byte_after(sim, BFTI_SIM_DROP, "a", 0));
    assert_int_equal('v', byte_after(sim, BFTI_SIM_DROP, "a", SECTOR));
    assert_int_equal('u', byte_after(sim, BFTI_SIM_DROP, "a", SECTOR + 1));
    file_close(file);
    sim_destroy(sim);
}

static void a_partial_write_leaves_its_beginning(void **state)
{
    enum { LEN = 5000 };
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "a", LEN, 's');
    size_t lengths = 0;
    size_t last = LEN;

    (void)state;
    for (int i = 0; i < 20; i++) {
        size_t part = 0;

        fill(file, 0, LEN, 's');
        bfti_sim_heal(sim);
        set_fault(sim, BFTI_SIM_WRITE, 1, BFTI_SIM_PART, BFT_NO_SPACE);
        assert_int_equal(BFT_NO_SPACE, fill_status(file, 0, LEN, 'u'));
        while (part < LEN && byte_at(sim, "a", part) == 'u')
            part++;
        assert_true(part < LEN);
        assert_int_equal('s', value_at(sim, "a", part, LEN - part));
        lengths += part != last;
        last = part;
    }
    assert_true(lengths > 10);
    file_close(file);
    sim_destroy(sim);
}

static unsigned wrong_bits(const uint8_t *buf, size_t len, uint8_t right)
{
    unsigned wrong = 0;

    for (size_t i = 0; i < len; i++)
        wrong += (unsigned)__builtin_popcount(buf[i] ^ (unsigned)right);
    return wrong;
}

static void a_flip_is_one_bit_and_no_error(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "a", SECTOR, 's');
    uint8_t buf[SECTOR];
    size_t got;

    (void)state;
    set_fault(sim, BFTI_SIM_READ, 1, BFTI_SIM_FLIP, BFT_OK);
    assert_int_equal(BFT_OK, sim->ops->read(file, 0, buf, SECTOR, &got));
    assert_int_equal(1, wrong_bits(buf, SECTOR, 's'));
    assert_int_equal(BFT_OK, sim->ops->read(file, 0, buf, SECTOR, &got));
    assert_int_equal(0, wrong_bits(buf, SECTOR, 's'));
    set_fault(sim, BFTI_SIM_WRITE, 1, BFTI_SIM_FLIP, BFT_OK);
    fill(file, 0, SECTOR, 'u');
    assert_int_equal(BFT_OK, sim->ops->read(file, 0, buf, SECTOR, &got));
    assert_int_equal(1, wrong_bits(buf, SECTOR, 'u'));
    sync_file(file);
    assert_int_equal(
        BFT_OK, bfti_sim_read(sim, BFTI_SIM_DISK, "a", 0, buf, SECTOR, &got));
    assert_int_equal(1, wrong_bits(buf, SECTOR, 'u'));
    set_fault(sim, BFTI_SIM_READ, 1, BFTI_SIM_SHORT, BFT_OK);
    assert_int_equal(BFT_OK, sim->ops->read(file, 0, buf, SECTOR, &got));
    assert_true(got < SECTOR);
    file_close(file);
    sim_destroy(sim);
}

static void a_full_disk_takes_what_fits(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = file_open(sim, "a");

    (void)state;
    bfti_sim_set_capacity(sim, (uint64_t)4 * 4096);
    fill(file, 0, (size_t)2 * 4096, 'u');
    assert_int_equal(2 * 4096, bfti_sim_used(sim));
    assert_int_equal(BFT_NO_SPACE, fill_status(file, (uint64_t)2 * 4096 - 100,
                                               (size_t)3 * 4096, 'v'));
    assert_int_equal(4 * 4096, size_of(sim, "a"));
    assert_int_equal('v', byte_at(sim, "a", (uint64_t)4 * 4096 - 1));
    fill(file, 0, (size_t)4 * 4096, 'w');
    assert_int_equal(BFT_NO_SPACE, fill_status(file, 4 * 4096, 1, 'x'));
    assert_int_equal(BFT_OK, sim->ops->punch(file, 0, 4096));
    assert_int_equal(3 * 4096, bfti_sim_used(sim));
    fill(file, 4 * 4096, 1, 'x');
    /* A budget cut below what is used: old blocks are still writable. */
    bfti_sim_set_capacity(sim, 4096);
    fill(file, 4096, 4096, 'y');
    assert_int_equal(BFT_NO_SPACE, fill_status(file, 0, 1, 'z'));
    /* The last block of a file counts as whole. */
    assert_int_equal(BFT_OK, sim->ops->punch(file, 4 * 4096, 1));
    assert_int_equal(3 * 4096, bfti_sim_used(sim));
    assert_int_equal(BFT_OK, sim->ops->truncate(file, 4096));
    assert_int_equal(0, bfti_sim_used(sim));
    bfti_sim_set_capacity(sim, UINT64_MAX);
    fill(file, 0, 1 << 20, 'y');
    assert_int_equal(1 << 20, bfti_sim_used(sim));
    file_close(file);
    sim_destroy(sim);
}

static void memory_that_runs_out_is_a_status(void **state)
{
    unsigned refused = 0;

    (void)state;
    for (int64_t left = 0; left < 60; left++) {
        struct bfti_vfs *sim = sim_create();
        struct bfti_file *file = synced_file(sim, "a", SECTOR, 's');
        struct bfti_file *other = NULL;
        struct bfti_vfs *image = NULL;
        bft_status status;

        allocs_left = left;
        status = sim->ops->open(sim, "b", BFTI_OPEN_CREATE, &other);
        if (status == BFT_OK)
            status = fill_status(other, 20000, 40000, 'u');
        if (status == BFT_OK)
            status = sim->ops->rename(sim, "b", "c");
        if (status == BFT_OK)
            status = bfti_sim_image(sim, BFTI_SIM_KILL, 1, &image);
        if (status == BFT_OK)
            status = sim->ops->sync(other);
        if (status == BFT_OK)
            status = sim->ops->sync_dir(sim, "/");
        allocs_left = -1;
        assert_true(status == BFT_OK || status == BFT_NO_MEMORY);
        refused += status == BFT_NO_MEMORY;
        assert_int_equal('s', byte_after(sim, BFTI_SIM_DROP, "a", 0));
        if (image != NULL)
            sim_destroy(image);
        if (other != NULL)
            file_close(other);
        file_close(file);
        sim_destroy(sim);
    }
    assert_in_range(refused, 20, 59);
}

/* --- looking, tampering, mappings ---------------------------------------------- */

static void tampering_reaches_both_images_and_what_waits(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = synced_file(sim, "a", SECTOR, 0x10);

    (void)state;
    fill(file, 0, 8, 0x20);
    assert_int_equal(BFT_OK, bfti_sim_flip(sim, "a", 3, 0x01));
    assert_int_equal(0x21, byte_at(sim, "a", 3));
    assert_int_equal(0x11, byte_on(sim, BFTI_SIM_DISK, "a", 3));
    assert_int_equal(0x21, byte_after(sim, BFTI_SIM_KEEP, "a", 3));
    assert_int_equal(BFT_INVALID, bfti_sim_flip(sim, "a", SECTOR, 1));
    assert_int_equal(BFT_NOT_FOUND, bfti_sim_flip(sim, "b", 0, 1));
    assert_int_equal(BFT_OK, bfti_sim_cut(sim, "a", 5));
    assert_int_equal(5, size_of(sim, "a"));
    assert_int_equal(-1, byte_on(sim, BFTI_SIM_DISK, "a", 5));
    assert_int_equal(0x21, byte_on(sim, BFTI_SIM_DISK, "a", 3));
    assert_int_equal(BFT_OK, bfti_sim_put(sim, "a", "xyz", 3));
    assert_int_equal(BFT_OK, bfti_sim_put(sim, "b", "new", 3));
    assert_int_equal(3, size_of(sim, "a"));
    assert_int_equal('w', byte_on(sim, BFTI_SIM_DISK, "b", 2));
    assert_int_equal(0, bfti_sim_waiting(sim));
    file_close(file);
    sim_destroy(sim);
}

static void stores_to_a_mapping_wait_like_writes(void **state)
{
    enum { LEN = 65536 };
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file;
    struct bfti_vfs *image;
    unsigned seen = 0;
    void *map;
    char *bytes;

    (void)state;
    bfti_sim_set_map(sim, true);
    file = synced_file(sim, "a", LEN, 's');
    assert_int_equal(BFT_OK, file->ops->map(file, LEN, &map));
    bytes = map;
    bytes[10] = 'x';
    bytes[40000] = 'y';
    assert_int_equal('s', byte_after(sim, BFTI_SIM_DROP, "a", 10));
    assert_int_equal('x', byte_after(sim, BFTI_SIM_KEEP, "a", 10));
    assert_int_equal('x', byte_after(sim, BFTI_SIM_KILL, "a", 10));
    image = image_of(sim, BFTI_SIM_KEEP, 1);
    assert_non_null(image->ops->map);
    sim_destroy(image);
    /* Two sectors: the disk may have either, both or none. */
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        image = image_of(sim, BFTI_SIM_REORDER, seed);
        seen |= 1u << ((byte_at(image, "a", 10) == 'x') +
                       2 * (byte_at(image, "a", 40000) == 'y'));
        sim_destroy(image);
    }
    assert_int_equal(15, seen);
    sync_file(file);
    assert_int_equal('y', byte_after(sim, BFTI_SIM_DROP, "a", 40000));
    bytes[LEN - 1] = 'z';
    file->ops->unmap(file, map, LEN);
    assert_int_equal('z', byte_at(sim, "a", LEN - 1));
    assert_int_equal('s', byte_after(sim, BFTI_SIM_DROP, "a", LEN - 1));
    file_close(file);
    sim_destroy(sim);
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
        sync_file(shadow->file);
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
        shadows[i].file = synced_file(sim, shadows[i].path, FILE_BYTES, 0);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        change_one(&shadows[random_below(FILES)]);
        for (int policy = 0; policy < BFTI_SIM_POLICIES; policy++) {
            struct bfti_vfs *image =
                image_of(sim, (enum bfti_sim_policy)policy, random_next());

            for (unsigned i = 0; i < FILES; i++)
                check_shadow(image, &shadows[i]);
            sim_destroy(image);
        }
    }
    for (unsigned i = 0; i < FILES; i++)
        file_close(shadows[i].file);
    sim_destroy(sim);
}

#define SIM_TEST(name) cmocka_unit_test_teardown(name, no_memory_is_lost)

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
        SIM_TEST(every_call_that_reaches_the_disk_is_a_step),
        SIM_TEST(the_power_goes_at_any_step),
        SIM_TEST(a_hook_takes_images_at_every_step),
        SIM_TEST(a_hook_can_cut_the_power),
        SIM_TEST(the_nth_call_fails_and_changes_nothing),
        SIM_TEST(a_sticky_fault_strikes_until_healed),
        SIM_TEST(every_kind_of_call_can_be_refused),
        SIM_TEST(a_failed_sync_forgets_what_waited),
        SIM_TEST(a_partial_write_leaves_its_beginning),
        SIM_TEST(a_flip_is_one_bit_and_no_error),
        SIM_TEST(a_full_disk_takes_what_fits),
        SIM_TEST(memory_that_runs_out_is_a_status),
        SIM_TEST(tampering_reaches_both_images_and_what_waits),
        SIM_TEST(stores_to_a_mapping_wait_like_writes),
        SIM_TEST(what_was_synced_and_left_alone_survives),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
