/*
 * The log when its disk or its memory fails: of each thing that is done with a
 * log, each call and each allocation fails in turn, once or from then on.  Who asked
 * is told, is given nothing, and gets what he asked for once all is well again; no
 * frame that was synced is lost.
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
#include "tally.h"

enum {
    SEGMENT = 4096,
    LEN = 600, /* of a payload: 640 bytes in the log */
    FRAME = LEN + BFTI_FRAME_HEADER,
    FRAMES = 31,
    SYNCED = 22, /* of them, and so many are whole: */
    WHOLE = 27,
    NEEDED = 16, /* the first that is not done with, in segment 2 */
};
_Static_assert(FRAME % 8 == 0, "frames lie side by side");

static int64_t allocs_left; /* then one fails; negative: none */
static bool allocs_sticky;  /* and all after it */
static uint64_t refusals;
static bool failing; /* something was made to fail, and is not mended */

static bool refused(void)
{
    bool refuse = allocs_left == 0;
    if (allocs_left > 0 || (refuse && !allocs_sticky))
        allocs_left--;
    refusals += refuse;
    return refuse;
}

static void *failing_alloc(void *ctx, size_t bytes)
{
    const struct bfti_env *env = bfti_env_system();
    (void)ctx;
    return refused() ? NULL : env->alloc(env->ctx, bytes);
}

static void *failing_realloc(void *ctx, void *old, size_t bytes)
{
    const struct bfti_env *env = bfti_env_system();
    (void)ctx;
    return refused() ? NULL : env->realloc(env->ctx, old, bytes);
}

/* --- a log, and what is done with it ------------------------------------------ */

static struct world {
    struct bfti_env env;
    struct bfti_vfs *sim;
    struct bfti_wal_options options;
    struct bfti_wal_thread thread;
    uint32_t incarnation;
    unsigned copies;
    char copy[16];
} world;

static bft_status append(struct bfti_wal *wal, uint64_t id, bool copy)
{
    struct bfti_frame *frame;
    uint64_t lsn, end;
    void *payload;
    bft_status status = bfti_frame_create(wal, 1, LEN, &frame, &payload);
    if (status != BFT_OK)
        return status;
    memset(payload, (int)(id & 0xff), LEN);
    bfti_frame_seal(wal, frame);
    bfti_wal_enter(wal, &world.thread);
    bfti_wal_link(wal, &world.thread, frame, &lsn, &end);
    if (copy)
        status = bfti_wal_copy(wal, &world.thread, end);
    bfti_wal_leave(wal, &world.thread);
    return status;
}

static bft_status append_some(struct bfti_wal *wal, unsigned n)
{
    bft_status status = BFT_OK;
    for (unsigned i = 0; status == BFT_OK && i < n; i++)
        status = append(wal, i, i % 3 != 0);
    return status;
}

static bft_status sync_all(struct bfti_wal *wal)
{
    return bfti_wal_sync(wal, &world.thread, bfti_wal_end(wal));
}

/* NULL unless all went well. */
static bft_status open_at(uint64_t first, uint64_t from, uint64_t end,
                          struct bfti_wal **wal)
{
    bft_status status = bfti_wal_open(&world.options, first, from, end,
                                      ++world.incarnation, wal);
    if (status != BFT_OK) {
        assert_null(*wal);
        return status;
    }
    memset(&world.thread, 0, sizeof(world.thread));
    bfti_wal_attach(*wal, &world.thread);
    return BFT_OK;
}

static void segment_path(const char *dir, uint64_t lsn, char path[64])
{
    (void)snprintf(path, 64, "/%s/log-%016llx", dir,
                   (unsigned long long)(lsn - lsn % SEGMENT));
}

static void flip(unsigned frame, unsigned byte)
{
    uint64_t at = (uint64_t)frame * FRAME + byte;
    char path[64];
    segment_path("db", at, path);
    assert_int_equal(BFT_OK, bfti_sim_flip(world.sim, path, at % SEGMENT, 1));
}

static void cut(uint64_t lsn, uint64_t bytes)
{
    char path[64];
    segment_path("db", lsn, path);
    assert_int_equal(BFT_OK, bfti_sim_cut(world.sim, path, bytes));
}

/* What a crash has left: a frame is torn, and whole ones lie behind it; of two
 * segments that nobody needs one was cut short. */
static void leave_much_to_do(void)
{
    flip(WHOLE, BFTI_FRAME_HEADER);
    cut(0, 1000);
}

static void world_make(void)
{
    struct bfti_wal *wal;
    memset(&world, 0, sizeof(world));
    allocs_left = -1;
    world.sim = bfti_vfs_sim_create(bfti_env_system(), 1);
    assert_non_null(world.sim);
    assert_int_equal(BFT_OK, world.sim->ops->make_dir(world.sim, "db"));
    world.env = *bfti_env_system();
    world.env.alloc = failing_alloc;
    world.env.realloc = failing_realloc;
    world.options.env = &world.env;
    world.options.vfs = world.sim;
    world.options.dir = "db";
    world.options.segment_bytes = SEGMENT;
    assert_int_equal(BFT_OK, open_at(0, 0, 0, &wal));
    assert_int_equal(BFT_OK, append_some(wal, SYNCED));
    assert_int_equal(BFT_OK, sync_all(wal));
    for (unsigned i = SYNCED; i < FRAMES; i++)
        assert_int_equal(BFT_OK, append(wal, i, true));
    assert_int_equal(FRAMES * FRAME, bfti_wal_copied(wal));
    bfti_wal_close(wal);
    leave_much_to_do();
}

static void world_free(void)
{
    bfti_vfs_sim_destroy(world.sim);
}

/* --- things ------------------------------------------------------------------- */

static bft_status count_frame(void *arg, uint64_t lsn, uint8_t type,
                              const void *payload, size_t len)
{
    (void)lsn, (void)type, (void)payload;
    assert_int_equal(LEN, len);
    ++*(uint64_t *)arg;
    return BFT_OK;
}

/* From NEEDED on: frames up to END, without a gap. */
static uint64_t frames_to(uint64_t end)
{
    assert_int_equal(0, end % FRAME);
    return end / FRAME - NEEDED;
}

static bft_status scan_found(struct bfti_wal_found *found)
{
    uint64_t frames = 0;
    bft_status status =
        bfti_wal_scan(&world.options, (uint64_t)NEEDED * FRAME,
                      (uint64_t)SYNCED * FRAME, count_frame, &frames, found);
    if (status != BFT_OK) {
        assert_int_equal(0, found->end + found->frames);
        return status;
    }
    assert_int_equal(frames, found->frames);
    assert_int_equal(frames_to(found->end), frames);
    assert_true(frames >= WHOLE - NEEDED);
    return BFT_OK;
}

static bft_status scan(void)
{
    struct bfti_wal_found found;
    bft_status status = scan_found(&found);
    if (status == BFT_OK)
        assert_int_equal(WHOLE - NEEDED, found.frames);
    return status;
}

static bft_status open_found(struct bfti_wal **wal)
{
    struct bfti_wal_found found;
    bft_status status = scan_found(&found);
    *wal = NULL;
    return status == BFT_OK ? open_at((uint64_t)NEEDED * FRAME,
                                      found.highest_mark, found.end, wal)
                            : status;
}

/* Recovery, and one frame more; then nothing of what was behind it comes back. */
static bft_status recover(void)
{
    struct bfti_wal_found found;
    struct bfti_wal *wal;
    uint64_t end;
    bft_status status = open_found(&wal);
    if (status != BFT_OK)
        return status;
    status = append(wal, 99, true);
    if (status == BFT_OK)
        status = sync_all(wal);
    end = bfti_wal_durable(wal);
    bfti_wal_close(wal);
    if (status == BFT_OK)
        status = scan_found(&found);
    if (status == BFT_OK)
        assert_int_equal(end, found.end);
    return status;
}

/* Another log went on much further: what it left is removed. */
static bft_status recover_before_another(void)
{
    static const char zeros[SEGMENT];
    uint64_t bytes, first = (uint64_t)NEEDED * FRAME;
    struct bfti_wal *wal;
    char path[64];
    bft_status status;
    segment_path("db", first + ((uint64_t)SEGMENT << 20), path);
    assert_int_equal(BFT_OK,
                     bfti_sim_put(world.sim, path, zeros, sizeof(zeros)));
    status =
        open_at(first, (uint64_t)SYNCED * FRAME, (uint64_t)WHOLE * FRAME, &wal);
    if (status == BFT_OK)
        assert_int_equal(BFT_NOT_FOUND, bfti_sim_size(world.sim, BFTI_SIM_CACHE,
                                                      path, &bytes));
    bfti_wal_close(wal);
    return status;
}

/* Segments that are made ahead, of old files and anew, and when they are needed. */
static bft_status work(void)
{
    uint64_t first = (uint64_t)NEEDED * FRAME;
    struct bfti_wal *wal;
    bft_status status = open_found(&wal);
    if (status != BFT_OK)
        return status;
    for (unsigned round = 0; status == BFT_OK && round < 3; round++) {
        status = append_some(wal, round == 1 ? 60 : 20);
        if (status == BFT_OK)
            status = sync_all(wal);
        if (status == BFT_OK)
            status = bfti_wal_drop_below(wal, first);
        if (status == BFT_OK)
            status = bfti_wal_prepare(wal);
        if (status == BFT_OK)
            status = bfti_wal_make_room(wal, 2 * SEGMENT);
    }
    if (status == BFT_OK)
        assert_int_equal(bfti_wal_end(wal), bfti_wal_durable(wal));
    bfti_wal_close(wal);
    return status;
}

/* A log of its own, of which nothing is needed: segments are dropped, kept as
 * spares, made of those, and removed. */
static bft_status live(void)
{
    struct bfti_wal_options options = world.options;
    bft_status status;
    (void)snprintf(world.copy, sizeof(world.copy), "log%u", ++world.copies);
    world.options.dir = world.copy;
    status = world.sim->ops->make_dir(world.sim, world.copy);
    if (status == BFT_OK) {
        struct bfti_wal *wal;
        status = open_at(0, 0, 0, &wal);
        for (unsigned i = 0; status == BFT_OK && i < 4; i++) {
            status = append_some(wal, i == 1 ? 70 : 20);
            if (status == BFT_OK)
                status = sync_all(wal);
            if (status == BFT_OK)
                status = bfti_wal_drop_below(wal, bfti_wal_durable(wal));
        }
        bfti_wal_close(wal);
    }
    world.options = options;
    return status;
}

struct told {
    uint64_t frames, gap_bytes;
};

static bft_status tell_gap(void *arg, uint64_t from, uint64_t to,
                           const char *why)
{
    struct told *told = arg;
    assert_non_null(why);
    told->gap_bytes += to - from;
    return BFT_OK;
}

/* Of a log with a hole in the middle: what is told is whole. */
static bft_status salvage_from(uint64_t start, uint64_t gaps, uint64_t lost)
{
    struct told told = {0, 0};
    struct bfti_wal_salvage_calls calls = {&told, count_frame, tell_gap};
    struct bfti_wal_salvaged out;
    bft_status status =
        bfti_wal_salvage(&world.options, start, 0, &calls, &out);
    if (status != BFT_OK)
        return status;
    assert_int_equal(told.frames, out.frames);
    assert_int_equal(gaps, out.gaps);
    assert_int_equal(lost * FRAME, told.gap_bytes);
    assert_int_equal((uint64_t)WHOLE * FRAME, out.end);
    return BFT_OK;
}

static bft_status salvage(void)
{
    uint64_t start = (uint64_t)NEEDED * FRAME;
    bft_status status;
    flip(NEEDED + 2, BFTI_FRAME_HEADER + 7);
    status = salvage_from(start, 1, 1);
    /* From the oldest on: of the segment that was cut short a frame is whole, and
     * six are not. */
    if (status == BFT_OK)
        status = salvage_from(BFTI_WAL_OLDEST, 2, 1 + 6);
    flip(NEEDED + 2, BFTI_FRAME_HEADER + 7);
    return status;
}

static bft_status guess(void)
{
    uint64_t bytes = 1;
    bft_status status = bfti_wal_guess_segment_bytes(&world.options, &bytes);
    /* Where no file can be asked for its length names tell of some multiple. */
    if (status == BFT_OK && failing)
        assert_int_equal(0, bytes % SEGMENT);
    else
        assert_int_equal(status == BFT_OK ? SEGMENT : 0, bytes);
    return status;
}

static bft_status read_feed(struct bfti_wal *wal)
{
    struct bfti_wal_entry entry;
    struct bfti_wal_feed *feed;
    uint64_t frames = 0;
    bft_status status =
        bfti_wal_feed_open(wal, (uint64_t)NEEDED * FRAME, 0, &feed);
    if (status != BFT_OK) {
        assert_null(feed);
        return status;
    }
    while ((status = bfti_wal_feed_read(feed, &entry)) == BFT_OK) {
        assert_int_equal(LEN, entry.len);
        bfti_wal_feed_pass(feed, &entry);
        frames++;
    }
    bfti_wal_feed_close(feed);
    if (status != BFT_NOT_FOUND)
        return status;
    assert_int_equal(frames_to(bfti_wal_durable(wal)), frames);
    return BFT_OK;
}

static bft_status feed(void)
{
    struct bfti_wal *wal;
    bft_status status = open_found(&wal);
    if (status == BFT_OK)
        status = read_feed(wal);
    bfti_wal_close(wal);
    return status;
}

/* A copy of what is durable, which is a log as the one is. */
static bft_status export(void)
{
    struct bfti_wal_options options = world.options;
    struct bfti_wal *wal;
    bft_status status = open_found(&wal);
    (void)snprintf(world.copy, sizeof(world.copy), "copy%u", ++world.copies);
    if (status == BFT_OK)
        status = world.sim->ops->make_dir(world.sim, world.copy);
    if (status == BFT_OK)
        status = bfti_wal_export(wal, (uint64_t)NEEDED * FRAME,
                                 bfti_wal_durable(wal), world.sim, world.copy);
    bfti_wal_close(wal);
    if (status != BFT_OK)
        return status;
    world.options.dir = world.copy;
    status = scan();
    world.options = options;
    return status;
}

/* --- tests -------------------------------------------------------------------- */

static const struct thing {
    const char *name;
    bft_status (*done)(void);
    bool forgiving; /* a call that fails may be done without */
} things[] = {
    {"scan", scan, false},
    {"recover", recover, false},
    {"recover before another", recover_before_another, false},
    {"work", work, false},
    {"live", live, false},
    {"salvage", salvage, false},
    {"guess", guess, true},
    {"feed", feed, false},
    {"export", export, false},
};
enum { THINGS = sizeof(things) / sizeof(*things) };

static void expect_told(const struct thing *thing, uint64_t n,
                        bft_status expected, bft_status status)
{
    char text[400] = "";
    if (thing->forgiving && status == BFT_OK)
        return;
    (void)bft_last_error(text, sizeof(text));
    if (status != expected || text[0] == 0)
        fail_msg("%s, call %llu: %d, not %d: \"%s\"", thing->name,
                 (unsigned long long)n, (int)status, (int)expected, text);
}

/* All is well again. */
static void expect_well(const struct thing *thing)
{
    bft_status status;
    char text[400] = "";
    bfti_sim_heal(world.sim);
    allocs_left = -1;
    failing = false;
    status = thing->done();
    (void)bft_last_error(text, sizeof(text));
    if (status != BFT_OK)
        fail_msg("%s, all being well: %d: \"%s\"", thing->name, (int)status,
                 text);
}

static const struct failure {
    unsigned ops;
    enum bfti_sim_harm harm;
    bft_status status;
} failures[] = {
    {BFTI_SIM_ALL, BFTI_SIM_REFUSE, BFT_IO},
    {BFTI_SIM_ALL, BFTI_SIM_REFUSE, BFT_NO_SPACE},
    {BFTI_SIM_WRITE, BFTI_SIM_PART, BFT_NO_SPACE},
};
enum { FAILURES = sizeof(failures) / sizeof(*failures) };

static uint64_t every_call_of(const struct thing *thing,
                              const struct failure *failure, bool sticky)
{
    uint64_t struck = 1, n = 1;
    for (; struck; n++) {
        struct bfti_sim_fault fault = {.ops = failure->ops,
                                       .nth = n,
                                       .sticky = sticky,
                                       .harm = failure->harm,
                                       .status = failure->status};
        bft_status status;
        world_make();
        bfti_sim_fail(world.sim, &fault);
        failing = true;
        status = thing->done();
        struck = bfti_sim_struck(world.sim);
        if (struck)
            expect_told(thing, n, fault.status, status);
        else
            assert_int_equal(BFT_OK, status);
        expect_well(thing);
        world_free();
    }
    return n - 2;
}

static void every_call_that_fails_is_told(void **state)
{
    uint64_t calls = 0;
    (void)state;
    for (size_t i = 0; i < THINGS; i++)
        for (unsigned k = 0; k < 2 * FAILURES; k++) {
            const struct failure *failure = &failures[k / 2];
            uint64_t of_this = every_call_of(&things[i], failure, k % 2);
            assert_true(of_this > 5 || failure->ops != BFTI_SIM_ALL);
            calls += of_this;
        }
    tally(TALLY_FAULTS, calls);
}

static uint64_t every_allocation_of(const struct thing *thing, bool sticky)
{
    bool struck = true;
    int64_t n = 0;
    for (; struck; n++) {
        bft_status status;
        world_make();
        refusals = 0;
        failing = true;
        allocs_sticky = sticky;
        allocs_left = n;
        status = thing->done();
        struck = refusals > 0;
        /* A buffer to gather frames in is done without. */
        if (status != BFT_OK)
            expect_told(thing, (uint64_t)n, BFT_NO_MEMORY, status);
        expect_well(thing);
        world_free();
    }
    return (uint64_t)(n - 1);
}

static void every_allocation_that_fails_is_told(void **state)
{
    uint64_t allocations = 0;
    (void)state;
    for (size_t i = 0; i < THINGS; i++)
        allocations += every_allocation_of(&things[i], false) +
                       every_allocation_of(&things[i], true);
    assert_true(allocations > 100);
    tally(TALLY_FAULTS, allocations);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_that_fails_is_told),
        cmocka_unit_test(every_allocation_that_fails_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
