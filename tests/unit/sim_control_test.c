/*
 * Orders to a simulation: steps, power cuts, faults, tampering, mappings.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sim_fixture.h"

enum { SECTOR = BFTI_SIM_SECTOR, SEEDS = 300 };

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
    file = sim_file_open(sim, "d/a");
    sim_fill(file, 5, 7, 'x');
    assert_int_equal(1 + 1, steps.waiting);
    assert_int_equal(BFT_OK, sim->ops->read(file, 0, buf, 8, &got));
    assert_int_equal(BFT_OK, sim->ops->size(file, &ignored));
    assert_int_equal(BFT_OK, sim->ops->lock(file));
    sim_file_close(sim_file_open(sim, "d/a"));
    sim_sync(file);
    assert_int_equal(3, steps.waiting);
    assert_int_equal(BFT_OK, sim->ops->truncate(file, 3));
    assert_int_equal(BFT_OK, sim->ops->punch(file, 1, 2));
    assert_int_equal(BFT_OK, sim->ops->rename(sim, "d/a", "d/b"));
    sim_sync_dir(sim, "d");
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
    sim_file_close(file);
    sim_destroy(sim);
}

/* Another thread's write, before and after each call of the first one. */
struct others {
    struct bfti_vfs *sim;
    struct bfti_file *file;
    uint64_t writes;
    unsigned ops;
};

static void write_meanwhile(void *arg, enum bfti_sim_op op)
{
    struct others *others = arg;
    uint8_t byte = (uint8_t)others->writes;

    others->ops |= (unsigned)op;
    bfti_sim_set_delay(others->sim, NULL, NULL);
    assert_int_equal(BFT_OK, others->file->ops->write(
                                 others->file, others->writes++, &byte, 1));
    bfti_sim_set_delay(others->sim, write_meanwhile, others);
}

static void others_calls_come_between(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct others others = {.sim = sim, .file = sim_file_open(sim, "b")};
    struct bfti_file *file = sim_file_open(sim, "a");
    uint64_t bytes;
    char buf[1];
    size_t got;

    (void)state;
    bfti_sim_set_delay(sim, write_meanwhile, &others);
    sim_fill(file, 0, 1, 'x');
    assert_int_equal(2, others.writes);
    assert_int_equal(BFT_OK, file->ops->read(file, 0, buf, 1, &got));
    assert_int_equal(4, others.writes);
    /* What came before a sync is on the disk, what came after it waits. */
    sim_sync(others.file);
    assert_int_equal(6, others.writes);
    assert_int_equal(4, sim_byte_at(sim, "b", 4));
    sim_sync_dir(sim, "/");
    assert_int_equal(BFT_OK, file->ops->size(file, &bytes));
    assert_int_equal(8, others.writes);
    bfti_sim_set_delay(sim, NULL, NULL);
    assert_int_equal(BFT_OK, bfti_sim_size(sim, BFTI_SIM_DISK, "b", &bytes));
    assert_int_equal(5, bytes);
    assert_int_equal(BFTI_SIM_WRITE | BFTI_SIM_READ | BFTI_SIM_SYNC |
                         BFTI_SIM_SYNC_DIR | BFTI_SIM_QUERY,
                     others.ops);
    sim_file_close(others.file);
    sim_file_close(file);
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
        done +=
            sim_fill_status(file, (uint64_t)i * SECTOR, SECTOR, 'u') == BFT_OK;
        done += sim->ops->sync(file) == BFT_OK;
    }
    done += sim->ops->sync_dir(sim, "/") == BFT_OK;
    sim_file_close(file);
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
        image = sim_image_of(sim, BFTI_SIM_DROP, 1);
        assert_int_equal(at == STEPS, sim_is_there(image, "a"));
        sim_destroy(image);
        if (at > 0) {
            sim_sync_dir((bfti_sim_crash_at(sim, UINT64_MAX), sim), "/");
            image = sim_image_of(sim, BFTI_SIM_DROP, 1);
            assert_int_equal((synced > 3 ? 3 : synced) * SECTOR,
                             sim_size_of(image, "a"));
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
            sim_image_of(test->sim, (enum bfti_sim_policy)policy, step->number);

        for (unsigned i = 0; i < test->acknowledged; i++)
            assert_int_equal('u',
                             sim_byte_at(image, "a", (uint64_t)i * SECTOR));
        test->images++;
        sim_destroy(image);
    }
}

static void a_hook_takes_images_at_every_step(void **state)
{
    enum { SYNCS = 20 };
    struct bfti_vfs *sim = sim_create();
    struct crash_test test = {.sim = sim};
    struct bfti_file *file = sim_synced_file(sim, "a", 0, 0);
    uint64_t before = bfti_sim_steps(sim);

    (void)state;
    bfti_sim_on_step(sim, check_images, &test);
    for (unsigned i = 0; i < SYNCS; i++) {
        sim_fill(file, (uint64_t)i * SECTOR, SECTOR, 'u');
        sim_sync(file);
        test.acknowledged++;
    }
    assert_int_equal(2 * SYNCS, bfti_sim_steps(sim) - before);
    assert_int_equal(2 * SYNCS * BFTI_SIM_POLICIES, test.images);
    sim_file_close(file);
    sim_destroy(sim);
}

static void cut_the_power(void *arg, const struct bfti_sim_step *step)
{
    bfti_sim_crash_at(arg, step->number);
}

static void a_hook_can_cut_the_power(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_synced_file(sim, "a", SECTOR, 's');

    (void)state;
    bfti_sim_on_step(sim, cut_the_power, sim);
    assert_int_equal(BFT_IO, sim_fill_status(file, 0, SECTOR, 'u'));
    assert_int_equal('s', sim_byte_at(sim, "a", 0));
    sim_file_close(file);
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
    struct bfti_file *file = sim_synced_file(sim, "a", SECTOR, 's');
    char text[128];

    (void)state;
    set_fault(sim, BFTI_SIM_WRITE, 2, BFTI_SIM_REFUSE, BFT_NO_SPACE);
    sim_fill(file, 0, 10, '1');
    sim_sync(file);
    assert_int_equal(BFT_NO_SPACE, sim_fill_status(file, 0, 10, '2'));
    bft_last_error(text, sizeof(text));
    assert_string_equal("a: simulated failure", text);
    assert_int_equal('1', sim_byte_at(sim, "a", 0));
    assert_int_equal(0, bfti_sim_waiting(sim));
    sim_fill(file, 0, 10, '3');
    assert_int_equal('3', sim_byte_at(sim, "a", 0));
    assert_int_equal(1, bfti_sim_struck(sim));
    sim_file_close(file);
    sim_destroy(sim);
}

static void a_sticky_fault_strikes_until_healed(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_synced_file(sim, "wal-1", SECTOR, 's');
    struct bfti_file *other = sim_synced_file(sim, "pages", SECTOR, 's');
    struct bfti_sim_fault fault = {.ops = BFTI_SIM_WRITE | BFTI_SIM_SYNC,
                                   .path = "wal",
                                   .nth = 2,
                                   .sticky = true,
                                   .status = BFT_IO};

    (void)state;
    bfti_sim_fail(sim, &fault);
    sim_fill(file, 0, 10, '1');
    sim_fill(other, 0, 10, '1');
    sim_sync(other);
    for (int i = 0; i < 3; i++)
        assert_int_equal(BFT_IO, file->ops->sync(file));
    assert_int_equal(BFT_IO, sim_fill_status(file, 0, 10, '2'));
    sim_fill(other, 0, 10, '2');
    assert_int_equal(4, bfti_sim_struck(sim));
    bfti_sim_heal(sim);
    sim_fill(file, 0, 10, '3');
    sim_sync(file);
    sim_file_close(file);
    sim_file_close(other);
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
    file = sim_file_open(sim, "a");
    sim_fill(file, 0, 100, 'u');
    for (unsigned op = 1; op <= BFTI_SIM_ALL; op *= 2) {
        bfti_sim_heal(sim);
        bfti_sim_fail(
            sim, &(struct bfti_sim_fault){
                     .ops = op, .nth = 1, .sticky = true, .status = BFT_IO});
#define EXPECT(bit, call) \
    assert_int_equal(op == (bit) ? BFT_IO : BFT_OK, (call))
        EXPECT(BFTI_SIM_WRITE, sim_fill_status(file, 0, 10, 'u'));
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
                sim_file_close(other);
            assert_int_equal(
                op == BFTI_SIM_OPEN ? BFT_IO : BFT_OK,
                sim->ops->open(sim, "a", BFTI_OPEN_CREATE, &other));
            if (other != NULL)
                sim_file_close(other);
        }
        if (op == BFTI_SIM_RENAME || op == BFTI_SIM_REMOVE ||
            op == BFTI_SIM_MAKE_DIR) {
            EXPECT(BFTI_SIM_MAKE_DIR,
                   sim->ops->make_dir(sim, op == BFTI_SIM_RENAME ? "x" : "y"));
            bfti_sim_heal(sim);
            sim_file_close(sim_file_open(sim, "c"));
            set_fault(sim, op, 1, BFTI_SIM_REFUSE, BFT_IO);
            EXPECT(BFTI_SIM_RENAME, sim->ops->rename(sim, "c", "e"));
            bfti_sim_heal(sim);
            sim_file_close(sim_file_open(sim, "e"));
            set_fault(sim, op, 1, BFTI_SIM_REFUSE, BFT_IO);
            EXPECT(BFTI_SIM_REMOVE, sim->ops->remove(sim, "e"));
        }
#undef EXPECT
    }
    sim_file_close(file);
    sim_destroy(sim);
}

/* The error that databases learned about in 2018: the sync that fails says so
 * once, and the next one succeeds without the data. */
static void a_failed_sync_forgets_what_waited(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_synced_file(sim, "a", SECTOR, 's');

    (void)state;
    set_fault(sim, BFTI_SIM_SYNC, 1, BFTI_SIM_REFUSE, BFT_IO);
    sim_fill(file, 0, (size_t)3 * SECTOR, 'u');
    assert_int_equal(BFT_IO, file->ops->sync(file));
    assert_int_equal(0, bfti_sim_waiting(sim));
    sim_sync(file);
    assert_int_equal('u', sim_byte_at(sim, "a", 0));
    assert_int_equal('s', sim_byte_after(sim, BFTI_SIM_KEEP, "a", 0));
    assert_int_equal('u', sim_byte_after(sim, BFTI_SIM_KILL, "a", 0));
    /* The size is written by any sync; the bytes behind it were not. */
    assert_int_equal(
        0, sim_byte_after(sim, BFTI_SIM_KEEP, "a", (uint64_t)2 * SECTOR));
    sim_fill(file, SECTOR, 1, 'v');
    sim_sync(file);
    assert_int_equal('s', sim_byte_after(sim, BFTI_SIM_DROP, "a", 0));
    assert_int_equal('v', sim_byte_after(sim, BFTI_SIM_DROP, "a", SECTOR));
    assert_int_equal('u', sim_byte_after(sim, BFTI_SIM_DROP, "a", SECTOR + 1));
    sim_file_close(file);
    sim_destroy(sim);
}

static void a_partial_write_leaves_its_beginning(void **state)
{
    enum { LEN = 5000 };
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_synced_file(sim, "a", LEN, 's');
    size_t lengths = 0;
    size_t last = LEN;

    (void)state;
    for (int i = 0; i < 20; i++) {
        size_t part = 0;

        sim_fill(file, 0, LEN, 's');
        bfti_sim_heal(sim);
        set_fault(sim, BFTI_SIM_WRITE, 1, BFTI_SIM_PART, BFT_NO_SPACE);
        assert_int_equal(BFT_NO_SPACE, sim_fill_status(file, 0, LEN, 'u'));
        while (part < LEN && sim_byte_at(sim, "a", part) == 'u')
            part++;
        assert_true(part < LEN);
        assert_int_equal('s', sim_value_at(sim, "a", part, LEN - part));
        lengths += part != last;
        last = part;
    }
    assert_true(lengths > 10);
    sim_file_close(file);
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
    struct bfti_file *file = sim_synced_file(sim, "a", SECTOR, 's');
    uint8_t buf[SECTOR];
    size_t got;

    (void)state;
    set_fault(sim, BFTI_SIM_READ, 1, BFTI_SIM_FLIP, BFT_OK);
    assert_int_equal(BFT_OK, sim->ops->read(file, 0, buf, SECTOR, &got));
    assert_int_equal(1, wrong_bits(buf, SECTOR, 's'));
    assert_int_equal(BFT_OK, sim->ops->read(file, 0, buf, SECTOR, &got));
    assert_int_equal(0, wrong_bits(buf, SECTOR, 's'));
    set_fault(sim, BFTI_SIM_WRITE, 1, BFTI_SIM_FLIP, BFT_OK);
    sim_fill(file, 0, SECTOR, 'u');
    assert_int_equal(BFT_OK, sim->ops->read(file, 0, buf, SECTOR, &got));
    assert_int_equal(1, wrong_bits(buf, SECTOR, 'u'));
    sim_sync(file);
    assert_int_equal(
        BFT_OK, bfti_sim_read(sim, BFTI_SIM_DISK, "a", 0, buf, SECTOR, &got));
    assert_int_equal(1, wrong_bits(buf, SECTOR, 'u'));
    set_fault(sim, BFTI_SIM_READ, 1, BFTI_SIM_SHORT, BFT_OK);
    assert_int_equal(BFT_OK, sim->ops->read(file, 0, buf, SECTOR, &got));
    assert_true(got < SECTOR);
    sim_file_close(file);
    sim_destroy(sim);
}

static void a_full_disk_takes_what_fits(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_file_open(sim, "a");

    (void)state;
    bfti_sim_set_capacity(sim, (uint64_t)4 * 4096);
    sim_fill(file, 0, (size_t)2 * 4096, 'u');
    assert_int_equal(2 * 4096, bfti_sim_used(sim));
    assert_int_equal(
        BFT_NO_SPACE,
        sim_fill_status(file, (uint64_t)2 * 4096 - 100, (size_t)3 * 4096, 'v'));
    assert_int_equal(4 * 4096, sim_size_of(sim, "a"));
    assert_int_equal('v', sim_byte_at(sim, "a", (uint64_t)4 * 4096 - 1));
    sim_fill(file, 0, (size_t)4 * 4096, 'w');
    assert_int_equal(BFT_NO_SPACE, sim_fill_status(file, 4 * 4096, 1, 'x'));
    assert_int_equal(BFT_OK, sim->ops->punch(file, 0, 4096));
    assert_int_equal(3 * 4096, bfti_sim_used(sim));
    sim_fill(file, 4 * 4096, 1, 'x');
    /* A budget cut below what is used: old blocks are still writable. */
    bfti_sim_set_capacity(sim, 4096);
    sim_fill(file, 4096, 4096, 'y');
    assert_int_equal(BFT_NO_SPACE, sim_fill_status(file, 0, 1, 'z'));
    /* The last block of a file counts as whole. */
    assert_int_equal(BFT_OK, sim->ops->punch(file, 4 * 4096, 1));
    assert_int_equal(3 * 4096, bfti_sim_used(sim));
    assert_int_equal(BFT_OK, sim->ops->truncate(file, 4096));
    assert_int_equal(0, bfti_sim_used(sim));
    bfti_sim_set_capacity(sim, UINT64_MAX);
    sim_fill(file, 0, 1 << 20, 'y');
    assert_int_equal(1 << 20, bfti_sim_used(sim));
    sim_file_close(file);
    sim_destroy(sim);
}

static void memory_that_runs_out_is_a_status(void **state)
{
    unsigned refused = 0;

    (void)state;
    for (int64_t left = 0; left < 60; left++) {
        struct bfti_vfs *sim = sim_create();
        struct bfti_file *file = sim_synced_file(sim, "a", SECTOR, 's');
        struct bfti_file *other = NULL;
        struct bfti_vfs *image = NULL;
        bft_status status;

        sim_allocs_left = left;
        status = sim->ops->open(sim, "b", BFTI_OPEN_CREATE, &other);
        if (status == BFT_OK)
            status = sim_fill_status(other, 20000, 40000, 'u');
        if (status == BFT_OK)
            status = sim->ops->rename(sim, "b", "c");
        if (status == BFT_OK)
            status = bfti_sim_image(sim, BFTI_SIM_KILL, 1, &image);
        if (status == BFT_OK)
            status = sim->ops->sync(other);
        if (status == BFT_OK)
            status = sim->ops->sync_dir(sim, "/");
        sim_allocs_left = -1;
        assert_true(status == BFT_OK || status == BFT_NO_MEMORY);
        refused += status == BFT_NO_MEMORY;
        assert_int_equal('s', sim_byte_after(sim, BFTI_SIM_DROP, "a", 0));
        if (image != NULL)
            sim_destroy(image);
        if (other != NULL)
            sim_file_close(other);
        sim_file_close(file);
        sim_destroy(sim);
    }
    assert_in_range(refused, 20, 59);
}

/* --- looking, tampering, mappings ---------------------------------------------- */

static void tampering_reaches_both_images_and_what_waits(void **state)
{
    struct bfti_vfs *sim = sim_create();
    struct bfti_file *file = sim_synced_file(sim, "a", SECTOR, 0x10);

    (void)state;
    sim_fill(file, 0, 8, 0x20);
    assert_int_equal(BFT_OK, bfti_sim_flip(sim, "a", 3, 0x01));
    assert_int_equal(0x21, sim_byte_at(sim, "a", 3));
    assert_int_equal(0x11, sim_byte_on(sim, BFTI_SIM_DISK, "a", 3));
    assert_int_equal(0x21, sim_byte_after(sim, BFTI_SIM_KEEP, "a", 3));
    assert_int_equal(BFT_INVALID, bfti_sim_flip(sim, "a", SECTOR, 1));
    assert_int_equal(BFT_NOT_FOUND, bfti_sim_flip(sim, "b", 0, 1));
    assert_int_equal(BFT_OK, bfti_sim_cut(sim, "a", 5));
    assert_int_equal(5, sim_size_of(sim, "a"));
    assert_int_equal(-1, sim_byte_on(sim, BFTI_SIM_DISK, "a", 5));
    assert_int_equal(0x21, sim_byte_on(sim, BFTI_SIM_DISK, "a", 3));
    assert_int_equal(BFT_OK, bfti_sim_put(sim, "a", "xyz", 3));
    assert_int_equal(BFT_OK, bfti_sim_put(sim, "b", "new", 3));
    assert_int_equal(3, sim_size_of(sim, "a"));
    assert_int_equal('w', sim_byte_on(sim, BFTI_SIM_DISK, "b", 2));
    assert_int_equal(0, bfti_sim_waiting(sim));
    sim_file_close(file);
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
    file = sim_synced_file(sim, "a", LEN, 's');
    assert_int_equal(BFT_OK, file->ops->map(file, LEN, &map));
    bytes = map;
    bytes[10] = 'x';
    bytes[40000] = 'y';
    assert_int_equal('s', sim_byte_after(sim, BFTI_SIM_DROP, "a", 10));
    assert_int_equal('x', sim_byte_after(sim, BFTI_SIM_KEEP, "a", 10));
    assert_int_equal('x', sim_byte_after(sim, BFTI_SIM_KILL, "a", 10));
    image = sim_image_of(sim, BFTI_SIM_KEEP, 1);
    assert_non_null(image->ops->map);
    sim_destroy(image);
    /* Two sectors: the disk may have either, both or none. */
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        image = sim_image_of(sim, BFTI_SIM_REORDER, seed);
        seen |= 1u << ((sim_byte_at(image, "a", 10) == 'x') +
                       2 * (sim_byte_at(image, "a", 40000) == 'y'));
        sim_destroy(image);
    }
    assert_int_equal(15, seen);
    sim_sync(file);
    assert_int_equal('y', sim_byte_after(sim, BFTI_SIM_DROP, "a", 40000));
    bytes[LEN - 1] = 'z';
    file->ops->unmap(file, map, LEN);
    assert_int_equal('z', sim_byte_at(sim, "a", LEN - 1));
    assert_int_equal('s', sim_byte_after(sim, BFTI_SIM_DROP, "a", LEN - 1));
    sim_file_close(file);
    sim_destroy(sim);
}

#define SIM_TEST(name) cmocka_unit_test_teardown(name, sim_memory_is_free)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        SIM_TEST(every_call_that_reaches_the_disk_is_a_step),
        SIM_TEST(others_calls_come_between),
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
